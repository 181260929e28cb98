"""The tables of states, deletions and stops in facts/daytona.md, row by row."""

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.simulator.daytona_client import EXACT, START, Answer, World

pytestmark = pytest.mark.anyio
IN_PROGRESS = "Sandbox state change in progress"


async def test_names_are_reused_so_an_id_is_safer() -> None:
    async with World() as world:
        first = world.add("chess")
        assert (await world.delete("chess")).status == 200
        assert (await world.get("chess")).status == 404
        second = world.add("chess")
        assert (await world.get("chess")).body["id"] == second.id
        assert (await world.get(first)).body["state"] == "destroying"


SHOWN = {
    ("started", "stopped"): ("stopping", "stopping"),
    ("started", "destroyed"): ("destroying", "destroying"),
    ("stopped", "started"): ("starting", "starting"),
    ("stopped", "destroyed"): ("destroying", "destroying"),
    ("stopped", "archived"): ("archiving", "archiving"),
    ("archived", "started"): ("restoring", "archived"),
    ("unknown", "started"): ("creating", "creating"),
    ("paused", "started"): ("paused", "paused"),
    ("paused", "stopped"): ("paused", "paused"),
    ("paused", "destroyed"): ("paused", "paused"),
    ("archiving", "destroyed"): ("archiving", "archiving"),
    ("error", "started"): ("error", "error"),
}


@pytest.mark.parametrize("pair", SHOWN)
async def test_some_states_are_derived_from_the_desired_one_and_not_alike_in_list_and_by_id(pair: tuple[str, str]) -> None:
    async with World() as world:
        row = world.add("chess", state=pair[0], desired=pair[1], stuck=True)
        (item,) = await world.items()
        whole = (await world.get(row)).body
        (older,) = (await world.call("GET", "/sandbox/paginated")).body["items"]
        assert (item["state"], whole["state"]) == SHOWN[pair]
        assert older["state"] == whole["state"]
        assert item["desiredState"] == whole["desiredState"] == pair[1]


@pytest.mark.parametrize(
    ("state", "desired", "status"),
    [
        ("stopped", "archived", 200),  # the platform has not begun with it
        ("archiving", "archived", 200),
        ("archiving", "started", 409),
        ("archived", "started", 409),
        ("paused", "started", 409),
        ("error", "archived", 200),
        ("pending_build", "started", 200),
    ],
)
async def test_a_deletion_is_refused_while_the_server_works_towards_another_state(
    state: str, desired: str, status: int
) -> None:
    async with World() as world:
        row = world.add("chess", state=state, desired=desired, stuck=True)
        assert (await world.delete(row)).status == status


# Time


async def test_states_move_on_by_themselves() -> None:
    async with World() as world:
        goes = {"creating": "started", "starting": "started", "stopping": "stopped", "archiving": "archived"}
        rows = {state: world.add(state, state=state) for state in goes}
        gone = world.add("gone", state="destroying")
        world.turn(20)
        for state, end in goes.items():
            assert (await world.get(rows[state])).body["state"] == end
        assert (await world.get(gone)).status == 404


async def test_use_shows_as_activity_later_and_reading_is_no_use() -> None:
    async with World() as world:
        row = world.add("chess", created=START - timedelta(hours=1))
        before = (await world.get(row)).body["lastActivityAt"]
        await world.items()
        world.turn(1)
        world.org.touch(row)
        world.turn(11)
        assert (await world.get(row)).body["lastActivityAt"] == before == "2026-11-21T11:00:00.000Z"
        world.turn(1)
        assert (await world.get(row)).body["lastActivityAt"] == "2026-11-21T12:00:01.000Z"


async def test_uses_that_follow_one_another_closely_show_as_one() -> None:
    async with World() as world:
        row = world.add("chess", created=START - timedelta(hours=1))
        for wait in (0, 44, 2):
            world.turn(wait)
            world.org.touch(row)
            world.turn(0)
        world.turn(30)
        assert (await world.get(row)).body["lastActivityAt"] == "2026-11-21T12:00:46.000Z"
        world.org.touch(row)
        world.turn(60)
        assert (await world.get(row)).body["lastActivityAt"] == "2026-11-21T12:00:46.000Z"


