"""A headless Chromium that is driven over its debugging protocol: what a page does in a real browser, and how it looks."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from typing import Any, Self

import aiohttp

START_TIMEOUT, ANSWER_TIMEOUT = 60.0, 60.0  # seconds; a busy machine takes its time

_OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # the tests run as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--remote-debugging-port=0",
)


def available() -> str | None:
    """Why there is no browser, or None."""
    return None if _binary() else "there is no chromium (apt-get install chromium)"


def _binary() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """One page of a browser with a profile of its own. An async context manager.

    Attributes:
        requests: the addresses that the page asked for.
        console: what the page, or the browser about it, wrote on the console: refused by the policy, not found, ...
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.console: list[str] = []
        self._count = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self._session: str | None = None

    async def __aenter__(self) -> Self:
        self._profile = tempfile.TemporaryDirectory(prefix="reaper-browser-", ignore_cleanup_errors=True)
        self._process = await asyncio.create_subprocess_exec(
            str(_binary()),
            *_OPTIONS,
            f"--user-data-dir={self._profile.name}",
            "about:blank",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        self._http = aiohttp.ClientSession()
        try:
            address = await asyncio.wait_for(self._address(), START_TIMEOUT)
            self._drain = asyncio.create_task(self._read_to_the_end(), name="browser's stderr")
            self._socket = await self._http.ws_connect(address, max_msg_size=0)
            self._reader = asyncio.create_task(self._read(), name="browser's answers")
            target = await self.call("Target.createTarget", url="about:blank")
            attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
            self._session = attached["sessionId"]
            for domain in ("Page", "Network", "Log", "Runtime"):
                await self.call(f"{domain}.enable")
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in (getattr(self, "_reader", None), getattr(self, "_drain", None)):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        if (open_socket := getattr(self, "_socket", None)) is not None:
            await open_socket.close()  # the session would leave its connection to the collector, which complains
        await self._http.close()
        self._profile.cleanup()

    async def _address(self) -> str:
        assert self._process.stderr is not None
        seen = []
        async for line in self._process.stderr:
            seen.append(line.decode(errors="replace"))
            if "DevTools listening on " in seen[-1]:
                return seen[-1].split("DevTools listening on ")[1].strip()
        raise RuntimeError(f"chromium ended at once: {''.join(seen)}")

    async def _read_to_the_end(self) -> None:
        assert self._process.stderr is not None
        while await self._process.stderr.read(1 << 16):
            pass

    async def _read(self) -> None:
        async for message in self._socket:
            event = json.loads(message.data)
            if "id" in event:
                self._answers.pop(event["id"]).set_result(event)
                continue
            params = event.get("params", {})
            match event["method"]:
                case "Network.requestWillBeSent":
                    self.requests.append(params["request"]["url"])
                case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
                    self.console.append(json.dumps(params))
                case "Log.entryAdded":
                    self.console.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
                case "Page.loadEventFired":
                    self._loaded.set()

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        answer = self._answers[self._count] = asyncio.get_running_loop().create_future()
        await self._socket.send_json(message)
        event = await asyncio.wait_for(answer, ANSWER_TIMEOUT)
        if "error" in event:
            raise RuntimeError(f"{method}: {event['error']}")
        result: dict[str, Any] = event["result"]
        return result

    async def show(self, width: int, *, dark: bool, height: int = 900) -> None:
        """Make the window this wide, in pixels, and prefer a colour scheme."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def open(self, url: str) -> None:
        """Load a page, until its load event."""
        self._loaded.clear()
        await self.call("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), ANSWER_TIMEOUT)

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page; it runs whatever the page's policy says."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")
