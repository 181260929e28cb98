"""When a policy of the service runs next, in words."""

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from reaper.config.policies import DEFAULT_EVERY, PolicyTable, read_zone
from reaper.core.durations import human
from reaper.core.narrowing import Window

_SECOND, _DAY = timedelta(seconds=1), timedelta(days=1)
_MOST = 20_000  # times of a cron expression that are tried: more than two weeks of each minute, fifty years of each day
NEVER = "never"


def schedule(table: PolicyTable, now: datetime, *, at_start: bool) -> str | None:
    """How often it runs, and when next; None for one that runs only while the disk is too full.

    Args:
        table: the policy.
        now: aware UTC.
        at_start: whether the service sweeps when it starts.
    """
    if table.only_under_pressure:
        return None
    window = table.opening()
    if table.cron is not None:
        zone = read_zone(table.timezone or "UTC")
        found = next_of_cron(table.cron, zone, window, now)
        return f"at cron {table.cron} ({table.timezone or 'UTC'}), next {_shown(found, zone) if found else NEVER}"
    every = table.every or DEFAULT_EVERY
    if window is not None:
        often = f"every {human(every)} {window}"
        if window.is_open(now):
            return f"{often}, which is now"
        return f"{often}, next {_shown(opens_at(window, now), window.zone)}"
    first = "when the service starts" if at_start else f"{human(every)} after the service starts"
    return f"every {human(every)}, first {first}"


def next_of_cron(cron: str, zone: tzinfo, window: Window | None, now: datetime) -> datetime | None:
    """The next time of a cron expression at which the window is open; None when there is none."""
    from apscheduler.triggers.cron import CronTrigger  # noqa: PLC0415 - 30 ms that most commands do not need

    trigger: Any = CronTrigger.from_crontab(cron, timezone=zone)
    found: datetime | None = trigger.get_next_fire_time(None, now)
    for _ in range(_MOST):
        if found is None or window is None or window.is_open(found):
            return found
        found = trigger.get_next_fire_time(None, found + _SECOND)
    return None


def opens_at(window: Window, now: datetime) -> datetime:
    """When the window opens next. Where clocks skip its beginning, so does it."""
    day = now.astimezone(window.zone).date()
    for _ in range(3):
        found = datetime.combine(day, window.begin, window.zone).astimezone(UTC)
        if found > now and window.is_open(found):
            return found
        day += _DAY
    return found


def _shown(moment: datetime, zone: tzinfo) -> str:
    at = moment.astimezone(zone)
    return f"{at:%Y-%m-%d %H:%M} {'UTC' if zone is UTC else f'{at:%z}'}".replace("+0000", "UTC")
