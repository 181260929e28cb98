"""docs/reaper.1: the manual page, from the parser."""

import argparse
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from reaper.cli import build_parser
from reaper.cli.completion import subcommands

_FILES = (
    ("./reaper.toml, /etc/reaper/reaper.toml", "the configuration, unless --config or REAPER_CONFIG names another"),
    ("/var/lib/reaper, $XDG_STATE_HOME/reaper", "the journal and the leases, of root and of others; or $STATE_DIRECTORY"),
)
_ENVIRONMENT = (
    ("REAPER_CONFIG", "the configuration file"),
    ("REAPER_TABLE__KEY", "overrides a key of the configuration, as REAPER_RETRY__ATTEMPTS does"),
    ("DOCKER_HOST, DOCKER_CONTEXT", "the engine, where the configuration names none"),
    ("DAYTONA_API_KEY", "the key of an organisation; with _FILE at the end, the path of its file"),
    (
        "REAPER_LEASE, REAPER_LABEL",
        "are set by reaper run for its command: the lease, and the label that gives something to it",
    ),
)


def _text(text: str) -> str:
    """``text`` for roff: no character of it is taken for a command or for a typographic one."""
    text = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    return re.sub(r"^([.])", r"\\&\1", text.replace("~", "\\(ti").replace("^", "\\(ha"))


def _options(parser: argparse.ArgumentParser, heading: str) -> Iterator[str]:
    for group in parser._action_groups:  # noqa: SLF001 - argparse tells them in no other way
        shown = [
            action
            for action in group._group_actions  # noqa: SLF001
            if not isinstance(action, argparse._SubParsersAction | argparse._HelpAction)  # noqa: SLF001
        ]
        if shown and group.title not in ("options", "positional arguments"):
            title = group.title or ""
            yield f"{heading} {_text(title[:1].upper() + title[1:])}"
        for action in shown:
            yield ".TP"
            yield _named(action)
            yield _text(action.help or "")


def _named(action: argparse.Action) -> str:
    value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else "")
    names = ", ".join(f"\\fB{_text(name)}\\fR" for name in action.option_strings)
    takes = action.nargs != 0 or not action.option_strings
    shown = f"\\fI{_text(str(value or action.dest.upper()))}\\fR" if takes else ""
    return " ".join(filter(None, (names, shown)))


def _pairs(pairs: Iterator[tuple[str, str]]) -> Iterator[str]:
    for name, text in pairs:
        yield from (".TP", f"\\fB{_text(name)}\\fR", _text(text))


def page() -> str:
    """The page."""
    parser = build_parser()
    commands = subcommands(parser)
    what, *more = (parser.description or "").split("\n")
    lines = [
        '.\\" Generated from the parser by python -m devkit.generate.',
        '.TH REAPER 1 "" "bench\\-reaper" "User Commands"',
        ".SH NAME",
        "reaper \\- delete the containers and sandboxes that benchmark runs leave behind",
        ".SH SYNOPSIS",
        ".B reaper",
        "[\\fIOPTION\\fR ...] [\\fICOMMAND\\fR ...]",
        ".SH DESCRIPTION",
        _text(what),
        ".PP",
        _text(" ".join(more)),
        ".SH OPTIONS",
        *_options(parser, ".SS"),
        ".SH COMMANDS",
    ]
    for name, sub in commands.items():
        lines += [f".SS reaper {name}", f"{_text(_sentence(sub.description or ''))}", *_options(sub, ".PP\n.B")]
    codes = [entry for line in (parser.epilog or "").splitlines()[1:] for entry in re.split(r" {3,}", line.strip())]
    pairs = sorted(
        (tuple(re.split(r" {2,}", entry, maxsplit=1)) for entry in codes if entry), key=lambda p: int(p[0].split(",")[0])
    )
    lines += [".SH EXIT STATUS", *_pairs((code, text) for code, text in pairs)]
    lines += [".SH ENVIRONMENT", *_pairs(iter(_ENVIRONMENT)), ".SH FILES", *_pairs(iter(_FILES))]
    lines += [".SH SEE ALSO", "\\fBdocker\\fR(1), \\fBdocker\\-system\\-prune\\fR(1)"]
    return "\n".join(lines) + "\n"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


FILES: Mapping[Path, Callable[[], str]] = {Path("docs/reaper.1"): page}
