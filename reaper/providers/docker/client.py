"""Docker engines, through aiodocker.

aiodocker is imported when a client is made, not with this module: a command that needs no client does not pay for it.
"""

import asyncio
import json
import math
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import anyio

from reaper.core.identity import PROJECT_LABEL, same_group
from reaper.core.model import Kind, Resource, State
from reaper.errors import (
    CallTimeoutError,
    ConflictError,
    DeniedError,
    InProgressError,
    NotFoundError,
    ProviderError,
    UnreadableError,
)
from reaper.providers.answers import REDIRECTS, cause, message, read_bounded, refuse_redirect, text
from reaper.providers.base import NOTHING_ELSE, Also, Call, Inventory, Limits, Listed, Traits
from reaper.providers.docker.address import tcp_address, tls_context, unix_path
from reaper.providers.docker.calls import check
from reaper.providers.docker.containers import (
    Row,
    engine_id,
    inspected_container,
    listed_container,
    network,
    own_container_id,
    table,
)
from reaper.providers.docker.dependents import Dependents
from reaper.providers.docker.errors import last_cause, last_headers, last_request, last_skew, translate
from reaper.providers.docker.events import FILTERS, deaths
from reaper.providers.docker.image_labels import ImageLabels
from reaper.providers.docker.network_endpoints import freed, proven_stale
from reaper.providers.docker.settings import DockerTable
from reaper.providers.docker.volumes_images import image, reports_creation, volume
from reaper.providers.parsing import clock_skew
from reaper.providers.parsing import text as text_of

if TYPE_CHECKING:
    import aiodocker
    import aiohttp
    from aiohttp.client_middlewares import ClientHandlerType

T = TypeVar("T")

LISTED_WITHIN = 20.0  # seconds for the volumes, and for the images: a plugin that is dead keeps the engine waiting
SECOND_TRY_AFTER = 1.0
MANY_KEYS = 8  # labels to ask for; where there are more, one listing of everything costs less
_LONG_ID = re.compile("[0-9a-f]{64}")
LARGEST_ANSWER = 128 << 20  # bytes; the listing of 20,000 containers has a third of that
BLOCKED = 2.0  # seconds without an answer about a container until the listing is asked whether it is being removed
CONNECT_WITHIN, QUIET = 30.0, 600.0  # seconds, of the stream of events
_INSPECT = {
    Kind.CONTAINER: "containers/{}/json",
    Kind.NETWORK: "networks/{}",
    Kind.VOLUME: "volumes/{}",
    Kind.IMAGE: "images/{}/json",
}


def detect_own_container() -> str | None:
    """The id of the container that this process runs in, or None when it runs in none."""
    texts = []
    for file in ("/proc/self/mountinfo", "/proc/self/cgroup"):
        try:
            texts.append(Path(file).read_text(encoding="utf-8", errors="replace"))
        except OSError:
            texts.append("")
    return own_container_id(*texts)


