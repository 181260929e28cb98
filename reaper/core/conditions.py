"""The conditions of one policy, and the label overrides that a resource carries, evaluated for one resource. Pure.

A resource that has been listed but not inspected is judged as if it had stopped when it was created and had never been
started again. That is the oldest it can be, so whatever is kept on those grounds would be kept after an inspection too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from reaper.core import durations, sizes
from reaper.core.actions import ARCHIVED, obstacle
from reaper.core.ages import age_base, stop_base
from reaper.core.durations import human, shifted
from reaper.core.model import Action, Kind, Reason, Resource, State
from reaper.core.narrowing import ExitCodes, Window, is_oneoff, without_keepalive
from reaper.core.owner_process import NO_OWNER, Orphan
from reaper.core.scope import Selector
from reaper.core.wording import clipped

TTL_LABEL = "reaper.ttl"
EXPIRES_LABEL = "reaper.expires"
DEFAULT_STOP_TIMEOUT = timedelta(seconds=10)
SHORTEST_CREATED_GRACE = timedelta(minutes=10)
"""How old at the least is what no policy says how old it has to be: a runner may be about to use what it has just made."""
WITH_PROJECT = frozenset({Kind.NETWORK, Kind.POD})
ANY_EXIT_CODE, NOTHING = ExitCodes(), Selector()


@dataclass(frozen=True, slots=True)
class Policy:
    """When an owned, unprotected resource is garbage. The conditions that are set are ANDed.

    Args:
        action: what is done with what matches. What had it already does not match.
        older_than: since the latest of creation and last start.
        stopped_for: since the stop; only stopped and failed resources match.
        idle_for: since the last activity.
        unused_for: since the last use of a network, a volume, an image or a build cache.
        orphaned_for: since all its owner processes are dead, or it was created or last started.
        larger_than: bytes; what is larger matches, and of a build cache what is above that is pruned.
        untagged: whether it is for images without a tag alone.
        anonymous: whether it is for volumes alone whose name the engine has made up.
        oneoff: whether it is for the containers of ``docker compose run`` alone, each by itself and not with its project.
        keepalive: the labels of the sandboxes that it is for alone, which their runner keeps alive; None means any sandbox.
        with_project: what goes with the containers of a project that it takes.
        states: normalised or raw state names; empty means any.
        exit_codes: of containers; an unknown one does not match.
        window: the part of the day in which it matches at all, on this host's clock; None means all day.
        endpoints: names of endpoints; empty means all.
        selectors: all of them must match.
        exclude: what one of its entries matches is not for this policy, also by a label that came with its image.
        yields_to: what one of these selects is for that policy, and not for this one.
        stop_timeout: how long a running one gets to stop by itself before it is killed.
        every_resource: no condition at all (``--all``).
        under_pressure: whether it runs when the disk is too full.
        asleep: whether it runs only then, and that is not so now: it takes nothing.
        there: by endpoint the ids of what it may take at all; anything on an endpoint that is not among these.
    """

    name: str
    kinds: frozenset[Kind]
    older_than: timedelta | None = None
    stopped_for: timedelta | None = None
    idle_for: timedelta | None = None
    unused_for: timedelta | None = None
    orphaned_for: timedelta | None = None
    larger_than: int | None = None
    untagged: bool = False
    anonymous: bool = False
    oneoff: bool = False
    keepalive: tuple[str, ...] | None = None
    with_project: frozenset[Kind] = WITH_PROJECT
    states: frozenset[str] = frozenset()
    exit_codes: ExitCodes = ANY_EXIT_CODE
    window: Window | None = None
    endpoints: frozenset[str] = frozenset()
    selectors: tuple[Selector, ...] = ()
    exclude: Selector = NOTHING
    yields_to: tuple["Policy", ...] = ()
    stop_timeout: timedelta = DEFAULT_STOP_TIMEOUT
    every_resource: bool = False
    under_pressure: bool = False
    asleep: bool = False
    there: Mapping[str, frozenset[str]] = field(default_factory=dict, hash=False)
    action: Action = Action.DELETE

    @property
    def overrules(self) -> bool:
        """Whether it is the operator's own word (``--all``), which takes what was archived or has a label until when."""
        return self.every_resource and self.window is None

    def concerns(self, resource: Resource) -> bool:
        """Whether the policy is for this endpoint and selects this resource, whatever its kind, state and age."""
        is_meant = self.is_in_force(resource.endpoint) and not self.came_later(resource)
        return is_meant and all(selector.all_of(resource) for selector in self.selectors)

    def takes_leftover(self, resource: Resource) -> bool:
        """Whether it may take what a project without containers has left: not if it is for one-off containers alone."""
        return not self.oneoff and self.concerns(resource)

    def came_later(self, resource: Resource) -> bool:
        """Whether it is not among what the policy may take at all."""
        return resource.endpoint in self.there and resource.id not in self.there[resource.endpoint]

    def is_in_force(self, endpoint: str) -> bool:
        """Whether the policy is for this endpoint, and is not asleep."""
        return not self.asleep and (not self.endpoints or endpoint in self.endpoints)

    def leaves_out(self, resource: Resource, kind: Kind | None = None) -> str | None:
        """Why it is not for what it selects, or None: labels that came with the image count as well, since they keep it.

        Args:
            resource: it.
            kind: what it is taken for, when that is not its own kind: what goes with containers is taken with these.
        """
        if (sign := self.exclude.any_of(resource, resource.labels or {})) is not None:
            return f"excludes {sign}"
        claimed = (other for other in self.yields_to if other._claims(resource, kind or resource.kind))  # noqa: SLF001
        return f"leaves it to policy {other.name}, which is exclusive" if (other := next(claimed, None)) else None

    def _claims(self, resource: Resource, kind: Kind) -> bool:
        if kind not in self.kinds or (self.endpoints and resource.endpoint not in self.endpoints):
            return False
        labels = resource.labels or {}
        return self.exclude.any_of(resource, labels) is None and all(one.all_of(resource, labels) for one in self.selectors)


