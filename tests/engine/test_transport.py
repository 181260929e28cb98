"""The ways to an engine besides its unix socket: TCP, and TCP with TLS and certificates on both sides."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from devkit.engine import PrivateEngine
from devkit.faults import FaultProxy
from tests.engine.lab import IMPATIENT, OWNED, WAITS, containers, exited, toml
from tests.engine.tls import TlsServer, authority, certificate
from tests.run import Program

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Server and client of one authority, and stranger of another."""
    folder = tmp_path_factory.mktemp("certificates")
    ca = authority(folder / "ca")
    certificate(ca, folder / "server", "serverAuth")
    certificate(ca, folder / "elsewhere", "serverAuth", address="10.1.2.3")
    certificate(ca, folder / "client", "clientAuth")
    certificate(authority(folder / "other-ca"), folder / "stranger", "clientAuth")
    return folder


@pytest.fixture
def server(engine: PrivateEngine, certificates: Path) -> Iterator[TlsServer]:
    exited(engine, "exited")
    engine.create("running", labels=OWNED, cmd=WAITS, start=True)
    engine.create("unowned", labels={}, cmd=WAITS, start=True)
    with TlsServer(engine.socket, certificates / "server") as server:
        yield server


def test_tcp(engine: PrivateEngine, program: Program) -> None:
    exited(engine, "exited")
    engine.create("running", labels=OWNED, cmd=WAITS, start=True)
    with FaultProxy(engine.socket, port=0) as proxy:
        assert proxy.host.startswith("tcp://127.0.0.1:")
        ended = program("--once", "--all", "--json", env={"DOCKER_HOST": proxy.host})
        assert len(proxy.calls("DELETE")) == 2
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"exited": "deleted", "running": "deleted"}
    assert containers(engine) == set()


def tls(server: TlsServer, certificates: Path | None) -> dict[str, str]:
    where = {} if certificates is None else {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(certificates)}
    return {"DOCKER_HOST": server.host, **where, **IMPATIENT}


def test_tls_by_the_environment(engine: PrivateEngine, program: Program, server: TlsServer, certificates: Path) -> None:
    ended = program("--once", "--all", "--json", env=tls(server, certificates / "client"))
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"exited": "deleted", "running": "deleted"}
    assert containers(engine) == {"unowned"}
    assert server.accepted


def test_tls_by_the_file(engine: PrivateEngine, program: Program, server: TlsServer, certificates: Path) -> None:
    files = {"tls_ca": "ca.pem", "tls_cert": "cert.pem", "tls_key": "key.pem"}
    text = f'[[docker]]\nname = "gpu-1"\nhost = "{server.host}"\n'
    text += "".join(f'{key} = "{certificates / "client" / name}"\n' for key, name in files.items())
    ended = program("--once", "--all", "--json", *toml(program.folder, text))
    assert ended.code == 0, ended.err
    assert ended.document["endpoints"][0]["endpoint"] == "gpu-1"
    assert containers(engine) == {"unowned"}


@pytest.mark.parametrize("who", ["stranger", "no-certificate"])
def test_bad_credentials_delete_nothing(
    engine: PrivateEngine, program: Program, server: TlsServer, certificates: Path, who: str
) -> None:
    """A certificate of another authority, which does not know the server either, and a client that speaks no TLS."""
    env = tls(server, None if who == "no-certificate" else certificates / who)
    ended = program("--once", "--all", "--json", env=env)
    assert ended.code == 5, ended.err
    assert ended.outcomes() == {}
    assert server.accepted == 0
    assert containers(engine) == {"exited", "running", "unowned"}
    assert len(engine.ids(all=False)) == 2


def test_a_server_with_another_name_is_not_believed(engine: PrivateEngine, program: Program, certificates: Path) -> None:
    exited(engine, "exited")
    with TlsServer(engine.socket, certificates / "elsewhere") as server:
        ended = program("--once", "--all", "--json", env=tls(server, certificates / "client"))
    assert ended.code == 5, ended.err
    assert "certificate" in ended.document["endpoints"][0]["failure"]["message"].lower()
    assert containers(engine) == {"exited"}
