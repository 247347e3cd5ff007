"""The panel in process: its widgets are set as a reader sets them, and its HTML is read."""

from __future__ import annotations

import html
import json
import re
import sys
import threading
import time
from contextlib import closing
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import torch

import mats_core
from mats_core.errors import InputError
from mats_core.methods.presets import PRESETS
from mats_core.methods.reference import describe
from mats_core.methods.table import METHODS
from mats_core.notebook import app, render, subjects
from mats_core.notebook import panel as panels
from mats_core.notebook.panel import Panel, explore
from mats_core.recipes.family_file import load_family
from mats_core.recipes.sections import TRIED
from tests.module_cases import family as models
from tests.module_cases import loader
from tests.notebook.markup_cases import Balanced

widgets = pytest.importorskip("ipywidgets")
PATIENCE = 120
MOST_STILL = 60_000  # bytes of what a saved file holds of a panel; the file has 100 kB


@pytest.fixture
def opened():
    """Panels that are closed at the end, after which no thread is left."""
    made: list[Panel] = []

    def open_panel(*args: Any, **settings: Any) -> Panel:
        made.append(explore(*args, **settings))
        assert made[-1].wait(PATIENCE)
        return made[-1]

    yield open_panel
    for one in made:
        one.close()
        assert one.closed
    assert not [t for t in threading.enumerate() if t.name == "mats-explore"]


def in_memory(**settings: Any) -> tuple[Any, Any]:
    base, experts = models("mlp", **settings)
    return base, experts


def whole(panel: Panel) -> str:
    """Everything that the panel says, once nothing is being done."""
    assert panel.wait(PATIENCE, whole=True)
    state = panel._answers.state
    text = render.still(state, panel._pinned, panel.code)
    Balanced(text)
    return text


# A family -----------------------------------------------------------------------------------------


def test_a_family_is_explored_with_every_knob_of_its_methods(opened, tiny_family):
    panel = opened(tiny_family, examples=16)
    assert panel.method.value == "essential"
    assert panel.report is not None
    assert set(panel.options) == {field.name for field in describe("essential")}
    for name, method in METHODS.items():
        panel.method.value = name
        assert panel.wait(PATIENCE)
        assert set(panel.options) == {field.name for field in describe(name)}
        if method.experts:
            assert "exactly 2 experts" in panel.error
            assert "exactly 2 experts" in panel.result.value
        elif "pretrained" not in panel.options.values():
            assert panel.error == ""
            assert panel.report.method == name
        for label, knob in panel.knobs.widgets.items():
            field = panel.knobs.fields[label]
            assert knob.description == field.title
            assert field.help[1:] in knob.tooltip


def test_the_same_settings_give_the_same_merge_as_the_library(opened, tiny_family):
    panel = opened(load_family(tiny_family), examples=16, method="kfac")
    panel.knobs.widgets["damping"].value = 0.5
    panel.experts["e1"].value = False
    panel.weights["e2"].value = 3.0
    assert panel.wait(PATIENCE, whole=True)
    recipe = panel.recipe()
    assert recipe.options["damping"] == 0.5
    assert {e.name: e.weight for e in recipe.experts} == {"e0": 1.0, "e2": 3.0}
    tried = recipe.model_copy(update={"evaluate": TRIED})  # the panel asks no test examples
    again = mats_core.merge(tried, progress=False)
    assert panel.merge is not None
    for name, tensor in again.tensors.items():
        assert torch.equal(tensor, panel.merge.tensors[name]), name
    assert again.report.split == panel.report.split == "validation"  # type: ignore[union-attr]
    reached = [task.merged.answers for task in again.report.tasks]
    assert panel.report is not None
    assert [task.merged.answers for task in panel.report.tasks] == reached
    assert [run.report.method for run in panel.runs] == ["kfac"] * 2


