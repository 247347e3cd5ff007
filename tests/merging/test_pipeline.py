"""From a recipe to an output directory: what is in it, what is refused, and what never appears."""

from __future__ import annotations

import filecmp
import json
import shutil

import numpy as np
import pytest
import torch
import yaml

import mats_core
from mats_core.checkpoints.files import Checkpoint
from mats_core.errors import InputError
from mats_core.evaluation.examiner import Asked
from mats_core.merging import pipeline
from mats_core.merging.asking import evaluate_output
from mats_core.merging.pipeline import merge, run
from mats_core.merging.reading import read_layer
from mats_core.methods.table import METHODS
from mats_core.models.images import pixel_values
from mats_core.models.modules import build, tensors_of
from mats_core.recipes.events import Examined, Finished, LayerDone, Started, TaskDone, TrialDone
from mats_core.recipes.plan import open_inputs, prepare, units
from mats_core.recipes.recipe import load_recipe, parse_recipe
from mats_core.system.devices import choose_device
from mats_core.system.stream import Event
from mats_core.tasks.loading import load as load_task
from tests.conftest import family_recipe
from tests.layer_cases import close, raw_recipe

NO_TASKS = {"evaluate": False}


def recipe_of(folder, method, **settings):
    return parse_recipe(family_recipe(folder, method, **settings), folder)


def finished(recipe, **arguments) -> Finished:
    *_, last = run(recipe, **arguments)
    assert isinstance(last, Finished)
    return last


def written(folder) -> dict[str, torch.Tensor]:
    checkpoint = Checkpoint.open(folder)
    return {name: checkpoint.read(name) for name in checkpoint.tensors}


# The output directory -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def output(tiny_family, tmp_path_factory):
    """One K-FAC merge of the tiny family, written and evaluated."""
    place = tmp_path_factory.mktemp("outputs") / "first"
    merge(recipe_of(tiny_family, "kfac", output=str(place), options={"iterations": 7}))
    return place


def test_the_output_directory_is_as_the_contract_says(output, tiny_family):
    assert {p.name for p in output.iterdir()} == {
        "model.safetensors", "config.json", "recipe.yaml", "report.json", "heads", "README.md",
    }  # fmt: skip
    assert filecmp.cmp(output / "config.json", tiny_family / "base" / "config.json", shallow=False)
    assert [p.name for p in output.parent.iterdir()] == ["first"]
    for m in range(3):
        head = output / "heads" / f"e{m}"
        expert = Checkpoint.open(tiny_family / f"e{m}")
        saved = Checkpoint.open(head / "head.safetensors")
        assert set(saved.tensors) == {"classifier.weight", "classifier.bias"}
        for name in saved.tensors:
            assert torch.equal(saved.read(name), expert.read(name))
        names = json.loads((head / "config.json").read_text())["id2label"]
        assert tuple(names.values()) == expert.class_names


def test_the_report_has_every_field_of_the_contract(output, tiny_family):
    report = json.loads((output / "report.json").read_text())
    assert report["method"] == "kfac"
    assert (
        report["options"] == METHODS["kfac"].options.model_validate({"iterations": 7}).model_dump()
    )
    assert report["seed"] == 0
    assert report["device"] == "cpu"
    assert report["seconds"] > 0
    names = set(Checkpoint.open(output).tensors)
    assert sum(report["coverage"].values()) == len(names)
    assert set(report["coverage"]) == {"merged", "averaged", "head", "copied", "tied"}
    assert {layer["name"] for layer in report["layers"]} == names
    for layer in report["layers"]:
        assert {"name", "treatment", "status", "iterations", "residuals", "seconds"} <= set(layer)
        if layer["treatment"] == "merged":
            assert len(layer["residuals"]) == layer["iterations"] + 1 == 8
            assert layer["status"] == "iteration limit"
            assert layer["residuals"][-1] < layer["residuals"][0]
    assert [task["name"] for task in report["tasks"]] == ["e0", "e1", "e2"]
    for task in report["tasks"]:
        assert set(task) >= {
            "name", "accuracy", "finetuned", "pretrained", "examples", "interval",
        }  # fmt: skip
        assert task["examples"] == 60
        assert task["interval"][0] <= task["accuracy"] <= task["interval"][1]
    expected = np.mean([t["accuracy"] / t["finetuned"] for t in report["tasks"]])
    assert report["normalised_accuracy"] == pytest.approx(expected)
    means = {k: np.mean([t[k] for t in report["tasks"]])
             for k in ("accuracy", "finetuned", "pretrained")}  # fmt: skip
    gap = (means["accuracy"] - means["pretrained"]) / (means["finetuned"] - means["pretrained"])
    assert report["gap_recovered"] == pytest.approx(gap)
    assert report["fingerprints"]["base"] == Checkpoint.open(tiny_family / "base").fingerprint


