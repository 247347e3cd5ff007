"""How the model that a configuration describes wants to be called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..system import recall
from .architecture import architecture, file_text, padding_token

Reads = Literal["image", "text", "causal", "seq2seq", ""]
KINDS: dict[str, Reads] = {  # by what the class's name holds
    "ImageClassification": "image",
    "SequenceClassification": "text",
    "CausalLM": "causal",
    "LMHeadModel": "causal",
    "ForConditionalGeneration": "seq2seq",
}
# Position ids of these begin after that of the padding.
OFFSET_POSITIONS = ("roberta", "camembert", "mpnet", "longformer", "data2vec-text")


@dataclass(frozen=True)
class Facts:
    """How a model wants to be called.

    name       of its class
    reads      what it is: a classifier of images or texts, or a language model; empty if unknown
    pad        the token that fills texts up
    start      the token that a decoder's answer begins with, where the configuration says
    positions  tokens that it can take, None without a limit
    segments   whether it tells the two texts of a pair apart by `token_type_ids`
    """

    name: str
    reads: Reads
    pad: int
    start: int | None
    positions: int | None
    segments: bool


def facts_of(directory: Path | None) -> Facts:
    """How the model in a directory is called, by its configuration; `InputError` as in `build`."""
    key = ("facts", file_text(directory, "config.json"), directory is None)
    return recall(key, lambda: _facts(directory))


def _facts(directory: Path | None) -> Facts:
    config, model_class = architecture(directory)
    name = model_class.__name__
    kinds: list[Reads] = [kind for part, kind in KINDS.items() if part in name]
    positions = getattr(config, "max_position_embeddings", None)
    if positions and any(kind in config.model_type for kind in OFFSET_POSITIONS):
        positions -= padding_token(config) + 1
    return Facts(
        name=name,
        reads=kinds[0] if kinds else "",
        pad=padding_token(config),
        start=getattr(config, "decoder_start_token_id", None),
        positions=positions if (positions or 0) > 0 else None,  # XLNet's is -1
        segments=(getattr(config, "type_vocab_size", 0) or 0) > 1,
    )
