"""``reaper init``: look at the endpoints that there are, and write a configuration for them. Nothing is deleted."""

import os
import shlex
import sys
import textwrap
from argparse import Namespace
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import anyio

from reaper.cli.sweep import DESCRIPTORS
from reaper.config import load
from reaper.core.model import EndpointReport, Report
from reaper.core.presets import PRESETS
from reaper.core.wording import counted
from reaper.descriptors import with_room
from reaper.errors import ConfigError
from reaper.observers import tables
from reaper.observers.hints import command_name
from reaper.observers.log import LogObserver, log_of, one_line
from reaper.observers.overview import by_preset
from reaper.providers.fields import masked, toml_value
from reaper.providers.registration import EndpointSpec
from reaper.session import Session
from reaper.sweep.plan import make_plan
from reaper.sweep.runner import exit_code, run_with_deadline
from reaper.sweep.sweep import Stop

DEFAULT = "reaper.toml"
_COLUMN, _WIDTH = 30, 80  # where the comments begin; columns of a line that is broken
_WHY = {
    "name": "what reports, policies and --only call it",
    "host": "where it is",
    "api_url": "where its API is",
    "v2_api_url": "where that of the second platform is",
    "api_key_env": "the variable that holds the API key",
    "target": "delete in this region (its name or id) only",
    "tls_ca": "the authority that it is trusted by",
    "tls_cert": "what it is shown, and",
    "tls_key": "the key of that",
    "tls_verify": "false: encrypted, but the engine is not authenticated",
}


def run(arguments: Namespace) -> int:
    """Write the file and say what is in it. Raises ReaperError."""
    to_stdout = arguments.output == "-"
    target = Path(arguments.output or DEFAULT)
    if not to_stdout and os.path.lexists(target):
        raise _exists(target)
    settings = load.of_environment(os.environ).settings
    presets = settings.scope.presets
    plan = make_plan(arguments, settings, os.environ)
    # What each preset would own, so that the file can name those that have left something. Nothing here can delete.
    rules = replace(plan.rules, scope=replace(plan.rules.scope, presets=tuple(PRESETS)))
    log, found = log_of(arguments), list[Report]()

    async def look(stop: Stop) -> int:
        async with Session(plan, observers=[LogObserver(log, brief=True)], log=log) as session:
            found.append(await session.sweep(rules, stop=stop))
        return exit_code(found[0])

    with with_room(DESCRIPTORS):
        code = anyio.run(lambda: run_with_deadline(look, plan.timeout))
    reached = [endpoint for endpoint in found[0].endpoints if endpoint.failure is None]
    for endpoint in found[0].endpoints:
        if endpoint.failure is not None:
            sys.stderr.write(f"reaper: {endpoint.endpoint}: could not be listed: {one_line(endpoint.failure.message)}\n")
    if not reached:
        sys.stderr.write("reaper: no endpoint answers, so there is nothing to write a configuration for\n")
        return code
    text = _file(found[0], plan.endpoints, presets)
    if to_stdout:
        sys.stdout.write(text)
        return code
    _write(target, text)
    _report(target, reached)
    return code


def _exists(target: Path) -> ConfigError:
    return ConfigError("it exists, and is not overwritten", "name another file with --output, or - for stdout", str(target))


def _write(target: Path, text: str) -> None:
    """Write the file, which must not exist; what cannot be written whole is not left behind. Raises ConfigError."""
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - it is open already
                file.write(text)
        except OSError:
            target.unlink()
            raise
    except FileExistsError:
        raise _exists(target) from None
    except OSError as error:
        problem = f"it cannot be written: {error.strerror}"
        raise ConfigError(problem, "name another file with --output", str(target)) from None


def _report(target: Path, reached: Sequence[EndpointReport]) -> None:
    held = ", ".join(f"{endpoint.endpoint} ({endpoint.held:,} resources)" for endpoint in reached)
    tables.wrapped(f"{target} is written for {held}; nothing was deleted", 2)
    meant = os.environ.get("REAPER_CONFIG", DEFAULT)
    option = "" if str(target) == meant else f"--config {shlex.quote(str(target))} "
    tables.line(f"check it:               {command_name()} {option}config check")
    tables.line(f"what would be deleted:  {command_name()} {option}--once --dry-run")


def _file(report: Report, endpoints: Sequence[EndpointSpec], presets: Sequence[str]) -> str:
    """The content of the file."""
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    lines = [
        f"# Made by `reaper init` on {day} of what it found.",
        "# What is left out has its default: `reaper config example` shows all keys.",
        "# When what is owned is garbage: `reaper config check` says it in sentences.",
        "",
        *_scope(report, presets),
    ]
    for endpoint in endpoints:
        (found,) = (one for one in report.endpoints if one.endpoint == endpoint.name)
        lines += ["", *_endpoint(endpoint, found)]
    return "\n".join(lines) + "\n"


def _scope(report: Report, presets: Sequence[str]) -> Iterator[str]:
    decisions = [d for endpoint in report.endpoints for d in endpoint.decisions]
    seen = {name: number for name, number in by_preset(decisions).items() if name in PRESETS}
    unowned = sum(decision.owner is None for decision in decisions)
    yield _explained("[scope]", "what reaper owns; nothing else is ever touched")
    if seen:
        yield _explained("presets = [", "the runners that have left something")
        for name, number in seen.items():
            yield _explained(f'  "{name}",', counted(number, "resource"))
        yield "]"
        yield from _others(seen)
    else:
        yield "# Nothing has the signs of a runner, so these are the defaults:"
        yield f"presets = {toml_value(presets)}"
        yield from _others(presets)
    yield _explained('# labels = ["team=rl"]', f"own more; {unowned:,} not owned: `reaper list --unowned`")


def _others(presets: Collection[str]) -> Iterator[str]:
    """The presets that are left out, as comments."""
    known = f"Known besides: {', '.join(name for name in PRESETS if name not in presets)}."
    yield from textwrap.wrap(known, _WIDTH, initial_indent="# ", subsequent_indent="#   ", break_on_hyphens=False)


def _endpoint(endpoint: EndpointSpec, found: EndpointReport) -> Iterator[str]:
    """The table of an endpoint, with the keys that differ from what they are by default, and those that pin it."""
    registration, table = endpoint.registration, endpoint.table
    always = table.model_dump(mode="json", include={"name", *registration.pinned})
    usual = registration.resolve(registration.table(**always), {}).model_dump(mode="json")
    keys = {key: value for key, value in table.model_dump(mode="json").items() if value != usual[key] or key in always}
    if (source := registration.secret(table)) is not None:
        keys["api_key_env"] = source.variable
    off = "# " if found.failure is not None else ""
    if found.failure is not None:
        why = f"Left out, since it could not be listed: {one_line(found.failure.message)}"
        yield from textwrap.wrap(why, _WIDTH, initial_indent="# ", subsequent_indent="#   ", break_long_words=False)
    yield _explained(f"{off}[[{registration.name}]]", f"{registration.title} at {masked(endpoint.address)}")
    for key, value in keys.items():
        yield _explained(f"{off}{key} = {toml_value(value)}", _WHY.get(key, ""))


def _explained(code: str, why: str) -> str:
    return one_line(f"{code:<{_COLUMN - 2}}  # {why}" if why else code)
