"""What time alone keeps: it is summed up, --all says what it leaves, and --wait waits for it."""

import signal
import time

from tests.engine.lab import until
from tests.program.fakeengine import FakeEngine
from tests.program.wrapped import started
from tests.run import Program


def crashed(fake: FakeEngine, ago: str) -> None:
    """A run that was killed while trials began: two run, two more were made and never started, one with a project."""
    fake.add("running", "running", ago="1m")
    fake.add("fresh", "created", ago=ago)
    fake.add("client", "running", ago="1m", project="chess")
    fake.add("server", "created", ago=ago, project="chess")


def test_what_may_go_in_a_moment_is_summed_up_and_all_says_what_it_leaves(run: Program, fake: FakeEngine) -> None:
    crashed(fake, "2m")
    ended = run("--once", "--all")
    assert ended.code == 0
    assert fake.names() == {"fresh", "client", "server"}
    (soon, kept) = (line for line in ended.err.splitlines() if line.startswith("hint"))
    assert soon.startswith("hint: local: 3 owned resources are kept for 7 min 5")
    assert "2 created and never started, 1 in a group with such a one" in soon
    assert soon.endswith("to wait for that: reaper --once --all --wait")
    assert kept == "hint: 3 owned resources are kept in spite of --all: 2 created grace, 1 group kept"


def test_what_no_policy_takes_after_its_grace_is_not_called_due(run: Program, fake: FakeEngine) -> None:
    fake.add("fresh", "created", ago="2m")
    ended = run("--once", "--older-than", "1h", "--wait", "--timeout", "30m")
    assert (ended.code, "more at most" in ended.err) == (0, False), ended.err
    assert "1 owned resource is kept for 9 min 5" in run("--once", "--older-than", "12m").err


def test_a_network_that_may_yet_be_used_is_not_said_to_be_never_started(run: Program, fake: FakeEngine) -> None:
    fake.add_network("dama_default", "dama", ago="2m")
    (run.folder / "reaper.toml").write_text(
        '[scope]\nlabels = ["com.docker.compose.project=dama"]\n'
        '[[policy]]\nname = "networks"\nkinds = ["network"]\nunused_for = "1s"\nevery = "1h"\n'
    )
    assert "more at most: 1 network that may yet be used; to wait for that" in run("--once").err
    fake.add_network("dama_other", "dama", ago="2m")
    assert "more at most: 2 networks that may yet be used; to wait for that" in run("--once").err


def test_a_run_does_not_suggest_what_it_cannot_do(run: Program, fake: FakeEngine) -> None:
    crashed(fake, "2m")
    ended = run("run", "--no-proxy", "--all", "--max-deletions", "0", "--", "echo", "a secret")
    assert ended.out == "a secret\n"
    assert "to go on: reaper run --no-proxy --all --max-deletions 1 -- ...\n" in ended.err
    assert "3 owned resources are kept for 7 min 5" in ended.err
    assert "--wait" not in ended.err


def test_it_waits_for_what_may_go_in_a_moment(run: Program, fake: FakeEngine) -> None:
    crashed(fake, "9m56s")
    ended = run("--once", "--all", "--wait", "--json", "--timeout", "60s")
    assert ended.code == 0
    assert fake.names() == set()
    assert ended.outcomes() == dict.fromkeys(("running", "fresh", "client", "server"), "deleted")
    assert ended.document["endpoints"][0]["held"] == 4


def test_it_waits_for_nothing_after_a_failure_that_is_to_end_it(run: Program, fake: FakeEngine) -> None:
    crashed(fake, "9m56s")
    fake.add("stuck", refusal=(500, "driver failed"))
    ended = run(
        "--once", "--all", "--wait", "--fail-fast", "--json", "--timeout", "60s", env={"REAPER_RETRY__ATTEMPTS": "1"}
    )
    assert ended.code == 3
    assert {"fresh", "client", "server"} <= fake.names()


def test_a_run_that_begins_while_it_waits_is_left_alone(run: Program, fake: FakeEngine) -> None:
    """``--all`` states that no run is alive, of the moment at which it is said."""
    crashed(fake, "9m50s")
    with started(run, "--once", "--all", "--wait", "--json", "--timeout", "60s") as process:
        until(lambda: "running" not in fake.names(), "a deletion")
        fake.add("next", "running", ago="1s")
        fake.add("next-client", "running", ago="1s", project="go")
        fake.add("ended", "exited", ago="1s")
        ended = run.finish(process)
    assert ended.code == 0
    assert fake.names() == {"next", "next-client", "ended"}
    assert ended.outcomes() == dict.fromkeys(("running", "fresh", "client", "server"), "deleted")
    (said,) = (d for d in ended.document["endpoints"][0]["resources"] if d["name"] == "next")
    assert "is for what the first sweep found" in said["sentence"]


def test_nothing_is_taken_on_an_endpoint_that_could_not_be_listed_before_the_wait(run: Program, fake: FakeEngine) -> None:
    """What runs there when it answers may have begun meanwhile."""
    crashed(fake, "9m50s")
    other = FakeEngine()
    tables = "".join(f'[[docker]]\nname = "{name}"\nhost = "{one.host}"\n' for name, one in {"a": fake, "b": other}.items())
    (run.folder / "reaper.toml").write_text(f"{tables}[scope]\neverything = true\n[limits]\nmax_fraction = 1.0\n")
    with started(run, "--once", "--all", "--wait", "--json", "--timeout", "60s") as process:
        until(lambda: "running" not in fake.names(), "a deletion")
        with other:
            other.add("next", "running", ago="1s")
            ended = run.finish(process)
            assert other.names() == {"next"}
    assert ended.code == 5
    assert fake.names() == set()
    (failed,) = (one for one in ended.document["endpoints"] if one["endpoint"] == "b")
    assert failed["failure"]["error"] == "no_endpoint"


def test_it_does_not_wait_for_what_cannot_go_in_time(run: Program, fake: FakeEngine) -> None:
    crashed(fake, "2m")
    began = time.monotonic()
    ended = run("--once", "--all", "--wait", "--timeout", "60s")
    assert time.monotonic() - began < 30
    assert ended.code == 0
    assert "3 owned resources are kept for 7 min 5" in ended.err
    assert fake.names() == {"fresh", "client", "server"}


def test_a_signal_ends_the_wait_and_what_was_done_is_reported(run: Program, fake: FakeEngine) -> None:
    crashed(fake, "2m")
    with started(run, "--once", "--all", "--wait", "--json") as process:
        for _ in range(600):
            if fake.names() == {"fresh", "client", "server"}:
                break
            time.sleep(0.05)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        ended = run.finish(process)
    assert ended.code == 130
    assert ended.outcomes() == {"running": "deleted"}


def test_waiting_goes_with_deleting_only(run: Program, fake: FakeEngine) -> None:
    for arguments in (("--once", "--dry-run", "--wait"), ("--wait",), ("--wait", "list")):
        ended = run(*arguments)
        assert ended.code == 2
        assert "--wait" in ended.err
    assert fake.calls == []
