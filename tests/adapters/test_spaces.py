"""LoRA experts merged in spaces of their factors, from the files on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mats_core.adapters import open_expert
from mats_core.adapters.view import Adapted
from mats_core.checkpoints import Checkpoint
from mats_core.errors import InputError
from mats_core.estimating import estimate
from mats_core.merging.pipeline import merge, run
from mats_core.merging.reading import read_layer
from mats_core.recipes import Report, open_inputs, parse_recipe, prepare
from mats_core.system import drain
from tests.adapter_cases import Written, write_adapter, write_base

peft = pytest.importorskip("peft")


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> list[Written]:
    """Adapters of unequal ranks, scalings and modules, on GPT-2's transposed layers; the last has
    saved one module whole."""
    folder = tmp_path_factory.mktemp("spaces")
    base, shared = write_base(folder / "base", "gpt2"), {"fan_in_fan_out": True}
    configs = [
        peft.LoraConfig(target_modules=["c_attn", "attn.c_proj"], r=2, lora_alpha=3, **shared),
        peft.LoraConfig(target_modules=["c_attn", "c_fc"], r=3, use_rslora=True, **shared),
        peft.LoraConfig(target_modules=["c_attn"], r=1, modules_to_save=["h.1.mlp.c_fc"], **shared),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [
            write_adapter(folder / f"e{seed}", base, config, seed=seed)
            for seed, config in enumerate(configs, 1)
        ]


def recipe(experts: list[Written], kind: str = "adapter", **settings: Any) -> Any:
    content = {
        "base": str(experts[0].base), "device": "cpu", "dtype": "float64", "evaluate": False,
        "output_dtype": "float64",
        "experts": [
            {"name": f"e{place}", "model": str(getattr(one, kind))}
            for place, one in enumerate(experts)
        ],
    }  # fmt: skip
    return parse_recipe({**content, **settings})


def merged(*arguments: Any, **settings: Any) -> tuple[Mapping[str, torch.Tensor], Report]:
    found = drain(run(recipe(*arguments, **settings)))
    return found.tensors, found.report


def factors(file: Written, module: str, root: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """B and A of a module as peft wrote them, with its scaling."""
    config = peft.LoraConfig.from_pretrained(file.adapter)
    tensors = load_file(file.adapter / "adapter_model.safetensors")
    stem = next((n for n in tensors if f".{module}.lora_A" in n), None)
    if stem is None:
        return np.zeros((0, 0)), np.zeros((0, 0))
    a, b = tensors[stem].double().numpy(), tensors[stem.replace("lora_A", "lora_B")]
    scale = config.lora_alpha / (config.r**0.5 if config.use_rslora else config.r)
    return scale**0.5 * b.double().numpy(), scale**0.5 * a


def test_the_core_of_files_is_that_of_numpy(experts):
    """TIES of the cores, of one layer that all three change, from peft's own files."""
    module = "h.0.attn.c_attn"
    options = {"density": 0.5, "scope": "tensor", "space": "core"}
    tensors, report = merged(experts[:2], method="ties", options=options)
    pairs = [factors(one, module) for one in experts[:2]]
    u = np.linalg.svd(np.hstack([b for b, _ in pairs]), full_matrices=False)[0]
    vt = np.linalg.svd(np.vstack([a for _, a in pairs]), full_matrices=False)[2]
    cores = [(u.T @ b) @ (a @ vt.T) for b, a in pairs]
    trimmed = []
    for core in cores:
        least = np.sort(np.abs(core).ravel())[-int(0.5 * core.size)]
        trimmed.append(np.where(np.abs(core) >= least, core, 0))
    agree = [np.where(np.sign(one) == np.sign(sum(trimmed)), one, 0) for one in trimmed]
    expected = u @ (sum(agree) / np.maximum(1, sum(one != 0 for one in agree))) @ vt
    name = f"transformer.{module}.weight"
    base = Checkpoint.open(experts[0].base).read(name, dtype=torch.float64)
    found = (tensors[name] - base).T.numpy()  # Conv1D
    np.testing.assert_allclose(found, expected, atol=1e-6)
    status = next(layer.status for layer in report.layers if layer.name == name)
    assert status == "exact, in a space of 5 × 5"


