"""A model as a function of what it reads: the embeddings of its tokens, its pixels.

Token identifiers have no gradient and cannot be interpolated; their embeddings can. The
model is run as it is, on its identifiers, so that masks, positions and the last token
are those of the text; only what its embedding tables return for the identifiers is
replaced. Where an identifier went is followed as in
:mod:`~captum_transformer_lrp.known.identifiers`, through any shift or slice, in
this thread alone and without a hook.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .._copied import copied
from .._forms import SOUND_KEYS
from .._nested import tensors_in
from .._torch import DisableTorchFunction
from ..core.call import Call
from ..core.composites import ATTN_LRP
from ..core.installed import leave_mode
from ..core.table import table_for
from ..errors import InputError, LRPError
from ..known.compiled import Eagerly
from ..known.identifiers import Identifiers, Met
from .inputs import Inputs, Leaf, prepare_inputs, why_it_failed
from .scores import for_model, is_function, scores_of, select_scores

_TABLES = frozenset({"embedding", "getitem", "index", "index_select"})
_NO_EMBEDDING = (
    "the model looks several identifiers up together, or makes one-hot vectors of "
    "them, which have no embedding of their own. Explain it with AttnLRP or another "
    "method that goes back to identifiers, or what is looked up with a Layer class."
)


class _Codes(Identifiers):
    """Follows the place of each identifier: its number as real part of ``place + 1j``.

    What the model puts between the identifiers has no imaginary part.
    """

    def __init__(self, ids: Tensor) -> None:
        wide = torch.float32 if ids.device.type == "mps" else torch.float64
        place = torch.arange(ids.numel(), dtype=wide, device=ids.device)
        codes = torch.complex(place, torch.ones_like(place)).view(ids.shape)
        super().__init__(((ids, codes.requires_grad_()),), additive=False)
        self.arrived: tuple[Tensor, Tensor] | None = None
        self.refused = False  # wherever something of the sort is in the model

    def _is_table(self, operator: str, read: Tensor) -> bool:
        # no gradient tells here what the model computed: scores of the next token?
        return operator in _TABLES or isinstance(read, nn.Parameter)

    def _how_many(self, counts: Tensor) -> Tensor:
        return counts.detach().imag

    def _start(self, output: Tensor, counts: Tensor, table: Tensor) -> Tensor:
        counts = counts.detach()
        several = self._how_many(counts)
        if ((several > 0) & (several != 1)).any():
            raise InputError(_NO_EMBEDDING)
        dims = next(
            (
                d
                for d in range(counts.dim() + 1)
                if counts.shape[:d].numel() == counts.numel()
            ),
            0,
        )
        if counts.shape[:dims] != output.shape[:dims]:
            raise InputError(
                "the model reads the embeddings of identifiers in another order than "
                "(identifier, feature): table[:, ids]. Write table.t()[ids], or "
                "explain what is looked up with a Layer class."
            )
        self.arrived = table, counts.reshape(counts.shape[:dims])
        return output

    def _write_at(self, call: Call) -> Met:
        given = tensors_in((call.args[1:], call.kwargs))
        values = [t for t in given if t.is_floating_point()]
        if all((t == t.flatten()[:1]).all() for t in values):
            raise InputError(_NO_EMBEDDING)
        return False, None  # what the model computed, at places that they say

    def _refuse(self, output: Tensor, message: str) -> Tensor:
        self.refused = True
        return super()._refuse(output, message)


class _Reading(TorchFunctionMode):
    """Calls ``read`` with what embedding tables return for the followed identifiers."""

    def __init__(
        self, ids: Tensor, read: Callable[[Tensor, Tensor, Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.codes = _Codes(ids)
        self.table = table_for(ATTN_LRP)
        self.read = read

    def __exit__(self, *exception: Any) -> None:
        """Leave the stack of modes."""
        leave_mode(self)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Called by torch instead of ``func(*args, **kwargs)``."""
        kwargs = kwargs or {}
        operator = self.table.operator(func)
        codes = self.codes
        if not operator.follows or not any(
            codes.follows(t) for t in tensors_in((args, kwargs))
        ):
            return func(*args, **kwargs)
        # the codes are no part of the model: no other mode may see them
        with DisableTorchFunction(), torch.enable_grad():
            handled, output = codes.meet(operator, func, args, kwargs)
        if output is not None and not handled:  # what to run in its place
            with self:
                return output()
        if not handled:
            return func(*args, **kwargs)
        if codes.arrived is None:
            return output
        (table, places), codes.arrived = codes.arrived, None
        return self.read(table, places, output.detach())


