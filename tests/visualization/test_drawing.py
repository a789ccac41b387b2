"""Pictures of scores of any attributor: numbers, shapes, files, and what they say."""

from __future__ import annotations

import io
import re
import sys
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from captum.attr import IntegratedGradients, LLMAttributionResult
from torch import nn

from captum_transformer_lrp.errors import InputError, UnknownNameError
from captum_transformer_lrp.models import pieces_of_tokens
from captum_transformer_lrp.report.blocks import pool_largest
from captum_transformer_lrp.report.colors import THEMES, contrast_ratio, find_theme
from captum_transformer_lrp.visualization import (
    draw_attention,
    draw_heads,
    draw_image,
    draw_layers,
    draw_matrix,
    draw_text,
)
from tests.report.reading import Reader

TOKENS = ["[CLS]", "un", "##told", "joy", "<script>", "[SEP]"]
SCORES = [5.0, 1.0, 0.5, -1.0, 0.25, 0.0]
UNKNOWN_VIEW: Any = "arc"
HOSTILE = "<script>alert(1)</script>"


def attention(heads=3, queries=6, keys=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, heads, queries, keys, generator=generator).softmax(-1)


def samples():
    """One picture of each kind, each with a hostile token where it has tokens."""
    tokens = [*TOKENS[:4], HOSTILE, "[SEP]"]
    square = np.outer(SCORES, SCORES)
    return {
        "text": draw_text(tokens, SCORES, title=HOSTILE, unit=HOSTILE),
        "texts": draw_text(
            [tokens, tokens], [SCORES, np.abs(SCORES)], names=[HOSTILE, "b"]
        ),
        "layers": draw_layers([SCORES, SCORES], tokens, layers=[HOSTILE, "b"]),
        "heads": draw_heads([[1.0, -2.0], [0.0, 4.0]]),
        "matrix": draw_matrix(square, tokens, tokens, title=HOSTILE),
        "attention": draw_attention([attention()], tokens),
        "lines": draw_attention([attention()], tokens, heads=1, view="lines"),
        "overlay": draw_image(torch.rand(3, 8, 8), square[:4, :4], title=HOSTILE),
        "beside": draw_image(
            torch.rand(3, 8, 8), torch.randn(3, 8, 8), style="side-by-side"
        ),
        "contours": draw_image(
            torch.rand(8, 8), torch.randn(8, 8), style="contours", unit=HOSTILE
        ),
        "heat": draw_image(torch.rand(1, 8, 8), torch.randn(8, 8), style="heat"),
    }


KINDS = list(samples())


# ------------------------------------------------------------------------------- text


def words_of(picture):
    (text,) = picture.texts
    return [(w.text, round(w.score, 6)) for w in text.words]


def test_pieces_are_summed_to_words():
    assert words_of(draw_text(TOKENS, SCORES)) == [
        ("[CLS]", 5.0),
        ("untold", 1.5),
        ("joy", -1.0),
        ("<script>", 0.25),
        ("[SEP]", 0.0),
    ]


@pytest.mark.parametrize(
    ("scores", "tokens"),
    [
        (SCORES, TOKENS),
        (torch.tensor([[1.0, -2.0]]), ["un", "##told"]),
        ([1.0, 0.0], pieces_of_tokens(["a", "b"])),
        ([[1.0], [2.0]], [["a"], ["b"]]),
        ((torch.ones(1), torch.ones(1)), (("a",), ("b",))),
    ],
)
def test_scores_come_first_and_may_come_second(scores: Any, tokens: Any) -> None:
    picture = draw_text(scores, tokens)
    for same in (draw_text(tokens, scores), draw_text(tokens=tokens, scores=scores)):
        assert repr(same.texts) == repr(picture.texts)
    total = sum(word.score for text in picture.texts for word in text.words)
    numbers = scores if isinstance(scores, torch.Tensor) else np.array(scores)
    assert total == pytest.approx(float(numbers.sum()))


@pytest.mark.parametrize(
    ("merge", "untold"), [("sum", -1.0), ("mean", -0.5), ("largest", -2.0)]
)
def test_rules_of_merging(merge, untold):
    picture = draw_text(["un", "##told"], [1.0, -2.0], merge=merge)
    assert words_of(picture) == [("untold", untold)]
    assert "its pieces" in picture.notes[0]
    assert len(words_of(draw_text(["un", "##told"], [1.0, -2.0], merge="none"))) == 2


