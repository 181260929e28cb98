"""The JSON of a simulated engine: rows of listings, and inspections, field for field as Docker 20.10 has them."""

from collections.abc import Iterable
from typing import Any

from reaper.simulator.docker.defaults import CONFIG, CONFIG_OPTIONAL, HOST, HOST_OPTIONAL
from reaper.simulator.docker.engine import Engine
from reaper.simulator.docker.model import Container, Endpoint, Image, Mount, Network, Volume
from reaper.simulator.docker.text import NS, encode, listed_command, rfc3339, status_text

_MARK = "\0"
_SPLIT = b'"\\u0000"'


def endpoint(found: Endpoint, *, listed: bool) -> dict[str, Any]:
    """A container's place in a network; the listing leaves out what was asked for."""
    return {
        "IPAMConfig": None if listed else found.given.get("IPAMConfig"),
        "Links": None if listed else found.given.get("Links"),
        "Aliases": None if listed else found.aliases,
        "NetworkID": found.network_id,
        "EndpointID": found.id,
        "Gateway": found.gateway,
        "IPAddress": found.address,
        "IPPrefixLen": found.prefix,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "MacAddress": found.mac,
        "DriverOpts": None if listed else found.given.get("DriverOpts"),
    }


def _endpoints(container: Container, *, listed: bool) -> dict[str, Any]:
    return {name: endpoint(container.networks[name], listed=listed) for name in sorted(container.networks)}


def _mount(mount: Mount, *, listed: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"Type": mount.kind}
    if mount.kind == "volume":
        row["Name"] = mount.name
    # In the listing an anonymous volume has no source: the engine notes the row before it mounts the volume.
    row["Source"] = "" if listed and mount.anonymous else mount.source
    row["Destination"] = mount.destination
    if mount.kind == "volume":
        row["Driver"] = "local"
    row |= {"Mode": mount.mode, "RW": mount.writable}
    row["Propagation"] = "rslave" if mount.kind == "bind" else ""
    return row


def listed(engine: Engine, container: Container) -> dict[str, Any]:
    """A container's row in the listing, with a mark for its Status."""
    return {
        **({} if container.behaviour.unnamed else {"Id": container.id}),
        "Names": [f"/{container.name}"],
        "Image": engine.images.shown(container),
        "ImageID": container.image_id,
        "Command": listed_command(container.argv),
        "Created": container.created // NS,
        "Ports": [],
        "Labels": dict(sorted(container.labels.items())),
        "State": container.listed_state,
        "Status": _MARK,
        "HostConfig": {"NetworkMode": container.network_mode},
        "NetworkSettings": {"Networks": _endpoints(container, listed=True)},
        "Mounts": [_mount(mount, listed=True) for mount in sorted(container.mounts, key=lambda m: m.destination)],
    }


def listing(engine: Engine, containers: Iterable[Container]) -> bytes:
    """The answer to `GET /containers/json`: rows are made once, and again when a container has changed."""
    now = engine.time()
    parts: list[bytes] = []
    for container in containers:
        if not container.head:
            head, _, tail = encode(listed(engine, container)).rstrip().partition(_SPLIT)
            container.head, container.tail, container.status_until = b"," + head + b'"', b'"' + tail, -1
        if not container.status_until > now >= container.status_from:
            text, container.status_until = status_text(container, now)
            container.status, container.status_from = text.encode(), now
        parts += (container.head, container.status, container.tail)
    return b"[" + b"".join(parts)[1:] + b"]\n"


def inspected(engine: Engine, container: Container) -> dict[str, Any]:
    """The answer to `GET /containers/ID/json`."""
    where = f"{engine.root}/containers/{container.id}"
    ran = bool(container.started)
    layer = f"{engine.root}/overlay2/{container.id[::-1]}"
    return {
        "Id": container.id,
        "Created": rfc3339(container.created),
        "Path": container.argv[0],
        "Args": list(container.argv[1:]),
        "State": _state(container),
        "Image": container.image_id,
        "ResolvConfPath": f"{where}/resolv.conf" if ran else "",
        "HostnamePath": f"{where}/hostname" if ran else "",
        "HostsPath": f"{where}/hosts" if ran else "",
        "LogPath": f"{where}/{container.id}-json.log" if ran else "",
        "Name": f"/{container.name}",
        "RestartCount": container.restart_count,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": None,
        "HostConfig": _host_config(container),
        "GraphDriver": {
            "Data": {
                "LowerDir": f"{layer}-init/diff",
                "MergedDir": f"{layer}/merged",
                "UpperDir": f"{layer}/diff",
                "WorkDir": f"{layer}/work",
            },
            "Name": "overlay2",
        },
        "Mounts": [_mount(mount, listed=False) for mount in container.mounts],
        "Config": _config(container),
        "NetworkSettings": _network_settings(container),
    }


def _state(container: Container) -> dict[str, Any]:
    return {
        "Status": container.state,
        "Running": container.running,
        "Paused": container.paused,
        "Restarting": container.restarting,
        "OOMKilled": container.oom_killed,
        "Dead": container.dead,
        "Pid": container.pid,
        "ExitCode": container.exit_code,
        "Error": container.error,
        "StartedAt": rfc3339(container.started),
        "FinishedAt": rfc3339(container.finished),
    }


