"""Daytona's own packages against the simulated server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import daytona_api_client_async as generated
import pytest
from daytona import (
    AsyncDaytona,
    Daytona,
    DaytonaAuthenticationError,
    DaytonaBadRequestError,
    DaytonaConfig,
    DaytonaConflictError,
    DaytonaError,
    DaytonaForbiddenError,
    DaytonaNotFoundError,
    DaytonaRateLimitError,
    ListSandboxesQuery,
    SandboxState,
)
from daytona_api_client_async import SandboxState as State
from pydantic import ValidationError

from reaper.simulator.clock import Clock
from reaper.simulator.daytona.limits import Limit
from reaper.simulator.daytona.rules import Behaviour
from reaper.simulator.server import Simulator
from reaper.simulator.world import ABSENT, SandboxSpec
from tests.simulator.daytona_client import EXACT, START

QUICK = Behaviour(pickup=(0.05, 0.05), destroy=(0.2, 0.3), start=(0.1, 0.2), stop=(0.1, 0.2), list_lag=0, race=0)


@asynccontextmanager
async def sdk(behaviour: Behaviour = QUICK, key: str = "", **options: Any) -> AsyncIterator[tuple[AsyncDaytona, Simulator]]:
    async with Simulator(seed=7, behaviour=behaviour, **options) as sim:
        config = DaytonaConfig(api_key=key or sim.api_key(), api_url=sim.daytona_url, target="us")
        async with AsyncDaytona(config) as client:
            yield client, sim


def play(test: Callable[[AsyncDaytona, Simulator], Awaitable[None]], behaviour: Behaviour = QUICK, **options: Any) -> None:
    async def main() -> None:
        async with sdk(behaviour, **options) as (client, sim):
            await test(client, sim)

    asyncio.run(main())


def test_list_get_and_filters() -> None:
    async def test(client: AsyncDaytona, sim: Simulator) -> None:
        found = [sandbox async for sandbox in client.list()]
        shown = {row.id: row for row in sim.organisation().rows.values()}
        assert {sandbox.id for sandbox in found} == set(shown)
        assert len(found) == 250
        assert {sandbox.state.value for sandbox in found if sandbox.state} == {row.shown for row in shown.values()}
        query = ListSandboxesQuery(labels={"harbor.managed": "true"}, states=[SandboxState.STARTED], limit=50)
        managed = [sandbox async for sandbox in client.list(query)]
        assert len(managed) > 60
        assert all(sandbox.labels["harbor.managed"] == "true" for sandbox in managed)
        one = await client.get(managed[0].id)
        assert (one.name, one.labels, one.created_at) == (managed[0].name, managed[0].labels, managed[0].created_at)
        assert (await client.get(one.name)).id == one.id

    play(test, sandboxes=250, clock=Clock(START, rate=0))


def test_delete_with_and_without_waiting() -> None:
    async def test(client: AsyncDaytona, sim: Simulator) -> None:
        org = sim.organisation()
        first, second = org.add(SandboxSpec(name="first")), org.add(SandboxSpec(name="second"))
        sandbox = await client.get("first")
        await client.delete(sandbox)
        assert sandbox.state is State.DESTROYING
        assert sandbox.name.startswith("DESTROYED_first_")
        assert first.id in org.rows
        sandbox = await client.get("second")
        await client.delete(sandbox, timeout=30, wait=True)
        assert sandbox.state is State.DESTROYED
        assert second.id not in org.rows
        with pytest.raises(DaytonaNotFoundError, match=r"Sandbox with ID or name second not found"):
            await client.get("second")

    play(test)


def test_waiting_polls_where_nothing_is_pushed() -> None:
    async def test(client: AsyncDaytona, sim: Simulator) -> None:
        sim.faults.add("status:404,path=socket.io")
        sim.organisation().add(SandboxSpec(name="chess"))
        sandbox = await client.get("chess")
        await client.delete(sandbox, timeout=30, wait=True)
        assert sandbox.state is State.DESTROYED
        assert sim.daytona.traffic.count("GET", "{sandboxIdOrName}") >= 2

    play(test, replace(QUICK, get_cache=0))


def test_pushed_states_end_the_wait_although_get_is_stale() -> None:
    async def test(client: AsyncDaytona, sim: Simulator) -> None:
        row = sim.organisation().add(SandboxSpec(name="chess"))
        sandbox = await client.get("chess")
        dispatcher = client._event_dispatcher
        assert dispatcher is not None
        while not dispatcher.is_connected:  # noqa: ASYNC110 - the SDK has no event to wait for
            await asyncio.sleep(0)
        clock = sim.clock

        async def turn() -> None:
            while row.id in sim.organisation().rows:
                clock.advance(timedelta(seconds=1))
                await asyncio.sleep(0)

        turning = asyncio.create_task(turn())
        await sandbox.delete(timeout=30, wait=True)
        await turning
        assert sandbox.state is State.DESTROYED

    play(test, replace(EXACT, get_cache=1000), clock=Clock(START, rate=0))


def test_stop_and_an_ephemeral_sandbox() -> None:
    async def test(client: AsyncDaytona, sim: Simulator) -> None:
        org = sim.organisation()
        org.add(SandboxSpec(name="plain"))
        org.add(SandboxSpec(name="ephemeral", auto_delete=0))
        plain, ephemeral = await client.get("plain"), await client.get("ephemeral")
        await client.stop(plain, timeout=30)
        assert plain.state is State.STOPPED
        await client.stop(ephemeral, timeout=30)
        assert ephemeral.state is State.DESTROYED

    play(test, replace(QUICK, get_cache=0))


def test_create_and_start() -> None:
    async def test(client: AsyncDaytona, sim: Simulator) -> None:
        sandbox = await client.create(timeout=30)
        assert sandbox.state is State.STARTED
        assert sandbox.labels == {"code-toolbox-language": "python"}
        await sandbox.stop(timeout=30)
        await client.start(sandbox, timeout=30)
        assert sim.organisation().rows[sandbox.id].state == "started"
        await sandbox.refresh_activity()

    play(test, replace(QUICK, get_cache=0))


def test_errors_arrive_as_the_sdks_own() -> None:
    async def test(client: AsyncDaytona, sim: Simulator) -> None:
        org = sim.organisation()
        parent = org.add(SandboxSpec(name="parent"))
        org.add(SandboxSpec(name="child", parent=parent.id))
        org.add(SandboxSpec(name="creating", state="creating", stuck=True))
        with pytest.raises(DaytonaBadRequestError, match="active fork children"):
            await client.delete(await client.get("parent"))
        with pytest.raises(DaytonaConflictError, match="Sandbox state change in progress") as conflict:
            await client.delete(await client.get("creating"))
        assert conflict.value.status_code == 409
        sim.daytona.set_limits("default", general=Limit(1, 10))
        await client.get("parent")
        with pytest.raises(DaytonaRateLimitError) as limited:
            await client.get("child")
        assert limited.value.headers["Retry-After-authenticated"] == "10"

    play(test)


def test_credentials() -> None:
    async def main() -> None:
        async with sdk(key="dtn_wrong") as (client, sim):
            with pytest.raises(DaytonaAuthenticationError, match="Invalid credentials"):
                await client.get("x")
            lame = sim.daytona.add_key("default", [])
            row = sim.organisation().add(SandboxSpec())
            config = DaytonaConfig(api_key=lame, api_url=sim.daytona_url, target="us")
            async with AsyncDaytona(config) as other:
                sandbox = await other.get(row.id)
                with pytest.raises(DaytonaForbiddenError, match="Access denied"):
                    await other.delete(sandbox)

    asyncio.run(main())


@pytest.mark.parametrize(
    "odd",
    [
        SandboxSpec(labels=None),
        SandboxSpec(labels={"code-toolbox-language": "cobol"}),
        SandboxSpec(extra={"networkBlockAll": ABSENT}),
    ],
)
def test_one_odd_row_fails_the_whole_list(odd: SandboxSpec) -> None:
    async def test(client: AsyncDaytona, sim: Simulator) -> None:
        sim.organisation().add(odd)
        with pytest.raises(DaytonaError):
            assert [sandbox async for sandbox in client.list()]

    play(test, sandboxes=3)


def test_the_blocking_sdk_from_another_thread() -> None:
    with Simulator(seed=7, sandboxes=30, behaviour=QUICK) as sim:
        client = Daytona(DaytonaConfig(api_key=sim.api_key(), api_url=sim.daytona_url, target="us"))
        try:
            found = list(client.list())
            assert len(found) == 30
            running = next(sandbox for sandbox in found if sandbox.state is SandboxState.STARTED)
            client.delete(running, timeout=30, wait=True)
            assert running.id not in sim.organisation().rows
        finally:
            assert client._event_dispatcher is not None
            client._event_dispatcher.disconnect()  # the blocking SDK has no close


# The models that `daytona_api_client_async` ships


@asynccontextmanager
async def api(**options: Any) -> AsyncIterator[tuple[generated.SandboxApi, Simulator]]:
    sim = Simulator(seed=7, **options)
    async with sim, generated.ApiClient(generated.Configuration(host="")) as client:
        client.configuration.host = sim.daytona_url
        client.default_headers["Authorization"] = f"Bearer {sim.api_key()}"
        yield generated.SandboxApi(client), sim


def test_every_answer_fits_its_model_and_says_nothing_more() -> None:
    async def main() -> None:
        async with api(sandboxes=300, behaviour=QUICK) as (sandboxes, sim):
            page = await sandboxes.list_sandboxes(limit=200)
            assert len(page.items) == 200
            for item in page.items:
                assert item.additional_properties == {}
                assert item.state is not None
                assert item.state.value != "unknown_default_open_api"
                assert item.desired_state is not None
                assert item.desired_state.value != "unknown_default_open_api"
            rest = await sandboxes.list_sandboxes(limit=200, cursor=page.next_cursor)
            assert rest.next_cursor is None
            started = next(item for item in page.items if item.state and item.state.value == "started")
            whole = await sandboxes.get_sandbox(started.id)
            deleted = await sandboxes.delete_sandbox(started.id)
            assert whole.additional_properties == deleted.additional_properties == {}
            assert deleted.desired_state is not None
            assert deleted.desired_state.value == "destroyed"
            other = sim.organisation().add(SandboxSpec())
            assert (await sandboxes.stop_sandbox(other.id)).additional_properties == {}
            assert (await sandboxes.get_toolbox_proxy_url(other.id)).url == whole.toolbox_proxy_url
            config = await generated.ConfigApi(sandboxes.api_client).config_controller_get_config()
            assert config.additional_properties == {}

    asyncio.run(main())


def test_the_models_do_not_fit_the_older_server() -> None:
    async def main() -> None:
        async with api(sandboxes=3, behaviour=replace(QUICK, newer=False)) as (sandboxes, _):
            with pytest.raises(ValidationError, match="network_block_all"):
                await sandboxes.list_sandboxes()
            raw = await sandboxes.list_sandboxes_without_preload_content()
            assert raw.status == 200

    asyncio.run(main())


def test_the_generated_clients_filters_are_understood() -> None:
    async def main() -> None:
        async with api(behaviour=EXACT, clock=Clock(START, rate=0)) as (sandboxes, sim):
            org = sim.organisation()
            org.add(SandboxSpec(name="old", created=START - timedelta(days=2), cpu=4))
            org.add(SandboxSpec(name="young", created=START))
            org.add(SandboxSpec(name="warm", created=START, warm_pool="p"))

            async def names(**filters: Any) -> set[str]:
                return {item.name for item in (await sandboxes.list_sandboxes(**filters)).items}

            assert await names(created_at_before=START - timedelta(days=1)) == {"old"}
            assert await names(last_event_after=START - timedelta(days=1)) == {"young"}
            assert await names(min_cpu=2) == {"old"}
            assert await names(min_gpu=1) == set()
            assert await names(include_warm=True) == {"old", "young", "warm"}
            assert await names(states=[generated.SandboxState.STARTED, generated.SandboxState.ERROR]) == {"old", "young"}

    asyncio.run(main())
