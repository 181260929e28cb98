"""What was named is deleted at the end, and nothing else: by the core, and under its rules."""

import asyncio
import time
from datetime import timedelta
from pathlib import Path

import pytest
import trio

from reaper import (
    CleanupError,
    RetryableCleanupError,
    WrongLoopError,
    lease,
    managed_daytona_sandbox,
    managed_docker_container,
)
from reaper.core.model import Outcome
from reaper.library import cleanup_scope
from reaper.library import lease as own
from reaper.simulator.docker.model import Behaviour
from tests.daytona.server import Served
from tests.library.lab import Nothing, cancelled_at, names
from tests.library.service import serving
from tests.run import Program
from tests.simulator.docker_world import World

PROJECT = {"com.docker.compose.project": "trial", "com.docker.compose.container-number": "1"}


def test_a_container_goes_at_the_end_and_nothing_else(world: World, alone: Path) -> None:
    world.add("mine", state="running", image="anything:1")
    world.add("other", state="exited", labels={"terminal-bench": ""}, age=timedelta(days=9))
    with managed_docker_container("mine") as container:
        assert names(world) == {"mine", "other"}
    assert container.outcome is Outcome.DELETED
    assert len(container.id) == 64
    assert names(world) == {"other"}
    history = Program(alone)("history", "--json")
    assert "named-" in history.out


@pytest.mark.anyio
async def test_with_a_loop(world: World) -> None:
    whole = world.add("mine", state="running").id
    with Nothing():
        async with managed_docker_container(whole[:12]) as container:
            assert container.id == whole
    assert names(world) == set()


def test_the_body_s_exception_goes_on(world: World) -> None:
    world.add("mine", state="running")
    with pytest.raises(KeyError), managed_docker_container("mine"):
        raise KeyError("mine")
    assert names(world) == set()
    world.add("kept", labels={"reaper.keep": ""})
    with pytest.raises(KeyError) as caught, managed_docker_container("kept"):
        raise KeyError("kept")
    assert "reaper.keep" in caught.value.__notes__[0]


def test_what_is_gone_already_is_well(world: World) -> None:
    gone = world.add("mine").id
    with managed_docker_container("mine") as container:
        world.remove(gone, force=True)
    assert container.outcome is Outcome.GONE
    with pytest.raises(CleanupError, match="no container 'mine'"), managed_docker_container("mine"):
        raise AssertionError
    with managed_docker_container(gone) as container:
        pass
    assert container.outcome is Outcome.GONE


def test_a_name_that_means_something_else_by_then(world: World) -> None:
    first = world.add("mine").id
    with managed_docker_container("mine"):
        world.remove(first, force=True)
        world.add("mine")
    assert names(world) == {"mine"}


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ({"reaper.keep": ""}, "reaper.keep"),
        ({"reaper.lease": "another"}, "lease another"),
        (PROJECT, "its project trial has neighbour"),
        ({"reaper.ttl": "never"}, "label override cannot be read"),
    ],
)
def test_protection_holds_unless_it_is_overruled_by_name(world: World, labels: dict[str, str], why: str) -> None:
    world.add("neighbour", state="running", labels=PROJECT)
    world.add("mine", state="running", labels=labels)
    with pytest.raises(CleanupError, match=why), managed_docker_container("mine"):
        pass
    assert names(world) == {"mine", "neighbour"}
    with managed_docker_container("mine", even_protected=True):
        pass
    assert names(world) == {"neighbour"}


