"""Which family the pages work on, and its preparation in the background."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import streamlit as st

from mats_core.errors import InputError
from mats_core.merging import FamilyFile, load_family

from ..work import Job, prepare
from . import caches, folders, navigation, show
from .folders import ROOTS

SAMPLES = Path(__file__).resolve().parents[3] / "sample_models"
LINK = "family"  # the query parameter that names a family, by the name of its folder


def places() -> list[Path]:
    """The folders that families may lie in."""
    return [*folders.named(), SAMPLES]


def found() -> dict[str, Path]:
    """Every family that can be chosen, those that this session opened by their path included."""
    opened: list[Path] = []
    for path in st.session_state.get("opened families", []):
        try:  # a folder may have become a link since
            opened.append(folders.locate(path, places()))
        except InputError:
            continue
    return folders.found(places(), opened)


def header(title: str, lead: str) -> FamilyFile:
    """The top of every page: what it is for, and the family it works on."""
    navigation.through_the_app()
    left, right = st.columns([11, 4], gap="large", vertical_alignment="bottom")
    with left:
        st.title(title, anchor=False)
        st.markdown(lead)
    with right:
        families = found()
        _follow_link(families)
        _choose(families)
    return current()


def _choose(families: dict[str, Path]) -> None:
    if not families:
        return
    # Set in every run: on another page the widget is a new one and would begin at its first choice.
    wanted = (st.session_state.get(key) for key in ("family", "chosen family"))
    st.session_state["family"] = next(
        (one for one in wanted if one in families), next(iter(families))
    )
    chosen = st.selectbox(
        "Family of models",
        list(families),
        format_func=lambda label: _title(families[label]),
        key="family",
        help="One pre-trained base and the experts that were fine-tuned from it.",
    )
    st.session_state["chosen family"] = chosen
    if st.query_params.get(LINK) != chosen:
        st.query_params[LINK] = st.session_state["followed family"] = chosen


def _follow_link(families: dict[str, Path]) -> None:
    """Open the family that the address names, once; one that is not here leaves things as they are.

    Not the widget's own binding: that writes the title that is shown, and only if it is not the
    first one; a link has to name the folder, on any machine.
    """
    wanted = st.query_params.get(LINK)
    if wanted is None or st.session_state.get("followed family") == wanted:
        return
    st.session_state["followed family"] = wanted
    if wanted in families:
        st.session_state["family"] = wanted
    else:
        st.toast(
            f"The link names the family '{show.plain(wanted[:60])}', which is not on this machine.",
            icon=":material/link_off:",
        )


def another() -> None:
    """A field for the path of a family that is not in the list."""
    with st.popover("Open another family", icon=":material/folder_open:"):
        st.markdown(
            "The path of a folder with a `family.yaml`. It must lie in one of the folders that "
            "this app was started with:"
        )
        for place in places():
            st.markdown(f"- {show.plain(str(place.resolve()))}")
        st.text_input("Path", key="family path", placeholder="folder, or folder/family.yaml")
        st.button("Open", on_click=_open, type="primary", key="family open")
        if (problem := st.session_state.get("family path problem")) is not None:
            show.problem(problem)


def _open() -> None:
    """Open what was typed, and choose it."""
    text = st.session_state.get("family path", "")
    try:
        file = folders.locate(text, places())
        load_family(file)
    except InputError as error:
        st.session_state["family path problem"] = str(error)
        return
    st.session_state.pop("family path problem", None)
    opened = st.session_state.get("opened families", [])
    st.session_state["opened families"] = [*dict.fromkeys([*opened, str(file)])]
    st.session_state["family"] = next(
        label for label, other in found().items() if other.samefile(file)
    )


def _title(file: Path) -> str:
    try:
        return load_family(file).name
    except InputError:
        return file.parent.name


def current() -> FamilyFile:
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
        return load_family(file)
    except InputError as error:
        show.problem(str(error))
        st.stop()


def preparation(collection: FamilyFile) -> Job:
    """The job that prepares the family; started when it is first asked for."""
    key = _signature(collection)
    job = st.session_state.get("preparation")
    if job is None or job.request != key:
        if job is not None:
            job.cancel()
        job = Job(key, "Preparing the family", partial(prepare.prepare, collection, key))
        st.session_state["preparation"] = caches.worker().submit(job)
    return job


def _signature(collection: FamilyFile) -> tuple[object, ...]:
    """Changes when the family's description or any of its files does."""
    paths = [collection.folder / collection.base]
    paths += [collection.folder / expert.model for expert in collection.experts]
    kinds = ("*.safetensors", "adapter_config.json")
    files = [f for p in paths for f in (_matching(p, kinds) if p.is_dir() else [p])]
    stamps = tuple((str(f), f.stat().st_mtime_ns if f.exists() else 0) for f in files)
    return (collection.model_dump_json(), str(collection.folder), *stamps)


def _matching(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted(file for pattern in patterns for file in folder.glob(pattern))


def prepared(job: Job) -> prepare.Prepared | None:
    """What the preparation found; None while it runs; an error stops the page."""
    now = job.snapshot()
    if now.state in ("failed", "cancelled"):
        show.problem(now.error or "The preparation of this family was cancelled.")
        if st.button("Try again", icon=":material/refresh:"):
            del st.session_state["preparation"]
            st.rerun()
        st.stop()
    return now.result
