"""BiLRP against the sum over the embedding's dimensions, one backward pass for each."""

from __future__ import annotations

import gc
import math
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from captum_transformer_lrp import PairLRP, PairRelevance, TransformerLRP, load
from captum_transformer_lrp.attribution import describe
from captum_transformer_lrp.attribution.transposed import Transposed
from captum_transformer_lrp.errors import (
    ArgumentError,
    DisconnectedError,
    InputError,
    ModelStateError,
    OutputError,
    UnknownNameError,
)
from captum_transformer_lrp.models.pieces import Piece
from tests.helpers import assert_same_state, relative, state_of, tiny

transformers = pytest.importorskip("transformers")

EXACT = 1e-9


# -------------------------------------------------------------------------- the oracle


def relevance_of_dimensions(
    embed: Callable[..., Tensor], inputs: Any, composite: str, unit: Callable[..., Any]
) -> tuple[Tensor, Tensor]:
    """``R_i(f_m)`` of all parts i and of constants, ``(parts + 1, dimensions)``, and f.

    One backward pass for each dimension m.
    """
    if isinstance(inputs, Mapping):
        inputs = dict(inputs)
        embedding = embed(**inputs)[0].detach()
    else:
        embedding = embed(inputs)[0].detach()
    lrp = TransformerLRP(embed, composite)
    columns = []
    for m in range(len(embedding)):
        relevance = unit(lrp.attribute(inputs, target=m)[0])
        columns.append([*relevance, embedding[m] - sum(relevance)])
    return torch.tensor(columns, dtype=torch.float64).T, embedding.double()


def oracle(
    embed: tuple[Callable[..., Tensor], Callable[..., Tensor]],
    inputs: tuple[Any, Any],
    composite: str = "cp-lrp",
    *,
    normalize: bool = True,
    units: tuple[Callable[..., Any], Callable[..., Any]] | None = None,
) -> Tensor:
    """``R_ij = sum_m R_i(f_m) R_j(g_m)``, by loops."""
    first, second = units or (tokens, tokens)
    left, f = relevance_of_dimensions(embed[0], inputs[0], composite, first)
    right, g = relevance_of_dimensions(embed[1], inputs[1], composite, second)
    found = torch.zeros(len(left), len(right), dtype=torch.float64)
    for i in range(len(left)):
        for j in range(len(right)):
            for m in range(len(f)):
                found[i, j] += left[i, m] * right[j, m]
    return found / (f.norm() * g.norm()) if normalize else found


def tokens(relevance: Tensor) -> list[float]:
    """The relevance of each token of one example."""
    return [float(r.double().sum()) for r in relevance]


def patches(size: int) -> Callable[[Tensor], list[float]]:
    def unit(relevance: Tensor) -> list[float]:
        _, height, width = relevance.shape
        return [
            float(relevance[:, y : y + size, x : x + size].double().sum())
            for y in range(0, height, size)
            for x in range(0, width, size)
        ]

    return unit


# ------------------------------------------------------------------------- the models


def bert(seed: int = 0, **options: Any) -> Any:
    torch.manual_seed(seed)
    arguments = {
        "vocab_size": 40,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "initializer_range": 0.5,
    }
    config = transformers.BertConfig(**arguments | options)
    return transformers.BertModel(config, add_pooling_layer=False).double().eval()


def decoder() -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.5,
    )
    return transformers.LlamaModel(config).double().eval()


class SentenceTransformer(nn.Sequential):
    """Modules in a row that hand a dictionary on, as in the library of that name."""

    def forward(self, input: dict[str, Tensor], **kwargs: Any) -> Any:
        for module in self:
            input = module(input)
        return input


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.auto_model = bert()

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        states = self.auto_model(
            input_ids=features["input_ids"], attention_mask=features["attention_mask"]
        ).last_hidden_state
        features["token_embeddings"] = states
        return features


class Mean(nn.Module):
    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        states = features["token_embeddings"]
        mask = features["attention_mask"].unsqueeze(-1).expand(states.size())
        mask = mask.to(states.dtype)
        total = torch.clamp(mask.sum(1), min=1e-9)
        features["sentence_embedding"] = torch.sum(states * mask, 1) / total
        return features


class Normalize(nn.Module):
    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        found = features["sentence_embedding"]
        features["sentence_embedding"] = nn.functional.normalize(found, p=2, dim=1)
        return features


def sentence_transformer() -> nn.Module:
    return SentenceTransformer(Encoder(), Mean(), Normalize()).double().eval()


