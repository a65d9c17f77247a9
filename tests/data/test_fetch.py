"""Downloads end whole or are told in one line, and nothing of the user's is ever touched."""

import gzip
import hashlib
import io
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
import zipfile
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.filesize import decimal

from saformer.config import conf_dir
from saformer.data import download as download_module
from saformer.data.archives import DISTRIBUTIONS, Distribution, Part, disk_usage, look
from saformer.data.fetch import fetch
from saformer.errors import DataError

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


@pytest.fixture(scope="module")
def running():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def server(running):
    running.asked = []
    return running


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


@pytest.mark.parametrize("size", [len(ARCHIVE), None], ids=["size known", "size unknown"])
@pytest.mark.parametrize("kind", ["good", "norange", "cut", "unsized"])
def test_it_arrives_whole(server, kind, size):
    """From any kind of server that gives it: the archive and its files, and nothing else."""
    assert get(distribution=toy(server, kind, size=size))
    assert tree() == WHOLE


def test_a_second_call_does_nothing(server, capsys):
    """What is there is not asked for again, not even when the archive was removed."""
    get(distribution=toy(server, "good"))
    (ROOT / "toy.tar.gz").unlink()
    server.asked.clear()
    assert get(distribution=toy(server, "good"))
    assert server.asked == []
    assert capsys.readouterr().out.endswith("data/toy/toy: whole, 3 of 3 files\n")
    (ROOT / ".fetch.lock").unlink()
    assert get(distribution=toy(server)) and sorted(os.listdir(ROOT)) == ["toy"]


@pytest.mark.parametrize("size", [len(ARCHIVE), None], ids=["size known", "size unknown"])
@pytest.mark.parametrize("have", [1, 6000, len(ARCHIVE)], ids=["begun", "half", "whole"])
def test_a_download_goes_on(server, have, size):
    """Only what is missing of a .part is asked for."""
    put("toy.tar.gz.part", ARCHIVE[:have])
    get(distribution=toy(server, "good", size=size))
    asked = [] if have == size else [("/good/toy.tar.gz", f"bytes={have}-")]
    assert server.asked == asked
    assert tree() == WHOLE


@settings(max_examples=30, deadline=None)
@given(have=st.integers(0, len(ARCHIVE)), kind=st.sampled_from(["good", "norange", "cut"]))
def test_any_beginning_is_completed(running, tmp_path_factory, have, kind):
    """However much an earlier call got, the file comes out byte for byte."""
    running.asked = []
    path = tmp_path_factory.mktemp("any") / "toy.tar.gz"
    path.with_name("toy.tar.gz.part").write_bytes(ARCHIVE[:have])
    part = toy(running, kind).parts[0]
    download_module.download(path, part, list(part.urls), "")
    assert path.read_bytes() == ARCHIVE
    assert len(running.asked) <= 1 + len(ARCHIVE) / STEP


@pytest.mark.parametrize("length", [6000, len(ARCHIVE), len(ARCHIVE) + 10])
def test_a_beginning_of_another_file_is_put_aside(server, length):
    """A .part that does not lead to the right file is put aside, and the download starts anew."""
    begun = (OTHER + b"?" * 10)[:length]
    put("toy.tar.gz.part", begun)
    get(distribution=toy(server, "good"))
    mixed = begun + ARCHIVE[length:]
    assert tree() == WHOLE | {f"toy.tar.gz.{md5(mixed)[:8]}": mixed}


def test_addresses_are_tried_in_order(server, capsys):
    """Each address that fails is named with the reason, the first that works ends it."""
    get(distribution=toy(server, "403", "202", "html", "shifted", "404"))
    out = capsys.readouterr().out
    here = f"toy.tar.gz: from http://127.0.0.1:{server.server_port}"
    assert out == (
        f"{here}/403/toy.tar.gz\n"
        "  HTTP 403 Forbidden\n"
        f"{here}/202/toy.tar.gz\n"
        "  HTTP 202 in place of the file, a challenge for bots; a browser gets through\n"
        f"{here}/html/toy.tar.gz\n"
        "  a web page in place of the file\n"
        f"{here}/shifted/toy.tar.gz\n"
        f"  {decimal(len(ARCHIVE))}, MD5 as published\n"
        "data/toy/toy: 3 files unpacked\n"
    )


