"""What is held against the oracle: each request that would change something, each report, and the journal."""

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Middleware

from reaper.core.model import Decision, Kind, Outcome, Reason, Report
from reaper.simulator.faults import Handler
from tests.model.world import Place, World
from tests.promise import limits, oracle, truth
from tests.promise.oracle import Oracle

LINKED_LATE = timedelta(seconds=2)  # what is linked to a sandbox within that time before its deletion may not be seen
LONGEST_LOOK = timedelta(minutes=2)  # from the last look at something to the request that deletes it
_DOCKER = re.compile(r"^(?:/v[0-9.]+)?/(containers|networks|volumes|images)/([^/]+(?:/[^/]+)*?)(/json|/stop|/kill)?$")
_DAYTONA = re.compile(r"^/api/sandbox/([^/]+)(/stop|/archive|/autostop/\d+|/autodelete/\d+)?$")


class BrokenPromiseError(AssertionError):
    """A rule of deletion does not hold, or a report is not true."""


@dataclass(frozen=True)
class Listed:
    """One listing: when, what had to stay by what it showed, and whether it asked for all that there is."""

    at: float
    to_stay: frozenset[str]
    whole: bool


class Watch:
    """Looks at all requests of the program.

    Attributes:
        requests: how many there have been in this step.
        changes: of these, the ones that would change something.
        asked: ids of what was asked to be deleted, stopped or archived in this step, by the endpoint's name.
        on_request: is called with the number of each request before it is dealt with.
        wrong: what was found wrong; raised when the step ends, since the program may catch what is raised in a handler.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        actions = {"delete", *(policy.action for policy in world.config.policies)}
        actions |= {"stop"} if "archive" in actions else set()
        actions |= {"timer"} if world.config.safety_net else set()
        self.deeds = tuple(deed for deed in oracle.DEEDS if deed in actions)
        self.requests = self.changes = 0
        self.asked: dict[str, set[str]] = {}
        self.reapers = 1  # at work in this step: nothing tells whose a look was
        self.seen: dict[str, list[tuple[frozenset[str], float]]] = {}  # at each look: what might be done, and when that was
        self.signs: dict[str, list[tuple[object, ...]]] = {}  # how it was at each look of a sweep, until something was done
        self.listed: dict[tuple[str, str], list[Listed]] = {}
        self.timed: set[str] = set()
        self.on_request: Callable[[int], object] = lambda _: None
        self.wrong: list[str] = []
        self.statuses: Counter[str] = Counter()

    def begin(self) -> None:
        """A step begins."""
        self.requests, self.changes, self.reapers = 0, 0, 1
        self.seen.clear()
        self.timed.clear()
        self.listed.clear()
        for place in self.world.places:
            self.begin_sweep(place)

    def fail(self, what: str) -> None:
        """Something is wrong."""
        self.wrong.append(what)

    def begin_sweep(self, place: Place) -> None:
        """A sweep of one endpoint begins."""
        self.asked[place.name] = set()
        self.signs.clear()
        place.acted.clear()
        place.exceeded.clear()
        place.pressed = False

    def raise_what_is_wrong(self) -> None:
        """Raise BrokenPromiseError if anything is."""
        if self.wrong:
            raise BrokenPromiseError("; ".join(self.wrong[:3]))

    # -- requests ------------------------------------------------------------------------------------------------------

    def middleware(self, place: Place) -> Middleware:
        """The outermost one of a server."""

        @web.middleware
        async def watch(request: web.Request, handler: Handler) -> web.StreamResponse:
            self.requests += 1
            self.on_request(self.requests)
            target, deed = _target(request.path)
            must_refuse = None
            if request.method == "DELETE" and "/images/" in request.path and not (target or "").startswith("sha256:"):
                self.fail(f"{request.path} deletes a name, and perhaps not its image")
            if request.method != "GET":
                self.changes += 1
                if target is None or (deed is None and request.method != "DELETE"):
                    self.fail(f"{request.method} {request.path} is nothing that the program may ask for")
                else:
                    must_refuse = self._check(place, target, deed or "delete", request.path)
            answer = await handler(request)
            if must_refuse is not None and (request.query.get("force") or not self._is_there(place, f"{target}")):
                self.fail(f"{must_refuse}, and the answer was {answer.status}")
            if request.method == "GET" and (shown := _body(answer)) is not None:
                self._saw(place, request, target, shown)
            return answer

        return watch

    def _saw(self, place: Place, request: web.Request, target: str | None, shown: bytes) -> None:
        """The program has looked at something, or at a group: no answer shows both, so each is held to what it showed."""
        if target is not None:
            self._note_signs(place, target)
            might = frozenset(deed for deed in self.deeds if self._might(place, target, deed))
            self.seen.setdefault(target, []).append((might, self.world.clock.elapsed()))
        elif place.use is not None and (kind := _followers(request.path)) is not None:
            there = self.world.truth(place)
            place.use.shown((truth.key(thing) for thing in getattr(there, kind)), there.now)
        elif request.path.endswith(("/containers/json", "/api/sandbox")) and (rows := _rows(shown)) is not None:
            whole = "createdAtAfter" not in request.query
            for deed in self.deeds:
                first, second = self._views(place, deed, partial(_as_listed, rows=rows))
                to_stay = frozenset(key.removeprefix("volume ") for key in first.never.keys() & second.never.keys())
                self.listed.setdefault((place.name, deed), []).append(Listed(self.world.clock.elapsed(), to_stay, whole))

    def _might(self, place: Place, target: str, deed: str) -> bool:
        """Whether that might be done with it by what this look shows and the listings have shown."""
        never, _ = self._never(place, target, deed)
        by_itself = not any(not _is_of_others(why) for why in never)
        return not never or (by_itself and not self._listed_to_stay(place, target, never, deed))

    def _listed_to_stay(self, place: Place, target: str, never: Iterable[str], deed: str) -> bool:
        """Whether the listings showed that it had to stay: the last one, or all that a program may have gone by.

        Another program's listing tells this one nothing; and no listing shows what links a sandbox: that is asked of what
        one of the last second or two has shown to be new (docs/safety.md, the windows that remain).
        """
        listed = self.listed.get((place.name, deed), [])
        links = place.provider == "daytona" and all(_is_used(why) for why in never)
        if self.reapers > 1 or links:
            since = self.world.clock.elapsed() - LINKED_LATE.total_seconds()
            listed = [one for one in listed if one.at >= since] or listed
        else:
            listed = [one for one in listed if one.whole][-1:]  # of a session, one that shows what is new tells nothing
        return all(target in one.to_stay for one in listed)

    def _note_signs(self, place: Place, target: str) -> None:
        now = next((thing for thing in oracle.things(self.world.truth(place)) if truth.key(thing) == target), None)
        if now is not None and target not in place.acted and self.reapers == 1:
            self.signs.setdefault(target, []).append(_signs(now))

    def _has_changed(self, target: str) -> bool:
        """Whether the last look at it was the only one that showed it so: no decision can rest on that.

        The answer to another one may have been lost, so that the first one says nothing.
        """
        *before, last = self.signs.get(target, [None])
        return bool(before) and last not in before

    def _views(
        self, place: Place, deed: str, shown: Callable[[truth.World], truth.World] = lambda world: world
    ) -> tuple[Oracle, Oracle]:
        """How it is, and how it would be had the program done nothing in this step; of that, what is shown."""
        raw = self.world.truth(place)
        now = Oracle(shown(raw), deed)
        undone = Oracle(shown(place.undone(raw)), deed) if place.acted else now
        place.remembered |= now.owned_in_groups | undone.owned_in_groups
        return now, undone

    def _never(self, place: Place, target: str, deed: str) -> tuple[list[str], truth.Thing | None]:
        """Why it must stay by both views, and what it was before the program did anything."""
        now, undone = self._views(place, deed)
        key = next((key for key in (target, f"volume {target}") if key in undone.things), target)
        first = now.never.get(key, [] if key in now.things else ["it is gone"])
        second = undone.never.get(key, [])
        first, second = ([why for why in found if not self._is_hidden(now, why)] for found in (first, second))
        return ([*first, *second] if first and second else []), undone.things.get(key)

    def _is_hidden(self, now: Oracle, why: str) -> bool:
        """Whether only an inspection tells that, and none of this step was answered: what has ended lives in nothing."""
        user = now.things.get(why.removesuffix(" depends on it"))
        return isinstance(user, truth.Container) and user.state not in oracle.RUNNING and user.id not in self.seen

    def _check(self, place: Place, target: str, what: str, path: str) -> str | None:
        """Note what is wrong with a request, or return what is unless the engine refuses it: a volume that is in use."""
        deed = what if what in self.deeds else "delete"
        never, thing = self._never(place, target, deed)
        if deed != "timer":
            self.asked[place.name].add(target)
        if is_lost_when_stopped(thing) and deed == "stop":
            deed = "delete"
            never, thing = self._never(place, target, deed)
        if thing is None:
            return None  # it is gone, or never was: nothing comes of it
        key = truth.key(thing)
        done = key in place.acted and oracle.DEEDS.index(place.did[key]) >= oracle.DEEDS.index(deed)
        if done and not self._came_back(place, key):
            return None  # once more, since the answer was lost
        looks = self.seen.get(target, [(frozenset(), float("-inf"))])
        if never and not any(deed in might for might, _ in looks[-self.reapers :]):
            wrong = f"{what} {thing} on {place.name}, which must stay: {never}"
            if isinstance(thing, truth.Image) and any(_is_used(why) for why in never):
                return wrong
            if isinstance(thing, truth.Volume) and (all if place.use is None else any)(_is_used(why) for why in never):
                return wrong
            self.fail(wrong)
        if self.world.clock.elapsed() - looks[-1][1] > LONGEST_LOOK.total_seconds():
            self.fail(f"{what} {thing} on {place.name} without a look at it in the last {LONGEST_LOOK}")
        if deed == "timer":
            self._check_timer(path, thing)
            return None
        if key not in place.acted and self._has_changed(target):
            self.fail(f"{what} {thing} on {place.name}, which had changed since it was decided about")
        place.act(key, thing, self.world.truth(place), deed)
        return None

    def _check_timer(self, path: str, thing: truth.Thing) -> None:
        """One that is off is turned on, for a day at least."""
        name, minutes = path.split("/")[-2:]
        is_off = isinstance(thing, truth.Sandbox) and (thing.auto_stop == 0 if name == "autostop" else thing.auto_delete < 0)
        if int(minutes) < 24 * 60 or not (is_off or path in self.timed):
            self.fail(f"{path} for {thing}")
        self.timed.add(path)

    def _is_there(self, place: Place, key: str) -> bool:
        return any(truth.key(thing) in (key, f"volume {key}") for thing in oracle.things(self.world.truth(place)))

    def _came_back(self, place: Place, key: str) -> bool:
        """Whether someone has started it again since the program stopped it."""
        now = next((thing for thing in oracle.things(self.world.truth(place)) if truth.key(thing) == key), None)
        before = place.acted[key]
        if isinstance(now, truth.Container) and isinstance(before, truth.Container):
            return now.started != before.started
        return False

    # -- reports -------------------------------------------------------------------------------------------------------

    def check_report(self, report: Report, *, acted: bool, code: int, alone: bool = True) -> None:
        """What it says is true, as far as it can be known from outside."""
        if not acted and self.changes:
            self.fail(f"{self.changes} requests of a dry run would change something")
        for endpoint in report.endpoints:
            place = next(place for place in self.world.places if place.name == endpoint.endpoint)
            there = {truth.key(thing) for thing in oracle.things(self.world.truth(place))}
            if endpoint.failure is not None and endpoint.failure.label == "internal_error":
                self.fail(f"an internal error on {place.name}: {endpoint.failure.message}")
            ids = [_key(result.decision) for result in endpoint.results]
            if len(ids) != len(set(ids)):
                self.fail(f"two results for one of {ids}")
            reaped = {decision.resource.id for decision in endpoint.decisions if decision.reap}
            said = reaped | {result.decision.resource.id for result in endpoint.results}  # some of what went before
            if alone and (unsaid := self.asked[place.name] - said):
                self.fail(f"{sorted(unsaid)} on {place.name} was to be deleted, and the report says so nowhere")
            for result in endpoint.results:
                name = f"{result.decision.resource.kind} {result.decision.resource.name} on {place.name}"
                if result.outcome.removed and _key(result.decision) in there:
                    self.fail(f"{name} is called {result.outcome}, and is there")
                if result.outcome is Outcome.STOPPED and alone and self._runs_on(place, _key(result.decision)):
                    self.fail(f"{name} is called {result.outcome}, and runs")
                done = result.outcome is not Outcome.STOPPED or result.decision.action == "stop"
                if code == 0 and (not done or result.outcome in (Outcome.FAILED, Outcome.ABANDONED)):
                    self.fail(f"the exit code is 0, and {name} is {result.outcome}: {result.detail}")
            missing = reaped - {result.decision.resource.id for result in endpoint.results}
            if acted and missing:
                self.fail(f"there is no result for {sorted(missing)} on {place.name}")
            if code == 0 and (endpoint.failure is not None or endpoint.cap is not None):
                self.fail(f"the exit code is 0 with {endpoint.failure or endpoint.cap}")

    def _runs_on(self, place: Place, key: str) -> bool:
        """Whether a container runs as it did before the program asked for its stop."""
        now = next((thing for thing in oracle.things(self.world.truth(place)) if truth.key(thing) == key), None)
        before = place.acted.get(key)
        if not isinstance(now, truth.Container) or not isinstance(before, truth.Container):
            return False
        return now.state in oracle.RUNNING and now.started == before.started

    def check_cap(self, report: Report, cap: int) -> None:
        """No more of what leases have left, nor of all else, was to be deleted than the cap of each allows."""
        for endpoint in report.endpoints:
            asked = self.asked[endpoint.endpoint]
            done = [result.decision for result in endpoint.results if result.decision.resource.id in asked]
            of_leases = sum(decision.reason is Reason.LEASE_ENDED for decision in done)
            others = sum(decision.lease is None and decision.reap for decision in done)
            if max(of_leases, others) > cap:
                self.fail(f"{of_leases} and {others} deletions on {endpoint.endpoint} with a cap of {cap} for each")

    def check_quotas(self, began: datetime) -> None:
        """Nothing was to be deleted for a quota that was kept to without it: it ran alone. Windows may have closed since."""
        for place in self.world.places:
            before = place.undone(self.world.truth(place))
            config = replace(before.config, quotas=())
            without = [Oracle(replace(before, config=config, now=now)) for now in (began + place.skew, before.now)]
            gone = [thing for key, thing in place.acted.items() if place.did[key] == "delete"]
            counted = [thing for thing in gone if isinstance(thing, truth.Container | truth.Sandbox)]
            taken = [one for one in counted if all("no policy takes it" in o.never.get(truth.key(one), ()) for o in without)]
            if needless := limits.needless(Oracle(_before_timers(before)), counted, taken):
                self.fail(f"{needless} on {place.name} went for a quota that is kept to without it")

    def check_journal(self, state: Path) -> None:
        """All that the program asked to be deleted in this step can be accounted for."""
        asked = {target for targets in self.asked.values() for target in targets}
        if not asked:
            return
        file = state / "journal.db"
        on_record: set[str] = set()
        with suppress(sqlite3.Error):
            connection = sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)
            try:
                on_record = {row[0] for row in connection.execute("SELECT resource FROM act")}
            finally:
                connection.close()
        if missing := asked - on_record:
            self.fail(f"the journal knows nothing of the deletion of {sorted(missing)}")


def _before_timers(world: truth.World) -> truth.World:
    """With what the platform's timer may have stopped by itself since the listing as it was then: it took memory."""
    boxes = (replace(box, state="started") if box.state == "stopped" and box.auto_stop else box for box in world.sandboxes)
    return replace(world, sandboxes=tuple(boxes))


