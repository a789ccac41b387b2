"""What every operator received, passed on and absorbed: how to check an architecture.

A tracing engine hands each operator aliases of its inputs, so that the gradient at an
alias is that operator's alone, and a copy of its output to the model. With g the
modified gradient, the relevance that enters at the output is ``sum(g * output)``, the
relevance that leaves at the inputs ``sum(g * input)``, and the difference is what the
operator absorbed: a bias, a constant added (a position embedding), a stabiliser, or
what a rule that does not conserve has changed. The part of it that is due to constants
is measured apart (:mod:`.constants`): the rest was lost. So of every score::

    score = relevance at the inputs + taken by constants + lost by rules + unseen

with ``unseen`` what went where no operator was seen. The last two are 0 where relevance
is conserved: relative to the score their sum is :attr:`Trace.conservation_error`, the
one number that a trace, :func:`~captum_transformer_lrp.check`, ``attribute`` and the
table of architectures share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .._torch import DisableTorchFunction
from .call import map_tensors, tensors_in
from .composites import Composite
from .constants import constant_part, written_by_constants
from .cuts import Cut, cut_by
from .engine import Beginning, Engine
from .gates import Activation
from .gradients import part_of_zero
from .rules import Identity, PlainGradient, Rule
from .table import Operator, table_for


@dataclass(frozen=True)
class Record:
    """One operator call.

    Attributes:
        index (int): order of execution.
        module (str): name of the module whose code called the operator.
        operator (str): name of the operator, or class of a module treated as one.
        kind (str or None): its kind.
        rule (str): the rule, or ``"none"`` where torch's own gradient was taken for an
            unknown operator.
        shapes (tuple): shapes of the inputs that carry relevance.
        output_shape (tuple): shape of the (first) output.
        received (float): relevance that came in at the output, summed over the batch,
            in units of the score.
        passed (float): relevance that went on to the inputs.
        constant (float): the part of the relevance received that is due to constants of
            the operator: a bias, an added number, a position embedding. Measured where
            gradients stand for R / x; in tables that carry relevance itself, which do
            not tell it from what a rule lost, all that was absorbed.
    """

    index: int
    module: str
    operator: str
    kind: str | None
    rule: str
    shapes: tuple[tuple[int, ...], ...]
    output_shape: tuple[int, ...]
    received: float = 0.0
    passed: float = 0.0
    constant: float = 0.0

    @property
    def absorbed(self) -> float:
        """Relevance received and not passed on."""
        return self.received - self.passed

    @property
    def lost(self) -> float:
        """What was absorbed beyond the share of constants; 0 for rules that conserve.

        Negative where a rule passed on more than it received.
        """
        return self.absorbed - self.constant


@dataclass(frozen=True)
class Trace:
    """The records of one explanation and its balance.

    ``score = relevance + constant + lost + unseen``, see the module;
    :attr:`conservation_error` says in one number how well relevance is conserved.

    Attributes:
        method (str): name of the composite.
        score (float): the explained score, summed over the batch; what starts in its
            place (1 for each example) in tables that carry relevance from there.
        relevance (float): the relevance that arrived at the inputs.
        records (tuple of Record): one per operator call, in order of execution.
        cuts (tuple of Cut): where relevance ended because the model detached a tensor
            that carries it, computed under ``torch.no_grad``, or made integers or a
            number of Python's of it: the branch behind counts as a constant.
            Default: none
        scale (float or None): what errors are relative to: the sum of the scores'
            magnitudes, which in a batch may cancel in ``score``. Default: ``|score|``
    """

    method: str
    score: float
    relevance: float
    records: tuple[Record, ...]
    cuts: tuple[Cut, ...] = ()
    scale: float | None = None

    @property
    def absorbed(self) -> float:
        """What all operators together absorbed: constants took it, or rules lost it."""
        return sum(record.absorbed for record in self.records)

    @property
    def constant(self) -> float:
        """What constants of all operators account for."""
        return sum(record.constant for record in self.records)

    @property
    def lost(self) -> float:
        """What rules lost; negative where they made more of what they received."""
        return self.absorbed - self.constant

    @property
    def conservation_error(self) -> float:
        """``|score - relevance - constant|``, relative to the score.

        0 where every rule conserves: what arrived at the inputs and what is due to
        biases and other constants then add up to the score. Counts what rules lost
        (:attr:`loss`) and what went where no operator was seen (:attr:`unseen`).
        """
        return self._relative(self.score - self.relevance - self.constant)

    @property
    def loss(self) -> float:
        """``|lost|`` relative to the score: the part of the error that rules made."""
        return self._relative(self.lost)

    @property
    def unseen(self) -> float:
        """``|score - relevance - absorbed|`` relative to the score.

        Relevance that went where no operator was seen, whatever rules lost.
        """
        return self._relative(self.score - self.relevance - self.absorbed)

    def _relative(self, amount: float) -> float:
        scale = abs(self.score) if self.scale is None else self.scale
        return abs(amount) / max(scale, 1e-30)

    def lost_by_module(self) -> dict[tuple[str, str], float]:
        """Return what was lost by module and operator, largest first.

        Losses of one call of an operator count without their sign, so that gains of
        another do not hide them.
        """
        totals: dict[tuple[str, str], float] = {}
        for record in self.records:
            key = (record.module, record.operator)
            totals[key] = totals.get(key, 0.0) + abs(record.lost)
        return dict(sorted(totals.items(), key=lambda item: -item[1]))

    def absorbed_by_module(self) -> dict[str, float]:
        """Return what the operators of each module absorbed, largest first."""
        totals: dict[str, float] = {}
        for record in self.records:
            totals[record.module] = totals.get(record.module, 0.0) + record.absorbed
        return dict(sorted(totals.items(), key=lambda item: -abs(item[1])))

    def to_records(self) -> list[dict[str, Any]]:
        """Return the records as dictionaries, for pandas or JSON."""
        return [
            {**asdict(r), "absorbed": r.absorbed, "lost": r.lost} for r in self.records
        ]

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __str__(self) -> str:
        """Print one line per call and the balance."""
        header = ("#", "module", "operator", "rule", "output", "received", "passed")
        rows = [
            (
                str(r.index),
                r.module,
                r.operator,
                r.rule,
                "x".join(map(str, r.output_shape)),
                f"{r.received:.5g}",
                f"{r.passed:.5g}",
                f"{r.absorbed:.3g}" if abs(r.absorbed) > 1e-9 else "",
            )
            for r in self.records
        ]
        table = [(*header, "absorbed"), *rows]
        widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
        lines = [
            "  ".join(
                cell.rjust(w) if i in (0, 5, 6, 7) else cell.ljust(w)
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in table
        ]
        lines.append(
            f"{self.method}: score {self.score:.6g} = relevance at the inputs "
            f"{self.relevance:.6g} + constants {self.constant:.6g} + lost "
            f"{self.lost:.3g} (conservation error {self.conservation_error:.1e})"
        )
        if self.cuts:
            lines.append("cut off by the model, and counted as constants:")
            lines += [f"  {cut}" for cut in self.cuts]
        return "\n".join(lines)


#: in place they change the shape or the graph, not the values
_RESHAPE = frozenset(
    "squeeze unsqueeze t transpose swapaxes swapdims as_strided detach".split()
)

#: in place they write values beside others that stay
_WRITES = frozenset({"setitem", "copy"})


class TracingEngine(Engine):
    """An engine that also measures; slower, and it keeps copies of all values."""

    measures: ClassVar[bool] = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._records: list[Record] = []
        self._received: dict[int, Tensor] = {}
        self._passed: dict[int, Tensor] = {}
        self._constant: dict[int, Tensor] = {}
        self._starts: set[int] = set()
        self._cuts: dict[Cut, int] = {}
        self._times_value = self.composite.carries != "relevance"

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """See where the model itself cuts relevance off, on the way to the rules."""
        operator = self.table.operator(func)
        given = args[:1] if operator.imitates else (args, kwargs or {})
        relevant = not self._closed and any(
            t.requires_grad and self.tape.of(t) is not None for t in tensors_in(given)
        )
        output = super().__torch_function__(func, types, args, kwargs)
        if relevant and not operator.name.startswith("attribute "):  # x.grad_fn
            rule = self.rule_for(operator)
            plain = rule is None or isinstance(rule, PlainGradient)
            how = cut_by(operator.name, output, plain=plain)
            if how is not None:
                cut = Cut(self.module_path(), operator.name, how)
                self._cuts[cut] = self._cuts.get(cut, 0) + 1
        return output

    @property
    def _closed(self) -> bool:
        """Whether what runs now is not the model's own doing, or no longer seen."""
        return (
            bool(self._paused)
            or self.backward
            or any(
                rule is not None and not rule.kinds and rule.inside == "constant"
                for rule, _ in self._stack
            )
        )

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """Where the model cut relevance off, each place once."""
        return tuple(replace(cut, calls=n) for cut, n in self._cuts.items())

    def finished_records(self, to_identifiers: float) -> tuple[Record, ...]:
        """Return the records with their sums, after the backward pass.

        Args:
            to_identifiers (float): the relevance that arrived at integer inputs.
        """
        if self.identifiers.mixed:
            self._balance_identifiers(to_identifiers)
        if self.beginning is not None:
            self._constant_of_the_score(self.beginning)

        def total(sums: dict[int, Tensor], index: int) -> float:
            return float(sums[index]) if index in sums else 0.0

        finished = []
        for record in self._records:
            index = record.index
            received = total(self._received, index)
            passed = received if index in self._starts else total(self._passed, index)
            constant = total(self._constant, index)
            if not self._times_value:  # not told from what the rule lost
                constant = received - passed
            finished.append(
                replace(record, received=received, passed=passed, constant=constant)
            )
        return tuple(finished)

    def _constant_of_the_score(self, start: Beginning) -> None:
        """Record what the last activation is worth at 0."""
        index = len(self._records)
        self._records.append(
            Record(index, "", "activation at 0", None, "absorbed", (), start.shape)
        )
        self._received[index] = self._constant[index] = torch.tensor(
            start.absorbed, dtype=torch.float64
        )

    def _balance_identifiers(self, to_identifiers: float) -> None:
        """Record what went to constants that the model put between identifiers."""
        received = sum(float(self._received.get(i, 0.0)) for i in self._starts)
        index = len(self._records)
        self._records.append(
            Record(index, "", "constant identifiers", "lookup", "absorbed", (), ())
        )
        self._received[index] = self._constant[index] = torch.tensor(
            received - to_identifiers, dtype=torch.float64
        )

    def held_back(
        self,
        module: nn.Module,
        tensors: list[Tensor],
        received: list[Tensor],
        passed: list[Tensor],
    ) -> None:
        """Record what did not pass a unit that relevance goes through."""
        index = len(self._records)
        name = self.name_of(module)
        self._records.append(Record(index, name, "through", None, "selected", (), ()))
        with DisableTorchFunction():  # this is not the model's doing
            for sums, gradients in ((self._received, received), (self._passed, passed)):
                sums[index] = torch.tensor(0.0, dtype=torch.float64)
                for tensor, gradient in zip(tensors, gradients, strict=True):
                    relevance = gradient.detach().double()
                    if self._times_value:
                        relevance = relevance * tensor.detach().double()
                    sums[index] = sums[index] + relevance.sum().cpu()
        self._constant[index] = self._received[index] - self._passed[index]

    def apply(
        self,
        operator: Operator,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        relevant: int,
    ) -> Any:
        """Apply the rule between aliases of the inputs and a copy of the output."""
        other = self.special(operator, args, kwargs)
        if other is not NotImplemented:
            return other
        tensors = [t for t in tensors_in((args, kwargs)) if t.requires_grad]
        opened = operator.twin is not None and (
            operator.rule is None or operator.asked_in_place(args, kwargs)
        )
        if opened and operator.rule is not None and not self.backward:
            assert operator.twin is not None
            return self.reenter(operator.twin, *args, **kwargs)
        if self.backward or opened:
            return super().apply(operator, args, kwargs, relevant)
        if operator.in_place:
            return self.in_place(operator, args, kwargs, relevant)
        found = self.rule_for(operator)
        rule = "none" if found is None else repr(found)
        index = self._begin(operator.name, operator.kind, rule, tensors)
        args, kwargs = self._watch_inputs(index, args, kwargs)
        output = super().apply(operator, args, kwargs, relevant)
        alone = None
        if self._times_value:
            alone = constant_part(operator, args, kwargs, output)
            alone = self._of_zero(found, args, kwargs, output) or alone
        # what is written into a view, or into an argument that came back, reaches it
        given = {id(t) for t in tensors_in((args, kwargs))}
        view = operator.kind == "structural" or id(output) in given
        return self._watch_output(index, output, alone, view=view)

    def in_place(
        self,
        operator: Operator,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        relevant: int,
    ) -> Any:
        """Measure out of place, then write the result back."""
        target, function = args[0], operator.out_of_place
        if operator.name in _WRITES:
            outcome = self._write(operator, args, kwargs, relevant)
        elif isinstance(self.rule_for(operator), PlainGradient) and (
            function is None or operator.name in _RESHAPE
        ):  # moves values only
            return operator.function(*args, **kwargs)
        elif function is None:
            return super().in_place(operator, args, kwargs, relevant)
        else:
            copied = self.tape.same(self.without_foreign(target).clone(), target)
            outcome = self.reenter(function, copied, *args[1:], **kwargs)
            self._outcome = self.tape.of(outcome)
        base = target._base if target._is_view() else None
        around = None if base is None or base.requires_grad else base
        self.write_back(target, outcome)
        if around is not None and self._times_value:
            self._measure_around(operator, target, around)
        return target

    def _write(
        self,
        operator: Operator,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        relevant: int,
    ) -> Any:
        """Measure values written into a copy of the target, and return the copy."""
        tensors = [t for t in tensors_in((args, kwargs)) if t.requires_grad]
        rule = repr(self.rule_for(operator))
        index = self._begin(operator.name, operator.kind, rule, tensors)
        args, kwargs = self._watch_inputs(index, args, kwargs)
        outcome = args[0].clone()
        super().apply(operator, (outcome, *args[1:]), kwargs, relevant)
        alone = None
        if self._times_value:
            alone = [written_by_constants(operator, args, kwargs)]
        return self._watch_output(index, outcome, alone)

    def _measure_around(self, operator: Operator, target: Tensor, base: Tensor) -> None:
        """Record what constants around a view contribute, now that it was written."""
        index = self._begin(operator.name, operator.kind, "around the view", [])
        around = base.detach().clone()
        offset = target.storage_offset() - base.storage_offset()
        around.as_strided(target.shape, target.stride(), offset).zero_()
        self._measure(base, self._received, index, around)
        self._measure(base, self._constant, index, around)

    def started(self, operator: Operator, args: Any, output: Any) -> Any:
        """Record the look-up of explained identifiers, which receive what arrives."""
        if not isinstance(output, Tensor) or not output.requires_grad or self.backward:
            return output
        if self.identifiers.follows(output):  # not yet
            return output
        index = self._begin(operator.name, "lookup", "to the identifiers", [])
        output = self._watch_output(index, output)
        self._starts.add(index)
        return output

    def apply_to_module(
        self, rule: Rule, module: nn.Module, args: Any, kwargs: Any, output: Any
    ) -> Any:
        """Measure a module that is treated as one operator."""
        if self.backward:
            return super().apply_to_module(rule, module, args, kwargs, output)
        relevant = [t for t in tensors_in((args, kwargs)) if t.requires_grad]
        index = self._begin(type(module).__name__, None, repr(rule), relevant)
        if rule.inside == "constant":
            with DisableTorchFunction():
                args, kwargs = self._watch_inputs(index, args, kwargs)
            output = super().apply_to_module(rule, module, args, kwargs, output)
            with DisableTorchFunction():
                alone = self._of_zero(rule, args, kwargs, output)
                return self._watch_output(index, output, alone)
        # its own gradient, between the aliases that it was given and a copy
        output = super().apply_to_module(rule, module, args, kwargs, output)
        with DisableTorchFunction():
            given = [t for t in tensors_in(args) if t.requires_grad]
            if len(given) < len(relevant):  # by keyword: no aliases
                return output
            for tensor in given:
                self._measure(tensor, self._passed, index)
            alone = self._module_alone(module, args, kwargs)
            return self._watch_output(index, output, alone)

    def enter_module(self, module: nn.Module, args: tuple[Any, ...]) -> Any:
        """Hand aliases to a module that keeps torch's gradient, to measure there."""
        changed = super().enter_module(module, args)
        rule = self._module_rules.get(id(module))
        if rule is None or rule.inside != "gradient" or self._suspended != 1:
            return changed

        def alias(tensor: Tensor) -> Tensor:
            if not tensor.requires_grad:
                return tensor
            twin: Tensor = self.tape.same(tensor.view_as(tensor), tensor)
            return twin

        with DisableTorchFunction():
            return map_tensors(alias, args if changed is None else changed)

    def _of_zero(
        self, rule: Rule | None, args: Any, kwargs: Any, output: Any
    ) -> list[Tensor] | None:
        """Return what the identity rule cannot hand to an input that is 0."""
        if not (isinstance(rule, Identity) and self._times_value):
            return None
        relevant = [t for t in tensors_in((args, kwargs)) if t.requires_grad]
        if not relevant or relevant[0].shape != output.shape:
            return None
        note = self._note
        at_zero = note.at_zero if isinstance(note, Activation) else 0.0
        with torch.no_grad():
            part = part_of_zero(relevant[0].detach(), output.detach(), at_zero)
            return [part] if bool(part.any()) else None

    def _module_alone(
        self, module: nn.Module, args: Any, kwargs: Any
    ) -> list[Tensor] | None:
        """Return what a module gives where all that carries relevance is 0."""
        if not self._times_value:
            return None

        def zeroed(tensor: Tensor) -> Tensor:
            return torch.zeros_like(tensor) if tensor.requires_grad else tensor

        with torch.no_grad():
            alone = module.forward(
                *map_tensors(zeroed, args), **map_tensors(zeroed, kwargs)
            )
        return list(tensors_in(alone))

    def _begin(
        self, name: str, kind: str | None, rule: str, relevant: list[Tensor]
    ) -> int:
        index = len(self._records)
        shapes = tuple(tuple(t.shape) for t in relevant)
        self._records.append(
            Record(index, self.module_path(), name, kind, rule, shapes, ())
        )
        return index

    def _watch_inputs(
        self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        aliases: dict[int, Tensor] = {}

        def alias(tensor: Tensor) -> Tensor:
            if not tensor.requires_grad:
                return tensor
            if id(tensor) not in aliases:
                twin = self.tape.same(tensor.view_as(tensor), tensor)
                aliases[id(tensor)] = twin
                self._measure(twin, self._passed, index)
            return aliases[id(tensor)]

        return map_tensors(alias, args), map_tensors(alias, kwargs)

    def _watch_output(
        self,
        index: int,
        output: Any,
        alone: list[Tensor] | None = None,
        *,
        view: bool = False,
    ) -> Any:
        """Measure what arrives at an output, and at what constants make of it alone."""
        shapes: list[tuple[int, ...]] = []

        def copy(tensor: Tensor) -> Tensor:
            shapes.append(tuple(tensor.shape))
            if not tensor.requires_grad:
                return tensor
            keep = view and tensor._is_view()  # writes into it reach its base
            twin = tensor.view_as(tensor) if keep else tensor.clone()
            self._measure(twin, self._received, index)
            if alone is not None:
                self._measure(twin, self._constant, index, alone[len(shapes) - 1])
            return twin

        output = map_tensors(copy, output)
        if shapes and index < len(self._records):
            self._records[index] = replace(self._records[index], output_shape=shapes[0])
        return output

    def _measure(
        self,
        tensor: Tensor,
        sums: dict[int, Tensor],
        index: int,
        part: Tensor | None = None,
    ) -> None:
        """Sum the relevance of a tensor, or of a part of its values, when it comes."""
        value = tensor.detach().clone() if self._times_value else None
        value = value if part is None else part

        def add(gradient: Tensor | None) -> None:
            if gradient is None:  # relevance went past it
                return
            relevance = gradient.conj() if gradient.is_complex() else gradient.double()
            if value is not None:  # a masked -inf with no gradient has no relevance
                relevance = torch.where(gradient == 0, 0.0, relevance * value)
            total = relevance.sum().real.double()
            sums[index] = sums[index] + total if index in sums else total

        tensor.register_hook(add)


class BalancingEngine(TracingEngine):
    """Measures only what constants contribute: the balance of a trace, in one record.

    What constants have no part in runs as it does without a trace. Only for tables
    whose gradients stand for R / x.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._started: dict[int, Tensor] = {}

    def finished_records(self, to_identifiers: float) -> tuple[Record, ...]:
        """Return one record: what the constants of the model took."""
        taken = sum(float(part) for part in self._constant.values())
        if self.identifiers.mixed:
            taken += sum(float(part) for part in self._started.values())
            taken -= to_identifiers
        if self.beginning is not None:
            taken += self.beginning.absorbed
        record = Record(0, "", "constants", None, "absorbed", (), ())
        return (replace(record, received=taken, constant=taken),)

    def started(self, operator: Operator, args: Any, output: Any) -> Any:
        """Measure what arrives at the look-up of explained identifiers."""
        read = isinstance(output, Tensor) and output.requires_grad
        if read and not self.backward:
            output = output.clone()
            super()._measure(output, self._started, 0)
        return output

    def _begin(self, *_: Any) -> int:
        return 0

    def _watch_inputs(
        self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, kwargs

    def _watch_output(
        self,
        index: int,
        output: Any,
        alone: list[Tensor] | None = None,
        *,
        view: bool = False,
    ) -> Any:
        if alone is None:
            return output
        return super()._watch_output(index, output, alone, view=view)

    def _measure(
        self,
        tensor: Tensor,
        sums: dict[int, Tensor],
        index: int,
        part: Tensor | None = None,
    ) -> None:
        if sums is self._constant:
            super()._measure(tensor, sums, index, part)


def balancing_engine(composite: Composite, **options: Any) -> TracingEngine:
    """Return the cheapest engine that measures the balance under a table."""
    carried = table_for(composite).composite.carries == "relevance"
    return (TracingEngine if carried else BalancingEngine)(composite, **options)
