"""Whole transformers in relevance form: values forwards, relevance backwards.

Each model is written out layer by layer over a state dict of Hugging Face or
timm, in float64 numpy, without autograd. A layer is a function that returns its
output together with a *way back*: a function from the relevance of that output
to the relevance of its input, made of the rules in `rules`. A model keeps the
ways back of its blocks and walks them in reverse.

Zero values. Rules divide relevance by values (see `rules`), with 0 / 0 = 0, so
no pair (R / x, x) has to be carried along. This is exact here although some
values are exactly zero, because each of them makes everything that reaches the
input through it zero as well: a masked attention weight is a constant zero; a
dead unit of a ReLU has derivative zero under the identity rule (0 / x); a zero
embedding row of a bias-free model (a padding token) has zero norms, keys and
values, and relevance at a zero input is zero.

The explained quantity is the logit of `target` of each sample; relevance starts
as that logit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import rules as r
from .rules import Array, RuleSet

WayBack = Callable[[Array], Array]
Layer = tuple[Array, WayBack]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What a model says and where it comes from.

    Args:
        logits (ndarray): ``(batch, classes)``, at the explained position.
        inputs (ndarray): Relevance of the inputs, of their shape.
        embeddings (ndarray): Relevance of what enters the first block,
            ``(batch, tokens, features)``.
        blocks (tuple): Relevance of each block's output, one
            ``(batch, tokens, features)`` per block.
    """

    logits: Array
    inputs: Array
    embeddings: Array
    blocks: tuple[Array, ...]


class Weights:
    """A state dict in float64 that knows which of its entries were read.

    Args:
        state (mapping): Names to array-likes or tensors.
    """

    def __init__(self, state: Mapping[str, Any]) -> None:
        self._state = {name: r.as_array(value) for name, value in state.items()}
        self._read: set[str] = set()

    def __getitem__(self, name: str) -> Array:
        self._read.add(name)
        return self._state[name]

    def get(self, name: str) -> Array | None:
        """The entry, or None where the state has none of this name."""
        return self[name] if name in self._state else None

    def refuse_unread(self) -> None:
        """Raise if some entry was never used: the oracle would be of another model.

        Raises:
            ValueError: Naming the entries.
        """
        unread = sorted(set(self._state) - self._read)
        if unread:
            raise ValueError(f"these weights have no place in the oracle: {unread}")


# --- layers -----------------------------------------------------------------


def _linear(x: Array, weight: Array, bias: Array | None, rules: RuleSet) -> Layer:
    output = np.einsum("...i,ji->...j", x, weight)
    if bias is not None:
        output = output + bias
    return output, lambda relevance: rules.linear(x, weight, bias, relevance)


def _named_linear(x: Array, weights: Weights, name: str, rules: RuleSet) -> Layer:
    return _linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"), rules)


def _named_conv1d(x: Array, weights: Weights, name: str, rules: RuleSet) -> Layer:
    """GPT-2's linear layer, whose weight is stored as ``(in, out)``."""
    return _linear(x, weights[f"{name}.weight"].T, weights[f"{name}.bias"], rules)


def _rms_norm(x: Array, weight: Array, eps: float, rules: RuleSet) -> Layer:
    output = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps) * weight
    return output, lambda relevance: rules.rms_norm(x, relevance)


def _layer_norm(
    x: Array, weights: Weights, name: str, eps: float, rules: RuleSet
) -> Layer:
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    output = r.layer_norm_output(x, weight, bias, eps=eps)
    return output, lambda relevance: rules.layer_norm(
        x, weight, bias, relevance, eps=eps
    )


def _activation(x: Array, function: Callable[[float], float], rules: RuleSet) -> Layer:
    output = np.vectorize(function, otypes=[np.float64])(x)
    return output, lambda relevance: rules.activation(x, relevance)


def silu(x: float) -> float:
    """``x * sigmoid(x)``"""
    return x / (1.0 + math.exp(-x))


def gelu(x: float) -> float:
    """``x * Phi(x)``, with the error function."""
    return 0.5 * x * (1.0 + math.erf(x / math.sqrt(2.0)))


