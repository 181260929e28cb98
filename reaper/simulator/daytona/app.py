"""Daytona's API over HTTP: who may ask what and how often, and how the answers look."""

import asyncio
import hashlib
import json
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from http import HTTPStatus
from itertools import islice
from typing import Any

from aiohttp import web

from reaper.simulator.clock import Clock
from reaper.simulator.control import Traffic, add_control
from reaper.simulator.daytona.limits import Limit, Throttler, WrongKeys
from reaper.simulator.daytona.model import Sandbox, as_item, as_sandbox, micros, stamp
from reaper.simulator.daytona.query import parse, parse_older
from reaper.simulator.daytona.rules import Behaviour, Refusal
from reaper.simulator.daytona.second import PREFIX as SECOND
from reaper.simulator.daytona.second import SecondPlatform
from reaper.simulator.daytona.state import Organisation
from reaper.simulator.faults import Faults, Handler, middleware
from reaper.simulator.world import SandboxSpec

DELETE, WRITE = "delete:sandboxes", "write:sandboxes"
GENERAL, LIFECYCLE, CREATE = "authenticated", "sandbox-lifecycle", "sandbox-create"
LISTING = "sandbox-list"  # newer servers count it apart
Work = Callable[[web.Request, "_Home"], Awaitable[web.Response]]
PREFIX = "/api"
_MANY = 5000
_FORKS = 100  # of a sandbox are listed
_MAINTENANCE = "Service is currently under maintenance. Please try again later."
_THROTTLED = "ThrottlerException: Too Many Requests"


@dataclass(slots=True)
class Key:
    """An API key: whose it is, what it may, and until when it is good (simulated time)."""

    organisation: str
    permissions: frozenset[str] = frozenset({DELETE, WRITE})
    expires: datetime | None = None


@dataclass(slots=True)
class _Home:
    """An organisation and what the HTTP side keeps for it."""

    organisation: Organisation
    throttlers: dict[str, Throttler] = field(default_factory=dict)
    cache: dict[str, tuple[int, bytes]] = field(default_factory=dict)


