"""Leases over HTTP: POST /leases, PUT and DELETE /leases/ID, GET /leases.

A client that takes one sends heartbeats, or asks with ``"hold": true`` for an answer without an end: then the open
connection is the lease, and the kernel closes it however its holder dies.

A lease is a claim of ownership: when it ends, what it covers is deleted. So a client without a token may claim little: what
carries the lease's own label, and what carries labels that the configuration sets aside for that.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Annotated, Any, NoReturn

import anyio
import anyio.lowlevel
from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    StringConstraints,
    ValidationError,
)

from reaper.core.claim_check import MOST_CLAIMS, MOST_ENTRIES, ClaimError, check_all
from reaper.core.lease import Claim
from reaper.core.scope import LEASE_LABEL
from reaper.errors import LeasesUnknownError
from reaper.leases.authorization import RefusedError, Requester, authenticate
from reaper.leases.connection_limits import DOOR
from reaper.leases.peers import UNKNOWN_USER, Peer
from reaper.leases.store import HEARTBEAT_DUE, Holder, LeaseRecord, Liveness
from reaper.leases.tcp_peer import TcpPeer
from reaper.leases.watcher import LeaseBook

PATH = "/leases"
LONGEST = 64 * 1024  # bytes of a request
MOST = 10_000  # leases that are open at once
MOST_OF_ONE = 1000  # of them, of one user who is not trusted, or of all who are not and came over TCP
LARGEST_PID = 2**31 - 1
BODY_WITHIN = 10.0  # seconds for a whole request
LONGEST_CAUSE = 200  # characters
LONGEST_OVER = 86_400  # seconds
LOOK_EVERY = 0.5  # seconds between two looks whether a connection is still open
SIGN_EVERY = 15.0  # seconds between two signs of life on it, by which a peer is noticed that vanished without a word
_JSON, _LINES = "application/json", "application/x-ndjson"
_METHODS = ("GET lists the leases, POST takes one", "PUT is a heartbeat, DELETE gives the lease back")
_Handler = Callable[["LeaseApi", web.Request, Requester], Awaitable[web.StreamResponse]]


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it has a character that cannot be printed")
    return text


_PRINTABLE = AfterValidator(_printable)
_Text = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=1024)]
_Texts = Annotated[tuple[_Text, ...], Field(max_length=MOST_ENTRIES)]
_Id = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Claim(_Body):
    labels: _Texts = ()
    names: _Texts = ()
    images: _Texts = ()
    projects: _Texts = ()


class _Holder(_Body):
    host: Annotated[_Text, _PRINTABLE]
    pid: Annotated[StrictInt, Field(ge=1, le=LARGEST_PID)] | None = None
    command: Annotated[StrictStr, Field(max_length=1024), _PRINTABLE] = ""
    user: Annotated[StrictStr, Field(max_length=256), _PRINTABLE] = ""

    def holder(self) -> Holder:
        return Holder(self.host, self.pid, None, self.command, self.user)


class _Request(_Body):
    holder: _Holder | None = None
    id: _Id | None = None
    claims: Annotated[tuple[_Claim, ...], Field(max_length=MOST_CLAIMS)] = ()
    hold: StrictBool = False


def document(record: LeaseRecord) -> dict[str, Any]:
    """A lease as clients see it. It echoes id and scope, so that a reaper that ignores it is noticed."""
    holder, ending = record.holder, record.lease().ending
    return {
        "id": record.id,
        "label": f"{LEASE_LABEL}={record.id}",
        "state": record.state.value,
        "holder": {"host": holder.host, "pid": holder.pid, "command": holder.command, "user": holder.user},
        "claims": [claim.fields() for claim in record.claims],
        "granted_for": sorted(record.endpoints),
        "since": record.since.isoformat(),
        "seen_at": record.seen_at.isoformat(timespec="seconds"),
        "ended_at": ending and ending.at.isoformat(),
        "claims_until": ending and ending.last.isoformat(),
        "cause": record.cause,
        "heartbeat_seconds": HEARTBEAT_DUE.total_seconds() if record.sort is Liveness.HEARTBEAT else None,
    }


def lease_app(
    api: Callable[[], "LeaseApi | None"],
    *,
    local: Callable[[], bool] = lambda: True,
    peer: Callable[[web.Request], Peer | None] = lambda _: None,
) -> web.Application:
    """Return the application that a server mounts at ``PATH``.

    Args:
        api: gives what answers; None while the leases cannot be read.
        local: whether only this host can reach the server's address.
        peer: gives the process that sent a request to the local socket.
    """

    def admitted(handler: _Handler) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            if (current := api()) is None:
                raise LeasesUnknownError("the leases cannot be read now; the log says why")
            return await handler(current, request, current.requester(request, local=local(), peer=peer(request)))

        return answer

    app = web.Application(middlewares=[_explain_errors])
    for path in ("", "/"):
        app.router.add_get(path, admitted(LeaseApi.list_all))
        app.router.add_post(path, admitted(LeaseApi.take))
    app.router.add_put(r"/{id:[\s\S]+}", admitted(LeaseApi.renew))
    app.router.add_delete(r"/{id:[\s\S]+}", admitted(LeaseApi.release))
    return app


@web.middleware
async def _explain_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except RefusedError as refused:
        return _json(refused.status, {"error": str(refused)}, **refused.headers)
    except LeasesUnknownError as error:
        return _json(503, {"error": str(error)}, **{"Retry-After": "5"})
    except web.HTTPMethodNotAllowed as error:
        methods = ", ".join(sorted(error.allowed_methods))
        return _json(405, {"error": _METHODS["PUT" in error.allowed_methods]}, Allow=methods)


class LeaseApi:
    """Answers the requests.

    Args:
        book: where the leases stand.
        token: a client that sends it may do everything; None where no client can.
        claimable: globs of label keys by which any user on this host may claim, with a value and without a glob in it.
        trusted: the numbers of users who may do everything over the local socket, besides root and this process's own.
        endpoints: gives the identities of what the service sweeps. They may name hosts, so not every client gets them.
    """

    def __init__(
        self,
        book: LeaseBook,
        *,
        token: str | None,
        claimable: Sequence[str],
        trusted: Collection[int] = (),
        endpoints: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._book = book
        self._token = token
        self._claimable = claimable
        self._trusted = ({0, os.geteuid()} - {UNKNOWN_USER}) | set(trusted)
        self._endpoints = endpoints
        self._connections: Counter[str] = Counter()  # open ones, by lease
        self._closing = False

    def hang_up(self) -> None:
        """End the answers without an end, within ``LOOK_EVERY``: their readers look for the service that comes next."""
        self._closing = True

    def requester(self, request: web.Request, *, local: bool, peer: Peer | None) -> Requester:
        """Return the sender of a request. Raises RefusedError."""
        header = request.headers.get("Authorization", "")
        return authenticate(header, token=self._token, trusted=self._trusted, local=local, peer=peer)

    async def renew(self, request: web.Request, requester: Requester) -> web.StreamResponse:
        """Handle a heartbeat."""
        name = self._owned(request, requester)
        return self._found(self._book.heard(name), name)

    async def release(self, request: web.Request, requester: Requester) -> web.StreamResponse:
        """End a lease."""
        name = self._owned(request, requester)
        return self._found(self._book.release(name, _cause(request), _over_for(request)), name)

    def _owned(self, request: web.Request, requester: Requester) -> str:
        """Return the id that the path names. Raises RefusedError where the lease is another's."""
        name = request.match_info["id"]
        if (record := self._book.find(name)) is not None:
            requester.must_own(record)
        return name

    async def list_all(self, request: web.Request, _: Requester) -> web.StreamResponse:
        """Return all leases, or those that changed since an earlier answer: a few at once, since there may be thousands."""
        try:
            seq = max(int(request.query.get("after", "0")[:18]), 0)
        except ValueError:
            seq = 0
        seq, edition, records = self._book.page(seq, request.query.get("edition", ""))
        answer = web.StreamResponse(headers={"Content-Type": f"{_JSON}; charset=utf-8"})
        await answer.prepare(request)
        await answer.write(b'{"leases": [')
        before = b"\n"
        while records:
            await answer.write(before + b",\n".join(json.dumps(document(record)).encode() for record in records))
            before = b",\n"
            await anyio.lowlevel.checkpoint()
            try:
                seq, edition, records = self._book.page(seq, edition)
            except LeasesUnknownError:  # half a list is none
                if request.transport is not None:
                    request.transport.abort()
                return answer
        await answer.write(f'\n], "edition": "{edition}", "seq": {seq}}}\n'.encode())
        await answer.write_eof()
        return answer

    async def take(self, request: web.Request, requester: Requester) -> web.StreamResponse:
        """Grant a lease."""
        wanted = await _read(request, requester)
        door = request.config_dict.get(DOOR)
        if wanted.hold and door is not None and not door.may_hold(request.transport):
            raise RefusedError(429, "so many connections are leases that no more can be; send heartbeats")
        record, status = self._taken(wanted, requester)
        del wanted  # what it has read is not kept while the client stays connected
        given = document(record)
        if requester.trusted or requester.peer is not None:
            given["endpoints"] = sorted(self._endpoints())
        if record.sort is Liveness.CONNECTION:
            return await self._hold(request, record, given, status)
        return _json(status, given, **_place(record))

    def _taken(self, wanted: _Request, requester: Requester) -> tuple[LeaseRecord, int]:
        """The lease for a request, and the answer's status. The request is not kept while the client stays connected."""
        if self._closing:
            raise RefusedError(503, "the service is about to end; ask the next one", **{"Retry-After": "1"})
        sort = Liveness.CONNECTION if wanted.hold else Liveness.HEARTBEAT
        claims = [Claim.of(claim.model_dump()) for claim in wanted.claims]
        try:
            check_all(claims, None if requester.trusted else self._claimable)
        except ClaimError as error:
            raise RefusedError(403 if error.denied else 400, str(error)) from None
        holder = requester.holder(None if wanted.holder is None else wanted.holder.holder())
        if wanted.id is not None and (there := self._book.find(wanted.id)) is not None:
            if not requester.took(there, holder):
                whose = there.holder.user or there.holder.host
                raise RefusedError(409, f"lease {wanted.id} is there already, and is {whose}'s; take another id")
            if list(there.claims) != claims or there.sort is not sort:
                raise RefusedError(409, f"lease {wanted.id} is there already, and is another one")
            return self._book.heard(wanted.id) or there, 200
        if wanted.id is not None and self._book.known(wanted.id) is not None:
            raise RefusedError(409, f"lease {wanted.id} has ended, or is another reaper's; take another id")
        opened = [record.holder.uid for record in self._book.open_records()]
        if len(opened) >= MOST:
            raise RefusedError(429, f"{MOST} leases are open already")
        if not requester.trusted and opened.count(requester.uid) >= MOST_OF_ONE:
            whose = "that were taken over TCP" if requester.uid is None else f"of {holder.user}"
            raise RefusedError(429, f"{MOST_OF_ONE} leases {whose} are open already")
        return self._book.take(sort, holder, claims, name=wanted.id), 201

    async def _hold(
        self, request: web.Request, record: LeaseRecord, given: dict[str, Any], status: int
    ) -> web.StreamResponse:
        """Answer for as long as the client listens: a line with the lease, and an empty one now and then."""
        self._connections[record.id] += 1
        line = TcpPeer(request.transport)
        try:
            answer = web.StreamResponse(status=status, headers={"Content-Type": _LINES, **_place(record)})
            await answer.prepare(request)
            await answer.write(json.dumps(given).encode() + b"\n")
            quiet = 0.0
            while (
                (to := request.transport) is not None
                and not to.is_closing()
                and self._book.watches(record.id)
                and not self._closing
            ):
                line.look()
                await anyio.sleep(LOOK_EVERY)
                quiet += LOOK_EVERY
                if quiet >= SIGN_EVERY:
                    await answer.write(b"\n")
                    quiet = 0.0
        except ConnectionError:
            pass  # it listens no more
        finally:
            self._connections[record.id] -= 1
            if not self._connections[record.id]:
                del self._connections[record.id]
                with suppress(LeasesUnknownError):  # it is looked for all the same
                    self._book.lost(record.id, line.silent_for(request.content.exception()))
        return answer

    @staticmethod
    def _found(record: LeaseRecord | None, name: str) -> web.Response:
        if record is None:
            raise RefusedError(404, f"no lease {name} is open here; what it covered is not covered any more")
        return _json(200, document(record))


