"""`docs/study.md` from the kept results: tables and plots, with the sentences of `readings.py`."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

from mats_core.methods import METHODS

from . import beside, foretold, frontier, questions, scalings
from .answers import ANSWERS, TITLE_OF
from .cells import DOCS, EVERY, LARGER, TITLES, Stores, latest, on_test, settings
from .readings import READINGS
from .trials import Store


def write(results: Path) -> None:
    """Write the page and its plots; what was not run is said to be missing."""
    stores = {name: Store.of(results, name) for name in TITLES}
    stores = {name: store for name, store in stores.items() if store.content["results"]}
    tables = {n: Store.of(results, n) for n in EVERY}
    larger = {n: Store.of(results, n) for n in LARGER}
    reached = frontier.table({n: Store(frontier.place(results, n)) for n in EVERY}, tables)
    parts = [
        INTRODUCTION,
        _families(stores),
        _table(tables),
        _steps(tables),
        reached,
    ]
    for name, section in ANSWERS.items():
        shown, said = latest(results, name, {**tables, **larger} if name == "number" else stores)
        body = "\n\n".join(part for part in (section(shown), said) if part)
        if name == "pairs":
            body = "\n\n".join(part for part in (body, foretold.table(results, EVERY)) if part)
        if name == "number":
            body = "\n\n".join(part for part in (body, scalings.table(results, "sample")) if part)
        if body:
            parts.append(f"## {TITLE_OF[name]}\n\n{body}\n\n{READINGS.get(name, '')}".rstrip())
    parts.append(READINGS.get("end", ""))
    (DOCS / "study.md").write_text("\n\n".join(part for part in parts if part) + "\n", "utf-8")


INTRODUCTION = """# The study: which method wins on real data

Two families of real checkpoints (`benchmarks/families`), every method, the same number of trials
each. Written by `make study` from the results kept in `benchmarks/study/results/`; the sentences
under the plots were written by people for exactly these numbers. *Normalised* is the mean over
tasks of merged / expert accuracy; *gap* is the share of the way from the pre-trained encoder (with
the expert's head) to the experts. Everything was chosen on validation data; only the
tables that say so look at the test halves, of which they take 400 examples a task."""


# The families and the table of methods ------------------------------------------------------------


def _families(stores: Stores) -> str:
    lines = []
    for name, store in stores.items():
        known = [r for r in store.content["results"].values() if r["trial"]["split"] == "test"]
        if not known:
            continue
        tasks = known[0]["tasks"]
        lines += [
            f"**{TITLES[name]}**, test accuracy of expert / of the pre-trained encoder with its "
            "head: "
            + ", ".join(f"{task} {100 * v[1]:.1f} / {100 * v[2]:.1f}" for task, v in tasks.items())
            + f" (of {min(v[3] for v in tasks.values())} examples or more).",
            "",
        ]
    return "\n".join(lines).rstrip()


def _table(stores: Stores) -> str:
    parts = ["## Every method, default and searched (test halves)"]
    for name, store in stores.items():
        rows = [_row(store, method) for method in questions.SEARCH]
        rows = [row for row in rows if row]
        if not rows:
            continue
        kinds = [beside.COLUMNS[kind] for kind in beside.columns(store)]
        rows += [_reference(store, each) for each in (beside.EXPERTS, beside.PRETRAINED) if kinds]
        heads = ["method", "default: normalised", "gap", "searched: normalised", "gap",
                 "found by the search", *kinds]  # fmt: skip
        parts += [
            f"### {EVERY[name]}",
            "\n".join([f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads), *rows]),
        ]
        if READINGS.get(f"table {name}"):
            parts.append(READINGS[f"table {name}"])
    seeds = len(questions.SEEDS)
    parts.append(
        "± is half a 95 % interval over the test examples, the experts' accuracies taken as given; "
        f"in brackets the standard deviation over {seeds} seeds of calibration data, for methods "
        f"that read any. {questions.TRIALS} trials a method, the defaults among them, on "
        f"{questions.ASKED} validation examples a task. {beside.SAID}"
    )
    return "\n\n".join(parts)


def _steps(stores: Stores) -> str:
    """Steps after a merge on the test halves, each with the best of its options on validation."""
    lines = []
    for name, store in stores.items():
        for method in questions.STEPPED:
            bare = on_test(store, questions.default(method))
            for step in questions.STEPS:
                tried = [(t, store.get(t)) for t in questions.candidates_after(method, step)]
                known = [(result["normalised"], t) for t, result in tried if result]
                if len(known) < len(tried):
                    continue
                best = max(known, key=lambda pair: pair[0])[1]
                if not store.get(best.on_test()):
                    continue
                options = settings(best.after[0][step])
                title = METHODS[method].title
                cells = [EVERY[name], title, *bare, f"`{step}`, {options}", *on_test(store, best)]
                lines.append("| " + " | ".join(cells) + " |")
    if not lines:
        return ""
    head = "| family | method | alone | gap | step, chosen of three | with it | gap |"
    table = "\n".join([head, "|" + " --- |" * 7, *lines])
    title = "## A step after the merge (test halves)"
    return "\n\n".join(part for part in (title, table, READINGS.get("steps", "")) if part)


def _row(store: Store, method: str) -> str:
    first = questions.default(method)
    tried = [(t, store.get(t)) for t in questions.candidates(method)]
    known = [(trial, result) for trial, result in tried if result]
    if not known:
        return ""
    best = max(known, key=lambda pair: pair[1]["normalised"])[0]
    if not any(store.get(trial.on_test()) for trial in (first, best)):
        return ""  # nothing but what it was chosen on
    cells = [METHODS[method].title, *on_test(store, first), *on_test(store, best)]
    changed = {k: v for k, v in best.options.items() if first.options.get(k, ...) != v}
    cells += [settings(changed) or "the defaults", *beside.cells(store, method)]
    return "| " + " | ".join(cells) + " |"


def _reference(store: Store, name: str) -> str:
    """The experts, or the encoder that they come from, in the place of a method."""
    results = store.content["results"].values()
    known = next(r["tasks"].values() for r in results if r["trial"]["split"] == "test")
    kept = mean(base / expert for _, expert, base, _ in known)
    title, normalised, gap = {
        beside.EXPERTS: ("*the experts, each on its task*", "100", "100 %"),
        beside.PRETRAINED: ("*the base with their heads*", f"{100 * kept:.1f}", "0 %"),
    }[name]
    cells = [title, normalised, gap, "", "", "", *beside.cells(store, name)]
    return "| " + " | ".join(cells) + " |"
