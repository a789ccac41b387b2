"""What can go wrong, with messages that a user can act on.

Every message says what arrived, what was expected and what to write instead. All
classes derive from :class:`LRPError` and from the builtin exception that a caller
would expect, so that ``except ValueError`` keeps working.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LRPError(Exception):
    """Base of all errors that this package raises on purpose."""


class InputError(LRPError, ValueError):
    """The inputs cannot be explained as they are (empty, NaN, dtype, device, keys)."""


class ArgumentError(LRPError, TypeError):
    """A method was called with an argument that it does not take."""


class TargetError(LRPError, ValueError, AssertionError):
    """The target does not select one score per example of the model's output."""


class OutputError(LRPError, TypeError):
    """The forward function returned something from which no score can be selected."""


class DisconnectedError(LRPError, RuntimeError):
    """No relevance can reach the inputs: the score does not depend on them."""


class AttentionError(LRPError, ValueError):
    """The model's attention cannot be mapped to its inputs."""


class UnitError(LRPError, ValueError):
    """Heads, neurons or experts of a layer cannot be told apart or do not exist."""


class InsightsError(LRPError, ImportError):
    """Captum Insights is not there to register methods with."""


class UnknownOperatorError(LRPError, RuntimeError):
    """The model uses differentiable operators for which the composite has no rule."""


class RuleError(LRPError, ValueError):
    """A rule was given to a module, or a kind of operator, that it does not fit."""


class UnknownOperatorWarning(UserWarning):
    """Like :class:`UnknownOperatorError`, when ``unknown="warn"`` was asked for."""


class DropoutWarning(UserWarning):
    """Dropout was active while the model was explained.

    Each pass draws from torch's generators as any forward pass does; the state is not
    put back. For the same draw again call ``torch.manual_seed`` before, for a generator
    that goes on as if nothing had been drawn explain within ``torch.random.fork_rng()``
    (which other threads notice).
    """


class NotFiniteWarning(UserWarning):
    """Relevance holds NaN or infinity."""


class ConstantInputWarning(UserWarning):
    """An input that a method could explain is held constant by it."""


class PairsWarning(UserWarning):
    """Several pictures are explained together for one of several texts, or so."""


class HalfPrecisionWarning(UserWarning):
    """A method that half precision is not enough for explained such a model."""


class DuplicateRuleError(LRPError, ValueError):
    """A rule or a method is registered twice under the same key."""


class UnknownNameError(LRPError, ValueError):
    """A method, composite, kind, operator or field of that name does not exist."""


class ModelStateError(LRPError, RuntimeError):
    """The model or torch is in a state in which it cannot be explained faithfully."""


class TraceError(LRPError, RuntimeError):
    """A method has no trace: no rules hand its scores on from operator to operator."""


class NotFittedError(LRPError, RuntimeError):
    """Masks are asked for before they were trained."""


def suggestion(name: str, names: Iterable[str]) -> str:
    """Return ``" Did you mean ...?"`` with the nearest names, or all of them."""
    known = sorted(str(n) for n in names)
    near = difflib.get_close_matches(name.lower(), [k.lower() for k in known], n=3)
    if near:
        spelled = [next(k for k in known if k.lower() == n) for n in near]
        return f" Did you mean {' or '.join(repr(n) for n in spelled)}?"
    return f" Known: {', '.join(known)}." if known else ""
