"""What `mats_core.advise` knows of the study, and how well its choice does on the study's families.

`mats_core/estimating/evidence.json` is made of the results, and a test compares the two.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from mats_core.estimating import Evidence, Needs, choose, evidence

from . import frontier
from .trials import TEST_ASKED, Store, Trial

FILE = Path(__file__).resolve().parents[2] / "mats_core/estimating/evidence.json"
RESULTS = Path(__file__).parent / "results"
KINDS = {"text": "text", "vision": "image", "sample": "image"}
ALL = 8  # experts of each family
WITHOUT_LABELS = {"input_gram"}  # statistics that no label changes
SEVERAL = 128  # validation examples a task, where fewer experts are merged
Results = Sequence[Mapping[str, Any]]


def made(results: Path) -> list[dict[str, Any]]:
    """The rows of `evidence.json`: what the frontier's trials reached in each family, and what the
    tables of methods and the curves over the number of tasks add to it."""
    found: list[dict[str, Any]] = []
    for name in KINDS:
        store = Store(frontier.place(results, name))
        found += _rows(name, _trials(store), frontier.ASKED)
    known = [_key(row) for row in found]
    for name in KINDS:
        trials = _trials(Store.of(results, name))
        of_table = _rows(name, [t for t in trials if t["trial"]["split"] == "test"], None)
        found += [row for row in of_table if _key(row) not in known]
        fewer = [t for t in trials if 1 < _count(t) < ALL and not t["trial"]["weights"]]
        found += _rows(name, fewer, SEVERAL)
    return sorted(found, key=lambda row: json.dumps(row, sort_keys=True))


def write(results: Path) -> None:
    """Make `evidence.json` of the results, a row a line."""
    rows = ",\n".join(json.dumps(row, sort_keys=True) for row in made(results))
    FILE.write_text(f"[\n{rows}\n]\n", "utf-8")


def _trials(store: Store) -> list[dict[str, Any]]:
    return list(store.content["results"].values())


def _count(result: Mapping[str, Any]) -> int:
    return len(result["trial"]["experts"]) or ALL


def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
    parts = ("family", "method", "options", "rounds", "routed", "after", "experts")
    return tuple(json.dumps(row.get(part), sort_keys=True) for part in parts)


def _rows(family: str, trials: Iterable[Mapping[str, Any]], asked: int | None) -> list[Any]:
    """A row for each way of merging so many experts; `asked`: validation examples a task."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for result in trials:
        trial = result["trial"]
        if trial["examples"] == 256 and trial["labels"] == "empirical":
            plain = [trial[part] for part in ("method", "options")]
            parts = [*plain, trial.get("rounds", 1), trial.get("routed") or {}, _count(result)]
            parts.append(trial.get("after") or [])
            groups.setdefault(json.dumps(parts, sort_keys=True), []).append(result)
    found = (_row(family, group, asked) for group in groups.values())
    return [row for row in found if row["validation"] or row["test"]]


def _row(family: str, group: Results, asked: int | None) -> dict[str, Any]:
    trial = group[0]["trial"]
    plain = {"method": trial["method"], "options": trial["options"]}
    rounds, routed = trial.get("rounds", 1), trial.get("routed") or {}
    cpu = [result["cpu"] for result in group if "cpu" in result]
    return {
        "family": family,
        "kind": KINDS[family],
        "experts": _count(group[0]),
        **plain,
        "rounds": rounds,
        "routed": {"by": "discriminant", **routed} if routed else {},
        **({"after": list(trial["after"])} if trial.get("after") else {}),
        **_needs(Trial(**plain, rounds=rounds), routed),
        "validation": _scores(_of(group, "validation", asked)),
        "test": _scores(_of(group, "test", TEST_ASKED)),
        "cpu": round(mean(cpu)) if cpu else None,
        "size": round(mean(r["size"] for r in group), 2) if "size" in group[0] else 1.0,
    }  # fmt: skip