class Match(NamedTuple):
    """One policy evaluated for one resource.

    Args:
        phrase: puts it into a few words.
        say: puts it into a sentence. Of thousands of matches few are ever shown.
        at: when its conditions are or were all met, if that depends on time alone.
    """

    policy: Policy
    matched: bool
    reason: Reason
    phrase: Callable[[], str]
    say: Callable[[], str]
    at: datetime | None


# A timed condition: its reason, from when it counts (None: time alone does not meet it), for how long, and until when.
_Condition = tuple[Reason, datetime | None, timedelta, datetime | None]


def _conditions(resource: Resource, policy: Policy, orphan: Orphan) -> list[_Condition]:
    found: list[_Condition] = []
    if policy.orphaned_for is not None:
        found.append(_condition(Reason.ORPHANED, orphan.since, policy.orphaned_for))
    if policy.older_than is not None:
        found.append(_condition(Reason.OLDER_THAN, age_base(resource), policy.older_than))
    if policy.stopped_for is not None:
        found.append(_condition(Reason.STOPPED_FOR, stop_base(resource), policy.stopped_for))
    if policy.idle_for is not None:
        found.append(_condition(Reason.IDLE_FOR, resource.last_activity_at, policy.idle_for))
    if policy.unused_for is not None:
        found.append(_condition(Reason.UNUSED_FOR, resource.last_used_at, policy.unused_for))
    elif resource.kind in (Kind.VOLUME, Kind.IMAGE) and policy.older_than is None:
        found.append(_condition(Reason.OLDER_THAN, age_base(resource), SHORTEST_CREATED_GRACE))
    return found


def _condition(reason: Reason, base: datetime | None, limit: timedelta) -> _Condition:
    return reason, base, limit, None if base is None else shifted(base, limit)


def _fact(resource: Resource, reason: Reason, base: datetime | None, now: datetime, orphan: Orphan) -> str:
    """What a timed condition sees."""
    return orphan.brief if reason is Reason.ORPHANED else _fact_of_time(resource, reason, base, now)


def _fact_of_time(resource: Resource, reason: Reason, base: datetime | None, now: datetime) -> str:
    if not resource.kind.runs:
        return _fact_of_unused(resource, reason, base, now)
    if reason is Reason.OLDER_THAN:
        verb = "last started" if base != resource.created_at else "created"
        return f"{verb} {human(now - base)} ago" if base else "of unknown age"
    if reason is Reason.IDLE_FOR:
        return f"idle for {human(now - base)}" if base else "of unknown activity"
    if base is None:
        unknown = resource.state in (State.STOPPED, State.FAILED)
        return "stopped, but since when is unknown" if unknown else f"{resource.raw_state}, not stopped"
    if resource.never_started:
        return f"created {human(now - base)} ago and never started"
    return f"stopped {'' if resource.inspected else 'at most '}{human(now - base)} ago"


