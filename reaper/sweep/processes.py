"""The processes of this host, as owner labels name them: which are alive, and which are proven to be dead.

A process is absent when the kernel says so (kill(2) with signal 0), whatever /proc shows: with hidepid, or in a container
with another's /proc, that shows less than there is. What cannot be seen is not dead.
"""

import errno
import os
import re
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import NamedTuple, Protocol

from reaper import host
from reaper.core.owner_process import Fate, Key, OwnerLabel, OwnerProcess, OwnerRule
from reaper.liveness import process_state

SCANNED_FOR = 0.5  # seconds for which one look at all namespaces serves
_CAP_SYS_PTRACE = 19
_PID = re.compile("[1-9][0-9]{0,8}")
_START = re.compile("0|[1-9][0-9]{0,8}")  # ticks of up to 115 days: what is longer may be seconds since 1970
_FORWARDERS = ("ssh", "sshd", "sshd-session", "socat")
_TICKS = os.sysconf("SC_CLK_TCK")
_LOOKS, _ENDING = 5, 0.01  # at a process that cannot be read, and the seconds between them


class Presence(Enum):
    """Whether there is a process with an id."""

    HERE = "here"
    ABSENT = "absent"
    HIDDEN = "hidden"


class Seen(NamedTuple):
    """What is known of a process id.

    Args:
        presence: whether there is such a process.
        start: of one that is here: when it began, in clock ticks since the boot.
        ended: whether it is a zombie.
        why: it is hidden.
    """

    presence: Presence
    start: int = 0
    ended: bool = False
    why: str = ""


class Machine(Protocol):
    """This machine, as far as owners depend on it: a test has its own."""

    @property
    def id(self) -> str:
        """The id of this machine and PID namespace; empty where it has none."""
        ...

    @property
    def whole_id(self) -> str:
        """The id of this machine's first PID namespace."""
        ...

    @property
    def boot(self) -> str:
        """This boot's id; empty where it has none."""
        ...

    def booted_at(self) -> datetime:
        """When it was started (aware UTC)."""
        ...

    def seen(self, pid: int) -> Seen:
        """What is known of a process of this PID namespace."""
        ...

    def inside(self, machine: str, pid: int) -> Seen | None:
        """What is known of a process of another PID namespace, by its machine id; None where that cannot be seen."""
        ...

    def names(self) -> frozenset[str]:
        """What this host is called."""
        ...

    def not_of(self, path: str | None) -> str | None:
        """Why the processes that use the engine at this unix socket may not be seen from here; None when they are."""
        ...

    def commands(self) -> Iterable[tuple[int, str, int]]:
        """All processes: the id, the whole command line, and the start in clock ticks since the boot.

        Raises OSError where one of them cannot be read: what is not seen is not proven to be absent.
        """
        ...


class ThisMachine:
    """The real one."""

    def __init__(self) -> None:
        self._inner: _Namespaces | None = None
        self._inner_at = 0.0

    @property
    def id(self) -> str:
        """See ``Machine``."""
        namespace = pid_namespace()
        return "" if namespace is None else host.machine_id_in(namespace)

    @property
    def whole_id(self) -> str:
        """See ``Machine``."""
        return host.machine_id()

    @property
    def boot(self) -> str:
        """See ``Machine``."""
        return host.boot_id()

    def booted_at(self) -> datetime:
        """See ``Machine``."""
        return host.booted_at()

    def seen(self, pid: int) -> Seen:
        """See ``Machine``."""
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return Seen(Presence.ABSENT)
        except OSError:
            pass  # it is another user's
        if not _proc_is_own():
            return Seen(Presence.HIDDEN, why="/proc shows another PID namespace's processes")
        state = process_state(pid)
        if state is None:
            return Seen(Presence.HIDDEN, why="there is such a process, and /proc hides it (hidepid)")
        if not _same_clock(pid):
            return Seen(Presence.HIDDEN, why="it may be in another time namespace")
        return Seen(Presence.HERE, *state)

    def inside(self, machine: str, pid: int) -> Seen | None:
        """See ``Machine``."""
        now = time.monotonic()
        if self._inner is None or now - self._inner_at > SCANNED_FOR:
            self._inner, self._inner_at = _Namespaces(), now
        return self._inner.seen(machine, pid, self)

    def names(self) -> frozenset[str]:
        """See ``Machine``."""
        return frozenset({os.uname().nodename, self.whole_id} - {""})

    def not_of(self, path: str | None) -> str | None:
        """See ``Machine``."""
        if path is None:
            return "the engine is not on a unix socket of this host, so processes of other hosts may use it"
        return sees_less() or _not_served_here(path)

    def commands(self) -> Iterable[tuple[int, str, int]]:
        """See ``Machine``."""
        import psutil  # noqa: PLC0415 - 15 ms that only those need who have configured it

        for process in psutil.process_iter(["cmdline"]):
            state, line, looks = process_state(process.pid), process.info["cmdline"], 1
            while (state is None or (line is None and not state[1])) and Path(f"/proc/{process.pid}").exists():
                if looks == _LOOKS:  # as a security module may have it
                    raise PermissionError(errno.EACCES, f"process {process.pid} cannot be read")
                # Or it is ending: for a moment its first thread has ended, and others have not.
                time.sleep(_ENDING)
                with suppress(psutil.Error):
                    line = process.cmdline()
                state, looks = process_state(process.pid), looks + 1
            if state is not None and not state[1] and line:
                yield process.pid, " ".join(line), state[0]


