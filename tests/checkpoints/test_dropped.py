"""Files that were handed over: where they are put, and what is refused before that."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from mats_core.checkpoints import Dropped, receive
from mats_core.errors import InputError


def dropped(name: str, content: bytes = b"x") -> Dropped:
    return Dropped(name, io.BytesIO(content))


def zipped(files: dict[str, bytes], name: str = "models.zip") -> Dropped:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, content in files.items():
            archive.writestr(file, content)
    return Dropped(name, stream)


def everything(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_archives_models_and_examples_have_places_of_their_own(tmp_path):
    made = receive(
        [
            zipped({"a/model.safetensors": b"w", "a/config.json": b"{}", "__MACOSX/._a": b"junk"}),
            dropped("model.safetensors"),
            dropped("config.json"),
            dropped("rows.csv"),
        ],
        tmp_path,
    )
    assert [p.relative_to(tmp_path).as_posix() for p in made] == [
        "dropped/models", "dropped/model", "dropped/rows.csv",
    ]  # fmt: skip
    first = everything(tmp_path)
    assert first == [
        "dropped/model/config.json", "dropped/model/model.safetensors",
        "dropped/models/a/config.json", "dropped/models/a/model.safetensors", "dropped/rows.csv",
    ]  # fmt: skip
    again = receive([zipped({"b": b"2"}), dropped("rows.csv", b"other")], tmp_path)
    assert [p.name for p in again] == ["models-2", "rows-2.csv"]
    assert (tmp_path / "dropped" / "rows.csv").read_bytes() == b"x"


@pytest.mark.parametrize(
    "name", ["../out", "a/../../out", "/etc/out", "..\\out", "C:\\out", "a/..", "C:out"]
)
def test_an_archive_that_leads_out_writes_nothing(tmp_path, name):
    home = tmp_path / "home"
    home.mkdir()
    with pytest.raises(InputError, match="a path that leads out"):
        receive([zipped({"fine": b"1", name: b"2"})], home)
    assert everything(tmp_path) == []


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_in_an_archive_are_refused(tmp_path, kind):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        entry = zipfile.ZipInfo("link")
        entry.external_attr = (kind | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(InputError, match="a link or a path"):
        receive([Dropped("a.zip", stream)], tmp_path)
    assert everything(tmp_path) == []


def test_what_is_too_large_unpacked_is_refused_by_its_sizes(tmp_path):
    bomb = zipped({"zeros": bytes(2_000_000)})
    assert len(bomb.stream.read()) < 10_000
    with pytest.raises(InputError, match=r"at most 1\.0 MB together"):
        receive([bomb], tmp_path, most=1_000_000)
    with pytest.raises(InputError, match="at most"):
        receive([dropped("a.csv", bytes(11))], tmp_path, most=10)
    assert everything(tmp_path) == []


def test_an_archive_that_lies_about_its_sizes_leaves_nothing(tmp_path):
    stream = zipped({"zeros": bytes(50_000)}).stream
    raw = bytearray(stream.read() if stream.seek(0) == 0 else b"")
    for mark, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = raw.index(mark) + at
        raw[place : place + 4] = struct.pack("<I", 10)
    with pytest.raises(InputError):
        receive([Dropped("a.zip", io.BytesIO(bytes(raw)))], tmp_path)
    assert everything(tmp_path) == []


@pytest.mark.parametrize("name", ["", "...", "a/b\\..", "\0.csv", "ä" * 300 + ".csv"])
def test_a_name_of_others_is_no_path(tmp_path, name):
    (made,) = receive([dropped(name)], tmp_path)
    assert made.parent == tmp_path / "dropped"
    assert made.read_bytes() == b"x"


def test_no_archive_is_a_sentence(tmp_path):
    with pytest.raises(InputError, match=r"a \.zip that can be unpacked"):
        receive([dropped("a.zip", b"no archive")], tmp_path)
    assert everything(tmp_path) == []
