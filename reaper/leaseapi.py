"""Leases over HTTP: POST /leases, PUT and DELETE /leases/ID, GET /leases.

Whoever takes one sends heartbeats, or asks with ``"hold": true`` for an answer without an end: then the open connection is
the lease, and the kernel closes it however its holder dies.

A lease is a claim of ownership: when it ends, what it covers is deleted. So whoever takes one without a token may claim
little: what carries the lease's own label, and what carries labels that the configuration sets aside for that.

Over the local socket the kernel says who asks. There root, the service's own user and the trusted ones need no token, and
what the others take is theirs: a lease belongs to the user who took it, one that was taken over TCP to nobody. Whoever is
not trusted can hear, hold and release only what belongs to him, and over TCP only what belongs to nobody.
"""

import hmac
import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, NoReturn

import anyio
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, StringConstraints, ValidationError

from reaper.claims import Claim
from reaper.errors import LeasesUnknownError
from reaper.leasebook import HEARTBEAT_DUE, LeaseBook
from reaper.leasedb import Holder, LeaseRecord, Sort
from reaper.peers import UNKNOWN_USER, Peer, user_name
from reaper.scope import LEASE_LABEL

PATH = "/leases"
LONGEST = 64 * 1024  # bytes of a request
MOST = 10_000  # leases that are open at once
MOST_OF_ONE = 1000  # of them, of one user who is not trusted
LONGEST_CAUSE = 200  # characters
LOOK_EVERY = 0.5  # seconds between two looks whether a connection is still open
SIGN_EVERY = 15.0  # seconds between two signs of life on it, by which a peer is noticed that vanished without a word
_JSON, _LINES = "application/json", "application/x-ndjson"

_Text = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=1024)]
_Texts = Annotated[tuple[_Text, ...], Field(max_length=100)]
_Id = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Claim(_Body):
    labels: _Texts = ()
    names: _Texts = ()
    images: _Texts = ()
    projects: _Texts = ()


class _Holder(_Body):
    host: _Text
    pid: Annotated[StrictInt, Field(ge=1)] | None = None
    command: Annotated[StrictStr, Field(max_length=1024)] = ""
    user: Annotated[StrictStr, Field(max_length=256)] = ""


class _Request(_Body):
    holder: _Holder | None = None
    id: _Id | None = None
    claims: Annotated[tuple[_Claim, ...], Field(max_length=100)] = ()
    hold: StrictBool = False


class _Refused(Exception):  # noqa: N818 - an answer, and no error of ours
    """What the client is told in place of what it wanted."""

    def __init__(self, status: int, problem: str, **headers: str) -> None:
        super().__init__(problem)
        self.status = status
        self.headers = headers


@dataclass(frozen=True, slots=True)
class _Asker:
    """Who sent a request.

    Args:
        trusted: whether he may do everything.
        peer: over the local socket, the process; None over TCP.
    """

    trusted: bool
    peer: Peer | None = None

    @property
    def uid(self) -> int | None:
        return None if self.peer is None else self.peer.uid

    def holder(self, said: _Holder | None) -> Holder:
        """Who holds what he takes: as the kernel says where it can, else as he says. Raises _Refused."""
        if self.peer is not None:
            command = "" if said is None else said.command
            user = user_name(self.peer.uid)
            return Holder(os.uname().nodename, self.peer.pid, self.peer.started(), command, user, self.peer.uid)
        if said is None:
            raise _Refused(400, "holder: Field required")
        return Holder(said.host, said.pid, None, said.command, said.user)

    def must_own(self, record: LeaseRecord) -> None:
        """Raise _Refused where he may not touch the lease."""
        owner = record.holder
        if self.trusted or owner.uid == self.uid:
            return
        if owner.uid is None:
            raise _Refused(403, f"lease {record.id} was not taken over this socket; use the address where it was")
        if self.peer is None:
            raise _Refused(403, f"lease {record.id} is {owner.user}'s, who took it over the local socket; use that")
        raise _Refused(403, f"lease {record.id} is {owner.user}'s, and you are {user_name(self.peer.uid)}")


