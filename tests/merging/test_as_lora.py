"""A merge that is written as one LoRA: its folder, its report, its estimate and its refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import mats_core as mats
from mats_core.adapters import open_expert
from mats_core.errors import InputError
from mats_core.estimating import estimate
from mats_core.merging import as_lora
from mats_core.recipes import open_inputs, parse_recipe
from mats_core.recipes.events import LayerDone
from tests.adapter_cases import write_base

pytest.importorskip("peft")


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, and two experts of which all matrices and biases were moved."""
    folder = tmp_path_factory.mktemp("family")
    base = write_base(folder / "base", "bert")
    from transformers import BertForSequenceClassification

    for seed in (1, 2):
        module = BertForSequenceClassification.from_pretrained(base)
        torch.manual_seed(seed)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if "LayerNorm" not in name and "embeddings" not in name:
                    parameter.add_(0.03 * torch.randn_like(parameter))
        module.save_pretrained(folder / f"e{seed}")
    return folder


def recipe(family: Path, output: Path | None = None, **settings: Any) -> mats.Recipe:
    experts = [{"name": f"e{seed}", "model": str(family / f"e{seed}")} for seed in (1, 2)]
    content = {"base": str(family / "base"), "experts": experts, "method": "average"}
    there = {"output": str(output)} if output else {}
    return parse_recipe({**content, "evaluate": False, "device": "cpu", **there, **settings})


def test_the_folder_is_an_adapter_and_the_result_what_it_makes_of_the_base(family, tmp_path):
    target = tmp_path / "out"
    merged = mats.merge(recipe(family, target, lora={"rank": 2}), progress=False)
    names = {file.name for file in target.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md"} <= names
    assert not any(name.startswith("model") for name in names)
    opened = open_expert(target, family / "base")
    in_memory = mats.merge(recipe(family, lora={"rank": 2}), progress=False)
    for name in opened.tensors:
        torch.testing.assert_close(merged.tensors[name], opened.read(name), rtol=0, atol=0)
        torch.testing.assert_close(in_memory.tensors[name], opened.read(name), rtol=0, atol=1e-7)
    report = json.loads((target / "report.json").read_text())
    assert report["lora"] == dict(merged.report.lora)
    assert mats.Report.from_dict(report).as_lora == merged.report.as_lora
    assert merged.report.as_lora in (target / "README.md").read_text()
    mats.merge(recipe(family, target, lora={"rank": 1}), force=True, progress=False)
    assert json.loads((target / "report.json").read_text())["lora"]["rank"] == 1


def test_a_merge_is_saved_as_one(family, tmp_path):
    merged = mats.merge(recipe(family), progress=False)
    merged.save(tmp_path / "saved", lora={"rank": 2})
    mats.merge(recipe(family, tmp_path / "merged", lora={"rank": 2}), progress=False)
    saved, direct = (open_expert(tmp_path / n, family / "base") for n in ("saved", "merged"))
    for name in saved.tensors:
        torch.testing.assert_close(saved.read(name), direct.read(name), rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="Did you mean 'rank'"):
        merged.save(tmp_path / "no", lora={"rnk": 2})
    assert not (tmp_path / "no").exists()


def test_it_is_taken_of_the_merge_before_it_is_rounded(family, tmp_path):
    """In bfloat16 the rounding of the weights is larger than a small update."""
    base = mats.merge(recipe(family), progress=False).inputs.family.base
    halves = {name: base.read(name, dtype=torch.bfloat16) for name in base.tensors}
    moved = {
        name: value.float() + 1e-4 * torch.ones_like(value.float())
        for name, value in halves.items()
    }
    merged = mats.merge_models(halves, [moved], lora={"rank": 1}, progress=False)
    assert {one["rank"] for one in merged.report.lora["layers"].values()} == {1}
    assert merged.report.lora["lost"] < 1e-3


def test_a_stopped_merge_goes_on(family, tmp_path):
    wanted = recipe(family, tmp_path / "out", lora={"rank": 2})
    events = mats.run(wanted, resume=True)
    for event in events:
        if isinstance(event, LayerDone) and event.index == 20:
            break
    events.close()
    seen = [e for e in mats.run(wanted, resume=True) if isinstance(e, LayerDone)]
    assert sum(event.layer.seconds > 0 for event in seen)
    straight = recipe(family, tmp_path / "straight", lora={"rank": 2})
    mats.merge(straight, progress=False)
    first, second = (tmp_path / n / "adapter_model.safetensors" for n in ("out", "straight"))
    assert first.read_bytes() == second.read_bytes()


def test_a_merge_that_was_killed_while_its_adapter_took_its_place_begins_again(
    family, tmp_path, monkeypatch
):
    wanted = recipe(family, tmp_path / "out", lora={"rank": 2})
    real = as_lora.put

    def killed(*arguments: Any) -> None:
        real(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(as_lora, "put", killed)
    with pytest.raises(KeyboardInterrupt):
        list(mats.run(wanted, resume=True))
    monkeypatch.undo()
    list(mats.run(wanted, resume=True))
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("lora", [{"rank": 2}, {}])
def test_the_estimate_bounds_the_adapter(lora, family, tmp_path):
    wanted = recipe(family, tmp_path / "out", lora=lora)
    told = estimate(open_inputs(wanted), wanted)
    plain = recipe(family, tmp_path / "out")
    whole = estimate(open_inputs(plain), plain)
    merged = mats.merge(wanted, progress=False)
    assert merged.report.lora["bytes"] <= told.disk_bytes - whole.disk_bytes
    assert told.parts["factoring"] > 0 == whole.parts["factoring"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"keep_sums": True}, "'keep_sums'"),
        ({"output_dtype": "float16"}, "'output_dtype'"),
        ({"lora": {"rank": 0}}, "greater than or equal to 1"),
        ({"lora": {"energy": 1.5}}, "less than or equal to 1"),
        ({"method": "task_arithmetic", "options": {"scaling": 0.0}}, "differs from the base"),
    ],
)
def test_what_cannot_be_one_is_refused(settings, said, family, tmp_path):
    with pytest.raises(InputError, match=said):
        mats.merge(recipe(family, tmp_path / "out", **{"lora": {}, **settings}), progress=False)
    assert not (tmp_path / "out").exists()


def test_what_stands_beside_blocks_is_told_to_be_lost(tmp_path):
    """A bare parameter of the whole model has no module that could be saved."""
    torch.manual_seed(0)
    base = {
        "place": torch.randn(3, 4),
        "norm.weight": torch.ones(4),
        "layers.0.fc.weight": torch.randn(4, 4),
        "layers.1.fc.weight": torch.randn(4, 4),
    }
    expert = {name: value + 0.1 * torch.randn_like(value) for name, value in base.items()}
    merged = mats.merge_models(base, [expert], lora={}, progress=False)
    told = merged.report.lora
    update = {name: expert[name] - base[name] for name in base}
    energy = {name: float(value.square().sum()) for name, value in update.items()}
    assert told["nowhere"] == ["place"]
    assert told["lost"] == pytest.approx(energy["place"] / sum(energy.values()), rel=1e-5)
    assert torch.equal(merged.tensors["place"], base["place"])
    assert any("no room" in note and "place" in note for note in merged.report.warnings)