def test_the_recipe_in_the_output_reproduces_the_bytes(output, tmp_path):
    content = yaml.safe_load((output / "recipe.yaml").read_text())
    assert content["base_fingerprint"]
    assert all(expert["fingerprint"] for expert in content["experts"])
    again = load_recipe(output / "recipe.yaml").model_copy(
        update={"output": str(tmp_path / "again")}
    )
    merge(again)
    assert filecmp.cmp(
        output / "model.safetensors", tmp_path / "again" / "model.safetensors", shallow=False
    )
    first, second = (yaml.safe_load((p / "recipe.yaml").read_text())
                     for p in (output, tmp_path / "again"))  # fmt: skip
    for content in (first, second):
        content.pop("output")
    assert first == second


def test_the_output_loads_with_transformers_and_predicts_the_same(output, tiny_family):
    from transformers import AutoModelForImageClassification

    tensors = finished(
        recipe_of(tiny_family, "kfac", options={"iterations": 7}, **NO_TASKS)
    ).tensors
    model = AutoModelForImageClassification.from_pretrained(output).eval()
    images = load_task(tiny_family / "t0.npz").test.inputs[:16]
    pixels = pixel_values(images, output)
    ours = build(tiny_family / "base", tensors)
    with torch.inference_mode():
        assert torch.allclose(model(pixel_values=pixels).logits, ours(pixel_values=pixels).logits)


@pytest.mark.parametrize("method", list(METHODS))
def test_memory_and_disk_agree_for_every_method(tiny_family, tmp_path, method):
    on_disk = recipe_of(tiny_family, method, output=str(tmp_path / "out"), **NO_TASKS)
    merge(on_disk)
    in_memory = finished(on_disk.model_copy(update={"output": None}))
    assert in_memory.report.coverage["head"] == 2
    disk = written(tmp_path / "out")
    assert set(disk) == set(in_memory.tensors)
    for name, value in disk.items():
        assert torch.equal(value, in_memory.tensors[name]), name
        assert bool(torch.isfinite(value).all())


def test_layers_merge_as_the_method_merges_them(tiny_family):
    """The pipeline adds nothing of its own: RegMean by hand, from the files."""
    last = finished(recipe_of(tiny_family, "regmean", options={"damping": 0.2}, dtype="float64",
                              **NO_TASKS))  # fmt: skip
    experts = [written(tiny_family / f"e{m}") for m in range(3)]
    grams = [written(tiny_family / f"e{m}.stats.safetensors") for m in range(3)]
    seen = 0
    for name in last.tensors:
        module = name.removesuffix(".weight")
        if f"{module}.input_gram" in grams[0] and "classifier" not in name:
            a = [g[f"{module}.input_gram"].double() for g in grams]
            a = [m + 0.2 * m.diagonal().mean() * torch.eye(len(m)) for m in a]
            above = torch.stack(
                [e[name].double() @ m for e, m in zip(experts, a, strict=True)]
            ).sum(0)
            close(last.tensors[name], torch.linalg.solve(sum(a), above, left=False), 1e-6)
            seen += 1
        elif "classifier" not in name:
            close(last.tensors[name], torch.stack([e[name] for e in experts]).mean(0), 1e-6)
    assert seen == 12


# Events, evaluation, search -----------------------------------------------------------------------


def test_the_order_of_events(tiny_family):
    recipe = recipe_of(
        tiny_family, "task_arithmetic", search={"scaling": [0.1, 0.4]},
        evaluate={"examples": 10},
    )  # fmt: skip
    events = list(run(recipe))
    kinds = [type(event) for event in events if type(event) not in (Event, Asked)]
    total = len([k for k in kinds if k is LayerDone])
    merging = [Started] + [LayerDone] * total + [TaskDone] * 3 + [Finished]
    assert kinds == [Examined] + [TrialDone] * 2 + merging
    (started,) = [event for event in events if isinstance(event, Started)]
    assert started.total == total
    layers = [e for e in events if isinstance(e, LayerDone)]
    assert [e.index for e in layers] == list(range(total))
    assert {e.total for e in layers} == {total}


