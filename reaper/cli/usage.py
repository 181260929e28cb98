"""What is wrong with a command line, in one line, and how it is meant. Imports little, and of the standard library alone."""

import argparse
import re
from typing import Any, NoReturn

from reaper import exits

_LOOKING = ("only", "timeout", "aggressive", "stopped", "older_than", "all", "label", "image")  # not for history
_FIRST_SWEEP = (  # of reaper run; what is left at the end is deleted whatever these say
    *("stopped", "older_than", "all", "aggressive", "policy", "label", "name", "image", "max_deletions", "fail_fast"),
)
_TAKEN = {  # what these commands take, and why no more
    "completion": (("shell", "log_level"), ", which reads nothing of yours"),
    "config": (("action", "offline", "config", "json", "log_format", "log_level"), ", which looks at no endpoint"),
    "demo": (("seed", "log_level"), ", which reads nothing of yours"),
    "init": (("output", "only", "timeout", "log_format", "log_level"), ", which writes the defaults of what it finds"),
    "leases": (("action", "lease", "ended", "reason", "yes", "json", "log_level"), ", which looks at no endpoint"),
    "ryuk": (("log_format", "log_level"), ", which reads RYUK_ variables and no file"),
}
_SERVICE = ("service", "serve", "server", "daemon", "start", "stop", "restart", "reload", "status")
_IS_SERVICE = (
    "; the service is reaper without a command: reaper --config FILE. SIGTERM ends it, SIGHUP reloads it, and its page shows"
    " its state"
)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the page of usage that hides it."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - what argparse takes
        super().__init__(**options)
        # No option begins with a digit, so "-1h" is a value, and what checks it says what is wrong with that.
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and what to try, and exit."""
        meant = self._meant(message)
        self.exit(exits.USAGE, f"{self.prog}: {message}{meant}\n  try: {self.prog} --help\n")

    def _meant(self, message: str) -> str:
        """What a mistyped command or option is like, as the rest of a sentence."""
        word = message.partition("unrecognized arguments: ")[2].partition(" ")[0].partition("=")[0]
        known = _options_of(self)
        if not word and (choice := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)) is not None:
            if f"--{choice[1]}" in known:  # `reaper once`, `reaper help`
                return f"; did you mean --{choice[1]}?"
            if choice[1] in _SERVICE and message.startswith("argument COMMAND"):
                return _IS_SERVICE
            word, known = choice[1], re.findall(r"[\w-]+", choice[2])
        import difflib  # noqa: PLC0415 - only where something was mistyped

        near = difflib.get_close_matches(word, known, n=1, cutoff=0.7) if word else []
        return f"; did you mean {near[0]}?" if near else ""


def _options_of(parser: argparse.ArgumentParser) -> list[str]:
    """The options of a parser and of its commands."""
    own = [option for action in parser._actions for option in action.option_strings]  # noqa: SLF001 - as completion reads them
    return [*own, *(option for sub in _commands_of(parser).values() for option in _options_of(sub))]


def _commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))  # noqa: SLF001
    return {name: sub for action in found for name, sub in action.choices.items()}


def misplaced(parser: argparse.ArgumentParser, word: str, command: str | None) -> str | None:
    """What is wrong with an option that others than the given command have; None for one that nothing has."""
    option = word.partition("=")[0]
    own = [known for action in parser._actions for known in action.option_strings]  # noqa: SLF001
    owners = ["--once"] if option in own else []
    owners += [name for name, sub in _commands_of(parser).items() if option in _options_of(sub)]
    if not option.startswith("-") or not owners:
        return None
    of = "" if option == "--once" else f"; it is an option of {', '.join(owners)}"
    return f"{option} does not go with {command or '--once or the service'}{of}"


def check_fit(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """What was given before a command and means nothing to it is a mistake."""
    command, given = arguments.command, vars(arguments)
    if command == "simulate":  # its options are read where it stands first
        parser.error("simulate stands first and has options of its own: reaper simulate --help")
    wrong: dict[str, str] = {}
    if command in _TAKEN:
        taken, why = _TAKEN[command]
        wrong |= dict.fromkeys(given.keys() - {"command", "argv", *taken}, why)
    if command == "history":
        wrong |= dict.fromkeys(_LOOKING, ", which looks at no endpoint")
    if command == "run":
        wrong |= dict.fromkeys(("once", "dry_run", "json", "metrics_textfile", "wait"), "")
        if arguments.skip_cleanup:
            wrong |= dict.fromkeys(_FIRST_SWEEP, " --skip-cleanup, which leaves out the sweep that it is for")
    elif command is not None:
        wrong |= dict.fromkeys(("once", "dry_run", "fail_fast", "max_deletions", "metrics_textfile", "wait"), "")
    for option in given:
        if given[option] and option in wrong:
            parser.error(f"--{option.replace('_', '-')} does not go with {command}{wrong[option]}")
