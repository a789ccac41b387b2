"""The check of one architecture: conservation, measured, and what an explanation owes.

An :class:`Entry` builds a tiny model with random weights. :func:`examine` runs the
engine on it and returns a :class:`Record`. Where the entries come from is not this
module's business: see ``transformers_models`` and ``timm_models``.

All figures are relative. Two of them carry the bar (:data:`TOLERANCE`):

``conservation``
    ``trace.unseen``, ``|score - relevance - absorbed| / |score|`` of the trace under
    CP-LRP: nothing is lost between operators.
``loss``
    ``trace.conservation_error``, ``|score - relevance - constant| / |score|``: what the
    trace calls absorbed is what biases, positions and the like put in, and no rule
    passes on too much or too little.
"""

from __future__ import annotations

import contextlib
import re
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from captum_transformer_lrp import CPLRP, AttnLRP, GradientXInput, TransformerLRP
from captum_transformer_lrp._forms import KNOWN_KEYS
from captum_transformer_lrp.attribution.precision import Raised
from captum_transformer_lrp.errors import LRPError, UnknownOperatorError
from captum_transformer_lrp.observers.trace import Trace
from tests.helpers import assert_same_state, state_of

TOLERANCE = 1e-6
#: for models that compute parts of themselves in float32 whatever their dtype
FLOAT32_TOLERANCE = 1e-4

Built = tuple[nn.Module, Any, Any]
Method = type[TransformerLRP]


