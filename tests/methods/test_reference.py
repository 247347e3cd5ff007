"""What an option is set with: one rule for the page and the notebook's panel."""

from __future__ import annotations

import pytest

from mats_core.methods import reference
from mats_core.methods.presets import PRESETS, PROPOSED
from mats_core.methods.reference import MOST_STEPS, OptionField, describe
from mats_core.methods.table import METHODS

CONTROLS = {
    ("essential", "scaling"): "slider",
    ("essential", "task_power"): "switch",
    ("essential", "rank"): "number",
    ("essential", "centre"): "toggle",
    ("kfac", "damping"): "series",
    ("kfac", "iterations"): "series",
    ("kfac", "start"): "choice",
    ("kfac", "preconditioner"): "choice",
    ("dare", "seed"): "number",
    ("gradient_matching", "prior"): "choice",
}


@pytest.mark.parametrize(("method", "name"), CONTROLS)
def test_an_option_is_set_with(method, name):
    (field,) = (one for one in describe(method) if one.name == name)
    assert field.control == CONTROLS[method, name]


def test_a_wide_range_in_ones_is_typed():
    wide = OptionField("n", "int", 3, "", low=0, high=MOST_STEPS + 1, step=1)
    assert wide.control == "number"
    assert OptionField("n", "int", 3, "", low=0, high=MOST_STEPS, step=1).control == "slider"


def test_a_series_holds_its_ends_the_default_and_what_was_set():
    damping = OptionField("damping", "float", 0.15, "", low=0, high=10, step=0.01)
    marks = damping.series(0.123)
    assert marks[:3] == [0, 0.001, 0.002]
    assert marks[-1] == 10
    assert {0.123, 0.15, 0.7} <= set(marks)
    assert marks == sorted(set(marks))
    count = OptionField("n", "int", 50, "", low=0, high=2000, step=5)
    assert count.series()[:7] == [0, 1, 2, 3, 5, 7, 10]
    assert count.series()[-1] == 2000
    assert all(type(value) is int for value in count.series())


def test_presets_are_options_of_their_methods():
    assert PROPOSED in METHODS
    for preset in PRESETS:
        METHODS[preset.method].options.model_validate(preset.options)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("average", "nothing but the experts' weights"),
        ("kfac", "with `gram` `update` nothing but base and experts; with `gram` `update-output` "
                 "input_gram"),
        ("sequential", "each expert's task, whose inputs it looks at; with `curvature` `measured` "
                       "output_gradient_gram; with `inputs` `pile` not every expert's; with "
                       "`inputs` `pool` not every expert's"),
        ("fisher", "the experts' statistics (`measure`)"),
    ],
)  # fmt: skip
def test_what_a_method_needs_is_read_off_its_declaration(name, says):
    assert reference.needs(name).endswith(says)
