"""Small random models of libraries that know nothing of this project.

A library is a function that yields :class:`Case` objects: what is built, what it is
given, and, where that is no plain call, how it is called. :func:`entries` makes entries
of them for the sweep. No library is a dependency of the project, and none needs another
torch: ``requirements-third-party.txt`` beside this file lists what the page was made
with.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import importlib.util
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from .shrinking import Sizes
from .sweep import Built, Entry, Refusal
from .timm_models import randomised

Draw = Callable[..., Tensor]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model of a library.

    Args:
        name (str): unique in its library.
        make (Callable): returns the model.
        draw (Callable): returns the inputs, given :func:`_random` with a seed: a float
            tensor, or identifiers.
        call (Callable, optional): takes the model and the input, for identifiers a mask
            too, and returns scores of shape (batch, ..., classes).
            Default: the model is called with the input, for identifiers without a mask
        refused (Refusal, optional): the error that the engine owes, where it cannot
            explain this model. Default: None
        library (str, optional): for a function that yields cases of several.
    """

    name: str
    make: Callable[[], nn.Module]
    draw: Callable[[Draw], Tensor]
    call: Callable[..., Any] | None = None
    refused: Refusal | None = None
    library: str = ""


class Called(nn.Module):
    """A model, called in its own way with the one thing that is explained."""

    def __init__(self, model: nn.Module, call: Callable[..., Any] | None) -> None:
        super().__init__()
        self.model = model
        self.call = call

    def forward(self, explained: Tensor) -> Any:
        if self.call is None:
            return self.model(explained)
        return self.call(self.model, explained)


class CalledWithText(Called):
    """A model that reads identifiers, and perhaps a mask."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        if self.call is None:
            return self.model(input_ids)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        return self.call(self.model, input_ids, attention_mask.bool())


def build(case: Case, seed: int) -> Built:
    """Return the model of a case with random weights, its inputs, no target."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, below: int = 0) -> Tensor:
        if below:
            return torch.randint(0, below, shape, generator=generator)
        return torch.randn(shape, generator=generator)

    torch.manual_seed(seed)
    model, given = case.make().eval(), case.draw(draw)
    words = not given.is_floating_point()
    called: nn.Module = (CalledWithText if words else Called)(model, case.call)
    called = randomised(called, given, generator).double().eval()
    inputs = {"input_ids": given} if words else given.double()
    return called, inputs, None


def like(x: Tensor, *shape: int, seed: int = 1) -> Tensor:
    """Return fixed random numbers for every example of a batch, alike in each."""
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return numbers.to(x).expand(len(x), *shape)


def log_odds(log_probabilities: Tensor) -> Tensor:
    """Return log p - log p0: of a log-softmax the differences of its logits."""
    return log_probabilities[..., 1:] - log_probabilities[..., :1]


def _sampled(model: nn.Module, x: Tensor) -> Any:
    """Call a model that draws numbers in evaluation too: the same in every run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return model(x)


@contextmanager
def written_out(model: nn.Module) -> Iterator[None]:
    """Replace torch's fused attention by matrix products and a softmax."""
    functional = torch.nn.functional
    fused = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = _attention
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = fused


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = query @ key.transpose(-2, -1) * scale
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(-1) @ value


# ---------------------------------------------------------------- kinds of inputs


def pictures(size: int = 32, channels: int = 3) -> Callable[[Draw], Tensor]:
    """Two pictures, and two more for the statistics of batch normalisation."""
    return lambda draw: draw(2, channels, size, size)


def floats(*shape: int) -> Callable[[Draw], Tensor]:
    """Two examples of a shape."""
    return lambda draw: draw(2, *shape)


def words(length: int = 10, below: int = 50) -> Callable[[Draw], Tensor]:
    """Two texts of identifiers."""
    return lambda draw: draw(2, length, below=below - 1) + 1


# ------------------------------------------------------------------- the libraries


def _x_transformers() -> Iterator[Case]:
    import x_transformers as x

    def masked(model: nn.Module, ids: Tensor, mask: Tensor) -> Any:
        return model(ids, mask=mask)

    def text(layers: type, options: dict[str, Any], wrapper: dict[str, Any]) -> Any:
        return x.TransformerWrapper(
            num_tokens=50,
            max_seq_len=16,
            attn_layers=layers(dim=32, depth=2, heads=4, attn_dim_head=8, **options),
            **wrapper,
        )

    for name, (options, wrapper) in X_TRANSFORMERS.items():
        for layers in {
            "plain": (x.Encoder, x.Decoder),
            "class token": (x.Encoder,),
        }.get(name, (x.Decoder,)):
            yield Case(
                name=f"{layers.__name__}: {name}",
                make=functools.partial(text, layers, options, wrapper),
                draw=words(),
                call=masked,
                refused=REFUSED.get(name),
            )
    yield Case(
        name="ViTransformerWrapper",
        make=lambda: x.ViTransformerWrapper(
            image_size=32,
            patch_size=8,
            num_classes=5,
            num_register_tokens=2,
            attn_layers=x.Encoder(dim=32, depth=2, heads=4),
        ),
        draw=pictures(),
    )
    yield Case(
        name="ContinuousTransformerWrapper",
        make=lambda: x.ContinuousTransformerWrapper(
            dim_in=6,
            dim_out=5,
            max_seq_len=16,
            attn_layers=x.Encoder(dim=32, depth=2, heads=4),
        ),
        draw=floats(8, 6),
    )
    yield Case(
        name="XTransformer",
        make=lambda: x.XTransformer(
            dim=32,
            enc_num_tokens=50,
            enc_depth=2,
            enc_heads=4,
            enc_max_seq_len=16,
            dec_num_tokens=50,
            dec_depth=2,
            dec_heads=4,
            dec_max_seq_len=16,
        ),
        draw=words(),
        call=lambda m, ids, mask: m.decoder.net(
            torch.arange(1, 6).expand(len(ids), 5),
            context=m.encoder(ids, mask=mask, return_embeddings=True),
            context_mask=mask,
        ),
    )
    yield Case(
        name="CrossAttender",
        make=lambda: x.CrossAttender(dim=32, depth=2, heads=4),
        draw=floats(6, 32),
        call=lambda m, z: m(z, context=like(z, 7, 32)),
    )
    yield Case(
        name="CrossAttender: its context",
        make=lambda: x.CrossAttender(dim=32, depth=2, heads=4),
        draw=floats(6, 32),
        call=lambda m, z: m(like(z, 7, 32), context=z),
    )
    yield Case(
        name="NeoMLP",
        make=lambda: x.NeoMLP(dim_in=5, dim_hidden=6, dim_out=4, depth=2, dim_model=32),
        draw=floats(5),
    )
    yield Case(
        name="XValTransformerWrapper: its numbers",
        make=lambda: x.XValTransformerWrapper(
            num_tokens=9,
            numerical_token_id=3,
            max_seq_len=16,
            attn_layers=x.Decoder(dim=32, depth=2, heads=4),
        ),
        draw=floats(8),
        call=lambda m, z: m(torch.full(z.shape, 3), z)[0],
    )
    yield Case(
        name="recycled",
        make=lambda: text(x.Decoder, {}, {"recycling": True}),
        draw=words(),
        call=lambda m, ids, mask: m(ids, mask=mask, recycle_steps=2),
    )
    yield Case(
        name="AttentionPool",
        make=lambda: x.AttentionPool(32, num_pooled_tokens=2, heads=4),
        draw=floats(6, 32),
    )


#: what is varied -> options of the layers, options of the wrapper
X_TRANSFORMERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "flash": ({"attn_flash": True}, {}),
    "rotary": ({"rotary_pos_emb": True, "use_rmsnorm": True}, {}),
    "xpos": ({"rotary_xpos": True}, {}),
    "alibi": ({"alibi_pos_bias": True, "alibi_num_heads": 2}, {}),
    "relative bias of T5": ({"rel_pos_bias": True}, {}),
    "dynamic bias": ({"dynamic_pos_bias": True, "dynamic_pos_bias_norm": True}, {}),
    "polar positions": ({"polar_pos_emb": True}, {}),
    "contextual positions": ({"attn_use_cope": True}, {}),
    "alibi from data": ({"attn_data_dependent_alibi": True}, {}),
    "GLU, swish": ({"ff_glu": True, "ff_swish": True, "ff_no_bias": True}, {}),
    "GLU with a factor": ({"ff_glu": True, "ff_glu_mult_bias": True}, {}),
    "squared ReLU": ({"ff_relu_squared": True}, {}),
    "SoLU": ({"ff_solu": True}, {}),
    "norm after activation": ({"ff_post_act_ln": True}, {}),
    "scale norm": ({"use_scalenorm": True}, {}),
    "simple RMS norm": ({"use_simple_rmsnorm": True}, {}),
    "dynamic tanh": ({"use_dynamic_tanh": True}, {}),
    "erf for a norm": ({"use_derf": True}, {}),
    "post-norm": ({"pre_norm": False}, {}),
    "pre- and post-norm": ({"pre_and_post_norm": True}, {}),
    "sandwich norm": ({"sandwich_norm": True}, {}),
    "sandwich": ({"sandwich_coef": 1}, {}),
    "macaron": ({"macaron": True}, {}),
    "residual attention": ({"residual_attn": True}, {}),
    "gated residual": ({"gate_residual": True}, {}),
    "orthogonal residual": ({"orthog_residual": True}, {}),
    "scaled residual": ({"scale_residual": True}, {}),
    "residual streams": ({"num_residual_streams": 2}, {}),
    "integrated layers": ({"integrate_layers": True}, {}),
    "value residual": (
        {"add_value_residual": True, "learned_value_residual_mix": True},
        {},
    ),
    "U-net skips": ({"unet_skips": True}, {}),
    "layer scale": ({"use_layerscale": True}, {}),
    "reinjected input": (
        {"reinject_input": True, "learned_reinject_input_gate": True},
        {},
    ),
    "shifted tokens": ({"shift_tokens": 1}, {}),
    "softclamped output": ({"softclamp_output": True}, {}),
    "normalised queries and keys": (
        {"attn_qk_norm": True, "attn_qk_norm_dim_scale": True},
        {},
    ),
    "RMS norm of queries and keys": ({"attn_qk_rmsnorm": True}, {}),
    "talking heads": (
        {"attn_pre_talking_heads": True, "attn_post_talking_heads": True},
        {},
    ),
    "the eight largest keys": ({"attn_sparse_topk": 4}, {}),
    "sparse, straight through": (
        {"attn_sparse_topk": 4, "attn_sparse_topk_straight_through": True},
        {},
    ),
    "gated values": ({"attn_gate_values": True, "attn_gate_value_heads": True}, {}),
    "SwiGLU values": ({"attn_swiglu_values": True}, {}),
    "attention on attention": ({"attn_on_attn": True}, {}),
    "memory keys": ({"attn_num_mem_kv": 2}, {}),
    "a zero key": ({"attn_add_zero_kv": True}, {}),
    "a learned sink": ({"attn_head_learned_sink": True}, {}),
    "one head of keys": ({"attn_one_kv_head": True}, {}),
    "two heads of keys": ({"attn_kv_heads": 2, "attn_flash": True}, {}),
    "latent keys": (
        {
            "attn_use_latent_q": True,
            "attn_dim_latent_q": 16,
            "attn_use_latent_kv": True,
            "attn_dim_latent_kv": 16,
        },
        {},
    ),
    "L2 distance": ({"attn_l2_distance": True}, {}),
    "sigmoid attention": ({"attn_sigmoid": True}, {}),
    "hard attention": ({"attn_hard": True}, {}),
    "selective attention": ({"attn_selective": True}, {}),
    "signed attention": ({"attn_cog_signed": True}, {}),
    "laser": ({"attn_laser": True}, {}),
    "softclamped logits": ({"attn_softclamp_logits": True}, {}),
    "orthogonal values": ({"attn_orthog_projected_values": True}, {}),
    "inverted attention": ({"attn_inverted_attention": True}, {}),
    "scaled heads": ({"attn_head_scale": True}, {}),
    "a short past": ({"attn_max_attend_past": 4}, {}),
    "memory tokens": ({}, {"num_memory_tokens": 2}),
    "tied, unit embeddings": ({}, {"tie_embedding": True, "l2norm_embed": True}),
    "sinusoidal positions": ({}, {"scaled_sinu_pos_emb": True}),
    "mixture of softmaxes": ({}, {"mixture_of_softmax": True}),
    "class token": ({}, {"use_cls_token": True, "logits_dim": 5}),
    "mean": ({}, {"average_pool_embed": True, "logits_dim": 5}),
    "attention pooling": ({}, {"attn_pool": True, "logits_dim": 5}),
}


