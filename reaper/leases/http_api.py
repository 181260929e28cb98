"""Leases over HTTP: POST /leases, PUT and DELETE /leases/ID, GET /leases.

A client that takes one sends heartbeats, or asks with ``"hold": true`` for an answer without an end: then the open
connection is the lease, and the kernel closes it however its holder dies.

A lease is a claim of ownership: when it ends, what it covers is deleted. So a client without a token may claim little: what
carries the lease's own label, and what carries labels that the configuration sets aside for that.
"""

import asyncio
import json
import math
import os
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import anyio
import anyio.lowlevel
from aiohttp import web
from aiohttp.typedefs import Handler

from reaper.core.claim_check import ClaimError, check_all
from reaper.core.durations import parse_time
from reaper.core.lease import Claim
from reaper.errors import LeasesUnknownError
from reaper.leases.authorization import RefusedError, Requester, authenticate
from reaper.leases.connection_limits import DOOR
from reaper.leases.documents import LeaseRequest, answer_json, document, read
from reaper.leases.peers import UNKNOWN_USER, Peer
from reaper.leases.record import THIS_PROCESS, LeaseRecord, Liveness
from reaper.leases.served import SERVICE_HEADER
from reaper.leases.store import PAGE
from reaper.leases.tcp_peer import TcpPeer
from reaper.leases.watcher import LeaseBook

PATH = "/leases"
MOST = 10_000  # leases that are open at once
MOST_OF_ONE = 1000  # of them, of one user who is not trusted, or of all who are not and came over TCP
LONGEST_CAUSE = 200  # characters
LONGEST_OVER = 86_400  # seconds
LOOK_EVERY = 0.5  # seconds between two looks whether a connection is still open
SIGN_EVERY = 15.0  # seconds between two signs of life on it, by which a peer is noticed that vanished without a word
_JSON, _LINES = "application/json", "application/x-ndjson"
_METHODS = ("GET lists the leases, POST takes one", "PUT is a heartbeat, DELETE gives the lease back")
Page = tuple[int, str, Sequence[LeaseRecord]]
"""Where it ends, of which file it is, and its leases."""
_Handler = Callable[["LeaseApi", web.Request, Requester], Awaitable[web.StreamResponse]]


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
    app.on_response_prepare.append(_name_service)
    for path in ("", "/"):
        app.router.add_get(path, admitted(LeaseApi.list_all))
        app.router.add_post(path, admitted(LeaseApi.take))
    app.router.add_put(r"/{id:[\s\S]+}", admitted(LeaseApi.renew))
    app.router.add_delete(r"/{id:[\s\S]+}", admitted(LeaseApi.release))
    return app


async def _name_service(_: web.Request, response: web.StreamResponse) -> None:
    response.headers[SERVICE_HEADER] = THIS_PROCESS.name


@web.middleware
async def _explain_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except RefusedError as refused:
        return answer_json(refused.status, {"error": str(refused)}, **refused.headers)
    except LeasesUnknownError as error:
        return answer_json(503, {"error": str(error)}, **{"Retry-After": "5"})
    except web.HTTPMethodNotAllowed as error:
        methods = ", ".join(sorted(error.allowed_methods))
        return answer_json(405, {"error": _METHODS["PUT" in error.allowed_methods]}, Allow=methods)
    except ConnectionResetError:
        return web.Response()  # the client has gone, and reads no answer


