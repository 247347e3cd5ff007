"""What the tests look at in the kernel of a notebook that has run: its names.

A check that fails raises `AssertionError`, which ends the notebook and with it the test.
"""

from __future__ import annotations

import importlib
import threading
from typing import Any

PATIENCE = 120  # seconds that a panel has for all that explains its result


def look(stem: str, names: dict[str, Any]) -> None:
    """Check the names of the notebook `stem`, and that its panel answers and ends."""
    checks = {"00_five_lines": five_lines, "04_my_models": my_models}
    checks.get(stem, samples)(names)
    panel(names["panel"], whole=stem in checks)


def panel(shown: Any, *, whole: bool) -> None:
    """Its answer (`whole`: all that explains it, which takes long on the sample family) and end."""
    assert shown.wait(PATIENCE, whole=whole)
    assert shown.error == ""
    assert shown.report.tasks
    first = shown.runs[-1].number
    shown.method.value = "tsv_m"  # a knob by hand, and the answer to it
    assert shown.wait(PATIENCE)
    assert shown.report.method == "tsv_m"
    assert shown.runs[-1].number == first + 1
    shown.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "mats-explore"]


def samples(names: dict[str, Any]) -> None:
    assert [one.name for one in names["family"].experts] == ["digits", "counting", "letters"]


def my_models(names: dict[str, Any]) -> None:
    found, merged = names["found"], names["merged"]
    assert found.mean.clear  # K-FAC is better than the average, whose models are real ones
    assert found.mean.value > 0.05
    assert found.mean.paired
    written = names["mats"].evaluate(names["written"])  # the folder, as the library reads it
    assert [one.merged.correct for one in written] == [
        one.merged.correct for one in merged.report.tasks
    ]


def five_lines(names: dict[str, Any]) -> None:
    mean = names["mean"]
    assert mean["K-FAC"] > mean["average"] + 0.3
    assert mean["K-FAC"] > max(mean[name] for name in names["experts"])
    for who in ("average", "K-FAC"):  # counted again, by the merged modules themselves
        right = [
            (names["models"][who](pixels).argmax(1) == labels).float().mean().item()
            for pixels, labels in names["testing"].values()
        ]
        assert abs(sum(right) / 3 - mean[who]) < 1e-6
        told = [names["told"][who][name][0].accuracy for name in names["testing"]]
        assert all(abs(a - b) < 1e-6 for a, b in zip(right, told, strict=True))
        print("again:", who, *(f"{share:.1%}" for share in right))
    residuals = names["merged"].report.layers[3].residuals
    assert residuals[-1] < 1e-3 < residuals[0]
    # Why: farther from the experts, but not in the directions that cost.
    assert names["farther"] > 1
    assert names["cheaper"] > 10
    assert names["step"]["K-FAC"][0] < names["step"]["average"][0]
    assert names["step"]["K-FAC"][-1] > names["step"]["average"][-1]
    a_slider_merges(names)


def a_slider_merges(names: dict[str, Any]) -> None:
    """The merge under the slider is the merge with its value, each time it is moved."""
    widget, merge, seen = names["slider"].widget, names["mats"].merge_models, []
    methods: Any = importlib.import_module("mats_core.methods.essential")
    decomposed: list[Any] = []

    def recorded(*given: Any, **options: Any) -> Any:
        seen.append((options["scaling"], merge(*given, **options)))
        return seen[-1][1]

    names["mats"].merge_models = recorded
    update, methods.essential_update = methods.essential_update, decomposed.append
    try:
        for value in (0.5, 1.0, 0.5):
            widget.children[0].value = value
    finally:
        names["mats"].merge_models, methods.essential_update = merge, update
    assert [scaling for scaling, _ in seen] == [0.5, 1.0, 0.5]
    assert [merged.report.options["scaling"] for _, merged in seen] == [0.5, 1.0, 0.5]
    assert not decomposed  # what the first merge computed serves them all
