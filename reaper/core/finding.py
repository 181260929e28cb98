"""What one rule says of one resource: in a phrase for a table, and in a sentence with the numbers. Pure."""

from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

from reaper.core.conditions import Policy
from reaper.core.model import Kind, Reason, Verdict

Words = str | Callable[[], str]


class Finding(NamedTuple):
    """What one rule says of one resource.

    Args:
        rule: the rule's name, as ``reaper explain`` prints it.
        verdict: None when the rule leaves the decision to the next one.
        say: returns the sentence. Of all the findings about a resource, one is printed as a rule.
        brief: ``phrase``, or what returns it.
    """

    rule: str
    verdict: Verdict | None
    say: Callable[[], str]
    reason: Reason | None = None
    policy: Policy | None = None
    since: datetime | None = None
    due_at: datetime | None = None
    brief: Words = ""

    @property
    def sentence(self) -> str:
        """It in words."""
        return self.say()

    @property
    def phrase(self) -> str:
        """It in a few words, where there is a verdict ("restart policy always")."""
        return self.brief if isinstance(self.brief, str) else self.brief()


def keep(rule: str, reason: Reason, brief: Words, say: Callable[[], str], due_at: datetime | None = None) -> Finding:
    """A rule that keeps the resource."""
    return Finding(rule, Verdict.KEEP, say, reason, due_at=due_at, brief=brief)


def reap(
    rule: str, reason: Reason, brief: Words, say: Callable[[], str], policy: Policy | None, *, since: datetime | None
) -> Finding:
    """A rule that reaps the resource."""
    return Finding(rule, Verdict.REAP, say, reason, policy, since, brief=brief)


@lru_cache(maxsize=1024)
def passed(rule: str, sentence: str) -> Finding:
    """A rule that leaves every resource of which it says this to the next rule: one object for all of them."""
    return Finding(rule, None, lambda: sentence)


@lru_cache(maxsize=1024)
def of_other_kinds(policy: str, kind: Kind) -> Finding:
    """A policy that is not for this kind."""
    return passed(f"policy {policy}", f"policy {policy} is not for {kind}s")
