"""The mergekit configuration: its arithmetic, computed anew from its documentation, is ours.

`interpret` follows the published formulas of mergekit 0.1.5 on plain tensors; it shares no code
with `mats_core.methods`.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from mats_core.export import mergekit
from mats_core.export.portable import Finished
from mats_core.merging.pipeline import run
from mats_core.recipes.events import Finished as Ended
from tests.export.conftest import Finish
from tests.method_cases import CASES

WEIGHTS = {"e0": 1.0, "e1": 0.5, "e2": 2.0}
SAME = [
    ("average", {}),
    ("task_arithmetic", {"scaling": 0.7}),
    ("ties", {"scope": "tensor", "density": 0.35, "scaling": 1.4}),
    ("breadcrumbs", {"density": 0.6, "gamma": 0.05, "scaling": 0.8}),
    ("breadcrumbs", {"density": 0.6, "elect": True, "normalise": True}),
]
ALIKE = [  # in mergekit, too, without weights
    ("karcher", {}), ("model_stock", {}), ("model_stock", {"by_row": True}),
    ("sce", {"select": 0.4, "floor": 1e-6}),
]  # fmt: skip


def interpret(config: dict, folder: Path, name: str) -> torch.Tensor:
    """One tensor, as mergekit computes it."""

    def read(model: str) -> torch.Tensor:
        return load_file(folder / model / "model.safetensors")[name].float()

    values = [read(m["model"]) for m in config["models"]]
    settings = config["parameters"]
    if config["merge_method"] == "slerp":
        first, second = values
        return slerp(first, second, settings["t"], config)
    if config["merge_method"] == "karcher":
        return arcs_mean(values, settings["max_iter"], settings["tol"])
    if config["merge_method"] == "model_stock":
        return stock(read(config["base_model"]), values, settings["filter_wise"])
    if config["merge_method"] == "sce":
        return selected(read(config["base_model"]), values, settings["select_topk"])
    weights = [m["parameters"]["weight"] for m in config["models"]]
    if config["merge_method"] == "linear":
        assert settings["normalize"] is True
        return torch.stack([w * v for w, v in zip(weights, values, strict=True)]).sum(0) / sum(
            weights
        )
    base = read(config["base_model"])
    deltas = [v - base for v in values]
    if config["merge_method"] == "task_arithmetic":
        assert settings["normalize"] is False
        return base + torch.stack([w * d for w, d in zip(weights, deltas, strict=True)]).sum(0)
    kept = []
    for model, delta in zip(config["models"], deltas, strict=True):
        flat = delta.flatten().abs()
        most = int(model["parameters"]["density"] * len(flat))
        first = min(int(model["parameters"].get("gamma", 0) * len(flat)), len(flat) - most)
        mask = torch.zeros(len(flat))
        mask[flat.argsort(descending=True)[first : first + most]] = 1
        kept.append(delta * mask.reshape(delta.shape))
    weighted = torch.stack([w * d for w, d in zip(weights, kept, strict=True)])
    majority = torch.where(weighted.sum(0) >= 0, 1.0, -1.0)
    agrees = (weighted.sign() == majority).float()
    if config["merge_method"] == "breadcrumbs":
        agrees = torch.ones_like(agrees)
    else:
        assert config["merge_method"] in ("ties", "breadcrumbs_ties")
    shares = torch.tensor(weights).reshape(-1, *[1] * base.ndim)
    divisor = (shares * agrees).sum(0)
    divisor = torch.where(divisor == 0, 1.0, divisor) if settings["normalize"] else 1.0
    return base + settings["lambda"] * (weighted * agrees).sum(0) / divisor


def arcs_mean(values: list[torch.Tensor], most: int, tolerance: float) -> torch.Tensor:
    lengths = [v.double().norm() for v in values]
    units = [(v.double() / size).flatten() for v, size in zip(values, lengths, strict=True)]
    mean = torch.stack(units).mean(0)
    mean = mean / mean.norm()
    for _ in range(most):
        angles = [torch.acos((mean @ unit).clamp(-1, 1)) for unit in units]
        tangent = torch.stack([
            a / a.sin() * (unit - (mean @ unit) * mean) if a > tolerance else 0 * unit
            for a, unit in zip(angles, units, strict=True)
        ]).mean(0)  # fmt: skip
        way = tangent.norm()
        if way < tolerance:
            break
        mean = way.cos() * mean + way.sin() * tangent / way
    return (torch.stack(lengths).mean() * mean).reshape(values[0].shape).float()


def stock(base: torch.Tensor, values: list[torch.Tensor], by_row: bool) -> torch.Tensor:
    shape = (base.shape[0], -1) if by_row and base.ndim > 1 else (1, -1)
    deltas = [(v - base).double().reshape(shape) for v in values]
    cosines = [
        torch.nn.functional.cosine_similarity(one, other, dim=1)
        for one, other in itertools.combinations(deltas, 2)
    ]
    c, count = torch.stack(cosines).mean(0)[:, None], len(deltas)
    t = count * c / (1 + (count - 1) * c)
    return base + (t * torch.stack(deltas).mean(0)).reshape(base.shape).float()


def selected(base: torch.Tensor, values: list[torch.Tensor], share: float) -> torch.Tensor:
    deltas = torch.stack([v - base for v in values])
    variance = deltas.var(0, unbiased=False).flatten()
    most = variance.topk(int(share * variance.count_nonzero())).indices
    mask = torch.zeros(len(variance))
    mask[most] = 1
    deltas = deltas * mask.reshape(base.shape)
    squares = deltas.square().flatten(1).mean(1)
    if squares.sum() < 1e-6:
        squares = torch.ones_like(squares)
    majority = torch.where(deltas.sum(0) >= 0, 1.0, -1.0)
    counted = (deltas.sign() == majority) * squares.reshape(-1, *[1] * base.ndim)
    mass = counted.sum(0)
    return base + (deltas * counted).sum(0) / torch.where(mass == 0, 1.0, mass)


def same_tensors(made: Finished, config: dict, folder: Path) -> int:
    """Assert that every merged tensor is the configuration's; how many there are."""
    merged = next(e.tensors for e in run(made.recipe) if isinstance(e, Ended))
    compared = 0
    for layer in made.report.layers:
        if layer.treatment not in ("merged", "averaged"):
            continue
        theirs = interpret(config, folder, layer.name)
        torch.testing.assert_close(merged[layer.name].float(), theirs, rtol=1e-5, atol=1e-6)
        compared += 1
    return compared


