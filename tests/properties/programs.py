"""Random programs: small models written as code, that tests explain.

:func:`write` composes operators at random, line by line, and keeps a line if the
program so far still runs, forward and backward. A :class:`Program` prints as a module
that can be read and run by hand, and :func:`shrunk` removes lines while it still fails.

A line may be written in several ways that say the same (``a * b``, ``torch.mul(a, b)``,
``a.clone().mul_(b)``): its *spellings*. A program and its :meth:`Program.respelled`
twin must be explained alike.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

#: what programs do not use yet, with what goes wrong. Delete a line to switch it on.
NOT_YET: dict[str, str] = {
    "vmap": "is refused by name, which says nothing of numbers",
    "tensor exponents": "in a stack, the tape sees no function of each element",
    "outer product by @": "a matrix product has no gate, though it sums nothing",
}

BATCH, TOKENS, WIDTH, IDENTIFIERS = 2, 3, 4, 7


# ------------------------------------------------------- what a program's code may call


def draw(seed: int, *shape: int) -> Tensor:
    """Return numbers from a generator of their own."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def filled(seed: int, module: nn.Module) -> nn.Module:
    """Return a module in float64 with drawn parameters."""
    module = module.double()
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            parameter.copy_(draw(seed + number, *parameter.shape) / 2)
    return module


class Rounded(torch.autograd.Function):
    """Rounds weights, and passes the gradient on as if it had not."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        return (weight * 8).round() / 8

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


NAMES: dict[str, Any] = {
    "torch": torch,
    "nn": nn,
    "F": functional,
    "checkpoint": checkpoint,
    "draw": draw,
    "filled": filled,
    "Rounded": Rounded,
}


# ----------------------------------------------------------------------------- programs


@dataclass(frozen=True, kw_only=True)
class Line:
    """One statement.

    Attributes:
        names (tuple of str): the variables that it makes; none for a write in place.
        spellings (tuple of str): ways to write it that mean the same.
        chosen (int): which of them is written.
    """

    names: tuple[str, ...]
    spellings: tuple[str, ...]
    chosen: int = 0

    @property
    def text(self) -> str:
        """The statement, as it is written here."""
        return self.spellings[self.chosen]

    def renamed(self, old: str, new: str) -> Line:
        """Return the line with another variable in the place of one."""
        spellings = (re.sub(rf"\b{old}\b", new, text) for text in self.spellings)
        return replace(self, spellings=tuple(spellings))


@dataclass(frozen=True, kw_only=True)
class Program:
    """A model, its inputs, and the score that is explained.

    Attributes:
        seed (int): what it was drawn from.
        inputs (dict): name -> the code that makes it, of what is explained.
        extra (dict): the same of further arguments.
        parts (dict): name -> the code that makes it, of what the model holds.
        lines (tuple of Line): what the model does.
        result (str): the variable that is turned into scores.
    """

    seed: int
    inputs: dict[str, str]
    extra: dict[str, str]
    parts: dict[str, str]
    lines: tuple[Line, ...]
    result: str

    def __str__(self) -> str:
        """Print a module, and how it is called."""
        given = {**self.inputs, **self.extra}
        explained = ", ".join(self.inputs)
        further = f", additional_forward_args=({', '.join(self.extra)},)"
        return "\n".join(
            [
                self.source(f"return {self.scores}"),
                *(f"{name} = {code}" for name, code in given.items()),
                f"# seed {self.seed}: METHOD(Net().eval()).attribute(({explained},), "
                f"target=1{further if self.extra else ''})",
            ]
        )

    @property
    def scores(self) -> str:
        """The code of three scores for each example; the middle one is explained."""
        return (
            f"torch.stack([{self.result}.flatten(1).sum(1) * n for n in (0, 1, 2)], 1)"
        )

    def source(self, last: str) -> str:
        """Return the code of the module, which ends by ``last``."""
        text = "\n".join([*(line.text for line in self.lines), last])
        used = {name for name in self.parts if re.search(rf"self\.{name}\b", text)}
        return "\n".join(
            [
                "class Net(nn.Module):",
                "    def __init__(self):",
                "        super().__init__()",
                *(
                    f"        self.{n} = {c}"
                    for n, c in self.parts.items()
                    if n in used
                ),
                f"    def forward(self, {', '.join([*self.inputs, *self.extra])}):",
                *(f"        {line}" for line in text.splitlines()),
            ]
        )

    def model(self, last: str = "") -> Any:
        """Return the module, in evaluation mode."""
        scope = dict(NAMES)
        exec(self.source(last or f"return {self.scores}"), scope)
        return scope["Net"]().eval()

    def arguments(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return the inputs that are explained, and the further arguments."""
        inputs, extra = (
            tuple(eval(code, dict(NAMES)) for code in codes.values())
            for codes in (self.inputs, self.extra)
        )
        return inputs, extra

    def values(self) -> dict[str, Tensor]:
        """Return all variables, as they are at the end.

        Raises:
            Exception: whatever the program raises.
        """
        inputs, extra = self.arguments()
        given = [started(value) for value in inputs]
        ids = [value for value in given if not value.is_floating_point()]
        with LookUps(ids):
            found = self.model("return locals()")(*given, *extra)
        known = {
            *self.inputs,
            *self.extra,
            *(n for line in self.lines for n in line.names),
        }
        return {k: v for k, v in found.items() if k in known and isinstance(v, Tensor)}

    def respelled(self, seed: int) -> Program:
        """Return the program with every line written in another way, if it has one."""

        def other(line: Line) -> Line:
            choices = [n for n in range(len(line.spellings)) if n != line.chosen]
            words = re.sub(
                r"\bv\d+\b", "v", line.text
            )  # the choice outlives a shrinking
            chance = random.Random(f"{seed} {words}")
            return replace(line, chosen=chance.choice(choices)) if choices else line

        return replace(self, lines=tuple(other(line) for line in self.lines))


class LookUps(TorchFunctionMode):
    """Puts leaves in the place of what is looked up by identifiers.

    Args:
        ids (list of Tensor): the identifiers.

    Attributes:
        found (list of list of Tensor): the leaves, for each of them.
    """

    def __init__(self, ids: list[Tensor]) -> None:
        super().__init__()
        self.found: list[list[Tensor]] = [[] for _ in ids]
        self.ids = ids

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        for ids, found in zip(self.ids, self.found, strict=True):
            if any(a is ids for a in args) and isinstance(output, Tensor):
                if output.shape[:-1] == ids.shape and output.is_floating_point():
                    found.append(output.detach().requires_grad_())
                    return found[-1] + 0
        return output


