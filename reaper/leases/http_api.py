"""Leases over HTTP: POST /leases, PUT and DELETE /leases/ID, GET /leases.

The client that takes one sends heartbeats, or asks with ``"hold": true`` for an answer without an end: then the open
connection is the lease, and the kernel closes it however its holder dies.

A lease is a claim of ownership: when it ends, what it covers is deleted. So a client without a token may claim
little: what carries the lease's own label, and what carries labels that the configuration sets aside for that.

Over the local socket the kernel says who asks. There root, the service's own user and the trusted ones need no token, and
what the others take is theirs: a lease belongs to the user who took it, one that was taken over TCP to no user. A client
that is not trusted can see, hold and release only what belongs to its user, and over TCP only what belongs to no user.
"""

import hmac
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, NoReturn

import anyio
import anyio.lowlevel
from aiohttp import web
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
from reaper.leases.connection_limits import Door
from reaper.leases.peers import UNKNOWN_USER, Peer, user_name
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


class _Request(_Body):
    holder: _Holder | None = None
    id: _Id | None = None
    claims: Annotated[tuple[_Claim, ...], Field(max_length=MOST_CLAIMS)] = ()
    hold: StrictBool = False


class _Refused(Exception):  # noqa: N818 - an answer, not an error of the service
    """A refusal: status and message for the client."""

    def __init__(self, status: int, problem: str, **headers: str) -> None:
        super().__init__(problem)
        self.status = status
        self.headers = headers


@dataclass(frozen=True, slots=True)
class _Asker:
    """Who sent a request.

    Args:
        trusted: whether the client may do everything.
        peer: over the local socket, the process; None over TCP.
    """

    trusted: bool
    peer: Peer | None = None

    @property
    def uid(self) -> int | None:
        return None if self.peer is None else self.peer.uid

    def holder(self, said: _Holder | None) -> Holder:
        """The holder of what the client takes: by the kernel where possible, else as it states. Raises _Refused."""
        if self.peer is not None:
            command = "" if said is None else said.command
            user = user_name(self.peer.uid)
            return Holder(os.uname().nodename, self.peer.pid, self.peer.started(), command, user, self.peer.uid)
        if said is None:
            raise _Refused(400, "holder: Field required")
        return Holder(said.host, said.pid, None, said.command, said.user)

    def took(self, record: LeaseRecord, holder: Holder) -> bool:
        """Whether this client took the lease; a trusted client does not hold another's.

        Over TCP the client is known only by what it states itself.
        """
        there = record.holder
        if self.uid is not None or there.uid is not None:
            return self.uid == there.uid
        return (there.host, there.pid, there.user) == (holder.host, holder.pid, holder.user)

    def must_own(self, record: LeaseRecord) -> None:
        """Raise _Refused where the client may not touch the lease."""
        owner = record.holder
        if self.trusted or owner.uid == self.uid:
            return
        if owner.uid is None:
            raise _Refused(403, f"lease {record.id} was not taken over this socket; use the address where it was")
        if self.peer is None:
            raise _Refused(403, f"lease {record.id} is {owner.user}'s, who took it over the local socket; use that")
        raise _Refused(403, f"lease {record.id} is {owner.user}'s, and you are {user_name(self.peer.uid)}")


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


def concerns(path: str) -> bool:
    """Whether a request for this path is about leases."""
    return path == PATH or path.startswith(f"{PATH}/")


