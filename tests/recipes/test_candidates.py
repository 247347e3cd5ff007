"""Which models fit a base, and which base a model comes from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from mats_core.checkpoints import ListedModel, search_models
from mats_core.errors import InputError
from mats_core.recipes import candidates, proposal, proposed_base
from tests import adapter_cases
from tests.conftest import vit

Models = dict[str, ListedModel]


def listed(folder: Path) -> Models:
    return {one.name: one for one in search_models([folder]).models}


@pytest.fixture
def folder(tiny_family: Path, tmp_path: Path) -> Path:
    """The tiny family's models under names that tell nothing, and others that do not belong."""
    for name, to in (("base", "m"), ("e0", "a"), ("e1", "b"), ("e2", "z")):
        shutil.copytree(tiny_family / name, tmp_path / "models" / to)
    return tmp_path / "models"


def test_what_fits_is_offered_and_what_does_not_says_why(folder):
    from transformers import ViTConfig, ViTForImageClassification

    vit(5, list("abcde"), seed=99).save_pretrained(folder / "stranger")
    small = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        image_size=12, patch_size=4, num_channels=1,
    )  # fmt: skip
    ViTForImageClassification(small).save_pretrained(folder / "small")
    adapter_cases.write_base(folder / "bert", "bert")
    (folder / "broken").mkdir()
    (folder / "broken" / "model.safetensors").write_bytes(b"\x10" + bytes(20))
    (folder / "broken" / "config.json").write_text("{}")
    (folder / "pickled").mkdir()
    (folder / "pickled" / "pytorch_model.bin").write_bytes(b"\x80\x04")
    models = listed(folder)
    found = {one.model.name: one for one in candidates(models["m"], models.values())}
    assert set(found) == set(models) - {"m"}
    for name in "abz":
        assert found[name].likely
        assert found[name].cosine == pytest.approx(0.5, abs=0.2)
        assert "of one start with this base" in found[name].sentence
    assert found["stranger"].fits
    assert not found["stranger"].likely
    assert found["stranger"].sentence == "a stranger to this base"
    for name, why in (
        ("small", "shape"),
        ("bert", "lacks"),
        ("broken", "header"),
        ("pickled", "can run code"),
    ):
        assert not found[name].fits
        assert why in found[name].sentence, found[name].sentence
    order = [one.fits for one in candidates(models["m"], models.values())]
    assert order == sorted(order, reverse=True)


def test_a_base_that_cannot_be_opened_is_a_sentence(folder):
    (folder / "m" / "model.safetensors").write_bytes(b"")
    models = listed(folder)
    with pytest.raises(InputError, match="Copy or download it again"):
        candidates(models["m"], models.values())


def test_the_base_lies_between_its_experts_whatever_it_is_called(folder):
    models = listed(folder)
    found = proposal([*models.values()])
    assert found is not None
    assert found.base == models["m"]
    assert [one.name for one in found.experts] == ["a", "b", "z"]
    assert found.sentence == "Its weights lie between those of the others"


@pytest.mark.parametrize("by", ["card", "config", "name"])
def test_of_two_alike_the_one_that_is_named_is_the_base(folder, by):
    for name in "bz":
        shutil.rmtree(folder / name)
    if by == "card":
        (folder / "a" / "README.md").write_text("---\nbase_model: someone/m\n---\n")
    elif by == "config":
        config = json.loads((folder / "a" / "config.json").read_text())
        (folder / "a" / "config.json").write_text(json.dumps({**config, "_name_or_path": "./m"}))
    else:
        (folder / "m").rename(folder / "my pretrained")
    found = proposal([*listed(folder).values()])
    assert found is not None
    assert found.base.name == ("my pretrained" if by == "name" else "m")
    assert [one.name for one in found.experts] == ["a"]
    assert found.sentence == (
        "Proposed by its name" if by == "name" else "1 of the others says that it was made from it"
    )


def test_an_expert_proposes_its_base(folder):
    models = listed(folder)
    found = proposed_base(models["a"], [*models.values()])
    assert found is not None
    assert found.base == models["m"]
    assert "nearest" in found.sentence
    (folder / "a" / "README.md").write_text("---\nbase_model: b\n---\n")
    models = listed(folder)
    found = proposed_base(models["a"], [*models.values()])
    assert found is not None
    assert found.base == models["b"], "what it says comes first"
    assert found.sentence == "It says that it was made from 'b'"


def test_an_expert_whose_base_is_missing_proposes_none(tmp_path):
    vit(3, list("abc"), seed=1).save_pretrained(tmp_path / "one")
    vit(3, list("abc"), seed=2).save_pretrained(tmp_path / "two")
    models = listed(tmp_path)
    assert proposed_base(models["one"], [*models.values()]) is None
    assert proposal([*models.values()]) is None
    assert proposal([]) is None


def test_an_adapter_fits_its_base_and_is_offered_beside_full_models(tmp_path):
    from peft import LoraConfig

    base = adapter_cases.write_base(tmp_path, "bert")
    settings = LoraConfig(r=2, target_modules=["query"], task_type="SEQ_CLS")
    written = adapter_cases.write_adapter(tmp_path, base, settings)
    models = listed(tmp_path)
    own = next(one for one in models.values() if one.kind == "adapter")
    found = proposed_base(own, [*models.values()])
    assert found is not None
    assert found.base.path == base
    (offer,) = [one for one in candidates(found.base, models.values()) if one.model == own]
    assert offer.likely
    assert offer.sentence == "an adapter that fits this base"
    assert written is not None


def test_what_a_merge_wrote_fits_and_is_not_taken_for_an_expert(folder):
    for name in ("report.json", "recipe.yaml"):
        (folder / "z" / name).write_text("{}")
    models = listed(folder)
    merged = next(c for c in candidates(models["m"], models.values()) if c.model.name == "z")
    assert merged.fits
    assert not merged.likely
    found = proposal([*models.values()])
    assert found is not None
    assert [one.name for one in found.experts] == ["a", "b"]


def test_a_candidate_is_judged_again_when_its_files_have_changed(folder):
    models = listed(folder)
    assert candidates(models["m"], models.values())[0].fits
    tensors = load_file(folder / "a" / "model.safetensors")
    name = next(n for n in tensors if n.endswith("query.weight"))
    save_file({**tensors, name: tensors[name][:5].clone()}, folder / "a" / "model.safetensors")
    models = listed(folder)
    found = {one.model.name: one.fits for one in candidates(models["m"], models.values())}
    assert found == {"a": False, "b": True, "z": True}