def started(value: Tensor) -> Tensor:
    """Return what a model is given, for autograd: no leaf, as it may be overwritten."""
    if not value.is_floating_point():
        return value
    return value.detach().clone().requires_grad_().clone()


def runs(program: Program) -> dict[str, Tensor] | None:
    """Return the variables of a program that is fit to be explained, else None.

    It runs forward and backward in plain torch, and all its numbers are of a size with
    which float64 is exact to the tolerance of the tests.
    """
    try:
        values = program.values()
        result = values[program.result]
        if not result.is_floating_point() or result.shape[0] != BATCH:
            return None
        relevant = [v for v in values.values() if v.requires_grad]
        if relevant:  # writes in place may have spoilt what autograd needs
            total = torch.stack([value.sum() for value in relevant]).sum()
            for value in relevant:
                value.retain_grad()
            total.backward()
            if not all(bool(value.grad.abs().max() < 1e6) for value in relevant):
                return None
    except (RuntimeError, IndexError, ValueError, TypeError, KeyError, NameError):
        return None
    if not result.requires_grad:
        return None
    for value in values.values():
        if value.is_floating_point():
            if value.numel() == 0 or value.numel() > 1000:
                return None
            if not bool(value.detach().abs().max() < 1e4):
                return None
    return values


# ---------------------------------------------------------------------------- shrinking


def shrunk(program: Program, fails: Callable[[Program], bool]) -> Program:
    """Return a program that still fails, from which no line can be removed.

    Args:
        program (Program): fails.
        fails (Callable): whether a program fails in the same way.
    """
    found = True
    while found:
        found = False
        for smaller in (*_ended_earlier(program), *_without_a_line(program)):
            if runs(smaller) is not None and fails(smaller):
                program, found = smaller, True
                break
    return program


def _ended_earlier(program: Program) -> Iterator[Program]:
    """Yield programs that return an earlier variable, the shortest first."""
    for number, line in enumerate(program.lines[:-1], start=1):
        for name in line.names or (program.result,):
            yield replace(program, lines=program.lines[:number], result=name)


def _without_a_line(program: Program) -> Iterator[Program]:
    """Yield programs without a line, whose variable another stands in for."""
    values = runs(program) or {}
    for number in reversed(range(len(program.lines))):
        line, before = program.lines[number], program.lines[:number]
        made = [name for earlier in before for name in earlier.names]
        known = [n for n in (*program.inputs, *program.extra, *made) if n in values]
        same = [
            name
            for name in known
            if all(
                new in values and values[new].shape == values[name].shape
                for new in line.names
            )
        ]
        others = [name for name in known if name not in same]  # may do as well
        for stand_in in (*same[:2], *others[:2]) if line.names else [""]:
            rest, result = program.lines[number + 1 :], program.result
            for name in line.names:
                rest = tuple(one.renamed(name, stand_in) for one in rest)
                result = stand_in if result == name else result
            yield replace(program, lines=(*before, *rest), result=result)


# ------------------------------------------------------------------------------ writing

Spellings = list[Any]
OPERATORS: dict[str, Callable[[Writer], Spellings]] = {}


def operator(function: Callable[[Writer], Spellings]) -> Any:
    """Register a way to go on, under the name of its function."""
    OPERATORS[function.__name__.rstrip("_")] = function
    return function


