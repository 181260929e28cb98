"""Who sent a request about leases, and what the sender may do.

Over the local socket the kernel says which user asks. There root, the service's own user and the trusted users need no
token, and a lease belongs to the user who took it. Over TCP only the token tells who asks; a lease that was taken there
belongs to no user. Without trust a client renews, holds and releases only the leases of its own user, and over TCP only
those of no user.
"""

import hmac
import os
from collections.abc import Collection
from dataclasses import dataclass

from reaper.leases.peers import Peer, user_name
from reaper.leases.record import Holder, LeaseRecord, Liveness


class RefusedError(Exception):
    """The answer to a request that is refused.

    Args:
        status: its HTTP status.
        problem: why, for people.
        headers: further headers of the answer.
    """

    def __init__(self, status: int, problem: str, **headers: str) -> None:
        super().__init__(problem)
        self.status = status
        self.headers = headers


@dataclass(frozen=True, slots=True)
class Requester:
    """The sender of a request.

    Args:
        trusted: whether everything is allowed.
        peer: over the local socket, the process; None over TCP.
    """

    trusted: bool
    peer: Peer | None = None

    @property
    def uid(self) -> int | None:
        """The user's number, where the kernel says it."""
        return None if self.peer is None else self.peer.uid

    @property
    def pid(self) -> int | None:
        """The process, where the kernel says it."""
        return None if self.peer is None else self.peer.pid

    def holder(self, said: Holder | None) -> Holder:
        """Return the holder of a new lease: as the kernel says where it can, else as ``said``. Raises RefusedError."""
        if self.peer is not None:
            command, user = "" if said is None else said.command, user_name(self.peer.uid)
            return Holder(os.uname().nodename, self.peer.pid, self.peer.started(), command, user, self.peer.uid)
        if said is None:
            raise RefusedError(400, "holder: Field required")
        return said

    def took(self, record: LeaseRecord, holder: Holder) -> bool:
        """Whether this sender took the lease; trust does not make a sender the holder of another's lease.

        Over TCP nothing tells who asks but the request itself.
        """
        if self.uid is not None or record.holder.uid is not None:
            return self.uid == record.holder.uid
        there = record.holder
        return (there.host, there.pid, there.user) == (holder.host, holder.pid, holder.user)

    def must_have_power(self, record: LeaseRecord) -> None:
        """Raise RefusedError where the sender may not end the lease in its holder's place."""
        if record.sort is not Liveness.PROCESS:  # which no client has taken
            self.must_own(record)
        elif not self.trusted:
            whose = record.holder.user or record.holder.host
            raise RefusedError(403, f"lease {record.id} is of a process of {whose}'s; only a trusted user may end it")

    def named(self, said: str) -> str:
        """Return who the sender is, for the record: as the kernel says where it can."""
        return user_name(self.peer.uid) if self.peer is not None else f"{said} over TCP"

    def must_own(self, record: LeaseRecord) -> None:
        """Raise RefusedError where the sender may not renew or release the lease."""
        owner = record.holder
        if self.trusted or owner.uid == self.uid:
            return
        if owner.uid is None:
            raise RefusedError(403, f"lease {record.id} was not taken over this socket; use the address where it was")
        if self.peer is None:
            raise RefusedError(403, f"lease {record.id} is {owner.user}'s, who took it over the local socket; use that")
        raise RefusedError(403, f"lease {record.id} is {owner.user}'s, and you are {user_name(self.peer.uid)}")


def authenticate(header: str, *, token: str | None, trusted: Collection[int], local: bool, peer: Peer | None) -> Requester:
    """Return the sender of a request. Raises RefusedError where a proof is needed and missing.

    Args:
        header: the request's ``Authorization``.
        token: what gives access to everything; None where nothing does.
        trusted: the numbers of users who need no token over the local socket.
        local: whether only this host can reach the address that the request came to.
        peer: the process at the other end of the local socket.
    """
    scheme, _, given = header.partition(" ")
    if token is not None and (given or peer is None):
        if scheme.lower() != "bearer" or not hmac.compare_digest(_bytes(given.strip()), _bytes(token)):
            wanted = "the token of [leases] is required: Authorization: Bearer TOKEN"
            raise RefusedError(401, wanted, **{"WWW-Authenticate": "Bearer"})
        return Requester(trusted=True, peer=peer)
    if peer is not None:
        return Requester(trusted=peer.uid in trusted, peer=peer)
    if not local:
        problem = "this address can be reached from elsewhere, so [leases] must have token_file or token_env"
        raise RefusedError(403, problem)
    return Requester(trusted=False)


def _bytes(text: str) -> bytes:
    """Return a header's value as it was sent, which may not be UTF-8."""
    return text.encode(errors="surrogateescape")
