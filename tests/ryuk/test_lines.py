"""What a line of the Ryuk protocol claims, and what gets no ACK."""

from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.config.service_tables import LeasesTable
from reaper.core.claim_check import SHARED
from reaper.core.lease import Claim
from reaper.core.scope import Selector, label_matches
from reaper.leases.ryuk_protocol import LONGEST, LineError, Lines, claim_of, lease_id

CLAIMABLE = LeasesTable().claimable
SESSION = "org.testcontainers.session-id"


def labels(line: str, claimable: tuple[str, ...] = CLAIMABLE) -> tuple[str, ...]:
    return claim_of(line.encode(), claimable).selector.labels


@pytest.mark.parametrize(
    ("line", "claimed"),
    [
        (f"label={SESSION}=0b5e", (f"{SESSION}=0b5e",)),  # Python, Node
        ("label=org.testcontainers.sessionId=ab", ("org.testcontainers.sessionId=ab",)),
        ("label=org.testcontainers.resource-reaper-session=ab", ("org.testcontainers.resource-reaper-session=ab",)),  # .NET
        (
            "label=org.testcontainers%3Dtrue&label=org.testcontainers.sessionId%3Dab",  # Java
            ("org.testcontainers.sessionId=ab", "org.testcontainers=true"),
        ),
        (
            "label=org.testcontainers=true&label=org.testcontainers.lang=go&label=org.testcontainers.reap=true"
            "&label=org.testcontainers.sessionId=ab&label=org.testcontainers.version=0.40.0",  # Go
            (
                "org.testcontainers.lang=go",
                "org.testcontainers.reap=true",
                "org.testcontainers.sessionId=ab",
                "org.testcontainers.version=0.40.0",
                "org.testcontainers=true",
            ),
        ),
        (f"label={SESSION}=a=b&&label={SESSION}=a=b", (f"{SESSION}=a=b",)),
        (f"label={SESSION}=a+b%2Bc", (f"{SESSION}=a b+c",)),
        (f"label={SESSION}=caf\u00e9", (f"{SESSION}=caf\u00e9",)),
    ],
)
def test_what_the_libraries_send_is_understood(line: str, claimed: tuple[str, ...]) -> None:
    assert labels(line) == claimed


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("label", "no query string"),
        ("&&", "no filter"),
        (f"label={SESSION}=%zz", "begins no escape"),
        (f"label={SESSION}=%ff", "not UTF-8"),
        (f"label={SESSION}=a;label=b=c", "a bare ;"),
        ("name=chess", "the filter 'name' is not taken"),
        (f"id=0123&label={SESSION}=a", "the filter 'id' is not taken"),
        (f"dangling=true&label={SESSION}=a", "the filter 'dangling' is not taken"),
        ("label=", "comes without its value"),
        (f"label={SESSION}", "comes without its value"),
        (f"label={SESSION}=", "comes without its value"),
        ("label==a", "comes without its value"),
        ("label=org.testcontainers&label=a=b", "comes without its value"),
        (f"label={SESSION}=*", "without globs"),
        (f"label={SESSION}=a?", "without globs"),
        (f"label={SESSION}=[ab]", "without globs"),
        ("label=org.testcontainers.*=a", "without globs"),
        (f"label={SESSION}=a%00b", "cannot be printed"),
        (f"label={SESSION}=a%0ab", "cannot be printed"),
        (f"label={SESSION}=a&label={SESSION}=b", "two values"),
        ("label=com.docker.compose.project=p", "[leases] claimable does not have this key"),
        (f"label={SESSION}=a&label=team=rl", "[leases] claimable does not have this key"),
        ("label=org.testcontainers=false&label=org.testcontainers.sessionId=a", "[leases] claimable does not have"),
        ("label=org.testcontainers=true", "names no session"),
        ("label=org.testcontainers=true&label=org.testcontainers.lang=java", "names no session"),
        ("label=org.testcontainers.version=1.20", "names no session"),
        ("label=org.testcontainers.something=true", "names no session"),
        ("label=org.testcontainers.managed-by=testcontainers", "names no session"),
        ("&".join(f"label={SESSION}=a" for _ in range(40)), "more than 32 filters"),
    ],
)
def test_what_gets_no_ack(line: str, why: str) -> None:
    with pytest.raises(LineError) as refused:
        labels(line)
    assert why in str(refused.value)


