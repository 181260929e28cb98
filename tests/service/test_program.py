"""The service as a process, over a simulated engine and organisation."""

import json
import os
import pty
import signal
import socket
import threading
from pathlib import Path

from tests.daytona.lab import HOUR
from tests.daytona.server import Served
from tests.service.daemon import LIMIT, QUICK, SELDOM, Daemon


def test_it_sweeps_at_its_start_tells_and_ends_in_order(served: Served) -> None:
    served.add("leftover")
    served.add("living", age=HOUR)
    with Daemon(served.program(), SELDOM).start() as daemon:
        daemon.wait("deleted", name="leftover")
        daemon.wait("sweep_finished", times=2)
        assert served.left() == {"living"}
        assert daemon.get("/healthz")[0] == 200
        assert daemon.get("/readyz")[0] == 200
        assert "Traceback" not in daemon.get("/")[1]
        assert daemon.metric("reaper_deletions_total", outcome="deleted", policy="quick", endpoint="default") == 1
        assert daemon.metric("reaper_sweeps_total", result="success") == 2
        assert daemon.metric("reaper_endpoint_up") == 2
        assert daemon.stop() == 0
        assert [line["event"] for line in daemon.lines][-1] == "service_ended"
        assert daemon.other == []


def test_it_sweeps_again_and_again_by_itself(served: Served) -> None:
    with Daemon(served.program(), service="sweep_at_start = false").start() as daemon:
        daemon.wait("sweep_finished", times=2)
        served.add("later")
        daemon.wait("deleted", name="later")
        assert daemon.stop() == 0


def test_a_signal_sweeps_now(served: Served) -> None:
    with Daemon(served.program(), SELDOM, "sweep_at_start = false").start() as daemon:
        daemon.wait("service_started")
        served.add("leftover")
        daemon.signal(signal.SIGUSR1)
        daemon.wait("deleted", name="leftover")
        assert daemon.stop() == 0


def test_a_signal_that_means_nothing_is_logged_and_ends_nothing(served: Served) -> None:
    with Daemon(served.program(), SELDOM).start() as daemon:
        daemon.wait("service_started")
        daemon.signal(signal.SIGUSR2)
        assert daemon.wait("signal_ignored")["signal"] == "SIGUSR2"
        assert daemon.stop() == 0


def test_a_reload_takes_effect_and_a_broken_file_changes_nothing(served: Served) -> None:
    served.add("middling", age=3 * HOUR)
    with Daemon(served.program()).start() as daemon:
        daemon.wait("sweep_finished", times=4)
        assert served.left() == {"middling"}
        daemon.configure(QUICK.replace("6h", "six hours"))
        daemon.signal(signal.SIGHUP)
        refused = daemon.wait("reload_refused")
        assert "six hours" in refused["problem"]
        assert daemon.metric("reaper_config_last_reload_successful") == 0
        assert "six hours" in daemon.get("/")[1]
        before = len(list(daemon.events("sweep_finished")))
        daemon.wait("sweep_finished", times=before + 2)  # the old one goes on
        assert served.left() == {"middling"}
        daemon.configure(QUICK.replace("6h", "2h"))
        daemon.signal(signal.SIGHUP)
        daemon.wait("deleted", name="middling")
        assert daemon.metric("reaper_config_last_reload_successful") == 1
        assert daemon.stop() == 0


def test_an_endpoint_that_fails_hinders_no_other_and_recovers(served: Served) -> None:
    with Daemon(served.program()).start() as daemon:
        daemon.wait("sweep_finished", times=4)
        served.sim.faults.add("status:500,path=/sandbox")
        daemon.wait("endpoint_failed", endpoint="default")
        healthy = daemon.metric("reaper_sweeps_total", endpoint="local", result="success")
        daemon.until(
            lambda: daemon.metric("reaper_sweeps_total", endpoint="local", result="success") >= healthy + 3, "other sweeps"
        )
        assert daemon.metric("reaper_endpoint_up", endpoint="default") == 0
        assert daemon.metric("reaper_endpoint_up", endpoint="local") == 1
        assert daemon.metric("reaper_sweeps_total", endpoint="default", result="unlisted") == 1  # it rests
        assert daemon.get("/readyz")[0] == 200
        assert "the server answered 500" in daemon.get("/")[1]
        served.sim.faults.clear()
        served.add("leftover")
        daemon.signal(signal.SIGUSR1)
        daemon.wait("deleted", name="leftover")
        assert daemon.stop() == 0


