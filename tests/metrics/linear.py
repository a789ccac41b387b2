"""Linear models whose true attribution is known, for the oracles and for torch."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import torch
from torch import Tensor, nn

CLASSES, UNITS, EXAMPLES, MASK = 3, 7, 5, 11


class Linear(nn.Module):
    """Logits `W x + b` of features `(batch, units)`, in float64."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(CLASSES, UNITS, generator=generator, dtype=torch.float64)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(weight[:, 0] / 2)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias

    def slowly(self, units: Sequence[float]) -> list[float]:
        rows = zip(self.weight.tolist(), self.bias.tolist(), strict=True)
        return [
            sum(w * x for w, x in zip(row, units, strict=True)) + b for row, b in rows
        ]


class Bag(nn.Module):
    """Logits: the sum of a value per token id; takes a tokenizer's mapping.

    A token `t` is worth `values[t, class]` wherever it stands, so that this is the true
    attribution of a sentence in which it is planted. Hidden tokens are worth nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        values = torch.randn(12, CLASSES, generator=generator, dtype=torch.float64)
        values[MASK] = 0
        self.embedding = nn.Embedding.from_pretrained(values)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embedding

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> SimpleNamespace:
        x = self.embedding(input_ids) if inputs_embeds is None else inputs_embeds
        assert isinstance(x, Tensor)
        if attention_mask is not None:
            x = x * attention_mask[..., None]
        return SimpleNamespace(logits=x.sum(1))

    def slowly(self, ids: Sequence[int]) -> list[float]:
        values = self.embedding.weight.tolist()
        return [sum(values[i][k] for i in ids) for k in range(CLASSES)]

    def true(self, ids: Tensor, target: Tensor) -> Tensor:
        """The value of each token for the target, `(batch, tokens)`."""
        values = self.embedding(ids)
        index = target[:, None, None].expand(*ids.shape, 1)
        return values.gather(2, index)[..., 0].detach()


def features() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(EXAMPLES, UNITS, generator=generator, dtype=torch.float64)


def scores_with_ties() -> Tensor:
    """Scores of which some are equal, negative, and zero."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(-3, 4, (EXAMPLES, UNITS), generator=generator).double()


def validity() -> Tensor:
    """Five to seven valid units per example."""
    valid = torch.ones(EXAMPLES, UNITS, dtype=torch.bool)
    valid[1, 0] = valid[2, 3] = valid[2, 6] = valid[4, 5] = False
    return valid


def sentences() -> dict[str, Tensor]:
    """Token ids, the last ones of some rows padding; 0 stands at both ends."""
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(1, MASK, (EXAMPLES, UNITS + 2), generator=generator)
    mask = torch.ones_like(ids)
    for row, length in enumerate((9, 7, 9, 5, 8)):
        ids[row, 0] = ids[row, length - 1] = 0
        ids[row, length:] = 10
        mask[row, length:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def words_of(inputs: dict[str, Tensor]) -> Tensor:
    """The tokens between the two ends."""
    return (inputs["attention_mask"] == 1) & (inputs["input_ids"] != 0)
