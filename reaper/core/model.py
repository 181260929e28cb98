"""The words of this program as frozen dataclasses and enums. No behaviour beyond what follows from the fields."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from reaper.core.accounts import UNKNOWN_FOOTPRINT, Footprint, LastLook, Prune, Saving
from reaper.core.accounts import Remembered as Remembered  # noqa: PLC0414 - it is a word of the model, too
from reaper.core.disk import DiskUsage
from reaper.core.kinds import Action as Action  # noqa: PLC0414 - they are words of the model, too
from reaper.core.kinds import Kind as Kind  # noqa: PLC0414 - they are words of the model, too
from reaper.core.kinds import Outcome as Outcome  # noqa: PLC0414 - they are words of the model, too
from reaper.core.kinds import State as State  # noqa: PLC0414 - they are words of the model, too
from reaper.core.site import Site

TESTCONTAINERS_REAPER = "the reaper of Testcontainers"  # of all system containers the only kind that a run starts for itself
TIME_UP = "timeout"
ANY_ACTION = frozenset(Action)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One thing that can be deleted, as it was when it was last looked at. All times are aware UTC.

    Fields that the provider could not read are None, which keeps the resource.

    Args:
        id: what the provider deletes by: never a name, since names are reused, but of a volume (see ``identity``).
        raw_state: the provider's own word for the state.
        started_at: the last start; as ``stopped_at``, the last stop, None when there was none or it is not known yet.
        last_activity_at: the last sign of life, where the provider has such a thing.
        updated_at: the last change of anything about it, where the provider reports that.
        created_at_inexact: ``created_at`` may be too late: it is the time of the last change, where no other is known.
        exit_code: of a container that has run and ended; None of any other, and where it is not known.
        image: the full reference as its creator wrote it; None where there is none. Of an image, the first of ``tags``.
        tags: all references of an image, in order.
        group: the key of what it lives and dies with (a Compose project; if ``in_pod`` a pod); None when it stands alone.
        uses: ids of what would break it by going (another container's network namespace, networks, volumes, its image).
        host: the machine of the platform that it runs on, where the platform says so. It may move.
        links_known: False while only an inspection can show what it depends on and would go with.
        restart_policy: the engine's, when inspected.
        lost_when_stopped: whether a stop destroys it (``docker run --rm``, an ephemeral sandbox); None when not known.
        auto_stop: how long the platform lets it run without activity; 0 for ever, None when that or its activity is unknown.
        timers_off: the timers of the platform that would end it without this program, and are off ("auto-stop").
        changed_by: of one that is changing: the actions of this program that may have brought that about, if not others did.
        inspected: False while only the listing has been read: times, image and restart policy may be missing.
        image_unresolved: the listing had only an image id, so what its creator called it is not known yet.
        system_container: which system container of the host it is ("a Kubernetes pod"), else None.
        remembered: set by the sweep when an earlier one saw its owned group whole.
        image_id: the id of a container's image, where the endpoint reports it.
        volume_labels: labels of the anonymous volumes that go with a container, where it has any: they may protect it.
        inherited: keys of the labels that come from its image, which has them with the same value: they protect, and take
            nothing. None while the image's labels are not known: then none of its labels takes anything.
        tagged_at: when an image was last built or tagged here, where an inspection shows that.
        arrived_at: when an image was last pulled, loaded or tagged here, as far as that was watched.
        pulled: of an image, whether a registry is known to have it: it can be pulled again.
        layers: of an image, the digests of its layers from the lowest on; empty while only the listing has been read.
        size: in bytes, where that is known.
        footprint: what it takes up while it is there, as far as its endpoint reports that.
        alone: it goes by itself although it is a member of a project, and has no ``group`` then.
        anonymous: of a volume, whether the engine made up its name.
        prune: of a build cache, what is to go; set when that is decided.
        last_used_at: when something used it last, as far as that was watched; None where that is not known.
        watched_since: since when that has been watched without a gap.
        unreadable: why it could not be read, if so.
        excluded: why the endpoint's own filter leaves it out ("in target eu, ..."), if so: it stays, as does its group.
    """

    provider: str
    endpoint: str
    kind: Kind
    id: str
    name: str
    state: State
    raw_state: str
    created_at: datetime | None
    labels: Mapping[str, str] | None
    started_at: datetime | None = None
    stopped_at: datetime | None = None
    last_activity_at: datetime | None = None
    updated_at: datetime | None = None
    created_at_inexact: bool = False
    exit_code: int | None = None
    image: str | None = None
    tags: tuple[str, ...] = ()
    group: str | None = None
    in_pod: bool = False
    uses: frozenset[str] = frozenset()
    host: str | None = None
    links_known: bool = True
    restart_policy: str | None = None
    lost_when_stopped: bool | None = False
    auto_stop: timedelta | None = None
    timers_off: tuple[str, ...] = ()
    changed_by: frozenset[Action] = ANY_ACTION
    inspected: bool = True
    image_unresolved: bool = False
    system_container: str | None = None
    remembered: Remembered | None = None
    image_id: str | None = None
    volume_labels: Mapping[str, str] | None = None
    inherited: frozenset[str] | None = frozenset()
    tagged_at: datetime | None = None
    arrived_at: datetime | None = None
    pulled: bool = False
    layers: tuple[str, ...] = ()
    size: int | None = None
    footprint: Footprint = UNKNOWN_FOOTPRINT
    alone: bool = False
    anonymous: bool = False
    prune: Prune | None = None
    last_used_at: datetime | None = None
    watched_since: datetime | None = None
    unreadable: str | None = None
    excluded: str | None = None

    @property
    def own_labels(self) -> Mapping[str, str]:
        """The labels that may take it: those that did not come with its image. All of ``labels`` may protect it."""
        labels = self.labels or {}
        if self.inherited is None:
            return {}
        return {key: text for key, text in labels.items() if key not in self.inherited} if self.inherited else labels

    @property
    def protecting_labels(self) -> Mapping[str, str]:
        """The labels that may keep it."""
        return {**self.volume_labels, **(self.labels or {})} if self.volume_labels else self.labels or {}

    @property
    def identity(self) -> tuple[str, datetime | None]:
        """What no other resource of the endpoint ever has.

        A new volume may have the name of one that is gone, and Podman with CNI makes the id of a network from its name. Of
        the build cache, which is never gone, its oldest part stands for what is to go.
        """
        if self.kind is Kind.BUILD_CACHE:
            return self.id, self.last_used_at
        by_name = self.kind in (Kind.VOLUME, Kind.NETWORK) and not self.created_at_inexact
        return self.id, self.created_at if by_name else None

    @property
    def short_id(self) -> str:
        """What people call it by beside its name; of a volume that is its whole name."""
        return self.id if self.kind in (Kind.VOLUME, Kind.BUILD_CACHE) else self.id.removeprefix("sha256:")[:12]

    @property
    def group_word(self) -> str:
        """What people call its group."""
        return "session" if self.kind is Kind.SANDBOX else "pod" if self.in_pod else "project"

    @property
    def never_started(self) -> bool:
        """Created, and not started yet."""
        return self.raw_state == "created"