@dataclass(eq=False)
class Lookup:
    """The embeddings of the identifiers in one table.

    Attributes:
        table (Tensor): the table.
        embeddings (Tensor): shape ``(batch, tokens, width)``.
        read (Tensor): True for identifiers that were looked up, ``(batch, tokens)``.
    """

    table: Tensor
    embeddings: Tensor
    read: Tensor


def look_up(ids: Tensor, run: Callable[[], Any]) -> tuple[list[Lookup], list[int], Any]:
    """Run a model and note what its tables return for its identifiers.

    A second look-up of the same identifiers in the same table, as encoder and decoder
    may do, is not told apart from the first.

    Args:
        ids (Tensor): the identifiers that ``run`` passes on, ``(batch, tokens)``.
        run (Callable): runs the model.

    Returns:
        The look-ups; for each look-up of the run in its order the number of the former;
        and what the model returned.

    Raises:
        InputError: no table looks the identifiers up, or they are used in ways that
            their embeddings do not tell: as numbers, several together, or one-hot.
    """
    found: list[Lookup] = []
    order: list[int] = []

    def read(table: Tensor, places: Tensor, output: Tensor) -> Tensor:
        known = places.imag.flatten() > 0.5
        index = places.real.flatten()[known].round().long()
        rows = output.reshape(places.numel(), -1)[known]
        new = Lookup(
            table,
            output.new_zeros(ids.numel(), rows.shape[-1]).index_put((index,), rows),
            torch.zeros_like(ids, dtype=torch.bool).flatten(),
        )
        new.read[index] = True
        for number, old in enumerate(found):
            both = old.read & new.read
            if (
                old.table is table or old.table.data_ptr() == table.data_ptr()
            ) and torch.equal(old.embeddings[both], new.embeddings[both]):
                old.embeddings[index] = rows
                old.read |= new.read
                order.append(number)
                return output
        order.append(len(found))
        found.append(new)
        return output

    reading = _Reading(ids, read)
    with torch.no_grad(), reading:
        output = run()
    if reading.codes.refused:
        _check_refused(ids, run)
    if not found:
        raise InputError(
            f"integers of shape {tuple(ids.shape)} that no embedding of the model "
            "looked up. Integer inputs are explained as token identifiers; pass other "
            "numbers as floating point."
        )
    for one in found:
        one.embeddings = one.embeddings.view(*ids.shape, -1)
        one.read = one.read.view(ids.shape)
    return found, order, output


def _check_refused(ids: Tensor, run: Callable[[], Any]) -> None:
    """Raise InputError if the output depends on what cannot be followed."""
    reading = _Reading(ids, lambda table, places, output: output)
    with torch.enable_grad(), reading:
        found = [t for t in tensors_in(run()) if t.requires_grad]
    if found:
        sums = [t.sum() for t in found]
        torch.autograd.grad(sums, reading.codes.leaves, allow_unused=True)


@dataclass(frozen=True)
class Slot:
    """Where an explained input goes in a call of the model.

    Attributes:
        name (str or None): its keyword; None for positional.
        order (tuple of int or None): as of :func:`look_up`, for identifiers.
        alone (bool): whether its first dimension is not that of examples, as of packed
            patches and of several pictures: its features have one in front of it.
    """

    name: str | None
    order: tuple[int, ...] | None = None
    alone: bool = False

    @property
    def width(self) -> int:
        """How many tensors of features it has."""
        return 1 if self.order is None else max(self.order) + 1


