"""Every architecture is merged, saved, loaded by transformers and run.

The oracle for the average is transformers itself: `Base.from_pretrained(expert)` finds the shared
parameters in an expert's directory by its own rules, and the test averages what it found.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from mats_core.checkpoints.files import Checkpoint
from mats_core.evaluation.evaluate import with_head
from mats_core.families.examine import examine
from mats_core.families.expert import Expert
from mats_core.merging.pipeline import merge
from mats_core.models.modules import build, parameter_names
from mats_core.recipes.plan import open_inputs
from mats_core.recipes.report import Report
from tests.architectures import ARCHITECTURES, TEXT, Architecture, inputs, recipe, save_family

METHODS = ("average", "tsv_m")


class Family:
    """An architecture's family on disk, with a merge by each of `METHODS`, loaded again."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.architecture, self.folder = name, ARCHITECTURES[name], folder
        self.models = save_family(self.architecture, folder)
        self.reports: dict[str, Report] = {m: merge(recipe(folder, m, m)) for m in METHODS}
        self.loaded = {m: self.load(m) for m in METHODS}

    def load(self, name: str) -> tuple[Any, dict[str, Any]]:
        """A directory's model by the base's class, and what loading said."""
        model, loading = getattr(transformers, self.architecture.base).from_pretrained(
            self.folder / name, output_loading_info=True
        )
        return model.eval(), loading

    def found_in(self, expert: str) -> dict[str, Tensor]:
        """What the base's class finds in an expert's directory, by transformers' own rules."""
        if self.architecture.expert == "CLIPVisionModel":
            # A tower is a model of its own, which the whole model's class does not load.
            own = self.models[expert].named_parameters()
            return {f"vision_model.{name}": value for name, value in own}
        model, loading = self.load(expert)
        new = loading["missing_keys"]
        return {name: value for name, value in model.named_parameters() if name not in new}


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    return Family(request.param, tmp_path_factory.mktemp("family"))


def run(model: Any, kind: str, name: str = "") -> Tensor:
    """All numbers that a model answers with, in one vector."""
    given = inputs(kind)
    name = name or type(model).__name__
    if name.startswith("CLIPVision") or "Image" in name:
        given = {"pixel_values": given["pixel_values"]}
    if name == "T5ForSequenceClassification":
        given.pop("decoder_input_ids")
    with torch.no_grad():
        output = model(**given)
    if "logits" in output:
        return output.logits.flatten()
    if "logits_per_image" in output:
        return torch.cat([output.image_embeds, output.text_embeds, output.logits_per_image], 1)
    return output.last_hidden_state.flatten()


def assert_same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-5)


def test_the_average_answers_as_the_mean_of_the_experts_that_transformers_loads(family):
    model, kind = copy.deepcopy(family.models["base"]), family.architecture.inputs
    before = run(model, kind)
    states = [family.found_in(f"e{m}") for m in range(2)]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if all(name in state for state in states):
                parameter.copy_((states[0][name] + states[1][name]) / 2)
    expected = run(model, kind)
    assert_same(run(family.loaded["average"][0], kind), expected)
    assert float((before - expected).abs().max()) > 0.01


@pytest.mark.parametrize("method", METHODS)
def test_the_output_loads_whole(family, method):
    _, loading = family.loaded[method]
    assert loading["missing_keys"] == set()
    assert loading["unexpected_keys"] == set()
    assert loading["mismatched_keys"] == set()


def names_in(folder: Path, tensors: dict[str, Tensor], model: Any) -> dict[str, str]:
    """The file's name of each parameter; read off by loading where transformers renames."""
    own = [name for name, _ in model.named_parameters()]
    same = set(own) == set(tensors)
    return {n: n for n in own} if same else parameter_names(folder, tensors)


def test_the_output_answers_from_its_tensors(family):
    folder, (merged, _) = family.folder / "tsv_m", family.loaded["tsv_m"]
    tensors = load_file(folder / "model.safetensors")
    names = names_in(folder, tensors, merged)
    assert set(names.values()) == set(tensors)  # every tensor reaches a parameter of its own
    own = {parameter: tensors[name] for parameter, name in names.items()}
    skeleton = copy.deepcopy(family.models["base"])

    def called(**given: Tensor) -> Any:
        return torch.func.functional_call(skeleton, own, kwargs=given)

    kind = family.architecture.inputs
    assert_same(run(called, kind, type(skeleton).__name__), run(merged, kind))