def test_what_is_said_is_what_the_numbers_are(opened, tiny_family):
    panel = opened(tiny_family, examples=16, method="kfac")
    text = whole(panel)
    report, average = panel.report, panel._answers.state.average
    assert report is not None
    assert average is not None
    kept, mean = report.normalised_accuracy, average.report.normalised_accuracy
    assert kept is not None
    assert mean is not None
    assert f"{100 * kept:.1f} %</span>" in panel.result.value
    assert f"{100 * (kept - mean):+.1f} points</b> against the average" in panel.result.value
    for task in report.tasks:
        assert f"<td>{task.name}</td>" in panel.view.value
        assert f">{100 * task.merged.value:.1f} %<" in panel.view.value
    solved = [layer for layer in report.layers if len(layer.residuals) > 1]
    most = max(layer.iterations for layer in solved)
    assert most < report.options["iterations"]
    assert f"allowing more than {most} changes nothing" in text
    assert "Accuracy along the iterations" in text
    assert "Beside the average, by layer" in text


def test_a_limit_below_the_tolerance_is_said_as_such(opened, tiny_family):
    panel = opened(tiny_family, examples=16, method="kfac")
    panel.knobs.widgets["tolerance"].value = 0.0
    panel.knobs.widgets["iterations"].value = 2
    text = whole(panel)
    assert "changes nothing" not in text
    assert "the longest solve took 2 of 2 iterations" in text


def test_a_layer_is_looked_at_without_merging_again(opened, tiny_family):
    panel = opened(tiny_family, examples=16)
    assert panel.wait(PATIENCE, whole=True)
    before = panel.merge
    panel.views.value = "Layer"
    assert "Choose a layer" in panel.view.value
    picture = panel._picture
    assert picture is not None
    tile = picture.tiles[picture.names[0]]
    tile.click()
    assert panel.wait(PATIENCE, whole=True)
    assert panel.merge is before
    assert picture.names[0] in panel.view.value
    assert "Effective rank from" in panel.view.value
    assert "share most" in panel.view.value
    assert panel.above.children == (picture.box,)


def test_presets_set_every_knob(opened, tiny_family):
    panel = opened(tiny_family, examples=16)
    for preset in PRESETS:
        panel.preset.value = preset.title
        assert panel.wait(PATIENCE)
        assert panel.method.value == preset.method
        wanted = {f.name: f.default for f in describe(preset.method, 3)} | preset.options
        assert panel.options == wanted
        assert panel.request().rounds == preset.rounds
        assert panel.report is not None
        assert dict(panel.report.options) == wanted, panel.error


def test_a_pinned_run_is_compared_with_task_by_task(opened, tiny_family):
    panel = opened(tiny_family, examples=16)
    assert panel.wait(PATIENCE, whole=True)
    first = panel.report
    panel.pin.value = True
    panel.knobs.widgets["scaling"].value = 0.4
    text = whole(panel)
    assert first is not None
    assert panel.report is not None
    kept, before = panel.report.normalised_accuracy, first.normalised_accuracy
    assert kept is not None
    assert before is not None
    assert f"{100 * (kept - before):+.1f} points</b> against the pinned run 1 · " in text
    assert text.count("− 1 · ") == 1
    panel.pin.value = False
    assert "pinned" not in panel.result.value


def test_a_mistake_is_a_sentence_and_the_last_result_stays(opened, tiny_family):
    panel = opened(tiny_family, examples=16)
    before = panel.report
    for box in panel.experts.values():
        box.value = False
    assert panel.wait(PATIENCE)
    assert "expected at least one to merge" in panel.error
    assert 'role="alert"' in panel.result.value
    with pytest.raises(InputError, match="at least one"):
        panel.recipe()
    panel.experts["e0"].value = True
    panel.knobs.widgets["rank"].value = "many"
    assert panel.wait(PATIENCE)
    assert "rank" in panel.error
    assert "many" in panel.error
    assert panel.report is before
    panel.knobs.widgets["rank"].value = ""
    panel.experts["e1"].value = True
    assert panel.wait(PATIENCE)
    assert panel.error == ""
    assert panel.report is not before


def test_an_unexpected_error_is_a_sentence_too(opened, tiny_family, monkeypatch):
    panel = opened(tiny_family, examples=16)
    assert panel.wait(PATIENCE, whole=True)

    def broken(*_: Any) -> Any:
        raise RuntimeError("no <b>luck</b>")

    monkeypatch.setattr(panel._subject, "merging", broken)
    panel.knobs.widgets["scaling"].value = 0.7
    assert panel.wait(PATIENCE)
    assert "RuntimeError: no <b>luck</b>" in panel.error
    assert "&lt;b&gt;luck" in panel.result.value
    assert "<b>luck" not in panel.result.value


