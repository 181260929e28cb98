"""What comes before the command, and what after it."""

import json
import os
import re
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from reaper.leases.record import LeaseState
from reaper.leases.sources import NAME
from reaper.leases.store import LeaseFile
from tests.daytona.server import Served
from tests.program.wrapped import started
from tests.run import Program
from tests.running.lab import guards, until

SCRIPT = """
import json, os, signal, sys, urllib.request
sandboxes, mine, waits, code = json.loads(sys.argv[1])
lease = {"reaper.lease": os.environ["REAPER_LEASE"]} if mine else {}
for name, labels in sandboxes:
    request = urllib.request.Request(
        os.environ["DAYTONA_API_URL"] + "/sandbox",
        json.dumps({"name": name, "labels": labels | lease}).encode(),
        {"Authorization": "Bearer " + os.environ["DAYTONA_API_KEY"], "Content-Type": "application/json"},
    )
    urllib.request.urlopen(request).close()
print(os.environ["REAPER_LEASE"], os.environ["REAPER_LABEL"], flush=True)
if waits:
    signal.pause()
sys.exit(code)
"""


@dataclass(frozen=True)
class Making:
    """A command that makes sandboxes.

    Args:
        names: their labels, by name.
        labelled: whether each carries the lease's label, too.
        waits: whether it never ends by itself.
        code: with which it ends.
    """

    names: Mapping[str, Mapping[str, str]]
    labelled: bool = True
    waits: bool = False
    code: int = 0

    @property
    def words(self) -> tuple[str, ...]:
        wanted = json.dumps((list(self.names.items()), self.labelled, self.waits, self.code))
        return (sys.executable, "-c", SCRIPT, wanted)


QUICKLY = ("run", "--no-proxy", "--skip-cleanup")


def test_what_is_left_goes_and_is_reported(program: Program, served: Served) -> None:
    served.add("neighbour")
    ended = program(*QUICKLY, "--", *Making({"mine": {}, "mine-too": {"a": "b"}}).words)
    assert ended.code == 0, ended.err
    lease, label = ended.out.split()
    assert label == f"reaper.lease={lease}"
    assert served.left() == {"neighbour"}
    assert re.search(r"deleted\tdefault\tsandbox\tmine\tlease .*its command ended with 0", ended.err)
    assert "default: 2 deleted, 1 kept" in ended.err
    assert not guards(program.folder)


def test_a_run_that_leaves_nothing_says_nothing(program: Program) -> None:
    ended = program(*QUICKLY, "--", "true")
    assert (ended.code, ended.out, ended.err) == (0, "", "")


def test_it_sweeps_first(program: Program, served: Served) -> None:
    served.add("forgotten")
    ended = program("run", "--no-proxy", "--older-than", "1d", "--", "sh", "-c", "echo runs")
    assert (ended.code, ended.out) == (0, "runs\n")
    assert served.left() == set()
    assert "default: 1 deleted" in ended.err, "the report is not on stdout, which is the command's"


def test_skipping_that_leaves_it(program: Program, served: Served) -> None:
    served.add("forgotten")
    assert program(*QUICKLY, "--", "true").code == 0
    assert served.left() == {"forgotten"}


NO_ENGINE = {"DOCKER_HOST": "unix:///nowhere/docker.sock"}


def test_a_sweep_that_does_not_end_well_is_a_warning(program: Program) -> None:
    ended = program("run", "--no-proxy", "--", "echo", "runs", env=NO_ENGINE)
    assert (ended.code, ended.out) == (0, "runs\n")
    assert "reaper run: the sweep before the command ended with 5; the command runs all the same\n" in ended.err


def test_with_strict_it_keeps_the_command_from_running(program: Program) -> None:
    ended = program("run", "--strict", "--no-proxy", "--", "echo", "runs", env=NO_ENGINE)
    assert (ended.code, ended.out) == (5, "")
    assert "so with --strict the command was not run" in ended.err


@pytest.mark.parametrize(("strict", "code"), [((), 7), (("--strict",), 3)])
def test_what_cannot_be_removed(program: Program, served: Served, strict: tuple[str, ...], code: int) -> None:
    served.sim.faults.add("status:403,method=DELETE,path=/sandbox/", "status:403,method=POST,path=/stop")
    ended = program(*QUICKLY, *strict, "--", *Making({"x": {}}, code=7).words)
    assert ended.code == code


