"""Which method to take: by rows that cannot go stale, for what is there and for nothing else."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from mats_core.cli.main import main
from mats_core.estimating import Advice, Needs, advise, choose, evidence
from mats_core.estimating import advising as module
from mats_core.families import rewritten
from mats_core.methods import METHODS
from mats_core.recipes import load_family, open_inputs, parse_recipe
from tests.adapter_cases import write_adapter, write_base
from tests.conftest import family_recipe


def of(folder: Path, **settings: object) -> Advice:
    return advise(folder, timed=False, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def copied(tiny_family, tmp_path_factory):
    """A copy of the tiny family, to change its files."""
    folder = tmp_path_factory.mktemp("advised") / "family"
    shutil.copytree(tiny_family, folder)
    return folder


def rewrite(folder: Path, **content: object) -> Path:
    """A family.yaml beside the others' files, with other content."""
    told = yaml.safe_load((folder / "family.yaml").read_text())
    target = folder / f"{'_'.join(content) or 'same'}"
    target.mkdir(exist_ok=True)
    for expert in told["experts"]:
        expert["model"] = f"../{expert['model']}"
        if "task" in expert and expert["task"].endswith(".npz"):
            expert["task"] = f"../{expert['task']}"
    told["base"] = f"../{told['base']}"
    told.pop("base_task", None)
    (target / "family.yaml").write_text(yaml.safe_dump({**told, **content}))
    return target


# The choice among rows ----------------------------------------------------------------------------


def test_rows_are_of_known_methods_with_options_that_they_have():
    for row in evidence():
        METHODS[row.method].options.model_validate(dict(row.options))
        assert row.validation or row.test
        assert 0 < row.kept.normalised < 105


