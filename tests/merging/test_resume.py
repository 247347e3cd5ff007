"""Killed merges: nothing looks finished, and `resume` goes on to the same bytes."""

from __future__ import annotations

import filecmp
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from mats_core import api
from mats_core.checkpoints.staging import partial_of
from mats_core.cli.main import main
from mats_core.errors import InputError, MachineError
from mats_core.estimating import estimate_plan
from mats_core.evaluation import examiner
from mats_core.merging import engine, journal, pipeline
from mats_core.merging.journal import Entry, Journal, KeptPiece, layers_done, read_past
from mats_core.merging.pipeline import merge, planned, run
from mats_core.merging.sinks import SPOOL
from mats_core.recipes.events import LayerDone
from mats_core.recipes.recipe import Recipe, parse_recipe
from mats_core.recipes.report import LayerReport
from tests.conftest import family_recipe

METHODS = {
    "average": {},
    "ties": {"density": 0.4},  # a survey of the model before
    "essential": {},  # a second pass after
    "kfac": {"iterations": 3},
}


@pytest.fixture(autouse=True)
def every_layer_is_noted(monkeypatch):
    monkeypatch.setattr(journal, "INTERVAL", 0.0)


def recipe_of(folder: Path, method: str, output: Path, **settings) -> Recipe:
    options = settings.pop("options", METHODS[method])
    content = family_recipe(folder, method, output=str(output), options=options, evaluate=False)
    return parse_recipe({**content, **settings}, folder)


def killed_after(notes: int, recipe: Recipe, monkeypatch) -> None:
    """A process that merges, and kills itself (SIGKILL) when so many layers have been noted."""
    child = os.fork()
    if not child:
        try:
            note, seen = Journal.layer, []

            def last(self: Journal, entry: Entry) -> None:
                note(self, entry)
                seen.append(entry)
                if len(seen) == notes:
                    os.kill(os.getpid(), signal.SIGKILL)

            monkeypatch.setattr(Journal, "layer", last)
            merge(recipe)
        finally:
            os._exit(1)  # never back into the tests
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.fixture(scope="module")
def whole(tiny_family, tmp_path_factory):
    """Every method's output without an interruption."""
    folder = tmp_path_factory.mktemp("whole")
    for method in METHODS:
        merge(recipe_of(tiny_family, method, folder / method))
    return folder


def same_model(first: Path, second: Path) -> bool:
    return filecmp.cmp(first / "model.safetensors", second / "model.safetensors", shallow=False)


def layers_of(folder: Path) -> list[dict]:
    rows = json.loads((folder / "report.json").read_text())["layers"]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


