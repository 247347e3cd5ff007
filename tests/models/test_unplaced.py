"""Weights that the model of their configuration has no place for: refused in blocks, else told."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import mats_core as mats
from mats_core import models
from mats_core.checkpoints import Checkpoint
from mats_core.errors import InputError
from mats_core.merging.pipeline import merge
from mats_core.models.unplaced import Unplaced
from mats_core.recipes.recipe import parse_recipe
from tests.text_cases import VOCABULARY, save, write_rows

SMALL = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "num_attention_heads": 2, "pad_token_id": 0,
    "intermediate_size": 24, "max_position_embeddings": 32,
}  # fmt: skip
T5 = {"vocab_size": VOCABULARY, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_heads": 2,
      "decoder_start_token_id": 0}  # fmt: skip
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 16, "n_head": 2, "n_positions": 32}
# Class, its settings, the number of layers, and a number that is smaller than the weights hold.
MODELS: dict[str, tuple[dict[str, Any], str, int, str]] = {
    "BertForSequenceClassification": (SMALL, "num_hidden_layers", 3, "bert.encoder.layer.1"),
    "RobertaForSequenceClassification": (SMALL, "num_hidden_layers", 3, "encoder.layer.1"),
    "DistilBertForSequenceClassification": (
        {"vocab_size": VOCABULARY, "dim": 16, "n_heads": 2, "hidden_dim": 24,
         "max_position_embeddings": 32}, "n_layers", 2, "transformer.layer.1"),
    "GPT2LMHeadModel": (GPT2, "n_layer", 2, "h.1."),
    "LlamaForCausalLM": (SMALL, "num_hidden_layers", 2, "model.layers.1"),
    "T5ForConditionalGeneration": ({**T5, "num_layers": 2}, "num_decoder_layers", 2,
                                   "decoder.block.1"),
}  # fmt: skip


def made(name: str) -> Any:
    settings, key, layers, _ = MODELS[name]
    torch.manual_seed(0)
    kind = getattr(transformers, name)
    return kind(kind.config_class(**{**settings, key: layers}))


def saved(folder: Path, name: str) -> Path:
    return save(made(name), folder, "bert" if "Classification" in name else "gpt")


def edited(folder: Path, **change: Any) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    return folder


def with_tensors(folder: Path, more: dict[str, torch.Tensor]) -> Path:
    file = folder / "model.safetensors"
    save_file({**load_file(file), **more}, file, {"format": "pt"})
    return folder


def weights_note(folder: Path, name: str, layers: int) -> list[str]:
    """Notes of a merge, not tested, whose base names so many layers in its config.json."""
    for member in ("base", "a", "b"):
        saved(folder / member, name)
    edited(folder / "base", **{MODELS[name][1]: layers})
    experts = [{"name": one, "model": one} for one in "ab"]
    content = {"base": "base", "experts": experts, "method": "average", "evaluate": False}
    report = merge(parse_recipe(content, folder))
    return [note for note in report.warnings if "names other layers than" in note]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("change", [-1, 0, 1])
def test_a_merge_tells_a_config_of_other_layers(tmp_path, name, change):
    _, key, layers, further = MODELS[name]
    told = weights_note(tmp_path, name, layers + change)
    assert len(told) == abs(change)
    for note in told:
        assert f"{key} {layers + change}" in note
        assert str(tmp_path / "base") in note
        said = "has no place for" if change < 0 else "asks for"
        block = further.rstrip(".").rpartition(".")[0]
        number = layers - 1 if change < 0 else layers
        assert re.search(rf"{said} \S*{block}\.{number}\.", note), note


def test_the_class_is_not_asked_where_the_counts_agree(tmp_path, monkeypatch):
    asked: list[object] = []
    monkeypatch.setattr("mats_core.models.fitting.anatomy", asked.append)
    model = Checkpoint.open(saved(tmp_path / "a", "LlamaForCausalLM"))
    assert models.depth_notes(model) == ()
    assert asked == []


def task(folder: Path, name: str) -> str:
    rows = [{"text": f"good {'very ' * (i % 5)}", "label": i % 2} for i in range(16)]
    write_rows(folder / "rows.jsonl", rows)
    asked = {"kind": "text", "inputs": ["text"]}
    if "Classification" not in name:
        asked = {"kind": "choices", "prompt": "{text}", "choices": [" no", " yes"]}  # type: ignore
    told = {"train": "rows.jsonl", "test": 0.5, "seed": 2, **asked}
    (folder / "t.yaml").write_text(json.dumps(told))
    return str(folder / "t.yaml")


@pytest.mark.parametrize("name", MODELS)
def test_layers_that_the_configuration_does_not_count_are_refused(tmp_path, name):
    place, data = saved(tmp_path / "m", name), task(tmp_path, name)
    _, key, layers, says = MODELS[name]
    assert mats.evaluate(str(place), data).examples == 8
    edited(place, **{key: layers - (2 if layers == 3 else 1)})
    with pytest.raises(InputError) as caught:
        mats.evaluate(str(place), data)
    said = str(caught.value)
    assert "for every tensor of its layers" in said
    assert says in said
    assert f"{key} 1" in said
    with pytest.raises(InputError, match="for every tensor of its layers"):
        mats.measure(str(place), data, examples=4, progress=False)


@pytest.mark.parametrize("lead", ["", "bert."])
@pytest.mark.parametrize(
    "part", ["encoder.layer.0.adapter.down.weight", "encoder.layer.2.gate", "encoder.layer.7.x.y"]
)
def test_parts_inside_of_a_block_are_refused(tmp_path, lead, part):
    name = "BertForSequenceClassification"
    place, data = saved(tmp_path / "m", name), task(tmp_path, name)
    with_tensors(place, {f"{lead}{part}": torch.ones(2, 2)})
    with pytest.raises(InputError, match=rf"found none for \S*{part.split('.')[-1]}"):
        mats.evaluate(str(place), data)


BESIDE = {
    "a head of pre-training": {"cls.seq_relationship.weight": torch.ones(2, 16)},
    "two": {"lm_head.weight": torch.ones(4, 16), "lm_head.bias": torch.ones(4)},
    "another tower": {"vision.blocks.0.fc.weight": torch.ones(4, 16)},
}
QUIET = {
    "positions": {"bert.embeddings.position_ids": torch.arange(32)[None]},
    "frequencies": {"bert.encoder.layer.0.rotary.inv_freq": torch.ones(4)},
    "a mask": {"bert.encoder.layer.0.attn.bias": torch.ones(1, 1, 4, 4)},
    "nothing": {},
}


@pytest.mark.parametrize("case", [*BESIDE, *QUIET])
def test_what_is_beside_the_blocks_is_told_and_buffers_are_not(tmp_path, case):
    name, more = "BertForSequenceClassification", {**BESIDE, **QUIET}[case]
    place, data = saved(tmp_path / "m", name), task(tmp_path, name)
    right = mats.evaluate(str(place), data)
    with_tensors(place, more)
    asking = models.check(Checkpoint.open(place), mats_task(data))
    told = [note for note in asking.notes if "has no place for" in note]
    assert bool(told) == (case in BESIDE)
    assert all(one in told[0] for one in more if case in BESIDE)
    assert mats.evaluate(str(place), data).answers == right.answers


def mats_task(file: str) -> Any:
    from mats_core import tasks

    return tasks.load(file)


@pytest.mark.parametrize(
    ("left", "inside"),
    [
        ({"layers.2.w": (2, 2)}, True), ({"model.layers.2.w": (2, 2)}, True),
        ({"other.layers.2.w": (2, 2)}, False), ({"head.w": (2, 2)}, False),
        ({"layers.2.position_ids": (1, 2)}, None), ({"stages.0.blocks.3.w": (2, 2)}, True),
    ],
)  # fmt: skip
def test_what_is_inside_of_a_block(left, inside):
    names = ["model.layers.0.w", "model.layers.1.w", "stages.0.blocks.0.w", "norm.w"]
    found = Unplaced.among(left, names, "model")
    assert (found.inside, found.beside) == (
        (tuple(left), ()) if inside else ((), tuple(left) if inside is False else ())
    )
