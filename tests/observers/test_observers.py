"""Any number of observers watch one pass, and a stranger's is one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from captum_transformer_lrp import (
    CPLRP,
    AttentionRollout,
    AttnLRP,
    CheferLRP,
    GradientXInput,
    LLMTransformerLRP,
    OwenLRP,
    PositionalLRP,
    TransformerLRP,
    rules,
)
from captum_transformer_lrp.attribution.single_pass import explain_once, run_once
from captum_transformer_lrp.core.composites import (
    ATTN_LRP,
    CP_LRP,
    GRADIENT_X_INPUT,
    Composite,
)
from captum_transformer_lrp.core.engine import Engine
from captum_transformer_lrp.observers import (
    Applied,
    ObservedEngine,
    Observer,
    Run,
    relevant,
)
from captum_transformer_lrp.observers.encodings import PositionEncodings
from captum_transformer_lrp.observers.maps import AttentionMaps
from captum_transformer_lrp.observers.trace import Tracing
from tests.helpers import assert_same_state, relative, state_of, tiny
from tests.language.models import language_model, tokens

IDS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])


def stranger() -> Any:
    """The observer that CONTRIBUTING shows, as it stands there."""
    page = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    _, _, section = page.partition("## Add an observer")
    code = section.split("```python\n")[1].split("```")[0]
    namespace: dict[str, Any] = {"__name__": "page"}
    exec(code, namespace)
    return namespace["Arriving"]()


def alpha_beta(model: Any, **options: Any) -> Any:
    """A table that carries relevance itself."""
    return TransformerLRP(model, "alpha-beta", **options)


def by_operator(trace: Any) -> dict[str, float]:
    found: dict[str, float] = {}
    for record in trace:
        if record.rule != "to the identifiers":
            found[record.operator] = found.get(record.operator, 0.0) + record.received
    return found


@pytest.mark.parametrize("method", [AttnLRP, CPLRP, GradientXInput, alpha_beta])
def test_an_observer_of_ten_lines_works_from_outside(method: Any) -> None:
    arriving, second = stranger(), stranger()
    found = method(tiny(), observers=[arriving, second]).attribute(IDS, target=1)
    assert relative(found, method(tiny()).attribute(IDS, target=1)) < 1e-9
    expected = by_operator(method(tiny()).trace(IDS, target=1))
    assert set(arriving.relevance) <= set(expected) and len(expected) > 6
    for name, relevance in expected.items():
        for heard in (arriving.relevance, second.relevance):
            assert heard.get(name, 0.0) == pytest.approx(relevance, abs=1e-9), name


def test_what_is_heard_at_an_output_is_all_that_comes_to_it() -> None:
    """Not what the rule makes of it: of a product each factor gets half."""
    a, b = torch.randn(2, 2, 3, 3, dtype=torch.float64)

    class Inputs(Observer):
        def __init__(self) -> None:
            self.found: list[float] = []

        def apply(self, call: Applied, run: Run) -> Any:
            if call.name == "matmul":
                for tensor in relevant(call.args):
                    self.engine.hear(
                        tensor, lambda r: self.found.append(float(r.sum()))
                    )
            return run(call.args, call.kwargs)

    def model(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b).sum((1, 2))

    arriving, inputs = stranger(), Inputs()
    AttnLRP(model, observers=[inputs, arriving]).attribute((a, b))
    score = float(model(a, b).sum())
    assert arriving.relevance["matmul"] == pytest.approx(score, rel=1e-12)
    assert inputs.found == pytest.approx([score / 2, score / 2], rel=1e-12)


def test_every_method_takes_observers() -> None:
    model = language_model("llama")
    ids = tokens(5)[None]
    for method in (
        PositionalLRP(model, observers=[one := stranger()]),
        OwenLRP(model, baseline=3, observers=[two := stranger()]),
        AttentionRollout(model, observers=[three := stranger()]),
    ):
        method.attribute(ids, target=(-1, 3))
    LLMTransformerLRP(model, chunk_size=1, observers=[four := stranger()]).attribute(
        ids[0], tokens(2)
    )
    assert all(observer.relevance for observer in (one, two, three, four))
    # of the same name with the same weights: three passes and one
    whole = stranger()
    AttnLRP(model, observers=[whole]).attribute(ids, target=(-1, 3))
    assert two.relevance["linear"] != pytest.approx(whole.relevance["linear"])


def test_a_trace_is_heard_beside_an_observer_of_ones_own() -> None:
    alone = AttnLRP(tiny()).trace(IDS, target=1)
    both = AttnLRP(tiny(), observers=[stranger()]).trace(IDS, target=1)
    for record, other in zip(both, alone, strict=True):
        assert record.received == pytest.approx(other.received, abs=1e-12)
        assert record.passed == pytest.approx(other.passed, abs=1e-12)
        assert record.constant == pytest.approx(other.constant, abs=1e-12)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("composite", [ATTN_LRP, GRADIENT_X_INPUT])
def test_trace_maps_and_positions_of_one_pass(
    composite: Composite, order: tuple[int, ...]
) -> None:
    model = language_model("llama")
    ids = tokens(6).view(1, -1)

    def ran(*observers: Observer) -> dict[str, Any]:
        found: dict[str, Any] = {}
        with run_once(
            model, ids, None, composite=composite, unknown=None, observers=observers
        ) as (engine, inputs, output):
            leaves = [leaf.leaf for leaf in inputs.leaves]
            uses = [u for o in observers for u in getattr(o, "uses", ())]
            maps = [m for o in observers for m in getattr(o, "maps", ())]
            wanted = [*leaves, *(u.leaf for u in uses), *(m.tensor for m in maps)]
            gradients = engine.gradients(output.logits[:, -1, 3].sum(), wanted)
        parts = iter(gradients)
        found["tokens"] = [next(parts) for _ in leaves]
        found["positions"] = [
            (u.encoding, u.table, u.module, next(parts)) for u in uses
        ]
        found["maps"] = [(m.module, m.tensor.detach(), next(parts)) for m in maps]
        for observer in observers:
            if isinstance(observer, Tracing):
                found["records"] = [
                    (r.operator, r.received, r.passed)
                    for r in observer.finished_records(0.0)
                ]
        return found

    three = [Tracing(), AttentionMaps(), PositionEncodings()]
    together = ran(*(three[i] for i in order))
    # what takes attention apart, or gives positions relevance, shows in the others
    pairs = ran(AttentionMaps(), PositionEncodings())
    assert len(together["maps"]) == 2 and together["positions"]
    for key in ("tokens", "positions", "maps"):
        assert_close(together[key], pairs[key])
    assert_close(
        together["records"],
        ran(Tracing(), AttentionMaps(), PositionEncodings())["records"],
    )
    last = [record for record in together["records"] if record[0] == "linear"][-1]
    with torch.no_grad():
        assert last[1] == pytest.approx(float(model(ids).logits[:, -1, 3].sum()))


def assert_close(found: Any, expected: Any) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        if isinstance(one, Tensor):
            assert relative(one, other) < 1e-9 or not other.any()
        elif isinstance(one, tuple):
            assert_close(one, other)
        elif isinstance(one, float):
            assert one == pytest.approx(other, rel=1e-9, abs=1e-12)
        else:
            assert one == other


class Notes(Observer):
    """Writes down what it hears, under its name."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name, self.notes = name, notes

    def begin(self, engine: ObservedEngine) -> None:
        self.notes.append(f"{self.name} begins")

    def model(self, root: nn.Module) -> None:
        self.notes.append(f"{self.name} model {type(root).__name__}")

    def apply(self, call: Applied, run: Run) -> Any:
        self.notes.append(f"{self.name} {call.name} {call.relevant}")
        output = run(call.args, call.kwargs)
        self.notes.append(f"{self.name} done")
        return output


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_first_observer_is_the_outermost(wrapped: bool) -> None:
    notes: list[str] = []
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    model: Any = (lambda x: net(x)) if wrapped else net
    pair = [Notes("a", notes), Notes("b", notes)]
    AttnLRP(model, observers=pair).attribute(torch.ones(1, 3).double(), target=0)
    step = [["a {} 1", "b {} 1", "b done", "a done"]] * 3
    operators = [
        note.format(name)
        for name, lines in zip(("linear", "tanh", "linear"), step, strict=True)
        for note in lines
    ]
    begun = ["a begins", "b begins"]
    known = ["a model Sequential", "b model Sequential"]
    if not wrapped:
        begun = ["a begins", known[0], "b begins", known[1]]
        known = []
    assert notes == [*begun, *known, *operators]


