"""One loaded configuration of the service, with what was made of it."""

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, replace

from reaper.config import load as config
from reaper.config.load import Config
from reaper.service.endpoint_worker import InForce
from reaper.sweep.plan import Plan, make_plan


@dataclass(frozen=True, slots=True)
class Loaded:
    """The configuration in force, and what follows from it."""

    config: Config
    plan: Plan

    @classmethod
    def load(cls, arguments: Namespace, env: Mapping[str, str]) -> "Loaded":
        """Read and check everything. Raises ConfigError."""
        found = config.load(arguments.config, env)
        return cls(found, make_plan(arguments, found.settings, env))

    def in_force(self) -> InForce:
        """What a worker needs."""
        service = self.config.settings.service
        return InForce(
            self.plan.rules,
            self.plan.options,
            service.sweep_timeout,
            follow=service.docker_events,
            at_times=frozenset(policy.name for policy in self.config.settings.policy if policy.cron is not None),
            catch_up=service.catch_up,
        )

    def endpoints(self) -> dict[str, object]:
        """By name what makes an endpoint the same one: when it changes, its client is made anew."""
        plan = self.plan
        follow = self.config.settings.service.docker_events
        return {spec.name: (spec, plan.retry, follow and spec.registration.has_events) for spec in plan.endpoints}

    def plan_of(self, name: str) -> Plan:
        """The plan with this endpoint alone."""
        return replace(self.plan, endpoints=tuple(spec for spec in self.plan.endpoints if spec.name == name))
