"""structlog's set-up, and the observer that writes what a sweep does. Logs go to stderr; results never do.

A line is a fixed event name and key-values. No line holds a secret: nothing here ever sees one.
"""

import logging
import os
import re
import sys
from argparse import Namespace
from collections.abc import Mapping, MutableMapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from reaper.core.disk import Thresholds
from reaper.core.model import Decision, EndpointReport, Outcome, Reason, Report, Resource, Result
from reaper.retry.retrier import FailedAttempt
from reaper.sweep.ports import Observer
from reaper.sweep.pressure import Relief
from reaper.sweep.result import BUG

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

LEVELS = ("debug", "info", "warning", "error")
_PARTICULAR = re.compile(r"\b[0-9a-f]{12,}\b|\d+")
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3}  # as sd-daemon(3) has them


def _structlog() -> ModuleType:
    """structlog, without the 70 ms that it spends on rich's tracebacks, which no line here shows."""
    hidden = "rich" not in sys.modules
    if hidden:
        sys.modules["rich"] = None  # type: ignore[assignment]  # what makes an import of it fail
    try:
        import structlog  # noqa: PLC0415
    finally:
        if hidden:
            del sys.modules["rich"]
    return structlog


class _Stderr:
    """The stderr of the moment of writing: a progress bar replaces it to write above itself."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def _goes_to_journald() -> bool:
    """Whether stderr is systemd's journal, by the check of systemd.exec(5)."""
    try:
        there = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{there.st_dev}:{there.st_ino}"


def _with_priority(_logger: object, method: str, rendered: str) -> str:
    """The lines with their priority before them: else ``journalctl -p err`` finds none."""
    priority = _PRIORITIES.get(method, _PRIORITIES["error"])
    return "\n".join(f"<{priority}>{line}" for line in rendered.splitlines())


def configure(form: str, level: str) -> "FilteringBoundLogger":
    """Set up logging for this process: ``form`` is "console" or "json", ``level`` one of ``LEVELS``."""
    structlog = _structlog()
    number = getattr(logging, level.upper())
    debug_traceback = form == "json" or level == "debug"
    renderer: list[Any]
    if form == "json":
        # Without the local variables: one of them may hold the environment, and that a secret.
        traceback = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        renderer = [structlog.processors.ExceptionRenderer(traceback), structlog.processors.JSONRenderer()]
    else:
        colours = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        console = structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)
        renderer = [_in_one_line, console]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if debug_traceback else [_no_traceback]),
            *renderer,
            *([_with_priority] if _goes_to_journald() else []),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=_Stderr()),
        cache_logger_on_first_use=True,
    )
    logger: FilteringBoundLogger = structlog.get_logger()
    logging.basicConfig(handlers=[_FromLibraries(logger)], level=max(number, logging.WARNING))
    return logger


class _FromLibraries(logging.Handler):
    """Takes in what libraries log the usual way, so that every line on stderr has the same form."""

    def __init__(self, log: "FilteringBoundLogger") -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """See ``logging.Handler``."""
        try:
            self._log.log(
                min(record.levelno, logging.ERROR),
                "library_message",
                logger=record.name,
                message=record.getMessage(),
                **({"exc_info": record.exc_info} if record.exc_info else {}),
            )
        except Exception:  # noqa: BLE001 - as any handler does: a line that cannot be written does no harm
            self.handleError(record)


