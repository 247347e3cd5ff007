"""The only caches of the pages: bounded, and keyed by fingerprints."""

from __future__ import annotations

import streamlit as st

from mats_core import estimate
from mats_core.checks import InputError
from mats_core.estimate import Estimate
from mats_core.layers import Inputs
from mats_core.methods import METHODS
from mats_core.spectra import Kind, Spectrum, layer_spectra

from .jobs import Desk, Worker
from .work import Prepared


@st.cache_resource(scope="session", on_release=Desk.close, max_entries=1, show_spinner=False)
def worker() -> Desk:
    """The session's way to the worker; its jobs are cancelled when the tab is closed."""
    return Desk(_worker())


@st.cache_resource(max_entries=1, show_spinner=False)
def _worker() -> Worker:
    """The one worker of the process."""
    return Worker()


def spectra(inputs: Inputs, layer: str, kind: Kind) -> dict[str, Spectrum]:
    """Spectra of one weight, for every task that has the statistics."""
    return _spectra(identity(inputs), layer, kind, inputs)


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
    tested = {name: card.test for name, card in _prepared.cards.items()}
    for method in METHODS:
        try:
            recipe = _prepared.collection.recipe(method, statistics=_prepared.files)
            found[method] = estimate.estimate(_prepared.inputs, recipe, examples=tested)
        except InputError as error:
            found[method] = str(error)
    return found


@st.cache_data(max_entries=64, show_spinner="Computing the spectra")
def _spectra(key: tuple[str, ...], layer: str, kind: Kind, _inputs: Inputs) -> dict[str, Spectrum]:
    statistics = {
        expert.name: own
        for expert, own in zip(_inputs.family.experts, _inputs.statistics, strict=True)
        if own is not None
    }
    return layer_spectra(_inputs.family, statistics, layer, kind)
