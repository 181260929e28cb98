"""The rules for what has no processes: networks, volumes, images and build caches. Pure."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from reaper.core.durations import human, shifted
from reaper.core.finding import Finding, keep, passed
from reaper.core.identity import Groups
from reaper.core.image_references import References, familiar
from reaper.core.lease_index import Leases
from reaper.core.model import Kind, Reason, Resource
from reaper.core.scope import LEASE_LABEL


class Users:
    """Which containers use what has no processes, running or not.

    Args:
        resources: all that the endpoint holds.
    """

    def __init__(self, resources: Iterable[Resource]) -> None:
        self._by_id: dict[str, str] = {}
        self._by_reference: dict[str, str] = {}
        for one in resources:
            if one.kind.runs:
                self._by_id |= dict.fromkeys(one.uses, one.name)
                if one.image is not None:
                    self._by_reference[familiar(one.image)] = one.name

    def of(self, resource: Resource) -> str | None:
        """The name of a container that uses it, or that names the image; None when none does."""
        if (user := self._by_id.get(resource.id)) is not None or resource.kind is not Kind.IMAGE:
            return user
        named = (self._by_reference.get(familiar(tag)) for tag in resource.tags)
        return next((user for user in named if user is not None), None)

    def ids(self) -> frozenset[str]:
        """The ids of all that is used."""
        return frozenset(self._by_id)

    def references(self) -> References:
        """The references by which containers name their images; of one with a digest the image's id says more."""
        return References(reference for reference in self._by_reference if "@" not in reference)


def distinguished(resource: Resource, groups: Groups) -> Finding:
    """Compose says on a network which project it is of by the name alone, and another project may have the same."""
    if not groups.unclear(resource):
        return passed("project", "no two projects here have the name of its own")
    places = " and ".join(place or "an unknown folder" for place in groups.several(resource))
    sentence = f"there are several projects called {resource.group} ({places}), and it does not say which is its own"
    return keep("project", Reason.GROUP_UNCLEAR, f"several projects called {resource.group}", lambda: sentence)


def tagged_once(resource: Resource) -> Finding:
    """An engine deletes an image with several tags by force only: each tag may be in use."""
    tags = resource.tags
    if len(tags) > 1:
        return keep("tags", Reason.IN_USE, f"has {len(tags)} tags", lambda: f"it has {len(tags)} tags: {', '.join(tags)}")
    return passed("tags", "it has no second tag")


def left_to_its_container(resource: Resource, users: Users, leases: Leases) -> Finding:
    """An engine deletes an anonymous volume with its container; while one has it, it is for that to decide."""
    anonymous = resource.kind is Kind.VOLUME and LEASE_LABEL not in (resource.labels or {})
    user = users.of(resource) if anonymous and leases.maker(resource) is not None else None
    if user is not None:
        return keep("in use", Reason.IN_USE, f"used by {user}", lambda: f"{user} has it, and it may go with that")
    return passed("in use", "the endpoint refuses its deletion while it is in use")


def in_use(resource: Resource, users: Users) -> Finding:
    """No policy takes what a container has, whether it runs or not, and whether it is reaped or not."""
    if (user := users.of(resource)) is not None:
        return keep("in use", Reason.IN_USE, f"used by {user}", lambda: f"the container {user} uses it, running or not")
    return passed("in use", "no container uses it, running or not")


def new(resource: Resource, grace: timedelta, now: datetime) -> Finding:
    """A network that was just made is about to be used. A policy for volumes or images says itself how old is too young."""
    rule = "created grace"
    if resource.kind is not Kind.NETWORK or resource.created_at is None:
        return passed(rule, "it is old enough when a policy says so")
    end = shifted(resource.created_at, grace)
    phrase = f"created {human(now - resource.created_at)} ago"
    if end <= now:
        return Finding(rule, None, lambda: phrase)
    sentence = f"{phrase}; within {human(grace)} a container may be about to use it"
    return keep(rule, Reason.CREATED_GRACE, f"{phrase} < {human(grace)}", lambda: sentence, due_at=end)
