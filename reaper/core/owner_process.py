"""The process that made a resource, as its labels name it, and what is proven of it. Pure: no I/O, no clock.

A label proves something only where this very host can check it: the proofs come in as data, as leases do. What is not proven
to be dead is not dead; and that an owner is alive keeps nothing longer than the policies for ages do, since a box may write
anything into its own labels.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple, Self

from reaper.core.durations import human, shifted
from reaper.core.identity import GroupKey, Groups
from reaper.core.model import Resource

OWNER_LABEL = "reaper.owner"
"""``HOST_ID/BOOT_ID/PID/START_TIME``; see docs/owners.md."""

IN_FLIGHT = timedelta(seconds=2)
"""By how much a process may seem to be younger than what it has made: listings have whole seconds."""

_LABEL = re.compile(r"([0-9a-f]{32})/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/([1-9][0-9]{0,8})/(0|[1-9][0-9]{0,18})")

Key = tuple[str, ...]
"""A process as labels name it: the label or the [[owner]] table, and the values."""


class OwnerLabel(NamedTuple):
    """What the label says.

    Args:
        host: of the machine and, outside of its first PID namespace, of that namespace.
        boot: which boot of it.
        pid: the process.
        start: when that began, in clock ticks since the boot.
    """

    host: str
    boot: str
    pid: int
    start: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read it. Raises ValueError."""
        found = _LABEL.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r:.100} is not HOST_ID/BOOT_ID/PID/START_TIME")
        return cls(found[1], found[2], int(found[3]), int(found[4]))

    def __str__(self) -> str:
        return f"{self.host}/{self.boot}/{self.pid}/{self.start}"


class Fate(StrEnum):
    """What is known of an owner."""

    ALIVE = "alive"
    DEAD = "dead"
    UNPROVEN = "unproven"


@dataclass(frozen=True, slots=True)
class OwnerProcess:
    """What this host knows of a process that owns something.

    Args:
        name: for people: "process 4711 (reaper.owner)".
        why: that is so: "there is no such process".
        since: when a dead one was dead at the latest, as far as that is known (aware UTC, on the endpoint's clock).
    """

    name: str
    fate: Fate
    why: str
    since: datetime | None = None

    def __str__(self) -> str:
        verdict = {Fate.ALIVE: "is alive", Fate.DEAD: "is dead", Fate.UNPROVEN: "is not proven to be dead"}[self.fate]
        return f"{self.name} {verdict}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerRule:
    """How the owner of a resource is found by the labels of a runner, or by the processes of this host: [[owner]].

    Args:
        name: of the table.
        endpoints: where it holds; everywhere when empty.
        pid_label: the label that has the process.
        host_label: the one that has the name of its host, if any.
        start_label: the one that has its start in clock ticks since the boot, if any.
        session_label: what has the same value of it has the same owners.
        presets: what these own is orphaned while no process matches that is older; what any preset owns when empty.
        processes: globs of whole command lines.
    """

    name: str
    endpoints: frozenset[str] = frozenset()
    pid_label: str = ""
    host_label: str = ""
    start_label: str = ""
    session_label: str = ""
    presets: frozenset[str] = frozenset()
    processes: tuple[str, ...] = ()

    def concerns(self, endpoint: str) -> bool:
        """Whether it holds on this endpoint."""
        return not self.endpoints or endpoint in self.endpoints


def named_processes(endpoint: str, labels: Mapping[str, str], rules: Iterable[OwnerRule]) -> Iterator[Key]:
    """The processes that these labels name."""
    if (text := labels.get(OWNER_LABEL)) is not None:
        yield OWNER_LABEL, text
    for rule in rules:
        if rule.pid_label and rule.concerns(endpoint) and (pid := labels.get(rule.pid_label)) is not None:
            # A label that is configured and missing is told from one that is empty.
            yield rule.name, pid, *(labels.get(key, "?") if key else "" for key in (rule.host_label, rule.start_label))


def named_sessions(endpoint: str, labels: Mapping[str, str], rules: Iterable[OwnerRule]) -> Iterator[Key]:
    """The sessions that these labels name: by table, what has the same value of a label."""
    for rule in rules:
        if rule.session_label and rule.concerns(endpoint) and (session := labels.get(rule.session_label)):
            yield rule.name, session


