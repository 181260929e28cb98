"""The images of a simulated engine: tags that move, references that dangle, and deletions that are refused."""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from reaper.simulator.docker.model import SIZE, Container, Image, RefusedError

if TYPE_CHECKING:
    from reaper.simulator.docker.engine import Engine

_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*")
_DOMAIN = re.compile(r"[A-Za-z0-9.-]+(?::\d+)?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_ID = re.compile(r"(?:sha256:)?[0-9a-f]{1,64}")


@lru_cache(1024)
def normal(reference: str) -> str:
    """The short form of a reference, with its tag: "docker.io/library/a" is "a:latest". Raises RefusedError."""
    for prefix in ("docker.io/library/", "index.docker.io/library/", "docker.io/", "index.docker.io/"):
        if reference.startswith(prefix):
            reference = reference.removeprefix(prefix)
            break
    repository, colon, tag = reference.rpartition(":")
    if not colon or "/" in tag:
        repository, tag = reference, "latest"
    domain, slash, path = repository.partition("/")
    if not slash or not ("." in domain or ":" in domain or domain == "localhost"):
        domain, path = "", repository
    if path != path.lower():
        raise RefusedError(500, "invalid reference format: repository name must be lowercase")
    if not _REPOSITORY.fullmatch(path) or not _TAG.fullmatch(tag) or (domain and not _DOMAIN.fullmatch(domain)):
        raise RefusedError(500, "invalid reference format")
    return f"{repository}:{tag}"


class Images:
    """The images by id, and what their tags point to."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._by_id: dict[str, Image] = {}
        self._tags: dict[str, Image] = {}

    def __iter__(self) -> Iterator[Image]:
        return iter(sorted(self._by_id.values(), key=lambda image: image.created, reverse=True))

    def __len__(self) -> int:
        return len(self._by_id)

    def add(
        self,
        reference: str,
        *,
        created: int = 0,
        labels: Mapping[str, str] | None = None,
        comment: str = "",
        parent: str = "",
        on: str = "",
        size: int = SIZE,
    ) -> Image:
        """A new image under that tag, which it takes from the image that had it. Raises RefusedError for a bad name.

        Args:
            reference: its tag; empty for none.
            created: when (ns of the engine's clock); now when 0.
            labels: its labels.
            comment: of the build.
            parent: the id of the image that the classic builder made it of, without a layer of its own.
            on: the id of the image that it has the lower layers of, with one of its own above them.
            size: in bytes.
        """
        base = self._by_id.get(parent) or self._by_id.get(on)
        own = f"sha256:{self._engine.new_id()}"
        image = Image(
            id=f"sha256:{self._engine.new_id()}",
            created=created or self._engine.tick(),
            size=size,
            layer=base.layer if base is not None and parent else own,
            below=() if base is None else base.below if parent else (*base.below, base.layer),
            labels=labels,
            config={"Labels": dict(labels) if labels else None},
            comment=comment,
            parent=parent,
        )
        self._by_id[image.id] = image
        if reference:
            self.tag(image, reference)
        return image

    def tag(self, image: Image, reference: str) -> None:
        """Let a tag point to an image. Raises RefusedError for a bad name."""
        name = normal(reference)
        before = self._tags.get(name)
        if before is not image:
            if before is not None:
                before.tags.remove(name)
            image.tags.append(name)
            image.tags.sort()
            self._tags[name] = image
            self._rows(name)
            if before is not None and not before.tags and self._engine.forgets_images:
                self.drop(before, [])
        image.tagged = self._engine.tick()
        self._engine.events.log("image", "tag", image.id, {**(image.labels or {}), "name": name}, image.tagged)

    def find(self, ref: str) -> Image | None:
        """The image that a client means by a reference, an id or the beginning of an id."""
        if ref in self._by_id:
            return self._by_id[ref]
        try:
            tagged = self._tags.get(normal(ref))
        except RefusedError:
            tagged = None
        if tagged is not None or not _ID.fullmatch(ref):
            return tagged
        matches = [image for image in self._by_id.values() if image.id.startswith(f"sha256:{ref.removeprefix('sha256:')}")]
        return matches[0] if len(matches) == 1 else None

    def need(self, ref: str) -> Image:
        """As `find`. Raises RefusedError where there is none."""
        found = self.find(ref)
        if found is None:
            raise RefusedError(404, self.missing(ref))
        return found

    @staticmethod
    def missing(ref: str) -> str:
        """The engine's words for an image that it does not have."""
        if ref.startswith("sha256:"):
            return f"No such image: {ref}"
        tagged = ref if ":" in ref.rsplit("/", 1)[-1] else f"{ref}:latest"
        return f"No such image: {tagged}"

    def shown(self, container: Container) -> str:
        """How the listing calls a container's image: by the name it was created with while that still means the same."""
        found = self.find(container.image)
        if found is None or found.id != container.image_id:
            return container.image_id
        return container.image

    def delete(self, ref: str, *, force: bool) -> list[dict[str, str]]:
        """What `DELETE /images/{ref}` does: its answer. Raises RefusedError."""
        image = self.need(ref)
        done: list[dict[str, str]] = []
        by_id = image.id.removeprefix("sha256:").startswith(ref.removeprefix("sha256:"))
        if by_id:
            repositories = {tag.rpartition(":")[0] for tag in image.tags}
            if len(repositories) <= 1 and len(image.tags) <= 1:
                self._conflict(image, force=force, references=False)
            else:
                self._conflict(image, force=force)
        else:
            users = self._users(image)
            if not force and len(image.tags) == 1 and users:
                raise RefusedError(
                    409,
                    f'conflict: unable to remove repository reference "{ref}" (must force) - '
                    f"container {users[0].id[:12]} is using its referenced image {_short(image)}",
                )
            self._untag(image, normal(ref), done)
            if image.tags:
                return done
            try:
                self._conflict(image, force=force)
            except RefusedError:
                return done
        self.drop(image, done)
        return done

    def drop(self, image: Image, done: list[dict[str, str]]) -> int:
        """An image is gone; how much space that gave. Its layers go where nothing else has them."""
        for name in tuple(image.tags):
            self._untag(image, name, done)
        users = self._users(image)
        del self._by_id[image.id]
        self._engine.events.log("image", "delete", image.id, {"name": image.id}, self._engine.tick())
        done.append({"Deleted": image.id})
        if users or any(other.layer == image.layer for other in self._by_id.values()):
            return 0
        done.append({"Deleted": image.layer})
        return image.size

    def _untag(self, image: Image, name: str, done: list[dict[str, str]]) -> None:
        image.tags.remove(name)
        del self._tags[name]
        self._rows(name)
        self._engine.events.log("image", "untag", image.id, {"name": image.id}, self._engine.tick())
        done.append({"Untagged": name})

    def _users(self, image: Image) -> list[Container]:
        return [c for c in self._engine.containers.values() if c.image_id == image.id]

    def children(self, image: Image) -> list[Image]:
        """Those that the classic builder made of it."""
        return [other for other in self._by_id.values() if other.parent == image.id]

    def _conflict(self, image: Image, *, force: bool, references: bool = True) -> None:
        if self.children(image):
            text = f"conflict: unable to delete {_short(image)} (cannot be forced) - image has dependent child images"
            raise RefusedError(409, text)
        users = self._users(image)
        running = next((user for user in users if user.running), None)
        what = f"conflict: unable to delete {_short(image)}"
        if running is not None:
            text = f"{what} (cannot be forced) - image is being used by running container {running.id[:12]}"
            raise RefusedError(409, text)
        if force:
            return
        if references and image.tags:
            raise RefusedError(409, f"{what} (must be forced) - image is referenced in multiple repositories")
        if users:
            raise RefusedError(409, f"{what} (must be forced) - image is being used by stopped container {users[0].id[:12]}")

    def _rows(self, name: str) -> None:
        """The listing may call some containers' images otherwise now."""
        repository = name.removesuffix(":latest")
        for container in self._engine.containers.values():
            if container.image in (name, repository) or container.image.endswith(f"/{name}"):
                container.head = b""


def listed(image: Image) -> dict[str, Any]:
    """An image's row in the listing."""
    dangling = not image.tags
    return {
        "Containers": -1,
        "Created": image.created // 1_000_000_000,
        "Id": image.id,
        "Labels": image.labels,
        "ParentId": image.parent,
        "RepoDigests": ["<none>@<none>"] if dangling else None,
        "RepoTags": list(image.tags) or ["<none>:<none>"],
        "SharedSize": -1,
        "Size": image.size,
        "VirtualSize": image.size,
    }


def labels_of(changes: Iterable[str]) -> dict[str, str] | None:
    """The labels that lines of a Dockerfile give, such as `LABEL a=b "c=d e"`; None for no line."""
    words = (word.partition("=") for line in changes for word in shlex.split(line)[1:])
    return {key: value for key, _, value in words} or None


def _short(image: Image) -> str:
    return image.id.removeprefix("sha256:")[:12]
