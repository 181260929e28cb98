"""What each command does: settings and arguments in, printed results and an exit code out."""

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from datetime import UTC, datetime

from reaper import exits
from reaper.cli import sweep as sweep_command
from reaper.config import load
from reaper.config.secrets import lease_token, ryuk_secret
from reaper.errors import ConfigError, LeasesUnknownError
from reaper.observers.log import log_of
from reaper.providers.registration import EndpointSpec
from reaper.sweep.plan import checked


def run(arguments: Namespace) -> int:
    """Run the command that ``arguments`` name and return the exit code. Foreseen errors are printed, not raised."""
    try:
        return _run(arguments)
    except ConfigError as error:
        sys.stderr.write(f"reaper: {error}\n")
        return exits.USAGE
    except Exception as error:
        if arguments.log_level == "debug":
            raise
        text = " ".join(f"{type(error).__name__}: {error}".split())
        sys.stderr.write(f"reaper: internal error, please report it with the output of --log-level debug: {text}\n")
        return exits.BUG


def _run(arguments: Namespace) -> int:
    own = {"config": _config, "demo": _demo, "history": _history, "init": _init, "leases": _leases}
    own |= {"run": _run_command, "ryuk": _ryuk}
    if arguments.command in own:
        return own[arguments.command](arguments)
    if arguments.command is None and not arguments.once:
        from reaper.service import service  # noqa: PLC0415 - it has a server in it, and a scheduler

        return service.run(arguments, lambda: log_of(arguments))
    return sweep_command.run(arguments)


def _demo(arguments: Namespace) -> int:
    from reaper.simulator import demo  # noqa: PLC0415 - it has a server in it

    return demo.run(arguments.seed, arguments.log_level)


def _history(arguments: Namespace) -> int:
    from reaper.cli import history  # noqa: PLC0415 - it needs SQLite

    return history.run(arguments)


def _init(arguments: Namespace) -> int:
    from reaper.cli import init  # noqa: PLC0415 - only this command needs it

    return init.run(arguments)


def _leases(arguments: Namespace) -> int:
    from reaper.cli import leases  # noqa: PLC0415 - it needs SQLite

    try:
        return leases.run(arguments)
    except LeasesUnknownError as error:
        sys.stderr.write(f"reaper: {error}\n")
        return exits.UNLISTED


def _run_command(arguments: Namespace) -> int:
    from reaper.run import command as run_command  # noqa: PLC0415 - it has clients in it

    log = log_of(arguments) if arguments.log_level is not None else None
    return run_command.run(arguments, sweep_command.run, log)


def _ryuk(arguments: Namespace) -> int:
    from reaper.ryuk import command as ryuk_command  # noqa: PLC0415 - it has a server in it, and SQLite

    return ryuk_command.run(os.environ, lambda level: log_of(arguments, level))


def _config(arguments: Namespace) -> int:
    from reaper.config import check, show  # noqa: PLC0415 - only this command needs them

    if arguments.json and arguments.action in ("check", "example"):
        problem = f"config {arguments.action} prints text for people, and no document"
        raise ConfigError(problem, "leave it out; config show and schema have one", "--json")
    if arguments.offline and arguments.action != "check":
        raise ConfigError(f"it does not go with config {arguments.action}", "leave it out", "--offline")
    if arguments.action == "schema":
        print(show.schema())
        return 0
    if arguments.action == "example":
        sys.stdout.write(show.example())
        return 0
    loaded = load.load(arguments.config)
    if arguments.action == "check":
        problems: list[str] = []
        endpoints: Sequence[EndpointSpec]
        if arguments.offline:
            endpoints, problems = check.offline(loaded, os.environ)
        else:
            endpoints = checked(load.endpoints(loaded.settings, os.environ), os.environ)
            lease_token(loaded.settings.leases, os.environ)
            ryuk_secret(loaded.settings.ryuk, os.environ)
        print("\n".join(check.described(loaded, endpoints, os.environ, datetime.now(UTC), problems)))
        return 0
    print(show.show(loaded, as_json=arguments.json))
    return 0
