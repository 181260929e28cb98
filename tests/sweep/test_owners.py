"""Sweeps that find owners dead: remembered, looked at once more before each deletion."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from reaper.core.conditions import Policy
from reaper.core.model import Decision, Kind, Outcome, Reason
from reaper.core.owner_process import OWNER_LABEL, OwnerRule
from reaper.core.quota import COUNT, Quota
from reaper.core.rules import Rules
from reaper.core.scope import Scope, Selector
from reaper.providers.memory import Held
from reaper.sweep.owner_proofs import OwnerProofs
from tests.owners.machine import ELSEWHERE, LAST_BOOT, THIS_BOOT, FakeMachine, label
from tests.sweep.lab import HOUR, MINUTE, NOW, Lab, result, running, stopped

pytestmark = pytest.mark.anyio
RULES = Rules(
    Scope(selector=Selector(names=("bench-*",))),
    policies=(Policy("orphaned", frozenset({Kind.CONTAINER}), orphaned_for=10 * MINUTE),),
)


def box(name: str, owner: str) -> Held | Any:
    return running(name, labels={OWNER_LABEL: owner}, created_at=NOW - HOUR, started_at=NOW - HOUR)


def soon(decision: Decision, minutes: float) -> bool:
    """Whether it is due so many minutes after the beginning, and the moment that a listing takes."""
    assert decision.due_at is not None
    return timedelta(0) <= decision.due_at - NOW - minutes * MINUTE < timedelta(seconds=1)


class Bench:
    """An endpoint with a machine whose processes own what is there."""

    def __init__(self, state: Path, *things: Any, is_local: bool = True) -> None:
        self.machine, self.state, self.is_local = FakeMachine(), state, is_local
        self.lab = Lab(*things, rules=RULES)
        self.restart()

    def restart(self) -> None:
        """Another process, with the same state directory."""
        owners = OwnerProofs(
            self.state, "memory://local", is_local=self.is_local, machine=self.machine, clock=self.lab.clock
        )
        self.lab.owners = owners

    def before_the_last_look(self, happens: Callable[[], object]) -> None:
        """Have something happen just before the owners are looked at once more, which is before each deletion."""
        real = self.lab.owners
        assert real is not None
        again = real.again

        def changed(*arguments: Any, **named: Any) -> Any:
            happens()
            return again(*arguments, **named)

        real.again = changed  # type: ignore[method-assign]

    def found_alive(self) -> None:
        """The host was not restarted after all, and process 4711 runs."""
        self.machine.boot = LAST_BOOT
        self.machine.start(4711, 1000)


async def test_a_process_that_is_gone_counts_as_dead_from_when_that_was_seen_first(tmp_path: Path) -> None:
    bench = Bench(tmp_path, box("bench-1", label(pid=1)), box("bench-2", label(pid=2)))
    bench.machine.start(2, 1000)
    assert await bench.lab.outcomes() == {}
    await anyio.sleep(599)
    bench.restart()
    assert await bench.lab.outcomes() == {}
    await anyio.sleep(1)
    bench.restart()
    assert await bench.lab.outcomes() == {"bench-1": "deleted"}
    assert bench.lab.left() == {"bench-2"}


async def test_what_its_dead_owner_would_have_ended_has_avoided_no_more_than_until_then(tmp_path: Path) -> None:
    bench = Bench(tmp_path, box("bench-1", label(boot=LAST_BOOT)))
    old = Policy("old", frozenset({Kind.CONTAINER}), older_than=24 * HOUR)
    bench.lab.rules = replace(RULES, policies=(*RULES.policies, old))
    bench.lab.abandon("bench-1")
    decision = result(await bench.lab.sweep(), "bench-1").decision
    assert decision.reason is Reason.LEASE_ENDED
    assert decision.saving is not None
    assert decision.saving.avoided == timedelta(0)


async def test_what_only_looks_remembers_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, box("bench-1", label()))
    await bench.lab.sweep(act=False)
    assert bench.lab.owners is not None
    assert not bench.lab.owners.file.exists()


@pytest.mark.parametrize("used", [(1, 1000 * 100), (2, 0)], ids=["its id is used again", "this host was restarted"])
async def test_where_the_proof_shows_the_time_the_first_look_is_enough(tmp_path: Path, used: tuple[int, int]) -> None:
    owner = label(pid=1) if used[0] == 1 else label(pid=1, boot=LAST_BOOT)
    bench = Bench(tmp_path, box("bench-1", owner))
    bench.machine.start(*used)
    assert await bench.lab.outcomes() == {"bench-1": "deleted"}


async def test_an_owner_that_is_found_alive_just_before_the_deletion_keeps_its_own(tmp_path: Path) -> None:
    bench = Bench(tmp_path, box("bench-1", label(boot=LAST_BOOT)), box("bench-2", label(pid=2, boot=LAST_BOOT)))
    bench.before_the_last_look(bench.found_alive)
    report = await bench.lab.sweep()
    assert result(report, "bench-1").outcome is Outcome.SKIPPED
    assert "is to be kept now: no policy matches: owner alive" in result(report, "bench-1").detail
    assert result(report, "bench-2").outcome is Outcome.SKIPPED  # dead since this look alone, by what is seen now


async def test_the_last_look_is_at_the_owners_of_the_whole_session(tmp_path: Path) -> None:
    """One of a session names the process, and each of the others is alone when it is looked at again."""
    session = OwnerRule(name="acme", pid_label="acme.pid", session_label="acme.run")
    of_run = {"acme.run": "x"}
    things = (stopped("bench-1", labels={**of_run, "acme.pid": "4711"}), stopped("bench-2", labels=of_run))
    bench = Bench(tmp_path, *things)
    bench.lab.rules = replace(RULES, owner_rules=(session,))
    assert await bench.lab.outcomes() == {}
    await anyio.sleep(600)
    bench.before_the_last_look(lambda: bench.machine.start(4711, 1000))
    assert await bench.lab.outcomes() == {"bench-1": "skipped", "bench-2": "skipped"}
    assert bench.lab.left() == {"bench-1", "bench-2"}
    bench.restart()
    bench.machine.end(4711)
    assert await bench.lab.outcomes() == {"bench-1": "deleted", "bench-2": "deleted"}


async def test_what_a_quota_may_take_takes_nothing_else_whose_owner_is_found_alive(tmp_path: Path) -> None:
    """The quota is exceeded by others, and their policy would let this one go as well."""
    owned = stopped("bench-1", labels={OWNER_LABEL: label(boot=LAST_BOOT)})
    hers = (stopped(f"bench-{number}", hours=number, labels={"user": "ada"}) for number in (2, 3))
    bench = Bench(tmp_path, owned, *hers)
    bench.before_the_last_look(bench.found_alive)
    quota = Quota("per-user", frozenset({Kind.CONTAINER}), {COUNT: 1.0}, label="user", enforce=True, idle_for=HOUR)
    assert await bench.lab.outcomes(quotas=(quota,)) == {"bench-1": "skipped", "bench-3": "deleted"}


async def test_the_times_are_those_of_the_endpoint(tmp_path: Path) -> None:
    bench = Bench(tmp_path, box("bench-1", label()))
    bench.lab.world.skew = timedelta(minutes=30)
    report = await bench.lab.sweep()
    (decision,) = report.endpoints[0].decisions
    assert soon(decision, 40)


async def test_of_an_engine_that_others_use_a_boot_counts_only_when_it_is_remembered(tmp_path: Path) -> None:
    bench = Bench(tmp_path, box("bench-1", label(boot=LAST_BOOT)), is_local=False)
    report = await bench.lab.sweep()
    assert report.results == ()
    bench.machine.boot = LAST_BOOT
    bench.machine.start(4711, 1000)
    bench.restart()
    await bench.lab.sweep()
    bench.machine.boot = THIS_BOOT
    bench.restart()
    assert await bench.lab.outcomes() == {"bench-1": "deleted"}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"version": 1, "boots": 3, "dead": {}}',
        '{"version": 1, "boots": [], "dead": {"reaper.owner\\t%s": 1e300}}',
        '{"version": 1, "boots": [], "dead": {"reaper.owner\\t%s": "x"}}',
        '{"version": 2, "boots": [], "dead": {"reaper.owner\\t%s": 0}}',
        '{"version": 1, "boots": [], "dead": {"reaper.owner\\t%s": 99999999999}}',
    ],
)
async def test_a_memory_that_cannot_be_used_is_none(tmp_path: Path, content: str) -> None:
    bench = Bench(tmp_path, box("bench-1", label()))
    assert bench.lab.owners is not None
    rest = '"matched": {}, "unmatched": {}, "booted": ["", 0], "clock_set": null, "dead"'
    bench.lab.owners.file.write_text(content.replace("%s", label()).replace('"dead"', rest))
    report = await bench.lab.sweep()
    (decision,) = report.endpoints[0].decisions
    assert (decision.reason, soon(decision, 10)) == (Reason.TOO_YOUNG, True)
    assert report.endpoints[0].warnings == ()


@pytest.mark.parametrize(("mode", "outcomes"), [(0o600, {"bench-1": "deleted"}), (0o666, {})])
async def test_a_memory_that_others_could_have_written_is_none(tmp_path: Path, mode: int, outcomes: dict[str, str]) -> None:
    bench = Bench(tmp_path, box("bench-1", label()))
    assert bench.lab.owners is not None
    file = bench.lab.owners.file
    others: dict[str, Any] = {"matched": {}, "unmatched": {}, "booted": ["", 0], "clock_set": None}
    file.write_text(json.dumps({"version": 1, "boots": [], "dead": {f"reaper.owner\t{label()}": 0}, **others}))
    file.chmod(mode)
    assert await bench.lab.outcomes() == outcomes


async def test_a_disk_that_is_full_delays_nothing_within_one_process(tmp_path: Path) -> None:
    blocked = tmp_path / "state"
    blocked.write_text("no folder")
    bench = Bench(blocked, box("bench-1", label()))
    report = await bench.lab.sweep()
    (warning,) = report.endpoints[0].warnings
    assert warning.startswith(f"which owners are dead cannot be remembered in {blocked}/owners-")
    await anyio.sleep(600)
    assert await bench.lab.outcomes() == {"bench-1": "deleted"}


# -- the processes of runners ------------------------------------------------------------------------------------------

TB = OwnerRule(name="tb", processes=("*/bin/tb run*",))


def trial(name: str, *, ago: timedelta) -> Any:
    project = f"{name}-1-of-1-2026-11-21__11-00-00"  # a name of one run, which no other takes over
    return running(name, image="tb__chess__client", created_at=NOW - ago, started_at=NOW - ago, group=project)


def of_runners(tmp_path: Path, *things: Any) -> Bench:
    bench = Bench(tmp_path, *things)
    bench.lab.rules = replace(RULES, scope=Scope(), owner_rules=(TB,))
    return bench


async def test_what_a_dead_run_left_goes_beside_that_of_a_living_one(tmp_path: Path) -> None:
    bench = of_runners(tmp_path, trial("old", ago=HOUR), trial("new", ago=10 * MINUTE))
    bench.machine.run(1, "/venv/bin/python /venv/bin/tb run --dataset x", ago=2 * HOUR)
    bench.machine.run(2, "/venv/bin/python /venv/bin/tb run --dataset y", ago=20 * MINUTE)
    assert await bench.lab.outcomes() == {}
    await anyio.sleep(3600)
    del bench.machine.lines[1]
    assert await bench.lab.outcomes() == {}
    await anyio.sleep(590)
    bench.restart()
    assert await bench.lab.outcomes() == {}
    await anyio.sleep(10)
    assert await bench.lab.outcomes() == {"old": "deleted"}
    assert bench.lab.left() == {"new"}


async def test_patterns_that_have_never_matched_prove_nothing(tmp_path: Path) -> None:
    bench = of_runners(tmp_path, trial("living", ago=HOUR))
    bench.machine.run(1, "python -m terminal_bench run", ago=2 * HOUR)  # as a wrapper starts it
    for _ in range(3):
        assert await bench.lab.outcomes() == {}
        await anyio.sleep(1200)
    bench.machine.run(2, "/bin/tb run", ago=timedelta(0))
    assert await bench.lab.outcomes() == {}  # only now it is known that they are right: it counts from here


async def test_patterns_that_have_matched_on_another_host_prove_nothing_here(tmp_path: Path) -> None:
    """The state directory is on a network's file system, and the engine of each host has the same address."""
    other = of_runners(tmp_path, trial("ended", ago=HOUR))
    other.machine.id = other.machine.whole_id = ELSEWHERE
    other.restart()
    other.machine.run(1, "/bin/tb run", ago=2 * HOUR)
    await other.lab.sweep()
    other.machine.lines.clear()
    await other.lab.sweep()
    bench = of_runners(tmp_path, trial("living", ago=HOUR))
    bench.machine.run(1, "python -m terminal_bench run", ago=2 * HOUR)  # as a wrapper starts it
    for _ in range(3):
        assert await bench.lab.outcomes() == {}
        await anyio.sleep(1200)


