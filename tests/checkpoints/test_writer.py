"""Writers keep every dtype and shard; outputs appear whole or not at all."""

from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors.torch import load_file

from mats_core.checkpoints import staging
from mats_core.checkpoints.contents import DTYPES
from mats_core.checkpoints.files import Checkpoint
from mats_core.checkpoints.staging import staged_directory, write_atomically
from mats_core.checkpoints.writer import CheckpointWriter, TensorFileWriter, config_files
from mats_core.errors import InputError, MachineError

# Writing ------------------------------------------------------------------------------------------


def every_dtype():
    tensors = {}
    for name, dtype in DTYPES.items():
        values = torch.arange(6).reshape(2, 3)
        tensors[f"{name}.matrix"] = (values % 2 == 0) if dtype == torch.bool else values.to(dtype)
        tensors[f"{name}.scalar"] = torch.ones((), dtype=dtype)
        tensors[f"{name}.empty"] = torch.zeros(0, 4, dtype=dtype)
    return tensors


@pytest.mark.parametrize("shard_bytes", [1 << 30, 60])
def test_every_dtype_survives_the_writer(tmp_path, shard_bytes):
    tensors = every_dtype()
    specs = {name: (value.dtype, tuple(value.shape)) for name, value in tensors.items()}
    writer = CheckpointWriter(tmp_path, specs, metadata={"a": "b"}, shard_bytes=shard_bytes)
    for name in reversed(list(tensors)):  # in any order
        writer.add(name, tensors[name])
    writer.close()
    checkpoint = Checkpoint.open(tmp_path)
    official = {}
    for file in tmp_path.glob("*.safetensors"):
        official.update(load_file(file))
    assert set(official) == set(checkpoint.tensors) == set(tensors)
    for name, value in tensors.items():
        for read in (official[name], checkpoint.read(name)):
            assert read.dtype == value.dtype
            assert torch.equal(read, value)
    assert checkpoint.metadata["a"] == "b"
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard_bytes == 60)
    if shard_bytes == 60:
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        assert index["metadata"]["total_size"] == checkpoint.nbytes
        assert set(index["weight_map"]) == set(tensors)


def test_the_writer_refuses_what_was_not_announced(tmp_path):
    writer = TensorFileWriter(tmp_path / "x.safetensors", {"w": (torch.float32, (2, 2))})
    with pytest.raises(ValueError, match="announced"):
        writer.add("w", torch.ones(4))
    with pytest.raises(ValueError, match="never written: w"):
        writer.close()


def test_a_sharded_model_loads_with_transformers(tiny_family, tmp_path):
    from transformers import AutoModelForImageClassification

    original = Checkpoint.open(tiny_family / "e0")
    specs = {n: (e.dtype, e.shape) for n, e in original.tensors.items()}
    writer = CheckpointWriter(tmp_path, specs, shard_bytes=8_000)
    for name in specs:
        writer.add(name, original.read(name))
    writer.close()
    (tmp_path / "config.json").write_bytes((tiny_family / "e0" / "config.json").read_bytes())
    first = AutoModelForImageClassification.from_pretrained(tiny_family / "e0")
    second = AutoModelForImageClassification.from_pretrained(tmp_path)
    for (name, ours), theirs in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2


# Whole or not at all ------------------------------------------------------------------------------


def replacing(place):
    """Whatever lies there may be replaced."""


