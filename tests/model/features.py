"""What only some worlds have, each drawn from a stream of its own: without it, a world stays what its seed made of it."""

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from tests.model import builds, crowds
from tests.promise.truth import Config, Policy, Quota

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
FOLLOWERS = ("network", "volume", "image")
PLACES = (("engine-0",), ("engine-1", "org-0"), ("org-0",))
BOTH = ("container", "sandbox")
WINDOWS = (("11:50", "12:30"), ("19:00", "20:00"), ("22:00", "06:00"), ("00:00", "12:00"))


def has_followers(seed: int) -> bool:
    """Whether policies are for networks, volumes and images."""
    return random.Random(f"followers/{seed}").random() < 0.35


def configured(config: Config, seed: int) -> Config:
    """The configuration with what the features of this seed have in it."""
    if has_followers(seed):
        config = _with_followers(config, random.Random(f"followers/config/{seed}"))
    if has_quotas(seed):
        config = _with_quotas(config, random.Random(f"quotas/config/{seed}"))
    if has_instances(seed):
        rng = random.Random(f"instances/config/{seed}")
        idle = Policy("kept-alive", ("sandbox",), idle_for=rng.choice((30 * MINUTE, HOUR)), keepalive=True)
        config = replace(config, policies=(*config.policies, idle), everything_goes=rng.random() < 0.1)
    if has_pressure(seed):
        config = _with_pressure(config, random.Random(f"pressure/config/{seed}"))
    if has_conditions(seed):
        config = _with_conditions(config, random.Random(f"conditions/config/{seed}"))
    return config


def has_conditions(seed: int) -> bool:
    """Whether policies have conditions that are seldom used."""
    return random.Random(f"conditions/{seed}").random() < 0.3


def _with_conditions(config: Config, rng: random.Random) -> Config:
    policies = [_narrowed(policy, rng) for policy in config.policies]
    if rng.random() < 0.3:
        policies.append(Policy("by-night", BOTH, everything=True, window=rng.choice(WINDOWS)))
    if rng.random() < 0.4:
        span = rng.choice((HOUR, 6 * HOUR, 24 * HOUR))
        narrow = {"labels": ("bench",)} if rng.random() < 0.5 else {"names": ("trial-*",)}
        policies.append(Policy("for-itself", BOTH, older_than=span, exclusive=True, **narrow))  # type: ignore[arg-type]
    if rng.random() < 0.4:
        codes = rng.choice((("nonzero",), ("zero",), (0,), (137, 143)))
        policies.append(Policy("by-code", ("container",), stopped_for=rng.choice((MINUTE, HOUR)), exit_codes=codes))
    policies = [replace(one, endpoints=rng.choice(((),) * 4 + PLACES)) for one in policies]
    if any("image" in policy.kinds for policy in policies) and rng.random() < 0.5:
        policies.append(Policy("untagged", ("image",), unused_for=10 * MINUTE, untagged=True))
    if rng.random() < 0.5:
        span, action = rng.choice((MINUTE, HOUR)), rng.choice(("delete", "delete", "stop"))
        policies.append(Policy("one-offs", ("container",), action, older_than=span, oneoff=True))
    return replace(config, policies=tuple(policies), everything_goes=config.everything_goes and rng.random() < 0.1)


def _narrowed(policy: Policy, rng: random.Random) -> Policy:
    labels = rng.choice(((),) * 4 + (("bench",), ("team=rl",)))
    names = rng.choice(((),) * 5 + (("*-db",),)) if "image" not in policy.kinds else ()
    images = rng.choice(((),) * 5 + (("acme/*",),)) if policy.kinds == ("container",) else ()
    window = rng.choice((None,) * 4 + WINDOWS)
    return replace(policy, exclude_labels=labels, exclude_names=names, exclude_images=images, window=window)


def loses_state(seed: int) -> bool:
    """Whether what the program remembers is lost in the midst of the run."""
    return random.Random(f"loses/{seed}").random() < 0.25


def shares_state(seed: int) -> bool:
    """Whether two processes that sweep at the same time have one state directory."""
    return random.Random(f"shares/{seed}").random() < 0.5


def has_pressure(seed: int) -> bool:
    """Whether policies run only while a disk is too full."""
    return not has_quotas(seed) and random.Random(f"pressure/{seed}").random() < 0.3


def _with_pressure(config: Config, rng: random.Random) -> Config:
    found = [
        Policy("pressed-containers", ("container",), older_than=rng.choice((MINUTE, HOUR)), only_under_pressure=True),
        Policy("pressed-stopped", ("container",), stopped_for=rng.choice((MINUTE, HOUR)), only_under_pressure=True),
        Policy("pressed-images", ("image",), unused_for=10 * MINUTE, only_under_pressure=True),
        Policy("pressed-volumes", ("volume", "image"), older_than=HOUR, only_under_pressure=True),
    ]
    for number in (0, 1):
        found[number] = replace(found[number], with_project=FOLLOWERS) if rng.random() < 0.3 else found[number]
    policies = (*config.policies, *rng.sample(found, rng.choice((1, 2, 3))))
    return replace(config, policies=policies, everything_goes=False)


