"""Docker engines, through aiodocker.

aiodocker is imported when a client is made, not with this module: a command that needs no client does not pay for it.
"""

import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, TypeVar

from reaper.core.accounts import Prune, Pruned
from reaper.core.identity import PROJECT_LABEL, same_group
from reaper.core.model import Kind, Resource, State
from reaper.errors import ConflictError, InProgressError, ProviderError, UnreadableError
from reaper.providers.abilities import Evidence, Uses
from reaper.providers.base import NOTHING_ELSE, Also, Call, Inventory, Limits, Listed, Traits
from reaper.providers.docker.connection import EngineConnection, checked_rows, hinting
from reaper.providers.docker.containers import engine_id, inspected_container, listed_container, network, networks_below
from reaper.providers.docker.data_root import DataRoot
from reaper.providers.docker.dependents import Dependents
from reaper.providers.docker.disk import Disk
from reaper.providers.docker.events import followed_deaths
from reaper.providers.docker.evidence import evidence_of
from reaper.providers.docker.image_labels import ImageLabels
from reaper.providers.docker.labelled import is_wanted, rows_with
from reaper.providers.docker.links import Below
from reaper.providers.docker.mounted_images import MountedImages
from reaper.providers.docker.network_endpoints import delete_network, proven_stale
from reaper.providers.docker.own_container import OwnContainer
from reaper.providers.docker.own_labels import OwnLabels
from reaper.providers.docker.podman_images import PodmanImages
from reaper.providers.docker.pods import Pods
from reaper.providers.docker.settings import DockerTable
from reaper.providers.docker.use_record import UseRecord, follow
from reaper.providers.docker.uses import uses_since
from reaper.providers.docker.volume_folders import VolumeFolders
from reaper.providers.docker.volumes_images import image, reports_creation, volume
from reaper.providers.parsing import Row, table
from reaper.providers.parsing import text as text_of

if TYPE_CHECKING:
    import aiodocker

T = TypeVar("T")

MANY_KEYS = 8  # labels to ask for; where there are more, one listing of everything costs less
NEVER = timedelta(days=36500)
LONGEST_FILTER = 2048  # characters: a proxy before the engine may refuse a longer target, and the engine one of a megabyte
BLOCKED = 2.0  # seconds without an answer about a container until the listing is asked whether it is being removed
_INSPECT = {
    Kind.CONTAINER: "containers/{}/json",
    Kind.NETWORK: "networks/{}",
    Kind.VOLUME: "volumes/{}",
    Kind.IMAGE: "images/{}/json",
}


