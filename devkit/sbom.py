"""Prints what the program is made of, as a CycloneDX document: ``python -m devkit.sbom``.

It tells what is installed where it runs: beside the wheel that is what the tests ran with, in an image (where it comes in
by stdin, and finds the standard library alone) what is in that image. Python packages only: what the base of an image
brings stands in the document of that base.
"""

import json
import os
import platform
import re
import sys
import uuid
from datetime import UTC, datetime
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import Any

PROGRAM = "bench-reaper"
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)[^;]*(?:;(.*))?")


def _name(name: str) -> str:
    """The name as the package index writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _applies(marker: str | None) -> bool:
    """Whether a requirement with this marker counts here; in an image all that is installed does."""
    if marker is None:
        return True
    try:
        from packaging.markers import Marker  # noqa: PLC0415 - not in an image
    except ImportError:
        return "extra" not in marker
    return Marker(marker).evaluate({"extra": ""})


def _needs(found: Distribution) -> dict[str, Distribution]:
    """What a distribution needs here, by name."""
    needed = {}
    for requirement in found.requires or ():
        parsed = _REQUIREMENT.match(requirement)
        if parsed is not None and _applies(parsed[2]):
            try:
                needed[_name(parsed[1])] = distribution(parsed[1])
            except PackageNotFoundError:
                continue  # for another Python or another system
    return needed


def _component(found: Distribution, kind: str = "library") -> dict[str, Any]:
    name, version, metadata = _name(found.metadata["Name"]), found.version, found.metadata.json
    purl = f"pkg:pypi/{name}@{version.replace('!', '%21').replace('+', '%2B')}"
    component: dict[str, Any] = {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl}
    expression, text = metadata.get("license_expression"), str(metadata.get("license", ""))
    if expression:
        component["licenses"] = [{"expression": expression}]
    elif text and len(text) < 100 and "\n" not in text:
        component["licenses"] = [{"license": {"name": text}}]
    return component


def document(at: datetime) -> dict[str, Any]:
    """The document, the same for the same packages and time."""
    program = distribution(PROGRAM)
    found, edges, ahead = {PROGRAM: program}, dict[str, list[str]](), [program]
    while ahead:
        current = ahead.pop()
        needed = _needs(current)
        edges[_name(current.metadata["Name"])] = sorted(needed)
        ahead += [each for name, each in needed.items() if name not in found]
        found |= needed
    components = {
        name: _component(each, "application" if name == PROGRAM else "library") for name, each in sorted(found.items())
    }
    refs = {name: component["bom-ref"] for name, component in components.items()}
    main = components.pop(PROGRAM)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, ' '.join([at.isoformat(), *refs.values()]))}",
        "version": 1,
        "metadata": {
            "timestamp": at.isoformat(),
            "component": main,
            "properties": [
                {"name": "python", "value": platform.python_version()},
                {"name": "platform", "value": f"{sys.platform} {platform.machine()}"},
            ],
        },
        "components": list(components.values()),
        "dependencies": [
            {"ref": refs[name], "dependsOn": [refs[each] for each in needs]} for name, needs in sorted(edges.items())
        ],
    }


def main() -> int:
    """Print it. SOURCE_DATE_EPOCH says when it was made, where that is set."""
    seconds = os.environ.get("SOURCE_DATE_EPOCH")
    at = datetime.now(UTC).replace(microsecond=0) if seconds is None else datetime.fromtimestamp(int(seconds), UTC)
    sys.stdout.write(json.dumps(document(at), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
