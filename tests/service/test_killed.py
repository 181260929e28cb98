"""The service is killed, held up or doubled: the work is finished all the same, and the journal tells the truth."""

import signal
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from reaper.simulator.world import ContainerSpec
from tests.daytona.server import Served
from tests.service.daemon import QUICK, SELDOM, Daemon, acts

EVERY = timedelta(seconds=3)


def test_what_a_killed_service_left_is_finished_and_the_journal_tells_what_became_of_it(served: Served) -> None:
    names = {served.add(f"s{number:02}"): f"s{number:02}" for number in range(12)}
    # Three go; of three more the answer never comes; and nothing that follows reaches the server.
    served.sim.faults.add("hang,method=DELETE,after,skip=3,times=3", "hang,method=DELETE,skip=3")
    program = served.program()
    with Daemon(program, SELDOM, "docker_events = false").start() as daemon:
        daemon.until(lambda: [struck for _, _, struck in served.sim.faults.rules()] == [3, 6], "deletions that hang")
        before = acts(program)
        assert {row["resource"] for row in before} == set(names)
        assert {row["outcome"] for row in before} == {"pending"}
        daemon.signal(signal.SIGKILL)
        assert daemon.ended() == -signal.SIGKILL
        killed = daemon.process.pid
    served.sim.faults.clear()
    history = program("history", "--json", "--limit", "none").document
    assert {(act["outcome"], act["detail"]) for act in history["acts"]} == {
        (
            "pending",
            f"the process that was deleting it (pid {killed}) died; the next sweep of the endpoint shows what became of it",
        )
    }
    daemon = Daemon(program, SELDOM)
    with daemon.start():
        daemon.wait("sweep_finished", endpoint="default")
        assert served.left() == set()
        assert daemon.stop() == 0
    outcomes: dict[str, list[str]] = {ident: [] for ident in names}
    for row in acts(program):
        outcomes[row["resource"]].append(row["outcome"])
    assert Counter(map(tuple, outcomes.values())) == {("gone",): 6, ("abandoned", "deleted"): 6}
    assert f"(pid {killed}) died" in acts(program, outcome="gone")[0]["detail"]
    assert f"(pid {killed}) died; it was still there" in acts(program, outcome="abandoned")[0]["detail"]


def test_a_service_that_was_stopped_for_longer_than_an_interval_sweeps_once_and_not_many_times(served: Served) -> None:
    policies = QUICK.replace('every = "1s"', f'every = "{EVERY.total_seconds():g}s"')
    with Daemon(served.program(), policies, "sweep_at_start = false").start() as daemon:

        def sweeps() -> list[datetime]:
            return [
                datetime.fromisoformat(line["timestamp"]) for line in daemon.events("sweep_finished", endpoint="default")
            ]

        first = daemon.until(sweeps, "first sweep")[0]
        daemon.signal(signal.SIGSTOP)
        # Two runs are missed, and the next one is most of an interval away.
        threading.Event().wait((first + 2.1 * EVERY - datetime.now(first.tzinfo)).total_seconds())
        continued = datetime.now(first.tzinfo)
        daemon.signal(signal.SIGCONT)
        _, late, next_one = daemon.until(lambda: sweeps() if len(sweeps()) >= 3 else [], "two more sweeps")
        assert late - continued < EVERY
        assert next_one - late > EVERY / 4
        assert daemon.get("/healthz")[0] == 200
        assert daemon.stop() == 0


def test_two_services_and_a_one_shot_on_one_state_directory_do_each_other_no_harm(tmp_path: Path) -> None:
    with Served(tmp_path, containers=[_exited(number) for number in range(30)]) as served:
        _sweep_three_times_at_once(served)


def _exited(number: int) -> ContainerSpec:
    long_ago = datetime.now(UTC) - timedelta(days=2)
    times: dict[str, Any] = {"created": long_ago, "started": long_ago, "finished": long_ago + timedelta(hours=1)}
    return ContainerSpec(name=f"c{number:02}", image="bench:1", labels={"terminal-bench": "yes"}, state="exited", **times)


def _sweep_three_times_at_once(served: Served) -> None:
    program = served.program()
    idents = [served.add(f"s{number:02}") for number in range(30)]
    idents += served.sim.do(lambda: list(served.sim.engine.containers))
    served.sim.faults.add("latency:100ms,method=DELETE")
    with Daemon(program, name="one").start() as one, Daemon(program, name="two").start() as two:
        one.until(lambda: served.traffic.count("DELETE", "/sandbox/"), "first deletion")
        once = program("--once", "--json")
        assert once.code == 0, once.err
        for daemon in (one, two):
            idents.append(served.add(f"later-{daemon.port}"))
            daemon.until(lambda: not served.left(), "empty organisation")
            swept = len(list(daemon.events("sweep_finished", endpoint="default")))
            daemon.wait("sweep_finished", endpoint="default", times=swept + 2)
        assert one.stop() == two.stop() == 0
        assert [*one.events("journal_degraded"), *two.events("journal_degraded")] == []
        assert one.other == two.other == []
    outcomes: dict[str, list[str]] = {ident: [] for ident in idents}
    for row in acts(program):
        outcomes[row["resource"]].append(row["outcome"])
    assert served.sim.do(lambda: len(served.sim.engine.containers)) == 0
    for each in outcomes.values():
        assert each.count("deleted") == 1
        assert set(each) <= {"deleted", "gone", "skipped"}  # skipped: another one's deletion was seen under way
