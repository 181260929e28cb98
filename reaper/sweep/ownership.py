"""What earlier sweeps knew about ownership that the resources themselves no longer show.

A Compose project whose client container went first leaves sidecars and networks without a sign of a benchmark. So the
ids of what an owned project holds are remembered for as long as they are listed. Ids of containers are never used again.
A network is remembered with the time of its creation, and for the project in the same folder alone: another one of that
name would use the network that is there.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from reaper.core.identity import Groups
from reaper.core.model import Decision, Kind, Remembered, Resource
from reaper.files import EndpointFile

NOT_REAPED = datetime(9999, 1, 1, tzinfo=UTC)
"""When a volume or an image is free whose project was not reaped: ``docker compose down`` keeps volumes on purpose."""
_VERSION = 2
_OPT_IN = frozenset(kind for kind in Kind if kind.opt_in)


@dataclass(frozen=True, slots=True)
class _FurtherKind(Remembered):
    """What is remembered of a volume or an image, which not every sweep lists.

    Args:
        kind: which of them it is.
        group: its project.
    """

    kind: Kind = Kind.VOLUME
    group: str | None = None


class Memory:
    """The remembered ids of one endpoint, in a small file. A file that cannot be used is no memory, never an error.

    Args:
        folder: the state directory; it is made when there is something to write.
        identity: the endpoint's address: names may come to mean another endpoint.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self._stored = EndpointFile(folder, "owned", identity, _VERSION)
        self.file = self._stored.path
        self._known: Mapping[str, Remembered] = {}
        self._learned: Mapping[str, Remembered] = {}
        self._grace = timedelta(0)

    def recall(self, resources: Iterable[Resource]) -> list[Resource]:
        """The resources, each with what is remembered of it."""
        self._known, self._learned = self._stored.read(_entries) or {}, {}
        resources = list(resources)
        if not self._known:
            return resources
        groups = Groups(resources)
        return [replace(resource, remembered=self._recalled(resource, groups)) for resource in resources]

    def _recalled(self, resource: Resource, groups: Groups) -> Remembered | None:
        found = self._known.get(resource.id)
        if found is None or resource.kind.runs or resource.kind is Kind.IMAGE:
            return found
        places = groups.places(resource)
        another = bool(places) and found.place not in places
        return None if another or found.created_at != resource.created_at else found

    def learn(
        self, decisions: Iterable[Decision], now: datetime, grace: timedelta, kinds: Container[Kind] = _OPT_IN
    ) -> str | None:
        """Remember what is owned as part of a project now, and forget what is not listed any more.

        A network whose project is about to be reaped is free at once: when the sweep dies half-way, the next one goes on.

        Args:
            decisions: about all that was listed.
            now: aware UTC.
            grace: how long what has lost its project's containers is left alone.
            kinds: of volumes and images, those that were listed. What is remembered of others stays, and is a leftover
                no more where its project has containers again.

        Returns:
            why it could not be written, if so.
        """
        decisions = tuple(decisions)
        groups = Groups(decision.resource for decision in decisions)
        known: dict[str, Remembered] = {}
        for decision in decisions:
            resource = decision.resource
            if decision.owner is None or not _is_remembered(decision):
                continue
            before = resource.remembered
            if before is not None and not groups.places(resource):
                known[resource.id] = before
                continue
            owner = before.owner if before is not None else decision.owner
            entry = Remembered(owner, now if decision.deletes else NOT_REAPED if resource.kind.opt_in else now + grace)
            if not resource.kind.runs and resource.kind is not Kind.IMAGE:
                key = groups.key(resource)
                place = before.place if before is not None else None
                if key is not None and not groups.unclear(resource):
                    place = key[2]
                entry = replace(entry, created_at=resource.created_at, place=place)
            if resource.kind.opt_in:
                entry = _of_further_kind(entry, resource.kind, resource.group)
            known[resource.id] = entry
        back = {decision.resource.group for decision in decisions if decision.resource.kind.runs} - {None}
        for id_, entry in self._known.items():
            if isinstance(entry, _FurtherKind) and entry.kind not in kinds and id_ not in known:
                known[id_] = replace(entry, free_at=NOT_REAPED) if entry.group in back else entry
        self._grace, self._learned = grace, known
        return None if known == self._known else self._write(known)

    def correct(self, decisions: Iterable[Decision], gone: Container[str], now: datetime) -> str | None:
        """Free what was about to go with its project no more where that stays: a person may remove it, and keep its volumes.

        Args:
            decisions: that were learnt.
            gone: ids of what is gone now.
            now: aware UTC.

        Returns:
            why it could not be written, if so.
        """
        decisions = tuple(decisions)
        going = [decision for decision in decisions if decision.deletes and decision.resource.id in self._learned]
        if not going:
            return None
        groups = Groups(decision.resource for decision in decisions)
        there = (d.resource for d in decisions if d.resource.kind.runs and d.resource.id not in gone)
        stay = {groups.key(resource) for resource in there}
        known = dict(self._learned)
        for resource in (decision.resource for decision in going):
            key, entry = groups.key(resource), known[resource.id]
            if key is not None and key in stay:
                known[resource.id] = replace(entry, free_at=NOT_REAPED if resource.kind.opt_in else now + self._grace)
        return None if known == self._learned else self._write(known)

    def _write(self, known: Mapping[str, Remembered]) -> str | None:
        return self._stored.write("what is owned", {"owned": {id_: _fields(entry) for id_, entry in known.items()}})


def _entries(content: Mapping[str, Any]) -> Mapping[str, Remembered]:
    return {id_: _entry(entry) for id_, entry in content["owned"].items()}


def _is_remembered(decision: Decision) -> bool:
    """Whether its own signs may be lost: with the project's other members, or with the tags of an image."""
    resource = decision.resource
    if resource.kind.opt_in and (decision.lease is not None or resource.created_at is None):
        return False
    return resource.group is not None or resource.kind is Kind.IMAGE


def _entry(fields: Mapping[str, Any]) -> Remembered:
    created = fields.get("created_at")
    found = Remembered(
        str(fields["owner"]),
        datetime.fromisoformat(fields["free_at"]).astimezone(UTC),
        None if created is None else datetime.fromisoformat(created).astimezone(UTC),
        fields.get("place"),
    )
    if "kind" not in fields:
        return found
    return _of_further_kind(found, Kind(fields["kind"]), fields.get("group"))


def _of_further_kind(entry: Remembered, kind: Kind, group: str | None) -> _FurtherKind:
    return _FurtherKind(entry.owner, entry.free_at, entry.created_at, entry.place, kind=kind, group=group)


def _fields(entry: Remembered) -> dict[str, str]:
    fields = {"owner": entry.owner, "free_at": entry.free_at.isoformat(), "place": entry.place}
    if entry.created_at is not None:
        fields["created_at"] = entry.created_at.isoformat()
    if isinstance(entry, _FurtherKind):
        fields |= {"kind": entry.kind.value, "group": entry.group}
    return {key: text for key, text in fields.items() if text is not None}