@pytest.mark.parametrize(
    "needs",
    [
        Needs(walkable=False), Needs(), Needs(examples=8), Needs(examples=100), Needs(examples=256),
        Needs(examples=256, labels=True), Needs(examples=256, walkable=False, measured=True),
        Needs(pile=True), Needs(examples=1024, larger=True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["image", "text", "causal"])
def test_no_choice_needs_more_than_there_is(kind, needs):
    found = choose(evidence(), kind, needs)
    assert found
    assert all(one.lost >= 0 for one in found)
    assert [round(one.lost, 1) for one in found] == sorted(round(one.lost, 1) for one in found)
    for row in (row for one in found for row in one.rows):
        assert row.data != "own" or row.examples <= needs.examples or needs.measured
        assert not row.labels or needs.labels or needs.measured
        assert needs.walkable or row.method != "sequential"
        assert not row.routed or needs.larger
        assert row.data != "pile" or needs.pile
        assert kind == "causal" or row.kind == kind


def test_the_least_behind_on_all_families_is_chosen_and_of_equal_ones_the_quicker():
    plain = next(row for row in evidence() if row.method == "average" and row.validation)

    def row(family, method, normalised, cpu):
        assert plain.validation is not None
        kept = replace(plain.validation, normalised=normalised)
        return replace(plain, family=family, method=method, validation=kept, test=None, cpu=cpu,
                       kind="image", options={}, experts=8)  # fmt: skip

    rows = [
        row("a", "ties", 90.0, 5.0), row("b", "ties", 70.0, 5.0),
        row("a", "dare", 86.0, 9.0), row("b", "dare", 84.0, 9.0),
        row("a", "iso_c", 86.0, 3.0), row("b", "iso_c", 84.0, 3.0),
        row("a", "tsv_m", 99.0, 1.0),  # not tried on b
    ]  # fmt: skip
    found = choose(rows, "image", Needs())
    assert [one.rows[0].method for one in found] == ["iso_c", "dare", "ties"]
    assert [one.lost for one in found] == [(13.0 + 0.0) / 2] * 2 + [(9.0 + 14.0) / 2]


# What is there ------------------------------------------------------------------------------------


def test_an_advice_says_what_is_there_what_it_rests_on_and_what_would_make_more_possible(
    tiny_family,
):
    found = of(tiny_family, examples=12, labels=False)
    assert found.situation.kind == "image"
    assert found.situation.needs.examples == 12
    assert found.recipe["method"] == "sequential"
    assert found.recipe["options"]["examples"] == 12
    assert found.suggestion is not None
    assert {row.family for row in found.suggestion.rows} == {"vision", "sample"}
    assert found.suggestion.cost is not None
    assert found.suggestion.cost.memory_bytes > 0
    first, second, *_ = found.reasons
    assert first.startswith("Three experts, trained in full, on images")
    assert all(f"{row.kept.normalised:.1f}" in second for row in found.suggestion.rows)
    assert any("256 unlabelled examples" in said for said in found.more)
    assert any(one.rows[0].data == "none" for one in found.alternatives)
    assert all(one.method != "kfac" or "gram" in one.options for one in found.alternatives)
    assert any("Task arithmetic 0." in said for said in found.notes)
    parse_recipe({**family_recipe(tiny_family, "average"), **found.recipe}, tiny_family)


def test_rows_of_as_few_experts_are_told_where_there_are_any(tiny_family, monkeypatch):
    rows = [row for row in evidence() if row.experts == 8]
    monkeypatch.setattr(module, "evidence", lambda: rows)
    assert "no row of three experts" in of(tiny_family).reasons[-1]
    first = of(tiny_family).suggestion
    assert first is not None
    plain = next(row for row in rows if row.method == "average" and row.family == "vision")
    rows += [replace(row, experts=3) for row in (plain, replace(plain, family="sample"))]
    kept, way = f"{plain.kept.normalised:.1f}", "Sequential calibration"
    said = of(tiny_family).reasons[-1]
    assert said.startswith("Of three experts the study has, in percent, on images (small ViT): ")
    assert f"Average {kept}; on the sample family: Average {kept}. {way}" in said
    assert said.endswith("was not among these.")
    rows += [replace(row, experts=3) for row in first.rows]
    assert way in of(tiny_family).reasons[-1]
    assert "among" not in of(tiny_family).reasons[-1]


def test_without_tasks_weights_and_a_pool_are_left(copied):
    experts = [{"name": f"e{k}", "model": f"../e{k}"} for k in range(3)]
    found = of(rewrite(copied, experts=experts))
    assert found.situation.needs == Needs()
    assert found.recipe["options"]["inputs"] == "pool"
    assert "no expert names a task" in found.reasons[0]


def test_what_cannot_be_walked_through_is_not_calibrated(tiny_family):
    recipe = load_family(tiny_family).recipe("average", engine="ray")
    found = advise(recipe, labels=False, timed=False)
    everything = [found.recipe, *(one.recipe for one in found.alternatives)]
    assert all(one["method"] != "sequential" for one in everything)
    assert any("engine 'ray'" in said for said in found.notes)


def test_strangers_stop_it(copied):
    told = of(copied)
    assert told.suggestion is not None
    file = copied / "e1" / "model.safetensors"
    before = load_file(file)
    generator = torch.Generator().manual_seed(0)
    save_file(
        {n: torch.randn(v.shape, generator=generator).to(v.dtype) for n, v in before.items()}, file,
        metadata={"format": "pt"},
    )  # fmt: skip
    try:
        found = of(copied)
        assert found.suggestion is None
        assert found.recipe == {}
        assert found.reasons[0].startswith("Stop: 'e1'")
        assert str(found)
        allowed = of(rewrite(copied, strangers="allow"))
        assert allowed.suggestion is not None
        assert any("nothing in common" in said for said in allowed.notes)
    finally:
        save_file(before, file, metadata={"format": "pt"})


def test_what_does_not_fit_into_memory_is_passed_over(tiny_family, monkeypatch):
    monkeypatch.setattr(module, "fits", lambda cost: cost.method != "sequential")
    found = of(tiny_family)
    assert found.recipe["method"] != "sequential"
    assert found.notes[0].startswith("Passed over")


def test_a_layer_behind_the_blocks_that_every_expert_wrote_anew_is_told(tiny_family):
    family = open_inputs(load_family(tiny_family).recipe("average"), contents=False).family
    assert rewritten(family) == {}
    names = {"pooler.dense.weight": (8, 8), "encoder.layer.0.fc.weight": (64, 64)}
    assert rewritten(made(names, {"pooler.dense.weight": 1.0})).keys() == {"pooler.dense"}
    assert rewritten(made(names, {"pooler.dense.weight": 0.02})) == {}
    assert rewritten(made(names, {"pooler.dense.weight": 1.0}, only_first=True)) == {}


def made(shapes, moved, *, only_first=False):
    """Two experts of a base in memory that moved by 0.01 of their size, some layers further."""
    from mats_core.checkpoints import InMemory
    from mats_core.families import Expert, examine

    generator = torch.Generator().manual_seed(1)
    base = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}

    def expert(far):
        return {
            n: v + (moved.get(n, 0.01) if far else 0.01) * torch.randn(v.shape, generator=generator)
            for n, v in base.items()
        }

    experts = [expert(True), expert(not only_first)]
    opened = [Expert(f"e{k}", InMemory.of(one, f"e{k}")) for k, one in enumerate(experts)]
    return examine(InMemory.of(base, "base"), opened, contents=False)


@pytest.mark.parametrize("kind", ["LoRA", "(IA)³"])
def test_of_adapters_the_study_has_no_row_and_the_advice_says_so(kind, tmp_path):
    peft = pytest.importorskip("peft")
    config = (
        peft.LoraConfig(r=2, target_modules=["query", "value"])
        if kind == "LoRA"
        else peft.IA3Config(target_modules=["key", "value"], feedforward_modules=[])
    )
    base = write_base(tmp_path / "base", "bert")
    for seed in (1, 2):
        write_adapter(tmp_path / f"e{seed}", base, config, seed)
    experts = [{"name": f"e{k}", "model": f"e{k}/adapter"} for k in (1, 2)]
    content = {"name": "Adapters", "base": "base", "experts": experts}
    (tmp_path / "family.yaml").write_text(yaml.safe_dump(content))
    found = of(tmp_path)
    assert found.situation.kind == "text"
    assert kind in found.reasons[0]
    if kind == "LoRA":
        assert found.recipe["options"]["gram"] == "update"
        assert any("no row of adapters" in said for said in found.reasons)
    else:
        assert found.recipe == {"method": "average", "options": {}}
        assert "no row of these" in found.reasons[1]


# How it is told -----------------------------------------------------------------------------------


def test_the_command_line_prints_it(tiny_family, capsys, monkeypatch):
    monkeypatch.setattr(module.speeds, "rates", lambda device: module.UNMEASURED)
    arguments = ["advise", str(tiny_family), "--no-labels"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    found = of(tiny_family, labels=False)
    assert printed.startswith(found.title)
    assert "in a recipe:" in printed
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"] == found.recipe
    assert found.title in str(found)
    assert found.title in found._repr_html_()


def test_bad_input_is_told_in_a_sentence(tiny_family, capsys):
    assert main(["advise", str(tiny_family / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert main(["advise", str(tiny_family), "--examples", "-1"]) == 2
    assert "examples" in capsys.readouterr().err