def test_a_merge_under_way_is_stopped_by_a_newer_one(opened, tiny_family):
    panel = opened(tiny_family, examples=16, method="kfac")
    assert panel.wait(PATIENCE, whole=True)
    panel.preset.value = "MaTS as published"
    panel.knobs.widgets["iterations"].options = [("2000", 2000), ("50", 50)]
    panel.knobs.widgets["iterations"].value = 2000  # without a tolerance: seconds
    until = time.monotonic() + PATIENCE
    while not panel._answers.state.current and time.monotonic() < until:
        time.sleep(0.01)
    assert panel._answers.state.current, "residuals are known while a layer is solved"
    panel.views.value = "Solve"
    assert "Conjugate gradients" in panel.view.value
    count = len(panel.runs)
    panel.method.value = "average"
    assert panel.wait(PATIENCE)
    assert panel.report is not None
    assert panel.report.method == "average"
    assert [run.report.method for run in panel.runs[count:]] == ["average"]
    assert "stopped" in [how for _, how in panel._worker.history]


def test_two_panels_work_side_by_side(opened, tiny_family):
    one, other = (opened(tiny_family, examples=16, method="average") for _ in range(2))
    one.method.value, other.method.value = "ties", "tsv_m"
    assert one.wait(PATIENCE)
    assert other.wait(PATIENCE)
    assert one.report is not None
    assert other.report is not None
    assert (one.report.method, other.report.method) == ("ties", "tsv_m")
    one.close()
    assert one.closed
    assert not other.closed
    assert one.report.method == "ties"  # what it knew stays


def test_what_is_saved_is_small_says_all_and_fetches_nothing(opened, tiny_family):
    panel = opened(tiny_family, examples=16, method="kfac")
    panel.wait(PATIENCE, whole=True)
    panel.views.value = "Layer"
    panel._picture.list.value = panel._picture.names[1]  # type: ignore[union-attr]
    text = whole(panel)
    state = widgets.Widget.get_manager_state()  # as nbconvert keeps it; JupyterLab keeps none
    assert len(text.encode()) < MOST_STILL
    assert len(text.encode()) + len(json.dumps(state)) < 100_000
    for word in ("Solve", "Why", "Layer", "Code", "of the experts&#x27; accuracy"):
        assert word in text or word.replace("&#x27;", "'") in text
    assert not re.search(r"https?:|<script|<link|@import|url\(|src=", text)
    panel.close()
    assert widgets.Widget.get_manager_state()["state"] == {}


def test_the_code_gives_the_same_result(opened, tiny_family):
    panel = opened(tiny_family, examples=256, method="kfac")
    panel.knobs.widgets["damping"].value = 0.3
    panel.experts["e2"].value = False
    assert panel.wait(PATIENCE, whole=True)
    names: dict[str, Any] = {}
    exec(panel.code, names)
    assert panel.report is not None
    assert panel.report.options["damping"] == 0.3
    assert [t.merged for t in names["merged"].report.tasks] == [
        t.merged for t in panel.report.tasks
    ]


def test_a_result_is_saved_by_the_button(opened, tiny_family, tmp_path):
    panel = opened(tiny_family, examples=16, method="average")
    panel.folder.value = str(tmp_path / "out")
    panel.keep.click()
    assert str(tmp_path / "out") in panel.text.value
    assert (tmp_path / "out" / "model.safetensors").is_file()
    panel.keep.click()
    assert "expected" in panel.text.value  # it is there already
    panel.copy.click()
    Balanced(panel.text.value)
    (lines,) = re.findall(r'<pre class="all">(.*?)</pre>', panel.text.value, re.DOTALL)
    assert html.unescape(lines) == panel.code
    panel.method.value = "ties"
    assert panel.text.value == ""  # those were of other settings
    assert "user-select:all" in render.STYLE  # where no script runs, a click selects them


