"""The orders of a guard, and what becomes of unreadable ones."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import reaper
from reaper.config.settings import Settings
from reaper.core.lease import Claim
from reaper.core.scope import Scope, Selector
from reaper.leases.database import create
from reaper.leases.record import Holder, LeaseRecord, Liveness
from reaper.leases.sources import NAME
from reaper.leases.store import LeaseFile
from reaper.providers.daytona.registration import REGISTRATION as DAYTONA
from reaper.providers.daytona.settings import DaytonaTable
from reaper.providers.docker.registration import REGISTRATION as DOCKER
from reaper.providers.docker.settings import DockerTable
from reaper.providers.registration import EndpointSpec
from reaper.retry.retrier import RetryPolicy
from reaper.run.guard import LOG
from reaper.run.orders import VERSION, Orders, OrdersError
from reaper.sweep.plan import Plan
from reaper.sweep.sweep import Options
from tests.running.lab import until

NOW = datetime(2026, 11, 28, 12, 0, 1, 5, tzinfo=UTC)


@pytest.fixture
def orders(tmp_path: Path) -> Orders:
    engine = DockerTable(name="gpu", host="tcp://gpu:2376", tls_ca="/ca", tls_cert="/cert", tls_key="/key", removals=3)
    organisation = DaytonaTable(name="org", api_url="https://x/api", target="us", confirm_within=timedelta(seconds=7))
    protected = {"labels": ["team=rl"], "names": ["db-*"], "restart_policies": []}
    evidence = {"logs": 200, "inspect": True, "keep_for": "90m", "max_size": "20MB"}
    settings = Settings.model_validate({"protect": protected, "evidence": evidence})
    plan = Plan(
        endpoints=(EndpointSpec(DOCKER, engine), EndpointSpec(DAYTONA, organisation, "dtn_secret")),
        rules=replace(settings.rules(), scope=Scope(presets=()), policies=(), stop_timeout=timedelta(seconds=2.5)),
        options=Options(max_lease_deletions=9),
        retry=RetryPolicy(attempts=2, initial_delay=timedelta(milliseconds=20)),
        state=tmp_path,
        journal=settings.journal,
        evidence=settings.evidence,
        timeout=timedelta(minutes=3),
    )
    record = LeaseRecord(
        id="run-1",
        sort=Liveness.PROCESS,
        holder=Holder("gpu-1", 47, "123", "harbor", "root", 0),
        since=NOW - timedelta(hours=5),
        seen_at=NOW,
        claims=(Claim(Selector(("a=b",), ("n-*",), ("i:*",)), ("p-*",)),),
        resources=frozenset({"x", "y"}),
        token=17,
        machine="machine-1",
        boot="boot-1",
        endpoints=frozenset({"engine-1", "org-1"}),
    )
    return Orders(plan, record, tmp_path / "scratch")


def test_orders_are_read_as_they_were_written(orders: Orders) -> None:
    text = orders.dump()
    assert json.loads(text)["version"] == VERSION
    assert Orders.load(text) == orders


def test_every_field_of_a_living_lease_is_in_the_orders(orders: Orders) -> None:
    of_the_row = {"clock"}  # by which the end of an ended one is dated
    wanted = {*LeaseRecord.__dataclass_fields__, *Holder.__dataclass_fields__, *of_the_row} - {"holder"}
    assert json.loads(orders.dump())["lease"].keys() == wanted


UNREADABLE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "another version": (lambda text: text.replace(b'"version": 3', b'"version": 1'), "version 1"),
    "no JSON": (lambda text: b"\x80\x05" + text, "no JSON object"),
    "a list": (lambda text: b"[" + text + b"]", "no JSON object"),
    "a key is missing": (lambda text: text.replace(b'"boot"', b'"boat"'), "'boot' is missing"),
    "an unknown field": (lambda text: text.replace(b'"attempts"', b'"dtn_secret"'), "TypeError"),
    "an odd value": (lambda text: text.replace(b'"sort": "process"', b'"sort": "dtn_secret"'), "ValueError"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_orders_that_cannot_be_read_are_logged_plainly(orders: Orders, tmp_path: Path, name: str) -> None:
    change, said = UNREADABLE[name]
    text = change(orders.dump())
    with pytest.raises(OrdersError, match=said):
        Orders.load(text)
    code, log = guarded(tmp_path, text)
    assert code == 1
    line = json.loads(log)
    assert (line["event"], line["level"]) == ("guard_orders_unreadable", "error")
    assert said in line["problem"]
    assert "reaper --once" in line["hint"]
    assert "dtn_secret" not in log


def test_a_package_that_cannot_be_loaded_any_more_is_logged(orders: Orders, tmp_path: Path) -> None:
    broken = "import sys; sys.modules['reaper.run.cleanup'] = None; from reaper.run import guard; sys.exit(guard.main())"
    code, log = guarded(tmp_path, orders.dump(), "-c", broken)
    assert code == 1
    assert "the program cannot be loaded" in log
    assert "reaper --once" in log
    assert "Traceback" not in log


SLOWLY = """
import sys
from importlib.abc import MetaPathFinder

class Slow(MetaPathFinder):
    def find_spec(self, name, *rest):
        if name == "reaper.run.cleanup":
            print("loads", flush=True)
            open(sys.argv[2]).read()

sys.meta_path.insert(0, Slow())
from reaper.run import guard
sys.exit(guard.main())
"""


@pytest.mark.parametrize("said", [b"", b"1795867201.000005\n"], ids=["it is killed", "it is killed while it cleans up"])
def test_a_lease_ends_when_its_command_or_its_holder_does(orders: Orders, tmp_path: Path, said: bytes) -> None:
    """Not when the guard has been loaded, which takes seconds on a busy machine: its names may be others' by then."""
    create(tmp_path / NAME)
    go, text = tmp_path / "go", orders.dump()
    os.mkfifo(go)
    words = [sys.executable, "-P", "-c", SLOWLY, str(tmp_path / LOG), str(go)]
    env = {**os.environ, "STATE_DIRECTORY": str(tmp_path), "PYTHONPATH": str(Path(reaper.__file__).parents[1])}
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) as guard:
        assert guard.stdin is not None
        assert guard.stdout is not None
        guard.stdin.write(len(text).to_bytes(8, "big") + text + said)
        guard.stdin.close()
        assert guard.stdout.readline() == b"loads\n"
        loading = datetime.now(UTC)
        go.write_text("")
        file = LeaseFile(tmp_path / NAME)
        until(lambda: file.find(orders.record.id) is not None, "it does not end the lease")
        guard.kill()
    ended = file.find(orders.record.id)
    file.close()
    assert ended is not None
    assert ended.ended_at is not None
    assert ended.ended_at == NOW if said else orders.record.since < ended.ended_at <= loading


def guarded(folder: Path, text: bytes, *command: str) -> tuple[int, str]:
    """The exit code and the log of a guard with these orders, whose holder dies."""
    words = [sys.executable, *(command or ("-m", "reaper.run.guard")), str(folder / LOG)]
    fed = len(text).to_bytes(8, "big") + text
    ended = subprocess.run(words, input=fed, env={**os.environ, "STATE_DIRECTORY": str(folder)}, timeout=60, check=False)
    return ended.returncode, (folder / LOG).read_text()
