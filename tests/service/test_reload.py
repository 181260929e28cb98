"""Reloads under load: no leftover is missed, and endpoints come, go and change while they are swept."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from reaper.simulator.faults import Fault
from tests.daytona.server import Served
from tests.run import Program
from tests.service.daemon import QUICK, SELDOM, Daemon, acts

NAMES = ("rl-one", "rl-two", "rl-three")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path, *NAMES) as served:
        yield served


@pytest.fixture
def program(served: Served) -> Program:
    """With the keys of all organisations."""
    return served.program(**{_variable(name): served.sim.api_key(name) for name in NAMES})


def _variable(name: str) -> str:
    return f"KEY_OF_{name[3:].upper()}"


def tables(served: Served, *names: str, policies: str = QUICK, **more: str) -> str:
    """A configuration with these organisations. ``more``: a further line of one's table, by the end of its name."""
    found = [
        f'[[daytona]]\nname = "{name}"\napi_url = "{served.sim.daytona_url}"\napi_key_env = "{_variable(name)}"\n'
        + more.get(name[3:], "")
        for name in names
    ]
    return policies + "\n".join(found)


@contextmanager
def leftovers(served: Served, org: str) -> Iterator[list[str]]:
    """While the block runs, one after the other is left behind there; their ids."""
    made: list[str] = []
    enough = threading.Event()

    def make() -> None:
        while not enough.wait(0.02):  # the pace of the load
            made.append(served.add(f"leftover-{len(made):04}", org=org))

    thread = threading.Thread(target=make)
    thread.start()
    try:
        yield made
    finally:
        enough.set()
        thread.join()


def test_reloads_under_load_lose_nothing(served: Served, program: Program) -> None:
    good = tables(served, "rl-one", "rl-two")
    changed = tables(served, "rl-one", "rl-two", one="page_size = 20\n")
    with Daemon(program, good).start() as daemon:
        with leftovers(served, "rl-one") as one, leftovers(served, "rl-two") as two:
            daemon.wait("service_started")
            for turn in range(1, 4):
                for number, text in enumerate((good, good.replace("6h", "six hours"), changed), 1):
                    daemon.configure(text)
                    daemon.signal(signal.SIGHUP)
                    if number == 2:
                        daemon.wait("reload_refused", times=turn)
                    else:
                        daemon.wait("reloaded", times=2 * turn - (number == 1))
                    before = len(list(daemon.events("deleted")))
                    daemon.wait("deleted", times=before + 1)
        daemon.until(lambda: not served.left("rl-one") | served.left("rl-two"), "end of the leftovers")
        assert daemon.stop() == 0
        assert list(daemon.events("internal_error")) == []
        assert daemon.other == []
    outcomes: dict[str, set[str]] = {ident: set() for ident in (*one, *two)}
    for row in acts(program):
        outcomes[row["resource"]].add(row["outcome"])
    assert all(outcome & {"deleted", "gone"} for outcome in outcomes.values())


def test_an_endpoint_that_was_added_is_swept_and_one_that_was_removed_is_not_any_more(
    served: Served, program: Program
) -> None:
    with Daemon(program, tables(served, "rl-one", "rl-two")).start() as daemon:
        daemon.wait("sweep_finished", endpoint="rl-two")
        daemon.configure(tables(served, "rl-one", "rl-three"))
        daemon.signal(signal.SIGHUP)
        daemon.wait("reloaded")
        served.add("removed", org="rl-two")
        served.add("added", org="rl-three")
        daemon.wait("deleted", endpoint="rl-three", name="added")
        swept = len(list(daemon.events("sweep_finished", endpoint="rl-one")))
        daemon.wait("sweep_finished", endpoint="rl-one", times=swept + 2)
        assert served.left("rl-two") == {"removed"}
        assert 'endpoint="rl-two"' not in daemon.get("/metrics")[1]
        assert "rl-two" not in daemon.get("/")[1]
        assert daemon.metric("reaper_endpoint_up", endpoint="rl-three") == 1
        assert daemon.metric("reaper_policy_interval_seconds", endpoint="rl-three", policy="quick") == 1
        daemon.configure(tables(served, "rl-one", policies=SELDOM))
        daemon.signal(signal.SIGHUP)
        daemon.wait("reloaded", times=2)
        assert daemon.metric("reaper_policy_interval_seconds", policy="quick") == 3600
        assert daemon.stop() == 0


def test_a_changed_endpoint_gets_a_new_client_when_its_sweep_under_way_has_ended(served: Served, program: Program) -> None:
    for number in range(3):
        served.add(f"s{number}", org="rl-one")
    served.sim.faults.add("hang,method=DELETE,times=1")
    with Daemon(program, tables(served, "rl-one")).start() as daemon:
        daemon.until(lambda: served.sim.faults.rules()[0][2], "deletion under way")
        daemon.configure(tables(served, "rl-one").replace(_variable("rl-one"), _variable("rl-two")))
        daemon.signal(signal.SIGHUP)
        daemon.wait("reloaded")
        assert list(daemon.events("sweep_finished", endpoint="rl-one")) == []
        served.sim.do(served.sim.faults.release)
        finished = daemon.wait("sweep_finished", endpoint="rl-one")
        assert (finished["result"], finished["deleted"]) == ("success", 3)
        served.add("later", org="rl-two")  # which the key of the new client is for
        daemon.wait("deleted", endpoint="rl-one", name="later")
        deletions = partial(daemon.metric, "reaper_deletions_total", endpoint="rl-one", outcome="deleted")
        daemon.until(lambda: deletions() == 4, "confirmed deletion")  # the line comes when it is accepted
        assert daemon.stop() == 0


