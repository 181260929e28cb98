"""A host that sleeps, or whose clock is set: what runs there has not become older meanwhile."""

from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from reaper.providers.memory import Held
from reaper.sweep.host_clock import MOST, HostClock
from reaper.sweep.sweep import Endpoint
from tests.sweep.lab import HOUR, MINUTE, NOW, Lab, running, stopped

pytestmark = pytest.mark.anyio
DAY = 24 * HOUR


class Laptop(Lab):
    """An endpoint on a host whose lid can be closed."""

    def __init__(self, state: Path, *things: Held) -> None:
        super().__init__(*things)
        self.state, self.boot = state, "boot-1"
        self.restart()

    def restart(self) -> None:
        """Another process, with the same state directory."""
        self.host_clock = HostClock(
            self.state, wall=lambda: self.clock().timestamp(), awake=anyio.current_time, boot=lambda: self.boot
        )

    def endpoint(self, *, act: bool = True) -> Endpoint:
        made = super().endpoint(act=act)
        return Endpoint(made.reader, made.retrier, clock=self.host_clock)

    def jump(self, by: timedelta) -> None:
        """The lid was closed for so long, or the clock is set."""
        self.clock.start += by

    async def warned(self, **options: bool) -> list[str]:
        (report,) = (await self.sweep(**options)).endpoints
        return [warning for warning in report.warnings if "host" in warning]


def trial(name: str, hours: float) -> Held:
    return Held(running(name, hours=hours))


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_a_trial_does_not_age_while_its_host_sleeps(tmp_path: Path, is_restarted: bool) -> None:
    laptop = Laptop(tmp_path, trial("new", 5), trial("old", 23))
    assert await laptop.outcomes() == {}
    laptop.jump(20 * HOUR)
    if is_restarted:
        laptop.restart()
    (warning,) = await laptop.warned()
    assert warning == "this host slept, or its clock was set forward, for 20 h since the last sweep: no age counts that"
    assert await laptop.warned() == []
    assert laptop.left() == {"new", "old"}
    await anyio.sleep(HOUR / timedelta(seconds=1))
    assert await laptop.outcomes() == {"old": "deleted"}
    laptop.world.add(running("later", hours=0, created_at=laptop.clock(), started_at=laptop.clock()))
    await anyio.sleep(19 * HOUR / timedelta(seconds=1))
    assert await laptop.outcomes() == {"new": "deleted"}
    await anyio.sleep(5 * HOUR / timedelta(seconds=1))
    assert await laptop.outcomes() == {"later": "deleted"}, "it was made after the sleep"


async def test_what_has_stopped_is_no_longer_stopped_for_a_sleep(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path, Held(stopped("ended", hours=0.5)))
    assert await laptop.outcomes() == {}
    laptop.jump(20 * HOUR)
    assert await laptop.outcomes() == {}
    await anyio.sleep(HOUR / 2 / timedelta(seconds=1))
    assert await laptop.outcomes() == {"ended": "deleted"}


async def test_a_clock_that_was_set_forward_by_mistake_and_back_changes_no_age(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path, trial("trial", 5))
    for by in (3 * DAY, -3 * DAY):
        assert await laptop.outcomes() == {}
        laptop.jump(by)
    assert await laptop.warned() == ["this host had its clock set back by 3 d since the last sweep: no age counts that"]
    await anyio.sleep(19 * HOUR / timedelta(seconds=1))
    assert await laptop.outcomes() == {"trial": "deleted"}


async def test_clocks_that_are_adjusted_and_restarts_of_the_host_are_no_sleep(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path, trial("trial", 23))
    for _ in range(59):
        assert await laptop.warned() == []
        laptop.jump(MINUTE)
    laptop.boot = "boot-2"
    laptop.jump(MINUTE)
    assert await laptop.warned() == []
    assert laptop.left() == set()


async def test_a_laptop_that_sleeps_all_the_time_remembers_its_last_sleeps(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path, trial("trial", 5))
    for _ in range(MOST + 20):
        await laptop.sweep()
        laptop.jump(HOUR)
    assert laptop.host_clock.look([], learn=True) == laptop.host_clock.look([], learn=True)
    assert len(laptop.host_clock.look([], learn=True)) == MOST
    assert laptop.left() == {"trial"}


async def test_what_only_looks_remembers_no_sleep(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path, trial("trial", 5))
    await laptop.sweep()
    laptop.jump(20 * HOUR)
    before = laptop.host_clock.file.read_bytes()
    for _ in range(2):
        assert len(await laptop.warned(act=False)) == 1
    assert laptop.host_clock.file.read_bytes() == before
    assert len(await laptop.warned()) == 1
    assert await laptop.warned() == []


DAMAGED = (
    b"",
    b"\x80",
    b'{"version": 1, "boot": 7}',
    b'{"version": 1, "boot": "boot-1", "ahead": "x", "jumps": []}',
    b'{"version": 1, "boot": "boot-1", "ahead": 0.0, "jumps": [[1e99, 1]]}',
    b'{"version": 1, "boot": "boot-1", "ahead": 0.0, "jumps": [7]}',
)


@pytest.mark.parametrize("content", DAMAGED)
async def test_a_memory_that_cannot_be_used_is_none(tmp_path: Path, content: bytes) -> None:
    laptop = Laptop(tmp_path, trial("trial", 25))
    laptop.host_clock.file.write_bytes(content)
    assert await laptop.outcomes() == {"trial": "deleted"}


async def test_a_disk_that_is_full_forgets_no_sleep_within_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    laptop = Laptop(tmp_path, trial("trial", 5))
    await laptop.sweep()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("reaper.files.write_text", full)
    laptop.jump(20 * HOUR)
    warnings = await laptop.warned()
    assert "cannot be remembered" in warnings[1]
    assert await laptop.outcomes() == {}
    assert laptop.clock() > NOW + 20 * HOUR
