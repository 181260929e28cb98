"""``CleanupScope``: what is registered there is closed at the end, whatever that end is."""

import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

import anyio
import anyio.to_thread

from reaper.library import event_loop
from reaper.library.process import Process, current

T = TypeVar("T")

EACH, TOTAL = timedelta(seconds=30), timedelta(seconds=60)
STUBBORN = 1.0  # seconds for a closer to end once its time is up and it has been cancelled
_METHODS = ("close", "stop")
_left_alone: set[object] = set()  # tasks that did not end when they were cancelled: nothing else refers to them


class CleanupFailures(ExceptionGroup[Exception]):
    """Everything that went wrong while a ``CleanupScope`` was closed, in the order in which it did. Never empty."""

    def derive(self, excs: Sequence[Exception], /) -> "CleanupFailures":  # type: ignore[override]  # it has no other kind
        """A part of it is one of its own kind (``except*`` splits)."""
        return CleanupFailures(self.message, excs)


@dataclass(frozen=True)
class _Closer:
    """One thing to do at the end.

    Args:
        run: does it; is given the body's exception, or None. May return an awaitable.
        here: it must run in the task that registered it, as the end of an asynchronous context manager.
        in_thread: it blocks, and runs in a thread.
        process: the one that registered it; in a forked child it is not run.
    """

    name: str
    run: Callable[[BaseException | None], object]
    here: bool = False
    in_thread: bool = False
    process: Process = field(default_factory=current, init=False)


