"""What users pass as ``inputs``, made ready for one pass through the engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._captum import format_additional_forward_args
from .._copied import copied
from .._forms import KNOWN_KEYS
from ..errors import InputError

_IDENTIFIERS = (torch.int64, torch.int32)


@dataclass(frozen=True)
class Leaf:
    """One input and the leaf of the graph that stands for it.

    Attributes:
        name (str): how the input is called in messages.
        given (Tensor): what the user passed, never modified.
        leaf (Tensor): the float input itself, or one 1.0 per integer identifier.
        passed (Tensor): what the model receives.
        keep (Tensor or None): 1 for tokens, 0 for padding, of the leaf's shape.
    """

    name: str
    given: Tensor
    leaf: Tensor
    passed: Tensor
    keep: Tensor | None = None

    @property
    def is_identifier(self) -> bool:
        """Whether the input is integer identifiers, explained one score each."""
        return self.passed is not self.leaf and not self.given.is_floating_point()

    def relevance(
        self, gradient: Tensor | None, *, times_input: bool, dtype: torch.dtype
    ) -> Tensor:
        """Return the relevance of the input, zero at padding.

        Args:
            gradient (Tensor or None): at the leaf.
            times_input (bool): relevance is input times gradient.
            dtype (torch.dtype): of the embeddings that identifiers were looked up in.
        """
        if gradient is None:
            gradient = torch.zeros_like(self.leaf, requires_grad=False)
        relevance = gradient.to(dtype) if self.is_identifier else gradient
        if times_input and not self.is_identifier:
            relevance = self.leaf.detach() * gradient
        if self.keep is not None:
            relevance = torch.where(self.keep.bool(), relevance, 0)
        return relevance


@dataclass(frozen=True)
class Inputs:
    """The leaves of one pass and how the model is called with them.

    Attributes:
        leaves (tuple of Leaf): one for each explained input.
        form (str): ``"tensor"``, ``"tuple"`` or ``"mapping"``, as the user gave them.
        arguments (tuple): further positional arguments, as they were given.
        keywords (dict): further keyword arguments, alike.
    """

    leaves: tuple[Leaf, ...]
    form: str
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]

    def call(self, forward_func: Callable[..., Any]) -> Any:
        """Run the forward function, with copies of what it may change.

        They are made where an engine sees it, which may follow positions.
        """
        arguments, keywords = copied((self.arguments, self.keywords))
        if self.form == "mapping":
            named = {leaf.name: leaf.passed for leaf in self.leaves}
            return forward_func(**named, **keywords)
        return forward_func(*(leaf.passed for leaf in self.leaves), *arguments)

    def identifiers(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Return the integer inputs with their leaves of ones."""
        return tuple((x.passed, x.leaf) for x in self.leaves if x.is_identifier)

    def restore(self, values: tuple[Any, ...]) -> Any:
        """Return values, one for each leaf, in the form of the inputs."""
        if self.form == "tuple":
            return values
        if self.form == "mapping" and len(values) > 1:
            names = [leaf.name for leaf in self.leaves]
            return dict(zip(names, values, strict=True))
        return values[0]

    @property
    def examples(self) -> int:
        """The number of examples in the batch."""
        return int(self.leaves[0].given.shape[0]) if self.leaves[0].given.dim() else 1


def prepare_inputs(inputs: Any, additional_forward_args: Any) -> Inputs:
    """Make inputs ready for one pass.

    Args:
        inputs (Tensor, tuple of Tensor, or Mapping): float tensors are explained
            element by element, int64 and int32 tensors as identifiers, one score each.
            Of a mapping, the known keys (``input_ids``, ``pixel_values`` and others)
            are explained and the rest is passed on by keyword; where
            ``attention_mask`` is 0, relevance is 0.
        additional_forward_args (Any): further positional arguments, as Captum takes
            them. Like the rest of a mapping they are constants, and the model receives
            copies: see :func:`~captum_transformer_lrp._copied.copied`.

    Raises:
        InputError: if there is nothing to explain, or an input is empty, not finite, of
            a dtype that cannot be explained, or no tensor.
    """
    if isinstance(inputs, Mapping):
        return _prepare_mapping(inputs, additional_forward_args)
    form = "tuple" if isinstance(inputs, tuple) else "tensor"
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    if not given:
        raise InputError("inputs is an empty tuple; expected at least one tensor.")
    names = (
        ["inputs"] if form == "tensor" else [f"inputs[{i}]" for i in range(len(given))]
    )
    leaves = tuple(_leaf(n, x) for n, x in zip(names, given, strict=True))
    arguments: tuple[Any, ...] = ()
    if additional_forward_args is not None:
        arguments = format_additional_forward_args(additional_forward_args)
    return Inputs(leaves, form, arguments, {})


