"""An expert is added to a finished merge whose sums were kept: what is written, and refused."""

from __future__ import annotations

import filecmp
import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mats_core.cli.main import main
from mats_core.errors import InputError
from mats_core.estimating import estimate_plan
from mats_core.merging.asking import evaluate_output
from mats_core.merging.pipeline import merge, planned, run
from mats_core.recipes.events import LayerDone
from mats_core.recipes.recipe import Recipe, load_recipe, parse_recipe
from mats_core.recipes.report import Report
from mats_core.recipes.sums import _digest_of, digest_of_file
from tests.conftest import family_recipe

EXACT = {"iterations": 100, "tolerance": 0}
METHODS: dict[str, dict[str, Any]] = {
    "average": {},
    "task_arithmetic": {"scaling": 0.4},
    "fisher": {},
    "regmean": {"fold_bias": True},
    "kfac": {**EXACT, "remaining": "block"},
}
WEIGHTS = (1.0, 0.5, 2.0)


def recipe_of(family: Path, experts: slice, method: str, output: Path, **settings) -> Recipe:
    content: dict[str, Any] = family_recipe(family, method, dtype="float64", evaluate=False)
    entries = [{**e, "weight": w} for e, w in zip(content["experts"], WEIGHTS, strict=True)]
    content |= {"experts": entries[experts], "options": METHODS[method], "output": str(output)}
    return parse_recipe({**content, **settings}, family)


@pytest.fixture(scope="module")
def kept(tiny_family, tmp_path_factory):
    """The merge of two experts by every method, with its sums."""
    folder = tmp_path_factory.mktemp("kept")
    for method in METHODS:
        merge(recipe_of(tiny_family, slice(2), method, folder / method, keep_sums=True))
    return folder


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("method", METHODS)
def test_added_on_disk_it_is_the_merge_of_all_at_once(tiny_family, kept, tmp_path, method):
    at_once = merge(recipe_of(tiny_family, slice(3), method, tmp_path / "at once"))
    later = recipe_of(
        tiny_family, slice(2, 3), method, tmp_path / "later", adds_to=str(kept / method)
    )
    report = merge(later)
    whole, added = tensors(tmp_path / "at once"), tensors(tmp_path / "later")
    assert list(whole) == list(added)
    for name, value in whole.items():  # written in float32: solved in float64 they round alike
        torch.testing.assert_close(added[name], value, rtol=3e-7, atol=1e-8)
    moved = tensors(kept / method)
    assert any(not torch.allclose(moved[n], v, atol=1e-4) for n, v in whole.items())
    assert [x.method for x in report.layers] == [x.method for x in at_once.layers]


def test_a_default_by_the_number_of_experts_is_that_of_all_of_them(tiny_family, tmp_path):
    usual = {"options": {}}
    make = functools.partial(recipe_of, tiny_family, method="task_arithmetic", **usual)
    first = merge(make(slice(2), output=tmp_path / "kept", keep_sums=True))
    at_once = merge(make(slice(3), output=tmp_path / "at once"))
    added = merge(make(slice(2, 3), output=tmp_path / "later", adds_to=str(tmp_path / "kept")))
    assert first.options["scaling"] != at_once.options["scaling"] == added.options["scaling"]
    whole, later = tensors(tmp_path / "at once"), tensors(tmp_path / "later")
    for name, value in whole.items():
        torch.testing.assert_close(later[name], value, rtol=3e-7, atol=1e-8)


def test_what_does_not_enter_the_sums_may_be_another(tiny_family, tmp_path):
    """λ scales the sum of the task vectors when all are in it."""

    def make(experts: slice, output: str, **settings: Any) -> Recipe:
        return recipe_of(tiny_family, experts, "task_arithmetic", tmp_path / output, **settings)

    merge(make(slice(2), "kept", keep_sums=True))
    other = {"scaling": 0.1}
    merge(make(slice(3), "at once", options=other))
    merge(make(slice(2, 3), "later", adds_to=str(tmp_path / "kept"), options=other))
    whole, later = tensors(tmp_path / "at once"), tensors(tmp_path / "later")
    for name, value in whole.items():
        torch.testing.assert_close(later[name], value, rtol=3e-7, atol=1e-8)


