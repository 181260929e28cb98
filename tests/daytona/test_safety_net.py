"""The platform's own timers for sandboxes that have them off, on the simulated platform and as a program."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from reaper.core.lease import Lease
from reaper.core.model import Report
from reaper.providers.daytona.client import DaytonaProvider
from reaper.simulator.daytona.model import Sandbox
from reaper.simulator.daytona.rules import Behaviour
from reaper.sweep.runner import exit_code
from tests.daytona.lab import DAY, FRESH, HARBOR, HOUR, MINUTE, Lab, outcomes, result, warnings
from tests.daytona.server import Served
from tests.engine.lab import toml

NET = {"auto_stop": "1d", "auto_delete": "3d"}
REAL = Behaviour()


async def swept(lab: Lab, **options: Any) -> Report:
    table = options.pop("table", {"safety_net": NET})
    return await lab.sweep(table=table, safety_net=True, **options)


@pytest.mark.anyio
async def test_the_platform_ends_what_is_left_when_the_program_is_not_there_any_more() -> None:
    async with Lab(behaviour=REAL) as lab:
        endless = lab.add("endless", age=3 * HOUR, idle=HOUR, auto_delete=-1, auto_archive=43200)
        ephemeral = lab.add("ephemeral", age=3 * HOUR, idle=HOUR)
        report = await swept(lab)
        assert outcomes(report) == {"endless": "timer_set", "ephemeral": "timer_set"}
        assert exit_code(report) == 0
        assert result(report, "endless").detail == "auto-stop after 25 h 1 min, auto-delete after 3 d"
        assert (endless.auto_stop, endless.auto_delete) == (25 * 60 + 1, 3 * 24 * 60)
        assert ephemeral.auto_delete == 0
        assert ephemeral.auto_stop in (5820, 5821)  # four days and an hour, from its last activity
        assert not (await swept(lab)).results, "once is enough"
        lab.clock.advance(23 * HOUR)
        lab.org.settle()
        assert endless.state == "started"
        lab.clock.advance(2 * HOUR)
        lab.org.settle()
        lab.clock.advance(MINUTE)
        lab.org.settle()
        assert (endless.state, ephemeral.state) == ("stopped", "started")
        lab.clock.advance(4 * DAY)
        lab.org.settle()
        lab.clock.advance(MINUTE)
        assert lab.left() == set()


@pytest.mark.anyio
async def test_a_trial_whose_activity_shows_goes_on() -> None:
    async with Lab(behaviour=REAL) as lab:
        row = lab.add("trial", age=3 * HOUR, idle=HOUR, auto_delete=-1)
        await swept(lab)
        for _ in range(5):
            lab.clock.advance(20 * HOUR)
            lab.org.settle()
            lab.org.touch(row)
            lab.clock.advance(MINUTE)
            lab.org.settle()
        assert row.state == "started"


@pytest.mark.anyio
async def test_what_stopped_long_ago_is_not_deleted_by_its_new_interval() -> None:
    async with Lab(behaviour=REAL) as lab:
        rules = {"policy": [{"name": "p", "kinds": ["sandbox"], "older_than": "300d"}]}
        from tests.daytona.lab import rules as made

        lab.add("old", state="stopped", age=90 * DAY, idle=60 * DAY, auto_delete=-1, auto_archive=0)
        report = await swept(lab, judged_by=made(**rules))
        assert outcomes(report) == {"old": "timer_set"}
        lab.clock.advance(2 * DAY)
        assert lab.left() == {"old"}
        lab.clock.advance(2 * DAY)
        lab.left()
        lab.clock.advance(MINUTE)
        assert lab.left() == set()


@pytest.mark.anyio
async def test_it_is_off_unless_it_is_configured_and_asked_for() -> None:
    async with Lab(behaviour=FRESH) as lab:
        lab.add("endless", age=HOUR, auto_delete=-1)
        assert not (await swept(lab, table={})).results
        assert not (await lab.sweep(table={"safety_net": NET})).results, "a sweep on behalf of a lease, or of a library"
        assert lab.asked("POST") == []


@pytest.mark.anyio
async def test_a_dry_run_shows_it_and_sets_nothing() -> None:
    async with Lab(behaviour=FRESH) as lab:
        lab.add("endless", age=HOUR, auto_delete=-1)
        assert outcomes(await swept(lab, act=False)) == {"endless": "would_delete"}
        assert lab.asked("POST") == []


CHANGES: dict[str, tuple[Callable[[Lab, Sandbox], object], str]] = {
    "kept by label": (lambda lab, row: lab.org.change(row, labels={**HARBOR, "reaper.keep": ""}), "has other labels now"),
    "leased": (
        lambda lab, row: lab.leases.append(Lease("x", "pid 1", since=lab.clock.now() - HOUR, claims=_by_name(row))),
        "not kept by its age alone",
    ),
    "timers set by another client": (lambda lab, row: lab.org.change(row, auto_stop=9, auto_delete=9), "are on by now"),
    "ephemeral now": (lambda lab, row: lab.org.change(row, auto_delete=0, auto_stop=9), "are on by now"),
    "stopped": (lambda lab, row: lab.org.change(row, state="stopped", desired="stopped"), "was started and is stopped"),
    "linked to": (
        lambda lab, row: lab.add("follower", age=timedelta(0), linked=row.id),
        "follower is linked to it",
    ),
    "its session linked to": (
        lambda lab, _: lab.add("follower", age=timedelta(0), linked=lab.org.find("mate").id),
        "follower is linked to its session",
    ),
    "joined by one that is kept": (
        lambda lab, row: lab.add("new", age=timedelta(0), labels={**_labels(row), "reaper.keep": ""}),
        "new is not kept by its age alone",
    ),
}


def _labels(row: Sandbox) -> dict[str, str]:
    return dict(row.labels or {})


def _by_name(row: Sandbox) -> tuple[Any, ...]:
    from reaper.core.lease import Claim
    from reaper.core.scope import Selector

    return (Claim(Selector(names=(row.name,))),)


@pytest.mark.anyio
@pytest.mark.parametrize("name", CHANGES)
async def test_what_changed_after_the_listing_is_left_as_it_is(name: str) -> None:
    async with Lab(behaviour=FRESH) as lab:
        change, why = CHANGES[name]
        row = lab.add("endless", age=HOUR, auto_delete=-1, labels={**HARBOR, "harbor.session_id": "s"})
        lab.add("mate", age=HOUR, auto_stop=9, auto_delete=9, labels=_labels(row))
        lab.observer.on_decided = lambda: change(lab, row)
        before = (row.auto_stop, row.auto_delete)
        report = await swept(lab)
        assert outcomes(report) == {"endless": "skipped"}
        assert why in result(report, "endless").detail
        assert lab.asked("POST") == []
        assert "set by another" in name or "ephemeral" in name or (row.auto_stop, row.auto_delete) == before


@pytest.mark.anyio
async def test_a_look_after_which_the_server_was_slow_is_taken_again() -> None:
    async with Lab(behaviour=FRESH) as lab:
        row = lab.add("endless", age=HOUR, auto_stop=9, auto_delete=-1)
        lab.sim.faults.add("latency:9,method=GET,path=/paginated,skip=1,times=1")
        assert outcomes(await swept(lab)) == {"endless": "timer_set"}
        (posted,) = lab.asked("POST")
        looks = [call.at for call in lab.asked("GET") if call.path.endswith(row.id) and call.at <= posted.at]
        assert max(looks) == posted.at >= 9


@pytest.mark.anyio
async def test_what_changes_between_two_timers_was_not_touched_against_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Lab(behaviour=FRESH) as lab:
        row = lab.add("endless", age=HOUR, auto_delete=-1)
        set_timer = DaytonaProvider.set_timer

        async def set_and_stop(*arguments: Any) -> None:
            await set_timer(*arguments)
            lab.org.change(row, state="stopping", desired="stopped")

        monkeypatch.setattr(DaytonaProvider, "set_timer", set_and_stop)
        found = result(await swept(lab), "endless")
        assert (found.outcome, found.detail) == ("timer_set", "auto-stop after 25 h")
        assert found.look is not None
        assert (found.look.acted, found.look.raw_state, found.look.differs) == (True, "started", None)


@pytest.mark.anyio
async def test_what_is_gone_meanwhile_is_gone() -> None:
    async with Lab(behaviour=Behaviour(get_cache=0, list_lag=0, pickup=(0, 0), destroy=(0, 0))) as lab:
        row = lab.add("endless", age=HOUR, auto_delete=-1)
        lab.observer.on_decided = lambda: lab.org.change(row, state="destroyed", desired="destroyed")
        assert outcomes(await swept(lab)) == {"endless": "gone"}


@pytest.mark.anyio
async def test_an_owner_of_a_sandbox_that_only_an_inspection_shows_is_left_alone() -> None:
    async with Lab(behaviour=REAL) as lab:
        owner = lab.add("owner", age=3 * HOUR, auto_delete=-1)
        lab.add("follower", age=2 * HOUR, linked=owner.id, labels={})
        assert not (await swept(lab)).results
        assert (owner.auto_stop, owner.auto_delete) == (0, -1)


@pytest.mark.anyio
@pytest.mark.parametrize("timers", [{"auto_delete": -1}, {"auto_delete": 60}, {"auto_stop": 9, "auto_delete": -1}, {}])
async def test_a_parent_of_living_forks_is_left_alone_since_no_timer_of_the_platform_asks_for_them(
    timers: dict[str, Any],
) -> None:
    async with Lab(behaviour=REAL) as lab:
        parent = lab.add("parent", age=3 * HOUR, **timers)
        lab.add("fork", age=2 * HOUR, parent=parent.id, labels={})
        before = (parent.auto_stop, parent.auto_delete)
        for _ in range(2):
            report = await swept(lab)
            assert outcomes(report) == {"parent": "skipped"}
            assert exit_code(report) == 0
            assert "forks" in result(report, "parent").detail
            assert (parent.auto_stop, parent.auto_delete) == before
            assert lab.asked("POST") == []
        lab.clock.advance(20 * DAY)
        assert lab.left() == {"parent", "fork"}


@pytest.mark.anyio
async def test_a_sandbox_that_the_platform_pauses_needs_no_auto_stop_which_excludes_that() -> None:
    async with Lab(behaviour=REAL) as lab:
        lab.add("pausing", age=3 * HOUR, auto_delete=-1, extra={"autoPauseInterval": 60})
        report = await swept(lab)
        assert outcomes(report) == {"pausing": "timer_set"}
        assert result(report, "pausing").detail == "auto-delete after 3 d"
        assert len(lab.asked("POST")) == 1
        assert "auto-stop off" not in warnings(report)


@pytest.mark.anyio
async def test_a_key_that_may_not_write_fails_once_and_hinders_no_deletion() -> None:
    async with Lab(behaviour=FRESH) as lab:
        for number in range(20):
            lab.add(f"endless-{number}", age=HOUR, auto_delete=-1)
        lab.add("forgotten")
        report = await swept(lab, key=lab.sim.daytona.add_key(lab.first, ["delete:sandboxes"]))
        found = outcomes(report)
        assert found.pop("forgotten") == "deleted"
        assert set(found.values()) == {"failed"}
        assert exit_code(report) == 3
        assert len(lab.asked("POST")) <= 4
        assert "its timer could not be set: Access denied" in result(report, "endless-0").detail


@pytest.mark.anyio
async def test_an_interval_that_no_look_shows_is_a_failure() -> None:
    async with Lab(behaviour=FRESH) as lab:
        lab.add("odd", age=HOUR, auto_stop=15, auto_delete=-1, extra={"autoDeleteInterval": -1})
        report = await swept(lab)
        assert outcomes(report) == {"odd": "failed"}
        assert result(report, "odd").error == "unconfirmed"
        assert len(lab.asked("POST")) == 1


@pytest.mark.anyio
async def test_the_server_takes_intervals_as_the_real_one_does() -> None:
    async with Lab(behaviour=FRESH) as lab:
        row = lab.add("one", state="error", age=HOUR, auto_delete=-1)
        gpu = lab.add("gpu", age=HOUR, gpu=1)
        for path, status in (
            (f"{row.id}/autostop/60", 200),
            (f"{row.name}/autodelete/-1", 200),
            (f"{row.id}/autostop/-1", 400),
            (f"{gpu.id}/autodelete/60", 400),
            (f"{gpu.id}/autostop/60", 200),
            (f"{row.id}/autostop/soon", 500),
            (f"{row.id}/autostop/99999999999", 500),
            ("missing/autostop/60", 404),
        ):
            assert await _post(lab, path) == status, path
        assert (row.auto_stop, row.auto_delete, gpu.auto_stop) == (60, -1, 60)


async def _post(lab: Lab, path: str) -> int:
    import aiohttp

    headers = {"Authorization": f"Bearer {lab.sim.api_key(lab.first)}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{lab.sim.daytona_url}/sandbox/{path}") as answer,
    ):
        return answer.status


FILE = """
[[daytona]]
name = "default"
[daytona.safety_net]
auto_stop = "1d"
auto_delete = "3d"
"""


def test_the_program_sets_records_and_counts_them(served: Served) -> None:
    served.add("endless", age=2 * HOUR, auto_delete=-1)
    served.add("kept", age=2 * HOUR, auto_delete=-1, labels={**HARBOR, "reaper.keep": ""})
    served.add("foreign", age=2 * HOUR, auto_delete=-1, labels={})
    served.add("forgotten")
    run = served.program()
    net = toml(served.folder, FILE)
    dry = run("--once", "--dry-run", "--only", "default", *net)
    assert "1 would delete, 1 would set timer, 3 kept" in dry.out
    assert served.changes() == []
    for narrowed in (("--stopped",), ("--policy", "old-sandboxes"), ("--name", "endless")):
        run("--once", "--only", "default", *narrowed, *net)
    assert not [call for call in served.changes() if call.startswith("POST")]
    metrics = served.folder / "reaper.prom"
    ended = run("--once", "--json", "--only", "default", "--metrics-textfile", str(metrics), *net)
    assert ended.code == 0, ended.err
    assert ended.outcomes()["endless"] == "timer_set"
    (one,) = (r for e in ended.document["endpoints"] for r in e["resources"] if r["name"] == "endless")
    assert (one["verdict"], one["action"], one["policy"]) == ("keep", "set_timer", "(safety net)")
    posts = [re.sub(r"[0-9a-f-]{36}", "ID", call) for call in served.changes() if call.startswith("POST")]
    assert posts == ["POST /api/sandbox/ID/autostop/1561", "POST /api/sandbox/ID/autodelete/4320"]
    counted = 'kind="sandbox",outcome="timer_set",policy="(safety net)",provider="daytona"} 1.0'
    assert re.search(
        rf'reaper_actions_total{{action="set_timer",endpoint="[a-z]+",{re.escape(counted)}', metrics.read_text()
    )
    (record,) = [r for r in run("history", "--json").document["acts"] if r["name"] == "endless"]
    assert (record["action"], record["outcome"], record["policy"]) == ("set_timer", "timer_set", "(safety net)")
    assert record["detail"].startswith("auto-stop after ")
    assert [
        line for line in run("check", "--only", "default", *net).out.splitlines() if "auto-" in line and "endless" in line
    ] == []
    assert "\ttimer_set\t" in run("history").out
