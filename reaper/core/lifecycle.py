"""The rules about the life of what has processes: its state, its restart policy, and that it was never started. Pure."""

from datetime import datetime, timedelta

from reaper.core.durations import human, shifted
from reaper.core.finding import Finding, keep, passed
from reaper.core.model import Reason, Resource, State
from reaper.core.owners import Ownership
from reaper.core.scope import Protect


def state(resource: Resource) -> Finding:
    """Whether its state lets it go."""
    raw = resource.raw_state
    if resource.state is State.CHANGING and not resource.inspected:
        # After a removal that failed, Docker's listing says removing for ever while the inspection says dead.
        return Finding("state", None, lambda: f"it is listed as {raw}, which only an inspection can confirm")
    if resource.state is State.CHANGING:
        doing = "being removed" if raw == "removing" else raw
        return keep("state", Reason.CHANGING, doing, lambda: f"it is {doing}: wait")
    if resource.state is State.UNKNOWN:
        return keep("state", Reason.UNKNOWN_STATE, f"unknown state {raw}", lambda: f"its state {raw!r} is not known here")
    return Finding("state", None, lambda: f"its state is {raw}")


def restart_policy(resource: Resource, owner: Ownership | None, protect: Protect) -> Finding:
    """Whether its restart policy says that it is meant to run, and no preset owns it."""
    rule = "restart policy"
    name = resource.restart_policy
    if name not in protect.restart_policies:
        return Finding(rule, None, lambda: f"its restart policy is {name or 'not known yet'}")
    if owner is not None and owner.preset:
        return Finding(rule, None, lambda: f"its restart policy is {name}, but {owner.by} owns it")
    sentence = f"its restart policy {name} means that it should run"
    return keep(rule, Reason.RESTART_POLICY, f"restart policy {name}", lambda: sentence)


def created_grace(resource: Resource, grace: timedelta, now: datetime) -> Finding:
    """Whether a runner may be about to start it."""
    rule = "created grace"
    if not resource.never_started or resource.created_at is None:
        return passed("created grace", "it has been started")
    end = shifted(resource.created_at, grace)
    age = human(now - resource.created_at)
    fact = f"created {age} ago and never started"
    if end > now:
        sentence = f"{fact}; within {human(grace)} a runner may be about to start it"
        phrase = f"created {age} ago < {human(grace)}"
        return keep(rule, Reason.CREATED_GRACE, phrase, lambda: sentence, due_at=end)
    return Finding(rule, None, lambda: fact)
