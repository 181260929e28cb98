"""From when the age of a resource counts, which times cannot be, and what is in transition for too long. Pure."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from reaper.core.durations import shifted
from reaper.core.model import Kind, Resource, State
from reaper.core.site import Site

FIRST = datetime(2013, 1, 1, tzinfo=UTC)  # Docker is of March 2013
SAME_RUN = timedelta(seconds=10)
"""By so much the end of a very short run may seem to be before its start. What is earlier was the end of another run: Podman
does not know when this one ended where the host was started again meanwhile."""
STUCK = timedelta(hours=1)  # no transition of a sandbox takes longer
FUTURE = timedelta(days=1)  # clocks that differ by less are reported, and corrected up to an hour


def impossible_time(resource: Resource, now: datetime) -> str | None:
    """Which of its times cannot be, and why, or None: the clock of its host was wrong, so that its age is unknown.

    An image may be dated 1970: builds that are to be reproducible are.
    """
    times = (
        ("created", resource.created_at),
        ("started", resource.started_at),
        ("stopped", resource.stopped_at),
        ("last active", resource.last_activity_at),
    )
    for word, time in times:
        if time is None or FIRST <= time <= now:
            continue
        if time < FIRST and resource.kind is not Kind.IMAGE:
            return f"it was {word} at {time:%Y-%m-%dT%H:%M:%SZ}, before there was such a thing: a clock was wrong"
        if time - now > FUTURE:
            return f"it was {word} at {time:%Y-%m-%dT%H:%M:%SZ}, which is to come: a clock was wrong"
    return None


def age_base(resource: Resource) -> datetime | None:
    """From when ``older_than`` counts: the latest of creation and last start, creation while it is restarting.

    An image is dated when it was built, wherever that was. What counts is when it was last built, pulled or tagged here, or
    where that is unknown since when it has been seen here. Docker's own store dates no image that is pulled or loaded again,
    or comes back: only the events tell.
    """
    if resource.kind is Kind.IMAGE and resource.created_at is not None and resource.inspected:
        here = resource.tagged_at or resource.watched_since
        return here and max(here, resource.created_at, resource.arrived_at or here)
    if resource.created_at is None or resource.started_at is None or resource.raw_state == "restarting":
        return resource.created_at
    return max(resource.created_at, resource.started_at)


def stop_base(resource: Resource) -> datetime | None:
    """From when ``stopped_for`` counts, or None when it is not stopped or since when is unknown."""
    if resource.state is State.CHANGING and not resource.inspected:
        return resource.created_at
    if resource.state not in (State.STOPPED, State.FAILED):
        return None
    if resource.never_started or (resource.stopped_at is None and not resource.inspected):
        return resource.created_at
    started = resource.started_at or resource.stopped_at
    if resource.stopped_at is None or started is None or started - resource.stopped_at > SAME_RUN:
        return None
    return max(resource.stopped_at, started)


def as_aged(resource: Resource, site: Site) -> Resource:
    """The resource with its times so much later as nothing has gone on since: what slept with its host is no older for it.

    A laptop is closed for a night, or a virtual machine goes on from a snapshot and then learns what time it is: the trial
    that runs there has not become a day older.
    """
    if not site.jumps:
        return resource

    def later(moment: datetime | None) -> datetime | None:
        return moment and shifted(moment, site.jumped_since(moment))

    return replace(
        resource,
        created_at=later(resource.created_at),
        started_at=later(resource.started_at),
        stopped_at=later(resource.stopped_at),
        last_activity_at=later(resource.last_activity_at),
        tagged_at=later(resource.tagged_at),
        arrived_at=later(resource.arrived_at),
        last_used_at=later(resource.last_used_at),
        watched_since=later(resource.watched_since),
    )


def state_base(resource: Resource) -> datetime:
    """Since when it has been in its state, at the earliest: an accepted deletion is an update and no activity."""
    times = (resource.created_at, resource.last_activity_at, resource.updated_at)
    return max(time for time in times if time is not None)  # what has none is unreadable


def is_stuck(resource: Resource, now: datetime) -> bool:
    """Whether what is in transition has been so for longer than any transition takes. ``now`` is on its endpoint's clock."""
    return resource.kind is Kind.SANDBOX and now - state_base(resource) > STUCK


def is_leaving(resource: Resource) -> bool:
    """Whether its removal is under way: what it takes comes back without more being removed."""
    raw = resource.raw_state
    return resource.state is State.CHANGING and (raw.startswith(("remov", "destroy")) or raw.endswith("to be destroyed"))


def hangs_in_deletion(resource: Resource, now: datetime) -> bool:
    """Whether a sandbox is being deleted for longer than that takes: its host is dead, and it is not used again.

    It is no member of its session any more, which it would keep for good.
    """
    return is_leaving(resource) and resource.unreadable is None and is_stuck(resource, now)
