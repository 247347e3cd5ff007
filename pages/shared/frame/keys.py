"""The names of widgets whose values code sets or reads as well: each is made here, once."""

from __future__ import annotations

from typing import Literal

from .state import Session, session

FAMILY = Session.family.name
FAMILY_PATH = Session.family_path.name
HUB_ID = Session.hub_id.name
SHOWN_RUN, BESIDE_RUN = Session.shown_run.name, Session.beside_run.name
INSIDE_RUN, INSIDE_OTHER = Session.inside_run.name, Session.inside_other.name
INSIDE_BEFORE = "inside before"  # what Inside compares a merge with
STEPPED = Session.stepped_layer.name
LAYER, TASK, OTHER = (
    Session.subspaces_layer.name, Session.subspaces_task.name, Session.overlap_with.name
)  # fmt: skip
TOY_STEP, TOY_PRESET = Session.toy_step.name, Session.toy_preset.name
COMPARE_VIEW, SUBSPACES_VIEW = "compare view", "subspaces view"  # the open tab
CONFLICT_WAY = "conflict way"  # what Subspaces compares
PRESET = "preset"  # the menu of presets
STEPPED_EXPERT = "stepping expert"  # whose matrices Inside shows of a layer
TOY_PICTURE = "toy picture"  # the component's state: what the browser sent last


# Merge: a reset gives every widget another name, and with it its default. ------------------------


def group() -> str:
    return _counted("group")


def method(group: str) -> str:
    return _counted(f"method {group}")


def option(owner: str, name: str) -> str:
    """The knob of a method's option."""
    return _counted(f"{owner} {name}")


def switch(knob: str) -> str:
    """The switch beside a knob that can be off."""
    return f"{knob} on"


def counted_by(knob: str) -> str:
    """The default of a knob, where it differs by the number of experts."""
    return f"{knob} by experts"


def number(knob: str) -> str:
    """The number beside a choice that offers one."""
    return f"{knob} number"


def experts(family: str) -> str:
    return _counted(f"experts {family}")


def weight(expert: str) -> str:
    return _counted(f"weight {expert}")


def after() -> str:
    """The chosen steps after the merge: (number, name) of each, in their order."""
    return _counted("after")


def after_count() -> str:
    """How many steps were ever chosen: a part of the names of their knobs."""
    return _counted("after count")


def step(number: int) -> str:
    """The owner of a step's knobs."""
    return f"after {number}"


def rules() -> str:
    """Rules by layer that came with settings and are no curve over the depth."""
    return _counted("rules")


def curve(of: str, point: int) -> str:
    """A point of the curve over the depth; `of`: an expert, or "" for the whole update."""
    return _counted(f"curve {of} {point}")


def picture(of: str) -> str:
    """The drawn curve's component: its state is what the browser sent last."""
    return _counted(f"picture {of}")


def serial(picture: str) -> str:
    """How much that component has sent."""
    return f"{picture} serial"


def rest(name: Literal["seed", "dtype", "device", "rounds", "curve"]) -> str:
    return _counted(name)


def further(name: str) -> str:
    """A knob of what a merge goes on to be."""
    return _counted(f"further {name}")


def _counted(name: str) -> str:
    return f"{name} {session.reset_count}"


# Other pages --------------------------------------------------------------------------------------


def inside_task(family: str) -> str:
    return f"inside task {family}"


def examples(run: str, task: str, before: str) -> str:
    """Which examples Inside shows."""
    return f"inside images {run} {task} {before}"


def guess(lesson: int) -> str:
    """What the reader of a lesson thinks."""
    return f"lesson {lesson} guess"


def sweep_point(sweep: int) -> str:
    return f"sweep point {sweep}"


def search_trial(search: int) -> str:
    return f"search trial {search}"


def spectrum_kind(owner: str) -> str:
    return f"{owner} kind"


def slider(label: str) -> str:
    """A slider of the scene on Learn."""
    return f"toy {label}"
