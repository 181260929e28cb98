"""Sweeps of networks, volumes, images and build caches by policies of their own: remembered, re-checked, in order."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest

from reaper.core.accounts import Prune
from reaper.core.conditions import Policy
from reaper.core.lease import Claim, Ending, Lease
from reaper.core.model import Kind, Outcome, Resource
from reaper.core.quota import COUNT, Quota
from reaper.core.rules import Rules
from reaper.core.scope import Scope, Selector
from reaper.errors import DeniedError, ServerError
from reaper.providers.abilities import Uses
from reaper.providers.base import Call
from reaper.providers.memory import Held, MemoryProvider, Rule
from reaper.sweep.ownership import Memory
from reaper.sweep.sweep import Stop
from reaper.sweep.usage import LastUse
from tests.sweep.lab import (
    EXACT,
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
DAY = 24 * HOUR
OLD = NOW - 30 * DAY
SCOPE = Scope(selector=Selector(names=("bench-*",), images=("acme/*", "tb__*"), labels=("team=rl",)))
MINE = {"team": "rl"}


def policy(kind: str, **fields: Any) -> Policy:
    return Policy(f"{kind}s", frozenset({Kind(kind)}), **fields)


def rules(*policies: Policy, scope: Scope = SCOPE) -> Rules:
    return Rules(scope, policies=policies)


UNUSED = tuple(policy(kind, unused_for=2 * DAY) for kind in ("network", "volume", "image"))
OLDER = tuple(policy(kind, older_than=DAY) for kind in ("network", "volume", "image"))


def net(name: str, **fields: Any) -> Resource:
    return replace(network(name, "p", created_at=OLD), group=None, **fields)


def vol(name: str, **fields: Any) -> Resource:
    return volume(name, {}, created_at=OLD, **fields)


def img(name: str, **fields: Any) -> Resource:
    return replace(image(name, {}, created_at=OLD, tagged_at=OLD, layers=(name,)), **fields)


def lab(*things: Resource | Held, by: Rules, state: Path | None = None, **fields: Any) -> Lab:
    if state is not None:
        fields |= {"last_use": LastUse(state, "memory://local"), "memory": Memory(state, "memory://local")}
    return Lab(*things, rules=by, **fields)


THINGS = (net("bench-net"), vol("bench-data"), img("acme/x:1"))
NAMES = {thing.name for thing in THINGS}


async def later(swept: Lab, days: float) -> None:
    await anyio.sleep(days * DAY.total_seconds())


async def test_what_was_unused_for_long_goes_once_it_has_been_watched_for_so_long(tmp_path: Path) -> None:
    swept = lab(*THINGS, by=rules(*UNUSED), state=tmp_path)
    assert outcomes(await swept.sweep()) == {}, "the memory is new"
    await later(swept, 1.9)
    assert outcomes(await swept.sweep()) == {}
    await later(swept, 0.2)
    assert outcomes(await swept.sweep()) == dict.fromkeys(NAMES, "deleted")


async def test_a_service_that_deletes_nothing_says_what_would_go_once_it_has_watched_for_so_long(tmp_path: Path) -> None:
    swept = lab(*THINGS, by=rules(*UNUSED), state=tmp_path)
    assert outcomes(await swept.sweep(act=False, watches=True)) == {}
    await later(swept, 2.1)
    assert outcomes(await swept.sweep(act=False, watches=True)) == dict.fromkeys(NAMES, "would_delete")


async def test_what_looks_once_remembers_nothing(tmp_path: Path) -> None:
    swept = lab(*THINGS, by=rules(*UNUSED), state=tmp_path)
    await swept.sweep(act=False)
    await later(swept, 2.1)
    assert outcomes(await swept.sweep()) == {}


async def test_a_use_between_two_looks_counts(tmp_path: Path) -> None:
    swept = lab(*THINGS, by=rules(*UNUSED), state=tmp_path)
    await swept.sweep()
    await later(swept, 1)
    swept.world.use("bench-data", "id-bench-net", "acme/x:1")
    await later(swept, 1.5)
    assert outcomes(await swept.sweep()) == {}
    await later(swept, 2.1)
    assert outcomes(await swept.sweep()) == dict.fromkeys(NAMES, "deleted")


class Forgetful(MemoryProvider):
    """Knows of no use that was before."""

    async def uses(self, since: str | None, call: Call) -> Uses:
        return replace(await super().uses(since, call), complete=False)


class Following(MemoryProvider):
    """Knows what was used since its own looks, and of those of others nothing."""

    given: ClassVar[set[str | None]] = set()

    async def uses(self, since: str | None, call: Call) -> Uses:
        told = await super().uses(since, call)
        is_own = since in self.given
        mark = "0" * (len(self.given) + 1) + str(told.mark)  # the same numbers
        self.given.add(mark)
        return replace(told, complete=told.complete and is_own, mark=mark)


def beside(first: Lab, state: Path, kind: type[MemoryProvider]) -> Lab:
    """Another process that sweeps the same endpoint and remembers in the same place."""
    other = lab(by=first.rules, state=state)
    other.world, other.clock, other.provider = first.world, first.clock, kind(first.world, "local", None)
    return other


@pytest.mark.parametrize("used", [False, True])
async def test_another_process_that_begins_anew_makes_nothing_used_now(tmp_path: Path, used: bool) -> None:
    """A one-shot sweep knows what the engine remembers, and the service knows for longer."""
    swept = lab(*THINGS, by=rules(*UNUSED), state=tmp_path)
    await swept.sweep()
    other = beside(swept, tmp_path, Forgetful)
    await later(swept, 1)
    if used:
        swept.world.use(*(thing.id for thing in THINGS))
    assert await other.outcomes() == {}
    await later(swept, 1.1)
    assert await swept.outcomes() == ({} if used else dict.fromkeys(NAMES, "deleted"))


async def test_what_another_process_has_seen_in_use_was_used(tmp_path: Path) -> None:
    swept = lab(*THINGS, by=rules(*UNUSED), state=tmp_path)
    swept.provider = Following(swept.world, "local", None)
    await swept.sweep()
    other = beside(swept, tmp_path, MemoryProvider)
    await later(swept, 1)
    user = replace(running("bench-1"), uses=frozenset({"bench-data"}))
    swept.world.add(user)
    assert await other.outcomes() == {}
    swept.world.remove("bench-1")
    await later(swept, 1.1)
    assert await swept.outcomes() == dict.fromkeys(NAMES - {"bench-data"}, "deleted")


@pytest.mark.parametrize(
    "called", ["docker.io/acme/x:1", "acme/x@sha256:" + "a" * 64, "acme/x:1@sha256:" + "a" * 64, "id-acme/x:1"]
)
async def test_a_use_by_another_name_of_the_image_counts(tmp_path: Path, called: str) -> None:
    """Events have the name that a person wrote, be it between two looks or between the look and the deletion."""
    swept = lab(*THINGS, by=rules(*UNUSED), state=tmp_path)
    await swept.sweep()
    await later(swept, 1)
    swept.world.use(called)
    await later(swept, 1.5)
    assert outcomes(await swept.sweep()) == dict.fromkeys(NAMES - {"acme/x:1"}, "deleted")
    await later(swept, 2.1)
    swept.world.rules.append(Rule("inspect", calls={2}, before=lambda: swept.world.use(called)))
    report = await swept.sweep()
    assert result(report, "acme/x:1").detail == "it was used, pulled, built or tagged since it was listed"


@pytest.mark.parametrize("tagged", [None, OLD], ids=["undated", "dated"])
@pytest.mark.parametrize("called", ["acme/x:1", "docker.io/acme/x:1", "id-acme/x:1"])
async def test_an_image_that_is_pulled_again_is_as_young_as_that(
    tmp_path: Path, called: str, tagged: datetime | None
) -> None:
    """Docker's own store dates it by no pull, nor where it was removed between two looks."""
    swept = lab(img("acme/x:1", tagged_at=tagged), img("acme/y:1", tagged_at=tagged), by=rules(*OLDER), state=tmp_path)
    swept.rules = rules(policy("image", older_than=5 * DAY))
    assert await swept.outcomes() == ({} if tagged is None else dict.fromkeys(("acme/x:1", "acme/y:1"), "deleted"))
    await later(swept, 4.5)
    for one in (img("acme/x:1", tagged_at=tagged), img("acme/y:1", tagged_at=tagged)):
        swept.world.add(one)
    swept.world.pull(called)
    await later(swept, 1)
    swept.world.use("acme/x:1")  # which is no pull
    assert await swept.outcomes() == {"acme/y:1": "deleted"}
    await later(swept, 3.9)
    assert await swept.outcomes() == {}
    await later(swept, 0.2)
    assert await swept.outcomes() == {"acme/x:1": "deleted"}


