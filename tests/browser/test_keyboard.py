"""By keyboard and ear alone: a merge is set up, started, cancelled, finished and read.

Every change is announced in one live region, and the focus is never lost to the page's body.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.conftest import PATIENCE, SHIPPED, Visitor, opened

pytestmark = pytest.mark.browser
FOCUSED = "[document.activeElement.tagName, document.activeElement.innerText ?? '']"
MERGED = re.compile(r"^Merged\. \d+ · .+: \d+\.\d % of the experts\.$")


@pytest.fixture
def visitor(browser: Any, address: str) -> Iterator[Visitor]:
    visitor = Visitor(browser, address)
    visitor.page.goto(address)
    opened(visitor.page)
    visitor.page.get_by_text(SHIPPED).first.wait_for()  # the family is prepared, nothing is redrawn
    yield visitor
    visitor.leave()


def tab_to(page: Any, name: str, most: int = 160) -> None:
    """Press Tab, around the page where it must be, until a button or tab so named has the focus."""
    for _ in range(most):
        page.keyboard.press("Tab")
        kind, text = page.evaluate(FOCUSED)
        if name in text.splitlines() and kind not in ("A", "BODY", "MAIN"):
            return
    raise AssertionError(f"{name} is not reached in {most} presses")


def on(page: Any, name: str) -> None:
    """The focus comes to the button of this name, and is seen there."""
    button = page.get_by_role("button", name=name, exact=True).first
    from playwright.sync_api import expect

    expect(button).to_be_focused()
    expect(button).to_be_in_viewport()


def test_a_merge_is_set_up_started_cancelled_finished_and_read_by_the_keyboard(visitor: Visitor):
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE)
    page = visitor.page
    status = page.locator(".st-key-voice [role=status]")
    expect(status).to_have_text("")

    tab_to(page, "Presets")
    page.keyboard.press("Enter")
    item = page.get_by_role("menuitem", name="MaTS as published")
    item.wait_for()
    for _ in range(12):
        if item.evaluate("item => item === document.activeElement"):
            break
        page.keyboard.press("ArrowDown")
        page.wait_for_timeout(100)  # the focus follows in a moment
    page.keyboard.press("Enter")
    expect(status).to_have_text(re.compile("^MaTS as published: "))
    on(page, "Presets")

    tab_to(page, "Merge")
    page.keyboard.press("Enter")
    expect(status).to_have_text(re.compile("^Merging by K-FAC"))
    on(page, "Merge")
    page.get_by_role("button", name="Cancel").wait_for()
    tab_to(page, "Cancel")
    page.keyboard.press("Enter")
    expect(status).to_have_text("The merge was cancelled; nothing was kept of it.")
    page.get_by_role("button", name="Cancel").wait_for(state="detached")
    page.wait_for_function("document.activeElement !== document.body")
    assert page.evaluate("document.activeElement.getBoundingClientRect().width") > 8, "it is seen"

    tab_to(page, "Reset")
    page.keyboard.press("Enter")
    expect(status).to_have_text("Every setting is as it was at the beginning.")
    tab_to(page, "Merge")
    page.keyboard.press("Enter")
    expect(status).to_have_text(MERGED)
    tab_to(page, "Accuracy")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.innerText") == "Convergence"
    page.get_by_text("layers converged").wait_for()
