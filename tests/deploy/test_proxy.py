"""The socket proxy lets through what reaper asks of an engine, and nothing else arrives there."""

import asyncio
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import ANY
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from devkit.client import OBEYS_TERM, EngineClient
from devkit.faults import Fault, FaultProxy
from devkit.generate.proxy import REFUSED, UNREACHABLE, config
from reaper.leases.database import create
from reaper.leases.record import Holder, LeaseRecord, LeaseState, Liveness
from reaper.leases.sources import NAME as LEASES
from reaper.leases.store import LeaseFile
from reaper.providers.docker.calls import CALLS, made
from reaper.providers.docker.client import DockerProvider
from reaper.providers.docker.events import QUIET
from reaper.providers.docker.settings import DockerTable
from tests.deploy.haproxy import LIMIT, HaProxy
from tests.engine.lab import IMPATIENT, OWNED, containers, exited, member_of, until
from tests.run import Program
from tests.service.daemon import Daemon

ID = "0123456789abcdef" * 4

LONG_AGO = "2026-01-01T00:00:00Z"
KINDS = """
[[policy]]
name = "cache"
kinds = ["build-cache"]
unused_for = "1h"
larger_than = "1MB"

[[policy]]
name = "others"
kinds = ["image", "volume"]
larger_than = "1GB"
"""
GUARD = """
[disk]
high = "2B"
low = "1B"

[[policy]]
name = "guard"
kinds = ["container"]
stopped_for = "1ms"
under_pressure = true

[[docker]]
name = "local"
host = "{host}"
"""
DEATHS = """
[[policy]]
name = "dead"
kinds = ["container"]
stopped_for = "1s"
every = "1h"
"""


# What is needed


def test_reaper_works_through_it_and_each_call_and_parameter_of_the_list_is_made(
    any_engine: EngineClient, tmp_path: Path
) -> None:
    """One sweep of all that makes a sweep ask for something, and a service that follows the events."""
    with FaultProxy(any_engine.socket) as arriving, HaProxy(arriving.socket, tmp_path) as proxy:
        labels = member_of("chess", OWNED)
        network = any_engine.create_network("chess_default", labels)
        left_on(arriving, network, any_engine.api.must("GET", f"/networks/{network}"))
        exited(any_engine, "client", labels, network="chess_default")
        any_engine.create("running", cmd=OBEYS_TERM, labels=OWNED, start=True)
        stubborn = any_engine.create("stubborn", cmd=OBEYS_TERM, labels=OWNED, start=True)
        arriving.add(Fault("status", "POST", f"/{stubborn}/stop", status=204, body=b""))  # stopped, and runs on
        frozen = any_engine.create("frozen", cmd=OBEYS_TERM, labels=OWNED, start=True)
        any_engine.api.must("POST", f"/containers/{frozen}/pause")
        refusal = {
            "cause": "container state improper",
            "message": "it is paused: container state improper",
        }  # as Podman does
        arriving.add(Fault("status", "POST", f"/{frozen}/stop", times=1, status=500, body=refusal))
        exited(any_engine, "foreign", {}, binds=["theirs:/data"])
        over(tmp_path, "run-1")
        any_engine.create_volume("data", {"reaper.lease": "run-1"})
        any_engine.labelled_image("built:1", {"reaper.lease.image": "run-1"})
        program = Program(tmp_path, {"DOCKER_HOST": proxy.host})
        swept = program("--once", "--all", "--json")
        assert swept.code == 0, swept.err
        gone = ("client", "chess_default", "running", "stubborn", "frozen", "data", "built:1")
        assert swept.outcomes() == dict.fromkeys(gone, "deleted")
        assert containers(any_engine) == {"foreign"}
        record = {"ID": "r", "InUse": False, "Shared": False, "Size": 1 << 30, "CreatedAt": LONG_AGO, "LastUsedAt": LONG_AGO}
        arriving.add(Fault("status", "GET", "/system/df", status=200, body={"BuildCache": [record], "Volumes": []}))
        (tmp_path / "kinds.toml").write_text(KINDS)
        swept = program("--once", "--json", "--config", str(tmp_path / "kinds.toml"))
        assert swept.code == 0, swept.err
        assert swept.outcomes() == {"build-cache": "gone"}  # there is none: the answer above was made up
        exited(any_engine, "guarded", OWNED)
        guard = tmp_path / "guard.toml"
        guard.write_text(GUARD.format(host=proxy.host) + f'data_root = "{tmp_path}"\n')
        swept = program("--once", "--json", "--config", str(guard))
        assert (swept.code, swept.outcomes()) == (3, {"guarded": "deleted"}), swept.err  # no disk is below a byte
        guard.write_text(GUARD.format(host=arriving.host))  # where its data are is asked of a unix socket only
        assert program("check", "--config", str(guard)).code == 0
        with Daemon(program, DEATHS, "sweep_at_start = false").start() as daemon:
            daemon.wait("event_stream_connected", endpoint="local")
            began = datetime.now(UTC)
            exited(any_engine, "dies")
            daemon.wait("deleted", name="dies")
            assert [call.status for call in arriving.calls("GET", "/events.*filters")] == [200]
            assert daemon.stop() == 0
            assert list(daemon.events("events_lost")) == []
        assert asyncio.run(first_death(proxy.host, began)) == "dies"  # as after a stream that was lost
        assert [line for line in proxy.lines if " 403 " in line] == []
        sent = [(call.method, call.path) for call in arriving.log]
    calls = [made(*request) for request in sent]
    assert None not in calls
    left = [call for call in CALLS if call not in calls and not call.setting]
    assert [call for call in left if "/libpod/" not in call.path] == []  # Podman has these alone
    named = {(call.path, name) for call, (_, target) in zip(calls, sent, strict=True) if call for name in names(target)}
    every = {(call.path, name) for call in CALLS if not call.setting and "/libpod/" not in call.path for name in call.params}
    assert named == every - {("/system/df", "type"), ("/events", "stream")}  # since API 1.42, and for Podman alone


