"""What people hold in place of an id: sandboxes of Daytona's own package, and a sandbox that is created with its block.

Each name of the package is loaded when it is first used, and then takes up to a second: in no signature, and in no import.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import daytona
import pytest

from reaper import CleanupError, WrongLoopError, lease, managed_daytona_sandbox, managed_docker_container, sandbox
from reaper.errors import ConfigError
from reaper.library import creation
from reaper.simulator.daytona.rules import Behaviour
from tests.daytona import server
from tests.daytona.server import Served
from tests.library.lab import cancelled_at
from tests.simulator.docker_world import World

pytestmark = pytest.mark.xdist_group("the packages of Daytona")

SOON = Behaviour(pickup=(0, 0), start=(0.05, 0.1), destroy=(0, 0.1), get_cache=0, list_lag=0)


@pytest.fixture(autouse=True)
def _prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing takes long there, and the listing does not lag: what does not appear at once is not waited for long."""
    monkeypatch.setattr(server, "QUICK", SOON)
    monkeypatch.setattr(creation, "APPEARS_WITHIN", 1.0)
    monkeypatch.setattr(creation, "APPEARS_AFTER_ANSWER", 0.2)


def params() -> daytona.CreateSandboxFromSnapshotParams:
    return daytona.CreateSandboxFromSnapshotParams(name="mine", labels={"run": "nightly"})


def settings(served: Served, org: str | None = None) -> daytona.DaytonaConfig:
    return daytona.DaytonaConfig(
        api_key=served.sim.api_key(org or served.first), api_url=served.sim.daytona_url, target="us"
    )


@asynccontextmanager
async def asynchronous(served: Served, org: str | None = None) -> AsyncIterator[daytona.AsyncDaytona]:
    async with daytona.AsyncDaytona(settings(served, org)) as client:
        yield client


@contextmanager
def synchronous(served: Served) -> Iterator[daytona.Daytona]:
    yield daytona.Daytona(settings(served))


def labels_of(served: Served, name: str) -> dict[str, str]:
    rows = served.sim.organisation(served.first).rows
    return served.sim.do(lambda: next(dict(row.labels or {}) for row in rows.values() if row.name == name))


# -- a sandbox in place of its id ---------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_sandbox_of_the_asynchronous_package_goes_at_the_end(served: Served) -> None:
    served.add("other")
    async with asynchronous(served) as client:
        mine = await client.create(params())
        async with managed_daytona_sandbox(mine) as managed:
            assert managed.id == mine.id
            assert served.left() == {"mine", "other"}
    assert served.left() == {"other"}


def test_a_sandbox_of_the_synchronous_package_goes_at_the_end(served: Served) -> None:
    with synchronous(served) as client, managed_daytona_sandbox(client.create(params())):
        assert served.left() == {"mine"}
    assert served.left() == set()


