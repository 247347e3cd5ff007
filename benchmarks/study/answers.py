"""The study's questions one by one: each a plot, a table, or both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from scipy.stats import spearmanr

from mats_core.methods import METHODS

from . import numbered, plots, questions
from .cells import DOCS, NAMED, TITLES, Stores, on_test, settings
from .trials import Store, Trial

FIGURES = DOCS / "study"


def _points(
    store: Store, trials: Iterable[Trial], x: Callable[[Trial], float]
) -> list[tuple[float, float]]:
    found = [(x(trial), store.get(trial)) for trial in trials]
    return [(place, 100 * result["normalised"]) for place, result in found if result]


def _picture(name: str, panels: Mapping[str, Any], draw: Callable[..., None], **how: Any) -> str:
    shown = {NAMED[key]: value for key, value in panels.items() if value}
    if not shown:
        return ""
    draw(FIGURES / f"{name}.svg", shown, **how)
    return f"![{TITLE_OF[name]}](study/{name}.svg)"


def _lines(
    name: str,
    stores: Stores,
    series: Callable[[Store], dict[str, list[tuple[float, float]]]],
    **how: Any,
) -> str:
    panels = {
        key: {k: v for k, v in series(store).items() if len(v) > 1} for key, store in stores.items()
    }
    return _picture(name, panels, plots.lines, y="normalised accuracy, %", **how)


def _kfac(**options: Any) -> Trial:
    return Trial("kfac", {"tolerance": 0.0, **options}, asked=questions.ASKED)


def _damping(stores: Stores) -> str:
    steps = (2, 5, 15, 50)

    def series(store: Store) -> dict[str, list[tuple[float, float]]]:
        found = {
            f"δ = {d:g}": _points(
                store,
                [_kfac(damping=d, iterations=i) for i in steps],
                lambda t: t.options["iterations"],
            )
            for d in (0.0, 0.01, 0.1, 1.0)
        }
        for d in (0.0, 0.1):
            found[f"δ = {d:g}, from RegMean"] = _points(
                store,
                [_kfac(damping=d, iterations=i, start="regmean") for i in (5, 50)],
                lambda t: t.options["iterations"],
            )
        return found

    picture = _lines("damping", stores, series, x="CG iterations", log=True)
    rows = []
    for label, options in (
        ("Tikhonov 0.1", {"damping": 0.1}),
        ("Tikhonov 0.01", {"damping": 0.01}),
        *((f"proximal {a:g}", {"damping": 0.0, "anchor": a}) for a in (0.001, 0.01, 0.1)),
        *((f"off-diagonal {o:g}", {"damping": 0.0, "off_diagonal": o}) for o in (0.5, 0.9)),
        ("nothing", {"damping": 0.0}),
    ):
        rows.append((label, _kfac(**options, iterations=50)))
    return "\n\n".join(part for part in (picture, _small_table(stores, rows)) if part)


def _small_table(stores: Stores, rows: Iterable[tuple[str, Trial]]) -> str:
    lines = ["| | " + " | ".join(TITLES[name] for name in stores) + " |"]
    lines.append("| --- |" + " --- |" * len(stores))
    filled = False
    for label, trial in rows:
        found = [store.get(trial) for store in stores.values()]
        filled = filled or any(found)
        cells = [f"{100 * result['normalised']:.1f}" if result else "–" for result in found]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) if filled else ""


def _rank(stores: Stores) -> str:
    off = {"task_power": 0.0, "dimension_power": 0.0, "layer_power": 0.0}
    asked = questions.ASKED

    def series(store: Store) -> dict[str, list[tuple[float, float]]]:
        ranks = (1, 2, 4, 8, 16, 32, 64)
        return {
            "ESM": _points(
                store,
                [Trial("essential", {"rank": r}, asked=asked) for r in ranks],
                lambda t: t.options["rank"],
            ),
            "ESM, no scaling": _points(
                store,
                [Trial("essential", {"rank": r, **off}, asked=asked) for r in ranks],
                lambda t: t.options["rank"],
            ),
        }

    picture = _lines("rank", stores, series, x="directions kept of each task", log=True)
    rows = [
        (
            f"K-FAC, {r:,} directions of B ⊗ A",
            Trial("kfac", {"rank": r, "iterations": 20}, asked=asked),
        )
        for r in (30, 300, 3000, 30_000)
    ]
    return "\n\n".join(part for part in (picture, _small_table(stores, rows)) if part)


def _calibration(stores: Stores) -> str:
    asked = questions.ASKED

    def series(store: Store) -> dict[str, list[tuple[float, float]]]:
        return {
            METHODS[method].title: _points(
                store,
                [Trial(method, examples=n, asked=asked) for n in (8, 32, 128, 256, 512)],
                lambda t: t.examples,
            )
            for method in ("essential", "regmean", "kfac")
        }

    picture = _lines("calibration", stores, series, x="examples measured a task", log=True)
    rows = []
    for method in ("kfac", "fisher"):
        title = METHODS[method].title
        rows += [
            (f"{title}, empirical Fisher (default)", Trial(method, asked=asked)),
            (f"{title}, true Fisher", Trial(method, labels="true", asked=asked)),
            (f"{title}, normalised by task", Trial(method, {"normalise": True}, asked=asked)),
            (f"{title}, not normalised", Trial(method, {"normalise": False}, asked=asked)),
        ]
    for method in ("regmean", "kfac"):
        title = METHODS[method].title
        rows += [
            (f"{title}, bias folded in", Trial(method, {"fold_bias": True}, asked=asked)),
            (f"{title}, the rest by Fisher", Trial(method, {"remaining": "fisher"}, asked=asked)),
        ]
    return "\n\n".join(part for part in (picture, _small_table(stores, rows)) if part)


def _levels(stores: Stores) -> str:
    asked, off = questions.ASKED, dict.fromkeys(questions.LEVELS, 0.0)

    def series(store: Store) -> dict[str, list[tuple[float, float]]]:
        return {
            f"only {level.removesuffix('_power')}": [
                *_points(store, [Trial("essential", off, asked=asked)], lambda t: 0.0),
                *_points(
                    store,
                    [
                        Trial("essential", {**off, level: p}, asked=asked)
                        for p in (0.5, 1.0, 2.0, 4.0)
                    ],
                    lambda t, level=level: t.options[level],
                ),
            ]
            for level in questions.LEVELS
        }

    picture = _lines("levels", stores, series, x="power")
    on = dict.fromkeys(questions.LEVELS, 2.0)
    rows = [("all off", Trial("essential", off, asked=asked))]
    rows += [
        (
            f"all but {level.removesuffix('_power')}",
            Trial("essential", {**on, level: 0.0}, asked=asked),
        )
        for level in questions.LEVELS
    ]
    rows.append(("all at 2 (published)", Trial("essential", on, asked=asked)))
    return "\n\n".join(part for part in (picture, _small_table(stores, rows)) if part)


def _number(stores: Stores) -> str:
    """Means over the orders in which tasks are added, of numbers of which every order was run."""
    found = {name: numbered.curves(store) for name, store in stores.items()}
    panels = {
        name: {way.title: [(n, value) for n, (value, _) in cells.items()] for way, cells in ways}
        for name, ways in found.items()
    }
    picture = _picture("number", panels, plots.lines, x="tasks merged", y="normalised accuracy, %")
    tables = [numbered.table(NAMED[name], ways) for name, ways in found.items() if ways]
    return "\n\n".join(part for part in (picture, *tables) if part)


def _pairs(stores: Stores) -> str:
    panels = {}
    for name, store in stores.items():
        losses: dict[str, float] = {}
        for result in store.content["results"].values():
            trial = result["trial"]
            if trial["method"] == "average" and len(trial["experts"]) == 2 and not trial["weights"]:
                label = " + ".join(trial["experts"])
                losses[label] = 100 - 100 * result["normalised"]
        worst = sorted(losses.items(), key=lambda pair: -pair[1])[:10]
        panels[name] = {label: (value, 0.0) for label, value in worst}
    picture = _picture("pairs", panels, plots.bars, x="normalised accuracy lost, points")
    return "\n\n".join(part for part in (picture, _predicted(stores)) if part)


def _predicted(stores: Stores) -> str:
    """Rank correlation of predicted and measured loss, over tasks and methods."""
    panels, sentences = {}, []
    for name, store in stores.items():
        points = [tuple(point) for point in store.content.get("predicted", [])]
        if len(points) < 8:
            continue
        rank = spearmanr(*zip(*points, strict=True)).statistic
        panels[name] = points
        sentences.append(f"{TITLES[name]}: rank correlation {rank:.2f} over {len(points)} pairs")
    if not panels:
        return ""
    picture = _picture(
        "predicted", panels, plots.scatter,
        x="predicted loss, nats", y="measured loss, nats",
    )  # fmt: skip
    return picture + "\n\n" + "; ".join(sentences) + "."


def _donor(stores: Stores) -> str:
    def series(store: Store) -> dict[str, list[tuple[float, float]]]:
        found: dict[str, list[tuple[float, float]]] = {}
        for result in store.content["results"].values():
            trial = result["trial"]
            if trial["weights"] and trial["method"] == "regmean":
                target, giver = trial["experts"]
                merged, expert = result["tasks"][target][:2]
                label = f"{target} with {giver}"
                found.setdefault(label, []).append((trial["weights"][1], 100 * (merged - expert)))
        return found

    panels = {key: series(store) for key, store in stores.items()}
    return _picture(
        "donor",
        panels,
        plots.lines,
        x="weight of the donor",
        y="target's accuracy − expert's, points",
    )


def _matching(stores: Stores) -> str:
    rows = [
        (METHODS[method].title + f", {options}", replace(trial, seed=0))
        for method in ("gradient_matching", "kfac_matching", "fisher", "kfac")
        for trial in questions.candidates(method)
        for options in [settings(trial.options) or "default"]
    ]
    return _small_table(stores, rows)


def _way(stores: Stores) -> str:
    """The ablation towards the goal: each step by itself, in the order it was added."""
    lines = []
    for name, store in stores.items():
        steps = store.content.get("way", [])
        if not steps:
            continue
        lines += [f"### {TITLES[name]}", ""]
        lines += ["| step | validation: normalised | gap | test: normalised | gap |"]
        lines += ["| --- | --- | --- | --- | --- |"]
        for step in steps:
            cells = [step["label"]]
            for split in ("validation", "test"):
                result = step.get(split)
                cells += (
                    [f"{100 * result['normalised']:.1f} ± {100 * result['half_width']:.1f}",
                     f"{100 * result['gap']:.0f} %"]
                    if result else ["–", "–"]
                )  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join([*lines, _again(stores)]).rstrip()


def _again(stores: Stores) -> str:
    """Rounds of statistics, over the seeds of calibration data."""
    lines = [
        "| rounds of statistics | " + " | ".join(f"{TITLES[name]} | gap" for name in stores) + " |",
        "| --- |" + " --- | --- |" * len(stores),
    ]
    filled = False
    for method, options in questions.AGAIN:
        for rounds in questions.ROUNDS:
            trial = Trial(method, options, rounds=rounds)
            cells = [cell for store in stores.values() for cell in on_test(store, trial)]
            filled = filled or any(cell != "–" for cell in cells)
            label = f"{METHODS[method].title}, {settings(options) or 'defaults'}: {rounds}"
            lines.append("| " + " | ".join([label, *cells]) + " |")
    return "\n".join(lines) if filled else ""


TITLE_OF = {
    "way": "The way to the whole gap: an ablation",
    "damping": "Which damping, and does stopping early regularise?",
    "rank": "How many directions does a task need?",
    "calibration": "How many examples, which Fisher, which form?",
    "levels": "Polarized scaling, level by level",
    "number": "From two tasks to eight",
    "pairs": "Who interferes with whom, and can it be predicted?",
    "predicted": "Predicted and measured loss",
    "donor": "A donor for a target",
    "matching": "Gradient matching with K-FAC blocks",
}
ANSWERS: Mapping[str, Callable[[Stores], str]] = {
    "way": _way,
    "damping": _damping,
    "rank": _rank,
    "calibration": _calibration,
    "levels": _levels,
    "number": _number,
    "pairs": _pairs,
    "donor": _donor,
    "matching": _matching,
}