class _Namespaces:
    """The processes of PID namespaces inside of this one, as they are now: all of /proc is read for them, once for many."""

    def __init__(self) -> None:
        self._is_complete = sees_less() is None
        self._outer: dict[str, dict[int, int]] = {}
        for outer in _pids() if self._is_complete else ():
            try:
                ids = _ids(outer)
                if len(ids) == 1:
                    continue  # it is in this very namespace
                namespace = _inode(_link(f"{outer}/ns/pid"))
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has just ended
            except OSError:
                namespace = None
            if namespace is None or not ids:
                self._is_complete = False
            else:
                self._outer.setdefault(host.machine_id_in(namespace), {})[ids[-1]] = outer

    def seen(self, machine: str, pid: int, this: ThisMachine) -> Seen | None:
        """What is known of a process of the namespace that has this machine id; None where that cannot be seen."""
        processes = self._outer.get(machine, {})
        if pid in processes:
            return this.seen(processes[pid])
        return Seen(Presence.ABSENT) if processes and self._is_complete else None


def _not_served_here(path: str) -> str | None:
    """Why what listens on a unix socket is no process of this PID namespace, or only forwards to another host."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(5)
            connection.connect(path)
            pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    except OSError as error:
        return f"it cannot be seen which process serves {path}: {error.strerror or error}"
    if not pid:
        return "the engine's process is not seen from here: in a container this needs the host's PID namespace (--pid host)"
    try:
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        return f"it cannot be seen which process serves {path}: {error.strerror}"
    return f"{path} is forwarded by {name}" if name in _FORWARDERS or name.startswith("com.docker") else None


def pid_namespace() -> int | None:
    """The inode of this process's PID namespace; None where /proc does not tell."""
    try:
        return _inode(_link("self/ns/pid")) if _proc_is_own() else None
    except OSError:
        return None


def _link(name: str) -> str:
    return str(Path("/proc", name).readlink())


def _inode(link: str) -> int | None:
    number = link.partition("[")[2].rstrip("]")
    return int(number) if number.isascii() and number.isdigit() else None


def _proc_is_own() -> bool:
    """Whether /proc shows the processes of this PID namespace: the one of another may be mounted there."""
    try:
        return _link("self") == str(os.getpid())
    except OSError:
        return False


def sees_less() -> str | None:
    """Why /proc may not show all processes of this PID namespace, and of those inside of it; None when it does."""
    if not _proc_is_own():
        return "/proc shows another PID namespace's processes"
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return f"/proc cannot be read: {error.strerror}"
    options = next((line.split()[-1] for line in reversed(mounts) if line.split()[4:5] == ["/proc"]), "")
    hidden = next((text for text in options.split(",") if text.startswith("hidepid=")), "hidepid=0")
    if hidden in ("hidepid=0", "hidepid=off"):
        return None
    capabilities = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    sees = int(capabilities, 16) >> _CAP_SYS_PTRACE & 1
    return None if sees else f"/proc is mounted with {hidden}, and hides the processes of others"


def _same_clock(pid: int) -> bool:
    """Whether its start is counted as this process counts: in another time namespace it may not be."""
    own, its = "", ""
    with suppress(OSError):
        own = _link("self/ns/time")
        its = _link(f"{pid}/ns/time")
    return own == its or not own or not its


def _pids() -> Iterator[int]:
    with os.scandir("/proc") as entries:
        yield from (int(entry.name) for entry in entries if entry.name.isdigit())


