"""A family's folder: what is written, that it reads back, and what is never overwritten."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from mats_core.checkpoints import Checkpoint, ListedModel, search_models
from mats_core.errors import InputError
from mats_core.merging import averaging, merge
from mats_core.recipes import (
    MEAN,
    by_hand,
    distinct_names,
    dump_family,
    load_family,
    new_family,
    remove_family,
    save_family,
)
from mats_core.system import drain

Models = dict[str, ListedModel]


@pytest.fixture
def root(tiny_family: Path, tmp_path: Path) -> Path:
    for name in ("base", "e0", "e1"):
        shutil.copytree(tiny_family / name, tmp_path / "root" / name)
    return tmp_path / "root"


def models(root: Path) -> Models:
    return {one.name: one for one in search_models([root]).models}


def made(root: Path, folder: Path, name: str = "Mine", **more):
    known = models(root)
    return new_family(name, folder, known["base"], [known["e0"], known["e1"]], roots=[root], **more)


@pytest.mark.parametrize("name", ["Mine", "no", "1e3", "it's: #1 ü {x}", "'", "a\nb"])
def test_a_written_family_is_short_reads_back_and_merges(root, name):
    family = made(root, root / "mine", name)
    file = save_family(family)
    assert load_family(file) == family
    assert load_family(file).name == name
    lines = [line for line in file.read_text("utf-8").splitlines() if line[:1] not in "#\n "]
    if "\n" not in name:
        assert lines[1:] == [
            "base: ../base",
            "experts:",
            "- {name: e0, model: ../e0}",
            "- {name: e1, model: ../e1}",
        ]
    report = merge(load_family(file).recipe("average"))
    assert set(report.fingerprints) == {"base", "e0", "e1"}


def test_paths_are_relative_below_one_root_and_whole_elsewhere(root, tmp_path):
    inside, outside = made(root, root / "deep" / "er"), made(root, tmp_path / "elsewhere")
    assert inside.base == "../../base"
    assert outside.base == str(root / "base")
    hub = ListedModel(root / "base", "org/base", "model")
    assert new_family("x", root / "y", hub, [hub], roots=[root]).base == "org/base"


def test_tasks_and_names_are_written_and_every_name_is_another_one(root):
    family = made(root, root / "mine", tasks={root / "e0": "tasks/e0.yaml"})
    assert [one.task for one in family.experts] == ["tasks/e0.yaml", None]
    assert "- {name: e0, model: ../e0, task: tasks/e0.yaml}" in dump_family(family)
    names = distinct_names(["a", "A", "a", "con", "../x", "…", "", "é" * 300])
    assert len({name.casefold() for name in names}) == len(names)
    assert names[:3] == ("a", "A-2", "a-3")
    assert all("/" not in name and len(name.encode()) <= 200 for name in names)


@pytest.mark.parametrize("experts", [0, 2])
def test_a_family_needs_a_name_and_an_expert(root, experts):
    known = models(root)
    chosen = [known["e0"], known["e1"]][:experts]
    with pytest.raises(InputError, match="at least one expert"):
        new_family(" " if experts else "x", root / "mine", known["base"], chosen)


@pytest.mark.parametrize("place", ["base", "base/inside", ".", "taken", "empty"])
def test_nothing_is_overwritten_and_no_family_lies_in_a_model(root, place):
    (root / "taken").mkdir()
    (root / "taken" / "notes.txt").write_text("mine")
    (root / "empty").mkdir()
    before = sorted(root.rglob("*"))
    with pytest.raises(InputError):
        save_family(made(root, root / place))
    assert sorted(root.rglob("*")) == before


def test_a_family_is_changed_and_removed_while_it_has_its_form(root):
    family = made(root, root / "mine")
    file = save_family(family)
    assert by_hand(file) == ""
    fewer = family.model_copy(update={"experts": family.experts[:1]})
    save_family(fewer, replace=True)
    assert len(load_family(file).experts) == 1
    before = sorted(p for p in root.rglob("*") if root / "mine" not in (p, *p.parents))
    remove_family(file)
    assert not (root / "mine").exists()
    assert sorted(root.rglob("*")) == before, "no model is touched"


def test_what_has_comments_or_other_files_beside_it_stays(root):
    file = save_family(made(root, root / "mine"))
    text = file.read_text("utf-8") + "# mine\n"
    file.write_text(text)
    assert by_hand(file) == "it was written or changed by hand"
    for change in (remove_family, lambda f: save_family(load_family(f), replace=True)):
        with pytest.raises(InputError, match="by hand"):
            change(file)
    assert file.read_text("utf-8") == text
    other = save_family(made(root, root / "other"))
    (other.parent / "notes.txt").write_text("mine")
    remove_family(other)
    assert sorted(p.name for p in other.parent.iterdir()) == ["notes.txt"]


def test_a_family_of_the_tests_written_by_others_is_never_removed(tiny_family, tmp_path):
    shutil.copy(tiny_family / "family.yaml", tmp_path)
    with pytest.raises(InputError, match="by hand"):
        remove_family(tmp_path / "family.yaml")
    (tmp_path / "family.yaml").write_bytes(b"\xff{")
    assert by_hand(tmp_path / "family.yaml") == "it cannot be read"


def test_a_copy_keeps_what_stands_about_the_same_models(root, tiny_family):
    (root / "old").mkdir()
    shutil.copy(tiny_family / "t0.npz", root / "old")
    (root / "old" / "family.yaml").write_text(
        "name: Old\nbase: ../base\nbase_task: t0.npz\nheads: [classifier.*]\nstrangers: allow\n"
        "experts:\n- {name: first, model: ../e0, task: t0.npz, examples: 7}\n"
        "- {name: e1, model: ../e1, task: 'sample:digits'}\n"
    )
    old, known = load_family(root / "old"), models(root)
    experts = [known["e1"], known["e0"]]
    copy = new_family("New", root / "new", known["base"], experts, roots=[root], like=old)
    assert load_family(save_family(copy)) == copy
    assert [(e.name, e.model, e.task, e.examples) for e in copy.experts] == [
        ("e1", "../e1", "sample:digits", None),
        ("first", "../e0", "../old/t0.npz", 7),
    ]
    assert (copy.base_task, copy.heads, copy.strangers) == (
        "../old/t0.npz", ("classifier.*",), "allow",
    )  # fmt: skip
    assert copy.model_path(copy.base_task or "").is_file()
    same = new_family("Old", root / "old", known["base"], experts[:1], roots=[root], like=old)
    assert same.base_task == "t0.npz"


def test_experts_without_a_base_have_their_mean_as_one(root):
    known = models(root)
    family = new_family("Mean", root / "mean", None, [known["e0"], known["e1"]], roots=[root])
    save_family(family)
    drain(averaging(family))
    base, *experts = (Checkpoint.open(root / name) for name in ("mean/base", "e0", "e1"))
    shared = [n for n in base.tensors if not n.startswith("classifier")]  # heads are kept apart
    assert len(shared) > 20
    for name in shared:
        mean = torch.stack([one.read(name).double() for one in experts]).mean(0)
        assert torch.allclose(base.read(name).double(), mean, atol=1e-6), name
    read = load_family(root / "mean")
    assert read.base == MEAN == "base"
    merged = merge(read.recipe("task_arithmetic"))
    assert set(merged.fingerprints) == {"base", "e0", "e1"}
    with pytest.raises(InputError, match="expected 'base'"):
        drain(averaging(made(root, root / "other")))
    with pytest.raises(InputError, match="a path that does not exist"):
        drain(averaging(family))