@pytest.mark.parametrize("other", ["volume", "image"])
async def test_a_sweep_by_policies_for_another_kind_goes_on_watching_the_others(tmp_path: Path, other: str) -> None:
    swept = lab(*THINGS, by=rules(*UNUSED), state=tmp_path)
    await swept.sweep()
    for _ in range(3):
        await later(swept, 0.7)
        swept.rules = rules(policy(other, unused_for=30 * DAY))
        assert await swept.outcomes() == {}
    swept.rules = rules(*UNUSED)
    assert await swept.outcomes() == dict.fromkeys(NAMES, "deleted")


def _on_another(kind: str) -> tuple[Resource, Resource]:
    """A volume or an image, and another user's one that lies on it."""
    if kind == "volume":
        return vol("bench-base"), vol("above", uses=frozenset({"bench-base"}))
    return img("acme/base:1", layers=("a",)), img("other/above:1", layers=("a", "b"))


@pytest.mark.parametrize("kind", ["volume", "image"])
async def test_a_use_of_what_lies_on_it_counts(tmp_path: Path, kind: str) -> None:
    """What was built on an image, and a volume that is mounted from another one's folder: no event tells of the lower."""
    base, above = _on_another(kind)
    user = running("user", image=FOREIGN, uses=frozenset({above.id}))
    swept = lab(base, above, user, by=rules(*UNUSED), state=tmp_path)
    for _ in range(3):
        assert await swept.outcomes() == {}
        await later(swept, 1)
    swept.world.remove("user")
    swept.world.remove(above.name)
    assert await swept.outcomes() == {}, "it was used until now"
    await later(swept, 1.9)
    assert await swept.outcomes() == {}
    await later(swept, 0.2)
    assert await swept.outcomes() == {base.name: "deleted"}


async def test_no_layers_are_read_where_no_policy_depends_on_the_use_of_images(tmp_path: Path) -> None:
    swept = lab(*_on_another("image"), by=rules(policy("image", older_than=90 * DAY)), state=tmp_path)
    assert await swept.outcomes() == {}
    assert not swept.world.made("inspect")


async def test_layers_that_cannot_be_read_keep_nothing_that_is_not_to_go(tmp_path: Path) -> None:
    base, above = _on_another("image")
    swept = lab(base, above, by=rules(*UNUSED), state=tmp_path)
    swept.world.rules.append(Rule("inspect", above.name, error=DeniedError("no")))
    report = await swept.sweep()
    assert "failed" not in counts(report)
    assert not report.endpoints[0].warnings


async def test_a_volume_stays_with_the_one_that_lies_on_it() -> None:
    """The engine would delete it, and what the other one holds."""
    base, above = _on_another("volume")
    swept = lab(base, above, by=rules(*OLDER))
    assert await swept.outcomes() == {}
    swept.world.change("above", lambda volume: replace(volume, labels=MINE))
    assert await swept.outcomes() == {"above": "deleted", "bench-base": "deleted"}
    assert [gone.name for gone, _ in swept.world.removals] == ["above", "bench-base"]


