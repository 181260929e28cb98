"""From settings and arguments to what one run does: endpoints, rules, limits, options."""

import os
from argparse import Namespace
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from reaper.config import load as config
from reaper.config.quotas import quotas
from reaper.config.secrets import with_secret
from reaper.config.settings import EvidenceTable, JournalTable, LimitsTable, Settings, one_off
from reaper.core import durations
from reaper.core.conditions import WITH_PROJECT, Policy
from reaper.core.disk import Thresholds
from reaper.core.model import Kind
from reaper.core.quota import Quota
from reaper.core.rules import AGGRESSIVE_AGE, Rules
from reaper.core.savings import NO_PRICES, Prices
from reaper.core.scope import Selector
from reaper.errors import ConfigError
from reaper.providers import registry
from reaper.providers.fields import check_label, check_narrowing, did_you_mean
from reaper.providers.registration import EndpointSpec
from reaper.retry.retrier import RetryPolicy
from reaper.sweep.sweep import Options

DEFAULT_TIMEOUT = timedelta(minutes=10)
DEFAULT_WAIT = timedelta(minutes=20)  # for all, with --wait: a grace is ten minutes long
_REAPABLE = frozenset({Kind.CONTAINER, Kind.SANDBOX})


@dataclass(frozen=True, slots=True)
class Plan:
    """What one run does.

    Args:
        endpoints: what is swept, each with its secret.
        state: the state directory.
        journal: how the record of deletions is kept there.
        evidence: what is saved there of what is deleted.
        one_off: whether options took the place of the configured policies.
        everything: whether ``--all`` was given.
        wait: whether to sweep again for what time alone keeps, within the timeout.
        only: the selection of endpoints as it was given.
        narrow: --label, --name and --image as they were given.
        config: the file that was given with ``--config``.
        metrics_textfile: where the metrics of the sweep are to be written.
        disk: when an endpoint's disk is too full.
        quotas: how much may be there at once.
        prices: what turns the time that deletions avoid into money.
    """

    endpoints: tuple[EndpointSpec, ...]
    rules: Rules
    options: Options
    retry: RetryPolicy
    state: Path
    journal: JournalTable
    evidence: EvidenceTable = field(default_factory=EvidenceTable)
    timeout: timedelta = DEFAULT_TIMEOUT
    one_off: bool = False
    everything: bool = False
    wait: bool = False
    only: tuple[str, ...] = ()
    narrow: tuple[str, ...] = ()
    config: str | None = None
    metrics_textfile: Path | None = None
    disk: Thresholds = field(default_factory=Thresholds)
    quotas: tuple[Quota, ...] = ()
    prices: Prices = NO_PRICES


def make_plan(arguments: Namespace, settings: Settings, env: Mapping[str, str]) -> Plan:
    """What ``arguments`` ask for. Raises ConfigError for what cannot be meant."""
    rules, replaced = _rules(arguments, settings)
    if arguments.policy:
        rules = replace(rules, without_policy=None)
    limits = _limits(arguments.max_deletions, settings.effective_limits())
    command = arguments.command or "once"
    limited = quotas(settings.quota, settings.policy)
    narrowed = replaced or arguments.policy or narrowing(arguments) != Selector()
    options = Options(
        act=command == "once" and not arguments.dry_run,
        due=_due(arguments.policy, rules, one_off_given=replaced),
        fail_fast=arguments.fail_fast,
        inspect_everything=command in ("list", "explain"),
        list_unjudged=command == "check" and bool(arguments.all),
        kinds=_kinds(getattr(arguments, "kind", None)),
        quotas=() if narrowed else limited,  # they take more than what was asked for
        safety_net=command == "once" and not narrowed,
        max_deletions=limits.max_deletions if command == "once" else None,
        max_fraction=limits.max_fraction if command == "once" else None,
        max_lease_deletions=limits.max_lease_deletions if command == "once" else None,
    )
    wait = command == "once" and bool(getattr(arguments, "wait", False))
    if wait and arguments.dry_run:
        raise ConfigError("it waits until more can be deleted, and --dry-run deletes nothing", "leave one out", "--wait")
    usual = DEFAULT_WAIT if wait else DEFAULT_TIMEOUT
    timeout = usual if arguments.timeout is None else _duration("--timeout", arguments.timeout)
    if not timeout:
        raise ConfigError("must be greater than 0", 'write for example "10m"', "--timeout")
    return Plan(
        endpoints=_endpoints(arguments.only, settings, env),
        rules=rules,
        options=options,
        retry=RetryPolicy(**dict(settings.retry)),
        state=config.state_directory(env).absolute(),
        journal=settings.journal,
        evidence=settings.evidence,
        timeout=timeout,
        one_off=replaced,
        everything=arguments.all,
        wait=wait,
        only=tuple(arguments.only or ()),
        narrow=tuple(
            word
            for key in ("label", "name", "image")
            for value in getattr(arguments, key) or ()
            for word in (f"--{key}", value)
        ),
        config=arguments.config,
        metrics_textfile=_textfile(arguments.metrics_textfile),
        disk=settings.disk.thresholds,
        quotas=limited,
        prices=settings.prices.prices(),
    )


