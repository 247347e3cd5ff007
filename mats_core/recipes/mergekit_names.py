"""mergekit's names and ours: what each merge method and each parameter of it is here.

Checked against mergekit 0.1.5.  `docs/mergekit.md` shows these tables, and a test compares both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["needed", "an expert too", "refused"]


@dataclass(frozen=True)
class There:
    """A merge method of mergekit.

    ours       the method that it is here; "" for none
    sentence   how the two agree, or why there is none
    options    mergekit's parameter → the option here
    fixed      options that are set whatever the file says
    defaults   mergekit's parameters with their defaults, but for the weight
    weights    whether it takes a weight of each model
    base       what its `base_model` is
    models     how many models it merges beside a needed base; None: any number
    """

    ours: str
    sentence: str
    options: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    weights: bool = False
    base: Kind = "needed"
    models: int | None = None


SUM = {"normalize": False, "rescale": False, "lambda": 1.0, "density": 1.0}
MEAN = {**SUM, "normalize": True}
KEPT = {"density": "density", "lambda": "scaling", "normalize": "normalise"}
CRUMBS = {**KEPT, "gamma": "gamma"}
DROPPED = {**KEPT, "epsilon": "epsilon"}
OTHER_MASKS = "The same probabilities and the same rescaling, but other random masks."
DARE = (
    "DELLA with no window is mergekit's DARE, which restores the L1 norm; the method `dare` here "
    "divides by 1 − p, as the paper does. The random masks are others."
)

THERE: Mapping[str, There] = {
    "linear": There(
        "average", "The same weighted mean.", defaults={"normalize": True}, weights=True,
        base="an expert too",
    ),
    "slerp": There(
        "slerp", "The same arc, from `base_model` to the other model.", {"t": "t"},
        defaults={"t": None}, models=1,
    ),
    "nuslerp": There(
        "slerp", "The same arc, whose `t` follows from the two weights, on whole tensors and "
        "without a base model.", fixed={"parallel": 0.999999},
        defaults={"nuslerp_flatten": True, "nuslerp_row_wise": False}, weights=True,
        base="refused", models=2,
    ),
    "multislerp": There(
        "karcher", "The start of the Karcher mean, no step from it: projected once to the tangent "
        "space of the mean direction, the tensors' mean is that direction.",
        fixed={"iterations": 0}, defaults={"normalize_weights": True, "eps": 1e-8}, weights=True,
        base="refused",
    ),
    "karcher": There(
        "karcher", "The same mean, of models that count the same.",
        {"max_iter": "iterations", "tol": "tolerance"}, defaults={"max_iter": 10, "tol": 1e-5},
        base="an expert too",
    ),
    "task_arithmetic": There(
        "task_arithmetic", "The same sum; with `normalize: true` it is `average`, or `breadcrumbs` "
        "that keeps everything.", {"lambda": "scaling"},
        defaults={"normalize": False, "lambda": 1.0}, weights=True,
    ),
    "ties": There(
        "ties", "The same, trimmed within each tensor; with `normalize: false` it is `breadcrumbs` "
        "that elects signs and drops no outliers.", {"density": "density", "lambda": "scaling"},
        {"scope": "tensor"}, MEAN, weights=True,
    ),
    "dare_linear": There(
        "della", DARE, KEPT, {"epsilon": 0.0, "elect": False}, {**SUM, "rescale": True},
        weights=True,
    ),
    "dare_ties": There(
        "della", DARE, KEPT, {"epsilon": 0.0, "elect": True}, {**SUM, "rescale": True},
        weights=True,
    ),
    "della": There(
        "della", OTHER_MASKS, DROPPED, {"elect": True},
        {**MEAN, "rescale": True, "epsilon": 0.15}, weights=True,
    ),
    "della_linear": There(
        "della", OTHER_MASKS, DROPPED, {"elect": False},
        {**SUM, "rescale": True, "epsilon": 0.15}, weights=True,
    ),
    "breadcrumbs": There(
        "breadcrumbs", "The same shares of each tensor.", CRUMBS, {"elect": False},
        {**SUM, "gamma": 0.01}, weights=True,
    ),
    "breadcrumbs_ties": There(
        "breadcrumbs", "The same, with elected signs.", CRUMBS, {"elect": True},
        {**SUM, "gamma": 0.01}, weights=True,
    ),
    "model_stock": There(
        "model_stock", "The same, but where the norms of two updates multiply to less than 1e-6, "
        "whose cosine mergekit takes for smaller.", {"filter_wise": "by_row"},
        defaults={"filter_wise": False},
    ),
    "sce": There(
        "sce", "The same, with mergekit's limit below which experts count the same.",
        {"select_topk": "select"}, {"floor": 1e-6}, {"select_topk": 1.0},
    ),
    "passthrough": There(
        "", "It copies layers, and stacks those of several models: here a merge has the layers of "
        "its base, and every tensor is merged with those of the same name.",
    ),
    "arcee_fusion": There(
        "", "Its threshold is one on a softmax of the weights' rows, which has no meaning for "
        "them that we know; `sce` and `ties` select entries by their updates.",
    ),
    "nearswap": There(
        "", "It moves the base towards one model where both are near, which keeps what the two "
        "share and loses what was learned; `ties` and `consensus` decide by the updates.",
    ),
    "ram": There(
        "", "It averages where updates overlap and adds where they do not, by a threshold on their "
        "size; `consensus` is the nearest method.",
    ),
    "ramplus_tl": There(
        "", "It averages where updates overlap and enlarges where they do not, by a threshold on "
        "their size; `consensus` is the nearest method.",
    ),
}  # fmt: skip

# Everything else that a file may say → what becomes of it here.
PARAMETERS: Mapping[str, str] = {
    "weight": "`weight` of an expert; by filters or gradients, rules of `by`",
    "density": "`density`, one for all models",
    "gamma": "`gamma`, one for all models",
    "epsilon": "`epsilon`, one for all models",
    "lambda": "`scaling`",
    "normalize": "`normalise`, or another method (above)",
    "rescale": "`rescale` of `della`: `l1` or `none`; refused elsewhere",
    "t": "`t`",
    "max_iter": "`iterations`",
    "tol": "`tolerance`",
    "filter_wise": "`by_row`",
    "select_topk": "`select`",
    "int8_mask": "nothing: it only saves memory there",
    "nuslerp_flatten": "only `true`, its default: an arc of whole tensors",
    "nuslerp_row_wise": "only `false`, its default",
    "normalize_weights": "only `true`, its default",
    "eps": "nothing: a guard against division by zero",
    "scale": "of `passthrough`, which has no counterpart",
    "r": "of `ramplus_tl`, which has no counterpart",
    "alpha": "of `ramplus_tl`, which has no counterpart",
}
EACH = {"weight", "density", "gamma", "epsilon"}  # that may be given for each model
KEYS: Mapping[str, str] = {
    "merge_method": "`method`",
    "base_model": "`base`; where it is missing, the first model",
    "models": "`experts`, without the base where it is only that",
    "slices": "one slice of all layers is read like `models`; others have no counterpart: a merge "
    "here has the layers of its base",
    "modules": "no counterpart: models of several parts are merged as a whole",
    "parameters": "options, and rules of `by` for filters and gradients; of several filters the "
    "first that matches wins there, and so it does here",
    "dtype": "`output_dtype`; the arithmetic is float32 (or `dtype: float64` of a recipe)",
    "out_dtype": "`output_dtype`",
    "tokenizer_source": "`base` is what is done here; tokens that only some models have are not "
    "merged, and models with other vocabularies are refused",
    "tokenizer": "as `tokenizer_source`, where it says no more than `source`",
    "chat_template": "nothing: the base's files are copied as they are",
}
DTYPES = {"float32", "float64", "bfloat16", "float16"}


def rows() -> dict[str, list[str]]:
    """The rows of the page's three tables: methods, parameters, keys."""
    return {
        "methods": [
            f"| `{name}` | {f'`{own.ours}`' if own.ours else 'none'} | {own.sentence} |"
            for name, own in THERE.items()
        ],
        "parameters": [f"| `{name}` | {text} |" for name, text in PARAMETERS.items()],
        "keys": [f"| `{name}` | {text} |" for name, text in KEYS.items()],
    }
