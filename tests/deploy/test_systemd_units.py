"""The systemd units as files: systemd-analyze has nothing to say against them, and they fit the program's settings."""

import re
import subprocess
from pathlib import Path

import pytest

from reaper import exits
from reaper.config.service_tables import ServiceTable
from reaper.core.durations import parse
from reaper.service.health import STALE
from reaper.sweep.plan import DEFAULT_TIMEOUT
from reaper.sweep.ports import DRAIN
from tests import needs

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
SERVICES = ("reaper.service", "reaper-once.service")
EXPOSURE = 2.0  # what the units may have at most; 10 is a service without any protection
BENCHMARK = "benchmark.service"


@pytest.fixture
def analyze() -> str:
    return needs.tool("systemd-analyze", "systemd")


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units in a folder of their own."""
    for unit in (*SERVICES, "reaper-once.timer", "benchmark.service.example"):
        (tmp_path / unit.removesuffix(".example")).write_text(here((UNITS / unit).read_text()))
    return tmp_path


def here(text: str) -> str:
    """A unit's text with a program of this machine in place of those that it starts, which are not installed here."""
    return re.sub(r"/opt/(reaper/bin/reaper|benchmark/run)|/bin/kill", needs.tool("true", "coreutils"), text)


def verify(analyze: str, *files: Path) -> tuple[int, str]:
    command = [analyze, "verify", "--man=no", *map(str, files)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False)
    return ended.returncode, ended.stdout


def settings(unit: str) -> list[tuple[str, str]]:
    """What a unit sets, in its order."""
    lines = [line for line in (UNITS / unit).read_text().splitlines() if line and line[0] not in "#["]
    return [(name, value) for name, _, value in (line.partition("=") for line in lines)]


def seconds(unit: str, name: str) -> float:
    (text,) = (value for key, value in settings(unit) if key == name)
    return parse(text.replace("min", "m")).total_seconds()


def test_nothing_is_wrong_with_the_units(analyze: str, units: Path) -> None:
    files = [units / unit for unit in (*SERVICES, "reaper-once.timer", BENCHMARK)]
    assert verify(analyze, *files) == (0, "")


@pytest.mark.parametrize(
    ("example", "unit"),
    [("credentials", "reaper.service"), ("credentials", "reaper-once.service"), ("textfile", "reaper-once.service")],
)
def test_nothing_is_wrong_with_the_drop_ins(analyze: str, units: Path, example: str, unit: str) -> None:
    """Nor with any of their lines that has to be uncommented."""
    folder = units / f"{unit}.d"
    folder.mkdir()
    text = here((UNITS / f"{example}.conf.example").read_text())
    (folder / f"{example}.conf").write_text(re.sub(r"^#(?=\w+=)", "", text, flags=re.MULTILINE))
    assert verify(analyze, units / unit) == (0, "")


def test_what_is_wrong_would_be_seen(analyze: str, units: Path) -> None:
    file = units / "reaper.service"
    file.write_text(file.read_text().replace("WatchdogSec=", "WatchDogSecs="))
    assert "Unknown key 'WatchDogSecs'" in verify(analyze, file)[1]


@pytest.mark.parametrize("unit", SERVICES)
def test_the_exposure_is_small(analyze: str, units: Path, unit: str) -> None:
    command = [analyze, "security", "--offline=true", "--no-pager", str(units / unit)]
    shown = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=True).stdout
    found = re.search(rf"Overall exposure level for {re.escape(unit)}: ([\d.]+)", shown)
    assert found is not None, shown
    assert float(found[1]) <= EXPOSURE, shown


def test_both_services_are_protected_alike() -> None:
    """From what they are on; nothing includes the other, so that each can be read and copied by itself."""
    service, once = (settings(unit) for unit in SERVICES)
    first = ("DynamicUser", "yes")
    assert once[once.index(first) :] == [pair for pair in service[service.index(first) :] if pair[0] != "WantedBy"]


def test_systemd_s_limits_lie_above_the_program_s() -> None:
    service = ServiceTable()
    assert seconds("reaper.service", "TimeoutStopSec") >= 2 * service.drain_timeout.total_seconds()
    assert seconds("reaper.service", "WatchdogSec") >= STALE.total_seconds()
    (command,) = (value for name, value in settings("reaper-once.service") if name == "ExecStart")
    given = re.search(r"--timeout (\S+)", command)
    assert given is not None
    assert parse(given[1]) == DEFAULT_TIMEOUT
    assert seconds("reaper-once.service", "TimeoutStartSec") > (DEFAULT_TIMEOUT + DRAIN).total_seconds()
    assert seconds("reaper-once.service", "TimeoutStopSec") >= 2 * DRAIN.total_seconds()


def test_the_exit_codes_are_those_of_the_program() -> None:
    assert ("RestartPreventExitStatus", str(exits.USAGE)) in settings("reaper.service")
    assert ("SuccessExitStatus", str(exits.OF_SIGNAL["SIGTERM"])) in settings("reaper-once.service")
