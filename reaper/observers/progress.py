"""A bar that counts the deletions of a sweep, for a person at a terminal."""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Self

from reaper.core.model import Decision, Result
from reaper.core.wording import counted
from reaper.retry.retrier import FailedAttempt
from reaper.sweep.ports import Observer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


class ProgressBar(Observer):
    """A bar that counts the deletions. An observer of the sweep, and a context manager.

    It has no total until the last endpoint has been decided about: one that grows says nothing of the time that is left.

    Args:
        endpoints: how many are swept.
        console: where it is drawn; on stderr when None.
    """

    def __init__(self, endpoints: int, console: "Console | None" = None) -> None:
        self._endpoints = endpoints
        self._console = console
        self._progress: Progress | None = None
        self._planned: dict[str, set[str]] = {}
        self._done: set[tuple[str, str]] = set()
        self._failed_attempts = 0

    def __enter__(self) -> Self:
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[beside]}"),
            console=self._console or Console(stderr=True),
            transient=True,
        )
        self._progress.start()
        self._task = self._progress.add_task("listing", total=None, beside="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def decided(self, endpoint: str, decisions: Sequence[Decision]) -> None:
        """See ``sweep.Observer``."""
        self._planned.setdefault(endpoint, set()).update(d.resource.id for d in decisions if d.reap)
        self._show()

    def retrying(self, endpoint: str, event: FailedAttempt) -> None:  # noqa: ARG002
        """See ``sweep.Observer``."""
        self._failed_attempts += 1
        self._show()

    def settled(self, endpoint: str, result: Result) -> None:
        """See ``sweep.Observer``."""
        if result.decision.reap:
            self._done.add((endpoint, result.decision.resource.id))
            self._show()

    def _show(self) -> None:
        total = sum(map(len, self._planned.values()))
        if self._progress is None or not (total or self._failed_attempts):
            return
        missing, failed = self._endpoints - len(self._planned), self._failed_attempts
        parts = [f"listing {counted(missing, 'endpoint')}"] if missing else []
        parts += [counted(failed, "failed attempt")] if failed else []
        self._progress.update(
            self._task,
            description="deleting" if total else "listing",
            total=None if missing else total,
            completed=len(self._done),
            beside=", ".join(parts),
        )


def progress(
    observers: list[Observer], *, act: bool, endpoints: int, console: "Console | None" = None
) -> AbstractContextManager[object]:
    """A progress bar while deleting, for a person at a terminal only: on stderr, or on ``console``."""
    terminal = sys.stderr.isatty() if console is None else console.is_terminal
    if not (act and terminal):
        return nullcontext()

    bar = ProgressBar(endpoints, console)
    observers.append(bar)
    return bar
