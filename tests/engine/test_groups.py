"""A Compose project is one unit: it goes as a whole or stays as a whole, also when it changes under our hands."""

from pathlib import Path

import pytest

from devkit.engine import PrivateEngine
from devkit.faults import FaultProxy
from tests import needs
from tests.engine.lab import (
    COMPOSE_TB_FILE,
    DAY,
    OWNED,
    WAITS,
    containers,
    exited,
    make_old,
    member_of,
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

pytestmark = [pytest.mark.engine, pytest.mark.engines(*needs.ENGINES), pytest.mark.usefixtures("compose_possible")]

TRIAL = "chess-best-move-1-of-1-2026-11-21__06-30-00"


def test_a_living_project_survives_with_all_its_siblings(engine: PrivateEngine, reaper: Program, tmp_path: Path) -> None:
    """One member is young and runs; the others are old, or have ended, or were never started."""
    terminal_bench(engine, tmp_path, "young", "leaked", sidecars=["db", "job"])
    ids = {engine.inspect(i)["Config"]["Labels"]["com.docker.compose.service"]: i for i in projects(engine)["young"]}
    make_old(engine, "young", "leaked")
    engine.stop_container(ids["db"], timeout=0)
    engine.stop_container(ids["client"], timeout=0)
    engine.start_container(ids["client"])  # the one young member
    before = engine.inspect(ids["client"])["State"]
    everybody = set(projects(engine)["young"])
    ended = reaper("--once", "--json")
    assert ended.code == 0, ended.err
    assert set(projects(engine)) == {"young"}
    assert engine.networks() == ["young_default"]
    for flags in ([], ["--aggressive"], ["--stopped"], ["--older-than", "1h"]):
        ended = reaper("--once", "--json", *flags)
        assert ended.code == 0, ended.err
        assert ended.outcomes() == {}
        assert set(projects(engine)["young"]) == everybody
    assert engine.inspect(ids["client"])["State"] == before, "it was not touched"
    said = {row["name"]: row["sentence"] for row in rows(ended).values() if row["reason"] == "group_kept"}
    assert set(said) == {engine.compose_name("young", "db"), engine.compose_name("young", "job"), "young_default"}
    assert all(engine.compose_name("young", "client") in sentence for sentence in said.values())


def test_one_protected_member_keeps_all(engine: PrivateEngine, reaper: Program) -> None:
    engine.create("a1", labels=member_of("p", OWNED), cmd=WAITS, start=True)
    engine.create("b1", labels=member_of("p", {**OWNED, "reaper.keep": ""}), cmd=WAITS, start=True)
    engine.create("c1", labels=member_of("q", OWNED), cmd=WAITS, start=True)
    engine.create("d1", labels=member_of("q"), cmd=WAITS, start=True)  # not owned
    ended = reaper("--once", "--all", "--json")
    assert reasons(ended) == {"a1": "group_kept", "b1": "protected", "c1": "group_kept", "d1": "not_owned"}
    assert containers(engine) == {"a1", "b1", "c1", "d1"}
    assert len(engine.ids(all=False)) == 4


def test_a_member_that_joins_in_between(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    """It joins when the project has been decided about and before it is looked at again."""
    exited(engine, "a1", member_of("p", OWNED))
    engine.create_network("p_default", member_of("p"))
    exited(engine, "alone")
    gate = proxy.hold("GET", "filters=.*project")
    with started(proxied, "--once", "--stopped", "--json") as process:
        reached(gate, process)
        exited(engine, "newcomer", member_of("p", OWNED))
        gate.release()
        ended = proxied.finish(process)
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"a1": "skipped", "p_default": "skipped", "alone": "deleted"}
    assert rows(ended)["a1"]["detail"] == "newcomer joined its project p"
    assert containers(engine) == {"a1", "newcomer"}
    assert engine.networks() == ["p_default"]


def test_a_member_that_joins_while_others_are_stopped(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    """Stopping takes its time, in which the project may be started again."""
    ident = engine.create("a1", labels=member_of("p", OWNED), cmd=WAITS, start=True)
    gate = proxy.hold("POST", f"{ident}/stop", after=True)
    with started(proxied, "--once", "--all", "--json") as process:
        reached(gate, process)
        engine.create("newcomer", labels=member_of("p", OWNED), cmd=WAITS, start=True)
        gate.release()
        ended = proxied.finish(process)
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"a1": "skipped"}
    assert rows(ended)["a1"]["detail"] == "newcomer joined its project p"
    assert containers(engine) == {"a1", "newcomer"}


def test_a_member_that_starts_again_keeps_the_others(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    first = exited(engine, "a1", member_of("p", OWNED))
    second = engine.create("b1", labels=member_of("p", OWNED), cmd=WAITS, start=True)
    engine.kill_container(second)
    gate = proxy.hold("GET", f"{first}/json", after=True)
    with started(proxied, "--once", "--stopped", "--json") as process:
        reached(gate, process)
        engine.start_container(second)
        gate.release()
        ended = proxied.finish(process)
    assert ended.code == 0, ended.err
    assert set(ended.outcomes().values()) <= {"skipped"}
    assert containers(engine) == {"a1", "b1"}
    assert engine.state(second) == "running"
    assert proxy.calls("DELETE") == []


def test_a_project_that_is_brought_up_again(
    engine: PrivateEngine, proxied: Program, proxy: FaultProxy, tmp_path: Path
) -> None:
    """``docker-compose up`` recreates its containers between the decision and the re-check: all of it survives."""
    terminal_bench(engine, tmp_path, TRIAL, sidecars=["db"])
    again = services({"client": "tb__chess-best-move__client:latest", "db": "bench:1"})
    old = set(projects(engine)[TRIAL])
    gate = proxy.hold("GET", "filters=.*project")
    with started(proxied, "--once", "--all", "--json") as process:
        reached(gate, process)
        up = ("up", "-d", "--force-recreate", "-t", "0")
        engine.compose(TRIAL, again, *up, directory=tmp_path / TRIAL, file=COMPOSE_TB_FILE)
        gate.release()
        ended = proxied.finish(process)
    assert ended.code == 0, ended.err
    assert "deleted" not in ended.outcomes().values()
    new = set(projects(engine)[TRIAL])
    assert len(new) == 2
    assert not new & old
    assert set(engine.ids(all=False)) == new
    assert engine.networks() == [f"{TRIAL}_default"]


def test_a_newcomer_keeps_the_network(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    """It comes when the last container of its project is going already: too late for that one, not for the network."""
    network = engine.create_network("p_default", member_of("p"))
    ident = exited(engine, "a1", member_of("p", OWNED), network="p_default")
    gate = proxy.hold("DELETE", ident, after=True)
    with started(proxied, "--once", "--stopped", "--json") as process:
        reached(gate, process)
        engine.create("newcomer", labels=member_of("p", OWNED), network="p_default")
        gate.release()
        ended = proxied.finish(process)
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"a1": "deleted", "p_default": "skipped"}
    assert engine.networks() == ["p_default"]
    assert proxy.calls("DELETE", network) == []


@pytest.mark.engines(*needs.DOCKERS)  # Podman takes a network from under a container that runs
def test_the_engine_itself_keeps_a_network_in_use(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    """A container of no project is attached to it after the final re-check."""
    network = engine.create_network("p_default", member_of("p"))
    exited(engine, "a1", member_of("p", OWNED))
    gate = proxy.hold("DELETE", network)
    with started(proxied, "--once", "--stopped", "--json") as process:
        reached(gate, process)
        engine.create("guest", labels={}, cmd=WAITS, start=True, network="p_default")
        gate.release()
        ended = proxied.finish(process)
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"a1": "deleted", "p_default": "skipped"}
    assert "active endpoints" in rows(ended)["p_default"]["detail"]
    assert engine.networks() == ["p_default"]


def test_a_guest_keeps_the_network_of_a_leaked_project(engine: PrivateEngine, reaper: Program) -> None:
    engine.create_network("p_default", member_of("p"))
    member = engine.create("a1", labels=member_of("p", OWNED), cmd=WAITS, start=True, network="p_default")
    engine.create("guest", labels={}, cmd=WAITS, start=True, network="p_default")
    engine.backdate({member: ran(2 * DAY)}, networks={"p_default": 2 * DAY})
    ended = reaper("--once", "--json")
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"a1": "deleted"}
    assert reasons(ended)["p_default"] == "in_use"
    assert containers(engine) == {"guest"}
    assert engine.networks() == ["p_default"]
