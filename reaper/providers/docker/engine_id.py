"""Identity of a Docker engine, whatever the way to it. A client without an event loop."""

import http.client
import json
import socket
from urllib.parse import quote

from reaper.errors import ConfigError
from reaper.providers.docker import ssh
from reaper.providers.docker.address import tcp_address, tls_context, unix_path
from reaper.providers.docker.settings import DockerTable

ANSWER_WITHIN = 10.0  # seconds for each request: an engine may be busy
LARGEST_ANSWER = 16 << 20  # bytes
_HOST_NETWORK = f"/networks?filters={quote(json.dumps({'name': ['host']}))}"


class IdentityError(Exception):
    """An engine does not say which it is, and why."""


class _RefusedError(IdentityError):
    """It answered something else than 200, such as a proxy that lets little through."""


def identity(engine: DockerTable) -> tuple[object, ...]:
    """Return the identity of an engine, whatever the way to it. Raises IdentityError where it has none.

    Docker makes its network "host" once for all its data. Podman has none, and gives another ID with each answer.
    """
    rows = _get(engine, _HOST_NETWORK)
    rows = rows if isinstance(rows, list) else []
    made = [row.get("Id") for row in rows if isinstance(row, dict) and row.get("Name") == row.get("Driver") == "host"]
    try:
        info = _get(engine, "/info")
    except _RefusedError:
        info = None
    info = info if isinstance(info, dict) else {}
    identity = (made, info.get("Name"), info.get("DockerRootDir"))
    if not any(made) and not all(identity[1:]):
        raise IdentityError(f"the engine at {engine.host} does not identify itself")
    return identity


def _get(engine: DockerTable, path: str) -> object:
    """Return the JSON that the engine answers. Raises IdentityError."""
    connection = None
    try:
        connection = _Connection(engine)
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        content = answer.read(LARGEST_ANSWER + 1)
    except (OSError, http.client.HTTPException, ssh.SshError) as error:
        why = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        raise IdentityError(f"the engine at {engine.host} cannot be asked: GET {path}: {why}") from None
    except ConfigError as error:
        raise IdentityError(error.problem) from None
    finally:
        if connection is not None:
            connection.close()
    if answer.status != http.HTTPStatus.OK:
        raise _RefusedError(f"the engine at {engine.host} cannot be asked: GET {path}: status {answer.status}")
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise IdentityError(f"the engine at {engine.host} cannot be asked: GET {path}: the answer is no JSON") from None


class _Connection(http.client.HTTPConnection):
    """One connection to an engine. Raises ConfigError for TLS files that cannot be used."""

    def __init__(self, engine: DockerTable) -> None:
        self._tls, self._tunnel = tls_context(engine), ssh.tunnel_to(engine)
        self._path = unix_path(engine) if self._tunnel is None else self._tunnel.path
        host, port = ("docker", None) if self._path is not None else tcp_address(engine)
        super().__init__(host, port, timeout=ANSWER_WITHIN)

    def connect(self) -> None:
        """See the base class. Raises SshError, too."""
        if self._tunnel is not None:
            self._tunnel.open_now()
        if self._path is not None:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._path)
            return
        super().connect()
        if self._tls is not None:
            self.sock = self._tls.wrap_socket(self.sock, server_hostname=self.host)

    def close(self) -> None:
        """See the base class."""
        super().close()
        if self._tunnel is not None:
            self._tunnel.leave()
            self._tunnel = None
