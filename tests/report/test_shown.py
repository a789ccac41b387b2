"""Whatever shows itself does so everywhere: in HTML, figures, terminals, notebooks."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import pkgutil
import re
import sys
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image

import captum_transformer_lrp
from captum_transformer_lrp.attribution.named import NamedMethods
from captum_transformer_lrp.attribution.pair_relevance import PairRelevance, PairSide
from captum_transformer_lrp.checking.report import Check, CheckReport
from captum_transformer_lrp.comparison import Comparison, Conservation
from captum_transformer_lrp.core.composites import Composite
from captum_transformer_lrp.diffmask.history import History, Report, StateReport
from captum_transformer_lrp.explanations import Explanations
from captum_transformer_lrp.influence.ranking import (
    InfluentialExample,
    InfluentialExamples,
)
from captum_transformer_lrp.joint import JointExplanation
from captum_transformer_lrp.language import Passage, SourceRelevance
from captum_transformer_lrp.language.result import LLMRelevance
from captum_transformer_lrp.models import Piece
from captum_transformer_lrp.models.prediction import ClassScore
from captum_transformer_lrp.observers.trace import Record, Trace
from captum_transformer_lrp.report.blocks import Outline
from captum_transformer_lrp.report.colors import THEMES, to_hex
from captum_transformer_lrp.report.shown import Shown, Together
from captum_transformer_lrp.rules import Identity
from captum_transformer_lrp.sound import SoundExplanation
from captum_transformer_lrp.visualization import (
    draw_attention,
    draw_image,
    draw_image_grid,
    draw_layers,
    draw_matrix,
    draw_text,
)
from captum_transformer_lrp.visualization.states import KeptMap, kept_by_group
from tests.report.reading import ATTACK, Reader, style_of
from tests.visualization.samples import image_explanation, text_explanation

for package in ("jinja2", "matplotlib", "rich"):
    pytest.importorskip(package)

CONTROL = "a\x1b[31mb\x07\x9b2J\rc"
OBEYED = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


def explanations(text):
    target = ClassScore(index=1, name=text, logit=2.5, probability=0.9)
    words = text_explanation(
        "A warm film .",
        pieces=tuple(
            Piece(token=t, text=t, space_before=True) for t in ("A", text, "film")
        ),
        scores=[0.1, -2.0, 1.0],
        text=f"A {text} film",
        model=text,
        method=text,
        target=target,
        prediction=target,
        notes=(text,),
    )
    picture = image_explanation(target=target, model=text, notes=(text,))
    return words, picture


def sound(text):
    target = ClassScore(index=0, name=text, logit=2.5, probability=0.9)
    rng = np.random.default_rng(0)
    return SoundExplanation(
        model=text,
        method=text,
        prediction=target,
        target=target,
        notes=(text,),
        scores=rng.normal(size=(40, 20)),
        sound=rng.normal(size=(40, 20)),
        sampling_rate=1000,
        hop=10,
        seconds=0.3,
        behind=text,
        spoken=(0.1, 0.2),
    )


def joint(words, picture):
    return JointExplanation(
        parts_of={"picture": picture, words.text: words},
        model=words.model,
        method=words.method,
        prediction=words.prediction,
        target=words.target,
        notes=words.notes,
    )


def outlined(picture, text):
    box = Outline.of_box(text, 2, 2, 9, 7)
    return dataclasses.replace(picture, outlines=(box,))


def language(text):
    weights = torch.tensor([[0.5, -0.25, 0.1], [0.2, 0.3, -0.4]])
    return LLMRelevance(
        token_attr=weights,
        seq_attr=weights.sum(0),
        input_tokens=["Ġthe", f"Ġ{text}", "Ġis"],
        output_tokens=["Ġa", f"Ġ{text}"],
        scores=torch.ones(2),
        log_probs=torch.tensor([-0.1, -0.2]),
        generated_attr=torch.zeros(2, 2),
        start_attr=torch.zeros(2, 0),
        skipped_attr=torch.zeros(2),
    )


def sources(text):
    prompt, draw = f"the {text} film. is it {text}?", torch.Generator().manual_seed(0)
    half = prompt.index("is")
    found = []
    for spans, hops in (([(0, 4)], 1), ([(0, 1), (2, 4)], 0)):
        shape = (hops + 1, len(spans))
        found.append(
            SourceRelevance(
                prompt=prompt,
                answer=f"a {text}",
                input_tokens=["Ġthe", f"Ġ{text}", "Ġfilm", "Ġis", "Ġit", f"Ġ{text}"],
                output_tokens=["Ġa", f"Ġ{text}"],
                spans=[
                    Passage(start=s, end=e, text=f"a {text}"[s:e]) for s, e in spans
                ],
                span_tokens=torch.ones(len(spans), 2, dtype=torch.bool),
                sources=[
                    Passage(start=0, end=half, text=prompt[:half], name=text),
                    Passage(start=half, end=len(prompt), text=prompt[half:]),
                ],
                source_of=torch.tensor([0, 0, -1, 1, 1, -2]),
                hop_attr=torch.randn(*shape, 6, generator=draw),
                hop_generated=torch.randn(*shape, 2, generator=draw),
                hop_start=torch.zeros(*shape),
                sent_on=torch.ones(2, dtype=torch.bool),
                scores=torch.ones(len(spans)),
                log_probs=-torch.ones(2),
                explained=text,
                method=text,
            )
        )
    return found


def pairs(text):
    pieces = tuple(
        Piece(token=t, text=t, special=t == "[CLS]", space_before=True)
        for t in ("[CLS]", text, "film")
    )
    patches = tuple(Piece(token=t, text=t, space_before=True) for t in "1234")
    picture = PairSide(
        pieces=patches,
        grid=(2, 2),
        image=Image.new("RGB", (8, 8), "teal"),
        part="patch",
    )
    words = PairSide(pieces=pieces)
    found = []
    for a, b in ((words, words), (words, picture), (picture, words), (picture,) * 2):
        matrix = torch.linspace(-1, 2, (len(a) + 1) * (len(b) + 1)).double()
        matrix = matrix.reshape(len(a) + 1, len(b) + 1)
        found.append(
            PairRelevance(
                matrix=matrix,
                a=a,
                b=b,
                similarity=float(matrix.sum()),
                measure="cosine similarity",
                model=text,
                method=text,
                standard_error=matrix.abs() / 10,
                projections=8,
                over="projections",
            )
        )
    return found


def trace(text):
    records = tuple(
        Record(i, f"{text}.{i}", text, text, text, ((1, 2),), (1, 2), 1.0, 0.5, 0.25)
        for i in range(40)
    )
    return Trace(method=text, score=1.0, relevance=0.5, records=records)


def samples(text):
    """One result of each kind, with ``text`` wherever there is one from outside."""
    words, picture = explanations(text)
    tokens = ["[CLS]", "un", "##told", text]
    pieces = tuple(Piece(token=t, text=t, space_before=True) for t in tokens)
    kept = KeptMap(
        model=text,
        text=text,
        pieces=pieces,
        states=(f"{text} (input)", "b (input)"),
        kept=np.array([[1.0, 0.9, 0.8, 0.7], [0.4, 0.3, 0.2, 0.1]]),
        prediction=ClassScore(index=0, name=text, logit=1.0, probability=0.5),
        mode="hidden",
        margin=0.05,
        masks=text,
        notes=(text,),
    )
    composite = Composite(text, {"gelu": Identity()}, source=text)
    named = NamedMethods()
    named.register("mine", composite)
    scores = np.array([5.0, 1.0, 0.5, -1.0])
    examples = [
        InfluentialExample(index=i, example=one, label=text, score=0.5 - i)
        for i, one in enumerate((text, Image.new("RGB", (8, 8), "teal")))
    ]
    state = StateReport(text, 0.01, 0.1, 0.5, 0.9, 2.0, 0.05, 7)
    return [
        words,
        picture,
        sound(text),
        joint(words, outlined(picture, text)),
        Explanations([words, words], said=text, notes=(text,)),
        Comparison(
            explanations=(words, words),
            conservation=(
                None,
                Conservation(score=2.5, relevance=2.0, absorbed=0.5, error=1e-7),
            ),
        ),
        draw_text(scores, tokens, title=text, unit=text),
        draw_layers([scores, scores], tokens, layers=[text, "b"], title=text),
        draw_matrix(np.outer(scores, scores), tokens, tokens, title=text, unit=text),
        draw_attention(np.full((1, 4, 4), 0.25), tokens, view="lines", title=text),
        draw_image(torch.rand(3, 8, 8), torch.randn(2, 2), title=text, unit=text),
        draw_image_grid(
            torch.rand(1, 3, 8, 8), {text: torch.randn(1, 2, 2)}, captions=[text]
        ),
        kept,
        kept_by_group([kept], lambda piece: text, name=text),
        composite,
        named,
        trace(text),
        CheckReport(
            model=text,
            dtype="torch.float32",
            measured_in="torch.float64",
            checks=(
                Check(name="balance", outcome="pass", sentence=text, measured=1e-9),
                Check(name="rules", outcome="fail", sentence=text, details=(text,)),
            ),
        ),
        InfluentialExamples(
            title=text, question=text, measure=text, rows=tuple(examples)
        ),
        language(text),
        *sources(text),
        *pairs(text),
        History(steps=3, stopped=text, report=Report((state,), data=text)),
        Report((state,), data=text),
        Together([words, picture]),
    ]


@cache
def attacked():
    return samples(ATTACK)


NAMES = [type(one).__name__ for one in samples("word")]
every = pytest.mark.parametrize("number", range(len(NAMES)), ids=NAMES)


@pytest.mark.filterwarnings("ignore:captum_transformer_lrp.propagation has moved")
def test_there_is_a_sample_of_everything_that_shows_itself():
    root = captum_transformer_lrp
    for module in pkgutil.walk_packages(root.__path__, f"{root.__name__}."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ImportError):  # of an extra
                importlib.import_module(module.name)

    def below(kind):
        for one in kind.__subclasses__():
            yield one
            yield from below(one)

    kinds = {
        kind.__name__
        for kind in below(Shown)
        if not kind.__abstractmethods__ and kind.__module__.startswith(root.__name__)
    }
    assert kinds == set(NAMES)


@every
def test_a_page_and_a_fragment_hold_no_markup_from_outside(number):
    one = attacked()[number]
    page = one.to_html(title=ATTACK, lead=ATTACK)
    fragment = one._repr_html_()
    for html, scripts in ((page, 1), (fragment, 0)):
        found = Reader(html)
        assert len(found.named("script")) == scripts
        assert not any("onerror" in attributes for _, attributes in found.tags)
        assert all(a["src"].startswith("data:image/") for a in found.named("img"))
        assert ATTACK not in html and "url(" not in html and "@import" not in html
        assert "http" not in html
    assert ("<html" in page, "<html" in fragment) == (True, False)


@every
def test_the_whole_is_said_in_words(number):
    one = attacked()[number]
    assert len(one.alt) > 10 and one.alt[-1] in ".?!>"
    labels = [a["aria-label"] for a in Reader(one._repr_html_()).named("article")]
    assert labels and all(labels)
    if len(one.cards()) == 1:
        assert labels == [one.alt]
    with Image.open(io.BytesIO(one.to_png(dpi=30))) as image:
        alt = " ".join(card.alt for card in one.cards())
        assert image.info["Description"] == alt


@every
def test_words_and_cells_keep_their_colours_without_a_style_sheet(number):
    page = Reader(attacked()[number]._repr_html_())
    painted = [a for _, a in page.tags if "--l:" in a.get("style", "")]
    for attributes in painted:
        style = style_of(attributes)
        assert re.fullmatch("#[0-9a-f]{6}", style["background-color"])
        assert re.fullmatch("#[0-9a-f]{6}", style["color"])
    classes = [a.get("class", "").split() for _, a in page.tags]
    cells = sum("t" in c or "p" in c or "shade" in c for c in classes)
    assert len(painted) == cells


@every
def test_figures_in_both_themes_stay_on_their_page(number):
    one = attacked()[number]
    for theme, colors in THEMES.items():
        for heading in (True, False):
            figure = one.plot(theme=theme, heading=heading)
            assert to_hex(figure.get_facecolor()[:3]) == colors.paper
            figure.canvas.draw()
            width, height = figure.canvas.get_width_height()
            for text in figure.texts:
                box = text.get_window_extent()
                assert box.x0 >= -1 and box.x1 <= width + 1, text.get_text()
                assert box.y0 >= -1 and box.y1 <= height + 1, text.get_text()


@every
@pytest.mark.parametrize("width", [40, 88])
def test_terminals_of_any_width(number, width):
    from rich.cells import cell_len

    one = attacked()[number]
    text = one.to_text(width=width)
    assert text and max(map(cell_len, text.split("\n"))) <= width
    assert "\x1b" not in text
    colored = re.sub(r"\x1b\[[\d;]*m", "", one.to_text(color=True, width=width))
    assert max(map(cell_len, colored.split("\n"))) <= width


@every
def test_nothing_that_a_terminal_obeys_is_printed(number):
    one = samples(CONTROL)[number]
    written = (one.to_text(), str(one), one._repr_mimebundle_()["text/plain"])
    for text in written:
        assert text and not OBEYED.search(text)
    colored = re.sub(r"\x1b\[[\d;]*m", "", one.to_text(color=True))
    assert not OBEYED.search(colored)


@every
def test_a_notebook_gets_html_a_picture_and_text(number):
    one = attacked()[number]
    bundle = one._repr_mimebundle_()
    assert set(bundle) == {"text/html", "image/png", "text/plain"}
    ids = re.compile(r"\bx[0-9a-f]{12}\b")
    assert ids.sub("", bundle["text/html"]) == ids.sub("", one._repr_html_())
    with Image.open(io.BytesIO(bundle["image/png"])) as image:
        assert image.format == "PNG"
    lines = bundle["text/plain"].split("\n")
    assert bundle["text/plain"].strip() and len(lines) <= 24
    assert re.search(r"\d", bundle["text/plain"]) or number in (
        NAMES.index("Composite"),
        NAMES.index("NamedMethods"),
    )


def test_neither_pyplot_nor_its_state_is_needed():
    loaded = "matplotlib.pyplot" in sys.modules
    for one in attacked():
        one.plot()
    assert ("matplotlib.pyplot" in sys.modules) == loaded


def test_several_results_are_one_page_one_fragment_and_one_picture(tmp_path):
    both = Together([attacked()[0], attacked()[1]], title="Two", lead="Below")
    page = Reader(both.to_html())
    labels = [one.alt for one in both.shown]
    assert [a["aria-label"] for a in page.named("article")] == labels
    assert "Two" in page.written and "Below" in page.written
    assert len(Reader(both._repr_html_()).named("article")) == 2
    assert both.to_text().count("Why") == 2
    for kind, start in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")):
        path = both.save(tmp_path / f"both.{kind}", theme="dark", dpi=40)
        assert path.read_bytes().startswith(start)