@pytest.mark.parametrize(
    ("tokens", "shown"),
    [
        (["▁Par", "is", "▁now"], ["Paris", "now"]),
        (["Par", "is", "Ġnow", "Ċ"], ["Paris", "now", "↵"]),
        (["ä½", "ł", "å¥½"], ["你", "好"]),
        (["▁", "<0xE4>", "<0xBD>", "<0xA0>"], ["␣", "你"]),
        (["par", "is</w>", "now</w>"], ["paris", "now"]),
        (["par@@", "is", "now"], ["paris", "now"]),
        (["你", "好", "café"], ["你", "好", "café"]),
        (["Ø§ÙĦÙģ", "ÙĬÙĦÙħ"], ["الفيلم"]),
        (["it"], ["it"]),
    ],
)
def test_marks_of_tokenizers(tokens, shown):
    picture = draw_text(tokens, np.ones(len(tokens)))
    assert [label for label, _ in words_of(picture)] == shown
    assert sum(score for _, score in words_of(picture)) == len(tokens)


def test_chinese_characters_have_no_space_between_them():
    (text,) = draw_text(["你", "好", "film"], np.ones(3)).texts
    assert text.text == "你好 film"


@pytest.mark.parametrize(
    "scores",
    [
        SCORES,
        np.asarray(SCORES, dtype=np.float32),
        torch.tensor(SCORES, dtype=torch.bfloat16, requires_grad=True),
        torch.tensor(SCORES)[None],
        torch.stack([torch.tensor(SCORES) / 4] * 4, -1),
        torch.stack([torch.tensor(SCORES) / 4] * 4, -1)[None],
        (torch.tensor(SCORES)[None],),
    ],
)
def test_scores_of_any_shape(scores):
    assert words_of(draw_text(TOKENS, scores))[1] == ("untold", 1.5)


def test_features_are_reduced_by_the_named_rule():
    scores = torch.tensor([[[3.0, -4.0]]])
    for rule, expected in (("sum", -1.0), ("norm", 5.0), ("mean", -0.5)):
        assert words_of(draw_text(["a"], scores, features=rule)) == [("a", expected)]


def test_added_tokens_do_not_set_the_scale():
    picture = draw_text(TOKENS, SCORES)
    assert picture.texts[0].scale.limit == 1.5
    assert "[CLS] with +5.00" in " ".join(picture.notes)
    assert draw_text(["[CLS]"], [2.0]).texts[0].scale.limit == 2.0


def test_several_texts_share_a_scale_or_have_their_own():
    texts, scores = [["a"], ["b", "c"]], [[1.0], [4.0, -2.0]]
    shared = draw_text(texts, scores)
    assert [t.scale.limit for t in shared.texts] == [4.0, 4.0]
    own = draw_text(texts, scores, scale="each")
    assert [(t.scale.limit, t.scale.signed) for t in own.texts] == [
        (1.0, False),
        (4.0, True),
    ]


@pytest.mark.filterwarnings("ignore:matplotlib .* neither joins:UserWarning")
def test_the_order_of_right_to_left_words():
    figure = draw_text(["שלום", "hello", "world", "עולם"], np.ones(4)).figure()
    place = {text.get_text(): text.get_position()[0] for text in figure.texts}
    assert place["שלום"] > place["world"] > place["hello"] > place["עולם"]


def test_the_direction_of_a_page_is_that_of_the_text():
    page = draw_text([["[CLS]", "שלום"], ["[CLS]", "film"]], [[1, 1], [1, 1]]).to_html()
    assert page.index('dir="rtl"') < page.index('dir="ltr"')


def test_words_wider_than_the_page_are_broken():
    figure = draw_text(["x" * 500, "y"], [1.0, -1.0]).figure()
    figure.canvas.draw()
    written = "".join(t.get_text() for t in figure.texts if set(t.get_text()) == {"x"})
    assert written == "x" * 500
    right = figure.canvas.get_width_height()[0]
    assert all(text.get_window_extent().x1 <= right for text in figure.texts)


# ------------------------------------------------------------------------------- grids


