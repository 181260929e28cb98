"""Every exit code of the design, from the program as a process, and which one counts where several apply."""

import itertools
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint

from devkit.faults import Fault, FaultProxy
from reaper import exits
from reaper.cli import main
from reaper.core.model import CapHit, Decision, EndpointFailure, EndpointReport, Outcome, Reason, Report, Result, Verdict
from reaper.sweep.ports import Stop
from reaper.sweep.runner import exit_code, run_with_deadline
from tests.core.make import STOPPED
from tests.program.fakeengine import FakeEngine
from tests.program.wrapped import patched, started
from tests.run import NO_DAYTONA, Program

ELSEWHERE = "import sys; sys.platform = 'darwin'; {}"

# -- 0 and what is not 0 -----------------------------------------------------------------------------------------------


def test_0_when_everything_went(run: Program, fake: FakeEngine) -> None:
    fake.add("chess-1")
    fake.add("neighbour", owned=False)
    ended = run("--once")
    assert ended.code == 0
    assert fake.names() == {"neighbour"}
    assert "local: 1 deleted, 1 kept" in ended.out


def test_0_when_there_is_nothing_to_do(run: Program, fake: FakeEngine) -> None:
    ended = run("--once")
    assert (ended.code, fake.changes()) == (0, [])
    assert "nothing to delete" in ended.out


def test_0_when_looking_finds_garbage(run: Program, fake: FakeEngine) -> None:
    fake.add("chess-1")
    ended = run("explain", "chess-1")
    assert (ended.code, fake.changes()) == (0, [])
    assert "chess-1" in ended.out


def test_4_when_the_cap_was_hit_and_nothing_was_deleted(run: Program, fake: FakeEngine) -> None:
    for i in range(3):
        fake.add(f"chess-{i}")
    ended = run("--once", "--max-deletions", "2")
    assert (ended.code, fake.changes()) == (4, [])
    assert "3 would have gone, but max_deletions = 2 allows 2" in ended.err


def test_5_when_an_endpoint_is_down_which_hinders_no_other(run: Program, fake: FakeEngine, tmp_path: Path) -> None:
    fake.add("chess-1")
    file = tmp_path / "two.toml"
    file.write_text(
        f'[[docker]]\nname = "gone"\nhost = "unix://{tmp_path}/no.sock"\n[[docker]]\nname = "here"\nhost = "{fake.host}"\n'
    )
    ended = run("--once", "--config", str(file))
    assert ended.code == 5
    assert fake.names() == set()
    assert "here: 1 deleted" in ended.out
    assert f"gone: could not be listed: no engine at unix://{tmp_path}/no.sock" in ended.out
    # ... and a run that does not need it leaves it out.
    assert run("--once", "--config", str(file), "--only", "here").code == 0


def test_6_when_check_finds_something(run: Program, fake: FakeEngine) -> None:
    fake.add("chess-1")
    ended = run("check")
    assert (ended.code, fake.changes()) == (6, [])
    assert "1 resource is left" in ended.out
    assert run("--once").code == 0
    ended = run("check")
    assert (ended.code, ended.out) == (0, "nothing reapable is left\n")


def test_5_and_not_6_nor_a_promise_when_check_cannot_see_everything(run: Program, fake: FakeEngine, tmp_path: Path) -> None:
    file = tmp_path / "two.toml"
    file.write_text(
        f'[[docker]]\nname = "gone"\nhost = "unix://{tmp_path}/no.sock"\n[[docker]]\nname = "here"\nhost = "{fake.host}"\n'
    )
    ended = run("check", "--config", str(file))
    assert ended.code == 5
    assert "nothing reapable" not in ended.out
    fake.add("chess-1")
    assert run("check", "--config", str(file)).code == 5


# -- 1: bugs -----------------------------------------------------------------------------------------------------------

BUGS = {
    "in a sweep": "import reaper.sweep.endpoint_sweep as s\ns.decide_within = lambda *a, **k: {}['the missing\\nkey']",
    "in a command": "import reaper.cli.sweep\nreaper.cli.sweep.exit_code = lambda report: {}['the missing\\nkey']",
}