class DockerReader:
    """Lists and inspects what one engine holds; has no method that changes anything.

    Args:
        engine: where the engine is.
        own_container: the id of the container that this process runs in: it and its Compose project are never touched.
    """

    provider = "docker"
    traits = Traits()

    def __init__(self, engine: DockerTable, own_container: str | None = None) -> None:
        self.endpoint = engine.name
        self.identity = engine.host
        self.endpoint_id: str | None = None
        self.limits = Limits(removals=engine.removals, stops=engine.stops)
        self._engine = engine
        self._own = own_container
        self._own_project: str | None = None
        self._client: aiodocker.Docker | None = None
        self._session: aiohttp.ClientSession | None = None
        self._answered = False
        self._dependents = Dependents(self.endpoint, self._containers, self.inspect)
        self._image_labels = ImageLabels(engine.name, self._list_images, self._inspect_image)
        self._images: dict[str, str] = {}  # what the creators of containers called the images that are ids now

    async def list(self, call: Call, label_keys: frozenset[str] = frozenset(), also: Also = NOTHING_ELSE) -> Inventory:
        """Every container, and every network of a Compose project or with a lease's label.

        And every network, volume and image with one of the labels, and the volumes and images that ``also`` names.
        """
        inventory = await call(f"list {self.endpoint}", partial(self._list, label_keys))
        await self._image_labels.read(inventory.resources, call)
        marked = self._mark_own(self._image_labels.mark(resource) for resource in inventory.resources)
        inventory = replace(inventory, resources=marked)
        if not label_keys and also == NOTHING_ELSE:
            return inventory
        keys = sorted(label_keys) if also == NOTHING_ELSE and len(label_keys) <= MANY_KEYS else [None]
        known = {resource.id for resource in inventory.resources}
        labelled: dict[str, Resource] = {}
        unlisted: dict[Kind, str] = {}
        unreadable = inventory.unreadable
        for kind in (Kind.VOLUME, Kind.IMAGE):
            rows = await self._rows_with(kind, keys, call)
            if isinstance(rows, ProviderError):
                unlisted[kind] = str(rows)
                continue
            for row in rows:
                found = self._parsed(kind, row)
                unreadable += found is None
                # A volume's id is its name, which may have been taken from the id of something else.
                if found is not None and found.id not in known and _is_wanted(found, label_keys, also):
                    labelled[found.id] = found
        for found in [found for found in labelled.values() if found.kind is Kind.IMAGE and found.id in also.ids]:
            labelled[found.id] = await self._with_time_of_tag(found, call)
        resources = (*inventory.resources, *self._mark_own(labelled.values()))
        return replace(inventory, resources=resources, unreadable=unreadable, unlisted=unlisted)

    async def _with_time_of_tag(self, found: Resource, call: Call) -> Resource:
        """The image as an inspection shows it, which alone shows when it was tagged; as it was listed where that fails."""
        try:
            row = await call(f"inspect image {found.name}", partial(self._inspect_image, found.id))
            fresh = self._parsed(Kind.IMAGE, row)
        except (ProviderError, ValueError, TypeError, AttributeError):
            return found
        return fresh if fresh is not None and fresh.id == found.id else found

    async def _rows_with(self, kind: Kind, keys: Sequence[str | None], call: Call) -> Sequence[Row] | ProviderError:
        """The volumes or images with one of these labels (None: all), or why they cannot be listed: that stops nothing else.

        Their listing may fail alone, for a plugin that is dead or an image that is damaged: that says nothing of the engine,
        and must neither be tried as long as other calls are nor open the circuit breaker.
        """
        rows: list[Row] = []
        with anyio.move_on_after(LISTED_WITHIN):
            for key in keys:
                what, ask = f"list {kind}s on {self.endpoint}", partial(self._labelled_or_error, kind, key)
                found = await call(what, ask)
                if isinstance(found, ProviderError):
                    await anyio.sleep(SECOND_TRY_AFTER)
                    found = await call(what, ask)
                if isinstance(found, ProviderError):
                    return found
                rows += found
            return rows
        return CallTimeoutError(f"no answer within {LISTED_WITHIN:g} s")

    async def _labelled_or_error(self, kind: Kind, key: str | None) -> Sequence[Row] | ProviderError:
        try:
            return await self._labelled(kind, key)
        except ProviderError as error:
            return error

    async def ask(self, path: str, **params: str) -> object:
        """What the engine answers to a GET request. Raises ProviderError."""
        try:
            answer: object = await self._connect()._query_json(path, params=params)  # noqa: SLF001
        except Exception as error:  # noqa: BLE001
            self._translate(error)
        return answer

    async def identify(self, call: Call) -> None:
        """Ask for the networks, whose ids distinguish engines."""
        await call(f"identify {self.endpoint}", self._identify)

    async def _identify(self) -> None:
        client = self._connect()
        try:
            networks = _checked(await client.networks.list(), "networks")
        except Exception as error:  # noqa: BLE001
            self._translate(error)
        self.endpoint_id = engine_id(self._engine.host, networks)

    async def _labelled(self, kind: Kind, key: str | None) -> Sequence[Row]:
        """The volumes or images with this label, or all. The filter is an optimisation: what comes back is tested again."""
        client = self._connect()
        params = {} if key is None else {"filters": json.dumps({"label": [key]})}
        try:
            if kind is Kind.IMAGE:
                return _checked(await client._query_json("images/json", params=params), "images")  # noqa: SLF001
            answer = await client._query_json("volumes", params=params)  # noqa: SLF001
            if answer.get("Warnings"):  # a driver did not answer
                raise UnreadableError(f"the listing of volumes is not whole: {'; '.join(map(str, answer['Warnings']))}")
            volumes = answer["Volumes"]
            return _checked([] if volumes is None else volumes, "volumes")
        except Exception as error:  # noqa: BLE001
            try:
                self._translate(error)
            except DeniedError as denied:  # by a proxy, most likely: an engine that lists containers lists these, too
                what = "for the sake of leases, GET /volumes and GET /images/json have to be let through"
                raise DeniedError(f"{denied}; {what}") from error

    def _parsed(self, kind: Kind, row: Row) -> Resource | None:
        """What a listing or an inspection says of one of this kind. None or a ValueError when it cannot even be named."""
        match kind:
            case Kind.NETWORK:
                return network(row, self.endpoint, None)
            case Kind.VOLUME:
                exact = self._client is not None and reports_creation(self._client.api_version)
                return volume(row, self.endpoint, exact=exact)
            case Kind.IMAGE:
                return image(row, self.endpoint)
            case _:
                return inspected_container(row, self.endpoint, self._dependents.directory)

    async def _list(self, label_keys: frozenset[str]) -> Inventory:
        client = self._connect()
        try:
            rows = await self._rows(client)
            skews = [last_skew.get()]
            networks = _checked(await client.networks.list(), "networks")
            skew, inexact = min(*skews, last_skew.get(), key=itemgetter(1))
        except Exception as error:  # noqa: BLE001 - whatever it is, _translate makes it ours
            self._translate(error)
        try:
            containers = self._dependents.listed(rows, networks)
            projects = [net for row in networks if (net := network(row, self.endpoint, label_keys)) is not None]
        except (ValueError, TypeError, AttributeError) as error:
            raise UnreadableError(f"the listing cannot be read: {error}") from error
        self._answered = True
        self.endpoint_id = engine_id(self._engine.host, networks)
        found = [*(self._known_image(container) for container in containers), *projects]
        self._images = {c.id: self._images[c.id] for c in containers if c.id in self._images}
        unreadable = sum(text_of(row.get("Id")) is None for row in networks)
        return Inventory(tuple(found), skew, unreadable, inexact)

    async def inspect(self, resource: Resource) -> Resource:
        """It as it is now. Raises NotFoundError when it is gone."""
        if not resource.id:
            raise UnreadableError("its row has no Id to ask for")
        path = _INSPECT[resource.kind].format(resource.id)
        try:
            row = await self._unless_removed(resource, BLOCKED, lambda client: client._query_json(path))  # noqa: SLF001
        except InProgressError:
            # The engine does not answer before it is gone, or its removal has failed.
            return replace(resource, state=State.CHANGING, raw_state="removing", inspected=True, links_known=True)
        try:
            fresh = self._parsed(resource.kind, row)
        except (ValueError, TypeError, AttributeError) as error:
            raise UnreadableError(f"the inspection cannot be read: {error}") from error
        if fresh is None or fresh.id != resource.id:
            raise UnreadableError("the inspection is of something else")
        if fresh.kind is Kind.CONTAINER:
            self._dependents.learn(fresh.id, row)
        if fresh.kind is Kind.NETWORK and await proven_stale(row, partial(self._ask, self._connect()), self._containers):
            fresh = replace(fresh, state=State.STOPPED, raw_state="unattached")
        if resource.image_unresolved and fresh.image is not None:
            self._images[fresh.id] = fresh.image
        fresh = self._image_labels.mark(replace(fresh, remembered=resource.remembered), resource)
        if fresh.inherited is None:
            await self._image_labels.read_of(fresh)
            fresh = self._image_labels.mark(fresh)
        return self._mark_own((fresh,))[0]

    async def _unless_removed(
        self, resource: Resource, patience: float, ask: Callable[["aiodocker.Docker"], Awaitable[T]]
    ) -> T:
        """Make a request about one resource. Raises InProgressError when the engine is removing it and does not answer.

        Since Docker 26 a removal that is under way blocks all requests about that container, while the listing shows it.
        """
        client = self._connect()

        async def asked() -> T:
            try:
                return await ask(client)
            except Exception as error:  # noqa: BLE001
                self._translate(error)

        if resource.kind is not Kind.CONTAINER:
            return await asked()
        asking = asyncio.ensure_future(asked())
        try:
            answered, _ = await asyncio.wait((asking,), timeout=patience)
            if not answered and await self._is_being_removed(client, resource):
                raise InProgressError("it is being removed")
            return await asking
        finally:
            asking.cancel()

    async def _is_being_removed(self, client: "aiodocker.Docker", resource: Resource) -> bool:
        """Whether the listing shows its removal. Raises NotFoundError when it does not show it at all."""
        try:
            rows = await self._rows(client, filters=json.dumps({"id": [resource.id]}))
        except Exception:  # noqa: BLE001 - then the answer itself is waited for
            return False
        row = next((row for row in rows if row.get("Id") == resource.id), None)
        if row is None and not all(text_of(row.get("Id")) for row in rows):
            return False
        if row is None:
            raise NotFoundError(f"No such container: {resource.id}")
        return row.get("State") in ("removing", "dead")

    async def members(self, resource: Resource, call: Call) -> Sequence[Resource]:
        """The Compose project as it is listed now. The filter is an optimisation: what comes back is tested again."""
        project = resource.group
        if project is None:
            return (resource,)
        listed = await call(f"list project {project}", lambda: self._members(project))
        return tuple(member for member in listed if same_group(member, resource))

    async def _members(self, project: str) -> Sequence[Resource]:
        client = self._connect()
        filters = json.dumps({"label": [f"{PROJECT_LABEL}={project}"]})
        try:
            listed = [listed_container(row, self.endpoint) for row in await self._rows(client, filters=filters)]
        except Exception as error:  # noqa: BLE001
            self._translate(error)
        if not all(member.id for member in listed):
            raise UnreadableError(f"the listing of project {project} has a row without Id, so its members are unknown")
        return tuple(self._image_labels.mark(member) for member in listed)

    async def _list_images(self) -> Sequence[Row]:
        try:
            return _checked(await self._connect()._query_json("images/json"), "images")  # noqa: SLF001
        except Exception as error:  # noqa: BLE001
            self._translate(error)

    async def _inspect_image(self, id_: str) -> Row:
        try:
            return table(await self._connect()._query_json(f"images/{id_}/json"))  # noqa: SLF001
        except Exception as error:  # noqa: BLE001
            try:
                self._translate(error)
            except DeniedError as denied:  # by a proxy, most likely
                what = "GET /images/ID/json has to be let through: it shows which labels of a container are its image's"
                raise DeniedError(f"{denied}; {what}") from error

    async def dependents(
        self,
        resources: Sequence[Resource],
        listed: Listed,  # noqa: ARG002
        call: Call,
    ) -> Sequence[Resource]:
        """The containers that depend on these, of all that there are now."""
        return await self._dependents.of(resources, call)

    async def _ask(self, client: "aiodocker.Docker", method: str, path: str, body: str | None = None) -> object:
        try:
            return await client._query_json(path, method, data=body)  # noqa: SLF001
        except Exception as error:  # noqa: BLE001
            self._translate(error)

    async def _containers(self) -> Sequence[Row]:
        try:
            return await self._rows(self._connect())
        except Exception as error:  # noqa: BLE001
            self._translate(error)

    async def _rows(self, client: "aiodocker.Docker", **params: str) -> Sequence[Row]:
        """The raw listing of containers: ``containers.list()`` takes an empty object for an empty list."""
        return _checked(await client._query_json("containers/json", params={"all": "1", **params}), "containers")  # noqa: SLF001

    async def deaths(self, connected: Callable[[], None], since: datetime | None = None) -> AsyncIterator[Resource]:
        """The containers that die, from now on or ``since`` a time (the engine remembers the last few hundred events).

        Ends when the engine closes the stream. One that is silent for ten minutes is asked anew, since nothing tells whether
        it still lives. Raises ``ProviderError`` when it cannot be followed.
        """
        is_connected = False

        def begun() -> None:
            nonlocal is_connected
            if not is_connected:
                is_connected = True
                connected()

        while True:
            silent = False
            async with aclosing(self._deaths(begun, since)) as deaths:
                async for container in deaths:
                    if container is None:
                        silent = True
                        break
                    since = container.stopped_at
                    yield container
            if not silent:
                return

    async def _deaths(self, begun: Callable[[], None], since: datetime | None) -> AsyncGenerator[Resource | None]:
        """The deaths of one connection; None at its end where it has been silent for too long."""
        client = self._connect()
        import aiohttp  # noqa: PLC0415

        params = {"filters": FILTERS} | ({"since": f"{since.timestamp():.9f}"} if since else {})
        quiet = aiohttp.ClientTimeout(sock_connect=CONNECT_WITHIN, sock_read=QUIET)
        is_open = False
        try:
            async with client._query("events", params=params, timeout=quiet) as answer:  # noqa: SLF001
                try:
                    is_open = True
                    begun()
                    async for container in deaths(answer.content.iter_any(), self.endpoint):
                        yield container
                finally:
                    answer.close()  # aiodocker leaves it open
        except Exception as error:  # noqa: BLE001
            if not (is_open and isinstance(error, TimeoutError)):
                self._translate(error)
            yield None

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None and self._session is not None:
            await self._client.close()
            await self._session.close()
            self._client = None

    def _connect(self) -> "aiodocker.Docker":
        if self._client is None:
            _ensure_home()
            import aiodocker  # noqa: PLC0415
            import aiohttp  # noqa: PLC0415

            # The limits above this client bound its connections.
            connector: aiohttp.BaseConnector
            path = unix_path(self._engine)
            if path is not None:
                connector = aiohttp.UnixConnector(path, limit=0)
                url = "unix://localhost"
            else:
                context = tls_context(self._engine)
                connector = aiohttp.TCPConnector(limit=0, ssl=context or True)
                host, port = tcp_address(self._engine)
                url = f"{'https' if context else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
            self._session = aiohttp.ClientSession(
                connector=connector,
                middlewares=(_send,),
                timeout=aiohttp.ClientTimeout(),
                auto_decompress=False,  # its size is bounded as it is decompressed
                headers={"Accept-Encoding": "identity"},
            )
            # aiohttp would repeat a request whose connection broke, DELETE included, unseen by the reports.
            self._session._retry_connection = False  # noqa: SLF001 - there is no other way to say so
            self._client = aiodocker.Docker(url=url, connector=connector, session=self._session)
        return self._client

    def _known_image(self, container: Resource) -> Resource:
        image = self._images.get(container.id)
        if not container.image_unresolved or image is None:
            return container
        return replace(container, image=image, image_unresolved=False)

    def _mark_own(self, found: Iterable[Resource]) -> tuple[Resource, ...]:
        """Mark this program's own container, by id, and the other members of its Compose project."""
        found = tuple(found)
        if self._own is None:
            return found
        for resource in found:
            if resource.id == self._own:
                self._own_project = resource.group
        return tuple(
            replace(resource, system_container="this program's own container")
            if resource.id == self._own
            else replace(resource, system_container="in this program's own Compose project")
            if self._own_project is not None and resource.group == self._own_project
            else resource
            for resource in found
        )

    def _translate(self, error: Exception) -> NoReturn:
        """Raise ``error`` as one of ``reaper.errors``, from the original."""
        translate(error, self._engine.host, answered=self._answered)


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
            await self._unless_removed(resource, seconds + BLOCKED, stop)
        except ConflictError:
            if resource.raw_state != "paused":
                raise
            # Podman. Docker resumes it, too, or it could not obey the signal.
            await self._unless_removed(resource, BLOCKED, self._unpause(resource))
            await self._unless_removed(resource, seconds + BLOCKED, stop)

    def _unpause(self, resource: Resource) -> Callable[["aiodocker.Docker"], Awaitable[None]]:
        return lambda client: client.containers.container(resource.id).unpause()

    async def delete(self, resource: Resource, *, force: bool = False) -> None:
        """Delete the container with its anonymous volumes (named ones stay); or the network, volume or image, by no force.

        Of an image its only tag goes with it; the untagged ones that it was built on stay.
        """
        client = self._connect()
        try:
            match resource.kind:
                case Kind.NETWORK:
                    await self._delete_network(client, resource)
                case Kind.VOLUME:
                    await client._query_json(_INSPECT[resource.kind].format(resource.id), "DELETE")  # noqa: SLF001
                case Kind.IMAGE:
                    await client._query_json(f"images/{resource.id}", "DELETE", params={"noprune": "1"})  # noqa: SLF001
                case _:
                    await client.containers.container(resource.id).delete(force=force, v=True)
        except Exception as error:  # noqa: BLE001
            self._translate(error)

    async def _delete_network(self, client: "aiodocker.Docker", network: Resource) -> None:
        """Delete it; where nothing but endpoints of containers that are gone refuses that, free it of them first."""
        ask = partial(self._ask, client)
        path = _INSPECT[Kind.NETWORK].format(network.id)
        try:
            await ask("DELETE", path)
        except ConflictError:
            if not await freed(network.id, ask, self._containers):
                raise
            await ask("DELETE", path)