# 38 layers of the tiny family; `essential` notes its 13 matrices once more in the second pass.
@pytest.mark.parametrize(
    ("method", "notes"),
    [("average", 1), ("ties", 20), ("kfac", 38), ("essential", 15), ("essential", 42)],
)
def test_a_killed_merge_resumes_to_the_same_bytes(
    tiny_family, whole, tmp_path, monkeypatch, method, notes
):
    target = tmp_path / "out"
    recipe = recipe_of(tiny_family, method, target)
    killed_after(notes, recipe, monkeypatch)
    assert not target.exists()
    assert [p.name for p in tmp_path.iterdir()] == [".out.partial"]
    assert layers_done(partial_of(target)) == min(notes, 38)

    merged = []
    again = engine._report
    monkeypatch.setattr(
        engine, "_report", lambda unit, *rest: merged.append(unit) or again(unit, *rest)
    )
    events = list(run(recipe, resume=True))
    assert len(merged) == 38 - min(notes, 38)
    assert len([e for e in events if isinstance(e, LayerDone)]) == 38
    assert same_model(target, whole / method)
    assert layers_of(target) == layers_of(whole / method)
    assert {p.name for p in target.iterdir()} == {p.name for p in (whole / method).iterdir()}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_the_command_line_refuses_to_throw_work_away_and_resumes(tiny_family, whole, tmp_path):
    content = family_recipe(
        tiny_family, "ties", output=str(tmp_path / "out"), options=METHODS["ties"], evaluate=False
    )
    file = tiny_family / "killed.yaml"
    file.write_text(yaml.safe_dump(content))
    code = (
        "import os, signal\n"
        "from mats_core.merging import journal\n"
        "from mats_core.cli import main\n"
        "journal.INTERVAL, note, seen = 0.0, journal.Journal.layer, []\n"
        "def last(self, entry):\n"
        "    note(self, entry)\n"
        "    seen.append(entry)\n"
        "    len(seen) == 9 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "journal.Journal.layer = last\n"
        f"main(['merge', {str(file)!r}])\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=root, check=False)
    assert done.returncode == -signal.SIGKILL
    assert main(["merge", str(file)]) == 2
    assert layers_done(tmp_path / ".out.partial") == 9  # still there
    assert main(["merge", str(file), "--resume"]) == 0
    assert same_model(tmp_path / "out", whole / "ties")


def test_another_recipe_is_not_resumed(tiny_family, tmp_path, monkeypatch):
    target = tmp_path / "out"
    killed_after(5, recipe_of(tiny_family, "ties", target), monkeypatch)
    other = recipe_of(tiny_family, "ties", target, options={"density": 0.5})
    with pytest.raises(InputError, match=r"unfinished merge.*others: options"):
        merge(other, resume=True)
    assert layers_done(partial_of(target)) == 5
    merge(recipe_of(tiny_family, "ties", target), resume=True)


def test_without_resume_a_stale_partial_is_replaced(tiny_family, whole, tmp_path, monkeypatch):
    target = tmp_path / "out"
    killed_after(5, recipe_of(tiny_family, "ties", target), monkeypatch)
    merge(recipe_of(tiny_family, "average", target))
    assert same_model(target, whole / "average")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_did_not_reach_the_disk_is_merged_again(tiny_family, whole, tmp_path, monkeypatch):
    target = tmp_path / "out"
    recipe = recipe_of(tiny_family, "kfac", target)
    killed_after(20, recipe, monkeypatch)
    partial = partial_of(target)
    model, lines = partial / "model.safetensors", partial / journal.NAME
    size = model.stat().st_size
    with model.open("r+b") as file:  # zeros in the first layers, as after a failure of power
        file.seek(size - 20_000)
        file.write(bytes(10_000))
    lines.write_bytes(lines.read_bytes()[:-30])  # and a torn last line
    assert layers_done(partial) == 19
    merge(recipe, resume=True)
    assert same_model(target, whole / "kfac")


def test_stopped_with_resume_the_partial_stays(tiny_family, whole, tmp_path):
    target = tmp_path / "out"
    recipe = recipe_of(tiny_family, "essential", target)
    events = run(recipe, resume=True)
    for event in events:
        if isinstance(event, LayerDone) and event.index == 9:
            break
    events.close()  # type: ignore[attr-defined]
    assert layers_done(partial_of(target)) == 10
    merge(recipe, resume=True)
    assert same_model(target, whole / "essential")


def test_two_merges_do_not_write_one_output(tiny_family, tmp_path):
    recipe = recipe_of(tiny_family, "average", tmp_path / "out")
    first = run(recipe)
    next(iter(first))
    with pytest.raises(InputError, match="one that another merge is writing"):
        merge(recipe, resume=True)
    *_, _ = first
    assert (tmp_path / "out").exists()


def test_a_line_never_precedes_its_data(tmp_path):
    file = tmp_path / journal.NAME
    seen = []
    notes = Journal(file, {"format": journal.FORMAT}, sync=lambda: seen.append(file.read_text()))
    notes.layer(Entry(LayerReport("a", "merged"), "written", checksums={"a": 7}))
    assert '"a"' not in seen[-1]  # when the data was flushed, nothing spoke of it yet
    assert '"a"' in file.read_text()
    notes.close()
    past = read_past(tmp_path, {"format": journal.FORMAT})
    assert past.entries["a"].checksums == {"a": 7}
    assert past.entries["a"].report == LayerReport("a", "merged")


@pytest.mark.parametrize("damage", ['"a": 7', '"merged"', '"written"', '"check"'])
def test_a_damaged_line_ends_what_counts(tmp_path, damage):
    file = tmp_path / journal.NAME
    notes = Journal(file, {"format": journal.FORMAT})
    for name in ("0", "a", "b"):
        notes.layer(Entry(LayerReport(name, "merged"), "written", checksums={name: 7}))
    notes.close()
    first, before, line, after = file.read_text().splitlines()
    other = line.replace(damage, damage.replace("a", "x").replace("e", "u"))
    assert other != line
    file.write_text("\n".join((first, before, other, after, "")))
    past = read_past(tmp_path, {"format": journal.FORMAT})
    assert list(past.entries) == ["0"]
    assert past.length == len(first) + len(before) + 2


def test_what_was_answered_before_a_stop_is_not_asked_again(tiny_family, tmp_path, monkeypatch):
    asked: list[int] = []
    logits = examiner.Examiner.logits

    def counted(self, encoder, places, *more):
        asked.append(len(places))
        return logits(self, encoder, places, *more)

    def full(*args, **settings):
        raise MachineError("disk", expected="room", found="none")

    monkeypatch.setattr(examiner.Examiner, "logits", counted)
    tested = {"evaluate": {"examples": 20}, "output": str(tmp_path / "out")}
    recipe = parse_recipe(family_recipe(tiny_family, "average", **tested), tiny_family)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "finish_directory", full)
        with pytest.raises(MachineError, match="--resume goes on"):
            merge(recipe, resume=True)
    assert sum(asked) == 60
    del asked[:]
    again = merge(recipe, resume=True)
    assert asked == []
    once = merge(recipe.model_copy(update={"output": str(tmp_path / "once")}))
    assert again.tasks == once.tasks
    assert sum(asked) == 60
    lines = partial_of(tmp_path / "out")
    assert not lines.exists()