class DockerReader:
    """Lists and inspects what one engine holds; has no method that changes anything.

    Args:
        engine: where the engine is.
        own_container: the ids by which this process knows the container that it runs in.
        own_labels: what is remembered of containers whose images are gone.
    """

    provider = "docker"
    traits = Traits(kinds=frozenset({Kind.CONTAINER, Kind.NETWORK, Kind.VOLUME, Kind.IMAGE, Kind.BUILD_CACHE}))

    def __init__(
        self, engine: DockerTable, own_container: frozenset[str] = frozenset(), own_labels: OwnLabels | None = None
    ) -> None:
        self.endpoint = engine.name
        self.identity = engine.host
        self.endpoint_id: str | None = None
        self.limits = Limits(removals=engine.removals, stops=engine.stops)
        self._engine = engine
        self._own = OwnContainer(own_container)
        self._connection = EngineConnection(engine)
        self._image_labels = ImageLabels(engine.name, self._list_images, self._inspect_image, own_labels)
        self._folders = VolumeFolders(engine.name, self._connection)
        self._dependents = Dependents(
            self.endpoint, self._connection.containers, self.inspect, self._image_labels.mark, self._folders.read
        )
        self._disk = Disk(engine.name, self._connection)
        self._pods = Pods(engine.name, self._connection)
        self._mounted = MountedImages(self._connection)
        self._podman_images = PodmanImages(engine.name, self._connection)
        self._uses = UseRecord()
        self.meter = DataRoot(engine, self._connection)
        self._layers: dict[str, tuple[str, ...]] = {}  # by the id of an image, as inspections have shown them
        self._start: str | None = None  # the id of the network that the engine makes at each of its starts
        self._ahead = timedelta(0)  # of this host's clock the engine's is, at the most
        self._images: dict[str, str] = {}  # what the creators of containers called the images that are ids now

    async def list(self, call: Call, label_keys: frozenset[str] = frozenset(), also: Also = NOTHING_ELSE) -> Inventory:
        """Every container, and every network of a Compose project or with a lease's label.

        And every network, volume and image with one of the labels, and the volumes and images that ``also`` names.
        """
        every_network = Kind.NETWORK in also.kinds
        listed, skew = await call(f"list {self.endpoint}", partial(self._connection.dated, self._connection.containers))
        listing = partial(self._connection.dated, self._connection.networks)
        networks, other = await call(f"list networks of {self.endpoint}", listing)
        skew = min(skew, other, key=itemgetter(1))
        # After the containers: each of them that is in a pod is in one that was there before.
        await self._pods.read((text_of(row.get("Id")) for row in listed), call)
        volumes = bool(label_keys) or also != NOTHING_ELSE
        below = await self._folders.read_anew(listed, call, volumes=volumes)
        inventory = self._inventory(listed, networks, below, skew, label_keys, every_network=every_network)
        await self._image_labels.read(inventory.resources, call)
        marked = self._own.mark(self._pods.grouped(self._image_labels.marked(inventory.resources, self.endpoint_id)))
        unlisted = {} if self._folders.problem is None else {Kind.VOLUME: self._folders.problem}
        inventory = replace(inventory, resources=marked, unlisted=unlisted)
        if not volumes:
            return inventory
        few = not also.ids and not also.projects and len(label_keys) <= MANY_KEYS
        known = {resource.id for resource in inventory.resources}
        labelled: dict[str, Resource] = {}
        unreadable = inventory.unreadable
        for kind in (Kind.VOLUME, Kind.IMAGE):
            whole = kind in also.kinds
            if kind in unlisted:
                continue  # which of them lie on others is not known
            if not whole and not label_keys and not also.ids and not also.projects:
                continue
            keys = sorted(label_keys) if few and not whole and kind is Kind.IMAGE else [None]
            intermediate = whole and kind is Kind.IMAGE
            rows = await rows_with(self._connection, self.endpoint, kind, keys, call, intermediate=intermediate)
            if kind is Kind.IMAGE:
                rows = await self._podman_images.read_with(rows, call)
            if isinstance(rows, ProviderError):
                unlisted[kind] = str(rows)
                continue
            for row in rows:
                found = self._listed_image(row) if intermediate else self._parsed(kind, row)
                unreadable += found is None
                # A volume's id is its name, which may have been taken from the id of something else.
                if found is not None and found.id not in known and is_wanted(found, label_keys, also):
                    labelled[found.id] = found
        for found in [found for found in labelled.values() if found.kind is Kind.IMAGE and found.id in also.ids]:
            labelled[found.id] = await self._with_time_of_tag(found, call)
        self._mounted.know(labelled.values(), self._podman_images.former_names)
        containers = map(self._mounted.mark, inventory.resources)
        resources = (*containers, *self._own.mark(await self._measured(labelled.values(), also, call)))
        if Kind.BUILD_CACHE in also.kinds:
            try:
                cache = await call(f"measure the build cache of {self.endpoint}", self._disk.build_cache)
                resources = resources if cache is None else (*resources, cache)
            except ProviderError as error:
                unlisted[Kind.BUILD_CACHE] = str(error)
        return replace(inventory, resources=resources, unreadable=unreadable, unlisted=unlisted)

    def _listed_image(self, row: Row) -> Resource | None:
        """An image of which more has to be known before a policy may take it: when it was tagged, and its layers."""
        known = self._layers.get(text_of(row.get("Id")) or "", ())
        return self._podman_images.mark(image(row, self.endpoint, inspected=False, layers=known))

    async def _measured(self, found: Iterable[Resource], also: Also, call: Call) -> Iterable[Resource]:
        """These with the sizes of volumes, where they are wanted and can be measured in time."""
        if Kind.VOLUME not in also.sizes:
            return found
        try:
            sizes = await call(f"measure the volumes of {self.endpoint}", self._disk.volume_sizes)
        except ProviderError:
            return found  # what has no size is kept
        return [replace(one, size=sizes.get(one.id)) if one.kind is Kind.VOLUME else one for one in found]

    async def uses(self, since: str | None, call: Call) -> Uses:
        """See ``WatchesUse``: by the events that the engine still knows."""
        ask = partial(uses_since, self._connection, since, self._start, self._ahead, self._uses)
        uses = await call(f"read the events of {self.endpoint}", ask)
        self._uses.wanted.set()
        return uses

    async def follow_uses(self) -> bool:
        """See ``FollowsUse``: by a stream of events."""
        return await follow(self._connection, self._uses, lambda: self._ahead)

    async def _with_time_of_tag(self, found: Resource, call: Call) -> Resource:
        """The image as an inspection shows it, which alone shows when it was tagged; as it was listed where that fails."""
        try:
            row = await call(f"inspect image {found.name}", partial(self._inspect_image, found.id))
            fresh = self._parsed(Kind.IMAGE, row)
        except (ProviderError, ValueError, TypeError, AttributeError):
            return found
        return fresh if fresh is not None and fresh.id == found.id else found

    async def identify(self, call: Call) -> None:
        """Ask for the networks, whose ids distinguish engines."""
        await call(f"identify {self.endpoint}", self._identify)

    async def _identify(self) -> None:
        self.endpoint_id = engine_id(self._engine.host, await self._connection.networks())

    def _parsed(self, kind: Kind, row: Row) -> Resource | None:
        """What a listing or an inspection says of one of this kind. None or a ValueError when it cannot even be named."""
        match kind:
            case Kind.NETWORK:
                return network(row, self.endpoint, None)
            case Kind.VOLUME:
                exact = reports_creation(self._connection.client().api_version)
                return volume(row, self.endpoint, exact=exact)
            case Kind.IMAGE:
                return self._podman_images.mark(image(row, self.endpoint))
            case _:
                return inspected_container(row, self.endpoint, self._dependents.directory)

    def _inventory(
        self,
        rows: Sequence[Row],
        networks: Sequence[Row],
        below: Below,
        skew: tuple[timedelta, timedelta],
        label_keys: frozenset[str],
        *,
        every_network: bool,
    ) -> Inventory:
        try:
            containers = self._dependents.listed(rows, networks, below)
            under = networks_below(networks)
            parsed = (network(row, self.endpoint, label_keys, every=every_network, below=under) for row in networks)
            projects = [net for net in parsed if net is not None]
        except (ValueError, TypeError, AttributeError) as error:
            raise UnreadableError(f"the listing cannot be read: {error}") from error
        self.endpoint_id = engine_id(self._engine.host, networks)
        self._start = next(
            (text_of(row.get("Id")) for row in networks if row.get("Name") == row.get("Driver") == "bridge"), None
        )
        self._ahead = self._connection.ahead(*skew)
        found = [*(self._known_image(container) for container in containers), *projects]
        self._images = {c.id: self._images[c.id] for c in containers if c.id in self._images}
        self._mounted.listed(rows)
        unreadable = sum(text_of(row.get("Id")) is None for row in networks)
        return Inventory(tuple(found), skew[0], unreadable, skew[1], engine=self._start)

    async def inspect(self, resource: Resource) -> Resource:
        """It as it is now. Raises NotFoundError when it is gone."""
        if not resource.id:
            raise UnreadableError("its row has no Id to ask for")
        others: dict[Kind, Callable[[], Awaitable[Resource]]] = {
            Kind.BUILD_CACHE: self._disk.inspect,
            Kind.POD: partial(self._pods.inspect, resource),
        }
        if (look := others.get(resource.kind)) is not None:
            return self._own.mark((await look(),))[0]
        try:
            row = await self._row_of(resource)
        except InProgressError:
            # The engine does not answer before it is gone, or its removal has failed.
            return replace(resource, state=State.CHANGING, raw_state="removing", inspected=True, links_known=True)
        try:
            fresh = self._parsed(resource.kind, row)
        except (ValueError, TypeError, AttributeError) as error:
            raise UnreadableError(f"the inspection cannot be read: {error}") from error
        if fresh is None or fresh.id != resource.id:
            raise UnreadableError("the inspection is of something else")
        if fresh.kind is Kind.IMAGE and fresh.layers:
            self._layers[fresh.id] = fresh.layers
        if fresh.kind is Kind.CONTAINER:
            self._dependents.learn(fresh.id, row)
            fresh = self._mounted.inspected(fresh, row)
        if fresh.kind is Kind.NETWORK and await proven_stale(row, self._connection.request, self._connection.containers):
            fresh = replace(fresh, state=State.STOPPED, raw_state="unattached")
        if resource.image_unresolved and fresh.image is not None:
            self._images[fresh.id] = fresh.image
        if resource.remembered is not None:
            fresh = replace(fresh, remembered=resource.remembered)
        fresh = self._image_labels.mark(fresh, resource)
        if fresh.inherited is None:
            await self._image_labels.read_of(fresh)
            fresh = self._image_labels.mark(fresh)
        return self._own.mark((await self._pods.with_pod(fresh),))[0]

    async def _row_of(self, resource: Resource) -> Row:
        path = _INSPECT[resource.kind].format(resource.id)
        try:
            row = await self._connection.unless_removed(resource, BLOCKED, lambda client: client._query_json(path))  # noqa: SLF001
        except InProgressError as error:
            if resource.kind is Kind.CONTAINER:
                raise
            raise UnreadableError(f"an engine says of containers only: {error}") from error
        return await self._pods.with_required(row) if resource.kind is Kind.CONTAINER else row

    async def members(self, resource: Resource, call: Call) -> Sequence[Resource]:
        """The Compose project or the pod as it is now. The filter is an optimisation: what comes back is tested again."""
        project = resource.group
        if project is None:
            return (resource,)
        listed = () if resource.in_pod else await call(f"list project {project}", lambda: self._members(project))
        return await self._pods.members(resource, [member for member in listed if same_group(member, resource)], call)

    async def _members(self, project: str) -> Sequence[Resource]:
        filters = json.dumps({"label": [f"{PROJECT_LABEL}={project}"]})
        params = {"filters": filters} if len(filters) <= LONGEST_FILTER else {}
        try:
            listed = [listed_container(row, self.endpoint) for row in await self._connection.containers(**params)]
        except Exception as error:  # noqa: BLE001
            self._connection.translate(error)
        if not all(member.id for member in listed):
            raise UnreadableError(f"the listing of project {project} has a row without Id, so its members are unknown")
        return tuple(self._image_labels.mark(member) for member in listed)

    async def _list_images(self) -> Sequence[Row]:
        return checked_rows(await self._connection.ask("images/json"), "images")

    async def _inspect_image(self, id_: str) -> Row:
        with hinting("GET /images/ID/json has to be let through: it shows which labels of a container are its image's"):
            return table(await self._connection.ask(f"images/{id_}/json"))

    async def dependents(self, resources: Sequence[Resource], listed: Listed, call: Call) -> Sequence[Resource]:  # noqa: ARG002
        """The containers that depend on these or are of their projects, of all that there are now."""
        return await self._dependents.of(resources, call)

    def deaths(self, connected: Callable[[], None], since: datetime | None = None) -> AsyncIterator[Resource]:
        """See ``Watched``. ``since`` a time: the engine remembers the last few hundred events."""
        return followed_deaths(self._connection, self.endpoint, connected, since)

    async def evidence(self, resource: Resource, lines: int) -> Evidence:
        """See ``GivesEvidence``."""
        return await evidence_of(self._connection, resource, lines)

    async def ask(self, path: str, **params: str) -> object:
        """What the engine answers to a GET request. Raises ProviderError."""
        return await self._connection.ask(path, **params)

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.close()

    def _known_image(self, container: Resource) -> Resource:
        image = self._images.get(container.id)
        if not container.image_unresolved or image is None:
            return container
        return replace(container, image=image, image_unresolved=False)


