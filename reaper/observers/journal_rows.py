"""What the journal keeps of a sweep, of an act and of a gap: rows, which ``journal_db`` puts into the file.

A gap stands beside the file while that cannot be written.

Times are texts of one width in UTC, so that they sort, and so that the ``sqlite3`` command shows what a person can read.
"""

import json
from collections.abc import Container, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from reaper.core.accounts import Footprint, LastLook, Saving
from reaper.core.durations import parse_time
from reaper.core.model import Decision, EndpointReport, Kind, Outcome, Result, State
from reaper.core.savings import Entry
from reaper.files import read_json, write_text

PENDING = "pending"  # the outcome of what is being deleted
LABELS = 16_384  # characters of JSON that are kept
TEXT = 4096  # characters of any other text
_MOST_GAPS = 1000  # files that are read: more of them would be an attack


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """What is known of a sweep when it begins to delete; ``due`` None means all policies. ``at`` is when it had listed."""

    endpoint: str
    provider: str
    host: str
    pid: int
    token: int
    version: str
    due: frozenset[str] | None
    at: datetime

    def row(self) -> dict[str, object]:
        """Its columns."""
        due = None if self.due is None else json.dumps(sorted(self.due))
        fixed = {name: getattr(self, name) for name in ("endpoint", "provider", "host", "pid", "token", "version")}
        return {**fixed, "due": due, "at": spell(self.at)}


