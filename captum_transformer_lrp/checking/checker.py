"""The checks, one after the other."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .._copied import copied
from ..attribution import CPLRP, AttnLRP, GradientXInput
from ..attribution.inputs import KNOWN_KEYS
from ..attribution.scores import output_tensor, select_scores
from ..attribution.single_pass import run_once
from ..errors import LRPError, UnknownOperatorError
from ..propagation.composites import CP_LRP
from ..propagation.registry import Row
from ..propagation.trace import Trace
from .inputs import (
    examples_in,
    field_of,
    from_the_start,
    map_examples,
    map_inputs,
    other_example,
    prediction,
    with_padding,
)
from .measures import (
    attention_switch,
    dtype_name,
    dtype_of,
    free_memory,
    input_times_gradient,
    listed,
    one_line,
    random_state_kept,
    relative_error,
    state_of,
)
from .report import Check, CheckReport, Outcome

#: what counts as equal, relative to the score or to the largest relevance, by the
#: precision in which it is measured
TOLERANCES: dict[torch.dtype, float] = {
    torch.float64: 1e-6,
    torch.float32: 1e-3,
    torch.bfloat16: 5e-2,
    torch.float16: 5e-2,
}
_NAMED_AT_MOST = 6


class Checker:
    """The state of one run: the model that is measured, its inputs, what was found."""

    def __init__(
        self,
        model: nn.Module,
        inputs: Any,
        target: Any,
        arguments: Any,
        *,
        rules: Mapping[Any, Row] | None,
        output_field: str | int | None,
        in_float64: bool | None,
        tolerance: float | None,
    ) -> None:
        self.original = model
        self.before = state_of(model)
        self.arguments = arguments
        self.rules = dict(rules or {})
        self.field = output_field
        self.dtype = dtype_of(model, inputs)
        self.field = output_field
        self.checks: list[Check] = []
        self.trace: Trace | None = None
        self.unknown: Literal["raise", "gradient"] = "raise"
        self.given = inputs
        self._method(CPLRP, model)  # now rather than as a finding: rules that are none
        with torch.no_grad(), random_state_kept():
            output = self._call(model, inputs)
            self.field = field_of(output, output_field)
            scores = output_tensor(output, self.field)
            again = output_tensor(self._call(model, inputs), self.field)
        self.deterministic = bool(torch.equal(scores, again))
        self.scores = scores
        self.target = target
        if target is None:
            self.target = prediction(scores, inputs)
        select_scores(scores, self.target, examples=examples_in(inputs))
        self.model, self.inputs, self.why_not = self._to_measure(in_float64)
        self.precision = self.dtype if self.model is model else torch.float64
        self.tolerance = tolerance or TOLERANCES.get(self.precision, 1e-3)

    # ---------------------------------------------------------------- the whole

    def report(self) -> CheckReport:
        """Make all checks."""
        steps: tuple[Callable[[], None], ...] = (
            self._conservation,
            self._forward,
            self._gradient,
            self._attnlrp,
            self._attention,
            self._batch,
            self._padding,
            self._precision,
        )
        if self._operators():
            for step in steps:
                self._guarded(step)
        self._untouched()
        return CheckReport(
            model=type(self.original).__name__,
            dtype=dtype_name(self.dtype),
            measured_in=dtype_name(self.precision),
            checks=tuple(self.checks),
            trace=self.trace,
        )

    def _guarded(self, step: Callable[[], None]) -> None:
        """Make a check; what this package refuses to explain is a failure of it."""
        try:
            step()
        except LRPError as error:
            self._add(step.__name__.strip("_"), "fail", one_line(error))

    def _add(self, name: str, outcome: Outcome, sentence: str, **more: Any) -> None:
        self.checks.append(Check(name=name, outcome=outcome, sentence=sentence, **more))

    def _compare(self, name: str, measured: float, good: str, bad: str) -> None:
        """Pass where an error is within the tolerance."""
        fine = measured <= self.tolerance  # NaN is not
        self._add(
            name,
            "pass" if fine else "fail",
            f"{good if fine else bad} (relative error {measured:.1e}).",
            measured=measured,
            tolerance=self.tolerance,
        )

    # ---------------------------------------------------------------- the checks

    def _operators(self) -> bool:
        """Run CP-LRP with a trace; everything else needs that it can be run."""
        try:
            self.trace = self._trace()
        except UnknownOperatorError as error:
            self._add(
                "operators",
                "fail",
                "Some operators have no rule. The checks below take torch's own "
                "gradient for them.",
                details=tuple(str(error).splitlines()),
            )
            self.unknown = "gradient"
            try:
                self.trace = self._trace()
            except LRPError as further:
                self._add("explainable", "fail", one_line(further))
                return False
            return True
        except LRPError as error:
            self._add("operators", "fail", f"Cannot be explained: {one_line(error)}")
            return False
        names = {record.operator for record in self.trace}
        self._add(
            "operators",
            "pass",
            f"{len(self.trace)} calls of {len(names)} operators carry relevance, all "
            "with a rule.",
        )
        return True

    def _trace(self) -> Trace:
        lrp = self._method(CPLRP, self.model)
        trace: Trace = lrp.trace(self.inputs, self.target, self.arguments)
        return trace

    def _forward(self) -> None:
        if not self.deterministic:
            self._add(
                "forward",
                "fail",
                "The model gives other scores each time it is called: dropout is "
                "active, or it draws random numbers. Call model.eval().",
            )
            return
        with torch.no_grad(), random_state_kept():
            plain = output_tensor(self._call(self.model, self.inputs), self.field)
        composite = CP_LRP.with_rules(self.rules)
        with run_once(
            self.model,
            self.inputs,
            self.arguments,
            composite=composite,
            unknown=self.unknown,
        ) as (_, _, output):
            under = output_tensor(output, self.field).detach()
        self._compare(
            "forward",
            relative_error(under, plain),
            "The scores are the same under the rules as without them",
            "The scores change under the rules: one of them returns another value",
        )

    def _conservation(self) -> None:
        trace = self.trace
        assert trace is not None
        error = max(trace.loss, trace.conservation_error)
        share = trace.relevance / trace.score if trace.score else 0.0
        balance = (
            f"score {trace.score:.6g} = relevance of the inputs {trace.relevance:.6g} "
            f"({100 * share:.0f} %) + biases and other constants {trace.constant:.6g}"
        )
        if error <= self.tolerance:
            self._compare("conservation", error, f"CP-LRP conserves: {balance}", "")
            return
        scale = max(abs(trace.score), 1e-30)
        lost = [
            f"{module or '(the model itself)'}: {operator} lost {amount:.3g}, "
            f"{100 * amount / scale:.2g} % of the score; rule "
            f"{self._rule_of(trace, module, operator)}"
            for (module, operator), amount in trace.lost_by_module().items()
            if amount > self.tolerance * scale
        ]
        sentence = "CP-LRP does not conserve on this model"
        if trace.conservation_error > self.tolerance:
            sentence += (
                f": {100 * trace.conservation_error:.2g} % of the score went where no "
                "operator was seen (a write in place, a custom autograd function, or a "
                "gradient of torch's own that is wrong)"
            )
        if len(lost) > _NAMED_AT_MOST:
            lost = [*lost[:_NAMED_AT_MOST], f"and {len(lost) - _NAMED_AT_MOST} more"]
        self._add(
            "conservation",
            "fail",
            f"{sentence} (relative error {error:.1e}): {balance}, which leaves "
            f"{trace.score - trace.relevance - trace.constant:.3g}."
            + (" Give these modules or operators a rule:" if lost else ""),
            measured=error,
            tolerance=self.tolerance,
            details=tuple(lost),
        )

    @staticmethod
    def _rule_of(trace: Trace, module: str, operator: str) -> str:
        return next(
            r.rule for r in trace if (r.module, r.operator) == (module, operator)
        )

    def _gradient(self) -> None:
        found = self._relevance(GradientXInput, self.model, self.inputs)
        expected = input_times_gradient(
            self.model, lambda x: self._scores(self.model, x), self.inputs
        )
        if expected is None:
            self._add(
                "gradient",
                "not applicable",
                "No torch.nn.Embedding was called with the token ids, so there is no "
                "gradient of torch's to compare with.",
            )
            return
        self._compare(
            "gradient",
            max(
                relative_error(f, e)
                for f, e in zip(listed(found), expected, strict=True)
            ),
            "Without rules, relevance is input times torch's gradient",
            "Without rules, relevance differs from input times torch's gradient",
        )

    def _attnlrp(self) -> None:
        found = listed(self._relevance(AttnLRP, self.model, self.inputs))
        wrong = sum(int((~torch.isfinite(f)).sum()) for f in found)
        if wrong:
            self._add(
                "attnlrp", "fail", f"AttnLRP gives {wrong} values that are not finite."
            )
        elif not any(bool(f.any()) for f in found):
            self._add("attnlrp", "fail", "AttnLRP gives 0 everywhere.")
        else:
            total = sum(float(f.double().sum()) for f in found)
            self._add(
                "attnlrp",
                "pass",
                f"AttnLRP is finite; it sums to {total:.4g} (its softmax does not "
                "conserve).",
            )

    def _attention(self) -> None:
        found = []
        with attention_switch(self.model) as switch:
            if switch is None:
                self._add(
                    "attention",
                    "not applicable",
                    "The model has no switch between written-out and fused attention.",
                )
                return
            for fused in (False, True):
                try:
                    switch(fused)
                except (ValueError, ImportError) as error:
                    self._add(
                        "attention",
                        "not applicable",
                        f"Only one kind of attention is there: {one_line(error)}",
                    )
                    return
                found.append(self._relevance(AttnLRP, self.model, self.inputs))
        self._compare(
            "attention",
            max(map(relative_error, *(map(listed, reversed(found))))),
            "AttnLRP is the same with fused and with written-out attention",
            "AttnLRP differs between fused and written-out attention",
        )

    def _batch(self) -> None:
        if self.arguments is not None:
            self._add(
                "batch",
                "not applicable",
                "additional_forward_args were given, of which it is not known whether "
                "they belong to examples.",
            )
            return
        target = self.target[:1] if isinstance(self.target, list) else self.target
        if isinstance(target, Tensor) and target.numel() > 1:
            target = target[:1]
        one = map_examples(self.inputs, lambda t: t[:1])
        two = map_examples(one, lambda t: torch.cat([t, other_example(t)]))
        both = target * 2 if isinstance(target, list) else target
        if isinstance(target, Tensor):
            both = target.repeat(2) if target.numel() == 1 and target.dim() else target
        try:
            with torch.no_grad(), random_state_kept():
                alone = self._scores(self.model, one, target)
                together = self._scores(self.model, two, both)
        except LRPError as error:
            self._add("batch", "not applicable", one_line(error))
            return
        if together.numel() != 2:
            self._add(
                "batch",
                "not applicable",
                "The model returns one score for the whole batch.",
            )
            return
        mixed = relative_error(together[:1], alone.reshape(1))
        if mixed > self.tolerance:
            self._add(
                "batch",
                "fail",
                "The model itself mixes examples: the score of the first changes by "
                f"{100 * mixed:.2g} % when another stands beside it. Explain one "
                "example at a time.",
                measured=mixed,
                tolerance=self.tolerance,
            )
            return
        worst = max(
            relative_error(b[:1], a)
            for a, b in zip(
                listed(self._relevance(CPLRP, self.model, one, target)),
                listed(self._relevance(CPLRP, self.model, two, both)),
                strict=True,
            )
        )
        self._compare(
            "batch",
            worst,
            "Relevance does not depend on what else is in the batch",
            "Relevance of an example depends on its neighbours, though its score does "
            "not",
        )

    def _padding(self) -> None:
        padded = with_padding(self.inputs, self.model)
        if padded is None:
            self._add(
                "padding",
                "not applicable",
                "The inputs are not token ids with an attention mask.",
            )
            return
        length = self.inputs["input_ids"].shape[1]
        target = from_the_start(self.target, self.scores)
        with torch.no_grad(), random_state_kept():
            short = self._scores(self.model, self.inputs, target)
            long = self._scores(self.model, padded, target)
        changed = relative_error(long, short)
        if changed > self.tolerance:
            self._add(
                "padding",
                "not applicable",
                "The model's own scores change by "
                f"{100 * changed:.2g} % with padding on the right, so its relevance "
                "does too.",
                measured=changed,
                tolerance=self.tolerance,
            )
            return
        (plain, *_) = listed(self._relevance(CPLRP, self.model, self.inputs, target))
        (found, *_) = listed(self._relevance(CPLRP, self.model, padded, target))
        if bool(found[:, length:].any()):
            self._add("padding", "fail", "Padding receives relevance.")
            return
        self._compare(
            "padding",
            relative_error(found[:, :length], plain),
            "Padding gets exactly 0 and changes nothing",
            "Padding changes the relevance of tokens, though not the scores",
        )

    def _precision(self) -> None:
        if self.dtype == torch.float64:
            self._add(
                "precision",
                "pass",
                "The model is in float64 already; float32 is enough to explain with.",
            )
            return
        advice = (
            "Half precision loses small terms: load the model in float32 to explain it."
            if self.dtype in (torch.float16, torch.bfloat16)
            else "The tolerance above is that of float32, which cannot tell a small "
            "flaw of a rule from rounding."
        )
        if self.model is self.original:
            self._add(
                "precision",
                "not applicable",
                f"No copy in float64 was made: {self.why_not}. {advice}",
            )
            return
        errors = []
        for method in (CPLRP, AttnLRP):
            exact = listed(self._relevance(method, self.model, self.inputs))
            found = listed(self._relevance(method, self.original, self.given))
            errors.append(max(map(relative_error, found, exact)))
        allowed = TOLERANCES.get(self.dtype, 1e-3) * 10
        fine = max(errors) <= allowed
        self._add(
            "precision",
            "pass" if fine else "fail",
            f"Relevance in {dtype_name(self.dtype)} differs from that in float64 by "
            f"{errors[0]:.1e} (CP-LRP) and {errors[1]:.1e} (AttnLRP) of its largest "
            "value."
            + (
                ""
                if fine
                else " Explain a copy in "
                + ("float64: model.double()." if self.dtype == torch.float32 else "")
                + ("" if self.dtype == torch.float32 else "float32: model.float().")
            ),
            measured=max(errors),
            tolerance=allowed,
        )

    def _untouched(self) -> None:
        after = state_of(self.original)
        changed = [name for name, value in self.before.items() if after[name] != value]
        self._add(
            "untouched",
            "fail" if changed else "pass",
            f"The model has changed: {', '.join(changed)}."
            if changed
            else "Parameters, buffers, hooks, modes and random state are as before.",
        )

    # ---------------------------------------------------------------- running

    def _method(self, method: type, model: nn.Module) -> Any:
        options: dict[str, Any] = {"output_field": self.field}
        if method is not GradientXInput:
            options |= {"rules": self.rules, "unknown": self.unknown}
        return method(model, **options)

    def _relevance(
        self, method: type, model: nn.Module, inputs: Any, target: Any = None
    ) -> Any:
        target = self.target if target is None else target
        return self._method(method, model).attribute(inputs, target, self.arguments)

    def _call(self, model: nn.Module, inputs: Any) -> Any:
        if isinstance(inputs, Mapping):
            rest = {k: v for k, v in inputs.items() if k not in KNOWN_KEYS}
            return model(**{**inputs, **copied(rest)})
        given = inputs if isinstance(inputs, tuple) else (inputs,)
        if self.arguments is None:
            return model(*given)
        more = (
            self.arguments if isinstance(self.arguments, tuple) else (self.arguments,)
        )
        return model(*given, *copied(more))

    def _scores(self, model: nn.Module, inputs: Any, target: Any = None) -> Tensor:
        output = output_tensor(self._call(model, inputs), self.field)
        target = self.target if target is None else target
        return select_scores(output, target, examples=examples_in(inputs))

    def _to_measure(self, wanted: bool | None) -> tuple[nn.Module, Any, str]:
        """Return the model and inputs to measure with, and why it is no copy."""
        if self.dtype == torch.float64 or wanted is False:
            return self.original, self.given, "it was not wanted"
        if wanted is None:
            needed = 8 * sum(t.numel() for t in self.original.parameters())
            device = next((p.device for p in self.original.parameters()), None)
            free = free_memory(device)
            if free is not None and needed > free / 4:
                return (
                    self.original,
                    self.given,
                    f"it would take {needed / 1e9:.1f} GB of {free / 1e9:.1f} GB",
                )
        inputs = map_inputs(
            self.given, lambda t: t.double() if t.is_floating_point() else t
        )
        try:
            twin = copy.deepcopy(self.original).double()
            with torch.no_grad(), random_state_kept():
                scores = output_tensor(self._call(twin, inputs), self.field)
        except Exception as error:  # any library may refuse to be copied or converted
            if wanted:
                raise
            reason = f"the copy fails with {type(error).__name__}: {one_line(error)}"
            return self.original, self.given, reason
        if scores.dtype != torch.float64:
            reason = f"its scores are in {dtype_name(scores.dtype)} still"
            return self.original, self.given, reason
        return twin, inputs, ""
