"""Members of a new family: the base, or an expert whose base is looked for, and what fits it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import streamlit as st

from mats_core.checkpoints import ListedModel
from mats_core.errors import InputError
from mats_core.families import STRANGE
from mats_core.recipes import Candidate, candidates, load_family, proposed_base

from ..frame import show, state
from ..work import Draft, drafts

MANY = 24  # experts that have a box each; the others are chosen from a list
BASE, EXPERT, NONE = "the base", "one of the experts", "experts without a base"


def pick_base(draft: Draft, usable: Sequence[ListedModel]) -> ListedModel | None:
    """The base that is chosen, or the one that an expert which is chosen comes from."""
    st.markdown("**1. The base**: the model that the others were fine-tuned from.")
    key = f"draft {draft.number}"
    begin = st.segmented_control(
        "Begin with", [BASE, EXPERT, NONE], default=BASE, required=True, key=f"{key} begin",
        disabled=draft.file is not None,
    )  # fmt: skip
    if begin == EXPERT:
        return _of_expert(key, usable)
    if begin == NONE:
        return _first_of_all(key, usable)
    bases = {str(one.path): one for one in usable if one.kind == "model"}
    if state.value(f"{key} base") not in bases:
        state.put(f"{key} base", draft.base if draft.base in bases else None)
    path = st.selectbox(
        "Base", list(bases), format_func=lambda p: _label(bases[p]), key=f"{key} base",
        placeholder="Choose a model", label_visibility="collapsed",
    )  # fmt: skip
    if path is None:
        return None
    base = bases[path]
    why = f"{draft.because}. " if draft.because and path == draft.base else ""
    st.caption(show.plain(f"{why}{drafts.facts(base)} · {base.reference}"))
    return base


def has_base(draft: Draft) -> bool:
    """Whether there is a base: else the model that is picked is one of the experts."""
    return state.value(f"draft {draft.number} begin") != NONE


def _first_of_all(key: str, usable: Sequence[ListedModel]) -> ListedModel | None:
    """One of experts that have no base here, to which the others must fit."""
    models = {str(one.path): one for one in usable if one.kind == "model"}
    path = st.selectbox(
        "One of them", list(models), index=None, format_func=lambda p: _label(models[p]),
        key=f"{key} first", placeholder="Choose an expert", label_visibility="collapsed",
    )  # fmt: skip
    st.info(
        "The mean of the experts is written as their base. An update is then what sets an expert "
        "apart from the others, and not what its training changed."
    )
    return models[path] if path else None


def _of_expert(key: str, usable: Sequence[ListedModel]) -> ListedModel | None:
    """The base that a chosen expert comes from."""
    models = {str(one.path): one for one in usable}
    path = st.selectbox(
        "Expert", list(models), index=None, format_func=lambda p: _label(models[p]),
        key=f"{key} expert", placeholder="Choose an expert", label_visibility="collapsed",
    )  # fmt: skip
    if path is None:
        return None
    offer = proposed_base(models[path], usable)
    if offer is None:
        said = _made_from(models[path])
        st.info(show.plain(f"Its base is not among what was found{said}. Choose the base itself."))
        return None
    st.markdown(f"Its base: **{show.plain(offer.base.name)}**")
    st.caption(show.plain(f"{offer.sentence}. {drafts.facts(offer.base)} · {offer.base.reference}"))
    return offer.base


def _made_from(model: ListedModel) -> str:
    """What a model says that it was made from, in brackets."""
    return (
        f" (it says that it was made from {', '.join(model.made_from)})" if model.made_from else ""
    )


def _label(model: ListedModel) -> str:
    place = model.reference if model.of_hub else f"{model.path.parent.name}/{model.name}"
    return f"{place} · {drafts.facts(model)}"


def tick_experts(
    draft: Draft, base: ListedModel, usable: Sequence[ListedModel]
) -> tuple[list[ListedModel], dict[Path, bool]]:
    """The models that are ticked, of those that fit the base, and the paths of the strangers to it
    among them, with whether these are to be aligned to it."""
    st.markdown("**2. The experts**: what fits this base, by the shapes and names of its tensors.")
    try:
        offers = candidates(base, usable)
    except InputError as error:
        show.problem(str(error))
        return [], {}
    fitting = [one for one in offers if one.fits and not one.stranger]
    ticked = [one.model for one in fitting[:MANY] if _ticked(draft, base, one, fitting)]
    if not fitting:
        st.info("Nothing else that was found fits this base.")
    if rest := fitting[MANY:]:
        names = {str(one.model.path): one.model for one in rest}
        more = st.multiselect(
            f"{len(rest)} more that fit", list(names), format_func=lambda p: _label(names[p]),
            key=f"draft {draft.number} more {base.path}",
        )  # fmt: skip
        ticked += [names[path] for path in more]
    strangers = _strangers(draft, base, [one for one in offers if one.stranger])
    if others := [one for one in offers if not one.fits]:
        with st.expander(f"{len(others)} that do not fit, and why"):
            rows = [(o.model.name, o.sentence, o.model.reference) for o in others]
            st.dataframe(pd.DataFrame(rows, columns=["model", "why", "where"]), hide_index=True)
    aligned = bool(st.session_state.get(_align_key(draft, base)))
    return [*ticked, *strangers], dict.fromkeys((one.path for one in strangers), aligned)


def _strangers(draft: Draft, base: ListedModel, offers: Sequence[Candidate]) -> list[ListedModel]:
    """Models of the base's shapes whose weights have nothing in common with it: listed with the
    reason, and ticked only after a switch that says what is done."""
    if not offers:
        return []
    key = f"draft {draft.number} strangers {base.path}"
    before = draft.experts or () if str(base.path) == draft.base else ()
    paths = {str(one.model.path) for one in offers}
    with st.expander(f"{len(offers)} of the same shapes, but strangers to this base, and why"):
        st.caption(
            f"Below a cosine of {STRANGE} the matrices of two models have no more in common than "
            "those of models that were trained apart: a merge would mix two unrelated ones."
        )
        rows = [(o.model.name, o.sentence, o.cosine, o.model.reference) for o in offers]
        columns = ["model", "why", "cosine with the base", "where"]
        st.dataframe(pd.DataFrame(rows, columns=columns), hide_index=True)
        on = st.toggle(
            "Merge strangers all the same", bool(paths & {*before}), key=key,
            help="What sets a stranger apart from this base is a whole training, and no "
            "fine-tuning. The family says 'strangers: allow' then; else a merge refuses them.",
        )  # fmt: skip
        if on:
            st.toggle(
                "Put their units in the base's order first", _was_aligned(draft),
                key=_align_key(draft, base),
                help="Models that were trained apart number their units differently. Aligning "
                "finds which unit is which by the weights (Git Re-Basin); the expert answers as "
                "before. A permuted copy of the base comes back whole; what it brings to a start "
                "that was drawn anew only a merge shows. The family says 'align: true' then.",
            )  # fmt: skip
        return [one.model for one in offers if _ticked(draft, base, one, offers)] if on else []


def _was_aligned(draft: Draft) -> bool:
    """Whether the family that is changed aligns an expert."""
    return bool(draft.like) and any(one.align for one in load_family(draft.like).experts)


def _align_key(draft: Draft, base: ListedModel) -> str:
    return f"draft {draft.number} align {base.path}"


def _ticked(
    draft: Draft, base: ListedModel, offer: Candidate, fitting: Sequence[Candidate]
) -> bool:
    """The box of one expert, ticked from the start where it is likely one."""
    model, path = offer.model, str(offer.model.path)
    first = offer.likely and (not _beside(base, fitting) or model.path.parent == base.path.parent)
    if draft.experts is not None and str(base.path) == draft.base:
        first = path in draft.experts
    near = "" if offer.cosine is None else f" (cosine {offer.cosine:.3f})"
    said = f"{offer.sentence}{near} · {drafts.facts(model)}"
    # The label is what a screen reader says: the name alone.
    with st.container(gap=None):
        on = st.checkbox(
            show.label(model.name), first, key=f"draft {draft.number} {base.path} {path}"
        )
        st.markdown(f":small[{show.plain(said)}]")
    return on


def _beside(base: ListedModel, fitting: Sequence[Candidate]) -> bool:
    """Whether experts lie in the folder of the base: then those elsewhere are not ticked."""
    return any(one.likely and one.model.path.parent == base.path.parent for one in fitting)