def _kinds(names: list[str] | None) -> frozenset[Kind]:
    known = [kind.value for kind in Kind if kind is not Kind.POD]
    for name in names or ():
        if name not in known:
            raise ConfigError(f"{name!r} is no kind", did_you_mean(name, known), "--kind")
    return frozenset(map(Kind, names or ()))


def _duration(option: str, text: str) -> timedelta:
    try:
        return durations.parse(text)
    except ValueError as error:
        raise ConfigError(str(error), where=option) from None


def _textfile(text: str | None) -> Path | None:
    """Where the metrics go. That this cannot work is better known before anything has been deleted."""
    if text is None:
        return None
    option, path = "--metrics-textfile", Path(text)
    if path.suffix != ".prom":
        raise ConfigError(
            f"node_exporter would not read {text!r}", 'write for example "/var/lib/node_exporter/reaper.prom"', option
        )
    if path.is_dir():
        raise ConfigError(f"{text!r} is a folder", "name a file in it", option)
    if not path.parent.is_dir():
        raise ConfigError(f"{text!r} cannot be written: there is no folder {str(path.parent)!r}", "make it first", option)
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{text!r} cannot be written: no permission on {str(path.parent)!r}", "name another folder", option
        )
    return path


def narrowing(arguments: Namespace) -> Selector:
    """What the command is narrowed to. Raises ConfigError."""
    try:
        return Selector(
            tuple(check_label(label) for label in arguments.label or ()),
            tuple(check_narrowing(name) for name in arguments.name or ()),
            tuple(check_narrowing(image) for image in arguments.image or ()),
        )
    except ValueError as error:
        raise ConfigError(str(error), where="--label, --name or --image") from None


def _rules(arguments: Namespace, settings: Settings) -> tuple[Rules, bool]:
    """The rules, and whether one-off policies took the place of the configured ones."""
    rules, narrow = settings.rules(), narrowing(arguments)
    policies: list[Policy] = []
    along = _with_projects(rules)
    if arguments.stopped:
        policies.append(Policy("--stopped", _REAPABLE, stopped_for=timedelta(0), with_project=along))
    if arguments.older_than is not None:
        age = _duration("--older-than", arguments.older_than)
        if not age:
            raise ConfigError(
                "it must be greater than 0, since everything is older than that",
                'write for example "24h"; --all takes everything owned, whatever its age',
                "--older-than",
            )
        policies.append(Policy("--older-than", _REAPABLE, older_than=age, with_project=along))
    if arguments.all:
        if policies:
            raise ConfigError("--all already takes in what --stopped and --older-than would", "leave them or --all out")
        policies.append(Policy("--all", _REAPABLE, every_resource=True, with_project=along))
    if policies and arguments.aggressive:
        raise ConfigError("--aggressive sharpens the configured policies, which one-off options replace", "leave one out")
    if policies:
        return one_off(rules, policies, narrow), True
    if arguments.aggressive:
        rules = replace(rules, policies=tuple(_sharpen(policy) for policy in rules.policies))
    return one_off(rules, rules.policies, narrow), False


