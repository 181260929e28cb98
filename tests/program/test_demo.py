"""The demo: whole at a terminal and in a pipe, consistent in itself, and without a trace of or in the user's world."""

import errno
import os
import re
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reaper.cli import main
from reaper.simulator.demo.world import World
from tests.program.fakeengine import FakeEngine
from tests.program.terminal import at_terminal
from tests.program.wrapped import started
from tests.run import Ended, Program

HEADINGS = [
    "What is there, and what is to become of it",
    "The sweep",
    "What was left alone, and why",
    "What came of it",
    "Is that true?",
    "Now yours",
]
KEPT_FOR = {"too young", "not owned", "no policy", "group kept", "protected", "label not due", "restart policy", "skipped"}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A short path for temporary files: sockets live there."""
    folder = Path(f"/tmp/demo-{os.getpid()}-{abs(hash(tmp_path)) % 10**6}")
    folder.mkdir()
    yield folder
    assert list(folder.iterdir()) == [], "something was left behind"
    folder.rmdir()


@pytest.fixture
def demo(tmp_path: Path, home: Path) -> Program:
    """The program, with its temporary files in a folder of their own and no place for any other."""
    state = tmp_path / "state"
    state.mkdir()
    return Program(state, {"TMPDIR": str(home), "HOME": str(tmp_path / "home")})


@contextmanager
def refusing() -> Iterator[socket.socket]:
    """A TCP port that must not be connected to."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.setblocking(False)
        yield listener
        with pytest.raises(BlockingIOError):
            listener.accept()


def section(lines: list[str], heading: str) -> list[str]:
    """The lines below a heading, up to the next one."""
    start = lines.index(heading) + 1
    end = next((i for i, line in enumerate(lines) if i >= start and line in HEADINGS), len(lines))
    return lines[start:end]


def table(lines: list[str], first: str) -> list[dict[str, str]]:
    """The rows of the table whose first head is ``first``, by their heads."""
    heads = next(line for line in lines if line.split()[:1] == [first])
    names = heads.split()
    rows = []
    for line in lines[lines.index(heads) + 1 :]:
        if not line.strip():
            break
        rows.append(dict(zip(names, re.split(r" {2,}", line.strip()), strict=True)))
    return rows


def test_in_a_pipe_it_is_whole_and_nothing_of_the_user_s_is_read_or_contacted(demo: Program, tmp_path: Path) -> None:
    (demo.folder / "reaper.toml").write_text("this is no TOML")
    with FakeEngine() as engine, refusing() as daytona, refusing() as proxy:
        engine.add("chess-1")
        address = f"http://127.0.0.1:{daytona.getsockname()[1]}"
        through = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        env = {
            "DOCKER_HOST": engine.host,
            "DOCKER_TLS_VERIFY": "1",
            "DAYTONA_API_KEY": "dtn_mine",
            "DAYTONA_API_URL": f"{address}/api",
            "DAYTONA_TARGET": "eu",
            "REAPER_CONFIG": str(tmp_path / "missing.toml"),
            "REAPER_RETRY__ATTEMPTS": "none",
            "REAPER_SCOPE__EVERYTHING": "true",
            "FORCE_COLOR": "1",
            "COLUMNS": "30",
            **dict.fromkeys(("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"), through),
            "no_proxy": "example.com",
        }
        ended = demo("demo", env=env)
        assert engine.calls == []
        assert engine.names() == {"chess-1"}
    assert (ended.code, ended.err) == (0, "")
    assert "\x1b" not in ended.out
    assert [file.name for file in demo.folder.iterdir()] == ["reaper.toml"]
    assert not (tmp_path / "home").exists()
    its_numbers_agree(ended)


