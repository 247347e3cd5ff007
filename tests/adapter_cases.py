"""Tiny models with PEFT adapters that peft wrote: base, adapter, and what peft makes of them.

Every parameter that an adapter trains is moved from where it starts, so that nothing agrees by
being zero.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

VOCABULARY = 20


def bert(labels: int = 3) -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        vocab_size=VOCABULARY, max_position_embeddings=10, num_labels=labels,  # type: ignore[call-arg]
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return BertForSequenceClassification(config)


def gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_embd=16, n_layer=2, n_head=2, vocab_size=VOCABULARY, n_positions=10, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def t5() -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2, vocab_size=VOCABULARY,
        decoder_start_token_id=0, dropout_rate=0.0,  # type: ignore[call-arg]
    )  # fmt: skip
    return T5ForConditionalGeneration(config)


def llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def vit() -> Any:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        image_size=8, patch_size=4, num_channels=1, num_labels=3,  # type: ignore[call-arg]
    )  # fmt: skip
    return ViTForImageClassification(config)


MODELS: dict[str, Callable[[], Any]] = {
    "bert": bert,
    "gpt2": gpt2,
    "t5": t5,
    "llama": llama,
    "vit": vit,
}


@dataclass(frozen=True)
class Written:
    """Directories of a base, an adapter, and the checkpoint that peft's merge_and_unload saved."""

    base: Path
    adapter: Path
    merged: Path


def write_base(folder: Path, model: str, seed: int = 0) -> Path:
    """A randomly initialised base directory; its biases and norms are random as well."""
    torch.manual_seed(seed)
    module = MODELS[model]()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    module.save_pretrained(folder)
    return folder


def write_adapter(folder: Path, base: Path, config: Any, seed: int = 1) -> Written:
    """An adapter trained to nothing in particular on `base`, with peft's own merge beside it."""
    import transformers
    from peft import get_peft_model

    from mats_core.checkpoints.files import Checkpoint

    name = Checkpoint.open(base).config["architectures"][0]
    module = getattr(transformers, name).from_pretrained(base)
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = get_peft_model(module, config)
        with torch.no_grad():
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.2 * torch.randn_like(parameter))
        adapted.save_pretrained(folder / "adapter")
        adapted.merge_and_unload().save_pretrained(folder / "merged")
    return Written(base, folder / "adapter", folder / "merged")
