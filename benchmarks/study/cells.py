"""What the tables of the page have in common: names of families, options, and cells."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from . import questions
from .trials import TEST_ASKED, Store, Trial

DOCS = Path(__file__).resolve().parents[2] / "docs"
TITLES = {"text": "text (MiniLM-L6)", "vision": "vision (small ViT)"}
EVERY = {**TITLES, "sample": "sample family"}
LARGER = {"text_all": "text, eleven tasks", "vision_all": "images, twelve tasks"}  # `number` alone
NAMED = {**EVERY, **LARGER}
Stores = Mapping[str, Store]


def settings(options: Mapping[str, Any]) -> str:
    """Options in words, with their values."""
    return ", ".join(f"{name} {_plain(value)}" for name, value in options.items())


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def on_test(store: Store, trial: Trial) -> tuple[str, str]:
    """Normalised accuracy and gap of a trial on the test halves, the mean over its seeds."""
    found = [store.get(trial.on_test(seed)) for seed in questions.SEEDS]
    known = [result for result in found if result]
    if not known:
        return "–", "–"
    values = [100 * result["normalised"] for result in known]
    spread = f" ({stdev(values):.1f})" if len(values) > 1 else ""
    gap = mean(100 * result["gap"] for result in known)
    return f"{mean(values):.1f} ± {100 * known[0]['half_width']:.1f}{spread}", f"{gap:.0f} %"


def builds(store: Store) -> set[tuple[tuple[str, float], ...]]:
    """The accuracies of a family's experts on the test halves, once for each build that the store
    has results of: a family that is built again has other weights."""
    return {
        tuple(sorted((task, round(values[1], 4)) for task, values in result["tasks"].items()))
        for result in store.content["results"].values()
        if (result["trial"]["split"], result["trial"]["asked"]) == ("test", TEST_ASKED)
        and not result["trial"]["experts"]
    }


def of_other_build(name: str, store: Store, than: Store) -> str:
    """A sentence where results of a family are of another build than those of the tables of
    methods; else empty."""
    own, other = builds(store), builds(than)
    if not own or not other or own == other:
        return ""
    return (
        f"Here the family {EVERY[name]} is of another build: its experts are right about "
        f"{_means(own)} % of the test halves on average, in the tables of methods about "
        f"{_means(other)} %, and what is merged of them differs too."
    )


def _means(found: set[tuple[tuple[str, float], ...]]) -> str:
    means = sorted(100 * mean(value for _, value in build) for build in found)
    return " and ".join(f"{value:.1f}" for value in means)


def latest(results: Path, section: str, stores: Stores) -> tuple[dict[str, Store], str]:
    """The results that a section shows, and a sentence where they are of an earlier build.

    A family that was built again has new results, but for the `sections` of its file in `earlier`:
    these were not run since.
    """
    used, said = dict(stores), []
    for name, store in stores.items():
        earlier = Store(results / "earlier" / f"{name}.json")
        if section in earlier.content.get("sections", ()):
            used[name] = earlier
            said.append(of_other_build(name, earlier, store))
    return used, " ".join(filter(None, said))
