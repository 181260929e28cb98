"""Docker engines, as the rest of the program knows them."""

import re
from collections.abc import Hashable, Mapping
from pathlib import Path

from reaper.core.model import Kind
from reaper.providers.docker.address import place, tls_context
from reaper.providers.docker.docker_host import engine_of_commands, engine_of_table
from reaper.providers.docker.settings import DEFAULT_ENGINE, DEFAULT_SOCKET, DockerTable, check_docker_host
from reaper.providers.docker.states import STATES
from reaper.providers.docker.upstream import engine_behind
from reaper.providers.registration import Connection, Registration


class _Docker(Registration[DockerTable]):
    name = "docker"
    title = "Docker"
    table = DockerTable
    kinds = (Kind.CONTAINER, Kind.POD, Kind.NETWORK, Kind.VOLUME, Kind.IMAGE, Kind.BUILD_CACHE)
    states = STATES
    has_events = True
    default_name = DEFAULT_ENGINE
    without_table = "DOCKER_HOST names the engine then"
    pinned = frozenset({"host"})

    def has_default(self, env: Mapping[str, str]) -> bool:  # noqa: ARG002
        """There is always an engine that the docker command would use."""
        return True

    def default(self, env: Mapping[str, str]) -> DockerTable:
        """The engine that the docker command would use. Raises ConfigError."""
        return engine_of_commands(env)

    def resolve(self, table: DockerTable, env: Mapping[str, str]) -> DockerTable:
        """That of its context, or of the environment where it names none; of a ``reaper run``'s proxy, the one behind it.

        Raises ConfigError.
        """
        return engine_behind(engine_of_table(table, env))

    def of_host(self, address: str, shared: Mapping[str, object]) -> dict[str, str]:
        """Its host, and the name that its address alone determines. Raises ValueError for what is no address."""
        host = check_docker_host(address if "://" in address or address.startswith("/") else f"tcp://{address}")
        if host == DEFAULT_SOCKET:
            return {"host": host, "name": DEFAULT_ENGINE}
        scheme, _, rest = host.partition("://")
        has_tls = scheme == "https" or shared.get("tls_verify") is False or {"tls_ca", "tls_cert"} & shared.keys()
        usual = ":22" if scheme == "ssh" else ":2376" if has_tls else ":2375"
        name = re.sub(r"[^A-Za-z0-9_.]+", "-", rest.rstrip("/").removesuffix(usual).removesuffix(".sock"))
        return {"host": host, "name": name.strip("-_.")}

    def place(self, table: DockerTable) -> Hashable:
        """Its address; of a unix socket the file that the path leads to."""
        return place(table) if table.names_engine else (table.context,)

    def check(self, table: DockerTable) -> None:
        """Raise ConfigError for certificates that cannot be used."""
        tls_context(table)

    def address(self, table: DockerTable) -> str:
        """The engine's host."""
        return table.host

    def connect(self, table: DockerTable, secret: str, state: Path, *, act: bool) -> Connection:  # noqa: ARG002
        """A client of the engine."""
        from reaper.providers.docker import client, own_labels  # noqa: PLC0415 - it brings asyncio
        from reaper.providers.docker.own_container import detect_own_container  # noqa: PLC0415

        make = client.DockerProvider if act else client.DockerReader
        own = own_labels.OwnLabels(state, table.host, learns=act)
        return Connection(make(table, detect_own_container(), own), remembered_as=table.host)


REGISTRATION = _Docker()
