"""``reaper config check``: what the configuration means, in words, and what in it cannot mean what it says."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta

from reaper.config.load import Config, unknown_variables
from reaper.config.policies import PolicyTable
from reaper.core import sizes
from reaper.core.conditions import Policy
from reaper.core.durations import human
from reaper.core.identity import RUNNER_FILES
from reaper.core.model import Kind
from reaper.core.owner_process import OwnerRule
from reaper.core.presets import PRESETS, Preset
from reaper.core.scope import Selector
from reaper.providers.fields import masked
from reaper.providers.registration import EndpointSpec

_STOPPED = frozenset({"stopped", "failed"})


def described(loaded: Config, endpoints: Sequence[EndpointSpec], env: Mapping[str, str]) -> list[str]:
    """The lines of the command. Each warning is one that leaves the configuration valid."""
    settings = loaded.settings
    rules, limits = settings.rules(), settings.effective_limits()
    scope, protect = rules.scope, rules.protect
    lines = [f"{loaded.file or 'no file, the built-in defaults'}: OK ({len(settings.policy)} policies)"]
    lines += [f"endpoint: {e.name}, {e.registration.title} at {masked(e.address)}" for e in endpoints]
    owned = [_preset(PRESETS[name]) for name in scope.presets] + _selected(scope.selector)
    if scope.everything:
        owned.append("everything that the endpoints hold")
    lines += [f"owned: {entry}" for entry in owned] or ["owned: nothing but what leases cover"]
    kept = _selected(protect.selector)
    if protect.restart_policies:
        kept.append(f"restart policy {' or '.join(protect.restart_policies)}, unless a preset owns it")
    lines += [f"protected: {entry}" for entry in dict.fromkeys((*kept, "label reaper.keep"))]
    lines += [f"owner: {_owner(rule)}" for rule in rules.owner_rules]
    lines += [f"policy: {_policy(table)}" for table in settings.policy]
    most = "any number" if limits.max_deletions is None else f"{limits.max_deletions}"
    share = "" if limits.max_fraction is None else f", and no more than {limits.max_fraction:.0%} of what it holds"
    lines.append(f"limit: {most} deletions for each endpoint and sweep{share}")
    kinds = {endpoint.name: endpoint.registration.kinds for endpoint in endpoints}
    return [*lines, *(f"warning: {text}" for text in _warnings(loaded, rules.policies, kinds, env))]


def _preset(preset: Preset) -> str:
    files = [f"config file *{ending} (with its whole project)" for ending in RUNNER_FILES.get(preset.runner or "", ())]
    images = [f"image {glob} (with its whole project)" for glob in preset.images]
    signs = [*(f"label {label}" for label in preset.labels), *(f"name {glob}" for glob, _ in preset.names), *images, *files]
    signs += [f"project {preset.members[0]}"] if preset.members is not None else []
    return f"preset {preset.name}: {', or '.join(signs)}"


def _selected(selector: Selector) -> list[str]:
    words = ("label", selector.labels), ("name", selector.names), ("image", selector.images)
    return [f"{word} {entry}" for word, entries in words for entry in entries]


def _owner(rule: OwnerRule) -> str:
    what = [f"the process in label {rule.pid_label}"] if rule.pid_label else []
    if rule.processes:
        of = " or ".join(sorted(rule.presets)) or "any preset"
        what.append(f"for what {of} owns a process like {' or '.join(rule.processes)}")
    where = f", on {' or '.join(sorted(rule.endpoints))}" if rule.endpoints else ""
    return f"{rule.name}: {', and '.join(what)}{where}"


def _policy(table: PolicyTable) -> str:
    conditions = [
        f"{word} {human(value)}"
        for word, value in (
            ("older than", table.older_than),
            ("stopped for", table.stopped_for),
            ("idle for", table.idle_for),
            ("unused for", table.unused_for),
            ("orphaned for", table.orphaned_for),
        )
        if value is not None
    ]
    conditions += [f"larger than {sizes.human(table.larger_than)}"] if table.larger_than is not None else []
    conditions += [word for word in ("untagged", "anonymous", "oneoff") if getattr(table, word)]
    conditions += [f"in state {' or '.join(table.states)}"] if table.states else []
    narrow = _selected(Selector(table.labels, table.names, table.images))
    narrow += [f"on {' or '.join(table.endpoints)}"] if table.endpoints else []
    if table.with_project != ("network",) and Kind.CONTAINER in table.kinds:
        narrow.append(
            f"with the {' and '.join(f'{kind}s' for kind in table.with_project) or 'containers alone'} of a project"
        )
    if table.under_pressure:
        narrow.append("only while the disk is too full" if table.only_under_pressure else "also when the disk is too full")
    what = " and ".join(kind.plural for kind in table.kinds)
    return f"{table.name}: {what} {' and '.join(conditions)}{''.join(f', {entry}' for entry in narrow)}"


def _warnings(
    loaded: Config, policies: Sequence[Policy], kinds: Mapping[str, Collection[Kind]], env: Mapping[str, str]
) -> Iterator[str]:
    for name in unknown_variables(loaded.settings, env):
        yield f"the variable {name} is no setting: it has no effect"
    if (entry := loaded.settings.rules().scope.catch_all) is not None:
        yield f"[scope] {entry} takes nearly everything that an endpoint holds"
    if loaded.settings.owner and not any(policy.orphaned_for for policy in policies):
        yield "[[owner]] has no effect: no policy has orphaned_for"
    for policy in policies:
        if why := _never(policy, kinds):
            yield f"policy {policy.name} never matches: {why}"
        elif wider := next((other for other in policies if other is not policy and is_wider(other, policy)), None):
            yield (
                f"policy {policy.name} has no effect of its own: policies are ORed, and {wider.name} matches all that it"
                " matches, and no later"
            )


def _never(policy: Policy, kinds: Mapping[str, Collection[Kind]]) -> str | None:
    """Why the policy can match nothing, if so."""
    if policy.endpoints and policy.kinds.isdisjoint(kind for name in policy.endpoints for kind in kinds.get(name, ())):
        return f"{', '.join(sorted(policy.endpoints))} has no {' or '.join(sorted(policy.kinds))}"
    if policy.stopped_for is not None and policy.states and policy.states <= {"running", "started", "changing", "unknown"}:
        return f"what is {' or '.join(sorted(policy.states))} has not stopped"
    return None


def is_wider(wide: Policy, narrow: Policy) -> bool:
    """Whether ``wide`` surely matches whatever ``narrow`` matches."""
    if not narrow.kinds <= wide.kinds or not set(wide.selectors) <= set(narrow.selectors) or _asks_for_more(wide, narrow):
        return False
    if wide.endpoints and not (narrow.endpoints and narrow.endpoints <= wide.endpoints):
        return False
    states = narrow.states or (_STOPPED if narrow.stopped_for is not None else frozenset())
    if wide.states and not (states and states <= wide.states):
        return False
    # What has stopped or been idle for some time is at least as old.
    ages = [value for value in (narrow.older_than, narrow.stopped_for, narrow.idle_for) if value is not None]
    return (
        _is_met(wide.older_than, max(ages, default=None))
        and _is_met(wide.stopped_for, narrow.stopped_for)
        and _is_met(wide.idle_for, narrow.idle_for)
        and _is_met(wide.unused_for, narrow.unused_for)
        and _is_met(wide.orphaned_for, narrow.orphaned_for)
    )


def _asks_for_more(wide: Policy, narrow: Policy) -> bool:
    """Whether ``wide`` has a condition besides times and states that ``narrow`` does not have, takes less, or runs later."""
    if any(getattr(wide, only) and not getattr(narrow, only) for only in ("untagged", "anonymous")):
        return True
    if wide.asleep > narrow.asleep or narrow.under_pressure > wide.under_pressure:
        return True
    if narrow.oneoff != wide.oneoff or not narrow.with_project <= wide.with_project:
        return True
    return wide.larger_than is not None and (narrow.larger_than is None or narrow.larger_than < wide.larger_than)


def _is_met(wanted: timedelta | None, given: timedelta | None) -> bool:
    return wanted is None or (given is not None and given >= wanted)
