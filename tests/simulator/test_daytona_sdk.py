"""Daytona's own packages against the simulated server.

Each of their names is loaded when it is first used, and then takes up to a second: in no signature, and in no import.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import daytona
import daytona_api_client_async as generated
import pytest

from reaper.simulator.clock import Clock
from reaper.simulator.daytona.limits import Limit
from reaper.simulator.daytona.rules import Behaviour
from reaper.simulator.server import Simulator
from reaper.simulator.world import ABSENT, SandboxSpec
from tests.simulator.daytona_client import START

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("the packages of Daytona")]
QUICK = Behaviour(pickup=(0.05, 0.05), destroy=(0.2, 0.3), start=(0.1, 0.2), stop=(0.1, 0.2), list_lag=0, race=0)


@asynccontextmanager
async def sdk(
    behaviour: Behaviour = QUICK, key: str = "", **options: Any
) -> AsyncIterator[tuple[daytona.AsyncDaytona, Simulator]]:
    async with Simulator(seed=7, behaviour=behaviour, **options) as sim:
        config = daytona.DaytonaConfig(api_key=key or sim.api_key(), api_url=sim.daytona_url, target="us")
        async with daytona.AsyncDaytona(config) as client:
            yield client, sim


async def test_list_and_get() -> None:
    async with sdk(sandboxes=250, clock=Clock(START, rate=0)) as (client, sim):
        found = [sandbox async for sandbox in client.list()]
        shown = {row.id: row for row in sim.organisation().rows.values()}
        assert {sandbox.id for sandbox in found} == set(shown)
        assert len(found) == 250
        assert {sandbox.state.value for sandbox in found if sandbox.state} == {row.shown for row in shown.values()}
        one = await client.get(found[0].id)
        assert (one.name, one.labels, one.created_at) == (found[0].name, found[0].labels, found[0].created_at)
        assert (await client.get(one.name)).id == one.id


async def test_delete_and_stop() -> None:
    async with sdk(replace(QUICK, get_cache=0)) as (client, sim):
        org = sim.organisation()
        for name in ("first", "plain", "ephemeral"):
            org.add(SandboxSpec(name=name, auto_delete=0 if name == "ephemeral" else -1))
        first, plain, ephemeral = [await client.get(name) for name in ("first", "plain", "ephemeral")]
        await client.delete(first)
        assert first.state is generated.SandboxState.DESTROYING
        assert first.name.startswith("DESTROYED_first_")
        assert first.id in org.rows
        await client.stop(plain, timeout=30)
        assert plain.state is generated.SandboxState.STOPPED
        await client.stop(ephemeral, timeout=30)
        assert ephemeral.state is generated.SandboxState.DESTROYED


async def test_errors_arrive_as_the_sdks_own() -> None:
    async with sdk() as (client, sim):
        org = sim.organisation()
        parent = org.add(SandboxSpec(name="parent"))
        org.add(SandboxSpec(name="child", parent=parent.id))
        org.add(SandboxSpec(name="creating", state="creating", stuck=True))
        with pytest.raises(daytona.DaytonaBadRequestError, match="active fork children"):
            await client.delete(await client.get("parent"))
        with pytest.raises(daytona.DaytonaConflictError, match="Sandbox state change in progress") as conflict:
            await client.delete(await client.get("creating"))
        assert conflict.value.status_code == 409
        sim.daytona.set_limits("default", general=Limit(1, 10))
        await client.get("parent")
        with pytest.raises(daytona.DaytonaRateLimitError) as limited:
            await client.get("child")
        assert limited.value.headers["Retry-After-authenticated"] == "10"


async def test_credentials() -> None:
    async with sdk(key="dtn_wrong") as (client, sim):
        with pytest.raises(daytona.DaytonaAuthenticationError, match="Invalid credentials"):
            await client.get("x")
        lame = sim.daytona.add_key("default", [])
        row = sim.organisation().add(SandboxSpec())
        config = daytona.DaytonaConfig(api_key=lame, api_url=sim.daytona_url, target="us")
        async with daytona.AsyncDaytona(config) as other:
            sandbox = await other.get(row.id)
            with pytest.raises(daytona.DaytonaForbiddenError, match="Access denied"):
                await other.delete(sandbox)


@pytest.mark.parametrize(
    "odd",
    [
        SandboxSpec(labels=None),
        SandboxSpec(labels={"code-toolbox-language": "cobol"}),
        SandboxSpec(extra={"networkBlockAll": ABSENT}),
    ],
)
async def test_one_odd_row_fails_the_whole_list(odd: SandboxSpec) -> None:
    async with sdk(sandboxes=3) as (client, sim):
        sim.organisation().add(odd)
        with pytest.raises(daytona.DaytonaError):
            assert [sandbox async for sandbox in client.list()]


# The models that `daytona_api_client_async` ships


@asynccontextmanager
async def api(**options: Any) -> AsyncIterator[tuple[generated.SandboxApi, Simulator]]:
    sim = Simulator(seed=7, **options)
    async with sim, generated.ApiClient(generated.Configuration(host="")) as client:
        client.configuration.host = sim.daytona_url
        client.default_headers["Authorization"] = f"Bearer {sim.api_key()}"
        yield generated.SandboxApi(client), sim


async def test_every_answer_fits_its_model_and_says_nothing_more() -> None:
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
