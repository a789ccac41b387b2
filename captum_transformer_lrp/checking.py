"""Does relevance propagation hold for *this* model? Verified, not assumed.

:func:`check` explains a model's score and measures what has to be true of a correct
explanation: the forward pass is unchanged, relevance is conserved, the table without
rules gives torch's gradient, batch and padding do not matter, fused and written-out
attention agree, and the model is left as it was. What does not hold is named by module
and operator, with the line to write.
"""

from __future__ import annotations

import copy
import os
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._dynamo.eval_frame import OptimizedModule

from .attribution import CPLRP, AttnLRP, GradientXInput
from .attribution.inputs import KNOWN_KEYS
from .attribution.scores import output_tensor, select_scores
from .attribution.single_pass import run_once
from .errors import (
    DropoutWarning,
    LRPError,
    ModelStateError,
    OutputError,
    UnknownNameError,
    UnknownOperatorError,
)
from .propagation.composites import CP_LRP
from .propagation.engine import batch_norm_message
from .propagation.registry import Row
from .propagation.trace import Trace

Outcome = Literal["pass", "fail", "not applicable"]

#: what counts as equal, relative to the score or to the largest relevance, by the
#: precision in which it is measured
TOLERANCES: dict[torch.dtype, float] = {
    torch.float64: 1e-6,
    torch.float32: 1e-3,
    torch.bfloat16: 5e-2,
    torch.float16: 5e-2,
}
#: where a Hugging Face output keeps scores that are not called logits
_SCORE_FIELDS = (
    "logits",
    "start_logits",
    "prediction_logits",
    "logits_per_image",
    "prediction_outputs",
)
_NAMED_AT_MOST = 6


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was measured.

    Attributes:
        name (str): what, in one or two words.
        outcome (str): ``"pass"``, ``"fail"`` or ``"not applicable"``.
        sentence (str): what was found, and what it means.
        measured (float, optional): the error, relative. Default: None
        tolerance (float, optional): what would still pass. Default: None
        details (tuple of str): one line for each module or operator concerned.
    """

    name: str
    outcome: Outcome
    sentence: str
    measured: float | None = None
    tolerance: float | None = None
    details: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What :func:`check` found; prints itself.

    Attributes:
        model (str): class of the model.
        dtype (str): its precision.
        measured_in (str): the precision of the measurements.
        checks (tuple of Check): in the order in which they were made.
        trace (Trace, optional): what every operator received and passed on under
            CP-LRP, for a closer look. Default: None
    """

    model: str
    dtype: str
    measured_in: str
    checks: tuple[Check, ...]
    trace: Trace | None = field(default=None, repr=False)

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(c for c in self.checks if c.outcome == "fail")

    def __getitem__(self, name: str) -> Check:
        """Return the check of that name.

        Raises:
            UnknownNameError: if there is none.
        """
        for one in self.checks:
            if one.name == name:
                return one
        names = ", ".join(repr(c.name) for c in self.checks)
        raise UnknownNameError(f"there is no check {name!r}; this report has {names}.")

    def to_records(self) -> list[dict[str, Any]]:
        """Return the checks as dictionaries, for pandas or JSON."""
        return [asdict(one) for one in self.checks]

    def __str__(self) -> str:
        """Print one line per check, and a verdict."""
        marks = {"pass": "pass", "fail": "FAIL", "not applicable": "n/a "}
        width = max(len(c.name) for c in self.checks)
        indent = " " * (8 + width)
        lines = [f"{self.model} in {self.dtype}, measured in {self.measured_in}"]
        for one in self.checks:
            start = f"  {marks[one.outcome]}  {one.name:{width}}  "
            lines += textwrap.wrap(
                one.sentence,
                88,
                initial_indent=start,
                subsequent_indent=indent + "  ",
                break_on_hyphens=False,
                break_long_words=False,
            )
            lines += [f"{indent}    {line}" for line in one.details]
        lines.append(self.verdict)
        return "\n".join(lines)

    @property
    def verdict(self) -> str:
        """The report in one sentence."""
        if self.passed:
            return "Passed: the rules hold for this model."
        names = ", ".join(c.name for c in self.failed)
        return f"Failed: {names}. The lines above say where and what to write."


