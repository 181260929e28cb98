"""The documents of the lease API: what a request may hold, how it is read, and a lease as clients see it."""

import json
from typing import Annotated, Any, NoReturn

import anyio
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

from reaper.core.claim_check import MOST_CLAIMS, MOST_ENTRIES
from reaper.core.scope import LEASE_LABEL
from reaper.leases.authorization import RefusedError, Requester
from reaper.leases.record import HEARTBEAT_DUE, Holder, LeaseRecord, Liveness

LONGEST = 64 * 1024  # bytes of a request
LARGEST_PID = 2**31 - 1
LONGEST_AGE = 31_536_000  # seconds: a year
BODY_WITHIN = 10.0  # seconds for a whole request
_JSON = "application/json"


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


class LeaseRequest(_Body):
    """What a client asks for."""

    holder: _Holder | None = None
    id: _Id | None = None
    claims: Annotated[tuple[_Claim, ...], Field(max_length=MOST_CLAIMS)] = ()
    hold: StrictBool = False
    max_age_seconds: Annotated[float, Field(strict=True, ge=1, le=LONGEST_AGE, allow_inf_nan=False)] | None = None


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
        "max_age_seconds": None if record.max_age is None else record.max_age.total_seconds(),
        "ended_by": record.ended_by or None,
        "heartbeat_seconds": HEARTBEAT_DUE.total_seconds() if record.sort is Liveness.HEARTBEAT else None,
    }


async def read(request: web.Request, requester: Requester) -> LeaseRequest:
    """Return what a request for a lease holds. Raises RefusedError."""
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
        return LeaseRequest.model_validate_json(body)
    except ValidationError as error:
        _explain(error)


def _explain(error: ValidationError) -> NoReturn:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    raise RefusedError(400, f"{where}: {first['msg']}" if where else str(first["msg"])) from None


def answer_json(status: int, body: dict[str, Any], **headers: str) -> web.Response:
    """Return an answer with a document."""
    return web.Response(status=status, text=json.dumps(body, indent=2) + "\n", content_type=_JSON, headers=headers)