@dataclass(slots=True)
class _Connection:
    """One by which a lease is held, or was.

    Args:
        pid: the process at its other end, where the kernel says that.
        transport: it; None when its answer has ended.
    """

    pid: int | None
    transport: asyncio.Transport | None

    @property
    def is_open(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()


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
        self._connections: dict[str, list[_Connection]] = {}  # that hold each lease, or did beside these
        self._closing = False

    def close_connections(self) -> None:
        """End the answers without an end, within ``LOOK_EVERY``: their readers look for the service that comes next."""
        self._closing = True

    def requester(self, request: web.Request, *, local: bool, peer: Peer | None) -> Requester:
        """Return the sender of a request. Raises RefusedError."""
        header = request.headers.get("Authorization", "")
        return authenticate(header, token=self._token, trusted=self._trusted, local=local, peer=peer)

    async def renew(self, request: web.Request, requester: Requester) -> web.StreamResponse:
        """Handle a heartbeat."""
        name = self._owned(request, requester)
        record = self._book.find(name)
        if "over_for" in request.query:
            self._book.over(name, _over_for(request))
        if record is not None and record.sort is Liveness.HEARTBEAT:  # a connection is its own sign of life
            record = self._book.heard(name)
        return self._found(record, name)

    async def release(self, request: web.Request, requester: Requester) -> web.StreamResponse:
        """End a lease."""
        name, by = request.match_info["id"], _line(request, "by")
        if by is None:
            self._owned(request, requester)
            if self._is_held_by_others(name, requester):
                return self._found(self._book.find(name), name)
            return self._found(self._book.release(name, _line(request, "cause") or "released", _over_for(request)), name)
        if (record := self._book.known(name)) is not None:
            requester.must_have_power(record)
            by = requester.named(by)
        return self._found(self._book.end(name, by, _line(request, "cause") or "no reason was given"), name)

    def _is_held_by_others(self, name: str, requester: Requester) -> bool:
        """Whether the sender has held the lease by a connection, and another process does: the last one ends it."""
        there = self._connections.get(name, [])
        is_holder = any(one.pid == requester.pid for one in there)
        return is_holder and any(one.pid != requester.pid and one.is_open for one in there)

    def _owned(self, request: web.Request, requester: Requester) -> str:
        """Return the id that the path names. Raises RefusedError where the lease is another's."""
        name = request.match_info["id"]
        if (record := self._book.find(name)) is not None:
            requester.must_own(record)
        return name

    async def list_all(self, request: web.Request, _: Requester) -> web.StreamResponse:
        """Return all leases, or those that are asked for: a few at once, since there may be thousands."""
        pages, more = self._pages(request.query)
        answer = web.StreamResponse(headers={"Content-Type": f"{_JSON}; charset=utf-8"})
        await answer.prepare(request)
        await answer.write(b'{"leases": [')
        before, end = b"\n", (0, "")
        try:
            for seq, edition, records in pages:
                if records:
                    await answer.write(before + b",\n".join(json.dumps(document(record)).encode() for record in records))
                    before = b",\n"
                end = seq, edition
                await anyio.lowlevel.checkpoint()
        except LeasesUnknownError:  # half a list is none
            if request.transport is not None:
                request.transport.abort()
            return answer
        rest = json.dumps({"edition": end[1], "seq": end[0], **more})
        await answer.write(f"\n], {rest[1:]}\n".encode())
        await answer.write_eof()
        return answer

    def _pages(self, query: Mapping[str, str]) -> tuple[Iterator[Page], Mapping[str, Any]]:
        """The pages of the leases that a query asks for, and what the answer says besides. Raises RefusedError.

        The first page is read at once: an error of it has an answer of its own.
        """
        if (id_ := query.get("id")) is not None:
            return self._cut([record] if (record := self._book.known(id_)) is not None else []), {}
        if query.get("state") == "open":
            return self._cut(self._book.open_records()), {"label_keys": sorted(self._book.label_keys)}
        if "from" in query and "until" in query:
            return self._cut(self._book.with_claims(_time(query["from"], "from"), _time(query["until"], "until"))), {}
        try:
            seq = max(int(query.get("after", "0")[:18]), 0)
        except ValueError:
            seq = 0
        first = self._book.page(seq, query.get("edition", ""))
        return self._following(first), {}

    def _cut(self, records: Sequence[LeaseRecord]) -> Iterator[Page]:
        seq, edition = self._book.position()
        return ((seq, edition, records[at : at + PAGE]) for at in range(0, max(len(records), 1), PAGE))

    def _following(self, page: Page) -> Iterator[Page]:
        while page[2]:
            yield page
            page = self._book.page(page[0], page[1])
        yield page

    async def take(self, request: web.Request, requester: Requester) -> web.StreamResponse:
        """Grant a lease."""
        wanted = await read(request, requester)
        door = request.config_dict.get(DOOR)
        if wanted.hold and door is not None and not door.may_hold(request.transport):
            raise RefusedError(429, "so many connections are leases that no more can be; send heartbeats")
        record, status = self._taken(wanted, requester)
        del wanted  # what it has read is not kept while the client stays connected
        given = document(record)
        if requester.trusted or requester.peer is not None:
            given["endpoints"] = sorted(self._endpoints())
        if record.sort is Liveness.CONNECTION:
            return await self._hold(request, record, given, status, requester.pid)
        return answer_json(status, given, **_place(record))

    def _taken(self, wanted: LeaseRequest, requester: Requester) -> tuple[LeaseRecord, int]:
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
        known = None if wanted.id is None else self._book.known(wanted.id)
        if known is not None:
            is_same = requester.took(known, holder) and list(known.claims) == claims
            return _not_watched_here(known, sort, is_same=is_same), 200
        opened = [record.holder.uid for record in self._book.open_records()]
        if len(opened) >= MOST:
            raise RefusedError(429, f"{MOST} leases are open already")
        if not requester.trusted and opened.count(requester.uid) >= MOST_OF_ONE:
            whose = "that were taken over TCP" if requester.uid is None else f"of {holder.user}"
            raise RefusedError(429, f"{MOST_OF_ONE} leases {whose} are open already")
        max_age = None if wanted.max_age_seconds is None else timedelta(seconds=wanted.max_age_seconds)
        return self._book.take(sort, holder, claims, name=wanted.id, max_age=max_age), 201

    async def _hold(
        self, request: web.Request, record: LeaseRecord, given: dict[str, Any], status: int, pid: int | None
    ) -> web.StreamResponse:
        """Answer for as long as the client listens: a line with the lease, and an empty one now and then."""
        connection = _Connection(pid, request.transport)
        others = (one for one in self._connections.get(record.id, []) if one.transport is not None or one.pid != pid)
        self._connections[record.id] = [*others, connection]
        line = TcpPeer(request.transport)
        try:
            answer = web.StreamResponse(status=status, headers={"Content-Type": _LINES, **_place(record)})
            await answer.prepare(request)
            await answer.write(json.dumps(given).encode() + b"\n")
            quiet = 0.0
            while connection.is_open and self._book.watches(record.id) and not self._closing:
                line.look()
                await anyio.sleep(LOOK_EVERY)
                quiet += LOOK_EVERY
                if quiet >= SIGN_EVERY:
                    await answer.write(b"\n")
                    quiet = 0.0
        except ConnectionError:
            pass  # it listens no more
        finally:
            connection.transport = None
            if all(one.transport is None for one in self._connections[record.id]):
                del self._connections[record.id]
                with suppress(LeasesUnknownError):  # it is looked for all the same
                    self._book.lost(record.id, line.silent_for(request.content.exception()))
        return answer

    def _found(self, record: LeaseRecord | None, name: str) -> web.Response:
        known = self._book.known(name) if record is None else None
        if known is not None and known.ended_by:
            raise _ended(known)
        if known is not None and not known.state.ended and known.sort is not Liveness.PROCESS:
            raise _watched_elsewhere(known)
        if record is None:
            raise RefusedError(404, f"no lease {name} is open here; what it covered is not covered any more")
        return answer_json(200, document(record))


def _ended(record: LeaseRecord) -> RefusedError:
    """The answer to a holder whose lease was ended, and who does not get it back."""
    return RefusedError(410, f"lease {record.id} was ended by {record.ended_by}: {record.cause}")


def _not_watched_here(record: LeaseRecord, sort: Liveness, *, is_same: bool) -> LeaseRecord:
    """The lease with the id that is asked for, where it is the sender's own in spite of that. Raises RefusedError."""
    if record.ended_by:
        raise _ended(record)
    if is_same and not record.state.ended:
        if record.sort is Liveness.PROCESS:
            return record  # of a run on this very state directory, which is told of this service by its address
        if record.sort is sort:
            raise _watched_elsewhere(record)
    raise RefusedError(409, f"lease {record.id} has ended, or is another reaper's; take another id")


def _watched_elsewhere(record: LeaseRecord) -> RefusedError:
    """The answer while another process on the state directory watches it: its place is taken when that ends.

    A holder that was told to take another id would leave what carries this one to a lease that nothing keeps alive.
    """
    problem = f"lease {record.id} is watched by another process that shares the state directory; ask again"
    return RefusedError(503, problem, **{"Retry-After": "1"})


def _line(request: web.Request, name: str) -> str | None:
    """A line for people that a query holds, if it does."""
    said = request.query.get(name, "")[:LONGEST_CAUSE]
    return "".join(c if c.isprintable() else " " for c in said).strip() or None


def _time(text: str, name: str) -> datetime:
    """A time of a query. Raises RefusedError."""
    try:
        return parse_time(text)
    except (ValueError, OverflowError):
        raise RefusedError(400, f'{name}: it is a time such as "2026-11-21T06:00:00Z"') from None


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
