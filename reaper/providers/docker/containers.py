"""What the Docker Engine's JSON says, as resources. Tolerant: one odd row is unreadable and kept, and spoils nothing else.

``GET /containers/json`` has no start and stop times and no restart policy; ``GET /containers/ID/json`` has.
"""

import hashlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType

from reaper import host as hostid
from reaper.core.accounts import Footprint
from reaper.core.identity import PROJECT_LABEL, compose_project
from reaper.core.model import TESTCONTAINERS_REAPER, Kind, Resource, State
from reaper.core.scope import LEASE_LABEL
from reaper.providers import parsing
from reaper.providers.docker.links import Directory, Links, configured_links, networks_of
from reaper.providers.docker.states import STATES
from reaper.providers.parsing import Row, epoch, labels, rows, shared, table, text

# System containers, by the beginning of a label's key: read from the sources of what sets it, which stand beside it.
_SYSTEM_LABELS = {
    "com.docker.swarm.": "a Swarm task",
    "com.docker.stack.": "a Swarm stack's",  # docker/cli, cli/compose/convert: LabelNamespace, on volumes and networks, too
    "io.kubernetes.": "a Kubernetes pod's",
    "io.x-k8s.": "a Kubernetes node",
    "name.minikube.sigs.k8s.io": "a Kubernetes node",
    "created_by.minikube.sigs.k8s.io": "a Kubernetes node",
    "k3d.": "a Kubernetes node",  # k3d-io/k3d, pkg/types: LabelClusterName
    "talos.": "a Kubernetes node",  # siderolabs/talos, pkg/provision/providers/docker
    "com.hashicorp.nomad.": "a Nomad task",  # hashicorp/nomad, drivers/docker: dockerLabelAllocID
    "com.amazonaws.ecs.": "a task of Amazon ECS",  # aws/amazon-ecs-agent, agent/engine: labelPrefix
    "io.rancher.": "a Rancher container",  # rancher/rancher 1.x and rke
    "io.balena.": "a service of balena",  # balena-os/balena-supervisor
    "io.resin.supervised": "a service of balena",
    "net.azure-devices.edge.": "a module of Azure IoT Edge",  # Azure/iotedge, edgelet-docker
    "com.gitlab.gitlab-runner.": "a job of GitLab Runner",  # gitlab-org/gitlab-runner, executors/docker
    "com.docker.desktop.": "a part of Docker Desktop",
    "org.testcontainers.ryuk": TESTCONTAINERS_REAPER,
}
_SYSTEM_PREFIXES = tuple(_SYSTEM_LABELS)
_UUID = "[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}"
# Whole names: a benchmark's task may be called k8s, and its container k8s__a1b2c3d-main-1.
_SYSTEM_NAMES = {
    # Deleted with its pod alone, whose namespaces it holds.
    re.compile("[0-9a-f]{12}-infra"): "a Podman pod's infra container",
    # Deleted with its pods alone, which systemd takes down when it ends: libpod, createServiceContainer.
    re.compile("[0-9a-f]{12}-service"): "the service container of podman kube play",
    re.compile("buildx_buildkit_.*"): "a BuildKit builder",
    # Container, pod, namespace, uid, attempt: kubelet, dockershim and cri-dockerd.
    re.compile(rf"k8s(_[^_]+){{3}}_{_UUID}_[0-9a-f]+(_[0-9a-f]+)?"): "a Kubernetes pod's",
    # The agent's id, in some versions, and the container's: apache/mesos, containerizer/docker.
    re.compile(rf"mesos-(.+-S[0-9]+\.)?{_UUID}(\..+)?"): "a Mesos task",
}
_SYSTEM_IMAGES = {
    "moby/buildkit": "a BuildKit builder",
    "earthly/buildkitd": "a BuildKit builder",  # EarthBuild/earthbuild, buildkitd: the container earthly-buildkitd
    "registry.dagger.io/engine": "a BuildKit builder",  # dagger/dagger, engine: the containers dagger-engine-VERSION
    "amazon/amazon-ecs-agent": "the agent of Amazon ECS",
    "public.ecr.aws/ecs/amazon-ecs-agent": "the agent of Amazon ECS",
}
# Podman's units write their name on what systemd runs, and podman-compose writes one of its own on all that it makes.
_UNIT_LABEL, _NO_UNIT = "PODMAN_SYSTEMD_UNIT", "podman-compose@"