class Verdict(StrEnum):
    """What the rules say."""

    REAP = "reap"
    KEEP = "keep"


class Reason(StrEnum):
    """Why a resource is reaped or kept: a closed list. The sentence beside it has the numbers."""

    # reaped
    OLDER_THAN = "older_than"
    STOPPED_FOR = "stopped_for"
    IDLE_FOR = "idle_for"
    UNUSED_FOR = "unused_for"
    LARGER_THAN = "larger_than"
    ORPHANED = "orphaned"
    UNTAGGED = "untagged"
    ANONYMOUS = "anonymous"
    STATE = "state"
    ALL = "all"
    TTL_ENDED = "ttl_ended"
    EXPIRED = "expired"
    LEASE_ENDED = "lease_ended"
    GROUP_REAPED = "group_reaped"
    # kept
    UNREADABLE = "unreadable"
    NOT_OWNED = "not_owned"
    EXCLUDED = "excluded"
    SYSTEM_CONTAINER = "system_container"
    PROTECTED = "protected"
    KEEP_LABEL = "keep_label"
    INVALID_LABEL = "invalid_label"
    LEASED = "leased"
    LEASE_UNKNOWN = "lease_unknown"
    CHANGING = "changing"
    UNKNOWN_STATE = "unknown_state"
    RESTART_POLICY = "restart_policy"
    CREATED_GRACE = "created_grace"
    LABEL_NOT_DUE = "label_not_due"
    TOO_YOUNG = "too_young"
    NO_POLICY = "no_policy"
    GROUP_KEPT = "group_kept"
    GROUP_UNCLEAR = "group_unclear"
    IN_USE = "in_use"
    NOT_DUE = "not_due"


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to become of one resource, and why.

    Args:
        said: ``sentence``, or what returns it: of thousands few are shown.
        owner: what makes it owned ("preset harbor"); None when it is not owned.
        policy: the first policy of the strongest action that matched; None where none decided.
        action: what is to be done with it when the verdict is to reap.
        since: from when on it was reapable (aware UTC), where that is known.
        stop_timeout: how long a running one gets to stop by itself.
        due_at: for a resource that is only too young: when that ends, if nothing else happens.
        would_match: for one that is not owned: a policy that it would match if it were.
        by_image: for one that is not owned: it would be if labels counted that came with its image, or may have done so.
        preset: for one that is not owned: which preset would own it if [scope] named that; set where people look.
        lease: the lease that covers it, living or ended.
        brief: ``phrase``, or what returns it.
        saving: what its deletion is worth; set when it is about to be deleted.
    """

    resource: Resource
    verdict: Verdict
    reason: Reason
    said: str | Callable[[], str] = field(compare=False)
    policy: str | None = None
    owner: str | None = None
    since: datetime | None = None
    stop_timeout: timedelta = timedelta(seconds=10)
    due_at: datetime | None = None
    would_match: bool = False
    by_image: bool = False
    preset: str | None = None
    lease: str | None = None
    brief: str | Callable[[], str] = field(default="", compare=False)
    saving: Saving | None = None
    action: Action = Action.DELETE

    @property
    def sentence(self) -> str:
        """The reason for people, with the numbers in it."""
        return self.said if isinstance(self.said, str) else self.said()

    @property
    def phrase(self) -> str:
        """The reason in a few words, for a table."""
        return self.brief if isinstance(self.brief, str) else self.brief()

    @property
    def reap(self) -> bool:
        """Whether the verdict is to reap."""
        return self.verdict is Verdict.REAP

    @property
    def deletes(self) -> bool:
        """Whether it is to be deleted, and not only stopped or archived."""
        return self.reap and self.action is Action.DELETE


@dataclass(frozen=True, slots=True)
class Result:
    """What was done about one decision to reap.

    Args:
        detail: for people: why it was skipped, what failed. Empty when it simply went well.
        attempts: how many calls to delete, stop or archive it were made.
        seconds: from the first look until the outcome was known.
        error: the error's class (``ProviderError.label``) when it failed.
        freed: bytes that its deletion gave back, where that is known.
        look: the last look at it.
        evidence: whether what was known of it was saved before; None where that was not tried.
    """

    decision: Decision
    outcome: Outcome
    detail: str = ""
    attempts: int = 0
    seconds: float = 0.0
    error: str | None = None
    freed: int | None = None
    look: LastLook | None = None
    evidence: bool | None = None

    @property
    def failed(self) -> bool:
        """Whether what was decided could not be done, or only something weaker: a stop where the deletion was denied."""
        return self.outcome is Outcome.FAILED or (self.outcome is Outcome.STOPPED and self.decision.action is Action.DELETE)


@dataclass(frozen=True, slots=True)
class CapHit:
    """The deletion cap was hit: nothing of what it counts was deleted.

    Args:
        wanted: how many resources would have gone.
        allowed: how many may go in one sweep.
        held: how many resources the endpoint holds.
        limit: the limit's name and value, for people.
        of_leases: whether it is about what leases have left; else about what policies and label overrides reap.
    """

    wanted: int
    allowed: int
    held: int
    limit: str
    of_leases: bool = False


@dataclass(frozen=True, slots=True)
class EndpointFailure:
    """Why an endpoint could not be listed. ``label`` is the error's class, ``message`` is for people."""

    label: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointReport:
    """What one sweep found and did on one endpoint.

    Args:
        held: how many resources it holds.
        decisions: one for every resource that was listed.
        results: one for every decision to reap, also when nothing was done about it.
        failure: set when the endpoint could not be listed; then what was not confirmed is failed.
        clock_skew: the endpoint's clock minus this host's, when that is more than a minute.
        warnings: what people should know and is no failure.
        site: where leases were asked about.
        unjudged: volumes and images of Compose projects that no rule judges, where they were asked for.
        disk: how full its disk was at the end, where a policy depends on that.
    """

    endpoint: str
    provider: str
    held: int = 0
    decisions: tuple[Decision, ...] = ()
    results: tuple[Result, ...] = ()
    failure: EndpointFailure | None = None
    cap: CapHit | None = None
    clock_skew: timedelta = timedelta(0)
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    site: Site = field(default_factory=Site)
    unjudged: tuple[Resource, ...] = ()
    disk: DiskUsage | None = None

    @property
    def undecided(self) -> int:
        """How many of those that it holds nothing was decided about: that is not kept, and not deleted either."""
        return max(self.held - len(self.decisions), 0) if self.failure is not None else 0

    @property
    def removed(self) -> frozenset[str]:
        """The ids of what is not there any more."""
        return frozenset(result.decision.resource.id for result in self.results if result.outcome.removed)

    @property
    def remaining(self) -> tuple[Decision, ...]:
        """The decisions about what is still there, or may be."""
        removed = self.removed
        return tuple(decision for decision in self.decisions if decision.resource.id not in removed)

    def count(self, outcome: Outcome) -> int:
        """How many results have this outcome."""
        return sum(result.outcome is outcome for result in self.results)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one sweep found and did.

    Args:
        interrupted: the signal's name when one ended the sweep early, ``TIME_UP`` when the time was up.
        hints: sentences that end in a command to try.
    """

    started_at: datetime
    seconds: float
    dry_run: bool
    endpoints: tuple[EndpointReport, ...]
    interrupted: str | None = None
    hints: tuple[str, ...] = field(default=())

    @property
    def results(self) -> tuple[Result, ...]:
        """The results of all endpoints."""
        return tuple(result for endpoint in self.endpoints for result in endpoint.results)

    def count(self, outcome: Outcome) -> int:
        """How many results of all endpoints have this outcome."""
        return sum(endpoint.count(outcome) for endpoint in self.endpoints)
