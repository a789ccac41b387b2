"""One forward and one backward pass through the engine."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._nested import map_tensors, tensors_in
from .._torch import HIGHER_ORDER, DisableTorchFunction, node_outputs
from ..carried.positive import PositiveProduct
from ..classic.contributions import AlphaBeta, ZPlus
from ..core.composites import Composite
from ..core.engine import Engine
from ..core.rules.linear import Detach
from ..core.table import RuleTable
from ..errors import (
    DisconnectedError,
    DropoutWarning,
    HalfPrecisionWarning,
    InputError,
    LRPError,
    ModelStateError,
    TargetError,
)
from ..known.beginning import Beginning
from ..known.refusals import refuse_replicas
from ..observers.observed import ObservedEngine, Observer
from ..observers.taps import Taps
from ..observers.trace import Tracing
from .inputs import Inputs, prepare_inputs, why_it_failed
from .places import Arriving, Place, check_order, go_through, leads_back_to, read_off
from .precision import Raised
from .scores import (
    check_pairs,
    for_model,
    is_function,
    scores_of,
    select_scores,
)
from .units import Selector, Unit

#: rules that take sums of positive and of negative contributions apart
_BY_SIGN = (AlphaBeta, PositiveProduct, ZPlus)
#: places in a message
_NAMED_AT_MOST = 6


@dataclass(frozen=True)
class Explained:
    """What one pass gives.

    Attributes:
        inputs (Inputs): what was explained.
        scores (Tensor): the explained score of each example, detached.
        gradients (tuple): for each leaf, then each further tensor that was asked for;
            None where no relevance arrived.
        engine (Engine): the engine that ran.
        places (tuple of Place): what was to be read off.
    """

    inputs: Inputs
    scores: Tensor
    gradients: tuple[Tensor | None, ...]
    engine: Engine
    places: tuple[Place, ...] = ()


@dataclass(frozen=True, eq=False)
class Start:
    """Relevance starts at parts of a layer instead of the output.

    Attributes:
        unit (Unit): the layer.
        selector (Selector): its parts.
    """

    unit: Unit
    selector: Selector


def explain_once(
    forward_func: Callable[..., Any],
    inputs: Any,
    target: Any,
    additional_forward_args: Any,
    *,
    composite: Composite,
    output_field: str | int | None,
    unknown: str | None,
    observers: Sequence[Observer] = (),
    start: Start | None = None,
    through: Mapping[Unit, Selector] | None = None,
    read: Sequence[Unit] = (),
    wanted: Callable[[Engine], list[Tensor]] | None = None,
) -> Explained:
    """Run the model once under a composite and go back from its score.

    Args:
        forward_func (Callable): the model or a function of it.
        inputs (Tensor, tuple of Tensor, or Mapping): what is explained.
        target (int, tuple, Tensor or list): as Captum takes it.
        additional_forward_args (Any): further positional arguments.
        composite (Composite): the rules.
        output_field (str, int or None): see :func:`~.scores.output_tensor`.
        unknown (str or None): what to do with operators without a rule.
        observers (sequence of Observer, optional): who watches. Default: nobody
        start (Start, optional): where relevance starts. Default: at the target's score
        through (Mapping, optional): only relevance that passes these parts goes on.
            Default: None
        read (sequence of Unit, optional): where relevance is read off, instead of at
            the inputs. Default: none
        wanted (Callable, optional): called after the forward pass with the engine;
            returns further tensors, whose gradients follow those of the inputs.
            Default: None

    Raises:
        InputError, TargetError, OutputError, UnknownOperatorError, ModelStateError,
            UnitError: see these classes.
        DisconnectedError: if no input can receive relevance.
    """
    places = [Place(unit) for unit in read]
    gates = [Place(unit, selector) for unit, selector in (through or {}).items()]
    source = None if start is None else Place(start.unit, start.selector)
    everywhere = [*places, *gates, *([] if source is None else [source])]
    taps = None
    if everywhere:
        until = None if source is None else source.until()
        taps = Taps([tap for place in everywhere for tap in place.taps], until)
    with run_once(
        forward_func,
        inputs,
        additional_forward_args,
        composite=composite,
        unknown=unknown,
        observers=observers,
        taps=taps,
    ) as (engine, prepared, output):
        with DisableTorchFunction():
            for place in everywhere:
                place.find(engine)
        if source is None:
            scores = engine_scores(engine, prepared, output, target, output_field)
        else:
            with DisableTorchFunction():
                scores = source.scores(prepared.examples)
                engine.check(scores)
        further = [] if wanted is None else wanted(engine)
        del output
        if not scores.requires_grad:
            raise disconnected(engine, prepared)
        arriving = Arriving([scores])
        if everywhere:
            check_order(source, gates, places)
            arriving = go_through(engine, scores, gates, prepared.examples)
        if places:
            arrived = read_off(engine, arriving, places)
            leaves = [leaf.leaf for leaf in prepared.leaves]
            if not arrived and not leads_back_to(arriving.tensors, leaves):
                raise disconnected(engine, prepared)
            gradients: tuple[Tensor | None, ...] = (None,) * len(prepared.leaves)
        else:
            gradients = _go_back(engine, arriving, prepared, further)
    return Explained(prepared, scores.detach(), gradients, engine, tuple(places))


@contextmanager
def run_once(
    forward_func: Callable[..., Any],
    inputs: Any,
    additional_forward_args: Any,
    *,
    composite: Composite,
    unknown: str | None,
    observers: Sequence[Observer] = (),
    taps: Taps | None = None,
    root: nn.Module | None = None,
    dtype: torch.dtype | None = None,
    **engine_options: Any,
) -> Iterator[tuple[Engine, Inputs, Any]]:
    """Run the model under a composite; within the block, go back through its graph.

    Args:
        forward_func (Callable): the model or a function of it.
        inputs (Tensor, tuple of Tensor, or Mapping): what is explained.
        additional_forward_args (Any): further positional arguments.
        composite (Composite): the rules.
        unknown (str or None): what to do with operators without a rule.
        observers (sequence of Observer, optional): who watches. Default: nobody
        taps (Taps, optional): what is read off on the way. Default: nothing
        root (Module, optional): whose names modules have. Default: ``forward_func``, if
            it is a module
        dtype (torch.dtype, optional): compute in this dtype at least. Default: None
        engine_options (Any): passed on to the engine.

    Yields:
        The engine, the inputs, and what the model returned.
    """
    if root is None and isinstance(forward_func, nn.Module):
        root = forward_func
    owner = getattr(forward_func, "__self__", None)  # of model.forward
    if isinstance(owner, nn.DataParallel):
        refuse_replicas(owner)
    with torch.enable_grad(), DisableTorchFunction():  # in another engine
        prepared = prepare_inputs(inputs, additional_forward_args)
        identifiers = prepared.identifiers()
    engine_options |= {"root": root, "unknown": unknown, "identifiers": identifiers}
    if not observers and taps is None:
        engine = Engine(composite, **engine_options)
    else:
        engine = ObservedEngine(
            composite, observers=observers, taps=taps, **engine_options
        )
    with engine:
        for leaf in prepared.leaves:
            if not leaf.is_identifier:
                engine.tape.start(leaf.leaf, leaf.passed)
        with nullcontext() if dtype is None else Raised(dtype):
            output = engine.arrived(_run(forward_func, prepared))
        half = dtype is None and _divides_by_differences(engine.table)
        half = half and _in_half(output)
        yield engine, prepared, output
    if half:
        warnings.warn(
            f"{engine.composite.name} divides by differences of sums, which half "
            "precision does not hold: maps may be off by more than their largest "
            "value. Compute in more: dtype=torch.float64 (or float32) where the method "
            "takes it, as CheferLRP does, or explain a copy of the model and inputs, "
            "copy.deepcopy(model).double().",
            HalfPrecisionWarning,
            stacklevel=6,
        )
    if engine.dropout_seen:
        warnings.warn(
            "dropout was active while the model was explained: the relevance is that "
            "of one random draw. Call model.eval() to explain the deterministic model.",
            DropoutWarning,
            stacklevel=8,
        )


def engine_scores(
    engine: Engine,
    prepared: Inputs,
    output: Any,
    target: Any,
    output_field: str | int | None,
) -> Tensor:
    """Return the explained score of each example, and check the way to it.

    Where the target is a function, relevance starts at what the function reads, each
    number times the function's gradient there, which for sums, means and differences of
    scores are their shares; what that leaves of the score is a constant of it.

    Raises:
        TargetError, OutputError, UnknownOperatorError: see these classes.
    """
    target = for_model(target, engine.root)
    with DisableTorchFunction():
        if is_function(target):
            scores = _linear(engine, target, output, prepared.examples)
            engine.check(scores)
            return scores
        tensor = scores_of(output, None, output_field)
        if len(prepared.leaves) > 1:
            check_pairs(output, tensor, target)
        scores = select_scores(tensor, target, examples=prepared.examples)
        engine.beginning = Beginning.of(engine, tensor, scores)
        engine.check(scores)
    return scores


def _linear(
    engine: Engine, target: Callable[[Any], Any], output: Any, examples: int
) -> Tensor:
    """Return the scores of a target, with its gradient at what it reads.

    Of an activation that is not 0 at 0 only what is beyond its value there is
    explained, as :class:`.Beginning` says. Where relevance itself goes back, a number
    receives its share of the score.
    """
    given: list[Tensor] = []
    leaves: list[Tensor] = []

    def leaf(tensor: Tensor) -> Tensor:
        if not (tensor.requires_grad and tensor.is_floating_point()):
            return tensor
        given.append(tensor)
        leaves.append(tensor.detach().requires_grad_())
        return leaves[-1]

    seen = map_tensors(leaf, output)
    scores = select_scores(scores_of(seen, target, None), target, examples=examples)
    scores = scores.reshape(-1)
    if not scores.requires_grad:
        return scores
    gradients = torch.autograd.grad(scores.sum(), leaves, allow_unused=True)
    values = scores.detach()
    total = torch.zeros_like(values)
    for tensor, value, gradient in zip(given, leaves, gradients, strict=True):
        if gradient is None:
            continue
        if len(gradient) != len(values):
            raise TargetError(
                f"the target {target!r} reads a tensor of shape {tuple(tensor.shape)} "
                f"for {len(values)} example(s); expected the examples in dimension 0. "
                "Explain one example at a time."
            )
        value = value.detach()
        found = Beginning.of(engine, tensor, values)
        if found is not None:
            beyond = (value - found.at_zero) / value
            gradient = gradient * torch.where(value == 0, 1.0, beyond)
        if engine.composite.converts:
            whole = values.view(-1, *[1] * (value.dim() - 1))
            gradient = torch.where(gradient == 0, 0, value * gradient / whole)
        # logits may be minus infinity where the target does not look
        product = torch.where(gradient == 0, 0, tensor * gradient)
        total = total + product.flatten(1).sum(1).to(values)
    return total + (values - total.detach())


def check_callable(method: object, forward_func: Any) -> None:
    """Raise TypeError if a method was given something that cannot be called."""
    if not callable(forward_func):
        raise TypeError(
            f"{type(method).__name__} got a {type(forward_func).__name__}; expected "
            "a torch.nn.Module or another callable that returns scores."
        )


def _run(forward_func: Callable[..., Any], prepared: Inputs) -> Any:
    try:
        return prepared.call(forward_func)
    except LRPError:
        raise
    except Exception as error:
        if _of_higher_order(error):
            raise ModelStateError(
                "the model calls an operator that takes functions (torch.cond, "
                "torch.while_loop, scan or map), which torch traces where no rule can "
                "see it. Write it in python: `if` for torch.cond, or a loop."
            ) from error
        if not isinstance(error, RuntimeError):
            raise
        clearer = why_it_failed(error, forward_func, prepared)
        if clearer is None:
            raise
        raise clearer from error


@functools.lru_cache(maxsize=64)
def _divides_by_differences(table: RuleTable) -> bool:
    """Whether dense layers divide by what half precision has rounded away.

    Convolutions, of which there is one or few in front, were measured to be harmless.
    """
    rows = [(k, row) for layer in table.layers for k, row in layer.items()]
    return any(
        isinstance(getattr(row, "otherwise", None) or row, _BY_SIGN)
        and not (isinstance(key, str) and key.startswith("conv"))
        for key, row in rows
    )


def _in_half(output: Any) -> bool:
    """Whether anything on the way to a model's output was in half precision."""
    pending: list[Any] = [tensor.grad_fn for tensor in tensors_in(output)]
    seen = {None}
    while pending:
        node = pending.pop()
        if node not in seen:
            seen.add(node)
            made = node_outputs(node)
            if any(one.dtype in (torch.float16, torch.bfloat16) for one in made):
                return True
            pending += [parent for parent, _ in node.next_functions]
    return False


