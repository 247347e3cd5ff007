"""Beyond a static merge, on the page: routed, trained further, its sums kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from mats_core.merging import evaluate_output
from pages.shared.frame import Wanted
from pages.shared.work import Further
from tests.pages.driving import kept, labelled, merge, press, sentences, settle, texts_of

Open = Callable[..., AppTest]
ROUTED, TRAINED = "Routed: every input chooses its expert", "Trained further by distillation"
SUMS, BY = "Open to more experts: keep its sums", "How the expert is chosen"
LINK = {"method": "average", "options": {}, "experts": ["e0", "e1", "e2"], "weights": {},
        "rounds": 1}  # fmt: skip


@pytest.fixture(autouse=True)
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MATS_OUTPUTS", str(tmp_path / "outputs"))
    return tmp_path / "outputs"


def linked(app: AppTest, **settings: object) -> AppTest:
    app.query_params["settings"] = json.dumps({**LINK, **settings})
    return settle(app, "preparation")


def written(app: AppTest, outputs: Path) -> Path:
    """The folder of the run that is shown, written on Export."""
    app.switch_page("pages/export.py").run()
    settle(press(app, "Write the model"), "writing")
    assert sentences(app) == ""
    return outputs / kept()[0].id


@pytest.mark.filterwarnings("ignore:the expert")
def test_a_routed_merge_tells_its_size_and_is_itself_on_every_page(open_app: Open, outputs: Path):
    app = linked(open_app(), routed={"by": "first_pass", "rank": 4})
    assert any("× the size of a static merge" in one.value for one in app.caption)
    merge(app)
    assert sentences(app) == ""
    (run,) = kept()
    assert run.recipe.routed is not None
    assert run.label == f"1 · Average · routed, {run.report.size:.2f} × size"
    assert [m.value for m in app.metric if m.label == "Size"] == [f"{run.report.size:.2f} ×"]
    assert "Settings changed" not in texts_of(app)
    labelled(app, ROUTED).set_value(False).run()
    assert "routed first pass, rank 4 → no" in texts_of(app)
    app.switch_page("pages/compare.py").run()
    row = app.dataframe[0].value.iloc[0]
    assert (row["method"], row["settings changed"]) == (
        "Average, routed",
        "routed first pass, rank 4",
    )
    assert row["size"] == pytest.approx(run.report.size)
    app.switch_page("pages/inside.py").run()
    settle(app, "preparation", "looking", "looking ahead")
    assert any("the routed model" in one.value for one in app.caption)
    value = {one.name: one.merged.value for one in run.report.tasks}
    for name, found in app.session_state["inside shelf"].get(run).answers.items():
        assert (found.merged.argmax(1) == found.labels).mean() == pytest.approx(value[name])
    results = evaluate_output(written(app, outputs), "validation")
    assert [r.merged.answers for r in results] == [r.merged.answers for r in run.report.tasks]


def test_a_trained_merge_is_marked_where_its_number_stands(open_app: Open):
    app = linked(open_app(), refine={"epochs": 2, "rate": 1e-3, "examples": 24})
    assert labelled(app, TRAINED).value
    merge(app)
    (run,) = kept()
    assert run.recipe.refine is not None
    assert run.recipe.refine.rate == 1e-3, "what no widget shows stays as it was handed over"
    assert run.report.trained
    assert run.label == "1 · Average · trained"
    assert any("distillation on 24 unlabelled" in one.value for one in app.caption)
    assert "Settings changed" not in texts_of(app)


def test_sums_are_offered_where_the_method_has_some_and_written_with_the_model(
    open_app: Open, outputs: Path
):
    app = linked(open_app(), method="tsv_m", keep_sums=True)
    assert labelled(app, SUMS).disabled
    app.session_state["wanted"] = Wanted("regmean", further=Further(keep_sums=True))
    app.run()
    assert not labelled(app, SUMS).disabled
    merge(app)
    assert (written(app, outputs) / "sums" / "manifest.json").is_file()


def test_without_tasks_only_what_needs_no_data_is_offered(
    open_app: Open, tiny_family: Path, tmp_path: Path
):
    bare = Path(shutil.copytree(tiny_family, tmp_path / "bare"))
    lines = (bare / "family.yaml").read_text().splitlines()
    (bare / "family.yaml").write_text("\n".join(line for line in lines if "task" not in line))
    app = linked(open_app(family=bare), routed={"by": "first_pass"}, refine={})
    assert labelled(app, TRAINED).disabled
    assert labelled(app, BY).options == [
        "layer by layer: the updates' answers", "token by token (SMILE)",
    ]  # fmt: skip
    merge(app)
    assert sentences(app) == ""
    (run,) = kept()
    assert run.recipe.routed is not None
    assert (run.recipe.routed.by, run.recipe.routed.examples) == ("updates", 0)
    assert run.recipe.refine is None


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"routed": {"by": "luck"}}, "prototypes"), ({"refine": {"epoch": 3}}, "epochs"),
     ({"refine": 3}, "refine")],
)  # fmt: skip
def test_what_a_link_may_say(settings, says):
    with pytest.raises(ValueError, match=says):
        Further.handed(settings)
