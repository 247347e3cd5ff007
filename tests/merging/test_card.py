"""The model card: front matter that parses, the report's numbers, and a snippet that runs."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
import yaml

from mats_core import models
from mats_core.checkpoints import front_matter
from mats_core.checkpoints.files import Checkpoint
from mats_core.merging.pipeline import merge
from mats_core.recipes.recipe import load_recipe, parse_recipe
from tests.conftest import family_recipe


@pytest.fixture(scope="module")
def family(tiny_family, tmp_path_factory):
    """The tiny family, where the base and two experts state a licence."""
    folder = tmp_path_factory.mktemp("licensed") / "family"
    shutil.copytree(tiny_family, folder)
    for name, licence in (("base", "apache-2.0"), ("e0", "apache-2.0"), ("e1", "mit")):
        (folder / name / "README.md").write_text(f"---\nlicense: {licence}\n---\n# {name}\n")
    return folder


def card_of(folder, *, experts, method="ties", **settings):
    place = folder / f"out{experts}"
    content = family_recipe(folder, method, output=str(place), **settings)
    content["experts"] = list(content["experts"])[:experts]  # type: ignore[call-overload]
    merge(parse_recipe(content, folder))
    return place


@pytest.fixture(scope="module")
def output(family):
    return card_of(family, experts=2, options={"density": 0.3})


def test_the_front_matter_is_that_of_a_merge(output):
    front = front_matter(output / "README.md")
    assert front == {
        "base_model": ["base", "e0", "e1"],
        "base_model_relation": "merge",
        "tags": ["merge", "mats-explorer", "ties"],
        "library_name": "transformers",
        "license": "other",
        "license_name": "those-of-the-inputs",
    }


def test_one_licence_of_all_who_state_one_is_the_merge_s(family):
    front = front_matter(card_of(family, experts=1, evaluate=False) / "README.md")
    assert front["license"] == "apache-2.0"
    assert "license_name" not in front


def test_without_any_licence_none_is_made_up(tiny_family, tmp_path):
    content = family_recipe(tiny_family, "average", output=str(tmp_path / "o"), evaluate=False)
    merge(parse_recipe(content, tiny_family))
    assert "license" not in front_matter(tmp_path / "o" / "README.md")
    assert (tmp_path / "o" / "README.md").read_text().count("| not stated |") == 4
    assert "## Results" not in (tmp_path / "o" / "README.md").read_text()


def test_numbers_and_options_are_the_report_s(output):
    text = (output / "README.md").read_text()
    report = json.loads((output / "report.json").read_text())
    for task in report["tasks"]:
        low, high = task["interval"]
        assert (
            f"| {task['name']} | accuracy | {100 * task['accuracy']:.1f} % "
            f"({100 * low:.1f} – {100 * high:.1f}) | {100 * task['finetuned']:.1f} % "
            f"| {100 * task['pretrained']:.1f} % | {task['examples']} |"
        ) in text
    assert f"{100 * report['normalised_accuracy']:.1f} %" in text
    for option, value in report["options"].items():
        assert f"| `{option}` | `{value}` |" in text
    for name, fingerprint in report["fingerprints"].items():
        assert re.search(rf"\| {name} \| `\w+` \| [\w. -]+ \| `{fingerprint}` \|", text), name
    assert "| e1 | `e1` | mit |" in text


def test_the_recipe_in_the_card_is_the_one_that_was_run(output, family):
    text = (output / "README.md").read_text()
    content = yaml.safe_load(text.rpartition("```yaml\n")[2].removesuffix("```\n"))
    told = parse_recipe(content, family)
    ran = load_recipe(output / "recipe.yaml")
    assert told.parsed_options() == ran.parsed_options()
    assert [e.fingerprint for e in told.experts] == [e.fingerprint for e in ran.experts]
    assert "output" not in content
    assert str(family) not in text  # whose disk it was is nobody's business


def test_the_snippets_load_the_merge_with_a_head(output, monkeypatch):
    monkeypatch.chdir(output)
    first, second = re.findall(r"```python\n(.*?)```", (output / "README.md").read_text(), re.S)
    spaces = []
    for code in (first.replace("PATH OF THIS FOLDER", str(output)), second):
        spaces.append({})
        exec(compile(code, "README.md", "exec"), spaces[-1])
    place = output / "heads" / "e0"
    head = Checkpoint.open(place / "head.safetensors")
    own = models.tensors_of(Checkpoint.open(output)) | {n: head.read(n) for n in head.tensors}
    pixels = torch.rand(3, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        merged, headed = (space["model"].eval()(pixel_values=pixels).logits for space in spaces)
        assert torch.equal(headed, models.build(place, own)(pixel_values=pixels).logits)
    assert merged.shape[1] == 5  # the base's own head
    assert headed.shape[1] == 3


@pytest.mark.parametrize("text", ["", "# no front", "---\n: [\n---\n", "---\n- a\n---\n"])
def test_other_people_s_cards_are_read_with_care(tmp_path, text):
    (tmp_path / "README.md").write_text(text)
    assert front_matter(tmp_path / "README.md") == {}
    assert front_matter(tmp_path / "none.md") == {}