def _vit_pytorch() -> Iterator[Case]:
    import vit_pytorch  # noqa: F401

    for path, options in VIT_PYTORCH.items():
        kind = VIT_INPUTS.get(path, pictures())
        yield Case(
            name=path,
            make=functools.partial(_made, f"vit_pytorch.{path}", options),
            draw=kind,
            call=VIT_CALLS.get(path),
            refused=REFUSED.get(path),
        )


def _made(path: str, options: dict[str, Any], *arguments: Any) -> Any:
    """Build an object of a dotted path; callables among the options are called."""
    module, name = path.rsplit(".", 1)
    cls = getattr(importlib.import_module(module), name)
    given = {k: v() if isinstance(v, Later) else v for k, v in options.items()}
    return cls(*arguments, **given)


@dataclass(frozen=True)
class Later:
    """A part of a model, of a dotted path, built when the whole is."""

    path: str
    options: tuple[tuple[str, Any], ...] = ()

    def __call__(self) -> Any:
        return _made(self.path, dict(self.options))


_VIT = {
    "image_size": 32,
    "patch_size": 8,
    "num_classes": 5,
    "dim": 32,
    "depth": 2,
    "heads": 4,
    "mlp_dim": 64,
}
_SERIES = {k: v for k, v in _VIT.items() if k != "image_size"} | {"seq_len": 32}
_VIDEO = {k: v for k, v in _VIT.items() if k != "patch_size"} | {
    "image_patch_size": 8,
    "frames": 4,
    "frame_patch_size": 2,
}
_VIVIT = {k: v for k, v in _VIDEO.items() if k != "depth"} | {
    "spatial_depth": 1,
    "temporal_depth": 1,
}
_ND = {k: v for k, v in _VIT.items() if k != "image_size"} | {
    "ndim": 2,
    "input_shape": (32, 32),
}
_STAGED = {"num_classes": 5, "dim": (16, 16, 32, 32), "depth": (1, 1, 1, 1)}

VIT_PYTORCH: dict[str, dict[str, Any]] = {
    "vit.ViT": _VIT,
    "simple_vit.SimpleViT": _VIT,
    "ats_vit.ViT": _VIT | {"max_tokens_per_depth": (12, 8)},
    "attn_residual_with_dca_simple_vit.SimpleViT": _VIT,
    "cait.CaiT": _VIT | {"cls_depth": 1},
    "cct.CCT": {
        "img_size": 32,
        "embedding_dim": 32,
        "n_conv_layers": 2,
        "num_layers": 2,
        "num_heads": 4,
        "mlp_ratio": 2.0,
        "num_classes": 5,
    },
    "cross_vit.CrossViT": {
        "image_size": 32,
        "num_classes": 5,
        "sm_dim": 16,
        "lg_dim": 32,
        "sm_patch_size": 8,
        "lg_patch_size": 16,
        "sm_enc_depth": 1,
        "lg_enc_depth": 1,
        "sm_enc_heads": 2,
        "lg_enc_heads": 2,
        "sm_enc_mlp_dim": 32,
        "lg_enc_mlp_dim": 32,
        "depth": 1,
    },
    "crossformer.CrossFormer": {
        "num_classes": 5,
        "dim": (32, 32, 64, 64),
        "depth": (1, 1, 1, 1),
        "global_window_size": (4, 2, 2, 1),
        "local_window_size": 2,
    },
    "cvt.CvT": {
        "num_classes": 5,
        **{f"s{i}_emb_dim": 16 for i in (1, 2, 3)},
        **{f"s{i}_heads": 2 for i in (1, 2, 3)},
        **{f"s{i}_depth": 1 for i in (1, 2, 3)},
    },
    "deepvit.DeepViT": _VIT,
    "jet_vit.JetViT": _VIT
    | {"dim_head": 8, "window_size": 2, "attn_layers": ["FA", "LA"]},
    "jumbo_vit.JumboViT": _VIT | {"num_jumbo_cls": 1, "jumbo_cls_k": 2},
    "levit.LeViT": {
        "image_size": 64,
        "num_classes": 5,
        "stages": 3,
        "dim": (16, 32, 32),
        "depth": 1,
        "heads": (2, 4, 4),
        "mlp_mult": 2,
    },
    "look_vit.LookViT": {
        "dim": 32,
        "image_size": 64,
        "num_classes": 5,
        "depth": 1,
        "patch_size": 16,
        "heads": 4,
        "highres_patch_size": 8,
        "cross_attn_heads": 4,
    },
    "looped_vit.LoopedViT": {k: v for k, v in _VIT.items() if k != "depth"}
    | {"pre_loop_depth": 1, "num_looped_blocks": 1, "post_loop_depth": 1},
    "max_vit.MaxViT": {
        "num_classes": 5,
        "dim": 16,
        "depth": (1, 1),
        "dim_head": 8,
        "dim_conv_stem": 16,
        "window_size": 4,
    },
    "max_vit_with_registers.MaxViT": {
        "num_classes": 5,
        "dim": 16,
        "depth": (1, 1),
        "dim_head": 8,
        "dim_conv_stem": 16,
        "window_size": 4,
        "num_register_tokens": 2,
    },
    "mobile_vit.MobileViT": {
        "image_size": (64, 64),
        "dims": [24, 32, 32],
        "channels": [8, 8, 16, 16, 16, 16, 24, 24, 32, 32, 32],
        "num_classes": 5,
    },
    "nest.NesT": {
        "image_size": 32,
        "patch_size": 4,
        "num_classes": 5,
        "dim": 16,
        "heads": 2,
        "num_hierarchies": 3,
        "block_repeats": (1, 1, 1),
    },
    "normalized_vit.nViT": _VIT,
    "parallel_vit.ViT": _VIT,
    "pit.PiT": _VIT | {"depth": (1, 1)},
    "regionvit.RegionViT": _STAGED | {"window_size": 4},
    "rvt.RvT": _VIT,
    "scalable_vit.ScalableViT": {
        "num_classes": 5,
        "dim": 16,
        "heads": (2, 2, 4, 4),
        "depth": (1, 1, 1, 1),
        "reduction_factor": (4, 2, 2, 1),
        "window_size": (8, 4, None, None),
        "ssa_dim_key": (8, 8, 8, 8),
        "ssa_dim_value": (8, 8, 8, 8),
        "iwsa_dim_key": (8, 8, 8, 8),
        "iwsa_dim_value": (8, 8, 8, 8),
    },
    "simple_flash_attn_vit.SimpleViT": _VIT,
    "simple_flash_attn_vit_3d.SimpleViT": _VIDEO,
    "simple_uvit.SimpleUViT": _VIT | {"num_register_tokens": 2},
    "simple_vit_1d.SimpleViT": _SERIES,
    "simple_vit_3d.SimpleViT": _VIDEO,
    "simple_vit_attn_residual.SimpleViTAttnResidual": _VIT,
    "simple_vit_orthog_residual_update.SimpleViT": _VIT,
    "simple_vit_with_fft.SimpleViT": _VIT | {"freq_patch_size": 8},
    "simple_vit_with_hyper_connections.SimpleViT": _VIT | {"num_residual_streams": 2},
    "simple_vit_with_patch_dropout.SimpleViT": _VIT,
    "simple_vit_with_qk_norm.SimpleViT": _VIT,
    "simple_vit_with_register_tokens.SimpleViT": _VIT,
    "simple_vit_with_relative_proj_pos_bias.SimpleViT": _VIT,
    "simple_vit_with_sparse_gating.SimpleViTWithSparseGating": _VIT,
    "simple_vit_with_specialized_cls.SimpleViT": _VIT,
    "simple_vit_with_value_residual.SimpleViT": _VIT,
    "t2t.T2TViT": {k: v for k, v in _VIT.items() if k != "patch_size"}
    | {"t2t_layers": ((7, 4), (3, 2))},
    "twins_svt.TwinsSVT": {
        "num_classes": 5,
        **{f"s{i}_emb_dim": 16 for i in (1, 2, 3, 4)},
        **{f"s{i}_patch_size": 2 for i in (1, 2, 3, 4)},
        **{f"s{i}_local_patch_size": 1 for i in (1, 2, 3, 4)},
        **{f"s{i}_global_k": 2 for i in (1, 2)},
        "s3_global_k": 2,
        "s4_global_k": 1,
        **{f"s{i}_depth": 1 for i in (1, 2, 3, 4)},
    },
    "vit_1d.ViT": _SERIES,
    "vit_3d.ViT": _VIDEO,
    "vit_5.ViT": _VIT,
    "vit_detpool.ViTDetPool": _VIT,
    "vit_for_small_dataset.ViT": _VIT,
    "vit_nd.ViTND": _ND,
    "vit_nd_pope.ViTND": _ND,
    "vit_nd_rotary.ViTND": _ND,
    "vit_with_decorr.ViT": _VIT,
    "vit_with_keel_post_ln.ViT": _VIT,
    "vit_with_patch_dropout.ViT": _VIT,
    "vit_with_patch_merger.ViT": _VIT
    | {"patch_merge_layer": 1, "patch_merge_num_tokens": 4},
    "vivit.ViViT": _VIVIT,
    "vivit_with_moss.ViViT": _VIVIT,
    "wwt.WWT": _VIT | {"num_slots": 4},
    "xcit.XCiT": _VIT | {"cls_depth": 1},
    "na_vit.NaViT": _VIT,
    "na_vit_nested_tensor.NaViT": _VIT,
}
VIT_INPUTS: dict[str, Callable[[Draw], Tensor]] = {
    "levit.LeViT": pictures(64),
    "look_vit.LookViT": pictures(64),
    "mobile_vit.MobileViT": pictures(64),
    "crossformer.CrossFormer": pictures(64),
    "regionvit.RegionViT": pictures(128),
    "simple_vit_1d.SimpleViT": floats(3, 32),
    "vit_1d.ViT": floats(3, 32),
    "simple_vit_3d.SimpleViT": floats(3, 4, 32, 32),
    "simple_flash_attn_vit_3d.SimpleViT": floats(3, 4, 32, 32),
    "vit_3d.ViT": floats(3, 4, 32, 32),
    "vivit.ViViT": floats(3, 4, 32, 32),
    "vivit_with_moss.ViViT": floats(3, 4, 32, 32),
}
VIT_CALLS: dict[str, Callable[..., Any]] = {
    "ats_vit.ViT": lambda m, x: _sampled(m, x),
    "vit_with_decorr.ViT": lambda m, x: m(x)[0],
    "na_vit.NaViT": lambda m, x: m([list(x)]),
    "na_vit_nested_tensor.NaViT": lambda m, x: m(list(x)),
}


def _torchvision() -> Iterator[Case]:
    import torchvision  # noqa: F401

    for path, options in TORCHVISION.items():
        module, name = path.split(".")
        made = functools.partial(_made, f"torchvision.models.{module}.{name}", options)
        yield Case(
            name=path,
            make=made,
            draw=TORCHVISION_INPUTS.get(path, pictures(64)),
            call=TORCHVISION_CALLS.get(path) or TORCHVISION_CALLS.get(module),
        )


