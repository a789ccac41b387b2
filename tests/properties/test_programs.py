"""What explanations of any program owe, asked of random ones (see :mod:`.programs`).

Of each program: CP-LRP accounts for the score; Gradient x Input is autograd's; AttnLRP
and CP-LRP are finite; another spelling of the program is explained alike; the model
returns what it always returns; and the model, the inputs and torch itself are left as
they were. A method may refuse a program (``LRPError``), but rarely.

``PROGRAMS=17`` or ``PROGRAMS=0-400`` in the environment chooses other seeds. A failure
is shrunk, and printed as code that can be run.
"""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.fx.experimental.symbolic_shapes  # by autograd, with a filter
from torch import Tensor, nn

from captum_transformer_lrp import CPLRP, AttnLRP, GradientXInput, TransformerLRP, rules
from captum_transformer_lrp.core.composites import CP_LRP
from captum_transformer_lrp.errors import LRPError, UnknownOperatorError
from tests.helpers import assert_same_state, state_of
from tests.properties import programs
from tests.properties.programs import (
    NOT_YET,
    OPERATORS,
    Line,
    LookUps,
    Program,
    shrunk,
    started,
    write,
)

TOLERANCE = 1e-9
#: the share of programs that a method may refuse
REFUSED = 0.02
TARGET = 1

METHODS: dict[str, Callable[[nn.Module], Any]] = {
    "GradientXInput": GradientXInput,
    "CPLRP": CPLRP,
    "AttnLRP": AttnLRP,
}


class BrokenError(AssertionError):
    """A property does not hold: its name, and what was found."""

    def __init__(self, name: str, found: str) -> None:
        super().__init__(f"{name}: {found}")
        self.name = name
        self.method = ""


# ------------------------------------------------------------------------- what is left


def global_state() -> dict[str, Any]:
    """Return what torch is set to, in this thread and process."""
    return {
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "anomaly mode": torch.is_anomaly_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "default dtype": torch.get_default_dtype(),
        "functions overridden": torch._C._is_torch_function_enabled(),
        "saved tensor hooks": torch._C._autograd._top_saved_tensors_default_hooks(True),
        "Function.apply": vars(torch.autograd.Function).get("apply"),
        "threads": torch.get_num_threads(),
        "warnings": len(warnings.filters),
    }


def held(model: nn.Module) -> dict[str, list[Any]]:
    """Return every attribute of every module, by identity, and tensors by value too."""
    found: dict[str, list[Any]] = {}
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            found[f"{name}.{key}"] = [id(value), *seen(value)]
            if isinstance(value, dict):
                found[f"{name}.{key}"] += [(k, id(v)) for k, v in value.items()]
    return found


def seen(value: Any) -> list[Any]:
    """Return what can be told of a tensor without touching it."""
    if not isinstance(value, Tensor):
        return []
    grad = value.grad if value.is_leaf else None
    return [value.tolist(), value.requires_grad, value._version, grad is None]


@contextmanager
def untouched(model: nn.Module, given: tuple[Tensor, ...]) -> Iterator[None]:
    """Raise BrokenError if the block changes the model, the inputs or torch.

    Also where the block raises.
    """
    before = state_of(model), held(model), [seen(x) for x in given], global_state()
    try:
        yield
    finally:
        after = state_of(model), held(model), [seen(x) for x in given], global_state()
        try:
            assert_same_state(before[0], after[0])
            assert before[1:] == after[1:]
        except AssertionError as error:
            raise BrokenError("untouched", str(error)) from None


# --------------------------------------------------------------------------- the oracle


def gradient_times_input(program: Program) -> tuple[Tensor, ...]:
    """Return each input times autograd's gradient; by identifier, summed."""
    inputs, extra = program.arguments()
    leaves = [
        x.clone().requires_grad_() if x.is_floating_point() else x for x in inputs
    ]
    ids = [x for x in leaves if not x.is_floating_point()]
    with LookUps(ids) as look_ups:
        given = [x + 0 if x.is_floating_point() else x for x in leaves]
        score = program.model()(*given, *extra)[:, TARGET].sum()
    tables = iter(look_ups.found)
    found = []
    for leaf in leaves:
        if leaf.is_floating_point():
            found.append(_times_gradient(score, leaf))
        else:
            rows = [_times_gradient(score, row).sum(-1) for row in next(tables)]
            found.append(torch.stack(rows).sum(0))
    return tuple(found)


