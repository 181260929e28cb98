"""docker-py, which harnesses are written with, through the proxy."""

import importlib
import io
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest

from devkit.engine import PrivateEngine
from tests import needs
from tests.proxy.commands import tar_of, until
from tests.proxy.lab import Proxied

pytestmark = [pytest.mark.engine, pytest.mark.engines(*needs.DOCKERS)]
docker: Any = importlib.import_module("docker")  # it has no types


@pytest.fixture
def client(engine: PrivateEngine) -> Iterator[Any]:
    with Proxied(engine.host) as proxied:
        client = docker.DockerClient(base_url=proxied.host, version="auto")
        yield client
        client.close()
        until(lambda: proxied.connections == 0, "the last connection's end")
        assert proxied.told == []


def test_what_harnesses_do(client: Any) -> None:
    assert client.containers.run("bench:1", ["echo", "hello"], remove=True) == b"hello\n"
    events = client.events(decode=True)
    container = client.containers.run("bench:1", ["sleep", "infinity"], detach=True, labels={"a": "b"})
    assert container.labels == {"a": "b", "reaper.lease": "run-1"}
    assert client.networks.create("net", driver="bridge").attrs["Labels"] == {"reaper.lease": "run-1"}
    assert client.volumes.create("vol").attrs["Labels"] == {"reaper.lease": "run-1"}
    assert next(event["Action"] for event in events if event.get("id") == container.id) == "create"
    events.close()

    assert container.exec_run(["sh", "-c", "echo out; exit 4"]) == (4, b"out\n")
    assert container.put_archive("/", tar_of([("big", b"x" * 5_000_000)]))
    stream, stat = container.get_archive("/big")
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
        found = tar.extractfile("big")
        assert found is not None
        assert found.read() == b"x" * 5_000_000
    assert stat["size"] == 5_000_000

    _, sock = container.exec_run(["cat"], stdin=True, socket=True, tty=True)
    sock._sock.sendall(b"ping\n")
    assert sock._sock.recv(100) in (b"ping\r\n", b"ping\r\nping\r\n")
    sock._response.close()  # or docker-py leaves that to the garbage collection
    sock.close()

    logs = container.logs(stream=True, follow=True)
    container.kill()
    assert list(logs) == []
    logs.close()
    image, _ = client.images.build(fileobj=io.BytesIO(b"FROM bench:1\nRUN echo built\n"), forcerm=True)
    assert client.containers.run(image.id, ["true"], remove=True) == b""
    container.remove(force=True)
    with pytest.raises(docker.errors.NotFound):
        client.containers.get(container.id)
