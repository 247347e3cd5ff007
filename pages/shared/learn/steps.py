"""The five steps beside the picture of the Learn page: words, formula, controls and figure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import streamlit as st

from mats_core import figures
from mats_core.analysis import toy

from ..frame import keys, session, show
from . import ellipses
from . import scene as toy_state

NO_SETTINGS: dict[str, Any] = {
    "iterations": 2, "preconditioner": "none", "damping": 0.0, "anchor": 0.0, "power": 0.0
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One step: what the picture shows, the words, and what stands beside it."""

    title: str
    text: str
    formula: str
    attempt: str
    layers: dict[str, Any]
    controls: Callable[[], dict[str, Any]] = dict
    drawn: Callable[[dict[str, Any]], figures.Figure | None] = lambda settings: None


def _losses(settings: dict[str, Any]) -> figures.Figure:
    return figures.toy_losses(toy.solutions(toy_state.tasks()), toy_state.LOOKS)


def _walk_controls() -> dict[str, Any]:
    left, right = st.columns(2)
    iterations = left.slider(
        "CG iterations", 0, 2, 2, key="toy iterations", persist_state="session",
        help="With two parameters, two are enough. A real layer has a hundred thousand.",
    )  # fmt: skip
    jacobi = right.toggle(
        "Precondition", key="toy jacobi", persist_state="session",
        help="Divide each parameter by its own curvature first (Jacobi).",
    )  # fmt: skip
    steps = [0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]
    left, right = st.columns(2)
    damping = left.select_slider(
        "Damping δ", steps, key="toy damping", persist_state="session",
        help="Adds δ times the mean curvature of each task in every direction: flat directions "
        "are no longer quite flat.",
    )  # fmt: skip
    anchor = right.select_slider(
        "Anchor μ", steps, key="toy anchor", persist_state="session",
        help="Pulls the solution towards the start.",
    )  # fmt: skip
    return {
        "iterations": int(iterations), "preconditioner": "jacobi" if jacobi else "none",
        "damping": float(damping), "anchor": float(anchor),
    }  # fmt: skip


def _walked(settings: dict[str, Any]) -> toy.Walk:
    chosen = {k: settings[k] for k in ("iterations", "preconditioner", "damping", "anchor")}
    return toy.walk(toy_state.tasks(), tuple(toy_state.current()["start"]), **chosen)


def _progress(settings: dict[str, Any]) -> figures.Figure:
    return figures.toy_progress(_walked(settings), toy.solutions(toy_state.tasks())[2])


def _moved(power: float) -> toy.Essential:
    origin = tuple(toy_state.current()["origin"])
    return toy.essential_step(toy_state.tasks(), task_power=power, origin=origin)


def _polar(settings: dict[str, Any]) -> figures.Figure:
    return figures.toy_polar(_moved(0.0), toy_state.LOOKS)


def _power() -> dict[str, Any]:
    power = st.slider(
        "Power of the task weights", 0.0, 4.0, 2.0, 0.25, key="toy power", persist_state="session",
        help="0 switches it off; 2 is the published value.",
    )  # fmt: skip
    return {"power": float(power)}


def _scaling(settings: dict[str, Any]) -> figures.Figure:
    power = settings["power"]
    return figures.toy_scaling(_moved(power), toy_state.LOOKS, power)


