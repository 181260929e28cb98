"""A configuration, and a secret, that another user may write."""

import json
import os
from pathlib import Path

import pytest

from reaper.config import load, secrets, trust
from reaper.errors import ConfigError
from reaper.providers.daytona.registration import REGISTRATION
from reaper.providers.daytona.settings import DaytonaTable
from reaper.providers.registration import EndpointSpec
from tests.program.fakeengine import FakeEngine
from tests.run import Program

OTHER = 54321
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
EVERYTHING = "[scope]\neverything = true\n"


def refused(ended: object, fake: FakeEngine) -> None:
    assert getattr(ended, "code") == 2, ended  # noqa: B009
    assert fake.calls == []


@AS_ROOT
@pytest.mark.parametrize(
    "command", [("--once", "--all"), ("list",), ("check",), ("config", "check"), ("config", "show"), ()]
)
def test_a_file_of_another_user_is_refused(run: Program, fake: FakeEngine, command: tuple[str, ...]) -> None:
    fake.add("stranger", ago="30h", owned=False)
    file = run.folder / "reaper.toml"
    file.write_text(EVERYTHING)
    os.chown(file, OTHER, OTHER)
    ended = run(*command)
    refused(ended, fake)
    assert f"it belongs to user {OTHER}" in ended.err
    assert "chown root" in ended.err
    assert fake.names() == {"stranger"}


@pytest.mark.parametrize("named", [True, False])
def test_a_file_that_everybody_may_write_is_refused(run: Program, fake: FakeEngine, *, named: bool) -> None:
    file = run.folder / ("mine.toml" if named else "reaper.toml")
    file.write_text(EVERYTHING)
    file.chmod(0o666)
    ended = run("--once", *(("--config", str(file)) if named else ()))
    refused(ended, fake)
    assert "it can be written by every user" in ended.err
    file.chmod(0o644)
    assert run("--once", *(("--config", str(file)) if named else ())).code == 0


@AS_ROOT
def test_a_file_that_a_group_of_others_may_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(EVERYTHING)
    file.chmod(0o664)
    assert load.load(str(file), {}).settings.scope.everything  # root's own group has root alone
    monkeypatch.setattr(trust, "_members", lambda _: frozenset({0, OTHER}))
    with pytest.raises(ConfigError, match=f"written by its group, and with that by user {OTHER}"):
        load.load(str(file), {})


@AS_ROOT
def test_a_link_of_another_user_to_a_file_of_root_is_refused(run: Program, fake: FakeEngine, tmp_path: Path) -> None:
    real = tmp_path / "real.toml"
    real.write_text(EVERYTHING)
    link = run.folder / "reaper.toml"
    link.symlink_to(real)
    os.chown(link, OTHER, OTHER, follow_symlinks=False)
    ended = run("--once")
    refused(ended, fake)
    assert f"symbolic link that belongs to user {OTHER}" in ended.err


@AS_ROOT
def test_a_file_of_root_is_good_for_every_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(EVERYTHING)
    monkeypatch.setattr(os, "geteuid", lambda: OTHER)
    assert load.load(str(file), {}).settings.scope.everything


def test_a_pipe_is_as_good_as_a_file(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, EVERYTHING.encode())
    os.close(writing)
    try:
        assert load.load(f"/dev/fd/{reading}", {}).settings.scope.everything
    finally:
        os.close(reading)


@AS_ROOT
def test_a_file_that_is_mounted_by_itself_may_have_any_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(EVERYTHING)
    os.chown(file, OTHER, OTHER)
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"36 35 98:0 /mnt1 {file.resolve()} rw,noatime master:1 - ext3 /dev/root rw\n")
    monkeypatch.setattr(trust, "_MOUNTS", mounts)
    assert load.load(str(file), {}).settings.scope.everything


@AS_ROOT
def test_a_secret_of_another_user_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("dtn_secret")
    endpoint = EndpointSpec(REGISTRATION, DaytonaTable(name="rl", api_key_file=str(file)))
    assert secrets.with_secret(endpoint, {}).secret == "dtn_secret"
    os.chown(file, OTHER, OTHER)
    with pytest.raises(ConfigError, match=f"belongs to user {OTHER}") as refused:
        secrets.with_secret(endpoint, {})
    assert "dtn_secret" not in str(refused.value)


def test_the_first_line_of_a_sweep_names_the_file_in_force(run: Program, fake: FakeEngine) -> None:
    fake.add("leftover", ago="30h")
    (run.folder / "reaper.toml").write_text("")
    first = json.loads(run("--once").err.splitlines()[0])
    assert (first["event"], first["config"]) == ("sweep_started", str((run.folder / "reaper.toml").resolve()))
    (run.folder / "reaper.toml").unlink()
    assert json.loads(run("--once").err.splitlines()[0])["config"] == "the defaults"
