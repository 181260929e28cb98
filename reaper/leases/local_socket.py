"""The service's local unix socket: ``/leases`` for every user of this machine, and nothing else.

Any user may connect; the kernel says who it is, and ``http_api`` what it may do. A socket that a dead service has left is
replaced, one on which another service listens is not: this one goes on without, and takes its place when the other is gone.
"""

import asyncio
import fcntl
import os
import socket
import stat
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from aiohttp import web

from reaper.errors import ConfigError, LeasesUnknownError
from reaper.leases import http_api
from reaper.leases.connection_limits import ACCEPTED_AT_ONCE, Door, GuardedRunner, Room
from reaper.leases.http_api import LeaseApi
from reaper.leases.peers import Peer, is_trusted, listener
from reaper.paths import LONGEST_PATH

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

LOOK_AGAIN = 2.0  # seconds between two looks whether the socket is still there, or can be had
SHARE = 0.5  # of the connections that this process may have
SHUTDOWN_TIMEOUT = 2.0  # seconds that answers under way get when it is closed
_WHERE = "[leases] socket"


class _TakenError(Exception):
    """Another service listens there."""


class LocalSocket:
    """The socket, and who answers on it.

    Args:
        leases: what answers about leases, None until they can be read.
        paths: where it may be; the first one that can be made.
        named: whether the operator has named the path. Then it is an error when it cannot be made.
        log: gets events with where it is, and why it is not.
        trusted: the numbers of users who may have as many connections as there is room for, as root may.
    """

    def __init__(
        self,
        leases: Callable[[], LeaseApi | None],
        paths: Sequence[str],
        *,
        named: bool,
        log: "FilteringBoundLogger",
        trusted: Collection[int] = (),
    ) -> None:
        self._leases = leases
        self._paths = tuple(map(Path, paths))
        self._named = named
        self._trusted = trusted
        self._log = log
        self._problem: tuple[str, ...] = ()
        self._runner: GuardedRunner | None = None
        self._site: web.SockSite | None = None
        self._place: _Place | None = None

    @property
    def path(self) -> Path | None:
        """Where it is, if it is anywhere."""
        return None if self._place is None else self._place.path

    async def open(self) -> None:
        """Listen, if that can be had now. Raises ConfigError when the operator's path cannot be made."""
        app = web.Application()
        app.add_subapp(http_api.PATH, http_api.lease_app(self._leases, peer=_peer))
        app.router.add_route("*", "/{path:.*}", _nothing)
        room = Room.share(SHARE)
        door = Door("local socket", room, self._log, user=_user, trusted=lambda uid: is_trusted(uid) or uid in self._trusted)
        self._runner = GuardedRunner(app, door, shutdown_timeout=SHUTDOWN_TIMEOUT)
        await self._runner.setup()
        try:
            await self._listen()
        except OSError as error:
            await self.close()
            hint = 'name one in a directory that this user can write to, or "none"'
            raise ConfigError(f"no socket can be made at {self._paths[0]}: {_reason(error)}", hint, _WHERE) from error

    async def run(self) -> None:
        """Watch it until it is closed: it is bound again when it was removed, and when another service has left its path."""
        while True:
            await anyio.sleep(LOOK_AGAIN)
            if self._runner is None:
                return
            if self._place is not None and self._place.is_there():
                continue
            try:
                await self._leave()
                await self._listen()
            except OSError as error:
                self._report("local_socket_failed", str(self._paths[0]), _reason(error))
            except Exception as error:  # noqa: BLE001 - the service goes on; it is tried again
                self._log.error("internal_error", error=f"{type(error).__name__}: {error}", exc_info=error)

    async def close(self) -> None:
        """Stop listening, and remove the file if it is still this one's."""
        runner, self._runner = self._runner, None  # first: else it would be bound again meanwhile
        await self._leave()
        if runner is not None:
            await runner.cleanup()

    async def _leave(self) -> None:
        site, self._site = self._site, None
        place, self._place = self._place, None
        if place is not None:
            place.remove()
        if site is not None:
            await site.stop()
        if place is not None:
            place.close()

    async def _listen(self) -> None:
        """Raises OSError when the operator's path cannot be made."""
        assert self._runner is not None
        for path in self._paths:
            try:
                place = _Place(path)
            except _TakenError:
                self._report(
                    "local_socket_taken", str(path), "another service listens there; its place is taken when it ends"
                )
                return
            except OSError as error:
                if self._named:
                    raise
                self._report("local_socket_failed", str(path), _reason(error))
                continue
            self._place = place
            self._site = web.SockSite(self._runner, place.socket, backlog=ACCEPTED_AT_ONCE)
            await self._runner.listen(self._site)
            self._problem = ()
            self._log.info("local_socket", path=str(path))
            return

    def _report(self, event: str, path: str, problem: str) -> None:
        """Once for each problem: it is tried again every few seconds."""
        if (found := f"{event} {path} {problem}") not in self._problem:
            self._problem += (found,)
            self._log.warning(event, path=path, problem=problem)


async def _nothing(_: web.Request) -> web.Response:
    return web.json_response({"error": f"there is nothing here but {http_api.PATH}"}, status=404)


def _peer(request: web.Request) -> Peer:
    if request.transport is None:
        raise LeasesUnknownError("the connection is closed")
    return Peer.of(request.transport.get_extra_info("socket"))


def _user(connection: asyncio.BaseTransport) -> int | None:
    try:
        return Peer.of(connection.get_extra_info("socket")).uid
    except OSError:  # it is gone already
        return None


class _Place:
    """A socket that is bound to its path, which no other process takes while this lives.

    A lock beside it is taken before it is bound, so that no two find one dead socket and each removes the other's new one.

    Raises _TakenError and OSError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock_path = path.with_name(f"{path.name}.lock")
        if len(os.fsencode(path)) > LONGEST_PATH:
            raise OSError(f"it is longer than {LONGEST_PATH} bytes")
        _make(path.parent)
        self._lock = self._locked()
        try:
            self._clear()
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                self.socket.bind(str(path))
                path.chmod(0o666)  # the peer's user decides what the client may do
                self._found = path.lstat()
            except BaseException:
                self.socket.close()
                raise
        except BaseException:
            os.close(self._lock)
            raise

    def _locked(self) -> int:
        while True:
            lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(lock), self._lock_path.lstat()):
                    return lock
            except FileNotFoundError:
                pass  # who had it removed it meanwhile
            except BlockingIOError:
                os.close(lock)
                raise _TakenError from None
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)

    def _clear(self) -> None:
        """Remove what a dead service has left."""
        try:
            there = self.path.lstat()
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(there.st_mode):
            raise FileExistsError("there is something else, which is no socket")
        if listener(str(self.path)) is not None:
            raise _TakenError
        self.path.unlink()

    def is_there(self) -> bool:
        """Whether who looks at the path finds this socket."""
        try:
            return os.path.samestat(self._found, self.path.lstat())
        except OSError:
            return False

    def remove(self) -> None:
        """Take the files away, if they are still this one's."""
        for path, found in ((self.path, self._found), (self._lock_path, os.fstat(self._lock))):
            with suppress(OSError):
                if os.path.samestat(found, path.lstat()):
                    path.unlink()

    def close(self) -> None:
        """Let go: others may take the place."""
        self.socket.close()
        os.close(self._lock)


def _make(folder: Path) -> None:
    """Make it, for every user to enter, where it is not there. Raises OSError."""
    with suppress(FileExistsError):
        folder.mkdir()
        folder.chmod(0o755)  # whatever the umask


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