def test_the_report_and_what_lies_beside_are_those_of_all_experts(tiny_family, kept, tmp_path):
    recipe = recipe_of(
        tiny_family, slice(2, 3), "regmean", tmp_path / "out", adds_to=str(kept / "regmean")
    )
    report = merge(recipe)
    assert report.earlier == ("e0", "e1")
    assert list(report.fingerprints) == ["base", "e2", "e0", "e1"]
    assert any("e2 was added to the sums of e0, e1" in note for note in report.warnings)
    content = json.loads((tmp_path / "out/report.json").read_text())
    assert Report.from_dict(content).earlier == ("e0", "e1")
    written = load_recipe(tmp_path / "out/recipe.yaml")
    assert [(e.name, e.weight) for e in written.experts] == [("e0", 1), ("e1", 0.5), ("e2", 2)]
    assert written.adds_to is None
    assert all(e.fingerprint for e in written.experts)
    for name in ("e0", "e1", "e2"):
        assert (tmp_path / f"out/heads/{name}/head.safetensors").is_file()
    card = (tmp_path / "out/README.md").read_text()
    assert "this merge, to rounding" in card
    assert all(f"| e{m} |" in card for m in range(3))
    assert [r.name for r in evaluate_output(tmp_path / "out", "test")] == ["e0", "e1", "e2"]


def test_one_after_the_other_without_the_files_of_those_before(tiny_family, tmp_path):
    """The first expert's files are gone when the third is added."""
    family = tmp_path / "family"
    shutil.copytree(tiny_family, family)
    heads = {"heads": ["classifier.*"]}  # one expert by itself shares it with the base
    merge(recipe_of(family, slice(1), "kfac", tmp_path / "one", keep_sums=True, **heads))
    shutil.rmtree(family / "e0")
    (family / "e0.stats.safetensors").unlink()
    to = {"adds_to": str(tmp_path / "one"), "keep_sums": True, **heads}
    merge(recipe_of(family, slice(1, 2), "kfac", tmp_path / "two", **to))
    shutil.rmtree(tmp_path / "one")
    to = {"adds_to": str(tmp_path / "two"), **heads}
    merge(recipe_of(family, slice(2, 3), "kfac", tmp_path / "three", **to))
    merge(recipe_of(tiny_family, slice(3), "kfac", tmp_path / "at once"))
    whole, added = tensors(tmp_path / "at once"), tensors(tmp_path / "three")
    for name, value in whole.items():
        torch.testing.assert_close(added[name], value, rtol=3e-7, atol=1e-8)


@pytest.mark.parametrize("method", ["average", "regmean", "kfac"])
def test_the_bytes_of_a_merge_are_the_same_with_sums_and_without(
    tiny_family, kept, tmp_path, method
):
    merge(recipe_of(tiny_family, slice(2), method, tmp_path / "out"))
    names = [tmp_path / "out/model.safetensors", kept / method / "model.safetensors"]
    assert filecmp.cmp(*names, shallow=False)
    assert not (tmp_path / "out/sums").exists()


def test_the_same_sums_whether_it_was_resumed_or_not(tiny_family, kept, tmp_path):
    recipe = recipe_of(tiny_family, slice(2), "regmean", tmp_path / "out", keep_sums=True)
    events = run(recipe, resume=True)
    done = 0
    for event in events:
        done += isinstance(event, LayerDone)
        if done == 5:
            events.close()
            break
    merge(recipe, resume=True)
    names = sorted(p.name for p in (kept / "regmean/sums").iterdir())
    assert names == sorted(p.name for p in (tmp_path / "out/sums").iterdir())
    same, other, bad = filecmp.cmpfiles(
        kept / "regmean/sums", tmp_path / "out/sums", names, shallow=False
    )
    assert (same, other, bad) == (names, [], [])


def test_an_estimate_counts_the_sums_on_the_disk(tiny_family, kept, tmp_path):
    for method in METHODS:
        recipe = recipe_of(tiny_family, slice(2), method, tmp_path / "out")
        without = estimate_plan(planned(recipe)).disk_bytes
        counted = estimate_plan(planned(recipe.model_copy(update={"keep_sums": True}))).disk_bytes
        lie = sum(file.stat().st_size for file in (kept / method / "sums").glob("*.safetensors"))
        assert counted - without == pytest.approx(lie, rel=0.25), method


