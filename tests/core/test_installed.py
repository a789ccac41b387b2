"""What a run installs: gone wherever it is interrupted, unseen by other threads."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.utils import parametrizations, parametrize
from torch.overrides import _get_current_function_mode_stack

from captum_transformer_lrp import AttnLRP, CheferLRP, LayerAttnLRP, OwenLRP, registry
from captum_transformer_lrp.attribution import InputSaliency
from captum_transformer_lrp.core import installed
from captum_transformer_lrp.known import compiled as eager
from captum_transformer_lrp.known.functions import Opened
from tests.helpers import Tiny, assert_same_state, relative, state_of, tiny

IDS = torch.tensor([[3, 7, 1, 9]])


class Squared(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class Everything(Tiny):
    """Whatever makes an engine install something."""

    def __init__(self) -> None:
        super().__init__(blocks=1)
        self.memory = nn.LSTM(8, 8, batch_first=True)
        parametrizations.weight_norm(self.head)

    def forward(  # type: ignore[override]
        self, input_ids: Tensor
    ) -> Tensor:
        with torch.no_grad():
            lengths = (input_ids > 0).sum(1, keepdim=True)
        x, _ = self.memory(self.embedding(input_ids))
        for block in self.blocks:
            x = block(x + Squared.apply(x))
        return self.head(x.sum(1) / lengths)


def everything() -> Everything:
    torch.manual_seed(0)
    return Everything().double().eval()


def around() -> dict[str, Any]:
    """Return all else of torch that a run may touch, on this thread and on others."""
    compiler: Any = sys.modules.get("torch._dynamo.eval_frame")
    return {
        "apply": [vars(Squared).get("apply"), vars(Function).get("apply")],
        "modes": _get_current_function_mode_stack(),
        "functions seen": torch._C._is_torch_function_enabled(),
        "gradients": torch.is_grad_enabled(),
        "saved tensors": torch._C._autograd._top_saved_tensors_default_hooks(True),
        "stance": getattr(compiler, "_stance", None),
        "cache": dict(parametrize._cache),
        "thread": [
            getattr(installed.thread, name, None)
            for name in ("engine", "eager", "method")
        ],
    }


WAYS: dict[str, Callable[[Everything], Any]] = {
    "AttnLRP": lambda m: AttnLRP(m).attribute(IDS, target=1),
    "CheferLRP": lambda m: CheferLRP(m).attribute(IDS, target=1),
    "LayerAttnLRP": lambda m: LayerAttnLRP(m, m.blocks[0]).attribute(
        IDS, target=1, attribute_to_layer_input=True
    ),
    "OwenLRP": lambda m: OwenLRP(m, baseline=0).attribute(IDS, target=1),
    "trace": lambda m: AttnLRP(m).trace(IDS, target=1),
    "InputSaliency": lambda m: InputSaliency(m).attribute(IDS, target=1),
}


#: where the standard library keeps dataclasses from printing themselves for ever: an
#: interrupt before its `try` leaves an object printed as "..."
GUARDS = ("dataclasses.py", "reprlib.py")


def interrupted(run: Callable[[], Any], at: int, *, opcodes: bool = False) -> int:
    """Raise KeyboardInterrupt at that line (or opcode) of any code; count them all."""
    count = 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = opcodes
        if frame.f_code.co_filename.endswith(GUARDS):
            return trace
        if event == "call" or event == ("opcode" if opcodes else "line"):
            count += 1
            if count == at:
                raise KeyboardInterrupt
        return trace

    usual = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(usual)
    return count


SQUARED = {f"{Squared.__module__}.{Squared.__qualname__}": Opened()}


@pytest.fixture
def opened() -> Iterator[None]:
    with registry.override(SQUARED), parametrize.cached():
        yield


def sweep(way: str, samples: int, **options: bool) -> None:
    model = everything()

    def run() -> Any:
        return WAYS[way](model)

    run()
    with torch.set_grad_enabled(way != "CheferLRP"):
        before, of_model = around(), state_of(model)
        total = interrupted(run, 0, **options)
        assert around() == before
        step = max(total // samples, 1)
        for at in range(1 + step // 2, total, step):
            interrupted(run, at, **options)
            assert around() == before, f"{way}, interrupted at {at} of {total}"
        assert_same_state(of_model, state_of(model))


# an interrupt in a generator or a callback that C code runs is lost, as python says
lost = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@lost
@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize("way", WAYS)
def test_an_interrupt_leaves_nothing(way: str) -> None:
    sweep(way, 25)


@lost
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("opcodes", [False, True])
def test_an_interrupt_anywhere_leaves_nothing(way: str, opcodes: bool) -> None:
    sweep(way, 200, opcodes=opcodes)


@pytest.mark.usefixtures("opened")
def test_an_interrupt_in_one_thread_leaves_another_its_own() -> None:
    """What an engine elsewhere needs stays installed."""
    model, entered, go_on = everything(), threading.Event(), threading.Event()
    found: list[Tensor] = []

    def waiting(ids: Tensor) -> Tensor:
        entered.set()
        assert go_on.wait(60)
        return model(ids)

    def work() -> None:
        with registry.override(SQUARED):
            found.append(AttnLRP(waiting).attribute(IDS, target=1))

    expected = AttnLRP(model).attribute(IDS, target=1)
    thread = threading.Thread(target=work)
    thread.start()
    assert entered.wait(60)
    for at in (2000, 3000, 4000):
        interrupted(lambda: AttnLRP(model).attribute(IDS, target=1), at)
    go_on.set()
    thread.join()
    assert relative(found[0], expected) < 1e-13


def test_a_lock_that_an_interrupt_left_taken_is_given_back() -> None:
    model = tiny()

    def cut_off(ids: Tensor) -> Tensor:
        installed.LOCK.acquire()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        AttnLRP(cut_off).attribute(IDS, target=1)
    found: list[Tensor] = []
    thread = threading.Thread(
        target=lambda: found.append(AttnLRP(model).attribute(IDS, target=1)),
        daemon=True,
    )
    thread.start()
    thread.join(30)
    assert found, "another thread waits for the lock"


def test_a_lost_release_is_made_up_for_by_the_next() -> None:
    """Users are known, not counted."""
    lost: Any = type("Lost", (), {})()
    before = around(), list(nn.modules.module._global_forward_hooks)
    installed.MODULES.acquire(lost)
    eager.EAGER.acquire(lost)
    assert list(nn.modules.module._global_forward_hooks) != before[1]
    del lost
    model = tiny()
    LayerAttnLRP(model, model.head).attribute(IDS, target=1)
    assert (around(), list(nn.modules.module._global_forward_hooks)) == before


# ------------------------------------------------------------------------- random draws


def test_draws_of_other_threads_are_their_own() -> None:
    model, stop, seen = tiny(), threading.Event(), list[int]()

    def draw() -> None:
        while not stop.is_set():
            seen.append(int(torch.randint(2**60, (1,))))

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        for _ in range(20):
            AttnLRP(model).attribute(IDS, target=1)
            CheferLRP(model).attribute(IDS, target=1)
    finally:
        stop.set()
        thread.join()
    assert len(seen) > 100 and len(set(seen)) == len(seen)


# ------------------------------------------------------------------------ compiled code


def gelu_gate(x: Tensor) -> Tensor:
    return nn.functional.gelu(x) * torch.sigmoid(x)


class Gate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return gelu_gate(x)


class Counter:
    """A backend that counts what it compiles."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.count += 1
        return graph.forward


