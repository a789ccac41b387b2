"""A model as a function of what it reads: the embeddings of its tokens, or its pixels.

Token identifiers have no gradient and cannot be interpolated; their embeddings can. The
model is run as it is, on its identifiers, so that masks, positions and the last token
are those of the text; only what its embedding tables return for the identifiers is
replaced. Where an identifier went is followed as in
:mod:`~captum_transformer_lrp.known.identifiers`, through any shift or slice, in
this thread alone and without a hook.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from ..errors import InputError
from ..known.compiled import Eagerly
from ..known.identifiers import Identifiers, Met
from .inputs import prepare_inputs, why_it_failed
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


class InputFunction(nn.Module):
    """A model as a function of tensors, for the methods of Captum.

    It takes embeddings (one tensor per table) or another floating point input, then the
    further tensors of the call, all with the batch first, and returns the tensor of
    scores. A wrapper: the model inside is not changed.

    Args:
        forward_func (Callable): the model.
        name (str or None): the keyword of the explained input; None for positional.
        names (sequence of str): the keywords of the further tensors, in their order.
        constants (Mapping): further keyword arguments.
        output_field (str, int or None): see :func:`~.scores.output_tensor`.
        target (Callable, optional): from the model's output to one score per example.
            Default: None, the tensor of scores is returned as it is
        order (sequence of int, optional): as of :func:`look_up`, for identifiers, which
            are then the first further tensor. Default: None
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        *,
        name: str | None,
        names: Sequence[str],
        constants: Mapping[str, Any],
        output_field: str | int | None,
        target: Callable[[Any], Tensor] | None = None,
        order: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.training = False
        self.forward_func = forward_func
        self.name = name
        self.names = tuple(names)
        self.constants = dict(constants)
        self.output_field = output_field
        self.target = target
        self.order = order

    def forward(self, *tensors: Any) -> Tensor:
        """Return the scores, of the shape that the model gives them."""
        with Eagerly():
            if self.order is None:
                return self._scores(self.call(*tensors))
            width = max(self.order) + 1
            embeddings, (ids, *rest) = tensors[:width], tensors[width:]
            ids = ids.clone()  # followed by its identity
            with _Reading(ids, self._replacing(embeddings)):
                return self._scores(self.call(ids, *rest))

    def _scores(self, output: Any) -> Tensor:
        return scores_of(output, self.target, self.output_field)

    def call(self, explained: Tensor, *rest: Any) -> Any:
        """Call the model with the explained input and copies of all further ones."""
        rest, constants = copied((rest, self.constants))
        if self.name is None:
            return self.forward_func(explained, *rest, **constants)
        named = {self.name: explained, **dict(zip(self.names, rest, strict=True))}
        return self.forward_func(**named, **constants)

    def _replacing(
        self, embeddings: Sequence[Tensor]
    ) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """Return what puts embeddings in place of what the tables return."""
        assert self.order is not None
        numbers = iter(self.order)

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
                index = index.clamp(0, new.shape[0] * new.shape[1] - 1)
                new = new.flatten(0, 1)[index]
            new = new.reshape(output.shape)
            return new if whole else torch.where(known, new, output)

        return read


@dataclass(frozen=True, eq=False)
class Prepared:
    """One input, ready for a method of Captum.

    Attributes:
        function (InputFunction): the model.
        features (tuple of Tensor): what it is a function of, ``(batch, tokens, width)``
            per table, or the input itself.
        baselines (tuple of Tensor): of the same shapes.
        arguments (tuple): further arguments of ``function``, with the batch first.
        scores (Tensor): the explained scores, ``(batch,)``.
        target (Any): what is left to select of what the function returns; None where
            it returns these scores.
        replaced (Tensor or None): True for the tokens that the baseline replaces,
            ``(batch, tokens)``; None for what has no tokens.
        tokens (Tensor or None): True for the tokens that are no padding.
        of_identifiers (bool): whether the input is token identifiers.
        in_tuple (bool): whether the input was given in a tuple.
    """

    function: InputFunction
    features: tuple[Tensor, ...]
    baselines: tuple[Tensor, ...]
    arguments: tuple[Any, ...]
    scores: Tensor
    target: Any
    replaced: Tensor | None
    tokens: Tensor | None
    of_identifiers: bool
    in_tuple: bool

    @property
    def examples(self) -> int:
        """The number of examples."""
        return int(self.features[0].shape[0])

    @property
    def of_sound(self) -> bool:
        """Whether the input is a waveform or a spectrogram, by its name."""
        named = self.function.name in SOUND_KEYS
        return named and self.features[0].dim() in (2, 3)

    def leaves(self) -> tuple[Tensor, ...]:
        """Return the features as new leaves of the graph."""
        return tuple(x.detach().clone().requires_grad_() for x in self.features)

    def in_form(self, attributions: Any) -> Any:
        """Return attributions of the features in the shape and form of the inputs.

        Those of embeddings are summed over their features; padding gets exactly 0.
        """
        several = attributions if isinstance(attributions, tuple) else (attributions,)
        found = several[0].detach()
        if self.of_identifiers:
            sums = [x.detach().sum(-1) for x in several]
            found = torch.stack(sums).sum(0)
        if self.tokens is not None:
            mask = self.tokens.reshape(
                *self.tokens.shape, *[1] * (found.dim() - self.tokens.dim())
            )
            found = torch.where(mask, found, torch.zeros_like(found))
        return (found,) if self.in_tuple else found