def test_an_endpoint_that_leaves_in_the_middle_of_its_sweep_is_swept_to_the_end(served: Served, program: Program) -> None:
    served.add("leftover", org="rl-two")
    served.sim.faults.add(Fault(kind="latency", method="DELETE", seconds=2))
    with Daemon(program, tables(served, "rl-one", "rl-two")).start() as daemon:
        daemon.until(lambda: served.sim.faults.rules()[0][2], "deletion under way")
        daemon.configure(tables(served, "rl-one"))
        daemon.signal(signal.SIGHUP)
        daemon.wait("reloaded")
        assert daemon.stop() == 0  # it is waited for, too
        assert [line["deleted"] for line in daemon.events("sweep_finished", endpoint="rl-two")][-1] == 1
    assert served.left("rl-two") == set()


def test_an_endpoint_that_comes_back_waits_for_its_sweep_that_is_still_under_way(served: Served, program: Program) -> None:
    served.add("leftover", org="rl-two")
    served.sim.faults.add("hang,method=DELETE,times=1")
    with Daemon(program, tables(served, "rl-one", "rl-two")).start() as daemon:
        daemon.until(lambda: served.sim.faults.rules()[0][2], "deletion under way")
        for turn, names in enumerate((("rl-one",), ("rl-one", "rl-two")), 1):
            daemon.configure(tables(served, *names))
            daemon.signal(signal.SIGHUP)
            daemon.wait("reloaded", times=turn)
        swept = len(list(daemon.events("sweep_finished", endpoint="rl-one")))
        daemon.wait("sweep_finished", endpoint="rl-one", times=swept + 2)
        assert list(daemon.events("sweep_finished", endpoint="rl-two")) == []
        served.sim.do(served.sim.faults.release)
        daemon.wait("sweep_finished", endpoint="rl-two", times=2)
        assert daemon.stop() == 0
    assert [row["outcome"] for row in acts(program)] == ["deleted"]


def test_events_are_followed_and_left_alone_as_a_reload_says(served: Served, program: Program) -> None:
    with Daemon(program, SELDOM).start() as daemon:
        daemon.wait("event_stream_connected", endpoint="local")
        daemon.configure(SELDOM, "docker_events = false")
        daemon.signal(signal.SIGHUP)
        daemon.wait("reloaded")
        daemon.until(lambda: not served.sim.engine.events.listeners, "end of the stream")
        assert "reaper_events_connected{" not in daemon.get("/metrics")[1]
        daemon.configure(SELDOM)
        daemon.signal(signal.SIGHUP)
        daemon.wait("event_stream_connected", endpoint="local", times=2)
        assert daemon.metric("reaper_events_connected", endpoint="local") == 1
        assert list(daemon.events("events_lost")) == []
        assert daemon.stop() == 0


def test_a_reload_does_not_begin_anything_while_the_service_drains(served: Served, program: Program) -> None:
    served.add("leftover", org="rl-one")
    served.add("other", org="rl-two")
    served.sim.faults.add(Fault(kind="latency", method="DELETE", seconds=2))
    with Daemon(program, tables(served, "rl-one", policies=SELDOM)).start() as daemon:
        daemon.until(lambda: served.sim.faults.rules()[0][2], "deletion under way")
        daemon.signal(signal.SIGTERM)
        daemon.wait("service_draining")
        daemon.configure(tables(served, "rl-one", "rl-two"))  # on another schedule
        daemon.signal(signal.SIGHUP)
        assert daemon.ended() == 0
        assert [line["event"] for line in daemon.lines][-1] == "service_ended"
        assert list(daemon.events("reloaded")) == []
        assert daemon.other == []
    assert (served.left("rl-one"), served.left("rl-two")) == (set(), {"other"})


def test_the_service_saves_evidence_and_says_that_a_change_of_it_waits_for_the_next_start(
    served: Served, program: Program
) -> None:
    served.add("it", org="rl-one")
    wanted = tables(served, "rl-one") + "\n[evidence]\ninspect = true\n"
    with Daemon(program, wanted).start() as daemon:
        daemon.wait("deleted", name="it")
        daemon.until(lambda: daemon.metric("reaper_evidence_total", endpoint="rl-one", result="saved") == 1, "count")
        daemon.until(lambda: "reaper history --show" in daemon.get("/")[1], "the page says so when the sweep has ended")
        daemon.configure(tables(served, "rl-one"))
        daemon.signal(signal.SIGHUP)
        assert "[evidence]" in str(daemon.wait("reload_incomplete")["problem"])
        assert daemon.stop() == 0
    assert "state: started" in program("history", "--show", "it").out