class CleanupScope:
    """Closes what is registered on it, in reverse order, on success, error, time-out and cancellation alike.

    Works with ``async with`` under asyncio and trio, and with ``with`` where there is no event loop; then it takes no
    asynchronous closers::

        async with CleanupScope() as scope:
            database = scope.add(await connect())
            scope.call(shutil.rmtree, folder, in_thread=True)

    Cancellation, anyio's as well as asyncio's own, does not reach the closers: it goes on when they have ended. Each has a
    deadline, and all together: a closer that hangs can use up its share of the time, and never that of those after it. Under
    asyncio they run in tasks of their own; what must end in the task that began it is entered with ``enter``.

    A failure does not keep the others from being closed. All failures are collected in ``failures``:

    - when the body ended well, they are raised, also a single one, as ``CleanupFailures``;
    - when the body raised, that exception goes on as it is, with a note for each failure; so do CancelledError,
      KeyboardInterrupt and SystemExit, which loops and programs know by their type;
    - when a closer itself raises KeyboardInterrupt or SystemExit, or the task is cancelled while it closes, that is raised
      after all have been closed, from the body's exception, if there was one (``__context__``).

    A forked child that leaves the block closes only what it has registered itself: the rest is its parent's.

    Args:
        timeout: for all of them together, in seconds or as a timedelta.
        each: for each of them.
    """

    def __init__(self, *, timeout: float | timedelta = TOTAL, each: float | timedelta = EACH) -> None:
        self._total, self._each = _seconds(timeout), _seconds(each)
        self._closers: list[_Closer] = []
        self._loop: str | None = None
        self._entered = False
        self._failures: list[Exception] = []
        self._fatal: BaseException | None = None

    @property
    def failures(self) -> CleanupFailures | None:
        """What went wrong at the end; None when nothing did, or it has not come yet."""
        if not self._failures:
            return None
        return CleanupFailures(f"{len(self._failures)} failed to close", list(self._failures))

    # -- registering ---------------------------------------------------------------------------------------------------

    def add(self, resource: T, *, name: str | None = None, in_thread: bool = False) -> T:
        """Close ``resource`` at the end, by the first of these that it has: ``aclose``, ``close``, ``stop``, ``__exit__``.

        Args:
            resource: it.
            name: for messages.
            in_thread: its method blocks: call it in a thread, so that its deadline holds.

        Returns:
            ``resource``.
        """
        methods = _METHODS if self._is_sync() else ("aclose", *_METHODS)
        name = name or type(resource).__name__
        for method in methods:
            if callable(close := getattr(resource, method, None)):
                self._register(f"{name}.{method}", lambda _: close(), close, in_thread=in_thread)
                return resource
        if hasattr(resource, "__exit__"):
            leave: Callable[..., object] = resource.__exit__
            self._register(name, lambda error: _ignored(leave(*_details(error))), leave, in_thread=in_thread)
        elif hasattr(resource, "__aexit__") and not self._is_sync():
            self._register(name, partial(_leave, resource.__aexit__), here=True)
        else:
            wanted = ", ".join((*methods, "__exit__"))
            raise TypeError(f"{name} has none of {wanted}; register a function with call()")
        return resource

    def call(
        self,
        function: Callable[..., object],
        /,
        *arguments: object,
        name: str | None = None,
        in_thread: bool = False,
        **keywords: object,
    ) -> None:
        """Call ``function`` at the end; what it returns is awaited where that can be.

        Args:
            function: synchronous or asynchronous.
            arguments: for it.
            name: for messages.
            in_thread: it blocks: call it in a thread, so that its deadline holds.
            keywords: for it.
        """
        close = partial(function, *arguments, **keywords)
        name = name or str(getattr(function, "__qualname__", repr(function)))
        self._register(name, lambda _: close(), function, in_thread=in_thread)

    async def enter(self, manager: AbstractAsyncContextManager[T] | AbstractContextManager[T]) -> T:
        """Enter a context manager, and leave it at the end, in this task; its value.

        It gets the body's exception, and cannot suppress it. Unlike other closers, asyncio's own ``Task.cancel``
        reaches the end of an asynchronous one: its task has to be this one.
        """
        if isinstance(manager, AbstractAsyncContextManager):
            value = await manager.__aenter__()
            self._register(type(manager).__name__, partial(_leave, manager.__aexit__), here=True)
            return value
        return self.enter_sync(manager)

    def enter_sync(self, manager: AbstractContextManager[T]) -> T:
        """Likewise, for a synchronous one."""
        self._check_open()
        value = manager.__enter__()
        self._register(type(manager).__name__, lambda error: _ignored(manager.__exit__(*_details(error))))
        return value

    def _register(
        self, name: str, run: Callable[[BaseException | None], object], function: object = None, **how: bool
    ) -> None:
        self._check_open()
        if inspect.iscoroutinefunction(function) and (self._is_sync() or how.get("in_thread")):
            where = "in a thread" if how.get("in_thread") else "without an event loop (use async with)"
            raise TypeError(f"{name} is asynchronous and cannot be called {where}")
        self._closers.append(_Closer(name, run, **how))

    def _check_open(self) -> None:
        if not self._entered:
            raise RuntimeError("a CleanupScope takes closers within its with block only")

    def _is_sync(self) -> bool:
        return self._loop is None

    def _enter(self, loop: str | None) -> Self:
        if self._entered:
            raise RuntimeError("this CleanupScope has been entered already")
        self._entered, self._loop, self._failures, self._fatal = True, loop, [], None
        return self

    # -- closing -------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self._enter(None)

    def __exit__(self, kind: type[BaseException] | None, body: BaseException | None, trace: TracebackType | None) -> None:
        self._forget_parents()
        end = time.monotonic() + self._total
        while self._closers:
            closer, seconds = self._next(end - time.monotonic())
            try:
                if closer.in_thread:
                    _in_a_thread(closer, body, seconds)
                    continue
                result = closer.run(body)
                if inspect.isawaitable(result):
                    if inspect.iscoroutine(result):
                        result.close()
                    raise TypeError(f"{closer.name} is asynchronous, and there is no event loop to await it in")
            except BaseException as error:  # noqa: BLE001 - whatever it is, the others are closed first
                self._failed(closer, error)
        self._end(body)

    async def __aenter__(self) -> Self:
        return self._enter(event_loop.running())

    async def __aexit__(
        self, kind: type[BaseException] | None, body: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._forget_parents()
        if not self._closers:
            self._end(body)
            return
        end = anyio.current_time() + self._total
        with anyio.CancelScope(shield=True):  # each closer has its deadline
            while self._closers:
                closer, seconds = self._next(end - anyio.current_time())
                if closer.here or self._loop == "trio":
                    error = await _close(closer, body, seconds)
                else:
                    error = await self._apart(closer, body, seconds)
                if error is not None:
                    self._failed(closer, error)
        self._end(body)

    def _forget_parents(self) -> None:
        here = current()
        self._closers = [closer for closer in self._closers if closer.process == here]

    def _next(self, left: float) -> tuple[_Closer, float]:
        """The closer whose turn it is, and its time: what is left is shared among all who are."""
        share = max(left, 0) / len(self._closers)
        return self._closers.pop(), min(self._each, share)

    async def _apart(self, closer: _Closer, body: BaseException | None, seconds: float) -> BaseException | None:
        """Close in a task of its own, since a cancel scope does not hold off asyncio's own ``Task.cancel``."""
        import asyncio  # noqa: PLC0415 - trio has no use for it

        task = asyncio.create_task(_close(closer, body, seconds), name=f"close {closer.name}")
        until = anyio.current_time() + seconds + STUBBORN
        while not task.done() and (left := until - anyio.current_time()) > 0:
            try:
                await asyncio.wait({task}, timeout=left)
            except asyncio.CancelledError as cancelled:
                self._fatal = self._fatal or cancelled  # it goes on when all has been closed
        if not task.done():
            _left_alone.add(task)
            task.add_done_callback(_left_alone.discard)
            return _time_up(seconds, "and goes on after it was cancelled")
        return RuntimeError("it was cancelled by itself") if task.cancelled() else task.result()

    def _failed(self, closer: _Closer, error: BaseException) -> None:
        error.add_note(f"while closing {closer.name}")
        if isinstance(error, Exception):
            self._failures.append(error)
        elif isinstance(error, KeyboardInterrupt | SystemExit):
            self._fatal = error
        else:  # a cancellation of something else, which is passed on
            own = RuntimeError(f"it was cancelled by itself: {error!r}")
            own.add_note(f"while closing {closer.name}")
            self._failures.append(own)

    def _end(self, body: BaseException | None) -> None:
        """Raise what has to be raised. The body's exception is raised by its ``with`` statement."""
        self._entered = False
        failures, fatal = self.failures, self._fatal
        self._fatal = None
        cancelled_already = body is not None and type(fatal) is type(body)
        if fatal is not None and not cancelled_already:
            _note(fatal, self._failures)
            raise fatal
        if failures is not None:
            if body is None:
                raise failures
            _note(body, self._failures)


async def _close(closer: _Closer, body: BaseException | None, seconds: float) -> BaseException | None:
    """Close one within its time; what went wrong. Nothing from outside cancels this."""
    error: BaseException | None = None
    with anyio.CancelScope(shield=True, deadline=anyio.current_time() + seconds) as scope:
        try:
            if closer.in_thread:
                result = await anyio.to_thread.run_sync(closer.run, body, abandon_on_cancel=True)
            else:
                result = closer.run(body)
            if inspect.isawaitable(result):
                await result
        except anyio.get_cancelled_exc_class() as cancelled:
            if scope.cancel_called:
                raise
            error = cancelled
        except BaseException as failed:  # noqa: BLE001 - handed back: a task would end its loop with some of them
            error = failed
    if scope.cancelled_caught:
        return _time_up(seconds, "and was cancelled")
    return error


def _in_a_thread(closer: _Closer, body: BaseException | None, seconds: float) -> None:
    """Close one that blocks within its time. Raises what it raises, and TimeoutError."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            closer.run(body)
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            errors.append(error)

    thread = threading.Thread(target=work, name=f"close {closer.name}", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise _time_up(seconds, "and goes on in its thread")
    if errors:
        raise errors[0]


async def _leave(leave: Callable[..., Awaitable[object]], error: BaseException | None) -> None:
    await leave(*_details(error))


def _details(error: BaseException | None) -> tuple[type[BaseException] | None, BaseException | None, TracebackType | None]:
    """What a context manager gets about the body's end."""
    return (None, None, None) if error is None else (type(error), error, error.__traceback__)


def _ignored(_: object) -> None:
    """Do nothing with what a context manager returned to suppress the body's exception."""


def _time_up(seconds: float, then: str) -> TimeoutError:
    return TimeoutError(f"it did not end within {seconds:.3g} s, {then}")


def _note(error: BaseException, failures: list[Exception]) -> None:
    for failure in failures:
        where = next(iter(getattr(failure, "__notes__", ())), "")
        error.add_note(f"reaper: {where}: {type(failure).__name__}: {failure}")


def _seconds(span: float | timedelta) -> float:
    return span.total_seconds() if isinstance(span, timedelta) else float(span)
