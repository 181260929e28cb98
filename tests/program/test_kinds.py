"""The commands on kinds with policies of their own: list, explain, check, dry runs and history."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reaper.simulator.docker.model import CacheRecord
from tests.run import NO_DAYTONA, Program
from tests.simulator.docker_world import World

GIB = 1 << 30
KINDS = """
[scope]
names = ["bench-*"]

[[policy]]
name = "large"
kinds = ["volume"]
larger_than = "1GiB"
older_than = "1s"

[[policy]]
name = "cache"
kinds = ["build-cache"]
unused_for = "2d"
"""


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        long_ago = int((datetime.now(UTC) - timedelta(days=5)).timestamp()) * 10**9
        for name, size in (("bench-large", 2 * GIB), ("bench-small", 5), ("large", 2 * GIB)):
            world.sim.add_volume(name, created=long_ago).size = size
        world.sim.cache += [
            CacheRecord(id="old", size=3 * GIB, created=long_ago, used=long_ago),
            CacheRecord(id="busy", size=GIB, created=long_ago, used=long_ago, in_use=True),
            CacheRecord(id="shared", size=GIB, created=long_ago, used=long_ago, shared=True),
            CacheRecord(id="new", size=GIB, created=long_ago, used=long_ago + 4 * 86400 * 10**9),
        ]
        yield world


@pytest.fixture
def run(world: World, tmp_path: Path) -> Program:
    (tmp_path / "reaper.toml").write_text(KINDS)
    return Program(tmp_path, {"DOCKER_HOST": world.host, **NO_DAYTONA})


def test_they_are_swept_recorded_and_explained(world: World, run: Program) -> None:
    assert run("check").code == 6
    dry = run("--once", "--dry-run", "--json")
    assert dry.outcomes() == {"bench-large": "would_delete", "build-cache": "would_delete"}
    assert len(world.sim.cache) == 4
    explained = run("explain", "bench-small")
    assert "is for what is larger than 1.0 GiB, and it has 5 B" in explained.out, explained.out
    ended = run("--once", "--json")
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"bench-large": "deleted", "build-cache": "deleted"}
    assert set(world.sim.volumes) == {"bench-small", "large"}
    assert [record.id for record in world.sim.cache] == ["busy", "shared", "new"]
    history = run("history")
    assert "1 record pruned, 3.0 GiB freed" in history.out or "bench-large" in history.out, history.out
    assert run("check").code == 0


def test_list_shows_all_of_a_kind_whether_a_policy_is_for_it_or_not(world: World, run: Program, tmp_path: Path) -> None:
    world.sim.images.add("acme/x:1")
    listed = run("list", "--kind", "volume", "--kind", "image", "--json")
    rows = {row["name"]: row["kind"] for endpoint in listed.document["endpoints"] for row in endpoint["resources"]}
    assert rows == {"bench-large": "volume", "bench-small": "volume", "large": "volume", "acme/x:1": "image"}
    wrong = run("list", "--kind", "volumes")
    assert wrong.code == 2
    assert "did you mean 'volume'?" in wrong.err


def test_the_configuration_is_told_in_words(run: Program) -> None:
    said = run("config", "check").out
    assert "policy: large: volumes older than 1 s and larger than 1.0 GiB" in said, said
    assert "policy: cache: build-caches unused for 2 d" in said


def test_a_volume_may_be_called_like_the_build_cache(world: World, run: Program) -> None:
    long_ago = int((datetime.now(UTC) - timedelta(days=5)).timestamp()) * 10**9
    world.sim.add_volume("build-cache", created=long_ago).size = 2 * GIB
    assert run("--once", "--json").outcomes() == {"bench-large": "deleted", "build-cache": "deleted"}
    assert "build-cache" in world.sim.volumes


def test_aggressive_leaves_their_ages_as_they_are_configured(world: World, run: Program, tmp_path: Path) -> None:
    policy = '[scope]\nnames = ["bench-*"]\n[[policy]]\nname = "old"\nkinds = ["volume"]\nolder_than = "30d"\n'
    (tmp_path / "reaper.toml").write_text(policy)
    assert run("--once", "--aggressive", "--json").outcomes() == {}


def test_a_variable_overrides_their_conditions(world: World, run: Program) -> None:
    env = {"REAPER_POLICY__LARGE__LARGER_THAN": "3GiB", "REAPER_POLICY__CACHE__UNUSED_FOR": "9d"}
    assert run("--once", "--json", env=env).outcomes() == {}
    wrong = run("--once", env={"REAPER_POLICY__LARGE__LARGER_THAN": "3 apples"})
    assert wrong.code == 2
    assert "'3 apples' is no size" in wrong.err
