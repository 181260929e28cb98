"""Links and paths in the documents lead somewhere."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LISTED = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
DOCUMENTS = [Path(name) for name in LISTED] or [path.relative_to(ROOT) for path in ROOT.glob("docs/*.md")]
LINK = re.compile(r"\[[^\]]+\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
NAMED = re.compile(r"`(\.?[a-z][\w-]*/[\w./-]*|[\w.-]+\.(?:py|md|toml|txt))`")
ROOM = re.compile(r"^\| `(reaper/\w+)/` \|")
PATHS_OF = (Path("docs/architecture.md"), Path("CONTRIBUTING.md"))


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(document: Path) -> set[str]:
    """The anchors that a heading gives, as GitHub makes them."""
    headings = HEADING.findall(without_code(document.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    here = ROOT / document
    broken = []
    for path, anchor in LINK.findall(without_code(here.read_text())):
        target = (here.parent / path).resolve() if path else here
        if not target.exists() or (anchor and target.suffix == ".md" and anchor.lower() not in anchors(target)):
            broken.append(f"{path}#{anchor}")
    assert broken == []


def test_every_threat_names_tests_that_exist() -> None:
    """Each row of the threat model is held by at least one test."""
    rows = [line for line in (ROOT / "SECURITY.md").read_text().splitlines() if line.startswith("| ") and "--" not in line]
    named = [(row, re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)) for row in rows if not row.startswith("| threat")]
    assert len(named) > 20
    assert [row for row, tests in named if not tests] == []
    missing = [
        f"{path}::{name}"
        for _, tests in named
        for path, name in tests
        if not (ROOT / path).exists() or not re.search(rf"^ *(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE)
    ]
    assert missing == []


@pytest.mark.parametrize("document", PATHS_OF, ids=str)
def test_every_path_that_is_named_exists(document: Path) -> None:
    """A path starts at the top or at ``reaper/``; in the row of a room, at the room."""
    named, missing = 0, []
    for line in (ROOT / document).read_text().splitlines():
        room = ROOM.match(line)
        tops = (".", "reaper", room[1]) if room else (".", "reaper")
        for name in NAMED.findall(line):
            named += 1
            if not any((ROOT / top / name).exists() for top in tops):
                missing.append(name)
    assert named > 5
    assert missing == []