@dataclass(frozen=True)
class Refusal:
    """What is owed instead of a number, where a model cannot be explained.

    Args:
        error (str): how it begins: the name of a subclass of ``LRPError``, and its
            message.
        why (str): in plain words, for the page.
    """

    error: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One architecture to examine.

    Args:
        name (str): unique within its group.
        group (str): such as ``"causal LM"`` or ``"timm"``.
        build (Callable): returns the model in evaluation mode in float64, the inputs
            (a tensor with the examples in dimension 0, or a mapping as a tokenizer
            gives it), and the target (None: the largest score is explained).
        output_field (str, optional): the field of the output that holds the scores.
            Default: ``"logits"``, or a tensor itself
        fused (Callable, optional): takes the model and returns a context in which its
            attention runs fused, or None where it has no such way. Default: None
        float32 (str, optional): the part of a float64 model that computes in float32,
            named; its precision is then asked for :data:`FLOAT32_TOLERANCE`.
            Default: ``""``
        refused (Refusal, optional): what CP-LRP, or AttnLRP, owes instead of a number.
            Methods that do explain the model are checked as ever. Default: None
    """

    name: str
    group: str
    build: Callable[[], Built]
    output_field: str | None = None
    fused: Callable[[nn.Module], AbstractContextManager[Any] | None] | None = None
    float32: str = ""
    refused: Refusal | None = None

    @property
    def key(self) -> str:
        """The name in records and files."""
        return f"{self.group}/{self.name}"


@dataclass(kw_only=True)
class Record:
    """What was found out about one entry; everything is plain data.

    Attributes:
        status (str): ``"passed"``, ``"refused"`` as the entry says, ``"failed"``, or
            ``"not built"``.
        cause (str): of a failure or refusal, one line.
        why (str): a refusal is right.
        explained_by (list of str): methods that explain what another one refuses.
        tolerance (float): that the checks were held to.
        conservation (float): see the module.
        loss (float): see the module.
        rules (list of str): rules given to module classes, ``"class: rule"``.
        unknown (list of str): operators without a rule.
        notes (list of str): checks that could not be applied, and why.
        seconds (float): for everything.
    """

    name: str
    group: str
    status: str = "failed"
    cause: str = ""
    why: str = ""
    explained_by: list[str] = field(default_factory=list)
    tolerance: float = TOLERANCE
    conservation: float | None = None
    loss: float | None = None
    rules: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    parameters: int = 0
    seconds: float = 0.0
    where: str = ""


class CheckError(Exception):
    """A check did not hold."""


def examine(entry: Entry) -> Record:
    """Build an entry and check all that its explanation owes."""
    start = time.perf_counter()
    record = Record(name=entry.name, group=entry.group)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                model, inputs, target = entry.build()
                record.parameters = sum(p.numel() for p in model.parameters())
                try:
                    output = _finite(_run(entry, model, inputs), target)
                except (RuntimeError, CheckError) as error:  # not in float64?
                    model, inputs = model.float(), _float(inputs)
                    output = _finite(_run(entry, model, inputs), target)
                    part = f"all of it, since in float64: {describe(error)[:90]}"
                    entry = replace(entry, float32=part)
            except Exception as error:
                record.status, record.cause = "not built", describe(error)
                record.where = traceback.format_exc()[-3000:]
                return record
            before = state_of(model)
            _check(entry, record, model, inputs, target, output)
            _check_unchanged(model, before)
        if entry.refused:
            raise CheckError(f"a number instead of {entry.refused.error}")
        record.status = "passed"
    except LRPError as error:
        if isinstance(error, UnknownOperatorError):
            record.unknown = _unknown_names(str(error))
        record.cause = describe(error)
        if entry.refused and record.cause.startswith(entry.refused.error):
            record.status, record.why = "refused", entry.refused.why
        elif record.unknown:
            record.cause = f"no rule for {', '.join(record.unknown)}"
    except Exception as error:
        record.cause = describe(error)
        record.where = traceback.format_exc()[-3000:]
    finally:
        record.seconds = round(time.perf_counter() - start, 2)
    return record


def _finite(output: Tensor, target: Any) -> Tensor:
    chosen = largest(output) if target is None else target
    if not torch.isfinite(_scores(output, chosen)).all():
        raise CheckError("the model's own output is not finite")
    return output


def _float(value: Any) -> Any:
    """Return inputs in float32."""
    if isinstance(value, Mapping):
        return {key: _float(item) for key, item in value.items()}
    wide = isinstance(value, Tensor) and value.is_floating_point()
    return value.float() if wide else value


def describe(error: BaseException) -> str:
    """Return an error in one line."""
    text = " ".join(str(error).split())
    name = "" if isinstance(error, CheckError) else f"{type(error).__name__}: "
    return name + (text if len(text) < 300 else text[:297] + "...")


def _unknown_names(message: str) -> list[str]:
    lines = re.findall(
        r"^  (?:autograd function )?(\S+?),?  ?(?:in|inside) ", message, re.M
    )
    return list(dict.fromkeys(lines))


# --------------------------------------------------------------------- the checks


def _check(
    entry: Entry,
    record: Record,
    model: nn.Module,
    inputs: Any,
    target: Any,
    out: Tensor,
) -> None:
    if entry.float32:
        record.tolerance = FLOAT32_TOLERANCE
        record.notes.append(f"float32 inside: {entry.float32}")
    target = largest(out) if target is None else target
    together: dict[Method, Any] = {}
    refusals: list[LRPError] = []
    for method, check in _CHECKS.items():
        try:
            found = check(entry, record, model, inputs, target, out)
        except LRPError as error:
            if not entry.refused:
                raise
            refusals.append(error)
            continue
        if found is not None:
            together[method] = found
    tolerance = record.tolerance
    if AttnLRP in together or refusals:
        _check_batch(entry, record, model, inputs, target, together, tolerance)
        _check_padding(entry, record, model, inputs, target, tuple(together), tolerance)
    if refusals:
        record.explained_by = [method(model).name for method in together]
        raise refusals[0]


def _check_accounted(
    entry: Entry,
    record: Record,
    model: nn.Module,
    inputs: Any,
    target: Any,
    out: Tensor,
) -> Any:
    """CP-LRP: all of the score is accounted for, and the trace tells of what it does.

    Returns its relevance.
    """
    expected, tolerance = _scores(out, target), record.tolerance
    lrp = CPLRP(model, output_field=entry.output_field)
    trace = lrp.trace(inputs, target=target)
    record.conservation = trace.unseen
    record.rules = module_rules(trace, model)
    _near("the traced score", trace.score, float(expected.sum()), tolerance)
    record.loss = trace.conservation_error
    if not max(record.conservation, record.loss) <= tolerance:
        # float32 inside a float64 model? then it holds where nothing is cast down
        with Raised(torch.float64):
            wide = lrp.trace(inputs, target=target)
        exact = max(wide.unseen, wide.conservation_error) <= TOLERANCE
        if exact and max(record.conservation, record.loss) <= FLOAT32_TOLERANCE:
            record.tolerance = tolerance = FLOAT32_TOLERANCE
            record.notes.append(
                "float32 inside: without its casts the error is "
                f"{wide.unseen:.0e}, the loss {wide.conservation_error:.0e}"
            )
    if not record.conservation <= tolerance:
        raise CheckError(f"unseen {record.conservation:.1e} of the score")
    if not record.loss <= tolerance:
        lost = [f"{o} in {m} {v:.1e}" for (m, o), v in trace.lost_by_module().items()]
        raise CheckError(f"loss {record.loss:.1e}: {'; '.join(lost[:4])}")
    found, delta = lrp.attribute(inputs, target=target, return_convergence_delta=True)
    total = sum(float(t.sum()) for t in _listed(found))
    scale = max(abs(trace.score), abs(trace.absorbed))
    _near("untraced relevance", total, trace.relevance, tolerance, scale)
    scores = float(delta.sum()) + total
    _near("the untraced score", scores, float(expected.sum()), tolerance, scale)
    if not all(torch.isfinite(t).all() for t in _listed(found)):
        raise CheckError("CP-LRP is not finite")
    return found


def _check_general(
    entry: Entry,
    record: Record,
    model: nn.Module,
    inputs: Any,
    target: Any,
    out: Tensor,
) -> Any:
    """AttnLRP: finite, and equal between eager and fused attention.

    Returns its relevance; None where it is not finite as the model's gradient is not.
    """
    general = AttnLRP(model, output_field=entry.output_field)
    eager = general.attribute(inputs, target=target)
    if not all(torch.isfinite(t).all() for t in _listed(eager)):
        if _has_gradient(entry, model, inputs, target):
            raise CheckError("AttnLRP is not finite")
        record.notes.append("AttnLRP: the model's own gradient is not finite")
        return None
    _check_fused(entry, record, model, inputs, target, eager)
    return eager


def _check_unchanged(model: nn.Module, before: Any) -> None:
    try:
        assert_same_state(before, state_of(model))
    except AssertionError as error:
        raise CheckError(f"the model has changed: {error}") from error


def _check_gradient(
    entry: Entry,
    record: Record,
    model: nn.Module,
    inputs: Any,
    target: Any,
    out: Tensor,
) -> None:
    """Gradient x Input against autograd."""
    oracle = gradient_times_input(entry, model, inputs, target)
    if isinstance(oracle, str):
        record.notes.append(f"Gradient x Input not compared: {oracle}")
        return
    explainer = GradientXInput(model, output_field=entry.output_field)
    found = explainer.attribute(inputs, target=target)
    found = found if isinstance(found, Mapping) else {"": found}
    for (key, expected), value in zip(oracle.items(), found.values(), strict=True):
        _same(f"Gradient x Input {key}", value, expected, record.tolerance)


_CHECKS: dict[Method, Callable[..., Any]] = {
    CPLRP: _check_accounted,
    GradientXInput: _check_gradient,
    AttnLRP: _check_general,
}


def _has_gradient(entry: Entry, model: nn.Module, inputs: Any, target: Any) -> bool:
    """Whether the model's own gradient is finite."""
    explainer = GradientXInput(model, output_field=entry.output_field)
    found = explainer.attribute(inputs, target=target)
    return all(bool(torch.isfinite(t).all()) for t in _listed(found))


