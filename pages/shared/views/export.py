"""The cards of the page Export: one for each way to take a run along."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import streamlit as st

from mats_core import export, figures
from mats_core.errors import InputError, size
from mats_core.methods import METHODS
from mats_core.recipes import FamilyFile, LoraOutput

from .. import policy
from ..frame import Slot, families, session, show, shown, tracked
from ..policy import Act
from ..work import Job, Run, Written, runs
from ..work import export as takeaway

IPYNB, HTML, YAML = "application/x-ipynb+json", "text/html", "application/yaml"


def pick(family: str) -> Run | None:
    """Which run is taken along: the one that is shown elsewhere, by default."""
    kept = {run.id: run for run in reversed(runs.everything(family))}
    if not kept:
        return None
    elsewhere = session.shown_run
    place = list(kept).index(elsewhere) if elsewhere in kept else 0
    chosen = st.selectbox(
        "Run", list(kept), index=place, format_func=lambda id: kept[id].label,
        key=f"export run {elsewhere}", persist_state="session",
    )  # fmt: skip
    return kept[chosen]


def headline(run: Run) -> None:
    report, experts = takeaway.finished(run).report, len(run.recipe.experts)
    text = f"{METHODS[run.recipe.method].title} of {experts} experts"
    text += "".join(f", {mark}" for mark in runs.marks(report))
    if report.normalised_accuracy is not None:
        kept = figures.percent(report.normalised_accuracy)
        asked = sum(result.merged.examples for result in report.tasks)
        text += (
            f"; the merged model keeps {kept} of each expert's accuracy on average, on {asked:,} "
            f"{report.split} examples, which recipe, card, notebook and report quote"
        )
    st.markdown(show.plain(f"{text}."))


def place(run: Run) -> str:
    """The family's folder, as it is typed where the app was started."""
    if not policy.current().permits(Act.OUTPUTS):  # where a server keeps it helps no visitor
        return f"{policy.SAMPLES.name}/{run.recipe.folder.name}"
    return export.spelled(run.recipe.folder, Path.cwd())


def published(run: Run) -> str:
    """The same for files that are handed on: nothing where it would name this machine's folders."""
    where = place(run)
    return "" if Path(where).is_absolute() else where


def card(title: str, icon: str, text: str, *, height: Literal["stretch", "content"] = "stretch"):
    box = st.container(border=True, height=height)
    box.header(f":material/{icon}: {title}", anchor=False)
    box.markdown(text)
    return box


def download(label: str, make: Callable[[], object], name: str, kind: str) -> None:
    st.download_button(
        label, make, name, kind, key=f"export {name}", icon=":material/download:",  # type: ignore[arg-type]
        on_click="ignore",
    )  # fmt: skip


# The model ---------------------------------------------------------------------------------------


def model(run: Run, preparing: Job) -> None:
    """Write the model, or show where it is."""
    with card(
        "The model", "deployed_code",
        "The merged encoder as safetensors, each expert's head, recipe and report: a folder that "
        f"transformers loads.{_beside(run)} Or one LoRA that peft puts on the base.",
    ):  # fmt: skip
        lora = _form(run)
        try:
            found = takeaway.written(run, lora)
            if found is None and lora is not None:
                _size(run, preparing, lora)
        except InputError as error:
            show.problem(str(error))
            return
        if found is not None:
            _written(run, found, lora)
            return
        busy = tracked.active(Slot.WRITING) is not None
        st.button(
            "Write the model", type="primary", icon=":material/save:", disabled=busy,
            on_click=_write, args=(run, preparing, lora),
        )  # fmt: skip
        if not policy.current().permits(Act.OUTPUTS):
            most = size(takeaway.most_bytes())
            st.caption(f"It is kept for this session, to be downloaded: {most} at most.")
            return
        st.caption("It goes to this folder, which appears whole or not at all:")
        st.code(str(takeaway.place_of(run, lora).resolve()), language=None, wrap_lines=True)


def _form(run: Run) -> LoraOutput | None:
    """The form that the model is written in: None for the whole checkpoint."""
    forms = takeaway.offered()
    if run.recipe.routed is not None:  # branches lie beside a whole checkpoint
        return None
    chosen = st.selectbox(
        "Form", list(forms), key=f"export form {run.id}", persist_state="session",
        help="A LoRA holds the leading directions of every matrix's merged update, so many or as "
        "many as hold this share of it; biases and norms go along whole.",
    )  # fmt: skip
    return forms[chosen]


def _size(run: Run, preparing: Job, lora: LoraOutput) -> None:
    """How large the adapter will be, before it is written."""
    prepared = families.prepared(preparing)
    if prepared is None:
        return
    told = takeaway.lora_size(run, prepared, lora)
    st.caption(
        f"At most {size(told.most)}, {told.most / told.checkpoint:.2f} × the checkpoint's "
        f"{size(told.checkpoint)}; what is lost is told when it is written."
    )