def left_on(arriving: FaultProxy, network: str, inspection: dict[str, Any]) -> None:
    """The engine has kept the endpoint of a container that is gone, until it is asked to let go of it."""
    inspection["Containers"] = {f"ep-{ID}": {"Name": "gone", "EndpointID": ID}}
    refusal = {"message": f"error while removing network: network chess_default id {network} has active endpoints"}
    arriving.add(
        Fault("status", "GET", f"/networks/{network}$", status=200, body=inspection),
        Fault("status", "DELETE", f"/networks/{network}$", times=1, status=403, body=refusal),
        Fault("status", "POST", f"/networks/{network}/disconnect$", status=200, body=b""),
    )


def over(folder: Path, lease: str) -> None:
    """A lease that has ended, in the state directory."""
    now = datetime.now(UTC)
    create(folder / LEASES)
    file = LeaseFile(folder / LEASES)
    record = LeaseRecord(id=lease, sort=Liveness.HEARTBEAT, holder=Holder("gpu-1", 4711), since=now, seen_at=now)
    file.put(replace(record, state=LeaseState.RELEASED, ended_at=now, cause="released"))
    file.close()


def names(target: str) -> list[str]:
    """The parameters of a query."""
    return [name for name, _ in parse_qsl(urlsplit(target).query, keep_blank_values=True)]


async def first_death(host: str, since: datetime) -> str:
    """The name of the first container that has died since then."""
    provider = DockerProvider(DockerTable(name="engine", host=host))
    try:
        async with aclosing(provider.deaths(lambda: None, since)) as deaths:  # type: ignore[type-var]  # a generator
            return (await anext(deaths)).name
    finally:
        await provider.close()


def test_an_engine_that_is_not_there_is_reported_from_a_refusal(tmp_path: Path) -> None:
    with HaProxy(str(tmp_path / "none.sock"), tmp_path) as proxy:
        assert proxy.ask("GET", "/version") == (503, f"{UNREACHABLE}\n")
        ended = Program(tmp_path, {"DOCKER_HOST": proxy.host, **IMPATIENT})("list")
        assert ended.code == 5
        assert UNREACHABLE in ended.err


