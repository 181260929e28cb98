"""Where the proxy's socket is: a socket's path has 107 bytes at most, and TMPDIR may be anything."""

import os
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reaper.run.scratch import socket_folder
from tests.program.wrapped import patched, started
from tests.run import LIMIT, Program
from tests.running.lab import until

QUICKLY = ("run", "--skip-cleanup", "--")
PING = "import docker, os; print(docker.from_env().ping(), os.environ['DOCKER_HOST'])"


@pytest.fixture
def long_folder(tmp_path: Path) -> Path:
    """A directory whose path has more than 200 characters."""
    folder = tmp_path / ("long-" * 40)
    folder.mkdir()
    return folder


def unusable(kind: str, tmp_path: Path, long_folder: Path) -> str:
    (tmp_path / "file").touch()
    folders = {
        "long": long_folder,
        "missing": tmp_path / "nowhere",
        "not writable": "/proc/sys",  # not by root either
        "a file": tmp_path / "file",
        "empty": "",
    }
    return str(folders[kind])


KINDS = ("long", "missing", "not writable", "a file", "empty")


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_works_whatever_the_temporary_directory_is(
    program: Program, tmp_path: Path, long_folder: Path, kind: str
) -> None:
    env = {"TMPDIR": unusable(kind, tmp_path, long_folder), "XDG_RUNTIME_DIR": "/nowhere/at/all"}
    ended = program(*QUICKLY, sys.executable, "-c", PING, env=env)
    assert (ended.code, ended.err) == (0, "")
    word, host = ended.out.split()
    assert word == "True"
    assert host.startswith("unix:///tmp/reaper-run-")
    assert not Path(host.removeprefix("unix://")).parent.exists()
    assert list(long_folder.iterdir()) == []


def test_the_user_s_runtime_directory_comes_before_shared_ones(program: Program, long_folder: Path, runtime: Path) -> None:
    env = {"TMPDIR": str(long_folder), "XDG_RUNTIME_DIR": str(runtime)}
    ended = program(*QUICKLY, sys.executable, "-c", PING, env=env)
    assert ended.out.startswith(f"True unix://{runtime}/reaper-run-"), ended.err
    assert list(runtime.iterdir()) == []


def test_no_other_user_can_look_into_it_and_it_goes_with_a_killed_run(program: Program, long_folder: Path) -> None:
    script = "echo $DOCKER_HOST; exec sleep 1000"
    with started(program, *QUICKLY, "sh", "-c", script, env={"TMPDIR": str(long_folder)}) as process:
        assert process.stdout is not None
        socket = Path(process.stdout.readline().strip().removeprefix("unix://"))
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
        assert {stat.S_IMODE(file.stat().st_mode) for file in socket.parent.iterdir()} == {0o600}
        process.kill()
        until(lambda: not socket.parent.exists(), "its folder is left", LIMIT)


NOWHERE = "import reaper.run.scratch; reaper.run.scratch._parents = lambda env: (env['TMPDIR'], '/nowhere')\n"


def test_a_run_is_refused_only_where_nothing_works(program: Program, long_folder: Path) -> None:
    env = {"TMPDIR": str(long_folder)}
    ended = patched(program, NOWHERE, *QUICKLY, "echo", "runs", env=env)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"reaper: a folder for a unix socket cannot be made: {long_folder}: AF_UNIX path too long")
    assert "; /nowhere: No such file or directory" in ended.err
    assert "set TMPDIR to a directory with a short path" in ended.err
    assert "--no-proxy" in ended.err
    ended = patched(program, NOWHERE, "run", "--no-proxy", "--skip-cleanup", "--", "echo", "runs", env=env)
    assert (ended.code, ended.out, ended.err) == (0, "runs\n", "")


def test_the_demo_and_the_simulator_work_there_too(program: Program, long_folder: Path) -> None:
    for command, shows, code in (("demo", "The sweep\n", 143), ("simulate", "export ", 0)):
        with started(program, command, env={"TMPDIR": str(long_folder), "PYTHONUNBUFFERED": "1"}) as process:
            assert process.stdout is not None
            assert any(line.startswith(shows) for line in process.stdout), process.stderr and process.stderr.read()
            process.send_signal(signal.SIGTERM)
            assert program.finish(process).code == code


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can give a directory away")
@pytest.mark.parametrize(("owner", "mode"), [(12345, 0o755), (0, 0o777), (12345, 0o1777)])
def test_it_is_not_where_another_user_could_replace_it(program: Program, runtime: Path, owner: int, mode: int) -> None:
    os.chown(runtime, owner, -1)
    runtime.chmod(mode)
    ended = program(*QUICKLY, sys.executable, "-c", PING, env={"TMPDIR": str(runtime)})
    assert ended.out.startswith("True unix:///tmp/reaper-run-"), ended.err


@pytest.fixture
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with a short path."""
    with socket_folder("rt-", {"TMPDIR": "/tmp"}) as folder:
        yield folder
