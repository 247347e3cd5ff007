"""From three folders to a first merge, in a real browser: every click is counted, no file is
written by hand, nothing is restarted.

With `MATS_SCREENSHOTS=folder` every step leaves a picture there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mats_core.recipes import load_family
from tests.browser.conftest import Visitor, served
from tests.conftest import make_task, vit

pytestmark = pytest.mark.browser
CLASSES = {"animals": 3, "vehicles": 4}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and two experts as a trainer leaves them, and examples of one task."""
    import torch

    folder = tmp_path_factory.mktemp("models") / "trained"
    base = vit(5, [f"class {k}" for k in range(5)], seed=0)
    base.save_pretrained(folder / "vit-tiny")
    for seed, (name, classes) in enumerate(CLASSES.items(), 1):
        names = [f"{name} {k}" for k in range(classes)]
        expert, own = vit(classes, names, seed=seed), base.state_dict()
        moved = {k: v + 0.004 * torch.randn_like(v) for k, v in own.items()}
        heads = {k: v for k, v in expert.state_dict().items() if k.startswith("classifier")}
        expert.load_state_dict({**moved, **heads})
        expert.save_pretrained(folder / f"vit-tiny-{name}")
    make_task(folder / "animals.npz", 3, 1, [f"animals {k}" for k in range(3)])
    return folder


@pytest.fixture(scope="module")
def address(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("app") / "log"
    with served(log, MATS_FAMILIES=str(root), HF_HOME=str(root.parent / "hub")) as address:
        yield address


class Counted:
    """Clicks by the names of what is clicked, with a picture after each."""

    def __init__(self, visitor: Visitor) -> None:
        self.visitor, self.clicks = visitor, list[str]()

    def press(self, name: str, then: str) -> None:
        page = self.visitor.page
        place = page.get_by_test_id("stButton").get_by_role("button", name=name, exact=True)
        place.first.click()
        page.get_by_text(then).first.wait_for()
        self.clicks.append(name)
        self.visitor.picture(f"new-family-{len(self.clicks)}")


def test_three_folders_become_a_merge_in_five_clicks(browser: Any, address: str, root: Path):
    visitor = Visitor(browser, address)
    visitor.page.goto(f"{address}/family")
    hand = Counted(visitor)
    visitor.page.get_by_role("button", name="New family").first.wait_for()
    visitor.picture("new-family-0")
    hand.press("New family", "1. The base")
    hand.press("Save and go to Merge", "Press Merge.")
    hand.press("Merge", "1 · Task Arithmetic")
    assert len(hand.clicks) <= 5
    (file,) = root.glob("*/family.yaml")
    family = load_family(file)
    assert family.base == "../vit-tiny"
    assert [(expert.name, expert.task) for expert in family.experts] == [
        ("vit-tiny-animals", "../animals.npz"),  # found by the classes of its head
        ("vit-tiny-vehicles", None),
    ]
    visitor.leave()


@pytest.mark.parametrize(("scheme", "width"), [("dark", 1360), ("light", 390)])
def test_by_keyboard_in_the_dark_and_on_a_phone(
    browser: Any, address: str, root: Path, scheme: str, width: int
):
    visitor = Visitor(browser, address, width, scheme)
    page = visitor.page
    page.goto(f"{address}/family")
    begin = page.get_by_role("button", name="New family")
    begin.first.wait_for()
    begin.first.focus()
    page.keyboard.press("Enter")
    page.get_by_text("1. The base").first.wait_for()
    box = page.get_by_role("checkbox", name=re.compile("vehicles"))
    box.wait_for(state="attached")  # the mark beside it is what is seen
    assert box.is_checked()
    box.focus()
    page.keyboard.press("Space")
    page.get_by_text("Examples of vit-tiny-vehicles").wait_for(state="detached")
    visitor.picture("new-family-form")
    before = {*root.glob("*/family.yaml")}
    save = page.get_by_test_id("stButton").get_by_role("button", name="Save and go to Merge")
    save.focus()
    page.keyboard.press("Enter")
    page.get_by_text("Press Merge.").wait_for()
    visitor.picture("new-family-saved")
    (file,) = {*root.glob("*/family.yaml")} - before
    assert [expert.name for expert in load_family(file).experts] == ["vit-tiny-animals"]
    visitor.leave()
