"""The status page's first word: the worst state, and its level."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from reaper.core.durations import human
from reaper.core.wording import counted, is_or_are
from reaper.service.health import health
from reaper.service.status import EndpointStatus, Status

NAMED = 3  # endpoints that a headline names


class Level(StrEnum):
    """How much it should worry."""

    GOOD = "good"
    QUIET = "quiet"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A headline, how it looks, a line below it, and a short form for the browser's tab."""

    level: Level
    headline: str
    line: str
    short: str


def age(at: datetime, now: datetime) -> str:
    """How long ago, for people; nothing is younger than 0 s."""
    return human(max(now - at, timedelta(0)))


def verdict(status: Status, now: datetime) -> Verdict:
    """The worst that is known: no sweeps, endpoints down, a cap that was hit, leaked resources; or that nothing leaks.

    That is said only where no owned resource runs that its age alone keeps: a killed run leaves such ones.
    """
    endpoints = list(status.endpoints.values())
    if (found := _stuck(status, now) or _trouble(endpoints, now, dry_run=status.dry_run)) is not None:
        return found
    if status.dry_run and (would := _reapable(endpoints, now, "would be deleted")):
        return Verdict(Level.QUIET, f"A dry run: {would}", _looked(endpoints, now), "dry run")
    return _leaking(endpoints, now) or _calm(status, endpoints, now)


def _stuck(status: Status, now: datetime) -> Verdict | None:
    healthy, document = health(status, now)
    if healthy:
        return None
    reasons = "; ".join(f"{check['name']}: {check['detail']}" for check in document["checks"] if not check["ok"])
    return Verdict(Level.BAD, "Nothing is being swept: the service is stuck", f"{reasons}.", "stuck")


def _trouble(endpoints: Sequence[EndpointStatus], now: datetime, *, dry_run: bool) -> Verdict | None:
    down = [endpoint for endpoint in endpoints if endpoint.up is False]
    if down:
        headline = f"{len(down)} of {counted(len(endpoints), 'endpoint')} {is_or_are(len(down))} down: {_names(down)}"
        if len(down) == len(endpoints):
            return Verdict(
                Level.BAD, headline, "Nothing can be deleted until one of them answers again.", f"{len(down)} down"
            )
        line = f"{_reapable(endpoints, now) or 'Nothing is known to be reapable'}."
        return Verdict(Level.BAD, headline, line, f"{len(down)} down")
    suspect = [endpoint for endpoint in endpoints if endpoint.suspect_since is not None]
    if suspect:
        they_are = "It is" if len(suspect) == 1 else "They are"
        errors = "; ".join(f"{e.name}: {e.events_error or 'its events are lost'}" for e in suspect[:NAMED])
        headline = f"{len(suspect)} of {counted(len(endpoints), 'endpoint')} may be down: {_names(suspect)}"
        return Verdict(Level.WARN, headline, f"{errors}. {they_are} being looked at.", "may be down")
    return _held_back(endpoints, dry_run=dry_run)


def _held_back(endpoints: Sequence[EndpointStatus], *, dry_run: bool) -> Verdict | None:
    capped = [endpoint for endpoint in endpoints if endpoint.cap]
    if capped:
        headline = f"The deletion cap holds the sweeps back on {_names(capped)}"
        line = "None of that was deleted. If that many are right, raise the limit in [limits]."
        if dry_run:
            headline = f"A dry run: the deletion cap would hold the sweeps back on {_names(capped)}"
            return Verdict(Level.WARN, headline, "If that many are right, raise [limits].", "dry run")
        return Verdict(Level.BAD, headline, line, "cap hit")
    full = [endpoint for endpoint in endpoints if endpoint.in_the_way]
    if full:
        level = Level.WARN if dry_run else Level.BAD
        headline = f"The disk is fuller than low, and nothing more may be deleted, on {_names(full)}"
        return Verdict(level, headline, "The endpoint's remarks say what would have to go.", "disk full")
    return None


def _leaking(endpoints: Sequence[EndpointStatus], now: datetime) -> Verdict | None:
    reapable = _reapable(endpoints, now)
    if not reapable:
        return None
    return Verdict(Level.WARN, reapable, _looked(endpoints, now), f"{sum(e.reapable for e in endpoints):,} reapable")


def _calm(status: Status, endpoints: Sequence[EndpointStatus], now: datetime) -> Verdict:
    if not endpoints:
        line = "Name one with [[docker]] or [[daytona]] in the configuration."
        return Verdict(Level.WARN, "There is nothing to look after: no endpoint is configured", line, "no endpoint")
    waiting = [endpoint for endpoint in endpoints if endpoint.up is None]
    young = sum(endpoint.young for endpoint in endpoints)
    if young and not waiting:
        be, they = ("runs", "its age keeps it") if young == 1 else ("run", "their age keeps them")
        headline = f"Nothing is reapable yet; {counted(young, 'owned resource')} {be}, and only {they}"
        line = f"What is leased is unknown. {_looked(endpoints, now)}"
        return Verdict(Level.QUIET, headline, line, f"{young:,} running")
    if not waiting:
        return Verdict(Level.GOOD, "Nothing leaks", _looked(endpoints, now), "nothing leaks")
    if len(waiting) == len(endpoints):
        line = f"{counted(len(endpoints), 'endpoint')} to look at, started {age(status.started_at, now)} ago."
        return Verdict(Level.QUIET, "Just started: nothing has been swept yet", line, "starting")
    headline = f"Nothing leaks on {len(endpoints) - len(waiting)} of {len(endpoints)} endpoints"
    return Verdict(Level.QUIET, headline, f"Not swept yet: {_names(waiting)}.", "starting")


def _reapable(endpoints: Sequence[EndpointStatus], now: datetime, would: str = "") -> str:
    """How many are reapable and since when; empty when none is. ``would`` says it in other words."""
    count = sum(endpoint.reapable for endpoint in endpoints)
    if not count:
        return ""
    text = f"{counted(count, 'resource')} {would or f'{is_or_are(count)} reapable'}"
    oldest = min((endpoint.oldest for endpoint in endpoints if endpoint.oldest is not None), default=None)
    if oldest is None or would:
        return text
    return f"{text}{'' if count == 1 else ', the oldest'} for {age(oldest, now)}"


def _looked(endpoints: Sequence[EndpointStatus], now: datetime) -> str:
    times = [endpoint.listed_at for endpoint in endpoints if endpoint.listed_at is not None]
    held = counted(sum(endpoint.held for endpoint in endpoints), "resource")
    on = f"{held} on {counted(len(endpoints), 'endpoint')}"
    if not times:
        return f"{on}."
    if len(times) == 1:
        return f"{on}, last listed {age(times[0], now)} ago."
    return f"{on}, each listed within the last {age(min(times), now)}."


def _names(endpoints: Sequence[EndpointStatus]) -> str:
    names = [endpoint.name for endpoint in endpoints]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