def _signs(thing: truth.Thing) -> tuple[object, ...]:
    """What must be as it was when it was decided about."""
    return getattr(thing, "state", None), getattr(thing, "started", None), thing.labels


def _is_of_others(why: str) -> bool:
    """Whether it must stay because of others: an inspection of it alone does not show that."""
    return why.startswith(("its project", "its session", "its network is")) or _is_used(why)


def _is_used(why: str) -> bool:
    return why.endswith("depends on it")


def _key(decision: Decision) -> str:
    resource = decision.resource
    return f"volume {resource.id}" if resource.kind is Kind.VOLUME else resource.id


def _body(answer: web.StreamResponse) -> bytes | None:
    """What it says, if that can be read and is no refusal."""
    is_answer = isinstance(answer, web.Response) and answer.status == HTTPStatus.OK and isinstance(answer.body, bytes)
    return answer.body if is_answer and answer.body[:1] in (b"{", b"[") else None  # type: ignore[attr-defined]


def _rows(shown: bytes) -> list[dict[str, Any]] | None:
    """What a listing lists; None of an answer that is none."""
    try:
        found = json.loads(shown)
    except ValueError:
        return None
    rows = found.get("items") if isinstance(found, dict) else found
    return rows if isinstance(rows, list) else None


def _followers(path: str) -> str | None:
    """Which of the oracle's worlds' fields a listing shows."""
    ends = {"/networks": "networks", "/volumes": "volumes", "/images/json": "images"}
    return next((kind for end, kind in ends.items() if path.endswith(end)), None)


