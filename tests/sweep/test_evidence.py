"""What is saved before a deletion: in which order, how long that may take, and that it changes no deletion."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import anyio
import pytest

from reaper.core.conditions import Policy
from reaper.core.model import Action, Resource
from reaper.errors import DeniedError, NotFoundError, RateLimitedError, ServerError
from reaper.providers.abilities import Evidence
from reaper.providers.memory import Held, MemoryProvider, Rule
from reaper.sweep import evidence, unit
from tests.sweep.lab import CONTAINERS, HOUR, RULES, Lab, many, network, outcomes, result, running, stopped

pytestmark = pytest.mark.anyio

BOUND = 4 * evidence.PATIENCE + evidence.MOST_SLOW  # seconds that all evidence of a sweep may take that has no answer


class Telling(MemoryProvider):
    """An endpoint that tells how its things ended."""

    async def evidence(self, resource: Resource, lines: int) -> Evidence:
        async with self.world.call("evidence", resource):
            state = self.world.find(resource).resource.raw_state
        return Evidence({"State": {"Status": state}}, f"{lines} lines")


class Store:
    """Keeps what it is given; saving may take a while, or fail."""

    def __init__(self, problem: str | None = None, seconds: float = 0.0) -> None:
        self.lines = 200
        self.saved: dict[str, Evidence] = {}
        self._problem, self._seconds = problem, seconds

    async def save(self, resource: Resource, found: Evidence) -> str | None:
        await anyio.sleep(self._seconds)
        if self._problem is None:
            self.saved[resource.name] = found
        return self._problem


def lab(*things: Resource | Held, store: Store | None = None, **world: Any) -> Lab:
    made = Lab(*things, evidence=store or Store(), **world)
    made.provider = Telling(made.world)
    return made


def calls(of: Lab, name: str) -> list[str]:
    """The calls about one thing, in the order in which they began."""
    return [call.method for call in of.world.calls if call.name == name]


@pytest.mark.parametrize(
    "thing",
    [stopped("it"), running("it"), Held(running("it"), auto_remove=True), running("it", lost_when_stopped=True)],
    ids=["stopped", "running", "removed when stopped", "ephemeral"],
)
async def test_it_is_saved_before_the_last_look_and_that_is_before_a_stop_and_the_deletion(thing: Resource | Held) -> None:
    store = Store()
    before_it = thing.resource.raw_state if isinstance(thing, Held) else thing.raw_state
    it = lab(replace(thing), store=store)
    report = await it.sweep()
    made = calls(it, "it")
    before = made[: made.index("stop" if "stop" in made else "delete")]
    assert before[-2:] == ["evidence", "inspect"]
    assert made.count("evidence") == 1
    assert "delete" not in before
    assert store.saved["it"] == Evidence({"State": {"Status": before_it}}, "200 lines")
    assert result(report, "it").outcome.removed
    assert result(report, "it").evidence is True


async def test_of_a_group_it_is_saved_before_any_of_its_members_is_stopped_or_deleted() -> None:
    store = Store()
    it = lab(stopped("a", group="p"), running("b", group="p"), network("n", "p"), store=store)
    await it.sweep()
    made = [call.method for call in it.world.calls]
    assert it.left() == set()
    assert set(store.saved) == {"a", "b"}  # a network has none
    last = len(made) - 1 - made[::-1].index("evidence")
    assert {"stop", "delete"}.isdisjoint(made[:last])
    assert made[last:].count("members") > 0
    assert [name for name in ("a", "b") if "inspect" in calls(it, name)[calls(it, name).index("evidence") :]] == ["a", "b"]


Change = Callable[[Lab], object]
CHANGES: dict[str, Change] = {
    "started": lambda it: it.world.start("it"),
    "labelled": lambda it: it.relabel("it", {"reaper.keep": ""}),
    "leased": lambda it: it.lease("it"),
    "joined": lambda it: it.world.add(stopped("new", group="p", hours=0.1)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("seconds", [0.0, 1.5, 4.9])
async def test_what_changes_while_it_is_saved_is_kept(change: str, seconds: float) -> None:
    store = Store(seconds=seconds)
    it = lab(stopped("it", group="p"), store=store)
    it.world.rules.append(Rule("evidence", "it", after=lambda: CHANGES[change](it)))
    report = await it.sweep()
    assert outcomes(report) == {"it": "skipped"}
    assert it.world.removals == []


async def test_a_look_that_was_taken_before_would_not_have_seen_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above is worth something: it convicts a program that saves after its look and looks no more."""

    async def first(self: unit.Unit, look: Callable[[unit.Unit], Awaitable[Sequence[Resource]]]) -> Sequence[Resource]:
        fresh = await look(self)
        await saves(self)
        return fresh

    async def nothing(_: unit.Unit) -> None:
        return

    saves, looks = unit.Unit._save_evidence, unit.Unit._look_again
    monkeypatch.setattr(unit.Unit, "_look_again", lambda self: first(self, looks))
    monkeypatch.setattr(unit.Unit, "_save_evidence", nothing)
    it = lab(stopped("it", group="p"))
    it.world.rules.append(Rule("evidence", "it", after=lambda: it.lease("it")))
    assert outcomes(await it.sweep()) == {"it": "deleted"}


