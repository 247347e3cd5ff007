"""Which files of a folder count as its weights, and what is said of folders that have none."""

from __future__ import annotations

import json
import os
import shlex
import subprocess

import pytest
import torch
from safetensors.torch import save_file

from mats_core.checkpoints.files import Checkpoint
from mats_core.checkpoints.folder import weight_files
from mats_core.errors import InputError

ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def lay(folder, names):
    """A folder with files of these names: tensors, the index of some, or a text."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in names.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, dict):
            file.write_text(json.dumps({"weight_map": content}))
        elif name.endswith(".safetensors"):
            save_file({key: torch.tensor([value]) for key, value in content}, file)
        else:
            file.write_text(content)
    return folder


OPENED = {  # files → the names of those that are read, and their stem
    "one file": ({"model.safetensors": [("a", 1.0)]}, {"model.safetensors"}, "model"),
    "before an index without shards": (
        {"model.safetensors": [("a", 1.0)], "model.safetensors.index.json": {"a": ONE}},
        {"model.safetensors"}, "model"),
    "before older shards": (
        {"model.safetensors": [("a", 1.0)], ONE: [("a", 2.0)],
         "model.safetensors.index.json": {"a": ONE}}, {"model.safetensors"}, "model"),
    "shards": (
        {ONE: [("a", 1.0)], TWO: [("b", 1.0)],
         "model.safetensors.index.json": {"a": ONE, "b": TWO}}, {ONE, TWO}, "model"),
    "of diffusers": (
        {"diffusion_pytorch_model.safetensors": [("a", 1.0)]},
        {"diffusion_pytorch_model.safetensors"}, "diffusion_pytorch_model"),
    "shards of diffusers": (
        {"diffusion_pytorch_model-00001-of-00001.safetensors": [("a", 1.0)],
         "diffusion_pytorch_model.safetensors.index.json":
            {"a": "diffusion_pytorch_model-00001-of-00001.safetensors"}},
        {"diffusion_pytorch_model-00001-of-00001.safetensors"}, "diffusion_pytorch_model"),
    "of OpenCLIP, beside pickles": (
        {"open_clip_model.safetensors": [("a", 1.0)], "open_clip_pytorch_model.bin": "x"},
        {"open_clip_model.safetensors"}, "open_clip_model"),
    "beside an optimizer": (
        {"weights.safetensors": [("a", 1.0)], "optimizer.safetensors": [("a", 2.0)]},
        {"weights.safetensors"}, "weights"),
    "an index of another name": (
        {"part-1.safetensors": [("a", 1.0)],
         "weights.safetensors.index.json": {"a": "part-1.safetensors"}},
        {"part-1.safetensors"}, "weights"),
    "one shard without its index": (
        {"model-00001-of-00001.safetensors": [("a", 1.0)]},
        {"model-00001-of-00001.safetensors"}, "model"),
}  # fmt: skip


@pytest.mark.parametrize("name", OPENED)
def test_the_files_that_count(tmp_path, name):
    files, read, stem = OPENED[name]
    folder = lay(tmp_path / "m", files)
    checkpoint = Checkpoint.open(folder)
    assert {entry.file.name for entry in checkpoint.tensors.values()} == read
    assert checkpoint.stem == stem
    assert checkpoint.read("a").item() == 1.0


REFUSED = {  # files → what the error must say, and what it must not
    "a Trainer's checkpoint": (
        ["optimizer.pt", "pytorch_model.bin", "rng_state.pth", "scheduler.pt", "training_args.bin"],
        ["pytorch_model.bin"], ["optimizer", "training_args"]),
    "a Trainer's run": (
        ["training_args.bin", "checkpoint-500/pytorch_model.bin", "checkpoint-1000/x.safetensors"],
        ["checkpoint-500, checkpoint-1000", "/checkpoint-1000'"], ["training_args"]),
    "sharded pickles": (
        ["pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"],
        ["save_pretrained"], ["00001"]),
    "adapters of two names": (
        ["a/adapter_config.json", "b/adapter_config.json", "README.md"],
        ["2 adapters", "a, b"], ["save_pretrained"]),
    "one adapter": (["default/adapter_config.json"], ["an adapter", "default"], []),
    "a pipeline of diffusers": (
        ["model_index.json", "unet/diffusion_pytorch_model.bin", "vae/x.safetensors"],
        ["unet, vae"], []),
    "a cache folder of the hub": (
        ["refs/main", "blobs/abc", "snapshots/0123/pytorch_model.bin"], ["snapshots/0123"], []),
    "DeepSpeed": (
        ["latest", "zero_to_fp32.py", "global_step5/bf16_zero_pp_rank_0_mp_rank_00_states.pt"],
        ["zero_to_fp32.py", "global_step5"], []),
    "FSDP": (["pytorch_model_fsdp_0/__0_0.distcp"], ["merge-weights"], []),
    "llama.cpp": (["model-q4.gguf", "config.json"], ["llama.cpp", "gguf_file"], []),
    "Flax": (["flax_model.msgpack"], ["Flax"], []),
    "TensorFlow": (["tf_model.h5"], ["TensorFlow"], []),
    "nothing": (["README.md"], ["no .safetensors file"], []),
    "one shard of two": ([ONE], ["1 shards without their index", "all that it names"], ["other"]),
    "shards without an index": ([ONE, TWO], ["2 shards without their index"], ["other"]),
    "two files": (["a.safetensors", "b.safetensors"], ["a.safetensors, b.safetensors"], []),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_folders_without_weights_say_where_they_lie(tmp_path, name):
    files, says, never = REFUSED[name]
    folder = lay(tmp_path / "m", {f: [] if f.endswith(".safetensors") else "x" for f in files})
    with pytest.raises(InputError) as caught:
        weight_files(folder)
    said = str(caught.value)
    assert all(word in said for word in says), said
    assert not any(word in said for word in never), said


@pytest.mark.parametrize("beside", [[], [TWO, "model.safetensors.index.json"]])
@pytest.mark.parametrize("name", [ONE, "own-00002-of-00002.safetensors"])
def test_a_shard_that_is_named_as_a_file_is_no_model(tmp_path, name, beside):
    files = {file: [(file, 1.0)] for file in (name, *beside) if file.endswith(".safetensors")}
    lay(tmp_path, {**files, **{f: {f: f} for f in beside if f.endswith(".json")}})
    with pytest.raises(InputError, match=rf"{name}.*one shard of several.*'{tmp_path}'"):
        Checkpoint.open(tmp_path / name)


def test_one_shard_of_one_is_a_model(tmp_path):
    lay(tmp_path, {"model-00001-of-00001.safetensors": [("a", 1.0)]})
    assert list(Checkpoint.open(tmp_path / "model-00001-of-00001.safetensors").tensors) == ["a"]


@pytest.mark.parametrize("shard", [7, None, "..", "", ".", "a/b.safetensors", "x" * 300, ONE + "x"])
def test_names_in_an_index_that_are_none_of_shards(tmp_path, shard):
    lay(tmp_path, {"model.safetensors.index.json": {"a": shard}})
    with pytest.raises(InputError):
        Checkpoint.open(tmp_path)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "model-00001-of-00001.safetensors")
    index = {"a": "model-00001-of-00001.safetensors"}
    lay(tmp_path, {"model.safetensors.index.json": index})
    with pytest.raises(InputError, match="a pipe"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "hf download"),
        (b"\x10\0\0\0\0\0\0\0" + b"[" * 16, "well-formed"),
        (b"PK\x03\x04" + bytes(40), "a zip archive .*a pickle of PyTorch"),
        (b"\x80\x02}q" + bytes(40), "a pickle"),
        (b"GGUF\x03\0\0\0" + bytes(40), "quantised for llama.cpp"),
        (b"no tensors at all, but text", "as of a file in safetensors"),
    ],
)
def test_files_that_stand_where_weights_should(tmp_path, content, says):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=says):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("m.zip", b"PK\x03\x04" + bytes(30), "a zip archive.*Unpack it"),
        ("m.tar.gz", b"\x1f\x8b" + bytes(30), "packed by gzip.*Unpack it"),
        ("m.txt", b"weights", "found 'm.txt'. Save the model with save_pretrained"),
        ("m", b"", "found 'm'. Save the model"),
    ],
)
def test_files_of_other_kinds_are_named(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says):
        Checkpoint.open(tmp_path / name)


def test_the_command_that_converts_quotes_its_names(tmp_path):
    file = tmp_path / "$(touch ran) 'x'.bin"
    torch.save({"w": torch.ones(1)}, file)
    with pytest.raises(InputError) as caught:
        Checkpoint.open(file)
    command = str(caught.value).partition(": python")[2]
    assert str(file) in shlex.split(command)
    subprocess.run(f"echo {command}", shell=True, check=True, cwd=tmp_path, capture_output=True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("change", ["replaced", "removed", "shortened", "written again"])
def test_files_that_change_after_they_were_opened_are_noticed(tmp_path, change):
    file = tmp_path / "x.safetensors"
    save_file({"w": torch.ones(100)}, file)
    checkpoint = Checkpoint.open(file)
    if change == "replaced":
        save_file({"w": torch.zeros(100)}, tmp_path / "other")
        os.replace(tmp_path / "other", file)
    elif change == "removed":
        file.unlink()
    elif change == "shortened":
        os.truncate(file, 200)
    else:
        file.write_bytes(file.read_bytes())
        os.utime(file, ns=(0, 0))
    with pytest.raises(InputError, match=r"x\.safetensors"):
        checkpoint.read("w")
    if change in ("removed", "shortened"):
        with pytest.raises(InputError, match=r"x\.safetensors"):
            assert checkpoint.fingerprint
