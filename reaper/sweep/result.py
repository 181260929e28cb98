"""How the sweep of one endpoint ended, in a word: the label of metrics, and what the service goes by."""

from enum import StrEnum

from reaper.core.model import TIME_UP, EndpointReport, Outcome, Result
from reaper.errors import DependencyError, LeasesUnknownError
from reaper.sweep.reach import PARTLY

BUG, CLOCK = "internal_error", "clock"  # labels of failures, besides those of errors


class SweepResult(StrEnum):
    """How the sweep of one endpoint ended. Of several, the first that applies."""

    BUG = "internal_error"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"
    LEASES_UNKNOWN = "leases_unknown"
    UNLISTED = "unlisted"
    CAPPED = "capped"
    FAILURES = "failures"
    SUCCESS = "success"


def sweep_result(report: EndpointReport, interrupted: str | None = None) -> SweepResult:
    """How the sweep of one endpoint ended.

    Args:
        report: the endpoint's.
        interrupted: what ended the whole sweep early, as in ``Report``; what was done by then is not concerned.
    """
    failure = report.failure.label if report.failure else None
    if failure == BUG:
        return SweepResult.BUG
    undone = report.cap is None and report.count(Outcome.ABANDONED) > 0
    if failure == "interrupted" or (interrupted is not None and undone):
        return SweepResult.TIMEOUT if interrupted == TIME_UP else SweepResult.INTERRUPTED
    if failure not in (None, PARTLY):
        return SweepResult.LEASES_UNKNOWN if failure == LeasesUnknownError.label else SweepResult.UNLISTED
    if report.cap is not None:
        return SweepResult.CAPPED
    if failure == PARTLY or undone or any(result.failed for result in report.results):
        return SweepResult.FAILURES
    return SweepResult.SUCCESS


def is_worth_another_round(result: Result) -> bool:
    """Whether it may go in another round: a failure may pass, and networks, volumes and images wait for others."""
    left = result.outcome is Outcome.SKIPPED and not result.decision.resource.kind.runs
    return result.outcome is Outcome.FAILED or result.error == DependencyError.label or left
