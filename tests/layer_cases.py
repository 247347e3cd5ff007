"""Random layers with the data that their statistics come from, in float64.

Inputs are mixed by a matrix with singular values between 0.5 and 2, so that every Gram's condition
number stays below 16 times that of the sample; the seed is in every failing test's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from mats_core.methods.layer import Layer, LayerStatistics, Merged
from mats_core.methods.table import METHODS
from mats_core.recipes.recipe import Recipe, parse_recipe
from mats_core.statistics.store import Statistics
from tests.method_cases import CASES

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Case:
    """A layer, and each expert's inputs x (N, d_in) and output gradients g (N, d_out)."""

    layer: Layer
    inputs: tuple[Tensor, ...]
    gradients: tuple[Tensor, ...]

    @property
    def grams(self) -> list[Tensor]:
        return [x.T @ x / len(x) for x in self.inputs]

    @property
    def output_grams(self) -> list[Tensor]:
        return [g.T @ g / len(g) for g in self.gradients]

    @property
    def fishers(self) -> list[Tensor]:
        return [
            (g**2).T @ (x**2) / len(x) for x, g in zip(self.inputs, self.gradients, strict=False)
        ]

    def with_weights(self, *weights: float) -> Case:
        return replace(self, layer=replace(self.layer, weights=weights))


def mixing(size: int, generator: torch.Generator) -> Tensor:
    """A square matrix with singular values between 0.5 and 2."""
    q = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator))[0]
    p = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator))[0]
    return (q * torch.linspace(0.5, 2, size, dtype=torch.float64)) @ p


def random_case(
    seed: int, *, d_out: int = 6, d_in: int = 5, experts: int = 3, tokens: int = 60
) -> Case:
    """A layer with `experts` experts; statistics from `tokens` tokens each, exactly."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    base = randn(d_out, d_in)
    layer = Layer(
        name="block.0.fc1.weight",
        base=base,
        experts=tuple(base + (0.2 + 0.2 * m) * randn(d_out, d_in) for m in range(experts)),
        weights=(1.0,) * experts,
        labels=tuple(f"expert{m}" for m in range(experts)),
        is_matrix=True,
    )
    inputs = tuple(
        randn(tokens, d_in) @ mixing(d_in, generator) + 0.3 * randn(d_in) for _ in range(experts)
    )
    gradients = tuple(
        (0.5 + m) * randn(tokens, d_out) @ mixing(d_out, generator) for m in range(experts)
    )
    case = Case(layer, inputs, gradients)
    statistics = tuple(
        LayerStatistics(input_gram=a, input_mean=x.mean(0), output_gradient_gram=b, fisher=f)
        for a, b, f, x in zip(case.grams, case.output_grams, case.fishers, inputs, strict=False)
    )
    prior = LayerStatistics(fisher=randn(d_out, d_in) ** 2)
    return replace(case, layer=replace(layer, statistics=statistics, base_statistics=prior))


def with_statistics(case: Case, **tensors: Sequence[Tensor | None]) -> Layer:
    """The case's layer with some kinds of statistics replaced, one tensor an expert."""
    statistics = tuple(
        replace(own, **{kind: values[m] for kind, values in tensors.items()})
        for m, own in enumerate(case.layer.statistics)
    )
    return replace(case.layer, statistics=statistics)


def enough(layer: Layer, method: str) -> Layer:
    """The layer with no more experts than the method takes."""
    most = METHODS[method].experts
    return replace(
        layer,
        experts=layer.experts[:most],
        weights=layer.weights[:most],
        labels=layer.labels[:most],
        statistics=layer.statistics[:most],
    )


def merged(layer: Layer, method: str, survey: Any = None, **options: Any) -> Merged:
    """What a method makes of one layer, by its published formula unless told.

    Defaults come from measurements and may change; the oracles here are of the formulas.
    """
    row = METHODS[method]
    options = {**CASES[method].formula, **options}
    return row.merge(layer, row.options(**options), survey)


def value(layer: Layer, method: str, **options: Any) -> Tensor:
    return merged(layer, method, **options).value


def close(actual: Tensor, expected: Any, tolerance: float = 1e-9) -> None:
    """Assert that two tensors agree to `tolerance`, relative to the norm of the expected one."""
    expected = torch.as_tensor(expected, dtype=torch.float64)
    assert actual.shape == expected.shape
    error = float((actual.double() - expected).norm() / expected.norm().clamp_min(1e-300))
    assert error <= tolerance, f"relative error {error:.3g} above {tolerance:g}"


def write_raw(folder: Path, name: str, tensors: Mapping[str, Tensor]) -> str:
    """A bare .safetensors file; returns its name."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / name)
    return name


def raw_recipe(
    folder: Path,
    base: Mapping[str, Tensor],
    experts: Sequence[Mapping[str, Tensor]],
    method: str,
    options: Mapping[str, Any] | None = None,
    *,
    statistics: Sequence[Mapping[str, Tensor]] = (),
    **settings: Any,
) -> Recipe:
    """A recipe over bare files that are written into `folder`, in float64 by default."""
    write_raw(folder, "base.safetensors", base)
    entries = []
    for m, tensors in enumerate(experts):
        entry = {"name": f"e{m}", "model": write_raw(folder, f"e{m}.safetensors", tensors)}
        if statistics:
            entry["statistics"] = f"e{m}.stats.safetensors"
            Statistics.of(statistics[m], {}).save(folder / entry["statistics"])
        entries.append(entry)
    content = {
        "base": "base.safetensors",
        "experts": entries,
        "method": method,
        "options": dict(options or {}),
        "dtype": "float64",
        **settings,
    }
    return parse_recipe(content, folder)
