"""Who owns which of the resources that were listed together. Pure: no I/O, no clock, no logging."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property, lru_cache

from reaper.core.identity import MADE_BY_COMPOSE, SERVICE_LABEL, GroupKey, Groups
from reaper.core.image_references import familiar
from reaper.core.model import Kind, Remembered, Resource
from reaper.core.presets import PROJECT_NAME, Preset, in_force, known
from reaper.core.scope import Scope, Selector, as_scope_reads, image_matches, label_matches, references


@dataclass(frozen=True, slots=True)
class Ownership:
    """What makes a resource owned.

    Args:
        by: for people: "preset harbor, image hb__*" or "scope label team=rl".
        preset: whether a preset owns it: then a restart policy does not protect it.
    """

    by: str
    preset: bool = False

    @property
    def preset_name(self) -> str | None:
        """The preset that owns it, if one does."""
        if not self.preset:
            return None
        return self.by.removeprefix("remembered: ").removeprefix("preset ").partition(",")[0]


@lru_cache(maxsize=1024)
def _preset_ownership(preset: str, sign: str, where: str = "") -> Ownership:
    """One object for the thousands of resources that carry the same sign."""
    return Ownership(f"preset {preset}, {sign}{where}", preset=True)


def in_a_word(by: str) -> str:
    """What ``Ownership.by`` says in a word or two: the preset, or the entry of [scope]."""
    return by.removeprefix("preset ").removeprefix("scope ").split(",")[0]


BY_CONTAINERS = " on its project's containers"
_IN_PROJECT = " in its project"


def _scope_in_words(scope: Scope) -> frozenset[str]:
    """What ``Ownership.by`` may say of this scope, but for where the sign is."""
    selector = scope.selector
    entries = [*(f"label {x}" for x in selector.labels), *(f"name {x}" for x in selector.names)]
    entries += [*(f"image {x}" for x in selector.images), *(["everything"] if scope.everything else [])]
    words = [f"scope {entry}" for entry in entries]
    for preset in in_force(scope):
        signs = (*preset.signs, *(f"image {glob}" for glob in preset.references), PROJECT_NAME)
        words += [f"preset {preset.name}", *(f"preset {preset.name}, {sign}" for sign in signs)]
    return frozenset(words)


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
    presets = in_force(scope)
    by_label = any(label_matches(pattern, resource.labels or {}) for preset in presets for pattern in preset.labels)
    return by_label or any(image_matches(preset.images, image) for preset in presets for image in references(resource))


class Owners:
    """Answers who owns which of the resources that were listed together.

    All members of a group must be among ``resources``: a sign on one of them may own the others.

    Args:
        resources: all that the endpoint holds.
        scope: what is owned.
        groups: of the resources.
        kinds: those that policies name: of networks, volumes, images and build caches these alone are owned by themselves.
    """

    def __init__(
        self,
        resources: Iterable[Resource],
        scope: Scope,
        groups: Groups | None = None,
        kinds: Collection[Kind] = frozenset(),
    ) -> None:
        resources = tuple(resources)
        self._scope = scope
        self._kinds = kinds
        self._presets = in_force(scope)
        self._groups = groups or Groups(resources)
        self._built_on = _built_on(resources) if Kind.IMAGE in kinds else {}
        self._by_group: dict[GroupKey, Ownership] = {}
        for resource in resources:
            if resource.group is None or resource.in_pod or resource.kind.opt_in or resource.inherited is None:
                continue  # what is in a pod says nothing of who made the rest of it
            if (ownership := self._of_group(resource)) and (key := self._groups.key(resource)) is not None:
                self._by_group.setdefault(key, ownership)
        self._project_owners = self._of_projects(resources)

    @cached_property
    def _words(self) -> frozenset[str]:
        """What an earlier sweep may have said of this scope."""
        return _scope_in_words(self._scope)

    def _of_group(self, resource: Resource) -> Ownership | None:
        for preset in self._presets:
            if sign := preset.marks_group(resource):
                return _preset_ownership(preset.name, sign, _IN_PROJECT)
        return None

    def _of_projects(self, resources: tuple[Resource, ...]) -> dict[GroupKey, Ownership | None]:
        """Who owns the containers of each project that has more than these; None where one of them is not owned."""
        owners: dict[GroupKey, Ownership | None] = {}
        with_more = {self._groups.key(resource) for resource in resources if not resource.kind.runs}
        for resource in resources if with_more else ():
            key = self._groups.key(resource)
            if key is not None and key in with_more and resource.kind.runs:
                owner = self.owner(resource)
                owners[key] = owner and owners.get(key, owner)
        return owners

    def owner(self, resource: Resource) -> Ownership | None:
        """What makes ``resource`` owned, or None when nothing does."""
        if resource.kind.opt_in and resource.kind not in self._kinds:
            return None
        match resource.kind:
            case Kind.BUILD_CACHE:
                return Ownership("a policy for the build cache")
            case Kind.IMAGE:
                return self._of_image(resource)
            case _:
                return self._of_others(resource)

    def preset_of(self, resource: Resource) -> str | None:
        """The preset that owns it, if one does."""
        owner = self.owner(resource)
        return None if owner is None else owner.preset_name

    def run_of(self, resource: Resource) -> str | None:
        """By what the only run is known that can have a resource of its name; None when any run of its preset can."""
        name = self.preset_of(resource)
        return next((preset.run_of(resource) for preset in self._presets if preset.name == name), None)

    def _of_others(self, resource: Resource) -> Ownership | None:
        seen = as_scope_reads(resource, self._scope)
        for preset in self._presets:
            if sign := preset.marks(seen):
                return _preset_ownership(preset.name, sign)
        if (runner := self._of_project_name(resource)) is not None:
            return _preset_ownership(runner.name, PROJECT_NAME)
        key = None if resource.inherited is None else self._groups.key(resource)
        if key is not None and (of_group := self._by_group.get(key)) is not None:
            return of_group
        remembered, sign = self._remembered(resource), self._scope.selector.any_of(seen)
        if sign and not (remembered is not None and remembered.preset):  # a preset's own is no service of anybody's
            return Ownership(f"scope {sign}")
        return (
            remembered or self._of_project(resource) or (Ownership("scope everything") if self._scope.everything else None)
        )

    def _of_project_name(self, resource: Resource) -> Preset | None:
        """The preset whose runner has named its project, where no container is there any more that says more about it."""
        if resource.kind.runs or resource.kind not in self._kinds or self._groups.places(resource):
            return None
        return next((preset for preset in self._presets if preset.names_project(resource)), None)

    def _of_image(self, image: Resource) -> Ownership | None:
        """An image is owned when each of its tags is; by a label, when it has no second tag, which may be another user's."""
        signs = [self._of_reference(tag) for tag in image.tags]
        first = signs[0] if signs else None
        if first is not None and None not in signs:
            return first
        if len(image.tags) <= 1 and (by := self._of_image_label(image) or self._of_built(image)) is not None:
            return by
        if not image.tags and (children := self._built_on.get(image.id)):
            owners = [self._of_image(child) for child in children]
            return None if None in owners else owners[0]
        if not image.tags and (by := self._remembered(image)) is not None:
            return by
        return Ownership("scope everything") if self._scope.everything else None

    def foreign_tags(self, image: Resource) -> tuple[str, ...]:
        """The tags of an image that are not owned, where another tag of it is."""
        foreign = tuple(tag for tag in image.tags if self._of_reference(tag) is None)
        return foreign if len(foreign) < len(image.tags) else ()

    def _of_reference(self, tag: str) -> Ownership | None:
        for preset in self._presets:
            for glob in preset.references:
                if image_matches((glob,), tag):
                    return _preset_ownership(preset.name, f"image {glob}")
        for glob in self._scope.selector.images:
            if image_matches((glob,), tag):
                return Ownership(f"scope image {glob}")
        return None

    def _of_image_label(self, image: Resource) -> Ownership | None:
        """Who owns it by a label of its own: not one of a container that was committed, nor one of an image below it."""
        labels = image.own_labels
        if any(key in (image.labels or {}) for key in MADE_BY_COMPOSE):
            return None
        for preset in self._presets:
            for pattern in preset.labels:
                if label_matches(pattern, labels):
                    return _preset_ownership(preset.name, f"label {pattern}")
        for pattern in self._scope.selector.labels:
            if label_matches(pattern, labels):
                return Ownership(f"scope label {pattern}")
        return None

    def _of_built(self, image: Resource) -> Ownership | None:
        """Who owns the project that Compose has built it for, by its labels and its name."""
        if not is_built_for_project(image):
            return None
        if (preset := self._of_project_name(image)) is not None:
            return _preset_ownership(preset.name, PROJECT_NAME)
        return self._remembered(image) or self._of_project(image)

    def alone(self, resource: Resource, owner: str, now: datetime) -> Resource:
        """A one-off container as it is taken without its project, whose signs it is not shown to have then: remembered."""
        alone = replace(resource, group=None, alone=True)
        before, now_owned = self.owner(resource), self.owner(alone)
        if now_owned is not None and (before is None or now_owned.preset == before.preset):
            return alone
        return replace(alone, remembered=Remembered(f"{owner.removesuffix(_IN_PROJECT)}{_IN_PROJECT}", now))

    def namesake(self, resource: Resource) -> Ownership | None:
        """What owns another group of the same name, if something does: people may take the two for one."""
        key = self._groups.key(resource)
        if key is None:
            return None
        return next((owner for other, owner in self._by_group.items() if other[:2] == key[:2] and other != key), None)

    def _remembered(self, resource: Resource) -> Ownership | None:
        """The ownership that an earlier sweep put into words, where the scope and its presets would still say so."""
        if resource.remembered is None:
            return None
        by = resource.remembered.owner
        if resource.kind.runs and not by.endswith(_IN_PROJECT):
            return None  # its own sign is there no more: it was renamed
        said = by.removesuffix(BY_CONTAINERS).removesuffix(_IN_PROJECT)
        if said not in self._words:
            return None
        ownership = Ownership(f"remembered: {by}", preset=said.startswith("preset "))
        if said.endswith(f", {PROJECT_NAME}"):
            named = any(p.name == ownership.preset_name and p.names_project(resource) for p in self._presets)
            return ownership if named else None
        return ownership

    def _of_project(self, resource: Resource) -> Ownership | None:
        """Compose gives a network no label of its services: it is whose all the project's containers are."""
        key = self._groups.key(resource)
        if key is None or resource.kind.runs:
            return None
        owner = self._project_owners.get(key)
        return owner and replace(owner, by=f"{owner.by}{BY_CONTAINERS}")


