"""What a merge goes on to be: routed, trained further, open to more experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import streamlit as st

from mats_core.errors import InputError
from mats_core.merging import no_sums
from mats_core.recipes import Recipe, Refine, Routed

from ..frame import Wanted, keys, show, state
from ..work import Further, Request

V = TypeVar("V")
# How an input's expert is chosen; the last two need no data.
BY: dict[str, str] = {
    "first_pass": "in a first pass, for the whole input",
    "discriminant": "layer by layer: a discriminant",
    "prototypes": "layer by layer: prototypes (ESM++)",
    "updates": "layer by layer: the updates' answers",
    "smile": "token by token (SMILE)",
}
WITHOUT_DATA = ("updates", "smile")
LAYERS = {"reading": "that read the stream", "all": "all"}
RANKS: tuple[int | str, ...] = (2, 4, 8, 16, 32, 64, 128, "full")
EXAMPLES = (16, 32, 64, 128, 256, 512, 1024)
EPOCHS = (1, 2, 4, 8, 16)


def put(wanted: Wanted) -> None:
    """Put what was asked for into the widgets, before they are drawn."""
    further = wanted.further or Further()
    state.put(keys.further("taken"), further)  # with what no widget shows
    for name, model in (("routed", further.routed), ("refine", further.refine)):
        state.put(keys.further(name), model is not None)
        for field, value in (model.model_dump() if model else {}).items():
            state.put(keys.further(f"{name} {field}"), value)
    state.put(keys.further("sums"), further.keep_sums)


def controls(request: Request) -> Further:
    """What a merge by these settings goes on to be."""
    entries = [entry for entry in request.collection.experts if entry.name in request.experts]
    tasks = all(entry.task for entry in entries)
    taken: Further = state.value(keys.further("taken"), Further())
    # Its title stays: with another one it would be another panel, and closed.
    with st.expander("Beyond a static merge", icon=":material/alt_route:"):
        return Further(
            _routed(taken.routed or Routed(), tasks=tasks),
            _refine(taken.refine or Refine(), tasks=tasks),
            _sums(request),
        )


def _routed(taken: Routed, *, tasks: bool) -> Routed | None:
    on = _toggle(
        "routed", "Routed: every input chooses its expert",
        "The merge stays as it is. Beside it lie branches that lead back to the experts, and the "
        "input itself chooses among them, whichever head is asked. The model becomes larger, which "
        "is told beside its accuracy.",
    )  # fmt: skip
    if not on:
        return None
    ways = [by for by in BY if tasks or by in WITHOUT_DATA]
    key = keys.further("routed by" if tasks else "routed by weights")
    first: dict[str, Any] = {} if state.is_set(key) else {"index": _place(taken.by, ways)}
    by = st.selectbox(
        "How the expert is chosen", ways, **first, format_func=BY.__getitem__, key=key,
        persist_state="session",
    )  # fmt: skip
    rank = _steps(
        "Rank of each branch", "routed rank", RANKS, taken.rank,
        "Directions in which a branch leads back to its expert; full: the whole difference. More "
        "is larger, and nearer to the experts.",
    )  # fmt: skip
    said: dict[str, Any] = {"by": by, "rank": rank}
    if by != "first_pass":
        said["layers"] = _layers(taken.layers)
    if not tasks:
        said["examples"] = 0
        st.caption("From the weights alone: not every expert names a task.")
    elif by != "smile":
        said["examples"] = _steps(
            "Examples a task", "routed examples", EXAMPLES, taken.examples,
            "Of each expert's task, on which the choice and the branches are fitted; their labels "
            "are not looked at.",
        )  # fmt: skip
    return taken.model_copy(update=said)


def _layers(taken: str) -> str:
    key = keys.further("routed layers")
    layers = st.segmented_control(
        "Layers with branches", list(LAYERS), required=True, format_func=LAYERS.__getitem__,
        default=None if state.is_set(key) else taken, key=key, persist_state="session",
        help="Those that read the residual stream are query, key, value and the first matrix of "
        "the MLP.",
    )  # fmt: skip
    return str(layers or taken)


def _refine(taken: Refine, *, tasks: bool) -> Refine | None:
    on = _toggle(
        "refine", "Trained further by distillation",
        "Towards the experts' answers on unlabelled training examples, with the best epoch by "
        "validation examples. It trains: its numbers are marked as trained wherever they stand."
        if tasks
        else "Every expert needs a task: name them on the page Family.",
        disabled=not tasks,
    )  # fmt: skip
    if not on:
        return None
    epochs = _steps(
        "Epochs at most", "refine epochs", EPOCHS, taken.epochs,
        f"Of {taken.examples} examples a task; it ends after {taken.patience} epochs that come no "
        "nearer to the experts.",
    )  # fmt: skip
    return taken.model_copy(update={"epochs": epochs})


def _sums(request: Request) -> bool:
    """Whether sums are kept; grey, with the reason, where they cannot be."""
    try:
        reason = no_sums(request.recipe())
    except InputError:  # said when Merge is pressed
        return False
    on = _toggle(
        "sums", "Open to more experts: keep its sums",
        "Written with the model on the page Export. An expert can then be added to this merge "
        "later, without the files of the others."
        if not reason
        else f"Sums cannot be kept: {reason}.",
        disabled=bool(reason),
    )  # fmt: skip
    return on and not reason


# Widgets ------------------------------------------------------------------------------------------


def _toggle(name: str, label: str, help: str, *, disabled: bool = False) -> bool:
    key = keys.further(name)
    if disabled:  # under another key: what was set comes back with what it needs
        return st.toggle(label, disabled=True, help=show.plain(help), key=f"{key} off")
    return st.toggle(label, help=show.plain(help), key=key, persist_state="session")


def _steps(label: str, name: str, steps: Sequence[V], taken: V, help: str) -> V:
    """A slider over steps, to which what was asked for is added where it lies between them."""
    key = keys.further(name)
    held = state.value(key, taken)
    there = sorted({*steps, held}, key=lambda step: (isinstance(step, str), step))
    default: dict[str, Any] = {} if state.is_set(key) else {"value": held}
    found: Any = st.select_slider(
        label, there, **default, key=key, help=help, persist_state="session"
    )
    return found


def _place(value: str, choices: Sequence[str]) -> int:
    return choices.index(value) if value in choices else 0


def changed(further: Further, recipe: Recipe) -> list[str]:
    """What differs from a run, in words."""
    now, then = further.words, Further.of(recipe).words
    names = [name for name in {**then, **now} if now.get(name) != then.get(name)]
    return [f"{name} {then.get(name, 'no')} → {now.get(name, 'no')}" for name in names]
