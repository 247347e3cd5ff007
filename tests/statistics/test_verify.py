"""Statistics check themselves: what batches do not give is measured by examples, or told."""

# Wrong kinds are handed in on purpose here.
# pyright: reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mats_core.api import measure, merge_models
from mats_core.errors import InputError
from mats_core.statistics import fisher, verify
from tests.layer_cases import close
from tests.module_cases import CLASSES, Mlp, fishers, images, loader

WIDE = 8


class Texts(nn.Module):
    """A table of tokens, something in the middle (examples, tokens, d), and a mean."""

    def __init__(self, middle: Callable[..., nn.Module], **table: object) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(12, WIDE, **table)
        self.middle = middle()
        self.out = nn.Linear(WIDE, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.middle(self.table(x))).mean(1))


class First(nn.Module):
    """A layer that sees the tokens first."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm = nn.Linear(WIDE, WIDE), nn.LayerNorm(WIDE)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(torch.tanh(self.inner(x.transpose(0, 1)))).transpose(0, 1)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDE, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x)[0]


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.inner = kind(WIDE, WIDE, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.transpose(0, 1))[0].transpose(0, 1)


class TwoBiases(nn.Module):
    """Two linear layers with one weight, and a bias each."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(WIDE, WIDE), nn.Linear(WIDE, WIDE)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.tanh(self.one(x)))


class Functional(nn.Module):
    """A weight that its module uses, and a function."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDE, WIDE)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(torch.tanh(self.inner(x)), self.inner.weight.T)


class Places(nn.Module):
    """A table of places (1, places, d): cut, or made longer, before it is added."""

    def __init__(self, change: Callable[[Tensor, int], Tensor]) -> None:
        super().__init__()
        self.places, self.change = nn.Parameter(torch.randn(1, 9, WIDE)), change

    def forward(self, x: Tensor) -> Tensor:
        return x + self.change(self.places, x.shape[1])


def longer(places: Tensor, tokens: int) -> Tensor:
    return functional.interpolate(places.transpose(1, 2), tokens, mode="linear").transpose(1, 2)


class Same(nn.LayerNorm):
    """A LayerNorm that computes as PyTorch's, in words of its own."""

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        normed = centred / (centred.pow(2).mean(-1, keepdim=True) + self.eps).sqrt()
        return self.weight * normed + self.bias


