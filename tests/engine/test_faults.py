"""A proxy between the program and the engine fails on demand: what the program then does, and what it says it did."""

from pathlib import Path
from typing import Any

import pytest

from devkit.engine import PrivateEngine
from devkit.faults import Fault, FaultProxy
from tests.engine.lab import OWNED, containers, exited, in_parallel, member_of, reasons, rows, toml
from tests.run import Ended, Program

pytestmark = pytest.mark.engine

LISTING = r"/containers/json\?all"


def make_exited(engine: PrivateEngine, number: int) -> set[str]:
    in_parallel(lambda n: exited(engine, f"exited-{n}"), number)
    return {f"exited-{n}" for n in range(number)}


def reported(ended: Ended, outcome: str) -> set[str]:
    return {name for name, what in ended.outcomes().items() if what == outcome}


def test_resets_after_the_engine_has_done_it(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    """The deletion happened and its answer was lost: asked again, the engine knows of no such container. It was ours."""
    names = make_exited(engine, 3)
    for ident in engine.ids():
        proxy.add(Fault("reset_after", "DELETE", ident, times=1))
    ended = proxied("--once", "--stopped", "--json")
    assert ended.code == 0, ended.err
    assert ended.outcomes() == dict.fromkeys(names, "deleted")
    assert sorted(call.status or 0 for call in proxy.calls("DELETE")) == [0] * 3 + [404] * 3
    assert containers(engine) == set()


def test_one_that_always_fails(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    """It gets one more round at the end, and the others are done."""
    names = make_exited(engine, 2)
    stuck = exited(engine, "stuck")
    proxy.add(Fault("status", "DELETE", stuck, status=500, body={"message": "device or resource busy"}))
    ended = proxied("--once", "--stopped", "--json")
    assert ended.code == 3, ended.err
    assert ended.outcomes() == {**dict.fromkeys(names, "deleted"), "stuck": "failed"}
    row = rows(ended)["stuck"]
    assert (row["attempts"], row["error"]) == (8, "server_error")
    assert "device or resource busy" in row["detail"]
    assert len(proxy.calls("DELETE", stuck)) == 8
    assert containers(engine) == {"stuck"}
    assert [line["name"] for line in ended.logs if line["level"] == "error"] == ["stuck"]


def test_a_cooldown_is_kept_by_all(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    """429 with Retry-After: no request is made until it is over, and that costs no attempt."""
    names = make_exited(engine, 3)
    proxy.add(Fault("status", "DELETE", times=3, status=429, headers={"Retry-After": "2"}))
    ended = proxied("--once", "--stopped", "--json", env={"REAPER_RETRY__ATTEMPTS": "1"})
    assert ended.code == 0, ended.err
    assert ended.outcomes() == dict.fromkeys(names, "deleted")
    first = min(call.answered or 0 for call in proxy.log if call.status == 429)
    asked = sorted(call.at - first for call in proxy.log)
    assert [at for at in asked if 1.0 < at < 2.0] == [], "what was under way at first may arrive a moment later"
    assert asked[-1] > 2.0
    assert {line["event"] for line in ended.logs if line["level"] == "warning"} == {"rate_limited"}
    assert containers(engine) == set()


def test_odd_rows_are_kept_and_spoil_nothing(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    exited(engine, "good")
    exited(engine, "no-labels")
    exited(engine, "no-created")
    listing: list[dict[str, Any]] = engine.api.must("GET", "/containers/json?all=1")
    by_name = {row["Names"][0]: row for row in listing}
    by_name["/no-labels"]["Labels"] = None
    by_name["/no-created"]["Created"] = "yesterday"
    proxy.add(Fault("status", "GET", LISTING, times=1, status=200, body=listing))
    ended = proxied("--once", "--stopped", "--json")
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"good": "deleted"}
    assert reasons(ended) == {"good": "stopped_for", "no-labels": "unreadable", "no-created": "unreadable"}
    assert containers(engine) == {"no-labels", "no-created"}


def test_a_row_without_an_id_keeps_its_project_and_spoils_nothing(
    engine: PrivateEngine, proxied: Program, proxy: FaultProxy
) -> None:
    exited(engine, "leftover")
    exited(engine, "member", member_of("trial", OWNED))
    nameless = exited(engine, "nameless", member_of("trial", OWNED))
    listing: list[dict[str, Any]] = engine.api.must("GET", "/containers/json?all=1")
    odd = [{key: row[key] for key in row if key != "Id" or row["Id"] != nameless} for row in listing]
    proxy.add(Fault("status", "GET", LISTING, times=1, status=200, body=odd))
    ended = proxied("--once", "--stopped", "--json")
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"leftover": "deleted"}
    assert reasons(ended)["nameless"] == "unreadable"
    assert containers(engine) == {"member", "nameless"}


def test_a_filter_that_is_ignored(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    """An old engine answered a filtered question with everything: what comes back is matched again."""
    exited(engine, "member", member_of("trial", OWNED))
    exited(engine, "foreign", {})
    exited(engine, "neighbour", member_of("website"))
    proxy.add(Fault("status", "GET", "filters=", status=200, body=engine.api.must("GET", "/containers/json?all=1")))
    ended = proxied("--once", "--stopped", "--json")
    assert proxy.calls("GET", "filters=")
    assert ended.outcomes() == {"member": "deleted"}
    assert containers(engine) == {"foreign", "neighbour"}


def test_a_storm(engine: PrivateEngine, proxied: Program, proxy: FaultProxy, tmp_path: Path) -> None:
    """All kinds of faults at random: no claim that is not true, nothing lost that was to stay; the next sweep mends it."""
    exited(engine, "unowned", {})
    exited(engine, "kept", {**OWNED, "reaper.keep": ""})
    names = make_exited(engine, 16)
    config = toml(tmp_path, '[retry]\nattempts = 2\ninitial_delay = "10ms"\njitter = "0"\nrequest_timeout = "500ms"')
    for number, kind in enumerate(("reset", "reset_after", "status", "truncate", "garbage", "hang")):
        proxy.add(Fault(kind, path="/(containers|networks)", probability=0.06, seed=number))  # type: ignore[arg-type]
    ended = proxied("--once", "--stopped", "--json", *config)
    assert ended.code in (0, 3, 5), ended.err
    left = containers(engine)
    assert {"unowned", "kept"} <= left
    assert not (reported(ended, "deleted") | reported(ended, "gone")) & left
    assert set(ended.outcomes()) <= names
    proxy.clear()
    ended = proxied("--once", "--stopped", "--json")
    assert ended.code == 0, ended.err
    assert containers(engine) == {"unowned", "kept"}