def _prepare_mapping(inputs: Mapping[str, Any], additional_forward_args: Any) -> Inputs:
    if additional_forward_args is not None:
        raise InputError(
            "inputs is a mapping, which is passed by keyword, and "
            "additional_forward_args was given too. Put everything into the mapping: "
            "attribute({**inputs, 'name': value}, ...)."
        )
    known = [k for k in KNOWN_KEYS if isinstance(inputs.get(k), Tensor)]
    if not known:
        lists = [k for k in KNOWN_KEYS if inputs.get(k) is not None]
        if lists:
            raise InputError(
                f"inputs[{lists[0]!r}] is a {type(inputs[lists[0]]).__name__}; "
                "expected a tensor. Call the tokenizer or processor with "
                'return_tensors="pt".'
            )
        raise InputError(
            f"inputs is a mapping with the keys {sorted(map(str, inputs))}; expected "
            f"one of {', '.join(KNOWN_KEYS)}. Pass the tensor itself for other models."
        )
    leaves = []
    for key in known:
        leaf = _leaf(key, inputs[key])
        mask = inputs.get("attention_mask")
        if (
            key in ("input_ids", "inputs_embeds")
            and isinstance(mask, Tensor)
            and mask.shape == leaf.given.shape[: mask.dim()]
        ):
            padding = mask.reshape(
                *mask.shape, *([1] * (leaf.given.dim() - mask.dim()))
            )
            leaf = Leaf(key, leaf.given, leaf.leaf, leaf.passed, padding)
        leaves.append(leaf)
    rest = {k: v for k, v in inputs.items() if k not in known}
    return Inputs(tuple(leaves), "mapping", (), rest)


def _leaf(name: str, given: Any) -> Leaf:
    if not isinstance(given, Tensor):
        raise InputError(
            f"{name} is a {type(given).__name__}; expected a tensor, a tuple of "
            "tensors, or the mapping that a tokenizer or image processor returns."
        )
    if given.is_nested and given.layout is torch.strided:
        raise InputError(
            f"{name} is a nested tensor of the strided layout, for which torch has no "
            "sums; expected layout=torch.jagged, or a padded tensor with a mask. Write "
            f"{name}.to_padded_tensor(0.0), or "
            f"torch.nested.nested_tensor({name}.unbind(), layout=torch.jagged)."
        )
    if given.numel() == 0:
        raise InputError(
            f"{name} has shape {tuple(given.shape)} and so no element to explain."
        )
    if given.is_floating_point():
        if not math.isfinite(given.detach().sum().item()):  # quick, may overflow
            wrong = int((~torch.isfinite(given)).sum())
            if wrong:
                raise InputError(
                    f"{name} has {wrong} value(s) that are NaN or infinite, of "
                    f"{given.numel()}; relevance is undefined for them."
                )
        ours = given.clone() if given.is_inference() else given
        leaf = ours.detach().requires_grad_()
        # the model receives a copy, which it may change in place
        with torch.enable_grad():
            return Leaf(name, given, leaf, leaf.clone())
    if given.dtype in _IDENTIFIERS:
        # summed over features in the model's dtype, and kept in the widest
        wide = torch.float32 if given.device.type == "mps" else torch.float64
        ones = torch.ones(
            given.shape, dtype=wide, device=given.device, requires_grad=True
        )
        return Leaf(name, given, ones, given.detach().clone())
    raise InputError(
        f"{name} is of dtype {given.dtype}; expected floating point (embeddings, "
        "pixels) or int64 / int32 (token identifiers). Convert it, for example with "
        ".float()."
    )


def why_it_failed(
    error: RuntimeError, forward_func: Any, inputs: Inputs
) -> InputError | None:
    """Return a clearer error where dtype or device of inputs and model disagree."""
    if not isinstance(forward_func, nn.Module):
        return None
    parameter = next(
        (p for p in forward_func.parameters() if p.is_floating_point()), None
    )
    if parameter is None:
        return None
    for leaf in inputs.leaves:
        x = leaf.given
        if x.device != parameter.device:
            return InputError(
                f"{leaf.name} is on {x.device}, the model on {parameter.device}. Write "
                f"{leaf.name}.to({str(parameter.device)!r}). ({error})"
            )
        if "indices" in str(error) and x.is_floating_point():
            return InputError(
                f"{leaf.name} is of dtype {x.dtype}, but the model looks it up in an "
                f"embedding. Pass integer identifiers: {leaf.name}.long(). (A method "
                "that adds noise or interpolates has made them float: give it the "
                "embeddings instead, as inputs_embeds.)"
            )
        if (
            x.is_floating_point()
            and x.dtype != parameter.dtype
            and "dtype" in str(error)
        ):
            return InputError(
                f"{leaf.name} is of dtype {x.dtype}, the model's parameters of "
                f"{parameter.dtype}. Write {leaf.name}.to({parameter.dtype}). ({error})"
            )
    return None
