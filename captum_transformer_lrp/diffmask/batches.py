"""Batches as users have them: how the model is called, and which tokens are real."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError

#: entries of a mapping that the model would only use to compute a loss
_LABELS = (
    "labels",
    "label",
    "label_ids",
    "start_positions",
    "end_positions",
    "next_sentence_label",
)


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch, ready for the model.

    Attributes:
        given (Any): what the user passed, on the model's device.
        arguments (tuple): positional arguments of the forward function.
        keywords (dict): its keyword arguments.
        examples (int): the size of the batch.
        identifiers (Tensor or None): the integer tokens, if there are some.
        attention_mask (Tensor or None): 1 for tokens, 0 for padding.
    """

    given: Any
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    examples: int
    identifiers: Tensor | None
    attention_mask: Tensor | None

    def run(self, forward_func: Callable[..., Any]) -> Any:
        """Call the forward function."""
        return forward_func(*self.arguments, **self.keywords)


def batch_of(
    inputs: Any, device: torch.device | None, additional_forward_args: Any = None
) -> Batch:
    """Make a batch ready for the model.

    Args:
        inputs (Tensor, tuple of Tensor, or Mapping): positional arguments, or keyword
            arguments without the labels.
        device (torch.device, optional): where the tensors are moved.
        additional_forward_args (Any, optional): further positional arguments.

    Raises:
        InputError: if there is no tensor, or an empty one.
    """

    def moved(value: Any) -> Any:
        return value.to(device) if isinstance(value, Tensor) else value

    more = () if additional_forward_args is None else additional_forward_args
    more = tuple(map(moved, more if isinstance(more, tuple) else (more,)))
    keywords: dict[str, Any] = {}
    arguments: tuple[Any, ...] = ()
    given: Any
    if isinstance(inputs, Mapping):
        keywords = {k: moved(v) for k, v in inputs.items() if k not in _LABELS}
        given = keywords
        values = list(keywords.values())
    elif isinstance(inputs, (tuple, list)):
        arguments = tuple(map(moved, inputs))
        given = arguments
        values = list(arguments)
    else:
        given = moved(inputs)
        arguments = (given,)
        values = [given]
    if more and arguments:
        given = arguments + more
    tensors = [v for v in values if isinstance(v, Tensor)]
    if not tensors:
        raise InputError(
            f"a batch is a {type(inputs).__name__} without a tensor; expected a "
            "tensor, a tuple of tensors, or the mapping of a tokenizer or image "
            'processor (with return_tensors="pt").'
        )
    main = keywords.get("input_ids", tensors[0])
    if not isinstance(main, Tensor) or main.dim() == 0 or main.numel() == 0:
        shape = tuple(main.shape) if isinstance(main, Tensor) else type(main).__name__
        raise InputError(f"a batch holds {shape}; expected at least one example.")
    identifiers = None if main.is_floating_point() or main.dim() != 2 else main
    mask = keywords.get("attention_mask")
    return Batch(
        given,
        arguments + more,
        keywords,
        int(main.shape[0]),
        identifiers,
        mask if isinstance(mask, Tensor) and mask.dim() == 2 else None,
    )


def seeded(seed: int, purpose: int, number: int) -> torch.Generator:
    """Return a generator that depends on a seed, a purpose and a number alone."""
    mixed = (seed * 1_000_003 + number) * 16 + purpose
    return torch.Generator().manual_seed(mixed % (1 << 63))