def test_layers_take_what_layer_methods_return():
    layers = [torch.ones(1, 6, 2), torch.full((1, 6, 2), -2.0)]
    picture = draw_layers(layers, TOKENS)
    (panel,) = picture.panels
    assert panel.values.tolist() == [[2.0] * 6, [-4.0] * 6]
    assert picture.rows.labels == ("0", "1")
    assert picture.columns.labels == (
        "[CLS]",
        "un",
        "-told",
        "joy",
        "<script>",
        "[SEP]",
    )
    assert draw_layers(np.ones((2, 3))).columns.labels == ("0", "1", "2")


def test_heads_by_layer_or_by_token():
    by_layer = draw_heads([torch.ones(1, 4), torch.ones(1, 4)])
    assert by_layer.panels[0].values.shape == (2, 4)
    by_token = draw_heads(torch.ones(1, 4, 6), TOKENS)
    assert (len(by_token.rows), len(by_token.columns)) == (4, 6)


def test_a_result_of_captum_brings_its_tokens():
    result = LLMAttributionResult(
        input_tokens=["ĠParis", "Ġis"],
        output_tokens=["Ġa", "Ġcity", "."],
        seq_attr=torch.tensor([3.0, 0.0]),
        token_attr=torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 0.0]]),
    )
    picture = draw_matrix(result)
    assert picture.rows.labels == ("a", "city", ".")
    assert picture.columns.labels == ("Paris", "is")
    assert picture.strongest(1) == [("“city”, “Paris”", 2.0)]
    result.token_attr = None
    assert draw_matrix(result).panels[0].values.tolist() == [[3.0, 0.0]]


def test_the_largest_of_many_cells_stays_visible():
    values = np.zeros((500, 300))
    values[123, 45], values[400, 299] = -3.0, 2.0
    pooled = pool_largest(values, (50, 40))
    assert pooled.shape == (50, 40)
    assert (pooled.min(), pooled.max()) == (-3.0, 2.0)
    assert np.count_nonzero(pooled) == 2
    assert pool_largest(values, (500, 300)) is values


def test_long_grids_are_cut_before_words():
    tokens = [t for i in range(100) for t in (f"w{i}", "##x")]
    picture = draw_layers(np.ones((2, 200)), tokens)
    for run in picture.columns.runs(33):
        assert run.stop - run.start <= 33
        assert not picture.columns.labels[run.start].startswith("-")


# --------------------------------------------------------------------------- attention


class Layer:
    def __init__(self, tensor):
        self.attention = tensor


@pytest.mark.parametrize(
    "maps",
    [
        (attention(seed=1), attention(seed=0)),
        torch.stack([attention(seed=1), attention(seed=0)]),
        [attention(seed=0)[0]],
        attention(seed=0),
        attention(seed=0)[0].numpy(),
        (Layer(attention(seed=1)), Layer(attention(seed=0))),
        (None, attention(seed=0)),
    ],
)
def test_maps_of_any_source(maps):
    picture = draw_attention(maps, TOKENS, heads=[2, 0])
    expected = attention(seed=0)[0].double().numpy()
    assert [p.name for p in picture.panels] == ["head 2", "head 0"]
    assert np.array_equal(picture.panels[0].values, expected[2])
    lines = draw_attention(maps, TOKENS, view="lines")
    assert np.allclose(lines.weights, expected.mean(0))


def test_cross_attention_has_other_keys():
    picture = draw_attention(attention(keys=2), TOKENS, ["a", "b"], view="lines")
    assert picture.right.labels == ("a", "b")
    with pytest.raises(InputError, match="Pass keys="):
        draw_attention(attention(keys=2), TOKENS)


def test_the_heaviest_lines_are_drawn():
    weights = torch.zeros(1, 6, 6)
    weights[0, 2, 3], weights[0, 1, 4], weights[0, 0, 0] = 1.0, 0.5, 0.01
    picture = draw_attention(weights, TOKENS, view="lines")
    assert picture.lines == ((1, 4, 0.5), (2, 3, 1.0))
    assert picture.notes == ("The 2 largest of 3 weights are drawn as lines.",)


# ------------------------------------------------------------------------------ images


