"""Both sides of every row of "Coming from another attributor" in `docs/captum.md`.

The code is that of the page: it is evaluated as it stands, with the names that a
reader of the row would have. A row that nobody checks fails, and so does a check of a
row that is gone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
from captum.attr import LLMAttributionResult, TextTokenInput
from captum.attr import visualization as of_captum
from torch import Tensor, nn

import captum_transformer_lrp
from captum_transformer_lrp.errors import ArgumentError
from captum_transformer_lrp.models import load_image_model, load_text_model
from captum_transformer_lrp.models.pictures import draw_ship
from captum_transformer_lrp.visualization import draw_text
from tests.docs.test_pages import DOCS, tiny_language_model
from tests.helpers import relative

#: how near the steps of Captum's path come to its integral, on a linear model
PATH = 1e-8
TEXT = "A warm and funny film, yet never dull."


@dataclass(frozen=True)
class Row:
    """A row of the table: the code of Captum, and the pieces of code in its place."""

    captum: str
    ours: list[str]

    @property
    def name(self) -> str:
        return re.split(r"\W", self.captum.removeprefix("visualization."))[0]


def rows_of(page: Path) -> dict[str, Row]:
    section = page.read_text().partition("\n## Coming from another attributor\n")[2]
    lines = re.findall(r"^\| (`.*) \| (.*) \|$", section.partition("\n## ")[0], re.M)
    codes = ([re.findall("`(.*?)`", cell) for cell in line] for line in lines)
    rows = [Row(captum, ours) for (captum,), ours in codes]
    return {row.name: row for row in rows}


ROWS = rows_of(DOCS / "captum.md")
CHECKS: dict[str, Callable[[Row], None]] = {}


def checks(name: str) -> Callable[[Callable[[Row], None]], Callable[[Row], None]]:
    def add(check: Callable[[Row], None]) -> Callable[[Row], None]:
        CHECKS[name] = check
        return check

    return add


def run(code: str, **given: Any) -> Any:
    """What a piece of the page's code returns."""
    public = captum_transformer_lrp.__all__
    known = {name: getattr(captum_transformer_lrp, name) for name in public}
    known |= {name: getattr(captum.attr, name) for name in captum.attr.__all__}
    known |= {"visualization": of_captum, "draw_text": draw_text}
    return eval(code, known | given)


class BagOfWords(nn.Module):
    """Linear in its embeddings: every method that conserves agrees on it."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(12, 6, padding_idx=0)
        self.head = nn.Linear(6, 10)

    def forward(self, ids: Tensor) -> Tensor:
        scores: Tensor = self.head(self.words(ids).sum(1))
        return scores


class Logits(nn.Module):
    """A model of transformers as Captum needs it: it returns a tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Any:
        return self.model(input_ids=ids).logits


def pixels() -> Tensor:
    torch.manual_seed(0)
    return torch.rand(1, 3, 32, 32, dtype=torch.float64, requires_grad=True)


def image_classifier() -> nn.Module:
    return load_image_model().module.double()


def linear_classifier() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10)).double()


def text_classifier() -> tuple[nn.Module, Any]:
    pytest.importorskip("transformers")
    source = load_text_model()
    return source.module.double(), source.tokenizer


@pytest.mark.parametrize("name", ROWS)
def test_row(name: str) -> None:
    CHECKS[name](ROWS[name])


def test_every_row_is_checked() -> None:
    assert len(ROWS) == 7
    assert [*CHECKS] == [*ROWS]


@checks("InputXGradient")
def same_numbers(row: Row) -> None:
    (ours,) = row.ours
    given = {"model": image_classifier(), "pixels": pixels()}
    assert relative(run(ours, **given), run(row.captum, **given).detach()) < 1e-12


@checks("IntegratedGradients")
def same_role_without_baseline_and_steps(row: Row) -> None:
    (ours,) = row.ours
    given = {"model": image_classifier(), "pixels": pixels()}
    assert run(ours, **given).shape == run(row.captum, **given).shape
    given["model"] = linear_classifier()
    assert relative(run(ours, **given), run(row.captum, **given).detach()) < PATH
    with pytest.raises(ArgumentError, match=r"baselines=.*path from a baseline"):
        run(row.captum.replace("IntegratedGradients", "AttnLRP"), **given)


@checks("LayerIntegratedGradients")
def identifiers_are_explained_at_any_layer(row: Row) -> None:
    of_ids, of_layer = row.ours
    model, tokenizer = text_classifier()
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    given: dict[str, Any] = {"model": model, "ids": ids}
    given["layer"] = model.get_input_embeddings()
    with pytest.raises((AssertionError, AttributeError, TypeError)):
        run(row.captum, **given)  # Captum's needs a tensor
    theirs = run(row.captum, **given | {"model": Logits(model)})
    assert run(of_ids, **given).shape == ids.shape
    assert run(of_layer, **given).shape == theirs.shape
    assert relative(run(of_layer, **given).sum(-1), run(of_ids, **given)) < 1e-10
    block = model.get_submodule("bert.encoder.layer.0")
    assert run(of_layer, **given | {"layer": block}).shape[:2] == ids.shape

    torch.manual_seed(0)
    bag = BagOfWords().double()  # Captum's baseline is the identifier 0, padding
    given = {"model": bag, "layer": bag.words, "ids": torch.tensor([[3, 7, 1, 9]])}
    theirs = run(row.captum, **given)
    assert relative(run(of_layer, **given), theirs) < PATH
    assert relative(run(of_ids, **given), theirs.sum(-1)) < PATH