def test_a_client_that_hangs_up_leaves_no_request_behind(tmp_path: Path) -> None:
    """The service that is stopped in the middle of its events, for one."""
    path = str(tmp_path / "engine.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        with HaProxy(path, tmp_path) as proxy:
            for answer in (b"", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"):
                client = proxy.connect()
                client.sendall(b"GET /events HTTP/1.1\r\nHost: docker\r\n\r\n")
                connection, _ = server.accept()
                with connection:
                    connection.settimeout(LIMIT)
                    assert connection.recv(65536).startswith(b"GET /events ")
                    connection.sendall(answer)
                    if answer:
                        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
                    client.close()
                    assert connection.recv(65536) == b""


def test_silence_ends_nothing_that_reaper_would_not_end_itself() -> None:
    for side in ("client", "server"):
        (hours,) = re.findall(rf"^    timeout {side} (\d+)h$", config(), re.MULTILINE)
        assert int(hours) * 3600 > 2 * QUIET


# And everything else


@pytest.fixture(scope="module")
def before_nothing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HaProxy, FaultProxy]]:
    """The proxy, and what stands where the engine would be: it remembers what arrives, and answers 200."""
    with FaultProxy("/nowhere") as arriving, HaProxy(arriving.socket, tmp_path_factory.mktemp("haproxy")) as proxy:
        arriving.add(Fault("status", status=200))
        yield proxy, arriving


class Verdict(NamedTuple):
    """What became of a request."""

    status: int
    body: str
    arrived: list[tuple[str, str]]


@pytest.fixture(scope="module")
def ask(before_nothing: tuple[HaProxy, FaultProxy]) -> Callable[..., Verdict]:
    proxy, arriving = before_nothing

    def asked(method: str, target: str, headers: str = "", body: bytes = b"") -> Verdict:
        before = len(arriving.log)
        status, text = proxy.ask(method, target, headers, body)
        return Verdict(status, text, [(call.method, call.path) for call in arriving.log[before:]])

    return asked


DANGEROUS = [
    ("POST", "/containers/create"),
    ("POST", "/containers/create?name=x"),
    ("POST", f"/containers/{ID}/exec"),
    ("POST", f"/exec/{ID}/start"),
    ("POST", f"/containers/{ID}/start"),
    ("POST", f"/containers/{ID}/restart"),
    ("POST", f"/containers/{ID}/kill"),
    ("POST", f"/containers/{ID}/update"),
    ("POST", f"/containers/{ID}/rename?name=x"),
    ("POST", f"/containers/{ID}/attach?stream=1"),
    ("GET", f"/containers/{ID}/attach/ws"),
    ("GET", f"/containers/{ID}/archive?path=/etc/shadow"),
    ("PUT", f"/containers/{ID}/archive?path=/"),
    ("GET", f"/containers/{ID}/export"),
    ("GET", f"/containers/{ID}/logs?stdout=1"),
    ("GET", f"/containers/{ID}/top"),
    ("POST", "/containers/prune"),
    ("POST", "/networks/prune"),
    ("POST", "/networks/create"),
    ("POST", f"/networks/{ID}/connect"),
    ("POST", f"/networks/{ID}/disconnect?force=1"),
    ("POST", "/images/prune"),
    ("POST", "/images/create?fromImage=x"),
    ("POST", "/images/load"),
    ("DELETE", "/images/x"),
    ("DELETE", "/images/bench:1?noprune=1"),
    ("DELETE", f"/images/{ID[:12]}?noprune=1"),
    ("DELETE", f"/images/sha256%3A{ID}?noprune=1"),
    ("DELETE", f"/images/sha256:{ID}?noprune=1&force=1"),
    ("DELETE", f"/images/sha256:{ID}?noprune=0"),
    ("DELETE", f"/images/sha256:{ID}/json"),
    ("GET", "/images/x/json"),
    ("GET", f"/images/sha256:{ID}/get"),
    ("GET", f"/images/sha256:{ID}/history"),
    ("POST", f"/images/sha256:{ID}/tag?repo=x"),
    ("POST", f"/images/sha256:{ID}/push"),
    ("GET", "/images/json?shared-size=1"),
    ("GET", "/images/get?names=x"),
    ("GET", "/images/search?term=x"),
    ("POST", "/build"),
    ("POST", "/build/prune?all=1"),
    ("POST", "/session"),
    ("POST", "/grpc"),
    ("POST", "/commit"),
    ("POST", "/volumes/create"),
    ("DELETE", "/volumes/x?force=1"),
    ("DELETE", "/volumes/x/y"),
    ("PUT", "/volumes/x?version=1"),
    ("POST", "/volumes/prune"),
    ("GET", "/secrets"),
    ("POST", "/swarm/init"),
    ("POST", "/services/create"),
    ("POST", "/plugins/pull"),
    ("POST", "/auth"),
    ("GET", "/info?x=1"),
    ("GET", "/_ping"),
    ("GET", "/system/df?type=container"),
    # a call of the list with what it does not have
    ("GET", "/containers/json?all=1&size=1"),
    ("GET", "/containers/json?size=1"),
    ("GET", "/containers/json?filters=x;size=1"),
    ("GET", f"/containers/{ID}/json?size=true"),
    ("DELETE", f"/containers/{ID}?v=1&link=1"),
    ("POST", f"/containers/{ID}/stop?t=1&signal=KILL"),
    ("POST", f"/containers/{ID}/stop?t=-1"),
    # another verb
    ("HEAD", "/containers/json"),
    ("OPTIONS", "/containers/json"),
    ("TRACE", "/version"),
    ("PUT", "/version"),
    ("PATCH", f"/containers/{ID}"),
    ("POST", f"/containers/{ID}"),
    ("DELETE", "/containers/json/x"),
    ("get", "/version"),
    # another way to write a path
    ("GET", "//containers/json"),
    ("GET", "/containers//json"),
    ("GET", "/containers/json/"),
    ("GET", "/containers/../containers/json"),
    ("GET", "/containers/%2e%2e/images/json"),
    ("GET", "/containers/..%2fimages%2fjson/json"),
    ("GET", "/v1.41/../images/json"),
    ("DELETE", "/containers/../volumes/x"),
    ("DELETE", "/containers/..%2fvolumes%2fx"),
    ("DELETE", "/containers/%2e%2e%2fvolumes%2fx"),
    ("DELETE", "/containers/x%00"),
    ("DELETE", "/containers/x;y"),
    ("DELETE", "/containers/.."),
    ("DELETE", "/containers/"),
    ("POST", "/containers/x/../create/stop"),
    ("GET", "/%63ontainers/json"),
    ("GET", "/CONTAINERS/json"),
    ("GET", "/v1/containers/json"),
    ("GET", "/v2.0/containers/json"),
    ("GET", "/v1.41/v1.41/containers/json"),
    ("GET", "/v1.41%2fcontainers/json"),
    ("GET", "/v1.99999/version"),
    ("GET", "http://docker/version"),
    ("GET", "http://docker/containers/json"),
    ("GET", "/version?"),
    ("GET", "/version#/containers/json"),
    ("GET", "/version\\..\\info"),
    ("GET", "*"),
]