def _is_wanted(found: Resource, label_keys: frozenset[str], also: Also) -> bool:
    labelled = bool(label_keys & (found.labels or {}).keys())
    return labelled or found.id in also.ids or (also.projects and found.group is not None)


def _checked(rows: object, what: str) -> Sequence[Row]:
    """``rows`` when they are a whole listing: an empty object would pass for an empty engine."""
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UnreadableError(f"the listing of {what} is no list of objects")
    return rows


def _shortened(id_: re.Match[str]) -> str:
    return id_[0][:12]


async def _send(request: "aiohttp.ClientRequest", handler: "ClientHandlerType") -> "aiohttp.ClientResponse":
    """Send what is one of this program's calls, and read its answer within bounds; a stream is left to be read.

    Raises InvalidError for a redirect, and DockerError for what is refused, whatever form the refusal has.
    """
    import aiodocker  # noqa: PLC0415 - loaded with the client

    check(request.method, request.url.raw_path_qs)
    asked = datetime.now(UTC)
    response = await handler(request)
    last_headers.set(response.headers)
    last_skew.set(clock_skew(response.headers, asked, datetime.now(UTC)))
    path = request.url.path
    last_request.set(what := f"{request.method} {_LONG_ID.sub(_shortened, path)}")
    status = response.status
    if status in REDIRECTS or (status == 304 and not path.endswith("/stop")):  # of a stop it means that it had stopped
        response.close()
        refuse_redirect(what, str(request.url.origin()), status, response.headers, "host of [[docker]]")
        raise UnreadableError(f"{what} was answered {status}, which says nothing about it")
    if status < 300 and path.endswith("/events"):
        return response
    body = await read_bounded(response, what, LARGEST_ANSWER)
    if status >= 400:
        last_cause.set(cause(body))
        # Below 500 plain text is no engine's: a 404 of a proxy must not pass for the end of a container.
        raise aiodocker.DockerError(status, text(body) if status >= 500 else message(body))
    response._body = body  # noqa: SLF001 - what read() would have put there, without a bound
    return response


def _ensure_home() -> None:
    """Aiodocker needs a home directory when it is imported; a user whom systemd or a container made up may have none."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/"
