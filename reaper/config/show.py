"""``reaper config show``, ``schema`` and ``example``: the settings in force, their origins, and all that can be set."""

import json
from collections.abc import Iterator, Mapping
from datetime import timedelta
from importlib.resources import files
from typing import Any

from pydantic import TypeAdapter

from reaper.config.hosts import KEYS, Key
from reaper.config.load import Config
from reaper.config.settings import Settings
from reaper.core import durations, sizes
from reaper.providers import registry
from reaper.providers.fields import DURATION_EXAMPLES, toml_value


def schema() -> str:
    """The JSON schema of the configuration file, as text."""
    return json.dumps(schema_document(), indent=2)


def schema_document() -> dict[str, Any]:
    """The JSON schema of the configuration file."""
    document = Settings.model_json_schema()
    for key in document["$defs"]["LimitsTable"]["properties"].values():  # TOML has no null: no limit is "none"
        key["anyOf"] = [{"const": "none"} if choice == {"type": "null"} else choice for choice in key["anyOf"]]
        key["default"] = "none" if key["default"] is None else key["default"]
    for model in document["$defs"].values():
        if KEYS[0] in model.get("properties", {}):  # a table that names files of hosts needs no name: each host has its own
            del model["required"]
            model["anyOf"] = [{"required": [key]} for key in ("name", *KEYS)]
        for key in model.get("properties", {}).values():
            default = key.get("default")
            if _is_duration(key) and default is not None:  # pydantic writes it in ISO 8601, which the file does not
                key["default"] = durations.spell(TypeAdapter(timedelta).validate_python(default))
            elif key.get("type") == "string" and isinstance(default, int):  # a size
                key["default"] = sizes.spell(default)
    return document


def _is_duration(schema: Mapping[str, Any]) -> bool:
    return any(choice.get("examples") == DURATION_EXAMPLES for choice in (schema, *schema.get("anyOf", ())))


def example() -> str:
    """A configuration file with every key, its default and what it means."""
    return files("reaper").joinpath("reaper.example.toml").read_text(encoding="utf-8")


def _values(config: Config) -> Iterator[tuple[Key, str, Any]]:
    """Each value with its key and the key's name in the file; lists of tables come by the name of the entry."""
    dumped = config.settings.model_dump(mode="json")
    for table, content in dumped.items():
        if not isinstance(content, dict | list):
            yield (table,), table, content
        elif isinstance(content, list):
            for i, entry in enumerate(content):
                for name, value in entry.items():
                    yield (table, i, name), f"{table}.{entry['name']}.{name}", value
        else:
            yield from _nested((table,), content)


def _nested(key: Key, content: Mapping[str, Any]) -> Iterator[tuple[Key, str, Any]]:
    """The values of a table, and of the tables in it."""
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _nested((*key, name), value)
        else:
            yield (*key, name), ".".join(map(str, (*key, name))), value


def _is_left_to_environment(key: Key) -> bool:
    """Whether a value that is not set says nothing, since the environment names what is meant."""
    return key[0] in registry.names() and key[-1] in registry.get(str(key[0])).pinned


def show(config: Config, *, as_json: bool) -> str:
    """The effective settings, one a line, each with its origin."""
    limits = config.settings.effective_limits()
    rows, lines = [], {*config.hosts.lines.values()}
    for key, name, value in _values(config):
        origin = config.origin(key)
        effective = value
        if key[0] == "limits" and getattr(limits, str(key[1])) != value:
            effective, origin = getattr(limits, str(key[1])), f"default with {config.settings.catch_all}"
        if key[0] == "limits" and effective is None:
            effective = "none"  # as it is written in the file: no limit
        of_file = len(key) > 2 and config.origin((*key[:2], "host")) in lines  # its defaults are those of its neighbours
        is_default = origin == "default"
        is_hidden = (of_file and (is_default or key[2] == "name")) or (is_default and _is_left_to_environment(key))
        if effective not in (None, []) and not is_hidden:
            rows.append((name, effective, origin))
    if as_json:
        return json.dumps([{"key": name, "value": value, "origin": origin} for name, value, origin in rows])
    width = max(len(name) for name, _, _ in rows)
    shown = [(name, toml_value(value), origin) for name, value, origin in rows]
    middle = min(48, max(len(value) for _, value, _ in shown))
    return "\n".join(f"{name:<{width}} = {value:<{middle}}  # {origin}" for name, value, origin in shown)
