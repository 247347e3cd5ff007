"""Essential Subspace Merging (arXiv 2602.20208): where the outputs move, scaled by what moves them.

Steps and symbols as in the paper; numbers in comments are its published ViT code's.  Step 7 needs
the norms of all layers and runs as a second pass (`layer_factors`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from typing import Annotated

import torch
from torch import Tensor

from ..linear import (
    Gram,
    LowRank,
    copied,
    matrix,
    norms,
    polar,
)
from ..names import group_of
from ..system import Work, forgetful
from .cost import EXACT, Cost, Shape, eigenbasis, gemm, passes, polar_factor, svd_bytes
from .cost import averaged as averaged_cost
from .essential_directions import Remember, essential_subspaces, shift_covariance
from .grams import INPUT, InputSource, costing, with_grams
from .grams import said as said_of
from .layer import Layer, Merged, Show, mean_task_vector, unseen
from .method import Method, but_matrices, never
from .options import Options, Rank, Section, Share, Signed, option
from .stages import TASK_MATRIX, Stage, outcome
from .tsv_m import MEASURED, SCALING, TsvOptions, said, tsv_m
from .tsv_m import cost as tsv_cost

PUBLISHED = "arXiv 2602.20208, ViT code"
POLARIZED = Section(
    "Polarized scaling: what counts more",
    "What moved further in fine-tuning gets more weight: whole tasks, input dimensions, and layers "
    "among their like. Power 0 or off: all alike.",
)
Level = Annotated[
    float, option(low=0, high=4, step=0.25, source=PUBLISHED, section=POLARIZED, switch=True)
]
SYMBOLS = {
    "Eₜ": "the essential directions of expert t: those in which its outputs move most",
    "λₜ": "how far its outputs move along each of them, in the mean square",
    "Sₜ": "what each direction counts, by its λₜ",
    "wₜ": "level 1, what the task counts: its size against the mean of all, to a power",
    "D": "level 2, what each input dimension counts",
    "E⊥": "the directions of all tasks, set at right angles",
    "C⊥": "the coordinates of all tasks, set at right angles",
    "C": "the coordinates of all tasks, one under the other",
    "wₗ": "level 3, what the layer counts among its like",
    "α": "the option scaling",
    "eig": "the leading eigenvectors and eigenvalues",
    "tr": "the trace: the sum of the diagonal",
    "Σ": "the sum of all of them",
    "Δ": "the merged task matrix, before level 3 and scaling",
    "e": "the mean singular value of the directions of all tasks side by side",
    "c": "the mean singular value of the coordinates C",
}


class EssentialOptions(Options):
    """Options of Essential Subspace Merging."""

    scaling: Signed = option(1.5, SCALING, source=MEASURED)
    gram: InputSource = "measured"
    task_power: Level = option(
        2.0,
        "polarized scaling, level 1: tasks with a larger update in a layer weigh more (0: off)",
        label="1 · tasks",
    )
    dimension_power: Level = option(
        2.0,
        "polarized scaling, level 2: input dimensions with larger coordinates weigh more (0: off)",
        label="2 · dimensions",
    )
    layer_power: Level = option(
        2.0,
        "polarized scaling, level 3: layers with a larger update than like layers weigh more "
        "(0: off)",
        label="3 · layers",
    )
    eigenvalue_power: Share = option(
        0.15,
        "weight of the stronger essential directions, (λ/mean λ)^power (0: off)",
        source=PUBLISHED,
        label="Directions",
        more=True,
    )
    rank: Rank = option(
        None, "essential directions a task; ⌊d_out / T⌋ by default", source=PUBLISHED, more=True
    )
    orthogonal: bool = option(
        True,
        "set the directions of different tasks at right angles (the polar step); off: what they "
        "keep of each task is added up as it is",
        source=PUBLISHED,
        label="At right angles",
        more=True,
    )
    centre: bool = option(
        False,
        "centre the output shifts before their principal directions (where A was measured)",
        source=PUBLISHED,
        more=True,
    )


def relative_power(values: Tensor, power: float) -> Tensor:
    """`(v / mean v)^power`; all ones where the mean is zero (nothing moved) or power is 0."""
    if power == 0:
        return torch.ones_like(values)
    mean = values.mean()
    return torch.where(mean > 0, (values / mean).clamp_min(0) ** power, torch.ones_like(values))


def essential_update(
    updates: Sequence[Tensor],
    grams: Sequence[Gram],
    means: tuple[Tensor, ...] | None,
    options: EssentialOptions,
    remember: Remember = forgetful,
    show: Show = unseen,
) -> tuple[Tensor, dict[str, list[float]], str]:
    """Steps 1–6: the merged update of one layer, the weights that tasks and dimensions got, and how
    the polar factors were computed.
    """
    subspace = (options.rank, options.centre, options.gram)
    d_out = updates[0].shape[0]
    rank = min(options.rank or max(1, d_out // len(updates)), d_out)
    sizes = torch.tensor(norms(updates), dtype=torch.float64)
    task_weights = relative_power(sizes, options.task_power).tolist()  # 2
    moments: list[Tensor] = []
    directions, coordinates = [], []
    found = essential_subspaces(updates, grams, rank, means, remember, subspace)  # 1
    for index, (update, (e, eigenvalues)) in enumerate(zip(updates, found, strict=True)):
        moments.append(eigenvalues)
        s = relative_power(eigenvalues, options.eigenvalue_power)  # 3
        s = s / s.mean()
        directions.append(e * s)
        coordinates.append((e.mT @ update) * task_weights[index] * s[:, None])
    _show(show, updates, grams, means, moments)
    show("directions", directions)
    show("task weight", map(sizes.new_tensor, task_weights))
    e_cat, c_cat = torch.cat(directions, 1), torch.cat(coordinates, 0)  # 4
    dimension_weights = relative_power(c_cat.norm(dim=0), options.dimension_power)
    c_cat = c_cat * dimension_weights  # 5
    show("dimension weights", [dimension_weights])
    show("coordinates", [c_cat])
    details = {
        "task_weights": task_weights,
        "dimension_weights": copied(dimension_weights).tolist(),
    }
    if not options.orthogonal:
        return e_cat @ c_cat, details, said([])
    e_o = remember(  # 6
        ("essential polar", subspace, options.eigenvalue_power), lambda: polar(e_cat)
    )
    c_o = polar(c_cat)
    show("right angles", [e_o.factor])
    show("right coordinates", [c_o.factor])
    update = 2 * (e_o.factor * e_o.values.mean()) @ (c_o.factor * c_o.values.mean())
    return update, details, said([e_o.by, c_o.by])


def _show(
    show: Show,
    updates: Sequence[Tensor],
    grams: Sequence[Gram],
    means: tuple[Tensor, ...] | None,
    moments: Sequence[Tensor],
) -> None:
    """Hand over how the outputs move, along which directions, and what these keep of it."""

    def shifts() -> Iterator[Tensor]:
        for update, gram, mean in zip(updates, grams, means or repeat(None), strict=False):
            yield shift_covariance(update, matrix(gram), mean)

    show("shift", shifts())
    show("eigenvalues", moments)
    pairs = zip(moments, shifts(), strict=True)
    show("energy", (own.sum() / shift.diagonal().sum() for own, shift in pairs))


def essential(layer: Layer, options: EssentialOptions, survey: object = None) -> Merged:
    """W = W0 + α Δ before level 3; matrices without statistics fall back to TSV-M."""
    if not layer.is_matrix:
        return mean_task_vector(layer, options.scaling)
    layer = with_grams(layer, options.gram, INPUT)
    grams = layer.grams("input_gram")
    means = layer.measured("input_mean") if centred(options) else None
    if grams is None or (centred(options) and means is None):
        return tsv_m(layer, TsvOptions(scaling=options.scaling))
    # Neither scaling nor level 3 enters here.
    depends = options.model_dump(exclude={"scaling", "layer_power"})
    update, details, status = layer.remember(
        ("essential", layer.signs, tuple(depends.items())),
        lambda: essential_update(
            layer.signed_updates, grams, means, options, layer.remember, layer.show
        ),
    )
    layer.show("sum", [update])
    value = layer.base + options.scaling * update
    if not centred(options) and isinstance(grams[0], LowRank):
        status = f"{status}, Grams in factors"
    status = f"{status}{said_of(options.gram)}"
    return Merged(value, "essential", status=status, details=details)


def centred(options: EssentialOptions) -> bool:
    """Whether output shifts are centred: an update has no mean input."""
    return options.centre and options.gram == "measured"


def reads(options: EssentialOptions) -> frozenset[str]:
    if options.gram == "update":
        return frozenset()
    return INPUT | {"input_mean"} if options.centre else INPUT


def layer_factors(norms: Mapping[str, float], options: EssentialOptions) -> dict[str, float]:
    """Step 7: `(‖Δ_ℓ‖_F / mean over the layers like ℓ)^p_layer` for each layer's name."""
    groups: dict[str, list[str]] = {}
    for name in norms:
        groups.setdefault(group_of(name), []).append(name)
    factors: dict[str, float] = {}
    for names in groups.values():
        values = torch.tensor([norms[name] for name in names], dtype=torch.float64)
        weights = relative_power(values, options.layer_power)
        factors.update(zip(names, weights.tolist(), strict=True))
    return factors


