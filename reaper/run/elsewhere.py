"""What the guard of a run says to the service at REAPER_URL, which holds the run's lease as well, in its holder's place."""

import os
from contextlib import suppress
from urllib.parse import urlencode

from reaper.errors import ConfigError
from reaper.leases.sources import KILLED, other_service, service_token
from reaper.library.lease_client import AwayError, LeaseRefusedError, Service


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


def _ask(method: str, what: str) -> None:
    with suppress(ConfigError, AwayError, LeaseRefusedError):
        if (url := other_service(os.environ)) is not None:
            Service(url, service_token(os.environ)).ask(method, what)