def _fact_of_unused(resource: Resource, reason: Reason, base: datetime | None, now: datetime) -> str:
    """The same of what has no processes."""
    if reason is Reason.UNUSED_FOR:
        watched = f" (watched for {human(now - resource.watched_since)})" if resource.watched_since is not None else ""
        return f"unused for {human(now - base)}{watched}" if base else "of unknown use"
    what = "built, pulled or tagged here" if resource.kind is Kind.IMAGE else "created"
    return f"{what} {human(now - base)} ago" if base else "of unknown age"


def _compared(resource: Resource, condition: _Condition, now: datetime, orphan: Orphan) -> str:
    """The same beside its limit, in a few words: "stopped 7 h ago > 6 h"."""
    reason, base, limit, until = condition
    if until is None:
        return _fact(resource, reason, base, now, orphan)
    if reason is Reason.OLDER_THAN and until > now and resource.kind.runs:
        return f"{resource.state}, younger than {human(limit)}"
    return f"{_fact(resource, reason, base, now, orphan)} {'<' if until > now else '>'} {human(limit)}"


def _excludes(resource: Resource, policy: Policy, here: datetime) -> str | None:
    """Why the policy is not for this resource at all, or not at this time of the day, or None."""
    if resource.kind not in policy.kinds:
        return f"is not for {resource.kind}s"
    if not policy.concerns(resource):
        return _does_not_concern(resource, policy)
    if (what := policy.leaves_out(resource) or _of_another_sort(resource, policy)) is not None:
        return what
    if policy.window is not None and not policy.window.is_open(here):
        return f"matches {policy.window} only"
    uncertain = resource.state is State.CHANGING and not resource.inspected
    if policy.states and not uncertain and not policy.states & {resource.raw_state, resource.state.value}:
        return f"is not for state {resource.raw_state}"
    return _leaves_alone(resource, policy)


def _does_not_concern(resource: Resource, policy: Policy) -> str:
    """Why it is for other endpoints, other times or other resources."""
    if policy.endpoints and resource.endpoint not in policy.endpoints:
        return f"is not for endpoint {resource.endpoint}"
    if policy.asleep:
        return "takes something only while the disk is too full"
    return "is for what the first sweep found" if policy.came_later(resource) else "does not select it"


def _leaves_alone(resource: Resource, policy: Policy) -> str | None:
    """Why there is nothing for the policy to do, or None. What is archived is so on purpose, and costs next to nothing."""
    if resource.raw_state == ARCHIVED and not policy.overrules and ARCHIVED not in policy.states:
        return "does not name the state archived"
    return f"is to {policy.action} it, but it {why}" if (why := obstacle(resource, policy.action)) is not None else None


def _of_another_sort(resource: Resource, policy: Policy) -> str | None:
    """Why a condition that no time meets is not met, or None."""
    if policy.untagged and resource.tags:
        return "is for images without a tag"
    if policy.anonymous and not resource.anonymous:
        return "is for anonymous volumes"
    if (policy.oneoff and not is_oneoff(resource)) or (resource.alone and not policy.oneoff):
        return "is for one-off containers" if policy.oneoff else "takes one-off containers with their project only"
    why = policy.exit_codes.excludes(resource) if policy.exit_codes else None
    if policy.keepalive is not None:
        why = without_keepalive(resource, policy.keepalive, policy.idle_for)
    if why is not None:
        return why
    if policy.larger_than is not None and (resource.size is None or resource.size <= policy.larger_than):
        fact = "its size is not known" if resource.size is None else f"it has {sizes.human(resource.size)}"
        return f"is for what is larger than {sizes.human(policy.larger_than)}, and {fact}"
    return None


def _sort(resource: Resource, policy: Policy) -> tuple[Reason, str] | None:
    """The condition that no time meets and that is met, as a reason and in words, or None."""
    if policy.untagged:
        return Reason.UNTAGGED, "without a tag"
    if policy.anonymous:
        return Reason.ANONYMOUS, "anonymous"
    if policy.larger_than is not None and resource.size is not None:
        return Reason.LARGER_THAN, f"{sizes.human(resource.size)} large"
    return None


def _code(resource: Resource, policy: Policy) -> str:
    """The rest of a sentence: with which code it exited, where the policy asks for that."""
    return f", exit code {resource.exit_code}" if policy.exit_codes and resource.exit_code is not None else ""