def test_a_stop_after_the_second_pass_needs_its_spool_no_more(
    tiny_family, whole, tmp_path, monkeypatch
):
    def full(*args, **settings):
        raise MachineError("disk", expected="room", found="none")

    recipe = recipe_of(tiny_family, "essential", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "finish_directory", full)
        with pytest.raises(MachineError, match="--resume goes on"):
            merge(recipe, resume=True)
    partial = partial_of(tmp_path / "out")
    assert not (partial / SPOOL).exists()
    save_file({"a": torch.zeros(1)}, partial / SPOOL)  # as of a stop before it was removed

    def opened(*args, **settings):
        raise AssertionError("a spool was opened")

    monkeypatch.setattr("mats_core.merging.sinks.TensorFileWriter", opened)
    merge(recipe, resume=True)
    assert same_model(tmp_path / "out", whole / "essential")
    assert not (tmp_path / "out" / SPOOL).exists()


ROUTED = {"examples": 8, "rank": 2}
LATER = {
    "a LoRA": {"lora": {"rank": 2}},
    "branches": {"routed": {"by": "updates", **ROUTED}},
    "branches of a first pass": {"routed": {"by": "first_pass", **ROUTED}},
}


def weights_in(folder: Path) -> dict[str, bytes]:
    files = [*folder.rglob("*.safetensors"), *folder.rglob("manifest.json")]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


@pytest.mark.parametrize("stage", LATER)
def test_what_a_later_stage_has_made_is_taken(tiny_family, tmp_path, monkeypatch, stage):
    """Stopped before its last piece, of which one is damaged meanwhile: these two are made."""
    straight = recipe_of(tiny_family, "average", tmp_path / "straight", **LATER[stage])
    recipe = straight.model_copy(update={"output": str(tmp_path / "out")})
    note, made, layers = Journal.piece, list[KeptPiece](), list[str]()
    merged, most = engine._report, [0]

    def noted(self: Journal, piece: KeptPiece) -> None:
        note(self, piece)
        made.append(piece)
        if len(made) == most[0]:
            raise MachineError("disk", expected="room", found="none")

    def counted(plan, unit, *rest):
        layers.append(unit.name)
        return merged(plan, unit, *rest)

    monkeypatch.setattr(Journal, "piece", noted)
    monkeypatch.setattr(engine, "_report", counted)
    report = merge(straight)
    keys = [piece.key for piece in made]
    made.clear()
    most[0] = len(keys) - 1
    with pytest.raises(MachineError, match="--resume goes on"):
        merge(recipe, resume=True)
    assert [piece.key for piece in made] == keys[:-1]
    file = partial_of(tmp_path / "out") / journal.PIECES / made[1].file
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    made.clear()
    layers.clear()
    again = merge(recipe, resume=True)
    assert [piece.key for piece in made] == [keys[1], keys[-1]]
    assert layers == []
    assert weights_in(tmp_path / "out") == weights_in(tmp_path / "straight")
    assert (again.routed, again.lora) == (report.routed, report.lora)
    assert not list((tmp_path / "out").glob(".*"))


def test_answers_of_another_merge_do_not_count(tiny_family, tmp_path):
    past = {"a": ({"name": "e0"},)}
    (tmp_path / journal.NAME).write_text(
        json.dumps({"format": journal.FORMAT}) + "\n" + json.dumps({"asked": "a", "tasks": past})
    )
    assert read_past(tmp_path, {"format": journal.FORMAT}).asked == {}


# What is done before the layers -------------------------------------------------------------------


def report_files(folder: Path) -> list[str]:
    return sorted(json.loads((folder / "report.json").read_text())["files"])