def cost(s: Shape, options: EssentialOptions) -> Cost:
    of_matrices = functools.partial(_cost, options=options)
    return costing(s, options.gram, INPUT, of_matrices)


def _cost(s: Shape, options: EssentialOptions) -> Cost:
    if not s.is_matrix:
        return averaged_cost(s)
    if "input_gram" not in s.measured or (centred(options) and "input_mean" not in s.measured):
        return tsv_cost(s, TsvOptions())
    m, n, t = s.rows, s.columns, s.experts
    r = min(options.rank or max(1, m // t), m)
    kept = 3 * s.nbytes + 2 * t * r * (m + n) * s.width
    if s.ranks[0] and not centred(options):  # k directions a task at most, where A has k rows
        k = s.ranks[0]
        found = min(r, k)
        subspace = gemm(m, k, n, EXACT) + gemm(k, k, m, EXACT) + gemm(m, found, k, EXACT)
        subspace += eigenbasis(min(k, m))
        held = max(8 * (m * n + 3 * t * r * max(m, n)), svd_bytes(found * t, max(m, n)))
    else:
        found = r
        subspace = _subspace_cost(m, n, r) + passes(8 * n * n, 5 if centred(options) else 3)
        held = 8 * (2 * m * n + 2 * n * n + 4 * min(m, n) ** 2)
        held = max(held, svd_bytes(m, r * t) if m > n else svd_bytes(r * t, n))
    work = (subspace + gemm(r, n, m, s.dtype) + s.passes(8)) * t + gemm(m, n, r * t, s.dtype)
    if options.orthogonal:
        work += polar_factor(m, found * t, s.dtype) + polar_factor(found * t, n, s.dtype)
        work += s.passes(12)
    return Cost("merged", work, kept + held)


def _subspace_cost(m: int, n: int, r: int) -> Work:
    """`_whole`: on the smaller side."""
    if m <= n:
        return gemm(m, n, n, EXACT) + gemm(m, m, n, EXACT) + eigenbasis(m)
    return gemm(m, n, n, EXACT) * 2 + gemm(m, min(r, n), n, EXACT) + eigenbasis(n) * 2


STAGES = (
    TASK_MATRIX,
    Stage("shift", "How its outputs move", "Δₜ Aₜ Δₜᵀ", SYMBOLS, ("output", "output"), True),
    Stage(
        "directions",
        "Its essential directions",
        "Eₜ Sₜ, (Eₜ, λₜ) = eig(Δₜ Aₜ Δₜᵀ)",
        SYMBOLS,
        ("output", "direction"),
        True,
    ),
    Stage("eigenvalues", "How far outputs move along them", "λₜ", SYMBOLS, ("", "direction"), True),
    Stage("energy", "What they keep of it", "Σ λₜ / tr(Δₜ Aₜ Δₜᵀ)", SYMBOLS, ("", ""), True),
    Stage("task weight", "Level 1: what the task counts", "wₜ", SYMBOLS, ("", ""), True),
    Stage("dimension weights", "Level 2: what input dimensions count", "D", SYMBOLS, ("", "input")),
    Stage(
        "coordinates",
        "Coordinates of all tasks",
        "C = [ wₜ Sₜ Eₜᵀ Δₜ D ]",
        SYMBOLS,
        ("direction", "input"),
    ),
    Stage("right angles", "Directions at right angles", "E⊥", SYMBOLS, ("output", "direction")),
    Stage(
        "right coordinates", "Coordinates at right angles", "C⊥", SYMBOLS, ("direction", "input")
    ),
    Stage("sum", "Merged task matrix", "Δ = 2 e c E⊥ C⊥", SYMBOLS),
    Stage("layer weight", "Level 3: what the layer counts", "wₗ", SYMBOLS, ("", "")),
    outcome("W = W₀ + wₗ α Δ", **SYMBOLS),
)

METHOD = Method(
    name="essential",
    title="Essential Subspace Merging",
    group="statistics",
    summary="Keeps the directions in which each expert really moves its outputs, and lets "
    "strong tasks, dimensions and layers count more.",
    formula=r"W = W_0 + 2\alpha\, w_\ell\, E_\perp C_\perp,\quad "
    r"E = [E_t S_t]_t,\quad C = [w_t\, S_t E_t^\top \Delta_t\, D]_t,\quad "
    r"(E_t, \lambda_t) = \mathrm{eig}_r(\Delta_t A_t \Delta_t^\top),\quad "
    r"S_t \propto \mathrm{diag}(\lambda_t)^{0.15},\quad "
    r"w_t = (\|\Delta_t\| / \mathrm{mean})^{p_1},\quad "
    r"D = \mathrm{diag}(\|c_i\| / \mathrm{mean})^{p_2},\quad "
    r"w_\ell = (\|\Delta_\ell\| / \mathrm{mean})^{p_3}",
    source="arXiv 2602.20208",
    options=EssentialOptions,
    merge=essential,
    cost=cost,
    short="ESM",
    pieces=but_matrices,
    reads=reads,
    rescale=layer_factors,
    stages=STAGES,
    weighted=False,
    normalises=never,
    factored=True,
    fallback="tsv_m",
)
