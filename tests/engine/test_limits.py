"""What bounds a sweep: the cap, a dry run, a signal, the time, and an endpoint that is down."""

import shlex
import signal

import pytest

from devkit.engine import PrivateEngine
from devkit.faults import Fault, FaultProxy
from tests.engine.lab import OWNED, WAITS, containers, exited, in_parallel, member_of, reached, rows, started, toml
from tests.run import Ended, Program

pytestmark = pytest.mark.engine


def names(number: int) -> set[str]:
    return {f"exited-{n}" for n in range(number)}


def fill(engine: PrivateEngine, number: int) -> set[str]:
    in_parallel(lambda n: exited(engine, f"exited-{n}"), number)
    return names(number)


@pytest.mark.parametrize("limit", ["--max-deletions=3", "--max-deletions 50%", ""], ids=["number", "percent", "configured"])
def test_the_cap(engine: PrivateEngine, proxied: Program, proxy: FaultProxy, limit: str) -> None:
    fill(engine, 4)
    exited(engine, "unowned", {})
    config = toml(proxied.folder, "[limits]\nmax_deletions = 3")
    words = ["--once", "--stopped", *config, *limit.split()]
    ended = proxied(*words, "--json")
    assert ended.code == 4, ended.err
    assert ended.document["endpoints"][0]["cap"]["wanted"] == 4
    assert set(ended.outcomes().values()) == {"abandoned"}
    assert {call.method for call in proxy.log} == {"GET"}
    assert containers(engine) == {*names(4), "unowned"}
    (hint,) = ended.document["hints"]
    assert "4 would have gone" in hint
    program, *arguments = shlex.split(hint.rpartition("to go on: ")[2])
    assert program == "reaper"
    ended = proxied(*arguments)
    assert ended.code == 0, ended.err
    assert ended.document["counts"]["deleted"] == 4, "the command says --json, as ours did"
    assert containers(engine) == {"unowned"}


def test_as_many_as_the_cap_allows(engine: PrivateEngine, reaper: Program) -> None:
    fill(engine, 4)
    ended = reaper("--once", "--stopped", "--json", "--max-deletions", "4")
    assert ended.code == 0
    assert containers(engine) == set()


