"""``reaper config``, and the example that is complete and says exactly what the defaults are."""

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from reaper.config import load
from reaper.config.load import TOP_LEVEL
from reaper.config.owners import OwnerTable
from reaper.config.policies import PolicyTable
from reaper.config.presets import PresetTable
from reaper.config.prices import PricesTable
from reaper.config.quotas import QuotaTable
from reaper.config.service_tables import LeasesTable, RyukTable, ServiceTable
from reaper.config.settings import (
    DiskTable,
    EvidenceTable,
    JournalTable,
    LimitsTable,
    ProtectTable,
    RetryTable,
    ScopeTable,
    Settings,
)
from reaper.config.show import schema, show
from reaper.core.quota import Quota
from reaper.providers.daytona.settings import DEFAULT_API_URL, DEFAULT_V2_API_URL, DaytonaTable, SafetyNetTable
from reaper.providers.docker.settings import DockerTable
from tests import schemas
from tests.run import Program

EXAMPLE = Path(__file__).parents[2] / "reaper.example.toml"
TABLES: dict[str, type[BaseModel]] = {
    "preset": PresetTable,
    "scope": ScopeTable,
    "protect": ProtectTable,
    "limits": LimitsTable,
    "disk": DiskTable,
    "retry": RetryTable,
    "service": ServiceTable,
    "journal": JournalTable,
    "evidence": EvidenceTable,
    "leases": LeasesTable,
    "ryuk": RyukTable,
    "prices": PricesTable,
    "docker": DockerTable,
    "daytona": DaytonaTable,
    "owner": OwnerTable,
    "policy": PolicyTable,
    "quota": QuotaTable,
}

SAID = DaytonaTable.model_fields.keys() - {"api_key_file", "target", "ca_file"}
"""The keys of an organisation whose defaults the example says."""

# -- the example -------------------------------------------------------------------------------------------------------


def test_the_example_says_exactly_the_defaults() -> None:
    from_file, from_nothing = load.load(str(EXAMPLE), {}).settings, load.load(None, {}).settings
    assert from_file == from_nothing == Settings()
    assert from_file.rules() == from_nothing.rules()
    assert from_file.effective_limits() == from_nothing.effective_limits()
    assert load.endpoints(from_file, {}) == load.endpoints(from_nothing, {})
    assert load.endpoints(from_file, {"DOCKER_HOST": "tcp://h:1"}) == load.endpoints(
        from_nothing, {"DOCKER_HOST": "tcp://h:1"}
    )


def test_the_example_leaves_the_limits_as_tight_as_the_defaults() -> None:
    env = {"REAPER_SCOPE__EVERYTHING": "true"}
    assert load.load(str(EXAMPLE), env).settings.effective_limits() == load.load(None, env).settings.effective_limits()


def _sections() -> Iterator[tuple[str, str]]:
    """The example's tables with their text; comments count, since what has no default stands in one."""
    parts = re.split(r"^(?:# )?\[{1,2}(\w+)\]{1,2}", EXAMPLE.read_text(), flags=re.MULTILINE)
    return zip(parts[1::2], parts[2::2], strict=True)


def test_no_table_is_forgotten_here() -> None:
    assert [*TABLES, *TOP_LEVEL] == sorted(Settings.model_fields, key=lambda name: name in TOP_LEVEL)
    assert re.search(r"^# default_policies = true ", EXAMPLE.read_text().split("\n[", 1)[0], flags=re.MULTILINE)


@pytest.mark.parametrize("table", TABLES)
def test_the_example_mentions_every_key_of_every_table(table: str) -> None:
    text = "\n".join(section for name, section in _sections() if name == table)
    missing = [key for key in TABLES[table].model_fields if not re.search(rf"^(?:# )?{key} = ", text, flags=re.MULTILINE)]
    assert missing == []


def test_the_example_mentions_no_key_that_does_not_exist() -> None:
    for table, section in _sections():
        assert table in TABLES
        found = set(re.findall(r"^(?:# )?(\w+) = ", section, flags=re.MULTILINE))
        assert found <= TABLES[table].model_fields.keys()


