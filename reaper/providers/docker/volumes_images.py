"""Volumes and images, which are listed where leases or policies ask for them: what the engine's JSON says of them.

Tolerant, as ``containers`` is: one odd row is unreadable and kept, and spoils nothing else.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from reaper.core.identity import PROJECT_LABEL
from reaper.core.lease import ANONYMOUS
from reaper.core.model import Kind, Resource, State
from reaper.core.scope import LEASE_LABEL
from reaper.providers import parsing
from reaper.providers.docker.calls import IMAGE, NAME
from reaper.providers.docker.containers import image_labels, moment, readable_moment, system_container_of
from reaper.providers.docker.links import volumes_in
from reaper.providers.parsing import Row, epoch, table, text, texts

TELLS_CREATION = (1, 42)
"""The version of the API since which ``CreatedAt`` of a volume is when it was made (Docker 23, moby/moby#44719).

Before, it is when something last came into the volume's top folder or went from it: 20.10.24 was seen to do so.
"""

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
PRESENT = "present"  # neither has a state, and whether it is in use only its deletion shows


def api_version(text: str) -> tuple[int, int]:
    """A version of the API ("v1.41") as two numbers; zeros when it is none."""
    found = re.fullmatch(r"v?(\d+)\.(\d+)", text)
    return (0, 0) if found is None else (int(found[1]), int(found[2]))


def reports_creation(version: str) -> bool:
    """Whether an engine of this version ("v1.41") reports when a volume was made."""
    return api_version(version) >= TELLS_CREATION


def volume(row: Row, endpoint: str, *, exact: bool) -> Resource | None:
    """A row of ``GET /volumes``, or an inspected one; None when it has no name.

    Args:
        row: as the engine gives it.
        endpoint: the engine's name.
        exact: whether the engine reports when it was made; else it may be older than it says.
    """
    name = text(row.get("Name"))
    if name is None:
        return None
    unreadable = None if re.fullmatch(NAME, name) else "no engine by itself gives such a name"
    try:
        created = moment(row.get("CreatedAt"))
    except ValueError as error:
        created, unreadable = None, unreadable or f"CreatedAt: {error}"
    has_none = "Labels" in row and row["Labels"] is None  # of one that was made without labels that is null
    found = {} if has_none else parsing.labels(row.get("Labels"))
    shared = row.get("Scope") != "local" or row.get("ClusterVolume") is not None
    driver = text(row.get("Driver"))
    elsewhere = None if driver in (None, "local") or LEASE_LABEL in (found or {}) else f"a volume of the driver {driver}"
    # An engine since Docker 23 labels those whose name it has made up.
    anonymous = ANONYMOUS_LABEL in (found or {}) or (not exact and ANONYMOUS.fullmatch(name) is not None and not found)
    return Resource(
        provider="docker",
        endpoint=endpoint,
        kind=Kind.VOLUME,
        id=name,
        name=name,
        state=State.STOPPED,
        raw_state=PRESENT,
        created_at=created,
        created_at_inexact=not exact,
        labels=found,
        group=(found or {}).get(PROJECT_LABEL) or None,
        uses=volumes_below(row) - {name},
        system_container="a volume of a cluster" if shared else elsewhere or system_container_of(name, found, None),
        anonymous=anonymous,
        unreadable=unreadable,
    )


def volumes_below(row: Row) -> frozenset[str]:
    """The names of the volumes whose folders it is mounted from: the engine would delete them, and its data with them."""
    options = (text(option) or "" for option in table(row.get("Options")).values())
    return frozenset(name for option in options for name in volumes_in(option))


def image(row: Row, endpoint: str, *, inspected: bool = True, layers: tuple[str, ...] = ()) -> Resource | None:
    """A row of ``GET /images/json``, or the answer of ``GET /images/ID/json``; None when it has no id.

    Args:
        row: as the engine gives it.
        endpoint: the engine's name.
        inspected: False for a row of the listing when more has to be known before a policy may take it.
        layers: its layers, where they are known from an earlier inspection.
    """
    id_ = text(row.get("Id"))
    if id_ is None:
        return None
    unreadable = None if re.fullmatch(IMAGE, id_) else "no engine gives such an id"
    try:
        created = _created(row.get("Created"))
    except ValueError as error:
        created, unreadable = None, unreadable or f"Created: {error}"
    has_none = image_labels(row) is None and ("Labels" in row or "Config" in row)  # of one without labels that is null
    found = {} if has_none else parsing.labels(image_labels(row))
    tags = _references(row)
    parent = text(row.get("ParentId")) or text(row.get("Parent"))
    return Resource(
        provider="docker",
        endpoint=endpoint,
        kind=Kind.IMAGE,
        id=id_,
        name=tags[0] if tags else id_.removeprefix("sha256:")[:12],
        state=State.STOPPED,
        raw_state=PRESENT,
        created_at=created,
        labels=found,
        image=tags[0] if tags else None,
        tags=tags,
        uses=frozenset() if parent is None else frozenset({parent}),
        pulled=_is_pulled(row, id_),
        inspected=inspected,
        layers=tuple(texts(table(row.get("RootFS")).get("Layers"))) or layers,  # from the lowest on; of one platform
        size=size if isinstance(size := row.get("Size"), int) and size >= 0 else None,
        group=(found or {}).get(PROJECT_LABEL) or None,
        system_container=_system_container_of(found, tags),
        tagged_at=readable_moment(table(row.get("Metadata")).get("LastTagTime")),
        unreadable=unreadable,
    )


def _created(value: object) -> datetime | None:
    """When it was built: in a listing in whole seconds. 1970 from reproducible builds."""
    if isinstance(value, int):
        return epoch(value) if value != 0 else datetime.fromtimestamp(0, UTC)
    return moment(value)


def _tags(value: object) -> tuple[str, ...]:
    return tuple(sorted(tag for tag in texts(value) if not tag.startswith("<none>")))


def _references(row: Row) -> tuple[str, ...]:
    """Its tags, and the references by digest to other repositories than theirs: as many as an engine deletes by force only.

    containerd's store lists what was pulled by digest among the tags as well.
    """
    listed = _tags(row.get("RepoTags"))
    tags = [tag for tag in listed if "@" not in tag]
    repositories = {tag.rpartition(":")[0] for tag in tags}
    digests = sorted({*_tags(row.get("RepoDigests")), *listed} - {*tags})
    return (*tags, *(digest for digest in digests if digest.partition("@")[0] not in repositories))


def _is_pulled(row: Row, id_: str) -> bool:
    """Whether a registry has given it a digest. containerd's store gives one to each image: its own id."""
    return any(digest.partition("@")[2] not in ("", id_) for digest in _tags(row.get("RepoDigests")))


def _system_container_of(found: Mapping[str, str] | None, tags: tuple[str, ...]) -> str | None:
    signs = (system_container_of("", found, tag) for tag in (*tags, None))
    return next((sign for sign in signs if sign is not None), None)
