"""Leaked Compose projects fill the engine's address pools; they go with their networks, and the living ones stay."""

from pathlib import Path

import pytest

from devkit.engine import EngineError, PrivateEngine
from devkit.faults import FaultProxy
from tests.engine.lab import (
    DAY,
    OWNED,
    WAITS,
    containers,
    exited,
    harbor,
    make_old,
    member_of,
    more_of,
    projects,
    ran,
    reached,
    reasons,
    rows,
    services,
    started,
    terminal_bench,
)
from tests.run import Program

pytestmark = [
    pytest.mark.engine,
    pytest.mark.engines("docker-20.10", "docker-28.5"),
    pytest.mark.usefixtures("compose_possible"),
]

POOLS = 30  # of an engine without configuration: 31, of which ``docker0`` has one; a host's own routes take more


@pytest.mark.engines("docker-20.10")
def test_leaked_projects_go_beside_living_ones(engine: PrivateEngine, reaper: Program, tmp_path: Path) -> None:
    trials = [f"hello-{n}-1-of-1-2026-11-21__06-30-00" for n in range(12)]
    sessions = [f"hello-world__a{n:06}" for n in range(13)]
    alive = ["alive-trial", "alive__session"]
    terminal_bench(engine, tmp_path, trials[0], "alive-trial")
    harbor(engine, tmp_path, sessions[0], "alive__session", "kept__session")
    more_of(engine, trials[0], *trials[1:])
    more_of(engine, sessions[0], *sessions[1:])
    engine.compose("website", services(["web"]), directory=tmp_path / "website")
    engine.create_network("unowned")
    leaked = [*trials, *sessions]
    living = [*alive, "kept__session", "website"]
    make_old(engine, *leaked, "website")
    assert len(engine.networks()) == len(leaked) + len(living) + 1 == POOLS
    with pytest.raises(EngineError, match="address pool"):
        engine.create_network("one-more")
    stays = set(engine.networks()) - {f"{name}_default" for name in leaked}

    ended = reaper("--once", "--json")

    assert ended.code == 0, ended.err
    assert len(ended.outcomes()) == 2 * len(leaked)
    assert set(ended.outcomes().values()) == {"deleted"}
    assert set(projects(engine)) == set(living)
    assert len(engine.ids(all=False)) == len(living), "they run"
    assert set(engine.networks()) == stays
    assert {name for name, why in reasons(ended).items() if why == "not_owned"} == {
        engine.compose_name("website", "web"),
        "website_default",
    }
    owners = {row["group"]: row["owner"] for row in rows(ended).values() if row["kind"] == "container"}
    assert owners[trials[0]] == "preset terminal-bench, image tb__*__client"
    ending = "/harbor/environments/docker/docker-compose-build.yaml"
    assert owners[sessions[0]] == f"preset harbor, config file *{ending}"
    for number in range(len(leaked)):
        engine.create_network(f"again-{number}")
    with pytest.raises(EngineError, match="address pool"):
        engine.create_network("one-more")


def test_both_runners_are_recognised_by_their_only_sign(engine: PrivateEngine, reaper: Program, tmp_path: Path) -> None:
    """A Terminal-Bench project by its image even when that has another tag by now, and its sidecars with it."""
    terminal_bench(engine, tmp_path, "trial", sidecars=["db"])
    harbor(engine, tmp_path, "session")
    engine.rebuild_tag("tb__chess-best-move__client:latest")
    client = next(i for i in projects(engine)["trial"] if "client" in engine.inspect(i)["Name"])
    assert engine.listed(client)["Image"].startswith("sha256:")
    engine.compose("other", services(["main", "db"]), directory=tmp_path / "other")
    listed = reaper("list", "--json")
    owner = {name: row["owner"] for name, row in rows(listed).items()}
    assert owner[engine.compose_name("trial", "client")] == "preset terminal-bench, image tb__*__client"
    assert (
        owner[engine.compose_name("trial", "db")]
        == owner["trial_default"]
        == "preset terminal-bench, image tb__*__client in its project"
    )
    assert str(owner[engine.compose_name("session", "main")]).startswith("preset harbor, config file")
    ended = reaper("--once", "--all", "--json")
    assert ended.code == 0, ended.err
    gone = [
        engine.compose_name("trial", "client"),
        engine.compose_name("trial", "db"),
        "trial_default",
        engine.compose_name("session", "main"),
        "session_default",
    ]
    assert ended.outcomes() == dict.fromkeys(gone, "deleted")
    assert containers(engine) == {engine.compose_name("other", "main"), engine.compose_name("other", "db")}
    assert engine.networks() == ["other_default"]


