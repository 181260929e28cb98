"""The world moves on between the listing, the decision and the deletion: then nothing is touched."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count

import anyio
import pytest

from reaper.core.conditions import Policy
from reaper.core.model import Resource, State
from reaper.core.rules import Rules
from reaper.core.scope import Scope, Selector
from reaper.errors import RateLimitedError, ServerError
from reaper.providers.base import Call, Limits, Traits
from reaper.providers.memory import Held, Rule
from tests.sweep.lab import (
    CONTAINERS,
    FOREIGN,
    HOUR,
    MINUTE,
    NOW,
    Lab,
    later,
    many,
    network,
    outcomes,
    result,
    running,
    stopped,
)

pytestmark = pytest.mark.anyio

Change = Callable[[Lab, str], object]


def run_again(lab: Lab, name: str) -> None:
    lab.world.start(name)
    lab.world.halt(name)


# What people may do to a stopped container, and the words that tell of it.
CHANGES: dict[str, tuple[Change, str]] = {
    "started": (lambda lab, it: lab.world.start(it), "was exited and is running now"),
    "ran again": (run_again, "was started again"),
    "relabelled": (lambda lab, it: lab.relabel(it, {"reaper.keep": ""}), "has other labels now"),
    "one label more": (lambda lab, it: lab.relabel(it, {"note": "mine"}), "has other labels now"),
    "wanted up": (
        lambda lab, it: lab.world.change(it, lambda r: replace(r, restart_policy="always")),
        "has another restart policy now",
    ),
    "being removed": (
        lambda lab, it: lab.world.change(it, lambda r: replace(r, state=State.CHANGING, raw_state="removing")),
        "was exited and is removing now",
    ),
    "broken": (
        lambda lab, it: lab.world.change(it, lambda r: replace(r, state=State.FAILED, raw_state="dead")),
        "was exited and is dead now",
    ),
    "in a project": (lambda lab, it: lab.world.change(it, lambda r: replace(r, group="p")), "is in another project now"),
    "leased": (lambda lab, it: lab.lease(it), "is to be kept now: lease lease-1 of harbor run is alive"),
    "unreadable": (
        lambda lab, it: lab.world.change(it, lambda r: replace(r, unreadable="odd time")),
        "is to be kept now: it could not be read: odd time",
    ),
}


def since_the_decision(lab: Lab, what: str, change: Change) -> Rule:
    """The first inspection is what was decided on, and leases are read after it; the second one is the second look."""
    return Rule("inspect", "it", calls={2 if what == "leased" else 1}, after=lambda: change(lab, "it"))


@pytest.mark.parametrize("what", CHANGES)
async def test_what_changed_since_the_decision_is_left(what: str) -> None:
    change, words = CHANGES[what]
    lab = Lab(stopped("it"), stopped("other"))
    lab.world.rules.append(since_the_decision(lab, what, change))
    report = await lab.sweep()
    assert outcomes(report) == {"it": "skipped", "other": "deleted"}
    assert words in result(report, "it").detail
    assert not lab.world.made("delete", "it")
    assert not lab.world.made("stop", "it")


@pytest.mark.parametrize("what", sorted(CHANGES.keys() - {"in a project"}))
async def test_one_changed_member_keeps_its_project(what: str) -> None:
    change, _ = CHANGES[what]
    lab = Lab(stopped("a", group="q"), stopped("it", group="q"), network("net", "q"))
    lab.world.rules.append(since_the_decision(lab, what, change))
    report = await lab.sweep()
    assert outcomes(report) == {"a": "skipped", "it": "skipped", "net": "skipped"}
    assert not lab.world.removals


RUNNING_CHANGES: dict[str, tuple[Change, str]] = {
    "ended": (lambda lab, it: lab.world.halt(it), "was running and is exited now"),
    "restarted": (lambda lab, it: lab.world.start(it), "was started again"),
    "paused": (lambda lab, it: lab.world.change(it, lambda r: replace(r, raw_state="paused")), "is paused now"),
    "relabelled": (lambda lab, it: lab.relabel(it, {"reaper.ttl": "9d"}), "has other labels now"),
    "leased": (lambda lab, it: lab.lease(it), "lease lease-1"),
}


@pytest.mark.parametrize("what", RUNNING_CHANGES)
async def test_what_runs_and_changed_is_not_stopped(what: str) -> None:
    change, words = RUNNING_CHANGES[what]
    lab = Lab(running("it"))
    lab.world.rules.append(since_the_decision(lab, what, change))
    report = await lab.sweep()
    assert outcomes(report) == {"it": "skipped"}
    assert words in result(report, "it").detail
    assert not lab.world.made("stop")
    assert not lab.world.made("delete")


@pytest.mark.parametrize("what", ["restarted", "relabelled"])
async def test_what_changed_while_it_was_stopped_is_not_deleted(what: str) -> None:
    change, words = RUNNING_CHANGES[what]
    lab = Lab(Held(running("it"), stop_seconds=5))
    lab.world.rules.append(Rule("stop", after=lambda: change(lab, "it")))
    report = await lab.sweep()
    assert outcomes(report) == {"it": "skipped"}
    assert words in result(report, "it").detail
    assert not lab.world.made("delete")


async def test_a_sibling_started_while_another_was_stopped_keeps_both() -> None:
    lab = Lab(Held(running("long", group="p"), stop_seconds=5), stopped("side", group="p"))
    lab.world.rules.append(Rule("stop", after=lambda: lab.world.start("side")))
    assert await lab.outcomes() == {"long": "skipped", "side": "skipped"}
    assert lab.left() == {"long", "side"}


@pytest.mark.parametrize("change", ["start", "relabel", "join"])
async def test_one_that_stopped_at_once_and_changed_while_another_took_its_time_keeps_both(change: str) -> None:
    lab = Lab(Held(running("quick", group="p")), Held(running("slow", group="p"), stop_seconds=5), network("net", "p"))
    changes: dict[str, Callable[[], object]] = {
        "start": lambda: lab.world.start("quick"),
        "relabel": lambda: lab.relabel("quick", {"reaper.keep": ""}),
        "join": lambda: lab.world.add(running("new", hours=0, group="p")),
    }
    async with anyio.create_task_group() as group:
        group.start_soon(later, 3, changes[change])
        report = await lab.sweep()
    assert outcomes(report) == {"quick": "skipped", "slow": "skipped", "net": "skipped"}
    assert not lab.world.removals


async def test_a_lease_that_is_taken_while_one_is_stopped_keeps_the_whole_project() -> None:
    lab = Lab(Held(running("quick", group="p")), Held(running("slow", group="p"), stop_seconds=1.5))
    async with anyio.create_task_group() as group:
        group.start_soon(later, 1, lambda: lab.lease("slow"))
        assert await lab.outcomes() == {"quick": "skipped", "slow": "skipped"}


async def test_members_that_remove_themselves_when_they_stop_keep_no_other() -> None:
    lab = Lab(Held(running("quick", group="p"), auto_remove=True), Held(running("slow", group="p"), stop_seconds=5))
    assert (await lab.outcomes())["slow"] == "deleted"
    assert not lab.left()


async def test_recreated_under_its_name_it_is_another_one() -> None:
    lab = Lab(stopped("it"))

    def recreate() -> None:
        lab.world.remove("it")
        lab.world.add(running("it", hours=0, id="another"))

    lab.world.rules.append(Rule("inspect", calls={1}, after=recreate))
    report = await lab.sweep()
    assert outcomes(report) == {"it": "gone"}
    assert lab.left() == {"it"}


async def test_it_is_left_when_it_is_too_young_now_by_the_engines_own_word() -> None:
    """Another policy would match now; the decision was made on grounds that are no more."""
    lab = Lab(stopped("it", labels={"reaper.ttl": "1h"}))
    lab.world.rules.append(Rule("inspect", calls={1}, after=lambda: lab.relabel("it", {"reaper.ttl": "0s"})))
    assert await lab.outcomes() == {"it": "skipped"}


# -- membership --------------------------------------------------------------------------------------------------------


async def test_a_member_that_joined_keeps_the_project() -> None:
    lab = Lab(stopped("a", group="p"), stopped("b", group="p"), network("net", "p"))
    joins = running("new", hours=0, group="p", image=FOREIGN)
    lab.world.rules.append(Rule("members", before=lambda: lab.world.add(joins)))
    report = await lab.sweep()
    assert outcomes(report) == {"a": "skipped", "b": "skipped", "net": "skipped"}
    assert "new joined its project p" in result(report, "a").detail
    assert not lab.world.removals


@pytest.mark.parametrize("first", [1, 2], ids=["the first listing", "the one after the stops"])
@pytest.mark.parametrize("traits", [Traits(), Traits(confirm_within=MINUTE)], ids=["exact", "accepting"])
async def test_a_listing_of_a_project_that_lacks_what_is_there_says_nothing_of_who_joined(
    traits: Traits, first: int
) -> None:
    """An endpoint or a proxy that answers with no rows at all."""
    lab = Lab(running("a", group="p"), stopped("b", group="p"))
    lab.provider.traits = traits
    listed, calls = lab.provider.members, count(1)

    async def rows(resource: Resource, call: Call) -> Sequence[Resource]:
        found = await listed(resource, call)
        return () if next(calls) >= first else found

    lab.provider.members = rows  # type: ignore[method-assign]
    lab.world.rules.append(Rule("members", calls={first}, before=lambda: lab.world.add(running("new", hours=0, group="p"))))
    report = await lab.sweep()
    assert set(outcomes(report).values()) == {"failed"}
    assert not lab.world.removals
    assert {r.error for r in report.results} == {"unreadable"}
    assert all("the listing of its project p lacks" in r.detail for r in report.results)


async def test_a_member_that_went_keeps_the_rest() -> None:
    lab = Lab(stopped("a", group="p"), stopped("b", group="p"), network("net", "p"))
    lab.world.rules.append(Rule("members", before=lambda: lab.world.remove("b")))
    report = await lab.sweep()
    assert outcomes(report) == {"a": "skipped", "b": "gone", "net": "skipped"}
    assert "lost a member" in result(report, "a").detail


async def test_a_member_that_went_after_its_project_was_listed_again() -> None:
    lab = Lab(stopped("a", group="p"), stopped("b", group="p"))
    lab.world.rules.append(Rule("members", after=lambda: lab.world.remove("b")))
    assert await lab.outcomes() == {"a": "skipped", "b": "gone"}


async def test_a_project_that_is_gone_altogether() -> None:
    lab = Lab(stopped("a", group="p"), stopped("b", group="p"), network("net", "p"))

    def down() -> None:
        for name in ("a", "b", "net"):
            lab.world.remove(name)

    lab.world.rules.append(Rule("members", calls={1}, before=down))
    report = await lab.sweep()
    assert {name: outcome for name, outcome in outcomes(report).items() if name != "net"} == {"a": "gone", "b": "gone"}
    assert outcomes(report)["net"] in ("gone", "skipped")


async def test_a_member_that_joined_while_others_were_stopped_keeps_what_is_left() -> None:
    lab = Lab(Held(running("a", group="p"), stop_seconds=9), running("b", group="p"))
    joins = running("new", hours=0, group="p")
    lab.world.rules.append(Rule("stop", "a", after=lambda: lab.world.add(joins)))
    report = await lab.sweep()
    assert outcomes(report) == {"a": "skipped", "b": "skipped"}
    assert lab.left() == {"a", "b", "new"}


# -- a look that has grown old -----------------------------------------------------------------------------------------

SLOW = Limits(removals=1)
LATE_CHANGES = {
    "ran again": "was started again",
    "leased": "lease lease-1",
    "relabelled": "has other labels now",
}


async def change_one_that_waits(lab: Lab, changed: list[str], change: Change) -> None:
    """After ten seconds, change one that has not gone yet and is not going: trio wakes tasks in any order."""
    await anyio.sleep(9.9)
    waiting = next(held.resource.name for held in lab.world.held() if held.resource.state is not State.CHANGING)
    change(lab, waiting)
    changed.append(waiting)


@pytest.mark.parametrize("what", LATE_CHANGES)
async def test_a_look_is_taken_again_when_the_deletion_had_to_wait(what: str) -> None:
    """A thousand wait for eight slots, and the last of them is deleted long after all were looked at."""
    lab = Lab(*[Held(r, removal_seconds=1) for r in many(20)], limits=SLOW)
    changed: list[str] = []
    async with anyio.create_task_group() as group:
        group.start_soon(change_one_that_waits, lab, changed, CHANGES[what][0])
        report = await lab.sweep()
    assert [name for name, outcome in outcomes(report).items() if outcome != "deleted"] == changed
    assert LATE_CHANGES[what] in result(report, changed[0]).detail
    assert lab.left() == set(changed)


async def test_a_look_is_taken_again_after_a_long_cooldown() -> None:
    lab = Lab(stopped("it"))
    lab.world.rules.append(Rule("delete", calls={1}, error=RateLimitedError("429", retry_after=200)))
    async with anyio.create_task_group() as group:
        group.start_soon(later, 100, lambda: run_again(lab, "it"))
        report = await lab.sweep()
    assert outcomes(report) == {"it": "skipped"}


async def test_a_project_is_looked_at_again_when_its_deletion_had_to_wait() -> None:
    groups = [Held(stopped(f"m{i}", group=f"p{i}"), removal_seconds=1) for i in range(20)]
    lab = Lab(*groups, limits=SLOW)
    changed: list[str] = []

    def join(lab: Lab, it: str) -> None:
        lab.world.add(running("new", hours=0, group=it.replace("m", "p")))

    async with anyio.create_task_group() as group:
        group.start_soon(change_one_that_waits, lab, changed, join)
        report = await lab.sweep()
    assert lab.left() == {"new", *changed}
    assert "new joined its project" in result(report, changed[0]).detail


async def test_a_project_whose_first_members_are_gone_is_finished() -> None:
    """Its other members had to wait; that the first ones are gone was this program's own doing."""
    lab = Lab(*[Held(stopped(f"m{i}", group="p"), removal_seconds=3) for i in range(5)], limits=SLOW)
    assert set((await lab.outcomes()).values()) == {"deleted"}


