"""What the engine's events tell of deaths, and that nothing odd in them does harm."""

import json
import tracemalloc
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.core.model import Resource, State
from reaper.providers.docker.events import LONGEST, deaths

DIED = datetime(2026, 11, 21, 12, 0, 0, 250_000, tzinfo=UTC)


def event(name: str = "client", action: str = "die", **more: Any) -> dict[str, Any]:
    labels = {"com.docker.compose.project": "p", "com.docker.compose.oneoff": "False", "team": "rl"}
    return {
        "Type": "container",
        "Action": action,
        "Actor": {"ID": f"id-{name}", "Attributes": {"name": name, "image": "tb__a__client", "exitCode": "137", **labels}},
        "timeNano": int(DIED.timestamp() * 1e9),
        **more,
    }


def read(chunks: Iterable[bytes]) -> list[Resource]:
    async def stream() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def main() -> list[Resource]:
        return [found async for found in deaths(stream(), "local")]

    return anyio.run(main)


def lines(*events: Any) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in events)


def test_a_death_tells_who_when_and_what_it_was() -> None:
    (found,) = read([lines(event())])
    assert (found.id, found.name, found.image, found.group) == ("id-client", "client", "tb__a__client", "p")
    assert (found.stopped_at, found.state) == (DIED, State.STOPPED)
    assert (found.labels or {})["team"] == "rl"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(["Type", "Action", "Actor", "timeNano"]), json_values)
def test_an_odd_event_is_passed_over_and_the_next_one_is_read(key: str, value: Any) -> None:
    found = read([lines({**event("odd"), key: value}, event("good")), b"not json\n\xff\xfe\n", lines(event("last"))])
    assert [each.name for each in found][-2:] == ["good", "last"]
    assert len(found) <= 3


@pytest.mark.parametrize("size", [1_500_000, 3_000_000])
def test_a_death_with_long_labels_is_read_like_any_other(size: int) -> None:
    long = event("long")
    long["Actor"]["Attributes"]["notes"] = "x" * size
    whole = lines(long, event("next"))
    found = read([whole[begin : begin + 65536] for begin in range(0, len(whole), 65536)])
    assert [each.name for each in found] == ["long", "next"]


def test_an_event_that_is_too_long_is_passed_over_and_its_time_is_known() -> None:
    long = event("ab12")
    long["Actor"] = {"ID": "ab12", "Attributes": {"notes": "x" * (LONGEST + 1)}}
    whole = json.dumps(long, separators=(",", ":")).encode() + b"\n" + lines(event("next"))
    found = read([whole[begin : begin + 1_000_003] for begin in range(0, len(whole), 1_000_003)])
    assert [(each.id, each.stopped_at, each.group) for each in found] == [("ab12", DIED, None), ("id-next", DIED, "p")]


def test_an_event_that_does_not_end_fills_no_memory() -> None:
    chunk = b"x" * 1_000_000
    tracemalloc.start()
    try:
        assert read(chunk for _ in range(4 * LONGEST // len(chunk))) == []
        assert tracemalloc.get_traced_memory()[1] < 4 * LONGEST
    finally:
        tracemalloc.stop()
