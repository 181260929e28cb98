"""Image references, and which image each may mean to an engine. Pure: no I/O, no clock, no logging."""

import re
from collections.abc import Iterable

_OWN_REGISTRY = ("docker.io/", "index.docker.io/")
_ID = re.compile("(?:sha256:)?([0-9a-f]{1,64})")
_WHOLE = 64  # digits of an id


def familiar(reference: str) -> str:
    """The reference as an engine lists it: without Docker's own registry, and with a tag unless it has a digest."""
    short = reference
    for registry in _OWN_REGISTRY:
        short = short.removeprefix(registry)
    short = short.removeprefix("library/")
    return short if "@" in short or ":" in short.rpartition("/")[2] else f"{short}:latest"


def _repository(reference: str) -> str:
    """The familiar name without tag and digest."""
    head, slash, last = familiar(reference).partition("@")[0].rpartition("/")
    return head + slash + last.partition(":")[0]


class References:
    """References as containers and events have them: in the words of who made the container.

    Args:
        references: names with or without registry, tag and digest, and ids or their beginnings.
    """

    def __init__(self, references: Iterable[str]) -> None:
        self._names: set[str] = set()
        self._repositories: set[str] = set()
        self._ids: set[str] = set()
        self._beginnings: set[str] = set()
        for reference in references:
            if (id_ := _ID.fullmatch(reference)) is not None:
                (self._ids if len(id_[1]) == _WHOLE else self._beginnings).add(id_[1])
            if "@" in reference:
                self._repositories.add(_repository(reference))
            else:
                self._names.add(familiar(reference))

    def may_mean(self, image_id: str, tags: Iterable[str]) -> bool:
        """Whether one of them may mean this image.

        Of a reference with a digest the digest alone counts, and which image has it no listing says for sure: it may be each
        one of its repository.
        """
        digits = image_id.removeprefix("sha256:")
        if digits in self._ids or any(digits.startswith(beginning) for beginning in self._beginnings):
            return True
        return any(familiar(tag) in self._names or _repository(tag) in self._repositories for tag in tags)