@pytest.mark.parametrize(("method", "target"), DANGEROUS)
def test_what_is_no_call_of_reapers_is_refused_and_does_not_arrive(
    ask: Callable[..., Verdict], method: str, target: str
) -> None:
    verdict = ask(method, target)
    assert verdict.arrived == []
    if verdict.status != 400:  # what is no HTTP never comes to the rules
        assert verdict.status == 403
        assert verdict.body == ("" if method == "HEAD" else f"{REFUSED}\n")
    assert made(method, target) is None or "/logs" in target  # which the operator has to open


def test_logs_pass_where_the_operator_has_opened_them_and_never_without_an_end(tmp_path: Path) -> None:
    target = f"/v1.41/containers/{ID}/logs?stdout=1&stderr=1&tail=200"
    with FaultProxy("/nowhere") as arriving:
        arriving.add(Fault("status", status=200))
        with HaProxy(arriving.socket, tmp_path) as proxy:
            assert proxy.ask("GET", target)[0] == 403
        with HaProxy(arriving.socket, tmp_path, opened=True) as proxy:
            assert proxy.ask("GET", target)[0] == 200
            for more in ("&follow=1", "&since=0", "&details=1"):
                assert proxy.ask("GET", target + more)[0] == 403
        assert [call.path for call in arriving.log] == [target]


def test_what_is_refused_stands_in_the_log_and_what_works_does_not(before_nothing: tuple[HaProxy, FaultProxy]) -> None:
    proxy, _ = before_nothing
    assert proxy.ask("GET", "/v1.41/version")[0] == 200
    assert proxy.ask("POST", "/build?in-the-log=yes")[0] == 403
    until(
        lambda: any(" 403 " in line and "POST /build?in-the-log=yes " in line for line in proxy.lines), "a line in the log"
    )
    assert not any("GET /v1.41/version " in line for line in proxy.lines)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ("Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 11\r\n", b"signal=KILL"),
        ("Transfer-Encoding: chunked\r\n", b"b\r\nsignal=KILL\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", b"0\r\n\r\n"),
        ("Upgrade: tcp\r\n", b""),
        ("Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n", b""),
    ],
)
def test_no_call_has_a_body_but_one_or_becomes_another_protocol(
    ask: Callable[..., Verdict], headers: str, body: bytes
) -> None:
    target = f"/v1.41/containers/{ID}/stop?t=1"
    assert ask("POST", target, "Content-Length: 0\r\n") == (200, ANY, [("POST", target)])
    verdict = ask("POST", target, headers, body)
    assert verdict.status in (400, 403)
    assert verdict.arrived == []


