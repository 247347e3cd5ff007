"""New family: strangers, data that a card names, figures that a card states, the program's own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from streamlit.testing.v1 import AppTest

from mats_core.recipes import load_family, proposal
from mats_core.tasks import load
from pages.shared.work import drafts
from tests.hub_data import caches, prepared
from tests.pages.driving import labelled, press, sentences, settle
from tests.pages.test_new_family import begun, said, ticks, went
from tests.pages.test_new_family import root as root
from tests.text_cases import rows, text_family

__all__ = ["root", "went"]
Open = Callable[..., AppTest]
SWITCH = "Merge strangers all the same"


@pytest.fixture
def stranger(root: Path) -> Path:
    """A model of the base's shapes whose weights were never near it."""
    folder = root / "elsewhere"
    shutil.copytree(root / "run-a", folder)
    generator = torch.Generator().manual_seed(7)
    tensors = load_file(folder / "model.safetensors")
    drawn = {n: torch.randn(v.shape, generator=generator) for n, v in tensors.items()}
    save_file(drawn, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_strangers_are_listed_with_the_reason_and_taken_after_a_switch(
    open_app: Open, root: Path, stranger: Path, went
):
    app = begun(open_app, root)
    assert ticks(app) == {"run-a": True, "run-b": True}
    table = next(d.value for d in app.dataframe if "cosine with the base" in d.value)
    assert list(table["model"]) == ["elsewhere"]
    assert list(table["why"]) == ["a stranger to this base"]
    assert abs(table["cosine with the base"].iloc[0]) < 0.05
    labelled(app, SWITCH).set_value(True).run()
    assert ticks(app)["elsewhere"] is False, "a switch offers, and takes none"
    next(w for w in app.checkbox if w.label == "elsewhere").check().run()
    press(app, "Save and go to Merge")
    family = load_family(root / "my-models")
    assert family.strangers == "allow"
    assert [one.name for one in family.experts] == ["run-a", "run-b", "elsewhere"]
    app.switch_page("pages/family.py")
    app = settle(app, "preparation")
    assert sentences(app) == ""
    assert "have nothing in common" in said(app)
    press(app, "Edit")
    assert labelled(app, SWITCH).value is True
    next(w for w in app.checkbox if w.label == "elsewhere").uncheck().run()
    press(app, "Save and go to Merge")
    assert load_family(root / "my-models").strangers == "refuse"


def card(folder: Path, data: str, subset: str, accuracy: float) -> None:
    (folder / "README.md").write_text(
        "---\nmodel-index:\n- name: x\n  results:\n  - task: {type: text-classification}\n"
        f"    dataset: {{type: {data}, name: X, config: {subset}}}\n"
        f"    metrics: [{{type: accuracy, value: {accuracy}}}]\n---\n"
    )


def test_the_data_set_of_a_card_is_proposed_and_a_card_far_above_is_flagged(
    open_app: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, went
):
    root = text_family(tmp_path / "texts")
    for file in (*root.glob("*.yaml"), *root.glob("*.jsonl*")):
        file.unlink()
    home = caches(monkeypatch, tmp_path / "hf")
    some = rows(80, 2, 3)
    splits = {"train": some[:40], "validation": some[40:]}
    folder = prepared(home, "owner/glue", splits, ["worse", "better"], subset="sst2")
    prepared(home, "owner/glue", splits, ["worse", "better"], subset="cola")
    card(root / "m0", "glue", "sst2", 0.999)
    app = begun(open_app, root)
    assert labelled(app, "Examples of m0").value == str(folder)
    assert labelled(app, "Examples of m1").value == "no examples"
    press(app, "Save and go to Merge")
    assert sentences(app) == ""
    (file,) = root.glob("*/family.yaml")
    task = load("tasks/m0.yaml", root=file.parent)
    assert (len(task.test), task.classes) == (40, ("worse", "better"))
    app.switch_page("pages/family.py")
    app = settle(app, "preparation")
    assert sentences(app) == ""
    shown = {m.label: float(m.value.removesuffix(" %")) for m in app.metric}
    assert shown["Expert"] < 90
    doubts = " ".join(w.value.replace("\\", "") for w in app.warning)
    assert "and its card says 99.9 %" in doubts
    assert "8 examples" in doubts  # a fifth of the training rows


def test_the_programs_own_examples_are_no_models_of_its_users(tmp_path: Path):
    found = drafts.looked([drafts.PROGRAM])
    below = {one.path.resolve().relative_to(drafts.PROGRAM).parts[0] for one in found.models
             if one.path.resolve().is_relative_to(drafts.PROGRAM)}  # fmt: skip
    assert not below & {"tests", "benchmarks", "docs", "notebooks", "mats_core", "pages"}
    assert not [one for one in found.data if one.is_relative_to(drafts.PROGRAM / "tests")]
    offer = proposal(found.models)
    assert offer is None or offer.base.path.is_relative_to(drafts.PROGRAM / "sample_models")
    inside = drafts.looked([drafts.PROGRAM / "tests" / "data"])
    assert not [one for one in inside.models if one.path.is_relative_to(drafts.PROGRAM)]
