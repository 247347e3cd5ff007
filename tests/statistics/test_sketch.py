"""Statistics in low rank against the whole Grams: exact for few tokens, within the bound beyond."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mats_core.errors import InputError
from mats_core.linear.lowrank import LowRank, Woodbury, summed
from mats_core.merging.rounds import mean_of
from mats_core.statistics.collect import measure
from mats_core.statistics.passes import statistics_bytes
from mats_core.statistics.settings import MeasureSettings
from mats_core.statistics.sketch import Sketch
from mats_core.statistics.store import Statistics
from tests.layer_cases import close

WIDE, RANK = 40, 8


def tokens(count: int, size: int = WIDE, decay: float = 0.8, seed: int = 0) -> Tensor:
    """Rows whose Gram has a decaying spectrum."""
    generator = torch.Generator().manual_seed(seed)
    spread = decay ** torch.arange(size, dtype=torch.float64)
    basis = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator))[0]
    return torch.randn(count, size, dtype=torch.float64, generator=generator) * spread @ basis


def sketched(rows: Tensor, rank: int, batch: int = 13) -> tuple[Tensor, float]:
    sketch = Sketch(rank)
    for part in rows.split(batch):
        sketch.add(part)
    return sketch.close()


@pytest.mark.parametrize("count", [1, 5, RANK])
def test_few_tokens_are_kept_as_they_are(count):
    rows = tokens(count)
    factor, rest = sketched(rows, RANK)
    assert rest == 0
    assert torch.equal(factor, rows)


def test_padding_takes_no_place():
    rows = tokens(RANK)
    padded = torch.zeros(5 * RANK, WIDE, dtype=rows.dtype)
    padded[::5] = rows
    assert torch.equal(sketched(padded, RANK)[0], rows)


def test_tokens_of_low_rank_lose_nothing_however_many():
    mix = torch.randn(300, RANK, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    rows = mix @ tokens(RANK)
    factor, rest = sketched(rows, RANK)
    assert rest == 0
    close(factor.T @ factor, rows.T @ rows, 1e-10)


@pytest.mark.parametrize("decay", [0.6, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("batch", [1, 13, 500])
def test_the_sketch_is_within_its_bound(decay, batch):
    rows = tokens(500, decay=decay)
    factor, rest = sketched(rows, RANK, batch)
    assert len(factor) <= RANK
    gram = rows.T @ rows
    below = torch.linalg.eigvalsh(gram - factor.T @ factor)
    rounding = 1e-10 * float(gram.diagonal().sum())
    assert float(below.min()) >= -rounding
    assert float(below.max()) <= 2 * rest + rounding
    error = torch.linalg.matrix_norm(gram - factor.T @ factor - rest * torch.eye(WIDE).double(), 2)
    assert float(error) <= rest + rounding
    tails = torch.linalg.eigvalsh(gram).cumsum(0).flip(0)  # tails[j]: all but the j largest
    bound = min(float(tails[j]) / (RANK + 1 - j) for j in range(RANK + 1))
    assert 0 < 2 * rest <= bound * (1 + 1e-9)


def test_the_bound_falls_with_the_rank():
    rests = [sketched(tokens(500), rank)[1] for rank in (4, 8, 16, 32)]
    assert rests == sorted(rests, reverse=True)
    assert rests[-1] < rests[0] / 100


# Factors as Grams ---------------------------------------------------------------------------------


def gram(seed: int = 0, rank: int = 3) -> LowRank:
    rows = tokens(rank, size=9, seed=seed)
    return LowRank(rows, torch.linspace(0.1, 1, 9, dtype=torch.float64))


def test_factors_act_as_their_matrix():
    c, x = gram(), tokens(9, size=9, seed=4)
    matrix = c.dense()
    close(x @ c, x @ matrix)
    close(c @ x, matrix @ x)
    close(c.diagonal(), matrix.diagonal())
    off = 0.3 * matrix + 0.7 * torch.diag(matrix.diagonal())
    close(c.off_diagonal_scaled(0.3).dense(), off)
    trace = matrix.diagonal().sum()
    close(c.damped(0.2).dense(), matrix + 0.2 * trace / 9 * torch.eye(9))
    close(c.trace_normalised().dense(), matrix / trace)
    both = summed([c, gram(1)], (0.4, 2.0))
    close(both.dense(), 0.4 * matrix + 2 * gram(1).dense())
    zero = LowRank(torch.zeros(1, 9), torch.zeros(9))
    assert torch.equal(zero.trace_normalised().dense(), torch.zeros(9, 9))


def test_woodbury_is_the_inverse():
    c, x = gram(), tokens(9, size=9, seed=4)
    found = Woodbury.of(c)
    assert found is not None
    close(x @ found, x @ torch.linalg.inv(c.dense()))
    close(found @ x, torch.linalg.inv(c.dense()) @ x)
    close(x.float() @ found.to(x.float()), x @ torch.linalg.inv(c.dense()), 1e-5)
    assert Woodbury.of(replace(c, rest=c.rest - 0.1)) is None  # a zero in D


# Measured -----------------------------------------------------------------------------------------


class Wide(nn.Module):
    """A wide layer (in and out), and a narrow one behind it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.wide = nn.Linear(WIDE, 24)
        self.head = nn.Linear(24, 3)

    def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
        return self.head((self.wide(x).tanh() * attention_mask[..., None]).sum(1))