BEFORE: dict[str, dict[str, Any]] = {
    "rounds": {"method": "kfac", "rounds": 3, "options": {"iterations": 2}},
    "a search": {"method": "task_arithmetic", "search": {"scaling": [0.2, 0.5, 0.8]}},
    "both": {"method": "regmean", "rounds": 2, "search": {"damping": [0.01, 0.3]}},
}


@pytest.mark.parametrize("stage", BEFORE)
def test_what_was_done_before_the_layers_is_taken(tiny_family, tmp_path, monkeypatch, stage):
    """Stopped on the way, and the statistics of the last round are damaged meanwhile: those and
    what was not done yet are done, and nothing else."""
    content = {**family_recipe(tiny_family, BEFORE[stage]["method"]), **BEFORE[stage]}
    straight = parse_recipe({**content, "output": str(tmp_path / "straight")}, tiny_family)
    recipe = straight.model_copy(update={"output": str(tmp_path / "out")})
    note, made, merges = Journal.piece, list[KeptPiece](), list[str]()
    merged, stop_at = pipeline.merge_layers, [0]

    def noted(self: Journal, piece: KeptPiece) -> None:
        note(self, piece)
        made.append(piece)
        if len(made) == stop_at[0]:
            raise MachineError("disk", expected="room", found="none")

    def counted(plan, *rest):
        merges.append(plan.recipe.method)
        return merged(plan, *rest)

    monkeypatch.setattr(Journal, "piece", noted)
    monkeypatch.setattr(pipeline, "merge_layers", counted)
    report = merge(straight)
    keys, all_merges = [piece.key for piece in made], len(merges)
    assert len(set(keys)) == len(keys) >= 2
    made.clear()
    stop_at[0] = done = len(keys) if stage == "both" else 2
    with pytest.raises(MachineError, match=rf"The {done} trials and rounds .* --resume goes on"):
        merge(recipe, resume=True)
    with pytest.raises(InputError, match=f"one that has done {done} trials and rounds"):
        api.merge(recipe)
    partial = partial_of(tmp_path / "out")
    if stage != "a search":  # whose trials are all told in the journal
        file = partial / journal.BEFORE_PIECES / made[-1].file
        data = file.read_bytes()
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    taken = [piece.key for piece in (made if stage == "a search" else made[:-1])]
    made.clear()
    merges.clear()
    stop_at[0] = 0
    again = merge(recipe, resume=True)
    assert [piece.key for piece in made] == [key for key in keys if key not in taken]
    assert len(merges) < all_merges
    assert weights_in(tmp_path / "out") == weights_in(tmp_path / "straight")
    assert again.search == report.search
    assert again.tasks == report.tasks
    assert report_files(tmp_path / "out") == report_files(tmp_path / "straight")
    assert not list((tmp_path / "out").glob(".*"))


def test_rounds_of_other_inputs_are_made_again(tiny_family, tmp_path, monkeypatch):
    content = {**family_recipe(tiny_family, "kfac"), **BEFORE["rounds"], "evaluate": False}
    recipe = parse_recipe({**content, "output": str(tmp_path / "out")}, tiny_family)
    made = list[str]()
    note = Journal.piece

    def noted(self: Journal, piece: KeptPiece) -> None:
        note(self, piece)
        made.append(piece.key)
        if len(made) == 2:
            raise MachineError("disk", expected="room", found="none")

    monkeypatch.setattr(Journal, "piece", noted)
    with pytest.raises(MachineError):
        merge(recipe, resume=True)
    other = recipe.model_copy(update={"options": {"iterations": 3}})
    before = [*made]
    merge(other, resume=True)
    assert len(made) == 4
    assert not set(made[2:]) & set(before)
    straight = other.model_copy(update={"output": str(tmp_path / "straight")})
    merge(straight)
    assert weights_in(tmp_path / "out") == weights_in(tmp_path / "straight")


def test_an_estimate_counts_the_statistics_of_rounds(tiny_family, tmp_path):
    content = {**family_recipe(tiny_family, "kfac"), **BEFORE["rounds"], "evaluate": False}
    recipe = parse_recipe({**content, "output": str(tmp_path / "out")}, tiny_family)
    most = 0
    for event in run(recipe, resume=True):
        if isinstance(event, LayerDone):
            lie = (partial_of(tmp_path / "out") / journal.BEFORE_PIECES).glob("*")
            most = max(most, sum(file.stat().st_size for file in lie))
    once = recipe.model_copy(update={"rounds": 1})
    counted, without = (estimate_plan(planned(one)).disk_bytes for one in (recipe, once))
    assert counted - without == pytest.approx(most, rel=0.25)