async def test_what_was_made_while_no_such_process_lived_is_no_orphan(tmp_path: Path) -> None:
    """A wrapper may hide a run on a host where others were seen."""
    bench = of_runners(tmp_path, trial("old", ago=HOUR))
    bench.machine.run(1, "/bin/tb run", ago=2 * HOUR)
    await bench.lab.sweep()
    await anyio.sleep(60)
    bench.lab.world.add(trial("last", ago=-MINUTE))
    del bench.machine.lines[1]
    await anyio.sleep(60)
    await bench.lab.sweep()
    bench.machine.run(2, "python -m terminal_bench run", ago=-2 * MINUTE)
    await anyio.sleep(60)
    bench.lab.world.add(trial("hidden", ago=-3 * MINUTE))
    for _ in range(2):
        bench.restart()
        await bench.lab.sweep()
        await anyio.sleep(1200)
    assert bench.lab.left() == {"hidden"}
    (decision,) = (await bench.lab.sweep(act=False)).endpoints[0].decisions
    assert "owner unproven" in decision.sentence
    bench.machine.run(3, "/bin/tb run", ago=-HOUR)
    for _ in range(2):
        bench.restart()
        await bench.lab.sweep()
        await anyio.sleep(1200)
    assert bench.lab.left() == {"hidden"}


