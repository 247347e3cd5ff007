"""(IA)³ experts merged as vectors: statistics against peft's autograd, and the merge itself."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from mats_core import models
from mats_core.adapters.fitting import open_expert
from mats_core.adapters.view import Adapted
from mats_core.checkpoints.files import Checkpoint
from mats_core.errors import InputError
from mats_core.estimating.merge_cost import estimate
from mats_core.merging.asking import evaluate_output
from mats_core.merging.pipeline import merge, run
from mats_core.recipes.events import Finished
from mats_core.recipes.family_file import load_family, measure_all
from mats_core.recipes.plan import open_inputs
from mats_core.recipes.recipe import parse_recipe
from mats_core.statistics.collect import measure
from mats_core.statistics.ia3 import rescaled_layers
from mats_core.statistics.store import Statistics
from tests.adapter_cases import VOCABULARY, Written, write_adapter, write_base
from tests.conftest import loaded

peft = pytest.importorskip("peft")

TARGETS, FEEDFORWARD = ["key", "value", "output.dense"], ["output.dense"]


@dataclass(frozen=True)
class Measured:
    """An (IA)³ expert with the statistics of its vectors, and the same from peft's own model."""

    files: Written
    statistics: Path
    gradients: Mapping[str, Tensor]  # vector → per-example gradients (examples, d)


def batch(seed: int, examples: int = 6) -> tuple[dict[str, Tensor], Tensor]:
    """Token ids with padding, and labels."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, VOCABULARY, (examples, 7), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, 5:], mask[1, 3:] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}, torch.randint(
        0, 3, (examples,), generator=generator
    )


def gradients_by_peft(files: Written, seed: int) -> dict[str, Tensor]:
    """∂ log p(label)/∂l of each example alone, by autograd through peft's model."""
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        name = Checkpoint.open(files.base).config["architectures"][0]
        base = getattr(transformers, name).from_pretrained(files.base)
        model = peft.PeftModel.from_pretrained(base, files.adapter, is_trainable=True)
    model.eval()
    inputs, labels = batch(seed)
    found: dict[str, list[Tensor]] = {}
    for index in range(len(labels)):
        model.zero_grad()
        one = {key: value[index : index + 1] for key, value in inputs.items()}
        scores = torch.log_softmax(model(**one).logits, -1)
        scores[0, labels[index]].backward()
        for key, parameter in model.named_parameters():
            if "ia3_l" in key and parameter.grad is not None:
                vector = key.removeprefix("base_model.model.").removesuffix(".default")
                found.setdefault(vector, []).append(parameter.grad.reshape(-1).clone())
    return {vector: torch.stack(rows) for vector, rows in found.items()}


def statistics_of(files: Written, seed: int) -> Statistics:
    expert = open_expert(files.adapter, files.base)
    tensors = models.tensors_of(expert)
    return measure(
        models.build(expert.directory, tensors),
        [batch(seed)],
        names=models.parameter_names(expert.directory, tensors),
        vectors=rescaled_layers(expert),
        metadata={"fingerprint": expert.fingerprint},
    )


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> list[Measured]:
    folder = tmp_path_factory.mktemp("ia3")
    base = write_base(folder / "base", "bert")
    found = []
    for seed in (1, 2):
        config = peft.IA3Config(target_modules=TARGETS, feedforward_modules=FEEDFORWARD)
        files = write_adapter(folder / f"expert{seed}", base, config, seed)
        file = folder / f"expert{seed}.safetensors"
        statistics_of(files, seed).save(file)
        found.append(Measured(files, file, gradients_by_peft(files, seed)))
    return found


def recipe(experts: list[Measured], method: str, **settings: Any) -> Any:
    entries = [
        {"name": f"e{i}", "model": str(one.files.adapter), "statistics": str(one.statistics)}
        for i, one in enumerate(experts)
    ]
    content = {"base": str(experts[0].files.base), "experts": entries, "method": method}
    content |= {"device": "cpu", "dtype": "float64", "evaluate": False}
    return parse_recipe({**content, **settings})


def test_statistics_of_the_vectors_are_those_of_autograd_through_peft(experts):
    for one in experts:
        measured = Statistics.open(one.statistics)
        assert one.gradients
        for vector, rows in one.gradients.items():
            block = measured.read(f"{vector}.block", (rows.shape[1],) * 2)
            diagonal = measured.read(f"{vector}.fisher", (rows.shape[1],))
            assert block is not None
            assert diagonal is not None
            expected = rows.T @ rows / len(rows)
            assert float(expected.diagonal().max()) > 0
            scale = float(expected.abs().max())
            torch.testing.assert_close(block, expected, rtol=1e-4, atol=1e-5 * scale)
            torch.testing.assert_close(diagonal, expected.diagonal(), rtol=1e-4, atol=1e-5 * scale)
        own = {name for name in measured.shapes if name.endswith("ia3_l.block")}
        assert own == {f"{vector}.block" for vector in one.gradients}