def document(record: LeaseRecord) -> dict[str, Any]:
    """A lease as clients see it. It echoes id and scope, so that one notices a reaper that does not know it."""
    holder = record.holder
    return {
        "id": record.id,
        "label": f"{LEASE_LABEL}={record.id}",
        "state": record.state.value,
        "holder": {"host": holder.host, "pid": holder.pid, "command": holder.command, "user": holder.user},
        "claims": [claim.fields() for claim in record.claims],
        "since": record.since.isoformat(timespec="seconds"),
        "seen_at": record.seen_at.isoformat(timespec="seconds"),
        "ended_at": record.ended_at and record.ended_at.isoformat(timespec="seconds"),
        "cause": record.cause,
        "heartbeat_seconds": HEARTBEAT_DUE.total_seconds() if record.sort is Sort.HEARTBEAT else None,
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
        token: who sends it may do everything; None where nobody can.
        claimable: globs of label keys by which anybody on this host may claim, with a value and without a glob in it.
        trusted: the numbers of users who may do everything over the local socket, besides root and this process's own.
        endpoints: gives the identities of what the service sweeps. They may tell of hosts, so not everybody is told.
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

    async def answer(self, request: web.Request, *, local: bool, peer: Peer | None = None) -> web.StreamResponse:
        """The answer to a request.

        Args:
            request: it.
            local: whether only this host can reach the address that it came to.
            peer: who sent it, where it came over the local socket.
        """
        try:
            return await self._answer(request, self._admit(request, local=local, peer=peer))
        except _Refused as refused:
            return _json(refused.status, {"error": str(refused)}, **refused.headers)
        except LeasesUnknownError as error:
            return _json(503, {"error": str(error)}, **{"Retry-After": "5"})

    def _admit(self, request: web.Request, *, local: bool, peer: Peer | None) -> _Asker:
        """Who the client has proven to be. Raises _Refused where it has to prove that and has not."""
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if self._token is not None and (given or peer is None):
            proven = scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token.encode())
            if not proven:
                wanted = "the token of [leases] is wanted: Authorization: Bearer TOKEN"
                raise _Refused(401, wanted, **{"WWW-Authenticate": "Bearer"})
            return _Asker(trusted=True, peer=peer)
        if peer is not None:
            return _Asker(trusted=peer.uid in self._trusted, peer=peer)
        if not local:
            raise _Refused(403, "this address can be reached from elsewhere, so [leases] must have token_file or token_env")
        return _Asker(trusted=False)

    async def _answer(self, request: web.Request, asker: _Asker) -> web.StreamResponse:
        name = request.path.removeprefix(PATH).removeprefix("/")
        if not name:
            if request.method == "POST":
                return await self._take(request, asker)
            if request.method in ("GET", "HEAD"):
                return _json(200, {"leases": [document(record) for record in self._book.records()]})
            raise _Refused(405, "GET lists the leases, POST takes one", Allow="GET, HEAD, POST")
        if (record := self._book.find(name)) is not None and request.method in ("PUT", "DELETE"):
            asker.must_own(record)
        if request.method == "PUT":
            return self._found(self._book.heard(name), name)
        if request.method == "DELETE":
            return self._found(self._book.release(name, _cause(request)), name)
        raise _Refused(405, "PUT is a heartbeat, DELETE gives the lease back", Allow="PUT, DELETE")

    async def _take(self, request: web.Request, asker: _Asker) -> web.StreamResponse:
        record, status = self._taken(await _read(request, asker), asker)
        given = document(record)
        if asker.trusted or asker.peer is not None:
            given["endpoints"] = sorted(self._endpoints())
        if record.sort is Sort.CONNECTION:
            return await self._hold(request, record, given, status)
        return _json(status, given, **_place(record))

    def _taken(self, wanted: _Request, asker: _Asker) -> tuple[LeaseRecord, int]:
        """What is given for a request, and the answer's status. What it has read is not kept while somebody holds on."""
        if self._closing:
            raise _Refused(503, "the service is about to end; ask the next one", **{"Retry-After": "1"})
        sort = Sort.CONNECTION if wanted.hold else Sort.HEARTBEAT
        claims = [Claim.of(claim.model_dump()) for claim in wanted.claims]
        for claim in claims:
            self._check(claim, trusted=asker.trusted)
        holder = asker.holder(wanted.holder)
        if wanted.id is not None and (there := self._book.find(wanted.id)) is not None:
            asker.must_own(there)
            if list(there.claims) != claims or there.sort is not sort:
                raise _Refused(409, f"lease {wanted.id} is there already, and is another one")
            return self._book.heard(wanted.id) or there, 200
        known = self._book.records()
        if any(record.id == wanted.id for record in known):
            raise _Refused(409, f"lease {wanted.id} has ended, or is another reaper's; take another id")
        opened = [record.holder.uid for record in known if not record.state.ended]
        if len(opened) >= MOST:
            raise _Refused(429, f"{MOST} leases are open already")
        if asker.peer is not None and not asker.trusted and opened.count(asker.uid) >= MOST_OF_ONE:
            raise _Refused(429, f"{MOST_OF_ONE} leases of {holder.user} are open already")
        return self._book.take(sort, holder, claims, name=wanted.id), 201

    async def _hold(
        self, request: web.Request, record: LeaseRecord, given: dict[str, Any], status: int
    ) -> web.StreamResponse:
        """Answer for as long as the client listens: a line with the lease, and an empty one now and then."""
        self._connections[record.id] += 1
        try:
            answer = web.StreamResponse(status=status, headers={"Content-Type": _LINES, **_place(record)})
            await answer.prepare(request)
            await answer.write(json.dumps(given).encode() + b"\n")
            quiet = 0.0
            while _listens(request) and self._book.watches(record.id) and not self._closing:
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
                    self._book.lost(record.id)
        return answer

    def _check(self, claim: Claim, *, trusted: bool) -> None:
        """Raise _Refused unless the client may claim this."""
        selector = claim.selector
        if claim == Claim():
            raise _Refused(400, "an empty claim claims nothing; leave it out")
        if trusted:
            return
        if selector.names or selector.images or claim.projects:
            raise _Refused(403, "claims by name, image or project need a token; without one claim by labels")
        for label in selector.labels:
            key, equals, value = label.partition("=")
            if not equals or not value or any(c in value for c in "*?["):
                raise _Refused(403, f"label {label!r}: without a token a label is claimed with its value, and without globs")
            if not any(fnmatchcase(key, glob) for glob in self._claimable):
                raise _Refused(403, f"label {label!r}: [leases] claimable does not have {key!r}")

    @staticmethod
    def _found(record: LeaseRecord | None, name: str) -> web.Response:
        if record is None:
            raise _Refused(404, f"no lease {name} is open here; what it covered is not covered any more")
        return _json(200, document(record))


def _listens(request: web.Request) -> bool:
    return request.transport is not None and not request.transport.is_closing()


def _cause(request: web.Request) -> str:
    """Why a lease is given back, for people."""
    said = request.query.get("cause", "")[:LONGEST_CAUSE]
    return "".join(c if c.isprintable() else " " for c in said) or "released"


def _place(record: LeaseRecord) -> dict[str, str]:
    return {"Location": f"{PATH}/{record.id}"}


async def _read(request: web.Request, asker: _Asker) -> _Request:
    # A page in a browser cannot send that elsewhere without being asked about it first, and reaches no socket.
    if request.content_type != _JSON and asker.peer is None:
        raise _Refused(415, f"send {_JSON}")
    body = await request.content.read(LONGEST + 1)
    while len(body) <= LONGEST and not request.content.at_eof():
        body += await request.content.read(LONGEST + 1 - len(body))
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
