"""From two tasks to all of a family: the curves of the page, and their table."""

from __future__ import annotations

from statistics import mean

from . import questions
from .trials import Store

Curve = dict[int, tuple[float, float | None]]  # tasks → normalised accuracy, size


def curves(store: Store) -> list[tuple[questions.Numbered, Curve]]:
    """The curve of every way with two points at least; a point is the mean over all orders in which
    tasks are added."""
    results = store.content["results"].values()
    names = next((r["tasks"] for r in results if not r["trial"]["experts"]), ())
    found = []
    for way in questions.NUMBERED:
        curve: Curve = {}
        for count in sorted(questions.COUNTS):
            tried = [store.get(way.of(experts)) for experts in questions.added(names, count)]
            known = [result for result in tried if result]
            if known and len(known) == len(tried):
                sizes = [result["size"] for result in known if "size" in result]
                value = 100 * mean(result["normalised"] for result in known)
                curve[count] = value, mean(sizes) if sizes else None
        if len(curve) > 1:
            found.append((way, curve))
    return found


def table(title: str, ways: list[tuple[questions.Numbered, Curve]]) -> str:
    """A row a way, a column a number of tasks; of what is routed with its size."""
    counts = sorted({count for _, curve in ways for count in curve})
    lines = [
        f"| {title}: tasks | " + " | ".join(map(str, counts)) + " |",
        "| --- |" + " --- |" * len(counts),
    ]
    for way, curve in ways:
        cells = []
        for count in counts:
            value, times = curve.get(count, (None, None))
            size = f", {times:.1f} ×" if times else ""
            cells.append(f"{value:.1f}{size}" if value is not None else "–")
        lines.append(f"| {way.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