class Daytona:
    """A Daytona server with any number of organisations.

    Args:
        clock: what its time is measured by.
        faults: struck by the organisation's name as endpoint, or `daytona` where no key names the organisation.
        seed: decides what is made up.
        behaviour: of all organisations, unless one is given for one.
        wrong_keys: so many wrong keys in so many seconds block an address for as long; 10 in 60 s when None.
    """

    def __init__(
        self,
        clock: Clock,
        faults: Faults,
        *,
        seed: int = 0,
        behaviour: Behaviour | None = None,
        wrong_keys: Limit | None = None,
    ) -> None:
        self.clock = clock
        self.faults = faults
        self.traffic = Traffic(clock)
        self.keys: dict[str, Key] = {}
        self.maintenance = False
        self.wrong_keys = WrongKeys(wrong_keys or Limit(10, 60.0), clock)
        self.url = "http://127.0.0.1"  # where it listens; set when it listens
        self._seed = seed
        self._behaviour = behaviour or Behaviour()
        self._homes: dict[str, _Home] = {}
        self.second = SecondPlatform(lambda request: key.organisation if (key := self._key_of(request)) else None)

    # What is there

    def add_organisation(
        self, name: str, *, behaviour: Behaviour | None = None, general: Limit | None = None, lifecycle: Limit | None = None
    ) -> Organisation:
        """A new organisation, with a key `key(name)` that may do all. No limit: neither counted nor reported."""
        organisation = Organisation(name, self.clock, self._seed, behaviour or self._behaviour)
        self._homes[name] = _Home(organisation)
        self.set_limits(name, general=general, lifecycle=lifecycle)
        self.keys[self.key(name)] = Key(name)
        return organisation

    def key(self, name: str) -> str:
        """The organisation's first key."""
        return _secret(f"{self._seed}/{name}")

    def add_key(self, name: str, permissions: Iterable[str] = (DELETE, WRITE), expires: datetime | None = None) -> str:
        """Another key of the organisation, which may do only what `permissions` say beyond listing and reading."""
        text = _secret(f"{self._seed}/{name}/{len(self.keys)}")
        self.keys[text] = Key(name, frozenset(permissions), expires)
        return text

    def organisation(self, name: str) -> Organisation:
        """The organisation of that name."""
        return self._homes[name].organisation

    def set_limits(
        self, name: str, *, general: Limit | None = None, lifecycle: Limit | None = None, listing: Limit | None = None
    ) -> None:
        """Set the limits of an organisation, and forget what was counted."""
        limits = {GENERAL: general, LIFECYCLE: lifecycle, LISTING: listing}
        home = self._homes[name]
        home.throttlers = {group: Throttler(limit, self.clock) for group, limit in limits.items() if limit is not None}

    def dump(self) -> dict[str, Any]:
        """What the organisations hold, in short."""
        shown: dict[str, Any] = {}
        for name, home in self._homes.items():
            home.organisation.settle()
            states: dict[str, int] = {}
            for row in home.organisation.rows.values():
                if not row.hidden:
                    states[row.shown] = states.get(row.shown, 0) + 1
            shown[name] = {"sandboxes": sum(states.values()), "states": dict(sorted(states.items()))}
        return {"organisations": shown, "maintenance": self.maintenance}

    @property
    def _proxy(self) -> str:
        return f"{self.url}/toolbox"

    # HTTP

    def app(self) -> web.Application:
        """The aiohttp application: everything below /api, and the control API."""
        strike = middleware(self.faults, self._endpoint, self.clock, self._names, self.error)
        app = web.Application(middlewares=[self.traffic.middleware(), self._dated, strike, self._envelope])
        one = PREFIX + "/sandbox/{sandboxIdOrName}"
        route = app.router.add_route
        route("GET", PREFIX + "/health", self._health)
        route("GET", PREFIX + "/regions", self._guarded(self._regions, GENERAL))
        route("GET", PREFIX + "/sandbox", self._guarded(self._list, LISTING))
        route("POST", PREFIX + "/sandbox", self._guarded(self._create, CREATE, WRITE))
        route("GET", PREFIX + "/sandbox/paginated", self._guarded(self._paginated, GENERAL))
        route("GET", one, self._guarded(self._get, GENERAL))
        route("GET", one + "/forks", self._guarded(self._forks, GENERAL))
        route("DELETE", one, self._guarded(self._change(Organisation.delete), LIFECYCLE, DELETE))
        route("POST", one + "/start", self._guarded(self._change(Organisation.start), LIFECYCLE, WRITE))
        route("POST", one + "/stop", self._guarded(self._change(Organisation.stop), LIFECYCLE, WRITE))
        route("POST", one + "/archive", self._guarded(self._change(Organisation.archive), LIFECYCLE, WRITE))
        for path, timer in (("autostop", "auto_stop"), ("autodelete", "auto_delete")):
            route("POST", f"{one}/{path}/{{interval}}", self._guarded(self._set_timer(timer), GENERAL, WRITE))
        self.second.add_routes(app)
        add_control(app, self.traffic, self.dump)
        return app

    def error(self, request: web.Request, status: int, message: str) -> web.Response:
        """An error in the server's envelope."""
        if request.path.startswith(SECOND):
            return self.second.error(status, message)
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = "Http Exception"
        body = {
            "path": request.raw_path,
            "timestamp": stamp(micros(self.clock.now())),
            "statusCode": status,
            "error": phrase,
            "message": message,
        }
        return web.json_response(body, status=status)

    @web.middleware
    async def _dated(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Clients measure by the Date how far their clock is from the server's, which shows in all its times."""
        answer = await handler(request)
        if not answer.prepared:
            answer.headers.setdefault("Date", format_datetime(self.clock.now(), usegmt=True))
        return answer

    @web.middleware
    async def _envelope(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refusal as refusal:
            return self.error(request, refusal.status, refusal.message)
        except web.HTTPException as raised:
            if raised.status < 400:
                raise
            if not request.path.startswith((f"{PREFIX}/", SECOND)):  # the dashboard's, whatever was asked
                return web.Response(text="<!doctype html><title>Daytona</title>", content_type="text/html")
            return self.error(request, 404, f"Cannot {request.method} {request.raw_path}")

    def _of_token(self, token: str) -> Organisation | None:
        key = self.keys.get(token)
        if key is None or (key.expires is not None and key.expires <= self.clock.now()):
            return None
        return self._homes[key.organisation].organisation

    def _key_of(self, request: web.Request) -> Key | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return self.keys[token] if scheme == "Bearer" and self._of_token(token) is not None else None

    def _endpoint(self, request: web.Request) -> str:
        key = self._key_of(request)
        return "daytona" if key is None else key.organisation

    def _names(self, request: web.Request) -> Sequence[str]:
        wanted = request.match_info.get("sandboxIdOrName")
        key = self._key_of(request)
        if wanted is None or key is None:
            return ()
        try:
            row = self._homes[key.organisation].organisation.find(wanted)
        except Refusal:
            return (wanted,)
        return (row.id, row.name)

    def _guarded(self, work: Work, group: str, permission: str | None = None) -> Handler:
        """Before the work: maintenance, the key, the limit, the permission, in this order."""

        async def guard(request: web.Request) -> web.StreamResponse:
            if self.maintenance:
                raise Refusal(503, _MAINTENANCE)
            address = request.remote or "unix"
            blocked = self.wrong_keys.blocked(address)
            if blocked is not None:
                answer = self.error(request, 429, _THROTTLED)
                answer.headers["Retry-After"] = str(math.ceil(blocked))
                return answer
            key = self._key_of(request)
            if key is None:
                self.wrong_keys.count(address)
                raise Refusal(401, "Invalid credentials")
            home = self._homes[key.organisation]
            counted = GENERAL if group == LISTING and group not in home.throttlers else group
            throttler = home.throttlers.get(counted)
            headers: dict[str, str] = {}
            if throttler is not None:
                cooldown = throttler.hit()
                if cooldown is not None:
                    answer = self.error(request, 429, _THROTTLED)
                    answer.headers[f"Retry-After-{counted}"] = str(math.ceil(cooldown))
                    return answer
                headers = throttler.headers(counted)
            home.organisation.settle()
            try:
                if permission is not None and permission not in key.permissions:
                    raise Refusal(403, "Access denied")
                answer = await work(request, home)
            except Refusal as refusal:
                answer = self.error(request, refusal.status, refusal.message)
            answer.headers.update(headers)
            return answer

        return guard

    # Reading

    async def _list(self, request: web.Request, home: _Home) -> web.Response:
        query = parse(_params(request))
        views = home.organisation.views
        rows, cursor = query.page(views.pick(), views.lost)
        items = b",".join([row.item or self._item(row) for row in rows])
        body = b'{"items":[' + items + b'],"nextCursor":' + _bytes(cursor) + b"}"
        return web.Response(body=body, content_type="application/json", charset="utf-8")

    async def _regions(self, _: web.Request, home: _Home) -> web.Response:
        rows = [{"id": id_, "name": name, "organizationId": None} for id_, name in home.organisation.regions.items()]
        return _json(rows)

    def _item(self, row: Sandbox) -> bytes:
        row.item = _bytes(as_item(row, self._proxy))
        return row.item

    async def _paginated(self, request: web.Request, home: _Home) -> web.Response:
        query = parse_older(_params(request))
        organisation = home.organisation
        walk = organisation.views.fresh.walk("createdAt", descending=True)  # of the database: no index is asked
        rows = query.sorted(row for row in walk if row.id in organisation.rows)
        page, limit = query.page, query.limit
        items = [as_sandbox(row, self._proxy) for row in rows[(page - 1) * limit : page * limit]]
        return _json({"items": items, "total": len(rows), "page": page, "totalPages": math.ceil(len(rows) / limit)})

    async def _get(self, request: web.Request, home: _Home) -> web.Response:
        wanted = request.match_info["sandboxIdOrName"]
        now = home.organisation.now()
        cached = home.cache.get(wanted)
        if cached is None or cached[0] <= now:
            row = home.organisation.find(wanted)
            until = now + int(home.organisation.behaviour.get_cache * 1_000_000)
            cached = (until, self._dumped(row))
            if len(home.cache) >= _MANY:
                home.cache = {key: entry for key, entry in home.cache.items() if entry[0] > now}
            home.cache[wanted] = cached
        return web.Response(body=cached[1], content_type="application/json", charset="utf-8")

    async def _forks(self, request: web.Request, home: _Home) -> web.Response:
        organisation = home.organisation
        forks = organisation.forks(organisation.find(request.match_info["sandboxIdOrName"]))
        return _json([as_sandbox(fork, self._proxy) for fork in islice(forks, _FORKS)])

    def _dumped(self, row: Sandbox) -> bytes:
        return _bytes(as_sandbox(row, self._proxy, by_id=True))

    # Changing

    def _change(self, act: Callable[[Organisation, Sandbox, int], None]) -> Work:
        """Read the row, and a moment later write it, unless another request did so in between."""

        async def change(request: web.Request, home: _Home) -> web.Response:
            organisation = home.organisation
            row = organisation.find(request.match_info["sandboxIdOrName"])
            version, name = row.version, row.name
            if organisation.behaviour.race:
                await asyncio.sleep(organisation.behaviour.race)
                organisation.settle()
            act(organisation, row, version)
            for known in (row.id, name, row.name):
                home.cache.pop(known, None)
            return web.Response(body=self._dumped(row), content_type="application/json", charset="utf-8")

        return change

    def _set_timer(self, timer: str) -> Work:
        """Likewise, for an interval."""

        async def change(request: web.Request, home: _Home) -> web.Response:
            minutes = request.match_info["interval"]
            return await self._change(lambda org, row, version: org.set_timer(row, version, timer, minutes))(request, home)

        return change

    async def _create(self, request: web.Request, home: _Home) -> web.Response:
        try:
            body = await request.json()
            spec = SandboxSpec(
                name=body.get("name") or "",
                state="creating",
                desired="started",
                labels=body.get("labels") or {},
                target=body.get("target") or "us",
                snapshot=body.get("snapshot") or "daytonaio/sandbox:0.5.0-slim",
                public=bool(body.get("public")),
                auto_stop=_or(body.get("autoStopInterval"), 15),
                auto_archive=_or(body.get("autoArchiveInterval"), 10080),
                auto_delete=_or(body.get("autoDeleteInterval"), -1),
                linked=body.get("linkedSandbox"),
            )
        except (ValueError, AttributeError):
            raise Refusal(400, "Unexpected token in JSON") from None
        spec = home.organisation.linked(spec)
        try:
            row = home.organisation.add(spec, known=False)
        except ValueError:
            raise Refusal(409, f"Sandbox with name {spec.name} already exists") from None
        return web.Response(body=self._dumped(row), content_type="application/json", charset="utf-8")

    # What clients ask on the way

    async def _health(self, _: web.Request) -> web.Response:
        return _json({"status": "ok"})


def _secret(text: str) -> str:
    return f"dtn_{hashlib.sha256(text.encode()).hexdigest()}"


def _or(value: str | float | None, default: int) -> int:
    return default if value is None else int(value)


def _params(request: web.Request) -> dict[str, list[str]]:
    query = request.query
    return {key: query.getall(key) for key in query}


def _bytes(body: object) -> bytes:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def _json(body: object) -> web.Response:
    return web.Response(body=_bytes(body), content_type="application/json", charset="utf-8")
