"""The state machine of Daytona's sandboxes: what the API's calls set in motion, and what becomes of it in time.

Nothing runs in the background: each request first calls `Organisation.settle`, which does all that was due by then, each
step with the time at which it was due. So turning the clock by a day is one step, and 50,000 deletions cost no tasks.
"""

import heapq
import random
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime

from reaper.simulator.clock import Clock
from reaper.simulator.daytona.index import Views
from reaper.simulator.daytona.model import DELETED_AT_ONCE, DELETED_SLOWLY, ERRORED, Sandbox, micros
from reaper.simulator.daytona.rules import (
    CHAINED,
    DESIRED,
    EPHEMERAL,
    EPHEMERAL_GPU,
    ERRORED_STATE,
    FORGOTTEN,
    FORKED,
    GOES_ON,
    IN_PROGRESS,
    LINKED_LASTS,
    MODIFIED,
    NEGATIVE,
    NOT_LINKABLE,
    NOT_STOPPABLE,
    NOT_STOPPED,
    SETTLED,
    USES_ARE_ONE,
    Behaviour,
    Refusal,
)
from reaper.simulator.world import SandboxSpec

_SECOND = 1_000_000
_MINUTE = 60 * _SECOND
_AS_SPECIFIED = (
    *("state", "labels", "target", "snapshot", "public", "cpu", "gpu", "memory", "disk", "error_reason", "recoverable"),
    *("auto_stop", "auto_archive", "auto_delete", "warm_pool", "parent", "linked", "inconsistent", "destroy_fails", "extra"),
)


