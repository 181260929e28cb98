"""Scrapes once for each line that comes in, and prints what it took: seconds and bytes. A process of its own.

python -I -S scrape.py HOST PORT        (each line that comes in is an Accept header)
"""

import http.client
import sys
from time import perf_counter


def main() -> None:
    host, port = sys.argv[1:]
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    for accept in sys.stdin:
        began = perf_counter()
        connection.request("GET", "/metrics", headers={"Accept": accept.strip()})
        answer = connection.getresponse()
        body = answer.read()
        seconds = perf_counter() - began
        if answer.status != 200:
            raise SystemExit(f"{answer.status}: {body[:200]!r}")
        print(seconds, len(body), flush=True)


if __name__ == "__main__":
    main()
