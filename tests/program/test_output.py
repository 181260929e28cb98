"""What people and pipes see: plain lines in a pipe, tables and a bar at a terminal of any width, nothing that escapes."""

import re
import subprocess
import sys

import pytest

from reaper.observers.tables import SHOWN
from tests.program.fakeengine import FakeEngine
from tests.program.terminal import at_terminal
from tests.run import Program

TRIAL = "chess-best-move-1-of-1-2026-11-21__06-30-00"
LIST = ["verdict", "kind", "name", "owner", "state", "age", "reason"]
ONCE = ["outcome", "kind", "name", "owner", "state", "age", "reason"]


def fill(fake: FakeEngine) -> None:
    fake.add(TRIAL, image="tb__chess-best-move__client", owned=False, ago="7h")
    fake.add("young", "running", ago="5m")
    fake.add("neighbour", owned=False, ago="26h")


# -- in a pipe ---------------------------------------------------------------------------------------------------------


def test_a_listing_in_a_pipe_is_plain_lines(run: Program, fake: FakeEngine) -> None:
    fill(fake)
    ended = run("list", env={"TERM": "xterm-256color", "FORCE_COLOR": "", "COLUMNS": "40"})
    assert "\x1b" not in ended.out + ended.err
    assert "\r" not in ended.out
    rows = [line.split("\t") for line in ended.out.splitlines()]
    assert ended.err.startswith("hint: 1 owned resource is running"), "what is no row stands on stderr"
    assert rows == [
        ["reap", "local", "container", TRIAL, "terminal-bench", "exited", "7 h", rows[0][-1]],
        ["keep", "local", "container", "young", "terminal-bench", "running", rows[1][-2], rows[1][-1]],
        ["keep", "local", "container", "neighbour", "-", "exited", "26 h", "not owned"],
    ]
    assert rows[0][-1] == "stopped 7 h ago > 6 h"
    assert re.fullmatch(r"5 min( \d+ s)?", rows[1][-2])
    assert rows[1][-1] == "running, younger than 24 h"


def test_a_listing_has_what_would_go_first_then_what_needs_attention(run: Program, fake: FakeEngine) -> None:
    fill(fake)
    fake.add("unclear", labels={"reaper.ttl": "2 hourz"}, ago="1h")
    fake.add("older", "running", ago="9h")
    rows = [line.split("\t") for line in run("list").out.splitlines() if "\t" in line]
    assert [row[3] for row in rows] == [TRIAL, "unclear", "older", "young", "neighbour"]
    assert rows[1][-1] == "invalid label reaper.ttl"


def test_a_failed_container_that_is_kept_needs_attention(run: Program, fake: FakeEngine) -> None:
    fake.add("older", ago="5h")
    fake.add("failed", "dead", ago="1h")
    assert [line.split("\t")[3] for line in run("list").out.splitlines() if "\t" in line] == ["failed", "older"]


def test_a_sweep_in_a_pipe_is_plain_lines(run: Program, fake: FakeEngine) -> None:
    fill(fake)
    for i in range(SHOWN + 5):
        fake.add(f"chess-{i:03}")
    ended = run("--once")
    assert "\x1b" not in ended.out + ended.err
    rows = [line.split("\t") for line in ended.out.splitlines() if "\t" in line]
    assert len(rows) == SHOWN + 6, "a pipe sees all of them"
    assert {(len(row), row[0], row[1], row[2]) for row in rows} == {(8, "deleted", "local", "container")}
    assert [row[-1] for row in rows if row[3] == TRIAL] == ["stopped 7 h ago > 6 h"]
    summary = [line for line in ended.out.splitlines() if line.startswith("local: ")]
    assert re.fullmatch(rf"local: {SHOWN + 6} deleted, 2 kept, 1 of these not owned, in \d+\.\d s", summary[0])


def test_what_others_wrote_cannot_speak_to_the_terminal(run: Program, fake: FakeEngine) -> None:
    evil = "\x1b[31mred\x1b]0;title\x07\nreap\tforged\r\x9b2J\u202eback"
    fake.add(f"a{evil}", refusal=(500, f"broken{evil}"))
    fake.add("b", image=evil, labels={evil: evil, "reaper.ttl": evil})
    fake.add("c", labels={"reaper.lease": evil}, ago="7h")
    fake.add("d", "melting\x1b[31m\n")
    once = run("--once", "--log-format", "console", "--log-level", "debug")
    assert once.code == 3
    listed, explained = run("list"), run("explain", "c")
    missing = run("explain", evil.replace("\n", " "))
    assert missing.code == 2
    for ended in (once, listed, explained, missing):
        for text in (ended.out, ended.err):
            assert not re.findall(r"[^\x20-\x7e\n\t]", text)
    assert len([line for line in listed.out.splitlines() if "\t" in line]) == 4
    assert not [line for line in listed.out.splitlines() if line.startswith("reap\tforged")]


