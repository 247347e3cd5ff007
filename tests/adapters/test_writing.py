"""A merge as one LoRA; the oracle is what peft makes of it on the base."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mats_core.adapters import open_expert
from mats_core.checkpoints import Checkpoint
from mats_core.merging.pipeline import merge
from mats_core.recipes.recipe import parse_recipe
from tests.adapter_cases import MODELS, write_adapter, write_base

peft = pytest.importorskip("peft")
Opened = Callable[[Path, Path], dict[str, torch.Tensor]]


def module_of(base: Path) -> Any:
    import transformers

    name = Checkpoint.open(base).config["architectures"][0]
    return getattr(transformers, name).from_pretrained(base)


def by_peft(base: Path, adapter: Path, folder: Path) -> Checkpoint:
    """The checkpoint that peft's own merge of an adapter gives."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        merged = peft.PeftModel.from_pretrained(module_of(base), adapter).merge_and_unload()
    merged.save_pretrained(folder)
    return Checkpoint.open(folder)


def recipe(base: Path, experts: dict[str, Path], **settings: Any) -> Any:
    listed = [{"name": name, "model": str(path)} for name, path in experts.items()]
    content = {"base": str(base), "experts": listed, "method": "average", "device": "cpu"}
    return parse_recipe({**content, "evaluate": False, **settings})


def tuned(folder: Path, base: Path, seed: int) -> Path:
    """An expert of which every parameter was moved: matrices, biases, norms and bare ones."""
    module = module_of(base)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    module.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("model", MODELS)
def test_peft_makes_the_merge_of_it(model, tmp_path):
    base = write_base(tmp_path / "base", model)
    experts = {f"e{seed}": tuned(tmp_path / f"e{seed}", base, seed) for seed in (1, 2)}
    merge(recipe(base, experts, output=str(tmp_path / "full")))
    report = merge(recipe(base, experts, output=str(tmp_path / "lora"), lora={}))
    full = Checkpoint.open(tmp_path / "full")
    oracle = by_peft(base, tmp_path / "lora", tmp_path / "again")
    ours = open_expert(tmp_path / "lora", base)
    for name in full.tensors:
        expected = full.read(name)
        torch.testing.assert_close(oracle.read(name), expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(ours.read(name), expected, rtol=0, atol=1e-6)
    told = report.lora
    assert told["lost"] < 1e-9
    assert not told["nowhere"]
    changed = [n for n in full.tensors if not torch.equal(full.read(n), module_free(base, n))]
    assert sorted([*told["layers"], *told["saved"]]) == sorted(changed)


def module_free(base: Path, name: str) -> torch.Tensor:
    return Checkpoint.open(base).read(name)


def test_one_adapter_of_unequal_ranks_comes_back(tmp_path):
    base = write_base(tmp_path / "base", "bert")
    settings = {"target_modules": ["query", "value", "output.dense"], "rank_pattern": {"value": 4}}
    files = write_adapter(tmp_path, base, peft.LoraConfig(r=2, lora_alpha=5, **settings))
    report = merge(recipe(base, {"one": files.adapter}, output=str(tmp_path / "out"), lora={}))
    ranks = {name: one["rank"] for name, one in report.lora["layers"].items()}
    assert {"value" in name: rank for name, rank in ranks.items()} == {True: 4, False: 2}
    oracle, again = Checkpoint.open(files.merged), tmp_path / "out"
    for found in (by_peft(base, again, tmp_path / "merged again"), open_expert(again, base)):
        for name in oracle.tensors:
            torch.testing.assert_close(found.read(name), oracle.read(name), rtol=0, atol=1e-6)
    with warnings.catch_warnings():  # and once through peft's own writing
        warnings.simplefilter("ignore")
        peft.PeftModel.from_pretrained(module_of(base), again).save_pretrained(tmp_path / "saved")
    saved = open_expert(tmp_path / "saved", base)
    for name in oracle.tensors:
        torch.testing.assert_close(saved.read(name), oracle.read(name), rtol=0, atol=1e-6)


@pytest.mark.parametrize("lora", [{"rank": 2}, {"energy": 0.8}, {"rank": 3, "energy": 0.9}])
def test_what_is_lost_is_what_the_singular_values_say(lora, tmp_path):
    import numpy as np

    base = write_base(tmp_path / "base", "gpt2")
    experts = {"e": tuned(tmp_path / "e", base, 1)}
    report = merge(recipe(base, experts, output=str(tmp_path / "out"), lora=lora))
    before, expert = Checkpoint.open(base), Checkpoint.open(tmp_path / "e")
    lost = total = 0.0
    for name in before.tensors:
        update = (expert.read(name).double() - before.read(name).double()).numpy()
        total += float((update**2).sum())
        if name not in report.lora["layers"]:
            continue
        squares = np.linalg.svd(update, compute_uv=False) ** 2
        told = report.lora["layers"][name]
        own = squares[told["rank"] :].sum() / squares.sum()
        assert told["lost"] == pytest.approx(own, abs=1e-6)
        assert told["rank"] <= lora.get("rank", 16)
        lost += squares[told["rank"] :].sum()
    assert report.lora["lost"] == pytest.approx(lost / total, rel=1e-4)
    file = tmp_path / "out" / "adapter_model.safetensors"
    held = Checkpoint.open(file).tensors.values()
    assert report.lora["bytes"] == sum(entry.nbytes for entry in held)


def test_the_settings_are_those_of_the_file(tmp_path):
    base = write_base(tmp_path / "base", "gpt2")
    experts = {"e": tuned(tmp_path / "e", base, 1)}
    merge(recipe(base, experts, output=str(tmp_path / "out"), lora={"rank": 2}))
    settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert settings["r"] == settings["lora_alpha"] == 2
    assert settings["fan_in_fan_out"] is True  # GPT-2's Conv1D
    assert settings["base_model_name_or_path"] == "base"  # no folder of this machine
    assert "transformer.h.0.ln_1" in settings["modules_to_save"]
