"""The rules of deletion for what has no processes: networks, volumes and images, with their project or unused by themselves.

As in ``oracle``, of which this is a part, all of it is written from the rules alone.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from tests.promise.truth import NUMBER, ONEOFF, PROJECT, Container, Image, Network, Policy, Volume, key

if TYPE_CHECKING:
    from tests.promise.oracle import Oracle, Reasons

Follower = Network | Volume | Image
SERVICE = "com.docker.compose.service"
KINDS: Mapping[type, str] = {Network: "network", Volume: "volume", Image: "image"}
GRACE = timedelta(minutes=10)
HOUR = timedelta(hours=1)
SETTLED = timedelta(minutes=15)  # from a use to the sweep that sees its end, at most, where nothing fails
# As an engine lists them.
PRESETS_TAGS: Mapping[str, frozenset[str]] = {
    "terminal-bench": frozenset({"tb__chess__client:latest", "localhost:5000/tb__fix-git__client:1.2"}),
    "harbor": frozenset({"hb__swe-bench:latest"}),
}


def is_owned(oracle: "Oracle", thing: Volume | Image) -> bool:
    """Whether the scope matches it, by what it says itself."""
    if oracle.config.everything:
        return True
    if isinstance(thing, Volume):
        return oracle._preset(thing) or oracle._listed(thing)  # type: ignore[arg-type]
    tags = thing.tags or oracle.world.called.get(thing.id, ())  # an image that lost its tag stays what it was called
    return _says_so(oracle, thing) or (bool(tags) and all(_is_own_tag(oracle, tag) for tag in tags))


def _says_so(oracle: "Oracle", image: Image) -> bool:
    from tests.promise.oracle import LABEL_PATTERNS

    labels, presets = image.labels, oracle.config.presets
    marked = ("terminal-bench" in labels and "terminal-bench" in presets) or (
        labels.get("harbor.managed") == "true" and "harbor" in presets
    )
    return marked or any(LABEL_PATTERNS[pattern](labels) for pattern in oracle.config.labels)


def _is_own_tag(oracle: "Oracle", tag: str) -> bool:
    from tests.promise.oracle import IMAGE_PATTERNS

    by_preset = any(tag in PRESETS_TAGS[preset] for preset in oracle.config.presets)
    return by_preset or any(IMAGE_PATTERNS[pattern](tag) for pattern in oracle.config.images)


# -- with their project ----------------------------------------------------------------------------------------------------


def project_of(thing: Follower) -> str | None:
    """The project that it belongs to; of images only what a build of the project made, and gave no other name."""
    project = (thing.labels or {}).get(PROJECT)
    if project is None or not isinstance(thing, Image):
        return project
    labels = thing.labels
    committed = NUMBER in labels or ONEOFF in labels
    names = {f"{project}{between}{labels.get(SERVICE)}:latest" for between in "-_"}
    return project if not committed and SERVICE in labels and len(thing.tags) == 1 and thing.tags[0] in names else None


def built_for(oracle: "Oracle", project: str) -> Iterator[Image]:
    """The images that were built for a project."""
    return (image for image in oracle.world.images if project_of(image) == project)


def owned_with_project(oracle: "Oracle") -> frozenset[str]:
    """The keys of the volumes and images of projects all of whose containers are owned."""
    whole = {unit[0] for unit, members in oracle.units.items() if all(oracle._owned(member) for member in members)}
    some: tuple[Volume | Image, ...] = (*oracle.world.volumes, *oracle.world.images)
    return frozenset(key(thing) for thing in some if project_of(thing) in whole)


def go_along(oracle: "Oracle", thing: Follower, project: str) -> bool:
    """Whether each container of its project goes by a policy that takes such a thing along."""
    return all(_takes_along(oracle, member, KINDS[type(thing)]) for member in oracle._of_project(project))


def _takes_along(oracle: "Oracle", member: Container, kind: str) -> bool:
    from tests.promise.oracle import Reasons

    override = oracle._override(member, Reasons())
    is_due = override is not None and override <= oracle.world.now
    if kind == "network" and (oracle._taken(member) or oracle.config.everything_goes or is_due):
        return True
    labels = member.labels or {}
    if oracle.config.everything_goes:
        return False
    return any(kind in policy.with_project and oracle._matches(member, policy, labels) for policy in oracle.policies)


def _goes_with_project(oracle: "Oracle", thing: Volume | Image) -> list[str]:
    """Why it does not go with its project."""
    kind, project = KINDS[type(thing)], project_of(thing)
    if project is None:
        return ["it has no project"]
    if not any(kind in policy.with_project and "container" in policy.kinds for policy in oracle.policies):
        return [f"no policy takes {kind}s with their project"]
    members = oracle._of_project(project)
    if not members:
        return [] if key(thing) in oracle.world.begun else ["its project is gone, and no sweep has taken it"]
    if len(oracle._directories(project)) > 1:
        return ["its project may be another one of that name"]
    if not all(oracle._owned(member) or oracle._remembered(member) for member in members):
        return ["its project is not owned"]
    again = isinstance(thing, Image) and _is_built_again(thing, members)
    found = ["its project may be about to have it: it was built again since its containers were used"] if again else []
    return found if found or go_along(oracle, thing, project) else ["its project's policies do not take it along"]


def _is_built_again(image: Image, members: Iterable[Container]) -> bool:
    """Whether that was after all that is known of the containers that were made of it: for the next ``up``."""
    users = [member for member in members if member.image_id == image.id]
    last = [at for one in users for at in (one.created, one.started, one.finished) if at is not None]
    return image.tagged is not None and bool(last) and image.tagged > max(last)


# -- by themselves ---------------------------------------------------------------------------------------------------------


def users(oracle: "Oracle", thing: Follower) -> list[Container]:
    """The containers that have it, running or not, or name it as their image."""
    return [container for container in oracle.world.containers if has(container, thing)]


def has(container: Container, thing: Follower) -> bool:
    """Whether a container has it, or names it as its image."""
    match thing:
        case Volume():
            return thing.name in container.volumes
        case Network():
            return thing.name in container.networks
        case _:
            named = container.image if ":" in container.image.rpartition("/")[2] else f"{container.image}:latest"
            return container.image_id == thing.id or named in thing.tags


def _unmet(oracle: "Oracle", thing: Follower, policy: Policy) -> Iterator[str]:
    """Why a policy for its kind does not take it."""
    from tests.promise.oracle import LABEL_PATTERNS, NAME_PATTERNS

    labels, name = thing.labels or {}, "" if isinstance(thing, Image) else thing.name
    if not all(LABEL_PATTERNS[pattern](labels) for pattern in policy.labels):
        yield "its labels are others"
    if policy.names and not any(NAME_PATTERNS[pattern](name) for pattern in policy.names):
        yield "its name is another"
    if not oracle._is_open(policy) or oracle._excluded(thing, policy):
        yield "it is left out"
    if policy.untagged and isinstance(thing, Image) and thing.tags:
        yield "it has a tag"
    world = oracle.world
    if policy.older_than is not None and (thing.created is None or world.now - thing.created < policy.older_than):
        yield "it is young"
    if policy.unused_for is None:
        return
    used, seen = world.used.get(key(thing)), world.seen.get(key(thing))
    if used is not None and world.now - used < policy.unused_for:
        yield f"it was used {world.now - used} ago"
    if seen is None or world.now - seen < policy.unused_for:
        yield "it has not been watched for so long"


def by_itself(oracle: "Oracle", thing: Follower) -> list[str]:
    """Why no policy for its kind takes it."""
    policies = [policy for policy in oracle.policies if KINDS[type(thing)] in policy.kinds]
    if not policies or oracle.config.everything_goes:
        return [f"no policy is for {KINDS[type(thing)]}s"]
    if abs(oracle.world.skew) > HOUR:
        return ["a clock that cannot be trusted"]
    found = [f"{user.id} depends on it" for user in users(oracle, thing)]
    project = (thing.labels or {}).get(PROJECT)
    if project is not None and not isinstance(thing, Image) and oracle._of_project(project):
        found.append("its project has containers")
    if isinstance(thing, Network) and (thing.created is None or oracle.world.now - thing.created < GRACE):
        found.append("containers may be about to join it")
    each = [[*_unmet(oracle, thing, policy)] for policy in policies]
    return found + (min(each, key=len) if all(each) else [])


def _surely_unused(oracle: "Oracle", thing: Follower) -> bool:
    """Whether the program must know that it is unused for long enough."""
    world, used = oracle.world, oracle.world.used.get(key(thing))
    since = [time for time in (used, world.seen.get(key(thing)), world.steady) if time is not None]
    spans = [
        policy.unused_for
        for policy in oracle.policies
        if KINDS[type(thing)] in policy.kinds and policy.unused_for is not None and policy.older_than is None
        if not [*_unmet(oracle, thing, policy)]
    ]
    return world.steady is not None and any(world.now - max(since) >= span + SETTLED for span in spans)


def judge(oracle: "Oracle", thing: Volume | Image, reasons: "Reasons") -> None:
    """Whether anything makes a volume or an image garbage; else it stays."""
    override = oracle._override(thing, reasons)
    if oracle._taken(thing):
        if isinstance(thing, Image):
            reasons.open.append("images are taken by more than this oracle knows")
        return
    if override is not None and override > oracle.world.now:
        reasons.never.append("its own label override is not due")
    along, alone = _goes_with_project(oracle, thing), by_itself(oracle, thing)
    if override is not None:
        reasons.open.append("its own label override is due")
        is_listed = any(KINDS[type(thing)] in (*p.kinds, *p.with_project) for p in oracle.policies)
        alone = [] if is_listed else alone
    if not along:
        reasons.never = [why for why in reasons.never if why != "unowned"]
    elif alone:
        # Both hold: it is shown by others, and by no look at it, as soon as one of them is.
        reasons.never += along[:1] if along[0].startswith("its project") else alone
    is_image = isinstance(thing, Image) and along and not oracle.config.everything
    if is_image and not all(_is_own_tag(oracle, tag) for tag in thing.tags):  # type: ignore[union-attr]
        reasons.open.append("a tag that is not owned")
    if isinstance(thing, Image) and not thing.tags:
        reasons.open.append("whether it was listed while it had its tag is not known here")
    its_project = oracle._of_project((thing.labels or {}).get(PROJECT, ""))  # whatever carries its labels may be its own
    if alone or its_project or not _surely_unused(oracle, thing):
        reasons.open.append("when it goes is not sure")


def is_judged_alone(oracle: "Oracle", network: Network, reasons: "Reasons") -> bool:
    """Whether a policy for networks takes it by itself."""
    if by_itself(oracle, network):
        return False
    if (network.labels or {}).get(PROJECT) is not None or not _surely_unused(oracle, network):
        reasons.open.append("when it goes is not sure")
    return True