async def test_a_volume_stays_when_the_one_that_lies_on_it_cannot_go() -> None:
    base, above = _on_another("volume")
    swept = lab(base, replace(above, labels=MINE), by=rules(*OLDER))
    swept.world.rules.append(Rule("delete", "above", error=DeniedError("no")))
    report = await swept.sweep()
    assert outcomes(report) == {"above": "failed", "bench-base": "skipped"}
    assert result(report, "bench-base").detail == "above, which lies on it, stays"


async def test_a_projects_volume_stays_with_another_users_that_lies_on_it() -> None:
    things = (stopped("web", group="p", labels=MINE), replace(vol("p_data"), group="p"))
    along = frozenset({Kind.NETWORK, Kind.VOLUME})
    by = rules(Policy("stopped", frozenset({Kind.CONTAINER}), stopped_for=HOUR, with_project=along))
    assert await lab(*things, by=by).outcomes() == {"web": "deleted", "p_data": "deleted"}
    assert await lab(*things, vol("above", uses=frozenset({"p_data"})), by=by).outcomes() == {"web": "deleted"}


async def test_what_is_used_while_a_sweep_does_not_list_it_counts_as_used(tmp_path: Path) -> None:
    user = running("user", image=FOREIGN, uses=frozenset({"bench-data", "id-acme/x:1"}))
    swept = lab(*THINGS, by=rules(*UNUSED), state=tmp_path)
    await swept.sweep()
    await later(swept, 1.5)
    swept.world.use("id-bench-net")
    swept.world.add(user)
    swept.rules = rules(policy("network", unused_for=30 * DAY))
    await swept.sweep()
    swept.world.remove("user")
    await later(swept, 1)
    swept.rules = rules(*UNUSED)
    assert await swept.outcomes() == {}
    await later(swept, 2.1)
    assert await swept.outcomes() == dict.fromkeys(NAMES, "deleted")


async def test_a_use_by_a_listed_container_counts(tmp_path: Path) -> None:
    user = running("user", image=FOREIGN, uses=frozenset({"bench-data", "id-bench-net", "id-acme/x:1"}))
    swept = lab(*THINGS, user, by=rules(*UNUSED), state=tmp_path)
    await swept.sweep()
    await later(swept, 3)
    await swept.sweep()
    swept.world.remove("user")
    assert outcomes(await swept.sweep()) == {}
    await later(swept, 2.1)
    assert outcomes(await swept.sweep()) == dict.fromkeys(NAMES, "deleted")


async def test_what_a_container_had_until_it_was_removed_between_two_looks_counts_as_used_until_then(tmp_path: Path) -> None:
    user = stopped("user", image=FOREIGN, uses=frozenset({"bench-data", "id-bench-net", "id-acme/x:1"}))
    swept = lab(*THINGS, user, by=rules(*UNUSED), state=tmp_path)
    await swept.sweep()
    await later(swept, 3)
    swept.world.remove("user")  # of which no event tells what it had
    assert outcomes(await swept.sweep()) == {}
    await later(swept, 1.9)
    assert outcomes(await swept.sweep()) == {}
    await later(swept, 0.2)
    assert outcomes(await swept.sweep()) == dict.fromkeys(NAMES, "deleted")


async def test_a_time_that_was_not_watched_counts_as_used(tmp_path: Path) -> None:
    swept = lab(*THINGS, by=rules(*UNUSED), state=tmp_path)
    await swept.sweep()
    await later(swept, 3)
    swept.world.forget_uses()
    assert outcomes(await swept.sweep()) == {}
    await later(swept, 2.1)
    assert outcomes(await swept.sweep()) == dict.fromkeys(NAMES, "deleted")


async def test_what_an_endpoint_does_not_tell_the_use_of_counts_as_used(tmp_path: Path) -> None:
    swept = lab(*THINGS, by=rules(*UNUSED), state=tmp_path)
    await swept.sweep()
    await later(swept, 1)
    swept.world.untold = frozenset({Kind.VOLUME})
    await swept.sweep()
    swept.world.untold = frozenset()
    await later(swept, 1.5)
    assert outcomes(await swept.sweep()) == dict.fromkeys(NAMES - {"bench-data"}, "deleted")
    await later(swept, 1.5)
    swept.world.rules.append(Rule("inspect", before=lambda: setattr(swept.world, "untold", frozenset({Kind.VOLUME}))))
    report = await swept.sweep()
    assert result(report, "bench-data").outcome == "skipped"
    assert "may have been used since it was listed" in (result(report, "bench-data").detail or "")


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version": 1}', '{"version": 9}', '{"version": 1, "seen": {"volume x": 1}}']
)
async def test_a_memory_that_cannot_be_read_is_none(tmp_path: Path, content: str) -> None:
    swept = lab(*THINGS, by=rules(*UNUSED), state=tmp_path)
    await swept.sweep()
    assert swept.last_use is not None
    swept.last_use.file.write_text(content)
    await later(swept, 3)
    assert outcomes(await swept.sweep()) == {}


