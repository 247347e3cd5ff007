"""A recipe handed in: matched with a known family, and nothing that it names is opened."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from mats_core.checkpoints.files import Checkpoint
from mats_core.errors import InputError
from mats_core.export import reopen
from mats_core.export.command import recipe_yaml
from mats_core.export.reopen import inside
from mats_core.recipes.family_file import FamilyFile, load_family
from tests.export.conftest import Finish


@pytest.fixture
def family(own_family: Path) -> FamilyFile:
    return load_family(own_family)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every checkpoint that is opened."""
    paths: list[Path] = []
    real = Checkpoint.open

    def spy(path, *rest, **more):
        paths.append(Path(path))
        return real(path, *rest, **more)

    monkeypatch.setattr(Checkpoint, "open", spy)
    return paths


def recipe(**changes) -> dict:
    """A small recipe over the family, written in its folder."""
    experts = [{"name": f"e{m}", "model": f"e{m}"} for m in range(3)]
    return {"base": "base", "experts": experts, "method": "task_arithmetic", **changes}


def encoded(content: object) -> bytes:
    return yaml.safe_dump(content).encode()


def test_a_downloaded_recipe_comes_back_as_it_was(finish: Finish, family: FamilyFile):
    made = finish("kfac", {"iterations": 7}, weights={"e1": 2.0}, experts=("e0", "e1"), seed=3)
    back = reopen(recipe_yaml(made).encode(), [family])
    assert back.collection is family
    assert (back.method, back.seed, back.dtype) == ("kfac", 3, "float32")
    assert dict(back.options) == dict(made.report.options)
    assert back.experts == ("e0", "e1")
    assert dict(back.weights) == {"e0": 1.0, "e1": 2.0}
    assert back.notes == ()


def test_steps_and_rules_come_back_too(finish: Finish, family: FamilyFile):
    after = [{"stretch": {"scale": 1.1}}, {"svc": {"alpha": 0.2}}]
    rules = [{"depth": [1.0, 1.0], "weight": {"e1": 0.5}}]
    made = finish("average", after=after, by=rules, evaluate=False)
    back = reopen(recipe_yaml(made).encode(), [family])
    assert list(back.after) == after
    assert list(back.by) == rules


def test_fingerprints_find_the_family_under_other_names(finish: Finish, own_family, tmp_path):
    made = finish("average")
    moved = tmp_path / "elsewhere"
    shutil.copytree(own_family, moved)
    for m in range(3):
        (moved / f"e{m}").rename(moved / f"other{m}")
    description = yaml.safe_load((moved / "family.yaml").read_text())
    for m, expert in enumerate(description["experts"]):
        expert |= {"name": f"n{m}", "model": f"other{m}"}
    (moved / "family.yaml").write_text(yaml.safe_dump(description))
    back = reopen(recipe_yaml(made).encode(), [load_family(moved)])
    assert back.experts == ("n0", "n1", "n2")
    assert set(back.weights) == {"n0", "n1", "n2"}


