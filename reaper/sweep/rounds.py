"""The rounds of one sweep of one endpoint: its units stage after stage, and again what failed or waits."""

from collections.abc import Callable, Sequence

from reaper.core.model import Outcome
from reaper.core.ordering import users_first
from reaper.retry.resting import Resting
from reaper.sweep.concurrency import Pace, for_each
from reaper.sweep.context import Context
from reaper.sweep.dependents import Dependents
from reaper.sweep.ports import Endpoint
from reaper.sweep.unit import Unit


class Rounds:
    """Runs the units.

    Args:
        endpoint: where they are.
        context: of the sweep.
        units: all that are to go.
        stage_ended: is called after each stage.
        fail_fast: whether the sweep ends with the first failure.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        context: Context,
        units: Sequence[Unit],
        stage_ended: Callable[[], None],
        *,
        fail_fast: bool,
    ) -> None:
        self._endpoint = endpoint
        self._context = context
        self._units = units
        self._stage_ended = stage_ended
        self._fail_fast = fail_fast

    async def run(self) -> None:
        """One round for all, one more for what failed (first what the breaker held back), and others for what waits."""
        await self._in_order([unit for unit in self._units if not self._is_resting(unit)])
        again = sorted((unit for unit in self._units if unit.retryable), key=Unit.was_tried)
        while again and not self._context.draining:
            if (confirmer := self._context.confirmer) is not None:
                await confirmer.settled()
            self._endpoint.retrier.breaker.reset()
            for unit in again:
                unit.reopen()
            before = self._deleted()
            await self._in_order(again)
            again = [unit for unit in again if unit.waits] if self._deleted() > before else []

    def _is_resting(self, unit: Unit) -> bool:
        """Whether a member has failed so lately that nothing is done about the unit, which has its results then."""
        found = {id_: rest for id_ in unit.ids() if (rest := self._endpoint.rests.of(id_)) is not None}
        if found:
            unit.leave_alone(found)
        return bool(found)

    def _deleted(self) -> int:
        return sum(result.outcome is Outcome.DELETED for unit in self._units for result in unit.results.values())

    async def _in_order(self, units: Sequence[Unit]) -> None:
        """Each stage when the one before is done, and what uses something before that."""
        for stage in sorted({unit.stage for unit in units}):
            for layer in users_first([unit for unit in units if unit.stage == stage], Unit.ids, Unit.uses):
                await self._round(layer)
            self._stage_ended()

    async def _round(self, units: Sequence[Unit]) -> None:
        limits = self._endpoint.reader.limits
        if self._endpoint.reader.traits.takes_linked:
            units = sorted(units, key=lambda unit: unit.newest, reverse=True)  # what is linked is newer than its owner
            self._context.dependents = self._context.dependents or Dependents(self._endpoint.retrier.resting)
            self._context.dependents.begin({unit.key: [d.resource for d in unit.decisions] for unit in units})
        # With --fail-fast no unit begins while another one waits, so that few have begun when the first one fails.
        resting = Resting() if self._fail_fast else self._endpoint.retrier.resting
        if limits.together is not None:
            await for_each(units, Unit.run, min(len(units), 2 * limits.together), "reap", resting)
            return
        pace = Pace(limits, len(units), sum(unit.has_running for unit in units), resting)
        self._context.crowded = pace.crowded
        await for_each(units, lambda unit: pace.within(unit.run), min(len(units), pace.most), "reap", resting)
