"""The tables of docs/reliability.md, from what the tests have recorded; the prose around them is written by hand."""

import ast
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from devkit.flavours import FLAVOURS
from devkit.generate.reference import table_rows

DOCUMENT = Path("docs/reliability.md")
ROOT = Path(__file__).resolve().parents[2]
OUTCOMES = Path("tests/matrix/outcomes.json")
SOAK = Path("tests/model/soak.json")
END = "<!-- end of what is generated -->"
CALLS = ("list", "inspect", "group", "re-check", "stop", "delete", "confirm")

SUITES = {
    "contract of a provider": "tests/providers/test_contract.py",
    "leases' volumes and images": "tests/providers/test_leased_contract.py",
    "events": "tests/providers/test_deaths.py",
    "states": "tests/engine/test_states.py",
    "groups": "tests/engine/test_groups.py",
    "dependents": "tests/engine/test_dependents.py",
    "ownership": "tests/engine/test_ownership.py",
    "labels of images": "tests/engine/test_image_labels.py",
    "leaked projects": "tests/engine/test_leaked_projects.py",
    "leases": "tests/leases/test_engine.py",
    "proxy": "tests/proxy/test_commands.py",
}
"""What is tried on several engines, and the module that does."""


def _read(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((ROOT / file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found


def matrix(provider: str) -> Sequence[str]:
    """One provider's faults by calls."""
    found = _read(OUTCOMES)
    faults: Sequence[str] = found.get("rows", {}).get("of calls", {}).get("names", "").split("\n")
    cells = found.get(provider, {})
    calls = CALLS if provider == "daytona" else (*CALLS, "events")
    rows = [(name, *(cells.get(name, {}).get(call, "") for call in calls)) for name in faults if name in cells]
    return list(table_rows(("fault", *calls), iter(rows)))


def others() -> Sequence[str]:
    """The cells of other actions, of evidence and of further kinds: by call what came of which faults."""
    faults: dict[tuple[str, str], list[str]] = {}
    for fault, cells in _read(OUTCOMES).get("others", {}).items():
        for place, came in cells.items():
            faults.setdefault((place, came), []).append(fault)
    rows = [(place, came, "; ".join(sorted(names))) for (place, came), names in sorted(faults.items())]
    return list(table_rows(("at", "what came of it", "faults"), iter(rows)))


def host() -> Sequence[str]:
    """The faults of this host while owners are looked at or evidence is saved."""
    found = _read(OUTCOMES).get("host", {})
    rows = [(name, cells.get("docker", ""), cells.get("daytona", "")) for name, cells in sorted(found.items())]
    return list(table_rows(("fault", "docker", "daytona"), iter(rows)))


def processes() -> Sequence[str]:
    """The faults that befall the whole process."""
    found = _read(OUTCOMES).get("process", {})
    rows = [(name, cells.get("docker", ""), cells.get("daytona", "")) for name, cells in sorted(found.items())]
    return list(table_rows(("fault", "docker", "daytona"), iter(rows)))


def no_cells() -> Sequence[str]:
    """The cells that make no sense, with the reason."""
    found = _read(OUTCOMES).get("no cell", {})
    faults: dict[tuple[str, str], list[str]] = {}  # by reason and calls
    for fault, reasons in found.items():
        for reason, calls in reasons.items():
            faults.setdefault((reason, _calls(calls.split(", "))), []).append(fault)
    rows = [("; ".join(names), calls, reason) for (reason, calls), names in sorted(faults.items())]
    return list(table_rows(("fault", "has no cell for", "because"), iter(rows)))


def _calls(names: Sequence[str]) -> str:
    """The calls of both providers in a few words."""
    shown = []
    for provider in ("docker", "daytona"):
        mine = [call for call in (*CALLS, "events") if f"{provider}: {call}" in names]
        others = [call for call in (*CALLS, "events") if call not in mine]
        if len(others) <= 2:
            shown.append(f"{provider}: all{' but ' if others else ''}{' and '.join(others)}")
        elif mine:
            shown.append(f"{provider}: {', '.join(mine)}")
    return "; ".join(shown)


def engines() -> Sequence[str]:
    """Which suites run on which engines."""
    names = ["docker-simulator", *FLAVOURS, "daytona", "memory"]
    rows = []
    for suite, module in SUITES.items():
        on = {*_engines_of(module)}
        rows.append((suite, *("yes" if name in on else "" for name in names)))
    return list(table_rows(("", *(f"`{name}`" for name in names)), iter(rows)))


def contract() -> Sequence[str]:
    """What came of each part of the providers' contract on each engine."""
    found = _read(OUTCOMES).get("contract", {})
    columns = sorted({column for cells in found.values() for column in cells})
    failed = [
        f"- `{column}`: {name}: {cells.get(column, 'not run')}"
        for name, cells in sorted(found.items())
        for column in columns
        if cells.get(column) != "passed"
    ]
    on = ", ".join(f"`{column}`" for column in columns)
    first = f"{len(found)} parts on {len(columns)} kinds of endpoint: {on}. {'Not passed:' if failed else 'All passed:'}"
    return [first, "", *(failed or (f"- {name}" for name in sorted(found)))]


def _engines_of(module: str) -> Iterator[str]:
    """The names in the module's ``pytestmark``."""
    groups = {"DOCKERS": _constant("DOCKERS"), "ENGINES": _constant("ENGINES")}
    for node in ast.walk(ast.parse((ROOT / module).read_text(encoding="utf-8"))):
        is_mark = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "engines"
        for argument in node.args if is_mark and isinstance(node, ast.Call) else ():
            if isinstance(argument, ast.Constant):
                yield str(argument.value)
            elif isinstance(argument, ast.Starred) and isinstance(argument.value, ast.Attribute | ast.Name):
                of = argument.value.attr if isinstance(argument.value, ast.Attribute) else argument.value.id
                yield from groups.get(of, ())


def _constant(name: str) -> Sequence[str]:
    from tests import needs  # noqa: PLC0415 - the tests are not needed for the other files

    found: Sequence[str] = getattr(needs, name)
    return found


def soak() -> Sequence[str]:
    """The model test's runs: seeds, faults and steps."""
    runs = _read(SOAK).get("runs", [])
    if not runs:
        return ["No long run is recorded yet."]
    columns = tuple(dict.fromkeys(key for run in runs for key in run))
    table = table_rows(columns, (tuple(_shown(run.get(key, "")) for key in columns) for run in runs))
    findings = [(run["mode"], finding) for run in runs for finding in run.get("findings", ())]
    rows = ((mode, str(finding["seed"]), finding.get("judged", "open")) for mode, finding in findings)
    return [*table, "", *table_rows(("mode", "seed", "what was wrong"), rows)]


def _shown(value: object) -> str:
    """A list, as of findings, by its length, and how many of it are open; counts by name, as of faults, by their sum."""
    if isinstance(value, dict):
        return str(sum(value.values()))
    if isinstance(value, list):
        still = sum("judged" not in finding for finding in value)
        return f"{len(value)}, {still or 'none'} open" if value else "0"
    return str(value)


SECTIONS: Mapping[str, Callable[[], Sequence[str]]] = {
    "docker": lambda: matrix("docker"),
    "daytona": lambda: matrix("daytona"),
    "others": others,
    "host": host,
    "process": processes,
    "no cell": no_cells,
    "engines": engines,
    "contract": contract,
    "soak": soak,
}


def reliability() -> str:
    """docs/reliability.md."""
    text = (ROOT / DOCUMENT).read_text(encoding="utf-8")
    for name, make in SECTIONS.items():
        begin = f"<!-- generated: {name} -->"
        before, _, rest = text.partition(f"{begin}\n")
        _, _, after = rest.partition(END)
        lines = "\n".join(make())
        text = f"{before}{begin}\n\n{lines}\n\n{END}{after}"
    return text


FILES: Mapping[Path, Callable[[], str]] = {DOCUMENT: reliability}