@pytest.mark.parametrize("blind", ["not seen", "not readable", "row lost", "nothing listed"])
async def test_what_an_unknown_process_made_stays_after_a_look_that_showed_less(tmp_path: Path, blind: str) -> None:
    bench = of_runners(tmp_path, trial("old", ago=HOUR))
    bench.machine.run(1, "/bin/tb run", ago=2 * HOUR)
    await bench.lab.sweep()
    bench.machine.lines.clear()
    await bench.lab.sweep()
    await anyio.sleep(60)
    bench.lab.world.add(trial("hidden", ago=-MINUTE))  # while no runner lives that is known
    await bench.lab.sweep()
    bench.machine.run(2, "/bin/tb run", ago=-2 * MINUTE)
    await bench.lab.sweep()
    held = {name: bench.lab.world.get(name) for name in ("old", "hidden")}
    if blind == "not seen":
        bench.machine.refused = "/proc is mounted with hidepid=2"
    elif blind == "not readable":
        bench.machine.unreadable = True
    else:
        for name in ("hidden",) if blind == "row lost" else ("old", "hidden"):
            bench.lab.world.remove(name)
    await bench.lab.sweep()
    bench.machine.refused, bench.machine.unreadable = None, False
    for thing in held.values():
        if thing is not None and bench.lab.world.get(thing.name) is None:
            bench.lab.world.add(thing)
    for _ in range(3):
        bench.restart()
        await bench.lab.sweep()
        await anyio.sleep(1200)
    assert bench.lab.left() == {"hidden"}


