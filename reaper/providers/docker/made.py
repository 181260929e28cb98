"""What an engine has made for a container and does not label: anonymous volumes, and the image that a build made for it."""

from collections.abc import Awaitable, Callable, Mapping

from reaper.core.identity import MADE_BY_COMPOSE, PROJECT_LABEL
from reaper.core.lease import ANONYMOUS
from reaper.errors import NotFoundError
from reaper.providers.docker.containers import mounts
from reaper.providers.parsing import Row, labels, rows, table, text, texts

Ask = Callable[[str], Awaitable[object]]
"""Makes a GET request and returns what was answered. Raises ProviderError."""


async def made_with(
    container: str, lease: tuple[str, str], ask: Ask, is_new: Callable[[str], bool]
) -> frozenset[str] | None:
    """The names of the anonymous volumes that were made with a container, and the id of its image if a build made that.

    None when it is no container of the lease.

    Args:
        container: the id of the container.
        lease: the label that it has to carry.
        ask: reads from the engine.
        is_new: whether there was no image of that id when the lease began.

    Raises ProviderError.
    """
    row = table(await ask(f"containers/{container}/json"))
    own = labels(table(row.get("Config")).get("Labels")) or {}
    if row.get("Id") != container or own.get(lease[0]) != lease[1]:
        return None
    found = set[str]()
    if names := _volumes(row):
        found |= names - await _lent(row, names, ask)
    image = text(row.get("Image"))
    if PROJECT_LABEL in own and image is not None and is_new(image):
        config = table(table(await ask(f"images/{image}/json")).get("Config"))
        if is_built_for(own, labels(config.get("Labels")) or {}):
            found.add(image)
    return frozenset(found)


def is_built_for(container: Mapping[str, str], image: Mapping[str, str]) -> bool:
    """Whether a build of the container's Compose project made its image, by the labels of both.

    What was committed from a container of the project carries the labels of containers, too.
    """
    return image.get(PROJECT_LABEL) == container[PROJECT_LABEL] and not any(key in image for key in MADE_BY_COMPOSE)


def _volumes(row: Row) -> set[str]:
    """The names of the container's volumes that nothing in its configuration names."""
    host = table(row.get("HostConfig"))
    named = {bind.partition(":")[0] for bind in texts(host.get("Binds"))}
    named |= {str(mount.get("Source")) for mount in rows(host.get("Mounts"))}
    volumes = (mount for mount in mounts(row) if mount.get("Type") == "volume" and mount.get("Driver") == "local")
    names = {str(mount.get("Name")) for mount in volumes}
    return {name for name in names - named if ANONYMOUS.fullmatch(name)}


async def _lent(row: Row, names: set[str], ask: Ask) -> set[str]:
    """Those of these volumes that the container may have from others (``--volumes-from``): all, where one is gone."""
    found = set[str]()
    lenders = table(row.get("HostConfig")).get("VolumesFrom")
    for lender in lenders if isinstance(lenders, list) else ():
        try:
            other = table(await ask(f"containers/{str(lender).partition(':')[0]}/json"))
        except NotFoundError:
            return names
        found |= {str(mount.get("Name")) for mount in mounts(other)}
    return found
