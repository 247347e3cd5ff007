"""How the model that a configuration describes wants to be called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .architecture import padding_token
from .sizes import Fitted, Shapes, fitted

Reads = Literal["image", "text", "causal", "seq2seq", ""]
KINDS: dict[str, Reads] = {  # by what the class's name holds
    "ImageClassification": "image",
    "SequenceClassification": "text",
    "CausalLM": "causal",
    "LMHeadModel": "causal",
    "ForConditionalGeneration": "seq2seq",  # or causal, as its configuration says
}
TAKES = {  # by the first argument of the model
    "input_ids": "text",
    "pixel_values": "image",
    "input_features": "audio",
    "input_values": "audio",
}
# Position ids of these begin after that of the padding.
OFFSET_POSITIONS = ("roberta", "camembert", "mpnet", "longformer", "data2vec-text")


@dataclass(frozen=True)
class Facts:
    """How a model wants to be called.

    name       of its class
    reads      what it is: a classifier of images or texts, or a language model; empty if unknown
    takes      what it is given: text, image or audio, else the name of its first argument
    vocabulary tokens of its embedding, None where the configuration does not say
    pad        the token that fills texts up
    start      the token that a decoder's answer begins with, where the configuration says
    positions  tokens that it can take, None without a limit
    segments   whether it tells the two texts of a pair apart by `token_type_ids`
    """

    name: str
    reads: Reads
    takes: str
    vocabulary: int | None
    pad: int
    start: int | None
    positions: int | None
    segments: bool


def reads_of(name: str) -> Reads:
    """What the model whose class has this name is, as `Facts.reads` says it."""
    kinds: list[Reads] = [kind for part, kind in KINDS.items() if part in name]
    return kinds[0] if kinds else ""


def facts_of(directory: Path | None, shapes: Shapes | None = None) -> Facts:
    """How the model in a directory is called, by its configuration; `InputError` as in `build`.

    `shapes` of its tensors by name: where they and the configuration differ, they decide.
    """
    return facts(fitted(directory, shapes))


def facts(known: Fitted) -> Facts:
    """The same of a configuration that is read already."""
    config, model_class = known.config, known.model_class
    name = model_class.__name__
    reads = reads_of(name)
    if reads == "seq2seq" and not getattr(config, "is_encoder_decoder", False):
        reads = "causal"
    first = getattr(model_class, "main_input_name", "input_ids")
    positions = known.size("max_position_embeddings")
    if positions and any(kind in config.model_type for kind in OFFSET_POSITIONS):
        positions -= padding_token(config) + 1
    return Facts(
        name=name,
        reads=reads,
        takes=TAKES.get(first, first),
        vocabulary=known.size("vocab_size"),
        pad=padding_token(config),
        start=getattr(config, "decoder_start_token_id", None),
        positions=positions if (positions or 0) > 0 else None,  # XLNet's is -1
        segments=(getattr(config, "type_vocab_size", 0) or 0) > 1,
    )
