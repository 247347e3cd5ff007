"""Sequential calibration through the one way: recipe, events, files, cancelling and going on."""

from __future__ import annotations

import filecmp
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mats_core.checkpoints import Checkpoint
from mats_core.errors import InputError
from mats_core.estimating import estimate
from mats_core.merging import journal
from mats_core.merging.pipeline import run
from mats_core.models import build, pixel_values, tensors_of
from mats_core.recipes.events import Finished, LayerDone
from mats_core.recipes.plan import open_inputs
from mats_core.recipes.recipe import parse_recipe
from mats_core.tasks.loading import load
from tests import text_cases
from tests.conftest import family_recipe

FEW = {"examples": 24}


def recipe_of(folder: Path, **settings):
    options = {**FEW, **settings.pop("options", {})}
    content = family_recipe(folder, "sequential", options=options, evaluate=False)
    return parse_recipe({**content, **settings}, folder)


def finished(recipe, **settings) -> Finished:
    return next(event for event in run(recipe, **settings) if isinstance(event, Finished))


@pytest.fixture(scope="module")
def plain(tiny_family) -> Finished:
    return finished(recipe_of(tiny_family))


def test_every_matrix_of_a_block_is_calibrated_and_its_bias_with_it(plain):
    by = {layer.name: layer for layer in plain.report.layers}
    matrices = {name for name, layer in by.items() if layer.method == "sequential"}
    assert len([name for name in matrices if name.endswith("weight")]) == 12
    corrected = {name for name in matrices if "residual stream corrected" in by[name].status}
    assert corrected == {
        f"vit.encoder.layer.{block}.{layer}.dense.weight"
        for block in (0, 1)
        for layer in ("attention.output", "output")
    }
    assert by["vit.layernorm.weight"].treatment == "averaged"


def test_layers_come_in_the_order_of_the_model_and_all_of_them(tiny_family, plain):
    events = list(run(recipe_of(tiny_family)))
    names = [e.layer.name for e in events if isinstance(e, LayerDone)]
    solved = [n for n in names if "encoder.layer" in n and "dense.weight" in n]
    assert [n.split("layer.")[1][0] for n in solved] == ["0"] * 3 + ["1"] * 3
    assert len(names) == len(set(names))
    assert sorted(names) == sorted({r.name for r in plain.report.layers} & set(names))
    said = [event.text for event in events]
    assert any("Block 1 of 2: matching" in text for text in said)
    fractions = [event.fraction for event in events]
    assert fractions == sorted(fractions)
    last = next(e for e in events if isinstance(e, Finished))
    assert all(torch.equal(value, plain.tensors[n]) for n, value in last.tensors.items())


def apart(folder: Path, tensors: Mapping[str, Tensor]) -> float:
    """Mean squared distance of a merge's last hidden states from the experts', on their inputs."""
    total = 0.0
    for m in range(3):
        images = load(folder / f"t{m}.npz").train.inputs
        pixels = pixel_values(images, folder / f"e{m}")
        own = tensors_of(Checkpoint.open(folder / f"e{m}"))
        heads = {name for name in own if name.startswith("classifier")}
        hidden = []
        for each in (own, {n: v if n in heads else tensors[n] for n, v in own.items()}):
            model = build(folder / f"e{m}", each)
            with torch.inference_mode():
                seen = model(pixel_values=pixels, output_hidden_states=True).hidden_states[-1]
            hidden.append(seen)
        total += float((hidden[0] - hidden[1]).square().mean() / hidden[0].square().mean())
    return total / 3


def test_it_is_nearer_to_the_experts_than_what_it_started_from(tiny_family):
    average = parse_recipe(family_recipe(tiny_family, "average", evaluate=False), tiny_family)
    fitted = {"curvature": "identity", "examples": 120}
    recipes = (
        recipe_of(tiny_family, options=fitted),
        recipe_of(tiny_family, options={**fitted, "residual": False}),
        average,
    )
    near, without, far = (apart(tiny_family, finished(one).tensors) for one in recipes)
    assert near < without < far


