"""Which family the pages work on, and its preparation in the background."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import lru_cache, partial
from pathlib import Path

import streamlit as st

from mats_core import names, tasks
from mats_core.errors import InputError
from mats_core.recipes import FamilyFile, load_family
from mats_core.system import state_of

from .. import policy
from ..policy import Act
from ..work import Job, prepare
from . import browser, folders, keys, navigation, show, shown, state, tracked
from .folders import ROOTS
from .state import Slot, session

LINK = "family"  # the query parameter that names a family, by the name of its folder


def roots() -> list[Path]:
    """The folders that the app was started with: models are searched there, and families kept."""
    return folders.named()


def is_sample(file: Path) -> bool:
    """Whether a family's file came with the app."""
    return file.is_relative_to(policy.SAMPLES)


def found() -> dict[str, Path]:
    """Every family that can be chosen, those that this session opened by their path included."""
    opened: list[Path] = []
    for path in session.opened_families:
        try:  # a folder may have become a link since
            opened.append(folders.locate(path, folders.places()))
        except InputError:
            continue
    return folders.found(folders.places(), opened)


def header(
    title: str,
    lead: str,
    instead: Callable[[dict[str, Path]], bool] = lambda known: False,
    names: Callable[[str], Mapping[str, str | None]] = lambda family: {},
) -> FamilyFile:
    """The top of every page: what it is for, and the family it works on.

    instead   may draw something in the place of the page: where it says so, the page ends
    names     what else the address names on this page of a family, beside it and its run
    """
    navigation.through_the_app()
    tracked.begin()
    left, right = st.columns([11, 4], gap="large", vertical_alignment="bottom")
    with left:
        st.title(title, anchor=False)
        st.markdown(lead)
        show.switched_off()
    with right:
        families = found()
        _follow_link(families)
        _choose(families)
    if instead(families):
        st.stop()
    collection = current()
    named = {LINK: session.chosen_family, shown.LINK: shown.follow_link(collection)}
    browser.name(named | dict(names(collection.name)))
    return collection


def _choose(families: dict[str, Path]) -> None:
    if not families:
        return
    # Set in every run: on another page the widget is a new one and would begin at its first choice.
    wanted = (session.family, session.chosen_family)
    session.family = next((one for one in wanted if one in families), next(iter(families)))
    chosen = st.selectbox(
        "Family of models",
        list(families),
        format_func=lambda label: title_of(families[label]),
        key=keys.FAMILY,
        help="One pre-trained base and the experts that were fine-tuned from it.",
    )
    session.chosen_family = session.followed_family = chosen


def _follow_link(families: dict[str, Path]) -> None:
    """Open the family that the address names, once; one that is not here leaves things as they are.

    Not the widget's own binding: that writes the title that is shown, and only if it is not the
    first one; a link has to name the folder, on any machine.
    """
    wanted = browser.given(LINK, session.followed_family)
    if wanted is None or session.followed_family == wanted:
        return
    session.followed_family = wanted
    if wanted in families:
        session.family = wanted
    else:
        st.toast(
            f"The link names the family '{show.plain(wanted[:60])}', which is not on this machine.",
            icon=":material/link_off:",
        )


def another() -> None:
    """A field for the path of a family that is not in the list."""
    if not policy.current().permits(Act.TYPED_PATHS):
        return
    with st.popover("Open another family", icon=":material/folder_open:"):
        st.markdown(
            "The path of a folder with a `family.yaml`. It must lie in one of the folders that "
            "this app was started with:"
        )
        for place in folders.places():
            st.markdown(f"- {show.plain(str(place.resolve()))}")
        st.text_input("Path", key=keys.FAMILY_PATH, placeholder="folder, or folder/family.yaml")
        st.button("Open", on_click=_open, type="primary", key="family open")
        if (problem := session.family_path_problem) is not None:
            show.problem(problem)


def _open() -> None:
    """Open what was typed, and choose it."""
    try:
        file = folders.locate(session.family_path, folders.places())
        load_family(file)
    except InputError as error:
        session.family_path_problem = str(error)
        return
    del session.family_path_problem
    choose(file)


def file_of(collection: FamilyFile) -> Path:
    """The file that describes a family."""
    return collection.folder / folders.FILE


def choose(file: Path) -> None:
    """Have the pages work on a family, before its widget is drawn or in a callback."""
    session.opened_families = tuple(dict.fromkeys([*session.opened_families, str(file)]))
    session.family = next(label for label, other in found().items() if other.samefile(file))


def _read(file: Path) -> FamilyFile:
    """What a family's file says now: a run of a page asks for it several times."""
    return _parsed(file, state_of(file))


@lru_cache(maxsize=64)
def _parsed(file: Path, state: Hashable) -> FamilyFile:
    return load_family(file)


def title_of(file: Path) -> str:
    """What a family is called; its folder where it cannot be read."""
    try:
        return _read(file).name
    except InputError:
        return file.parent.name


def current() -> FamilyFile:
    """The chosen family; where there is none, says so and stops the page."""
    families = found()
    if not families:
        st.error(
            "There is no family of models to open: no family.yaml lies under sample_models/. Make "
            "one of your own models on the page Family, build the sample family with `python -m "
            "sample_models.build`, or name a folder of your own in the environment variable "
            f"{ROOTS} before you start the app."
        )
        st.stop()
    file = families.get(str(session.family)) or next(iter(families.values()))
    try:
        return _read(file)
    except InputError as error:
        show.problem(str(error))
        st.stop()


def preparation(collection: FamilyFile) -> Job:
    """The job that prepares the family, `after` the one that opens it; both are started when it is
    first asked for, and begun when the page is drawn: it shows what came with the family first."""
    key = _signature(collection)
    job = state.job(Slot.PREPARATION)
    if job is not None and job.request == key:
        return job
    todo = partial(prepare.opened, collection, key)
    first = tracked.start(Slot.OPENING, key, "Opening the family", todo, patient=True)
    more = partial(prepare.whole, first.outcome, key)
    return tracked.start(Slot.PREPARATION, key, "Preparing the family", more, after=first)


def _signature(collection: FamilyFile) -> tuple[object, ...]:
    """Changes when the family's description or any of its files does, those of tasks included.

    A preparation that failed is begun anew as soon as its files are mended.
    """
    folder = collection.folder
    models = [collection.base, *(expert.model for expert in collection.experts)]
    named = [collection.base_task, *(expert.task for expert in collection.experts)]
    files = [file for model in models for file in _inside(folder / model)]
    files += [file for task in named if task for file in tasks.files(task, folder)]
    return (collection.model_dump_json(), str(folder), *map(state_of, files))


def _inside(path: Path) -> list[Path]:
    """The files of a model's folder, or the file that it is."""
    return sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]


def prepared(job: Job) -> prepare.Prepared | None:
    """The prepared family; None while the job runs; an error stops the page."""
    cancelled = "The preparation of this family was cancelled."
    if tracked.ended_badly(Slot.PREPARATION, cancelled=cancelled):
        st.stop()
    return job.snapshot().result


def opened(job: Job) -> prepare.Prepared | None:
    """The family as far as it is known: prepared, or opened only, without statistics."""
    found = prepared(job)
    return found or (job.after.snapshot().result if job.after is not None else None)


def block_depths(job: Job) -> tuple[float, ...]:
    """The relative depths of the blocks of a family that is open; empty before, without blocks,
    and of adapters whose vectors are merged."""
    found: prepare.Prepared | None = (job.after or job).snapshot().result
    if found is None or found.inputs.vectors is not None:
        return ()
    return tuple(names.block_depths(found.inputs.family.shared))
