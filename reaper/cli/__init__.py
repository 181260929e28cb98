"""The command line: arguments in, exit code out. Nothing else parses argv.

Only the standard library is imported here, and of it little: ``reaper --version`` is asked often.
"""

import argparse
import gc
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress

from reaper import __version__, exits, unsupported
from reaper.cli import channels
from reaper.cli.usage import Parser, check_fit, misplaced

_EPILOG = """exit codes:
  0  done, nothing failed                    4  the deletion cap was hit, nothing was deleted there
  1  a bug in this program                   5  an endpoint could not be listed
  2  usage or configuration                  6  check: reapable resources are left
  3  some deletions failed                   129, 130, 143  interrupted; what was done is reported
"""
_WHY_HELP = """
reaper: without a command this would be the service, which deletes, and there is no configuration file: it is not started
  by accident. See what one sweep would delete: reaper --once --dry-run. Write a configuration: reaper init.
  Run the service: reaper --config FILE
"""


def _file(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--config", metavar="FILE", help="the TOML file (else $REAPER_CONFIG, ./reaper.toml, /etc/reaper/)")


def _common(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("configuration and output")
    _file(group)
    group.add_argument("--json", action="store_true", help="one JSON document on stdout")
    _logging(
        group,
        "default: console on a terminal, else json",
        "default: info; warning on a terminal, where the table says the rest",
    )


def _logging(group: argparse._ArgumentGroup, form: str, level: str) -> None:
    group.add_argument("--log-format", choices=("console", "json"), help=form)
    group.add_argument("--log-level", choices=("debug", "info", "warning", "error"), help=level)


def _selection(parser: argparse.ArgumentParser, timeout: str = "for the whole command (default 10m)") -> None:
    group = parser.add_argument_group("what to look at")
    group.add_argument("--only", metavar="WHICH", action="append", help="docker, daytona or an endpoint's name (repeatable)")
    group.add_argument("--timeout", metavar="DURATION", help=timeout)
    group.add_argument("--policy", metavar="NAME", action="append", help="act for this policy only (repeatable)")
    group.add_argument(
        "--aggressive", action="store_true", help="the configured policies, with stopped_for 0 and older_than at most 8h"
    )
    group = parser.add_argument_group("one-off policies, in place of the configured ones; several are ORed")
    group.add_argument("--stopped", action="store_true", help="everything owned that is stopped or failed")
    group.add_argument("--older-than", metavar="AGE", help="everything owned and older, for example 24h")
    group.add_argument(
        "--all", action="store_true", help="every owned resource regardless of age; unsafe while a run is active"
    )
    group = parser.add_argument_group("filters: nothing else is deleted")
    group.add_argument("--label", metavar="K[=V]", action="append", help="with this label (repeatable, ANDed)")
    group.add_argument("--name", metavar="GLOB", action="append", help="with such a name (repeatable, ORed)")
    group.add_argument("--image", metavar="GLOB", action="append", help="of such an image (repeatable, ORed)")


def _kind(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("kinds")
    group.add_argument(
        "--kind",
        metavar="KIND",
        action="append",
        help="these alone, whether a policy names them or not: container, sandbox, network, volume, image, build-cache"
        " (repeatable)",
    )


def _view(parser: argparse.ArgumentParser, *, rows: bool = True, unowned: bool = False) -> None:
    group = parser.add_argument_group("what to show; repeated ones are ORed, different ones ANDed")
    group.add_argument("--verdict", choices=("reap", "keep"), action="append", help="of this verdict (repeatable)")
    group.add_argument("--state", metavar="STATE", action="append", help="in this raw or normalised state (repeatable)")
    group.add_argument(
        "--owner", metavar="GLOB", action="append", help='owned so, as the column says; "-" for what is not (repeatable)'
    )
    if unowned:
        text = "what nothing owns alone, with the preset that would own it"
        group.add_argument("--unowned", action="store_true", help=text)
    if rows:
        sorts = ("verdict", "name", "kind", "owner", "state", "age")
        group.add_argument("--sort", choices=sorts, help="by this; the oldest first")
        group.add_argument("--limit", metavar="N|none", help="so many rows at most, of all endpoints together")
        names = "verdict, endpoint, kind, name, id, owner, state, age, image, project, policy, preset, reason"
        group.add_argument("--columns", metavar="NAME,...", help=f"these columns: {names}")


def _acting(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("sweeping, with --once")
    group.add_argument("--once", action="store_true", help="one sweep of every policy, then exit")
    group.add_argument("--dry-run", action="store_true", help="say what would be deleted; delete nothing")
    group.add_argument("--fail-fast", action="store_true", help="stop at the first failure")
    group.add_argument("--max-deletions", metavar="N|P%|none", help="refuse to delete more than this on one endpoint")
    group.add_argument(
        "--wait",
        action="store_true",
        help="sweep again for what is kept for a short time only, and was there at first, within --timeout (then 20m)",
    )
    group.add_argument("--metrics-textfile", metavar="FILE", help="write the metrics there, for node_exporter: NAME.prom")


def _running(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("running a command; the options below are for the sweep before it")
    group.add_argument("--skip-cleanup", action="store_true", default=False, help="no sweep before it")
    group.add_argument(
        "--strict",
        action="store_true",
        default=False,
        help="do not run it when that sweep does not end well (3, 4, 5); exit 3 when something it left cannot be removed",
    )
    group.add_argument(
        "--own",
        metavar="SELECTOR",
        action="append",
        default=None,
        help="what else is the run's: label=K[=V], name=GLOB, image=GLOB, project=NAME; with commas ANDed, repeated ORed",
    )
    group.add_argument(
        "--no-proxy", action="store_true", default=False, help="leave DOCKER_HOST alone: nothing is labelled by itself"
    )
    group.add_argument(
        "--max-age",
        metavar="DURATION",
        default=None,
        help="its lease ends after so long although it runs on, for example 24h (default: max_age of [leases], else never)",
    )
    group.add_argument("--max-deletions", metavar="N|P%|none", help="refuse to delete more than this on one endpoint")
    group.add_argument("--fail-fast", action="store_true", help="stop that sweep at the first failure")


def _history(parser: argparse.ArgumentParser) -> None:
    """Its options; each that names something may be repeated, and finds what any of them names."""
    group = parser.add_argument_group("which deletions; --endpoint, --policy, --outcome and --name may be repeated")
    group.add_argument("--since", metavar="WHEN", help="24h (ago), 2026-11-21 or 2026-11-21T06:00:00Z; UTC without a zone")
    group.add_argument("--until", metavar="WHEN", help="likewise")
    group.add_argument("--endpoint", metavar="NAME", action="append", help="on this endpoint")
    group.add_argument("--policy", metavar="NAME", action="append", help="by this policy; a one-off one is --policy=--all")
    group.add_argument("--outcome", metavar="OUTCOME", action="append", help="deleted, failed, pending, ...")
    group.add_argument("--name", metavar="GLOB", action="append", help="of resources with such a name")
    group.add_argument("--limit", metavar="N|none", help="how many at most (default 100)")
    group.add_argument(
        "--summary", action="store_true", help="what they were worth, by endpoint, owner and policy, in place of each one"
    )
    group.add_argument("--show", metavar="ID", help="what was saved of one, named by its id or name, before its deletion")
    _file(group)
    group.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(since=None, until=None, endpoint=None, outcome=None, limit=None, summary=False, show=None)


def _init(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", metavar="FILE", default=None, help="the file, which must not exist (default: reaper.toml); - for stdout"
    )
    group = parser.add_argument_group("what to look at")
    group.add_argument("--only", metavar="WHICH", action="append", help="docker or daytona (repeatable)")
    group.add_argument("--timeout", metavar="DURATION", help="for the whole command (default 10m)")
    group = parser.add_argument_group("output")
    _logging(group, "default: console on a terminal, else json", "default: info; warning on a terminal")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = Parser(
        prog="reaper",
        description="Deletes the containers and sandboxes that benchmark runs leave behind, and nothing that is alive.\n"
        "Without a command and without --once it runs as a service: on schedules, until a signal ends it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"reaper {__version__}")
    _acting(parser)
    _selection(parser)
    _common(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", parser_class=Parser)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        # What is not given behind the command keeps what was given before it.
        suppress = argparse.SUPPRESS
        return commands.add_parser(name, help=text, description=text, allow_abbrev=False, argument_default=suppress)

    for name, text in (
        ("list", "everything the endpoints hold: owner, state, age, verdict"),
        ("check", "exit 6 if anything reapable is left; with --all, if anything owned and unleased is left"),
    ):
        sub = command(name, text)
        _selection(sub)
        _kind(sub)
        _view(sub, unowned=name == "list")
        _common(sub)
    sub = command("explain", "why a resource is kept or reaped: every rule, in order")
    sub.add_argument(
        "resource", metavar="RESOURCE", help="a name, or the beginning of an id; ENDPOINT/NAME where it is not unique"
    )
    _selection(sub)
    _kind(sub)
    _view(sub, rows=False)
    _common(sub)
    sub = command("run", "sweep, run a command under a lease, and delete what it left; exits as the command did")
    sub.usage = "reaper run [options] -- COMMAND [ARGUMENT ...]"
    _running(sub)
    _selection(sub, "for each of the sweeps before and after it (default 10m)")
    group = sub.add_argument_group("configuration and output, which goes to stderr")
    _file(group)
    _logging(group, "default: console", "a line for each step as well; default: the reports alone")
    _init(command("init", "write a reaper.toml for the endpoints and runners that are found; deletes nothing"))
    sub = command("history", "what was deleted, when and why, from the journal: the newest first")
    _history(sub)
    sub = command("leases", "which leases keep something, whose they are, and an end for one whose holder hangs")
    actions = ("list", "show", "end")
    sub.add_argument("action", choices=actions, metavar="|".join(actions), help="all of them, one, or an end for one")
    sub.add_argument("lease", metavar="ID", nargs="?", default=None, help="of show and end: the lease")
    sub.add_argument("--ended", action="store_true", default=False, help="list those that have ended, too")
    sub.add_argument("--reason", metavar="TEXT", default=None, help="of end: why, for the record")
    sub.add_argument("--yes", action="store_true", default=False, help="of end: do not ask for a confirmation")
    sub.add_argument("--json", action="store_true", help="one JSON document on stdout")
    sub = command("demo", "the whole thing against the built-in simulator: no Docker, no account, no network")
    sub.add_argument("--seed", type=int, default=7, help="the same seed makes the same world (default 7)")
    sub = command(
        "ryuk", "what Testcontainers' libraries start as Ryuk: deletes what a session made when its client is gone"
    )
    group = sub.add_argument_group("output")
    _logging(group, "default: console on a terminal, else json", "default: info, with RYUK_VERBOSE=true debug")
    command("simulate", "a Docker engine and a Daytona server to test policies with; prints what to export")
    sub = command("config", "check or show the configuration, or print its JSON schema or an example with every key")
    sub.add_argument("action", choices=("check", "show", "schema", "example"), metavar="check|show|schema|example")
    sub.add_argument(
        "--offline", action="store_true", default=False, help="with check: name missing secrets and files, and go on without"
    )
    _common(sub)
    sub = command("completion", 'print a script that completes commands and options: eval "$(reaper completion bash)"')
    sub.add_argument("shell", choices=("bash", "zsh", "tcsh"), metavar="bash|zsh|tcsh", help="the shell that reads it")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    try:
        return _main(argv)
    except KeyboardInterrupt:  # also while it imports, which takes half a second
        return exits.OF_SIGNAL["SIGINT"]


def _main(argv: Sequence[str] | None) -> int:
    channels.settle()
    argv = sys.argv[1:] if argv is None else argv
    # argparse before Python 3.13 takes the two dashes for its own, and the value for an empty list.
    if (bare := next((word for word in _command_to_run(argv)[0] if re.fullmatch("--[a-z-]+=--", word)), None)) is not None:
        build_parser().error(f"argument {bare.removesuffix('=--')}: expected one argument")
    if argv and argv[0] == "simulate":
        from reaper.simulator.__main__ import main as simulate  # noqa: PLC0415 - a server, with options of its own

        return simulate(argv[1:])
    parser = build_parser()
    argv, words = _command_to_run(argv)
    arguments, rest = parser.parse_known_args(argv)
    if rest and arguments.command == "run" and not words and not rest[0].startswith("-"):
        parser.error(f"the command to run stands behind --: reaper run [options] -- {' '.join(rest)}")
    if rest:
        parser.error(misplaced(parser, rest[0], arguments.command) or f"unrecognized arguments: {' '.join(rest)}")
    if why := unsupported():
        parser.error(why)
    arguments.argv = list(argv)
    if arguments.command == "run":
        if not words:
            parser.error("run needs a command: reaper run [options] -- COMMAND [ARGUMENT ...]")
        arguments.words = words
    if arguments.command is None and not arguments.once and (code := _no_service(arguments)) is not None:
        return code
    check_fit(parser, arguments)
    gc.disable()  # while modules are imported, which all stay
    if arguments.command == "completion":
        from reaper.cli.completion import run  # noqa: PLC0415 - a shell may ask for it whenever it starts
    else:
        from reaper.cli.commands import run  # noqa: PLC0415 - everything that costs time is imported by this

    # A listing makes tens of thousands of objects that all stay: walking them again and again took an eighth of the time.
    gc.freeze()
    gc.set_threshold(20_000, 50, 20)
    gc.enable()
    code = run(arguments)
    gc.freeze()  # the process ends, and would look for what it may free among all that it has
    sys.stdout.flush()
    if (problem := channels.problem(sys.stdout)) is not None and not isinstance(problem, BrokenPipeError):
        sys.stderr.write(f"reaper: what was to be printed is lost: {problem.strerror}\n")
    return code


def _command_to_run(argv: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Our arguments, and what stands behind ``run ... --``: those are not ours to read."""
    if "run" in argv and "--" in argv[argv.index("run") :]:
        cut = argv.index("--", argv.index("run"))
        return argv[:cut], argv[cut + 1 :]
    return argv, ()


_OF_ONCE = (
    *("dry_run", "fail_fast", "max_deletions", "metrics_textfile", "stopped", "older_than", "all", "aggressive", "policy"),
    *("label", "name", "image", "timeout", "json", "wait"),
)


def _no_service(arguments: argparse.Namespace) -> int | None:
    """The exit code when the service must not start: a deleting service is not started by accident; else None."""
    if given := [name.replace("_", "-") for name in _OF_ONCE if getattr(arguments, name)]:
        sys.stderr.write(f"reaper: --{given[0]} needs --once\n  try: reaper --once {' '.join(arguments.argv)}\n")
        return exits.USAGE
    if arguments.config is None and sys.stdin is not None and sys.stdin.isatty():
        from reaper.config.load import find_file  # noqa: PLC0415
        from reaper.errors import ConfigError  # noqa: PLC0415

        with suppress(ConfigError):  # a named file that is missing is reported when the service starts
            if find_file(None, os.environ) is None:
                build_parser().print_help(sys.stderr)
                sys.stderr.write(_WHY_HELP)
                return exits.USAGE
    return None
