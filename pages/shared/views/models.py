"""A family's models as cards: what each was trained for, its pictures, how well it does."""

from __future__ import annotations

import numpy as np
import streamlit as st

from mats_core import figures
from mats_core.checkpoints import Weights
from mats_core.errors import listing, size
from mats_core.evaluation import TaskResult
from mats_core.families import Expert, architecture, dtypes

from ..frame import show
from ..work import Prepared, TaskCard

PICTURE = 56  # pixels
METRICS = {
    "f1": "F1",
    "macro": "Mean F1 of the classes",
    "matthews": "Matthews correlation",
    "likelihood": "Mean probability of a token (one over the perplexity)",
}


def base(prepared: Prepared) -> None:
    """The card of the pre-trained model, over the whole width."""
    family, task = prepared.inputs.family, prepared.base_card
    with st.container(border=True):
        st.header("Base", anchor=False)
        if task is None or not task.classes:
            st.markdown("The pre-trained model that every expert was fine-tuned from.")
        else:
            kinds = kinds_of(task.classes)
            text = (
                f"The pre-trained model that every expert was fine-tuned from. It learned to tell "
                f"{len(task.classes)} classes apart"
                + (f", of {len(kinds)} kinds: {listing(kinds, 8)}" if kinds else "")
                + (". None of them is a class of an expert." if _apart(task, prepared) else ".")
            )
            st.markdown(show.plain(text))
            pictures(task)
        st.caption(show.plain(_facts(family.base, task)))


def expert(one: Expert, prepared: Prepared) -> None:
    """One expert: what it was tuned for, what its images look like, how well it does."""
    task = prepared.cards.get(one.name)
    result = next((r for r in prepared.baselines if r.name == one.name), None)
    with st.container(border=True, height="stretch"):
        st.header(show.plain(one.name), anchor=False)
        if task is None:
            st.markdown("It names no task, so it can be merged but not tested.")
        else:
            if task.description:
                st.markdown(show.plain(show.sentence(task.description)))
            pictures(task)
            if task.classes:
                listed = f"{len(task.classes)} classes: {listing(task.classes, 12)}"
                st.markdown(f":small[{show.plain(listed)}]")
        if result:
            metrics(
                {
                    "Expert": figures.percent(result.finetuned.value),
                    "Pre-trained": figures.percent(result.pretrained.value),
                },
                {name: _interval(result, name, task) for name in ("Expert", "Pre-trained")},
            )
        st.caption(show.plain(_facts(one.checkpoint, task)))


def pictures(task: TaskCard) -> None:
    """One picture (or text) of some classes; pictures wrap where the card is narrow."""
    for place, text in enumerate(task.texts):
        caption = f"**{show.plain(task.captions[place])}** · " if task.captions else ""
        st.markdown(f":small[{caption}{show.plain(text)}]")
    if task.texts:
        return
    st.image(
        [_framed(image) for image in task.images],
        width=PICTURE,
        alt=[f"A test image of the class {caption}" for caption in task.captions],
    )


def _framed(image: np.ndarray) -> np.ndarray:
    """With a border that lets the page through: pictures in a row would touch each other."""
    opaque = np.full((*image.shape[:2], 1), 255, np.uint8)
    frame = max(1, len(image) // 24)
    return np.pad(np.concatenate([image, opaque], 2), ((frame, frame), (frame, frame), (0, 0)))


def metrics(values: dict[str, str], help: dict[str, str] | None = None) -> None:
    with st.container(horizontal=True, gap="medium"):
        for label, value in values.items():
            st.metric(label, value, width="content", help=(help or {}).get(label))


def _interval(result: TaskResult, name: str, task: TaskCard | None) -> str:
    score = result.finetuned if name == "Expert" else result.pretrained
    low, high = score.interval
    own = "the expert" if name == "Expert" else "the pre-trained encoder with this expert's head"
    noun = task.noun if task else "image"
    between = f"between {100 * low:.0f} and {100 * high:.0f} % (95 % interval)."
    if score.metric != "accuracy":
        return f"{METRICS[score.metric]} of {own} on {score.examples} validation {noun}s: {between}"
    return (
        f"Accuracy of {own}: {score.correct} of {score.examples} validation {noun}s, so {between}"
    )


def kinds_of(classes: tuple[str, ...]) -> list[str]:
    """`signs` of `signs: sign 3`, where every class is named in this way."""
    kinds = [name.partition(":")[0] for name in classes if ":" in name]
    return list(dict.fromkeys(kinds)) if len(kinds) == len(classes) else []


def _apart(task: TaskCard, prepared: Prepared) -> bool:
    return not any(set(task.classes) & set(card.classes) for card in prepared.cards.values())


def _millions(checkpoint: Weights) -> str:
    count = sum(entry.elements for entry in checkpoint.tensors.values())
    return f"{count / 1e6:.2f} M" if count >= 1e4 else f"{count:,}"


def _facts(checkpoint: Weights, task: TaskCard | None) -> str:
    sizes = ""
    if task:
        counts = f"{task.train:,} training, {task.validation:,} validation and {task.test:,} test"
        sizes = f"{counts} {task.noun}s · "
    kind = architecture(checkpoint)
    return (
        f"{sizes}{kind + ' · ' if kind else ''}{_millions(checkpoint)} parameters, "
        f"{size(checkpoint.nbytes)} as {dtypes(checkpoint)} · "
        f"fingerprint {checkpoint.fingerprint[:12]}"
    )
