"""A finished merge: which one is shown, its headline, and a tab for each way to look at it."""

from __future__ import annotations

from functools import partial

import streamlit as st

from mats_core import figures
from mats_core.analysis import Way
from mats_core.evaluation import half_width
from mats_core.recipes import Report

from ..controls import settings
from ..frame import Wanted, caches, keys, session, show, shown, tabs
from ..work import Job, Prepared, Request, Run, merge, runs, shipped, tested
from . import comparison, conflict, convergence, final, layers, spectra, why

NUMBERS = {
    "normalised": ("Normalised accuracy", "Mean over the tasks of merged / expert accuracy."),
    "gap": (
        "Gap recovered",
        "0 %: as good as the pre-trained encoder with the experts' heads; 100 %: as good as the "
        "experts.",
    ),
    "accuracy": ("Mean accuracy", "Mean over the tasks, on {} examples."),
}


def earlier(family: str) -> None:
    """A way to the merges that were made before this session."""
    kept = {run.id: run.label for run in reversed(runs.everything(family))}
    if kept:
        st.selectbox(
            "Earlier merges on this machine", list(kept), index=None, key=keys.SHOWN_RUN,
            format_func=lambda id: kept[id], placeholder=f"Show one of {len(kept)}",
            persist_state="session",
        )  # fmt: skip


def pick(family: str) -> tuple[Run, Run | None]:
    """Which run is shown, and which one stands beside it: at first the pinned one."""
    kept = {run.id: run for run in runs.everything(family)}
    if session.beside_run not in kept:
        session.beside_run = runs.pinned(family) if runs.pinned(family) in kept else None
    if len(kept) < 2:
        return tested.with_estimates(next(iter(kept.values()))), None
    left, right, pin = st.columns([4, 4, 3], vertical_alignment="bottom")
    names = {id: run.label for id, run in kept.items()}
    newest_first = list(reversed(kept))
    left.selectbox(
        "Showing", newest_first, format_func=lambda n: names[n], key=keys.SHOWN_RUN,
        persist_state="session",
    )  # fmt: skip
    right.selectbox(
        "Compare with", [None, *newest_first], key=keys.BESIDE_RUN,
        format_func=lambda n: "nothing" if n is None else names[n], placeholder="nothing",
        persist_state="session",
    )  # fmt: skip
    pinned = shown.baseline(family)
    pin.toggle(
        "Pin", pinned is not None, key=f"pin {pinned.id if pinned else ''}", on_change=_pin,
        args=(family,), help="Keep the run beside as the baseline of the runs to come.",
    )  # fmt: skip
    run, beside = shown.run(family), shown.beside(family)
    assert run is not None
    return tested.with_estimates(run), beside if beside is not run else None


def _pin(family: str) -> None:
    """Make the run beside the baseline, or have none."""
    runs.pin(family, session.beside_run if runs.pinned(family) is None else None)


def changed(request: Request, run: Run) -> None:
    """Say where the knobs no longer stand as they stood for the run that is shown."""
    differences = settings.changed(request, run.recipe)
    if not differences or run.shipped:  # nobody has set what came with the family
        return
    more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
    with st.container(horizontal=True, vertical_alignment="center"):
        text = f"Settings changed since this run: {', '.join(differences[:3])}{more}."
        st.markdown(f":material/edit: :small[{show.plain(text)}]", width="stretch")
        st.button(
            "Back to this run's", icon=":material/history:", type="tertiary",
            on_click=_want, args=(run,),
        )  # fmt: skip


def _want(run: Run) -> None:
    session.wanted = Wanted.of(run.recipe)


def headline(run: Run, beside: Run | None, preparing: Job) -> None:
    """Four numbers, with their change against the run beside on the examples that both were
    asked."""
    st.header(show.plain(run.label), anchor=False)
    now = figures.headline(run.report)
    changes = figures.headline_changes(run.report, beside.report) if beside else {}
    against = f"vs {beside.number}" if beside else None
    with st.container(horizontal=True, gap="medium"):
        for key, (label, help) in NUMBERS.items():
            value = now[key]
            delta = f"{100 * changes[key]:+.1f} points" if key in changes else None
            st.metric(
                label,
                "–" if value is None else figures.percent(value),
                delta=delta,
                delta_description=against if delta else None,
                help=help.format(run.report.split),
                width="content",
            )
        if run.report.routed:
            st.metric(
                "Size",
                f"{run.report.size:.2f} ×",
                help="Of merge and branches, as a multiple of the static merge, heads not counted.",
                width="content",
            )
        if not shipped.of_another_machine(run):  # then the time is another machine's
            seconds = run.report.seconds
            st.metric(
                "Time",
                f"{seconds:.1f} s",
                help=f"On {run.report.device}, {run.report.device_reason}.",
                width="content",
            )
    if run.report.refined is not None:
        st.caption(show.plain(f"{show.capital(run.report.refined.sentence)}."))
    if run.shipped:
        st.caption(show.plain(run.shipped))
    if run.draft:
        st.caption("A draft that Live has made, which later ones replace. Press Merge to keep it.")
    if beside is not None and comparison.against(run, beside).mean is not None:
        label = show.label(why.question(run, beside, "it"))
        if st.button(label, icon=":material/help:", type="tertiary", key="why"):
            why.go(run, beside)
    following = caches.worker().named(merge.finer(run)) is not None
    st.caption(show.plain(_tested(run.report, following)))
    final.section(run, preparing)
    show.warnings(run.report.warnings)


