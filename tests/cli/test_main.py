"""`python -m mats_core`, as a person calls it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mats_core.cli.main import main
from tests.conftest import family_recipe


@pytest.fixture
def recipe_file(tiny_family: Path) -> Path:
    path = tiny_family / "merge.yaml"
    content = family_recipe(tiny_family, "kfac", options={"iterations": 5})
    path.write_text(yaml.safe_dump(content))
    return path


def test_merge_writes_a_directory_and_prints_the_accuracies(recipe_file, tmp_path, capsys):
    out = tmp_path / "first"
    assert main(["merge", str(recipe_file), "--output", str(out), "--set", "damping=0.3"]) == 0
    printed = capsys.readouterr().out
    report = json.loads((out / "report.json").read_text())
    assert report["options"]["damping"] == 0.3
    assert report["options"]["iterations"] == 5
    assert f"normalised accuracy {100 * report['normalised_accuracy']:.1f} %" in printed
    assert all(task["name"] in printed for task in report["tasks"])
    assert str(out) in printed


def test_rounds_are_said_on_the_way_in_the_report_and_in_the_card(recipe_file, tmp_path, capsys):
    out = tmp_path / "twice"
    arguments = ["merge", str(recipe_file), "--output", str(out), "--rounds", "2"]
    assert main([*arguments, "--no-evaluate"]) == 0
    printed = capsys.readouterr()
    assert "round 1 of 2 is merged; measuring statistics there" in printed.err
    assert printed.err.count("device: cpu") == 1
    assert printed.out.startswith("kfac in 2 rounds: ")
    assert json.loads((out / "report.json").read_text())["rounds"] == 2
    assert yaml.safe_load((out / "recipe.yaml").read_text())["rounds"] == 2
    assert "Merged in 2 rounds" in (out / "README.md").read_text()
    assert main(["inspect", str(out / "recipe.yaml")]) == 0
    assert "rounds: 2" in capsys.readouterr().out
    assert main([*arguments[:-1], "9", "--force"]) == 2
    assert "rounds" in capsys.readouterr().err


def test_an_existing_output_needs_force(recipe_file, tmp_path, capsys):
    out = tmp_path / "first"
    arguments = ["merge", str(recipe_file), "--output", str(out), "--no-evaluate"]
    assert main(arguments) == 0
    assert main(arguments) == 2
    assert "--force" in capsys.readouterr().err
    assert main([*arguments, "--force"]) == 0
    (out / "precious").write_text("kept")
    assert main([*arguments, "--force"]) == 2
    assert "no merge wrote: precious" in " ".join(capsys.readouterr().err.split())
    assert (out / "precious").read_text() == "kept"
    assert json.loads((out / "report.json").read_text())["tasks"] == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--set", "dampin=0.1"], "'damping'"),
        (["--set", "damping"], "OPTION=VALUE"),
        (["--set", "damping=-1"], "damping"),
        ([], "output"),
    ],
)
def test_bad_input_is_one_paragraph_and_exit_code_2(recipe_file, arguments, named, capsys):
    assert main(["merge", str(recipe_file), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert named in error
    assert "Traceback" not in error


def test_unknown_method_names_the_nearest(recipe_file, capsys):
    content = yaml.safe_load(recipe_file.read_text())
    broken = recipe_file.with_name("broken.yaml")
    broken.write_text(yaml.safe_dump({**content, "method": "kfax", "options": {}}))
    assert main(["inspect", str(broken)]) == 2
    assert "Did you mean 'kfac'?" in " ".join(capsys.readouterr().err.split())


def test_measure_one_expert_gives_the_library_s_file(tiny_family, tmp_path, capsys):
    from mats_core.statistics.store import Statistics

    out = tmp_path / "e0.safetensors"
    task = str(tiny_family / "t0.npz")
    command = ["measure", str(tiny_family / "e0"), "--task", task, "--out", str(out)]
    assert main([*command, "--examples", "20", "--labels", "true", "--seed", "3"]) == 0
    found = Statistics.open(out).metadata
    assert (found["examples"], found["labels"], found["seed"]) == ("20", "true", "3")
    assert "20 examples" in capsys.readouterr().out
    assert main(command) == 2
    assert "--force" in capsys.readouterr().err


def test_measure_in_low_rank(tiny_family, tmp_path, capsys):
    from mats_core.statistics.store import Statistics

    out, task = tmp_path / "low.safetensors", str(tiny_family / "t0.npz")
    command = ["measure", str(tiny_family / "e0"), "--task", task, "--out", str(out)]
    assert main([*command, "--examples", "8", "--rank", "4"]) == 0
    factors = [n for n in Statistics.open(out).shapes if n.endswith("_factor")]
    assert factors
    assert all(Statistics.open(out).shapes[name][0] <= 4 for name in factors)
    assert main([*command, "--rank", "-1", "--force"]) == 2
    assert "--rank" in capsys.readouterr().err


def test_measure_a_family(tiny_family, tmp_path):
    out = tmp_path / "statistics"
    command = ["measure", "--family", str(tiny_family), "--out", str(out), "--examples", "8"]
    assert main(command) == 0
    names = {file.name.removesuffix(".stats.safetensors") for file in out.iterdir()}
    assert names == {"e0", "e1", "e2", "base"}


def test_a_family_without_tasks_is_not_measured_in_silence(tiny_family, tmp_path, capsys):
    experts = [{"name": "e0", "model": str(tiny_family / "e0")}]
    content = {"name": "F", "base": str(tiny_family / "base"), "experts": experts}
    (tmp_path / "family.yaml").write_text(json.dumps(content))
    assert main(["measure", "--family", str(tmp_path), "--out", str(tmp_path / "s")]) == 2
    assert "Name the 'task' of each" in " ".join(capsys.readouterr().err.split())


def test_measure_on_another_task_is_refused(tiny_family, tmp_path, capsys):
    task = str(tiny_family / "t1.npz")
    out = str(tmp_path / "x.safetensors")
    assert main(["measure", str(tiny_family / "e0"), "--task", task, "--out", out]) == 2
    assert "3 classes" in capsys.readouterr().err


def test_evaluate_repeats_the_report(recipe_file, tmp_path, capsys):
    out = tmp_path / "merged"
    assert main(["merge", str(recipe_file), "--output", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    capsys.readouterr()
    assert main(["evaluate", str(out), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["tasks"] == report["tasks"]
    assert again["normalised_accuracy"] == report["normalised_accuracy"]


def test_evaluate_one_model_on_one_task(tiny_family, capsys):
    task = str(tiny_family / "t0.npz")
    assert main(["evaluate", str(tiny_family / "e0"), "--task", task, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    low, high = found["interval"]
    assert found["examples"] == 60
    assert low < found["accuracy"] < high
    assert main(["evaluate", str(tiny_family / "e0")]) == 2
    assert "--task" in capsys.readouterr().err


def test_inspect_a_recipe_counts_every_tensor(recipe_file, capsys):
    assert main(["inspect", str(recipe_file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sum(found["roles"].values()) == len(found["tensors"])
    assert found["roles"]["head"] == 2


@pytest.mark.parametrize("named", ["", "family.yaml"])
def test_inspect_a_family(tiny_family, recipe_file, capsys, named):
    assert main(["inspect", str(tiny_family / named), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["name"] == "Tiny three"
    assert content["base"] == "base"
    assert main(["inspect", str(recipe_file), "--json"]) == 0
    of_recipe = json.loads(capsys.readouterr().out)
    for key in ("experts", "roles", "tensors"):
        assert content[key] == of_recipe[key]


def test_inspect_a_checkpoint(tiny_family, capsys):
    assert main(["inspect", str(tiny_family / "base")]) == 0
    printed = capsys.readouterr().out
    assert "fingerprint: " in printed
    assert "classifier.weight" in printed


def test_methods_lists_every_option(capsys):
    from mats_core.methods.table import METHODS

    assert main(["methods", "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert set(listed) == set(METHODS)
    for name, method in METHODS.items():
        options = {option["name"] for option in listed[name]["options"]}
        assert options == set(method.options.model_fields)
    assert main(["methods", "tsv"]) == 2
    assert "tsv_m" in capsys.readouterr().err


def test_help_is_quick_to_reach_and_imports_no_torch():
    code = (
        "import sys; from mats_core.cli.main import parser; parser(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_module_runs(tiny_family):
    command = [sys.executable, "-m", "mats_core", "inspect", str(tiny_family / "nothing")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "expected an existing file" in done.stderr.replace("\n", " ")