_IMAGE_ID = re.compile(r"(sha256:)?[0-9a-f]{12,64}")
_VOLUME_FOLDER = re.compile(r"/volumes/([^/]+)(?:$|/$|/_data(?:/|$))")  # as Docker and Podman lay them out in their data
_EXITED = re.compile(r"Exited \((\d{1,9})\)", re.ASCII)
_ENDED = ("exited", "dead")


def engine_id(address: str, networks: Sequence[Row]) -> str:
    """What identifies an engine: its address, and the id of its network "host".

    An engine makes that network once, and keeps it for as long as its data: so another one that listens at the same address
    later has another id. A path means another engine on each machine. Podman has no such network. It is hashed: leases
    name it, and their readers need not learn of hosts.

    Args:
        address: where it is.
        networks: the rows of ``GET /networks``.
    """
    made = (text(row.get("Id")) for row in networks if row.get("Name") == row.get("Driver") == "host")
    where = address if address.startswith(("tcp:", "http:", "https:", "ssh:")) else f"{address} on {hostid.here()}"
    return hashlib.sha256(f"{where} {next(made, None)}".encode()).hexdigest()[:32]


def moment(value: object) -> datetime | None:
    """A time of the engine's; None for year 0001, which means never. Raises ValueError."""
    return parsing.moment(value, never=1)


def readable_moment(value: object) -> datetime | None:
    """The same; None also where it cannot be read, for times that take nothing while they are unknown."""
    try:
        return moment(value)
    except ValueError:
        return None


def image_labels(row: Row) -> object:
    """The labels of an image as the engine gives them: a listing at the top, an inspection in its configuration."""
    return row["Labels"] if "Labels" in row else table(row.get("Config")).get("Labels")


def system_container_of(name: str, found: Mapping[str, str] | None, image: str | None) -> str | None:
    """Return which system container it is ("a Kubernetes pod"), by its name, labels or image; None when it is none."""
    if found and any(key.startswith(_SYSTEM_PREFIXES) for key in found):
        return next(what for prefix, what in _SYSTEM_LABELS.items() if any(key.startswith(prefix) for key in found))
    for whole, what in _SYSTEM_NAMES.items():
        if whole.fullmatch(name):
            return what
    unit = (found or {}).get(_UNIT_LABEL)
    if unit is not None and not unit.startswith(_NO_UNIT):
        return f"a container of the systemd unit {unit}"
    reference = (image or "").removeprefix("docker.io/")
    return next((what for prefix, what in _SYSTEM_IMAGES.items() if reference.startswith(prefix)), None)


def _name(value: object) -> str:
    return (text(value) or "").removeprefix("/")


def _uses(row: Row, image: object, directory: Directory, links: Links) -> frozenset[str]:
    """Ids of its networks, its image and the containers that it depends on, and names of its volumes.

    Of an anonymous volume whose folder it has mounted it depends on the container that has that: they are deleted together.
    """
    networks = networks_of(row)
    ids = {text(table(settings).get("NetworkID")) for settings in networks.values()}
    if isinstance(image, str):
        ids.add(sys.intern(image))  # thousands have the same
    volumes = mounted_volumes(row)
    folders = _folders(row) | directory.below(volumes)
    ids |= volumes | folders | directory.ids(links) | directory.holders(folders)
    return shared(frozenset(id_ for id_ in ids if id_))


def listed_uses(row: Row, directory: Directory, earlier: Links | None) -> frozenset[str]:
    """What a row of ``GET /containers/json`` uses; ``earlier`` is what an inspection has found that it depends on."""
    links = configured_links(row)
    if earlier is not None:
        links = Links(links.containers | earlier.containers, links.networks)
    return _uses(row, row.get("ImageID"), directory, links)


def mounts(row: Row) -> list[Row]:
    """What a container has mounted, by its row of the listing or its inspection."""
    return rows(row.get("Mounts"))


def mounted_volumes(row: Row) -> set[str]:
    """The names of the volumes that a container has."""
    return {name for mount in mounts(row) if mount.get("Type") == "volume" and (name := text(mount.get("Name")))}


def _folders(row: Row) -> set[str]:
    """The names of the volumes whose own folder it has mounted: no engine takes that for a use."""
    binds = (text(mount.get("Source")) or "" for mount in mounts(row) if mount.get("Type") == "bind")
    return {folder[1] for source in binds if (folder := _VOLUME_FOLDER.search(source)) is not None}


def _labels_of_anonymous_volumes(host: Row) -> Mapping[str, str] | None:
    """The labels that the creator of a container gave to volumes without a name, which the engine deletes with it."""
    found: dict[str, str] = {}
    for mount in rows(host.get("Mounts")):
        if mount.get("Type") == "volume" and not mount.get("Source"):
            found |= labels(table(mount.get("VolumeOptions")).get("Labels")) or {}
    return found or None


