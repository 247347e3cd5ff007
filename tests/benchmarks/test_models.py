"""Estimates for language models: shapes and counts against the models' own figures."""

from __future__ import annotations

import pytest

from benchmarks.performance.models import LLAMAS, Rate, estimate, llama, statistics_bytes, work


def test_the_models_have_their_published_sizes():
    found = {model.name: model.parameters / 1e9 for model in LLAMAS}
    # Published totals less embedding and output (2 × 32000 × width).
    assert found["7B"] == pytest.approx(6.738 - 2 * 32000 * 4096e-9, rel=1e-3)
    assert found["30B"] == pytest.approx(32.529 - 2 * 32000 * 6656e-9, rel=1e-3)
    assert found["70B"] == pytest.approx(68.977 - 2 * 32000 * 8192e-9, rel=1e-3)


def test_bytes_of_statistics():
    tiny = llama("tiny", 2, 8, 20)
    # q, k, v, o: 8 + 8; gate, up: 8 and 20; down: 20 and 8.
    assert statistics_bytes(tiny, None) == 4 * 2 * (4 * 2 * 64 + 3 * (64 + 400))
    low = 2 * 8 + 1, 2 * 20 + 1
    assert statistics_bytes(tiny, 2) == 4 * 2 * (4 * 2 * low[0] + 3 * sum(low))
    # 8 columns are not twice 5, 20 are.
    assert statistics_bytes(tiny, 5) == 4 * 2 * (4 * 2 * 64 + 3 * (64 + 5 * 20 + 1))


def test_grouped_keys_are_smaller():
    shapes = llama("grouped", 1, 8192, 28672, keys=1024).shapes
    assert shapes == ((8192, 8192, 2), (1024, 8192, 2), (28672, 8192, 2), (8192, 28672, 1))


def test_a_measured_layer_is_estimated_as_itself():
    model = llama("one", 3, 64, 160)
    rates = [
        Rate("kfac", m, n, 1e-9 * work("kfac", m, n, 4, 8, 10), work("kfac", m, n, 4, 8, 10), 10)
        for m, n, _ in model.shapes
    ]
    whole = 3 * sum(n * work("kfac", m, k, 4, 8, 10) for m, k, n in model.shapes)
    assert estimate(model, "kfac", rates, tasks=4, rank=8) == pytest.approx(1e-9 * whole)


def test_work_goes_by_rank_tasks_and_iterations():
    def kfac(**changes):
        how = {"tasks": 4, "rank": 8, "iterations": 10, **changes}
        return work("kfac", 4096, 4096, **how)

    assert kfac(rank=16) == pytest.approx(2 * kfac(), rel=0.05)
    assert kfac(tasks=8) == pytest.approx(2 * kfac(), rel=0.05)
    assert 1.5 < kfac(iterations=20) / kfac() < 2
    with pytest.raises(KeyError):
        work("median", 1, 1, 1, 1, 1)
