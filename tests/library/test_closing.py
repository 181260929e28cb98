"""CleanupScope: everything is closed, in reverse order, whatever the end is."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import reaper
from reaper import CleanupFailures, CleanupScope
from tests.sweep.conftest import anyio_backend

__all__ = ["anyio_backend"]  # a fixture
pytestmark = pytest.mark.anyio


class Awaits:
    """A function that only its result shows to be asynchronous."""

    def __call__(self) -> Awaitable[None]:
        return anyio.lowlevel.checkpoint()


class Log(list[str]):
    """What was closed, in its order."""

    def closer(self, name: str, error: BaseException | None = None, waits: int = 0) -> Callable[[], Awaitable[None]]:
        async def close() -> None:
            for _ in range(waits):
                await anyio.sleep(1)
            self.append(name)
            if error is not None:
                raise error

        return close

    def sync(self, name: str, error: BaseException | None = None) -> Callable[[], None]:
        def close() -> None:
            self.append(name)
            if error is not None:
                raise error

        return close


async def test_reverse_order_and_every_sort_of_closer() -> None:
    log = Log()

    class Closes:
        def close(self) -> None:
            log.append("close")

    class Stops:
        def stop(self) -> None:
            log.append("stop")

    class Both(Closes):
        async def aclose(self) -> None:
            await anyio.sleep(1)
            log.append("aclose")

    class Leaves:
        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None:
            log.append("exit")

    @asynccontextmanager
    async def manager() -> Any:
        yield "value"
        await anyio.sleep(1)
        log.append("manager")

    @contextmanager
    def plain() -> Any:
        yield "plain"
        log.append("plain")

    async with CleanupScope() as scope:
        first = Closes()
        assert scope.add(first) is first
        scope.add(Stops())
        scope.add(Both())
        scope.add(Leaves())
        assert await scope.enter(manager()) == "value"
        assert await scope.enter(plain()) == "plain"
        scope.call(log.append, "called")
        scope.call(log.closer("async"))
        assert log == []
    assert log == ["async", "called", "plain", "manager", "exit", "aclose", "stop", "close"]
    assert scope.failures is None


async def test_a_failure_keeps_nothing_from_being_closed_and_all_are_reported() -> None:
    log = Log()
    scope = CleanupScope()
    with pytest.raises(CleanupFailures) as caught:
        async with scope:
            scope.call(log.closer("a", ValueError("bad a")))
            scope.call(log.closer("b"))
            scope.call(log.sync("c", OSError("bad c")), name="the database")
    assert log == ["c", "b", "a"]
    assert [str(error) for error in caught.value.exceptions] == ["bad c", "bad a"]
    assert caught.value.exceptions[0].__notes__ == ["while closing the database"]
    matching, rest = caught.value.split(OSError)
    assert isinstance(matching, CleanupFailures)
    assert isinstance(rest, CleanupFailures)


async def test_the_body_s_own_exception_goes_on_as_it_is() -> None:
    log = Log()
    scope = CleanupScope()
    body = KeyError("the body's")
    with pytest.raises(KeyError) as caught:
        async with scope:
            scope.call(log.closer("a", ValueError("bad a")), name="a")
            raise body
    assert caught.value is body
    assert body.__notes__ == ["reaper: while closing a: ValueError: bad a"]
    assert scope.failures is not None
    assert len(scope.failures.exceptions) == 1


@pytest.mark.parametrize("fatal", [KeyboardInterrupt, SystemExit])
async def test_an_interrupt_of_the_body_stays_what_it_is(fatal: type[BaseException]) -> None:
    log = Log()
    with pytest.raises(fatal) as caught:
        async with CleanupScope() as scope:
            scope.call(log.closer("a", ValueError("bad a"), waits=2), name="a")
            raise fatal
    assert log == ["a"]
    assert caught.value.__notes__ == ["reaper: while closing a: ValueError: bad a"]


@pytest.mark.parametrize("fatal", [KeyboardInterrupt, SystemExit])
async def test_an_interrupt_while_closing_waits_for_the_others(fatal: type[BaseException]) -> None:
    log = Log()
    body = KeyError("the body's")
    with pytest.raises(fatal) as caught:
        async with CleanupScope() as scope:
            scope.call(log.closer("a", waits=1))
            scope.call(log.sync("b", fatal()))
            raise body
    assert log == ["b", "a"]
    assert caught.value.__context__ is body


async def test_one_that_hangs_uses_up_its_own_time_only() -> None:
    log = Log()
    began = anyio.current_time()
    with pytest.raises(CleanupFailures) as caught:
        async with CleanupScope(timeout=60, each=5) as scope:
            scope.call(log.closer("last", waits=4))
            scope.call(anyio.sleep_forever, name="stuck")
            scope.call(log.closer("first", waits=4))
    assert log == ["first", "last"]
    assert anyio.current_time() - began == 4 + 5 + 4
    assert [str(error) for error in caught.value.exceptions] == ["it did not end within 5 s, and was cancelled"]


async def test_all_together_have_their_time_and_everybody_gets_a_share() -> None:
    log = Log()
    began = anyio.current_time()
    with pytest.raises(CleanupFailures) as caught:
        async with CleanupScope(timeout=12, each=30) as scope:
            scope.call(log.closer("quick", waits=2))
            for number in range(3):
                scope.call(anyio.sleep_forever, name=f"stuck {number}")
    assert log == ["quick"]
    assert anyio.current_time() - began == 3 + 3 + 3 + 2
    assert len(caught.value.exceptions) == 3


async def test_a_cancelled_body_is_closed_at_every_await() -> None:
    """Cancel at the n-th checkpoint, those of the closers included, until there is none left to cancel at."""
    points = 0
    for point in range(100):
        log = Log()
        reached = 0

        async def checkpoint(point: int = point) -> None:
            nonlocal reached
            if reached == point:
                outer.cancel()
            reached += 1
            await anyio.lowlevel.checkpoint()

        def closes(name: str, log: Log = log) -> Callable[[], Awaitable[None]]:
            async def close() -> None:
                await checkpoint()
                await anyio.sleep(1)
                await checkpoint()
                log.append(name)

            return close

        with anyio.CancelScope() as outer:
            async with CleanupScope() as scope:
                scope.call(closes("a"))
                await checkpoint()
                scope.call(closes("b"))
                await checkpoint()
        assert log in (["a"], ["b", "a"])
        assert scope.failures is None
        points = reached
        if not outer.cancel_called:
            break
        assert point == 0 or point < points
    assert points == 6
    assert log == ["b", "a"]


async def test_a_time_out_around_it_stays_one() -> None:
    log = Log()
    with pytest.raises(TimeoutError):
        with anyio.fail_after(3):
            async with CleanupScope() as scope:
                scope.call(log.closer("a", waits=5))
                await anyio.sleep_forever()
    assert log == ["a"]


async def test_a_closer_that_was_cancelled_by_itself_has_failed() -> None:
    log = Log()

    async def cancelled() -> None:
        task = asyncio.create_task(asyncio.sleep(100))
        task.cancel()
        await task

    with suppress(RuntimeError):
        asyncio.get_running_loop()
        with pytest.raises(CleanupFailures, match="1 failed"):
            async with CleanupScope() as scope:
                scope.call(log.closer("a"))
                scope.call(cancelled)
        assert log == ["a"]
        return
    assert log == []


async def test_it_takes_nothing_before_and_after_its_block() -> None:
    scope = CleanupScope()
    with pytest.raises(RuntimeError, match="within its with block"):
        scope.call(print)
    async with scope:
        with pytest.raises(RuntimeError, match="entered already"):
            await scope.__aenter__()
        with pytest.raises(TypeError, match="none of aclose, close, stop, __exit__"):
            scope.add(object())
    with pytest.raises(RuntimeError, match="within its with block"):
        scope.add(memoryview(b""))


class TestAsyncioAlone:
    """``Task.cancel``, which no cancel scope holds off."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.mark.parametrize("again", [1, 2, 3])
    async def test_cancelled_again_and_again_while_it_closes(self, again: int) -> None:
        log = Log()
        entered, closing = asyncio.Event(), asyncio.Event()

        async def slow() -> None:
            closing.set()
            for _ in range(20):
                await asyncio.sleep(0)
            log.append("slow")

        async def body() -> None:
            async with CleanupScope() as scope:
                scope.call(log.closer("a"))
                scope.call(slow)
                entered.set()
                await asyncio.sleep(60)

        task = asyncio.create_task(body())
        await entered.wait()
        task.cancel()
        await closing.wait()
        for _ in range(again):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert log == ["slow", "a"]

    async def test_cancelled_first_while_it_closes(self) -> None:
        log = Log()
        task: asyncio.Task[None]

        async def slow() -> None:
            task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            log.append("slow")

        async def body() -> None:
            async with CleanupScope() as scope:
                scope.call(log.sync("a", ValueError("bad a")))
                scope.call(slow)

        task = asyncio.create_task(body())
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert log == ["slow", "a"]
        assert caught.value.__notes__ == ["reaper: while closing Log.sync.<locals>.close: ValueError: bad a"]

    async def test_what_blocks_is_called_in_a_thread(self) -> None:
        log, forever = Log(), threading.Event()
        with pytest.raises(CleanupFailures) as caught:
            async with CleanupScope(each=0.05) as scope:
                scope.call(log.sync("a"), in_thread=True)
                scope.call(log.sync("b", OSError("bad b")), in_thread=True)
                scope.call(forever.wait, in_thread=True)
        forever.set()
        assert log == ["b", "a"]
        assert [type(error) for error in caught.value.exceptions] == [TimeoutError, OSError]

    async def test_a_time_out_of_asyncio_stays_one(self) -> None:
        log = Log()

        async def slow() -> None:
            await asyncio.sleep(0.05)
            log.append("a")

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                async with CleanupScope() as scope:
                    scope.call(slow)
        assert log == ["a"]

    async def test_one_that_ignores_its_cancellation_is_left_alone(self) -> None:
        log = Log()
        go = asyncio.Event()

        async def stubborn() -> None:
            while not go.is_set():
                with suppress(asyncio.CancelledError):
                    await asyncio.shield(go.wait())

        with pytest.raises(CleanupFailures) as caught:
            async with CleanupScope(each=0.01) as scope:
                scope.call(log.closer("a"))
                scope.call(stubborn)
        go.set()
        assert log == ["a"]
        assert "goes on after it was cancelled" in str(caught.value.exceptions[0])


