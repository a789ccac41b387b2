"""Relevance of identifiers, against formulas in the rows that they name.

Every model here is linear in the rows of a table, so that the relevance of a row is its
product with a vector, whatever the method.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import rnn
from torch.utils.checkpoint import checkpoint

from captum_transformer_lrp import (
    CPLRP,
    AttnLRP,
    EpsilonLRP,
    GradientXInput,
    TransformerLRP,
    rules,
)
from captum_transformer_lrp.core.composites import ATTN_LRP
from captum_transformer_lrp.errors import InputError
from tests.chefer import LRP_BASELINE

torch.manual_seed(0)
TABLE = torch.randn(50, 4, dtype=torch.float64)
VECTOR = torch.randn(4, dtype=torch.float64)
PAIRS = torch.randn(50, 50, dtype=torch.float64)
WEIGHTS = torch.rand(2, 3, dtype=torch.float64)
IDS = torch.tensor([[3, 5, 7], [8, 5, 1]])
OWN = TABLE[IDS] @ VECTOR  # of each identifier, where its row is read once
KEPT = IDS != 5
STARTS, ENDS = torch.tensor([0, 3]), torch.tensor([0, 3, 6])

Model = Callable[[Tensor], Tensor]


def score(rows: Tensor) -> Tensor:
    return (rows @ VECTOR).flatten(1).sum(1)


def pair(ids: Tensor) -> Tensor:
    return (ids[:, :-1] * 7 + ids[:, 1:]) % 50


def halves(rows: Tensor) -> Tensor:
    """What each of two neighbours gets of the relevance of their row."""
    shares = torch.zeros_like(OWN)
    shares[:, :-1] += rows / 2
    shares[:, 1:] += rows / 2
    return shares


def rows_of(ids: Tensor) -> Tensor:
    return TABLE[ids] @ VECTOR


def written(change: Callable[[Tensor], Any]) -> Model:
    """A model that writes into its identifiers."""

    def model(ids: Tensor) -> Tensor:
        changed = change(ids)
        return score(TABLE[ids if changed is None else changed])

    return model


def by_setitem(ids: Tensor) -> None:
    ids[ids == 5] = 2


def by_a_view(ids: Tensor) -> None:
    ids[:, 1].fill_(4)


def by_or(ids: Tensor) -> Tensor:
    ids |= 1
    return ids


def into_a_view(ids: Tensor) -> Tensor:
    shifted = ids.new_zeros(2, 3)
    part = shifted[:, 1:]
    part.copy_(ids[:, :-1])
    return shifted


def without_gradients(ids: Tensor) -> Tensor:
    with torch.no_grad():
        return ids.roll(1, 1)


def one_by_one(ids: Tensor) -> Tensor:
    places = torch.zeros(2, 50, dtype=torch.float64)
    for i in range(3):
        places.scatter_(1, ids[:, i : i + 1], 1.0)
    return places @ TABLE @ VECTOR


def by_index(write: Callable[[Tensor, Any], Any]) -> Model:
    def model(ids: Tensor) -> Tensor:
        vectors = torch.zeros(2, 3, 50, dtype=torch.float64)
        write(vectors, (torch.arange(2)[:, None], torch.arange(3), ids))
        return score(vectors @ TABLE)

    return model


def setitem(vectors: Tensor, index: Any) -> None:
    vectors[index] = 1


def packed(ids: Tensor, *, first: bool, lengths: tuple[int, int]) -> Tensor:
    """Look up before or after packing."""
    options = {"batch_first": True, "enforce_sorted": False}
    given = TABLE[ids] if first else ids
    sequence = rnn.pack_padded_sequence(given, torch.tensor(lengths), **options)
    if not first:
        sequence = rnn.PackedSequence(TABLE[sequence.data], *sequence[1:])
    rows, _ = rnn.pad_packed_sequence(sequence, batch_first=True)
    return score(rows)


def bag(**options: Any) -> Model:
    def model(ids: Tensor) -> Tensor:
        if "offsets" in options:
            ids = ids.flatten()
        return functional.embedding_bag(ids, TABLE, **options) @ VECTOR

    return model


def largest() -> Tensor:
    rows = TABLE[IDS].max(1)
    return torch.zeros_like(OWN).scatter_add_(1, rows.indices, rows.values * VECTOR)


def kept(*which: int) -> Tensor:
    mask = torch.ones(6, dtype=torch.bool)
    mask[list(which)] = False
    return OWN * mask.view(2, 3)


def one_hot(ids: Tensor) -> Tensor:
    return functional.one_hot(ids, 50)


def zeros(*shape: int) -> Tensor:
    return torch.zeros(*shape, dtype=torch.float64)


RANGE = torch.arange(50)
TRIPLE = (IDS * torch.tensor([49, 7, 1])).sum(1) % 50

FOLLOWED: dict[str, tuple[Model, Tensor]] = {
    # combined: each an equal share
    "pair": (lambda i: score(TABLE[pair(i)]), halves(rows_of(pair(IDS)))),
    "table of pairs": (
        lambda i: PAIRS[i[:, :-1], i[:, 1:]].sum(1),
        halves(PAIRS[IDS[:, :-1], IDS[:, 1:]]),
    ),
    "hash by a product": (
        lambda i: score(TABLE[(i.unfold(1, 2, 1) @ torch.tensor([7, 1])) % 50]),
        halves(rows_of(pair(IDS))),
    ),
    "hash by a sum": (
        lambda i: score(TABLE[(i.unfold(1, 2, 1) * torch.tensor([7, 1])).sum(-1) % 50]),
        halves(rows_of(pair(IDS))),
    ),
    "hash by bits": (
        lambda i: score(TABLE[((i[:, :-1] << 2) ^ i[:, 1:]) & 31]),
        halves(rows_of(((IDS[:, :-1] << 2) ^ IDS[:, 1:]) & 31)),
    ),
    "three, one after the other": (
        lambda i: score(TABLE[((i[:, 0] * 49 + i[:, 1] * 7 + i[:, 2]) % 50)[:, None]]),
        (rows_of(TRIPLE) / 3)[:, None].expand(2, 3),
    ),
    "padding beside": (
        lambda i: score(TABLE[pair(functional.pad(i, (1, 0), value=9)[:, :2])]),
        kept(1, 2, 4, 5) * 0 + rows_of((63 + IDS) % 50) * torch.tensor([1, 0, 0]),
    ),
    # replaced: the constant's
    "masked_fill": (lambda i: score(TABLE[i.masked_fill(i == 5, 0)]), OWN * KEPT),
    "where": (lambda i: score(TABLE[torch.where(i == 5, 0, i)]), OWN * KEPT),
    "where, zeros": (
        lambda i: score(TABLE[torch.where(i == 5, torch.zeros_like(i), i)]),
        OWN * KEPT,
    ),
    "product with a mask": (
        lambda i: score(TABLE[i * (i != 5).long() + 2 * (i == 5)]),
        OWN * KEPT,
    ),
    "clamp": (lambda i: score(TABLE[i.clamp(max=6)]), OWN * (IDS <= 6)),
    "minimum": (
        lambda i: score(TABLE[torch.minimum(i, torch.tensor(6))]),
        OWN * (IDS <= 6),
    ),
    "setitem": (written(by_setitem), OWN * KEPT),
    "masked_fill_": (written(lambda i: i.masked_fill_(i == 5, 2)), OWN * KEPT),
    "clamp_": (written(lambda i: i.clamp_(max=6)), OWN * (IDS <= 6)),
    "view written": (written(by_a_view), kept(1, 4)),
    "written into a view": (written(into_a_view), kept(2, 5)),
    "written by or": (written(by_or), rows_of(IDS | 1)),
    "times nothing": (
        lambda i: score(TABLE[i] + TABLE[i * 0 + torch.arange(3)]),
        OWN,
    ),
    # one-hot
    "one-hot": (lambda i: score(one_hot(i).double() @ TABLE), OWN),
    "one-hot, as a mask": (lambda i: score(one_hot(i).bool().to(TABLE) @ TABLE), OWN),
    "one-hot beside": (
        lambda i: score(TABLE[i]) + score(one_hot(i).double() @ TABLE),
        2 * OWN,
    ),
    "one-hot, type_as": (lambda i: score(one_hot(i).type_as(TABLE) @ TABLE), OWN),
    "one-hot, promoted": (
        lambda i: score(
            torch.einsum("btv,vd->btd", one_hot(i) * zeros(1).exp(), TABLE)
        ),
        OWN,
    ),
    "bag of words": (lambda i: one_hot(i).sum(1).double() @ TABLE @ VECTOR, OWN),
    "masked bag of words": (
        lambda i: (one_hot(i) * (i != 5)[..., None]).sum(1).double() @ TABLE @ VECTOR,
        OWN * KEPT,
    ),
    "identity": (lambda i: score(torch.eye(50).double()[i] @ TABLE), OWN),
    "comparison": (lambda i: score((i[..., None] == RANGE).double() @ TABLE), OWN),
    "comparison, turned": (
        lambda i: score(torch.eq(RANGE, i.unsqueeze(-1)).to(TABLE) @ TABLE),
        OWN,
    ),
    "scatter_": (
        lambda i: score(zeros(2, 3, 50).scatter_(-1, i[..., None], 1.0) @ TABLE),
        OWN,
    ),
    "scatter of a tensor": (
        lambda i: score(
            zeros(2, 3, 50).scatter(2, i[..., None], zeros(2, 3, 1).exp()) @ TABLE
        ),
        OWN,
    ),
    "scatter by keywords": (
        lambda i: score(
            torch.scatter(input=zeros(2, 3, 50), dim=2, index=i[..., None], value=1)
            @ TABLE
        ),
        OWN,
    ),
    "scatter_add": (
        lambda i: zeros(2, 50).scatter_add_(1, i, zeros(2, 3).exp()) @ TABLE @ VECTOR,
        OWN,
    ),
    "scatter, one by one": (one_by_one, OWN),
    "setitem at an index": (by_index(setitem), OWN),
    "index_put_": (
        by_index(lambda v, i: v.index_put_(i, torch.tensor(1.0).double())),
        OWN,
    ),
    # bags
    "bag, sum": (bag(mode="sum"), OWN),
    "bag, mean": (bag(mode="mean"), OWN / 3),
    "bag, max": (bag(mode="max"), largest()),
    "bag, weights": (bag(mode="sum", per_sample_weights=WEIGHTS), OWN * WEIGHTS),
    "bag, padding": (bag(mode="mean", padding_idx=5), OWN * KEPT / 2),
    "bag, offsets": (bag(mode="mean", offsets=STARTS), OWN / 3),
    "bag, max of offsets": (bag(mode="max", offsets=STARTS), largest()),
    "bag, last offset": (
        bag(mode="sum", offsets=ENDS, include_last_offset=True),
        OWN,
    ),
    "bag, torch": (
        lambda i: torch.embedding_bag(TABLE, i.flatten(), STARTS, False, 1)[0] @ VECTOR,
        OWN / 3,
    ),
    # packed
    "packed": (lambda i: packed(i, first=False, lengths=(2, 3)), kept(2)),
    "packed embeddings": (lambda i: packed(i, first=True, lengths=(3, 2)), kept(5)),
    "pad_sequence": (
        lambda i: score(TABLE[rnn.pad_sequence([i[0], i[1, :2]], True, 4)]),
        kept(5),
    ),
    # other tables, and other ways to them
    "gather": (
        lambda i: TABLE[:, 0].gather(0, i.flatten()).view(2, 3).sum(1),
        TABLE[IDS][..., 0],
    ),
    "take": (lambda i: torch.take(TABLE[:, 0], i).sum(1), TABLE[IDS][..., 0]),
    "columns": (
        lambda i: (TABLE.t()[:, i] * VECTOR[:, None, None]).sum((0, 2)),
        OWN,
    ),
    "part of a row": (
        lambda i: (TABLE[i, :2] @ VECTOR[:2]).sum(1),
        TABLE[IDS][..., :2] @ VECTOR[:2],
    ),
    "one at a time": (
        lambda i: torch.stack([sum(TABLE[j] @ VECTOR for j in row) for row in i]),
        OWN,
    ),
    "sorted": (lambda i: score(TABLE[i.sort(1)[0]]), OWN),
    "two largest": (lambda i: score(TABLE[i.topk(2, dim=1).values]), kept(0, 5)),
    "through floats": (lambda i: score(TABLE[(i / 7).long()]), rows_of(IDS // 7)),
    "buckets": (
        lambda i: score(TABLE[torch.bucketize(i, torch.tensor([2, 6]))]),
        rows_of(torch.bucketize(IDS, torch.tensor([2, 6]))),
    ),
    "without gradients": (written(without_gradients), OWN),
    "bytes": (written(lambda i: i.byte().long()), OWN),
    "copies": (written(lambda i: copy.deepcopy(torch.as_tensor(i))), OWN),
    "output given": (
        written(lambda i: torch.mul(i, 2, out=torch.zeros_like(i))),
        rows_of(IDS * 2),
    ),
    "core operators": (
        lambda i: score(
            torch.ops.aten.embedding(
                TABLE, torch.ops.aten.add.Tensor(torch.ops.aten.slice(i, 1, 0, 3), 1)
            )
        ),
        rows_of(IDS + 1),
    ),
    "core index": (lambda i: score(torch.ops.aten.index(TABLE, [i])), OWN),
    # constants that are made of identifiers
    "mask": (
        lambda i: score(TABLE[i] * (i.float() != 5).double()[..., None]),
        OWN * KEPT,
    ),
    "place": (
        lambda i: TABLE[i][torch.arange(2), i.argmax(-1)] @ VECTOR,
        kept(0, 1, 4, 5),
    ),
    "places of the largest": (
        lambda i: score(TABLE[i]) + score(TABLE[i.max(-1)[1]][:, None]),
        OWN,
    ),
    "a mask of their dtype": (
        lambda i: score(TABLE[i] + TABLE[(i != 5).cumsum(1).type_as(i)]),
        OWN,
    ),
    "places of what is read": (
        lambda i: (TABLE[i] @ TABLE.t()).gather(-1, i[..., None]).sum((1, 2)),
        (TABLE[IDS] ** 2).sum(-1),
    ),
    "places to write what is read": (
        lambda i: zeros(2, 50).scatter_add(1, i, TABLE[i] @ VECTOR).sum(1),
        OWN,
    ),
    "a number that is not used": (
        lambda i: (i.double().mean(), score(TABLE[i]))[1],
        OWN,
    ),
    "mapped mask": (
        lambda i: score(TABLE[i] * torch.vmap(lambda j: j != 5)(i)[..., None]),
        OWN * KEPT,
    ),
}


@pytest.mark.parametrize("method", [AttnLRP, CPLRP, GradientXInput])
@pytest.mark.parametrize("name", FOLLOWED)
def test_the_relevance_of_a_row_goes_to_what_named_it(name: str, method: Any) -> None:
    model, expected = FOLLOWED[name]
    found = method(model).attribute(IDS)
    assert (found - expected).abs().max() < 1e-12


def test_identifiers_of_other_strides() -> None:
    ids = IDS.t().contiguous().t()
    found = AttnLRP(
        lambda i: score(TABLE[i.t().view(-1)].view(3, 2, 4).transpose(0, 1))
    )
    assert (found.attribute(ids) - OWN).abs().max() < 1e-12


def test_two_inputs_that_are_looked_up_together() -> None:
    def model(first: Tensor, second: Tensor) -> Tensor:
        return score(TABLE[(first * 7 + second) % 50])

    half = rows_of(IDS * 8 % 50) / 2
    for found in AttnLRP(model).attribute((IDS, IDS)):
        assert (found - half).abs().max() < 1e-12
    alone = AttnLRP(model).attribute(IDS, additional_forward_args=(IDS,))
    assert (alone - 2 * half).abs().max() < 1e-12


REFUSED: dict[str, tuple[Model, str]] = {
    "float": (
        lambda i: score(TABLE[i] * i.double()[..., None]),
        "as numbers .by 'doub",
    ),
    "promotion": (lambda i: score(TABLE[i] * i[..., None]), "used as numbers"),
    "cat": (
        lambda i: score(torch.cat([TABLE[i][..., 1:], i[..., None]], -1)),
        "numbers",
    ),
    "copied": (lambda i: score(TABLE[i]) + zeros(2, 3).copy_(i).sum(1), "as numbers"),
    "division": (lambda i: score(TABLE[i]) + (i / 2).sum(1), "as numbers"),
    "half an identity": (
        lambda i: score(torch.eye(50, dtype=torch.long)[i].double() @ TABLE),
        "as numbers",
    ),
    "more than one-hot": (
        lambda i: score((2 * one_hot(i)).double() @ TABLE),
        "numbers",
    ),
    "not one-hot": (lambda i: score((1 - one_hot(i)).double() @ TABLE), "as numbers"),
    "integers written at": (
        lambda i: (
            score(TABLE[i]) + torch.zeros(2, 50).long().scatter_(1, i, 1).sum(1) / 2
        ),
        "as numbers .by 'scatter'",
    ),
    "a comparison as a mask": (
        lambda i: score(torch.where(i[..., None] == RANGE, 1.0, 0.0).double() @ TABLE),
        "as numbers .by 'where'",
    ),
    "a comparison filled in": (
        lambda i: score(zeros(2, 3, 50).masked_fill_(i[..., None] == RANGE, 1) @ TABLE),
        "as numbers .by 'masked_fill'",
    ),
    "filled at": (
        lambda i: (
            score(TABLE[i]) + zeros(50).index_fill_(0, i[0], 1.0) @ TABLE @ VECTOR
        ),
        "as numbers .by 'index_fill'",
    ),
    "unique": (
        lambda i: score(TABLE[i]) + score(TABLE[i.unique()][None]),
        "looked up after 'unique'",
    ),
    "mapped look-up": (
        lambda i: score(torch.vmap(lambda j: TABLE[j])(i)),
        "inside torch.vmap",
    ),
    "mapped": (
        lambda i: score(TABLE[torch.vmap(lambda j: j.flip(0))(i)]),
        "looked up after 'vmap'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_followed_is_an_error(name: str) -> None:
    model, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        AttnLRP(model).attribute(IDS)


class Attention(nn.Module):
    """One layer of attention on rows that are read in some way."""

    def __init__(
        self, read: Callable[[Tensor, Tensor], Tensor], *, saves: bool
    ) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.table = nn.Parameter(torch.randn(50, 4))
        self.first = nn.Linear(4, 4)
        self.last = nn.Linear(4, 3)
        self.read, self.saves = read, saves
        self.double().eval()

    def rows(self, ids: Tensor) -> Tensor:
        return self.first(self.read(self.table, ids)).relu()

    def forward(self, ids: Tensor) -> Tensor:
        if self.saves:
            x = checkpoint(self.rows, ids, use_reentrant=False)
        else:
            x = self.rows(ids)
        pattern = (x @ x.transpose(-2, -1)).softmax(-1)
        return self.last((pattern @ x).mean(1))


def carried(model: nn.Module) -> TransformerLRP:
    return TransformerLRP(model, composite=LRP_BASELINE)


IDENTITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "one-hot": lambda w, i: one_hot(i).double() @ w,
    "comparison": lambda w, i: (i[..., None] == RANGE).double() @ w,
    "scatter": lambda w, i: zeros(2, 3, 50).scatter_(-1, i[..., None], 1.0) @ w,
}


@pytest.mark.parametrize("saves", [False, True])
@pytest.mark.parametrize("method", [AttnLRP, CPLRP, EpsilonLRP, carried])
@pytest.mark.parametrize("name", IDENTITIES)
def test_one_hot_vectors_are_rows_of_the_identity(
    name: str, method: Any, saves: bool
) -> None:
    eye = Attention(lambda w, i: torch.eye(50).double()[i] @ w, saves=False)
    expected = method(eye).attribute(IDS, target=1)
    found = method(Attention(IDENTITIES[name], saves=saves)).attribute(IDS, target=1)
    assert (found - expected).abs().max() < 1e-12 and expected.abs().max() > 1e-3


def test_a_flat_rule_gives_zeros_of_a_one_hot_vector_to_their_identifier() -> None:
    """As it does for the rows of a table."""
    composite = ATTN_LRP.with_rules({"linear": rules.Flat()})

    def explain(read: Callable[[Tensor], Tensor]) -> Tensor:
        def model(ids: Tensor) -> Tensor:
            return score(functional.linear(read(ids), TABLE.t()))

        return TransformerLRP(model, composite=composite).attribute(IDS)

    expected = explain(lambda i: torch.eye(50).double()[i])
    assert (explain(lambda i: one_hot(i).double()) - expected).abs().max() < 1e-12
    with pytest.raises(InputError, match=r"Write torch\.nn\.functional\.one_hot"):
        explain(lambda i: zeros(2, 3, 50).scatter_(-1, i[..., None], 1.0))


def test_constants_between_combined_identifiers_balance_in_a_trace() -> None:
    def model(ids: Tensor) -> Tensor:
        return score(TABLE[pair(functional.pad(ids.masked_fill(ids == 5, 2), (2, 0)))])

    trace = AttnLRP(model).trace(IDS)
    constant = rows_of(torch.zeros(2, 1, dtype=torch.long)).sum()
    # the first pair is of padding alone, and so is what each masked place adds to none
    assert trace.conservation_error < 1e-12
    assert trace.absorbed == pytest.approx(float(constant))


class Graph(nn.Module):
    """Identifiers replaced, combined, shifted, one-hot and in a bag."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.table = nn.Embedding(50, 4)
        self.bag = nn.EmbeddingBag(50, 4)
        self.head = nn.Linear(4, 3)
        self.double().eval()

    def forward(self, ids: Tensor) -> Tensor:
        replaced = torch.where(ids == 5, torch.zeros_like(ids), ids)
        shifted = functional.pad(ids[:, :-1], (1, 0), value=2)
        x = self.table(replaced) + self.table(shifted)
        x = x.sum(1) + self.table(pair(ids)).sum(1) + self.table.weight[ids[:, 0]]
        x = x + (one_hot(ids).double() @ self.table.weight).sum(1) + self.bag(ids)
        return self.head(x)


@pytest.mark.parametrize("core", [False, True])
def test_exported_graphs(core: bool) -> None:
    model = Graph()
    expected = AttnLRP(model).attribute(IDS, target=1)
    exported = torch.export.export(model, (IDS,))
    graph = (exported.run_decompositions() if core else exported).module()
    found = AttnLRP(graph).attribute(IDS, target=1)
    assert (found - expected).abs().max() < 1e-12