def test_an_observer_may_change_arguments_and_outputs() -> None:
    """What it multiplies in the graph is in the relevance."""

    class Doubled(Observer):
        def apply(self, call: Applied, run: Run) -> Any:
            output = run(call.args, call.kwargs)
            if call.name == "linear":
                output.register_hook(lambda gradient: 2 * gradient)
            return output

    net = nn.Linear(3, 2, bias=False).double()
    x = torch.randn(2, 3, dtype=torch.float64)
    found = CPLRP(net, observers=[Doubled()]).attribute(x, target=0)
    assert relative(found, 2 * CPLRP(net).attribute(x, target=0)) < 1e-12


def test_meeting_sees_what_carries_nothing() -> None:
    class Met(Observer):
        def __init__(self) -> None:
            self.names: list[str] = []

        def meet(self, operator: Any, args: Any, kwargs: Any, run: Run) -> Any:
            self.names.append(operator.name)
            return run(args, kwargs)

    def model(x: Tensor) -> Tensor:
        table = torch.arange(3).double().exp()
        return (x * table).sum(1, keepdim=True)

    met = Met()
    engine = ObservedEngine(CP_LRP, observers=[met])
    assert not engine.measures  # plain operators need not be shown
    CPLRP(model, observers=[met]).attribute(torch.ones(1, 3).double(), target=0)
    assert [n for n in met.names if n in ("arange", "exp", "mul", "sum")] == [
        "arange", "exp", "mul", "sum",
    ]  # fmt: skip


