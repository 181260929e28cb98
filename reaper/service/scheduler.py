"""The schedule of each policy. A job only posts the policy's name: the reader of the stream does the work.

APScheduler runs its jobs outside of any task group: cancelling a scope leaves them running, and its ``shutdown`` cancels
them in place of waiting. So none of them does more than post.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from reaper.config.policies import DEFAULT_EVERY, PolicyTable
from reaper.config.service_tables import DEFAULT_CATCH_UP
from reaper.core.durations import spell

HEARTBEAT = timedelta(seconds=5)
YEAR, SECOND = timedelta(days=366), timedelta(seconds=1)
_HEART = "heartbeat of the scheduler"  # no policy's name has a space


@dataclass(frozen=True, slots=True)
class Timing:
    """When one policy is due: ``every`` so often, or as ``cron`` says in a zone. A policy with neither: every 10 minutes.

    What runs only under disk pressure is looked at so often: that something was used has to be seen.
    """

    every: timedelta | None
    cron: str | None
    timezone: str
    under_pressure: bool = False
    only_under_pressure: bool = False

    @classmethod
    def of(cls, policy: PolicyTable) -> "Timing":
        """What the configuration says."""
        if policy.cron is not None:
            return cls(None, policy.cron, policy.timezone or "UTC", policy.under_pressure)
        return cls(policy.every or DEFAULT_EVERY, None, "UTC", policy.under_pressure, policy.only_under_pressure)

    def __str__(self) -> str:
        if self.only_under_pressure:
            return "under disk pressure"
        said = f"every {spell(self.every)}" if self.every is not None else f"cron {self.cron} ({self.timezone})"
        return f"{said} and under disk pressure" if self.under_pressure else said

    def trigger(self, jitter: timedelta) -> BaseTrigger:
        """APScheduler's form of it; ``jitter`` is at most a tenth of an interval."""
        if self.every is not None:
            late = min(jitter, self.every / 10).total_seconds()
            return IntervalTrigger(seconds=self.every.total_seconds(), jitter=late or None, timezone=UTC)
        trigger = CronTrigger.from_crontab(self.cron, timezone=ZoneInfo(self.timezone))
        trigger.jitter = jitter.total_seconds() or None
        return trigger

    def interval(self, now: datetime) -> timedelta | None:
        """The longest time between two runs; with ``cron``, of those of the year after ``now``. None: it runs by none."""
        if self.only_under_pressure:
            return None
        return self.every if self.every is not None else _longest_gap(self.trigger(timedelta(0)), now)

    def last_time(self, now: datetime, within: timedelta) -> datetime | None:
        """The last time before ``now`` that ``cron`` names, when it is no longer ago than ``within``; else None."""
        if self.cron is None:
            return None
        cron = self.trigger(timedelta(0))
        last, following = None, cron.get_next_fire_time(None, now - within)
        while following is not None and following < now:
            last, following = following, cron.get_next_fire_time(None, following + SECOND)
        return last and last.astimezone(UTC)


def _longest_gap(cron: BaseTrigger, now: datetime) -> timedelta | None:
    """The longest time between two runs that follow each other. ``* * * * *`` has half a million of them a year.

    So only the first day that has runs is walked through: all days that have some have them at the same times.
    """

    def after(moment: datetime) -> datetime | None:
        run: datetime | None = cron.get_next_fire_time(None, moment)
        return run

    def day_after(run: datetime) -> datetime:
        return datetime.combine(run.date() + timedelta(days=1), time(), run.tzinfo)

    def between(earlier: datetime, later: datetime) -> timedelta:
        return later.astimezone(UTC) - earlier.astimezone(UTC)  # in one zone Python would compare what the clocks show

    first = run = after(day_after(now.astimezone(cron.timezone)))
    if first is None or run is None:
        return None  # the 30th of February
    longest = timedelta(0)
    while (following := after(run + SECOND)) is not None and following.date() == first.date():
        longest, run = max(longest, between(run, following)), following
    end = first + YEAR
    while following is not None and (run < end or not longest):
        longest = max(longest, between(run, following))
        # The last run of a day is at the time of the first one's last.
        run, following = datetime.combine(following.date(), run.timetz()), after(day_after(following))
    return longest


class Schedule:
    """Posts the names of the policies when they are due, and beats as long as it lives.

    A run that was missed, while the machine slept or the process was stopped, is made up for once, however many were
    missed; one at a time that ``cron`` names no later than ``catch_up``.

    Args:
        post: is given the name of a policy that is due.
        beat: is called every five seconds.
        jitter: each run is late by a random part of this.
        catch_up: how late a run may be that ``cron`` has planned.
    """

    def __init__(
        self,
        post: Callable[[str], None],
        beat: Callable[[], None],
        jitter: timedelta,
        catch_up: timedelta = DEFAULT_CATCH_UP,
    ) -> None:
        self._post = post
        self._beat = beat
        self._jitter = jitter
        self._catch_up = catch_up
        self._timings: dict[str, Timing] = {}
        self._scheduler: Any = None

    def start(self, policies: Iterable[PolicyTable]) -> None:
        """Begin; must be called on the event loop."""
        self._scheduler = AsyncIOScheduler(
            timezone=UTC, job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        )
        every = IntervalTrigger(seconds=HEARTBEAT.total_seconds(), timezone=UTC)
        self._scheduler.add_job(self._fire, every, args=[_HEART], id=_HEART)
        self._timings = {}
        self.apply(policies, self._jitter, self._catch_up)
        self._scheduler.start()

    def apply(self, policies: Iterable[PolicyTable], jitter: timedelta, catch_up: timedelta = DEFAULT_CATCH_UP) -> None:
        """These are the policies from now on. One whose timing is the same keeps its next run."""
        if self._scheduler is None:  # it has not begun yet, or has been stopped for good
            self._jitter, self._catch_up = jitter, catch_up
            return
        late = max(int(catch_up.total_seconds()), 1)
        timings = {policy.name: Timing.of(policy) for policy in policies}
        for name in self._timings.keys() - timings.keys():
            self._scheduler.remove_job(name)
        for name, timing in timings.items():
            if self._timings.get(name) != timing or (jitter, catch_up) != (self._jitter, self._catch_up):
                self._scheduler.add_job(
                    self._fire,
                    timing.trigger(jitter),
                    args=[name],
                    id=name,
                    replace_existing=True,
                    misfire_grace_time=None if timing.cron is None else late,
                )
        self._timings, self._jitter, self._catch_up = timings, jitter, catch_up

    def restart(self, policies: Iterable[PolicyTable]) -> None:
        """Begin anew: the wall clock, by which all runs are planned, has been set to another time."""
        self.stop()
        self.start(policies)

    def next_at(self, name: str) -> datetime | None:
        """When the policy is due next."""
        job = self._scheduler.get_job(name) if self._scheduler is not None else None
        due: datetime | None = getattr(job, "next_run_time", None)
        return due and due.astimezone(UTC)

    def stop(self) -> None:
        """Post nothing more."""
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=False)
            self._scheduler = None

    async def _fire(self, name: str) -> None:
        # A coroutine, because APScheduler would run a plain function in a thread.
        if name == _HEART:
            self._beat()
        else:
            self._post(name)
