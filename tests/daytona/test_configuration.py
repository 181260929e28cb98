"""[[daytona]] in the configuration: what is wrong is named with its hint, and the key is never repeated."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from reaper.cli import main
from reaper.providers.daytona.registration import REGISTRATION
from reaper.providers.daytona.settings import DEFAULT_API_URL, DaytonaTable
from tests.run import NO_DAYTONA, Ended

KEY = "dtn_5ecre7c0ffee5ecre7c0ffee5ecre7c0ffee"
ORG = '[[daytona]]\nname = "rl"\n'
Call = Callable[..., Ended]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """The program's main in this process, with variables of its own; the key is in no output."""
    for name in [name for name in os.environ if name.startswith(("REAPER_", "DOCKER_", "DAYTONA_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, text: str | None = None, env: Mapping[str, str] | None = None) -> Ended:
        for name, value in {**NO_DAYTONA, **(env or {})}.items():
            monkeypatch.setenv(name, value)
        extra: tuple[str, ...] = ()
        if text is not None:
            (tmp_path / "mine.toml").write_text(text)
            extra = ("--config", str(tmp_path / "mine.toml"))
        code = main([*arguments, *extra])
        out, err = capfd.readouterr()
        assert KEY not in out + err
        return Ended(code, out, err)

    return run


BAD: dict[str, tuple[str, tuple[str, ...]]] = {
    "the key itself for the variable": (
        f'{ORG}api_key_env = "{KEY} "',
        ("[[daytona]] 'rl': api_key_env", "names an environment variable, and is not the key itself"),
    ),
    "the key itself, which could be a name": (f'{ORG}api_key_env = "{KEY}"', ("is not the key itself", '"DAYTONA_API_KEY"')),
    "the key itself with dashes": (f'{ORG}api_key_env = "{KEY}-x"', ("is not the key itself", '"DAYTONA_API_KEY"')),
    "two places for the key": (
        f'{ORG}api_key_env = "A"\napi_key_file = "b"',
        ("api_key_env and api_key_file exclude each other", "leave one out"),
    ),
    "the key in the file": (f'{ORG}api_key = "{KEY}"', ("unknown key 'api_key'", "did you mean 'api_key_env'?")),
    "no scheme": (f'{ORG}api_url = "app.daytona.io/api"', ("api_url", 'write for example "https://app.daytona.io/api"')),
    "a password": (f'{ORG}api_url = "https://u:{KEY}@app.daytona.io/api"', ("holds a user or a password", "api_key_env")),
    "another scheme": (f'{ORG}api_url = "ftp://app.daytona.io"', ("is no http or https URL",)),
    "a port that is none": (f'{ORG}api_url = "http://h:99999/api"', ("is no URL", "https://app.daytona.io/api")),
    "a fragment": (f'{ORG}api_url = "http://h/api#{KEY}"', ("has a query or a fragment", "http://h/api?***")),
    "a query": (f'{ORG}api_url = "http://h/api?key={KEY}"', ("has a query or a fragment",)),
    "too large a page": (f"{ORG}page_size = 201", ("page_size = 201", "less than or equal to 200")),
    "no page": (f"{ORG}page_size = 0", ("page_size = 0", "greater than or equal to 1")),
    "no share": (f"{ORG}max_rate_share = 0", ("max_rate_share = 0", "greater than 0")),
    "more than all": (f"{ORG}max_rate_share = 1.5", ("max_rate_share = 1.5", "less than or equal to 1")),
    "no requests": (f"{ORG}concurrency = 0", ("concurrency = 0",)),
    "no time to confirm": (f'{ORG}confirm_within = "0s"', ("confirm_within", 'for example "60s"')),
    "a number of seconds": (f"{ORG}confirm_within = 60", ("confirm_within = 60", '"90s"')),
    "unknown key": (f'{ORG}api_urls = "x"', ("[[daytona]] 'rl': unknown key 'api_urls'", "did you mean 'api_url'?")),
    "the name of an engine": (f'[[docker]]\nname = "rl"\n{ORG}', ("rl",)),
    "twice the same": (f"{ORG}{ORG}", ("rl",)),
    "the name of a provider": ('[[daytona]]\nname = "daytona"', ("'daytona' cannot be the name", "--only daytona")),
    "no name": ("[[daytona]]\npage_size = 9", ("[[daytona]] number 1: 'name' is missing", 'name = "a-name"')),
    "one bracket": ('[daytona]\nname = "rl"', ("daytona is no table", "write [[daytona]]")),
}


@pytest.mark.parametrize(("text", "says"), BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("command", [("--once",), ("config", "check")], ids=["once", "check"])
def test_what_is_wrong_is_named_with_its_cure(
    call: Call, command: tuple[str, ...], text: str, says: tuple[str, ...]
) -> None:
    ended = call(*command, text=text, env={"DAYTONA_API_KEY": KEY})
    assert (ended.code, ended.out) == (2, "")
    assert "mine.toml: " in ended.err
    for part in says:
        assert part in ended.err
    assert "Traceback" not in ended.err


KEYS: dict[str, tuple[str, dict[str, str], tuple[str, ...]]] = {
    "no variable": (ORG, {}, ("DAYTONA_API_KEY is not set", "Daytona's dashboard makes them", "api_key_file")),
    "an empty variable": (f'{ORG}api_key_env = "RL"', {"RL": "  "}, ("RL is not set", "set it to an API key")),
    "two lines": (f'{ORG}api_key_env = "RL"', {"RL": f"{KEY}\n{KEY}"}, ("RL holds no API key", "without spaces or line")),
    "letters that no key has": (f'{ORG}api_key_env = "RL"', {"RL": f"{KEY}ö"}, ("RL holds no API key",)),
}


@pytest.mark.parametrize(("text", "env", "says"), KEYS.values(), ids=KEYS.keys())
def test_a_variable_without_a_key_is_named(call: Call, text: str, env: dict[str, str], says: tuple[str, ...]) -> None:
    for command in (("--once",), ("list",), ("config", "check")):
        ended = call(*command, text=text, env=env)
        assert (ended.code, ended.out) == (2, "")
        for part in says:
            assert part in ended.err


FILES: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, "cannot be read: No such file or directory"),
    "empty": (b"", "holds no API key"),
    "blank": (b" \n\n", "holds no API key"),
    "two lines": (f"{KEY}\n{KEY}\n".encode(), "holds no API key"),
    "an assignment": (f"export KEY={KEY}\n".encode(), "holds no API key"),
    "bytes": (b"\xff\xfe\x00dtn", "holds no API key"),
}


@pytest.mark.parametrize(("content", "says"), FILES.values(), ids=FILES.keys())
def test_a_file_without_a_key_is_named(call: Call, tmp_path: Path, content: bytes | None, says: str) -> None:
    file = tmp_path / "the-key"
    if content is not None:
        file.write_bytes(content)
    ended = call("--once", text=f'{ORG}api_key_file = "{file}"')
    assert (ended.code, ended.out) == (2, "")
    assert f"the-key' of endpoint rl {says}" in ended.err
    assert "the key alone" in ended.err


@pytest.mark.parametrize(("content", "says"), FILES.values(), ids=FILES.keys())
def test_a_file_that_a_variable_names_without_a_key_is_named(
    call: Call, tmp_path: Path, content: bytes | None, says: str
) -> None:
    file = tmp_path / "the-key"
    if content is not None:
        file.write_bytes(content)
    for text, variable in ((None, "DAYTONA_API_KEY_FILE"), (f'{ORG}api_key_env = "RL"', "RL_FILE")):
        ended = call("--once", "--only", "daytona", text=text, env={variable: str(file)})
        assert (ended.code, ended.out) == (2, "")
        assert f"reaper: {variable} = {str(file)!r} {says}" in ended.err
        assert "the key alone" in ended.err


BAD_FILES: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "both": (
        {"DAYTONA_API_KEY": KEY, "DAYTONA_API_KEY_FILE": "/run/secrets/daytona"},
        ("DAYTONA_API_KEY and DAYTONA_API_KEY_FILE are both set", "leave one of them out"),
    ),
    "the key itself": (
        {"DAYTONA_API_KEY_FILE": KEY},
        ("DAYTONA_API_KEY_FILE is no absolute path", "is not the key itself", '"/run/secrets/daytona"'),
    ),
    "an empty path": ({"DAYTONA_API_KEY_FILE": " "}, ("DAYTONA_API_KEY is not set", "set it to an API key")),
}


@pytest.mark.parametrize(("env", "says"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_variable_that_names_no_file_is_reported(call: Call, env: dict[str, str], says: tuple[str, ...]) -> None:
    for command in (("--once",), ("config", "check")):
        ended = call(*command, text=ORG, env=env)
        assert (ended.code, ended.out) == (2, "")
        for part in says:
            assert part in ended.err


def test_a_folder_in_place_of_a_key_file_is_named(call: Call, tmp_path: Path) -> None:
    ended = call("config", "check", text=f'{ORG}api_key_file = "{tmp_path}"')
    assert ended.code == 2
    assert "cannot be read: Is a directory" in ended.err


def test_only_daytona_without_a_key_says_how_to_set_it(call: Call) -> None:
    ended = call("--once", "--only", "daytona")
    assert ended.code == 2
    assert ended.err.startswith("reaper: DAYTONA_API_KEY is not set\n")
    assert "set it to an API key of the organisation" in ended.err


def test_only_daytona_with_engines_alone_says_that_there_is_none(call: Call) -> None:
    ended = call("--once", "--only", "daytona", text='[[docker]]\nname = "gpu"\n', env={"DAYTONA_API_KEY": KEY})
    assert ended.code == 2
    assert "--only: the configuration has no [[daytona]]" in ended.err


def test_an_unknown_endpoint_is_reported_with_the_names_of_organisations(call: Call) -> None:
    ended = call("--once", "--only", "rll", text=ORG, env={"DAYTONA_API_KEY": KEY})
    assert ended.code == 2
    assert "did you mean 'rl'?" in ended.err


def test_the_key_of_an_organisation_that_is_not_selected_is_not_asked_for(call: Call) -> None:
    text = f'[[docker]]\nname = "gpu"\nhost = "unix:///nowhere.sock"\n{ORG}'
    assert call("--once", "--only", "docker", text=text).code == 5


BAD_URLS = {
    "no URL": ("app.daytona.io", "'app.daytona.io' is no http or https URL"),
    "a password": (f"https://u:{KEY}@h/api", "holds a user or a password"),
}


@pytest.mark.parametrize(("url", "says"), BAD_URLS.values(), ids=BAD_URLS.keys())
@pytest.mark.parametrize("name", ["DAYTONA_API_URL", "DAYTONA_SERVER_URL"])
def test_a_bad_variable_is_reported_by_its_name(call: Call, name: str, url: str, says: str) -> None:
    ended = call("--once", env={"DAYTONA_API_KEY": KEY, "DAYTONA_API_URL": "", name: url})
    assert ended.code == 2
    assert ended.err.startswith(f"reaper: {name}: ")
    assert says in ended.err


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, DEFAULT_API_URL),
        ({"DAYTONA_SERVER_URL": "https://own.example/api"}, "https://own.example/api"),
        (
            {"DAYTONA_API_URL": "https://own.example/api", "DAYTONA_SERVER_URL": "https://else.where"},
            "https://own.example/api",
        ),
    ],
)
def test_a_key_goes_where_daytonas_own_tools_send_it(env: dict[str, str], expected: str) -> None:
    assert REGISTRATION.resolve(DaytonaTable(name="org"), env).api_url == expected


