"""The questions of a student, each answered with the numbers of a run in at most three clicks.

They begin on the page Merge, which shows a run: that of ESM, on which most of them measure
something else each, is opened by its link once it is made.  Merges that a question is about besides
are made on the way.  With `MATS_SCREENSHOTS=folder` every answer leaves a picture there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest

from tests.browser.conftest import Visitor, settle
from tests.browser.test_steps import fresh, merged, method, shown

pytestmark = pytest.mark.browser
MOST = 3  # clicks
ESM = "Essential Subspace Merging"


@dataclass(frozen=True)
class Question:
    """By which method the run is made, what is clicked (kind, how its name begins), and where the
    answer stands then."""

    asked: str
    group: str
    by: str
    clicks: tuple[tuple[str, str], ...]
    answer: str


QUESTIONS = (
    Question("Why does averaging fail here", "Weights", "Average",
             (("link", "Learn"), ("button", "Open this lesson: Why does averaging fail"),
              ("radio", "None of these")),
             "text=/rank correlation [+−]/"),
    Question("What does RegMean see", "Statistics", "RegMean (input Gram)",
             (("link", "Learn"), ("button", "Open this lesson: What does RegMean see"),
              ("radio", "Less than a quarter")),
             "text=/RegMean is .* points .* from Average/"),
    Question("Why can more CG iterations hurt", "Statistics", "K-FAC block (MaTS)",
             (("tab", "Convergence"), ("button", "Trace the accuracy")),
             "[class*=st-key-figure-trajectory-tasks]"),
    Question("Which layers matter", "Statistics", ESM,
             (("link", "Inside"), ("button", "Load the parts one by one")),
             "[class*=st-key-figure-loading-steps]"),
    Question("What does damping do", "Statistics", "K-FAC block (MaTS)",
             (("tab", "Convergence"), ("button", "Trace the accuracy")),
             "[class*=st-key-figure-trajectory] >> text=undamped"),
    Question("Which tasks conflict and why", "Statistics", ESM,
             (("tab", "Next"), ("button", "Which of its tasks conflict"), ("button", "Measure: ")),
             "text=/Lowest: .* changes .* by /"),
    Question("What would fewer tasks do", "Statistics", ESM,
             (("tab", "Next"), ("button", "What would fewer tasks do"), ("button", "Measure: ")),
             "text=/against the merge of all but one, answer by answer/"),
    Question("What would other weights do", "Weights", "Average",
             (("expander", "Experts and arithmetic"), ("more", ""), ("button", "Merge")),
             "[data-testid=stMetricDelta]"),
    Question("How big is the subspace of a task", "Statistics", ESM,
             (("link", "Subspaces"),),
             "[class*=st-key-figure-family]"),
    Question("Does polarized scaling help and whom", "Statistics", ESM,
             (("link", "Compare"), ("tab", "Step by step"), ("button", "Merge all ")),
             "button:has-text('Use these settings')"),
    Question("Could I have known before testing", "Statistics", ESM,
             (("link", "Compare"), ("tab", "Predicted loss"), ("button", "Predict and measure")),
             "text=/rank correlation [+−]/"),
)  # fmt: skip


def click(visitor: Visitor, kind: str, name: str) -> None:
    page = visitor.page
    begins = re.compile(f"^{re.escape(name)}")
    if kind == "link":
        visitor.go(name)
    elif kind == "expander":
        page.get_by_test_id("stExpander").get_by_text(name, exact=True).first.click()
    elif kind == "more":
        page.get_by_test_id("stNumberInputStepUp").first.click()
    elif kind == "radio":
        page.get_by_test_id("stRadio").get_by_text(name, exact=True).click()
    elif kind == "tab":
        page.get_by_role("tab", name=name, exact=True).click()
    else:
        page.locator("[data-testid=stMain]").get_by_role("button", name=begins).first.click()
    settle_unless_working(page)


def settle_unless_working(page: Any) -> None:
    """Until Streamlit is at rest, or says that it is at work."""
    page.wait_for_timeout(400)
    if not page.get_by_test_id("stProgress").count():
        settle(page)


@pytest.fixture(scope="module")
def links() -> list[str]:
    """The link to the run of ESM, once it is made."""
    return []


def begun(browser: Any, tiny: str, question: Question, links: list[str]) -> Visitor:
    """A new visitor of the page Merge, which shows the run that a question begins with."""
    merges = any(name.startswith("Merge") for kind, name in question.clicks if kind == "button")
    if question.by == ESM and links and not merges:  # it would merge with the settings of the page
        visitor = Visitor(browser, tiny)
        visitor.page.goto(links[0])
        shown(visitor)
        settle(visitor.page)
        return visitor
    visitor = fresh(browser, tiny)
    method(visitor.page, question.group, question.by)
    merged(visitor)
    if question.by == ESM:
        links.append(visitor.page.url)
    return visitor


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.asked)
def test_a_question_is_answered_in_three_clicks(
    browser: Any, tiny: str, question: Question, links: list[str]
):
    visitor = begun(browser, tiny, question, links)
    assert len(question.clicks) <= MOST
    for kind, name in question.clicks:
        click(visitor, kind, name)
    visitor.page.locator(question.answer).first.wait_for()
    visitor.picture(f"question-{question.asked.lower().replace(' ', '-')}")
    visitor.leave()