@pytest.mark.parametrize("method", ["ties", "tsv_m", "iso_c"])
def test_knots_of_factors_are_those_of_the_full_checkpoints(experts, method):
    options = {"space": "knots"}
    adapters, _ = merged(experts, method=method, options=options)
    full, _ = merged(experts, "merged", method=method, options=options)
    for name, value in adapters.items():
        torch.testing.assert_close(value, full[name], rtol=0, atol=2e-5)


def test_a_module_that_was_saved_whole_is_merged_as_it_is(experts):
    _, report = merged(experts, method="tsv_m", options={"space": "core"})
    statuses = {layer.name: layer.status for layer in report.layers}
    assert "no low-rank factors" in statuses["transformer.h.1.mlp.c_fc.weight"]
    assert statuses["transformer.h.0.mlp.c_fc.weight"].endswith("in a space of 3 × 3")
    assert statuses["transformer.h.0.mlp.c_proj.weight"].endswith("in a space of 0 × 0")


def test_the_experts_own_matrices_are_not_formed(experts, monkeypatch):
    read = []
    original = Adapted.read

    def noted(self: Adapted, name: str, **settings: Any) -> torch.Tensor:
        read.append(name)
        return original(self, name, **settings)

    plan = prepare(recipe(experts[:2], method="tsv_m", options={"space": "core"}))
    monkeypatch.setattr(Adapted, "read", noted)
    from mats_core.recipes import Unit

    layer = read_layer(plan, Unit("transformer.h.0.attn.c_attn.weight"))
    assert not read
    assert all(expert.device.type == "meta" for expert in layer.experts)
    assert layer.factors is not None
    assert [tuple(left.shape) for left, _ in layer.factors] == [(48, 2), (48, 3)]
    # A step that looks at the experts gets them.
    after = prepare(replace(plan, recipe=recipe(experts[:2], method="tsv_m", after=["svc"],
                            options={"space": "core"})).recipe)  # fmt: skip
    layer = read_layer(after, Unit("transformer.h.0.attn.c_attn.weight"))
    assert [expert.device.type for expert in layer.experts] == ["cpu", "cpu"]


@pytest.mark.parametrize("space", ["knots", "core"])
def test_the_merge_is_one_lora_that_peft_opens(experts, space, tmp_path):
    options, out = {"space": space}, tmp_path / "out"
    settings: dict[str, Any] = {"method": "ties", "options": options, "dtype": "float32"}
    settings["output_dtype"] = None
    whole, _ = merged(experts[:2], **settings)
    report = merge(recipe(experts[:2], **settings, output=str(out), lora={}))
    assert report.lora["lost"] < 1e-9
    ranks = [one["rank"] for one in report.lora["layers"].values()]
    assert max(ranks) <= 5  # the sum of theirs
    import transformers

    base = transformers.GPT2LMHeadModel.from_pretrained(experts[0].base)
    again = peft.PeftModel.from_pretrained(base, out).merge_and_unload()
    again.save_pretrained(tmp_path / "again")
    for found in (Checkpoint.open(tmp_path / "again"), open_expert(out, experts[0].base)):
        for name, value in whole.items():
            torch.testing.assert_close(found.read(name), value, rtol=0, atol=1e-6)


def test_full_weights_have_no_core(experts):
    options = {"space": "core"}
    with pytest.raises(InputError, match=r"LoRA adapters.*full weights of e0, e1.*'knots'"):
        prepare(recipe(experts[:2], "merged", method="ties", options=options))
    rules = [{"match": "*c_attn*", "options": options}]
    with pytest.raises(InputError, match=r"full weights of e0"):
        prepare(recipe(experts[:2], "merged", method="tsv_m", by=rules))


def test_a_space_may_differ_by_layer(experts):
    rules = [{"match": "*h.0.attn*", "options": {"space": "core"}}]
    _, report = merged(experts[:2], method="iso_c", by=rules)
    assert {layer.name for layer in report.layers if "space of" in layer.status} == {
        f"transformer.h.0.attn.{name}.weight" for name in ("c_attn", "c_proj")
    }


def test_the_estimate_knows_what_is_read(experts: list[Written]):
    def read(space: str) -> float:
        own = recipe(experts[:2], method="tsv_m", options={"space": space})
        found = estimate(open_inputs(own), own)
        return found.memory["largest layer"]

    assert 0 < read("core") < read("full")
