"""``[evidence]`` and ``reaper history --show`` as people use them: a sweep of a simulated engine, and what is shown then."""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from reaper.simulator.docker.model import Behaviour
from tests.daytona.lab import HARBOR
from tests.daytona.server import Served
from tests.program.terminal import at_terminal
from tests.run import Ended, Program
from tests.simulator.docker_world import World

SECRET = "hunter2s3cr3t"
HOSTILE = (
    (1, f"\x1b[2J\x1b]0;owned\x07\x00\r50%\r\u202egnp.exe token={SECRET}\n".encode() + b"\xff\xfe\n"),
    (2, f"connecting with {SECRET}\n".encode()),
    (1, f"> Authorization: Bearer other-{SECRET}\n".encode()),
)
ENDED = Behaviour(runs=0, code=137, oom=True, log=HOSTILE)
FILE = """
[scope]
names = ["trial-*"]

[evidence]
{evidence}

[[policy]]
name = "stopped"
kinds = ["container"]
stopped_for = "10m"
"""
ALL = 'logs = 200\ninspect = true\nkeep_for = "14d"\nmax_size = "1GiB"'


@pytest.fixture
def world() -> Iterator[World]:
    """A trial that the kernel has ended, one that ended well, and one that is not the reaper's."""
    with World() as world:
        world.import_image()
        environment = [f"OPENAI_API_KEY={SECRET}", f"DB_URL=postgres://u:{SECRET}@db/x", "TEAM=rl"]
        trial = world.add("trial-1", behaviour=ENDED, exit_code=137, command=("run", "--token", SECRET))
        trial.config = {**trial.config, "Env": environment}
        world.add("trial-2", behaviour=Behaviour(runs=0, log=((1, b"done\n"),)))
        world.add("other", behaviour=ENDED)
        yield world


@pytest.fixture
def run(world: World, tmp_path: Path) -> Program:
    return configured(Program(tmp_path, {"DOCKER_HOST": world.host}), ALL)


def configured(run: Program, text: str) -> Program:
    (run.folder / "reaper.toml").write_text(FILE.format(evidence=text))
    run.env["REAPER_CONFIG"] = str(run.folder / "reaper.toml")
    return run


def swept(run: Program, *arguments: str) -> Ended:
    ended = run("--once", "--json", *arguments)
    assert ended.code == 0, ended.err
    return ended


def ids(run: Program) -> dict[str, str]:
    return {act["name"]: act["id"] for act in run("history", "--json").document["acts"]}


def test_what_a_container_wrote_last_and_how_it_ended_is_shown_after_its_deletion(run: Program, world: World) -> None:
    ended = swept(run)
    assert ended.outcomes() == {"trial-1": "deleted", "trial-2": "deleted"}
    shown = run("history", "--show", "trial-1")
    assert (shown.code, shown.err) == (0, "")
    for text in ("exit code 137", "killed since it was out of memory", '"TEAM=rl"', "connecting with ***", "deleted at "):
        assert text in shown.out
    assert "done" in run("history", "--show", ids(run)["trial-2"]).out
    assert ids(run)["trial-1"] == json.loads(run("history", "--show", "trial-1", "--json").out)["evidence"]["id"]
    assert sorted(file.stem for file in (run.folder / "evidence").iterdir()) == sorted(ids(run).values())
    assert {file.stat().st_mode & 0o777 for file in (run.folder / "evidence").iterdir()} == {0o600}


def test_no_secret_is_in_a_file_in_the_log_or_in_what_is_shown(run: Program) -> None:
    said = [swept(run, "--log-level", "debug")]
    said += [run("history", "--show", "trial-1"), run("history", "--show", "trial-1", "--json"), run("history", "--json")]
    for ended in said:
        assert SECRET not in ended.out + ended.err
    for file in run.folder.rglob("*"):
        if file.is_file():
            assert SECRET.encode() not in file.read_bytes(), file
    assert "OPENAI_API_KEY=***" in said[1].out
    assert "postgres://***@db/x" in said[1].out