def _cause(request: web.Request) -> str:
    """Why a lease is given back, for people."""
    said = request.query.get("cause", "")[:LONGEST_CAUSE]
    return "".join(c if c.isprintable() else " " for c in said) or "released"


def _over_for(request: web.Request) -> timedelta:
    """How long ago that ended for which a lease was taken. Raises RefusedError."""
    text = request.query.get("over_for", "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= LONGEST_OVER:
        raise RefusedError(400, f"over_for: it is a number of seconds from 0 to {LONGEST_OVER}")
    return timedelta(seconds=seconds)


def _place(record: LeaseRecord) -> dict[str, str]:
    return {"Location": f"{PATH}/{record.id}"}


async def _read(request: web.Request, requester: Requester) -> _Request:
    # A page in a browser cannot send that elsewhere without being asked about it first, and reaches no socket.
    if request.content_type != _JSON and requester.peer is None:
        raise RefusedError(415, f"send {_JSON}")
    body = b""
    try:
        with anyio.fail_after(BODY_WITHIN):
            while len(body) <= LONGEST and not request.content.at_eof():
                body += await request.content.read(LONGEST + 1 - len(body))
    except TimeoutError:
        raise RefusedError(408, f"the request was not whole within {BODY_WITHIN:g} s", Connection="close") from None
    except (web.HTTPException, web.RequestPayloadError) as error:
        raise RefusedError(400, f"the request cannot be read: {type(error).__name__}", Connection="close") from None
    if len(body) > LONGEST:
        raise RefusedError(413, f"a lease has at most {LONGEST} bytes")
    try:
        return _Request.model_validate_json(body)
    except ValidationError as error:
        _explain(error)


def _explain(error: ValidationError) -> NoReturn:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    raise RefusedError(400, f"{where}: {first['msg']}" if where else str(first["msg"])) from None


def _json(status: int, body: dict[str, Any], **headers: str) -> web.Response:
    return web.Response(status=status, text=json.dumps(body, indent=2) + "\n", content_type=_JSON, headers=headers)