def test_the_output_has_the_tensors_dtypes_and_files_of_the_base(family):
    base, merged = (Checkpoint.open(family.folder / n) for n in ("base", "tsv_m"))
    assert {n: (e.dtype, e.shape) for n, e in merged.tensors.items()} == {
        n: (e.dtype, e.shape) for n, e in base.tensors.items()
    }
    assert merged.config == base.config
    for report in family.reports.values():
        assert sum(report.coverage.values()) == len(report.layers)
        assert base.tensors.keys() <= {layer.name for layer in report.layers}
    changed = {n for n in merged.tensors if merged.digest(n) != base.digest(n)}
    treated = {layer.name: layer.treatment for layer in family.reports["tsv_m"].layers}
    assert changed == {n for n in base.tensors if treated[n] in ("merged", "averaged")}


def test_an_expert_s_head_answers_on_the_merged_encoder(family):
    """`with_head` gives the expert's own class what it needs, by its own names."""
    folder, kind = family.folder, family.architecture.inputs
    found = opened(folder).family
    expert = found.experts[1]
    merged = load_file(folder / "average" / "model.safetensors")
    tensors = with_head(merged, found, expert)
    own = load_file(folder / "e1" / "model.safetensors")
    assert set(tensors) <= set(own)
    heads = {expert.own(name) for name in found.head_of(expert)}
    oracle = copy.deepcopy(family.models["e1"])
    other = family.models["e0"].state_dict()
    names = names_in(folder / "e1", own, oracle)
    with torch.no_grad():
        for name, parameter in oracle.named_parameters():
            if names[name] not in heads:
                parameter.copy_((parameter + other[name]) / 2)
    assert_same(run(build(folder / "e1", tensors), kind), run(oracle, kind))
    kept = folder / "average" / "heads" / "e1" / "head.safetensors"
    assert (set(load_file(kept)) if kept.is_file() else set()) == heads
    assert bool(heads) == family.architecture.classifies


ROLES = {
    # 2 blocks × 6; the pooler (2) is the base's alone, the classifier (2) the experts'.
    "vit": {"matrix": 12, "vector": 26, "head": 4},
    # Two towers of 12 and two projections; logit_scale, norms, biases, embeddings.
    "clip": {"matrix": 26, "vector": 52},
    # The text tower, both projections and logit_scale are the base's.
    "clip, vision tower": {"matrix": 12, "vector": 27, "copied": 39},
    "clip, image classification": {"matrix": 12, "vector": 27, "copied": 39, "head": 2},
    # 2 blocks × 6 matrices and the pooler; the classifier is the experts'.
    "bert": {"matrix": 13, "vector": 26, "head": 2},
    "bert, base with a head": {"matrix": 13, "vector": 26, "head": 2},
    # The base's head of words has 5 tensors, the experts' classifier 4.
    "roberta": {"matrix": 12, "vector": 25, "head": 9},
    # vocab_transform, vocab_layer_norm, vocab_projector.bias; pre_classifier and classifier.
    "distilbert": {"matrix": 12, "vector": 24, "head": 9},
    # Encoder block: q k v o wi wo; decoder block: twice q k v o, and wi wo.  One table, two tables
    # of relative positions, 12 norms.
    "t5": {"matrix": 32, "vector": 15},
    "t5, classification": {"matrix": 32, "vector": 15, "head": 4},
    # 2 blocks × (c_attn, c_proj, c_fc, c_proj), a bias each; wte, wpe, 5 norms of 2.
    "gpt2": {"matrix": 8, "vector": 20},
    "gpt2, classification": {"matrix": 8, "vector": 20, "head": 1},
    # 2 blocks × (q k v o gate up down) and an untied lm_head; 5 norms and the embedding.
    "llama": {"matrix": 15, "vector": 6},
    "llama, classification": {"matrix": 14, "vector": 6, "head": 2},
    # Biases of q, k and v, and nothing is untied.
    "qwen2, tied": {"matrix": 14, "vector": 12},
    # Norms of q and k.
    "qwen3": {"matrix": 15, "vector": 10},
}


def test_roles_are_counted(family):
    found = opened(family.folder).family
    assert Counter(found.roles.values()) == ROLES[family.name]
    assert len(found.transposed) == (8 if "gpt2" in family.name else 0)


# What files of one model may differ in ------------------------------------------------------------


def opened(folder: Path):
    return open_inputs(recipe(folder, "average", None))


