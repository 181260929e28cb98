"""Sandboxes that policies stop and archive before they delete them, on the simulated platform."""

from datetime import timedelta

import pytest

from reaper.core.conditions import Policy
from reaper.core.model import Action, Kind
from reaper.core.rules import Rules
from reaper.retry.retrier import RetryPolicy
from reaper.simulator.daytona.rules import Behaviour
from reaper.sweep.runner import exit_code
from tests.daytona.lab import DAY, FRESH, HOUR, MINUTE, SECOND, Lab, outcomes, result
from tests.daytona.server import Served
from tests.engine.lab import toml
from tests.run import Program

SANDBOXES = frozenset({Kind.SANDBOX})
CHAIN = Rules(
    policies=(
        Policy("stop-idle", SANDBOXES, idle_for=2 * HOUR, action=Action.STOP),
        Policy("archive", SANDBOXES, stopped_for=DAY, action=Action.ARCHIVE),
        Policy("delete", SANDBOXES, older_than=7 * DAY, states=frozenset({"stopped", "archived"})),
    )
)
REAL = Behaviour()


@pytest.mark.anyio
async def test_three_policies_stop_archive_and_delete_as_time_goes_by() -> None:
    async with Lab(behaviour=REAL) as lab:
        lab.add("idle", age=3 * HOUR, auto_delete=-1)
        lab.add("busy", age=3 * HOUR, idle=MINUTE, auto_delete=-1)
        lab.add("ephemeral", age=3 * HOUR)
        report = await lab.sweep(CHAIN)
        assert outcomes(report) == {"idle": "stopped"}
        assert exit_code(report) == 0
        assert not (await lab.sweep(CHAIN)).results
        lab.clock.advance(20 * HOUR)
        assert "idle" not in outcomes(await lab.sweep(CHAIN))  # ``stopped_for`` counts from the stop
        lab.clock.advance(5 * HOUR)
        assert outcomes(await lab.sweep(CHAIN))["idle"] == "archived"
        assert lab.left() == {"idle", "busy", "ephemeral"}
        lab.clock.advance(7 * DAY)
        assert outcomes(await lab.sweep(CHAIN))["idle"] == "deleted"
        assert "ephemeral" in lab.left()  # a stop would have destroyed it


@pytest.mark.anyio
async def test_a_running_one_that_is_to_be_archived_is_stopped_before() -> None:
    async with Lab(behaviour=REAL) as lab:
        row = lab.add("old", auto_delete=-1)
        report = await lab.sweep(Rules(policies=(Policy("archive", SANDBOXES, older_than=DAY, action=Action.ARCHIVE),)))
        assert outcomes(report) == {"old": "archived"}
        assert [call.path.rpartition("/")[2] for call in lab.asked("POST")] == ["stop", "archive"]
        assert row.state == "archived"


@pytest.mark.anyio
async def test_a_parent_of_living_forks_is_not_archived_which_destroys_it_on_its_runner() -> None:
    async with Lab(behaviour=REAL) as lab:
        parent = lab.add("parent", state="stopped", auto_delete=-1)
        fork = lab.add("fork", age=MINUTE, parent=parent.id, auto_delete=-1)
        report = await lab.sweep(CHAIN)
        assert outcomes(report) == {"parent": "skipped"}
        assert f"of its forks {fork.id} are there" in result(report, "parent").detail
        assert lab.asked("POST") == []
        lab.org.change(fork, state="destroyed", desired="destroyed")
        lab.clock.advance(MINUTE)
        assert outcomes(await lab.sweep(CHAIN)) == {"parent": "archived"}


@pytest.mark.anyio
async def test_one_that_becomes_ephemeral_meanwhile_is_neither_stopped_nor_destroyed() -> None:
    async with Lab(behaviour=Behaviour(get_cache=0)) as lab:
        row = lab.add("idle", auto_delete=-1)
        lab.on("GET", "sandbox?", lambda: lab.org.change(row, auto_delete=0))
        lab.on("GET", "sandbox", lambda: lab.org.change(row, auto_delete=0))
        report = await lab.sweep(CHAIN)
        assert outcomes(report) in ({"idle": "skipped"}, {})
        assert lab.asked("POST") == []


@pytest.mark.anyio
@pytest.mark.parametrize("state", ["stopped", "started"])
async def test_one_that_its_owner_starts_while_it_is_being_archived_goes_on(state: str) -> None:
    """The server takes a start at any time until it is archived."""
    async with Lab(behaviour=REAL) as lab:
        row = lab.add("idle", auto_delete=-1, state=state)
        policy = Policy("archive", SANDBOXES, older_than=DAY, action=Action.ARCHIVE)
        lab.on("POST", "/archive", lambda: lab.org.start(row, row.version))
        report = await lab.sweep(Rules(policies=(policy,)))
        assert outcomes(report) == {"idle": "skipped"}
        assert "runs again" in result(report, "idle").detail
        assert (row.state, row.desired) == ("started", "started")


IMPATIENT = RetryPolicy(initial_delay=SECOND / 10, jitter=0 * SECOND)