def one_line(text: str) -> str:
    """``text`` without what a terminal would obey: labels and error texts are written by others."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def cause(text: str, *names: str) -> str:
    """What an error says, without the resource that it is about: what has one cause has one text."""
    for name in filter(None, names):
        text = text.replace(name, "...")
    return _PARTICULAR.sub("...", text)


def _in_one_line(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    return {key: one_line(value) if isinstance(value, str) else value for key, value in event.items()}


def _no_traceback(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    event.pop("exc_info", None)
    return event


def _about(resource: Resource) -> dict[str, str]:
    return {"kind": resource.kind.value, "name": resource.name, "id": resource.short_id}


class LogObserver(Observer):
    """Writes a line for what happens: INFO for deletions, WARNING for failed attempts, ERROR for what failed for good.

    Args:
        log: where to.
        brief: for a person who is shown the report beside it: failed attempts are counted by their cause, and what the
            report says is left out.
    """

    def __init__(self, log: "FilteringBoundLogger", *, brief: bool = False) -> None:
        self._log = log
        self._brief = brief
        self._attempts: dict[tuple[str, str, str], tuple[FailedAttempt, int]] = {}

    def listed(self, endpoint: str, held: int) -> None:
        """See ``sweep.Observer``."""
        self._log.debug("endpoint_listed", endpoint=endpoint, held=held)

    def decided(self, endpoint: str, decisions: Sequence[Decision]) -> None:
        """See ``sweep.Observer``."""
        reap = sum(decision.reap for decision in decisions)
        self._log.debug("decided", endpoint=endpoint, reap=reap, keep=len(decisions) - reap)
        for decision in decisions:
            if decision.reason is Reason.INVALID_LABEL:
                about = _about(decision.resource)
                self._log.warning("invalid_label", endpoint=endpoint, **about, problem=decision.sentence)

    def retrying(self, endpoint: str, event: FailedAttempt) -> None:
        """See ``sweep.Observer``."""
        name = "rate_limited" if event.cooldown else "attempt_failed"
        if self._brief:
            key = endpoint, name, cause(str(event.error), *event.what.split()[-1:])
            first, number = self._attempts.get(key, (event, 0))
            self._attempts[key] = first, number + 1
            return
        self._log.warning(
            name,
            endpoint=endpoint,
            call=event.what,
            attempt=event.attempt,
            attempts=event.attempts,
            error=str(event.error),
            delay_seconds=round(event.delay, 2),
        )

    def settled(self, endpoint: str, result: Result) -> None:
        """See ``sweep.Observer``."""
        if result.outcome is not Outcome.FAILED:  # a failure may come again in the last round
            self._log.info(
                result.outcome.value,
                endpoint=endpoint,
                **_about(result.decision.resource),
                policy=result.decision.policy,
                reason=result.decision.sentence,
                **({"detail": result.detail} if result.detail else {}),
            )

    def finished(self, report: EndpointReport) -> None:
        """See ``sweep.Observer``."""
        if self._brief:
            self._count_attempts(report.endpoint)
            return
        for warning in report.warnings:
            self._log.warning("endpoint_warning", endpoint=report.endpoint, problem=warning)
        for result in report.results:
            if result.outcome is Outcome.FAILED:
                about = _about(result.decision.resource)
                self._log.error("failed", endpoint=report.endpoint, **about, attempts=result.attempts, error=result.detail)
        if report.cap is not None:
            self._log.error(
                "cap_hit",
                endpoint=report.endpoint,
                wanted=report.cap.wanted,
                allowed=report.cap.allowed,
                limit=report.cap.limit,
            )
        if report.failure is not None and report.failure.label != BUG:  # that has been logged, with its traceback
            self._log.error("endpoint_failed", endpoint=report.endpoint, error=report.failure.message)

    def _count_attempts(self, endpoint: str) -> None:
        for key in [key for key in self._attempts if key[0] == endpoint]:
            first, number = self._attempts.pop(key)
            self._log.warning(key[1], endpoint=endpoint, times=number, first=first.what, error=str(first.error))

    def bug(self, endpoint: str, error: BaseException) -> None:
        """See ``sweep.Observer``."""
        self._log.error("internal_error", endpoint=endpoint, error=f"{type(error).__name__}: {error}", exc_info=error)

    def relieved(self, endpoint: str, relief: Relief, thresholds: Thresholds) -> None:
        """A sweep under disk pressure has ended."""
        found = {"endpoint": endpoint, "disk": relief.after.where, "in_use": relief.after.words()}
        if relief.relieved:
            self._log.info("disk_pressure_relieved", **found, low=str(thresholds.low))
        elif relief.exhausted:
            largest = list(relief.in_the_way)
            problem = "nothing more may be deleted"
            self._log.error("disk_pressure_unrelieved", **found, low=str(thresholds.low), problem=problem, stays=largest)

    def summary(self, report: Report) -> None:
        """One line at the end of a sweep: counts and seconds."""
        counts = {outcome.value: n for outcome in Outcome if (n := report.count(outcome))}
        self._log.info(
            "sweep_finished",
            endpoints=len(report.endpoints),
            held=sum(endpoint.held for endpoint in report.endpoints),
            **counts,
            **({"undecided": undecided} if (undecided := sum(endpoint.undecided for endpoint in report.endpoints)) else {}),
            endpoint_failures=sum(endpoint.failure is not None for endpoint in report.endpoints),
            seconds=round(report.seconds, 2),
            dry_run=report.dry_run,
        )


def log_format(arguments: Namespace) -> str:
    """The form of the log lines: "console" or "json"."""
    person = sys.stderr.isatty() or "words" in arguments  # what is run may write to stderr, too
    form: str = arguments.log_format or ("console" if person else "json")
    return form


def is_quiet(arguments: Namespace) -> bool:
    """Whether the log leaves out what goes well: a command's table says it at a terminal."""
    if arguments.log_level is not None:
        return bool(arguments.log_level not in ("debug", "info"))
    return "words" in arguments or (sys.stderr.isatty() and (arguments.command is not None or arguments.once))


def is_brief(arguments: Namespace) -> bool:
    """Whether the log leaves out what the report says, too: a person is shown that at the same terminal."""
    shown = arguments.command != "explain" and sys.stdout.isatty()
    return shown and arguments.log_level is None and is_quiet(arguments) and sys.stderr.isatty()


def log_of(arguments: Namespace, level: str | None = None) -> "FilteringBoundLogger":
    """Logging as the arguments ask for it, else at ``level``. At a terminal a command's table says what INFO lines would."""
    quiet = is_quiet(arguments)
    return configure(log_format(arguments), arguments.log_level or level or ("warning" if quiet else "info"))
