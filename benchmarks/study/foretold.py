"""What can be known of a pair of experts before they are merged, beside what merging them costs.

Every pair is merged by several methods and tested; the candidates for a forecast are computed from
weights, from statistics, or from a few inputs of each task without their labels.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from mats_core import models, tasks
from mats_core.analysis import predicted_loss
from mats_core.evaluation import evaluate
from mats_core.families import Expert, Family
from mats_core.methods import METHODS
from mats_core.names import module_of
from mats_core.recipes import Inputs
from mats_core.statistics import drawn_rows

from .trials import Bench, Trial

INPUTS = 64  # a task, without labels
MERGES: Mapping[str, Mapping[str, Any]] = {
    "average": {}, "tsv_m": {}, "kfac": {}, "task_arithmetic": {"scaling": 0.7},
}  # fmt: skip
# Test examples a task, and which merges are measured; on texts fewer, which take longer.
ASKED: Mapping[str, tuple[int, tuple[str, ...]]] = {
    "sample": (400, tuple(MERGES)),
    "vision": (400, tuple(MERGES)),
    "text": (512, ("average", "tsv_m")),
}
# A candidate → (what it is, what it needs and costs).
CANDIDATES: Mapping[str, tuple[str, str]] = {
    "cosine": ("cosine of the updates", "weights"),
    "signs": ("share of the updates' mass with the other sign", "weights"),
    "quadratic": ("quadratic loss of the average, at the experts", "statistics, labels"),
    "cross": ("tr(A_t Δ_sᵀ B_t Δ_s)", "statistics, labels"),
    "gradient": ("gradient of t at the base against Δ_s", "32 inputs, a backward pass a task"),
    "half features": ("feature error of t's update halved", "64 inputs, 2 passes a task"),
    "half moved": ("answers moved when t's update is halved", "64 inputs, 2 passes a task"),
    "average features": ("feature error of the pair's average", "64 inputs, 2 passes a pair"),
    "average moved": ("answers moved by the pair's average", "64 inputs, 2 passes a pair"),
    "average divergence": ("divergence of the average's answers", "64 inputs, 2 passes a pair"),
    "probe features": ("feature error of TSV-M of the pair", "64 inputs, a merge, 2 passes a pair"),
    "probe divergence": ("divergence of TSV-M's answers", "64 inputs, a merge, 2 passes a pair"),
    "probe moved": (
        "**answers moved by TSV-M of the pair**", "64 inputs, a merge, 2 passes a pair",
    ),
}  # fmt: skip


def file(results: Path, name: str) -> Path:
    """The file of a family's pairs."""
    return results / "pairs" / f"{name}.json"


