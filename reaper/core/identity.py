"""Which resources belong together, and what distinguishes two groups of one name. Pure: no I/O, no clock, no logging.

A name is no identity: Compose takes the name of a project from its folder or its command line, so that two projects of one
name may share an engine (docker/compose#9742). A project is its name, its working directory and the runner that started it;
a Harbor session is its id and the instance of Harbor's environment that made the sandbox.
"""

from collections.abc import Iterable, Mapping
from functools import cached_property, lru_cache

from reaper.core.model import Kind, Resource

COMPOSE = "com.docker.compose."
PROJECT_LABEL = COMPOSE + "project"
WORKING_DIR_LABEL = COMPOSE + "project.working_dir"
CONFIG_FILES_LABEL = COMPOSE + "project.config_files"
ONEOFF_LABEL = COMPOSE + "oneoff"
SERVICE_LABEL = COMPOSE + "service"
MADE_BY_COMPOSE = (COMPOSE + "container-number", ONEOFF_LABEL)
"""Compose gives these to containers alone, in both its generations; the project's name stands on built images, too."""
SESSION_LABEL = "harbor.session_id"
INSTANCE_LABEL = "harbor.instance_id"

RUNNER_FILES: Mapping[str, tuple[str, ...]] = {
    "harbor": (
        "/harbor/environments/docker/docker-compose-build.yaml",
        "/harbor/environments/docker/docker-compose-prebuilt.yaml",
    ),
}
"""Endings of a path among a project's configuration files that show who started it: read from Harbor 0.25.0 and 0.26.0."""

GroupName = tuple[str, str]
GroupKey = tuple[str, str, str]
_SEVERAL = "\0"  # in place of the folder: there are several, and the resource does not say which is its own


def compose_project(labels: Mapping[str, str] | None, inherited: frozenset[str] | None) -> str | None:
    """The Compose project that a container is a member of, or None.

    A container is a member when Compose made it. One of an image that was committed from a member carries all its labels:
    then none of Compose's labels is the container's own.

    Args:
        labels: all labels of the container.
        inherited: which of them are its image's. While that is not known (None) it counts as a member, which keeps the
            project, and takes nothing.
    """
    if not labels or not (project := labels.get(PROJECT_LABEL)):
        return None
    if not any(key in labels for key in MADE_BY_COMPOSE):
        return None
    if inherited and all(key in inherited for key in labels if key.startswith(COMPOSE)):
        return None
    return project


def made_of(labels: Mapping[str, str] | None, image_id: str | None) -> bool:
    """Whether Compose 2 says that it has made the container of this very image.

    No image can carry that label by itself: an image's id is the digest of what it holds, its labels included.
    """
    return image_id is not None and (labels or {}).get(COMPOSE + "image") == image_id


@lru_cache(maxsize=4096)
def config_file_sign(config_files: str, endings: tuple[str, ...]) -> str | None:
    """The first of these endings of a path that one of a project's configuration files has, by their label."""
    files = [file.strip().replace("\\", "/") for file in config_files.split(",")]  # Windows writes backslashes
    return next((ending for ending in endings if any(file.endswith(ending) for file in files)), None)


def runner_sign(config_files: str) -> tuple[str, str] | None:
    """The runner that started a project and the ending of the file that shows it, by its label of configuration files."""
    for runner, endings in RUNNER_FILES.items():
        if (ending := config_file_sign(config_files, endings)) is not None:
            return runner, ending
    return None


def place(resource: Resource) -> str | None:
    """What distinguishes the resource's group from another one of its name; None where the resource does not say."""
    labels = resource.labels or {}
    if resource.in_pod:
        return ""  # the name of the group says which pod it is
    if resource.kind is Kind.SANDBOX:
        return labels.get(INSTANCE_LABEL, "")
    if not resource.kind.runs:
        return None  # Compose writes no working directory on networks and volumes
    sign = runner_sign(labels[CONFIG_FILES_LABEL]) if CONFIG_FILES_LABEL in labels else None
    return labels.get(WORKING_DIR_LABEL, "") + (f" ({sign[0]})" if sign else "")


def lacks_place(resource: Resource) -> bool:
    """Whether it does not say in which folder its project is, or of which instance its session: it may be of each one."""
    label = {Kind.CONTAINER: WORKING_DIR_LABEL, Kind.SANDBOX: INSTANCE_LABEL}.get(resource.kind)
    return label is not None and not resource.in_pod and not (resource.labels or {}).get(label)


def same_group(one: Resource, other: Resource) -> bool:
    """Whether both say to be of the same group; what does not say which is of each one of the name."""
    if one.group is None or (one.endpoint, one.group) != (other.endpoint, other.group):
        return False
    places = place(one), place(other)
    return None in places or places[0] == places[1] or lacks_place(one) != lacks_place(other)


def group_name(resource: Resource) -> GroupName | None:
    """The name of the resource's group among all endpoints, or None when it stands alone."""
    return None if resource.group is None else (resource.endpoint, resource.group)


def unclear_key(key: GroupKey) -> GroupKey:
    """The key of what has the group's name and does not say which of several groups it is of."""
    return (*key[:2], _SEVERAL)


class Groups:
    """The groups of what was listed together.

    All members of a group must be among ``resources``: what runs says which groups of a name there are.
    """

    def __init__(self, resources: Iterable[Resource]) -> None:
        self._resources = tuple(resources)

    @cached_property
    def _places(self) -> dict[GroupName, set[str]]:
        places: dict[GroupName, set[str]] = {}
        for resource in self._resources:
            name = group_name(resource)
            if name is not None and (where := place(resource)) is not None:
                places.setdefault(name, set()).add(where)
        return places

    def key(self, resource: Resource) -> GroupKey | None:
        """What identifies the resource's group, or None when it stands alone."""
        name = group_name(resource)
        if name is None:
            return None
        where = place(resource)
        if where is None:
            places = self._places.get(name, {""})
            where = next(iter(places)) if len(places) == 1 else _SEVERAL
        return (*name, where)

    def places(self, resource: Resource) -> frozenset[str]:
        """Where the groups of its name are that have something running or stopped in them."""
        name = group_name(resource)
        return frozenset(self._places.get(name, ())) if name is not None else frozenset()

    def several(self, resource: Resource) -> tuple[str, ...]:
        """Where the groups of its name are, if there are several; else nothing."""
        places = self.places(resource)
        return tuple(sorted(places)) if len(places) > 1 else ()

    def unclear(self, resource: Resource) -> bool:
        """Whether there are several groups of its name, and it does not say which is its own."""
        return place(resource) is None and bool(self.several(resource))