class InputFunction(nn.Module):
    """A model as a function of tensors, for the methods of Captum.

    It takes the features of each input (embeddings, one tensor per table, or another
    floating point input), then the identifiers of those that have some, then the
    further tensors of the call, all with the batch first, and returns the tensor of
    scores. A wrapper: the model inside is not changed.

    Args:
        forward_func (Callable): the model.
        slots (sequence of Slot): where the inputs go.
        names (sequence of str): the keywords of the further tensors, in their order.
        constants (Mapping): further keyword arguments.
        output_field (str, int or None): see :func:`~.scores.output_tensor`.
        target (Callable, optional): from the model's output to one score per example.
            Default: None, the tensor of scores is returned as it is
        rows (int, optional): how many rows go through the model at once, where the
            model or the target cannot take more. Default: None, all
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        *,
        slots: Sequence[Slot],
        names: Sequence[str],
        constants: Mapping[str, Any],
        output_field: str | int | None,
        target: Callable[[Any], Tensor] | None = None,
        rows: int | None = None,
    ) -> None:
        super().__init__()
        self.training = False
        self.forward_func = forward_func
        self.slots = tuple(slots)
        self.names = tuple(names)
        self.constants = dict(constants)
        self.output_field = output_field
        self.target = target
        self.rows = rows

    def forward(self, *tensors: Any) -> Tensor:
        """Return the scores, of the shape that the model gives them."""
        count = len(tensors[0])
        with Eagerly():
            if self.rows is None:
                return self._run(tensors)
            found = []
            for start in range(0, count, self.rows):
                some = [
                    x[start : start + self.rows]
                    if isinstance(x, Tensor) and x.dim() and len(x) == count
                    else x
                    for x in tensors
                ]
                scores = self._run(some)
                found.append(scores if scores.dim() else scores[None])
            return torch.cat(found)

    def _run(self, tensors: Sequence[Any]) -> Tensor:
        """Return the scores of rows that go through the model at once."""
        given = iter(tensors)
        features = [[next(given) for _ in range(slot.width)] for slot in self.slots]
        explained = []
        with ExitStack() as readings:
            for slot, some in zip(self.slots, features, strict=True):
                if slot.order is None:
                    explained.append(some[0][0] if slot.alone else some[0])
                    continue
                ids = next(given).clone()  # followed by its identity
                read = _replacing(slot.order, some)
                readings.enter_context(_Reading(ids, read))
                explained.append(ids)
            output = self.call(explained, *given)
            return scores_of(output, self.target, self.output_field)

    def call(self, explained: Sequence[Tensor], *rest: Any) -> Any:
        """Call the model with the explained inputs and copies of all further ones."""
        rest, constants = copied((rest, self.constants))
        named = {
            slot.name: value
            for slot, value in zip(self.slots, explained, strict=True)
            if slot.name is not None
        }
        if not named:
            return self.forward_func(*explained, *rest, **constants)
        named |= dict(zip(self.names, rest, strict=True))
        return self.forward_func(**named, **constants)


def _replacing(
    order: Sequence[int], embeddings: Sequence[Tensor]
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return what puts embeddings in place of what the tables return."""
    numbers = iter(order)

    def read(table: Tensor, places: Tensor, output: Tensor) -> Tensor:
        new = embeddings[next(numbers)].to(output.device)
        with DisableTorchFunction():
            index = places.real.round().long().flatten()
            trailing = [1] * (output.dim() - places.dim())
            known = places.imag.reshape(*places.shape, *trailing) > 0.5
            whole = bool(known.all())
            straight = whole and torch.equal(
                index, torch.arange(len(index), device=index.device)
            )
        if not straight:
            new = new.flatten(0, -2)
            new = new[index.clamp(0, len(new) - 1)]
        new = new.reshape(output.shape)
        return new if whole else torch.where(known, new, output)

    return read


