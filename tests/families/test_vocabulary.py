"""Vocabularies that differ: named, never cropped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mats_core.checkpoints.files import Checkpoint
from mats_core.errors import InputError
from mats_core.families.examine import examine
from mats_core.families.expert import Expert
from mats_core.families.vocabulary import difference, tokens
from mats_core.merging.pipeline import merge
from mats_core.recipes.recipe import parse_recipe


def model(rows: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "embeddings.word_embeddings.weight": torch.randn(rows, 3, generator=generator),
        "layer.0.fc.weight": torch.randn(4, 3, generator=generator),
    }


def write(place: Path, rows: int, files: Mapping[str, object], seed: int = 0) -> Checkpoint:
    place.mkdir(parents=True, exist_ok=True)
    save_file(model(rows, seed), place / "model.safetensors")
    for name, content in {"config.json": {}, **files}.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (place / name).write_text(text)
    return Checkpoint.open(place)


NUMBERS = {"a": 0, "b": 1, "c": 2}
WRITTEN = {  # one vocabulary in the ways of the tokenizers
    "fast": {"tokenizer.json": {"model": {"type": "WordPiece", "vocab": NUMBERS}}},
    "unigram": {"tokenizer.json": {"model": {"vocab": [["a", 0.0], ["b", -1.5], ["c", -2]]}}},
    "added": {
        "tokenizer.json": {
            "model": {"vocab": {"a": 0, "b": 1}},
            "added_tokens": [{"id": 2, "content": "c", "special": True}],
        }
    },
    "bpe": {"vocab.json": NUMBERS},
    "wordpiece": {"vocab.txt": "a\nb\nc\n"},
    "slow": {"vocab.json": {"a": 0, "b": 1}, "added_tokens.json": {"c": 2}},
}


@pytest.mark.parametrize("way", WRITTEN)
def test_every_file_is_read(tmp_path, way):
    assert tokens(write(tmp_path / way, 3, WRITTEN[way])) == NUMBERS


@pytest.mark.parametrize(
    "files", [{}, {"tokenizer.json": "no JSON"}, {"vocab.json": [1, 2]}, {"spiece.model": "x"}]
)
def test_what_cannot_be_read_says_nothing(tmp_path, files):
    unknown = write(tmp_path / "x", 3, files)
    assert tokens(unknown) == {}
    assert difference(unknown, write(tmp_path / "y", 3, WRITTEN["bpe"])) == ""


def test_a_larger_embedding_names_its_tokens(tmp_path):
    base = write(tmp_path / "base", 3, WRITTEN["wordpiece"])
    more: dict[str, object] = {
        "vocab.json": NUMBERS,
        "added_tokens.json": {"<user>": 3, "<bot>": 4},
    }
    expert = Expert("chat", write(tmp_path / "chat", 5, more))
    with pytest.raises(InputError) as caught:
        examine(base, [expert])
    text = str(caught.value)
    assert "[5, 3]" in text
    assert "[3, 3]" in text
    assert "it has 2 more tokens: <user>, <bot>" in text
    assert "nothing is cropped" in text
    # And the other way round.
    with pytest.raises(InputError, match="it lacks 2 tokens of the base: <user>, <bot>"):
        examine(expert.checkpoint, [Expert("plain", base)])


def test_many_tokens_are_counted_and_odd_ones_are_quoted(tmp_path):
    base = write(tmp_path / "base", 3, WRITTEN["bpe"])
    odd = {**NUMBERS, " ": 3, "\n": 4, **{f"t{n}": 5 + n for n in range(20)}}
    text = difference(base, write(tmp_path / "x", 25, {"vocab.json": odd}))
    assert text == r"it has 22 more tokens: ' ', '\n', t0, t1, t2, t3, t4, t5 and 14 more"


def test_padding_of_the_embedding_is_said(tmp_path):
    base = write(tmp_path / "base", 3, WRITTEN["bpe"])
    expert = Expert("padded", write(tmp_path / "padded", 8, WRITTEN["fast"]))
    with pytest.raises(InputError, match="name the same tokens, or are missing"):
        examine(base, [expert])


def test_other_tokens_in_an_embedding_of_the_same_size_are_a_note_in_the_report(tmp_path):
    write(tmp_path / "base", 3, WRITTEN["bpe"] | {"merges.txt": "", "chat_template.jinja": "{{x}}"})
    write(tmp_path / "same", 3, WRITTEN["fast"], seed=1)
    write(tmp_path / "other", 3, {"vocab.json": {"a": 0, "b": 1, "d": 2}}, seed=2)
    write(tmp_path / "moved", 3, {"vocab.json": {"a": 0, "c": 1, "b": 2}}, seed=3)
    content = {
        "base": "base",
        "experts": [{"name": n, "model": n} for n in ("same", "other", "moved")],
        "method": "average",
        "output": "out",
    }
    report = merge(parse_recipe(content, tmp_path))
    assert len(report.warnings) == 2
    assert "expert 'other'" in report.warnings[0]
    assert "has 1 more token: d and lacks 1 token of the base: c" in report.warnings[0]
    assert "gives another number to 2 tokens: b, c" in report.warnings[1]
    rows = [load_file(tmp_path / n / "model.safetensors") for n in ("same", "other", "moved")]
    name = "embeddings.word_embeddings.weight"
    mean = sum(tensors[name] for tensors in rows) / 3
    torch.testing.assert_close(load_file(tmp_path / "out" / "model.safetensors")[name], mean)


CARRIED = (
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "vocab.txt",
    "added_tokens.json", "special_tokens_map.json", "spiece.model", "tokenizer.model",
    "sentencepiece.bpe.model", "preprocessor_config.json", "processor_config.json",
    "chat_template.jinja", "chat_template.json", "generation_config.json", "config.json",
)  # fmt: skip


def test_tokenizer_and_processor_files_are_carried_along(tmp_path):
    files: dict[str, object] = {name: {"from": name} for name in CARRIED}
    write(tmp_path / "base", 3, files | {"pytorch_model.bin": "x", "model.onnx": "x"})
    write(tmp_path / "x", 3, {}, seed=1)
    content = {"base": "base", "experts": [{"name": "x", "model": "x"}], "method": "average"}
    merge(parse_recipe({**content, "output": "out"}, tmp_path))
    for name in CARRIED:
        one, other = (tmp_path / place / name for place in ("base", "out"))
        assert one.read_bytes() == other.read_bytes(), name
    left = {"model.safetensors", "recipe.yaml", "report.json", "README.md"}
    assert {file.name for file in (tmp_path / "out").iterdir()} - left == set(CARRIED)
