"""A run's lease from the service: the open connection to it is the lease, and the service cleans up when that is gone."""

import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from reaper import connect
from reaper.claims import Claim, Ending
from reaper.errors import ConfigError
from reaper.holds import clean_up, may_go_later
from reaper.leases import known_leases
from reaper.leftovers import Wanted, of_lease
from reaper.library.asking import LeaseRefusedError
from reaper.library.holding import HeldLease, lease
from reaper.model import Report
from reaper.orders import Setup
from reaper.peers import is_trusted, listener

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

_CURE = (
    "label what is created with $REAPER_LABEL in place of --own, or have the operator name you in trusted_users of [leases]"
)


class ServedHold:
    """A lease that the service keeps.

    Args:
        setup: where what is left has to be looked for.
        held: the lease.
        say: tells people.
    """

    def __init__(self, setup: Setup, held: HeldLease, say: Callable[[str], None]) -> None:
        self._setup, self._held, self._say = setup, held, say
        self.id = held.id

    def keep(self) -> None:
        """See ``holds.Hold``: a thread does it."""

    def clean_up(self, cause: str, log: "FilteringBoundLogger | None") -> Report:
        """See ``holds.Hold``. The service goes on where this is interrupted."""
        ended, began = datetime.now(UTC), time.monotonic()
        try:
            known = known_leases(self._setup.state, os.environ)
            leases = of_lease(self.id, known, Ending(ended, cause))
            report = clean_up(Wanted(self._setup, self.id, leases), log, self._say)
            if may_go_later(report):
                self._say("not everything could be looked at or deleted; the service goes on trying")
            return report
        finally:
            self._held.release(cause, over_for=time.monotonic() - began)


def served(setup: Setup, claims: Sequence[Claim], url: str, say: Callable[[str], None]) -> ServedHold | None:
    """A lease of the service, unless it does not answer or does not sweep all that the run may use.

    Args:
        setup: where what is left has to be looked for.
        claims: what the lease covers besides what carries its label.
        url: of the service's local socket.
        say: tells people.

    Raises ConfigError when the service does not grant it.
    """
    if not is_trusted(listener(url.removeprefix("unix://"))):
        say(f"the service on {url} is another user's, so this run has a guard of its own")
        return None
    held = lease([claim.fields() for claim in claims], url=url, on_trouble=lambda text: say(f"the service: {text}"))
    try:
        held.__enter__()
    except LeaseRefusedError as error:
        raise ConfigError(f"the service on {url} does not grant the lease: {error}", _CURE) from None
    if held.state == "live":
        plan = setup.plan
        looked = connect.endpoints(plan.engines, plan.organisations, plan.retry, setup.state, act=False)
        missing = {endpoint.reader.identity for endpoint in looked} - {*held.endpoints}
        if not missing:
            return ServedHold(setup, held, say)
        say(f"the service on {url} does not sweep {', '.join(sorted(missing))}, so this run has a guard of its own")
    held.release("it was not used")
    return None
