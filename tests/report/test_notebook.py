"""Results among a notebook's own rules, in a real browser: laid out, legible, sized."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
import torch

from captum_transformer_lrp.comparison import Comparison
from captum_transformer_lrp.language.result import LLMRelevance
from captum_transformer_lrp.report.colors import contrast_ratio, to_hex
from captum_transformer_lrp.report.shown import Together
from captum_transformer_lrp.visualization import (
    draw_attention,
    draw_layers,
    draw_matrix,
)
from tests.visualization.samples import image_explanation, text_explanation

pytest.importorskip("jinja2")
playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright, which drives the browser"
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")

# What these notebooks ask of all HTML in an output, and how they say which theme it is.
STRIPES = """
  dl { display: block; } dt { float: left; clear: left; width: 20%; font-weight: 700; }
  dd { float: left; width: 70%; }
  table { table-layout: fixed; border-collapse: collapse; font-size: 13px; }
  td, th, tr { text-align: right; padding: .5em; border: none; }
  tr:nth-child(even), tr:hover { background: var(--stripe); }
  thead { background: var(--stripe); font-weight: 700; }
  img { max-width: 100%; height: auto; } h2, h3 { margin: 1em 0; font-weight: 400; }
"""
JUPYTERLAB = f".jp-RenderedHTMLCommon.jp-OutputArea-output {{ {STRIPES} }}"
VSCODE = STRIPES + "table, thead, tr, th, td, tbody { border: none !important; }"
COLAB = f".rendered_html {{ {STRIPES} }} [hidden] {{ display: none !important; }}"
PLACES = {
    "jupyterlab": ('<html><body data-jp-theme-light="{light}">', JUPYTERLAB),
    "vscode": ('<html><body class="vscode-{name}">', VSCODE),
    "colab": ('<html theme="{name}"><body>', COLAB),
}
OUTPUT = "jp-RenderedHTMLCommon jp-OutputArea-output rendered_html"

# What JupyterLab leaves of an output that it does not trust.
SANITIZE = """() => {
  document.querySelectorAll("#output style").forEach((e) => e.remove());
  document.querySelectorAll("#output svg").forEach(
    (e) => e.replaceWith(e.textContent));
  document.querySelectorAll("#output *").forEach((e) => {
    for (const name of e.getAttributeNames()) {
      if (/^data-|^aria-|^role$|^tabindex$/.test(name)) e.removeAttribute(name);
    }
    for (const name of [...e.style]) {
      const value = e.style.getPropertyValue(name);
      if (name.startsWith("--") || /gradient|minmax/.test(value)) {
        e.style.removeProperty(name);
      }
    }
  });
}"""
# Ink and ground of each element that is seen and has text of its own.
LEGIBILITY = """() => {
  const grounds = (e) => {
    for (; e; e = e.parentElement) {
      const found = getComputedStyle(e).backgroundColor;
      if (found !== "rgba(0, 0, 0, 0)") return found;
    }
  };
  return [...document.querySelectorAll("#output *")].filter((e) =>
    e.checkVisibility() && !e.closest("style, svg") &&
    [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())
  ).map((e) => [e.textContent.trim(), getComputedStyle(e).color, grounds(e)]);
}"""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def fragment():
    rng = np.random.default_rng(0)
    tokens = ["[CLS]", "a", "warm", "film", "[SEP]"]
    other = text_explanation(method="CP-LRP", scores=[1, 2, -1, 3, 0, 0])
    shown = Together(
        [
            text_explanation(notes=("The end was cut off.",)),
            Comparison(
                explanations=(text_explanation(), other), conservation=(None, None)
            ),
            image_explanation(64, 64, (8, 8)),
            draw_layers(rng.normal(size=(3, 5)), tokens),
            draw_matrix(rng.random((5, 5)), tokens, tokens),
            draw_attention(torch.rand(1, 2, 5, 5), tokens),
            draw_attention(torch.rand(1, 2, 5, 5), tokens, view="lines", heads=0),
            answer(),
        ]
    )
    return shown._repr_html_()


def answer():
    rows = torch.arange(6.0).reshape(2, 3) - 2
    return LLMRelevance(
        token_attr=rows,
        seq_attr=rows.sum(0),
        input_tokens=["The", "Ġcapital", "Ġis"],
        output_tokens=["ĠParis", "."],
        scores=torch.ones(2),
        log_probs=torch.full((2,), -0.5),
        generated_attr=torch.zeros(2, 2),
        start_attr=torch.zeros(2, 0),
        skipped_attr=torch.zeros(2),
    )


@pytest.fixture
def show(browser, fragment):
    page = browser.new_page(viewport={"width": 1000, "height": 900})
    page.set_default_timeout(10_000)

    def go(place, theme="light", *, trusted=True):
        start, rules = PLACES[place]
        start = start.format(name=theme, light=str(theme == "light").lower())
        paper, stripe, ink = {
            "light": ("#fff", "#f5f5f5", "#222"),
            "dark": ("#111", "#212121", "#fff"),
        }[theme]
        own = f"body {{ background: {paper}; color: {ink}; --stripe: {stripe}; }}"
        page.set_content(
            f"<!doctype html>{start}<style>{own} {rules}</style>"
            f'<div id="output" class="{OUTPUT}">{fragment}</div>'
        )
        if not trusted:
            page.evaluate(SANITIZE)
        return page

    yield go
    page.close()


def style(page, selector, name):
    found = f"e => getComputedStyle(e).getPropertyValue('{name}')"
    return page.locator(selector).first.evaluate(found)


def colour(written):
    channels = [int(value) / 255 for value in re.findall(r"\d+", written)[:3]]
    return to_hex(channels)


def check_legible(page):
    found = page.evaluate(LEGIBILITY)
    assert len(found) > 100
    poor = [
        (text, ink, ground)
        for text, ink, ground in found
        if contrast_ratio(colour(ink), colour(ground)) < 4.5
    ]
    assert poor == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("place", PLACES)
def test_the_style_is_stronger_than_the_notebooks(show, place, theme):
    page = show(place, theme)
    assert style(page, "dl", "display") == "grid"
    assert style(page, "dt", "float") == "none"
    assert style(page, "tbody tr", "background-color") == "rgba(0, 0, 0, 0)"
    assert style(page, "thead", "background-color") == "rgba(0, 0, 0, 0)"
    assert style(page, "th.word", "text-align") == "left"
    assert (
        style(page, ".t", "background-color")
        == {
            "light": "rgb(127, 180, 234)",
            "dark": "rgb(37, 99, 168)",
        }[theme]
    )
    width = page.locator(".pictures figure").first.bounding_box()["width"]
    assert 150 < width < 320
    assert page.locator(".unstyled:visible").count() == 0
    for drawn in (".pairs svg", ".matrix .columns"):
        assert page.locator(drawn).first.is_visible()
    check_legible(page)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_what_a_notebook_that_is_not_trusted_leaves_is_legible(show, theme):
    page = show("jupyterlab", theme, trusted=False)
    assert style(page, ".t", "background-color") == "rgb(127, 180, 234)"
    assert style(page, "dt", "float") == "none"
    assert page.locator(".pictures figure").first.bounding_box()["width"] <= 250
    assert page.locator(".matrix img").first.bounding_box()["width"] > 200
    for nonsense in (".pairs", ".matrix .columns", ".pick input"):
        assert not page.locator(nonsense).first.is_visible()
    assert page.locator(".unstyled:visible").count() == 2
    assert page.locator(".page:visible").count() == 1
    bars = [
        bar.bounding_box() for bar in page.locator(".track i").all() if bar.is_visible()
    ]
    assert max(bar["width"] for bar in bars) > 80
    assert all(bar["height"] > 8 for bar in bars)
    check_legible(page)


def test_a_trusted_output_does_not_style_one_that_is_not(show, fragment):
    page = show("jupyterlab", trusted=False)
    page.evaluate(
        "html => document.body.insertAdjacentHTML('beforeend', html)", fragment
    )
    assert style(page, "#output .t", "background-color") == "rgb(127, 180, 234)"
    assert not page.locator("#output .pairs").is_visible()


@pytest.mark.parametrize("place", PLACES)
def test_tokens_are_picked_by_mouse_and_by_key(show, place):
    page = show(place)
    shown = page.locator(".page:visible h3")
    assert shown.all_inner_texts() == ["The whole answer"]
    page.locator(".pick", has_text="Paris").click()
    assert "Paris" in shown.inner_text()
    page.keyboard.press("ArrowRight")
    assert "Paris" not in shown.inner_text()
    page.keyboard.press("ArrowLeft")
    assert "Paris" in shown.inner_text()