def towers(name: str) -> Any:
    torch.manual_seed(0)
    text: dict[str, Any] = {
        "vocab_size": 40,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 16,
        "eos_token_id": 1,
        "bos_token_id": 0,
        "pad_token_id": 2,
    }
    vision = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 12,
        "patch_size": 4,
    }
    options: dict[str, Any] = {"text_config": text, "vision_config": vision}
    if name == "CLIP":
        config = transformers.CLIPConfig(**options, projection_dim=8)
        return transformers.CLIPModel(config).double().eval()
    config = transformers.SiglipConfig(**options)
    return transformers.SiglipModel(config).double().eval()


def ids(*numbers: int, padding: int = 0, left: bool = False) -> dict[str, Tensor]:
    """A tokenizer's mapping of one text."""
    pads = [0] * padding
    shown = [1] * len(numbers)
    row, mask = [*numbers, *pads], [*shown, *pads]
    if left:
        row, mask = [*pads, *numbers], [*pads, *shown]
    return {
        "input_ids": torch.tensor([row]),
        "attention_mask": torch.tensor([mask]),
    }


A, B = ids(3, 14, 15, 9, 26), ids(8, 14, 7)


def mean_of(model: Any) -> Callable[..., Tensor]:
    def embed(**inputs: Any) -> Tensor:
        states = model(**inputs).last_hidden_state
        weights = inputs["attention_mask"][..., None].to(states.dtype)
        found: Tensor = (states * weights).sum(1) / weights.sum(1)
        return found

    return embed


# ---------------------------------------------------------------- equal to the oracle


@cache
def expected_under(composite: str) -> Tensor:
    embed = mean_of(bert())
    return oracle((embed, embed), (A, B), composite)


@pytest.mark.parametrize("over", [None, "tokens", "dimensions"])
@pytest.mark.parametrize("composite", ["cp-lrp", "attnlrp", "epsilon", "alpha-beta"])
def test_equal_to_one_pass_for_each_dimension(composite: str, over: Any) -> None:
    model, expected = bert(), expected_under(composite)
    for chunk_size in (3, 32):
        found = PairLRP(
            model,
            composite=composite,
            pooling="mean",
            over=over,
            chunk_size=chunk_size,
        ).attribute(A, B)
        assert relative(found.matrix, expected) < EXACT
        assert found.over == (over or "tokens")
        assert found.matrix.shape == (6, 4) and found.matrix.dtype == torch.float64
        assert abs(float(found.matrix.sum()) - found.similarity) < EXACT
    wrong = expected.clone()
    wrong[0, 0] *= 1.01
    assert relative(found.matrix, wrong) > EXACT


@pytest.mark.parametrize("chunk_size", [1, 2])
def test_a_dot_product_however_batched(chunk_size: int) -> None:
    model = bert()
    embed = mean_of(model)
    with torch.no_grad():
        lengths = embed(**A).norm() * embed(**B).norm()
    for over in ("tokens", "dimensions"):
        pairs = PairLRP(
            model, pooling="mean", normalize=False, over=over, chunk_size=chunk_size
        )
        found = pairs.attribute(A, B)
        assert relative(found.matrix, expected_under("cp-lrp") * lengths) < EXACT


def test_rules_that_carry_relevance_itself() -> None:
    model = bert()
    embed = mean_of(model)
    expected = oracle((embed, embed), (A, B), "epsilon-plus-flat")
    pairs = PairLRP(model, composite="epsilon-plus-flat", pooling="mean")
    found = pairs.attribute(A, B)
    assert relative(found.matrix, expected) < EXACT and found.over == "dimensions"
    pairs = PairLRP(model, composite="epsilon-plus-flat", pooling="mean", over="tokens")
    with pytest.raises(ModelStateError, match=r"relevance goes back\). Leave over="):
        pairs.attribute(A, B)


@pytest.mark.parametrize("normalize", [True, False])
def test_the_sum_is_the_similarity(normalize: bool) -> None:
    model = bert()
    with torch.no_grad():
        f, g = (mean_of(model)(**side)[0] for side in (A, B))
    expected = f @ g
    if normalize:
        expected = torch.cosine_similarity(f, g, dim=0)
    found = PairLRP(model, pooling="mean", normalize=normalize).attribute(A, B)
    assert abs(found.similarity - float(expected)) < EXACT
    assert abs(float(found.matrix.sum()) - float(expected)) < EXACT
    inner = float(found.pairs.sum())
    assert abs(inner + found.constants - float(expected)) < EXACT
    assert found.measure == ("cosine similarity" if normalize else "dot product")


