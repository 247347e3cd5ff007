"""The translation between an expert's names and its base's, and what goes through it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mats_core.analysis.survey import survey
from mats_core.checkpoints.files import Checkpoint
from mats_core.checkpoints.renamed import Renamed
from mats_core.errors import InputError
from mats_core.families.compatibility import compare
from mats_core.families.examine import examine
from mats_core.families.expert import Expert, aligned, translation
from mats_core.merging.pipeline import run
from mats_core.names import bias_of, is_buffer, is_matrix, is_table, is_weight
from mats_core.recipes.events import Finished
from mats_core.recipes.plan import open_inputs
from mats_core.recipes.recipe import parse_recipe
from mats_core.statistics.collect import measure
from mats_core.statistics.store import Statistics
from tests.architectures import ARCHITECTURES, inputs, recipe, save_family

Shapes = dict[str, tuple[int, ...]]


def shapes(*names: str) -> Shapes:
    return dict.fromkeys(names, (3, 2))


BARE = shapes("embed.weight", "encoder.layer.0.q.weight", "encoder.layer.1.q.weight")


def under(prefix: str, names: Shapes = BARE) -> Shapes:
    return {prefix + name: shape for name, shape in names.items()}


@pytest.mark.parametrize(
    "prefix",
    ["bert.", "roberta.", "distilbert.", "model.", "vit.", "base_model.", "vision_model.",
     "transformer.", "base_model.model.model.", "anything."],
)  # fmt: skip
def test_a_prefix_is_stripped_or_added(prefix):
    head = shapes("classifier.weight")
    stripped = translation(BARE, under(prefix) | head)
    assert stripped == {prefix + n: n for n in BARE} | {"classifier.weight": "classifier.weight"}
    added = translation(under(prefix) | head, BARE)
    assert added == {n: prefix + n for n in BARE}


def test_names_that_fit_stay():
    assert translation(BARE, BARE) == {n: n for n in BARE}
    # One accidental match more is not a prefix: most tensors must fit.
    odd = shapes("a.weight", "b.weight", "c.weight", "x.embed.weight")
    assert translation(BARE, odd) == {n: n for n in odd}


def test_what_the_base_lacks_keeps_its_name_less_the_prefix():
    own = under("bert.") | shapes("bert.pooler.weight", "classifier.weight")
    found = translation(BARE, own)
    assert found["bert.pooler.weight"] == "pooler.weight"
    assert found["classifier.weight"] == "classifier.weight"


def test_two_prefixes_that_fit_equally_are_refused():
    base = under("encoder.") | under("decoder.")
    with pytest.raises(InputError, match=r"'decoder\.' and 'encoder\.'"):
        translation(base, BARE, "expert 'x'")
    # Another shape in one of them decides.
    base["decoder.embed.weight"] = (9, 9)
    assert translation(base, BARE) == {n: f"encoder.{n}" for n in BARE}


def test_no_tensor_hides_another():
    own = under("bert.") | shapes("embed.weight")
    found = translation(BARE, own)
    assert len(set(found.values())) == len(own)


def test_old_names_of_norms():
    base = shapes("bert.LayerNorm.gamma", "bert.LayerNorm.beta", "bert.q.weight")
    own = shapes("LayerNorm.weight", "LayerNorm.bias", "q.weight")
    assert translation(base, own) == {
        "LayerNorm.weight": "bert.LayerNorm.gamma",
        "LayerNorm.bias": "bert.LayerNorm.beta",
        "q.weight": "bert.q.weight",
    }
    assert translation(own, base)["bert.LayerNorm.beta"] == "LayerNorm.bias"


# The view -----------------------------------------------------------------------------------------


def write(place: Path, tensors: dict[str, Tensor], **config: object) -> Checkpoint:
    place.mkdir(parents=True)
    save_file(tensors, place / "model.safetensors")
    (place / "config.json").write_text(json.dumps(config))
    return Checkpoint.open(place)


def test_a_view_reads_the_source_under_other_names(tmp_path):
    base = write(tmp_path / "base", {n: torch.randn(3, 2) for n in BARE})
    tensors = {f"bert.{n}": torch.randn(3, 2) for n in BARE}
    own = write(tmp_path / "own", tensors, id2label={"0": "no", "1": "yes"})
    (expert,) = aligned(base, [Expert("x", own, "task")])
    view = expert.checkpoint
    assert isinstance(view, Renamed)
    assert list(view.tensors) == list(base.tensors)
    for name in BARE:
        assert torch.equal(view.read(name), tensors[f"bert.{name}"])
        assert view.read(name, dtype=torch.float64).dtype == torch.float64
        assert view.digest(name) == own.digest(f"bert.{name}")
    assert (view.fingerprint, view.class_names) == (own.fingerprint, ("no", "yes"))
    assert (view.path, view.directory, view.nbytes) == (own.path, own.directory, own.nbytes)
    assert aligned(base, [expert]) == (expert,)  # once is enough
    assert aligned(base, [Expert("b", base)])[0].checkpoint is base


def test_errors_and_rows_speak_of_the_expert_s_own_names(tmp_path):
    base = write(tmp_path / "base", {n: torch.randn(3, 2) for n in BARE})
    tensors = {f"bert.{n}": torch.randn(3, 2) for n in BARE}
    extra = tensors | {"bert.encoder.layer.2.q.weight": torch.randn(3, 2)}
    good = Expert("good", write(tmp_path / "good", tensors))
    bad = Expert("bad", write(tmp_path / "bad", extra))
    with pytest.raises(InputError, match=r"has 'bert\.encoder\.layer\.2\.q\.weight', which"):
        examine(base, [good, bad])
    rows = compare(base, [good, bad])
    assert [(row.fits, row.matching, row.surplus) for row in rows] == [(True, 3, 0), (False, 3, 1)]


def test_head_patterns_may_speak_either_way(tmp_path):
    base = write(tmp_path / "base", {n: torch.randn(3, 2) for n in BARE})
    tensors = {f"bert.{n}": torch.randn(3, 2) for n in BARE}
    expert = Expert("x", write(tmp_path / "own", tensors))
    for pattern in ("embed.*", "bert.embed.*"):
        found = examine(base, [expert], heads=[pattern])
        assert [n for n, role in found.roles.items() if role == "head"] == ["embed.weight"]
    with pytest.raises(InputError, match="no such tensor"):
        examine(base, [expert], heads=["vit.*"])


# Statistics go through the same translation -------------------------------------------------------


@pytest.fixture(scope="module")
def measured_family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BertModel and two BertForSequenceClassification with statistics; `by hand/` holds the same
    under the base's names, without the heads."""
    folder = tmp_path_factory.mktemp("measured")
    models = save_family(ARCHITECTURES["bert"], folder)
    (folder / "by hand").mkdir()
    shutil.copytree(folder / "base", folder / "by hand" / "base")
    for m in range(2):
        statistics = measure(models[f"e{m}"], [(inputs("text", seed=m), torch.tensor([0, 1, 2]))])
        statistics.save(folder / f"e{m}.stats.safetensors")
        (folder / "by hand" / f"e{m}").mkdir()
        for name in (f"e{m}/model.safetensors", f"e{m}.stats.safetensors"):
            plain = {
                name.removeprefix("bert."): value
                for name, value in load_file(folder / name).items()
                if name.startswith("bert.")
            }
            save_file(plain, folder / "by hand" / name)
    return folder