def test_an_encoding_that_lacks_a_letter_is_no_bug(run: Program, fake: FakeEngine) -> None:
    fake.add("zoë")
    ended = run("--once", env={"PYTHONIOENCODING": "ascii"})
    assert ended.code == 0
    assert "zo\\xeb" in ended.out
    assert fake.names() == set()


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_is_no_bug(run: Program, fake: FakeEngine, unbuffered: str) -> None:
    fill(fake)
    process = subprocess.Popen(
        [sys.executable, "-m", "reaper", "list"],
        env={**run.env, "PYTHONUNBUFFERED": unbuffered},
        cwd=run.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()  # as head -1 does
    assert process.stderr is not None
    with process.stderr:
        assert [line for line in process.stderr if not line.startswith("hint: ")] == []
    assert process.wait(60) == 0


def test_explain_tells_every_rule_in_order(run: Program, fake: FakeEngine) -> None:
    fill(fake)
    lines = run("explain", "young").out.splitlines()
    rules = (
        "readable",
        "owned",
        "system_container",
        "protected",
        "label override",
        "lease",
        "state",
        "restart policy",
        "created grace",
    )
    at = [next(i for i, line in enumerate(lines) if f" {rule}  " in line) for rule in rules]
    assert at == sorted(at)
    for policy in ("stopped-containers", "old-containers", "stopped-sandboxes", "old-sandboxes"):
        assert [line for line in lines if f"policy {policy} " in line]
    assert re.fullmatch(r"keep: last started 5 min( \d+ s)? ago, policy old-containers allows 24 h", lines[-1])


# -- at a terminal -----------------------------------------------------------------------------------------------------


def _header(lines: list[str]) -> int:
    return next(i for i, line in enumerate(lines) if line.startswith(("verdict", "outcome")))


@pytest.mark.parametrize("columns", [80, 160])
@pytest.mark.parametrize(("arguments", "heads"), [(["list"], LIST), (["--once", "--dry-run"], ONCE)], ids="-".join)
def test_a_table_fits_its_terminal(
    run: Program, fake: FakeEngine, columns: int, arguments: list[str], heads: list[str]
) -> None:
    fill(fake)
    (run.folder / "reaper.toml").write_text("[journal]\n")
    seen = at_terminal(run, *arguments, columns=columns)
    assert "\t" not in seen.text
    table = [line for line in seen.lines if not line.startswith("hint: ")]
    assert max(len(line) for line in table) <= columns
    header = table[_header(table)]
    assert f"{'local: 3 resources' if arguments == ['list'] else 'local'}" in table[0]
    if columns == 80:  # too narrow for columns
        at = _header(table)
        assert [line.split() for line in table[at : at + 2]] == [
            ["outcome" if "--once" in arguments else "verdict", "name"],
            ["kind,", "owner,", "state,", "age:", "reason"],
        ]
        assert table[at + 2].split() == [*("reap" if arguments == ["list"] else "would delete").split(), TRIAL]
        assert table[at + 3].strip() == "container, terminal-bench, exited, 7 h: stopped 7 h ago > 6 h"
        return
    assert header.split() == heads
    # Every cell begins below its head, and nothing that matters is cut off.
    start = {head: header.index(head) for head in heads}
    row = next(line for line in table[_header(table) + 1 :] if "terminal-bench" in line)
    assert row[start["owner"] :].startswith("terminal-bench  ")
    assert row[start["state"] :].startswith("exited")
    assert row[: start["state"]].strip().startswith(("reap", "would delete"))
    assert row[start["name"] : start["owner"]].strip() == TRIAL
    assert row[start["reason"] :].strip() == "stopped 7 h ago > 6 h"


def test_a_table_has_colours_unless_they_are_unwanted(run: Program, fake: FakeEngine) -> None:
    fill(fake)
    assert at_terminal(run, "list", where="both").coloured
    plain = at_terminal(run, "--once", where="both", env={"NO_COLOR": "1"})
    assert not plain.coloured
    assert "1 deleted" in plain.text


def test_logs_at_a_terminal_have_colours_unless_they_are_unwanted(run: Program, fake: FakeEngine) -> None:
    fake.add("chess-1", labels={"reaper.ttl": "soon"})
    assert at_terminal(run, "check", where="err").coloured
    plain = at_terminal(run, "check", where="err", env={"NO_COLOR": "1"})
    assert "invalid_label" in plain.text
    assert not plain.coloured


def test_a_person_is_reported_the_failures_and_how_many_went_well(run: Program, fake: FakeEngine) -> None:
    for i in range(SHOWN + 5):
        fake.add(f"chess-{i:03}")
    fake.add("stuck", refusal=(500, "driver failed"))
    seen = at_terminal(run, "--once", columns=160)
    assert seen.code == 3
    assert "local: 5 more deleted" in seen.lines
    told = [line.split()[0] for line in seen.lines[_header(seen.lines) + 1 :] if "terminal-bench" in line]
    assert told == ["failed"] + ["deleted"] * SHOWN
    assert f"local: {SHOWN + 5} deleted, 1 failed, 0 kept" in seen.text


def test_a_bar_only_for_a_person_and_only_while_deleting(run: Program, fake: FakeEngine) -> None:
    fill(fake)
    for arguments in (["--once", "--dry-run"], ["list"]):
        assert "\u2501" not in at_terminal(run, *arguments, where="err").text
    bar = at_terminal(run, "--once", where="err")
    assert "deleting" in bar.text
    assert "1/1" in bar.text
    assert "\u2501" in bar.text
    drawn = [line for line in bar.text.replace("\r", "\n").splitlines() if not line.startswith("hint: ")]
    assert max(map(len, drawn)) <= 80
    fake.add("chess-2")
    assert "\u2501" not in at_terminal(run, "--once", where="out").text


def test_json_at_a_terminal_is_json(run: Program, fake: FakeEngine) -> None:
    fill(fake)
    seen = at_terminal(run, "list", "--json")
    assert seen.raw.startswith('{"format": 1, ')
    assert "\x1b" not in seen.raw