_FIVE = {"num_classes": 5}
#: of each family the smallest, smaller where it has options for that
TORCHVISION: dict[str, dict[str, Any]] = {
    "alexnet.AlexNet": _FIVE,
    "convnext.convnext_tiny": _FIVE,
    "densenet.DenseNet": _FIVE | {"block_config": (2, 2, 2), "num_init_features": 16},
    "efficientnet.efficientnet_b0": _FIVE,
    "efficientnet.efficientnet_v2_s": _FIVE,
    "googlenet.GoogLeNet": _FIVE | {"aux_logits": False, "init_weights": False},
    "inception.Inception3": _FIVE | {"aux_logits": False, "init_weights": False},
    "maxvit.MaxVit": {
        "input_size": (64, 64),
        "stem_channels": 16,
        "partition_size": 4,
        "block_channels": [16, 32],
        "block_layers": [1, 1],
        "head_dim": 8,
        "stochastic_depth_prob": 0.0,
        "num_classes": 5,
    },
    "mnasnet.mnasnet0_5": _FIVE,
    "mobilenetv2.mobilenet_v2": _FIVE,
    "mobilenetv3.mobilenet_v3_small": _FIVE,
    "regnet.regnet_x_400mf": _FIVE,
    "regnet.regnet_y_400mf": _FIVE,
    "resnet.resnet18": _FIVE,
    "resnet.resnext50_32x4d": _FIVE,
    "shufflenetv2.shufflenet_v2_x0_5": _FIVE,
    "squeezenet.squeezenet1_1": _FIVE,
    "swin_transformer.SwinTransformer": {
        "patch_size": [4, 4],
        "embed_dim": 16,
        "depths": [2, 2],
        "num_heads": [2, 4],
        "window_size": [4, 4],
        "num_classes": 5,
    },
    "vgg.vgg11_bn": _FIVE,
    "vision_transformer.VisionTransformer": {
        "image_size": 32,
        "patch_size": 8,
        "num_layers": 2,
        "num_heads": 4,
        "hidden_dim": 32,
        "mlp_dim": 64,
        "num_classes": 5,
    },
    "segmentation.deeplabv3_mobilenet_v3_large": _FIVE | {"weights_backbone": None},
    "segmentation.fcn_resnet50": _FIVE | {"weights_backbone": None},
    "segmentation.lraspp_mobilenet_v3_large": _FIVE | {"weights_backbone": None},
    "video.mc3_18": _FIVE,
    "video.r2plus1d_18": _FIVE,
    "video.s3d": _FIVE,
    "video.swin3d_t": _FIVE,
    "optical_flow.raft_small": {},
}
TORCHVISION_INPUTS: dict[str, Callable[[Draw], Tensor]] = {
    "inception.Inception3": pictures(96),
    "vision_transformer.VisionTransformer": pictures(),
    "video.mc3_18": floats(3, 4, 32, 32),
    "video.r2plus1d_18": floats(3, 4, 32, 32),
    "video.s3d": floats(3, 16, 64, 64),
    "video.swin3d_t": floats(3, 4, 32, 32),
    "optical_flow.raft_small": pictures(128),
}


def _flow(model: nn.Module, x: Tensor) -> Tensor:
    """Return the mean flow to another picture, whose grid is not cast to float32."""
    from torchvision.models.optical_flow import raft

    grid = raft.make_coords_grid
    with mock.patch.object(raft, "make_coords_grid", lambda *a: grid(*a).to(x)):
        return model(x, like(x, 3, 128, 128), num_flow_updates=2)[-1].mean((-2, -1))


TORCHVISION_CALLS: dict[str, Callable[..., Any]] = {
    "segmentation": lambda m, x: m(x)["out"].mean((-2, -1)),
    "optical_flow": _flow,
    # its pool wants 224 by 224 pixels, which need more memory than a model has here
    "video.s3d": lambda m, x: m.classifier(m.features(x)).mean((-3, -2, -1)),
}


def _segmentation_models() -> Iterator[Case]:
    import segmentation_models_pytorch as smp

    def model(name: str, encoder: str, options: dict[str, Any]) -> Any:
        return smp.create_model(
            name, encoder, encoder_weights=None, classes=5, **options
        )

    for name, (encoder, options) in SEGMENTATION.items():
        yield Case(
            name=f"{name} on {encoder}",
            make=functools.partial(model, name.split()[0], encoder, options),
            draw=pictures(SEGMENTATION_SIZES.get(name, 64)),
            call=lambda m, x: m(x).mean((-2, -1)),
        )


#: architecture, perhaps with what is varied -> encoder, options
SEGMENTATION: dict[str, tuple[str, dict[str, Any]]] = {
    "unet": ("resnet18", {}),
    "unet with scse": ("mobilenet_v2", {"decoder_attention_type": "scse"}),
    "unet with groups": ("timm-mobilenetv3_small_minimal_100", {}),
    "unet of mit": ("mit_b0", {}),
    "unet of xception": ("xception", {}),
    "unetplusplus": ("efficientnet-b0", {}),
    "manet": ("resnet18", {}),
    "linknet": ("dpn68", {}),
    "fpn": ("densenet121", {}),
    "fpn of one scale": ("mobileone_s0", {"decoder_merge_policy": "cat"}),
    "pspnet": ("vgg11_bn", {}),
    "pan": ("resnet18", {}),
    "deeplabv3": ("resnet18", {}),
    "deeplabv3plus": ("mobilenet_v2", {}),
    "upernet": ("resnet18", {}),
    "segformer": ("mit_b0", {}),
}
#: pan halves what it sees seven times
SEGMENTATION_SIZES = {"pan": 128}


def _open_clip() -> Iterator[Case]:
    from open_clip import coca_model, model

    text = {
        "context_length": 10,
        "vocab_size": 50,
        "width": 32,
        "heads": 4,
        "layers": 2,
    }
    vision = {
        "image_size": 32,
        "patch_size": 8,
        "width": 32,
        "layers": 2,
        "head_width": 8,
    }

    def clip(more: dict[str, Any], cls: Any = model.CLIP, **options: Any) -> nn.Module:
        return cls(
            embed_dim=16,
            vision_cfg={**vision, **more},
            text_cfg={**text, **options.pop("text", {})},
            **options,
        )

    def against_texts(m: nn.Module, x: Tensor) -> Tensor:
        texts = m.encode_text(torch.arange(1, 31).view(3, 10), normalize=True)
        return 10 * m.encode_image(x, normalize=True) @ texts.T

    def against_pictures(m: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
        x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        kind = next(m.parameters()).dtype
        images = m.encode_image(x.to(kind), normalize=True)
        return 10 * m.encode_text(ids, normalize=True) @ images.T

    for name, (more, options) in OPEN_CLIP.items():
        make = functools.partial(clip, more, **options)
        draw = pictures(160 if "timm" in name else 32)  # what timm's model is made for
        yield Case(name=name, make=make, draw=draw, call=against_texts)
    for name, further in {
        "texts": {},
        "texts, the last token pooled": {"text": {"pool_type": "last"}},
        "texts, a class token": {
            "text": {"embed_cls": True},
            "cls": model.CustomTextCLIP,
        },
        "texts without a causal mask": {"text": {"no_causal_mask": True}},
    }.items():
        make = functools.partial(clip, {}, **further)
        yield Case(name=name, make=make, draw=words(), call=against_pictures)
    yield Case(
        name="CoCa: the next token",
        make=lambda: coca_model.CoCa(
            embed_dim=32,
            multimodal_cfg=coca_model.MultimodalCfg(**{**text, "context_length": 9}),
            text_cfg={
                **text,
                "embed_cls": True,
                "output_tokens": True,
                "context_length": 9,
            },
            vision_cfg={
                **vision,
                "attentional_pool": True,
                "output_tokens": True,
                "attn_pooler_heads": 4,
                "attn_pooler_queries": 8,
            },
        ),
        draw=pictures(),
        call=lambda m, x: m(x, torch.arange(1, 10).expand(len(x), 9))["logits"],
    )


#: what is varied -> options of the vision tower, options of the model
OPEN_CLIP: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ViT": ({}, {}),
    "ViT with QuickGELU": ({}, {"quick_gelu": True}),
    "ViT, mean pooled": ({"pool_type": "avg", "ls_init_value": 0.1}, {}),
    "ViT with an attention pool": (
        {"attentional_pool": True, "attn_pooler_heads": 4, "attn_pooler_queries": 4},
        {},
    ),
    "ViT with sinusoidal positions": ({"pos_embed_type": "sin_cos_2d"}, {}),
    "ResNet": ({"layers": (1, 1, 1, 1), "width": 16, "head_width": 16}, {}),
    "ViT of timm": (
        {"timm_model_name": "test_vit3", "timm_pool": "map", "timm_proj": "linear"},
        {},
    ),
}


def _esm() -> Iterator[Case]:
    import argparse

    import esm

    alphabet = esm.data.Alphabet.from_architecture

    def protein(architecture: str, **options: Any) -> nn.Module:
        arguments = argparse.Namespace(
            arch="roberta_large",
            layers=2,
            embed_dim=32,
            ffn_embed_dim=64,
            attention_heads=4,
            logit_bias=True,
            dropout=0.0,
            attention_dropout=0.0,
            activation_dropout=0.0,
            max_positions=32,
            max_tokens=64,
            max_tokens_per_msa=1024,
            embed_positions_msa=True,
            final_bias=True,
            token_dropout=False,
            emb_layer_norm_before=True,
            **options,
        )
        if architecture == "msa_transformer":
            return esm.MSATransformer(arguments, alphabet("msa_transformer"))
        return esm.ProteinBertModel(arguments, alphabet(architecture))

    for name, make in {
        "ESM-2": lambda: esm.ESM2(2, 32, 4, token_dropout=False),
        "ESM-2 with token dropout": lambda: esm.ESM2(2, 32, 4),
        "ESM-1b": lambda: protein("ESM-1b"),
    }.items():
        yield Case(
            name=name,
            make=make,
            draw=lambda draw: draw(2, 10, below=20) + 4,
            call=lambda m, ids, mask: m(torch.where(mask, ids, m.padding_idx))[
                "logits"
            ],
        )
    yield Case(
        name="ESM-2, contacts",
        make=lambda: esm.ESM2(2, 32, 4, token_dropout=False),
        draw=lambda draw: draw(2, 10, below=20) + 4,
        call=lambda m, ids, mask: torch.logit(
            m(ids, return_contacts=True)["contacts"][:, 0]
        ),
        refused=REFUSED["ESM-2, contacts"],
    )
    yield Case(
        name="MSA transformer",
        make=lambda: protein("msa_transformer"),
        draw=lambda draw: draw(2, 3, 8, below=20) + 4,
        call=lambda m, ids, mask: m(ids)["logits"][:, 0],
    )


# --- PyG: two graphs of six nodes at once, side by side in one

_EDGES = torch.tensor(
    [
        [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 0, 0, 3],
        [1, 0, 2, 1, 3, 2, 4, 3, 5, 4, 0, 5, 3, 0],
    ]
)


def edges(x: Tensor) -> Tensor:
    """Return the edges of as many equal graphs as there are examples."""
    offsets = 6 * torch.arange(len(x)).repeat_interleave(_EDGES.shape[1])
    return _EDGES.repeat(1, len(x)) + offsets


def of_edges(x: Tensor, features: int = 4, seed: int = 2) -> Tensor:
    """Return features of every edge, alike in each graph."""
    return like(x, _EDGES.shape[1], features, seed=seed).flatten(0, 1)


def kinds(x: Tensor, count: int, of: int) -> Tensor:
    """Return a kind for each of ``of`` nodes or edges of every graph."""
    return (torch.arange(of) % count).repeat(len(x))


