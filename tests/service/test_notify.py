"""Notifications to systemd, over a real socket."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from reaper.service.systemd import Notifier


@pytest.fixture(params=["file", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket as systemd has one, and its address as systemd writes it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        name = f"reaper-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
        receiver.bind(f"\0{name}" if request.param == "abstract" else name)
        receiver.settimeout(60)
        yield receiver, f"@{name}" if request.param == "abstract" else name


def test_each_state_is_one_datagram(systemd: tuple[socket.socket, str]) -> None:
    receiver, address = systemd
    env = {"NOTIFY_SOCKET": address, "HOME": "/"}
    notifier = Notifier(env)
    assert env == {"HOME": "/"}
    notifier.ready()
    notifier.reloading()
    notifier.alive()
    notifier.status("swept local:\n 3 deleted")
    notifier.stopping()
    told = [receiver.recv(4096).decode() for _ in range(5)]
    assert told[0] == "READY=1"
    first, second = told[1].split("\n")
    assert first == "RELOADING=1"
    assert int(second.removeprefix("MONOTONIC_USEC=")) > 0
    assert told[2:] == ["WATCHDOG=1", "STATUS=swept local: 3 deleted", "STOPPING=1"]


def test_a_missing_listener_is_no_error(tmp_path: Path) -> None:
    Notifier({}).ready()
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()


@pytest.mark.parametrize(
    ("env", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_for_this_process_only(env: dict[str, str], seconds: float | None) -> None:
    assert Notifier(env).watchdog == seconds
