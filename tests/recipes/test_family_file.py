"""`family.yaml`: what it describes, what it measures, and the recipes it makes."""

from __future__ import annotations

import pytest

from mats_core.checkpoints.files import Checkpoint
from mats_core.errors import InputError
from mats_core.merging.pipeline import merge
from mats_core.recipes.family_file import (
    load_family,
    measure_all,
    measuring_all,
    missing_statistics,
)
from mats_core.statistics.settings import MeasureSettings
from mats_core.statistics.store import Statistics
from mats_core.system.folders import cache_folder
from mats_core.system.stream import Event, drain


def test_a_family_opens_from_its_file_or_folder(tiny_family):
    first, second = load_family(tiny_family), load_family(tiny_family / "family.yaml")
    assert first == second
    assert first.name == "Tiny three"
    assert [name for name, _, _ in first.members()] == ["e0", "e1", "e2"]
    assert first.members(with_base=True)[-1] == ("base", tiny_family / "base", "t_base.npz")


def test_measure_merge_and_measure_no_more(tiny_family, tmp_path, monkeypatch):
    monkeypatch.setenv("MATS_CACHE", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache"
    family = load_family(tiny_family)
    assert missing_statistics(family, examples=6) == ["e0", "e1", "e2", "base"]
    seen: list[Event] = []
    files = drain(measuring_all(family, MeasureSettings(examples=6)), seen.append)
    looked = [event.text for event in seen if event.text.startswith("Looking")]
    assert looked == [
        f"Looking for the statistics of {name} ({index} of 4)"
        for index, name in enumerate(("e0", "e1", "e2", "base"), 1)
    ]
    assert sum(event.text.startswith("Measuring statistics of e1") for event in seen) == 1
    assert [event.fraction for event in seen] == [0, 1 / 4, 1 / 4, 2 / 4, 2 / 4, 3 / 4, 3 / 4, 1]
    assert measure_all(family, examples=6) == files
    assert missing_statistics(family, examples=6) == []
    assert missing_statistics(family, examples=7) == ["e0", "e1", "e2", "base"]
    for name, path, _ in family.members(with_base=True):
        Statistics.open(files[name]).check(Checkpoint.open(path).fingerprint)
    recipe = family.recipe("gradient_matching", {"scaling": 0.5}, statistics=files, evaluate=False)
    assert recipe.base_statistics == str(files["base"])
    assert merge(recipe).coverage["merged"] > 0


def test_recipes_over_a_part_of_the_family(tiny_family):
    family = load_family(tiny_family)
    recipe = family.recipe(
        "average", experts=("e0", "e2"), weights={"e2": 3.0}, seed=4, output="out"
    )
    assert [(e.name, e.weight) for e in recipe.experts] == [("e0", 1.0), ("e2", 3.0)]
    assert (recipe.seed, recipe.output, recipe.folder) == (4, "out", tiny_family)


def test_heads_that_are_not_recognised_are_named_in_the_family(tiny_family):
    family = load_family(tiny_family)
    assert family.recipe("average").heads is None
    named = family.model_copy(update={"heads": ("classifier.*", "vit.layernorm.*")})
    assert named.recipe("average").heads == ("classifier.*", "vit.layernorm.*")
    assert named.recipe("average", heads=("classifier.*",)).heads == ("classifier.*",)
    whole, apart = (merge(it.recipe("average", evaluate=False)) for it in (family, named))
    assert apart.coverage["head"] == whole.coverage["head"] + 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: [", "YAML"),
        ("- a", "mapping"),
        ("name: x\nbase: b\nexperts: []", "at least 1"),
        ("name: x\nbse: b\nexperts: [{name: a, model: a}]", "Did you mean 'base'?"),
    ],
)
def test_bad_families_say_what_is_wrong(tmp_path, text, says):
    (tmp_path / "family.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        load_family(tmp_path)
    assert says in str(caught.value)
    with pytest.raises(InputError, match="nothing there"):
        load_family(tmp_path / "absent")


def test_the_cache_is_in_the_home_folder_by_default(monkeypatch, tmp_path):
    monkeypatch.delenv("MATS_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "mats-explorer"