def test_images_of_all_forms_are_the_same():
    pixels = torch.rand(3, 6, 10, dtype=torch.float64)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.2, 0.1)
    normalised = (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[
        :, None, None
    ]
    as_bytes = (255 * pixels).round().byte().permute(1, 2, 0).numpy()
    given = [
        draw_image(pixels, np.ones((6, 10))),
        draw_image(pixels[None], np.ones((6, 10))),
        draw_image(pixels.permute(1, 2, 0).numpy(), np.ones((6, 10))),
        draw_image(as_bytes, np.ones((6, 10))),
        draw_image(PIL.Image.fromarray(as_bytes), np.ones((6, 10))),
        draw_image(normalised, np.ones((6, 10)), mean=mean, std=std),
    ]
    for picture in given:
        assert np.array_equal(np.asarray(picture.image), as_bytes)
        assert picture.notes == ()
    stretched = draw_image(normalised, np.ones((6, 10)))
    assert "stretched" in stretched.notes[0]


@pytest.mark.parametrize(
    ("scores", "grid", "expected"),
    [
        (torch.ones(1, 3, 6, 10), None, (6, 10)),
        (np.ones((6, 10, 3)), None, (6, 10)),
        (torch.ones(1, 1, 2, 5), None, (2, 5)),
        (torch.ones(1, 11), (2, 5), (2, 5)),
        (torch.ones(1, 11, 3), (2, 5), (2, 5)),
        (torch.ones(10), (2, 5), (2, 5)),
        (torch.ones(2, 5), (2, 5), (2, 5)),
    ],
)
def test_scores_of_pixels_and_patches(scores, grid, expected):
    picture = draw_image(torch.rand(3, 6, 10), scores, patch_grid=grid)
    assert picture.scores.shape == expected
    assert set(picture.scores.ravel().tolist()) <= {1.0, 3.0}


def test_tokens_before_the_patches_are_left_out():
    picture = draw_image(torch.rand(4, 4), [9.0, 1, 2, 3, 4], patch_grid=(2, 2))
    assert picture.scores.tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_outliers_may_lie_beyond_the_scale():
    scores = np.ones((10, 10))
    scores[0, 0] = 100.0
    picture = draw_image(np.zeros((10, 10)), scores, outliers=5)
    assert picture.scale.limit == 1.0
    assert picture.notes == ("1 of 100 scores lie beyond the colour scale.",)


@pytest.mark.parametrize("kind", ["text", "layers", "matrix"])
def test_notes_stand_below_the_scores_everywhere(kind):
    picture = samples()[kind]
    assert "Scores beyond the colour scale" in picture.notes[-1]
    page = Reader(picture.to_html()).written
    drawn = " ".join(text.get_text() for text in picture.figure().texts)
    for note in picture.notes:
        words = " ".join(note.split())
        assert words in page and words in str(picture)
        assert words in " ".join(picture.to_text(width=400).split())
        assert words in " ".join(drawn.split())
    bare = " ".join(t.get_text() for t in picture.plot(heading=False).texts)
    assert "beyond the colour scale" not in bare


def test_contours_say_what_their_lines_are():
    contours = samples()["contours"]
    said = "Lines at 25, 50 and 75 % of the largest magnitude"
    assert any(said in t.get_text() for t in contours.figure().texts)
    page = contours.to_html()
    assert f"<figcaption>{said}" in page and 'class="smooth"' in page
    assert said in contours.to_text()
    assert "as contour lines" in contours.alt


# ---------------------------------------------------------------------------- every one


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_escapes_what_people_type(kind):
    picture = samples()[kind]
    for page, own in ((picture._repr_html_(), 0), (picture.to_html(), 1)):
        assert len(Reader(page).named("script")) == own
        assert HOSTILE not in page


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn_in_both_themes_and_nothing_leaves_the_page(kind):
    picture = samples()[kind]
    for name, theme in THEMES.items():
        figure = picture.figure(name)
        figure.canvas.draw()
        width, height = figure.canvas.get_width_height()
        red, green, blue, _ = figure.get_facecolor()
        ground = "#" + "".join(f"{round(255 * c):02x}" for c in (red, green, blue))
        assert ground == theme.paper
        for text in figure.texts:
            box = text.get_window_extent()
            assert box.x0 >= 0 and box.x1 <= width, text.get_text()
            assert box.y0 >= 0 and box.y1 <= height, text.get_text()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_saved_with_its_words(kind, tmp_path):
    picture = samples()[kind]
    assert len(picture.alt) > 40 and picture.alt.endswith(".")
    png = picture.save(tmp_path / "a.png", theme="dark", dpi=40)
    with PIL.Image.open(png) as image:
        assert image.info["Description"] == picture.alt
    svg = picture.save(tmp_path / "a.svg").read_text(encoding="utf-8")
    words = picture.alt.replace("&", "&amp;").replace("<", "&lt;")
    assert words.replace(">", "&gt;") in svg
    pdf = picture.save(tmp_path / "a.pdf").read_bytes()
    assert pdf.startswith(b"%PDF") and b"/Subject" in pdf
    page = picture.save(tmp_path / "a.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "http" not in page.replace("http://www.w3.org", "")
    assert str(picture)


def test_pyplot_knows_none_of_them():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    before = pyplot.get_fignums()
    for picture in samples().values():
        picture.figure()
    assert pyplot.get_fignums() == before
    assert "matplotlib.pyplot" in sys.modules


def test_all_inks_are_readable():
    for theme in THEMES.values():
        assert contrast_ratio(theme.soft, theme.paper) >= 4.5
        assert contrast_ratio(theme.ink, theme.paper) >= 7
        for color in (theme.positive_line, theme.negative_line):
            assert contrast_ratio(color, theme.paper) >= 3
        for share in np.linspace(-1, 1, 81):
            ground = theme.ground(float(share))
            assert contrast_ratio(theme.ink_on(float(share)), ground) >= 4.5
            if abs(share) < 0.1:  # where tokens that were added are written softly
                assert contrast_ratio(theme.soft, ground) >= 4.5
        for share in np.linspace(0, 1, 81):
            ink = theme.ink_on(float(share), signed=False)
            ground = theme.ground(float(share), signed=False)
            assert contrast_ratio(ink, ground) >= 4.5


@pytest.mark.parametrize(
    "draw",
    [
        lambda: draw_text(["a", "b"], [0, 0]),
        lambda: draw_layers(np.zeros((2, 3))),
        lambda: draw_matrix(np.zeros((1, 1))),
        lambda: draw_image(np.zeros((4, 4)), np.zeros((2, 2))),
        lambda: draw_image(np.zeros((4, 4)), np.zeros((2, 2)), style="contours"),
        lambda: draw_attention(np.zeros((1, 1, 1)), ["a"]),
        lambda: draw_attention(np.zeros((1, 1, 1)), ["a"], view="lines"),
    ],
)
def test_all_zeros_are_drawn(draw):
    picture = draw()
    picture.figure().canvas.draw()
    picture.to_html()
    assert "All scores are zero." in picture.notes


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: draw_text(["a"], [1.0, 2.0]), "shape (2,) for 1 tokens"),
        (lambda: draw_text([], []), "at least one token"),
        (lambda: draw_text("a film", [1.0, 2.0]), "at least one token"),
        (lambda: draw_text(["a"], [float("nan")]), "1 of 1 scores are NaN"),
        (lambda: draw_text(["a"], ["x"]), "no array of numbers"),
        (lambda: draw_text(["a"], (torch.ones(1), torch.ones(1))), "2 tensors"),
        (lambda: draw_text(["a"], [1.0], merge="max"), "merge='max'"),
        (lambda: draw_text(["a"], [1.0], scale="own"), "scale='own'"),
        (lambda: draw_text(["a"], [[1.0]], features="max"), "features='max'"),
        (lambda: draw_text(["a"], [-1.0], signed=False), "signed=False"),
        (lambda: draw_text(["a"], [1.0], limit=0.0), "limit=0.0"),
        (lambda: draw_text([["a"], ["b"]], [[1.0]]), "1 entries for 2 texts"),
        (lambda: draw_text([["a"]], [[1.0]], names=["x", "y"]), "2 names for 1"),
        (lambda: draw_layers(np.ones(3)), "one row for each layer"),
        (lambda: draw_layers(np.ones((2, 3)), layers=["a"]), "1 names for 2 layers"),
        (lambda: draw_matrix(np.ones((2, 2)), ["a"], ["b"]), "1 token and 1 token"),
        (lambda: draw_matrix(np.ones((2, 2, 2))), "shape (2, 2, 2)"),
        (lambda: draw_attention([], ["a"]), "output_attentions=True"),
        (lambda: draw_attention([None], ["a"]), "output_attentions=True"),
        (lambda: draw_attention(attention(), TOKENS, layer=1), "layer=1 of 1"),
        (lambda: draw_attention(attention(), TOKENS, heads=[3]), "heads=[3] of 3"),
        (lambda: draw_attention(attention(), TOKENS, view=UNKNOWN_VIEW), "view='arc'"),
        (lambda: draw_attention([torch.ones(2, 3, 6, 6)], TOKENS), "(2, 3, 6, 6)"),
        (lambda: draw_image(np.ones((2, 4, 4)), np.ones((4, 4))), "1 or 3 channels"),
        (lambda: draw_image(np.ones((4, 4)), np.ones(4)), "patch_grid=(rows, columns)"),
        (
            lambda: draw_image(np.ones((4, 4)), np.ones(3), patch_grid=(2, 2)),
            "at least 2 x 2 = 4 tokens",
        ),
        (lambda: draw_image(np.ones((4, 4)), np.ones((4, 4)), style="x"), "style='x'"),
        (
            lambda: draw_image(np.ones((4, 4)), np.ones((4, 4)), mean=(0, 0)),
            "mean has 2 numbers for 1 channels",
        ),
    ],
)
def test_messages_say_what_arrived(draw, message):
    with pytest.raises(InputError) as caught:
        draw()
    assert message in str(caught.value)


