"""What is built from: pins, and what is known against them."""

import json

import pytest

from devkit import audit

PROJECT = '[project]\ndependencies = ["a>=1", "b"]\noptional-dependencies = {dev = ["c>=3"]}\n'


def test_pins_that_do_not_fit_are_named() -> None:
    pinned = audit.pins("# a comment\na==1.0\nC_d==2\n")
    assert pinned == {"a": "1.0", "c-d": "2"}
    found = audit.problems(pinned, {"a": "1.1", "c-d": "2", "stray": "1"}, PROJECT)
    assert found == [
        "a 1.1 is installed, and constraints.txt has 1.0",
        "stray 1 is installed, and constraints.txt has no such line",
        "pyproject.toml: b has no lower bound",
        "pyproject.toml: c>=3 does not allow what constraints.txt pins: nothing",
    ]
    with pytest.raises(ValueError, match="pins no version"):
        audit.pins("a>=1\n")


def test_an_advisory_is_told_and_what_is_not_answered_is_not_checked() -> None:
    known = {"id": "PYSEC-1", "fix_versions": ["1.2"]}
    answer = {"dependencies": [{"name": "a", "version": "1.0", "vulns": [known]}, {"name": "b", "skip_reason": "?"}]}
    assert audit.advisories(json.dumps(answer), ["a", "b", "c"]) == (["a 1.0: PYSEC-1, mended in 1.2"], ["b", "c"])
    assert audit.advisories("", ["a"]) == ([], ["a"])


@pytest.mark.parametrize(("required", "code"), [("", 0), ("1", 1)])
def test_a_check_that_was_not_made_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], required: str, code: int
) -> None:
    monkeypatch.setattr(audit, "_ask", lambda: "")
    monkeypatch.setattr(audit, "problems", lambda *_: [])
    monkeypatch.setenv("REAPER_REQUIRE_AUDIT", required)
    assert audit.main() == code
    assert "NOT checked for known vulnerabilities" in capsys.readouterr().out
