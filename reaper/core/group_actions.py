"""Which action the members of a group get together: all of them the same, or none. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from reaper.core.actions import OF_KINDS, before, is_done, obstacle
from reaper.core.model import Action, Decision, Reason, Resource, Verdict
from reaper.core.rules import Judge

_NO_POLICY_MATCHES = frozenset({Reason.TOO_YOUNG, Reason.NO_POLICY})
_STRONGEST_FIRST = sorted(OF_KINDS, key=lambda action: -action.strength)


def common(judge: Judge, members: Sequence[Decision], at_most: Action = Action.DELETE) -> Action | None:
    """The strongest action that every member allows, and no stronger one than ``at_most``; None when there is none.

    Who allows an action allows a weaker one as well. A member that is stopped already allows a stop if it meets the
    conditions of a policy that stops. Where all have had the action, there is nothing to do.
    """
    for action in _STRONGEST_FIRST:
        if action.strength > at_most.strength or all(is_done(member.resource, action) for member in members):
            continue
        if all(_allows(judge, member, action) for member in members):
            return action
    return None


def _allows(judge: Judge, member: Decision, action: Action) -> bool:
    resource = member.resource
    if member.reap:
        possible = is_done(resource, action) or obstacle(resource, action) is None
        return possible and member.action.strength >= action.strength
    # No rule but the policies keeps it, and those may keep it only because it is where they would have it.
    return member.reason in _NO_POLICY_MATCHES and member.owner is not None and _has_had(judge, resource, action)


def _has_had(judge: Judge, resource: Resource, action: Action) -> bool:
    """Whether it is stopped or archived as a policy with this action, whose conditions it meets, would have it."""
    if not is_done(resource, action):
        return False
    policies = [replace(p, states=frozenset()) for p in judge.rules.policies if p.action is action]
    return any(match.matched for match in judge.matches(before(resource, action), policies))


def given(judge: Judge, decision: Decision, action: Action) -> Decision:
    """The decision about a member whose group gets the action."""
    if not decision.reap or (is_done(decision.resource, action) and decision.action is not action):
        word = decision.resource.group_word
        return replace(
            decision,
            verdict=Verdict.REAP,
            reason=Reason.GROUP_REAPED,
            said=f"it is {decision.resource.raw_state} already, as all of its {word} is to be",
            brief=f"with its {word}",
            action=action,
            due_at=None,
        )
    if decision.action is action:
        return decision
    match = next((m for m in judge.matches(decision.resource) if m.matched and m.policy.action is action), None)
    if match is None:
        return replace(decision, action=action)
    return replace(
        decision,
        action=action,
        reason=match.reason,
        said=match.say,
        brief=match.phrase,
        policy=match.policy.name,
        since=match.at,
        stop_timeout=match.policy.stop_timeout,
    )
