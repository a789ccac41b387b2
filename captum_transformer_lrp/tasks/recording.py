"""What a pipeline asks of its model: every call, with what came back.

A pipeline says what its model does: how an input is cut, batched and padded, what is
passed to the model, and what its output means. Nothing of that is done again here. A
copy of the pipeline runs with a stand-in for the model that notes each call, so that
what is explained is what was computed. Model and pipeline stay as they are.
"""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .._copied import copied
from .._nested import map_tensors
from ..errors import InputError


@dataclass(frozen=True, eq=False)
class ModelCall:
    """One call of a model.

    Attributes:
        inputs (dict): the keyword arguments, copies.
        output (Any): what came back, without a graph.
        generated (bool): whether it was ``generate`` that was called.
        begun (tuple of Tensor): the ``decoder_input_ids`` that ``generate`` began to
            decode with, each time that it did.
    """

    inputs: dict[str, Any]
    output: Any = field(repr=False)
    generated: bool = False
    begun: tuple[Tensor, ...] = field(default=(), repr=False)

    def row(self, number: int) -> dict[str, Any]:
        """Return the arguments of one example of the batch, as a batch of one."""
        first = next((v for v in self.inputs.values() if isinstance(v, Tensor)), None)
        examples = 1 if first is None else len(first)
        return {
            key: value[number : number + 1]
            if isinstance(value, Tensor) and value.dim() and len(value) == examples
            else value
            for key, value in self.inputs.items()
        }


class Recorded:
    """A stand-in for a model, which notes how it is called.

    Args:
        model (Module): the model.
    """

    def __init__(self, model: Any) -> None:
        self.__dict__["_model"] = model
        self.__dict__["entered"] = False  # whether it was called
        self.__dict__["_calls"] = []

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """The class of the model: pipelines ask for it."""
        found: type = type(self._model)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_model"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise InputError(
            f"the pipeline sets {name!r} of its model: explain the model directly"
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model."""
        if args:
            names = _parameters(self._model.forward)
            kwargs = {**dict(zip(names, args, strict=False)), **kwargs}
        return self._noted(self._model, kwargs)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Let the model generate."""
        if args:
            kwargs = {"inputs": args[0], **kwargs}
        begun: list[Tensor] = []
        generate = _listened(self._model, begun).generate
        return self._noted(generate, kwargs, generated=True, begun=begun)

    def _noted(self, function: Any, kwargs: dict[str, Any], **how: Any) -> Any:
        self.__dict__["entered"] = True
        noted = copied(kwargs)
        output = function(**kwargs)
        kept = map_tensors(lambda tensor: tensor.detach().clone(), output)
        how["begun"] = tuple(how.get("begun", ()))
        self._calls.append(ModelCall(noted, kept, **how))
        return output


def _listened(model: Any, begun: list[Tensor]) -> Any:
    """Return a copy of a model, with its weights, that notes where decoding begins.

    ``generate`` says what it generated, but not always what it began with.
    """
    twin = copy.copy(model)

    @functools.wraps(model.forward)
    def forward(*args: Any, **kwargs: Any) -> Any:
        ids, past = kwargs.get("decoder_input_ids"), kwargs.get("past_key_values")
        length = getattr(past, "get_seq_length", None)
        if isinstance(ids, Tensor) and not (past if length is None else length()):
            begun.append(ids.detach().clone())
        return model.forward(*args, **kwargs)

    twin.forward = forward
    return twin


def _parameters(function: Any) -> list[str]:
    import inspect

    return list(inspect.signature(function).parameters)


def recorded(pipe: Any) -> tuple[Any, list[ModelCall]]:
    """Return a copy of a pipeline, and the list that its model's calls go into."""
    model = Recorded(pipe.model)
    twin = copy.copy(pipe)
    twin.model = model
    return twin, model.__dict__["_calls"]
