"""axe-core over every page in both themes, on a laptop and on a phone: WCAG 2.2 A and AA, and best
practice.

A scene is looked at in two of the four ways, one of each theme and one of each width: dark on the
phone, or light there, in turns, so that a page is seen in all four.
Nothing of the project's is left.  What is Streamlit's, and can be mended there alone, is listed.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest

from tests.browser.conftest import SHIPPED, Visitor, choose, missing, settle
from tests.browser.test_steps import method

pytestmark = pytest.mark.browser

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
LAPTOP, PHONE = 1440, 390
LOOKS = ([("light", LAPTOP), ("dark", PHONE)], [("dark", LAPTOP), ("light", PHONE)])  # in turns
TALL = 5000  # pixels: axe cannot judge the contrast of what is scrolled out of sight

# (rule, what a node lies in) → why it is not ours to mend.
STREAMLITS = {
    ("empty-table-header", "stDataFrame"): (
        "The table that glide-data-grid lays behind its canvas takes heads from the columns' "
        "titles, and its column of ticks has none (glideapps/glide-data-grid)."
    ),
    ("presentation-role-conflict", "stFileUploader"): (
        "react-dropzone gives its section the role (react-dropzone#1182), Streamlit the label and "
        "the tabindex (streamlit#15928)."
    ),
    ("aria-dialog-name", "stToast"): (
        "react-aria names a toast by its slot 'title', into which Streamlit puts no text."
    ),
}

SCAN = """async ([tags]) => {
  // Points, bars and cells of plots say nothing to axe, and it would place each on the page.
  const marks = document.head.appendChild(document.createElement("style"));
  marks.textContent = ".js-plotly-plot g.plot { display: none }";
  const found = await axe.run(document, {runOnly: tags, resultTypes: ["violations"]});
  marks.remove();
  const around = (target) => {  // the testids around a node
    let at = null, root = document;
    for (const step of target.flat()) {
      at = root.querySelector(step);
      root = at?.shadowRoot ?? root;
    }
    const names = [];
    for (; at; at = at.parentElement ?? at.getRootNode().host) names.push(at.dataset?.testid ?? "");
    return names;
  };
  const of = (node) => {  // by its text where it has gone since, as a toast does
    const names = around(node.target);
    return names.length ? names : [/data-testid="(\\w+)"/.exec(node.html)?.[1] ?? ""];
  };
  return found.violations.flatMap((rule) => rule.nodes.map((node) => (
    {rule: rule.id, around: of(node), html: node.html.slice(0, 160),
     why: node.failureSummary.slice(0, 260)})));
}"""

# What axe does not look into: words of plots, against the page.  (Those in the cells of a heatmap
# lie on its colours: tests/figures compares them with these.)
PLOTS = """() => {
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const numbers = (colour) => colour.match(/[0-9.]+/g).map(Number);
  const page = numbers(
    getComputedStyle(document.querySelector("[data-testid=stApp]")).backgroundColor);
  const told = new Map();
  for (const text of document.querySelectorAll(".js-plotly-plot svg text")) {
    if (!text.textContent.trim() || !text.getClientRects().length) continue;
    if (text.closest(".heatmap-label, .hoverlayer")) continue;
    const [r, g, b, a = 1] = numbers(getComputedStyle(text).fill);
    const seen = [r, g, b].map((v, i) => a * v + (1 - a) * page[i]);
    const [low, high] = [light(seen), light(page)].sort((x, y) => x - y);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) told.set(`${ratio.toFixed(2)} of ${text.parentNode.getAttribute("class")}`,
      text.textContent.slice(0, 40));
  }
  return [...told].map(([what, text]) => `${what}: ${text}`);
}"""

# What axe does not ask for: that sections have headings at all, and that these are headings and
# not bold lines.  (In folded boxes bold lines name groups of sliders.)
HEADINGS = """() => {
  const seen = (where) => [...document.querySelectorAll(where)]
    .filter((one) => one.getClientRects().length);
  const levels = seen("h1, h2, h3, h4, h5, h6").map((one) => Number(one.tagName[1]));
  const told = [];
  if (levels.filter((level) => level === 1).length !== 1) told.push(`h1 in ${levels}`);
  if (!levels.includes(2)) told.push("no section has a heading");
  levels.forEach((level, i) => level > (levels[i - 1] ?? 0) + 1 && told.push(`jump in ${levels}`));
  for (const bold of seen("[data-testid=stMarkdownContainer] p > strong:only-child")) {
    const alone = bold.textContent.trim() === bold.parentElement.textContent.trim();
    const inside = bold.closest("[data-testid=stExpander], label, button, [class*=st-key-example]");
    if (alone && !inside) told.push(`bold instead of a heading: ${bold.textContent}`);
  }
  return told;
}"""


@pytest.fixture(scope="module")
def visitor(browser: Any, address: str) -> Iterator[Visitor]:
    try:
        axe = resources.files("axe_playwright_python") / "axe.min.js"
    except ModuleNotFoundError:
        missing("axe-core (the package axe-playwright-python)")
    visitor = Visitor(browser, address)
    visitor.page.add_init_script(axe.read_text("utf-8"))
    visitor.page.goto(address)
    yield visitor
    visitor.leave()


def _nodes(page: Any) -> list[dict[str, Any]]:
    """What axe finds on the page as it is, but for Streamlit's."""
    return [
        node
        for node in page.evaluate(SCAN, [TAGS])
        if not any((node["rule"], name) in STREAMLITS for name in node["around"])
    ]