def _graph(
    model: nn.Module, x: Tensor, call: Callable[..., Any] | None = None
) -> Tensor:
    """Call a layer on graphs and take the mean over the nodes of each."""
    nodes = x.flatten(0, 1)
    out = model(nodes, edges(x)) if call is None else call(model, nodes, x)
    return out.view(len(x), -1, out.shape[-1]).mean(1)


def _pyg() -> Iterator[Case]:
    import torch_geometric.nn as g

    def mlp(inside: int = 8, out: int = 8) -> nn.Module:
        return nn.Sequential(nn.Linear(inside, 8), nn.ReLU(), nn.Linear(8, out))

    degrees = torch.tensor([0, 0, 4, 2])
    plain: dict[str, Callable[[], nn.Module]] = {
        "AGNNConv": lambda: g.AGNNConv(),
        "AntiSymmetricConv": lambda: g.AntiSymmetricConv(8),
        "APPNP": lambda: g.APPNP(3, 0.1),
        "ARMAConv": lambda: g.ARMAConv(8, 8, num_stacks=2, num_layers=2),
        "CGConv": lambda: g.CGConv(8),
        "ChebConv": lambda: g.ChebConv(8, 8, 3),
        "ClusterGCNConv": lambda: g.ClusterGCNConv(8, 8),
        "DirGNNConv": lambda: g.DirGNNConv(g.SAGEConv(8, 8)),
        "EdgeConv": lambda: g.EdgeConv(mlp(16)),
        "EGConv": lambda: g.EGConv(8, 8, aggregators=["sum", "max"], num_heads=2),
        "FeaStConv": lambda: g.FeaStConv(8, 8, heads=2),
        "FiLMConv": lambda: g.FiLMConv(8, 8),
        "GatedGraphConv": lambda: g.GatedGraphConv(8, 2),
        "GATConv": lambda: g.GATConv(8, 4, heads=2),
        "GATv2Conv": lambda: g.GATv2Conv(8, 4, heads=2),
        "GCNConv": lambda: g.GCNConv(8, 8),
        "GENConv, softmax": lambda: g.GENConv(8, 8, learn_t=True),
        "GENConv, powermean": lambda: g.GENConv(8, 8, aggr="powermean"),
        "GeneralConv": lambda: g.GeneralConv(8, 8, attention=True, heads=2),
        "GINConv": lambda: g.GINConv(mlp(), train_eps=True),
        "GPSConv": lambda: g.GPSConv(8, g.GCNConv(8, 8), heads=2),
        "GPSConv, Performer": lambda: g.GPSConv(
            8, g.GCNConv(8, 8), heads=2, attn_type="performer"
        ),
        "GraphConv, max": lambda: g.GraphConv(8, 8, aggr="max"),
        "LEConv": lambda: g.LEConv(8, 8),
        "LGConv": lambda: g.LGConv(),
        "MFConv": lambda: g.MFConv(8, 8),
        "MixHopConv": lambda: g.MixHopConv(8, 8),
        "PNAConv": lambda: g.PNAConv(
            8,
            8,
            aggregators=["mean", "min", "max", "std"],
            scalers=["identity", "amplification", "attenuation"],
            deg=degrees,
        ),
        "ResGatedGraphConv": lambda: g.ResGatedGraphConv(8, 8),
        "SAGEConv": lambda: g.SAGEConv(8, 8, normalize=True),
        "SAGEConv, median": lambda: g.SAGEConv(8, 8, aggr="median"),
        "SAGEConv, softmax": lambda: g.SAGEConv(8, 8, aggr="softmax"),
        "SAGEConv, several": lambda: g.SAGEConv(8, 8, aggr=["mean", "var", "mul"]),
        "SGConv": lambda: g.SGConv(8, 8, K=2),
        "SSGConv": lambda: g.SSGConv(8, 8, alpha=0.1, K=2),
        "SuperGATConv": lambda: g.SuperGATConv(8, 4, heads=2),
        "TAGConv": lambda: g.TAGConv(8, 8),
        "TransformerConv": lambda: g.TransformerConv(8, 4, heads=2, beta=True),
        "GCN": lambda: g.GCN(8, 16, 2, 5, norm="layer"),
        "GraphSAGE": lambda: g.GraphSAGE(8, 16, 2, 5, jk="cat"),
        "GIN": lambda: g.GIN(8, 16, 2, 5, norm="batch"),
        "GAT": lambda: g.GAT(8, 16, 2, 5, heads=2, v2=True),
        "GAT, a maximum of layers": lambda: g.GAT(8, 16, 2, 5, jk="max"),
        "GraphSAGE, an LSTM of layers": lambda: g.GraphSAGE(8, 16, 2, 5, jk="lstm"),
        "EdgeCNN": lambda: g.EdgeCNN(8, 16, 2, 5),
        "GraphUNet": lambda: g.GraphUNet(8, 16, 5, depth=2),
        "ARLinkPredictor": lambda: g.GCN(8, 16, 2, 5, norm="graph"),
    }
    for name, make in plain.items():
        yield Case(name=name, make=make, draw=floats(6, 8), call=_graph)
    called: dict[str, tuple[Callable[[], nn.Module], Callable[..., Any]]] = {
        "FAConv": (lambda: g.FAConv(8), lambda m, n, x: m(n, n, edges(x))),
        "GCN2Conv": (
            lambda: g.GCN2Conv(8, 0.1, theta=0.5, layer=1),
            lambda m, n, x: m(n, n, edges(x)),
        ),
        "GINEConv": (
            lambda: g.GINEConv(mlp(), edge_dim=4),
            lambda m, n, x: m(n, edges(x), of_edges(x)),
        ),
        "NNConv": (
            lambda: g.NNConv(8, 8, mlp(4, 64)),
            lambda m, n, x: m(n, edges(x), of_edges(x)),
        ),
        "GMMConv": (
            lambda: g.GMMConv(8, 8, dim=4, kernel_size=2),
            lambda m, n, x: m(n, edges(x), of_edges(x)),
        ),
        "PDNConv": (
            lambda: g.PDNConv(8, 8, edge_dim=4, hidden_channels=8),
            lambda m, n, x: m(n, edges(x), of_edges(x)),
        ),
        "GATConv with features of edges": (
            lambda: g.GATConv(8, 4, heads=2, edge_dim=4),
            lambda m, n, x: m(n, edges(x), of_edges(x)),
        ),
        "RGCNConv": (
            lambda: g.RGCNConv(8, 8, num_relations=3, num_bases=2),
            lambda m, n, x: m(n, edges(x), kinds(x, 3, 14)),
        ),
        "FastRGCNConv": (
            lambda: g.FastRGCNConv(8, 8, num_relations=3),
            lambda m, n, x: m(n, edges(x), kinds(x, 3, 14)),
        ),
        "RGATConv": (
            lambda: g.RGATConv(8, 8, num_relations=3),
            lambda m, n, x: m(n, edges(x), kinds(x, 3, 14)),
        ),
        "HEATConv": (
            lambda: g.HEATConv(8, 8, 2, 3, 4, 4, 4),
            lambda m, n, x: m(
                n, edges(x), kinds(x, 2, 6), kinds(x, 3, 14), of_edges(x)
            ),
        ),
        "HypergraphConv": (
            lambda: g.HypergraphConv(8, 8),
            lambda m, n, x: m(n, edges(x)),
        ),
        "SignedConv": (
            lambda: g.SignedConv(8, 8, first_aggr=True),
            lambda m, n, x: m(n, edges(x)[:, ::2], edges(x)[:, 1::2]),
        ),
        "PointNetConv": (
            lambda: g.PointNetConv(mlp(11), mlp()),
            lambda m, n, x: m(n, like(x, 6, 3).flatten(0, 1), edges(x)),
        ),
        "PointNetConv: its positions": (
            lambda: g.PointNetConv(mlp(11), mlp()),
            lambda m, n, x: m(like(x, 6, 8).flatten(0, 1), n[:, :3], edges(x)),
        ),
        "PointTransformerConv": (
            lambda: g.PointTransformerConv(8, 8),
            lambda m, n, x: m(n, like(x, 6, 3).flatten(0, 1), edges(x)),
        ),
        "PointGNNConv": (
            lambda: g.PointGNNConv(mlp(8, 3), mlp(11, 8), mlp()),
            lambda m, n, x: m(n, like(x, 6, 3).flatten(0, 1), edges(x)),
        ),
        "AttentiveFP": (
            lambda: g.AttentiveFP(8, 16, 5, edge_dim=4, num_layers=2, num_timesteps=2),
            lambda m, n, x: m(n, edges(x), of_edges(x), kinds(x, 1, 6) + _graphs(x)),
        ),
        "PMLP": (
            lambda: g.PMLP(8, 16, 5, 2, norm=False),
            lambda m, n, x: m(n, edges(x)),
        ),
        "LINKX": (
            lambda: g.LINKX(12, 8, 16, 5, 2),
            lambda m, n, x: m(n, edges(x)),
        ),
        "SGFormer": (
            lambda: g.SGFormer(8, 16, 5),
            lambda m, n, x: log_odds(m(n, edges(x), _graphs(x))),
        ),
        "Polynormer": (
            lambda: g.Polynormer(8, 16, 5),
            lambda m, n, x: log_odds(m(n, edges(x), _graphs(x))),
        ),
        "NeuralFingerprint": (
            lambda: g.NeuralFingerprint(8, 16, 5, 2),
            lambda m, n, x: m(n, edges(x), _graphs(x)),
        ),
        "DeepGCNLayer": (
            lambda: g.DeepGCNLayer(g.GENConv(8, 8), nn.LayerNorm(8), nn.ReLU()),
            lambda m, n, x: m(n, edges(x)),
        ),
        "TopKPooling": (
            lambda: g.TopKPooling(8, ratio=4),
            lambda m, n, x: m(n, edges(x), batch=_graphs(x))[0],
        ),
        "SAGPooling": (
            lambda: g.SAGPooling(8, ratio=4),
            lambda m, n, x: m(n, edges(x), batch=_graphs(x))[0],
        ),
        "ASAPooling": (
            lambda: g.ASAPooling(8, ratio=4),
            lambda m, n, x: m(n, edges(x), batch=_graphs(x))[0],
        ),
        "MemPooling": (
            lambda: g.MemPooling(8, 8, 2, 3),
            lambda m, n, x: m(n, _graphs(x))[0],
        ),
    }
    for name, (make, call) in called.items():
        yield Case(
            name=name,
            make=make,
            draw=floats(6, 8),
            call=functools.partial(_graph, call=call),
            refused=REFUSED.get(name),
        )
    pooled: dict[str, Callable[[], nn.Module]] = {
        "AttentionalAggregation": lambda: g.AttentionalAggregation(mlp(8, 1)),
        "DeepSetsAggregation": lambda: g.DeepSetsAggregation(mlp(), mlp()),
        "GraphMultisetTransformer": lambda: g.GraphMultisetTransformer(8, 3, heads=2),
        "GRUAggregation": lambda: g.GRUAggregation(8, 8),
        "LCMAggregation": lambda: g.LCMAggregation(8, 8, project=False),
        "LSTMAggregation": lambda: g.LSTMAggregation(8, 8),
        "MLPAggregation": lambda: g.MLPAggregation(8, 5, 6, num_layers=1),
        "MedianAggregation": lambda: g.MedianAggregation(),
        "PowerMeanAggregation": lambda: g.PowerMeanAggregation(learn=True),
        "QuantileAggregation": lambda: g.QuantileAggregation([0.3, 0.7]),
        "Set2Set": lambda: g.Set2Set(8, 2),
        "SetTransformerAggregation": lambda: g.SetTransformerAggregation(8, heads=2),
        "SoftmaxAggregation": lambda: g.SoftmaxAggregation(learn=True),
        "SortAggregation": lambda: g.SortAggregation(4),
        "StdAggregation": lambda: g.StdAggregation(),
        "MulAggregation": lambda: g.aggr.MulAggregation(),
        "VariancePreservingAggregation": lambda: g.VariancePreservingAggregation(),
    }
    for name, make in pooled.items():
        yield Case(
            name=name,
            make=make,
            draw=floats(6, 8),
            call=lambda m, x: m(x.flatten(0, 1), _graphs(x), dim_size=len(x)),
        )
    norms: dict[str, Callable[[], nn.Module]] = {
        "GraphNorm": lambda: g.GraphNorm(8),
        "PairNorm": lambda: g.PairNorm(),
        "MeanSubtractionNorm": lambda: g.MeanSubtractionNorm(),
        "DiffGroupNorm": lambda: g.DiffGroupNorm(8, 2),
        "MessageNorm": lambda: g.MessageNorm(True),
        "GraphSizeNorm": lambda: g.GraphSizeNorm(),
        "InstanceNorm": lambda: g.InstanceNorm(8, affine=True),
        "LayerNorm of a graph": lambda: g.LayerNorm(8),
    }
    for name, make in norms.items():
        yield Case(
            name=name,
            make=make,
            draw=floats(6, 8),
            call=functools.partial(_graph, call=_normalised),
        )
    molecules: dict[str, Callable[[], nn.Module]] = {
        "SchNet: positions": lambda: g.SchNet(
            16, 16, 2, 8, interaction_graph=_every_pair
        ),
    }
    for name, make in molecules.items():
        yield Case(
            name=name,
            make=make,
            draw=floats(6, 3),
            call=lambda m, x: m(kinds(x, 4, 6) + 1, x.flatten(0, 1), _graphs(x)),
        )


