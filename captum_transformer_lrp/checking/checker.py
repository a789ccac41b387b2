"""The checks, one after the other."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .._forms import call_with, examples_in, explained_in, map_inputs
from ..attribution import CPLRP, AttnLRP, GradientXInput
from ..attribution.scores import check_scores, output_tensor, select_scores
from ..attribution.single_pass import run_once
from ..core.composites import CP_LRP
from ..core.registry import Row
from ..errors import LRPError, UnknownOperatorError
from ..observers.trace import Trace
from .inputs import (
    field_of,
    from_the_start,
    kind_of_scores,
    map_examples,
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
    message_of,
    named,
    relative_error,
    state_of,
    tensors_of,
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

#: not 0 where their input is
_SQUASHING = ("sigmoid", "hardsigmoid", "logsigmoid", "softplus", "softmax")


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
        self.wanted = bool(in_float64)
        self._method(CPLRP, model)  # now rather than as a finding: rules that are none
        self.model, self.precision = model, self.dtype
        with torch.no_grad():
            try:
                output, repeated = (self._call(model, inputs) for _ in range(2))
            except Exception as error:  # the model is the user's
                self._add("model", "fail", _own_error(error, inputs))
                return
        self.field = field_of(output, output_field)
        scores = output_tensor(output, self.field)
        check_scores(scores)
        again = output_tensor(repeated, self.field)
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
        if not self.checks and self._operators():
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
        """Make a check; whatever goes wrong in it is a line of the report."""
        try:
            step()
        except LRPError as error:
            self._add(step.__name__.strip("_"), "fail", message_of(error))
        except Exception as error:  # the model runs without the rules
            self._add(
                step.__name__.strip("_"),
                "fail",
                f"Could not be measured because of a {named(error)}",
            )

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
            except Exception as further:  # the model runs without the rules
                sentence = (
                    message_of(further)
                    if isinstance(further, LRPError)
                    else f"Could not be traced because of a {named(further)}"
                )
                self._add("explainable", "fail", sentence)
                return False
            self._cuts(self.trace)
            return True
        except LRPError as error:
            self._add("operators", "fail", f"Cannot be explained: {message_of(error)}")
            return False
        except Exception as error:  # the model runs without the rules
            sentence = f"Could not be traced because of a {named(error)}"
            self._add("operators", "fail", sentence)
            return False
        names = {record.operator for record in self.trace}
        self._add(
            "operators",
            "pass",
            f"{len(self.trace)} calls of {len(names)} operators carry relevance, all "
            "with a rule.",
        )
        self._cuts(self.trace)
        return True

    def _cuts(self, trace: Trace) -> None:
        """Name the places where the model itself ends relevance."""
        places = [str(cut) for cut in trace.cuts]
        more = len(places) - _NAMED_AT_MOST
        if more > 0:
            places = [*places[:_NAMED_AT_MOST], f"and {more} more: report.trace.cuts"]
        self._add(
            "cuts",
            "pass",
            "The model itself cuts relevance off here; what is behind counts as a "
            "constant. Look whether a branch is meant to be explained:"
            if places
            else "The model nowhere detaches, or turns into numbers, what carries "
            "relevance.",
            details=tuple(places),
        )

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
        with torch.no_grad():
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
        error = trace.conservation_error
        share = trace.relevance / trace.score if trace.score else 0.0
        balance = (
            f"score {trace.score:.6g} = relevance of the inputs {trace.relevance:.6g} "
            f"({100 * share:.0f} %) + biases and other constants {trace.constant:.6g}"
        )
        if error <= self.tolerance and trace.unseen <= self.tolerance:
            self._compare("conservation", error, f"CP-LRP conserves: {balance}", "")
            return
        scale = max(trace.scale or 0.0, 1e-30)
        lost = [
            f"{module or '(the model itself)'}: {operator} lost {amount:.3g}, "
            f"{100 * amount / scale:.2g} % of the score; rule "
            f"{self._rule_of(trace, module, operator)}"
            for (module, operator), amount in trace.lost_by_module().items()
            if amount > self.tolerance * scale
        ]
        sentence = "CP-LRP does not conserve on this model"
        if not trace.unseen <= self.tolerance:
            sentence += (
                f": {100 * trace.unseen:.2g} % of the score went where no "
                "operator was seen (a write in place, a custom autograd function, or a "
                "gradient of torch's own that is wrong)"
            )
        if len(lost) > _NAMED_AT_MOST:
            lost = [*lost[:_NAMED_AT_MOST], f"and {len(lost) - _NAMED_AT_MOST} more"]
        advice = self._at_the_end()
        if lost and not advice:
            advice = " Give these modules or operators a rule:"
        self._add(
            "conservation",
            "fail",
            f"{sentence} (relative error {error:.1e}): {balance}, which leaves "
            f"{trace.score - trace.relevance - trace.constant:.3g}.{advice}",
            measured=error,
            tolerance=self.tolerance,
            details=tuple(lost),
        )

    def _at_the_end(self) -> str:
        """Return what to explain instead, where the score is squashed in the end."""
        kind = kind_of_scores(self.scores)
        if kind is not None:
            return f" {kind}"
        records = () if self.trace is None else self.trace.records
        last = [r.operator for r in records if r.kind != "structural"][-1:]
        if last and last[0] in _SQUASHING:
            return (
                f" The model ends in {last[0]}, which is not 0 at 0: where its input "
                "is 0 or close to it, no relevance of that input makes up the score. "
                f"Explain what goes into the {last[0]} (the logit)."
            )
        return ""

    @staticmethod
    def _rule_of(trace: Trace, module: str, operator: str) -> str:
        return next(
            r.rule for r in trace if (r.module, r.operator) == (module, operator)
        )

    def _nested(self, name: str) -> bool:
        """Say that examples of different shapes cannot be compared, if they are."""
        if not any(x.is_nested for x in explained_in(self.inputs)[:1]):
            return False
        sentence = "The inputs are a nested tensor, which torch does not take apart."
        self._add(name, "not applicable", f"{sentence} Check a padded batch too.")
        return True

    def _gradient(self) -> None:
        if self._nested("gradient"):
            return
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
            relative_error(found, expected),
            "Without rules, relevance is input times torch's gradient",
            "Without rules, relevance differs from input times torch's gradient",
        )

    def _attnlrp(self) -> None:
        found = tensors_of(self._relevance(AttnLRP, self.model, self.inputs))
        wrong = sum(int((~torch.isfinite(f)).sum()) for f in found)
        if wrong:
            self._add(
                "attnlrp", "fail", f"AttnLRP gives {wrong} values that are not finite."
            )
        elif not any(bool(f.any()) for f in found):
            if self.trace is not None and self.trace.scale == 0:
                sentence = "The score is exactly 0, and so is all relevance."
                self._add("attnlrp", "not applicable", sentence)
                return
            sentence = f"AttnLRP gives 0 everywhere.{self._at_the_end()}"
            self._add("attnlrp", "fail", sentence)
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
                        f"Only one kind of attention is there: {message_of(error)}",
                    )
                    return
                found.append(self._relevance(AttnLRP, self.model, self.inputs))
        self._compare(
            "attention",
            relative_error(*reversed(found)),
            "AttnLRP is the same with fused and with written-out attention",
            "AttnLRP differs between fused and written-out attention",
        )

    def _batch(self) -> None:
        if self._nested("batch"):
            return
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
        other = map_examples(one, other_example)
        two = map_examples(one, lambda t: torch.cat([t, other_example(t)]))
        both = target * 2 if isinstance(target, list) else target
        if isinstance(target, Tensor):
            both = target.repeat(2) if target.numel() == 1 and target.dim() else target
        alone = self._runs("batch", "one example alone", one, target)
        beside = self._runs("batch", "another example alone", other, target)
        together = self._runs("batch", "two examples", two, both)
        if alone is None or beside is None or together is None:
            return
        if together.numel() != 2:
            self._add(
                "batch",
                "not applicable",
                "The model returns one score for the whole batch.",
            )
            return
        apart = torch.cat([alone.reshape(1), beside.reshape(1)])
        mixed = relative_error(together, apart)
        if mixed > self.tolerance:
            self._add(
                "batch",
                "fail",
                "The model itself mixes examples: of two, the score of one changes by "
                f"{100 * mixed:.2g} % when the other stands beside it. Explain one "
                "example at a time.",
                measured=mixed,
                tolerance=self.tolerance,
            )
            return
        found = tensors_of(self._relevance(CPLRP, self.model, two, both))
        worst = relative_error(
            [relevance[:1] for relevance in found],
            self._relevance(CPLRP, self.model, one, target),
        )
        self._compare(
            "batch",
            worst,
            "Relevance does not depend on what else is in the batch",
            "Relevance of an example depends on its neighbours, though its score does "
            "not",
        )

    def _runs(self, name: str, what: str, inputs: Any, target: Any) -> Tensor | None:
        """Return the scores of other inputs, or say that the model does not take them.

        Many models are bound to the shapes that they were built or exported with.
        """
        try:
            with torch.no_grad():
                return self._scores(self.model, inputs, target)
        except Exception as error:  # the model is the user's
            if all(one.name != name for one in self.checks):
                self._add(
                    name,
                    "not applicable",
                    f"Could not be measured because the model does not run with "
                    f"{what}: {named(error)}",
                )
            return None

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
        short = self._runs("padding", "these inputs once more", self.inputs, target)
        long = self._runs("padding", "two more places of padding", padded, target)
        if short is None or long is None:
            return
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
        (plain, *_) = tensors_of(
            self._relevance(CPLRP, self.model, self.inputs, target)
        )
        (found, *_) = tensors_of(self._relevance(CPLRP, self.model, padded, target))
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
                "fail" if self.wanted else "not applicable",
                f"No copy in float64 was made: {self.why_not}. {advice}",
            )
            return
        errors = []
        for method in (CPLRP, AttnLRP):
            exact = self._relevance(method, self.model, self.inputs)
            found = self._relevance(method, self.original, self.given)
            errors.append(relative_error(found, exact))
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
                + self._at_the_end()
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
            else "Parameters, buffers, hooks and modes are as before.",
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
        more = () if self.arguments is None else self.arguments
        return call_with(model, inputs, more if isinstance(more, tuple) else (more,))

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
            with torch.no_grad():
                scores = output_tensor(self._call(twin, inputs), self.field)
        except Exception as error:  # any library may refuse to be copied or converted
            reason = f"the copy fails with {named(error)}"
            return self.original, self.given, reason
        if scores.dtype != torch.float64:
            reason = f"its scores are in {dtype_name(scores.dtype)} still"
            return self.original, self.given, reason
        return twin, inputs, ""


def _own_error(error: Exception, inputs: Any) -> str:
    """Return what to say of a model that fails before anything is explained."""
    called = "by keyword, model(**inputs)"
    if not isinstance(inputs, Mapping):
        called = "with the inputs and then additional_forward_args, model(*inputs, ...)"
    return (
        "The model itself fails on these inputs, before anything is explained: "
        f"{named(error)}. It was called {called}."
    )
