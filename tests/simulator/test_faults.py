import asyncio
import errno
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import aiohttp
import pytest

from reaper.simulator.faults import Fault, Faults
from tests.simulator.daytona_client import World

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("hang", Fault(kind="hang")),
        ("status:503", Fault(kind="status", status=503)),
        ("status,status=503", Fault(kind="status", status=503)),
        ("latency:50ms", Fault(kind="latency", seconds=0.05)),
        ("latency:0.25", Fault(kind="latency", seconds=0.25)),
        ("latency:1m30s,after", Fault(kind="latency", seconds=90, after=True)),
        ("garbage:502", Fault(kind="garbage", status=502)),
        (
            "status:503,method=DELETE,path=/sandbox/,times=3",
            Fault(kind="status", status=503, method="DELETE", path="/sandbox/", times=3),
        ),
        (
            "reset,after=true,every=10,skip=2,probability=25%,endpoint=rl-*,resource=chess*",
            Fault(kind="reset", after=True, every=10, skip=2, probability=0.25, endpoint="rl-*", resource="chess*"),
        ),
        (r"truncate,path=a{1\,2}\\d", Fault(kind="truncate", path=r"a{1,2}\d")),
        (
            "status:429,message=slow\\, please,header=Retry-After:5,header=X-A: b:c",
            Fault(kind="status", status=429, message="slow, please", headers={"Retry-After": "5", "X-A": "b:c"}),
        ),
    ],
)
def test_a_fault_is_read_from_text(text: str, fault: Fault) -> None:
    assert Fault.parse(text) == fault


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("explode", "no kind; there are latency, reset, hang"),
        ("", "no kind"),
        ("status", "needs a status between 100 and 599"),
        ("status:abc", "status='abc' cannot be read"),
        ("status:503,times=few", "times='few' cannot be read"),
        ("status:503,colour=red", "'colour' is no field of a fault"),
        ("status:503,DELETE", "'DELETE' is no key=value"),
        ("hang,path=(", "no regular expression"),
        ("latency:fast", "seconds='fast' cannot be read"),
        ("reset,probability=2", "between 0 and 1"),
        ("reset,every=0", "every must be at least 1"),
        ("status:503,header=x", "header=Name:value"),
        ("reset,after=maybe", "after='maybe' cannot be read"),
    ],
)
def test_a_wrong_text_says_what_is_wrong_and_shows_what_is_right(text: str, says: str) -> None:
    with pytest.raises(ValueError, match="for example") as raised:
        Fault.parse(text)
    assert says in str(raised.value)


def test_a_text_says_all_of_a_fault() -> None:
    fields = (
        r"endpoint=rl\,x,method=DELETE,path=a\,b\\d,times=3,skip=1,every=2,probability=50%,seconds=90s,message=x\\y,after"
    )
    assert Fault.parse(rf"status:503,{fields},header=X-A:a:b\,c,header=B:") == Fault(
        kind="status",
        endpoint="rl,x",
        method="DELETE",
        path=r"a,b\d",
        times=3,
        skip=1,
        every=2,
        probability=0.5,
        status=503,
        message=r"x\y",
        headers={"X-A": "a:b,c", "B": ""},
        seconds=90.0,
        after=True,
    )


def _strikes(faults: Faults, number: int, **request: str) -> str:
    wanted = {"endpoint": "rl", "method": "GET", "path": "/sandbox", **request}
    return "".join("x" if faults.pick(**wanted) else "." for _ in range(number))


def test_skip_every_and_times_count_the_requests_that_match() -> None:
    faults = Faults()
    faults.add("status:503,method=GET,skip=2,every=3,times=2")
    assert _strikes(faults, 1, method="DELETE") == "."
    assert _strikes(faults, 12) == "..x..x......"
    (rule,) = faults.rules()
    assert rule[1:] == (12, 2)


def test_rules_match_endpoint_method_path_and_resource() -> None:
    faults = Faults()
    faults.add(Fault(kind="reset", endpoint="rl-*", method="del*", path="^/sandbox/[^/]+$", resource="chess-*"))
    good: dict[str, Any] = {"endpoint": "rl-org", "method": "DELETE", "path": "/sandbox/17", "resource": ("17", "chess-1")}
    assert faults.pick(**good)
    for wrong in (
        {"endpoint": "web"},
        {"method": "GET"},
        {"path": "/sandbox/17/stop"},
        {"resource": "17"},
        {"resource": ()},
    ):
        assert not faults.pick(**{**good, **wrong})


def test_the_same_seed_strikes_the_same_and_rules_do_not_disturb_each_other() -> None:
    def run(seed: int, *, disturbed: bool = False) -> str:
        faults = Faults(seed)
        faults.add("reset,probability=0.5")
        if disturbed:
            faults.add("hang,probability=0.5,path=/other")
        return "".join(
            _strikes(faults, 1) + (_strikes(faults, 1, path="/other")[:0] if disturbed else "") for _ in range(64)
        )

    assert run(1) == run(1) == run(1)
    assert run(1) != run(2)
    assert 15 < run(1).count("x") < 49


