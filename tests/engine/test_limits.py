"""A dry run, and a signal in the middle of a sweep, on a real engine."""

import signal

import pytest

from devkit.engine import PrivateEngine
from devkit.faults import FaultProxy
from tests.engine.lab import OWNED, WAITS, containers, exited, member_of, reached, started
from tests.run import Program

pytestmark = pytest.mark.engine


def test_a_dry_run_changes_nothing(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    exited(engine, "exited")
    engine.create("member", labels=member_of("trial", OWNED), cmd=WAITS, start=True)
    engine.create_network("trial_default", member_of("trial"))
    engine.create("unowned", labels={}, cmd=WAITS, start=True)
    ended = proxied("--once", "--all", "--dry-run", "--json")
    assert ended.code == 0, ended.err
    assert ended.document["dry_run"] is True
    assert ended.outcomes() == dict.fromkeys(("exited", "member", "trial_default"), "would_delete")
    assert {call.method for call in proxy.log} == {"GET"}
    assert containers(engine) == {"exited", "member", "unowned"}
    assert len(engine.ids(all=False)) == 2
    assert engine.networks() == ["trial_default"]
    for command in (["list"], ["check"], ["explain", "exited"]):
        proxied(*command)
    assert {call.method for call in proxy.log} == {"GET"}


def test_a_signal_while_containers_are_stopped(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    """A container that we have stopped is deleted too: it would be left in no state that anybody wanted."""
    engine.create("running", labels=OWNED, cmd=WAITS, start=True)
    gate = proxy.hold("POST", "/stop", after=True)
    with started(proxied, "--once", "--all", "--json") as process:
        reached(gate, process)
        process.send_signal(signal.SIGTERM)
        gate.release()
        ended = proxied.finish(process)
    assert ended.code == 143, ended.err
    assert ended.outcomes() == {"running": "deleted"}
    assert containers(engine) == set()
