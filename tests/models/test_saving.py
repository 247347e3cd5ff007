"""What is saved of modules of transformers opens by `from_pretrained`, and computes the same."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from mats_core import merge_models
from tests.conftest import vit

SMALL = {
    "vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 20, "pad_token_id": 0,
}  # fmt: skip
T5 = {"vocab_size": 60, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
GPT2 = {"vocab_size": 60, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 20}
MIXTURE = {**SMALL, "num_key_value_heads": 2, "num_local_experts": 2, "num_experts_per_tok": 1}
WORDS = {"input_ids": torch.arange(2, 12).reshape(2, 5)}
# Class, the settings of its configuration, what the model is called with, whether it generates.
MODELS = {
    "BertForSequenceClassification": (SMALL, WORDS, False),
    "RobertaForMaskedLM": (SMALL, WORDS, False),
    "DistilBertModel": ({"vocab_size": 60, "dim": 16, "n_layers": 2, "n_heads": 2,
                         "hidden_dim": 24, "max_position_embeddings": 20}, WORDS, False),
    "GPT2LMHeadModel": (GPT2, WORDS, True),
    "LlamaForCausalLM": ({**SMALL, "tie_word_embeddings": False}, WORDS, True),
    "Qwen2ForCausalLM": ({**SMALL, "num_key_value_heads": 1, "tie_word_embeddings": True},
                         WORDS, True),
    "MixtralForCausalLM": (MIXTURE, WORDS, True),
    "T5ForConditionalGeneration": (T5, {**WORDS, "decoder_input_ids": WORDS["input_ids"]}, True),
}  # fmt: skip


def made(name: str, seed: int) -> Any:
    torch.manual_seed(seed)
    if name == "ViTForImageClassification":
        return vit(3, ["a", "b", "c"], seed).eval()
    kind = getattr(transformers, name)
    return kind(kind.config_class(**MODELS[name][0])).eval()


def tuned(base: Any, seed: int) -> Any:
    """A module near the base: the same lineage."""
    torch.manual_seed(seed)
    found = copy.deepcopy(base)
    with torch.no_grad():
        for value in found.parameters():
            value.add_(0.02 * torch.randn_like(value))
    return found


def family(name: str) -> tuple[Any, dict[str, Any]]:
    base = made(name, 0)
    return base, {f"e{k}": tuned(base, k + 1) for k in range(2)}


def checkpointed(module: Any) -> Any:
    """Activation checkpointing, as training leaves it: a wrapper around every block."""
    blocks = module.bert.encoder.layer
    for number, block in enumerate(blocks):
        blocks[number] = checkpoint_wrapper(block)
    return module


WRAPPERS = {
    "none": lambda module: module,
    "torch.compile": lambda module: torch.compile(module, backend="eager"),
    "DataParallel": nn.DataParallel,
    "checkpointing": checkpointed,
    "both": lambda module: nn.DataParallel(checkpointed(module)),
}


@pytest.mark.parametrize("name", MODELS)
def test_from_pretrained_opens_what_was_saved(tmp_path, name):
    base, experts = family(name)
    before = copy.deepcopy(base.config.to_dict())
    merged = merge_models(base, experts, heads=[])
    folder = merged.save(tmp_path / "out")
    opened, told = type(base).from_pretrained(folder, output_loading_info=True)
    assert not any(told[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    _, called, generates = MODELS[name]
    with torch.inference_mode():
        ours, theirs = merged.model()(**called)[0], opened.eval()(**called)[0]
    torch.testing.assert_close(theirs, ours)
    assert (folder / "generation_config.json").is_file() == generates
    content = json.loads((folder / "config.json").read_text())
    assert content["architectures"] == [name]
    assert content["dtype"] == "float32"
    assert base.config.to_dict() == before, "the module is the caller's"
    # What save_pretrained writes, in every setting.
    model: Any = merged.model()
    model.save_pretrained(tmp_path / "theirs")
    assert content == json.loads((tmp_path / "theirs" / "config.json").read_text())


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_are_read_through(tmp_path, wrapper):
    base, experts = family("BertForSequenceClassification")
    plain = merge_models(base, experts, heads=[]).state_dict()
    wrap = WRAPPERS[wrapper]
    wrapped = merge_models(
        wrap(copy.deepcopy(base)), {n: wrap(copy.deepcopy(e)) for n, e in experts.items()}, heads=[]
    )
    folder = wrapped.save(tmp_path / "out")
    opened: Any = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    state = opened.state_dict()
    assert state.keys() == plain.keys()
    assert all(torch.equal(state[name], plain[name]) for name in plain)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("asked", [None, "bfloat16"])
def test_the_dtype_is_that_of_the_weights(tmp_path, dtype, asked):
    base, experts = family("BertForSequenceClassification")
    models = [module.to(getattr(torch, dtype)) for module in (base, *experts.values())]
    merged = merge_models(models[0], models[1:], heads=[], output_dtype=asked)
    folder = merged.save(tmp_path / "out")
    assert json.loads((folder / "config.json").read_text())["dtype"] == (asked or dtype)
    opened: Any = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    assert opened.dtype == getattr(torch, asked or dtype)


def test_every_head_has_the_settings_of_its_expert(tmp_path):
    torch.manual_seed(0)
    base = made("BertForSequenceClassification", 0)
    experts = {}
    for number, classes in enumerate((3, 4)):
        expert = tuned(base, number)
        expert.classifier, expert.config.num_labels = nn.Linear(16, classes), classes
        experts[f"e{number}"] = expert
    merged = merge_models(base, experts)
    folder = merged.save(tmp_path / "out")
    for name, classes in (("e0", 3), ("e1", 4)):
        head = json.loads((folder / "heads" / name / "config.json").read_text())
        assert len(head["id2label"]) == classes
    merged.save(folder, force=True)  # it holds what a merge wrote, and nothing else


def test_other_modules_have_no_settings(tmp_path):
    base = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    folder = merge_models(base, [tuned(base, 1), tuned(base, 2)]).save(tmp_path / "out")
    assert not (folder / "config.json").exists()
    part: Any = made("BertForSequenceClassification", 0).bert.encoder  # no model
    folder = merge_models(part, [tuned(part, 1), tuned(part, 2)]).save(tmp_path / "part")
    assert not (folder / "config.json").exists()
