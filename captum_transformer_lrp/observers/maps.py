"""An observer that sees attention maps where the operators of a model make them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from .._nested import tensors_in
from .._torch import DisableTorchFunction
from ..core.table import Operator
from ..core.tape import Made
from ..known.behind import MATRIX_PRODUCTS, attention_behind
from ..known.decompositions import scaled_dot_product_attention
from .observed import Applied, ObservedEngine, Observer, Run
from .streams import KEYS_ALONE, start_of


class AttentionMap(NamedTuple):
    """What one attention operator multiplied its values with.

    Attributes:
        module (str): name of the module whose code ran.
        tensor (Tensor): in the graph, as the model had it: ``(examples, heads, queries,
            keys)``, or ``(examples * heads, queries, keys)``.
        made (Made): its record.
        transposed (bool): the last two dimensions are keys and queries.
    """

    module: str
    tensor: Tensor
    made: Made
    transposed: bool


class AttentionMaps(Observer):
    """Records every attention map.

    A map is a factor of a matrix product that comes out of a softmax. Fused attention
    is taken apart for it. Maps that depend on no explained input (a decoder's learned
    queries) are made to require a gradient, so that theirs can be read too.

    Attributes:
        maps (list of AttentionMap): in order of execution.
        starts (list of Tensor): the leaves that stand for maps of constants.
        grids (dict): for the record that a stream starts from, the spatial shape that
            convolutions had given it before the first map.
    """

    hears: ClassVar[bool] = False
    starts_at: ClassVar[frozenset[str]] = frozenset({"softmax", "attention"})

    def begin(self, engine: ObservedEngine) -> None:
        """Start without maps."""
        super().begin(engine)
        self.maps: list[AttentionMap] = []
        self.starts: list[Tensor] = []
        self.grids: dict[Made, tuple[int, ...]] = {}

    def opens(self, operator: Operator) -> Callable[..., Any] | None:
        """Take attention apart, and functions that may contain it."""
        if operator.kind == "attention":
            return scaled_dot_product_attention
        return operator.twin if operator.kind is None else None

    def apply(self, call: Applied, run: Run) -> Any:
        """Apply the rule of an operator; look for attention maps."""
        args, kwargs = call.args, call.kwargs
        if not call.relevant:
            return self._start(call.operator, run(args, kwargs))
        if call.kind != "product":
            return run(args, kwargs)
        output = run(self._record_maps(call.operator, args), kwargs)
        if call.name.startswith("conv") and not self.maps and output.requires_grad:
            (made, *_) = filter(None, map(self._relevant, tensors_in((args, kwargs))))
            self.grids[start_of(made)] = tuple(output.shape[2:])
        if call.relevant == 1 and call.name in MATRIX_PRODUCTS:
            *_, last = tensors_in(args)
            if last.requires_grad:
                call.note = call.note or KEYS_ALONE
        return output

    def _relevant(self, tensor: Tensor) -> Made | None:
        return self.engine.tape.of(tensor) if tensor.requires_grad else None

    def _start(self, operator: Operator, pattern: Tensor) -> Tensor:
        with DisableTorchFunction():
            self.starts.append(pattern.requires_grad_())
            with torch.enable_grad():
                copy = pattern.clone()
            self.engine.tape.start(pattern, copy, operator)
            return copy

    def _record_maps(
        self, operator: Operator, args: tuple[Any, ...]
    ) -> tuple[Any, ...]:
        places = _FACTORS.get(operator.name)
        if places is None:
            return args
        for place, transposed in places(args):
            factor = args[place] if place < len(args) else None
            if (
                isinstance(factor, Tensor)
                and factor.requires_grad
                and factor.dim() >= 3
                and (made := self.engine.tape.of(factor)) is not None
                and attention_behind(made)
            ):
                factor = self.engine.tape.same(factor.view_as(factor), factor)
                self.maps.append(
                    AttentionMap(self.engine.module_path(), factor, made, transposed)
                )
                return (*args[:place], factor, *args[place + 1 :])
        return args


Places = Callable[[tuple[Any, ...]], list[tuple[int, bool]]]


def _einsum(args: tuple[Any, ...]) -> list[tuple[int, bool]]:
    """Find the factors whose last or last but one dimension is summed over."""
    if not isinstance(args[0], str) or len(args) != 3:
        return []
    inputs, _, output = args[0].replace(" ", "").partition("->")
    found = []
    for place, letters in enumerate(inputs.split(","), start=1):
        if letters[-1:] not in output and letters[-2:-1] in output:
            found.append((place, False))
        elif letters[-2:-1] not in output and letters[-1:] in output:
            found.append((place, True))
    return found


#: where products take factors that may be a map, and whether it is transposed there
_FACTORS: dict[str, Places] = {
    "einsum": _einsum,
    "matmul": lambda args: [(0, False), (1, True)],
    "bmm": lambda args: [(0, False), (1, True)],
    "baddbmm": lambda args: [(1, False), (2, True)],
}
