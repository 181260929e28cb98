"""Which sandboxes get an interval of the platform's own timers, and how long: generated sessions against safety.md."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reaper.config.settings import Settings
from reaper.core.decide import decide
from reaper.core.lease import Lease
from reaper.core.model import Action, Resource, State
from reaper.core.safety_net import SafetyNet, Timer, candidates, timers
from tests.core.make import HOUR, MINUTE, NOW, SANDBOX, ago, rules
from tests.core.strategies import PROPERTY

DAY = 24 * HOUR
NET = SafetyNet(auto_stop=DAY, auto_delete=3 * DAY)
BOTH = ("auto-stop", "auto-delete")
HARBOR = {"harbor.managed": "true"}
DEFAULTS = Settings().rules()
POLICIES = rules()  # none takes anything: all that is owned is kept by its age alone
ENDLESS = replace(SANDBOX, created_at=ago(hours=2), last_activity_at=ago(hours=1), lost_when_stopped=False, timers_off=BOTH)
HALTED = replace(ENDLESS, state=State.STOPPED, raw_state="stopped", stopped_at=ago(hours=1), timers_off=("auto-delete",))
EPHEMERAL = replace(ENDLESS, lost_when_stopped=True, timers_off=("auto-stop",))


def given_timers(
    resources: Sequence[Resource], net: SafetyNet = NET, leases: Sequence[Lease] = ()
) -> dict[str, list[Timer]]:
    """By id, what each is to get."""
    found = candidates(net, decide(resources, POLICIES, leases, NOW), NOW)
    assert {decision.action for decision in found} <= {Action.SET_TIMER}
    assert not any(decision.reap for decision in found)
    return {decision.resource.id: list(timers(net, decision.resource, NOW)) for decision in found}


def minutes(interval: timedelta) -> int:
    return interval // MINUTE


def test_a_running_one_is_stopped_a_day_from_now_and_deleted_three_days_after_its_stop() -> None:
    wanted = [Timer("auto-stop", minutes(DAY + HOUR)), Timer("auto-delete", minutes(3 * DAY))]
    assert given_timers([ENDLESS]) == {"s1": wanted}


def test_one_that_stopped_long_ago_is_not_deleted_at_once() -> None:
    old = replace(HALTED, created_at=ago(days=90), last_activity_at=ago(days=40), stopped_at=ago(days=40))
    assert given_timers([old]) == {"s1": [Timer("auto-delete", minutes(43 * DAY))]}


def test_an_ephemeral_one_has_one_interval_that_is_as_long_as_both() -> None:
    assert given_timers([EPHEMERAL]) == {"s1": [Timer("auto-stop", minutes(4 * DAY + HOUR))]}
    for half in (SafetyNet(auto_stop=DAY), SafetyNet(auto_delete=DAY)):
        assert given_timers([EPHEMERAL], half) == {}
        assert len(given_timers([ENDLESS], half)["s1"]) == 1


def test_an_interval_that_is_set_is_left_as_it_is_however_short_or_long() -> None:
    assert given_timers([replace(ENDLESS, timers_off=())]) == {}
    assert [t.name for t in given_timers([replace(ENDLESS, timers_off=("auto-delete",))])["s1"]] == ["auto-delete"]


LEFT_ALONE = {
    "not owned": replace(ENDLESS, labels={}),
    "labels unknown": replace(ENDLESS, labels=None),
    "kept by label": replace(ENDLESS, labels=HARBOR | {"reaper.keep": ""}),
    "kept until": replace(ENDLESS, labels=HARBOR | {"reaper.ttl": "9d"}),
    "odd label": replace(ENDLESS, labels=HARBOR | {"reaper.ttl": "soon"}),
    "leased": replace(ENDLESS, labels=HARBOR | {"reaper.lease": "run-1"}),
    "made with --no-delete": replace(ENDLESS, labels=HARBOR | {"harbor.instance_id": "i"}),
    "of a warm pool": replace(ENDLESS, system_container="an unclaimed member of a warm pool"),
    "in another region": replace(ENDLESS, excluded="in target eu, and the endpoint is limited to us"),
    "unreadable": replace(ENDLESS, unreadable="an odd time"),
    "of unknown age": replace(ENDLESS, created_at=None),
    "may be ephemeral": replace(ENDLESS, lost_when_stopped=None),
    "changing": replace(ENDLESS, state=State.CHANGING, raw_state="starting"),
    "unknown": replace(ENDLESS, state=State.UNKNOWN, raw_state="new"),
    "failed": replace(HALTED, state=State.FAILED, raw_state="error"),
    "archived": replace(HALTED, raw_state="archived"),
    "paused": replace(HALTED, raw_state="paused"),
}
ALIVE = Lease("run-1", "pid 1", since=ago(hours=3))


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_it_is_left_alone(name: str) -> None:
    one = LEFT_ALONE[name]
    assert given_timers([one], leases=[ALIVE]) == {}
    session = [replace(one, group="a"), replace(ENDLESS, id="s2", group="a"), replace(ENDLESS, id="s3", group="b")]
    by_itself = name in ("may be ephemeral", "failed", "archived", "paused")  # they keep no session
    others = {"s2", "s3"} if by_itself else {"s3"}
    assert given_timers(session, leases=[ALIVE]).keys() == others


def test_what_others_are_linked_to_is_left_alone_whatever_becomes_of_those() -> None:
    follower = replace(EPHEMERAL, id="s2", uses=frozenset({"s1"}))
    assert given_timers([ENDLESS, follower]).keys() == {"s2"}


def test_a_session_with_a_member_to_which_one_from_outside_is_linked_is_left_alone_as_a_whole() -> None:
    session = [replace(ENDLESS, id=id_, group="a") for id_ in ("s1", "s2")]
    for outside in (None, "b"):
        follower = replace(EPHEMERAL, id="s3", group=outside, uses=frozenset({"s1"}))
        assert given_timers([*session, follower]).keys() == {"s3"}
    within = replace(EPHEMERAL, id="s3", group="a", uses=frozenset({"s1"}))
    assert given_timers([*session, within]).keys() == {"s2", "s3"}


def test_a_session_with_a_member_of_an_instance_of_harbor_is_left_alone_as_a_whole() -> None:
    session = [replace(ENDLESS, id=id_, group="a") for id_ in ("s1", "s2")]
    assert given_timers(session).keys() == {"s1", "s2"}
    of_instance = replace(ENDLESS, id="s3", group="a", labels={**HARBOR, "harbor.instance_id": "i1"})
    assert given_timers([*session, of_instance]) == {}


def test_what_a_policy_takes_is_left_to_that() -> None:
    old = replace(ENDLESS, created_at=ago(days=9), last_activity_at=ago(days=9))
    decisions = decide([old], DEFAULTS, (), NOW)
    assert decisions[0].reap
    assert candidates(NET, decisions, NOW) == []


@dataclass(frozen=True)
class Spec:
    """What a sandbox is made with, in the words of the rules."""

    speaks_for_it: str  # what keeps it besides its age; empty when nothing does
    state: str
    ephemeral: bool | None
    off: frozenset[str]
    idle: timedelta
    session: str | None
    linked_to: int | None

    def resource(self, number: int) -> Resource:
        labels = {
            "": HARBOR,
            "not owned": {},
            "keep": HARBOR | {"reaper.keep": "x"},
            "until": HARBOR | {"reaper.expires": "2027-01-01T00:00:00Z"},
            "odd": HARBOR | {"reaper.ttl": "never"},
            "lease": HARBOR | {"reaper.lease": "run-1"},
            "no-delete": HARBOR | {"harbor.instance_id": "x"},
        }[self.speaks_for_it]
        states = {"started": State.RUNNING, "stopped": State.STOPPED, "archived": State.STOPPED, "error": State.FAILED}
        return replace(
            SANDBOX,
            id=f"s{number}",
            name=f"s{number}",
            labels=labels,
            group=self.session,
            state=states.get(self.state, State.CHANGING),
            raw_state=self.state,
            created_at=NOW - self.idle - HOUR,
            last_activity_at=NOW - self.idle,
            stopped_at=NOW - self.idle if self.state in ("stopped", "archived", "error") else None,
            lost_when_stopped=self.ephemeral,
            timers_off=tuple(sorted(self.off)),
            uses=frozenset() if self.linked_to is None else frozenset({f"s{self.linked_to}"}),
        )


SPECS = st.builds(
    Spec,
    st.sampled_from([*[""] * 18, "not owned", "keep", "until", "odd", "lease", "no-delete"]),
    st.sampled_from([*["started"] * 6, *["stopped"] * 3, "archived", "error", "starting"]),
    st.sampled_from([*[False] * 5, *[True] * 3, None]),
    st.frozensets(st.sampled_from(BOTH)),
    st.sampled_from([timedelta(0), timedelta(seconds=1), HOUR, 3 * DAY, 200 * DAY]),
    st.sampled_from([None, "a", "a", "b"]),
    st.sampled_from([*[None] * 12, 0, 1, 2]),
)
INTERVALS = st.sampled_from([None, 8 * HOUR, timedelta(hours=9, seconds=1), 3 * DAY])


@settings(PROPERTY, max_examples=600)
@given(st.lists(SPECS, min_size=2, max_size=6), INTERVALS, INTERVALS)
def test_nothing_gets_an_interval_that_anything_speaks_for_and_none_runs_out_early(
    specs: list[Spec], stop: timedelta | None, delete: timedelta | None
) -> None:
    resources = [spec.resource(number) for number, spec in enumerate(specs)]
    found = given_timers(resources, SafetyNet(stop, delete), [ALIVE])
    for number, spec in enumerate(specs):
        id_ = f"s{number}"
        members = [one for one in specs if spec.session is not None and one.session == spec.session] or [spec]
        kept = any(m.speaks_for_it or m.state == "starting" for m in members)
        # By identity: two sandboxes may be made alike.
        needed = any(
            other.linked_to is not None
            and other.linked_to < len(specs)
            and any(specs[other.linked_to] is member for member in members)
            and not any(other is member for member in members)
            for other in specs
        )
        if (
            kept
            or needed
            or spec.speaks_for_it
            or spec.ephemeral is None
            or spec.state not in ("started", "stopped")
            or any(other.linked_to == number for other in specs)
        ):
            assert id_ not in found
            continue
        got = {timer.name: timer.minutes * MINUTE for timer in found.get(id_, [])}
        assert got.keys() <= spec.off
        active = NOW - spec.idle
        if spec.ephemeral:
            due = "auto-stop" in spec.off and spec.state == "started" and stop is not None and delete is not None
            assert got.keys() == ({"auto-stop"} if due else set())
            assert not due or active + got["auto-stop"] >= NOW + (stop or HOUR) + (delete or HOUR)
            continue
        wanted = {"auto-stop": stop if spec.state == "started" else None, "auto-delete": delete}
        assert got.keys() == {name for name, interval in wanted.items() if interval is not None and name in spec.off}
        for name, interval in got.items():
            least = wanted[name]
            assert least is not None
            begins = NOW if spec.state == "started" and name == "auto-delete" else active
            assert begins + interval >= NOW + least
            assert begins + interval < NOW + least + MINUTE