def test_the_app_is_started_once_and_opened_at_these_settings(opened, tiny_family, monkeypatch):
    started: list[list[str]] = []

    class Process:
        def __init__(self, words: list[str], **_: Any) -> None:
            started.append(words)
            self.code: int | None = None

        def poll(self) -> int | None:
            return self.code

        def terminate(self) -> None:
            self.code = 0

        def wait(self, _: float) -> int | None:
            return self.code

    monkeypatch.setattr(app.subprocess, "Popen", Process)
    panel = opened(tiny_family, examples=16, seed=5, dtype="float64")
    panel.open.click()
    panel.knobs.widgets["scaling"].value = 0.7
    panel.open.click()
    assert len(started) == 1
    assert started[0][-1] == str(tiny_family.resolve())
    (link,) = re.findall(r'href="([^"]+)"', panel.text.value)
    assert urlsplit(link).path == "/"  # the page Merge, which has no other address
    given = json.loads(parse_qs(urlsplit(html.unescape(link)).query)["settings"][0])
    assert given["method"] == "essential"
    assert given["options"] == panel.options
    assert given["options"]["scaling"] == 0.7
    assert given["experts"] == ["e0", "e1", "e2"]
    assert (given["seed"], given["dtype"]) == (5, "float64")
    process = panel._app._process  # type: ignore[union-attr]
    panel.close()
    assert process.poll() == 0


# Models in memory ---------------------------------------------------------------------------------


def test_modules_with_loaders_are_measured_and_tested(opened):
    base, experts = in_memory()
    before = {name: value.clone() for name, value in base.state_dict().items()}
    panel = opened(base, experts, loaders={name: loader() for name in experts})
    offered = {name for _, name in panel.method.options}
    assert offered == {name for name, method in METHODS.items() if not method.calibrates}
    text = whole(panel)
    assert panel.error == ""
    assert panel.report is not None
    assert [task.name for task in panel.report.tasks] == list(experts)
    scores = [
        mats_core.evaluate(panel.merge, loader(), expert=name).correct  # type: ignore[arg-type]
        for name in experts
    ]
    assert [task.merged.correct for task in panel.report.tasks] == scores
    own = [mats_core.evaluate(expert, loader()).correct for expert in experts.values()]
    assert [task.finetuned.correct for task in panel.report.tasks] == own
    assert "Beside the average, by layer" in text
    names: dict[str, Any] = {
        "base": base, "experts": experts, "loaders": {name: loader() for name in experts},
    }  # fmt: skip
    exec(panel.code, names)
    for name, value in names["merged"].tensors.items():
        assert torch.equal(value, panel.merge.tensors[name])  # type: ignore[union-attr]
    for name, value in base.state_dict().items():
        assert torch.equal(value, before[name])  # read where it lies, never written


def test_modules_with_loaders_are_followed_along_the_iterations(opened):
    base, experts = in_memory()
    loaders = {name: loader() for name in experts}
    panel = opened(base, experts, loaders=loaders, method="kfac", options={"iterations": 20})
    text = whole(panel)
    trajectory = panel._answers.state.trajectory
    assert trajectory is not None
    assert [point.iteration for point in trajectory.points] == [0, 1, 2, 5, 10, 20]
    statistics = {n: mats_core.measure(m, loaders[n]) for n, m in experts.items()}
    how = {name: panel.options[name] for name in METHODS["kfac"].exploring}
    for point in trajectory.points[1::2]:  # asked here, after as many iterations
        merged = mats_core.merge_models(
            base, experts, "kfac", iterations=point.iteration, statistics=statistics, **how
        )
        reached = [mats_core.evaluate(merged, loaders[n], expert=n).correct for n in experts]
        assert [task.merged.correct for task in point.results] == reached
    assert panel.report is not None
    assert trajectory.points[-1].results == tuple(panel.report.tasks)  # all are fewer than 200
    assert "Accuracy along the iterations" in text
    assert "on 200 loader examples a task" in text
    assert f"{24 * len(experts)} loader examples; merged" in panel.result.value


