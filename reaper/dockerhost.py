"""The engine that Docker's own commands would use."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from reaper.config import engine_of
from reaper.endpoints import DEFAULT_SOCKET, DockerTable
from reaper.errors import ConfigError

_NO_PROXY = "name an engine with DOCKER_HOST, or give --no-proxy and label what is created with $REAPER_LABEL"


def engine_of_commands(env: Mapping[str, str]) -> DockerTable | None:
    """That of DOCKER_HOST, else of Docker's current context, else the default one; None when there is none.

    Raises ConfigError when it is one that this program cannot speak to.
    """
    host = env.get("DOCKER_HOST")
    if not host and (context := _context(env)) is not None:
        name, host, tls = context
        try:
            return engine_of(host, tls, f"docker context {name!r}")
        except ConfigError as error:
            raise ConfigError(error.problem, _NO_PROXY, error.where) from None
    if not host and not Path(DEFAULT_SOCKET.removeprefix("unix://")).exists():
        return None
    try:
        return engine_of(host or DEFAULT_SOCKET, env, "DOCKER_HOST")
    except ConfigError as error:
        raise ConfigError(error.problem, _NO_PROXY, error.where) from None


def _context(env: Mapping[str, str]) -> tuple[str, str, Mapping[str, str]] | None:
    """Docker's current context, where its engine is, and what names its TLS files; None when that is the default one."""
    folder = Path(env.get("DOCKER_CONFIG") or Path(env.get("HOME") or "/") / ".docker")
    name = env.get("DOCKER_CONTEXT") or _read(folder / "config.json").get("currentContext")
    if not isinstance(name, str) or name in ("", "default"):
        return None
    key = hashlib.sha256(name.encode()).hexdigest()
    meta = _read(folder / "contexts" / "meta" / key / "meta.json")
    tls = folder / "contexts" / "tls" / key / "docker"
    try:
        endpoint = meta["Endpoints"]["docker"]  # type: ignore[index]  # whatever it is, the next line asks for the same
        host = endpoint["Host"]
    except (KeyError, TypeError):
        raise ConfigError(f"there is no docker context {name!r}", _NO_PROXY, "DOCKER_CONTEXT") from None
    return name, str(host), {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tls)} if tls.is_dir() else {}


def _read(file: Path) -> Mapping[str, object]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
