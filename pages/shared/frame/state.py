"""What a session remembers: every key of `st.session_state` that code of ours reads or writes.

Three kinds, and nothing of Streamlit's session is touched anywhere else (a test reads the sources):

`session`     one typed attribute a key; an attribute that was never set has its default
`Slot`        the places of the session's jobs, one job each (see `tracked`)
`value`, …    what widgets hold, by the names that `keys` makes

PyTorch is not imported here: the way in (`navigation`) reads the session before it is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload
from weakref import WeakSet

import streamlit as st

if TYPE_CHECKING:
    from mats_core.analysis import Trajectory
    from mats_core.checkpoints import ModelSearch, hub
    from mats_core.recipes import Recipe, Tuned

    from ..work import Draft, Further, Job, Request, Shelf

T = TypeVar("T")


@dataclass(frozen=True)
class Wanted:
    """The settings of Merge that another page, a preset, a lesson or a link asks for.

    experts   names of those to merge; empty: leave the choice as it is
    weights   name → α; where all are 1 (or none are given) the weighing is off
    seed, dtype, rounds   None: leave the widget at its default
    after     steps after the merge; by: rules by layer; both as in a recipe
    further   what the merge goes on to be; None: nothing
    tuned     how they were chosen; None: by hand
    """

    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    experts: tuple[str, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    seed: int | None = None
    dtype: str | None = None
    rounds: int | None = None
    after: tuple[Mapping[str, Mapping[str, Any]], ...] = ()
    by: tuple[Mapping[str, Any], ...] = ()
    further: Further | None = None
    tuned: Tuned | None = None

    @classmethod
    def of(cls, recipe: Recipe) -> Wanted:
        """The settings of a recipe."""
        from ..work import Further  # with PyTorch, which a recipe has brought

        return cls(
            recipe.method,
            dict(recipe.options),
            tuple(expert.name for expert in recipe.experts),
            {expert.name: expert.weight for expert in recipe.experts},
            recipe.seed,
            recipe.dtype,
            recipe.rounds,
            tuple(step.content for step in recipe.steps()),
            tuple(rule.model_dump(mode="json", exclude_defaults=True) for rule in recipe.by),
            Further.of(recipe),
            recipe.tuned,
        )


class Slot(StrEnum):
    """The places of a session's jobs.  A job stays in its slot until it is collected."""

    OPENING = "opening"  # opens and tests the family; stays while it is valid
    PREPARATION = "preparation"  # what follows: its statistics; stays as long
    MERGING = "merging"  # the merge that the page Merge waits for
    CHECKING = "checking shipped"  # merges that came with the family, made again; stays
    FINISHING = "final figure"  # a run's test examples, asked once
    TRACING = "tracing"  # accuracy along the iterations of one run
    EXPLAINING = "explaining"  # why one run is better than another, by layer
    PREDICTING = "predicting"  # predicted and measured loss of one run
    SWEEPING = "sweeping"  # a grid of merges, until its end was said (`session.sweep` stays)
    SEARCHING = "searching"  # beyond a grid, until its end was said (`session.search` stays)
    DONATING = "donating"  # targets and donors, merged in the background
    DONATED = "donated"  # the test examples of one target, asked once
    CLIMBING = "climbing"  # a method step by step, until its end was said (`session.ladder` stays)
    SIZING = "sizing"  # a merge at every size, until its end was said (`session.sizes` stays)
    SOUPING = "souping"  # experts of an average, until its end was said (`session.soup` stays)
    RANKING = "ranking"  # all methods, until its end was said (`session.board` stays)
    CONFLICTING = "conflicting"  # pairs of tasks, or all but one, merged in the background
    LOOKING = "looking"  # one task's examples, asked of a merge that is made again
    LOOKING_AHEAD = "looking ahead"  # the other tasks' examples, in the background
    LOADING_PARTS = "loading parts"  # the merged parts swapped into the base, one by one
    CHOOSING = "choosing"  # inputs that one expert chose for a calibration, read again
    FILMING = "filming"  # one run's calibration, tested block by block
    TABULATING = "tabulating"  # every layer of one run, in numbers
    STEPPING = "stepping"  # one layer of one run, stage by stage
    MAPPING = "mapping"  # examples under base, experts and one run, in one plane
    TRAVELLING = "travelling"  # the rest of that map, in the background; stays
    ASKING = "asking"  # an example of the user's, of base, experts and runs
    WALKING = "walking"  # accuracy and loss from the base over each expert to a run
    SURVEYING = "surveying"  # every layer and task of the family, in the background
    LESSON = "lesson merges"  # all merges of a lesson, one after another
    WRITING = "writing"  # a model directory
    AVERAGING = "averaging"  # the mean of experts without a base, written as one
    FETCHING = "fetching"  # a model of the hub, into this machine's cache
    READING = "reading"  # a recipe file that was uploaded; stays while the file does


