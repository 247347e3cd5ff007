"""What every method is made of, and what the table of methods promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from mats_core.linear.lowrank import matrix
from mats_core.linear.updates import norm, weighted_sum
from mats_core.methods.layer import averaged
from mats_core.methods.options import Options, option
from mats_core.methods.reference import describe
from mats_core.methods.table import METHODS
from tests.layer_cases import close, enough, random_case
from tests.method_cases import CASES


def test_weighted_sum_leaves_its_terms_alone():
    terms = [torch.ones(2), torch.ones(2)]
    assert weighted_sum(terms, (1.0, 3.0)).tolist() == [4, 4]
    assert terms[0].tolist() == [1, 1]
    assert weighted_sum(terms, (1.0, 1.0)) is not terms[0]
    with pytest.raises(ValueError, match="shorter"):
        weighted_sum(terms, (1.0,))
    with pytest.raises(ValueError, match="nothing"):
        weighted_sum([], ())


def test_layer_helpers():
    layer = random_case(1).with_weights(1.0, 3.0, 4.0).layer
    assert layer.shares == (0.125, 0.375, 0.5)
    close(layer.base + layer.mean_update, averaged(layer).value)
    assert layer.measured("block") is None
    grams = layer.measured("input_gram")
    assert grams is not None
    assert len(grams) == 3
    last = replace(layer.statistics[2], input_gram=None)
    partial = replace(layer, statistics=(*layer.statistics[:2], last))
    assert partial.measured("input_gram") is None


def test_norm_is_accumulated_in_float64():
    assert norm(torch.full((1000, 1000), 1e-3)) == pytest.approx(1.0, rel=1e-7)


def test_options_are_declared_once():
    class Some(Options):
        x: float = option(0.5, "help", low=0, high=1, above=None, step=0.1, source="here")

    assert Some.model_json_schema()["properties"]["x"] == {
        "default": 0.5, "description": "help", "minimum": 0, "maximum": 1, "source": "here",
        "step": 0.1, "title": "X", "type": "number",
    }  # fmt: skip
    for bad in (1.1, -0.1, "much"):
        with pytest.raises(ValidationError):
            Some(x=bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", list(METHODS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_method_keeps_dtype_and_shape_and_its_inputs(name, dtype):
    case = random_case(2)

    def cast(own):
        fields = {k: None if v is None else v.to(dtype) for k, v in vars(own).items()}
        return type(own)(**fields)

    layer = replace(
        case.layer,
        base=case.layer.base.to(dtype),
        experts=tuple(w.to(dtype) for w in case.layer.experts),
        statistics=tuple(cast(own) for own in case.layer.statistics),
        base_statistics=cast(case.layer.base_statistics),
    )
    before = [layer.base.clone(), *(w.clone() for w in layer.experts)]
    grams = [
        matrix(own.input_gram).clone() for own in layer.statistics if own.input_gram is not None
    ]
    method = METHODS[name]
    value = method.merge(enough(layer, name), method.options(), None).value
    assert value.dtype == dtype
    assert value.shape == layer.base.shape
    for old, now in zip(before, (layer.base, *layer.experts), strict=True):
        assert torch.equal(old, now)
    for old, own in zip(grams, layer.statistics, strict=True):
        assert own.input_gram is not None
        assert torch.equal(old, matrix(own.input_gram))


@pytest.mark.parametrize("name", list(METHODS))
def test_float32_is_close_to_float64(name):
    layer = random_case(3).layer
    single = replace(
        layer,
        base=layer.base.float(),
        experts=tuple(w.float() for w in layer.experts),
        statistics=tuple(
            type(own)(**{k: None if v is None else v.float() for k, v in vars(own).items()})
            for own in layer.statistics
        ),
        base_statistics=type(layer.base_statistics)(fisher=layer.base_statistics.fisher.float()),  # type: ignore[union-attr]
    )
    method = METHODS[name]
    options = method.options()
    close(
        method.merge(enough(single, name), options, None).value,
        method.merge(enough(layer, name), options, None).value,
        CASES[name].single,
    )


@pytest.mark.parametrize("name", list(METHODS))
def test_what_a_method_declares_of_itself_is_there(name):
    method = METHODS[name]
    assert method.fallback in ("", *METHODS)
    assert sum(bool(field.checkpoint) for field in describe(name)) <= 1
    for field in describe(name):
        value = field.base_statistics or field.vectors
        if value:
            method.options.model_validate({field.name: value})
    if method.solve:
        values = {method.solve.limit: 3, **method.solve.undamped}
        assert method.options.model_validate(values).model_dump().items() >= values.items()
    assert len(method.short) <= len(method.title)


@pytest.mark.parametrize("name", [n for n, row in METHODS.items() if row.solve])
def test_a_solve_is_traced_up_to_its_limit(name):
    method, layer = METHODS[name], random_case(4).layer
    limits = {method.solve.limit: 3, "tolerance": 0.0, **method.solve.undamped}  # type: ignore[union-attr]
    solution = method.merge(layer, method.options.model_validate(limits), None).solution
    assert solution is not None
    assert len(solution.residuals) == 4  # and that of the start