@pytest.fixture
def backend() -> Iterator[Counter]:
    pytest.importorskip("torch._dynamo")
    torch._dynamo.reset()
    yield Counter()
    torch._dynamo.reset()


def layers() -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    return nn.Linear(8, 8).double(), nn.Linear(8, 3).double()


def in_place(module: nn.Module, **options: Any) -> nn.Module:
    module.compile(**options)
    return module


COMPILED: dict[str, Callable[..., Any]] = {
    "a function": lambda first, last, compiled: (
        lambda x: last(compiled(gelu_gate)(first(x)))
    ),
    "a submodule": lambda first, last, compiled: nn.Sequential(
        first, compiled(Gate()), last
    ),
    "a model": lambda first, last, compiled: compiled(
        nn.Sequential(first, Gate(), last)
    ),
    "a forward function": lambda first, last, compiled: compiled(
        lambda x: last(gelu_gate(first(x)))
    ),
    "within another": lambda first, last, compiled: compiled(
        nn.Sequential(first, compiled(Gate()), last)
    ),
}


@pytest.mark.parametrize("fullgraph", [False, True])
@pytest.mark.parametrize("name", [*COMPILED, "compiled in place"])
@pytest.mark.filterwarnings("ignore")  # of the compiler's
def test_compiled_code_runs_as_it_is_written(
    name: str, fullgraph: bool, backend: Counter
) -> None:
    first, last = layers()
    x = torch.randn(2, 8).double()
    expected = AttnLRP(nn.Sequential(first, Gate(), last)).attribute(x, target=1)
    options: dict[str, Any] = {"backend": backend, "fullgraph": fullgraph}
    if name == "compiled in place":
        model: Any = nn.Sequential(first, in_place(Gate(), **options), last)
    else:
        model = COMPILED[name](first, last, lambda f: torch.compile(f, **options))
    assert relative(AttnLRP(model).attribute(x, target=1), expected) < 1e-13
    assert backend.count == 0
    model(x)
    assert backend.count > 0
    # and where it has been compiled already
    assert relative(AttnLRP(model).attribute(x, target=1), expected) < 1e-13


