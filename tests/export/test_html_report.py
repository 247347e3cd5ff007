"""The HTML report: complete, offline, and names are text in it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from mats_core.export import html_report
from mats_core.export.html_report import run_figures
from mats_core.export.portable import Finished
from mats_core.figures.embed import CONFIG, plotly_script, script_json, to_json
from mats_core.figures.style import looks
from mats_core.recipes.refined import Epoch, Refined
from tests.export.conftest import Finish

HOSTILE = "</script><img src=x onerror=alert(1)>"
LOOKS = looks(["e0", "e1", "e2"])


class Page(HTMLParser):
    """Tags with their attributes, text outside of scripts, and scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.scripts, self.inside = "", list[str](), ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.inside = tag

    def handle_endtag(self, tag):
        if tag == self.inside:
            self.inside = ""

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts.append(data)
        elif not self.inside:
            self.text += data


def report(made: Finished, **settings) -> str:
    return html_report(made, run_figures(made, LOOKS), **settings)


@pytest.mark.parametrize(
    ("method", "headings"),
    [
        ("average", ["Accuracy, task by task"]),
        ("kfac", ["Accuracy, task by task", "Residuals of conjugate gradients"]),
        (
            "essential",
            [
                "Accuracy, task by task",
                "Polarized scaling: tasks and layers",
                "Polarized scaling: dimensions of",
            ],
        ),
    ],
)
def test_every_figure_with_caption_and_alternative_text(finish: Finish, method, headings):
    made = finish(method, {"iterations": 7} if method == "kfac" else None)
    figures = run_figures(made, LOOKS)
    assert len(figures) == len(headings)
    page = Page(html_report(made, figures))
    labels = [a["aria-label"] for t, a in page.tags if t == "div" and a.get("role") == "img"]
    assert labels == [figure.alt for _, figure in figures]
    for (heading, figure), expected in zip(figures, headings, strict=True):
        assert heading.startswith(expected)
        assert heading in page.text
        assert figure.caption in page.text
    data = re.search(r"const FIGURES = (.*);\nconst CONFIG", page.scripts[-1])
    assert data
    drawn = json.loads(data[1])
    assert list(drawn) == [f"figure-{n}" for n in range(1, len(figures) + 1)]
    for (_, figure), one in zip(figures, drawn.values(), strict=True):
        assert len(one["data"]) == len(figure.figure.to_dict()["data"])


def test_the_numbers_of_the_run_are_in_it(finish: Finish, own_family):
    made = finish("essential")
    page = Page(report(made))
    for task in made.report.tasks:
        low, high = task.merged.interval
        assert f"{100 * task.merged.accuracy:.1f} %" in page.text
        assert f"{100 * low:.1f} – {100 * high:.1f} %" in page.text
    for fingerprint in made.report.fingerprints.values():
        assert fingerprint in page.text
    for layer in made.report.layers:
        assert layer.name in page.text
    for name in made.report.options:
        assert name.replace("_", " ") in page.text
    counts = ", ".join(f"{n} {kind}" for kind, n in made.report.coverage.items() if n)
    assert f"{len(made.report.layers)} tensors: {counts}." in page.text
    assert "python -m mats_core measure" in page.text
    assert str(own_family) not in page.text


def test_a_merge_that_was_trained_says_so(finish: Finish):
    made = finish("average")
    assert "trained further" not in Page(report(made)).text
    assert "After the merge" not in Page(report(made)).text
    refined = Refined(4, 3, 256, 1e-4, 64, (Epoch(0, {}, {}, {}),))
    page = Page(report(replace(made, report=replace(made.report, refined=refined))))
    assert "trained further" in page.text
    sentence = "trained: 3 epochs of distillation on 256 unlabelled examples a task."
    assert sentence in page.text


def test_it_needs_nothing_from_outside(finish: Finish):
    text = report(finish("average"))
    page = Page(text)
    for tag, attributes in page.tags:
        assert not {"src", "href", "srcset", "action"} & set(attributes), tag
        assert tag not in ("link", "iframe", "img", "object", "form")
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert text.count(plotly_script()) == 1
    own = text.replace(plotly_script(), "")
    assert "url(" not in own
    assert "://" not in own


def test_plotly_s_share_button_is_gone(finish: Finish):
    # These are the names in the plotly.js that is embedded: where they change, this fails.
    assert "showSendToCloud" in plotly_script()
    assert "sendChartToCloud" in plotly_script()
    assert CONFIG["showSendToCloud"] is False
    assert '"showSendToCloud":false' in report(finish("average"))


def test_names_are_text(finish: Finish):
    made = finish("average")
    tasks = tuple(replace(t, name=HOSTILE) if t.name == "e0" else t for t in made.report.tasks)
    layers = tuple(replace(layer, name=HOSTILE) for layer in made.report.layers[:2])
    hostile = Finished(
        "0", HOSTILE, HOSTILE, made.recipe, replace(made.report, tasks=tasks, layers=layers)
    )
    drawn = run_figures(hostile, {HOSTILE: LOOKS["e0"], **LOOKS})
    page = Page(html_report(hostile, drawn, place=HOSTILE, created=HOSTILE))
    assert not any(tag == "img" for tag, _ in page.tags)
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 2
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert page.text.count(HOSTILE) >= 5
    assert HOSTILE not in page.scripts[-1]


def test_json_for_a_script_gives_the_same_value_and_ends_no_script():
    value = {"a": [HOSTILE, "\u2028", 1.5, None]}
    text = script_json(value)
    assert json.loads(text) == value
    assert "<" not in text
    assert text.isascii()


def test_a_figure_keeps_its_data_and_loses_the_template(finish: Finish):
    figure = run_figures(finish("average"), LOOKS)[0][1].figure
    content = json.loads(to_json(figure))
    assert "template" not in content["layout"]
    assert not {"paper_bgcolor", "plot_bgcolor", "font"} & set(content["layout"])  # the page's
    assert content["layout"]["yaxis"]["tickformat"] == ".0%"


def test_the_same_run_is_the_same_page(finish: Finish):
    made = finish("essential")
    assert report(made, created="2026") == report(made, created="2026")


def test_without_tasks_there_is_a_page_all_the_same(finish: Finish):
    page = Page(report(finish("average", evaluate=False)))
    assert "Accuracies" not in page.text
    assert "What happened to every tensor" in page.text