@pytest.mark.parametrize(
    "fault", ["status:503,method=GET,path=/sandbox", "status:503,method=DELETE,path=/sandbox/"], ids=["listing", "deletion"]
)
def test_what_was_away_when_the_run_ended_is_cleaned_up_by_its_guard(program: Program, served: Served, fault: str) -> None:
    served.add("neighbour")
    served.sim.faults.add(fault)
    ended = program(*QUICKLY, "--", *Making({"mine": {}}).words)
    assert ended.code == 0
    assert served.left() == {"neighbour", "mine"}
    assert "its guard goes on trying for 10 min" in ended.err
    assert str(program.folder / "guard.log") in ended.err
    served.sim.faults.clear()
    until(lambda: served.left() == {"neighbour"}, "the guard has forgotten it", 30.0)
    log = (program.folder / "guard.log").read_text()
    assert "clean_up_continued" in log
    assert "holder_died" not in log
    file = LeaseFile(program.folder / NAME)
    (record,) = file.records()
    file.close()
    assert (record.state, record.cause) == (LeaseState.RELEASED, "its command ended with 0")


def test_a_guard_that_goes_on_ends_at_a_signal(program: Program, served: Served) -> None:
    served.sim.faults.add("status:503,method=DELETE,path=/sandbox/")
    assert program(*QUICKLY, "--", *Making({"mine": {}}).words).code == 0
    (guard,) = guards(program.folder)
    log = program.folder / "guard.log"
    until(lambda: log.exists() and "clean_up_continued" in log.read_text(), "the guard has not begun")
    os.kill(guard, signal.SIGTERM)
    until(lambda: not guards(program.folder), "the guard goes on")
    assert served.left() == {"mine"}


def test_more_than_the_cap_is_left_with_the_command_that_goes_on(program: Program, served: Served) -> None:
    few = {"REAPER_LIMITS__MAX_LEASE_DELETIONS": "1"}
    waiting = Making({}, waits=True).words
    with started(program, *QUICKLY, "--strict", "--own", "label=run=x", "--", *waiting, env=few) as process:
        assert process.stdout is not None
        process.stdout.readline()
        for name in ("one", "two"):
            served.add(name, age=timedelta(0), labels={"run": "x"})
        process.send_signal(signal.SIGTERM)
        ended = program.finish(process)
    assert ended.code == 3
    assert served.left() == {"one", "two"}
    assert "hint: default: 2 leases have left would have gone, but max_lease_deletions = 1 allows 1" in ended.err
    assert "to go on: REAPER_LIMITS__MAX_LEASE_DELETIONS=2 reaper --once" in ended.err
    assert program("--once", env={"REAPER_LIMITS__MAX_LEASE_DELETIONS": "2"}).code == 0
    assert served.left() == set()


def test_what_is_claimed_goes_and_a_neighbour_stays(program: Program, served: Served) -> None:
    """Only what was made meanwhile, and only what was said."""
    served.add("chess-old")
    names = {"chess-1": {}, "go-1": {"team": "rl"}, "go-2": {"team": "web"}, "other": {}}
    own = ("--own", "name=chess-*", "--own", "label=team=rl,name=go-*")
    ended = program(*QUICKLY, *own, "--", *Making(names, labelled=False).words)
    assert ended.code == 0
    assert served.left() == {"chess-old", "go-2", "other"}


def test_a_claim_takes_nothing_that_was_made_before_the_run_or_after_it(program: Program, served: Served) -> None:
    served.add("chess-just-before", age=timedelta(0))
    own = ("--own", "name=chess-*", "--own", "project=zz__*")
    assert program(*QUICKLY, *own, "--", *Making({"chess-mine": {}}, labelled=False).words).code == 0
    served.add("chess-9", age=timedelta(0))
    assert program("--once").code == 0
    assert served.left() == {"chess-just-before", "chess-9"}


def killed_in_clean_up(program: Program, served: Served, name: str) -> datetime:
    """Kill a run that makes a sandbox of this name while it cleans up; returns a time after the end of its command."""
    served.sim.faults.add("hang,method=DELETE,path=/sandbox/,times=1")
    with started(program, *QUICKLY, "--own", "name=chess-*", "--", *Making({name: {}}).words) as process:
        until(lambda: any(change.startswith("DELETE") for change in served.changes()), "it does not clean up")
        cleaning = datetime.now(UTC)
        process.kill()
        process.wait()
    return cleaning


