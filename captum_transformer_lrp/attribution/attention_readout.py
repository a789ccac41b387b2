"""What a row of attention means for a model: found in the graph, not in its name."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from ..errors import AttentionError
from ..observers.positions import Layout
from .aggregation import Contribution, Merge
from .attention_maps import AttentionLayer

Steps = list[list["Contribution | Merge"]]


def contributions(
    layers: Sequence[AttentionLayer],
    matrix: Callable[[AttentionLayer], Tensor],
    merges: Sequence[Tensor] = (),
) -> tuple[Steps, dict[int, Hashable]]:
    """Return what each layer adds, step by step, and the last tokens of each stream.

    Where a stream's queries are fewer than its keys, they are new tokens: class tokens
    that join late (keys: class tokens, then all others), or pooled ones.

    Args:
        layers (sequence of AttentionLayer): in order of execution.
        matrix (Callable): returns the contribution of one layer, shape ``(examples,
            queries, keys)``.
        merges (sequence of Tensor): of tokens, between the stages of the layers.

    Returns:
        The steps, and for each stream the name under which its last tokens go.

    Raises:
        AttentionError: if the tokens of two layers cannot be related.
    """
    steps: Steps = []
    step: list[Contribution | Merge] = []
    number = -1
    tokens: dict[int, list[tuple[Hashable, int]]] = {}  # stream -> its generations
    for layer in layers:
        a = matrix(layer)
        if layer.layout is not None:
            steps += _windows(tokens, layer, layer.layout, a, merges)
            continue
        asked, answered = a.shape[-2:]
        if layer.step != number:
            number, step = layer.step, []
            steps.append(step)
        if layer.queries != layer.keys:
            queries, _ = _generation(tokens, layer.queries, asked, layer)
            keys, left_out = _generation(tokens, layer.keys, answered, layer)
            a = torch.nn.functional.pad(a, (left_out, 0))
            step.append(Contribution(queries, keys, a))
            continue
        known = tokens.setdefault(layer.queries, [(layer.queries, answered)])
        current, count = known[-1]
        if asked == answered == count:
            step.append(Contribution(current, current, a))
        elif answered == count and asked < count:  # pooled
            pooled = (current, len(known))
            known.append((pooled, asked))
            step.append(Contribution(pooled, current, a))
        elif answered == count + asked and asked < count:  # class tokens join
            joined = (current, len(known))
            known.append((joined, asked))
            step.append(Contribution(joined, joined, a[..., :asked]))
            step.append(Contribution(joined, current, a[..., asked:]))
        elif len(known) > 1 and asked == count and answered == count + known[-2][1]:
            step.append(Contribution(current, current, a[..., :asked]))
            step.append(Contribution(current, known[-2][0], a[..., asked:]))
        else:
            raise AttentionError(
                f"{layer.module} lets {asked} tokens attend to {answered}, after "
                f"layers of {count} tokens; how they are related is not known. Use "
                "AttnLRP for this model."
            )
    last = {stream: known[-1][0] for stream, known in tokens.items()}
    return steps, last


def _windows(
    tokens: dict[int, list[tuple[Hashable, int]]],
    layer: AttentionLayer,
    layout: Layout,
    matrix: Tensor,
    merges: Sequence[Tensor],
) -> Steps:
    """Return the merges before a layer of windows, and its contribution."""
    steps: Steps = []
    known = tokens.setdefault(layer.queries, [(layer.queries, layout.tokens)])
    while len(known) <= layout.stage:
        old, target = known[-1][0], merges[len(known) - 1]
        new: Hashable = (layer.queries, len(known))
        known.append((new, int(target.max()) + 1))
        steps.append([Merge(new, old, target)])
    current = known[layout.stage][0]
    steps.append([Contribution(current, current, matrix, layout)])
    return steps


#: class, distillation and register tokens of the models that there are
MOST_PREFIX_TOKENS = 16


def _generation(
    tokens: dict[int, list[tuple[Hashable, int]]],
    stream: int,
    count: int,
    layer: AttentionLayer,
) -> tuple[Hashable, int]:
    """Return which tokens of a stream are meant, and how many before them are not."""
    known = tokens.setdefault(stream, [(stream, count)])
    for name, size in reversed(known):
        if 0 <= size - count <= MOST_PREFIX_TOKENS and (size == count or count > 1):
            return name, size - count
    raise AttentionError(
        f"{layer.module} attends with {count} tokens of a sequence that had "
        f"{', '.join(str(size) for _, size in known)} before; how they are related is "
        "not known. Use AttnLRP for this model."
    )


def read_out(layers: Sequence[AttentionLayer]) -> dict[int, Tensor]:
    """Return which tokens the score is read from, for each stream that it is read from.

    They are the rows of a stream's last map at which the score's gradient is not 0: one
    for a class token or the last token of a text, all for mean pooling, two for a
    distilled model. A stream that another one attends to after its own last layer (an
    encoder) is not read out.

    Args:
        layers (sequence of AttentionLayer): in order of execution.

    Returns:
        dict: stream to weights of shape ``(examples, tokens)``, each row's sum 1.
    """
    last: dict[int, AttentionLayer] = {}
    for layer in layers:
        if layer.used:
            last[layer.queries] = layer
    weights = {}
    for stream, own in last.items():
        if any(
            other.used
            and other.keys == stream
            and other.queries != stream
            and other.step > own.step
            for other in layers
        ):
            continue
        rows = (own.gradient.abs().sum((1, 3)) > 0).to(own.gradient.dtype)
        if own.layout is not None:
            rows = own.layout.place(rows)
        weights[stream] = rows / rows.sum(-1, keepdim=True).clamp(min=1)
    if not weights:
        raise AttentionError(
            "the score does not depend on any attention map, so that no token can be "
            "found that it is read from. Explain logits, not constants."
        )
    return weights


def chosen_rows(
    found: dict[int, Tensor], rows: int | Sequence[int] | Tensor
) -> dict[int, Tensor]:
    """Return weights that read out the given token of each example.

    Args:
        found (dict): as :func:`read_out` returns it.
        rows (int, sequence of int or Tensor): a position, or one for each example.

    Raises:
        AttentionError: if a position is out of range, or there are not as many as
            examples.
    """
    chosen = {}
    for stream, weights in found.items():
        examples, tokens = weights.shape
        positions = torch.as_tensor(rows, device=weights.device).reshape(-1)
        if positions.numel() not in (1, examples):
            raise AttentionError(
                f"rows has {positions.numel()} positions for {examples} example(s); "
                "expected one, or one for each."
            )
        if int(positions.min()) < -tokens or int(positions.max()) >= tokens:
            raise AttentionError(
                f"rows={rows!r} is out of range: the tokens are {-tokens} ... "
                f"{tokens - 1}."
            )
        one_hot = torch.nn.functional.one_hot(positions % tokens, tokens)
        chosen[stream] = one_hot.expand(examples, tokens).to(weights.dtype)
    return chosen