FAILURES: dict[str, Rule] = {
    "refused": Rule("evidence", error=DeniedError("403: by a proxy")),
    "server": Rule("evidence", error=ServerError("500")),
    "limited": Rule("evidence", error=RateLimitedError("429", retry_after=3.0)),
    "bug": Rule("evidence", error=KeyError("hunter2-s3cr3t")),
    "hangs": Rule("evidence", hang=True),
    "slow": Rule("evidence", seconds=30.0),
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_that_it_cannot_be_had_hinders_no_deletion(failure: str) -> None:
    store = Store()
    it = lab(stopped("a"), running("b"), stopped("c", group="p"), network("n", "p"), store=store)
    it.world.rules.append(replace(FAILURES[failure]))
    began = anyio.current_time()
    report = await it.sweep()
    assert outcomes(report) == dict.fromkeys("abcn", "deleted")
    assert store.saved == {}
    assert [result(report, name).evidence for name in "abcn"] == [False, False, False, None]
    (endpoint,) = report.endpoints
    (warning,) = endpoint.warnings
    assert warning.startswith("the evidence of ")
    assert "hunter2" not in warning
    assert report.count(result(report, "a").outcome) == 4
    assert it.observer.bugs == []
    assert anyio.current_time() - began <= 2 * evidence.PATIENCE + 1


@pytest.mark.parametrize("store", [Store("no space left on device"), Store(seconds=1e6)], ids=["full", "hangs"])
async def test_a_disk_that_takes_nothing_hinders_no_deletion(store: Store) -> None:
    it = lab(*many(300), store=store, latency=0.001)
    began = anyio.current_time()
    report = await it.sweep()
    assert it.left() == set()
    assert {r.evidence for r in report.results} == {False}
    assert 1 <= len(report.endpoints[0].warnings) <= evidence.MOST_WARNINGS
    assert anyio.current_time() - began < BOUND


async def test_an_endpoint_that_is_slow_with_all_of_it_is_not_asked_for_ever() -> None:
    it = lab(*many(300), latency=0.001)
    it.world.rules.append(Rule("evidence", seconds=evidence.PATIENCE - 0.1))
    began = anyio.current_time()
    report = await it.sweep()
    assert it.left() == set()
    assert len(it.world.made("evidence")) <= it.provider.limits.reads
    assert "too slow with others" in " ".join(report.endpoints[0].warnings)
    assert anyio.current_time() - began < BOUND


async def test_a_problem_with_a_part_of_it_is_a_warning_and_the_rest_is_saved() -> None:
    class Half(Telling):
        async def evidence(self, resource: Resource, lines: int) -> Evidence:
            found = await super().evidence(resource, lines)
            return replace(found, log=None, problem="its log could not be read: 500")

    store = Store()
    it = lab(stopped("a"), stopped("b"), store=store)
    it.provider = Half(it.world)
    report = await it.sweep()
    assert [result(report, name).evidence for name in "ab"] == [True, True]
    assert len(report.endpoints[0].warnings) == 1  # the same for both
    assert "its log could not be read: 500" in report.endpoints[0].warnings[0]


async def test_it_is_saved_once_however_often_the_deletion_is_tried() -> None:
    it = lab(stopped("it"))
    it.world.rules.append(Rule("delete", "it", calls=range(1, 6), error=ServerError("500: busy")))
    report = await it.sweep()
    assert outcomes(report) == {"it": "deleted"}
    assert len(it.world.made("evidence")) == 1


async def test_what_is_gone_by_then_is_no_failure() -> None:
    it = lab(stopped("it"), stopped("other"))
    it.world.rules.append(Rule("evidence", "it", error=NotFoundError("404"), before=lambda: it.world.remove("it")))
    report = await it.sweep()
    assert (result(report, "it").evidence, result(report, "it").outcome.value) == (None, "gone")
    assert report.endpoints[0].warnings == ()


async def test_nothing_is_saved_of_what_is_not_to_be_deleted() -> None:
    store = Store()
    it = lab(stopped("it"), stopped("young", hours=0.1), store=store)
    await it.sweep(act=False)
    assert it.world.made("evidence") == []
    await it.sweep(max_deletions=0)
    assert it.world.made("evidence") == []
    it.rules = replace(RULES, policies=(Policy("stop", CONTAINERS, older_than=24 * HOUR, action=Action.STOP),))
    it.world.add(running("runs"))
    assert outcomes(await it.sweep()) == {"runs": "stopped"}
    assert it.world.made("evidence") == []
    assert store.saved == {}


async def test_a_sweep_that_is_ending_saves_nothing_more() -> None:
    it = lab(*many(200), latency=0.5)
    it.world.rules.append(Rule("evidence", calls={1}, before=lambda: it.stop.request("SIGTERM")))
    report = await it.sweep()
    done = {call.name for call in it.world.made("delete")}
    asked = {call.name for call in it.world.made("evidence")}
    assert len(asked) <= it.provider.limits.reads
    assert done == set()
    assert "abandoned" in outcomes(report).values()


async def test_an_endpoint_that_gives_none_is_swept_as_ever() -> None:
    it = Lab(stopped("it"), evidence=Store())
    report = await it.sweep()
    assert (outcomes(report), result(report, "it").evidence) == ({"it": "deleted"}, None)
    assert report.endpoints[0].warnings == ()
