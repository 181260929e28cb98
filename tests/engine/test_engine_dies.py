"""The engine is killed in mid-sweep: a true report, and the next sweep finishes the work."""

import pytest

from devkit.engine import PrivateEngine
from devkit.faults import FaultProxy
from tests.engine.lab import OWNED, WAITS, containers, exited, in_parallel, reached, started
from tests.run import Program

pytestmark = pytest.mark.engine

SHORT = {"REAPER_RETRY__ATTEMPTS": "2", "REAPER_RETRY__TOTAL": "5s"}


def test_among_deletions(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    ids = in_parallel(lambda number: exited(engine, f"exited-{number}"), 12)
    names = {f"exited-{number}" for number in range(12)}
    gate = proxy.hold("DELETE", "|".join(ids[:6]), times=6)  # the newest are listed and deleted first
    with started(proxied, "--once", "--stopped", "--json", env=SHORT) as process:
        reached(gate, process)
        engine.kill()
        gate.release()
        ended = proxied.finish(process)
    # It could be listed at first. Whether it is found to be away at the end depends on how many calls are made then.
    assert ended.code in (3, 5), ended.err
    assert bool(ended.document["endpoints"][0]["failure"]) == (ended.code == 5)
    assert set(ended.outcomes()) == names
    assert set(ended.outcomes().values()) == {"failed"}, "nothing could be confirmed"
    engine.restart()
    left = containers(engine)
    assert {f"exited-{number}" for number in range(6)} <= left
    proxy.clear()
    ended = proxied("--once", "--stopped", "--json")
    assert ended.code == 0, ended.err
    assert ended.outcomes() == dict.fromkeys(left, "deleted")
    assert containers(engine) == set()


def test_it_comes_back_before_the_retries_are_over(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    ids = in_parallel(lambda number: exited(engine, f"exited-{number}"), 12)
    gate = proxy.hold("DELETE", ids[0])
    with started(proxied, "--once", "--stopped", "--json", env={"REAPER_RETRY__ATTEMPTS": "100"}) as process:
        reached(gate, process)
        engine.kill()
        gate.release()
        engine.restart()
        ended = proxied.finish(process)
    assert ended.code == 0, ended.err
    assert set(ended.outcomes().values()) <= {"deleted", "gone"}
    assert len(ended.outcomes()) == 12
    assert containers(engine) == set()


def test_among_stops(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    """With all its containers, as when the host loses power: they have exited when it is back, and are young."""
    in_parallel(lambda n: engine.create(f"running-{n}", labels=OWNED, cmd=WAITS, start=True), 4)
    engine.create("unowned", labels={}, cmd=WAITS, start=True)
    gate = proxy.hold("POST", "/stop", times=4)
    with started(proxied, "--once", "--all", "--json", env=SHORT) as process:
        reached(gate, process)
        engine.kill(containers=True)
        gate.release()
        ended = proxied.finish(process)
    assert ended.code in (3, 5), ended.err
    assert ended.outcomes() == {f"running-{n}": "failed" for n in range(4)}
    engine.restart()
    assert len(containers(engine)) == 5, "nothing reported as deleted, nothing deleted"
    proxy.clear()
    ended = proxied("--once", "--all", "--json")
    assert ended.code == 0, ended.err
    assert containers(engine) == {"unowned"}