@pytest.mark.parametrize("patch", BUGS.values(), ids=BUGS.keys())
def test_1_for_a_bug_in_one_line_without_a_traceback(run: Program, fake: FakeEngine, patch: str) -> None:
    fake.add("chess-1")
    ended = patched(run, patch, "--once", "--log-format", "console")
    assert ended.code == 1
    said = [line for line in ended.err.splitlines() if "KeyError" in line]
    assert len(said) == 1
    assert "internal" in said[0]
    assert "Traceback" not in ended.err + ended.out
    assert 'File "' not in ended.err + ended.out


@pytest.mark.parametrize("patch", BUGS.values(), ids=BUGS.keys())
def test_1_tells_the_traceback_at_level_debug_and_never_on_stdout(run: Program, fake: FakeEngine, patch: str) -> None:
    fake.add("chess-1")
    ended = patched(run, patch, "--once", "--log-format", "console", "--log-level", "debug")
    assert ended.code == 1
    assert "Traceback (most recent call last)" in ended.err
    assert "KeyError" in ended.err
    assert "Traceback" not in ended.out


@pytest.mark.parametrize("patch", BUGS.values(), ids=BUGS.keys())
def test_1_tells_the_traceback_in_json_logs_but_no_variables(run: Program, fake: FakeEngine, patch: str) -> None:
    fake.add("chess-1")
    ended = patched(run, patch, "--once", env={"DAYTONA_API_KEY": "dtn_0123456789secret", **NO_DAYTONA})
    assert ended.code == 1
    bug = next(line for line in ended.logs if line["event"] == "internal_error")
    assert len(ended.err.splitlines()) == len(ended.logs), "every line on stderr is JSON"
    assert bug["exception"][0]["exc_type"] == "KeyError"
    assert bug["exception"][0]["frames"]
    assert "dtn_0123456789secret" not in ended.err + ended.out


def test_1_for_a_bug_on_one_endpoint_hinders_no_other(run: Program, fake: FakeEngine, tmp_path: Path) -> None:
    fake.add("chess-1")
    file = tmp_path / "two.toml"
    with FakeEngine() as other:
        other.add("go-1")
        file.write_text(
            f'[[docker]]\nname = "buggy"\nhost = "{fake.host}"\n[[docker]]\nname = "fine"\nhost = "{other.host}"\n'
        )
        patch = (
            "import reaper.sweep.endpoint_sweep as s\nreal = s.decide_within\n"
            "s.decide_within = lambda found, *a, **k: real(found, *a, **k) if found[0].endpoint == 'fine' else 1 / 0"
        )
        ended = patched(run, patch, "--once", "--config", str(file))
        assert ended.code == 1
        assert (fake.names(), other.names()) == ({"chess-1"}, set())
    assert "buggy: a bug: ZeroDivisionError" in ended.out
    assert "could not be listed" not in ended.out


# -- 2: what it cannot run on (bad options and configurations have files of their own) ------------------------------------


def test_2_where_it_cannot_run(program: Program) -> None:
    ended = program.run_code(ELSEWHERE.format("from reaper.cli import main; sys.exit(main(['--once', '--all']))"))
    assert (ended.code, ended.out) == (2, "")
    assert "reaper runs on Linux, and this is darwin" in ended.err


def test_the_library_says_so_too(program: Program) -> None:
    ended = program.run_code(ELSEWHERE.format("from reaper import lease"))
    assert "ImportError: reaper runs on Linux, and this is darwin" in ended.err


# -- 130 and 143 -------------------------------------------------------------------------------------------------------


def _wait_until_heard(process: subprocess.Popen[str]) -> None:
    """Wait until the program has taken the first signal: then it leaves the second one to the system."""
    status = Path(f"/proc/{process.pid}/status")
    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        caught = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt:"))
        if not int(caught.split()[1], 16) & 1 << signal.SIGTERM - 1:
            return
        time.sleep(0.01)
    raise AssertionError("the signal was not heard")


