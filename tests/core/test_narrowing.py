"""What a policy is for besides kinds, labels and ages: exit codes, exclusions, an owner of its own, a part of the day."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.core.conditions import Policy
from reaper.core.decide import decide, explain, needs_inspection
from reaper.core.lease_index import Leases
from reaper.core.model import Decision, Kind, Reason, Resource
from reaper.core.narrowing import ExitCodes, Window
from reaper.core.scope import Selector
from reaper.core.site import Site
from tests.core.make import CONTAINERS, HOUR, MINUTE, NOW, RUNNING, STOPPED, ago, judge_one, judged, rules
from tests.core.strategies import PROPERTY

BERLIN = ZoneInfo("Europe/Berlin")
NONZERO, ZERO = ExitCodes(nonzero=True), ExitCodes(frozenset({0}))
FAILED = Policy("failed", CONTAINERS, stopped_for=24 * HOUR, exit_codes=NONZERO)
CLEAN = Policy("clean", CONTAINERS, stopped_for=HOUR, exit_codes=ZERO)
BOB = Policy("bob", CONTAINERS, older_than=96 * HOUR, selectors=(Selector(labels=("user=bob",)),))
BOBS = replace(RUNNING, labels={"user": "bob"})


def window(begin: str, end: str, zone: str = "UTC") -> Window:
    """A part of the day as the file has it."""
    return Window(time.fromisoformat(begin), time.fromisoformat(end), UTC if zone == "UTC" else ZoneInfo(zone), zone)


NIGHT = Policy("nightly", CONTAINERS, every_resource=True, window=window("11:00", "13:00"))  # it is noon


def said(resource: Resource, *policies: Policy) -> str:
    """What ``explain`` says of the first policy."""
    found = explain(resource, [resource], rules(*policies), (), NOW)
    return next(finding.sentence for finding in found if finding.rule == f"policy {policies[0].name}")


def test_what_the_first_sweep_did_not_find_is_for_no_sweep_after_it() -> None:
    """A project with one that came later stays as well; an endpoint that was not listed before has no first sweep yet."""
    every = Policy("--all", CONTAINERS, every_resource=True)
    client, server = (replace(RUNNING, id=name, name=name, group="chess") for name in ("client", "server"))
    for there, gone in (
        ({}, True),
        ({RUNNING.endpoint: frozenset({"client", "server"})}, True),
        ({RUNNING.endpoint: frozenset({"client"})}, False),
        ({RUNNING.endpoint: frozenset[str]()}, False),
        ({"another": frozenset[str]()}, True),
    ):
        decisions = judged([client, server], rules(replace(every, there=there)))
        assert [decision.reap for decision in decisions.values()] == [gone, gone], there
    late = replace(every, there={RUNNING.endpoint: frozenset()})
    assert said(client, late) == "policy --all is for what the first sweep found"


# -- exit codes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "takes"), [(0, "clean"), (1, None), (137, None), (None, None)], ids=["clean", "failed", "killed", "unknown"]
)
def test_clean_trials_go_after_an_hour_and_failed_ones_stay_for_a_day(code: int | None, takes: str | None) -> None:
    assert judge_one(replace(STOPPED, exit_code=code), rules(FAILED, CLEAN)).policy == takes


@pytest.mark.parametrize("code", [1, 137, 255])
def test_failed_trials_go_when_the_day_is_over(code: int) -> None:
    old = replace(STOPPED, exit_code=code, stopped_at=ago(hours=25))
    assert judge_one(old, rules(FAILED, CLEAN)).policy == "failed"
    assert said(old, FAILED) == f"stopped 25 h ago, exit code {code}, policy failed allows 24 h"


@pytest.mark.parametrize("policy", [FAILED, CLEAN])
def test_what_has_no_known_exit_code_matches_no_policy_that_asks_for_one(policy: Policy) -> None:
    unknown = replace(STOPPED, stopped_at=ago(days=2))
    assert judge_one(unknown, rules(policy)).reason is Reason.NO_POLICY
    assert (
        said(unknown, policy) == f"policy {policy.name} is for exit code {policy.exit_codes}, and its exit code is not known"
    )


def test_what_runs_or_never_ran_has_no_exit_code() -> None:
    anything = Policy("any", CONTAINERS, older_than=HOUR, exit_codes=ExitCodes(frozenset({0}), nonzero=True))
    created = replace(STOPPED, raw_state="created", started_at=None, stopped_at=None)
    for one in (RUNNING, created):
        assert judge_one(one, rules(anything)).reason is Reason.NO_POLICY
        assert said(one, anything).endswith(f"it is {one.raw_state} and has none")


def test_a_listed_one_whose_exit_code_is_missing_is_inspected_before_it_is_judged() -> None:
    listed = replace(STOPPED, inspected=False, stopped_at=None, started_at=None)
    decisions = decide([listed], rules(CLEAN), (), NOW)
    assert needs_inspection(decisions) == [listed]


def test_a_listed_one_whose_exit_code_is_another_is_not_inspected() -> None:
    listed = replace(STOPPED, inspected=False, stopped_at=None, started_at=None, exit_code=1)
    assert needs_inspection(decide([listed], rules(CLEAN), (), NOW)) == []


_CODES = st.builds(ExitCodes, st.frozensets(st.integers(0, 4), max_size=3), st.booleans())


@PROPERTY
@given(_CODES, _CODES)
def test_codes_cover_and_meet_others_by_what_is_in_them(one: ExitCodes, other: ExitCodes) -> None:
    some = range(9)
    assert one.covers(other) == all(code in one for code in some if code in other)
    assert one.meets(other) == any(code in one and code in other for code in some)


# -- exclusions and owners of their own --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "exclude", [Selector(labels=("user=bob",)), Selector(names=("cli*",)), Selector(images=("tb__*",))], ids=str
)
def test_what_a_policy_excludes_it_does_not_take(exclude: Selector) -> None:
    policy = Policy("old", CONTAINERS, older_than=HOUR, exclude=exclude)
    assert judge_one(BOBS, rules(policy)).reason is Reason.NO_POLICY
    assert said(BOBS, policy).startswith("policy old excludes ")
    assert judge_one(BOBS, rules(replace(policy, exclude=Selector(labels=("user=eve",))))).reap


def test_a_label_of_the_image_is_excluded_as_well() -> None:
    policy = Policy("old", CONTAINERS, older_than=HOUR, exclude=Selector(labels=("user=bob",)))
    assert not judge_one(replace(BOBS, inherited=frozenset({"user"})), rules(policy)).reap


def _exclusive(*others: Policy) -> tuple[Policy, ...]:
    return (BOB, *(replace(other, yields_to=(BOB,)) for other in others))


def test_the_age_of_an_exclusive_policy_wins() -> None:
    wide = Policy("old", CONTAINERS, older_than=HOUR)
    assert judge_one(BOBS, rules(BOB, wide)).policy == "old"
    decision = judge_one(BOBS, rules(*_exclusive(wide)))
    assert (decision.reap, decision.due_at) == (False, ago(days=3) + 96 * HOUR)
    assert judge_one(replace(BOBS, created_at=ago(days=5), started_at=ago(days=5)), rules(*_exclusive(wide))).policy == "bob"
    assert judge_one(replace(BOBS, labels={"user": "eve"}), rules(*_exclusive(wide))).policy == "old"
    (mine,) = _exclusive(wide)[1:]
    assert said(BOBS, mine) == "policy old leaves it to policy bob, which is exclusive"


def test_an_exclusive_policy_keeps_from_the_nightly_clean_too() -> None:
    assert not judge_one(BOBS, rules(*_exclusive(NIGHT))).reap


def test_what_is_excluded_keeps_its_whole_project() -> None:
    labels = {"com.docker.compose.project": "chess", "com.docker.compose.container-number": "1"}
    policy = Policy("old", CONTAINERS, older_than=HOUR, exclude=Selector(labels=("user=bob",)))
    mates = [
        replace(RUNNING, id="c1", name="one", group="chess", labels=labels),
        replace(RUNNING, id="c2", name="two", group="chess", labels={**labels, "user": "bob"}),
    ]
    assert [decision.reap for decision in judged(mates, rules(policy)).values()] == [False, False]
    assert all(decision.reap for decision in judged(mates, rules(replace(policy, exclude=Selector()))).values())


def test_a_volume_that_is_excluded_stays_when_its_project_goes() -> None:
    labels = {"com.docker.compose.project": "chess", "com.docker.compose.container-number": "1"}
    container = replace(RUNNING, group="chess", labels=labels)
    volume = replace(
        RUNNING,
        kind=Kind.VOLUME,
        id="chess_data",
        name="chess_data",
        group="chess",
        labels={"com.docker.compose.project": "chess"},
        image=None,
        raw_state="present",
        started_at=None,
    )
    takes = Policy("old", CONTAINERS, older_than=HOUR, with_project=frozenset({Kind.NETWORK, Kind.VOLUME}))
    assert [d.reap for d in judged([container, volume], rules(takes)).values()] == [True, True]
    careful = replace(takes, exclude=Selector(names=("*_data",)))
    assert [d.reap for d in judged([container, volume], rules(careful)).values()] == [True, False]


# -- a part of the day -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("begin", "end", "is_open"),
    [
        ("11:00", "13:00", True),
        ("12:00", "12:01", True),
        ("11:00", "12:00", False),
        ("22:00", "12:30", True),
        ("22:00", "12:00", False),
        ("12:00", "00:00", True),
        ("00:00", "12:00", False),
    ],
)
def test_a_window_is_open_from_its_beginning_to_before_its_end(begin: str, end: str, is_open: bool) -> None:
    policy = replace(NIGHT, window=window(begin, end))
    young = replace(RUNNING, created_at=ago(minutes=1), started_at=ago(minutes=1))
    decision = judge_one(young, rules(policy))
    assert (decision.reap, decision.reason) == ((True, Reason.ALL) if is_open else (False, Reason.NO_POLICY))
    assert f"between {begin} and {end} (UTC)" in decision.sentence


def _berlin(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        ("2026-03-29T01:59:59+01:00", False),  # clocks go from 02:00 to 03:00
        ("2026-03-29T03:00:00+02:00", True),
        ("2026-03-29T04:59:59+02:00", True),
        ("2026-03-29T05:00:00+02:00", False),
        ("2026-10-25T02:00:00+02:00", True),  # and from 03:00 to 02:00
        ("2026-10-25T02:30:00+01:00", True),
        ("2026-10-25T04:59:59+01:00", True),
        ("2026-10-25T05:00:00+01:00", False),
        ("2026-07-01T02:00:00+02:00", True),
        ("2026-07-01T01:59:59+02:00", False),
    ],
)
def test_a_window_is_as_the_clocks_of_its_zone_show(moment: str, is_open: bool) -> None:
    assert window("02:00", "05:00", "Europe/Berlin").is_open(_berlin(moment)) is is_open


@PROPERTY
@given(st.times(), st.times(), st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)))  # noqa: DTZ001
def test_a_window_and_the_rest_of_the_day_share_no_moment(begin: time, end: time, naive: datetime) -> None:
    moment = naive.replace(tzinfo=UTC)
    if begin != end:
        one, rest = Window(begin, end, BERLIN, ""), Window(end, begin, BERLIN, "")
        assert one.is_open(moment) is not rest.is_open(moment)


def test_the_window_is_by_this_hosts_clock_and_not_by_the_endpoints() -> None:
    policy = replace(NIGHT, window=window("02:00", "12:00"))
    for skew, reaped in ((20 * MINUTE, True), (-20 * MINUTE, False)):
        leases = Leases((), Site("one", skew=skew))
        assert decide([RUNNING], rules(policy), leases, NOW)[0].reap is reaped


def test_the_nightly_clean_takes_what_is_young_and_leaves_what_may_be_about_to_start() -> None:
    young = replace(RUNNING, created_at=ago(minutes=1), started_at=ago(minutes=1))
    created = replace(young, raw_state="created", started_at=None)
    assert judge_one(young, rules(NIGHT)).reason is Reason.ALL
    assert judge_one(created, rules(NIGHT)).reason is Reason.CREATED_GRACE


@pytest.mark.parametrize(
    "label", [{"reaper.ttl": "100d"}, {"reaper.expires": "2027-01-01T00:00:00Z"}, {"reaper.keep": ""}, {"reaper.lease": "x"}]
)
def test_the_nightly_clean_respects_what_a_resource_says_itself(label: dict[str, str]) -> None:
    young = replace(RUNNING, created_at=ago(hours=2), started_at=ago(hours=2))
    assert judge_one(young, rules(NIGHT)).reap
    assert not judge_one(replace(young, labels=label), rules(NIGHT)).reap


_POLICIES: Sequence[Policy] = (BOB, FAILED, CLEAN, NIGHT, Policy("old", CONTAINERS, older_than=HOUR))


@PROPERTY
@given(
    st.sets(st.sampled_from(range(len(_POLICIES)))),
    st.sampled_from((None, 0, 1)),
    st.sampled_from(({}, {"user": "bob"}, {"user": "eve"})),
    st.sampled_from((Selector(), Selector(labels=("user=bob",)), Selector(names=("client",)))),
    st.sampled_from((None, window("11:00", "13:00"), window("02:00", "05:00"))),
)
def test_narrowing_takes_nothing_that_would_have_stayed(
    chosen: set[int], code: int | None, labels: dict[str, str], exclude: Selector, opening: Window | None
) -> None:
    one = replace(STOPPED, exit_code=code, labels=labels)
    policies = [_POLICIES[i] for i in sorted(chosen)]
    narrowed = [replace(p, exclude=exclude, window=p.window or opening, yields_to=(BOB,)) for p in policies]

    def by(some: Sequence[Policy]) -> Decision:
        return judge_one(one, rules(*some))

    assert by(policies).reap or not by(narrowed).reap