async def test_what_had_to_be_stopped_is_looked_at_again_when_its_deletion_had_to_wait() -> None:
    lab = Lab(*[Held(running(f"r{i}"), removal_seconds=3) for i in range(6)], limits=SLOW)
    changed: list[str] = []
    async with anyio.create_task_group() as group:
        group.start_soon(change_one_that_waits, lab, changed, lambda lab, it: lab.world.start(it))
        report = await lab.sweep()
    assert [name for name, outcome in outcomes(report).items() if outcome != "deleted"] == changed
    assert "is running now" in result(report, changed[0]).detail or "was started" in result(report, changed[0]).detail


@pytest.mark.parametrize("what", ["restarted", "leased", "relabelled"])
async def test_a_look_is_taken_again_when_the_stop_had_to_wait(what: str) -> None:
    lab = Lab(*[Held(running(f"r{i:02}"), stop_seconds=1) for i in range(20)], limits=Limits(stops=1))
    changed: list[str] = []

    async def change_one_that_runs() -> None:
        await anyio.sleep(9.9)
        asked = {call.name for call in lab.world.made("stop")}
        changed.append(next(held.resource.name for held in lab.world.held() if held.resource.name not in asked))
        RUNNING_CHANGES[what][0](lab, changed[0])

    async with anyio.create_task_group() as group:
        group.start_soon(change_one_that_runs)
        report = await lab.sweep()
    assert [name for name, outcome in outcomes(report).items() if outcome != "deleted"] == changed
    assert RUNNING_CHANGES[what][1] in result(report, changed[0]).detail
    assert not lab.world.made("stop", changed[0])