def test_another_piece_than_asked_for_is_refused(server):
    """A server that continues at the wrong byte is not believed."""
    put("toy.tar.gz.part", ARCHIVE[:6000])
    with pytest.raises(DataError, match=r"HTTP 206 in place of the file; 6\.0 kB are kept"):
        get(distribution=toy(server, "shifted"))
    assert tree() == {"toy.tar.gz.part": ARCHIVE[:6000]}


def test_a_mirror_comes_first(server, tmp_path):
    """A folder of archives, here or anywhere, is tried before the known addresses."""
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "toy.tar.gz").write_bytes(ARCHIVE)
    get(distribution=toy(server, "good"), mirror=f"{mirror.as_uri()}/")
    assert server.asked == [] and tree() == WHOLE


ASIDE = f"toy.tar.gz.{md5(OTHER)[:8]}"
REASONS = {
    "nobody": "no connection (Connection refused)",
    "403": "HTTP 403 Forbidden",
    "404": "HTTP 404 Not Found",
    "202": "HTTP 202 in place of the file, a challenge for bots; a browser gets through",
    "204": "HTTP 204 in place of the file",
    "html": "a web page in place of the file",
    "empty": "an empty file",
    "text": f"a file of 5 bytes, not {len(ARCHIVE)}",
    "long": f"a file of {len(ARCHIVE) + 4} bytes, not {len(ARCHIVE)}",
    "other": f"a file with MD5 {md5(OTHER)}, not {md5(ARCHIVE)}; kept as {ASIDE}",
    "same": "the connection ended; 4.0 kB are kept in toy.tar.gz.part",
    "stalls": "the connection broke (no answer for 0.2 s); 4.0 kB are kept in toy.tar.gz.part",
}


@pytest.mark.parametrize("kind", REASONS)
def test_a_download_that_fails_is_told(server, kind, monkeypatch):
    """Why it failed, what to do, and what came is kept; a later call finds nothing in its way."""
    if kind == "stalls":
        monkeypatch.setattr(download_module, "TIMEOUT", 0.2)
    with pytest.raises(DataError) as error:
        get(distribution=toy(None if kind == "nobody" else server, kind))
    assert str(error.value) == (
        "data/toy/toy.tar.gz: expected a download, found none from 1 address (the last: "
        f"{REASONS[kind]}). Check the network and run saformer-data fetch toy again, or get it "
        f"from {PAGE} with a browser and put it there."
    )
    kept = {
        "other": {ASIDE: OTHER},
        "same": {"toy.tar.gz.part": ARCHIVE[:STEP]},
        "stalls": {"toy.tar.gz.part": ARCHIVE[:STEP]},
    }
    assert tree() == kept.get(kind, {})
    assert get(distribution=toy(server, "good")) and tree().items() >= WHOLE.items()


def test_what_does_not_begin_like_an_archive_is_not_written(server):
    """Where no size is known the first bytes tell, before anything is written."""
    with pytest.raises(DataError, match=r"a file that begins b'hello', not b'\\x1f\\x8b'"):
        get(distribution=toy(server, "text", size=None))
    assert tree() == {}


# What the user put there, and the answer. Nothing of it may change.
USERS = {
    "cut off": (
        {"toy.tar.gz": ARCHIVE[:100]},
        f"data/toy/toy.tar.gz: expected MD5 {md5(ARCHIVE)} and {len(ARCHIVE)} bytes, found "
        f"{md5(ARCHIVE[:100])} and 100 bytes. It was left as it is: move it away and run "
        "saformer-data fetch toy again.",
    ),
    "a web page": (
        {"toy.tar.gz": HTML},
        f"data/toy/toy.tar.gz: expected MD5 {md5(ARCHIVE)} and {len(ARCHIVE)} bytes, found "
        f"{md5(HTML)} and {len(HTML)} bytes (a web page). It was left as it is: move it away and "
        "run saformer-data fetch toy again.",
    ),
    "in download/": (
        {"download/toy.tar.gz": b""},
        f"data/toy/download/toy.tar.gz: expected MD5 {md5(ARCHIVE)} and {len(ARCHIVE)} bytes, "
        f"found {md5(b'')} and 0 bytes. It was left as it is: move it away and run saformer-data "
        "fetch toy again.",
    ),
    "unpacked in part": (
        {"toy/a.bin": b"1", "toy/b.bin": b"2", "toy/notes.txt": b"mine"},
        "data/toy/toy: expected 3 files of toy.tar.gz, found 2. Nothing of it was touched: move it "
        "away and run saformer-data fetch toy; it is unpacked anew.",
    ),
}


