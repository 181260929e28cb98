"""Stopping, going on and interrupting at a terminal work as without ``reaper run``; inherited files are the command's."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reaper.run.foreground import ROUND
from tests import needs
from tests.daytona.server import Served
from tests.program.wrapped import patched, started
from tests.run import LIMIT, Program
from tests.running.lab import guards, state, until
from tests.running.test_foreground import QUICKLY, python

REAPER = f"{sys.executable} -m reaper {' '.join(QUICKLY)}"
NESTED = f"{REAPER} {REAPER}"


class Terminal:
    """An interactive shell at a terminal, and what is seen there."""

    def __init__(self, program: Program, *shell: str) -> None:
        self.seen = ""
        self.pid, self._file = pty.fork()
        if self.pid == 0:
            os.chdir(program.folder)
            os.execvpe(shell[0], shell, {**program.env, "PS1": "outer> ", "TERM": "dumb", "HISTFILE": "/dev/null"})

    def types(self, text: str) -> None:
        self.seen = ""
        os.write(self._file, text.encode())

    def until(self, wanted: str) -> str:
        """What has been seen since something was typed, once that is among it."""
        deadline = time.monotonic() + LIMIT
        while not re.search(wanted, self.seen):
            assert time.monotonic() < deadline, self.seen
            if select.select([self._file], [], [], 0.2)[0]:
                self.seen += os.read(self._file, 4096).decode()
        return self.seen

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.close(self._file)
        os.waitpid(self.pid, 0)


@pytest.fixture
def terminal(request: pytest.FixtureRequest, program: Program) -> Iterator[Terminal]:
    shell = needs.tool(request.param, request.param)
    options = {"bash": ("--norc", "--noprofile", "-i"), "dash": ("-i",)}[request.param]
    terminal = Terminal(program, shell, *options)
    try:
        terminal.until("outer> ")
        yield terminal
    finally:
        terminal.close()


@pytest.fixture
def bash(program: Program) -> Iterator[Terminal]:
    terminal = Terminal(program, needs.tool("bash", "bash"), "--norc", "--noprofile", "-i")
    try:
        terminal.until("outer> ")
        yield terminal
    finally:
        terminal.close()


@pytest.mark.parametrize(
    ("terminal", "reaper", "number"),
    [
        ("bash", REAPER, "TSTP"),
        ("bash", REAPER, "TTIN"),
        ("bash", NESTED, "STOP"),
        ("dash", REAPER, "STOP"),
        ("dash", REAPER, "TTOU"),
        ("dash", NESTED, "TSTP"),
    ],
    indirect=["terminal"],
    ids=lambda value: {REAPER: "alone", NESTED: "nested"}.get(value, value),
)
def test_a_command_that_stops_itself_gives_the_terminal_back(terminal: Terminal, number: str, reaper: str) -> None:
    terminal.types(f"{reaper} sh -c 'kill -{number} $$; echo went on; exit 5'; true\n")
    terminal.until(r"(?i)(stopped|suspended)[\s\S]*outer> ")
    terminal.types("fg\n")
    terminal.until(r"went on[\s\S]*outer> ")
    terminal.types("echo done $((6*7))\n")
    terminal.until("done 42")


@pytest.mark.parametrize(
    ("terminal", "reaper"), [("bash", NESTED), ("dash", REAPER)], indirect=["terminal"], ids=["bash-nested", "dash-alone"]
)
def test_control_z_stops_and_fg_goes_on(terminal: Terminal, reaper: str) -> None:
    terminal.types(f'{reaper} {sys.executable} -c \'print("re" + "ady", flush=True); input(); print("went", "on")\'\n')
    terminal.until("ready")
    terminal.types("\x1a")
    terminal.until(r"(?i)(stopped|suspended)[\s\S]*outer> ")
    terminal.types("fg\n")
    terminal.until("reaper|python")
    terminal.types("x\n")
    terminal.until(r"went on[\s\S]*outer> ")


def test_a_command_that_ignores_control_z_goes_on(bash: Terminal) -> None:
    wait = "s.pthread_sigmask(s.SIG_BLOCK, [s.SIGTSTP]); print('re' + 'ady', flush=True); s.sigwait([s.SIGTSTP])"
    bash.types(f"""{REAPER} {sys.executable} -c "import signal as s; {wait}; print('en' + 'ded')"\n""")
    bash.until("ready")
    bash.types("\x1a")
    assert "topped" not in bash.until(r"ended[\s\S]*outer> ")


def test_a_shell_within_is_suspended_and_goes_on(bash: Terminal) -> None:
    """It has a process group of its own, and the terminal."""
    bash.types(f"PS1='inner> ' {REAPER} bash --norc --noprofile -i\n")
    bash.until("inner> ")
    bash.types("suspend\n")
    bash.until(r"(?i)stopped[\s\S]*outer> ")
    bash.types("fg\n")
    bash.until("inner> |bash")
    bash.types("echo within $((6*7))\n")
    bash.until(r"within 42[\s\S]*inner> ")
    bash.types("exit 3\n")
    bash.until("outer> ")
    bash.types("echo code $?\n")
    bash.until("code 3")


def test_a_shell_that_is_killed_leaves_the_terminal(bash: Terminal) -> None:
    bash.types(f"PS1='inner> ' {REAPER} bash --norc --noprofile -i\n")
    bash.until("inner> ")
    bash.types("kill -KILL $$\n")
    bash.until("outer> ")
    bash.types("echo code $?\n")
    bash.until("code 137")


def test_what_is_stopped_without_a_shell_stays_stopped_alone(program: Program) -> None:
    """Another process may stop the command's and let it go on, and does not inform this one."""
    with program.start(*QUICKLY, "sh", "-c", "echo $$; kill -STOP $$; exit 4", start_new_session=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        until(lambda: state(pid) == "T")
        assert state(process.pid) != "T"
        os.kill(pid, signal.SIGCONT)
        assert process.wait(LIMIT) == 4


@pytest.fixture(params=[1, 2], ids=["alone", "nested"])
def echoing(request: pytest.FixtureRequest, program: Program) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A command that says its lines again and ends with 4, in a process group that can be stopped, and its own process."""
    code = "import os, sys; print(os.getpid(), flush=True); [print(x, end='', flush=True) for x in sys.stdin]; sys.exit(4)"
    command = [*[sys.executable, "-m", "reaper", *QUICKLY] * request.param, *python(code)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=program.env, cwd=program.folder, stdin=pipe, stdout=pipe, text=True, process_group=0
    ) as process:  # an orphaned group, as a test may run in, is not stopped by SIGTSTP
        assert process.stdout is not None
        yield process, int(process.stdout.readline())


def test_stopping_and_going_on_are_passed_on(echoing: tuple[subprocess.Popen[str], int]) -> None:
    process, command = echoing
    process.send_signal(signal.SIGTSTP)
    until(lambda: state(process.pid) == "T")
    assert state(command) == "T"
    process.send_signal(signal.SIGCONT)
    assert process.communicate("x\n", timeout=LIMIT)[0] == "x\n"
    assert process.returncode == 4


SAYS_WHAT_IT_SENDS = """
import subprocess, sys
from reaper.cli import main
subprocess.Popen.send_signal = lambda process, number: print("sends", int(number), flush=True)
sys.exit(main(sys.argv[1:]))
"""


def test_what_is_stopped_itself_for_a_while_sends_its_command_nothing(program: Program) -> None:
    """Python's ``sigtimedwait`` returns a signal that never came when it is interrupted after its time."""
    code = "import sys; print('ready', flush=True); sys.exit(int(sys.stdin.readline()))"
    command = [sys.executable, "-c", SAYS_WHAT_IT_SENDS, *QUICKLY, *python(code)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=program.env, cwd=program.folder, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGSTOP)
        until(lambda: state(process.pid) == "T")
        time.sleep(ROUND + 0.2)  # what is tested is the time that passes
        os.kill(process.pid, signal.SIGCONT)
        until(lambda: state(process.pid) == "S")
        assert process.communicate("4\n", timeout=LIMIT)[0] == ""
    assert process.returncode == 4


def test_who_lets_it_go_on_at_once_is_heard(echoing: tuple[subprocess.Popen[str], int]) -> None:
    """While the command, or this process, has not stopped yet.

    A process that stops itself takes back a SIGCONT that comes while the kernel does so, and cannot know of it.
    """
    process, _command = echoing
    assert process.stdin is not None
    assert process.stdout is not None
    for milliseconds in (0, 0.3, 0.6, 1, 2):
        lost = []
        for number in range(20):
            process.send_signal(signal.SIGTSTP)
            until_then = time.monotonic() + milliseconds / 1000
            while time.monotonic() < until_then:
                pass
            process.send_signal(signal.SIGCONT)
            process.stdin.write(f"{number}\n")
            process.stdin.flush()
            if not select.select([process.stdout], [], [], LIMIT / 10)[0]:
                lost.append(number)
                process.send_signal(signal.SIGCONT)
            assert process.stdout.readline() == f"{number}\n"
            assert len(lost) < 3, (milliseconds, lost)
    process.communicate(timeout=LIMIT)
    assert process.returncode == 4


# -- interrupting ------------------------------------------------------------------------------------------------------

LOOP = "for i in 1 2 3; do echo \"round\" $i; {reaper} {command}; done; echo 'over'"

SLEEPS = "import signal; signal.signal(2, signal.SIG_DFL); print('sle' + 'eps', flush=True); signal.pause()"


@pytest.mark.parametrize("reaper", [REAPER, NESTED], ids=["alone", "nested"])
def test_control_c_ends_a_loop(bash: Terminal, reaper: str) -> None:
    bash.types(LOOP.format(reaper=reaper, command=f'{sys.executable} -c "{SLEEPS}"') + "\n")
    bash.until("sleeps")
    bash.types("\x03")
    assert "round 2" not in bash.until("outer> ")
    bash.types("echo code $?\n")
    bash.until("code 130")


def test_a_script_with_a_loop_ends(program: Program) -> None:
    """Bash looks how its child died: one that exits with 130 has dealt with the signal itself."""
    code = LOOP.format(reaper=REAPER, command=f'{sys.executable} -c "{SLEEPS}"')
    with subprocess.Popen(
        ["bash", "-c", code], env=program.env, cwd=program.folder, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["round 1\n", "sleeps\n"]
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.read() == ""
    assert process.returncode == -signal.SIGINT


@pytest.mark.parametrize(
    ("script", "code"),
    [("kill -INT $$", -signal.SIGINT), ("exit 130", 130), ("trap 'exit 3' INT; kill -INT $$", 3), ("kill -TERM $$", 143)],
)
def test_it_dies_of_sigint_as_its_command_did(program: Program, script: str, code: int) -> None:
    ended = program(*QUICKLY, "sh", "-c", script)
    assert ended.code == code
    assert not guards(program.folder), "after the clean-up"


def test_interrupted_in_the_sweep_before_it_it_dies_of_that_too(program: Program, served: Served) -> None:
    served.sim.faults.add("hang,path=/sandbox")
    with started(program, "run", "--no-proxy", "--only", "daytona", "--", "echo", "runs") as process:
        until(lambda: served.sim.faults.rules()[0][1], "nothing has been asked yet")
        process.send_signal(signal.SIGINT)
        ended = program.finish(process)
    assert (ended.code, ended.out) == (-signal.SIGINT, "")


def test_interrupted_while_the_command_is_being_started_it_is_not_lost(program: Program) -> None:
    """The terminal signals the group: what came before the fork did not reach the command."""
    patch = """
import os, signal
from reaper.run import foreground
aside = foreground.stepped_aside.__wrapped__
from contextlib import contextmanager
@contextmanager
def interrupted():
    with contextmanager(aside)() as inherited:
        os.kill(os.getpid(), signal.SIGINT)
        yield inherited
foreground.stepped_aside = interrupted
foreground._is_for_the_command = lambda *_, **__: False  # as of one that came from the terminal
"""
    ended = patched(program, patch, *QUICKLY, *python("print('runs', flush=True); import time; time.sleep(30)"))
    assert (ended.code, ended.out) == (-signal.SIGINT, "")


# -- what is inherited -------------------------------------------------------------------------------------------------


def test_inherited_files_are_the_command_s(program: Program) -> None:
    code = f'{REAPER} cat <(echo substituted); exec 7>seven; {REAPER} sh -c "echo written >&7"; cat seven'
    done = subprocess.run(
        ["bash", "-c", code], env=program.env, cwd=program.folder, capture_output=True, text=True, timeout=LIMIT, check=True
    )
    assert (done.stdout, done.stderr) == ("substituted\nwritten\n", "")


def test_make_s_job_server_is_found(program: Program, tmp_path: Path) -> None:
    make = needs.tool("make", "make")
    (tmp_path / "inner").write_text("all: a b\na b:\n\t@echo $@\n")
    (tmp_path / "Makefile").write_text(f"all:\n\t+@{REAPER} $(MAKE) -f inner\n")
    done = subprocess.run(
        [make, "-j2"], env=program.env, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT, check=True
    )
    assert sorted(line for line in done.stdout.splitlines() if len(line) == 1) == ["a", "b"]
    assert done.stderr == "", "no warning that the job server is unavailable"


OPEN = "import os; print(sorted(os.listdir('/proc/self/fd'), key=int))"


def test_no_other_file_is_open_for_it(program: Program) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    os.dup2(writing, 61)
    try:
        words: tuple[list[str], ...] = ([], [sys.executable, "-m", "reaper", "run", "--skip-cleanup", "--"])
        seen = [
            subprocess.run(
                [*before, *python(OPEN)], env=program.env, cwd=program.folder, pass_fds=(61, writing), capture_output=True,
                text=True, timeout=LIMIT, check=True,
            ).stdout
            for before in words
        ]  # fmt: skip
    finally:
        for number in (reading, writing, 61):
            os.close(number)
    assert seen[0] == seen[1]
    assert "'61'" in seen[1]


def test_a_caller_that_ignores_its_children_learns_the_exit_code(program: Program) -> None:
    """Where SIGCHLD is ignored the kernel throws away how a child ended."""
    code = "import signal, sys; sys.exit(7 if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN else 8)"
    done = subprocess.run(
        [sys.executable, "-m", "reaper", *QUICKLY, *python(code)],
        env=program.env,
        cwd=program.folder,
        preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 7
