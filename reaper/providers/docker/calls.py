"""The calls of the Docker Engine API that this program makes: the provider sends nothing that does not stand here.

What is put before an engine to let through these and refuse the rest is made from the list: ``deploy/compose/haproxy.cfg``.
Hence its patterns are plain enough for Python and PCRE alike, and match the target of a request as it is sent, undecoded.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from reaper.errors import InvalidError

VERSION = r"(/v1\.[0-9]{1,3})?"

NAME = "[a-zA-Z0-9][a-zA-Z0-9_.-]*"  # the engine's own rule for ids and names: no slash, no "..", nothing encoded
IMAGE = "(sha256:)?[0-9a-f]{64}"
_FLAG, _NUMBER, _MOMENT = "[01]", "[0-9]{1,9}", r"[0-9]{1,12}(\.[0-9]{1,9})?"
_JSON = "[^&;]*"  # in engines before 23 a semicolon begins another parameter


@dataclass(frozen=True)
class EngineCall:
    """One call.

    Args:
        method: in capitals.
        path: without the version; ``{id}`` stands for the id of a container or network, or the name of a volume, and
            ``{image}`` for the id of an image: never for its name.
        why: what it is for.
        params: what its query may hold, and nothing else: name to pattern of the value.
        body: the pattern of its whole body; empty where it has none.
        setting: what in the configuration turns it on; empty for what is made in any case.
    """

    method: str
    path: str
    why: str
    params: Mapping[str, str]
    body: str = ""
    setting: str = ""

    @cached_property
    def pattern(self) -> str:
        """What a whole target, with version and query, has to match."""
        path = VERSION + self.path.replace("{id}", NAME).replace("{image}", IMAGE)
        if not self.params:
            return path
        param = "|".join(f"{name}={value}" for name, value in self.params.items())
        return rf"{path}(\?({param})(&({param}))*)?"

    @cached_property
    def regex(self) -> re.Pattern[str]:
        """The same, compiled."""
        return re.compile(self.pattern)


CALLS = (
    EngineCall("GET", "/version", "which version of the API to speak", {}),
    EngineCall("GET", "/info", "where its data are, for policies that run under disk pressure", {}),
    # Never with size: it makes the engine measure every file system, and blocks it.
    EngineCall("GET", "/containers/json", "list containers", {"all": _FLAG, "filters": _JSON}),
    # With size only of a stopped one, whose layer alone is measured then.
    EngineCall(
        "GET", "/containers/{id}/json", "the final re-check before a deletion, and the size of its layer", {"size": "1"}
    ),
    # Never with follow, which has no end.
    EngineCall(
        "GET",
        "/containers/{id}/logs",
        "save the last lines before a deletion",
        {"stdout": _FLAG, "stderr": _FLAG, "tail": _NUMBER},
        setting="[evidence] logs",
    ),
    EngineCall("POST", "/containers/{id}/stop", "stop what a policy takes although it runs", {"t": _NUMBER}),
    EngineCall("POST", "/containers/{id}/unpause", "let a paused one stop on Podman, which refuses to stop it", {}),
    EngineCall("DELETE", "/containers/{id}", "delete, with anonymous volumes", {"v": _FLAG, "force": _FLAG}),
    # Of Podman alone, which deletes an infra container with its pod. Never with force, which stops what runs in it.
    EngineCall("GET", "/libpod/pods/json", "which containers are in one of Podman's pods", {}),
    EngineCall("GET", "/libpod/containers/{id}/json", "which containers one requires", {}),
    EngineCall("GET", "/libpod/pods/{id}/json", "the final re-check before a deletion", {}),
    EngineCall("DELETE", "/libpod/pods/{id}", "delete a pod with its infra container when nothing else is in it", {}),
    EngineCall("GET", "/libpod/images/json", "which manifest lists there are", {"all": _FLAG}),
    EngineCall("GET", "/libpod/manifests/{id}/json", "which images are parts of one", {}),
    EngineCall("GET", "/networks", "list networks", {}),
    EngineCall("GET", "/networks/{id}", "the final re-check before a deletion", {}),
    EngineCall(
        "POST",
        "/networks/{id}/disconnect",
        "free it of what a container that is gone has left on it",
        {},
        rf'\{{"Container": "{NAME}", "Force": true\}}',
    ),
    EngineCall("DELETE", "/networks/{id}", "delete a network of a reaped project, or one that a policy takes", {}),
    EngineCall("GET", "/volumes", "list the volumes of leases and policies, and which lie on others", {"filters": _JSON}),
    EngineCall("GET", "/volumes/{id}", "the final re-check before a deletion", {}),
    # Never with force, which deletes what is in use, or (of volumes) takes for deleted what its driver does not have.
    EngineCall("DELETE", "/volumes/{id}", "delete a volume that a lease has left or a policy takes", {}),
    # With all: what a build has left below an image keeps the bytes of that.
    EngineCall(
        "GET",
        "/images/json",
        "which labels came with images, the images of leases and policies",
        {"all": _FLAG, "filters": _JSON},
    ),
    EngineCall("GET", "/images/{image}/json", "which labels are an image's, and the final re-check before its deletion", {}),
    # With noprune: the untagged images below it may be in use by a build just now.
    EngineCall("DELETE", "/images/{image}", "delete an image that a lease has left or a policy takes", {"noprune": "1"}),
    # Of one type where the engine can (API 1.42): measuring everything takes it minutes.
    EngineCall("GET", "/system/df", "how large the build cache and volumes are", {"type": "build-cache|volume"}),
    # There is no other way; never with all, which takes what images share and what builds need first.
    EngineCall("POST", "/build/prune", "prune the build cache", {"filters": _JSON, "keep-storage": "[0-9]{1,18}"}),
    EngineCall(
        *("GET", "/events", "who dies, and what was used or deleted"),
        {"filters": _JSON, "since": _MOMENT, "until": _MOMENT, "stream": "false"},
    ),
)


def made(method: str, target: str) -> EngineCall | None:
    """Which of the calls a request is; None when it is none of them.

    Args:
        method: of the request.
        target: its path and query, as sent.
    """
    return next((call for call in CALLS if call.method == method and call.regex.fullmatch(target)), None)


def check(method: str, target: str) -> None:
    """Raise InvalidError for a request that is none of the calls: what is not sent does no harm."""
    if made(method, target) is None:
        raise InvalidError(f"{method} {target} is none of the calls that this program makes, and was not sent")