async def test_no_timer_runs_out_where_the_row_of_activities_is_missing() -> None:
    """The server joins that table."""
    async with World() as world:
        running = world.add("running", auto_stop=10, no_activity=True)
        stopped = world.add("stopped", state="stopped", auto_archive=10, auto_delete=10, no_activity=True)
        world.clock.advance(timedelta(days=30))
        world.org.settle()
        assert (running.state, stopped.state) == ("started", "stopped")


async def test_the_platforms_own_intervals() -> None:
    async with World() as world:
        idle = world.add("idle", auto_stop=10)
        brief = world.add("brief", auto_stop=10, auto_delete=0)
        stopped = world.add("stopped", state="stopped", auto_delete=30, auto_archive=0)
        mortal = world.add("mortal", destroy_at=START + timedelta(hours=1))
        for_ever = world.add("for-ever", state="stopped", auto_delete=-1, auto_archive=0)
        world.turn(5 * 60)
        world.org.touch(idle)
        world.turn(6 * 60)
        assert (await world.get(idle)).body["state"] == "started"  # it was used meanwhile
        assert (await world.get(brief)).status == 404 or brief.desired == "destroyed"
        world.turn(5 * 60)
        assert (await world.get(idle)).body["state"] == "stopped"
        world.turn(20 * 60)
        assert (await world.get(stopped)).status == 404
        assert (await world.get(mortal)).body["autoDestroyAt"] == "2026-11-21T13:00:00.000Z"
        world.clock.advance(timedelta(days=30))
        assert (await world.get(mortal)).status == 404
        assert (await world.get(idle)).body["state"] == "archived"
        assert (await world.get(for_ever)).body["state"] == "stopped"


# What is stale


async def test_get_may_show_what_was_true_ten_seconds_ago() -> None:
    async with World(replace(EXACT, get_cache=10)) as world:
        row = world.add("chess", state="stopping")
        assert (await world.get(row)).body["state"] == "stopping"
        world.turn(9)
        assert row.state == "stopping"
        assert (await world.get(row)).body["state"] == "stopping"
        world.org.settle()
        assert row.state == "stopped"
        world.turn(2)
        assert (await world.get(row)).body["state"] == "stopped"


async def test_get_may_show_what_is_gone() -> None:
    async with World(replace(EXACT, get_cache=10)) as world:
        row = world.add("chess")
        await world.delete(row)
        world.turn(7)
        assert (await world.get(row)).status == 200
        world.turn(9)
        assert (await world.get(row)).status == 200  # gone for 8 s already
        assert (await world.delete(row)).status == 404
        world.turn(2)
        assert (await world.get(row)).status == 404


async def test_the_list_flaps_between_a_fresh_and_a_late_copy() -> None:
    async with World(replace(EXACT, list_lag=5, list_flap=0.5)) as world:
        gone, kept = world.add("gone", state="archived"), world.add("kept", state="started")
        await world.delete(gone)
        await world.stop(kept)
        world.turn(4)  # the stop is done, and the late copy is 5 s behind
        seen = [{item["id"]: item["state"] for item in await world.items()} for _ in range(40)]
        fresh, late = {kept.id: "stopped"}, {kept.id: "started", gone.id: "archived"}
        assert seen.count(fresh) > 5
        assert seen.count(late) > 5
        assert seen.count(fresh) + seen.count(late) == 40
        world.turn(6)
        assert [await world.items() for _ in range(20)] == [await world.items()] * 20


async def test_a_new_sandbox_may_be_absent_from_the_list() -> None:
    async with World(replace(EXACT, list_lag=5, list_flap=0.5)) as world:
        async with world.session.post(
            world.sim.daytona_url + "/sandbox", json={"name": "new"}, headers={"Authorization": f"Bearer {world.key}"}
        ) as answer:
            assert (await answer.json())["state"] == "creating"
        counts = Counter([len(await world.items()) for _ in range(40)])
        assert set(counts) == {0, 1}
        world.turn(5)
        assert {len(await world.items()) for _ in range(20)} == {1}


