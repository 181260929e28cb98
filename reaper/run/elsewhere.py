"""Requests to the service at REAPER_URL, which holds the leases of runs as well, in the place of their holders."""

import os
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode

from reaper.errors import ConfigError, LeasesUnknownError
from reaper.leases.served import ServedLeases
from reaper.leases.sources import KILLED, NAME, is_orphan, other_service, service_at, service_token
from reaper.leases.store import LeaseFile
from reaper.library.lease_client import AwayError, LeaseRefusedError, Service
from reaper.paths import is_there


def beat(id_: str) -> None:
    """Say that its holder lives. A holder that is stopped (``^Z``) cannot, and would be taken for dead in some minutes."""
    _ask("PUT", id_)


def release(id_: str, over_for: float) -> None:
    """Give the lease back: that service takes minutes to miss its holder.

    Args:
        id_: the lease's.
        over_for: how many seconds ago its holder died.
    """
    _ask("DELETE", f"{id_}?{urlencode({'cause': KILLED, 'over_for': f'{over_for:.3f}'})}")


def release_dead(state: Path) -> None:
    """Give back the leases of this host's dead runs: the guard of one that was just killed comes to that later.

    Args:
        state: the state directory.
    """
    path, now = state / NAME, datetime.now(UTC)
    with suppress(ConfigError, LeasesUnknownError):
        service = service_at(other_service(os.environ), os.environ)
        if not isinstance(service, ServedLeases) or not is_there(str(path)):
            return
        with closing(LeaseFile(path)) as file:
            for row in service.rows(state="open"):
                record = file.find(str(row["id"]))
                if record is not None and record.is_here and (record.state.ended or is_orphan(record, path)):
                    release(record.id, max((now - (record.ended_at or record.seen_at)).total_seconds(), 0.0))


def _ask(method: str, what: str) -> None:
    with suppress(ConfigError, AwayError, LeaseRefusedError):
        if (url := other_service(os.environ)) is not None:
            Service(url, service_token(os.environ)).ask(method, what)