def _ids(pid: int) -> list[int]:
    """The ids that it has, from this PID namespace to its own."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    line = next((line for line in status.splitlines() if line.startswith("NSpid:")), "")
    return [int(number) for number in line.split()[1:]]


def label_of(pid: int) -> OwnerLabel:
    """The owner label for a process of this host. Raises OSError where it could prove nothing."""
    machine = ThisMachine()
    if not machine.id or not machine.boot:
        raise OSError(
            "this host has no machine id (/etc/machine-id) or no readable /proc, so an owner label would prove nothing"
        )
    seen = machine.seen(pid)
    if seen.presence is not Presence.HERE or seen.ended:
        raise ProcessLookupError(f"process {pid} cannot own anything: {seen.why or 'there is no such process'}")
    return OwnerLabel(machine.id, machine.boot, pid, seen.start)


def began(machine: Machine, start: int) -> datetime:
    """When a process of this boot began, by this host's clock as it is set now."""
    return machine.booted_at() + timedelta(seconds=start / _TICKS)


def judged(text: str, machine: Machine, *, knows_boot: bool) -> OwnerProcess:
    """What this host knows of the process that an owner label names. A dead one's time is by this host's clock.

    Args:
        text: the label's value.
        machine: this one.
        knows_boot: whether the boot that the label names was this machine's, and not that of a clone with its id.
    """
    try:
        label = OwnerLabel.parse(text)
    except ValueError as error:
        return OwnerProcess("its owner", Fate.UNPROVEN, f"its label reaper.owner is malformed: {error}")
    name = f"its owner, process {label.pid} (reaper.owner),"
    if not machine.id or not machine.boot:
        return OwnerProcess(name, Fate.UNPROVEN, "this host has no machine id, or no /proc of its own")
    if label.boot == machine.boot:
        return _judged_now(name, label, machine)
    if label.host not in (machine.id, machine.whole_id):
        return OwnerProcess(name, Fate.UNPROVEN, "it is on another host, which alone can check that")
    if not knows_boot:
        why = "it was started in another boot of this host, or on one that was cloned from it: that boot is not known here"
        return OwnerProcess(name, Fate.UNPROVEN, why)
    return OwnerProcess(name, Fate.DEAD, "this host was restarted since", machine.booted_at())


def _judged_now(name: str, label: OwnerLabel, machine: Machine) -> OwnerProcess:
    """The same, of a process of this boot."""
    seen: Seen | None
    if label.host == machine.id:
        seen = machine.seen(label.pid)
    elif (seen := machine.inside(label.host, label.pid)) is None:
        why = (
            "it is in another PID namespace of this host, or in a container with its own machine id, and not seen from here"
        )
        return OwnerProcess(name, Fate.UNPROVEN, why)
    return verdict(name, seen, label.start, machine)


def verdict(name: str, seen: Seen, start: int | None, machine: Machine) -> OwnerProcess:
    """What follows for one that began at ``start``; when that is unknown, its absence alone proves anything."""
    if seen.presence is Presence.HIDDEN:
        return OwnerProcess(name, Fate.UNPROVEN, seen.why)
    if seen.presence is Presence.ABSENT:
        return OwnerProcess(name, Fate.DEAD, "there is no such process")
    if start is None:
        why = "there is a process with that id, and without the start of its owner it may be another one"
        return OwnerProcess(name, Fate.UNPROVEN, why)
    if seen.start != start:
        why = "its id is used by another process, which was started at another time"
        return OwnerProcess(name, Fate.DEAD, why, began(machine, seen.start))
    if seen.ended:
        return OwnerProcess(name, Fate.DEAD, "it has ended, and is a zombie")
    return OwnerProcess(name, Fate.ALIVE, "it runs")


def labelled(rule: OwnerRule, key: Key, machine: Machine, refused: str | None) -> OwnerProcess:
    """The same of the process that the labels of a runner name, as an [[owner]] table reads them.

    Args:
        rule: the table.
        key: the values of its labels, see ``named_processes``.
        machine: this one.
        refused: why nothing can be proven of the processes that use the endpoint, if so.
    """
    _, pid, place, began_at = key
    name = f"its owner, process {pid:.20} ({rule.pid_label}),"
    if refused is not None:
        return OwnerProcess(name, Fate.UNPROVEN, refused)
    if rule.host_label and place not in machine.names():
        return OwnerProcess(name, Fate.UNPROVEN, "it is on another host, which alone can check that")
    if not _PID.fullmatch(pid):
        return OwnerProcess(name, Fate.UNPROVEN, f"label {rule.pid_label} is malformed: {pid!r:.40} is no process id")
    start = int(began_at) if rule.start_label and _START.fullmatch(began_at) else None
    return verdict(name, machine.seen(int(pid)), start, machine)
