"""The roots that engines of other releases come from."""

from pathlib import Path

import pytest

from devkit import debian
from devkit.flavours import DEFAULT, FLAVOURS


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
    needed = "docker-28.5 needs the programs of Debian forky: python3 -m devkit.debian forky."
    assert FLAVOURS["docker-28.5"].missing() == needed
    assert FLAVOURS[DEFAULT].root() is None, "it is this host's own"
