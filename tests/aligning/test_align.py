"""Aligning, against permutations that are drawn here: the answers stay, the order comes back."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import mats_core as mats
from mats_core.aligning import Order, Part, Symmetry, match, state_dict, structure_of
from mats_core.aligning.symmetry import Placement, put
from mats_core.checkpoints import Checkpoint
from mats_core.cli.main import main
from mats_core.errors import InputError
from mats_core.recipes import parse_recipe
from mats_core.statistics import measure_task
from mats_core.tasks import load
from tests.conftest import class_names, family_recipe, loaded, vit

IDS = {"input_ids": torch.arange(12).view(2, 6) % 50, "attention_mask": torch.ones(2, 6).long()}


def small_vit() -> nn.Module:
    return vit(3, class_names(3), seed=0)


def small_bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(
        BertConfig(vocab_size=50, hidden_size=24, num_hidden_layers=2, num_attention_heads=4,
                   intermediate_size=40)
    )  # fmt: skip


def small_gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=50, n_embd=24, n_layer=2, n_head=3, n_positions=16)
    return GPT2LMHeadModel(config)


def small_llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(vocab_size=50, hidden_size=24, num_hidden_layers=2, num_attention_heads=4,
                    num_key_value_heads=2, intermediate_size=40)
    )  # fmt: skip


def small_t5() -> nn.Module:
    from transformers import T5Config, T5ForConditionalGeneration

    return T5ForConditionalGeneration(
        T5Config(vocab_size=50, d_model=24, d_kv=6, d_ff=40, num_layers=2, num_heads=4,
                 decoder_start_token_id=0)  # type: ignore[call-arg]
    )  # fmt: skip


def images() -> dict[str, Tensor]:
    return {"pixel_values": torch.linspace(-1, 1, 2 * 144).view(2, 1, 12, 12).sin()}


# Letters of heads (groups, heads, values, queries) that may change places, and all symmetries.
MODELS: dict[str, tuple[Callable[[], nn.Module], dict[str, Tensor], set[str], int]] = {
    "vit": (small_vit, images(), {"GVQ"}, 5),
    "bert": (small_bert, IDS, {"GVQ"}, 5),
    "fused conv1d": (small_gpt2, IDS, {"GVQ"}, 5),
    "grouped, gated, rotary": (small_llama, IDS, {"GHV"}, 5),  # rotary: no queries
    # Biases of relative positions belong to heads, but not of the encoder's answer to the decoder.
    "encoder-decoder": (small_t5, {**IDS, "decoder_input_ids": IDS["input_ids"]},
                        {"VQ", "GVQ"}, 11),
}  # fmt: skip


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.parameters():
            noise = torch.randn(value.shape, generator=generator) / max(1, value.shape[-1]) ** 0.5
            value.copy_(noise if value.ndim > 1 else 1 + 0.3 * noise)
    return model.double().eval()


def answer(model: nn.Module, inputs: Any) -> Tensor:
    found: Any = model(**inputs)
    return getattr(found, "logits", found)


def as_double(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: v.double() if v.is_floating_point() else v for n, v in inputs.items()}


def shuffled(model: nn.Module, symmetries: Any, seed: int = 1) -> None:
    """Change the places of all that the symmetries say may change."""
    generator = torch.Generator().manual_seed(seed)
    state = model.state_dict()
    placement = Placement({name: tuple(value.shape) for name, value in state.items()})
    for one in symmetries:
        sizes = {"H": 1, "V": 1, "Q": 1, **one.sizes}
        placement.follow(one, Order.drawn(sizes, one.free, generator))
    # Tied tensors are one: what is moved by its first name is moved by all.
    for name, axes in placement.moves.items():
        state[name].copy_(put(state[name].clone(), axes))


@pytest.mark.parametrize("kind", MODELS)
def test_a_permuted_copy_comes_back_and_no_answer_changes(kind: str) -> None:
    make, inputs, letters, count = MODELS[kind]
    given = as_double(inputs)
    base = randomised(make())
    found = structure_of(randomised(make(), 5), given, answer, stream=True)
    assert found.symmetries[0].label == "dimensions of the residual stream"
    assert len(found.symmetries) == count
    heads = {one.free for one in found.symmetries if "V" in one.sizes}
    assert heads == letters
    expert = make().double().eval()
    expert.load_state_dict(base.state_dict())
    shuffled(expert, found.symmetries)
    changed = [n for n, v in expert.state_dict().items() if not v.equal(base.state_dict()[n])]
    assert len(changed) > 5
    with torch.no_grad():
        torch.testing.assert_close(answer(expert, given), answer(base, given), rtol=1e-5, atol=1e-5)
    aligned = mats.align(expert, base, inputs=given)
    for name, value in state_dict(aligned).items():
        assert torch.equal(value, base.state_dict()[name]), name
    again = mats.align(base, base, inputs=given)
    assert not again.ordering.moves


@pytest.mark.parametrize("kind", ["vit", "grouped, gated, rotary"])
def test_a_stranger_keeps_its_answers_and_is_aligned_once(kind: str) -> None:
    make, inputs, _, _ = MODELS[kind]
    given = as_double(inputs)
    base, expert = randomised(make(), 0), randomised(make(), 1)
    aligned = mats.align(expert, base, inputs=given)
    state = state_dict(aligned)
    moved = make().double().eval()
    moved.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(
            answer(moved, given), answer(expert, given), rtol=1e-5, atol=1e-5
        )

    def likeness(own: dict[str, Tensor]) -> float:
        return sum(float((own[n] * v).sum()) for n, v in base.state_dict().items())

    assert likeness(state) > likeness(expert.state_dict())
    assert not mats.align(moved, base, inputs=given).ordering.moves


def permuted_expert(family: Path, folder: Path) -> None:
    """Expert e0 with its MLPs' units and its heads elsewhere, and its own statistics."""
    own = Checkpoint.open(family / "e0")
    state = {name: own.read(name) for name in own.tensors}
    generator = torch.Generator().manual_seed(3)
    for layer in range(2):
        stem = f"vit.encoder.layer.{layer}"
        order = torch.randperm(40, generator=generator)
        for name, axis in (("intermediate.dense.weight", 0), ("intermediate.dense.bias", 0),
                           ("output.dense.weight", 1)):  # fmt: skip
            state[f"{stem}.{name}"] = state[f"{stem}.{name}"].index_select(axis, order)
        heads = torch.randperm(4, generator=generator)
        rows = torch.arange(24).view(4, 6)[heads].flatten()
        for part in ("query", "key", "value"):
            for kind in ("weight", "bias"):
                name = f"{stem}.attention.attention.{part}.{kind}"
                state[name] = state[name][rows]
        name = f"{stem}.attention.output.dense.weight"
        state[name] = state[name][:, rows]
    shutil.copytree(family / "e0", folder)
    save_file({n: v.contiguous() for n, v in state.items()}, folder / "model.safetensors",
              {"format": "pt"})  # fmt: skip