async def test_processes_that_cannot_be_read_prove_nothing_and_end_no_sweep(tmp_path: Path) -> None:
    bench = of_runners(tmp_path, trial("old", ago=HOUR))
    bench.machine.run(1, "/bin/tb run", ago=timedelta(0))
    await bench.lab.sweep()
    await anyio.sleep(1200)
    bench.machine.unreadable = True
    assert await bench.lab.outcomes() == {}
    (decision,) = (await bench.lab.sweep(act=False)).endpoints[0].decisions
    assert "owner unproven" in decision.sentence


async def test_processes_that_are_not_seen_prove_nothing(tmp_path: Path) -> None:
    bench = of_runners(tmp_path, trial("old", ago=HOUR))
    bench.machine.run(1, "/bin/tb run", ago=timedelta(0))
    await bench.lab.sweep()
    bench.machine.refused = "/proc is mounted with hidepid=2"
    bench.machine.lines.clear()
    await anyio.sleep(1200)
    assert await bench.lab.outcomes() == {}


async def test_a_process_that_is_seen_just_before_the_deletion_keeps_its_own(tmp_path: Path) -> None:
    bench = of_runners(tmp_path, trial("old", ago=HOUR))
    bench.machine.run(1, "/bin/tb run", ago=timedelta(0))
    await bench.lab.sweep()
    await anyio.sleep(1200)
    bench.before_the_last_look(lambda: bench.machine.run(2, "/bin/tb run", ago=2 * HOUR))
    report = await bench.lab.sweep()
    assert result(report, "old").outcome is Outcome.SKIPPED


async def test_after_the_clock_was_set_what_is_older_is_kept_by_any_such_process(tmp_path: Path) -> None:
    """A clock that is set forward makes the processes that live seem to be younger than what they have made."""
    bench = of_runners(tmp_path, trial("living", ago=HOUR))
    bench.machine.run(1, "/bin/tb run", ago=2 * HOUR)
    await bench.lab.sweep()
    bench.machine.moved = timedelta(hours=3)
    bench.lab.clock.start += timedelta(hours=3)
    for _ in range(3):
        bench.restart()
        assert await bench.lab.outcomes() == {}
        await anyio.sleep(1200)
    del bench.machine.lines[1]
    await bench.lab.sweep()
    await anyio.sleep(1200)
    assert await bench.lab.outcomes() == {"living": "deleted"}
