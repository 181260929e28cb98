"""What policies cannot mean: one that never matches, one that another makes useless, and one that another cuts short."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta

from reaper.core.conditions import Policy
from reaper.core.durations import human
from reaper.core.model import Kind
from reaper.core.scope import Protect, Selector, label_matches

_STOPPED, _NOT_STOPPED = frozenset({"stopped", "failed"}), frozenset({"running", "started", "changing", "unknown"})
_AGES = ("older_than", "stopped_for", "idle_for")


def warnings(
    policies: Sequence[Policy], protect: Protect, kinds: Mapping[str, Collection[Kind]], own: Collection[str]
) -> Iterator[str]:
    """What is odd about the policies, each as a sentence.

    Args:
        policies: all of them.
        protect: what no policy takes.
        kinds: what each endpoint may hold; empty while that is not known.
        own: the names of the policies that the file has.
    """
    for policy in policies:
        others = [other for other in policies if other is not policy]
        if policy.every_resource and policy.window is not None:
            yield (
                f"policy {policy.name} takes everything that is owned {policy.window}, whatever its age: what is alive then"
                " and has no lease is deleted"
            )
        if why := _never(policy, protect, kinds, named=policy.name in own):
            yield f"policy {policy.name} never matches: {why}"
        elif wider := next((other for other in others if is_wider(other, policy)), None):
            yield (
                f"policy {policy.name} has no effect of its own: policies are ORed, and {wider.name} matches all that it"
                f" matches, and no later{_remedy(wider, policy)}"
            )
        else:
            yield from (_cut_short(other, policy) for other in others if _cuts_short(other, policy))


def _cut_short(other: Policy, policy: Policy) -> str:
    return (
        f"policy {policy.name} does not keep what it selects for {human(_wait(policy))}: policies are ORed, and {other.name}"
        f" may take it sooner{_remedy(other, policy)}"
    )


def _remedy(wide: Policy, narrow: Policy) -> str:
    """What makes the age of the narrower one win, where that is likely to be meant."""
    if not narrow.selectors or not _wait(narrow) > _wait(wide):
        return ""
    return f"; if {narrow.name} is to decide alone, write exclusive = true in it, or exclude in {wide.name}"


def _wait(policy: Policy) -> timedelta:
    return max((value for name in _AGES if (value := getattr(policy, name)) is not None), default=timedelta(0))


def _cuts_short(other: Policy, policy: Policy) -> bool:
    """Whether ``other`` may take something that ``policy``, which is narrower, would keep for longer."""
    narrower = set(other.selectors) < set(policy.selectors) or (policy.exit_codes and other.exit_codes != policy.exit_codes)
    if not narrower or not set(other.selectors) <= set(policy.selectors) or other.asleep or other.window is not None:
        return False
    apart = policy in other.yields_to or other.kinds.isdisjoint(policy.kinds)
    if apart or other.exclude != policy.exclude or other.orphaned_for is not None:  # what has lost its run is of no age
        return False
    if other.endpoints and policy.endpoints and other.endpoints.isdisjoint(policy.endpoints):
        return False
    if other.exit_codes and policy.exit_codes and not other.exit_codes.meets(policy.exit_codes):
        return False
    stopped = policy.stopped_for is not None or bool(policy.exit_codes)
    if stopped and other.states and other.states <= _NOT_STOPPED:
        return False
    # What has stopped was started before: an age that counts from the start ends sooner than the same from the stop.
    from_start = policy.stopped_for is not None and other.stopped_for is None
    return _wait(other) <= _wait(policy) if from_start else _wait(other) < _wait(policy)


def _never(policy: Policy, protect: Protect, kinds: Mapping[str, Collection[Kind]], *, named: bool) -> str | None:
    """Why the policy can match nothing, if so."""
    wanted = " or ".join(sorted(policy.kinds))
    known = policy.endpoints and policy.endpoints <= kinds.keys()
    if known and policy.kinds.isdisjoint(kind for name in policy.endpoints for kind in kinds[name]):
        return f"{', '.join(sorted(policy.endpoints))} has no {wanted}"
    nowhere = kinds and policy.kinds.isdisjoint(kind for held in kinds.values() for kind in held)
    if named and (nowhere or policy.keepalive == ()):
        return f"no endpoint has a {wanted}" if nowhere else "no preset that [scope] names has a keepalive"
    if policy.stopped_for is not None and policy.states and policy.states <= _NOT_STOPPED:
        return f"what is {' or '.join(sorted(policy.states))} has not stopped"
    if policy.exit_codes and policy.states and policy.states <= {*_NOT_STOPPED, "created", "paused", "restarting"}:
        return f"what is {' or '.join(sorted(policy.states))} has no exit code"
    if (exclusive := next((other for other in policy.yields_to if _selects_all_of(other, policy)), None)) is not None:
        return f"policy {exclusive.name} is exclusive, and selects all that it selects"
    return next(filter(None, (_contradiction(selector, policy, protect) for selector in policy.selectors)), None)


def _selects_all_of(other: Policy, policy: Policy) -> bool:
    """Whether all that ``policy`` selects is left to ``other``."""
    endpoints = not other.endpoints or (bool(policy.endpoints) and policy.endpoints <= other.endpoints)
    same = bool(other.selectors) and set(other.selectors) <= set(policy.selectors) and other.exclude == Selector()
    return same and endpoints and policy.kinds <= other.kinds


def _contradiction(selector: Selector, policy: Policy, protect: Protect) -> str | None:
    """Why a selector can match nothing, or only what is kept anyway."""
    values: dict[str, str] = {}
    for pattern in selector.labels:
        key, equals, value = pattern.partition("=")
        if equals and not set(value) & set("*?[") and values.setdefault(key, value) != value:
            return f"no resource has both labels {key}={values[key]} and {pattern}; several labels are ANDed"
    for kept, where in ((policy.exclude, "exclude"), (protect.selector, "[protect]")):
        for one, other in ((one, other) for one in selector.labels for other in kept.labels):
            if _implies(one, other):
                return f"it selects label {one}, which {where} keeps from it"
        both = (("name", selector.names, kept.names), ("image", selector.images, kept.images))
        for word, wanted, excluded in both:
            if wanted and set(wanted) <= set(excluded):
                return f"it selects {word} {wanted[0]}, which {where} keeps from it"
    return None


def _implies(one: str, other: str) -> bool:
    """Whether what has the label ``one`` surely has ``other``."""
    key, equals, value = one.partition("=")
    if other in (one, key):
        return True
    return bool(equals) and not set(value) & set("*?[") and label_matches(other, {key: value})


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
    pressed = wide.asleep > narrow.asleep or narrow.under_pressure > wide.under_pressure
    if pressed or any(getattr(wide, only) and not getattr(narrow, only) for only in ("untagged", "anonymous")):
        return True
    if any(getattr(wide, only) not in (None, getattr(narrow, only)) for only in ("window", "keepalive")):
        return True
    if wide.exclude not in (Selector(), narrow.exclude):
        return True
    if wide.yields_to != narrow.yields_to or (wide.exit_codes and not _has_codes_of(wide, narrow)):
        return True
    if narrow.oneoff != wide.oneoff or not narrow.with_project <= wide.with_project:
        return True
    return wide.larger_than is not None and (narrow.larger_than is None or narrow.larger_than < wide.larger_than)


def _has_codes_of(wide: Policy, narrow: Policy) -> bool:
    return bool(narrow.exit_codes) and wide.exit_codes.covers(narrow.exit_codes)


def _is_met(wanted: timedelta | None, given: timedelta | None) -> bool:
    return wanted is None or (given is not None and given >= wanted)
