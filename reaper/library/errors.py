"""What the library raises."""

from reaper.core.model import Report
from reaper.errors import ReaperError


class CleanupError(ReaperError):
    """The library could not clean up what it was asked to, and the same call would not do better.

    Attributes:
        report: what the sweep did, where there was one.
    """

    def __init__(self, message: str, report: Report | None = None) -> None:
        super().__init__(message)
        self.report = report


class RetryableCleanupError(CleanupError):
    """Likewise, but another try may do better: the endpoint was away, the time was up, another client was at work on it.

    Attributes:
        soon: whether what was to go was in the middle of a change.
    """

    def __init__(self, message: str, report: Report | None = None, *, soon: bool = False) -> None:
        super().__init__(message, report)
        self.soon = soon


class WrongLoopError(CleanupError):
    """It was called where it cannot work: a synchronous call within an event loop, or an SDK's under another's loop."""
