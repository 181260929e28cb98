"""What was known of containers and sandboxes before they were deleted: a file of JSON for each, in the state directory.

Evidence serves people and keeps nothing: a disk that is full, slow or broken costs evidence, and no deletion.
"""

import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from reaper.config.settings import EvidenceTable
from reaper.core import sizes
from reaper.core.model import Resource
from reaper.files import read_json, write_text
from reaper.providers.abilities import Evidence

FOLDER = "evidence"
FORMAT = 1
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")  # no dot, no slash: the name of a file is made of it
LARGEST = 4_000_000  # bytes of one file: a log of which each character is written as an escape, and an inspection
MOST_FILES = 10_000
LEAST_FREE = 32 << 20  # bytes of the disk that are left to the journal and the leases, which need them more
TRIM_EVERY = timedelta(minutes=10)
TRIM_WITHIN = 5.0  # seconds that a sweep waits for that
_SUFFIX = ".json"
_TRIM_TO = 0.9  # of what is allowed: cutting to the very size would begin again with the next file


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    size: int
    written_at: float


class EvidenceFiles:
    """The folder of evidence: a store for sweeps. Any number of processes may share it.

    Args:
        state: the state directory.
        table: what is saved, for how long, and how much.
        clock: returns the aware time in UTC.

    Attributes:
        lines: so many of the last lines of a log are kept.
    """

    def __init__(self, state: Path, table: EvidenceTable, clock: Callable[[], datetime]) -> None:
        self.lines = table.logs
        self._folder, self._table, self._clock = state / FOLDER, table, clock
        self._thread = anyio.CapacityLimiter(1)  # a disk that hangs gets one thread, and keeps that
        self._bytes, self._files = 0, MOST_FILES  # as far as this process knows; at first it has to look
        self._trimmed_at: datetime | None = None

    async def save(self, resource: Resource, found: Evidence) -> str | None:
        """See ``ports.EvidenceStore``."""
        if ID.fullmatch(resource.id) is None:
            return "its id cannot be the name of a file"
        document = {
            "format": FORMAT,
            "endpoint": resource.endpoint,
            "provider": resource.provider,
            "kind": resource.kind.value,
            "id": resource.id,
            "name": resource.name,
            "saved_at": self._clock().isoformat(),
            "inspection": found.inspection if self._table.inspect else None,
            "log": None if found.log is None else re.split("\r?\n", found.log.removesuffix("\n")) if found.log else [],
            "note": found.note if self.lines else "logs are not saved: [evidence] logs = 0",
        }
        return await self._in_thread(self._write, resource.id, document)

    async def tidy(self) -> None:
        """Delete what is too old or too much, now and then. Never raises, and does not wait for a disk that hangs."""
        at = self._clock()
        if self._trimmed_at is None or at - self._trimmed_at >= TRIM_EVERY:
            self._trimmed_at = at
            with anyio.move_on_after(TRIM_WITHIN), suppress(OSError, RuntimeError):  # the second: no thread can be started
                if self._folder.exists():  # else no thread is needed
                    await self._in_thread(self._trim)

    async def _in_thread(self, function: Callable[..., str | None], *arguments: object) -> str | None:
        return await anyio.to_thread.run_sync(function, *arguments, limiter=self._thread, abandon_on_cancel=True)

    def _write(self, id_: str, document: dict[str, object]) -> str | None:
        try:
            text = json.dumps(document)
            if len(text) > LARGEST:
                return f"it has more than {sizes.human(LARGEST)}"
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            disk = os.statvfs(self._folder)
            free = disk.f_bavail * disk.f_frsize - len(text)
            if free < LEAST_FREE:
                return f"only {sizes.human(max(free, 0))} would be left on the disk of {self._folder}"
            if self._bytes + len(text) > self._table.max_size or self._files >= MOST_FILES:
                self._trim(room=len(text))
            write_text(self._folder / f"{id_}{_SUFFIX}", text)
        except OSError as error:
            return f"{self._folder}: {error.strerror or error}"
        except (ValueError, TypeError, RecursionError) as error:
            return f"it cannot be written as JSON: {type(error).__name__}"
        self._bytes += len(text)
        self._files += 1
        return None

    def _trim(self, room: int = 0) -> None:
        """Delete what is older than is kept, then the oldest until the rest has its size. Raises OSError."""
        oldest = (self._clock() - self._table.keep_for).timestamp()
        kept = sorted(_files(self._folder), key=lambda file: file.written_at, reverse=True)
        total, count = room + sum(file.size for file in kept), len(kept)
        share = _TRIM_TO if total > self._table.max_size or count >= MOST_FILES else 1.0
        while kept and (kept[-1].written_at < oldest or total > self._table.max_size * share or count > MOST_FILES * share):
            file = kept.pop()
            Path(file.path).unlink(missing_ok=True)
            total, count = total - file.size, count - 1
        self._bytes, self._files = total - room, count


def _files(folder: Path) -> Iterator[_File]:
    """The files there, half-written ones of processes that were killed among them. Raises OSError."""
    with suppress(FileNotFoundError):
        for entry in os.scandir(folder):
            with suppress(FileNotFoundError):  # another process trims it, too
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):
                    yield _File(entry.path, found.st_size, found.st_mtime)


# -- reading -----------------------------------------------------------------------------------------------------------


def ids(state: Path) -> frozenset[str]:
    """The ids of all of which there is evidence. Raises OSError where that cannot be told."""
    return frozenset(Path(file.path).stem for file in _files(state / FOLDER) if file.path.endswith(_SUFFIX))


def read(state: Path, id_: str) -> dict[str, Any]:
    """The evidence of one resource. Raises OSError and ValueError for what cannot be read."""
    found = read_json(state / FOLDER / f"{id_}{_SUFFIX}")
    if not isinstance(found, dict) or found.get("format") != FORMAT or found.get("id") != id_:
        raise ValueError("it is no evidence, or of a later version of reaper")
    log = found.get("log")
    if not isinstance(log, list | None) or not all(isinstance(line, str) for line in log or ()):
        raise ValueError("its log is no list of lines")
    return found
