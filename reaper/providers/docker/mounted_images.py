"""Images that containers have mounted (``--mount type=image``: Docker since 28, Podman). No engine refuses to delete them.

What has such a mount cannot be started again on Podman when its image is gone, nor be made again anywhere. A listing shows
the mount, and the image by the name that the container's creator wrote.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from reaper.core.image_references import References
from reaper.core.model import Kind, Resource
from reaper.errors import DependencyError
from reaper.providers.base import Call, call_once
from reaper.providers.docker.connection import EngineConnection
from reaper.providers.docker.containers import mounts
from reaper.providers.docker.volumes_images import api_version
from reaper.providers.parsing import Row, text
from reaper.providers.sharing import Shared

MOUNTS_IMAGES = (1, 48)
"""The version of the API since which Docker mounts images (Docker 28)."""


def mounted(row: Row) -> frozenset[str]:
    """The references of the images that a container has mounted, by its row of the listing or its inspection."""
    images = (mount for mount in mounts(row) if mount.get("Type") == "image")
    # Docker has the name here and a folder there; Podman has no name.
    names = (text(mount.get("Name")) or text(mount.get("Source")) for mount in images)
    return frozenset(name for name in names if name is not None)


class MountedImages:
    """What the containers of one engine have mounted, and which of the images that were listed that may be."""

    def __init__(self, connection: EngineConnection) -> None:
        self._connection = connection
        self._now: Shared[list[tuple[str, References]]] = Shared()
        self._of: dict[str, References] = {}  # by the id of a container
        self._images: dict[str, tuple[str, ...]] = {}  # the names, by the id of an image

    def listed(self, containers: Iterable[Row]) -> None:
        """Learn of the containers of a whole listing, and forget the images of the last one."""
        self._of = {id_: images for id_, images in _by_container(containers) if id_}
        self._images = {}

    def know(self, images: Iterable[Resource], former_names: Mapping[str, Sequence[str]] = MappingProxyType({})) -> None:
        """Learn what the images are called that were listed with them, and how they were: a tag may have moved since."""
        found = (image for image in images if image.kind is Kind.IMAGE)
        self._images = {image.id: (*image.tags, *former_names.get(image.id, ())) for image in found}

    def inspected(self, container: Resource, row: Row) -> Resource:
        """The container, by its inspection, with what it has mounted among what it uses."""
        if images := mounted(row):
            self._of[container.id] = References(images)
        return self.mark(container)

    def mark(self, container: Resource) -> Resource:
        """The container with what it has mounted among what it uses."""
        if container.kind is not Kind.CONTAINER or (images := self._of.get(container.id)) is None:
            return container
        used = {id_ for id_, tags in self._images.items() if images.may_mean(id_, tags)}
        return replace(container, uses=container.uses | used)

    async def refuse(self, image: Resource) -> None:
        """Raise DependencyError, as an engine should, where a container has the image mounted now. Raises ProviderError.

        One listing of the containers answers for all deletions that ask before it begins.
        """
        if not self._connection.is_podman and api_version(self._connection.client().api_version) < MOUNTS_IMAGES:
            return
        for id_, images in await self._now.get(self._mounted_now, call_once):
            if images.may_mean(image.id, self._images.get(image.id, image.tags)):
                raise DependencyError(f"the container {id_[:12]} has it mounted")

    async def _mounted_now(self, call: Call) -> list[tuple[str, References]]:
        return _by_container(await call("list containers", self._connection.containers))


def _by_container(rows: Iterable[Row]) -> list[tuple[str, References]]:
    """What the containers of a listing have mounted, each with its id: those that have such mounts."""
    found = ((text(row.get("Id")) or "", mounted(row)) for row in rows)
    return [(id_, References(images)) for id_, images in found if images]