def _check_fused(
    entry: Entry,
    record: Record,
    model: nn.Module,
    inputs: Any,
    target: Any,
    eager: Any,
) -> None:
    """AttnLRP under eager and fused attention."""
    tolerance = record.tolerance
    context = None if entry.fused is None else entry.fused(model)
    if context is None:
        record.notes.append("no fused attention")
        return
    with context:
        out = _run(entry, model, inputs)
        general = AttnLRP(model, output_field=entry.output_field)
        found = general.attribute(inputs, target=target)
    plain = _run(entry, model, inputs)
    if not _distance(out, plain) <= tolerance:
        record.notes.append("fused attention: the model's own output differs")
        return
    pairs = list(zip(_listed(found), _listed(eager), strict=True))
    if all(_distance(*pair) <= tolerance for pair in pairs):
        return
    # eager attention often takes its softmax in float32: once more without that
    with Raised(torch.float64):
        wide = general.attribute(inputs, target=target)
        with entry.fused(model) or nothing():
            found = general.attribute(inputs, target=target)
    record.notes.append("AttnLRP, fused against eager: in raised precision")
    for one, other in zip(_listed(found), _listed(wide), strict=True):
        _same(
            "AttnLRP, fused against eager, in float64 throughout", one, other, tolerance
        )


def _check_batch(
    entry: Entry,
    record: Record,
    model: nn.Module,
    inputs: Any,
    target: Any,
    together: Mapping[Method, Any],
    tolerance: float,
) -> None:
    """The first example alone against the batch."""
    examples = _examples(inputs)
    if examples < 2:
        record.notes.append("batch of one")
        return
    one = _first(inputs, examples)
    try:
        out, alone = _run(entry, model, inputs), _run(entry, model, one)
    except Exception as error:
        record.notes.append(f"one example alone does not run: {describe(error)[:80]}")
        return
    if alone.shape[1:] != out.shape[1:] or not _distance(alone, out[:1]) <= tolerance:
        record.notes.append("the model's own output depends on the batch")
        return
    for method, found in together.items():
        lrp = method(model, output_field=entry.output_field)
        expected = lrp.attribute(one, target=target)
        distance = _of_the_first(found, expected, examples)
        if distance <= tolerance:
            continue
        with Raised(torch.float64):  # casts to float32 round otherwise in a batch
            whole = lrp.attribute(inputs, target=target)
            single = lrp.attribute(one, target=target)
        exact = _of_the_first(whole, single, examples)
        what = f"{lrp.name}, batch against alone: differs by"
        if not (exact <= TOLERANCE and distance <= FLOAT32_TOLERANCE):
            raise CheckError(f"{what} {distance:.1e}")
        record.notes.append(
            f"float32 inside: {what} {distance:.0e}, without its casts by {exact:.0e}"
        )


