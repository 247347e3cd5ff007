"""Which family the pages work on, and its preparation in the background."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import streamlit as st

from mats_core.checks import InputError
from mats_core.collection import Collection, load_collection

from . import cached, show, work
from .jobs import Job

ROOTS = "MATS_FAMILIES"
SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"


def found() -> dict[str, Path]:
    """Every `family.yaml` under the roots that the person who started the app named, and ours."""
    named = [Path(root) for root in os.environ.get(ROOTS, "").split(os.pathsep) if root]
    files: list[Path] = []
    for root in (*named, SAMPLES):
        files += [root / "family.yaml", *sorted(root.glob("*/family.yaml"))]
    families: dict[str, Path] = {}
    for file in files:
        if file.is_file():
            label = file.parent.name
            while label in families and families[label] != file:
                label += " (another)"
            families[label] = file
    return families


def header(title: str, lead: str) -> Collection:
    """The top of every page: what it is for, and the family it works on."""
    left, right = st.columns([11, 4], gap="large", vertical_alignment="bottom")
    with left:
        st.title(title, anchor=False)
        st.markdown(lead)
    with right:
        _choose(found())
    return current()


def _choose(families: dict[str, Path]) -> None:
    if not families:
        return
    st.selectbox(
        "Family of models",
        list(families),
        format_func=lambda label: _title(families[label]),
        key="family",
        persist_state="session",
        help="One pre-trained base and the experts that were fine-tuned from it.",
    )


def _title(file: Path) -> str:
    try:
        return load_collection(file).name
    except InputError:
        return file.parent.name


def current() -> Collection:
    """The chosen family; where there is none, says so and stops the page."""
    families = found()
    if not families:
        st.error(
            "There is no family of models to open: no family.yaml lies under sample_models/. Build "
            "the sample family with `python -m sample_models.build`, or name a folder of your own "
            f"in the environment variable {ROOTS} before you start the app."
        )
        st.stop()
    label = st.session_state.get("family")
    file = families.get(str(label)) or next(iter(families.values()))
    try:
        return load_collection(file)
    except InputError as error:
        show.problem(str(error))
        st.stop()


def preparation(collection: Collection) -> Job:
    """The job that prepares the family; started when it is first asked for."""
    key = _signature(collection)
    job = st.session_state.get("preparation")
    if job is None or job.request != key:
        if job is not None:
            job.cancel()
        job = Job(key, "Preparing the family", partial(work.prepare, collection, key))
        st.session_state["preparation"] = cached.worker().submit(job)
    return job


def _signature(collection: Collection) -> tuple[object, ...]:
    """Changes when the family's description or any of its files does."""
    paths = [collection.folder / collection.base]
    paths += [collection.folder / expert.model for expert in collection.experts]
    files = [f for p in paths for f in (sorted(p.glob("*.safetensors")) if p.is_dir() else [p])]
    stamps = tuple((str(f), f.stat().st_mtime_ns if f.exists() else 0) for f in files)
    return (collection.model_dump_json(), str(collection.folder), *stamps)


def prepared(job: Job) -> work.Prepared | None:
    """What the preparation found; None while it runs; an error stops the page."""
    now = job.snapshot()
    if now.state in ("failed", "cancelled"):
        show.problem(now.error or "The preparation of this family was cancelled.")
        if st.button("Try again", icon=":material/refresh:"):
            del st.session_state["preparation"]
            st.rerun()
        st.stop()
    return now.result