def _with_projects(rules: Rules) -> frozenset[Kind]:
    """What every configured policy for containers takes along with a project: so do one-off policies."""
    each = [policy.with_project for policy in rules.policies if Kind.CONTAINER in policy.kinds]
    return frozenset.intersection(*each) if each else WITH_PROJECT


def _sharpen(policy: Policy) -> Policy:
    """A policy as ``--aggressive`` reads it. The cap on ages stays above the longest trial.

    That says nothing of volumes, images and networks: what holds data or was built is kept for as long as it is configured.
    """
    if any(not kind.runs for kind in policy.kinds):
        return policy
    return replace(
        policy,
        stopped_for=policy.stopped_for and timedelta(0),
        older_than=policy.older_than and min(policy.older_than, AGGRESSIVE_AGE),
    )


def _due(names: list[str] | None, rules: Rules, *, one_off_given: bool) -> frozenset[str] | None:
    if not names:
        return None
    if one_off_given:
        raise ConfigError("--policy picks configured policies, which one-off options replace", "leave one out")
    known = [policy.name for policy in rules.policies]
    for name in names:
        if name not in known:
            raise ConfigError(f"no policy is called {name!r}", did_you_mean(name, known), "--policy")
    return frozenset(names)


def _limits(text: str | None, limits: LimitsTable) -> LimitsTable:
    """The limits in force: the option replaces both of the policies' ones, so that it means what it says."""
    if text is None:
        return limits
    if text == "none":
        return limits.model_copy(update={"max_deletions": None, "max_fraction": None})
    number = text.removesuffix("%")
    if number.isascii() and number.isdigit() and (number == text or 0 < int(number) <= 100):
        if number == text:
            return limits.model_copy(update={"max_deletions": int(text), "max_fraction": None})
        return limits.model_copy(update={"max_deletions": None, "max_fraction": int(number) / 100})
    raise ConfigError(f"{text!r} is no limit", 'write a number, a percentage from 1% to 100%, or "none"', "--max-deletions")


def _endpoints(only: Collection[str] | None, settings: Settings, env: Mapping[str, str]) -> tuple[EndpointSpec, ...]:
    """The selected endpoints with their secrets."""
    providers = {provider.name for provider in settings.providers()}
    # The engine of a context that cannot be reached is no reason to leave the endpoints of other providers alone.
    endpoints = config.endpoints(settings, env, only if only and {*only} <= providers else None)
    if only:
        known = providers | {endpoint.name for endpoint in endpoints} | settings.groups.keys()
        for name in only:
            if name not in known:
                raise ConfigError(f"no endpoint is called {name!r}", did_you_mean(name, known), "--only")
            if name in providers and not any(endpoint.provider == name for endpoint in endpoints):
                raise _none_of(name, settings, env)
        wanted = {member for name in only for member in settings.groups.get(name, (name,))}
        endpoints = tuple(endpoint for endpoint in endpoints if {endpoint.provider, endpoint.name} & wanted)
    return checked(endpoints, env)


def _none_of(provider: str, settings: Settings, env: Mapping[str, str]) -> ConfigError:
    """Why there is no endpoint of this provider. Raises it where the environment does not name the default one."""
    registration = registry.get(provider)
    if not settings.endpoints() and registration.default_name is not None:
        with_secret(EndpointSpec(registration, registration.table(name=registration.default_name)), env)
    return ConfigError(f"the configuration has no [[{provider}]]", "add one", "--only")


def checked(endpoints: Collection[EndpointSpec], env: Mapping[str, str]) -> tuple[EndpointSpec, ...]:
    """The endpoints with their secrets. Raises ConfigError for files and secrets that cannot be used.

    That is found before anything is asked of any of them.
    """
    for endpoint in endpoints:
        endpoint.registration.check(endpoint.table)
    return tuple(with_secret(endpoint, env) for endpoint in endpoints)
