"""By hand: Back in one press, titles, formulas, text at twice its size, toolbars, the keyboard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.browser.conftest import Visitor, choose, opened, settle

pytestmark = pytest.mark.browser
PAGES = ("Compare", "Inside", "Subspaces", "Family", "Learn", "Export")


@pytest.fixture
def visitor(browser: Any, address: str) -> Iterator[Visitor]:
    visitor = Visitor(browser, address)
    visitor.page.goto(address)
    visitor.page.get_by_role("heading", name="Merge", exact=True).wait_for()
    yield visitor
    visitor.leave()


def steps(page: Any) -> int:
    return page.evaluate("history.length")


def test_every_page_is_one_step_of_the_history_and_back_is_one_press(visitor: Visitor):
    page = visitor.page
    before = steps(page)
    # What the family opens with is shown when it is read: then the address names it, in place.
    page.wait_for_url(re.compile("run="))
    page.wait_for_timeout(600)
    assert steps(page) == before, "nothing to go back to on the way in"
    for count, title in enumerate(PAGES, 1):
        visitor.go(title)
        if title != "Learn":  # which is about no family
            page.wait_for_url(re.compile("family="))
        page.wait_for_timeout(600)
        assert steps(page) == before + count, title
        assert page.title() == f"{title} · MaTS Explorer"
    for title in [*reversed(PAGES[:-1]), "Merge"]:
        page.go_back()
        page.get_by_role("heading", name=title, level=1, exact=True).wait_for(timeout=30_000)
    page.wait_for_timeout(600)
    assert steps(page) == before + len(PAGES), "nothing was added on the way back"


def test_a_lesson_is_one_step_and_names_itself(visitor: Visitor):
    page = visitor.page
    visitor.go("Learn")
    before = steps(page)
    page.get_by_role("button", name="Open this lesson: Why does averaging").click()
    page.get_by_text("Lesson 1 of 6").wait_for()
    page.wait_for_url(re.compile("family="))
    page.wait_for_timeout(600)
    assert page.title() == "Lesson 1: Why does averaging fail here? · Merge · MaTS Explorer"
    page.go_back()
    page.get_by_role("heading", name="Learn", level=1, exact=True).wait_for(timeout=30_000)
    assert steps(page) == before + 1


def test_a_link_with_settings_is_one_step_and_holds_them_no_longer(browser: Any, tiny: str):
    visitor = Visitor(browser, tiny)
    page = visitor.page
    page.goto(f"{tiny}/learn")
    page.get_by_role("heading", name="Learn", exact=True).wait_for()
    given = {"method": "kfac", "options": {"damping": 0.5}, "experts": ["e0", "e1"],
             "weights": {}, "rounds": 1}  # fmt: skip
    page.goto(f"{tiny}/?{urlencode({'settings': json.dumps(given)})}")
    page.get_by_text("2 of 3 experts are merged").wait_for()
    page.wait_for_url(re.compile("family="))
    page.wait_for_timeout(600)
    assert "settings" not in page.url
    assert steps(page) == 3, "an empty page, Learn, and the link"
    page.go_back()
    page.get_by_role("heading", name="Learn", exact=True).wait_for(timeout=20_000)
    visitor.leave()


BIG = """document.addEventListener('DOMContentLoaded', () => {
  const style = document.createElement('style');
  style.textContent = 'html { font-size: 200% !important }';
  document.head.append(style);
})"""
CUT = """(where) => [...document.querySelectorAll(where)]
  .filter((one) => one.getClientRects().length && one.scrollWidth > one.clientWidth + 1)
  .map((one) => `${one.textContent.slice(0, 60)}: ${one.scrollWidth} > ${one.clientWidth}`)"""
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
NUMBERS = "[data-testid=stMetricValue] div, [data-testid=stMetricLabel]"


def test_letters_of_twice_the_size_are_not_cut_on_a_phone(browser: Any, address: str):
    visitor = Visitor(browser, address, width=390)
    page = visitor.page
    page.add_init_script(BIG)
    page.goto(address)
    visitor.merge()
    page.get_by_test_id("stMetric").first.wait_for()
    for title in ("Merge", *PAGES):
        if title != "Merge":
            visitor.go(title)  # by the button of the navigation, which is in sight
        page.wait_for_timeout(1500)
        assert page.evaluate(WIDER) <= 0, title
        assert page.evaluate(CUT, NUMBERS) == [], title
        button = page.get_by_test_id("stExpandSidebarButton").bounding_box()
        assert button["x"] + button["width"] <= 390, title
    visitor.leave()


def test_formulas_are_seen_whole(browser: Any, address: str):
    visitor = Visitor(browser, address)
    page = visitor.page
    page.goto(address)
    formula = page.get_by_text("Formula and source", exact=True)
    formula.wait_for()
    seen, cut = set(), []
    for group in ("Statistics", "Task vectors", "Weights"):
        page.get_by_text(group, exact=True).first.click()
        settle(page)
        method = page.get_by_role("combobox", name="Method", exact=True)
        method.click()
        names = page.get_by_role("option").all_inner_texts()
        page.keyboard.press("Escape")
        for name in names:
            choose(page, "Method", name)
            settle(page)
            needs = page.get_by_text(f"{name} needs")
            if not needs.is_visible():
                formula.click()
            needs.wait_for(timeout=20_000)
            for width in (390, 1440):
                page.set_viewport_size({"width": width, "height": 1000})
                page.wait_for_function("width => innerWidth === width", arg=width)
                cut += [f"{width} px: {one}" for one in page.evaluate(CUT, ".katex-display")]
            seen.add(name)
    assert len(seen) >= 13
    assert cut == [], cut
    visitor.leave()


def apart(one: dict[str, float], other: dict[str, float]) -> bool:
    """Whether two boxes have no point in common."""
    along = one["x"] + one["width"] <= other["x"] or other["x"] + other["width"] <= one["x"]
    above = one["y"] + one["height"] <= other["y"] or other["y"] + other["height"] <= one["y"]
    return along or above


# All at once: a hundred words of a plot are as many questions to the browser else.
WORDS = """(plot) => [...plot.querySelectorAll('svg text')].map((word) => {
  const {x, y, width, height} = word.getBoundingClientRect();
  return {x, y, width, height};
})"""
BELOW = """(plot) => plot.querySelector('.main-svg').getBoundingClientRect().bottom
  - plot.closest('[data-testid=stElementContainer]').getBoundingClientRect().bottom"""


def test_the_toolbar_of_a_plot_covers_none_of_its_words(visitor: Visitor):
    page = visitor.page
    visitor.go("Subspaces")
    page.get_by_text("Click a cell to open").wait_for()
    for plot in page.locator(".js-plotly-plot").all():
        plot.scroll_into_view_if_needed()
        plot.hover()
        bar = plot.locator(".modebar").first.bounding_box()
        words = plot.evaluate(WORDS)
        x, y = bar["x"] + bar["width"] / 2, bar["y"] + bar["height"] / 2
        assert page.evaluate("([x, y]) => !!document.elementFromPoint(x, y).closest('.modebar')",
                             [x, y]), "the toolbar is seen"  # fmt: skip
        assert plot.evaluate(BELOW) <= 1, "the plot is seen whole"
        assert words, "a plot has words"
        assert [box for box in words if box["width"] and not apart(bar, box)] == []


FOCUS = """() => {
  const style = getComputedStyle(document.activeElement);
  return [style.outlineStyle, parseFloat(style.outlineWidth)];
}"""


def test_the_keyboard_is_seen_on_links_to_pages(visitor: Visitor):
    page = visitor.page
    settle(page)
    page.get_by_role("link", name="Compare", exact=True).first.focus()
    page.keyboard.press("Tab")  # so that it is the keyboard's focus
    assert page.evaluate("document.activeElement.tagName") == "A"
    kind, width = page.evaluate(FOCUS)
    assert kind == "solid"
    assert width >= 2


def test_on_a_phone_a_press_on_merge_shows_that_something_happens(browser: Any, address: str):
    visitor = Visitor(browser, address, width=390)
    page = visitor.page
    page.goto(address)
    page.get_by_test_id("stProgress").wait_for(state="detached")
    visitor.merge()
    page.wait_for_timeout(1500)
    page.get_by_role("heading", name=re.compile("examples 32")).wait_for()
    page.wait_for_timeout(500)
    top = page.get_by_role("heading", name=re.compile("examples 32")).bounding_box()["y"]
    assert 0 < top < 844, "the result is in sight"
    visitor.leave()


def test_what_is_being_done_stays_in_sight_and_can_be_cancelled_from_anywhere(
    browser: Any, address: str
):
    visitor = Visitor(browser, address, width=390)
    page = visitor.page
    page.goto(address)
    opened(page)
    page.get_by_role("button", name="Presets").click()
    page.get_by_role("menuitem", name="MaTS as published").click()
    page.get_by_role("slider", name="CG iterations").wait_for()
    visitor.merge()
    page.get_by_role("button", name="Cancel").wait_for()
    page.evaluate("document.querySelector('[data-testid=stMain]').scrollTo(0, 1e5)")
    page.wait_for_timeout(600)
    for seen in (page.get_by_test_id("stProgress"), page.get_by_role("button", name="Cancel")):
        box = seen.bounding_box()
        assert 50 < box["y"] < 150, "below the header"
    page.get_by_role("button", name="Cancel").click()
    page.get_by_test_id("stAlert").get_by_text("The merge was cancelled").wait_for()
    visitor.leave()