def test_nothing_is_left_for_constants_where_there_are_none() -> None:
    """A table of rows without biases: constants take part in nothing."""
    torch.manual_seed(0)
    table = nn.Embedding(12, 6).double()
    found = PairLRP(table, pooling="mean", normalize=False).attribute(
        torch.tensor([[1, 2, 3]]), torch.tensor([[4, 2]])
    )
    rows, columns = table.weight[[1, 2, 3]] / 3, table.weight[[4, 2]] / 2
    assert relative(found.pairs, (rows @ columns.T).detach()) < EXACT
    assert found.matrix[-1].abs().max() < EXACT
    assert found.matrix[:, -1].abs().max() < EXACT


def test_few_dimensions_go_back_one_by_one() -> None:
    """The tiny classifier's three scores, taken for an embedding."""
    model = tiny()
    first, second = torch.tensor([[3, 7, 1, 9, 4]]), torch.tensor([[5, 2, 8, 8]])
    found = PairLRP(model).attribute(first, second)
    assert found.over == "dimensions"
    expected = oracle((model, model), (first, second))
    assert relative(found.matrix, expected) < EXACT
    forced = PairLRP(model, over="tokens").attribute(first, second)
    assert forced.over == "tokens" and relative(forced.matrix, expected) < EXACT


def test_either_side_may_be_the_smaller_one() -> None:
    pairs = PairLRP(bert(), pooling="mean")
    one, other = pairs.attribute(A, B), pairs.attribute(B, A)
    assert relative(one.matrix, other.matrix.T) < EXACT
    assert (len(one.a), len(one.b)) == (len(other.b), len(other.a)) == (5, 3)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("left", [False, True])
def test_padding_does_not_matter(pooling: Any, left: bool) -> None:
    for model in (bert(), decoder()):
        pairs = PairLRP(model, pooling=pooling)
        alone = pairs.attribute(A, B)
        places = torch.arange(5)[None]
        numbers = (3, 14, 15, 9, 26)
        padded = ids(*numbers, padding=3, left=left)
        if left:  # the same positions as without
            padded["position_ids"] = torch.cat([torch.zeros(1, 3).long(), places], 1)
        found = pairs.attribute(padded, B)
        assert found.matrix.shape == alone.matrix.shape
        assert relative(found.matrix, alone.matrix) < EXACT


def test_several_pairs_at_once() -> None:
    pairs = PairLRP(bert(), pooling="mean")
    both = {key: torch.cat([A[key], ids(8, 14, 7, padding=2)[key]]) for key in A}
    other = {key: torch.cat([ids(1, 2)[key], ids(30, 31)[key]]) for key in A}
    found = pairs.attribute(both, other)
    assert isinstance(found, list) and len(found) == 2
    first = pairs.attribute(A, ids(1, 2))
    second = pairs.attribute(B, ids(30, 31))
    for one, alone in zip(found, (first, second), strict=True):
        assert one.matrix.shape == alone.matrix.shape
        assert relative(one.matrix, alone.matrix) < EXACT


# --------------------------------------------------------------------- kinds of models


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_a_decoder(pooling: Any) -> None:
    model = decoder()

    def embed(**inputs: Any) -> Tensor:
        states = model(**inputs).last_hidden_state
        place = {"cls": 0, "last": -1}
        return states.mean(1) if pooling == "mean" else states[:, place[pooling]]

    found = PairLRP(model, pooling=pooling).attribute(A, B)
    expected = oracle((embed, embed), (A, B))
    assert relative(found.matrix, expected) < EXACT


def test_eager_attention() -> None:
    fused, eager = bert(), bert(attn_implementation="eager")
    eager.load_state_dict(fused.state_dict())
    one = PairLRP(fused, pooling="mean").attribute(A, B)
    other = PairLRP(eager, pooling="mean").attribute(A, B)
    assert other.over == "tokens" and relative(one.matrix, other.matrix) < EXACT