def test_one_expert_comes_back(tiny_family):
    content = family_recipe(tiny_family, "sequential", options=FEW, evaluate=False)
    content["experts"] = content["experts"][:1]  # type: ignore[index]
    found = finished(parse_recipe(content, tiny_family)).tensors
    own = load_file(tiny_family / "e0" / "model.safetensors")
    for name, value in found.items():
        if not name.startswith("classifier"):
            torch.testing.assert_close(value, own[name], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("curvature", ["answers", "measured", "identity"])
def test_every_curvature_merges(tiny_family, plain, curvature):
    found = finished(recipe_of(tiny_family, options={"curvature": curvature}))
    assert found.report.coverage == plain.report.coverage
    assert any(not torch.equal(v, plain.tensors[n]) for n, v in found.tensors.items())


def test_it_starts_from_a_checkpoint(tiny_family, plain):
    found = finished(recipe_of(tiny_family, options={"start": str(tiny_family / "e1")}))
    by = {layer.name: layer for layer in found.report.layers}
    assert by["vit.layernorm.weight"].method == "start"
    assert by["vit.encoder.layer.0.output.dense.weight"].method == "sequential"


@pytest.mark.parametrize("after", [3, 16, 22])
def test_one_that_was_stopped_goes_on_to_the_same_bytes(tiny_family, tmp_path, monkeypatch, after):
    monkeypatch.setattr(journal, "INTERVAL", 0.0)
    whole, target = tmp_path / "whole", tmp_path / "out"
    list(run(recipe_of(tiny_family, output=str(whole))))
    events, seen = run(recipe_of(tiny_family, output=str(target)), resume=True), 0
    for event in events:
        seen += isinstance(event, LayerDone)
        if seen == after:
            break
    events.close()
    assert not target.exists()
    list(run(recipe_of(tiny_family, output=str(target)), resume=True))
    assert filecmp.cmp(target / "model.safetensors", whole / "model.safetensors", shallow=False)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: [e.pop("task") for e in c["experts"]], "a task and a model's directory"),
        (lambda c: c.update(engine="ray"), "engine 'local'"),
        (lambda c: c.update(options={"curvature": "measured"})
         or [e.pop("statistics") for e in c["experts"]], "statistics for every expert"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_at_the_door(tiny_family, monkeypatch, change, says):
    monkeypatch.setattr("mats_core.system.cluster.require_ray", lambda: None)
    content = family_recipe(tiny_family, "sequential", evaluate=False)
    change(content)
    with pytest.raises(InputError, match=says):
        next(run(parse_recipe(content, tiny_family)))


def test_its_estimate_knows_the_walk(tiny_family):
    def of(method, **options):
        recipe = parse_recipe(
            family_recipe(tiny_family, method, options=options, evaluate=False), tiny_family
        )
        return estimate(open_inputs(recipe), recipe)

    few, many = of("sequential", examples=24), of("sequential", examples=2400)
    assert few.parts["merging"] < many.parts["merging"]
    assert few.memory["measuring"] < many.memory["measuring"]
    assert "measuring" not in of("kfac").memory
    copied, plain = of("sequential", examples=24), of("sequential", examples=24, augment_to=0)
    assert copied.flops > plain.flops
    chosen = [of("sequential", inputs="pile", candidates=count) for count in (100, 10000)]
    assert few.flops < chosen[0].flops < chosen[1].flops
    assert few.memory["measuring"] < chosen[0].memory["measuring"]


# Texts: padding, causal models with a cache, weights that are stored as (d_in, d_out) -------------


@pytest.mark.parametrize(("kind", "matrices"), [("bert", 12), ("gpt2", 8), ("llama", 14)])
def test_texts_are_calibrated_and_one_expert_comes_back(tmp_path, kind, matrices):
    folder = text_cases.text_models(tmp_path, kind)
    experts = [{"name": f"m{m}", "model": f"m{m}", "task": f"t{m}.yaml"} for m in range(2)]
    content = {"base": "base", "method": "sequential", "options": FEW, "evaluate": False}
    both = finished(parse_recipe({**content, "experts": experts}, folder))
    made = [layer for layer in both.report.layers if layer.method == "sequential"]
    assert len([layer for layer in made if layer.name.endswith("weight")]) == matrices
    assert sum("corrected" in layer.status for layer in made) == 4
    alone = finished(parse_recipe({**content, "experts": experts[:1]}, folder))
    own = load_file(folder / "m0" / "model.safetensors")
    for name, value in alone.tensors.items():
        if name in own and not name.startswith("classifier"):
            torch.testing.assert_close(value, own[name], rtol=5e-3, atol=5e-3)