def _of(group: Results, split: str, asked: int | None) -> Results:
    return [r for r in group if (r["trial"]["split"], r["trial"]["asked"]) == (split, asked)]


def _scores(group: Results) -> Mapping[str, float] | None:
    if not group:
        return None
    means = {key: mean(r[key] for r in group) for key in ("normalised", "gap", "half_width")}
    return {key: round(100 * value, 2) for key, value in means.items()} | {"merges": len(group)}


def _needs(trial: Trial, routed: Mapping[str, Any]) -> dict[str, Any]:
    """What a merge takes: inputs from where, how many of a task, labels or none."""
    options = trial.options
    if trial.method == "sequential":
        source = options.get("inputs", "own")
        labels = options.get("curvature") == "measured"
        count = options.get("examples", 256) if source == "own" else 0
        return {"data": source, "examples": count, "labels": labels}
    if routed:
        return {"data": "own", "examples": routed.get("examples", 64), "labels": False}
    if not trial.reads:
        return {"data": "none", "examples": 0, "labels": False}
    labels = trial.rounds > 1 or not trial.reads <= WITHOUT_LABELS
    return {"data": "own", "examples": trial.examples, "labels": labels}


# How well the choice does -------------------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    """What the advice chooses for a family of the study, beside the best that the data allow.

    family    that is judged
    needs     what is there of it, in words
    split     on which both are compared
    chosen    the row that the advice rests on, or the next one that was run on this family
    place     of the chosen among the advice's choices: 0 is the advice itself
    best      of all rows that the data allow
    """

    family: str
    needs: str
    split: str
    chosen: Evidence
    place: int
    best: Evidence

    @property
    def lost(self) -> float:
        """Points of normalised accuracy between the two."""
        return _score(self.best, self.split) - _score(self.chosen, self.split)


NEEDS = {
    "weights alone": Needs(walkable=False),
    "weights, and a pool of anything": Needs(),
    "an unsorted pile": Needs(pile=True),
    "8 a task, no labels": Needs(examples=8),
    "256 a task, no labels": Needs(examples=256),
    "256 a task, labels": Needs(examples=256, labels=True),
    "1,024 a task, no labels": Needs(examples=1024),
    "1,024 a task, labels": Needs(examples=1024, labels=True),
    "1,024 a task, no labels, routed": Needs(examples=1024, larger=True),
}


def judged(split: str, *, leave_out: bool = False) -> Iterator[Judged]:
    """The choice for each family and each set of needs; by the other families alone where the own
    one is to be left out."""
    for family, kind in KINDS.items():
        own = [row for row in evidence() if row.family == family and row.experts == ALL]
        known = [row for row in evidence() if row.family != family or not leave_out]
        for words, needs in NEEDS.items():
            allowed = [row for row in own if needs.allow(row) and getattr(row, split)]
            there = {row.recipe: row for row in allowed}
            ways = [way.recipe for way in choose(known, kind, needs)]
            place = next(index for index, way in enumerate(ways) if way in there)
            best = max(allowed, key=lambda row: _score(row, split))
            yield Judged(family, words, split, there[ways[place]], place, best)


def _score(row: Evidence, split: str) -> float:
    score = row.test if split == "test" else row.validation
    assert score is not None
    return score.normalised


def table() -> str:
    """How far the choice stays behind the best row that the data allow, in points, for the page:
    of validation examples and of the test halves, with a family's own rows and without them."""
    found = {
        (split, out, one.family, one.needs): one
        for split in ("validation", "test")
        for out in (False, True)
        for one in judged(split, leave_out=out)
    }
    heads = " | ".join(f"{family} | without its rows" for family in KINDS)
    lines = [f"| what there is | {heads} |", "|" + " --- |" * (1 + 2 * len(KINDS))]
    for words in NEEDS:
        cells = [
            " / ".join(_cell(found[split, out, family, words]) for split in ("validation", "test"))
            for family in KINDS
            for out in (False, True)
        ]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(one: Judged) -> str:
    return f"{one.lost:.1f}" + (f" ({one.place + 1}.)" if one.place else "")
