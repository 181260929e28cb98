"""Address of a Docker engine, as a socket takes it, and the certificates that it requires."""

import os
import ssl

from reaper.errors import ConfigError
from reaper.providers.docker.settings import DockerTable


def unix_path(engine: DockerTable) -> str | None:
    """The path of the engine's unix socket, or None when it is reached over TCP."""
    return engine.host.removeprefix("unix://") if engine.host.startswith("unix://") else None


def is_ssh(engine: DockerTable) -> bool:
    """Return whether the engine is behind ssh."""
    return engine.host.startswith("ssh://")


def tcp_address(engine: DockerTable) -> tuple[str, int]:
    """Host and port of an engine that is reached over TCP; Docker's own ports where none is named."""
    host, colon, port = engine.host.split("://", 1)[1].rstrip("/").rpartition(":")
    if not colon or port.endswith("]"):  # what stood behind the colon belongs to an IPv6 address
        host, port = f"{host}{colon}{port}", "2376" if engine.tls else "2375"
    return host.strip("[]"), int(port)


def same_address(one: DockerTable, other: DockerTable) -> bool:
    """Return whether two tables name one address: a path is the file that it leads to."""
    return place(one) == place(other)


def place(engine: DockerTable) -> tuple[str, int]:
    """Return what is equal in tables that name one address."""
    path = unix_path(engine)
    if path is not None:
        return os.path.realpath(path), 0
    if is_ssh(engine):
        return engine.host.rstrip("/"), 0
    host, port = tcp_address(engine)
    return host.lower(), port


def tls_context(engine: DockerTable) -> ssl.SSLContext | None:
    """What encrypts the connection, or None where nothing does. Raises ConfigError for files that cannot be used."""
    if not engine.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=engine.tls_ca)
        if engine.tls_cert is not None and engine.tls_key is not None:
            context.load_cert_chain(engine.tls_cert, engine.tls_key)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(f for f in (engine.tls_ca, engine.tls_cert, engine.tls_key) if f)
        raise ConfigError(
            f"endpoint {engine.name}: the TLS files cannot be used ({error}): {files}",
            "name readable PEM files in tls_ca, tls_cert and tls_key, or set DOCKER_CERT_PATH",
        ) from None
    if not engine.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