def _inherited(found: Mapping[str, str] | None, image: object, image_id: object) -> frozenset[str] | None:
    """Which labels came with the image: none where there are none, or no image (``podman run --rootfs``); else unknown."""
    return frozenset() if not found or (image, image_id) == ("", "sha256:") else None


def listed_container(
    row: Row, endpoint: str, directory: Directory | None = None, known: Mapping[str, Links] | None = None
) -> Resource:
    """One row of ``GET /containers/json``.

    One without an id is unreadable: it can't be acted on, and keeps its project and, while it may live, what it may use.

    Args:
        row: it.
        endpoint: where it is.
        directory: what the names in its configuration mean.
        known: by id, the dependencies of containers that earlier inspections found.
    """
    id_ = text(row.get("Id")) or ""
    unreadable = None if id_ else "its row has no Id"
    earlier = (known or {}).get(id_)
    names = row.get("Names")
    shortest = min((_name(name) for name in names), key=lambda n: n.count("/")) if isinstance(names, list) and names else ""
    found = labels(row.get("Labels"))
    inherited = _inherited(found, row.get("Image"), row.get("ImageID"))
    image = text(row.get("Image"))
    try:
        created = epoch(row.get("Created"))
    except ValueError as error:
        created, unreadable = None, unreadable or f"Created: {error}"
    raw_state = text(row.get("State")) or ""
    # Once its tag has been rebuilt or removed, the listing shows an image by its id; the inspection still has the name.
    unresolved = image is None or _IMAGE_ID.fullmatch(image) is not None
    return Resource(
        provider="docker",
        endpoint=endpoint,
        kind=Kind.CONTAINER,
        id=id_,
        name=shortest or id_[:12] or "without an id",
        state=STATES.get(raw_state, State.UNKNOWN),
        raw_state=raw_state,
        created_at=created,
        exit_code=_listed_exit_code(row.get("Status")) if raw_state == "exited" else None,
        labels=found,
        image=image,
        group=compose_project(found, inherited),
        image_id=text(row.get("ImageID")),
        inherited=inherited,
        uses=listed_uses(row, directory or Directory(), earlier),
        # What is being removed is never started again, and its inspection may not be answered before it is gone.
        links_known=earlier is not None or raw_state in ("removing", "dead"),
        inspected=not id_,
        image_unresolved=unresolved,
        system_container=system_container_of(shortest, found, image),
        unreadable=unreadable,
    )