def _graphs(x: Tensor) -> Tensor:
    return torch.arange(len(x)).repeat_interleave(6)


def _normalised(model: nn.Module, nodes: Tensor, x: Tensor) -> Tensor:
    weights = like(x, 6, 8).flatten(0, 1)
    name = type(model).__name__
    if name == "MessageNorm":
        return model(nodes, weights) * weights
    return (model(nodes) if name == "DiffGroupNorm" else model(nodes, _graphs(x))) * (
        weights
    )


def _every_pair(positions: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
    """Return all edges within each graph, and how long they are."""
    same = (batch[:, None] == batch) & ~torch.eye(len(batch), dtype=torch.bool)
    row, column = same.nonzero().T
    return torch.stack((row, column)), (positions[row] - positions[column]).norm(dim=-1)


def _monai() -> Iterator[Case]:
    import monai.networks.nets  # noqa: F401

    for path, (shape, options) in MONAI.items():
        yield Case(
            name=path,
            make=functools.partial(_made, f"monai.networks.nets.{path}", options),
            draw=floats(*shape),
            call=_first_mean,
            refused=REFUSED.get(path),
        )


def _first_mean(model: nn.Module, x: Tensor) -> Tensor:
    """Take the first output, and its mean over the places."""
    out = _sampled(model, x)
    while not isinstance(out, Tensor):
        out = next(iter(out.values())) if isinstance(out, dict) else out[0]
    return out if out.dim() == 2 else out.flatten(2).mean(-1)


_FLAT = {"spatial_dims": 2, "in_channels": 1, "out_channels": 3}
_UNET = {**_FLAT, "channels": (8, 16), "strides": (2,)}
_KL = {
    "spatial_dims": 2,
    "channels": (8, 8),
    "attention_levels": (False, True),
    "norm_num_groups": 4,
    "num_res_blocks": (1, 1),
}
#: class -> shape of an example, options
MONAI: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "AttentionUnet": ((1, 32, 32), _UNET),
    "AutoEncoder": ((1, 32, 32), {**_UNET, "strides": (2, 2)}),
    "BasicUNet": ((1, 32, 32), {**_FLAT, "features": (8, 8, 8, 8, 8, 8)}),
    "BasicUNetPlusPlus": ((1, 32, 32), {**_FLAT, "features": (8, 8, 8, 8, 8, 8)}),
    "Classifier": (
        (1, 16, 16),
        {"in_shape": (1, 16, 16), "classes": 3, "channels": (4, 8), "strides": (2, 2)},
    ),
    "Regressor": (
        (1, 16, 16),
        {
            "in_shape": (1, 16, 16),
            "out_shape": (3,),
            "channels": (4, 8),
            "strides": (2, 2),
        },
    ),
    "DenseNet": (
        (1, 32, 32),
        {**_FLAT, "init_features": 8, "growth_rate": 4, "block_config": (2, 2)},
    ),
    "DynUNet": (
        (1, 16, 16),
        {
            **_FLAT,
            "kernel_size": (3, 3, 3),
            "strides": (1, 2, 2),
            "upsample_kernel_size": (2, 2),
            "filters": (4, 8, 8),
        },
    ),
    "EfficientNetBN": (
        (1, 64, 64),
        {
            "model_name": "efficientnet-b0",
            "pretrained": False,
            "spatial_dims": 2,
            "in_channels": 1,
            "num_classes": 3,
        },
    ),
    "FullyConnectedNet": (
        (6,),
        {"in_channels": 6, "out_channels": 3, "hidden_channels": (8, 8)},
    ),
    "HighResNet": ((1, 16, 16), _FLAT),
    "MedNeXt": (
        (1, 32, 32),
        {
            **_FLAT,
            "init_filters": 4,
            "blocks_down": (1, 1, 1, 1),
            "blocks_up": (1, 1, 1, 1),
            "blocks_bottleneck": 1,
            "encoder_expansion_ratio": (2, 2, 2, 2),
            "decoder_expansion_ratio": (2, 2, 2, 2),
            "bottleneck_expansion_ratio": 2,
        },
    ),
    "ResNet": (
        (1, 32, 32),
        {
            "block": "basic",
            "layers": (1, 1, 1, 1),
            "block_inplanes": (4, 8, 8, 8),
            "spatial_dims": 2,
            "n_input_channels": 1,
            "num_classes": 3,
        },
    ),
    "restormer.Restormer": (
        (1, 16, 16),
        {
            **_FLAT,
            "out_channels": 1,
            "dim": 8,
            "num_blocks": (1, 1, 1),
            "heads": (1, 2, 2),
            "num_refinement_blocks": 1,
        },
    ),
    "SegResNet": (
        (1, 16, 16),
        {**_FLAT, "init_filters": 8, "blocks_down": (1, 1), "blocks_up": (1,)},
    ),
    "SegResNetDS": ((1, 16, 16), {**_FLAT, "init_filters": 8, "blocks_down": (1, 1)}),
    "SEResNet50": (
        (1, 64, 64),
        {"spatial_dims": 2, "in_channels": 1, "num_classes": 3, "layers": (1, 1, 1, 1)},
    ),
    "SwinUNETR": (
        (1, 64, 64),
        {
            **_FLAT,
            "feature_size": 12,
            "depths": (1, 1, 1, 1),
            "num_heads": (1, 1, 2, 2),
            "window_size": 4,
        },
    ),
    "UNet": ((1, 32, 32), {**_UNET, "num_res_units": 1}),
    "UNETR": (
        (1, 32, 32),
        {
            "in_channels": 1,
            "out_channels": 3,
            "img_size": (32, 32),
            "feature_size": 4,
            "hidden_size": 24,
            "mlp_dim": 48,
            "num_heads": 4,
            "spatial_dims": 2,
        },
    ),
    "ViT": (
        (1, 32, 32),
        {
            "in_channels": 1,
            "img_size": (32, 32),
            "patch_size": (8, 8),
            "hidden_size": 24,
            "mlp_dim": 48,
            "num_layers": 2,
            "num_heads": 4,
            "classification": True,
            "num_classes": 3,
            "spatial_dims": 2,
            "post_activation": None,
        },
    ),
    "VNet": ((1, 32, 32), {**_FLAT, "dropout_dim": 2}),
    "AutoencoderKL": ((1, 16, 16), {**_KL, "latent_channels": 3}),
    "Quicknat": (
        (1, 32, 32),
        {"num_classes": 3, "num_channels": 1, "num_filters": 8, "se_block": None},
    ),
    "RegUNet": (
        (1, 16, 16),
        {**_FLAT, "num_channel_initial": 4, "depth": 2},
    ),
    "VoxelMorphUNet": (
        (2, 16, 16),
        {
            "spatial_dims": 2,
            "in_channels": 2,
            "unet_out_channels": 8,
            "channels": (8, 8),
            "final_conv_channels": (8,),
        },
    ),
    "PatchDiscriminator": (
        (1, 32, 32),
        {"spatial_dims": 2, "channels": 4, "in_channels": 1, "num_layers_d": 2},
    ),
    "VQVAE": (
        (1, 16, 16),
        {
            **_FLAT,
            "channels": (8, 8),
            "num_res_layers": 1,
            "num_res_channels": (8, 8),
            "downsample_parameters": ((2, 4, 1, 1), (2, 4, 1, 1)),
            "upsample_parameters": ((2, 4, 1, 1, 0), (2, 4, 1, 1, 0)),
            "num_embeddings": 8,
            "embedding_dim": 8,
        },
    ),
}


# --- many small libraries


def _lucidrains() -> Iterator[Case]:
    def text(model: nn.Module, ids: Tensor, mask: Tensor) -> Any:
        return model(ids, mask=mask)

    for path, (options, draw, *call) in LUCIDRAINS.items():
        yield from _of_path(
            path, options, draw, [text if c == "mask" else c for c in call]
        )


def _of_path(
    path: str, options: dict[str, Any], draw: Any, call: list[Any]
) -> Iterator[Case]:
    """Yield the case of a path, if its library is installed."""
    library, name = path.split(".", 1)
    with contextlib.suppress(ImportError):
        importlib.import_module(library)
        yield Case(
            name=name.replace(" ,", ",").replace(" :", ":"),
            make=functools.partial(_made, path.split(" ")[0], options),
            draw=draw,
            call=call[0] if call else None,
            refused=REFUSED.get(path),
            library=library,
        )


_LM = {"num_tokens": 50, "dim": 32, "depth": 2, "heads": 4}
_16 = words(16)

