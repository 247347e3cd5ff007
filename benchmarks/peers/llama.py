"""A base and three experts that look like small Llamas, drawn and written tensor by tensor.

Nothing is trained: what is compared is arithmetic, and it does not care what a number means.  How
far the experts are from the base differs by kind of tensor, so that SLERP meets pairs on both sides
of its threshold: about 0.03 of the base's spread (cosine 0.999, linear) to 0.4 (cosine 0.9, arc).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch

from mats_core.checkpoints import CheckpointWriter, Spec

EXPERTS = ("first", "second", "third")
SPREAD = 0.02  # standard deviation of a drawn weight, as Llama is initialised
MOVED = {"embed_tokens": 0.02, "lm_head": 0.02, "norm": 0.02, "mlp": 0.1, "self_attn": 0.4}


@dataclass(frozen=True)
class Size:
    """The sizes of a Llama-like decoder; 46 million parameters as given."""

    hidden: int = 512
    intermediate: int = 1536
    layers: int = 8
    vocabulary: int = 16_000
    heads: int = 8

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's name and shape, as `LlamaForCausalLM` stores them."""
        h, i = self.hidden, self.intermediate
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocabulary, h)}
        for layer in range(self.layers):
            at = f"model.layers.{layer}"
            shapes |= {f"{at}.self_attn.{n}_proj.weight": (h, h) for n in "qkvo"}
            shapes |= {f"{at}.mlp.{n}_proj.weight": (i, h) for n in ("gate", "up")}
            shapes[f"{at}.mlp.down_proj.weight"] = (h, i)
            shapes[f"{at}.input_layernorm.weight"] = (h,)
            shapes[f"{at}.post_attention_layernorm.weight"] = (h,)
        return {**shapes, "model.norm.weight": (h,), "lm_head.weight": (self.vocabulary, h)}

    def config(self, dtype: str) -> dict[str, object]:
        return {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": dtype,
            "hidden_size": self.hidden, "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads, "vocab_size": self.vocabulary,
            "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
        }  # fmt: skip


def write_family(folder: Path, size: Size, dtype: torch.dtype, *, shards: int = 4) -> None:
    """`base` and the experts in `folder`, each in about `shards` shards."""
    for member in ("base", *EXPERTS):
        _write(folder / member, member, size, dtype, shards)


def _write(folder: Path, member: str, size: Size, dtype: torch.dtype, shards: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    specs: dict[str, Spec] = {name: (dtype, shape) for name, shape in size.shapes().items()}
    total = sum(torch.Size(shape).numel() for _, shape in specs.values()) * dtype.itemsize
    writer = CheckpointWriter(folder, specs, shard_bytes=total // shards + 1)
    for name, (_, shape) in specs.items():
        value = _drawn("base", name, shape)
        if member != "base":
            value += _moved(name) * _spread(name) * _noise(member, name, shape)
        writer.add(name, value)
    writer.close()
    config = size.config(str(dtype).removeprefix("torch."))
    (folder / "config.json").write_text(json.dumps(config, indent=2), "utf-8")


def _drawn(member: str, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    return _noise(member, name, shape) * _spread(name) + (1.0 if "norm" in name else 0.0)


def _spread(name: str) -> float:
    return 0.1 if "norm" in name else SPREAD


def _moved(name: str) -> float:
    return next(share for kind, share in MOVED.items() if kind in name)


def _noise(member: str, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal numbers that depend on nothing but the member's and the tensor's name."""
    key = hashlib.sha256(f"{member}\0{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key[:7], "big"))
    return torch.randn(shape, generator=generator)
