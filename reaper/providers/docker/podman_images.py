"""What Podman's own listing of images shows besides: manifest lists, and the names that images had before.

A manifest list (``podman build --manifest``) has images for several platforms under one name. Docker's listing leaves out
the lists and shows the images, most of them without a tag. No engine refuses to delete these, which leaves a list that can
neither be run nor pushed. In Docker's own stores a list and its images are one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from reaper.core.model import Resource
from reaper.errors import NotFoundError, ProviderError
from reaper.providers.base import Call
from reaper.providers.docker.connection import EngineConnection, checked_rows, hinting
from reaper.providers.parsing import Row, table, text, texts

_LIST, _ONE = "libpod/images/json", "libpod/manifests/{}/json"
_HINT = (
    "GET /libpod/images/json and GET /libpod/manifests/ID/json have to be let through: they show which images are parts of "
    "manifest lists, and how images were called"
)


class PodmanImages:
    """Knows which images of one engine are parts of manifest lists, and how all were called.

    Args:
        endpoint: the engine's name.
        connection: to it.

    Attributes:
        former_names: by the id of an image; of Docker's nothing.
    """

    def __init__(self, endpoint: str, connection: EngineConnection) -> None:
        self._endpoint = endpoint
        self._connection = connection
        self._of: dict[str, str] = {}
        self.former_names: Mapping[str, Sequence[str]] = {}

    async def read_with(self, images: Sequence[Row] | ProviderError, call: Call) -> Sequence[Row] | ProviderError:
        """The images of a listing, with which the other one is read anew; or why they or that cannot be read."""
        if not self._connection.is_podman or not images or isinstance(images, ProviderError):
            return images
        try:
            self._of = await self._read(call)
        except ProviderError as error:
            return error
        return images

    def mark(self, image: Resource | None) -> Resource | None:
        """The image with the list that it is a part of."""
        name = self._of.get(image.id) if image is not None else None
        return replace(image, system_container=f"a part of the manifest list {name}") if image and name else image

    async def _read(self, call: Call) -> dict[str, str]:
        """The name of a list by the id of an image. Raises ProviderError."""
        parts: dict[str, str] = {}  # by digest
        with hinting(_HINT):
            listing = partial(self._connection.ask, _LIST, all="1")
            listed = checked_rows(await call(f"list manifest lists of {self._endpoint}", listing), "images")
            for row in listed:
                parts |= dict.fromkeys(await self._parts(row, call), next(iter(texts(row.get("RepoTags"))), "without a tag"))
        self.former_names = {f"sha256:{row.get('Id')}": texts(row.get("History")) for row in listed}
        lists = ((row.get("Id"), next((parts[one] for one in _digests(row) if one in parts), None)) for row in listed)
        return {f"sha256:{id_}": name for id_, name in lists if name is not None}

    async def _parts(self, row: Row, call: Call) -> Iterable[str]:
        """The digests in a list; nothing of an image. Podman 4 does not say which a row is: a list has no former names."""
        is_list = row.get("IsManifestList")
        if is_list is False or (is_list is None and (row.get("History") or not row.get("RepoTags"))):
            return ()
        ask = partial(self._connection.ask, _ONE.format(text(row.get("Id"))))
        try:
            found = table(await call("inspect a manifest list", ask)).get("manifests", "missing")
        except NotFoundError:
            if is_list is None:
                return ()  # an image
            raise
        return [text(one.get("digest")) or "" for one in checked_rows([] if found is None else found, "manifests")]


def _digests(row: Row) -> Iterable[str]:
    yield text(row.get("Digest")) or ""
    yield from (digest.partition("@")[2] for digest in texts(row.get("RepoDigests")))
