"""Models that choose first: against the chosen expert's weights put in by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mats_core.models import Choosing, Router, Routing, change, noting, seen_inputs
from mats_core.models.choosing import routed_by

T, D, OUT, WORDS = 3, 5, 4, 11


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Tiny(nn.Module):
    """Texts through a table, a norm, and two layers, one of whose weights is the table itself."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(WORDS, D).double()
        self.norm, self.one = nn.LayerNorm(D).double(), nn.Linear(D, D).double()
        self.last = nn.Linear(D, WORDS, bias=False).double()
        self.last.weight = self.table.weight

    def forward(self, words: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Any:
        x = self.one(self.norm(self.table(words)))
        there = torch.ones_like(words) if attention_mask is None else attention_mask
        mean = (x * there[..., None]).sum(1) / there.sum(1, keepdim=True)
        said = self.last(mean)
        return {"logits": said, "loss": said.square().mean(), "states": (x, mean), "cache": self}


NAMES = {f"{name}": name for name in ("table.weight", "norm.weight", "norm.bias", "one.weight")}
BESIDE = {
    "table.weight": {"left": drawn(T, WORDS, 2, seed=1), "right": drawn(T, 2, D, seed=2)},
    "norm.weight": {"right": drawn(T, D, seed=3)},
    "norm.bias": {"right": drawn(T, D, seed=4)},
    "one.weight": {
        "right": drawn(T, D, D, seed=5),
        "prototypes": drawn(T, D, seed=6),
    },
}  # fmt: skip


def words() -> Tensor:
    return torch.randint(0, WORDS, (12, 6), generator=torch.Generator().manual_seed(3))


@pytest.fixture
def choosing():
    torch.manual_seed(0)
    model = Tiny()
    router = BESIDE["one.weight"]  # with offsets by which every expert is chosen by some
    means = seen_inputs(model, {"words": words()}, ["one"])["one"][:, :D]
    router["offsets"] = (means @ router["prototypes"].mT).mean(0)
    (handle,) = routed_by(BESIDE, NAMES).attached(model)
    yield model
    handle.remove()


def test_each_example_is_answered_by_the_expert_that_it_chooses(choosing):
    x, seen = words(), []
    with noting(lambda name, shares: seen.append(shares[:, 0].argmax(1))):
        found = choosing(words=x)
    (chosen,) = seen
    assert len(chosen.unique()) == T
    torch.manual_seed(0)
    plain = Tiny()
    means = seen_inputs(plain, {"words": x}, ["one"])["one"][:, :D]
    router = BESIDE["one.weight"]
    assert torch.equal(chosen, (means @ router["prototypes"].mT - router["offsets"]).argmax(1))
    for expert in range(T):
        torch.manual_seed(0)
        own = Tiny()
        with torch.no_grad():
            for name, value in own.named_parameters():
                if name in BESIDE:
                    value += change(BESIDE[name], [float(n == expert) for n in range(T)], value)
        rows = chosen == expert
        expected = own(words=x[rows])
        torch.testing.assert_close(found["logits"][rows], expected["logits"])
        torch.testing.assert_close(found["states"][0][rows], expected["states"][0])
    torch.testing.assert_close(found["loss"], found["logits"].square().mean())
    assert found["cache"] is None


def test_wide_routers_read_the_deviations_of_the_tokens_too():
    """One word twice, or two words whose mean it is: the deviation alone tells them apart."""
    torch.manual_seed(0)
    model = Tiny()
    with torch.no_grad():
        model.table.weight[1] = torch.arange(float(D))
        model.table.weight[2] = model.table.weight[1] + torch.linspace(-1, 1, D).double()
        model.table.weight[3] = model.table.weight[1] - torch.linspace(-1, 1, D).double()
        model.add_module("norm", nn.Identity())
    prototypes = torch.zeros(2, 2 * D).double()
    prototypes[1, D:] = 1.0
    router = Router(prototypes, offsets=torch.tensor([0.0, 0.5]))
    choosing = Choosing({"one.weight": {"right": drawn(2, D, D)}}, {"one": router})
    x = torch.tensor([[1, 1, 7], [2, 3, 7], [1, 1, 1]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 1, 1]])
    call = {"words": x, "attention_mask": mask}
    shares = choosing.shares(model, model.forward, (), call)
    assert shares.argmax(1).tolist() == [0, 1, 0]
    seen = seen_inputs(model, call, ["one"])["one"]
    torch.testing.assert_close(seen[:, :D], model.table.weight[1].detach().expand(3, D))
    torch.testing.assert_close(seen[1, D:], torch.linspace(-1, 1, D).double().abs())


def test_an_example_by_itself_in_any_order_or_padded_is_answered_the_same(choosing):
    x = words()
    whole, order = choosing(words=x)["logits"], torch.randperm(12)
    torch.testing.assert_close(choosing(words=x[order])["logits"], whole[order])
    for n in range(12):
        torch.testing.assert_close(choosing(words=x[n : n + 1])["logits"][0], whole[n])
    mask = torch.ones_like(x)
    mask[3, 2:] = 0
    padded = choosing(words=x, attention_mask=mask)["logits"]
    torch.testing.assert_close(padded[3], choosing(words=x[3:4, :2])["logits"][0])


def test_a_model_is_as_before_after_a_call_and_after_its_handle_went(choosing):
    torch.manual_seed(0)
    plain = Tiny()
    choosing(words=words())
    assert all(map(torch.equal, choosing.parameters(), plain.parameters()))
    assert choosing.last.weight is choosing.table.weight
    del choosing.forward
    torch.testing.assert_close(choosing(words=words())["logits"], plain(words=words())["logits"])
    choosing.forward = lambda: None  # what the fixture takes away


def test_parts_with_stages_are_of_another_kind():
    parts = {"one.weight": {"right": drawn(T, D, D), "stage": torch.tensor(0)}}
    assert isinstance(routed_by(parts, NAMES), Routing)
    assert isinstance(routed_by(BESIDE, NAMES), Choosing)
