"""A group that has begun to go, and one of whose members changes then: the others stay."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from reaper.core.model import Resource, State
from reaper.errors import InProgressError
from reaper.providers.base import Call, Limits, Traits
from reaper.providers.memory import Rule
from tests.sweep.lab import MINUTE, Lab, outcomes, result, stopped

pytestmark = pytest.mark.anyio

EXACT = Traits()
ACCEPTS = Traits(stops_first=False, confirm_within=MINUTE)
BOTH = pytest.mark.parametrize("traits", [EXACT, ACCEPTS], ids=["exact", "accepting"])


def member(name: str, *used: str) -> Resource:
    return stopped(name, group="p", uses=frozenset(f"id-{other}" for other in used))


def lab(traits: Traits, *things: Resource) -> Lab:
    made = Lab(*things, limits=Limits() if traits is EXACT else Limits(together=8))
    made.reader.traits = made.provider.traits = traits
    return made


def begin_to_start(resource: Resource) -> Resource:
    return replace(resource, state=State.CHANGING, raw_state="starting")


@BOTH
async def test_a_member_whose_deletion_is_refused_because_it_runs_again_keeps_what_is_left(traits: Traits) -> None:
    group = lab(traits, member("user", "base"), member("twin"), member("base"))
    error = InProgressError("Sandbox state change in progress") if traits is ACCEPTS else None
    group.world.rules.append(Rule("delete", "twin", error=error, before=lambda: group.world.start("twin")))
    report = await group.sweep()
    assert outcomes(report) == {"user": "deleted", "twin": "skipped", "base": "skipped"}
    words = "the deletion of twin of its project was refused: was exited and is running now"
    assert result(report, "base").detail == words
    assert group.left() == {"twin", "base"}
    assert not group.world.made("delete", "base")


async def test_a_member_that_another_client_is_starting_keeps_what_is_left() -> None:
    """Its deletion is refused as a change is in progress, and that is not this sweep's."""
    group = lab(ACCEPTS, member("user", "base"), member("twin"), member("base"))
    refusal = Rule("delete", "twin", error=InProgressError("Sandbox state change in progress"))
    refusal.before = lambda: group.world.change("twin", begin_to_start)
    group.world.rules.append(refusal)
    report = await group.sweep()
    assert group.left() == {"twin", "base"}
    assert outcomes(report)["base"] == "skipped"
    assert not group.world.made("delete", "base")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda group: group.world.start("last"), "last of its project was exited and is running now"),
        (lambda group: group.relabel("last", {"reaper.keep": ""}), "last of its project has other labels now"),
    ],
    ids=["started", "relabelled"],
)
@BOTH
async def test_a_member_that_changes_while_others_go_keeps_those_that_had_to_wait(
    traits: Traits, change: Callable[[Lab], object], words: str
) -> None:
    group = lab(traits, member("first", "second"), member("second", "last"), member("last"))
    group.world.rules.append(Rule("delete", "first", seconds=5, after=lambda: change(group)))
    report = await group.sweep()
    assert outcomes(report) == {"first": "deleted", "second": "skipped", "last": "skipped"}
    assert words in result(report, "second").detail
    assert group.left() == {"second", "last"}


async def test_a_dead_member_that_the_engine_lists_as_removing_is_deleted_with_the_others() -> None:
    """So do Docker 20.10 and 26.1 list what a failed removal has left, for ever."""
    dead = replace(member("dead"), state=State.FAILED, raw_state="dead")
    group = lab(EXACT, dead, member("other"))
    members = group.provider.members

    async def listed(resource: Resource, call: Call) -> Sequence[Resource]:
        found = await members(resource, call)
        return [replace(r, state=State.CHANGING, raw_state="removing") if r.name == "dead" else r for r in found]

    group.provider.members = listed  # type: ignore[method-assign]
    assert await group.outcomes() == {"dead": "deleted", "other": "deleted"}