def test_what_the_configuration_protects(world: World, alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (alone / "reaper.toml").write_text('[protect]\nnames = ["db-*"]\n')
    world.add("db-1", state="running")
    with pytest.raises(CleanupError, match=r"\[protect\] has name db-\*"), managed_docker_container("db-1"):
        pass
    assert names(world) == {"db-1"}


def test_system_containers_stay_with_every_option(world: World) -> None:
    world.add("pod", state="running", labels={"io.kubernetes.pod.name": "pod"})
    with pytest.raises(CleanupError, match="Kubernetes") as caught:
        with managed_docker_container("pod", even_protected=True):
            pass
    assert "overrules" not in str(caught.value)
    assert names(world) == {"pod"}


def test_one_s_own_lease_is_no_obstacle(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add("mine", state="running", labels={"reaper.lease": "the-run"})
    monkeypatch.setenv("REAPER_LEASE", "the-run")
    with managed_docker_container("mine"):
        pass
    assert names(world) == set()


def test_of_leases_that_have_ended_nothing_else_is_taken(world: World, alone: Path) -> None:
    """The deletion of one thing is no sweep: what else is garbage waits for one."""
    world.add("mine", state="running")
    world.add("expired", labels={"terminal-bench": "", "reaper.ttl": "1s"})
    with serving(alone) as service:
        with lease(name="theirs", url=service.url):
            world.add("leased", state="running", labels={"reaper.lease": "theirs"})
        with managed_docker_container("mine"):
            pass
        assert names(world) == {"expired", "leased"}
        with managed_docker_container("leased"):
            pass
    assert names(world) == {"expired"}


def test_the_living_lease_of_another_keeps_it(world: World, alone: Path) -> None:
    world.add("leased", state="running", labels={"reaper.lease": "theirs"})
    with serving(alone) as service:
        held = lease(name="theirs", url=service.url).__enter__()
        own.held.clear()  # as if another process held it
        with pytest.raises(CleanupError, match=r"lease theirs of pid .* is alive"), managed_docker_container("leased"):
            pass
        assert names(world) == {"leased"}
        with managed_docker_container("leased", even_protected=True):
            pass
        held.__exit__(None, None, None)
    assert names(world) == set()


def test_leases_that_cannot_be_read_keep_everything(world: World, alone: Path) -> None:
    world.add("mine", state="running")
    (alone / "leases.db").write_text("this is no database, and it is long enough to be looked at" * 100)
    with pytest.raises(RetryableCleanupError, match=r"leases\.db"), managed_docker_container("mine"):
        pass
    assert names(world) == {"mine"}


@pytest.mark.parametrize("grace", [1, 3])
def test_a_container_gets_the_grace_that_was_named(world: World, grace: int) -> None:
    """Also one that is longer than a request may take."""
    world.add("mine", state="running", behaviour=Behaviour(obeys=False))
    began = time.monotonic()
    with managed_docker_container("mine", stop_timeout=grace):
        pass
    assert grace <= time.monotonic() - began < grace + 5
    assert names(world) == set()


@pytest.mark.anyio
@pytest.mark.parametrize("fault", ["status:500", "reset", "reset,after", "truncate", "garbage"])
async def test_a_fault_at_every_request(world: World, fault: str) -> None:
    """Each of the requests of a deletion fails once, one after the other; everything goes all the same."""
    for skip in range(20):
        whole = world.add("mine", state="running").id
        world.faults.add(f"{fault},skip={skip},times=1")
        try:
            async with managed_docker_container(whole):
                pass
        except RetryableCleanupError:
            async with managed_docker_container(whole):
                pass
        assert names(world) == set()
        struck = world.faults.rules()[0][2]
        world.faults.clear()
        if not struck:
            break
    assert skip > 5


@pytest.mark.anyio
async def test_cancelled_at_every_await(world: World) -> None:
    """Whenever the task is cancelled, in the block or while it is left, the container goes."""
    point, reached = 0, True
    while reached:
        whole = world.add("mine", state="running").id

        async def trial(whole: str = whole) -> str:
            async with managed_docker_container(whole):
                await asyncio.sleep(0)
            return "ended"

        with Nothing():
            ended, reached = await cancelled_at(point, trial)
        assert names(world) == set()
        assert isinstance(ended, asyncio.CancelledError) if reached else ended == "ended"
        point += 1
    assert point > 2
    assert not cleanup_scope._left_alone


@pytest.mark.anyio
async def test_an_engine_that_does_not_answer_costs_its_time_and_no_more(world: World) -> None:
    whole = world.add("mine", state="running").id
    world.faults.add("hang")
    began = asyncio.get_running_loop().time()
    with pytest.raises(RetryableCleanupError):
        async with managed_docker_container(whole, timeout=1):
            pass
    assert asyncio.get_running_loop().time() - began < 8
    assert names(world) == {"mine"}


@pytest.mark.anyio
async def test_a_synchronous_block_in_a_loop_is_refused_at_once(world: World) -> None:
    world.add("mine")
    with pytest.raises(WrongLoopError, match="async with managed_docker_container"):
        with managed_docker_container("mine"):
            raise AssertionError
    assert names(world) == {"mine"}


def test_trio_is_reported_at_once(world: World) -> None:
    async def main() -> None:
        async with managed_docker_container("mine"):
            raise AssertionError

    async def in_a_thread() -> None:
        def work() -> None:
            with managed_docker_container("mine"):
                pass

        await trio.to_thread.run_sync(work)

    world.add("mine")
    with pytest.raises(WrongLoopError, match="under trio: aiodocker needs asyncio"):
        trio.run(main)
    assert names(world) == {"mine"}
    trio.run(in_a_thread)
    assert names(world) == set()


# -- sandboxes ---------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_sandbox_goes_at_the_end(served: Served) -> None:
    mine = served.add("mine", labels={}, age=timedelta(0))
    served.add("other")
    with Nothing():
        async with managed_daytona_sandbox(mine) as sandbox:
            assert served.left() == {"mine", "other"}
    assert sandbox.outcome is Outcome.DELETED
    assert served.left() == {"other"}
    async with managed_daytona_sandbox(mine) as sandbox:
        pass
    assert sandbox.outcome is Outcome.GONE


@pytest.mark.anyio
async def test_a_protected_sandbox_stays(served: Served) -> None:
    kept = served.add("kept", labels={"reaper.keep": ""})
    with pytest.raises(CleanupError, match=r"reaper\.keep"):
        async with managed_daytona_sandbox(kept):
            pass
    assert served.left() == {"kept"}
    async with managed_daytona_sandbox(kept, even_protected=True):
        pass
    assert served.left() == set()


@pytest.mark.anyio
async def test_a_sandbox_whose_task_is_cancelled_at_every_await(served: Served) -> None:
    point, reached = 0, True
    while reached:
        mine = served.add(f"mine-{point}", labels={})

        async def trial(mine: str = mine) -> str:
            async with managed_daytona_sandbox(mine):
                await asyncio.sleep(0)
            return "ended"

        with Nothing():
            ended, reached = await cancelled_at(point, trial)
        assert served.left() == set()
        assert isinstance(ended, asyncio.CancelledError) if reached else ended == "ended"
        point += 1
    assert point > 2


@pytest.mark.anyio
@pytest.mark.parametrize("fault", ["status:500", "reset,after"])
async def test_a_fault_at_every_request_about_a_sandbox(served: Served, fault: str) -> None:
    faults, skip, struck = served.sim.faults, 0, 1
    while struck:
        mine = served.add(f"mine-{skip}", labels={})
        faults.add(f"{fault},skip={skip},times=1")
        async with managed_daytona_sandbox(mine):
            pass
        assert served.left() == set()
        struck = faults.rules()[0][2]
        faults.clear()
        skip += 1
    assert skip > 4


def test_a_sandbox_that_is_being_made_is_waited_for(served: Served) -> None:
    mine = served.add("mine", labels={}, state="creating", age=timedelta(0))
    with managed_daytona_sandbox(mine) as sandbox:
        pass
    assert sandbox.outcome is Outcome.DELETED
    assert served.left() == set()


def test_a_sandbox_that_never_ends_to_be_made(served: Served) -> None:
    mine = served.add("mine", labels={}, state="creating", stuck=True)
    began = time.monotonic()
    with pytest.raises(RetryableCleanupError, match="it is creating: wait"), managed_daytona_sandbox(mine, timeout=3):
        pass
    assert 1.5 < time.monotonic() - began < 30  # on a busy machine the listing alone takes a second
    assert served.left() == {"mine"}


def test_a_key_that_is_wrong_is_no_matter_of_trying_again(served: Served) -> None:
    mine = served.add("mine")
    with pytest.raises(CleanupError) as caught, managed_daytona_sandbox(mine, api_key="wrong"):
        pass
    assert type(caught.value) is CleanupError
    assert served.left() == {"mine"}