def violations(visitor: Visitor, scene: str, looks: list[tuple[str, int]]) -> list[str]:
    """What axe finds in a scene under these looks, but for Streamlit's."""
    page, told = visitor.page, []
    for scheme, width in looks:
        page.set_viewport_size({"width": width, "height": TALL})
        page.emulate_media(color_scheme=scheme)
        page.mouse.move(2, 2)  # nothing is hovered
        settle(page)
        if _nodes(page):
            page.wait_for_timeout(2000)  # a busy machine may have been changing the colours
            for node in _nodes(page):
                where = next((name for name in node["around"] if name), "?")
                told.append(
                    f"{scene} · {scheme} {width} · {node['rule']} in {where}: {node['html']}\n"
                    f"    {node['why']}"
                )
        told += [f"{scene} · {scheme} {width} · plot, {one}" for one in page.evaluate(PLOTS)]
        told += [f"{scene} · {scheme} {width} · {one}" for one in page.evaluate(HEADINGS)]
    page.set_viewport_size({"width": LAPTOP, "height": 1000})
    return told


def tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()
    settle(page)


def expand(page: Any, name: str) -> None:
    page.get_by_test_id("stExpander").get_by_text(name, exact=True).first.click()


def of_merge(visitor: Visitor) -> Iterator[str]:
    page = visitor.page
    page.get_by_text(SHIPPED).first.wait_for()
    settle(page)
    expand(page, "Formula and source")
    yield "opening"
    method(page, "Statistics", "Essential Subspace Merging")
    visitor.merge()
    page.get_by_role("heading", name=re.compile(r"\d · ESM")).wait_for()
    page.get_by_text("all there are").wait_for()
    settle(page)
    for name in ("Accuracy", "Polarized scaling", "Layers", "Spectra"):
        tab(page, name)
        yield name
    page.get_by_text("Weights", exact=True).first.click()
    page.get_by_text("Settings changed since this run").wait_for()
    tab(page, "Next")
    yield "settings changed"


def of_compare(visitor: Visitor) -> Iterator[str]:
    visitor.go("Compare")
    for name in ("Accuracy", "Settings", "Predicted loss", "Sweep two settings"):
        tab(visitor.page, name)
        yield name


def of_inside(visitor: Visitor) -> Iterator[str]:
    visitor.go("Inside")
    page = visitor.page
    page.get_by_test_id("stImage").first.wait_for()
    yield "images"
    choose(page, "Layer to step through", 3)
    page.get_by_text("Applied here").wait_for()
    page.get_by_role("button", name="Draw the map").click()
    page.get_by_text("validation examples of").wait_for()
    settle(page)
    yield "one layer, and the map"


def of_subspaces(visitor: Visitor) -> Iterator[str]:
    visitor.go("Subspaces")
    visitor.page.get_by_text("Click a cell to open").wait_for()
    for name in ("Spectra", "Overlap", "Interference", "Protected directions"):
        tab(visitor.page, name)
        yield name


def of_family(visitor: Visitor) -> Iterator[str]:
    visitor.go("Family")
    for name in ("Models", "Before a merge", "Do they fit?"):
        tab(visitor.page, name)
        yield name


def of_learn(visitor: Visitor) -> Iterator[str]:
    page = visitor.page
    visitor.go("Learn")
    page.locator(".toy tr[data-name=average]").wait_for()
    expand(page, "The same with sliders")
    yield "two tasks"
    for name in ("3 · Conjugate gradients", "5 · Polarized scaling"):
        page.get_by_role("radio", name=name).click()
        settle(page)
        yield name
    page.get_by_role("button", name=re.compile("^Open this lesson")).first.click()
    page.get_by_text("Lesson 1 of 6").wait_for()
    settle(page)
    yield "a lesson"
    page.get_by_role("button", name="Close", exact=True).click()


def of_export(visitor: Visitor) -> Iterator[str]:
    visitor.go("Export")
    visitor.page.get_by_role("button", name="Write the model").wait_for()
    for each in visitor.page.get_by_text("Read it", exact=True).all():
        each.click()
    yield "cards"
    yield "cards, in the other two ways"


@pytest.mark.parametrize(
    "scenes", [of_merge, of_compare, of_inside, of_subspaces, of_family, of_learn, of_export]
)
def test_axe_finds_nothing_of_ours(visitor: Visitor, scenes: Any):
    visitor.page.emulate_media(color_scheme="light")
    told = [
        line
        for scene, looks in zip(scenes(visitor), itertools.cycle(LOOKS), strict=False)
        for line in violations(visitor, scene, looks)
    ]
    assert not told, "\n".join(told)
