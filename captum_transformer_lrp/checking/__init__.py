"""Does relevance propagation hold for *this* model? Verified, not assumed.

:func:`check` explains a model's score and measures what has to be true of a correct
explanation: the forward pass is unchanged, relevance is conserved, the table without
rules gives torch's gradient, batch and padding do not matter, fused and written-out
attention agree, and the model is left as it was. What does not hold is named by module
and operator, with the line to write.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..core.registry import Row
from ..errors import DropoutWarning, HalfPrecisionWarning, ModelStateError
from ..known.compiled import Eagerly
from ..known.refusals import batch_norm_message
from .checker import TOLERANCES, Checker
from .report import Check, CheckReport


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
    - *cuts*: where the model itself detaches what carries relevance, computes under
      ``torch.no_grad``, or makes integers or a number of it; no failure, since what is
      behind counts as a constant, but a branch may be missing.
    - *forward*: the scores are the same under the rules as without them.
    - *conservation*: under CP-LRP the relevance of the inputs and what biases and other
      constants take add up to the score (:attr:`.Trace.conservation_error`); modules
      that lose relevance are named.
    - *gradient*: the table without rules gives input times torch's gradient.
    - *attnlrp*: AttnLRP, which does not conserve, gives finite relevance.
    - *attention*: AttnLRP agrees between fused and written-out attention.
    - *batch*: an example's relevance does not depend on its neighbours.
    - *padding*: nor on padding, which itself gets exactly 0.
    - *precision*: how far relevance in the model's precision is from that in float64.
    - *untouched*: parameters, hooks and modes are as before.

    The error of float32 grows with the depth of a model, and where relevance of both
    signs cancels, so that it cannot tell a small flaw of a rule from rounding. The
    checks are therefore made on a copy of the model in float64, where it fits into a
    quarter of the free memory; the tolerance is 1e-6 there, 1e-3 in float32 and 5e-2 in
    half precision.

    Whatever goes wrong in a measurement is a line of the report with its reason: a
    model that is bound to its batch size, as an exported one, is measured without other
    sizes. If the model itself fails on the inputs, that is the only finding, *model*.

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
        in_float64 (bool, optional): measure on a copy in float64; with True it is a
            failure where there can be none. Default: None, if the copy fits
        tolerance (float, optional): for all checks, instead of those above.
            Default: None

    Returns:
        *CheckReport*: ``report.passed``, ``report["conservation"]``, ``print(report)``.

    Raises:
        TypeError: if ``model`` is no module.
        UnknownNameError: if a key of ``rules`` is no kind and no known operator.
        TargetError, OutputError: if the target or the output field does not fit the
            model, or it returns no scores; all else that is wrong is in the report.
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
    with warnings.catch_warnings(), Eagerly():  # as the engine runs it
        for said in (DropoutWarning, HalfPrecisionWarning):  # by the report
            warnings.simplefilter("ignore", said)
        return Checker(
            model,
            inputs,
            target,
            additional_forward_args,
            rules=rules,
            output_field=output_field,
            in_float64=in_float64,
            tolerance=tolerance,
        ).report()


__all__ = ["TOLERANCES", "Check", "CheckReport", "check"]