class _Wording(NamedTuple):
    """What the words about a policy with timed conditions are made of. Closures would take twice the memory."""

    resource: Resource
    policy: Policy
    now: datetime
    orphan: Orphan
    conditions: list[_Condition]
    sort: tuple[Reason, str] | None

    def phrase(self) -> str:
        resource, now = self.resource, self.now
        unmet = [one for one in self.conditions if one[3] is None or one[3] > now]
        compared = ", ".join([_compared(resource, one, now, self.orphan) for one in unmet or self.conditions])
        compared += _code(resource, self.policy)
        return f"{self.sort[1]}, {compared}" if self.sort else compared

    def say(self) -> str:
        facts = " and ".join(
            [_fact(self.resource, reason, base, self.now, self.orphan) for reason, base, _, _ in self.conditions]
        )
        facts += _code(self.resource, self.policy)
        facts = f"{self.sort[1]}, {facts}" if self.sort else facts
        if self.policy.orphaned_for is not None and self.orphan.since is not None:
            facts = f"{self.orphan.say}; {facts}"
        limits = " and ".join([human(limit) for _, _, limit, _ in self.conditions])
        return f"{facts}, policy {self.policy.name} allows {limits}"


def evaluate(
    resource: Resource, policy: Policy, now: datetime, orphan: Orphan = NO_OWNER, here: datetime | None = None
) -> Match:
    """Evaluate one policy for one resource.

    Args:
        resource: it.
        policy: it.
        now: aware UTC, on the endpoint's clock.
        orphan: what is known of its owners.
        here: likewise on this host's clock, by which windows are open; ``now`` when None.
    """
    if why := _excludes(resource, policy, now if here is None else here):
        return Match(policy, False, Reason.NO_POLICY, lambda: why, lambda: f"policy {policy.name} {why}", None)  # noqa: FBT003
    conditions = _conditions(resource, policy, orphan)
    sort = _sort(resource, policy)
    if not conditions:
        if policy.every_resource:
            reason = Reason.ALL
            brief = fact = f"everything owned goes{f' {policy.window}' if policy.window is not None else ''}"
        elif sort is not None:
            reason, brief = sort
            fact = f"it is {brief}"
        else:
            state = f"{resource.raw_state}{_code(resource, policy)}"
            reason, brief, fact = Reason.STATE, f"state {state}", f"its state is {state}"
        return Match(policy, True, reason, lambda: brief, lambda: f"{fact}, policy {policy.name}", None)  # noqa: FBT003

    ends = [until for _, _, _, until in conditions if until is not None]
    at = max(ends) if len(ends) == len(conditions) else None
    reason = conditions[0][0]
    if sort is not None and policy.older_than is policy.unused_for is policy.orphaned_for is None:
        reason = sort[0]
    wording = _Wording(resource, policy, now, orphan, conditions, sort)
    return Match(policy, at is not None and at <= now, reason, wording.phrase, wording.say, at)


class InvalidLabelError(ValueError):
    """A label override that cannot be read; says why. ``label`` is its key."""

    def __init__(self, label: str, problem: str) -> None:
        super().__init__(problem)
        self.label = label


def _when(text: str) -> datetime:
    """An absolute time on a label, as aware UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text.strip())
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone; write for example 2026-11-21T06:00:00Z")
    return moment.astimezone(UTC)


def override_end(resource: Resource, labels: Mapping[str, str] | None = None) -> tuple[Reason, datetime, str] | None:
    """When the resource's own label says that it ends: the later one where it carries both.

    Args:
        resource: it.
        labels: those that count; all of them when None.

    Raises:
        InvalidLabelError: one of them cannot be read, or ended before the resource was made, and so was not meant for it.
    """
    labels = (resource.labels or {}) if labels is None else labels
    ends = []
    if (text := labels.get(TTL_LABEL)) is not None:
        try:
            ttl = durations.parse(clipped(text.strip()))
        except ValueError as error:
            raise InvalidLabelError(TTL_LABEL, f"{TTL_LABEL}: {error}") from None
        if resource.created_at is not None:
            ends.append((Reason.TTL_ENDED, shifted(resource.created_at, ttl), f"{TTL_LABEL} of {text}"))
    if (text := labels.get(EXPIRES_LABEL)) is not None:
        try:
            ends.append((Reason.EXPIRED, _when(clipped(text.strip())), f"{EXPIRES_LABEL} at {text}"))
        except (ValueError, OverflowError) as error:
            raise InvalidLabelError(EXPIRES_LABEL, f"{EXPIRES_LABEL}: {error}") from None
    for reason, end, said in ends:
        if resource.created_at is not None and end < resource.created_at:
            label = TTL_LABEL if reason is Reason.TTL_ENDED else EXPIRES_LABEL
            why = f"ended before it was created, {resource.created_at:%Y-%m-%dT%H:%M:%SZ}"
            raise InvalidLabelError(label, f"its own {said} {why}")
    return max(ends, key=lambda end: end[1]) if ends else None
