"""What a killed process owned goes, young and running as it is, and what a living one owns stays: on real engines."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devkit.client import OBEYS_TERM, EngineClient
from devkit.engine import PrivateEngine
from tests import forks, needs
from tests.engine.lab import OWNED, containers, member_of, reasons, rows, until
from tests.run import Program
from tests.running.lab import end_guards

pytestmark = pytest.mark.engines(*needs.DOCKERS)
OWNER = "import reaper, time; print(reaper.owner_label(), flush=True); time.sleep(600)"
SOON = {"REAPER_POLICY__ORPHANED__ORPHANED_FOR": "1s"}
OTHER_BOOT = "00000000-1111-2222-3333-444444444444"


@contextmanager
def owner() -> Iterator[tuple["subprocess.Popen[str]", dict[str, str]]]:
    """A process, and the labels of what it owns."""
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True, env=forks.kept()) as process:
        try:
            assert process.stdout is not None
            key, _, value = process.stdout.readline().strip().partition("=")
            yield process, {**OWNED, key: value}
        finally:
            process.kill()


def killed() -> dict[str, str]:
    """The labels of what belongs to a process that was killed."""
    with owner() as (process, labels):
        process.send_signal(signal.SIGKILL)
        process.wait()
    return labels


def test_what_a_killed_process_owned_goes_and_what_a_living_one_owns_stays(any_engine: EngineClient, tmp_path: Path) -> None:
    program = Program(tmp_path, {"DOCKER_HOST": any_engine.host, **SOON})
    with owner() as (dies, its), owner() as (_, others):
        any_engine.create_network("its_default", {**its, "com.docker.compose.project": "its"})
        any_engine.create("its", labels={**its, **member_of("its")}, cmd=OBEYS_TERM, start=True, network="its_default")
        any_engine.create("others", labels=others, cmd=OBEYS_TERM, start=True)
        any_engine.create("unowned", labels={k: v for k, v in its.items() if k not in OWNED}, cmd=OBEYS_TERM, start=True)
        any_engine.create("leased", labels={**its, "reaper.lease": "another"}, cmd=OBEYS_TERM, start=True)
        any_engine.create("kept", labels={**its, "reaper.keep": ""}, cmd=OBEYS_TERM, start=True)
        mixed = [member_of("mixed") | labels for labels in (its, others)]
        for number, labels in enumerate(mixed):
            any_engine.create(f"mixed-{number}", labels=labels, cmd=OBEYS_TERM, start=True)
        assert program("--once", "--json").outcomes() == {}

        dies.send_signal(signal.SIGKILL)
        dies.wait()
        ended = program("--once", "--json", "--wait", "--timeout", "20s")
        assert ended.outcomes() == {"its": "deleted", "its_default": "deleted"}, ended.err
        assert containers(any_engine) == {"others", "unowned", "leased", "kept", "mixed-0", "mixed-1"}
        row = rows(ended)["its"]
        assert (row["reason"], row["policy"]) == ("orphaned", "orphaned")
        assert f"process {dies.pid} (reaper.owner), is dead: there is no such process" in row["sentence"]
        assert reasons(ended)["others"] == "too_young"
        (act,) = [act for act in program("history", "--json").document["acts"] if act["name"] == "its"]
        assert act["reason"] == "orphaned"
        explained = program("explain", "others").out
        assert "is alive: it runs" in explained
        assert "the owner of mixed-1 of its project is not dead" in program("explain", "mixed-0").out


def test_what_cannot_be_proven_stays_and_is_explained(any_engine: EngineClient, tmp_path: Path) -> None:
    labels = killed()
    host, boot, pid, start = labels["reaper.owner"].split("/")
    unproven = {
        "malformed": (f"{pid}", "malformed"),
        "elsewhere": (f"{'0' * 32}/{OTHER_BOOT}/{pid}/{start}", "on another host"),
        "container": (f"{'0' * 32}/{boot}/{pid}/{start}", "another PID namespace"),
    }
    proven = {
        "restarted": f"{host}/{OTHER_BOOT}/1/{start}",
        "reused": f"{host}/{boot}/1/999999999",
        "dead": labels["reaper.owner"],
    }
    for name, value in {**{name: value for name, (value, _) in unproven.items()}, **proven}.items():
        any_engine.create(name, labels={**OWNED, "reaper.owner": value}, cmd=OBEYS_TERM, start=True)
    program = Program(tmp_path, {"DOCKER_HOST": any_engine.host, **SOON})
    ended = program("--once", "--json", "--wait", "--timeout", "20s")
    assert ended.outcomes() == dict.fromkeys(proven, "deleted"), ended.err
    for name, (_, why) in unproven.items():
        assert why in program("explain", name).out
    document = json.loads(program("explain", "malformed", "--json").out)
    (rule,) = [rule for rule in document["rules"] if rule["rule"] == "owner process"]
    assert "HOST_ID/BOOT_ID/PID/START_TIME" in rule["sentence"]


@pytest.mark.engine
def test_the_label_of_an_image_proves_nothing(engine: PrivateEngine, tmp_path: Path) -> None:
    source = engine.create("source", labels=killed(), cmd=OBEYS_TERM)
    engine.commit(source, "inherits:1")
    engine.remove(source)
    engine.create("inherits", image="inherits:1", labels={"terminal-bench": "1"}, cmd=OBEYS_TERM, start=True)
    program = Program(tmp_path, {"DOCKER_HOST": engine.host, **SOON})
    assert program("--once", "--json", "--wait", "--timeout", "5s").outcomes() == {}
    assert "no label of its own names a process" in program("explain", "inherits").out


def test_the_default_is_ten_minutes_from_when_the_death_was_seen_first(any_engine: EngineClient, tmp_path: Path) -> None:
    any_engine.create("its", labels=killed(), cmd=OBEYS_TERM, start=True)
    program = Program(tmp_path, {"DOCKER_HOST": any_engine.host})
    ended = program("--once", "--json")
    assert ended.outcomes() == {}
    assert "allows 10 min" in program("explain", "its").out
    (file,) = tmp_path.glob("owners-*.json")
    content = json.loads(file.read_text())
    content["dead"] = {key: seen - 600 for key, seen in content["dead"].items()}
    file.write_text(json.dumps(content))
    assert program("--once", "--json").outcomes() == {}  # no longer than it has been there


RUNNERS = """
[[docker]]
name = "local"
host = "{host}"
[[owner]]
presets = ["terminal-bench"]
processes = ["*/{folder}/bin/tb run*"]
[[policy]]
name = "orphaned"
kinds = ["container"]
orphaned_for = "1s"
every = "1s"
"""


def runners(engine: EngineClient, folder: Path) -> str:
    """The configuration; another test of this name may run beside, in a folder of the same last name."""
    return RUNNERS.format(host=engine.host, folder=f"{folder.parent.name}/{folder.name}")


def test_what_a_killed_runner_left_goes_by_its_processes_and_a_living_one_s_stays(
    any_engine: EngineClient, tmp_path: Path
) -> None:
    """No container says to whom it belongs, and what the younger one may have taken over stays with it."""
    (tmp_path / "bin").mkdir()
    tb = tmp_path / "bin" / "tb"
    tb.write_text(f"#!{sys.executable}\nimport time\nprint(flush=True)\ntime.sleep(600)\n")
    tb.chmod(0o700)
    (tmp_path / "reaper.toml").write_text(runners(any_engine, tmp_path))
    program = Program(tmp_path)
    with runner(tb) as killed_one:
        its = "its-1-of-1-2026-11-20__09-30-00"
        any_engine.create("nightly", labels=OWNED, cmd=OBEYS_TERM, start=True)
        any_engine.create(its, labels=OWNED, cmd=OBEYS_TERM, start=True)
        until(lambda: age_of(any_engine, its) > 5, "a runner that is surely younger")  # both are told in whole seconds
        with runner(tb):
            any_engine.create("others", labels=OWNED, cmd=OBEYS_TERM, start=True)
            any_engine.create("unowned", cmd=OBEYS_TERM, start=True)
            assert program("--once", "--json").outcomes() == {}
            killed_one.kill()
            killed_one.wait()
            ended = program("--once", "--json", "--wait", "--timeout", "60s")
            assert ended.outcomes() == {its: "deleted"}, ended.err
            assert "no such process is older than this" in rows(ended)[its]["sentence"]
            assert "owner alive" in rows(ended)["nightly"]["sentence"]
            hidden = Program(tmp_path, {"STATE_DIRECTORY": str(tmp_path)})
            assert hidden("--once", "--json", "--wait", "--timeout", "5s").outcomes() == {}
            assert containers(any_engine) == {"nightly", "others", "unowned"}


@contextmanager
def runner(command: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen([str(command), "run"], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()


def age_of(engine: EngineClient, name: str) -> float:
    """Seconds since the engine has made it."""
    (row,) = [row for row in engine.api.must("GET", "/containers/json?all=1") if row["Names"] == [f"/{name}"]]
    return time.time() - float(row["Created"])


def test_patterns_that_never_matched_a_process_take_nothing(any_engine: EngineClient, tmp_path: Path) -> None:
    (tmp_path / "reaper.toml").write_text(runners(any_engine, tmp_path))
    any_engine.create("living", labels=OWNED, cmd=OBEYS_TERM, start=True)
    program = Program(tmp_path)
    for _ in range(2):
        assert program("--once", "--json").outcomes() == {}
    assert "no process like that was ever seen here" in program("explain", "living").out


INSIDE = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-m", "reaper"]


@pytest.mark.skipif(os.geteuid() != 0, reason="it needs root")
def test_a_reaper_that_does_not_see_the_host_s_processes_takes_nothing(any_engine: EngineClient, tmp_path: Path) -> None:
    (tmp_path / "reaper.toml").write_text(runners(any_engine, tmp_path))
    any_engine.create("its", labels=OWNED, cmd=OBEYS_TERM, start=True)
    any_engine.create("labelled", labels=killed(), cmd=OBEYS_TERM, start=True)
    program = Program(tmp_path)
    for _ in range(2):
        command = [*INSIDE, "--once", "--json"]
        ended = subprocess.run(
            command, env=program.env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
        )
        assert all(row["verdict"] == "keep" for row in json.loads(ended.stdout)["endpoints"][0]["resources"])
    said = subprocess.run(
        [*INSIDE, "explain", "its"], env=program.env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert "the engine's process is not seen from here" in said.stdout


MAKES = """
import docker, json
client = docker.from_env()
print(json.dumps(client.containers.create("bench:1", ["true"], network_mode="none").labels), flush=True)
client.close()
"""


def test_what_a_run_makes_names_the_run_as_its_owner(any_engine: EngineClient, tmp_path: Path) -> None:
    program = Program(tmp_path, {"DOCKER_HOST": any_engine.host, "DAYTONA_API_URL": "http://127.0.0.1:9/api"})
    process = program.start("run", "--skip-cleanup", "--", sys.executable, "-c", MAKES)
    ended = program.finish(process)
    end_guards(tmp_path)
    assert ended.code == 0, ended.err
    labels = json.loads(ended.out)
    assert labels.keys() >= {"reaper.lease", "reaper.owner"}
    assert labels["reaper.owner"].split("/")[2] == str(process.pid)
    assert containers(any_engine) == set()
