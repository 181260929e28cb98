"""What is put on record of a deletion besides its outcome, and what of a build cache is to go. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Remembered:
    """What an earlier sweep knew about a resource whose own signs of ownership are gone.

    Args:
        owner: who owned it then, in the words of ``Ownership.by``.
        free_at: from when what has lost its project's containers may be taken for a leftover (aware UTC).
        created_at: of a network or a volume, when it was made: its id may be that of another one later.
        place: of a network, what distinguished its project from others of the name: see ``identity``.
        policy: under which it goes with its project in this very sweep; not remembered any longer.
    """

    owner: str
    free_at: datetime
    created_at: datetime | None = None
    place: str | None = None
    policy: str | None = None


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a resource takes up, as far as its endpoint reports it; None where it does not.

    Args:
        cpu: in CPUs.
        memory: in bytes.
        disk: in bytes.
    """

    cpu: float | None = None
    memory: int | None = None
    disk: int | None = None


UNKNOWN_FOOTPRINT = Footprint()


@dataclass(frozen=True, slots=True)
class Saving:
    """Two times of what is about to be deleted.

    Args:
        avoided: for how long it would have gone on: see ``savings.saving``.
        waited: for how long it had been garbage when that was decided; None where that is not known.
    """

    avoided: timedelta
    waited: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a deletion that took a part only has come to.

    Args:
        detail: for people.
        freed: bytes, where the endpoint says so.
    """

    detail: str
    freed: int | None = None


@dataclass(frozen=True, slots=True)
class LastLook:
    """The last inspection of a resource before anything was done to it, or at all where nothing was done.

    Args:
        at: when it was made, by the endpoint's clock.
        raw_state: what it showed.
        differs: how that differs from what was decided about, for people; None where it does not in any way that matters.
        acted: whether it was asked to stop, or its deletion was asked for, afterwards.
    """

    at: datetime
    raw_state: str
    differs: str | None = None
    acted: bool = False


@dataclass(frozen=True, slots=True)
class Prune:
    """What of a build cache is to go: what was not used for so long, until no more than so many bytes are left."""

    unused_for: timedelta | None = None
    keep: int | None = None
