"""The tables of the file that name endpoints: how to reach each, and its limits."""

import os
import re
from ipaddress import IPv6Address
from typing import Annotated, Self

from pydantic import Field, StrictBool, StrictInt, StrictStr, field_validator, model_validator

from reaper.paths import LONGEST_PATH
from reaper.providers.fields import Size, masked
from reaper.providers.registration import EndpointTable

DEFAULT_SOCKET = "unix:///var/run/docker.sock"
DEFAULT_TLS_HOST = "tcp://localhost:2376"
"""Of the docker command, where TLS is set and no host."""

_HOST = re.compile(r"unix:///.+|(tcp|http|https)://(?P<name>\[[0-9A-Fa-f:.]+\]|[^/:@\s]+)(:(?P<port>\d{1,5}))?/?", re.ASCII)

SSH_ADDRESS = re.compile(
    r"ssh://((?P<user>[^\s:@/?#-][^\s:@/?#]*)@)?(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^\s:@/?#\[\]-][^\s:@/?#\[\]]*)"
    r"(:(?P<port>\d{1,5}))?(?P<path>/[^\s:?#]*)?"
)
"""``ssh://[USER@]HOST[:PORT][/SOCKET]``. No part can be taken for an option, and a colon would end the socket's path."""


class DockerTable(EndpointTable):
    """[[docker]]: one engine.

    ``removals`` and ``stops`` bound what is asked of it at the same time: an engine gains nothing from more than about
    eight removals, and gets fewer while they slow down; stopping waits for the container and needs all of them at once.
    ``data_root`` is where the engine's data are seen from here, in place of where it says that they are; ``disk_size`` is
    what an engine on another host may use, since its disk cannot be looked at. ``hosts_file`` and ``file_sd`` name files of
    hosts: a table for each is put in place of this one before the settings are checked. ``context`` names one of the docker
    command's contexts, whose address and TLS files are put in its place when the endpoints are made; likewise those of the
    engine that the docker command uses, where the table names no engine at all.
    """

    addresses = frozenset({"host"})

    host: StrictStr = DEFAULT_SOCKET
    context: Annotated[StrictStr, Field(min_length=1)] | None = None
    hosts_file: StrictStr | None = None
    file_sd: tuple[StrictStr, ...] = ()
    tls_ca: StrictStr | None = None
    tls_cert: StrictStr | None = None
    tls_key: StrictStr | None = None
    tls_verify: StrictBool = True
    removals: Annotated[StrictInt, Field(ge=1, le=64)] = 8
    stops: Annotated[StrictInt, Field(ge=1, le=4096)] = 128
    data_root: StrictStr | None = None
    disk_size: Size | None = None

    @field_validator("host")
    @classmethod
    def _speakable(cls, host: str) -> str:
        return check_docker_host(host)

    @field_validator("data_root")
    @classmethod
    def _absolute(cls, path: str | None) -> str | None:
        if path is not None and (not path.startswith("/") or "\0" in path):
            raise ValueError(f'{path!r} is no absolute path; write for example "/var/lib/docker"')
        return path

    @model_validator(mode="after")
    def _context_says_all(self) -> Self:
        others = sorted(
            self.model_fields_set & {"host", "hosts_file", "file_sd", "tls_ca", "tls_cert", "tls_key", "tls_verify"}
        )
        if self.context is not None and others:
            raise ValueError(
                f"context and {' and '.join(others)} do not go together: a context has its own address and TLS files"
            )
        return self

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together: a client certificate needs both")
        if self.tls and not self.host.startswith(("tcp://", "https://")):
            raise ValueError("tls_ca, tls_cert and tls_key are for tcp:// hosts")
        return self

    @property
    def names_engine(self) -> bool:
        """Whether the table itself says which engine it is."""
        return self.context is None and bool(self.model_fields_set & {"host", "tls_ca", "tls_cert", "tls_key", "tls_verify"})

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.host.startswith("https://") or any((self.tls_ca, self.tls_cert)) or not self.tls_verify


def check_docker_host(host: str) -> str:
    """``host`` when the Docker provider can speak to it. Raises ValueError with the hint."""
    if host.startswith("ssh://"):
        if (address := SSH_ADDRESS.fullmatch(host)) is not None and _is_port(address["port"]):
            return host
        examples = '"ssh://me@gpu-1" or "ssh://gpu-1:2222/run/user/1000/docker.sock"'
        raise ValueError(f"{masked(host)!r} is no address for ssh; write for example {examples}")
    if host.startswith("/"):
        raise ValueError(f'{host!r} lacks its scheme; write "unix://{host}"')
    if "@" in host and not host.startswith("unix:"):
        raise ValueError("the host holds a user or a password, which Docker engines do not take; use TLS certificates")
    found = _HOST.fullmatch(host)
    if found is None or not (host.startswith("unix:") or _is_address(found["name"], found["port"])):
        raise ValueError(f'{host!r} is no Docker host; write for example "{DEFAULT_SOCKET}" or "tcp://10.0.0.5:2376"')
    if host.startswith("unix:"):
        _check_path(host.removeprefix("unix://"))
    return host


def _is_port(port: str | None) -> bool:
    return port is None or 0 < int(port) < 1 << 16


def _is_address(name: str, port: str | None) -> bool:
    """Whether a connection can be tried: what no resolver takes is told now, and not after four attempts."""
    if name.startswith("["):
        try:
            IPv6Address(name.strip("[]"))
        except ValueError:
            return False
        return _is_port(port)
    return _is_port(port) and all(0 < len(label) < 64 for label in name.removesuffix(".").split("."))


def _check_path(path: str) -> None:
    """Raise ValueError for the path of a socket that no socket can have."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the path {path!r} is no UTF-8; name the socket by a link to it that is") from None
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise ValueError(
            f"a socket's path has {LONGEST_PATH} bytes at most, and {path!r} is longer; name it by a shorter link"
        )


DEFAULT_ENGINE = "local"
