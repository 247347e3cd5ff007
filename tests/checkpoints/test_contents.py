"""Digests and finiteness, found in one reading and remembered until the file changes."""

from __future__ import annotations

import hashlib
import json
import os
import zlib

import pytest
import torch
from safetensors.torch import save_file

from mats_core.checkpoints import contents
from mats_core.checkpoints.contents import DTYPE_NAMES, Contents
from mats_core.checkpoints.files import Checkpoint
from mats_core.checkpoints.renamed import Renamed
from mats_core.checkpoints.writer import TensorFileWriter
from mats_core.system import remember
from mats_core.system.folders import cache_folder
from mats_core.system.remember import Memory

TENSORS = {
    "a": torch.arange(40, dtype=torch.float32).reshape(5, 8),
    "b": torch.full((7,), float("inf"), dtype=torch.float16),
    "c": torch.arange(9, dtype=torch.int64),
    "d": torch.cat([torch.zeros(30), torch.tensor([float("nan")])]).to(torch.bfloat16),
    "e": torch.zeros(0),
}


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file that counts as large and settled, and a cache of its own."""
    monkeypatch.setenv("MATS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(contents, "WORTH", 1)
    monkeypatch.setattr(contents, "SETTLED", 0.0)
    save_file(TENSORS, tmp_path / "x.safetensors")
    forget()
    yield tmp_path / "x.safetensors"
    forget()  # other tests have other limits


def forget():
    """As another process: what is in memory is gone."""
    remember.memory().clear()


def test_checksums_are_those_of_zlib_of_which_journals_are_full(tmp_path):
    specs = {name: (value.dtype, tuple(value.shape)) for name, value in TENSORS.items()}
    with TensorFileWriter(tmp_path / "y.safetensors", specs) as writer:
        for name, value in TENSORS.items():
            if name == "a":  # in pieces
                writer.add(name, value.reshape(-1)[:11], 0)
                writer.add(name, value.reshape(-1)[11:], 11)
            else:
                writer.add(name, value)
    written = Checkpoint.open(tmp_path / "y.safetensors")
    for name, value in TENSORS.items():
        right = zlib.crc32(value.reshape(-1).view(torch.uint8).numpy().tobytes())
        assert writer.checksum(name) == contents.checksum(written.tensors[name]) == right


def refuse_to_read(monkeypatch):
    def refused(entry):
        pytest.fail(f"{entry.key} was read again")

    monkeypatch.setattr(contents, "_read", refused)


@pytest.mark.parametrize("block", [8, 24, 1 << 20])
def test_digests_and_finiteness_are_those_of_the_bytes(file, monkeypatch, block):
    monkeypatch.setattr(contents, "BLOCK", block)
    checkpoint = Checkpoint.open(file)
    for name, value in TENSORS.items():
        head = f"{DTYPE_NAMES[value.dtype]}{list(value.shape)}".encode()
        raw = value.view(torch.uint8).numpy().tobytes() if value.numel() else b""
        assert checkpoint.digest(name) == hashlib.sha256(head + raw).hexdigest()
        assert checkpoint.finite(name) == (name not in "bd")


def test_the_next_process_reads_nothing_again(file, monkeypatch):
    first = Checkpoint.open(file).fingerprint
    forget()
    refuse_to_read(monkeypatch)
    again = Checkpoint.open(file)
    assert again.fingerprint == first
    assert [n for n in TENSORS if not again.finite(n)] == ["b", "d"]


def test_a_change_that_keeps_size_and_time_is_seen(file):
    before = Checkpoint.open(file).fingerprint
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    with file.open("r+b") as handle:
        handle.seek(-1, os.SEEK_END)
        last = handle.read(1)
        handle.seek(-1, os.SEEK_END)
        handle.write(bytes([last[0] ^ 1]))
    os.utime(file, ns=times)
    assert Checkpoint.open(file).fingerprint != before
    forget()
    assert Checkpoint.open(file).fingerprint != before


@pytest.mark.parametrize("damage", ["{", "[]", '{"format": "mats-contents-1"}', "null"])
def test_a_damaged_cache_is_no_cache(file, damage):
    before = Checkpoint.open(file).fingerprint
    (kept,) = (cache_folder() / "contents").iterdir()
    kept.write_text(damage)
    forget()
    assert Checkpoint.open(file).fingerprint == before
    assert json.loads(kept.read_text())["format"] == contents.FORMAT  # made again


def test_a_cache_that_cannot_be_written_costs_only_time(file, monkeypatch):
    (file.parent / "cache").write_text("a file where the folder should be")
    assert len(Checkpoint.open(file).fingerprint) == 64


def test_what_has_just_been_written_or_is_small_is_not_kept(file, monkeypatch):
    monkeypatch.setattr(contents, "SETTLED", 1e6)
    assert Checkpoint.open(file).fingerprint
    monkeypatch.setattr(contents, "SETTLED", 0.0)
    monkeypatch.setattr(contents, "WORTH", 1 << 20)
    assert Checkpoint.open(file).fingerprint
    assert not (cache_folder() / "contents").exists()


def test_a_file_that_changes_while_it_is_read_is_not_remembered(file, monkeypatch):
    read = contents._read

    def touched(entry):
        os.utime(file)
        return read(entry)

    monkeypatch.setattr(contents, "_read", touched)
    assert Checkpoint.open(file).digest("a")
    monkeypatch.setattr(contents, "_read", lambda entry: Contents("read anew", True))
    assert Checkpoint.open(file).digest("a") == "read anew"


def test_only_so_many_files_are_remembered(file, monkeypatch):
    monkeypatch.setattr(contents, "FILES", 2)
    for number in range(4):
        own = file.parent / f"{number}.safetensors"
        save_file({"w": torch.full((3,), float(number))}, own)
        assert Checkpoint.open(own).fingerprint
    assert len(list((cache_folder() / "contents").iterdir())) == 2


def test_a_checkpoint_reads_its_files_once_whatever_the_process_remembers(file, monkeypatch):
    monkeypatch.setattr(contents, "WORTH", 1 << 20)  # nor is anything kept in the cache folder
    monkeypatch.setattr(remember, "memory", lambda: Memory(0))
    read: list[str] = []
    plain = contents._read
    monkeypatch.setattr(contents, "_read", lambda entry: read.append(entry.key) or plain(entry))
    checkpoint = Checkpoint.open(file)
    assert checkpoint.fingerprint == checkpoint.fingerprint
    assert [checkpoint.finite(name) for name in TENSORS]
    assert len(read) == len(set(read)) == len(TENSORS)


def test_all_digests_are_those_of_each_tensor_for_one_look_at_the_file(file, monkeypatch):
    opened = Checkpoint.open(file)
    each = {name: opened.digest(name) for name in TENSORS}
    looks: list[object] = []
    seen = contents._stamp
    monkeypatch.setattr(contents, "_stamp", lambda one: looks.append(one) or seen(one))
    assert opened.digests() == each
    assert looks == [file]
    view = Renamed.of(opened, {f"x.{name}": name for name in TENSORS})
    assert view.digests() == {f"x.{name}": digest for name, digest in each.items()}
    save_file({**TENSORS, "c": TENSORS["c"] + 1}, file)
    changed = {name for name, digest in opened.digests().items() if digest != each[name]}
    assert changed == {"c"}
