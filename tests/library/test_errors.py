"""Failures of which another try may succeed: by the errors themselves, whatever their labels are called."""

import pytest

from reaper import errors
from reaper.core.model import Outcome, Report
from reaper.errors import ProviderError
from reaper.library.access import failure
from reaper.library.errors import RetryableCleanupError
from reaper.run.hold import may_go_later
from tests.journal.lab import NOW, decision, report, result

KINDS = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, ProviderError)}
PASSES = {
    "CallTimeoutError",
    "CircuitOpenError",
    "DependencyError",
    "InProgressError",
    "LeasesUnknownError",
    "NoSuchEndpointError",
    "RateLimitedError",
    "ServerError",
    "UnavailableError",
}
IN_THE_LIBRARY = {"TooManyFilesError", "UnreadableError"}


@pytest.mark.parametrize("name", sorted(KINDS.keys() - {"ProviderError"}))
def test_what_may_pass_is_tried_again_after_a_run_and_said_by_the_library(name: str) -> None:
    label = KINDS[name].label
    failed = report(result(decision("a"), Outcome.FAILED, error=label))
    done = Report(started_at=NOW, seconds=1.0, dry_run=False, endpoints=(failed,))
    assert may_go_later(done) is (name in PASSES)
    assert isinstance(failure(label, "it failed"), RetryableCleanupError) is (name in PASSES | IN_THE_LIBRARY)
