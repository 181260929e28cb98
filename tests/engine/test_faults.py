"""A proxy between the program and the engine fails on demand: what the program then does, and what it says it did."""

from pathlib import Path
from typing import Any

import pytest

from devkit.engine import PrivateEngine
from devkit.faults import Fault, FaultProxy
from tests.engine.lab import OWNED, WAITS, containers, exited, in_parallel, member_of, reasons, rows, toml
from tests.run import Ended, Program

pytestmark = pytest.mark.engine

LISTING = r"/containers/json\?all"


def make_exited(engine: PrivateEngine, number: int) -> set[str]:
    in_parallel(lambda n: exited(engine, f"exited-{n}"), number)
    return {f"exited-{n}" for n in range(number)}


def reported(ended: Ended, outcome: str) -> set[str]:
    return {name for name, what in ended.outcomes().items() if what == outcome}


def test_resets_before_the_engine_hears_of_it(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    names = make_exited(engine, 3)
    proxy.add(Fault("reset", every=3))  # of all requests, the listings included, which are two each
    ended = proxied("--once", "--stopped", "--json")
    assert ended.code == 0, ended.err
    assert ended.outcomes() == dict.fromkeys(names, "deleted")
    assert containers(engine) == set()


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


def test_a_stop_whose_answer_is_lost(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    engine.create("running", labels=OWNED, cmd=WAITS, start=True)
    proxy.add(Fault("reset_after", "POST", "/stop", times=1))
    ended = proxied("--once", "--all", "--json")
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"running": "deleted"}
    assert [call.status for call in proxy.calls("POST")] == [None, 304]
    assert containers(engine) == set()


def test_errors_of_the_server_are_tried_again(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    names = make_exited(engine, 3)
    for ident in engine.ids():
        proxy.add(Fault("status", "DELETE", ident, times=3, status=503))
    ended = proxied("--once", "--stopped", "--json")
    assert ended.code == 0, ended.err
    assert ended.outcomes() == dict.fromkeys(names, "deleted")
    assert {row["attempts"] for row in rows(ended).values()} == {4}
    warnings = [line for line in ended.logs if line["event"] == "attempt_failed"]
    assert len(warnings) == 9
    assert {(line["attempt"], line["attempts"]) for line in warnings} == {(1, 4), (2, 4), (3, 4)}
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


def test_a_denied_deletion_is_not_tried_again(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    exited(engine, "denied")
    proxy.add(Fault("status", "DELETE", status=403, body={"message": "authorization denied by plugin"}))
    ended = proxied("--once", "--stopped", "--json")
    assert ended.code == 3
    assert ended.outcomes() == {"denied": "failed"}
    assert rows(ended)["denied"]["error"] == "denied"
    assert len(proxy.calls("DELETE")) == 1
    assert containers(engine) == {"denied"}


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


def test_a_cooldown_at_the_listing(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    make_exited(engine, 1)
    proxy.add(Fault("status", "GET", LISTING, times=1, status=429, headers={"Retry-After": "1"}))
    ended = proxied("--once", "--stopped", "--json", env={"REAPER_RETRY__ATTEMPTS": "1"})
    assert (ended.code, ended.outcomes()) == (0, {"exited-0": "deleted"})
    assert containers(engine) == set()


def test_answers_that_never_come(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    """Each kind of call has a limit, behind which it is made again."""
    engine.create("trial", labels=member_of("trial", OWNED), cmd=WAITS, start=True)
    engine.create_network("trial_default", member_of("trial"))
    kinds = (LISTING, "/networks$", "/containers/[0-9a-f]+/json", "filters=", "/stop", "/networks/[0-9a-f]+$")
    proxy.add(Fault("hang", "DELETE", "/containers/", times=1), *(Fault("hang", path=path, times=1) for path in kinds))
    config = toml(proxied.folder, '[[policy]]\nname="p"\nkinds=["container"]\nstates=["running"]\nstop_timeout="200ms"')
    ended = proxied("--once", "--json", *config, env={"REAPER_RETRY__REQUEST_TIMEOUT": "1s"})
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"trial": "deleted", "trial_default": "deleted"}
    assert [call.fault for call in proxy.log].count("hang") == 7
    assert containers(engine) == set()
    assert engine.networks() == []


BAD_LISTINGS = [
    Fault("status", "GET", LISTING, status=200, body={}),  # no list: not the same as an empty one
    Fault("truncate", "GET", LISTING),
    Fault("truncate", "GET", "/networks"),
    Fault("garbage", "GET", LISTING),
    Fault("reset", "GET", "/networks"),
    Fault("hang", "GET", LISTING),
    *(Fault("status", "GET", LISTING, status=200, body=body) for body in (None, {"a": "b"}, ["x"])),
    Fault("status", "GET", "/networks", status=200, body={"a": "b"}),
]


@pytest.mark.parametrize("fault", BAD_LISTINGS, ids=lambda fault: f"{fault.kind} {fault.path[1:4]} {fault.body!s:.6}")
def test_a_bad_listing_ends_the_sweep(engine: PrivateEngine, proxied: Program, proxy: FaultProxy, fault: Fault) -> None:
    exited(engine, "leftover")
    proxy.add(fault)
    quick = {"REAPER_RETRY__ATTEMPTS": "2", "REAPER_RETRY__REQUEST_TIMEOUT": "500ms"}
    ended = proxied("--once", "--stopped", "--json", env=quick)
    assert ended.code == 5, (ended.out, ended.err)
    assert ended.document["endpoints"][0]["failure"]["message"]
    assert ended.outcomes() == {}
    assert {call.method for call in proxy.log} <= {"GET", "HEAD"}
    assert containers(engine) == {"leftover"}


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


def test_deleted_means_confirmed(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    """The engine says 204 and still lists it at the end."""
    names = make_exited(engine, 2)
    listing = engine.api.must("GET", "/containers/json?all=1")
    proxy.add(Fault("status", "GET", LISTING, skip=1, status=200, body=listing))
    ended = proxied("--once", "--stopped", "--json")
    assert ended.code == 3, ended.err
    assert reported(ended, "failed") == names
    assert {row["error"] for row in rows(ended).values()} == {"still_listed"}
    assert ended.document["counts"]["deleted"] == 0


def test_nothing_can_be_confirmed(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    names = make_exited(engine, 1)  # each wave of deletions has its own listing before it
    proxy.add(Fault("reset", "GET", LISTING, skip=2))  # after the look for who came since the first listing
    ended = proxied("--once", "--stopped", "--json")
    assert ended.code == 5, ended.err
    assert len(proxy.calls("DELETE")) == len(names)
    assert reported(ended, "failed") == names
    assert ended.document["counts"]["deleted"] == 0
    assert containers(engine) == set(), "a false alarm, but no false claim"


def test_who_came_since_the_listing_is_not_known(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    """Just before the deletion it is listed who may depend on it by now. Without that nothing goes."""
    names = make_exited(engine, 2)
    proxy.add(Fault("reset", "GET", LISTING, skip=1))
    ended = proxied("--once", "--stopped", "--json")
    assert ended.code == 3, ended.err
    assert reported(ended, "failed") == names
    assert proxy.calls("DELETE") == []
    assert containers(engine) == names


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
