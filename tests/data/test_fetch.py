"""Downloads end whole or are told in one line, and nothing of the user's is ever touched."""

import gzip
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
from dataclasses import replace
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.filesize import decimal
from toy_server import (
    ARCHIVE,
    CONTENTS,
    HTML,
    OTHER,
    PAGE,
    ROOT,
    STEP,
    WHOLE,
    Handler,
    get,
    md5,
    put,
    tar,
    toy,
    tree,
    zipped,
)

from saformer.data import download as download_module
from saformer.data.archives import Distribution, Part
from saformer.errors import DataError


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
        "data/toy/toy: expected 3 files of toy.tar.gz, found 2. It was not changed: move it away "
        "and run saformer-data fetch toy to unpack it again.",
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