def disk_size(seed: int, number: int) -> int:
    """How many things are on the disk of an engine at the most."""
    return random.Random(f"disk/{seed}/{number}").choice((6, 8, 10, 14, 20))


def has_instances(seed: int) -> bool:
    """Whether sandboxes carry Harbor's ``harbor.instance_id``, and a policy goes by it."""
    return random.Random(f"instances/{seed}").random() < 0.25


def has_quotas(seed: int) -> bool:
    """Whether there are quotas."""
    return random.Random(f"quotas/{seed}").random() < 0.25


def _with_quotas(config: Config, rng: random.Random) -> Config:
    found = []
    for number in range(rng.choice((1, 1, 2))):
        kinds = rng.choice((("container",), ("container",), ("sandbox",), ("container", "sandbox")))
        most = {"count": rng.choice((0, 1, 2, 3, 5))}
        if kinds == ("sandbox",) and rng.random() < 0.6:
            most = {rng.choice(("cpu", "memory", "disk")): rng.choice((2, 4, 10))}
        label, idle = rng.choice((None, "user", "user")), rng.choice((10 * MINUTE, HOUR, 8 * HOUR))
        found.append(Quota(f"quota-{number}", kinds, most, label, enforce=rng.random() < 0.85, idle_for=idle))
    return replace(config, quotas=tuple(found), everything_goes=rng.random() < 0.05, restart_policies=())


def _with_followers(config: Config, rng: random.Random) -> Config:
    every = [FOLLOWERS, FOLLOWERS, FOLLOWERS, ("volume",), ("network", "image"), ("network",)]
    usual = Policy("done", ("container",), stopped_for=rng.choice((10 * MINUTE, HOUR, 6 * HOUR)))
    policies = [
        replace(policy, with_project=rng.choice(every))
        if policy.action == "delete" and "container" in policy.kinds
        else policy
        for policy in (*config.policies, usual)
    ]
    for number in range(rng.choice((1, 2, 3))):
        kinds = rng.choice((FOLLOWERS, ("volume",), ("image",), ("network", "volume")))
        is_aged = "image" not in kinds and rng.random() < 0.3
        span = rng.choice((MINUTE, 10 * MINUTE, 10 * MINUTE, HOUR, HOUR, 6 * HOUR))
        policies.append(
            Policy(
                f"unused-{number}",
                kinds,
                older_than=rng.choice((HOUR, 24 * HOUR)) if is_aged else None,
                unused_for=None if is_aged and rng.random() < 0.5 else span,
                labels=rng.choice(((),) * 7 + (("bench",),)),
                names=rng.choice(((),) * 7 + (("trial-*",),)) if kinds == ("volume",) else (),
            )
        )
    return replace(config, policies=tuple(policies), everything_goes=rng.random() < 0.05, restart_policies=())


def kinds_of_steps(kinds: Sequence[str], seed: int, mode: str) -> Sequence[str]:
    """The kinds of the steps of a run, with those of its features."""
    found, rng = [*kinds], random.Random(f"followers/{mode}/{seed}")
    if has_followers(seed):
        found = [rng.choice(builds.MAKES) for _ in range(rng.choice((2, 3, 4)))] + found
        for _ in range(rng.choice((2, 4, 6))):
            found.insert(rng.randrange(3, len(found) + 1), rng.choice(builds.DEEDS))
        found += ["held", "spare", "once", rng.choice(("wait", "later")), rng.choice(("let_go", *builds.DEEDS)), "once"]
    rng = random.Random(f"quotas/{mode}/{seed}")
    if has_quotas(seed):
        found = [rng.choice(crowds.MAKES) for _ in range(rng.choice((2, 3, 4)))] + found
        for _ in range(rng.choice((1, 2, 3))):
            found.insert(rng.randrange(3, len(found) + 1), rng.choice(crowds.MAKES))
        found += ["once"]
    rng = random.Random(f"instances/{mode}/{seed}")
    if has_instances(seed):
        found = ["instances"] * rng.choice((1, 2, 3)) + found
        for _ in range(rng.choice((1, 2))):
            found.insert(rng.randrange(3, len(found) + 1), "instances")
    rng = random.Random(f"loses/{mode}/{seed}")
    if loses_state(seed):
        for _ in range(rng.choice((1, 1, 2))):
            found.insert(rng.randrange(len(found) // 2, len(found) + 1), "lose_state")
        found += ["once"]
    return found
