"""A method is one file: a toy is written, enrolled by a row, and then known everywhere.

Its file is loaded as a module of `mats_core.methods`, so it is written as any other there; the rows
are those that a developer would add to `methods/table.py` and to `tests/method_cases.py`.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from streamlit.testing.v1 import AppTest

from mats_core.cli import main
from mats_core.cli.catalogue import declared
from mats_core.cli.listing import markdown
from mats_core.errors import InputError
from mats_core.estimating import estimate
from mats_core.merging import merge
from mats_core.methods import METHODS
from mats_core.recipes import open_inputs, parse_recipe
from mats_core.system import UNMEASURED
from tests.conftest import family_recipe
from tests.method_cases import CASES, GENERAL, LINEAR, MethodCase
from tests.methods import test_identities, test_method

TOY = '''
"""A toy: the mean update, shrunk, and rounded to zero on one side if wanted."""

from __future__ import annotations

from typing import Any, Literal

from .cost import Cost, Shape
from .layer import Layer, Merged
from .method import Counterpart, Method, every_tensor
from .options import Options, Section, option

HELD = Section("How much is held back", "The rest of every update is dropped.")


class ToyOptions(Options):
    scaling: float = option(
        0.5, "share of the mean update that is kept", low=0, high=2, step=0.1, source="a guess",
        label="Share kept", section=HELD,
    )
    side: Literal["both", "positive"] = option("both", "which changes are kept", more=True)


def toy(layer: Layer, options: ToyOptions, survey: Any = None) -> Merged:
    """W = W0 + s * mean of the updates."""
    update = layer.mean_update
    kept = update.clamp_min(0) if options.side == "positive" else update
    return Merged(layer.base + options.scaling * kept, "toy")


def cost(s: Shape, options: ToyOptions) -> Cost:
    return Cost("merged", s.passes(6 * s.experts + 5), 4 * s.nbytes)


METHOD = Method(
    name="toy",
    title="Toy method",
    short="Toy",
    group="task vectors",
    summary="Keeps a share of the mean update.",
    formula=r"W = W_0 + s\\, \\bar\\Delta",
    source="arXiv 0000.00000",
    options=ToyOptions,
    merge=toy,
    cost=cost,
    pieces=every_tensor,
    mergekit=lambda options: Counterpart("toy", "The same toy.", {"share": options.scaling}),
)
'''


@pytest.fixture(autouse=True)
def enrolled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "toy.py"
    file.write_text(TOY, "utf-8")
    spec = importlib.util.spec_from_file_location("mats_core.methods.toy", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.setitem(METHODS, "toy", module.METHOD)
    row = MethodCase(
        frozenset({"scaling"}), GENERAL | LINEAR, identical={"scaling": 1.0}, grids=False
    )
    monkeypatch.setitem(CASES, "toy", row)


def raw(folder: Path, **settings: object) -> dict[str, object]:
    experts = [{"name": f"e{m}", "model": str(folder / f"e{m}.safetensors")} for m in range(3)]
    base = str(folder / "base.safetensors")
    return {"base": base, "experts": experts, "method": "toy", "device": "cpu", **settings}


def test_recipes_know_it_and_its_options(raw_family: Path):
    recipe = parse_recipe(raw(raw_family, options={"scaling": 1.5, "side": "positive"}))
    assert recipe.parsed_options().model_dump() == {"scaling": 1.5, "side": "positive"}
    with pytest.raises(InputError, match="Did you mean 'scaling'"):
        parse_recipe(raw(raw_family, options={"scalling": 1.5}))
    with pytest.raises(InputError, match="less than or equal to 2"):
        parse_recipe(raw(raw_family, options={"scaling": 3}))
    with pytest.raises(InputError, match="Did you mean 'toy'"):
        parse_recipe(raw(raw_family, method="toi"))


def test_the_command_line_lists_it_and_merges_by_it(raw_family: Path, tmp_path: Path, capsys):
    assert main(["methods"]) == 0
    assert "toy — Toy method (needs task vectors)" in capsys.readouterr().out
    assert main(["methods", "toy", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert [own["name"] for own in found["options"]] == ["scaling", "side"]
    assert found["schema"]["properties"]["side"]["enum"] == ["both", "positive"]
    file = tmp_path / "recipe.json"  # JSON is YAML
    file.write_text(json.dumps(raw(raw_family)))
    assert main(["merge", str(file), "--set", "scaling=0.25", "--output", str(tmp_path / "o")]) == 0
    merged = load_file(tmp_path / "o" / "model.safetensors")
    base, *experts = (
        load_file(raw_family / f"{n}.safetensors") for n in ("base", "e0", "e1", "e2")
    )
    for name, value in merged.items():
        if not value.is_floating_point():
            continue
        mean = torch.stack([expert[name].double() for expert in experts]).mean(0)
        expected = base[name].double() + 0.25 * (mean - base[name].double())
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)


def test_the_reference_page_has_its_formula_and_options():
    text = markdown(declared())
    assert "## `toy`: Toy method" in text
    assert r"$$W = W_0 + s\, \bar\Delta$$" in text
    assert "| `scaling` | `0.5` | 0 … 2 | share of the mean update that is kept | a guess |" in text


def test_the_page_has_a_widget_for_every_option():
    def page() -> None:
        import streamlit as st

        from pages.shared.controls import widgets

        name = widgets.method("toy")
        st.session_state["found"] = (name, widgets.options(name))
        widgets.explain(name)

    app = AppTest.from_function(page, default_timeout=120).run()
    assert not app.exception
    assert app.session_state["found"] == ("toy", {"scaling": 0.5, "side": "both"})
    assert "Toy method" in app.selectbox[0].options
    assert "How much is held back" in [heading.value for heading in app.header]
    (slider,) = app.slider
    assert (slider.label, slider.min, slider.max) == ("Share kept", 0, 2)
    assert "Default: 0.5 (a guess)" in slider.help.replace("\\", "")
    assert app.expander[0].label == "More settings"
    slider.set_value(1.2)
    app.expander[0].selectbox[0].set_value("positive")
    app.run()
    assert app.session_state["found"] == ("toy", {"scaling": 1.2, "side": "positive"})


def test_the_estimate_foretells_what_becomes_of_every_tensor(tiny_family: Path):
    recipe = parse_recipe(family_recipe(tiny_family, "toy", evaluate=False), tiny_family)
    inputs = open_inputs(recipe)
    found = estimate(inputs, recipe, speeds=UNMEASURED)
    assert dict(found.coverage) == merge(recipe, inputs=inputs).coverage
    assert found.coverage["merged"] > 0
    assert found.seconds > 0
    largest = max(entry.elements for entry in inputs.family.base.tensors.values())
    # Base, experts and what `cost` says, all in float32.
    assert found.memory["largest layer"] == (4 + 4) * 4 * largest


def test_the_identities_check_it():
    for identity in CASES["toy"].identities:
        test_identities.CHECKS[identity]("toy", 0)
    test_identities.identical_experts_come_back("toy", 0)
    for dtype in (torch.float32, torch.float64):
        test_method.test_every_method_keeps_dtype_and_shape_and_its_inputs("toy", dtype)
    test_method.test_float32_is_close_to_float64("toy")


def test_an_identity_that_does_not_hold_is_noticed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(CASES, "toy", MethodCase(identical={"scaling": 0.5}))
    with pytest.raises(AssertionError, match="relative error"):
        test_identities.identical_experts_come_back("toy", 0)