def test_without_a_loop() -> None:
    log = Log()
    scope = CleanupScope()
    body = KeyError("the body's")
    with pytest.raises(KeyError) as caught, scope:
        scope.call(log.sync("a"))
        scope.call(log.sync("b", ValueError("bad b")), in_thread=True)
        scope.enter_sync(contextmanager(lambda: iter(("value",)))())
        raise body
    assert caught.value is body
    assert log == ["b", "a"]
    with pytest.raises(CleanupFailures, match="1 failed"), scope:
        scope.call(log.sync("a", OSError("bad a")))
    with pytest.raises(KeyboardInterrupt), scope:
        scope.call(log.sync("last"))
        scope.call(log.sync("a", KeyboardInterrupt()))
    assert log[-1] == "last"


def test_without_a_loop_nothing_hangs_and_nothing_asynchronous_is_taken() -> None:
    log, forever = Log(), threading.Event()
    with pytest.raises(CleanupFailures) as caught, CleanupScope(each=0.01) as scope:
        scope.call(log.sync("a"))
        scope.call(forever.wait, in_thread=True)
        with pytest.raises(TypeError, match="use async with"):
            scope.call(log.closer("b"))
        scope.call(Awaits(), name="awaits")
    forever.set()
    assert log == ["a"]
    assert [type(error) for error in caught.value.exceptions] == [TypeError, TimeoutError]


def test_the_package_knows_its_names() -> None:
    assert set(reaper.__all__) <= set(dir(reaper))
    assert all(getattr(reaper, name) is not None for name in reaper.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        reaper.nothing  # type: ignore[attr-defined]  # noqa: B018
