"""The engine behind the proxy of a ``reaper run``, for what is run inside of it.

There ``DOCKER_HOST`` is the proxy's socket, which is gone when that run is killed. The run records beside the socket where
the engine is. A record counts where it was written by root or this user, and where both ways lead to one engine: in a
container or another namespace the same address may be another engine's, or none's.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from reaper.files import read_json
from reaper.providers.docker.address import same_address, unix_path
from reaper.providers.docker.settings import DockerTable

VERSION = 1
_SUFFIX = ".upstream"
_OF_ADDRESS = ("host", "tls_ca", "tls_cert", "tls_key", "tls_verify")


class UpstreamError(Exception):
    """What a proxy's record says cannot be used, and why."""


def record(proxy_socket: Path, engine: DockerTable) -> None:
    """Write beside a proxy's socket which engine is behind it. Raises OSError."""
    address = {name: getattr(engine, name) for name in _OF_ADDRESS}
    for name in ("tls_ca", "tls_cert", "tls_key"):  # the reader may have another working directory
        if address[name] is not None:
            address[name] = os.path.abspath(address[name])  # noqa: PTH100 - symbolic links are to stay
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(f"{proxy_socket}{_SUFFIX}", flags, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - it is open already
        json.dump({"version": VERSION, "engine": address}, file)


def engine_behind(engine: DockerTable) -> DockerTable:
    """Return the engine behind a proxy, under the name and with the bounds of ``engine``; ``engine`` where there is none.

    Where the record of the proxy cannot be used it is ``engine``, too: it leads to the right one for as long as it lives.
    """
    try:
        return find(engine)
    except UpstreamError:
        return engine


def find(engine: DockerTable) -> DockerTable:
    """As ``engine_behind``. Raises UpstreamError where ``engine`` is a proxy whose record cannot be used."""
    path = unix_path(engine)
    if path is None or (address := _read(Path(f"{path}{_SUFFIX}"))) is None:
        return engine
    try:
        found = DockerTable.model_validate({**engine.model_dump(), **address})
    except ValidationError as error:
        raise UpstreamError(f"{path}{_SUFFIX} names no engine: {error.errors()[0]['msg']}") from None
    if same_address(found, engine):
        return engine
    from reaper.providers.docker.engine_id import IdentityError, identity  # noqa: PLC0415 - a client, which no other program needs

    try:
        same = identity(engine) == identity(found)
    except IdentityError as error:
        raise UpstreamError(str(error)) from None
    if not same:
        raise UpstreamError(f"{found.host} is another engine here than the one behind {engine.host}")
    return found


def _read(file: Path) -> dict[str, Any] | None:
    """Return the address in a proxy's record; None where there is no record."""
    try:
        opened, folder = file.lstat(), file.parent.stat()
        trusted = {0, os.geteuid()}
        if not stat.S_ISREG(opened.st_mode) or {opened.st_uid, folder.st_uid} - trusted:
            raise UpstreamError(f"{file} is not this user's own")
        if (opened.st_mode | folder.st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
            raise UpstreamError(f"{file} can be written by others")
        document = read_json(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UpstreamError(f"{file} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UpstreamError(f"{file} cannot be read: {error}") from None
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise UpstreamError(f"{file} was written by another version of this program")
    address = document.get("engine")
    if not isinstance(address, dict) or not address.keys() <= set(_OF_ADDRESS) or "host" not in address:
        raise UpstreamError(f"{file} names no engine")
    return address
