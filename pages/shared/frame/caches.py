"""The only caches of the pages: bounded, and keyed by fingerprints."""

from __future__ import annotations

import streamlit as st
from torch import Tensor

from mats_core.analysis import (
    Kind,
    Protection,
    Spectrum,
    Subspace,
    Survey,
    layer_protection,
    layer_spectra,
    layer_subspaces,
    unrelated_angles,
)
from mats_core.errors import InputError
from mats_core.estimating import Advice, Estimate, advise_on, merge_cost
from mats_core.methods import METHODS
from mats_core.recipes import Inputs
from mats_core.statistics import Statistics
from mats_core.system import choose_device, speeds

from .. import policy
from ..work import Desk, Prepared, Worker


@st.cache_resource(scope="session", on_release=Desk.close, max_entries=1, show_spinner=False)
def worker() -> Desk:
    """The session's way to the worker; its jobs are cancelled when the tab is closed."""
    return Desk(_worker(), policy.arrival())


policy.found_by(lambda: worker().visitor)


@st.cache_resource(max_entries=1, show_spinner=False)
def _worker() -> Worker:
    """The one worker of the process."""
    return Worker()


def spectra(inputs: Inputs, layer: str, kind: Kind) -> dict[str, Spectrum]:
    """Spectra of one weight, for every task that has the statistics."""
    known = survey(inputs)
    surveyed = next((la for la in known.layers if la.name == layer), None) if known else None
    if known and surveyed:
        pairs = zip(known.tasks, surveyed.spectra[kind], strict=True)
        return {task: own for task, own in pairs if own is not None}
    return _spectra(identity(inputs), layer, kind, inputs)


MOST_SURVEYS = 4


@st.cache_resource(max_entries=1, show_spinner=False)
def _surveys() -> dict[tuple[str, ...], Survey]:
    """Finished surveys of the process, so that a reload or a second window finds them."""
    return {}


def survey(inputs: Inputs) -> Survey | None:
    """The family's survey, where a job has made it."""
    return _surveys().get(identity(inputs))


def keep_survey(inputs: Inputs, found: Survey) -> None:
    """Keep a finished survey; the oldest one goes."""
    surveys = _surveys()
    surveys[identity(inputs)] = found
    while len(surveys) > MOST_SURVEYS:
        surveys.pop(next(iter(surveys)), None)


def identity(inputs: Inputs) -> tuple[str, ...]:
    """What a family's files hold: the fingerprints of checkpoints and the statistics' sources."""
    family = inputs.family
    return (
        family.base.fingerprint,
        *(f"{e.name}:{e.checkpoint.fingerprint}" for e in family.experts),
        *(s.source if s else "" for s in inputs.statistics),
    )


def estimates(prepared: Prepared) -> dict[str, Estimate | str]:
    """What every method would cost with its defaults; a sentence where it cannot run."""
    return _estimates(identity(prepared.inputs), prepared)


@st.cache_resource(max_entries=8, show_spinner="Counting what each method would do")
def _estimates(key: tuple[str, ...], _prepared: Prepared) -> dict[str, Estimate | str]:
    found: dict[str, Estimate | str] = {}
    tested = {name: card.validation for name, card in _prepared.cards.items()}
    for method in METHODS:
        try:
            recipe = _prepared.collection.recipe(method, statistics=_prepared.files)
            found[method] = merge_cost.estimate(_prepared.inputs, recipe, examples=tested)
        except InputError as error:
            found[method] = str(error)
    return found


def advice(prepared: Prepared) -> Advice:
    """Which method to take for a family that is open."""
    return _advice((*identity(prepared.inputs), *prepared.data), prepared)


@st.cache_resource(max_entries=8, show_spinner="Looking at what there is")
def _advice(key: tuple[str, ...], _prepared: Prepared) -> Advice:
    recipe = _prepared.collection.recipe("average", statistics=_prepared.files)
    counts = {name: card.train for name, card in _prepared.cards.items()}
    rates = speeds.rates(choose_device(recipe.device)[0])
    return advise_on(_prepared.inputs, recipe, counts=counts, rates=rates)


@st.cache_data(max_entries=64, show_spinner="Computing the spectra")
def _spectra(key: tuple[str, ...], layer: str, kind: Kind, _inputs: Inputs) -> dict[str, Spectrum]:
    return layer_spectra(_inputs.family, by_task(_inputs), layer, kind)


def by_task(inputs: Inputs) -> dict[str, Statistics]:
    """The statistics of every task that has some."""
    pairs = zip(inputs.family.experts, inputs.statistics, strict=True)
    return {expert.name: own for expert, own in pairs if own is not None}


def subspaces(inputs: Inputs, layer: str, kind: Kind) -> dict[str, Tensor]:
    """Directions of one weight, strongest first, for every task that has the statistics."""
    return _subspaces(identity(inputs), layer, kind, inputs)


@st.cache_data(max_entries=16, show_spinner="Computing the directions")
def _subspaces(key: tuple[str, ...], layer: str, kind: Kind, _inputs: Inputs) -> dict[str, Tensor]:
    return layer_subspaces(_inputs.family, by_task(_inputs), layer, kind)


@st.cache_data(max_entries=64, show_spinner=False)
def chance_angles(size: int, rank: int) -> Tensor:
    """Principal angles of two random subspaces."""
    return unrelated_angles(size, rank)


def protection(inputs: Inputs, layer: str, task: str) -> dict[Subspace, Protection]:
    """What each subspace of a task protects in one weight; raises `InputError`."""
    return _protection(identity(inputs), layer, task, inputs)


@st.cache_data(max_entries=16, show_spinner="Comparing the subspaces")
def _protection(
    key: tuple[str, ...], layer: str, task: str, _inputs: Inputs
) -> dict[Subspace, Protection]:
    return layer_protection(_inputs.family, by_task(_inputs), layer, task)