def test_what_the_example_shows_in_comments_would_be_accepted() -> None:
    tables: dict[str, list[str]] = {"limits": [], "prices": [], "docker": [], "daytona": [], "policy": [], "quota": []}
    for table, section in _sections():
        tables.get(table, []).extend(re.findall(r"^# (\w+ = .*)$", section, flags=re.MULTILINE))
    assert [len(lines) for lines in tables.values()] == [2, 6, 13, 12, 20, 10]
    LimitsTable.model_validate(tomllib.loads("\n".join(tables["limits"])))
    shown = PricesTable.model_validate(tomllib.loads("\n".join(tables["prices"]))).prices()
    assert (shown.rates.cpu, shown.endpoints["gpu-1"].container, shown.sizes[4, 8, 10]) == (0.05, 2.5, 0.33)
    quota = QuotaTable.model_validate(tomllib.loads("\n".join(tables["quota"]))).quota()
    assert quota == replace(quota, idle_for=Quota("x", frozenset(), {}).idle_for)
    engine = tomllib.loads("\n".join(tables["docker"]))
    assert DockerTable(name=engine["name"], host=engine["host"]) == DockerTable(name="local")
    assert DockerTable(name="gpu", context=engine.pop("context")).context == "gpu-1"
    DockerTable.model_validate({**engine, "host": "tcp://gpu-1:2376"})
    organisation = tomllib.loads("\n".join(tables["daytona"]))
    assert SafetyNetTable.model_validate(organisation.pop("safety_net")).net().auto_stop
    assert DaytonaTable.model_validate({k: v for k, v in organisation.items() if k in SAID}) == DaytonaTable(
        name="default", api_url=DEFAULT_API_URL, v2_api_url=DEFAULT_V2_API_URL, api_key_env="DAYTONA_API_KEY"
    )
    DaytonaTable.model_validate({k: v for k, v in organisation.items() if k != "api_key_env"})
    policy = tomllib.loads("\n".join(tables["policy"]))
    of_unused = {key: policy.pop(key) for key in ("unused_for", "larger_than", "untagged", "anonymous")}
    stops = {"action": policy.pop("action"), "states": policy["states"]}
    PolicyTable.model_validate({**stops, "name": "x", "kinds": ["container"]})
    of_all = {key: policy[key] for key in ("window", "timezone")} | {"all": policy.pop("all")}
    PolicyTable.model_validate({**policy, "name": "x", "kinds": ["container"], "cron": "15 * * * *"})
    PolicyTable.model_validate({**of_all, "name": "x", "kinds": ["container"]})
    for kind, wrong in (("image", "anonymous"), ("volume", "untagged")):
        fields = {key: value for key, value in of_unused.items() if key != wrong}
        PolicyTable.model_validate({**fields, "name": "x", "kinds": [kind]})


def test_the_preset_that_the_example_shows_would_be_accepted() -> None:
    (section,) = [section for table, section in _sections() if table == "preset"]
    shown = tomllib.loads("\n".join(re.findall(r"^# (\w+ = .*)$", section, flags=re.MULTILINE)))
    assert PresetTable.model_validate(shown).preset().keepalive == "acme.instance"


def test_the_commented_defaults_are_the_defaults() -> None:
    """Where a comment shows a value that is the default, it is the one."""
    text = EXAMPLE.read_text()
    assert f"# max_deletions = {LimitsTable().max_deletions} " in text
    assert f"# removals = {DockerTable(name='x').removals} " in text
    assert f"# stops = {DockerTable(name='x').stops} " in text


# -- check -------------------------------------------------------------------------------------------------------------


def test_check_names_the_file(run: Program, tmp_path: Path) -> None:
    ended = run("config", "check", "--config", str(EXAMPLE))
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"{EXAMPLE}: OK (6 policies)\n")
    assert run("config", "check").out.startswith("no file, the built-in defaults: OK (6 policies)\n")


def _checked(program: Program, text: str, **env: str) -> list[str]:
    (program.folder / "reaper.toml").write_text(text)
    ended = program("config", "check", env=env)
    assert (ended.code, ended.err) == (0, "")
    return ended.out.splitlines()


def test_check_tells_in_words_what_is_owned_and_what_is_protected(program: Program) -> None:
    lines = _checked(
        program,
        '[scope]\npresets = ["terminal-bench"]\nlabels = ["team=rl"]\n[protect]\nnames = ["db-*"]\nrestart_policies = []\n'
        '[[docker]]\nname = "gpu-1"\nhost = "tcp://gpu-1:2375"\n'
        '[[policy]]\nname = "old"\nkinds = ["container"]\nolder_than = "1h"\nendpoints = ["gpu-1"]\n',
    )
    assert lines[1:] == [
        "endpoint: gpu-1, Docker at tcp://gpu-1:2375",
        "owned: preset terminal-bench: label terminal-bench, or image tb__*__client (with its whole project)",
        "owned: label team=rl",
        "protected: label reaper.keep",
        "protected: name db-*",
        "policy: old: containers older than 1 h, on gpu-1; every 10 min, first when the service starts",
        "limit: 1000 deletions for each endpoint and sweep",
    ]


