"""Asks the service of this container whether it is alive: ``python -m reaper.probe``, the health check of the image.

It needs no shell and no other program, and imports next to nothing, since it runs every few seconds for as long as the
service does. It finds the service by the settings of where it listens: by REAPER_SERVICE__LISTEN, else in the
file of REAPER_CONFIG, ./reaper.toml or /etc/reaper/reaper.toml. A file that is named with --config is out of its sight.
"""

import os
import socket
import sys

from reaper.paths import CANDIDATES, LISTEN, host_and_port, is_there

PATIENCE = 3.0  # seconds for the connection, and for each part of the answer
ENOUGH = 65536  # bytes of an answer

_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what to ask where it listens everywhere


def listens(env: dict[str, str]) -> object:
    """What the configuration says of where the service listens. Raises OSError and ValueError: no such file, no TOML."""
    if (given := env.get("REAPER_SERVICE__LISTEN")) is not None:
        return given
    file = env.get("REAPER_CONFIG") or next((path for path in CANDIDATES if is_there(path)), None)
    if file is None:
        return LISTEN
    import tomllib  # noqa: PLC0415 - costs time that is saved where a variable is set

    with open(file, "rb") as opened:  # noqa: PTH123 - pathlib costs as much as all the rest
        table = tomllib.load(opened).get("service", {})
    return table.get("listen", LISTEN) if isinstance(table, dict) else LISTEN


def ask(host: str, port: int) -> tuple[int, str]:
    """The status and the body of /healthz. Raises OSError, and ValueError for an answer that is no HTTP."""
    with socket.create_connection((_LOOPBACK.get(host, host), port), PATIENCE) as connection:
        # A service on the loopback answers to the loopback's names only.
        connection.sendall(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b""
        while len(answer) < ENOUGH and (part := connection.recv(ENOUGH)):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    protocol, status, *_ = *head.split(b" ", 2), b""
    if not protocol.startswith(b"HTTP/"):
        raise ValueError("what answers there speaks no HTTP")
    return int(status), body.decode(errors="replace")


def main() -> int:
    """0 when the service is alive, else 1, and one line that says why: Docker keeps it with the container."""
    try:
        listen = listens(dict(os.environ))
        place = host_and_port(str(listen))
        if place is None:
            sys.stdout.write("there is nothing to probe: listen is none\n")
            return 0
        status, body = ask(*place)
    except (OSError, ValueError) as error:
        sys.stdout.write(f"no answer: {error}\n")
        return 1
    sys.stdout.write(f"{status} {' '.join(body.split())}\n")
    return 0 if status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
