"""PEFT adapters as experts; the oracle is peft itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mats_core.adapters import Adapted, open_expert
from mats_core.checkpoints import Checkpoint
from mats_core.pipeline import run
from mats_core.recipe import parse_recipe
from mats_core.report import Finished
from tests.adapter_cases import MODELS, Written, write_adapter, write_base

peft = pytest.importorskip("peft")


def lora(**settings: Any) -> Any:
    return peft.LoraConfig(**{"r": 3, "lora_alpha": 5, **settings})


def ia3(targets: list[str], feedforward: list[str], **settings: Any) -> Any:
    return peft.IA3Config(target_modules=targets, feedforward_modules=feedforward, **settings)


BERT_TARGETS = ["query", "value", "output.dense"]
CASES: dict[str, tuple[str, Callable[[], Any]]] = {
    "lora": ("bert", lambda: lora(target_modules=BERT_TARGETS)),
    "rslora": ("bert", lambda: lora(target_modules=BERT_TARGETS, use_rslora=True)),
    "patterns": (
        "bert",
        lambda: lora(
            target_modules=BERT_TARGETS,
            rank_pattern={"layer.0.attention.self.query": 2, "value": 4},
            alpha_pattern={r"layer\.\d+\.output\.dense": 7},
        ),
    ),
    "patterns, rslora": (
        "bert",
        lambda: lora(target_modules=BERT_TARGETS, rank_pattern={"value": 4}, use_rslora=True),
    ),
    "embedding": ("bert", lambda: lora(target_modules=["word_embeddings", "key"])),
    "lora_only biases": ("bert", lambda: lora(target_modules=["query"], bias="lora_only")),
    "all biases": ("bert", lambda: lora(target_modules=["query"], bias="all")),
    "lora_bias": ("bert", lambda: lora(target_modules=["query"], lora_bias=True)),
    "head": ("bert", lambda: lora(target_modules=["query"], task_type="SEQ_CLS")),
    "head and pooler": (
        "bert",
        lambda: lora(target_modules=["query"], modules_to_save=["classifier", "pooler"]),
    ),
    "ia3": ("bert", lambda: ia3(["key", "value", "output.dense"], ["output.dense"])),
    "Conv1D": (
        "gpt2",
        lambda: lora(target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True),
    ),
    "Conv1D, biases": (
        "gpt2",
        lambda: lora(target_modules=["attn.c_proj"], fan_in_fan_out=True, bias="lora_only"),
    ),
    "Conv1D, ia3": (
        "gpt2",
        lambda: ia3(["c_attn", "mlp.c_proj"], ["mlp.c_proj"], fan_in_fan_out=True),
    ),
    "T5": ("t5", lambda: lora(target_modules=["q", "v", "wi", "wo"])),
    "T5, ia3": ("t5", lambda: ia3(["q", "k", "v", "wo"], ["wo"])),
    "Llama": ("llama", lambda: lora(target_modules="all-linear")),
    "Llama, ia3": ("llama", lambda: ia3(["k_proj", "v_proj", "down_proj"], ["down_proj"])),
    "renamed by transformers": ("vit", lambda: lora(target_modules=["q_proj", "fc1"])),
    "convolution": ("vit", lambda: lora(target_modules=["projection"])),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {name: write_base(folder / name, name) for name in MODELS}


@pytest.fixture(scope="module")
def written(
    bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Written]:
    done: dict[str, Written] = {}

    def make(name: str) -> Written:
        if name not in done:
            model, config = CASES[name]
            folder = tmp_path_factory.mktemp("adapter")
            done[name] = write_adapter(folder, bases[model], config())
        return done[name]

    return make


def recipe(written: Written, method: str, **settings: Any) -> Any:
    experts = [{"name": "one", "model": str(written.adapter)}]
    content = {"base": str(written.base), "experts": experts, "method": method, "device": "cpu"}
    return parse_recipe({**content, "evaluate": False, **settings})


def merged_tensors(recipe: Any) -> dict[str, torch.Tensor]:
    return next(event.tensors for event in run(recipe) if isinstance(event, Finished))


# One adapter gives itself back --------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_an_adapter_is_what_peft_makes_of_it(name, written):
    files = written(name)
    base, expert = Checkpoint.open(files.base), open_expert(files.adapter, files.base)
    oracle = Checkpoint.open(files.merged)
    assert isinstance(expert, Adapted)
    assert set(expert.tensors) == set(oracle.tensors) == set(base.tensors)
    moved = 0
    for tensor in oracle.tensors:
        value = expert.read(tensor)
        torch.testing.assert_close(value, oracle.read(tensor), rtol=0, atol=1e-6)
        assert expert.tensors[tensor].shape == tuple(value.shape)
        changed = not torch.equal(value, base.read(tensor))
        assert (expert.digest(tensor) != base.digest(tensor)) == changed
        moved += changed
    assert moved == len(expert.changes) > 0


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("method", "options"), [("average", {}), ("task_arithmetic", {"scaling": 1.0})]
)
def test_one_adapter_at_weight_one_gives_itself_back(name, method, options, written):
    files = written(name)
    found = merged_tensors(recipe(files, method, options=options))
    oracle = Checkpoint.open(files.merged)
    for tensor, value in found.items():
        torch.testing.assert_close(value, oracle.read(tensor), rtol=0, atol=1e-6)
    assert found.keys() == oracle.tensors.keys()
