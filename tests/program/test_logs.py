"""Logs: on stderr only, JSON lines unless a person looks or says otherwise, each with its numbers."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timedelta

import pytest

from devkit.faults import Fault, FaultProxy
from tests.program.fakeengine import FakeEngine
from tests.program.terminal import at_terminal
from tests.run import Program


def test_json_logs_tell_what_went_what_was_retried_and_what_failed(run: Program, fake: FakeEngine) -> None:
    fake.add("chess-1")
    stuck = fake.add("stuck", refusal=(500, "driver failed"))
    fake.add("odd-override", labels={"reaper.ttl": "soon"})
    ended = run("--once")
    assert len(ended.logs) == len(ended.err.splitlines()), "every line is JSON"
    for line in ended.logs:
        assert datetime.fromisoformat(line["timestamp"]).utcoffset() == timedelta(0)
    events = {line["event"]: line for line in ended.logs}
    assert events.keys() == {"sweep_started", "invalid_label", "deleted", "attempt_failed", "failed", "sweep_finished"}
    about = {"endpoint": "local", "kind": "container"}

    assert events["deleted"].items() >= {**about, "level": "info", "name": "chess-1", "policy": "stopped-containers"}.items()
    assert events["deleted"]["reason"] == "stopped 2 d ago, policy stopped-containers allows 6 h"

    told = f"the engine answered 500: driver failed [DELETE /v1.41/containers/{stuck.id[:12]}]"
    retries = [line for line in ended.logs if line["event"] == "attempt_failed"]
    assert [line["attempt"] for line in retries] == [1, 2, 3, 1, 2, 3], "three retries, and as many in the last round"
    for line in retries:
        assert (line["level"], line["endpoint"], line["attempts"]) == ("warning", "local", 4)
        assert line["call"] == "delete container stuck"
        assert line["error"] == told
        assert 0.02 <= line["delay_seconds"] <= 0.05

    assert (
        events["failed"].items() >= {**about, "level": "error", "name": "stuck", "id": stuck.id[:12], "attempts": 8}.items()
    )
    assert events["failed"]["error"] == told
    assert [line["event"] for line in ended.logs].count("failed") == 1

    assert events["invalid_label"].items() >= {**about, "level": "warning", "name": "odd-override"}.items()

    summary = ended.logs[-1]
    seconds = summary.pop("seconds")
    assert 0 < seconds < 60
    del summary["timestamp"]
    assert summary == {
        "event": "sweep_finished",
        "level": "info",
        "endpoints": 1,
        "held": 3,
        "deleted": 1,
        "failed": 1,
        "endpoint_failures": 0,
        "dry_run": False,
    }


def test_the_engine_s_override_to_be_left_alone_is_logged_and_costs_no_attempt(run: Program, fake: FakeEngine) -> None:
    fake.add("chess-1")
    with FaultProxy(fake.socket) as proxy:
        proxy.add(Fault("status", "DELETE", "/containers/", times=1, status=429, headers={"Retry-After": "1"}))
        ended = run("--once", env={"DOCKER_HOST": proxy.host})
    assert (ended.code, fake.names()) == (0, set())
    (line,) = [line for line in ended.logs if line["event"] == "rate_limited"]
    assert (line["level"], line["attempt"], line["delay_seconds"]) == ("warning", 1, 1.0)


@pytest.mark.parametrize(
    ("level", "events"),
    [
        ("debug", {"sweep_started", "endpoint_listed", "decided", "deleted", "attempt_failed", "failed", "sweep_finished"}),
        ("warning", {"attempt_failed", "failed"}),
    ],
)
def test_a_level_leaves_out_what_is_below_it(run: Program, fake: FakeEngine, level: str, events: set[str]) -> None:
    fake.add("chess-1")
    fake.add("stuck", refusal=(500, "driver failed"))
    ended = run("--once", "--log-level", level)
    assert {line["event"] for line in ended.logs} == events
    assert len(ended.logs) == len(ended.err.splitlines())
    assert "local: 1 deleted, 1 failed" in ended.out, "results are no logs"


def test_console_logs_in_a_pipe_have_no_colours(run: Program, fake: FakeEngine) -> None:
    fake.add("chess-1")
    ended = run("--once", "--log-format", "console")
    assert (ended.logs, "\x1b" in ended.err) == ([], False)
    started, deleted, summary = ended.err.splitlines()
    assert "[info     ] sweep_started" in started
    assert "[info     ] deleted" in deleted
    assert "name=chess-1" in deleted
    assert "[info     ] sweep_finished" in summary
    assert "deleted=1" in summary


def test_json_logs_at_a_terminal_when_asked_for(run: Program, fake: FakeEngine) -> None:
    fake.add("chess-1", labels={"reaper.ttl": "soon"})
    seen = at_terminal(run, "check", "--log-format", "json", where="err")
    assert seen.raw.startswith('{"endpoint": "local"')
    assert "\x1b" not in seen.raw


def test_a_person_s_logs_leave_out_what_the_table_says(run: Program, fake: FakeEngine) -> None:
    fake.add("chess-1")
    seen = at_terminal(run, "--once", where="err")
    assert "sweep_finished" not in seen.text
    assert "chess-1" not in seen.text


def test_listing_and_checking_log_nothing_that_happens_every_time(run: Program, fake: FakeEngine) -> None:
    fake.add("chess-1")
    assert run("list").err == ""
    assert run("check").err == ""


LIBRARY = """
import logging, sys
from reaper.observers.log import configure
configure(*sys.argv[1:])
log = logging.getLogger("aiohttp.server")
log.info("of no interest")
log.warning("took %d ms\\x1b[2J", 42)
try:
    1 / 0
except ZeroDivisionError:
    log.critical("Error handling request", exc_info=True)
"""


def of_a_library(*how: str, env: Mapping[str, str] | None = None) -> list[str]:
    command = [sys.executable, "-c", LIBRARY, *how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=env)
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_what_libraries_log_has_the_same_form() -> None:
    slow, broken = map(json.loads, of_a_library("json", "info"))
    assert slow.items() >= {"event": "library_message", "level": "warning", "logger": "aiohttp.server"}.items()
    assert slow["message"] == "took 42 ms\x1b[2J"
    assert (broken["level"], broken["message"]) == ("error", "Error handling request")
    assert broken["exception"][0]["exc_type"] == "ZeroDivisionError"


def test_at_a_terminal_what_libraries_log_has_no_traceback_and_no_control_characters() -> None:
    slow, broken = of_a_library("console", "warning")
    assert "took 42 ms [2J" in slow
    assert "\x1b" not in slow
    assert "Error handling request" in broken


def test_in_systemd_s_journal_every_line_has_its_priority() -> None:
    """As systemd starts it: stderr is a socket or a pipe, and JOURNAL_STREAM says which."""
    reader, writer = os.pipe()
    with os.fdopen(reader, encoding="utf-8") as read:
        there = os.fstat(writer)
        env = {**os.environ, "JOURNAL_STREAM": f"{there.st_dev}:{there.st_ino}"}
        subprocess.run([sys.executable, "-c", LIBRARY, "json", "info"], stderr=writer, env=env, timeout=60, check=True)
        os.close(writer)
        slow, broken = read.read().splitlines()
    assert slow.startswith('<4>{"logger": "aiohttp.server"')
    assert json.loads(broken.removeprefix("<3>"))["message"] == "Error handling request"


def test_elsewhere_no_line_has_one() -> None:
    env = {**os.environ, "JOURNAL_STREAM": "1:1"}
    assert all(line.startswith("{") for line in of_a_library("json", "info", env=env))
