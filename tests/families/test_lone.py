"""What only some files have: heads, parts, relics and buffers, by classes and by files alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from mats_core import merge_models, models
from mats_core.checkpoints.files import Checkpoint
from mats_core.errors import InputError
from mats_core.families.examine import examine
from mats_core.families.expert import Expert
from mats_core.families.family import Family
from mats_core.merging.pipeline import merge
from tests.architectures import recipe

SMALL = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "vocab_size": 50, "max_position_embeddings": 32,
}  # fmt: skip
T5: dict[str, Any] = {
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 2,
    "num_heads": 2,
    "vocab_size": 50,
}
WAV = {
    **{k: v for k, v in SMALL.items() if "vocab" not in k and "position" not in k},
    "conv_dim": (8, 8), "conv_stride": (5, 2), "conv_kernel": (10, 3),
    "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "codevector_dim": 8,
    "proj_codevector_dim": 8,
}  # fmt: skip
SWIN = {
    "image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2],
    "window_size": 4, "encoder_stride": 8,
}  # fmt: skip
FAMILIES = {  # base, expert, configuration, settings, what is a head, what is copied
    "electra": ("ElectraForPreTraining", "ElectraForSequenceClassification", "ElectraConfig",
                {**SMALL, "embedding_size": 16}, {"discriminator_predictions", "classifier"},
                set()),
    "convbert": ("ConvBertForMaskedLM", "ConvBertForTokenClassification", "ConvBertConfig",
                 {**SMALL, "embedding_size": 16},
                 {"generator_predictions", "generator_lm_head", "classifier"}, set()),
    "xlnet": ("XLNetLMHeadModel", "XLNetForSequenceClassification", "XLNetConfig",
              {"vocab_size": 50, "d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32},
              {"lm_loss", "sequence_summary", "logits_proj"}, set()),
    "wav2vec2": ("Wav2Vec2ForPreTraining", "Wav2Vec2ForSequenceClassification", "Wav2Vec2Config",
                 WAV, {"project_hid", "project_q", "quantizer", "projector", "classifier"}, set()),
    "swin": ("SwinForMaskedImageModeling", "SwinForImageClassification", "SwinConfig", SWIN,
             {"decoder", "classifier", "swin"}, set()),  # of swin the mask token
    "t5, encoder": ("T5ForConditionalGeneration", "T5EncoderModel", "T5Config", T5, set(),
                    {"decoder"}),
}  # fmt: skip


def saved(model: Any, folder: Path, seed: int) -> Path:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.005 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    return folder


def edited(folder: Path, **more: Tensor) -> None:
    file = folder / "model.safetensors"
    save_file({**load_file(file), **more}, file, metadata={"format": "pt"})


@pytest.mark.parametrize("name", FAMILIES)
def test_heads_and_parts_follow_from_the_classes(name, tmp_path):
    before, after, config, settings, heads, copied = FAMILIES[name]
    torch.manual_seed(0)
    made = getattr(transformers, config)(**settings)
    saved(getattr(transformers, before)(made), tmp_path / "base", 0)
    for m in range(2):
        expert = getattr(transformers, after).from_pretrained(tmp_path / "base")
        saved(expert, tmp_path / f"e{m}", m + 1)
    report = merge(recipe(tmp_path, "average", str(tmp_path / "out")))
    told = {kind: {la.name for la in report.layers if la.treatment == kind}
            for kind in ("head", "copied")}  # fmt: skip
    assert {n.split(".")[0] for n in told["head"]} == heads
    assert {n.split(".")[0] for n in told["copied"]} == copied
    merged = load_file(tmp_path / "out" / "model.safetensors")
    experts = [load_file(tmp_path / f"e{m}" / "model.safetensors") for m in range(2)]
    shared = [n for n in merged if n in experts[0] and n not in told["head"] | told["copied"]]
    assert len(shared) > 10
    for tensor in shared:
        mean = (experts[0][tensor] + experts[1][tensor]) / 2
        torch.testing.assert_close(merged[tensor], mean, atol=1e-6, rtol=0)
    assert getattr(transformers, after).from_pretrained(tmp_path / "out")


def test_relics_that_no_model_reads_are_left_out(tmp_path):
    relic = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    torch.manual_seed(0)
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(**T5))
    saved(model, tmp_path / "base", 0)
    for m in range(2):
        saved(model, tmp_path / f"e{m}", m + 1)
    edited(tmp_path / "base", **{relic: torch.randn(32, 2)})
    report = merge(recipe(tmp_path, "task_arithmetic", str(tmp_path / "out")))
    assert any("no model of this kind reads it" in note for note in report.warnings)
    assert relic not in load_file(tmp_path / "out" / "model.safetensors")
    # An expert's is left out as well, and what is inside of its blocks and of no class is refused.
    saved(model, tmp_path / "base", 0)
    edited(tmp_path / "e0", **{relic: torch.randn(32, 2)})
    assert "relics" not in merge(recipe(tmp_path, "average", None)).coverage
    edited(tmp_path / "e0", **{"encoder.block.0.layer.0.adapter.down.weight": torch.randn(4, 16)})
    with pytest.raises(InputError, match="more inside its blocks than the base"):
        merge(recipe(tmp_path, "average", None))


def test_an_output_layer_that_was_trained_apart_is_untied(tmp_path):
    torch.manual_seed(0)
    settings = {**SMALL, "num_key_value_heads": 1, "pad_token_id": 0, "tie_word_embeddings": True}
    base = transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings))
    saved(base, tmp_path / "base", 0)
    heads = []
    for m in range(2):
        saved(base, tmp_path / f"e{m}", m + 1)
        heads.append(0.02 * torch.randn(50, 16))
        if m == 0:  # the other one is tied still
            edited(tmp_path / "e0", **{"lm_head.weight": heads[0]})
    tied = load_file(tmp_path / "e1" / "model.safetensors")["model.embed_tokens.weight"]
    report = merge(recipe(tmp_path, "average", str(tmp_path / "out")))
    assert any("apart from 'model.embed_tokens.weight'" in note for note in report.warnings)
    assert json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"] is False
    merged = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(merged.lm_head.weight, (heads[0] + tied) / 2, atol=1e-6, rtol=0)


def test_a_configuration_whose_class_cannot_be_built_says_nothing(tmp_path):
    file = tmp_path / "config.json"
    save_file({"a.weight": torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    for content in (
        {},
        {"model_type": "bert"},
        {"model_type": "bert", "architectures": ["NoSuchModel"]},
        {"model_type": "of my own", "architectures": ["BertModel"]},
        {"model_type": "bert", "architectures": ["BertModel"], "hidden_size": "wide"},
        {"model_type": "bert", "architectures": ["BertModel"], "num_hidden_layers": 10**6},
        {"model_type": "bert", "architectures": ["AutoConfig"]},
    ):
        file.write_text(json.dumps(content))
        assert models.anatomy(Checkpoint.open(tmp_path)) is None, content


# By the files alone -------------------------------------------------------------------------------

G = torch.Generator().manual_seed(0)
BODY = {
    "enc.embed.weight": torch.randn(9, 4, generator=G),
    "enc.layers.0.fc.weight": torch.randn(4, 4, generator=G),
    "enc.layers.1.fc.weight": torch.randn(4, 4, generator=G),
    "final_norm.weight": torch.randn(4, generator=G),
}


def head(name: str, rows: int, bias: bool = True) -> dict[str, Tensor]:
    found = {f"{name}.weight": torch.randn(rows, 4, generator=G)}
    return {**found, f"{name}.bias": torch.randn(rows, generator=G)} if bias else found


def looked_at(base: dict[str, Tensor], *experts: dict[str, Tensor]) -> Family:
    from mats_core.checkpoints.in_memory import InMemory

    opened = [Expert(f"e{m}", InMemory.of(own, f"e{m}")) for m, own in enumerate(experts)]
    return examine(InMemory.of(base, "base"), opened)


@pytest.mark.parametrize(
    ("base", "experts"),
    [
        (head("predictions.dense", 4), ({}, {})),  # of the pre-training alone
        ({}, (head("v_head.summary", 1), head("v_head.summary", 1))),
        ({}, (head("regression.0", 8), {})),  # of one expert alone
        (head("out", 3), (head("out", 4), head("out", 5))),  # other outputs in each
    ],
)
def test_a_module_at_the_top_is_a_head(base, experts):
    found = looked_at({**BODY, **base}, *({**BODY, **own} for own in experts))
    expected = {name for own in (base, *experts) for name in own}
    assert {n for n, role in found.roles.items() if role == "head"} == expected
    assert any("taken for a head" in note for note in found.notes)


def without(*names: str) -> dict[str, Tensor]:
    return {n: v for n, v in BODY.items() if n not in names}


@pytest.mark.parametrize(
    ("base", "expert", "words"),
    [
        (BODY, without("final_norm.weight"), "differ in final_norm"),
        (BODY, without("enc.layers.1.fc.weight"), "another number of layers, 1 where .* has 2"),
        (BODY, without("enc.embed.weight"), "differ in enc.embed"),
        ({**BODY, "tok.weight": torch.randn(5, 4)}, {**BODY, "tok.weight": torch.randn(6, 4)},
         "differ in tok"),
        (BODY, {**BODY, "enc.embed.weight": torch.randn(11, 4)}, "another vocabulary"),
        (BODY, {f"x.{n.replace('fc', 'dense')}": v for n, v in BODY.items()}, "other names"),
        (BODY, {n: torch.randn(*(2 * k for k in v.shape)) for n, v in BODY.items()},
         "of another size"),
        (BODY, {**BODY, "enc.layers.0.fc.weight": torch.ones(4, 4, dtype=torch.int8)},
         r"packed integers"),
    ],
)  # fmt: skip
def test_a_misfit_says_which_kind_it_is(base, expert, words):
    with pytest.raises(InputError, match=words):
        looked_at(base, {**expert})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bn.num_batches_tracked", torch.tensor(7)),
        ("enc.steps", torch.tensor([1, 2])),
        ("enc.attn_mask", torch.full((3, 3), -torch.inf).triu(1)),
        ("enc.causal", torch.full((3, 3), -torch.inf).triu(1)),
        ("enc.rotary.inv_freq", torch.rand(4)),
        ("enc.scales_of_mine", torch.full((4,), 0.5)),
        ("enc.flags", torch.tensor([True, False])),
    ],
)
def test_a_buffer_may_be_missing_anywhere(name, value):
    with_it = {**BODY, name: value}
    assert looked_at(with_it, BODY, with_it).roles[name] == "copied"
    assert name not in looked_at(BODY, with_it, BODY).roles
    merged = merge_models(with_it, [with_it, BODY]).state_dict()
    assert torch.equal(merged[name], value)


def test_infinities_are_damage_where_there_is_no_mask():
    bad = {**BODY, "enc.layers.0.fc.weight": torch.full((4, 4), -torch.inf)}
    bad["enc.layers.0.fc.weight"][0] = torch.arange(4.0)
    with pytest.raises(InputError, match="12 of 16 that are NaN or infinite"):
        looked_at(BODY, bad)


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (("q.lora_A.weight", "q.lora_B.weight"), "LoRA"),
        (("lora_unet_down_to_q.lora_down.weight", "lora_unet_down_to_q.alpha"), "LoRA"),
        (("unet.to_k.lora.up.weight",), "LoRA"),
        (("x.hada_w1_a", "x.hada_w1_b"), "LoHa"),
        (("x.lokr_w1", "x.lokr_w2_a"), "LoKr"),
        (("base_model.model.k.ia3_l",), r"\(IA\)³"),
    ],
)
def test_factors_of_adapters_are_refused_by_name(names, kind):
    factors = {name: torch.randn(2, 2) for name in names}
    with pytest.raises(InputError, match=rf"a {kind} adapter: .* adapter_config\.json"):
        looked_at(factors, factors)
    with pytest.raises(InputError, match=rf"expert 'e0'.*a {kind} adapter inside of a model"):
        looked_at(BODY, {**BODY, **dict(list(factors.items())[:1])})


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        (
            "adapter.weight",
            torch.arange(12.0).view(3, 4),
            ["taken for a head, and kept apart: adapter of the"],
        ),
        (
            "fc.weight",
            torch.randn(3, 4),
            ["fc.weight of expert 'e0', not in every file: taken for"],
        ),
        ("gate.value", torch.ones(4), ["gate.value of expert 'e0', not in every file: taken for"]),
        ("position_ids", torch.arange(4), []),  # versions of a library differ by such
    ],
)
def test_what_one_expert_alone_has_is_told(raw_family, tmp_path, name, value, told):
    """Whatever decided on it: the place of its module, its name, or its numbers."""
    files = {one: load_file(raw_family / f"{one}.safetensors") for one in ("base", "e0", "e1")}
    files = {
        one: {key: value for key, value in tensors.items() if key != "position_ids"}
        for one, tensors in files.items()
    }
    files["e0"][name] = value
    for one, tensors in files.items():
        save_file(tensors, tmp_path / f"{one}.safetensors")
    base, *experts = (Checkpoint.open(tmp_path / f"{one}.safetensors") for one in files)
    family = examine(base, [Expert(f"e{m}", own) for m, own in enumerate(experts)])
    notes = [note for note in family.notes if name.split(".")[0] in note]
    assert len(notes) == len(told)
    assert all(note.startswith(start) for note, start in zip(notes, told, strict=True))
    assert family.roles.get(name, "head") == "head"  # nothing of it is merged
