"""How much one sweep of one endpoint may delete, counted before the first deletion. Pure."""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from reaper.core.identity import group_name
from reaper.core.model import CapHit, Decision, Reason, Verdict

MAX_LEASE_DELETIONS = 1000


@dataclass(frozen=True, slots=True)
class Caps:
    """More than this, and nothing of its sort is deleted. None means no limit.

    Args:
        max_deletions: of what policies and label overrides reap.
        max_fraction: likewise, of what the endpoint holds.
        max_lease_deletions: of what leases have left that ended.
    """

    max_deletions: int | None = None
    max_fraction: float | None = None
    max_lease_deletions: int | None = None

    def hold_back(self, decisions: Sequence[Decision], held: int) -> tuple[CapHit | None, frozenset[str]]:
        """What may not go.

        Leases and policies are counted by themselves: a policy that is wrong must not keep a run from cleaning up, nor a
        lease that claims too much let a policy's share grow.

        Args:
            decisions: all about one endpoint.
            held: how many resources it holds.

        Returns:
            the limit that was hit first, if one was, and the ids of all that stays for it: with a member its group stays,
            and with a user what it uses.
        """
        going = [decision for decision in decisions if decision.reap]
        ended = [decision for decision in going if _is_of_lease(decision)]
        others = [decision for decision in going if not _is_of_lease(decision)]
        hit: CapHit | None = None
        back: list[Decision] = []
        for counted, limits, of_leases in ((others, self._of_policies(held), False), (ended, self._of_leases(), True)):
            for allowed, limit in sorted(limits):
                if len(counted) > allowed:
                    hit = hit or CapHit(wanted=len(counted), allowed=allowed, held=held, limit=limit, of_leases=of_leases)
                    back += counted
                    break
        return hit, frozenset(decision.resource.id for decision in _with_what_they_need(back, going))

    def _of_policies(self, held: int) -> list[tuple[int, str]]:
        limits = []
        if self.max_deletions is not None:
            limits.append((self.max_deletions, f"max_deletions = {self.max_deletions}"))
        if self.max_fraction is not None:
            limits.append((math.floor(self.max_fraction * held), f"max_fraction = {self.max_fraction:g} of {held}"))
        return limits

    def _of_leases(self) -> list[tuple[int, str]]:
        if self.max_lease_deletions is None:
            return []
        return [(self.max_lease_deletions, f"max_lease_deletions = {self.max_lease_deletions}")]


def kept_back(decisions: Iterable[Decision], back: Collection[str]) -> list[Decision]:
    """The decisions, with what may not go as kept."""
    return [replace(one, verdict=Verdict.KEEP) if one.resource.id in back else one for one in decisions]


def stops_policies(cap: CapHit | None) -> bool:
    """Whether a cap keeps policies from going on: the one of what leases have left does not."""
    return cap is not None and not cap.of_leases


def _is_of_lease(decision: Decision) -> bool:
    """Whether an ended lease takes it, or the network of a project that it takes."""
    follows = decision.reason is Reason.GROUP_REAPED and decision.policy is None and decision.lease is not None
    return decision.reason is Reason.LEASE_ENDED or follows


def _with_what_they_need(back: Iterable[Decision], going: Sequence[Decision]) -> Collection[Decision]:
    """What is held back, and of what is to go their groups and what they use, and of these likewise."""
    found = {(decision.resource.endpoint, decision.resource.id): decision for decision in back}
    news = [*found.values()]
    while news:
        groups = {group_name(decision.resource) for decision in news} - {None}
        used = {(decision.resource.endpoint, id_) for decision in news for id_ in decision.resource.uses}
        news = []
        for decision in going:
            place = decision.resource.endpoint, decision.resource.id
            if place not in found and (place in used or group_name(decision.resource) in groups):
                found[place] = decision
                news.append(decision)
    return found.values()
