"""What this very kernel says of real processes: living, killed, zombies, ids that are used again, containers."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

import reaper
from reaper import host
from reaper.core.owner_process import OWNER_LABEL, Fate, OwnerProcess
from reaper.liveness import process_state
from reaper.sweep import processes
from reaper.sweep.processes import ThisMachine, judged, sees_less
from tests import forks
from tests.running.lab import state

SLEEP = [sys.executable, "-c", "import sys, time; print(flush=True); time.sleep(600)"]
SHELL = re.search("```sh\n(.*?)```", (Path(__file__).parents[2] / "docs" / "owners.md").read_text(), re.DOTALL)
ROOT = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="it needs root and unshare")


def owner(text: str) -> OwnerProcess:
    return judged(text.removeprefix(f"{OWNER_LABEL}="), ThisMachine(), knows_boot=True)


@contextmanager
def sleeping(*before: str) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen([*before, *SLEEP], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def test_this_process_is_alive() -> None:
    label = reaper.owner_label()
    assert label.split("=")[0] == "reaper.owner"
    machine, boot, pid, _ = label.partition("=")[2].split("/")
    assert (machine, boot, pid) == (ThisMachine().id, host.boot_id(), str(os.getpid()))
    assert owner(label).fate is Fate.ALIVE


def test_a_killed_process_is_dead_from_its_zombie_on() -> None:
    with sleeping() as process:
        label = reaper.owner_label(process.pid)
        assert owner(label).fate is Fate.ALIVE
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert "zombie" in str(owner(label))
        assert owner(label).fate is Fate.DEAD
        process.wait()
        assert owner(label).why == "there is no such process"


def test_a_stopped_process_is_alive() -> None:
    with sleeping() as process:
        label = reaper.owner_label(process.pid)
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        assert owner(label).fate is Fate.ALIVE


def test_a_process_whose_first_thread_has_ended_is_alive() -> None:
    code = (
        "import ctypes, threading, time\n"
        "threading.Thread(target=lambda: (print(flush=True), time.sleep(600))).start()\n"
        "time.sleep(0.1)\nctypes.CDLL(None).syscall(60, 0)\n"  # exit(2) of this thread alone, on x86-64
    )
    if os.uname().machine != "x86_64":
        pytest.skip("it ends a thread by the number of a system call")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            label = reaper.owner_label(process.pid)
            deadline = time.monotonic() + 60
            while state(process.pid) != "Z":
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert owner(label).fate is Fate.ALIVE
        finally:
            process.kill()


def test_no_label_is_made_for_a_process_that_is_not_there() -> None:
    with sleeping() as process:
        process.kill()
        process.wait()
        with pytest.raises(ProcessLookupError, match="there is no such process"):
            reaper.owner_label(process.pid)


def test_the_lines_of_shell_in_the_documents_write_the_same_label(tmp_path: Path) -> None:
    assert SHELL is not None
    assert len(SHELL[1].splitlines()) == 2
    script = tmp_path / "my run (1) a.sh"  # its name stands in /proc/PID/stat
    script.write_text(f"#!/bin/sh\n{SHELL[1]}echo $owner\nread line\n")
    script.chmod(0o700)
    with subprocess.Popen([str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        label = process.stdout.readline().strip()
        assert label == reaper.owner_label(process.pid)
        assert owner(label).fate is Fate.ALIVE
        process.communicate("\n")
    assert owner(label).fate is Fate.DEAD


REUSE = """
import os, sys
import reaper
from reaper.sweep.processes import ThisMachine, judged
def child():
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    os.close(read)
    return pid, write
def fate(label):
    return judged(label.partition("=")[2], ThisMachine(), knows_boot=True)
pid, pipe = child()
label = reaper.owner_label(pid)
print(fate(label).fate)
os.close(pipe)
os.waitpid(pid, 0)
print(fate(label).why)
import time
time.sleep(0.05)  # the start of a process is known to a hundredth of a second
for _ in range(100):
    open("/proc/sys/kernel/ns_last_pid", "w").write(str(pid - 1))
    again, pipe = child()
    if again == pid:
        break
    os.close(pipe)
    os.waitpid(again, 0)