class Held(Generic[T]):
    """One key of the session; its name is the attribute's, with spaces."""

    def __init__(self, default: T) -> None:
        self.default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name.replace("_", " ")

    @overload
    def __get__(self, session: None, owner: type) -> Held[T]: ...
    @overload
    def __get__(self, session: Session, owner: type) -> T: ...
    def __get__(self, session: Session | None, owner: type) -> Held[T] | T:
        return self if session is None else st.session_state.get(self.name, self.default)

    def __set__(self, session: Session, value: T) -> None:
        st.session_state[self.name] = value

    def __delete__(self, session: Session) -> None:
        st.session_state.pop(self.name, None)


class Session:
    """The session that is running now.  Defaults are never changed in place: a new value is set.

    `W` behind a key: it is a widget's as well, which is drawn with this name.
    """

    # The way in, and the family
    entered: Held[bool] = Held(False)
    """Whether the pages are opened through app.py."""
    family: Held[str | None] = Held(None)
    """W: the label of the chosen family."""
    chosen_family: Held[str | None] = Held(None)
    """The same on a page where the widget was not drawn yet."""
    followed_family: Held[str | None] = Held(None)
    """The family that the address named when it was last followed."""
    opened_families: Held[tuple[str, ...]] = Held(())
    """Files of the families that were opened by their path."""
    family_path: Held[str] = Held("")
    """W: the path that is being typed."""
    family_path_problem: Held[str | None] = Held(None)
    """Why the path that was typed last is not opened."""

    draft: Held[Draft | None] = Held(None)
    """The family that is being put together."""
    draft_count: Held[int] = Held(0)
    """How many were begun: a part of the names of the form's widgets."""
    models: Held[ModelSearch | None] = Held(None)
    """What lies on this machine to choose from, as it was searched last."""

    hub_offer: Held[hub.Offer | None] = Held(None)
    """What the hub has said of the model that was asked for last."""
    hub_problem: Held[str | None] = Held(None)
    """Why the hub has no answer."""
    hub_id: Held[str] = Held("")
    """W: the id that is being typed."""

    # Work, and what is said of it
    known_ended: Held[WeakSet[Job] | None] = Held(None)
    """Jobs that had ended when the page began to be drawn (see `tracked.begin`)."""
    notice: Held[tuple[str, str] | None] = Held(None)
    """(kind, sentence) that pages show until the next piece of work begins."""
    said: Held[tuple[int, str, bool]] = Held((0, "", False))
    """(how often something was said aloud, what last, whether to look there)."""
    asked: Held[Request | None] = Held(None)
    """The merge that was asked for last."""
    refining: Held[tuple[Job, ...]] = Held(())
    """Jobs that test runs on the examples that their first test left out."""
    linked: Held[Mapping[str, str]] = Held({})
    """Query parameter → the job that the address named by it when it was last followed."""
    sweep: Held[Job | None] = Held(None)
    """The last sweep, whose picture stays."""
    sweep_click: Held[tuple[int, int] | None] = Held(None)
    """(sweep, point) of the last click on that picture."""
    search: Held[Job | None] = Held(None)
    """The last search beyond a grid, whose pictures stay."""
    search_click: Held[tuple[int, int] | None] = Held(None)
    """(search, trial) of the last click on its pictures."""
    tuned: Held[Tuned | None] = Held(None)
    """How the settings that Merge took over were chosen; it holds as long as they stay."""
    ladder: Held[Job | None] = Held(None)
    """The last ladder, whose figure stays."""
    sizes: Held[Job | None] = Held(None)
    """The last curve of accuracy against size, whose figure stays."""
    soup: Held[Job | None] = Held(None)
    """The last greedy soup, whose steps stay."""
    board: Held[Job | None] = Held(None)
    """The last job that merged by all methods; it says which failed."""
    inside_shelf: Held[Shelf | None] = Held(None)
    """What was found out about the last runs that were looked into."""
    trajectories: Held[Mapping[str, Mapping[str, Trajectory]]] = Held({})
    """Run → label → what was traced of it."""
    explained: Held[tuple[str, str] | None] = Held(None)
    """The two runs that Compare explains: which one, and against which."""
    unexplained: Held[tuple[str, str] | None] = Held(None)
    """The pair whose prediction was begun last: it is begun by itself once."""

    # Which runs are shown
    followed: Held[str | None] = Held(None)
    """The run that the address named when it was last followed."""
    shown_run: Held[str | None] = Held(None)
    """W: the run that Merge shows."""
    beside_run: Held[str | None] = Held(None)
    """W: the run beside it."""
    compared: Held[Sequence[str] | None] = Held(None)
    """The runs that are ticked on Compare; None: nothing was ticked yet."""
    inside_run: Held[str | None] = Held(None)
    """W: the run that Inside looks into."""
    inside_other: Held[str | None] = Held(None)
    """W: the run that Inside compares it with, where that is another merge."""
    pinned_examples: Held[Mapping[tuple[str, str], tuple[int, ...]]] = Held({})
    """(family, task) → places of the validation examples that are pinned on Inside."""
    stepped_layer: Held[str | None] = Held(None)
    """W: the layer that Inside steps through."""
    opened_row: Held[tuple[str, str] | None] = Held(None)
    """(run, layer) of the row of Inside's table that was opened last."""
    own_example: Held[Job | None] = Held(None)
    """The job that asked the last example of the user's."""
    inside_follows: Held[str | None] = Held(None)
    """The shown run that Inside took over last."""

    # What is set, and what is asked to be set
    taken: Held[str | None] = Held(None)
    """The settings that the address has handed over last."""
    standing: Held[Request | None] = Held(None)
    """What stood on Merge when it was drawn last."""
    wanted: Held[Wanted | None] = Held(None)
    """Settings that Merge puts into its widgets when it is drawn next."""
    reset_count: Held[int] = Held(0)
    """Part of the names of Merge's widgets: counted up, all have their defaults again."""
    subspaces_layer: Held[str | None] = Held(None)
    """W: the layer that Subspaces shows."""
    subspaces_task: Held[str | None] = Held(None)
    """W: its task."""
    overlap_with: Held[str | None] = Held(None)
    """W: the second task of its pair."""

    # Learn
    lesson: Held[int | None] = Held(None)
    """The lesson that is open."""
    lesson_goes_to: Held[str | None] = Held(None)
    """The page that the next run of the script switches to."""
    toy: Held[dict[str, Any] | None] = Held(None)
    """The scene of the picture: tasks, start, origin, and how much the picture has sent."""
    toy_wanted: Held[int | None] = Held(None)
    """The step that the next run of the script opens."""
    toy_step: Held[str | None] = Held(None)
    """W: the title of the step."""
    toy_preset: Held[str | None] = Held(None)
    """W: the preset that the scene was taken from and not changed since."""


session = Session()


# Jobs ---------------------------------------------------------------------------------------------


def job(slot: Slot) -> Job | None:
    """The job in a slot, ended or not; None where it is empty."""
    return st.session_state.get(slot.value)


def put_job(slot: Slot, job: Job | None) -> None:
    """Put a job into a slot, or empty it."""
    if job is None:
        st.session_state.pop(slot.value, None)
    else:
        st.session_state[slot.value] = job


# Widgets ------------------------------------------------------------------------------------------


def is_set(key: str) -> bool:
    """Whether a widget was drawn before, or was given a value."""
    return key in st.session_state


def value(key: str, default: Any = None) -> Any:
    """What a widget holds; `default` where it was never drawn."""
    return st.session_state.get(key, default)


def put(key: str, value: Any) -> None:
    """Give a widget its value before it is drawn, or in a callback."""
    st.session_state[key] = value
