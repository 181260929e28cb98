"""What an engine tells of a container before its deletion: the same on the simulated engine as on real ones, and bounded."""

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web

from devkit.client import EngineClient
from reaper.errors import NotFoundError, ProviderError, UnreadableError
from reaper.providers.abilities import Evidence
from reaper.providers.docker.client import DockerProvider
from reaper.providers.docker.evidence import KEPT, LONGEST_SECRET, READ, Unframed
from reaper.providers.docker.settings import DockerTable
from tests import needs
from tests.providers.lab import NAME, direct
from tests.simulator.docker_world import World

pytestmark = pytest.mark.anyio
SECRET = "hunter2s3cr3t"
EVERYWHERE = pytest.mark.engines(*needs.ENGINES)
ID = "0123456789abcdef" * 4


# -- simulated and real engines ----------------------------------------------------------------------------------------


async def told(engine: EngineClient, ident: str, lines: int = 200) -> Evidence:
    """The evidence of one container."""
    provider = DockerProvider(DockerTable(name=NAME, host=engine.host))
    try:
        inventory = await provider.list(direct)
        resource = next(r for r in inventory.resources if r.id == ident)
        return await provider.evidence(resource, lines)
    finally:
        await provider.close()


async def told_when(engine: EngineClient, ident: str, is_so: Callable[[Evidence], bool]) -> Evidence:
    """The evidence of one container, when it is as wanted."""
    with anyio.fail_after(60):
        found = await told(engine, ident)
        return found if is_so(found) else await told_when(engine, ident, is_so)


def ended(engine: EngineClient, script: str, **more: Any) -> str:
    ident = engine.create("it", cmd=("sh", "-c", script), start=True, **more)
    engine.wait_state(ident, "exited")
    return ident


def state(found: Evidence) -> Any:
    return found.inspection["State"]


@EVERYWHERE
async def test_it_has_the_exit_code_and_the_last_lines_of_both_streams(any_engine: EngineClient) -> None:
    script = "echo one; echo two; echo three >&2; exit 3"
    ident = await asyncio.to_thread(ended, any_engine, script, env=[f"API_KEY={SECRET}", "TEAM=rl"])
    found = await told(any_engine, ident)
    assert (state(found)["Status"], state(found)["ExitCode"], state(found)["OOMKilled"]) == ("exited", 3, False)
    assert sorted((found.log or "").splitlines()) == ["one", "three", "two"]
    assert (found.note, found.problem) == ("", "")
    assert SECRET not in json.dumps(found.inspection)
    assert {"API_KEY=***", "TEAM=rl"} <= set(found.inspection["Config"]["Env"])  # type: ignore[index]
    two = await told(any_engine, ident, lines=2)
    assert len((two.log or "").splitlines()) == 2
    none = await told(any_engine, ident, lines=0)
    assert (none.log, none.inspection) == (None, found.inspection)


@EVERYWHERE
async def test_what_a_terminal_shows_has_no_frames(any_engine: EngineClient) -> None:
    ident = await asyncio.to_thread(ended, any_engine, "echo one; echo two", tty=True)
    found = await told(any_engine, ident)
    assert (found.log or "").replace("\r\n", "\n") == "one\ntwo\n"


@EVERYWHERE
async def test_one_that_runs_and_one_that_never_ran(any_engine: EngineClient) -> None:
    runs = await asyncio.to_thread(any_engine.create, "runs", cmd=("sh", "-c", "echo begun; sleep 600"), start=True)
    found = await told_when(any_engine, runs, lambda found: bool(found.log))
    assert (state(found)["Status"], found.log) == ("running", "begun\n")
    never = await asyncio.to_thread(any_engine.create, "never")
    found = await told(any_engine, never)
    assert (state(found)["Status"], found.log, found.note) == ("created", "", "")
    await asyncio.to_thread(any_engine.remove, runs, force=True)


@EVERYWHERE
async def test_a_log_that_no_engine_can_read_is_no_problem(any_engine: EngineClient) -> None:
    body = {"Image": "bench:1", "Cmd": ["true"], "HostConfig": {"LogConfig": {"Type": "none"}}, "NetworkDisabled": True}
    ident = (await asyncio.to_thread(any_engine.api.must, "POST", "/containers/create?name=silent", body))["Id"]
    await asyncio.to_thread(any_engine.start_container, ident)
    found = await told(any_engine, ident)
    assert found.log in (None, "")
    assert found.problem == ""
    assert state(found)["Status"] in ("running", "exited")