@dataclass(frozen=True, slots=True)
class Matched:
    """Which process of this host matches the globs of an [[owner]] table.

    Args:
        oldest: when the first of those that live was started (on the endpoint's clock); None when there is none.
        commands: of those that live.
        process: that one, for people.
        since: by id of a resource, when it was first seen without a process that is older.
        refused: why nothing is proven by it, if so.
        until: when the last of them was seen to have ended; None while one lives.
        hidden: ids of what was created while no such process lived, so a process that looks otherwise has made it.
        clock_set_at: when this host's clock was last seen to have been set. Whether a process is younger than what was made
            before is not known.
    """

    oldest: datetime | None = None
    process: str = ""
    commands: tuple[str, ...] = ()
    since: Mapping[str, datetime] = field(default_factory=dict)
    refused: str = ""
    until: datetime | None = None
    hidden: Collection[str] = ()
    clock_set_at: datetime | None = None

    def knows(self, resource: Resource) -> bool:
        """Whether a process like that may have made the resource, alive or dead."""
        if resource.id in self.hidden:
            return False
        return self.until is None or resource.created_at is None or resource.created_at <= self.until

    def may_have_made(self, resource: Resource) -> bool:
        """Whether one of those that live may have made the resource."""
        if self.refused or resource.created_at is None:
            return True
        if self.oldest is None:
            return False
        unclear = self.clock_set_at is not None and resource.created_at <= self.clock_set_at
        return unclear or self.oldest <= shifted(resource.created_at, IN_FLIGHT)

    def may_have_taken_over(self, run: str | None) -> bool:
        """Whether one of those that live, however young, may use what an earlier run has made: one of the same name does."""
        return run is None or any(run.lower() in command.lower() for command in self.commands)

    def owner(self, resource: Resource, rule: OwnerRule, run: str | None) -> OwnerProcess:
        """What it says about one resource.

        Args:
            resource: it.
            rule: the table.
            run: by what the only run is known that can have a resource of this name; None when any can.
        """
        name = f"its runner, a process like {' or '.join(rule.processes)} ([[owner]] {rule.name}),"
        if self.refused:
            return OwnerProcess(name, Fate.UNPROVEN, self.refused)
        if self.may_have_made(resource):
            return OwnerProcess(name, Fate.ALIVE, f"{self.process} may have been started before this was created")
        if self.oldest is not None and self.may_have_taken_over(run):
            why = f"{self.process} is younger than this, and may have taken it over, as a run that is resumed does"
            return OwnerProcess(name, Fate.ALIVE, why)
        if not self.knows(resource):
            why = "this was created when the last such process had ended, so one with another command line has made it"
            return OwnerProcess(name, Fate.UNPROVEN, why)
        why, since = "no such process is older than this", self.since.get(resource.id)
        if run is None and since is not None and self.until is not None:
            since = max(since, self.until)
        return OwnerProcess(name, Fate.DEAD, why, since)


@dataclass(frozen=True, slots=True)
class Proofs:
    """What this host has found out about owners: data, of one endpoint and one moment.

    Args:
        named: by what names them.
        matched: by the name of an [[owner]] table with ``processes``.
        rules: the tables.
        sessions: by session what names its owners, of all that was listed: the last look is at single resources.
    """

    named: Mapping[Key, OwnerProcess] = field(default_factory=dict)
    matched: Mapping[str, Matched] = field(default_factory=dict)
    rules: tuple[OwnerRule, ...] = ()
    sessions: Mapping[Key, Collection[Key]] = field(default_factory=dict)


NO_PROOFS = Proofs()


class Orphan(NamedTuple):
    """Whether a resource has lost its owners.

    Args:
        since: from when that counts (aware UTC); None when they are not proven to be dead.
        say: it in a sentence.
        brief: it in a few words.
    """

    since: datetime | None
    say: str
    brief: str


NO_OWNER = Orphan(None, "no label of its own names a process that owns it", "no owner process known")


_UNSEEN = OwnerProcess("its owner", Fate.UNPROVEN, "its label was not there when owners were looked at")


