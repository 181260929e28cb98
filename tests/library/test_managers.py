"""The managers: what callers of scripts know, under the rules of the core."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
import trio

from reaper import (
    AsyncDaytonaCleanupManager,
    AsyncDockerCleanupManager,
    CleanupError,
    DaytonaCleanupManager,
    DockerCleanupManager,
    RetryableCleanupError,
    WrongLoopError,
)
from reaper.core.model import Outcome
from reaper.errors import ConfigError
from tests.daytona.server import Served
from tests.library.lab import Nothing, cancelled_at, names
from tests.simulator.docker_world import DAY, HOUR, World

BENCH = {"terminal-bench": ""}


def populate(world: World) -> None:
    world.add("old", labels=BENCH, age=2 * DAY, state="running")
    world.add("young", labels={**BENCH, "run": "a"}, age=HOUR, state="running")
    world.add("young-exited", labels={**BENCH, "run": "b"}, age=2 * HOUR)
    world.add("kept", labels={**BENCH, "reaper.keep": ""}, age=2 * DAY, state="running")
    world.add("foreign", age=2 * DAY, state="running")


def test_old_containers_that_are_owned(world: World) -> None:
    populate(world)
    report = DockerCleanupManager().cleanup_old_containers(24, True)
    assert report.count(Outcome.DELETED) == 1
    assert names(world) == {"young", "young-exited", "kept", "foreign"}
    assert report.hints == ("1 matches but is not owned; add them to [scope]",)


def test_what_was_not_asked_for_stays_though_its_own_label_has_ended(world: World) -> None:
    world.add("ended", labels={**BENCH, "reaper.ttl": "1h"}, age=2 * HOUR, state="running")
    world.add("old", labels=BENCH, age=2 * DAY, state="running")
    DockerCleanupManager().cleanup_old_containers(24)
    assert names(world) == {"ended"}
    DockerCleanupManager().cleanup_containers({"name": "other"})
    assert names(world) == {"ended"}


@pytest.mark.parametrize(
    ("filters", "gone"),
    [
        ({"label": "run"}, {"young", "young-exited"}),
        ({"label": ["terminal-bench", "run=a"]}, {"young"}),
        ({"name": "young"}, {"young", "young-exited"}),
        ({"name": "^/young$"}, {"young"}),
        ({"status": "exited"}, {"young-exited"}),
        ({"status": ["running"], "name": ["old", "kept"]}, {"old"}),
        ({"ancestor": "bench"}, {"old", "young", "young-exited"}),
        ({"ancestor": "other"}, set()),
        ({}, {"old", "young", "young-exited"}),
    ],
)
def test_containers_by_filter(world: World, filters: dict[str, str | list[str]], gone: set[str]) -> None:
    populate(world)
    before = names(world)
    manager = DockerCleanupManager()
    selected = {one.name for one in manager.list_containers(True, filters)}
    assert gone <= selected
    report = manager.cleanup_containers(filters, stop_timeout=1)
    assert report.count(Outcome.DELETED) == len(gone)
    assert before - names(world) == gone


@pytest.mark.parametrize(
    ("filters", "why"),
    [
        ({"lable": "run"}, "did you mean"),
        ({"label": []}, "selects nothing"),
        ({"label": ""}, "selects nothing"),
        ({"status": "runing"}, "no status"),
        ({"name": "a|b"}, "a part of the name"),
    ],
)
def test_filters_that_cannot_be_meant(world: World, filters: dict[str, str | list[str]], why: str) -> None:
    populate(world)
    with pytest.raises(ValueError, match=why):
        DockerCleanupManager().cleanup_containers(filters)
    assert len(names(world)) == 5


def test_ages_that_cannot_be_meant(world: World, served: Served) -> None:
    with pytest.raises(ValueError, match="max_age_hours = 0"):
        DockerCleanupManager().cleanup_old_containers(0)
    with pytest.raises(ValueError, match="max_age_days = -1"):
        DaytonaCleanupManager().cleanup_old_sandboxes(-1)
    with pytest.raises(ValueError, match="must be greater than 0"):
        DockerCleanupManager(timeout=0)


def test_listing(world: World) -> None:
    populate(world)
    manager = DockerCleanupManager()
    assert {one.name for one in manager.list_containers()} == {"old", "young", "kept", "foreign"}
    assert len(manager.list_containers(all_containers=True)) == 5


def test_stopping_and_removing_one(world: World) -> None:
    populate(world)
    manager = DockerCleanupManager()
    with pytest.raises(CleanupError, match="force=True stops it first") as caught:
        manager.remove_container("foreign")
    assert type(caught.value) is CleanupError
    assert manager.stop_container("foreign", 1) is Outcome.STOPPED
    assert manager.stop_container("foreign", 1) is Outcome.STOPPED
    assert world.state(manager.list_containers(True, {"name": "foreign"})[0].id) == "exited"
    assert manager.remove_container("foreign") is Outcome.DELETED
    assert manager.remove_container("young", force=True) is Outcome.DELETED
    with pytest.raises(CleanupError, match="no container"):
        manager.remove_container("young")
    assert manager.stop_container("0" * 64) is Outcome.GONE
    assert manager.remove_container("0" * 64) is Outcome.GONE
    with pytest.raises(CleanupError, match="is kept"):
        manager.stop_container("kept")
    with pytest.raises(CleanupError, match="is kept"):
        manager.remove_container("kept", force=True)
    assert manager.remove_container("kept", force=True, even_protected=True) is Outcome.DELETED
    assert names(world) == {"old", "young-exited"}


def test_a_beginning_of_an_id_that_is_not_unique(world: World) -> None:
    ids = [world.add(f"c-{number}").id for number in range(20)]
    first = next(one[0] for one in ids if sum(other[0] == one[0] for other in ids) > 1)
    with pytest.raises(CleanupError, match="is not unique"):
        DockerCleanupManager().remove_container(first)
    assert len(names(world)) == 20


def test_over_the_cap_nothing_goes(world: World, alone: Path) -> None:
    (alone / "reaper.toml").write_text("[limits]\nmax_deletions = 2\n")
    populate(world)
    with pytest.raises(CleanupError, match="3 would have gone, and max_deletions = 2 allows 2") as caught:
        DockerCleanupManager().cleanup_containers({})
    assert caught.value.report is not None
    assert len(names(world)) == 5


def test_what_fails_is_reported_when_the_others_are_gone(world: World) -> None:
    populate(world)
    world.faults.add("status:500,method=DELETE,resource=old")
    with pytest.raises(RetryableCleanupError, match="2 deleted, 1 left: old") as caught:
        DockerCleanupManager().cleanup_containers({})
    assert caught.value.report is not None
    assert caught.value.report.count(Outcome.DELETED) == 2
    assert names(world) == {"old", "kept", "foreign"}


@pytest.mark.parametrize("fault", ["hang", "status:500", "reset", "garbage"])
def test_an_engine_that_is_sick(world: World, fault: str) -> None:
    populate(world)
    manager = DockerCleanupManager(timeout=1)
    world.faults.add(fault)
    for operation in (
        manager.list_containers,
        manager.cleanup_old_containers,
        lambda: manager.cleanup_containers({}),
        lambda: manager.stop_container("old"),
        lambda: manager.remove_container("old"),
    ):
        with pytest.raises(RetryableCleanupError):
            operation()
    assert len(names(world)) == 5


def test_no_engine_at_all(alone: Path) -> None:
    manager = DockerCleanupManager(host=f"unix://{alone}/none.sock")
    with pytest.raises(RetryableCleanupError, match="no such socket"):
        manager.list_containers()
    with pytest.raises(ConfigError, match="is no Docker host"):
        DockerCleanupManager(host="nonsense")
    with pytest.raises(ConfigError, match="DAYTONA_API_KEY is not set"):
        DaytonaCleanupManager()


@pytest.mark.anyio
async def test_in_a_loop_the_synchronous_ones_are_refused(world: World, served: Served) -> None:
    populate(world)
    with pytest.raises(WrongLoopError, match=r"await AsyncDockerCleanupManager\(\.\.\.\).list_containers"):
        DockerCleanupManager().list_containers()
    with pytest.raises(WrongLoopError, match="AsyncDaytonaCleanupManager"):
        DaytonaCleanupManager().list_sandboxes()
    manager = AsyncDockerCleanupManager()
    assert len(await manager.list_containers(all_containers=True)) == 5
    assert await manager.remove_container("old", force=True) is Outcome.DELETED


def test_trio_is_reported_at_once(world: World, served: Served) -> None:
    docker, daytona = AsyncDockerCleanupManager(), AsyncDaytonaCleanupManager()
    for operation in (
        docker.list_containers,
        docker.cleanup_old_containers,
        lambda: docker.cleanup_containers({}),
        lambda: docker.stop_container("x"),
        lambda: docker.remove_container("x"),
        daytona.list_sandboxes,
        daytona.cleanup_old_sandboxes,
        daytona.cleanup_stopped_sandboxes,
        lambda: daytona.delete_sandbox("x"),
    ):
        with pytest.raises(WrongLoopError, match="under trio"):
            trio.run(operation)


@pytest.mark.anyio
async def test_cancelled_at_every_await_it_leaves_nothing_of_its_own_and_can_be_called_again(world: World) -> None:
    manager = AsyncDockerCleanupManager()
    for operation in (
        lambda: manager.cleanup_containers({}),
        lambda: manager.cleanup_old_containers(24),
        manager.list_containers,
        lambda: manager.remove_container("foreign", force=True, even_protected=True),
        lambda: manager.stop_container("foreign"),
    ):
        point, reached = 0, True
        while reached:
            for name in ("one", "foreign"):
                if name not in names(world):
                    world.add(name, labels=BENCH if name == "one" else {}, state="running")
            with Nothing():
                ended, reached = await cancelled_at(point, operation)
            assert isinstance(ended, asyncio.CancelledError) if reached else not isinstance(ended, BaseException)
            point += 1
        assert point > 2
    await manager.cleanup_containers({})
    assert names(world) == {"foreign"}


@pytest.mark.parametrize("fault", ["status:500", "reset", "hang", "garbage"])
@pytest.mark.anyio
async def test_whatever_fails_from_some_step_on_is_reported_and_can_be_done_again(world: World, fault: str) -> None:
    manager = AsyncDockerCleanupManager(timeout=0.5)
    step, failed = 0, True
    while failed:
        if "one" not in names(world):
            world.add("one", labels=BENCH, state="running")
        world.faults.clear()
        world.faults.add(f"{fault},skip={step}")
        with Nothing():
            try:
                await manager.cleanup_containers({})
                failed = False
            except RetryableCleanupError:
                step += 1
    assert step > 3
    assert names(world) == set()


@pytest.mark.parametrize("fault", ["status:500", "reset"])
@pytest.mark.anyio
async def test_and_so_it_is_with_sandboxes(served: Served, fault: str) -> None:
    manager = AsyncDaytonaCleanupManager(timeout=1)
    step, failed = 0, True
    while failed:
        if "one" not in served.left():
            served.add("one", state="stopped", auto_delete=-1, age=timedelta(hours=20))
        served.sim.faults.clear()
        served.sim.faults.add(f"{fault},skip={step}")
        with Nothing():
            try:
                await manager.cleanup_stopped_sandboxes()
                failed = False
            except RetryableCleanupError:
                step += 1
    assert step > 2
    assert served.left() == set()


# -- sandboxes ---------------------------------------------------------------------------------------------------------


def test_sandboxes(served: Served) -> None:
    served.believable()
    manager = DaytonaCleanupManager()
    assert {one.name for one in manager.list_sandboxes()} == served.left()
    manager.cleanup_stopped_sandboxes()
    assert served.left() == {"forgotten", "ancient", "living", "middling", "kept", "foreign"}
    manager.cleanup_old_sandboxes(max_age_days=3)
    assert served.left() == {"forgotten", "living", "middling", "kept", "foreign"}
    manager.cleanup_old_sandboxes(0.25, False)
    assert served.left() == {"living", "kept", "foreign"}
    foreign = next(one.id for one in manager.list_sandboxes() if one.name == "foreign")
    assert manager.delete_sandbox(foreign) is Outcome.DELETED
    assert manager.delete_sandbox(foreign) is Outcome.GONE
    assert served.left() == {"living", "kept"}


def test_a_sandbox_is_not_said_to_be_gone_that_is_named_by_another_word_than_its_id(served: Served) -> None:
    """The caller would believe that nothing was left."""
    id_ = served.add("there")
    manager = DaytonaCleanupManager()
    for wanted in ("there", id_.upper()):
        with pytest.raises(CleanupError, match=f"{wanted} is the id of none: that of sandbox there is {id_}"):
            manager.delete_sandbox(wanted)
    assert served.left() == {"there"}
    assert manager.delete_sandbox("elsewhere") is Outcome.GONE


def test_a_sandbox_that_the_platform_could_not_destroy_is_not_said_to_be_deleted(served: Served) -> None:
    id_ = served.add("kept-by-its-host", destroy_fails=True)
    with pytest.raises(CleanupError):
        DaytonaCleanupManager(timeout=2).delete_sandbox(id_)


def test_the_links_of_many_cost_a_deletion_by_id_few_requests(served: Served) -> None:
    """Each of the others might be linked to the one, and is asked for that by itself where no listing tells."""
    owner = served.add("owner")
    for number in range(60):
        served.add(f"other-{number}")
    served.sim.daytona.traffic.clear()
    assert DaytonaCleanupManager().delete_sandbox(owner) is Outcome.DELETED
    assert served.sim.daytona.traffic.count("GET") < 40


def test_another_sandbox_that_is_called_as_the_id_of_one_that_is_gone_is_not_meant(served: Served) -> None:
    id_ = served.add("")
    manager = DaytonaCleanupManager()
    assert manager.delete_sandbox(id_) is Outcome.DELETED
    served.add(id_)
    assert manager.delete_sandbox(id_) is Outcome.GONE
    assert served.left() == {id_}


def test_a_sick_organisation_and_a_wrong_key(served: Served) -> None:
    served.believable()
    wrong = DaytonaCleanupManager(api_key="wrong")
    with pytest.raises(CleanupError) as caught:
        wrong.cleanup_old_sandboxes()
    assert type(caught.value) is CleanupError
    assert "wrong" not in str(caught.value)
    manager, before = DaytonaCleanupManager(timeout=2), served.left()
    served.sim.faults.add("status:503")
    for operation in (manager.list_sandboxes, manager.cleanup_stopped_sandboxes, lambda: manager.delete_sandbox("x")):
        with pytest.raises(RetryableCleanupError):
            operation()
    assert served.left() == before


@pytest.mark.anyio
async def test_sandboxes_cancelled_at_every_await(served: Served) -> None:
    manager = AsyncDaytonaCleanupManager()
    one = ""
    for operation in (
        manager.cleanup_stopped_sandboxes,
        lambda: manager.delete_sandbox(one),  # noqa: B023 - called before it changes
    ):
        point, reached = 0, True
        while reached:
            if "one" not in served.left():
                one = served.add("one", state="stopped", auto_delete=-1, age=timedelta(hours=20))
            with Nothing():
                ended, reached = await cancelled_at(point, operation)
            assert isinstance(ended, asyncio.CancelledError) if reached else not isinstance(ended, BaseException)
            point += 1
        assert point > 2
    assert served.left() == set()
