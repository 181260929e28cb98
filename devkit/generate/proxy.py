"""The socket proxy's rules, from the list of the calls that reaper makes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from reaper.providers.docker.calls import CALLS

SOCKET, PORT = "/var/run/docker.sock", 2375
HARD_STOP = 5  # seconds that what is under way gets when it is told to end
REFUSED = "The socket proxy refuses this: it is none of the calls that reaper makes."
UNREACHABLE = "The socket proxy cannot reach the engine."

TAIL = f"""
    http-request deny
    default_backend engine

backend engine
    server engine {SOCKET}
"""


def config(bind: str = f":{PORT}", settings: Sequence[str] = ()) -> str:
    """The file for HAProxy.

    Args:
        bind: where it listens.
        settings: further lines of its ``global`` section.
    """
    rules = [
        f"    # {call.why}\n    http-request allow if {{ method {call.method} }} {{ url -m reg '^{call.pattern}$' }}\n"
        for call in CALLS
    ]
    return _head(bind, settings) + "\n" + "".join(rules) + TAIL


def _head(bind: str, settings: Sequence[str]) -> str:
    extra = "".join(f"    {line}\n" for line in settings)
    return f"""\
# Made by `python -m devkit.generate` from reaper/providers/docker/calls.py: change it there.
#
# HAProxy before the engine's socket: it lets through the calls that reaper makes, and nothing else. The targets are
# compared as they were sent, whole and undecoded, so nothing can be hidden in an encoding, a dot or a second slash.

global
    log stdout format raw local0
    maxconn 500
    # After SIGUSR1. (SIGTERM would not end the first process of a container.)
    hard-stop-after {HARD_STOP}s
{extra}
defaults
    mode http
    log global
    option httplog
    option dontlognull
    # What is refused or fails is logged, and nothing else.
    option dontlog-normal
    # Each request to the engine has a connection of its own: none goes to one that the engine has just closed.
    option http-server-close
    # Who hangs up takes what he asked for with him. (A stop goes on all the same: the engine sees to it.)
    option abortonclose
    option clitcpka
    # Retrying is reaper's business, and so is giving up: events are silent for hours, and a stop takes its stop_timeout.
    retries 0
    timeout connect 5s
    timeout http-request 10s
    timeout http-keep-alive 60s
    timeout client 24h
    timeout server 24h
    timeout client-fin 10s
    timeout server-fin 10s
    http-error status 403 content-type text/plain string "{REFUSED}\\n"
    http-error status 503 content-type text/plain string "{UNREACHABLE}\\n"

frontend calls
    bind {bind} proto h1
    # None of the calls has a body, and none becomes another protocol.
    http-request deny if {{ req.hdr(transfer-encoding) -m found }} || {{ req.hdr_val(content-length) gt 0 }}
    http-request deny if {{ req.hdr(upgrade) -m found }}
"""


FILES: Mapping[Path, Callable[[], str]] = {Path("deploy/compose/haproxy.cfg"): config}
