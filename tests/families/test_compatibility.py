"""The table of how each expert fits its base, from headers and configurations."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from mats_core.checkpoints.files import Checkpoint
from mats_core.families.compatibility import compare
from mats_core.families.expert import Expert
from tests.layer_cases import write_raw


def opened(folder: Path, name: str, tensors: dict, config: dict | None = None) -> Checkpoint:
    place = folder / name
    write_raw(place, "model.safetensors", tensors)
    if config is not None:
        (place / "config.json").write_text(json.dumps(config))
    return Checkpoint.open(place)


def model(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    own = {"enc.0.fc.weight": torch.ones(4, 3), "enc.0.fc.bias": torch.ones(4)}
    return {**own, "ids": torch.arange(5), **changes}


def rows(folder: Path, *experts: Checkpoint):
    base = opened(folder, "base", model(), {"hidden_size": 4, "vocab_size": 9})
    named = [Expert(f"e{m}", checkpoint) for m, checkpoint in enumerate(experts)]
    return compare(base, named)


def test_every_kind_of_mismatch_is_counted_and_described(tmp_path):
    wrong = model(**{"enc.0.fc.weight": torch.ones(4, 2).half(), "extra": torch.arange(2.0)})
    wrong["ids"] = torch.ones(5)
    del wrong["enc.0.fc.bias"]
    good, bad = rows(tmp_path, opened(tmp_path, "e0", model()), opened(tmp_path, "e1", wrong))
    assert good.fits
    assert (good.matching, good.missing, good.surplus, good.reshaped) == (3, 0, 0, 0)
    assert not bad.fits
    assert (bad.matching, bad.missing, bad.surplus, bad.reshaped) == (0, 1, 1, 2)
    told = {m.tensor: (m.theirs, m.ours) for m in bad.mismatches}
    assert told == {
        "enc.0.fc.weight": ("[4, 2] float16", "[4, 3] float32"),
        "enc.0.fc.bias": ("", "[4] float32"),
        "extra": ("[2] float32", ""),
        "ids": ("[5] float32", "[5] int64"),
    }


def test_heads_are_counted_apart_and_classes_named(tmp_path):
    heads = [
        model(**{"classifier.weight": torch.ones(k, 4), "classifier.bias": torch.ones(k)})
        for k in (2, 3)
    ]
    labels = [{"id2label": {str(i): f"c{i}" for i in range(k)}} for k in (2, 3)]
    found = rows(tmp_path, *(opened(tmp_path, f"e{k}", heads[k], labels[k]) for k in range(2)))
    assert [(row.fits, row.head, row.classes) for row in found] == [(True, 2, 2), (True, 2, 3)]


def test_settings_that_differ_are_listed_with_both_values(tmp_path):
    other = {"hidden_size": 4, "vocab_size": 11, "architectures": ["ViT"]}
    same, differs, bare = rows(
        tmp_path,
        opened(tmp_path, "e0", model(), {"hidden_size": 4, "vocab_size": 9}),
        opened(tmp_path, "e1", model(), other),
        opened(tmp_path, "e2", model()),
    )
    assert same.settings == ()
    assert differs.settings == (("vocab_size", "11", "9"),)
    assert differs.architecture == "ViT"
    assert bare.settings == ()  # nothing is known, so nothing differs
    assert bare.architecture == ""