def test_unknown_themes_and_files(tmp_path):
    picture = draw_text(["a"], [1.0])
    with pytest.raises(UnknownNameError, match=r"no theme 'drak'. Did you mean 'dark'"):
        picture.figure("drak")
    with pytest.raises(UnknownNameError, match=r"\.html, \.png, \.pdf, \.svg"):
        picture.save(tmp_path / "a.jpg")
    assert find_theme("dark").paper != find_theme("light").paper


def test_straight_from_captum():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 2))
    pixels = torch.rand(1, 3, 4, 4)
    scores = IntegratedGradients(model).attribute(pixels, target=1)
    picture = draw_image(pixels, scores)
    assert np.allclose(picture.scores, scores[0].sum(0).double())


def test_a_terminal_shows_each_word_on_its_colour():
    pytest.importorskip("rich")
    picture = draw_text(TOKENS, SCORES, title="Why?", unit="in logits")
    plain = picture.to_text()
    assert "\x1b[" not in plain
    assert "untold joy <script>" in plain and "in logits" in plain
    assert re.search(r"untold +un ##told +\+1\.50$", plain, re.M)
    colored = picture.to_text(color=True)
    assert "\x1b[" in colored and "un ##told" not in colored
    assert "     +1.50  untold\n     −1.00  joy\n" in str(picture)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_numbers_in_a_terminal(kind):
    pytest.importorskip("rich")
    picture = samples()[kind]
    assert re.search(r"[+−]?\d*\.\d", picture.to_text())
    assert re.search(r"^ *[+−]?\d\S+  \S|\S  [+−]?\d\S+$", str(picture), re.M)


def test_512_tokens_stay_readable():
    tokens = [f"w{i}" for i in range(512)]
    text = draw_text(tokens, np.linspace(-1, 1, 512)).figure()
    assert text.get_size_inches()[1] < 40
    weights = torch.eye(512)[None]
    lines = draw_attention(weights, tokens, view="lines").figure()
    places = sorted(
        t.get_position()[1] * lines.get_size_inches()[1]
        for t in lines.texts
        if t.get_text().startswith("w") and t.get_horizontalalignment() == "right"
    )
    assert len(places) > 50 and np.diff(places).min() > 0.1  # inches apart
    grid = draw_matrix(np.eye(512), tokens, tokens).figure()
    assert grid.get_size_inches()[1] < 12
    buffer = io.BytesIO()
    grid.savefig(buffer, dpi=50)
    page = draw_matrix(np.eye(512), tokens, tokens).to_html()
    assert all(f"<bdi>{token}</bdi>" in page for token in tokens)
    assert len(page) < 2_000_000
