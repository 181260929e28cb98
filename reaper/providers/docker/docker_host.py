"""The engine that the docker command uses: DOCKER_HOST, else a context's, else the default socket. Read as its CLI does."""

import hashlib
import os
import pwd
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from reaper.errors import ConfigError
from reaper.files import read_json
from reaper.providers.docker.settings import DEFAULT_ENGINE, DEFAULT_SOCKET, DEFAULT_TLS_HOST, DockerTable, check_docker_host

HINT = "name the engine with DOCKER_HOST, or in a [[docker]] table; or switch with: docker context use default"
_DEFAULT = "default"


def engine_of_commands(env: Mapping[str, str]) -> DockerTable:
    """Return the engine that ``docker`` would use with this environment.

    Raises ConfigError when that is one that this program cannot reach: it must never take another one in its place.
    """
    if host := env.get("DOCKER_HOST"):
        return engine_of(host, env, "DOCKER_HOST")
    name, where = _context_name(env)
    if name == _DEFAULT:
        return _default_engine(env)
    if "DOCKER_HOST" in env:
        raise ConfigError(
            f"DOCKER_HOST is set and empty, and the Docker context {name!r} is in use: versions of docker disagree which of"
            " the two engines that means",
            "unset DOCKER_HOST, or name an engine in it",
            where,
        )
    return _engine_of_context(name, env, where)


def engine_of_table(table: DockerTable, env: Mapping[str, str]) -> DockerTable:
    """Return the table with the address and the TLS files of its context, where it names one. Raises ConfigError.

    One that names neither an engine nor a context means the engine that ``docker`` would use.
    """
    if table.names_engine:
        return table
    if table.context is None:
        found = engine_of_commands(env)
    elif table.context == _DEFAULT:
        host = env.get("DOCKER_HOST")
        found = engine_of(host, env, "DOCKER_HOST") if host else _default_engine(env)
    else:
        found = _engine_of_context(
            table.context, env, f"context of [[docker]] {table.name!r}", "docker context ls lists them"
        )
    own = table.model_dump(exclude_unset=True, exclude={"context"})
    return DockerTable.model_validate({**own, **found.model_dump(exclude_unset=True, exclude={"name"})})


def _default_engine(env: Mapping[str, str]) -> DockerTable:
    if _tls_of(env):
        return engine_of(DEFAULT_TLS_HOST, env, "DOCKER_TLS_VERIFY")
    own = None if _is_there(Path(DEFAULT_SOCKET.removeprefix("unix://"))) else _rootless(env)
    return engine_of(own or DEFAULT_SOCKET, env, "")


def _rootless(env: Mapping[str, str]) -> str | None:
    """Return the address of this user's own rootless engine, where it listens."""
    path = Path(env.get("XDG_RUNTIME_DIR") or "/nowhere") / "docker.sock"
    return f"unix://{path}" if _is_own_socket(path) else None


def other_sockets(env: Mapping[str, str]) -> list[str]:
    """Return the addresses of engines that listen where desktop programs and Podman put their sockets."""
    home, runtime = Path(env.get("HOME") or "/nowhere"), Path(env.get("XDG_RUNTIME_DIR") or "/nowhere")
    known = (
        *(runtime / "docker.sock", home / ".docker/desktop/docker.sock", home / ".docker/run/docker.sock"),
        *(home / ".colima/default/docker.sock", home / ".orbstack/run/docker.sock", home / ".rd/docker.sock"),
        *(runtime / "podman/podman.sock", Path("/run/podman/podman.sock")),
    )
    return [f"unix://{path}" for path in known if _is_own_socket(path)]


def _is_own_socket(path: Path) -> bool:
    """Return whether it is a socket of this user's; following a link, as a client does."""
    try:
        found = path.stat()
    except OSError:
        return False
    return stat.S_ISSOCK(found.st_mode) and found.st_uid == os.geteuid()