@EVERYWHERE
async def test_one_that_is_gone(any_engine: EngineClient) -> None:
    ident = await asyncio.to_thread(ended, any_engine, "echo one")
    provider = DockerProvider(DockerTable(name=NAME, host=any_engine.host))
    resource = next(r for r in (await provider.list(direct)).resources if r.id == ident)
    await asyncio.to_thread(any_engine.remove, ident)
    with pytest.raises(NotFoundError):
        await provider.evidence(resource, 200)
    await provider.close()


@pytest.mark.engines("docker-20.10", "docker-28.5")
async def test_it_has_the_health_that_a_stop_would_hide(engine: EngineClient) -> None:
    health = {"Test": ["CMD", "true"], "Interval": 10**8, "Timeout": 10**9, "Retries": 1}
    body = {"Image": "bench:1", "Cmd": ["sleep", "600"], "Healthcheck": health, "NetworkDisabled": True}
    ident = (await asyncio.to_thread(engine.api.must, "POST", "/containers/create?name=well", body))["Id"]
    await asyncio.to_thread(engine.start_container, ident)
    found = await told_when(engine, ident, lambda found: state(found)["Health"]["Status"] == "healthy")
    assert state(found)["Running"] is True
    await asyncio.to_thread(engine.stop_container, ident, 0)
    assert state(await told(engine, ident))["Health"]["Status"] == "unhealthy"


async def test_one_that_ran_out_of_memory(world: World) -> None:
    from reaper.simulator.docker.model import Behaviour

    ident = world.add("it", behaviour=Behaviour(runs=0, code=137, oom=True), state="exited").id
    found = await told(world, ident)
    assert state(found)["OOMKilled"] is True


# -- an engine that answers what it likes ------------------------------------------------------------------------------

Log = Callable[[web.StreamResponse], Any]


@asynccontextmanager
async def hostile(folder: Path, log: Log, **inspection: Any) -> AsyncIterator[DockerProvider]:
    """An engine that writes this as the log of its one container."""
    row = {"Id": ID, "Name": "/it", "State": {"Status": "exited"}, "Config": {"Tty": False, "Env": []}, **inspection}

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/version"):
            return web.json_response({"ApiVersion": "1.41"})
        if request.path.endswith(f"/containers/{ID}/json"):
            return web.json_response(row)
        assert request.path.endswith(f"/containers/{ID}/logs")
        assert dict(request.query) == {"stdout": "1", "stderr": "1", "tail": "200"}
        response = web.StreamResponse()
        await response.prepare(request)
        await log(response)
        return response

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(folder / "engine.sock")).start()
    provider = DockerProvider(DockerTable(name=NAME, host=f"unix://{folder}/engine.sock"))
    try:
        yield provider
    finally:
        await provider.close()
        await runner.cleanup()


RESOURCE: Any = type("It", (), {"id": ID})()


def frame(text: bytes, stream: int = 1) -> bytes:
    return struct.pack(">BxxxI", stream, len(text)) + text


async def of(folder: Path, log: Log, **inspection: Any) -> Evidence:
    async with hostile(folder, log, **inspection) as provider:
        return await provider.evidence(RESOURCE, 200)


async def test_a_log_without_an_end_is_read_to_a_bound(tmp_path: Path) -> None:
    sent = 0

    async def log(response: web.StreamResponse) -> None:
        nonlocal sent
        part = frame(b"x" * 1000 + b"\n") * 64
        with anyio.move_on_after(20):
            while True:
                await response.write(part)
                sent += len(part)

    found = await of(tmp_path, log)
    assert found.note == f"it had no end within {READ >> 20} MiB"
    assert 0 < len(found.log or "") <= KEPT
    assert sent < 2 * READ + (8 << 20)


async def test_the_end_of_a_long_log_is_kept(tmp_path: Path) -> None:
    async def log(response: web.StreamResponse) -> None:
        for i in range(1500):
            await response.write(frame(f"{i} {'x' * 1000}\n".encode(), 1 + i % 2))

    found = await of(tmp_path, log)
    assert found.note == f"only its last {KEPT >> 10} KiB are kept"
    assert KEPT - 2000 < len(found.log or "") <= KEPT
    assert (found.log or "").splitlines()[-1].startswith("1499 x")