@pytest.mark.parametrize("method", ["average", "fisher", "kfac"])
def test_a_recipe_that_aligns_merges_as_if_nothing_had_moved(
    method: str, tiny_family: Path, tmp_path: Path
) -> None:
    permuted_expert(tiny_family, tmp_path / "e0")
    task = load(tiny_family / "t0.npz")
    measure_task(Checkpoint.open(tmp_path / "e0"), task, examples=48).save(
        tmp_path / "e0.stats.safetensors"
    )
    content = family_recipe(tiny_family, method, evaluate=False)
    plain = mats.merge(parse_recipe(content, tiny_family), progress=False)
    experts: Any = content["experts"]
    experts[0] = experts[0] | {
        "model": str(tmp_path / "e0"),
        "statistics": str(tmp_path / "e0.stats.safetensors"),
        "align": True,
    }
    merged = mats.merge(parse_recipe(content, tiny_family), progress=False)
    for name, value in plain.tensors.items():
        # A softmax takes no notice of the keys' bias: its Fisher is rounding, measured twice.
        if not (method == "fisher" and name.endswith("key.bias")):
            torch.testing.assert_close(merged.tensors[name], value, rtol=2e-4, atol=2e-5)
    assert any("was aligned to" in note for note in merged.inputs.notes)


def test_the_command_line_writes_the_aligned_expert(tiny_family: Path, tmp_path: Path) -> None:
    permuted_expert(tiny_family, tmp_path / "e0")
    out = tmp_path / "aligned"
    code = main(["align", str(tmp_path / "e0"), "--to", str(tiny_family / "base"),
                 "--output", str(out)])  # fmt: skip
    assert code == 0
    found, own = Checkpoint.open(out), Checkpoint.open(tiny_family / "e0")
    for name in own.tensors:
        assert torch.equal(found.read(name), own.read(name)), name
    assert loaded(found).config.id2label == loaded(own).config.id2label  # type: ignore[union-attr]


def test_a_layer_s_order_is_the_best_of_all() -> None:
    """Hidden units of y = W2 relu(W1 x), against every permutation."""
    rng = np.random.default_rng(0)
    w1, w2, v1, v2 = (rng.standard_normal(s) for s in ((5, 3), (2, 5), (5, 3), (2, 5)))
    symmetry = Symmetry(
        "units",
        (Part("1", 0, "G", torch.arange(5)), Part("2", 1, "G", torch.arange(5))),
        "G",
    )
    named = ({"1": torch.from_numpy(a), "2": torch.from_numpy(b)} for a, b in ((v1, v2), (w1, w2)))
    placement = match([symmetry], *named)
    order = placement.moves["1"][0].tolist()
    best = max(
        itertools.permutations(range(5)),
        key=lambda p: np.sum(w1 * v1[list(p)]) + np.sum(w2 * v2[:, list(p)]),
    )
    assert order == list(best)
    assert placement.moves["2"][1].tolist() == order


def test_plain_modules_are_aligned_by_their_inputs() -> None:
    def mlp() -> nn.Module:
        return nn.Sequential(
            nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)
        )

    base = mlp()
    expert = mlp()
    expert.load_state_dict(base.state_dict())
    first, second = torch.randperm(6), torch.randperm(5)
    with torch.no_grad():
        expert[0].weight.copy_(base[0].weight[first])  # type: ignore[index]
        expert[0].bias.copy_(base[0].bias[first])  # type: ignore[index]
        expert[2].weight.copy_(base[2].weight[second][:, first])  # type: ignore[index]
        expert[2].bias.copy_(base[2].bias[second])  # type: ignore[index]
        expert[4].weight.copy_(base[4].weight[:, second])  # type: ignore[index]
    with pytest.raises(InputError, match="inputs="):
        mats.align(expert, base).read("0.weight")
    aligned = mats.align(expert, base, inputs={"input": torch.randn(2, 4)})
    merged = mats.merge_models(base, {"expert": aligned}, "average", heads=[])
    for name, value in merged.state_dict().items():
        torch.testing.assert_close(value, base.state_dict()[name])


def test_tensors_alone_are_refused(tmp_path: Path) -> None:
    save_file({"fc.weight": torch.zeros(2, 2)}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="how the model uses them"):
        mats.align(str(tmp_path / "a.safetensors"), str(tmp_path / "a.safetensors")).read(
            "fc.weight"
        )