@dataclass(frozen=True, eq=False)
class Features:
    """One explained input as numbers that a method of Captum can change.

    Attributes:
        name (str): of the input.
        values (tuple of Tensor): of identifiers their embeddings ``(batch, tokens,
            width)``, one tensor for each table that looks them up; else the input
            itself, with a dimension in front where it is ``alone`` (:class:`Slot`).
        baselines (tuple of Tensor): what they are compared with, of the same shapes.
        ids (Tensor or None): the identifiers; None for other inputs.
        replaced (Tensor or None): True for the tokens that the baseline replaces, of
            the shape of the identifiers; None for what has no identifiers.
        tokens (Tensor or None): True for the tokens that are no padding, ``(batch,
            tokens)``; None where that is not known.
        alone (bool): as of :class:`Slot`.
    """

    name: str
    values: tuple[Tensor, ...]
    baselines: tuple[Tensor, ...]
    ids: Tensor | None = None
    replaced: Tensor | None = None
    tokens: Tensor | None = None
    alone: bool = False

    @property
    def of_identifiers(self) -> bool:
        """Whether the input is token identifiers."""
        return self.ids is not None

    @property
    def of_sound(self) -> bool:
        """Whether the input is a waveform or a spectrogram, by its name."""
        named = self.name in SOUND_KEYS and not self.alone
        return named and self.values[0].dim() in (2, 3)

    def example(self, number: int) -> Features:
        """Return what one example has, as a batch of one."""
        at = slice(number, number + 1)
        changed: dict[str, Any] = {
            name: None if value is None else value[at]
            for name, value in (
                ("ids", self.ids),
                ("replaced", self.replaced),
                ("tokens", self.tokens),
            )
        }
        changed["values"] = tuple(x[at] for x in self.values)
        changed["baselines"] = tuple(x[at] for x in self.baselines)
        return replace(self, **changed)

    def in_form(self, attributions: Sequence[Tensor]) -> Tensor:
        """Return attributions of the values in the shape of the input.

        Those of embeddings are summed over their features; padding gets exactly 0.
        """
        found = attributions[0].detach()
        if self.of_identifiers:
            found = torch.stack([x.detach().sum(-1) for x in attributions]).sum(0)
        elif self.alone:
            found = found[0]
        if self.tokens is not None:
            trailing = [1] * (found.dim() - self.tokens.dim())
            mask = self.tokens.reshape(*self.tokens.shape, *trailing)
            found = torch.where(mask, found, torch.zeros_like(found))
        return found