def would_own(resources: Collection[Resource], scope: Scope) -> dict[str, str]:
    """By id the preset that would own a resource if ``scope`` named it. Those that do not take part own nothing of it.

    Args:
        resources: all that the endpoint holds.
        scope: what is owned.
    """
    others = tuple(name for name in known(scope) if name not in scope.presets)
    kinds = frozenset(resource.kind for resource in resources)
    owners = Owners(resources, replace(scope, presets=others, selector=Selector(), everything=False), kinds=kinds)
    found = ((resource.id, owners.owner(resource)) for resource in resources)
    return {id_: owner.preset_name for id_, owner in found if owner is not None and owner.preset_name is not None}


def is_built_for_project(image: Resource) -> bool:
    """Whether a build of its Compose project made it and gave it the only name that it has (``PROJECT-SERVICE``).

    What was committed from a container of the project carries the labels of containers, too.
    """
    labels = image.labels or {}
    if image.group is None or any(key in labels for key in MADE_BY_COMPOSE):
        return False
    service = labels.get(SERVICE_LABEL)
    names = {f"{image.group}{between}{service}" for between in "-_"}
    tags = {tag.removesuffix(":latest") for tag in image.tags}
    return service is not None and len(tags) == 1 and tags <= names


def is_left_of_project(image: Resource) -> bool:
    """Whether it was built for its project, and not again, for the next ``up``, since that has gone."""
    remembered, tagged = image.remembered, image.tagged_at
    again = remembered is not None and tagged is not None and tagged > remembered.free_at
    return is_built_for_project(image) and not again


def why_not_built_for(image: Resource, containers: Iterable[Resource]) -> str | None:
    """Why the image was not built for these containers of its project, or None.

    A person may have built it again since they were made, or have done so in another folder of the same name. What comes
    from a cache has the same id again, and another time at which it was tagged.
    """
    if not is_built_for_project(image):
        return "it carries the labels of its project, and has another name than what is built for that"
    containers, names = list(containers), {familiar(tag) for tag in image.tags}
    if users := [one for one in containers if image.id in one.uses]:
        last = max(at for one in users for at in (one.created_at, one.started_at, one.stopped_at) if at is not None)
        again = image.tagged_at is not None and image.tagged_at > last
        return f"it was built or tagged again since {users[0].name} was started or stopped last" if again else None
    of_another = (one for one in containers if one.image is not None and familiar(one.image) in names)
    other = next(of_another, None)
    return None if other is None else f"it was built after {other.name} was made, of an earlier image of that name"


def _built_on(resources: Iterable[Resource]) -> dict[str, list[Resource]]:
    """By the id of an image those that the engine says were built on it."""
    found: dict[str, list[Resource]] = {}
    for image in resources:
        for parent in image.uses if image.kind is Kind.IMAGE else ():
            found.setdefault(parent, []).append(image)
    return found
