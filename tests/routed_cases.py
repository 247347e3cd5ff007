"""Routed merges of language models, whichever way an input chooses its expert."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mats_core as mats
from mats_core import tasks
from mats_core.evaluation import evaluate
from mats_core.merging import Merge
from mats_core.recipes import parse_recipe


def of_texts(folder: Path, routed: Mapping[str, Any]) -> Merge:
    """The average of the two models of `text_cases.text_models` with branches beside it."""
    experts = [{"name": f"m{m}", "model": f"m{m}", "task": f"t{m}.yaml"} for m in range(2)]
    content = {"base": "base", "method": "average", "evaluate": False, "experts": experts}
    return mats.merge(parse_recipe({**content, "routed": routed}, folder), progress=False)


def answers_each_by_itself(merge: Merge, folder: Path) -> None:
    """Assert that neither order, nor batch, nor padding changes an answer, and that branches do."""
    one = merge.inputs.family.experts[0]
    split, state = tasks.load("t0.yaml", root=folder).test, merge.routed_state("m0")

    def asked(places: np.ndarray) -> torch.Tensor:
        return evaluate.asked(one.checkpoint.directory, state, split.take(places))

    whole, order = asked(np.arange(8)), np.random.default_rng(0).permutation(8)
    torch.testing.assert_close(asked(order), whole[torch.from_numpy(order)], rtol=1e-4, atol=1e-5)
    alone = torch.cat([asked(np.array([n])) for n in range(8)])
    torch.testing.assert_close(alone, whole, rtol=1e-4, atol=1e-5)
    static = evaluate.asked(one.checkpoint.directory, merge.state_dict("m0"), split.first(8))
    assert not torch.allclose(static, whole, rtol=1e-4, atol=1e-5)
