"""Recurrent layers and cells written as the operators that they stand for.

``torch.lstm``, ``torch.gru``, ``torch.rnn_tanh`` and ``torch.rnn_relu`` compute a whole
stack of layers as one operator. The functions here take the same arguments, plain or
packed sequences, and return the same values by linear layers, products, sigmoid and
tanh, each of which has a rule: gates multiply, as in the rule of Arras et al. (2017,
arXiv 1706.07206) for LSTMs, and the state passes relevance on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

#: what a cell carries from step to step: ``(h,)``, or ``(h, c)`` of an LSTM
State = tuple[Tensor, ...]
#: takes a step's input, the state and the weights of one layer and direction
Cell = Callable[[Tensor, State, Sequence[Tensor], bool], State]


def _split(weights: Sequence[Tensor], biased: bool) -> tuple[Any, Any, Any, Any]:
    """Return input weight, hidden weight, and their biases or None."""
    biases = (weights[2], weights[3]) if biased else (None, None)
    return weights[0], weights[1], *biases


def lstm_step(
    x: Tensor, state: State, weights: Sequence[Tensor], biased: bool
) -> State:
    """One step of an LSTM, with the projection of its output if there is one.

    ``c' = sigmoid(f) c + sigmoid(i) tanh(g)``, ``h' = sigmoid(o) tanh(c')``; shapes
    ``(batch, features)``.
    """
    h, c = state
    w_x, w_h, b_x, b_h = _split(weights, biased)
    gates = functional.linear(x, w_x, b_x) + functional.linear(h, w_h, b_h)
    keep_in, keep_old, new, out = gates.chunk(4, -1)
    c = torch.sigmoid(keep_old) * c + torch.sigmoid(keep_in) * torch.tanh(new)
    h = torch.sigmoid(out) * torch.tanh(c)
    rest = weights[4 if biased else 2 :]
    return (functional.linear(h, rest[0]) if rest else h), c


def gru_step(x: Tensor, state: State, weights: Sequence[Tensor], biased: bool) -> State:
    """One step of a GRU: ``h' = (1 - z) n + z h``, ``n = tanh(W x + r (U h))``."""
    (h,) = state
    w_x, w_h, b_x, b_h = _split(weights, biased)
    of_x = functional.linear(x, w_x, b_x).chunk(3, -1)
    of_h = functional.linear(h, w_h, b_h).chunk(3, -1)
    reset = torch.sigmoid(of_x[0] + of_h[0])
    update = torch.sigmoid(of_x[1] + of_h[1])
    new = torch.tanh(of_x[2] + reset * of_h[2])
    return ((1 - update) * new + update * h,)


def rnn_step(
    activation: Callable[[Tensor], Tensor],
    x: Tensor,
    state: State,
    weights: Sequence[Tensor],
    biased: bool,
) -> State:
    """One step of a plain recurrent layer: ``h' = f(W x + U h)``."""
    w_x, w_h, b_x, b_h = _split(weights, biased)
    return (
        activation(
            functional.linear(x, w_x, b_x) + functional.linear(state[0], w_h, b_h)
        ),
    )


def _along(
    cell: Cell,
    steps: list[Tensor],
    first: State,
    weights: Sequence[Tensor],
    biased: bool,
    *,
    backwards: bool,
) -> tuple[list[Tensor], State]:
    """Run one direction of one layer.

    Of packed sequences the batch shrinks from step to step as the shorter ones end,
    and grows when the steps are taken backwards.
    """
    outputs: list[Tensor] = []
    ended: list[State] = []
    ordered = steps[::-1] if backwards else steps
    state = tuple(part[: ordered[0].shape[0]] for part in first)
    for x in ordered:
        size, before = x.shape[0], state[0].shape[0]
        if size < before:
            ended.insert(0, tuple(part[size:] for part in state))
            state = tuple(part[:size] for part in state)
        elif size > before:
            state = tuple(
                torch.cat([part, new[before:size]])
                for part, new in zip(state, first, strict=True)
            )
        state = cell(x, state, weights, biased)
        outputs.append(state[0])
    if ended:
        state = tuple(torch.cat(parts) for parts in zip(state, *ended, strict=True))
    return (outputs[::-1] if backwards else outputs), state


def layers(cell: Cell, *args: Any) -> tuple[Tensor, ...]:
    """Run a stack of recurrent layers.

    Args:
        cell (Callable): one step.
        args (Any): those of ``torch.lstm`` and its like: ``(input, hx, weights,
            has_biases, num_layers, dropout, train, bidirectional, batch_first)``, or of
            a packed sequence ``(data, batch_sizes, hx, weights, has_biases, ...)``
            without ``batch_first``. Input ``(tokens, batch, features)``, hx ``(layers *
            directions, batch, features)``, for an LSTM a pair of these.

    Returns:
        The output of the last layer and the last states, as torch's own.
    """
    packed = not isinstance(args[3], bool)
    if packed:
        data, sizes, hx, weights, biased, count, dropout, train, both = args
        steps = list(data.split(sizes.tolist()))
        batch_first = False
    else:
        data, hx, weights, biased, count, dropout, train, both, batch_first = args
        steps = list(data.unbind(1 if batch_first else 0))
    starts = (hx,) if isinstance(hx, Tensor) else tuple(hx)
    directions = 2 if both else 1
    width = len(weights) // (count * directions)
    last: list[State] = []
    for layer in range(count):
        found = []
        for direction in range(directions):
            place = layer * directions + direction
            outputs, state = _along(
                cell,
                steps,
                tuple(part[place] for part in starts),
                weights[place * width : (place + 1) * width],
                biased,
                backwards=direction == 1,
            )
            found.append(outputs)
            last.append(state)
        steps = [torch.cat(parts, -1) for parts in zip(*found, strict=True)]
        if dropout and train and layer + 1 < count:
            steps = [functional.dropout(x, dropout) for x in steps]
    output = torch.cat(steps) if packed else torch.stack(steps, 1 if batch_first else 0)
    return output, *(torch.stack(parts) for parts in zip(*last, strict=True))


def one_cell(cell: Cell, x: Tensor, hx: Any, *weights: Tensor | None) -> Any:
    """Run a single cell, as ``torch.lstm_cell`` and its like do.

    Args:
        cell (Callable): one step.
        x (Tensor): input, shape ``(batch, features)``.
        hx (Tensor or sequence of Tensor): the state.
        weights (Tensor or None): input and hidden weight, and their biases.
    """
    given = [w for w in weights if w is not None]
    state = (hx,) if isinstance(hx, Tensor) else tuple(hx)
    found = cell(x, state, given, len(given) > 2)
    return found if len(found) > 1 else found[0]


_CELLS: dict[str, Cell] = {
    "lstm": lstm_step,
    "gru": gru_step,
    "rnn_tanh": partial(rnn_step, torch.tanh),
    "rnn_relu": partial(rnn_step, torch.relu),
}

#: operator -> python function of the same arguments
RECURRENT: dict[str, Callable[..., Any]] = {
    **{name: partial(layers, cell) for name, cell in _CELLS.items()},
    **{f"{name}_cell": partial(one_cell, cell) for name, cell in _CELLS.items()},
}
