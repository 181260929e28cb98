"""The leases that all who share a state directory see."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reaper.claims import Lease
from reaper.places import is_there

if TYPE_CHECKING:
    from reaper.leasedb import LeaseFile

NAME = "leases.db"


class SharedLeases:
    """Reads them, however often: what has not changed is not read again.

    Args:
        folder: the state directory. Until somebody takes the first lease nothing is made there, and nothing imported.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._file: LeaseFile | None = None

    def __call__(self) -> Sequence[Lease]:
        """The leases, living and ended. Blocks for milliseconds. Raises LeasesUnknownError."""
        if self._file is None:
            if not is_there(str(self._path)):
                return ()
            from reaper.leasedb import LeaseFile  # noqa: PLC0415 - a database, where most have none

            self._file = LeaseFile(self._path)
        return self._file.leases()

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
