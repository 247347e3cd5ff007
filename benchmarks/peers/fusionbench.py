"""FusionBench's Fisher merging and RegMean beside ours: same statistics first, then each its own.

`python -m benchmarks.peers.fusionbench FILE` runs in FusionBench's environment, with this
repository on the path, and writes what it finds to FILE as JSON.  FusionBench's functions are
called as they are; what they collect on the way is read where they hand it to their own merging
functions.
"""

from __future__ import annotations

import contextlib
import json
import resource
import statistics as numbers
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from mats_core.methods import METHODS, Layer, LayerStatistics
from mats_core.statistics import measure

EXPERTS, EXAMPLES, LONGEST, CLASSES = 3, 64, 16, 3


# A small family ----------------------------------------------------------------------------------


def family(certainty: float = 20.0) -> tuple[nn.Module, list[nn.Module]]:
    """A BERT of two layers, 32 wide, and three experts around it; nothing is trained.

    `certainty` multiplies the classifier, so that predictions are not all alike.
    """
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=200, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=LONGEST, num_labels=CLASSES,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    torch.manual_seed(0)
    models = [BertForSequenceClassification(config).eval() for _ in range(EXPERTS + 1)]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in models[0].named_parameters():
            if name == "classifier.weight":
                parameter.mul_(certainty)
        for expert in models[1:]:
            for own, base in zip(expert.parameters(), models[0].parameters(), strict=True):
                own.copy_(base + 0.01 * torch.randn(base.shape, generator=generator))
    return models[0], models[1:]


def examples(seed: int, *, padded: bool) -> list[dict[str, Tensor]]:
    """One dictionary an example: random tokens; `padded`: 3 … 16 real ones, the rest zeros."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(EXAMPLES):
        real = int(torch.randint(3, LONGEST + 1, (1,), generator=generator)) if padded else LONGEST
        mask = (torch.arange(LONGEST) < real).long()
        ids = torch.randint(1, 200, (LONGEST,), generator=generator) * mask
        label = torch.randint(CLASSES, (), generator=generator)
        rows.append({"input_ids": ids, "attention_mask": mask, "labels": label})
    return rows


def batches(rows: Sequence[dict[str, Tensor]], size: int) -> Iterator[dict[str, Tensor]]:
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        yield {key: torch.stack([row[key] for row in part]) for key in part[0]}


def ours(model: nn.Module, rows: Sequence[dict[str, Tensor]], size: int = 16) -> dict[str, Tensor]:
    """Our statistics of a model, by name."""

    def pairs() -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        for batch in batches(rows, size):
            labels = batch.pop("labels")
            yield batch, labels

    found = measure(model, pairs())
    read = {name: found.read(name, shape) for name, shape in found.shapes.items()}
    return {name: value for name, value in read.items() if value is not None}


def expected_fisher(model: nn.Module, rows: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean over examples of Σ_c p_c (∂ log p_c)²: the definition, by plain autograd."""
    named = dict(model.named_parameters())
    total = {name: torch.zeros_like(value) for name, value in named.items()}
    for batch in batches(rows, 1):
        logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits
        scores = torch.log_softmax(logits[0], -1)
        for score in scores:
            gradients = torch.autograd.grad(
                score, list(named.values()), retain_graph=True, allow_unused=True
            )
            for name, gradient in zip(named, gradients, strict=True):
                if gradient is not None:
                    total[name] += float(score.detach().exp()) * gradient**2
    return {name: value / len(rows) for name, value in total.items()}


# Driving FusionBench ------------------------------------------------------------------------------


