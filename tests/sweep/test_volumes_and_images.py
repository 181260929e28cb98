"""Sweeps of what ended leases have left besides containers: in order, looked at again, and confirmed."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from reaper.core.lease import Claim, Ending, Lease
from reaper.core.model import Kind, Outcome, Resource
from reaper.core.rules import Rules
from reaper.core.scope import Scope, Selector
from reaper.errors import DeniedError, ServerError
from reaper.providers.memory import Held, Rule
from reaper.sweep.ownership import Memory
from tests.sweep.lab import (
    EVERYTHING,
    FOREIGN,
    HOUR,
    MINUTE,
    NOW,
    Lab,
    counts,
    image,
    network,
    outcomes,
    result,
    running,
    stopped,
    volume,
)

pytestmark = pytest.mark.anyio
RUN = Lease("7f3a", "pid 4711 on gpu-1", since=NOW - HOUR, ending=Ending(NOW, "killed"))
MINE = {"reaper.lease": "7f3a", "reaper.lease.image": "7f3a"}


def lab(*things: Resource | Held, leases: tuple[Lease, ...] = (RUN,), rules: Rules | None = None, **fields: object) -> Lab:
    made = Lab(*things, rules=rules or Rules(), **fields)  # type: ignore[arg-type]
    made.leases = list(leases)
    return made


def mine(name: str, *uses: str, **fields: object) -> Resource:
    """A container of the run that is over."""
    return running(name, hours=0, image=FOREIGN, labels=MINE, uses=frozenset(uses), **fields)


async def test_each_kind_goes_when_all_of_the_kind_before_has_gone() -> None:
    things = [
        image("built", MINE),
        volume("data", MINE),
        volume("p_data", MINE, group="p"),
        image("p_built", MINE, group="p"),
        network("p_default", "p", labels=MINE, created_at=NOW),
        replace(network("alone", "", labels=MINE, created_at=NOW), group=None),
        mine("p_main", "p_data", "data", "id-p_default", group="p"),
        mine("c", "data", "id-built", "id-p_built", "id-alone"),
    ]
    swept = lab(*(Held(thing, removal_seconds=5.0, stop_seconds=1.0) for thing in things))
    report = await swept.sweep()
    assert counts(report) == {Outcome.DELETED: len(things)}
    assert swept.left() == set()
    deleted = {call.name: call for call in swept.world.made("delete")}
    kinds = {thing.name: thing.kind for thing in things}
    stages: list[list[str]] = [[], [], [], [], []]
    for name, kind in kinds.items():
        stages[kind.stage].append(name)
    for earlier, later in ((0, 3), (2, 3), (3, 4)):  # a project's network goes as soon as its own containers have gone
        ended = max(deleted[name].ended or 0 for name in stages[earlier])
        assert ended <= min(deleted[name].began for name in stages[later])
    assert not any(force for resource, force in swept.world.removals if resource.kind.opt_in)


async def test_what_is_not_the_run_s_stays() -> None:
    swept = lab(
        mine("c", "data"),
        volume("data", MINE),
        volume("theirs", {"reaper.lease": "b2"}),
        volume("unowned", {}),
        volume("old", MINE, created_at=NOW - 2 * HOUR),
        volume("kept", {**MINE, "reaper.keep": ""}),
        volume("used", MINE),
        image("built", MINE),
        image("used:1", MINE),
        image("theirs:1", {"reaper.lease": "c3"}),
        running("neighbour", hours=0, image=FOREIGN, uses=frozenset({"used", "id-used:1"})),
        leases=(RUN, Lease("c3", "pid 5", since=NOW - HOUR)),
    )
    report = await swept.sweep()
    assert outcomes(report) == dict.fromkeys(("c", "data", "built"), "deleted")
    assert swept.left() == {"theirs", "unowned", "old", "kept", "used", "used:1", "theirs:1", "neighbour"}
    # What no lease has to do with is not told of: there may be thousands, of which none could go.
    assert "unowned" not in {decision.resource.name for decision in report.endpoints[0].decisions}
    assert report.endpoints[0].held == 10


async def test_without_leases_they_are_not_even_listed() -> None:
    everything = Rules(Scope(everything=True), policies=(EVERYTHING,))
    swept = lab(stopped("a"), volume("data", MINE), image("built", MINE), leases=(), rules=everything)
    report = await swept.sweep()
    assert (swept.left(), report.endpoints[0].held) == ({"data", "built"}, 1)
    asked = lab(stopped("a"), volume("data", {"x": ""}), image("built", {"x": ""}), rules=everything)
    await asked.sweep()  # nor taken by --all where there are some
    assert asked.left() == {"data", "built"}


async def test_what_a_claim_covers_goes() -> None:
    claims = (Claim(Selector(labels=("run=x",))), Claim(projects=("p",)))
    project = {"com.docker.compose.project": "p"}
    swept = lab(
        volume("run", {"run": "x"}),
        volume("other", {"run": "y"}),
        volume("changed", {"run": "x"}, created_at_inexact=True),
        volume("p_data", project, group="p"),
        image("p_main", project, group="p"),
        leases=(replace(RUN, claims=claims),),
    )
    await swept.sweep()
    assert swept.left() == {"other", "changed"}


def relabelled(lab: Lab) -> None:
    lab.relabel("x", {})


def made_again(lab: Lab) -> None:
    lab.world.change("x", lambda resource: replace(resource, created_at=NOW + MINUTE))


def tagged(lab: Lab) -> None:
    lab.world.change("x", lambda resource: replace(resource, tags=("x", "y")))


def leased_again(lab: Lab) -> None:
    lab.leases = [replace(RUN, ending=None)]


def gone(lab: Lab) -> None:
    lab.world.remove("x")


@pytest.mark.parametrize(
    ("make", "happens", "outcome", "detail"),
    [
        (volume, relabelled, "skipped", "has other labels now"),
        (volume, made_again, "skipped", "is another one of the same name now"),
        (image, tagged, "skipped", "has other tags now"),
        (image, leased_again, "skipped", "is to be kept now"),
        (volume, leased_again, "skipped", "is to be kept now"),
        (volume, gone, "gone", "another client removed it first"),
        (image, gone, "gone", "another client removed it first"),
    ],
)
async def test_what_changed_since_the_listing(
    make: Callable[..., Resource], happens: Callable[[Lab], None], outcome: str, detail: str
) -> None:
    swept = lab(make("x", MINE))
    swept.world.rules.append(Rule("inspect", calls={1}, before=lambda: happens(swept)))
    report = await swept.sweep()
    assert outcomes(report) == {"x": outcome}
    assert detail in result(report, "x").detail
    assert swept.world.removals == []


async def test_what_has_waited_for_its_turn_is_looked_at_once_more() -> None:
    """The volumes wait for a container that takes its time; meanwhile the name is used for another."""
    swept = lab(Held(mine("c"), stop_seconds=8), volume("x", MINE))
    swept.world.rules.append(Rule("delete", "c", after=lambda: made_again(swept)))
    assert await swept.outcomes() == {"c": "deleted", "x": "skipped"}


async def test_a_new_user_s_volume_is_refused_by_the_endpoint_and_tried_once_more() -> None:
    swept = lab(volume("data", MINE))
    user = running("new", hours=0, image=FOREIGN, uses=frozenset({"data"}))
    swept.world.rules.append(Rule("delete", "data", calls={1}, before=lambda: swept.world.add(user)))
    report = await swept.sweep()
    assert outcomes(report) == {"data": "skipped"}
    assert result(report, "data").detail == "the endpoint refused: data is in use"
    assert len(swept.world.made("delete", "data")) == 2
    swept.world.remove("new")
    assert await swept.outcomes() == {"data": "deleted"}


async def test_a_tag_that_comes_too_late_for_a_look_is_the_endpoint_s_to_refuse() -> None:
    swept = lab(image("x", MINE))
    swept.world.rules.append(Rule("delete", before=lambda: tagged(swept)))
    report = await swept.sweep()
    assert outcomes(report) == {"x": "skipped"}
    assert result(report, "x").detail == "the endpoint refused: x is referenced in multiple repositories"


async def test_when_a_container_goes_in_the_second_round_so_does_its_volume() -> None:
    swept = lab(mine("c", "data", "id-built"), volume("data", MINE), image("built", MINE))
    swept.world.rules.append(Rule("delete", "c", calls=range(1, 5), error=ServerError("500")))
    assert await swept.outcomes() == dict.fromkeys(("c", "data", "built"), "deleted")


async def test_what_a_container_has_that_could_not_be_deleted_stays() -> None:
    swept = lab(
        *(mine("p_main", "p_data", group="p"), mine("c", "data")),
        *(volume("data", MINE), volume("p_data", MINE, group="p"), volume("p_other", MINE, group="p")),
    )
    for name in ("p_main", "c"):
        swept.world.rules.append(Rule("delete", name, error=DeniedError("403")))
    report = await swept.sweep()
    failed, skipped = dict.fromkeys(("p_main", "c"), "failed"), dict.fromkeys(("data", "p_data", "p_other"), "skipped")
    assert outcomes(report) == failed | skipped
    assert result(report, "p_other").detail == "p_main is still in its project p"


async def test_deleted_means_not_listed_any_more() -> None:
    swept = lab(volume("stays", MINE), volume("again", MINE), image("stays:1", MINE), volume("goes", MINE))
    for name in ("stays", "stays:1"):
        swept.world.rules.append(Rule("delete", name, after=lambda name=name: put_back(swept, name)))  # type: ignore[misc]
    # Another volume of the same name is made: the one that was meant is gone all the same.
    another = volume("again", MINE, created_at=NOW + MINUTE)
    swept.world.rules.append(Rule("delete", "again", after=lambda: swept.world.add(another)))
    held = {thing.resource.name: thing.resource for thing in swept.world.held()}

    def put_back(lab: Lab, name: str) -> None:
        lab.world.add(held[name])
        lab.world.deleted_at.clear()  # no event tells of what was not done

    report = await swept.sweep()
    assert outcomes(report) == {"stays": "failed", "stays:1": "failed", "again": "deleted", "goes": "deleted"}
    assert result(report, "stays").error == "still_listed"


@pytest.mark.parametrize("kind", ["volume", "image"])
async def test_what_comes_back_under_its_id_was_deleted(kind: str) -> None:
    """A pull brings an image back with the same id, and Docker 20.10 does not tell two volumes of one name apart."""
    mine = image("acme:1", MINE) if kind == "image" else replace(volume("acme:1", MINE), created_at_inexact=True)
    swept = lab(mine)
    swept.world.rules.append(Rule("delete", "acme:1", after=lambda: swept.world.add(mine)))
    assert await swept.outcomes() == {"acme:1": "deleted"}
    assert [held.resource.id for held in swept.world.held()] == [mine.id]


@pytest.mark.parametrize("what", ["before it was listed", "of another", "unknown"])
async def test_what_no_deletion_is_told_of_is_not_deleted(what: str) -> None:
    mine = image("acme:1", MINE)
    swept = lab(mine)

    def put_back() -> None:
        swept.world.add(mine)
        at = swept.world.deleted_at.pop(mine.id)
        match what:
            case "before it was listed":
                swept.world.deleted_at[mine.id] = at - HOUR
            case "of another":
                swept.world.deleted_at["another"] = at
            case "unknown":
                swept.world.rules.append(Rule("uses", error=ServerError("500")))

    swept.world.rules.append(Rule("delete", "acme:1", after=put_back))
    report = await swept.sweep()
    assert result(report, "acme:1").error == "still_listed"


async def test_an_error_while_listing_them_ends_the_sweep() -> None:
    swept = lab(mine("c"), volume("data", MINE))
    swept.world.rules.append(Rule("list", error=DeniedError("403")))
    report = await swept.sweep()
    assert report.endpoints[0].failure is not None
    assert swept.world.removals == []


async def test_they_count_for_the_cap_of_the_leases() -> None:
    things = [mine("c"), volume("data", MINE), image("built", MINE)]
    held_back = lab(*things)
    report = await held_back.sweep(max_deletions=0, max_lease_deletions=2)
    assert counts(report) == {Outcome.ABANDONED: 3}
    assert (report.endpoints[0].cap is not None, held_back.world.removals) == (True, [])
    assert counts(await lab(*things).sweep(max_deletions=0, max_lease_deletions=3)) == {Outcome.DELETED: 3}


async def test_a_dry_run_tells_of_them() -> None:
    report = await lab(mine("c", "data"), volume("data", MINE)).sweep(act=False)
    assert outcomes(report) == dict.fromkeys(("c", "data"), "would_delete")


@pytest.mark.parametrize("skew", [timedelta(0), HOUR, -HOUR])
async def test_whether_it_was_made_under_a_lease_is_reported_by_the_endpoint_s_clock(skew: timedelta) -> None:
    before, under = (volume(name, MINE, created_at=NOW + skew - ago) for name, ago in (("b", 2 * HOUR), ("u", MINUTE)))
    swept = lab(before, under, skew=skew)
    await swept.sweep()
    assert swept.left() == {"b"}


async def test_no_name_of_a_volume_is_remembered(tmp_path: Path) -> None:
    """A project that is owned is known by the ids of its members, which are never used again."""
    project = {"group": "p", "labels": {"terminal-bench": "", "reaper.lease": "7f3a"}}
    living = replace(RUN, ending=None)
    memory = Memory(tmp_path, "memory://local")
    swept = lab(
        *(running("p_main", **project), volume("p_data", **project), image("p_built", **project)),  # type: ignore[arg-type]
        leases=(living,),
        memory=memory,
    )
    await swept.sweep()
    recalled = {r.name: r.remembered is not None for r in memory.recall(h.resource for h in swept.world.held())}
    assert recalled == {"p_main": True, "p_data": False, "p_built": False}
    assert {held.resource.kind for held in swept.world.held()} == {Kind.CONTAINER, Kind.VOLUME, Kind.IMAGE}
