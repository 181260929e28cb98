"""Paging while sandboxes come, go and are used: nothing that was there throughout is lost, nothing is listed twice."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import count
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reaper.errors import UnreadableError
from reaper.providers.base import Call, Inventory
from reaper.simulator.clock import Clock
from reaper.simulator.daytona.rules import Behaviour
from reaper.simulator.daytona.state import Organisation
from reaper.simulator.server import Simulator
from reaper.simulator.world import SandboxSpec
from tests.providers.lab import client, direct
from tests.simulator.daytona_client import EXACT, START

T = TypeVar("T")
Act = tuple[str, int, float]
Script = list[list[Act]]
Ages = list[float]
PROPERTY = settings(max_examples=200, database=None)
LAGGING = replace(EXACT, list_lag=1.5, list_flap=0.5)

# One change between two pages: what, to the how manieth sandbox, and how many seconds later.
ACT = st.tuples(
    st.sampled_from(["create", "create old", "delete", "vanish", "touch", "stop", "start", "wait"]),
    st.integers(0, 30),
    st.sampled_from([0.0, 0.001, 0.7, 20.0]),
)
# For each page what is done before it; after the last one nothing is done any more.
SCRIPT = st.lists(st.lists(ACT, max_size=6), max_size=12)
# How long ago each was created, in seconds; some at the same time.
AGES = st.lists(st.sampled_from([0.0, 1.0, 2.5, 3600.0]) | st.floats(0, 86400, width=32), max_size=20)


@dataclass
class Story:
    """One organisation, what changes in it while it is listed, and what was there throughout."""

    sim: Simulator
    org: Organisation
    script: Script
    ever: list[str] = field(default_factory=list)
    throughout: set[str] = field(default_factory=set)

    async def __call__(self, what: str, function: Callable[[], Awaitable[T]]) -> T:
        """Make a request, and before it what the script says: see ``providers.base.Call``."""
        assert what
        if self.script:
            acts = self.script.pop(0)
            self.sim.do(lambda: self._play(acts))
        return await function()

    def _play(self, acts: list[Act]) -> None:
        for what, number, seconds in acts:
            self.sim.clock.advance(timedelta(seconds=seconds))
            self.org.settle()
            self._act(what, number)
            self.throughout &= {row.id for row in self.org.rows.values() if not row.hidden}

    def _act(self, what: str, number: int) -> None:
        rows = sorted(self.org.rows.values(), key=lambda row: row.id)
        if what.startswith("create"):
            age = timedelta(seconds=number * 100 if what == "create old" else 0)
            self.ever.append(self.org.add(SandboxSpec(created=self.sim.clock.now() - age), known=False).id)
            return
        if not rows:
            return
        row = rows[number % len(rows)]
        match what:
            case "delete" if row.desired != "destroyed" and row.state in ("started", "stopped"):
                self.org.delete(row, row.version)
            case "vanish":
                self.org.change(row, state="destroyed")
            case "touch":
                self.org.touch(row)
            case "stop" | "start" if row.desired != "destroyed":
                state = "stopped" if what == "stop" else "started"
                self.org.change(row, state=state, desired=state)


class Stage:
    """One simulator in a thread and one loop, for many stories."""

    def __init__(self, sim: Simulator, runner: asyncio.Runner) -> None:
        self.sim = sim
        self._runner = runner
        self._numbers = count()

    def tell(self, ages: Ages, size: int, script: Script, behaviour: Behaviour) -> tuple[Story, Inventory]:
        """List a new organisation, which is changed meanwhile."""
        name = f"org-{next(self._numbers)}"
        org = self.sim.do(lambda: self.sim.daytona.add_organisation(name, behaviour=behaviour))
        story = Story(self.sim, org, list(script))
        self.sim.do(lambda: self._fill(story, ages))
        return story, self.list(name, size, story)

    def list(self, organisation: str, size: int, call: Call = direct) -> Inventory:
        """List an organisation by pages of this size."""
        return self._runner.run(self._list(organisation, size, call))

    def _fill(self, story: Story, ages: Ages) -> None:
        now = self.sim.clock.now()
        now -= timedelta(microseconds=now.microsecond % 1000)
        for age in ages:
            # Whole milliseconds, as a cursor has them: see the last test. Some have a row of activity, some have none.
            created = now - timedelta(milliseconds=round(age * 1000))
            story.ever.append(story.org.add(SandboxSpec(created=created, no_activity=len(story.ever) % 3 == 2)).id)
        story.throughout = set(story.ever)

    async def _list(self, organisation: str, size: int, call: Call) -> Inventory:
        reader = client(self.sim.daytona_url, self.sim.api_key(organisation), page_size=size)
        try:
            return await reader.list(call)
        finally:
            await reader.close()


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Simulator(clock=Clock(START, rate=0)) as sim, asyncio.Runner() as runner:
        yield Stage(sim, runner)


@pytest.mark.parametrize("behaviour", [EXACT, LAGGING], ids=["exact", "lagging"])
def test_nothing_is_lost_or_listed_twice_while_sandboxes_come_and_go(stage: Stage, behaviour: Behaviour) -> None:
    @PROPERTY
    @given(AGES, st.integers(1, 7), SCRIPT)
    def check(ages: Ages, size: int, script: Script) -> None:
        story, inventory = stage.tell(ages, size, script, behaviour)
        ids = [resource.id for resource in inventory.resources]
        assert len(ids) == len(set(ids))
        assert story.throughout <= set(ids) <= set(story.ever)
        assert inventory.unreadable == 0

    check()


def test_a_quiet_organisation_is_listed_whole_in_the_order_of_creation(stage: Stage) -> None:
    @PROPERTY
    @given(AGES, st.integers(1, 7))
    def check(ages: Ages, size: int) -> None:
        story, inventory = stage.tell(ages, size, [], EXACT)
        assert {resource.id for resource in inventory.resources} == set(story.ever)
        created = [resource.created_at for resource in inventory.resources]
        assert None not in created
        assert created == sorted(created, key=str)

    check()


@pytest.mark.parametrize("size", range(1, 8))
def test_what_is_deleted_page_by_page_hides_nothing(stage: Stage, size: int) -> None:
    """As the sweep of another reaper does it meanwhile: the oldest go first, right behind the cursor."""
    script = [[("vanish", number, 0.0), ("vanish", number, 0.0)] for number in range(12)]
    story, inventory = stage.tell([60.0 * number for number in range(30)], size, script, EXACT)
    assert 0 < len(story.throughout) < 30
    assert story.throughout <= {resource.id for resource in inventory.resources}


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_crowd_within_one_millisecond_is_listed_whole_or_not_at_all(stage: Stage, size: int) -> None:
    """A cursor cannot tell them apart, so a page that they overfill comes again and again."""
    name = f"crowd-{size}"

    def fill() -> None:
        org = stage.sim.daytona.add_organisation(name, behaviour=EXACT)
        for number in range(4):
            org.add(SandboxSpec(created=START + timedelta(microseconds=10 * number + 1)))
        org.add(SandboxSpec(created=START + timedelta(seconds=1)))

    stage.sim.do(fill)
    if size > 4:
        assert len(stage.list(name, size).resources) == 5
    else:
        with pytest.raises(UnreadableError, match="does not end"):
            stage.list(name, size)
