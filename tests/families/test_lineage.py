"""Whether an expert comes from its base: what is said, refused, and allowed."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from mats_core import InputError, inspect, merge, merge_models, parse_recipe
from mats_core.cli import main
from mats_core.families import lineage
from mats_core.recipes import FamilyFile

Model = dict[str, Tensor]


def model(seed: int, layers: int = 3) -> Model:
    generator = torch.Generator().manual_seed(seed)
    found = {"embed.weight": torch.randn(40, 32, generator=generator)}
    for layer in range(layers):
        found[f"h.{layer}.fc.weight"] = torch.randn(32, 32, generator=generator)
        found[f"h.{layer}.norm.weight"] = torch.ones(32)
    return found


def moved(base: Model, cosine: float, seed: int = 9) -> Model:
    """Each matrix turned away from the base's until their cosine is so large."""
    generator = torch.Generator().manual_seed(seed)

    def turned(value: Tensor) -> Tensor:
        other = torch.randn(value.shape, generator=generator)
        other -= value * (other * value).sum() / value.square().sum()
        other *= value.norm() / other.norm()
        return cosine * value + (1 - cosine**2) ** 0.5 * other

    return {name: turned(v) if "fc" in name else v.clone() for name, v in base.items()}


BASE = model(0)


@pytest.mark.parametrize(
    ("cosine", "words"),
    [
        (0.95, ""),
        (0.5, "was trained far from the base (cosine 0.500"),
        (0.1, "has little in common with the base (cosine 0.100"),
    ],
)
def test_what_the_cosine_says(cosine, words):
    (note,) = merge_models(BASE, [moved(BASE, cosine)]).report.warnings or ("",)
    assert words in note
    assert bool(words) == bool(note)


@pytest.mark.parametrize("stranger", [model(1), moved(BASE, 0.03), moved(BASE, -0.9)])
def test_strangers_are_refused_unless_they_are_allowed(stranger):
    with pytest.raises(InputError, match=r"have nothing in common: .*cosine -?0\.\d+.*--strangers"):
        merge_models(BASE, {"near": moved(BASE, 0.99), "far": stranger})
    found = merge_models(BASE, {"near": moved(BASE, 0.99), "far": stranger}, strangers=True)
    (note,) = found.report.warnings
    assert note.startswith("expert 'far' and the base have nothing in common")


def test_an_expert_that_equals_its_base_is_told():
    (note,) = merge_models(BASE, {"a": moved(BASE, 0.99), "b": dict(BASE)}).report.warnings
    assert note.startswith("expert 'b' equals the base in all tensors that they share")


def test_one_model_twice_is_told():
    one = moved(BASE, 0.99)
    experts = {"a": one, "b": moved(BASE, 0.99, seed=8), "c": dict(one)}
    (note,) = merge_models(BASE, experts).report.warnings
    assert note == "experts 'a' and 'c' are one model, tensor by tensor: it counts twice"


@pytest.mark.parametrize(
    "base",
    [
        {"fc.weight": torch.randn(20, 20)},  # chance alone would give such cosines
        {"embed.weight": torch.randn(90, 90), "norm.weight": torch.ones(90)},
        {"h.0.position.weight": torch.randn(90, 90)},
        {"h.0.fc.weight": torch.zeros(90, 90), "h.1.fc.weight": torch.zeros(90, 90)},
    ],
)
def test_where_nothing_can_be_told_nothing_is_said(base):
    other = {name: torch.randn(v.shape) for name, v in base.items()}
    assert not merge_models(base, [other]).report.warnings


def test_at_most_so_many_matrices_are_read_and_parts_of_them(monkeypatch):
    base = model(0, layers=40)
    family = merge_models(base, [moved(base, 0.99)]).inputs.family
    chosen = lineage.sample(family)
    assert len(chosen) == lineage.MATRICES
    assert chosen[0] == "h.0.fc.weight"
    monkeypatch.setattr(lineage, "ELEMENTS", 256)
    assert lineage.part(family.base, chosen[0]).shape == (256,)
    assert lineage.lineage(family) == []


def test_recipes_families_and_the_command_line_allow_strangers(tmp_path, capsys):
    save_file(BASE, tmp_path / "base.safetensors")
    save_file(model(1), tmp_path / "e.safetensors")
    content = {
        "base": "base.safetensors",
        "experts": [{"name": "e", "model": "e.safetensors"}],
        "method": "average", "device": "cpu",
    }  # fmt: skip
    with pytest.raises(InputError, match="nothing in common"):
        merge(parse_recipe({**content, "output": "out"}, tmp_path))
    assert not (tmp_path / "out").exists()
    allowed = {**content, "strangers": "allow"}
    assert merge(parse_recipe(allowed, tmp_path)).report.warnings
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(allowed))
    assert "nothing in common" in inspect(file)["notes"][0]
    family = {"name": "x", "base": "b", "experts": content["experts"], "strangers": "allow"}
    assert FamilyFile.model_validate(family).recipe("average").strangers == "allow"
    file.write_text(yaml.safe_dump({**content, "output": "out"}))
    assert main(["merge", str(file)]) == 2
    assert "nothing in common" in " ".join(capsys.readouterr().err.split())
    assert main(["merge", str(file), "--strangers"]) == 0
    assert "note: expert 'e' and the base have nothing in common" in capsys.readouterr().out
    assert json.loads((tmp_path / "out/report.json").read_text())["warnings"]
