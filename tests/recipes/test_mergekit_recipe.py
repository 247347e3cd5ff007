"""A mergekit configuration read as a recipe: what is mapped, what is told, and what is refused.

`theirs` follows mergekit 0.1.5's formulas on plain tensors, apart from `mats_core.methods`.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mats_core.cli import main
from mats_core.errors import InputError
from mats_core.merging import merge, run
from mats_core.methods import METHODS, describe
from mats_core.recipes.events import Finished
from mats_core.recipes.mergekit_names import EACH, KEYS, PARAMETERS, THERE, rows
from mats_core.recipes.mergekit_recipe import from_mergekit, is_mergekit
from mats_core.recipes.recipe import load_recipe, parse_recipe
from tests.layer_cases import close, write_raw

DOCS = Path(__file__).parents[2] / "docs" / "mergekit.md"
BLOCKS = 3
NAMES = [
    "embed.weight",
    *(f"layers.{b}.{part}.weight" for b in range(BLOCKS) for part in ("self_attn", "mlp")),
    "norm.weight",
]


def tensors(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: (8,) if name == "norm.weight" else (8, 6) for name in NAMES}
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three directories of bare checkpoints and their base, of three blocks."""
    place = tmp_path_factory.mktemp("mergekit")
    base = tensors(0)
    for index, name in enumerate(("base", "a", "b", "c")):
        changed = {n: v + (0.1 * index * tensors(index)[n]) for n, v in base.items()}
        write_raw(place / name, "model.safetensors", changed)
        (place / name / "config.json").write_text(json.dumps({"num_hidden_layers": BLOCKS}))
    return place


def config(name: str, **content: Any) -> dict[str, Any]:
    models = [{"model": one, "parameters": {"weight": w}} for one, w in zip("abc", (1, 2, 0.5))]  # noqa: B905
    found: dict[str, Any] = {"merge_method": name, "models": models}
    if THERE[name].base == "needed":
        found["base_model"] = "base"
    return {**found, **content}


def made(content: dict[str, Any], folder: Path) -> dict[str, torch.Tensor]:
    recipe, _ = from_mergekit(content, folder)
    exact = {"dtype": "float64", "output_dtype": "float64", "strangers": "allow", "heads": []}
    parsed = parse_recipe({**recipe, **exact, "evaluate": False}, folder)
    last = next(event for event in run(parsed) if isinstance(event, Finished))
    return {name: last.tensors[name] for name in NAMES}


def values(name: str) -> list[torch.Tensor]:
    base = tensors(0)[name]
    return [base + 0.1 * index * tensors(index)[name] for index in (1, 2, 3)]


def deltas(name: str) -> list[torch.Tensor]:
    return [value - tensors(0)[name] for value in values(name)]


def weighed(own: list[torch.Tensor], weights: Any = (1, 2, 0.5)) -> torch.Tensor:
    return torch.stack([w * v for w, v in zip(weights, own, strict=True)]).sum(0)


def trimmed(delta: torch.Tensor, density: float, gamma: float = 0.0) -> torch.Tensor:
    flat = delta.flatten()
    most, first = int(density * len(flat)), int(gamma * len(flat))
    first = min(first, len(flat) - most)
    kept = torch.zeros_like(flat)
    chosen = flat.abs().argsort(descending=True)[first : first + most]
    kept[chosen] = flat[chosen]
    return kept.reshape(delta.shape)


def elected(own: list[torch.Tensor], mean: bool) -> torch.Tensor:
    shares = torch.tensor([1, 2, 0.5], dtype=torch.float64).reshape(-1, *[1] * own[0].ndim)
    stacked = torch.stack(own) * shares
    agrees = stacked.sign() == torch.where(stacked.sum(0) >= 0, 1.0, -1.0)
    mass = (shares * agrees).sum(0) if mean else torch.ones_like(own[0])
    return (stacked * agrees).sum(0) / torch.where(mass == 0, 1.0, mass)


