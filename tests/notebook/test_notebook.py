"""Records as HTML: small, self-contained, escaped; merges as figures; text elsewhere."""

from __future__ import annotations

import re
import sys
from html import escape
from types import ModuleType, SimpleNamespace

import plotly.graph_objects as go
import pytest
from torch import nn

import mats_core
from mats_core.figures import residual_curves
from mats_core.merging.family_file import load_family
from mats_core.merging.recipe import parse_recipe
from mats_core.notebook.markup import markup
from mats_core.notebook.show import GREY, drawings, show, themed
from tests.conftest import family_recipe
from tests.module_cases import family, loader
from tests.notebook.markup_cases import Balanced

MOST = 6000  # characters


@pytest.fixture(scope="module")
def merged(tiny_family):
    recipe = parse_recipe(family_recipe(tiny_family, "kfac", seed=1), tiny_family)
    return mats_core.merge(recipe)


def test_records_show_themselves_small_and_without_anything_fetched(merged, tiny_family):
    things = {
        "merge": (merged, "K-FAC", "e0, e1, e2"),
        "report": (merged.report, "of the experts' accuracy", "conjugate gradients"),
        "recipe": (merged.recipe, "base", "t0.npz"),
        "statistics": (merged.inputs.statistics[0], "48 examples", "output_gradient_gram"),
        "family": (load_family(tiny_family), "Tiny three", "t1.npz"),
    }
    for name, (thing, *words) in things.items():
        text = thing._repr_html_()
        Balanced(text)
        assert len(text) < MOST, name
        assert all(word in text for word in words), name
        assert not re.search(r"https?:|<script|<link|@import|url\(|src=", text), name
        assert text.startswith('<div class="mats"><pre class="t">'), name
        assert len(repr(thing)) < 2000, name
    assert len(repr(merged.report)) < 120
    assert "<svg" in merged.report._repr_html_()


def test_what_others_named_is_escaped(tiny_family):
    recipe = parse_recipe(family_recipe(tiny_family, "average", base="<b>x</b>&"), tiny_family)
    assert "<b>x</b>" not in markup(recipe)
    assert "&lt;b&gt;x&lt;/b&gt;&amp;" in markup(recipe)
    assert "&lt;object" in markup(object())


def test_figures_of_a_merge_are_those_of_the_pages(merged):
    accuracy, convergence, spectra = drawings(merged)
    assert "On average the merged model keeps" in accuracy.caption
    assert "layers converged" in convergence.caption
    assert spectra.caption.startswith("Singular values")
    assert len(drawings(merged.report)) == 2
    assert len(drawings(merged, layer="nothing")) == 2
    assert drawings(merged.recipe) == []


def test_spectra_are_left_out_once_the_base_has_other_weights():
    base, experts = family("mlp")
    merge = mats_core.merge_models(base, experts)
    (spectra,) = drawings(merge)
    assert spectra.caption.startswith("Singular values")
    base.load_state_dict(merge.state_dict())
    assert drawings(merge) == []


def test_spectra_are_left_out_once_a_renamed_expert_has_other_weights():
    base, experts = family("mlp")
    wrapped = {name: nn.ModuleDict({"model": expert}) for name, expert in experts.items()}
    merge = mats_core.merge_models(base, wrapped)
    (spectra,) = drawings(merge)
    assert spectra.caption.startswith("Singular values")
    first = next(iter(wrapped))
    wrapped[first].load_state_dict(merge.state_dict(head_of=first))
    assert drawings(merge) == []


def test_outside_of_notebooks_the_text_is_printed(merged, capsys):
    show(merged)
    assert capsys.readouterr().out.startswith("Merge of e0, e1, e2: Report(kfac: ")


@pytest.fixture
def screen(monkeypatch) -> list:
    """What is displayed, as in a kernel."""
    shown: list = []
    shell = type("ZMQInteractiveShell", (), {})()
    ipython, screen = ModuleType("IPython"), ModuleType("IPython.display")
    monkeypatch.setattr(ipython, "get_ipython", lambda: shell, raising=False)
    monkeypatch.setattr(screen, "display", shown.append, raising=False)
    monkeypatch.setattr(screen, "HTML", lambda text: SimpleNamespace(text=text), raising=False)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", screen)
    return shown


def test_in_a_notebook_record_figures_and_captions_are_displayed(merged, screen):
    mats_core.show(merged)
    assert screen[0] is merged
    assert [type(one).__name__ for one in screen[1:]] == ["Figure", "SimpleNamespace"] * 3
    assert screen[1].layout.font.color == GREY
    assert screen[1].layout.paper_bgcolor == "rgba(0,0,0,0)"


def test_a_figure_is_displayed_with_its_caption(merged, screen, monkeypatch, capsys):
    drawn = residual_curves(merged.report.layers)
    assert drawn is not None
    mats_core.show(drawn)
    assert screen[0] is drawn.figure
    assert screen[1].text == f"<small>{escape(drawn.caption)}</small>"
    assert len(screen) == 2
    monkeypatch.delitem(sys.modules, "IPython")
    mats_core.show(drawn)
    assert " ".join(capsys.readouterr().out.split()) == drawn.caption


def test_statistics_of_modules_show_themselves():
    found = mats_core.measure(family("resnet", 1)[1]["e0"], loader())
    assert repr(found).startswith("Statistics(24 examples, 1 layers: ")
    Balanced(found._repr_html_())


def test_a_figure_of_the_readers_own_has_no_ground_of_its_own():
    """White on a dark page, where the figure was made with plotly's defaults."""
    layout = themed(go.Figure(go.Scatter(y=[1, 2]))).layout
    assert layout.paper_bgcolor == layout.plot_bgcolor == "rgba(0,0,0,0)"
