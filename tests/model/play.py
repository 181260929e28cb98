"""Plays one run: the whole program against the simulated endpoints, step by step, and what it is held against."""

import asyncio
import json
import logging
import random
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import anyio
import pytest
from aiohttp import web

from reaper.config.settings import EvidenceTable, JournalTable, Settings
from reaper.core.lease import Claim
from reaper.core.lease_index import Leases
from reaper.core.model import Outcome, Report
from reaper.core.rules import Rules
from reaper.core.scope import Selector
from reaper.errors import LeasesUnknownError
from reaper.leases.record import Holder, LeaseRecord, Liveness
from reaper.leases.sources import NAME, KnownLeases
from reaper.leases.store import LeaseFile
from reaper.leases.watcher import LeaseBook
from reaper.liveness import Alive, lock_file, new_token
from reaper.observers.journal_db import Database
from reaper.providers.daytona.registration import REGISTRATION as DAYTONA
from reaper.providers.daytona.settings import DaytonaTable
from reaper.providers.docker.registration import REGISTRATION as DOCKER
from reaper.providers.docker.settings import DockerTable
from reaper.providers.registration import EndpointSpec
from reaper.retry.retrier import RetryPolicy
from reaper.service.endpoint_worker import EndpointWorker
from reaper.service.loaded import Loaded
from reaper.service.reporter import Reporter
from reaper.session import Session
from reaper.simulator.faults import Handler
from reaper.sweep import connect
from reaper.sweep.plan import Plan
from reaper.sweep.ports import Endpoint, Observer, Options, Stop
from reaper.sweep.pressure import Relief, with_relief
from reaper.sweep.result import SweepResult
from reaper.sweep.runner import exit_code
from tests.daytona.loop import LoopClock
from tests.model import features, script, state_files
from tests.model.disk import Meter
from tests.model.script import Mode, Step
from tests.model.watch import BrokenPromiseError, Watch, is_lost_when_stopped
from tests.model.wire import Network, joined
from tests.model.world import HOUR, DaytonaPlace, DockerPlace, Place, Run, World
from tests.promise import oracle, program, truth
from tests.promise.oracle import Oracle
from tests.sweep.loops import JumpingLoop

TIMEOUT = timedelta(minutes=10)
DISKS = ("works", "works", "full", "broken", "hangs")  # of the evidence, which changes nothing that is deleted
ROUNDS = 6  # sweeps after the end of all faults, after which nothing reapable is left
WATCHED = 3  # so many until what was unused for ten minutes is known to be
MEMORY = Path("/dev/shm")


@dataclass
class Played:
    """What came of a run.

    Attributes:
        failure: what was found wrong.
        log: what happened.
        faults: how often each kind struck.
        went: how many of what kind were deleted, and why.
    """

    seed: int
    mode: Mode
    failure: str | None = None
    log: list[str] = field(default_factory=list)
    steps: int = 0
    sweeps: int = 0
    requests: int = 0
    deleted: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    went: Counter[str] = field(default_factory=Counter)