def slerp(first: torch.Tensor, second: torch.Tensor, t: float, config: dict) -> torch.Tensor:
    assert config["base_model"] == config["models"][0]["model"]
    dot = float((first / first.norm() * (second / second.norm())).sum())
    if abs(dot) > 0.9995:
        return (1 - t) * first + t * second
    theta = torch.acos(torch.tensor(dot))
    ends = torch.sin((1 - t) * theta) * first + torch.sin(t * theta) * second
    return ends / torch.sin(theta)


@pytest.mark.parametrize("t", [0.5, 0.2])
def test_slerp_computes_our_tensors(finish: Finish, own_family, t):
    made = finish("slerp", {"t": t}, experts=("e1", "e2"))
    found = mergekit(made)
    assert found.agreement == "same"
    config = yaml.safe_load(found.config)
    assert [m["model"] for m in config["models"]] == ["e1", "e2"]
    compared = same_tensors(made, config, own_family)
    assert compared == made.report.coverage["merged"] > 30
    # LayerNorms come close to the limit; what is far from parallel goes along the arc for certain.
    assert any(layer.method == "slerp" for layer in made.report.layers)


def test_a_limit_of_its_own_is_not_mergekits(finish: Finish):
    found = mergekit(finish("slerp", {"parallel": 0.99}, experts=("e1", "e2")))
    assert found.agreement == "passthrough"
    assert "above a cosine of 0.9995" in found.sentence


