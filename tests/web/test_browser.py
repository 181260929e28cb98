"""The status page in a real browser: it fits, it is quiet, and it asks for nothing but itself."""

import pytest

from devkit.browser import Browser, available
from reaper.service.web import Web
from tests import needs
from tests.web.world import NOW, WORLDS

pytestmark = pytest.mark.anyio

SIZES = (360, 800, 1600)


@pytest.fixture
def browser_possible() -> None:
    """Skips the test where there is no browser, or fails it where all has to be tested."""
    reason = available()
    if reason is not None:
        needs.lacking(reason)


async def test_it_fits_every_window_and_asks_for_nothing_else(browser_possible: None) -> None:
    shown: dict[bool, str] = {}
    async with Browser() as browser:
        for name, make in WORLDS.items():
            web = Web(make(), lambda _: (b"", "text/plain"), clock=lambda: NOW)
            await web.start("127.0.0.1", 0)
            url = f"http://127.0.0.1:{web.addresses[0][1]}/"
            browser.requests.clear()
            await browser.open(url)
            await browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
            for dark in (False, True):
                for width in SIZES:
                    await browser.show(width, dark=dark)
                    wide, inner = await browser.evaluate("[document.scrollingElement.scrollWidth, innerWidth]")
                    assert inner == width
                    assert wide <= width, f"{name} at {width} px scrolls sideways: {wide}"
                shown[dark] = await browser.evaluate("getComputedStyle(document.body).backgroundColor")
            assert [request for request in browser.requests if request != url and not request.startswith("data:")] == []
            assert url in browser.requests
            assert browser.console == [], name
            await web.close()
    assert shown[False] != shown[True]
