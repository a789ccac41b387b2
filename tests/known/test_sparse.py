"""Sparse matrices: constants as dense ones, and refused by name with relevance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_transformer_lrp import (
    CPLRP,
    AttnLRP,
    CheferLRP,
    EpsilonLRP,
    GradientXInput,
    TransformerLRP,
    registry,
    rules,
)
from captum_transformer_lrp.errors import UnknownOperatorError
from tests.helpers import relative

pytestmark = pytest.mark.filterwarnings("ignore:Sparse:UserWarning")

EDGES = torch.tensor([[0, 0, 1, 2, 3, 3, 4], [1, 4, 1, 3, 0, 2, 4]])
WEIGHTS = torch.tensor([0.5, -1.2, 0.3, 0.8, -0.4, 1.5, 0.9]).double()
DENSE = torch.zeros(5, 5).double().index_put((EDGES[0], EDGES[1]), WEIGHTS)
TABLE = torch.linspace(-1, 1, 20).double().view(5, 4).sin()

METHODS: dict[str, Callable[[nn.Module], TransformerLRP]] = {
    "AttnLRP": AttnLRP,
    "CP-LRP": CPLRP,
    "Gradient x Input": GradientXInput,
    "epsilon": EpsilonLRP,
    **{
        name: lambda model, name=name: TransformerLRP(model, name)
        for name in ("gamma", "alpha-beta", "epsilon-plus")
    },
    "Chefer": CheferLRP,
}


class Graph(nn.Module):
    """Attention over five nodes, and messages along the edges of a graph."""

    def __init__(self, spread: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.spread = spread
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 3)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        attended = torch.softmax(x @ x.mT, -1) @ x
        hidden = torch.relu(self.first(x + attended))
        return self.last(torch.stack([self.spread(one) for one in hidden]).mean(1))


def draw() -> Tensor:
    return torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(3)).double()


SPELLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "COO @": lambda h: DENSE.to_sparse() @ h,
    "CSR @": lambda h: DENSE.to_sparse_csr() @ h,
    "CSC @": lambda h: DENSE.to_sparse_csc() @ h,
    "sparse.mm, COO": lambda h: torch.sparse.mm(DENSE.to_sparse(), h),
    "sparse.mm, CSR": lambda h: torch.sparse.mm(DENSE.to_sparse_csr(), h),
    "spmm": lambda h: torch.spmm(DENSE.to_sparse(), h),
    "dsmm": lambda h: torch.dsmm(DENSE.to_sparse(), h),
    "mm": lambda h: torch.mm(DENSE.to_sparse(), mat2=h),
    "transposed": lambda h: (h.T @ DENSE.T.to_sparse_csr()).T,
    "mv": lambda h: torch.stack([DENSE.to_sparse_csr().mv(c) for c in h.T], 1),
    "built": lambda h: torch.sparse_coo_tensor(EDGES, WEIGHTS, (5, 5)) @ h,
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_constant_matrix_may_be_sparse(spelling: str, method: str) -> None:
    x, explain = draw(), METHODS[method]
    expected = explain(Graph(lambda h: DENSE @ h)).attribute(x, target=1)
    found = explain(Graph(SPELLINGS[spelling])).attribute(x, target=1)
    assert float(expected.abs().sum()) > 0 and relative(found, expected) < 1e-12


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_trace_accounts_for_sparse_matrices(spelling: str) -> None:
    trace = CPLRP(Graph(SPELLINGS[spelling])).trace(draw(), target=1)
    assert trace.conservation_error < 1e-12 and trace.unseen < 1e-12


def values(h: Tensor) -> Tensor:
    return (h[EDGES[0]] * TABLE[EDGES[1]]).sum(1)


def dense_values(h: Tensor) -> Tensor:
    return torch.zeros(5, 5).double().index_put((EDGES[0], EDGES[1]), values(h))


WITH_RELEVANCE: dict[str, tuple[str, Callable[[Tensor], Any]]] = {
    "COO": (
        "sparse_coo_tensor",
        lambda h: torch.sparse_coo_tensor(EDGES, values(h), (5, 5)),
    ),
    "CSR": (
        "sparse_csr_tensor",
        lambda h: torch.sparse_csr_tensor(
            DENSE.to_sparse_csr().crow_indices(), EDGES[1], values(h), (5, 5)
        ),
    ),
    "converted": ("to_sparse", lambda h: dense_values(h).to_sparse()),
}


@pytest.mark.parametrize("method", [m for m in METHODS if m != "Gradient x Input"])
@pytest.mark.parametrize("case", WITH_RELEVANCE)
def test_sparse_relevance_is_refused_by_name_on_the_way_alone(
    case: str, method: str
) -> None:
    name, made = WITH_RELEVANCE[case]
    x, explain = draw(), METHODS[method]
    with pytest.raises(UnknownOperatorError, match=rf"{name}  in .* with .*x\("):
        explain(Graph(lambda h: made(h) @ TABLE)).attribute(x, target=1)

    def beside(h: Tensor) -> Tensor:
        made(h) @ made(h) @ TABLE  # thrown away
        return DENSE @ h

    expected = explain(Graph(lambda h: DENSE @ h)).attribute(x, target=1)
    assert relative(explain(Graph(beside)).attribute(x, target=1), expected) < 1e-12


@pytest.mark.parametrize("factor", [lambda h: TABLE, lambda h: h])
@pytest.mark.parametrize("case", WITH_RELEVANCE)
def test_sparse_relevance_is_explained_where_its_operator_is_known(
    case: str, factor: Callable[[Tensor], Tensor]
) -> None:
    """By rules that need no contributions; the others name the product too."""
    name, made = WITH_RELEVANCE[case]
    x, model = draw(), Graph(lambda h: made(h) @ factor(h))
    dense = Graph(lambda h: dense_values(h) @ factor(h))
    registry.register(name, rules.PlainGradient())
    try:
        for method in (AttnLRP, CPLRP):
            expected = method(dense).attribute(x, target=1)
            assert relative(method(model).attribute(x, target=1), expected) < 1e-12
        with pytest.raises(UnknownOperatorError, match="matmul  in"):
            EpsilonLRP(model).attribute(x, target=1)
    finally:
        registry.unregister(name)


def test_ragged_tensors_are_not_sparse() -> None:
    """Of examples of several lengths, as one at a time."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    parts = [torch.randn(length, 4).double() for length in (2, 5)]
    ragged = torch.nested.nested_tensor(parts, layout=torch.jagged)

    def scores(x: Tensor) -> Tensor:
        out = model(x)
        return (torch.nested.to_padded_tensor(out, 0.0) if x.is_nested else out).sum(1)

    for method in (AttnLRP, EpsilonLRP):
        found = method(scores).attribute(ragged, target=1).unbind()
        for part, one in zip(parts, found, strict=True):
            (expected,) = method(scores).attribute(part[None], target=1)
            assert relative(one, expected) < 1e-12
