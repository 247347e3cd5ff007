"""SLERP against a rotation in the plane of the two experts, computed in float64 by other means."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mats_core.errors import InputError
from mats_core.methods.layer import Layer
from mats_core.recipes.plan import prepare
from mats_core.recipes.recipe import parse_recipe
from tests.conftest import family_recipe
from tests.layer_cases import SEEDS, close, merged, random_case, value


def rotated(first: np.ndarray, second: np.ndarray, t: float) -> np.ndarray:
    """Unit vectors turned by the share t of their angle (Gram–Schmidt, arctan2), lengths after.

    What the turned vector is of the two unit vectors is found by least squares, and holds for
    vectors of any length.
    """
    a, b = first.ravel(), second.ravel()
    u, v = a / np.linalg.norm(a), b / np.linalg.norm(b)
    across = v - (u @ v) * u
    angle = np.arctan2(np.linalg.norm(across), u @ v)
    turned = np.cos(t * angle) * u + np.sin(t * angle) * across / np.linalg.norm(across)
    shares = np.linalg.lstsq(np.stack([u, v], 1), turned, rcond=None)[0]
    return (shares[0] * a + shares[1] * b).reshape(first.shape)


def two(seed: int, shape: tuple[int, ...] = (6, 5)) -> Layer:
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, *shape, dtype=torch.float64, generator=generator)
    return replace(random_case(seed, experts=2).layer, experts=(first, 3 * second))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("shape", [(6, 5), (7,), (3, 2, 2)])
def test_it_is_the_rotation(seed, t, shape):
    layer = two(seed, shape)
    first, second = (w.numpy() for w in layer.experts)
    found = merged(layer, "slerp", t=t)
    close(found.value, rotated(first, second, t), 1e-12)
    assert (found.method, found.treatment) == ("slerp", "merged")
    cosine = np.vdot(first, second) / np.linalg.norm(first) / np.linalg.norm(second)
    assert found.details["cosine"] == pytest.approx(cosine)


def test_vectors_of_one_length_keep_it_where_the_mean_does_not():
    layer = two(3)
    layer = replace(layer, experts=tuple(w / w.norm() for w in layer.experts))
    assert float(value(layer, "slerp", t=0.3).norm()) == pytest.approx(1, rel=1e-12)
    assert float(value(layer, "average").norm()) < 0.95


@pytest.mark.parametrize("sign", [1, -1])
def test_nearly_parallel_and_opposite_ones_are_interpolated_linearly(sign):
    first = two(4).experts[0]
    other = sign * (first + 1e-2 * two(5).experts[0])
    layer = replace(two(4), experts=(first, other))
    found = merged(layer, "slerp", t=0.25)
    close(found.value, 0.75 * first + 0.25 * other, 1e-14)
    assert found.method == "lerp"
    # The limit is an option: just above this cosine the same pair is on the arc.
    if sign > 0:
        arc = merged(layer, "slerp", t=0.25, parallel=0.999999)
        assert found.details["cosine"] < 0.999999
        assert arc.method == "slerp"
        close(arc.value, rotated(first.numpy(), other.numpy(), 0.25), 1e-9)


def test_identical_ones_come_back_whatever_the_limit():
    layer = two(6)
    same = replace(layer, experts=layer.experts[:1] * 2)
    close(value(same, "slerp", t=0.7, parallel=0.999999), same.experts[0], 1e-14)


def test_zeros_have_no_direction():
    """As mergekit takes them: orthogonal, so that half-way is √½ of the other."""
    layer = two(7)
    zero = torch.zeros_like(layer.experts[0])
    half = value(replace(layer, experts=(zero, layer.experts[1])), "slerp")
    close(half, np.sqrt(0.5) * layer.experts[1].numpy(), 1e-14)
    assert torch.equal(value(replace(layer, experts=(zero, zero)), "slerp"), zero)


def test_the_cosine_of_a_long_float32_tensor_is_accumulated_in_float64():
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(3_000_001, generator=generator) + 5
    second = first + 0.2 * torch.randn(3_000_001, generator=generator)
    layer = replace(two(0), experts=(first, second))
    a, b = first.double().numpy(), second.double().numpy()
    expected = np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b))
    assert merged(layer, "slerp").details["cosine"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("count", [1, 3])
def test_it_takes_two_experts(tiny_family, count):
    content = family_recipe(tiny_family, "average")
    experts = content["experts"]
    assert isinstance(experts, list)
    recipe = parse_recipe({**content, "method": "slerp", "experts": experts[:count]}, tiny_family)
    with pytest.raises(InputError) as caught:
        prepare(recipe)
    says = str(caught.value)
    assert "method 'slerp'" in says
    assert "exactly 2 experts" in says
    assert f"found {count}: e0" in says
    assert "Choose the 2 to merge" in says
