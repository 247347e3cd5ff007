"""Checkpoints: what is opened, what is refused, and fingerprints."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from mats_core.checkpoints.contents import all_finite
from mats_core.checkpoints.files import Checkpoint
from mats_core.errors import InputError


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shard(folder, tensors, parts=2):
    """`tensors` in several shards with an index, as save_pretrained writes them."""
    names = sorted(tensors)
    weight_map = {}
    for part in range(parts):
        file = f"model-{part + 1:05d}-of-{parts:05d}.safetensors"
        own = {n: tensors[n] for n in names[part::parts]}
        save_file(own, folder / file)
        weight_map.update(dict.fromkeys(own, file))
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


@pytest.fixture
def tensors():
    return {"b.weight": draw(4, 3), "a.bias": draw(3, seed=1), "ids": torch.arange(5)}


# Opening ------------------------------------------------------------------------------------------


def test_directory_file_shards_and_index_are_the_same_checkpoint(tmp_path, tensors):
    folder, shards = tmp_path / "one", tmp_path / "many"
    folder.mkdir()
    shards.mkdir()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    index = shard(shards, tensors)
    opened = [
        Checkpoint.open(path)
        for path in (folder, folder / "model.safetensors", shards, index, str(index))
    ]
    for checkpoint in opened:
        assert list(checkpoint.tensors) == sorted(tensors)
        for name, value in tensors.items():
            assert torch.equal(checkpoint.read(name), value)
        assert checkpoint.nbytes == 4 * 12 + 4 * 3 + 8 * 5
    # Sharding, file order and metadata do not enter the fingerprint; every number does.
    assert len({checkpoint.fingerprint for checkpoint in opened}) == 1
    save_file({**tensors, "a.bias": tensors["a.bias"] + 1e-6}, tmp_path / "other.safetensors")
    renamed = {"c.bias" if n == "a.bias" else n: v for n, v in tensors.items()}
    save_file(renamed, tmp_path / "renamed.safetensors")
    for file in ("other", "renamed"):
        changed = Checkpoint.open(tmp_path / f"{file}.safetensors")
        assert changed.fingerprint != opened[0].fingerprint


def test_a_folder_with_one_file_of_another_name_opens(tmp_path, tensors):
    save_file(tensors, tmp_path / "adapted.safetensors")
    assert list(Checkpoint.open(tmp_path).tensors) == sorted(tensors)
    save_file(tensors, tmp_path / "second.safetensors")
    with pytest.raises(InputError, match=r"2 other \.safetensors files"):
        Checkpoint.open(tmp_path)


def test_the_fingerprint_follows_a_file_that_changes(tmp_path):
    file = tmp_path / "x.safetensors"
    save_file({"w": torch.zeros(3)}, file)
    before = Checkpoint.open(file).fingerprint
    save_file({"w": torch.ones(3)}, file)
    os.utime(file, ns=(10**18, 10**18))
    assert Checkpoint.open(file).fingerprint != before


def test_read_converts_dtype_and_leaves_the_file_alone(tmp_path):
    save_file({"w": draw(2, 2)}, tmp_path / "x.safetensors")
    checkpoint = Checkpoint.open(tmp_path / "x.safetensors")
    double = checkpoint.read("w", dtype=torch.float64)
    assert double.dtype == torch.float64
    double.zero_()
    checkpoint.read("w").zero_()
    assert float(checkpoint.read("w").abs().sum()) > 0


def test_config_and_class_names(tmp_path, tensors):
    save_file(tensors, tmp_path / "model.safetensors")
    bare = Checkpoint.open(tmp_path)
    assert bare.directory is None
    assert bare.config == {}
    assert bare.class_names == ()
    config = {"id2label": {"10": "k", "2": "c", "0": "a"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    checkpoint = Checkpoint.open(tmp_path)
    assert checkpoint.directory == tmp_path
    assert checkpoint.class_names == ("a", "c", "k")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="JSON"):
        assert Checkpoint.open(tmp_path).config


# Refusing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", [False, True])
def test_a_pickle_is_refused_with_a_command_that_works(tmp_path, inside):
    folder = tmp_path / "with space"
    folder.mkdir()
    file = folder / "pytorch_model.bin"
    shared = draw(3, 2)
    torch.save({"w": shared, "tied": shared, "t": shared.T}, file)
    with pytest.raises(InputError, match="pickle") as caught:
        Checkpoint.open(folder if inside else file)
    command = str(caught.value).partition(": python")[2]
    assert command, str(caught.value)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(f"{sys.executable}{command}", shell=True, check=True, env=environment)
    converted = Checkpoint.open(file.with_suffix(".safetensors"))
    assert torch.equal(converted.read("w"), shared)
    assert torch.equal(converted.read("t"), shared.T)


def header_file(path, header, data=b""):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    return path


ENTRY = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'


@pytest.mark.parametrize(
    "content",
    {
        "empty": b"",
        "short": b"\x01\x02",
        "truncated header": (100).to_bytes(8, "little") + b'{"w":',
        "not JSON": (5).to_bytes(8, "little") + b"hello",
        "JSON, no object": (2).to_bytes(8, "little") + b"[]",
        "truncated data": len(f'{{"w":{ENTRY}}}').to_bytes(8, "little")
        + f'{{"w":{ENTRY}}}'.encode() + b"\0\0",
        "duplicate name": len(f'{{"w":{ENTRY},"w":{ENTRY}}}').to_bytes(8, "little")
        + f'{{"w":{ENTRY},"w":{ENTRY}}}'.encode() + b"\0\0\0\0",
    }.items(),
    ids=lambda item: item[0],
)  # fmt: skip
def test_malformed_files_are_refused(tmp_path, content):
    file = tmp_path / "bad.safetensors"
    file.write_bytes(content[1])
    with pytest.raises(InputError, match=r"bad\.safetensors"):
        Checkpoint.open(file)


def test_huge_headers_are_refused_before_they_are_read(tmp_path):
    file = tmp_path / "huge.safetensors"
    file.write_bytes((1 << 40).to_bytes(8, "little") + b"{}")
    with pytest.raises(InputError, match="header under"):
        Checkpoint.open(file)


def test_dtypes_that_cannot_be_merged_are_refused_by_name(tmp_path):
    header = {"w": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}
    file = header_file(tmp_path / "q.safetensors", header, b"\0\0")
    with pytest.raises(InputError, match=r"tensor 'w'.*F8_E4M3"):
        Checkpoint.open(file)


def test_other_paths_are_refused(tmp_path, tensors):
    with pytest.raises(InputError, match="nothing there"):
        Checkpoint.open(tmp_path / "absent")
    with pytest.raises(InputError, match=r"no \.safetensors file"):
        Checkpoint.open(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=r"a \.safetensors file or a directory"):
        Checkpoint.open(tmp_path / "notes.txt")


def test_bad_indices_are_refused(tmp_path, tensors):
    index = shard(tmp_path, tensors)
    good = index.read_text()
    index.write_text("[1]")
    with pytest.raises(InputError, match="weight_map"):
        Checkpoint.open(tmp_path)
    index.write_text(json.dumps({"weight_map": {"w": "../../etc/passwd"}}))
    with pytest.raises(InputError, match="its own folder"):
        Checkpoint.open(tmp_path)
    index.write_text(json.dumps({"weight_map": {"w": "gone.safetensors"}}))
    with pytest.raises(InputError, match="gone"):
        Checkpoint.open(tmp_path)
    index.write_text(good)
    save_file(tensors, tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(InputError, match="each tensor in one shard"):
        Checkpoint.open(tmp_path)


def test_a_tensor_that_the_index_promises_must_be_in_its_shard(tmp_path, tensors):
    index = shard(tmp_path, tensors)
    content = json.loads(index.read_text())
    content["weight_map"]["extra.weight"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"extra\.weight"):
        Checkpoint.open(tmp_path)


def test_a_file_that_shrinks_while_open_is_an_error_and_not_a_crash(tmp_path):
    file = tmp_path / "x.safetensors"
    save_file({"w": draw(100)}, file)
    checkpoint = Checkpoint.open(file)
    with file.open("r+b") as handle:
        handle.truncate(200)
    with pytest.raises(InputError, match="fewer"):
        checkpoint.read("w")
    with pytest.raises(InputError, match="truncated"):
        checkpoint.digest("w")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 37, 99, 100])
def test_one_number_that_is_not_finite_is_found_anywhere(dtype, bad, place):
    values = torch.randn(101, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert all_finite(values)
    values[place] = bad
    assert not all_finite(values)
    assert all_finite(values[:0])
    assert all_finite(torch.full((3,), torch.finfo(dtype).max, dtype=dtype))
