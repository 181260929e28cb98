"""A record of uses tells all of them, or that it does not know; and on a busy host it does know."""

import json
from collections import deque
from collections.abc import Mapping
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reaper.providers.abilities import Uses
from reaper.providers.docker import uses
from reaper.providers.docker.use_events import is_of_use
from reaper.providers.docker.use_record import MANY, NS, QUEUE, UseRecord

pytestmark = pytest.mark.anyio

KEPT, BUFFER = 256, 1024  # moby: eventsLimit, bufferSize
BEGIN = 1_700_000_000 * NS


class Engine:
    """An engine's events as moby has them: a ring, and for the one stream a queue behind which it drops what comes.

    It keeps containers alive over a start (live-restore), and so its network "bridge".
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.number = BEGIN, 0
        self.ring: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self.record = UseRecord()
        self.backlog: deque[dict[str, Any]] = deque()
        self.queue: deque[dict[str, Any]] | None = None
        self.mark: str | None = None
        self.unseen: set[str] = set()
        monkeypatch.setattr(uses, "_events", self._remembered)
        monkeypatch.setattr(uses, "time", SimpleNamespace(time=lambda: self.now / NS))

    def happen(self, kind: str, action: str, attributes: Mapping[str, str], late: int = 0) -> None:
        self.number += 1
        self.now += NS // 1000
        actor = {"ID": f"{self.number:064x}", "Attributes": dict(attributes)}
        event = {"Type": kind, "Action": action, "Actor": actor, "timeNano": self.now - late}
        self.ring.append(event)
        if self.queue is not None and is_of_use(event) and len(self.queue) < BUFFER:
            self.queue.append(event)

    def execs(self, number: int) -> None:
        for _ in range(number):
            for action in ("exec_create: true", "exec_start: true", "exec_die"):
                self.happen("container", action, {"image": "acme/busy"})

    def use(self, number: int = 1, late: int = 0) -> None:
        for _ in range(number):
            name = f"acme/used:{self.number}"
            self.unseen.add(name)
            self.happen("container", "create", {"image": name}, late)

    def rest(self, seconds: float) -> None:
        self.now += round(seconds * NS)

    def connect(self) -> None:
        self.record.connected()
        self.queue, self.backlog = deque(), deque(self._since(self.record.since, of_use=True))

    def disconnect(self) -> None:
        self.queue = None
        self.backlog.clear()

    def restart(self) -> None:
        self.disconnect()
        self.ring.clear()

    def read(self, number: int = 1 << 30) -> None:
        for waiting in (self.backlog, self.queue or deque()):
            while waiting and number > 0:
                number -= 1
                self.record.add(waiting.popleft(), self.now)

    async def look(self) -> Uses:
        """What a look is told, which is checked."""
        connection: Any = SimpleNamespace(is_podman=False, ask=self._answer)
        told = await uses.uses_since(connection, self.mark, "net", timedelta(0), self.record)
        self.mark = told.mark
        if told.complete:
            assert self.unseen <= told.ids
        self.unseen.clear()
        return told

    @staticmethod
    async def _answer(path: str) -> object:
        assert path == "info"
        return {"LiveRestoreEnabled": True, "ContainersRunning": 1}

    def _since(self, since: int, *, of_use: bool) -> list[dict[str, Any]]:
        found: deque[dict[str, Any]] = deque()
        for event in reversed(self.ring):
            if event["timeNano"] < since:
                break
            if is_of_use(event) or not of_use:
                found.appendleft(event)
        return list(found)

    async def _remembered(self, _connection: object, params: Mapping[str, str]) -> list[dict[str, Any]]:
        return self._since(round(float(params["since"]) * NS), of_use=False)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    return Engine(monkeypatch)


async def busy(engine: Engine) -> None:
    """A stream is followed of an engine on which much has happened, and a look was made."""
    engine.use()
    engine.connect()
    engine.read()
    engine.rest(10)
    for _ in range(300):
        engine.execs(1)
        engine.read()
    await engine.look()
    engine.rest(1)


async def test_all_uses_between_two_looks_at_a_busy_engine_are_known(engine: Engine) -> None:
    await busy(engine)
    for _ in range(10):
        engine.use()
        for _ in range(300):
            engine.execs(1)
            engine.read()
            engine.rest(1)
        told = await engine.look()
        assert told.complete
        assert len(told.ids) == 2  # and no others but that of the execs


async def test_without_a_stream_they_are_not(engine: Engine) -> None:
    await engine.look()
    engine.execs(300)
    assert not (await engine.look()).complete


async def test_an_interruption_that_the_engine_remembers_is_bridged(engine: Engine) -> None:
    await busy(engine)
    engine.disconnect()
    engine.use()
    engine.execs(50)
    engine.connect()
    for _ in range(300):
        engine.read()
        engine.execs(1)
    engine.read()
    assert (await engine.look()).complete


async def broken_by_an_interruption(engine: Engine) -> None:
    engine.disconnect()
    engine.use()
    engine.execs(90)
    engine.connect()


async def broken_by_a_restart(engine: Engine) -> None:
    engine.use()
    engine.restart()
    engine.connect()


async def broken_by_a_reader_that_is_too_slow(engine: Engine) -> None:
    engine.execs(BUFFER)
    engine.use()


async def broken_by_silence(engine: Engine) -> None:
    engine.disconnect()
    engine.use()


async def broken_by_a_clock_that_is_set_back_and_forth(engine: Engine) -> None:
    engine.rest(-3600)
    engine.use()
    engine.read()
    engine.rest(3700)


async def broken_by_an_event_that_cannot_be_read(engine: Engine) -> None:
    engine.use()
    assert engine.queue
    engine.queue.pop()
    engine.record.break_off(engine.now)


async def broken_by_more_names_than_are_kept(engine: Engine) -> None:
    for _ in range(MANY + 2):
        engine.use()
        engine.read()


BREAKS = [broken for name, broken in list(globals().items()) if name.startswith("broken_by_")]


@pytest.mark.parametrize("broken", BREAKS, ids=lambda broken: broken.__name__)
async def test_what_may_have_been_missed_is_not_known(engine: Engine, broken: Any) -> None:
    await busy(engine)
    await broken(engine)
    for _ in range(300):
        engine.read()
        engine.execs(1)
    engine.read()
    assert not (await engine.look()).complete
    engine.rest(10)
    if engine.queue is None:
        engine.connect()
    for _ in range(2):  # it is known again from then on
        for _ in range(300):
            engine.execs(1)
            engine.read()
            engine.rest(0.1)
        told = await engine.look()
    assert told.complete


async def test_what_began_before_a_look_and_is_written_down_after_it_is_not_missed(engine: Engine) -> None:
    await busy(engine)
    engine.rest(-1)
    engine.use(late=NS)
    engine.rest(1)
    for _ in range(300):
        engine.execs(1)
        engine.read()
    assert (await engine.look()).complete


async def test_a_mark_of_another_process_has_only_what_the_engine_remembers(engine: Engine) -> None:
    await busy(engine)
    assert engine.mark is not None
    theirs = json.loads(engine.mark) | {"run": UseRecord().run}
    engine.mark = json.dumps(theirs)
    for _ in range(300):
        engine.execs(1)
        engine.read()
    assert not (await engine.look()).complete


async def test_many_events_at_once_are_no_gap_as_long_as_they_fit(engine: Engine) -> None:
    await busy(engine)
    for _ in range(QUEUE - 1):
        engine.execs(1)
    engine.read()
    assert (await engine.look()).complete


NUMBERS = st.sampled_from((1, 2, 50, 85, 86, 300, QUEUE, BUFFER, 1100))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("execs"), NUMBERS),
        st.tuples(st.just("use"), st.sampled_from((1, 2, 200, 300))),
        st.tuples(st.just("late"), st.sampled_from((NS // 10, NS))),
        st.tuples(st.just("read"), NUMBERS),
        st.tuples(st.just("steady"), NUMBERS),
        st.tuples(st.just("rest"), st.sampled_from((0.5, 10, 700, -0.5, -5, -3600))),
        st.tuples(st.sampled_from(("connect", "disconnect", "restart", "look", "look")), st.just(0)),
    ),
    min_size=5,
    max_size=40,
)


@given(STEPS)
@example([("connect", 0), ("look", 0), ("execs", BUFFER), ("use", 1), ("read", 1100), ("steady", 86), ("look", 0)])
@example([("look", 0), ("use", 1), ("restart", 0), ("look", 0)])
async def test_no_use_is_missed_whatever_happens(steps: list[tuple[str, Any]]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        engine = Engine(monkeypatch)
        for what, how in steps:
            match what:
                case "late":
                    engine.use(1, how)
                case "steady":
                    for _ in range(how):
                        engine.execs(1)
                        engine.read()
                case "look":
                    await engine.look()
                case "execs" | "use" | "read" | "rest":
                    getattr(engine, what)(how)
                case _:
                    getattr(engine, what)()
        await engine.look()