def test_overrides_reach_an_organisation_by_its_name(call: Call) -> None:
    env = {"DAYTONA_API_KEY": KEY, "REAPER_DAYTONA__RL__PAGE_SIZE": "50"}
    shown = json.loads(call("config", "show", "--json", text=ORG, env=env).out)
    row = next(row for row in shown if row["key"] == "daytona.rl.page_size")
    assert (row["value"], row["origin"]) == (50, "REAPER_DAYTONA__RL__PAGE_SIZE")
    ended = call("--once", text=ORG, env={**env, "REAPER_DAYTONA__RL__PAGE_SIZE": "500"})
    assert ended.code == 2
    assert "page_size = 500" in ended.err


def test_show_names_where_the_key_is_and_not_the_key(call: Call) -> None:
    ended = call("config", "show", text=f'{ORG}api_key_env = "RL_KEY"', env={"RL_KEY": KEY})
    assert ended.code == 0
    assert "daytona.rl.api_key_env" in ended.out
    assert '"RL_KEY"' in ended.out


def test_check_is_content_with_a_whole_organisation(call: Call) -> None:
    ended = call("config", "check", text=ORG, env={"DAYTONA_API_KEY": KEY})
    assert (ended.code, ended.err) == (0, "")
    assert "OK (6 policies)" in ended.out


def test_the_schema_knows_organisations(call: Call) -> None:
    schema = json.loads(call("config", "schema").out)
    fields = schema["$defs"]["DaytonaTable"]["properties"]
    assert fields["page_size"]["maximum"] == 200
    assert "api_key" not in fields
