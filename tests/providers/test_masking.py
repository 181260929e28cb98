"""Which values of an inspection and of a log are taken for secrets, and that no text takes long."""

import json
import time

import pytest

from reaper.errors import UnreadableError
from reaper.providers.masking import MASK, MOST, Mask

SECRET = "hunter2s3cr3t"


def masked(document: dict[str, object]) -> str:
    return json.dumps(Mask().inspection(document))


@pytest.mark.parametrize(
    "entry",
    [
        f"OPENAI_API_KEY={SECRET}",
        f"DB_PASSWORD={SECRET}",
        f"POSTGRES_PASS={SECRET}",
        f"token={SECRET}",
        f"GithubToken={SECRET}",
        f"AWS_SECRET_ACCESS_KEY={SECRET}",
        f"GH_PAT={SECRET}",
        f"AUTHORIZATION={SECRET}",
        f"SENTRY_DSN=https://{SECRET}@o1.ingest.example/2",
        f"DATABASE_URL=postgres://app:{SECRET}@db:5432/app",
        f"PROXY=http://{SECRET}@proxy:3128",
        f"CALLBACK=https://api.example/hook?sig={SECRET}",
        f"JAVA_OPTS=-Xmx1g -Ddb.password={SECRET} -Dx=1",
        f"CURL_ARGS=-H 'X-Api-Key: {SECRET}'",
        f'CONFIG={{"api_key": "{SECRET}"}}',
        f"PRIVATE_KEY=-----BEGIN KEY-----\n{SECRET}\n-----END KEY-----",
        f"NO_NAME_AT_ALL=sk9{SECRET}AbCdEf0123456789",
        "PIN=1234",
    ],
)
def test_a_secret_variable(entry: str) -> None:
    found = masked({"Config": {"Env": [entry, "PATH=/usr/bin:/bin", "PWD=/app", "LANG=C.UTF-8"]}})
    assert SECRET not in found
    assert "1234" not in found
    assert entry.partition("=")[0] in found
    assert MASK in found
    for kept in ("PATH=/usr/bin:/bin", "PWD=/app", "LANG=C.UTF-8"):
        assert kept in found
    name, _, value = entry.partition("=")
    assert SECRET not in masked({"env": {name: value}})  # as Daytona writes them


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--api-key", SECRET],
        ["run", f"--api-key={SECRET}"],
        ["run", f"--token={SECRET}", "--verbose"],
        ["sh", "-c", f"API_KEY={SECRET} run"],
        ["sh", "-c", f"export API_KEY={SECRET}; run"],
        ["sh", "-c", f"run --password '{SECRET} x' && true"],
        ["curl", "-H", f"Authorization: Bearer {SECRET}"],
        ["curl", "-H", f"authorization: token {SECRET}"],
        ["sh", "-c", f"curl -H 'Authorization: Basic {SECRET}' https://x"],
        ["sh", "-c", f'curl -H "Cookie: a=b; sid={SECRET}" https://x'],
        ["curl", "-u", f"me:{SECRET}", "https://x"],
        ["sh", "-c", f"curl -u me:{SECRET} https://x"],
        ["curl", f"https://me:{SECRET}@x/y"],
        ["curl", f"https://x/y?key={SECRET}"],
        ["run", f"sk9{SECRET}AbCdEf0123456789"],
    ],
)
def test_a_secret_argument_is_found_again_wherever_it_stands(words: list[str]) -> None:
    mask = Mask()
    found = json.dumps(mask.inspection({"Config": {"Cmd": words}, "State": {"Error": f"exec: {' '.join(words)}"}}))
    assert SECRET not in found
    assert words[0] in found
    assert SECRET not in mask.text(f"+ {' '.join(words)}\n")


def test_a_secret_label_and_a_secret_field() -> None:
    found = masked({"Config": {"Labels": {"app.token": SECRET, "team": "rl"}}, "authToken": SECRET, "sshKeys": [SECRET]})
    assert SECRET not in found
    assert '"team": "rl"' in found


