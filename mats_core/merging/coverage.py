"""Whether a merge did what was asked for: how much of the matrices its method really merged."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import InputError, listing
from ..names import module_of
from ..recipes import LayerReport, Plan
from ..statistics import OF_PARAMETERS
from .reading import treated_as_matrix

ENOUGH = 0.9  # of the entries of all matrices; below it a merge says what it left out


def require_merged(plan: Plan, layers: Sequence[LayerReport]) -> list[str]:
    """Sentences on what a method left to another one, where it is a tenth of the matrices or more.

    Convolutions and stacks of matrices count, too.  Raises `InputError` where it merged no matrix
    at all (no tensor, in a family without matrices): the result is another method's.  The vectors
    of (IA)³ adapters take what the recipe says.  So it does where an input has changed meanwhile.
    """
    plan.inputs.require_unchanged()
    if plan.inputs.vectors is not None:
        return []
    name, shared = plan.method.name, set(plan.inputs.family.shared)
    shared -= plan.inputs.family.running  # which take their own rule, whatever the method
    ours = {name, *plan.method.ways}
    layers = [layer for layer in layers if layer.name in shared]
    matrices = [layer for layer in layers if treated_as_matrix(plan, layer.name)]
    if matrices:
        left = [layer for layer in matrices if layer.method not in ours]
    else:
        left = [
            layer for layer in layers if layer.method not in ours and layer.treatment != "merged"
        ]
    judged = matrices or layers
    if judged and len(left) == len(judged):
        raise InputError(
            f"method '{name}'",
            expected="at least one matrix that it merges"
            if matrices
            else "a tensor that it merges",
            found=f"none: {_instead(left)}; {_why(plan, left)}",
            remedy="Measure these layers, or choose the method that was applied.",
        )
    tensors = plan.inputs.family.base.tensors
    stacked = [layer for layer in layers if _is_stacked(tensors[layer.name].shape)]
    left += [layer for layer in stacked if layer.method not in ours]
    sizes = {layer.name: tensors[layer.name].elements for layer in (*judged, *stacked)}
    total, missed = sum(sizes.values()), sum(sizes[layer.name] for layer in left)
    if not matrices or missed <= (1 - ENOUGH) * total:
        return []
    return [
        f"{plan.method.title} merged {100 * (1 - missed / total):.0f} % of the matrix entries"
        f"{', convolutions and stacks of matrices included' if stacked else ''}; "
        f"{_instead(left)}; {_why(plan, left)}"
    ]


def _is_stacked(shape: Sequence[int]) -> bool:
    """Whether a tensor is a convolution or a stack of matrices, as of the experts of one layer:
    weights that no method for linear layers merges."""
    return len(shape) > 2 and shape[0] > 1


def _instead(left: Sequence[LayerReport]) -> str:
    """By what the layers were merged instead, with their names."""
    by: dict[str, list[str]] = {}
    for layer in left:
        by.setdefault(layer.method or layer.treatment, []).append(layer.name)
    return "; ".join(
        f"'{method}' was applied to {listing(names, 4)}" for method, names in by.items()
    )


def _why(plan: Plan, left: Sequence[LayerReport]) -> str:
    """What the layers lack: the kinds of statistics that are missing, and of which experts."""
    names = [layer.name for layer in left]
    lacking: dict[str, list[str]] = {}
    for expert, own in zip(plan.inputs.family.experts, plan.inputs.statistics, strict=True):
        for kind in sorted(plan.kinds):
            stems = names if kind in OF_PARAMETERS else [module_of(name) for name in names]
            if own is None or not all(f"{stem}.{kind}" in own for stem in stems):
                lacking.setdefault(kind, []).append(f"'{expert.name}'")
    if not lacking:
        return "it does not merge layers of this kind"
    said = (f"no {kind} of {listing(experts, 4)}" for kind, experts in lacking.items())
    return "there is " + ", ".join(said)