#: path, perhaps with what is varied -> options, inputs, how it is called
LUCIDRAINS: dict[str, tuple[Any, ...]] = {
    "local_attention.transformer.LocalTransformer": (
        _LM | {"max_seq_len": 16, "local_attn_window_size": 4},
        _16,
        "mask",
    ),
    "performer_pytorch.PerformerLM": (_LM | {"max_seq_len": 16}, _16, "mask"),
    "performer_pytorch.PerformerLM , ReLU features": (
        _LM | {"max_seq_len": 16, "generalized_attention": True, "use_rezero": True},
        _16,
        "mask",
    ),
    "performer_pytorch.PerformerLM , causal": (
        _LM | {"max_seq_len": 16, "causal": True, "ff_glu": True},
        _16,
    ),
    "performer_pytorch.PerformerLM , reversible": (
        _LM | {"max_seq_len": 16, "reversible": True},
        _16,
    ),
    "linformer.LinformerLM": (_LM | {"seq_len": 16, "k": 4}, _16),
    "linformer.LinformerLM , reversible": (
        _LM | {"seq_len": 16, "k": 4, "reversible": True},
        _16,
    ),
    "reformer_pytorch.ReformerLM": (
        _LM | {"max_seq_len": 16, "bucket_size": 4, "n_hashes": 2, "causal": True},
        _16,
        lambda m, ids, mask: _sampled(m, ids),
    ),
    "perceiver_pytorch.Perceiver": (
        {
            "num_freq_bands": 2,
            "depth": 2,
            "max_freq": 4.0,
            "num_latents": 4,
            "latent_dim": 16,
            "latent_heads": 2,
            "num_classes": 5,
            "self_per_cross_attn": 1,
        },
        lambda draw: draw(2, 8, 8, 3),
    ),
    "perceiver_pytorch.PerceiverIO": (
        {
            "depth": 2,
            "dim": 8,
            "queries_dim": 8,
            "logits_dim": 5,
            "num_latents": 4,
            "latent_dim": 16,
        },
        floats(6, 8),
        lambda m, x: m(x, queries=like(x, 3, 8)),
    ),
    "tab_transformer_pytorch.TabTransformer": (
        {
            "mlp_act": nn.ReLU(),
            "categories": (4, 5),
            "num_continuous": 6,
            "dim": 16,
            "dim_out": 3,
            "depth": 2,
            "heads": 4,
        },
        floats(6),
        lambda m, x: m(torch.tensor([[1, 2]]).expand(len(x), 2), x),
    ),
    "tab_transformer_pytorch.FTTransformer": (
        {
            "categories": (4, 5),
            "num_continuous": 6,
            "dim": 16,
            "dim_out": 3,
            "depth": 2,
            "heads": 4,
        },
        floats(6),
        lambda m, x: m(torch.tensor([[1, 2]]).expand(len(x), 2), x),
    ),
    "nystrom_attention.Nystromformer": (
        {"dim": 32, "depth": 2, "heads": 4, "num_landmarks": 4},
        floats(8, 32),
    ),
    "lambda_networks.LambdaLayer": (
        {"dim": 8, "dim_out": 8, "r": 5, "dim_k": 4, "heads": 2, "dim_u": 1},
        floats(8, 8, 8),
    ),
    "halonet_pytorch.HaloAttention": (
        {"dim": 8, "block_size": 4, "halo_size": 2, "dim_head": 4, "heads": 2},
        floats(8, 8, 8),
    ),
    "axial_attention.AxialAttention": (
        {"dim": 8, "dim_index": 1, "heads": 2, "num_dimensions": 2},
        floats(8, 4, 4),
    ),
    "axial_attention.AxialImageTransformer": (
        {"dim": 8, "depth": 2, "heads": 2, "axial_pos_emb_shape": (4, 4)},
        floats(8, 4, 4),
    ),
    "MEGABYTE_pytorch.MEGABYTE": (
        {
            "num_tokens": 50,
            "dim": (32, 16),
            "depth": (2, 2),
            "max_seq_len": (4, 4),
            "heads": 4,
            "dim_head": 8,
            "flash_attn": False,
        },
        _16,
    ),
    "conformer.Conformer": (
        {"dim": 16, "depth": 2, "dim_head": 8, "heads": 2, "conv_kernel_size": 3},
        floats(8, 16),
    ),
    "g_mlp_pytorch.gMLP": (_LM | {"seq_len": 16, "attn_dim": 8, "heads": 1}, _16),
    "g_mlp_pytorch.gMLPVision": (
        {"image_size": 32, "patch_size": 8, "num_classes": 5, "dim": 32, "depth": 2},
        pictures(),
    ),
    "mlp_mixer_pytorch.MLPMixer": (
        {
            "image_size": 32,
            "channels": 3,
            "patch_size": 8,
            "num_classes": 5,
            "dim": 32,
            "depth": 2,
        },
        pictures(),
    ),
    "egnn_pytorch.EGNN": (
        {"dim": 8},
        floats(6, 8),
        lambda m, x: m(x, like(x, 6, 3))[0].mean(1),
    ),
    "egnn_pytorch.EGNN : positions": (
        {"dim": 8},
        floats(6, 3),
        lambda m, x: m(like(x, 6, 8), x)[0].mean(1),
    ),
    "egnn_pytorch.EGNN , the nearest": (
        {"dim": 8, "num_nearest_neighbors": 3, "norm_coors": True, "soft_edges": True},
        floats(6, 8),
        lambda m, x: m(x, like(x, 6, 3))[0].mean(1),
    ),
    "hourglass_transformer_pytorch.HourglassTransformerLM": (
        {
            "num_tokens": 50,
            "dim": 32,
            "max_seq_len": 16,
            "depth": (1, 1, 1),
            "shorten_factor": 2,
            "heads": 4,
            "causal": False,
        },
        _16,
    ),
    "flash_pytorch.FLASHTransformer": (
        {
            "num_tokens": 50,
            "dim": 32,
            "depth": 2,
            "group_size": 4,
            "query_key_dim": 8,
            "causal": True,
            "norm_type": "scalenorm",
        },
        _16,
        "mask",
    ),
    "charformer_pytorch.GBST": (
        {
            "num_tokens": 50,
            "dim": 16,
            "max_block_size": 4,
            "downsample_factor": 4,
            "score_consensus_attn": True,
        },
        _16,
        lambda m, ids, mask: m(ids, mask=mask)[0].mean(1),
    ),
    "etsformer_pytorch.ETSFormer": (
        {"time_features": 4, "model_dim": 16, "layers": 2, "heads": 2, "K": 2},
        floats(16, 4),
        lambda m, x: m(x, num_steps_forecast=3),
    ),
    "timesformer_pytorch.TimeSformer": (
        {
            "dim": 32,
            "image_size": 32,
            "patch_size": 8,
            "num_frames": 4,
            "num_classes": 5,
            "depth": 2,
            "heads": 4,
        },
        floats(4, 3, 32, 32),
    ),
    "uformer_pytorch.Uformer": (
        {
            "dim": 8,
            "stages": 2,
            "num_blocks": 1,
            "window_size": 4,
            "dim_head": 4,
            "heads": 2,
        },
        pictures(),
        lambda m, x: m(x).mean((-2, -1)),
    ),
    "bottleneck_transformer_pytorch.BottleStack": (
        {
            "dim": 8,
            "fmap_size": 8,
            "dim_out": 16,
            "heads": 2,
            "rel_pos_emb": True,
            "num_layers": 2,
        },
        floats(8, 8, 8),
        lambda m, x: m(x).mean((-2, -1)),
    ),
    "soft_moe_pytorch.SoftMoE": (
        {"dim": 16, "seq_len": 8, "num_experts": 2, "geglu": True},
        floats(8, 16),
    ),
    "sinkhorn_transformer.SinkhornTransformerLM": (
        _LM | {"max_seq_len": 16, "bucket_size": 4},
        _16,
        lambda m, ids, mask: _sampled(m, ids),
    ),
    "mixture_of_experts.MoE": (
        {"dim": 16, "num_experts": 2},
        floats(8, 16),
        lambda m, x: _sampled(lambda z: m(z)[0], x),
    ),
    "minGRU_pytorch.minGRU": ({"dim": 16, "expansion_factor": 1.5}, floats(8, 16)),
    "gateloop_transformer.Transformer": (
        _LM | {"use_gate_looped_attn": True},
        _16,
    ),
    "isab_pytorch.ISAB": (
        {"dim": 16, "heads": 2, "num_latents": 3},
        floats(8, 16),
        lambda m, x: m(x)[0],
    ),
    "feedback_transformer_pytorch.FeedbackTransformer": (
        _LM | {"seq_len": 2, "mem_len": 8},
        _16,
    ),
    "point_transformer_pytorch.PointTransformerLayer": (
        {"dim": 8, "pos_mlp_hidden_dim": 8, "attn_mlp_hidden_mult": 2},
        floats(6, 8),
        lambda m, x: m(x, like(x, 6, 3)),
    ),
    "point_transformer_pytorch.PointTransformerLayer , neighbours": (
        {
            "dim": 8,
            "pos_mlp_hidden_dim": 8,
            "attn_mlp_hidden_mult": 2,
            "num_neighbors": 3,
        },
        floats(6, 8),
        lambda m, x: m(x, like(x, 6, 3)),
    ),
    "graph_transformer_pytorch.GraphTransformer": (
        {
            "dim": 16,
            "depth": 2,
            "edge_dim": 4,
            "with_feedforwards": True,
            "gated_residual": True,
            "rel_pos_emb": True,
        },
        floats(6, 16),
        lambda m, x: m(x, like(x, 6, 6, 4))[0].mean(1),
    ),
    "slot_attention.SlotAttention": (
        {"num_slots": 3, "dim": 16, "iters": 2},
        floats(8, 16),
        lambda m, x: _sampled(m, x),
    ),
    "iTransformer.iTransformer": (
        {
            "num_variates": 4,
            "lookback_len": 8,
            "dim": 16,
            "depth": 2,
            "heads": 2,
            "pred_length": 3,
            "num_tokens_per_variate": 1,
            "use_reversible_instance_norm": True,
        },
        floats(8, 4),
        lambda m, x: m(x).mT,
    ),
    "vector_quantize_pytorch.VectorQuantize": (
        {"dim": 8, "codebook_size": 16},
        floats(6, 8),
        lambda m, x: (m(x)[0] * like(x, 6, 8)).mean(1),
    ),
    "vector_quantize_pytorch.VectorQuantize , rotated": (
        {"dim": 8, "codebook_size": 16, "rotation_trick": True},
        floats(6, 8),
        lambda m, x: (m(x)[0] * like(x, 6, 8)).mean(1),
    ),
    "vector_quantize_pytorch.FSQ": (
        {"levels": [8, 5, 5], "dim": 8},
        floats(6, 8),
        lambda m, x: (m(x)[0] * like(x, 6, 8)).mean(1),
    ),
    "vector_quantize_pytorch.LFQ": (
        {"codebook_size": 16, "dim": 8},
        floats(6, 8),
        lambda m, x: (m(x)[0] * like(x, 6, 8)).mean(1),
    ),
    "vector_quantize_pytorch.SimVQ": (
        {"dim": 8, "codebook_size": 16},
        floats(6, 8),
        lambda m, x: (m(x)[0] * like(x, 6, 8)).mean(1),
    ),
    "fast_transformer_pytorch.FastTransformer": (
        _LM | {"max_seq_len": 16, "absolute_pos_emb": True},
        _16,
        "mask",
    ),
    "memory_efficient_attention_pytorch.transformer.Transformer": (
        _LM | {"max_seq_len": 16, "causal": True, "ff_chunks": 2},
        _16,
    ),
    "simple_hierarchical_transformer.HierarchicalTransformer": (
        _LM
        | {
            "seq_len": 16,
            "hierarchies": (1, 2),
            "window_sizes": (4, 4),
            "use_flash_attn": False,
        },
        _16,
        lambda m, ids, mask: m(ids),
    ),
    "block_recurrent_transformer_pytorch.BlockRecurrentTransformer": (
        _LM
        | {
            "max_seq_len": 16,
            "block_width": 8,
            "num_state_vectors": 4,
            "recurrent_layers": (2,),
            "use_flash_attn": False,
        },
        _16,
        lambda m, ids, mask: m(ids)[0],
    ),
    "recurrent_memory_transformer_pytorch.RecurrentMemoryTransformer": (
        _LM | {"num_memory_tokens": 2, "seq_len": 16, "use_flash_attn": False},
        _16,
        lambda m, ids, mask: m(ids)[0],
    ),
    "denoising_diffusion_pytorch.Unet": (
        {
            "dim": 8,
            "dim_mults": (1, 2),
            "flash_attn": False,
            "attn_heads": 2,
            "attn_dim_head": 4,
        },
        pictures(16),
        lambda m, x: m(x, torch.full((len(x),), 3)).mean((-2, -1)),
    ),
}


def _others() -> Iterator[Case]:
    """Libraries of one or a few models each."""
    for path, (options, draw, *call) in OTHERS.items():
        yield from _of_path(path, options, draw, call)