def test_the_family_is_found_among_several(finish: Finish, family: FamilyFile, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(family.folder, other)
    (other / "base" / "model.safetensors").unlink()
    shutil.copyfile(family.folder / "e0" / "model.safetensors", other / "base/model.safetensors")
    back = reopen(recipe_yaml(finish("average")).encode(), [load_family(other), family])
    assert back.collection is family


def test_paths_inside_the_family_need_no_fingerprints_and_open_nothing(family, opened):
    back = reopen(encoded(recipe(seed=4, options={"scaling": 0.5})), [family])
    assert (back.seed, back.options["scaling"], back.notes) == (4, 0.5, ())
    absolute = recipe(base=str(family.folder.resolve() / "base"))
    assert reopen(encoded(absolute), [family]).experts == ("e0", "e1", "e2")
    assert opened == []


def test_a_recipe_of_the_docs_is_found_by_its_words_and_says_so(family, opened):
    folder = family.folder.name
    experts = [{"name": f"e{m}", "model": f"../../{folder}/e{m}"} for m in range(2)]
    back = reopen(encoded(recipe(base=f"../../{folder}/base", experts=experts)), [family])
    assert back.experts == ("e0", "e1")
    assert "no fingerprints" in back.notes[0]
    assert opened == []


@pytest.mark.parametrize(
    "path",
    [
        "../outside/{name}",
        "/outside/{name}",
        "/etc/{name}",
        "link/{name}",
        "\\\\server\\share\\{name}",
        "//server/share/{name}",
        "~/{name}",
        "{name}\0",
        "base",
    ],
)
def test_paths_outside_are_refused_and_never_opened(family, tmp_path, opened, path):
    """Outside lies a copy of the family: whoever followed the path would find what it names."""
    copy = tmp_path / "family"
    shutil.copytree(family.folder, copy)
    shutil.copytree(family.folder, tmp_path / "outside")
    (copy / "link").symlink_to(tmp_path / "outside", target_is_directory=True)
    path = path.replace("/outside", str(tmp_path / "outside")) if path[0] == "/" else path
    experts = [{"name": f"e{m}", "model": path.format(name=f"e{m}")} for m in range(3)]
    with pytest.raises(InputError):
        reopen(encoded(recipe(experts=experts)), [load_family(copy)])
    assert opened == []


@pytest.mark.parametrize("key", ["base", "base_statistics", "output"])
def test_network_shares_are_refused_wherever_they_stand(family, key):
    with pytest.raises(InputError, match="network share"):
        reopen(encoded(recipe(**{key: "\\\\server\\share\\x"})), [family])


def test_a_start_from_a_checkpoint_is_refused_before_anything_looks_at_it(family, monkeypatch):
    asked = []
    monkeypatch.setattr(Path, "exists", lambda self: asked.append(self) or True)
    for changes in ({"options": {"start": "/etc/passwd"}}, {"search": {"start": ["/etc/passwd"]}}):
        with pytest.raises(InputError, match="start"):
            reopen(encoded(recipe(method="kfac", **changes)), [family])
    assert asked == []


def test_only_the_family_s_own_files_are_opened(finish: Finish, family, opened):
    content = yaml.safe_load(recipe_yaml(finish("kfac", {"iterations": 7})))
    for entry in content["experts"]:
        entry |= {"model": "/etc/e", "statistics": "/etc/s", "task": "/etc/t.npz"}
    content["base"] = "../../etc"
    opened.clear()
    back = reopen(encoded(content), [family])
    assert back.experts == ("e0", "e1", "e2")
    assert opened
    assert all(path.resolve().is_relative_to(family.folder.resolve()) for path in opened)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (recipe(method="task_aritmetic"), "Did you mean 'task_arithmetic'"),
        (recipe(options={"scalin": 1}), "Did you mean 'scaling'"),
        (recipe(options={"scaling": -9}), "greater than or equal to -3"),
        (recipe(bogus=1), "'bogus' is not an option"),
        (recipe(experts=[]), "experts"),
        (recipe(base="elsewhere"), "one of a family that is open here (Tiny three)"),
        (recipe(experts=[{"name": "e0", "model": "e9"}]), "one of the family Tiny three"),
        (recipe(experts=[{"name": "a", "model": "e0"}, {"name": "b", "model": "e0"}]), "once"),
        (recipe(experts=[{"name": "e0", "model": "e0", "fingerprint": "ab"}]), "trained again"),
        (recipe(base_fingerprint="ab"), "one of a family"),
        ([1, 2], "a YAML mapping"),
        ({1: 2}, "recipe"),
    ],
)
def test_what_is_no_recipe_of_a_known_family_is_one_sentence(family, content, named):
    with pytest.raises(InputError) as caught:
        reopen(encoded(content), [family])
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"a: [", "YAML"),
        (b"\xff\xfe\x00", "YAML"),
        (b"", "mapping"),
        (b"!!python/object/apply:os.system ['true']", "YAML"),
        (b"a: &a [*a, *a]", "aliases"),
        (b"[" * 20_000, "YAML"),
        (b"#" * 500_001, "at most 500000 bytes"),
    ],
)
def test_bad_files_are_one_sentence(family, data, named):
    with pytest.raises(InputError, match=named):
        reopen(data, [family])


def test_what_is_left_out_is_said(family):
    content = recipe(
        search={"scaling": [0.1, 0.2]}, output_dtype="bfloat16", heads=["classifier.*"]
    )
    notes = reopen(encoded(content), [family]).notes
    assert len(notes) == 3
    assert "search" in notes[0]


def test_examples_become_weights_where_the_recipe_says_so(family):
    experts = [{"name": f"e{m}", "model": f"e{m}", "weight": 0.5, "examples": 10} for m in range(3)]
    back = reopen(encoded(recipe(weighting="examples", experts=experts)), [family])
    assert dict(back.weights) == {"e0": 5.0, "e1": 5.0, "e2": 5.0}


def test_inside(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "a").mkdir(parents=True)
    outside.mkdir()
    (root / "link").symlink_to(outside, target_is_directory=True)
    (root / "alias").symlink_to(root / "a", target_is_directory=True)
    assert inside(root, "a/../a") == root / "a"
    assert inside(root, "alias") == root / "a"
    for path in ("link", "link/x", "..", "../outside", str(outside), "a/../../outside"):
        assert inside(root, path) is None
