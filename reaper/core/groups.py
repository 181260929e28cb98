"""A group is one unit: it goes as a whole or stays as a whole, and what is in use stays. Pure."""

from collections.abc import Collection, Iterable
from dataclasses import replace

from reaper.core.conditions import Policy
from reaper.core.durations import human, shifted
from reaper.core.identity import GroupKey, GroupName, unclear_key
from reaper.core.model import Decision, Kind, Reason, Resource, Verdict
from reaper.core.rules import Judge

# Protections of a network speak for its whole project; that it is in use or unowned does not.
_SPEAKS_FOR_GROUP = frozenset(
    {
        Reason.PROTECTED,
        Reason.KEEP_LABEL,
        Reason.INVALID_LABEL,
        Reason.LABEL_NOT_DUE,
        Reason.LEASED,
        Reason.LEASE_UNKNOWN,
    }
)


def _kept_by(member: Decision) -> str:
    """Why its group is kept, in a phrase. That it is kept as a part of the group as well is no news."""
    return f"{member.resource.group_word} kept by {member.resource.name}"


class Units:
    """Makes one unit of a group: it goes as a whole or stays as a whole, and what is in use stays."""

    def __init__(self, judge: Judge, decisions: list[Decision]) -> None:
        self.judge = judge
        self.decisions = decisions
        self.members: dict[GroupKey, list[int]] = {}
        self.networks: dict[GroupKey, list[int]] = {}
        self.others: dict[GroupKey, list[int]] = {}  # volumes and images: they stay with it, and decide nothing
        self.index = {(d.resource.endpoint, d.resource.id): i for i, d in enumerate(decisions)}
        for i, decision in enumerate(decisions):
            key = judge.groups.key(decision.resource)
            if key is not None:
                kind = decision.resource.kind
                of_kind = self.members if kind.runs else self.networks if kind is Kind.NETWORK else self.others
                of_kind.setdefault(key, []).append(i)
        names: dict[GroupName, list[GroupKey]] = {}
        for key in self.members:
            names.setdefault(key[:2], []).append(key)
        self._namesakes = {name: keys for name, keys in names.items() if len(keys) > 1}

    def settle(self) -> None:
        """Apply the rules of groups and of use until nothing changes any more."""
        while self._spread_keeping() | self._keep_namesakes():
            pass
        for key, networks in self.networks.items():
            for i in networks:
                self._judge_network(i, self.members.get(key, []))
        while self._spread_keeping() | self._keep_namesakes():
            pass

    def keep_what_is_not_due(self, due: Collection[str]) -> None:
        """Keep the units none of whose matching policies is due, and what they use."""
        alone = [[i] for i, decision in enumerate(self.decisions) if decision.resource.group is None]
        grouped = [
            # Only orphaned networks speak for themselves: the others go with their project's containers.
            [*self.members.get(key, []), *self.networks.get(key, [])]
            for key in self.members.keys() | self.networks.keys()
        ]
        for unit in alone + grouped:
            reaped = [i for i in unit if self.decisions[i].reap]
            deciders = [i for i in reaped if self.decisions[i].resource.kind is not Kind.NETWORK] or reaped
            if not any(self._is_due(self.decisions[i], due) for i in deciders):
                for i in reaped:
                    phrase, sentence = f"not due: {self.decisions[i].phrase}", f"{self.decisions[i].sentence}"
                    self._turn(i, Reason.NOT_DUE, phrase, f"{sentence}; that is not due in this sweep")
        self._spread_keeping()

    def _is_due(self, decision: Decision, due: Collection[str]) -> bool:
        if decision.resource.kind is Kind.NETWORK and decision.reason is not Reason.LEASE_ENDED:
            return any(policy.name in due for policy in self._network_policies(decision.resource))
        if decision.policy is None:
            return True  # its own label override or an ended lease, which wait for no policy
        return any(match.matched and match.policy.name in due for match in self.judge.matches(decision.resource))

    def _spread_keeping(self) -> bool:
        """What is kept keeps its group and what it uses, and those in turn theirs. Whether anything is kept for that."""
        changed = False
        while self._unite_groups() | self._keep_what_is_used():
            changed = True
        return changed

    def _turn(self, i: int, reason: Reason, phrase: str, sentence: str) -> None:
        decision = self.decisions[i]
        since = decision.since if reason is Reason.NOT_DUE else None  # it is reapable all the same
        self.decisions[i] = replace(decision, verdict=Verdict.KEEP, reason=reason, brief=phrase, said=sentence, since=since)

    def _unite_groups(self) -> bool:
        changed = False
        for key, members in self.members.items():
            unclear = unclear_key(key)
            networks = (*self.networks.get(key, []), *self.networks.get(unclear, []))
            speakers = (i for i in networks if self.decisions[i].reason in _SPEAKS_FOR_GROUP)
            kept = next((i for i in members if not self.decisions[i].reap), None)
            blocker = kept if kept is not None else next(speakers, None)
            if blocker is not None:
                why = self.decisions[blocker]
                its = f"its {why.resource.group_word} {key[1]} has {why.resource.name}, which is kept: {why.sentence}"
                which = (*members, *networks, *self.others.get(key, []), *self.others.get(unclear, []))
                changed |= self._keep_all(which, _kept_by(why), its)
        return changed

    def _keep_namesakes(self) -> bool:
        """Keep a project while another owned one of its name is kept: a folder that was moved makes two of one.

        That some are not due in this sweep keeps no other project: else two that are due at different times would stay.
        """
        changed = False
        for name, keys in self._namesakes.items():
            for key in keys:
                others = (i for other in keys if other != key for i in self.members[other])
                blocker = next((i for i in others if not self.decisions[i].reap and self.decisions[i].owner), None)
                if blocker is not None:
                    why = self.decisions[blocker]
                    its = f"{name[1]} in another folder, which may be the same {why.resource.group_word}, has"
                    its = f"{its} {why.resource.name}, which is owned and kept: {why.sentence}"
                    proven = (i for i in self.members[key] if self.decisions[i].reason is not Reason.LEASE_ENDED)
                    changed |= self._keep_all(tuple(proven), f"namesake kept by {why.resource.name}", its)
        return changed

    def _keep_all(self, which: Iterable[int], phrase: str, sentence: str) -> bool:
        """Keep those of them that were to go; whether there were any."""
        turned = [i for i in which if self.decisions[i].reap]
        for i in turned:
            self._turn(i, Reason.GROUP_KEPT, phrase, sentence)
        return bool(turned)

    def _keep_what_is_used(self) -> bool:
        changed = False
        for decision in tuple(self.decisions):
            if decision.reap:
                continue
            for used in decision.resource.uses:
                i = self.index.get((decision.resource.endpoint, used))
                if i is not None and self.decisions[i].reap:
                    name = decision.resource.name
                    self._turn(i, Reason.IN_USE, f"used by {name}", f"{name}, which is kept, uses it")
                    changed = True
        return changed

    def _network_policies(self, network: Resource) -> list[Policy]:
        """The policies under which a network without containers may go: those that would select its containers."""
        policies = self.judge.rules.policies
        return [policy for policy in policies if Kind.CONTAINER in policy.kinds and policy.concerns(network)]

    def _judge_network(self, i: int, members: list[int]) -> None:
        """A network goes with the containers of its project, or alone when an owned project has lost them all."""
        decision = self.decisions[i]
        if decision.reason is not Reason.GROUP_KEPT:
            return  # a rule of its own has kept it
        network = decision.resource
        if members:
            first = self.decisions[members[0]]
            if not first.reap:
                sentence = f"its project still has {first.resource.name}, which is kept: {first.sentence}"
                self._turn(i, Reason.GROUP_KEPT, _kept_by(first), sentence)
                return
            self._take(i, "with its project's containers", "it goes with its project's containers", first)
            return
        policies = self._network_policies(network)
        assert network.created_at is not None
        free_at = shifted(network.created_at, self.judge.grace)
        if network.remembered is not None:
            free_at = max(network.created_at, network.remembered.free_at)
        if not policies:
            self._turn(i, Reason.NO_POLICY, "no policy matches", "no policy for containers selects it")
        elif free_at > self.judge.now:
            left = human(free_at - self.judge.now)
            sentence = f"its project has no containers, but may be about to get some for {left} more"
            self._turn(i, Reason.CREATED_GRACE, f"containers may follow for {left} more", sentence)
        else:
            gone = "project's containers are gone"
            self._take(i, gone, f"its {gone}", replace(decision, policy=policies[0].name, since=free_at))

    def _take(self, i: int, phrase: str, sentence: str, like: Decision) -> None:
        self.decisions[i] = replace(
            self.decisions[i],
            verdict=Verdict.REAP,
            reason=Reason.GROUP_REAPED,
            brief=phrase,
            said=sentence,
            policy=like.policy,
            since=like.since,
            lease=like.lease,
        )