def _of_higher_order(error: Exception) -> bool:
    """Whether an error comes out of an operator of torch that takes functions."""
    frames = error.__traceback__
    while frames is not None:
        module = frames.tb_frame.f_globals.get("__name__", "")
        if str(module).startswith(HIGHER_ORDER):
            return True
        frames = frames.tb_next
    return False


def _go_back(
    engine: Engine, arriving: Arriving, prepared: Inputs, further: list[Tensor]
) -> tuple[Tensor | None, ...]:
    tensors = [*(leaf.leaf for leaf in prepared.leaves), *further]
    gradients = engine.gradients(arriving.tensors, tensors, seeds=arriving.seeds)
    if all(g is None for g in gradients):
        raise disconnected(engine, prepared)
    for leaf, gradient in zip(prepared.leaves, gradients, strict=False):
        if gradient is None and leaf.is_identifier and not engine.identifiers.read:
            raise InputError(
                f"{leaf.name} holds integers of shape {tuple(leaf.given.shape)}, but "
                "no embedding of the model looked them up. Integer inputs are "
                "explained as token identifiers; pass pixels and other numbers as "
                "floating point."
            )
    return gradients


def disconnected(engine: Engine, prepared: Inputs) -> LRPError:
    """Return the error for a score that no input can receive relevance of."""
    names = ", ".join(leaf.name for leaf in prepared.leaves)
    if prepared.identifiers() and not engine.identifiers.read:
        return InputError(
            f"{names}: integers that no embedding of the model looked up. Integer "
            "inputs are explained as token identifiers; pass other numbers as floating "
            "point."
        )
    method = engine.composite.name
    cuts = [c for o in engine.observers if isinstance(o, Tracing) for c in o.cuts]
    lines = [
        f"the score does not depend on {names} through operators that {method} lets "
        "relevance pass."
    ]
    if isinstance(engine.composite.rows.get("softmax"), Detach):
        lines[0] += (
            f" Explain logits rather than probabilities ({method} treats softmaxes and "
            "exponentials as constants, AttnLRP does not)."
        )
    lines[0] += " To find the place, look for detach(), torch.no_grad() and "
    if cuts:
        lines[0] += "the like. The model itself cuts relevance off here:"
        lines += [f"  {cut}" for cut in cuts[:_NAMED_AT_MOST]]
        if len(cuts) > _NAMED_AT_MOST:
            lines.append(f"  and {len(cuts) - _NAMED_AT_MOST} more")
        lines.append(
            "Explain a score of what comes before, or write what lies on the way to "
            "the score with operators that have a gradient."
        )
    else:
        lines[0] += "steps (sign, round) in the model."
    return DisconnectedError("\n".join(lines))
