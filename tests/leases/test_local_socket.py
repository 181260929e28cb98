"""The local socket: who may do what there, by the word of the kernel, and who listens."""

import gc
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from reaper import paths as places
from reaper.errors import ConfigError
from reaper.leases import http_api, local_socket
from reaper.leases.local_socket import LocalSocket
from reaper.leases.peers import Peer, user_name
from reaper.leases.record import LeaseRecord, LeaseState, Liveness
from tests import needs
from tests.leases.others import NAMELESS, NOBODY, ask
from tests.library.service import ENDPOINTS, Log, Service, serving

TOKEN = "s3cret"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
NAMES = {"claims": [{"names": ["chess-*"]}]}
LABEL = {"claims": [{"labels": ["org.testcontainers.session-id=abc"]}]}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A directory that every user can enter: pytest's are for their owner."""
    folder = Path(tempfile.mkdtemp(prefix="reaper-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def path(reachable: Path) -> Path:
    return reachable / "run" / places.SOCKET


@pytest.fixture
def service(tmp_path: Path, path: Path) -> Iterator[Service]:
    with serving(tmp_path / "state", socket=path) as found:
        yield found


def over_tcp(service: Service, method: str, target: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    headers = {"Content-Type": "application/json", **headers}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{service.url}{target}", data, headers, method=method)
    opener = urllib.request.build_opener(_EveryStatus)
    with opener.open(request, timeout=60) as answer:
        return answer.status, json.loads(answer.read())


class _EveryStatus(urllib.request.HTTPErrorProcessor):
    def http_response(self, _: Any, response: Any) -> Any:
        return response


# -- who may do what ---------------------------------------------------------------------------------------------------


def test_others_may_take_little_and_the_kernel_says_who_they_are(service: Service) -> None:
    forged = {"holder": {"host": "elsewhere", "pid": 1, "user": "root", "command": "harbor run"}, "id": "own"}
    own, label, names, page = ask(
        service.socket,
        NOBODY,
        ("POST", "/leases", forged),
        ("POST", "/leases", LABEL),
        ("POST", "/leases", NAMES),
        ("GET", "/metrics"),
    )
    assert (own[0], label[0], names[0], page[0]) == (201, 201, 403, 404)
    assert "need a token" in names[1]["error"]
    assert own[1]["endpoints"] == sorted(ENDPOINTS)
    holder = service.records()["own"].holder
    assert (holder.host, holder.user, holder.uid) == (os.uname().nodename, user_name(NOBODY), NOBODY)
    assert holder.pid not in (None, 1, os.getpid())
    assert holder.started is not None
    assert holder.command == "harbor run"


@pytest.mark.parametrize("who", ["root", "the service's own user", "a trusted user", "who has the token"])
def test_who_is_trusted_may_claim_everything(tmp_path: Path, path: Path, who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    needs.root("only root can be other users")
    uid = 0 if who == "root" else NAMELESS
    own = NAMELESS if who == "the service's own user" else NOBODY  # which cannot be told from unknown users
    monkeypatch.setattr(os, "geteuid", lambda: own)
    trusted = (NAMELESS,) if who == "a trusted user" else ()
    headers = BEARER if who == "who has the token" else {}
    with serving(tmp_path / "state", token=TOKEN, socket=path, trusted=trusted) as service:
        monkeypatch.undo()
        ((status, _),) = ask(path, uid, ("POST", "/leases", {**NAMES, "id": "all"}, headers))
        assert status == 201
        assert service.records()["all"].holder.uid == uid
        found = ask(path, NOBODY, ("POST", "/leases", NAMES), ("POST", "/leases", {"id": "own"}), ("GET", "/leases"))
        assert [status for status, _ in found] == [403, 201, 200]
        wrong = {"Authorization": "Bearer wrong"}
        assert ask(path, NOBODY, ("POST", "/leases", {}, wrong))[0][0] == 401


def test_a_lease_belongs_to_who_took_it(service: Service) -> None:
    assert ask(service.socket, 0, ("POST", "/leases", {"id": "roots"}))[0][0] == 201
    assert ask(service.socket, NOBODY, ("POST", "/leases", {"id": "mine"}))[0][0] == 201
    assert over_tcp(service, "POST", "/leases", {"holder": {"host": "gpu-1"}, "id": "tcp"})[0] == 201

    touch = [("PUT", "/leases/{}"), ("POST", "/leases", "{}"), ("POST", "/leases", "{}", "hold"), ("DELETE", "/leases/{}")]

    def statuses(uid: int, id_: str) -> set[int]:
        requests: list[Any] = [
            (method, target.format(id_)) if not more else (method, target, {"id": id_, "hold": "hold" in more})
            for method, target, *more in touch
        ]
        found = ask(service.socket, uid, *requests)
        assert all(user_name(0) in told["error"] or id_ != "roots" for _, told in found)
        return {status for status, _ in found}

    # Another user's id is taken, and what is held under it is not touched.
    assert statuses(NOBODY, "roots") == {403, 409}
    assert statuses(NAMELESS, "mine") == {403, 409}
    assert statuses(NOBODY, "tcp") == {403, 409}
    for id_ in ("roots", "mine"):
        assert over_tcp(service, "PUT", f"/leases/{id_}")[0] == 403
        status, told = over_tcp(service, "DELETE", f"/leases/{id_}")
        assert (status, told["error"].endswith("who took it over the local socket; use that")) == (403, True)
    assert {record.state for record in service.records().values()} == {LeaseState.LIVE}
    assert [status for status, _ in ask(service.socket, NOBODY, ("PUT", "/leases/mine"))] == [200]
    assert [status for status, _ in ask(service.socket, 0, ("DELETE", "/leases/mine"), ("DELETE", "/leases/tcp"))] == [
        200
    ] * 2
    assert ask(service.socket, NOBODY, ("DELETE", "/leases/unowned"))[0][0] == 404


def test_no_user_shares_a_lease_whose_id_another_user_has_taken_first(service: Service) -> None:
    """Else the other one could end it, and what root's run has made would go."""
    assert ask(service.socket, NOBODY, ("POST", "/leases", {"id": "nightly"}))[0][0] == 201
    assert over_tcp(service, "POST", "/leases", {"holder": {"host": "gpu-1", "pid": 1}, "id": "tcp"})[0] == 201
    for hold in (False, True):
        for uid, id_ in ((0, "nightly"), (NAMELESS, "nightly"), (0, "tcp")):
            ((status, told),) = ask(service.socket, uid, ("POST", "/leases", {"id": id_, "hold": hold}))
            assert status == 409
            assert told["error"].endswith("take another id")
    for holder, status in (
        ({"host": "gpu-1", "pid": 2}, 409),
        ({"host": "gpu-2", "pid": 1}, 409),
        ({"host": "gpu-1", "pid": 1}, 200),
    ):
        assert over_tcp(service, "POST", "/leases", {"holder": holder, "id": "tcp"})[0] == status
    assert over_tcp(service, "POST", "/leases", {"holder": {"host": "gpu-1"}, "id": "nightly"})[0] == 409
    assert service.records()["nightly"].holder.uid == NOBODY


def test_with_a_token_tcp_may_touch_what_is_held_over_the_socket(tmp_path: Path, path: Path) -> None:
    with serving(tmp_path / "state", token=TOKEN, socket=path) as service:
        assert ask(path, NOBODY, ("POST", "/leases", {"id": "mine"}))[0][0] == 201
        assert over_tcp(service, "DELETE", "/leases/mine")[0] == 401
        status, lease = over_tcp(service, "POST", "/leases", {"holder": {"host": "gpu-1"}}, **BEARER)
        assert (status, lease["endpoints"]) == (201, sorted(ENDPOINTS))
        assert over_tcp(service, "DELETE", "/leases/mine", **BEARER)[0] == 200


def test_without_a_token_tcp_does_not_tell_what_is_swept(service: Service) -> None:
    status, lease = over_tcp(service, "POST", "/leases", {"holder": {"host": "gpu-1"}})
    assert (status, "endpoints" in lease) == (201, False)
    assert over_tcp(service, "POST", "/leases", {}) == (400, {"error": "holder: Field required"})


def test_one_user_cannot_take_all_there_are(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_api, "MOST_OF_ONE", 2)
    found = ask(service.socket, NOBODY, *[("POST", "/leases", {})] * 3)
    assert [status for status, _ in found] == [201, 201, 429]
    assert found[2][1]["error"] == f"2 leases of {user_name(NOBODY)} are open already"
    assert ask(service.socket, NAMELESS, ("POST", "/leases", {}))[0][0] == 201


def test_who_holds_on_keeps_nothing_of_what_was_read_for_the_answer(service: Service) -> None:
    gc.collect()
    before = leases_in_memory()
    with ExitStack() as stack:
        for _ in range(40):
            connection = stack.enter_context(closing(http.client.HTTPConnection("localhost", timeout=60)))
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(str(service.socket))
            connection.request("POST", "/leases", b'{"hold": true}')
            assert stack.enter_context(connection.getresponse()).status == 201
        gc.collect()
        assert 40 <= leases_in_memory() - before < 40 * 10


def leases_in_memory() -> int:
    return sum(isinstance(one, LeaseRecord) for one in gc.get_objects())


# -- how holders die ---------------------------------------------------------------------------------------------------

HOLDS = r"""
import os, sys, time
from reaper import lease
os.setgroups([]), os.setgid(65534), os.setuid(65534)
with lease(name="mine", url=sys.argv[1]) as held:
    child = os.fork()
    if not child:
        os.setsid()
    os.write(1, f"{held.state if child else os.getpid()}\n".encode())  # two that write at once: a line each
    time.sleep(600)
"""


def test_a_holder_that_is_killed_holds_no_more_though_its_children_live(tmp_path: Path, path: Path) -> None:
    needs.root("only root can be other users")
    with serving(tmp_path / "state", socket=path, window=timedelta(seconds=1)) as service:
        command = [sys.executable, "-c", HOLDS, service.local_url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder, killed_by(service.local_url):
            assert holder.stdout is not None
            lines = [holder.stdout.readline().strip() for _ in range(2)]
            assert "live" in lines, lines
            (child,) = (line for line in lines if line != "live")
            assert service.records()["mine"].state is LeaseState.LIVE
            assert service.records()["mine"].holder.pid == holder.pid
            holder.kill()
            assert service.until("mine", LeaseState.EXPIRED).cause == "its connection was gone for 1 s"
            os.kill(int(child), 0)


@contextmanager
def killed_by(word: str) -> Iterator[None]:
    """Kills all processes with this word in their command line in the end: a test that fails waits for none of them."""
    try:
        yield
    finally:
        subprocess.run(["pkill", "-KILL", "-f", word], check=False)


def test_of_two_processes_that_hold_one_lease_by_its_name_the_last_one_gives_it_back(service: Service) -> None:
    """As jobs that run side by side with one name: when the first one ends, the containers of the other one live."""
    script = """
import sys
from reaper import lease
with lease(name="nightly", url=sys.argv[1]) as held:
    print(held.state, flush=True)
    sys.stdin.readline()
"""
    command = [sys.executable, "-c", script, service.local_url]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as one,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other,
    ):
        for job in (one, other):
            assert job.stdout is not None
            assert job.stdout.readline() == "live\n"
        one.communicate("\n", timeout=60)
        assert service.records()["nightly"].state is LeaseState.LIVE
        other.communicate("\n", timeout=60)
        assert service.records()["nightly"].state is LeaseState.RELEASED


def test_a_child_that_leaves_the_block_does_not_give_back_its_parents_lease(service: Service) -> None:
    script = """
import os, sys
from reaper import lease
with lease(name="mine", url=sys.argv[1]):
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0
        print("alone", flush=True)
        sys.stdin.readline()
"""
    command = [sys.executable, "-c", script, service.local_url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == "alone\n"
        assert service.records()["mine"].state is LeaseState.LIVE
        holder.stdin.close()
        assert holder.wait(60) == 0
    assert service.records()["mine"].state is LeaseState.RELEASED
    assert service.records()["mine"].sort is Liveness.CONNECTION


# -- who listens -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def listening(*paths: Path, log: Log, named: bool = False) -> AsyncIterator[LocalSocket]:
    local = LocalSocket(lambda: None, [*map(str, paths)], named=named, log=log.bound())
    await local.open()
    async with anyio.create_task_group() as group:
        group.start_soon(local.run)
        yield local
        group.cancel_scope.cancel()
    await local.close()


async def until_it_answers(path: Path) -> None:
    with anyio.fail_after(60):
        while not await answers(path):  # noqa: ASYNC110 - a file
            await anyio.sleep(0.02)


async def answers(path: Path) -> bool:
    try:
        async with await anyio.connect_unix(path) as stream:
            await stream.send(b"GET / HTTP/1.0\r\n\r\n")
            return (await stream.receive()).startswith(b"HTTP/1.0 404 ")
    except OSError:
        return False


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def put_a_file_there(path: Path) -> int:
    path.unlink()
    path.touch()
    return inode(path)


def inode(path: Path) -> int:
    return path.stat().st_ino


@pytest.mark.anyio
async def test_everybody_reaches_it_whatever_the_umask_and_it_is_removed_at_the_end(path: Path) -> None:
    log, before = Log(), os.umask(0o077)
    try:
        async with listening(path, log=log) as local:
            assert local.path == path
            assert (mode(path), mode(path.parent)) == (0o666, 0o755)
            status, told = (await anyio.to_thread.run_sync(lambda: ask(path, NOBODY, ("GET", "/leases"))))[0]
            assert (status, told["error"]) == (503, "the leases cannot be read now; the log says why")
    finally:
        os.umask(before)
    assert list(path.parent.iterdir()) == []
    assert log.lines == [("local_socket", {"path": str(path)})]


@pytest.mark.anyio
async def test_what_a_dead_service_left_is_replaced(path: Path) -> None:
    needs.root("only root can be other users")
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    (path.parent / f"{path.name}.lock").touch()
    log = Log()
    async with listening(path, log=log):
        assert await answers(path)
    assert log.events() == ["local_socket"]


@pytest.mark.anyio
async def test_anothers_socket_is_left_to_it_until_it_ends(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_socket, "LOOK_AGAIN", 0.02)
    first, second = Log(), Log()
    async with listening(path, log=first) as old:
        found = inode(path)
        async with listening(path, log=second, named=True) as new:
            assert (new.path, second.events()) == (None, ["local_socket_taken"])
            assert await answers(path)
            assert inode(path) == found
            await old.close()
            await until_it_answers(path)
            assert new.path == path
    assert second.events() == ["local_socket_taken", "local_socket"]
    assert first.events() == ["local_socket"], "once it is closed, it looks after nothing more"


@pytest.mark.anyio
async def test_a_socket_of_some_other_program_and_what_is_no_socket_stay(path: Path, tmp_path: Path) -> None:
    log, file = Log(), tmp_path / "file"
    path.parent.mkdir()
    file.write_text("mine")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        found = inode(path)
        async with listening(path, log=log) as local:
            assert local.path is None
            assert inode(path) == found
        async with listening(file, log=log) as local:
            assert local.path is None
    assert [(event, fields["problem"]) for event, fields in log.lines] == [
        ("local_socket_taken", "another service listens there; its place is taken when it ends"),
        ("local_socket_failed", "there is something else, which is no socket"),
    ]
    assert file.read_text() == "mine"


@pytest.mark.anyio
async def test_one_that_was_removed_comes_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_socket, "LOOK_AGAIN", 0.02)
    async with listening(path, log=Log()):
        shutil.rmtree(path.parent)
        await until_it_answers(path)


@pytest.mark.anyio
async def test_what_has_taken_its_place_is_not_removed_at_its_end(path: Path) -> None:
    async with listening(path, log=Log()):
        found = put_a_file_there(path)
    assert inode(path) == found


@pytest.mark.anyio
async def test_where_it_cannot_be_the_next_place_is_taken_and_that_is_said(tmp_path: Path, path: Path) -> None:
    log, closed = Log(), tmp_path / "file"
    closed.touch()
    long = tmp_path / ("x" * 100) / "y.sock"
    async with listening(closed / "reaper" / "a.sock", long, path, log=log) as local:
        assert local.path == path
    assert log.events() == ["local_socket_failed", "local_socket_failed", "local_socket"]
    assert [fields["problem"] for _, fields in log.lines[:2]] == ["Not a directory", "it is longer than 107 bytes"]
    with pytest.raises(ConfigError, match=r"no socket can be made at .*file/a\.sock: Not a directory"):
        async with listening(closed / "a.sock", log=log, named=True):
            raise AssertionError


def test_a_peer_in_words(tmp_path: Path) -> None:
    here, there = socket.socketpair()
    with here, there:
        peer = Peer.of(here)
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.geteuid(), os.getegid())
    with Path("/proc/self/stat").open() as stat:
        assert peer.started() == stat.read().rpartition(")")[2].split()[19]
    assert Peer(None, 0, 0).started() is None
    assert Peer(2**22 + 1, 0, 0).started() is None
    assert user_name(NAMELESS) == str(NAMELESS)


@pytest.mark.parametrize(
    ("uid", "env", "expected"),
    [
        (0, {"RUNTIME_DIRECTORY": "/run/one:/run/two"}, ("/run/one", "/s")),
        (0, {}, ("/run/reaper", "/s")),
        (1000, {"XDG_RUNTIME_DIR": "/run/user/1000"}, ("/run/user/1000/reaper", "/s")),
        (1000, {}, ("/s",)),
        (1000, {"RUNTIME_DIRECTORY": "/s"}, ("/s",)),
    ],
)
def test_where_it_is_by_default(
    uid: int, env: dict[str, str], expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert places.sockets_to_listen_on({"STATE_DIRECTORY": "/s", **env}) == tuple(f"{one}/reaper.sock" for one in expected)