def test_a_secret_of_the_inspection_is_masked_in_the_log_in_each_form() -> None:
    mask = Mask()
    mask.inspection({"Config": {"Env": ['A_TOKEN=s3cr3t/with"quotes', f"KEY={SECRET}", "B_KEY=first-line\nsecond-line"]}})
    quoted = json.dumps({"x": 's3cr3t/with"quotes'})
    log = f"it is {SECRET}.\nhttps://x/s3cr3t%2Fwith%22quotes\n{quoted}\nsecond-line"
    text = mask.text(log)
    for secret in (SECRET, "s3cr3t", "second-line"):
        assert secret not in text
    assert text.startswith(f"it is {MASK}.\n")


def test_a_log_says_what_it_said_otherwise() -> None:
    log = (
        "Traceback (most recent call last):\nKeyError: 'score'\nAuthor: Jane Doe <jane@example.org>\nstep 12/80: loss=0.25\n"
        "pass 3 of 5\nGET /v1/tasks 200\nmonkey patching\n"
    )
    assert Mask().text(log) == log


def test_a_log_has_secrets_of_its_own() -> None:
    lines = ("INFO:root:API_KEY=*", "> Authorization: Bearer *", "db: postgres://u:*@h/d", "{'password': '*'}")
    log = "\n".join(lines).replace("*", SECRET)
    text = Mask().text(log)
    assert SECRET not in text
    assert text.startswith(f"INFO:root:API_KEY={MASK}\n")


def test_ordinary_words_are_not_taken_for_a_secret_found_again() -> None:
    mask = Mask()
    mask.inspection(
        {"Config": {"Env": ["AUTH=disabled", "KEY=a", "TOKEN=bearer"], "Cmd": ["x", "-H", "Authorization: Bearer q1"]}}
    )
    assert mask.text("bearer disabled a q1") == "bearer disabled a q1"


def test_an_inspection_is_bounded() -> None:
    deep: dict[str, object] = {}
    for _ in range(10_000):
        deep = {"x": deep}
    document: dict[str, object] = {
        "Labels": {f"k{i}": "v" * 100_000 for i in range(1000)},
        "Args": ["a" * 100_000] * 1000,
        "Env": ["A=" + "b" * 100_000] * 1000,
        "Error": "e" * 1_000_000,
        "deep": deep,
    }
    assert len(json.dumps(Mask().inspection(document))) < 4 * MOST * 4200


def test_more_secrets_than_are_looked_for_are_an_error_and_not_left_in() -> None:
    with pytest.raises(UnreadableError, match="too many secrets"):
        Mask().inspection({"Env": ["A_KEY=" + "\n".join(f"secret-{i}" for i in range(2 * MOST))]})


SIZE = 256 << 10
HOSTILE = {
    "one word": "a" * SIZE,
    "names": "key:" * (SIZE // 4),
    "pairs": "a:" * (SIZE // 2),
    "schemes": "a://" * (SIZE // 4),
    "options": "-" * SIZE,
    "users": "-u " * (SIZE // 3),
    "blanks": "key" + " " * SIZE + "=x",
    "quotes": '"' * SIZE,
    "a quoted value without an end": 'key="' * (SIZE // 5),
    "at signs": "h://" + "@" * SIZE,
    "queries": "h://x" + "?" * SIZE,
    "bearers": "key:" + "bearer " * (SIZE // 7),
    "a header of one line": "cookie: " + "a=b;" * (SIZE // 4),
    "control characters": "\x00\x1b[2J" * (SIZE // 5),
}


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_takes_long(text: str) -> None:
    began = time.process_time()
    mask = Mask()
    mask.inspection({"Env": [f"X={HOSTILE[text]}"], "Cmd": [HOSTILE[text]], "Labels": {HOSTILE[text]: HOSTILE[text]}})
    mask.text(HOSTILE[text])
    assert time.process_time() - began < 3  # it takes tenths; what looks further and further takes minutes