def _as_listed(world: truth.World, rows: list[dict[str, Any]]) -> truth.World:
    """A world with the sandboxes as a listing shows them: Daytona's lags."""
    listed = {row["id"]: row for row in rows if world.sandboxes}

    def shown(one: truth.Sandbox) -> truth.Sandbox:
        if (row := listed.get(one.id)) is None:
            return one
        wanted = row["desiredState"] if row["desiredState"] != row["state"] else None
        return replace(one, labels=row.get("labels"), state=row["state"], wanted=wanted)

    return replace(world, sandboxes=tuple(shown(one) for one in world.sandboxes))


def is_lost_when_stopped(thing: truth.Thing | None) -> bool:
    """Whether a stop would destroy it."""
    return bool(getattr(thing, "auto_remove", False)) or getattr(thing, "auto_delete", -1) == 0


def _target(path: str) -> tuple[str | None, str | None]:
    """What a request addresses, and what it would do with it besides deleting it."""
    if (found := _DAYTONA.match(path)) is not None:
        return found[1], found[2] and ("timer" if "/auto" in found[2] else found[2][1:])
    found = _DOCKER.match(path)
    if found is None or found[2] in ("json", "create", "prune"):
        return None, None
    return found[2], {"/stop": "stop", "/kill": "stop"}.get(found[3] or "")