async def test_a_look_is_taken_again_when_a_stop_is_tried_again_after_long() -> None:
    lab = Lab(running("it"))
    lab.world.rules.append(Rule("stop", calls={1}, error=RateLimitedError("429", retry_after=200)))
    async with anyio.create_task_group() as group:
        group.start_soon(later, 100, lambda: lab.world.start("it"))
        report = await lab.sweep()
    assert outcomes(report) == {"it": "skipped"}
    assert len(lab.world.made("stop")) == 1


async def test_a_quick_sweep_looks_once_more_and_not_twice() -> None:
    lab = Lab(*many(50))
    await lab.sweep()
    assert len(lab.world.made("inspect")) == 100  # one to decide, one to act


# -- other reapers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lag", [0, 0.001, 0.005, 0.01, 0.02, 0.025, 0.05])
async def test_two_reapers_at_once_delete_everything_once(lag: float) -> None:
    net = network("net", "p")
    things: list[Resource | Held] = [
        *many(30),
        Held(running("deaf"), stop_seconds=1e9),
        Held(running("client", group="p", uses=frozenset({net.id})), stop_seconds=2),
        stopped("side", group="p"),
        net,
    ]
    lab = Lab(*things)
    other = Lab()
    other.world = other.provider.world = lab.world
    reports = []

    async def second() -> None:
        await anyio.sleep(lag)
        reports.append(await other.sweep())

    async with anyio.create_task_group() as group:
        group.start_soon(second)
        reports.append(await lab.sweep())
    for report in reports:
        assert not report.endpoints[0].failure
        assert "failed" not in outcomes(report).values()
    reports.append(await lab.sweep())
    assert not lab.left()
    ids = [resource.id for resource, _ in lab.world.removals]
    assert len(ids) == len(set(ids)) == 34


