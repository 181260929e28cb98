"""Daytona's second platform: another API, with sandboxes of its own, that takes the same API keys.

An organisation moves there sandbox by sandbox, and what it has there is in no answer of the first platform. So the second
one is asked whether the key's project has any; this program neither judges nor deletes them.
"""

import asyncio
import math

from reaper.errors import CallTimeoutError, CredentialsError, DeniedError, UnreadableError
from reaper.providers.daytona.http import READ, Api
from reaper.providers.daytona.settings import DaytonaTable
from reaper.providers.parsing import text

WITHIN = 5.0  # seconds for an answer: a firewall may drop what goes there, and the sweep is done without it
FRESH = 600.0  # seconds for which an answer counts
_ENDED = frozenset({"deleting", "deleted"})


class SecondPlatform:
    """Whether an organisation has sandboxes there.

    Args:
        organisation: its table. Its ``v2_api_url`` is known.
        key: its API key.
    """

    def __init__(self, organisation: DaytonaTable, key: str) -> None:
        self._api = Api(organisation.model_copy(update={"api_url": organisation.v2_api_url}), key, {}, is_second=True)
        self._name = organisation.name
        self._found: str | None = None
        self._until = -math.inf

    async def look(self) -> str | None:
        """What it has there, as a sentence; None where the key sees nothing. Raises ProviderError where that is unknown."""
        now = asyncio.get_running_loop().time()
        if now >= self._until:
            try:
                self._found, self._until = await self._ask(), now + FRESH
            except (CredentialsError, DeniedError):  # the key is not known there; wrong keys are counted, so never again
                self._found, self._until = None, math.inf
        return self._found

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def _ask(self) -> str | None:
        url = self._api.url
        try:
            async with asyncio.timeout(WITHIN):
                page, _ = await self._api.request("GET", "sandboxes", READ, {"limit": "50"})
        except TimeoutError:
            raise CallTimeoutError(f"{url} did not answer GET /sandboxes within {WITHIN:g} s") from None
        rows = page.get("sandboxes") if isinstance(page, dict) else None
        if not isinstance(rows, list):
            raise UnreadableError(f"the answer of {url} to GET /sandboxes has no sandboxes")
        row = next((row for row in rows if not isinstance(row, dict) or row.get("status") not in _ENDED), None)
        if row is None:
            return None
        named = row if isinstance(row, dict) else {}
        example = f"{text(named.get('name')) or text(named.get('id')) or 'one'} ({text(named.get('status')) or 'unknown'})"
        return (
            f"the organisation has sandboxes on Daytona's second platform, {url}, which reaper does not speak, for example"
            f' {example}. Delete there what leaked; where they are meant to be there, set v2_api_url = "" in [[daytona]]'
        )