def batches(examples: int):
    x = tokens(examples * 4).reshape(examples, 4, WIDE)
    mask = torch.ones(examples, 4, dtype=torch.long)
    mask[:, 3] = 0
    for part in torch.arange(examples).split(3):
        yield {"x": x[part], "attention_mask": mask[part]}, part % 3


def measured(examples: int, rank: int) -> Statistics:
    return measure(Wide().double(), batches(examples), MeasureSettings(rank=rank))


KINDS = (("wide.input_gram", WIDE), ("wide.output_gradient_gram", 24))


def test_measuring_in_low_rank_is_exact_for_few_tokens(tmp_path: Path):
    whole = measured(4, 0)
    measured(4, 12).save(tmp_path / "low.safetensors")  # 4 examples of 3 tokens, and padding
    low = Statistics.open(tmp_path / "low.safetensors")
    assert low.metadata["rank"] == "12"
    assert low.shapes["wide.input_factor"] == (12, WIDE)
    assert "wide.input_gram" not in low.shapes
    assert low.shapes["head.input_factor"] == (4, 24)  # one token an example
    assert "head.output_gradient_gram" in low.shapes
    assert low.layers == whole.layers
    assert low.kinds >= whole.kinds
    for name, size in KINDS:
        assert name in low
        found = low.read(name, (size, size), dtype=torch.float64)
        assert found is not None
        close(found, whole.read(name, (size, size), dtype=torch.float64), 1e-12)
        factors = low.factored(name, size)
        assert factors is not None
        assert float(factors.rest.max()) == 0


def test_measuring_many_tokens_is_within_the_rest():
    whole, low = measured(60, 0), measured(60, RANK)
    for name, size in KINDS:
        factors = low.factored(name, size, dtype=torch.float64)
        assert factors is not None
        assert factors.rank <= RANK
        dense = whole.read(name, (size, size), dtype=torch.float64)
        assert dense is not None
        error = float(torch.linalg.matrix_norm(dense - factors.dense(), 2))
        assert error <= float(factors.rest[0]) + 1e-10 * float(dense.diagonal().sum())
    name = "wide.weight.fisher"
    fishers = [s.read(name, (24, WIDE), dtype=torch.float64) for s in (whole, low)]
    assert fishers[0] is not None
    assert fishers[1] is not None
    assert torch.equal(fishers[0], fishers[1])


def test_files_of_factors_are_checked():
    good = {"a.input_factor": torch.ones(2, 5), "a.input_rest": torch.tensor(0.5)}
    own = Statistics.of(good, {})
    assert own.read("a.output_gradient_gram", (5, 5)) is None
    with pytest.raises(InputError, match=r"shape \[2, 6\]"):
        own.read("a.input_gram", (6, 6))
    with pytest.raises(InputError, match="at least 0"):
        Statistics.of({**good, "a.input_rest": torch.tensor(-1.0)}, {}).factored("a.input_gram", 5)
    broken = Statistics.of({**good, "a.input_factor": torch.full((2, 5), float("nan"))}, {})
    with pytest.raises(InputError, match="finite"):
        broken.read("a.input_gram", (5, 5))
    moved = own.under({"a.weight": "b.weight"})
    assert "b.input_gram" in moved
    without = Statistics.of({"a.input_factor": torch.ones(2, 5)}, {})
    assert "a.input_gram" not in without
    assert without.read("a.input_gram", (5, 5)) is None


def test_the_mean_of_rounds_is_the_mean_of_their_grams():
    from mats_core.recipes.plan import Inputs

    parts = [
        Statistics.of(
            {"a.input_factor": tokens(2, size=5, seed=s), "a.input_rest": torch.tensor(0.5 + s)}, {}
        )
        for s in (0, 1)
    ]
    rounds = [Inputs(None, (own,), None) for own in parts]  # type: ignore[arg-type]
    found = mean_of(rounds).statistics[0]
    assert found is not None
    grams = [own.read("a.input_gram", (5, 5), dtype=torch.float64) for own in (*parts, found)]
    assert all(g is not None for g in grams)
    close(grams[2], (grams[0] + grams[1]) / 2, 1e-7)  # type: ignore[arg-type,operator]


def test_the_bytes_of_the_sums_are_told_by_the_rank():
    whole = statistics_bytes("a.weight", (4096, 11008), MeasureSettings())
    low = statistics_bytes("a.weight", (4096, 11008), MeasureSettings(rank=512))
    assert whole - low == 4 * (4096**2 + 11008**2 - 2 * 512 * (4096 + 11008))
    one, other = (
        statistics_bytes("a.weight", (64, 64), MeasureSettings(rank=rank)) for rank in (512, 0)
    )
    assert one == other
