"""Predicted against measured cost: dense oracles, and transformers' own loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.stats import rankdata

from mats_core.analysis.predicted_loss import (
    Interference,
    cross_entropy,
    interference,
    layer_costs,
    measured_layers,
    predicting,
    tokens_an_example,
)
from mats_core.checkpoints.files import Checkpoint
from mats_core.errors import InputError
from mats_core.families.examine import examine
from mats_core.families.expert import Expert
from mats_core.merging.pipeline import run
from mats_core.models.modules import tensors_of
from mats_core.recipes.events import Finished
from mats_core.recipes.plan import Inputs, open_inputs
from mats_core.recipes.recipe import Recipe, parse_recipe
from mats_core.statistics.store import Statistics
from mats_core.system.stream import Event, drain
from mats_core.tasks.loading import load
from tests.conftest import family_recipe


@pytest.fixture
def recipe(tiny_family: Path) -> Recipe:
    return parse_recipe(family_recipe(tiny_family, "average"), tiny_family)


def test_a_layers_cost_is_the_dense_quadratic_form_with_its_bias(recipe: Recipe):
    inputs = open_inputs(recipe)
    name = measured_layers(inputs)[1]
    module = name.removesuffix(".weight")
    generator = torch.Generator().manual_seed(1)
    base = inputs.family.base
    merged = {
        n: base.read(n) + torch.randn(base.tensors[n].shape, generator=generator)
        for n in (name, f"{module}.bias")
    }
    found = layer_costs(inputs, merged, name)
    for cost, expert, own in zip(found, inputs.family.experts, inputs.statistics, strict=True):
        assert own is not None
        d_out, d_in = base.tensors[name].shape
        read = lambda kind, shape, own=own: own.read(f"{module}.{kind}", shape)  # noqa: E731
        a, mean = read("input_gram", (d_in, d_in)), read("input_mean", (d_in,))
        b = read("output_gradient_gram", (d_out, d_out))
        assert a is not None and mean is not None and b is not None  # noqa: PT018
        whole = torch.ones(d_in + 1, d_in + 1, dtype=torch.float64)
        whole[:d_in, :d_in], whole[:d_in, d_in], whole[d_in, :d_in] = a, mean, mean
        delta = torch.cat(
            [
                merged[name] - expert.checkpoint.read(name),
                (merged[f"{module}.bias"] - expert.checkpoint.read(f"{module}.bias"))[:, None],
            ],
            1,
        ).double().reshape(-1)  # fmt: skip
        dense = torch.kron(b.double(), whole)
        tokens = 10  # nine patches of 4×4 in 12×12 pixels, and the class token
        assert tokens_an_example(own) == tokens
        assert cost == pytest.approx(0.5 * tokens * float(delta @ dense @ delta), rel=1e-5)


def test_one_example_of_one_token_is_the_squared_directional_derivative(tmp_path: Path):
    """½ (∇·δ)²: what the empirical Fisher of one example is, exactly."""
    torch.manual_seed(0)
    x, g = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.3, -0.7])
    statistics = Statistics.of(
        {
            "fc.input_gram": torch.outer(x, x),
            "fc.input_mean": x,
            "fc.output_gradient_gram": torch.outer(g, g),
        },
        {"examples": "1", "tokens": "1"},
    )

    own = {"fc.weight": torch.randn(2, 3), "fc.bias": torch.randn(2)}
    save_file({n: torch.randn(v.shape) for n, v in own.items()}, tmp_path / "base.safetensors")
    save_file(own, tmp_path / "own.safetensors")
    base, expert = (Checkpoint.open(tmp_path / f"{n}.safetensors") for n in ("base", "own"))
    inputs = Inputs(examine(base, [Expert("own", expert)]), (statistics,), None)
    merged = {"fc.weight": torch.randn(2, 3), "fc.bias": torch.randn(2)}
    (found,) = layer_costs(inputs, merged, "fc.weight")
    shift = (merged["fc.weight"] - own["fc.weight"]) @ x + merged["fc.bias"] - own["fc.bias"]
    assert found == pytest.approx(0.5 * float(g @ shift) ** 2, rel=1e-5)


def test_cross_entropy_is_that_of_transformers(tiny_family: Path, recipe: Recipe):
    from transformers import ViTForImageClassification

    inputs = open_inputs(recipe)
    expert = inputs.family.experts[1]
    split = load(tiny_family / "t1.npz").test.first(30)
    model = ViTForImageClassification.from_pretrained(tiny_family / "e1").eval()
    pixels = torch.from_numpy(split.inputs).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        loss = model(pixel_values=pixels, labels=torch.from_numpy(split.labels)).loss
    found = cross_entropy(tensors_of(expert.checkpoint), inputs.family, expert, split)
    assert found.shape == (30,)
    assert found.mean() == pytest.approx(float(loss), rel=1e-4)


def test_a_merge_of_one_expert_costs_it_nothing(tiny_family: Path):
    alone = family_recipe(tiny_family, "average")
    alone["experts"] = alone["experts"][:1]  # type: ignore[index]
    found = interference(parse_recipe(alone, tiny_family), examples=20)
    assert found.totals == pytest.approx([0.0], abs=1e-12)
    assert found.measured == pytest.approx([0.0], abs=1e-6)
    assert found.rank_correlation is None


def test_interference_of_a_merge(recipe: Recipe):
    inputs, said = open_inputs(recipe), list[Event]()
    events = predicting(recipe, inputs=inputs, split="validation", examples=20)
    found = drain(events, said.append)
    assert found.tasks == ("e0", "e1", "e2")
    assert found.predicted.shape == (len(found.layers), 3)
    assert (found.predicted > 0).all()
    assert found.totals == pytest.approx(found.predicted.sum(0))
    fractions = [event.fraction for event in said]
    assert said[0].text.startswith("Once more: ")
    assert said[-1].text == "Measuring the loss on e2"
    assert fractions == sorted(fractions)
    tensors = next(
        event.tensors
        for event in run(recipe.model_copy(update={"evaluate": False}), inputs=inputs)
        if isinstance(event, Finished)
    )
    expert = inputs.family.experts[2]
    split = load(recipe.folder / "t2.npz").validation.first(20)
    own = Checkpoint.open(recipe.folder / "e2")
    increase = cross_entropy(tensors, inputs.family, expert, split) - cross_entropy(
        tensors_of(own), inputs.family, expert, split
    )
    assert found.measured[2] == pytest.approx(increase.mean())
    assert found.errors[2] == pytest.approx(np.sqrt(increase.var(ddof=1) / 20))
    x, y = rankdata(found.totals), rankdata(found.measured)
    assert found.rank_correlation == pytest.approx(np.corrcoef(x, y)[0, 1])


def test_an_expert_without_statistics_is_unknown_and_not_free(tiny_family: Path):
    content = family_recipe(tiny_family, "average")
    del content["experts"][1]["statistics"]  # type: ignore[index]
    found = interference(parse_recipe(content, tiny_family), examples=10)
    assert np.isnan(found.predicted[:, 1]).all()
    assert np.isnan(found.totals[1])
    assert np.isfinite(found.totals[[0, 2]]).all()
    assert found.rank_correlation is None  # two points have no rank order worth a number


def test_no_statistics_at_all_is_an_error(tiny_family: Path):
    content = family_recipe(tiny_family, "average")
    for expert in content["experts"]:  # type: ignore[attr-defined]
        del expert["statistics"]
    with pytest.raises(InputError, match="Measure the experts"):
        interference(parse_recipe(content, tiny_family))


def test_what_is_raised_at_an_event_ends_the_work(recipe: Recipe):
    class Enough(Exception):
        pass

    def step(event: Event) -> None:
        if event.text.startswith("Predicting"):
            raise Enough

    with pytest.raises(Enough):
        drain(predicting(recipe), step)


def test_rank_correlation_passes_over_what_is_unknown():
    predicted = np.array([[1.0, 2.0, 3.0, np.nan]])
    measured = np.array([0.1, 0.3, 0.2, 9.0])
    found = Interference(("l",), tuple("abcd"), predicted, measured, measured, "test", None)
    assert found.rank_correlation == pytest.approx(0.5)
    flat = Interference(("l",), tuple("abcd"), predicted, np.ones(4), measured, "test", None)
    assert flat.rank_correlation is None
