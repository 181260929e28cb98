"""Which labels of a container are its own, as listings have shown it while its image was known.

An engine may forget the image of a container that is there (Docker's containerd store does when its tag is built again), and
then nothing shows any more which labels came with it. But neither the labels of a container nor those of its image ever
change, and no id is used again: what was true of a container once is true for as long as it is there.
"""

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from reaper.core.model import Resource
from reaper.files import EndpointFile
from reaper.providers.parsing import shared

_VERSION = 1
_Entry = tuple[str, frozenset[str]]  # a digest of all labels, and the keys of those that came with the image


class OwnLabels:
    """What is remembered of the containers of one engine, in a small file. A file that cannot be used is no memory.

    Args:
        folder: the state directory.
        identity: the engine's address.
        learns: whether something is written.
    """

    def __init__(self, folder: Path, identity: str, *, learns: bool) -> None:
        self._stored = EndpointFile(folder, "own-labels", identity, _VERSION)
        self._learns = learns
        self._known: Mapping[str, _Entry] = {}
        self._read: tuple[object, ...] = ()
        self._engine: str | None = None

    def recall(self, engine: str | None) -> None:
        """Read what is remembered of this engine, where that has changed: another one may be at its address."""
        try:
            found = self._stored.path.stat()
            read: tuple[object, ...] = (engine, found.st_ino, found.st_ctime_ns, found.st_size)
        except OSError:
            read = (engine,)
        if read != self._read:
            self._read, self._engine = read, engine
            self._known = (None if engine is None else self._stored.read(self._entries)) or {}

    def _entries(self, content: Mapping[str, Any]) -> dict[str, _Entry]:
        if content["engine"] != self._engine:
            return {}
        containers = content["containers"].items()
        return {str(id_): (str(digest), shared(frozenset(map(str, keys)))) for id_, (digest, keys) in containers}

    def inherited(self, container: Resource) -> frozenset[str] | None:
        """The keys of its labels that came with its image; None where that is not remembered of one with these labels."""
        digest, keys = self._known.get(container.id, ("", None))
        return keys if digest == _digest(container) else None

    def learn(self, containers: Iterable[Resource], proven: Iterable[str]) -> None:
        """Remember what is known of these, and forget what is not among them.

        Args:
            containers: all that were listed.
            proven: ids of those whose image is known now.
        """
        if not self._learns or self._engine is None:
            return
        proven, known = frozenset(proven), dict[str, _Entry]()
        for container in containers:
            before = self._known.get(container.id)
            if container.id in proven and container.inherited is not None and container.labels:
                same = before is not None and before[1] == container.inherited
                known[container.id] = before if same and before else (_digest(container), container.inherited)
            elif before is not None:
                known[container.id] = before
        if known != self._known:
            self._known = known
            rows = {id_: (digest, sorted(keys)) for id_, (digest, keys) in known.items()}
            self._stored.write("whose labels are whose", {"engine": self._engine, "containers": rows})
            self.recall(self._engine)


def _digest(container: Resource) -> str:
    return sha256(json.dumps(sorted((container.labels or {}).items())).encode()).hexdigest()[:32]