@pytest.mark.parametrize("shift", [0, 1, 7, len(SECRET) - 1])
@pytest.mark.parametrize("newline", [b"", b"\n"])
async def test_no_half_of_a_secret_is_left_where_a_log_is_cut(tmp_path: Path, shift: int, newline: bytes) -> None:
    """The secret begins before what is kept of the log, and ends in it."""
    rest = KEPT + LONGEST_SECRET - shift

    async def log(response: web.StreamResponse) -> None:
        whole = b"y" * 700_000 + SECRET.encode() + newline + (b"z" * 100 + newline) * 10_000
        at = len(whole) - rest - 1
        whole = whole[:at] + SECRET.encode() + whole[at:][len(SECRET) :]
        for start in range(0, len(whole), 16384):
            await response.write(frame(whole[start : start + 16384]))

    found = await of(tmp_path, log, Config={"Tty": False, "Env": [f"API_KEY={SECRET}"]})
    assert found.log
    for part in (SECRET[shift:], SECRET[-6:]):
        assert part not in found.log


async def test_a_secret_that_lies_in_two_parts_of_the_log_is_masked(tmp_path: Path) -> None:
    async def log(response: web.StreamResponse) -> None:
        for byte in frame(b"it is " + SECRET[:5].encode()) + frame(SECRET[5:].encode() + b"\n"):
            await response.write(bytes([byte]))

    found = await of(tmp_path, log, Config={"Tty": False, "Env": [f"API_KEY={SECRET}"]})
    assert found.log == "it is ***\n"


async def nothing(_: web.StreamResponse) -> None:
    """Writes nothing."""


ODD: dict[str, tuple[bytes, str]] = {
    "no UTF-8": (frame(b"\xff\xfe\n"), "\\xff\\xfe\n"),
    "control characters": (frame(b"\x1b[2J\x00\n"), "\x1b[2J\x00\n"),
    "no frames": (b"plain text\n", "plain text\n"),
    "a frame that is cut off": (frame(b"0123456789")[:-3], "0123456"),
    "a head that is cut off": (frame(b"one\n") + b"\x01\x00", "one\n"),
    "an empty frame": (frame(b"") + frame(b"one\n"), "one\n"),
    "a frame of four gigabytes": (b"\x01\0\0\0\xff\xff\xff\xffone\n", "one\n"),
    "nothing": (b"", ""),
}


@pytest.mark.parametrize("odd", ODD)
async def test_an_odd_log_is_taken_as_it_is(tmp_path: Path, odd: str) -> None:
    sent, expected = ODD[odd]

    async def log(response: web.StreamResponse) -> None:
        if sent:
            await response.write(sent)

    assert (await of(tmp_path, log)).log == expected


async def test_frames_are_found_however_the_bytes_arrive() -> None:
    whole = frame(b"one\n") + frame(b"", 2) + frame(b"two\n", 2) + frame(b"x" * 300)
    for size in (1, 3, 8, 13, 400):
        plain = Unframed(tty=False)
        assert (
            b"".join(b"".join(plain.feed(whole[i : i + size])) for i in range(0, len(whole), size))
            == b"one\ntwo\n" + b"x" * 300
        )


async def test_a_log_that_breaks_off_is_a_problem_and_the_inspection_is_there(tmp_path: Path) -> None:
    async def log(response: web.StreamResponse) -> None:
        await response.write(frame(b"one\n"))
        assert response._req is not None
        assert response._req.transport is not None
        response._req.transport.abort()

    found = await of(tmp_path, log)
    assert (found.log, state(found)) == (None, {"Status": "exited"})
    assert found.problem.startswith("its log could not be read: ")


async def test_an_inspection_of_something_else_is_no_evidence(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="something else"):
        await of(tmp_path, nothing, Id="f" * 64)


async def test_too_many_secrets_are_no_evidence(tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match="too many secrets"):
        await of(tmp_path, nothing, Config={"Env": ["A_KEY=" + "\n".join(f"secret-{i}" for i in range(5000))]})