def _of_the_first(found: Any, expected: Any, examples: int) -> float:
    """Return how the relevance of the first example differs from that of it alone."""
    pairs = zip(_listed(found), _listed(expected), strict=True)
    distances = [
        _distance(whole[:1], single)
        for whole, single in pairs
        if whole.shape[0] == examples and single.shape[0] == 1
    ]
    return float(torch.tensor([0.0, *distances]).max())  # NaN if one is


def _check_padding(
    entry: Entry,
    record: Record,
    model: nn.Module,
    inputs: Any,
    target: Any,
    methods: tuple[Method, ...],
    tol: float,
) -> None:
    """A text padded on either side against itself."""
    if not isinstance(inputs, Mapping) or set(inputs) != {"input_ids"}:
        return
    ids = inputs["input_ids"][:1]
    for side in ("right", "left"):
        differs = _differs_padded(entry, record, model, ids, target, methods, tol, side)
        if differs:
            raise CheckError(differs)


def _differs_padded(
    entry: Entry,
    record: Record,
    model: nn.Module,
    ids: Tensor,
    target: Any,
    methods: tuple[Method, ...],
    tol: float,
    side: str,
) -> str:
    """Return how relevance of a text differs from that of the text padded, or ``""``.

    Where the two cannot be compared, a note is made.
    """
    pad = getattr(getattr(model, "config", None), "pad_token_id", None)
    pad = pad if isinstance(pad, int) and pad >= 0 else 0
    filler = torch.full((1, 2, *ids.shape[2:]), pad, dtype=ids.dtype)
    ones, zeros = ids.new_ones(ids.shape[:2]), ids.new_zeros(filler.shape[:2])
    whole = {"input_ids": ids, "attention_mask": ones}
    tokens = ids.shape[1]
    order = slice(None) if side == "right" else slice(None, None, -1)
    padded = {
        "input_ids": torch.cat((ids, filler)[order], 1),
        "attention_mask": torch.cat((ones, zeros)[order], 1),
    }
    if isinstance(target, tuple):  # the same token, counted from the other end
        place = target[0] % tokens
        target = (place if side == "right" else place - tokens, *target[1:])
    try:
        long = _scores(_run(entry, model, padded), target)
        short = _scores(_run(entry, model, whole), target)
    except Exception as error:
        record.notes.append(f"{side} padding: {describe(error)[:80]}")
        return ""
    if not _distance(long, short) <= tol:
        record.notes.append(f"{side} padding changes the model's own score")
        return ""
    if not _has_gradient(entry, model, padded, target):
        record.notes.append(f"{side} padding: the model's own gradient is not finite")
        return ""
    keep = slice(0, tokens) if side == "right" else slice(-tokens, None)
    for method in methods:
        lrp = method(model, output_field=entry.output_field)
        found = lrp.attribute(padded, target=target)[:, keep]
        expected = lrp.attribute(whole, target=target)
        try:
            _same(f"{lrp.name}, {side} padding", found, expected, tol)
        except CheckError as error:
            # beside an offset, such as a mask of -1e6, a change of the score is small
            plain = GradientXInput(model, output_field=entry.output_field)
            size = float(plain.attribute(whole, target=target).abs().sum())
            if not float((long - short).abs().max()) <= tol * size:
                record.notes.append(f"{side} padding changes the model's own score")
                return ""
            with Raised(torch.float64):
                apart = _distance(
                    lrp.attribute(padded, target=target)[:, keep],
                    lrp.attribute(whole, target=target),
                )
            if apart <= TOLERANCE and _distance(found, expected) <= FLOAT32_TOLERANCE:
                record.notes.append(
                    f"float32 inside: without its casts {side} padding changes "
                    f"{lrp.name} by {apart:.0e}"
                )
                continue
            return str(error)
    return ""


