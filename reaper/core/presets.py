"""The signs by which the containers, sandboxes and images of known runners are recognised. Pure data.

Each preset is one entry in one table, the built-in ones here and those of [[preset]] alike. The first two are in force by
default.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from reaper.core.identity import CONFIG_FILES_LABEL, INSTANCE_LABEL, RUNNER_FILES, config_file_sign
from reaper.core.model import Kind, Resource
from reaper.core.scope import Scope, image_matches, label_matches

PROJECT_NAME = "name of its project"


@dataclass(frozen=True, slots=True)
class Preset:
    """The signs that one benchmark runner leaves on its resources.

    Args:
        labels: a resource with one of these is the runner's.
        names: of containers: globs as people write them, each with what it means exactly.
        images: a container with one of these is the runner's, and so is the whole group that it is in.
        members: the names that the runner gives to Compose projects, likewise, where every container in one is the runner's.
        references: images themselves that are the runner's.
        projects: the names that the runner gives to Compose projects: what is in one without containers is the runner's.
        data_projects: likewise, of volumes: what holds data needs a name that is given to nothing else.
        made_up: the names that the runner makes up for one run, with what that is known by as a group: no other run takes
            over what is called so, unless its command has that. Of Compose projects, and of containers that are in none.
        config_files: endings of paths: a container of a Compose project with such a configuration file is the runner's.
        keepalive: the label of the sandboxes whose activity the runner refreshes for as long as it lives.
    """

    name: str
    labels: tuple[str, ...] = ()
    names: tuple[tuple[str, str], ...] = ()
    images: tuple[str, ...] = ()
    members: tuple[tuple[str, str], ...] = ()
    references: tuple[str, ...] = ()
    projects: str = ""
    data_projects: str = ""
    made_up: str = ""
    config_files: tuple[str, ...] = ()
    keepalive: str = ""

    @property
    def signs(self) -> tuple[str, ...]:
        """What ``marks`` may say of a container or a sandbox."""
        entries = (
            ("label", self.labels),
            ("name", [glob for glob, _ in self.names]),
            ("image", self.images),
            ("project", [glob for glob, _ in self.members]),
            ("config file", [f"*{ending}" for ending in self.config_files]),
        )
        return tuple(f"{word} {entry}" for word, some in entries for entry in some)

    def names_project(self, resource: Resource) -> bool:
        """Whether the name of the Compose project of a network, a volume or an image is one that the runner gives."""
        names = self.data_projects if resource.kind is Kind.VOLUME else self.projects
        return bool(names) and resource.group is not None and re.fullmatch(names, resource.group) is not None

    def run_of(self, resource: Resource) -> str | None:
        """By what the only run is known that can have a resource of its name; None when any can."""
        found = re.fullmatch(self.made_up, resource.group or resource.name) if self.made_up else None
        return None if found is None else found[1]

    def marks_group(self, resource: Resource) -> str | None:
        """The sign on this resource that makes its whole group owned, if there is one."""
        if resource.kind is not Kind.CONTAINER:
            return None
        for glob in self.images:
            if image_matches((glob,), resource.image):
                return f"image {glob}"
        if resource.group is None or resource.inherited is None:
            return None
        for glob, exactly in self.members:
            if re.fullmatch(exactly, resource.group):
                return f"project {glob}"
        ending = self._config_file(resource)
        return f"config file *{ending}" if ending in _IN_PLACE else None

    def marks(self, resource: Resource) -> str | None:
        """The sign on this resource that makes it owned, if there is one."""
        for pattern in self.labels:
            if label_matches(pattern, resource.own_labels):
                return f"label {pattern}"
        for glob, exactly in self.names if resource.kind is Kind.CONTAINER else ():
            if re.fullmatch(exactly, resource.name):
                return f"name {glob}"
        if (sign := self.marks_group(resource)) is not None:
            return sign
        ending = self._config_file(resource)
        return None if ending is None else f"config file *{ending}"

    def _config_file(self, resource: Resource) -> str | None:
        """The ending of a configuration file that the resource's own project was started with, if it is a sign."""
        files = (resource.labels or {}).get(CONFIG_FILES_LABEL)
        if not files or not self.config_files or resource.group is None or resource.inherited is None:
            return None
        return config_file_sign(files, self.config_files)


_IN_PLACE = frozenset(ending for endings in RUNNER_FILES.values() for ending in endings)
"""Files that are a part of what ``identity.place`` takes for one group: they speak for all of it, others for a container."""
_TRIAL = r".+-\d+-of-\d+-(\d{4}-\d{2}-\d{2}__\d{2}-\d{2}-\d{2})"
_ID = r"[a-z0-9][a-z0-9_.-]*__[a-z0-9]{7}"
_PART = r"__(?:env|verifier__.+)"
_NEW_SESSION = _ID + _PART
_SESSION = f"{_ID}|{_NEW_SESSION}"
_SWE_BENCH = ("swebench/sweb.eval.*", "sweb.eval.*", "sweb.env.*")
_INSPECT = r"inspect-[a-z0-9_-]{1,12}-i[a-z0-9]{6}"
_MINI_SWE = r"minisweagent-[0-9a-f]{8}"
_OPENHANDS = ("runtime", "sandbox")  # the word changed between releases
# Read from terminal-bench 0.2.18, harbor 0.25.0 and 0.26.0, swebench 5.0.2, inspect_ai 0.3.285, mini-swe-agent 2.4.6,
# openhands-ai 0.9.8 and 1.11.0, benchflow 0.7.11 and testcontainers 4.15.0.
PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "terminal-bench",
            labels=("terminal-bench",),
            images=("tb__*__client",),
            references=("tb__*",),
            projects=_TRIAL,
            data_projects=_TRIAL,
            made_up=_TRIAL,
        ),
        Preset(
            "harbor",
            labels=("harbor.managed=true",),
            images=("hb__*",),
            references=("hb__*",),
            projects=_SESSION,
            data_projects=_NEW_SESSION,
            made_up=f"({_ID})(?:{_PART})?",
            config_files=RUNNER_FILES["harbor"],
            keepalive=INSTANCE_LABEL,
        ),
        Preset(
            "swe-bench",
            names=(("sweb.eval.*.*", r"sweb\.eval\..+\..+"),),
            images=_SWE_BENCH,
            references=_SWE_BENCH,
        ),
        Preset("inspect-ai", members=(("inspect-*-i*", _INSPECT),), projects=_INSPECT, made_up=f"({_INSPECT})"),
        Preset("mini-swe-agent", names=(("minisweagent-*", _MINI_SWE),), made_up=f"({_MINI_SWE})"),
        Preset(
            "openhands",
            names=(
                *((f"openhands-{word}-*", rf"openhands-{word}-.+") for word in _OPENHANDS),
                ("oh-agent-server-*", r"oh-agent-server-[0-9A-Za-z]{16,}"),
            ),
        ),
        Preset(
            "benchflow",
            labels=("benchflow.managed=1", "benchflow.managed=1:*", "benchflow.owned=true"),
            config_files=("/benchflow/sandbox/_compose_files/docker-compose-base.yaml",),
        ),
        Preset("testcontainers", labels=("org.testcontainers.session-id",)),
    )
}


def known(scope: Scope) -> Mapping[str, Preset]:
    """All presets that ``scope`` may name, by name."""
    return {**PRESETS, **{preset.name: preset for preset in scope.own_presets}} if scope.own_presets else PRESETS


def in_force(scope: Scope) -> tuple[Preset, ...]:
    """The presets that ``scope`` names, in its order."""
    presets = known(scope)
    return tuple(presets[name] for name in scope.presets)
