"""Podman's pods go as one or stay as one: the containers, then the infra container with its pod."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from devkit.api import EngineError
from devkit.client import DEFAULT_IMAGE
from devkit.engine import PrivateEngine
from devkit.faults import FaultProxy
from devkit.pods import backdate_pod, create_in_pod, create_pod, infra_of, pods
from tests.engine.lab import OWNED, WAITS, member_of, ran, reached, reasons, rows, started, stopped
from tests.run import Program

pytestmark = [pytest.mark.engine, pytest.mark.engines("podman-4.3", "podman-5.8", "podman-5.8-rootless")]

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
EDITS = pytest.mark.engines("podman-5.8", "podman-5.8-rootless")  # the database of Podman 4 cannot be edited
ENDS = ("true",)


def pod(
    engine: PrivateEngine,
    name: str = "trial",
    ended: Sequence[str] = ("a", "b"),
    running: Sequence[str] = (),
    infra: bool = True,
) -> str:
    """A pod of owned containers; its id."""
    ident = create_pod(engine, name, infra=infra)
    for one in ended:
        engine.wait_state(create_in_pod(engine, ident, one, ENDS, OWNED), "exited")
    for one in running:
        create_in_pod(engine, ident, one, WAITS, OWNED)
    return ident


@pytest.mark.parametrize("infra", [True, False])
def test_a_pod_goes_after_all_that_is_in_it(engine: PrivateEngine, proxied: Program, proxy: FaultProxy, infra: bool) -> None:
    ident = pod(engine, infra=infra)
    create_in_pod(engine, create_pod(engine, "foreign"), "c", ENDS, {})
    ended = proxied("--once", "--stopped", "--json")
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"a": "deleted", "b": "deleted", "trial": "deleted"}
    assert rows(ended)["trial"]["kind"] == "pod"
    changes = [(call.method, call.path) for call in proxy.log if call.method != "GET"]
    assert len(changes) == 3
    assert (changes[-1][0], changes[-1][1].partition("/libpod")[2]) == ("DELETE", f"/pods/{ident}")
    assert pods(engine) == {"foreign": ["c"]}
    assert len(engine.ids()) == 2


def test_one_that_lives_keeps_the_whole_pod(engine: PrivateEngine, reaper: Program) -> None:
    pod(engine, ended=["a"], running=["b"])
    before = set(engine.ids())
    ended = reaper("--once", "--stopped", "--json")
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {}
    assert reasons(ended) == {"a": "group_kept", "b": "no_policy", "trial": "group_kept"}
    assert rows(ended)["a"]["sentence"].startswith("its pod trial@")
    assert set(engine.ids()) == before


def test_a_member_that_is_not_owned_keeps_the_whole_pod(engine: PrivateEngine, reaper: Program) -> None:
    create_in_pod(engine, pod(engine, ended=["a"]), "stranger", ENDS, {})
    ended = reaper("--once", "--all", "--json")
    assert ended.outcomes() == {}
    assert pods(engine) == {"trial": ["a", "stranger"]}


@pytest.mark.parametrize("labels", [{"reaper.keep": ""}, {"PODMAN_SYSTEMD_UNIT": "trial-pod.service"}])
def test_a_pod_that_is_protected_keeps_what_is_in_it(engine: PrivateEngine, reaper: Program, labels: dict[str, str]) -> None:
    create_in_pod(engine, create_pod(engine, "trial", labels), "a", ENDS, OWNED)
    ended = reaper("--once", "--all", "--json")
    assert ended.outcomes() == {}
    assert pods(engine) == {"trial": ["a"]}


@EDITS
def test_old_ones_that_run_are_stopped_and_the_infra_container_never_is(
    engine: PrivateEngine, proxied: Program, proxy: FaultProxy
) -> None:
    ident = pod(engine, ended=[], running=["a", "b"])
    infra = infra_of(engine, ident)
    members = [one for one in engine.ids() if one != infra]
    engine.backdate(dict.fromkeys(members, ran(2 * DAY)))
    ended = proxied("--once", "--json")
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"a": "deleted", "b": "deleted", "trial": "deleted"}
    changes = [call.path for call in proxy.log if call.method != "GET"]
    assert not any(infra in path for path in changes)
    assert changes[-1].endswith(f"/libpod/pods/{ident}")
    assert pods(engine) == {}
    assert engine.ids() == []


@EDITS
def test_a_young_member_keeps_the_old_ones_of_its_pod(engine: PrivateEngine, reaper: Program) -> None:
    pod(engine, ended=["a"], running=["b"])
    engine.backdate(
        {next(row["Id"] for row in map(engine.listed, engine.ids()) if row["Names"] == ["/a"]): stopped(2 * DAY)}
    )
    ended = reaper("--once", "--json")
    assert ended.outcomes() == {}
    assert reasons(ended)["a"] == "group_kept"


@EDITS
@pytest.mark.parametrize("infra", [True, False])
def test_an_empty_pod_goes_when_it_is_owned_and_no_longer_new(engine: PrivateEngine, reaper: Program, infra: bool) -> None:
    old, foreign = create_pod(engine, "old", OWNED, infra=infra), create_pod(engine, "foreign", infra=infra)
    create_pod(engine, "new", OWNED, infra=infra)
    for ident in (old, foreign):
        backdate_pod(engine, ident, HOUR)
    ended = reaper("--once", "--json")
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"old": "deleted"}
    assert reasons(ended) == {"old": "group_reaped", "new": "created_grace", "foreign": "not_owned"}
    assert pods(engine) == {"foreign": [], "new": []}


def test_a_pod_that_lost_its_containers_is_remembered_as_owned(engine: PrivateEngine, reaper: Program) -> None:
    ident = pod(engine, ended=[], running=["a"])
    assert reaper("--once", "--json").outcomes() == {}
    (member,) = set(engine.ids()) - {infra_of(engine, ident)}
    engine.remove(member, force=True)
    again = reaper("--once", "--json")
    assert reasons(again) == {"trial": "created_grace"}
    assert pods(engine) == {"trial": []}


def test_what_joins_the_pod_before_it_goes_keeps_it(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    """A container that has ended would go with its pod: Podman refuses only for those that run."""
    ident = pod(engine, ended=["a"])
    gate = proxy.hold("DELETE", "/containers/")
    with started(proxied, "--once", "--stopped", "--json") as process:
        reached(gate, process)
        create_in_pod(engine, ident, "late", ENDS, OWNED)
        gate.release()
        ended = proxied.finish(process)
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"a": "deleted", "trial": "skipped"}
    assert pods(engine) == {"trial": ["late"]}


def test_what_joins_the_pod_at_the_last_moment_is_seen(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    ident = pod(engine, ended=["a"])
    gate = proxy.hold("DELETE", "/libpod/pods/")
    with started(proxied, "--once", "--stopped", "--json") as process:
        reached(gate, process)
        create_in_pod(engine, ident, "late", WAITS, OWNED)
        gate.release()
        ended = proxied.finish(process)
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"a": "deleted", "trial": "skipped"}
    assert pods(engine) == {"trial": ["late"]}
    assert {engine.state(one) for one in engine.ids()} == {"running"}


def test_a_member_that_is_started_again_keeps_the_whole_pod(
    engine: PrivateEngine, proxied: Program, proxy: FaultProxy
) -> None:
    pod(engine)
    ident = next(row["Id"] for row in map(engine.listed, engine.ids()) if row["Names"] == ["/a"])
    gate = proxy.hold("GET", f"{ident}/json", after=True)
    with started(proxied, "--once", "--stopped", "--json") as process:
        reached(gate, process)
        engine.start_container(ident)
        gate.release()
        ended = proxied.finish(process)
    assert ended.code == 0, ended.err
    assert set(ended.outcomes().values()) == {"skipped"}
    assert pods(engine) == {"trial": ["a", "b"]}


@pytest.mark.parametrize("mode", ["NetworkMode", "PidMode", "IpcMode"])
def test_nothing_outside_a_pod_can_live_in_its_namespaces(engine: PrivateEngine, mode: str) -> None:
    """So nothing needs to be looked for that would break with the pod."""
    infra = infra_of(engine, pod(engine, ended=["a"]))
    body = {"Image": DEFAULT_IMAGE, "Cmd": list(WAITS), "HostConfig": {mode: f"container:{infra}"}}
    with pytest.raises(EngineError, match="pod"):
        engine.api.must("POST", "/containers/create?name=guest", body)


def test_the_pod_of_a_compose_project_goes_with_it(engine: PrivateEngine, reaper: Program) -> None:
    """As podman-compose makes it: a pod without an infra container, in which is the whole project."""
    labels = {**OWNED, **member_of("chess")}
    for name in ("pod_chess", "pod_go"):
        ident = create_pod(engine, name, infra=False)
        project = member_of(name.removeprefix("pod_"))
        for service in ("client", "db"):
            one = create_in_pod(engine, ident, f"{name}_{service}", ENDS, {**labels, **project})
            engine.wait_state(one, "exited")
    create_in_pod(engine, ident, "pod_go_web", WAITS, {**labels, **project})
    engine.create_network("chess_default", member_of("chess"))
    ended = reaper("--once", "--stopped", "--json")
    assert ended.code == 0, ended.err
    gone = {"pod_chess", "pod_chess_client", "pod_chess_db", "chess_default"}
    assert ended.outcomes() == dict.fromkeys(gone, "deleted")
    assert pods(engine) == {"pod_go": ["pod_go_client", "pod_go_db", "pod_go_web"]}


def test_a_pod_of_several_projects_stays(engine: PrivateEngine, reaper: Program) -> None:
    ident = pod(engine, ended=["a"])
    create_in_pod(engine, ident, "chess", ENDS, {**OWNED, **member_of("chess")})
    engine.wait_state(engine.create("outside", cmd=ENDS, labels={**OWNED, **member_of("chess")}, start=True), "exited")
    ended = reaper("--once", "--all", "--json")
    assert ended.outcomes() == {}
    assert rows(ended)["a"]["sentence"] == "it could not be read: its pod trial has containers of chess and of no project"
    assert reasons(ended) == {
        "a": "unreadable",
        "chess": "unreadable",
        "trial": "unreadable",
        "outside": "group_kept",
    }


def test_a_dry_run_says_that_the_pod_would_go(engine: PrivateEngine, reaper: Program) -> None:
    pod(engine)
    ended = reaper("--once", "--stopped", "--dry-run", "--json")
    assert ended.outcomes() == dict.fromkeys(["a", "b", "trial"], "would_delete")
    assert "it goes with its pod's containers" in reaper("explain", "trial", "--stopped").out
    assert len(engine.ids()) == 3