@pytest.mark.parametrize("remembered", [True, False], ids=["seen before", "never seen"])
def test_what_is_left_of_a_project_is_remembered(
    engine: PrivateEngine, reaper: Program, tmp_path: Path, remembered: bool
) -> None:
    """The client container, the only sign, goes first; sidecar and network are owned only by who saw the project whole."""
    terminal_bench(engine, tmp_path, "trial", sidecars=["db"])
    if remembered:
        ended = reaper("--once", "--json")
        assert (ended.code, ended.outcomes()) == (0, {})
    engine.remove(engine.compose_name("trial", "client"), force=True)
    make_old(engine, "trial")
    ended = reaper("--once", "--json")
    assert ended.code == 0, ended.err
    if remembered:
        assert ended.outcomes() == {engine.compose_name("trial", "db"): "deleted", "trial_default": "deleted"}
        assert rows(ended)[engine.compose_name("trial", "db")]["owner"].startswith("remembered: preset terminal-bench")
        assert containers(engine) == set()
        assert engine.networks() == []
    else:
        assert reasons(ended) == {engine.compose_name("trial", "db"): "not_owned", "trial_default": "not_owned"}
        assert containers(engine) == {engine.compose_name("trial", "db")}
        assert engine.networks() == ["trial_default"]


def test_another_project_of_a_remembered_name(engine: PrivateEngine, reaper: Program) -> None:
    """Ids are remembered, not names: another's project of the same name is not this one."""
    image = engine.tag("bench:1", "tb__chess__client:latest")
    engine.create_network("trial_default", member_of("trial"))
    engine.create("client", image=image, labels=member_of("trial"), cmd=WAITS, start=True, network="trial_default")
    ended = reaper("--once", "--json")
    assert reasons(ended) == {"client": "too_young", "trial_default": "group_kept"}
    engine.clear()
    engine.create_network("trial_default", member_of("trial"))
    ident = engine.create("client", labels=member_of("trial"), cmd=WAITS, start=True, network="trial_default")
    engine.backdate({ident: ran(2 * DAY)}, networks={"trial_default": 2 * DAY})
    for flag in ("--aggressive", "--all"):
        ended = reaper("--once", "--json", flag)
        assert reasons(ended) == {"client": "not_owned", "trial_default": "not_owned"}
    assert containers(engine) == {"client"}
    assert engine.networks() == ["trial_default"]


def test_the_next_sweep_removes_the_networks_of_one_that_died(
    engine: PrivateEngine, proxied: Program, proxy: FaultProxy
) -> None:
    """The containers are gone, and with them all signs of ownership; the sweep is killed before the network goes."""
    network = engine.create_network("trial_default", member_of("trial"))
    exited(engine, "client", member_of("trial", OWNED), network="trial_default")
    engine.create_network("website_default", member_of("website"))
    gate = proxy.hold("DELETE", network)
    with started(proxied, "--once", "--stopped", "--json") as process:
        reached(gate, process)
        process.kill()
        process.wait()
    assert containers(engine) == set()
    assert engine.networks() == ["trial_default", "website_default"]
    ended = proxied("--once", "--json")  # the default policies, by which it would be too young
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"trial_default": "deleted"}
    assert engine.networks() == ["website_default"]


def test_the_networks_of_a_project_with_several(engine: PrivateEngine, reaper: Program, tmp_path: Path) -> None:
    engine.import_image()
    content = services({"client": engine.tag("bench:1", "tb__two__client:latest")})
    content["services"]["client"]["networks"] = ["front", "back"]
    content["networks"] = {"front": {}, "back": {}}
    engine.compose("trial", content, directory=tmp_path)
    engine.create_network("outside")
    engine.api.must("POST", "/networks/outside/connect", {"Container": engine.compose_name("trial", "client")})
    make_old(engine, "trial", age=3 * DAY)
    ended = reaper("--once", "--json")
    assert ended.outcomes() == dict.fromkeys(
        (engine.compose_name("trial", "client"), "trial_front", "trial_back"), "deleted"
    ), ended.err
    assert engine.networks() == ["outside"]
