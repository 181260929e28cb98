"""What a report's reader can do next, in a sentence each."""

import os
import shlex
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from reaper.core.decide import young_and_running
from reaper.core.durations import human
from reaper.core.inventory_warnings import not_owned, owned_by_image
from reaper.core.model import Decision, Kind, Outcome, Reason, Report
from reaper.core.owners import owned_projects
from reaper.core.pending import SOON, in_words, not_taken, pending
from reaper.core.scope import Scope
from reaper.core.wording import counted, is_or_are
from reaper.sweep.plan import Plan

# Kept on purpose: everything else that is owned counts as left by ``check --all``.
_MEANT_TO_STAY = frozenset(
    {
        Reason.EXCLUDED,
        Reason.NOT_OWNED,
        Reason.SYSTEM_CONTAINER,
        Reason.PROTECTED,
        Reason.KEEP_LABEL,
        Reason.RESTART_POLICY,
        Reason.LEASED,
    }
)
_OF_SWEEPS = ("--once", "--dry-run", "--fail-fast")
_OF_SWEEPS_WITH_VALUE = ("--max-deletions", "--metrics-textfile")

BEHIND = ("--", "...")
"""What stands behind the arguments of `reaper run`: its command, of which nothing is printed, as it may hold a secret."""


def unjudged(report: Report, scope: Scope, reaped: Mapping[str, Collection[str]]) -> list[str]:
    """What ``check --all`` says of the volumes and images of owned projects, which no policy judges.

    Args:
        report: with what was listed.
        scope: what is owned.
        reaped: by endpoint the names of the projects whose containers this program has deleted.
    """
    hints = []
    for endpoint in report.endpoints:
        owned = (d.resource for d in endpoint.decisions if d.owner is not None and d.lease is None)
        gone = (r for r in endpoint.unjudged if r.group in reaped.get(endpoint.endpoint, ()))
        found = owned_projects([*owned, *gone], endpoint.unjudged, scope)
        if not found:
            continue
        of_kind = [one.kind for ones in found.values() for one in ones]
        counts = " and ".join(counted(number, kind) for kind in (Kind.VOLUME, Kind.IMAGE) if (number := of_kind.count(kind)))
        are, whose = is_or_are(len(of_kind)), counted(len(found), "owned project")
        first = shlex.join(["docker", "compose", "-p", min(found), "down", "--volumes", "--rmi", "local"])
        hints.append(
            f"{endpoint.endpoint}: {counts} of {whose} {are} not judged, since no policy takes such; to remove: {first}"
        )
    return hints


def left(report: Report, *, everything: bool) -> list[Decision]:
    """What ``check`` finds: what is reapable; with ``everything`` all that is owned and not meant to stay."""
    decisions = (d for endpoint in report.endpoints for d in endpoint.decisions)
    if everything:
        return [d for d in decisions if d.owner is not None and (d.reason not in _MEANT_TO_STAY or _is_overlay(d))]
    return [d for d in decisions if d.reap]


def _is_overlay(decision: Decision) -> bool:
    """Whether it is a Swarm network of an owned Compose project: a leak that this program leaves to people.

    Other nodes may have containers on it, which its own node does not know of.
    """
    return (
        decision.reason is Reason.SYSTEM_CONTAINER
        and decision.resource.kind is Kind.NETWORK
        and bool(decision.resource.group)
    )


def command_name() -> str:
    """What the program is called by, for commands to copy: uvx installs it for one call only."""
    by_distribution = Path(sys.argv[0]).name == "bench-reaper"
    return "uvx bench-reaper" if by_distribution and "UV" in os.environ else "reaper"


def _command(words: Sequence[str]) -> str:
    """The program with these arguments, for people to copy."""
    return f"{command_name()} {shlex.join(words)}"


def _again(argv: Sequence[str], *extra: str, without: str = "") -> str:
    """The command that was given, with something added, for people to copy."""
    if BEHIND[0] in argv:
        argv, extra = argv[: argv.index(BEHIND[0])], (*extra, *BEHIND)
    words: list[str] = []
    skip = False
    for word in argv:
        if not skip and not (without and word.startswith(f"{without}=")) and word != without:
            words.append(word)
        skip = bool(without) and word == without
    return _command([*words, *extra])


def as_listing(argv: Sequence[str]) -> str:
    """The command that lists what a dry run with these arguments would delete."""
    words, left_out = [], False
    for word in argv:
        if not (left_out or word in _OF_SWEEPS or word.partition("=")[0] in _OF_SWEEPS_WITH_VALUE):
            words.append(word)
        left_out = not left_out and word in _OF_SWEEPS_WITH_VALUE
    return _command(["list", "--verdict", "reap", *words])