@dataclass(frozen=True, eq=False)
class Prepared:
    """Inputs, ready for a method of Captum.

    Attributes:
        function (InputFunction): the model.
        inputs (tuple of Features): what it is a function of.
        rest (tuple): further arguments of ``function``.
        scores (Tensor): the explained scores, ``(batch,)``.
        target (Any): what is left to select of what the function returns; None where
            it returns these scores.
        given (Inputs): the inputs as they came.
    """

    function: InputFunction
    inputs: tuple[Features, ...]
    rest: tuple[Any, ...]
    scores: Tensor
    target: Any
    given: Inputs

    @property
    def features(self) -> tuple[Tensor, ...]:
        """All numbers that a method can change."""
        return tuple(x for one in self.inputs for x in one.values)

    @property
    def baselines(self) -> tuple[Tensor, ...]:
        """What they are compared with."""
        return tuple(x for one in self.inputs for x in one.baselines)

    @property
    def arguments(self) -> tuple[Any, ...]:
        """Further arguments of ``function``, those of the batch with it first."""
        ids = (one.ids for one in self.inputs if one.ids is not None)
        return (*ids, *self.rest)

    @property
    def examples(self) -> int:
        """The number of examples."""
        return int(self.features[0].shape[0])

    @property
    def of_each_value(self) -> Iterator[tuple[Features, Tensor, Tensor]]:
        """Yield each tensor of numbers with its input and baseline."""
        for one in self.inputs:
            for value, other in zip(one.values, one.baselines, strict=True):
                yield one, value, other

    def leaves(self) -> tuple[Tensor, ...]:
        """Return the features as new leaves of the graph."""
        return tuple(x.detach().clone().requires_grad_() for x in self.features)

    def in_one_call(self) -> InputFunction:
        """Return the function for a method that compares rows of one call, DeepLift.

        Raises:
            InputError: rows do not have the scores side by side that they have alone.
        """
        if self.function.rows is None:
            return self.function
        made = copy.copy(self.function)
        made.rows = None
        one_call = replace(self, function=made)
        alone = any(slot.alone for slot in made.slots)
        if alone or not _side_by_side(one_call):
            raise InputError(
                "DeepLift reads the input and its baseline as two examples of one "
                "batch, and the model or the target relates the examples of a batch to "
                "each other: take Integrated Gradients"
            )
        return made

    def example(self, number: int) -> Prepared:
        """Return what one example has, as a batch of one."""
        count = self.examples
        if count == 1:
            return self
        at = slice(number, number + 1)
        target = self.target
        if isinstance(target, Tensor) and target.dim() and len(target) == count:
            target = target[at]
        elif isinstance(target, list):
            target = target[at]
        function = self.function
        if function.rows is not None:
            function = copy.copy(function)
            function.rows = 1
        return replace(
            self,
            function=function,
            inputs=tuple(one.example(number) for one in self.inputs),
            rest=tuple(
                x[at] if isinstance(x, Tensor) and x.dim() and len(x) == count else x
                for x in self.rest
            ),
            scores=self.scores[at],
            target=target,
        )

    def in_form(self, attributions: Any) -> Any:
        """Return attributions of the features in the shapes and form of the inputs."""
        several = attributions if isinstance(attributions, tuple) else (attributions,)
        listed = iter(several)
        found = [one.in_form([next(listed) for _ in one.values]) for one in self.inputs]
        return self.given.restore(tuple(found))


