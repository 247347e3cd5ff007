"""Models that differ in the names of their classes alone are built once."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
import torch

from mats_core.checkpoints.files import Checkpoint
from mats_core.models import modules
from mats_core.models.architecture import built_from
from mats_core.models.modules import build, forward, tensors_of


@pytest.fixture
def twins(tiny_family, tmp_path):
    """An expert, and a copy of it whose classes bear other names."""
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        shutil.copytree(tiny_family / "e0", folder)
    config = json.loads((second / "config.json").read_text())
    config["id2label"] = {key: f"other {key}" for key in config["id2label"]}
    config["label2id"] = {name: int(key) for key, name in config["id2label"].items()}
    (second / "config.json").write_text(json.dumps(config))
    return first, second


def test_they_share_one_module_and_answer_as_their_own(twins, monkeypatch):
    built = []
    shell = modules._Shell
    monkeypatch.setattr(modules, "_Shell", lambda *said: built.append(said) or shell(*said))
    generator = torch.Generator().manual_seed(0)
    for folder in twins:
        tensors = tensors_of(Checkpoint.open(folder))
        tensors = {n: v + torch.randn(v.shape, generator=generator) for n, v in tensors.items()}
        module = build(folder, tensors)
        settings: Any = module.config
        shape = (settings.num_channels, settings.image_size, settings.image_size)
        pixels = torch.randn(2, *shape, generator=generator)
        said = forward(folder, tensors)(tensors, {"pixel_values": pixels})
        torch.testing.assert_close(said, module(pixel_values=pixels).logits)
    assert len(built) <= 1  # none where an earlier test had such a model built


@pytest.mark.parametrize(
    ("changed", "alike"),
    [
        ({"id2label": {"0": "x", "1": "y"}, "label2id": {"x": 0, "y": 1}}, True),
        ({"id2label": {"0": "x"}, "label2id": {"x": 0}}, False),  # another head
        ({"id2label": {"0": "x", "1": "y"}, "label2id": {"x": 0}}, False),  # which one counts?
        ({"hidden_size": 9}, False),
    ],
)
def test_of_the_names_of_classes_only_their_number_counts(changed, alike):
    config = {"hidden_size": 8, "id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}}
    other = config | changed
    assert (built_from(config) == built_from(other)) is alike
    assert (built_from(json.dumps(config)) == built_from(json.dumps(other, indent=2))) is alike


@pytest.mark.parametrize("text", ["", "{", "[1]", '"a"', "null"])
def test_what_is_no_configuration_is_its_text(text):
    assert built_from(text) == built_from(text)
    assert built_from(text) != built_from("{}")