def test_the_configuration_may_allow_more_and_less() -> None:
    project = "label=com.docker.compose.project=p"
    assert labels(project, ("com.docker.compose.project",)) == ("com.docker.compose.project=p",)
    with pytest.raises(LineError):
        labels(f"label={SESSION}=a", ())
    with pytest.raises(LineError, match="names no session"):
        labels("label=org.testcontainers.lang=java", ("*",))


def test_a_message_repeats_no_value_and_nothing_that_a_terminal_obeys() -> None:
    for line in (b"secret=hunter2", b"hunter2", b"label=key=hunter2", f"label={SESSION}=hunter2*".encode()):
        with pytest.raises(LineError) as refused:
            claim_of(line, CLAIMABLE)
        assert "hunter2" not in str(refused.value)
    with pytest.raises(LineError) as refused:
        claim_of(b"%1b[2J" + b"x" * 5000 + b"=a", CLAIMABLE)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 200


def test_the_id_follows_from_the_set() -> None:
    one, other = f"label={SESSION}=a", "label=org.testcontainers=true"
    ids = [lease_id(claim_of(line.encode(), CLAIMABLE)) for line in (f"{one}&{other}", f"{other}&{one}&{one}", one)]
    assert ids[0] == ids[1] != ids[2]
    assert len(ids[0]) <= 64


keys = st.one_of(
    st.sampled_from(sorted(SHARED)),
    st.sampled_from([SESSION, "org.testcontainers.sessionId", "team", "com.docker.compose.project"]),
    st.text(max_size=12).map(lambda rest: f"org.testcontainers.{rest}"),
)
texts = st.one_of(st.sampled_from(["true", "*", "a", ""]), st.text(max_size=12))
filters = st.tuples(st.sampled_from(["label", "label", "label", "name"]), st.one_of(st.none(), keys), texts)
encoders = st.sampled_from([quote, quote_plus])


@given(st.lists(filters, max_size=5), encoders)
def test_what_is_taken_is_narrow_whatever_is_sent(sent: list[tuple[str, str | None, str]], encode: object) -> None:
    assert callable(encode)
    line = "&".join(f"{name}={encode(text if key is None else f'{key}={text}')}" for name, key, text in sent)
    try:
        claim = claim_of(line.encode(), CLAIMABLE)
    except LineError:
        return
    claimed = dict(label.split("=", 1) for label in claim.selector.labels)
    assert claim == Claim(Selector(labels=claim.selector.labels)), "labels and nothing else"
    assert all(name == "label" for name, _, _ in sent), "no filter is left out"
    whole = {(key, text) if key is not None else tuple(text.split("=", 1)) for _, key, text in sent}
    assert whole == set(claimed.items())
    assert all(key == "org.testcontainers" or key.startswith("org.testcontainers.") for key in claimed)
    assert claimed.keys() - SHARED
    for key, text in claimed.items():
        assert label_matches(f"{key}={text}", {key: text})
        assert not label_matches(f"{key}={text}", {key: f"{text}x"}), "as a glob it matches itself alone"


@given(
    st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line and not line.endswith(b"\r")), max_size=6),
    st.data(),
)
def test_lines_are_the_same_however_they_arrive(sent: list[bytes], data: st.DataObject) -> None:
    ends = [data.draw(st.sampled_from([b"\n", b"\r\n"])) for _ in sent]
    stream = b"".join(line + end for line, end in zip(sent, ends, strict=True))
    lines, at = Lines(), 0
    found: list[bytes | None] = []
    while at < len(stream):
        step = data.draw(st.integers(1, 12))
        found += lines.feed(stream[at : at + step])
        at += step
    assert found == sent
    assert not lines.unfinished


@pytest.mark.parametrize("step", [1, 4096, LONGEST, 3 * LONGEST])
def test_a_long_line_costs_itself_and_not_the_next_one(step: int) -> None:
    stream = b"a\n" + b"x" * LONGEST + b"\r\n" + b"y" * (LONGEST + 1) + b"\n" + b"z" * 3 * LONGEST + b"\nb\nrest"
    lines = Lines()
    found: list[bytes | None] = []
    for at in range(0, len(stream), step):
        found += lines.feed(stream[at : at + step])
    assert found == [b"a", b"x" * LONGEST, None, None, b"b"]
    assert lines.unfinished