def test_check_warns_of_a_variable_that_means_nothing(program: Program) -> None:
    lines = _checked(program, "# the defaults", REAPER_SCOPES="x", REAPER_LEASE="x")
    assert [line for line in lines if line.startswith("warning")] == [
        "warning: the variable REAPER_SCOPES is no setting: it has no effect"
    ]


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            "[scope]\npresets = []",
            "[scope] owns nothing, so no policy takes anything: name presets, labels, names or images",
        ),
        (
            "[limits]\nmax_deletions = 0",
            "[limits] max_deletions = 0 allows no deletion: each sweep that finds one to make ends with exit code 4",
        ),
        (
            "[limits]\nmax_lease_deletions = 0",
            "[limits] max_lease_deletions = 0 allows no deletion: each sweep that finds one to make ends with exit code 4",
        ),
        ('[scope]\npresets = []\nlabels = ["team=rl"]', None),
        ('[scope]\npresets = []\n[[policy]]\nname = "x"\nkinds = ["build-cache"]\nunused_for = "1d"', None),
    ],
)
def test_check_warns_of_what_deletes_nothing(program: Program, text: str, warning: str | None) -> None:
    warned = [line for line in _checked(program, text) if line.startswith("warning")]
    assert warned == ([] if warning is None else [f"warning: {warning}"])


_TWO = '[[policy]]\nname = "wide"\nkinds = ["container"]\n{}\n[[policy]]\nname = "narrow"\nkinds = ["container"]\n{}\n'


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        ('older_than = "1h"', 'older_than = "24h"'),
        ('older_than = "1h"', 'stopped_for = "1h"'),
        ('states = ["stopped", "failed"]', 'stopped_for = "6h"'),
        ('stopped_for = "6h"', 'stopped_for = "6h"\nnames = ["chess-*"]'),
        ('stopped_for = "6h"', 'stopped_for = "6h"\nolder_than = "24h"'),
    ],
)
def test_check_warns_of_a_policy_that_a_wider_one_makes_useless(program: Program, wide: str, narrow: str) -> None:
    warned = [line for line in _checked(program, _TWO.format(wide, narrow)) if line.startswith("warning")]
    assert len(warned) == 1
    assert "policy narrow has no effect of its own" in warned[0]
    assert "wide matches all that it matches" in warned[0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('older_than = "24h"', 'stopped_for = "1h"'),
        ('stopped_for = "1h"\nnames = ["chess-*"]', 'stopped_for = "6h"'),
        ('older_than = "1h"\nendpoints = ["local"]', 'older_than = "6h"'),
        ('states = ["stopped"]', 'stopped_for = "6h"'),
        ('older_than = "1h"\nunder_pressure = true', 'older_than = "24h"'),
        ('older_than = "1h"\nevery = "1d"', 'older_than = "24h"\nunder_pressure = true'),
    ],
)
def test_check_warns_of_no_policy_that_has_an_effect(program: Program, one: str, other: str) -> None:
    assert not [line for line in _checked(program, _TWO.format(one, other)) if line.startswith("warning")]


def test_check_says_which_policies_wait_for_a_full_disk(program: Program) -> None:
    said = "\n".join(_checked(program, _TWO.format('older_than = "1h"\nunder_pressure = true', 'older_than = "24h"')))
    assert "wide: containers older than 1 h, only while the disk is too full" in said
    scheduled = _TWO.format('older_than = "1h"\nunder_pressure = true\nevery = "1d"', 'older_than = "24h"')
    assert "also when the disk is too full" in "\n".join(_checked(program, scheduled))


def test_check_warns_of_a_policy_for_an_endpoint_that_has_no_such_thing(program: Program) -> None:
    policy = '[[policy]]\nname = "idle"\nkinds = ["sandbox"]\nidle_for = "1h"\nendpoints = ["gpu-1"]\n'
    text = f'[[docker]]\nname = "gpu-1"\n{policy}'
    assert "warning: policy idle never matches: gpu-1 has no sandbox" in _checked(program, text)


