"""New family: picked, kept, edited, duplicated and removed on the page, with no file by hand."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from mats_core.merging import load_family
from tests.pages.driving import button, merge, press, sentences, settle, texts_of

Open = Callable[..., AppTest]


@pytest.fixture
def root(tiny_family: Path, tmp_path: Path) -> Path:
    """Three folders of models, called as a trainer calls them, and no family."""
    for name, to in (("base", "start"), ("e0", "run-a"), ("e1", "run-b")):
        shutil.copytree(tiny_family / name, tmp_path / "my models" / to)
    return tmp_path / "my models"


def box(app: AppTest, kind: str, label: str):
    return next(w for w in getattr(app, kind) if w.label.startswith(label))


def ticked(app: AppTest) -> dict[str, bool]:
    """Expert → whether its box is ticked."""
    return {w.label.split("**")[1].replace("\\", ""): w.value for w in app.checkbox}


def test_three_folders_become_a_merge_in_three_presses(open_app: Open, root: Path):
    app = open_app("family", root).run()
    assert "There is no family of models to open" in sentences(app)
    press(app, "New family")
    assert not app.exception
    assert box(app, "selectbox", "Base").value == str(root / "start")
    assert ticked(app) == {"run-a": True, "run-b": True}
    assert box(app, "text_input", "Name").value == "my models"
    press(app, "Save and go to Merge")
    file = root / "my-models" / "family.yaml"
    assert "base: ../start\n" in file.read_text()
    assert load_family(file).name == "my models"
    app = settle(app, "preparation")
    assert app.title[0].value == "Merge"
    assert box(app, "selectbox", "Family of models").value == "my-models"