def test_a_part_of_clip_is_noted_and_another_base_with_more_is_refused(tmp_path):
    save_family(ARCHITECTURES["clip, vision tower"], tmp_path)
    found = opened(tmp_path)
    assert "expert 'e0' is a part of the base: 39 tensors" in found.notes[0]
    assert "text_model" in found.notes[0]
    for m in range(2):
        file = tmp_path / f"e{m}" / "config.json"
        content = json.loads(file.read_text())
        file.write_text(json.dumps({**content, "model_type": "something"}))
    with pytest.raises(Exception, match="lacks 'logit_scale'"):
        opened(tmp_path)


def test_ties_are_written_once_as_the_base_has_them(tmp_path):
    """Copies of a tied matrix in one file and not in another are no difference."""
    save_family(ARCHITECTURES["t5"], tmp_path)
    copies = ("lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    for place, names in (("base", copies), ("e1", copies[1:])):
        file = tmp_path / place / "model.safetensors"
        tensors = load_file(file)
        tensors |= {name: tensors["shared.weight"].clone() for name in names}
        save_file(tensors, file, {"format": "pt"})
    found = opened(tmp_path).family
    assert found.tied_to == dict.fromkeys(copies, "shared.weight")
    merge(recipe(tmp_path, "average", "out"))
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert "shared.weight" in written
    assert not set(copies) & set(written)
    kind: Any = transformers.T5ForConditionalGeneration
    _, loading = kind.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not loading["missing_keys"]
    # An expert that is not tied is another model: its lm_head is its own.
    change(tmp_path / "e1", lambda own: own | {"lm_head.weight": own["shared.weight"] + 1})
    assert opened(tmp_path).family.roles["lm_head.weight"] == "head"


def change(place: Path, how: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Write a checkpoint's tensors anew."""
    file = place / "model.safetensors"
    save_file(how(load_file(file)), file, {"format": "pt"})


def test_an_untied_lm_head_is_a_matrix_like_any_other(tmp_path):
    """T5 1.1: transformers leaves two tensors untied that are both there and differ."""
    save_family(ARCHITECTURES["t5"], tmp_path)
    for seed, place in enumerate(("base", "e0", "e1")):
        head = torch.randn(40, 16, generator=torch.Generator().manual_seed(seed))
        change(tmp_path / place, lambda own, head=head: own | {"lm_head.weight": head})
    assert opened(tmp_path).family.roles["lm_head.weight"] == "matrix"
    merge(recipe(tmp_path, "average", "out"))
    merged = load_file(tmp_path / "out" / "model.safetensors")
    experts = [load_file(tmp_path / f"e{m}" / "model.safetensors") for m in range(2)]
    model = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "out")
    for name, parameter in (("lm_head", model.lm_head), ("shared", model.shared)):
        mean = (experts[0][f"{name}.weight"] + experts[1][f"{name}.weight"]) / 2
        torch.testing.assert_close(merged[f"{name}.weight"], mean)
        torch.testing.assert_close(parameter.weight.data, mean)


def test_the_architecture_s_default_decides_where_the_configuration_does_not_say(tmp_path):
    save_family(ARCHITECTURES["gpt2"], tmp_path)
    for place in ("base", "e0", "e1"):
        file = tmp_path / place / "model.safetensors"
        tensors = load_file(file)
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()
        save_file(tensors, file, {"format": "pt"})
        config = json.loads((tmp_path / place / "config.json").read_text())
        config.pop("tie_word_embeddings", None)
        (tmp_path / place / "config.json").write_text(json.dumps(config))
    merge(recipe(tmp_path, "average", "out"))
    assert "lm_head.weight" not in load_file(tmp_path / "out" / "model.safetensors")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    untied = json.dumps({**config, "tie_word_embeddings": False})
    (tmp_path / "base" / "config.json").write_text(untied)
    merge(recipe(tmp_path, "average", "untied"))
    both = load_file(tmp_path / "untied" / "model.safetensors")
    assert torch.equal(both["lm_head.weight"], both["transformer.wte.weight"])


def test_buffers_and_old_names_of_norms_are_no_difference(tmp_path):
    """As on the hub: bert-base-uncased has `gamma` and `position_ids`, its experts have neither."""
    words = Architecture("BertForMaskedLM", "BertForSequenceClassification", "BertConfig", TEXT)
    save_family(words, tmp_path)
    file = tmp_path / "base" / "model.safetensors"
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for name, value in load_file(file).items()
    }
    old["bert.embeddings.position_ids"] = torch.arange(24)[None]
    save_file(old, file, {"format": "pt"})
    found = opened(tmp_path).family
    assert found.roles["bert.embeddings.position_ids"] == "copied"
    gamma = "bert.encoder.layer.0.output.LayerNorm.gamma"
    assert found.experts[0].own(gamma) == gamma.replace("gamma", "weight")
    merge(recipe(tmp_path, "average", "out"))
    merged = load_file(tmp_path / "out" / "model.safetensors")
    assert set(merged) == set(old)
    experts = [load_file(tmp_path / f"e{m}" / "model.safetensors") for m in range(2)]
    mean = sum(tensors[gamma.replace("gamma", "weight")] for tensors in experts) / 2
    torch.testing.assert_close(merged[gamma], mean)
    kind: Any = transformers.BertForMaskedLM
    model, loading = kind.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not loading["missing_keys"]
    norm: Any = model.bert.encoder.layer[0].output.LayerNorm
    torch.testing.assert_close(norm.weight.data, mean)


