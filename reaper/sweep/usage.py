"""When something was used last: what no engine remembers of its networks, volumes and images.

Each look tells what containers have now, and the endpoint's events what they had since the look before. What is new to this
memory counts as used now, and so does everything when the time since the last look was not watched without a gap: nothing
goes because this program is new, or was away.
"""

from collections.abc import Collection, Container, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio

from reaper.core.image_references import References
from reaper.core.layers import images_under
from reaper.core.model import Decision, Kind, Reason, Resource
from reaper.core.rules import Rules
from reaper.core.unused import Users
from reaper.errors import ProviderError
from reaper.files import EndpointFile
from reaper.providers.abilities import Uses, WatchesUse
from reaper.providers.base import Call, Reader
from reaper.providers.sharing import Shared

if TYPE_CHECKING:
    from reaper.sweep.inspector import Inspector

WATCHED = frozenset({Kind.NETWORK, Kind.VOLUME, Kind.IMAGE})
_VERSION = 2


class _Entry(NamedTuple):
    """What is known of one.

    Attributes:
        what: it was at the last look.
        first: when it was first seen, in seconds since 1970.
        last: when it was last used, likewise.
        had: whether a container had it at the last look. No event tells what a stopped container had when that is
            removed, so this use may have ended just before the next look.
        arrived: when an image was last pulled, loaded or tagged, likewise in seconds; 0 where that was not seen.
    """

    what: str
    first: float
    last: float
    had: bool
    arrived: float = 0.0


@dataclass
class _Known:
    """What is known of one endpoint: as it is in the file."""

    engine: str | None = None
    mark: str | None = None
    since: float = 0.0
    entries: Mapping[str, _Entry] = field(default_factory=dict)

    def with_uses_of(self, other: "_Known") -> "_Known":
        """The same, with the later uses that another look has seen."""
        later = {
            key: one._replace(last=max(one.last, seen.last), had=one.had or seen.had, arrived=max(one.arrived, seen.arrived))
            for key, one in self.entries.items()
            if (seen := other.entries.get(key)) is not None and seen.what == one.what
        }
        return replace(self, entries={**self.entries, **later})


@dataclass(frozen=True)
class _Usage:
    """What is used now, and was since the last look.

    Args:
        had: the ids of what containers have.
        named: the references by which they name their images.
        uses: what the endpoint tells.
    """

    had: Collection[str]
    named: References
    uses: Uses

    @cached_property
    def _told(self) -> References:
        return References(self.uses.ids)

    @cached_property
    def _arrived(self) -> References:
        return References(self.uses.arrived)

    @cached_property
    def _arrivals(self) -> list[tuple[datetime, str, References]]:
        """Each by itself, the last one first."""
        ordered = sorted(self.uses.arrived.items(), key=lambda item: item[1], reverse=True)
        return [(at, name, References((name,))) for name, at in ordered]

    def after(self, before: _Entry, kind: Kind, id_: str, tags: Iterable[str], moment: float) -> _Entry:
        """What is known after a look at this moment of one of which that was known before."""
        is_image = kind is Kind.IMAGE
        is_had = id_ in self.had or (is_image and self.named.may_mean(id_, tags))
        was_used = id_ in self.uses.ids or (is_image and self._told.may_mean(id_, tags)) or kind in self.uses.untold
        last = moment if is_had or was_used or before.had else before.last
        arrived = moment if kind in self.uses.untold else self._arrival(id_, tags) if is_image else 0.0
        return before._replace(last=last, had=is_had, arrived=max(arrived, before.arrived))

    def _arrival(self, id_: str, tags: Iterable[str]) -> float:
        """When this image was last pulled, loaded or tagged since the last look; 0 where it was not."""
        if id_ not in self.uses.arrived and not self._arrived.may_mean(id_, tags):
            return 0.0
        times = (at for at, name, means in self._arrivals if name == id_ or means.may_mean(id_, tags))
        return next(times).timestamp()