def cap_hints(report: Report, argv: Sequence[str]) -> list[str]:
    """For each endpoint where the deletion cap was hit, the command that goes on.

    Args:
        report: of the sweep.
        argv: the arguments that it was made with.
    """
    hints = []
    for endpoint in report.endpoints:
        if (cap := endpoint.cap) is not None:
            if cap.of_leases:
                left = "leases have left would have gone"
                go_on = f"REAPER_LIMITS__MAX_LEASE_DELETIONS={cap.wanted} {_again(argv)}"
            else:
                left = "would have gone"
                go_on = _again(argv, "--max-deletions", str(cap.wanted), without="--max-deletions")
            wanted = f"{cap.wanted} {left}, but {cap.limit} allows {cap.allowed}: none of that was deleted"
            hints.append(f"{endpoint.endpoint}: {wanted}; to go on: {go_on}")
    return hints


def _cache_hints(report: Report, plan: Plan) -> list[str]:
    """That the bytes of deleted images may stay as build cache, where no policy prunes it."""
    if Kind.BUILD_CACHE in plan.rules.kinds:
        return []
    gone = sum(r.outcome is Outcome.DELETED and r.decision.resource.kind is Kind.IMAGE for r in report.results)
    if not gone:
        return []
    which = "1 image was" if gone == 1 else f"{gone} images were"
    return [
        f"{which} deleted; layers that the build cache shares with images stay on the disk until that is pruned:"
        ' a policy with kinds = ["build-cache"] does that'
    ]


def _soon(report: Report, plan: Plan, argv: Sequence[str]) -> list[str]:
    """For each endpoint what is kept for a short time only."""
    hints = []
    for endpoint in report.endpoints:
        now = report.started_at + timedelta(seconds=report.seconds) + endpoint.clock_skew
        soon = [each for each in pending(endpoint.decisions, plan.rules.created_grace) if each.due_at <= now + SOON]
        if soon:
            # `reaper run` waits for nothing before its command.
            cannot = plan.wait or not plan.options.act or BEHIND[0] in argv
            how = "" if cannot else f"; to wait for that: {_again(argv, '--wait')}"
            hints.append(f"{endpoint.endpoint}: {in_words(soon, now)}{how}")
    return hints


def other_presets(decisions: Iterable[Decision]) -> dict[str, int]:
    """How many each preset would own that is not in force, the most first."""
    return dict(Counter(d.preset for d in decisions if d.preset is not None).most_common())


def _presets(decisions: Sequence[Decision], presets: Sequence[str]) -> list[str]:
    """Which other presets would own what nothing owns."""
    hints = []
    for name, number in other_presets(decisions).items():
        one = number == 1
        what = "1 resource that is not owned has" if one else f"{number} resources that are not owned have"
        all_of = ", ".join(f'"{preset}"' for preset in (*presets, name))
        own = f"to own {'it' if one else 'them'}: presets = [{all_of}] in [scope]"
        hints.append(f"{what} the signs of preset {name}; {own}")
    return hints


def without_preset(report: Report) -> list[str]:
    """How much no preset would own of what nothing owns."""
    decisions = (d for endpoint in report.endpoints for d in endpoint.decisions)
    number = sum(d.reason is Reason.NOT_OWNED and d.preset is None for d in decisions)
    if not number:
        return []
    what = "1 resource that is not owned has" if number == 1 else f"{number} resources that are not owned have"
    return [f"{what} the signs of no preset; labels, names or images in [scope], or a [[preset]], could own such"]


def hints_of(
    report: Report, plan: Plan, argv: Sequence[str], *, presets: bool = True, living: Collection[str] = ()
) -> list[str]:
    """What the report suggests, a sentence each.

    Args:
        report: of the sweep.
        plan: of the sweep.
        argv: the arguments that it was made with.
        presets: also say which others would own something.
        living: the ids of what belongs to a process that is known to be alive.
    """
    hints = [*cap_hints(report, argv), *_cache_hints(report, plan)]
    decisions = [d for endpoint in report.endpoints for d in endpoint.decisions]
    young = [d for d in young_and_running(decisions) if d.resource.id not in living]
    ages = [
        policy.older_than
        for policy in plan.rules.policies
        if policy.older_than and any(d.resource.kind in policy.kinds and policy.concerns(d.resource) for d in young)
    ]
    if young and ages and not plan.one_off:
        keep = [word for only in plan.only for word in ("--only", only)]
        named = ["--config", plan.config] if plan.config else []
        command = _command(["--once", "--all", *named, *keep, *plan.narrow])
        subject = f"{counted(len(young), 'owned resource')} {is_or_are(len(young))}"
        go_on = f"if no run is alive here: {command}"
        if living:
            belong = "1 more belongs" if len(living) == 1 else f"{len(living)} more belong"
            go_on = (
                f"{belong} to a living process, and --once --all would delete {'it' if len(living) == 1 else 'those'}, too"
            )
        hints.append(f"{subject} running and younger than {human(max(ages))}; {go_on}")
    hints += _soon(report, plan, argv)
    if plan.everything and plan.options.act and (kept := not_taken(decisions)) is not None:
        hints.append(kept)
    if (by_image := owned_by_image(decisions)) is not None:
        hints.append(by_image)
    hints += _presets(decisions, plan.rules.scope.presets) if presets else []
    if plan.one_off and plan.narrow and (unowned := not_owned(decisions)):
        hints.append(unowned)
    return hints