def check(
    model: nn.Module,
    inputs: Tensor | tuple[Tensor, ...] | Mapping[str, Any],
    target: Any = None,
    additional_forward_args: Any = None,
    *,
    rules: Mapping[Any, Row] | None = None,
    output_field: str | int | None = None,
    in_float64: bool | None = None,
    tolerance: float | None = None,
) -> CheckReport:
    """Verify that relevance propagation holds for a model.

    The checks, each with an outcome and a sentence:

    - *operators*: every operator on the way to the score has a rule, and can be seen.
    - *forward*: the scores are the same under the rules as without them.
    - *conservation*: under CP-LRP the relevance of the inputs and what biases and other
      constants take add up to the score; modules that lose relevance are named.
    - *gradient*: the table without rules gives input times torch's gradient.
    - *attnlrp*: AttnLRP, which does not conserve, gives finite relevance.
    - *attention*: AttnLRP agrees between fused and written-out attention.
    - *batch*: an example's relevance does not depend on its neighbours.
    - *padding*: nor on padding, which itself gets exactly 0.
    - *precision*: how far relevance in the model's precision is from that in float64.
    - *untouched*: parameters, hooks, modes and random state are as before.

    The error of float32 grows with the depth of a model, and where relevance of both
    signs cancels, so that it cannot tell a small flaw of a rule from rounding. The
    checks are therefore made on a copy of the model in float64, where it fits into a
    quarter of the free memory; the tolerance is 1e-6 there, 1e-3 in float32 and 5e-2 in
    half precision.

    Args:
        model (nn.Module): the model, in eval mode.
        inputs (Tensor, tuple of Tensor, or Mapping): as for
            :meth:`.TransformerLRP.attribute`; what a tokenizer or image processor
            returns. One example is enough.
        target (int, tuple, Tensor or list, optional): which score. Default: None, the
            largest of each example; of a sequence of scores that at its end
        additional_forward_args (Any, optional): passed on after the inputs. With them
            the batch check is not applicable. Default: None
        rules (Mapping, optional): rows laid over the tables of CP-LRP and AttnLRP, as
            for :class:`.TransformerLRP`: checks your own rules. Default: None
        output_field (str or int, optional): which field of the model's output holds the
            scores. Default: None, the tensor itself or its ``logits``
        in_float64 (bool, optional): measure on a copy in float64. Default: None, if the
            copy fits
        tolerance (float, optional): for all checks, instead of those above.
            Default: None

    Returns:
        *CheckReport*: ``report.passed``, ``report["conservation"]``, ``print(report)``.

    Raises:
        TypeError: if ``model`` is no module.
        UnknownNameError: if a key of ``rules`` is no kind and no known operator.
        InputError, TargetError, OutputError: if the inputs or the target do not fit the
            model; what is wrong with the rules is in the report.
        ModelStateError: with batch normalisation in training mode, which a forward pass
            would change.

    Examples::

        >>> report = check(model, tokenizer("A warm film.", return_tensors="pt"))
        >>> print(report)
        >>> assert report.passed
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"check() got a {type(model).__name__}; expected a torch.nn.Module, whose "
            "modules and parameters can be looked at."
        )
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.training and module.running_mean is not None:
                raise ModelStateError(batch_norm_message(name))
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", DropoutWarning)  # the report says it
        if any(map(_is_compiled, model.modules())):  # as the engine runs it
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        return _Checker(
            model,
            inputs,
            target,
            additional_forward_args,
            rules=rules,
            output_field=output_field,
            in_float64=in_float64,
            tolerance=tolerance,
        ).report()


class _Checker:
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
        self.before = _state(model)
        self.arguments = arguments
        self.rules = dict(rules or {})
        self.field = output_field
        self.dtype = _dtype_of(model, inputs)
        self.field = output_field
        self.checks: list[Check] = []
        self.trace: Trace | None = None
        self.unknown: Literal["raise", "gradient"] = "raise"
        self.given = inputs
        self._method(CPLRP, model)  # now rather than as a finding: rules that are none
        with torch.no_grad(), _random_state_kept():
            output = self._call(model, inputs)
            self.field = _field_of(output, output_field)
            scores = output_tensor(output, self.field)
            again = output_tensor(self._call(model, inputs), self.field)
        self.deterministic = bool(torch.equal(scores, again))
        self.scores = scores
        self.target = target
        if target is None:
            self.target = _prediction(scores, inputs)
        select_scores(scores, self.target, examples=_examples(inputs))
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
            dtype=_name(self.dtype),
            measured_in=_name(self.precision),
            checks=tuple(self.checks),
            trace=self.trace,
        )

    def _guarded(self, step: Callable[[], None]) -> None:
        """Make a check; what this package refuses to explain is a failure of it."""
        try:
            step()
        except LRPError as error:
            self._add(step.__name__.strip("_"), "fail", _one_line(error))

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
                self._add("explainable", "fail", _one_line(further))
                return False
            return True
        except LRPError as error:
            self._add("operators", "fail", f"Cannot be explained: {_one_line(error)}")
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
        with torch.no_grad(), _random_state_kept():
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
            _relative(under, plain),
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
        expected = _input_times_gradient(
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
            max(_relative(f, e) for f, e in zip(_listed(found), expected, strict=True)),
            "Without rules, relevance is input times torch's gradient",
            "Without rules, relevance differs from input times torch's gradient",
        )

    def _attnlrp(self) -> None:
        found = _listed(self._relevance(AttnLRP, self.model, self.inputs))
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
        with _attention_switch(self.model) as switch:
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
                        f"Only one kind of attention is there: {_one_line(error)}",
                    )
                    return
                found.append(self._relevance(AttnLRP, self.model, self.inputs))
        self._compare(
            "attention",
            max(map(_relative, *(map(_listed, reversed(found))))),
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
        one = _map_examples(self.inputs, lambda t: t[:1])
        two = _map_examples(one, lambda t: torch.cat([t, _other(t)]))
        both = target * 2 if isinstance(target, list) else target
        if isinstance(target, Tensor):
            both = target.repeat(2) if target.numel() == 1 and target.dim() else target
        try:
            with torch.no_grad(), _random_state_kept():
                alone = self._scores(self.model, one, target)
                together = self._scores(self.model, two, both)
        except LRPError as error:
            self._add("batch", "not applicable", _one_line(error))
            return
        if together.numel() != 2:
            self._add(
                "batch",
                "not applicable",
                "The model returns one score for the whole batch.",
            )
            return
        mixed = _relative(together[:1], alone.reshape(1))
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
        error = max(
            _relative(b[:1], a)
            for a, b in zip(
                _listed(self._relevance(CPLRP, self.model, one, target)),
                _listed(self._relevance(CPLRP, self.model, two, both)),
                strict=True,
            )
        )
        self._compare(
            "batch",
            error,
            "Relevance does not depend on what else is in the batch",
            "Relevance of an example depends on its neighbours, though its score does "
            "not",
        )

    def _padding(self) -> None:
        padded = _padded(self.inputs, self.model)
        if padded is None:
            self._add(
                "padding",
                "not applicable",
                "The inputs are not token ids with an attention mask.",
            )
            return
        length = self.inputs["input_ids"].shape[1]
        target = _from_the_start(self.target, self.scores)
        with torch.no_grad(), _random_state_kept():
            short = self._scores(self.model, self.inputs, target)
            long = self._scores(self.model, padded, target)
        changed = _relative(long, short)
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
        (plain, *_) = _listed(self._relevance(CPLRP, self.model, self.inputs, target))
        (found, *_) = _listed(self._relevance(CPLRP, self.model, padded, target))
        if bool(found[:, length:].any()):
            self._add("padding", "fail", "Padding receives relevance.")
            return
        self._compare(
            "padding",
            _relative(found[:, :length], plain),
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
            exact = _listed(self._relevance(method, self.model, self.inputs))
            found = _listed(self._relevance(method, self.original, self.given))
            errors.append(max(map(_relative, found, exact)))
        allowed = TOLERANCES.get(self.dtype, 1e-3) * 10
        fine = max(errors) <= allowed
        self._add(
            "precision",
            "pass" if fine else "fail",
            f"Relevance in {_name(self.dtype)} differs from that in float64 by "
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
        after = _state(self.original)
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
            return model(**inputs)
        given = inputs if isinstance(inputs, tuple) else (inputs,)
        if self.arguments is None:
            return model(*given)
        more = (
            self.arguments if isinstance(self.arguments, tuple) else (self.arguments,)
        )
        return model(*given, *more)

    def _scores(self, model: nn.Module, inputs: Any, target: Any = None) -> Tensor:
        output = output_tensor(self._call(model, inputs), self.field)
        target = self.target if target is None else target
        return select_scores(output, target, examples=_examples(inputs))

    def _to_measure(self, wanted: bool | None) -> tuple[nn.Module, Any, str]:
        """Return the model and inputs to measure with, and why it is no copy."""
        if self.dtype == torch.float64 or wanted is False:
            return self.original, self.given, "it was not wanted"
        if wanted is None:
            needed = 8 * sum(t.numel() for t in self.original.parameters())
            device = next((p.device for p in self.original.parameters()), None)
            free = _free_memory(device)
            if free is not None and needed > free / 4:
                return (
                    self.original,
                    self.given,
                    f"it would take {needed / 1e9:.1f} GB of {free / 1e9:.1f} GB",
                )
        inputs = _map_tensors(
            self.given, lambda t: t.double() if t.is_floating_point() else t
        )
        try:
            twin = copy.deepcopy(self.original).double()
            with torch.no_grad(), _random_state_kept():
                scores = output_tensor(self._call(twin, inputs), self.field)
        except Exception as error:  # any library may refuse to be copied or converted
            if wanted:
                raise
            reason = f"the copy fails with {type(error).__name__}: {_one_line(error)}"
            return self.original, self.given, reason
        if scores.dtype != torch.float64:
            reason = f"its scores are in {_name(scores.dtype)} still"
            return self.original, self.given, reason
        return twin, inputs, ""


# ---------------------------------------------------------------------- what is given


def _field_of(output: Any, field: str | int | None) -> str | int | None:
    """Return the field of an output that holds scores."""
    if field is not None or isinstance(output, Tensor):
        return field
    if isinstance(output, Mapping):
        for name in _SCORE_FIELDS:
            if isinstance(output.get(name), Tensor):
                return name
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        return None if hasattr(output, "_fields") else 0
    return None


def _prediction(scores: Tensor, inputs: Any) -> Any:
    """Return the largest score of each example; of a sequence, at its last token."""
    if scores.dim() < 2:
        return None
    if not len(scores) or not scores[0].numel():
        raise OutputError(f"the model's scores have shape {tuple(scores.shape)}.")
    if scores.dim() == 2:
        return [int(i) for i in scores.argmax(-1)]
    if scores.dim() == 3:
        ends = [scores.shape[1] - 1] * len(scores)
        mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
        if isinstance(mask, Tensor) and mask.shape == scores.shape[:2]:
            ends = [int(m.nonzero().max()) if m.any() else 0 for m in mask]
        return [
            (end, int(s[end].argmax())) for end, s in zip(ends, scores, strict=True)
        ]
    return [
        tuple(int(i) for i in torch.unravel_index(s.argmax(), s.shape)) for s in scores
    ]


def _from_the_start(target: Any, scores: Tensor) -> Any:
    """Return a target whose positions are counted from the start of the text."""
    if isinstance(target, list):
        return [_from_the_start(t, scores) for t in target]
    if isinstance(target, tuple) and target and isinstance(target[0], int):
        first = target[0] + scores.shape[1] if target[0] < 0 else target[0]
        return (first, *target[1:])
    return target


def _first(inputs: Any) -> Tensor | None:
    if isinstance(inputs, Mapping):
        return next(
            (inputs[k] for k in KNOWN_KEYS if isinstance(inputs.get(k), Tensor)), None
        )
    first = inputs[0] if isinstance(inputs, tuple) and inputs else inputs
    return first if isinstance(first, Tensor) else None


def _examples(inputs: Any) -> int:
    first = _first(inputs)
    return 1 if first is None or not first.dim() else int(first.shape[0])


def _map_tensors(inputs: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(inputs, Tensor):
        return function(inputs)
    if isinstance(inputs, tuple):
        return tuple(_map_tensors(x, function) for x in inputs)
    if isinstance(inputs, Mapping):
        return {k: _map_tensors(x, function) for k, x in inputs.items()}
    return inputs


def _map_examples(inputs: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function to what has one row for each example."""
    examples = _examples(inputs)

    def apply(tensor: Tensor) -> Tensor:
        rows = tensor.dim() > 0 and tensor.shape[0] == examples
        return function(tensor) if rows else tensor

    return _map_tensors(inputs, apply)


