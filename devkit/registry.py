"""A registry of images that are made as they are asked for: ``python -m devkit.registry PORT``, on the loopback.

Each name and tag is an image of its own: a layer of busybox that all share, and one that only it has. Engines take a
registry on the loopback without a certificate. It says "ready" when it listens. Layers come in pieces with pauses in
between, so that a pull lasts.
"""

import gzip
import hashlib
import io
import json
import sys
import tarfile
import time
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from devkit.client import static_busybox

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
PIECES, PAUSE = 8, 0.02
_blobs: dict[str, bytes] = {}


def _stored(content: bytes) -> str:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    _blobs[digest] = content
    return digest


def _archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            file = tarfile.TarInfo(name)
            file.size, file.mode = len(content), 0o755
            tar.addfile(file, io.BytesIO(content))
    return buffer.getvalue()


@cache
def _base() -> bytes:
    busybox = static_busybox()
    assert busybox is not None
    content = Path(busybox).read_bytes()
    return _archive({"bin/true": content, "bin/sleep": content})


@cache
def manifest(reference: str) -> str:
    """The digest of the manifest of an image."""
    layers = [_base(), _archive({"mark": reference.encode() + bytes(50_000)})]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]},
    }
    raw = json.dumps(config).encode()
    packed = [gzip.compress(layer, mtime=0) for layer in layers]
    kind = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": len(raw), "digest": _stored(raw)},
        "layers": [{"mediaType": kind, "size": len(layer), "digest": _stored(layer)} for layer in packed],
    }
    return _stored(json.dumps(document).encode())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.1"  # the answer to a TLS handshake, by which containerd knows to go on without

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Say nothing."""

    def do_HEAD(self) -> None:
        """As GET, without the content."""
        self.do_GET()

    def do_GET(self) -> None:
        """A manifest by tag or digest, or a blob."""
        if self.path == "/v2/":
            self._send(b"{}", "application/json")
            return
        *name, kind, reference = self.path.removeprefix("/v2/").split("/")
        if kind == "manifests":
            digest = reference if reference.startswith("sha256:") else manifest(f"{'/'.join(name)}:{reference}")
            self._send(_blobs[digest], MANIFEST, digest)
        else:
            self._send(_blobs[reference], "application/octet-stream", reference)

    def _send(self, content: bytes, kind: str, digest: str = "") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if digest:
            self.send_header("Docker-Content-Digest", digest)
        self.end_headers()
        size = max(len(content) // PIECES, 1)
        for start in range(0, len(content), size) if self.command == "GET" else ():
            self.wfile.write(content[start : start + size])
            time.sleep(PAUSE if len(content) > PIECES * 1000 else 0)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), _Handler)
    print("ready", flush=True)
    server.serve_forever()
