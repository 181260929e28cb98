"""Notifications to systemd for a service of Type=notify: sd_notify(3). None without $NOTIFY_SOCKET."""

import os
import socket
import time
from collections.abc import MutableMapping


class Notifier:
    """Sends states to the socket that systemd has named.

    The variables are taken out of ``env``, so that no child process notifies for the service.
    """

    def __init__(self, env: MutableMapping[str, str]) -> None:
        self._address = env.pop("NOTIFY_SOCKET", "")
        usec, pid = env.pop("WATCHDOG_USEC", ""), env.pop("WATCHDOG_PID", "")
        mine = not pid or pid == str(os.getpid())
        self.watchdog = int(usec) / 1e6 if usec.isascii() and usec.isdigit() and mine else None
        """Seconds within which systemd expects each notification of this process, or None."""

    def ready(self) -> None:
        """It serves."""
        self._send("READY=1")

    def reloading(self) -> None:
        """It reads its configuration again; ``ready`` says when it has."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """It is on its way out."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """The watchdog may be calm."""
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """One line for ``systemctl status``."""
        self._send(f"STATUS={' '.join(text.split())}")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        # An abstract socket is written with an @ in place of the zero byte.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sender:
                sender.sendto(state.encode(), address)
        except OSError:
            pass  # systemd does not read any more, or not fast enough: the service goes on
