"""The networks of a simulated engine: addresses, endpoints, and who is attached."""

import secrets
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from reaper.simulator.docker.model import PREDEFINED, Container, Endpoint, Network, RefusedError

if TYPE_CHECKING:
    from reaper.simulator.docker.engine import Engine


class Networks:
    """The networks by id, the predefined ones first."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._by_id: dict[str, Network] = {}
        self._by_name: dict[str, dict[str, Network]] = {}
        self._numbered = 0
        for name, driver in zip(PREDEFINED, ("null", "host", "bridge"), strict=True):
            self.add(name, driver=driver)

    def __iter__(self) -> Iterator[Network]:
        return iter(tuple(self._by_id.values()))

    def add(
        self,
        name: str,
        *,
        driver: str = "bridge",
        labels: Mapping[str, str] | None = None,
        created: int = 0,
        given: Mapping[str, Any] | None = None,
    ) -> Network:
        """A new network.

        Args:
            name: need not be new.
            driver: of the network.
            labels: its labels.
            created: when (ns of the engine's clock); now when 0.
            given: the body of the request that made it.
        """
        ident = self._engine.new_id()
        network = Network(
            id=secrets.token_hex(32) if name == "bridge" else ident,  # an engine makes it anew at each start: no two have it
            name=name,
            created=created or self._engine.tick(),
            labels=labels or {},
            driver=driver,
            given=given or {},
            options=(given or {}).get("Options") or {},
        )
        if driver not in ("null", "host"):
            self._address(network)
        self._by_id[network.id] = network
        self._by_name.setdefault(name, {})[network.id] = network
        return network

    def _address(self, network: Network) -> None:
        network.subnet = f"10.{self._numbered // 256 % 256}.{self._numbered % 256}.0/24"
        network.gateway = _host(network.subnet, 1)
        self._numbered += 1

    def create(self, body: Mapping[str, Any]) -> tuple[Network, str]:
        """What `POST /networks/create` does: the network, and a warning. Raises RefusedError."""
        name, driver = str(body.get("Name") or ""), str(body.get("Driver") or "bridge")
        same = self._by_name.get(name)
        warning = ""
        if same:
            if body.get("CheckDuplicate"):
                raise RefusedError(409, f"network with name {name} already exists")
            warning = f"Network with name {name} (id : {next(iter(same))}) already exists"
        network = self.add(name, driver=driver, labels=body.get("Labels"), given=body)
        self.emit(network, "create")
        return network, warning

    def find(self, ref: str) -> Network:
        """The network with that id, name or beginning of an id, as an inspection looks for it. Raises RefusedError."""
        if ref in self._by_id:
            return self._by_id[ref]
        named = self._by_name.get(ref, {})
        if len(named) > 1:
            raise RefusedError(400, f"{len(named)} matches found based on name: network {ref} is ambiguous")
        matches = list(named.values()) or ([n for n in self._by_id.values() if n.id.startswith(ref)] if ref else [])
        if len(matches) > 1:
            raise RefusedError(400, f"{len(matches)} matches found based on ID prefix: network {ref} is ambiguous")
        if not matches:
            raise RefusedError(404, f"network {ref} not found")
        return matches[0]

    def delete(self, ref: str) -> None:
        """What `DELETE /networks/{ref}` does. Raises RefusedError."""
        named = self._by_name.get(ref, {})
        if ref not in self._by_id and len(named) > 1:
            raise RefusedError(400, f"network {ref} is ambiguous ({len(named)} matches found based on name)")
        network = self.find(ref)
        if network.predefined:
            raise RefusedError(403, f"{network.name} is a pre-defined network and cannot be removed")
        if network.attached or network.stale:
            text = f"error while removing network: network {network.name} id {network.id} has active endpoints"
            raise RefusedError(403, text)
        if network.is_configuration and any(other.configuration == network.name for other in self):
            text = f'error while removing network: configuration network "{network.name}" is in use'
            raise RefusedError(403, text)
        self.drop(network)

    def drop(self, network: Network) -> None:
        """A network is gone."""
        del self._by_id[network.id]
        del self._by_name[network.name][network.id]
        if not self._by_name[network.name]:
            del self._by_name[network.name]
        self.emit(network, "destroy")

    def emit(self, network: Network, action: str, **attributes: str) -> None:
        """Log an event of a network."""
        engine = self._engine
        engine.events.log(
            "network", action, network.id, {"name": network.name, "type": network.driver, **attributes}, engine.tick()
        )

    def named(self, name: str) -> Network | None:
        """A network of that name."""
        return next(iter(self._by_name.get(name, {}).values()), None)

    # Endpoints

    def lookup(self, name: str, endpoint: Endpoint) -> Network:
        """The network that a container is about to be attached to. Raises RefusedError."""
        if endpoint.network_id:
            if endpoint.network_id not in self._by_id:
                raise RefusedError(404, f"network {endpoint.network_id} not found")
            return self._by_id[endpoint.network_id]
        return self.find("bridge" if name == "default" else name)

    def attach(self, container: Container, network: Network, endpoint: Endpoint) -> None:
        """Give a running container its addresses."""
        endpoint.network_id, endpoint.id = network.id, self._engine.new_id()
        if network.subnet:
            network.hosts = network.hosts % 250 + 1
            endpoint.gateway, endpoint.prefix = network.gateway, int(network.subnet.partition("/")[2])
            endpoint.address = _host(network.subnet, network.hosts)
            endpoint.mac = "02:42:" + ":".join(f"{int(part):02x}" for part in endpoint.address.split("."))
            if not network.predefined and container.id[:12] not in (endpoint.aliases or ()):
                endpoint.aliases = [*(endpoint.aliases or ()), container.id[:12]]
        network.attached[container.id] = container

    def attach_all(self, container: Container) -> None:
        """Attach a container that starts. Raises RefusedError when a network is gone; it is then attached to none."""
        found = [(self.lookup(name, endpoint), endpoint) for name, endpoint in container.networks.items()]
        if taken := next((network for network, _ in found if network.stale == container.name), None):
            raise RefusedError(500, f"endpoint with name {container.name} already exists in network {taken.name}")
        for network, endpoint in found:
            self.attach(container, network, endpoint)
            self.emit(network, "connect", container=container.id)

    def detach(self, container: Container, endpoint: Endpoint) -> None:
        """Take its addresses from a container that ends, or leaves the network."""
        network = self._by_id.get(endpoint.network_id)
        endpoint.id = endpoint.gateway = endpoint.address = endpoint.mac = ""
        endpoint.prefix = 0
        if network is not None and network.attached.pop(container.id, None) is not None:
            self.emit(network, "disconnect", container=container.id)

    def disconnect(self, network: Network, container: Container) -> None:
        """What `POST /networks/{id}/disconnect` does. Raises RefusedError."""
        endpoint = container.networks.get(network.name)
        if endpoint is None:
            raise RefusedError(500, f"container {container.id} is not connected to network {network.name}")
        self.detach(container, endpoint)
        del container.networks[network.name]


def _host(subnet: str, number: int) -> str:
    """The address of host `number` in a subnet such as 172.18.0.0/16."""
    parts = [int(part) for part in subnet.partition("/")[0].split(".")]
    value = (parts[0] << 24) + (parts[1] << 16) + (parts[2] << 8) + parts[3] + number
    return ".".join(str(value >> shift & 255) for shift in (24, 16, 8, 0))
