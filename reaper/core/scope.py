"""Who owns a resource, what protects it, and the selectors that say so. Pure: no I/O, no clock, no logging.

Nothing is ever selected by the absence of a sign: what no selector matches is not owned, and what is not owned is
never touched.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING

from reaper.core.identity import COMPOSE
from reaper.core.image_references import familiar
from reaper.core.model import Resource

if TYPE_CHECKING:
    from reaper.core.presets import Preset

LEASE_LABEL = "reaper.lease"


_FEWEST_LETTERS = 2
_TOOLS_LABELS = ("com.docker.", "org.opencontainers.image.", "org.label-schema.", "desktop.docker.io/")
_TELLING_LABELS = frozenset(
    f"com.docker.compose.{name}"
    for name in ("project", "service", "project.working_dir", "project.config_files", "project.environment_file")
)
_ON_EVERYTHING = frozenset({"maintainer", "code-toolbox-language"})  # base images have the one, Daytona's SDK sets the other


def is_total(glob: str) -> bool:
    """Whether ``glob`` is of wildcards alone, so that it selects nothing in particular."""
    return not glob.strip("*?")


def is_catch_all(glob: str) -> bool:
    """Whether ``glob`` names next to nothing: fewer than two letters or digits outside brackets ("*", "[a-z]*", "*-*").

    The tag that an image has by default says nothing either.
    """
    outside = re.sub(r"\[!?\]?[^\]]*\]", "", glob.removesuffix(":latest"))
    return sum(character.isalnum() for character in outside) < _FEWEST_LETTERS


def is_catch_all_label(pattern: str) -> bool:
    """Whether ``pattern`` asks for a label that tools set on all that they make, without a value that distinguishes it."""
    key, equals, glob = pattern.partition("=")
    if key in _TELLING_LABELS:
        return not equals or is_catch_all(glob)
    return key in _ON_EVERYTHING or key.startswith(_TOOLS_LABELS)


@lru_cache(maxsize=4096)
def image_forms(reference: str) -> tuple[str, ...]:
    """The forms of an image reference that globs are matched against: the whole, the repository alone, and as it is listed.

    The repository is without registry, tag and digest ("tb__chess__client" for "localhost:5000/tb__chess__client:1"). A
    listing shows what its creator called "docker.io/acme/x" as "acme/x:latest", and that is what a person writes.
    """
    name = reference.partition("@")[0]
    head, slash, last = name.rpartition("/")
    path = head + slash + last.split(":", 1)[0]
    first, slash, rest = path.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        path = rest.removeprefix("library/") if first == "docker.io" else rest
    return tuple(dict.fromkeys((reference, path, familiar(name))))


def label_matches(pattern: str, labels: Mapping[str, str]) -> bool:
    """Whether ``labels`` have what ``pattern`` asks for: "key", "key=value" or "key=glob"."""
    key, equals, glob = pattern.partition("=")
    if key not in labels:
        return False
    return not equals or fnmatchcase(labels[key], glob)


def name_matches(globs: Iterable[str], name: str) -> bool:
    """Whether one of ``globs`` matches ``name``, case-sensitively."""
    return any(fnmatchcase(name, glob) for glob in globs)


def image_matches(globs: Iterable[str], image: str | None) -> bool:
    """Whether one of ``globs`` matches the image's full reference, its repository, or its name as it is listed."""
    return image is not None and any(fnmatchcase(form, glob) for glob in globs for form in image_forms(image))


@dataclass(frozen=True, slots=True)
class Selector:
    """Labels, names and images to look for.

    ``any_of`` reads it as [scope] and [protect] do: everything ORed. ``all_of`` reads it as a policy and the command
    line do: labels ANDed, names ORed, images ORed, and the fields ANDed. Both look at the labels that take something,
    unless they are given others.
    """

    labels: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    images: tuple[str, ...] = ()

    def any_of(self, resource: Resource, labels: Mapping[str, str] | None = None) -> str | None:
        """The first entry that matches, as "label x", "name y*" or "image z", else None."""
        labels = resource.own_labels if labels is None else labels
        for pattern in self.labels:
            if label_matches(pattern, labels):
                return f"label {pattern}"
        for glob in self.names:
            if fnmatchcase(resource.name, glob):
                return f"name {glob}"
        for glob in self.images:
            if any(image_matches((glob,), image) for image in references(resource)):
                return f"image {glob}"
        return None

    def all_of(self, resource: Resource, labels: Mapping[str, str] | None = None) -> bool:
        """Whether every field that is set matches. An empty selector matches everything."""
        labels = resource.own_labels if labels is None else labels
        return (
            all(label_matches(pattern, labels) for pattern in self.labels)
            and (not self.names or name_matches(self.names, resource.name))
            and (not self.images or any(image_matches(self.images, image) for image in references(resource)))
        )


def references(resource: Resource) -> tuple[str | None, ...]:
    """The references that globs for images are matched against: an image may have several."""
    return resource.tags or (resource.image,)


@dataclass(frozen=True, slots=True)
class Scope:
    """What this reaper owns. The entries are ORed.

    Args:
        presets: the names of those that are in force.
        image_labels: whether labels that a container has from its image count as its own.
        own_presets: those that are not built in, in force or not.
    """

    presets: tuple[str, ...] = ("terminal-bench", "harbor")
    selector: Selector = field(default_factory=Selector)
    everything: bool = False
    image_labels: bool = False
    own_presets: "tuple[Preset, ...]" = ()

    @property
    def catch_all(self) -> str | None:
        """The first entry that takes (nearly) all that an endpoint holds, as it is written in the file; None without one."""
        if self.everything:
            return "everything = true"
        of = self.selector
        labels = (f"labels = {pattern}" for pattern in of.labels if is_catch_all_label(pattern))
        names = (f"names = {glob}" for glob in of.names if is_catch_all(glob))
        images = (f"images = {glob}" for glob in of.images if is_catch_all(glob))
        return next(chain(labels, names, images), None)


@dataclass(frozen=True, slots=True)
class Protect:
    """What is kept although it is owned. The entries are ORed."""

    selector: Selector = field(default_factory=lambda: Selector(labels=("reaper.keep",)))
    restart_policies: tuple[str, ...] = ("always", "unless-stopped")


def as_scope_reads(resource: Resource, scope: Scope) -> Resource:
    """The resource as what takes it reads its labels: with those of its image where the operator says that they count.

    Never with those of Compose, which say who made a container, nor with that of a lease, which says for whom.
    """
    if not scope.image_labels or resource.inherited == frozenset():
        return resource
    kept = resource.labels if resource.inherited is None else resource.inherited
    never = frozenset(key for key in kept or () if key.startswith(COMPOSE) or key == LEASE_LABEL)
    return replace(resource, inherited=never)