def _times_gradient(score: Tensor, leaf: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(score, leaf, retain_graph=True, allow_unused=True)
    return torch.zeros_like(leaf) if gradient is None else (leaf * gradient).detach()


# ----------------------------------------------------------------------- the properties


def check(
    program: Program, methods: Mapping[str, Any] = METHODS
) -> dict[str, LRPError]:
    """Ask a program for everything that it owes; return the methods that refuse it.

    Raises:
        BrokenError: a property does not hold.
    """
    refused = {}
    for name, method in methods.items():
        try:
            _check_method(program, name, method)
        except LRPError as error:
            refused[name] = error
        except BrokenError as error:
            error.method = name
            raise
    return refused


def _check_method(program: Program, name: str, method: Any) -> None:
    model, (inputs, extra) = program.model(), program.arguments()
    plain = model(*(started(x) for x in inputs), *extra).detach()
    outputs = []
    handle = model.register_forward_hook(lambda *given: outputs.append(given[-1]))
    explainer = method(model)
    options = {"target": TARGET, "additional_forward_args": extra or None}
    with untouched(model, (*inputs, *extra)), _no_crash(name):
        found = explainer.attribute(inputs, **options)
        trace = explainer.trace(inputs, **options) if name == "CPLRP" else None
    handle.remove()
    for output in outputs:
        _same(f"the model's output under {name}", output.detach(), plain, 1e-12)
    if not all(bool(torch.isfinite(x).all()) for x in found):
        raise BrokenError(f"{name} is finite", repr(found))
    if name == "GradientXInput":
        for mine, expected in zip(found, gradient_times_input(program), strict=True):
            _same("Gradient x Input is autograd's", mine, expected, scale=_most(plain))
    else:
        _check_spellings(program, name, method, found, _most(plain))
    if trace is not None:
        _check_accounts(trace, found, float(plain[:, TARGET].sum()))


def _check_accounts(trace: Any, found: tuple[Tensor, ...], score: float) -> None:
    """What arrives at the inputs and what constants absorb is the score."""
    relevance = float(sum(x.sum() for x in found))
    scale = max(
        abs(score), *(abs(r.received) for r in trace), *(_most(x) for x in found)
    )
    for what, one, other in (
        ("the traced score", trace.score, score),
        ("relevance with and without a trace", trace.relevance, relevance),
        ("the balance of the trace", score - relevance, trace.absorbed),
        ("CP-LRP accounts for the score", score - relevance, trace.constant),
    ):
        if not abs(one - other) <= TOLERANCE * scale:
            raise BrokenError(what, f"{one!r} and {other!r}, of {scale:.3g}\n{trace}")


def _check_spellings(
    program: Program,
    name: str,
    method: Any,
    found: tuple[Tensor, ...],
    scale: float,
) -> None:
    """The same program in other words is explained alike, if it is explained."""
    twin = program.respelled(0)
    if twin == program:
        return
    inputs, extra = twin.arguments()
    try:
        with _no_crash(f"{name}, respelled"):
            other = method(twin.model()).attribute(
                inputs, target=TARGET, additional_forward_args=extra or None
            )
    except LRPError:
        return
    scale = max(scale, *(_most(x) for x in found))
    for one, two in zip(found, other, strict=True):
        if not _most(one - two) <= TOLERANCE * scale:
            pairs = zip(program.lines, twin.lines, strict=True)
            raise BrokenError(
                f"{name} of two spellings",
                f"{one.tolist()} and {two.tolist()}, where\n"
                + "\n".join(f"  {a.text}  is  {b.text}" for a, b in pairs if a != b),
            )


def _most(values: Tensor) -> float:
    return float(values.detach().abs().max())


def _same(
    what: str,
    found: Tensor,
    expected: Tensor,
    tolerance: float = TOLERANCE,
    scale: float = 1e-30,
) -> None:
    if not _most(found - expected) <= tolerance * max(_most(expected), scale):
        raise BrokenError(what, f"{found.tolist()} and {expected.tolist()}")


@contextmanager
def _no_crash(name: str) -> Iterator[None]:
    """Turn every error that the package did not raise on purpose into a failure."""
    try:
        yield
    except LRPError:
        raise
    except Exception as error:
        raise BrokenError(f"{name} runs", f"{type(error).__name__}: {error}") from error


def broken(
    program: Program, methods: Mapping[str, Any] = METHODS
) -> BrokenError | None:
    """Return which property does not hold, if any."""
    try:
        check(program, methods)
    except BrokenError as error:
        return error
    return None


def report(program: Program, methods: Mapping[str, Any] = METHODS) -> str:
    """Return the program, made smaller, and what is wrong with it; empty if nothing."""
    error = broken(program, methods)
    if error is None:
        return ""

    def fails(smaller: Program) -> bool:
        found = broken(smaller, {error.method: methods[error.method]})
        return found is not None and found.name == error.name

    small = shrunk(program, fails)
    return f"{broken(small, methods)}\n{small}"


def seeds(default: range) -> range:
    """Return the seeds to try."""
    asked = os.environ.get("PROGRAMS", "")
    first, _, end = asked.partition("-")
    return range(int(first), int(end or int(first) + 1)) if asked else default


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    "tried",
    [range(150), pytest.param(range(150, 1000), marks=pytest.mark.slow)],
    ids=["some", "all the others"],
)
def test_random_programs(tried: range) -> None:
    refused = dict.fromkeys(METHODS, 0)
    tried = seeds(tried)
    for seed in tried:
        program = write(seed)
        try:
            for method in check(program):
                refused[method] += 1
        except BrokenError:
            pytest.fail(report(program), pytrace=False)
    assert max(refused.values()) <= max(1, REFUSED * len(tried)), refused


