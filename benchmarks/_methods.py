"""The methods that the faithfulness benchmarks compare: a name and a function each.

A method of texts takes a `Texts` and a batch, and returns a score per token
`(batch, tokens)`; one of images takes an `Images` and a batch and returns a score per
patch `(batch, rows, columns)`. To try a variant, add a line to TEXT or IMAGE.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from captum.attr import DeepLift, IntegratedGradients, NoiseTunnel, Saliency
from torch import Tensor, nn

from captum_transformer_lrp import (
    CPLRP,
    AttentionGradCAM,
    AttentionRelevance,
    AttentionRollout,
    AttentionXGradient,
    AttnLRP,
    CheferLRP,
    ErasureLRP,
    GenericAttention,
    GradientXInput,
    LayerAttnLRP,
    LRPRollout,
    OwenLRP,
    RawAttention,
    rules,
)
from captum_transformer_lrp.attribution import (
    ContextLRP,
    InputAttribution,
    InputDeepLift,
    InputIntegratedGradients,
    InputSaliency,
)
from captum_transformer_lrp.metrics import (
    Replacement,
    ValueReplacement,
    leave_one_out,
    pool_patches,
    rankable,
)

#: for SmoothGrad: the standard deviation of the noise, in units of that of the inputs
NOISE = 0.2
#: how many rows Integrated Gradients takes at once
ROWS = 64


@dataclass(frozen=True)
class Texts:
    """A text classifier and what a method may need beside it."""

    module: nn.Module
    tokenizer: Any
    replacement: Replacement
    generator: torch.Generator = field(default_factory=torch.Generator)


@dataclass(frozen=True)
class Images:
    """An image classifier, its grid of patches, and what a method may need beside."""

    module: nn.Module
    grid: tuple[int, int]
    generator: torch.Generator = field(default_factory=torch.Generator)


TextMethod = Callable[[Texts, dict[str, Tensor], Tensor], Tensor]
ImageMethod = Callable[[Images, Tensor, Tensor], Tensor]


def with_gamma(gamma: float) -> dict[Any, Any]:
    """Return rows that lay LRP-gamma over everything linear with weights."""
    gamma_rule = rules.Gamma(gamma=gamma)
    return dict.fromkeys(("linear", "conv2d"), gamma_rule)


# --- texts: scores of token ids, shape (batch, tokens) -------------------------------


def text_method(make: Callable[[nn.Module], Any]) -> TextMethod:
    """Return a method from one of our classes, which takes the tokenizer's mapping."""
    return lambda texts, batch, target: make(texts.module).attribute(
        batch, target=target
    )


class OfEmbeddings(nn.Module):
    """A model as a function of embeddings and attention mask, as Captum calls it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, vectors: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = self.module(inputs_embeds=vectors, attention_mask=mask).logits
        return logits


def baseline(cls: type[InputAttribution], **options: Any) -> TextMethod:
    """Return one of the methods that work on embeddings, with [PAD] as baseline."""
    return lambda texts, batch, target: cls(
        texts.module, tokenizer=texts.tokenizer, **options
    ).attribute(batch, target=target)


def smooth(make: Callable[[nn.Module], Any], samples: int) -> TextMethod:
    """Return the mean over noisy embeddings of one of our methods."""

    def method(texts: Texts, batch: dict[str, Tensor], target: Tensor) -> Tensor:
        module: Any = texts.module
        vectors = module.get_input_embeddings()(batch["input_ids"]).detach()
        scores: Tensor = NoiseTunnel(make(OfEmbeddings(texts.module))).attribute(
            vectors,
            nt_type="smoothgrad",
            nt_samples=samples,
            stdevs=NOISE * float(vectors.std()),
            target=target,
            additional_forward_args=(batch["attention_mask"],),
        )
        return scores.sum(-1)

    return method


def random_of_tokens(texts: Texts, batch: dict[str, Tensor], target: Tensor) -> Tensor:
    return torch.rand(batch["input_ids"].shape, generator=texts.generator)


def occlusion_of_tokens(
    texts: Texts, batch: dict[str, Tensor], target: Tensor
) -> Tensor:
    return leave_one_out(
        texts.module,
        batch,
        replacement=texts.replacement,
        units=(batch["input_ids"].shape[1],),
        target=target,
        valid=rankable(batch, texts.tokenizer),
    )


def at_first_layer(texts: Texts, batch: dict[str, Tensor], target: Tensor) -> Tensor:
    """Return AttnLRP's relevance of what the embeddings hand to the first layer."""
    module: Any = texts.module
    lrp = LayerAttnLRP(module, module.base_model.embeddings)
    found = lrp.attribute(batch, target=target)
    scores: Tensor = found[0] if isinstance(found, tuple) else found
    return scores.sum(-1)


def in_contexts(cls: type[ContextLRP], **options: Any) -> TextMethod:
    """Return one of the methods that explain parts of a text alone."""
    return lambda texts, batch, target: cls(
        texts.module, tokenizer=texts.tokenizer, **options
    ).attribute(batch, target=target)


