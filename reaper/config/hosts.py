"""Tables that name files of engines: each engine gets a table of its own, with the other keys of the first."""

import glob
import json
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from reaper.config.host_files import Host, HostsFile
from reaper.errors import ConfigError
from reaper.providers import registry
from reaper.providers.fields import masked
from reaper.providers.registration import Registration

Key = tuple[str | int, ...]
KEYS = ("hosts_file", "file_sd")
_SHOWN = 10  # problems that one message names


@dataclass(slots=True)
class Hosts:
    """What was read of such files.

    Args:
        lines: by the name of an endpoint, the file and the line that name it.
        groups: by the name of a table that names files, its endpoints.
        sources: what was read.
        stamps: those of the sources as they were read.
    """

    lines: dict[str, str] = field(default_factory=dict)
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    sources: list[HostsFile] = field(default_factory=list)
    stamps: list[Hashable] = field(default_factory=list)

    def look(self) -> list[Hashable]:
        """The stamps as they are now: others as soon as one of the files has changed."""
        return [source.stamp() for source in self.sources]


def expand(raw: MutableMapping[str, Any], origins: MutableMapping[Key, str], folder: Path) -> Hosts:
    """Put a table for each host in place of those that name files, and where it stands in place of their origin.

    Args:
        raw: the content of the configuration.
        origins: where its values come from.
        folder: that relative paths start from.

    Raises ConfigError that names file and line.
    """
    found, problems = Hosts(), list[ConfigError]()
    for provider in registry.built_in():
        entries = raw.get(provider.name)
        if "hosts_file" in provider.table.model_fields and isinstance(entries, list) and any(map(_names_files, entries)):
            _Expansion(provider, raw, origins, folder, found, problems).run(entries)
    if problems:
        first, *others = problems[:_SHOWN]
        lines = [first.problem, *(f"{problem.where}: {problem.problem}" for problem in others)]
        lines += [f"and {more} more"] if (more := len(problems) - _SHOWN) > 0 else []
        raise ConfigError("\n  ".join(lines), "" if others else first.hint, first.where)
    if found.groups:
        _name_members(raw, found.groups)
    return found


def _names_files(entry: object) -> bool:
    """Whether the table names files, in a form that can be read; what cannot be is refused where all values are."""
    if not isinstance(entry, dict):
        return False
    file, patterns = entry.get("hosts_file"), entry.get("file_sd")
    are_lists = isinstance(patterns, list) and all(isinstance(pattern, str) for pattern in patterns)
    return (isinstance(file, str) or are_lists) and isinstance(file, str | None) and (are_lists or patterns is None)


