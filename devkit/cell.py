"""A cell: namespaces of its own for one engine and everything it starts, so that ending it ends all of it.

A private dockerd shares more with its host than its directories: bridges, iptables chains, address pools, overlay
mounts, shims that outlive it. Instead of undoing each, the engine runs in its own network, mount, pid and ipc
namespaces. Several engines then each own a `docker0` and all the default address pools, and when the cell's first
process ends the kernel kills every process and drops every mount, bridge and rule in it. A cell may have another root
than the host, with the programs of another release (see `devkit.debian`); /tmp, /dev and /sys are the host's then, so
sockets and data have the same paths on both sides.

The cell lives as long as a pipe from this process is open: should this process be killed without a chance to clean up, the
pipe closes, the cell ends, and the shell around it removes the directories.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

# The control groups of the cell's containers: below one that dockerd is told, and by id where Podman puts them all below
# one of its own. $group and $data are the caller's.
_GROUPS = """
groups() {
  for c in /sys/fs/cgroup/*/ /sys/fs/cgroup/; do
    if [ -d "$c$group" ]; then echo "$c$group"; fi
    if [ -d "$c"libpod_parent ]; then
      for i in "$data"/overlay-containers/*/; do ls -d "$c"libpod_parent/libpod-*"$(basename "$i")"* 2>/dev/null; done
    fi
  done
}
"""

# Process 1 of the cell; $1 is the control group's name, $2 the data directory, $3 the cell's root (empty: the host's).
# `wait` also reaps orphans: a zombie containerd would look alive to the next dockerd. The shims' sockets go to
# /run/containerd whatever the exec root is, hence private ones. At the end paused containers are thawed: under cgroup v1
# a frozen process does not even die of SIGKILL, and the end of the namespace would wait for it for ever.
_INIT = (
    _GROUPS
    + """
