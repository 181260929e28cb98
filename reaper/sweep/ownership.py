"""What earlier sweeps knew about ownership that the resources themselves no longer show.

A Compose project whose client container went first leaves sidecars and networks without a sign of a benchmark. So the
ids of what an owned project holds are remembered for as long as they are listed. Ids of containers are never used again.
A network is remembered with the time of its creation, and for the project in the same folder alone: another one of that
name would use the network that is there.
"""

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import anyio

from reaper.core.caps import kept_back
from reaper.core.identity import Groups
from reaper.core.model import Decision, Kind, Reason, Remembered, Resource, Result
from reaper.files import EndpointFile

NOT_REAPED = datetime(9999, 1, 1, tzinfo=UTC)
"""When a volume or an image is free whose project was not reaped: ``docker compose down`` keeps volumes on purpose."""
FOLLOW_EVERY = 1.0  # seconds between two writes while a sweep deletes
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

        A network whose project is about to be reaped is free at once: when the sweep dies half-way, the next one goes on. A
        volume or an image is free when ``correct`` has heard that its project is gone: else a person may remove that after a
        sweep that died, and keep these.

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
            before = resource.remembered
            if before is not None and decision.owner is None and resource.kind is Kind.IMAGE:
                before = None  # it has another tag now, which is not owned
            owner = decision.owner if before is None else before.owner  # which another configuration may not own
            if owner is None or not _is_remembered(decision):
                continue
            if before is not None and not groups.places(resource):
                is_used = resource.kind.opt_in and decision.reason is Reason.IN_USE  # by what another has made since
                known[resource.id] = replace(before, free_at=NOT_REAPED) if is_used else before
                continue
            entry = Remembered(owner, NOT_REAPED if resource.kind.opt_in else now if decision.deletes else now + grace)
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

    def correct(
        self, decisions: Iterable[Decision], gone: Container[str], now: datetime, *, ended: bool = True
    ) -> str | None:
        """Free what goes with its project where that is gone, and no more where it stays: a person may remove it.

        Args:
            decisions: that were learnt.
            gone: ids of what is gone by now.
            now: aware UTC.
            ended: whether the sweep has; else what is still there may be about to go.

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
            stays = key is not None and key in stay
            if resource.kind.opt_in:
                known[resource.id] = replace(entry, free_at=NOT_REAPED if stays else min(entry.free_at, now))
            elif stays and ended:
                known[resource.id] = replace(entry, free_at=now + self._grace)
        if known == self._learned:
            return None
        self._learned = known
        return self._write(known)

    def _write(self, known: Mapping[str, Remembered]) -> str | None:
        return self._stored.write("what is owned", {"owned": {id_: _fields(entry) for id_, entry in known.items()}})


class _Unit(Protocol):
    results: dict[str, Result]

    @property
    def unanswered(self) -> frozenset[str]:
        """The ids of what may be gone of it, since no answer to its deletion has come."""
        ...


class SweepMemory:
    """What one sweep recalls of its endpoint, and what it leaves in the memory.

    Args:
        memory: of the endpoint, if there is one.
        warnings: why something could not be written is added to these.

    Attributes:
        there: ids of what a listing at the end has shown; None where there was none.
    """

    def __init__(self, memory: Memory | None, warnings: list[str]) -> None:
        self.there: frozenset[str] | None = None
        self._memory = memory
        self._warnings = warnings
        self._learnt: Sequence[Decision] = ()
        self._has_followers = False  # volumes and images that go with their projects; most sweeps have none
        self._due_at = 0.0

    def recall(self, resources: Sequence[Resource]) -> list[Resource]:
        """The resources, each with what is remembered of it."""
        return [*resources] if self._memory is None else self._memory.recall(resources)

    def learn(
        self,
        decisions: Iterable[Decision],
        held_back: Collection[str],
        now: datetime,
        grace: timedelta,
        kinds: Container[Kind],
    ) -> None:
        """See ``Memory.learn``; what is held back stays."""
        if self._memory is not None:
            self._learnt = kept_back(decisions, held_back)
            self._has_followers = any(decision.deletes and decision.resource.kind.opt_in for decision in self._learnt)
            self._warn(self._memory.learn(self._learnt, now, grace, kinds))

    def is_unsure(self, units: Iterable[_Unit]) -> bool:
        """Whether it has to know what is there at the end: volumes or images are free only where their project is gone."""
        return self._has_followers and any(unit.unanswered for unit in units)

    def follow(self, units: Iterable[_Unit], now: datetime, *, is_late: bool = False, ended: bool = False) -> None:
        """Have the memory know what is gone, so that the next sweep goes on should this process die.

        Args:
            units: what is being deleted.
            now: aware UTC.
            is_late: whether that is done although it was done a moment ago.
            ended: whether the sweep has.
        """
        at = anyio.current_time()
        is_due = ended or (self._has_followers and (is_late or at >= self._due_at))
        if self._memory is None or not self._learnt or not is_due:
            return
        gone = {id_ for unit in units for id_, result in unit.results.items() if result.outcome.removed}
        if self.there is not None:  # else what was not answered is still there as far as is known: a person may remove it
            gone |= {id_ for unit in units for id_ in unit.unanswered} - self.there
        self._warn(self._memory.correct(self._learnt, gone, now, ended=ended))
        self._due_at = anyio.current_time() + max(FOLLOW_EVERY, 20 * (anyio.current_time() - at))

    def _warn(self, problem: str | None) -> None:
        if problem is not None and problem not in self._warnings:
            self._warnings.append(problem)


def _entries(content: Mapping[str, Any]) -> Mapping[str, Remembered]:
    return {id_: _entry(entry) for id_, entry in content["owned"].items()}


def _is_remembered(decision: Decision) -> bool:
    """Whether its own signs may be lost: with the project's other members, or with the tags of an image."""
    resource = decision.resource
    if resource.kind.opt_in and (decision.lease is not None or resource.created_at is None):
        return False
    return resource.group is not None or resource.alone or resource.kind is Kind.IMAGE


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