@pytest.mark.parametrize("command", [("config", "check"), ("--once",), ("list",), ("check",), ("explain", "x")])
@pytest.mark.parametrize("table", ["docker", "daytona"])
def test_certificates_that_are_missing_are_reported_before_anything_is_asked(
    program: Program, command: tuple[str, ...], table: str
) -> None:
    tables = {
        "docker": '[[docker]]\nname = "gpu-1"\nhost = "tcp://127.0.0.1:1"\ntls_ca = "/nowhere/ca.pem"\n',
        "daytona": '[[daytona]]\nname = "rl"\napi_url = "https://127.0.0.1:1/api"\nca_file = "/nowhere/ca.pem"\n',
    }
    (program.folder / "reaper.toml").write_text(tables[table])
    ended = program(*command, env={"DAYTONA_API_KEY": "k"})
    assert ended.code == 2, ended.err
    assert "/nowhere/ca.pem" in ended.err
    assert "readable PEM file" in ended.err


# -- show --------------------------------------------------------------------------------------------------------------


def _shown(program: Program, *arguments: str, env: dict[str, str] | None = None) -> dict[str, tuple[Any, str]]:
    ended = program("config", "show", "--json", *arguments, env=env)
    assert (ended.code, ended.err) == (0, "")
    assert all(entry.keys() == {"key", "value", "origin"} for entry in ended.document)
    return {entry["key"]: (entry["value"], entry["origin"]) for entry in ended.document}


def test_show_tells_where_each_value_comes_from(program: Program, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        '[scope]\nlabels = ["team=rl"]\n[retry]\nattempts = 2\n'
        '[[docker]]\nname = "gpu-1"\nhost = "tcp://gpu-1:2375"\n'
        '[[policy]]\nname = "mine"\nkinds = ["container"]\nolder_than = "90m"\n'
    )
    env = {"REAPER_RETRY__FACTOR": "3", "REAPER_POLICY__MINE__EVERY": "5m", "REAPER_SCOPE__NAMES": "chess-*"}
    shown = _shown(program, "--config", str(file), env=env)
    here = str(file)
    assert shown["scope.labels"] == (["team=rl"], here)
    assert shown["scope.names"] == (["chess-*"], "REAPER_SCOPE__NAMES")
    assert shown["scope.presets"] == (["terminal-bench", "harbor"], "default")
    assert shown["retry.attempts"] == (2, here)
    assert shown["retry.factor"] == (3.0, "REAPER_RETRY__FACTOR")
    assert shown["retry.total"] == ("1m", "default")
    assert shown["limits.max_deletions"] == (1000, "default")
    assert shown["docker.gpu-1.host"] == ("tcp://gpu-1:2375", here)
    assert shown["docker.gpu-1.removals"] == (8, "default")
    assert shown["policy.mine.older_than"] == ("1h30m", here)
    assert shown["policy.mine.every"] == ("5m", "REAPER_POLICY__MINE__EVERY")
    assert shown["policy.mine.stop_timeout"] == ("10s", "default")
    assert not [key for key in shown if key.startswith("policy.") and not key.startswith("policy.mine.")]


def test_show_for_people_says_the_same(program: Program) -> None:
    env = {"REAPER_SCOPE__NAMES": '["say \\"hi\\"*"]', "REAPER_RETRY__ATTEMPTS": "2"}
    ended = program("config", "show", env=env)
    lines = {line.split(" = ")[0].strip(): line.split(" = ", 1)[1] for line in ended.out.splitlines()}
    shown = _shown(program, env=env)
    assert lines.keys() == shown.keys()
    for key, line in lines.items():
        value, origin = line.rsplit("  # ", 1)
        # What is shown is what one could write into the file.
        assert (tomllib.loads(f"v = {value.strip()}")["v"], origin) == shown[key]


@pytest.mark.parametrize(
    ("env", "deletions", "fraction"),
    [
        ({"REAPER_SCOPE__NAMES": "*"}, (100, "default with names = *"), (0.5, "default with names = *")),
        (
            {"REAPER_SCOPE__IMAGES": '["[a-z]*"]'},
            (100, "default with images = [a-z]*"),
            (0.5, "default with images = [a-z]*"),
        ),
        ({}, (1000, "default"), ("none", "default")),
        (
            {"REAPER_SCOPE__EVERYTHING": "true"},
            (100, "default with everything = true"),
            (0.5, "default with everything = true"),
        ),
        (
            {"REAPER_SCOPE__EVERYTHING": "true", "REAPER_LIMITS__MAX_DELETIONS": "1000"},
            (1000, "REAPER_LIMITS__MAX_DELETIONS"),
            (0.5, "default with everything = true"),
        ),
        (
            {"REAPER_SCOPE__EVERYTHING": "true", "REAPER_LIMITS__MAX_FRACTION": "none"},
            (100, "default with everything = true"),
            ("none", "REAPER_LIMITS__MAX_FRACTION"),
        ),
        ({"REAPER_LIMITS__MAX_DELETIONS": "none"}, ("none", "REAPER_LIMITS__MAX_DELETIONS"), ("none", "default")),
    ],
)
def test_show_tells_the_limits_in_force(env: dict[str, str], deletions: tuple[Any, str], fraction: tuple[Any, str]) -> None:
    shown = {entry["key"]: entry for entry in json.loads(show(load.load(None, env), as_json=True))}
    for key, (value, origin) in (("limits.max_deletions", deletions), ("limits.max_fraction", fraction)):
        assert shown[key] == {"key": key, "value": value, "origin": origin}