@pytest.mark.parametrize("case", USERS)
def test_what_the_user_put_there_is_told_and_left(server, case):
    """A damaged archive or folder is told with the numbers, untouched, and nothing downloaded."""
    files, answer = USERS[case]
    for name, data in files.items():
        put(name, data)
    before = tree()
    with pytest.raises(DataError) as error:
        get(distribution=toy(server, "good"))
    assert str(error.value) == answer
    assert tree() == before and server.asked == []


@pytest.mark.parametrize("name", ["toy.tar.gz", "download/toy.tar.gz"])
def test_an_archive_that_was_put_there_is_used(server, name):
    """A right archive, from wherever, is verified, unpacked and left; nothing is downloaded."""
    put(name, ARCHIVE)
    get(distribution=toy(server, "good"))
    assert server.asked == []
    assert tree().items() >= {**CONTENTS, name: ARCHIVE}.items()


@pytest.mark.parametrize("right", [True, False])
def test_a_file_that_is_put_there_meanwhile_stays(server, right):
    """Who downloads by hand while fetch is at it keeps the file, and hears if it is wrong."""
    server.by_hand = ARCHIVE if right else b"mine"
    if right:
        get(distribution=toy(server, "meanwhile"))
        assert tree() == WHOLE
        return
    with pytest.raises(DataError, match=r"toy\.tar\.gz\.part beside it is whole: rename that"):
        get(distribution=toy(server, "meanwhile"))
    assert tree() == {"toy.tar.gz": b"mine", "toy.tar.gz.part": ARCHIVE}


def test_the_unpacked_folder_as_root(server):
    """dataset.root may name the unpacked folder itself, as for the readers."""
    for name, data in CONTENTS.items():
        put(Path(name).name, data)
    assert get(distribution=toy(server, "good")) and server.asked == []


