"""What this host can prove about the owners of what an endpoint holds, and since when each was known to be dead.

That an owner is dead is proven anew at each look, and just before each deletion. What is remembered in the state directory
is when that was seen first: from then on a policy counts, whether the service or ``--once`` looks. Where the proof itself
shows the time (this host was restarted since, or another process has begun to use the id), nothing has to be remembered.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import anyio

from reaper.core.durations import shifted
from reaper.core.model import Resource
from reaper.core.owner_process import (
    NO_PROOFS,
    OWNER_LABEL,
    Fate,
    Key,
    Matched,
    OwnerLabel,
    OwnerProcess,
    OwnerRule,
    Proofs,
    named_processes,
    named_sessions,
)
from reaper.files import EndpointFile
from reaper.sweep.processes import Machine, ThisMachine, began, judged, labelled

STEP = 2.0  # seconds by which a clock seems to be set when it was only read
FRESH = 1.0  # seconds for which a look at the processes is not repeated
_VERSION = 1
_MOST_BOOTS = 100
_MOST_AWAY = 1000  # resources that are not listed, and of which is remembered that an unknown process has made them


@dataclass(frozen=True)
class _Known:
    """What is remembered of one endpoint, as it is in the file: moments are seconds since 1970 by this host's clock.

    Args:
        boots: of this machine.
        dead: by what names a process, when it was first seen dead.
        matched: by each [[owner]] table whose globs have matched a process once, when it was first seen that none does any
            more; None while one does.
        unmatched: by table and by id of a resource, when it was first seen without a process that is older; None when it was
            created while none lived at all.
        booted: this boot, and when it was by this host's clock: that moves when the clock is set.
        clock_set: when the clock was last seen to have been set.
    """

    boots: tuple[str, ...] = ()
    dead: Mapping[str, float] = field(default_factory=dict)
    matched: Mapping[str, float | None] = field(default_factory=dict)
    unmatched: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    booted: tuple[str, float] = ("", 0.0)
    clock_set: float | None = None


class OwnerProofs:
    """The proofs about one endpoint, and a small file. A file that cannot be used is no memory, never an error.

    Args:
        folder: the state directory; it is made when there is something to write.
        identity: the endpoint's address: names may come to mean another endpoint.
        is_local: whether only this host's processes use the endpoint: then another boot was this machine's. Where others
            use it, too, one of them may be a clone with the same machine id.
        socket: the endpoint's unix socket, if it has one.
        machine: this one.
        clock: returns the aware time in UTC.
    """

    def __init__(
        self,
        folder: Path,
        identity: str,
        *,
        is_local: bool,
        socket: str | None = None,
        machine: Machine | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._machine = machine or ThisMachine()
        # Hosts may share the state directory, and an engine: what one of them has seen of its processes proves nothing here.
        self._stored = EndpointFile(folder, "owners", f"{identity} seen from {self._machine.whole_id}", _VERSION)
        self.file = self._stored.path
        self._is_local = is_local
        self._socket = socket
        self._clock = clock
        self._known = _Known()
        self._written = _Known()
        self._unwritten: _Known | None = None
        self._last: tuple[float, frozenset[Key], Proofs] | None = None
        self._sessions: Mapping[Key, frozenset[Key]] = {}

    def look(
        self, resources: Iterable[Resource], rules: tuple[OwnerRule, ...], skew: timedelta, *, learn: bool
    ) -> tuple[Proofs, str | None]:
        """What is known of the owners of these, and why that could not be remembered, if so.

        Args:
            resources: all that was listed.
            rules: the [[owner]] tables.
            skew: the endpoint's clock minus this host's.
            learn: whether to remember it.
        """
        self._written = self._stored.read(_remembered) or _Known()
        self._known = self._with_clock(self._unwritten or self._written)
        resources = tuple(resources)
        self._last, self._sessions = None, _sessions(resources, rules)
        proofs = self._proofs(resources, rules, skew)
        return proofs, self._learn(proofs, resources, skew) if learn else None

    def _with_clock(self, known: _Known) -> _Known:
        """What is known, with whether the clock was set since that was written."""
        boot, booted = self._machine.boot, self._machine.booted_at().timestamp()
        if known.booted[0] != boot:
            return replace(known, booted=(boot, booted))
        if abs(booted - known.booted[1]) <= STEP:
            return known
        return replace(known, booted=(boot, booted), clock_set=self._clock().timestamp())

    def again(self, resources: Iterable[Resource], rules: tuple[OwnerRule, ...], skew: timedelta) -> Proofs:
        """The same once more, just before something is deleted; nothing is read or remembered."""
        resources = tuple(resources)
        keys, now = self._keys(resources, rules), anyio.current_time()
        if self._last is not None and now - self._last[0] <= FRESH and keys <= self._last[1]:
            return self._last[2]
        proofs = self._proofs(resources, rules, skew)
        self._last = now, keys, proofs
        return proofs

    def _keys(self, resources: Iterable[Resource], rules: tuple[OwnerRule, ...]) -> frozenset[Key]:
        """Whatever any label names, here or in the same session: whether the label counts is for the rules to say."""
        labelled = [(one.endpoint, one.labels or {}) for one in resources]
        sessions = {session for place, labels in labelled for session in named_sessions(place, labels, rules)}
        own = frozenset(key for place, labels in labelled for key in named_processes(place, labels, rules))
        return own.union(*(self._sessions.get(session, ()) for session in sessions))

    def _proofs(self, resources: tuple[Resource, ...], rules: tuple[OwnerRule, ...], skew: timedelta) -> Proofs:
        keys = self._keys(resources, rules)
        here = {rule.name: rule for rule in rules if resources and rule.concerns(resources[0].endpoint)}
        if not keys and not any(rule.processes for rule in here.values()):
            return NO_PROOFS
        refused = self._machine.not_of(self._socket) if here else None
        named = {key: self._owner(key, here.get(key[0]), refused, skew) for key in keys}
        running: tuple[tuple[int, str, int], ...] = ()
        if refused is None and any(rule.processes for rule in here.values()):
            try:
                running = tuple(self._machine.commands())
            except OSError as error:
                refused = f"the processes of this host cannot be read: {error.strerror or error}"
        matched = {rule.name: self._matched(rule, running, refused, skew) for rule in here.values() if rule.processes}
        return Proofs(named, matched, rules, self._sessions)

    def _matched(
        self, rule: OwnerRule, running: Iterable[tuple[int, str, int]], refused: str | None, skew: timedelta
    ) -> Matched:
        found = [
            (start, pid, command)
            for pid, command, start in running
            if any(fnmatchcase(command, glob) for glob in rule.processes)
        ]
        if refused is not None:
            return Matched(refused=refused)
        if not found and _named(rule) not in self._known.matched:
            return Matched(
                refused="no process like that was ever seen here, so it is not known that these patterns are right"
            )
        known = self._known.unmatched.get(_named(rule), {})
        since = {id_: shifted(self._not_after_now(seen), skew) for id_, seen in known.items() if seen is not None}
        hidden = known.keys() - since.keys()
        if not found:
            until = shifted(self._not_after_now(self._known.matched[_named(rule)]), skew)
            return Matched(since=since, until=until, hidden=hidden)
        start, pid, _ = min(found)
        commands = tuple(command for _, _, command in found)
        clock = self._known.clock_set
        clock_set_at = None if clock is None else shifted(datetime.fromtimestamp(clock, UTC), skew)
        oldest = shifted(began(self._machine, start), skew)
        return Matched(oldest, f"process {pid}", commands, since, hidden=hidden, clock_set_at=clock_set_at)

    def _owner(self, key: Key, rule: OwnerRule | None, refused: str | None, skew: timedelta) -> OwnerProcess:
        if rule is None:
            owner = judged(key[1], self._machine, knows_boot=self._is_local or self._knows_boot(key[1]))
        else:
            owner = labelled(rule, key, self._machine, refused)
        if owner.fate is not Fate.DEAD:
            return owner
        return replace(owner, since=shifted(owner.since or self._first_seen(key), skew))

    def _first_seen(self, key: Key) -> datetime:
        return self._not_after_now(self._known.dead.get(_text(key)))

    def _not_after_now(self, seen: float | None) -> datetime:
        now = self._clock()
        return now if seen is None else min(now, datetime.fromtimestamp(seen, UTC))

    def _knows_boot(self, text: str) -> bool:
        with suppress(ValueError):
            return OwnerLabel.parse(text).boot in self._known.boots
        return False

    def _learn(self, proofs: Proofs, resources: tuple[Resource, ...], skew: timedelta) -> str | None:
        """Remember who is dead, and forget who is named no more."""
        here = any(key[0] == OWNER_LABEL and self._machine.boot in key[1] for key in proofs.named if self._machine.boot)
        boots = self._known.boots
        if here and self._machine.boot not in boots:
            boots = (*boots, self._machine.boot)[-_MOST_BOOTS:]
        dead = {
            _text(key): self._first_seen(key).timestamp() for key, owner in proofs.named.items() if owner.fate is Fate.DEAD
        }
        matched, unmatched = dict(self._known.matched), dict(self._known.unmatched)
        listed = {one.id for one in resources}
        for rule in proofs.rules:
            match = proofs.matched.get(rule.name)
            if match is None or match.refused:
                continue  # nothing new is known, and what is known still holds
            now = shifted(self._clock(), skew)
            matched[_named(rule)] = None if match.oldest is not None else shifted(match.until or now, -skew).timestamp()
            # A listing may lack a row, and what has once been found to be of an unknown process stays that.
            known = unmatched.get(_named(rule), {})
            away = [id_ for id_, seen in known.items() if seen is None and id_ not in listed]
            unmatched[_named(rule)] = dict.fromkeys(away[-_MOST_AWAY:]) | {
                one.id: shifted(match.since.get(one.id, now), -skew).timestamp() if match.knows(one) else None
                for one in resources
                if one.kind.runs and not match.may_have_made(one)
            }
        learnt = replace(self._known, boots=boots, dead=dead, matched=matched, unmatched=unmatched)
        is_empty = not (boots or dead or matched or any(unmatched.values()))
        if self._unwritten is None and (learnt == self._written or (is_empty and self._written == _Known())):
            return None
        self._known = learnt
        return self._write(learnt)

    def _write(self, known: _Known) -> str | None:
        problem = self._stored.write("which owners are dead", asdict(known))
        self._unwritten = known if problem is not None else None  # a full disk must not make all orphaned just now for ever
        return problem


def look(
    owners: OwnerProofs | None,
    resources: Iterable[Resource],
    rules: tuple[OwnerRule, ...],
    skew: timedelta,
    warnings: list[str],
    *,
    learn: bool,
) -> Proofs:
    """The same where nothing may be known of any owner; why that could not be remembered is added to the warnings."""
    if owners is None:
        return NO_PROOFS
    proofs, problem = owners.look(resources, rules, skew, learn=learn)
    warnings += [] if problem is None else [problem]
    return proofs


def _remembered(content: Mapping[str, Any]) -> _Known:
    """What a file says. Raises for what is no moment, as for all else that cannot be read."""
    dead = _moments(content["dead"])
    unmatched = {str(rule): _moments_or_none(ids) for rule, ids in content["unmatched"].items()}
    boot, booted = content["booted"]
    clock_set = _moments_or_none({"": content["clock_set"]})[""]
    boots, matched = tuple(map(str, content["boots"])), _moments_or_none(content["matched"])
    return _Known(boots, dead, matched, unmatched, (str(boot), float(booted)), clock_set)


def _moments(found: Mapping[str, Any]) -> dict[str, float]:
    seconds = {str(key): float(seen) for key, seen in found.items()}
    for seen in seconds.values():
        datetime.fromtimestamp(seen, UTC)
    return seconds


def _moments_or_none(found: Mapping[str, Any]) -> dict[str, float | None]:
    moments = _moments({key: seen for key, seen in found.items() if seen is not None})
    return {str(key): moments.get(str(key)) for key in found}


def _sessions(resources: Iterable[Resource], rules: tuple[OwnerRule, ...]) -> Mapping[Key, frozenset[Key]]:
    """By session what names its owners, whether the label is its image's or not."""
    found: dict[Key, frozenset[Key]] = {}
    for one in resources:
        labels = one.labels or {}
        for session in named_sessions(one.endpoint, labels, rules):
            found[session] = found.get(session, frozenset()).union(named_processes(one.endpoint, labels, rules))
    return found


def _named(rule: OwnerRule) -> str:
    """What stands for the globs of a table: others have matched nothing yet."""
    return " | ".join((rule.name, *rule.processes))


def _text(key: Key) -> str:
    return "\t".join(key)
