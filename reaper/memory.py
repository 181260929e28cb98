"""What earlier sweeps knew about ownership that the resources themselves no longer show.

A Compose project whose client container went first leaves sidecars and networks without a sign of a benchmark. So the
ids of what an owned project holds are remembered for as long as they are listed: ids are never used again.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from reaper import files
from reaper.model import Decision, Remembered, Resource

_VERSION = 1


class Memory:
    """The remembered ids of one endpoint, in a small file. A file that cannot be used is no memory, never an error.

    Args:
        folder: the state directory; it is made when there is something to write.
        identity: the endpoint's address: names may come to mean another endpoint.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
        self.file = folder / f"owned-{digest}.json"
        self._known: Mapping[str, Remembered] = {}

    def recall(self, resources: Iterable[Resource]) -> list[Resource]:
        """The resources, each with what is remembered of it."""
        self._known = self._read()
        if not self._known:
            return list(resources)
        return [
            replace(resource, remembered=self._known[resource.id]) if resource.id in self._known else resource
            for resource in resources
        ]

    def learn(self, decisions: Iterable[Decision], now: datetime, grace: timedelta) -> str | None:
        """Remember what is owned as part of a project now, and forget what is not listed any more.

        A network whose project is about to be reaped is free at once: when the sweep dies half-way, the next one goes on.

        Returns:
            why it could not be written, if so.
        """
        decisions = tuple(decisions)
        with_containers = {d.resource.group for d in decisions if d.resource.kind.runs}
        known: dict[str, Remembered] = {}
        for decision in decisions:
            resource = decision.resource
            if resource.group is None or decision.owner is None or resource.kind.only_with_lease:
                continue  # the ids of volumes are names, which may come to mean others
            if resource.remembered is not None and (resource.group not in with_containers):
                known[resource.id] = resource.remembered
            else:
                owner = resource.remembered.owner if resource.remembered else decision.owner
                known[resource.id] = Remembered(owner, now if decision.reap else now + grace)
        if known == self._known:
            return None
        return self._write(known)

    def _read(self) -> Mapping[str, Remembered]:
        with suppress(OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
            content: Any = files.read_json(self.file)
            if content["version"] == _VERSION:
                return {
                    id_: Remembered(str(entry["owner"]), datetime.fromisoformat(entry["free_at"]).astimezone(UTC))
                    for id_, entry in content["owned"].items()
                }
        return {}

    def _write(self, known: Mapping[str, Remembered]) -> str | None:
        owned = {id_: {"owner": entry.owner, "free_at": entry.free_at.isoformat()} for id_, entry in known.items()}
        partial = self.file.with_suffix(f".{os.getpid()}.partial")  # two reapers may share the folder
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            partial.write_text(json.dumps({"version": _VERSION, "owned": owned}), encoding="utf-8")
            partial.replace(self.file)
        except OSError as error:
            return f"what is owned cannot be remembered in {self.file}: {error.strerror}"
        return None
