"""Who holds a lease, how it stands, and what proves that its holder is dead."""

import os
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from reaper import host as hostid
from reaper.core.lease import IN_FLIGHT, Claim, Ending, Lease
from reaper.liveness import is_stopped, started

MAX_AGE, MAX_AGE_CAUSE = "max_age", "it was older than its max_age, {}"
"""By what a lease is ended that has become too old, and why, for people."""
HEARTBEAT_DUE = timedelta(minutes=1)  # from one heartbeat to the next, at the most


class _Process:
    """Names this very process: a service that asks itself learns nothing. A forked child is another one."""

    def __init__(self) -> None:
        self.anew()
        os.register_at_fork(after_in_child=self.anew)

    def anew(self) -> None:
        self.name = secrets.token_hex(16)


THIS_PROCESS = _Process()


class LeaseState(StrEnum):
    """How a lease stands. A holder that is ``RECONNECTING`` has not been heard of for a while, and its lease still keeps."""

    LIVE = "live"
    RECONNECTING = "reconnecting"
    EXPIRED = "expired"
    RELEASED = "released"

    @property
    def ended(self) -> bool:
        """Whether what it covers is garbage."""
        return self in (LeaseState.EXPIRED, LeaseState.RELEASED)


class Liveness(StrEnum):
    """By what a holder is known to be alive."""

    PROCESS = "process"
    CONNECTION = "connection"
    HEARTBEAT = "heartbeat"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lease.

    Args:
        host: the name of the machine.
        pid: its process there; None where it is not known.
        started: when that process began, as the machine reports it: process ids are used again.
        command: what it runs, without arguments that could hold a secret.
        user: whose it is.
        uid: the number of that user, where the kernel has said it: of one who asked over the local socket. No lookup of
            names that fails for a moment may part a holder from its lease.
    """

    host: str
    pid: int | None = None
    started: str | None = None
    command: str = ""
    user: str = ""
    uid: int | None = None

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}" if self.pid is not None else self.host

    @property
    def runs(self) -> bool:
        """Whether it is surely alive: a process of this machine that can be seen from here."""
        here = self.pid is not None and self.started is not None and self.host == os.uname().nodename
        return here and started(self.pid or 0) == self.started

    @property
    def is_stopped(self) -> bool:
        """Whether it is surely alive, and stopped by a signal (``^Z``)."""
        return self.runs and is_stopped(self.pid or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRecord:
    """A lease as it is kept. All times are aware UTC.

    Args:
        claims: what it covers besides what carries its label.
        resources: ids that it covers.
        seen_at: when its holder was last known to be alive.
        token: of a process: the byte that it holds a lock on while it lives (see ``liveness``); else that of the process
            which watches the holder.
        machine: the machine on which that process was started, see ``host``.
        boot: the boot of that machine.
        endpoints: the ids of the endpoints for which it was granted.
        cause: why it ended, for people.
        max_age: how old it may become, whatever its holder says; None for as old as that likes.
        uptime: for how many seconds the machine had run when it was taken: setting a clock makes no lease older.
        ended_by: who or what ended it, where that was neither its holder nor the holder's death. Its holder does not get it
            back then.
    """

    id: str
    sort: Liveness
    holder: Holder
    since: datetime
    seen_at: datetime
    claims: tuple[Claim, ...] = ()
    resources: frozenset[str] = frozenset()
    token: int | None = None
    machine: str = field(default_factory=hostid.machine_id)
    boot: str = field(default_factory=hostid.boot_id)
    endpoints: frozenset[str] = frozenset()
    state: LeaseState = LeaseState.LIVE
    ended_at: datetime | None = None
    cause: str = ""
    max_age: timedelta | None = None
    uptime: float | None = None
    ended_by: str = ""

    def is_orphan(self, lives: bool | None) -> bool:  # noqa: FBT001 - the answer of ``liveness``
        """Whether its holder is surely dead, and that is not recorded yet. Two proofs are asked of a process.

        Args:
            lives: whether the process that its token stands for is alive; None where that is unknown.
        """
        return self.sort is Liveness.PROCESS and not self.state.ended and self.is_dead(lives) and not self.holder.runs

    def is_dead(self, lives: bool | None) -> bool:  # noqa: FBT001 - see above
        """Whether the process that its token stands for is surely dead.

        A lock shows that of the processes under this very kernel alone: on a network's file system those of other hosts hold
        none that is seen from here. Else it is dead only if it was on this machine before it was restarted, and has not been
        seen since.
        """
        if self.token is None or lives is not False:
            return False
        return self.is_here or self._was_here_before_this_boot

    @property
    def is_here(self) -> bool:
        """Whether the process that its token stands for was started under the kernel that runs now."""
        return self.boot == hostid.boot_id() != ""

    @property
    def _was_here_before_this_boot(self) -> bool:
        if not self.boot or not hostid.boot_id() or self.machine != hostid.machine_id():
            return False
        same = bool(self.machine) or self.holder.host == os.uname().nodename
        return same and self.seen_at < hostid.booted_at()

    def age(self, uptime: float) -> timedelta:
        """For how long it has surely been there: it is no younger, by the clock that cannot be set.

        Args:
            uptime: for how long this machine has run, in seconds; while it sleeps neither it nor a run goes on.
        """
        if self.is_here and self.uptime is not None:
            return timedelta(seconds=max(uptime - self.uptime, 0.0))
        return timedelta(seconds=max(uptime, 0.0)) if self._was_here_before_this_boot else timedelta(0)

    def is_too_old(self, uptime: float, now: datetime, most: timedelta | None = None) -> bool:
        """Whether it is surely older than it may become, or than ``most``: by the machine's clocks, both of them."""
        bounds = [bound for bound in (self.max_age, most) if bound is not None]
        return bool(bounds) and min(bounds) <= min(self.age(uptime), now - self.since)

    def killed(self, at: datetime, cause: str) -> Ending:
        """How it ended when its holder was found dead then, who had given no sign of life since ``seen_at``."""
        return Ending(at, cause, min(self.seen_at, at) + IN_FLIGHT)

    def lease(self) -> Lease:
        """What the rules need to know of it."""
        ending: Ending | None = None
        if self.state is LeaseState.RELEASED:
            ending = Ending(self.ended_at or self.seen_at, self.cause)
        elif self.state is LeaseState.EXPIRED:
            ending = self.killed(self.ended_at or self.seen_at, self.cause)
        unproven = ending is None and not self.is_here and not self._was_here_before_this_boot
        return Lease(
            self.id, str(self.holder), self.resources, self.claims, self.since, ending, self.endpoints, unproven=unproven
        )
