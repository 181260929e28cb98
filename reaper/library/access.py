"""One endpoint, as a caller of the library names it: how it is reached, listed and swept, within a bound."""

import os
import warnings
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

import anyio

from reaper.config import load
from reaper.config.settings import Settings
from reaper.core.conditions import Policy
from reaper.core.inventory_warnings import not_owned, owned_by_image
from reaper.core.lease import Lease
from reaper.core.lease_index import Leases
from reaper.core.model import TIME_UP, Decision, EndpointReport, Outcome, Report, Resource, Result
from reaper.core.rules import Rules
from reaper.errors import PASSING, NotFoundError, ProviderError, TooManyFilesError, UnreadableError
from reaper.library.cleanup_scope import CleanupScope
from reaper.library.errors import CleanupError, RetryableCleanupError
from reaper.observers.journal import NAME
from reaper.providers.base import Provider
from reaper.providers.registration import EndpointSpec
from reaper.retry.retrier import RetryPolicy
from reaper.session import Session
from reaper.sweep.endpoint_sweep import LAST_LOOK
from reaper.sweep.plan import Plan
from reaper.sweep.sweep import Options, Stop

T = TypeVar("T")

WITHIN = timedelta(seconds=30)
"""For one operation of the library, its tries and its last look included."""

CLOSE_WITHIN = timedelta(seconds=10)

RETRY = RetryPolicy(
    initial_delay=timedelta(seconds=0.5),
    max_delay=timedelta(seconds=5),
    jitter=timedelta(seconds=0.5),
    total=timedelta(seconds=20),
    request_timeout=timedelta(seconds=10),
)

_RETRYABLE = PASSING | {"interrupted", TooManyFilesError.label, UnreadableError.label}

ReadLeases = Callable[[], Leases]
Wrap = Callable[[Provider, ReadLeases], Provider]


def failure(label: str | None, message: str, report: Report | None = None) -> CleanupError:
    """The error that says so; the label of a provider's error decides whether another try may help."""
    kind = RetryableCleanupError if label in _RETRYABLE else CleanupError
    return kind(message, report)


