"""``reaper ryuk``: what Testcontainers' libraries start in the place of Ryuk. It lives for as long as a session does.

It has no policies and owns nothing: all that goes is what a lease covers that has ended. Clients that are connected are
alive, whatever else happens; what is theirs is never touched, not even when this program is stopped.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import anyio.abc

from reaper import __version__, exits
from reaper.config import load
from reaper.config.secrets import ryuk_secret
from reaper.config.settings import Settings
from reaper.core.lease import Lease
from reaper.core.lease_index import Leases
from reaper.core.model import Decision, EndpointReport, Reason, Report
from reaper.core.scope import Scope
from reaper.descriptors import make_room
from reaper.errors import ConfigError, LeasesUnknownError
from reaper.leases.listening import inherited
from reaper.leases.record import LeaseRecord
from reaper.leases.ryuk_server import Ryuk
from reaper.leases.sources import NAME, other_service, service_at
from reaper.leases.store import LeaseFile
from reaper.leases.watcher import RESTART_WINDOW, LeaseBook
from reaper.liveness import Alive, lock_file, new_token
from reaper.observers.log import LogObserver
from reaper.paths import sockets_to_ask
from reaper.providers.docker.registration import REGISTRATION
from reaper.retry.retrier import RetryPolicy
from reaper.ryuk import entrypoint
from reaper.ryuk.settings import RyukSettings
from reaper.session import Session, utc_now
from reaper.sweep import connect
from reaper.sweep.plan import Plan
from reaper.sweep.runner import exit_code
from reaper.sweep.sweep import Options, Stop

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

DESCRIPTORS = 4096  # each client is one
FIRST_LOOK = timedelta(minutes=1)  # at the engine
TICK = 0.2  # seconds between two looks whether the session is over
BEFORE_RYUK = timedelta(minutes=1)
"""The session that starts this program has made something before: Python's library a network, and containers meanwhile.

