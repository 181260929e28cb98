"""The notifications of Daytona's server: as much of Socket.IO as the SDK needs to be told of changed states."""

import asyncio
import json
import secrets
from collections.abc import Callable, Sequence

from aiohttp import WSMsgType, web

from reaper.simulator.clock import Clock
from reaper.simulator.daytona.model import Sandbox, as_sandbox
from reaper.simulator.daytona.state import Organisation

_PING_EVERY = 25.0  # seconds
_LOOK_EVERY = 0.2  # simulated seconds


class Gateway:
    """Tells connected clients of their organisation's changes of state.

    Args:
        find: the organisation of a key, or None.
        proxy_url: what toolboxProxyUrl shows.
    """

    def __init__(
        self,
        clock: Clock,
        organisations: Sequence[Organisation],
        find: Callable[[str], Organisation | None],
        proxy_url: Callable[[], str],
    ) -> None:
        self._clock = clock
        self._organisations = organisations
        self._find = find
        self._proxy_url = proxy_url
        self._clients: dict[web.WebSocketResponse, asyncio.Queue[str]] = {}
        self._rooms: dict[web.WebSocketResponse, Organisation] = {}
        self._look: asyncio.Task[None] | None = None

    def listen(self, organisation: Organisation) -> None:
        """Pass on the changes of this organisation from now on."""
        organisation.listeners.append(lambda row, old, new: self._tell(organisation, row, old, new))

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """One connection: an Engine.IO 4 WebSocket that speaks Socket.IO 5."""
        socket = web.WebSocketResponse()
        if not socket.can_prepare(request):
            return web.json_response({"code": 0, "message": "Transport unknown"}, status=400)
        await socket.prepare(request)
        hello = {
            "sid": secrets.token_hex(8),
            "upgrades": [],
            "pingInterval": 25000,
            "pingTimeout": 20000,
            "maxPayload": 1000000,
        }
        await socket.send_str("0" + json.dumps(hello))
        queue: asyncio.Queue[str] = asyncio.Queue()
        self._clients[socket] = queue
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._watch(), name="daytona notifications")
        sender = asyncio.create_task(self._send(socket, queue), name="daytona notifications of one client")
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT and not await self._hear(socket, message.data):
                    break
        finally:
            sender.cancel()
            self._clients.pop(socket, None)
            self._rooms.pop(socket, None)
        return socket

    async def close(self, _: web.Application) -> None:
        """End all connections."""
        if self._look is not None:
            self._look.cancel()
        for socket in list(self._clients):
            await socket.close()

    async def _hear(self, socket: web.WebSocketResponse, text: str) -> bool:
        if text.startswith("40"):
            try:
                token = json.loads(text[2:] or "{}").get("token", "")
            except (ValueError, AttributeError):
                token = ""
            organisation = self._find(token)
            if organisation is None:
                await socket.send_str('44{"message":"Unauthorized"}')
                return False
            self._rooms[socket] = organisation
            await socket.send_str("40" + json.dumps({"sid": secrets.token_hex(8)}))
        return not text.startswith(("1", "41"))

    async def _send(self, socket: web.WebSocketResponse, queue: asyncio.Queue[str]) -> None:
        while not socket.closed:
            try:
                text = await asyncio.wait_for(queue.get(), _PING_EVERY)
            except TimeoutError:
                text = "2"
            try:
                await socket.send_str(text)
            except ConnectionError:
                return

    async def _watch(self) -> None:
        """Let what is due happen while a client listens: nothing else runs in the background."""
        while self._clients:
            for organisation in set(self._rooms.values()):
                organisation.settle()
            await self._clock.sleep(_LOOK_EVERY)

    def _tell(self, organisation: Organisation, row: Sandbox, old: str, new: str) -> None:
        sockets = [socket for socket, room in self._rooms.items() if room is organisation]
        if sockets:
            body = as_sandbox(row, self._proxy_url(), newer=organisation.behaviour.newer)
            text = "42" + json.dumps(["sandbox.state.updated", {"sandbox": body, "oldState": old, "newState": new}])
            for socket in sockets:
                self._clients[socket].put_nowait(text)