def theirs(name: str, tensor: str) -> torch.Tensor:
    base, own = tensors(0)[tensor], deltas(tensor)
    if name == "linear":
        return weighed(values(tensor)) / 3.5
    if name == "task_arithmetic":
        return base + 0.7 * weighed(own)
    if name == "task_arithmetic, mean":
        return base + 0.7 * weighed(own) / 3.5
    if name.startswith("ties"):
        return base + 0.7 * elected([trimmed(d, 0.4) for d in own], name == "ties")
    if name == "breadcrumbs":
        return base + 0.7 * weighed([trimmed(d, 0.4, 0.2) for d in own])
    if name == "breadcrumbs_ties":
        return base + 0.7 * elected([trimmed(d, 0.4, 0.2) for d in own], False)
    assert name == "multislerp"
    units = [v / v.norm() for v in values(tensor)]
    mean = weighed(units)
    length = sum(w * float(v.norm()) for w, v in zip((1, 2, 0.5), values(tensor), strict=True))
    return mean / mean.norm() * length / 3.5


LAMBDA = {"lambda": 0.7}
SAME: dict[str, dict[str, Any]] = {
    "linear": config("linear"),
    "task_arithmetic": config("task_arithmetic", parameters=LAMBDA),
    "task_arithmetic, mean": config("task_arithmetic", parameters={**LAMBDA, "normalize": True}),
    "ties": config("ties", parameters={**LAMBDA, "density": 0.4, "int8_mask": True}),
    "ties, sum": config("ties", parameters={**LAMBDA, "density": "0.4", "normalize": False}),
    "breadcrumbs": config("breadcrumbs", parameters={**LAMBDA, "density": 0.4, "gamma": 0.2}),
    "breadcrumbs_ties": config(
        "breadcrumbs_ties", parameters={**LAMBDA, "density": 0.4, "gamma": 0.2}
    ),
    "multislerp": config("multislerp"),
}


@pytest.mark.parametrize("name", SAME)
def test_it_merges_what_mergekit_merges(folder, name):
    for tensor, found in made(SAME[name], folder).items():
        close(found, theirs(name, tensor), 1e-9)


ALSO: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    (config("karcher", parameters={"max_iter": 20}), "karcher",
     {"iterations": 20, "tolerance": 1e-5}),
    (config("della", parameters={"density": 0.6}), "della",
     {"density": 0.6, "epsilon": 0.15, "elect": True, "normalise": True, "rescale": "l1"}),
    (config("della_linear", parameters={"rescale": False}), "della",
     {"density": 1.0, "elect": False, "normalise": False, "rescale": "none"}),
    (config("dare_linear", parameters={"density": 0.2}), "della",
     {"density": 0.2, "epsilon": 0.0, "elect": False, "rescale": "l1"}),
    (config("dare_ties", parameters={"density": 0.2}), "della",
     {"epsilon": 0.0, "elect": True, "normalise": False}),
    (config("model_stock", parameters={"filter_wise": True}), "model_stock", {"by_row": True}),
    (config("sce", parameters={"select_topk": 0.3}), "sce", {"select": 0.3, "floor": 1e-6}),
    (config("slerp", models=[{"model": "a"}], parameters={"t": 0.3}), "slerp", {"t": 0.3}),
    (config("nuslerp", models=config("linear")["models"][:2]), "slerp", {"t": 2 / 3}),
]  # fmt: skip


@pytest.mark.parametrize(("content", "method", "options"), ALSO)
def test_it_is_the_method_with_these_options(folder, content, method, options):
    recipe, notes = from_mergekit(content, folder)
    parsed = parse_recipe(recipe, folder)
    assert parsed.method == method
    assert parsed.parsed_options().model_dump().items() >= options.items()
    assert f"{content['merge_method']} is {method} here" in notes[0]
    made(content, folder)


def test_two_experts_of_an_arc_are_in_mergekits_order(folder):
    recipe, _ = from_mergekit(
        config("slerp", models=[{"model": "a"}, {"model": "base"}], parameters={"t": 0.3}), folder
    )
    assert [entry["name"] for entry in recipe["experts"]] == ["base", "a"]


# Filters and gradients ----------------------------------------------------------------------------


