"""What is read from Daytona's rows: honest ages, what is under way, and no row that breaks anything."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reaper.core.model import Action, Kind, State
from reaper.providers.daytona.sandboxes import sandbox
from reaper.providers.parsing import labels, moment
from reaper.simulator.daytona.model import STATES

ID = "1fad5820-7c1d-4d0f-9d0a-1f1a3ed3a2b1"
CREATED, STOPPED, UPDATED = "2026-11-21T07:08:13.919Z", "2026-11-21T09:00:00.000Z", "2026-11-21T10:30:00.000Z"
LISTED: dict[str, Any] = {
    "id": ID,
    "organizationId": "org",
    "name": "chess",
    "target": "us",
    "runnerId": "runner-7",
    "state": "stopped",
    "desiredState": "stopped",
    "snapshot": "daytonaio/sandbox:0.5.0-slim",
    "labels": {"harbor.managed": "true", "harbor.session_id": "chess__1"},
    "createdAt": CREATED,
    "updatedAt": UPDATED,
    "lastActivityAt": STOPPED,
}
FIELDS = (*LISTED, "warmPoolId", "linkedSandboxId")


def read(**fields: Any) -> Any:
    return sandbox({**LISTED, **fields}, "rl-org")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def test_a_whole_row() -> None:
    found = read()
    assert (found.provider, found.endpoint, found.kind, found.id) == ("daytona", "rl-org", Kind.SANDBOX, ID)
    assert (found.name, found.state, found.raw_state) == ("chess", State.STOPPED, "stopped")
    assert found.created_at == datetime(2026, 11, 21, 7, 8, 13, 919000, tzinfo=UTC)
    assert found.stopped_at == found.last_activity_at == datetime(2026, 11, 21, 9, tzinfo=UTC)
    assert found.started_at is None
    assert found.labels == LISTED["labels"]
    assert (found.group, found.image, found.host) == ("chess__1", "daytonaio/sandbox:0.5.0-slim", "runner-7")
    assert (found.system_container, found.unreadable, found.uses) == (None, None, frozenset())
    assert found.inspected


# Ages


@pytest.mark.parametrize("state", ["stopped", "paused", "archived"])
def test_the_stop_is_the_last_activity(state: str) -> None:
    assert read(state=state, desiredState=state).stopped_at == at(STOPPED)


@pytest.mark.parametrize("state", ["error", "build_failed"])
def test_of_what_has_failed_a_later_write_counts_as_well(state: str) -> None:
    """An order to recover it is one, and no activity."""
    later, earlier = "2026-11-21T11:00:00.000Z", "2026-11-21T08:00:00.000Z"
    assert read(state=state, desiredState="started", updatedAt=later).stopped_at == at(later)
    assert read(state=state, desiredState="started", updatedAt=earlier).stopped_at == at(STOPPED)


@pytest.mark.parametrize("state", ["started", "starting", "destroying", "unknown", "hibernating"])
def test_what_has_not_stopped_has_no_stop(state: str) -> None:
    found = read(state=state, desiredState=state)
    assert found.stopped_at is None
    assert found.last_activity_at == at(STOPPED)


def test_the_stop_is_never_before_the_creation() -> None:
    assert read(lastActivityAt="2020-01-01T00:00:00Z").stopped_at == at(CREATED)


def test_an_update_makes_nothing_younger_where_an_activity_is_known() -> None:
    assert read(updatedAt="2026-11-22T00:00:00Z").stopped_at == at(STOPPED)


@pytest.mark.parametrize("missing", [None, ""])
def test_without_an_activity_the_latest_of_what_is_known_counts(missing: str | None) -> None:
    found = read(lastActivityAt=missing)
    assert found.stopped_at == found.last_activity_at == at(UPDATED)
    assert found.unreadable is None
    assert read(lastActivityAt=missing, updatedAt=missing).stopped_at == at(CREATED)
    assert read(lastActivityAt=missing, updatedAt="2020-01-01T00:00:00Z").stopped_at == at(CREATED)
    assert read(lastActivityAt=missing, updatedAt=missing, createdAt=missing).stopped_at is None


def test_without_a_creation_there_is_no_age() -> None:
    found = read(createdAt=None)
    assert found.created_at is None
    assert found.stopped_at == at(STOPPED)


@pytest.mark.parametrize("field", ["createdAt", "updatedAt", "lastActivityAt"])
@pytest.mark.parametrize("time", ["2026-11-21T07:08:13", "yesterday", 1763708893, 1.5, True, {}, [], "2026-13-01T00:00:00Z"])
def test_a_time_that_cannot_be_read_or_has_no_zone_makes_it_unreadable(field: str, time: object) -> None:
    found = read(**{field: time})
    assert found.unreadable is not None
    assert field in found.unreadable


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_beyond_all_calendars_makes_it_unreadable(time: str) -> None:
    found = read(createdAt=time)
    assert (found.created_at, found.unreadable is None) == (None, False)


def test_times_of_other_zones_are_the_same_times() -> None:
    assert moment("2026-11-21T12:08:13+05:00") == moment("2026-11-21T07:08:13Z")
    assert read(createdAt="2026-11-21T12:08:13.919+05:00").created_at == at(CREATED)


# States


@pytest.mark.parametrize("state", [*sorted(STATES), "hibernating", ""])
def test_what_is_to_be_destroyed_is_changing(state: str) -> None:
    found = read(state=state, desiredState="destroyed")
    assert found.state is State.CHANGING
    assert found.stopped_at is None
    assert found.raw_state.startswith(state)


SETTLED = ("started", "stopped", "paused", "archived")


@pytest.mark.parametrize("wanted", SETTLED)
@pytest.mark.parametrize("state", SETTLED)
def test_what_is_to_become_another_settled_state_is_changing(state: str, wanted: str) -> None:
    found = read(state=state, desiredState=wanted)
    assert (found.state is State.CHANGING) is (state != wanted)
    assert found.raw_state == (state if state == wanted else f"{state}, to be {wanted}")


@pytest.mark.parametrize("wanted", [None, "", 7, "resized", "started"])
def test_what_failed_stays_failed_whatever_was_wanted(wanted: object) -> None:
    assert read(state="error", desiredState=wanted).state is State.FAILED


@pytest.mark.parametrize(
    ("state", "wanted", "by"),
    [
        ("destroying", "destroyed", {Action.DELETE}),
        ("paused", "destroyed", {Action.DELETE}),
        ("destroying", "started", {Action.DELETE}),  # a server that does not say what it works towards
        ("stopping", "stopped", {Action.STOP, Action.ARCHIVE}),
        ("stopping", "started", {Action.STOP, Action.ARCHIVE}),
        ("archiving", "archived", {Action.ARCHIVE}),
        ("starting", "started", set()),
        ("stopped", "started", set()),
        ("resizing", "resized", set()),
        ("snapshotting", "started", set()),
        ("archiving", "started", set()),
        ("starting", None, set(Action)),
        ("stopped", "stopped", set(Action)),
    ],
)
def test_what_may_have_brought_a_change_about(state: str, wanted: str | None, by: set[Action]) -> None:
    assert read(state=state, desiredState=wanted).changed_by == by


@pytest.mark.parametrize("state", [None, "", 7, {}, "hibernating", "STOPPED", "Stopped", "unknown"])
def test_an_undocumented_state_is_unknown(state: object) -> None:
    found = read(state=state, desiredState=state)
    assert (found.state, found.stopped_at) == (State.UNKNOWN, None)


# Its owner, and what depends on it


@pytest.mark.parametrize("odd", [None, [], "a=b", 7, {"harbor.managed": True}, {"a": None}, {"harbor.session_id": ["x"]}])
def test_labels_that_cannot_be_read_are_missing_data(odd: object) -> None:
    found = read(labels=odd)
    assert (found.labels, found.group) == (None, None)


def test_an_empty_object_is_no_labels_and_an_empty_session_is_none() -> None:
    assert labels({}) == {}
    assert read(labels={"harbor.session_id": ""}).group is None


def test_an_unclaimed_member_of_a_warm_pool_is_a_system_container() -> None:
    assert read(warmPoolId="pool-1").system_container == "an unclaimed member of a warm pool"
    for none in (None, ""):
        assert read(warmPoolId=none).system_container is None


def test_what_it_is_linked_to_is_used() -> None:
    assert read(linkedSandboxId="owner").uses == {"owner"}
    for none in (None, "", 7):
        assert read(linkedSandboxId=none).uses == frozenset()


@pytest.mark.parametrize("name", [None, "", 7])
def test_what_has_no_name_is_called_by_its_id(name: object) -> None:
    assert read(name=name).name == ID


@pytest.mark.parametrize(
    "id_", [None, "", 7, "../x", "a/b", "a?b", "a#b", "a b", "a\n", "\n", "é", ".", "..", "%2e", "x" * 129]
)
def test_a_row_whose_id_no_request_can_name_is_unreadable_and_still_tells_its_session(id_: object) -> None:
    found = read(id=id_)
    assert (found.id, found.group) == ("", "chess__1")
    assert found.unreadable == "its row has no id that a request could name"


@pytest.mark.parametrize("row", [None, 7, "x", [], True, [LISTED]])
def test_what_is_no_row_is_a_value_error(row: object) -> None:
    with pytest.raises(ValueError, match="no object"):
        sandbox(row, "rl-org")


# Whatever may come

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
TIMES = st.sampled_from([CREATED, STOPPED, UPDATED, "", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z"]) | st.datetimes(
    timezones=st.just(UTC) | st.none()
).map(datetime.isoformat)
LIKELY = st.sampled_from([ID, "chess", "", *sorted(STATES)]) | TIMES | st.dictionaries(st.text(), st.text(), max_size=3)
ROWS = st.fixed_dictionaries({"id": st.just(ID) | JSON}, optional=dict.fromkeys(FIELDS[1:], LIKELY | JSON))
MANY = settings(max_examples=400, database=None)


@MANY
@given(JSON | ROWS)
def test_junk_in_any_field_is_nothing_worse_than_a_value_error(row: object) -> None:
    try:
        found = sandbox(row, "rl-org")
    except ValueError:
        assert not isinstance(row, dict)
        return
    assert isinstance(row, dict)
    assert found.id == row.get("id") or (found.id == "" and found.unreadable)
    assert isinstance(found.name, str)
    for time in (found.created_at, found.stopped_at, found.last_activity_at):
        assert time is None or time.utcoffset() == timedelta(0)
    if found.state not in (State.STOPPED, State.FAILED):
        assert found.stopped_at is None
    if found.created_at is not None and found.stopped_at is not None:
        assert found.stopped_at >= found.created_at


@MANY
@given(
    st.sampled_from(["stopped", "paused", "archived", "error", "started"]),
    *(st.none() | st.datetimes(timezones=st.just(UTC)) for _ in range(3)),
)
def test_no_age_is_greater_than_what_is_known_allows(
    state: str, created: datetime | None, updated: datetime | None, active: datetime | None
) -> None:
    def text(time: datetime | None) -> str | None:
        return None if time is None else time.isoformat()

    found = read(
        state=state, desiredState=state, createdAt=text(created), updatedAt=text(updated), lastActivityAt=text(active)
    )
    written = updated if active is None or state == "error" else None
    known = [time for time in (created, active, written) if time is not None]
    assert found.unreadable is None
    assert found.created_at == created
    assert found.last_activity_at == max(known, default=None)
    assert found.stopped_at == (None if state == "started" else found.last_activity_at)
