"""The socket proxy's rules, from the list of the calls that reaper makes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from reaper.providers.docker.calls import CALLS, EngineCall

SOCKET, PORT = "/var/run/docker.sock", 2375
BODY_WITHIN = 10  # seconds
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
    return _head(bind, settings) + "\n" + "".join(map(_rule, CALLS)) + TAIL


def _is(call: EngineCall) -> str:
    return f"{{ method {call.method} }} {{ url -m reg '^{call.pattern}$' }}"


def _rule(call: EngineCall) -> str:
    if call.setting:  # logs may hold secrets: closed unless the operator uncomments the rule
        return f"    # {call.why}: uncomment it for {call.setting}\n    # http-request allow if {_is(call)}\n"
    if not call.body:
        return f"    # {call.why}\n    http-request allow if {_is(call)}\n"
    wait = f"    http-request wait-for-body time {BODY_WITHIN}s if {_is(call)}\n"
    return f"    # {call.why}\n{wait}    http-request allow if {_is(call)} {{ req.body -m reg '^{call.body}$' }}\n"


def _head(bind: str, settings: Sequence[str]) -> str:
    bodies = "".join(f" !{{ url -m reg '^{call.pattern}$' }}" for call in CALLS if call.body)
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
    # A client that disconnects cancels its request. (A stop goes on all the same, in the engine.)
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
    # One of the calls has a body, which is read below, and none becomes another protocol.
    http-request deny if {{ req.hdr(transfer-encoding) -m found }}
    http-request deny if {{ req.hdr_val(content-length) gt 0 }}{bodies}
    http-request deny if {{ req.hdr(upgrade) -m found }}
"""


FILES: Mapping[Path, Callable[[], str]] = {Path("deploy/compose/haproxy.cfg"): config}
