"""One host of a file that names engines: its address, and the name that it has without another one."""

import re
from collections.abc import Mapping

from reaper.providers.docker.settings import DEFAULT_ENGINE, DEFAULT_SOCKET, check_docker_host

_SSH_PORT = ":22"


def own_keys(address: str, shared: Mapping[str, object]) -> dict[str, str]:
    """What a host has of its own in its table: ``host``, and a ``name`` that its address alone determines.

    Args:
        address: as it stands in the file: a Docker host, or HOST[:PORT] as Prometheus writes targets.
        shared: the keys that it has in common with the others of its file.

    Raises ValueError for what is no address.
    """
    host = check_docker_host(address if "://" in address or address.startswith("/") else f"tcp://{address}")
    if host == DEFAULT_SOCKET:
        return {"host": host, "name": DEFAULT_ENGINE}
    scheme, _, rest = host.partition("://")
    has_tls = scheme == "https" or shared.get("tls_verify") is False or {"tls_ca", "tls_cert"} & shared.keys()
    usual = _SSH_PORT if scheme == "ssh" else ":2376" if has_tls else ":2375"
    name = re.sub(r"[^A-Za-z0-9_.]+", "-", rest.rstrip("/").removesuffix(usual).removesuffix(".sock"))
    return {"host": host, "name": name.strip("-_.")}
