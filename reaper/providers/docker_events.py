"""The engine's events: who has died just now. Hints only; the listing stays the truth."""

import json
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime

from reaper.errors import UnreadableError
from reaper.identity import compose_project
from reaper.model import Kind, Resource, State

FILTERS = json.dumps({"type": ["container"], "event": ["die"]})
_LONGEST = 1 << 20  # bytes of one event: labels may be long


async def deaths(chunks: AsyncIterable[bytes], endpoint: str) -> AsyncIterator[Resource]:
    """The containers that died, as far as the events tell of them. What cannot be read is passed over.

    Raises UnreadableError when an event does not end.
    """
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LONGEST:
            raise UnreadableError("an event does not end")
        for line in lines:
            with suppress(ValueError, TypeError, KeyError, AttributeError, OverflowError, OSError, RecursionError):
                if (container := death(json.loads(line), endpoint)) is not None:
                    yield container


def death(event: dict[str, object], endpoint: str) -> Resource | None:
    """The container of an event "die"; None for another event. Raises what a malformed one raises."""
    actor = event["Actor"]
    if event.get("Type") != "container" or event.get("Action") != "die" or not isinstance(actor, dict):
        return None
    attributes = actor["Attributes"]
    # The attributes are the labels, and a few more that the engine adds: a selector may take one of those for a label.
    labels = {str(key): str(value) for key, value in attributes.items()}
    at = datetime.fromtimestamp(float(str(event["timeNano"])) / 1e9, UTC)
    return Resource(
        provider="docker",
        endpoint=endpoint,
        kind=Kind.CONTAINER,
        id=str(actor["ID"]),
        name=str(attributes.get("name") or actor["ID"]),
        state=State.STOPPED,
        raw_state="exited",
        created_at=None,
        stopped_at=at,
        labels=labels,
        image=str(attributes["image"]) if attributes.get("image") else None,
        group=compose_project(labels, frozenset()),
        inspected=False,
    )
