"""What routes: scores and shares against their definitions, alone and inside of models."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mats_core.models import Router, Routing, joined, noting, parted

T, D, OUT = 3, 5, 4


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_prototypes_are_compared_by_the_cosine_of_the_mean_token():
    x, prototypes = drawn(4, 6, D), drawn(T, D, seed=1)
    scores = Router(prototypes).scores(x)
    for n in range(4):
        for t in range(T):
            expected = F.cosine_similarity(x[n].mean(0), prototypes[t], dim=0)
            torch.testing.assert_close(scores[n, t], expected)


def test_gates_are_compared_by_the_mean_logarithm_of_their_answers():
    x, gate, offsets = drawn(4, 6, D), drawn(T, 2, D, seed=1), drawn(T, seed=2)
    scores = Router(gate=gate, offsets=offsets).scores(x)
    for n in range(4):
        for t in range(T):
            each = [(gate[t] @ v).square().sum() / v.square().sum() for v in x[n]]
            expected = torch.stack(each).log().mean() - offsets[t]
            torch.testing.assert_close(scores[n, t], expected)


@pytest.mark.parametrize(
    "router",
    [Router(drawn(T, D)), Router(drawn(T, D), offsets=drawn(T)), Router(gate=drawn(T, 2, D))],
)
def test_padding_does_not_count(router):
    x = drawn(2, 6, D)
    there = torch.ones(2, 6)
    there[0, 4:] = 0
    torch.testing.assert_close(router.scores(x, there)[:1], router.scores(x[:1, :4]))


def test_tokens_mix_the_softmax_of_the_largest():
    x, gate = drawn(2, 3, D), drawn(T, 2, D, seed=1)
    router = Router(gate=gate, top=2)
    shares = router.shares(router.scores(x))
    norms = torch.stack([(gate[t] @ x[1, 2]).norm() for t in range(T)])
    best, which = norms.topk(2)
    expected = torch.zeros(T, dtype=torch.float64)
    expected[which] = best.softmax(0)
    torch.testing.assert_close(shares[1, 2], expected)


# Inside of a model --------------------------------------------------------------------------------


class Two(nn.Module):
    """Two linear layers over tokens, as a model is asked: by keywords."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(D, OUT).double(), nn.Linear(OUT, OUT).double()

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.two(torch.tanh(self.one(x)))


NAMES = {"one.weight": "one.weight", "two.weight": "two.weight"}


def beside(**router: Tensor) -> dict[str, dict[str, Tensor]]:
    return {
        "one.weight": {
            "right": drawn(T, OUT, D, seed=5), "bias": drawn(T, OUT, seed=6),
            "stage": torch.tensor(0), **router,
        },
        "two.weight": {
            "left": drawn(T, OUT, 2, seed=7), "right": drawn(T, 2, OUT, seed=8),
            "stage": torch.tensor(1), "prototypes": drawn(T, OUT, seed=9),
        },
    }  # fmt: skip


ROUTERS = {
    "discriminant": {"prototypes": drawn(T, D, seed=4), "offsets": drawn(T, seed=2)},
    "prototypes": {"prototypes": drawn(T, D, seed=4)},
    "gate": {"gate": drawn(T, 2, D, seed=4)},
    "tokens": {"gate": drawn(T, 2, D, seed=4), "top": torch.tensor(2)},
}


@pytest.fixture(params=ROUTERS)
def routed(request):
    model = Two()
    routing = Routing.of(beside(**ROUTERS[request.param]), NAMES)
    assert len(list(routing.attached(model))) == 3
    return model


def test_an_example_by_itself_or_in_any_order_is_answered_the_same(routed):
    x = drawn(8, 6, D, seed=3)
    whole, order = routed(x=x), torch.randperm(8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(routed(x=x[order]), whole[order])
    for n in range(8):
        torch.testing.assert_close(routed(x=x[n : n + 1])[0], whole[n])


def test_a_padded_example_is_answered_as_without_its_padding(routed):
    x = drawn(3, 6, D, seed=3)
    mask = torch.ones(3, 6, dtype=torch.long)
    mask[1, 2:] = 0
    found = routed(x=x, attention_mask=mask)
    torch.testing.assert_close(found[1, :2], routed(x=x[1:2, :2])[0])


def test_the_branch_of_the_chosen_expert_is_added():
    model = Two()
    parts = beside(**ROUTERS["prototypes"])
    x = drawn(8, 6, D, seed=3)
    plain = model.one(x)
    chosen: list[Tensor] = []
    handles = list(Routing.of({"one.weight": parts["one.weight"]}, NAMES).attached(model))
    with noting(lambda name, shares: chosen.append(shares)):
        model(x=x)
    (shares,) = chosen
    experts = shares[:, 0].argmax(1)
    assert len(experts.unique()) > 1
    expected = plain + torch.stack(
        [
            x[n] @ parts["one.weight"]["right"][t].mT + parts["one.weight"]["bias"][t]
            for n, t in enumerate(experts)
        ]
    )
    torch.testing.assert_close(model.one(x), expected)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(model.one(x), plain)


def test_the_scores_of_gates_add_up_over_the_stages():
    gates = {"a": drawn(T, 2, D, seed=1), "b": drawn(T, 2, D, seed=2)}
    routing = Routing()
    for stage, (name, gate) in enumerate(gates.items()):
        right = torch.zeros(T, OUT, D, dtype=torch.float64)
        routing.add(name, {"right": right, "stage": torch.tensor(stage), "gate": gate})
    model = nn.ModuleDict({name: nn.Linear(D, OUT).double() for name in gates})
    for name in gates:
        routing.added(model, name)
    x, seen = drawn(9, 4, D, seed=3), {}
    routing.entering(9, None)
    with noting(seen.__setitem__):
        for name in gates:
            model[name](x)
    first, second = (Router(gate=gate).scores(x) for gate in gates.values())
    assert torch.equal(seen["a"][:, 0].argmax(1), first.argmax(1))
    assert torch.equal(seen["b"][:, 0].argmax(1), (first + second).argmax(1))
    assert not torch.equal(first.argmax(1), second.argmax(1))


def test_parts_ride_with_the_tensors_and_come_off_again():
    parts = beside(**ROUTERS["gate"])
    plain = {"one.weight": drawn(OUT, D), "one.bias": drawn(OUT)}
    assert parted({**plain, **joined(parts)}) == (plain, parts)