@pytest.mark.parametrize(("method", "damping"), [("regmean", 0.01), ("kfac", 0.1)])
def test_vectors_merge_by_their_full_block_fisher(method, damping, experts):
    """`Σ C_m v = Σ C_m v_m`, solved here from peft's gradients; δ a share of the trace."""
    tensors = merge_tensors(recipe(experts, method))
    base = Checkpoint.open(experts[0].files.base)
    opened = [open_expert(one.files.adapter, one.files.base) for one in experts]
    for vector in experts[0].gradients:
        left, right = torch.zeros(()), torch.zeros(())
        for one, expert in zip(experts, opened, strict=True):
            assert isinstance(expert, Adapted)
            rows = one.gradients[vector].double()
            block = rows.T @ rows / len(rows)
            block += damping * block.diagonal().mean() * torch.eye(len(block))
            value = expert.source.read(expert.vectors[vector].key, dtype=torch.float64).reshape(-1)
            left, right = left + block, right + block @ value
        solved = torch.linalg.solve(left, right)
        weight = f"{vector.removesuffix('.ia3_l')}.weight"
        axis = opened[0].vectors[vector].scales[weight]  # type: ignore[attr-defined]
        expected = base.read(weight).double() * (solved[:, None] if axis == 0 else solved)
        torch.testing.assert_close(tensors[weight].double(), expected, rtol=1e-4, atol=1e-5)


def merge_tensors(recipe: Any) -> Mapping[str, Tensor]:
    return next(event.tensors for event in run(recipe) if isinstance(event, Finished))


def test_the_default_is_the_block_and_a_recipe_may_ask_for_the_mean(experts):
    report = merge(recipe(experts, "regmean"))
    assert report.options["remaining"] == "block"
    vectors = [layer for layer in report.layers if layer.name.endswith(".ia3_l")]
    assert len(vectors) == len(experts[0].gradients)
    assert {(layer.treatment, layer.method) for layer in vectors} == {("merged", "block")}
    scaled = [layer for layer in report.layers if "times" in layer.status]
    assert {layer.treatment for layer in scaled} == {"merged"}

    estimated = estimate(open_inputs(recipe(experts, "regmean")), recipe(experts, "regmean"))
    assert dict(estimated.coverage) == {"averaged": 0, "head": 0, "tied": 0} | {
        kind: count for kind, count in report.coverage.items() if count
    }

    asked = merge_tensors(recipe(experts, "regmean", options={"remaining": "mean"}))
    average = merge_tensors(recipe(experts, "average"))
    for name, value in average.items():
        torch.testing.assert_close(asked[name], value, rtol=0, atol=1e-6)


def test_statistics_without_the_vectors_blocks_are_refused(experts, tmp_path):
    whole = Statistics.open(experts[0].statistics)
    kept = {name: whole._read(name) for name in whole.shapes if not name.endswith("ia3_l.block")}
    file = tmp_path / "without.safetensors"
    Statistics.of(kept, whole.metadata).save(file)
    changed = [Measured(experts[0].files, file, {}), experts[1]]
    with pytest.raises(InputError, match="full block of every"):
        merge(recipe(changed, "regmean"))
    assert merge(recipe(changed, "regmean", options={"remaining": "mean"})).layers


def test_the_output_is_a_checkpoint_and_an_adapter_that_peft_opens(experts, tmp_path):
    """Both say the same: transformers' model of the directory, peft's of the base and adapter."""
    import transformers

    out = tmp_path / "merged"
    merge(recipe(experts, "kfac", output=str(out)))
    inputs, _ = batch(5)
    base = transformers.BertForSequenceClassification.from_pretrained(experts[0].files.base)
    adapted = peft.PeftModel.from_pretrained(copy.deepcopy(base), out / "adapter").eval()
    whole = transformers.BertForSequenceClassification.from_pretrained(out).eval()
    with torch.no_grad():
        expected = whole(**inputs).logits
        torch.testing.assert_close(adapted(**inputs).logits, expected, rtol=0, atol=1e-5)
        assert float((base.eval()(**inputs).logits - expected).abs().max()) > 1e-3
    again = open_expert(out / "adapter", experts[0].files.base)
    written = Checkpoint.open(out)
    for name in written.tensors:
        torch.testing.assert_close(again.read(name), written.read(name), rtol=0, atol=1e-6)


