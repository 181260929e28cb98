"""Which endpoint leads to which engine: one that has two names is swept under the first alone."""

import heapq

from reaper.errors import SameEndpointError
from reaper.providers.base import Inventory

SAMPLE = 16  # ids that are remembered of each


class Engines:
    """What the endpoints of one process lead to."""

    def __init__(self) -> None:
        self._by_name: dict[str, tuple[str, frozenset[str]]] = {}

    def claim(self, name: str, listed: Inventory) -> None:
        """Note what an endpoint leads to. Raises SameEndpointError where another one has led there before.

        That is proven by the engine's own mark and by what both hold: a copy of an engine has either, and not both.
        """
        self.release(name)
        if listed.engine is None:
            return
        ids = frozenset(heapq.nsmallest(SAMPLE, (resource.id for resource in listed.resources)))
        for other, (engine, known) in self._by_name.items():
            if engine == listed.engine and known & ids:
                raise SameEndpointError(f"it is the engine of endpoint {other} by another address: name it once")
        self._by_name[name] = listed.engine, ids

    def release(self, name: str) -> None:
        """The endpoint is swept no more."""
        self._by_name.pop(name, None)
