"""What reading an organisation's sandboxes takes at least: plain aiohttp, page after page, and nothing done with them."""

import asyncio
import json
import os

import aiohttp


async def main() -> None:
    params = {"limit": "200", "sort": "createdAt", "order": "asc"}
    url = f"{os.environ['DAYTONA_API_URL']}/sandbox"
    found = 0
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {os.environ['DAYTONA_API_KEY']}"}) as session:
        while True:
            async with session.get(url, params=params) as answer:
                page = json.loads(await answer.read())
            found += len(page["items"])
            if not (cursor := page["nextCursor"]):
                break
            params["cursor"] = cursor
    print(found)


asyncio.run(main())