def test_different_modules_merge_as_whole_models_and_say_so(experts, tmp_path):
    config = peft.IA3Config(target_modules=["key"], feedforward_modules=[])
    files = write_adapter(tmp_path, experts[0].files.base, config, 3)
    pair = [experts[0], Measured(files, tmp_path / "none", {})]
    entries = [{"name": str(i), "model": str(one.files.adapter)} for i, one in enumerate(pair)]
    content = {"base": str(files.base), "experts": entries, "method": "average"}
    report = merge(parse_recipe({**content, "evaluate": False}))
    assert any("do not scale the same modules" in warning for warning in report.warnings)
    assert not any(layer.name.endswith("ia3_l") for layer in report.layers)


def test_a_vector_on_conv1d_is_oriented(tmp_path):
    """GPT-2's transposed layers: the base's W comes back as (d_out, d_in), whichever the side."""
    base = write_base(tmp_path / "base", "gpt2")
    config = peft.IA3Config(
        target_modules=["attn.c_proj", "mlp.c_proj"],
        feedforward_modules=["mlp.c_proj"],
        fan_in_fan_out=True,
    )
    files = write_adapter(tmp_path, base, config)
    layers = rescaled_layers(open_expert(files.adapter, files.base))
    own = Checkpoint.open(base)
    for name, layer in layers.items():
        assert torch.equal(layer.weight, own.read(name).T)
        assert layer.side == ("input" if ".mlp." in name else "output")
        assert (layer.bias is not None) == (layer.side == "output")


# A whole family of adapters: measured, merged and evaluated ---------------------------------------


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A family.yaml of two adapters with heads of their own size, on a base of three classes."""
    folder = tmp_path_factory.mktemp("families")
    base = write_base(folder / "base", "vit")

    def make(kind: str) -> Path:
        place = folder / kind
        entries = []
        for index, classes in enumerate((2, 4)):
            name = f"task{index}"
            files = write_adapter(place / name, _resized(place / name, base, classes), config(kind))
            rng = np.random.default_rng(index)
            images = rng.integers(0, 256, (12, 8, 8, 1), dtype=np.uint8)
            labels = np.arange(12) % classes
            names = [f"class {label}" for label in range(classes)]
            halves = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
            np.savez(place / f"{name}.npz", **halves, classes=names)
            entries.append({"name": name, "model": str(files.adapter), "task": f"{name}.npz"})
        content = {"name": kind, "base": str(base), "experts": entries}
        (place / "family.yaml").write_text(yaml.safe_dump(content))
        return place

    def config(kind: str) -> Any:
        if kind == "ia3":
            return peft.IA3Config(
                target_modules=["k_proj", "v_proj", "fc2"],
                feedforward_modules=["fc2"],
                modules_to_save=["classifier"],
            )
        return peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["classifier"])

    return make


def _resized(place: Path, base: Path, classes: int) -> Path:
    """The base with a head of another size, as a person would load it to train an adapter."""
    from transformers import ViTForImageClassification

    model = ViTForImageClassification.from_pretrained(
        base, num_labels=classes, ignore_mismatched_sizes=True
    )
    model.save_pretrained(place / "resized")
    return place / "resized"


@pytest.mark.parametrize("kind", ["lora", "ia3"])
def test_a_family_of_adapters_is_measured_merged_and_evaluated(kind, family, tmp_path):
    collection = load_family(family(kind))
    files = measure_all(collection, examples=8)
    out = tmp_path / "out"
    settings = {"output": str(out), "device": "cpu", "rounds": 2 if kind == "ia3" else 1}
    report = merge(collection.recipe("kfac", statistics=files, **settings))
    assert [task.name for task in report.tasks] == ["task0", "task1"]
    assert report.coverage["head"] == 2
    expert = open_expert(collection.model_path(collection.experts[1].model), collection.base)
    assert len(expert.class_names) == 4
    config = json.loads((out / "heads" / "task1" / "config.json").read_text())
    assert config["architectures"] == ["ViTForImageClassification"]
    again = evaluate_output(out, "test")
    assert [r.merged.correct for r in again] == [r.merged.correct for r in report.tasks]


def test_an_experts_logits_are_those_of_peft(family):
    """The model that an adapter's derived configuration builds, against peft's own forward pass."""
    from transformers import ViTForImageClassification

    collection = load_family(family("logits"))
    path = collection.model_path(collection.experts[1].model)
    expert = open_expert(path, collection.base)
    base = ViTForImageClassification.from_pretrained(path.parent / "resized")
    pixels = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = peft.PeftModel.from_pretrained(base, path).eval()(pixel_values=pixels).logits
        found = loaded(expert)(pixel_values=pixels).logits
    assert found.shape == (3, 4)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