def test_a_gradient_over_the_blocks_and_filters_of_which_the_first_wins(folder):
    """SLERP as most files have it: t by block in attention, another way in the MLP."""
    t = [
        {"filter": "self_attn", "value": [0, 0.5, 0.3, 1]},
        {"filter": "layers", "value": [1, 0]},
        {"value": 0.5},
    ]
    content = config("slerp", models=[{"model": "a"}], parameters={"t": t})
    found = made(content, folder)
    at = {"self_attn": (0.0, 0.4, 1.0), "mlp": (1.0, 0.5, 0.0)}
    for name in NAMES:
        part = next((share for key, share in at.items() if key in name), (0.5,) * 3)
        share = part[int(name.split(".")[1]) if name.startswith("layers") else 0]
        plain = config("slerp", models=[{"model": "a"}], parameters={"t": share})
        close(found[name], made(plain, folder)[name], 1e-9)


def test_weights_of_one_model_by_layer(folder):
    models = [
        {"model": "a", "parameters": {"weight": [1, 0]}},
        {"model": "b", "parameters": {"weight": [{"filter": "mlp", "value": 2}, {"value": 0.5}]}},
    ]
    found = made(config("task_arithmetic", models=models), folder)
    for name in NAMES:
        block = int(name.split(".")[1]) if name.startswith("layers") else 0
        first = {"norm.weight": 0.0}.get(name, (1.0, 0.5, 0.0)[block])
        second = 2 if "mlp" in name else 0.5
        one, other, _ = deltas(name)
        close(found[name], tensors(0)[name] + first * one + second * other, 1e-9)


def test_one_slice_of_all_layers_is_the_whole_model(folder):
    sources = [{"model": name, "layer_range": [0, BLOCKS]} for name in ("base", "a")]
    content = {
        "merge_method": "slerp", "base_model": "base", "slices": [{"sources": sources}],
        "parameters": {"t": 0.25}, "dtype": "bfloat16",
    }  # fmt: skip
    recipe, notes = from_mergekit(content, folder)
    assert recipe["options"]["t"] == 0.25
    assert recipe["output_dtype"] == "bfloat16"
    assert any("computed in float32" in note for note in notes)
    sources[1]["layer_range"] = sources[0]["layer_range"] = [0, 2]
    with pytest.raises(InputError, match=r"all 3 layers.*the first 2"):
        from_mergekit(content, folder)


