"""Tiny randomly initialised models of every architecture: a base and two experts on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from mats_core.recipes.recipe import Recipe, parse_recipe

VOCABULARY = 40
WIDTHS = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
TEXT = {**WIDTHS, "vocab_size": VOCABULARY, "max_position_embeddings": 24, "pad_token_id": 0}
IMAGE = {**WIDTHS, "image_size": 8, "patch_size": 4}
TOWERS = {
    "text_config": {**TEXT, "projection_dim": 12, "bos_token_id": 1, "eos_token_id": 2},
    "vision_config": {**IMAGE, "projection_dim": 12},
    "projection_dim": 12,
}
DISTIL = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "vocab_size": VOCABULARY,
          "max_position_embeddings": 24}  # fmt: skip
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2,
      "vocab_size": VOCABULARY, "decoder_start_token_id": 0, "eos_token_id": 1}  # fmt: skip
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": VOCABULARY, "n_positions": 24,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
DECODER = {**TEXT, "num_key_value_heads": 1, "bos_token_id": 1, "eos_token_id": 2}


@dataclass(frozen=True)
class Architecture:
    """`base` and `expert` are classes of transformers; `settings` are their configuration's."""

    base: str
    expert: str
    config: str
    settings: Mapping[str, Any]
    inputs: str = "text"

    @property
    def classifies(self) -> bool:
        return "Classification" in self.expert


ARCHITECTURES = {
    "vit": Architecture("ViTModel", "ViTForImageClassification", "ViTConfig", IMAGE, "image"),
    "clip": Architecture("CLIPModel", "CLIPModel", "CLIPConfig", TOWERS, "both"),
    "clip, vision tower": Architecture(
        "CLIPModel", "CLIPVisionModel", "CLIPConfig", TOWERS, "both"
    ),
    "clip, image classification": Architecture(
        "CLIPModel", "CLIPForImageClassification", "CLIPConfig", TOWERS, "both"
    ),
    "bert": Architecture("BertModel", "BertForSequenceClassification", "BertConfig", TEXT),
    "bert, base with a head": Architecture(
        "BertForSequenceClassification", "BertModel", "BertConfig", TEXT
    ),
    "roberta": Architecture(
        "RobertaForMaskedLM", "RobertaForSequenceClassification", "RobertaConfig", TEXT
    ),
    "distilbert": Architecture(
        "DistilBertForMaskedLM", "DistilBertForSequenceClassification", "DistilBertConfig", DISTIL
    ),
    "t5": Architecture(
        "T5ForConditionalGeneration", "T5ForConditionalGeneration", "T5Config", T5, "pairs"
    ),
    "t5, classification": Architecture(
        "T5ForConditionalGeneration", "T5ForSequenceClassification", "T5Config", T5, "pairs"
    ),
    "gpt2": Architecture("GPT2LMHeadModel", "GPT2LMHeadModel", "GPT2Config", GPT2),
    "gpt2, classification": Architecture(
        "GPT2Model", "GPT2ForSequenceClassification", "GPT2Config", GPT2
    ),
    "llama": Architecture("LlamaForCausalLM", "LlamaForCausalLM", "LlamaConfig", DECODER),
    "llama, classification": Architecture(
        "LlamaForCausalLM", "LlamaForSequenceClassification", "LlamaConfig", DECODER
    ),
    "qwen2, tied": Architecture(
        "Qwen2ForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen2Config",
        {**DECODER, "tie_word_embeddings": True},
    ),
    "qwen3": Architecture(
        "Qwen3ForCausalLM", "Qwen3ForCausalLM", "Qwen3Config", {**DECODER, "head_dim": 8}
    ),
}


def config(architecture: Architecture, name: str, classes: int) -> Any:
    made = getattr(transformers, architecture.config)(**architecture.settings)
    if "CLIPVision" in name and architecture.config == "CLIPConfig":
        return made.vision_config
    if "Classification" in name:
        made.num_labels = classes
    return made


def perturb(model: Any, by: float) -> None:
    """Initialisations put zeros and ones in biases and norms: then every number is its own."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(by * torch.randn_like(parameter))


def save_family(architecture: Architecture, folder: Path, experts: int = 2) -> dict[str, Any]:
    """`base`, `e0`, `e1` on disk, and their models.

    An expert begins with what `Expert.from_pretrained(base)` finds by transformers' own rules.
    """
    torch.manual_seed(0)
    settings = config(architecture, architecture.base, 5)
    models = {"base": getattr(transformers, architecture.base)(settings).eval()}
    perturb(models["base"], 0.05)
    models["base"].save_pretrained(folder / "base")
    for m in range(experts):
        model = getattr(transformers, architecture.expert).from_pretrained(
            folder / "base", config=config(architecture, architecture.expert, 3 + m)
        )
        perturb(model, 0.1)
        model.save_pretrained(folder / f"e{m}")
        models[f"e{m}"] = model.eval()
    return models


def recipe(folder: Path, method: str, output: str | None, **settings: Any) -> Recipe:
    content = {
        "base": "base",
        "experts": [{"name": f"e{m}", "model": f"e{m}"} for m in range(2)],
        "method": method,
        "device": "cpu",
        **settings,
    }
    return parse_recipe({**content, "output": output} if output else content, folder)


def inputs(kind: str, seed: int = 0) -> dict[str, Tensor]:
    """Three random examples; padding at the end of the last one's text."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(3, 3, 8, 8, generator=generator)
    ids = torch.randint(3, VOCABULARY, (3, 7), generator=generator)
    mask = torch.ones_like(ids)
    ids[2, 5:], mask[2, 5:] = 0, 0
    if kind == "image":
        return {"pixel_values": pixels}
    if kind == "both":
        ids[:, -1] = 2  # CLIP pools at the end-of-text token
        return {"pixel_values": pixels, "input_ids": ids}
    text = {"input_ids": ids, "attention_mask": mask}
    if kind == "pairs":
        ids[:, 4] = 1  # T5's classifier reads the end of the text
        answers = torch.randint(3, VOCABULARY, (3, 4), generator=generator)
        return {**text, "decoder_input_ids": answers}
    return text
