"""The `filters` of the Engine's API: parsing them and matching labels."""

import json
import re
from collections.abc import Collection, Mapping, Sequence

from reaper.simulator.docker.model import RefusedError


class Filters:
    """Filters as a client sent them: a JSON object of lists, or (as older clients and the CLI do) of objects.

    Args:
        text: the query parameter, or None.
        accepted: the names that this endpoint accepts; None accepts all. Raises RefusedError for another.
    """

    def __init__(self, text: str | None, accepted: Collection[str] | None = None) -> None:
        self._fields: dict[str, list[str]] = {}
        if text:
            self._fields = _parse(text)
        for name in self._fields:
            if accepted is not None and name not in accepted:
                raise RefusedError(400, f"Invalid filter '{name}'")

    def __contains__(self, name: str) -> bool:
        return bool(self._fields.get(name))

    def get(self, name: str) -> Sequence[str]:
        """The values of one filter."""
        return self._fields.get(name, ())

    def match(self, name: str, source: str) -> bool:
        """Whether `source` equals a value or one is found in it as a regular expression; true without such a filter."""
        values = self.get(name)
        return not values or source in values or any(_found(value, source) for value in values)

    def labels(self, labels: Mapping[str, str] | None) -> bool:
        """Whether all `key` and `key=value` are there; true without such a filter."""
        return all(_has(labels or {}, wanted) for wanted in self.get("label"))


def _found(pattern: str, source: str) -> bool:
    try:
        return re.search(pattern, source) is not None
    except re.error:
        return False


def _has(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def _parse(text: str) -> dict[str, list[str]]:
    parsed = json.loads(text)
    return {
        name: [value for value, on in values.items() if on] if isinstance(values, dict) else list(values)
        for name, values in parsed.items()
    }
