"""Inputs without data, for a look at how a model works: noise, and tokens drawn at random."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..system import Device
from .images import pixel_values
from .kinds import facts_of
from .sizes import Shapes

EXAMPLES, TOKENS, SIDE = 2, 6, 32


def probe(
    directory: Path | None, shapes: Shapes | None = None, *, device: Device = "cpu"
) -> dict[str, Tensor]:
    """What the model in a directory is called with for two examples of noise, always the same.

    Raises `InputError` for a model that reads neither images nor texts.
    """
    facts, drawn = facts_of(directory, shapes), np.random.default_rng(0)
    if facts.takes == "image":
        images = drawn.integers(0, 256, (EXAMPLES, SIDE, SIDE, 3), dtype=np.uint8)
        return {"pixel_values": pixel_values(images, directory, device=device)}
    if facts.takes != "text" or not facts.vocabulary:
        raise InputError(
            f"model '{directory}'", expected="one that reads images or texts", found=facts.name
        )
    tokens = min(TOKENS, facts.positions or TOKENS)
    ids = torch.from_numpy(drawn.integers(0, facts.vocabulary, (EXAMPLES, tokens))).to(device)
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return given | ({"decoder_input_ids": ids} if facts.reads == "seq2seq" else {})
