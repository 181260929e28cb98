"""Podman's pods: which containers are in one, and the pod itself, which goes with its infra container after all others.

Docker's calls show nothing of pods but the infra containers, which they refuse to delete: Podman's own are asked on the same
socket. A container never changes its pod, and none outside a pod can live in the namespaces of one that is in it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from reaper.core.identity import place
from reaper.core.model import Kind, Resource, State
from reaper.errors import ConflictError, NotFoundError, UnreadableError
from reaper.providers.base import Call
from reaper.providers.docker.connection import EngineConnection, checked_rows, hinting
from reaper.providers.docker.containers import moment, system_container_of
from reaper.providers.docker.states import STATES
from reaper.providers.parsing import Row, labels, text, texts

_LIST, _ONE, _CONTAINER = "libpod/pods/json", "libpod/pods/{}", "libpod/containers/{}/json"
_OCCUPIED, _EMPTY = "occupied", "empty"


class _Group(NamedTuple):
    """The group of a pod: itself, or the project of all that is in it; None where these disagree."""

    name: str | None
    in_pod: bool = False
    unreadable: str | None = None


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod.

    Args:
        id: of it.
        name: of it.
        infra: the id of its infra container, where it has one.
        containers: id, name and state of the others.
        created: when it was made, as Podman says it.
        labels: of it; an answer without any is one without labels, since Podman leaves them out then.
    """

    id: str
    name: str
    infra: str | None
    containers: Mapping[str, tuple[str, str]]
    created: object
    labels: Mapping[str, str] | None

    @property
    def key(self) -> str:
        """What its containers have as their group: no two pods have the same."""
        return f"{self.name}@{self.id[:12]}"


def read_pod(row: Row) -> Pod:
    """A row of the listing, or an inspection. Raises UnreadableError: an unknown member of a pod may be a living one."""
    id_, name, found = text(row.get("Id")), text(row.get("Name")), row.get("Containers")
    infra = text(row.get("InfraId") or row.get("InfraContainerID"))
    if id_ is None or name is None or not isinstance(found, list | None):
        raise UnreadableError("the answer about a pod has no Id, Name or Containers")
    containers: dict[str, tuple[str, str]] = {}
    for one in found or ():
        container = text(one.get("Id")) if isinstance(one, dict) else None
        if container is None:
            raise UnreadableError(f"pod {name} has a container without Id")
        if container != infra:
            state = str(one.get("State") or one.get("Status") or "")
            containers[container] = (text(one.get("Name") or one.get("Names")) or container[:12], state.lower())
    return Pod(id_, name, infra, containers, row.get("Created"), labels(row.get("Labels") or {}))