def test_a_dry_run_changes_nothing(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    exited(engine, "exited")
    engine.create("member", labels=member_of("trial", OWNED), cmd=WAITS, start=True)
    engine.create_network("trial_default", member_of("trial"))
    engine.create("unowned", labels={}, cmd=WAITS, start=True)
    ended = proxied("--once", "--all", "--dry-run", "--json")
    assert ended.code == 0, ended.err
    assert ended.document["dry_run"] is True
    assert ended.outcomes() == dict.fromkeys(("exited", "member", "trial_default"), "would_delete")
    assert {call.method for call in proxy.log} == {"GET"}
    assert containers(engine) == {"exited", "member", "unowned"}
    assert len(engine.ids(all=False)) == 2
    assert engine.networks() == ["trial_default"]
    for command in (["list"], ["check"], ["explain", "exited"]):
        proxied(*command)
    assert {call.method for call in proxy.log} == {"GET"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"])
def test_a_signal_in_mid_sweep(
    engine: PrivateEngine, proxied: Program, proxy: FaultProxy, number: signal.Signals, code: int
) -> None:
    """What has begun is finished, confirmed and reported; nothing else begins."""
    everybody = fill(engine, 6)
    config = toml(proxied.folder, f'[[docker]]\nname = "one"\nhost = "{proxy.host}"\nremovals = 1')
    gate = proxy.hold("DELETE")
    with started(proxied, "--once", "--stopped", "--json", *config) as process:
        reached(gate, process)
        process.send_signal(number)
        gate.release()
        ended = proxied.finish(process)
    assert ended.code == code, ended.err
    assert ended.document["interrupted"] == number.name
    (gone,) = [name for name, outcome in ended.outcomes().items() if outcome == "deleted"]
    assert containers(engine) == everybody - {gone}
    assert ended.outcomes() == {**dict.fromkeys(everybody, "abandoned"), gone: "deleted"}
    assert len(proxy.calls("DELETE")) == 1


def test_a_signal_while_containers_are_stopped(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    """A container that we have stopped is deleted too: it would be left in no state that anybody wanted."""
    engine.create("running", labels=OWNED, cmd=WAITS, start=True)
    gate = proxy.hold("POST", "/stop", after=True)
    with started(proxied, "--once", "--all", "--json") as process:
        reached(gate, process)
        process.send_signal(signal.SIGTERM)
        gate.release()
        ended = proxied.finish(process)
    assert ended.code == 143, ended.err
    assert ended.outcomes() == {"running": "deleted"}
    assert containers(engine) == set()


def test_a_signal_before_anything_is_deleted(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    everybody = fill(engine, 2)
    gate = proxy.hold("GET", "/networks")
    with started(proxied, "--once", "--stopped", "--json") as process:
        reached(gate, process)
        process.send_signal(signal.SIGTERM)
        ended = proxied.finish(process)  # the answer never comes
        gate.release()
    assert ended.code == 143, ended.err
    assert ended.document["endpoints"][0]["failure"]["error"] == "interrupted"
    assert ended.outcomes() == {}
    assert containers(engine) == everybody


def by_endpoint(ended: Ended) -> dict[str, tuple[str | None, int]]:
    """The failure and the number of deletions of each endpoint."""
    return {e["endpoint"]: ((e["failure"] or {}).get("error"), e["counts"]["deleted"]) for e in ended.document["endpoints"]}


def test_an_endpoint_that_is_down_hinders_no_other(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    fill(engine, 2)
    proxy.add(Fault("hang"))
    hosts = {"up": engine.host, "hangs": proxy.host, "absent": "unix:///nowhere/docker.sock", "closed": "tcp://127.0.0.1:9"}
    text = '[retry]\nattempts = 2\ninitial_delay = "10ms"\njitter = "0"\nrequest_timeout = "500ms"\n'
    text += "".join(f'[[docker]]\nname = "{name}"\nhost = "{host}"\n' for name, host in hosts.items())
    config = toml(proxied.folder, text)
    ended = proxied("--once", "--stopped", "--json", *config)
    assert ended.code == 5, ended.err
    assert by_endpoint(ended) == {
        "up": (None, 2),
        "hangs": ("timeout", 0),
        "absent": ("no_endpoint", 0),
        "closed": ("unavailable", 0),
    }
    assert containers(engine) == set()
    assert proxied("--once", "--only", "up", *config).code == 0


def test_the_time_for_all_is_limited(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    everybody = fill(engine, 2)
    proxy.add(Fault("hang", "DELETE"))
    ended = proxied("--once", "--stopped", "--json", "--timeout", "1500ms")
    assert ended.code == 3, ended.err
    assert ended.document["interrupted"] == "timeout"
    assert ended.document["seconds"] < 20
    assert set(ended.outcomes()) == everybody
    assert not {"deleted", "gone"} & set(ended.outcomes().values())
    assert containers(engine) == everybody


def test_fail_fast(engine: PrivateEngine, proxied: Program, proxy: FaultProxy) -> None:
    everybody = fill(engine, 6)
    proxy.add(Fault("status", "DELETE", skip=2, times=1, status=403, body={"message": "authorization denied"}))
    config = toml(proxied.folder, f'[[docker]]\nname = "one"\nhost = "{proxy.host}"\nremovals = 1')
    ended = proxied("--once", "--stopped", "--fail-fast", "--json", *config)
    assert ended.code == 3, ended.err
    outcomes = list(ended.outcomes().values())
    assert (outcomes.count("deleted"), outcomes.count("failed"), outcomes.count("abandoned")) == (2, 1, 3)
    assert containers(engine) == {name for name in everybody if ended.outcomes()[name] != "deleted"}
    assert {row["error"] for row in rows(ended).values()} == {None, "denied"}
