"""Which sandbox is linked to which, as far as answers have shown it.

Only GET by id shows it, so an organisation of a thousand sandboxes would cost a thousand requests before one deletion. But
a link is made with the sandbox and never changes, so each is asked for once in its life: what is known is kept in a file.
"""

from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from reaper.core.model import Resource
from reaper.files import EndpointFile

_VERSION = 1


class Links:
    """The known links of one organisation.

    Args:
        folder: the state directory; None keeps them in memory only. A file that cannot be used costs requests, and nothing
            else.
        identity: the organisation's address.
    """

    def __init__(self, folder: Path | None = None, identity: str = "") -> None:
        self._stored = EndpointFile(folder, "links", identity, _VERSION) if folder is not None else None
        self._known: dict[str, frozenset[str]] | None = None
        self._saved = True

    @property
    def known(self) -> Mapping[str, frozenset[str]]:
        """By id of a sandbox what it is linked to: one id, or none. What is not here is not known."""
        if self._known is None:
            self._known = (self._stored.read(_linked) if self._stored is not None else None) or {}
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
        if self._saved or self._stored is None:
            return
        linked = {id_: next(iter(links), None) for id_, links in self.known.items()}
        self._saved = self._stored.write("what is linked", {"linked": linked}) is None


def _linked(content: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    return {str(id_): frozenset((str(owner),)) if owner else frozenset() for id_, owner in content["linked"].items()}