def link(name: str, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


EVIL = {
    "up": ("toy.tar.gz", tar({"toy/../../x": b"x"}), "below its own folder, found toy/../../x"),
    "absolute": ("toy.tar.gz", tar({"/tmp/x": b"x"}), "below its own folder, found /tmp/x"),
    "link": (
        "toy.tar.gz",
        tar({}, link("toy/x", "/etc/passwd")),
        "files and folders in it, found toy/x, a link or device",
    ),
    "zip": ("toy.zip", zipped({"toy/../../x": b"x"}), "below its own folder, found toy/../../x"),
    "another": ("toy.zip", zipped({"yot/x": b"x"}), "a folder toy in it, found yot"),
}


@pytest.mark.parametrize("case", EVIL)
def test_an_archive_cannot_write_elsewhere(case):
    """A path that leads out, a link, or an archive without its folder leaves nothing behind."""
    name, data, answer = EVIL[case]
    path = put(name, data)
    part = replace(toy(None).parts[0], archive=name, md5=md5(data), size=None)
    with pytest.raises(DataError, match=re.escape(answer)):
        get(distribution=Distribution((part,), page=PAGE))
    assert tree() == {name: data} and path.exists()


def test_zip_and_single_files(server):
    """Several parts: a zip archive, a file that is used as it is, and one that is there already."""
    image = gzip.compress(b"idx", mtime=0)
    mirror = Path("mirror")
    mirror.mkdir()
    one, two = zipped({"one/a.txt": b"a"}), zipped({"two/a.txt": b"a"})
    for name, data in {"one.zip": one, "x.gz": image}.items():
        (mirror / name).write_bytes(data)
    put("two/a.txt", b"a")
    parts = (
        Part({"one/*.txt": 1}, "one.zip", md5(one), folder="one"),
        Part({"two/*.txt": 1}, "two.zip", md5(two), folder="two"),
        Part({"x": 1}, "x.gz", md5(image), len(image)),
    )
    for _ in range(2):
        assert get(distribution=Distribution(parts), mirror=mirror.absolute().as_uri())
    assert tree() == {
        "one": None,
        "one.zip": one,
        "one/a.txt": b"a",
        "two": None,
        "two/a.txt": b"a",
        "x.gz": image,
    }
    put("x.gz", b"cut off")
    with pytest.raises(DataError, match=f"expected MD5 {md5(image)}"):
        get(distribution=Distribution(parts))


KILLED = """
import os, signal, sys
from pathlib import Path
from saformer.data import fetch
from saformer.data.archives import Distribution, Part
fetch.os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
part = Part({"*.bin": 3}, "toy.tar.gz", sys.argv[1], folder="toy")
fetch.fetch("toy", Distribution((part,), ("toy", "")), Path("data/toy"))
"""


def test_a_killed_extraction_never_looks_whole(server):
    """Killed at its last step, unpacking leaves no folder of the name; the next call cleans up."""
    put("toy.tar.gz", ARCHIVE)
    done = subprocess.run([sys.executable, "-c", KILLED, md5(ARCHIVE)])
    assert done.returncode == -signal.SIGKILL
    assert not (ROOT / "toy").exists() and list(ROOT.glob(".unpacking-toy-*"))
    assert get(distribution=toy(server))
    assert tree() == WHOLE


def test_two_at_once(server):
    """A second fetch into the same folder is told of the first."""
    ROOT.mkdir(parents=True)
    with FileLock(ROOT / ".fetch.lock"), pytest.raises(DataError) as error:
        get(distribution=toy(server, "good"))
    assert str(error.value) == (
        "data/toy: expected no other fetch at work there, found one. Wait for its end."
    )


def test_a_root_that_cannot_be(server):
    """Where no folder can be made, the folder is named with the system's reason."""
    Path("data").write_text("a file")
    with pytest.raises(
        DataError, match=r"^data/toy: expected a place to write to, found Not a dir"
    ):
        get(distribution=toy(server, "good"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_while_downloading(server):
    """A disk that is full is told as such, not as a fault of the address."""
    ROOT.mkdir(parents=True)
    (ROOT / "toy.tar.gz.part").symlink_to("/dev/full")
    with pytest.raises(DataError) as error:
        get(distribution=toy(server, "good"))
    assert str(error.value) == (
        "data/toy: expected a place to write to, found No space left on device. Make room or "
        "permit writing there, or set data_dir to another folder."
    )


def test_by_hand(server, capsys):
    """Without an address the steps are said until the archive lies there, then it is unpacked."""
    steps = "Put toy.tar.gz into {root}."
    by_hand = replace(toy(server), by_hand=steps)
    assert not get(distribution=by_hand)
    assert capsys.readouterr().out == "Put toy.tar.gz into data/toy.\n"
    put("toy.tar.gz", ARCHIVE)
    assert get(distribution=by_hand)
    assert tree() == WHOLE


def test_every_dataset_is_in_the_catalogue():
    """Every configuration says where its files come from; sums and addresses are well formed."""
    assert set(DISTRIBUTIONS) == {path.stem for path in (conf_dir() / "dataset").glob("*.yaml")}
    sums = []
    for distribution in DISTRIBUTIONS.values():
        assert distribution.by_hand or distribution.page
        for part in distribution.parts:
            assert re.fullmatch("[0-9a-f]{32}", part.md5) or not part.archive
            assert part.urls or distribution.by_hand
            assert all(re.match("https?://", url) for url in part.urls)
            sums += [part.md5] if part.archive else []
    assert len(set(sums)) == len(sums) == 18


def test_the_steps_by_hand_name_all_that_is_needed():
    """Gesture: the page, all four sums and the place. ImageNet: the page, archives and layout."""
    gesture = DISTRIBUTIONS["dvs128_gesture"].by_hand.format(root="here")
    assert len(re.findall("[0-9a-f]{32}", gesture)) == 4
    assert "https://ibm.ent.box.com/s/3hiq58ww1pbbjrinh367ykfdf60xsfm8" in gesture
    assert "DvsGesture.tar.gz and put it into here" in gesture
    imagenet = DISTRIBUTIONS["imagenet"].by_hand.format(root="here")
    assert "here/val/n01440764/*.JPEG" in imagenet and "ILSVRC2012_img_val.tar" in imagenet


def test_counting_prefers_the_place_with_most(tmp_path):
    """Of the places that a reader looks in, the fullest counts; extra files do not."""
    part = Part({"*.bin": 2, "x": 1})
    (tmp_path / "inner").mkdir()
    for name in ("a.bin", "inner/a.bin", "inner/b.bin", "inner/c.bin", "inner/x.gz"):
        (tmp_path / name).touch()
    found = look(part, tmp_path, ("", "inner", "absent"))
    assert (found.folder, found.count, found.whole) == (tmp_path / "inner", 3, True)


def test_disk_usage_stops(tmp_path):
    """Sizes are summed over all folders, and no longer than is asked for."""
    for name in ("a", "b/c", "b/d"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    assert disk_usage(tmp_path) == (15, True)
    assert disk_usage(tmp_path, max_files=2) == (10, False)
    assert disk_usage(tmp_path / "nowhere") == (0, True)