class Access:
    """One endpoint. Nothing is asked of it until something is done, and no connection outlives an operation.

    Args:
        spec: where it is, with its secret.
        settings: what protects, owns and limits.
        timeout: seconds for one operation.
    """

    def __init__(self, spec: EndpointSpec, settings: Settings, timeout: float | None = None) -> None:
        timeout = WITHIN.total_seconds() if timeout is None else timeout
        if timeout <= 0:
            raise ValueError(f"timeout = {timeout}: must be greater than 0")
        self.settings = settings
        self.name = spec.name
        self.timeout = timeout
        self._spec = spec
        self._state = load.state_directory(os.environ)

    async def list(self) -> tuple[Resource, ...]:
        """Everything that the endpoint holds. Raises CleanupError."""

        async def look() -> tuple[Resource, ...]:
            async with CleanupScope(timeout=CLOSE_WITHIN) as scope:
                (endpoint,) = self._session(scope, Options(act=False)).endpoints
                return (await endpoint.reader.list(endpoint.retrier.call)).resources

        return await self.bounded(look)

    async def bounded(self, work: Callable[[], Awaitable[T]], extra: timedelta = timedelta(0)) -> T:
        """What ``work`` returns, within the time. Raises CleanupError for whatever a provider raises."""
        with anyio.move_on_after(self.timeout + extra.total_seconds()):
            try:
                return await work()
            except ProviderError as error:
                raise failure(error.label, f"{self.name}: {error}") from error
        raise RetryableCleanupError(f"{self.name}: no answer within {self.timeout:g} s")

    async def acting(self, work: Callable[[Session], Awaitable[T]], extra: timedelta = timedelta(0)) -> T:
        """What ``work`` returns, which is given a session with a client that can act."""

        async def run() -> T:
            async with CleanupScope(timeout=CLOSE_WITHIN) as scope:
                return await work(self._session(scope, Options()))

        return await self.bounded(run, extra)

    async def sweep(
        self,
        rules: Rules,
        options: Options,
        *,
        leases: Callable[[ReadLeases], Iterable[Lease]] = lambda read: read(),
        wrap: Wrap | None = None,
        extra: timedelta = timedelta(0),
        within: float | None = None,
    ) -> Report:
        """One sweep by these rules, within the time, on record in the journal.

        Args:
            rules: what decides.
            options: how.
            leases: is given what reads the leases of this host, and says which ones count.
            wrap: puts something before the client, and is given what reads the leases; nothing is remembered then.
            extra: time that it needs by its nature.
            within: seconds for it, where that is not the operation's whole time.
        """
        time = timedelta(seconds=self.timeout if within is None else within)
        limit = max(time - LAST_LOOK, time / 2) + extra
        async with CleanupScope(timeout=CLOSE_WITHIN) as scope:
            session = self._session(scope, options, rules)
            endpoints = session.endpoints
            if wrap is not None:
                (endpoint,) = endpoints
                assert isinstance(endpoint.reader, Provider)
                endpoints = [replace(endpoint, reader=wrap(endpoint.reader, session.leases), memory=None)]

            stop = Stop()

            async def run() -> Report:
                return await session.sweep(endpoints=endpoints, leases=lambda: leases(session.leases), stop=stop)

            return await stop.within(limit, run)

    async def clean(self, policies: Sequence[Policy], *, fail_fast: bool, extra: timedelta = timedelta(0)) -> Report:
        """Sweep by these policies in place of the configured ones, under the configured scope, protection and caps.

        Args:
            policies: when an owned, unprotected resource is garbage.
            fail_fast: begin nothing more once something has failed.
            extra: time that it needs by its nature.

        Raises:
            RetryableCleanupError: something is left, and another try may help. The others are gone; ``report`` has it all.
            CleanupError: something is left, or the cap was hit and nothing was deleted.
        """
        limits = self.settings.effective_limits()
        options = Options(
            fail_fast=fail_fast,
            max_deletions=limits.max_deletions,
            max_fraction=limits.max_fraction,
            max_lease_deletions=limits.max_lease_deletions,
        )
        rules = replace(self.settings.rules(), policies=tuple(policies), without_policy=None)
        report = await self.sweep(rules, options, extra=extra)
        _check(report)
        decisions = report.endpoints[0].decisions
        hints = (not_owned(decisions), owned_by_image(decisions))
        return replace(report, hints=tuple(hint for hint in hints if hint is not None))

    async def on_record(self, session: Session, decision: Decision, act: Callable[[], Awaitable[Outcome]]) -> Outcome:
        """Do what ``act`` does, with a record of it in the journal before and after. Raises what ``act`` raises.

        Args:
            session: with the endpoint where it is done.
            decision: says to what, and why.
            act: returns the outcome.
        """
        journal = session.journal
        if journal is None:
            return await act()
        name, provider = decision.resource.endpoint, decision.resource.provider
        await journal.begin(name, provider, [decision])
        began, result = anyio.current_time(), Result(decision, Outcome.FAILED, attempts=1)
        try:
            result = replace(result, outcome=await act())
        except NotFoundError:
            result = replace(result, outcome=Outcome.GONE)
            raise
        except (ProviderError, CleanupError) as error:
            result = replace(result, detail=str(error), error=getattr(error, "label", None))
            raise
        except BaseException:
            result = replace(result, detail="it was interrupted", error="interrupted")
            raise
        finally:
            result = replace(result, seconds=anyio.current_time() - began)
            journal.finished(
                EndpointReport(endpoint=name, provider=provider, held=1, decisions=(decision,), results=(result,))
            )
        return result.outcome

    def _session(self, scope: CleanupScope, options: Options, rules: Rules | None = None) -> Session:
        """An open session, which ``scope`` closes."""
        file = self._state / NAME
        plan = Plan(
            endpoints=(self._spec,),
            rules=rules or self.settings.rules(),
            options=options,
            retry=RETRY,
            state=self._state,
            journal=self.settings.journal,
            evidence=self.settings.evidence,
        )
        session = scope.add(
            Session(
                plan,
                failed=lambda problem: warnings.warn(f"{file}: no record is kept: {problem}", RuntimeWarning, stacklevel=2),
            )
        )
        session.open()
        return session


def _check(report: Report) -> None:
    """Raise CleanupError unless all went as it should."""
    endpoint = report.endpoints[0]
    gone = sum(result.outcome.removed for result in report.results)
    left = [r for r in report.results if r.failed or r.outcome is Outcome.ABANDONED]
    text = f"{endpoint.endpoint}: {gone} deleted, {len(left)} left"
    if endpoint.failure is not None:
        raise failure(endpoint.failure.label, f"{text}: {endpoint.failure.message}", report)
    if (cap := endpoint.cap) is not None:
        raise CleanupError(f"{text}: {cap.wanted} would have gone, and {cap.limit} allows {cap.allowed} in [limits]", report)
    if not left:
        return
    names = ", ".join(f"{r.decision.resource.name} ({r.detail})" for r in left[:3])
    errors = [failure(r.error, f"{text}: {names}", report) for r in left if r.outcome is not Outcome.ABANDONED]
    if report.interrupted == TIME_UP:
        raise RetryableCleanupError(f"{text}: the time was up", report)
    raise next((e for e in errors if isinstance(e, RetryableCleanupError)), errors[0])
