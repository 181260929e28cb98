"""Which sandbox is linked to which, as far as answers have shown it.

Only GET by id shows it, so an organisation of a thousand sandboxes would cost a thousand requests before one deletion. But
a link is made with the sandbox and never changes, so each is asked for once in its life: what is known is kept in a file.
"""

import hashlib
import json
from collections.abc import Container, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from reaper.core.model import Resource
from reaper.files import read_json, write_text

_VERSION = 1


class Links:
    """The known links of one organisation.

    Args:
        folder: the state directory; None keeps them in memory only. A file that cannot be used costs requests, and nothing
            else.
        identity: the organisation's address.
    """

    def __init__(self, folder: Path | None = None, identity: str = "") -> None:
        digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
        self._file = folder / f"links-{digest}.json" if folder is not None else None
        self._known: dict[str, frozenset[str]] | None = None
        self._saved = True

    @property
    def known(self) -> Mapping[str, frozenset[str]]:
        """By id of a sandbox what it is linked to: one id, or none. What is not here is not known."""
        if self._known is None:
            self._known = self._read()
        return self._known

    def learn(self, sandbox: Resource) -> None:
        """Remember the answer of a GET by id."""
        if (
            sandbox.system_container is None and self.known.get(sandbox.id) != sandbox.uses
        ):  # a pool's member is not made yet
            assert self._known is not None
            self._known[sandbox.id] = sandbox.uses
            self._saved = False

    def forget_all_but(self, ids: Container[str]) -> None:
        """Forget what is not there any more; no id is used again."""
        kept = {id_: links for id_, links in self.known.items() if id_ in ids}
        self._saved = self._saved and len(kept) == len(self.known)
        self._known = kept

    def save(self) -> None:
        """Write what has changed since it was written."""
        if self._saved or self._file is None:
            return
        linked = {id_: next(iter(links), None) for id_, links in self.known.items()}
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_text(self._file, json.dumps({"version": _VERSION, "linked": linked}))
            self._saved = True

    def _read(self) -> dict[str, frozenset[str]]:
        with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            if self._file is not None:
                content: Any = read_json(self._file, own=True)
                if content["version"] == _VERSION:
                    linked = content["linked"].items()
                    return {str(id_): frozenset((str(owner),)) if owner else frozenset() for id_, owner in linked}
        return {}