def test_latencies_add_up_and_the_first_other_fault_decides() -> None:
    faults = Faults()
    faults.add("latency:1", "latency:2", "reset,times=1", "status:500")
    assert [fault.kind for fault in faults.pick("rl", "GET", "/")] == ["latency", "latency", "reset"]
    assert [fault.kind for fault in faults.pick("rl", "GET", "/")] == ["latency", "latency", "status"]
    faults.clear()
    assert faults.pick("rl", "GET", "/") == []


# Through a server


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the condition is the server's, which has no event to wait for
        await asyncio.sleep(0)


async def test_status_answers_in_the_servers_own_envelope() -> None:
    async with World() as world:
        row = world.add("a")
        world.sim.faults.add("status:503,method=DELETE,resource=a,times=1,header=Retry-After:7")
        answer = await world.delete(row)
        assert (answer.status, answer.body["error"], answer.message) == (503, "Service Unavailable", "Service Unavailable")
        assert answer.headers["Retry-After"] == "7"
        assert row.state == "started"
        assert (await world.delete(row)).status == 200


async def test_after_does_what_was_asked_and_then_fails() -> None:
    async with World() as world:
        rows = [world.add(str(number)) for number in range(3)]
        world.sim.faults.add("status:500,after,times=1", "reset,after,times=1", "garbage,after,times=1")
        assert (await world.delete(rows[0])).status == 500
        with pytest.raises(aiohttp.ClientError):
            await world.delete(rows[1])
        with pytest.raises(aiohttp.ContentTypeError):
            await world.delete(rows[2])
        assert {row.desired for row in rows} == {"destroyed"}


async def test_reset_breaks_the_connection_and_does_nothing() -> None:
    async with World() as world:
        row = world.add("a")
        world.sim.faults.add("reset")
        with pytest.raises(aiohttp.ClientOSError) as raised:
            await world.delete(row)
        assert raised.value.errno == errno.ECONNRESET
        assert row.desired == "started"
        assert world.sim.daytona.traffic.count("DELETE", status=0) == 1


async def test_truncate_sends_the_true_head_and_half_of_the_body() -> None:
    async with World() as world:
        row = world.add("a")
        whole = json.dumps((await world.get(row)).body, separators=(",", ":"))
        world.sim.faults.add("truncate")
        headers = {"Authorization": f"Bearer {world.key}"}
        url = f"{world.sim.daytona_url}/sandbox/{row.id}"
        async with world.session.get(url, headers=headers) as answer:
            assert (answer.status, answer.content_length) == (200, len(whole))
            half = await answer.content.readexactly(len(whole) // 2)
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.content.readany()
        assert half.decode() == whole[: len(whole) // 2]


async def test_hang_never_answers_until_the_server_closes() -> None:
    async with World() as world:
        world.sim.faults.add("hang,times=1")
        row = world.add("a")
        hanging = asyncio.create_task(world.get(row))
        await _until(lambda: world.sim.faults.rules()[0][2] == 1)
        world.turn(100_000)
        assert (await world.get(row)).status == 200
        assert not hanging.done()
        await world.sim.__aexit__(None, None, None)
        with pytest.raises(aiohttp.ClientError):
            await hanging


async def test_latency_is_simulated_time() -> None:
    async with World() as world:
        world.sim.faults.add("latency:1h,times=1", "latency:1h,after,times=1")
        row = world.add("a")
        slow = asyncio.create_task(world.delete(row))
        await _until(lambda: world.sim.faults.rules()[1][2] == 1)
        assert row.desired == "started"
        while row.desired == "started":
            world.turn(60)
            await asyncio.sleep(0)
        assert not slow.done()
        while not slow.done():
            world.turn(60)
            await asyncio.sleep(0)
        assert world.clock.elapsed() >= 7200
        assert (await slow).status == 200


async def test_another_process_can_look_at_it() -> None:
    async with World() as world:
        url = world.sim.daytona.url + "/_simulator/"
        world.add("a")
        world.sim.faults.add("status:500,times=1")

        async def ask(what: str) -> Any:
            async with world.session.get(url + what) as answer:
                return await answer.json()

        assert (await world.call("GET", "/sandbox")).status == 500
        assert (await world.call("GET", "/sandbox")).status == 200
        assert (await ask("state"))["organisations"] == {"default": {"sandboxes": 1, "states": {"started": 1}}}
        assert await ask("requests") == {
            "total": 2,
            "requests": [
                {"method": "GET", "route": "/api/sandbox", "status": 200, "count": 1},
                {"method": "GET", "route": "/api/sandbox", "status": 500, "count": 1},
            ],
        }


async def test_an_organisation_can_be_down_alone() -> None:
    async with World(sandboxes={"up": 3, "down": 3}) as world:
        world.sim.faults.add("reset,endpoint=down")
        assert (await world.call("GET", "/sandbox", key=world.sim.api_key("up"))).status == 200
        with pytest.raises(aiohttp.ClientError):
            await world.call("GET", "/sandbox", key=world.sim.api_key("down"))


async def test_a_turn_of_days_is_one_step() -> None:
    async with World() as world:
        row = world.add("a", auto_stop=60, auto_archive=60 * 24)
        world.clock.advance(timedelta(days=3))
        answer = await world.get(row)
        assert answer.body["state"] == "archived"
        assert answer.body["updatedAt"] < "2026-11-23"
