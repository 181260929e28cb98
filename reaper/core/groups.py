"""A group is one unit: it goes as a whole or stays as a whole, and what is in use stays. Pure."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from itertools import chain

from reaper.core.conditions import Policy
from reaper.core.durations import human, shifted
from reaper.core.group_actions import common, given
from reaper.core.identity import GroupKey, GroupName, lacks_place, unclear_key
from reaper.core.layers import images_below
from reaper.core.model import Action, Decision, Kind, Reason, Resource, Verdict
from reaper.core.narrowing import is_oneoff
from reaper.core.owners import is_left_of_project, why_not_built_for
from reaper.core.rules import Judge

# Protections of a network speak for its whole project; that it is in use or unowned does not.
_SPEAKS_FOR_GROUP = frozenset(
    {Reason.PROTECTED, Reason.KEEP_LABEL, Reason.INVALID_LABEL, Reason.LABEL_NOT_DUE, Reason.LEASED, Reason.LEASE_UNKNOWN}
)
_LEFT_OPEN = frozenset({Reason.GROUP_KEPT, Reason.TOO_YOUNG, Reason.NO_POLICY})
"""Why something is kept that another rule may take: else a rule of its own keeps it."""


def _speaks_for_group(decision: Decision) -> bool:
    """Whether what containers have joined keeps them. A pod is kept with all that is in it, if not by one of them."""
    if decision.resource.kind is Kind.POD:
        return not decision.reap and decision.reason not in _LEFT_OPEN
    return decision.reason in _SPEAKS_FOR_GROUP


def _kept_by(member: Decision) -> str:
    """Why its group is kept, in a phrase. That it is kept as a part of the group as well is no news."""
    return f"{member.resource.group_word} kept by {member.resource.name}"


def _how_it_stays(decision: Decision) -> str:
    """What is only stopped or archived is still there."""
    return f"only to be {decision.action.done}" if decision.reap else "kept"


def _has_kept(member: Decision) -> str:
    """Why its group is kept, in a sentence."""
    resource, how = member.resource, _how_it_stays(member)
    return f"its {resource.group_word} {resource.group} has {resource.name}, which is {how}: {member.sentence}"


class Units:
    """Makes one unit of a group: it goes as a whole or stays as a whole, and what is in use stays."""

    def __init__(self, judge: Judge, decisions: list[Decision]) -> None:
        self.judge = judge
        self.decisions = decisions
        self.members: dict[GroupKey, list[int]] = {}
        self.joined: dict[GroupKey, list[int]] = {}  # networks and pods
        self.others: dict[GroupKey, list[int]] = {}  # volumes and images: they decide nothing
        self._images = [i for i, decision in enumerate(decisions) if decision.resource.kind is Kind.IMAGE]
        self.index = {(d.resource.endpoint, d.resource.id): i for i, d in enumerate(decisions)}
        for i, decision in enumerate(decisions):
            key = judge.groups.key(decision.resource)
            if key is not None:
                kind = decision.resource.kind
                of_kind = self.members if kind.runs else self.joined if kind.joined else self.others
                of_kind.setdefault(key, []).append(i)
        names: dict[GroupName, list[GroupKey]] = {}
        for key in self.members:
            names.setdefault(key[:2], []).append(key)
        self._namesakes = {name: keys for name, keys in names.items() if len(keys) > 1}
        self._some_only_stop = any(policy.action is not Action.DELETE for policy in judge.rules.policies)

    def settle(self) -> None:
        """Apply the rules of groups and of use until nothing changes any more."""
        if self._some_only_stop:
            self._agree_on_actions()
        while self._spread_keeping() | self._keep_namesakes():
            pass
        for of_kind in (self.joined, self.others):
            for key, followers in of_kind.items():
                for i in followers:
                    self._judge_follower(i, self.members.get(key, []))
        if self._images:
            self._take_intermediates()
        while self._spread_keeping() | self._keep_namesakes():
            pass
        if self._take_oneoffs():
            self._spread_keeping()

    def _agree_on_actions(self) -> None:
        """Give the members of each group one action, where there is one that all of them allow; else the group is kept."""
        for members in self.members.values():
            decisions = [self.decisions[i] for i in members]
            if all(d.deletes for d in decisions) or not any(d.reap for d in decisions):
                continue
            if (action := common(self.judge, decisions)) is not None:
                for i in members:
                    self.decisions[i] = given(self.judge, self.decisions[i], action)
            elif all(d.reap for d in decisions):
                word = decisions[0].resource.group_word
                self._keep_all(members, f"no action fits its {word}", f"no action fits all members of its {word}")

    def keep_what_is_not_due(self, due: Collection[str]) -> None:
        """Keep the units none of whose matching policies is due, and what they use."""
        alone = [[i] for i, decision in enumerate(self.decisions) if decision.resource.group is None]
        alone += [[i] for key, others in self.others.items() if key not in self.members for i in others]
        grouped = [
            # What is left of a project speaks for itself: the rest goes with their project's containers.
            [
                *self.members.get(key, []),
                *self.joined.get(key, []),
                *(self.others.get(key, []) if key in self.members else []),
            ]
            for key in self.members.keys() | self.joined.keys()
        ]
        for unit in alone + grouped:
            reaped = [i for i in unit if self.decisions[i].reap]
            deciders = [i for i in reaped if self.decisions[i].resource.kind.runs] or reaped
            going = self._limit_to_due(reaped, deciders, due)
            for i in reaped:
                if i not in going:
                    phrase, sentence = f"not due: {self.decisions[i].phrase}", f"{self.decisions[i].sentence}"
                    self._turn(i, Reason.NOT_DUE, phrase, f"{sentence}; that is not due in this sweep")
        self._spread_keeping()

    def postpone_all_but(self, chosen: Collection[str]) -> None:
        """Keep for a later round what is not chosen, and what that needs."""
        for i, decision in enumerate(self.decisions):
            if decision.reap and decision.resource.id not in chosen:
                sentence = f"{decision.sentence}; it goes only if the disk is still too full without what goes first"
                self._turn(i, Reason.NOT_DUE, f"not its turn: {decision.phrase}", sentence)
        self._spread_keeping()

    def _limit_to_due(self, reaped: Sequence[int], deciders: Sequence[int], due: Collection[str]) -> Collection[int]:
        """Those of a unit that go in this sweep. No action is stronger than those of the policies that are due."""
        actions = [action for i in deciders if (action := self._due_action(self.decisions[i], due)) is not None]
        if not actions:
            return ()
        strongest = max(actions, key=lambda action: action.strength)
        if strongest.strength >= self.decisions[deciders[0]].action.strength:
            return reaped
        action = common(self.judge, [self.decisions[i] for i in deciders], strongest)
        if action is None:
            return ()
        for i in deciders:
            self.decisions[i] = given(self.judge, self.decisions[i], action)
        return deciders

    def _due_action(self, decision: Decision, due: Collection[str]) -> Action | None:
        """The strongest action for which a policy that matches is due, or None."""
        if decision.reason is Reason.GROUP_REAPED:
            is_due = any(policy.name in due for policy in self._follower_policies(decision.resource))
            return Action.DELETE if is_due else None
        if decision.policy is None:
            return Action.DELETE  # its own label override or an ended lease, which wait for no policy
        matches = (m for m in self.judge.matches(decision.resource) if m.matched and m.policy.name in due)
        return max((match.policy.action for match in matches), key=lambda action: action.strength, default=None)

    def _spread_keeping(self) -> bool:
        """What is kept keeps its group and what it uses, and those in turn theirs. Whether anything is kept for that."""
        changed = False
        while self._unite_groups() | self._keep_what_is_used() | self._keep_images_below():
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
            joined = (*self.joined.get(key, []), *self.joined.get(unclear, []))
            followers = (*joined, *self.others.get(key, []), *self.others.get(unclear, []))
            speakers = (i for i in joined if _speaks_for_group(self.decisions[i]))
            halted = (i for i in members if not self.decisions[i].deletes)
            blocker = next(chain(self._kept(members), speakers, halted), None)
            if blocker is not None:
                why = self.decisions[blocker]
                changed |= self._keep_all(followers if why.reap else (*members, *followers), _kept_by(why), _has_kept(why))
        return changed

    def _kept(self, members: Iterable[int]) -> list[int]:
        """Those that are kept, first the ones that are kept for themselves: they say why the others are."""
        kept = (i for i in members if not self.decisions[i].reap)
        return sorted(kept, key=lambda i: self.decisions[i].reason is Reason.GROUP_KEPT)

    def _keep_namesakes(self) -> bool:
        """Keep a project while another owned one of its name is kept: a folder that was moved makes two of one.

        That some are not due in this sweep keeps no other project: else two that are due at different times would stay.
        """
        changed = False
        for name, keys in self._namesakes.items():
            everyone = [i for key in keys for i in self.members[key]]
            if (unclear := self._without_place(everyone)) is not None:
                place = "instance" if unclear.kind is Kind.SANDBOX else "folder"
                what = f"{unclear.name} does not say in which {place} its {unclear.group_word} {name[1]} is"
                sentence = f"{what}, and there is one of that name in a known {place}, which may be the same"
                changed |= self._keep_all(everyone, f"{place} of {unclear.name} unknown", sentence)
            for key in keys:
                if not (mine := self.members[key]):
                    continue
                others = (self.decisions[i] for other in keys if other != key for i in self.members[other])
                least = self.decisions[mine[0]].action.strength
                why = next((d for d in others if d.owner and not (d.reap and d.action.strength >= least)), None)
                if why is not None:
                    its = f"{name[1]} in another folder, which may be the same {why.resource.group_word}, has"
                    its = f"{its} {why.resource.name}, which is owned and {_how_it_stays(why)}: {why.sentence}"
                    proven = (i for i in self.members[key] if self.decisions[i].reason is not Reason.LEASE_ENDED)
                    changed |= self._keep_all(tuple(proven), f"namesake kept by {why.resource.name}", its)
        return changed

    def _without_place(self, members: Iterable[int]) -> Resource | None:
        """One of several groups' members that does not say of which it is, if others do."""
        resources = [self.decisions[i].resource for i in members]
        unclear = [resource for resource in resources if lacks_place(resource)]
        return unclear[0] if unclear and len(unclear) < len(resources) else None

    def _keep_all(self, which: Iterable[int], phrase: str, sentence: str) -> bool:
        """Keep those of them that were to go; whether there were any."""
        turned = [i for i in which if self.decisions[i].reap]
        for i in turned:
            self._turn(i, Reason.GROUP_KEPT, phrase, sentence)
        return bool(turned)

    def _keep_what_is_used(self) -> bool:
        changed = False
        for decision in tuple(self.decisions):
            if decision.deletes:
                continue
            for used in decision.resource.uses:
                i = self.index.get((decision.resource.endpoint, used))
                if i is not None and self.decisions[i].reap and not (decision.reap and self._is_beside(decision, i)):
                    name = decision.resource.name
                    self._turn(i, Reason.IN_USE, f"used by {name}", f"{name}, which is {_how_it_stays(decision)}, uses it")
                    changed = True
        return changed

    def _is_beside(self, decision: Decision, other: int) -> bool:
        """Whether the other one runs in the same group, whose members get the same action."""
        key = self.judge.groups.key(decision.resource)
        return key is not None and other in self.members.get(key, ())

    def _keep_images_below(self) -> bool:
        """Keep what a kept image was built on."""
        if not self._images:
            return False
        reaped = [i for i in self._images if self.decisions[i].reap]
        kept = [self.decisions[i].resource for i in self._images if not self.decisions[i].reap] if reaped else []
        below = images_below([self.decisions[i].resource for i in reaped], kept)
        for i in reaped:
            if (child := below.get(self.decisions[i].resource.id)) is not None:
                self._turn(i, Reason.IN_USE, f"below {child}", f"{child}, which is kept, was built on it")
        return bool(below)

    def _take_intermediates(self) -> None:
        """What a build has left below an image goes with all that was built on it, as ``docker rmi`` would have it."""
        children: dict[str, list[int]] = {}
        for i in self._images:
            for parent in self.decisions[i].resource.uses:
                children.setdefault(parent, []).append(i)
        changed = True
        while changed:
            changed = False
            for i in self._images:
                decision = self.decisions[i]
                above = children.get(decision.resource.id)
                if not above or decision.resource.tags or decision.reason not in _LEFT_OPEN or decision.owner is None:
                    continue
                if all(self.decisions[child].reap for child in above):
                    child = self.decisions[above[0]]
                    self._take(i, f"with {child.resource.name}", f"it goes with {child.resource.name}, built on it", child)
                    changed = True

    def _take_oneoffs(self) -> bool:
        """Take the one-off containers of projects that stay, where a policy is for such; whether there were any."""
        found = False
        for members in self.members.values():
            for i in tuple(members):
                resource = self.decisions[i].resource
                if self.decisions[i].reason is not Reason.GROUP_KEPT or not is_oneoff(resource):
                    continue
                by = self.judge.decide(resource)
                matches = [m for m in self.judge.matches(resource) if m.matched and m.policy.oneoff]
                match = max(matches, key=lambda m: m.policy.action.strength, default=None)
                if not by.reap or by.owner is None or match is None:
                    continue
                self.decisions[i] = replace(
                    by,
                    resource=self.judge.owners.alone(resource, by.owner, self.judge.now),
                    reason=match.reason,
                    brief=match.phrase,
                    said=match.say,
                    policy=match.policy.name,
                    since=match.at,
                    stop_timeout=match.policy.stop_timeout,
                    action=match.policy.action,
                )
                members.remove(i)
                found = True
        return found

    def _follower_policies(self, resource: Resource) -> list[Policy]:
        """The policies under which what is left of a project may go: those that would select it, and the one it goes by."""
        along = resource.remembered and resource.remembered.policy
        return [
            policy
            for policy in self.judge.rules.policies
            if policy.action is Action.DELETE
            and Kind.CONTAINER in policy.kinds
            and resource.kind in policy.with_project
            and (policy.takes_leftover(resource) or (policy.name == along and policy.is_in_force(resource.endpoint)))
            if policy.leaves_out(resource, Kind.CONTAINER) is None
            if policy.window is None or policy.window.is_open(self.judge.here)
        ]

    def _judge_follower(self, i: int, members: list[int]) -> None:
        """What has no processes goes with its project's containers, or alone when the project has lost them all."""
        decision = self.decisions[i]
        resource = decision.resource
        if members and decision.reason is Reason.GROUP_KEPT:
            self._judge_with_project(i, members)
        is_leftover = resource.kind.joined or (resource.remembered is not None and self._may_follow(resource))
        if not members and is_leftover and decision.reason in _LEFT_OPEN:
            self._judge_leftover(i)

    @staticmethod
    def _may_follow(resource: Resource) -> bool:
        """Of images only what was built for the project goes with it."""
        return resource.kind is not Kind.IMAGE or is_left_of_project(resource)

    def _judge_with_project(self, i: int, members: list[int]) -> None:
        first = self.decisions[next(iter(self._kept(members)), members[0])]
        resource = self.decisions[i].resource
        kind, containers = resource.kind, [self.decisions[m].resource for m in members]
        if not first.deletes:
            self._turn(i, Reason.GROUP_KEPT, _kept_by(first), _has_kept(first))
        elif kind is Kind.IMAGE and (why := why_not_built_for(resource, containers)) is not None:
            self._turn(i, Reason.GROUP_KEPT, "not built for its project", why)
        elif not all(self._takes_along(self.decisions[m], kind) for m in members):
            sentence = f"{kind} is not in with_project of each policy that takes its project's containers"
            self._turn(i, Reason.NO_POLICY, f"no {kind} in with_project", sentence)
        elif (why := self._left_out(resource, members)) is not None:
            self._turn(i, Reason.NO_POLICY, why, f"what takes its project's containers is not for it: {why}")
        else:
            along = f"with its {first.resource.group_word}'s containers"
            self._take(i, along, f"it goes {along}", first)

    def _policy_of(self, decision: Decision) -> Policy | None:
        return next((policy for policy in self.judge.rules.policies if policy.name == decision.policy), None)

    def _left_out(self, follower: Resource, members: list[int]) -> str | None:
        """Why a policy that takes one of the containers does not take this along, or None."""
        policies = filter(None, (self._policy_of(self.decisions[m]) for m in members))
        found = ((policy, policy.leaves_out(follower, Kind.CONTAINER)) for policy in policies)
        return next((f"policy {policy.name} {why}" for policy, why in found if why is not None), None)

    def _takes_along(self, member: Decision, kind: Kind) -> bool:
        """Whether what takes this container takes such a thing along: without a policy, pods and networks alone."""
        policy = self._policy_of(member)
        return kind in policy.with_project if policy is not None else kind.joined

    def _judge_leftover(self, i: int) -> None:
        decision = self.decisions[i]
        resource = decision.resource
        policies = self._follower_policies(resource)
        assert resource.created_at is not None
        free_at = shifted(resource.created_at, self.judge.grace)
        if resource.remembered is not None:
            free_at = max(resource.created_at, resource.remembered.free_at)
        if policies and free_at <= self.judge.now:
            gone = f"{resource.group_word}'s containers are gone"
            self._take(i, gone, f"its {gone}", replace(decision, policy=policies[0].name, since=free_at))
        elif decision.reason is not Reason.GROUP_KEPT:
            return  # a policy for its kind would take it later
        elif resource.kind.opt_in:
            sentence = (
                "no policy for its kind, and its project's containers were not removed by a policy that takes it along"
            )
            self._turn(i, Reason.NO_POLICY, "no policy matches", sentence)
        elif not policies:
            self._turn(i, Reason.NO_POLICY, "no policy matches", "no policy for containers selects it")
        else:
            left = human(free_at - self.judge.now)
            sentence = f"its {resource.group_word} has no containers, but may be about to get some for {left} more"
            self._turn(i, Reason.CREATED_GRACE, f"containers may follow for {left} more", sentence)

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
