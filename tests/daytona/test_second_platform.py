"""Daytona's second platform: what an organisation has there is never called clean, and nothing there is touched."""

import asyncio
from pathlib import Path

import pytest

from reaper.providers.daytona import second_platform
from reaper.providers.daytona.registration import REGISTRATION
from reaper.providers.daytona.settings import DEFAULT_API_URL, DEFAULT_V2_API_URL, DaytonaTable
from tests.daytona.server import Served
from tests.service.daemon import SELDOM, Daemon


@pytest.fixture
def moved(tmp_path: Path) -> Served:
    served = Served(tmp_path)
    served.sim.daytona.second.add(served.first, "trial-7")
    return served


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (("check",), "the rest was swept, but"),
        (("--once",), "the rest was swept, but"),
        (("--once", "--dry-run"), "the rest was swept, but"),
        (("list",), "the rest was swept, but"),
        (("check", "--json"), '"partly_listed"'),
    ],
)
def test_an_organisation_with_sandboxes_there_is_not_clean(moved: Served, command: tuple[str, ...], text: str) -> None:
    with moved as served:
        result = served.program()(*command, "--only", "daytona")
        assert result.code == 5, result.out + result.err
        said = result.out + result.err  # what is no row goes to stderr where rows go to a pipe
        assert text in said
        assert "second platform" in said
        assert "trial-7 (running)" in said
        assert served.key not in said


def test_what_is_left_on_the_first_one_is_deleted_all_the_same(moved: Served) -> None:
    with moved as served:
        served.add("forgotten")
        result = served.program()("--once", "--only", "daytona")
        assert result.code == 5
        assert served.left() == set()
        assert len(served.sim.daytona.second.sandboxes[served.first]) == 1


@pytest.mark.parametrize("status", [None, "deleting", "deleted"])
def test_an_organisation_that_has_none_there_is_clean(tmp_path: Path, status: str | None) -> None:
    with Served(tmp_path, "default", "other") as served:
        served.sim.daytona.second.add("other", "theirs")
        if status is not None:
            served.sim.daytona.second.add(served.first, "mine", status)
        result = served.program()("check", "--only", "daytona")
        assert (result.code, "second platform" in result.out) == (0, False), result.out + result.err


def test_a_key_that_is_not_known_there_has_nothing_there(moved: Served) -> None:
    """Daytona synchronises the keys: one that it does not know has made nothing there."""
    with moved as served:
        served.sim.daytona.second.unknown.add(served.first)
        result = served.program()("check", "--only", "daytona")
        assert (result.code, result.err) == (0, ""), result.out
        assert "warning" not in result.out


@pytest.mark.parametrize("fault", ["status:503", "reset", "garbage", "hang", "status:404"])
def test_where_it_cannot_be_asked_that_is_said_and_the_sweep_counts(moved: Served, fault: str) -> None:
    with moved as served:
        served.sim.faults.add(f"{fault},path=^/v2/")
        result = served.program()("check", "--only", "daytona")
        assert result.code == 0, result.out + result.err
        assert "warning: whether it holds anything elsewhere is unknown: " in result.out
        assert served.key not in result.out + result.err


def test_it_can_be_told_that_they_are_meant_to_be_there(moved: Served) -> None:
    with moved as served:
        (served.folder / "reaper.toml").write_text('[[daytona]]\nname = "rl-org"\nv2_api_url = ""\n')
        result = served.program()("check", "--only", "daytona")
        assert result.code == 0, result.out + result.err
        assert served.traffic.count(route="/v2") == 0


def test_an_address_of_the_second_platform_is_named(moved: Served) -> None:
    with moved as served:
        result = served.program(DAYTONA_API_URL=served.sim.daytona_v2_url)("check", "--only", "daytona")
        assert result.code == 5
        assert (
            f"{served.sim.daytona_v2_url} is the API of Daytona's second platform, which reaper does not speak" in result.out
        )


def test_a_first_platform_that_is_gone_is_named(moved: Served) -> None:
    with moved as served:
        served.sim.faults.add("status:410,path=^/api/")
        result = served.program()("check", "--only", "daytona")
        assert result.code == 5
        assert "may have moved to Daytona's second platform" in result.out


def test_the_service_says_so_in_its_metrics_and_its_log(moved: Served) -> None:
    with moved as served, Daemon(served.program(), SELDOM, "docker_events = false").start() as daemon:
        event = daemon.wait("endpoint_failed", endpoint="default")
        assert "trial-7 (running)" in event["error"]
        name, labels = "reaper_sweeps_total", {"endpoint": "default", "result": "failures"}
        daemon.until(lambda: daemon.metric(name, **labels) >= 1, "sweep in the metrics")
        assert daemon.metric("reaper_endpoint_up", endpoint="default") == 1  # the first platform answers


# -- which one is asked --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "env", "expected"),
    [
        ({}, {}, DEFAULT_V2_API_URL),
        ({"api_url": DEFAULT_API_URL}, {"DAYTONA_V2_API_URL": "https://else.where"}, DEFAULT_V2_API_URL),
        ({}, {"DAYTONA_V2_API_URL": "https://api.us-macos.daytona.com/"}, "https://api.us-macos.daytona.com"),
        ({}, {"DAYTONA_API_URL": "https://own.example/api"}, None),
        ({"api_url": "https://own.example/api"}, {"DAYTONA_V2_API_URL": "https://else.where"}, None),  # not with its key
        ({"api_url": "https://own.example/api", "v2_api_url": "https://v2.example"}, {}, "https://v2.example"),
        ({"v2_api_url": ""}, {}, ""),
    ],
)
def test_which_server_is_asked(table: dict[str, str], env: dict[str, str], expected: str | None) -> None:
    assert REGISTRATION.resolve(DaytonaTable(name="org", **table), env).v2_api_url == expected


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the server lives in a thread, for which no time may jump
async def test_an_answer_counts_for_ten_minutes_and_a_refused_key_is_not_tried_again(
    moved: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = DaytonaTable(name="org", api_url="https://first.example/api")
    loop = asyncio.get_running_loop()
    time, passed = loop.time, 0.0
    monkeypatch.setattr(loop, "time", lambda: time() + passed)
    with moved as served:
        table = table.model_copy(update={"v2_api_url": served.sim.daytona_v2_url})
        platform = second_platform.SecondPlatform(table, served.key)
        found = await platform.look()
        assert found is not None
        assert await platform.look() == found
        assert served.traffic.count(route="/v2") == 1
        passed += second_platform.FRESH
        served.sim.daytona.second.unknown.add(served.first)
        for _ in range(3):
            assert await platform.look() is None
            passed += second_platform.FRESH
        assert served.traffic.count(route="/v2") == 2
        await platform.close()
