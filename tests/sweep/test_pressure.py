"""Sweeps under disk pressure, in rounds: they stop at low, wait for what comes back late, and delete nothing else."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import anyio
import pytest

from reaper import exits
from reaper.core.conditions import Policy
from reaper.core.disk import BYTES, DiskUsage, Level, Room, Thresholds
from reaper.core.lease import Ending, Lease
from reaper.core.model import CapHit, Kind, Outcome, Report, Resource
from reaper.core.pressure import awake
from reaper.core.rules import Rules
from reaper.core.scope import Scope, Selector
from reaper.errors import DeniedError
from reaper.observers.json_report import report_document
from reaper.providers.base import Traits
from reaper.providers.memory import Held, Rule
from reaper.providers.memory.disk import MemoryDisk
from reaper.sweep.ports import Choose, Options
from reaper.sweep.pressure import TURN, Pressure, Relief, Turns, concerned, looked_again, measured, with_relief
from reaper.sweep.result import SweepResult, sweep_result
from reaper.sweep.runner import exit_code
from reaper.sweep.sweep import sweep
from tests.sweep.lab import EVERYTHING, HOUR, NOW, Lab, counts, image, running, stopped, volume

pytestmark = pytest.mark.anyio

GIB = 1 << 30
GUARD = Policy("guard", frozenset({Kind.CONTAINER}), stopped_for=HOUR, under_pressure=True, asleep=True)
IMAGES = Policy("images", frozenset({Kind.IMAGE}), older_than=HOUR, under_pressure=True, asleep=True)
VOLUMES = Policy("volumes", frozenset({Kind.VOLUME}), older_than=HOUR, under_pressure=True, asleep=True)
OWNED = Scope(presets=("terminal-bench",), selector=Selector(images=("acme/*",), labels=("team=rl",)))
OLD = {"created_at": NOW - 9 * HOUR}


class PressureLab(Lab):
    """A lab with a disk of 100 GiB."""

    def __init__(self, *things: Resource | Held, policies: Sequence[Policy] = (GUARD, IMAGES, VOLUMES), **disk: Any) -> None:
        super().__init__(*things, rules=Rules(OWNED, policies=tuple(policies)))
        self.disk = MemoryDisk(self.world, 100 * GIB, **disk)
        self.provider.meter = self.reader.meter = self.disk
        self.provider.traits = Traits(kinds=frozenset({Kind.CONTAINER, Kind.VOLUME, Kind.IMAGE}))
        self.rounds: list[list[str]] = []
        self.turns = Turns()

    async def relieve(self, thresholds: Thresholds | None = None, **options: Any) -> Relief | None:
        endpoint = self.endpoint()
        rules = awake(self.rules, {self.name})

        async def once(choose: Choose) -> Report:
            before = len(self.world.removals)
            found = Options(due=concerned(rules, endpoint), choose=choose, **options)
            clock, observer, stop = self.clock, self.observer, self.stop
            report = await sweep(
                [endpoint], rules, found, clock=clock, observer=observer, leases=self._read_leases, stop=stop
            )
            self.rounds.append(sorted(one.name for one, _ in self.world.removals[before:]))
            return report

        levels, fail_fast = thresholds or Thresholds(), bool(options.get("fail_fast"))
        return await Pressure(self.disk, levels, once, self.stop, self.turns, fail_fast=fail_fast).relieve()

    async def used(self) -> int:
        return round((await self.disk.usage()).rooms[BYTES].used / GIB)


def large(name: str, size: int, **fields: Any) -> Resource:
    return stopped(name, size=size * GIB, **fields)


def old_image(name: str, size: int, **fields: Any) -> Resource:
    return replace(image(name, {}), **{**OLD, "tagged_at": NOW - 9 * HOUR, "size": size * GIB, **fields})


async def test_no_pressure_deletes_nothing() -> None:
    lab = PressureLab(large("c", 80))
    assert await lab.relieve() is None
    assert lab.left() == {"c"}
    assert lab.world.calls == []


async def test_it_begins_with_the_largest_and_stops_at_low() -> None:
    lab = PressureLab(*(large(f"c{size}", size) for size in (1, 2, 3, 30)), large("young", 9, hours=0.5), others=50 * GIB)
    relief = await lab.relieve()
    assert relief is not None
    assert relief.relieved
    assert lab.rounds == [["c30"]]
    assert lab.left() == {"c1", "c2", "c3", "young"}
    assert await lab.used() == 65


async def test_containers_go_before_images_and_those_before_volumes() -> None:
    lab = PressureLab(
        volume("data", {"team": "rl"}, **OLD, size=40 * GIB),
        old_image("acme/built:1", 5),
        old_image("acme/pulled:1", 5, pulled=True),
        old_image("dangling", 5, tags=(), image=None, labels={"team": "rl"}),
        large("c", 5),
        others=36 * GIB,
    )
    relief = await lab.relieve(Thresholds(Level(0.85), Level(0.77)))
    assert relief is not None
    assert relief.relieved
    assert lab.rounds == [["c"], ["dangling"], ["acme/built:1"], ["acme/pulled:1"]]
    assert lab.left() == {"data"}


class SharedDisk(MemoryDisk):
    """A file system on which other engines have their data as well."""

    mates: Sequence[MemoryDisk] = ()
    number = 7

    async def usage(self) -> DiskUsage:
        rooms = [(await MemoryDisk.usage(disk)).rooms[BYTES] for disk in self.mates]
        used = sum(room.used for room in rooms)
        return DiskUsage("shared", {BYTES: Room(used, self.size - used)}, file_system=self.number)


def on_one_disk(*labs: PressureLab) -> None:
    for lab in labs:
        lab.turns = labs[0].turns
        lab.disk = SharedDisk(lab.world, lab.disk.size, late=lab.disk.late)
        lab.provider.meter = lab.reader.meter = lab.disk
    for lab in labs:
        assert isinstance(lab.disk, SharedDisk)
        lab.disk.mates = [other.disk for other in labs]


@pytest.mark.parametrize("late", [0.0, 3.0])
async def test_two_engines_on_one_disk_do_not_each_free_all_that_is_to_go(late: float) -> None:
    """90 of 100 GiB are in use; three of 5 GiB bring it to low, whichever engine has them."""
    labs = [PressureLab(*(large(f"{name}{number}", 5) for number in range(9)), late=late) for name in "ab"]
    on_one_disk(*labs)
    async with anyio.create_task_group() as group:
        for lab in labs:
            group.start_soon(lab.relieve)
    assert await labs[0].used() == 75


async def test_an_engine_that_hangs_does_not_keep_another_on_its_disk_from_being_swept() -> None:
    hangs, works = (PressureLab(*(large(f"{name}{number}", 5) for number in range(9))) for name in "ab")
    on_one_disk(hangs, works)
    hangs.world.rules.append(Rule("list", hang=True))
    async with anyio.create_task_group() as group:
        group.start_soon(hangs.relieve)
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(TURN + 60):
            await works.relieve()
        group.cancel_scope.cancel()
    assert await works.used() == 75


@pytest.mark.parametrize("late", [0.0, 3.0, 20.0, 30.0])
async def test_space_that_comes_back_late_is_waited_for_and_not_deleted_past(late: float) -> None:
    lab = PressureLab(large("first", 30), *(large(f"c{number}", 5) for number in range(10)), late=late, others=10 * GIB)
    relief = await lab.relieve()
    assert relief is not None
    assert relief.relieved
    assert lab.rounds == [["first"]]
    assert late <= anyio.current_time() < late + 17


@pytest.mark.parametrize("late", [0.0, 3.0, 10.0, 30.0])
async def test_late_space_of_images_is_waited_for_although_they_may_share_it(late: float) -> None:
    things = [old_image(f"acme/x:{number}", 12) for number in range(6)]
    lab = PressureLab(*things, late=late, real=lambda _: 10 * GIB, others=30 * GIB)
    relief = await lab.relieve()
    assert relief is not None
    assert relief.relieved
    assert lab.rounds == [["acme/x:0", "acme/x:1"]]


async def test_space_that_never_comes_back_is_not_waited_for_for_ever() -> None:
    lab = PressureLab(large("first", 30), large("second", 30), large("third", 1), late=10**6, others=35 * GIB)
    relief = await lab.relieve()
    assert relief is not None
    assert not relief.relieved
    assert relief.exhausted
    assert lab.left() == set()
    assert anyio.current_time() < 200


async def test_images_that_share_their_layers_go_in_batches_that_learn() -> None:
    """Each says 10 GiB and gives back one: the batches grow, and the last one stops near low."""
    things = [old_image(f"acme/x:{number:02}", 10) for number in range(60)]
    lab = PressureLab(*things, real=lambda one: GIB if one.kind is Kind.IMAGE else 0, others=32 * GIB)
    relief = await lab.relieve()
    assert relief is not None
    assert relief.relieved
    assert 60 <= await lab.used() <= 75
    assert len(lab.rounds) <= 5
    assert lab.rounds[0] == [f"acme/x:{number:02}" for number in range(2)]


async def test_where_nothing_more_may_go_it_says_what_would_have_to() -> None:
    used = old_image("acme/used:1", 50)
    lab = PressureLab(used, running("user", hours=0.5, uses=frozenset({used.id})), large("c", 1), others=40 * GIB)
    relief = await lab.relieve()
    assert relief is not None
    assert (relief.relieved, relief.exhausted) == (False, True)
    assert lab.left() == {"acme/used:1", "user"}
    problem = relief.problem(Thresholds())
    assert problem is not None
    assert "90% of bytes in use, low is 75%" in problem
    assert "image acme/used:1 (50 GiB): used by user" in problem


async def test_what_the_sweep_that_follows_frees_counts() -> None:
    """A policy that waits for no pressure may take what those under pressure may not."""
    lab = PressureLab(large("c", 5), large("d", 85, stopped_at=NOW - HOUR / 2), policies=(GUARD,))
    relief = await lab.relieve()
    assert relief is not None
    assert relief.exhausted
    pressed, thresholds = {lab.name: relief}, Thresholds()
    idle = await lab.sweep()
    again = await looked_again(pressed, idle, [lab.endpoint()], lab.rules, disk=thresholds, stop=lab.stop)
    assert again[lab.name].exhausted, "it took nothing"
    lab.rules = replace(lab.rules, policies=(GUARD, replace(GUARD, name="all", stopped_for=HOUR / 4, asleep=False)))
    swept = await lab.sweep()
    assert swept.count(Outcome.DELETED) == 1
    again = await looked_again(pressed, swept, [lab.endpoint()], lab.rules, disk=thresholds, stop=lab.stop)
    assert (again[lab.name].exhausted, again[lab.name].relieved) == (False, True)


async def test_what_cannot_be_deleted_is_passed_over_and_the_next_goes() -> None:
    lab = PressureLab(large("denied", 40), large("c", 20), others=35 * GIB)
    lab.world.rules.append(Rule("delete", "denied", error=DeniedError("no")))
    relief = await lab.relieve()
    assert relief is not None
    assert relief.relieved
    assert lab.left() == {"denied"}
    assert relief.report is not None
    assert {r.decision.resource.name: r.outcome for r in relief.report.results} == {
        "denied": Outcome.FAILED,
        "c": Outcome.DELETED,
    }


async def test_what_is_there_again_is_not_deleted_for_ever() -> None:
    """A build cache is, after each time that it was pruned."""
    again = volume("again", {"team": "rl"}, **OLD, size=50 * GIB)
    lab = PressureLab(again, large("c", 1), others=49 * GIB)
    lab.world.rules.append(Rule("delete", "again", after=lambda: lab.world.add(again)))
    relief = await lab.relieve()
    assert relief is not None
    assert relief.exhausted
    assert [name for names in lab.rounds for name in names] == ["c", "again"]


async def test_the_build_cache_is_pruned_again_after_images_have_gone() -> None:
    """Deleting images turns their bytes into build cache; only pruning that gives the disk back."""
    cache = replace(volume("build-cache", {}), kind=Kind.BUILD_CACHE, size=GIB, last_used_at=NOW - 9 * HOUR)
    policy = Policy("cache", frozenset({Kind.BUILD_CACHE}), unused_for=HOUR, under_pressure=True, asleep=True)
    built = old_image("acme/built:1", 40)
    lab = PressureLab(cache, built, large("c", 1), policies=(GUARD, IMAGES, policy), others=50 * GIB)
    lab.provider.traits = Traits(kinds=frozenset(Kind))
    lab.world.rules += [
        Rule("delete", "build-cache", calls={1}, after=lambda: lab.world.add(replace(cache, size=0))),
        Rule(
            "delete", "acme/built:1", after=lambda: lab.world.change("build-cache", lambda one: replace(one, size=40 * GIB))
        ),
    ]
    relief = await lab.relieve()
    assert relief is not None
    assert relief.relieved
    assert [name for names in lab.rounds for name in names] == ["c", "build-cache", "acme/built:1", "build-cache"]


async def test_more_than_the_cap_allows_and_nothing_goes() -> None:
    lab = PressureLab(*(large(f"c{number}", 9) for number in range(10)))
    relief = await lab.relieve(max_deletions=9)
    assert relief is not None
    assert relief.report is not None
    assert relief.report.endpoints[0].cap is not None
    assert lab.world.removals == []


async def test_a_cap_that_was_hit_under_pressure_is_one_of_the_whole_sweep() -> None:
    """What follows has less to delete, and hits none: it would end as if nothing had been held back."""
    lab = PressureLab(*(large(f"c{number}", 9) for number in range(10)))
    relief = await lab.relieve(max_deletions=9)
    assert relief is not None
    report = await lab.sweep(max_deletions=9)
    assert report.endpoints[0].cap is None
    whole = with_relief(report, {lab.name: relief}, {lab.name: relief.after}, Thresholds())
    assert whole.endpoints[0].cap == CapHit(wanted=10, allowed=9, held=10, limit="max_deletions = 9")
    assert exit_code(whole) == exits.CAP
    assert sweep_result(whole.endpoints[0]) is SweepResult.CAPPED


async def test_what_pressure_could_not_delete_and_is_gone_later_stands_in_the_json_report() -> None:
    lab = PressureLab(large("denied", 30), others=60 * GIB)
    lab.world.rules.append(Rule("delete", "denied", error=DeniedError("no")))
    relief = await lab.relieve()
    assert relief is not None
    lab.world.remove("denied")
    whole = with_relief(await lab.sweep(), {lab.name: relief}, {lab.name: relief.after}, Thresholds())
    (shown,) = json.loads(report_document(whole, "once", exit_code(whole)))["endpoints"]
    assert shown["counts"]["failed"] == 1
    assert [(one["name"], one["outcome"]) for one in shown["resources"]] == [("denied", "failed")]


async def test_a_failure_that_is_to_end_the_sweep_ends_its_rounds() -> None:
    always = replace(GUARD, asleep=False)
    lab = PressureLab(large("denied", 30), large("next", 20), others=40 * GIB, policies=(always,))
    lab.world.rules.append(Rule("delete", "denied", error=DeniedError("no")))
    relief = await lab.relieve(fail_fast=True)
    assert relief is not None
    assert relief.failed
    assert lab.left() == {"denied", "next"}
    report = await lab.sweep(fail_fast=True, begins=False)
    assert counts(report) == {Outcome.ABANDONED: 2}
    assert exit_code(report) == exits.FAILED
    assert lab.left() == {"denied", "next"}


async def test_the_cap_of_leases_lets_pressure_take_no_more_than_its_turn() -> None:
    """What leases have left stays over their cap. What policies take goes on in rounds, and not all at once."""
    left = [large(f"left{number}", 0, labels={"reaper.lease": "7f3a"}, hours=0.2) for number in range(3)]
    sized = [large(f"c{number}", 5) for number in range(4)]
    lab = PressureLab(large("denied", 30), large("next", 20), *sized, *left, others=17 * GIB)
    lab.leases = [Lease("7f3a", "pid 4711", since=NOW - 24 * HOUR, ending=Ending(NOW, "killed"))]
    lab.world.rules.append(Rule("delete", "denied", error=DeniedError("no")))
    relief = await lab.relieve(max_lease_deletions=2)
    assert relief is not None
    assert relief.relieved
    assert lab.rounds == [[], ["next"]]
    assert lab.left() == {"denied", *(one.name for one in (*sized, *left))}
    assert relief.report is not None
    cap = relief.report.endpoints[0].cap
    assert cap is not None
    assert cap.of_leases


async def test_inodes_alone_are_pressure_as_well() -> None:
    lab = PressureLab(*(stopped(f"c{number:03}", size=0) for number in range(100)), inodes=100)
    relief = await lab.relieve()
    assert relief is not None
    assert relief.relieved
    assert 70 <= len(lab.left()) <= 75


async def test_without_pressure_a_policy_that_waits_for_it_takes_nothing() -> None:
    """Not even as a part of a project of which another policy takes the rest."""
    scheduled = Policy("scheduled", frozenset({Kind.CONTAINER}), stopped_for=5 * HOUR)
    lab = PressureLab(
        large("c", 99, hours=2), large("p1", 1, group="p"), large("p2", 1, group="p", hours=2), policies=(GUARD, scheduled)
    )
    report = await lab.sweep()
    assert report.results == ()
    assert lab.left() == {"c", "p1", "p2"}


async def test_a_lease_keeps_under_pressure_what_it_covers() -> None:
    lab = PressureLab(large("leased", 60), large("c", 30))
    lab.lease("leased")
    await lab.relieve()
    assert lab.left() == {"leased"}


async def test_others_that_fill_the_disk_meanwhile_do_not_keep_it_from_ending() -> None:
    lab = PressureLab(*(large(f"c{number}", 1) for number in range(20)), others=70 * GIB)

    def fill() -> None:
        lab.disk.others += GIB

    lab.world.rules.append(Rule("delete", after=fill))
    relief = await lab.relieve()
    assert relief is not None
    assert (relief.relieved, relief.exhausted) == (False, True)
    assert lab.left() == set()


async def test_a_stop_ends_it_between_two_rounds() -> None:
    lab = PressureLab(*(large(f"c{number}", 3) for number in range(30)), others=9 * GIB, late=10**6)

    async with anyio.create_task_group() as group:
        group.start_soon(_stop_after, lab, 5.0)
        relief = await lab.relieve()
    assert relief is not None
    assert not relief.exhausted, "that is not known"
    assert len(lab.rounds) == 1
    assert anyio.current_time() < 10


async def _stop_after(lab: Lab, seconds: float) -> None:
    await anyio.sleep(seconds)
    lab.stop.request("SIGTERM")


async def test_only_endpoints_with_such_policies_are_measured() -> None:
    lab = PressureLab(large("c", 99))
    assert (await measured([lab.endpoint()], lab.rules, lab.stop)).keys() == {"local"}
    elsewhere = replace(GUARD, endpoints=frozenset({"gpu-1"}))
    assert await measured([lab.endpoint()], Rules(policies=(EVERYTHING, elsewhere)), lab.stop) == {}


async def test_a_measurement_that_hangs_ends_with_the_sweep() -> None:
    lab = PressureLab(large("c", 99))
    lab.disk.usage = anyio.sleep_forever  # type: ignore[method-assign,assignment]
    async with anyio.create_task_group() as group:
        group.start_soon(_stop_after, lab, 5.0)
        found = await measured([lab.endpoint()], lab.rules, lab.stop)
    assert found == {}
    assert anyio.current_time() < 6


async def test_nothing_more_goes_when_the_disk_cannot_be_measured_any_more() -> None:
    """How much it needs is not known then: it would go on until nothing is left."""
    lab = PressureLab(*(large(f"c{number:02}", 2) for number in range(30)), others=30 * GIB)
    lab.world.rules.append(Rule("delete", after=lambda: setattr(lab.disk, "problem", "its file system does not answer")))
    relief = await lab.relieve()
    assert relief is not None
    assert (relief.relieved, relief.exhausted, relief.after.problem) == (False, False, lab.disk.problem)
    assert (len(lab.rounds), len(lab.left())) == (1, 22)


async def test_a_disk_that_cannot_be_measured_is_no_pressure() -> None:
    lab = PressureLab(large("c", 99))
    lab.disk.problem = "no such path"
    assert await lab.relieve() is None
    assert lab.left() == {"c"}