def _exit_code(value: object) -> int | None:
    """What an inspection says of one that has ended. None for what no process exits with: Podman has -1 for unknown."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _listed_exit_code(status: object) -> int | None:
    """What a listing says: "Exited (137) 3 hours ago". None where it says nothing."""
    found = _EXITED.match(status) if isinstance(status, str) else None
    return int(found[1]) if found is not None else None


def inspected_container(row: Row, endpoint: str, directory: Directory | None = None) -> Resource:
    """The answer of ``GET /containers/ID/json``. Raises ValueError when it has no id; odd times make it unreadable.

    Args:
        row: it.
        endpoint: where it is.
        directory: what the names in its configuration mean.
    """
    id_ = text(row.get("Id"))
    if id_ is None:
        raise ValueError("a container without Id")
    state, config, host = table(row.get("State")), table(row.get("Config")), table(row.get("HostConfig"))
    raw_state = text(state.get("Status")) or ""
    found = labels(config.get("Labels"))
    inherited = _inherited(found, config.get("Image"), row.get("Image"))
    image = text(config.get("Image"))
    name = _name(row.get("Name"))
    unreadable = None
    times: dict[str, datetime | None] = {}
    for key, value in (
        ("created_at", row.get("Created")),
        ("started_at", state.get("StartedAt")),
        ("stopped_at", state.get("FinishedAt")),
    ):
        try:
            times[key] = moment(value)
        except ValueError as error:
            times[key], unreadable = None, f"{key}: {error}"
    if raw_state in ("running", "paused", "restarting"):
        times["stopped_at"] = None  # that of an earlier run
    restart = table(host.get("RestartPolicy")).get("Name")
    if not isinstance(restart, str):
        unreadable = "no restart policy in the answer"
    if times["started_at"] is None and raw_state in ("running", "paused", "restarting"):
        unreadable = unreadable or "no start time in the answer"
    return Resource(
        provider="docker",
        endpoint=endpoint,
        kind=Kind.CONTAINER,
        id=id_,
        name=name or id_[:12],
        state=STATES.get(raw_state, State.UNKNOWN),
        raw_state=raw_state,
        created_at=times["created_at"],
        started_at=times["started_at"],
        stopped_at=times["stopped_at"],
        exit_code=_exit_code(state.get("ExitCode")) if raw_state in _ENDED else None,
        labels=found,
        image=image,
        group=compose_project(found, inherited),
        image_id=text(row.get("Image")),
        inherited=inherited,
        uses=_uses(row, row.get("Image"), directory or Directory(), configured_links(row)),
        volume_labels=_labels_of_anonymous_volumes(host),
        footprint=_footprint(host),
        restart_policy=(restart if isinstance(restart, str) else "") or "no",
        lost_when_stopped=removed if isinstance(removed := host.get("AutoRemove"), bool) else None,
        system_container=system_container_of(name, found, image),
        unreadable=unreadable,
    )


def _footprint(host: Row) -> Footprint:
    """The limits that it was given, in billionths of a CPU and in bytes; 0 stands for none."""
    cpu, memory = (
        value if isinstance(value, int) and value > 0 else None for value in map(host.get, ("NanoCpus", "Memory"))
    )
    return Footprint(None if cpu is None else cpu / 1e9, memory)


_OWN_NETWORKS = (("bridge", "bridge"), ("host", "host"), ("none", "null"))


def _network_of_engine(row: Row) -> str | None:
    """Which network it is that no client has made, or None."""
    if row.get("Scope") == "swarm" or row.get("Ingress") is True or row.get("Name") == "docker_gwbridge":
        return "a Swarm network"
    return "Podman's own network" if row.get("Name") == "podman" else None


def networks_below(networks: Sequence[Row]) -> Mapping[tuple[str, str], str]:
    """Ids of the networks that others are made from or lie on, by how those name them: see ``_lies_on``."""
    found = {}
    for row in networks:
        id_, name = text(row.get("Id")) or "", text(row.get("Name")) or ""
        if row.get("ConfigOnly") is True:
            found["configuration", name] = id_
        elif row.get("Driver") == "bridge":
            interface = text(table(row.get("Options")).get("com.docker.network.bridge.name"))
            found["interface", interface or f"br-{id_[:12]}"] = id_
    return found


def _lies_on(row: Row) -> Iterator[tuple[str, str]]:
    """How a network names one that it cannot do without: as its configuration, or as the parent of a macvlan or ipvlan."""
    yield "configuration", text(table(row.get("ConfigFrom")).get("Network")) or ""
    parent = text(table(row.get("Options")).get("parent")) or ""
    yield "interface", parent
    yield "interface", parent.rpartition(".")[0]  # of a VLAN on it


def network(
    row: Row,
    endpoint: str,
    label_keys: frozenset[str] | None = frozenset(),
    *,
    every: bool = False,
    below: Mapping[tuple[str, str], str] = MappingProxyType({}),
) -> Resource | None:
    """A row of ``GET /networks``, or an inspected one; None for those of no Compose project and no lease.

    Args:
        row: it.
        endpoint: where it is.
        label_keys: by one of these a lease may claim it; None when it has been chosen already.
        every: whether those are chosen as well that were made by hand; the engine's own are never.
        below: see ``networks_below``. What lies on another one is chosen as well: that must stay for it.
    """
    found = labels(row.get("Labels"))
    project = (found or {}).get(PROJECT_LABEL)
    id_, uses = text(row.get("Id")), frozenset(below[key] for key in _lies_on(row) if key in below)
    chosen: object = label_keys is None or project or uses or {LEASE_LABEL, *label_keys} & (found or {}).keys()
    chosen = bool(chosen) or (every and (row.get("Name"), row.get("Driver")) not in _OWN_NETWORKS)
    if id_ is None or not chosen:
        return None
    try:
        created, unreadable = moment(row.get("Created")), None
    except ValueError as error:
        created, unreadable = None, f"Created: {error}"
    attached = bool(table(row.get("Containers")))
    of_engine = _network_of_engine(row) or system_container_of(_name(row.get("Name")), found, None)
    if of_engine is not None and row.get("Labels") is None:
        found = {}  # that of Swarm's ingress is null, which is worth no warning in each sweep
    return Resource(
        provider="docker",
        endpoint=endpoint,
        kind=Kind.NETWORK,
        id=id_,
        name=_name(row.get("Name")) or id_[:12],
        state=State.RUNNING if attached else State.STOPPED,
        raw_state="attached" if attached else "unattached",
        created_at=created,
        labels=found,
        group=project or None,
        uses=uses,
        system_container=of_engine,
        unreadable=unreadable,
    )