REFUSED = {
    "another method": ({"method": "regmean", "options": {}}, "method of a merge that adds to"),
    "another option": ({"options": {**METHODS["kfac"], "damping": 0.3}}, "option 'damping'"),
    "another arithmetic": ({"dtype": "float32"}, "dtype.*float64"),
    "another base": ({"base": "e0"}, "base of a merge|'e0'"),
    "rounds": ({"rounds": 2}, "one round"),
    "a search": ({"search": {"damping": [0.1, 0.2]}}, "without a search"),
    "a negative weight": (
        {"experts": [{"name": "e2", "model": "e2", "weight": -1.0}]},
        "above zero|at least zero|statistics",
    ),
    "a name that is taken": (
        {"experts": [{"name": "e0", "model": "e2", "statistics": "e2.stats.safetensors"}]},
        "other names.*e0",
    ),
    "no such folder": ({"adds_to": "nowhere"}, "no such folder"),
    "a merge without sums": ({"adds_to": "e0"}, "no sums beside it"),
    "its folder as the output": ({}, "merge that is added to"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_added_is_refused_before_any_work(tiny_family, kept, tmp_path, case):
    changes, sentence = REFUSED[case]
    output = kept / "kfac" if case == "its folder as the output" else tmp_path / "out"
    settings = {"adds_to": str(kept / "kfac"), **changes}
    recipe = recipe_of(tiny_family, slice(2, 3), "kfac", output)
    content = {**recipe.model_dump(exclude_defaults=True), **settings}
    with pytest.raises(InputError, match=sentence):
        merge(parse_recipe(content, tiny_family), force=True)
    assert not (tmp_path / "out").exists()


def test_methods_and_options_that_keep_nothing_say_so(tiny_family, tmp_path):
    content = {**family_recipe(tiny_family, "ties"), "output": str(tmp_path / "out")}
    for changes in (
        {},
        {"method": "regmean", "options": {"iterations": 3}},
        {"method": "kfac", "options": {"start": "regmean"}},
    ):
        recipe = parse_recipe({**content, **changes, "keep_sums": True}, tiny_family)
        with pytest.raises(InputError, match="sums over experts say all"):
            merge(recipe)
    recipe = parse_recipe({**content, "method": "average", "keep_sums": True}, tiny_family)
    with pytest.raises(InputError, match="beside which the sums lie"):
        merge(recipe.model_copy(update={"output": None}))


def damaged(folder: Path, how: str) -> None:
    sums = folder / "sums"
    if how == "a number":
        values = load_file(sums / "0003.safetensors")
        save_file({name: value * 1.01 for name, value in values.items()}, sums / "0003.safetensors")
    elif how == "a weight":
        text = (sums / "manifest.json").read_text()
        (sums / "manifest.json").write_text(text.replace("0.5", "0.6"))
    elif how == "a way out of the folder":
        content = json.loads((sums / "manifest.json").read_text())
        (sums / "0000.safetensors").rename(sums.parent / "0000.safetensors")
        content["layers"][0]["file"] = "../0000.safetensors"
        content["digest"] = _digest_of({k: v for k, v in content.items() if k != "digest"})
        (sums / "manifest.json").write_text(json.dumps(content))
    elif how == "a file without a name":
        content = json.loads((sums / "manifest.json").read_text())
        content["layers"][0]["file"] = None
        (sums / "manifest.json").write_text(json.dumps(content))
    else:
        (sums / "0000.safetensors").unlink()


@pytest.mark.parametrize(
    "how",
    [
        "a number",
        "a weight",
        "a file that is gone",
        "a file without a name",
        "a way out of the folder",
    ],
)
def test_sums_that_were_changed_since_are_refused(tiny_family, kept, tmp_path, how):
    shutil.copytree(kept / "average", tmp_path / "changed")
    damaged(tmp_path / "changed", how)
    to = str(tmp_path / "changed")
    recipe = recipe_of(tiny_family, slice(2, 3), "average", tmp_path / "out", adds_to=to)
    with pytest.raises(InputError, match="changed since, or none"):
        merge(recipe)
    assert not (tmp_path / "out").exists()


def digested_anew(folder: Path, change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> None:
    """Change the manifest and the tensors of the sums, and let all digests fit again."""
    sums = folder / "sums"
    content = json.loads((sums / "manifest.json").read_text())
    for layer in content["layers"]:
        file = sums / layer["file"]
        values = load_file(file)
        change(content, values)
        save_file(values, file)
        layer["digest"] = digest_of_file(file)
    content["digest"] = _digest_of({k: v for k, v in content.items() if k != "digest"})
    (sums / "manifest.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("method", "change", "words"),
    [
        ("average", lambda m, t: m.update(weights=["x", 1.0]), "changed since"),
        ("average", lambda m, t: m.update(weights=[float("nan"), 1.0]), "changed since"),
        ("average", lambda m, t: m.update(weights=[10**400, 1.0]), "changed since"),
        ("average", lambda m, t: m.update(identity="x"), "changed since"),
        ("average", lambda m, t: m.update(weights=[1.0]), "changed since"),
        ("average", lambda m, t: t.update({k: v * torch.nan for k, v in t.items()}), "NaN"),
        ("average", lambda m, t: t.clear(), "found none"),
        ("average", lambda m, t: t.update({k: v.reshape(-1)[:1] for k, v in t.items()}), "shape"),
        ("regmean", lambda m, t: t.pop("gram", None), "found none"),
        ("kfac", lambda m, t: t.pop("input_gram.0", None), "a Gram of every expert"),
        ("kfac", lambda m, t: t.update({k: -v for k, v in t.items()}), "at least 0"),
        ("kfac", lambda m, t: t.update({k: torch.eye(2) for k in t if "gram" in k}), "shape"),
    ],
)
def test_sums_that_are_none_are_refused_whatever_their_digest(
    tiny_family, kept, tmp_path, method, change, words
):
    shutil.copytree(kept / method, tmp_path / "changed")
    digested_anew(tmp_path / "changed", change)
    to = str(tmp_path / "changed")
    recipe = recipe_of(tiny_family, slice(2, 3), method, tmp_path / "out", adds_to=to)
    with pytest.raises(InputError, match=words):
        merge(recipe)
    assert not (tmp_path / "out").exists()


def test_branches_lead_to_experts_whose_files_are_there(tiny_family, kept, tmp_path):
    to = {"adds_to": str(kept / "average"), "routed": {"by": "smile"}}
    recipe = recipe_of(tiny_family, slice(2, 3), "average", tmp_path / "out", **to)
    with pytest.raises(InputError, match="files of all experts, to which its branches lead"):
        merge(recipe)


def test_other_layers_than_those_kept_are_refused(tiny_family, kept, tmp_path):
    patterns = {"heads": ["classifier.*", "*layer.1.*"]}
    recipe = recipe_of(
        tiny_family, slice(2, 3), "average", tmp_path / "out", adds_to=str(kept / "average")
    )
    with pytest.raises(InputError, match="heads of a merge that adds to"):
        merge(recipe.model_copy(update={"heads": tuple(patterns["heads"])}))


def test_from_the_command_line(tiny_family, tmp_path, capsys):
    content = family_recipe(tiny_family, "average", evaluate=False)
    experts: Any = content["experts"]
    for name, own in (("first", experts[:2]), ("new", experts[2:])):
        (tiny_family / f"{name}.yaml").write_text(json.dumps({**content, "experts": own}))
    first, new = (str(tiny_family / f"{name}.yaml") for name in ("first", "new"))
    assert main(["merge", first, "--keep-sums", "--output", str(tmp_path / "a")]) == 0
    to = ["--adds-to", str(tmp_path / "a"), "--output", str(tmp_path / "b")]
    assert main(["merge", new, *to]) == 0
    assert "e2 was added to the sums of e0, e1" in capsys.readouterr().out
    assert (
        main(["merge", new, "--adds-to", str(tmp_path / "b"), "--output", str(tmp_path / "c")]) == 2
    )
    assert "no sums beside it" in capsys.readouterr().err