@checks("NoiseTunnel")
def noise_goes_around_it(row: Row) -> None:
    (ours,) = row.ours
    noise = {"nt_samples": 3, "stdevs": 0.1, "target": 8}
    given = {"model": image_classifier()}
    theirs = run(row.captum, **given).attribute(pixels(), **noise)
    found = run(ours, **given).attribute(pixels(), **noise)
    assert found.shape == theirs.shape and torch.isfinite(found).all()
    # on a linear model |relevance| is |gradient| times |the mean of the noisy pixels|
    given = {"model": linear_classifier()}
    torch.manual_seed(0)
    theirs = run(row.captum, **given).attribute(pixels(), **noise)
    tunnel, seen = run(ours, **given), []
    given["model"].register_forward_pre_hook(lambda _, x: seen.append(x[0].detach()))
    found = tunnel.attribute(pixels(), **noise)
    expected = theirs * torch.cat(seen).mean(0, keepdim=True).abs()
    assert relative(found.abs(), expected) < 1e-10


@checks("LLMGradientAttribution")
def every_generated_token_is_explained(row: Row) -> None:
    explained, option = row.ours
    names = tiny_language_model()
    names["model"] = names["model"].double()
    names["layer"] = names["model"].get_input_embeddings()
    prompt = TextTokenInput("the movie was", names["tokenizer"])

    def both(code: str) -> tuple[LLMAttributionResult, LLMAttributionResult]:
        theirs = run(code, **names).attribute(prompt, " the best")
        found = run(explained, **names).attribute("the movie was", " the best")
        return theirs, found

    theirs, found = both(row.captum)
    assert isinstance(found, LLMAttributionResult)
    assert found.input_tokens == theirs.input_tokens
    assert found.output_tokens == theirs.output_tokens
    assert found.token_attr.shape == theirs.token_attr.shape == (2, 3)
    assert found.seq_attr.shape == theirs.seq_attr.shape

    # the same score is explained: with the same method the numbers are the same
    explained = explained.removesuffix(")") + ", composite='gradient-x-input')"
    activation = "LayerGradientXActivation"
    theirs, found = both(row.captum.replace("LayerIntegratedGradients", activation))
    assert relative(found.token_attr, theirs.token_attr) < 1e-10
    assert option == "attr_target"
    explained = re.sub(f", {option}=[^,)]+", "", explained)
    theirs, found = both(row.captum.replace("LayerIntegratedGradients", activation))
    assert relative(found.token_attr, theirs.token_attr) > 1e-4
    assert run(explained, **names).attr_target == "logit"


@checks("visualize_text")
def words_are_coloured(row: Row) -> None:
    pytest.importorskip("IPython")
    of_text, of_scores = row.ours
    text_classifier()
    explanation = run(of_text, text=TEXT)
    tokens, scores = explanation.tokens, explanation.scores
    record = of_captum.VisualizationDataRecord(
        word_attributions=scores,
        pred_prob=explanation.prediction.probability,
        pred_class=explanation.prediction.name,
        true_class=explanation.prediction.name,
        attr_class=explanation.target.name,
        attr_score=scores.sum(),
        raw_input_ids=tokens,
        convergence_score=0.0,
    )
    theirs = run(row.captum, records=[record]).data
    drawn = run(of_scores, scores=scores, tokens=tokens)
    for page in (theirs, explanation._repr_html_(), drawn._repr_html_()):
        shown = unescape(re.sub("<[^>]*>", " ", page))
        place = 0
        for word in ("A", "warm", "and", "funny", "film", "yet", "never", "dull"):
            found = re.compile(rf"\b{word}\b").search(shown, place)
            assert found, word
            place = found.end()
        assert explanation.prediction.name in shown or page == drawn._repr_html_()
    assert explanation.relevance_sum == pytest.approx(scores.sum(), rel=1e-4)


@checks("visualize_image_attr")
def maps_are_drawn_by_captum_too(row: Row) -> None:
    pytest.importorskip("PIL")
    as_array, of_picture = row.ours
    source = load_image_model()
    picture = draw_ship()
    inputs = source.transform(picture)[None]
    explanation = run(of_picture, picture=picture)
    index = explanation.target.index
    lrp = captum_transformer_lrp.AttnLRP(source.module)
    relevance = lrp.attribute(inputs, target=index)
    steps = captum.attr.IntegratedGradients(source.module)
    path = steps.attribute(inputs, target=index, n_steps=4).detach()

    small = np.asarray(picture.resize((32, 32)))
    for method in (path, relevance):
        array = run(as_array, relevance=method)
        _, axes = run(row.captum, map=array, picture=small)
        (image,) = axes.images
        drawn, summed = image.get_array(), np.abs(array.sum(2))
        assert drawn.shape == (32, 32)
        inside = drawn < drawn.max()  # Captum cuts the strongest off
        ratio = drawn[inside] / summed[inside]
        np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-4)
    assert explanation.scores.shape == (32, 32)
    np.testing.assert_allclose(
        explanation.scores, relevance[0].sum(0).numpy(), atol=1e-5
    )


@pytest.fixture(autouse=True)
def no_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """`visualize_image_attr` shows a figure; here nobody looks."""
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    monkeypatch.setattr(plt, "show", lambda: None)
    plt.close("all")