# What is told, and what is refused ----------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "stacking": ({"merge_method": "passthrough"}, "stacks those of several models"),
    "no counterpart": ({"merge_method": "arcee_fusion"}, "softmax"),
    "a slip in the method": ({"merge_method": "tie"}, "'ties'"),
    "a slip in a key": (config("ties", parametres={}), "'parameters'"),
    "a slip in a parameter": (config("ties", parameters={"densty": 0.3}), "'density'"),
    "no base": ({**config("ties"), "base_model": None}, "the others come from"),
    "a base of arcs": (config("multislerp", base_model="base"), "arcs of the updates"),
    "no weight": (config("ties", models=[{"model": "a"}]), "weight of 'a'"),
    "no t": (config("slerp", models=[{"model": "a"}]), "expected a value"),
    "three on an arc": (config("slerp", parameters={"t": 0.5}), "1 beside the base"),
    "densities of each": (
        config("ties", models=[
            {"model": "a", "parameters": {"weight": 1, "density": 0.2}},
            {"model": "b", "parameters": {"weight": 1, "density": 0.3}},
        ]), "the same for every model",
    ),
    "a multiple": (config("linear", parameters={"normalize": False}), "weights that sum to 1"),
    "rescaled TIES": (config("ties", parameters={"rescale": True}), "L1 norm"),
    "rows of arcs": (
        config("nuslerp", models=config("linear")["models"][:2],
               parameters={"nuslerp_row_wise": True}), "nuslerp_row_wise",
    ),
    "modules": ({"merge_method": "linear", "modules": {"x": {}}}, "merged as a whole"),
    "nothing": ({"merge_method": "linear"}, "exactly one of"),
    "two slices": (
        {"merge_method": "linear", "slices": [{"sources": []}, {"sources": []}]}, "2 slices",
    ),
    "another's adapter": (
        config("linear", models=[{"model": "a+x", "parameters": {"weight": 1}}],
               base_model="base"), "an adapter of 'base'",
    ),
    "new tokens": (config("linear", tokenizer={"tokens": {"x": {}}}), "neither made nor moved"),
    "a word": (config("ties", parameters={"density": "half"}), "a number"),
    "models that are a number": (config("linear", models=1e308), "expected a list, found 1e+308"),
    "slices that are one": (
        {"merge_method": "slerp", "base_model": "base", "slices": {"sources": []}},
        "slices of the mergekit configuration: expected a list",
    ),
    "a range of words": (
        {"merge_method": "slerp", "base_model": "base",
         "slices": [{"sources": [{"model": "a", "layer_range": [[0], "x"]}]}]},
        "expected two whole numbers",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_counterpart_is_said(folder, name):
    content, sentence = REFUSED[name]
    with pytest.raises(InputError, match=re.escape(sentence)):
        from_mergekit(content, folder)


def test_what_changes_no_weight_is_a_note(folder):
    content = config("task_arithmetic", chat_template="chatml", tokenizer_source="union")
    content["parameters"] = {"density": 0.3, "int8_mask": True}
    content["models"][0]["parameters"]["normalize"] = True  # one for all: not looked for here
    text = " ".join(from_mergekit(content, folder)[1])
    assert re.search(r"without effect in task_arithmetic, in mergekit too: (\w+), (\w+)", text)
    assert "chat_template has no counterpart" in text
    assert "tokenizer_source union" in text
    assert "int8_mask" not in text


def test_an_adapter_on_the_base_is_an_expert(folder):
    models = [{"model": "base+lora", "parameters": {"weight": 1}}]
    recipe, _ = from_mergekit(config("task_arithmetic", models=models), folder)
    assert recipe["experts"] == [{"name": "lora", "model": "lora", "weight": 1}]


# Command line and page ----------------------------------------------------------------------------


def test_merge_recognises_such_a_file(folder, capsys):
    file = folder / "mergekit.yaml"
    file.write_text(yaml.safe_dump(config("ties", parameters={"density": 0.4, "lambda": 0.7})))
    assert main(["merge", str(file), "--output", str(folder / "out"), "--strangers"]) == 0
    said = capsys.readouterr()
    assert "read as a mergekit configuration: ties is ties here" in " ".join(said.err.split())
    with pytest.warns(UserWarning, match="read as a mergekit configuration"):
        recipe = load_recipe(file)
    assert merge(recipe.model_copy(update={"strangers": "allow"})).method == "ties"
    assert not is_mergekit({"method": "ties"})


def test_the_tables_are_of_names_that_are_there():
    for own in THERE.values():
        assert set(own.defaults) <= set(PARAMETERS)
        assert not own.ours or own.ours in METHODS
        options = {field.name for field in describe(own.ours)} if own.ours else set()
        # TIES and task arithmetic may become breadcrumbs, which has these too.
        assert {*own.options.values(), *own.fixed} <= options
    assert set(PARAMETERS) >= EACH
    assert set(KEYS) >= {"merge_method", "models", "base_model"}


def test_the_page_has_every_row():
    text = DOCS.read_text("utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    assert lines == [row for table in rows().values() for row in table]


# What no merge can be made of ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "gradient", [[[0.1, 0.2], [0.3]], [[]], [{"filter": "mlp", "value": []}, {"value": 1.0}]]
)
def test_a_gradient_that_holds_no_numbers_is_refused(folder, gradient):
    content = config("task_arithmetic")
    content["models"][0]["parameters"]["weight"] = gradient
    with pytest.raises(InputError, match="gradient of weight"):
        from_mergekit(content, folder)


@pytest.mark.parametrize("said", [0, -5, 50_000_000, True, "3"])
def test_a_gradient_counts_in_layers_that_a_model_can_have(folder, tmp_path, said):
    shutil.copytree(folder, tmp_path / "models")
    (tmp_path / "models/base/config.json").write_text(json.dumps({"num_hidden_layers": said}))
    content = config("task_arithmetic")
    content["models"][0]["parameters"]["weight"] = [0.0, 1.0]
    with pytest.raises(InputError, match=re.escape(f"found {said}") if said != "3" else "found"):
        from_mergekit(content, tmp_path / "models")


@pytest.mark.parametrize("number", ["0x" + "f" * 5000, "0b" + "1" * 5000, "1" + "0" * 400])
def test_a_number_that_no_arithmetic_takes_is_refused_where_it_is_read(tmp_path, number):
    (tmp_path / "merge.yaml").write_text(f"merge_method: linear\nparameters: {{weight: {number}}}")
    with pytest.raises(InputError, match=r"whole number of .* binary digits"):
        load_recipe(tmp_path / "merge.yaml")