def gelu_new(x: float) -> float:
    """The tanh approximation of `gelu`, as in GPT-2."""
    inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)
    return 0.5 * x * (1.0 + math.tanh(inner))


def _residual(x: Array, branch: Callable[[Array], Layer], rules: RuleSet) -> Layer:
    """``x + branch(x)``"""
    output, back = branch(x)

    def way_back(relevance: Array) -> Array:
        to_x, to_branch = rules.add(x, output, relevance)
        return to_x + back(to_branch)

    return x + output, way_back


def _split_heads(x: Array, heads: int) -> Array:
    batch, tokens, features = x.shape
    return x.reshape(batch, tokens, heads, features // heads).swapaxes(1, 2)


def _merge_heads(x: Array) -> Array:
    batch, heads, tokens, features = x.shape
    return x.swapaxes(1, 2).reshape(batch, tokens, heads * features)


def rotary_tables(tokens: int, features: int, theta: float) -> tuple[Array, Array]:
    """Cosines and sines ``(tokens, features)`` of Llama's rotary embedding.

    Hugging Face stores the frequencies in float32, also in a float64 model; so
    they are rounded here (without this, logits differ by 7e-9).
    """
    exponents = np.arange(0, features, 2, dtype=np.float32) / np.float32(features)
    frequencies = (1.0 / np.float32(theta) ** exponents).astype(np.float64)
    angles = np.outer(np.arange(tokens), frequencies)
    angles = np.concatenate([angles, angles], axis=-1)
    return np.cos(angles), np.sin(angles)


def _rotary(x: Array, theta: float) -> Layer:
    """Rotation of feature i against feature i + half, by constant angles.

    A linear map of the features with constant coefficients: epsilon over the
    two summands of every output, nothing for the angles.
    """
    half = x.shape[-1] // 2
    cos, sin = rotary_tables(x.shape[-2], x.shape[-1], theta)
    turned = np.concatenate([-x[..., half:], x[..., :half]], axis=-1)
    output = x * cos + turned * sin

    def way_back(relevance: Array) -> Array:
        straight: Array = x * cos * r.ratio(relevance, output)
        crossed = turned * sin * r.ratio(relevance, output)
        swapped: Array = np.concatenate(
            [crossed[..., half:], crossed[..., :half]], axis=-1
        )
        return straight + swapped

    return output, way_back


def _additive_mask(attention_mask: Any | None) -> Array | None:
    """``(batch, tokens)`` of ones and zeros to ``(batch, 1, 1, tokens)``."""
    if attention_mask is None:
        return None
    mask = r.as_array(attention_mask)
    return np.where(mask == 0.0, -np.inf, 0.0)[:, None, None, :]


def _attention(
    query: Array,
    key: Array,
    value: Array,
    *,
    mask: Array | None,
    causal: bool,
    rules: RuleSet,
) -> tuple[Array, Callable[[Array], tuple[Array, Array, Array]]]:
    options: dict[str, Any] = {"mask": mask, "causal": causal}
    output = r.attention_output(query, key, value, **options)
    return output, lambda relevance: r.attention(
        query, key, value, relevance, method=rules, **options
    )


def _chain(
    hidden: Array, blocks: list[Callable[[Array], Layer]]
) -> tuple[Array, Callable[[Array], list[Array]]]:
    """Blocks one after the other.

    The way back lists the relevance of the first block's input and then of
    every block's output.
    """
    ways_back: list[WayBack] = []
    for block in blocks:
        hidden, back = block(hidden)
        ways_back.append(back)

    def way_back(relevance: Array) -> list[Array]:
        found = [relevance]
        for back in reversed(ways_back):
            found.insert(0, back(found[0]))
        return found

    return hidden, way_back


def _at_position(x: Array, position: int) -> Layer:
    """Token `position` of ``(batch, tokens, features)``."""

    def way_back(relevance: Array) -> Array:
        result = np.zeros(x.shape)
        result[:, position] = relevance
        return result

    return x[:, position], way_back


def _start(logits: Array, target: Any) -> Array:
    """Relevance at the logits: the logit itself at the target, else 0."""
    chosen = np.array(r.as_array(target), dtype=np.int64)
    chosen = np.broadcast_to(chosen, (logits.shape[0],))
    result = np.zeros(logits.shape)
    for sample, index in enumerate(chosen):
        result[sample, index] = logits[sample, index]
    return result


def _expect(config: Mapping[str, Any], **wanted: Any) -> None:
    """Refuse a configuration that the oracle does not transcribe."""
    for name, value in wanted.items():
        if config.get(name, value) != value:
            raise ValueError(
                f"the oracle transcribes {name}={value!r}, not {config[name]!r}"
            )


# --- Llama, Qwen2, Qwen3 ----------------------------------------------------


def llama(
    state: Mapping[str, Any],
    config: Mapping[str, Any],
    inputs_embeds: Any,
    *,
    target: Any,
    method: str | RuleSet,
    attention_mask: Any | None = None,
    position: int = -1,
) -> Explanation:
    """A decoder with RMSNorm, rotary positions, grouped heads and SwiGLU.

    Biases of the projections (Qwen2) and norms of query and key heads (Qwen3)
    are used where the state has them.

    Args:
        state (mapping): State dict of ``LlamaForCausalLM`` or a relative.
        config (mapping): ``num_hidden_layers``, ``num_attention_heads``,
            ``num_key_value_heads``, ``rms_norm_eps`` and
            ``rope_parameters.rope_theta``, as in ``config.json``.
        inputs_embeds (array-like): ``(batch, tokens, features)``.
        target (int or array-like): Token id, or one per sample.
        method (str or RuleSet): "attnlrp", "cplrp" or a set of rules.
        attention_mask (array-like, optional): ``(batch, tokens)``; 0 removes a
            token. Positions count from 0 whatever the mask. Default: None
        position (int, optional): The token whose logits are explained.
            Default: -1
    """
    _expect(config, hidden_act="silu", sliding_window=None, use_sliding_window=False)
    rules = r.method_rules(method)
    weights = Weights(state)
    mask = _additive_mask(attention_mask)
    eps = config["rms_norm_eps"]
    theta = config.get("rope_parameters", config)["rope_theta"]  # before 5: at the top
    heads, key_heads = config["num_attention_heads"], config["num_key_value_heads"]

    def head_norm(x: Array, name: str) -> Layer:
        weight = weights.get(f"{name}.weight")
        if weight is None:
            return x, lambda relevance: relevance
        return _rms_norm(x, weight, eps, rules)

    def self_attention(x: Array, name: str) -> Layer:
        q, back_q = _named_linear(x, weights, f"{name}.q_proj", rules)
        k, back_k = _named_linear(x, weights, f"{name}.k_proj", rules)
        v, back_v = _named_linear(x, weights, f"{name}.v_proj", rules)
        normed_q, back_qn = head_norm(_split_heads(q, heads), f"{name}.q_norm")
        normed_k, back_kn = head_norm(_split_heads(k, key_heads), f"{name}.k_norm")
        turned_q, back_qr = _rotary(normed_q, theta)
        turned_k, back_kr = _rotary(normed_k, theta)
        mixed, back_mixed = _attention(
            turned_q,
            turned_k,
            _split_heads(v, key_heads),
            mask=mask,
            causal=True,
            rules=rules,
        )
        output, back_o = _named_linear(
            _merge_heads(mixed), weights, f"{name}.o_proj", rules
        )

        def way_back(relevance: Array) -> Array:
            to_q, to_k, to_v = back_mixed(_split_heads(back_o(relevance), heads))
            return (
                back_q(_merge_heads(back_qn(back_qr(to_q))))
                + back_k(_merge_heads(back_kn(back_kr(to_k))))
                + back_v(_merge_heads(to_v))
            )

        return output, way_back

    def mlp(x: Array, name: str) -> Layer:
        gate, back_gate = _named_linear(x, weights, f"{name}.gate_proj", rules)
        opened, back_opened = _activation(gate, silu, rules)
        up, back_up = _named_linear(x, weights, f"{name}.up_proj", rules)
        output, back_down = _named_linear(
            opened * up, weights, f"{name}.down_proj", rules
        )

        def way_back(relevance: Array) -> Array:
            to_opened, to_up = rules.gated_product(opened, up, back_down(relevance))
            return back_gate(back_opened(to_opened)) + back_up(to_up)

        return output, way_back

    def normed(x: Array, norm: str, part: Callable[[Array], Layer]) -> Layer:
        inner, back_norm = _rms_norm(x, weights[f"{norm}.weight"], eps, rules)
        output, back_part = part(inner)
        return output, lambda relevance: back_norm(back_part(relevance))

    def block(x: Array, name: str) -> Layer:
        middle, back_attention = _residual(
            x,
            lambda h: normed(
                h,
                f"{name}.input_layernorm",
                lambda n: self_attention(n, f"{name}.self_attn"),
            ),
            rules,
        )
        output, back_mlp = _residual(
            middle,
            lambda h: normed(
                h,
                f"{name}.post_attention_layernorm",
                lambda n: mlp(n, f"{name}.mlp"),
            ),
            rules,
        )
        return output, lambda relevance: back_attention(back_mlp(relevance))

    hidden, back_blocks = _chain(
        r.as_array(inputs_embeds),
        [
            lambda h, i=i: block(h, f"model.layers.{i}")  # type: ignore[misc]
            for i in range(config["num_hidden_layers"])
        ],
    )
    last, back_last = _at_position(hidden, position)
    last, back_norm = _rms_norm(last, weights["model.norm.weight"], eps, rules)
    table = weights.get("model.embed_tokens.weight")
    head = weights.get("lm_head.weight")
    head = table if head is None else head
    if head is None:
        raise ValueError("the state has neither lm_head.weight nor an embedding table")
    logits, back_head = _linear(last, head, None, rules)
    weights.refuse_unread()
    found = back_blocks(back_last(back_norm(back_head(_start(logits, target)))))
    return Explanation(
        logits=logits, inputs=found[0], embeddings=found[0], blocks=tuple(found[1:])
    )


# --- pre-norm blocks with LayerNorm and one activation ----------------------


def _fused_self_attention(
    x: Array,
    projection: Callable[[Array], Layer],
    output_projection: Callable[[Array], Layer],
    *,
    heads: int,
    mask: Array | None,
    causal: bool,
    rules: RuleSet,
) -> Layer:
    """Self-attention whose query, key and value come from one projection."""
    fused, back_fused = projection(x)
    q, k, v = (_split_heads(part, heads) for part in np.split(fused, 3, axis=-1))
    mixed, back_mixed = _attention(q, k, v, mask=mask, causal=causal, rules=rules)
    output, back_output = output_projection(_merge_heads(mixed))

    def way_back(relevance: Array) -> Array:
        parts = back_mixed(_split_heads(back_output(relevance), heads))
        return back_fused(
            np.concatenate([_merge_heads(part) for part in parts], axis=-1)
        )

    return output, way_back


def _feed_forward(
    x: Array,
    first: Callable[[Array], Layer],
    function: Callable[[float], float],
    second: Callable[[Array], Layer],
    rules: RuleSet,
) -> Layer:
    inner, back_first = first(x)
    active, back_active = _activation(inner, function, rules)
    output, back_second = second(active)
    return output, lambda relevance: back_first(back_active(back_second(relevance)))


def gpt2(
    state: Mapping[str, Any],
    config: Mapping[str, Any],
    inputs_embeds: Any,
    *,
    target: Any,
    method: str | RuleSet,
    attention_mask: Any | None = None,
    position: int = -1,
) -> Explanation:
    """GPT-2: pre-norm LayerNorm, fused projections stored transposed, gelu_new.

    The learned positions are added to the inputs (epsilon split); their share
    is not reported.

    Args:
        state (mapping): State dict of ``GPT2LMHeadModel``.
        config (mapping): ``n_layer``, ``n_head`` and ``layer_norm_epsilon``.
        inputs_embeds (array-like): ``(batch, tokens, features)``, without
            positions.
        target (int or array-like): Token id, or one per sample.
        method (str or RuleSet): "attnlrp", "cplrp" or a set of rules.
        attention_mask (array-like, optional): ``(batch, tokens)``; 0 removes a
            token. Default: None
        position (int, optional): The token whose logits are explained.
            Default: -1
    """
    _expect(
        config,
        activation_function="gelu_new",
        scale_attn_weights=True,
        scale_attn_by_inverse_layer_idx=False,
    )
    rules = r.method_rules(method)
    weights = Weights(state)
    mask = _additive_mask(attention_mask)
    eps = config["layer_norm_epsilon"]

    def attention_branch(x: Array, name: str) -> Layer:
        inner, back_norm = _layer_norm(x, weights, f"{name}.ln_1", eps, rules)
        output, back = _fused_self_attention(
            inner,
            lambda h: _named_conv1d(h, weights, f"{name}.attn.c_attn", rules),
            lambda h: _named_conv1d(h, weights, f"{name}.attn.c_proj", rules),
            heads=config["n_head"],
            mask=mask,
            causal=True,
            rules=rules,
        )
        return output, lambda relevance: back_norm(back(relevance))

    def mlp_branch(x: Array, name: str) -> Layer:
        inner, back_norm = _layer_norm(x, weights, f"{name}.ln_2", eps, rules)
        output, back = _feed_forward(
            inner,
            lambda h: _named_conv1d(h, weights, f"{name}.mlp.c_fc", rules),
            gelu_new,
            lambda h: _named_conv1d(h, weights, f"{name}.mlp.c_proj", rules),
            rules,
        )
        return output, lambda relevance: back_norm(back(relevance))

    def block(x: Array, name: str) -> Layer:
        middle, back_attention = _residual(
            x, lambda h: attention_branch(h, name), rules
        )
        output, back_mlp = _residual(middle, lambda h: mlp_branch(h, name), rules)
        return output, lambda relevance: back_attention(back_mlp(relevance))

    embeds = r.as_array(inputs_embeds)
    positions = np.broadcast_to(
        weights["transformer.wpe.weight"][: embeds.shape[1]], embeds.shape
    )
    hidden, back_blocks = _chain(
        embeds + positions,
        [
            lambda h, i=i: block(h, f"transformer.h.{i}")  # type: ignore[misc]
            for i in range(config["n_layer"])
        ],
    )
    last, back_last = _at_position(hidden, position)
    last, back_norm = _layer_norm(last, weights, "transformer.ln_f", eps, rules)
    table = weights["transformer.wte.weight"]
    head = weights.get("lm_head.weight")
    logits, back_head = _linear(last, table if head is None else head, None, rules)
    weights.refuse_unread()
    found = back_blocks(back_last(back_norm(back_head(_start(logits, target)))))
    to_embeds, _ = rules.add(embeds, positions, found[0])
    return Explanation(
        logits=logits, inputs=to_embeds, embeddings=found[0], blocks=tuple(found[1:])
    )


# --- BERT -------------------------------------------------------------------


def bert(
    state: Mapping[str, Any],
    config: Mapping[str, Any],
    inputs_embeds: Any,
    *,
    target: Any,
    method: str | RuleSet,
    attention_mask: Any | None = None,
    token_type_ids: Any | None = None,
    pooler_activation: Callable[[Array, Array], Array] | None = None,
) -> Explanation:
    """BERT with pooler and classifier: post-norm, gelu.

    Args:
        state (mapping): State dict of ``BertForSequenceClassification``.
        config (mapping): ``num_hidden_layers``, ``num_attention_heads`` and
            ``layer_norm_eps``.
        inputs_embeds (array-like): ``(batch, tokens, features)``, word
            embeddings without positions and types.
        target (int or array-like): Class, or one per sample.
        method (str or RuleSet): "attnlrp", "cplrp" or a set of rules.
        attention_mask (array-like, optional): ``(batch, tokens)``; 0 removes a
            token. Default: None
        token_type_ids (array-like, optional): ``(batch, tokens)``.
            Default: zeros
        pooler_activation (callable, optional): ``(x, relevance) -> relevance``
            for the pooler's tanh. Default: the activation rule of `method`
    """
    _expect(config, hidden_act="gelu", is_decoder=False)
    rules = r.method_rules(method)
    weights = Weights(state)
    mask = _additive_mask(attention_mask)
    eps, heads = config["layer_norm_eps"], config["num_attention_heads"]

    def self_attention(x: Array, name: str) -> Layer:
        q, back_q = _named_linear(x, weights, f"{name}.self.query", rules)
        k, back_k = _named_linear(x, weights, f"{name}.self.key", rules)
        v, back_v = _named_linear(x, weights, f"{name}.self.value", rules)
        mixed, back_mixed = _attention(
            _split_heads(q, heads),
            _split_heads(k, heads),
            _split_heads(v, heads),
            mask=mask,
            causal=False,
            rules=rules,
        )
        output, back_output = _named_linear(
            _merge_heads(mixed), weights, f"{name}.output.dense", rules
        )

        def way_back(relevance: Array) -> Array:
            to_q, to_k, to_v = back_mixed(_split_heads(back_output(relevance), heads))
            return (
                back_q(_merge_heads(to_q))
                + back_k(_merge_heads(to_k))
                + back_v(_merge_heads(to_v))
            )

        return output, way_back

    def feed_forward(x: Array, name: str) -> Layer:
        return _feed_forward(
            x,
            lambda h: _named_linear(h, weights, f"{name}.intermediate.dense", rules),
            gelu,
            lambda h: _named_linear(h, weights, f"{name}.output.dense", rules),
            rules,
        )

    def post_norm(x: Array, branch: Callable[[Array], Layer], norm: str) -> Layer:
        total, back_total = _residual(x, branch, rules)
        output, back_norm = _layer_norm(total, weights, norm, eps, rules)
        return output, lambda relevance: back_total(back_norm(relevance))

    def block(x: Array, name: str) -> Layer:
        middle, back_attention = post_norm(
            x,
            lambda h: self_attention(h, f"{name}.attention"),
            f"{name}.attention.output.LayerNorm",
        )
        output, back_feed_forward = post_norm(
            middle, lambda h: feed_forward(h, name), f"{name}.output.LayerNorm"
        )
        return output, lambda relevance: back_attention(back_feed_forward(relevance))

    words = r.as_array(inputs_embeds)
    types = np.zeros(words.shape[:2], dtype=np.int64)
    if token_type_ids is not None:
        types = r.as_array(token_type_ids).astype(np.int64)
    weights["bert.embeddings.word_embeddings.weight"]
    typed = weights["bert.embeddings.token_type_embeddings.weight"][types]
    placed = weights["bert.embeddings.position_embeddings.weight"][: words.shape[1]]
    others = typed + placed
    embedded, back_embedded = _layer_norm(
        words + others, weights, "bert.embeddings.LayerNorm", eps, rules
    )
    hidden, back_blocks = _chain(
        embedded,
        [
            lambda h, i=i: block(h, f"bert.encoder.layer.{i}")  # type: ignore[misc]
            for i in range(config["num_hidden_layers"])
        ],
    )
    first, back_first = _at_position(hidden, 0)
    inner, back_pooler = _named_linear(first, weights, "bert.pooler.dense", rules)
    pooled, back_tanh = _activation(inner, math.tanh, rules)
    if pooler_activation is not None:
        chosen = pooler_activation
        back_tanh = lambda relevance: chosen(inner, relevance)  # noqa: E731
    logits, back_head = _named_linear(pooled, weights, "classifier", rules)
    weights.refuse_unread()
    found = back_blocks(
        back_first(back_pooler(back_tanh(back_head(_start(logits, target)))))
    )
    to_words, _ = rules.add(words, others, back_embedded(found[0]))
    return Explanation(
        logits=logits, inputs=to_words, embeddings=found[0], blocks=tuple(found[1:])
    )


# --- Vision Transformer of timm ---------------------------------------------


def _patches(pixels: Array, size: tuple[int, int]) -> Array:
    """``(batch, channels, H, W)`` to ``(batch, patches, channels * h * w)``."""
    batch, channels, height, width = pixels.shape
    rows, columns = height // size[0], width // size[1]
    cut = pixels.reshape(batch, channels, rows, size[0], columns, size[1])
    return cut.transpose(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, -1)


def _pixels(patches: Array, shape: tuple[int, ...], size: tuple[int, int]) -> Array:
    """The reverse of `_patches`."""
    batch, channels, height, width = shape
    rows, columns = height // size[0], width // size[1]
    cut = patches.reshape(batch, rows, columns, channels, size[0], size[1])
    return cut.transpose(0, 3, 1, 4, 2, 5).reshape(shape)


def vit(
    state: Mapping[str, Any],
    config: Mapping[str, Any],
    pixel_values: Any,
    *,
    target: Any,
    method: str | RuleSet,
) -> Explanation:
    """timm's ``VisionTransformer``: class token, pre-norm, gelu.

    The patch embedding is a linear layer on patches, under the method's linear
    rule. Positions are added after the class token is prepended.

    Args:
        state (mapping): State dict of ``timm.models.VisionTransformer`` with
            ``qkv_bias=True``, without layer scale and query-key norms.
        config (mapping): ``num_heads``; optionally ``norm_eps`` (Default: 1e-6).
        pixel_values (array-like): ``(batch, channels, height, width)``.
        target (int or array-like): Class, or one per sample.
        method (str or RuleSet): "attnlrp", "cplrp" or a set of rules.

    Returns:
        Explanation: ``inputs`` is the relevance of the pixels.
    """
    rules = r.method_rules(method)
    weights = Weights(state)
    eps, heads = config.get("norm_eps", 1e-6), config["num_heads"]

    def attention_branch(x: Array, name: str) -> Layer:
        inner, back_norm = _layer_norm(x, weights, f"{name}.norm1", eps, rules)
        output, back = _fused_self_attention(
            inner,
            lambda h: _named_linear(h, weights, f"{name}.attn.qkv", rules),
            lambda h: _named_linear(h, weights, f"{name}.attn.proj", rules),
            heads=heads,
            mask=None,
            causal=False,
            rules=rules,
        )
        return output, lambda relevance: back_norm(back(relevance))

    def mlp_branch(x: Array, name: str) -> Layer:
        inner, back_norm = _layer_norm(x, weights, f"{name}.norm2", eps, rules)
        output, back = _feed_forward(
            inner,
            lambda h: _named_linear(h, weights, f"{name}.mlp.fc1", rules),
            gelu,
            lambda h: _named_linear(h, weights, f"{name}.mlp.fc2", rules),
            rules,
        )
        return output, lambda relevance: back_norm(back(relevance))

    def block(x: Array, name: str) -> Layer:
        middle, back_attention = _residual(
            x, lambda h: attention_branch(h, name), rules
        )
        output, back_mlp = _residual(middle, lambda h: mlp_branch(h, name), rules)
        return output, lambda relevance: back_attention(back_mlp(relevance))

    pixels = r.as_array(pixel_values)
    kernel = weights["patch_embed.proj.weight"]
    size = (kernel.shape[2], kernel.shape[3])
    embedded, back_patches = _linear(
        _patches(pixels, size),
        kernel.reshape(kernel.shape[0], -1),
        weights["patch_embed.proj.bias"],
        rules,
    )
    class_token = np.broadcast_to(
        weights["cls_token"], (pixels.shape[0], 1, embedded.shape[-1])
    )
    tokens = np.concatenate([class_token, embedded], axis=1)
    positions = np.broadcast_to(weights["pos_embed"], tokens.shape)
    depth = 0
    while weights.get(f"blocks.{depth}.norm1.weight") is not None:
        depth += 1
    hidden, back_blocks = _chain(
        tokens + positions,
        [
            lambda h, i=i: block(h, f"blocks.{i}")  # type: ignore[misc]
            for i in range(depth)
        ],
    )
    normed, back_norm = _layer_norm(hidden, weights, "norm", eps, rules)
    first, back_first = _at_position(normed, 0)
    logits, back_head = _named_linear(first, weights, "head", rules)
    weights.refuse_unread()
    found = back_blocks(back_norm(back_first(back_head(_start(logits, target)))))
    to_tokens, _ = rules.add(tokens, positions, found[0])
    return Explanation(
        logits=logits,
        inputs=_pixels(back_patches(to_tokens[:, 1:]), pixels.shape, size),
        embeddings=found[0],
        blocks=tuple(found[1:]),
    )
