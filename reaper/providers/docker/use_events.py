"""What the events of an engine tell of uses."""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from reaper.providers.parsing import text

_ARRIVES = frozenset({"pull", "tag", "load", "loadfromarchive", "import", "create", "build"})  # the fourth is Podman's
_IMAGE = _ARRIVES | {"push", "save", "mount", "unmount"}  # these two are Podman's (podman image mount)
_VOLUME = frozenset({"create", "mount", "unmount"})
_NETWORK = frozenset({"create", "connect", "disconnect"})
_DELETED = {"image": ("delete", "remove"), "volume": ("destroy", "remove")}  # Podman says remove
_CONTAINER = frozenset({"create", "start", "restart", "die", "destroy", "commit"})
_EXEC = "exec_die"  # no use of its own: where containers are busy, there is one among any 256 events
_DIGITS = re.compile("[0-9a-f]{64}")

TYPES = frozenset({"container", "image", "volume", "network"})
ACTIONS = (
    _CONTAINER | _IMAGE | _VOLUME | _NETWORK | frozenset(name for names in _DELETED.values() for name in names) | {_EXEC}
)

Event = Mapping[str, Any]


def is_of_use(event: Event) -> bool:
    """Whether a stream of these types and actions has the event. A container is there at one look, or one of these tells."""
    return event.get("Type") in TYPES and event.get("Action") in ACTIONS


def name_of(event: Event) -> list[str]:
    """What tells it from all others."""
    return [str(event["timeNano"]), str(event.get("Type")), str(event.get("Action")), str(actor_of(event).get("ID"))]


def seconds(nanoseconds: int) -> str:
    """As the engine takes a time: since 1970."""
    return f"{nanoseconds // 10**9}.{nanoseconds % 10**9:09}"


def actor_of(event: Event) -> Mapping[str, Any]:
    """What it happened to."""
    actor = event.get("Actor")
    return actor if isinstance(actor, dict) else {}


def _attributes(event: Event) -> Mapping[str, Any]:
    attributes = actor_of(event).get("Attributes")
    return attributes if isinstance(attributes, dict) else {}


def used(events: Iterable[Event]) -> Iterable[str]:
    """The ids, names and references of what was used."""
    for event in events:
        action = str(event.get("Action"))
        found: tuple[object, ...] = ()
        match event.get("Type"):
            case "container":
                found = (_attributes(event).get("image"),)
            case "image" if action in _IMAGE:
                found = (_id(event), _attributes(event).get("name"))
            case "volume" if action in _VOLUME:
                found = (_id(event),)
            case "network" if action in _NETWORK:
                found = (_id(event),)
        yield from (name for value in found if (name := text(value)) is not None)


def deleted(events: Iterable[Event]) -> Iterable[tuple[str, datetime]]:
    """The volumes and images that were deleted, each with the time."""
    for event in events:
        if str(event.get("Action")) in _DELETED.get(str(event.get("Type")), ()) and (id_ := _id(event)) is not None:
            yield id_, _moment(event)


def arrived(events: Iterable[Event]) -> dict[str, datetime]:
    """When images were pulled, loaded, tagged or built last, by the id or the reference that tells of it."""
    found: dict[str, datetime] = {}
    for event in events:
        if event.get("Type") == "image" and str(event.get("Action")) in _ARRIVES:
            at = _moment(event)
            for name in _names_of(event):
                found[name] = max(at, found.get(name, at))
    return found


def _names_of(image: Event) -> Iterable[str]:
    return (name for value in (_id(image), _attributes(image).get("name")) if (name := text(value)) is not None)


def _moment(event: Event) -> datetime:
    return datetime.fromtimestamp(int(event["timeNano"]) / 1e9, UTC)


def _id(event: Event) -> str | None:
    """The id as listings have it: Podman tells of a volume its name alone, and of an image's id the digits."""
    id_ = text(actor_of(event).get("ID")) or text(_attributes(event).get("name"))
    return f"sha256:{id_}" if id_ is not None and event.get("Type") == "image" and _DIGITS.fullmatch(id_) else id_