def _beside(run: Run) -> str:
    """What lies in the folder of a merge that is no static one, in sentences."""
    routed, sums = run.recipe.routed is not None, run.recipe.keep_sums
    return (
        " Its branches lie beside it, in `routed/`, and are loaded by `mats_core`." * routed
        + " With its sums, in `sums/`, to which a recipe adds experts by `adds_to`." * sums
    )


def _write(run: Run, preparing: Job, lora: LoraOutput | None) -> None:
    todo = partial(takeaway.write, run, preparing.outcome, lora=lora)
    tracked.pressed(Slot.WRITING, Job(run.id, "Writing the model", todo, after=preparing))


def _written(run: Run, found: Written, lora: LoraOutput | None) -> None:
    counts = ", ".join(f"{count} {kind}" for kind, count in found.coverage.items() if count)
    st.success(
        show.plain(
            f"Written: {found.files} files, {found.size / 1e6:.1f} MB. All "
            f"{sum(found.coverage.values())} tensors are accounted for: {counts}."
        ),
        icon=":material/check_circle:",
    )
    if found.sentence:
        st.markdown(show.plain(found.sentence))
    if policy.current().permits(Act.OUTPUTS):
        st.code(str(found.folder.resolve()), language=None, wrap_lines=True)
    merge = takeaway.finished(run)
    if found.size <= takeaway.most_bytes():
        download(
            "Download as zip", partial(takeaway.zipped, run, found.folder, published(run), lora),
            f"{merge.stem}{found.folder.name.removeprefix(run.id)}.zip", "application/zip",
        )  # fmt: skip
    else:
        most = size(takeaway.most_bytes())
        st.caption(f"It is larger than {most}: copy the folder instead of downloading it.")


def collect() -> None:
    """Say what became of a model that was being written."""
    tracked.collect(Slot.WRITING, cancelled="Writing was cancelled; nothing was left behind.")


# What repeats it ---------------------------------------------------------------------------------


def recipe(run: Run) -> None:
    merge, where = takeaway.finished(run), place(run)
    with card(
        "Recipe and command line", "terminal",
        f"Everything that decides the result, with fingerprints of the checkpoints. Save it as "
        f"`{merge.stem}.yaml` in the family's folder, `{where}`, and call where the app was "
        "started:",
    ):  # fmt: skip
        st.code("\n".join(export.commands(merge, where)), language="bash", wrap_lines=True)
        if merge.measuring is not None:
            st.caption("The first line measures the statistics; once is enough for all recipes.")
        text = export.recipe_yaml(merge, published(run))
        download("Recipe", text.encode, f"{merge.stem}.yaml", YAML)
        with st.expander("Read it"):
            st.code(text, language="yaml", wrap_lines=True)


def notebook(run: Run) -> None:
    merge = takeaway.finished(run)
    with card(
        "Notebook", "menu_book",
        "Runs the merge again with one call of the library, draws its accuracies, and fails where "
        "a number is not the same.",
    ):  # fmt: skip
        make = partial(export.notebook, merge, place(run))
        download("Notebook", lambda: make().encode(), f"{merge.stem}.ipynb", IPYNB)


def report(run: Run, collection: FamilyFile) -> None:
    merge = takeaway.finished(run)
    with card(
        "Report", "lab_profile",
        "One HTML file to mail or to archive: all plots of this run, live, with every number and "
        "setting. It opens without a network.",
    ):  # fmt: skip
        # By the place in the whole family: the colours are those of the pages.
        looks = figures.looks(expert.name for expert in collection.experts)
        traced = shown.trajectories(run)

        def make() -> bytes:
            drawn = export.run_figures(merge, looks, traced)
            return export.html_report(merge, drawn, published(run), run.created[:10]).encode()

        download("Report", make, f"{merge.stem}.html", HTML)


def mergekit(run: Run) -> None:
    merge = takeaway.finished(run)
    folder = f"outputs/{run.id}"
    if policy.current().permits(Act.OUTPUTS):
        folder = export.spelled(takeaway.outputs_folder() / run.id, Path.cwd())
    found = export.mergekit(merge, folder)
    with card("mergekit", "hub", show.plain(found.sentence)):
        for note in found.notes:
            st.caption(show.plain(note))
        start = "the family's folder" if found.agreement == "same" else "where the app was started"
        name = f"{merge.stem}.mergekit.yaml"
        download("mergekit YAML", found.config.encode, name, YAML)
        with st.expander("Read it"):
            st.code(found.config, language="yaml", wrap_lines=True)
            st.caption(f"Its paths start at {start}.")
