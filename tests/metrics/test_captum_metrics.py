"""Captum's own metrics take the attributors as they are: the recipe of the docs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from captum.metrics import infidelity, sensitivity_max

from captum_transformer_lrp import AttnLRP, GradientXInput
from captum_transformer_lrp.models.loading import load_text_model
from tests.metrics.linear import Linear, features


def noise(x):
    """One noisy copy: what is subtracted, and what is left."""
    change = 0.1 * torch.randn_like(x)
    return change, x - change


def test_the_true_attribution_of_a_linear_model_is_not_unfaithful():
    model, x = Linear().eval(), features()
    # For infidelity an attribution is what a unit of change costs: w, not w x.
    true = model.weight[1].detach().expand_as(x)
    torch.manual_seed(0)
    assert infidelity(model, noise, x, true, target=1).abs().max() < 1e-20
    assert infidelity(model, noise, x, 1.1 * true, target=1).min() > 1e-6
    relevance = AttnLRP(model).attribute(x, target=1)
    ours = infidelity(model, noise, x, relevance / x, target=1)
    assert ours.abs().max() < 1e-20


@pytest.mark.parametrize("method", [AttnLRP, GradientXInput])
def test_sensitivity_of_a_linear_model_is_that_of_its_inputs(method):
    model, x = Linear().eval(), features()
    torch.manual_seed(0)
    found = sensitivity_max(
        method(model).attribute, x, perturb_radius=0.02, target=1, n_perturb_samples=4
    )
    relevance = method(model).attribute(x, target=1)
    bound = 0.02 * model.weight[1].detach().norm() / relevance.norm(dim=1)
    assert bool((found > 0).all())
    assert bool((found.double() <= bound + 1e-9).all())


def test_both_take_embeddings_of_a_text_classifier():
    pytest.importorskip("transformers", reason="transformers is not installed")
    text = load_text_model(None)
    ids = text.tokenizer("a warm and funny film .", return_tensors="pt").input_ids
    module: Any = text.module
    vectors = module.get_input_embeddings()(ids).detach()

    def forward(vectors):
        return text.module(inputs_embeds=vectors).logits

    method = AttnLRP(forward)
    torch.manual_seed(0)
    relevance = method.attribute(vectors, target=1)
    unfaithful = infidelity(forward, noise, vectors, relevance / vectors, target=1)
    unstable = sensitivity_max(
        method.attribute, vectors, perturb_radius=1e-4, target=1, n_perturb_samples=2
    )
    assert unfaithful.shape == unstable.shape == (1,)
    assert float(unfaithful) >= 0
    assert 0 < float(unstable) < 1
