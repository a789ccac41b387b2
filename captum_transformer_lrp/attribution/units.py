"""Layers, heads, neurons and experts: where relevance is read off, starts, or passes.

A unit says which tensor of a model is meant and what its parts are. The Layer classes
take units where Captum's take modules, the Neuron classes select from them, and
``through={unit: selector}`` lets only relevance that passes them reach the inputs.

    >>> from captum_transformer_lrp import AttnLRP, LayerAttnLRP, units
    >>> heads = units.Heads(model.bert.encoder.layer[3].attention)
    >>> LayerAttnLRP(model, heads).attribute(batch, target=1)  # (1, tokens, heads)
    >>> AttnLRP(model, through={heads: [2, 5]}).attribute(batch, target=1)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..errors import InputError, UnitError
from ..observers.taps import OutputTap, ParameterTap, Reading, SlotsTap, Tap

#: an index, several, a tuple of indices and slices as in Captum, a mask or a function
Selector = int | list[int] | tuple[Any, ...] | Tensor | slice | Callable[..., Any]
#: for each tap of a unit; None for experts that did not run
Readings = list[Reading | None]


@dataclass(frozen=True)
class Unit(ABC):
    """Base of what can be named in a model.

    Args:
        module (Module): the place.
        call (int, optional): which run of the module is meant, if it runs more than
            once in a forward pass; negative from the end. Default: it must run once
    """

    module: nn.Module
    call: int | None = None

    def __post_init__(self) -> None:
        """Check the module.

        Raises:
            TypeError: if it is none.
        """
        if not isinstance(self.module, nn.Module):
            raise TypeError(
                f"{type(self).__name__} got a {type(self.module).__name__}; expected a "
                "torch.nn.Module of the model."
            )

    @abstractmethod
    def taps(self) -> tuple[Tap, ...]:
        """Return what reads the unit off in one run."""

    def readings(self, taps: tuple[Tap, ...], names: Callable[..., str]) -> Readings:
        """Return what was read in the run that is meant, for each tap.

        Raises:
            InputError: if the module did not run, or more than once and ``call`` does
                not say which run is meant.
        """
        return [self._reading(tap, names) for tap in taps]

    def _reading(self, tap: Tap, names: Callable[..., str]) -> Reading:
        found = tap.readings
        if not found:
            raise InputError(
                f"the layer {type(tap.module).__name__} did not run in the forward "
                "pass. Choose a module of the explained model that is used for these "
                "inputs."
            )
        if self.call is None and len(found) > 1:
            raise InputError(
                f"the layer {names(tap.module)!r} runs more than once in one forward "
                f"pass ({len(found)} times), so that it has no single attribution. Say "
                f"which run is meant: units.{type(self).__name__}(module, call=0), or "
                "-1 for the last."
            )
        call = 0 if self.call is None else self.call
        if not -len(found) <= call < len(found):
            raise InputError(
                f"call={self.call} of the layer {names(tap.module)!r} is out of range: "
                f"it runs {len(found)} time(s) in one forward pass."
            )
        return found[call]

    def parts(self, tensor: Tensor, reading: Reading, examples: int) -> Tensor:
        """Sum a tensor of the reading's shape over the features of each part.

        Args:
            tensor (Tensor): relevance, or values.
            reading (Reading): what it belongs to.
            examples (int): the number of examples.
        """
        return tensor

    def index(self, selector: Selector, value: Tensor) -> Any:
        """Return the index of the selected parts into the tensor of parts."""
        if isinstance(selector, tuple):
            return (slice(None), *selector)
        if isinstance(selector, Tensor) and selector.dtype == torch.bool:
            same_for_all = selector.dim() == value.dim() - 1
            return (slice(None), selector) if same_for_all else (selector,)
        if isinstance(selector, (int, list, slice, Tensor)):
            return (..., selector)
        raise TypeError(
            f"a selector is a {type(selector).__name__}; expected an index, a list of "
            "indices, or a tuple of indices and slices, one for each dimension after "
            "the examples."
        )

    def arranged(self, relevance: list[Any], readings: Readings, examples: int) -> Any:
        """Return relevance as the Layer classes hand it out.

        Args:
            relevance (list): for each reading the value's structure with relevance in
                the place of tensors, and None for what carries none.
            readings (list of Reading or None): what was read.
            examples (int): their number.
        """
        ((found,), (reading,)) = relevance, readings
        assert reading is not None
        return self.parts(self._only(_flat(found)), reading, examples)

    def selected(self, selector: Selector, readings: Readings, examples: int) -> Tensor:
        """Return the values of the selected parts, in the graph.

        Args:
            selector (Selector): which parts; a callable receives what the layer has and
                returns a value per example.
            readings (list of Reading or None): what was read.
            examples (int): their number.

        Raises:
            InputError: if the selector does not fit the shape.
        """
        (reading,) = readings
        assert reading is not None
        if callable(selector):
            return self._called(selector, self.seen(reading, examples))
        parts = self.parts(self._only(reading.tensors()), reading, examples)
        found: Tensor = self._at(parts, selector)
        if isinstance(selector, Tensor) and selector.dim() == parts.dim() != 1:
            if selector.dtype == torch.bool:  # not the same number for each example
                return torch.where(selector, parts, 0)
        return found

    def seen(self, reading: Reading, examples: int) -> Any:
        """Return what a callable selector receives."""
        return self.parts(self._only(reading.tensors()), reading, examples)

    def masks(
        self, selector: Selector, readings: Readings, examples: int
    ) -> list[list[Tensor]]:
        """Return, for the tensors of each reading, 1 where a selected part is, else 0.

        Args:
            selector (Selector): which parts; a callable receives the parts and returns
                a mask that can be expanded to their shape.
            readings (list of Reading or None): what was read, and relevance came to.
            examples (int): their number.

        Raises:
            InputError: if the selector does not fit the shape.
        """
        (reading,) = readings
        assert reading is not None
        tensor = self._only(reading.tensors()).detach().requires_grad_()
        parts = self.parts(tensor, reading, examples)
        if callable(selector):
            chosen = self._called(selector, parts.detach())
            mask = chosen.to(parts.dtype).expand(parts.shape)
        else:
            mask = torch.zeros_like(parts, requires_grad=False)
            self._at(mask, selector, 1.0)
        if parts is tensor:
            return [[mask]]
        return [list(torch.autograd.grad(parts, tensor, mask))]  # back to the features

    def _at(self, parts: Tensor, selector: Selector, write: float | None = None) -> Any:
        """Read the selected parts, or write a number to them."""
        index = self.index(selector, parts)
        try:
            if write is None:
                return parts[index]
            parts[index] = write
        except IndexError as error:
            raise InputError(
                f"{selector!r} does not select from {type(self).__name__} of "
                f"{type(self.module).__name__}, of shape {tuple(parts.shape)} "
                f"(dimension 0 is the examples): {error}."
            ) from error

    def _called(self, selector: Callable[..., Any], value: Any) -> Tensor:
        found = selector(value)
        if not isinstance(found, Tensor):
            raise TypeError(
                f"the selector returned a {type(found).__name__}; expected a tensor."
            )
        return found

    def _only(self, tensors: list[Tensor]) -> Tensor:
        """Return the one tensor of a reading."""
        if len(tensors) != 1:
            raise UnitError(
                f"{type(self.module).__name__} has {len(tensors)} tensors that carry "
                "relevance, so that an index does not say which is meant. Choose a "
                "module with one; a neuron_selector may be a function of all of them."
            )
        return tensors[0]


@dataclass(frozen=True)
class Layer(Unit):
    """What a module returns, or what goes into it.

    Its parts are the elements of the tensor. A selector is as Captum's: an index into
    the second of two dimensions, or a tuple of indices and slices, one for each
    dimension after the examples.

    Args:
        module (Module): the layer.
        call (int, optional): which run of it, negative from the end. Default: it must
            run once
        inputs (bool, optional): what goes into it. Default: False
    """

    inputs: bool = False

    def taps(self) -> tuple[Tap, ...]:
        """Return a tap at the inputs or the output."""
        return (Tap(self.module) if self.inputs else OutputTap(self.module),)

    def index(self, selector: Selector, value: Tensor) -> Any:
        """Return the index; a bare one needs a tensor of two dimensions."""
        mask = isinstance(selector, Tensor) and selector.dtype == torch.bool
        if not isinstance(selector, tuple) and not mask and value.dim() != 2:
            raise InputError(
                f"{selector!r} selects from {type(self.module).__name__} of shape "
                f"{tuple(value.shape)}; expected one index for each dimension after "
                f"the examples, such as (..., {selector!r}) for a feature of all "
                "tokens."
            )
        return super().index(selector, value)

    def arranged(self, relevance: list[Any], readings: Readings, examples: int) -> Any:
        """Return relevance in the structure of the output, or of the inputs."""
        (found,) = relevance
        if self.inputs:
            tensors = [t for t in _flat(found) if t is not None]
            return tensors[0] if len(tensors) == 1 else tuple(tensors)
        return _unwrapped(found)

    def selected(self, selector: Selector, readings: Readings, examples: int) -> Tensor:
        """Return the values of the selected elements.

        Raises:
            UnitError: if an index is to select from a packed sequence.
        """
        for reading in readings:
            if not callable(selector) and reading is not None and _packed(reading):
                raise UnitError(
                    f"{type(self.module).__name__} has a packed sequence, whose rows "
                    "are the steps of all examples, so that an index does not say of "
                    "which. Give a neuron_selector that is a function of what the "
                    "layer has, and unpacks it: pad_packed_sequence(output)[0]..."
                )
        return super().selected(selector, readings, examples)

    def seen(self, reading: Reading, examples: int) -> Any:
        """Return the tensor, or the tuple with all that there is."""
        return _unwrapped(self.arranged([reading.value], [reading], examples))


@dataclass(frozen=True)
class Neurons(Unit):
    """The neurons of a feed-forward layer: what goes into its second linear map.

    For a gated layer these are the products of gate and value. Relevance has the shape
    ``(examples, tokens, neurons)``; a bare index selects a neuron at all tokens.

    Args:
        module (Module): the second linear map (``mlp.down_proj``), or the feed-forward
            layer or block that has one of a usual name for it.
        call (int, optional): which run of it. Default: it must run once

    Raises:
        UnitError: if the second map cannot be told.
    """

    def __post_init__(self) -> None:
        """Find the second linear map."""
        super().__post_init__()
        object.__setattr__(self, "module", _child(self, _SECOND_MAPS, "second linear"))

    def taps(self) -> tuple[Tap, ...]:
        """Return a tap at the input of the second map."""
        return (Tap(self.module),)

    def parts(self, tensor: Tensor, reading: Reading, examples: int) -> Tensor:
        """Return the tensor, features last."""
        return _features_last(self.module, tensor)


@dataclass(frozen=True)
class Heads(Unit):
    """The heads of an attention layer: what goes into its output projection, by head.

    Heads lie side by side in the features of that input, as everywhere. A head's
    relevance is the sum over its features; its shape ``(examples, tokens, heads)``. A
    bare index selects a head at all tokens.

    Args:
        module (Module): the attention layer (Hugging Face, timm,
            :class:`torch.nn.MultiheadAttention`, or your own), or its output
            projection.
        call (int, optional): which run of it. Default: it must run once
        heads (int, optional): their number. Default: what the layer or its
            configuration says

    Raises:
        UnitError: if the output projection or the number of heads cannot be told.
    """

    heads: int | None = None

    def __post_init__(self) -> None:
        """Find the number of heads and the output projection."""
        super().__post_init__()
        number = self.heads if self.heads is not None else _number_of_heads(self.module)
        object.__setattr__(self, "heads", number)
        if not isinstance(self.module, nn.MultiheadAttention):
            found = _child(self, _OUTPUT_PROJECTIONS, "output projection")
            object.__setattr__(self, "module", found)

    def taps(self) -> tuple[Tap, ...]:
        """Return a tap at the input of the output projection."""
        if not isinstance(self.module, nn.MultiheadAttention):
            return (Tap(self.module),)
        first = self.module.batch_first
        return (
            ParameterTap(
                self.module,
                self.module.out_proj.weight,
                lambda args, kwargs: _batch_of(args, kwargs, first),
            ),
        )

    def parts(self, tensor: Tensor, reading: Reading, examples: int) -> Tensor:
        """Sum over the features of each head."""
        tensor = _features_last(self.module, tensor)
        heads, width = self.heads or 0, tensor.shape[-1]
        if width % heads:
            raise UnitError(
                f"the input of {type(self.module).__name__} has {width} features, "
                f"which are not {heads} heads. Say how many there are: "
                "units.Heads(module, heads=...)."
            )
        found: Tensor = tensor.unflatten(-1, (heads, width // heads)).sum(-1)
        if reading.context is None:
            return found
        # torch.nn.MultiheadAttention puts tokens before examples, in one dimension
        tokens_first: Tensor = found.unflatten(0, (-1, reading.context))
        return tokens_first.transpose(0, 1)


@dataclass(frozen=True)
class Experts(Unit):
    """The experts of a mixture: what each adds to the output, weight included.

    For a module that is called with the chosen experts and their weights, as Hugging
    Face's are, relevance has the shape ``(examples, tokens, experts)`` and is 0 for
    experts that were not chosen; its sum over experts is that of the mixture's output.
    (Tokens that the model has put into one dimension are taken to be those of one
    example after the other.) The module runs twice.

    For a list of modules, an expert is what its module returns, before any weight (of
    the product with the weight AttnLRP gives half to the router). Layer classes then
    return a list, with None for experts that did not run.

    Args:
        module (Module): the experts, their list, or the block that has ``experts``.
        call (int, optional): which run of it. Default: it must run once

    Raises:
        UnitError: if experts and weights cannot be told from the call.
    """

    def __post_init__(self) -> None:
        """Find the experts of a block."""
        super().__post_init__()
        inner = getattr(self.module, "experts", None)
        if isinstance(inner, nn.Module):
            object.__setattr__(self, "module", inner)

    @property
    def separate(self) -> bool:
        """Whether each expert is a module, called by the code around them."""
        return type(self.module).forward is nn.Module.forward and bool(
            list(self.module.children())
        )

    @property
    def number(self) -> int:
        """How many experts there are."""
        if self.separate:
            return len(list(self.module.children()))
        found = getattr(self.module, "num_experts", None)
        if isinstance(found, int):
            return found
        raise UnitError(
            f"{type(self.module).__name__} has no num_experts, so that the number of "
            "its experts is not known. Set module.num_experts, or take "
            "units.Layer(module)."
        )

    def taps(self) -> tuple[Tap, ...]:
        """Return one tap at the parts of the sum, or one for each expert."""
        if self.separate:
            return tuple(OutputTap(expert) for expert in self.module.children())
        return (SlotsTap(self.module),)

    def readings(self, taps: tuple[Tap, ...], names: Callable[..., str]) -> Readings:
        """Return what was read; None for a module that no token was sent to."""
        if not self.separate or not any(tap.readings for tap in taps):
            return super().readings(taps, names)
        return [self._reading(tap, names) if tap.readings else None for tap in taps]

    def parts(self, tensor: Tensor, reading: Reading, examples: int) -> Tensor:
        """Sum over features, and put slots to the experts that they were."""
        index = reading.context.long()
        slots = tensor.sum(-1)
        # an index of one too many stands for no expert
        total: Tensor = slots.new_zeros(len(slots), self.number + 1)
        total = total.scatter_add(1, index, slots)[:, :-1]
        if examples and len(total) % examples == 0:
            total = total.unflatten(0, (examples, -1))
        return total

    def arranged(self, relevance: list[Any], readings: Readings, examples: int) -> Any:
        """Return relevance by expert, or a list where each is a module."""
        if not self.separate:
            return super().arranged(relevance, readings, examples)
        return [_unwrapped(found) for found in relevance]

    def selected(self, selector: Selector, readings: Readings, examples: int) -> Tensor:
        """Return the values of the selected experts.

        Raises:
            UnitError: if each expert is a module.
        """
        if self.separate:
            raise UnitError(
                f"the experts of {type(self.module).__name__} are modules; start from "
                "one of them: units.Layer(experts[0])."
            )
        return super().selected(selector, readings, examples)

    def masks(
        self, selector: Selector, readings: Readings, examples: int
    ) -> list[list[Tensor]]:
        """Return masks as other units do, or 1 for all that a chosen module returns."""
        if not self.separate:
            return super().masks(selector, readings, examples)
        chosen = torch.zeros(self.number)
        self._at(chosen, selector, 1.0)
        return [
            [] if r is None else [torch.full_like(t, float(on)) for t in r.tensors()]
            for r, on in zip(readings, chosen, strict=True)
        ]


def as_unit(layer: Any, *, inputs: bool = False) -> Unit:
    """Return a unit as it is, and a module as the layer that it is.

    Raises:
        TypeError: if it is neither, or ``inputs`` was asked for a unit that says itself
            where it is.
    """
    if isinstance(layer, Layer):
        return Layer(layer.module, layer.call, layer.inputs or inputs)
    if isinstance(layer, Unit):
        if inputs:
            raise TypeError(
                f"{type(layer).__name__} says itself where relevance is read off; "
                "leave attribute_to_layer_input out."
            )
        return layer
    if isinstance(layer, nn.Module):
        return Layer(layer, inputs=inputs)
    raise TypeError(
        f"layer={layer!r}; expected a torch.nn.Module, a unit such as "
        "units.Heads(module), or a list of them."
    )


def _features_last(module: nn.Module, tensor: Tensor) -> Tensor:
    """Return the input of a linear map with its features in the last dimension."""
    if isinstance(module, nn.modules.conv._ConvNd):
        return tensor.movedim(-1 - len(module.kernel_size), -1)
    return tensor


def _flat(value: Any) -> list[Any]:
    if isinstance(value, PackedSequence):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    elif is_dataclass(value) and not isinstance(value, type):
        value = [getattr(value, field.name) for field in fields(value)]
    if isinstance(value, (list, tuple)):
        return [t for item in value for t in _flat(item)]
    return [value] if isinstance(value, Tensor) else []


def _packed(reading: Reading) -> bool:
    """Whether a packed sequence that carries relevance was read."""
    value = reading.value
    items = _flat(list(value) if isinstance(value, tuple) else [value])
    return any(isinstance(x, PackedSequence) and x.data.requires_grad for x in items)


def _unwrapped(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) and len(value) == 1 else value


# --------------------------------------------------------------------------- discovery

#: names (or paths) under which models have the projection behind the heads
_OUTPUT_PROJECTIONS = frozenset(
    """o_proj out_proj c_proj proj out_lin dense wo o to_out out output_proj fc_out
    proj_out""".split()
)
#: and the second map of a feed-forward layer
_SECOND_MAPS = frozenset(
    """down_proj c_proj fc2 linear2 w2 wo lin2 dense_4h_to_h fc_out down fc_2
    output_linear output.dense""".split()
)
_HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "heads")


def _child(unit: Unit, names: frozenset[str], role: str) -> nn.Module:
    """Return the module itself if it has no children, or its child of such a name."""
    module = unit.module
    if not list(module.children()):
        return module
    found: dict[str, nn.Module] = {
        name: child
        for name, child in module.named_modules()
        if (name in names or name.rpartition(".")[2].lower() in names)
        and not any(above.lower() in names for above in name.split(".")[:-1])
    }
    if len(found) == 1:
        (only,) = found.values()
        return only
    linear = [n for n, m in module.named_modules() if n and not list(m.children())]
    raise UnitError(
        f"{type(module).__name__} has {len(found)} children that may be its {role} "
        f"({', '.join(found) or 'none'}); expected one. Pass the {role} itself: "
        f"units.{type(unit).__name__}(module.<name>), one of {', '.join(linear)}."
    )


def _number_of_heads(module: nn.Module) -> int:
    """Return the number of query heads that a layer or its configuration states."""
    for holder in (module, getattr(module, "config", None)):
        for name in _HEADS:
            number = getattr(holder, name, None)
            if isinstance(number, int) and not isinstance(number, bool):
                return number
    below = {
        number
        for child in module.modules()
        for name in _HEADS
        if isinstance(number := getattr(child, name, None), int)
    }
    if len(below) == 1:
        return below.pop()
    raise UnitError(
        f"{type(module).__name__} does not say how many heads it has "
        f"({', '.join(_HEADS)}). Say so: units.Heads(module, heads=...)."
    )


def _batch_of(args: Any, kwargs: dict[str, Any], batch_first: bool) -> int:
    """Return the number of examples in a call of torch.nn.MultiheadAttention."""
    query: Tensor = args[0] if args else kwargs["query"]
    if query.dim() == 2:
        return 1
    return int(query.shape[0 if batch_first else 1])