class Pods:
    """The pods of one engine, as far as it is Podman.

    Args:
        endpoint: the engine's name.
        connection: to it.
    """

    def __init__(self, endpoint: str, connection: EngineConnection) -> None:
        self._endpoint = endpoint
        self._connection = connection
        self._pods: Mapping[str, Pod] = {}
        self._of: dict[str, Pod | None] = {}  # by the id of a container
        self._groups: dict[str, _Group] = {}  # by the id of a pod
        self._required: dict[str, Sequence[str]] = {}  # by the id of a container: those that it requires, for ever

    async def read(self, containers: Iterable[str | None], call: Call) -> None:
        """List the pods. What is in none of them then, of the containers that were listed before, is in no pod at all."""
        if not self._connection.is_podman:
            return
        rows = await call(f"list pods of {self._endpoint}", self._rows)
        self._pods = {pod.id: pod for pod in map(read_pod, rows)}
        self._of = {id_: None for id_ in containers if id_ is not None}
        self._required = {id_: found for id_, found in self._required.items() if id_ in self._of}
        self._of |= {id_: pod for pod in self._pods.values() for id_ in pod.containers}

    async def with_required(self, row: Row) -> Row:
        """A container's inspection with the ids of those that it requires (``podman run --requires``), which Docker's lacks.

        Raises ProviderError.
        """
        id_ = text(row.get("Id")) if isinstance(row, dict) else None
        if not self._connection.is_podman or id_ is None:
            return row
        if id_ not in self._required:
            with hinting("GET /libpod/containers/ID/json has to be let through: it shows which containers one requires"):
                found = await self._connection.ask(_CONTAINER.format(id_))
            if not isinstance(found, dict):  # what it requires would count as nothing, for ever
                raise UnreadableError(f"the answer to GET /{_CONTAINER.format(id_)} is no object")
            self._required[id_] = texts(found.get("Dependencies"))
        return {**row, "Dependencies": self._required[id_]}

    async def _rows(self) -> Sequence[Row]:
        with hinting("GET /libpod/pods/json has to be let through: it shows which containers go together"):
            rows = await self._connection.ask(_LIST)
        return checked_rows([] if rows is None else rows, "pods")  # of none it says null

    def grouped(self, resources: Iterable[Resource]) -> list[Resource]:
        """The resources of a whole listing with the pods in place of their infra containers."""
        resources = list(resources)
        if not self._pods:
            return resources
        pods = self._pods.values()
        inside: dict[str, list[Resource]] = {id_: [] for id_ in self._pods}
        infra = dict[str, Resource | None].fromkeys(pod.infra for pod in pods if pod.infra is not None)
        for resource in resources:
            if (pod := self._of.get(resource.id)) is not None and resource.kind is Kind.CONTAINER:
                inside[pod.id].append(resource)
            elif resource.id in infra:
                infra[resource.id] = resource
        self._groups = {id_: _group_of(self._pods[id_], found) for id_, found in inside.items()}
        left = [self._in_pod(resource) for resource in resources if resource.id not in infra]
        return left + [self._resource(pod, infra.get(pod.infra or "")) for pod in pods]

    async def with_pod(self, container: Resource) -> Resource:
        """One container as it was inspected, with its pod. Raises ProviderError."""
        if self._connection.is_podman and container.id not in self._of:  # it is newer than the listing
            pods = {pod.id: pod for pod in map(read_pod, await self._rows())}
            found = next((pod for pod in pods.values() if container.id in pod.containers), None)
            self._of[container.id] = found
        return self._in_pod(container)

    def _in_pod(self, container: Resource) -> Resource:
        pod = self._of.get(container.id) if container.kind is Kind.CONTAINER else None
        if pod is None:
            return container
        group = self._group(pod)
        inside = replace(container, uses=container.uses | {pod.id})
        if group.in_pod:
            return replace(inside, group=group.name, in_pod=True)
        other = None if container.group == group.name else f"its pod {pod.name} is of another project"
        return replace(inside, unreadable=container.unreadable or group.unreadable or other)

    def _group(self, pod: Pod) -> _Group:
        """Its group by the last listing; of a pod that is newer than that, the pod."""
        return self._groups.get(pod.id, _Group(pod.key, in_pod=True))

    def _resource(self, pod: Pod, infra: Resource | None = None) -> Resource:
        group = self._group(pod)
        try:
            created, unreadable = moment(pod.created), group.unreadable
        except ValueError as error:
            created, unreadable = None, f"Created: {error}"
        # What systemd starts carries its unit's name; of a pod Podman writes it on the infra container.
        signs = {**((infra.labels if infra is not None else None) or {}), **(pod.labels or {})}
        return Resource(
            provider="docker",
            endpoint=self._endpoint,
            kind=Kind.POD,
            id=pod.id,
            name=pod.name,
            state=State.RUNNING if pod.containers else State.STOPPED,
            raw_state=_OCCUPIED if pod.containers else _EMPTY,
            created_at=created,
            labels=pod.labels,
            group=group.name,
            in_pod=group.in_pod,
            uses=infra.uses if infra is not None else frozenset(),
            system_container=system_container_of("", signs, None),
            unreadable=unreadable,
        )

    async def inspect(self, resource: Resource) -> Resource:
        """A pod as it is now. Raises ProviderError."""
        fresh = self._resource(await self._one(resource.id))
        return replace(fresh, system_container=fresh.system_container or resource.system_container)

    async def _one(self, id_: str) -> Pod:
        row = await self._connection.ask(f"{_ONE.format(id_)}/json")
        pod = read_pod(row if isinstance(row, dict) else {})
        if pod.id != id_:
            raise UnreadableError("the inspection is of another pod")
        return pod

    async def members(self, resource: Resource, listed: Sequence[Resource], call: Call) -> Sequence[Resource]:
        """What is in the same group now: besides what is listed of its project, all that is in the pods of that.

        Args:
            resource: a member of the group, or its pod.
            listed: the members that Docker's calls show.
            call: makes each request.
        """
        pods = {resource.id} if resource.kind is Kind.POD else set()
        pods |= {pod.id for one in (resource, *listed) if (pod := self._of.get(one.id)) is not None}
        found = {one.id: one for one in listed}
        for id_ in sorted(pods):
            try:
                pod = await call(f"inspect pod {id_[:12]}", partial(self._one, id_))
            except NotFoundError:
                continue
            for container, (name, state) in pod.containers.items():
                stub = replace(resource, kind=Kind.CONTAINER, id=container, name=name, labels=None, inspected=False)
                found.setdefault(container, replace(stub, raw_state=state, state=STATES.get(state, State.UNKNOWN)))
        return tuple(found.values())

    async def delete(self, resource: Resource) -> None:
        """Delete an empty pod with its infra container. Raises ProviderError.

        Podman deletes what has stopped in a pod along with it: so what is in it is looked at once more. Never by force.
        """
        if others := (await self._one(resource.id)).containers:
            raise ConflictError(f"pod {resource.name} has {', '.join(sorted(name for name, _ in others.values()))}")
        await self._connection.request("DELETE", _ONE.format(resource.id))


def _group_of(pod: Pod, inside: Sequence[Resource]) -> _Group:
    """The group of a pod and of these, which are all that was listed in it: itself, or the one project that they are of."""
    projects = {(one.group, place(one)) if one.group is not None else None for one in inside}
    if projects <= {None}:
        return _Group(pod.key, in_pod=True)
    names = sorted({key[0] or "" if key is not None else "no project" for key in projects})
    if len(projects) == 1:
        return _Group(names[0])
    return _Group(None, unreadable=f"its pod {pod.name} has containers of {' and of '.join(names)}")