def _host_config(container: Container) -> dict[str, Any]:
    given = container.host
    config = {key: given[key] if given.get(key) not in (None, "") else default for key, default in HOST.items()}
    config |= {key: given[key] for key in HOST_OPTIONAL if given.get(key)}
    config["NetworkMode"] = container.network_mode
    config["RestartPolicy"] = {"Name": container.policy, "MaximumRetryCount": container.retries}
    config["AutoRemove"] = container.auto_remove
    if not given and not container.started:
        del config["Runtime"]
    config["ShmSize"] = given.get("ShmSize") or HOST["ShmSize"]
    return config


def _config(container: Container) -> dict[str, Any]:
    given = container.config
    config = {key: given[key] if given.get(key) is not None else default for key, default in CONFIG.items()}
    config |= {key: given[key] for key in CONFIG_OPTIONAL if given.get(key) not in (None, "", {})}
    host = container.network_mode == "host"
    config["Hostname"] = config["Hostname"] or ("" if host else container.id[:12])
    config |= {"Image": container.image, "Labels": dict(sorted(container.labels.items()))}
    for key in ("Env", "Cmd", "Volumes", "Entrypoint"):
        config[key] = config[key] or None
    return config


def _network_settings(container: Container) -> dict[str, Any]:
    bridge = container.networks.get("bridge") or Endpoint()
    joined = container.network_mode.startswith("container:")
    sandbox = container.id[::-1] if container.started and not joined else ""
    return {
        "Bridge": "",
        "SandboxID": sandbox,
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "Ports": {},
        "SandboxKey": f"/var/run/docker/netns/{sandbox[:12]}" if sandbox else "",
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": bridge.id,
        "Gateway": bridge.gateway,
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPAddress": bridge.address,
        "IPPrefixLen": bridge.prefix,
        "IPv6Gateway": "",
        "MacAddress": bridge.mac,
        "Networks": _endpoints(container, listed=False),
    }


def network(found: Network, *, listed: bool) -> dict[str, Any]:
    """A network. The listing never shows which containers are attached: only the inspection does."""
    config: list[dict[str, str]] = []
    if found.subnet:
        config = [{"Subnet": found.subnet, **({} if found.predefined else {"Gateway": found.gateway})}]
    ipam = found.given.get("IPAM") or {}
    options = dict(found.options)
    if found.name == "bridge":
        options = {
            "com.docker.network.bridge.default_bridge": "true",
            "com.docker.network.bridge.enable_icc": "true",
            "com.docker.network.bridge.enable_ip_masquerade": "true",
            "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",  # noqa: S104
            "com.docker.network.bridge.name": "docker0",
            "com.docker.network.driver.mtu": "1500",
        }
    return {
        "Name": found.name,
        "Id": found.id,
        "Created": rfc3339(found.created),
        "Scope": "local",
        "Driver": found.driver,
        "EnableIPv6": bool(found.given.get("EnableIPv6")),
        "IPAM": {"Driver": ipam.get("Driver") or "default", "Options": ipam.get("Options"), "Config": config},
        "Internal": bool(found.given.get("Internal")),
        "Attachable": bool(found.given.get("Attachable")),
        "Ingress": bool(found.given.get("Ingress")),
        "ConfigFrom": {"Network": found.configuration},
        "ConfigOnly": found.is_configuration,
        "Containers": {} if listed else _containers(found),
        "Options": options,
        "Labels": dict(found.labels),
    }


def _containers(found: Network) -> dict[str, dict[str, str]]:
    stale = {"Name": found.stale, "EndpointID": "", "MacAddress": "", "IPv4Address": "", "IPv6Address": ""}
    shown = {container.id: _attached(found, container) for container in found.attached.values()}
    return {**shown, **({found.stale_key: stale} if found.stale_key else {})}


def _attached(found: Network, container: Container) -> dict[str, str]:
    place = next(end for end in container.networks.values() if end.network_id == found.id)
    address = f"{place.address}/{place.prefix}" if place.address else ""
    return {
        "Name": container.name,
        "EndpointID": place.id,
        "MacAddress": place.mac,
        "IPv4Address": address,
        "IPv6Address": "",
    }


def volume(engine: Engine, found: Volume) -> dict[str, Any]:
    """A volume, listed or inspected."""
    return {
        "CreatedAt": rfc3339(found.created // NS * NS),
        "Driver": "local",
        "Labels": found.labels,
        "Mountpoint": engine.mountpoint(found.name),
        "Name": found.name,
        "Options": found.options,
        "Scope": "local",
    }


def image(engine: Engine, found: Image) -> dict[str, Any]:
    """The answer to `GET /images/NAME/json`."""
    layer = f"{engine.root}/overlay2/{found.id.removeprefix('sha256:')[::-1]}"
    config = {**CONFIG, "Labels": found.config.get("Labels")}
    return {
        "Id": found.id,
        "RepoTags": list(found.tags),
        "RepoDigests": [],
        "Parent": found.parent,
        "Comment": found.comment,
        "Created": rfc3339(found.created),
        "Container": "",
        "ContainerConfig": dict(CONFIG),
        "DockerVersion": "20.10.24+dfsg1",
        "Author": "",
        "Config": config,
        "Architecture": "amd64",
        "Os": "linux",
        "Size": found.size,
        "VirtualSize": found.size,
        "GraphDriver": {
            "Data": {"MergedDir": f"{layer}/merged", "UpperDir": f"{layer}/diff", "WorkDir": f"{layer}/work"},
            "Name": "overlay2",
        },
        "RootFS": {"Type": "layers", "Layers": [*found.below, found.layer]},
        "Metadata": {"LastTagTime": rfc3339(found.tagged)},
    }