class Trainer:
    """The three things that FusionBench asks of a trainer."""

    def __init__(self, rows: Sequence[dict[str, Tensor]], size: int) -> None:
        self.rows, self._train_batch_size = rows, size

    def get_train_dataloader(self) -> list[dict[str, Tensor]]:
        return list(batches(self.rows, self._train_batch_size))

    def _prepare_inputs(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return inputs


@contextlib.contextmanager
def overheard(module: Any, name: str) -> Iterator[SimpleNamespace]:
    """Notes the keyword arguments of one function of a module, which is called as ever."""
    original, heard = getattr(module, name), SimpleNamespace(arguments={})

    def listen(*arguments: Any, **named: Any) -> Any:
        heard.arguments = named
        return original(*arguments, **named)

    setattr(module, name, listen)
    try:
        yield heard
    finally:
        setattr(module, name, original)


def their_fishers(
    models: Sequence[nn.Module], data: Sequence[Sequence[dict[str, Tensor]]], size: int
) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
    """(each expert's Fisher as FusionBench measures it, what it merges with its defaults)."""
    from fusion_bench.method.fisher_merging import fisher_merging as theirs

    with overheard(theirs, "merging_with_fisher_weights") as heard:
        merged = theirs.fisher_merging(
            list(models), [Trainer(rows, size) for rows in data], [], [EXAMPLES] * len(models)
        )
    return heard.arguments["models_to_merge_fisher_weights_list"], merged


def their_grams(
    models: Sequence[nn.Module], data: Sequence[Sequence[dict[str, Tensor]]]
) -> list[dict[str, Tensor]]:
    from fusion_bench.method.regmean import regmean as theirs

    with (
        overheard(theirs, "merging_with_regmean_weights") as heard,
        contextlib.suppress(
            torch.linalg.LinAlgError  # of its inverse; the Grams were complete by then
        ),
    ):
        theirs.regmean_merging(
            list(models), [Trainer(rows, 16) for rows in data], [], [EXAMPLES] * len(models)
        )
    return heard.arguments["models_to_merge_regmean_weights_list"]


# Comparing ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Experts:
    """The experts' parameters and our statistics of each."""

    base: dict[str, Tensor]
    parameters: list[dict[str, Tensor]]
    statistics: list[dict[str, Tensor]]

    def layer(self, name: str) -> Layer:
        module = name.removesuffix(".weight")
        return Layer(
            name=name,
            base=self.base[name],
            experts=tuple(own[name] for own in self.parameters),
            weights=(1.0,) * len(self.parameters),
            labels=tuple(f"e{m}" for m in range(len(self.parameters))),
            is_matrix=self.base[name].ndim == 2,
            statistics=tuple(
                LayerStatistics(
                    input_gram=own.get(f"{module}.input_gram"), fisher=own.get(f"{name}.fisher")
                )
                for own in self.statistics
            ),
        )

    def double(self) -> Experts:
        """The same numbers in float64."""
        wide = [
            [{n: v.double() for n, v in own.items()} for own in some]
            for some in ([self.base], self.parameters, self.statistics)
        ]
        return Experts(wide[0][0], wide[1], wide[2])

    def merge(self, name: str, method: str, **options: Any) -> Tensor:
        row = METHODS[method]
        return row.merge(self.layer(name), row.options(**options), None).value


def apart(first: dict[str, Tensor], second: dict[str, Tensor], names: Sequence[str]) -> float:
    """‖a − b‖ / ‖a‖ over all the named tensors together."""
    above = sum(float((first[n] - second[n]).double().pow(2).sum()) for n in names)
    return (above / sum(float(first[n].double().pow(2).sum()) for n in names)) ** 0.5


def mean_apart(
    first: Sequence[dict[str, Tensor]], second: Sequence[dict[str, Tensor]], names: Sequence[str]
) -> float:
    return numbers.mean(apart(a, b, names) for a, b in zip(first, second, strict=True))


def differences() -> dict[str, Any]:
    """Every comparison, as plain numbers."""
    base, models = family()
    data = [examples(10 + m, padded=True) for m in range(EXPERTS)]
    plain = {n: p.detach() for n, p in base.named_parameters()}
    own = [{n: p.detach() for n, p in model.named_parameters()} for model in models]
    experts = Experts(plain, own, [ours(m, rows) for m, rows in zip(models, data, strict=True)])
    return {
        "examples": EXAMPLES,
        **_fisher(experts, models, data),
        "certainty": [_certainty(scale, data) for scale in (20.0, 200.0)],
        **_regmean(experts, models, data),
    }


def _fisher(experts: Experts, models: Any, data: Any) -> dict[str, Any]:
    from fusion_bench.method.fisher_merging.fisher_merging import merging_with_fisher_weights

    names = [n for n in experts.base if all(f"{n}.fisher" in s for s in experts.statistics)]
    lists = {n: [own[n] for own in experts.parameters] for n in names}
    fishers = [{n: s[f"{n}.fisher"] for n in names} for s in experts.statistics]
    equal = torch.ones(EXPERTS) / EXPERTS
    ours_ = {n: experts.merge(n, "fisher", floor=0, normalise=False) for n in names}
    default = {n: experts.merge(n, "fisher") for n in names}

    def theirs(**settings: Any) -> dict[str, Tensor]:
        return merging_with_fisher_weights(lists, fishers, equal, **settings)

    alone, together = (their_fishers(models, data, size)[1] for size in (1, 16))
    ours_by_batch = [ours(m, rows, 1) for m, rows in zip(models, data, strict=True)]
    keys = [f"{n}.fisher" for n in names]
    return {
        "fisher_tensors": len(names),
        # Not 0: it would be 0/0 where no expert has a Fisher, such as at words that never came.
        "fisher_same": apart(
            ours_, theirs(normalize_fisher_weight=False, minimal_fisher_weight=1e-30), names
        ),
        "fisher_minimal": apart(ours_, theirs(normalize_fisher_weight=False), names),
        "fisher_defaults": apart(default, theirs(), names),
        "fisher_merge_by_batch": apart(alone, together, names),
        "fisher_ours_by_batch": mean_apart(ours_by_batch, experts.statistics, keys),
    }


def _certainty(scale: float, data: Any) -> dict[str, Any]:
    """FusionBench's Fisher against the definition, by batch size; `scale`: see `family`."""
    _, models = family(scale)
    exact = [expected_fisher(m, rows) for m, rows in zip(models, data, strict=True)]
    names = list(exact[0])
    found = {size: their_fishers(models, data, size)[0] for size in (1, 4, 16)}
    with torch.no_grad():
        tops = [
            model(**{k: v for k, v in batch.items() if k != "labels"}).logits.softmax(-1).amax(-1)
            for model, rows in zip(models, data, strict=True)
            for batch in batches(rows, EXAMPLES)
        ]
    return {
        "top": float(torch.cat(tops).mean()),
        "mass": {size: _mean(_mass, fishers, exact, names) for size, fishers in found.items()},
        "pattern": {size: _mean(_cosine, fishers, exact, names) for size, fishers in found.items()},
    }


def _mean(compare: Callable[..., float], found: Any, exact: Any, names: Sequence[str]) -> float:
    return numbers.mean(compare(a, b, names) for a, b in zip(found, exact, strict=True))


def _cosine(found: dict[str, Tensor], exact: dict[str, Tensor], names: Sequence[str]) -> float:
    """The cosine of two Fishers as one long vector each: 1 where they weigh alike."""
    a, b = (torch.cat([own[n].reshape(-1) for n in names]) for own in (found, exact))
    return float(a @ b / (a.norm() * b.norm()))


def _mass(found: dict[str, Tensor], exact: dict[str, Tensor], names: Sequence[str]) -> float:
    """The sum of all entries of a Fisher as a share of the definition's."""
    return sum(float(found[n].sum()) for n in names) / sum(float(exact[n].sum()) for n in names)


def _regmean(experts: Experts, models: Any, data: Any) -> dict[str, Any]:
    from fusion_bench.method.regmean.regmean import merging_with_regmean_weights

    modules = [
        n.removesuffix(".input_gram") for n in experts.statistics[0] if n.endswith(".input_gram")
    ]
    names = [f"{module}.weight" for module in modules]
    lists = {n: [own[n] for own in experts.parameters] for n in names}
    grams = [{m: s[f"{m}.input_gram"] for m in modules} for s in experts.statistics]

    def theirs(grams: Any) -> dict[str, Tensor]:
        return merging_with_regmean_weights(lists, grams)

    def mine(**options: Any) -> dict[str, Tensor]:
        return {n: experts.merge(n, "regmean", **options) for n in names}

    found = their_grams(models, data)
    full = [examples(20 + m, padded=False) for m in range(EXPERTS)]
    unpadded = [ours(m, rows) for m, rows in zip(models, full, strict=True)]
    unpadded = [{m: s[f"{m}.input_gram"] for m in modules} for s in unpadded]
    masks = [row["attention_mask"].float() for rows in data for row in rows]
    wide = experts.double()
    exact = _theirs(wide, names), {n: wide.merge(n, "regmean", damping=0) for n in names}
    return {
        "regmean_tensors": len(names),
        "regmean_same": apart(*exact, names),
        "regmean_single": apart(exact[0], theirs(grams), names),
        "regmean_single_ours": apart(exact[0], mine(damping=0), names),
        "regmean_off_diagonal": apart(
            {n: wide.merge(n, "regmean", damping=0, off_diagonal=0.9) for n in names},
            _theirs(wide, names, 0.9),
            names,
        ),
        "regmean_defaults": apart(mine(), theirs(grams), names),
        "real_tokens": float(torch.stack(masks).mean()),
        "gram_padded": mean_apart(grams, found, modules),
        "gram_unpadded": mean_apart(unpadded, their_grams(models, full), modules),
        "regmean_padded": _attempt(lambda: apart(mine(damping=0), theirs(found), names)),
        **_singular(experts, models, names),
    }


def _theirs(experts: Experts, names: Sequence[str], ratio: float = 1.0) -> dict[str, Tensor]:
    """FusionBench's RegMean from the experts' own statistics."""
    from fusion_bench.method.regmean.regmean import merging_with_regmean_weights

    lists = {n: [own[n] for own in experts.parameters] for n in names}
    modules = [n.removesuffix(".weight") for n in names]
    grams = [{m: s[f"{m}.input_gram"] for m in modules} for s in experts.statistics]
    return merging_with_regmean_weights(lists, grams, reduce_non_diagonal_ratio=ratio)


def _singular(experts: Experts, models: Any, names: Sequence[str]) -> dict[str, Any]:
    """Fewer tokens than inputs: what either side makes of Grams that cannot be inverted."""
    from fusion_bench.method.regmean.regmean import merging_with_regmean_weights

    few = [ours(m, examples(30 + i, padded=True)[:1]) for i, m in enumerate(models)]
    starved = Experts(experts.base, experts.parameters, few)
    name = next(n for n in names if n.endswith("intermediate.dense.weight"))
    module = name.removesuffix(".weight")
    lists = {name: [own[name] for own in experts.parameters]}
    grams = [{module: s[f"{module}.input_gram"]} for s in few]
    mean = torch.stack(lists[name]).mean(0)

    def away(value: Tensor) -> float:
        return float((value - mean).norm() / mean.norm())

    return {
        "singular_theirs": _attempt(lambda: away(merging_with_regmean_weights(lists, grams)[name])),
        "singular_ours": away(starved.merge(name, "regmean")),
        "experts_apart": numbers.mean(away(own[name]) for own in experts.parameters),
    }


def _attempt(compute: Callable[[], float]) -> float | str:
    try:
        return compute()
    except RuntimeError as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"


# Time and memory ----------------------------------------------------------------------------------


def cost(side: str, method: str, *, width: int = 768, layers: int = 12) -> dict[str, float]:
    """CPU seconds and additional peak memory of merging `layers` square matrices of 3 experts."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    names = [f"layer{index}.weight" for index in range(layers)]

    def drawn() -> Tensor:
        return torch.randn(width, width, generator=generator)

    base = {name: drawn() for name in names}
    own = [{n: base[n] + 0.1 * drawn() for n in names} for _ in range(EXPERTS)]
    measured: list[dict[str, Tensor]] = [{} for _ in own]
    for statistics in measured:
        for name in names:
            module, x = name.removesuffix(".weight"), drawn()
            statistics[f"{module}.input_gram"] = x.T @ x / width + torch.eye(width)
            statistics[f"{name}.fisher"] = drawn() ** 2
    merge = _sides(side, method, Experts(base, own, measured), names)
    before, begun = _peak(), time.process_time()
    merge()
    return {"seconds": time.process_time() - begun, "peak": _peak() - before}


def _sides(side: str, method: str, experts: Experts, names: list[str]) -> Callable[[], Any]:
    if side == "ours":
        options = {"regmean": {"damping": 0}, "fisher": {"floor": 0, "normalise": False}}[method]
        return lambda: {n: experts.merge(n, method, **options) for n in names}
    lists = {n: [own[n] for own in experts.parameters] for n in names}
    return {"regmean": _their_regmean, "fisher": _their_fisher}[method](experts, lists, names)


def _their_regmean(experts: Experts, lists: Any, names: list[str]) -> Callable[[], Any]:
    from fusion_bench.method.regmean.regmean import merging_with_regmean_weights

    ending = ".input_gram"
    grams = [{k.removesuffix(ending): v for k, v in s.items() if k.endswith(ending)}
             for s in experts.statistics]  # fmt: skip
    return lambda: merging_with_regmean_weights(lists, grams)


def _their_fisher(experts: Experts, lists: Any, names: list[str]) -> Callable[[], Any]:
    from fusion_bench.method.fisher_merging.fisher_merging import merging_with_fisher_weights

    fishers = [{n: s[f"{n}.fisher"] for n in names} for s in experts.statistics]
    equal = torch.ones(EXPERTS) / EXPERTS
    return lambda: merging_with_fisher_weights(lists, fishers, equal, False, 0.0)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


if __name__ == "__main__":
    # To a file: FusionBench and its dependencies print what they like.
    place, *what = sys.argv[1:]
    Path(place).write_text(json.dumps(cost(*what) if what else differences()), "utf-8")
