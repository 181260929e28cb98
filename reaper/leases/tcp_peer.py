"""When the machine at the other end of a TCP connection was last heard of."""

import asyncio
import errno
import socket
import struct
from contextlib import suppress
from datetime import timedelta

import anyio

_LAST_ACK = struct.Struct("@56xI")  # of struct tcp_info, see linux/tcp.h: tcpi_last_ack_recv, in milliseconds
_UNANSWERED = {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}


class TcpPeer:
    """The other end of a connection.

    The kernel gives a machine that answers no more a quarter of an hour before it breaks the connection, so the end of the
    connection proves nothing then, and the last acknowledgement does.

    Args:
        transport: the connection; one that is not TCP's is closed when its other end is gone, whose kernel is this one.
    """

    def __init__(self, transport: asyncio.BaseTransport | None) -> None:
        found = None if transport is None else transport.get_extra_info("socket")
        self._socket = found if found is not None and found.family in (socket.AF_INET, socket.AF_INET6) else None
        self._heard_at = anyio.current_time()

    def look(self) -> None:
        """Note until when it was heard of. It is asked while the connection is open: a closed one tells nothing."""
        if self._socket is not None:
            with suppress(OSError):
                raw = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_ACK.size)
                self._heard_at = anyio.current_time() - _LAST_ACK.unpack(raw)[0] / 1000

    def silent_for(self, error: BaseException | None) -> timedelta:
        """Return for how long it had not been heard of when the connection ended with ``error``; none when it ended it."""
        if self._socket is None or not isinstance(error, OSError) or error.errno not in _UNANSWERED:
            return timedelta(0)
        return timedelta(seconds=anyio.current_time() - self._heard_at)