# ------------------------------------------------- the properties, the shrinker, tested


def with_last(program: Program, *statements: str) -> Program:
    """Return a program that ends by further statements about its result."""
    code = "\n".join(statements).format(program.result)
    return replace(program, lines=(*program.lines, Line(names=(), spellings=(code,))))


@pytest.mark.parametrize("seed", range(8))
def test_what_is_refused_leaves_everything_as_it_was(seed: int) -> None:
    program = with_last(write(seed), "{0} = torch.special.i0({0} / 9)")
    for method, error in check(program).items():
        assert isinstance(error, UnknownOperatorError), method
        assert "i0" in str(error)
    assert set(check(program)) == {"CPLRP", "AttnLRP"}


@pytest.mark.parametrize("error", ["ValueError", "KeyboardInterrupt"])
@pytest.mark.parametrize("method", METHODS)
def test_a_model_that_raises_is_left_as_it_was(method: str, error: str) -> None:
    for seed in range(4):
        program = with_last(write(seed), f"raise {error}('in the model')")
        model, (inputs, extra) = program.model(), program.arguments()
        explainer = METHODS[method](model)
        with untouched(model, (*inputs, *extra)):
            with pytest.raises((ValueError, KeyboardInterrupt), match="in the model"):
                explainer.attribute(
                    inputs, target=TARGET, additional_forward_args=extra or None
                )


def wrong(**rows: Any) -> Callable[[nn.Module], Any]:
    """Return a method that is CP-LRP but for some rows."""
    return lambda model: TransformerLRP(model, CP_LRP.with_rules(rows))


@dataclass(frozen=True, kw_only=True)
class OnePercentLess(rules.Rule):
    """Passes 1 % less than it received."""

    def __call__(self, call: Any) -> Any:
        output = call.run()
        return output.detach() * 0.01 + output * 0.99


@pytest.mark.parametrize(
    ("rows", "spelled"),
    [
        ({"add": OnePercentLess()}, ("+", "add", " sum(")),
        ({"gelu": rules.PlainGradient()}, ("gelu", "GELU")),
    ],
    ids=["add", "gelu"],
)
def test_a_wrong_rule_is_found_and_its_program_shrunk(
    rows: dict[str, Any], spelled: tuple[str, ...]
) -> None:
    methods = {"CPLRP": wrong(**rows)}
    failing = (p for p in map(write, range(50)) if broken(p, methods))
    message = report(next(failing), methods)
    found = (
        "accounts for the score",
        "of two spellings",
    )  # add, and what is made of it
    assert any(name in message.splitlines()[0] for name in found)
    code = message[message.index("def forward") : message.index("return torch.stack")]
    lines = code.strip().splitlines()[1:]
    assert len(lines) <= 3 and any(name in code for name in spelled), code


def test_a_spelling_that_says_something_else_is_found() -> None:
    line = Line(names=("v1",), spellings=("torch.tanh(x)", "torch.tanh(x * 1.01)"))
    line = replace(line, spellings=tuple(f"v1 = {s}" for s in line.spellings))
    program = Program(
        seed=0,
        inputs={"x": "draw(1, 2, 3)"},
        extra={},
        parts={},
        lines=(line,),
        result="v1",
    )
    error = broken(program)
    assert error is not None and error.name == "CPLRP of two spellings"


def test_what_is_not_explained_yet_is_what_the_generator_can_write() -> None:
    source = inspect.getsource(programs)
    for name in NOT_YET:
        assert name in OPERATORS or source.count(f'"{name}"') > 1, name


def test_programs_are_many_and_the_same_again() -> None:
    texts = [str(write(seed)) for seed in range(12)]
    assert len({text.partition("def forward")[2] for text in texts}) == 12
    assert texts[:3] == [str(write(seed)) for seed in range(3)]
