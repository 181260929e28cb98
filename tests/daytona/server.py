"""A simulated server in a thread, and the program as a process before it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from reaper.simulator.clock import Clock
from reaper.simulator.daytona.rules import Behaviour
from reaper.simulator.server import Simulator
from reaper.simulator.world import ContainerSpec, SandboxSpec
from tests.daytona.lab import DAY, HARBOR, HOUR, Watched
from tests.engine.lab import until
from tests.run import Program

QUICK = Behaviour(pickup=(0, 0), destroy=(0, 0.2), stop=(0, 0), get_cache=0, list_lag=0)
SOON = {"REAPER_RETRY__INITIAL_DELAY": "20ms", "REAPER_RETRY__JITTER": "0", "REAPER_RETRY__MAX_DELAY": "50ms"}


class Served:
    """A server in a thread that passes with the real time. A context manager.

    Args:
        folder: the program's.
        organisations: their names; the first one is what the environment points at.
        containers: of the simulated engine.
        ahead: by how much its clock differs from the real one.
    """

    def __init__(
        self,
        folder: Path,
        *organisations: str,
        containers: int | list[ContainerSpec] = 0,
        ahead: timedelta = timedelta(0),
    ) -> None:
        names = organisations or ("default",)
        self.first = names[0]
        clock = Clock(datetime.now(UTC) + ahead)
        homes: dict[str, tuple[SandboxSpec, ...]] = dict.fromkeys(names, ())
        self.sim = Simulator(behaviour=QUICK, sandboxes=homes, containers=containers, clock=clock)
        self.traffic = Watched(self.sim.clock)
        self.sim.daytona.traffic = self.traffic
        self.folder = folder

    def __enter__(self) -> Self:
        self.sim.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.sim.__exit__(None, None, None)

    @property
    def key(self) -> str:
        return self.sim.api_key(self.first)

    def program(self, **env: str) -> Program:
        """The program, pointed at this world by the variables that the simulator prints."""
        return Program(self.folder, {**self.sim.environment(), **SOON, **env})

    def add(self, name: str, *, age: timedelta = 2 * DAY, org: str | None = None, **fields: Any) -> str:
        """A sandbox that Harbor left running, unless told otherwise; its id."""
        created = self.sim.clock.now() - age
        values: dict[str, Any] = {"created": created, "active": created, "labels": HARBOR, "auto_delete": 0}
        spec = SandboxSpec(name=name, **{**values, **fields})
        organisation = self.sim.organisation(org or self.first)
        return self.sim.do(lambda: organisation.add(spec)).id

    def believable(self) -> None:
        """What the tests of the options choose from."""
        self.add("forgotten", labels={**HARBOR, "run": "nightly"})
        self.add("ancient", age=5 * DAY)
        self.add("stopped", state="stopped", age=20 * HOUR, auto_delete=-1)
        self.add("just-stopped", state="stopped", age=HOUR, auto_delete=-1)
        self.add("living", age=HOUR, labels={**HARBOR, "run": "nightly"})
        self.add("middling", age=10 * HOUR)
        self.add("kept", labels={**HARBOR, "reaper.keep": ""})
        self.add("foreign", labels={"run": "nightly"})

    def left(self, org: str | None = None) -> set[str]:
        organisation = self.sim.organisation(org or self.first)

        def names() -> set[str]:
            organisation.settle()
            return {row.name for row in organisation.rows.values() if not row.hidden}

        return self.sim.do(names)

    def finish_destroying(self) -> None:
        """Wait for what the platform is destroying: it takes its own time, whatever has become of the client."""
        organisation = self.sim.organisation(self.first)

        def destroying() -> bool:
            organisation.settle()
            return any(row.desired == "destroyed" and not row.hidden for row in organisation.rows.values())

        until(lambda: not self.sim.do(destroying), "the end of what is being destroyed")

    def changes(self) -> list[str]:
        """The requests that would change something."""
        return [f"{call.method} {call.path}" for call in self.traffic.calls if call.method != "GET"]

    @contextmanager
    def first_deletion(self) -> Iterator[threading.Event]:
        """Is set when the first deletion has been dealt with."""
        seen = threading.Event()
        self.traffic.hooks.append(lambda call: seen.set() if call.method == "DELETE" else None)
        yield seen
