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

from reaper.core.identity import COMPOSE, CONFIG_FILES_LABEL, GroupKey, Groups, runner_sign
from reaper.core.model import Kind, Resource

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
def image_forms(reference: str) -> tuple[str, str]:
    """The forms of an image reference that globs are matched against: the whole, and the repository alone.

    The repository is without registry, tag and digest ("tb__chess__client" for "localhost:5000/tb__chess__client:1").
    """
    name = reference.split("@", 1)[0]
    head, slash, last = name.rpartition("/")
    path = head + slash + last.split(":", 1)[0]
    first, slash, rest = path.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        path = rest.removeprefix("library/") if first == "docker.io" else rest
    return reference, path


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
    """Whether one of ``globs`` matches the image's full reference or its repository."""
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
            if any(image_matches((glob,), image) for image in _images(resource)):
                return f"image {glob}"
        return None

    def all_of(self, resource: Resource, labels: Mapping[str, str] | None = None) -> bool:
        """Whether every field that is set matches. An empty selector matches everything."""
        labels = resource.own_labels if labels is None else labels
        return (
            all(label_matches(pattern, labels) for pattern in self.labels)
            and (not self.names or name_matches(self.names, resource.name))
            and (not self.images or any(image_matches(self.images, image) for image in _images(resource)))
        )


def _images(resource: Resource) -> tuple[str | None, ...]:
    """The references that globs for images are matched against: an image may have several."""
    return resource.tags or (resource.image,)


@dataclass(frozen=True, slots=True)
class Preset:
    """The signs that one benchmark runner leaves on its resources.

    Args:
        labels: a resource with one of these is the runner's.
        images: a container with one of these is the runner's, and so is the whole group that it is in.
        runner: as ``identity.RUNNER_FILES`` finds it by a Compose project's configuration files: the whole group is its.
    """

    name: str
    labels: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    runner: str | None = None

    def marks_group(self, resource: Resource) -> str | None:
        """The sign on this resource that makes its whole group owned, if there is one."""
        if resource.kind is Kind.CONTAINER:
            for glob in self.images:
                if image_matches((glob,), resource.image):
                    return f"image {glob}"
        files = (resource.labels or {}).get(CONFIG_FILES_LABEL)
        if files and self.runner is not None and resource.group is not None and resource.inherited is not None:
            sign = runner_sign(files)
            if sign is not None and sign[0] == self.runner:
                return f"config file *{sign[1]}"
        return None

    def marks(self, resource: Resource) -> str | None:
        """The sign on this resource that makes it owned, if there is one."""
        for pattern in self.labels:
            if label_matches(pattern, resource.own_labels):
                return f"label {pattern}"
        return self.marks_group(resource)


# What the runners leave behind was read from terminal-bench 0.2.18 and harbor 0.25.0.
PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("terminal-bench", labels=("terminal-bench",), images=("tb__*__client",)),
        Preset("harbor", labels=("harbor.managed=true",), images=("hb__*",), runner="harbor"),
    )
}


@dataclass(frozen=True, slots=True)
class Scope:
    """What this reaper owns. The entries are ORed.

    Args:
        image_labels: whether labels that a container has from its image count as its own.
    """

    presets: tuple[str, ...] = ("terminal-bench", "harbor")
    selector: Selector = field(default_factory=Selector)
    everything: bool = False
    image_labels: bool = False

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


@dataclass(frozen=True, slots=True)
class Ownership:
    """What makes a resource owned.

    Args:
        by: for people: "preset harbor, image hb__*" or "scope label team=rl".
        preset: whether a preset owns it: then a restart policy does not protect it.
    """

    by: str
    preset: bool = False


@lru_cache(maxsize=1024)
def _preset_ownership(preset: str, sign: str, where: str = "") -> Ownership:
    """One object for the thousands of resources that carry the same sign."""
    return Ownership(f"preset {preset}, {sign}{where}", preset=True)


BY_CONTAINERS = " on its project's containers"


def _scope_in_words(scope: Scope) -> frozenset[str]:
    """What ``Ownership.by`` may say of this scope, presets apart."""
    selector = scope.selector
    entries = [*(f"label {x}" for x in selector.labels), *(f"name {x}" for x in selector.names)]
    entries += [*(f"image {x}" for x in selector.images), *(["everything"] if scope.everything else [])]
    return frozenset(f"scope {entry}" for entry in entries)


def owned_projects(owned: Iterable[Resource], others: Iterable[Resource], scope: Scope) -> dict[str, list[Resource]]:
    """The volumes and images of owned Compose projects, by the projects' names, where nothing judges them.

    Args:
        owned: what is owned, or was when it was deleted.
        others: volumes and images of any projects.
        scope: what is owned. A volume or an image may itself have what it looks for.
    """
    others = [other for other in others if other.group is not None]
    names = {resource.group for resource in owned}
    names |= {other.group for other in others if _has_sign(other, scope)}
    found: dict[str, list[Resource]] = {}
    for other in others:
        if other.group is not None and other.group in names:
            found.setdefault(other.group, []).append(other)
    return found


