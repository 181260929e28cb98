"""A journal with a clock that stands still, and what its file says."""

import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio

from reaper.core.model import Decision, EndpointReport, Kind, Outcome, Reason, Resource, Result, State, Verdict
from reaper.observers.journal import Journal

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def resource(name: str, **fields: Any) -> Resource:
    base = Resource(
        provider="docker",
        endpoint="local",
        kind=Kind.CONTAINER,
        id=f"id-{name}",
        name=name,
        state=State.STOPPED,
        raw_state="exited",
        created_at=NOW - timedelta(days=2),
        labels={"harbor.managed": "true"},
        image="hb__task",
        group="trial",
    )
    return replace(base, **fields)


def decision(name: str, *, reap: bool = True, **fields: Any) -> Decision:
    verdict, reason = (Verdict.REAP, Reason.STOPPED_FOR) if reap else (Verdict.KEEP, Reason.TOO_YOUNG)
    return Decision(
        resource(name, **fields),
        verdict,
        reason,
        "stopped 2 d ago, policy stopped-containers allows 6 h",
        policy="stopped-containers" if reap else None,
        owner="preset harbor",
        since=NOW - timedelta(days=1) if reap else None,
    )


def result(decided: Decision, outcome: Outcome = Outcome.DELETED, **fields: Any) -> Result:
    return Result(decided, outcome, **{"attempts": 1, "seconds": 0.5, **fields})


def report(*results: Result, kept: Iterable[Decision] = (), **fields: Any) -> EndpointReport:
    decisions = (*(r.decision for r in results), *kept)
    base = EndpointReport(
        endpoint="local", provider="docker", held=len(decisions), decisions=decisions, results=results, seconds=1.5
    )
    return replace(base, **fields)


class Clock:
    """Shows what it is set to."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


class Lab:
    """A journal in a folder, and its messages."""

    def __init__(self, folder: Path, **fields: Any) -> None:
        self.file = folder / "state" / "journal.db"
        self.clock = Clock()
        self.told: list[str] = []
        self.recovered: list[str] = []
        self.fields = fields

    def journal(self, **fields: Any) -> Journal:
        """Another process, as far as the file is concerned."""
        values: dict[str, Any] = {"keep_for": timedelta(days=90), "max_megabytes": 256, "clock": self.clock}
        return Journal(
            self.file,
            **{**values, "failed": self.told.append, "recovered": self.recovered.append, **self.fields, **fields},
        )

    def run(self, main: Callable[[Journal], Awaitable[None]], **fields: Any) -> None:
        """A process that keeps a journal and ends in order."""

        async def whole() -> None:
            journal = self.journal(**fields)
            journal.open()
            try:
                await main(journal)
            finally:
                await journal.close()

        anyio.run(whole)

    def sweep(self, *results: Result, kept: Sequence[Decision] = (), **fields: Any) -> None:
        """A process that sweeps once."""
        self.run(lambda journal: sweep(journal, report(*results, kept=kept)), **fields)

    def rows(self, query: str = "SELECT * FROM act ORDER BY id") -> list[dict[str, Any]]:
        connection = sqlite3.connect(self.file)
        connection.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in connection.execute(query)]
        finally:
            connection.close()

    def outcomes(self) -> dict[str, str]:
        return {row["name"]: row["outcome"] for row in self.rows()}

    def is_whole(self) -> bool:
        return self.rows("PRAGMA integrity_check") == [{"integrity_check": "ok"}]

    def aside(self) -> list[Path]:
        return sorted(self.file.parent.glob("journal.db.damaged-*"))


async def sweep(journal: Journal, done: EndpointReport) -> None:
    """What a sweep that ended like this writes to the journal."""
    journal.listed(done.endpoint, done.held)
    journal.decided(done.endpoint, done.decisions)
    going = [r.decision for r in done.results]
    if going and done.cap is None:
        await journal.begin(done.endpoint, done.provider, going)
        for each in done.results:
            journal.settled(done.endpoint, each)
    journal.finished(done)
