"""What each command does: settings and arguments in, printed results and an exit code out."""

import os
import sys
from argparse import Namespace

from reaper import config, exits, sweeping
from reaper.credentials import api_key, lease_token, ryuk_secret
from reaper.errors import ConfigError
from reaper.plan import check_files


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
        told = " ".join(f"{type(error).__name__}: {error}".split())
        sys.stderr.write(f"reaper: this is a bug, please report it with --log-level debug: {told}\n")
        return exits.BUG


def _run(arguments: Namespace) -> int:
    own = {"config": _config, "demo": _demo, "history": _history, "run": _run_command, "ryuk": _ryuk}
    if arguments.command in own:
        return own[arguments.command](arguments)
    if arguments.command is None and not arguments.once:
        from reaper import service  # noqa: PLC0415 - it has a server in it, and a scheduler

        return service.run(arguments, lambda: sweeping.log_of(arguments))
    return sweeping.run(arguments)


def _demo(arguments: Namespace) -> int:
    from reaper import demo  # noqa: PLC0415 - it has a server in it

    return demo.run(arguments.seed, arguments.log_level)


def _history(arguments: Namespace) -> int:
    from reaper import history  # noqa: PLC0415 - it needs SQLite

    return history.run(arguments)


def _run_command(arguments: Namespace) -> int:
    from reaper import running  # noqa: PLC0415 - it has clients in it

    log = sweeping.log_of(arguments) if arguments.log_level is not None else None
    return running.run(arguments, sweeping.run, log)


def _ryuk(arguments: Namespace) -> int:
    from reaper import ryukrun  # noqa: PLC0415 - it has a server in it, and SQLite

    return ryukrun.run(os.environ, lambda level: sweeping.log_of(arguments, level))


def _config(arguments: Namespace) -> int:
    from reaper import configcheck, showconfig  # noqa: PLC0415 - only this command needs them

    if arguments.action == "schema":
        print(showconfig.schema())
        return 0
    if arguments.action == "example":
        sys.stdout.write(showconfig.example())
        return 0
    loaded = config.load(arguments.config)
    if arguments.action == "check":
        engines = config.engines(loaded.settings, os.environ)
        organisations = config.organisations(loaded.settings, os.environ)
        check_files(engines, organisations)
        for organisation in organisations:
            api_key(organisation, os.environ)
        lease_token(loaded.settings.leases, os.environ)
        ryuk_secret(loaded.settings.ryuk, os.environ)
        print("\n".join(configcheck.described(loaded, engines, organisations, os.environ)))
        return 0
    print(showconfig.show(loaded, as_json=arguments.json))
    return 0
