"""Every point of the explorer, walked through in a real browser on the sample family."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import SHIPPED, Visitor, choose

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def visitor(browser: Any, address: str) -> Iterator[Visitor]:
    """One visitor who goes through all tests of this module, in their order."""
    visitor = Visitor(browser, address)
    visitor.page.goto(address)
    yield visitor
    visitor.leave()


def normalised(page: Any) -> float:
    tile = page.get_by_test_id("stMetric").filter(has_text="Normalised accuracy").first
    tile.wait_for()
    found = re.search(r"(\d+\.\d) %", tile.inner_text())
    assert found, tile.inner_text()
    return float(found[1])


def tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def test_merge_from_the_opening_to_the_accuracy(visitor: Visitor):
    page = visitor.page
    page.get_by_role("heading", name="2 · Sequential").wait_for()
    page.get_by_test_id("stMetric").filter(has_text="vs 1").first.wait_for()
    page.get_by_text(SHIPPED).wait_for()
    visitor.picture("merge-opening")

    choose(page, "Method", "Essential Subspace Merging")
    level = page.get_by_role("slider", name="Power of 3 · layers")
    level.focus()
    for _ in range(4):
        level.press("ArrowLeft")
    visitor.merge()
    page.get_by_role("heading", name=re.compile(r"\d · ESM · layer power 1.0")).wait_for()
    first = normalised(page)
    assert 30 < first <= 130
    page.get_by_text("On average the merged model keeps").wait_for()
    chart = page.locator(".js-plotly-plot").first
    chart.get_by_text("3 · ESM · layer power 1.0").wait_for()
    page.get_by_text("all there are").wait_for()
    assert "run=" in page.url
    visitor.picture("merge-first")
    tab(page, "Polarized scaling")
    page.get_by_text("How loud each task speaks").wait_for()
    visitor.picture("merge-weights")


def test_merge_average_beside_it_and_settings_that_changed(visitor: Visitor):
    page = visitor.page
    page.get_by_text("Weights", exact=True).first.click()
    page.get_by_text("Settings changed since this run").wait_for()
    visitor.merge()
    page.get_by_test_id("stMetric").filter(has_text="vs 3").first.wait_for()
    tab(page, "Accuracy")
    page.get_by_text("points against").wait_for()
    visitor.picture("merge-beside")


def test_merge_by_conjugate_gradients_and_the_film(visitor: Visitor):
    page = visitor.page
    page.get_by_role("button", name="Presets").click()
    page.get_by_role("menuitem", name="MaTS as published").click()
    page.get_by_role("slider", name="CG iterations").wait_for()
    assert not page.get_by_role("menuitem").count(), "the menu is closed"
    visitor.merge()
    page.get_by_role("button", name="Cancel").wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_test_id("stAlert").get_by_text("The merge was cancelled").wait_for(timeout=10_000)
    iterations = page.get_by_role("slider", name="CG iterations")
    iterations.focus()
    iterations.press("Home")
    for _ in range(4):
        iterations.press("ArrowRight")
    visitor.merge()
    tab(page, "Convergence")
    page.get_by_text("layers converged").wait_for()
    page.get_by_test_id("stButtonGroup").get_by_text("50", exact=True).click()
    page.get_by_role("button", name="Trace the accuracy").click()
    page.get_by_text("The solve as a film").wait_for()
    film = page.get_by_role("slider", name=re.compile("^Iteration"))
    film.focus()
    film.press("Home")
    page.get_by_test_id("stMetric").filter(has_text="Distance to the start").get_by_text(
        "0.00"
    ).wait_for()
    visitor.picture("merge-film")


def test_experts_are_left_out_in_a_click_each(visitor: Visitor):
    page = visitor.page
    page.get_by_text("Experts and arithmetic").click()
    names = page.get_by_test_id("stButtonGroup")
    for name in ("digits", "shapes", "counting", "letters", "flags", "textures"):
        names.get_by_text(name, exact=True).click()
    page.get_by_text("2 of 8 experts are merged").wait_for()
    assert names.get_by_text("digits", exact=True).is_visible(), "the panel stays open"
    page.get_by_role("button", name="Reset", exact=True).click()


def test_compare_lists_pins_and_sweeps(visitor: Visitor):
    page = visitor.page
    visitor.go("Compare")
    page.get_by_text("Accuracy in percent").wait_for()
    visitor.picture("compare-accuracy")
    page.get_by_role("button", name="Pin as baseline").click()
    tab(page, "Settings")
    visitor.picture("compare-settings")
    tab(page, "Predicted loss")
    visitor.picture("compare-predicted")
    tab(page, "Sweep two settings")
    visitor.picture("compare-sweep")


def test_inside_shows_lost_images(visitor: Visitor):
    page = visitor.page
    visitor.go("Inside")
    page.get_by_text("The images", exact=True).wait_for()
    page.get_by_test_id("stImage").first.wait_for()
    visitor.picture("inside")


def test_a_layer_says_its_symbols_and_the_map_travels(visitor: Visitor):
    page = visitor.page
    choose(page, "Layer to step through", 3)
    page.get_by_text("Applied here").wait_for()
    symbol = page.locator(".formula abbr").nth(1)
    symbol.focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")  # by the keyboard, so that the place is seen
    told = symbol.evaluate("e => getComputedStyle(e, '::after').content")
    assert told.strip('"') == symbol.get_attribute("aria-label")
    page.get_by_role("button", name="Draw the map").click()
    page.get_by_text("validation examples of").wait_for()
    page.wait_for_timeout(1500)
    drawn = page.locator(".js-plotly-plot").filter(has=page.locator(".slider-container")).last
    points = drawn.locator("path.point")
    before = [points.nth(i).get_attribute("transform") for i in range(20)]
    page.get_by_text("0.5", exact=True).and_(page.locator(".slider-label")).click(force=True)
    page.wait_for_timeout(1500)
    after = [points.nth(i).get_attribute("transform") for i in range(20)]
    assert before[0]
    assert before != after, "the points have travelled"
    visitor.picture("inside-map")


def test_subspaces_shows_the_whole_family(visitor: Visitor):
    page = visitor.page
    visitor.go("Subspaces")
    page.get_by_text("Click a cell to open").wait_for()
    page.locator(".js-plotly-plot").nth(1).wait_for()
    for name in ("Overlap", "Interference", "Protected directions"):
        tab(page, name)
        page.wait_for_timeout(1500)
        visitor.picture(f"subspaces-{name.split()[0].lower()}")


def test_family_shows_cards_costs_and_fit(visitor: Visitor):
    page = visitor.page
    visitor.go("Family")
    page.get_by_test_id("stMetric").filter(has_text="Expert").first.wait_for()
    visitor.picture("family")


def test_a_lesson_leads_to_the_merge_page_and_asks(visitor: Visitor):
    page = visitor.page
    visitor.go("Learn")
    visitor.picture("learn")
    page.get_by_role("button", name=re.compile("lesson", re.I)).first.click()
    page.get_by_text("Lesson 1 of 6").wait_for()
    visitor.picture("lesson")


def test_export_writes_the_model_and_hands_out_the_recipe(visitor: Visitor, tmp_path: Path):
    page = visitor.page
    visitor.go("Export")
    page.get_by_role("button", name="Write the model").wait_for()
    visitor.picture("export")
    with page.expect_download() as started:
        page.get_by_role("button", name="Report", exact=True).click()
    report = tmp_path / "report.html"
    started.value.save_as(report)
    text = report.read_text("utf-8")
    assert "Plotly" in text
    assert "http-equiv" in text
    assert not zipfile.is_zipfile(report)


def test_a_reload_finds_the_runs_and_a_link_opens_one(visitor: Visitor, address: str):
    page = visitor.page
    visitor.go("Merge")
    shown = normalised(page)
    link = page.url
    assert "run=" in link
    page.goto(address)
    page.get_by_role("heading", name="2 · Sequential").wait_for()
    visitor.picture("merge-earlier")
    choose(page, "Showing", "3 · ESM")
    page.get_by_role("heading", name="3 · ESM").wait_for()
    assert normalised(page) > 0
    page.goto(link)
    assert normalised(page) == shown


@pytest.mark.parametrize(("scheme", "width"), [("dark", 1360), ("light", 390)])
def test_every_page_in_the_dark_and_on_a_phone(
    browser: Any, address: str, scheme: str, width: int, visitor: Visitor
):
    other = Visitor(browser, address, width, scheme)
    other.page.goto(visitor.page.url)  # of a run
    normalised(other.page)
    other.picture("merge")
    for title, ready in (
        ("Compare", "Accuracy in percent"),
        ("Inside", "The images"),
        ("Subspaces", "Click a cell to open"),
        ("Family", "The gap that a merge has to close"),
        ("Learn", "Try this"),
        ("Export", "Write the model"),
    ):
        other.go(title)
        other.page.get_by_text(ready).first.wait_for()
        other.picture(title.lower())
    other.leave()