async def test_a_memory_that_cannot_be_written_lasts_as_long_as_the_program(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    swept = lab(*THINGS, by=rules(*UNUSED), state=tmp_path / "file")
    report = await swept.sweep()
    assert any("cannot be remembered" in warning for warning in report.endpoints[0].warnings)
    await later(swept, 2.1)
    assert outcomes(await swept.sweep()) == dict.fromkeys(NAMES, "deleted")


async def test_a_dry_run_learns_nothing_and_says_the_same(tmp_path: Path) -> None:
    swept = lab(*THINGS, by=rules(*UNUSED), state=tmp_path)
    await swept.sweep(act=False)
    assert swept.last_use is not None
    assert not swept.last_use.file.exists()
    await swept.sweep()
    await later(swept, 2.1)
    assert outcomes(await swept.sweep(act=False)) == dict.fromkeys(NAMES, "would_delete")


async def test_another_volume_of_the_name_is_new(tmp_path: Path) -> None:
    swept = lab(*THINGS, by=rules(*UNUSED), state=tmp_path)
    await swept.sweep()
    await later(swept, 2.1)
    swept.world.change("bench-data", lambda v: replace(v, created_at=NOW + 2 * DAY))
    swept.world.change("acme/x:1", lambda i: replace(i, tags=("acme/x:1", "acme/x:2")))
    assert outcomes(await swept.sweep()) == {"bench-net": "deleted"}


async def test_what_changes_between_the_listing_and_the_deletion_stays(tmp_path: Path) -> None:
    things: dict[str, tuple[Resource, Callable[[Resource], Resource]]] = {
        "bench-data": (vol("bench-data"), lambda v: replace(v, created_at=NOW)),
        "acme/a:1": (img("acme/a:1"), lambda i: replace(i, tags=("acme/a:1", "neighbour:1"))),
        "acme/b:1": (img("acme/b:1"), lambda i: replace(i, tagged_at=NOW)),
        "acme/c:1": (img("acme/c:1"), lambda i: replace(i, labels={"reaper.keep": ""})),
        "bench-net": (net("bench-net"), lambda n: replace(n, labels={"x": ""})),
    }
    for name, (thing, change) in things.items():
        swept = lab(thing, by=rules(*OLDER))
        number = 2 if thing.kind is Kind.IMAGE else 1  # the first inspection of an image belongs to the listing
        happens = partial(swept.world.change, name, change)
        swept.world.rules.append(Rule("inspect", name, calls={number}, before=happens))
        assert (await swept.outcomes(), name in swept.left()) == ({name: "skipped"}, True)


async def test_what_is_used_between_the_listing_and_the_deletion_stays(tmp_path: Path) -> None:
    swept = lab(*THINGS, by=rules(*UNUSED, *OLDER), state=tmp_path)
    await swept.sweep(act=False)
    swept.world.rules.append(Rule("inspect", "bench-data", before=lambda: swept.world.use("bench-data")))
    swept.world.rules.append(Rule("inspect", "bench-net", before=lambda: swept.world.use("id-bench-net")))
    swept.world.rules.append(Rule("inspect", "acme/x:1", calls={2}, before=lambda: swept.world.use("acme/x:1")))
    report = await swept.sweep()
    assert outcomes(report) == dict.fromkeys(NAMES, "skipped")
    assert "since it was listed" in result(report, "acme/x:1").detail


async def test_a_container_that_is_made_while_a_networks_deletion_is_tried_again_keeps_it() -> None:
    """The engine would delete the network of a container that was never started, which could not be started then."""
    swept = lab(net("bench-net"), by=rules(*OLDER))
    never: dict[str, Any] = {"raw_state": "created", "started_at": None, "stopped_at": None}
    new = stopped("new", hours=0, image=FOREIGN, uses=frozenset({"id-bench-net"}), **never)
    swept.world.rules.append(
        Rule("delete", "bench-net", calls={1}, error=ServerError("later"), before=lambda: swept.world.add(new))
    )
    report = await swept.sweep()
    assert outcomes(report) == {"bench-net": "skipped"}
    assert result(report, "bench-net").detail == "new, which is kept, uses it"


async def test_a_container_that_comes_meanwhile_keeps_what_it_uses() -> None:
    swept = lab(*THINGS, by=rules(*OLDER))
    user = running("user", image=FOREIGN, uses=frozenset({"bench-data", "id-bench-net", "id-acme/x:1"}))
    swept.world.rules.append(Rule("inspect", "bench-net", before=lambda: swept.world.add(user)))
    report = await swept.sweep()
    assert Outcome.DELETED not in counts(report)
    assert swept.left() == {*NAMES, "user"}


async def test_without_a_policy_for_them_nothing_more_is_asked(tmp_path: Path) -> None:
    by = rules(Policy("stopped", frozenset({Kind.CONTAINER}), stopped_for=HOUR))
    swept = lab(*THINGS, stopped("a"), by=by, state=tmp_path)
    await swept.sweep()
    assert {call.method for call in swept.world.calls} == {"list", "inspect", "dependents", "delete"}
    assert swept.left() >= NAMES
    assert swept.last_use is not None
    assert not swept.last_use.file.exists()


async def test_children_go_before_what_they_were_built_on() -> None:
    base, middle = img("acme/base:1", layers=("a",)), img("acme/m:1", layers=("a", "b"), uses=frozenset({"id-acme/base:1"}))
    top = img("acme/top:1", layers=("a", "b", "c"), uses=frozenset({"id-acme/m:1"}))
    swept = lab(*(Held(thing, removal_seconds=3) for thing in (base, middle, top)), by=rules(*OLDER))
    assert await swept.outcomes() == dict.fromkeys((base.name, middle.name, top.name), "deleted")
    assert [gone.name for gone, _ in swept.world.removals] == [top.name, middle.name, base.name]


async def test_what_a_build_left_below_an_image_goes_after_it() -> None:
    top = img("tb__x__client:1", uses=frozenset({"id-below"}), layers=("a", "b"))
    below = img("below", tags=(), image=None, layers=("a",), tagged_at=None)
    swept = lab(top, below, by=rules(*OLDER))
    assert await swept.outcomes() == {"tb__x__client:1": "deleted", "below": "deleted"}
    assert [gone.name for gone, _ in swept.world.removals] == [top.name, "below"]
    kept = lab(top, below, by=rules(*OLDER))
    kept.world.rules.append(
        Rule("inspect", top.name, calls={2}, before=lambda: kept.world.change(top.name, lambda i: replace(i, tagged_at=NOW)))
    )
    assert set((await kept.outcomes()).values()) == {"skipped"}


def project(*along: str) -> tuple[list[Resource], Rules]:
    labels = {"com.docker.compose.project": "p", "com.docker.compose.service": "web"}
    uses = frozenset({"p_data", "id-p_default", "id-p-web:latest"})
    things = [
        stopped("web", group="p", labels=MINE, image="p-web", uses=uses),
        network("p_default", "p"),
        volume("p_data", {"com.docker.compose.project": "p"}, group="p"),
        img("p-web:latest", labels=labels, group="p"),
    ]
    taken = frozenset(map(Kind, along))
    return things, rules(Policy("stopped", frozenset({Kind.CONTAINER}), stopped_for=HOUR, with_project=taken))


async def test_a_project_goes_with_its_network_alone_by_default() -> None:
    things, by = project("network")
    swept = lab(*things, by=by)
    assert await swept.outcomes() == {"web": "deleted", "p_default": "deleted"}


async def test_a_project_goes_with_all_that_was_made_for_it() -> None:
    things, by = project("network", "volume", "image")
    swept = lab(*(Held(thing, removal_seconds=2) for thing in things), by=by)
    assert await swept.outcomes() == dict.fromkeys(("web", "p_default", "p_data", "p-web:latest"), "deleted")
    assert [gone.kind for gone, _ in swept.world.removals] == [Kind.CONTAINER, Kind.NETWORK, Kind.VOLUME, Kind.IMAGE]


async def test_an_image_that_was_built_again_since_its_projects_containers_were_made_stays(tmp_path: Path) -> None:
    """By another user in a folder of the same name, or for the next ``up``."""
    things, by = project("network", "image")
    again = replace(things[3], id="id-built-again")
    swept = lab(*things[:2], again, by=by, state=tmp_path)
    for _ in range(2):
        gone = await swept.outcomes()
        assert "p-web:latest" not in gone
    assert swept.left() == {"p-web:latest"}
    other = replace(things[0], image="p-db", uses=frozenset({"id-p-db"}))
    assert (await lab(other, again, by=by).outcomes())["p-web:latest"] == "deleted", "of a service that has no container"


@pytest.mark.parametrize("ago", [8.5 * HOUR, 7 * HOUR], ids=["before it stopped", "since"])
async def test_an_image_from_a_cache_that_was_tagged_again_since_its_containers_ended_stays(ago: timedelta) -> None:
    """It has the same id: ``docker compose build``, whose ``up`` is still to come."""
    things, by = project("network", "image")
    swept = lab(*things[:2], replace(things[3], tagged_at=NOW - ago), by=by)
    gone = dict.fromkeys(("web", "p_default"), "deleted")
    assert await swept.outcomes() == (gone if ago < 8 * HOUR else gone | {"p-web:latest": "deleted"})


async def test_an_image_that_is_built_again_when_its_project_has_gone_is_no_leftover(tmp_path: Path) -> None:
    """Between the build and the containers of the next ``up``, also where the first deletion of the image has failed."""
    things, by = project("network", "volume", "image")
    first = lab(*things, by=by, state=tmp_path / "1")
    await first.sweep()
    second, _ = await left_behind(tmp_path / "2")
    second.world.remove("p-web:latest")
    await later(first, 0.01)
    for swept in (first, second):
        swept.world.add(replace(things[3], tagged_at=NOW + MINUTE))
        await swept.sweep()
        assert swept.left() == {"p-web:latest"}


async def test_a_projects_volume_stays_where_a_container_of_it_stays_or_comes() -> None:
    things, by = project("network", "volume", "image")
    swept = lab(*things, by=by)
    again = running("again", hours=0, group="p", labels=MINE)
    swept.world.rules.append(Rule("delete", "web", after=lambda: swept.world.add(again)))
    report = await swept.sweep()
    assert {"p_data", "p-web:latest", "p_default"} <= swept.left()
    assert result(report, "p_data").outcome is Outcome.SKIPPED


async def test_the_next_sweep_takes_what_is_left_of_a_project_that_was_reaped(tmp_path: Path) -> None:
    things, by = project("network", "volume", "image")
    swept = lab(*things, by=by, state=tmp_path)
    swept.world.rules.append(Rule("delete", "p_data", error=ServerError("500")))
    swept.world.rules.append(Rule("delete", "p-web:latest", error=ServerError("500")))
    await swept.sweep()
    assert swept.left() == {"p_data", "p-web:latest"}
    swept.world.rules.clear()
    assert await swept.outcomes() == {"p_data": "deleted", "p-web:latest": "deleted"}


async def test_what_compose_down_has_left_of_a_project_stays(tmp_path: Path) -> None:
    things, by = project("network", "volume", "image")
    swept = lab(*things, by=by, state=tmp_path)
    swept.world.start("web")
    await swept.sweep()
    for name in ("web", "p_default"):
        swept.world.remove(name)
    await later(swept, 3)
    await swept.sweep()
    assert swept.left() == {"p_data", "p-web:latest"}


async def left_behind(state: Path) -> tuple[Lab, Rules]:
    """A project whose volume and image could not be deleted with it, and the rules by which it went."""
    things, by = project("network", "volume", "image")
    swept = lab(*things, by=by, state=state)
    for name in ("p_data", "p-web:latest"):
        swept.world.rules.append(Rule("delete", name, error=ServerError("500")))
    await swept.sweep()
    swept.world.rules.clear()
    return swept, by


async def test_a_sweep_by_policies_that_are_not_for_its_kind_leaves_what_is_remembered(tmp_path: Path) -> None:
    """``reaper --once --stopped`` beside a service: it lists no volumes and images, and another sweep takes them."""
    swept, by = await left_behind(tmp_path)
    swept.rules = rules(Policy("--stopped", frozenset({Kind.CONTAINER}), stopped_for=HOUR))
    assert await swept.outcomes() == {}
    swept.rules = by
    assert await swept.outcomes() == {"p_data": "deleted", "p-web:latest": "deleted"}


async def test_what_such_a_sweep_has_seen_in_use_again_is_no_leftover(tmp_path: Path) -> None:
    """The project came back, and then a person took it down, who keeps the volumes on purpose."""
    swept, by = await left_behind(tmp_path)
    swept.world.add(running("again", hours=0.1, group="p", labels=MINE, image=FOREIGN))
    swept.rules = rules(Policy("--stopped", frozenset({Kind.CONTAINER}), stopped_for=HOUR))
    assert await swept.outcomes() == {}
    swept.world.remove("again")
    swept.rules = by
    await later(swept, 3)
    assert await swept.outcomes() == {}


async def test_what_a_sweep_over_its_cap_has_seen_in_use_again_is_no_leftover(tmp_path: Path) -> None:
    """Nothing is deleted then, perhaps for days, and what is there is seen all the same."""
    swept, _ = await left_behind(tmp_path)
    swept.world.add(running("again", hours=0.1, group="p", labels=MINE, image=FOREIGN))
    swept.world.add(stopped("too-many"))
    report = await swept.sweep(max_deletions=0)
    assert report.endpoints[0].cap is not None
    swept.world.remove("again")
    await later(swept, 3)
    assert await swept.outcomes() == {"too-many": "deleted"}
    assert swept.left() == {"p_data", "p-web:latest"}


async def test_what_another_container_has_used_since_is_no_leftover_when_that_is_gone(tmp_path: Path) -> None:
    """Who removes the container keeps the volume on purpose, as ``docker compose down`` does."""
    swept, _ = await left_behind(tmp_path)
    swept.world.add(running("backup", hours=0.1, image=FOREIGN, uses=frozenset({"p_data"})))
    assert await swept.outcomes() == {"p-web:latest": "deleted"}
    swept.world.remove("backup")
    await later(swept, 3)
    assert await swept.outcomes() == {}
    assert swept.left() == {"p_data"}


async def test_an_image_that_lost_its_tag_is_still_known_after_a_sweep_that_lists_no_images(tmp_path: Path) -> None:
    swept = lab(img("acme/x:1"), by=rules(policy("image", older_than=60 * DAY)), state=tmp_path)
    await swept.sweep()
    swept.world.change("acme/x:1", lambda one: replace(one, tags=(), image=None))
    swept.rules = rules(Policy("--stopped", frozenset({Kind.CONTAINER}), stopped_for=HOUR))
    await swept.sweep()
    swept.rules = rules(policy("image", older_than=DAY))
    assert await swept.outcomes() == {"acme/x:1": "deleted"}


@pytest.mark.parametrize("narrow", [Selector(labels=("team=rl",)), Selector(names=("web",)), Selector(images=("p-web",))])
async def test_a_policy_for_some_containers_takes_along_what_it_would_not_select_itself(narrow: Selector) -> None:
    """Compose gives a volume no labels but its own."""
    things, by = project("network", "volume", "image")
    swept = lab(*things, by=replace(by, policies=(replace(by.policies[0], selectors=(narrow,)),)))
    assert await swept.outcomes() == dict.fromkeys(("web", "p_default", "p_data", "p-web:latest"), "deleted")


async def test_a_project_that_was_seen_alive_goes_with_all_in_one_sweep(tmp_path: Path) -> None:
    things, by = project("network", "volume", "image")
    swept = lab(*things, by=rules(replace(by.policies[0], stopped_for=DAY)), state=tmp_path)
    assert await swept.outcomes() == {}
    swept.rules = by
    assert await swept.outcomes() == dict.fromkeys(("web", "p_default", "p_data", "p-web:latest"), "deleted")


@pytest.mark.parametrize("is_shared", [False, True])
async def test_what_a_quota_takes_before_its_turn_takes_along_what_its_policy_says(tmp_path: Path, is_shared: bool) -> None:
    """Else it would be left for good: ``docker compose down`` leaves the same."""
    things, by = project("network", "volume", "image")
    if is_shared:
        things.append(running("other", hours=0.1, image=FOREIGN, labels=MINE, uses=frozenset({"p_data"})))
    swept = lab(*things, by=by, state=tmp_path)
    quota = Quota("few", frozenset({Kind.CONTAINER}), {COUNT: 0.0})
    gone = {"web", "p_default", "p-web:latest"} | (set() if is_shared else {"p_data"})
    assert await swept.outcomes(due=frozenset({"other"}), quotas=(quota,)) == dict.fromkeys(gone, "deleted")


@pytest.mark.parametrize("why", ["started", "refused", "no answer", "no answer and no listing", "stopping"])
async def test_what_compose_down_has_left_stays_where_the_sweep_had_begun_to_reap_the_project(
    tmp_path: Path, why: str
) -> None:
    """The project was to go, and stayed. Then a person took it down, who keeps the volumes on purpose."""
    things, by = project("network", "volume", "image")
    swept = lab(*things, by=by, state=tmp_path)
    match why:
        case "started":
            swept.world.rules.append(Rule("members", before=lambda: swept.world.start("web")))
        case "refused":
            swept.world.rules.append(Rule("delete", "web", error=DeniedError("403")))
        case "no answer":
            swept.world.rules.append(Rule("delete", "web", error=ServerError("500")))
        case "no answer and no listing":
            swept.world.rules.append(Rule("delete", "web", error=ServerError("500")))
            swept.world.rules.append(Rule("list", calls=range(2, 99), error=ServerError("500")))
        case _:
            swept.world.rules.append(Rule("members", before=lambda: swept.stop.request("SIGTERM")))
    await swept.sweep()
    assert "web" in swept.left()
    assert swept.memory is not None
    recalled = swept.memory.recall(held.resource for held in swept.world.held())
    assert all(one.remembered is not None and one.remembered.free_at > swept.clock() for one in recalled)
    swept.world.rules.clear()
    swept.stop = Stop()
    for name in ("web", "p_default"):
        swept.world.remove(name)
    await later(swept, 3)
    await swept.sweep()
    assert swept.left() == {"p_data", "p-web:latest"}


async def killed_at_deletion_of(name: str, swept: Lab) -> None:
    """Sweep by a process that is killed while it waits for the answer to this deletion, which is not carried out."""
    swept.world.rules.append(Rule("delete", name, hang=True))
    with anyio.move_on_after(10) as scope:  # what is cancelled does no more than what is killed
        await swept.sweep()
    assert scope.cancelled_caught
    swept.world.rules.clear()


async def test_what_compose_down_has_left_stays_where_the_sweep_was_killed_before_it_reaped_the_project(
    tmp_path: Path,
) -> None:
    """A person takes down what is left of the project, and keeps the volumes on purpose."""
    things, by = project("network", "volume", "image")
    swept = lab(*things, by=by, state=tmp_path)
    await killed_at_deletion_of("web", swept)
    assert "web" in swept.left()
    for name in ("web", "p_default"):
        swept.world.remove(name)
    await later(swept, 3)
    assert await swept.outcomes() == {}
    assert swept.left() == {"p_data", "p-web:latest"}


async def test_a_project_whose_deletion_was_done_without_an_answer_is_gone_for_what_it_leaves(tmp_path: Path) -> None:
    """The listing at the end shows that. The answers to the last try are lost as well, so nothing was looked at after it."""
    things, by = project("network", "volume", "image")
    swept = lab(*things, by=by, state=tmp_path, retry=replace(EXACT, attempts=1))
    swept.world.rules.append(Rule("delete", "web", calls={1}, error=ServerError("500")))
    swept.world.rules.append(Rule("delete", "web", calls={2}, error=ServerError("500"), done=True))
    report = await swept.sweep()
    assert result(report, "web").outcome is Outcome.FAILED
    assert swept.left() == {"p_data", "p-web:latest", "p_default"}
    swept.world.rules.clear()
    assert await swept.outcomes() == {"p_default": "deleted", "p_data": "deleted", "p-web:latest": "deleted"}


@pytest.mark.parametrize("at", ["p_data", "p-web:latest"])
async def test_what_a_killed_sweep_has_left_of_a_project_that_is_gone_goes_in_the_next_one(tmp_path: Path, at: str) -> None:
    things, by = project("network", "volume", "image")
    swept = lab(*things, by=by, state=tmp_path)
    await killed_at_deletion_of(at, swept)
    left = swept.left()
    assert at in left
    assert "web" not in left
    assert await swept.outcomes() == dict.fromkeys(left, "deleted")


async def test_of_many_projects_those_that_a_killed_sweep_has_reaped_lose_their_volumes_in_the_next_one(
    tmp_path: Path,
) -> None:
    """The sweep is killed long before all containers are gone; the projects that went first are known all the same."""
    _, by = project("volume")
    things: list[Resource] = []
    for name in ("first", "last"):
        things.append(stopped(f"{name}-web", group=name, labels=MINE, uses=frozenset({f"{name}_data"})))
        things.append(volume(f"{name}_data", {"com.docker.compose.project": name}, group=name))
    swept = lab(*things, by=by, state=tmp_path)
    swept.world.rules.append(Rule("delete", "first-web", seconds=2))
    await killed_at_deletion_of("last-web", swept)
    assert swept.left() == {"first_data", "last-web", "last_data"}
    swept.world.remove("last-web")
    assert await swept.outcomes() == {"first_data": "deleted"}


async def test_over_the_cap_of_leases_what_a_policy_could_not_delete_goes_in_the_next_sweep(tmp_path: Path) -> None:
    """That cap keeps no policy from going on, so what belongs to a project has to be remembered under it."""
    things, by = project("network", "volume")
    swept = lab(*things, running("mine", hours=0), by=by, state=tmp_path)
    swept.abandon("mine")
    swept.world.rules.append(Rule("delete", "p_data", error=ServerError("500")))
    report = await swept.sweep(max_lease_deletions=0)
    assert outcomes(report) == {"web": "deleted", "p_default": "deleted", "p_data": "failed", "mine": "abandoned"}
    swept.world.rules.clear()
    assert await swept.outcomes(max_lease_deletions=0) == {"p_data": "deleted", "mine": "abandoned"}


async def test_a_one_off_container_goes_beside_its_living_project() -> None:
    labels = {**MINE, "com.docker.compose.project": "p"}
    oneoff = stopped("run", group="p", labels={**labels, "com.docker.compose.oneoff": "True"}, image=FOREIGN)
    web = running("web", group="p", labels=labels, image=FOREIGN, hours=1)
    by = rules(Policy("oneoff", frozenset({Kind.CONTAINER}), stopped_for=HOUR, oneoff=True))
    swept = lab(oneoff, web, network("p_default", "p"), by=by)
    assert await swept.outcomes() == {"run": "deleted"}
    assert swept.left() == {"web", "p_default"}


async def test_a_one_off_container_that_the_client_container_owns_goes() -> None:
    labels = {"com.docker.compose.project": "p"}
    oneoff = stopped("run", group="p", labels={**labels, "com.docker.compose.oneoff": "True"}, image=FOREIGN)
    client = running("client", group="p", labels=labels, hours=1)
    by = rules(Policy("oneoff", frozenset({Kind.CONTAINER}), stopped_for=HOUR, oneoff=True))
    swept = lab(oneoff, client, by=by)
    assert await swept.outcomes() == {"run": "deleted"}


@pytest.mark.parametrize("known", [False, True], ids=["at once", "remembered"])
async def test_a_one_off_container_that_is_owned_by_the_signs_of_its_project_goes(tmp_path: Path, known: bool) -> None:
    files = "/opt/lib/harbor/environments/docker/docker-compose-build.yaml"
    labels = {"com.docker.compose.project": "p", "com.docker.compose.project.config_files": files}
    oneoff = stopped("run", group="p", labels={**labels, "com.docker.compose.oneoff": "True"}, image=FOREIGN)
    web = running("web", group="p", labels=labels, image=FOREIGN, hours=1)
    later = Policy("oneoff", frozenset({Kind.CONTAINER}), stopped_for=HOUR, oneoff=True)
    swept = lab(oneoff, web, by=replace(rules(later), scope=Scope(presets=("harbor",))), state=tmp_path)
    if known:
        swept.world.rules.append(Rule("delete", "run", error=ServerError("500")))
        assert await swept.outcomes() == {"run": "failed"}
        swept.world.rules.clear()
    assert await swept.outcomes() == {"run": "deleted"}
    assert swept.left() == {"web"}


async def test_a_one_off_container_of_a_preset_s_project_goes_whatever_restarts_it_and_else_owns_it() -> None:
    labels = {"com.docker.compose.project": "p"}
    oneoff = stopped("run-db", group="p", labels={**labels, "com.docker.compose.oneoff": "True"}, image=FOREIGN)
    client = running("client", group="p", labels=labels, hours=1)
    by = rules(Policy("oneoff", frozenset({Kind.CONTAINER}), stopped_for=HOUR, oneoff=True))
    scope = Scope(presets=("terminal-bench",), selector=Selector(names=("*-db",)))
    swept = lab(replace(oneoff, restart_policy="unless-stopped"), client, by=replace(by, scope=scope))
    assert await swept.outcomes() == {"run-db": "deleted"}


async def test_a_one_off_container_that_failed_to_go_is_still_owned_without_the_client_container(tmp_path: Path) -> None:
    labels = {"com.docker.compose.project": "p"}
    oneoff = stopped("run", group="p", labels={**labels, "com.docker.compose.oneoff": "True"}, image=FOREIGN)
    client = running("client", group="p", labels=labels, hours=1)
    by = rules(Policy("oneoff", frozenset({Kind.CONTAINER}), stopped_for=HOUR, oneoff=True))
    swept = lab(oneoff, client, by=by, state=tmp_path)
    swept.world.rules.append(Rule("delete", "run", error=ServerError("500")))
    assert await swept.outcomes() == {"run": "failed"}
    swept.world.rules.clear()
    swept.world.remove("client")
    assert await swept.outcomes() == {"run": "deleted"}


async def test_a_one_off_container_is_still_one_of_its_project_when_it_has_been_inspected() -> None:
    """By the listing alone it may have stopped long ago. It has not, and a claim that may mean another project is none."""

    def of_project(folder: str) -> dict[str, str]:
        return {"com.docker.compose.project": "p", "com.docker.compose.project.working_dir": folder}

    living = [running(name, group="p", hours=0.5, labels=of_project(f)) for name, f in (("web", "/b"), ("other", "/a"))]
    just_now: dict[str, Any] = {"created_at": NOW - 2 * HOUR, "started_at": NOW - 2 * HOUR, "stopped_at": NOW - MINUTE}
    oneoff = stopped("run", group="p", labels={**of_project("/b"), "com.docker.compose.oneoff": "True"}, **just_now)
    by = rules(Policy("oneoff", frozenset({Kind.CONTAINER}), stopped_for=HOUR, oneoff=True))
    swept = lab(oneoff, *living, by=by)
    claim = Claim(Selector(labels=("com.docker.compose.project=p",)))
    swept.leases = [Lease("7f3a", "pid 4711", claims=(claim,), since=NOW - 3 * HOUR, ending=Ending(NOW, "killed"))]
    assert await swept.outcomes() == {}
    assert swept.left() == {"run", "web", "other"}


async def test_the_build_cache_is_pruned_as_its_policy_says() -> None:
    cache = vol("build-cache", kind=Kind.BUILD_CACHE, last_used_at=NOW - 3 * DAY, size=5 << 30)
    swept = lab(cache, vol("bench-data"), by=rules(policy("build-cache", unused_for=2 * DAY, larger_than=1 << 30), *OLDER))
    assert await swept.outcomes() == {"build-cache": "deleted", "bench-data": "deleted"}
    assert [gone.kind for gone, _ in swept.world.removals] == [Kind.VOLUME, Kind.BUILD_CACHE]
    assert swept.world.removals[1][0].prune in (None, Prune(2 * DAY, 1 << 30))


async def test_their_cap_counts_them_all() -> None:
    swept = lab(*(vol(f"bench-{number}") for number in range(20)), by=rules(*OLDER))
    report = await swept.sweep(max_deletions=19)
    assert report.endpoints[0].cap is not None
    assert len(swept.left()) == 20


async def test_a_sweep_acts_for_the_policies_that_are_due() -> None:
    swept = lab(*THINGS, by=rules(*OLDER))
    assert await swept.outcomes(due=frozenset({"volumes"})) == {"bench-data": "deleted"}


async def test_minutes_old_things_stay() -> None:
    young = [net("bench-net", created_at=NOW - MINUTE), vol("bench-data"), img("acme/x:1", tagged_at=NOW - MINUTE)]
    swept = lab(*young, by=rules(policy("network", unused_for=MINUTE), policy("image", untagged=True), *OLDER[1:]))
    assert await swept.outcomes() == {"bench-data": "deleted"}