TEXT: dict[str, TextMethod] = {
    "Random": random_of_tokens,
    "Saliency": baseline(InputSaliency),
    "Gradient x Input": text_method(GradientXInput),
    "IG-20": baseline(InputIntegratedGradients, n_steps=20),
    "IG-50": baseline(InputIntegratedGradients, n_steps=50),
    "DeepLift": baseline(InputDeepLift),
    "Occlusion": occlusion_of_tokens,
    "Raw attention": text_method(RawAttention),
    "Rollout": text_method(AttentionRollout),
    "Attention Grad-CAM": text_method(AttentionGradCAM),
    "Attention x Gradient": text_method(AttentionXGradient),
    "AttentionRelevance": text_method(AttentionRelevance),
    "GenericAttention": text_method(GenericAttention),
    "LRP rollout": text_method(LRPRollout),
    "CheferLRP": text_method(CheferLRP),
    "CP-LRP": text_method(CPLRP),
    "AttnLRP": text_method(AttnLRP),
    "AttnLRP, first layer's input": at_first_layer,
    "AttnLRP, gamma .02": text_method(lambda m: AttnLRP(m, rules=with_gamma(0.02))),
    "AttnLRP, gamma .05": text_method(lambda m: AttnLRP(m, rules=with_gamma(0.05))),
    "AttnLRP, gamma .25": text_method(lambda m: AttnLRP(m, rules=with_gamma(0.25))),
    "CP-LRP, gamma .05": text_method(lambda m: CPLRP(m, rules=with_gamma(0.05))),
    "AttnLRP, SmoothGrad of 10": smooth(AttnLRP, 10),
    "OwenLRP": in_contexts(OwenLRP),
    "ErasureLRP without gamma": in_contexts(ErasureLRP, composite="attnlrp"),
    "ErasureLRP": in_contexts(ErasureLRP),
}


# --- images: scores of patches, shape (batch, rows, columns) -------------------------


def of_pixels(attribute: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> ImageMethod:
    """Return a method from one that explains pixels: summed over each patch."""
    return lambda images, pixels, target: pool_patches(
        attribute(images.module, pixels, target), images.grid
    )


def of_patches(make: Callable[[nn.Module], Any]) -> ImageMethod:
    """Return a method from one of our classes that read attention maps."""
    return lambda images, pixels, target: make(images.module).attribute(
        pixels, target=target
    )[:, 0]


def random_of_patches(images: Images, pixels: Tensor, target: Tensor) -> Tensor:
    return torch.rand((len(pixels), *images.grid), generator=images.generator)


def occlusion_of_patches(images: Images, pixels: Tensor, target: Tensor) -> Tensor:
    return leave_one_out(
        images.module,
        pixels,
        replacement=ValueReplacement(),
        units=images.grid,
        target=target,
    )


def saliency_of_pixels(module: nn.Module, pixels: Tensor, target: Tensor) -> Tensor:
    pixels = pixels.clone().requires_grad_()
    scores: Tensor = Saliency(module).attribute(pixels, target=target)
    return scores


def integrated_gradients_of_pixels(steps: int) -> ImageMethod:
    return of_pixels(
        lambda m, x, t: IntegratedGradients(m).attribute(
            x.clone().requires_grad_(),
            target=t,
            n_steps=steps,
            internal_batch_size=ROWS,
        )
    )


def smooth_of_pixels(make: Callable[[nn.Module], Any], samples: int) -> ImageMethod:
    return of_pixels(
        lambda m, x, t: NoiseTunnel(make(m)).attribute(
            x,
            nt_type="smoothgrad",
            nt_samples=samples,
            stdevs=NOISE * float(x.std()),
            target=t,
        )
    )


def relevance_of_pixels(make: Callable[[nn.Module], Any]) -> ImageMethod:
    return of_pixels(lambda m, x, t: make(m).attribute(x, target=t))


class Contrast(nn.Module):
    """A model's logits, less the mean of the others."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.module(pixels)
        classes = logits.shape[1]
        return (logits * classes - logits.sum(1, keepdim=True)) / (classes - 1)


class Probability(nn.Module):
    """A model's probabilities."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.module(pixels)
        return logits.softmax(1)


IMAGE: dict[str, ImageMethod] = {
    "Random": random_of_patches,
    "Saliency": of_pixels(saliency_of_pixels),
    "Gradient x Input": relevance_of_pixels(GradientXInput),
    "IG-20": integrated_gradients_of_pixels(20),
    "IG-50": integrated_gradients_of_pixels(50),
    "DeepLift": of_pixels(
        lambda m, x, t: DeepLift(m).attribute(x.clone().requires_grad_(), target=t)
    ),
    "Occlusion": occlusion_of_patches,
    "Raw attention": of_patches(RawAttention),
    "Rollout": of_patches(AttentionRollout),
    "Attention Grad-CAM": of_patches(AttentionGradCAM),
    "Attention x Gradient": of_patches(AttentionXGradient),
    "AttentionRelevance": of_patches(AttentionRelevance),
    "GenericAttention": of_patches(GenericAttention),
    "LRP rollout": of_patches(LRPRollout),
    "CheferLRP": of_patches(CheferLRP),
    "CP-LRP": relevance_of_pixels(CPLRP),
    "AttnLRP": relevance_of_pixels(AttnLRP),
    "AttnLRP, contrastive": relevance_of_pixels(lambda m: AttnLRP(Contrast(m))),
    "AttnLRP, of the probability": relevance_of_pixels(
        lambda m: AttnLRP(Probability(m))
    ),
    "AttnLRP, gamma .05": relevance_of_pixels(
        lambda m: AttnLRP(m, rules=with_gamma(0.05))
    ),
    "AttnLRP, gamma .25": relevance_of_pixels(
        lambda m: AttnLRP(m, rules=with_gamma(0.25))
    ),
    "AttnLRP, gamma 1": relevance_of_pixels(lambda m: AttnLRP(m, rules=with_gamma(1))),
    "AttnLRP, SmoothGrad of 10": smooth_of_pixels(AttnLRP, 10),
    "OwenLRP": relevance_of_pixels(lambda m: OwenLRP(m, patch_size=4)),
    "ErasureLRP without gamma": relevance_of_pixels(
        lambda m: ErasureLRP(m, "attnlrp", patch_size=4)
    ),
    "ErasureLRP": relevance_of_pixels(lambda m: ErasureLRP(m, patch_size=4)),
}
