import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.core.durations import human, parse, spell
from tests.core.strategies import PROPERTY

HUNDRED_YEARS = timedelta(days=36500)
MILLISECONDS = st.integers(0, HUNDRED_YEARS // timedelta(milliseconds=1)).map(lambda n: timedelta(milliseconds=n))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", timedelta(0)),
        ("0s", timedelta(0)),
        ("500ms", timedelta(milliseconds=500)),
        ("90s", timedelta(seconds=90)),
        ("24 h", timedelta(hours=24)),
        ("1h 30m", timedelta(minutes=90)),
        ("10m", timedelta(minutes=10)),
        ("6h", timedelta(hours=6)),
        ("1.5h", timedelta(minutes=90)),
        ("1d12h", timedelta(hours=36)),
        ("2w", timedelta(days=14)),
        (" 1m30s ", timedelta(seconds=90)),
        ("36500d", HUNDRED_YEARS),
    ],
)
def test_parse(text: str, value: timedelta) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    "text",
    ["", " ", "90", "-1h", "+1h", "6H", "1y", "h", "1h-", "1,5h", ".5h", "1.h", "inf", "nan", "1e3s", "٣h", "1\nh"],
)
def test_what_is_no_duration_is_named_and_an_example_given(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f'{text!r} is not a duration; write for example "90s", "10m"')):
        parse(text)


@pytest.mark.timeout(20)
def test_a_long_text_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse("9" * 60_000)


@pytest.mark.parametrize("text", ["36501d", "36500d1ms", "99999999999999999999w", "9" * 400 + "d"])
def test_more_than_a_hundred_years_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f'{text!r} is longer than a hundred years; write for example "90s"'):
        parse(text)


@PROPERTY
@given(MILLISECONDS)
def test_what_is_spelt_can_be_parsed(value: timedelta) -> None:
    assert parse(spell(value)) == value


@PROPERTY
@given(st.text(alphabet="0123456789.mshdw -", max_size=4))
def test_parse_answers_or_explains(text: str) -> None:
    if re.fullmatch(r" *(0|(\d+(\.\d+)? *(ms|s|m|h|d|w) *)+) *", text):
        assert timedelta(0) <= parse(text) <= HUNDRED_YEARS
        return
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        parse(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (timedelta(0), "0s"),
        (timedelta(milliseconds=1500), "1s500ms"),
        (timedelta(hours=36), "1d12h"),
        (timedelta(days=14), "14d"),
        (timedelta(seconds=90), "1m30s"),
    ],
)
def test_spell(value: timedelta, text: str) -> None:
    assert spell(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (timedelta(0), "0 s"),
        (timedelta(milliseconds=250), "250 ms"),
        (timedelta(seconds=12.9), "12 s"),
        (timedelta(seconds=60), "1 min"),
        (timedelta(hours=3, minutes=20, seconds=59), "3 h 20 min"),
        (timedelta(hours=3), "3 h"),
        (timedelta(hours=3, seconds=5), "3 h"),
        (timedelta(hours=36), "36 h"),
        (timedelta(hours=47, minutes=59), "47 h 59 min"),
        (timedelta(hours=48), "2 d"),
        (timedelta(days=7), "7 d"),
        (timedelta(days=2, seconds=5), "2 d"),
        (timedelta(days=2, hours=5, minutes=9), "2 d 5 h"),
        (timedelta(minutes=-90), "-1 h 30 min"),
    ],
)
def test_human(value: timedelta, text: str) -> None:
    assert human(value) == text
