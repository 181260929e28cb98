"""What a sweep found that has no configuration: what is there, whose it is, and how to change what is owned."""

import shutil
import textwrap
from collections.abc import Iterable, Sequence

from reaper.core.model import Decision, Report
from reaper.core.owners import in_a_word
from reaper.core.wording import counted
from reaper.observers.hints import command_name, other_presets
from reaper.providers.fields import masked
from reaper.providers.registration import EndpointSpec

_INDENT, _LONGEST = 11, 80  # columns


def overview(report: Report, endpoints: Sequence[EndpointSpec], presets: Sequence[str]) -> list[str]:
    """The lines, for a screen of at most 80 columns; none where nothing could be listed.

    Args:
        report: of the sweep.
        endpoints: what was swept.
        presets: those in force.
    """
    if all(endpoint.failure is not None and not endpoint.held for endpoint in report.endpoints):
        return []  # what failed says it
    decisions = [d for endpoint in report.endpoints for d in endpoint.decisions]
    owned, unowned = by_preset(decisions), [d for d in decisions if d.owner is None]
    others = other_presets(decisions)
    by = ", ".join(f"{number:,} by {name}" for name, number in owned.items()) or "nothing"
    rest = len(unowned) - sum(others.values())
    foreign = [f"{number:,} with the signs of {name}" for name, number in others.items()]
    foreign += [f"{rest:,} that no preset recognises"] if rest else []
    lines = ["There is no configuration file, so the built-in defaults hold."]
    lines += _column("found", _wrapped(*(_found(report, endpoint) for endpoint in endpoints)))
    lines += _column("owned", _wrapped(by))
    lines += _column("not owned", _wrapped(", ".join(foreign) or "nothing"))
    name = command_name()
    ways = [(f"{name} init", "write a reaper.toml of what was found, to edit")]
    if unowned:
        ways.append((f"{name} list --unowned", "what is not owned, and so never touched"))
    width = max(len(way) for way, _ in ways) + 2
    lines += _column("change it", (f"{way:<{width}}{why}" for way, why in ways))
    if others:
        lines += _column("", [f"REAPER_SCOPE__PRESETS={','.join((*presets, *others))} {name} --once --dry-run"])
    return [*lines, ""]


def by_preset(decisions: Iterable[Decision]) -> dict[str, int]:
    """How many are owned by each preset, or else by what: the most first."""
    found: dict[str, int] = {}
    for decision in decisions:
        if decision.owner is not None:
            owner = in_a_word(decision.owner.removeprefix("remembered: "))
            found[owner] = found.get(owner, 0) + 1
    return dict(sorted(found.items(), key=lambda entry: (-entry[1], entry[0])))


def _found(report: Report, endpoint: EndpointSpec) -> str:
    (found,) = (one for one in report.endpoints if one.endpoint == endpoint.name)
    what = counted(found.held, "resource")
    if found.failure is not None and not found.held:
        what = "could not be listed"
    return f"{endpoint.name}, {endpoint.registration.title} at {masked(endpoint.address)}: {what}"


def _wrapped(*texts: str) -> list[str]:
    width = min(_LONGEST, shutil.get_terminal_size().columns) - _INDENT
    return [line for text in texts for line in textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)]


def _column(head: str, lines: Iterable[str]) -> list[str]:
    return [f"{head if i == 0 else '':<{_INDENT}}{text}" for i, text in enumerate(lines)]
