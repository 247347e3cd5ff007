"""Files of earlier versions are read, and mean what they meant (`tests/data/68a66e7/README.md`).

The oracle is what version 0.1.0 wrote itself: its reports, its statistics and its merged weights.
Nothing of the new version has a say in what is expected.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from mats_core.cli import main
from mats_core.merging import layers_done
from mats_core.methods import describe
from mats_core.recipes import Report, load_family, load_recipe
from mats_core.statistics import Statistics
from pages.shared.work import runs

KEPT = Path(__file__).parent / "data" / "68a66e7"
TEXTS = (".yaml", ".json", ".jsonl", ".md")
# Of a report: these may differ from run to run, or were added since.
ITS_OWN = ("seconds", "versions", "warnings", "files")
SERIES = ("residuals", "objectives", "distances")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of the files in which FOLDER is the path of their folder, as it was when written."""
    folder = tmp_path / "old"
    shutil.copytree(KEPT, folder)
    for file in folder.rglob("*"):
        if file.suffix in TEXTS:
            text = file.read_text("utf-8")
            file.write_text(text.replace("FOLDER", str(folder)), "utf-8")
    return folder


def tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(file, "pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata()  # noqa: SIM118


def told(report: dict[str, Any]) -> dict[str, Any]:
    """A report without times and versions, and without its series of numbers."""
    layers = [
        {key: value for key, value in layer.items() if key not in ("seconds", "errors", *SERIES)}
        for layer in report["layers"]
    ]
    return {**{k: v for k, v in report.items() if k not in ITS_OWN}, "layers": layers}


def of_then(method: str, options: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
    """The options that there were then; those that came since have their defaults."""
    since = {name: value for name, value in options.items() if name not in then}
    assert since == {f.name: f.default for f in describe(method) if f.name in since}
    return {name: value for name, value in options.items() if name in then}


def same_report(now: dict[str, Any], then: dict[str, Any]) -> None:
    options = of_then(now["method"], now["options"], then["options"])
    assert told({**now, "options": options}) == told(then)
    for new, old in zip(now["layers"], then["layers"], strict=True):
        for key in SERIES:
            assert new.get(key, []) == pytest.approx(old.get(key, []), rel=1e-2, abs=1e-9)


def test_recipes_mean_the_same(old):
    kfac = load_recipe(old / "kfac.yaml")
    assert (kfac.method, kfac.rounds, kfac.dtype, kfac.device) == ("kfac", 2, "float64", "cpu")
    assert [(e.name, e.weight) for e in kfac.experts] == [("one", 1.0), ("two", 0.5)]
    applied = json.loads((old / "run.json").read_text())["report"]["options"]
    options = of_then("kfac", kfac.parsed_options().model_dump(), applied)
    assert options == applied  # the defaults of then, too
    fisher = load_recipe(old / "fisher.yaml")
    assert fisher.search == {"floor": (0.1, 0.5)}
    assert fisher.output == "fisher"


def test_a_family_means_the_same(old):
    family = load_family(old)
    assert family.name == "Tiny two"
    assert family.members() == [(n, old / n, f"{n}.npz") for n in ("one", "two")]


def test_statistics_whole_and_in_low_rank_mean_the_same(old):
    whole = Statistics.open(old / "one.stats.safetensors")
    low = Statistics.open(old / "two.stats.safetensors")
    assert (whole.tokens, whole.metadata["examples"], whole.metadata["task"]) == (60, "12", "one")
    assert low.metadata["rank"] == "2"
    assert whole.layers
    assert whole.layers == low.layers
    stored, _ = tensors(old / "one.stats.safetensors")
    factors, _ = tensors(old / "two.stats.safetensors")
    for layer in whole.layers:
        name = f"{layer}.input_gram"
        assert name in whole
        assert name in low
        size = stored[name].shape[0]
        assert torch.equal(whole.read(name, (size, size)), stored[name])  # type: ignore[arg-type]
        stem = f"{layer}.input"
        gram = low.read(name, (size, size))
        assert gram is not None
        if f"{stem}_factor" in factors:
            factor, rest = factors[f"{stem}_factor"], factors[f"{stem}_rest"]
            assert torch.allclose(gram, factor.T @ factor + rest * torch.eye(size))
    assert any(name.endswith("_factor") for name in factors)


@pytest.mark.parametrize(("name", "more"), [("one", ()), ("two", ("--rank", "2"))])
def test_statistics_measured_today_are_those_of_then(old, tmp_path, name, more):
    new = tmp_path / "new.safetensors"
    words = ["--task", str(old / f"{name}.npz"), "--out", str(new), "--examples", "12", *more]
    assert main(["measure", str(old / name), *words]) == 0
    (now, header), (then, before) = tensors(new), tensors(old / f"{name}.stats.safetensors")
    assert header == before
    assert now.keys() == then.keys()
    # What is smaller is zero but for the processor's rounding, as a key's bias in attention.
    nothing = 1e-12 * max(float(value.abs().max()) for value in then.values())
    for key, value in then.items():
        a, b = now[key], value
        if key.endswith("_factor"):  # rows may turn; what they stand for may not
            a, b = a.T @ a, b.T @ b
        assert torch.allclose(a, b, rtol=1e-3, atol=max(1e-4 * float(b.abs().max()), nothing)), key


@pytest.mark.parametrize("file", ["fisher/report.json", "run.json"])
def test_reports_are_read_whole(old, file):
    content = json.loads((old / file).read_text())
    content = content.get("report", content)
    report = Report.from_dict(content)
    again = report.to_dict()
    assert {k: again[k] for k in content if k != "versions"} == {
        k: v for k, v in content.items() if k != "versions"
    }
    assert report.rounds == content.get("rounds", 1)
    assert len(report.search) == len(content["search"])


def test_a_run_of_the_app_is_found_and_has_its_name(old, tmp_path, monkeypatch):
    monkeypatch.setenv("MATS_RESULTS", str(tmp_path / "results"))
    folder = tmp_path / "results" / "runs" / "tiny-two-11be29"  # where 0.1.0 put it
    folder.mkdir(parents=True)
    shutil.copy(old / "run.json", folder / "c533bd6105.json")
    (run,) = runs.everything("Tiny two")
    assert (run.id, run.number, run.family_size) == ("c533bd6105", 1, 2)
    assert runs.identity(run.recipe, run.report.fingerprints) == run.id
    assert run.name == "K-FAC · 2 rounds · damping 0.3 · 2 more"
    assert run.report.rounds == run.recipe.rounds == 2
    assert run.recipe.folder == old
    assert run.report.split == "test"
    assert run.final == runs.Final(run.report.tasks, run.created), "it was asked test examples"


def test_the_recipe_of_an_output_gives_its_weights_again(old, tmp_path):
    out = tmp_path / "again"
    assert main(["merge", str(old / "fisher" / "recipe.yaml"), "--output", str(out)]) == 0
    for file in ("model.safetensors", "heads/one/head.safetensors", "heads/two/head.safetensors"):
        (now, _), (then, _) = tensors(out / file), tensors(old / "fisher" / file)
        assert now.keys() == then.keys()
        for name, value in then.items():
            assert torch.allclose(now[name], value, rtol=1e-5, atol=1e-7), name
    now = json.loads((out / "report.json").read_text())
    then = json.loads((old / "fisher" / "report.json").read_text())
    same_report({**now, "search": then["search"]}, then)  # the recipe holds its outcome


def test_a_recipe_in_two_rounds_over_both_kinds_of_statistics_gives_its_report_again(old, tmp_path):
    out = tmp_path / "again"
    assert main(["merge", str(old / "kfac.yaml"), "--output", str(out)]) == 0
    then = json.loads((old / "run.json").read_text())["report"]
    same_report(json.loads((out / "report.json").read_text()), then)


def test_a_checkpoint_that_changed_since_is_refused_by_its_fingerprint(old, tmp_path, capsys):
    shutil.copy(old / "base" / "model.safetensors", old / "one" / "model.safetensors")
    words = [str(old / "fisher" / "recipe.yaml"), "--output", str(tmp_path / "out")]
    assert main(["merge", *words]) == 2
    assert "fingerprint" in capsys.readouterr().err


def test_an_output_of_then_is_evaluated_and_inspected(old, capsys):
    assert main(["evaluate", str(old / "fisher"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    then = json.loads((old / "fisher" / "report.json").read_text())
    assert [task["accuracy"] for task in printed["tasks"]] == [
        task["accuracy"] for task in then["tasks"]
    ]
    assert main(["inspect", str(old / "fisher" / "recipe.yaml")]) == 0


def test_a_journal_of_then_is_counted(old, tmp_path):
    folder = tmp_path / "partial"
    folder.mkdir()
    shutil.copy(old / "journal.jsonl", folder / ".journal.jsonl")
    assert layers_done(folder) == 5