group=$1 data=$2 root=$3
ip link set lo up
enter() {
  mount --bind "$root" "$root" && mount -t proc proc "$root/proc" || return 1
  for d in /sys /dev /tmp; do mount --rbind $d "$root$d" || return 1; done
  case $data in /tmp/*|/dev/*) ;; *) mkdir -p "$root$data" && mount --bind "$data" "$root$data" || return 1 ;; esac
  mkdir -p "$root/.host" && mount -t tmpfs cell "$root/run" && cd "$root" && pivot_root . .host && cd / && umount -l /.host
}
if [ -n "$root" ]; then enter || exit 1; fi
for d in /run/containerd /run/docker; do mkdir -p $d && mount -t tmpfs cell $d; done
exec 3<&0
cat <&3 >/dev/null &
echo ready
wait $!
for g in $(groups); do
  for state in $(find "$g" -name freezer.state); do echo THAWED >"$state"; done
done
"""
)

# Runs outside the cell, waits for its end, and removes what is not a namespace: directories and control groups
# (those are busy for a moment after the last process has died, hence the tries).
_SUPERVISOR = (
    _GROUPS
    + """
init=$1 group=$2 data=$3 root=$4
shift 4
unshare --mount --net --pid --ipc --fork --kill-child --mount-proc sh -c "$init" init "$group" "$data" "$root"
for try in 1 2 3 4 5 6 7 8 9 10; do
  left=
  for c in $(groups); do find "$c" -depth -type d -exec rmdir {} + 2>/dev/null || left=yes; done
  if [ -z "$left" ]; then break; fi
  sleep 0.1
done
rm -rf -- "$@" "$data"
"""
)


def missing() -> list[str]:
    """The commands a cell needs and this machine lacks, as a list of names; empty when all are there."""
    return [tool for tool in ("unshare", "nsenter", "mount", "ip") if shutil.which(tool) is None]


class Cell:
    """The namespaces; open from construction to `close`.

    Args:
        control_group: name of the control group that the engine puts its containers under; removed at the end.
        directory: removed, with all that it holds, when the cell ends.
        data: where the engine's data are; likewise.
        root: the root directory of everything in the cell; None for the host's own.

    Raises:
        OSError: the namespaces could not be made; the text carries what `unshare` said.
    """

    def __init__(self, control_group: str, directory: Path, data: Path, root: Path | None = None) -> None:
        self._group, self._data = control_group, data
        # A session of its own: Ctrl-C in a terminal is for the tests, which then close the cell in order.
        self._worker = subprocess.Popen(
            ["sh", "-c", _SUPERVISOR, "cell", _INIT, control_group, str(data), str(root or ""), str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._worker.stdout is not None  # it is a pipe
        assert self._worker.stderr is not None  # and so is this
        if self._worker.stdout.readline() != b"ready\n":
            error = self._worker.stderr.read().decode(errors="replace").strip()
            raise OSError(f"no namespaces for a private engine: {error}")
        (unshare,) = _children(self._worker.pid)
        (self._first,) = _children(unshare)

    def popen(self, argv: list[str], log: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a command inside the cell, its output appended to `log`; the handle is nsenter's, not its own."""
        with log.open("ab") as output:
            return subprocess.Popen(
                ["nsenter", "--target", str(self._first), "--mount", "--net", "--pid", "--ipc", *argv],
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def beside(self, *argv: str) -> list[str]:
        """The command that runs another one on the cell's network, and otherwise on the host's namespaces.

        It becomes that other command: its process id is the one to signal.
        """
        return ["nsenter", "--target", str(self._first), "--net", *argv]

    def inside(self, *argv: str) -> list[str]:
        """The command that runs another one among the cell's files, and otherwise on the host's namespaces."""
        return ["nsenter", "--target", str(self._first), "--mount", *argv]

    def pids(self, *names: str) -> list[int]:
        """Process ids (as this process sees them) in the cell whose command name is one of `names`.

        Processes in containers have namespaces of their own and do not count; neither do zombies.
        """
        cell = Path(f"/proc/{self._first}/ns/pid").readlink()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if (entry / "ns/pid").readlink() == cell and (entry / "comm").read_text().strip() in names:
                        found.append(int(entry.name))
                except OSError:  # it ended meanwhile, or is a zombie: both have no namespace to read
                    continue
        return found

    def signal(self, number: int, *names: str, deadline: float = 30.0) -> None:
        """Signal every process with one of these command names and wait until none is left.

        Raises:
            TimeoutError: some are still there after `deadline` seconds.
        """
        for pid in self.pids(*names):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        give_up = time.monotonic() + deadline
        while left := self.pids(*names):
            if time.monotonic() > give_up:
                raise TimeoutError(f"{', '.join(names)} still running {deadline:g} s after signal {number}: {left}")
            time.sleep(0.01)

    def kill_group(self, deadline: float = 30.0) -> None:
        """SIGKILL every process under the control group (the containers'), and wait until none is left.

        Raises:
            TimeoutError: some are still there after `deadline` seconds.
        """
        give_up = time.monotonic() + deadline
        while True:
            pids: set[int] = set()
            for group in self._groups():
                for state in group.glob("**/freezer.state"):
                    state.write_text("THAWED")  # a frozen process does not die, see _INIT
                for procs in group.glob("**/cgroup.procs"):
                    pids.update(map(int, procs.read_text().split()))
            if not pids:
                return
            if time.monotonic() > give_up:
                raise TimeoutError(f"containers still running {deadline:g} s after SIGKILL: {sorted(pids)}")
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    def _groups(self) -> Iterator[Path]:
        """As `_GROUPS`; under cgroup v1 only where containers can be frozen, which is all of them, too."""
        v1 = Path("/sys/fs/cgroup/freezer")
        hierarchy = v1 if v1.exists() else Path("/sys/fs/cgroup")
        if (hierarchy / self._group).exists():
            yield hierarchy / self._group
        for made in self._data.glob("overlay-containers/*/"):
            yield from hierarchy.glob(f"libpod_parent/libpod-*{made.name}*")

    def close(self, deadline: float = 120.0) -> None:
        """End the cell: kill all in it and remove the directories. Harmless when it has ended already.

        Raises:
            TimeoutError: it is not gone after `deadline` seconds.
        """
        try:
            self._worker.communicate(timeout=deadline)  # closes the pipe that keeps the cell alive
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"the cell did not end within {deadline:g} s") from error


def _children(parent: int) -> list[int]:
    """Process ids of a process's children; /proc/PID/task/PID/children is not in every kernel, stat is."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(stat.parent.name))
    return found
