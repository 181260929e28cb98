"""The signs by which the containers, sandboxes and images of known runners are recognised. Pure data.

Each preset is one entry in one table. The first two are in force by default.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from reaper.core.identity import CONFIG_FILES_LABEL, runner_sign
from reaper.core.model import Kind, Resource
from reaper.core.scope import image_matches, label_matches


@dataclass(frozen=True, slots=True)
class Preset:
    """The signs that one benchmark runner leaves on its resources.

    Args:
        labels: a resource with one of these is the runner's.
        names: of containers: globs as people write them, each with what it means exactly.
        images: a container with one of these is the runner's, and so is the whole group that it is in.
        members: the names that the runner gives to Compose projects, where every container in one is the runner's.
        references: images themselves that are the runner's.
        projects: the names that the runner gives to Compose projects: what is in one without containers is the runner's.
        data_projects: likewise, of volumes: what holds data needs a name that is given to nothing else.
        runner: as ``identity.RUNNER_FILES`` finds it by a Compose project's configuration files: the whole group is its.
    """

    name: str
    labels: tuple[str, ...] = ()
    names: tuple[tuple[str, str], ...] = ()
    images: tuple[str, ...] = ()
    members: tuple[str, str] | None = None
    references: tuple[str, ...] = ()
    projects: str = ""
    data_projects: str = ""
    runner: str | None = None

    def names_project(self, resource: Resource) -> bool:
        """Whether the name of the Compose project of a network, a volume or an image is one that the runner gives."""
        names = self.data_projects if resource.kind is Kind.VOLUME else self.projects
        return bool(names) and resource.group is not None and re.fullmatch(names, resource.group) is not None

    def marks_group(self, resource: Resource) -> str | None:
        """The sign on this resource that makes its whole group owned, if there is one."""
        if resource.kind is Kind.CONTAINER:
            for glob in self.images:
                if image_matches((glob,), resource.image):
                    return f"image {glob}"
        if resource.group is None or resource.inherited is None:
            return None
        if self.members is not None and re.fullmatch(self.members[1], resource.group):
            return f"project {self.members[0]}"
        files = (resource.labels or {}).get(CONFIG_FILES_LABEL)
        if files and self.runner is not None:
            sign = runner_sign(files)
            if sign is not None and sign[0] == self.runner:
                return f"config file *{sign[1]}"
        return None

    def marks(self, resource: Resource) -> str | None:
        """The sign on this resource that makes it owned, if there is one."""
        for pattern in self.labels:
            if label_matches(pattern, resource.own_labels):
                return f"label {pattern}"
        for glob, exactly in self.names if resource.kind is Kind.CONTAINER else ():
            if re.fullmatch(exactly, resource.name):
                return f"name {glob}"
        return self.marks_group(resource)


_TRIAL = r".+-\d+-of-\d+-\d{4}-\d{2}-\d{2}__\d{2}-\d{2}-\d{2}"
_NEW_SESSION = r"[a-z0-9][a-z0-9_.-]*__[a-z0-9]{7}__(env|verifier__.+)"
_SESSION = rf"[a-z0-9][a-z0-9_.-]*__[a-z0-9]{{7}}|{_NEW_SESSION}"
_SWE_BENCH = ("swebench/sweb.eval.*", "sweb.eval.*", "sweb.env.*")
_INSPECT = r"inspect-[a-z0-9_-]{1,12}-i[a-z0-9]{6}"
_OPENHANDS = ("runtime", "sandbox")  # the word changed between releases
# Read from terminal-bench 0.2.18, harbor 0.25.0 and 0.26.0, swebench 5.0.2, inspect_ai 0.3.285, mini-swe-agent 2.4.6,
# openhands-ai 0.9.8 and testcontainers 4.15.0; benchflow's label from its documents.
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
        ),
        Preset(
            "harbor",
            labels=("harbor.managed=true",),
            images=("hb__*",),
            references=("hb__*",),
            projects=_SESSION,
            data_projects=_NEW_SESSION,
            runner="harbor",
        ),
        Preset(
            "swe-bench",
            names=(("sweb.eval.*.*", r"sweb\.eval\..+\..+"),),
            images=_SWE_BENCH,
            references=_SWE_BENCH,
        ),
        Preset("inspect-ai", members=("inspect-*-i*", _INSPECT), projects=_INSPECT),
        Preset("mini-swe-agent", names=(("minisweagent-*", r"minisweagent-[0-9a-f]{8}"),)),
        Preset("openhands", names=tuple((f"openhands-{word}-*", rf"openhands-{word}-.+") for word in _OPENHANDS)),
        Preset("benchflow", labels=("benchflow.managed=1", "benchflow.managed=1:*")),
        Preset("testcontainers", labels=("org.testcontainers.session-id",)),
    )
}


def would_own(resources: Iterable[Resource], presets: Iterable[str]) -> dict[str, int]:
    """How many of these other presets than the ones in force would own, by the presets' names."""
    others = [preset for preset in PRESETS.values() if preset.name not in set(presets)]
    found: dict[str, int] = {}
    for resource in resources:
        if (preset := next((one for one in others if one.marks(resource)), None)) is not None:
            found[preset.name] = found.get(preset.name, 0) + 1
    return found
