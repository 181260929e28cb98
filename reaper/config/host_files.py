"""Files that name engines, in two formats: an address a line (``hosts_file``), and Prometheus's JSON (``file_sd``)."""

import glob
import json
import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path

from reaper.config.trust import read_own
from reaper.errors import ConfigError
from reaper.files import check_regular

_GROUP_KEYS = frozenset({"targets", "labels"})
_SD_HINT = 'write for example [{"targets": ["10.0.0.5:2376"], "labels": {"name": "gpu-1"}}]'


@dataclass(frozen=True, slots=True)
class Host:
    """An engine that is named in such a file, and where."""

    address: str
    name: str | None
    where: str


@dataclass(frozen=True, slots=True)
class HostsFile:
    """A file with an address a line, or the files of ``file_sd``, whose name may be a glob."""

    path: Path
    is_sd: bool

    def files(self) -> list[Path]:
        """In the order of their names; hidden ones, such as those that are half written, are none."""
        if not self.is_sd or not glob.has_magic(self.path.name):
            return [self.path]
        return sorted(file for file in self.path.parent.glob(self.path.name) if not file.name.startswith("."))

    def stamp(self) -> Hashable:
        """Differs as soon as one of the files has changed."""
        return tuple((str(file), _state(file)) for file in self.files())

    def hosts(self) -> Iterator[Host]:
        """Those that are named there. Raises ConfigError."""
        for file in self.files():
            yield from _targets(file, _text(file)) if self.is_sd else _lines(file, _text(file))


def _state(file: Path) -> Hashable:
    try:
        found = file.stat()
    except OSError as error:
        return error.errno
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode, found.st_uid


def _text(file: Path) -> str:
    hint = "name a file that this user can read"
    try:
        check_regular(file)
        return read_own(file, "utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", hint, str(file)) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"is no text in UTF-8: {error.reason}", hint, str(file)) from None


def _lines(file: Path, text: str) -> Iterator[Host]:
    for number, line in enumerate(text.splitlines(), 1):
        words = re.sub(r"(^|\s)#.*", "", line).split()
        if len(words) > 2:
            hint = 'write an address, or an address and a name: "tcp://10.0.0.5:2376 gpu-1"'
            raise ConfigError(f"it has {len(words)} words", hint, f"{file}:{number}")
        if words:
            yield Host(words[0], words[1] if len(words) > 1 else None, f"{file}:{number}")


def _targets(file: Path, text: str) -> Iterator[Host]:
    """The hosts of a list of ``{"targets": [...], "labels": {...}}``; of the labels, "name" is the endpoint's."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        why = error.msg if isinstance(error, json.JSONDecodeError) else "it is nested too deeply"
        raise ConfigError(f"is not JSON: {why}", _SD_HINT, f"{file}{line}") from None
    if not isinstance(document, list):
        raise ConfigError("is no list", _SD_HINT, str(file))
    seen = 0
    for number, group in enumerate(document, 1):
        if (problem := _problem(group)) is not None:
            raise ConfigError(f"entry {number} {problem}", _SD_HINT, str(file))
        for target in group.get("targets") or ():
            at = text.find(json.dumps(target, ensure_ascii=False), seen)
            seen = max(at, seen)
            where = f"{file}:{text.count(chr(10), 0, at) + 1}" if at >= 0 else str(file)
            yield Host(target, (group.get("labels") or {}).get("name"), where)


def _problem(group: object) -> str | None:
    if not isinstance(group, dict):
        return "is no object"
    if unknown := group.keys() - _GROUP_KEYS:
        return f"has the unknown key {min(unknown)!r}"
    targets, labels = group.get("targets"), group.get("labels")
    if not isinstance(targets, list | None) or not all(isinstance(target, str) for target in targets or ()):
        return "has targets that are no list of texts"
    if not isinstance(labels, dict | None) or not all(isinstance(value, str) for value in (labels or {}).values()):
        return "has labels that are no texts"
    return None
