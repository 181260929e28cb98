"""Which policies with a cron expression missed their last time while the service was down, by the journal."""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from reaper.config.policies import PolicyTable
from reaper.config.service_tables import ServiceTable
from reaper.core.durations import parse_time
from reaper.observers import journal_db
from reaper.service.scheduler import Timing


@dataclass(frozen=True, slots=True)
class LastRuns:
    """When sweeps last ended well.

    Args:
        by_policy: for each endpoint and policy, the last sweep in which the policy was due.
        by_all: for each endpoint, the last sweep in which all policies were (``reaper --once``).
    """

    by_policy: Mapping[tuple[str, str], datetime] = field(default_factory=dict)
    by_all: Mapping[str, datetime] = field(default_factory=dict)

    def of(self, endpoint: str, policy: str) -> datetime | None:
        """When the policy was last swept for on the endpoint; None when there is no record of it."""
        found = (self.by_policy.get((endpoint, policy)), self.by_all.get(endpoint))
        return max((at for at in found if at is not None), default=None)


def last_runs(file: Path) -> LastRuns:
    """Read the journal. One that is missing or cannot be read has no runs."""
    query = "SELECT endpoint, due, max(at) AS at FROM sweep WHERE ended_at IS NOT NULL AND failure IS NULL GROUP BY 1, 2"
    by_policy: dict[tuple[str, str], datetime] = {}
    by_all: dict[str, datetime] = {}
    try:
        if not file.exists():
            return LastRuns()
        with closing(journal_db.reading(file)) as connection:
            for row in connection.execute(query):
                at = parse_time(row["at"])
                if row["due"] is None:
                    by_all[row["endpoint"]] = at
                    continue
                for policy in json.loads(row["due"]):
                    key = row["endpoint"], str(policy)
                    by_policy[key] = max(at, by_policy.get(key, at))
    except (sqlite3.Error, OSError, ValueError, TypeError):
        return LastRuns()
    return LastRuns(by_policy, by_all)


def missed(
    table: PolicyTable, endpoints: Iterable[str], runs: LastRuns, now: datetime, service: ServiceTable
) -> tuple[datetime, list[str]] | None:
    """The last time of a policy with ``cron``, and the endpoints where it was missed; None when it was not.

    A policy of which there is no earlier run on an endpoint is new there, and has missed nothing.

    Args:
        table: the policy.
        endpoints: those that it is for.
        runs: those in the journal.
        now: aware UTC.
        service: says how long ago that time may be, and how much before it a run may begin.
    """
    last = Timing.of(table).last_time(now, service.catch_up)
    if last is None:
        return None
    ran = {name: runs.of(name, table.name) for name in endpoints}
    found = [name for name, at in ran.items() if at is not None and at < last - service.jitter]
    return (last, found) if found else None
