"""``reaper run``: sweep, run a command under a lease, and take what it has left."""

import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from reaper import exits
from reaper.config import load
from reaper.config.service_tables import MINUTE
from reaper.core import durations
from reaper.core.claim_check import ClaimError, check, check_all
from reaper.core.lease import IMAGE_LABEL, Claim
from reaper.core.model import Report
from reaper.core.owner_process import OWNER_LABEL
from reaper.core.scope import LEASE_LABEL
from reaper.errors import ConfigError, LeasesUnknownError
from reaper.leases import peers
from reaper.observers import outcomes
from reaper.observers.hints import BEHIND, cap_hints
from reaper.paths import is_there
from reaper.providers.docker import upstream
from reaper.providers.docker.address import same_address, unix_path
from reaper.providers.docker.docker_host import engine_of_commands
from reaper.providers.docker.registration import REGISTRATION
from reaper.providers.docker.settings import DEFAULT_SOCKET, DockerTable
from reaper.providers.registration import EndpointSpec
from reaper.run import foreground
from reaper.run.cleanup import still_there, unwanted
from reaper.run.foreground import Inherited
from reaper.run.scratch import socket_folder
from reaper.sweep.plan import Plan, make_plan

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from reaper.run.hold import Hold

_NO_PROXY = "name an engine with DOCKER_HOST, or give --no-proxy and label what is created with $REAPER_LABEL"
_OR_NO_PROXY = ", or give --no-proxy and label what is created with $REAPER_LABEL"
CANNOT_RUN, NOT_FOUND = 126, 127  # as shells have them
_NOT_WELL = (exits.FAILED, exits.CAP, exits.UNLISTED)
_OF_TLS = ("DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_TLS")


@dataclass(frozen=True, slots=True)
class Run:
    """What is to be run, and how.

    Args:
        command: with its arguments.
        plan: of the sweep before it; its endpoints, protections and limits hold for what is left afterwards, too.
        claims: what belongs to it besides what carries the lease's label.
        dialled: the engine of its Docker commands, which the proxy connects to; None where they go to it without one.
        engine: the same where it can be reached when this process is dead: what is behind the proxy of an outer run.
        max_age: after how long its lease ends although it runs on; None for never.
        strict: whether a sweep that does not end well keeps it from running, and leftovers make it fail.
        env: the environment.
    """

    command: tuple[str, ...]
    plan: Plan
    claims: tuple[Claim, ...]
    dialled: DockerTable | None
    engine: DockerTable | None
    strict: bool
    max_age: timedelta | None
    env: Mapping[str, str] = field(repr=False)


def run(arguments: Namespace, sweep_once: Callable[[Namespace], int], log: "FilteringBoundLogger | None") -> int:
    """Do all of it and return the exit code: the command's own, unless ``--strict`` has another. Raises ConfigError.

    Where the command died of SIGINT, or that ended one of the sweeps, this process dies of it, too: a shell ends its loop
    for that only, and not for 130.

    Args:
        arguments: of the command line.
        sweep_once: makes the first sweep, prints its report to stdout, and returns its exit code.
        log: for what happens while it is cleaned up; None where the report is enough.
    """
    try:
        code = _run(arguments, sweep_once, log)
    except KeyboardInterrupt:
        code = -signal.SIGINT
    if code == -signal.SIGINT:
        sys.stdout.flush()
        foreground.die_of(signal.SIGINT)
    return foreground.exit_code(code)


def _run(arguments: Namespace, sweep_once: Callable[[Namespace], int], log: "FilteringBoundLogger | None") -> int:
    """The exit code; where it is a signal's, its number below zero."""
    once = Namespace(**{**vars(arguments), "command": None, "once": True, "argv": [*arguments.argv, *BEHIND]})
    env = dict(os.environ)
    loaded = load.load(arguments.config, env)
    plan = make_plan(once, loaded.settings, env)
    max_age = _max_age(arguments.max_age, loaded.settings.leases.max_age)
    dialled = None if arguments.no_proxy else _engine(env)
    engine = None if dialled is None else _behind(dialled)
    swept = [spec.table for spec in plan.endpoints if isinstance(spec.table, DockerTable)]
    if engine is not None and not any(same_address(known, engine) for known in swept):
        plan = replace(plan, endpoints=(*plan.endpoints, EndpointSpec(REGISTRATION, _named_apart(engine, plan))))
    wanted = Run(tuple(arguments.words), plan, claims(arguments.own or ()), dialled, engine, arguments.strict, max_age, env)
    if (
        not arguments.skip_cleanup
        and (code := _first_sweep(once, sweep_once, plan.state, strict=arguments.strict)) is not None
    ):
        return code
    try:
        return _under_a_lease(wanted, log)
    except LeasesUnknownError as error:
        _say(f"no lease can be taken, so the command was not run: {error}")
        return exits.UNLISTED


