"""The Learn page in Chromium: its own algebra against the library's, and dragging by pointer and
keyboard, in step with the sliders."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mats_core.analysis import toy
from tests.browser.conftest import OURS

pytestmark = pytest.mark.browser
ALGEBRA = (
    Path(__file__).resolve().parents[2] / "pages" / "shared" / "learn" / "ellipses" / "algebra.js"
)
PATIENCE = 90_000  # milliseconds


def scenes(count: int) -> list[dict[str, Any]]:
    """Random ones, then those where something is degenerate."""
    rng = np.random.default_rng(0)

    def scene(*tasks: tuple[float, ...], start=(-3.0, 2.0), origin=(0.0, 0.0)) -> dict[str, Any]:
        fields = ("x", "y", "angle", "a", "b")
        rows = [dict(zip(fields, task, strict=True)) for task in tasks]
        return {"tasks": rows, "start": list(start), "origin": list(origin)}

    low, high = [-4, -3, 0, 0.2, 0.2], [4, 3, 180, 3, 3]
    made = [
        scene(
            *(tuple(np.round(rng.uniform(low, high), 2).tolist()) for _ in range(2)),
            start=np.round(rng.uniform(-3, 3, 2), 2).tolist(),
            origin=np.round(rng.uniform(-3, 3, 2), 2).tolist(),
        )
        for _ in range(count)
    ]
    return [
        *made,
        scene((1, 1, 0, 1, 1), (2, 2, 0, 1, 1)),  # one direction
        scene((1, 1, 0, 1, 1), (-2, -2, 0, 1, 1)),  # opposite ones
        scene((0, 0, 30, 2, 0.4), (1, 2, 80, 1, 0.3)),  # a task that did not move
        scene((0, 0, 30, 2, 0.4), (0, 0, 80, 1, 0.3), start=(0, 0)),  # nothing to do at all
    ]


SETTINGS = [
    {"iterations": 2, "preconditioner": "none", "damping": 0.0, "anchor": 0.0, "power": 0.0},
    {"iterations": 1, "preconditioner": "jacobi", "damping": 0.3, "anchor": 0.1, "power": 2.0},
    {"iterations": 0, "preconditioner": "none", "damping": 10.0, "anchor": 1.0, "power": 0.5},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_pictures_algebra_is_the_librarys(browser: Any, settings: dict[str, Any]):
    page = browser.new_page()
    program = f"([scenes, settings]) => {{ {ALGEBRA.read_text('utf-8')}; "
    program += "return scenes.map((scene) => everything(scene, settings)); }"
    given = scenes(25)
    for scene, found in zip(given, page.evaluate(program, [given, settings]), strict=True):
        tasks = [
            toy.Task(name, (t["x"], t["y"]), t["angle"], (t["a"], t["b"]))
            for name, t in zip("AB", scene["tasks"], strict=True)
        ]
        for own, one in zip(toy.solutions(tasks), found["solutions"], strict=True):
            assert one["name"] == own.name
            assert one["point"] == pytest.approx(own.point, abs=1e-9)
            assert one["losses"] == pytest.approx(own.losses, abs=1e-8)
        curvature = toy.summed_curvature(tasks)
        assert found["curvature"]["xy"] == pytest.approx(float(curvature[0, 1]), abs=1e-9)
        keys = ("iterations", "preconditioner", "damping", "anchor")
        walk = toy.walk(tasks, tuple(scene["start"]), **{key: settings[key] for key in keys})
        # A last step within rounding of the goal may be taken by one and not by the other.
        for own, one in zip(walk.points, found["walk"]["points"], strict=False):
            assert one == pytest.approx(own, abs=1e-7)
        assert found["walk"]["points"][-1] == pytest.approx(walk.points[-1], abs=1e-7)
        assert found["walk"]["target"] == pytest.approx(walk.target, abs=1e-9)
        step = toy.essential_step(
            tasks, task_power=settings["power"], origin=tuple(scene["origin"])
        )
        essential = found["essential"]
        for name in ("spread", "weights", "point", "kept", "plain", "plain_kept"):
            assert essential[name] == pytest.approx(getattr(step, name), abs=1e-7), (name, scene)
        for own, one in zip(step.moves, essential["moves"], strict=True):
            assert one == pytest.approx(own, abs=1e-7)
    page.close()


def number(handle: Any) -> list[float]:
    """The numbers that a handle says it stands at."""
    said = handle.get_attribute("aria-valuetext")
    return [float(v) for v in re.findall(r"-?\d+\.?\d*", said)]


def shown(page: Any, name: str) -> list[float]:
    row = page.locator(f'.toy tr[data-name="{name}"]')
    return [float(v) for v in row.get_attribute("data-point").split()]


def open_learn(browser: Any, address: str, **device: Any) -> tuple[Any, list[str]]:
    from playwright.sync_api import expect

    page = browser.new_page(**device)
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda r: None if OURS.match(r.url) else complaints.append(r.url))
    page.goto(address)
    page.get_by_role("heading", name="Merge", exact=True).wait_for()
    page.goto(f"{address}/learn")
    page.locator(".toy tr[data-name=average]").wait_for()
    return page, complaints


def test_dragging_moves_picture_sliders_and_figure(browser: Any, address: str):
    from playwright.sync_api import expect

    page, complaints = open_learn(browser, address, viewport={"width": 1360, "height": 1000})
    page.get_by_role("radio", name="2 · Curvature").click()
    page.get_by_text("Summed loss: average").wait_for()
    caption = page.get_by_text("Summed loss: average")
    said = caption.inner_text()

    # By pointer: while it moves, the numbers follow in the browser alone.
    centre = page.locator('[data-handle="c0"]')
    before = shown(page, "average")
    box = centre.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y - 40, steps=4)
    moved = number(centre)
    assert shown(page, "average") != before
    assert caption.inner_text() == said
    page.mouse.up()
    # Then Python draws its own, and the sliders follow.
    expect(caption).not_to_have_text(said)
    page.get_by_text("The same with sliders").click()
    slider = page.get_by_role("slider", name="A centre, parameter 1")
    expect(slider).to_have_value(f"{moved[0]:g}")
    assert number(centre) == moved
    other = number(page.locator('[data-handle="c1"]'))
    halfway = [(a + b) / 2 for a, b in zip(moved, other, strict=True)]
    assert shown(page, "average") == pytest.approx(halfway, abs=1e-9)

    # The end of the ellipse turns and stretches it.
    end = page.locator('[data-handle="a1"]')
    box, was = end.bounding_box(), number(end)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] - 60, box["y"] + 20, steps=4)
    page.mouse.up()
    turned = number(end)
    assert turned != was
    expect(page.get_by_role("slider", name="B turned by (degrees)")).to_have_value(f"{turned[0]:g}")

    # By keyboard: and the focus stays where it is.
    centre.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(slider).to_have_value(f"{round(moved[0] + 0.3, 2):g}")
    assert (
        page.evaluate(
            "() => document.querySelector('[data-testid=stBidiComponentIsolated]')"
            ".shadowRoot.activeElement?.dataset.handle"
        )
        == "c0"
    )

    # From the slider back to the picture.
    slider.focus()
    slider.press("ArrowLeft")
    expect(centre).to_have_attribute("aria-valuetext", f"{moved[0] + 0.25:.2f}, {moved[1]:.2f}")
    assert complaints == []
    page.close()


def test_a_finger_drags_the_start_on_a_phone(browser: Any, address: str):
    page, complaints = open_learn(
        browser, address, viewport={"width": 390, "height": 844}, has_touch=True
    )
    page.get_by_role("radio", name="3 · Conjugate gradients").click()
    start = page.locator('[data-handle="start"]')
    start.wait_for()
    width = page.evaluate("() => document.documentElement.scrollWidth")
    assert width <= 390
    box, was = start.bounding_box(), number(start)
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    client = page.context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        given = [{"x": px, "y": py} for px, py in points]
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": given})

    touch("touchStart", (x, y))
    for step in (1, 2, 3):
        touch("touchMove", (x + 30 * step, y + 10 * step))
    touch("touchEnd")
    now = number(start)
    assert math.dist(was, now) > 1
    # The page did not scroll instead.
    assert start.bounding_box()["y"] > box["y"]
    assert complaints == []
    page.close()
