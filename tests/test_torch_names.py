"""A canary: what this package relies on in torch's private names is still so.

Run it first against a new torch: ``pytest tests/test_torch_names.py``.
"""

from __future__ import annotations

import re
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

import captum_transformer_lrp
from captum_transformer_lrp import _torch

PACKAGE = Path(captum_transformer_lrp.__file__).parent
#: spellings of private names of torch, but for what is in quotation marks
PRIVATE = re.compile(
    r"\btorch(\.\w+)*\._[a-z]\w*|\btorch\._C\b|from torch[\w.]* import .*\b_\w+"
    r"|from torch(\.\w+)*\._\w+|\._(saved_\w+|sequence_nr|input_metadata|forward_cls"
    r"|fix_weakref|global_forward\w+|stance)\b"
)


def code_of(file: Path) -> str:
    """Return a file without its comments and strings."""
    text = re.sub(r'"""[\s\S]*?"""', '""', file.read_text())
    return re.sub(r"\"[^\"\n]*\"|#.*", "", text)


@pytest.mark.parametrize(
    "file", sorted(PACKAGE.rglob("*.py")), ids=lambda f: str(f.relative_to(PACKAGE))
)
def test_private_names_are_in_one_file(file: Path) -> None:
    if file.name != "_torch.py":
        assert not [match.group() for match in PRIVATE.finditer(code_of(file))]