OTHERS: dict[str, tuple[Any, ...]] = {
    "rtdl_revisiting_models.MLP": (
        {"d_in": 6, "d_out": 3, "n_blocks": 2, "d_block": 16, "dropout": 0.1},
        floats(6),
    ),
    "rtdl_revisiting_models.ResNet": (
        {
            "d_in": 6,
            "d_out": 3,
            "n_blocks": 2,
            "d_block": 16,
            "d_hidden": 32,
            "d_hidden_multiplier": None,
            "dropout1": 0.1,
            "dropout2": 0.0,
        },
        floats(6),
    ),
    "rtdl_revisiting_models.FTTransformer": (
        {
            "n_cont_features": 6,
            "cat_cardinalities": [3],
            "d_out": 3,
            "n_blocks": 2,
            "d_block": 16,
            "attention_n_heads": 4,
            "attention_dropout": 0.0,
            "ffn_d_hidden": 32,
            "ffn_d_hidden_multiplier": None,
            "ffn_dropout": 0.0,
            "residual_dropout": 0.0,
        },
        floats(6),
        lambda m, x: m(x, torch.ones(len(x), 1, dtype=torch.long)),
    ),
    "tabm.TabM": (
        {
            "n_num_features": 6,
            "d_out": 3,
            "k": 4,
            "n_blocks": 2,
            "d_block": 16,
            "dropout": 0.0,
            "start_scaling_init": "normal",
        },
        floats(6),
        lambda m, x: m(x, None).mean(1),
    ),
    "pytorch_tabnet.tab_network.TabNet": (
        {
            "input_dim": 6,
            "output_dim": 3,
            "n_d": 4,
            "n_a": 4,
            "n_steps": 2,
            "group_attention_matrix": Later("torch.eye", (("n", 6),)),
        },
        floats(6),
        lambda m, x: m(x)[0],
    ),
    "mambapy.mamba.Mamba": (
        {
            "config": Later(
                "mambapy.mamba.MambaConfig",
                (("d_model", 16), ("n_layers", 2), ("d_state", 4), ("pscan", False)),
            )
        },
        floats(8, 16),
    ),
    "mambapy.mamba.Mamba , parallel": (
        {
            "config": Later(
                "mambapy.mamba.MambaConfig",
                (("d_model", 16), ("n_layers", 2), ("d_state", 4)),
            )
        },
        floats(8, 16),
    ),
    "torchaudio.models.Conformer": (
        {
            "input_dim": 16,
            "num_heads": 4,
            "ffn_dim": 32,
            "num_layers": 2,
            "depthwise_conv_kernel_size": 3,
        },
        floats(8, 16),
        lambda m, x: m(x, torch.full((len(x),), 8))[0],
    ),
    "torchaudio.models.DeepSpeech": (
        {"n_feature": 8, "n_hidden": 16, "n_class": 5},
        floats(1, 6, 8),
        lambda m, x: log_odds(m(x)),
    ),
    "torchaudio.models.ConvTasNet": (
        {
            "num_sources": 2,
            "enc_kernel_size": 16,
            "enc_num_feats": 16,
            "msk_num_feats": 8,
            "msk_num_hidden_feats": 16,
            "msk_num_layers": 2,
            "msk_num_stacks": 1,
        },
        floats(1, 160),
        lambda m, x: (m(x) * like(x, 2, 160)).mean(-1),
    ),
    "torchaudio.models.Emformer": (
        {
            "input_dim": 16,
            "num_heads": 4,
            "ffn_dim": 32,
            "num_layers": 2,
            "segment_length": 4,
            "right_context_length": 1,
        },
        floats(9, 16),
        lambda m, x: m(x, torch.full((len(x),), 9))[0],
    ),
    "torchaudio.models.Wav2Letter": (
        {"num_classes": 5, "input_type": "mfcc", "num_features": 8},
        floats(8, 40),
        lambda m, x: log_odds(m(x).mT),
    ),
    "torchaudio.models.wav2vec2_model": (
        {
            "extractor_mode": "layer_norm",
            "extractor_conv_layer_config": [(16, 10, 5), (16, 3, 2)],
            "extractor_conv_bias": True,
            "encoder_embed_dim": 16,
            "encoder_projection_dropout": 0.0,
            "encoder_pos_conv_kernel": 8,
            "encoder_pos_conv_groups": 2,
            "encoder_num_layers": 2,
            "encoder_num_heads": 4,
            "encoder_attention_dropout": 0.0,
            "encoder_ff_interm_features": 32,
            "encoder_ff_interm_dropout": 0.0,
            "encoder_dropout": 0.0,
            "encoder_layer_norm_first": True,
            "encoder_layer_drop": 0.0,
            "aux_num_out": 5,
        },
        floats(400),
        lambda m, x: m(x)[0],
    ),
    "torchaudio.models.HDemucs": (
        {
            "sources": ["a", "b"],
            "audio_channels": 1,
            "channels": 8,
            "depth": 4,
            "nfft": 256,
        },
        floats(1, 2048),
        lambda m, x: (m(x)[:, :, 0] * like(x, 2, 2048)).mean(-1),
    ),
    "xlstm.xLSTMBlockStack": (
        {"config": Later("tests.zoo.third_party.xlstm_configuration")},
        floats(8, 16),
    ),
    "kornia.models.vit.VisionTransformer": (
        {
            "image_size": 32,
            "patch_size": 8,
            "embed_dim": 32,
            "depth": 2,
            "num_heads": 4,
        },
        pictures(),
        lambda m, x: m(x)[:, 0],
    ),
    "kornia.feature.HardNet": ({"pretrained": False}, pictures(32, 1)),
    "kornia.feature.TFeat": ({"pretrained": False}, pictures(32, 1)),
    "kornia.feature.SOSNet": ({"pretrained": False}, pictures(32, 1)),
    "kornia.feature.HyNet": ({"pretrained": False}, pictures(32, 1)),
    "sentence_transformers.models.Pooling": (
        {"word_embedding_dimension": 8, "pooling_mode": "mean"},
        floats(6, 8),
        lambda m, x: (
            m(
                {
                    "token_embeddings": x,
                    "attention_mask": torch.ones(x.shape[:2], dtype=torch.long),
                }
            )["sentence_embedding"]
            * like(x, 8)
        ),
    ),
    "sentence_transformers.models.WeightedLayerPooling": (
        {"word_embedding_dimension": 8, "num_hidden_layers": 2, "layer_start": 1},
        floats(6, 8),
        lambda m, x: m(
            {"token_embeddings": x, "all_layer_embeddings": [x, x.tanh(), x.sin()]}
        )["token_embeddings"],
    ),
    "sentence_transformers.models.LSTM": (
        {"word_embedding_dimension": 8, "hidden_dim": 8},
        floats(6, 8),
        lambda m, x: m(
            {"token_embeddings": x, "sentence_lengths": torch.full((len(x),), 6)}
        )["token_embeddings"],
    ),
}


def xlstm_configuration() -> Any:
    """Return one block of each kind of xLSTM, as far as they run on a CPU."""
    import xlstm

    return xlstm.xLSTMBlockStackConfig(
        mlstm_block=xlstm.mLSTMBlockConfig(
            mlstm=xlstm.mLSTMLayerConfig(
                conv1d_kernel_size=4, qkv_proj_blocksize=4, num_heads=4
            )
        ),
        slstm_block=xlstm.sLSTMBlockConfig(
            slstm=xlstm.sLSTMLayerConfig(
                backend="vanilla", num_heads=4, conv1d_kernel_size=4
            ),
            feedforward=xlstm.FeedForwardConfig(proj_factor=1.3, act_fn="gelu"),
        ),
        context_length=8,
        num_blocks=2,
        embedding_dim=16,
        slstm_at=[1],
    )


def _diffusers() -> Iterator[Case]:
    import diffusers  # noqa: F401

    for name, (options, draw, call) in DIFFUSERS.items():
        yield Case(
            name=name,
            make=functools.partial(_made, f"diffusers.{name.split(' ')[0]}", options),
            draw=draw,
            call=functools.partial(_denoised, call=call),
            refused=REFUSED.get(name),
        )


def _denoised(model: nn.Module, x: Tensor, call: Callable[..., Any]) -> Tensor:
    """Read the mean over the places of what a model of noise says."""
    out = call(model, x, torch.full((len(x),), 7))
    out = out if isinstance(out, Tensor) else out[0]
    # the features of tokens stand last, those of pictures second
    return out.mean(1) if out.dim() == 3 else out.flatten(2).mean(-1)


_DIT = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 4,
    "num_layers": 2,
}
_SIDES = {
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "layers_per_block": 1,
}
_CODER = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    **_SIDES,
}


def _positions(count: int) -> Tensor:
    return torch.arange(count * 3, dtype=torch.float64).view(count, 3) % 4