def _max_age(text: str | None, bound: timedelta | None) -> timedelta | None:
    """How old the lease may become: as the command line says, within what the configuration allows. Raises ConfigError."""
    try:
        given = None if text is None else durations.parse(text)
    except ValueError as error:
        raise ConfigError(str(error), 'write for example "24h"', "--max-age") from None
    if given is not None and given < MINUTE:
        raise ConfigError("it is at least one minute", 'write for example "24h"', "--max-age")
    return min((age for age in (given, bound) if age is not None), default=None)


def _first_sweep(arguments: Namespace, sweep_once: Callable[[Namespace], int], state: Path, *, strict: bool) -> int | None:
    """The exit code when the command must not be run; else None. stdout is the command's own."""
    if (url := peers.service_url(os.environ)).startswith("unix://"):
        from reaper.run import hold  # noqa: PLC0415 - databases and clients

        hold.await_lost(url, _say)
    else:
        from reaper.run import elsewhere  # noqa: PLC0415 - likewise

        elsewhere.release_dead(state)
    with foreground.dispositions_kept(), redirect_stdout(sys.stderr):
        code = sweep_once(arguments)
    if code in _NOT_WELL and not strict:
        _say(f"the sweep before the command ended with {code}; the command runs all the same")
        return None
    if code in _NOT_WELL:
        _say(f"the sweep before the command ended with {code}, so with --strict the command was not run")
    return -signal.SIGINT if code == exits.OF_SIGNAL["SIGINT"] else code or None


def _engine(env: Mapping[str, str]) -> DockerTable | None:
    """Return the engine that the command's own Docker commands would use; None where there is none. Raises ConfigError."""
    try:
        found = engine_of_commands(env)
    except ConfigError as error:
        raise ConfigError(error.problem, _NO_PROXY, error.where) from None
    socket = unix_path(found) if found.host == DEFAULT_SOCKET else None
    return found if socket is None or is_there(socket) else None


def _behind(dialled: DockerTable) -> DockerTable:
    """Return the engine to sweep: the one behind the proxy of an outer run, which may be killed with this one."""
    try:
        return upstream.find(dialled)
    except upstream.UpstreamError as error:
        _say(
            f"the engine behind {dialled.host}, the proxy of an outer reaper run, cannot be used directly: {error}; what is"
            " left is cleaned up through that proxy, and only while the outer run lives"
        )
        return dialled


def _named_apart(engine: DockerTable, plan: Plan) -> DockerTable:
    names = {endpoint.name for endpoint in plan.endpoints}
    name = engine.name
    while name in names:
        name += "-of-run"
    return engine.model_copy(update={"name": name})


def _under_a_lease(wanted: Run, log: "FilteringBoundLogger | None") -> int:
    with ExitStack() as stack:
        inherited = stack.enter_context(foreground.stepped_aside())
        scratch = None
        if wanted.dialled is not None:
            scratch = stack.enter_context(socket_folder("reaper-run-", wanted.env, _OR_NO_PROXY))
        hold = _take(wanted, scratch)
        labels = {"REAPER_LABEL": f"{LEASE_LABEL}={hold.id}", "REAPER_IMAGE_LABEL": f"{IMAGE_LABEL}={hold.id}"}
        env = {**wanted.env, "REAPER_LEASE": hold.id, **labels}
        with _proxy(wanted, hold.id, scratch, env):
            code, cause = _foreground(wanted.command, env, inherited, hold)
    # What the command asked for may be on its way still, but nothing more can be made through the proxy.
    report = _clean_up(hold, cause, log)
    if wanted.strict and (report is None or not _is_clean(report, hold.id)):
        return exits.FAILED
    return -signal.SIGINT if report is not None and report.interrupted == "SIGINT" else code


def _take(wanted: Run, scratch: Path | None) -> "Hold":
    """A lease: from the service, when one answers that sweeps what the run may use, else with a guard of its own.

    Raises LeasesUnknownError, and ConfigError for claims that the service does not allow.
    """
    from reaper.leases import process, sources  # noqa: PLC0415
    from reaper.run import hold as holds  # noqa: PLC0415 - databases and clients

    plan, url, other = wanted.plan, peers.service_url(wanted.env), sources.other_service(wanted.env)
    if url.startswith("unix://") and (hold := holds.served(plan, wanted.claims, url, _say, wanted.max_age)) is not None:
        return hold
    endpoints = holds.identified(plan) if wanted.claims else ()
    command = Path(wanted.command[0]).name.encode(errors="replace").decode()
    lease = process.OwnLease(plan.state, wanted.claims, command, endpoints, wanted.max_age)
    elsewhere = None if other is None else holds.held_elsewhere(plan, lease.record, other, _say)
    return holds.GuardedHold(plan, lease, scratch, _say, elsewhere)


def _foreground(command: Sequence[str], env: Mapping[str, str], inherited: Inherited, hold: "Hold") -> tuple[int, str]:
    """The exit code that the command has, or would have, or its signal below zero, and how it ended, for people."""
    try:
        returncode = foreground.run(command, env, inherited, hold.keep)
    except OSError as error:
        _say(f"{command[0]!r} cannot be run: {error.strerror}")
        code = NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_RUN
        return code, "its command could not be run"
    if returncode < 0:
        return returncode, f"its command was killed by {_name(-returncode)}"
    return returncode, f"its command ended with {returncode}"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # one of the real-time signals
        return f"signal {number}"