def prepare(
    forward_func: Callable[..., Any],
    inputs: Any,
    target: Any,
    additional_forward_args: Any,
    *,
    baseline: Any,
    of_tokens: int | float = 0.0,
    keep: Sequence[int],
    output_field: str | int | None,
) -> Prepared:
    """Make inputs ready for a method of Captum.

    Args:
        forward_func (Callable): the model.
        inputs (Tensor, tuple of Tensor, or Mapping): as for
            :class:`~.transformer_lrp.TransformerLRP`.
        target (int, tuple, Tensor or list, or Callable): as Captum takes it, or a
            function of the model's output.
        additional_forward_args (Any): further positional arguments.
        baseline (int, float, Tensor, or Mapping or tuple of them; or None): what each
            input is compared with, see :func:`baseline_of`.
        of_tokens (int or float, optional): what identifiers are compared with, where
            ``baseline`` does not say. Default: 0.0
        keep (sequence of int): identifiers that are not replaced.
        output_field (str, int or None): see :func:`~.scores.output_tensor`.

    Raises:
        InputError, TargetError, OutputError: see these classes.
    """
    given = prepare_inputs(inputs, additional_forward_args)
    target = for_model(target, forward_func)
    examples = given.examples
    _check_names(baseline, given)
    of_batch = {
        name: value
        for name, value in given.keywords.items()
        if isinstance(value, Tensor) and value.dim() and len(value) == examples
    }
    function = is_function(target)
    by_name = given.form == "mapping"
    slots = [
        Slot(leaf.name if by_name else None, alone=_alone(leaf, given))
        for leaf in given.leaves
    ]
    own = function and not hasattr(target, "for_model")  # may know one batch alone
    options: dict[str, Any] = {
        "names": tuple(of_batch),
        "constants": {k: v for k, v in given.keywords.items() if k not in of_batch},
        "output_field": output_field,
        "target": target if function else None,
        "rows": examples if own or any(slot.alone for slot in slots) else None,
    }
    rest: tuple[Any, ...] = (*given.arguments, *of_batch.values())
    plain = InputFunction(forward_func, slots=slots, **options)
    explained = [leaf.given.detach() for leaf in given.leaves]

    def with_one(number: int) -> Callable[[Tensor], Any]:
        """Return what runs the model with one input as it is given there."""

        def run(value: Tensor) -> Any:
            values = [x.clone() for x in explained]
            values[number] = value
            with Eagerly():
                return plain.call(values, *rest)

        return run

    try:
        if not any(leaf.is_identifier for leaf in given.leaves):
            with torch.no_grad():
                output = with_one(0)(explained[0].clone())
        found = []
        for number, leaf in enumerate(given.leaves):
            other = baseline_of(baseline, number, given, of_tokens)
            if not leaf.is_identifier:
                found.append(_as_it_is(leaf, other, slots[number].alone))
                continue
            ids, run = explained[number].clone(), with_one(number)
            lookups, order, output = look_up(ids, partial(run, ids))
            slots[number] = replace(slots[number], order=tuple(order))
            tokens = _tokens_of(leaf)
            replaced = torch.ones_like(ids, dtype=torch.bool)
            if tokens is not None:
                trailing = [1] * (ids.dim() - tokens.dim())
                replaced = replaced & tokens.reshape(*tokens.shape, *trailing)
            replaced = replaced & ~torch.isin(ids, ids.new_tensor(list(keep)))
            others = _embedded(ids, other, replaced, lookups, run)
            found.append(
                Features(
                    name=leaf.name,
                    values=tuple(one.embeddings for one in lookups),
                    baselines=others,
                    ids=explained[number],
                    replaced=replaced,
                    tokens=tokens,
                )
            )
        scores = select_scores(
            scores_of(output, target, output_field), target, examples=examples
        )
    except RuntimeError as error:
        clearer = why_it_failed(error, forward_func, given)
        if clearer is None:
            raise
        raise clearer from error
    made = Prepared(
        function=InputFunction(forward_func, slots=slots, **options),
        inputs=tuple(found),
        rest=rest,
        scores=scores.detach(),
        target=None if function else target,
        given=given,
    )
    if made.function.rows is None and len(found) > 1 and not _side_by_side(made):
        made.function.rows = examples
    return made


@torch.no_grad()
def _side_by_side(prepared: Prepared) -> bool:
    """Whether rows have the scores side by side that they have alone.

    They have not where a model relates the rows of its inputs to each other, as CLIP
    each text to each picture.
    """

    def scores(values: Sequence[Tensor], times: int) -> Tensor:
        arguments = [
            torch.cat([x] * times)
            if isinstance(x, Tensor) and x.dim() and len(x) == count
            else x
            for x in prepared.arguments
        ]
        target = prepared.target
        if isinstance(target, Tensor) and target.numel() == count:
            target = torch.cat([target.reshape(-1)] * times)
        elif isinstance(target, list):
            target = target * times
        output = prepared.function(*values, *arguments)
        found: Tensor = select_scores(output, target, examples=times * count)
        return found

    count = prepared.examples
    pairs = zip(prepared.features, prepared.baselines, strict=True)
    try:
        alone = [scores(x, 1) for x in (prepared.features, prepared.baselines)]
        together = scores([torch.cat(pair) for pair in pairs], 2)
    except (LRPError, RuntimeError, IndexError, ValueError):
        return False
    expected = torch.cat([x.reshape(-1) for x in alone])
    if together.shape != expected.shape:
        return False
    error = (together - expected).abs().max()
    return bool(error <= 1e-3 * expected.abs().max())


def _alone(leaf: Leaf, given: Inputs) -> bool:
    """Whether the first dimension of an input is not that of examples.

    Raises:
        InputError: there are several examples, or it is identifiers.
    """
    x, examples = leaf.given, given.examples
    if len(given.leaves) == 1 or (x.dim() and len(x) == examples):
        return False
    if examples > 1 or leaf.is_identifier:
        raise InputError(
            f"{leaf.name} has shape {tuple(x.shape)} where "
            f"{given.leaves[0].name} has {examples} example(s), so that what belongs "
            "to which is not known: explain one example at a time"
        )
    return True


