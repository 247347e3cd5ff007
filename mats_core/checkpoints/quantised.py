"""Whether a checkpoint holds weights that can be merged: floating-point numbers, and some of them.

A quantised weight is integers (or eight bits of floating point) that mean nothing without the
scales beside them, so an average of its parts is no average.  Which format it is, is told from the
names of a weight's companions; `quantization_config` alone decides nothing, because it is left
behind where weights were dequantised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ..errors import InputError, listing
from ..names import is_buffer
from .source import Entry, Weights

# The last parts of a name by which formats are told; the first row that occurs is the format.
COMPANIONS: tuple[tuple[str, frozenset[str]], ...] = (
    ("bitsandbytes, 4 bits", frozenset({
        "absmax", "quant_map", "nested_absmax", "nested_quant_map", "bitsandbytes__nf4",
        "bitsandbytes__fp4"})),
    ("bitsandbytes, 8 bits", frozenset({"SCB"})),
    ("GPTQ", frozenset({"g_idx"})),
    ("EXL2", frozenset({"q_invperm", "q_perm", "q_scale_max"})),
    ("EXL3", frozenset({"trellis"})),
    ("HQQ", frozenset({"W_q"})),
    ("QuIP#", frozenset({"Qidxs"})),
    ("quanto", frozenset({"_data"})),
    ("NVFP4 of ModelOpt", frozenset({"weight_scale_2"})),
    ("compressed-tensors", frozenset({
        "weight_packed", "weight_zero_point", "weight_global_scale", "weight_g_idx"})),
    ("FP8 in blocks", frozenset({"weight_scale_inv"})),
    ("AWQ or GPTQ", frozenset({"qweight", "qzeros"})),
    ("torchao", frozenset({"weight_qdata", "_weight_qdata", "qdata"})),
    ("integers of PyTorch", frozenset({"_packed_params"})),
)  # fmt: skip
# These occur in other models as well: they count beside a tensor that is no floating point.
BESIDE: tuple[tuple[str, frozenset[str]], ...] = (
    ("MXFP4", frozenset({"blocks"})),
    ("MLX", frozenset({"biases"})),
    ("EETQ", frozenset({"weight_scales"})),
    ("AQLM", frozenset({"codebooks"})),
    ("VPTQ", frozenset({"centroids", "res_centroids"})),
    ("a format with scales", frozenset({
        "scales", "scale", "weight_scale", "scale_weight", "zero_point", "zeros", "s", "tables"})),
)  # fmt: skip
OWNERS = (
    ".weight",
    ".qweight",
    ".weight_packed",
    ".q_weight",
    ".B",
    ".codes",
    ".indices",
    "_blocks",
)
PLAIN = {"F64", "F32", "F16", "BF16", "BOOL"}
SMALL = ("F8_", "F6_", "F4")  # how the names of narrow floating-point types begin
KEYS = ("quantization_config", "quantization", "compression_config")  # `quantization` is MLX's
SAVE = "save it with save_pretrained, and name that folder"
WAYS = {
    "bitsandbytes": "Dequantise it first: load it with from_pretrained and call "
    f".dequantize(), {SAVE}.",
    "MLX": "Dequantise it first: with mlx_lm.convert --dequantize, and name its output.",
    "FP8": "Dequantise it first: load it with from_pretrained(…, quantization_config="
    f"FineGrainedFP8Config(dequantize=True)), {SAVE}.",
    "MXFP4": "Dequantise it first: load it with from_pretrained(…, quantization_config="
    f"Mxfp4Config(dequantize=True)), {SAVE}.",
    "HQQ": f"Dequantise it first: replace each layer by its W_q.dequantize(), {SAVE}.",
}
WAY = (
    "Dequantise it first: name the model that it was made from, or load it with from_pretrained, "
    f"call .dequantize() where its format has that, {SAVE}."
)


def quantisation(weights: Weights) -> str:
    """The format in which a checkpoint's weights are quantised, by name; "" for plain numbers."""
    kinds = {name: _kind(entry) for name, entry in weights.tensors.items()}
    found = named_format(kinds, weights.config)
    if found:
        return found
    packed = [name for name, entry in weights.tensors.items() if _packed(name, entry)]
    return f"{_said(weights.config) or 'packed integers'} ({listing(packed, 1)})" if packed else ""


