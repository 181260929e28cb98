"""The engines of other releases beside this host's, and the roots that they come from."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from devkit import debian
from devkit.engine import Age, PrivateEngine
from devkit.flavours import DEFAULT, FLAVOURS
from tests.engine.lab import DAY, HOUR

pytestmark = [pytest.mark.engine, pytest.mark.engines(*FLAVOURS)]


def past(text: str) -> timedelta:
    """How long ago a time is, in whole hours."""
    hours = (datetime.now(UTC) - datetime.fromisoformat(f"{text[:19]}+00:00")) / HOUR
    return int(hours) * HOUR


def test_each_is_what_its_name_says(engine: PrivateEngine, flavour: str) -> None:
    version = engine.api.must("GET", "/version")["Version"]
    assert version.startswith(f"{'.'.join(map(str, engine.flavour.release))}.")
    store = {"docker-28.5-containerd": "overlayfs", "podman-5.8": "overlay"}.get(flavour, "overlay2")
    assert engine.api.must("GET", "/info")["Driver"] == store


def test_each_has_containers_in_every_state(engine: PrivateEngine) -> None:
    running, paused = (engine.create(name, start=True) for name in ("runs", "sleeps"))
    engine.pause_container(paused)
    ended = engine.create("ended", cmd=("true",), start=True)
    engine.wait_state(ended, "exited")
    made = engine.create("made")
    assert [engine.state(ident) for ident in (running, paused, ended, made)] == ["running", "paused", "exited", "created"]
    engine.create_network("net")
    engine.create_volume("vol")
    assert (engine.networks(), engine.volumes()) == (["net"], ["vol"])


def test_each_can_make_what_it_holds_old(engine: PrivateEngine) -> None:
    old, ended = engine.create("old", start=True), engine.create("ended", cmd=("true",))
    engine.create_network("net")
    engine.backdate(
        {old: Age(created=2 * DAY, started=2 * DAY), ended: Age(created=DAY + HOUR, started=DAY + HOUR, finished=DAY)},
        networks={"net": 3 * DAY},
    )
    seen = engine.inspect(old)
    assert [past(text) for text in (seen["Created"], seen["State"]["StartedAt"])] == [2 * DAY, 2 * DAY]
    assert seen["State"]["Status"] == "running"
    seen = engine.inspect(ended)
    assert [past(seen["State"][key]) for key in ("StartedAt", "FinishedAt")] == [DAY + HOUR, DAY]
    assert seen["State"]["Status"] == "exited"
    assert past(engine.api.must("GET", "/networks/net")["Created"]) == 3 * DAY
    engine.remove(ended)


def test_no_index_but_that_of_debian_itself_is_taken(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text("# deb http://commented.test/debian x main\ndeb http://one.test/debian x main\n")
    (tmp_path / "sources.list.d/other.list").write_text("deb [signed-by=/k] https://other.test/apt x main\n")
    (tmp_path / "sources.list.d/new.sources").write_text(
        "Types: deb\nURIs: http://two.test/debian-security\n\nTypes: deb\nURIs: http://three.test/debian/\n"
    )
    assert list(debian.indexes(tmp_path)) == ["http://one.test/debian", "http://three.test/debian/"]


def test_an_engine_whose_root_is_not_there_is_reported_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REAPER_ENGINES", str(tmp_path))
    monkeypatch.setattr(debian, "release", lambda: "")
    assert (
        PrivateEngine.available("docker-28.5")
        == "docker-28.5 needs the programs of Debian forky: python3 -m devkit.debian forky."
    )
    assert PrivateEngine.available(DEFAULT) is None, "this host's own engine does"
