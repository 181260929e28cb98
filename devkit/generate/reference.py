"""docs/cli.md and docs/configuration.md: every option and every key, from the parser, the settings and the example file."""

import argparse
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from reaper.cli import build_parser
from reaper.cli.completion import subcommands
from reaper.config.load import TOP_LEVEL
from reaper.config.show import example, schema_document
from reaper.providers.fields import DURATION_EXAMPLES, toml_value

_KEY = re.compile(r"^(?:# )?(?P<key>[a-z_]+) = (?P<value>\"[^\"]*\"|\[[^\]]*\]|\{[^#]*\}|[^#\s]+) *(?:# ?(?P<text>.*))?$")
_TABLE = re.compile(r"^(?:# )?\[+(?P<table>[a-z]+)\]+ *(?:# ?(?P<text>.*))?$")
_MORE = re.compile(r"^(?:#)? {12,}# ?(?P<text>.*)$|^# {6,}(?:# ?)?(?P<more>\S.*)$")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def table_rows(heads: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    """The lines of a table in Markdown."""
    yield f"| {' | '.join(heads)} |"
    yield f"| {' | '.join('---' for _ in heads)} |"
    for row in rows:
        yield f"| {' | '.join(map(_cell, row))} |"


# -- the command line --------------------------------------------------------------------------------------------------


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for group in parser._action_groups:  # noqa: SLF001 - argparse tells them in no other way
        shown = [
            action
            for action in group._group_actions  # noqa: SLF001
            if not isinstance(action, argparse._SubParsersAction | argparse._HelpAction)  # noqa: SLF001
        ]
        if not shown:
            continue
        yield ""
        yield f"**{_sentence(group.title or '')}**"
        yield ""
        yield from table_rows(("option", "meaning"), ((_names(action), action.help or "") for action in shown))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _names(action: argparse.Action) -> str:
    names = ", ".join(f"`{name}`" for name in action.option_strings) or f"`{action.metavar or action.dest}`"
    value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else None)
    return f"{names} `{value}`" if value and action.option_strings else f"`{value}`" if action.choices else names


def cli() -> str:
    """docs/cli.md."""
    parser = build_parser()
    lines = [
        "# The command line",
        "",
        "*Generated from the parser by `python -m devkit.generate`.*",
        "",
        "## `reaper`",
        "",
        parser.description or "",
        *_options(parser),
    ]
    for name, sub in subcommands(parser).items():
        lines += ["", f"## `reaper {name}`", "", f"{_sentence(sub.description or '').rstrip('.')}.", *_options(sub)]
    return "\n".join(lines) + "\n"


# -- the configuration -------------------------------------------------------------------------------------------------


def _comments() -> tuple[dict[str, str], dict[tuple[str, str], str]]:
    """What the example file says of each table, and of each key of a table."""
    tables: dict[str, str] = {}
    keys: dict[tuple[str, str], str] = {}
    table, last, said = "", None, False
    for line in example().splitlines():
        if found := _TABLE.match(line):
            table, last, said = found["table"], None, True
            tables.setdefault(table, found["text"] or "")
        elif found := _KEY.match(line):
            last = (table, found["key"])
            keys.setdefault(last, found["text"] or "")
            if found["text"] and not keys[last]:
                keys[last] = found["text"]
        elif (last is not None or said) and (found := _MORE.match(line)):
            more = f" {found['text'] or found['more']}"
            if last is not None:
                keys[last] += more
            else:
                tables[table] += more
            continue
        else:
            last = None
        said = bool(_TABLE.match(line))
    return tables, keys


def _type(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(choice) for choice in schema["anyOf"] if choice != {"type": "null"}))
    if "const" in schema or "$ref" in schema:
        return f'"{schema["const"]}"' if "const" in schema else "table"
    if "enum" in schema:
        return " or ".join(f'"{value}"' for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}s" if "enum" not in schema.get("items", {}) else "list of kinds"
    if schema.get("examples") == DURATION_EXAMPLES:
        return "duration"
    return {"object": "table", "boolean": "true or false", "integer": "integer", "number": "number", "string": "string"}[
        schema["type"]
    ]


def _default(schema: Mapping[str, Any]) -> str:
    if "default" not in schema:
        return "required"
    value = schema["default"]
    return "" if value is None else f"`{toml_value(value)}`"


_HEAD = """# The configuration

*Generated from the settings and from `reaper.example.toml` by `python -m devkit.generate`.*

One TOML file: `--config FILE`, else `$REAPER_CONFIG`, else `./reaper.toml`, else `/etc/reaper/reaper.toml`, else the
defaults below. `reaper init` writes one for what it finds, `reaper config example` prints a file with every key, `reaper
config check` checks yours, `reaper config show` prints what is in force and where it comes from, and `reaper config schema`
prints the JSON schema.

Every key can be overridden by an environment variable that names its place: `REAPER_RETRY__ATTEMPTS=2`, and for an entry
of a list by its name: `REAPER_POLICY__STOPPED_CONTAINERS__STOPPED_FOR=1h`. Secrets never stand in the file: name a variable
or a file. Durations have units (`ms`, `s`, `m`, `h`, `d`, `w`) and can be added up: `1d12h`. Globs know `*`, `?` and
`[abc]`. Labels are written `key`, `key=value` or `key=glob`."""


def configuration() -> str:
    """docs/configuration.md."""
    document = schema_document()
    tables, keys = _comments()
    lines = [_HEAD]
    top = ((name, entry) for name, entry in document["properties"].items() if name in TOP_LEVEL)
    lines += ["", "## Above the first table", ""]
    rows = ((f"`{name}`", _type(entry), _default(entry), keys.get(("", name), "")) for name, entry in top)
    lines += table_rows(("key", "type", "default", "meaning"), rows)
    for name, entry in document["properties"].items():
        if name in TOP_LEVEL:
            continue
        listed = entry.get("type") == "array"
        reference = (entry.get("items") or entry).get("$ref") or entry["allOf"][0]["$ref"]
        model = document["$defs"][reference.rsplit("/", 1)[1]]
        lines += [
            "",
            f"## `{'[[' if listed else '['}{name}{']]' if listed else ']'}`",
            "",
            _sentence(tables.get(name) or model["description"].partition(": ")[2].split("\n\n")[0]).rstrip(".") + ".",
            "",
        ]
        rows = (
            (f"`{key}`", _type(_resolved(schema, document)), _default(schema), keys.get((name, key), ""))
            for key, schema in model["properties"].items()
        )
        lines += table_rows(("key", "type", "default", "meaning"), iter(rows))
    return "\n".join(lines) + "\n"


def _resolved(schema: Mapping[str, Any], document: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" in schema:
        found: Mapping[str, Any] = document["$defs"][schema["$ref"].rsplit("/", 1)[1]]
        return found
    return schema


FILES: Mapping[Path, Callable[[], str]] = {Path("docs/cli.md"): cli, Path("docs/configuration.md"): configuration}