def test_the_same_seed_takes_the_same_time() -> None:
    async def outcome(seed: int) -> list[int]:
        gone = []
        async with World(replace(EXACT, destroy=(1, 16)), seed=seed) as world:
            rows = [world.add(str(number)) for number in range(20)]
            for row in rows:
                await world.delete(row)
            for _ in range(17):
                world.turn(1)
                world.org.settle()
                gone.append(len(world.org.rows))
        return gone

    first, again, other = (asyncio.run(outcome(seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert first[-1] == 0
    assert first[0] >= 18


@pytest.mark.parametrize(
    ("spec", "status", "message"),
    [
        ({"state": "started"}, 400, "Sandbox is not stopped"),
        ({"state": "paused"}, 400, "Sandbox is not stopped"),
        ({"state": "archived"}, 400, "Sandbox is not stopped"),
        ({"state": "stopped", "auto_delete": 0}, 400, "Ephemeral sandboxes cannot be archived"),
        ({"state": "error"}, 400, "Sandbox is in an errored state"),
        ({"state": "stopping", "desired": "stopped"}, 409, IN_PROGRESS),
        ({"state": "started", "desired": "stopped"}, 409, IN_PROGRESS),
        ({"state": "starting"}, 409, IN_PROGRESS),
    ],
)
async def test_only_a_stopped_sandbox_that_is_not_ephemeral_can_be_archived(spec: Any, status: int, message: str) -> None:
    async with World() as world:
        row = world.add("chess", **spec)
        answer = await world.call("POST", f"/sandbox/{row.id}/archive")
        assert (answer.status, answer.message) == (status, message)


async def test_archiving_takes_its_time_and_is_an_activity() -> None:
    async with World() as world:
        row = world.add("chess", state="stopped", active=START - timedelta(days=1))
        answer = await world.call("POST", f"/sandbox/{row.id}/archive")
        assert (answer.status, answer.body["state"], answer.body["desiredState"]) == (200, "archiving", "archived")
        assert answer.body["lastActivityAt"] == answer.body["updatedAt"]
        assert (await world.call("POST", f"/sandbox/{row.id}/archive")).status == 409
        world.turn(30)
        body = (await world.get(row)).body
        assert (body["state"], body["runnerId"]) == ("archived", None)


# -- links and starts --------------------------------------------------------------------------------------------------


async def made(world: World, **body: Any) -> Answer:
    headers = {"Authorization": f"Bearer {world.key}"}
    async with world.session.post(f"{world.sim.daytona_url}/sandbox", json=body, headers=headers) as answer:
        return Answer(answer.status, await answer.json(), answer.headers)


async def test_what_is_linked_to_another_one_is_ephemeral_and_names_one_that_is_there_and_stands_alone() -> None:
    async with World() as world:
        owner, away = world.add("owner"), world.add("away", state="archived")
        lasting = await made(world, linkedSandbox="owner", autoDeleteInterval=-1)
        assert (lasting.status, lasting.body["message"].partition(" (")[0]) == (400, "Linked sandboxes must be ephemeral")
        assert (await made(world, linkedSandbox="nobody", autoDeleteInterval=0)).status == 404
        assert (await made(world, linkedSandbox=away.id, autoDeleteInterval=0)).status == 400
        follower = await made(world, linkedSandbox="owner", autoDeleteInterval=0)
        assert (follower.status, follower.body["linkedSandboxId"]) == (200, owner.id)
        assert (await made(world, linkedSandbox=follower.body["id"], autoDeleteInterval=0)).status == 400


async def test_a_stopped_sandbox_is_started_again() -> None:
    async with World() as world:
        row = world.add("chess", state="stopped")
        assert (await world.call("POST", f"/sandbox/{row.id}/start")).body["state"] == "starting"
        world.turn(5)
        assert (await world.get(row)).body["state"] == "started"