@pytest.mark.parametrize(("method", "options"), SAME)
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["equal", "weighted"])
def test_it_computes_our_tensors(finish: Finish, own_family, method, options, weights):
    made = finish(method, options, **({"weights": weights} if weights else {}))
    found = mergekit(made)
    assert found.agreement == "same"
    compared = same_tensors(made, yaml.safe_load(found.config), own_family)
    assert compared == made.report.coverage["merged"] + made.report.coverage["averaged"] > 30


@pytest.mark.parametrize(("method", "options"), ALIKE)
def test_without_weights_it_computes_our_tensors(finish: Finish, own_family, method, options):
    made = finish(method, options)
    found = mergekit(made)
    assert found.agreement == "same"
    config = yaml.safe_load(found.config)
    assert not any("weight" in model.get("parameters", {}) for model in config["models"])
    assert same_tensors(made, config, own_family) == made.report.coverage["merged"] > 30


def test_weights_that_mergekit_has_not_are_said(finish: Finish):
    found = mergekit(finish("karcher", weights=WEIGHTS))
    assert found.agreement == "passthrough"
    assert "takes no weights" in found.sentence
    signed = mergekit(finish("ties", {"scope": "tensor"}, weights={"e0": -1.0}))
    assert "divides by the sum of the signed weights" in signed.sentence


def test_the_oracle_tells_other_settings_apart(finish: Finish, own_family: Path):
    made = finish("ties", {"scope": "tensor", "density": 0.35, "scaling": 1.4})
    merged = next(e.tensors for e in run(made.recipe) if isinstance(e, Ended))
    config = yaml.safe_load(mergekit(made).config)
    config["models"][0]["parameters"]["density"] = 0.3
    name = next(n for n in merged if n.endswith("query.weight"))
    assert not torch.allclose(merged[name].float(), interpret(config, own_family, name), atol=1e-4)


@pytest.mark.parametrize("method", [n for n, case in CASES.items() if not case.mergekit])
def test_what_mergekit_does_not_have_is_said_and_passed_on(finish: Finish, method: str):
    found = mergekit(finish(method), "outputs/x y")
    assert found.agreement == "passthrough"
    assert yaml.safe_load(found.config) == {
        "merge_method": "passthrough",
        "models": [{"model": "outputs/x y"}],
    }
    assert "mergekit" in found.sentence
    assert "passes the merged model on" in found.sentence


def test_steps_and_rules_are_passed_on(finish: Finish):
    for settings in ({"after": ["svc"]}, {"by": [{"match": "*", "weight": 0.5}]}):
        found = mergekit(finish("average", evaluate=False, **settings))
        assert found.agreement == "passthrough"
        assert "mergekit has no" in found.sentence


def test_a_routed_merge_is_told_to_lose_its_branches(finish: Finish):
    for method in ("average", "kfac"):
        notes = mergekit(finish(method, routed={"by": "smile"})).notes
        assert any("no branches" in note for note in notes)
        assert not any("branches" in note for note in mergekit(finish(method)).notes)


def test_the_reasons(finish: Finish):
    assert "L1 norm" in mergekit(finish("dare")).sentence
    assert "draws other masks" in mergekit(finish("della")).sentence
    assert "floor: 1e-6" in mergekit(finish("sce")).sentence
    assert "over the whole model" in mergekit(finish("ties")).sentence
    assert "none of its methods reads statistics" in mergekit(finish("kfac")).sentence
    float64 = finish("average", dtype="float64")
    assert "float64" in mergekit(float64).sentence
    assert mergekit(float64).agreement == "passthrough"


def test_stored_type_and_heads(finish: Finish):
    found = mergekit(finish("task_arithmetic", output_dtype="bfloat16"))
    assert yaml.safe_load(found.config)["out_dtype"] == "bfloat16"
    assert any("classifier.weight" in note for note in found.notes)
    linear = mergekit(finish("average"))
    assert any("stops where their shapes differ" in note for note in linear.notes)