def _has_sign(resource: Resource, scope: Scope) -> bool:
    if scope.everything or scope.selector.any_of(resource, resource.labels or {}):
        return True
    presets = [PRESETS[name] for name in scope.presets]
    by_label = any(label_matches(pattern, resource.labels or {}) for preset in presets for pattern in preset.labels)
    return by_label or any(image_matches(preset.images, image) for preset in presets for image in _images(resource))


class Owners:
    """Answers who owns which of the resources that were listed together.

    All members of a group must be among ``resources``: a sign on one of them may own the others.
    """

    def __init__(self, resources: Iterable[Resource], scope: Scope, groups: Groups | None = None) -> None:
        resources = tuple(resources)
        self._scope = scope
        self._presets = tuple(PRESETS[name] for name in scope.presets)
        self._groups = groups or Groups(resources)
        self._by_group: dict[GroupKey, Ownership] = {}
        for resource in resources:
            if resource.group is None or resource.kind.only_with_lease or resource.inherited is None:
                continue
            if (ownership := self._of_group(resource)) and (key := self._groups.key(resource)) is not None:
                self._by_group.setdefault(key, ownership)
        self._in_words = _scope_in_words(scope)
        self._project_owners = self._of_projects(resources)

    def _of_group(self, resource: Resource) -> Ownership | None:
        for preset in self._presets:
            if sign := preset.marks_group(resource):
                return _preset_ownership(preset.name, sign, " in its project")
        return None

    def _of_projects(self, resources: tuple[Resource, ...]) -> dict[GroupKey, Ownership | None]:
        """Who owns the containers of each project that has networks; None where one of them is not owned."""
        owners: dict[GroupKey, Ownership | None] = {}
        with_networks = {self._groups.key(resource) for resource in resources if resource.kind is Kind.NETWORK}
        for resource in resources if with_networks else ():
            key = self._groups.key(resource)
            if key is not None and key in with_networks and resource.kind.runs:
                owner = self.owner(resource)
                owners[key] = owner and owners.get(key, owner)
        return owners

    def owner(self, resource: Resource) -> Ownership | None:
        """What makes ``resource`` owned, or None when nothing does; of volumes and images nothing here does."""
        if resource.kind.only_with_lease:
            return None
        seen = as_scope_reads(resource, self._scope)
        for preset in self._presets:
            if sign := preset.marks(seen):
                return _preset_ownership(preset.name, sign)
        key = None if resource.inherited is None else self._groups.key(resource)
        if key is not None and (of_group := self._by_group.get(key)) is not None:
            return of_group
        if sign := self._scope.selector.any_of(seen):
            return Ownership(f"scope {sign}")
        if resource.remembered is not None and (remembered := self._still_in_force(resource.remembered.owner)):
            return remembered
        return self._of_project(resource) or (Ownership("scope everything") if self._scope.everything else None)

    def namesake(self, resource: Resource) -> Ownership | None:
        """What owns another group of the same name, if something does: people may take the two for one."""
        key = self._groups.key(resource)
        if key is None:
            return None
        return next((owner for other, owner in self._by_group.items() if other[:2] == key[:2] and other != key), None)

    def _still_in_force(self, by: str) -> Ownership | None:
        """The ownership that an earlier sweep put into words, where the scope would still say so; else None."""
        if any(by == f"preset {name}" or by.startswith(f"preset {name},") for name in self._scope.presets):
            return Ownership(f"remembered: {by}", preset=True)
        if by.removesuffix(BY_CONTAINERS) in self._in_words:
            return Ownership(f"remembered: {by}")
        return None

    def _of_project(self, resource: Resource) -> Ownership | None:
        """Compose gives a network no label of its services: it is whose all the project's containers are."""
        key = self._groups.key(resource)
        if key is None or resource.kind is not Kind.NETWORK:
            return None
        owner = self._project_owners.get(key)
        return owner and Ownership(f"{owner.by}{BY_CONTAINERS}")


def as_scope_reads(resource: Resource, scope: Scope) -> Resource:
    """The resource as what takes it reads its labels: with those of its image where the operator says that they count.

    Never with those of Compose, which say who made a container, nor with that of a lease, which says for whom.
    """
    if not scope.image_labels or resource.inherited == frozenset():
        return resource
    kept = resource.labels if resource.inherited is None else resource.inherited
    never = frozenset(key for key in kept or () if key.startswith(COMPOSE) or key == LEASE_LABEL)
    return replace(resource, inherited=never)
