"""Rules that only some worlds of the model have a case of (``features``), each switched off by one change to its text."""

from tests.promise.mutants import Mutant

OF_USE = (
    Mutant(
        "unused_for is waited for",
        "_condition(Reason.UNUSED_FOR, resource.last_used_at, policy.unused_for)",
        "_condition(Reason.UNUSED_FOR, resource.last_used_at, timedelta(0))",
    ),
    Mutant(
        "what has not been watched for long enough is not unused",
        "entry = _Entry(what, moment, moment, is_had)",
        "entry = _Entry(what, moment, 0.0, is_had)",
    ),
    Mutant(
        "what a container has is used",
        "        had, named = users.ids(), users.references()\n",
        "        had, named = frozenset(), frozenset()\n",
    ),
)

OF_QUOTAS = (
    Mutant(
        "a quota takes what has rested for long enough",
        "stopped = replace(policy, stopped_for=self.idle_for)",
        "stopped = replace(policy, stopped_for=timedelta(0))",
    ),
    Mutant(
        "a quota counts each value of its label by itself",
        'return "" if self.label is None else resource.own_labels.get(self.label) or None',
        'return ""',
    ),
)
