"""The container that this program runs in: neither it nor its Compose project or pod is ever touched."""

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from reaper.core.model import Kind, Resource

_OWN_ID = re.compile(r"/([0-9a-f]{64})/(?:userdata/)?(?:hostname|hosts|resolv\.conf)$")
_FULL_ID = re.compile(r"[0-9a-f]{64}")
_OF_ENGINE = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")


def detect_own_container() -> frozenset[str]:
    """The ids that this process shows of the container that it runs in: see ``own_container_ids``."""
    texts = []
    for file in ("/proc/self/mountinfo", "/proc/self/cgroup"):
        try:
            texts.append(Path(file).read_text(encoding="utf-8", errors="replace"))
        except OSError:
            texts.append("")
    return own_container_ids(*texts)


def own_container_ids(mountinfo: str, cgroup: str) -> frozenset[str]:
    """The id of the container that this process runs in, or of the one whose network it has been given; none outside of one.

    The engine mounts the container's /etc/hostname from a folder that has its id; a name or a hostname would be no proof. Of
    a container in another one's network (``--network container:ID``, a pod) the files are that one's.

    Args:
        mountinfo: the text of /proc/self/mountinfo.
        cgroup: the text of /proc/self/cgroup.
    """
    found = set[str]()
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if len(fields) > 4 and fields[4] in _OF_ENGINE and (mounted := _OWN_ID.search(fields[3])):
            found.add(mounted[1])
    for line in cgroup.splitlines():
        last = line.rpartition("/")[2].removeprefix("docker-").removesuffix(".scope")
        if _FULL_ID.fullmatch(last):
            found.add(last)
    return frozenset(found)


class OwnContainer:
    """Marks what this program must never touch.

    Args:
        ids: what ``own_container_ids`` has found. Which of the containers in a network it is that is its own no file says.
    """

    def __init__(self, ids: frozenset[str]) -> None:
        self._ids = ids
        self._groups = set[str]()

    def mark(self, found: Iterable[Resource]) -> tuple[Resource, ...]:
        """These with the own container marked, the containers in its network, and the other members of their groups.

        The groups of those that are not among them are known from the last call that had them.
        """
        found = tuple(found)
        if not self._ids:
            return found
        self._groups |= {one.group for one in found if one.group is not None and self._is_own(one)}
        return tuple(replace(one, system_container=what) if (what := self._what(one)) is not None else one for one in found)

    def _is_own(self, resource: Resource) -> bool:
        return resource.kind is Kind.CONTAINER and (resource.id in self._ids or bool(self._ids & resource.uses))

    def _what(self, resource: Resource) -> str | None:
        if resource.id in self._ids:
            return "this program's own container"
        if self._is_own(resource):
            return "in the network of this program's own container"
        if resource.group is None or resource.group not in self._groups:
            return None
        return f"in this program's own {'pod' if '@' in resource.group else 'Compose project'}"
