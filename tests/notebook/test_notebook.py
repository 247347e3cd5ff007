"""Records as HTML and as text: small, self-contained, escaped, with the numbers of the record."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace
from html import escape
from types import SimpleNamespace

import pytest

import mats_core
from mats_core import figures
from mats_core.estimating import estimate
from mats_core.notebook.markup import LINES, markup
from mats_core.recipes import Report, open_inputs
from mats_core.recipes.family_file import load_family
from mats_core.recipes.recipe import parse_recipe
from tests.conftest import family_recipe
from tests.module_cases import family, loader
from tests.notebook.markup_cases import Balanced

MOST = 6000  # characters


@pytest.fixture(scope="module")
def merged(tiny_family):
    recipe = parse_recipe(family_recipe(tiny_family, "kfac", seed=1), tiny_family)
    return mats_core.merge(recipe)


@pytest.fixture(scope="module")
def shown(merged, tiny_family):
    """Every record that shows itself, with words that have to be in it."""
    solved = next(layer for layer in merged.report.layers if layer.residuals)
    cost = estimate(open_inputs(merged.recipe), merged.recipe)
    return {
        "merge": (merged, "K-FAC", "e0, e1, e2"),
        "report": (merged.report, "of the experts' accuracy", "Conjugate gradients"),
        "layers": (merged.report.layers, f"{len(merged.report.layers)} layers", "vit.embeddings"),
        "layer": (solved, solved.name, solved.status, "iterations"),
        "tasks": (merged.report.tasks, "of the experts' accuracy", "e1", "95 % interval"),
        "task": (merged.report.tasks[1], "e1", "pre-trained"),
        "evaluated": (mats_core.evaluate(merged), "of the experts' accuracy", "e1"),
        "recipe": (merged.recipe, "over base", "t0.npz"),
        "statistics": (merged.inputs.statistics[0], "48 examples", "output_gradient_gram"),
        "family": (load_family(tiny_family), "Tiny three", "t1.npz"),
        "estimate": (cost, cost.sentence, "merging", cost.largest),
        "figure": (figures.residual_curves(merged.report.layers), "layers converged"),
    }


def test_records_show_themselves_small_and_without_anything_fetched(shown):
    for name, (thing, *words) in shown.items():
        text = thing._repr_html_()
        Balanced(text)
        assert len(text) < (20_000 if name == "figure" else MOST), name
        assert all(escape(word) in text for word in words), name
        fetched = r"https?:|<script|<link|@import|url\((?!#)|src="
        assert not re.search(fetched, text.replace("http://www.w3.org/2000/svg", "")), name
        assert text.startswith('<div class="mats"><pre class="t">'), name
    assert len(repr(shown["report"][0])) < 120
    assert "<svg" in shown["report"][0]._repr_html_()


def test_what_others_named_is_escaped(tiny_family):
    recipe = parse_recipe(family_recipe(tiny_family, "average", base="<b>x</b>&"), tiny_family)
    assert "<b>x</b>" not in markup(recipe)
    assert "&lt;b&gt;x&lt;/b&gt;&amp;" in markup(recipe)
    assert "&lt;object" in markup(object())


def test_the_text_of_every_record_is_at_most_twenty_lines(shown):
    for name, (thing, *words) in shown.items():
        said = str(thing)
        lines = said.splitlines()
        assert 1 <= len(lines) <= LINES, name
        assert max(map(len, lines)) <= 200, name
        flat = " ".join(said.split())
        assert all(" ".join(word.split()) in flat for word in words), name
        printed: list[str] = []
        thing._repr_pretty_(SimpleNamespace(text=printed.append), False)
        assert printed == [said], name
        assert len(repr(thing).splitlines()) == 1, name
        assert len(repr(thing)) < 400, name


def test_many_layers_and_tasks_stay_twenty_lines(merged):
    layer, task = merged.report.layers[0], merged.report.tasks[0]
    many = replace(
        merged.report,
        layers=tuple(replace(layer, name=f"layer.{i}") for i in range(900)),
        tasks=tuple(replace(task, name=f"task {i}") for i in range(40)),
        warnings=("what users should know",) * 30,
    )
    for thing in (many, many.layers, many.tasks, replace(merged, report=many)):
        assert len(str(thing).splitlines()) <= LINES
        assert len(thing._repr_html_()) < 2 * MOST
    assert "and 888 more" in str(many.layers)
    assert "and 28 more" in many.tasks._repr_html_()
    assert str(many).splitlines()[-1].startswith("… and ")


def test_the_numbers_are_those_of_the_record(merged):
    """Counted here from the answers, and from the file format of reports."""
    said, table = str(merged.report), str(merged.report.tasks)
    for task in merged.report.to_dict()["tasks"]:
        right, examples = (task["scores"]["merged"][key] for key in ("correct", "examples"))
        low, high = task["interval"]
        row = f"{100 * right / examples:.1f} %  {100 * low:.1f} – {100 * high:.1f}"
        assert row in re.sub(r" {3,}", "  ", said)
        assert row in re.sub(r" {3,}", "  ", table)
    layer = next(layer for layer in merged.report.layers if layer.residuals)
    assert f"{layer.residuals[-1]:.1e}" in str(layer)
    assert f"{layer.residuals[-1]:.1e}" in layer._repr_html_()


def test_layers_and_tasks_are_still_tuples(merged):
    report = merged.report
    assert report.layers == tuple(report.layers)
    assert report.layers[:2] == tuple(report.layers)[:2]
    assert pickle.loads(pickle.dumps(report)) == report
    again = Report.from_dict(report.to_dict())
    assert str(again.tasks) == str(report.tasks)
    assert again.to_dict()["layers"] == report.to_dict()["layers"]


def test_what_evaluate_returns_is_still_a_list(merged):
    found = mats_core.evaluate(merged)
    assert found == list(merged.report.tasks)
    assert isinstance(found, list)
    assert [one.name for one in found] == [found[i].name for i in range(len(found))]
    assert str(found) == str(merged.report.tasks)
    assert pickle.loads(pickle.dumps(found)) == found


HOSTILE = ["<script>alert(1)</script>", "a\nb\x1b[31m", "</style></pre><b>", "\"'&amp;", "‮x" * 9]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text(merged, tiny_family, name):
    layer = replace(merged.report.layers[0], name=name, method=name, status=name)
    task = replace(merged.report.tasks[0], name=name)
    report = replace(
        merged.report, layers=(layer,), tasks=(task,), warnings=(name,), options={name: name}
    )
    family = load_family(tiny_family).model_copy(update={"name": name, "base": name})
    drawn = figures.accuracy_bars([task], figures.looks([name]), label=name)
    for thing in (report, report.layers, report.tasks, layer, task, family, drawn):
        page = thing._repr_html_()
        Balanced(page)
        for bad in ("<script", "</style></pre>", "<b><"):
            assert bad not in page
        assert not {c for c in str(thing) if not c.isprintable()} - {"\n"}
        assert len(str(thing).splitlines()) <= LINES


def test_a_figure_is_a_picture_with_its_caption(merged):
    drawn = figures.accuracy_bars(
        merged.report.tasks, figures.looks(task.name for task in merged.report.tasks)
    )
    page = drawn._repr_html_()
    Balanced(page)
    assert page.count("<svg") == 1
    assert f'role="img" aria-label="{escape(drawn.alt)}"' in page
    assert f"<figcaption>{escape(drawn.caption)}</figcaption>" in page
    assert len(page) < 12000
    assert "currentColor" in page  # the page's colour, whatever it is
    assert " ".join(str(drawn).split()) == drawn.caption


def test_statistics_of_modules_show_themselves():
    found = mats_core.measure(family("resnet", 1)[1]["e0"], loader())
    assert repr(found).startswith("Statistics(24 examples, 1 layers: ")
    Balanced(found._repr_html_())