# ------------------------------------------------------------------------ measures


def module_rules(trace: Trace, model: nn.Module) -> list[str]:
    """Return the rules that modules were given as one operator, by class."""
    classes = {type(m).__name__ for m in model.modules()}
    found = {
        f"{s.operator}: {s.rule}"
        for s in trace
        if s.operator in classes and s.operator[:1].isupper()
    }
    return sorted(found)


def largest(output: Tensor) -> Any:
    """Return the target of the largest score: a class, or a class at the last place."""
    if output.dim() == 1:
        return None
    output = output.detach().nan_to_num(0.0, 0.0, 0.0)
    output = output.masked_fill(output.abs() > 1e30, 0.0)  # masks, not scores
    if output.dim() == 2:
        return int(output.sum(0).abs().argmax())
    place = (-1,) * (output.dim() - 2)
    return (*place, int(output[(slice(None), *place)].sum(0).abs().argmax()))


def gradient_times_input(
    entry: Entry, model: nn.Module, inputs: Any, target: Any
) -> dict[str, Tensor] | str:
    """Return x * gradient per explained input by plain autograd, or why it cannot be.

    Identifiers are met where an embedding reads them: its output takes their place.
    """
    given = inputs if isinstance(inputs, Mapping) else {"": inputs}
    explained = {k: v for k, v in given.items() if k in ("", *KNOWN_KEYS)}
    leaves: dict[str, Tensor] = {}
    passed = dict(given)
    for key, value in explained.items():
        if value.is_floating_point():
            leaves[key] = passed[key] = value.detach().clone().requires_grad_()
    ids = {k: v for k, v in explained.items() if not v.is_floating_point()}
    watch = _Embeddings(ids, [v for k, v in given.items() if k not in ids])
    try:
        with torch.enable_grad():
            with watch:
                output = _output(entry, _call(model, inputs, passed))
            score = _scores(output, target).sum()
            read = watch.read
            flat = [*leaves.values(), *(t for found in read.values() for t in found)]
            if (
                watch.derived
                or not all(read.values())
                or _are_combined(entry, model, inputs, watch)
            ):
                return "the identifiers are read in another form"
            gradients = torch.autograd.grad(score, flat, allow_unused=True)
    except (RuntimeError, AssertionError, TypeError) as error:  # reversible models
        return f"autograd fails: {describe(error)[:100]}"
    by_id = {
        id(t): torch.zeros_like(t) if g is None else (t * g).detach()
        for t, g in zip(flat, gradients, strict=True)
    }
    result = {k: by_id[id(t)] for k, t in leaves.items()}
    for key, tensors in read.items():
        result[key] = sum((by_id[id(t)].sum(-1) for t in tensors), torch.tensor(0.0))
    return {key: result[key] for key in KNOWN_KEYS if key in result} or result


def _are_combined(
    entry: Entry, model: nn.Module, inputs: Any, first: _Embeddings
) -> bool:
    """Whether other look-ups change with the identifiers, as hashes of n-grams do."""
    if not first.beside:
        return False
    given = inputs if isinstance(inputs, Mapping) else {"": inputs}
    moved = {k: v.roll(1, -1) if k in first.ids else v for k, v in given.items()}
    second = _Embeddings({k: moved[k] for k in first.ids}, first.others)
    try:
        with torch.no_grad(), second:
            _call(model, inputs, moved)
    except Exception:  # some places must hold what they held
        return False
    return len(first.beside) != len(second.beside) or not all(
        torch.equal(a, b) for a, b in zip(first.beside, second.beside, strict=True)
    )