class Batches:
    """A reproducible order of batches, epoch after epoch.

    Whatever the loader draws from torch's or Python's global generators while it
    iterates comes from streams of their own, that depend on the seed and the epoch; the
    user's generators are left as they were. A generator of the loader's own is seeded
    for each epoch and put back.

    Args:
        loader (iterable): of batches; iterated once per epoch.
        seed (int): of the order.
        share (tuple of int): number of this process, and how many there are: each takes
            every so many batches. A last group that is not full is left out.
        epoch (int): to start with.
        skip (int): batches of that epoch to leave out.

    Raises:
        InputError: if the loader can be iterated only once, or holds nothing.
    """

    def __init__(
        self,
        loader: Iterable[Any],
        seed: int,
        *,
        share: tuple[int, int] = (0, 1),
        epoch: int = 0,
        skip: int = 0,
    ) -> None:
        if isinstance(loader, Iterator):
            raise InputError(
                f"the data is a {type(loader).__name__}, which can be iterated only "
                "once; pass a list or a DataLoader."
            )
        self.loader, self.seed, self.share = loader, seed, share
        self.epoch, self.position = epoch, skip

    def __iter__(self) -> Iterator[Any]:
        """Yield batches without end."""
        while True:
            found = False
            for batch in self._epoch():
                found = True
                self.position += 1
                yield batch
            if not found and self.position == 0:
                raise InputError(
                    "the data holds no batch"
                    + (
                        "."
                        if self.share[1] == 1
                        else f" for {self.share[1]} processes."
                    )
                )
            self.epoch, self.position = self.epoch + 1, 0

    def _epoch(self) -> Iterator[Any]:
        number, count = self.share
        streams = _Streams(self.loader, self.seed + self.epoch)
        skip = self.position
        iterator = None
        while True:
            group = []
            with streams:
                if iterator is None:
                    iterator = iter(self.loader)
                for batch in iterator:
                    group.append(batch)
                    if len(group) == count:
                        break
            if len(group) < count:
                return
            if skip:
                skip -= 1
                continue
            yield group[number]


class _Streams:
    """The state of the generators that a loader draws from, apart from the user's.

    Within the block they are torch's and python's own, for all threads: loaders and
    samplers take no other.
    """

    def __init__(self, loader: Any, seed: int) -> None:
        holders = (loader, getattr(loader, "sampler", None))
        found = [getattr(h, "generator", None) for h in holders]
        self._own = list({id(g): g for g in found if g is not None}.values())
        self._inside: list[Any] = []
        state = torch.Generator().manual_seed(seed).get_state()
        python = random.Random(seed).getstate()
        own = [
            torch.Generator(g.device).manual_seed(seed).get_state() for g in self._own
        ]
        self._outside: list[Any] = [state, python, own]

    def _swap(self) -> None:
        held = [torch.get_rng_state(), random.getstate()]
        held.append([g.get_state() for g in self._own])
        torch.set_rng_state(self._outside[0])
        random.setstate(self._outside[1])
        for generator, state in zip(self._own, self._outside[2], strict=True):
            generator.set_state(state)
        self._outside = held

    def __enter__(self) -> None:
        self._swap()

    def __exit__(self, *exception: Any) -> None:
        self._swap()


def tokens_of(
    batch: Batch,
    shape: Sequence[int],
    token_mask: Callable[[Any], Tensor] | None,
) -> Tensor:
    """Return which tokens are real, True or False, shape ``(batch, tokens)``.

    Args:
        batch (Batch): the inputs.
        shape (sequence of int): ``(batch, tokens)`` of the hidden states.
        token_mask (Callable, optional): takes the inputs; else ``attention_mask`` of a
            mapping.

    Raises:
        InputError: if the mask has another shape.
    """
    mask = batch.attention_mask if token_mask is None else token_mask(batch.given)
    if mask is None:
        device = next(
            v.device
            for v in (*batch.arguments, *batch.keywords.values())
            if isinstance(v, Tensor)
        )
        return torch.ones(tuple(shape), dtype=torch.bool, device=device)
    if tuple(mask.shape) != tuple(shape):
        source = "attention_mask" if token_mask is None else "token_mask"
        raise InputError(
            f"{source} has shape {tuple(mask.shape)}, the hidden states have "
            f"{tuple(shape)} (batch, tokens). Pass token_mask=, a function of the "
            "inputs that returns 1 for tokens and 0 for padding."
        )
    return mask.bool()
