"""The tables of facts/daytona.md on deletions, stops and listings, through the provider."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import pytest

from reaper.core.model import State
from reaper.errors import InProgressError, InvalidError, NotFoundError, ServerError, UnreadableError
from reaper.providers.daytona.states import STATES as MAPPED
from reaper.simulator.daytona.model import STATES, Sandbox
from reaper.simulator.world import ABSENT
from tests.providers.lab import Lab, by_name, direct, named, refused
from tests.simulator.daytona_client import EXACT, START

pytestmark = pytest.mark.anyio
T = TypeVar("T")

SLOWLY = ("started", "stopped", "paused", "archiving")
AT_ONCE = ("archived", "pending_build", "error", "build_failed")
REFUSED = tuple(sorted(STATES - {*SLOWLY, *AT_ONCE, "destroyed"}))
GRACE = timedelta(seconds=10)


async def delete(lab: Lab, row: Sandbox | str) -> None:
    await lab.provider.delete(lab.resource(row))


async def stop(lab: Lab, row: Sandbox | str) -> None:
    await lab.provider.stop(lab.resource(row), GRACE)


async def inspected(lab: Lab, row: Sandbox) -> State:
    return (await lab.provider.inspect(lab.resource(row))).state


async def not_found(lab: Lab, row: Sandbox | str) -> None:
    """Looking, deleting and stopping all say that it is not there."""
    resource = lab.resource(row)
    for ask in (
        lambda: lab.provider.inspect(resource),
        lambda: lab.provider.delete(resource),
        lambda: lab.provider.stop(resource, GRACE),
    ):
        await refused(NotFoundError, ask, f"Sandbox with ID or name {resource.id} not found", key=lab.key)


def test_every_state_of_the_table_is_tried() -> None:
    assert {*SLOWLY, *AT_ONCE, *REFUSED, "destroyed"} == STATES == set(MAPPED)


# Delete


@pytest.mark.parametrize("state", SLOWLY)
async def test_a_deletion_is_accepted_and_goes_on(state: str) -> None:
    async with Lab() as lab:
        row = lab.add("chess", state=state)
        await delete(lab, row)
        lab.turn(7.9)
        resource = await lab.provider.inspect(lab.resource(row))
        assert (resource.state, resource.id) == (State.CHANGING, row.id)
        assert (await lab.listed())[row.name].state is State.CHANGING
        await refused(InProgressError, lambda: delete(lab, row), "Sandbox state change in progress", key=lab.key)
        lab.turn(0.2)
        await not_found(lab, row)
        assert await lab.listed() == {}


@pytest.mark.parametrize("state", AT_ONCE)
async def test_some_deletions_are_done_at_once(state: str) -> None:
    async with Lab() as lab:
        row = lab.add("chess", state=state)
        await delete(lab, row)
        await not_found(lab, row)
        assert await lab.listed() == {}


@pytest.mark.parametrize("state", [*REFUSED, "hibernating"])
async def test_what_is_changing_can_be_neither_deleted_nor_stopped(state: str) -> None:
    async with Lab() as lab:
        row = lab.add("chess", state=state, stuck=True)
        for act in (delete, stop):
            await refused(InProgressError, partial(act, lab, row), "Sandbox state change in progress", key=lab.key)
        assert await inspected(lab, row) is (State.UNKNOWN if state == "hibernating" else State.CHANGING)


async def test_of_ten_deletions_at_the_same_time_one_is_accepted() -> None:
    async with Lab(replace(EXACT, race=0.2)) as lab:
        row = lab.add("chess")
        answers = await asyncio.gather(*(delete(lab, row) for _ in range(10)), return_exceptions=True)
        assert Counter(type(answer) for answer in answers) == {type(None): 1, InProgressError: 9}
        assert {str(a).partition(" [")[0] for a in answers if a is not None} == {"Sandbox was modified by another operation"}


async def test_a_missing_one_and_another_organisations_are_not_found() -> None:
    async with Lab(sandboxes={"mine": 0, "theirs": 3}) as lab:
        theirs = next(iter(lab.sim.organisation("theirs").rows.values()))
        for id_ in ("no-such-id", theirs.id):
            await not_found(lab, id_)
        assert theirs.desired != "destroyed"
        assert await lab.listed() == {}


async def test_linked_ones_go_with_their_owner_and_a_look_by_id_tells() -> None:
    async with Lab() as lab:
        owner = lab.add("owner")
        linked = lab.add("linked", linked=owner.id)
        listed = (await lab.listed())["linked"]
        assert (listed.uses, listed.links_known) == (frozenset(), False)
        fresh = await lab.provider.inspect(listed)
        assert (fresh.uses, fresh.links_known) == (frozenset({owner.id}), True)
        again = (await lab.listed())["linked"]  # from now on it is remembered
        assert (again.uses, again.links_known) == (frozenset({owner.id}), True)
        await delete(lab, owner)
        lab.turn(9)
        await not_found(lab, linked)


async def test_the_links_of_what_is_gone_are_forgotten() -> None:
    async with Lab() as lab:
        row = lab.add("linked", linked="owner")
        await lab.provider.inspect(lab.resource(row))
        lab.org.change(row, state="destroyed")
        await lab.provider.list(direct)
        assert lab.provider._links.known == {}


async def test_a_destruction_that_fails_later_looks_like_success() -> None:
    async with Lab() as lab:
        row = lab.add("chess", destroy_fails=True)
        await delete(lab, row)
        assert await inspected(lab, row) is State.CHANGING
        lab.turn(60)
        await not_found(lab, row)
        assert await lab.listed() == {}


async def test_on_a_dead_host_it_is_in_progress_for_ever() -> None:
    async with Lab() as lab:
        row = lab.add("chess", runner_dead=True, runner="runner-7")
        await delete(lab, row)
        lab.clock.advance(timedelta(days=9))
        await refused(InProgressError, lambda: delete(lab, row), key=lab.key)
        (listed,) = (await lab.listed()).values()
        assert (listed.state, listed.host) == (State.CHANGING, "runner-7")


# Stop


@pytest.mark.parametrize("state", ["started", "paused"])
async def test_a_stop_is_accepted_and_goes_on(state: str) -> None:
    async with Lab() as lab:
        row = lab.add("chess", state=state, created=START - timedelta(days=2))
        await stop(lab, row)
        assert await inspected(lab, row) is State.CHANGING
        await refused(InProgressError, lambda: stop(lab, row), "Sandbox state change in progress", key=lab.key)
        lab.turn(4)
        resource = await lab.provider.inspect(lab.resource(row))
        assert (resource.state, resource.stopped_at) == (State.STOPPED, START + timedelta(seconds=4))


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ("stopped", "Sandbox is not in a stoppable state"),
        ("archived", "Sandbox is not in a stoppable state"),
        ("error", "Sandbox is in an errored state"),
        ("build_failed", "Sandbox is in an errored state"),
    ],
)
async def test_what_cannot_be_stopped_is_no_temporary_error(state: str, says: str) -> None:
    async with Lab() as lab:
        row = lab.add("chess", state=state)
        error = await refused(InvalidError, lambda: stop(lab, row), says, key=lab.key)
        assert not error.retryable


# List


@pytest.mark.parametrize("state", sorted(STATES - {"destroyed"} | {"hibernating"}))
async def test_every_state_is_listed_as_the_map_says(state: str) -> None:
    async with Lab() as lab:
        lab.add("chess", state=state, stuck=True)
        (resource,) = (await lab.listed()).values()
        shown = "creating" if state == "unknown" else state  # as long as it is to be started
        assert resource.state is MAPPED.get(shown, State.UNKNOWN)
        assert resource.raw_state == shown


async def test_what_is_wanted_counts_and_not_what_a_filter_would_match() -> None:
    async with Lab() as lab:
        row = lab.add("chess", state="started", desired="destroyed")
        assert (await lab.listed())["chess"].state is State.CHANGING
        lab.org.change(row, extra={"state": "started"})  # as a cache may show it
        assert (await lab.listed())["chess"].state is State.CHANGING


@pytest.mark.parametrize("wanted", ["resized", "hibernated", "destroyed", "started", "stopped", "paused", "archived", 7, {}])
@pytest.mark.parametrize("state", ["started", "stopped", "paused", "archived"])
async def test_what_is_settled_and_is_to_be_something_else_is_about_to_change(state: str, wanted: object) -> None:
    """Also when that is a word that is not known here, or no word."""
    async with Lab() as lab:
        row = lab.add("chess", extra={"state": state, "desiredState": wanted})
        for resource in ((await lab.listed())["chess"], await lab.provider.inspect(lab.resource(row))):
            settled = MAPPED[state] if state == wanted else State.CHANGING
            assert resource.state is settled


@pytest.mark.parametrize("wanted", [ABSENT, None, ""])
async def test_a_server_that_does_not_say_what_is_desired_tells_the_state_alone(wanted: object) -> None:
    async with Lab() as lab:
        lab.add("chess", state="stopped", extra={"desiredState": wanted})
        assert (await lab.listed())["chess"].state is State.STOPPED


@pytest.mark.parametrize(
    ("state", "desired", "says"),
    [
        ("paused", "destroyed", "paused, to be destroyed"),
        ("archiving", "destroyed", "archiving, to be destroyed"),
        ("paused", "started", "paused, to be started"),
        ("archived", "started", "archived, to be started"),
    ],
)
async def test_the_server_shows_some_states_by_id_as_they_are_stored(state: str, desired: str, says: str) -> None:
    async with Lab() as lab:
        row = lab.add("chess", state=state, desired=desired, stuck=True)
        resource = await lab.provider.inspect(lab.resource(row))
        assert (resource.state, resource.raw_state) == (State.CHANGING, says)
        assert (await lab.listed())["chess"].state is State.CHANGING
        for act in (delete, stop):
            await refused(InProgressError, partial(act, lab, row), "Sandbox state change in progress", key=lab.key)


@pytest.mark.parametrize(("size", "pages"), [(1, 8), (3, 3), (7, 2), (8, 1), (200, 1)])
async def test_pages_have_the_size_that_was_asked_for(size: int, pages: int) -> None:
    async with Lab(table={"page_size": size}) as lab:
        for number in range(8):
            lab.add(f"c{number}", created=START - timedelta(hours=number))
        assert list(await lab.listed()) == [f"c{number}" for number in reversed(range(8))]
        paths = [call.path for call in lab.sim.daytona.traffic.calls]
        assert paths.pop() == f"/api/sandbox/paginated?page=1&limit={size}"  # whether it has what the index lacks
        assert len(paths) == pages
        assert all(f"limit={size}&sort=createdAt&order=asc" in path for path in paths)


async def test_a_page_that_fails_is_asked_for_again_by_itself() -> None:
    async def patient(what: str, function: Callable[[], Awaitable[T]]) -> T:
        try:
            return await function()
        except ServerError:
            return await function()

    async with Lab(table={"page_size": 2}) as lab:
        for number in range(6):
            lab.add(f"c{number}", created=START - timedelta(hours=number))
        lab.sim.faults.add("status:503,skip=1,times=1")
        found = by_name(await lab.provider.list(patient))
        assert len(found) == 6
        assert lab.requests("GET") == 4 + 1  # and one for what the index lacks


async def test_sandboxes_of_another_target_are_seen_and_marked() -> None:
    async with Lab(table={"target": "eu"}) as lab:
        lab.add("here", target="eu")
        lab.add("there", target="us")
        lab.add("nowhere", extra={"target": ABSENT})
        lab.add("null", extra={"target": None})
        found = await lab.listed()
        assert found.keys() == {"here", "there", "nowhere", "null"}
        assert {name for name, resource in found.items() if resource.excluded is None} == {"here"}
        assert found["there"].excluded == "in target us, and the endpoint is limited to eu"
        assert (await lab.provider.inspect(found["there"])).excluded == found["there"].excluded


async def test_members_of_a_warm_pool_belong_to_the_platform() -> None:
    async with Lab() as lab:
        lab.add("hidden", warm_pool="pool-1")
        lab.add("shown", extra={"warmPoolId": "pool-1"})
        found = await lab.listed()
        assert found.keys() == {"shown"}
        assert found["shown"].system_container is not None


ODD: tuple[dict[str, Any], ...] = (
    {"labels": None},
    {"labels": ABSENT},
    {"labels": {"harbor.session_id": 7}},
    {"lastActivityAt": ABSENT},
    {"lastActivityAt": None, "updatedAt": ABSENT},
    {"createdAt": ABSENT},
    {"createdAt": "yesterday"},
    {"state": "hibernating"},
    {"state": ABSENT, "desiredState": ABSENT},
    {"state": {"is": "odd"}},
    {"name": None, "snapshot": [], "runnerId": 8},
    {"somethingNew": {"deep": [1, 2, {}]}, "autoDestroyAt": 17},
)


@pytest.mark.parametrize(
    "odd", ODD, ids=[", ".join(f"{key}={'' if odd[key] is ABSENT else odd[key]}" for key in odd) for odd in ODD]
)
async def test_an_odd_row_is_listed_and_spoils_nothing(odd: dict[str, Any]) -> None:
    async with Lab() as lab:
        ids = {lab.add("before").id, lab.add("odd", extra=odd).id, lab.add("after").id}
        inventory = await lab.provider.list(direct)
        assert {resource.id for resource in inventory.resources} == ids
        assert inventory.unreadable == 0


@pytest.mark.parametrize("id_", [ABSENT, None, "", 7, "../x", "a/b", "x?force=true", "ü", "a b", "%2e%2e", "x" * 129])
async def test_a_row_without_an_id_that_a_request_could_name_is_unreadable(id_: object) -> None:
    async with Lab() as lab:
        lab.add("before")
        lab.add("odd", extra={"id": id_})
        lab.add("after")
        inventory = await lab.provider.list(direct)
        odd = {resource.name: resource.unreadable for resource in inventory.resources}
        assert odd == {"before": None, "odd": "its row has no id that a request could name", "after": None}


async def test_the_answer_must_be_of_the_sandbox_that_was_asked_for() -> None:
    async with Lab() as lab:
        for odd, says in (("another", "another sandbox"), ("../x", "another sandbox"), (None, "another sandbox")):
            row = lab.add(f"named {odd}", extra={"id": odd})
            error = await refused(UnreadableError, partial(lab.provider.inspect, named(row.id)), says, key=lab.key)
            assert error.retryable