class DockerProvider(DockerReader):
    """A reader that can also stop and delete."""

    async def stop(self, resource: Resource, grace: timedelta) -> None:
        """Send the container's own stop signal and wait; the engine kills it after ``grace``.

        Cancelling this call does not cancel the stop.
        """
        seconds = math.ceil(grace.total_seconds())

        async def stop(client: "aiodocker.Docker") -> None:
            await client.containers.container(resource.id).stop(t=seconds)

        try:
            await self._connection.unless_removed(resource, seconds + BLOCKED, stop)
        except ConflictError:
            if resource.raw_state != "paused":
                raise
            # Podman. Docker resumes it, too, or it could not obey the signal.
            await self._connection.unless_removed(
                resource, BLOCKED, lambda client: client.containers.container(resource.id).unpause()
            )
            await self._connection.unless_removed(resource, seconds + BLOCKED, stop)

    async def delete(self, resource: Resource, *, force: bool = False) -> Pruned | None:
        """Delete the container with its anonymous volumes (named ones stay); or the network, volume or image, by no force.

        Of an image its only tag goes with it; the untagged ones that it was built on stay.
        """
        if resource.kind is Kind.BUILD_CACHE:
            return await self._disk.prune(resource.prune or Prune(unused_for=NEVER))
        client = self._connection.client()
        try:
            match resource.kind:
                case Kind.POD:
                    await self._pods.delete(resource)
                case Kind.NETWORK:
                    await delete_network(resource.id, self._connection.request, self._connection.containers)
                case Kind.VOLUME:
                    await client._query_json(_INSPECT[resource.kind].format(resource.id), "DELETE")  # noqa: SLF001
                case Kind.IMAGE:
                    await self._mounted.refuse(resource)
                    await client._query_json(f"images/{resource.id}", "DELETE", params={"noprune": "1"})  # noqa: SLF001
                case _:
                    await client.containers.container(resource.id).delete(force=force, v=True)
        except Exception as error:  # noqa: BLE001
            self._connection.translate(error)
        return None