def test_gpt2_masks_of_old_files_are_copied(tmp_path):
    save_family(ARCHITECTURES["gpt2, classification"], tmp_path)
    file = tmp_path / "base" / "model.safetensors"
    mask = torch.ones(1, 1, 24, 24).tril()
    save_file(load_file(file) | {"h.0.attn.bias": mask}, file, {"format": "pt"})
    found = opened(tmp_path).family
    assert found.roles["h.0.attn.bias"] == "copied"
    assert found.roles["h.0.attn.c_attn.bias"] == "vector"


# Dtypes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_half_precision_experts_over_a_float32_base(tmp_path, stored):
    save_family(ARCHITECTURES["llama"], tmp_path)
    for m in range(2):
        file = tmp_path / f"e{m}" / "model.safetensors"
        save_file({n: v.to(stored) for n, v in load_file(file).items()}, file, {"format": "pt"})
    merge(recipe(tmp_path, "average", "out"))
    merged = load_file(tmp_path / "out" / "model.safetensors")
    experts = [load_file(tmp_path / f"e{m}" / "model.safetensors") for m in range(2)]
    for name, value in merged.items():
        assert value.dtype == torch.float32
        # The mean is taken in float32, of the numbers that the experts hold.
        torch.testing.assert_close(value, (experts[0][name].float() + experts[1][name].float()) / 2)


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_a_half_precision_sharded_family_stays_so_and_is_computed_in_float32(tmp_path, stored):
    save_family(ARCHITECTURES["llama"], tmp_path)
    exact: list[dict[str, Tensor]] = []
    for place in ("base", "e0", "e1"):
        model = transformers.LlamaForCausalLM.from_pretrained(tmp_path / place, dtype=stored)
        (tmp_path / place / "model.safetensors").unlink()
        model.save_pretrained(tmp_path / place, max_shard_size="8KB")
        assert (tmp_path / place / "model.safetensors.index.json").is_file()
        exact.append({n: v.float() for n, v in model.state_dict().items()})
    merge(recipe(tmp_path, "task_arithmetic", "out", options={"scaling": 0.7}))
    merged = Checkpoint.open(tmp_path / "out")
    for name in merged.tensors:
        base, one, two = (tensors[name] for tensors in exact)
        expected = (base + 0.7 * (one - base) + 0.7 * (two - base)).to(stored)
        assert merged.tensors[name].dtype == stored
        # One unit of the last place: sums in another order.
        torch.testing.assert_close(merged.read(name), expected, rtol=1e-2, atol=1e-6)
        exactly = (merged.read(name) == expected).float().mean()
        assert exactly > 0.95, name  # rounded once, at the end


def test_an_expert_alone_gives_itself_back_under_the_base_s_names(tmp_path):
    save_family(ARCHITECTURES["bert"], tmp_path)
    base = Checkpoint.open(tmp_path / "base")
    one = examine(base, [Expert("e0", Checkpoint.open(tmp_path / "e0"))])
    own = load_file(tmp_path / "e0" / "model.safetensors")
    for name in one.shared:
        assert torch.equal(one.experts[0].checkpoint.read(name), own[f"bert.{name}"])
        assert one.experts[0].own(name) == f"bert.{name}"
    assert one.experts[0].checkpoint.fingerprint == Checkpoint.open(tmp_path / "e0").fingerprint