def spell(at: datetime) -> str:
    """``at``, which is aware, in the form that the file has."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")


def text(value: str) -> str:
    """``value`` as it can be stored: others may have written half a character, or a book."""
    return value[:TEXT].encode("utf-8", "backslashreplace").decode()


def _maybe(value: str | None) -> str | None:
    return None if value is None else text(value)


def _labels(labels: Mapping[str, str] | None) -> tuple[str | None, int]:
    """Labels as JSON of a bounded length, and how many of them are missing or shortened in it."""
    if labels is None:
        return None, 0
    whole = json.dumps(dict(labels))
    if len(whole) <= LABELS:
        return whole, 0
    kept: dict[str, str] = {}
    left, cut = LABELS - 2, 0
    for key, value in labels.items():
        short = value[:256]
        size = len(json.dumps({key: short}))
        if size <= left:
            kept[key] = short
            left -= size
        cut += kept.get(key) != value
    return json.dumps(kept), cut


def decided(sweep: int, decision: Decision, at: str) -> dict[str, object]:
    """The row of a decision that is about to lead to an act."""
    resource, saving = decision.resource, decision.saving
    labels, cut = _labels(resource.labels)
    return {
        "sweep": sweep,
        "endpoint": resource.endpoint,
        "provider": resource.provider,
        "kind": resource.kind.value,
        "resource": text(resource.id),
        "name": text(resource.name),
        "labels": labels,
        "labels_cut": cut,
        "image": _maybe(resource.image),
        "group": _maybe(resource.group),
        "state": resource.state.value,
        "raw_state": text(resource.raw_state),
        "created_at": None if resource.created_at is None else spell(resource.created_at),
        "owner": _maybe(decision.owner),
        "policy": decision.policy,
        "action": decision.action.value,
        "reason": decision.reason.value,
        "sentence": text(decision.sentence),
        "since": None if decision.since is None else spell(decision.since),
        "decided_at": at,
        "outcome": PENDING,
        "detail": "",
        "error": None,
        "attempts": 0,
        "seconds": 0.0,
        "ended_at": None,
        "freed": None,
        "cpu": resource.footprint.cpu,
        "memory": resource.footprint.memory,
        "disk": resource.footprint.disk,
        "avoided": None if saving is None else saving.avoided.total_seconds(),
        "waited": None if saving is None or saving.waited is None else saving.waited.total_seconds(),
        **_looked(None),
        "evidence": False,
    }


def ended(result: Result, at: datetime) -> dict[str, object]:
    """What changes in that row when its outcome is known."""
    return {
        "outcome": result.outcome.value,
        "detail": text(result.detail),
        "error": result.error,
        "attempts": result.attempts,
        "seconds": result.seconds,
        "ended_at": spell(at),
        "freed": result.freed,
        **_looked(result.look),
        "evidence": bool(result.evidence),
    }


def _looked(look: LastLook | None) -> dict[str, object]:
    """The columns of the last look; without one nothing was done."""
    if look is None:
        return {"acted": 0, "looked_at": None, "looked_state": None, "looked_differs": None}
    return {
        "acted": int(look.acted),
        "looked_at": spell(look.at),
        "looked_state": text(look.raw_state),
        "looked_differs": _maybe(look.differs),
    }


_TEXTS = "endpoint owner policy reason raw_state labels created_at looked_at looked_state looked_differs"
_NUMBERS = "avoided waited freed cpu memory disk acted"


def entry(row: Mapping[str, Any]) -> Entry:
    """A row of an act as the summary reads it. Raises ValueError, TypeError and KeyError for what is no such row.

    One without ``acted`` was written by an earlier version.
    """
    for kinds, names in (((str, type(None)), _TEXTS), ((int, float, type(None)), _NUMBERS)):
        if odd := [name for name in names.split() if not isinstance(row[name], kinds)]:
            raise TypeError(f"{odd[0]} is {row[odd[0]]!r:.40}")
    avoided, waited = (None if row[key] is None else timedelta(seconds=row[key]) for key in ("avoided", "waited"))
    look = None
    if row["looked_at"] is not None:
        look = LastLook(parse_time(row["looked_at"]), row["looked_state"], row["looked_differs"], bool(row["acted"]))
    return Entry(
        endpoint=row["endpoint"],
        owner=row["owner"],
        policy=row["policy"],
        reason=row["reason"],
        kind=Kind(row["kind"]),
        state=State(row["state"]),
        raw_state=row["raw_state"],
        outcome=Outcome(row["outcome"]),
        labels=None if row["labels"] is None else json.loads(row["labels"]),
        has_age=row["created_at"] is not None,
        failed=row["outcome"] == Outcome.FAILED or (row["outcome"] == Outcome.STOPPED and row["error"] is not None),
        saving=None if avoided is None else Saving(avoided, waited),
        freed=row["freed"],
        footprint=Footprint(row["cpu"], row["memory"], row["disk"]),
        look=look,
        looks_recorded=row["acted"] is not None,
    )


def acts(report: EndpointReport, begun: Container[tuple[str, str]] = ()) -> list[Result]:
    """The results that are worth a record each. What a cap has held back is one fact and not thousands.

    Args:
        report: of the sweep; where one cap is hit, what the other one counts goes all the same.
        begun: what is on record already, by kind and id.
    """
    return [
        result
        for result in report.results
        if result.outcome is not Outcome.WOULD_DELETE
        and (report.cap is None or result.outcome is not Outcome.ABANDONED or place(result) in begun)
    ]


def place(result: Result) -> tuple[str, str]:
    """What distinguishes it from the other results of a sweep: kind and id, as they are stored."""
    return result.decision.resource.kind.value, text(result.decision.resource.id)


# -- gaps -------------------------------------------------------------------------------------------------------------


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


def leave_gap(journal: Path, token: int, gap: Gap) -> None:
    """Write a gap beside the journal, for the next process that can write that. Raises OSError."""
    journal.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = Path(f"{journal}.gap-{token}")
    fields = {name: getattr(gap, name) for name in gap.__slots__}
    write_text(file, json.dumps(fields))


def gaps_left(journal: Path) -> Iterator[tuple[Path, Gap | None]]:
    """The gaps beside the journal; None for a file that does not say what it should."""
    with suppress(OSError):
        for file in sorted(journal.parent.glob(f"{journal.name}.gap-*"))[:_MOST_GAPS]:
            if file.suffix == ".partial":
                continue
            try:
                found = read_json(file)
                yield file, _gap(found)
            except OSError:
                continue
            except (ValueError, KeyError, TypeError, OverflowError):
                yield file, None


def _gap(found: object) -> Gap:
    if not isinstance(found, dict):
        raise ValueError("it is no object")  # noqa: TRY004 - of the content, not of a type in here
    began, ended = (spell(parse_time(found[name])) for name in ("began_at", "ended_at"))
    return Gap(began, ended, int(found["sweeps"]), int(found["acts"]), text(str(found["why"])))
