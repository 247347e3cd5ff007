"""Opening an adapter directory over its base: every module matched, every shape checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import models
from ..checkpoints import Checkpoint, Entry, Weights, require_numbers
from ..errors import InputError, listing
from ..names import CONV1D_MODELS, is_conv1d, module_of
from .changes import Change, LowRank, Replaced, Scaled, Shifted
from .parts import sort_out, translate
from .settings import CONFIG, MERGE_FIRST, WEIGHTS, Settings, is_adapter, read_settings
from .view import Adapted, Vector

WHOLE = ("model.safetensors", "model.safetensors.index.json")


def open_expert(path: str | Path, base: Weights | str | Path | None) -> Weights:
    """A checkpoint, or an adapter over `base` (opened only if it is needed).

    Raises `InputError` for what `Checkpoint.open` refuses, for an adapter of another method (by
    name), and for one that does not fit the base (naming what does not match).
    """
    path = Path(path)
    if base is None or not is_adapter(path):
        return Checkpoint.open(path)  # which refuses an adapter without its base
    return open_adapter(path, Checkpoint.open(base) if isinstance(base, str | Path) else base)


def open_adapter(path: Path, base: Weights) -> Adapted:
    """An adapter directory over its base."""
    settings, source = read_settings(path), _weights(path)
    require_numbers(base, f"base '{base.path}'")
    return _Fitting(path, base, source, settings, dict(base.tensors)).adapted()


def _weights(path: Path) -> Checkpoint:
    """The tensors in the file of the adapter."""
    whole = [name for name in WHOLE if (path / name).exists()]
    if whole:
        raise InputError(
            f"'{path}'",
            expected="an adapter or a whole checkpoint",
            found=f"both: adapter_config.json and {whole[0]}",
            remedy="Move one of the two out of the folder.",
        )
    for name in (WEIGHTS, "adapter_model.bin"):  # which is refused, with the command to convert it
        if (path / name).is_file():
            return Checkpoint.open(path / name)
    raise InputError(
        f"adapter '{path}'",
        expected=WEIGHTS,
        found="no such file",
        remedy="Save the adapter with save_pretrained.",
    )


def _renamed(base: Weights) -> Mapping[str, str]:
    """transformers' names of the base's parameters → the file's; empty for what it cannot build."""
    try:
        like = {name: torch.empty(e.shape, device="meta") for name, e in base.tensors.items()}
        return models.parameter_names(base.directory, like)
    except InputError:
        return {}


@dataclass(frozen=True)
class _Fitting:
    """Putting an adapter on its base, with every shape checked; `tensors` become the whole's."""

    path: Path
    base: Weights
    source: Checkpoint
    settings: Settings
    tensors: dict[str, Entry]

    def adapted(self) -> Adapted:
        tensors, changes = self.tensors, dict[str, tuple[Change, ...]]()
        parts = sort_out(self.source.tensors, f"adapter '{self.path}'")
        thing = f"adapter '{self.path}' on the base '{self.base.path}'"
        modules = sorted(parts.modules)
        translation = translate(modules, self.base.tensors, lambda: _renamed(self.base), thing)
        for own, key in parts.whole.items():
            name = translation.parameter(own, self.base.tensors)
            tensors[name] = self.source.tensors[key]
            changes[name] = (Replaced(key),)
        vectors: dict[str, Vector] = {}
        for module, keys in parts.modules.items():
            weight = translation.parameter(f"{module}.weight", self.base.tensors)
            if not tensors[weight].dtype.is_floating_point:
                raise self._misfit(module, "a floating-point weight", f"{tensors[weight].dtype}")
            if self.settings.kind == "ia3":
                vector = self._vector(module, keys, weight)
                vectors[f"{module_of(weight)}.ia3_l"] = vector
                found = {name: Scaled(vector.key, axis) for name, axis in vector.scales.items()}
            else:
                found = self._low_rank(module, keys, weight)
            for name, change in found.items():
                changes[name] = (*changes.get(name, ()), change)
        return Adapted(
            self.path,
            dict(sorted(tensors.items())),
            self.source.metadata,
            base=self.base,
            source=self.source,
            settings=self.settings,
            changes=changes,
            vectors=dict(sorted(vectors.items())),
        )

    def _low_rank(
        self, module: str, keys: Mapping[str, str], weight: str
    ) -> Mapping[str, LowRank | Shifted]:
        embedding = "lora_embedding_A" in keys
        names = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A", "lora_B")
        missing = [name for name in names if name not in keys]
        if missing:
            raise self._misfit(module, " and ".join(names), f"no {listing(missing)}")
        a, b = (keys[name] for name in names)
        shapes = self.source.tensors[a].shape, self.source.tensors[b].shape
        own = self.tensors[weight].shape
        rank, scale = self.settings.rank_of(module), self.settings.scale_of(module)
        if shapes[0][:1] != (rank,) or shapes[1][1:2] != (rank,):
            raise self._misfit(module, f"rank {rank}, as {CONFIG} says", _shown(*shapes))
        transposed = embedding or self._transposed(module, own)
        d_out, d_in = shapes[1][0], shapes[0][1:]
        product = (*d_in, d_out) if transposed else (d_out, *d_in)
        if product != own:
            raise self._misfit(module, f"factors of a weight {list(own)}", _shown(*shapes))
        found: dict[str, LowRank | Shifted] = {weight: LowRank(a, b, scale, transposed)}
        if "lora_B.bias" in keys:
            bias = f"{module_of(weight)}.bias"
            if bias not in self.tensors:
                raise self._misfit(module, "a bias to add lora_bias to", "none in the base")
            found[bias] = Shifted(keys["lora_B.bias"], scale)
        return found

    def _vector(self, module: str, keys: Mapping[str, str], weight: str) -> Vector:
        if "ia3_l" not in keys:
            raise self._misfit(module, "ia3_l", listing(sorted(keys)))
        key = keys["ia3_l"]
        shape, own = self.source.tensors[key].shape, self.tensors[weight].shape
        transposed = self._transposed(module, own)
        if len(own) != 2 or len(shape) != 2 or 1 not in shape:
            expected = "a vector (d, 1) or (1, d) on a linear layer"
            raise self._misfit(module, expected, _shown(shape, own))
        # peft writes (1, d_in) for a vector on the input (`feedforward_modules`), (d_out, 1) else.
        side = "input" if shape[0] == 1 else "output"
        axis = (side == "input") != transposed
        size = shape[0] * shape[1]
        if own[axis] != size:
            raise self._misfit(module, f"an {side} vector of {own[axis]}", f"one of {size}")
        scales = {weight: int(axis)}
        bias = f"{module_of(weight)}.bias"
        if side == "output" and bias in self.tensors:
            scales[bias] = 0
        return Vector(key, size, side, scales)

    def _transposed(self, module: str, shape: tuple[int, ...]) -> bool:
        """Whether the base stores this weight as (d_in, d_out).

        peft corrects its `fan_in_fan_out` module by module and saves the last one's; what is known
        of the architecture goes first.
        """
        model = str(self.base.config.get("model_type"))
        if model in CONV1D_MODELS:
            return is_conv1d(f"{module}.weight", shape, (model,))
        return len(shape) == 2 and self.settings.transposed

    def _misfit(self, module: str, expected: str, found: str) -> InputError:
        return InputError(
            f"'{module}' of adapter '{self.path}'",
            expected=expected,
            found=found,
            remedy=f"Is '{self.base.path}' the base that it was trained on? {MERGE_FIRST}",
        )


def _shown(*shapes: tuple[int, ...]) -> str:
    return "shapes " + " and ".join(str(list(shape)) for shape in shapes)
