"""``reaper config check``: what the configuration means, in words, and what in it cannot mean what it says."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial

from reaper.config import load, policy_warnings
from reaper.config.load import Config, unknown_variables
from reaper.config.next_run import NEVER, schedule
from reaper.config.policies import PolicyTable
from reaper.config.quotas import QuotaTable
from reaper.config.secrets import lease_token, ryuk_secret, with_secret
from reaper.config.settings import EvidenceTable
from reaper.core import sizes
from reaper.core.durations import human
from reaper.core.model import Kind
from reaper.core.owner_process import OwnerRule
from reaper.core.presets import Preset, in_force
from reaper.core.quota import COUNT, CPU, DISK, MEMORY
from reaper.core.scope import Selector
from reaper.errors import ConfigError
from reaper.providers.fields import masked
from reaper.providers.registration import EndpointSpec

_MEASURES = {COUNT: "at once", CPU: "CPUs", MEMORY: "of memory", DISK: "of disk"}


def offline(loaded: Config, env: Mapping[str, str]) -> tuple[list[EndpointSpec], list[str]]:
    """The endpoints without secrets and certificates, and what is missing here of these, each as a sentence."""
    settings, found, problems = loaded.settings, list[EndpointSpec](), list[str]()
    tables = settings.endpoints()
    try:
        found += [] if tables else load.endpoints(settings, env)
    except ConfigError as error:
        problems.append(str(error))
    for registration, table in tables:
        try:
            found.append(EndpointSpec(registration, registration.resolve(table, env)))
        except ConfigError as error:
            found.append(EndpointSpec(registration, table))
            problems.append(str(error))
    checks: list[Callable[[], object]] = [partial(e.registration.check, e.table) for e in found]
    checks += [partial(with_secret, e, env) for e in found]
    checks += [partial(lease_token, settings.leases, env), partial(ryuk_secret, settings.ryuk, env)]
    for check in checks:
        try:
            check()
        except ConfigError as error:
            problems.append(str(error))
    return found, [" ".join(problem.split()) for problem in problems]


def described(
    loaded: Config,
    endpoints: Sequence[EndpointSpec],
    env: Mapping[str, str],
    now: datetime,
    problems: Sequence[str] = (),
) -> list[str]:
    """The lines of the command. Each warning is one that leaves the configuration valid.

    Args:
        loaded: the configuration.
        endpoints: those that are swept.
        env: the environment.
        now: aware UTC.
        problems: what ``offline`` found missing.
    """
    settings = loaded.settings
    rules, limits = settings.rules(), settings.effective_limits()
    scope, protect, number = rules.scope, rules.protect, len(settings.policy)
    lines = [f"{loaded.file or 'no file, the built-in defaults'}: OK ({number} {'policy' if number == 1 else 'policies'})"]
    named_in = {name: f", named in {line}" for name, line in loaded.hosts.lines.items()}
    lines += [
        f"endpoint: {e.name}, {e.registration.title} at {masked(e.address)}{named_in.get(e.name, '')}" for e in endpoints
    ]
    owned = [_preset(preset) for preset in in_force(scope)] + _selected(scope.selector)
    if scope.everything:
        owned.append("everything that the endpoints hold")
    lines += [f"owned: {entry}" for entry in owned] or ["owned: nothing but what leases cover"]
    kept = _selected(protect.selector)
    if protect.restart_policies:
        kept.append(f"restart policy {' or '.join(protect.restart_policies)}, unless a preset owns it")
    lines += [f"protected: {entry}" for entry in dict.fromkeys((*kept, "label reaper.keep"))]
    lines += [f"owner: {_owner(rule)}" for rule in rules.owner_rules]
    schedules = {table.name: schedule(table, now, at_start=settings.service.sweep_at_start) for table in settings.policy}
    lines += [f"policy: {table.name}: {takes(table)}{_after(schedules[table.name])}" for table in settings.policy]
    lines += [f"quota: {_quota(table)}" for table in settings.quota]
    most = "any number" if limits.max_deletions is None else f"{limits.max_deletions}"
    share = "" if limits.max_fraction is None else f", and no more than {limits.max_fraction:.0%} of what it holds"
    lines.append(f"limit: {most} deletions for each endpoint and sweep{share}")
    lines += [f"evidence: {_evidence(settings.evidence)}"] if settings.evidence.wanted else []
    lines += ["dry run: the service deletes nothing; reaper --once, run and ryuk do"] if settings.service.dry_run else []
    kinds = {endpoint.name: endpoint.registration.kinds for endpoint in endpoints}
    named = [(table.name, table.window) for table in settings.policy if (schedules[table.name] or "").endswith(NEVER)]
    late = [f"policy {name} never runs: no time of its cron lies in its window" for name, window in named if window]
    late += [f"policy {name} never runs: its cron names no time that there is" for name, window in named if not window]
    found = [*problems, *_warnings(loaded, kinds, env), *late]
    return [*lines, *(f"warning: {text}" for text in found)]


def _after(text: str | None) -> str:
    return f"; {text}" if text else ""


def _evidence(table: EvidenceTable) -> str:
    parts = [f"the last {table.logs} log lines"] if table.logs else []
    parts += ["the inspection"] if table.inspect else []
    kept = f"for {human(table.keep_for)}, no more than {sizes.human(table.max_size)}"
    return f"{' and '.join(parts)} of what is deleted, {kept}; secrets that programs log are in it"


def _preset(preset: Preset) -> str:
    signs = [f"{sign}{' (with its whole project)' * sign.startswith('image ')}" for sign in preset.signs]
    signs += [] if signs else ["its images and volumes, where a policy is for such"]
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


def takes(table: PolicyTable) -> str:
    """What a policy takes and under which conditions, as one sentence."""
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
    conditions += ["that a runner kept alive (by a preset's keepalive)"] if table.keepalive else []
    conditions += [word for word in ("untagged", "anonymous", "oneoff") if getattr(table, word)]
    conditions += [f"in state {' or '.join(table.states)}"] if table.states else []
    if table.exit_codes:
        conditions.append(f"that exited with {' or '.join(map(str, table.exit_codes))}")
    if table.all:
        conditions.append("of any age and state, but for what has a lease")
    narrow = _selected(Selector(table.labels, table.names, table.images))
    if table.exclude is not None:
        excluded = Selector(table.exclude.labels, table.exclude.names, table.exclude.images)
        narrow += [f"except {entry}" for entry in _selected(excluded)]
    narrow += ["which no other policy takes"] if table.exclusive else []
    if (window := table.opening()) is not None:
        narrow.append(f"{window} only")
    narrow += [f"on {' or '.join(table.endpoints)}"] if table.endpoints else []
    if table.with_project != ("network",) and Kind.CONTAINER in table.kinds:
        narrow.append(
            f"with the {' and '.join(f'{kind}s' for kind in table.with_project) or 'containers alone'} of a project"
        )
    if table.under_pressure:
        narrow.append("only while the disk is too full" if table.only_under_pressure else "also when the disk is too full")
    what = " and ".join(kind.plural for kind in table.kinds)
    return f"{what} {' and '.join(conditions)}{''.join(f', {entry}' for entry in narrow)}"


def _quota(table: QuotaTable) -> str:
    limits = [
        f"{sizes.human(round(n)) if m in (MEMORY, DISK) else f'{n:g}'} {_MEASURES[m]}" for m, n in table.limits.items()
    ]
    what = " and ".join(kind.plural for kind in table.kinds)
    more = [f"for each value of label {table.per_label}"] if table.per_label is not None else []
    more += [f"on {' or '.join(table.endpoints)}"] if table.endpoints else []
    more += [f"enforced on what is idle for {human(table.idle_for)}"] if table.enforce else []
    return f"{table.name}: at most {' and '.join(limits)}{''.join(f', {entry}' for entry in (f'of {what}', *more))}"


def _warnings(loaded: Config, kinds: Mapping[str, Collection[Kind]], env: Mapping[str, str]) -> Iterator[str]:
    settings = loaded.settings
    rules = settings.rules()
    for name in unknown_variables(settings, env):
        yield f"the variable {name} is no setting: it has no effect"
    if settings.evidence.model_fields_set and not settings.evidence.wanted:
        yield "[evidence] saves nothing: set logs, inspect or both"
    takes_cache = any(Kind.BUILD_CACHE in policy.kinds for policy in rules.policies)
    if not (in_force(rules.scope) or _selected(rules.scope.selector) or rules.scope.everything or takes_cache):
        yield "[scope] owns nothing, so no policy takes anything: name presets, labels, names or images"
    for name in ("max_deletions", "max_lease_deletions"):
        if getattr(settings.limits, name) == 0:
            yield f"[limits] {name} = 0 allows no deletion: each sweep that finds one to make ends with exit code 4"
    if (entry := rules.scope.catch_all) is not None:
        yield f"[scope] {entry} takes nearly everything that an endpoint holds"
    for preset in rules.scope.own_presets:
        if preset.name not in rules.scope.presets:
            yield f"[[preset]] {preset.name!r} owns nothing: [scope] presets does not name it"
    if settings.owner and not any(policy.orphaned_for for policy in rules.policies):
        yield "[[owner]] has no effect: no policy has orphaned_for"
    own: list[str] = []  # without tables of endpoints other ones may be swept where the environment is another
    if settings.endpoints():
        own = [policy.name for i, policy in enumerate(settings.policy) if loaded.origin(("policy", i, "kinds")) != "default"]
    yield from policy_warnings.warnings(rules.policies, rules.protect, kinds, own)
