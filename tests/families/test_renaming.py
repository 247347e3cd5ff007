"""Names of another version of an architecture: several prefixes, and transformers' tables."""

from __future__ import annotations

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from mats_core.errors import InputError
from mats_core.families.renaming import by_prefixes, by_table
from mats_core.merging.pipeline import merge
from tests.architectures import perturb, recipe

OLD = {
    "model.embed.weight": (9, 4), "model.layers.0.q.weight": (4, 4),
    "model.layers.1.q.weight": (4, 4), "visual.blocks.0.qkv.weight": (12, 4),
    "visual.merger.weight": (4, 4), "lm_head.weight": (9, 4),
}  # fmt: skip
PREFIXES = [
    {"model.": "model.language_model.", "visual.": "model.visual."},
    {"model.": "language_model.model.", "lm_head": "language_model.lm_head"},
    {"model.": "llm.", "visual.": "vit.", "lm_head": "out.lm_head"},
    {"model.": "", "visual.": "tower."},
]


def renamed(name: str, prefixes: dict[str, str]) -> str:
    for old, new in prefixes.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


@pytest.mark.parametrize("prefixes", PREFIXES)
def test_several_prefixes_are_found_together(prefixes):
    own = {renamed(name, prefixes): shape for name, shape in OLD.items()}
    found = by_prefixes(OLD, own, "expert 'x'")
    assert found == {renamed(name, prefixes): name for name in OLD}
    back = by_prefixes(own, OLD, "expert 'x'")
    assert back == {name: renamed(name, prefixes) for name in OLD}


def test_prefixes_that_fit_equally_are_refused():
    base = {"a.h.0.q.weight": (2, 2), "b.h.0.q.weight": (2, 2)}
    with pytest.raises(InputError, match=r"'a\.' and 'b\.'"):
        by_prefixes(base, {"x.h.0.q.weight": (2, 2)}, "expert 'x'")
    base["b.h.0.q.weight"] = (3, 3)
    assert by_prefixes(base, {"x.h.0.q.weight": (2, 2)}, "") == {"x.h.0.q.weight": "a.h.0.q.weight"}


def test_a_table_is_taken_only_where_names_stay_apart_and_shapes_fit():
    base, own = {"old.q": (2, 2), "r": (3,)}, {"new.q": (2, 2), "s": (3,)}

    def today(name: str) -> str:
        return name.replace("old.", "new.")

    assert by_table(base, own, today, today) == {"new.q": "old.q"}
    assert by_table({**base, "new.q": (2, 2)}, own, today, today) == {}
    assert by_table({**base, "old.q": (2, 3)}, own, today, today) == {}


def test_a_vit_under_todays_names_is_merged_over_one_of_the_hub(tmp_path):
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        image_size=8, patch_size=4,
    )  # fmt: skip
    model = transformers.ViTModel(config)
    model.save_pretrained(tmp_path / "base")
    own = []
    for m in range(2):
        perturb(model, 0.002)
        model.save_pretrained(tmp_path / f"e{m}")
        own.append(load_file(tmp_path / f"e{m}" / "model.safetensors"))
        state = {name: value.clone() for name, value in model.state_dict().items()}
        save_file(state, tmp_path / f"e{m}" / "model.safetensors")
    assert set(state) - set(own[0])  # today's names are others
    merge(recipe(tmp_path, "average", str(tmp_path / "out")))
    merged = load_file(tmp_path / "out" / "model.safetensors")
    assert merged.keys() == own[0].keys()
    for name, value in merged.items():
        torch.testing.assert_close(value, (own[0][name] + own[1][name]) / 2)
