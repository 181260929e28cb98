"""What fails by chance holds up itself alone."""

import pytest

from reaper.core.model import Outcome
from reaper.errors import ServerError
from reaper.providers.base import Limits
from reaper.providers.memory.world import Rule
from tests.sweep.lab import Lab, counts, many, running

pytestmark = pytest.mark.anyio


async def test_a_deletion_that_is_tried_again_looks_before_it_takes_its_slot() -> None:
    """A listing takes a second: in the only slot for removals the other nine would wait for each of them."""
    lab = Lab(*many(10), limits=Limits(removals=1))
    lab.world.rules += [
        Rule("dependents", seconds=1.0),
        *(Rule("delete", f"c{number:04}", calls={1}, error=ServerError("500")) for number in range(5)),
    ]
    report = await lab.sweep()
    assert counts(report) == {Outcome.DELETED: 10}
    assert report.seconds < 7


async def test_in_the_slot_a_container_that_waited_too_long_is_inspected_and_nothing_is_listed_again() -> None:
    lab = Lab(*many(40), limits=Limits(removals=1))
    lab.world.rules.append(Rule("delete", seconds=0.11))
    assert counts(await lab.sweep()) == {Outcome.DELETED: 40}
    assert len(lab.world.made("inspect")) > 80  # one for the decision, one before the deletion, and one in the slot
    assert len(lab.world.made("dependents")) <= 4


async def test_what_was_started_while_it_waited_for_the_slot_stays() -> None:
    lab = Lab(*many(40), limits=Limits(removals=1))

    def start_all() -> None:
        for name in lab.left():
            lab.world.change(name, lambda resource: running(resource.name, hours=0))

    lab.world.rules += [Rule("delete", seconds=0.11), Rule("delete", calls={30}, before=start_all)]
    assert counts(await lab.sweep()) == {Outcome.DELETED: 29, Outcome.SKIPPED: 11}
    assert len(lab.left()) == 11


async def test_others_begin_for_those_that_back_off_though_none_has_ended() -> None:
    lab = Lab(*many(1000), limits=Limits(reads=2, removals=1))
    names = [f"c{number:04}" for number in range(0, 1000, 3)]
    lab.world.rules += [Rule("delete", name, calls={1}, error=ServerError("500")) for name in names]
    report = await lab.sweep()
    assert counts(report) == {Outcome.DELETED: 1000}
    assert report.seconds < 25