def _tested(report: Report, following: bool) -> str:
    """The number and how sure it is; `following`: whether a job asks the examples that are left.

    A plain sentence is seen at once, where metrics wait until the browser has loaded what draws
    them, and with it Plotly.
    """
    if not report.tasks or report.normalised_accuracy is None:
        return ""
    half = f"± {100 * half_width(report.tasks):.1f} points"
    number = f"{figures.percent(report.normalised_accuracy)} {half}"
    asked = sum(task.merged.examples for task in report.tasks)
    left = report.left
    if label := tested.estimated_from(report):
        text = f"Estimated from the run before, {label}: normalised accuracy {number}"
        rest = "follow and replace it" if following else "were not asked; merge again to ask them"
        return f"{text}, by {asked:,} {report.split} examples. The other {left:,} {rest}."
    text = f"Normalised accuracy {number}, by {asked:,} {report.split} examples"
    if left and following:
        return f"{text} so far, the other {left:,} follow in the background."
    if left:
        return f"{text}; the other {left:,} were not asked. Merge again to ask them."
    return f"{text}, all there are."


@st.fragment
def details(run: Run, beside: Run | None, prepared: Prepared) -> None:
    """Everything about a run; a fragment, so that looking around does not rerun the page."""
    looks = figures.looks(e.name for e in prepared.inputs.family.experts)
    iterative = any(len(layer.residuals) > 1 for layer in run.report.layers)
    weighted = any(layer.details.get("task_weights") for layer in run.report.layers)
    views = [tabs.Tab("Accuracy", partial(accuracy, run, beside, looks))]
    if iterative:
        views += [tabs.Tab("Convergence", partial(convergence.convergence, run, looks, prepared))]
    if weighted:
        views += [tabs.Tab("Polarized scaling", partial(layers.polarized, run))]
    views += [
        tabs.Tab("Layers", partial(layers.table, run.report)),
        tabs.Tab("Spectra", partial(_spectra, run, prepared)),
        tabs.Tab("Next", partial(onwards, run)),
    ]
    tabs.show(views, "result view")


def _spectra(run: Run, prepared: Prepared) -> None:
    if run.recipe.rounds > 1:
        st.caption(
            "These are the statistics of the experts, with which the first round was merged; the "
            "last round used those measured at the merge before it."
        )
    spectra.view(prepared.inputs, key="merge spectra")


def accuracy(run: Run, beside: Run | None, looks: dict[str, figures.Look]) -> None:
    report = run.report
    if not report.tasks:
        st.info("The experts of this family name no tasks, so the merge was not evaluated.")
        return
    same = {r.name for r in report.tasks}
    if beside is not None and beside.report.tasks and beside.report.split != report.split:
        show.warnings([comparison.elsewhere([beside], report.split)])
        beside = None
    other = [r for r in beside.report.tasks if r.name in same] if beside else []
    drawn = figures.accuracy_bars(
        report.tasks, looks, label=run.label,
        beside=other, beside_label=beside.label if beside else "", split=report.split,
    )  # fmt: skip
    show.figure(drawn, f"accuracy {run.id} {beside.id if beside else 0}")


def onwards(run: Run) -> None:
    """Where this run goes from here."""
    st.subheader("Go on with this run", anchor=False)
    for page, icon, text in (
        ("compare", "compare_arrows", "Compare it with your other runs, or sweep two of its knobs"),
        ("inside", "search", "Look inside: which examples it lost, and which layers matter"),
        ("export", "ios_share", "Take it away: model, recipe, notebook, report"),
    ):
        st.page_link(f"pages/{page}.py", label=text, icon=f":material/{icon}:")
    ways: dict[Way, str] = {
        "pairs": "Which of its tasks conflict, and why: all pairs, measured and predicted",
        "leave one out": "What would fewer tasks do? Leave out each of them in turn",
    }
    for way, text in ways.items():
        if st.button(text, icon=":material/group_remove:", type="tertiary", key=f"next {way}"):
            conflict.go(way)
    st.caption(f"The address of this page names this run, {run.id}: keep it as a bookmark.")