def test_a_loader_that_shuffles_asks_every_merge_in_one_order(opened, monkeypatch):
    base, experts = in_memory()
    x, y = next(iter(loader()))
    data = torch.utils.data.TensorDataset(x, y)
    shuffled = torch.utils.data.DataLoader(data, batch_size=7, shuffle=True)
    panel = opened(base, experts, loaders=dict.fromkeys(experts, shuffled), method="average")
    explored, merge = panel._subject, panel.merge
    assert isinstance(explored, subjects.OfModels)
    assert merge is not None
    answers = {explored._score(merge, "e0", None).answers for _ in range(5)}
    assert len(answers) == 1
    assert set(answers.pop()) == {"0", "1"}  # so that another order would be another text
    assert subjects.held(shuffled) is not shuffled
    monkeypatch.setattr(subjects, "HELD", 0)
    assert subjects.held(shuffled) is shuffled  # what is too large to be held


def test_modules_without_data_get_methods_that_need_none(opened):
    base, experts = in_memory()
    panel = opened(base, experts)
    offered = [name for _, name in panel.method.options]
    assert set(offered) == {n for n, m in METHODS.items() if m.group != "statistics"}
    assert all(METHODS[p.method].group != "statistics" for p in PRESETS if p.title in dict(
        panel.preset.options
    ))  # fmt: skip
    assert panel.wait(PATIENCE, whole=True)
    distances = panel._answers.state.distances
    assert distances is not None
    panel.knobs.widgets["scaling"].value = 3.0  # 3 Σ δ: far beyond every expert, in every layer
    assert "than their average in 6 of 6 layers" in whole(panel)
    panel.method.value = "average"
    text = whole(panel)
    found = panel._answers.state.distances
    assert found is not None
    assert found.of("merge") == found.of("average")
    mean = sum(found.of("merge").values()) / 3
    assert f"× {mean:.2f}</span> as far from the experts as the base is" in panel.result.value
    assert "accuracy" not in text
    assert "than their average in 0 of 6 layers" in text
    panel.views.value = "Layer"
    panel._picture.list.value = "fc1.weight"  # type: ignore[union-attr]
    assert panel.wait(PATIENCE, whole=True)
    assert "of the task matrix" in panel.view.value


def test_names_of_tensors_are_escaped(opened):
    base, experts = in_memory()
    hostile = "<script>x</script>"
    renamed = [
        {f"{hostile}.{name}": value for name, value in one.state_dict().items()}
        for one in (base, *experts.values())
    ]
    panel = opened(renamed[0], dict(zip(experts, renamed[1:], strict=True)), heads=[])
    panel.views.value = "Layer"
    panel._picture.list.value = panel._picture.names[0]  # type: ignore[union-attr]
    text = whole(panel)
    picture = panel._picture
    assert picture is not None
    shown = [text, panel.result.value, panel.view.value, panel.progress.value, panel.about.value]
    shown += [w.value for w in _htmls(picture.box)]
    assert any("&lt;script&gt;" in one for one in shown)
    assert not any("<script" in one for one in shown)


def _htmls(box: Any) -> list[Any]:
    inner = [w for child in getattr(box, "children", ()) for w in _htmls(child)]
    return inner + ([box] if isinstance(box, widgets.HTML) else [])