DISCONNECT = b'{"Container": "chess-client-1", "Force": true}'


def length(body: bytes) -> str:
    """The header that announces a body."""
    return f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"


@pytest.mark.parametrize(
    ("body", "passes"),
    [
        (DISCONNECT, True),
        (b"", False),
        (DISCONNECT.replace(b"true", b"false"), False),
        (DISCONNECT + DISCONNECT, False),
        (DISCONNECT + b" " * 70_000, False),
        (DISCONNECT.replace(b"chess", b"../x"), False),
        (DISCONNECT.replace(b"}", b', "Container": "db"}'), False),
    ],
)
def test_the_one_body_is_let_through_as_reaper_writes_it(ask: Callable[..., Verdict], body: bytes, passes: bool) -> None:
    target = f"/v1.41/networks/{ID}/disconnect"
    verdict = ask("POST", target, length(body), body)
    assert verdict.arrived == ([("POST", target)] if passes else [])
    assert (verdict.status == 200) is passes


def test_the_second_request_of_a_connection_is_judged_as_the_first_is(
    before_nothing: tuple[HaProxy, FaultProxy],
) -> None:
    proxy, arriving = before_nothing
    arriving_before = len(arriving.log)
    good, bad = (f"{line} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for line in ("GET /version", "POST /containers/create"))
    last = good.replace(b"Host: x", b"Host: x\r\nConnection: close")
    statuses, _ = proxy.send(good + bad + last)
    assert statuses[:2] == [200, 403]
    statuses, _ = proxy.send(b"GET /version HTTP/1.0\r\nContent-Length: 5\r\n\r\n" + good)
    assert 200 not in statuses
    statuses, _ = proxy.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert 200 not in statuses
    assert {(call.method, call.path) for call in arriving.log[arriving_before:]} == {("GET", "/version")}


PIECES = st.sampled_from(
    [
        *("/", "//", "/..", "/.", "%2e", "%2f", "%2F", "%00", "?", "&", ";", "=", "#", "\\", "*", ":", "@", ".", "-", "+"),
        *("/v1.41", "/v1.24", "/v2.0", "/version", "/containers", "/networks", "/events", "/images", "/volumes", "/exec"),
        *(f"/sha256:{ID}", "noprune=1", "noprune=0", "all=1"),
        *("/json", "/stop", "/create", "/prune", "/start", ID, "chess-1", "all=1", "v=1", "force=1", "t=10", "size=1"),
        *("filters=", "%7B%22label%22:+[%22a=b%22]%7D", "since=1763712000.5", "until=1", "signal=KILL", "http://docker"),
    ]
)
TARGETS = st.one_of(
    st.lists(PIECES, max_size=7).map("".join),
    st.sampled_from(CALLS).flatmap(
        lambda call: st.from_regex(call.pattern, fullmatch=True, alphabet=st.characters(codec="ascii"))
    ),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20).map("/".__add__),
).filter(lambda target: target and not re.search(r"[^!-~]", target))


@settings(max_examples=400, suppress_health_check=[HealthCheck.filter_too_much])
@given(st.sampled_from(["GET", "POST", "DELETE", "PUT", "HEAD"]), TARGETS)
@example("GET", "/containers/json?all=1&filters=%7B%22label%22:+[%22com.docker.compose.project=it's%22]%7D")
def test_it_lets_through_exactly_what_is_on_the_list(ask: Callable[..., Verdict], method: str, target: str) -> None:
    call = made(method, target)
    call = None if call is not None and call.setting else call
    verdict = ask(method, target, *((length(DISCONNECT), DISCONNECT) if call is not None and call.body else ()))
    if call is not None:
        assert (verdict.status, verdict.arrived) == (200, [(method, target)])
    else:
        assert verdict.status in (400, 403)
        assert verdict.arrived == []
