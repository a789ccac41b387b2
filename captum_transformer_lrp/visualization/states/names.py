"""Short names for hidden states, such as ``layer 3 input`` and ``3``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_PLACE = re.compile(r"(?P<name>.*) \((?P<side>input|output)(?:, call (?P<call>\d+))?\)")
_EMBEDDING = re.compile(r"emb|^wte$|^shared$", re.IGNORECASE)


@dataclass(frozen=True)
class StateNames:
    """What the hidden states of a model are called in a picture.

    Attributes:
        labels (tuple of str): one for each state, such as ``"layer 3 input"``.
        ticks (tuple of str): shorter ones for axes and columns, such as ``"3"``.
        meaning (str): what the ticks stand for; empty if they stand for nothing that
            the labels do not say.
    """

    labels: tuple[str, ...]
    ticks: tuple[str, ...]
    meaning: str


def state_names(states: Sequence[str]) -> StateNames:
    """Return short names for the hidden states of a model.

    Blocks are counted from 1. A block that is called several times (ALBERT) counts its
    calls. Names that follow no such pattern keep what tells them apart.

    Args:
        states (sequence of str): as ``DiffMask.states`` lists them, such as
            ``"bert.encoder.layer.2 (input)"``.
    """
    places = [_PLACE.fullmatch(state) for state in states]
    if not states or any(place is None for place in places):
        return _numbered(states)
    found = [(p["name"], p["side"], int(p["call"] or 1)) for p in places if p]
    first = found[0][0].rpartition(".")[2]
    embedded = found[0][1] == "output" and bool(_EMBEDDING.search(first))
    blocks = found[embedded:]
    numbers = _block_numbers(blocks)
    if numbers is None:
        return _numbered(states)
    sides = [side for _, side, _ in blocks]
    labels = [f"layer {n} {s}" for n, s in zip(numbers, sides, strict=True)]
    if len(set(sides)) == 1:
        ticks = [str(n) for n in numbers]
        meaning = f"{_span(ticks)}: {sides[0]} of the layer"
    elif sides[-1] == "output" and "output" not in sides[:-1]:
        ticks = [*map(str, numbers[:-1]), "out"]
        meaning = f"{_span(ticks[:-1])}: input of the layer"
        meaning += f"; out: output of layer {numbers[-1]}"
    else:
        ticks = [
            f"{n} {s.removesuffix('put')}" for n, s in zip(numbers, sides, strict=True)
        ]
        meaning = "in, out: input and output of the layer"
    if embedded:
        labels, ticks = ["embedding", *labels], ["emb", *ticks]
        meaning = f"emb: token embedding; {meaning}"
    return StateNames(tuple(labels), tuple(ticks), meaning)


def _block_numbers(blocks: Sequence[tuple[str, str, int]]) -> list[int] | None:
    """Return the number of each block from 1; None if names do not tell."""
    parts = [name.split(".") for name, _, _ in blocks]
    patterns = {tuple("*" if x.isdigit() else x for x in p) for p in parts}
    if len(patterns) != 1:
        return None
    (pattern,) = patterns
    places = [i for i, part in enumerate(pattern) if part == "*"]
    varying = [i for i in places if len({p[i] for p in parts}) > 1]
    calls = [call for _, _, call in blocks]
    if not varying and len(set(calls)) > 1:
        return calls
    if len(set(calls)) > 1 or not places:
        return None
    if len(varying) > 1 or (not varying and len(places) > 1):
        return None
    place = varying[0] if varying else places[0]
    return [int(p[place]) + 1 for p in parts]


def _numbered(states: Sequence[str]) -> StateNames:
    """Return names without what they have in common, and numbers from 0 as ticks."""
    parts = [state.split(".") for state in states]
    common = 0
    while all(len(p) > common + 1 and p[common] == parts[0][common] for p in parts):
        common += 1
    if len(set(states)) < 2:
        common = 0
    labels = tuple(re.sub(r" \((.*)\)$", r" \1", ".".join(p[common:])) for p in parts)
    return StateNames(labels, tuple(str(i) for i in range(len(states))), "")


def _span(numbers: Sequence[str]) -> str:
    """Return the ends of consecutive numbers, else all of them."""
    found = [int(n) for n in numbers]
    if len(found) > 2 and found == list(range(found[0], found[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(numbers)