BEGINNINGS = {
    "options": {"method": "kfac", "options": {"damping": 0.3, "iterations": 7}},
    "weights by name": {"method": "task_arithmetic", "weights": {"e1": 2.0}},
    "weights in order": {"method": "ties", "weights": [1.0, 0.5, 3.0]},
    "rounds, seed and arithmetic": {
        "method": "regmean", "rounds": 2, "seed": 7, "dtype": "float64", "device": "cpu",
    },
    "a view": {"view": "Why"},
    **{preset.title: {"preset": preset.title} for preset in PRESETS},
    "a preset with another option": {
        "preset": "MaTS as published", "options": {"iterations": 11},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", BEGINNINGS)
def test_a_panel_begins_with_what_is_asked_for(tiny_family, name):
    given = BEGINNINGS[name]
    with closing(explore(tiny_family, examples=16, **given)) as panel:
        preset = next((p for p in PRESETS if p.title == given.get("preset")), None)
        recipe = panel.recipe()
        method = preset.method if preset else given.get("method", "essential")
        assert recipe.method == method
        wanted = {f.name: f.default for f in describe(method, 3)}
        begun = preset.options if preset else METHODS[method].exploring
        wanted |= {**begun, **given.get("options", {})}
        assert panel.options == wanted
        weights = given.get("weights", {})
        by_name = weights if isinstance(weights, dict) else dict(zip(panel.experts, weights,
                                                                     strict=True))  # fmt: skip
        expected = {n: by_name.get(n, 1.0) for n in panel.experts}
        assert {e.name: e.weight for e in recipe.experts} == expected
        rounds = given.get("rounds", preset.rounds if preset else 1)
        assert (recipe.rounds, recipe.seed) == (rounds, given.get("seed", 0))
        assert (recipe.device, recipe.dtype) == (
            given.get("device", "auto"), given.get("dtype", "float32"),
        )  # fmt: skip
        assert panel.views.value == given.get("view", "Tasks")


def test_a_panel_begins_with_a_layer(opened, tiny_family):
    name = "vit.encoder.layer.0.attention.attention.query.weight"
    panel = opened(tiny_family, examples=16, layer=name)
    assert panel.wait(PATIENCE, whole=True)
    assert panel.views.value == "Layer"
    assert panel.request().layer == name
    assert f"<h4>{name}</h4>" in panel.view.value
    assert panel.above.children == (panel._picture.box,)
    base, experts = in_memory()
    beside = opened(base, experts, layer="fc1.weight")
    assert beside.wait(PATIENCE, whole=True)
    assert "<h4>fc1.weight</h4>" in beside.view.value


def test_the_code_says_seed_and_arithmetic_where_they_are_others(opened):
    base, experts = in_memory()
    steps = [{"stretch": {"scale": 0.5}}]
    panel = opened(base, experts, method="dare", seed=4, dtype="float64", after=steps)
    assert panel.merge.report.after == tuple(steps)  # type: ignore[union-attr]
    names: dict[str, Any] = {"base": base, "experts": experts}
    exec(panel.code, names)
    for name, value in names["merged"].tensors.items():
        assert torch.equal(value, panel.merge.tensors[name])  # type: ignore[union-attr]
    assert "seed=4, dtype='float64', after=[{'stretch': {'scale': 0.5}}]" in panel.code
    assert "seed" not in opened(base, experts).code


WRONG_BEGINNINGS = {
    "an option that is none": ({"method": "kfac", "options": {"dampink": 1}}, "damping"),
    "an option's value": ({"method": "kfac", "options": {"damping": -1}}, "damping"),
    "a preset that is none": ({"preset": "Safe"}, "preset.*Safe defaults"),
    "a method beside a preset": (
        {"preset": "Safe defaults", "method": "kfac"}, "expected a method or a preset, found both",
    ),
    "an expert that is none": ({"weights": {"e9": 1.0}}, "weight of an expert"),
    "too few weights": ({"weights": [1.0]}, "expected 3, one an expert"),
    "a weight that is no number": ({"method": "ties", "weights": {"e0": "much"}}, "weight"),
    "weights of a method without": ({"method": "tsv_m", "weights": {"e0": 2.0}}, "equal ones"),
    "rounds without statistics": ({"method": "ties", "rounds": 2}, "rounds.*expected 1"),
    "too many rounds": ({"rounds": 9}, "rounds"),
    "a device": ({"device": "gpu"}, "device.*auto"),
    "a dtype": ({"dtype": "float16"}, "dtype"),
    "a seed": ({"seed": -1}, "seed"),
    "a view": ({"view": "Tusks"}, "view.*Tasks"),
    "a layer": ({"layer": "fc9"}, "layer.*expected one of"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_BEGINNINGS)
def test_what_cannot_be_begun_with_is_refused_at_once(tiny_family, case):
    settings, said = WRONG_BEGINNINGS[case]
    with pytest.raises(InputError, match=said):
        explore(tiny_family, **settings)
    assert not [t for t in threading.enumerate() if t.name == "mats-explore"]


WRONG = {
    "a number": ((3,), {}, "a family"),
    "no such folder": (("nowhere",), {}, "nowhere"),
    "loaders of a family": (("nowhere",), {"loaders": {}}, "loaders without experts"),
    "an unknown method": (None, {"method": "kfak"}, "kfac|one of"),
    "a loader of no expert": (None, {"loaders": {"x": []}}, "loader of an expert"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_explored_is_refused_at_once(case):
    given, settings, said = WRONG[case]
    with pytest.raises(InputError, match=said):
        explore(*(given or in_memory()), **settings)
    assert not [t for t in threading.enumerate() if t.name == "mats-explore"]


def test_a_hostile_expert_is_refused_at_once():
    base, experts = in_memory()
    with pytest.raises(InputError, match="cannot be the name of a folder"):
        explore(base, {"<script>": experts["e0"]})


def test_without_ipywidgets_it_says_what_to_install(monkeypatch, tiny_family):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(InputError, match=r"pip install ipywidgets.*\[notebook\]"):
        explore(tiny_family)


# In a kernel --------------------------------------------------------------------------------------


class Kernel:
    """What a kernel knows of the cell that runs, and what is displayed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cell, self.runs, self.shown, self.still = "a", 0, [], ""
        shell = type("ZMQInteractiveShell", (), {"get_parent": lambda _: self.parent()})()
        ipython, screen = ModuleType("IPython"), ModuleType("IPython.display")
        for module, name, value in (
            (ipython, "get_ipython", lambda: shell),
            (screen, "HTML", lambda text: text),
            (screen, "display", self.display),
        ):
            monkeypatch.setattr(module, name, value, raising=False)
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        monkeypatch.setitem(sys.modules, "IPython.display", screen)

    def parent(self) -> dict[str, Any]:
        return {"metadata": {"cellId": self.cell}, "header": {"msg_id": str(self.runs)}}

    def run(self, cell: str, *args: Any, **settings: Any) -> Panel:
        self.cell, self.runs = cell, self.runs + 1
        panel = explore(*args, **settings)
        panel._ipython_display_()  # the cell's last line: not a second time
        return panel

    def display(self, thing: Any, display_id: bool = False, raw: bool = False) -> Any:
        assert raw == isinstance(thing, dict)
        self.shown.append(thing)
        return SimpleNamespace(update=self.update) if display_id else None

    def update(self, text: str) -> None:
        self.still = text


@pytest.fixture
def kernel(monkeypatch):
    yield Kernel(monkeypatch)
    for _, panel in panels._OPEN:
        panel.close()
    panels._OPEN.clear()


def test_a_cell_returns_with_its_first_result_which_is_kept_as_html(kernel):
    base, experts = in_memory()
    panel = kernel.run("a", base, experts, method="average")
    assert panel.report is not None
    live = "application/vnd.jupyter.widget-view+json"
    assert kernel.shown[0][live]["model_id"] == panel.box.model_id
    assert "need a kernel" in kernel.shown[0]["text/plain"]  # without one: no widget in brackets
    assert len(kernel.shown) == 2
    assert panel.wait(PATIENCE, whole=True)
    assert "as far from the experts" in kernel.still
    Balanced(kernel.still)


def test_what_is_kept_is_of_the_result_and_not_of_where_the_knobs_stand_by_then(kernel):
    base, experts = in_memory()
    panel = kernel.run("a", base, experts, method="ties")
    assert panel.wait(PATIENCE, whole=True)
    state = panel._answers.state
    panel.method.unobserve_all()
    panel.method.value = "slerp"  # in the middle of an exchange of knobs
    panel._keep(state)
    assert "merge_models(base, experts, &#x27;ties&#x27;)" in kernel.still
    assert panel.request().method == "ties"


def test_running_a_cell_again_closes_its_panel_and_no_other(kernel):
    base, experts = in_memory()
    first = kernel.run("a", base, experts)
    beside = kernel.run("b", base, experts)
    again = kernel.run("a", base, experts)
    assert first.closed
    assert not beside.closed
    assert not again.closed
    assert len([t for t in threading.enumerate() if t.name == "mats-explore"]) == 2
