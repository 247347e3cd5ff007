"""New family: a base and its experts picked from what lies on this machine, and kept as a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import streamlit as st

from mats_core.checkpoints import ListedModel, ModelSearch
from mats_core.errors import InputError
from mats_core.methods import WITHOUT_DATA
from mats_core.recipes import (
    MEAN,
    FamilyFile,
    by_hand,
    distinct_names,
    dump_family,
    load_family,
    new_family,
    task_of,
)
from mats_core.tasks import Guess

from .. import policy
from ..frame import Slot, Wanted, browser, families, progress, session, show, tracked
from ..policy import Act
from ..work import Draft, drafts, merge
from . import bringing, new_members, new_tasks

MANY = 24  # models whose problem is shown


def button() -> None:
    """The way in."""
    if not policy.current().permits(Act.FAMILIES):
        return
    st.button("New family", icon=":material/add:", on_click=_begin, key="new family")


def manage(collection: FamilyFile) -> None:
    """What can be done with the family that is chosen."""
    if not policy.current().permits(Act.FAMILIES):
        return
    file = families.file_of(collection)
    with st.popover("This family", icon=":material/edit:"):
        st.caption(show.plain(str(file)))
        if why := by_hand(file):
            st.markdown(f"It is not changed or removed from here: {why}.")
        else:
            st.button("Edit", icon=":material/edit:", on_click=_begin, args=(file, True))
        st.button("Duplicate", icon=":material/content_copy:", on_click=_begin, args=(file, False))
        if not why:
            st.button("Remove", icon=":material/delete:", on_click=_remove, args=(file,))
            st.caption("Removes this file alone: no model, no result.")


def instead(known: dict[str, Path]) -> bool:
    """Draw the form in the place of the page where one is open."""
    if not policy.current().permits(Act.FAMILIES):
        del session.draft
    if session.draft is None:
        show.notices()
        if not known:  # which is said below
            button()
        return False
    _form(session.draft, known)
    return True


def _begin(file: Path | None = None, change: bool = False) -> None:
    """Open the form: empty, or with what stands in a family."""
    show.forget()
    number = session.draft_count = session.draft_count + 1
    _look(file)
    if file is None:
        found = drafts.proposed(session.models or ModelSearch(), families.found().values())
        base = str(found.base.path) if found else ""
        session.draft = Draft(number, base=base, because=found.sentence if found else "")
        return
    try:
        family = load_family(file)
    except InputError as error:
        show.keep("error", str(error))
        return
    base, experts = drafts.chosen(family, session.models or ModelSearch())
    name = family.name if change else f"{family.name} (copy)"
    session.draft = Draft(number, name, base, experts, file if change else None, like=file)


def _look(file: Path | None = None) -> None:
    """Search again: what was added meanwhile is listed."""
    session.models = drafts.looked(families.roots(), drafts.members(file) if file else ())


def _remove(file: Path) -> None:
    try:
        drafts.remove(file)
        show.keep("info", f"'{file}' was removed; the models are where they were.")
    except InputError as error:
        show.keep("error", str(error))


def _close() -> None:
    del session.draft


# The form -----------------------------------------------------------------------------------------


def _form(draft: Draft, known: dict[str, Path]) -> None:
    found = session.models or ModelSearch()
    st.header("Edit the family" if draft.file else "New family", anchor=False)
    progress.bar(Slot.AVERAGING)
    _searched(found, draft)
    homes = drafts.homes(families.roots(), None)
    bringing.view(homes[0] if homes else None, partial(_look, draft.like))
    found = session.models or ModelSearch()
    usable = [one for one in found.models if not one.problem]
    if not usable:
        st.info(
            "No model lies there. Put folders with model.safetensors and config.json, as "
            "save_pretrained writes them, below one of these folders, and search again."
        )
        st.button("Cancel", on_click=_close)
        return
    base = new_members.pick_base(draft, usable)
    if base is None:
        st.button("Cancel", on_click=_close)
        return
    experts, strangers = new_members.tick_experts(draft, base, usable)
    if not new_members.has_base(draft):
        experts, base = [base, *experts] if experts else [], None
    kept = drafts.tasks_in(draft.like, experts)
    key = f"draft {draft.number}"
    told = new_tasks.choose(key, experts, base, found.data, kept) if experts else {}
    _keep(draft, base, experts, told, known, strangers)


def _searched(found: ModelSearch, draft: Draft) -> None:
    """Where was searched, and everything that was found, to be looked through."""
    with st.container(horizontal=True, vertical_alignment="center"):
        places = ", ".join(str(root.resolve()) for root in families.roots())
        count = len(found.models)
        st.caption(
            f"{count} model{'s' if count != 1 else ''} in {show.plain(places)} and in the cache "
            "of the Hugging Face hub.",
            width="stretch",
        )
        st.button(
            "Search again", icon=":material/refresh:", on_click=_look, args=(draft.like,),
            type="tertiary",
        )  # fmt: skip
    show.warnings(found.left_out)
    if not found.models:
        return
    with st.expander("All that was found", icon=":material/list:"):
        st.dataframe(_table(found.models), hide_index=True)
        problems = [one for one in found.models if one.problem]
        if problems:
            st.markdown("These cannot be opened as they are:")
        for one in problems[:MANY]:
            st.markdown(f":small[**{show.plain(one.name)}**: {show.plain(one.problem)}]")


def _table(models: Sequence[ListedModel]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "model": one.name,
            "what it is": drafts.KINDS[one.kind] + (", of a merge" if one.merged else ""),
            "architecture": one.architecture or "unknown",
            "MB": one.nbytes / 1e6,
            "written": drafts.written(one),
            "licence": one.licence or "not stated",
            "made from": ", ".join(one.made_from),
            "where": one.reference,
        }
        for one in models
    )


def _keep(
    draft: Draft,
    base: ListedModel | None,
    experts: Sequence[ListedModel],
    told: Mapping[Path, Guess | None] | None,
    known: dict[str, Path],
    strangers: Mapping[Path, bool],
) -> None:
    """Name and place, and the press that writes the file; no press while `told` is None."""
    st.markdown("**4. Keep it** as a family.yaml, which you can read, change and share.")
    key, roots = f"draft {draft.number}", families.roots()
    first = base or next(iter(experts), None)
    homes = [draft.file.parent.parent] if draft.file else drafts.homes(roots, first)
    if not homes:
        st.error("None of the folders that this app was started with can be written.")
        return
    left, right = st.columns(2)
    titles = [families.title_of(file) for file in known.values() if file != draft.file]
    name = left.text_input(
        "Name",
        draft.name or (drafts.free_name(first, titles) if first else ""),
        key=f"{key} name {first.path if first else ''}",
    )
    home = right.selectbox(
        "In the folder", homes, format_func=lambda p: str(p.resolve()), key=f"{key} home",
        disabled=len(homes) == 1,
    )  # fmt: skip
    folder = draft.file.parent if draft.file else drafts.folder_in(home, name)
    family, tasks = None, dict[str, str]()
    try:
        if told is not None:
            chosen, tasks = _tasks(folder, experts, told)
            family = _family(draft, name, folder, base, experts, chosen, titles, strangers)
    except InputError as error:
        st.caption(show.plain(str(error)))
    if family is not None:
        with st.expander(f"What is written: {show.label(folder.name)}/family.yaml"):
            st.code(dump_family(family), language="yaml")
            for reference, text in tasks.items():
                st.caption(show.plain(reference))
                st.code(text, language="yaml")
    with st.container(horizontal=True):
        st.button(
            "Save and go to Merge", type="primary", icon=":material/check:",
            disabled=family is None or tracked.active(Slot.AVERAGING) is not None,
            on_click=_save, args=(family, tasks, draft.file is not None),
        )  # fmt: skip
        st.button("Cancel", on_click=_close)


def _tasks(
    folder: Path, experts: Sequence[ListedModel], told: Mapping[Path, Guess | None]
) -> tuple[dict[Path, str | None], dict[str, str]]:
    """(path → reference of its task, reference → YAML that is written) of a family in a folder."""
    chosen, texts = dict[Path, str | None](), dict[str, str]()
    names = distinct_names([one.name for one in experts])
    for one, own in zip(experts, names, strict=True):
        if one.path not in told:
            continue
        if (guess := told[one.path]) is None:
            chosen[one.path] = None
            continue
        reference, text = task_of(own, folder, guess, families.roots())
        chosen[one.path] = reference
        texts |= {reference: text} if text else {}
    return chosen, texts


def _family(
    draft: Draft,
    name: str,
    folder: Path,
    base: ListedModel | None,
    experts: Sequence[ListedModel],
    chosen: Mapping[Path, str | None],
    titles: Sequence[str],
    strangers: Mapping[Path, bool],
) -> FamilyFile:
    """The family as it would be written, with what the page does not ask about as it was."""
    if name.strip().casefold() in {title.casefold() for title in titles}:
        raise InputError(
            f"name '{name}'", expected="one of its own", found="that of another family",
            remedy="Results are kept by this name: choose another one.",
        )  # fmt: skip
    like = load_family(draft.like) if draft.like else None
    return new_family(
        name, folder, base, experts, roots=families.roots(), tasks=chosen, like=like,
        strangers=bool(strangers), aligned=strangers,
    )  # fmt: skip


def _save(family: FamilyFile, tasks: Mapping[str, str], change: bool) -> None:
    try:
        file = drafts.save(family, tasks, replace=change)
    except InputError as error:
        show.keep("error", str(error))
        return
    if family.base == MEAN and not (family.folder / MEAN).exists():
        todo = partial(drafts.write_mean, family)
        tracked.start(Slot.AVERAGING, file, "Writing the mean of the experts", todo)
        return
    _chosen(file)


def _chosen(file: Path) -> None:
    """Have the pages work on a family that was saved."""
    families.choose(file)
    if merge.lacking(load_family(file)):
        session.wanted = Wanted(WITHOUT_DATA)
    session.draft = replace(session.draft, number=-1) if session.draft else None


def go_on() -> None:
    """To the page Merge, after the press that saved and what had to be written then; before
    anything of the page is drawn."""
    tracked.collect(Slot.AVERAGING, lambda job: _chosen(job.request))
    if session.draft is not None and session.draft.number < 0:
        del session.draft
        browser.go("merge")