# -- schema ------------------------------------------------------------------------------------------------------------


def test_the_schema_is_valid_and_accepts_the_example(program: Program) -> None:
    ended = program("config", "schema")
    assert (ended.code, ended.err) == (0, "")
    document = ended.document
    schemas.check(document)
    validator = schemas.validator(document)
    assert list(validator.iter_errors(tomllib.loads(EXAMPLE.read_text()))) == []
    everything = {
        "scope": {"labels": ["a=b*"], "everything": True},
        "limits": {"max_deletions": 5, "max_fraction": 0.5},
        "docker": [{"name": "gpu-1", "host": "tcp://gpu-1:2375", "tls_verify": False}],
        "policy": [
            {"name": "x", "kinds": ["container"], "older_than": "1d", "states": ["exited"], "with_project": ["volume"]},
            {"name": "y", "kinds": ["volume", "image"], "unused_for": "1d", "larger_than": "1.5GiB"},
        ],
    }
    assert list(validator.iter_errors(everything)) == []
    Settings.model_validate(everything)


@pytest.mark.parametrize(
    "wrong",
    [
        {"scpoe": {}},
        {"scope": {"lables": []}},
        {"retry": {"attempts": "4"}},
        {"retry": {"attempts": 0}},
        {"retry": {"total": "60"}},
        {"docker": [{"host": "tcp://h:1"}]},
        {"policy": [{"name": "x", "kinds": ["pod"], "older_than": "1h"}]},
        {"policy": [{"name": "x", "kinds": ["image"], "larger_than": "5"}]},
        {"policy": [{"name": "x", "kinds": ["container"], "older_than": "1h", "with_project": ["container"]}]},
    ],
)
def test_the_schema_refuses_what_the_program_refuses(wrong: dict[str, Any]) -> None:
    assert not schemas.validator(json.loads(schema())).is_valid(wrong)


def test_every_default_of_the_schema_is_valid_by_the_schema() -> None:
    document = json.loads(schema())
    seen = 0
    for model in document["$defs"].values():
        for name, key in model.get("properties", {}).items():
            if key.get("default") is not None:
                validator = schemas.validator({**key, "$defs": document["$defs"]})
                assert validator.is_valid(key["default"]), (model["title"], name, key["default"])
                seen += 1
    assert seen > 30


def test_the_schema_accepts_no_limit() -> None:
    validator = schemas.validator(json.loads(schema()))
    assert validator.is_valid({"limits": {"max_deletions": "none", "max_fraction": "none"}})


def test_check_says_what_quotas_limit(run: Program, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    keys = 'kinds = ["sandbox"]\nmax_count = 20\nmax_memory = "8GiB"\nper_label = "user"\nenforce = true\n'
    file.write_text(f'[[quota]]\nname = "q"\n{keys}')
    said = "quota: q: at most 20 at once and 8.0 GiB of memory, of sandboxes, for each value of label user"
    assert f"{said}, enforced on what is idle for 8 h" in run("config", "check", "--config", str(file)).out


@pytest.mark.parametrize("action", ["check", "example"])
def test_what_prints_no_document_does_not_ignore_that_one_is_asked_for(program: Program, action: str) -> None:
    ended = program("config", action, "--json")
    assert (ended.code, ended.out) == (2, "")
    assert "config show and schema have one" in ended.err


def test_check_says_for_whom_a_dry_run_holds(program: Program) -> None:
    line = "dry run: the service deletes nothing; reaper --once, run and ryuk do"
    assert line in _checked(program, "[service]\ndry_run = true\n")
    assert not [line for line in _checked(program, "[service]\ndry_run = false\n") if "dry run" in line]