def test_a_claim_takes_nothing_that_was_made_after_the_command_though_the_run_is_killed_later(
    program: Program, served: Served
) -> None:
    """It cleans up, which takes its time: the names are free from the end of the command on."""
    cleaning = killed_in_clean_up(program, served, "chess-mine")
    file = LeaseFile(program.folder / NAME)
    (record,) = file.records()
    until(lambda: file.records()[0].state.ended, "its guard does not end the lease")
    (record,) = file.records()
    file.close()
    assert record.ended_at is not None
    assert record.since < record.ended_at < cleaning
    until(lambda: served.left() == set(), "its guard does not clean up")


def test_what_is_kept_on_purpose_is_reported_and_no_failure(program: Program, served: Served) -> None:
    ended = program("run", "--strict", "--no-proxy", "--skip-cleanup", "--", *Making({"look": {"reaper.keep": "1"}}).words)
    assert ended.code == 0
    assert served.left() == {"look"}
    assert re.search(r"keep\tdefault\tsandbox\tlook\t.*protected by label reaper.keep", ended.err)


def test_its_lease_keeps_while_it_lives(program: Program, served: Served) -> None:
    with started(program, *QUICKLY, "--", *Making({"mine": {}}, waits=True).words) as process:
        assert process.stdout is not None
        lease, _ = process.stdout.readline().split()
        ended = program("--once", "--all", "--json")
        assert ended.code == 0, ended.err
        assert served.left() == {"mine"}
        assert program("list").out.count(f"lease {lease} is live") == 1
        assert f"lease {lease} of pid {process.pid}" in program("explain", "mine").out
        process.send_signal(signal.SIGTERM)
        assert program.finish(process).code == 143
    assert served.left() == set()


def test_a_guard_that_is_killed_is_started_again(program: Program) -> None:
    with started(program, *QUICKLY, "--", *Making({}, waits=True).words) as process:
        until(lambda: guards(program.folder))
        (first,) = guards(program.folder)
        os.kill(first, signal.SIGKILL)
        until(lambda: guards(program.folder) not in ([], [first]))
        process.send_signal(signal.SIGTERM)
        ended = program.finish(process)
    assert ended.err == "reaper run: its guard was killed, and another one was started\n"
    assert not guards(program.folder)


def test_leases_that_cannot_be_read_are_no_place_for_one(program: Program) -> None:
    (program.folder / NAME).write_text("scribble")
    ended = program(*QUICKLY, "--", "echo", "runs")
    assert (ended.code, ended.out) == (5, "")
    assert ended.err.startswith("reaper run: no lease can be taken, so the command was not run: the leases in ")


def test_a_state_directory_that_cannot_be_made_is_named_with_what_to_do(program: Program) -> None:
    blocked = program.folder / "file"
    blocked.write_text("")
    ended = program(*QUICKLY, "--", "echo", "runs", env={"STATE_DIRECTORY": str(blocked / "state")})
    assert (ended.code, ended.out) == (5, "")
    assert f"the leases in {blocked}/state/leases.db cannot be written: Not a directory" in ended.err
    assert ended.err.endswith("; name a folder that can be written with STATE_DIRECTORY\n")


def test_the_record_says_how_it_ended(program: Program) -> None:
    assert program(*QUICKLY, "--own", "project=chess", "--", "sh", "-c", "exit 4").code == 4
    file = LeaseFile(program.folder / NAME)
    (record,) = file.records()
    file.close()
    assert (record.state, record.cause) == (LeaseState.RELEASED, "its command ended with 4")
    assert (record.holder.command, record.claims[0].projects) == ("sh", ("chess",))


def test_one_that_died_unseen_is_known_to_be_dead(program: Program, served: Served) -> None:
    """No guard, no service: the next sweep knows it from the kernel."""
    with started(program, *QUICKLY, "--", *Making({"mine": {}}, waits=True).words) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        for pid in guards(program.folder):
            os.kill(pid, signal.SIGSTOP)
        process.kill()
        process.wait()
        told: dict[str, str] = {}

        def known() -> bool:
            told.update(program("--once", "--json").outcomes())
            return bool(told)

        until(known, "it is not known to be dead")
        for pid in guards(program.folder):
            os.kill(pid, signal.SIGKILL)
    assert told == {"mine": "deleted"}