def _other(example: Tensor) -> Tensor:
    """Return another example of the same shape: masks stay, values change."""
    if example.is_floating_point():
        return -0.5 * example.flip(-1)
    if example.dtype == torch.bool or int(example.max()) <= 1:
        return example
    return example.flip(-1)


def _padded(inputs: Any, model: nn.Module) -> dict[str, Any] | None:
    """Return token ids and their mask with two places of padding on the right."""
    if not isinstance(inputs, Mapping):
        return None
    ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
    if not (isinstance(ids, Tensor) and isinstance(mask, Tensor)):
        return None
    if ids.dim() != 2 or mask.shape != ids.shape:
        return None
    pad = getattr(getattr(model, "config", None), "pad_token_id", None)
    fill = {"input_ids": pad if isinstance(pad, int) and pad >= 0 else 0}

    def longer(name: str, value: Any) -> Any:
        if isinstance(value, Tensor) and value.shape == ids.shape:
            return nn.functional.pad(value, (0, 2), value=fill.get(name, 0))
        return value

    return {k: longer(k, v) for k, v in inputs.items()}


# ---------------------------------------------------------------- independent measures


def _input_times_gradient(
    model: nn.Module, scores: Callable[[Any], Tensor], inputs: Any
) -> list[Tensor] | None:
    """Return input times torch's gradient, outside the engine; None without a leaf.

    Token ids are followed through the embeddings that were called with them.
    """
    names = [k for k in KNOWN_KEYS if isinstance(inputs, Mapping) and k in inputs]
    if isinstance(inputs, Mapping):
        explained = [inputs[k] for k in names if isinstance(inputs[k], Tensor)]
    else:
        explained = list(inputs) if isinstance(inputs, tuple) else [inputs]
    found: dict[int, list[Tensor]] = {i: [] for i in range(len(explained))}
    leaves: dict[int, Tensor] = {}

    def watch(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if not args or not isinstance(output, Tensor):
            return None
        for i, ids in enumerate(explained):
            if not ids.is_floating_point() and _same(args[0], ids):
                leaf = output.detach().requires_grad_()
                found[i].append(leaf)
                return leaf.clone()
        return None

    def with_leaf(tensor: Tensor) -> Tensor:
        for i, x in enumerate(explained):
            if tensor is x and x.is_floating_point():
                leaves[i] = x.detach().requires_grad_()
                found[i].append(leaves[i])
                return leaves[i].clone()
        return tensor

    with torch.enable_grad(), _random_state_kept():
        handles = [
            module.register_forward_hook(watch)
            for module in model.modules()
            if isinstance(module, nn.Embedding)
        ]
        try:
            total = scores(_map_tensors(inputs, with_leaf)).sum()
        finally:
            for handle in handles:
                handle.remove()
    if not all(found.values()):
        return None
    wanted = [leaf for group in found.values() for leaf in group]
    gradients = iter(torch.autograd.grad(total, wanted, allow_unused=True))
    result = []
    mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
    for i, x in enumerate(explained):
        sums = torch.zeros(x.shape, dtype=torch.float64, device=x.device)
        for leaf in found[i]:
            gradient = next(gradients)
            if gradient is not None:
                product = (leaf.detach() * gradient).double()
                sums += product if i in leaves else product.sum(-1)
        if isinstance(mask, Tensor) and i not in leaves and mask.shape == x.shape:
            sums = sums * (mask != 0)
        result.append(sums)
    return result


def _same(given: Any, ids: Tensor) -> bool:
    return isinstance(given, Tensor) and torch.equal(given, ids)


@contextmanager
def _attention_switch(
    model: nn.Module,
) -> Iterator[Callable[[bool], None] | None]:
    """Yield what turns fused attention on and off, None where there is no switch.

    Hugging Face models choose by their configuration, timm's by an attribute of each
    attention module. All is put back in the end.
    """
    modules = [
        m for m in model.modules() if isinstance(vars(m).get("fused_attn"), bool)
    ]
    configs = {
        id(c): c
        for c in (vars(m).get("config") for m in model.modules())
        if hasattr(c, "_attn_implementation_internal")
    }
    setter = getattr(model, "set_attn_implementation", None)
    if not modules and not (configs and callable(setter)):
        yield None
        return
    saved = [(m, m.fused_attn) for m in modules]
    chosen = [(c, c._attn_implementation_internal) for c in configs.values()]

    def switch(fused: bool) -> None:
        for module in modules:
            module.fused_attn = fused  # type: ignore[assignment]
        if callable(setter):
            setter("sdpa" if fused else "eager")

    try:
        yield switch
    finally:
        for module, value in saved:
            module.fused_attn = value  # type: ignore[assignment]
        for config, implementation in chosen:
            config._attn_implementation_internal = implementation


def _state(model: nn.Module) -> dict[str, Any]:
    """Return what an explanation must leave alone, to compare; no copies of weights."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    modules = list(model.modules())
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    return {
        "parameters or buffers": {
            name: (id(t), t.data_ptr(), t._version, t.dtype, t.device)
            for name, t in tensors.items()
            if not t.is_meta
        },
        "gradients": {n: id(t.grad) for n, t in tensors.items() if t.is_leaf},
        "requires_grad": {n: t.requires_grad for n, t in tensors.items()},
        "training mode": [m.training for m in modules],
        "attributes of modules": [sorted(vars(m)) for m in modules],
        "hooks": [[list(getattr(m, name)) for name in hooks] for m in modules],
        "the random state": torch.get_rng_state().tolist(),
    }


@contextmanager
def _random_state_kept() -> Iterator[None]:
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)


def _relative(found: Tensor, expected: Tensor) -> float:
    """Return ``max |found - expected| / max |expected|``."""
    found, expected = found.detach().double(), expected.detach().double()
    if found.shape != expected.shape:
        return float("inf")
    difference = (found - expected).abs().max()
    scale = expected.abs().max()
    return float(difference / scale) if scale > 0 else float(difference)


def _listed(relevance: Any) -> list[Tensor]:
    if isinstance(relevance, Mapping):
        return list(relevance.values())
    return [relevance] if isinstance(relevance, Tensor) else list(relevance)


def _is_compiled(module: nn.Module) -> bool:
    compiled = getattr(module, "_compiled_call_impl", None) is not None
    return compiled or isinstance(module, OptimizedModule)


def _dtype_of(model: nn.Module, inputs: Any) -> torch.dtype:
    tensors = (*model.parameters(), *model.buffers())
    for tensor in tensors:
        if tensor.is_floating_point():
            return tensor.dtype
    first = _first(inputs)
    floats = first is not None and first.is_floating_point()
    return first.dtype if first is not None and floats else torch.float32


def _free_memory(device: torch.device | None) -> int | None:
    """Return the free memory in bytes, None where the system does not say."""
    if device is not None and device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if "SC_AVPHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


__all__ = ["TOLERANCES", "Check", "CheckReport", "check"]
