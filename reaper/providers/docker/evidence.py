"""What an engine tells of a container before that is deleted: its inspection without secrets, and its last log lines.

A log is whatever the container wrote, as much as it wrote: it is read as a stream of which the end is kept.
"""

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing

from reaper.core.model import Resource
from reaper.errors import NotFoundError, ProviderError, UnreadableError
from reaper.providers.abilities import Evidence
from reaper.providers.docker.connection import EngineConnection
from reaper.providers.docker.containers import mounts
from reaper.providers.docker.links import networks_of
from reaper.providers.masking import Mask
from reaper.providers.parsing import Row, table

KEPT = 256 << 10  # characters of a log
LONGEST_SECRET = 64 << 10  # so much more of it is masked first: half a secret would not be found
READ = 16 << 20  # bytes that are read for that at the most: engines store lines in parts of 16 KiB, and 1,000 are wanted
_CUT = f"only its last {KEPT >> 10} KiB are kept"
_HEAD = 8  # bytes before each part of a log whose two streams are sent as one
_LAST_STREAM = 3  # 0 to 2 are a process' own, and the engine reports its errors on 3
_NO_LOG = {  # what engines say where no log can be had, and why that is as it should be
    "does not support reading": "its logging driver cannot be read",
    "cannot read logs": "its logging driver cannot be read",  # Podman's words
    "dead or marked for removal": "it was half removed already, and the engine reads no log of such a container",
}

_FIELDS: Mapping[str, tuple[str, ...]] = {
    "": ("Id", "Name", "Created", "Path", "Args", "Image", "RestartCount", "Driver", "Platform"),
    "State": (
        *("Status", "Running", "Paused", "Restarting", "OOMKilled", "Dead", "ExitCode", "Error", "StartedAt", "FinishedAt"),
        "Health",
    ),
    "Config": (
        *("Hostname", "User", "Tty", "Env", "Cmd", "Entrypoint", "Image", "WorkingDir", "Labels", "Healthcheck"),
        *("StopSignal", "StopTimeout"),
    ),
    "HostConfig": (
        *("PidMode", "NetworkMode", "IpcMode", "RestartPolicy", "AutoRemove", "LogConfig", "Memory", "MemorySwap"),
        *("NanoCpus", "CpuShares", "CpuQuota", "CpuPeriod", "CpusetCpus", "PidsLimit", "ShmSize", "OomKillDisable"),
        *("Privileged", "Runtime"),
    ),
}
_OF_MOUNT = ("Type", "Name", "Source", "Destination", "Mode", "RW")


async def evidence_of(connection: EngineConnection, container: Resource, lines: int) -> Evidence:
    """The evidence about one container, with so many of its last log lines. Raises ProviderError."""
    row = table(await connection.request("GET", f"containers/{container.id}/json"))
    if row.get("Id") != container.id:
        raise UnreadableError("the inspection is of something else")
    mask = Mask()
    inspection = mask.inspection(_chosen(row))
    if not lines:
        return Evidence(inspection)
    try:
        log, note = await _log(connection, container.id, lines, tty=table(row.get("Config")).get("Tty") is True)
    except NotFoundError:
        raise
    except ProviderError as error:
        why = next((why for words, why in _NO_LOG.items() if words in str(error)), None)
        problem = "" if why is not None else f"its log could not be read: {error.advice}"
        return Evidence(inspection, note=why or "it could not be read", problem=problem)
    text = mask.text(log.decode("utf-8", "backslashreplace"))
    if note:  # half a secret may stand at its beginning, which is not found
        text = text.partition("\n")[2] or text[LONGEST_SECRET:]
    return Evidence(inspection, text[-KEPT:], note or (_CUT if len(text) > KEPT else ""))


def _chosen(row: Row) -> dict[str, object]:
    """The parts of an inspection that tell what it was and how it ended."""
    found: dict[str, object] = {}
    for part, names in _FIELDS.items():
        source = table(row.get(part)) if part else row
        chosen = {name: source[name] for name in names if name in source}
        found |= {part: chosen} if part else chosen
    found["Mounts"] = [{name: mount[name] for name in _OF_MOUNT if name in mount} for mount in mounts(row)]
    return {**found, "Networks": sorted(map(str, networks_of(row)))}


async def _log(connection: EngineConnection, id_: str, lines: int, *, tty: bool) -> tuple[bytes, str]:
    """The end of the log, and why a part of it is missing, if so. Raises ProviderError."""
    kept, size, most = bytearray(), 0, KEPT + LONGEST_SECRET
    plain = Unframed(tty=tty)
    cut = False
    async with aclosing(_stream(connection, id_, lines)) as chunks:
        async for chunk in chunks:
            size += len(chunk)
            for part in plain.feed(chunk):
                kept += part
            if len(kept) > 2 * most:
                del kept[:-most]
                cut = True
            if size > READ:
                return bytes(kept[-most:]), f"it had no end within {READ >> 20} MiB"
    cut = cut or len(kept) > most
    return bytes(kept[-most:]), _CUT if cut else ""


async def _stream(connection: EngineConnection, id_: str, lines: int) -> AsyncGenerator[bytes]:
    async with connection.stream(f"containers/{id_}/logs", stdout="1", stderr="1", tail=str(lines)) as answer:
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            raise UnreadableError("the log has an encoding that was not asked for")
        async for chunk in answer.content.iter_any():
            yield chunk


class Unframed:
    """Takes a log apart that has a head before each part, unless it comes from a terminal.

    One that does not look like that is passed on as it is from there on, and a part that is cut off as far as it goes.
    """

    def __init__(self, *, tty: bool) -> None:
        self._raw = tty
        self._head = b""
        self._left = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The content of the next bytes."""
        while chunk:
            if self._raw:
                yield chunk
                return
            if self._left:
                part, chunk = chunk[: self._left], chunk[self._left :]
                self._left -= len(part)
                yield part
                continue
            missing = _HEAD - len(self._head)
            self._head, chunk = self._head + chunk[:missing], chunk[missing:]
            if self._head[0] > _LAST_STREAM or any(self._head[1:4]):
                self._raw = True
                yield self._head
            elif len(self._head) == _HEAD:
                self._left = int.from_bytes(self._head[4:])
                self._head = b""