class _Embeddings(TorchFunctionMode):
    """Puts leaves in the place of the embeddings of some identifiers.

    Args:
        ids (Mapping): name -> identifiers.
        others (list): identifiers that are not explained, such as the decoder's.
    """

    def __init__(self, ids: Mapping[str, Tensor], others: list[Any]) -> None:
        super().__init__()
        self.ids = ids
        self.others = [t for t in others if isinstance(t, Tensor)]
        self.read: dict[str, list[Tensor]] = {key: [] for key in ids}
        self.tables: set[int] = set()
        self.derived = False
        self.beside: list[Tensor] = []  # other indices of the identifiers' shape

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Called by torch instead of ``func(*args, **kwargs)``."""
        output = func(*args, **(kwargs or {}))
        if func is not torch.nn.functional.embedding or not self.ids:
            return output
        index, table = args[0], args[1]
        for key, value in self.ids.items():
            if index.shape == value.shape and torch.equal(index, value.to(index.dtype)):
                leaf = output.detach().requires_grad_()
                self.read[key].append(leaf)
                self.tables.add(table.data_ptr())
                return leaf.clone()
            if index.shape == value.shape and torch.equal(index[:, 1:], value[:, :-1]):
                self.derived = True  # shifted to the right, for a decoder
            elif index.shape == value.shape:
                self.beside.append(index.clone())
        if table.data_ptr() in self.tables:  # shifted identifiers, or the decoder's
            known = any(
                index.shape == t.shape and torch.equal(index, t) for t in self.others
            )
            self.derived |= not known
        return output


# ------------------------------------------------------------------------- plumbing


def _call(model: nn.Module, inputs: Any, passed: Mapping[str, Any]) -> Any:
    return model(**passed) if isinstance(inputs, Mapping) else model(passed[""])


def _output(entry: Entry, output: Any) -> Tensor:
    if isinstance(output, Tensor):
        return output
    name = entry.output_field or "logits"
    found = output[name] if isinstance(output, Mapping) else getattr(output, name)
    if not isinstance(found, Tensor):
        raise CheckError(f"the output has no tensor {name!r}: {type(output).__name__}")
    return found


def _run(entry: Entry, model: nn.Module, inputs: Any) -> Tensor:
    with torch.no_grad():
        given = inputs if isinstance(inputs, Mapping) else {"": inputs}
        return _output(entry, _call(model, inputs, given))


def _scores(output: Tensor, target: Any) -> Tensor:
    if target is None:
        return output
    return output[(slice(None), *(target if isinstance(target, tuple) else (target,)))]


def _listed(found: Any) -> list[Tensor]:
    if isinstance(found, Mapping):
        return list(found.values())
    return [found] if isinstance(found, Tensor) else list(found)


def _examples(inputs: Any) -> int:
    if isinstance(inputs, Tensor):
        return inputs.shape[0]
    return min(v.shape[0] for k, v in inputs.items() if k in KNOWN_KEYS)


def _first(inputs: Any, examples: int) -> Any:
    if isinstance(inputs, Tensor):
        return inputs[:1]

    def cut(value: Any) -> Any:
        if isinstance(value, Tensor) and value.dim() and value.shape[0] % examples == 0:
            return value[: value.shape[0] // examples]
        return value

    return {k: cut(v) for k, v in inputs.items()}


def _distance(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return float("inf")
    if not found.numel():
        return 0.0
    same = torch.where(found == expected, 0.0, found - expected)
    return float(same.abs().max() / expected.abs().max().clamp(min=1e-30))


def _same(what: str, found: Tensor, expected: Tensor, tolerance: float) -> None:
    if found.shape != expected.shape:
        raise CheckError(
            f"{what}: shape {tuple(found.shape)}, not {tuple(expected.shape)}"
        )
    if not (distance := _distance(found, expected)) <= tolerance:
        raise CheckError(f"{what}: differs by {distance:.1e}")


def _near(
    what: str, found: float, expected: float, tol: float, scale: float = 0.0
) -> None:
    scale = max(abs(expected), scale, 1e-30)
    if not abs(found - expected) <= tol * scale:
        raise CheckError(f"{what}: {found:.8g}, not {expected:.8g}")


@contextlib.contextmanager
def nothing() -> Iterator[None]:
    """A context that does nothing."""
    yield
