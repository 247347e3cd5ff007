"""Recipes: YAML, errors that name the nearest, and the one description of every option."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic import ValidationError

from mats_core.errors import InputError
from mats_core.methods.reference import as_dict, bounds, describe
from mats_core.methods.starts import STARTS
from mats_core.methods.table import METHODS
from mats_core.recipes.recipe import dump_recipe, load_recipe, parse_options, parse_recipe
from tests.method_cases import CASES

MINIMAL = {"base": "base", "experts": [{"name": "a", "model": "a"}], "method": "average"}
CONTRACT = """
base: path/to/base
experts:
  - {name: digits, model: path/to/expert, statistics: digits.stats.safetensors, weight: 1.0}
method: kfac
options: {iterations: 50, damping: 0.1}
output: outputs/first
seed: 0
device: auto          # auto | cpu | cuda | mps
dtype: float32        # arithmetic; output_dtype: same as base by default
"""


def test_the_contracts_recipe(tmp_path):
    file = tmp_path / "deep" / "recipe.yaml"
    file.parent.mkdir()
    file.write_text(CONTRACT)
    recipe = load_recipe(file)
    assert recipe.experts[0].statistics == "digits.stats.safetensors"
    assert recipe.path(recipe.base) == tmp_path / "deep" / "path/to/base"
    assert recipe.path("/absolute") == Path("/absolute")
    assert recipe.path("~/x") == Path.home() / "x"
    options = recipe.parsed_options()
    assert options.model_dump()["iterations"] == 50
    assert options.model_dump()["preconditioner"] == "auto"
    assert (recipe.seed, recipe.device, recipe.dtype, recipe.output_dtype) == (
        0, "auto", "float32", None,
    )  # fmt: skip


FULL = {
    **MINIMAL,
    "experts": [
        {"name": "a", "model": "a", "task": "t.npz", "weight": 2.0, "examples": 7},
        {"name": "b", "model": "b", "task": "sample:digits"},
    ],
    "method": "ties",
    "options": {"density": 0.5},
    "output": "out",
    "seed": 3,
    "heads": ["classifier.*"],
    "weighting": "weights",
    "output_dtype": "bfloat16",
    "evaluate": {"split": "validation", "examples": 10},
    "search": {"scaling": [0.5, 1.0], "scope": ["global", "tensor"]},
}


@pytest.mark.parametrize("content", [MINIMAL, FULL, {**MINIMAL, "evaluate": False}])
def test_yaml_round_trip(tmp_path, content):
    recipe = parse_recipe(content, tmp_path)
    (tmp_path / "r.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(tmp_path / "r.yaml") == recipe


def test_an_absolute_dump_can_be_moved(tmp_path):
    (tmp_path / "start").mkdir()
    content = {
        **FULL, "method": "kfac", "options": {"start": "start"}, "search": None,
        "base_statistics": "b.safetensors",
    }  # fmt: skip
    recipe = parse_recipe(content, tmp_path)
    moved = parse_recipe(yaml.safe_load(dump_recipe(recipe, absolute=True)), "/somewhere/else")
    for ours, theirs in (
        (recipe.base, moved.base),
        (recipe.output, moved.output),
        (recipe.base_statistics, moved.base_statistics),
        (recipe.experts[0].model, moved.experts[0].model),
        (recipe.experts[0].task, moved.experts[0].task),
        (recipe.options["start"], moved.options["start"]),
    ):
        assert recipe.path(str(ours)).resolve() == moved.path(str(theirs))
    assert moved.experts[1].task == "sample:digits"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"metod": "average"}, "'metod' is not an option here. Did you mean 'method'?"),
        ({"method": "averge"}, "Did you mean 'average'?"),
        ({"method": "tise"}, "Did you mean 'ties'?"),
        ({"options": {"bogus_key": 1}}, "'bogus_key' is not an option here"),
        ({"method": "task_arithmetic", "options": {"density": 0.5}}, "'density' is not an option"),
        ({"method": "kfac", "options": {"dampng": 0.5}}, "Did you mean 'damping'?"),
        ({"method": "ties", "options": {"density": 0}}, "greater than 0"),
        ({"method": "ties", "options": {"density": 1.5}}, "less than or equal to 1"),
        ({"method": "ties", "options": {"scope": "globl"}}, "'global' or 'tensor'"),
        ({"method": "kfac", "options": {"iterations": 1.5}}, "integer"),
        ({"method": "kfac", "options": {"start": "avrage"}}, "average"),
        ({"method": "kfac", "options": {"damping": float("nan")}}, "damping"),
        ({"method": "gradient_matching", "options": {"prior": 0}}, "prior"),
        ({"experts": []}, "at least 1"),
        ({"experts": [{"name": "a", "modell": "a"}]}, "Did you mean 'model'?"),
        ({"experts": [{"name": "a", "model": "a", "weight": float("inf")}]}, "a finite number"),
        ({"experts": [{"name": "../x", "model": "a"}]}, "name"),
        ({"seed": -1}, "seed"),
        ({"seed": True}, "'seed': expected a number, found true"),
        ({"method": "task_arithmetic", "options": {"scaling": True}}, "expected a number"),
        ({"experts": [{"name": "a", "model": "a", "weight": False}]}, "'experts.0.weight': exp"),
        ({"zzzz": 1}, "Choose one of: base, experts, method"),
        ({"device": "gpu"}, "'auto', 'cpu', 'cuda' or 'mps'"),
        ({"dtype": "float16"}, "'float32' or 'float64'"),
        ({"evaluate": {"split": "tset"}}, "'train', 'validation' or 'test'"),
        ({"method": "ties", "search": {"desity": [1]}}, "Did you mean 'density'?"),
        ({"method": "ties", "search": {"density": []}}, "values to try"),
        ({"method": "ties", "search": {"density": [0.5, 2]}}, "less than or equal to 1"),
    ],
)
def test_bad_recipes_say_what_is_wrong(change, says):
    with pytest.raises(InputError) as caught:
        parse_recipe({**MINIMAL, **change})
    assert says in str(caught.value)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize("method", list(METHODS))
def test_no_option_takes_a_number_that_is_not_finite(method, value):
    for field in describe(method):
        if field.kind == "float" or field.numeric:
            with pytest.raises(InputError, match=field.name):
                parse_options(method, {field.name: value})


@pytest.mark.parametrize("content", [None, [], "average", 3])
def test_a_recipe_is_a_mapping(content):
    with pytest.raises(InputError, match="mapping"):
        parse_recipe(content)


def test_bad_files(tmp_path):
    with pytest.raises(InputError, match="nothing there"):
        load_recipe(tmp_path / "no.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(InputError, match="YAML"):
        load_recipe(tmp_path / "bad.yaml")
    (tmp_path / "evil.yaml").write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(InputError, match="YAML"):
        load_recipe(tmp_path / "evil.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="YAML"):
        load_recipe(tmp_path / "binary.yaml")
    with pytest.raises(InputError, match="YAML"):
        load_recipe(tmp_path)


# The one description ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", list(METHODS))
def test_describe_agrees_with_the_declaration(method):
    model = METHODS[method].options
    schema = model.model_json_schema()["properties"] if model.model_fields else {}
    fields = describe(method)
    assert [field.name for field in fields] == list(model.model_fields)
    for field in fields:
        declared = schema[field.name]
        assert field.help == declared["description"]
        assert len(field.help) > 5
        assert field.default == declared["default"]
        parts = declared.get("anyOf", [declared])
        assert field.optional == any(part.get("type") == "null" for part in parts)
        kinds = {"integer": "int", "number": "float", "boolean": "bool", "string": "text"}
        if field.choices:
            named = [part.get("enum") or [part.get("const")] for part in parts]
            assert list(field.choices) in named
        else:
            assert field.kind in {kinds[p["type"]] for p in parts if p["type"] != "null"}
        part = next((p for p in parts if "minimum" in p or "exclusiveMinimum" in p), {})
        assert field.low == part.get("minimum", part.get("exclusiveMinimum")) or field.numeric
        assert field.high == part.get("maximum")
        # The default is a value that the model takes, and so are the bounds.
        model.model_validate({field.name: field.default})
        if field.high is not None:
            top = int(field.high) if field.kind == "int" else field.high
            model.model_validate({field.name: top})
            with pytest.raises(ValidationError):
                model.model_validate({field.name: top + 1})
        for choice in field.choices:
            model.model_validate({field.name: choice})
        assert bounds(field)


def test_every_method_is_completely_described():
    assert set(CASES) == set(METHODS)
    for name, case in CASES.items():
        assert case.documented <= {field.name for field in describe(name)}
        method = METHODS[name]
        assert method.name == name
        assert method.title
        assert method.summary.endswith(".")
        assert method.formula
        assert "arXiv" in method.source
        # Plain values, for the page and for `methods --json`.
        assert json.loads(json.dumps(as_dict(name)))["title"] == method.title
    with pytest.raises(InputError, match="Did you mean 'kfac'"):
        describe("kfak")


def test_options_are_frozen_and_defaults_fill_in():
    options = parse_options("kfac", {"damping": 0.2})
    with pytest.raises(ValidationError):
        options.damping = 1  # type: ignore[attr-defined]
    assert options.model_dump()["start"] in STARTS
    prior = next(field for field in describe("gradient_matching") if field.name == "prior")
    assert prior.numeric
    assert prior.choices == ("pretrained",)
    start = METHODS["kfac"].options.model_fields["start"].annotation
    assert start is str or set(get_args(start)) >= set(STARTS)
