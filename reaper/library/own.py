"""The leases under which the caller itself runs: they keep nothing from it."""

import os

OWN_LEASE = "REAPER_LEASE"
held: set[str] = set()
"""Those that this process holds by ``lease``."""


def own_leases() -> frozenset[str]:
    """These, and the one that ``reaper run`` has taken for it."""
    return frozenset({*held, os.environ.get(OWN_LEASE, "")} - {""})
