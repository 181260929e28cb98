"""Listens before anything else is done, and then becomes ``reaper``: the beginning of the image's target ryuk.

Testcontainers' library for Python connects to its Ryuk as soon as the container has started, through a proxy of Docker that
closes the connection where no process listens yet, and does not check whether it is answered. Python and what is imported
here are there within some 10 ms, what the program needs within some 500. It is run as ``python3 -I -S``, imports next to
nothing, and passes the socket on as systemd does (sd_listen_fds(3)).
"""

import _socket
import os
import sys

PORT = 8080
BACKLOG = 128
FIRST = 3  # the file descriptor


def listen(port: int) -> _socket.socket:
    """A socket on all addresses. Raises OSError."""
    try:
        found = _socket.socket(_socket.AF_INET6, _socket.SOCK_STREAM)
        found.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 0)
        address: tuple[str, int] = ("::", port)
    except OSError:  # a kernel without IPv6
        found = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        address = ("0.0.0.0", port)  # noqa: S104 - as the original does
    found.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
    found.bind(address)
    found.listen(BACKLOG)
    return found


def main() -> None:
    """Listen, if that can be done, and become ``reaper`` with the same arguments; it says what is wrong, if something is."""
    text = os.environ.get("RYUK_PORT") or str(PORT)
    try:
        os.dup2(listen(int(text)).detach(), FIRST)
        os.set_inheritable(FIRST, True)  # noqa: FBT003 - it is POSIX's call
    except (OSError, ValueError, OverflowError):
        pass
    else:
        os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
    os.execvp("reaper", ["reaper", *sys.argv[1:]])  # noqa: S606, S607 - of this image


if __name__ == "__main__":
    main()
