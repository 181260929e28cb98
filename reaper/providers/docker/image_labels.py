"""The labels of images, and which of a container's labels came with its image.

An engine gives the labels of an image to every container that is made of it. An image's id is the digest of what it holds,
its labels included: what has been read once stays true, and a steady engine is asked nothing.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from reaper.core.identity import COMPOSE, compose_project, made_of
from reaper.core.model import Kind, Resource
from reaper.errors import NotFoundError, ProviderError
from reaper.providers import parsing
from reaper.providers.base import Call
from reaper.providers.docker.calls import IMAGE
from reaper.providers.docker.containers import image_labels
from reaper.providers.docker.own_labels import OwnLabels
from reaper.providers.parsing import Row, shared, text

FEW = 4  # images to ask for one by one; where there are more, one listing costs less

Listing = Callable[[], Awaitable[Sequence[Row]]]
Inspection = Callable[[str], Awaitable[Row]]


class ImageLabels:
    """What is known of the images of one engine.

    Args:
        endpoint: the engine's name.
        listing: ``GET /images/json``.
        inspection: ``GET /images/ID/json``.
        own: what is remembered of containers whose image is not known any more.
    """

    def __init__(self, endpoint: str, listing: Listing, inspection: Inspection, own: OwnLabels | None = None) -> None:
        self._endpoint = endpoint
        self._listing = listing
        self._inspection = inspection
        self._own = own
        self._known: dict[str, Mapping[str, str]] = {}
        self._gone: set[str] = set()

    async def read(self, resources: Iterable[Resource], call: Call) -> None:
        """Read what is not known yet of the images of these, and forget all others.

        What cannot be read stays unknown: that is no failure of the endpoint, and the inspection of a container tries again.
        """
        wanted = {id_ for resource in resources if (id_ := _image_of_labelled(resource)) is not None}
        self._known = {id_: labels for id_, labels in self._known.items() if id_ in wanted}
        self._gone &= wanted
        with suppress(ProviderError):
            if len(wanted - self._known.keys()) > FEW:
                for row in await call(f"list images on {self._endpoint}", self._listing):
                    self._learn(row, wanted)
            for id_ in sorted(wanted - self._known.keys())[:FEW]:  # the listing leaves out those that others are built on
                await call(f"inspect image {_short(id_)}", partial(self._read_one, id_))

    def marked(self, listed: Sequence[Resource], engine: str | None) -> list[Resource]:
        """Everything that an engine was listed with, its containers marked. What is known of them is remembered."""
        if self._own is None:
            return [*map(self.mark, listed)]
        self._own.recall(engine)
        marked = [*map(self.mark, listed)]
        containers = [resource for resource in marked if resource.kind is Kind.CONTAINER and resource.id]
        self._own.learn(containers, (container.id for container in containers if container.image_id in self._known))
        return marked

    async def read_of(self, container: Resource) -> None:
        """Read what is not known yet of the image of this one. Raises ``ProviderError``; not when there is no such image."""
        id_ = _image_of_labelled(container)
        if id_ is not None and id_ not in self._known:
            await self._read_one(id_)

    async def _read_one(self, id_: str) -> None:
        try:
            self._learn(await self._inspection(id_), {id_})
        except NotFoundError:  # ``docker rmi --force`` deletes the image of a container that has stopped
            self._gone.add(id_)

    def _learn(self, row: Row, wanted: Iterable[str]) -> None:
        id_ = text(row.get("Id"))
        if id_ is None or id_ not in wanted:
            return
        found = image_labels(row)
        labels = {} if found is None else parsing.labels(found)  # an image without labels says null
        if labels is not None:
            self._known[id_] = labels

    def mark(self, container: Resource, before: Resource | None = None) -> Resource:
        """The container with what came with its image, as far as that is known.

        Args:
            container: as the engine's answer has it.
            before: the same container as it was marked earlier.
        """
        if container.kind is not Kind.CONTAINER or container.inherited is not None:
            return container
        known = self._known.get(container.image_id or "")
        if known is not None:
            labels = container.labels or {}
            inherited = shared(frozenset(key for key, value in labels.items() if known.get(key) == value))
        elif before is not None and before.inherited is not None and before.labels == container.labels:
            inherited = before.inherited
        elif self._own is not None and (remembered := self._own.inherited(container)) is not None:
            inherited = remembered
        elif container.image_id in self._gone and made_of(container.labels, container.image_id):
            # Compose has made it, so Compose's labels are its own; of the others nothing is known any more.
            inherited = frozenset(key for key in container.labels or {} if not key.startswith(COMPOSE))
        else:
            return container
        return replace(container, inherited=inherited, group=compose_project(container.labels, inherited))


def _short(id_: str) -> str:
    return id_.removeprefix("sha256:")[:12]


def _image_of_labelled(resource: Resource) -> str | None:
    id_ = resource.image_id if resource.kind is Kind.CONTAINER and resource.labels else None
    return id_ if id_ is not None and re.fullmatch(IMAGE, id_) else None
