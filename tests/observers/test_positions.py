"""Rows of attention maps are matched to tokens as the model's own values are moved."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from captum_transformer_lrp.carried.composites import TRANSFORMER_ATTRIBUTION
from captum_transformer_lrp.core.composites import GRADIENT_X_INPUT, Composite
from captum_transformer_lrp.observers import ObservedEngine
from captum_transformer_lrp.observers.maps import AttentionMaps
from captum_transformer_lrp.observers.positions import Layout, Positions, merge

EXAMPLES = 2


def read(
    model: Callable[[Tensor], Any], x: Tensor, composite: Composite = GRADIENT_X_INPUT
) -> tuple[Positions, list[Layout | None]]:
    x = x.clone().requires_grad_()
    alias = x.view_as(x)
    attention = AttentionMaps()
    engine = ObservedEngine(composite, observers=[attention])
    engine.tape.start(x, alias)
    with engine:
        model(alias)
    positions = Positions((m.tensor, m.transposed) for m in attention.maps)
    return positions, [positions.of(m.tensor) for m in attention.maps]


# ---------------------------------------------------- models that attend within windows

Parts = tuple[nn.Module, list[tuple[nn.Module, nn.Module]], list[nn.Module]]


def timm_model(name: str, size: int, **options: Any) -> Parts:
    module, name = name.split(".")
    module = pytest.importorskip(f"timm.models.{module}")
    model = getattr(module, name)(
        img_size=size,
        patch_size=4,
        embed_dim=8,
        depths=(2, 2),
        num_heads=(2, 2),
        num_classes=3,
        **{"window_size": 4, **options},
    )
    blocks = [(b, b.attn) for stage in model.layers for b in stage.blocks]
    return model.eval(), blocks, [model.layers[1].downsample]


def hugging_face_model(name: str, size: int, **options: Any) -> Parts:
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{name}Config")(
        image_size=size,
        patch_size=4,
        embed_dim=8,
        depths=[2, 2],
        num_heads=[2, 2],
        window_size=4,
        **options,
    )
    model = getattr(transformers, f"{name}Model")(config).eval()
    stages = model.encoder.layers
    blocks = [(b, b.attention) for stage in stages for b in stage.blocks]
    return model, blocks, [stages[0].downsample]


SWINS: dict[str, Callable[[], Parts]] = {
    "timm-32": lambda: timm_model("swin_transformer.SwinTransformer", 32),
    # 9 x 9 tokens: padded for the windows, and again for the merge
    "timm-36": lambda: timm_model("swin_transformer.SwinTransformer", 36),
    "timm-v2-36": lambda: timm_model("swin_transformer_v2.SwinTransformerV2", 36),
    "timm-oblong": lambda: timm_model(
        "swin_transformer.SwinTransformer", (24, 40), window_size=(3, 4)
    ),
    "hf-eager-36": lambda: hugging_face_model("Swin", 36, attn_implementation="eager"),
    "hf-sdpa-36": lambda: hugging_face_model("Swin", 36, attn_implementation="sdpa"),
    "hf-v2-32": lambda: hugging_face_model("Swinv2", 32),
    "hf-v2-36": lambda: hugging_face_model("Swinv2", 36),
}


def picture(size: tuple[int, int] = (36, 36)) -> Tensor:
    return torch.randn(EXAMPLES, 3, *size, generator=torch.Generator().manual_seed(0))


def size_of(name: str) -> tuple[int, int]:
    return (24, 40) if name == "timm-oblong" else (int(name[-2:]),) * 2


class Heard:
    """The arguments that modules were called with."""

    def __init__(self, model: nn.Module, modules: list[nn.Module], x: Tensor) -> None:
        self.arguments: dict[nn.Module, tuple[Any, Any]] = {}
        handles = [
            m.register_forward_pre_hook(self._hear, with_kwargs=True) for m in modules
        ]
        with torch.no_grad():
            model(x)
        for handle in handles:
            handle.remove()

    def _hear(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self.arguments[module] = args, kwargs

    def changed(
        self, module: nn.Module, inner: nn.Module | None, example: int, token: int
    ) -> set[tuple[int, int]]:
        """Which rows change inside a module, or in its output, with one of its tokens.

        Each module gets its tokens as ``(examples, ..., channels)``.
        """
        args, kwargs = self.arguments[module]
        before = self._rows(module, inner, args, kwargs)
        hidden = args[0].clone()
        hidden.view(EXAMPLES, -1, hidden.shape[-1])[example, token, 0] += 1
        after = self._rows(module, inner, (hidden, *args[1:]), kwargs)
        return {(w, r) for w, r in (before != after).any(-1).nonzero().tolist()}

    def _rows(
        self, module: nn.Module, inner: nn.Module | None, args: Any, kwargs: Any
    ) -> Tensor:
        seen: list[Tensor] = []
        if inner is not None:
            handle = inner.register_forward_pre_hook(
                lambda _, args: seen.append(args[0].clone())
            )
        with torch.no_grad():
            output = module(*args, **kwargs)
        if inner is None:
            return output.flatten(1, -2)
        handle.remove()
        return seen[0]


@pytest.mark.parametrize("name", SWINS)
def test_rows_and_merges_are_what_perturbed_tokens_change(name: str) -> None:
    torch.manual_seed(0)
    try:
        model, blocks, merges = SWINS[name]()
        x = picture(size_of(name))
        with torch.no_grad():
            model(x)
    except (RuntimeError, ValueError) as error:
        pytest.skip(f"the libraries here cannot build or run it: {error}")
    positions, layouts = read(model, x)
    heard = Heard(model, [b for b, _ in blocks] + merges, x)
    assert positions.grid == tuple(size // 4 for size in size_of(name))
    assert len(layouts) == len(blocks) and len(positions.stages) == 1
    shifted = set()
    for (block, attention), layout in zip(blocks, layouts, strict=True):
        assert layout is not None and layout.examples == EXAMPLES
        present = layout.rows[layout.rows >= 0]
        everything = torch.arange(EXAMPLES * layout.tokens)
        assert torch.equal(present.sort().values, everything)
        for token in range(layout.tokens):
            example = token % EXAMPLES
            here = (layout.rows == example * layout.tokens + token).nonzero()
            assert heard.changed(block, attention, example, token) == {
                (w, r) for w, r in here.tolist()
            }
        shifted.add(tuple(layout.rows.flatten().tolist()))
    assert [layout.stage for layout in layouts if layout] == [0, 0, 1, 1]
    assert len(shifted) >= 3  # the windows of the first stage are shifted
    (merged,) = positions.stages
    for token in range(merged.shape[1]):
        example = token % EXAMPLES
        new = heard.changed(merges[0], None, example, token)
        assert new == {(example, int(merged[example, token]))}


@pytest.mark.parametrize("name", ["timm-36", "hf-v2-36"])
def test_the_rules_of_relevance_do_not_matter(name: str) -> None:
    model, *_ = SWINS[name]()
    _, plain = read(model, picture())
    _, ruled = read(model, picture(), TRANSFORMER_ATTRIBUTION)
    for one, other in zip(plain, ruled, strict=True):
        assert one is not None and other is not None
        assert torch.equal(one.rows, other.rows) and one.stage == other.stage


def test_reading_leaves_the_graph_as_it_was() -> None:
    model, *_ = SWINS["timm-36"]()
    gradients: list[Tensor | None] = []
    for reading in (False, True):
        x = picture().requires_grad_()
        alias = x.view_as(x)
        attention = AttentionMaps()
        engine = ObservedEngine(TRANSFORMER_ATTRIBUTION, observers=[attention])
        engine.tape.start(x, alias)
        with engine:
            scores = model(alias)[:, 0]
            maps = [m.tensor for m in attention.maps]
            if reading:
                Positions((m, False) for m in maps)
            for relevance in (False, True):
                gradients += engine.gradients(
                    scores, maps, relevance=relevance, keep_graph=True
                )
    half = len(gradients) // 2
    for one, other in zip(gradients[:half], gradients[half:], strict=True):
        assert one is not None and torch.equal(one, other)


@pytest.mark.parametrize("v2", [False, True])
def test_windows_without_a_module_of_their_own(v2: bool) -> None:
    pytest.importorskip("torchvision")
    swin = importlib.import_module("torchvision.models.swin_transformer")
    options = {}
    if v2:
        options["block"] = swin.SwinTransformerBlockV2
        options["downsample_layer"] = swin.PatchMergingV2
    model = swin.SwinTransformer(
        [4, 4], 8, [2, 2], [2, 2], [4, 4], num_classes=3, **options
    ).eval()
    positions, layouts = read(model, picture())
    expected = [cut(9, 0), cut(9, 2), cut(5, 0), cut(5, 2)]
    for layout, rows in zip(layouts, expected, strict=True):
        assert layout is not None
        assert torch.equal(layout.rows, rows)
    i = torch.arange(9) // 2
    assert torch.equal(positions.stages[0][1].view(9, 9), i[:, None] * 5 + i)


def cut(size: int, shift: int, window: int = 4) -> Tensor:
    """Pad, shift and cut a square into windows, by arithmetic on the coordinates."""
    across = -(-size // window)
    rows = []
    for example in range(EXAMPLES):
        for top in range(across):
            for left in range(across):
                for y in range(window):
                    for x in range(window):
                        h = (top * window + y + shift) % (across * window)
                        w = (left * window + x + shift) % (across * window)
                        inside = h < size and w < size
                        token = (example * size + h) * size + w
                        rows.append(token if inside else -1)
    return torch.tensor(rows).view(-1, window * window)


# --------------------------------------------------------------- small models by hand


def attend(
    q: Tensor, k: Tensor, v: Tensor | None = None, *, transposed: bool = False
) -> Tensor:
    """One head over the last but one dimension; output ``(windows, n, channels)``."""
    v = k if v is None else v
    q, k, v = q[:, None], k[:, None], v[:, None]
    if transposed:  # keys x queries
        pattern = (k @ q.mT).softmax(-2)
        return (v.mT @ pattern).mT[:, 0]
    return ((q @ k.mT).softmax(-1) @ v)[:, 0]


class Small(nn.Module):
    """Patches of 2 x 2 pixels, then what the test says, then a sum."""

    def __init__(self, body: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(1, 4, 2, 2)
        self.q, self.k = nn.Linear(4, 4), nn.Linear(4, 4)
        self.learned = nn.Parameter(torch.randn(1, 4, 4))
        self.halve, self.overlap = nn.Conv2d(4, 4, 2, 2), nn.Conv2d(4, 4, 3, 2, 1)
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, self.patches(x)).sum((-2, -1))


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).mT


def halves(x: Tensor) -> Tensor:
    """Cut ``(examples, n, channels)`` into two windows."""
    return x.reshape(-1, x.shape[1] // 2, x.shape[2])


def layouts_of(body: Callable[[Any, Tensor], Tensor], size: int = 4) -> Any:
    x = torch.randn(EXAMPLES, 1, size, size)
    positions, layouts = read(Small(body), x)
    return positions, layouts


@pytest.mark.parametrize("transposed", [False, True])
def test_either_way_around(transposed: bool) -> None:
    def body(m: Any, x: Tensor) -> Tensor:
        x = halves(tokens(x).roll(1, 1))
        return attend(m.q(x), m.k(x), transposed=transposed)

    positions, (layout,) = layouts_of(body)
    assert positions.grid == (2, 2) and layout.tokens == 4
    assert layout.rows.tolist() == [[3, 0], [1, 2], [7, 4], [5, 6]]


def test_windows_counted_before_the_examples() -> None:
    def body(m: Any, x: Tensor) -> Tensor:
        x = tokens(x).reshape(EXAMPLES, 2, 2, 4).transpose(0, 1).reshape(-1, 2, 4)
        return attend(m.q(x), m.k(x))

    _, (layout,) = layouts_of(body)
    assert layout.rows.tolist() == [[0, 1], [4, 5], [2, 3], [6, 7]]


def test_merges_by_convolution_and_pooling() -> None:
    def body(m: Any, x: Tensor) -> Tensor:
        t = tokens(x)
        t = t + attend(m.q(t), m.k(t))
        x = t.mT.reshape(EXAMPLES, 4, 4, 4)
        t = tokens(m.halve(x))
        t = t + attend(m.q(t), m.k(t))
        t = tokens(functional.avg_pool2d(t.mT.reshape(EXAMPLES, 4, 2, 2), 2))
        return attend(m.q(t), m.k(t))

    positions, layouts = layouts_of(body, 8)
    assert [(at.stage, at.tokens) for at in layouts] == [(0, 16), (1, 4), (2, 1)]
    blocks = [0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3]
    assert positions.stages[0].tolist() == [blocks] * EXAMPLES
    assert positions.stages[1].tolist() == [[0] * 4] * EXAMPLES


def test_tokens_that_are_left_out_are_no_longer_there() -> None:
    def body(m: Any, x: Tensor) -> Tensor:
        t = tokens(x)
        t = (t + attend(m.q(t), m.k(t)))[:, 1:]
        return attend(m.q(t), m.k(t))

    positions, layouts = layouts_of(body)
    assert [at.tokens for at in layouts] == [4, 3]
    assert positions.stages[0].tolist() == [[-1, 0, 1, 2]] * EXAMPLES


def shifted_keys(m: Any, x: Tensor) -> Tensor:
    x = tokens(x)
    return attend(m.q(x), m.k(x).roll(1, 1))


def learned_queries(m: Any, x: Tensor) -> Tensor:
    return attend(m.learned.expand(EXAMPLES, -1, -1), m.k(tokens(x)))


def learned_keys(m: Any, x: Tensor) -> Tensor:
    x = tokens(x)
    return attend(m.q(x), m.learned.expand(EXAMPLES, -1, -1), x)


def class_token(m: Any, x: Tensor) -> Tensor:
    x = torch.cat([m.learned[:, :1].expand(EXAMPLES, -1, -1), tokens(x)], 1)
    return attend(m.q(x), m.k(x))


def over_channels(m: Any, x: Tensor) -> Tensor:
    x = tokens(x)
    return attend(m.q(x).mT, m.k(x).mT)


def heads_with_the_windows(m: Any, x: Tensor) -> Tensor:
    x = halves(tokens(x))
    return (m.q(x) @ m.k(x).mT).softmax(-1) @ x


def fewer_keys(m: Any, x: Tensor) -> Tensor:
    x = tokens(x)
    return attend(m.q(x), m.k(x[:, :3]))


def across_examples(m: Any, x: Tensor) -> Tensor:
    x = tokens(x).reshape(1, -1, 4)
    return attend(m.q(x), m.k(x)).reshape(EXAMPLES, -1, 4)


def sorted_tokens(m: Any, x: Tensor) -> Tensor:
    x = tokens(x).sort(1).values
    return attend(m.q(x), m.k(x))


def twice_the_same(m: Any, x: Tensor) -> Tensor:
    x = tokens(x).repeat(1, 2, 1)
    return attend(m.q(x), m.k(x))


def overlapping_merge(m: Any, x: Tensor) -> Tensor:
    t = tokens(x)
    t = t + attend(m.q(t), m.k(t))
    t = tokens(m.overlap(t.mT.reshape(EXAMPLES, 4, 2, 2)))
    t = attend(m.q(t), m.k(t))
    return t


def added_to_others(m: Any, x: Tensor) -> Tensor:
    t = tokens(x)
    t = t + attend(m.q(t), m.k(t)).flip(1)
    return attend(m.q(t), m.k(t))


@pytest.mark.parametrize(
    "body",
    [
        shifted_keys,
        learned_queries,
        learned_keys,
        class_token,
        over_channels,
        heads_with_the_windows,
        fewer_keys,
        across_examples,
        sorted_tokens,
        twice_the_same,
        overlapping_merge,
        added_to_others,
    ],
)
def test_no_layout_where_it_is_not_known(body: Callable[[Any, Tensor], Tensor]) -> None:
    positions, layouts = layouts_of(body)
    assert layouts and layouts[-1] is None
    assert positions.stages == []


# ------------------------------------------------------------------ relations of tokens


def test_scatter_undoes_the_shift_and_drops_the_padding() -> None:
    # three tokens, padded to four, shifted by one, windows of two; two examples
    rows = torch.tensor([[1, 2], [-1, 0], [4, 5], [-1, 3]])
    layout = Layout(stage=0, examples=2, tokens=3, rows=rows)
    maps = torch.arange(1.0, 17).view(4, 2, 2)
    expected = [
        [[8, 0, 0], [0, 1, 2], [0, 3, 4]],
        [[16, 0, 0], [0, 9, 10], [0, 11, 12]],
    ]
    assert layout.scatter(maps).tolist() == expected
    relation = torch.randn(2, 3, 5)
    product = layout.scatter(maps) @ relation
    assert torch.allclose(layout.mix(maps, relation), product)


def test_mix_is_scatter_and_product_in_a_model() -> None:
    model, *_ = SWINS["timm-36"]()
    positions, layouts = read(model, picture())
    generator = torch.Generator().manual_seed(0)
    relation = torch.eye(81).double().expand(EXAMPLES, -1, -1)
    for layout in layouts:
        assert layout is not None
        if relation.shape[1] != layout.tokens:
            relation = merge(relation, positions.stages[layout.stage - 1])
        maps = torch.rand(
            len(layout.rows), 16, 16, generator=generator, dtype=torch.float64
        )
        full = layout.scatter(maps)
        torch.testing.assert_close(layout.mix(maps, relation), full @ relation)
        relation = relation + full @ relation
    assert relation.shape == (EXAMPLES, 25, 81)


def test_a_merged_token_is_the_mean_of_its_old_ones() -> None:
    stage = torch.tensor([[0, 1, 0, -1], [1, 1, 1, 0]])
    relation = torch.arange(24.0).view(2, 4, 3)
    assert merge(relation, stage).tolist() == [
        [[3, 4, 5], [3, 4, 5]],
        [[21, 22, 23], [15, 16, 17]],
    ]
