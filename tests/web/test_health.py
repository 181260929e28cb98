"""Alive, scheduling and ready: over all times, also those of clocks that jump."""

import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.service.health import STALE, health, readiness
from reaper.service.status import Status
from tests.web.world import DAY, NOW, SECOND, fresh, full, healthy, unconfigured

AGES = st.none() | st.timedeltas(-2 * DAY, 2 * DAY) | st.sampled_from([timedelta(0), STALE, STALE + SECOND, -DAY])


def aged(start: timedelta, beat: timedelta | None, loop: timedelta | None) -> Status:
    status = Status("0.1.0", NOW - start)
    status.beat_at = None if beat is None else NOW - beat
    status.loop_at = None if loop is None else NOW - loop
    return status


@given(st.timedeltas(-DAY, DAY), AGES, AGES, st.booleans())
def test_it_is_healthy_exactly_while_both_came_round_lately(
    start: timedelta, beat: timedelta | None, loop: timedelta | None, draining: bool
) -> None:
    status = aged(start, beat, loop)
    status.draining = draining
    ok, document = health(status, NOW)
    fine = [(start if age is None else age) <= STALE for age in (loop, beat)]
    assert ok == (draining or all(fine))
    assert document["status"] == ("ok" if ok else "failing")
    assert ok == all(check["ok"] for check in document["checks"])
    json.dumps(document)


def test_a_wedged_scheduler_is_reported_from_a_wedged_loop() -> None:
    for field, name in (("beat_at", "scheduler"), ("loop_at", "loop")):
        status = healthy()
        setattr(status, field, NOW - STALE - SECOND)
        ok, document = health(status, NOW)
        assert not ok
        assert [check["name"] for check in document["checks"] if not check["ok"]] == [name]


def test_a_start_that_never_gets_anywhere_fails_after_a_minute() -> None:
    assert health(aged(STALE, None, None), NOW)[0]
    ok, document = health(aged(STALE + SECOND, None, None), NOW)
    assert not ok
    assert document["checks"][1] == {"name": "scheduler", "ok": False, "detail": "nothing yet, started 1 min 1 s ago"}


def test_a_clock_that_was_set_back_fails_nothing() -> None:
    assert health(aged(-DAY, -DAY, -DAY), NOW)[0]


def failing(status: Status) -> dict[str, str]:
    ok, document = readiness(status, NOW)
    wrong = {check["name"]: check["detail"] for check in document["checks"] if not check["ok"]}
    assert ok == (not wrong)
    assert document["status"] == ("ok" if ok else "failing")
    return wrong


def test_it_is_ready_with_one_endpoint_of_many() -> None:
    assert failing(healthy()) == {}
    assert failing(full()) == {}
    status = fresh()
    assert failing(status) == {"endpoints": "0 of 3 could be listed"}
    status.endpoints["gpu-1"].up = True
    status.endpoints["local"].up = False
    assert failing(status) == {}
    status.endpoints["gpu-1"].up = False
    assert failing(status) == {"endpoints": "0 of 3 could be listed; down: gpu-1, local"}


@pytest.mark.parametrize("name", ["configuration", "endpoints", "not_draining"])
def test_each_reason_for_not_being_ready_is_reported(name: str) -> None:
    status = unconfigured() if name == "endpoints" else healthy()
    if name == "configuration":
        status.loaded_at = None
    status.draining = name == "not_draining"
    assert list(failing(status)) == [name]


def test_a_refused_reload_leaves_it_ready_and_is_reported() -> None:
    status = healthy()
    status.reload_error = "bad duration"
    ok, document = readiness(status, NOW)
    assert ok
    assert document["checks"][0]["detail"] == "loaded; the last reload was refused: bad duration"
