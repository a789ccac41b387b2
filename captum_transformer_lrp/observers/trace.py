"""What every operator received, passed on and absorbed: how to check an architecture.

A trace hands each operator aliases of its inputs, so that the gradient at an
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

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .._nested import map_tensors, tensors_in
from .._torch import DisableTorchFunction
from .._visible import printed
from ..core.composites import Composite
from ..core.gates import Activation
from ..core.rules.elementwise import Identity
from ..core.rules.linear import PlainGradient
from ..core.table import Operator, table_for
from ..known.beginning import Beginning
from ..report.blocks import Block, Facts, Heading, Paragraph, Table
from ..report.shown import Shown
from .constants import constant_part, written_by_constants
from .cuts import Cut, cut_by
from .observed import Applied, ObservedEngine, Observer, Run, copied, relevant

_AMOUNTS = ("Received", "Passed", "Absorbed")
_LARGEST = 10  # sums of modules that are shown


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
        run (int): the pass that the call belongs to, in methods of several.
            Default: 0
        weight (float): of that pass in what the method returns; the three amounts are
            multiplied with it already. Default: 1.0
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
    run: int = 0
    weight: float = 1.0

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
class Trace(Shown):
    """The records of one explanation and its balance.

    ``score = relevance + constant + lost + unseen``, see the module;
    :attr:`conservation_error` says in one number how well relevance is conserved.

    Where a method makes something else of what arrived (adds magnitudes, reads maps of
    attention out, leaves parts of a context out), a record without a kind at the end
    says so: it received what arrived, and passed on what the method returns.

    Attributes:
        method (str): name of the method.
        score (float): the explained score, summed over the batch; what starts in its
            place (1 for each example) in tables that carry relevance from there.
        relevance (float): the sum of what the method returns; for most the relevance
            that arrived at the inputs.
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

    def closed(
        self, what: str, how: str, *, received: float, passed: float, constant: float
    ) -> Trace:
        """Return the trace with a record of what a method makes of what arrived.

        Args:
            what (str): the record's operator.
            how (str): its rule.
            received (float): what arrived, a part of ``relevance``.
            passed (float): what it counts for.
            constant (float): what of it belongs to nothing that is explained.
        """
        record = Record(
            len(self.records), "", what, None, how, (), (), received, passed, constant
        )
        return replace(
            self,
            relevance=self.relevance - received + passed,
            records=(*self.records, record),
        )

    def begun(self, what: str, amount: float) -> Trace:
        """Return the trace with a record of a step behind the model's output.

        Args:
            what (str): the record's operator, such as ``"log_prob"``.
            amount (float): what it passed on of the score.
        """
        record = Record(
            len(self.records), "", what, None, "gradient", (), (), self.score, amount
        )
        return replace(self, records=(*self.records, record))

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

    def blocks(self) -> Iterator[Block]:
        """Yield what is shown: the balance, where relevance was lost, every call."""
        yield Heading(text=f"What became of the score under {self.method}")
        yield Paragraph(text=f"{self._balance()}.", kind="answer")
        names = ("Score", "Relevance at the inputs", "Constants", "Lost by rules")
        amounts = (self.score, self.relevance, self.constant, self.lost)
        pairs = [(n, f"{a:.6g}") for n, a in zip(names, amounts, strict=True)]
        pairs.append(("Conservation error", f"{self.conservation_error:.1e}"))
        yield Facts(pairs=(*pairs, ("Calls", f"{len(self):,}")))
        lost = [(*key, f"{a:.3g}") for key, a in self.lost_by_module().items() if a]
        if lost:
            title = "Lost by rules, in units of the score; the largest"
            heads = ("Module", "Operator", "Lost")
            yield Table(title=title, heads=heads, rows=tuple(lost[:_LARGEST]), texts=2)
        absorbed = self.absorbed_by_module().items()
        kept = [(module or "–", f"{a:.5g}") for module, a in absorbed if a]
        if kept:
            yield Table(
                title="Absorbed, in units of the score; the largest",
                heads=("Module", "Absorbed"),
                rows=tuple(kept[:_LARGEST]),
            )
        for cut in self.cuts:
            note = f"Cut off by the model, and counted as a constant: {cut}"
            yield Paragraph(text=note)
        yield Table(
            title=f"All {len(self):,} calls",
            heads=("#", "Module", "Operator", "Rule", "Output", *_AMOUNTS),
            rows=tuple(self._row(record) for record in self.records),
            texts=5,
            folded=True,
        )

    @property
    def alt(self) -> str:
        """The balance in one sentence."""
        return f"{self._balance()}."

    @staticmethod
    def _row(r: Record) -> tuple[str, ...]:
        return (
            str(r.index),
            r.module,
            r.operator,
            r.rule,
            "x".join(map(str, r.output_shape)),
            f"{r.received:.5g}",
            f"{r.passed:.5g}",
            f"{r.absorbed:.3g}" if abs(r.absorbed) > 1e-9 else "",
        )

    def _balance(self) -> str:
        return (
            f"{self.method}: score {self.score:.6g} = relevance at the inputs "
            f"{self.relevance:.6g} + constants {self.constant:.6g} + lost "
            f"{self.lost:.3g} (conservation error {self.conservation_error:.1e})"
        )

    def __repr__(self) -> str:
        """Return the balance, and where the rest is found: what a prompt shows."""
        cuts = f", and {len(self.cuts)} cut(s)" if self.cuts else ""
        return (
            f"<Trace of {len(self)} calls{cuts}. {self._balance()}. print(trace) has a "
            "line for each call, trace.lost_by_module() and "
            "trace.absorbed_by_module() have the sums.>"
        )

    def __str__(self) -> str:
        """Print one line per call and the balance."""
        header = ("#", "module", "operator", "rule", "output")
        amounts = (name.lower() for name in _AMOUNTS)
        table = [(*header, *amounts), *(self._row(r) for r in self.records)]
        widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
        lines = [
            "  ".join(
                cell.rjust(w) if i in (0, 5, 6, 7) else cell.ljust(w)
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in table
        ]
        lines.append(self._balance())
        if self.cuts:
            lines.append("cut off by the model, and counted as constants:")
            lines += [f"  {cut}" for cut in self.cuts]
        return printed("\n".join(lines))


def together(
    method: str, traces: Sequence[Trace], weights: Sequence[float] | None = None
) -> Trace:
    """Return the sum of the traces of several passes, as one trace.

    Args:
        method (str): name of the method.
        traces (sequence of Trace): one of each pass, in order.
        weights (sequence of float, optional): what each is multiplied with.
            Default: 1
    """
    weights = [1.0] * len(traces) if weights is None else weights
    records: list[Record] = []
    calls: dict[Cut, int] = {}
    for run, (trace, weight) in enumerate(zip(traces, weights, strict=True)):
        for record in trace.records:
            records.append(
                replace(
                    record,
                    index=len(records),
                    received=weight * record.received,
                    passed=weight * record.passed,
                    constant=weight * record.constant,
                    run=run,
                    weight=weight,
                )
            )
        for cut in trace.cuts:
            once = replace(cut, calls=1)
            calls[once] = calls.get(once, 0) + cut.calls
    pairs = list(zip(traces, weights, strict=True))
    return Trace(
        method=method,
        score=sum(w * t.score for t, w in pairs),
        relevance=sum(w * t.relevance for t, w in pairs),
        records=tuple(records),
        cuts=tuple(replace(cut, calls=n) for cut, n in calls.items()),
        scale=sum(
            abs(w) * (abs(t.score) if t.scale is None else t.scale) for t, w in pairs
        ),
    )


class Tracing(Observer):
    """Measures what every operator receives and passes on; keeps all values."""

    def begin(self, engine: ObservedEngine) -> None:
        """Start with empty records."""
        super().begin(engine)
        self._records: list[Record] = []
        self._received: dict[int, Tensor] = {}
        self._passed: dict[int, Tensor] = {}
        self._constant: dict[int, Tensor] = {}
        self._starts: set[int] = set()
        self._cuts: dict[Cut, int] = {}
        self._times_value = engine.composite.carries != "relevance"

    def meet(
        self, operator: Operator, args: Any, kwargs: dict[str, Any], run: Run
    ) -> Any:
        """See where the model itself cuts relevance off, on the way to the rules."""
        engine = self.engine
        given = args[:1] if operator.imitates else (args, kwargs)
        cuttable = not engine.frozen and any(
            engine.tape.of(tensor) is not None for tensor in relevant(given)
        )
        output = run(args, kwargs)
        if cuttable and not operator.name.startswith("attribute "):  # x.grad_fn
            rule = engine.rule_for(operator)
            plain = rule is None or isinstance(rule, PlainGradient)
            how = cut_by(operator.name, output, plain=plain)
            if how is not None:
                cut = Cut(engine.module_path(), operator.name, how)
                self._cuts[cut] = self._cuts.get(cut, 0) + 1
        return output

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """Where the model cut relevance off, each place once."""
        return tuple(replace(cut, calls=n) for cut, n in self._cuts.items())

    def trace(
        self, method: str, scores: Tensor, relevance: float, to_identifiers: float
    ) -> Trace:
        """Return the trace, after the backward pass.

        Args:
            method (str): its name.
            scores (Tensor): what was explained; what started in its place, see
                :attr:`Trace.score`.
            relevance (float): what arrived.
            to_identifiers (float): the part of it that arrived at integer inputs.
        """
        scores = scores.detach().double()
        return Trace(
            method=method,
            score=float(scores.sum()),
            relevance=relevance,
            records=self.finished_records(to_identifiers),
            cuts=self.cuts,
            scale=float(scores.abs().sum()),
        )

    def finished_records(self, to_identifiers: float) -> tuple[Record, ...]:
        """Return the records with their sums, after the backward pass.

        Args:
            to_identifiers (float): the relevance that arrived at integer inputs.
        """
        if self.engine.identifiers.mixed:
            self._balance_identifiers(to_identifiers)
        if self.engine.beginning is not None:
            self._constant_of_the_score(self.engine.beginning)

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
        name = self.engine.name_of(module)
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

    def apply(self, call: Applied, run: Run) -> Any:
        """Measure at the aliases of the inputs and at the copy of the output."""
        if call.ran_by_itself:
            return self._apply_around(call, run)
        tensors = relevant((call.args, call.kwargs))
        index = self._begin(call, tensors)
        for tensor in {id(t): t for t in tensors}.values():
            self._measure(tensor, self._passed, index)
        output = run(call.args, call.kwargs)
        alone = self._constant_part(call, output)
        return self._watch_output(index, call, output, alone)

    def _apply_around(self, call: Applied, run: Run) -> Any:
        """Measure a module between the aliases that it was given and a copy."""
        assert call.module is not None
        tensors = relevant((call.args, call.kwargs))
        index = self._begin(call, tensors)
        output = run(call.args, call.kwargs)
        given = relevant(call.args)
        if len(given) < len(tensors):  # by keyword: no aliases
            return output
        for tensor in given:
            self._measure(tensor, self._passed, index)
        alone = self._module_alone(call.module, call.args, call.kwargs)
        return self._watch_output(index, call, output, alone)

    def started(self, operator: Operator, output: Tensor) -> Tensor:
        """Record the look-up of explained identifiers, which receive what arrives."""
        if self.engine.identifiers.follows(output):  # not yet
            return output
        index = self._record(operator.name, "lookup", "to the identifiers", [])
        watched: Tensor = self._watch_output(index, None, output.clone())
        self._starts.add(index)
        return watched

    def written(self, operator: Operator, target: Tensor, base: Tensor) -> None:
        """Record what constants around a view contribute, now that it was written."""
        if not self._times_value:
            return
        index = self._record(operator.name, operator.kind, "around the view", [])
        around = base.detach().clone()
        offset = target.storage_offset() - base.storage_offset()
        around.as_strided(target.shape, target.stride(), offset).zero_()
        self._measure(base, self._received, index, around)
        self._measure(base, self._constant, index, around)

    def _constant_part(self, call: Applied, output: Any) -> list[Tensor] | None:
        """Return what constants make of an output alone, None for nothing."""
        if not self._times_value:
            return None
        args, kwargs = call.args, call.kwargs
        if call.module is None and call.operator.in_place:  # into a copy of the target
            return [written_by_constants(call.operator, args, kwargs)]
        alone = self._of_zero(call, output)
        if alone is None and call.module is None:
            alone = constant_part(call.operator, args, kwargs, output)
        return alone

    def _of_zero(self, call: Applied, output: Any) -> list[Tensor] | None:
        """Return what the identity rule cannot hand to an input that is 0."""
        if not isinstance(call.rule, Identity):
            return None
        given = relevant((call.args, call.kwargs))
        if not given or given[0].shape != output.shape:
            return None
        at_zero = call.note.at_zero if isinstance(call.note, Activation) else 0.0
        with torch.no_grad():
            part = part_of_zero(given[0].detach(), output.detach(), at_zero)
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

    def _begin(self, call: Applied, tensors: list[Tensor]) -> int:
        rule = "none" if call.rule is None else repr(call.rule)
        return self._record(call.name, call.kind, rule, tensors)

    def _record(
        self, name: str, kind: str | None, rule: str, tensors: list[Tensor]
    ) -> int:
        index = len(self._records)
        shapes = tuple(tuple(t.shape) for t in tensors)
        self._records.append(
            Record(index, self.engine.module_path(), name, kind, rule, shapes, ())
        )
        return index

    def _watch_output(
        self,
        index: int,
        call: Applied | None,
        output: Any,
        alone: list[Tensor] | None = None,
    ) -> Any:
        """Measure what arrives at an output, and at what constants make of it alone."""
        tensors = list(tensors_in(output))
        for place, tensor in enumerate(tensors):
            if tensor.requires_grad:
                self._measure(tensor, self._received, index)
                if alone is not None:
                    self._measure(tensor, self._constant, index, alone[place])
        if tensors and index < len(self._records):
            shape = tuple(tensors[0].shape)
            self._records[index] = replace(self._records[index], output_shape=shape)
        return output

    def _measure(
        self,
        tensor: Tensor,
        sums: dict[int, Tensor],
        index: int,
        part: Tensor | None = None,
    ) -> None:
        """Sum the relevance of a tensor, or of a part of its values, when it comes."""

        def add(relevance: Tensor) -> None:
            total = relevance.sum().double()
            sums[index] = sums[index] + total if index in sums else total

        self.engine.hear(tensor, add, part)


class Balancing(Tracing):
    """Measures only what constants contribute: the balance of a trace, in one record.

    What constants have no part in runs as it does without a trace. Only for tables
    whose gradients stand for R / x.
    """

    hears: ClassVar[bool] = False

    def begin(self, engine: ObservedEngine) -> None:
        """Start with nothing."""
        super().begin(engine)
        self._started: dict[int, Tensor] = {}
        self._records = [Record(0, "", "constants", None, "absorbed", (), ())]

    def finished_records(self, to_identifiers: float) -> tuple[Record, ...]:
        """Return one record: what the constants of the model took."""
        taken = sum(float(part) for part in self._constant.values())
        if self.engine.identifiers.mixed:
            taken += sum(float(part) for part in self._started.values())
            taken -= to_identifiers
        if self.engine.beginning is not None:
            taken += self.engine.beginning.absorbed
        record = Record(0, "", "constants", None, "absorbed", (), ())
        return (replace(record, received=taken, constant=taken),)

    def started(self, operator: Operator, output: Tensor) -> Tensor:
        """Measure what arrives at the look-up of explained identifiers."""
        output = output.clone()
        super()._measure(output, self._started, 0)
        return output

    def _begin(self, call: Applied, tensors: list[Tensor]) -> int:
        return 0

    def _record(self, *_: Any) -> int:
        return 0

    def _watch_output(
        self,
        index: int,
        call: Applied | None,
        output: Any,
        alone: list[Tensor] | None = None,
    ) -> Any:
        if alone is None or call is None:
            return output
        return super()._watch_output(index, call, copied(call, output), alone)

    def _measure(
        self,
        tensor: Tensor,
        sums: dict[int, Tensor],
        index: int,
        part: Tensor | None = None,
    ) -> None:
        if sums is self._constant:
            super()._measure(tensor, sums, index, part)


def balancing(composite: Composite) -> Tracing:
    """Return the cheapest observer that measures the balance under a table."""
    carried = table_for(composite).composite.carries == "relevance"
    return Tracing() if carried else Balancing()


def part_of_zero(x: Tensor, output: Tensor, at_zero: float) -> Tensor:
    """Return the part of ``f(x)`` that the identity rule cannot hand to ``x``.

    All of it where ``x`` is 0, and where the ratio was bounded the rest.

    Args:
        x (Tensor): the input.
        output (Tensor): ``f(x)``.
        at_zero (float): ``f(0)``; the ratio is bounded where it is not 0.
    """
    part = (x == 0).to(output.dtype)
    if at_zero != 0:
        part = (1 - x.abs() / torch.finfo(x.dtype).eps).clamp(min=0).to(output.dtype)
    return torch.where(part == 0, part, output * part)
