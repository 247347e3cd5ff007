"""The fifteen steps on which the first explorer went wrong, walked in a browser.

B5, B9, B11 and B15 are walked elsewhere: `test_journey` (experts are left out in a click each, a
menu of presets that closes), `test_hands` (one press of Back; formulas, toolbars, focus),
`test_accessibility` (contrast, in both themes) and `test_drafts` of the pages (Greek in tooltips).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Visitor, choose, opened, settle

pytestmark = pytest.mark.browser
LONG = 6  # presses from one iteration of K-FAC to ten, several times as long as a reload takes


@pytest.fixture
def visitor(browser: Any, tiny: str) -> Iterator[Visitor]:
    """A new visitor of the tiny family."""
    visitor = fresh(browser, tiny)
    yield visitor
    visitor.leave()


def fresh(browser: Any, address: str, *, alone: bool = False) -> Visitor:
    visitor = Visitor(browser, address, alone=alone)
    visitor.page.goto(address)
    opened(visitor.page)
    return visitor


def method(page: Any, group: str, name: str) -> None:
    page.get_by_text(group, exact=True).first.click()
    settle(page)
    choose(page, "Method", name)
    settle(page)


def merged(visitor: Visitor) -> str:
    """Merge as the page is set, to the end; returns the name of the run."""
    said = visitor.page.locator(".st-key-voice [role=status]")
    said.evaluate("status => { status.textContent = ''; }")
    visitor.merge()
    said.filter(has_text=re.compile(r"^Merged\. ")).wait_for(state="attached")
    settle(visitor.page)
    return shown(visitor)


def shown(visitor: Visitor) -> str:
    heading = visitor.page.get_by_role("heading", name=re.compile(r"^\d+ · ")).first
    heading.wait_for()
    return heading.inner_text()


def test_b1_a_second_merge_does_not_coarsen_what_was_tested_finely(browser: Any, address: str):
    visitor = fresh(browser, address)
    method(visitor.page, "Weights", "Average")
    for _ in range(2):
        visitor.merge()
        visitor.page.get_by_text("all there are").wait_for()
    link = visitor.page.url
    visitor.merge()
    visitor.leave()  # the tab is closed at once
    again = Visitor(browser, address)
    again.page.goto(link)
    again.page.get_by_text("all there are").wait_for()
    again.leave()


def test_b2_no_difference_of_other_tasks_is_shown(visitor: Visitor):
    page = visitor.page
    merged(visitor)
    page.get_by_text("Experts and arithmetic").click()
    page.get_by_test_id("stButtonGroup").get_by_text("e1", exact=True).click()
    page.get_by_text("2 of 3 experts are merged").wait_for()
    two = merged(visitor)
    assert not page.get_by_test_id("stMetricDelta").count(), two


def test_b3_live_merges_from_the_first_touch(visitor: Visitor):
    page = visitor.page
    page.get_by_text("Live: merge at every change of a knob").click()
    settle(page)
    assert not page.get_by_test_id("stMetric").count()
    knob = page.get_by_role("slider", name="Scaling").first
    knob.focus()
    knob.press("ArrowLeft")
    page.get_by_test_id("stMetric").first.wait_for()


def test_b4_links_open_their_run_and_b13_a_new_visitor_sees_none(
    browser: Any, tiny: str, visitor: Visitor
):
    page = visitor.page
    first, link = merged(visitor), page.url
    knob = page.get_by_role("slider", name="Scaling").first
    knob.focus()
    knob.press("ArrowLeft")
    settle(page)
    assert merged(visitor) != first
    named = link.partition("?")[2]
    for title in ("Compare", "Inside", "Export"):
        other = Visitor(browser, tiny)
        other.page.goto(f"{tiny}/{title.lower()}?{named}")
        other.page.get_by_role("heading", name=title, level=1, exact=True).wait_for()
        settle(other.page)
        if title != "Compare":  # whose list is a canvas
            chosen = other.page.get_by_role("combobox", name="Run", exact=True)
            assert chosen.input_value() == first or chosen.inner_text() == first, title
        other.go("Merge")
        assert shown(other) == first, title
        other.leave()
    new = fresh(browser, tiny, alone=True)
    assert not new.page.get_by_test_id("stMetric").count()
    assert not new.page.get_by_text("Settings changed since this run").count()
    new.leave()


def test_b6_a_reload_finds_the_running_merge_and_its_result(browser: Any, address: str):
    visitor = fresh(browser, address)
    page = visitor.page
    page.get_by_role("button", name="Presets").click()
    page.get_by_role("menuitem", name="MaTS as published").click()
    iterations = page.get_by_role("slider", name="CG iterations")
    iterations.focus()
    iterations.press("Home")
    for _ in range(LONG):
        iterations.press("ArrowRight")
    settle(page)
    before = page.url  # of a merge that came with the family
    visitor.merge()
    page.wait_for_url(lambda url: "run=" in url and url != before)
    page.reload()
    page.get_by_role("button", name="Cancel").wait_for()
    assert "K-FAC" in shown(visitor)
    visitor.leave()


def test_b7_the_numbers_to_take_away_have_a_name_each(visitor: Visitor, tmp_path: Path):
    page = visitor.page
    merged(visitor)
    with page.expect_download() as started:
        page.get_by_role("button", name="CSV", exact=True).first.click()
    started.value.save_as(tmp_path / "accuracy.csv")
    rows = list(csv.DictReader((tmp_path / "accuracy.csv").open()))
    wanted = {"task", "model", "value", "low", "high", "examples", "split"}
    assert wanted <= set(rows[0]), rows[0]
    assert {row["task"] for row in rows} >= {"e0", "e1", "e2"}


def test_b8_a_family_is_opened_when_its_file_is_mended(
    visitor: Visitor, tiny_family: Path, request: pytest.FixtureRequest
):
    page, file = visitor.page, tiny_family / "t1.npz"
    whole = file.read_bytes()
    request.addfinalizer(lambda: file.write_bytes(whole))
    file.write_bytes(b"broken")
    reset = page.get_by_role("button", name="Reset", exact=True)
    reset.click()
    page.get_by_test_id("stAlertContentError").first.wait_for()
    file.write_bytes(whole)
    reset.click()
    page.get_by_role("heading", name="What there is to gain").wait_for()
    assert not page.get_by_test_id("stAlertContentError").count()


def test_b10_a_pin_reaches_merge_and_outlives_a_reload(visitor: Visitor):
    page = visitor.page
    first = merged(visitor)
    knob = page.get_by_role("slider", name="Scaling").first
    knob.focus()
    knob.press("ArrowRight")
    settle(page)
    second = merged(visitor)
    visitor.go("Compare")
    settle(page)
    choose(page, "With run", first)
    settle(page)
    page.get_by_role("button", name="Pin as baseline").click()
    settle(page)
    for again in (False, True):
        visitor.go("Merge")
        if again:
            page.reload()
        assert shown(visitor) == second
        settle(page)
        pin = page.get_by_role("switch", name="Pin")
        assert pin.is_checked(), "after a reload" if again else "on Merge"
        assert page.get_by_role("combobox", name="Compare with").input_value() == first
    pin.click(force=True)


def test_b12_what_cannot_be_merged_is_said_before_the_press(visitor: Visitor):
    page = visitor.page
    method(page, "Weights", "SLERP")
    page.get_by_test_id("stAlertContentError").get_by_text("exactly 2").wait_for()
    press = page.get_by_test_id("stButton").get_by_role("button", name="Merge", exact=True)
    assert press.is_disabled()
    method(page, "Weights", "Average")
    assert press.is_enabled()
    assert not page.get_by_test_id("stAlertContentError").count()


def test_b14_a_trace_is_seen_when_it_is_finished(visitor: Visitor):
    page = visitor.page
    method(page, "Statistics", "K-FAC block (MaTS)")
    merged(visitor)
    page.get_by_role("tab", name="Convergence").click()
    page.get_by_test_id("stButtonGroup").get_by_text("50", exact=True).click()
    page.get_by_role("button", name="Trace the accuracy").click()
    page.get_by_role("heading", name="The solve as a film").wait_for()


def test_b14_the_tabs_of_compare_stay_during_a_sweep(visitor: Visitor):
    page = visitor.page
    merged(visitor)
    visitor.go("Compare")
    page.get_by_role("tab", name="Sweep two settings").click()
    settle(page)
    tabs = page.get_by_role("tab").count()
    assert tabs >= 6
    page.get_by_role("button", name="Sweep", exact=True).click()
    use = page.get_by_role("button", name="Use these settings")
    for _ in range(400):
        assert page.get_by_role("tab").count() == tabs
        if use.count():
            break
        page.wait_for_timeout(200)
    use.wait_for()
    assert page.get_by_role("tab", name="Sweep two settings").get_attribute("aria-selected")