def brute_force_accuracy(tiny_family, tensors, m, split, count=None):
    """Merged encoder, the expert's own head, one image at a time."""
    expert = Checkpoint.open(tiny_family / f"e{m}")
    own = tensors_of(expert)
    mixed = {n: own[n] if n.startswith("classifier") else tensors[n] for n in own}
    model = build(tiny_family / f"e{m}", mixed)
    data = load_task(tiny_family / f"t{m}.npz").split(split).first(count)
    correct = 0
    for image, label in zip(data.inputs, data.labels, strict=True):
        pixels = (torch.from_numpy(image).float().permute(2, 0, 1)[None] / 255 - 0.5) / 0.5
        with torch.inference_mode():
            correct += int(model(pixel_values=pixels).logits.argmax()) == label
    return correct / len(data.labels)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_accuracies_equal_brute_force(tiny_family, split):
    last = finished(recipe_of(tiny_family, "average", evaluate={"split": split, "examples": 20}))
    for m, result in enumerate(last.report.tasks):
        assert result.merged.examples == 20
        for tensors, score in (
            (last.tensors, result.merged),
            (written(tiny_family / "base"), result.pretrained),
            (written(tiny_family / f"e{m}"), result.finetuned),
        ):
            assert score.accuracy == brute_force_accuracy(tiny_family, tensors, m, split, 20)
    assert last.report.split == split


def test_the_search_chooses_on_validation_data(tiny_family):
    grid = {"scaling": [0.0, 0.3, 1.0], "density": [0.2, 1.0]}
    recipe = recipe_of(tiny_family, "ties", search=grid, evaluate={"split": "test"})
    report = merge(recipe)
    tried = [dict(trial.options) for trial in report.search]
    assert tried == [{"scaling": s, "density": d} for s in (0.0, 0.3, 1.0) for d in (0.2, 1.0)]
    for trial in report.search[::5]:
        again = finished(
            recipe_of(tiny_family, "ties", options=dict(trial.options),
                      evaluate={"split": "validation"})
        ).report  # fmt: skip
        assert trial.normalised_accuracy == again.normalised_accuracy
    best = max(trial.normalised_accuracy for trial in report.search)
    chosen = next(dict(t.options) for t in report.search if t.normalised_accuracy == best)
    assert {key: report.options[key] for key in chosen} == chosen
    assert report.split == "test"
    assert len(report.to_dict()["search"]) == 6


def test_a_search_needs_tasks(raw_family):
    recipe = parse_recipe(
        {"base": "base.safetensors", "method": "task_arithmetic", "search": {"scaling": [1]},
         "experts": [{"name": "a", "model": "e0.safetensors"}]}, raw_family,
    )  # fmt: skip
    with pytest.raises(InputError, match="tasks"):
        merge(recipe)


def test_evaluate_output(output, tiny_family, raw_family, tmp_path):
    results = evaluate_output(output, "test")
    report = json.loads((output / "report.json").read_text())
    assert [r.merged.accuracy for r in results] == [t["accuracy"] for t in report["tasks"]]
    with pytest.raises(InputError, match=r"recipe\.yaml"):
        evaluate_output(tiny_family / "base", "test")


def test_kept_iterates_ride_on_the_events(tiny_family):
    recipe = recipe_of(tiny_family, "kfac", options={"iterations": 3}, **NO_TASKS)
    layers = [e for e in run(recipe, keep=(0, 2)) if isinstance(e, LayerDone)]
    solved = [e for e in layers if e.layer.method == "kfac"]
    assert len(solved) == 12
    assert all(sorted(e.iterates) == [0, 2] for e in solved)


# Nothing on failure -------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [Started, LayerDone, Asked, TaskDone])
def test_stopping_half_way_leaves_nothing(tiny_family, tmp_path, after):
    events = run(recipe_of(tiny_family, "essential", output=str(tmp_path / "out")))
    for event in events:
        if isinstance(event, after):
            break
    events.close()  # type: ignore[attr-defined]
    assert list(tmp_path.iterdir()) == []


def test_an_error_half_way_leaves_nothing(tiny_family, tmp_path, monkeypatch):
    def fails(*arguments):
        raise RuntimeError("disk full")

    monkeypatch.setattr(pipeline, "finish_directory", fails)
    with pytest.raises(RuntimeError, match="disk full"):
        merge(recipe_of(tiny_family, "average", output=str(tmp_path / "out")))
    assert list(tmp_path.iterdir()) == []


def test_an_existing_output_is_refused_before_any_work(tiny_family, tmp_path):
    recipe = recipe_of(tiny_family, "average", output=str(tmp_path / "out"), **NO_TASKS)
    merge(recipe)
    before = (tmp_path / "out" / "report.json").read_text()
    with pytest.raises(InputError, match="--force"):
        next(iter(run(recipe)))
    assert (tmp_path / "out" / "report.json").read_text() == before
    merge(recipe, force=True)
    assert (tmp_path / "out" / "report.json").read_text() != before  # its seconds


