"""The leases that all who share a state directory see."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from reaper.alive import lives, lock_file
from reaper.claims import Ending
from reaper.leaseindex import Leases
from reaper.places import is_there, sockets_to_ask

if TYPE_CHECKING:
    from reaper.leasedb import LeaseFile
    from reaper.servedleases import ServedLeases

NAME = "leases.db"
KILLED = "killed"


class SharedLeases:
    """Reads them, however often: what has not changed is not read again.

    A process that holds a lease may die while no service watches. The kernel tells so, and then the lease has ended.

    Args:
        folder: the state directory. Until somebody takes the first lease nothing is made there, and nothing imported.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._file: LeaseFile | None = None
        self._dead: dict[str, Ending] = {}

    def __call__(self) -> Leases:
        """The leases, living and ended. Blocks for milliseconds. Raises LeasesUnknownError."""
        if self._file is None:
            if not is_there(str(self._path)):
                return Leases()
            from reaper.leasedb import LeaseFile  # noqa: PLC0415 - a database, where most have none

            self._file = LeaseFile(self._path)
        lock = lock_file(self._path)
        dead: dict[str, Ending] = {}
        for record in self._file.open():
            if record.token is not None and record.is_orphan(lives(lock, record.token)):
                dead[record.id] = self._dead.get(record.id) or record.killed(datetime.now(UTC), KILLED)
        self._dead = dead
        return self._file.leases(dead)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()


class KnownLeases:
    """Those of a state directory, and those of the services on this machine that keep theirs elsewhere.

    Args:
        folder: the state directory.
        sockets: where such services listen, if they do.
    """

    def __init__(self, folder: Path, sockets: Sequence[str]) -> None:
        self._shared = SharedLeases(folder)
        self._own = folder / NAME
        self._sockets = sockets
        self._served: Sequence[ServedLeases] | None = None

    def __call__(self) -> Leases:
        """The leases, living and ended. Blocks for milliseconds. Raises LeasesUnknownError."""
        if self._served is None:
            self._served = self._services()
        return Leases.of([self._shared(), *(served() for served in self._served)])

    def _services(self) -> "Sequence[ServedLeases]":
        there = [path for path in self._sockets if is_there(path)]
        if not there:
            return ()
        from reaper.peers import answers  # noqa: PLC0415 - most have no service beside them
        from reaper.servedleases import ServedLeases  # noqa: PLC0415

        # A socket without a service behind it, where the leases can be read from the disk: that is where it kept them.
        return [ServedLeases(path) for path in there if answers(path) or not is_there(str(self._own))]

    def close(self) -> None:
        """Let go of the file."""
        self._shared.close()


def known_leases(folder: Path, env: Mapping[str, str]) -> KnownLeases:
    """Return the reader of all leases that whatever deletes or stops something has to know.

    Args:
        folder: the state directory.
        env: names the local sockets on which a service may listen.
    """
    return KnownLeases(folder, sockets_to_ask(env))
