"""Selectors that match nothing or everything: an error, or the tight caps; never silently."""

import json
from pathlib import Path

import pytest

from reaper.config import load
from reaper.core.scope import Scope, Selector
from reaper.errors import ConfigError
from tests.program.fakeengine import FakeEngine
from tests.run import Program

NOTHING = {
    "a glob in a key": ("labels", "team-*"),
    "a bracket in a key": ("labels", "team-[ab]=x"),
    "a space behind a name": ("names", "chess-1 "),
    "a slash before a name": ("names", "/chess-1"),
    "a space before a value": ("labels", "team= rl"),
}


def _load(tmp_path: Path, text: str) -> load.Config:
    (tmp_path / "mine.toml").write_text(text)
    return load.load(str(tmp_path / "mine.toml"), {})


@pytest.mark.parametrize("table", ["scope", "protect"])
@pytest.mark.parametrize(("key", "value"), NOTHING.values(), ids=NOTHING.keys())
def test_what_can_match_nothing_is_an_error(tmp_path: Path, table: str, key: str, value: str) -> None:
    with pytest.raises(ConfigError, match="matches nothing"):
        _load(tmp_path, f'[{table}]\n{key} = ["{value}"]\n')


@pytest.mark.parametrize("key", ["names", "images"])
@pytest.mark.parametrize("glob", ["*", "?*", "**"])
def test_what_protects_everything_or_narrows_nothing_is_an_error(tmp_path: Path, key: str, glob: str) -> None:
    with pytest.raises(ConfigError, match="protects everything"):
        _load(tmp_path, f'[protect]\n{key} = ["{glob}"]\n')
    with pytest.raises(ConfigError, match="narrows nothing"):
        _load(tmp_path, f'[[policy]]\nname = "p"\nkinds = ["container"]\nolder_than = "1h"\n{key} = ["{glob}"]\n')


@pytest.mark.parametrize("key", ["older_than", "stopped_for"])
@pytest.mark.parametrize("value", ["0", "0s", "0.0001ms"])
def test_a_threshold_of_nothing_is_an_error(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(ConfigError, match="greater than 0"):
        _load(tmp_path, f'[[policy]]\nname = "p"\nkinds = ["container"]\n{key} = "{value}"\n')


CATCH_ALL = [
    *({"names": (glob,)} for glob in ("*", "?*", "**", "??*", "*-*", "[a-z]*", "[!/]*", "*e*", "[a-zA-Z0-9]*")),
    *({"images": (glob,)} for glob in ("*", "*/*", "*:*", "*:latest")),
    *(
        {"labels": (pattern,)}
        for pattern in (
            "com.docker.compose.project",
            "com.docker.compose.project=*",
            "com.docker.compose.oneoff=False",
            "com.docker.compose.version=2.*",
            "org.opencontainers.image.version",
            "maintainer",
        )
    ),
]


@pytest.mark.parametrize("fields", CATCH_ALL, ids=str)
def test_what_takes_nearly_everything_has_the_tight_caps(fields: dict[str, tuple[str, ...]]) -> None:
    assert Scope(selector=Selector(**fields)).catch_all is not None
    (key, (entry,)) = next(iter(fields.items()))
    limits = load.load(None, {f"REAPER_SCOPE__{key.upper()}": json.dumps([entry])}).settings.effective_limits()
    assert (limits.max_deletions, limits.max_fraction) == (100, 0.5)


@pytest.mark.parametrize(
    "fields",
    [
        {"names": ("chess-*", "*-bench", "hb__*")},
        {"images": ("tb__*__client", "registry:5000/*", "postgres:latest")},
        {"labels": ("team=*", "com.docker.compose.project=chess-*", "com.docker.compose.service=client")},
    ],
    ids=str,
)
def test_what_names_something_has_the_usual_caps(fields: dict[str, tuple[str, ...]]) -> None:
    assert Scope(selector=Selector(**fields)).catch_all is None


@pytest.mark.parametrize("glob", ["*", "?*", "[a-z]*"])
def test_strangers_that_a_glob_takes_are_left_by_the_cap(run: Program, fake: FakeEngine, glob: str) -> None:
    for number in range(12):
        fake.add(f"stranger-{number}", ago="30h", owned=False)
    ended = run("--once", env={"REAPER_SCOPE__NAMES": json.dumps([glob])})
    assert ended.code == 4
    assert len(fake.names()) == 12


def test_an_empty_variable_takes_no_protection_away(run: Program, fake: FakeEngine, tmp_path: Path) -> None:
    fake.add("mine", ago="30h", labels={"keep-me": ""})
    (tmp_path / "reaper.toml").write_text('[protect]\nlabels = ["keep-me"]\n')
    ended = run("--once", "--config", str(tmp_path / "reaper.toml"), env={"REAPER_PROTECT__LABELS": ""})
    assert ended.code == 2
    assert "REAPER_PROTECT__LABELS: it is empty" in ended.err
    assert fake.names() == {"mine"}
    assert fake.calls == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--older-than", "0"), "greater than 0"),
        (("--older-than", "0s"), "greater than 0"),
        (("--all", "--name", "*"), "narrows nothing"),
        (("--all", "--image", "?*"), "narrows nothing"),
        (("--all", "--label", "team-*"), "globs work in its value only"),
        (("--config", ""), "names no file"),
    ],
)
def test_options_that_select_nothing_or_everything_are_errors(
    run: Program, fake: FakeEngine, arguments: tuple[str, ...], says: str
) -> None:
    ended = run("--once", *arguments)
    assert ended.code == 2
    assert says in ended.err
    assert fake.calls == []
