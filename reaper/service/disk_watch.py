"""Watches the disk of one endpoint, and has it swept under pressure when that is too full."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import anyio

from reaper.core.disk import DiskUsage
from reaper.providers.abilities import DiskMeter
from reaper.service.loaded import Loaded
from reaper.service.reporter import Reporter
from reaper.sweep.pressure import Relief, concerned
from reaper.sweep.sweep import Endpoint

FIRST_REST, LONGEST_REST = 60.0, 900.0  # seconds after a sweep under pressure that did not relieve it


@dataclass
class DiskWatch:
    """Measures the disk of one endpoint as often as that costs nothing.

    Args:
        endpoint: it.
        meter: measures its disk.
        loaded: returns the configuration in force.
        reporter: is notified of what is measured.
        wake: is called when the endpoint is to be swept under pressure.
    """

    endpoint: Endpoint
    meter: DiskMeter
    loaded: Callable[[], Loaded]
    reporter: Reporter
    wake: Callable[[], None]
    is_pressed: bool = False

    def __post_init__(self) -> None:
        self.name = self.endpoint.reader.endpoint
        self._rest = FIRST_REST
        self._rests_until = -math.inf
        self._unrelieved: frozenset[str] = frozenset()

    @property
    def wants_sweep(self) -> bool:
        """Whether a sweep under pressure is due now."""
        return self.is_pressed and anyio.current_time() >= self._rests_until

    async def run(self) -> None:
        """Measure for as long as the endpoint is kept."""
        while True:
            if concerned(self.loaded().plan.rules, self.endpoint):
                self._measured(await self.meter.usage())
            elif self.is_pressed:  # a reload has taken the last such policy away
                self._measured(DiskUsage())
            await anyio.sleep(self.meter.every)

    def swept(self, relief: Relief | None) -> None:
        """A sweep under pressure has ended; None: there was none any more, or it broke off."""
        if relief is not None and relief.relieved:
            self._rest = FIRST_REST
        else:
            self._rests_until = anyio.current_time() + self._rest
            self._rest = min(self._rest * 2, LONGEST_REST)
        if relief is not None:
            self._measured(relief.after, relief)

    def _measured(self, usage: DiskUsage, relief: Relief | None = None) -> None:
        thresholds = self.loaded().plan.disk
        self.is_pressed = bool(thresholds.exceeded(usage))
        if not self.is_pressed:
            self._rest, self._rests_until = FIRST_REST, -math.inf
        if relief is not None:
            self._unrelieved = relief.sorts if relief.exhausted else frozenset()
        elif usage.problem is None and not thresholds.missing(usage, self._unrelieved):
            self._unrelieved = frozenset()
        is_stuck = bool(self._unrelieved)
        self.reporter.disk(self.name, usage, thresholds, pressed=self.is_pressed, unrelieved=is_stuck, relief=relief)
        if self.wants_sweep:
            self.wake()
