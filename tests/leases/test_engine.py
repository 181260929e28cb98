"""What a run made under a lease, on an engine: containers and networks go when its holder is dead, the neighbours' stay."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from devkit.client import OBEYS_TERM, EngineClient
from reaper.core.lease import Claim
from reaper.core.scope import Selector
from reaper.leases.database import create
from reaper.leases.record import Holder, LeaseRecord, LeaseState, Liveness
from reaper.leases.sources import NAME
from reaper.leases.store import LeaseFile
from reaper.providers.docker.containers import engine_id
from reaper.providers.docker.volumes_images import reports_creation
from tests import needs
from tests.engine.lab import containers, member_of
from tests.run import Program

pytestmark = pytest.mark.engines(*needs.DOCKERS)
PROJECT = "com.docker.compose.project"
MINE, OTHERS = {"reaper.lease": "run-1"}, {"reaper.lease": "run-2"}


def test_what_a_dead_run_made_goes_and_its_neighbours_things_stay(any_engine: EngineClient, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    create(tmp_path / NAME)
    file = LeaseFile(tmp_path / NAME)
    begun = {"sort": Liveness.HEARTBEAT, "holder": Holder("gpu-1", 4711), "since": now, "seen_at": now}
    file.put(LeaseRecord(id="run-2", **begun))  # type: ignore[arg-type]
    alive = LeaseRecord(id="run-1", **begun)  # type: ignore[arg-type]
    file.put(alive)
    program = Program(tmp_path, {"DOCKER_HOST": any_engine.host})

    for name, labels in (("mine", MINE), ("others", OTHERS), ("unowned", {})):
        any_engine.create_network(f"{name}-net", labels)
        any_engine.create(name, labels=labels, cmd=OBEYS_TERM, start=True, network=f"{name}-net")
    # A project of this run, and one into which it has put a single container.
    any_engine.create_network("p_default", {**MINE, PROJECT: "p"})
    any_engine.create("p_main_1", labels={**MINE, **member_of("p")}, cmd=OBEYS_TERM, start=True, network="p_default")
    any_engine.create("q_main_1", labels=member_of("q"), cmd=OBEYS_TERM, start=True)
    any_engine.create("q_guest_1", labels={**MINE, **member_of("q")}, cmd=OBEYS_TERM, start=True)
    # The neighbours' network has a guest of this run.
    any_engine.create("guest", labels=MINE, cmd=OBEYS_TERM, start=True, network="others-net")
    everything = containers(any_engine), set(any_engine.networks())

    ended = program("--once", "--json")
    assert (ended.code, ended.outcomes()) == (0, {}), ended.err
    assert (containers(any_engine), set(any_engine.networks())) == everything

    file.put(
        LeaseRecord(
            id="run-1",
            **begun,  # type: ignore[arg-type]
            state=LeaseState.EXPIRED,
            ended_at=now + timedelta(seconds=1),
            cause="no heartbeat for 300 s",
        )
    )
    file.close()
    ended = program("--once", "--json")
    assert ended.code == 0, ended.err
    gone = ("mine", "mine-net", "p_main_1", "p_default", "guest")
    assert ended.outcomes() == dict.fromkeys(gone, "deleted"), ended.err
    assert containers(any_engine) == {"others", "unowned", "q_main_1", "q_guest_1"}
    assert set(any_engine.networks()) == {"others-net", "unowned-net"}


def test_a_volume_of_a_dead_run_that_another_s_is_mounted_from_stays(any_engine: EngineClient, tmp_path: Path) -> None:
    """The other one has no label of a lease, no container, and no policy. The engine would delete its data."""
    engine, now = any_engine, datetime.now(UTC)
    for name in ("base", "free"):
        engine.api.must("POST", "/volumes/create", {"Name": name, "Labels": MINE})
    options = {"type": "none", "o": "bind", "device": engine.api.must("GET", "/volumes/base")["Mountpoint"]}
    engine.api.must("POST", "/volumes/create", {"Name": "above", "Driver": "local", "DriverOpts": options})
    create(tmp_path / NAME)
    file = LeaseFile(tmp_path / NAME)
    begun = LeaseRecord(
        id="run-1", sort=Liveness.HEARTBEAT, holder=Holder("gpu-1", 4711), since=now - timedelta(minutes=1), seen_at=now
    )
    file.put(replace(begun, state=LeaseState.EXPIRED, ended_at=now, cause="killed"))
    file.close()
    ended = Program(tmp_path, {"DOCKER_HOST": engine.host})("--once", "--json")
    assert ended.outcomes() == {"free": "deleted"}, ended.err
    assert engine.volumes() == ["above", "base"]


def test_a_claim_by_name_takes_a_network_that_has_no_label(any_engine: EngineClient, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    create(tmp_path / NAME)
    file = LeaseFile(tmp_path / NAME)
    any_engine.create_network("trial-before", {})
    here = frozenset({engine_id(any_engine.host, any_engine.api.must("GET", "/networks"))})
    file.put(
        LeaseRecord(
            id="run-1",
            sort=Liveness.HEARTBEAT,
            holder=Holder("gpu-1", 4711),
            since=now,
            seen_at=now,
            claims=(Claim(Selector(names=("trial-[0-9]",))),),
            endpoints=here,
            state=LeaseState.EXPIRED,
            ended_at=now + timedelta(minutes=1),
            cause="killed",
        )
    )
    file.close()
    any_engine.create_network("trial-1", {})
    any_engine.create_network("others", {})
    ended = Program(tmp_path, {"DOCKER_HOST": any_engine.host})("--once", "--json")
    assert (ended.code, ended.outcomes()) == (0, {"trial-1": "deleted"}), ended.err
    assert set(any_engine.networks()) == {"trial-before", "others"}
    assert [row["name"] for row in ended.document["endpoints"][0]["resources"]] == ["trial-1"]


LATER = {"reaper.lease": "run-3"}
IMAGE = {"reaper.lease.image": "run-1"}


def test_volumes_and_images_go_after_what_uses_them_and_only_those_that_the_run_made(
    any_engine: EngineClient, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    create(tmp_path / NAME)
    file = LeaseFile(tmp_path / NAME)

    def put(id_: str, since: datetime, *claims: Claim, ended: bool = True) -> None:
        begun = LeaseRecord(
            id=id_,
            sort=Liveness.HEARTBEAT,
            holder=Holder("gpu-1", 4711),
            since=since,
            seen_at=since,
            claims=claims,
            endpoints=frozenset({engine_id(any_engine.host, any_engine.api.must("GET", "/networks"))}),
        )
        over = {"state": LeaseState.EXPIRED, "ended_at": since + timedelta(minutes=1), "cause": "killed"} if ended else {}
        file.put(replace(begun, **over))  # type: ignore[arg-type]

    put("run-1", now, Claim(projects=("p",)))
    put("run-2", now, ended=False)
    put("run-3", now + timedelta(seconds=90))  # what is made now is older than it
    program = Program(tmp_path, {"DOCKER_HOST": any_engine.host})

    any_engine.create_network("mine-net", MINE)
    for name, labels in (
        *(("mine-data", MINE), ("mine-spare", MINE), ("mine-used", MINE), ("others-data", OTHERS), ("unowned-data", {})),
        *(("older", LATER), ("p_data", {PROJECT: "p"}), ("p_cache", {**MINE, PROJECT: "p"})),
    ):
        any_engine.create_volume(name, labels)
    for name, labels in (
        *(("mine/built:1", IMAGE), ("mine/used:1", {**MINE, **IMAGE}), ("mine/twice:1", IMAGE), ("mine/result:1", MINE)),
        *(("others/built:1", OTHERS), ("older/built:1", LATER)),
    ):
        any_engine.labelled_image(name, labels)
    any_engine.api.must("POST", "/images/mine/twice:1/tag?repo=others/twice&tag=1")
    any_engine.create(
        "mine", labels=MINE, cmd=OBEYS_TERM, start=True, network="mine-net", binds=["mine-data:/d"], volumes=["/anonymous"]
    )
    any_engine.create("mine-made", image="mine/built:1", cmd=("/none",), labels=MINE)
    # It is given the labels of its image, that of the lease included, and is not the run's for that.
    any_engine.create("unowned", image="mine/used:1", cmd=("/none",), binds=["mine-used:/d", "unowned-data:/n"])

    assert program("list").code == 0
    ended = program("--once", "--json")
    assert ended.code == 0, ended.err
    # An engine that does not report when it was made cannot show that p_data is not from before the run, and nothing but
    # its project says whose it is.
    dated = ["p_data"] if reports_creation(any_engine.api.must("GET", "/version")["ApiVersion"]) else []
    gone = ("mine", "mine-made", "mine-net", "mine-data", "mine-spare", "p_cache", "mine/built:1", *dated)
    assert ended.outcomes() == dict.fromkeys(gone, "deleted"), ended.err
    assert containers(any_engine) == {"unowned"}
    assert any_engine.networks() == []
    assert any_engine.volumes() == sorted({"mine-used", "unowned-data", "older", "others-data", "p_data"} - {*dated})
    left = ["bench:1", "mine/result:1", "mine/twice:1", "mine/used:1", "older/built:1", "others/built:1", "others/twice:1"]
    assert any_engine.images() == left

    (endpoint,) = ended.document["endpoints"]
    found = {row["name"]: row for row in endpoint["resources"]}
    assert "its label reaper.lease may be its image's" in found["unowned"]["sentence"]
    assert {name: found[name]["reason"] for name in ("mine-used", "mine/used:1", "others-data", "older")} == {
        "mine-used": "in_use",
        "mine/used:1": "in_use",
        "others-data": "leased",
        "older": "not_owned",
    }
    if not dated:
        assert found["p_data"]["sentence"] == (
            "lease run-1 claims it, but an engine before Docker 23 does not report when it was made"
        )
    assert "unowned-data" not in found
    # It has the label of the container that it was committed from, and may be all that is left of the run's work.
    assert found["mine/result:1"]["reason"] == "not_owned"
    assert found["mine/twice:1"]["sentence"] == "it has 2 tags: mine/twice:1, others/twice:1"
    acts = program("history", "--json").document["acts"]
    order = [act["kind"] for act in sorted(acts, key=lambda act: act["ended_at"]) if act["outcome"] == "deleted"]
    assert order == ["container", "container", "network", *["volume"] * (3 + len(dated)), "image"]
    assert "lease run-2 of pid 4711 on gpu-1 is alive" in program("explain", "others-data").out
    short = found["mine/twice:1"]["id"].removeprefix("sha256:")[:12]
    assert f"local/mine/twice:1 (image {short}, present)" in program("explain", short).out

    any_engine.clear()
    any_engine.remove_images()
