"""What a merge did, as its report."""

from __future__ import annotations

from collections.abc import Sequence

from ..evaluation import TaskResult
from ..methods import METHODS
from ..recipes import Evaluation, LayerReport, Plan, Report, Trial


def report_of(
    plan: Plan,
    layers: Sequence[LayerReport],
    results: Sequence[TaskResult],
    trials: tuple[Trial, ...],
    told: Sequence[str],
    seconds: float,
) -> Report:
    """The report of a merge; `told`: what users should know about it, beside its files."""
    family, settings = plan.inputs.family, plan.recipe.evaluate
    notes = list(plan.inputs.notes)
    before = plan.inputs.earlier.experts if plan.inputs.earlier else ()
    other = plan.method.fallback
    fallbacks = [layer for layer in layers if other and layer.method == other]
    if fallbacks:
        title = METHODS[other].title
        notes.append(f"{len(fallbacks)} matrices without statistics fell back to {title}")
    return Report(
        method=plan.method.name,
        options=plan.options.model_dump(),
        seed=plan.recipe.seed,
        device=plan.device,
        device_reason=plan.reason,
        dtype=plan.recipe.dtype,
        seconds=seconds,
        layers=tuple(layers),
        tasks=tuple(results),
        split=settings.split if isinstance(settings, Evaluation) else "test",
        search=trials,
        warnings=(*notes, *told),
        fingerprints={**family.fingerprints, **{e.name: e.fingerprint or "" for e in before}},
        output=str(plan.recipe.path(plan.recipe.output).resolve()) if plan.recipe.output else None,
        rounds=plan.recipe.rounds,
        earlier=tuple(entry.name for entry in before),
        after=tuple(one.content for one in plan.recipe.steps()),
        by=tuple(rule.model_dump(mode="json", exclude_defaults=True) for rule in plan.recipe.by),
    )