def test_the_output_exists_when_the_end_is_announced(tiny_family, tmp_path):
    place = tmp_path / "out"
    for event in run(recipe_of(tiny_family, "average", output=str(place), **NO_TASKS)):
        assert place.exists() == isinstance(event, Finished)


# Raw families, dtypes, shards ---------------------------------------------------------------------


def raw(folder, method, **settings):
    experts = [{"name": f"e{m}", "model": f"e{m}.safetensors"} for m in range(3)]
    return parse_recipe(
        {"base": "base.safetensors", "experts": experts, "method": method, **settings}, folder
    )


def test_raw_families_merge_without_any_config(raw_family, tmp_path):
    merge(raw(raw_family, "tsv_m", output=str(tmp_path / "out")))
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "model.safetensors", "recipe.yaml", "report.json", "README.md",
    }  # fmt: skip
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["tasks"] == []
    assert report["normalised_accuracy"] is None
    assert report["coverage"] == {"merged": 2, "averaged": 3, "head": 0, "copied": 1, "tied": 0}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("output_dtype", [None, "float32"])
def test_narrow_inputs(tmp_path, dtype, output_dtype):
    generator = torch.Generator().manual_seed(1)
    base = {"a.weight": torch.randn(4, 3, generator=generator).to(dtype), "n": torch.arange(2)}
    experts = [
        {"a.weight": (base["a.weight"].float() + 0.1 * m).to(dtype), "n": torch.arange(2)}
        for m in range(3)
    ]
    settings = {"output_dtype": output_dtype} if output_dtype else {}
    recipe = raw_recipe(tmp_path, base, experts, "average", output="out", dtype="float32",
                        **settings)  # fmt: skip
    merge(recipe)
    result = written(tmp_path / "out")
    mean = torch.stack([e["a.weight"].float() for e in experts]).mean(0)
    wanted = torch.float32 if output_dtype else dtype
    assert result["a.weight"].dtype == wanted
    # Computed in float32 and rounded once.
    close(result["a.weight"], mean.to(wanted).double(), 1e-6 if output_dtype else 0)
    assert result["n"].dtype == torch.int64


def test_output_dtype_is_written_into_the_configuration(tiny_family, tmp_path):
    from transformers import AutoModelForImageClassification

    merge(recipe_of(tiny_family, "average", output=str(tmp_path / "out"), output_dtype="bfloat16",
                    **NO_TASKS))  # fmt: skip
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out", dtype="auto")
    assert model.dtype == torch.bfloat16


def test_a_merge_that_overflows_its_output_is_an_error(tmp_path):
    base = {"a.weight": torch.full((2, 2), 6e4)}
    expert = {"a.weight": torch.full((2, 2), 9e4)}
    recipe = raw_recipe(tmp_path, base, [expert], "average", output="out", output_dtype="float16")
    with pytest.raises(InputError, match=r"'a\.weight'.*float16"):
        merge(recipe)
    assert not (tmp_path / "out").exists()


def test_a_sharded_output_loads(tiny_family, tmp_path):
    from transformers import AutoModelForImageClassification

    recipe = recipe_of(tiny_family, "average", output=str(tmp_path / "out"), **NO_TASKS)
    single = finished(recipe.model_copy(update={"output": None})).tensors
    list(run(recipe, shard_bytes=9_000))
    assert len(list((tmp_path / "out").glob("model-*-of-*.safetensors"))) > 2
    assert (tmp_path / "out" / "model.safetensors.index.json").exists()
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    assert model.config.num_labels == 5
    for name, value in written(tmp_path / "out").items():
        assert torch.equal(value, single[name])


# Refusing -----------------------------------------------------------------------------------------


def test_fingerprints_are_pins(output, tiny_family, tmp_path):
    content = yaml.safe_load((output / "recipe.yaml").read_text())
    content["output"] = str(tmp_path / "out")
    for where in (content, content["experts"][1]):
        key = "base_fingerprint" if where is content else "fingerprint"
        kept, where[key] = where[key], "0" * 64
        with pytest.raises(InputError, match="fingerprint 000000000000"):
            merge(parse_recipe(content, tmp_path))
        where[key] = kept


def test_statistics_of_another_checkpoint_are_refused(tiny_family):
    content = family_recipe(tiny_family, "regmean")
    content["experts"][0]["statistics"] = "e1.stats.safetensors"  # type: ignore[index]
    with pytest.raises(InputError, match="another checkpoint"):
        merge(parse_recipe(content, tiny_family))