@pytest.mark.anyio
@pytest.mark.parametrize("done", ["", ",after"], ids=["lost", "answer lost"])
@pytest.mark.parametrize("action", [Action.STOP, Action.ARCHIVE])
async def test_what_its_owner_starts_after_a_stop_was_lost_is_not_stopped_again(action: Action, done: str) -> None:
    async with Lab(behaviour=FRESH, retry=IMPATIENT) as lab:
        row = lab.add("used", age=3 * HOUR, auto_delete=-1)

        def begin() -> None:
            lab.org.change(row, state="starting", desired="started")
            lab.on("GET", row.id, lambda: lab.org.change(row, state="started", desired="started"))

        lab.on("POST", row.id, begin)
        lab.sim.faults.add(f"reset{done},method=POST,times=1")
        report = await lab.sweep(Rules(policies=(Policy("idle", SANDBOXES, idle_for=2 * HOUR, action=action),)))
        assert outcomes(report) == {"used": "skipped"}
        assert "was started and is starting now" in result(report, "used").detail
        assert row.desired == "started"
        assert len(lab.asked("POST")) == 1


@pytest.mark.anyio
@pytest.mark.parametrize("action", [Action.STOP, Action.ARCHIVE])
async def test_a_stop_whose_answer_was_lost_takes_no_other_one_that_is_called_so_by_now(action: Action) -> None:
    """The server takes an id that it does not find for a name, and one that is made again is called as the first one was."""
    async with Lab(behaviour=FRESH, retry=IMPATIENT) as lab:
        row = lab.add("", age=3 * HOUR, auto_delete=-1)

        def remake() -> None:
            lab.org.change(row, state="destroyed", desired="destroyed", name="DESTROYED")
            lab.add(row.id, age=0 * HOUR, auto_delete=0)

        lab.on("POST", row.id, remake)
        lab.sim.faults.add("reset,method=POST,times=1")
        report = await lab.sweep(Rules(policies=(Policy("idle", SANDBOXES, idle_for=2 * HOUR, action=action),)))
        assert outcomes(report) == {row.id: "gone"}
        assert lab.left() == {row.id}
        assert len(lab.asked("POST")) == 1


@pytest.mark.anyio
async def test_a_key_that_may_not_write_fails_to_stop() -> None:
    async with Lab() as lab:
        lab.add("idle", auto_delete=-1)
        report = await lab.sweep(CHAIN, key=lab.sim.daytona.add_key(lab.first, ["delete:sandboxes"]))
        assert outcomes(report) == {"idle": "failed"}
        assert result(report, "idle").error == "denied"
        assert exit_code(report) == 3


@pytest.mark.anyio
async def test_one_whose_runner_is_dead_is_not_confirmed_as_stopped() -> None:
    async with Lab() as lab:
        lab.add("dead", auto_delete=-1, runner_dead=True)
        report = await lab.sweep(CHAIN)
        assert outcomes(report) == {"dead": "failed"}
        assert result(report, "dead").error == "unconfirmed"
        assert "but it is still stopping after 1 min" in result(report, "dead").detail


THREE = """
[[policy]]
name = "stop-idle"
kinds = ["sandbox"]
action = "stop"
idle_for = "2h"

[[policy]]
name = "archive"
kinds = ["sandbox"]
action = "archive"
stopped_for = "1d"

[[policy]]
name = "delete"
kinds = ["sandbox"]
older_than = "7d"
states = ["stopped", "archived"]
"""


def pass_time(served: Served, time: timedelta) -> None:
    """Let it be later by so much: the program's clock is this host's, so the times of what there is go back."""
    organisation = served.sim.organisation(served.first)
    micros = time // timedelta(microseconds=1)

    def shift() -> None:
        for row in list(organisation.rows.values()):
            times = {"created": row.created - micros, "active": (row.active or row.updated) - micros}
            organisation.change(row, updated=row.updated - micros, **times)

    served.sim.do(shift)


def test_the_program_stops_archives_and_deletes_by_three_policies(served: Served) -> None:
    served.add("idle", age=3 * HOUR, auto_delete=-1)
    served.add("kept", age=30 * DAY, auto_delete=-1, labels={"harbor.managed": "true", "reaper.keep": ""})
    run: Program = served.program()
    chain = toml(served.folder, THREE)
    steps = [("stop", "stopped", timedelta(0)), ("archive", "archived", 25 * HOUR), ("delete", "deleted", 7 * DAY)]
    for action, outcome, later in steps:
        pass_time(served, later)
        assert run("check", "--only", "daytona", *chain).code == 6
        dry = run("--once", "--dry-run", "--only", "daytona", *chain)
        assert f"would {action}" in dry.out
        ended = run("--once", "--json", "--only", "daytona", *chain)
        assert ended.code == 0, ended.err
        assert ended.outcomes() == {"idle": outcome}
        assert run("check", "--only", "daytona", *chain).code == 0
    assert served.left() == {"kept"}
    assert [call.rpartition("/")[2] for call in served.changes() if call.startswith("POST")] == ["stop", "archive"]
    history = run("history")
    assert [line.split("\t")[1] for line in history.out.splitlines()] == ["deleted", "archived", "stopped"]


def test_check_warns_of_owned_sandboxes_that_nothing_but_the_program_would_end(served: Served) -> None:
    served.add("endless", age=HOUR, auto_stop=0, auto_delete=-1)
    served.add("stops", age=HOUR, auto_stop=15, auto_delete=-1)
    served.add("ends", age=HOUR, auto_stop=15)
    served.add("foreign", age=HOUR, auto_stop=0, auto_delete=-1, labels={})
    run = served.program()
    ended = run("check", "--only", "daytona")
    assert ended.code == 0
    warnings = [line for line in ended.out.splitlines() if "warning:" in line]
    assert ["1 owned sandbox with auto-stop off" in line for line in warnings] == [True, False]
    assert "2 owned sandboxes with auto-delete off" in warnings[1]
    assert warnings[0].endswith(": endless")
    assert "foreign" not in ended.out
    assert served.changes() == []
    assert "auto-stop" not in run("--once", "--only", "daytona").out