@dataclass(slots=True)
class _Expansion:
    """Of the tables of one provider."""

    provider: Registration[Any]
    raw: MutableMapping[str, Any]
    origins: MutableMapping[Key, str]
    folder: Path
    found: Hosts
    problems: list[ConfigError]
    named: dict[str, str] = field(default_factory=dict)  # what has a name already, for people
    places: dict[Hashable, str] = field(default_factory=dict)  # and what leads to an engine

    def run(self, entries: list[Any]) -> None:
        """Replace the tables."""
        table = self.provider.name
        of_table = {key: self.origins.pop(key) for key in [key for key in self.origins if key[0] == table]}
        for provider in registry.built_in():
            tables = self.raw.get(provider.name)
            for entry in tables if isinstance(tables, list) else ():
                if isinstance(entry, dict) and isinstance(name := entry.get("name"), str):
                    self.named[name] = f"[[{provider.name}]] {name!r}"
        for entry in entries:
            if not _names_files(entry):
                self._take_place(entry, f"[[{table}]] {entry.get('name')!r}" if isinstance(entry, dict) else table)
        made: list[Any] = []
        for number, entry in enumerate(entries):
            own = {key[2:]: origin for key, origin in of_table.items() if key[1] == number}
            if not _names_files(entry):
                self.origins.update({(table, len(made), *key): origin for key, origin in own.items()})
                made.append(entry)
                continue
            for host, keys in self._members(entry, own):
                inherited = {key: origin for key, origin in own.items() if key[0] in keys}
                where: dict[Key, str] = {("host",): host.where, ("name",): host.where}
                self.origins.update({(table, len(made), *key): origin for key, origin in {**inherited, **where}.items()})
                made.append(keys)
        self.raw[table] = made

    def _members(self, entry: dict[str, Any], own: Mapping[Key, str]) -> Iterator[tuple[Host, dict[str, Any]]]:
        shared = {key: value for key, value in entry.items() if key not in (*KEYS, "name")}
        group = entry.get("name")
        label = f"[[{self.provider.name}]]" + (f" {group!r}" if group is not None else "")
        where = " and ".join(dict.fromkeys(origin for key, origin in own.items() if key[0] in KEYS))
        if "host" in shared:
            raise ConfigError(f"{label}: host and a file of hosts do not go together", "leave one of them out", where)
        sources = [self._source(entry["hosts_file"], label, where)] if entry.get("hosts_file") is not None else []
        sources += [self._source(pattern, label, where, is_sd=True) for pattern in entry.get("file_sd") or ()]
        self.found.sources += sources
        self.found.stamps += [source.stamp() for source in sources]  # what changes while they are read is read again
        names = []
        for host in (host for source in sources for host in source.hosts()):
            try:
                keys = {**shared, **self.provider.of_host(host.address, shared)}
                keys["name"] = host.name or keys["name"]
                self._claim(keys, host.where)
            except ValueError as error:
                self.problems.append(ConfigError(str(error), where=host.where))
            except ConfigError as error:
                self.problems.append(error)
            else:
                names.append(keys["name"])
                yield host, keys
        if not names and not self.problems:  # without any table the engine of the environment would be swept
            files = " and ".join(str(source.path) for source in sources) or "file_sd = []"
            raise ConfigError(f"{label}: {files}: no engine is named there", "name one, or leave the table out", where)
        if isinstance(group, str):
            self.found.groups[group] = tuple(names)

    def _source(self, text: str, label: str, where: str, *, is_sd: bool = False) -> HostsFile:
        key, problem, hint = "file_sd" if is_sd else "hosts_file", "", ""
        if not text.strip() or "\0" in text:
            problem, hint = "names no file", 'write for example hosts_file = "hosts.txt" or file_sd = ["targets/*.json"]'
        elif is_sd and not text.endswith(".json"):
            kind = "YAML" if text.endswith((".yml", ".yaml")) else "what is not called .json"
            problem, hint = f"{kind} is not read", 'write the targets as JSON, for example "targets/*.json"'
        elif is_sd and glob.has_magic(str(Path(text).parent)):
            problem, hint = "globs work in a file's name only, not in its folder", 'write for example "targets/*.json"'
        if problem:
            raise ConfigError(f"{label}: {key} = {json.dumps(text)}: {problem}", hint, where)
        return HostsFile(self.folder / text, is_sd)

    def _claim(self, keys: dict[str, Any], where: str) -> None:
        """Note the host's name and place. Raises ConfigError where another one has them."""
        if (other := self._take_place(keys, where)) is not None:
            address = masked(str(keys["host"]))
            raise ConfigError(f"{address} is the engine of {other} again", "leave one of them out", where)
        name = keys["name"]
        if (other := self.named.setdefault(name, where)) != where or name in self.found.lines:
            hint = "write another one behind the address: ADDRESS NAME, or the label name in file_sd"
            raise ConfigError(f"{masked(str(keys['host']))} has the name {name!r}, which is that of {other}", hint, where)
        self.found.lines[name] = where

    def _take_place(self, entry: object, where: str) -> str | None:
        """What leads to this engine already, if anything does."""
        try:
            place = self.provider.place(self.provider.table.model_validate(entry))
        except ValidationError:
            return None  # it is refused where all values are
        return None if (other := self.places.setdefault(place, where)) is where else other


def _name_members(raw: MutableMapping[str, Any], groups: Mapping[str, Collection[str]]) -> None:
    """Where a policy, a quota, an owner or a price names a table with files, it means each of its endpoints."""

    def members(names: Iterable[object]) -> list[object]:
        return [member for name in names for member in (groups.get(name, (name,)) if isinstance(name, str) else (name,))]

    for table in ("policy", "quota", "owner"):
        entries = raw.get(table)
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and isinstance(entry.get("endpoints"), list):
                entry["endpoints"] = members(entry["endpoints"])
    prices = raw.get("prices")
    if isinstance(prices, dict) and isinstance(of_each := prices.get("endpoints"), dict):
        spread = {member: price for name, price in of_each.items() for member in groups.get(name, ())}
        prices["endpoints"] = {**spread, **{name: price for name, price in of_each.items() if name not in groups}}