class LastUse:
    """The times of last use of one endpoint, in a small file. A file that cannot be used is no memory, never an error.

    Args:
        folder: the state directory; it is made when there is something to write.
        identity: the endpoint's address: names may come to mean another endpoint.

    Attributes:
        mark: stands for the last look when the endpoint is asked what was used since then.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self._stored = EndpointFile(folder, "used", identity, _VERSION)
        self.file = self._stored.path
        self.mark: str | None = None
        self._own: _Known | None = None  # what this process has written last
        self._unwritten: _Known | None = None  # a full disk must not make everything used for ever

    async def look(
        self,
        resources: Iterable[Resource],
        inspector: "Inspector",
        now: datetime,
        kinds: Container[Kind],
        rules: Rules,
        *,
        learn: bool,
    ) -> tuple[list[Resource], str | None]:
        """The resources, each with the time of its last use, and why that could not be remembered, if so.

        Args:
            resources: all that was listed, just now.
            inspector: of the endpoint; makes each request.
            now: on the endpoint's clock.
            kinds: those that were listed. What is known of others stays: a sweep by other policies must not make it new.
            rules: by which it is decided.
            learn: whether to remember it.
        """
        by_use = any(Kind.IMAGE in policy.kinds for policy in rules.policies if policy.unused_for is not None)
        resources = await inspector.with_layers(list(resources)) if by_use else list(resources)
        reader = inspector.reader
        known, uses = await self._last_look(reader, inspector.list_call)
        self.mark = uses.mark
        moment = now.timestamp()
        is_watched = uses.complete and known.since > 0 and known.since <= moment
        since = known.since if is_watched else moment
        users = Users(resources)
        usage = _Usage(users.ids(), users.references(), uses)
        entries: dict[str, _Entry] = {}
        watched = [resource for resource in resources if resource.kind in WATCHED and resource.id]
        for resource in watched:
            key, what = _key(resource), _what(resource)
            before = known.entries.get(key)
            if before is None or before.what != what or before.last > moment or not is_watched:
                before = _Entry(what, moment, moment, had=False)
            entries[key] = usage.after(before, resource.kind, resource.id, resource.tags, moment)
        _pass_on(entries, watched)
        found = [_dated(one, entry, since) if (entry := entries.get(_key(one))) is not None else one for one in resources]
        for key, before in known.entries.items() if is_watched else ():
            kind, _, id_ = key.partition(" ")
            if key not in entries and Kind(kind) not in kinds:
                entries[key] = usage.after(before, Kind(kind), id_, before.what.split(" ")[1:], moment)
        problem = self._write(_Known(reader.endpoint_id, uses.mark, since, entries)) if learn else None
        return found, problem

    async def _last_look(self, reader: Reader, call: Call) -> tuple[_Known, Uses]:
        """What is known, and what was used since then.

        Another process looks, too, and may have had to begin anew where this one's reader knows all that was used since its
        own last look.
        """
        known = self._unwritten or self._stored.read(_known) or _Known()
        if known.engine != reader.endpoint_id:
            known = _Known(engine=reader.endpoint_id)
        looks, own = [known], self._own
        if own is not None and own.engine == known.engine and 0 < own.since < known.since:
            looks.insert(0, own)
        elif own is not None and own.engine == known.engine and own.mark != known.mark and known.since > 0:
            looks.append(own.with_uses_of(known))
        for known in looks:
            if (uses := await self._uses(reader, known.mark, call)).complete:
                break
        return known, uses

    def since_listing(self, reader: Reader) -> "UsedSince | None":
        """What tells what was used since the last look; None where there was none, or the endpoint does not tell."""
        return UsedSince(reader, self.mark) if self.mark is not None and isinstance(reader, WatchesUse) else None

    @staticmethod
    async def _uses(reader: Reader, mark: str | None, call: Call) -> Uses:
        if not isinstance(reader, WatchesUse):
            return Uses()
        try:
            return await reader.uses(mark, call)
        except ProviderError:
            return Uses()

    def _write(self, known: _Known) -> str | None:
        self._own = known
        content = {"engine": known.engine, "mark": known.mark, "since": known.since, "seen": known.entries}
        problem = self._stored.write("what was used when", content)
        self._unwritten = known if problem is not None else None
        return problem


def is_by_use(decision: Decision) -> bool:
    """Whether the resource goes by a policy for itself, and only if nothing has used it since it was listed."""
    kind = decision.resource.kind
    by_itself = decision.reason not in (Reason.GROUP_REAPED, Reason.LEASE_ENDED)
    return by_itself and not kind.runs and kind is not Kind.BUILD_CACHE


class UsedSince:
    """What was used on an endpoint since it was listed.

    Args:
        reader: of the endpoint.
        mark: stands for the listing.
    """

    OFTEN = 1.0  # seconds after which the endpoint is asked in any case
    MANY = 32  # results after which it is: an engine remembers 256 events, and to stop and delete a container makes six

    def __init__(self, reader: WatchesUse, mark: str) -> None:
        self._reader = reader
        self._mark = mark
        self._ids: frozenset[str] = frozenset()
        self._references = References(())
        self._untold: frozenset[Kind] = frozenset()
        self._complete = True
        self._news: Shared[None] = Shared()
        self._settled = 0
        self._many = anyio.Event()

    def settled(self) -> None:
        """One more resource has its result."""
        self._settled += 1
        if self._settled % self.MANY == 0:
            self._many.set()

    async def follow(self, call: Call) -> None:
        """Ask again and again: the sweep's own deletions, and what else happens, would make the endpoint forget."""
        while True:
            with anyio.move_on_after(self.OFTEN):
                await self._many.wait()
            self._many = anyio.Event()
            with suppress(ProviderError):  # what needs the answer asks for itself
                await self._news.get(self._ask, call)

    async def why(self, resource: Resource, call: Call) -> str | None:
        """Why the resource counts as used since then, or None. Raises ``ProviderError``."""
        await self._news.get(self._ask, call)
        is_image = resource.kind is Kind.IMAGE
        if resource.id in self._ids or (is_image and self._references.may_mean(resource.id, resource.tags)):
            return "was used, pulled, built or tagged since it was listed"
        if resource.kind in self._untold:
            return "may have been used since it was listed: the endpoint does not tell by what"
        return None if self._complete else "may have been used since it was listed: the endpoint no longer knows"

    async def _ask(self, call: Call) -> None:
        uses = await self._reader.uses(self._mark, call)
        self._mark, self._ids = uses.mark or self._mark, self._ids | uses.ids
        self._references = References(self._ids)
        self._untold |= uses.untold
        self._complete = self._complete and uses.complete