STEPS = (
    Step(
        "Two tasks",
        "Two experts were fine-tuned from one base, one for task A and one for task B. Each centre "
        "is an expert: there its own task has no loss, and on the ellipse a loss of ½. A long "
        "ellipse means that the task hardly minds moves in that direction, a short one that it "
        "minds them a lot. **One model must serve both.** The simplest is the average, the grey "
        "circle: the table says what it costs.",
        r"L_m(w) = \tfrac12\,(w-w_m)^{\!\top} C_m\,(w-w_m)",
        "Drag a centre, or the end of an ellipse to turn and stretch it. Can you make the average "
        "good for both?",
        {"solutions": ["average"], "axes": True},
    ),
    Step(
        "Curvature",
        "Merging methods of this family minimise the summed loss of all tasks, and differ in what "
        "they keep of the curvature $C_m$: the average keeps nothing, Fisher merging its diagonal "
        "(how much each parameter matters by itself), the full curvature also how parameters work "
        "together. The thin lines are the summed loss; its lowest point is where full curvature "
        "lands.",
        r"\textstyle w^\star = \big(\sum_m C_m\big)^{-1} \sum_m C_m\, w_m",
        "Turn both ellipses upright: now the diagonal knows everything. Turn them by 45°: now it "
        "knows nothing that the average does not.",
        {"solutions": ["average", "Fisher", "full"], "axes": True, "contours": True},
        drawn=_losses,
    ),
    Step(
        "Conjugate gradients",
        "A real layer has too many parameters to invert $\\sum_m C_m$. Conjugate gradients (CG) "
        "walk there instead: first straight down the steepest slope, then along what is left. "
        "Steep directions are settled first, flat ones last. *Preconditioning* makes the bowl "
        "rounder, so that the first step already points the right way; *damping* moves the goal "
        "itself to where no flat direction has to be trusted.",
        r"\begin{gathered} (K + \mu s I)\, w = b + \mu s\, w_0 \\ \textstyle K = \sum_m \bar C_m, "
        r"\quad b = \sum_m \bar C_m w_m \\ \bar C_m = C_m + \tfrac12\,\delta\,\mathrm{tr}(C_m)\,I"
        r"\end{gathered}",
        "Drag the start, the pink square. Where must it stand for one iteration to be enough?",
        {"solutions": ["full"], "axes": True, "contours": True, "walk": True},
        _walk_controls, _progress,
    ),
    Step(
        "Polar step",
        "Essential Subspace Merging (ESM) asks another question: what did fine-tuning *move*? Each "
        "dashed arrow is a task's move from the pre-trained model. Task arithmetic sums them (grey "
        "circle), and what both push along counts twice: where they point alike, it overshoots. "
        "The polar step turns their directions until they are at right angles, each as little as "
        "possible (solid arrows). That brings both nearer to 100 % of their own move: moves at "
        "right angles are added, moves in one direction averaged.",
        r"[\,E_A\ E_B\,] = U \Sigma V^{\top} \;\mapsto\; \bar\sigma\, U V^{\top}",
        "Drag the pre-trained model so that both tasks lie behind each other, then so that it "
        "stands in the corner of a right angle.",
        {"solutions": [], "essential": True}, drawn=_polar,
    ),
    Step(
        "Polarized scaling",
        "A task that moved far has something to say; one that hardly moved mostly adds noise. ESM "
        "therefore makes the loud louder: the weight of a task is its length over the mean length, "
        "to a power. In a real model the same is done twice more, for the input dimensions of a "
        "layer and for whole layers.",
        r"\textstyle \mathrm{weight}_m = \big(\|\Delta_m\| / "
        r"\tfrac1M \sum_s\|\Delta_s\|\big)^p",
        "Raise the power until one task has the merge to itself. Then drag the pre-trained model "
        "to where both are heard.",
        {"solutions": [], "essential": True}, _power, _scaling,
    ),
)  # fmt: skip


@st.fragment
def explore() -> None:
    """Picture and step; only this part of the page is drawn again when something moves."""
    titles = [f"{i} · {step.title}" for i, step in enumerate(STEPS, 1)]
    if session.toy_wanted is not None:
        session.toy_step = titles[session.toy_wanted]
        del session.toy_wanted
    chosen = st.segmented_control(
        "Step", titles, default=titles[0], required=True, key=keys.TOY_STEP,
        persist_state="session", label_visibility="collapsed",
    )  # fmt: skip
    index = titles.index(str(chosen))
    step = STEPS[index]
    left, right = show.halves("toy", [6, 5])
    with right:
        st.header(step.title, anchor=False)
        st.markdown(step.text)
        st.latex(step.formula)
        settings = {**NO_SETTINGS, **step.controls()}
    with left:
        ellipses.show(keys.TOY_PICTURE, _data(step, settings), toy_state.on_picture)
        st.pills(
            "Begin with", list(toy_state.PRESETS), key=keys.TOY_PRESET,
            on_change=toy_state.on_preset,
        )  # fmt: skip
        with st.expander("The same with sliders", icon=":material/tune:"):
            toy_state.sliders()
    with right:
        drawn = step.drawn(settings)
        if drawn is not None:
            show.figure(drawn, f"toy figure {index}")
        st.markdown(f":material/touch_app: **Try this.** {step.attempt}")
        _onward(index)


def _onward(index: int) -> None:
    if index + 1 == len(STEPS):
        st.markdown("Now the same on real models: the **six lessons** below.")
        return
    label = f"Next: {STEPS[index + 1].title}"
    st.button(
        label, icon=":material/arrow_forward:", key=f"toy next {index}",
        on_click=_want, args=(index + 1,),
    )  # fmt: skip


def _want(step: int) -> None:
    session.toy_wanted = step


def _data(step: Step, settings: dict[str, Any]) -> dict[str, Any]:
    """All that the picture needs; `found` has the form of `everything` in algebra.js."""
    scene = toy_state.current()
    tasks = toy_state.tasks()
    walk, curvature = _walked(settings), toy.summed_curvature(tasks)
    return {
        "state": {name: scene[name] for name in ("tasks", "start", "origin")},
        "serial": scene["serial"],
        "settings": settings,
        "show": {
            "axes": False, "contours": False, "walk": False, "essential": False, **step.layers,
            "target": bool(settings["damping"] or settings["anchor"]),
        },
        "looks": [
            {"colour": look.colour, "dash": "" if look.dash == "solid" else "8 5", "dark": i == 1}
            for i, look in enumerate(toy_state.LOOKS.values())
        ],
        "found": {
            "solutions": [asdict(one) for one in toy.solutions(tasks)],
            "curvature": {
                "xx": float(curvature[0, 0]), "xy": float(curvature[0, 1]),
                "yy": float(curvature[1, 1]),
            },
            "walk": {"points": walk.points, "target": walk.target},
            "essential": asdict(_moved(settings["power"])),
        },
    }  # fmt: skip
