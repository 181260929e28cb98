"""The variables of ``reaper ryuk``, read as the original reads them."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.core.durations import parse_go
from reaper.errors import ConfigError
from reaper.ryuk.settings import RyukSettings

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("60s", 60), ("1m30s", 90), ("1m0s", 60), ("-1s", -1), ("+5s", 5), ("0", 0), ("-0", 0), ("0s", 0), ("1.5h", 5400)),
        *(
            (".5s", 0.5),
            ("1.s", 1),
            ("100ms", 0.1),
            ("10us", 1e-5),
            ("10\u00b5s", 1e-5),
            ("10\u03bcs", 1e-5),
            ("1000ns", 1e-6),
        ),
        *(("1h1m1s1ms", 3661.001), ("30s1m", 90), ("876000h", 876000 * 3600)),
    ],
)
def test_a_duration_is_gos(text: str, seconds: float) -> None:
    assert parse_go(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "10", "s", "1d", "1 s", " 1s", "1s ", "--1s", "-", "1.2.3s", ".s", "1e3s", "\u0661s", "1S", "1s2"]
)
def test_what_go_would_not_read_is_an_error_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match='write for example "60s"'):
        parse_go(text)


@given(st.text(alphabet="0123456789.hmsnuµ-+ ", max_size=12))
def test_whatever_stands_there_is_read_or_told(text: str) -> None:
    try:
        found = parse_go(text)
    except ValueError as error:
        assert "write for example" in str(error)  # noqa: PT017 - either is right
    else:
        assert abs(found) <= timedelta(days=36500)


def test_what_is_unset_or_empty_is_as_in_the_original() -> None:
    assert RyukSettings.of({}) == RyukSettings.of({"RYUK_PORT": "", "RYUK_VERBOSE": ""}) == RyukSettings()
    found = RyukSettings()
    assert (found.port, found.remove_retries, found.verbose) == (8080, 10, False)
    assert (found.connection_timeout, found.reconnection_timeout, found.request_timeout) == (
        60 * SECOND,
        10 * SECOND,
        10 * SECOND,
    )
    assert (found.retry_offset, found.changes_retry_interval, found.shutdown_timeout) == (-SECOND, SECOND, 600 * SECOND)


def test_all_of_them_are_read() -> None:
    env = {
        "RYUK_PORT": "9090",
        "RYUK_CONNECTION_TIMEOUT": "1m30s",
        "RYUK_RECONNECTION_TIMEOUT": "1s",
        "RYUK_REQUEST_TIMEOUT": "2s",
        "RYUK_REMOVE_RETRIES": "3",
        "RYUK_RETRY_OFFSET": "-4s",
        "RYUK_CHANGES_RETRY_INTERVAL": "5s",
        "RYUK_SHUTDOWN_TIMEOUT": "6s",
        "RYUK_VERBOSE": "T",
    }
    assert RyukSettings.of(env) == RyukSettings(
        port=9090,
        connection_timeout=90 * SECOND,
        reconnection_timeout=SECOND,
        request_timeout=2 * SECOND,
        remove_retries=3,
        retry_offset=-4 * SECOND,
        changes_retry_interval=5 * SECOND,
        shutdown_timeout=6 * SECOND,
        verbose=True,
    )


@pytest.mark.parametrize("text", ["0", "-1s"])
def test_an_offset_may_be_anything_and_a_time_to_wait_may_not(text: str) -> None:
    assert RyukSettings.of({"RYUK_RETRY_OFFSET": text}).retry_offset <= timedelta(0)
    for name in (
        "CONNECTION_TIMEOUT",
        "RECONNECTION_TIMEOUT",
        "REQUEST_TIMEOUT",
        "CHANGES_RETRY_INTERVAL",
        "SHUTDOWN_TIMEOUT",
    ):
        with pytest.raises(ConfigError, match=f"RYUK_{name}: '{text}' is no time to wait"):
            RyukSettings.of({f"RYUK_{name}": text})
