"""The objects of other packages that the library takes, and the endpoints to which they belong.

None of these packages is imported: what an object is shows in its attributes. Where they do not say to which endpoint it
belongs, it is the configured one, as for an id.
"""

from typing import Protocol
from urllib.parse import urlsplit

from reaper.errors import ConfigError


class SandboxObject(Protocol):
    """A sandbox of the package ``daytona``: ``Sandbox`` or ``AsyncSandbox``."""

    @property
    def id(self) -> str:
        """Its id."""
        ...


class ContainerObject(Protocol):
    """A container of docker-py or of aiodocker."""

    @property
    def id(self) -> str:
        """Its whole id."""
        ...


def id_of(wanted: str | SandboxObject | ContainerObject, what: str) -> str:
    """The id of an object, or the text itself.

    Args:
        wanted: what the caller gave.
        what: should be given, for messages.

    Raises TypeError for anything else.
    """
    id_ = wanted if isinstance(wanted, str) else getattr(wanted, "id", None)
    if not isinstance(id_, str) or not id_:
        raise TypeError(f"{what} is wanted, not {type(wanted).__name__}")
    return id_


def organisation_of(holder: object) -> tuple[str, str] | None:
    """API key and URL of a client of ``daytona``, or of a sandbox that it has made; None where it does not say.

    Raises ConfigError where it is one that this program cannot stand in for.
    """
    if type(holder).__module__.startswith("daytona.v2"):
        raise ConfigError(
            "this is an object of Daytona's second platform, whose API reaper does not speak",
            "delete it with its own client",
        )
    client = getattr(getattr(holder, "_sandbox_api", None), "api_client", None)
    headers = getattr(client, "default_headers", None)
    url = getattr(getattr(client, "configuration", None), "host", None)
    if not isinstance(headers, dict) or not isinstance(url, str):
        return None
    scheme, _, key = str(headers.get("Authorization", "")).partition(" ")
    if scheme != "Bearer" or not key:
        return None
    if "X-Daytona-Organization-ID" in headers:
        raise ConfigError(
            "this client of daytona has logged in with a token, and reaper takes API keys only",
            "give api_key, or the name of a configured organisation as endpoint",
        )
    return key, url


def engine_of(container: object) -> str | None:
    """The host of the engine that a container's client speaks to; None where that is unknown or takes more than a host."""
    socket, url = _of_docker_py(container) or _of_aiodocker(container) or (None, "")
    if isinstance(socket, str):
        return f"unix://{socket}"
    parts = urlsplit(url if isinstance(url, str) else "")
    return f"tcp://{parts.netloc}" if parts.scheme in ("http", "tcp") and parts.hostname else None


def _of_docker_py(container: object) -> tuple[object, object] | None:
    """The socket and the URL of its client."""
    api = getattr(getattr(container, "client", None), "api", None)
    url = getattr(api, "base_url", None)
    if api is None or not isinstance(url, str):
        return None
    if url.startswith("http+docker://"):
        return getattr(api.get_adapter(url), "socket_path", None), ""
    return None, url


def _of_aiodocker(container: object) -> tuple[object, object] | None:
    docker = getattr(container, "docker", None)
    url = getattr(docker, "docker_host", None)
    if docker is None or not isinstance(url, str):
        return None
    connector = getattr(docker, "connector", None)
    if type(connector).__module__ == "aiodocker.ssh":  # its socket is a tunnel that ends with the client
        return None, ""
    return getattr(connector, "path", None), url