def test_what_a_container_wrote_moves_no_terminal(run: Program) -> None:
    swept(run)
    for text in (run("history", "--show", "trial-1").out, at_terminal(run, "history", "--show", "trial-1").text):
        assert "\\x1b[2J\\x1b]0;owned\\x07\\x00\\r50%\\r\\u202egnp.exe token=***" in text
        assert "\\xff\\xfe" in text
        assert all(c.isprintable() or c == "\n" for c in text.replace("\r\n", "\n"))
    found = run("history", "--show", "trial-1", "--json")
    assert found.document["evidence"]["log"][0].startswith("\x1b[2J")
    assert found.out.isascii()
    assert found.out.count("\n") == 1


def test_a_log_of_200_lines_is_the_last_of_it(run: Program, world: World) -> None:
    lines = tuple((1, f"line {i}\n".encode()) for i in range(1000))
    world.add("trial-3", behaviour=Behaviour(runs=0, log=lines))
    swept(run)
    log = run("history", "--show", "trial-3", "--json").document["evidence"]["log"]
    assert log == [f"line {i}" for i in range(800, 1000)]


def test_history_and_the_journal_say_of_which_there_is_some(run: Program, world: World) -> None:
    swept(run)
    configured(run, "logs = 0")
    world.add("trial-3")
    swept(run)
    found = {act["name"]: act["evidence"] for act in run("history", "--json").document["acts"]}
    assert found == {"trial-1": True, "trial-2": True, "trial-3": False}
    plain = run("history").out.splitlines()
    assert [f"evidence: --show {ids(run)['trial-1'][:12]}" in line for line in plain if "trial-1" in line] == [True]
    assert [line for line in plain if "trial-3" in line and "--show" in line] == []
    with closing(sqlite3.connect(run.folder / "journal.db")) as journal:
        rows = dict(journal.execute("SELECT name, evidence FROM act").fetchall())
    assert rows == {"trial-1": 1, "trial-2": 1, "trial-3": 0}


def test_without_the_table_nothing_is_saved_and_nothing_more_is_asked(run: Program, world: World) -> None:
    configured(run, "")
    swept(run)
    assert not (run.folder / "evidence").exists()
    shown = run("history", "--show", "trial-1")
    assert shown.code == 2
    assert "no evidence of 'trial-1' was saved" in shown.err
    assert "set logs and inspect in [evidence]" in shown.err


def test_a_dry_run_saves_nothing(run: Program) -> None:
    swept(run, "--dry-run")
    assert not (run.folder / "evidence").exists()


def test_an_id_may_be_short_and_what_it_may_mean_is_said(run: Program, world: World) -> None:
    swept(run)
    first = ids(run)["trial-1"]
    assert run("history", "--show", first[:12]).out == run("history", "--show", "trial-1").out
    (run.folder / "evidence" / f"{first[:12]}f.json").write_text("{}")
    shown = run("history", "--show", first[:6])
    assert shown.code == 2
    assert f"{first[:6]!r} may be {first}, {first[:12]}f" in shown.err or f"may be {first[:12]}f, {first}" in shown.err
    assert run("history", "--show", first).code == 0


@pytest.mark.parametrize("wanted", ["nothing", "", "../journal", "/etc/passwd", "%", "*", os.fsdecode(b"\xff")])
def test_what_is_not_there_is_a_usage_error(run: Program, wanted: str) -> None:
    swept(run)
    shown = run("history", f"--show={wanted}")
    assert (shown.code, shown.out) == (2, "")
    assert f"no evidence of {wanted!r} was saved" in shown.err


@pytest.mark.parametrize("option", ["--since=1h", "--name=trial-1", "--limit=5", "--summary", "--outcome=deleted"])
def test_it_does_not_go_with_options_that_choose_among_all(run: Program, option: str) -> None:
    shown = run("history", "--show", "trial-1", option)
    assert shown.code == 2
    assert option.partition("=")[0] in shown.err