def named_format(kinds: Mapping[str, str], config: Mapping[str, Any] | None = None) -> str:
    """The format that tensors' names speak of; `kinds`: safetensors' dtype of each."""
    last: dict[str, str] = {}
    for name in kinds:
        last.setdefault(name.rpartition(".")[2], name)
    said = _said(config or {})
    for title, parts in COMPANIONS:
        if found := sorted(parts & last.keys()):
            return f"{said or title} ({last[found[0]]})"
    for title, parts in BESIDE:
        for part in sorted(parts):
            for name in kinds:
                if _ends(name, part) and _beside_integers(name, part, kinds):
                    return f"{said or title} ({name})"
    small = next((name for name, kind in kinds.items() if kind.startswith(SMALL)), "")
    return f"{said or 'FP' + kinds[small][1]} ({small})" if small else ""


def _ends(name: str, part: str) -> bool:
    return name.endswith((f".{part}", f"_{part}"))


def _beside_integers(name: str, part: str, kinds: Mapping[str, str]) -> bool:
    """Whether the tensor that `part` belongs to, by its name, is no floating point."""
    stem = name[: -len(part) - 1]
    owners = (stem, *(f"{stem}{owner}" for owner in OWNERS))
    return any(kinds.get(owner, "F32") not in PLAIN for owner in owners)


def _kind(entry: Entry) -> str:
    kinds = {
        torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
        torch.bool: "BOOL",
    }  # fmt: skip
    return kinds.get(entry.dtype, "I8" if not entry.dtype.is_floating_point else "F8_E4M3")


def _packed(name: str, entry: Entry) -> bool:
    """Whether a weight is integers, with or without companions."""
    integers = not entry.dtype.is_floating_point and entry.dtype != torch.bool
    weight = "weight" in name.rpartition(".")[2] and entry.elements > 1
    return integers and weight and not is_buffer(name, entry.shape)


def _said(config: Mapping[str, Any]) -> str:
    """The method that a configuration names: `gptq`, `awq`, `bitsandbytes`, …"""
    for name, value in _settings(config):
        to_dict = getattr(value, "to_dict", None)  # of a module in memory
        value = to_dict() if callable(to_dict) else value
        if isinstance(value, Mapping):
            bits = value.get("bits")
            mlx = name.rpartition(".")[2] == "quantization"
            method = value.get("quant_method") or ("MLX" if mlx else "")
            return f"{method}, {bits} bits" if method and bits else str(method)
    return ""


def _settings(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(name, value) of the settings that speak of quantised weights, those of the configurations
    of a model's parts (`text_config`, an encoder) as `part.name`."""
    yield from ((key, config[key]) for key in KEYS if config.get(key))
    for part, inner in _parts(config):
        yield from ((f"{part}.{name}", value) for name, value in _settings(inner))


def _parts(config: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, configuration) of the parts that a model's configuration describes."""
    for key, value in config.items():
        if not isinstance(value, dict) or key in KEYS:
            continue
        if key.endswith("_config") or "model_type" in value:
            yield key, value


def left_over(weights: Weights) -> str:
    """The settings of a `config.json` that speak of quantised weights, over weights that are not
    quantised any more, in a list; "" where there are none."""
    found = ", ".join(name for name, _ in _settings(weights.config))
    return found if found and not quantisation(weights) else ""


def unquantised(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without what it and its parts say of quantised weights."""
    parts = {name: unquantised(inner) for name, inner in _parts(config)}
    return {key: parts.get(key, value) for key, value in config.items() if key not in KEYS}


def way_out(quantised: str) -> str:
    """How a checkpoint of a format is dequantised, in a sentence."""
    return next((way for name, way in WAYS.items() if name in quantised), WAY)


def require_numbers(weights: Weights, thing: str = "") -> None:
    """Raise `InputError` for weights that cannot be computed with: quantised, or without elements.

    `thing` is what the error calls them, by default a checkpoint at its path.
    """
    thing = thing or f"checkpoint '{weights.path}'"
    quantised = quantisation(weights)
    if quantised:
        raise InputError(
            thing,
            expected="weights in floating point",
            found=f"quantised ones: {quantised}",
            remedy=way_out(quantised),
        )
    empty = [
        f"'{weights.own(name)}' {list(entry.shape)}"
        for name, entry in weights.tensors.items()
        if not entry.elements and entry.dtype.is_floating_point
    ]
    if empty:
        raise InputError(
            thing,
            expected="weights with numbers in them",
            found=f"tensors without elements: {listing(empty, 3)}",
            remedy="DeepSpeed's ZeRO-3 leaves such where each process saves its share: gather the "
            "model with `python zero_to_fp32.py FOLDER OUTPUT` from that folder, or train with "
            "stage3_gather_16bit_weights_on_model_save.",
        )
