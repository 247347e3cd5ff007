"""Factors of an adapter in a bare file, which are no weights that could be merged one by one."""

from __future__ import annotations

import re

from ..checkpoints import Weights
from ..errors import InputError, listing
from .expert import Expert

KINDS = {
    "LoRA": re.compile(
        r"(^|[._])lora_(A|B|down|up|mid|embedding_A|embedding_B|magnitude_vector)([._]|$)"
        r"|(^|[._])lora\.(down|up)\.|^lora_(unet|te\d?|transformer|prior)_"
    ),
    "LoHa": re.compile(r"(^|\.)hada_w[12]_[ab]($|\.)|(^|\.)hada_t[12]($|\.)"),
    "LoKr": re.compile(r"(^|\.)lokr_(w[12](_[ab])?|t2)($|\.)"),
    "(IA)³": re.compile(r"(^|\.)ia3_l($|\.)"),
    "OFT": re.compile(r"(^|\.)b?oft_(R|S|s|blocks|diag)($|\.)"),
    "VeRA": re.compile(r"(^|\.)vera_lambda_[bd]($|\.)"),
    "prompt tuning": re.compile(r"^prompt_embeddings$"),
}


def refuse_factors(weights: Weights, expert: Expert | None) -> None:
    """Raise `InputError` for tensors that are an adapter's factors, by the adapter's kind.

    expert   whose they are; None: the base's

    The average of factors is not the average of their products.
    """
    for kind, pattern in KINDS.items():
        found = [name for name in weights.tensors if pattern.search(name)]
        if found:
            alone = len(found) > len(weights.tensors) / 3
            whose = "the base" if expert is None else f"expert '{expert.name}'"
            raise InputError(
                f"{whose} ('{weights.path}')",
                expected="the weights of a model",
                found=f"the factors of a {kind} adapter{'' if alone else ' inside of a model'}: "
                f"{listing(found, 2)}",
                remedy="Name the adapter's folder, with its adapter_config.json as peft saves it, "
                "as an expert over its base; or merge it into its base first (peft's "
                "merge_and_unload, or the tool that trained it) and save the whole model.",
            )
