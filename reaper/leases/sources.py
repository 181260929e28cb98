"""The leases that all who share a state directory see."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from reaper.core.durations import human
from reaper.core.lease import Ending
from reaper.core.lease_index import Leases
from reaper.errors import ConfigError
from reaper.leases.peers import listener
from reaper.leases.record import MAX_AGE_CAUSE, LeaseRecord, Liveness
from reaper.leases.served import WITHIN, FollowedLeases, RemoteLeases, ServedLeases
from reaper.liveness import lives, lock_file
from reaper.paths import TOKEN, URL, header_token, is_there, sockets_to_ask

if TYPE_CHECKING:
    from reaper.leases.store import LeaseFile

NAME = "leases.db"
KILLED = "killed"


def is_orphan(record: LeaseRecord, path: Path) -> bool:
    """Whether the holder of a lease in this file is surely dead, and the file does not say so yet."""
    return record.token is not None and record.is_orphan(lives(lock_file(path), record.token))


class SharedLeases:
    """Reads them, however often: what has not changed is not read again.

    A process that holds a lease may die while no service watches. The kernel shows that, and then the lease has ended.

    Args:
        folder: the state directory. Until the first lease is taken nothing is made there, and nothing imported.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._file: LeaseFile | None = None
        self._dead: dict[str, Ending] = {}

    def __call__(self) -> Leases:
        """The leases, living and ended. Blocks for milliseconds. Raises LeasesUnknownError."""
        if self._file is None:
            if not is_there(str(self._path)):
                return Leases()
            from reaper.leases.store import LeaseFile  # noqa: PLC0415 - a database, where most have none

            self._file = LeaseFile(self._path)
        lock, now, uptime = lock_file(self._path), datetime.now(UTC), time.monotonic()
        dead, unwatched, living = dict[str, Ending](), set[str](), dict[int, bool | None]()
        for record in self._file.open():
            if record.token is not None and record.token not in living:
                living[record.token] = lives(lock, record.token)
            alive = None if record.token is None else living[record.token]
            if record.is_orphan(alive):
                dead[record.id] = self._found_dead(record.id, now) or record.killed(now, KILLED)
            elif record.max_age is not None and record.is_too_old(uptime, now):
                cause = MAX_AGE_CAUSE.format(human(record.max_age))
                dead[record.id] = self._found_dead(record.id, now) or record.killed(now, cause)
            elif record.sort is not Liveness.PROCESS and record.is_dead(alive):
                unwatched.add(record.id)
        self._dead = dead
        return self._file.leases(dead, unwatched)

    def _found_dead(self, id_: str, now: datetime) -> Ending | None:
        """How it ended as an earlier look has found it, unless the clock was set back since."""
        ending = self._dead.get(id_)
        return ending if ending is None or ending.at <= now else None

    @property
    def made_elsewhere(self) -> Mapping[str, frozenset[tuple[str, str]]]:
        """What runs of this state directory were seen to make under leases that a service elsewhere keeps."""
        return {} if self._file is None else self._file.made_elsewhere()

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()


def other_service(env: Mapping[str, str]) -> str | None:
    """The address of the service that may be on another host, where REAPER_URL names one. Raises ConfigError."""
    url = env.get(URL, "")
    if not url or url.startswith("unix://"):
        return None
    try:
        parts = urlsplit(url)
        well = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        (parts.hostname or "").encode("idna")  # what no resolver takes
    except ValueError:
        well = False
    if not well:
        hint = 'write for example "http://gpu-1:9797" or "unix:///run/reaper/reaper.sock", or unset it'
        raise ConfigError("it is no http or https URL, and no socket's", hint, URL)
    if "@" in parts.netloc:
        raise ConfigError("it has a user or a password, which no service asks for", f"put its token into {TOKEN}", URL)
    return url


def service_token(env: Mapping[str, str]) -> str | None:
    """The token that REAPER_TOKEN has. Raises ConfigError."""
    try:
        return header_token(env.get(TOKEN))
    except ValueError as error:
        raise ConfigError(str(error), "set it to the token of [leases] alone, or unset it", TOKEN) from None


def service_urls(env: Mapping[str, str]) -> list[str]:
    """Where services are asked: the sockets on which one listens, and REAPER_URL. Raises ConfigError."""
    sockets = [f"unix://{path}" for path in sockets_to_ask(env) if listener(path) is not None]
    other = other_service(env)
    return sockets if other is None else [*sockets, other]


class KnownLeases:
    """Those of a state directory, of the services on this machine that keep theirs elsewhere, and of the one at REAPER_URL.

    Args:
        folder: the state directory.
        sockets: where such services listen, if they do.
        other: where the service at REAPER_URL is asked, if there is one.

    Attributes:
        own: reads those of the state directory alone.
    """

    def __init__(self, folder: Path, sockets: Sequence[str], other: ServedLeases | FollowedLeases | None = None) -> None:
        self.own = SharedLeases(folder)
        self._path = folder / NAME
        self._sockets = sockets
        self._other = other
        self._served: Sequence[ServedLeases | FollowedLeases] | None = None

    def __call__(self) -> Leases:
        """The leases, living and ended. Blocks for milliseconds. Raises LeasesUnknownError."""
        if self._served is None:
            self._served = [*self._services(), *([] if self._other is None else [self._other])]
        shared, served = self.own(), [read() for read in self._served]
        for id_, made in self.own.made_elsewhere.items() if served else ():
            for index in chain.from_iterable(leases.parts for leases in served):
                if (lease := index.get(id_)) is not None and lease.made is not made:
                    index.put(replace(lease, made=made))
        return Leases.of([shared, *served])

    def _services(self) -> Sequence[ServedLeases]:
        there = [path for path in self._sockets if is_there(path)]
        return [
            ServedLeases(path, self._path.parent)
            for path in there
            if listener(path) is not None or not self._has_those_of(path)
        ]

    def _has_those_of(self, path: str) -> bool:
        """Whether the leases of a service that is dead can be read from the disk here, as far as can be told.

        One of another user, root's for example, kept them elsewhere.
        """
        try:
            return is_there(str(self._path)) and os.lstat(path).st_uid == self._path.stat().st_uid
        except OSError:
            return True  # who may not even look at the socket held no lease by it

    def wait(self) -> None:
        """Wait for the first answer of a service that is followed, but not for long."""
        if isinstance(self._other, FollowedLeases):
            self._other.wait(WITHIN)

    def close(self) -> None:
        """Let go of the file."""
        self.own.close()
        if isinstance(self._other, FollowedLeases):
            self._other.close()


def service_at(
    url: str | None, env: Mapping[str, str], *, follow: bool = False, state: Path | None = None
) -> ServedLeases | FollowedLeases | None:
    """What reads the leases of a service.

    Args:
        url: where it listens; None for nowhere.
        env: where the token may be.
        follow: whether a thread does that, again and again.
        state: the state directory, where what is made under its leases may be recorded.
    """
    if not url:
        return None
    local = url.startswith("unix://")
    reader = ServedLeases(url.removeprefix("unix://"), state) if local else RemoteLeases(url, service_token(env), state)
    return FollowedLeases(reader) if follow else reader