def test_what_was_dropped_is_said_to_be(run: Program) -> None:
    swept(run)
    for file in (run.folder / "evidence").iterdir():
        file.unlink()
    shown = run("history", "--show", "trial-1")
    assert shown.code == 2
    assert "the evidence of 'trial-1' was dropped\n  it is kept for 14 d, no more than 1.0 GiB ([evidence])" in shown.err


def test_it_is_shown_without_a_journal_and_by_a_damaged_one(run: Program) -> None:
    swept(run)
    first = ids(run)["trial-1"]
    (run.folder / "journal.db").write_bytes(b"no journal" * 1000)
    assert "exit code 137" in run("history", "--show", first).out
    for file in run.folder.glob("journal.db*"):
        file.unlink()
    assert "exit code 137" in run("history", "--show", first).out
    (run.folder / "evidence" / f"{first}.json").write_text("{")
    shown = run("history", "--show", first)
    assert shown.code == 2
    assert f"{first}.json" in shown.err
    assert "Traceback" not in shown.err


def test_a_folder_that_cannot_be_read_is_said_to_be_and_the_list_goes_on(run: Program) -> None:
    (run.folder / "evidence").write_text("a file in its place")
    swept(run)
    shown = run("history", "--show", "trial-1")
    assert shown.code == 2
    assert f"{run.folder / 'evidence'}: it cannot be read: Not a directory" in shown.err
    assert {act["evidence"] for act in run("history", "--json").document["acts"]} == {False}


def test_what_is_old_is_dropped_by_the_next_sweep(run: Program) -> None:
    swept(run)
    first = ids(run)["trial-1"]
    os.utime(run.folder / "evidence" / f"{first}.json", (0, 0))
    configured(run, "")  # it is off again
    swept(run)
    assert f"{first}.json" not in {file.name for file in (run.folder / "evidence").iterdir()}


def test_a_state_directory_that_takes_nothing_hinders_no_deletion(run: Program, world: World) -> None:
    (run.folder / "evidence").write_text("a file in its place")
    ended = swept(run)
    assert ended.outcomes() == {"trial-1": "deleted", "trial-2": "deleted"}
    (warning,) = ended.document["endpoints"][0]["warnings"]
    assert "was not saved, or not all of it" in warning
    assert f"{run.folder / 'evidence'}: File exists" in warning
    assert [log["level"] for log in ended.logs if "evidence" in json.dumps(log)] == ["warning"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("logs = -1", "logs"),
        ("logs = 1001", "logs"),
        ('logs = "200"', "logs"),
        ('max_size = "1kB"', "10MB"),
        ('keep_for = "soon"', "keep_for"),
        ("log = 5", "did you mean"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(run: Program, text: str, said: str) -> None:
    ended = configured(run, text)("config", "check")
    assert ended.code == 2
    assert "evidence" in ended.err
    assert said in ended.err


def test_config_check_says_what_is_saved(run: Program) -> None:
    assert "evidence: the last 200 log lines and the inspection of what is deleted" in run("config", "check").out
    assert "[evidence] saves nothing" in configured(run, 'keep_for = "1d"')("config", "check").out
    assert "evidence" not in configured(run, "")("config", "check").out


def test_a_sandbox_has_its_state_and_no_log(served: Served) -> None:
    served.add("trial-1", labels={**HARBOR, "team": "rl"})
    run = served.program()
    (run.folder / "reaper.toml").write_text(f"[evidence]\n{ALL}")
    assert run("--once", "--only", "daytona").code == 0
    assert served.left() == set()
    shown = run("history", "--show", "trial-1")
    assert shown.code == 0
    assert "state: started" in shown.out
    assert "log: none, the platform keeps no log of a sandbox" in shown.out
    assert '"team": "rl"' in shown.out