It carries the id that the session has made up for itself, which nothing older can carry.
"""
PAUSE = 1.0  # seconds until what did not go is tried again
SAME_SIGNAL = 1.0  # seconds: some signal a process and its whole group, and mean one
NAMED = 20  # of what is left, in the log


def run(env: Mapping[str, str], configure: Callable[[str], "FilteringBoundLogger"]) -> int:
    """Run it, and return its exit code. Raises ConfigError.

    Args:
        env: the environment; nothing else says how it is to be.
        configure: sets the log up, at a level.
    """
    make_room(DESCRIPTORS)
    ryuk, settings = RyukSettings.of(env), load.of_environment(env).settings
    command = _Command(ryuk, settings, env, configure("debug" if ryuk.verbose else "info"))
    try:
        return anyio.run(command.run)
    finally:
        command.release()


class _Command:
    """One run of it, from the first client to the last lease.

    Args:
        ryuk: what the RYUK_ variables say.
        settings: what the REAPER_ variables say: limits, protection, claimable keys.
        env: the environment.
        log: the log.

    Raises ConfigError.
    """

    def __init__(self, ryuk: RyukSettings, settings: Settings, env: Mapping[str, str], log: "FilteringBoundLogger") -> None:
        self._ryuk, self._env, self._log = ryuk, env, log
        # Only leases own anything. The original kills; who has lost its client has nothing to end in order any more.
        rules = replace(settings.rules(), scope=Scope(presets=()), policies=(), stop_timeout=timedelta(0))
        plan = Plan(
            endpoints=load.endpoints(settings, env, {REGISTRATION.name}),
            rules=rules,
            options=Options(max_lease_deletions=settings.limits.max_lease_deletions),
            retry=RetryPolicy(**{**dict(settings.retry), "request_timeout": ryuk.request_timeout}),
            state=load.state_directory(env),
            journal=settings.journal,
        )
        other = service_at(other_service(env), env)
        self._session = Session(plan, observers=[LogObserver(log)], sockets=sockets_to_ask(env), other=other, log=log)
        self._book: LeaseBook | None = None
        self._alive: Alive | None = None
        secret = ryuk_secret(settings.ryuk, env)
        self._server = Ryuk(
            lambda: self._book,
            settings.leases.claimable,
            log,
            secret=secret,
            where="RYUK_PORT",
            sessions_since=utc_now() - BEFORE_RYUK,
        )
        self._news = anyio.Event()
        self._problem: str | None = None
        self._stopped_at: float | None = None
        self._due_at: float | None = None  # when to look after what ended leases have left; None when nothing is left
        self._ended_at = 0.0  # the last lease that did
        self._tries = 0
        self._left: Sequence[str] = ()
        self._code = 0
        self._young: frozenset[str] = frozenset()  # ended leases whose things are still being made

    # -- its life ------------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Serve until the session is over and what it made is gone; the exit code. Raises ConfigError."""
        failed: ConfigError | None = None
        async with anyio.create_task_group() as group:
            await group.start(self._listen_for_signals, name="signals")
            try:
                await self._run(group)
            except LeasesUnknownError as error:
                self._log.error("leases_unknown", problem=str(error))
                self._code = exits.UNLISTED
            except ConfigError as error:
                failed = error  # raised again below: the group would wrap it
            finally:
                with anyio.CancelScope(shield=True):
                    await self._server.close()
                    await self._session.close()
            group.cancel_scope.cancel()
        if failed is not None:
            raise failed
        return self._code

    def release(self) -> None:
        """Let go of the files."""
        if self._book is not None:
            self._book.close()
        if self._alive is not None:
            self._alive.close()

    async def _run(self, group: anyio.abc.TaskGroup) -> None:
        book = self._open()
        self._session.open()
        if (failure := (await self._sweep(act=False, limit=FIRST_LOOK)).endpoints[0].failure) is not None:
            self._code = exits.UNLISTED
            self._log.error("ryuk_has_no_engine", problem=failure.message)
            return
        await self._server.start(None, self._ryuk.port, inherited(self._env, entrypoint.FIRST))
        self._book = book
        group.start_soon(book.run, name="watch those who hold leases")
        group.start_soon(self._server.run, name="ryuk")
        # The libraries wait for this line in the container's log.
        sys.stdout.write(f"reaper {__version__} speaks Ryuk on port {self._server.ports[0]}. Started!\n")
        sys.stdout.flush()
        self._log.info("ryuk_started", version=__version__, port=self._server.ports[0])
        await self._keep(book)
        self._finish(book)

    def _open(self) -> LeaseBook:
        """The book. Raises LeasesUnknownError."""
        path = self._session.plan.state / NAME
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._alive = alive = Alive(lock_file(path), new_token())
        except OSError as error:
            raise LeasesUnknownError(f"the leases in {path} cannot be kept: {error.strerror or error}") from error
        window = self._ryuk.reconnection_timeout
        book = LeaseBook(
            LeaseFile(path),
            utc_now,
            self,
            token=alive.token,
            lives=alive.lives_or_unknown,
            endpoints=lambda: connect.ids(self._session.endpoints),
            connection=window,
        )
        book.open()
        return book

    async def _listen_for_signals(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async for number in signals:
                if self._stopped_at is None:
                    self._log.info("signal", signal=number.name, clients=self._server.clients)
                    self._stop()
                elif anyio.current_time() - self._stopped_at > SAME_SIGNAL:
                    # Not by the signal's default action, which does not end the first process of a container.
                    self._log.warning("ryuk_killed", signal=number.name)
                    os._exit(128 + number)

    # -- events of the lease book -------------------------------------------------------------------------------------------

    def changed(self, record: LeaseRecord) -> None:
        """See ``watcher.LeaseListener``."""
        self._problem = None
        covers = " or ".join(map(str, record.claims))
        about = {"lease": record.id, "holder": str(record.holder), "covers": covers}
        if not record.state.ended:
            self._log.info(f"lease_{record.state}", **about)
            return
        self._log.info(f"lease_{record.state}", **about, cause=record.cause)
        self._due_at = self._ended_at = anyio.current_time()
        self._tries = 0
        self._news.set()

    def failed(self, error: LeasesUnknownError) -> None:
        """See ``watcher.LeaseListener``. Said once for each problem: it is tried again every second."""
        if str(error) != self._problem:
            self._problem = str(error)
            self._log.error("leases_unknown", problem=self._problem)

    # -- the session ---------------------------------------------------------------------------------------------------

    async def _keep(self, book: LeaseBook) -> None:
        """Clean up after each lease that ends, until no client is left, or the time is up."""
        while True:
            now = anyio.current_time()
            if self._stopped_at is not None:
                self._end_disconnected(book)
            if now >= self._deadline(book):
                return
            if self._due_at is not None:
                if now >= self._due_at:
                    await self._clean(self._deadline(book) - now)
                    continue
            elif self._is_over(book, now):
                if self._stopped_at is not None:
                    return
                self._stop()  # and check once more: a client may have connected in this moment
            with anyio.move_on_after(TICK):
                await self._news.wait()
            self._news = anyio.Event()

    def _stop(self) -> None:
        """Take no new clients. Those that are connected may go on, for a while."""
        self._stopped_at = anyio.current_time()
        self._server.refuse_new()
        self._news.set()

    def _end_disconnected(self, book: LeaseBook) -> None:
        """End the leases of clients that have gone: none can come back any more.

        Those of an earlier process, which have not come yet, stay for the next one on this state directory.
        """
        for record in book.watched:
            if record.id in self._server.seen - self._server.connected:
                with suppress(LeasesUnknownError):  # it is tried again
                    book.abandon(record.id, "its connection was gone when this program ended")

    def _patience(self) -> timedelta:
        """How long a client is waited for while there is none."""
        return self._ryuk.reconnection_timeout if self._server.served else self._ryuk.connection_timeout

    def _is_over(self, book: LeaseBook, now: float) -> bool:
        if self._server.clients:
            return False
        if self._stopped_at is not None:
            return now - self._stopped_at >= TICK and not any(record.id in self._server.seen for record in book.watched)
        return not book.watched and now - self._server.quiet_since >= self._patience().total_seconds()

    def _deadline(self, book: LeaseBook) -> float:
        """When it ends, whatever is left."""
        limit = self._ryuk.shutdown_timeout.total_seconds()
        if self._stopped_at is not None:
            return self._stopped_at + limit
        if self._server.clients:
            return float("inf")
        waited = self._patience()
        if any(record.id not in self._server.seen for record in book.watched):
            waited = max(waited, RESTART_WINDOW)
        return max(self._server.quiet_since + waited.total_seconds(), self._ended_at) + limit

    def _finish(self, book: LeaseBook) -> None:
        """Say how it ends."""
        if held := [record.id for record in book.watched if record.id in self._server.connected]:
            self._code = exits.FAILED
            problem = "their clients are still connected, so nothing of theirs was deleted"
            self._log.error("clients_still_connected", leases=held[:NAMED], number=len(held), problem=problem)
        elif any(record.id in self._server.seen for record in book.watched):
            self._code = exits.UNLISTED
            self._log.error("clients_still_connected", problem=f"leases could not be ended: {self._problem}")
        if self._due_at is not None and not self._left:
            self._left = ("what leases left that ended",)
        if self._left:
            self._code = self._code or exits.FAILED
            self._log.error("ryuk_left_behind", left=list(self._left[:NAMED]), number=len(self._left))
        self._log.info("ryuk_ended", exit_code=self._code)

    # -- cleaning up ---------------------------------------------------------------------------------------------------

    async def _clean(self, limit: float) -> None:
        """One look at what ended leases have left, and one sweep of it. It is done when a look finds nothing more."""
        self._due_at, self._young = None, frozenset()  # due again when a lease ends meanwhile
        report = (await self._sweep(act=False)).endpoints[0]
        # What an ended lease covers and is in the middle of a change goes by itself.
        waiting = [d for d in report.decisions if d.reap or (d.reason is Reason.CHANGING and d.lease is not None)]
        if report.failure is None and not waiting:
            self._left, self._code = (), 0
            return
        self._left = [_name(decision) for decision in waiting]
        self._young = self._made_just_now(report)
        if report.failure is None and all(decision.lease in self._young for decision in waiting):
            self._log.debug("ryuk_changes_under_way", leases=sorted(self._young))
            self._again(self._ryuk.changes_retry_interval)
            return
        if any(decision.reap for decision in waiting) and await self._sweep_away(limit):
            self._again(self._ryuk.changes_retry_interval)
            return
        if report.failure is not None:
            self._left, self._code = [f"unknown, since it cannot be listed: {report.failure.message}"], exits.UNLISTED
        self._tries += 1
        if self._tries >= self._ryuk.remove_retries or self._code == exits.CAP:
            self._log.error("ryuk_gave_up", tries=self._tries, left=list(self._left[:NAMED]), number=len(self._left))
        else:
            self._again(timedelta(seconds=PAUSE))

    def _again(self, pause: timedelta) -> None:
        if self._due_at is None:
            self._due_at = anyio.current_time() + pause.total_seconds()

    async def _sweep_away(self, limit: float) -> bool:
        """Sweep; whether all went that was to go."""
        longest = min(limit, self._ryuk.shutdown_timeout.total_seconds())
        for endpoint in self._session.endpoints:
            endpoint.rests.end()  # RYUK_REMOVE_RETRIES says how often it is tried
        whole = await self._sweep(act=True, limit=timedelta(seconds=max(longest, TICK)))
        report = whole.endpoints[0]
        left = [_name(result.decision) for result in report.results if not result.outcome.removed]
        if report.cap is None and report.failure is None and not left:
            return True
        self._left = left or self._left
        self._code = exit_code(whole) or exits.FAILED
        if report.cap is not None:
            hint = f"set REAPER_LIMITS__MAX_LEASE_DELETIONS={report.cap.wanted} to let them go"
            self._log.error("ryuk_over_the_cap", wanted=report.cap.wanted, limit=report.cap.limit, hint=hint)
        return False

    def _made_just_now(self, report: EndpointReport) -> frozenset[str]:
        """Ended leases under which something was made so lately that more may be about to come. Not for ever, though."""
        now = utc_now()
        after = now + report.clock_skew + self._ryuk.retry_offset
        patient = {
            lease.id
            for lease in self._session.leases.own()
            if lease.ending is not None and now - lease.ending.at < self._ryuk.shutdown_timeout
        }
        made = (
            d for d in report.decisions if d.reap and d.resource.created_at is not None and d.resource.created_at > after
        )
        return frozenset(d.lease for d in made if d.lease is not None and d.lease in patient)

    def _read_leases(self) -> Iterable[Lease]:
        """Its own leases, and the living ones of the machine's services. Raises LeasesUnknownError.

        Its own whose things are still being made are not over yet.
        """
        found = self._session.leases.own()
        others = [lease for lease in self._session.leases().open if found.get(lease.id) is None]
        if others:
            found = Leases.of([found, Leases(others)])
        if not self._young:
            return found
        return tuple(replace(lease, ending=None) if lease.id in self._young else lease for lease in found)

    async def _sweep(self, *, act: bool, limit: timedelta | None = None) -> Report:
        options, stop = replace(self._session.plan.options, act=act), Stop()

        async def work() -> Report:
            return await self._session.sweep(options=options, leases=self._read_leases, stop=stop)

        return await stop.within(limit or self._ryuk.shutdown_timeout, work)


def _name(decision: Decision) -> str:
    return f"{decision.resource.kind} {decision.resource.name}"