@contextmanager
def _proxy(wanted: Run, lease: str, scratch: Path | None, env: dict[str, str]) -> Iterator[None]:
    """Have what is created through ``DOCKER_HOST`` carry the lease's label, or recorded. Runs in a thread of its own.

    Within an outer run its proxy leaves this label alone: what the inner command makes goes with the inner lease.
    """
    if wanted.dialled is None or wanted.engine is None or scratch is None:
        yield
        return
    from anyio.from_thread import start_blocking_portal  # noqa: PLC0415

    from reaper.run.proxy import DockerProxy  # noqa: PLC0415
    from reaper.run.recorder import Recorder  # noqa: PLC0415
    from reaper.sweep.processes import label_of  # noqa: PLC0415

    socket = scratch / "docker.sock"
    recorder = Recorder(wanted.engine, lease, wanted.plan.state, _say)
    labels = {LEASE_LABEL: lease}
    with suppress(OSError):  # where it would prove nothing
        labels[OWNER_LABEL] = str(label_of(os.getpid()))
    proxy = DockerProxy(wanted.dialled, labels, _say, recorder.created)
    with start_blocking_portal() as portal:
        portal.call(recorder.begin)
        portal.call(proxy.start, socket)
        try:
            upstream.record(socket, wanted.engine)
        except OSError as error:
            _say(f"for runs inside of this one it cannot be recorded which engine this is: {error}")
        for name in _OF_TLS:  # the proxy speaks TLS where that is needed
            env.pop(name, None)
        # The context "default" is the engine of DOCKER_HOST. Harbor's streaming takes the latter with a context only.
        env |= {"DOCKER_HOST": f"unix://{socket}", "DOCKER_CONTEXT": "default"}
        try:
            yield
        finally:
            portal.call(proxy.close)
            portal.call(recorder.close)


def _clean_up(hold: "Hold", cause: str, log: "FilteringBoundLogger | None") -> Report | None:
    """Take what the run has left, and print what that was; None when it is unknown."""
    with redirect_stdout(sys.stderr):
        try:
            report = hold.clean_up(cause, log)
        except LeasesUnknownError as error:
            _say(f"what the run has left is unknown: {error}")
            return None
        except Exception as error:  # noqa: BLE001 - the command's exit code is not this program's to change
            _bug("what the run has left was not cleaned up", error, log)
            return None
        try:
            _print(report, hold.id)
        except Exception as error:  # noqa: BLE001 - likewise
            _bug("what was cleaned up cannot be shown", error, log)
    return report


def _bug(what: str, error: Exception, log: "FilteringBoundLogger | None") -> None:
    _say(f"{what}: internal error, please report it with the output of --log-level debug: {type(error).__name__}: {error}")
    if log is not None:
        log.debug("internal_error", exc_info=error)


def _print(report: Report, lease: str) -> None:
    left = still_there(report, lease)
    failed = any(endpoint.failure is not None or endpoint.cap is not None for endpoint in report.endpoints)
    if not report.results and not left and not failed:
        return
    report = replace(report, hints=tuple(cap_hints(report, ["--once"])))
    outcomes.leaked_resources(report, [decision for decision in left if not decision.reap])


def _is_clean(report: Report, lease: str) -> bool:
    """Whether nothing is left but what is kept on purpose."""
    unlisted = any(endpoint.failure is not None for endpoint in report.endpoints)
    return not (unlisted or report.interrupted or unwanted(report, lease))


def _say(text: str) -> None:
    sys.stderr.write(f"reaper run: {text}\n")


_HINT = 'write for example "label=team=rl", "name=chess-*", "image=tb__*__client" or "project=chess", several with commas'
_FIELDS = {"label": "labels", "name": "names", "image": "images", "project": "projects"}


def claims(texts: Iterable[str]) -> tuple[Claim, ...]:
    """A claim for each text: "name=chess-*" or, ANDed, "label=team=rl,name=chess-*". Raises ConfigError."""
    found = tuple(_claim(text) for text in texts)
    try:
        check_all(found, None)
    except ClaimError as error:
        raise ConfigError(str(error), _HINT, "--own") from None
    return found


def _claim(text: str) -> Claim:
    fields: dict[str, list[str]] = {field: [] for field in _FIELDS.values()}
    for part in text.split(","):
        word, equals, value = part.strip().partition("=")
        if word not in _FIELDS or not equals or not value:
            raise ConfigError(f"{part.strip()!r} selects nothing", _HINT, "--own")
        fields[_FIELDS[word]].append(value)
    claim = Claim.of(fields)
    try:
        check(claim, None)
    except ClaimError as error:
        raise ConfigError(f"{text!r}: {error}", _HINT, "--own") from None
    return claim
