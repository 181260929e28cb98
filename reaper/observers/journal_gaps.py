"""Gaps of the journal that stand beside it: what could not be recorded while the file itself could not be written."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from reaper.files import read_json
from reaper.observers.journal_rows import spell, text

_MOST = 1000  # files that are read: more of them would be an attack


@dataclass(frozen=True, slots=True)
class Gap:
    """So many sweeps and deletions are not on record. Times are in the journal's own form."""

    began_at: str
    ended_at: str
    sweeps: int
    acts: int
    why: str

    @classmethod
    def of(cls, began_at: datetime, ended_at: datetime, lost: tuple[int, int], why: str) -> "Gap":
        """A gap between two times, which are aware."""
        return cls(spell(began_at), spell(ended_at), *lost, text(why))


def leave(journal: Path, token: int, gap: Gap) -> Path:
    """Write a gap beside the journal, for the next process that can write that. Raises OSError."""
    journal.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = Path(f"{journal}.gap-{token}")
    fields = {name: getattr(gap, name) for name in gap.__slots__}
    part = Path(f"{file}.part")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w", encoding="utf-8") as opened:  # noqa: PTH123
        json.dump(fields, opened)
    part.rename(file)
    return file


def left(journal: Path) -> Iterator[tuple[Path, Gap | None]]:
    """The gaps beside the journal; None for a file that does not say what it should."""
    with suppress(OSError):
        for file in sorted(journal.parent.glob(f"{journal.name}.gap-*"))[:_MOST]:
            if file.suffix == ".part":
                continue
            try:
                found = read_json(file)
                yield file, _gap(found)
            except OSError:
                continue
            except (ValueError, KeyError, TypeError):
                yield file, None


def _gap(found: object) -> Gap:
    if not isinstance(found, dict):
        raise ValueError("it is no object")  # noqa: TRY004 - of the content, not of a type in here
    began, ended = (spell(datetime.fromisoformat(str(found[name]))) for name in ("began_at", "ended_at"))
    return Gap(began, ended, int(found["sweeps"]), int(found["acts"]), text(str(found["why"])))
