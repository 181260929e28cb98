"""The configuration in force, and what follows from it. A reload changes it: what it says is read anew for each sweep."""

from argparse import Namespace
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import anyio

from reaper.config import load as config
from reaper.config.check import takes
from reaper.config.settings import Settings
from reaper.errors import ConfigError
from reaper.paths import is_there
from reaper.sweep.plan import Plan, make_plan

LOOK_EVERY = 5.0  # seconds between two looks whether a file of hosts has changed


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, the file that they come from, if any, the plan that was made of them, and where all of that was read."""

    settings: Settings
    plan: Plan
    file: Path | None = None
    read: config.Config | None = None

    @classmethod
    def load(cls, arguments: Namespace, env: Mapping[str, str], before: config.Config | None = None) -> "Loaded":
        """Read and check everything, or the files of hosts alone, with all else as it was ``before``. Raises ConfigError."""
        found = config.load(arguments.config, env) if before is None else config.with_hosts_of_now(before, env)
        plan = make_plan(arguments, found.settings, env)
        options = replace(plan.options, act=not found.settings.service.dry_run, watches=True)
        return cls(found.settings, replace(plan, options=options), found.file, found)

    def check_successor_of(self, before: "Loaded") -> None:
        """Raise ConfigError where the file in force was found by its place and is gone: what it protects is not in this one.

        A file is away for a moment while it is edited or replaced.
        """
        gone = before.file
        if gone is not None and gone != self.file and not is_there(str(gone)):
            instead = self.file or "the defaults"
            raise ConfigError(
                "it is in force, and no longer there",
                f"put it back, or restart the service to run with {instead}",
                str(gone),
            )

    @property
    def follows_events(self) -> bool:
        """Whether to follow the events of endpoints that have some."""
        return self.settings.service.docker_events

    @property
    def at_times(self) -> frozenset[str]:
        """The policies that run at the times of a cron expression, and at no other time."""
        return frozenset(policy.name for policy in self.settings.policy if policy.cron is not None)

    @property
    def takes(self) -> dict[str, str]:
        """What each policy takes and under which conditions, for people, by its name."""
        return {policy.name: takes(policy) for policy in self.settings.policy}

    @property
    def asleep(self) -> frozenset[str]:
        """The policies that run only under disk pressure. What they would take is looked at on a schedule all the same."""
        return frozenset(policy.name for policy in self.plan.rules.policies if policy.asleep)

    def endpoints(self) -> dict[str, object]:
        """By name what makes an endpoint the same one: when it changes, its client is made anew."""
        plan = self.plan
        acts = plan.options.act
        return {s.name: (s, acts, plan.retry, self.follows_events and s.registration.has_events) for s in plan.endpoints}


async def watch_hosts(loaded: Callable[[], Loaded], changed: Callable[[], Awaitable[None]]) -> None:
    """Have the files of hosts read again when one has changed; an edit of the configuration itself waits for its signal.

    Args:
        loaded: returns what is in force.
        changed: reads them; it is called once for each change, whether that can be accepted or not.
    """
    seen: list[Hashable] = []
    while True:
        await anyio.sleep(LOOK_EVERY)
        if (read := loaded().read) is None or not read.hosts.sources:
            continue
        before, seen = seen, await anyio.to_thread.run_sync(read.hosts.look, abandon_on_cancel=True)
        if loaded().read is read and seen not in (before, read.hosts.stamps):
            await changed()