def _tokens_of(leaf: Leaf) -> Tensor | None:
    """Return True for the tokens that are no padding, ``(batch, tokens)``."""
    keep = leaf.keep
    if keep is None:
        return None
    while keep.dim() > 2 and not leaf.is_identifier and keep.shape[-1] == 1:
        keep = keep[..., 0]
    return keep.bool()


def _as_it_is(leaf: Leaf, other: int | float | Tensor, alone: bool) -> Features:
    """Return an input of numbers."""
    x = leaf.given.detach()
    value = torch.as_tensor(other, dtype=x.dtype).to(x)
    try:
        value = value.expand_as(x).clone()
    except RuntimeError as error:
        raise InputError(
            f"the baseline of {leaf.name} has shape {tuple(value.shape)}; expected "
            f"{tuple(x.shape)}, or what can be broadcast to it"
        ) from error
    return Features(
        name=leaf.name,
        values=(x[None] if alone else x,),
        baselines=(value[None] if alone else value,),
        tokens=_tokens_of(leaf),
        alone=alone,
    )


def _embedded(
    ids: Tensor,
    other: int | float | Tensor,
    replaced: Tensor,
    lookups: Sequence[Lookup],
    run: Callable[[Tensor], Any],
) -> tuple[Tensor, ...]:
    """Return the embeddings that identifiers are compared with."""
    if isinstance(other, int):
        instead = torch.where(replaced, ids.new_tensor(other), ids)
        found, _, _ = look_up(instead, partial(run, instead))
        if len(found) != len(lookups):
            raise InputError(
                f"the model looks up {len(lookups)} embeddings of the text and "
                f"{len(found)} of its baseline of identifiers {other}: take "
                "baseline=0.0 instead"
            )
        values = [one.embeddings for one in found]
    else:
        values = [torch.full_like(x.embeddings, float(other)) for x in lookups]
    return tuple(
        torch.where(replaced[..., None], value, one.embeddings)
        for one, value in zip(lookups, values, strict=True)
    )


def baseline_of(
    baseline: Any, number: int, given: Inputs, of_tokens: int | float
) -> int | float | Tensor:
    """Return what one input is compared with.

    Args:
        baseline (int, float, Tensor, or Mapping or tuple of them; or None): of a single
            input its value. Of several: by name (or by place) what is said of each; an
            ``int`` is an identifier, for token identifiers alone; a tensor is for all
            others alone; a ``float`` is for all.
        number (int): which of the inputs.
        given (Inputs): all of them.
        of_tokens (int or float): for identifiers, where nothing else is said; 0.0 for
            other inputs.
    """
    leaf, several = given.leaves[number], len(given.leaves) > 1
    if isinstance(baseline, Mapping):
        baseline, several = baseline.get(leaf.name), False
    elif isinstance(baseline, tuple):
        baseline, several = baseline[number], False
    if several:
        of_ids = not isinstance(baseline, Tensor)
        if not (of_ids if leaf.is_identifier else not isinstance(baseline, int)):
            baseline = None
    if baseline is None:
        return of_tokens if leaf.is_identifier else 0.0
    found: int | float | Tensor = baseline
    return found


def _check_names(baseline: Any, given: Inputs) -> None:
    """Raise InputError where a baseline is for other inputs than there are."""
    names = [leaf.name for leaf in given.leaves]
    if isinstance(baseline, Mapping):
        wrong = [name for name in baseline if name not in names]
        if wrong:
            raise InputError(
                f"baseline= names {wrong[0]!r}, and the inputs to explain are "
                f"{', '.join(names)}"
            )
    elif isinstance(baseline, tuple) and len(baseline) != len(names):
        raise InputError(
            f"baseline= has {len(baseline)} values for {len(names)} input(s) to "
            "explain: expected one for each"
        )
