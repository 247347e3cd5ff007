"""The finished merges of a session: kept in order, two of them looked at side by side.

All reading and writing of runs goes through here, so that they can move to disk.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import streamlit as st

from mats_core.methods import METHODS
from mats_core.recipe import Recipe, describe
from mats_core.report import Report
from mats_core.trajectory import Trajectory

MOST = 8
SHORT = {
    "essential": "ESM",
    "kfac": "K-FAC",
    "regmean": "RegMean",
    "fisher": "Fisher",
    "dare": "DARE",
}


@dataclass
class Run:
    """One finished merge, and what was traced of it afterwards."""

    number: int
    family: str
    family_size: int
    recipe: Recipe
    report: Report
    trajectories: dict[str, Trajectory] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """`2 · ESM · layer power 0`: number, method, and what differs from the defaults."""
        defaults = {option.name: option.default for option in describe(self.recipe.method)}
        changed = [
            f"{name.replace('_', ' ')} {value}"
            for name, value in self.report.options.items()
            if value != defaults[name]
        ]
        if len(self.recipe.experts) < self.family_size:
            changed.append(f"{len(self.recipe.experts)} experts")
        more = [f"{len(changed) - 2} more"] if len(changed) > 2 else []
        method = self.recipe.method
        name = SHORT.get(method, METHODS[method].title)
        return " · ".join([str(self.number), name, *changed[:2], *more])


def everything(family: str) -> list[Run]:
    """All kept runs of a family, oldest first."""
    return [run for run in st.session_state.get("runs", []) if run.family == family]


def add(family: str, family_size: int, recipe: Recipe, report: Report) -> Run:
    """Keep a run and show it, with the one shown before beside it (unless one is pinned)."""
    kept: list[Run] = st.session_state.setdefault("runs", [])
    number = st.session_state["run count"] = st.session_state.get("run count", 0) + 1
    run = Run(number, family, family_size, recipe, report)
    pinned = st.session_state.get("beside run") if st.session_state.get("pin") else None
    before = st.session_state.get("shown run")
    kept.append(run)
    if len(kept) > MOST:
        kept.remove(next(r for r in kept if r.number not in (pinned, number)))
    st.session_state["shown run"] = number
    if pinned is None:
        st.session_state["beside run"] = before
    return run


def chosen(family: str, key: str) -> Run | None:
    """The run that `shown run` or `beside run` names."""
    number = st.session_state.get(key)
    return next((run for run in everything(family) if run.number == number), None)


def differences(shown: Run, beside: Run) -> list[tuple[str, str, str]]:
    """(setting, shown, beside) of every setting that differs.

    An option that one of the methods does not have counts where it is not at its default.
    """
    first, second = _settings(shown), _settings(beside)
    unremarkable = _defaults(shown) | _defaults(beside)
    return [
        (name, first.get(name, "–"), second.get(name, "–"))
        for name in dict.fromkeys([*first, *second])
        if first.get(name) != second.get(name)
        and not (
            (name not in first or name not in second)
            and unremarkable.get(name) == first.get(name, second.get(name))
        )
    ]


def _defaults(run: Run) -> dict[str, str]:
    return {_title(f.name): _text(f.default) for f in describe(run.recipe.method)}


def _title(option: str) -> str:
    return option.replace("_", " ")


def _text(value: object) -> str:
    return "by default" if value is None else str(value)


def _settings(run: Run) -> dict[str, str]:
    experts = ", ".join(entry.name for entry in run.recipe.experts)
    fixed = {
        "method": METHODS[run.recipe.method].title,
        "experts": experts,
        "seed": str(run.recipe.seed),
        "arithmetic": run.recipe.dtype,
    }
    return fixed | {_title(name): _text(value) for name, value in run.report.options.items()}
