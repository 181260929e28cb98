"""What one rule says of one resource: in a phrase for a table, and in a sentence with the numbers. Pure."""

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from reaper.core.conditions import Policy
from reaper.core.model import Reason, Verdict


class Finding(NamedTuple):
    """What one rule says of one resource.

    Args:
        rule: the rule's name, as ``reaper explain`` prints it.
        verdict: None when the rule leaves the decision to the next one.
        say: returns the sentence. Of all the findings about a resource, one is printed as a rule.
        phrase: the same in a few words, where there is a verdict ("restart policy always").
    """

    rule: str
    verdict: Verdict | None
    say: Callable[[], str]
    reason: Reason | None = None
    policy: Policy | None = None
    since: datetime | None = None
    due_at: datetime | None = None
    phrase: str = ""

    @property
    def sentence(self) -> str:
        """It in words."""
        return self.say()


def keep(rule: str, reason: Reason, phrase: str, say: Callable[[], str], due_at: datetime | None = None) -> Finding:
    """A rule that keeps the resource."""
    return Finding(rule, Verdict.KEEP, say, reason, due_at=due_at, phrase=phrase)


def reap(
    rule: str, reason: Reason, phrase: str, say: Callable[[], str], policy: Policy | None, *, since: datetime | None
) -> Finding:
    """A rule that reaps the resource."""
    return Finding(rule, Verdict.REAP, say, reason, policy, since, phrase=phrase)