@pytest.mark.anyio
async def test_a_sandbox_of_another_organisation_is_deleted_there(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the key of its own client: with the one of the environment it would seem to be gone already."""
    with Served(alone, "first", "second") as served:
        monkeypatch.setenv("DAYTONA_API_KEY", served.sim.api_key("first"))
        monkeypatch.setenv("DAYTONA_API_URL", served.sim.daytona_url)
        served.add("first-s", org="first")
        async with asynchronous(served, "second") as client:
            async with managed_daytona_sandbox(await client.create(params())):
                pass
            async with sandbox(client, params()):
                assert served.left("second") == {"mine"}
        assert served.left("second") == set()
        assert served.left("first") == {"first-s"}


def test_the_settings_of_the_organisation_hold_where_the_configuration_has_it(served: Served, alone: Path) -> None:
    (alone / "reaper.toml").write_text('[protect]\nnames = ["mine"]\n\n[[daytona]]\nname = "rl-org"\n')
    with synchronous(served) as client:
        mine = client.create(params())
        with pytest.raises(CleanupError, match=r"\[protect\] has name mine"), managed_daytona_sandbox(mine):
            pass
        assert served.left() == {"mine"}


def test_what_is_no_sandbox_and_no_container_is_refused_at_once(served: Served) -> None:
    for odd in (None, 7, SimpleNamespace(id=None)):
        with pytest.raises(TypeError, match="a sandbox of the package daytona"):
            managed_daytona_sandbox(odd)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="a container of docker-py or aiodocker"):
            managed_docker_container(odd)  # type: ignore[arg-type]


def test_a_client_that_reaper_cannot_stand_in_for_is_refused_before_anything_is_created(served: Served) -> None:
    config = daytona.DaytonaConfig(jwt_token="a.b.c", organization_id="x", api_url=served.sim.daytona_url, target="us")
    with pytest.raises(ConfigError, match="API keys only"):
        sandbox(daytona.Daytona(config), params())
    second = type("AsyncSandbox", (), {"__module__": "daytona.v2.sandbox", "id": "x"})
    with pytest.raises(ConfigError, match="second platform"):
        managed_daytona_sandbox(second())
    assert served.changes() == []


def test_an_object_that_names_no_endpoint_is_looked_for_on_the_configured_one(world: World, served: Served) -> None:
    class Bare:
        def __init__(self, id_: str) -> None:
            self.id = id_

    mine = served.add("mine", labels={})
    with managed_daytona_sandbox(Bare(mine)):
        pass
    assert served.left() == set()
    elsewhere = Bare("f" * 64)  # or the end of its block would take it for gone
    with pytest.raises(CleanupError, match="has no container"), managed_docker_container(elsewhere):
        raise AssertionError


# -- a sandbox that is created with its block ----------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_sandbox_is_created_labelled_and_deleted(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REAPER_LEASE", "the-run")
    given = params()
    async with asynchronous(served) as client:
        async with sandbox(client, given, labels={"trial": "7"}) as mine:
            assert mine.name == "mine"
            found = labels_of(served, "mine")
    assert {key: found[key] for key in ("run", "trial", "reaper.lease")} == {
        "run": "nightly",
        "trial": "7",
        "reaper.lease": "the-run",
    }
    assert {"reaper.creation", "reaper.owner"} <= set(found)
    assert given.labels == {"run": "nightly"}  # the caller's own are not changed
    assert served.left() == set()


def test_a_synchronous_client_likewise_and_without_parameters(served: Served) -> None:
    with synchronous(served) as client:
        with pytest.raises(KeyError), sandbox(client) as mine:
            assert served.left() == {mine.name}
            raise KeyError
    assert served.left() == set()


@pytest.mark.anyio
async def test_cancelled_while_the_creation_is_in_flight(served: Served) -> None:
    """The server makes it and the client never hears of it; or has heard of it, and waits until it has started."""
    sim = served.sim
    async with asynchronous(served) as client:
        for fault in ("latency:30,method=POST,after", "latency:30,method=GET,path=/sandbox/", "hang,method=POST"):
            sim.faults.add(fault)

            async def trial() -> None:
                async with sandbox(client, params()):
                    raise AssertionError

            task = asyncio.create_task(trial())
            while not sim.faults.rules()[0][2]:  # noqa: ASYNC110 - the simulator runs in a thread
                await asyncio.sleep(0.01)
            task.cancel()
            sim.faults.clear()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert served.left() == set()


@pytest.mark.anyio
async def test_cancelled_at_every_await(served: Served) -> None:
    async with asynchronous(served) as client:
        point, reached, created = 0, True, 0
        while reached:

            async def trial() -> str:
                async with sandbox(client, params()):
                    await asyncio.sleep(0)
                return "ended"

            ended, reached = await cancelled_at(point, trial)
            assert served.left() == set()
            assert isinstance(ended, asyncio.CancelledError) if reached else ended == "ended"
            point += 1
        created = served.traffic.count("POST", "/sandbox", 200)
    assert point > 2
    assert created > 1


@pytest.mark.anyio
async def test_a_creation_that_fails_after_the_server_has_made_it(served: Served) -> None:
    served.sim.faults.add("status:500,method=POST,path=/sandbox$,after")
    async with asynchronous(served) as client:
        with pytest.raises(daytona.DaytonaError, match="Internal Server Error"):
            async with sandbox(client, params()):
                raise AssertionError
    assert served.left() == set()
    assert [change.split()[0] for change in served.changes()] == ["POST", "DELETE"]


@pytest.mark.anyio
async def test_the_waiting_for_a_start_that_fails(served: Served) -> None:
    """The creation was answered, and the SDK gives up in what comes after."""
    served.sim.faults.add("status:403,method=GET,path=/sandbox/")
    async with asynchronous(served) as client:
        with pytest.raises(daytona.DaytonaError) as caught:
            async with sandbox(client, params()):
                raise AssertionError
        served.sim.faults.clear()
    assert served.left() == {"mine"}  # GET is denied to reaper, too, and that is said
    assert "reaper: CleanupError" in caught.value.__notes__[0]


class Repeating:
    """A client that sends its request again when the connection breaks, as HTTP libraries do."""

    def __init__(self, client: daytona.AsyncDaytona) -> None:
        self._client = client
        self._sandbox_api = client._sandbox_api

    async def create(self, wanted: daytona.CreateSandboxFromSnapshotParams) -> daytona.AsyncSandbox:
        with suppress(daytona.DaytonaConnectionError):
            return await self._client.create(wanted)
        return await self._client.create(wanted)


@pytest.mark.anyio
async def test_a_creation_whose_request_was_repeated_makes_two_and_both_go(served: Served) -> None:
    served.sim.faults.add("reset,method=POST,path=/sandbox$,after,times=1")
    async with asynchronous(served) as client:
        async with sandbox(Repeating(client), daytona.CreateSandboxFromSnapshotParams()):  # a name would be taken by then
            assert len(served.left()) == 2
    assert served.left() == set()


@pytest.mark.anyio
async def test_what_is_listed_late_is_waited_for(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(creation, "APPEARS_WITHIN", 20.0)
    monkeypatch.setattr(server, "QUICK", replace(SOON, list_lag=2))
    with Served(alone) as served:
        served.sim.faults.add("status:500,method=POST,path=/sandbox$,after")
        async with asynchronous(served) as client:
            with pytest.raises(daytona.DaytonaError):
                async with sandbox(client, params()):
                    raise AssertionError
        assert served.left() == set()


@pytest.mark.anyio
async def test_a_creation_that_is_refused_is_not_waited_for_long_and_takes_nothing(served: Served) -> None:
    served.add("mine", labels={"run": "nightly"})  # another one has the name
    async with asynchronous(served) as client:
        with pytest.raises(daytona.DaytonaError, match="already exists"):
            async with sandbox(client, params()):
                raise AssertionError
    assert served.left() == {"mine"}


def test_ctrl_c_while_the_creation_is_in_flight(served: Served, alone: Path) -> None:
    """In a program of its own, with the synchronous client."""
    served.sim.faults.add("latency:30,method=POST,path=/sandbox$,after")
    script = (
        "from daytona import *\nimport reaper\n"
        "with reaper.sandbox(Daytona(), CreateSandboxFromSnapshotParams(name='mine')): pass\n"
    )
    program = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "DAYTONA_TARGET": "us"}, cwd=alone)
    with served.first_deletion() as deleted:
        while not served.left():
            assert program.poll() is None
            time.sleep(0.01)
        served.sim.faults.clear()
        program.send_signal(signal.SIGINT)
        assert program.wait(60) != 0
        assert deleted.is_set()
    assert served.left() == set()


@pytest.mark.anyio
async def test_a_block_of_the_wrong_sort_creates_nothing(served: Served) -> None:
    with synchronous(served) as client:
        with pytest.raises(WrongLoopError, match="async with sandbox"), sandbox(client, params()):
            raise AssertionError
    async with asynchronous(served) as other:
        with pytest.raises(TypeError):
            with sandbox(other, params()):  # type: ignore[attr-defined]
                raise AssertionError
    assert served.changes() == []


def test_the_labels_of_a_lease_go_into_the_create_calls() -> None:
    held = lease(name="the-run")
    assert held.labels == {"reaper.lease": "the-run"}
    assert daytona.CreateSandboxFromSnapshotParams(labels={**held.labels, "run": "nightly"}).labels == {
        "reaper.lease": "the-run",
        "run": "nightly",
    }


def test_no_package_of_another_is_loaded_at_the_start() -> None:
    code = (
        "import sys; from reaper import sandbox, managed_daytona_sandbox, managed_docker_container;"
        " print([name for name in ('daytona', 'docker', 'aiodocker') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