def _known(content: Mapping[str, Any]) -> _Known:
    entries = {}
    for key, (what, first, last, had, *more) in content["seen"].items():  # earlier versions have written no arrival
        entries[key] = _Entry(str(what), float(first), float(last), bool(had), *map(float, more[:1]))
    return _Known(content["engine"], content["mark"], float(content["since"]), entries)


def _what(resource: Resource) -> str:
    """What changes when it is another one of its name, or is meant for something else: then it counts as used now."""
    made = resource.created_at.isoformat() if resource.created_at is not None and not resource.created_at_inexact else ""
    return " ".join([made if resource.kind is not Kind.IMAGE else "", *resource.tags])


def _key(resource: Resource) -> str:
    return f"{resource.kind} {resource.id}"


def _pass_on(entries: dict[str, _Entry], watched: Iterable[Resource]) -> None:
    """Let a use of what lies on a volume, or was built on an image, be a use of that: no event tells of it."""
    watched = list(watched)
    under = {id_: [image.id for image in images] for id_, images in images_under(watched).items()}
    pairs = [
        (_key(one), below)
        for one in watched
        for id_ in {*one.uses, *(under.get(one.id, ()) if one.kind is Kind.IMAGE else ())}
        if (below := f"{one.kind} {id_}") in entries
    ]
    changed = bool(pairs)
    while changed:
        changed = False
        for above, below in pairs:
            top, base = entries[above], entries[below]
            used = base._replace(last=max(base.last, top.last), had=base.had or top.had)
            changed |= used != base
            entries[below] = used


def _dated(resource: Resource, entry: _Entry, since: float) -> Resource:
    return replace(
        resource,
        last_used_at=_time(entry.last),
        watched_since=_time(max(entry.first, since)),
        arrived_at=_time(entry.arrived) if entry.arrived else None,
    )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