class Organisation:
    """The sandboxes of one organisation.

    Args:
        name: how tests and faults call it.
        seed: decides the made-up ids and how long everything takes.

    Attributes:
        regions: the names of its regions, by id. One of its own has an id that is made of its name.
    """

    def __init__(self, name: str, clock: Clock, seed: int = 0, behaviour: Behaviour | None = None) -> None:
        self.name = name
        self.regions = {"us": "us", "eu": "eu"}
        self.behaviour = behaviour or Behaviour()
        self.rows: dict[str, Sandbox] = {}
        self._clock = clock
        self._seed = f"{seed}/{name}"
        self._random = random.Random(self._seed)  # noqa: S311 - reproducible on purpose
        self.id = self._uuid()
        self.views = Views(self.behaviour.list_lag, self.behaviour.list_flap, self._seed)
        self._ids: dict[str, str] = {}  # by name
        self._children: dict[str, set[str]] = {}  # forks and linked ones
        self._due: list[tuple[int, int, str, int, str]] = []
        self._number = 0

    def _uuid(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def now(self) -> int:
        """The clock in microseconds since 1970."""
        return micros(self._clock.now())

    # What is there

    def add(self, spec: SandboxSpec, *, known: bool = True) -> Sandbox:
        """Put a sandbox there; `known` means that the list has long learned of it.

        Raises ValueError when its id or its name is taken.
        """
        now = self.now()
        own = spec.id or self._uuid()
        created = _us(spec.created, now)
        active = _us(spec.active, created)
        owner = self.rows.get(spec.linked or "")  # what is linked to another one runs beside it
        row = Sandbox(
            id=own,
            organization_id=self.id,
            name=spec.name or own,
            desired=spec.desired or DESIRED.get(spec.state, "started"),
            created=created,
            updated=_us(spec.updated, active),
            active=None if spec.no_activity else active,
            runner=spec.runner or (owner and owner.runner) or f"runner-{self._random.randrange(8)}",
            destroy_at=None if spec.destroy_at is None else micros(spec.destroy_at),
            runner_dead=spec.runner_dead or spec.stuck,
            **{name: getattr(spec, name) for name in _AS_SPECIFIED},
        )
        if row.id in self.rows or row.name in self._ids:
            raise ValueError(f"there is a sandbox {row.name!r} ({row.id}) already")
        self.rows[row.id] = row
        self._ids[row.name] = row.id
        for other in (row.parent, row.linked):
            if other is not None:
                self._children.setdefault(other, set()).add(row.id)
        if known:
            self.views.add(row)
        else:
            self.views.after(row, now)
        self._plan(row, now)
        if row.destroy_at is not None:
            self._at(row.destroy_at, row, "ttl", step=-1)
        return row

    def find(self, id_or_name: str) -> Sandbox:
        """The row as the database has it. Raises Refusal 404 when none is visible."""
        row = self.rows.get(id_or_name) or self.rows.get(self._ids.get(id_or_name, ""))
        if row is None or row.hidden:
            raise Refusal(404, f"Sandbox with ID or name {id_or_name} not found")
        return row

    def linked(self, spec: SandboxSpec) -> SandboxSpec:
        """The sandbox as a client asks for it, with the id of what it is to be linked to. Raises Refusal."""
        if spec.linked is None:
            return spec
        if spec.auto_delete != 0:
            raise Refusal(400, LINKED_LASTS)
        owner = self.find(spec.linked)
        if owner.linked is not None:
            raise Refusal(400, f"Linked sandbox {owner.id} {CHAINED}")
        if owner.state not in ("started", "stopped"):
            raise Refusal(400, f"{NOT_LINKABLE} (current: {owner.state})")
        return replace(spec, linked=owner.id)

    def forks(self, row: Sandbox) -> Iterator[Sandbox]:
        """Its forks that are not destroyed, those first that are to be: the server lists them in no order."""
        children = [other for child in self._children.get(row.id, ()) if (other := self.rows.get(child))]
        yield from sorted((c for c in children if c.parent == row.id), key=lambda c: (c.desired != "destroyed", c.id))

    # What the API can ask for; each call takes what the row's version was when the request first read it.

    def delete(self, row: Sandbox, version: int) -> None:
        """Accept the deletion, or raise Refusal."""
        self._uncontested(row, version)
        if row.inconsistent:
            raise Refusal(500, "An unexpected error occurred.")
        pending = row.pending and row.state != "pending_build"
        if pending or row.state not in DELETED_AT_ONCE | DELETED_SLOWLY | ERRORED:
            raise Refusal(409, IN_PROGRESS)
        if any(fork.desired != "destroyed" for fork in self.forks(row)):
            raise Refusal(400, FORKED)
        self._doom(row, self.now())

    def stop(self, row: Sandbox, version: int) -> None:
        """Accept the stop, which destroys an ephemeral one, or raise Refusal."""
        self._settled(row, version)
        if row.state not in {"started", "paused"}:
            raise Refusal(400, NOT_STOPPABLE)
        if row.ephemeral:
            self._doom(row, self.now())
        else:
            self._set_desired(row, "stopped", self.now())

    def archive(self, row: Sandbox, version: int) -> None:
        """Accept that it is archived, or raise Refusal. The stored state changes at once."""
        self._uncontested(row, version)
        if row.state in ERRORED:
            raise Refusal(400, ERRORED_STATE)
        if row.state != row.desired:
            raise Refusal(409, IN_PROGRESS)
        if row.state != "stopped":
            raise Refusal(400, NOT_STOPPED)
        if row.ephemeral:
            raise Refusal(400, EPHEMERAL)
        now = self.now()
        row.step += 1
        with self._writing(row, now):
            row.state, row.desired = "archiving", "archived"
        self._plan(row, now)

    def set_timer(self, row: Sandbox, version: int, field: str, minutes: str) -> None:
        """Set the auto-stop or auto-delete interval, in any state, or raise Refusal. It counts from the last activity."""
        self._uncontested(row, version)
        if not re.fullmatch(r"-?\d+", minutes) or abs(int(minutes)) >= 2**31:
            raise Refusal(500, "An unexpected error occurred.")
        if field == "auto_stop" and int(minutes) < 0:
            raise Refusal(400, NEGATIVE)
        if field == "auto_delete" and row.gpu > 0:
            raise Refusal(400, EPHEMERAL_GPU)
        with self._writing(row, self.now(), activity=False):
            setattr(row, field, int(minutes))
        if row.state == row.desired and row.state in ("started", "stopped"):
            row.step += 1
            self._plan(row, row.active or row.updated)

    def start(self, row: Sandbox, version: int) -> None:
        """Accept the start, also of what is being archived, or raise Refusal."""
        archives = row.desired == "archived" and row.state in ("stopped", "archiving")
        if not archives:
            self._settled(row, version)
        self._uncontested(row, version)
        if row.state != "started":
            self._set_desired(row, "started", self.now())

    def touch(self, row: Sandbox) -> None:
        """Use the sandbox: its lastActivityAt follows later, with the time of the use. Not each use is noted."""
        now = self.now()
        if row.used is not None and now - row.used < USES_ARE_ONE * _SECOND:
            return
        row.used = now
        self._at(now + self._within(row, "activity"), row, f"active {now}", step=-1)

    def change(self, row: Sandbox, **fields: object) -> None:
        """Change fields behind the API's back: no cache learns of it, and what was planned is void."""
        if unknown := fields.keys() - set(Sandbox.__slots__):
            raise ValueError(f"a sandbox has no {', '.join(sorted(unknown))}")
        now = self.now()
        row.step += 1
        self._ids.pop(row.name, None)
        with self._writing(row, now, activity=False):
            for name, value in fields.items():
                setattr(row, name, value)
        self._ids[row.name] = row.id
        if row.state == "destroyed":
            self._gone(row)
        else:
            self._plan(row, now)

    def _uncontested(self, row: Sandbox, version: int) -> None:
        if row.version != version:
            raise Refusal(409, MODIFIED)

    def _settled(self, row: Sandbox, version: int) -> None:
        self._uncontested(row, version)
        if row.state in ERRORED:
            raise Refusal(400, ERRORED_STATE)
        if row.state != row.desired or row.state not in SETTLED:
            raise Refusal(409, IN_PROGRESS)

    # What becomes of it

    def settle(self) -> None:
        """Do all that was due by now. Costs nothing when nothing was."""
        now = self.now()
        while self._due and self._due[0][0] <= now:
            at, _, own, step, what = heapq.heappop(self._due)
            row = self.rows.get(own)
            if row is not None and step in {-1, row.step}:
                self._do(row, what, at)
        self.views.settle(now)

    def _do(self, row: Sandbox, what: str, at: int) -> None:
        word, _, argument = what.partition(" ")
        match word:
            case "active":
                with self._writing(row, at, activity=False):
                    row.active = max(row.active or 0, int(argument))
            case "state":
                self._enter(row, argument, at)
            case "ttl" | "auto-delete":
                if not row.hidden and row.desired != "destroyed":
                    self._doom(row, at)
            case "auto-stop":
                due = (row.active or row.updated) + row.auto_stop * _MINUTE
                if due > at:  # it was used since this was planned
                    self._at(due, row, "auto-stop")
                elif row.ephemeral:
                    self._doom(row, at)
                else:
                    self._set_desired(row, "stopped", at)
            case _:
                self._set_desired(row, "archived", at)

    def _set_desired(self, row: Sandbox, desired: str, at: int) -> None:
        """Set the desired state; the stored one follows when the server has picked it up."""
        row.step += 1
        with self._writing(row, at, activity=False):  # only a change of the stored state is an activity
            row.desired = desired
        if row.runner_dead:
            return
        kind, through = {
            "started": ("start", "restoring" if row.state == "archived" else "starting"),
            "stopped": ("stop", "stopping"),
            "archived": ("archive", "archiving"),
            "destroyed": ("destroy", "destroying"),
        }[desired]
        whole = self._within(row, kind)
        end = "error" if desired == "destroyed" and row.destroy_fails else desired
        self._at(at + min(self._within(row, "pickup"), whole), row, f"state {through}")
        self._at(at + whole, row, f"state {end}")

    def _doom(self, row: Sandbox, at: int) -> None:
        """Destroy it, and what is linked to it."""
        row.step += 1
        with self._writing(row, at, activity=row.state in DELETED_AT_ONCE):
            self._ids.pop(row.name, None)
            row.name = f"DESTROYED_{row.name}_{at // 1000}"
            self._ids[row.name] = row.id
            row.desired = "destroyed"
            if row.state in DELETED_AT_ONCE:
                row.state = "destroyed"
        if row.state == "destroyed":
            self._gone(row)
        elif row.hidden:  # an error: the server neither shows nor destroys it, and forgets it later
            self._at(at + FORGOTTEN[row.state] * _MINUTE, row, "state destroyed")
        else:
            self._set_desired(row, "destroyed", at)
        for child in list(self._children.get(row.id, ())):
            other = self.rows.get(child)
            if other is not None and other.linked == row.id and other.desired != "destroyed":
                self._doom(other, at)

    def _enter(self, row: Sandbox, state: str, at: int) -> None:
        with self._writing(row, at):
            if row.state == "restoring" and state == "started":
                row.runner = f"runner-{self._random.randrange(8)}"  # an archived one has none, and gets any
            row.state = state
            if state in SETTLED:
                row.desired = state
            elif state == "error":
                row.error_reason = "Failed to destroy sandbox: context deadline exceeded"
        if state == "destroyed":
            self._gone(row)
        elif row.hidden:
            self._at(at + FORGOTTEN[state] * _MINUTE, row, "state destroyed")
        elif state not in GOES_ON:
            self._plan(row, at)

    def _gone(self, row: Sandbox) -> None:
        del self.rows[row.id]
        self._ids.pop(row.name, None)
        self._children.pop(row.id, None)
        for other in (row.parent, row.linked):
            if other is not None:
                self._children.get(other, set()).discard(row.id)

    def _plan(self, row: Sandbox, at: int) -> None:
        """What will become of it without another request, counted from then.

        The timers join the table of activities: without a row there none of them runs out.
        """
        if row.runner_dead:
            return
        if row.state in GOES_ON:
            state, kind = GOES_ON[row.state]
            if state == "destroyed" and row.destroy_fails:
                state = "error"
            self._at(at + self._within(row, kind), row, f"state {state}")
        elif row.active is None:
            return
        elif row.state == "started" and row.desired == "started" and row.auto_stop > 0:
            self._at(at + row.auto_stop * _MINUTE, row, "auto-stop")
        elif row.state == "stopped" and row.desired == "stopped":
            if row.auto_delete > 0:
                self._at(at + row.auto_delete * _MINUTE, row, "auto-delete")
            if row.auto_archive > 0:
                self._at(at + row.auto_archive * _MINUTE, row, "auto-archive")

    def _at(self, at: int, row: Sandbox, what: str, step: int | None = None) -> None:
        self._number += 1
        heapq.heappush(self._due, (at, self._number, row.id, row.step if step is None else step, what))

    def _within(self, row: Sandbox, kind: str) -> int:
        """How long this takes this sandbox, in microseconds: the same for the same seed, whatever else happens."""
        low, high = getattr(self.behaviour, kind)
        if low == high:
            return int(low * _SECOND)
        chance = random.Random(f"{self._seed}/{row.id}/{kind}").random()  # noqa: S311 - reproducible on purpose
        return int((low + (high - low) * chance) * _SECOND)

    @contextmanager
    def _writing(self, row: Sandbox, at: int, *, activity: bool = True) -> Iterator[None]:
        """The server writes the row: its times, its version and the list's copies follow."""
        self.views.before(row)
        yield
        row.version += 1
        row.item = None
        row.updated = max(row.updated, at)
        if activity and row.active is not None:
            row.active = max(row.active, at)
        self.views.after(row, at)


def _us(at: datetime | None, default: int) -> int:
    return default if at is None else micros(at)