def test_a_drain_ends_what_takes_longer_and_reports_it(served: Served) -> None:
    for number in range(40):
        served.add(f"s{number:02}")
    served.sim.faults.add("latency:5s,method=DELETE")
    with served.first_deletion(), Daemon(served.program(), SELDOM, 'drain_timeout = "1s"').start() as daemon:
        daemon.until(lambda: served.traffic.count("GET", "/sandbox/"), "re-check")
        daemon.wait("service_started")
        assert daemon.stop() == 0
        assert [line["event"] for line in daemon.lines][-1] == "service_ended"
        assert served.left()  # it did not wait for all of them


def test_a_second_signal_ends_it_at_once(served: Served) -> None:
    served.add("leftover")
    served.sim.faults.add("hang,method=DELETE")
    with Daemon(served.program(), SELDOM, 'drain_timeout = "1h"').start() as daemon:
        daemon.wait("service_started")
        daemon.until(lambda: served.sim.faults.rules()[0][2], "deletion that hangs")
        daemon.signal(signal.SIGTERM)
        daemon.wait("service_draining")
        threading.Event().wait(1.2)  # what comes within a second is the same signal twice
        daemon.signal(signal.SIGTERM)
        assert daemon.ended() == 143


def test_a_port_that_is_taken_is_reported_with_its_key(served: Served) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        daemon = Daemon(served.program(), SELDOM)
        daemon.port = taken.getsockname()[1]
        daemon.configure(SELDOM)
        with daemon.start():
            assert daemon.ended() == 2
            told = "".join(daemon.other)
        assert "[service] listen" in told
        assert str(daemon.port) in told


def test_a_broken_file_at_the_start_ends_it_before_anything_happens(served: Served) -> None:
    with Daemon(served.program(), QUICK.replace("6h", "six")).start() as daemon:
        assert daemon.ended() == 2
        assert "six" in "".join(daemon.other)
    assert not served.traffic.calls


def test_it_is_not_started_by_accident_on_a_terminal(served: Served) -> None:
    program = served.program(NO_COLOR="1")  # argparse's own colours, since Python 3.14
    master, slave = pty.openpty()
    process = program.start_at(slave)
    os.close(slave)
    try:
        assert process.wait(LIMIT) == 2
        assert "usage: reaper" in os.read(master, 65536).decode()
    finally:
        os.close(master)
    assert not served.traffic.calls


def test_systemd_is_reported_what_happens(served: Served, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(LIMIT)
        told: list[str] = []

        def until(state: str) -> None:
            while not any(each.startswith(state) for each in told):
                told.append(systemd.recv(4096).decode())

        env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
        with Daemon(served.program(), SELDOM).start(**env) as daemon:
            until("READY=1")
            until("WATCHDOG=1")
            until("STATUS=swept")
            told.clear()
            daemon.signal(signal.SIGHUP)
            until("RELOADING=1")
            until("READY=1")
            daemon.signal(signal.SIGTERM)
            until("STOPPING=1")
            assert daemon.ended() == 0


def test_the_health_check_tells_its_reasons(served: Served) -> None:
    with Daemon(served.program(), SELDOM).start() as daemon:
        daemon.wait("sweep_finished", times=2)
        document = json.loads(daemon.get("/readyz")[1])
        assert document["status"] == "ok"
        assert {check["name"] for check in document["checks"]} >= {"configuration", "endpoints"}
        assert daemon.stop() == 0
