"""What can be done with a resource besides deleting it. Pure."""

from dataclasses import replace

from reaper.core.model import Action, Kind, Resource, State

ARCHIVED = "archived"
OF_KINDS = {
    Action.DELETE: frozenset(Kind),
    Action.STOP: frozenset({Kind.CONTAINER, Kind.SANDBOX}),
    Action.ARCHIVE: frozenset({Kind.SANDBOX}),
}
"""The kinds with which each action can be done."""


def is_done(resource: Resource, action: Action) -> bool:
    """Whether the resource is where the action leads: stopped or archived."""
    if action is Action.STOP:
        return resource.state in (State.STOPPED, State.FAILED)
    return action is Action.ARCHIVE and resource.raw_state == ARCHIVED


def obstacle(resource: Resource, action: Action) -> str | None:
    """Why the action cannot be done with the resource, as the rest of a sentence about it; None when it can.

    What runs is stopped before it is archived. What a stop destroys is neither stopped nor archived: that would delete it.
    """
    if action is Action.DELETE or resource.kind not in OF_KINDS[action]:
        return None if action is Action.DELETE else f"is {resource.kind.article}"
    if is_done(resource, action):
        return f"is {resource.raw_state} already"
    if resource.state is not State.RUNNING and (action is Action.STOP or resource.raw_state != "stopped"):
        return f"is {resource.raw_state}"
    if resource.lost_when_stopped is None and resource.inspected:
        return "may be destroyed by a stop: the answer does not say"
    return "would be destroyed by a stop" if resource.lost_when_stopped else None


def before(resource: Resource, action: Action) -> Resource:
    """What is stopped or archived already, as if it were not: by that a policy is asked whether it would have had it so."""
    if action is Action.STOP:
        return replace(resource, state=State.RUNNING, raw_state="running", lost_when_stopped=False)
    return replace(resource, raw_state="stopped", lost_when_stopped=False)