class _Bugs(Observer):
    """Says which error was unexpected."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def bug(self, endpoint: str, error: BaseException) -> None:
        self._watch.fail(f"an internal error on {endpoint}: {error!r}")


class Play:
    """One run."""

    def __init__(self, played: Played, folder: Path) -> None:
        seed = played.seed
        self.played = played
        self.folder = folder
        self.clock = LoopClock(truth.NOW)
        self.world = World(seed, self.clock, script.config(seed))
        for number, place in enumerate(self.world.dockers):
            place.disk = features.disk_size(seed, number)
        self.watch = Watch(self.world)
        self.network = Network(seed)
        self.rules: Rules = program.rules(truth.World(self.world.config))
        self.evidence = random.Random(f"evidence/{seed}").choice((EvidenceTable(), EvidenceTable(logs=20, inspect=True)))
        self.quotas = program.limits(truth.World(self.world.config))
        self.planned: dict[int, list[tuple[str, int]]] = {}  # what people do in this step
        self.ids: dict[str, str] = {}
        self.listing_faults: dict[str, list[str]] = {}
        self.book: LeaseBook | None = None
        self.granted: frozenset[str] = frozenset()
        self.on_lease_end: Callable[[], object] = lambda: None
        self.stack = AsyncExitStack()

    # -- the servers ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """The servers listen, and the program finds them."""
        runners: list[web.AppRunner] = []
        with joined(self.network, self.clock, self.world.host.machine):
            for place in self.world.places:
                docker = isinstance(place, DockerPlace)
                app = place.simulator.app() if isinstance(place, DockerPlace) else place.daytona.app()  # type: ignore[attr-defined]
                app.middlewares.insert(0, self._listings(place))
                app.middlewares.insert(0, self.watch.middleware(place))
                runner = web.AppRunner(app, access_log=None, handler_cancellation=docker, shutdown_timeout=0.2)
                await runner.setup()
                runners.append(runner)
                assert runner.server is not None
                self.network.servers[self.address(place)] = runner.server
            try:
                yield
            finally:
                for place in self.world.places:
                    place.faults.release()
                for runner in runners:
                    await runner.cleanup()

    def address(self, place: Place) -> str:
        """Where it listens."""
        return f"/run/{place.name}.sock" if isinstance(place, DockerPlace) else f"{place.name}.test:80"

    def _listings(self, place: Place) -> Any:
        @web.middleware
        async def lose(request: web.Request, handler: Handler) -> web.StreamResponse:
            answer = await handler(request)
            is_list = request.path.endswith(("/containers/json", "/networks", "/volumes", "/images/json", "/api/sandbox"))
            waiting = self.listing_faults.get(place.name)
            body = answer.body if isinstance(answer, web.Response) else None
            if not waiting or not is_list or not isinstance(body, bytes) or answer.status != 200 or body[:1] not in b"[{":
                return answer
            kind = waiting.pop(0)
            if kind == "pass":
                return answer
            self.played.faults[f"listing: {kind}"] += 1
            assert isinstance(answer, web.Response)
            answer.body = _listing(request.path, body, kind)
            return answer

        return lose

    # -- the program ---------------------------------------------------------------------------------------------------

    def specs(self) -> tuple[EndpointSpec, ...]:
        """The endpoints as the configuration would name them."""
        found = []
        for place in self.world.places:
            if isinstance(place, DaytonaPlace):
                target = self.world.config.target
                net = {"auto_stop": "1d", "auto_delete": "3d"} if self.world.config.safety_net else None
                fields: dict[str, Any] = {"target": target, "safety_net": net}
                table = DaytonaTable(name=place.name, api_url=f"http://{self.address(place)}/api", **fields)
                found.append(EndpointSpec(DAYTONA, table, place.daytona.key(place.name)))
            else:
                found.append(EndpointSpec(DOCKER, DockerTable(name=place.name, host=f"unix://{self.address(place)}")))
        return tuple(found)

    def session(self, options: Options, reaper: str = "a") -> Session:
        """A session of a process of its own."""
        has_disks = features.has_pressure(self.played.seed)
        plan = Plan(
            endpoints=self.specs(),
            rules=self.rules,
            options=options,
            retry=RetryPolicy(),
            state=self.folder / reaper,
            journal=JournalTable(),
            evidence=self.evidence,
            quotas=self.quotas,
        )
        made = _OnDisks(plan, sockets=(), observers=[_Bugs(self.watch)], clock=self.clock.now)
        made.places = self.world.dockers if has_disks else ()
        return made

    async def once(self, options: Options, reaper: str = "a", leases: Callable[[], Leases] | None = None) -> Report:
        """What ``reaper --once`` does."""
        self.played.sweeps += 1
        async with self.session(options, reaper) as session:
            known = leases or KnownLeases(self.folder / "a", ())
            stop, its_own = Stop(), reaper == "a" and leases is None
            has_disks = its_own and options.act and features.has_pressure(self.played.seed)
            report = await stop.within(TIMEOUT, lambda: self._swept(session, options, known, stop, has_disks=has_disks))
        self.log_report(report)
        return report

    async def _swept(
        self, session: Session, options: Options, leases: Callable[[], Leases], stop: Stop, *, has_disks: bool
    ) -> Report:
        """A sweep, after one under pressure where a disk is too full."""
        found: dict[str, Relief] = {}
        for endpoint in session.endpoints if has_disks else ():
            if (relief := await session.relieve(endpoint, options=options, stop=stop)) is not None:
                found[endpoint.reader.endpoint] = relief
        for place in self.world.places if self.watch.reapers == 1 else ():
            place.pressed = False
        report = await session.sweep(options=options, leases=leases, stop=stop)
        return with_relief(report, found, {name: relief.after for name, relief in found.items()}, session.plan.disk)

    def log_report(self, report: Report) -> None:
        """Note what a sweep said."""
        for endpoint in report.endpoints:
            results = Counter(result.outcome.value for result in endpoint.results)
            self.played.deleted += results["deleted"]
            deleted = [result.decision for result in endpoint.results if result.outcome is Outcome.DELETED]
            for decision in deleted:
                by_quota = any(quota.name == decision.policy for quota in self.quotas)
                self.played.went[f"{decision.resource.kind}: {'quota' if by_quota else decision.reason}"] += 1
            self.log(f"    {endpoint.endpoint}: {dict(results)} {endpoint.failure or ''} {endpoint.cap or ''}")
            for decision in endpoint.decisions:
                result = next((r for r in endpoint.results if r.decision is decision), None)
                what = f"{result.outcome}: {result.detail}" if result else decision.reason
                name = f"{decision.resource.kind} {decision.resource.name} [{decision.resource.raw_state}]"
                self.log(f"        {name} {what}; {decision.sentence}")

    def log(self, line: str) -> None:
        self.played.log.append(line)

    # -- leases --------------------------------------------------------------------------------------------------------

    def changed(self, record: LeaseRecord) -> None:
        """See ``watcher.LeaseListener``."""
        if record.state.ended:
            self.on_lease_end()

    def failed(self, error: LeasesUnknownError) -> None:
        """See ``watcher.LeaseListener``."""
        self.watch.fail(f"the leases cannot be watched: {error}")

    def _take(self, run: Run) -> bool:
        if self.book is None:
            return False
        self.granted = frozenset(self.ids[name] for name in run.endpoints)
        claims = tuple(Claim(Selector(c.labels, c.names, c.images), c.projects) for c in run.claims)
        self.book.take(Liveness.HEARTBEAT, Holder("gpu-1"), claims, name=run.id)
        return True

    def _give_back(self, run: Run) -> None:
        if self.book is not None:
            self.book.release(run.id)
        else:
            run.over, run.alive = None, False  # it was not heard of: its heartbeats will be missed

    @asynccontextmanager
    async def leasing(self) -> AsyncIterator[None]:
        """The service watches the holders while the block runs, and those that live send heartbeats."""
        path = self.folder / "a" / NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        alive = Alive(lock_file(path), new_token())
        book = LeaseBook(
            LeaseFile(path),
            self.clock.now,
            self,
            token=alive.token,
            lives=alive.lives_or_unknown,
            endpoints=lambda: self.granted,
        )
        book.open()
        self.book = book
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(book.run)
                group.start_soon(self._beat)
                yield
                group.cancel_scope.cancel()
        finally:
            self.book = None
            book.close()
            alive.close()

    async def _beat(self) -> None:
        while True:
            for run in self.world.runs.values():
                if run.alive and run.over is None and self.book is not None:
                    if self.book.heard(run.id) is None:
                        self.watch.fail(f"the lease {run.id} ended although its holder lives")
                        run.alive = False
                    run.heard = self.clock.now()
            await anyio.sleep(30)

    # -- steps ---------------------------------------------------------------------------------------------------------

    async def play(self, steps: Sequence[Step]) -> None:
        """Play all steps. Raises BrokenPromiseError."""
        self.world.take, self.world.give_back = self._take, self._give_back
        async with self.serving():
            await self._identify()
            numbered = list(enumerate(steps))
            while numbered:
                async with self.leasing():
                    while numbered:
                        number, step = numbered.pop(0)
                        self.played.steps += 1
                        self.log(f"{number} {step.kind} at {self.clock.now():%d %H:%M:%S}")
                        if step.kind == "later":
                            break
                        await self._step(step)
                    if not numbered and self.played.mode == "liveness":
                        await self._finish()
                self.clock.advance(
                    random.Random(steps[-1].salt if not numbered else step.salt).choice((HOUR, 7 * HOUR, 25 * HOUR))
                )

    async def _identify(self) -> None:
        self.watch.begin()
        async with self.session(Options(act=False)) as session:
            await connect.identify(session.endpoints)
            for endpoint in session.endpoints:
                assert endpoint.reader.endpoint_id is not None
                self.ids[endpoint.reader.endpoint] = endpoint.reader.endpoint_id

    async def _step(self, step: Step) -> None:
        rng = random.Random(step.salt)
        self.watch.begin()
        if step.kind == "wait":
            await anyio.sleep(rng.choice((60.0, 61.0, 420.0, 700.0)))
        elif step.kind == "lose_state":
            self._lose_state(rng)
        elif step.kind in script.SWEEPS:
            faults = self._inject(rng) if step.kind != "dry" or rng.random() < 0.5 else []
            self._deeds(rng)
            self.log(f"    {faults}")
            try:
                await getattr(self, f"_{step.kind}")(rng)
            finally:
                self._stop_faults()
                self.watch.on_request = lambda _: None
            self.played.requests += self.watch.requests
        else:
            self.world.happen(step.kind, rng)
        self.watch.raise_what_is_wrong()

    def _inject(self, rng: random.Random) -> list[str]:
        found = []
        self.network.disk = rng.choice(DISKS)
        if self.evidence.wanted and self.network.disk != "works":
            found.append(f"the disk of the evidence {self.network.disk}")
            self.played.faults[f"evidence: {self.network.disk}"] += 1
        for _ in range(rng.choice((0, 0, 1, 2, 3, 4))):
            place = rng.choice(self.world.places)
            what = rng.choice(("strike",) * 10 + ("listing", "listing", "refused"))
            if what == "strike":
                found.append(f"{place.name} {(text := script.fault(rng))}")
                place.faults.add(text)
            elif what == "listing":
                some = ["pass"] * rng.choice((0, 0, 1, 2, 3)) + [rng.choice(script.LISTINGS[place.provider])]
                self.listing_faults[place.name] = some
                found.append(f"{place.name} listing {some}")
            elif what == "refused":
                self.network.refused.add(self.address(place))
                self.played.faults["refused"] += 1
                found.append(f"{place.name} refuses connections")
        return found

    def _stop_faults(self) -> None:
        for place in self.world.places:
            for fault, _, struck in place.faults.rules():
                if struck:
                    self.played.faults[f"{fault.kind}{f' {fault.status}' if fault.status else ''}"] += struck
            place.faults.clear()
            place.faults.release()
        self.network.refused.clear()
        self.listing_faults.clear()

    def _deeds(self, rng: random.Random) -> None:
        """What people do while the program works: before some of its requests are dealt with."""
        planned = self.planned
        planned.clear()
        for _ in range(rng.choice((0, 0, 1, 2, 3))):
            deed = rng.choice(script.DEEDS), rng.randrange(1 << 32)
            planned.setdefault(rng.choice((2, 4, 6, 8, 10, 12, 15, 20, 30)), []).append(deed)

        def act(number: int) -> None:
            for kind, salt in planned.pop(number, ()):
                self.log(f"    {kind} before request {number}")
                self.world.happen(kind, random.Random(salt))

        self.watch.on_request = act

    def _lose_state(self, rng: random.Random) -> None:
        """What the program remembers is lost, but for the leases."""
        for name in ("a", "b"):
            way = state_files.lose(self.folder / name, rng)
            if way == "folder" and self.played.mode == "liveness":
                state_files.repair(self.folder / name)
        self.played.faults[f"state lost: {way}"] += 1
        self.world.forget()

    # -- kinds of sweeps -----------------------------------------------------------------------------------------------

    def _options(self, rng: random.Random) -> Options:
        names = [policy.name for policy in self.rules.policies]
        due = frozenset(rng.sample(names, rng.randrange(len(names) + 1))) if names and rng.random() < 0.15 else None
        cap = rng.choice((None, None, None, None, 0, 1, 3))
        return Options(
            due=due,
            fail_fast=rng.random() < 0.1,
            inspect_everything=rng.random() < 0.1,
            max_deletions=cap,
            max_lease_deletions=cap,
            max_fraction=rng.choice((None, None, None, 0.5)),
            safety_net=True,
            quotas=self.quotas,
        )

    async def _once(self, rng: random.Random) -> None:
        options, began = self._options(rng), self.clock.now()
        alone = not self.planned
        report = await self.once(options)
        self.watch.check_report(report, acted=True, code=exit_code(report))
        if self.quotas and alone:
            self.watch.check_quotas(began)
        if options.max_deletions is not None:
            passes = 2 if features.has_pressure(self.played.seed) else 1
            self.watch.check_cap(report, passes * options.max_deletions)
        self.watch.check_journal(self.folder / "a")
        records = state_files.wrong_records(self.folder / "a", report, began)
        for wrong in (*records, *state_files.wrong_document(report, exit_code(report))):
            self.watch.fail(wrong)

    async def _dry(self, rng: random.Random) -> None:
        before = state_files.content(self.folder / "a")
        report = await self.once(Options(act=False, inspect_everything=rng.random() < 0.5))
        self.watch.check_report(report, acted=False, code=exit_code(report))
        if (after := state_files.content(self.folder / "a")) != before:
            changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
            self.watch.fail(f"a dry run has changed {changed}")

    async def _no_leases(self, rng: random.Random) -> None:
        def unknown() -> Leases:
            raise LeasesUnknownError("the leases cannot be read: the disk is broken")

        report = await self.once(self._options(rng), leases=unknown)
        if self.watch.changes:
            self.watch.fail("something was to be deleted though no lease could be read")
        self.watch.check_report(report, acted=True, code=exit_code(report))

    async def _full_disk(self, rng: random.Random) -> None:
        def full(*_: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        self.played.faults["full disk"] += 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Database, "begin", full)
            patch.setattr(Database, "finish", full)
            report = await self.once(self._options(rng))
        self.watch.check_report(report, acted=True, code=exit_code(report))

    async def _two(self, rng: random.Random) -> None:
        """Another reaper sweeps at the same time."""
        self.watch.reapers = 2
        lag, reports = rng.choice((0.0, 0.003, 0.01, 0.05, 0.5, 5.0)), []
        state = "a" if features.shares_state(self.played.seed) else "b"

        async def other() -> None:
            await anyio.sleep(lag)
            reports.append(await self.once(Options(quotas=self.quotas), state))

        async with anyio.create_task_group() as group:
            group.start_soon(other)
            reports.append(await self.once(self._options(rng)))
        for report in reports:
            self.watch.check_report(report, acted=True, code=exit_code(report), alone=False)

    async def _killed(self, rng: random.Random) -> None:
        """The process is killed at some request."""
        at, people = rng.choice((1, 2, 3, 5, 8, 10, 12, 14, 17, 20, 25)), self.watch.on_request
        scope, session, self.played.sweeps = anyio.CancelScope(), self.session(Options()), self.played.sweeps + 1

        def kill(number: int) -> None:
            people(number)
            if number == at:
                self.network.cut = True
                scope.cancel()

        self.watch.on_request = kill
        async with session:
            with scope:
                await session.sweep(leases=KnownLeases(self.folder / "a", ()))
            await anyio.sleep(1)  # what it had sent arrives
        if scope.cancelled_caught:
            self.played.faults["killed"] += 1
            self.log(f"    killed at request {at}")
            self.network.cut = False
        self.watch.check_journal(self.folder / "a")

    async def _service(self, rng: random.Random) -> None:
        """The service for a while: its workers, which follow the events, and sweep when something is due."""
        options = Options(max_deletions=rng.choice((None, None, 3)), safety_net=True, quotas=self.quotas)
        names = [policy.name for policy in self.rules.policies]
        reporter = cast("Reporter", _Watching(self))
        async with self.session(options) as session, anyio.create_task_group() as group:
            loaded = Loaded(Settings(), session.plan)
            workers = [EndpointWorker(endpoint, session, lambda: loaded, reporter) for endpoint in session.endpoints]

            def lease_ended() -> None:
                for worker in workers:
                    worker.leases_ended()

            self.on_lease_end = lease_ended
            for worker in workers:
                group.start_soon(worker.run)
            for _ in range(rng.choice((1, 2, 4))):
                for worker in workers:
                    worker.post(name for name in names)
                await anyio.sleep(rng.choice((5.0, 120.0, 300.0)))
                if rng.random() < 0.5:
                    self.world.happen(rng.choice(script.DEEDS), rng)
            self.on_lease_end = lambda: None
            for worker in workers:
                worker.retire(timedelta(seconds=10))

    # -- liveness ------------------------------------------------------------------------------------------------------

    async def _finish(self) -> None:
        """Faults and people have stopped: within a few sweeps nothing reapable is left."""
        self.log("all faults end")
        for place in self.world.places:
            if isinstance(place, DaytonaPlace):
                place.recover()
        await anyio.sleep(900)
        stuck: Counter[str] = Counter()  # in how many sweeps it was to go and has not
        watched = [place.use for place in self.world.places if place.use is not None]
        for number in range(2 * ROUNDS):
            self.watch.begin()
            due = {place.name: self._expected(place) for place in self.world.places}
            halts = {place.name: self._to_stop(place) for place in self.world.places}
            report = await self.once(Options(quotas=self.quotas))
            code = exit_code(report)
            self.watch.check_report(report, acted=True, code=code)
            self.watch.check_journal(self.folder / "a")
            self.watch.raise_what_is_wrong()
            there = {place.name: self._things(place) for place in self.world.places}
            left = {key: there[name][key] for name, keys in due.items() for key in keys if key in there[name]}
            halted = {key: there[name][key] for name, keys in halts.items() for key in keys if key in there[name]}
            left |= {key: thing for key, thing in halted.items() if getattr(thing, "state", "") in oracle.RUNNING}
            if not left and (not code or number >= ROUNDS - 1) and (number >= WATCHED or not watched):
                break
            stuck.update(left.keys())
            if over := [thing for key, thing in left.items() if stuck[key] == ROUNDS]:
                raise BrokenPromiseError(f"after {ROUNDS} sweeps without a fault this is left: {over}")
            if not code:
                self.world.host.notice()
            for place in self.world.dockers:
                place.watched_again(is_whole=not code)
            await anyio.sleep(700)
        if code and not any(abs(place.skew) > HOUR for place in self.world.places):
            raise BrokenPromiseError(f"after {number + 1} sweeps without a fault the exit code is {code}")

    def _things(self, place: Place) -> dict[str, truth.Thing]:
        return {truth.key(thing): thing for thing in oracle.things(self.world.truth(place))}

    def _expected(self, place: Place) -> Collection[str]:
        """What nothing keeps there, whatever only the runs know of themselves.

        Of a volume the simulated engine, as those before Docker 23, does not tell when it was made: no claim takes it.
        """
        known, sure = Oracle(self.world.truth(place)), Oracle(self.world.truth(place, sure=True))
        return [
            key
            for key in known.expected & sure.expected
            if not isinstance(thing := known.things[key], truth.Volume) or "reaper.lease" in (thing.labels or {})
        ]

    def _to_stop(self, place: Place) -> Collection[str]:
        """What runs there, stands alone, and is to be stopped at least: what another one depends on stays as it is."""
        known, sure = (Oracle(self.world.truth(place, sure=exactly), "stop") for exactly in (False, True))
        used = {used for thing in known.things.values() for used in known.dependencies(thing)}
        halts = [
            key
            for key in (known.expected & sure.expected) - used
            if getattr(thing := known.things[key], "state", "") in ("running", "started") and not is_lost_when_stopped(thing)
        ]
        return [key for key in halts if not {truth.PROJECT, truth.SESSION} & (known.things[key].labels or {}).keys()]


class _OnDisks(Session):
    """A session whose engines, those of ``places``, have disks."""

    places: Sequence[DockerPlace] = ()

    def connect(self, plan: Plan) -> list[Endpoint]:
        """See ``Session``."""
        found = super().connect(plan)
        for endpoint in found:
            for place in self.places:
                if place.name == endpoint.reader.endpoint:
                    endpoint.reader.meter = Meter(place, random.Random(f"meter/{place.made}"))  # type: ignore[attr-defined]
        return found


class _Watching:
    """Holds each sweep of the service against the oracle."""

    def __init__(self, play: Play) -> None:
        self._play = play

    def _place(self, worker: EndpointWorker) -> Place:
        return next(place for place in self._play.world.places if place.name == worker.name)

    def began(self, worker: EndpointWorker, _due: frozenset[str]) -> None:
        self._play.played.sweeps += 1
        self._play.watch.begin_sweep(self._place(worker))

    def swept(self, _worker: EndpointWorker, _due: frozenset[str], report: Report, _result: SweepResult) -> None:
        self._play.log_report(report)
        self._play.watch.check_report(report, acted=True, code=exit_code(report))

    def too_late(self, _endpoint: str, _policies: Sequence[str]) -> None:
        pass

    def bug(self, endpoint: str, error: BaseException) -> None:
        self._play.watch.fail(f"an internal error on {endpoint}: {error!r}")

    def left(self, endpoint: str) -> None:
        """Nothing to say."""

    def stumbled(self, endpoint: str, error: BaseException) -> None:
        self._play.watch.fail(f"an internal error in the events of {endpoint}: {error!r}")

    def watching(self, endpoint: str, *, connected: bool, error: str = "") -> None:
        pass

    def disk(self, *_: object, **__: object) -> None:
        """Nothing to say."""


def _listing(path: str, answer: bytes, kind: str) -> bytes:
    """A listing that has lost rows, or is none."""
    if kind == "no list":
        return b"{}"
    body = json.loads(answer)
    name = {"/volumes": "Volumes", "/api/sandbox": "items"}.get(path[path.rindex("/") :] if path != "/api/sandbox" else path)
    if name is not None:
        return json.dumps({**body, name: [] if kind == "no rows" else (body[name] or [])[::2]}).encode()
    return json.dumps([] if kind == "no rows" else body[::2]).encode()


def run(seed: int, mode: Mode, only: Collection[int] | None = None) -> Played:
    """Play the run of a seed; of its steps only these, if any are given."""
    played = Played(seed, mode)
    steps = [step for number, step in enumerate(script.steps(seed, mode)) if only is None or number in only]

    async def main(folder: Path) -> None:
        logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
        asyncio.get_running_loop().set_exception_handler(unexpected)
        play = Play(played, folder)
        try:
            await play.play(steps)
        except BrokenPromiseError as error:
            played.failure = str(error)
        except BaseExceptionGroup as group:
            broken = group.subgroup(BrokenPromiseError)
            if broken is None:
                raise
            played.failure = str(_first(broken))

    def unexpected(_: object, context: dict[str, Any]) -> None:
        """A server's task may find its connection gone; nothing else may die unseen."""
        if "RequestHandler" not in repr(context.get("future", "")):
            played.failure = played.failure or f"an error that nothing caught: {context}"

    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None, prefix="reaper-model-") as folder:
        anyio.run(main, Path(folder), backend_options={"loop_factory": JumpingLoop})
    return played


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
