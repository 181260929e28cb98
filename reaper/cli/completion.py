"""``reaper completion``: a script that completes commands, options and their values in a shell, made from the parser."""

import argparse
import sys
from collections.abc import Iterator

import shtab

from reaper.cli import build_parser

# What is completed after `reaper run`: "--", then a command and its arguments; of many commands zsh knows the options.
# In bash the word is taken from bash itself, since shtab passes none that begins with "-".
_COMMAND = {"bash": "_reaper_command_or_file", "zsh": "_reaper_command", "tcsh": "(--)"}
_FUNCTIONS = {
    "bash": """_reaper_command_or_file() {
  local word="${COMP_WORDS[COMP_CWORD]}"
  case " ${COMP_WORDS[*]:0:COMP_CWORD} " in
    *" -- ") compgen -A command -A file -- "$word" ;;
    *" -- "*) compgen -A file -- "$word" ;;
    *) compgen -W "--" -- "$word" ;;
  esac
}""",
    "zsh": """_reaper_command() {
  if [[ $words[1] == -- ]] && (( CURRENT > 1 )); then
    shift words
    (( CURRENT -= 1 ))
    _normal
  else
    compadd -- --
  fi
}""",
}


def run(arguments: argparse.Namespace) -> int:
    """Print the script for the shell that ``arguments`` name."""
    parser = build_parser()
    for command, sub in _parsers(parser):
        for action in sub._actions:  # noqa: SLF001 - argparse tells them in no other way
            if action.metavar == "FILE":
                action.complete = shtab.FILE  # type: ignore[attr-defined]  # where shtab looks for it
        if command == "run":  # what it runs is cut off before argparse reads the rest
            action = sub.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
            action.complete = _COMMAND  # type: ignore[attr-defined]
    sys.stdout.write(shtab.complete(parser, arguments.shell, preamble=_FUNCTIONS.get(arguments.shell, "")) + "\n")
    return 0


def _parsers(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield "", parser
    for action in parser._actions:  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            yield from action.choices.items()