def test_a_model_of_sentence_transformers() -> None:
    model = sentence_transformer()

    def embed(**inputs: Any) -> Tensor:
        found: Tensor = model(dict(inputs))["sentence_embedding"]
        return found

    before = {key: value.clone() for key, value in A.items()}
    found = PairLRP(model).attribute(A, B)
    assert relative(found.matrix, oracle((embed, embed), (A, B))) < EXACT
    assert A.keys() == before.keys(), "the user's mapping is not written into"
    plain = PairLRP(model[0].auto_model, pooling="mean").attribute(A, B)
    assert relative(found.matrix, plain.matrix) < EXACT
    from tests.models.tiny import word_piece_tokenizer

    model.tokenizer = word_piece_tokenizer()
    texts = PairLRP(model).attribute("the film", "a great film")
    assert (texts.a.text, texts.b.text) == ("the film", "a great film")


@pytest.mark.parametrize("name", ["CLIP", "SigLIP"])
def test_a_text_and_a_picture(name: str) -> None:
    model = towers(name)
    text = {"input_ids": torch.tensor([[0, 5, 9, 11, 1]])}
    pixels = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    picture = {"pixel_values": pixels.double()}

    def of_text(**inputs: Any) -> Tensor:
        found: Tensor = model.get_text_features(**inputs).pooler_output
        return found

    def of_picture(**inputs: Any) -> Tensor:
        found: Tensor = model.get_image_features(**inputs).pooler_output
        return found

    expected = oracle(
        (of_text, of_picture), (text, picture), units=(tokens, patches(4))
    )
    pairs = PairLRP(model)
    found = pairs.attribute(text, picture)
    assert found.matrix.shape == (6, 10)
    assert relative(found.matrix, expected) < EXACT
    turned = pairs.attribute(picture, text)
    assert relative(turned.matrix, expected.T) < EXACT
    assert found.b.grid == (3, 3) and found.a.grid is None
    both = pairs.attribute(picture, picture)
    assert both.matrix.shape == (10, 10) and abs(both.similarity - 1) < EXACT
    assert relative(both.matrix, both.matrix.T) < EXACT
    bare = pairs.attribute(text["input_ids"], picture["pixel_values"])
    assert relative(bare.matrix, expected) < EXACT
    with pytest.raises(InputError, match="one side of the pair has both; expected"):
        pairs.attribute({**text, **picture}, text)
    with pytest.raises(InputError, match="one side of the pair has neither"):
        pairs.attribute({"attention_mask": text["input_ids"]}, text)


def test_two_functions_and_inputs_of_any_form() -> None:
    torch.manual_seed(0)
    left = nn.Sequential(nn.Linear(4, 6), nn.GELU()).double()
    right = nn.Linear(3, 6).double()

    def first(x: Tensor) -> Tensor:
        return left(x).mean(1)

    def both(x: Tensor, y: Tensor) -> Tensor:
        return right(x).sum(1) + right(y).sum(1)

    x, y, z = torch.randn(1, 3, 4), torch.randn(1, 2, 3), torch.randn(1, 2, 3)
    x, y, z = x.double(), y.double(), z.double()
    found = PairLRP(first, both, normalize=False).attribute(x, (y, z))
    assert found.matrix.shape == (4, 5)
    f, g = first(x)[0], both(y, z)[0]
    assert abs(float((found.matrix.sum() - f @ g).detach())) < EXACT
    rows = torch.stack(
        [TransformerLRP(first, "cp-lrp").attribute(x, target=m)[0] for m in range(6)]
    ).sum(2)
    columns = torch.cat([y, z], 1)[0] @ right.weight.T
    assert relative(found.pairs, (rows.T @ columns.T).detach()) < EXACT


def test_a_checkpointed_model() -> None:
    model = bert()
    embed = mean_of(model)

    def again(**inputs: Any) -> Tensor:
        found: Tensor = checkpoint(lambda: embed(**inputs), use_reentrant=False)
        return found

    expected = PairLRP(embed).attribute(A, B)
    found = PairLRP(again).attribute(A, B)
    assert found.over == "dimensions" and expected.over == "tokens"
    assert relative(found.matrix, expected.matrix) < EXACT
    with pytest.raises(ModelStateError, match=r"parts are computed again\). Leave"):
        PairLRP(again, over="tokens").attribute(A, B)