def test_staged_directory_appears_whole(tmp_path):
    target = tmp_path / "deep" / "out"
    with staged_directory(target) as folder:
        (folder / "a").write_text("1")
        assert not target.exists()
    assert (target / "a").read_text() == "1"
    assert [p.name for p in target.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("existing", [False, True])
def test_an_exception_leaves_nothing_new(tmp_path, existing):
    target = tmp_path / "out"
    if existing:
        target.mkdir()
        (target / "old").write_text("kept")

    def interrupted():
        with staged_directory(target, allow=replacing) as folder:
            (folder / "a").write_text("1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [p.name for p in tmp_path.iterdir()] == (["out"] if existing else [])
    if existing:
        assert [p.name for p in target.iterdir()] == ["old"]


def test_force_replaces_and_leaves_no_trace(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("gone")
    with pytest.raises(InputError, match="--force"), staged_directory(target):
        pass
    with staged_directory(target, allow=replacing) as folder:
        (folder / "new").write_text("1")
    assert [p.name for p in target.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_stood_there_comes_back_if_the_last_rename_fails(tmp_path, monkeypatch):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("kept")
    rename = os.rename

    def fails_for_the_new_one(source, destination):
        if str(source).endswith(staging.READY) and destination == target:
            raise OSError("no")
        rename(source, destination)

    monkeypatch.setattr(staging, "_exchanged", lambda one, other: False)  # as on other systems
    monkeypatch.setattr(staging.os, "rename", fails_for_the_new_one)
    with pytest.raises(MachineError, match="no"), staged_directory(target, allow=replacing):
        pass
    assert (target / "old").read_text() == "kept"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


class Killed(BaseException):
    """The end of a process, behind which nothing is cleaned up."""


def replaced_until(step, target, monkeypatch):
    """Replace `target` in a process that is killed at its renaming number `step`."""
    rename, steps = os.rename, []

    def renamed(source, destination):
        if len(steps) == step:
            raise Killed
        steps.append(destination)
        rename(source, destination)

    with monkeypatch.context() as patch:
        patch.setattr(staging.os, "rename", renamed)
        patch.setattr(staging.shutil, "rmtree", lambda *_, **__: None)
        with staged_directory(target, allow=replacing, resume=True) as folder:
            (folder / "a").write_text("new")


@pytest.mark.parametrize("step", [0, 1, 2])
@pytest.mark.parametrize("exchanges", [False, True])
def test_a_process_that_is_killed_while_it_replaces(tmp_path, monkeypatch, exchanges, step):
    target = tmp_path / "out"
    with staged_directory(target) as folder:
        (folder / "a").write_text("old")
    if not exchanges:  # as on other systems
        monkeypatch.setattr(staging, "_exchanged", lambda one, other: False)
    if exchanges and step > 0:  # there is but one renaming then
        replaced_until(step, target, monkeypatch)
    else:
        with pytest.raises(Killed):
            replaced_until(step, target, monkeypatch)
    if exchanges:  # at no moment without an output
        assert (target / "a").read_text() in ("old", "new")
    with staged_directory(target, allow=replacing) as folder:
        assert (target / "a").read_text() in ("old", "new")
        (folder / "a").write_text("last")
    assert (target / "a").read_text() == "last"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert [p.name for p in target.iterdir()] == ["a"]


@pytest.mark.parametrize("resume", [False, True])
def test_a_complete_folder_that_has_not_taken_its_name_yet(tmp_path, resume):
    ready = tmp_path / "made"
    ready.mkdir()
    (ready / "a").write_text("whole")
    ready = ready.rename(tmp_path / f".out.{ready.stat().st_ino}{staging.READY}")
    with staged_directory(tmp_path / "out", resume=resume) as folder:
        assert (folder / "a").exists() == resume
        (folder / "b").write_text("")
    left = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*"))
    assert left == ["out", *(["out/a"] if resume else []), "out/b"]


def test_a_folder_that_takes_its_name_this_moment_is_waited_for(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    ready = tmp_path / f".out.1{staging.READY}"
    ready.mkdir()
    handle = os.open(ready, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another merge"), staged_directory(tmp_path / "out"):
            pass
        assert ready.exists()
    finally:
        os.close(handle)


def test_what_was_replaced_is_removed_by_leave_only(tmp_path):
    old = tmp_path / f".out.1{staging.READY}"  # another number than its own
    old.mkdir()

    def never(place):
        if place == old:
            raise InputError("it", expected="nothing", found="something")

    for allow, stays in ((never, True), (replacing, False)):
        with staged_directory(tmp_path / "out", allow=allow):
            assert old.exists() == stays


def test_what_lies_aside_comes_back_where_the_output_is_gone(tmp_path):
    (tmp_path / ".out.abc.old" / "old").mkdir(parents=True)
    (tmp_path / ".out.abc.old" / "old" / "a").write_text("kept")
    with pytest.raises(InputError, match="does not exist"), staged_directory(tmp_path / "out"):
        pass
    assert (tmp_path / "out" / "a").read_text() == "kept"


@pytest.mark.parametrize("what", ["folder", "file", "link"])
def test_what_lies_where_an_output_is_written_is_not_removed(tmp_path, what):
    partial, mine = tmp_path / ".out.partial", tmp_path / "mine"
    mine.mkdir()
    (mine / "a").write_text("kept")
    if what == "folder":
        mine.rename(partial)
    elif what == "file":
        partial.write_text("kept")
    else:
        partial.symlink_to(mine)
    before = sorted(p.name for p in tmp_path.rglob("*"))
    for resume in (False, True):
        with (
            pytest.raises(InputError, match="Move it away"),
            staged_directory(tmp_path / "out", resume=resume),
        ):
            pass
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


def test_a_link_stays_and_what_it_names_is_replaced(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    (real / "a").write_text("old")
    link.symlink_to(real)
    with staged_directory(link, allow=replacing) as folder:
        (folder / "a").write_text("new")
    assert link.is_symlink()
    assert (real / "a").read_text() == "new"


def test_write_atomically_replaces_and_leaves_no_trace(tmp_path):
    file = tmp_path / "deep" / "x"
    write_atomically(file, b"1")
    write_atomically(file, b"22")
    assert file.read_bytes() == b"22"
    assert [p.name for p in file.parent.iterdir()] == ["x"]
    assert file.stat().st_mode & 0o777 == 0o666 & ~staging._umask()


def test_config_files_leaves_out_weights_and_readmes(tmp_path):
    for name in ("config.json", "vocab.txt", "model.safetensors", "README.md", ".hidden",
                 "pytorch_model.bin", "model.safetensors.index.json"):  # fmt: skip
        (tmp_path / name).write_text("")
    (tmp_path / "folder").mkdir()
    assert [f.name for f in config_files(tmp_path)] == ["config.json", "vocab.txt"]