def measured_recipe(folder: Path, method: str, **settings: object):
    experts = [
        {"name": f"e{m}", "model": f"e{m}", "statistics": f"e{m}.stats.safetensors"}
        for m in range(2)
    ]
    content = {"base": "base", "experts": experts, "method": method, "device": "cpu", **settings}
    return parse_recipe(content, folder)


@pytest.mark.parametrize("method", ["regmean", "fisher", "kfac", "essential"])
def test_statistics_of_an_expert_speak_its_own_names(measured_family, method):
    *_, one = run(measured_recipe(measured_family, method))
    *_, other = run(measured_recipe(measured_family / "by hand", method))
    assert isinstance(one, Finished)
    assert isinstance(other, Finished)
    base = load_file(measured_family / "base" / "model.safetensors")
    assert one.tensors.keys() == other.tensors.keys() == base.keys()
    for name in base:
        assert torch.equal(one.tensors[name], other.tensors[name]), name
    query = "encoder.layer.0.attention.self.query.weight"
    *_, average = run(measured_recipe(measured_family, "average"))
    assert isinstance(average, Finished)
    # The statistics were used.
    assert not torch.allclose(one.tensors[query], average.tensors[query], atol=1e-4)


def test_the_survey_finds_the_statistics_too(measured_family):
    opened = open_inputs(measured_recipe(measured_family, "regmean"))
    own = {e.name: s for e, s in zip(opened.family.experts, opened.statistics, strict=True) if s}
    (found,) = survey(opened.family, own, ["encoder.layer.1.output.dense.weight"]).layers
    assert bool(torch.isfinite(found.losses).all())
    assert float(found.losses.min()) > 0


def test_statistics_under_their_own_names_are_themselves():
    own = Statistics.of({"a.input_gram": torch.eye(2), "a.weight.fisher": torch.ones(2, 2)}, {})
    assert own.under({"a.weight": "a.weight"}) is own
    moved = own.under({"a.weight": "x.a.weight", "b.bias": "x.b.bias"})
    assert set(moved.shapes) == {"x.a.input_gram", "x.a.weight.fisher"}
    assert torch.equal(moved.read("x.a.weight.fisher", (2, 2)), torch.ones(2, 2))  # type: ignore


# Words --------------------------------------------------------------------------------------------


def test_what_names_say():
    assert is_weight("a.weight")
    assert is_weight("attn.in_proj_weight")
    assert not is_weight("weight_norm")
    assert bias_of("a.b.weight") == "a.b.bias"
    assert bias_of("attn.in_proj_weight") == "attn.in_proj_bias"
    assert is_matrix("attn.in_proj_weight", (9, 3))
    assert is_matrix("h.0.attn.c_attn.weight", (3, 9))
    assert is_matrix("blocks.0.attn.qkv.weight", (9, 3))
    for table in ("transformer.wte.weight", "wpe.weight", "shared.weight",
                  "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                  "model.embed_tokens.weight"):  # fmt: skip
        assert is_table(table)
        assert not is_matrix(table, (40, 16))
    assert not is_table("mlp.shared_expert.up_proj.weight")
    assert is_buffer("embeddings.position_ids", (1, 24))
    assert is_buffer("h.0.attn.bias", (1, 1, 24, 24))
    assert is_buffer("h.0.attn.masked_bias", ())
    assert not is_buffer("h.0.attn.bias", (24,))


def test_a_family_of_one_name_is_as_it_was(tmp_path):
    save_family(ARCHITECTURES["llama"], tmp_path)
    found = open_inputs(recipe(tmp_path, "average", None)).family
    assert all(not isinstance(e.checkpoint, Renamed) for e in found.experts)
    assert all("was trained far from the base" in note for note in found.notes)