def engine_of(host: str, env: Mapping[str, str], where: str) -> DockerTable:
    """Return the engine at ``host``, with the TLS files that ``env`` gives to the docker command. Raises ConfigError."""
    _check(host, where)
    tls: dict[str, Any] = {}
    if _tls_of(env) and host.startswith(("tcp:", "https:")):
        folder = Path(env.get("DOCKER_CERT_PATH") or _docker_folder(env))
        # The CLI takes the certificate and its key only where they are, and any text in DOCKER_TLS_VERIFY for yes.
        tls = {"tls_ca": str(folder / "ca.pem"), "tls_verify": bool(env.get("DOCKER_TLS_VERIFY"))}
        cert, key = folder / "cert.pem", folder / "key.pem"
        if cert.exists() or key.exists():
            tls |= {"tls_cert": str(cert), "tls_key": str(key)}
    return DockerTable(name=DEFAULT_ENGINE, host=host, **tls)


def _check(host: str, where: str) -> None:
    try:
        check_docker_host(host)
    except ValueError as error:
        raise ConfigError(str(error), where=where) from None


def _tls_of(env: Mapping[str, str]) -> bool:
    return bool(env.get("DOCKER_TLS_VERIFY") or env.get("DOCKER_TLS"))


def _docker_folder(env: Mapping[str, str]) -> Path:
    if given := env.get("DOCKER_CONFIG"):
        return Path(given)
    home = env.get("HOME") or ""
    if not home:
        with suppress(KeyError):
            home = pwd.getpwuid(os.getuid()).pw_dir
    return Path(home or "/") / ".docker"


def _context_name(env: Mapping[str, str]) -> tuple[str, str]:
    """Return the name of the context in use, and what says so. A file that the CLI cannot read counts for nothing there."""
    if name := env.get("DOCKER_CONTEXT"):
        return name, "DOCKER_CONTEXT"
    file = _docker_folder(env) / "config.json"
    with suppress(OSError, ValueError):
        current = _field(read_json(file), "currentContext")
        if isinstance(current, str) and current:
            return current, f"currentContext in {file}"
    return _DEFAULT, ""


def _engine_of_context(name: str, env: Mapping[str, str], where: str, hint: str = HINT) -> DockerTable:
    folder, key = _docker_folder(env) / "contexts", hashlib.sha256(name.encode()).hexdigest()
    meta, tls = folder / "meta" / key / "meta.json", folder / "tls" / key / "docker"
    try:
        endpoint = _field(_field(read_json(meta), "Endpoints"), "docker")
    except FileNotFoundError:
        raise ConfigError(f"there is no Docker context {name!r}", hint, where) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"the Docker context {name!r} cannot be read: {meta}: {error}", hint, where) from None
    host = _field(endpoint, "Host")
    if not isinstance(endpoint, dict) or not isinstance(host, str | None):
        raise ConfigError(f"the Docker context {name!r} names no engine: {meta}", hint, where)
    host = host or DEFAULT_SOCKET
    try:
        check_docker_host(host)
    except ValueError as error:
        raise ConfigError(f"the Docker context {name!r} cannot be followed: {error}", hint, where) from None
    found: dict[str, Any] = {}
    if host.startswith(("tcp:", "https:")):
        files = {"tls_ca": "ca.pem", "tls_cert": "cert.pem", "tls_key": "key.pem"}
        found = {field: str(tls / file) for field, file in files.items() if _is_there(tls / file)}
        found["tls_verify"] = _field(endpoint, "SkipTLSVerify") is not True
        if ("tls_cert" in found) != ("tls_key" in found):
            raise ConfigError(f"the Docker context {name!r} has a certificate or a key alone: {tls}", hint, where)
    return DockerTable(name=DEFAULT_ENGINE, host=host, **found)


def _is_there(file: Path) -> bool:
    """Return whether the file exists; one that cannot be looked at counts, and fails where it is used."""
    try:
        return file.exists()
    except OSError:
        return True


def _field(found: object, name: str) -> object:
    """Return the field of a JSON object as Go reads it: the last one whose name agrees but for upper and lower case."""
    if not isinstance(found, dict):
        return None
    values = [value for key, value in found.items() if key.casefold() == name.casefold()]
    return values[-1] if values else None