#: class, perhaps with what is varied -> options, inputs, call with the time step
DIFFUSERS: dict[str, tuple[dict[str, Any], Callable[[Draw], Tensor], Any]] = {
    "DiTTransformer2DModel": (
        _DIT | {"sample_size": 8, "norm_num_groups": 4, "num_embeds_ada_norm": 10},
        pictures(8, 4),
        lambda m, x, t: m(x, t, class_labels=t).sample,
    ),
    "PixArtTransformer2DModel": (
        _DIT
        | {
            "sample_size": 8,
            "cross_attention_dim": 16,
            "norm_num_groups": 4,
            "caption_channels": 12,
            "use_additional_conditions": False,
        },
        pictures(8, 4),
        lambda m, x, t: (
            m(
                x,
                encoder_hidden_states=like(x, 5, 12),
                timestep=t,
                added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            ).sample
        ),
    ),
    "PixArtTransformer2DModel : its caption": (
        _DIT
        | {
            "sample_size": 8,
            "cross_attention_dim": 16,
            "norm_num_groups": 4,
            "caption_channels": 12,
            "use_additional_conditions": False,
        },
        floats(5, 12),
        lambda m, x, t: (
            m(
                like(x, 4, 8, 8),
                encoder_hidden_states=x,
                timestep=t,
                added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            ).sample
        ),
    ),
    "Transformer2DModel": (
        _DIT | {"in_channels": 8, "norm_num_groups": 4, "cross_attention_dim": 12},
        pictures(8, 8),
        lambda m, x, t: m(x, encoder_hidden_states=like(x, 5, 12)).sample,
    ),
    "SD3Transformer2DModel": (
        _DIT
        | {
            "sample_size": 8,
            "joint_attention_dim": 12,
            "caption_projection_dim": 16,
            "pooled_projection_dim": 10,
            "out_channels": 4,
            "pos_embed_max_size": 8,
            "qk_norm": "rms_norm",
            "dual_attention_layers": (0,),
        },
        pictures(8, 4),
        lambda m, x, t: m(x, like(x, 5, 12), like(x, 10), t).sample,
    ),
    "SD3Transformer2DModel : its text": (
        _DIT
        | {
            "sample_size": 8,
            "joint_attention_dim": 12,
            "caption_projection_dim": 16,
            "pooled_projection_dim": 10,
            "out_channels": 4,
            "pos_embed_max_size": 8,
        },
        floats(5, 12),
        lambda m, x, t: m(like(x, 4, 8, 8), x, like(x, 10), t).sample,
    ),
    "FluxTransformer2DModel": (
        _DIT
        | {
            "num_single_layers": 1,
            "joint_attention_dim": 12,
            "pooled_projection_dim": 10,
            "axes_dims_rope": (2, 2, 4),
        },
        floats(6, 4),
        lambda m, x, t: (
            m(
                x,
                like(x, 5, 12),
                like(x, 10),
                t.to(x.dtype),
                _positions(6),
                _positions(5),
            ).sample
        ),
    ),
    "ChromaTransformer2DModel": (
        _DIT
        | {
            "num_single_layers": 1,
            "joint_attention_dim": 12,
            "axes_dims_rope": (2, 2, 4),
            "approximator_num_channels": 8,
            "approximator_hidden_dim": 16,
            "approximator_layers": 1,
        },
        floats(6, 4),
        lambda m, x, t: (
            m(x, like(x, 5, 12), t.to(x.dtype), _positions(6), _positions(5)).sample
        ),
    ),
    "SanaTransformer2DModel": (
        _DIT
        | {
            "out_channels": 4,
            "num_cross_attention_heads": 2,
            "cross_attention_head_dim": 8,
            "cross_attention_dim": 16,
            "caption_channels": 12,
            "sample_size": 8,
        },
        pictures(8, 4),
        lambda m, x, t: m(x, like(x, 5, 12), t).sample,
    ),
    "AuraFlowTransformer2DModel": (
        {
            "sample_size": 8,
            "num_mmdit_layers": 1,
            "num_single_dit_layers": 1,
            "attention_head_dim": 8,
            "num_attention_heads": 2,
            "joint_attention_dim": 12,
            "caption_projection_dim": 16,
            "pos_embed_max_size": 16,
        },
        pictures(8, 4),
        lambda m, x, t: m(x, like(x, 5, 12), t / 1000).sample,
    ),
    "Lumina2Transformer2DModel": (
        {
            "sample_size": 8,
            "in_channels": 4,
            "hidden_size": 24,
            "num_layers": 1,
            "num_refiner_layers": 1,
            "num_attention_heads": 2,
            "num_kv_heads": 1,
            "multiple_of": 8,
            "axes_dim_rope": (4, 4, 4),
            "axes_lens": (32, 16, 16),
            "cap_feat_dim": 12,
        },
        pictures(8, 4),
        lambda m, x, t: (
            m(x, t / 10, like(x, 5, 12), torch.ones(len(x), 5, dtype=torch.bool)).sample
        ),
    ),
    "CogView4Transformer2DModel": (
        _DIT
        | {
            "out_channels": 4,
            "text_embed_dim": 12,
            "time_embed_dim": 16,
            "condition_dim": 8,
            "pos_embed_max_size": 8,
            "sample_size": 8,
            "rope_axes_dim": (4, 4),
        },
        pictures(8, 4),
        lambda m, x, t: (
            m(
                x, like(x, 5, 12), t, *(torch.full((len(x), 2), 8.0) for _ in range(3))
            ).sample
        ),
    ),
    "WanTransformer3DModel": (
        _DIT | {"out_channels": 4, "text_dim": 12, "freq_dim": 16, "ffn_dim": 32},
        floats(4, 2, 4, 4),
        lambda m, x, t: m(x, t, like(x, 5, 12)).sample,
    ),
    "LTXVideoTransformer3DModel": (
        _DIT | {"out_channels": 4, "cross_attention_dim": 16, "caption_channels": 12},
        floats(8, 4),
        lambda m, x, t: (
            m(
                x,
                like(x, 5, 12),
                t,
                torch.ones(len(x), 5, dtype=torch.bool),
                num_frames=2,
                height=2,
                width=2,
            ).sample
        ),
    ),
    "CogVideoXTransformer3DModel": (
        _DIT
        | {
            "out_channels": 4,
            "time_embed_dim": 8,
            "text_embed_dim": 12,
            "sample_width": 4,
            "sample_height": 4,
            "sample_frames": 5,
            "max_text_seq_length": 5,
        },
        floats(2, 4, 4, 4),
        lambda m, x, t: m(x, like(x, 5, 12), t).sample,
    ),
    "PriorTransformer": (
        {
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "num_layers": 2,
            "embedding_dim": 12,
            "num_embeddings": 5,
        },
        floats(12),
        lambda m, x, t: m(
            x, t, like(x, 12), like(x, 5, 12), torch.ones(len(x), 5, dtype=torch.bool)
        ).predicted_image_embedding[:, None],
    ),
    "StableAudioDiTModel": (
        {
            "sample_size": 8,
            "in_channels": 4,
            "num_layers": 2,
            "attention_head_dim": 8,
            "num_attention_heads": 4,
            "num_key_value_attention_heads": 2,
            "out_channels": 4,
            "cross_attention_dim": 16,
            "time_proj_dim": 8,
            "global_states_input_dim": 10,
            "cross_attention_input_dim": 12,
        },
        floats(4, 8),
        lambda m, x, t: (
            m(
                x,
                t.to(x.dtype),
                encoder_hidden_states=like(x, 5, 12),
                global_hidden_states=like(x, 1, 10),
                rotary_embedding=(like(x, 9, 4)[0], like(x, 9, 4, seed=2)[0]),
            ).sample.mT
        ),
    ),
    "TransformerTemporalModel": (
        _DIT | {"in_channels": 8, "norm_num_groups": 4},
        pictures(4, 8),
        lambda m, x, t: m(
            x[:, None].expand(-1, 2, -1, -1, -1).flatten(0, 1), num_frames=2
        ).sample.view(len(x), 16, 4, 4),
    ),
    "UNet2DModel": (
        _SIDES
        | {
            "sample_size": 8,
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
            "attention_head_dim": 4,
        },
        pictures(8),
        lambda m, x, t: m(x, t).sample,
    ),
    "UNet2DModel , resampled in blocks": (
        _SIDES
        | {
            "sample_size": 8,
            "down_block_types": ("DownBlock2D", "ResnetDownsampleBlock2D"),
            "up_block_types": ("ResnetUpsampleBlock2D", "UpBlock2D"),
            "attention_head_dim": 4,
            "resnet_time_scale_shift": "scale_shift",
        },
        pictures(8),
        lambda m, x, t: m(x, t).sample,
    ),
    "UNet2DConditionModel": (
        _SIDES
        | {
            "sample_size": 8,
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "cross_attention_dim": 12,
            "attention_head_dim": 4,
        },
        pictures(8, 4),
        lambda m, x, t: m(x, t, like(x, 5, 12)).sample,
    ),
    "UNet2DConditionModel : its text": (
        _SIDES
        | {
            "sample_size": 8,
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "cross_attention_dim": 12,
            "attention_head_dim": 4,
            "use_linear_projection": True,
        },
        floats(5, 12),
        lambda m, x, t: m(like(x, 4, 8, 8), t, x).sample,
    ),
    "AutoencoderKL": (
        _CODER,
        pictures(16),
        lambda m, x, t: m(x).sample,
    ),
    "AutoencoderTiny": (
        {
            "encoder_block_out_channels": (8, 8),
            "decoder_block_out_channels": (8, 8),
            "num_encoder_blocks": (1, 1),
            "num_decoder_blocks": (1, 1),
        },
        pictures(16),
        lambda m, x, t: m(x).sample,
    ),
    "AutoencoderDC": (
        {
            "latent_channels": 4,
            "attention_head_dim": 4,
            "encoder_block_types": ("ResBlock", "EfficientViTBlock"),
            "decoder_block_types": ("ResBlock", "EfficientViTBlock"),
            "encoder_block_out_channels": (8, 8),
            "decoder_block_out_channels": (8, 8),
            "encoder_layers_per_block": (1, 1),
            "decoder_layers_per_block": (1, 1),
            "encoder_qkv_multiscales": ((), (5,)),
            "decoder_qkv_multiscales": ((), (5,)),
        },
        pictures(16),
        lambda m, x, t: m(x).sample,
    ),
    "AutoencoderOobleck": (
        {
            "encoder_hidden_size": 8,
            "downsampling_ratios": [2, 4],
            "channel_multiples": [1, 2],
            "decoder_channels": 8,
            "decoder_input_channels": 4,
            "audio_channels": 2,
        },
        floats(2, 64),
        lambda m, x, t: m(x).sample.mT * like(x, 64, 2),
    ),
    "VQModel : its latents": (
        _CODER,
        pictures(16),
        lambda m, x, t: m.encode(x).latents,
    ),
    "VQModel": (
        _CODER,
        pictures(16),
        lambda m, x, t: m(x).sample,
    ),
}


def _disconnected(why: str) -> Refusal:
    return Refusal("DisconnectedError: the score does not depend on", why)


def _function(why: str) -> Refusal:
    error = "UnknownOperatorError: On the way to the score autograd function"
    return Refusal(error, why)


_CODES = _disconnected(
    "in evaluation it looks its output up in a code book: nearest codes have no "
    "gradient, and the model hands none on past them"
)
_REVERSIBLE = _function(
    "reversible layers, in an autograd function that computes them again on its own "
    "way back"
)

#: case -> what the engine says instead of a number, and rightly so
REFUSED: dict[str, Refusal] = {
    # constants of CP-LRP
    "mixture of softmaxes": _disconnected(
        "its scores are logarithms of sums of softmaxes, which CP-LRP takes for "
        "constants"
    ),
    "ESM-2, contacts": _disconnected(
        "contacts are read off attention weights, which CP-LRP takes for constants"
    ),
    "NeuralFingerprint": _disconnected(
        "its scores are sums of softmaxes, which CP-LRP takes for constants"
    ),
    "minGRU_pytorch.minGRU": _disconnected(
        "it computes with logarithms of sums of exponentials, which CP-LRP takes for "
        "constants"
    ),
    # the model itself cuts its graph
    "na_vit_nested_tensor.NaViT": _disconnected(
        "it packs pictures by torch.nested.nested_tensor, which detaches them"
    ),
    "AutoencoderTiny": _disconnected(
        "it rounds what it codes to bytes, which have no gradient"
    ),
    "vector_quantize_pytorch.VectorQuantize": _CODES,
    "vector_quantize_pytorch.VectorQuantize , rotated": _CODES,
    "vector_quantize_pytorch.LFQ": _disconnected(
        "in evaluation it takes the signs of its input, which have no gradient"
    ),
    # derivatives of their own
    "performer_pytorch.PerformerLM , reversible": _REVERSIBLE,
    "linformer.LinformerLM , reversible": _REVERSIBLE,
    "reformer_pytorch.ReformerLM": _REVERSIBLE,
    "axial_attention.AxialImageTransformer": _REVERSIBLE,
    "memory_efficient_attention_pytorch.transformer.Transformer": _REVERSIBLE,
    "pytorch_tabnet.tab_network.TabNet": _function(
        "its sparsemax is an autograd function with a derivative written by hand"
    ),
    "mambapy.mamba.Mamba , parallel": _function(
        "its parallel scan is an autograd function; with pscan=False it is explained"
    ),
    "gateloop_transformer.Transformer": Refusal(
        "ModelStateError: part of the model is checkpointed",
        "it checkpoints its layers, in evaluation too, by re-entering autograd",
    ),
    "softclamped logits": Refusal(
        "UnknownOperatorError: On the way to the score MulBackward",
        "its tanh of the logits is a function by torch.jit.script, whose inside torch "
        "does not show",
    ),
}


#: module -> its cases, or those of several
LIBRARIES: dict[str, Callable[[], Iterator[Case]]] = {
    "x_transformers": _x_transformers,
    "vit_pytorch": _vit_pytorch,
    "torchvision": _torchvision,
    "segmentation_models_pytorch": _segmentation_models,
    "open_clip": _open_clip,
    "esm": _esm,
    "torch_geometric": _pyg,
    "monai": _monai,
    "diffusers": _diffusers,
    "lucidrains": _lucidrains,
    "others": _others,
}


#: the modules of all libraries
MODULES = tuple(
    dict.fromkeys(
        [
            *(name for name in LIBRARIES if name not in ("lucidrains", "others")),
            *(path.split(".")[0] for path in (*LUCIDRAINS, *OTHERS)),
        ]
    )
)


def entries(sizes: Sizes | None = None) -> Iterator[Entry]:
    """Yield an entry for every case of the libraries that are installed."""
    seed = 0 if sizes is None else sizes.seed
    for library, cases in LIBRARIES.items():
        try:
            with warnings.catch_warnings():  # of libraries as they are imported
                warnings.simplefilter("ignore")
                found = list(cases())
        except ImportError:
            continue
        for case in found:
            yield Entry(
                name=case.name,
                group=case.library or library,
                build=functools.partial(build, case, seed),
                fused=written_out,
                refused=case.refused,
            )


def absent() -> list[str]:
    """Return the modules of libraries that are not installed."""
    return [name for name in MODULES if importlib.util.find_spec(name) is None]


def versions() -> dict[str, str]:
    """Return the version of every library that is installed."""
    names = importlib.metadata.packages_distributions()
    found = {}
    for module in MODULES:
        with contextlib.suppress(KeyError, importlib.metadata.PackageNotFoundError):
            found[module] = importlib.metadata.version(names[module][0])
    return found
