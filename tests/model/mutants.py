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
        "before = _Entry(what, moment, moment, had=False)",
        "before = _Entry(what, moment, 0.0, had=False)",
    ),
    Mutant(
        "what a container has is used",
        "usage = _Usage(users.ids(), users.references(), uses)",
        "usage = _Usage(frozenset(), References(()), uses)",
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
    Mutant(
        "a quota takes no more than is over",
        "        if reason is not None:\n            taken[unit] = reason",
        "        if True:\n            taken[unit] = reason or over[0]",
    ),
)

OF_FOLLOWERS = (
    Mutant(
        "what is in no with_project stays with its project",
        "        return kind in policy.with_project if policy is not None else kind.joined",
        "        return True",
    ),
    Mutant(
        "what is left of a project waits for containers that may follow",
        "        if policies and free_at <= self.judge.now:",
        "        if policies:",
    ),
)

OF_INSTANCES = (
    Mutant(
        "one that does not say of which instance it is keeps each session of its id",
        "Kind.SANDBOX: INSTANCE_LABEL}.get(resource.kind)",
        "Kind.NETWORK: INSTANCE_LABEL}.get(resource.kind)",
    ),
    Mutant(
        "a policy by keepalive takes only what is kept alive",
        "        why = without_keepalive(resource, policy.keepalive, policy.idle_for)",
        "        why = None",
    ),
)

OF_PRESSURE = (
    Mutant(
        "a policy that waits for disk pressure takes nothing without it",
        "        return not self.asleep and (not self.endpoints or endpoint in self.endpoints)",
        "        return not self.endpoints or endpoint in self.endpoints",
    ),
)

OF_CONDITIONS = (
    Mutant(
        "a window is open at its time only",
        "    if policy.window is not None and not policy.window.is_open(here):",
        "    if policy.window is not None and False:",
    ),
    Mutant(
        "a policy is for its endpoints only",
        "        return not self.asleep and (not self.endpoints or endpoint in self.endpoints)",
        "        return not self.asleep",
    ),
    Mutant(
        "what goes beside a cap is on record",
        "        and (report.cap is None or result.outcome is not Outcome.ABANDONED or place(result) in begun)",
        "        and report.cap is None",
    ),
)

OF_FEATURES = (*OF_USE, *OF_QUOTAS, *OF_FOLLOWERS, *OF_INSTANCES, *OF_PRESSURE, *OF_CONDITIONS)
