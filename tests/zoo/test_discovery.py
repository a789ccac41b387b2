"""Hidden states of architectures that discovery does not know by name.

The tiny models of ``test_families``: with one state held as it was, the prediction must
stay as it was whatever the input, so each state is all that the rest of the model sees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_transformer_lrp.errors import InputError
from captum_transformer_lrp.models.discovery import (
    StatePlace,
    find_hidden_states,
    visiting,
)
from tests.helpers import assert_same_state, state_of
from tests.zoo.test_families import (
    CLASSIFIERS,
    DECODERS,
    LARGER,
    TIMM,
    VISION,
    hugging_face,
    rebuilt,
)

timm = pytest.importorskip("timm")

#: why hooks cannot see the blocks
REFUSED = {"squeezebert": "it calls layer.forward() itself"}
IDS = torch.tensor([[5, 9, 17, 33, 8, 2], [7, 6, 40, 21, 11, 2]])
OTHER = torch.tensor([[9, 5, 30, 3, 12, 2], [17, 16, 4, 12, 1, 2]])


def pixels(size: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, size, size, generator=generator, dtype=torch.float64)


def logits_of(output: Any) -> Tensor:
    found: Tensor = getattr(output, "logits", output)
    return found


def check(model: nn.Module, x: Tensor, other: Tensor, depth: int | None) -> None:
    """Hold each state in turn, and change the input below it."""
    before = state_of(model)
    places = find_hidden_states(model, lambda: model(x), len(x))
    if depth is not None:
        assert len(places) in (depth + 1, depth + 2), [str(p) for p in places]
    assert len(places) >= 3
    states: dict[int, Tensor] = {}

    def keep(position: int, state: Tensor) -> None:
        states[position] = state.clone()

    with torch.no_grad():
        with visiting(places, keep):
            expected = logits_of(model(x))
        assert sorted(states) == list(range(len(places)))
        changed = logits_of(model(other))
        scale = (changed - expected).abs().max()
        assert scale > 0
        for i, place in enumerate(places):
            if i == 0 and isinstance(place.module, nn.Embedding):
                continue  # positions and masks may also be made from identifiers
            with visiting([place], held(states[i])):
                found = logits_of(model(other))
            assert (found - expected).abs().max() < 0.01 * scale, str(place)
    assert_same_state(before, state_of(model))


def held(state: Tensor) -> Callable[[int, Tensor], Tensor]:
    return lambda _, __: state.clone()


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_text_classifiers(family: str) -> None:
    model = hugging_face("SequenceClassification", family, CLASSIFIERS[family], "eager")
    if family in REFUSED:
        with pytest.raises(InputError, match="no blocks were found"):
            find_hidden_states(model, lambda: model(IDS), len(IDS))
        return
    check(model, IDS, OTHER, depth=2)


@pytest.mark.parametrize("family", DECODERS)
def test_language_models(family: str) -> None:
    model = hugging_face("CausalLM", family, DECODERS[family], "eager")
    check(model, IDS, OTHER, depth=2)


@pytest.mark.parametrize("family", VISION)
def test_image_classifiers(family: str) -> None:
    model = hugging_face("ImageClassification", family, VISION[family], "eager")
    check(model, pixels(32, 0), pixels(32, 1), depth=None)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name.startswith(LARGER) else name
        for name in TIMM
    ],
)
def test_timm(name: str) -> None:
    torch.manual_seed(0)
    more = {"num_classes": 3, **TIMM[name]}
    model = rebuilt(timm.create_model(name, **more), seed=0)
    size = TIMM[name].get("img_size", 224)
    check(model, pixels(size, 0), pixels(size, 1), depth=None)


def test_places_print_themselves() -> None:
    module = nn.Linear(2, 2)
    assert str(StatePlace("layers.0", "input", module)) == "layers.0 (input)"
    assert str(StatePlace("shared", "output", module, 1)) == "shared (output, call 2)"