def test_missing_statistics_are_named(tiny_family):
    content = family_recipe(tiny_family, "kfac")
    del content["experts"][2]["statistics"]  # type: ignore[index]
    with pytest.raises(InputError, match=r"'kfac'.*none for 'e2'.*measure"):
        merge(parse_recipe(content, tiny_family))
    content = family_recipe(tiny_family, "gradient_matching")
    del content["base_statistics"]
    with pytest.raises(InputError, match="base_statistics"):
        merge(parse_recipe(content, tiny_family))


def test_statistics_without_a_fingerprint_are_taken_with_a_warning(tmp_path):
    base = {"a.weight": torch.eye(2)}
    statistics = [{"a.input_gram": torch.eye(2)}]
    recipe = raw_recipe(tmp_path, base, [base], "regmean", statistics=statistics)
    assert any("do not say which checkpoint" in warning for warning in merge(recipe).warnings)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"a.input_gram": torch.eye(3)}, r"\[2, 2\].*\[3, 3\]"),
        ({"a.input_gram": torch.full((2, 2), float("nan"))}, "finite"),
        ({"b.output_gradient_gram": torch.eye(2)}, "input_gram"),
    ],
)
def test_statistics_that_do_not_fit_are_refused(tmp_path, change, says):
    base = {"a.weight": torch.eye(2)}
    recipe = raw_recipe(tmp_path, base, [base], "regmean", statistics=[change])
    with pytest.raises(InputError, match=says):
        merge(recipe)


def test_weights(tiny_family):
    def weighted(method, *weights):
        content = family_recipe(tiny_family, method, **NO_TASKS)
        for entry, weight in zip(content["experts"], weights, strict=True):  # type: ignore[call-overload]
            entry["weight"] = weight
        return parse_recipe(content, tiny_family)

    with pytest.raises(InputError, match="only zeros"):
        merge(weighted("average", 0, 0, 0))
    with pytest.raises(InputError, match="equal ones"):
        merge(weighted("tsv_m", 1, 2, 1))
    result = finished(weighted("average", 1, 0, 0)).tensors
    expert = written(tiny_family / "e0")
    for name in (n for n in result if not n.startswith("classifier")):
        close(result[name], expert[name].double(), 1e-6)
    recipe = recipe_of(tiny_family, "average", weighting="examples")
    with pytest.raises(InputError, match="'examples' for every expert"):
        merge(recipe)


def test_a_start_of_another_shape_is_refused(tiny_family, raw_family, tmp_path):
    shutil.copy(raw_family / "e0.safetensors", tmp_path / "start.safetensors")
    options = {"start": str(tmp_path / "start.safetensors")}
    with pytest.raises(InputError, match="no such tensor"):
        merge(recipe_of(tiny_family, "kfac", options=options))


def test_a_start_that_changes_is_read_again(tiny_family, tmp_path):
    def first_layer():
        options = {"start": str(tmp_path / "start"), "iterations": 0}
        tensors = finished(recipe_of(tiny_family, "kfac", options=options, **NO_TASKS)).tensors
        return tensors["vit.encoder.layer.0.attention.attention.query.weight"]

    shutil.copytree(tiny_family / "e0", tmp_path / "start")
    before = first_layer()
    # A file of another layout at the same path: offsets read before must not be trusted.
    shutil.rmtree(tmp_path / "start")
    shutil.copytree(tiny_family / "e1", tmp_path / "start")
    expected = written(tiny_family / "e1")["vit.encoder.layer.0.attention.attention.query.weight"]
    after = first_layer()
    assert not torch.equal(before, after)
    assert torch.equal(after, expected)


def test_devices(tiny_family):
    assert choose_device("cpu") == ("cpu", "as the recipe says")
    assert choose_device("auto")[0] in ("cpu", "cuda", "mps")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no such device"):
            merge(recipe_of(tiny_family, "average").model_copy(update={"device": "cuda"}))


# Pieces -------------------------------------------------------------------------------------------


def test_inputs_opened_once_serve_many_merges(tiny_family):
    recipe = recipe_of(tiny_family, "average", **NO_TASKS)
    inputs = open_inputs(recipe)
    job = prepare(recipe, inputs)
    names = [unit.name for unit in units(job)]
    assert names == list(inputs.family.shared)
    layer = read_layer(job, units(job)[0])
    assert layer.statistics == ()  # the average reads none
    assert len(layer.experts) == 3
    again = finished(recipe, inputs=inputs).tensors
    for name, value in finished(recipe).tensors.items():
        assert torch.equal(value, again[name])


def test_the_public_names():
    for name in mats_core.__all__:
        assert getattr(mats_core, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'mergee'"):
        _ = mats_core.mergee