class Known:
    """One expert on inputs of its task, and on the test examples that measure a merge.

    bench   of the family, with the inputs of all experts opened
    asked   test examples
    """

    def __init__(self, family: Family, expert: Expert, folder: Path, asked: int) -> None:
        self.family, self.expert = family, expert
        task = evaluate.check_task(expert, tasks.load(expert.task, root=folder)).task
        self.few = task.train.take(drawn_rows(len(task.train), INPUTS, 0))
        self.test = task.test.first(asked)
        self.own = models.tensors_of(expert.checkpoint)
        self.answers, self.features = self.seen(self.own)
        self.accuracy, self.loss = self.measured(self.own)
        self.update = {name: self.own[name] - base for name, base in base_of(family).items()}
        halved = {n: v + self.update[n] / 2 for n, v in base_of(family).items()}
        self.half = self.against({**models.tensors_of(family.base), **halved})
        # How the loss by its own answers falls along any update, from the base.
        self.gradient = self._gradient()

    def seen(self, encoder: Mapping[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
        """Class probabilities and features of an encoder on the few inputs."""
        odds = evaluate.probabilities(encoder, self.family, self.expert, self.few)
        return odds.astype(float), evaluate.features(encoder, self.family, self.expert, self.few)

    def against(self, encoder: Mapping[str, Tensor]) -> dict[str, float]:
        """How far an encoder's answers and features are from the expert's."""
        odds, features = self.seen(encoder)
        base = self.seen(models.tensors_of(self.family.base))[1]
        logs = np.log(self.answers + 1e-12) - np.log(odds + 1e-12)
        return {
            "moved": float(abs(odds - self.answers).sum(1).mean() / 2),
            "divergence": float((self.answers * logs).sum(1).mean()),
            "features": _square(features - self.features) / _square(base - self.features),
        }

    def measured(self, encoder: Mapping[str, Tensor]) -> tuple[float, float]:
        """Accuracy and mean cross-entropy on the test examples."""
        tensors = evaluate.with_head(encoder, self.family, self.expert)
        said = evaluate.asked(self.expert.checkpoint.directory, tensors, self.test).double()
        labels = torch.from_numpy(self.test.labels)
        right = float((said.argmax(1) == labels).double().mean())
        return right, float(torch.nn.functional.cross_entropy(said, labels))

    def _gradient(self) -> dict[str, Tensor]:
        family, expert = self.family, self.expert
        tensors = evaluate.with_head(models.tensors_of(family.base), family, expert)
        leaves = {name: tensors[expert.own(name)].requires_grad_() for name in matrices(family)}
        rows = models.encode(self.few, expert.checkpoint.directory)
        forward = models.forward(expert.checkpoint.directory, tensors)
        places = np.arange(INPUTS // 2)
        said = models.ask(lambda inputs: forward(tensors, inputs), rows, self.few, places)
        goal = torch.from_numpy(self.answers[places]).to(said.dtype)
        loss = -(goal * said.log_softmax(-1)).sum(1).mean()
        found = torch.autograd.grad(loss, list(leaves.values()))
        return dict(zip(leaves, found, strict=True))


def base_of(family: Family) -> dict[str, Tensor]:
    """What is merged of the base, as float32."""
    whole = models.tensors_of(family.base)
    return {name: whole[name] for name in family.shared if whole[name].is_floating_point()}


def matrices(family: Family) -> list[str]:
    return [name for name, role in family.roles.items() if role == "matrix"]


def _square(values: np.ndarray) -> float:
    return float((values.astype(float) ** 2).sum(1).mean())


def dot(first: Mapping[str, Tensor], second: Mapping[str, Tensor], names: Sequence[str]) -> float:
    return sum(float((first[n].double() * second[n].double()).sum()) for n in names)


def run(bench: Bench, results: Path, name: str) -> None:
    """Keep the pairs of a family, unless they are kept."""
    if not (there := file(results, name)).exists():
        keep(there, pairs(bench, *ASKED[name]))


def keep(there: Path, found: Mapping[str, Any]) -> None:
    """Write the pairs of a family."""
    there.parent.mkdir(parents=True, exist_ok=True)
    there.write_text(json.dumps(found, indent=0, sort_keys=True) + "\n", "utf-8")


def pairs(bench: Bench, asked: int, methods: Sequence[str]) -> dict[str, Any]:
    """Every pair of a family: what is known before, and what each merge lost."""
    inputs = bench.inputs(Trial("kfac"))
    family, names = inputs.family, matrices(inputs.family)
    known = {
        e.name: Known(family, e, bench.collection.folder, asked) for e in inputs.family.experts
    }
    found = []
    for t, s in itertools.combinations(known, 2):
        made = {method: _merged(bench, method, (t, s)) for method in {*methods, "tsv_m"}}
        one: dict[str, Any] = {"pair": [t, s], "lost": {}, "rise": {}, "candidates": {}}
        for a, b in ((t, s), (s, t)):
            for key, value in _candidates(known[a], known[b], made, names).items():
                one["candidates"][key] = one["candidates"].get(key, 0.0) + value / 2
            for method in methods:
                right, loss = known[a].measured(made[method])
                fall = 1 - right / known[a].accuracy
                one["lost"][method] = one["lost"].get(method, 0.0) + 50 * fall
                one["rise"][method] = one["rise"].get(method, 0.0) + (loss - known[a].loss) / 2
        places = {e.name: i for i, e in enumerate(family.experts)}
        one["candidates"]["cross"] = (_cross(inputs, known, t, s) + _cross(inputs, known, s, t)) / 2
        layers = predicted_loss.measured_layers(inputs)
        costs = np.array([predicted_loss.layer_costs(inputs, made["average"], n) for n in layers])
        one["candidates"]["quadratic"] = float(costs.sum(0)[[places[t], places[s]]].mean())
        found.append(one)
        print(f"pairs: {t} + {s} {one['lost']}", flush=True)
    return {"asked": asked, "pairs": found}


def _cross(inputs: Inputs, known: Mapping[str, Known], t: str, s: str) -> float:
    """Σ over layers of tr(A_t Δ_sᵀ B_t Δ_s), by the statistics of t."""
    family, total = inputs.family, 0.0
    place = [expert.name for expert in family.experts].index(t)
    read = inputs.statistics[place]
    assert read is not None
    for name in predicted_loss.measured_layers(inputs):
        rows, columns = family.shape(name)
        a = read.read(f"{module_of(name)}.input_gram", (columns, columns))
        b = read.read(f"{module_of(name)}.output_gradient_gram", (rows, rows))
        if a is not None and b is not None:
            update = family.oriented(name, known[s].update[name])
            total += float(((b @ update @ a) * update).sum())
    return predicted_loss.tokens_an_example(read) * total


def _merged(bench: Bench, method: str, experts: tuple[str, ...]) -> dict[str, Tensor]:
    merged = bench.merged(Trial(method, MERGES[method], experts=experts))
    return {name: value.float() for name, value in merged.items()}


def _candidates(
    one: Known, other: Known, made: Mapping[str, Mapping[str, Tensor]], names: Sequence[str]
) -> dict[str, float]:
    """What `other` is expected to do to `one`."""
    mine, its = one.update, other.update
    lengths = (dot(mine, mine, names) * dot(its, its, names)) ** 0.5
    against = [
        float((v.abs() * (v.sign() != (v + its[n]).sign())).sum() / v.abs().sum())
        for n, v in mine.items()
        if n in names
    ]
    average, probe = one.against(made["average"]), one.against(made["tsv_m"])
    return {
        "cosine": dot(mine, its, names) / lengths,
        "signs": float(np.mean(against)),
        "gradient": dot(one.gradient, its, names),
        **{f"half {key}": value for key, value in one.half.items()},
        **{f"average {key}": value for key, value in average.items()},
        **{f"probe {key}": value for key, value in probe.items()},
    }


# The page -----------------------------------------------------------------------------------------


def table(results: Path, titles: Mapping[str, str]) -> str:
    """Rank correlations over pairs of every candidate with what the pairs' merges lost; empty where
    nothing was run."""
    known = {
        n: json.loads(file(results, n).read_text()) for n in titles if file(results, n).exists()
    }
    if not known:
        return ""
    columns = [(name, method) for name in known for method in known[name]["pairs"][0]["lost"]]
    heads = [f"{titles[name]}: {METHODS[method].title}" for name, method in columns]
    lines = [
        "| known before the merge | needs | " + " | ".join(heads) + " |",
        "| --- |" + " --- |" * (1 + len(heads)),
    ]
    for key, (title, needs) in CANDIDATES.items():
        cells = [_cell(known[name]["pairs"], key, method) for name, method in columns]
        lines.append("| " + " | ".join([title, needs, *cells]) + " |")
    sizes = "; ".join(
        f"{titles[name]}: {len(found['pairs'])} pairs, {found['asked']} test examples a task"
        for name, found in known.items()
    )
    told = (
        "Spearman's ρ over pairs: with the share of the accuracy that the merge of two loses, and "
        "in brackets with the nats by which the loss rises. "
    )
    return "\n".join([*lines, "", f"{told}{sizes}."])


def _cell(found: Sequence[Mapping[str, Any]], key: str, method: str) -> str:
    values = [one["candidates"].get(key) for one in found]
    if None in values:
        return "–"
    both = (spearmanr(values, [one[side][method] for one in found]) for side in ("lost", "rise"))
    lost, rise = (f"{rank.statistic:+.2f}".replace("-", "−") for rank in both)
    return f"{lost} ({rise})"
