"""Asks the service over its local socket as another user of this machine."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests import needs

NOBODY, NAMELESS = 65534, 65533  # the first one has a name everywhere, the second one nowhere

_ASK = """
import http.client, json, os, socket, sys
uid, path, requests = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
os.setgroups([]), os.setgid(uid), os.setuid(uid)
answers = []
for method, target, body, headers in requests:
    connection = http.client.HTTPConnection("localhost", timeout=60)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(path)
    connection.request(method, target, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    answers.append([answer.status, json.loads(answer.read())])
    connection.close()
print(json.dumps(answers))
"""

Request = tuple[str, str] | tuple[str, str, Any] | tuple[str, str, Any, dict[str, str]]


def ask(path: Path, uid: int, *requests: Request) -> list[tuple[int, Any]]:
    """Status and document of each answer to what a process of this user asks: method, path, body, headers."""
    needs.root("only root can be other users")
    asked = [(*request, *(None, {})[len(request) - 2 :]) for request in requests]
    command = [sys.executable, "-c", _ASK, str(uid), str(path), json.dumps(asked)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    return [(status, document) for status, document in json.loads(done.stdout)]