def prepare(
    forward_func: Callable[..., Any],
    inputs: Any,
    target: Any,
    additional_forward_args: Any,
    *,
    baseline: int | float | Tensor,
    keep: Sequence[int],
    output_field: str | int | None,
) -> Prepared:
    """Make one input ready for a method of Captum.

    Args:
        forward_func (Callable): the model.
        inputs (Tensor, tuple of one Tensor, or Mapping): as for
            :class:`~.transformer_lrp.TransformerLRP`, with one explained entry.
        target (int, tuple, Tensor or list, or Callable): as Captum takes it, or a
            function of the model's output.
        additional_forward_args (Any): further positional arguments.
        baseline (int, float or Tensor): for identifiers the one that replaces tokens,
            or a float, which every feature of the embedding is set to; for other inputs
            the value or the tensor that they are compared with.
        keep (sequence of int): identifiers that are not replaced.
        output_field (str, int or None): see :func:`~.scores.output_tensor`.

    Raises:
        InputError, TargetError, OutputError: see these classes.
    """
    given = prepare_inputs(inputs, additional_forward_args)
    target = for_model(target, forward_func)
    if len(given.leaves) != 1:
        names = ", ".join(leaf.name for leaf in given.leaves)
        raise InputError(
            f"expected one input to explain, got {names}: pass the others by "
            "additional_forward_args, or use TransformerLRP, which explains several"
        )
    (leaf,) = given.leaves
    explained, examples = leaf.given.detach(), given.examples
    of_batch = {
        name: value
        for name, value in given.keywords.items()
        if isinstance(value, Tensor) and value.dim() and len(value) == examples
    }
    options: dict[str, Any] = {
        "name": leaf.name if given.form == "mapping" else None,
        "names": tuple(of_batch),
        "constants": {k: v for k, v in given.keywords.items() if k not in of_batch},
        "output_field": output_field,
        "target": target if is_function(target) else None,
    }
    arguments: tuple[Any, ...] = (*given.arguments, *of_batch.values())
    plain = InputFunction(forward_func, **options)
    tokens = None
    if leaf.keep is not None:
        tokens = leaf.keep.reshape(explained.shape[:2]).bool()

    def run(ids: Tensor) -> Any:
        with Eagerly():
            return plain.call(ids, *arguments)

    try:
        if not leaf.is_identifier:
            with torch.no_grad():
                output = run(explained.clone())
            scores = select_scores(
                scores_of(output, target, output_field), target, examples=examples
            )
            value = torch.as_tensor(baseline, dtype=explained.dtype).to(explained)
            return Prepared(
                function=plain,
                features=(explained,),
                baselines=(value.expand_as(explained).clone(),),
                arguments=arguments,
                scores=scores.detach(),
                target=None if is_function(target) else target,
                replaced=None,
                tokens=tokens,
                of_identifiers=False,
                in_tuple=given.form == "tuple",
            )
        ids = explained.clone()
        lookups, order, output = look_up(ids, lambda: run(ids))
        scores = select_scores(
            scores_of(output, target, output_field), target, examples=examples
        )
        replaced = torch.ones_like(ids, dtype=torch.bool) if tokens is None else tokens
        replaced = replaced & ~torch.isin(ids, ids.new_tensor(list(keep)))
        if isinstance(baseline, int):
            other = torch.where(replaced, ids.new_tensor(baseline), ids)
            found, _, _ = look_up(other, lambda: run(other))
            if len(found) != len(lookups):
                raise InputError(
                    f"the model looks up {len(lookups)} embeddings of the text and "
                    f"{len(found)} of its baseline of identifiers {baseline}: take "
                    "baseline=0.0 instead"
                )
            values = [one.embeddings for one in found]
        else:
            values = [torch.full_like(x.embeddings, float(baseline)) for x in lookups]
    except RuntimeError as error:
        clearer = why_it_failed(error, forward_func, given)
        if clearer is None:
            raise
        raise clearer from error
    return Prepared(
        function=InputFunction(forward_func, **options, order=order),
        features=tuple(one.embeddings for one in lookups),
        baselines=tuple(
            torch.where(replaced[..., None], value, one.embeddings)
            for one, value in zip(lookups, values, strict=True)
        ),
        arguments=(explained, *arguments),
        scores=scores.detach(),
        target=None if is_function(target) else target,
        replaced=replaced,
        tokens=tokens,
        of_identifiers=True,
        in_tuple=given.form == "tuple",
    )