@pytest.mark.filterwarnings("ignore")  # of the compiler's
def test_other_threads_run_compiled_code(backend: Counter) -> None:
    first, last = layers()
    x = torch.randn(2, 8).double()
    elsewhere = torch.compile(gelu_gate, backend=backend, fullgraph=True)
    here = torch.compile(gelu_gate, backend=backend)
    seen: list[int] = []

    def model(x: Tensor) -> Tensor:
        thread = threading.Thread(target=lambda: elsewhere(torch.ones(len(seen) + 3)))
        thread.start()
        thread.join()
        seen.append(backend.count)
        return last(here(first(x)))

    AttnLRP(model).attribute(x, target=1)
    assert seen == [1], "the other thread ran eagerly, or this one compiled"
    assert backend.count == 1


def test_stances_of_others_are_kept(backend: Counter) -> None:
    from torch._dynamo import eval_frame

    model = tiny()
    with torch.compiler.set_stance("eager_on_recompile"):
        before = eval_frame._stance
        AttnLRP(model).attribute(IDS, target=1)
        assert eval_frame._stance is before


@pytest.mark.parametrize("use", ["pass", "AttnLRP(m).attribute(x, target=0)"])
def test_the_compiler_is_loaded_by_those_who_use_it(use: str) -> None:
    code = f"""
import sys, warnings
warnings.simplefilter("ignore")
import torch, captum.attr
m, x = torch.nn.Linear(3, 2), torch.ones(1, 3)
assert "torch._dynamo" not in sys.modules, "torch or captum loads it"
from captum_transformer_lrp import AttnLRP
{use}
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


# --------------------------------------------------------------------- parametrisations


def test_what_was_cached_within_a_pass_is_dropped() -> None:
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    parametrizations.weight_norm(model[2])
    x = torch.randn(2, 5).double()
    model(x).sum().backward()
    expected = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    with parametrize.cached():
        AttnLRP(model).attribute(x, target=0)
        assert not parametrize._cache
        model(x).sum().backward()
        kept = dict(parametrize._cache)
        AttnLRP(model).attribute(x, target=0)
        assert kept and parametrize._cache == kept  # what the user computed stays
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert relative(parameter.grad, expected[name]) < 1e-14, name