# -- ownership ---------------------------------------------------------------------------------------------------------


async def test_a_name_that_is_no_longer_owned_is_left() -> None:
    rules = Rules(
        Scope(presets=(), selector=Selector(names=("it",))), policies=(Policy("all", CONTAINERS, older_than=HOUR),)
    )
    lab = Lab(stopped("it", image=FOREIGN), rules=rules)
    lab.world.rules.append(
        Rule("inspect", calls={1}, after=lambda: lab.world.change("it", lambda r: replace(r, name="precious")))
    )
    report = await lab.sweep()
    assert outcomes(report) == {"it": "skipped"}
    assert lab.left() == {"precious"}


async def test_a_stop_by_another_client_makes_it_no_younger_for_this_sweep() -> None:
    """It ran and was old; another client stopped it, so the next sweep judges it anew."""
    lab = Lab(running("it"))
    lab.world.rules.append(Rule("inspect", calls={1}, after=lambda: lab.world.halt("it")))
    assert await lab.outcomes() == {"it": "skipped"}
    lab.world.rules.clear()
    assert await lab.outcomes() == {"it": "deleted"}
    assert lab.world.now() >= NOW


async def test_what_fails_in_its_second_look_and_changes_is_left() -> None:
    lab = Lab(stopped("it"))
    lab.world.rules.append(
        Rule("inspect", calls={2, 3}, error=ServerError("500"), before=lambda: lab.relabel("it", {"reaper.keep": ""}))
    )
    assert await lab.outcomes() == {"it": "skipped"}
