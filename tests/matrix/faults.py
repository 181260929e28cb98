"""The rows of the matrix: which faults there are, and how each strikes at a call of a provider, or why it cannot."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from tests.matrix import strikes
from tests.matrix.strikes import Strike

DOCKER, DAYTONA = "docker", "daytona"
PROVIDERS = (DOCKER, DAYTONA)
LIST, INSPECT, GROUP, RECHECK, STOP, DELETION, CONFIRM, EVENTS = CALLS = (
    "list",
    "inspect",
    "group",
    "re-check",
    "stop",
    "delete",
    "confirm",
    "events",
)
ARCHIVE, EVIDENCE, LOG = "archive", "evidence", "log"
"""``group`` is the listing of the group and of what depends on a resource just before its deletion."""

Calls = Mapping[str, Collection[str]]
EVERYWHERE: Calls = {DOCKER: CALLS, DAYTONA: CALLS}
LISTINGS: Calls = {DOCKER: (LIST, GROUP, CONFIRM), DAYTONA: (LIST, GROUP)}
INSPECTIONS: Calls = {DOCKER: (INSPECT, RECHECK), DAYTONA: (INSPECT, RECHECK, CONFIRM)}
READS: Calls = {provider: (*LISTINGS[provider], *INSPECTIONS[provider]) for provider in PROVIDERS}
CHANGES: Calls = {DOCKER: (STOP, DELETION), DAYTONA: (STOP, DELETION)}
DELETIONS: Calls = {DOCKER: (DELETION,), DAYTONA: (DELETION,)}

NEVER_MADE = {
    (DAYTONA, EVENTS): "not made: the platform has no stream of events",
}


@dataclass(frozen=True)
class Fault:
    """One row.

    Args:
        name: in an operator's words.
        strikes: makes what happens to a request, given provider and call; a new one for each cell.
        at: the calls at which it can strike.
        otherwise: why it cannot strike elsewhere.
        skew: seconds by which the server's clock is wrong: at the listing always has been, at other calls is from then on.
    """

    name: str
    strikes: Callable[[str, str], Strike]
    at: Calls = field(default_factory=lambda: EVERYWHERE)
    otherwise: str = ""
    skew: int = 0

    def reason(self, provider: str, call: str) -> str | None:
        """Why there is no such cell; None where there is one."""
        if never := NEVER_MADE.get((provider, call)):
            return never
        return None if call in self.at.get(provider, ()) else self.otherwise


def _always(strike: Strike) -> Callable[[str, str], Strike]:
    return lambda *_: strike


def _rate_limited(value: Callable[[], str]) -> Callable[[str, str], Strike]:
    """A 429 that says for how long, in the header that the provider has for it."""

    def make(provider: str, call: str) -> Strike:
        group = "-sandbox-lifecycle" if call in (STOP, DELETION) else "-authenticated"
        return strikes.status(429, headers={f"Retry-After{group if provider == DAYTONA else ''}": value})

    return make


def _in_seconds(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


def _garbled(provider: str, call: str, garbage: Callable[[bytes], bytes]) -> Strike:
    if call == EVENTS:
        event = b'{"Type":"container","Action":"die","Actor":{"ID":"aa","Attributes":{}},"timeNano":1}'
        return strikes.lines(garbage(event) + b"\n")
    return strikes.changed(lambda found: found, raw=garbage)


_NO_PAGES = "its listing is one answer, without pages"
_NO_LIST = "its answer is no list"
_NO_ROWS = "its answer says nothing about a resource"
_ONLY_CHANGES = "only what changes something is refused with a conflict"
_ONLY_DELETIONS = "it is no deletion"
_CONFLICTS: Mapping[str, tuple[str, Calls]] = {
    "409: its removal is already in progress": (
        "removal of container abc is already in progress",
        {DOCKER: (DELETION,)},
    ),
    "409: it runs (again)": (
        "You cannot remove a running container abc. Stop the container before attempting removal or force remove",
        {DOCKER: (DELETION,)},
    ),
    "409: another conflict": ("conflict", {DOCKER: (STOP, DELETION)}),
    "409: a state change is in progress": ("Sandbox state change in progress", {DAYTONA: (STOP, DELETION)}),
    "409: modified by another operation": (
        "Sandbox was modified by another operation",
        {DAYTONA: (STOP, DELETION)},
    ),
}

FAULTS: tuple[Fault, ...] = (
    Fault("connection refused", _always(strikes.refused())),
    Fault("connection reset before the request is read", _always(strikes.simulated("reset"))),
    Fault("connection reset after it was done, without an answer", _always(strikes.simulated("reset,after"))),
    Fault("connection ends in mid-answer", _always(strikes.simulated("truncate"))),
    Fault("no answer (time-out)", _always(strikes.simulated("hang"))),
    Fault("no answer, but it was done", _always(strikes.simulated("hang,after"))),
    Fault("a byte a second", _always(strikes.slowly())),
    Fault("429 without Retry-After", _always(strikes.status(429))),
    Fault("429, Retry-After in seconds", _rate_limited(lambda: "7")),
    Fault("429, Retry-After as a date", _rate_limited(lambda: _in_seconds(20))),
    Fault("429, Retry-After of 10 years", _rate_limited(lambda: "315360000")),
    Fault("429, Retry-After that is no time", _rate_limited(lambda: "soon")),
    Fault("500", _always(strikes.status(500))),
    Fault("502", _always(strikes.status(502))),
    Fault("503", _always(strikes.status(503))),
    Fault("401 in mid-sweep", _always(strikes.status(401, "unauthorized"))),
    Fault("403 in mid-sweep", _always(strikes.status(403, "forbidden"))),
    *(
        Fault(
            name,
            _always(strikes.status(409, words)),
            at,
            _ONLY_CHANGES,
        )
        for name, (words, at) in _CONFLICTS.items()
    ),
    Fault(
        "403: the network has active endpoints",
        _always(strikes.status(403, "error while removing network: network x id y has active endpoints")),
        {DOCKER: (DELETION,)},
        "it is about networks",
    ),
    Fault(
        "400: it has forks",
        _always(strikes.status(400, "Cannot delete sandbox which has active fork children.")),
        {DAYTONA: (DELETION,)},
        "it is about forks of sandboxes",
    ),
    Fault("malformed JSON", lambda provider, call: _garbled(provider, call, lambda body: b'{"a": [}' + body)),
    Fault("truncated JSON", lambda provider, call: _garbled(provider, call, lambda body: body[: len(body) // 2])),
    Fault("HTML in place of JSON", _always(strikes.simulated("garbage"))),
    Fault("an empty answer", _always(strikes.simulated("empty"))),
    Fault(
        "unknown states",
        _always(strikes.changed(strikes.unknown_state)),
        {DOCKER: READS[DOCKER], DAYTONA: (*READS[DAYTONA], STOP, DELETION)},
        _NO_ROWS,
    ),
    Fault("rows without labels", _always(strikes.changed(strikes.without("Labels", "labels"))), READS, _NO_ROWS),
    Fault(
        "rows without a time of creation",
        _always(strikes.changed(strikes.without("Created", "createdAt"))),
        READS,
        _NO_ROWS,
    ),
    Fault("rows without a state", _always(strikes.changed(strikes.without("State", "state"))), READS, _NO_ROWS),
    Fault("rows without an id", _always(strikes.changed(strikes.without("Id", "id"))), READS, _NO_ROWS),
    Fault("an empty list in place of a full one", _always(strikes.changed(strikes.empty)), LISTINGS, _NO_LIST),
    Fault("every second row is lost", _always(strikes.changed(strikes.half)), LISTINGS, _NO_LIST),
    Fault(
        "the pages after one are lost",
        _always(strikes.changed(strikes.cut_off)),
        {DAYTONA: LISTINGS[DAYTONA]},
        _NO_PAGES,
    ),
    Fault(
        "pages are repeated",
        lambda *_: strikes.changed(strikes.Repeated()),
        {DAYTONA: LISTINGS[DAYTONA]},
        _NO_PAGES,
    ),
    Fault("a deletion is accepted and never done", _always(strikes.never_done()), DELETIONS, _ONLY_DELETIONS),
    Fault("a deletion fails after it was accepted", _always(strikes.fails_later()), DELETIONS, _ONLY_DELETIONS),
    *(
        Fault(
            f"the server's clock is {minutes} min {way}",
            _always(strikes.clock_moves(sign * minutes * 60)),
            skew=sign * minutes * 60,
        )
        for minutes in (55, 65)
        for way, sign in (("ahead", 1), ("behind", -1))
    ),
)

NAMES = tuple(fault.name for fault in FAULTS)
assert len(set(NAMES)) == len(NAMES)