def its_numbers_agree(ended: Ended) -> None:
    """All headings are there, and what the tables say fits together."""
    assert not re.findall(r"[^\x20-\x7e\n…]", ended.out)
    lines = ended.out.splitlines()
    assert max(map(len, lines)) <= 100
    assert [line for line in lines if line in HEADINGS] == HEADINGS
    what_came = section(lines, "What came of it")
    *endpoints, all_ = table(what_came, "endpoint")
    assert [row["endpoint"] for row in endpoints] == ["local", "rl-org", "flaky-org"]
    for row in (*endpoints, all_):
        assert int(row["held"]) == sum(int(row[name]) for name in ("deleted", "skipped", "failed", "kept"))
    for name in ("held", "deleted", "skipped", "failed", "kept", "requests", "retries"):
        assert int(all_[name]) == sum(int(row[name]) for row in endpoints), name
    assert (all_["failed"], all_["skipped"]) == ("0", "1")
    assert all(int(row["retries"]) > 0 for row in endpoints)
    (failures,) = (line for line in what_came if line.startswith("  retried:"))
    by_error = {label: int(number) for number, label in re.findall(r"(\d+) ([a-z ]+)", failures.partition(":")[2])}
    assert int(all_["retries"]) == sum(by_error.values())
    assert by_error.keys() == {"server error", "unavailable", "timeout", "rate limited"}
    # The listing before the sweep foresaw all of it.
    before = [line.split() for line in section(lines, HEADINGS[0]) if line.strip().startswith(("reap ", "keep "))]
    counted = [words for words in before if words[-1].isdigit()]
    reap = sum(int(words[-1]) for words in counted if words[0] == "reap")
    keep = sum(int(words[-1]) for words in counted if words[0] == "keep")
    assert (reap, keep) == (int(all_["deleted"]) + 1, int(all_["kept"]))
    # What was left alone is all of the rest.
    left = [m for line in section(lines, HEADINGS[2]) if (m := re.match(r" +(\d+) ([a-z ]+?) {2,}\S+/\S+", line))]
    assert sum(int(m[1]) for m in left) == keep + 1
    assert {m[2] for m in left} == KEPT_FOR
    assert [line.split()[0] for line in section(lines, "Is that true?") if line.strip()] == ["yes"] * 3


def test_the_same_seed_makes_the_same_world() -> None:
    now = datetime.now(UTC)
    first, second, other = (World.make(seed, now).there() for seed in (3, 3, 4))
    assert first == second
    assert first != other
    assert len(first) == len(other)


@pytest.mark.parametrize(("columns", "colours"), [(80, True), (160, False)])
def test_at_a_terminal_it_fits(demo: Program, columns: int, *, colours: bool) -> None:
    seen = at_terminal(demo, "demo", columns=columns, where="both", env={} if colours else {"NO_COLOR": "1"})
    assert seen.code == 0
    assert seen.coloured == colours
    assert "deleting \u2501" in seen.text
    lines = seen.text.replace("\r", "\n").splitlines()
    assert max(map(len, lines)) <= columns
    assert [line for line in seen.lines if line in HEADINGS] == HEADINGS
    # Tables and captions have room for all that they say; only what happens meanwhile may be cut off.
    cut = [line for line in lines if "…" in line]
    assert [line for line in cut if not re.match(r" +\d+\.\d s  ", line)] == []


@pytest.mark.parametrize("arguments", [("--json",), ("--config", "x"), ("--only", "docker"), ("--stopped",)])
def test_it_takes_no_orders_about_the_user_s_endpoints(demo: Program, arguments: tuple[str, ...]) -> None:
    ended = demo(*arguments, "demo")
    assert ended.code == 2
    assert f"{arguments[0]} does not go with demo" in ended.err
    assert ended.out == ""


@pytest.mark.usefixtures("no_nohup")
@pytest.mark.parametrize(
    ("moment", "number", "code"),
    [
        ("reaper demo", signal.SIGINT, 130),
        ("reaper demo", signal.SIGHUP, 129),
        ("paused for", signal.SIGINT, 130),
        ("paused for", signal.SIGTERM, 143),
    ],
)
def test_a_signal_ends_it_in_order(demo: Program, number: signal.Signals, code: int, moment: str) -> None:
    with started(demo, "demo", env={"PYTHONUNBUFFERED": "1"}) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if moment in line:
                break
        process.send_signal(number)
        ended = demo.finish(process)
    assert (ended.code, ended.err) == (code, "")
    assert "Now yours" not in ended.out
    if moment == "paused for":
        assert "abandoned" in ended.out, "what was done is reported"


def test_a_reader_that_leaves_is_no_bug(demo: Program) -> None:
    with started(demo, "demo", env={"PYTHONUNBUFFERED": "1"}) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait(60) == 0


def test_a_seed_is_a_number(demo: Program) -> None:
    ended: Ended = demo("demo", "--seed", "many")
    assert ended.code == 2
    assert "--seed" in ended.err


def test_without_a_place_for_temporary_files_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a container with a read-only root file system."""

    def nowhere(**_: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", nowhere)
    assert main(["demo"]) == 2
    assert "No usable temporary directory" in (said := capsys.readouterr().err)
    assert "set TMPDIR to a directory" in said
