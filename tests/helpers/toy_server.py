"""A dataset of three files, and a server that gives its archive well or badly."""

import gzip
import hashlib
import io
import tarfile
import threading
import zipfile
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np

from saformer.data.archives import Distribution, Part
from saformer.data.fetch import fetch

ROOT = Path("data/toy")
PAGE = "https://example.org/toy"
STEP = 4000  # bytes that a server gives before it hangs up
CONTENTS = {
    f"toy/{name}.bin": np.random.default_rng(seed).bytes(5000) for seed, name in enumerate("abc")
}


def tar(contents: dict[str, bytes], *special: tarfile.TarInfo) -> bytes:
    """A tar.gz, the same bytes whenever it is made."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed:
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name, data in contents.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
            for member in special:
                archive.addfile(member)
    return buffer.getvalue()


def zipped(contents: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return buffer.getvalue()


ARCHIVE = tar(CONTENTS)
OTHER = b"\x1f\x8b" + b"?" * (len(ARCHIVE) - 2)  # looks like it, and is not it
HTML = b"<!DOCTYPE html><html><body>Sign in</body></html>"
BODIES = {"html": HTML, "empty": b"", "other": OTHER, "long": ARCHIVE + b"more", "text": b"hello"}


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """A server whose behaviour is the first word of the path."""

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append((self.path, asked))  # type: ignore[attr-defined]
        kind = self.path.split("/")[1]
        if kind.isdigit():
            self.send_response(int(kind))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = BODIES.get(kind, ARCHIVE)
        start = int(asked[6:-1]) if asked and kind not in ("norange", "same") else 0
        if start >= len(body) > 0:
            self.send_error(416)
            return
        if kind == "meanwhile":  # the person loses patience and puts the file there
            (ROOT / "toy.tar.gz").write_bytes(self.server.by_hand)  # type: ignore[attr-defined]
        self.send_response(206 if start else 200)
        if start:
            first = start + 1 if kind == "shifted" else start
            self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        if kind != "unsized":
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        ends = {"cut": start + STEP, "same": STEP, "stalls": STEP}
        self.wfile.write(body[start : ends.get(kind)])
        if kind == "stalls":
            threading.Event().wait(0.5)

    def log_message(self, *_: object) -> None:
        pass


def toy(
    server, *kinds: str, size: int | None = len(ARCHIVE), data: bytes = ARCHIVE
) -> Distribution:
    """A dataset of one archive at the addresses of such kinds."""
    port = server.server_port if server else 1  # nobody listens at 1
    part = Part(
        files={"*.bin": 3},
        archive="toy.tar.gz",
        md5=md5(data),
        size=size,
        urls=tuple(f"http://127.0.0.1:{port}/{kind}/toy.tar.gz" for kind in kinds),
        folder="toy",
    )
    return Distribution((part,), ("toy", ""), PAGE)


get = partial(fetch, "toy", root=ROOT)


def tree() -> dict[str, bytes | None]:
    """Everything below the root, but for the lock."""
    return {
        str(path.relative_to(ROOT)): path.read_bytes() if path.is_file() else None
        for path in sorted(ROOT.rglob("*"))
        if path.name != ".fetch.lock"
    }


def put(name: str, data: bytes) -> Path:
    path = ROOT / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


WHOLE = {"toy": None, **CONTENTS, "toy.tar.gz": ARCHIVE}
