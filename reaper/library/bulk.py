"""Sweeping one endpoint by policies of the caller's, under the configured scope, protection and caps."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from reaper.core.conditions import Policy
from reaper.core.inventory_warnings import not_owned, owned_by_image
from reaper.core.model import TIME_UP, Outcome, Report
from reaper.library.access import Access, failure
from reaper.library.errors import CleanupError, RetryableCleanupError
from reaper.sweep.sweep import Options


async def clean(access: Access, policies: Sequence[Policy], *, fail_fast: bool, extra: timedelta = timedelta(0)) -> Report:
    """Sweep by these policies in place of the configured ones.

    Args:
        access: what to sweep.
        policies: when an owned, unprotected resource is garbage.
        fail_fast: begin nothing more once something has failed.
        extra: time that it needs by its nature.

    Raises:
        RetryableCleanupError: something is left, and another try may help. The others are gone; ``report`` has it all.
        CleanupError: something is left, or the cap was hit and nothing was deleted.
    """
    limits = access.settings.effective_limits()
    options = Options(
        fail_fast=fail_fast,
        max_deletions=limits.max_deletions,
        max_fraction=limits.max_fraction,
        max_lease_deletions=limits.max_lease_deletions,
    )
    report = await access.sweep(replace(access.settings.rules(), policies=tuple(policies)), options, extra=extra)
    _check(report)
    decisions = [decision for endpoint in report.endpoints for decision in endpoint.decisions]
    hints = (not_owned(decisions), owned_by_image(decisions))
    return replace(report, hints=tuple(hint for hint in hints if hint is not None))


def _check(report: Report) -> None:
    """Raise CleanupError unless all went as it should."""
    endpoint = report.endpoints[0]
    gone = sum(result.outcome.removed for result in report.results)
    left = [r for r in report.results if r.outcome in (Outcome.FAILED, Outcome.STOPPED, Outcome.ABANDONED)]
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
