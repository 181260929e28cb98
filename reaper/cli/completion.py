"""``reaper completion``: a script that completes commands, options and their values in a shell, made from the parser."""

import argparse
import sys

import shtab

from reaper.cli import build_parser
from reaper.simulator.__main__ import build_parser as build_simulate_parser

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
    commands = subcommands(parser)
    # What it runs is cut off before argparse reads the rest.
    words = commands["run"].add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    words.complete = _COMMAND  # type: ignore[attr-defined]  # where shtab looks for it
    for each in (parser, *commands.values()):
        for action in each._actions:  # noqa: SLF001 - argparse tells them in no other way
            if action.metavar == "FILE":
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    sys.stdout.write(shtab.complete(parser, arguments.shell, preamble=_FUNCTIONS.get(arguments.shell, "")) + "\n")
    return 0


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parser of each command of ``parser``, which gets the options that the simulator reads by itself."""
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))  # noqa: SLF001
    choices: dict[str, argparse.ArgumentParser] = commands.choices
    choices["simulate"] = build_simulate_parser()
    return choices
