"""Every page opens, does its work, and says in a sentence what is wrong."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from tests.pages.driving import button, labelled, merge, sentences, settle

Open = Callable[..., AppTest]
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("page", ["merge", "subspaces", "family"])
def test_every_page_opens_while_the_family_is_prepared_and_after(open_app: Open, page: str):
    app = open_app(page).run()
    assert sentences(app) == ""
    settle(app, "preparation")
    assert sentences(app) == ""
    assert len(app.get("plotly_chart")) >= 1


def test_family_page_shows_tasks_and_their_accuracy(open_app: Open):
    app = settle(open_app("family"), "preparation")
    assert {"e0", "e1", "e2"} <= {s.value.replace("\\", "") for s in app.header}
    assert sum(m.label == "Expert" for m in app.metric) == 3


# What a person can get wrong ----------------------------------------------------------------------


@pytest.fixture
def broken(tiny_family: Path, tmp_path: Path) -> Path:
    """A copy of the family that may be damaged."""
    return Path(shutil.copytree(tiny_family, tmp_path / "broken"))


@pytest.mark.parametrize("page", ["merge", "subspaces", "family"])
def test_no_family_is_a_sentence(open_app: Open, tmp_path: Path, page: str):
    app = open_app(page, tmp_path).run()
    assert "There is no family of models to open" in sentences(app)
    assert "MATS_FAMILIES" in sentences(app)


def test_bad_yaml_is_a_sentence(open_app: Open, broken: Path):
    (broken / "family.yaml").write_text("name: [unclosed")
    assert "expected YAML" in sentences(open_app(family=broken).run())


def test_unknown_key_names_the_nearest(open_app: Open, broken: Path):
    text = (broken / "family.yaml").read_text().replace("experts:", "expert:")
    (broken / "family.yaml").write_text(text)
    assert "Did you mean 'experts'?" in sentences(open_app(family=broken).run())


def test_missing_checkpoint_is_a_sentence(open_app: Open, broken: Path):
    shutil.rmtree(broken / "e1")
    app = settle(open_app(family=broken), "preparation")
    assert "e1" in sentences(app)
    assert "Traceback" not in sentences(app)


def test_pickle_is_refused_with_the_way_out(open_app: Open, broken: Path):
    (broken / "e1" / "model.safetensors").rename(broken / "e1" / "pytorch_model.bin")
    app = settle(open_app(family=broken), "preparation")
    assert "safetensors" in sentences(app)


def test_other_shapes_are_a_sentence(open_app: Open, broken: Path):
    from tests.conftest import vit

    other = vit(4, [f"k{i}" for i in range(4)], seed=3)
    other.vit.embeddings.position_embeddings = type(other.vit.embeddings.position_embeddings)(
        other.vit.embeddings.position_embeddings[:, :5].clone()
    )
    other.save_pretrained(broken / "e1")
    app = settle(open_app(family=broken), "preparation")
    assert "position_embeddings" in sentences(app)


def test_a_family_without_tasks_still_merges_its_weights(open_app: Open, broken: Path):
    lines = (broken / "family.yaml").read_text().splitlines()
    kept = [line for line in lines if "task" not in line]
    (broken / "family.yaml").write_text("\n".join(kept))
    app = open_app(family=broken)
    app.session_state["group 0"] = "weights"
    app.run()
    merge(app)
    assert sentences(app) == ""
    assert any("not evaluated" in info.value for info in app.info)
    app.session_state["group 0"] = "statistics"
    app.run()
    labelled(app, "Method").set_value("fisher").run()
    assert "statistics for every expert" in sentences(app)
    assert "no expert names a task" in sentences(app)
    assert button(app, "Merge").disabled


def test_what_nobody_expected_is_a_sentence_too(open_app: Open, monkeypatch: pytest.MonkeyPatch):
    def broken_run(*args: object, **kwargs: object):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("pages.shared.work.merge.run_plan", broken_run)
    app = merge(open_app())
    assert "stopped unexpectedly (ZeroDivisionError: a bug)" in sentences(app)


def test_started_as_a_script_the_app_says_how_it_is_started():
    said = subprocess.run(
        [sys.executable, "app.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert said.returncode == 1
    assert said.stderr.splitlines()[-1] == "Start the explorer with: streamlit run app.py"
    assert "Traceback" not in said.stderr


def test_a_process_that_multiprocessing_starts_beside_a_page_does_not_run_the_app():
    # There the main module, which Streamlit sets to the app, is run under this name.
    assert "page" not in runpy.run_path(str(ROOT / "app.py"), run_name="__mp_main__")
