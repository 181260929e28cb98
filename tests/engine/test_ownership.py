"""What is not owned survives everything; what is owned and protected survives too."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from devkit.engine import Age, PrivateEngine
from devkit.faults import Fault, FaultProxy
from tests import needs
from tests.engine.lab import (
    DAY,
    HOUR,
    OWNED,
    WAITS,
    containers,
    exited,
    in_parallel,
    member_of,
    ran,
    reasons,
    rows,
    stopped,
    toml,
)
from tests.run import Program

pytestmark = [pytest.mark.engine, pytest.mark.engines(*needs.DOCKERS)]

HARBOR_NEAR_MISS = {"com.docker.compose.project.config_files": "/home/me/docker-compose-build.yaml"}

UNOWNED: dict[str, dict[str, str]] = {
    "plain": {},
    "chess-best-move-1-of-1-2026-11-21__06-30-00": {},  # a name is no sign
    "near-key": {"terminal-bench-results": "1"},
    "near-value": {"harbor.managed": "false"},
    "near-file": member_of("near", HARBOR_NEAR_MISS),
    "in-a-project": member_of("website"),
    "override": {"reaper.ttl": "1s"},  # a label override to go makes nothing owned
}


def test_unowned_ones_survive_everything(engine: PrivateEngine, reaper: Program) -> None:
    wanted: dict[str, Age] = {}

    def make(name: str, labels: dict[str, str], images: dict[str, str]) -> str:
        """One that has been running for long, and one that ended long ago."""
        image = images.get(name, "bench:1")
        running = engine.create(f"{name}-runs", labels=labels, cmd=WAITS, start=True, image=image)
        ended = engine.create(name, labels=labels, cmd=WAITS, image=image)
        wanted.update({running: ran(9 * DAY), ended: stopped(9 * DAY)})
        return ended

    everything = {**UNOWNED, "near-image": {}, "owned": OWNED}
    images = {"near-image": engine.tag("bench:1", "tb__chess__server:latest")}
    in_parallel(lambda number: make(*list(everything.items())[number], images), len(everything))
    engine.backdate(wanted)
    names = {*UNOWNED, "near-image"}
    everybody = names | {f"{name}-runs" for name in names}
    assert reaper("--once", "--json").outcomes() == {"owned": "deleted", "owned-runs": "deleted"}
    for flags in (["--aggressive"], ["--all"], ["--stopped", "--older-than", "1h"], ["--all", "--max-deletions", "none"]):
        ended = reaper("--once", "--json", *flags)
        assert ended.code == 0
        assert reasons(ended) == dict.fromkeys(everybody, "not_owned")
        assert ended.outcomes() == {}
    ended = reaper("--once", "--json", "--all", "--name", "near-*")
    assert ended.document["hints"] == ["8 match but are not owned; add them to [scope]"]
    assert containers(engine) == everybody
    assert len(engine.ids(all=False)) == len(names)


def test_protected_ones_survive_everything(engine: PrivateEngine, reaper: Program) -> None:
    team = {"team": "rl"}
    kept = {
        "keep": ({**OWNED, "reaper.keep": ""}, "protected"),
        "keep-false": ({**OWNED, "reaper.keep": "false"}, "protected"),  # the label counts, whatever its value
        "by-name-1": (OWNED, "protected"),
        "override-odd": ({**OWNED, "reaper.ttl": "soon"}, "invalid_label"),
        "swarm": ({**OWNED, "com.docker.swarm.task.id": "x"}, "system_container"),
        "buildx_buildkit_rl0": (OWNED, "system_container"),
        "lease": ({**OWNED, "reaper.lease": "someone"}, "lease_unknown"),
        "always": (team, "restart_policy"),
        "unless-stopped": (team, "restart_policy"),
    }
    goes = {"on-failure": team, "preset-always": OWNED, "preset-unless-stopped": {**OWNED, **team}}
    labels = {name: override for name, (override, _) in kept.items()} | goes
    wanted: dict[str, Age] = {}
    for name, given in labels.items():
        policy = name.removeprefix("preset-")
        restart = policy if policy in ("always", "unless-stopped", "on-failure") else "no"
        ident = engine.create(name, labels=given, cmd=WAITS, start=True, restart=restart)
        if name != "lease":  # an unknown lease protects for a day
            wanted[ident] = ran(9 * DAY)
    engine.backdate(wanted)
    config = toml(reaper.folder, '[scope]\nlabels = ["team=rl"]\n[protect]\nlabels = ["reaper.keep"]\nnames = ["by-name-*"]')
    ended = reaper("--once", "--json", *config)
    assert ended.code == 0, ended.err
    assert ended.outcomes() == dict.fromkeys(goes, "deleted")
    for flag in ("--aggressive", "--all"):
        ended = reaper("--once", "--json", *config, flag)
        assert ended.outcomes() == {}
        assert reasons(ended) == {name: reason for name, (_, reason) in kept.items()}
    assert containers(engine) == set(kept)
    assert {row["raw_state"] for row in rows(ended).values()} == {"running"}


def test_overrides(engine: PrivateEngine, reaper: Program) -> None:
    yesterday = (datetime.now(UTC) - DAY).isoformat()
    overrides = {
        "ttl-over": {"reaper.ttl": "1ms"},
        "expired": {"reaper.expires": yesterday},
        "expired-before-it-was-made": {"reaper.expires": yesterday},
        "ttl": {"reaper.ttl": "2h"},
        "later": {"reaper.expires": "2999-01-01T00:00:00Z"},
    }
    for name, override in overrides.items():
        ident = engine.create(name, labels={**OWNED, **override}, cmd=WAITS, start=True)
        if name == "expired":
            engine.backdate({ident: Age(created=2 * DAY, started=HOUR)})
    exited(engine, "protected", {**OWNED, "reaper.ttl": "1ms", "reaper.keep": ""})
    ended = reaper("--once", "--json")
    assert ended.outcomes() == {"ttl-over": "deleted", "expired": "deleted"}
    assert containers(engine) == {"ttl", "later", "protected", "expired-before-it-was-made"}
    assert reasons(ended)["expired-before-it-was-made"] == "invalid_label"
    assert reasons(ended)["ttl"] == reasons(ended)["later"] == "label_not_due"
    ended = reaper("--once", "--all", "--json")  # the operator says that no run is alive
    assert ended.outcomes() == {"ttl": "deleted", "later": "deleted"}
    assert containers(engine) == {"protected", "expired-before-it-was-made"}


@pytest.mark.parametrize("user", ["unowned", "owned"])
def test_a_network_namespace_in_use(engine: PrivateEngine, reaper: Program, user: str) -> None:
    host = engine.create("host", labels=OWNED, cmd=WAITS, start=True)
    engine.create("user", labels=OWNED if user == "owned" else {}, cmd=WAITS, start=True, network=f"container:{host}")
    ended = reaper("--once", "--all", "--json")
    assert ended.code == 0, ended.err
    if user == "owned":
        assert ended.outcomes() == {"host": "deleted", "user": "deleted"}
        assert containers(engine) == set()
    else:
        assert reasons(ended) == {"host": "in_use", "user": "not_owned"}
        assert "user" in rows(ended)["host"]["sentence"]
        assert engine.state(host) == "running"
        assert containers(engine) == {"host", "user"}


def test_everything_owned_is_capped(engine: PrivateEngine, reaper: Program) -> None:
    """With ``everything = true`` no more than half of what the engine holds goes, unless that is allowed on purpose."""
    for number in range(3):
        exited(engine, f"any-{number}", {})
    exited(engine, "kept", {"reaper.keep": ""})
    config = toml(reaper.folder, "[scope]\neverything = true")
    ended = reaper("--once", "--stopped", "--json", *config)
    assert ended.code == 4, ended.err
    assert len(containers(engine)) == 4
    ended = reaper("--once", "--stopped", "--json", *config, "--max-deletions", "3")
    assert ended.code == 0, ended.err
    assert containers(engine) == {"kept"}


def test_a_filter_that_is_ignored(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    """An old engine answered a filtered question with everything: what comes back is matched again."""
    exited(engine, "member", member_of("trial", OWNED))
    exited(engine, "foreign", {})
    exited(engine, "neighbour", member_of("website"))
    proxy.add(Fault("status", "GET", "filters=", status=200, body=engine.api.must("GET", "/containers/json?all=1")))
    ended = proxied("--once", "--stopped", "--json")
    assert proxy.calls("GET", "filters=")
    assert ended.outcomes() == {"member": "deleted"}
    assert containers(engine) == {"foreign", "neighbour"}


@pytest.mark.engines(*needs.DOCKERS)
@pytest.mark.parametrize("label", ["reaper.keep", "team.precious", "other"])
def test_an_anonymous_volume_that_is_protected_keeps_its_container(
    engine: PrivateEngine, reaper: Program, tmp_path: Path, label: str
) -> None:
    """The engine deletes them together."""
    mount = {"Type": "volume", "Target": "/data", "VolumeOptions": {"Labels": {label: ""}}}
    body = {"Image": engine.import_image(), "Cmd": ["true"], "NetworkDisabled": True, "Labels": OWNED}
    engine.api.must("POST", "/containers/create?name=host", {**body, "HostConfig": {"Mounts": [mount]}})
    engine.start_container("host")
    engine.wait_state("host", "exited")
    config = toml(tmp_path, '[protect]\nlabels = ["team.precious"]\n')
    ended = reaper("--once", "--stopped", "--json", *config)
    assert ended.code == 0, ended.err
    assert ended.outcomes() == ({"host": "deleted"} if label == "other" else {})
    assert len(engine.volumes()) == (label != "other")
