"""What a container depends on by its configuration: other containers' namespaces, links, volumes-from, and networks by name.

A listing shows little of it: Docker's has no PID and IPC modes, Podman's has no configuration at all. An inspection shows
all, for as long as the container is on the same networks: nothing else of it changes after it has been created.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from reaper.core.lease import ANONYMOUS
from reaper.providers.parsing import Row, rows, shared, table, text, texts

Below = Mapping[str, frozenset[str]] | None
"""By the name of a volume those from whose folders it is mounted; None where that is not known."""

_MODES = ("NetworkMode", "PidMode", "IpcMode", "UTSMode", "UsernsMode", "CgroupnsMode")
_NO_NETWORK = ("default", "bridge", "host", "none")
# In the options of a volume or a mount, as `device` or `lowerdir`.
_VOLUME_FOLDER = re.compile(r"/volumes/([^/:,]+)(?=/_data(?:[/:,]|$)|/?(?:[:,]|$))")
_ID = re.compile("[0-9a-f]{64}")
_SHORT, _LONG = 12, 64  # characters: what is shorter is no beginning of an id, and a whole one is searched for in no list


@dataclass(frozen=True, slots=True)
class Links:
    """What one container depends on, as its configuration names it.

    Args:
        containers: ids or names; names of volumes whose folders it has mounted mean the container that has these.
        networks: names or ids of networks that it will join when it is started.
        joined: names of all its networks: a link may come with another one.
        endpoints: ids of its connections to them: a link may come with a new one to the same network.
    """

    containers: frozenset[str] = frozenset()
    networks: frozenset[str] = frozenset()
    joined: frozenset[str] = frozenset()
    endpoints: frozenset[str] = frozenset()

    def may_have_changed(self, row: Row) -> bool:
        """Whether the container has joined another network, or one anew, by its row of a later listing."""
        return self.joined != joined(row) or not self.endpoints >= endpoints(row)


def volumes_in(option: str) -> Sequence[str]:
    """The names of the volumes whose folders stand in an option of a mount."""
    return _VOLUME_FOLDER.findall(option)


def networks_of(row: Row) -> Row:
    """What a row of a listing or an inspection says of a container on each of its networks, by their names."""
    return table(table(row.get("NetworkSettings")).get("Networks"))


def joined(row: Row) -> frozenset[str]:
    """The names of all networks of a container, in a row of a listing or in an inspection."""
    return shared(frozenset(networks_of(row)))


def endpoints(row: Row) -> frozenset[str]:
    """The ids of its connections to them, likewise; it has none when it does not run."""
    return frozenset(id_ for place in networks_of(row).values() if (id_ := text(table(place).get("EndpointID"))))


def links_at_networks(row: Row) -> frozenset[str]:
    """The names of what a container is linked to on networks that a client has made: Compose writes its links there alone.

    The engine looks for the name each time, and finds whatever has it then.
    """
    links = (link for place in networks_of(row).values() for link in texts(table(place).get("Links")))
    return frozenset(link.removeprefix("/").partition(":")[0] for link in links)


def configured_links(row: Row) -> Links:
    """The links in a row of a listing, as far as it has them, or in an inspection."""
    host = table(row.get("HostConfig"))
    modes = [mode for key in _MODES if isinstance(mode := host.get(key), str)]
    containers = {mode.removeprefix("container:") for mode in modes if mode.startswith("container:")}
    containers |= {link.removeprefix("/").partition(":")[0] for link in texts(host.get("Links"))}
    containers |= {source.partition(":")[0] for source in texts(host.get("VolumesFrom"))}
    places = networks_of(row)
    containers |= links_at_networks(row)
    containers |= {*texts(row.get("Dependencies"))}  # of Podman: see Pods.with_required
    # One in another's control group is killed with it where that has no PID namespace of its own (runc).
    containers |= set(_ID.findall(text(host.get("CgroupParent")) or ""))
    # Podman's ``-v FOLDER:/path:O`` has the folder there alone, as the lower one of an overlay.
    containers |= {name for bind in texts(host.get("Binds")) if "lowerdir=" in bind for name in volumes_in(bind)}
    # One that was never started has no id of its networks: Docker looks for the name when it starts it. Podman 4 has
    # the name in its place, always.
    networks = {name for name, place in places.items() if table(place).get("NetworkID") in (None, "", name)}
    mode = host.get("NetworkMode")
    if not places and isinstance(mode, str) and mode not in _NO_NETWORK and not mode.startswith(("container:", "ns:")):
        networks.add(mode)
    named = shared(frozenset(filter(None, containers))), shared(frozenset(filter(None, networks)))
    return Links(*named, joined(row), endpoints(row))


class Directory:
    """The names of one listing: what the references of a container mean, and whose the anonymous volumes are.

    Args:
        containers: rows of the listing of containers.
        networks: rows of the listing of networks.
        below: which volumes lie on others.
    """

    def __init__(
        self,
        containers: Iterable[Row] = (),
        networks: Iterable[Row] = (),
        below: Below = MappingProxyType({}),
    ) -> None:
        containers = list(containers)
        self._below = below
        self._containers = _by_name((row, _names(row)) for row in containers)
        self._holders = _holders(containers)
        self._networks = _by_name((row, [row.get("Name")]) for row in networks)

    def with_containers(self, containers: Iterable[Row], below: Below) -> "Directory":
        """The same with the containers of a later listing."""
        later = Directory(containers, below=below)
        later._networks = self._networks
        return later

    def ids(self, links: Links) -> frozenset[str]:
        """The ids of all that these name; what nothing is called by now stands as it is."""
        found = {id_ for reference in links.containers for id_ in _resolved(reference, self._containers)}
        found |= self.holders(links.containers)
        found |= {id_ for reference in links.networks for id_ in _resolved(reference, self._networks)}
        return shared(frozenset(found))

    def below(self, volumes: Collection[str]) -> frozenset[str]:
        """The names of the volumes from whose folders these are mounted: of any anonymous one, while that is not known."""
        if self._below is None:
            return frozenset(self._holders.keys() - volumes if volumes else ())
        return frozenset(below for volume in volumes for below in self._below.get(volume, ()))

    def holders(self, volumes: Iterable[str]) -> frozenset[str]:
        """The ids of the containers with which the engine deletes one of these volumes."""
        return frozenset(id_ for volume in volumes for id_ in self._holders.get(volume, ()))


def _holders(containers: Iterable[Row]) -> dict[str, set[str]]:
    """Ids of containers by the names of their anonymous volumes."""
    found: dict[str, set[str]] = {}
    for row in containers:
        id_ = row.get("Id")
        for mount in rows(row.get("Mounts")):
            name = mount.get("Name") if mount.get("Type") == "volume" else None
            if isinstance(id_, str) and isinstance(name, str) and ANONYMOUS.fullmatch(name):
                found.setdefault(name, set()).add(id_)
    return found


def _by_name(rows: Iterable[tuple[Row, Iterable[object]]]) -> dict[str, set[str]]:
    """Ids by name and by themselves: an engine may have several networks of one name."""
    found: dict[str, set[str]] = {}
    for row, names in rows:
        id_ = row.get("Id")
        if isinstance(id_, str) and id_:
            for name in (id_, *names):
                if isinstance(name, str):
                    found.setdefault(name.removeprefix("/"), set()).add(id_)
    return found


def _resolved(reference: str, known: Mapping[str, set[str]]) -> set[str]:
    if reference in known:
        return known[reference]
    if _SHORT <= len(reference) < _LONG:
        beginning = {id_ for ids in known.values() for id_ in ids if id_.startswith(reference)}
        if beginning:
            return beginning
    return {reference}


def _names(row: Row) -> list[str]:
    """A container's own names: one with a second slash is another's link to it."""
    return [name for name in texts(row.get("Names")) if "/" not in name[1:]]
