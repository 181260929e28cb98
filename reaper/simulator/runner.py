"""A server whose event loop may end with it."""

import asyncio

from aiohttp import web

# Of the loop: what was accepted has a transport after the first, and is a connection of aiohttp's after the second.
_TURNS = 3


class EndingRunner(web.AppRunner):
    """Leaves no connection open: a loop that is closed afterwards would leave their sockets to the garbage collector.

    aiohttp's own leaves what is accepted while it closes the rest, of which asyncio loses some on Python 3.11, and what
    a client reads slowly or not at all.
    """

    async def cleanup(self) -> None:
        """Stop listening, serve what is under way for at most the `shutdown_timeout`, and break off the rest."""
        loop, server = asyncio.get_running_loop(), self.server
        for site in self.sites:
            listening = site._server  # noqa: SLF001 - aiohttp tells the addresses only
            if isinstance(listening, asyncio.Server):
                for listener in listening.sockets:
                    loop.remove_reader(listener.fileno())
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        # Looked up before: aiohttp forgets the transport of what it closes.
        transports = [connection.transport for connection in server.connections] if server is not None else []
        await super().cleanup()
        for transport in transports:
            if transport is not None:
                transport.abort()
        await asyncio.sleep(0)
