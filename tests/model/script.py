"""What happens in one run, step by step: drawn from its seed, and each step again from a number of its own."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tests.model import features, host
from tests.model.world import DAY, HOUR, MINUTE
from tests.promise import oracle
from tests.promise.truth import Config, Policy

Mode = Literal["safety", "liveness"]
PEOPLE = ("start", "stop", "restart", "remove", "again", "join", "connect", "dependent", "relabel", "sandbox_state")
RUNNERS = ("run", "run", "trial", "finish", "kill_holder", "process", "process_ends", "process_ends")
DEEDS = (*PEOPLE, *RUNNERS)
MAKES = ("project", "project", "project", "single", "single", "single", "volume", "sandbox", "sandbox", "run", "dependent")
SWEEPS = ("once",) * 8 + ("dry", "two", "two", "killed", "killed", "service", "service", "no_leases", "full_disk")


@dataclass(frozen=True)
class Step:
    """One step.

    Args:
        kind: what happens.
        salt: what its details are drawn from: they stay as they are when other steps are left out.
    """

    kind: str
    salt: int


def steps(seed: int, mode: Mode) -> Sequence[Step]:
    """The steps of a run."""
    rng = random.Random(f"{mode}/{seed}")
    kinds = [rng.choice(MAKES) for _ in range(rng.choice((3, 4, 5, 6, 8)))]
    for _ in range(rng.choice((3, 4, 5))):
        kinds += [rng.choice(DEEDS + MAKES) for _ in range(rng.choice((0, 1, 2, 3)))]
        kinds += [rng.choice(("wait", "later"))] if rng.random() < 0.7 else []
        kinds.append(rng.choice(SWEEPS))
    return [Step(kind, rng.randrange(1 << 32)) for kind in features.kinds_of_steps(kinds, seed, mode)]


BOTH = ("container", "sandbox")
ORDINARY = (Policy("old", BOTH, older_than=DAY), Policy("stopped", BOTH, stopped_for=6 * HOUR))
ORPHANED = Policy("orphaned", BOTH, orphaned_for=10 * MINUTE)


def config(seed: int) -> Config:
    """The configuration of a run."""
    return features.configured(_base(seed), seed)


def _base(seed: int) -> Config:
    rng = random.Random(f"config/{seed}")

    def rarely(weight: int, usual: tuple[str, ...], *others: tuple[str, ...]) -> tuple[str, ...]:
        return rng.choice(others) if rng.randrange(weight) == 0 else usual

    labels = [(pattern,) for pattern in oracle.LABEL_PATTERNS if pattern != "reaper.keep"]
    policies = rng.choice((ORDINARY, (*ORDINARY, ORPHANED), (ORPHANED,), ()))
    return Config(
        presets=rarely(4, ("terminal-bench", "harbor"), ("harbor",), ("terminal-bench",), ()),
        labels=rarely(3, (), *labels),
        names=rarely(4, (), ("trial-*",), ("*-db",)),
        images=rarely(5, (), ("acme/*",)),
        everything=rng.random() < 0.25,
        image_labels=rng.random() < 0.1,
        protect_labels=rarely(3, ("reaper.keep",), (), ("team=rl",), ("run=my-*", "bench")),
        protect_names=rarely(5, (), ("*-db",)),
        protect_images=rarely(6, (), ("acme/*",)),
        restart_policies=rarely(5, ("always", "unless-stopped"), ()),
        policies=policies + tuple(_policy(rng, number) for number in range(rng.choice((0, 1, 2)))),
        everything_goes=rng.random() < 0.35,
        target="us" if rng.random() < 0.3 else None,
        runners=host.RUNNERS if rng.random() < 0.25 else (),
        safety_net=rng.random() < 0.25,
    )


def _policy(rng: random.Random, number: int) -> Policy:
    span = rng.choice((MINUTE, 10 * MINUTE, HOUR, 6 * HOUR, 8 * HOUR, DAY))
    condition = rng.choice(("older", "older", "stopped", "stopped", "both", "state", "idle", "orphaned"))
    action = rng.choice(("delete", "delete", "archive", "delete" if condition in ("stopped", "both") else "stop"))
    return Policy(
        f"policy-{number}",
        ("sandbox",) if condition == "idle" or action == "archive" else BOTH,
        action,
        orphaned_for=span if condition == "orphaned" else None,
        older_than=span if condition in ("older", "both") else None,
        stopped_for=span if condition in ("stopped", "both") else None,
        idle_for=max(span, 5 * MINUTE) if condition == "idle" else None,
        states=rng.choice((("exited",), ("running", "archived"), ("failed",))) if condition == "state" else (),
        labels=rng.choice(((),) * 7 + (("bench",),)),
        names=rng.choice(((),) * 7 + (("trial-*",),)),
    )


METHODS = ("*", "*", "GET", "GET", "DELETE", "DELETE", "POST")
PATHS = ("", "", "", "", "", "/json$", "/containers/json", "/containers/[0-9a-f]+/json", "/networks", "/images", "/volumes")
STRIKES = (
    "reset",
    "reset,after",
    "hang",
    "hang,after",
    "truncate",
    "status:429",
    "status:429,header=Retry-After:7",
    "status:429,header=Retry-After:soon",
    "status:500",
    "status:500,after",
    "status:502,after",
    "status:503,header=Retry-After:20",
    "status:401",
    "status:403",
    "status:409,message=removal of container is already in progress",
    "status:409,message=conflict",
    "garbage",
    "garbage,after",
    "empty",
    "latency:5",
    "latency:40",
)
# A sandbox that Daytona's list lacks may be linked to one that goes, and only an inspection of it would tell.
LISTINGS = {"docker": ("no rows", "half the rows", "no list"), "daytona": ("no rows", "no list")}


def fault(rng: random.Random) -> str:
    """One that the simulators know, as a text."""
    times = rng.choice(("times=1", "times=1", "times=2", "times=5", "probability=0.5", "probability=0.3", "probability=0.2"))
    what = rng.choice(STRIKES)
    parts = [
        what,
        f"method={rng.choice(METHODS)}",
        f"path={rng.choice(PATHS)}",
        f"skip={rng.choice((0, 0, 0, 1, 2, 4, 7))}",
        times,
    ]
    return ",".join(part for part in parts if part)
