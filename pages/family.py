"""Family: the base, its experts and their tasks."""

from __future__ import annotations

from collections import Counter

import streamlit as st

from mats_core import figures
from mats_core.checkpoints import Checkpoint
from mats_core.families import Expert
from pages.shared import families, show
from pages.shared.work import Prepared

ROLES = {
    "matrix": "matrices of linear layers, merged by the method's own mathematics",
    "vector": "other parameters (biases, norms, embeddings), averaged or added",
    "head": "heads, one a task and never merged",
    "copied": "not numbers to merge, copied from the base",
    "tied": "tied to another tensor",
}


def facts(checkpoint: Checkpoint) -> str:
    parameters = sum(entry.elements for entry in checkpoint.tensors.values())
    return (
        f"{parameters / 1e6:.2f} million parameters, {checkpoint.nbytes / 1e6:.1f} MB, "
        f"fingerprint {checkpoint.fingerprint[:12]}"
    )


def card(expert: Expert, prepared: Prepared, colour: str) -> None:
    """One expert: what it was tuned for, how well it does, and what its images look like."""
    task = prepared.cards.get(expert.name)
    result = next((r for r in prepared.baselines if r.name == expert.name), None)
    with st.container(border=True):
        st.subheader(show.plain(expert.name), anchor=False)
        if task and task.description:
            st.write(show.plain(task.description))
        if task:
            st.image(
                list(task.images),
                width=56,
                alt=[f"An image of class {caption}" for caption in task.captions],
            )
            st.caption(show.plain(f"{len(task.classes)} classes: {', '.join(task.classes)}"))
        if result:
            expert_cell, base_cell = st.columns(2)
            expert_cell.metric("Expert", figures.percent(result.finetuned.accuracy))
            base_cell.metric("Pre-trained", figures.percent(result.pretrained.accuracy))
        sizes = f"{task.train} training, {task.test} test images. " if task else ""
        st.caption(show.plain(f"{sizes}{facts(expert.checkpoint)}"))


collection = families.header(
    "Family",
    "The models that there are to merge: one pre-trained base, and an expert for each task.",
)
preparing = families.preparation(collection)
show.progress([preparing])
prepared = families.prepared(preparing)
if prepared is None:
    st.info("The experts appear here as soon as their files are checked.")
    st.stop()
family = prepared.inputs.family
st.markdown(
    show.plain(
        f"{collection.name}: {len(family.experts)} experts. The base has {facts(family.base)}."
    )
)
counts = Counter(family.roles.values())
with st.expander(f"What a merge does with the {sum(counts.values())} tensors"):
    for role, count in counts.items():
        st.markdown(f"- **{count}** {ROLES[role]}")
if prepared.problem:
    st.warning(show.plain(f"Without statistics: {prepared.problem}"))
looks = figures.looks(expert.name for expert in family.experts)
cells = st.columns(3) if len(family.experts) > 1 else [st.container()]
for index, expert in enumerate(family.experts):
    with cells[index % len(cells)]:
        card(expert, prepared, looks[expert.name].colour)
if prepared.baselines:
    st.subheader("The gap that a merge has to close", anchor=False)
    show.figure(figures.baseline_bars(prepared.baselines, looks), "family baselines")
