"""The pictures of `docs/concepts.md`: `python -m benchmarks.concepts --write`.

`two_tasks.svg` is the two-parameter merge of the page Learn, `sample_family.svg` one layer's
spectra and the accuracies in the tables of `sample_models/README.md`.  Every file holds the numbers
that it was drawn from (`<metadata>`, JSON); a test computes them again.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mats_core.analysis import Task, layer_spectra, toy
from mats_core.recipes import load_family, measure_all, open_inputs
from mats_core.statistics import Statistics

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "concepts"
INK, GREY, LIGHT, BLUE, ORANGE, GREEN = (
    "#1D2733", "#5B6672", "#DCE3EA", "#0072B2", "#B86E00", "#00795A",
)  # fmt: skip

# The first scene of the page Learn, and the layer of which the spectra are shown.
TASKS = (Task("A", (-2.0, 0.0), 15, (2.4, 0.5)), Task("B", (0.6, -1.6), 65, (2.2, 0.5)))
MERGES = {"average": "average", "Fisher": "diagonal Fisher", "full": "full curvature"}
EXPERT, LAYER, SHOWN = "digits", "vit.encoder.layer.2.output.dense.weight", 48
ROWS = {"pre-trained": "pre-trained", "`average`": "average", "`kfac`": "K-FAC", "expert": "expert"}

SCALE = 46.0  # points of the picture a unit of a parameter

Numbers = dict[str, Any]


def two_tasks() -> Numbers:
    """Where three merges of two quadratic losses land, and what each costs there."""
    merges = {
        MERGES[one.name]: {
            "point": [round(x, 4) for x in one.point],
            "losses": [round(loss, 4) for loss in one.losses],
        }
        for one in toy.solutions(TASKS)
    }
    tasks = [{"name": t.name, "centre": t.centre, "angle": t.angle, "axes": t.axes} for t in TASKS]
    return {"tasks": tasks, "merges": merges}


def sample_family() -> Numbers:
    """Shares of one layer's update and of its output shift, and the README's accuracies."""
    return {**_spectra(), **_accuracies()}


def _spectra() -> Numbers:
    family = load_family(ROOT / "sample_models" / "drawn")
    room = len(family.experts)
    chosen = tuple(expert for expert in family.experts if expert.name == EXPERT)
    family = family.model_copy(update={"experts": chosen})
    files = measure_all(family, with_base=False)
    inputs = open_inputs(family.recipe("average", statistics=files))
    statistics = {name: Statistics.open(file) for name, file in files.items()}
    shares: Numbers = {}
    for kind, title in (("task matrix", "update"), ("essential", "output shift")):
        (spectrum,) = layer_spectra(inputs.family, statistics, LAYER, kind).values()  # type: ignore[arg-type]
        shares[title] = [round(spectrum.energy(rank), 4) for rank in range(1, SHOWN + 1)]
    width = min(inputs.family.base.tensors[LAYER].shape)
    return {"expert": EXPERT, "width": width, "room": width // room, "shares": shares}


def _accuracies() -> Numbers:
    """What stands in the two tables of `sample_models/README.md`."""
    text = (ROOT / "sample_models" / "README.md").read_text("utf-8")
    lines = [line.strip("| ") for line in text.splitlines() if "|" in line]
    table = [[cell.strip() for cell in line.split("|")] for line in lines]
    start = next(i for i, row in enumerate(table) if row[0] == "digits")
    tasks = [cell for cell in table[start] if cell]
    rows = {row[0]: row[1:] for row in table[start + 1 :] if len(row) == len(tasks) + 1}
    searched = {row[0]: row[-2:] for row in table[:start] if len(row) == 6}
    base = re.search(r"experts' heads: ([\d.]+) % normalised", text)
    assert base is not None
    told: Numbers = {"pre-trained": [float(base[1]), 0]}
    for key in ("`average`", "`kfac`"):
        normalised, gap = searched[key]
        told[ROWS[key]] = [float(normalised.split(" ")[0]), int(gap.split(" ")[0])]
    return {
        "tasks": tasks,
        "accuracies": {title: [float(x) for x in rows[key]] for key, title in ROWS.items()},
        "told": told,
    }


def _text(x: float, y: float, words: str, **more: object) -> str:
    style = {"font-size": 12, "fill": INK, **{k.replace("_", "-"): v for k, v in more.items()}}
    return f"<text {_attributes({'x': x, 'y': y, **style})}>{words}</text>"


def _shape(name: str, **values: object) -> str:
    return f"<{name} {_attributes({k.replace('_', '-'): v for k, v in values.items()})}/>"


def _attributes(values: dict[str, object]) -> str:
    return " ".join(
        f'{key}="{f"{value:.1f}" if isinstance(value, float) else value}"'
        for key, value in values.items()
    )


def _line(points: Sequence[tuple[float, float]], colour: str, **more: object) -> str:
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return _shape("polyline", points=places, fill="none", stroke=colour, stroke_width=2, **more)


def _page(title: str, height: int, numbers: Numbers, parts: Sequence[str]) -> str:
    """A card with a background of its own: readable on a light page and on a dark one."""
    told = json.dumps(numbers, ensure_ascii=False)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {height}" role="img" '
            'font-family="Helvetica, Arial, sans-serif">',
            f"<title>{title}</title>",
            f"<metadata>{told}</metadata>",
            _shape("rect", x=1, y=1, width=718, height=height - 2, rx=10, fill="#FFFFFF",
                   stroke=LIGHT),
            *parts,
            "</svg>\n",
        ]
    )  # fmt: skip


def draw_two_tasks(numbers: Numbers) -> str:
    """The SVG of `two_tasks`: ellipses and merges on the left, their losses on the right."""

    def at(point: Sequence[float]) -> tuple[float, float]:
        return 230 + SCALE * point[0], 145 - SCALE * point[1]

    parts = [_text(20, 30, "Two parameters, two tasks", font_weight="bold")]
    looks = ((BLUE, "none", (-30, 46)), (ORANGE, "6 4", (28, 30)))
    for task, (colour, dash, (dx, dy)) in zip(numbers["tasks"], looks, strict=True):
        (x, y), (a, b) = at(task["centre"]), task["axes"]
        turn = f"rotate({-task['angle']} {x:.1f} {y:.1f})"
        for scale, opacity in ((1.0, 1), (0.5, 0.5)):
            parts.append(
                _shape("ellipse", cx=x, cy=y, rx=SCALE * a * scale, ry=SCALE * b * scale,
                       fill="none", stroke=colour, stroke_width=2, stroke_dasharray=dash,
                       opacity=opacity, transform=turn)
            )  # fmt: skip
        parts.append(_shape("circle", cx=x, cy=y, r=4, fill=colour))
        parts.append(_text(x + dx, y + dy, f"expert {task['name']}", fill=colour))
    for (title, merge), (dx, dy) in zip(
        numbers["merges"].items(), ((-58, 16), (10, 16), (-40, -12)), strict=True
    ):
        x, y = at(merge["point"])
        parts.append(_shape("rect", x=x - 5, y=y - 5, width=10, height=10, fill=INK))
        parts.append(_text(x + dx, y + dy, title, font_weight="bold"))
    parts.append(_text(20, 352, "On an ellipse its task's loss is ½ (inner one: ⅛).", fill=GREY))
    return _page("Three merges of two quadratic losses", 370, numbers, parts + _losses(numbers))


def _losses(numbers: Numbers) -> list[str]:
    parts = [_text(470, 30, "Loss of both tasks at the merge", font_weight="bold")]
    most = max(sum(merge["losses"]) for merge in numbers["merges"].values())
    for index, (title, merge) in enumerate(numbers["merges"].items()):
        y, x = 70 + 80 * index, 470.0
        parts.append(_text(470, y - 6, title))
        for loss, colour in zip(merge["losses"], (BLUE, ORANGE), strict=True):
            width = 190 * loss / most
            parts.append(_shape("rect", x=x, y=y, width=width, height=24, fill=colour))
            x += width
        parts.append(_text(x + 6, y + 17, f"{sum(merge['losses']):.2f}", font_weight="bold"))
    parts.append(_text(470, 330, "■ task A", fill=BLUE))
    parts.append(_text(540, 330, "■ task B", fill=ORANGE))
    return parts


def draw_sample_family(numbers: Numbers) -> str:
    """The SVG of `sample_family`: shares on the left, accuracies on the right."""
    parts = _curves(numbers) + _accuracy_rows(numbers)
    return _page("The sample family in numbers", 400, numbers, parts)


def _curves(numbers: Numbers) -> list[str]:
    def at(rank: int, share: float) -> tuple[float, float]:
        return 55 + 230 * rank / SHOWN, 320 - 240 * share

    parts = [
        _text(20, 30, f"One layer of {numbers['expert']}: how many", font_weight="bold"),
        _text(20, 46, f"of its {numbers['width']} directions does it use?", font_weight="bold"),
    ]
    for share in (0, 0.5, 1):
        (_, y) = at(0, share)
        parts.append(_line([(55, y), (285, y)], LIGHT))
        parts.append(_text(48, y + 4, f"{share:.0%}", text_anchor="end", fill=GREY))
    for (title, values), colour, dash in zip(
        numbers["shares"].items(), (ORANGE, BLUE), ("6 4", "none"), strict=True
    ):
        points = [at(0, 0.0), *(at(i, value) for i, value in enumerate(values, 1))]
        parts.append(_line(points, colour, stroke_dasharray=dash))
        row = 290 if title == "update" else 270
        words = f"{title}: {values[numbers['room'] - 1]:.1%} in {numbers['room']}"
        parts.append(_text(130, row, words, fill=colour))
    x, _ = at(numbers["room"], 0)
    parts.append(_line([(x, 80), (x, 255)], GREY, stroke_dasharray="2 3"))
    parts.append(_text(x + 5, 175, "room of one task", fill=GREY))
    parts.append(_text(x + 5, 190, "of eight", fill=GREY))
    for rank in (0, numbers["room"], SHOWN):
        parts.append(_text(at(rank, 0)[0], 338, str(rank), text_anchor="middle", fill=GREY))
    parts.append(_text(170, 358, "strongest directions", text_anchor="middle", fill=GREY))
    return parts


def _accuracy_rows(numbers: Numbers) -> list[str]:
    def at(percent: float) -> float:
        return 430 + 2.5 * percent

    looks = {"pre-trained": (GREY, "circle"), "average": (ORANGE, "rect"), "K-FAC": (BLUE, "rect"),
             "expert": (GREEN, "circle")}  # fmt: skip
    parts = [_text(340, 30, "Accuracy on each task", font_weight="bold")]
    for i, task in enumerate(numbers["tasks"]):
        y = 70 + 30 * i
        values = {title: at(row[i]) for title, row in numbers["accuracies"].items()}
        parts.append(_text(422, y + 4, task, text_anchor="end"))
        parts.append(_line([(min(values.values()), y), (max(values.values()), y)], LIGHT))
        parts += [_mark(values[title], y, *look) for title, look in looks.items()]
    for percent in (0, 50, 100):
        parts.append(_text(at(percent), 312, f"{percent} %", text_anchor="middle", fill=GREY))
    for i, (title, (colour, form)) in enumerate(looks.items()):
        x, y = 347 + 195 * (i % 2), 338 + 20 * (i // 2)
        normalised, gap = numbers["told"].get(title, [100, 100])
        parts.append(_mark(x, y - 4, colour, form))
        parts.append(_text(x + 10, y, f"{title}: {normalised:.1f} %, {gap} %", fill=colour))
    words = "normalised accuracy, gap recovered (options searched)"
    parts.append(_text(340, 384, words, fill=GREY))
    return parts


def _mark(x: float, y: float, colour: str, form: str) -> str:
    if form == "circle":
        return _shape("circle", cx=x, cy=y, r=5, fill=colour)
    turn = "" if colour == ORANGE else f"rotate(45 {x:.1f} {y:.1f})"
    return _shape("rect", x=x - 4.5, y=y - 4.5, width=9, height=9, fill=colour, transform=turn)


PICTURES = {
    "two_tasks.svg": (two_tasks, draw_two_tasks),
    "sample_family.svg": (sample_family, draw_sample_family),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {FOLDER.relative_to(ROOT)}/")
    write = parser.parse_args().write
    for name, (compute, draw) in PICTURES.items():
        picture = draw(compute())
        if write:
            (FOLDER / name).write_text(picture, "utf-8")
        print(f"{name}: {len(picture)} characters{'' if write else ', not written'}")


if __name__ == "__main__":
    main()
