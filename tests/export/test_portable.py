"""The portable recipe and the command lines: they repeat the numbers, and name no machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mats_core.errors import shell
from mats_core.export.command import commands, recipe_yaml
from mats_core.export.portable import Finished, spelled, within
from mats_core.merging.pipeline import merge
from mats_core.recipes.family_file import load_family, measure_all
from mats_core.recipes.recipe import load_recipe, parse_recipe
from tests.export.conftest import Finish

ROOT = Path(__file__).resolve().parents[2]


def scores(report) -> list[tuple[str, int, int]]:
    return [(task.name, task.merged.correct, task.merged.examples) for task in report.tasks]


def call(line: str, folder: Path) -> None:
    """Run a shown line as a shell does."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    line = line.replace("python ", f"'{sys.executable}' ", 1)
    done = subprocess.run(
        line, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{line}\n{done.stderr}"


def test_the_shown_commands_repeat_the_numbers(finish: Finish, own_family: Path, tmp_path: Path):
    """On a copy elsewhere, with a name that a shell would split, from an empty cache."""
    finished = finish("kfac", {"iterations": 7}, weights={"e1": 2.0}, experts=("e0", "e1"), seed=3)
    place = "models/my family"
    copy = tmp_path / place
    shutil.copytree(own_family, copy)
    (copy / f"{finished.stem}.yaml").write_text(recipe_yaml(finished, place))
    lines = commands(finished, place)
    assert [line.split()[3] for line in lines] == ["measure", "merge"]
    for line in lines:
        call(line, tmp_path)
    report = json.loads((copy / "merged" / finished.stem / "report.json").read_text())
    found = [(t["name"], t["scores"]["merged"]["correct"], t["examples"]) for t in report["tasks"]]
    assert found == scores(finished.report)
    assert len(found) == 2
    assert report["options"]["iterations"] == 7


def test_the_recipe_says_what_the_commands_are(finish: Finish):
    finished = finish("kfac", {"iterations": 7})
    text = recipe_yaml(finished, "models/tiny")
    for line in commands(finished, "models/tiny"):
        assert f"#   {line}\n" in text


def test_a_recipe_names_nothing_of_this_machine(finish: Finish, own_family: Path):
    for method in ("essential", "gradient_matching", "ties"):
        finished = finish(method)
        text = recipe_yaml(finished)
        assert str(own_family) not in text
        assert str(Path.home()) not in text
        assert os.environ["MATS_CACHE"] not in text
        paths = [finished.portable.base, *(e.model for e in finished.portable.experts)]
        assert paths == ["base", "e0", "e1", "e2"]


def test_it_parses_to_the_same_merge(finish: Finish, own_family: Path):
    finished = finish("ties", {"scope": "tensor", "density": 0.4}, weights={"e2": 0.5}, seed=5)
    file = own_family / "again.yaml"
    file.write_text(recipe_yaml(finished))
    recipe = load_recipe(file)
    file.unlink()
    assert recipe.base_fingerprint == finished.report.fingerprints["base"]
    assert {e.name: e.fingerprint for e in recipe.experts} == {
        name: value for name, value in finished.report.fingerprints.items() if name != "base"
    }
    assert [e.weight for e in recipe.experts] == [1.0, 1.0, 0.5]
    assert recipe.seed == 5
    again = merge(recipe.model_copy(update={"output": None}))
    assert scores(again) == scores(finished.report)
    assert again.options == finished.report.options


def test_statistics_are_named_only_where_they_are_read(finish: Finish):
    assert all(e.statistics is None for e in finish("average").portable.experts)
    assert len(commands(finish("average"), "models")) == 1
    kfac = finish("kfac", {"iterations": 7}).portable
    assert [e.statistics for e in kfac.experts] == [
        f"statistics/e{m}.stats.safetensors" for m in range(3)
    ]
    assert kfac.base_statistics is None
    matching = finish("gradient_matching").portable
    assert matching.base_statistics == "statistics/base.stats.safetensors"


def test_statistics_inside_the_family_stay_where_they_are(own_family: Path):
    family = load_family(own_family)
    files = {f"e{m}": own_family / f"e{m}.stats.safetensors" for m in range(3)}
    recipe = family.recipe("regmean", statistics=files)
    finished = Finished("x", "RegMean", family.name, recipe, merge(recipe))
    assert [e.statistics for e in finished.portable.experts] == [
        f"e{m}.stats.safetensors" for m in range(3)
    ]
    assert [line.split()[3] for line in commands(finished, "models")] == ["merge"]


def test_how_statistics_were_measured_is_in_the_command(own_family: Path):
    family = load_family(own_family)
    files = measure_all(family, examples=20, labels="true", seed=4)
    recipe = family.recipe("fisher", statistics=files, evaluate=False)
    finished = Finished("x", "Fisher", family.name, recipe, merge(recipe))
    measure = commands(finished, "models")[0]
    assert "--examples 20 --labels true --seed 4 --device cpu" in measure


def test_an_option_of_a_search_is_the_one_that_won(own_family: Path):
    family = load_family(own_family)
    recipe = family.recipe("task_arithmetic", search={"scaling": [0.1, 0.9]})
    finished = Finished("x", "searched", family.name, recipe, merge(recipe))
    assert finished.portable.search is None
    assert finished.portable.options == finished.report.options
    assert scores(merge(finished.portable.model_copy(update={"output": None}))) == scores(
        finished.report
    )


def test_a_title_cannot_end_the_comment_it_stands_in(finish: Finish):
    made = finish("average")
    hostile = Finished(made.id, "x\noutput: /etc", "y\u2028z\r\nseed: 9", made.recipe, made.report)
    content = yaml.safe_load(recipe_yaml(hostile))
    assert parse_recipe(content).seed == 0
    assert content["output"] == "merged/average-0a1b2c3d4e"


@pytest.mark.parametrize(
    ("folder", "expected"),
    [("start/models", "models"), ("home/family", "~/family"), ("other", None)],
)
def test_a_folder_as_one_would_type_it(tmp_path, monkeypatch, folder, expected):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = tmp_path / folder
    path.mkdir(parents=True)
    assert spelled(path, tmp_path / "start") == (expected or path.as_posix())


def test_quoting_leaves_the_home_folder_to_the_shell(tmp_path):
    out = subprocess.run(
        f"echo {shell('~/my family; echo no')}",
        shell=True, capture_output=True, text=True, check=True,
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
    ).stdout  # fmt: skip
    assert out.strip() == f"{tmp_path}/my family; echo no"


def test_within(tmp_path):
    (tmp_path / "in").mkdir()
    assert within(tmp_path, "in") == "in"
    assert within(tmp_path, str(tmp_path / "in" / "x")) == "in/x"
    assert within(tmp_path, "../out") is None
    assert within(tmp_path, "/etc") is None