class Writer:
    """Draws a program.

    Args:
        seed (int): draws the same program again.
    """

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.seed = seed
        self.numbers = 1000 * seed
        self.parts: dict[str, str] = {}
        self.lines: list[Line] = []
        self.inputs: dict[str, str] = {}
        self.extra: dict[str, str] = {}
        self.values: dict[str, Tensor] = {}
        self.last = ""
        self.count = 0

    def number(self) -> int:
        """Return a seed for numbers that nobody else has."""
        self.numbers += 1
        return self.numbers

    def pick(self, *choices: Any) -> Any:
        """Return one of several."""
        return self.chance.choice(choices)

    def name(self) -> str:
        """Return a new variable."""
        self.count += 1
        return f"v{self.count}"

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a variable."""
        return tuple(self.values[name].shape)

    def relevant(self, fits: Callable[[tuple[int, ...]], bool] | None = None) -> str:
        """Return a variable that carries relevance, a late one more often.

        Raises:
            LookupError: if there is none.
        """
        names = [
            name
            for name, value in self.values.items()
            if value.is_floating_point()
            and value.requires_grad
            and value.dim() > 1
            and (fits is None or fits(tuple(value.shape)))
        ]
        if not names:
            raise LookupError
        return self.chance.choice(names[-3:] if self.chance.random() < 0.7 else names)

    def like(self, name: str) -> str:
        """Return a variable of the same shape that carries relevance."""
        return self.relevant(lambda shape: shape == self.shape(name))

    def wide(self) -> str:
        """Return a variable of three dimensions that carries relevance."""
        return self.relevant(lambda shape: len(shape) == 3)

    def part(self, code: str) -> str:
        """Let the model hold something, and return its name."""
        name = f"p{len(self.parts)}"
        self.parts[name] = code
        return f"self.{name}"

    def module(self, code: str) -> str:
        """Let the model hold a module with drawn parameters."""
        return self.part(f"filled({self.number()}, {code})")

    def constant(self, *shape: int) -> str:
        """Return the code of a constant tensor, of any kind that models have."""
        drawn = f"draw({self.number()}, {', '.join(map(str, shape))})"
        kinds = {
            "parameter": f"nn.Parameter({drawn})",
            "buffer": f"nn.Buffer({drawn})",
            "plain tensor": drawn,
            "weight computed outside": f"nn.Parameter({drawn}) * 0.8",
        }
        kind = self.chance.choice([k for k in kinds if k not in NOT_YET])
        held = self.part(kinds[kind])
        uses = {
            "as it is": held,
            "computed": f"torch.tanh({held})",
            "product of parameters": f"({held} * {held})",
            "normalised": f"({held} / {held}.norm())",
            "rounded": f"Rounded.apply({held})",
        }
        known = [u for k, u in uses.items() if k not in NOT_YET]
        return held if self.chance.random() < 0.6 else self.chance.choice(known)

    def known(self, spellings: Spellings) -> tuple[str, ...]:
        """Leave out spellings that are not explained yet, and mix the others."""
        found = [
            s if isinstance(s, str) else s[1]
            for s in spellings
            if isinstance(s, str) or s[0] not in NOT_YET
        ]
        self.chance.shuffle(found)
        return tuple(found)

    # ---------------------------------------------------------------------- one program

    def start(self) -> None:
        """Choose the inputs."""
        number = f"{self.number()}, {BATCH}, {TOKENS}, {WIDTH}"
        form = self.pick("x", "x", "xy", "ids", "x ids", "x z")
        if "x" in form:
            self.inputs["x"] = f"draw({number})"
        if "y" in form:
            self.inputs["y"] = f"draw({self.number()}, {BATCH}, {TOKENS}, {WIDTH})"
        if "ids" in form:
            ids = [
                [self.chance.randrange(IDENTIFIERS) for _ in range(TOKENS)]
                for _ in range(BATCH)
            ]
            self.inputs["ids"] = f"torch.tensor({ids})"
            table = self.constant(IDENTIFIERS, WIDTH)
            module = self.module(f"nn.Embedding({IDENTIFIERS}, {WIDTH})")
            codes = self.pick(
                [f"F.embedding(ids, {table})", f"{table}[ids]"], [f"{module}(ids)"]
            )
            self.lines.append(self.line(codes))
        if "z" in form:
            self.extra["z"] = f"draw({self.number()}, {BATCH}, {TOKENS}, {WIDTH})"

    def line(self, spellings: Spellings) -> Line:
        """Return a line.

        Args:
            spellings (list): expressions, for a new variable; or statements, after a
                ``!``, in which ``{0}`` and ``{1}`` are new variables. A pair is a
                feature, for :data:`NOT_YET`, and such a text.

        Raises:
            LookupError: if there is nothing to write.
        """
        known = self.known(spellings)
        code = [c[1:] if c.startswith("!") else f"{{0}} = {c}" for c in known]
        new = [n for n in range(2) if f"{{{n}}}" in code[0]] if code else []
        if not code:
            raise LookupError
        names = tuple(self.name() for _ in new)
        return Line(names=names, spellings=tuple(c.format(*names) for c in code))

    def program(self, lines: list[Line], result: str) -> Program:
        """Return what is written so far, and ``lines``."""
        return Program(
            seed=self.seed,
            inputs=self.inputs,
            extra=self.extra,
            parts=dict(self.parts),
            lines=(*self.lines, *lines),
            result=result,
        )

    def go_on(self) -> bool:
        """Write one step more, and say whether the program still runs with it."""
        name = self.chance.choice([n for n in OPERATORS if n not in NOT_YET])
        parts, count = dict(self.parts), self.count
        try:
            line = self.line(OPERATORS[name](self))
            last = line.names[0] if line.names else self.last
            program = self.program([line], last)
            values = runs(program)
            if values is None or runs(program.respelled(0)) is None:
                raise LookupError
        except LookupError:
            self.parts, self.count = parts, count
            return False
        self.lines.append(line)
        self.values, self.last = values, last
        return True

    def write(self) -> Program:
        """Return a program."""
        self.start()
        self.last = next(
            (n for line in self.lines for n in line.names), next(iter(self.inputs))
        )
        self.values = runs(self.program([], self.last)) or {}
        length = self.chance.randint(3, 12)
        for _ in range(20 * length):
            if len(self.lines) >= length:
                break
            self.go_on()
        # the score reads the last variable, and others that nothing reads
        text = "\n".join(line.text for line in self.lines)
        unread = [
            name
            for name, value in self.values.items()
            if value.is_floating_point()
            and value.requires_grad
            and value.shape[0] == BATCH
            and len(re.findall(rf"\b{name}\b", text)) < 2
            and name != self.last
        ]
        read = [self.last, *unread[-2:]]
        first = next((n for line in self.lines for n in line.names), "x")
        if self.chance.random() < 0.8:  # else a softmax may cut all ways of CP-LRP
            read.append("x" if "x" in self.inputs else first)
        summed = " + ".join(f"{name}.flatten(1).sum(1)" for name in read)
        self.lines.append(self.line([f"({summed})[:, None]"]))
        weights = self.constant(1, 1)
        self.lines.append(self.line([f"{self.lines[-1].names[0]} * {weights}"]))
        return self.program([], self.lines[-1].names[0])


def write(seed: int) -> Program:
    """Return the random program of a seed."""
    return Writer(seed).write()


# ---------------------------------------------------------------------------- operators
# Each returns the spellings of one line, see Writer.line. LookupError: not here.


@operator
def linear(w: Writer) -> Spellings:
    a = w.relevant()
    size, out = w.shape(a)[-1], w.pick(2, 4)
    weight, bias = w.constant(out, size), w.constant(out)
    if w.pick(True, False):
        return [
            f"F.linear({a}, {weight})",
            f"{a} @ {weight}.mT",
            f"torch.matmul({a}, {weight}.T)",
            f"torch.einsum('...i,oi->...o', {a}, {weight})",
        ]
    return [
        f"F.linear({a}, {weight}, {bias})",
        f"F.linear(input={a}, weight={weight}, bias={bias})",
        f"{a} @ {weight}.mT + {bias}",
    ]


@operator
def linear_module(w: Writer) -> Spellings:
    a = w.relevant()
    module = w.module(f"nn.Linear({w.shape(a)[-1]}, {w.pick(2, 4)})")
    return [f"{module}({a})", f"F.linear({a}, {module}.weight, {module}.bias)"]


@operator
def convolution(w: Writer) -> Spellings:
    a = w.wide()
    channels = w.shape(a)[1]
    if w.shape(a)[2] < 2:
        return []
    weight, bias = w.constant(TOKENS, channels, 2), w.constant(TOKENS)
    return [
        f"F.conv1d({a}, {weight}, {bias}, padding=1)",
        f"torch.conv1d({a}, {weight}, {bias}, 1, 1)",
        f"F.conv2d({a}[:, :, None], {weight}[:, :, None], {bias}, padding=(0, 1))"
        ".squeeze(2)",
    ]


@operator
def add(w: Writer) -> Spellings:
    a = w.relevant()
    b = w.like(a)
    return [
        f"{a} + {b}",
        f"torch.add({a}, {b})",
        f"{b}.add(other={a})",
        f"{a}.clone().add_({b})",
        f"torch.stack([{a}, {b}]).sum(0)",
        f"sum([{a}, {b}])",
    ]


@operator
def subtract(w: Writer) -> Spellings:
    a = w.relevant()
    b = w.like(a)
    return [
        f"{a} - {b}",
        f"torch.sub({a}, {b})",
        f"torch.rsub({b}, {a})",
        f"torch.add({a}, {b}, alpha=-1)",
        f"{a} + (-{b})",
    ]


@operator
def add_constant(w: Writer) -> Spellings:
    a = w.relevant()
    c = w.constant(w.shape(a)[-1])
    return [f"{a} + {c}", f"torch.add({c}, {a})", f"{a}.clone().add_({c})"]


@operator
def residual(w: Writer) -> Spellings:
    a = w.relevant()
    size = w.shape(a)[-1]
    weight = w.constant(size, size)
    return [f"{a} + F.gelu(F.linear({a}, {weight}))", f"F.gelu({a} @ {weight}.T) + {a}"]


@operator
def multiply_constant(w: Writer) -> Spellings:
    a = w.relevant()
    c = w.pick(w.constant(w.shape(a)[-1]), "0.7")
    return [
        f"{a} * {c}",
        f"{c} * {a}",
        f"torch.mul({a}, {c})",
        f"{a}.clone().mul_({c})",
        f"torch.multiply(input={a}, other={c})",
    ]


@operator
def divide_constant(w: Writer) -> Spellings:
    a = w.relevant()
    c = f"({w.constant(w.shape(a)[-1])}.abs() + 0.5)"
    return [
        f"{a} / {c}",
        f"torch.div({a}, {c})",
        f"{a}.clone().div_({c})",
        f"{a} * (1 / {c})",
    ]


@operator
def multiply(w: Writer) -> Spellings:
    a = w.relevant()
    b = w.like(a)
    return [
        f"{a} * {b}",
        f"torch.mul({b}, {a})",
        ("product by keyword", f"{a}.mul(other={b})"),
        f"{a}.clone().mul_({b})",
        f"torch.einsum('...,...->...', {a}, {b})",
    ]


@operator
def gate(w: Writer) -> Spellings:
    a = w.relevant()
    b = w.like(a)
    name = w.pick("silu", "gelu", "sigmoid")
    return [
        f"F.{name}({a}) * {b}",
        f"{b} * F.{name}({a})",
        f"torch.mul(F.{name}({a}), {b})",
        ("product by keyword", f"torch.mul(input=F.{name}({a}), other={b})"),
        f"torch.einsum('...,...->...', F.{name}({a}), {b})",
        f"{b}.clone().mul_(F.{name}({a}))",
    ]


@operator
def scores(w: Writer) -> Spellings:
    a = w.wide()
    b = w.like(a)
    return [
        f"{a} @ {b}.mT / 2",
        f"torch.bmm({a}, {b}.transpose(1, 2)) * 0.5",
        f"torch.matmul({a}, {b}.mT).div(2)",
        f"torch.einsum('bid,bjd->bij', {a}, {b}) / 2",
    ]


@operator
def mix(w: Writer) -> Spellings:
    a = w.relevant(lambda shape: len(shape) == 3 and shape[1] == shape[2])
    b = w.relevant(lambda shape: len(shape) == 3 and shape[1] == w.shape(a)[2])
    return [f"{a} @ {b}", f"torch.bmm({a}, {b})", f"{a}.matmul({b})"]


@operator
def softmax(w: Writer) -> Spellings:
    a = w.relevant(lambda shape: shape[-1] > 1)
    return [
        f"{a}.softmax(-1)",
        f"torch.softmax({a}, dim=-1)",
        f"F.softmax({a}, -1)",
        f"(lambda e: e / e.sum(-1, keepdim=True))({a}.exp())",
        f"(lambda e: e / torch.sum(e, -1, True))(({a} - {a}.amax(-1, True)).exp())",
        f"{a}.exp() / {a}.exp().sum(-1, keepdim=True)",
    ]


@operator
def attention(w: Writer) -> Spellings:
    q = w.relevant(lambda shape: len(shape) == 3 and shape[-1] == WIDTH)
    k, v = w.like(q), w.like(q)
    length = w.shape(q)[1]
    if w.pick(True, False):
        return [
            f"F.scaled_dot_product_attention({q}, {k}, {v})",
            f"({q} @ {k}.mT / 2).softmax(-1) @ {v}",
            f"torch.bmm(torch.softmax(({q} * 0.5) @ {k}.transpose(1, 2), -1), {v})",
        ]
    mask = f"torch.ones({length}, {length}, dtype=torch.bool).triu(1)"
    return [
        f"F.scaled_dot_product_attention({q}, {k}, {v}, is_causal=True)",
        f"F.scaled_dot_product_attention({q}, {k}, {v}, attn_mask=~{mask})",
        f"({q} @ {k}.mT / 2).masked_fill({mask}, -torch.inf).softmax(-1) @ {v}",
    ]


@operator
def heads(w: Writer) -> Spellings:
    a = w.relevant(lambda shape: len(shape) == 3 and shape[-1] == WIDTH)
    split = f"{a}.unflatten(-1, (2, 2)).transpose(1, 2)"
    joined = "transpose(1, 2).flatten(2)"
    return [
        f"F.scaled_dot_product_attention(*[{split}] * 3).{joined}",
        f"(({split} @ {split}.mT * 2 ** -0.5).softmax(-1) @ {split}).{joined}",
        f"F.scaled_dot_product_attention({split}, {split}, {split}, scale=2 ** -0.5)"
        f".permute(0, 2, 1, 3).reshape({BATCH}, -1, 4)",
    ]


@operator
def attention_module(w: Writer) -> Spellings:
    a = w.relevant(lambda shape: len(shape) == 3 and shape[-1] == WIDTH)
    b = w.pick(a, w.like(a))
    code = f"nn.MultiheadAttention({WIDTH}, 2, batch_first=True)"
    module = w.module(code)
    return [
        f"{module}({a}, {b}, {b}, need_weights=False)[0]",
        f"{module}({a}, {b}, {b})[0]",
        f"{module}(query={a}, key={b}, value={b}, average_attn_weights=False)[0]",
    ]


@operator
def encoder_layer(w: Writer) -> Spellings:
    a = w.relevant(lambda shape: len(shape) == 3 and shape[-1] == WIDTH)
    code = f"nn.TransformerEncoderLayer({WIDTH}, 2, 6, 0.1, batch_first=True)"
    return [f"{w.module(code)}({a})"]


@operator
def recurrent(w: Writer) -> Spellings:
    a = w.wide()
    kind = w.pick("GRU", "LSTM", "RNN")
    module = w.module(f"nn.{kind}({w.shape(a)[-1]}, {WIDTH}, batch_first=True)")
    return [f"{module}({a})[0]"]


@operator
def layer_norm(w: Writer) -> Spellings:
    a = w.relevant(lambda shape: shape[-1] > 2)
    size = w.shape(a)[-1]
    weight, bias = w.constant(size), w.constant(size)
    return [
        f"F.layer_norm({a}, ({size},), {weight}, {bias}, 1e-3)",
        f"F.layer_norm(input={a}, normalized_shape=[{size}], eps=1e-3) * {weight}"
        f" + {bias}",
        f"({a} - {a}.mean(-1, keepdim=True)) / ({a}.var(-1, keepdim=True, "
        f"correction=0) + 1e-3).sqrt() * {weight} + {bias}",
        f"({a} - {a}.mean(-1, True)) * torch.rsqrt({a}.var(-1, False, True) + 1e-3)"
        f" * {weight} + {bias}",
    ]


@operator
def layer_norm_module(w: Writer) -> Spellings:
    a = w.relevant(lambda shape: shape[-1] > 2)
    return [f"{w.module(f'nn.LayerNorm({w.shape(a)[-1]})')}({a})"]


@operator
def rms_norm(w: Writer) -> Spellings:
    a = w.relevant(lambda shape: shape[-1] > 1)
    size = w.shape(a)[-1]
    weight = w.constant(size)
    return [
        f"F.rms_norm({a}, ({size},), {weight}, 1e-3)",
        f"{a} * torch.rsqrt({a}.pow(2).mean(-1, keepdim=True) + 1e-3) * {weight}",
        f"{weight} * ({a} / ({a}.square().mean(-1, True) + 1e-3).sqrt())",
    ]


@operator
def group_norm(w: Writer) -> Spellings:
    a = w.relevant(lambda shape: len(shape) == 3 and shape[1] > 1)
    return [
        f"F.group_norm({a}, 1, eps=1e-3)",
        f"F.group_norm({a}, 1, None, None, 1e-3)",
    ]


@operator
def normalize(w: Writer) -> Spellings:
    a = w.relevant(lambda shape: shape[-1] > 1)
    return [
        f"F.normalize({a}, dim=-1)",
        f"{a} / {a}.norm(dim=-1, keepdim=True)",
        f"{a} / torch.linalg.vector_norm({a}, dim=-1, keepdim=True)",
        f"{a} / {a}.square().sum(-1, keepdim=True).sqrt()",
        f"{a} * ({a} ** 2).sum(-1, keepdim=True).rsqrt()",
    ]


@operator
def divide_by_sum(w: Writer) -> Spellings:
    a = w.relevant(lambda shape: shape[-1] > 1)
    b = f"({a}.abs() + 0.1)"
    return [
        f"{b} / {b}.sum(-1, keepdim=True)",
        f"torch.div({b}, {b}.sum(dim=-1, keepdim=True))",
    ]


@operator
def divide(w: Writer) -> Spellings:
    a = w.relevant()
    b = f"(1 + {w.like(a)}.abs())"
    return [
        f"{a} / {b}",
        f"torch.true_divide({a}, {b})",
        f"{a}.clone().div_({b})",
        f"{a} * (1 / {b})",
        f"{a} * {b}.reciprocal()",
    ]


ACTIVATIONS = {
    "gelu": ["F.gelu({})", "F.gelu(input={})", "nn.GELU()({})"],
    "gelu of tanh": ["F.gelu({}, approximate='tanh')", "nn.GELU('tanh')({})"],
    "silu": ["F.silu({})", "F.silu({}.clone(), inplace=True)", "nn.SiLU()({})"],
    "tanh": ["torch.tanh({})", "{}.tanh()", "{}.clone().tanh_()", "nn.Tanh()({})"],
    "sigmoid": [
        "torch.sigmoid({})",
        "{}.clone().sigmoid_()",
        "torch.special.expit({})",
    ],
    "softplus": ["F.softplus({})", "nn.Softplus()({})"],
    "elu": ["F.elu({})", "F.elu({}.clone(), inplace=True)", "nn.ELU()({})"],
    "hardswish": ["F.hardswish({})", "nn.Hardswish()({})"],
    "mish": ["F.mish({})", "nn.Mish()({})"],
    "leaky relu": ["F.leaky_relu({}, 0.1)", "nn.LeakyReLU(0.1)({})"],
    "sine": ["torch.sin({})", "{}.sin()", "{}.clone().sin_()"],
    "root": ["torch.sqrt({}.abs() + 1)", "({}.abs() + 1).sqrt()"],
    "logarithm": ["torch.log1p({}.abs())", "{}.abs().log1p()"],
}


@operator
def activation(w: Writer) -> Spellings:
    a = w.relevant()
    return [code.format(a) for code in ACTIVATIONS[w.pick(*ACTIVATIONS)]]


@operator
def relu(w: Writer) -> Spellings:
    a = w.relevant()
    return [
        f"F.relu({a})",
        f"{a}.relu()",
        f"{a}.clone().relu_()",
        f"F.relu({a}.clone(), inplace=True)",
        f"{a}.clamp(min=0)",
        f"torch.where({a} > 0, {a}, 0.0)",
        f"{a} * ({a} > 0)",
        f"({a} + {a}.abs()) / 2",
        f"!{{0}} = {a}.clone()\n{{0}}[{a} < 0] = 0",
        f"{a}.masked_fill({a} < 0, 0)",
        f"torch.maximum({a}, torch.zeros_like({a}))",
    ]


@operator
def activation_written_out(w: Writer) -> Spellings:
    a = w.relevant()
    inner = f"0.7978845608028654 * ({a} + 0.044715 * {a} ** 3)"
    return w.pick(
        [
            f"F.silu({a})",
            ("one function of one tensor", f"{a} * torch.sigmoid({a})"),
            ("one function of one tensor", f"{a} / (1 + torch.exp(-{a}))"),
            f"{a} * (1 + torch.exp(-{a})).reciprocal()",
        ],
        [
            f"F.leaky_relu({a}, 0.1)",
            f"torch.where({a} > 0, {a}, 0.1 * {a})",
            f"torch.maximum({a}, 0.1 * {a})",
            f"{a} * torch.where({a} > 0, 1.0, 0.1)",
            f"F.relu({a}) - 0.1 * F.relu(-{a})",
        ],
        [
            f"F.softsign({a})",
            f"{a} / (1 + {a}.abs())",
            f"{a} * (1 + {a}.abs()) ** -1",
        ],
        [
            f"F.gelu({a}, approximate='tanh')",
            ("one function of one tensor", f"{a} * (1 + torch.tanh({inner})) / 2"),
        ],
    )


@operator
def power(w: Writer) -> Spellings:
    a = w.relevant()
    return w.pick(
        [
            f"{a} ** 2",
            f"{a}.square()",
            f"torch.pow({a}, 2)",
            f"{a} * {a}",
            f"torch.einsum('...,...->...', {a}, {a})",
        ],
        [f"{a} ** 3 / 4", f"{a}.pow(3) / 4", f"torch.pow({a}, exponent=3) * 0.25"],
    )


@operator
def exponential(w: Writer) -> Spellings:
    a = w.relevant()
    return [
        f"torch.exp(-{a}.abs())",
        f"(-{a}.abs()).exp()",
        ("exponential in place", f"(-{a}.abs()).exp_()"),
    ]


@operator
def absolute(w: Writer) -> Spellings:
    a = w.relevant()
    return [
        f"{a}.abs()",
        f"torch.abs({a})",
        f"abs({a})",
        f"torch.where({a} < 0, -{a}, {a})",
        f"{a} * {a}.sign()",
        f"torch.maximum({a}, -{a})",
    ]


@operator
def reshape(w: Writer) -> Spellings:
    a = w.wide()
    rows, columns = w.shape(a)[1:]
    return w.pick(
        [
            f"{a}.transpose(1, 2)",
            f"{a}.mT",
            f"{a}.permute(0, 2, 1)",
            f"torch.einsum('bij->bji', {a})",
            f"{a}.swapaxes(1, 2).contiguous()",
        ],
        [
            f"{a}.reshape({BATCH}, {columns}, {rows})",
            f"{a}.flatten(1).view({BATCH}, {columns}, {rows})",
            f"{a}.flatten(1).unflatten(1, ({columns}, {rows}))",
        ],
        [f"{a}.flatten(1)", f"{a}.reshape({BATCH}, -1)", f"torch.flatten({a}, 1)"],
    )


@operator
def slice_(w: Writer) -> Spellings:
    a = w.relevant(lambda shape: shape[1] > 1)
    size = w.shape(a)[1]
    return w.pick(
        [
            f"{a}[:, 1:]",
            f"{a}.narrow(1, 1, {size - 1})",
            f"torch.narrow({a}, 1, 1, {size - 1})",
        ],
        [f"{a}[:, :1]", f"{a}.split(1, dim=1)[0]", f"{a}.select(1, 0).unsqueeze(1)"],
        [f"{a}[..., -1:]", f"{a}.narrow(-1, -1, 1)"],
    )


@operator
def split(w: Writer) -> Spellings:
    a = w.relevant(lambda shape: shape[-1] % 2 == 0)
    half = w.shape(a)[-1] // 2
    return [
        f"!{{0}}, {{1}} = {a}.chunk(2, -1)",
        f"!{{0}}, {{1}} = torch.split({a}, {half}, dim=-1)",
        f"!{{0}}, {{1}} = {a}[..., :{half}], {a}[..., {half}:]",
        f"!{{0}}, {{1}} = {a}.unflatten(-1, (2, {half})).unbind(-2)",
    ]


@operator
def index(w: Writer) -> Spellings:
    a = w.wide()
    size = w.shape(a)[1]
    which = (
        f"torch.tensor([{', '.join(str(w.chance.randrange(size)) for _ in range(3))}])"
    )
    return [
        f"{a}[:, {which}]",
        f"{a}.index_select(1, {which})",
        f"torch.index_select({a}, 1, {which})",
        f"{a}.gather(1, {which}[None, :, None].expand({BATCH}, 3, {w.shape(a)[2]}))",
        f"torch.stack([{a}[:, i] for i in {which}.tolist()], 1)",
    ]


@operator
def concatenate(w: Writer) -> Spellings:
    a = w.wide()
    b = w.relevant(lambda s: len(s) == 3 and s[2] == w.shape(a)[2])
    if w.pick(True, False):
        return [f"torch.cat([{a}, {b}], 1)", f"torch.concat(({a}, {b}), dim=1)"]
    c = w.constant(1, 1, w.shape(a)[2])
    return [f"torch.cat([{c}.expand({BATCH}, -1, -1), {a}], 1)"]


@operator
def move(w: Writer) -> Spellings:
    a = w.relevant()
    return w.pick(
        [f"{a}.flip(1)", f"torch.flip({a}, dims=[1])"],
        [f"{a}.roll(1, 1)", f"torch.roll({a}, 1, dims=1)"],
        [f"F.pad({a}, (1, 0))", f"F.pad({a}, (1, 0), value=0.0)"],
        [f"{a}.repeat_interleave(2, 1)", f"torch.repeat_interleave({a}, 2, dim=1)"],
    )


@operator
def mask(w: Writer) -> Spellings:
    a = w.relevant()
    size = w.shape(a)[-1]
    keep = f"(torch.arange({size}) != {w.chance.randrange(size)})"
    return [
        f"{a} * {keep}",
        f"{a}.masked_fill(~{keep}, 0.0)",
        f"torch.where({keep}, {a}, torch.zeros(()).double())",
    ]


@operator
def total(w: Writer) -> Spellings:
    a = w.wide()
    size = w.shape(a)[1]
    return w.pick(
        [f"{a}.sum(1)", f"torch.sum({a}, dim=1)", f"torch.einsum('bij->bj', {a})"],
        [f"{a}.mean(1)", f"torch.mean({a}, 1)", f"{a}.sum(1) / {size}"],
        [f"{a}.mean(1, keepdim=True).expand({BATCH}, {size}, -1)"],
        [f"{a}.cumsum(1)", f"torch.cumsum({a}, dim=1)"],
        [
            f"{a} - {a}.mean(-1, keepdim=True)",
            f"{a}.sub({a}.mean(dim=-1, keepdim=True))",
        ],
    )


@operator
def largest(w: Writer) -> Spellings:
    a = w.wide()
    two = w.values[a].detach().topk(min(2, w.shape(a)[1]), 1).values
    if two.shape[1] == 2 and bool((two[:, 0] == two[:, 1]).any()):
        raise LookupError  # torch shares the gradient of equal values in several ways
    return [
        f"{a}.amax(1)",
        f"{a}.max(1).values",
        f"torch.max({a}, dim=1)[0]",
        f"{a}.sort(1, descending=True)[0][:, 0]",
        f"{a}.topk(1, dim=1).values.squeeze(1)",
    ]


@operator
def pool(w: Writer) -> Spellings:
    a = w.relevant(lambda shape: len(shape) == 3 and shape[2] > 1)
    kind = w.pick("avg", "max")
    return [
        f"F.{kind}_pool1d({a}, 2)",
        f"nn.{kind.title()}Pool1d(2)({a})",
        f"F.{kind}_pool2d({a}[:, None], (1, 2)).squeeze(1)",
    ]


@operator
def outer(w: Writer) -> Spellings:
    a = w.relevant(lambda shape: len(shape) == 2 and shape[1] < 9)
    b = w.relevant(lambda shape: len(shape) == 2 and shape[1] < 9)
    return [
        f"{a}[:, :, None] * {b}[:, None]",
        f"{a}.unsqueeze(2) * {b}.unsqueeze(1)",
        f"torch.einsum('bi,bj->bij', {a}, {b})",
        ("outer product by @", f"{a}.unsqueeze(2) @ {b}.unsqueeze(1)"),
    ]


@operator
def alias(w: Writer) -> Spellings:
    a = w.relevant()
    shape = w.shape(a)
    return [
        f"{a}.contiguous()",
        f"{a}.to(torch.float64)",
        f"{a}.type_as({a})",
        f"{a}.view({shape})",
        f"{a}[:]",
        f"{a}.expand({shape})",
        f"torch.atleast_1d({a})",
        ("dropout as an alias", f"F.dropout({a}, 0.5, self.training)"),
    ]


@operator
def dropout(w: Writer) -> Spellings:
    a = w.relevant()
    return [
        f"F.dropout({a}, 0.5, self.training).clone()",
        f"nn.Dropout(0.5).eval()({a}).clone()",
        f"F.dropout({a}, p=0.0) * 1",
    ]


@operator
def copy(w: Writer) -> Spellings:
    a = w.relevant()
    return [
        f"{a}.clone()",
        f"{a} + 0",
        f"torch.clone({a})",
        f"{a}.contiguous().clone()",
    ]


@operator
def write_into(w: Writer) -> Spellings:
    a = w.relevant(lambda shape: shape[1] > 1)
    b = w.like(a)
    c = w.constant(*w.shape(a)[2:]) if len(w.shape(a)) > 2 else "0.5"
    return w.pick(
        [
            f"!{a}[:, 1:] = {b}[:, 1:]",
            f"!{a}[:, 1:].copy_({b}[:, 1:])",
            f"!{a}.narrow(1, 1, {w.shape(a)[1] - 1}).copy_({b}[:, 1:])",
        ],
        [f"!{a}[:, 0] = {c}", f"!{a}.select(1, 0).copy_(torch.as_tensor({c}))"],
        [f"!{a}[:, 0] *= {c}", f"!{a}[:, 0].mul_({c})", f"!{a}.select(1, 0).mul_({c})"],
        [f"!{a}.add_({b})", f"!{a} += {b}", f"!{a}.view({a}.shape).add_({b})"],
        [f"!{a}.mul_(0.5)", f"!{a} *= 0.5", f"!{a}.div_(2)"],
        [f"!{a}[:, 1].add_({b}[:, 0])", f"!{a}[:, 1] += {b}[:, 0]"],
        [f"!{a}.tanh_()", f"!torch.tanh_({a})", f"!{a}.copy_(torch.tanh({a}))"],
        [f"!{a}.masked_fill_({b} > 1, 0.3)", f"!{a}[{b} > 1] = 0.3"],
    )


@operator
def write_into_zeros(w: Writer) -> Spellings:
    a = w.relevant(lambda shape: shape[1] > 1)
    shape = w.shape(a)
    new = f"{{0}} = torch.zeros({shape}, dtype=torch.float64)"
    return [
        f"!{new}\n{{0}}[:, 1:] = {a}[:, 1:]",
        f"!{new}\n{{0}}[:, 1:].copy_({a}[:, 1:])",
        f"!{new}\n{{0}}[:, 1:] += {a}[:, 1:]",
        f"!{{0}} = {a}.new_zeros({shape})\n{{0}}.narrow(1, 1, {shape[1] - 1}).add_("
        f"{a}[:, 1:])",
    ]


@operator
def checkpointed(w: Writer) -> Spellings:
    a = w.relevant()
    size = w.shape(a)[-1]
    weight = w.constant(size, size)
    return [
        f"F.gelu(F.linear({a}, {weight})) + {a}",
        f"checkpoint(lambda z: F.gelu(F.linear(z, {weight})) + z, {a}, "
        "use_reentrant=False)",
    ]


@operator
def cut(w: Writer) -> Spellings:
    a = w.relevant()
    b = w.like(a)
    sign = w.pick("+", "*")
    return [
        f"{a} {sign} F.gelu({b}).detach()",
        f"{a} {sign} F.gelu({b}.detach())",
        f"{a} {sign} torch.no_grad()(F.gelu)({b})",
        f"!with torch.no_grad():\n    cut = F.gelu({b})\n{{0}} = {a} {sign} cut",
        f"{a} {sign} F.gelu({b}.data)",
    ]


@operator
def steps(w: Writer) -> Spellings:
    a = w.relevant()
    b = w.like(a)
    name = w.pick("sign", "round", "floor")
    return [f"{a} * torch.{name}({b})", f"{a} * torch.{name}({b}).detach()"]


@operator
def unknown_beside(w: Writer) -> Spellings:
    a = w.relevant()
    return [f"!unused = torch.special.i0({a})\n{{0}} = {a} * 1.5"]


@operator
def unknown_for_an_index(w: Writer) -> Spellings:
    a = w.wide()
    found = f"torch.cdist({a}, {a}.flip(1)).argmin(-1, keepdim=True)"
    return [f"{a} * (1 + {found})", f"{a} * (1 + {found.replace(a, a + '.detach()')})"]


@operator
def interpolate(w: Writer) -> Spellings:
    a = w.relevant()
    b = w.like(a)
    return [
        f"0.7 * {a} + 0.3 * {b}",
        ("lerp", f"torch.lerp({a}, {b}, 0.3)"),
        ("lerp", f"{a}.clone().lerp_({b}, 0.3)"),
    ]


@operator
def multiply_and_add(w: Writer) -> Spellings:
    a = w.relevant()
    b, c = w.like(a), w.like(a)
    return [
        f"{a} + {b} * {c}",
        f"({b} * {c}).add_({a})",
        f"torch.addcmul({a}, {b}, {c})",
        f"{a}.clone().addcmul_({b}, {c})",
    ]


@operator
def divide_and_add(w: Writer) -> Spellings:
    a = w.relevant()
    b, c = w.like(a), f"(1 + {w.like(a)}.abs())"
    return [f"{a} + {b} / {c}", ("addcdiv", f"torch.addcdiv({a}, {b}, {c})")]


@operator
def affine_product(w: Writer) -> Spellings:
    a = w.relevant(lambda shape: len(shape) == 2)
    size = w.shape(a)[1]
    weight, bias = w.constant(size, 4), w.constant(4)
    return [
        f"{a} @ {weight} + {bias}",
        f"torch.addmm({bias}, {a}, {weight})",
        f"torch.addmm(input={bias}, mat1={a}, mat2={weight}, beta=1, alpha=1)",
        f"{bias}.expand({BATCH}, 4).clone().addmm_({a}, {weight})",
    ]


@operator
def batched_product(w: Writer) -> Spellings:
    a = w.relevant(lambda shape: len(shape) == 3 and shape[1] == shape[2])
    b = w.like(a)
    c = w.pick(w.like(a), w.constant(*w.shape(a)[1:]))
    again = "an addend that is a factor" if c in (a, b) else "baddbmm"
    return [
        f"{c} + {a} @ {b}",
        f"torch.bmm({a}, {b}).add_({c})",
        (again, f"torch.baddbmm({c}, {a}, {b})"),
    ]


@operator
def similarity(w: Writer) -> Spellings:
    a = w.wide()
    b = w.like(a)
    return [
        f"(F.normalize({a}, dim=-1) * F.normalize({b}, dim=-1)).sum(-1)",
        ("cosine similarity", f"F.cosine_similarity({a}, {b}, dim=-1)"),
    ]


@operator
def power_of_tensor(w: Writer) -> Spellings:
    a = f"({w.relevant(lambda shape: shape[-1] == 2)}.abs() + 0.1)"
    return w.pick(
        [
            f"{a} ** 2",
            f"{a} ** torch.tensor(2.0).double()",
            f"torch.pow({a}, torch.tensor(2))",
        ],
        [
            f"torch.stack([{a}[..., 0] ** 2, {a}[..., 1] ** 3], -1)",
            ("tensor exponents", f"{a} ** torch.tensor([2, 3])"),
        ],
    )


@operator
def log_sum(w: Writer) -> Spellings:
    a = w.relevant(lambda shape: shape[-1] > 1)
    return [
        f"{a} + torch.logsumexp({a}, -1, keepdim=True)",
        f"{a} + {a}.logsumexp(-1, True)",
    ]


@operator
def products(w: Writer) -> Spellings:
    a = w.relevant(lambda shape: shape[-1] == 2)
    return [
        f"{a}[..., 0] * {a}[..., 1]",
        ("prod", f"{a}.prod(-1)"),
        ("prod", f"torch.prod({a}, dim=-1)"),
    ]


@operator
def broadcast(w: Writer) -> Spellings:
    a = w.wide()
    b = w.relevant(lambda shape: shape == (BATCH, w.shape(a)[2]))
    sign = w.pick("+", "*")
    size = w.shape(a)[1]
    return [
        f"{a} {sign} {b}[:, None]",
        f"{a} {sign} {b}.unsqueeze(1)",
        f"{b}[:, None].expand(-1, {size}, -1) {sign} {a}",
        f"{a} {sign} {b}[:, None].repeat(1, {size}, 1)",
        f"{a}.clone().{'add' if sign == '+' else 'mul'}_({b}.view({BATCH}, 1, -1))",
    ]


@operator
def scattered(w: Writer) -> Spellings:
    a = w.wide()
    size = w.shape(a)[1]
    where = [w.chance.randrange(3) for _ in range(size)]
    empty = f"torch.zeros({BATCH}, 3, {w.shape(a)[2]}, dtype=torch.float64)"
    onto = f"torch.tensor({where})"
    return [
        f"{empty}.index_add(1, {onto}, {a})",
        f"{empty}.index_add_(1, {onto}, {a})",
        f"{empty}.scatter_add(1, {onto}[None, :, None].expand_as({a}), {a})",
        f"torch.einsum('bid,io->bod', {a}, F.one_hot({onto}, 3).double())",
        f"{empty}.index_put((torch.arange({BATCH})[:, None], {onto}[None]), {a}, True)",
    ]


@operator
def spectrum(w: Writer) -> Spellings:
    a = w.relevant(lambda shape: shape[-1] > 1)
    return [f"torch.fft.fft({a}).real", f"torch.real(torch.fft.fft({a}, dim=-1))"]


@operator
def triangle(w: Writer) -> Spellings:
    a = w.wide()
    rows, columns = w.shape(a)[1:]
    return [
        f"{a}.tril()",
        f"torch.tril({a})",
        f"{a} * torch.ones({rows}, {columns}).tril()",
        f"{a}.masked_fill(torch.ones({rows}, {columns}).triu(1).bool(), 0)",
        f"{a}.clone().tril_()",
    ]


@operator
def experts(w: Writer) -> Spellings:
    a = w.relevant(lambda shape: len(shape) == 3 and shape[-1] > 1)
    weights = w.constant(2, w.shape(a)[-1], 3)
    return [
        f"torch.stack([{a} @ {weights}[i] for i in range(2)]).sum(0)",
        f"sum({a} @ weight for weight in {weights}.unbind())",
        f"torch.einsum('bid,edo->bio', {a}, {weights})",
        f"({a}[None] @ {weights}[:, None]).sum(0)",
    ]


@operator
def mapped(w: Writer) -> Spellings:
    a = w.relevant()
    weight = w.constant(w.shape(a)[-1])
    return [
        f"F.gelu({a} * {weight})",
        ("vmap", f"torch.vmap(lambda e: F.gelu(e * {weight}))({a})"),
    ]