def _of_image(owner: OwnerProcess) -> OwnerProcess:
    why = "the label may be its image's, which could not be read"
    return OwnerProcess(owner.name, Fate.UNPROVEN, why) if owner.fate is Fate.DEAD else owner


class OwnerProcesses:
    """Answers which of the resources that were listed together have lost their owners.

    All owners must be proven to be dead: its own, those of its session, and those of every member of its group.

    Args:
        resources: all that the endpoint holds.
        proofs: what is known of processes.
        groups: of the resources.
        preset: the preset that owns a resource, if one does.
        now: on the endpoint's clock.
        run: by what the only run is known that can have a resource of its name; None when any run of its preset can.
    """

    def __init__(
        self,
        resources: Iterable[Resource],
        proofs: Proofs,
        groups: Groups,
        preset: Callable[[Resource], str | None],
        now: datetime,
        *,
        run: Callable[[Resource], str | None],
    ) -> None:
        self._proofs = proofs
        self._groups = groups
        self._preset = preset
        self._run = run
        self._now = now
        self._sessions: dict[Key, dict[Key, OwnerProcess]] = {}
        self._living: dict[GroupKey, tuple[Resource, OwnerProcess]] = {}
        self._known = bool(proofs.named or proofs.matched)
        resources = tuple(resources) if self._known else ()
        for resource in resources:
            for session in self._sessions_of(resource):
                listed = {key: proofs.named.get(key, _UNSEEN) for key in proofs.sessions.get(session, ())}
                self._sessions.setdefault(session, listed).update(self._named(resource))
        for resource in resources:
            key = self._groups.key(resource)
            if key is not None and key not in self._living:
                living = next((one for one in self.of(resource) if one.fate is not Fate.DEAD), None)
                if living is not None:
                    self._living[key] = resource, living

    def _named(self, resource: Resource) -> dict[Key, OwnerProcess]:
        """The owners that its own labels name; one whose label may be its image's proves nothing, and may protect."""
        is_own = resource.inherited is not None
        labels = resource.own_labels if is_own else resource.labels or {}
        keys = named_processes(resource.endpoint, labels, self._proofs.rules)
        found = {key: self._proofs.named.get(key, _UNSEEN) for key in keys}
        return found if is_own else {key: _of_image(owner) for key, owner in found.items()}

    def _sessions_of(self, resource: Resource) -> Iterator[Key]:
        return named_sessions(resource.endpoint, resource.own_labels, self._proofs.rules)

    def of(self, resource: Resource) -> list[OwnerProcess]:
        """The owners of one resource; none when they are not known."""
        if not self._known:
            return []
        found = self._named(resource)
        for session in self._sessions_of(resource):
            found |= self._sessions.get(session, {})
        owners = list(found.values())
        for rule in self._proofs.rules:
            matched = self._proofs.matched.get(rule.name)
            if matched is None or not resource.kind.runs or not rule.concerns(resource.endpoint):
                continue
            preset = self._preset(resource)
            if preset is not None and (not rule.presets or preset in rule.presets):
                owners.append(matched.owner(resource, rule, self._run(resource)))
        return owners

    def orphan(self, resource: Resource, base: datetime | None) -> Orphan:
        """Whether one resource has lost its owners.

        Args:
            resource: it.
            base: when it was created or last started: it counts from then at the earliest.
        """
        owners = self.of(resource)
        if not owners:
            return NO_OWNER
        living = next((one for one in owners if one.fate is not Fate.DEAD), None)
        if living is not None:
            return Orphan(None, str(living), f"owner {living.fate.value}")
        key = self._groups.key(resource)
        if key is not None and key in self._living:
            member, other = self._living[key]
            whose = f"{member.name} of its {resource.group_word}"
            return Orphan(None, f"the owner of {whose} is not dead: {other}", f"owner of {member.name} {other.fate.value}")
        if base is None:
            return Orphan(None, "its owner is dead, but its own age is not known", "of unknown age")
        since = max(base, *(min(one.since or self._now, self._now) for one in owners))
        return Orphan(since, "; ".join(map(str, owners)), f"owner dead for {human(self._now - since)}")