class Writes(torch.autograd.Function):
    """Twice its input, with a way back that writes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, buffer: Tensor | None) -> Tensor:
        ctx.buffer = buffer
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        buffer = ctx.buffer
        if buffer is None:
            buffer = torch.zeros(gradient.shape, dtype=gradient.dtype)
        buffer.copy_(gradient)
        buffer[:, :1].mul_(2)
        return buffer * torch.ones_like(gradient), None


def test_ways_back_that_write() -> None:
    """Into a buffer of their own, which is made again, or one that was there before."""
    torch.manual_seed(0)
    table = nn.Embedding(12, 16).double()
    before = torch.zeros(1, 3, 16).double()
    options: dict[str, Any] = {"composite": "gradient-x-input", "unknown": "gradient"}
    x, y = torch.tensor([[1, 2, 5]]), torch.tensor([[3, 2, 4]])

    def pairs(buffer: Tensor | None, over: Any = None) -> Any:
        def model(x: Tensor) -> Tensor:
            found: Tensor = Writes.apply(table(x), buffer).mean(1)  # type: ignore[no-untyped-call]
            return found

        lrp = PairLRP(model, over=over, chunk_size=1, **options)
        return lrp.attribute(x, y)

    own, others = pairs(None), pairs(before)
    assert (own.over, others.over) == ("tokens", "dimensions")
    assert relative(own.matrix, others.matrix) < EXACT
    assert others.matrix.abs().max() > 0.01
    with pytest.raises(ModelStateError, match="writes into a tensor that was there"):
        pairs(before, "tokens")


# ------------------------------------------------------------------- random directions


def test_estimates_are_unbiased_and_know_their_error() -> None:
    model = bert(hidden_size=32)
    exact = PairLRP(model, pooling="mean").attribute(A, B)
    assert exact.error is None and exact.standard_error is None
    squares, variances, mean = 0.0, 0.0, torch.zeros_like(exact.matrix)
    draws = 60
    for seed in range(draws):
        found = PairLRP(model, pooling="mean", projections=8, seed=seed).attribute(A, B)
        assert found.standard_error is not None and found.over == "projections"
        off = found.matrix - exact.matrix
        squares += float(off.square().sum())
        variances += float(found.standard_error.square().sum())
        mean += found.matrix / draws
        # the similarity, and all that a part has, are exact
        assert abs(float(found.matrix.sum()) - exact.similarity) < EXACT
        assert relative(found.matrix.sum(0), exact.matrix.sum(0)) < EXACT
        assert relative(found.matrix.sum(1), exact.matrix.sum(1)) < EXACT
    assert 0.8 < squares / variances < 1.25
    spread = math.sqrt(squares / draws / exact.matrix.numel())
    assert float((mean - exact.matrix).abs().max()) < 6 * spread / math.sqrt(draws) * 3
    again = PairLRP(model, pooling="mean", projections=8, seed=59).attribute(A, B)
    assert torch.equal(again.matrix, found.matrix)
    assert again.error == pytest.approx(
        float(found.standard_error[:-1, :-1].square().mean().sqrt())
    )


def test_all_directions_are_exact() -> None:
    model = bert()
    exact = PairLRP(model, pooling="mean").attribute(A, B)
    found = PairLRP(model, pooling="mean", projections=14).attribute(A, B)
    assert relative(found.matrix, exact.matrix) < EXACT
    assert found.error is not None and found.error < EXACT
    same = PairLRP(model, pooling="mean", projections=14).attribute(A, A)
    assert abs(float(same.matrix.sum()) - 1) < EXACT
    with pytest.raises(InputError, match=r"16 dimensions; expected at most 14"):
        PairLRP(model, pooling="mean", projections=15).attribute(A, B)


def test_torchs_random_state_is_not_touched() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    PairLRP(bert(), pooling="mean", projections=4)
    torch.manual_seed(3)
    model = bert(seed=3)
    torch.manual_seed(3)
    PairLRP(model, pooling="mean", projections=4).attribute(A, B)
    assert torch.equal(torch.rand(2), expected)


# ------------------------------------------------------------------------ what is found


def test_a_planted_match_is_the_largest_pair() -> None:
    """Of 100 pairs of texts that share one token, in a model that reads tokens."""
    torch.manual_seed(0)
    words = nn.Embedding(2000, 64).double()
    pairs = PairLRP(lambda ids: words(ids).mean(1))
    generator = torch.Generator().manual_seed(1)
    for _ in range(100):
        drawn = torch.randperm(2000, generator=generator)
        first, second = drawn[:20].clone(), drawn[20:36].clone()
        i, j = (int(torch.randint(n, (1,), generator=generator)) for n in (20, 16))
        second[j] = first[i]
        (top,) = pairs.attribute(first[None], second[None]).top_pairs(1)
        assert (top.row, top.column) == (i, j)


# --------------------------------------------------------------------- the user's model


def test_the_model_and_the_inputs_are_left_alone() -> None:
    model = bert()
    before = state_of(model)
    given = {key: value.clone() for key, value in A.items()}
    pairs = PairLRP(model, pooling="mean")
    with torch.no_grad():
        found = pairs.attribute(A, B)
    assert_same_state(before, state_of(model))
    assert all(torch.equal(A[key], given[key]) for key in given)
    assert not found.matrix.requires_grad
    embeds = model.embeddings.word_embeddings(A["input_ids"]).detach()
    embeds.requires_grad_()
    by_embeddings = pairs.attribute(
        {"inputs_embeds": embeds, "attention_mask": A["attention_mask"]}, B
    )
    assert embeds.grad is None
    assert relative(by_embeddings.matrix, found.matrix) < EXACT
    with pytest.raises(OutputError):
        PairLRP(model).attribute(A, B)
    assert_same_state(before, state_of(model))


@pytest.mark.parametrize("over", ["tokens", "dimensions"])
def test_nothing_is_kept(over: Any) -> None:
    pairs = PairLRP(bert(), pooling="mean", over=over)
    pairs.attribute(A, B)

    def live() -> int:
        gc.collect()
        return sum(issubclass(type(each), Tensor) for each in gc.get_objects())

    before = live()
    for _ in range(3):
        pairs.attribute(A, B)
    assert live() <= before


def test_two_threads() -> None:
    model = bert()
    expected = PairLRP(model, pooling="mean").attribute(A, B).matrix
    found: list[Tensor] = []

    def run() -> None:
        found.append(PairLRP(model, pooling="mean").attribute(A, B).matrix)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(relative(one, expected) < EXACT for one in found)


def test_single_precision() -> None:
    exact = PairLRP(bert(), pooling="mean").attribute(A, B)
    found = PairLRP(bert().float(), pooling="mean").attribute(A, B)
    assert found.matrix.dtype == torch.float64
    assert relative(found.matrix, exact.matrix) < 1e-4
    assert abs(float(found.matrix.sum()) - found.similarity) < EXACT


def test_it_describes_itself() -> None:
    found = describe(PairLRP(bert(), pooling="mean"))
    assert (found.name, found.measure, found.grain) == ("PairLRP", "relevance", "part")
    assert (found.conserves, found.takes) == ("score", "mapping")
    assert repr(PairLRP(tiny())) == "PairLRP(Tiny, composite='CP-LRP')"
    assert repr(PairLRP(tiny(), abs)) == (
        "PairLRP(Tiny, builtin_function_or_method, composite='CP-LRP')"
    )


# ------------------------------------------------------------------------ names, errors


def test_texts_and_their_names() -> None:
    from tests.models.tiny import word_piece_tokenizer

    tokenizer = word_piece_tokenizer()
    model = bert(vocab_size=len(tokenizer))
    pairs = PairLRP(model, pooling="mean", tokenizer=tokenizer)
    found = pairs.attribute("The film was unbelievable", "a great film")
    assert found.a.labels == (
        "[CLS]", "the", "film", "was", "un", "-believ", "-able", "[SEP]",
    )  # fmt: skip
    assert found.a.own == [1, 2, 3, 4, 5, 6] and found.b.text == "a great film"
    assert all(pair.row in found.a.own for pair in found.top_pairs())
    assert len(found.top_pairs(100, special=True)) == 8 * 5
    words = found.by_word()
    assert words.a.labels == ("[CLS]", "the", "film", "was", "unbelievable", "[SEP]")
    assert abs(float(words.matrix.sum()) - found.similarity) < EXACT
    assert torch.allclose(words.matrix[4], found.matrix[4:7, [0, 1, 2, 3, 4, 5]].sum(0))
    several = pairs.attribute(["The film", "a film was great"], ["dull", "warm"])
    assert [one.a.text for one in several] == ["the film", "a film was great"]
    assert [len(one.a) for one in several] == [4, 6]
    alone = pairs.attribute("The film", "dull")
    assert relative(several[0].matrix, alone.matrix) < EXACT
    with pytest.raises(InputError, match=r"texts were given and no tokenizer. Pass"):
        PairLRP(model, pooling="mean").attribute("The film", "dull")


def test_given_names() -> None:
    pairs = PairLRP(bert(), pooling="mean")
    named = pairs.attribute(
        A, B, labels_a=["[CLS]", "a", "un", "##told", "[SEP]"], labels_b=list("xyz")
    )
    assert named.a.labels == ("[CLS]", "a", "un", "-told", "[SEP]")
    assert named.b.labels == ("x", "y", "z") and named.a.own == [1, 2, 3]
    pieces = [Piece(token="x", text=str(n), space_before=True) for n in range(3)]
    assert pairs.attribute(A, B, labels_b=pieces).b.pieces == tuple(pieces)
    assert pairs.attribute(A, B).b.labels == ("0", "1", "2")
    with pytest.raises(InputError, match="labels of the second side: got 2 for 3"):
        pairs.attribute(A, B, labels_b=["x", "y"])
    both = {key: torch.cat([B[key], B[key]]) for key in B}
    with pytest.raises(InputError, match="labels_a: expected a list with one entry"):
        pairs.attribute(both, both, labels_a=["x", "y", "z"])
    lists = pairs.attribute(both, both, labels_a=[list("xyz"), list("uvw")])
    assert [one.a.text for one in lists] == ["x y z", "u v w"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"pooling": "man"}, UnknownNameError, "Did you mean 'mean'"),
        ({"projections": 1}, InputError, "projections=1; expected an int of at least"),
        ({"chunk_size": 0}, InputError, "chunk_size=0; expected an int of at least 1"),
        ({"over": "words"}, InputError, "over='words'; expected 'tokens' or 'dimen"),
        ({"patch_size": 0}, InputError, "expected patch_size to be one or two"),
        ({"composite": "cplrp"}, UnknownNameError, "Did you mean 'cp-lrp'"),
        ({"other": 3}, TypeError, "PairLRP got a int; expected a torch.nn.Module"),
    ],
)
def test_options(options: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        PairLRP(tiny(), **options)


def test_inputs_that_make_no_pair() -> None:
    model = bert()
    pairs = PairLRP(model, pooling="mean")
    two = {key: torch.cat([B[key], B[key]]) for key in B}
    with pytest.raises(InputError, match="1 examples and the second 2; expected as"):
        pairs.attribute(A, two)
    with pytest.raises(InputError, match=r"input_ids has shape \(1, 0\) and so no"):
        pairs.attribute(A, ids())
    with pytest.raises(InputError, match="attention_mask keeps no token; expected"):
        pairs.attribute(A, {**B, "attention_mask": torch.zeros(1, 3).long()})
    with pytest.raises(InputError, match="expected a tensor"):
        pairs.attribute(A, 3)
    with pytest.raises(ArgumentError, match="called with baselines="):
        pairs.attribute(A, B, baselines=0)
    with pytest.raises(InputError, match=r"shape \(1, 3, 8, 8\), pixels, and the mod"):
        PairLRP(lambda x: x.flatten(1)).attribute(
            torch.ones(1, 3, 8, 8), torch.ones(1, 3, 8, 8)
        )
    with pytest.raises(InputError, match=r"inputs is of shape \(4,\); expected a"):
        PairLRP(lambda x: x[None]).attribute(torch.ones(4), torch.ones(4))


def test_outputs_that_are_no_embeddings() -> None:
    with pytest.raises(OutputError, match=r"states of tokens, shape .*pooling='mean'"):
        PairLRP(bert()).attribute(A, B)
    x = torch.ones(1, 4).double()
    wide, narrow = nn.Linear(4, 6).double(), nn.Linear(4, 5).double()
    with pytest.raises(OutputError, match=r"two inputs have . and . dimensions; exp"):
        PairLRP(wide, narrow).attribute(x, x)
    with pytest.raises(OutputError, match="an embedding is 0 in all dimensions"):
        PairLRP(lambda x: x - x).attribute(x, x)
    zero = PairLRP(lambda x: x - x, normalize=False).attribute(x, x)
    assert zero.similarity == 0 and not zero.matrix.any()
    with pytest.raises(OutputError, match="holds NaN or infinity before anything"):
        PairLRP(lambda x: x / 0).attribute(x, x)
    with pytest.raises(OutputError, match="returned 2 embeddings for 1 examples"):
        PairLRP(lambda x: torch.cat([x, x])).attribute(x, x)
    with pytest.raises(OutputError, match=r"embedding is a tensor of shape \(1,\)"):
        PairLRP(wide, pooling=lambda output, mask: output.sum(1)).attribute(x, x)
    with pytest.raises(OutputError, match="and pooling='mean' was given; expected"):
        PairLRP(wide, pooling="mean").attribute(x, x)
    with pytest.raises(OutputError, match=r"returned dict with the tensors \['y'\]"):
        PairLRP(lambda x: {"y": x}).attribute(x, x)
    with pytest.raises(OutputError, match=r"dtype torch.int64; expected floating"):
        PairLRP(lambda x: x.long()).attribute(x, x)
    with pytest.raises(DisconnectedError, match="does not depend on inputs through"):
        PairLRP(lambda x: x.detach()).attribute(x, x)


def test_a_way_back_that_cannot_be_recorded() -> None:
    """As one that runs in a thread of its own: the dimensions go back instead."""

    def elsewhere(seeds: Tensor) -> tuple[Tensor]:
        with ThreadPoolExecutor(1) as pool:
            return (pool.submit(lambda: 2 * seeds).result(),)

    with pytest.raises(ModelStateError, match="ran where its operators cannot be rec"):
        Transposed(elsewhere, torch.ones(1, 3))
    with pytest.raises(ModelStateError, match="nothing goes back from the output to"):
        Transposed(lambda seeds: (None,), torch.ones(1, 3))
    times_two = Transposed(lambda seeds: (2 * seeds,), torch.ones(1, 3))
    (found,) = times_two.apply([[torch.eye(3)[:, None]]])
    assert torch.equal(found, 2 * torch.eye(3)[:, None])


def test_a_pooling_of_ones_own() -> None:
    model = bert()
    seen: list[Any] = []

    def third(output: Any, mask: Any) -> Tensor:
        seen.append(mask)
        found: Tensor = output.last_hidden_state[:, 2]
        return found

    found = PairLRP(model, pooling=third).attribute(A, B)
    assert all(isinstance(mask, Tensor) for mask in seen)
    f, g = (third(model(**side), None)[0].detach() for side in (A, B))
    assert abs(found.similarity - float(torch.cosine_similarity(f, g, dim=0))) < EXACT


# --------------------------------------------------------------------------- the result


def result(**options: Any) -> PairRelevance:
    found: PairRelevance = PairLRP(bert(), pooling="mean", **options).attribute(
        A,
        B,
        labels_a=["[CLS]", "warm", "un", "##told", "[SEP]"],
        labels_b=["a", "warm", "film"],
    )
    return found


@pytest.mark.parametrize("suffix", [".json", ".safetensors", ".parquet"])
@pytest.mark.parametrize("projections", [None, 4])
def test_kept_and_loaded(suffix: str, projections: Any, tmp_path: Any) -> None:
    package = {".safetensors": "safetensors", ".parquet": "pyarrow"}.get(suffix)
    if package:
        pytest.importorskip(package)
    found = result(projections=projections)
    again = load(found.save(tmp_path / f"pairs{suffix}"))
    assert isinstance(again, PairRelevance)
    assert again.to_dict() == found.to_dict()
    assert torch.equal(again.matrix, found.matrix)
    assert again.a == found.a or again.a.pieces == found.a.pieces
    assert str(again) == str(found)


@pytest.mark.parametrize("suffix", [".json", ".safetensors", ".parquet"])
def test_a_picture_is_kept(suffix: str, tmp_path: Any) -> None:
    package = {".safetensors": "safetensors", ".parquet": "pyarrow"}.get(suffix)
    if package:
        pytest.importorskip(package)
    model = towers("CLIP")
    pixels = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    found = PairLRP(model).attribute(
        {"input_ids": torch.tensor([[0, 5, 9, 1]])}, {"pixel_values": pixels.double()}
    )
    again = load(found.save(tmp_path / f"pairs{suffix}"))
    assert again.to_dict() == found.to_dict() and again.b.grid == (3, 3)
    assert again.b.image is not None and found.b.image is not None
    assert again.b.image.tobytes() == found.b.image.tobytes()


def test_as_a_table() -> None:
    pytest.importorskip("pandas")
    found = result()
    table = found.to_pandas()
    assert table.shape == (6, 4)
    assert list(table.columns) == ["a", "warm", "film", "constants"]
    assert table.loc["warm", "film"] == float(found.matrix[1, 2])


def test_it_says_what_it_shows() -> None:
    pytest.importorskip("jinja2")
    found = result()
    assert found.by_word().a.labels == ("[CLS]", "warm", "untold", "[SEP]")
    text = str(found)
    assert "What makes these two alike?" in text and "untold" in text
    assert f"Cosine similarity {found.similarity:.3f}" in text
    page = found.to_html()
    assert "“untold” and “film”" in page and "constants" in page
    assert "Strongest pairs" in found.alt
    estimate = result(projections=6)
    assert "Estimated from 6 random directions" in estimate.to_html()
    assert "±" in str(estimate)
