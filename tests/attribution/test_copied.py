"""What is handed in beside the inputs is left as it was, whatever the model does."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from captum_transformer_lrp import (
    CPLRP,
    AttnLRP,
    CheferLRP,
    EpsilonLRP,
    GradientXInput,
    LayerAttnLRP,
    LLMTransformerLRP,
    NeuronAttnLRP,
    OwenLRP,
    PositionalLRP,
    check,
)
from captum_transformer_lrp._copied import copied
from captum_transformer_lrp.attribution.gradient_methods import (
    InputIntegratedGradients,
    InputSaliency,
)
from tests.helpers import relative

WIDTH = 6
IDS = torch.tensor([[3, 1, 4]])


class Slots:
    """A cache without a dictionary."""

    __slots__ = ("rows",)

    def __init__(self, rows: list[Tensor]) -> None:
        self.rows = rows


class Rows:
    """A cache that grows."""

    def __init__(self, rows: list[Tensor]) -> None:
        self.rows = rows


@dataclass
class Nested:
    """A cache of caches, as of an encoder and a decoder."""

    own: Rows
    cross: dict[str, Rows]


class Pair(NamedTuple):
    """A cache of older libraries."""

    rows: list[Tensor]
    length: int


def of_nested(rows: list[Tensor]) -> Nested:
    own = Rows(rows)
    return Nested(own, {"decoder": own})


#: how a cache is made of rows, and where its rows are
CACHES: dict[str, tuple[Callable[[list[Tensor]], Any], Callable[[Any], Any]]] = {
    "list": (list, lambda c: c),
    "deque": (deque, lambda c: c),
    "object": (Rows, lambda c: c.rows),
    "slots": (Slots, lambda c: c.rows),
    "dataclass": (of_nested, lambda c: c.cross["decoder"].rows),
    "named tuple": (lambda rows: Pair(rows, 1), lambda c: c.rows),
    "dictionary": (lambda rows: {"rows": rows}, lambda c: c["rows"]),
    "ordered": (lambda rows: OrderedDict(rows=rows), lambda c: c["rows"]),
}


class Remembering(nn.Module):
    """Attends to the rows of a cache and to its own, which it adds to the cache."""

    def __init__(self, rows_of: Callable[[Any], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(9, WIDTH)
        self.query = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 9)
        self.rows_of = rows_of
        self.double().eval()

    def forward(self, input_ids: Tensor, past: Any, scale: Tensor) -> Tensor:
        x = self.embedding(input_ids)
        rows = self.rows_of(past)
        rows.append(x)
        rows[0].mul_(2)  # in place, too
        scale.add_(1)
        keys = torch.cat([row.expand(len(x), -1, -1) for row in rows], 1)
        x = x + (self.query(x) @ keys.mT).softmax(-1) @ (keys * scale)
        return self.head(x)


def rows(*, grad: bool = False) -> list[Tensor]:
    torch.manual_seed(1)
    made = torch.randn(1, 2, WIDTH, dtype=torch.float64, requires_grad=grad)
    return [made * 1]


def methods() -> dict[str, Callable[[nn.Module], Callable[..., Any]]]:
    """Return for each method what makes its ``attribute`` for a model."""
    plain = (
        AttnLRP,
        CPLRP,
        EpsilonLRP,
        GradientXInput,
        PositionalLRP,
        InputIntegratedGradients,
        InputSaliency,
    )
    return {
        **{m.__name__: lambda model, m=m: m(model).attribute for m in plain},
        "OwenLRP": lambda model: OwenLRP(model, baseline=0).attribute,
        "trace": lambda model: lambda *a: AttnLRP(model).trace(*a).relevance,
        "layer": lambda model: LayerAttnLRP(model, model.query).attribute,
        "neuron": lambda model: (
            lambda x, _: NeuronAttnLRP(model, model.query).attribute(x, (0, 1))
        ),
    }


@pytest.mark.parametrize("method", methods())
@pytest.mark.parametrize("grad", [False, True])
def test_a_cache_is_left_as_it_was(method: str, grad: bool) -> None:
    make, rows_of = CACHES["dataclass"]
    model = Remembering(rows_of)
    attribute = methods()[method](model)
    scale = torch.ones(WIDTH, dtype=torch.float64)
    given = rows(grad=grad)
    before = given[0].detach().clone()
    batch = {"input_ids": IDS, "past": make(given), "scale": scale}
    first, second = (attribute(batch, (-1, 4)) for _ in range(2))
    assert torch.equal(torch.as_tensor(first), torch.as_tensor(second))
    assert len(given) == 1
    assert torch.equal(given[0].detach(), before)
    assert (scale == 1).all()


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("as_argument", [False, True])
def test_any_form_of_cache_is_a_constant(cache: str, as_argument: bool) -> None:
    make, rows_of = CACHES[cache]
    model = Remembering(rows_of)
    known = rows()[0]

    def alone(x: Tensor) -> Tensor:
        keys = torch.cat([known * 2, x], 1)
        x = x + (model.query(x) @ keys.mT).softmax(-1) @ (keys * 2)
        return model.head(x)

    embedded = model.embedding(IDS).detach()
    expected = AttnLRP(alone).attribute(embedded, target=(-1, 4)).sum(-1)
    past, scale = make(rows(grad=True)), torch.ones(WIDTH, dtype=torch.float64)
    for _ in range(2):
        if as_argument:
            found = AttnLRP(model).attribute(IDS, (-1, 4), (past, scale))
        else:
            batch = {"input_ids": IDS, "past": past, "scale": scale}
            found = AttnLRP(model).attribute(batch, (-1, 4))
        assert relative(found, expected) < 1e-12


def test_the_language_wrapper_and_check_leave_a_cache() -> None:
    make, rows_of = CACHES["object"]
    model = Remembering(rows_of)
    past, scale = make(rows()), torch.ones(WIDTH, dtype=torch.float64)
    batch = {"input_ids": IDS, "past": past, "scale": scale}
    wrapper = LLMTransformerLRP(model, None)
    found = [wrapper.attribute(batch, target=[2, 5]).token_attr for _ in range(2)]
    assert torch.equal(found[0], found[1])
    check(model, batch, (-1, 4))
    assert len(past.rows) == 1
    assert (scale == 1).all()


def test_attention_methods_leave_an_empty_cache() -> None:
    class Empty(Remembering):
        def forward(self, input_ids: Tensor, past: Any) -> Tensor:  # type: ignore[override]
            x = self.embedding(input_ids)
            past.append(x)
            keys = torch.cat(past, 1)
            return self.head(x + (self.query(x) @ keys.mT).softmax(-1) @ keys)

    model = Empty(lambda c: c)
    past: list[Tensor] = []
    batch = {"input_ids": IDS, "past": past}
    maps = [CheferLRP(model).attribute(batch, (-1, 4)) for _ in range(2)]
    assert torch.equal(maps[0], maps[1])
    assert past == []


def test_a_generator_that_is_handed_in_is_not_used_up() -> None:
    def noisy(x: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.rand(x.shape, generator=generator, dtype=x.dtype)
        return x * noise

    x = torch.ones(2, 3, dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    found = [AttnLRP(noisy).attribute(x, 1, generator) for _ in range(2)]
    assert torch.equal(found[0], found[1])
    expected = torch.rand(x.shape, generator=generator, dtype=x.dtype)
    assert torch.equal(found[0][:, 1], expected[:, 1])


def test_what_is_one_object_stays_one_and_the_rest_is_handed_on() -> None:
    tensor, lock = torch.ones(2), threading.Lock()
    weight, module = nn.Parameter(torch.ones(2)), nn.Linear(2, 2)
    cycle: dict[str, Any] = {"a": (tensor, [tensor]), "lock": lock, "module": module}
    cycle["itself"] = cycle
    cycle["weight"], cycle["size"] = weight, torch.Size([2])
    found = copied(cycle)
    assert found["itself"] is found is not cycle
    assert found["a"][0] is found["a"][1][0] is not tensor
    assert found["lock"] is lock
    assert found["module"] is module
    assert found["size"] is cycle["size"]
    assert not found["weight"].requires_grad
    assert found["weight"].data_ptr() == weight.data_ptr()
