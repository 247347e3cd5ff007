"""What lies beside the base's weights: carried along, rewritten, or named as left out."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mats_core.checkpoints import Checkpoint, companions
from mats_core.errors import InputError
from mats_core.estimating import estimate_plan
from mats_core.merging import merge, planned, run
from mats_core.merging.directory import foreign
from mats_core.recipes import load_recipe, parse_recipe
from mats_core.system import UNMEASURED

CARRIED = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt",
    "merges.txt", "spiece.model", "special_tokens_map.json", "chat_template.jinja",
    "preprocessor_config.json", "modules.json", "config_sentence_transformers.json",
    "sentence_bert_config.json", "modeling_own.py", "LICENSE", "NOTICE.md", "open_clip_config.json",
    "scheduler_config.json", "1_Pooling/config.json", "2_Dense/config.json",
    "2_Dense/model.safetensors", "additional_chat_templates/tool_use.jinja",
    "tokenizer/vocab.json", "tokenizer/deep/merges.txt",
)  # fmt: skip
LEFT_OUT = (
    "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "model.onnx", "model-q4.gguf",
    "old.safetensors", "adapter_config.json", "adapter_model.safetensors", "optimizer.pt",
    "scheduler.pt", "rng_state_0.pth", "training_args.bin", "trainer_state.json",
    "events.out.tfevents.1.host", "train.log", "all_results.json", "checkpoint-500/config.json",
    "checkpoint-500/model.safetensors", "onnx/model.onnx", "runs/a/events.out.tfevents.2",
    "other/config.json", "other/model.safetensors", "heads/x/head.safetensors", ".env",
    "quantize_config.json",
)  # fmt: skip
UNSPOKEN = (".gitattributes", ".git/config", ".DS_Store", "__pycache__/a.pyc", "README.md")
MODULES = [{"path": "", "type": "x"}, {"path": "1_Pooling"}, {"path": "2_Dense"}]


ENCODINGS = ("utf-8-sig", "utf-16", "utf-16-le", "utf-32")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_that_is_read_in_another_encoding_is_written_in_utf_8(tiny_family, tmp_path, encoding):
    from transformers import AutoConfig

    for name in ("base", "e0", "e1"):
        shutil.copytree(tiny_family / name, tmp_path / name)
        config = tmp_path / name / "config.json"
        config.write_bytes(config.read_text("utf-8").encode(encoding))
    own = json.dumps({"é": "ü"}).encode(encoding)
    for name in ("modules.json", "own.json"):
        (tmp_path / "base" / name).write_bytes(own)
    experts = [
        {"name": f"e{m}", "model": f"e{m}", "task": str(tiny_family / f"t{m}.npz")} for m in (0, 1)
    ]
    content = {"base": "base", "experts": experts, "method": "average", "output": "out"}
    report = merge(parse_recipe(content, tmp_path))
    assert [result.name for result in report.tasks] == ["e0", "e1"]
    out = tmp_path / "out"
    for folder in (out, out / "heads" / "e0"):
        content = json.loads((folder / "config.json").read_text("utf-8"))
        assert content["model_type"] == AutoConfig.from_pretrained(folder).model_type == "vit"
    assert (out / "modules.json").read_bytes() == json.dumps({"é": "ü"}).encode()
    assert (out / "own.json").read_bytes() == own, "what is not read here stays byte for byte"


def test_json_in_utf_8_is_carried_along_byte_for_byte(tiny_family, tmp_path):
    config = (tiny_family / "base" / "config.json").read_bytes() + b" \r\n"
    shutil.copytree(tiny_family / "base", tmp_path / "base")
    (tmp_path / "base" / "config.json").write_bytes(config)
    (tmp_path / "base" / "modules.json").write_bytes(b"\xff not JSON")
    entry = {"name": "e0", "model": str(tiny_family / "e0")}
    content = {"base": "base", "experts": [entry], "method": "average", "output": "out"}
    merge(parse_recipe(content, tmp_path))
    assert (tmp_path / "out" / "config.json").read_bytes() == config
    assert (tmp_path / "out" / "modules.json").read_bytes() == b"\xff not JSON"


def write(file: Path, text: str = "x") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def family(folder: Path, stem: str = "model", rows: int = 4) -> str:
    """A base and two experts of 0, 1 and 2, and the path of a recipe."""
    for number, name in enumerate(("base", "a", "b")):
        (folder / name).mkdir()
        save_file(
            {"enc.fc.weight": torch.full((rows, 4), float(number))},
            folder / name / f"{stem}.safetensors", {"format": "pt"},
        )  # fmt: skip
        write(folder / name / "config.json", "{}")
    experts = [{"name": name, "model": name} for name in ("a", "b")]
    recipe = {"base": "base", "experts": experts, "method": "average", "output": "out"}
    write(folder / "recipe.yaml", json.dumps(recipe))
    return str(folder / "recipe.yaml")


def names(folder: Path) -> set[str]:
    return {f.relative_to(folder).as_posix() for f in folder.rglob("*") if not f.is_dir()}


def test_every_file_is_carried_along_or_named(tmp_path):
    recipe, base = load_recipe(family(tmp_path)), tmp_path / "base"
    for name in (*CARRIED, *LEFT_OUT, *UNSPOKEN):
        write(base / name)
    write(base / "config.json", "{}")
    write(base / "modules.json", json.dumps(MODULES))
    with (base / "corpus.arrow").open("wb") as large:
        large.truncate(40_000_000)
    report = merge(recipe)
    ours = {"model.safetensors", "README.md", "recipe.yaml", "report.json"}
    assert names(tmp_path / "out") == {*CARRIED, *ours}
    notes = " ".join(report.warnings)
    for name in (*LEFT_OUT, "corpus.arrow"):
        top = f"{name.partition('/')[0]}/" if "/" in name else name
        assert top in notes, name
    for name in UNSPOKEN:
        assert name.partition("/")[0] not in notes
    assert "large: 40 MB" in notes
    assert "taken over from the base, not merged: 2_Dense/model.safetensors" in notes
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert written["warnings"] == list(report.warnings)
    assert "corpus.arrow" in (tmp_path / "out" / "README.md").read_text()


def test_a_merge_with_companions_is_replaced_and_one_with_foreign_files_is_not(tmp_path):
    recipe, base = load_recipe(family(tmp_path)), tmp_path / "base"
    write(base / "modules.json", json.dumps(MODULES))
    write(base / "1_Pooling" / "config.json")
    merge(recipe)
    assert foreign(tmp_path / "out") == ""
    merge(recipe, force=True)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert "1_Pooling/config.json" in report["files"]
    del report["files"]  # as an earlier version wrote it
    write(tmp_path / "out" / "report.json", json.dumps(report))
    assert foreign(tmp_path / "out") == ""
    write(tmp_path / "out" / "1_Pooling" / "mine.txt")
    assert "1_Pooling/mine.txt" in foreign(tmp_path / "out")


LINKS = {  # where it leads from the base's folder → whether it is followed
    "../private": False,
    "../missing": False,
    "/etc/hostname": False,
    "tokenizer.json": True,
    "../base/tokenizer.json": True,
    "../blobs/abc": True,
}


@pytest.mark.parametrize("target", LINKS)
def test_links_lead_to_the_base_and_to_its_weights_alone(tmp_path, target):
    recipe, base = load_recipe(family(tmp_path)), tmp_path / "base"
    write(tmp_path / "private", "secret key")
    write(base / "tokenizer.json", "of the base")
    write(tmp_path / "blobs" / "abc", "of the base")
    if "blobs" in target:  # as in the hub's cache
        os.rename(base / "model.safetensors", tmp_path / "blobs" / "weights")
        os.symlink("../blobs/weights", base / "model.safetensors")
    os.symlink(target, base / "vocab.txt")
    os.symlink("..", base / "above")
    report = merge(recipe)
    copied = tmp_path / "out" / "vocab.txt"
    assert copied.exists() == LINKS[target]
    assert ("vocab.txt" in " ".join(report.warnings)) != LINKS[target]
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))
    assert not (tmp_path / "out" / "above").exists()


@pytest.mark.parametrize("stem", ["diffusion_pytorch_model", "open_clip_model", "model"])
@pytest.mark.parametrize("shard_bytes", [10_000, 100])
def test_weights_keep_the_name_of_the_base(tmp_path, stem, shard_bytes):
    from mats_core import run

    recipe = load_recipe(family(tmp_path, stem, rows=8))
    for name in ("base", "a", "b"):
        file = tmp_path / name / f"{stem}.safetensors"
        save_file(load_file(file) | {"enc.fc.bias": torch.ones(8)}, file, {"format": "pt"})
    list(run(recipe, shard_bytes=shard_bytes))
    out = tmp_path / "out"
    files = {name for name in names(out) if "safetensors" in name}
    sharded = {f"{stem}-0000{n}-of-00002.safetensors" for n in (1, 2)}
    index = f"{stem}.safetensors.index.json"
    assert files == ({*sharded, index} if shard_bytes == 100 else {f"{stem}.safetensors"})
    assert Checkpoint.open(out).read("enc.fc.weight").mean() == 1.5
    list(run(recipe, shard_bytes=shard_bytes, force=True, resume=True))
    assert {name for name in names(out) if "safetensors" in name} == files


@pytest.mark.parametrize(
    "beside",
    [{}, {"tokenizer.json": 5000}, {"tokenizer/vocab.json": 40_000_000, "LICENSE": 10},
     {"modules.json": json.dumps(MODULES), "2_Dense/model.safetensors": 70_000},
     {"optimizer.pt": 10**6, "checkpoint-5/model.safetensors": 10**6, "README.md": 10**5}],
)  # fmt: skip
def test_the_disk_for_what_is_carried_along_is_counted(tmp_path, beside):
    recipe = load_recipe(Path(family(tmp_path)))
    before = estimate_plan(planned(recipe), speeds=UNMEASURED).disk_bytes
    for name, content in beside.items():
        write(tmp_path / "base" / name, content if isinstance(content, str) else "x" * content)
    found = estimate_plan(planned(recipe), speeds=UNMEASURED).disk_bytes
    merge(recipe)
    copied = {tmp_path / "out" / name for name in beside if name != "README.md"}
    assert found - before == sum(file.stat().st_size for file in copied if file.exists())
    out = {*copied, tmp_path / "out" / "model.safetensors", tmp_path / "out" / "config.json"}
    written = sum(file.stat().st_size for file in out if file.exists())
    assert abs(found - written) < 1000, "but for the header of the weights"


def test_a_base_without_companions_has_no_notes(tmp_path):
    recipe = load_recipe(family(tmp_path))
    assert merge(recipe).warnings == ()
    bare = Checkpoint.open(tmp_path / "base" / "model.safetensors")
    assert companions(bare).copied.keys() == {"config.json"}


def changed(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"e", b"E", 1) or b"x")


@pytest.mark.parametrize(
    ("file", "change", "found"),
    [
        ("base/config.json", changed, "changed since"),
        ("base/chat_template.jinja", changed, "changed since"),
        ("base/chat_template.jinja", Path.unlink, "nothing there"),
        ("base/tokenizer.json", Path.touch, "no such file"),
        ("e1/config.json", changed, "changed since"),
    ],
)
def test_a_file_beside_the_weights_that_changes_meanwhile_ends_the_merge(
    tiny_family, tmp_path, file, change, found
):
    for name in ("base", "e0", "e1"):
        shutil.copytree(tiny_family / name, tmp_path / name)
    (tmp_path / "base/chat_template.jinja").write_text("hello")
    experts = [{"name": name, "model": name} for name in ("e0", "e1")]
    content = {"base": "base", "experts": experts, "method": "average", "output": "out"}
    events = run(parse_recipe(content, tmp_path))
    next(event for event in events if type(event).__name__ == "LayerDone")
    change(tmp_path / file)
    with pytest.raises(InputError, match=f"{Path(file).name}.*{found}"):
        list(events)
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_only_touched_is_no_other_one(tiny_family, tmp_path):
    shutil.copytree(tiny_family / "base", tmp_path / "base")
    shutil.copytree(tiny_family / "e0", tmp_path / "e0")
    experts = [{"name": "e0", "model": "e0"}]
    content = {"base": "base", "experts": experts, "method": "average", "output": "out"}
    events = run(parse_recipe(content, tmp_path))
    next(event for event in events if type(event).__name__ == "LayerDone")
    (tmp_path / "base/config.json").touch()
    list(events)
    assert (tmp_path / "out").exists()
