"""The API key is in no output, and what is wrong with a server is reported; what is not needed is not imported."""

import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.daytona.server import Served
from tests.program.test_json import report
from tests.program.wrapped import imported
from tests.run import NO_DAYTONA, Program

KEY = "dtn_5ecre7c0ffee5ecre7c0ffee5ecre7c0ffee"
FAULTS = {
    "none": [],
    "errors": ["status:500,every=3", "reset,every=5"],
    "garbage": ["garbage"],
    "refused": ["status:401"],
    "redirected": ["status:302,header=Location:https://u:pw@login.example/x"],
    "maintenance": ["status:503"],
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS.keys())
def test_the_key_is_in_no_output_whatever_happens(served: Served, faults: list[str]) -> None:
    served.believable()
    served.sim.faults.add(*faults)
    run = served.program(REAPER_RETRY__ATTEMPTS="2")
    for arguments in (("--once",), ("list", "--json")):
        ended = run(*arguments, "--only", "daytona", "--log-level", "debug")
        assert ended.code in (0, 3, 5)
        assert served.key not in ended.out + ended.err
        assert "u:pw" not in ended.out + ended.err
        assert "Traceback" not in ended.err


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_server_that_is_not_there_is_named_and_ends_with_5(tmp_path: Path, form: str) -> None:
    run = Program(tmp_path, {"DAYTONA_API_KEY": KEY, **NO_DAYTONA, "REAPER_RETRY__ATTEMPTS": "1"})
    ended = run("--once", "--only", "daytona", "--log-format", form, "--log-level", "debug")
    assert ended.code == 5
    assert "the connection to http://127.0.0.1:9/api failed: connection refused" in ended.out
    assert KEY not in ended.out + ended.err
    assert "Traceback" not in ended.err


def test_an_address_that_is_no_daytona_is_reported_with_its_usual_end(served: Served) -> None:
    run = served.program(DAYTONA_API_URL=served.sim.daytona_url.removesuffix("/api"))
    ended = run("--once", "--only", "daytona")
    assert ended.code == 5
    assert "is no JSON, but a web page; its URL ends in /api as a rule" in ended.out  # the dashboard's


def test_a_wrong_key_is_reported_once_with_what_would_be_right(served: Served) -> None:
    served.believable()
    ended = served.program(DAYTONA_API_KEY=KEY)("--once", "--only", "daytona")
    assert ended.code == 5
    assert (
        "refuses the API key (Invalid credentials): GET /sandbox was answered 401; "
        "it must be a valid key of the organisation" in ended.out
    )
    assert KEY not in ended.out + ended.err
    assert [call.status for call in served.traffic.calls] == [401]


def test_nothing_of_daytona_is_imported_where_no_organisation_is(served: Served, tmp_path: Path) -> None:
    modules = imported(Program(tmp_path, {"DOCKER_HOST": served.sim.docker_host}), "--once")
    assert "reaper.providers.docker.client" in modules
    configuration = {
        f"reaper.providers.daytona{module}" for module in ("", ".address", ".registration", ".settings", ".states")
    }
    assert {name for name in modules if "daytona" in name} <= configuration


def test_nothing_of_docker_nor_an_sdk_is_imported_for_an_organisation(served: Served) -> None:
    served.add("forgotten")
    modules = imported(served.program(), "--once", "--only", "daytona")
    assert served.left() == set()
    assert "reaper.providers.daytona.client" in modules
    sdks = ("aiodocker", "daytona", "daytona_api_client", "daytona_api_client_async", "socketio", "aiohttp.web")
    others = ("rich", "apscheduler", "reaper.providers.docker.client", "reaper.simulator")
    unneeded = (*sdks, *others)
    assert not {name for name in modules if name in unneeded or name.startswith(tuple(f"{u}." for u in unneeded))}


def test_the_simulator_prints_what_the_program_needs(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "reaper",
        "simulate",
        "--seed",
        "7",
        "--sandboxes",
        "60",
        "--odd",
        "0.1",
        "--rate",
        "40",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=Program(tmp_path).env) as simulator:
        try:
            assert simulator.stdout is not None
            lines = [simulator.stdout.readline() for _ in range(4)]
            exported = [shlex.split(line)[1].split("=", 1) for line in lines]
            run = Program(tmp_path, {**dict(exported), "REAPER_RETRY__JITTER": "0"})
            assert run("check", "--only", "daytona").code == 6
            ended = run("--once", "--json", "--only", "daytona")
            document = report(ended)
            found = {r["outcome"] for r in document["endpoints"][0]["resources"]} - {None}
            assert found == {"deleted"}
            assert document["exit_code"] == 0
            assert len(ended.outcomes()) > 20
            assert run("--once", "--only", "docker").code == 0
            assert run("check").code == 0
            simulator.send_signal(signal.SIGTERM)
            assert simulator.wait(60) == 0
        finally:
            simulator.kill()