class Names(TorchFunctionMode):
    """Notes the names of what is called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.depth = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.names.append(func.__name__)
        self.depth = _torch.count_of_modes()
        return func(*args, **(kwargs or {}))


def test_modes() -> None:
    x = torch.ones(2)
    assert (_torch.mode_stack(), _torch.count_of_modes()) == ([], 0)
    with Names() as mode:
        x.exp()
        with _torch.DisableTorchFunction():
            assert not _torch.is_torch_function_enabled()
            x.sin()
        assert _torch.mode_stack() == [mode]
        _torch.pop_mode()
        x.cos()
        _torch.push_mode(mode)
        x.tan()
    assert mode.names == ["exp", "tan"]
    assert mode.depth == 0, "a mode is off the stack while it runs"
    assert _torch.is_torch_function_enabled()


def test_what_runs_below_autograd() -> None:
    """Every operator of a backward pass, and what it writes into."""

    class Seen(_torch.DispatchMode):
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.calls: list[tuple[Any, bool]] = []

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            written = _torch.written_by(func, args, kwargs or {})
            output = func(*args, **(kwargs or {}))
            assert all(one is output for one in written)
            self.calls.append((func, bool(written)))
            return output

    x = torch.ones(2, 3, requires_grad=True)
    y = (x @ torch.ones(3, 2)).exp()
    with Seen() as seen:
        (gradient,) = torch.autograd.grad(y, x, torch.ones_like(y))
        torch.add(gradient, 1, out=torch.empty(2, 3))
        gradient.mul_(2)
    names = [func for func, _ in seen.calls]
    assert torch.ops.aten.mm.default in names
    assert [func for func, writes in seen.calls if writes] == [
        torch.ops.aten.add.out,
        torch.ops.aten.mul_.Tensor,
    ]


def test_a_gradient_mode_that_is_left() -> None:
    _torch.set_grad_enabled(False)
    assert not torch.is_grad_enabled()
    _torch.set_grad_enabled(True)
    assert torch.is_grad_enabled()


def test_nodes_are_numbered_one_by_one() -> None:
    x = torch.ones(2, requires_grad=True)
    before = _torch.next_node_number()
    y = x.exp()
    with torch.no_grad():
        x.exp()
    z = y.sin()
    numbers = [_torch.node_number(t.grad_fn) for t in (y, z)]
    assert [*numbers, _torch.next_node_number()] == [before, before + 1, before + 2]


def test_what_a_node_knows() -> None:
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return 2 * x

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return 2 * g

    x = torch.ones(1, 1, 4, 4, requires_grad=True)
    y = nn.functional.conv2d(x, torch.ones(3, 1, 2, 2), stride=2)
    (output,) = _torch.node_outputs(y.grad_fn)
    assert (tuple(output.shape), output.dtype) == ((1, 3, 2, 2), torch.float32)
    assert tuple(_torch.saved(y.grad_fn, "stride")) == (2, 2)
    assert _torch.saved(y.grad_fn, "weight").shape == (3, 1, 2, 2)
    assert _torch.function_class(y.grad_fn) is None
    assert _torch.function_class(Double.apply(x).grad_fn) is Double


def test_versions_and_bases_of_tensors() -> None:
    x = torch.ones(3)
    view = x.view(3, 1)
    assert (view._base is x, view._is_view(), x._version) == (True, True, 0)
    view.add_(1)
    assert (x._version, view._version) == (1, 1)


def test_a_weak_reference_outlives_python() -> None:
    x = torch.ones(2, requires_grad=True)
    y = x.exp()
    reference = weakref.ref(y)
    z = y.sin()  # saves y
    del y
    found = reference()
    assert found is not None and z is not None
    _torch.revive(found)
    assert float(found.detach()[0]) == float(torch.ones(1).exp())


def test_transforms() -> None:
    seen = []

    def look(x: Tensor) -> Tensor:
        inside = _torch.transform_level() is not None
        seen.append((inside, _torch.is_wrapped(x), _torch.unwrapped(x).shape))
        return x

    x = torch.ones(2, 3)
    torch.vmap(look)(x)
    assert seen == [(True, True, (2, 3))]
    assert _torch.transform_level() is None and not _torch.is_wrapped(x)


def test_hooks_of_saved_tensors() -> None:
    assert _torch.saved_tensor_hooks(True) is None
    found = []

    def look(x: Tensor) -> Tensor:
        found.append(_torch.saved_tensor_hooks(True))
        return x.exp()

    checkpoint(look, torch.ones(2, requires_grad=True), use_reentrant=False)
    assert found[0] is not None
    torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x).__enter__()
    _torch.pop_saved_tensor_hooks()
    assert _torch.saved_tensor_hooks(True) is None


def test_hooks_of_all_modules() -> None:
    called = []
    before = nn.modules.module.register_module_forward_pre_hook(
        lambda module, args: called.append("before")
    )
    after = nn.modules.module.register_module_forward_hook(
        lambda module, args, kwargs, output: called.append("after"),
        with_kwargs=True,
        always_call=True,
    )
    try:
        assert before.id in _torch.before_modules
        assert after.id in _torch.after_modules
        assert all(after.id in options for options in _torch.after_modules_options)
        nn.Identity()(1)
    finally:
        before.remove()
        after.remove()
        for options in _torch.after_modules_options:
            options.pop(after.id, None)
    assert called == ["before", "after"]


def test_what_is_loaded_late() -> None:
    model = nn.utils.parametrize.register_parametrization(
        nn.Linear(2, 2), "weight", nn.Identity()
    )
    with nn.utils.parametrize.cached():
        assert model(torch.ones(2)).shape == (2,)
        assert len(_torch.cached_parametrizations()) == 1
    assert not _torch.cached_parametrizations()
    assert torch.ops.aten.addmm.default in _torch.decompositions()
    table = torch.arange(4)
    with _torch.indexing_by_tensors():
        assert torch.vmap(lambda i: table[i])(table).tolist() == [0, 1, 2, 3]
    usual = _torch.stance()  # loaded by the mode above
    assert usual.stance == "default"
    with torch.compiler.set_stance("force_eager"):
        assert _torch.stance().stance == "force_eager"
    _torch.set_stance(usual)
    assert _torch.stance() is usual


def test_functions_that_move() -> None:
    functions = __import__("torch.nn.modules._functions", fromlist=["x"])
    name = "torch.nn.modules._functions.BackwardHookFunction"
    assert functions.BackwardHookFunction.__name__ == name.rpartition(".")[2]
    assert name in _torch.MOVING_FUNCTIONS
    assert type(torch.ops.higher_order.cond).__module__.startswith(_torch.HIGHER_ORDER)
