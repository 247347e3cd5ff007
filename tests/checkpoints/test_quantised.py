"""Quantised weights are told by their companions, in many formats, and named; floats are not."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from mats_core.checkpoints.files import Checkpoint
from mats_core.checkpoints.in_memory import InMemory
from mats_core.checkpoints.quantised import left_over, named_format, quantisation, require_numbers
from mats_core.cli.main import main
from mats_core.errors import InputError

LAYER = "model.layers.0.mlp.up_proj"
I8, I32, U8 = torch.int8, torch.int32, torch.uint8


def packed(shape=(4, 8), dtype=I32):
    return torch.ones(shape, dtype=dtype)


# Companions of LAYER → the word by which the format is named, with and without a configuration.
FORMATS = {
    "GPTQ": ({"qweight": packed(), "qzeros": packed(), "scales": torch.ones(1, 8),
              "g_idx": packed((8,))}, "GPTQ"),
    "AWQ": ({"qweight": packed(), "qzeros": packed(), "scales": torch.ones(1, 8)}, "AWQ"),
    "nf4": ({"weight": packed((32, 1), U8), "weight.absmax": torch.ones(1),
             "weight.quant_map": torch.ones(16),
             "weight.quant_state.bitsandbytes__nf4": packed((8,), U8)}, "bitsandbytes"),
    "LLM.int8": ({"weight": packed(dtype=I8), "SCB": torch.ones(4)}, "bitsandbytes"),
    "HQQ": ({"W_q": packed(dtype=U8), "zero": torch.ones(4), "scale": torch.ones(4)}, "HQQ"),
    "EETQ": ({"weight": packed(dtype=I8), "weight_scales": torch.ones(8)}, "EETQ"),
    "quanto": ({"weight._data": packed(dtype=I8), "weight._scale": torch.ones(4)}, "quanto"),
    "compressed-tensors": ({"weight_packed": packed(), "weight_scale": torch.ones(4),
                            "weight_shape": packed((2,))}, "compressed-tensors"),
    "FP8 cast to floats": ({"weight": torch.ones(4, 8), "weight_scale_inv": torch.ones(1, 1)},
                           "FP8"),
    "AQLM": ({"codes": packed(dtype=I8), "codebooks": torch.ones(2, 4), "scales": torch.ones(4)},
             "AQLM"),
    "MXFP4": ({"gate_up_proj_blocks": packed(dtype=U8), "gate_up_proj_scales": packed(dtype=U8)},
              "MXFP4"),
    "EXL2": ({"q_weight": packed(), "q_scale": packed(), "q_perm": packed((8,))}, "EXL2"),
    "QuIP#": ({"Qidxs": packed(), "SU": torch.ones(4)}, "QuIP#"),
    "int4 of PyTorch": ({"weight_int4pack": packed(), "scales_and_zeros": torch.ones(8, 2)},
                        "packed integers"),
    "SpQR": ({"dense_weights": packed((64,), torch.int64), "in_perm": packed((8,), torch.int64)},
             "packed integers"),
    "integers alone": ({"weight": packed(dtype=I8)}, "packed integers"),
}  # fmt: skip
# Of models in floating point, with integers beside them.
PLAIN = {
    "position ids": {"embeddings.position_ids": packed((1, 8), torch.int64)},
    "a table of positions": {"attn.relative_position_index": packed((9, 9), torch.int64)},
    "counters": {"bn.num_batches_tracked": torch.tensor(3), "bn.scale": torch.ones(4)},
    "a scale of floats": {"attn.scale": torch.ones(4), "attn.weight": torch.ones(4, 4)},
    "layer scales": {"layer.weight_scale": torch.ones(4), "layer.weight": torch.ones(4, 4)},
    "queries scaled": {"attn.q_scale": torch.ones(4), "attn.k_scale": torch.ones(4)},
    "codebooks of sounds": {"quantizer.codebooks": torch.ones(2, 4, 4)},
    "centroids of a pooling": {"pool.centroids": torch.ones(4, 4)},
    "float64": {"fc.weight": torch.ones(4, 4, dtype=torch.float64)},
    "a mask": {"attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.bool)},
}


def folder(place, tensors, config=None):
    place.mkdir(parents=True)
    whole = {"model.norm.weight": torch.ones(8), **tensors}
    save_file(whole, place / "model.safetensors", {"format": "pt"})
    if config is not None:
        (place / "config.json").write_text(json.dumps(config))
    return place


def layer(parts):
    return {f"{LAYER}.{name}": value.clone() for name, value in parts.items()}


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_named_and_refused(tmp_path, name, capsys):
    parts, word = FORMATS[name]
    places = [folder(tmp_path / one, layer(parts)) for one in ("base", "a", "b")]
    assert word.lower() in quantisation(Checkpoint.open(places[0])).lower()
    assert word.lower() in quantisation(InMemory.of(layer(parts), "m")).lower()
    experts = [{"name": p.name, "model": str(p)} for p in places[1:]]
    recipe = {"base": str(places[0]), "experts": experts, "method": "average",
              "output": str(tmp_path / "out")}  # fmt: skip
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    assert main(["merge", str(tmp_path / "r.yaml")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert word.lower() in said.lower()
    assert "Dequantise it first" in said
    assert not (tmp_path / "out").exists()
    assert main(["inspect", str(places[0])]) == 0
    assert "quantised" in capsys.readouterr().out


@pytest.mark.parametrize("name", PLAIN)
def test_floats_with_integers_beside_them_are_none(tmp_path, name):
    config = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    checkpoint = Checkpoint.open(folder(tmp_path / "m", PLAIN[name], config))
    assert quantisation(checkpoint) == ""
    assert left_over(checkpoint) == "quantization_config"
    require_numbers(checkpoint)


def test_the_configuration_names_the_method(tmp_path):
    config = {"quantization_config": {"quant_method": "awq", "bits": 4}}
    parts, _ = FORMATS["AWQ"]
    checkpoint = Checkpoint.open(folder(tmp_path / "m", layer(parts), config))
    assert quantisation(checkpoint).startswith("awq, 4 bits")


def test_an_expert_alone_is_enough(tmp_path, capsys):
    plain = {f"{LAYER}.weight": torch.ones(4, 8)}
    folder(tmp_path / "base", plain)
    folder(tmp_path / "a", layer(FORMATS["nf4"][0]))
    experts = [{"name": "a", "model": "a"}]
    recipe = {"base": "base", "experts": experts, "method": "average", "output": "out"}
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    assert main(["merge", str(tmp_path / "r.yaml")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "bitsandbytes" in said
    assert str(tmp_path / "a") in said


@pytest.mark.parametrize(
    ("kinds", "word"),
    [
        ({"fc.weight": "F8_E4M3", "fc.weight_scale_inv": "F32"}, "FP8"),
        ({"fc.weight": "U32", "fc.scales": "F16", "fc.biases": "F16"}, "MLX"),
        ({"fc.weight": "F8_E5M2"}, "FP8"),
        ({"fc.weight": "F64"}, ""),
        ({"fc.weight": "C64"}, ""),
    ],
)
def test_dtypes_that_are_not_read_are_named_as_well(kinds, word):
    assert word in named_format(kinds)
    assert bool(named_format(kinds)) == bool(word)


def test_what_is_left_over_is_dropped_with_a_note(tmp_path, capsys):
    for number, name in enumerate(("base", "a", "b")):
        tensors = {f"{LAYER}.weight": torch.full((4, 8), float(number))}
        left = {"quant_method": "bitsandbytes", "load_in_4bit": True}
        config = {"model_type": "llama", "torch_dtype": "float16", "quantization_config": left}
        folder(tmp_path / name, tensors, config)
    (tmp_path / "base" / "quantize_config.json").write_text("{}")
    experts = [{"name": name, "model": name} for name in ("a", "b")]
    recipe = {"base": "base", "experts": experts, "method": "average", "output": "out"}
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    assert main(["merge", str(tmp_path / "r.yaml")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "note: 'quantization_config'" in said
    assert "quantize_config.json (of a quantised model)" in said
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written == {"model_type": "llama", "torch_dtype": "float16"}
    assert "quantization_config" in (tmp_path / "out" / "README.md").read_text()
    assert "quantization_config" in (tmp_path / "out" / "report.json").read_text()


LEFT = {"quant_method": "gptq", "bits": 4}
# config.json → the settings in it that speak of quantised weights.
PARTS = {
    "at the top": ({"quantization_config": LEFT}, ["quantization_config"]),
    "of the text": ({"text_config": {"quantization_config": LEFT, "hidden_size": 8}},
                    ["text_config.quantization_config"]),
    "of the pictures": ({"vision_config": {"depth": 2, "quantization_config": LEFT}},
                        ["vision_config.quantization_config"]),
    "twice": ({"quantization_config": LEFT, "text_config": {"compression_config": LEFT}},
              ["quantization_config", "text_config.compression_config"]),
    "of an encoder": ({"encoder": {"model_type": "bert", "quantization_config": LEFT}},
                      ["encoder.quantization_config"]),
    "two below": ({"thinker_config": {"text_config": {"quantization_config": LEFT, "a": 1}}},
                  ["thinker_config.text_config.quantization_config"]),
    "MLX's": ({"text_config": {"quantization": {"bits": 4, "group_size": 64}}},
              ["text_config.quantization"]),
    "none": ({"text_config": {"hidden_size": 8}, "quantization_config": None}, []),
    "another setting": ({"codec": {"quantization": {"levels": 4}}}, []),
}  # fmt: skip


def without(content, names):
    """A configuration without the settings that are named by their way through it."""
    found = json.loads(json.dumps(content))
    for name in names:
        *way, last = name.split(".")
        inner = found
        for part in way:
            inner = inner[part]
        del inner[last]
    return found


@pytest.mark.parametrize("kind", PARTS)
def test_parts_of_a_configuration_are_looked_into(tmp_path, kind, capsys):
    content, names = PARTS[kind]
    content = {"model_type": "llava", **content}
    for number, name in enumerate(("base", "a")):
        folder(tmp_path / name, {f"{LAYER}.weight": torch.full((4, 8), float(number))}, content)
    assert left_over(Checkpoint.open(tmp_path / "base")) == ", ".join(names)
    recipe = {"base": "base", "experts": [{"name": "a", "model": "a"}], "method": "average",
              "output": "out"}  # fmt: skip
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    assert main(["merge", str(tmp_path / "r.yaml")]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in names)
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written == without(content, names)


@pytest.mark.parametrize("kind", [k for k, (_, names) in PARTS.items() if names and k != "MLX's"])
def test_a_part_names_the_method_of_quantised_weights(tmp_path, kind):
    content, _ = PARTS[kind]
    parts, _ = FORMATS["GPTQ"]
    checkpoint = Checkpoint.open(folder(tmp_path / "m", layer(parts), content))
    assert left_over(checkpoint) == ""
    with pytest.raises(InputError, match="quantised ones: gptq, 4 bits"):
        require_numbers(checkpoint)


@pytest.mark.parametrize("shape", [(0,), (0, 8), (4, 0)])
def test_weights_without_elements_are_refused_by_name(tmp_path, shape):
    empty = {f"{LAYER}.weight": torch.zeros(shape)}
    for weights in (InMemory.of(empty, "model"), Checkpoint.open(folder(tmp_path / "m", empty))):
        with pytest.raises(InputError) as caught:
            require_numbers(weights)
        assert f"'{LAYER}.weight' {list(shape)}" in str(caught.value)
        assert "zero_to_fp32.py" in str(caught.value)