def _one_at_a_time(folder: Path, host: str) -> str:
    file = folder / "one.toml"
    file.write_text(f'[[docker]]\nname = "local"\nhost = "{host}"\nremovals = 1\n')
    return str(file)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_in_mid_sweep_ends_it_in_order(
    run: Program, fake: FakeEngine, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    for i in range(6):
        fake.add(f"chess-{i}")
    with FaultProxy(fake.socket) as proxy:
        gate = proxy.hold("DELETE", "/containers/")
        with started(run, "--once", "--json", "--config", _one_at_a_time(tmp_path, proxy.host)) as process:
            gate.reached()
            process.send_signal(number)
            _wait_until_heard(process)
            gate.release()
            ended = run.finish(process)
    assert ended.code == code
    assert ended.document["exit_code"] == code
    assert ended.document["interrupted"] == number.name
    # The one under way was finished and confirmed, nothing new was begun, and the report says so.
    outcomes = ended.outcomes()
    assert sorted(outcomes.values()) == ["abandoned"] * 5 + ["deleted"]
    assert fake.names() == {name for name, outcome in outcomes.items() if outcome == "abandoned"}
    assert ended.logs[-1]["event"] == "sweep_finished"
    assert (ended.logs[-1]["deleted"], ended.logs[-1]["abandoned"]) == (1, 5)


@pytest.mark.usefixtures("no_nohup")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_while_the_listing_hangs_ends_at_once(
    run: Program, fake: FakeEngine, number: signal.Signals, code: int
) -> None:
    fake.add("chess-1")
    with FaultProxy(fake.socket) as proxy:
        gate = proxy.hold("GET", "/containers/json")
        with started(run, "--once", "--json", env={"DOCKER_HOST": proxy.host}) as process:
            gate.reached()
            began = time.monotonic()
            process.send_signal(number)
            ended = run.finish(process)
    assert time.monotonic() - began < 9  # what is under way would get 10 s
    assert ended.code == code
    assert ended.document["endpoints"][0]["failure"]["error"] == "interrupted"
    assert fake.names() == {"chess-1"}


def test_a_second_signal_ends_the_process_at_once(run: Program, fake: FakeEngine) -> None:
    fake.add("chess-1")
    with FaultProxy(fake.socket) as proxy:
        gate = proxy.hold("DELETE", "/containers/")
        with started(run, "--once", env={"DOCKER_HOST": proxy.host}) as process:
            gate.reached()
            process.send_signal(signal.SIGTERM)
            _wait_until_heard(process)
            process.send_signal(signal.SIGTERM)
            ended = run.finish(process)
    assert ended.code == -signal.SIGTERM
    assert "Traceback" not in ended.err


@pytest.mark.usefixtures("no_nohup")
def test_a_terminal_may_hang_up_twice() -> None:
    """The kernel sends SIGHUP when a window is closed, and so does its shell."""

    async def work(stop: Stop) -> int:
        for _ in range(2):
            signal.raise_signal(signal.SIGHUP)
            await stop.wait()
            for _ in range(5):  # until what listens has had its turn
                await checkpoint()
        return exits.OF_SIGNAL[stop.why or ""]

    assert anyio.run(lambda: run_with_deadline(work, timedelta(minutes=1))) == 129


def test_an_interrupt_before_there_is_a_loop_leaves_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """As while the program is imported, which takes half a second."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("reaper.cli.build_parser", interrupted)
    assert main(["--once"]) == 130


def test_a_signal_while_listing_for_people_is_reported_too(run: Program, fake: FakeEngine) -> None:
    with FaultProxy(fake.socket) as proxy:
        gate = proxy.hold("GET", "/containers/json")
        with started(run, "check", env={"DOCKER_HOST": proxy.host}) as process:
            gate.reached()
            process.send_signal(signal.SIGINT)
            ended = run.finish(process)
    assert ended.code == 130
    assert ended.out == "local: could not be listed: the sweep ended before it was listed\n"


# -- which one counts --------------------------------------------------------------------------------------------------

DECISION = Decision(STOPPED, Verdict.REAP, Reason.STOPPED_FOR, "stopped 7 h ago")
ORDER = ("bug", "signal", "unlisted", "cap", "failed")
CODES = {"bug": 1, "signal": 143, "unlisted": 5, "cap": 4, "failed": 3}


def _endpoint(what: str) -> EndpointReport:
    return EndpointReport(
        endpoint=what,
        provider="docker",
        failure={"bug": EndpointFailure("internal_error", "x"), "unlisted": EndpointFailure("denied", "x")}.get(what),
        cap=CapHit(2, 1, 2, "max_deletions = 1") if what == "cap" else None,
        results=(Result(DECISION, Outcome.FAILED, "x"),) if what == "failed" else (Result(DECISION, Outcome.DELETED),),
    )


def _report(*endpoints: EndpointReport, interrupted: str | None = None) -> Report:
    return Report(
        started_at=datetime(2026, 11, 21, tzinfo=UTC),
        seconds=1.0,
        dry_run=False,
        endpoints=endpoints,
        interrupted=interrupted,
    )


def test_of_several_codes_the_first_of_the_table_counts() -> None:
    for chosen in itertools.product((False, True), repeat=len(ORDER)):
        applies = [what for what, chose in zip(ORDER, chosen, strict=True) if chose]
        for order in (applies, applies[::-1]):
            endpoints = [_endpoint("fine"), *(_endpoint(what) for what in order if what != "signal")]
            report = _report(*endpoints, interrupted="SIGTERM" if "signal" in applies else None)
            assert exit_code(report) == (CODES[applies[0]] if applies else 0), applies


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome.DELETED, 0),
        (Outcome.GONE, 0),
        (Outcome.SKIPPED, 0),
        (Outcome.STOPPED, 3),
        (Outcome.WOULD_DELETE, 0),
        (Outcome.FAILED, 3),
        (Outcome.ABANDONED, 3),
    ],
)
def test_the_code_of_each_outcome(outcome: Outcome, code: int) -> None:
    endpoint = EndpointReport(endpoint="a", provider="docker", results=(Result(DECISION, outcome),))
    assert exit_code(_report(endpoint)) == code


def test_a_timeout_is_no_signal() -> None:
    assert exit_code(_report(_endpoint("fine"), interrupted="timeout")) == 0
    assert exit_code(_report(_endpoint("unlisted"), interrupted="timeout")) == 5
    assert exit_code(_report(_endpoint("fine"), interrupted="SIGINT")) == 130


@pytest.mark.parametrize(
    ("command", "way"),
    [(("--once",), "its time is up"), (("--once",), "a signal"), (("check",), "a signal"), (("list",), "a signal")],
)
def test_what_nothing_was_decided_about_is_not_called_kept(
    run: Program, fake: FakeEngine, command: tuple[str, ...], way: str
) -> None:
    ids = [fake.add(f"chess-{number}", ago="30h").id for number in range(20)]
    with FaultProxy(fake.socket) as proxy:
        gate = proxy.hold("GET", f"/containers/{ids[7]}")
        limit = ("--timeout", "4s") if way == "its time is up" else ()
        with started(run, *command, "--json", *limit, env={"DOCKER_HOST": proxy.host}) as process:
            gate.reached()
            if not limit:
                process.send_signal(signal.SIGINT)
            ended = run.finish(process)
        assert ended.code == (5 if limit else 130)
        (endpoint,) = ended.document["endpoints"]
        assert (endpoint["held"], endpoint["undecided"], endpoint["resources"]) == (20, 20, [])
        assert endpoint["failure"]["message"] == "the sweep ended before anything there was decided"


def test_people_are_reported_what_nothing_was_decided_about(run: Program, fake: FakeEngine) -> None:
    ids = [fake.add(f"chess-{number}", ago="30h").id for number in range(20)]
    with FaultProxy(fake.socket) as proxy:
        proxy.add(Fault("hang", "GET", f"/containers/{ids[7]}"))
        ended = run("--once", "--timeout", "3s", env={"DOCKER_HOST": proxy.host})
    assert ended.code == 5
    assert "local: 20 not decided about, in " in ended.out
    assert "kept" not in ended.out
    assert "local: was not looked at to the end: the sweep ended before anything there was decided" in ended.out
