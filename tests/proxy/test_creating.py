"""What is a creation, and how a label gets into its body."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.run.proxy.labels import TooDeepError, creates, hijacks, labelled

LEASE = {"reaper.lease": "run-1"}


@pytest.mark.parametrize(
    "target",
    [
        "/containers/create",
        "/networks/create",
        "/volumes/create",
        "/v1.41/containers/create?name=a",
        "/v1.41.0/volumes/create",
        "/containers%2Fcreate",
        "/%63ontainers/create",
        "/v1%2E41/containers/create",
        "http://docker/v1.41/containers/create",
        "http:/volumes/create",
        "HTTP://docker/volumes/create?x=%2F",
        # These the engine would redirect or refuse; it costs nothing to label them.
        "//containers/create",
        "/containers//create",
        "/containers/./create",
        "/x/../containers/create",
        "/containers/create/",
        "http://docker//volumes/create",
    ],
)
def test_what_the_engine_takes_for_a_creation(target: str) -> None:
    assert creates("POST", target.encode())
    assert not creates("GET", target.encode())


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/containers/json",
        "/containers/create/json",
        "/containers/x/start?y=/containers/create",
        "/containers/create%3Fx",
        "/containers/create;x",
        "/images/create?fromImage=x",
        "/services/create",
        "/secrets/create",
        "/build",
        "/commit?container=x",
        "/exec/create",
        "/x/containers/create",
    ],
)
def test_what_is_none(target: str) -> None:
    assert not creates("POST", target.encode())


def test_what_may_become_a_stream_without_an_upgrade() -> None:
    assert hijacks("POST", b"/v1.41/containers/x/attach?stream=1")
    assert hijacks("POST", b"/exec/x/start")
    assert not hijacks("POST", b"/containers/x/start")
    assert not hijacks("GET", b"/containers/x/logs")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("{}", '{"Labels":{"reaper.lease": "run-1"}}'),
        (' {"Image":"x"}', ' {"Labels":{"reaper.lease": "run-1"},"Image":"x"}'),
        ('{"Labels":null}', '{"Labels":{"reaper.lease": "run-1"}}'),
        ('{"Labels": {} , "A":1}', '{"Labels": {"reaper.lease": "run-1"} , "A":1}'),
        ('{"Labels":{"a":"b"}}', '{"Labels":{"reaper.lease": "run-1","a":"b"}}'),
        ('{"A":{"Labels":{"x":"y"}},"labels":{ }}', '{"A":{"Labels":{"x":"y"}},"labels":{"reaper.lease": "run-1"}}'),
        ('{"LABELS":{"a":"b"}}\n', '{"LABELS":{"reaper.lease": "run-1","a":"b"}}\n'),
        ('{"Label\u017f":null}', '{"Label\u017f":{"reaper.lease": "run-1"}}'),  # Go's library takes it for an s
        ('{"Lab\\u0065ls":null}', '{"Lab\\u0065ls":{"reaper.lease": "run-1"}}'),
        # The engine decodes the first value and leaves the rest, and merges what is there twice.
        ('{"A":1} {"Labels":null}', '{"Labels":{"reaper.lease": "run-1"},"A":1} {"Labels":null}'),
        ('{"Labels":{"a":"b"},"labels":{"c":"d"}}', '{"Labels":{"a":"b"},"labels":{"reaper.lease": "run-1","c":"d"}}'),
        (
            '{"Labels":{"reaper.lease":"x"},"labels":null}',
            '{"Labels":{"reaper.lease":"x"},"labels":{"reaper.lease": "run-1"}}',
        ),
        # What a decoder would change on its way through Python stays.
        (
            '{"N":1e400,"M":0.10000000000000000001}',
            '{"Labels":{"reaper.lease": "run-1"},"N":1e400,"M":0.10000000000000000001}',
        ),
        (f'{{"N":{"9" * 5000}}}', f'{{"Labels":{{"reaper.lease": "run-1"}},"N":{"9" * 5000}}}'),
    ],
)
def test_a_label_gets_in_and_all_else_stays(body: str, expected: str) -> None:
    assert labelled(body.encode(), LEASE).decode() == expected


@pytest.mark.parametrize(
    "body",
    [
        '{"Labels":{"reaper.lease":"other"}}',
        '{"Labels":{"reaper.lease":"other"},"labels":{"a":"b"}}',
        '{"Labels":["a"]}',
        '{"Labels":"a"}',
        '{"Labels":{"a":"b"}',
        "[]",
        '"text"',
        "null",
        "",
        "   ",
        "{",
        '{"a"',
        '{"a":',
        '{"a":1',
        '{"a":1,}',
        "{'a':1}",
        "\ufeff{}",
        '{"a":"\n"}',
        "\x00",
    ],
)
def test_what_is_labelled_already_or_will_be_refused_stays_as_it_is(body: str) -> None:
    assert labelled(body.encode(), LEASE) == body.encode()


def test_bytes_that_are_no_text_pass_as_they_are() -> None:
    assert labelled(b'{"Env":["A=\xff\xfe"]}', LEASE) == b'{"Labels":{"reaper.lease": "run-1"},"Env":["A=\xff\xfe"]}'


def test_what_is_too_deep_is_not_let_through() -> None:
    with pytest.raises(TooDeepError):
        labelled(b'{"A":' + b"[" * 100_000 + b"]" * 100_000 + b"}", LEASE)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
LABELS = st.none() | st.dictionaries(st.sampled_from(["a", "b", "reaper.lease"]) | st.text(max_size=3), st.text(max_size=5))


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, dict[str, Any], dict[str, Any]]:
    """A body, what is in it besides its labels, and these."""
    rest = draw(st.dictionaries(st.text(max_size=8).filter(lambda key: key.casefold() != "labels"), JSON, max_size=4))
    theirs = draw(LABELS)
    body = {**rest, draw(st.sampled_from(["Labels", "labels", "LABELS"])): theirs} if draw(st.booleans()) or theirs else rest
    text = json.dumps(body, indent=draw(st.sampled_from([None, 1])), ensure_ascii=draw(st.booleans()))
    return text.encode("utf-8", "surrogatepass"), rest, theirs or {}


@given(bodies())
def test_any_body(made: tuple[bytes, dict[str, Any], dict[str, Any]]) -> None:
    raw, rest, theirs = made
    read = json.loads(labelled(raw, LEASE).decode("utf-8", "surrogatepass"))
    assert read.pop(next(name for name in read if name.casefold() == "labels")) == {**LEASE, **theirs}
    assert read == rest