def unavailable() -> web.Response:
    """The answer while the leases cannot be read."""
    return _json(503, {"error": "the leases cannot be read now; the log says why"}, **{"Retry-After": "5"})


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

    async def answer(
        self, request: web.Request, *, local: bool, peer: Peer | None = None, door: Door | None = None
    ) -> web.StreamResponse:
        """The answer to a request.

        Args:
            request: it.
            local: whether only this host can reach the address that it came to.
            peer: who sent it, where it came over the local socket.
            door: bounds the connections.
        """
        with nullcontext() if door is None else door.busy(request.transport):
            return await self._answered(request, local=local, peer=peer, door=door)

    async def _answered(
        self, request: web.Request, *, local: bool, peer: Peer | None, door: Door | None
    ) -> web.StreamResponse:
        try:
            return await self._answer(request, self._admit(request, local=local, peer=peer), door)
        except _Refused as refused:
            return _json(refused.status, {"error": str(refused)}, **refused.headers)
        except LeasesUnknownError as error:
            return _json(503, {"error": str(error)}, **{"Retry-After": "5"})

    def _admit(self, request: web.Request, *, local: bool, peer: Peer | None) -> _Asker:
        """Who the client has proven to be. Raises _Refused where it has to prove that and has not."""
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if self._token is not None and (given or peer is None):
            proven = scheme.lower() == "bearer" and hmac.compare_digest(_bytes(given.strip()), _bytes(self._token))
            if not proven:
                wanted = "the token of [leases] is required: Authorization: Bearer TOKEN"
                raise _Refused(401, wanted, **{"WWW-Authenticate": "Bearer"})
            return _Asker(trusted=True, peer=peer)
        if peer is not None:
            return _Asker(trusted=peer.uid in self._trusted, peer=peer)
        if not local:
            raise _Refused(403, "this address can be reached from elsewhere, so [leases] must have token_file or token_env")
        return _Asker(trusted=False)

    async def _answer(self, request: web.Request, asker: _Asker, door: Door | None) -> web.StreamResponse:
        name = request.path.removeprefix(PATH).removeprefix("/")
        if not name:
            if request.method == "POST":
                return await self._take(request, asker, door)
            if request.method in ("GET", "HEAD"):
                return await self._list(request)
            raise _Refused(405, "GET lists the leases, POST takes one", Allow="GET, HEAD, POST")
        if (record := self._book.find(name)) is not None and request.method in ("PUT", "DELETE"):
            asker.must_own(record)
        if request.method == "PUT":
            return self._found(self._book.heard(name), name)
        if request.method == "DELETE":
            return self._found(self._book.release(name, _cause(request), _over_for(request)), name)
        raise _Refused(405, "PUT is a heartbeat, DELETE gives the lease back", Allow="PUT, DELETE")

    async def _list(self, request: web.Request) -> web.StreamResponse:
        """All leases, or those that have changed since an earlier answer: a few at once, since there may be thousands."""
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

    async def _take(self, request: web.Request, asker: _Asker, door: Door | None) -> web.StreamResponse:
        wanted = await _read(request, asker)
        if wanted.hold and door is not None and not door.may_hold(request.transport):
            raise _Refused(429, "so many connections are leases that no more can be; send heartbeats")
        record, status = self._taken(wanted, asker)
        del wanted  # what it has read is not kept while the client stays connected
        given = document(record)
        if asker.trusted or asker.peer is not None:
            given["endpoints"] = sorted(self._endpoints())
        if record.sort is Liveness.CONNECTION:
            return await self._hold(request, record, given, status)
        return _json(status, given, **_place(record))

    def _taken(self, wanted: _Request, asker: _Asker) -> tuple[LeaseRecord, int]:
        """The lease for a request, and the answer's status. The request is not kept while the client stays connected."""
        if self._closing:
            raise _Refused(503, "the service is about to end; ask the next one", **{"Retry-After": "1"})
        sort = Liveness.CONNECTION if wanted.hold else Liveness.HEARTBEAT
        claims = [Claim.of(claim.model_dump()) for claim in wanted.claims]
        try:
            check_all(claims, None if asker.trusted else self._claimable)
        except ClaimError as error:
            raise _Refused(403 if error.denied else 400, str(error)) from None
        holder = asker.holder(wanted.holder)
        if wanted.id is not None and (there := self._book.find(wanted.id)) is not None:
            if not asker.took(there, holder):
                whose = there.holder.user or there.holder.host
                raise _Refused(409, f"lease {wanted.id} is there already, and is {whose}'s; take another id")
            if list(there.claims) != claims or there.sort is not sort:
                raise _Refused(409, f"lease {wanted.id} is there already, and is another one")
            return self._book.heard(wanted.id) or there, 200
        if wanted.id is not None and self._book.known(wanted.id) is not None:
            raise _Refused(409, f"lease {wanted.id} has ended, or is another reaper's; take another id")
        opened = [record.holder.uid for record in self._book.open_records()]
        if len(opened) >= MOST:
            raise _Refused(429, f"{MOST} leases are open already")
        if not asker.trusted and opened.count(asker.uid) >= MOST_OF_ONE:
            whose = "that were taken over TCP" if asker.uid is None else f"of {holder.user}"
            raise _Refused(429, f"{MOST_OF_ONE} leases {whose} are open already")
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
            while _listens(request) and self._book.watches(record.id) and not self._closing:
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
            raise _Refused(404, f"no lease {name} is open here; what it covered is not covered any more")
        return _json(200, document(record))


def _bytes(text: str) -> bytes:
    """A header's value as it was sent: it may be no UTF-8."""
    return text.encode(errors="surrogateescape")


def _listens(request: web.Request) -> bool:
    return request.transport is not None and not request.transport.is_closing()


def _cause(request: web.Request) -> str:
    """Why a lease is given back, for people."""
    said = request.query.get("cause", "")[:LONGEST_CAUSE]
    return "".join(c if c.isprintable() else " " for c in said) or "released"


def _over_for(request: web.Request) -> timedelta:
    """How long ago that ended for which a lease was taken. Raises _Refused."""
    text = request.query.get("over_for", "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= LONGEST_OVER:
        raise _Refused(400, f"over_for: it is a number of seconds from 0 to {LONGEST_OVER}")
    return timedelta(seconds=seconds)


def _place(record: LeaseRecord) -> dict[str, str]:
    return {"Location": f"{PATH}/{record.id}"}


async def _read(request: web.Request, asker: _Asker) -> _Request:
    # A page in a browser cannot send that elsewhere without being asked about it first, and reaches no socket.
    if request.content_type != _JSON and asker.peer is None:
        raise _Refused(415, f"send {_JSON}")
    body = b""
    try:
        with anyio.fail_after(BODY_WITHIN):
            while len(body) <= LONGEST and not request.content.at_eof():
                body += await request.content.read(LONGEST + 1 - len(body))
    except TimeoutError:
        raise _Refused(408, f"the request was not whole within {BODY_WITHIN:g} s", Connection="close") from None
    except (web.HTTPException, web.RequestPayloadError) as error:
        raise _Refused(400, f"the request cannot be read: {type(error).__name__}", Connection="close") from None
    if len(body) > LONGEST:
        raise _Refused(413, f"a lease has at most {LONGEST} bytes")
    try:
        return _Request.model_validate_json(body)
    except ValidationError as error:
        _explain(error)


def _explain(error: ValidationError) -> NoReturn:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    raise _Refused(400, f"{where}: {first['msg']}" if where else str(first["msg"])) from None


def _json(status: int, body: dict[str, Any], **headers: str) -> web.Response:
    return web.Response(status=status, text=json.dumps(body, indent=2) + "\n", content_type=_JSON, headers=headers)
