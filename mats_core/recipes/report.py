"""What a merge says while it runs (events) and when it is done (the report)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch

from .. import __version__ as VERSION
from ..errors import duration, typed
from ..evaluation import Score, TaskResult, gap_recovered, normalised_accuracy
from ..system import Shown
from .chosen import ChosenInputs, chosen_of
from .refined import Refined

KINDS_OF_SCORE = ("merged", "finetuned", "pretrained")
SERIES = ("residuals", "objectives", "distances", "errors")
TREATMENTS = ("merged", "averaged", "head", "copied", "tied")


@dataclass(frozen=True, repr=False)
class LayerReport(Shown):
    """What happened to one tensor.

    name         the tensor's name in the base
    treatment    one of `TREATMENTS`
    method       what was really applied: a fallback has another name than the recipe's method
    status       how it was computed or why the solve ended, such as `exact` or `converged`
    iterations   steps of the solver; 0 where none was needed
    residuals    ‖b − K X‖ / ‖b‖ of the solve after each step; index 0 is the start
    seconds      wall time of the layer
    objectives   ½⟨X, K X⟩ − ⟨b, X⟩ after each step
    distances    ‖W − W₀‖_F after each step, to the start of the solve
    details      the weights that tasks and dimensions got, and the factor of the layer; of one that
                 was calibrated its place in the walk and its feature errors (`FeatureErrors`), and
                 how many of its input directions the examples decide (`analysis.decided`)
    errors       the update's estimated relative error after each step, of a preconditioned solve
    """

    name: str
    treatment: str
    method: str = ""
    status: str = ""
    iterations: int = 0
    residuals: tuple[float, ...] = ()
    seconds: float = 0.0
    objectives: tuple[float, ...] = ()
    distances: tuple[float, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    errors: tuple[float, ...] = ()

    def __repr__(self) -> str:
        """One line; the residuals are many."""
        how = " ".join(filter(None, (self.treatment, self.method, self.status)))
        return f"LayerReport({self.name!r}: {how}, {self.iterations} iterations)"


class Layers(Shown, tuple[LayerReport, ...]):
    """The layers of a report: a tuple that shows itself as a table."""

    def __repr__(self) -> str:
        return f"<{len(self)} layers>"


class Tasks(Shown, tuple[TaskResult, ...]):
    """The scores of a report: a tuple that shows itself as a table."""

    def __repr__(self) -> str:
        return f"<scores on {len(self)} tasks>"


class TaskList(Shown, list[TaskResult]):
    """The scores that `evaluate` returns: a list that shows itself as a table."""

    def __repr__(self) -> str:
        return f"<scores on {len(self)} tasks>"


@dataclass(frozen=True)
class Trial:
    """One point of a search: the options tried and their normalised validation accuracy."""

    options: Mapping[str, Any]
    normalised_accuracy: float


@dataclass(frozen=True, repr=False)
class Report(Shown):
    """The outcome of a merge; `to_json` is what `report.json` holds.

    method, options   of the recipe; options with their defaults filled in
    seed              of all that is random
    device            where the arithmetic ran
    device_reason     why on this device, in words
    dtype             of the arithmetic
    seconds           wall time of the merge, with its evaluation
    layers            what happened to each tensor, in the order of the checkpoint
    tasks             scores of the merged, fine-tuned and pre-trained model on each task
    split             the part of the tasks' data that was used
    search            the points of the recipe's search, with their validation accuracy
    warnings          what users should know about this merge, a sentence each
    fingerprints      SHA-256 of the base and of every expert, by name
    output            the directory that was written; None where none was
    rounds            how often the experts were merged, with statistics measured in between
    files             bytes of every file that was written beside the report, by its name
    inputs            which inputs each expert was matched on, where the method calibrates
    earlier           experts whose sums an earlier merge kept; the others were added to them
    after             steps on the merged update of every layer, in their order, with all options
    by                rules on weights and options of layers, as in the recipe
    refined           how the merge was trained further; None: it was not
    routed            of a routed merge: `by`, `rank`, `layers` (how many have branches), `bytes` of
                      these, `size` (merge and branches, as a multiple of the merge), and `rightly`
                      (an expert → the share of its calibration examples that take its branch)
    lora              of a merge that is one LoRA: `rank` and `energy` that were asked for, `bytes`,
                      `size` as a multiple of the checkpoint, `lost` (share of ‖Δ‖_F² over all
                      tensors), `layers` (a matrix → its `rank` and the share `lost` of its own),
                      `saved` (tensors kept whole), `nowhere` (tensors left as the base's)
    """

    method: str
    options: Mapping[str, Any]
    seed: int
    device: str
    device_reason: str
    dtype: str
    seconds: float
    layers: tuple[LayerReport, ...]
    tasks: tuple[TaskResult, ...] = ()
    split: str = "test"
    search: tuple[Trial, ...] = ()
    warnings: tuple[str, ...] = ()
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    output: str | None = None
    rounds: int = 1
    files: Mapping[str, int] = field(default_factory=dict)
    inputs: tuple[ChosenInputs, ...] = ()
    earlier: tuple[str, ...] = ()
    after: tuple[Mapping[str, Mapping[str, Any]], ...] = ()
    by: tuple[Mapping[str, Any], ...] = ()
    refined: Refined | None = None
    routed: Mapping[str, Any] = field(default_factory=dict)
    lora: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", Layers(self.layers))
        object.__setattr__(self, "tasks", Tasks(self.tasks))

    def __repr__(self) -> str:
        """One line; the layers are many."""
        counted = ", ".join(f"{count} {kind}" for kind, count in self.coverage.items() if count)
        kept = self.normalised_accuracy
        reached = "" if kept is None else f"; {100 * kept:.1f} % of the experts' accuracy"
        trained = ", trained" if self.trained else ""
        sized = f"; {self.size:.2f} × the base" if self.routed else ""
        head = f"{self.method}{trained}: {counted}{reached}{sized}"
        return f"Report({head}; {duration(self.seconds)})"

    @property
    def trained(self) -> bool:
        """Whether the weights were trained after they were merged."""
        return self.refined is not None and self.refined.best > 0

    @property
    def steps(self) -> str:
        """The steps after the merge in a few words, `stretch (scale 1.3), svc (alpha 0.3)`; ""
        without any."""
        return ", ".join(
            f"{name} ({', '.join(f'{key} {value:g}' for key, value in options.items())})"
            for step in self.after
            for name, options in step.items()
        )

    @property
    def as_lora(self) -> str:
        """What the merge is as one LoRA, in a sentence; "" of a whole checkpoint."""
        if not self.lora:
            return ""
        ranks = [one["rank"] for one in self.lora["layers"].values()]
        low, high = min(ranks), max(ranks)
        rank = f"rank {low}" if low == high else f"ranks {low} to {high}"
        whole = len(self.lora["saved"])
        beside = f" and {whole} tensors whole" if whole else ""
        lost = self.lora["lost"]
        share = f"{100 * lost:.2g} %" if lost > 1e-9 else "nothing"
        size = f"{self.lora['size']:.2f} × the checkpoint"
        what = f"{share} of the merged update's energy is lost"
        return f"one LoRA: {len(ranks)} matrices of {rank}{beside}, {size}; {what}"

    @property
    def size(self) -> float:
        """What the model takes, as a multiple of the base; heads, one a task, not counted."""
        return float(self.routed.get("size", 1.0))

    @property
    def coverage(self) -> dict[str, int]:
        """Number of tensors by treatment; the counts add up to the checkpoint."""
        return {kind: sum(layer.treatment == kind for layer in self.layers) for kind in TREATMENTS}

    @property
    def left(self) -> int:
        """Examples of all tasks that the merged model was not asked."""
        return sum(task.merged.left for task in self.tasks)

    @property
    def normalised_accuracy(self) -> float | None:
        """Mean over the tasks of merged / fine-tuned score; None without tasks."""
        return normalised_accuracy(self.tasks) if self.tasks else None

    @property
    def gap_recovered(self) -> float | None:
        """Share of the gap between pre-trained and fine-tuned scores that the merge closes.

        None without tasks, or without a gap.
        """
        return gap_recovered(self.tasks) if self.tasks else None

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, as in `report.json`."""
        return {
            "method": self.method,
            "options": dict(self.options),
            **({"rounds": self.rounds} if self.rounds > 1 else {}),
            "seed": self.seed,
            "device": self.device,
            "device_reason": self.device_reason,
            "dtype": self.dtype,
            "seconds": round(self.seconds, 4),
            "coverage": self.coverage,
            "normalised_accuracy": self.normalised_accuracy,
            "gap_recovered": self.gap_recovered,
            "split": self.split,
            "tasks": [task_dict(result) for result in self.tasks],
            "search": [asdict(trial) for trial in self.search],
            "warnings": list(self.warnings),
            "fingerprints": dict(self.fingerprints),
            "layers": [layer_dict(layer) for layer in self.layers],
            **({"inputs": [asdict(one) for one in self.inputs]} if self.inputs else {}),
            **({"routed": dict(self.routed)} if self.routed else {}),
            **({"lora": dict(self.lora)} if self.lora else {}),
            **({"files": dict(self.files)} if self.files else {}),
            **({"earlier": list(self.earlier)} if self.earlier else {}),
            **({"after": list(self.after)} if self.after else {}),
            **({"by": list(self.by)} if self.by else {}),
            **({"refined": self.refined.to_dict()} if self.refined else {}),
            "versions": {"torch": torch.__version__, "mats_core": VERSION},
        }

    def to_json(self) -> str:
        """The text of `report.json`."""
        plain = _finite(self.to_dict())
        return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Report:
        """The report that `to_dict` made, but for `output`.

        Raises `KeyError`, `TypeError` or `ValueError` for anything else.
        """
        lists = {
            "layers": tuple(layer_of(layer) for layer in content["layers"]),
            "tasks": tuple(task_of_dict(task) for task in content["tasks"]),
            "search": tuple(typed(Trial, trial) for trial in content["search"]),
            "warnings": tuple(content["warnings"]),
            "inputs": tuple(map(chosen_of, content.get("inputs", ()))),
            **{key: tuple(content.get(key, ())) for key in ("earlier", "after", "by")},
            "refined": Refined.from_dict(content["refined"]) if "refined" in content else None,
        }
        kept = {one.name: content[one.name] for one in fields(cls) if one.name in content}
        return typed(cls, {**kept, **lists})


def _finite(value: Any) -> Any:
    """The same plain values, with null for numbers that JSON has no words for (NaN, infinity)."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def task_dict(result: TaskResult) -> dict[str, Any]:
    """One row of `tasks` in `report.json`."""
    metric, value = result.merged.metric, result.merged.value
    return {
        "name": result.name,
        **({"accuracy": value} if metric == "accuracy" else {"metric": metric, "value": value}),
        "finetuned": result.finetuned.value,
        "pretrained": result.pretrained.value,
        "examples": result.merged.examples,
        "interval": list(result.merged.interval),
        "scores": {kind: getattr(result, kind).to_dict() for kind in KINDS_OF_SCORE},
    }


def task_of_dict(content: Mapping[str, Any]) -> TaskResult:
    """The result that `task_dict` wrote."""
    scores = {kind: Score.from_dict(content["scores"][kind]) for kind in KINDS_OF_SCORE}
    return typed(TaskResult, {"name": content["name"], **scores})


def layer_of(content: Mapping[str, Any]) -> LayerReport:
    """The layer that `layer_dict` wrote."""
    series = {
        key: tuple(math.nan if one is None else one for one in content.get(key, ()))
        for key in SERIES
    }
    return typed(LayerReport, {**content, **series})


def layer_dict(layer: LayerReport) -> dict[str, Any]:
    """One row of `layers` in `report.json`."""
    plain = {**vars(layer), "seconds": round(layer.seconds, 6)}
    late = {key: list(plain.pop(key)) for key in SERIES}
    late |= {"details": dict(plain.pop("details"))}
    return plain | {key: value for key, value in late.items() if value or key == "residuals"}