class Probe(nn.Module):
    """A probe (1, 1, d) that is repeated for the batch, as SigLIP's."""

    def __init__(self) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.randn(1, 1, WIDE))
        self.attention = nn.MultiheadAttention(WIDE, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(self.probe.repeat(len(x), 1, 1), x, x)[0]


class Plain(nn.Linear):
    """Falcon's: a forward of its own, and the same."""

    def __init__(self) -> None:
        super().__init__(WIDE, WIDE)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias


class Rare(nn.Module):
    """An expert that only some tokens reach, and none of the first examples'."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.expert = nn.Linear(WIDE, WIDE), nn.Linear(WIDE, WIDE)

    def forward(self, x: Tensor) -> Tensor:
        y, chosen = self.inner(x), x[..., 0] > 0.5
        rows = self.expert(x[chosen]) if bool(chosen.any()) else x[chosen]
        return y.masked_scatter(chosen[..., None].expand_as(y), rows)


class Shared(nn.Module):
    """A table of relative places (2k, d) that is the same for all examples."""

    def __init__(self) -> None:
        super().__init__()
        self.places, self.key = nn.Parameter(torch.randn(6, WIDE)), nn.Linear(WIDE, WIDE)

    def forward(self, x: Tensor) -> Tensor:
        return x + (x @ self.key(self.places).T) @ self.places + self.key(x)


class Grouped(nn.Module):
    def __init__(self, **settings: object) -> None:
        super().__init__()
        self.inner = nn.Conv2d(WIDE, WIDE, 3, padding=1, groups=4, **settings)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)


# name → what is in the middle, keyword arguments of the table, what is measured by examples
KINDS: dict[str, tuple[Callable[[], nn.Module], dict[str, object], set[str]]] = {
    "tokens first": (First, {}, {"middle.inner.weight", "middle.norm.weight"}),
    "nn.MultiheadAttention": (Attention, {}, {"middle.attention.in_proj_weight"}),
    "LSTM": (lambda: Recurrent(nn.LSTM), {}, {"middle.inner.weight_hh_l0"}),
    "GRU": (lambda: Recurrent(nn.GRU), {}, {"middle.inner.weight_hh_l0"}),
    "two biases": (TwoBiases, {}, set()),
    "a weight used by a function": (Functional, {}, {"middle.inner.weight"}),
    "places, cut": (lambda: Places(lambda p, n: p[:, :n]), {}, {"middle.places"}),
    "places, made longer": (lambda: Places(longer), {}, {"middle.places"}),
    "a LayerNorm of its own": (lambda: Same(WIDE), {}, set()),
    "a linear layer of its own": (Plain, {}, set()),
    "a probe": (Probe, {}, {"middle.attention.in_proj_weight"}),
    "an expert of few tokens": (Rare, {}, {"middle.expert.weight"}),
    "places that all share": (Shared, {}, {"middle.key.weight", "middle.places"}),
    "groups": (Grouped, {}, set()),
    "groups, reflected": (lambda: Grouped(padding_mode="circular"), {}, set()),
    "padding_idx": (nn.Identity, {"padding_idx": 3}, set()),
    "max_norm": (nn.Identity, {"max_norm": 1.0}, set()),
    "sparse": (nn.Identity, {"sparse": True}, set()),
    "nn.TransformerEncoderLayer": (
        lambda: nn.TransformerEncoderLayer(WIDE, 2, 12, batch_first=True), {},
        {"middle.self_attn.in_proj_weight"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("tokens", "size"), [(4, 6), (5, 6), (8, 4), (6, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_module_is_exact(kind, tokens, size):
    middle, table, slow = KINDS[kind]
    model = Texts(middle, **table).double()
    random = torch.Generator().manual_seed(1)
    x = torch.randint(12, (12, tokens), generator=random)
    y = torch.randint(CLASSES, (12,), generator=random)
    before = copy.deepcopy(model.state_dict())
    found = measure(model, list(zip(x.split(size), y.split(size), strict=True)))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    wanted = fishers(model, x, y)
    for name, value in wanted.items():
        if float(value.norm()) > 1e-25:
            close(found.stored(f"{name}.fisher"), value, 1e-9)
    assert {f"{name}.fisher" for name in wanted} == {n for n in found.shapes if "fisher" in n}
    if size > 1:
        assert bool(found.notes) == bool(slow)
        one = measure(model, list(zip(x.split(1), y.split(1), strict=True)))
        assert one.shapes == found.shapes
        for name in one.shapes:
            if float(one.stored(name).norm()) > 1e-25:
                close(found.stored(name), one.stored(name), 1e-9)


def test_blocks_and_ranks_are_the_same_by_examples():
    model = Texts(First).double()
    x, y = torch.randint(12, (12, 4)), torch.randint(CLASSES, (12,))
    batches, singles = [(x, y)], list(zip(x.split(1), y.split(1), strict=True))
    for settings in ({"blocks": WIDE}, {"rank": 3}):
        found, one = measure(model, batches, **settings), measure(model, singles, **settings)
        assert found.shapes.keys() == one.shapes.keys()
    found, one = (measure(model, some, blocks=WIDE) for some in (batches, singles))
    assert any("middle" in name and name.endswith(".block") for name in found.shapes)
    for name in one.shapes:
        close(found.stored(name), one.stored(name), 1e-9)


def test_drawn_labels_are_those_of_the_batch_by_examples():
    model = Texts(First).double()
    x = torch.randint(12, (12, 4))
    found = measure(model, [(x,)], labels="true", seed=2)
    one = measure(model, [(row,) for row in x.split(1)], labels="true", seed=2)
    for name in one.shapes:
        close(found.stored(name), one.stored(name), 1e-9)


def test_a_first_batch_without_labels_is_not_what_is_compared():
    model = Mlp()
    x, y = images(12)
    none = torch.full((6,), -100)
    found = measure(model, [(x[:6], none), (x[6:], y[6:]), (x[:6], y[:6])])
    late = measure(model, [(x[6:], y[6:]), (x[:6], none), (x[:6], y[:6])])
    for name in late.shapes:
        close(found.stored(name), late.stored(name), 1e-5)
    assert not late.notes


# Losses -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda m, b: functional.cross_entropy(m(b[0]), b[1]), "a mean: .*reduction='sum'"),
        (lambda m, b: -functional.cross_entropy(m(b[0]), b[1]), "a mean: .*reduction='sum'"),
        (lambda m, b: (m(b[0]) ** 2).mean(), "a mean: .*reduction='sum'"),
        (lambda m, b: functional.cross_entropy(m(b[0]) @ m(b[0]).T, b[1] * 0, reduction="sum"),
         "compares the examples"),
    ],
    ids=["mean", "its negative", "squares", "contrastive"],
)  # fmt: skip
def test_a_loss_that_is_no_sum_is_refused(loss, words):
    with pytest.raises(InputError, match=f"what 'loss' returns: expected the sum.*{words}"):
        measure(Mlp(), loader(), loss=loss)


def test_a_mean_over_batches_of_one_is_a_sum():
    mean = measure(
        Mlp(), loader(batch=1), loss=lambda m, b: functional.cross_entropy(m(b[0]), b[1])
    )
    plain = measure(Mlp(), loader(batch=1))
    for name in plain.shapes:
        assert mean.shapes[name] == plain.shapes[name]


def test_a_loss_that_draws_numbers_is_taken_and_told():
    def noisy(model, batch):
        x = batch[0] + torch.randn_like(batch[0])
        return functional.cross_entropy(model(x), batch[1], reduction="sum")

    found = measure(Mlp(), loader(), loss=noisy)
    assert "fc1.input_gram" in found.shapes
    assert "draws random numbers" in found.notes[0]


def test_a_batch_that_cannot_be_cut_is_taken_and_told():
    """A graph: its edges name the nodes of a whole batch."""

    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.inner, self.norm = nn.Linear(WIDE, WIDE), Same(WIDE)
            self.out = nn.Linear(WIDE, CLASSES)

        def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
            h = torch.tanh(self.norm(self.inner(nodes)))
            return self.out(h.index_add(0, edges[0], h[edges[1]]))

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        said = model(batch["nodes"], batch["edges"])
        return functional.cross_entropy(said, batch["labels"], reduction="sum")

    batch = {"nodes": torch.randn(6, WIDE), "edges": torch.randint(6, (2, 9)),
             "labels": torch.randint(CLASSES, (6,))}  # fmt: skip
    found = measure(Graph(), [batch], loss=loss)
    assert "out.weight.fisher" in found.shapes
    # Whether a LayerNorm with a forward of its own is one was not compared.
    assert "norm.weight.fisher" not in found.shapes
    assert "cannot be measured" in found.notes[0]


def test_what_was_left_out_is_told_by_the_merge():
    base = Mlp()
    experts = {name: copy.deepcopy(base) for name in ("a", "b")}

    def noisy(model, batch):
        return functional.cross_entropy(
            model(batch[0] + torch.randn_like(batch[0])), batch[1], reduction="sum"
        )

    statistics = {name: measure(model, loader(), loss=noisy) for name, model in experts.items()}
    merged = merge_models(base, experts, "kfac", statistics=statistics)
    assert any("draws random numbers" in warning for warning in merged.report.warnings)


# The check itself ---------------------------------------------------------------------------------


def test_a_layer_is_compared_and_the_cost_is_two_examples(monkeypatch):
    seen: list[int] = []
    forward = Mlp.forward
    monkeypatch.setattr(Mlp, "forward", lambda self, x: seen.append(len(x)) or forward(self, x))
    measure(Mlp(), loader(24, batch=8))
    assert seen == [2, 1, 1, 8, 8, 8]


def test_a_wrong_formula_is_noticed(monkeypatch):
    model = Mlp()
    right = measure(model, loader())
    monkeypatch.setattr(fisher, "bias", lambda g: 1.1 * g.sum(1))
    found = measure(model, loader())
    assert "fc1.bias" in found.notes[0]
    for name in right.shapes:
        close(found.stored(name), right.stored(name), 1e-5)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e3])
def test_a_model_that_is_sure_is_no_false_alarm(scale):
    """A saturated softmax has no gradient but rounding, if its labels are the expected ones."""
    torch.manual_seed(0)
    x, _ = images()
    model = Mlp()
    with torch.no_grad():
        model.out.weight.mul_(100 * scale)
    found = measure(model, [(x, model(x).argmax(-1))])
    assert not found.notes


def test_rows_that_are_compared_are_the_longest_and_the_shortest():
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0], [1, 1, 0]])
    inputs = {"input_ids": mask, "attention_mask": mask}
    assert verify.rows_to_verify(inputs, None) == [1, 2]
    truth = torch.tensor([[1, 1], [-100, -100], [1, 1], [1, 1]])
    assert verify.rows_to_verify(inputs, truth) == [0, 2]
    assert verify.rows_to_verify(inputs, torch.full((4, 2), -100)) == []
    one = torch.full((4, 2), -100)
    one[3] = 1
    assert sorted(verify.rows_to_verify(inputs, one)) == [0, 3]
    assert verify.rows_to_verify({"x": torch.zeros(4, 2)}, None) == [0, 3]
    assert verify.rows_to_verify({"x": torch.zeros(1, 2)}, None) == [0]


def test_nothing_is_told_where_all_is_well():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert measure(Mlp(), loader()).notes == ()