def test_what_works_in_place_is_shown_out_of_place() -> None:
    seen: list[tuple[str, int]] = []

    class Seen(Observer):
        def apply(self, call: Applied, run: Run) -> Any:
            given = call.args[0]._version
            output = run(call.args, call.kwargs)
            assert output is not call.args[0]
            seen.append((call.name, call.args[0]._version - given))
            return output

    def model(x: Tensor) -> Tensor:
        y = x * 2.0
        y.mul_(3.0)
        y[:, 0] = x[:, 1]
        y.relu_()
        return y.sum(1, keepdim=True)

    x = torch.randn(2, 3, dtype=torch.float64)
    found = AttnLRP(model, observers=[Seen()]).attribute(x, target=0)
    assert torch.equal(found, AttnLRP(model).attribute(x, target=0))
    names = [name for name, _ in seen]
    assert names.count("mul") == 2 and {"relu", "setitem", "sum"} <= set(names)
    assert all(writes == 0 for _, writes in seen)


def test_modules_that_are_one_operator_are_shown_once() -> None:
    shown: list[tuple[str, Any]] = []

    class Modules(Observer):
        def apply(self, call: Applied, run: Run) -> Any:
            shown.append((call.name, call.module))
            return run(call.args, call.kwargs)

    net = nn.Sequential(nn.Linear(3, 3), nn.GELU(), nn.Linear(3, 2)).double()
    lrp = TransformerLRP(net, rules={nn.GELU: rules.Identity()}, observers=[Modules()])
    lrp.attribute(torch.ones(1, 3).double(), target=0)
    assert shown == [("linear", None), ("GELU", net[1]), ("linear", None)]


def test_a_checkpoint_is_shown_once() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)).double()

    def model(x: Tensor) -> Any:
        return checkpoint(net, x, use_reentrant=False)

    notes: list[str] = []
    x = torch.ones(1, 3).double()
    found = AttnLRP(model, observers=[Notes("a", notes)]).attribute(x, target=0)
    assert torch.equal(found, AttnLRP(net).attribute(x, target=0))
    assert [n for n in notes if n.endswith(" 1")] == [
        "a linear 1", "a gelu 1", "a linear 1",
    ]  # fmt: skip


def test_nobody_watches_by_default_and_nothing_is_left() -> None:
    model = tiny()
    before = state_of(model)
    explained = explain_once(
        model, IDS, 1, None, composite=ATTN_LRP, output_field=None, unknown=None
    )
    assert type(explained.engine) is Engine and explained.engine.observers == ()
    CheferLRP(model, observers=[stranger()]).attribute(IDS, target=1)
    AttnLRP(model, observers=[stranger(), stranger()]).trace(IDS, target=1)
    assert_same_state(before, state_of(model))


@pytest.mark.parametrize("names", [(1,), (0, 1)])
def test_the_balance_alone_is_that_of_the_trace_through_units(
    names: tuple[int, ...],
) -> None:
    model = tiny()
    through: Any = {model.blocks[i]: (slice(None), slice(0, 4)) for i in names}
    lrp = AttnLRP(model, through=through)
    _, error = lrp.attribute(IDS, target=1, return_conservation_error=True)
    expected = lrp.trace(IDS, target=1).conservation_error
    assert error == pytest.approx(expected, abs=1e-12) and expected > 1e-3