print(again == pid, fate(label).why, fate(reaper.owner_label(again)).fate)
"""


@ROOT
def test_an_id_that_is_really_used_again_proves_the_death_of_the_first() -> None:
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", REUSE]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, env=forks.kept(), check=False)
    assert ended.returncode == 0, ended.stderr
    alive, gone, reused = ended.stdout.splitlines()
    assert (alive, gone) == ("alive", "there is no such process")
    assert reused == "True its id is used by another process, which was started at another time alive"


IN_NAMESPACE = """
import sys, time
import reaper
print(reaper.owner_label(), flush=True)
time.sleep(600)
"""


@ROOT
def test_a_process_in_a_namespace_that_is_seen_from_here_is_told_alive_from_dead() -> None:
    command = [
        "unshare",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "sh",
        "-c",
        f"{sys.executable} -c '{IN_NAMESPACE}' & sleep 600",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=forks.kept()) as process:
        try:
            assert process.stdout is not None
            label = process.stdout.readline().strip()
            pid = label.split("/")[2]
            assert int(pid) < 100
            assert not label.startswith(f"reaper.owner={ThisMachine().id}/")
            assert owner(label).fate is Fate.ALIVE
            assert owner(label.replace(f"/{pid}/", "/99/")).fate is Fate.DEAD
        finally:
            process.kill()


OUTSIDE = """
import sys
from reaper.sweep.processes import ThisMachine, judged
print(judged(sys.argv[1].partition("=")[2], ThisMachine(), knows_boot=True).fate)
"""


@ROOT
@pytest.mark.parametrize("proc", [["--mount-proc"], []], ids=["its own /proc", "the host's /proc"])
def test_from_inside_of_a_namespace_a_process_outside_is_not_dead(proc: list[str]) -> None:
    for label in (reaper.owner_label(), reaper.owner_label().replace(f"/{os.getpid()}/", "/1/")):
        command = ["unshare", "--pid", "--fork", *proc, sys.executable, "-c", OUTSIDE, label]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, env=forks.kept(), check=False)
        assert ended.stdout.strip() == "unproven", ended.stderr


HIDDEN = """
import os, sys
from reaper.sweep import processes
from reaper.sweep.processes import ThisMachine, judged, sees_less
judged(sys.argv[1].partition("=")[2], ThisMachine(), knows_boot=True)  # loads what this user could not read
os.setgid(65534); os.setuid(65534)
print(judged(sys.argv[1].partition("=")[2], ThisMachine(), knows_boot=True).fate, "hidepid" in (sees_less() or ""))
"""


@ROOT
@pytest.mark.parametrize("hidepid", [1, 2])
def test_a_process_that_proc_hides_is_not_dead(hidepid: int) -> None:
    mount = f'mount -t proc -o hidepid={hidepid} proc /proc && exec "$@"'
    with sleeping() as process:
        label = reaper.owner_label(process.pid)
        command = ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, "-c", HIDDEN, label]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, env=forks.kept(), check=False)
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.split() == ["unproven", "True"]


def test_this_test_sees_all_processes() -> None:
    if os.geteuid() == 0:
        assert sees_less() is None


def test_all_processes_are_read_once_for_many_labels_of_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    looks, real = list[int](), processes._pids

    def counted() -> Iterator[int]:
        looks.append(1)
        return real()

    monkeypatch.setattr(processes, "_pids", counted)
    monkeypatch.setattr("time.monotonic", lambda: 100.0)
    this = ThisMachine()
    for pid in range(1, 100):
        text = f"{'c' * 32}/{host.boot_id()}/{pid}/1"
        assert judged(text, this, knows_boot=True).fate is Fate.UNPROVEN
    assert len(looks) == 1


@pytest.mark.parametrize("part", ["stat", "cmdline"])
def test_processes_are_not_read_where_one_of_them_hides_what_it_is(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """As a security module has it, or where too many files are open."""
    assert os.getpid() in {pid for pid, _, _ in ThisMachine().commands()}
    if part == "stat":
        monkeypatch.setattr(processes, "process_state", lambda pid: None if pid == os.getpid() else process_state(pid))
    else:
        denied = psutil.AccessDenied(os.getpid())
        real = psutil.Process.cmdline

        def cmdline(process: psutil.Process) -> list[str]:
            if process.pid == os.getpid():
                raise denied
            found: list[str] = real(process)
            return found

        monkeypatch.setattr(psutil.Process, "cmdline", cmdline)
    with pytest.raises(PermissionError, match=f"process {os.getpid()} cannot be read"):
        list(ThisMachine().commands())
