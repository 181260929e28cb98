"""The command runs as if it was started by the caller directly."""

import os
import pty
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.program.wrapped import started
from tests.run import LIMIT, Program
from tests.running.lab import until

QUICKLY = ("run", "--skip-cleanup", "--no-proxy", "--")


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 0", 0),
        ("exit 7", 7),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
    ],
)
def test_it_exits_as_the_command_did(program: Program, script: str, code: int) -> None:
    ended = program(*QUICKLY, "sh", "-c", f"echo out; echo err >&2; {script}")
    assert (ended.code, ended.out, ended.err) == (code, "out\n", "err\n")


@pytest.mark.parametrize(
    ("word", "code", "said"),
    [("nosuch", 127, "No such file"), ("/etc/passwd", 126, "Permission"), (os.fsdecode(b"no\xff"), 127, "No such file")],
)
def test_what_cannot_be_run_is_named(program: Program, word: str, code: int, said: str) -> None:
    ended = program(*QUICKLY, word)
    assert (ended.code, ended.out) == (code, "")
    assert ended.err.startswith(f"reaper run: {word!r} cannot be run: {said}")
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("arguments", [("run",), ("run", "--"), ("run", "true"), ("run", "--json", "--", "true")])
def test_what_is_no_command_line_is_explained(program: Program, arguments: tuple[str, ...]) -> None:
    ended = program(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert "try: reaper" in ended.err


@pytest.mark.parametrize(
    ("selector", "said"),
    [
        ("chess", "'chess' selects nothing"),
        ("name=", "'name=' selects nothing"),
        ("nmae=x", "'nmae=x' selects nothing"),
        ("name=[a", "opens a bracket"),
        ("name=*", "everything"),
        ("label==x", "names no label"),
    ],
)
def test_what_selects_nothing_or_all_is_refused(program: Program, selector: str, said: str) -> None:
    ended = program("run", "--own", selector, "--", "true")
    assert ended.code == 2
    assert ended.err.startswith("reaper: --own: ")
    assert said in ended.err


def test_streams_are_the_command_s_own(program: Program) -> None:
    data = bytes(range(256)) * 4096
    command = [sys.executable, "-m", "reaper", *QUICKLY, "sh", "-c", "cat; echo done >&2"]
    ended = subprocess.run(
        command, env=program.env, cwd=program.folder, input=data, capture_output=True, timeout=LIMIT, check=True
    )
    assert (ended.stdout, ended.stderr) == (data, b"done\n")


SHOW = """
import os, resource, sys
status = open("/proc/self/status").read().splitlines()
print([line for line in status if line.startswith(("SigBlk", "SigIgn", "SigCgt"))])
print(os.getpgrp() == os.getpgid(os.getppid()), os.getsid(0) == os.getsid(os.getppid()))
print(resource.getrlimit(resource.RLIMIT_NOFILE))
print(sorted(os.listdir("/proc/self/fd"), key=int))
"""


def test_it_inherits_what_it_would_without_us(program: Program) -> None:
    """Signals that the caller blocks or ignores, process group, session, the limit of files, and no file of this program."""

    def callers() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGUSR2})
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, 4096))

    def output(*command: str) -> str:
        done = subprocess.run(
            command, env=program.env, cwd=program.folder, preexec_fn=callers, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=LIMIT, check=True,
        )  # fmt: skip
        return done.stdout

    direct = output(*python("import subprocess, sys; subprocess.run(sys.argv[1:], check=True)"), *python(SHOW))
    assert output(sys.executable, "-m", "reaper", "run", "--no-proxy", "--", *python(SHOW)) == direct
    assert "True True" in direct


SAYS = """
import signal, sys, time
got = []
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT):
    signal.signal(number, lambda number, _: got.append(signal.Signals(number).name))
print("ready", flush=True)
while not got:
    signal.sigtimedwait([], 0.02)
for _ in range(20):  # time for a second one
    time.sleep(0.02)
print(got, flush=True)
sys.exit(9)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGQUIT"])
def test_a_signal_is_passed_on_and_the_command_decides(program: Program, name: str) -> None:
    with started(program, *QUICKLY, *python(SAYS)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.Signals[name])
        ended = program.finish(process)
    assert (ended.code, ended.out) == (9, f"{[name]}\n")


def test_a_command_that_signals_its_group_gets_one(program: Program) -> None:
    code = SAYS.replace('print("ready", flush=True)', "import os; os.kill(0, signal.SIGTERM)")
    with program.start(*QUICKLY, *python(code), start_new_session=True) as process:
        ended = program.finish(process)
    assert (ended.code, ended.out) == (9, "['SIGTERM']\n")


def at_a_terminal(program: Program, code: str, asked: bytes, typed: bytes) -> tuple[int, str]:
    """The exit code and what is seen when this is typed as soon as ``asked`` is there, up to a closing bracket."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(program.folder)
        os.execve(sys.executable, [sys.executable, "-m", "reaper", *QUICKLY, *python(code)], program.env)
    seen = b""
    while asked not in seen:
        seen += os.read(terminal, 1024)
    os.write(terminal, typed)
    while b"]" not in seen:
        seen += os.read(terminal, 1024)
    ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(terminal)
    return ended, seen.decode()


def test_control_c_at_a_terminal_reaches_the_command_once(program: Program) -> None:
    ended, seen = at_a_terminal(program, SAYS, b"ready", b"\x03")
    assert ended == 9
    assert re.findall(r"\[.*\]", seen) == ["['SIGINT']"]


def test_a_terminal_is_the_command_s(program: Program) -> None:
    code = 'import os, sys; print([os.ttyname(n) == os.ttyname(0) for n in (0, 1, 2)], input("name? "))'
    _, seen = at_a_terminal(program, code, b"name? ", b"ada\n")
    assert "[True, True, True] ada" in seen


def test_the_command_is_asked_to_end_when_we_are_killed(program: Program, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = f"""
import pathlib, signal
signal.signal(signal.SIGTERM, lambda *_: pathlib.Path({str(mark)!r}).write_text("asked"))
print("ready", flush=True)
signal.pause()
"""
    with started(program, *QUICKLY, *python(code)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
        until(mark.exists)


def test_nothing_is_left_in_the_temporary_folder(program: Program, tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    assert program(*QUICKLY, "true", env={"TMPDIR": str(folder)}).code == 0
    assert list(folder.iterdir()) == []
