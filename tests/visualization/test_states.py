"""Maps of what masks keep: numbers, names, pictures and pages."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from typing import Any

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from PIL import Image

from captum_transformer_lrp.errors import InputError, UnknownNameError
from captum_transformer_lrp.models import Piece
from captum_transformer_lrp.report.blocks import Grid
from captum_transformer_lrp.report.colors import (
    KEPT_DARK,
    KEPT_LIGHT,
    contrast_ratio,
    from_hex,
    luminance,
)
from captum_transformer_lrp.visualization.states import (
    KeptMap,
    kept_by_group,
    kept_by_layer,
    save_maps,
    state_names,
    token_kind,
)
from captum_transformer_lrp.visualization.states.maps import KEPT
from tests.report.reading import ATTACK, Reader, style_of
from tests.visualization.samples import GOOD

BERT = (
    "bert.embeddings.word_embeddings (output)",
    "bert.encoder.layer.0 (input)",
    "bert.encoder.layer.1 (input)",
    "bert.encoder.layer.1 (output)",
)


def pieces_of(words: str) -> tuple[Piece, ...]:
    """Tokens as BERT's: [CLS] is special, ##ing goes on with a word."""
    return tuple(
        Piece(
            token=word,
            text=word.removeprefix("##"),
            special=word in ("[CLS]", "[SEP]"),
            space_before=bool(i) and not word.startswith("##"),
        )
        for i, word in enumerate(words.split())
    )


def kept_map(words="[CLS] a warm , un ##likely film [SEP]", **changes) -> KeptMap:
    """P(kept) falls from 1 to 0 over the states, sooner for later tokens."""
    pieces = pieces_of(words)
    states = changes.get("states", BERT)
    rows = np.linspace(1, 0, len(states))[:, None]
    kept = rows ** np.linspace(0.5, 3, len(pieces))[None]
    return KeptMap(
        **{
            "model": "tiny",
            "text": words,
            "pieces": pieces,
            "states": states,
            "kept": kept,
            "prediction": GOOD,
            "mode": "hidden",
            "margin": 0.05,
            "masks": "masks/tiny",
        }
        | changes
    )


# ------------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("states", "labels", "ticks"),
    [
        (
            BERT,
            ("embedding", "layer 1 input", "layer 2 input", "layer 2 output"),
            ("emb", "1", "2", "out"),
        ),
        (
            ("transformer.wte (output)", "transformer.h.0 (input)"),
            ("embedding", "layer 1 input"),
            ("emb", "1"),
        ),
        (  # ALBERT calls one block again and again
            ("a.groups.0.layers.0 (input)", "a.groups.0.layers.0 (input, call 2)"),
            ("layer 1 input", "layer 2 input"),
            ("1", "2"),
        ),
        (  # chosen by the user
            ("encoder.layer.2 (output)", "encoder.layer.5 (output)"),
            ("layer 3 output", "layer 6 output"),
            ("3", "6"),
        ),
        (("h.0 (output)", "h.1 (input)"), ("layer 1 output", "layer 2 input"), None),
        (
            ("swin.layers.0.blocks.0 (input)", "swin.layers.1.blocks.1 (output)"),
            ("0.blocks.0 input", "1.blocks.1 output"),
            ("0", "1"),
        ),
        (("a.b (output)", "a.c (output)"), ("b output", "c output"), None),
        (("anything",), ("anything",), ("0",)),
        (("emb (output)",), ("emb output",), ("0",)),
    ],
)  # fmt: skip
def test_names_of_states(states, labels, ticks):
    names = state_names(states)
    assert names.labels == labels
    assert ticks is None or names.ticks == ticks
    assert len(names.labels) == len(names.ticks) == len(states)


def test_what_the_ticks_stand_for():
    assert state_names(BERT).meaning == (
        "emb: token embedding; 1, 2: input of the layer; out: output of layer 2"
    )
    many = [f"h.{i} (output)" for i in range(5)]
    assert state_names(many).meaning == "1 to 5: output of the layer"
    assert state_names(["one", "two"]).meaning == ""


# ------------------------------------------------------------------------------- maps


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kept": np.zeros((4, 3))}, r"shape \(4, 3\); expected .* 4 states and 8 tok"),
        ({"kept": np.full((4, 8), 1.5)}, r"between 1.5 and 1.5; expected probabilit"),
        ({"kept": np.full((4, 8), np.nan)}, "expected probabilities"),
        ({"always_kept": (True,)}, "always_kept has 1 entries for 8 tokens"),
        ({"states": (), "kept": np.zeros((0, 8))}, "expected one number for each"),
    ],
)
def test_numbers_must_be_probabilities_of_the_tokens(changes, message):
    with pytest.raises(InputError, match=message):
        kept_map(**changes)


def test_tokens_and_words():
    kept = kept_map()
    assert kept.tokens[4:6] == ("un", "-likely")
    assert kept.words[3:7] == (",", "unlikely", "unlikely", "film")


def test_what_is_always_kept_counts_in_no_mean():
    fixed = (True, *[False] * 6, True)
    kept = kept_map(always_kept=fixed)
    np.testing.assert_allclose(kept.kept_fraction, kept.kept[:, 1:7].mean(1))
    np.testing.assert_allclose(kept_map().kept_fraction, kept.kept.mean(1))
    assert kept_map(always_kept=(True,) * 8).kept_fraction.tolist() == [1] * 4
    assert [t["always_kept"] for t in kept.to_dict()["tokens"]] == list(fixed)


@pytest.mark.parametrize("count", [1, 7, 40, 41, 100, 513])
@pytest.mark.parametrize("most", [1, 8, 40])
def test_panels_hold_each_token_once(count, most):
    kept = kept_map(" ".join(["un", "##likely", "##er"] * count)[: 4 * count])
    (grid,) = (block for block in kept.blocks() if isinstance(block, Grid))
    assert grid.columns.labels == kept.tokens
    panels = list(grid.columns.runs(most))
    columns = [i for panel in panels for i in range(panel.start, panel.stop)]
    assert columns == list(range(len(kept.pieces)))
    assert all(panel.stop - panel.start <= most for panel in panels)
    if most > 6:  # each run starts with a word
        assert all(kept.pieces[p.start].space_before for p in panels[1:])


def test_modes_say_what_is_masked():
    hidden, masked = kept_map(), kept_map(mode="input")
    assert hidden.question == "Up to which layer does “good” need each token?"
    assert masked.question == "Which tokens does “good” need?"
    assert "one vector, the same in all texts" in hidden.summary
    assert "left out of the input" in masked.summary
    assert all("0.05 nats on average" in m.summary for m in (hidden, masked))
    assert kept_map(next_token=True).target_name == "the next token “good”"


def test_json_holds_everything():
    kept = kept_map(notes=("a note",))
    found = json.loads(kept.to_json())
    assert found["schema"] == "captum_transformer_lrp.kept_map/1"
    assert (found["mode"], found["margin"]) == ("hidden", 0.05)
    assert found["prediction"]["name"] == "good" and found["notes"] == ["a note"]
    assert [s["place"] for s in found["states"]] == list(BERT)
    assert [s["label"] for s in found["states"]] == list(kept.names.labels)
    np.testing.assert_array_equal([s["kept"] for s in found["states"]], kept.kept)
    assert [t["token"] for t in found["tokens"]] == kept.text.split()


# ------------------------------------------------------------------------------ color


@pytest.mark.parametrize("scale", [KEPT_LIGHT, KEPT_DARK])
def test_ink_is_readable_on_all_colours_and_brightness_is_monotone(scale):
    shares = np.linspace(0, 1, 101)
    grounds = [scale.hex(s) for s in shares]
    inks = [scale.ink(s) for s in shares]
    assert min(map(contrast_ratio, inks, grounds)) >= 4.5
    steps = np.diff([luminance(from_hex(g)) for g in grounds])
    assert (steps <= 0).all() or (steps >= 0).all()
    assert contrast_ratio(grounds[0], grounds[-1]) > 5
    assert (scale.hex(-1), scale.hex(2)) == (scale.low, scale.high)


# --------------------------------------------------------------------------- terminal


def test_brief_numbers():
    given = (0, 0.004, 0.07, 0.5, 0.994, 0.995, 1)
    written = ["0", "0", ".07", ".50", ".99", "1.0", "1.0"]
    assert [KEPT.brief(p) for p in given[:5]] == written[:5]
    assert [KEPT.brief(p) for p in (0.996, 1)] == written[5:]
    exact = ["0.000", "0.004", "0.070", "0.500", "0.994", "0.995", "1.000"]
    assert [KEPT.exact(p) for p in given] == exact


def test_terminal():
    pytest.importorskip("rich")
    text = kept_map().to_text()
    assert "\x1b" not in text
    assert re.search(r"^ +emb +1 +2 +out$", text, re.M)
    assert re.search(r"^\[CLS\] +1\.0 +\.82 +\.58 +0 *$", text, re.M)
    assert re.search(r"^-likely +1\.0 +\.4", text, re.M)
    assert re.search(r"^mean +1\.0 ", text, re.M)
    assert "emb: token embedding; 1, 2: input of the layer" in text
    coloured = kept_map().to_text(color=True)
    red, green, blue = (round(255 * c) for c in from_hex(KEPT_LIGHT.high))
    assert f"48;2;{red};{green};{blue}m" in coloured
    assert "probability that the token is kept" in coloured


@pytest.mark.parametrize("width", [20, 41, 200])
def test_lines_fit_the_terminal(width):
    pytest.importorskip("rich")
    from rich.cells import cell_len

    states = tuple(f"encoder.layer.{i} (input)" for i in range(26))
    words = "中文字字字 antidisestablishmentarianism [i]a[/i]"
    text = kept_map(words, states=states).to_text(width=width)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert len(re.findall(r"(?<![\w.])26(?![\w.])", text)) >= 1
    if width == 200:
        assert "[i]a[/i]" in text  # no markup


def test_str_needs_no_rich(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)
    lines = str(kept_map()).splitlines()
    assert lines[0].startswith("Up to which layer does “good” need each token?")
    assert lines[1].split() == ["token", "emb", "1", "2", "out"]
    assert lines[2].split() == ["mean", "1.0", ".52", ".21", "0"]
    assert lines[7].split() == ["un", "1.0", ".46", ".12", "0"]
    assert len(lines) == 11
    long = str(kept_map(" ".join(f"w{i}" for i in range(100)))).splitlines()
    assert len(long) == 24 and long[-1] == "... and 80 more"
    with pytest.raises(ImportError, match=r"captum_transformer_lrp\[cli\]"):
        kept_map().to_text()


# ------------------------------------------------------------------------------- HTML


def test_page_is_a_table_with_a_number_in_each_cell():
    pytest.importorskip("jinja2")
    kept = kept_map()
    html = kept.to_html()
    page = Reader(html)
    assert len(page.named("table")) == 1
    assert len(page.named("th", scope="row")) == 4
    assert len(page.named("th", scope="col")) == 9  # and the mean
    cells = [a for a in page.named("td") if a.get("class", "").startswith("p")]
    assert [a["title"] for a in cells] == [f"{p:.3f}" for p in kept.kept.ravel()]
    style = style_of(cells[0])
    assert (style["--l"], style["--d"]) == (KEPT_LIGHT.high, KEPT_DARK.high)
    assert (style["--li"], style["--di"]) == (KEPT_LIGHT.ink(1), KEPT_DARK.ink(1))
    assert [a["title"] for a in page.named("th", scope="row")] == list(BERT)
    (group,) = page.named("article", role="group")
    assert "4 hidden states" in group["aria-label"]
    assert "Kept longest: a, warm, ,." in group["aria-label"]
    (legend,) = page.named("div", role="img")
    assert "probability that the token is kept" in legend["aria-label"]
    text = " ".join(page.text)
    for fact in ("good (92.4 %)", "0.05 nats", "masks/tiny", "hidden mode", "-likely"):
        assert fact in text
    assert "light-dark(" in html and "http" not in html and "url(" not in html
    assert "always kept" not in text


def test_nothing_from_outside_becomes_markup():
    pytest.importorskip("jinja2")
    states = tuple(f"{ATTACK}.layer.{i} (input)" for i in range(3))
    kept = kept_map(f"[CLS] {ATTACK} {ATTACK}", states=states, model=ATTACK,
                    masks=ATTACK, notes=(ATTACK,), text=ATTACK)  # fmt: skip
    table = kept_by_group([kept], lambda piece: ATTACK, name=ATTACK)
    page = Reader(kept.to_html(title=ATTACK))
    for html in (kept._repr_html_(), table.to_html(), table._repr_html_()):
        found = Reader(html)
        assert not found.named("img") and found.open == []
        assert len(found.named("script")) == html.count("<html")  # the page's own
        assert ATTACK.split()[0] in "".join(found.text)
    assert len(page.named("script")) == 1 and not page.named("img")
    assert not any("onerror" in attributes for _, attributes in page.tags)


def test_long_texts_are_cut_into_several_tables():
    pytest.importorskip("jinja2")
    words = " ".join(f"w{i}" for i in range(100))
    page = Reader(kept_map(words).to_html())
    assert len(page.named("table")) == 3
    assert "columns: token, 35 to 67 of 100" in page.written
    assert len(page.named("th", **{"class": "mean"})) == 1


def test_tokens_that_are_always_kept_are_marked():
    pytest.importorskip("jinja2")
    page = Reader(kept_map(always_kept=(True, *[False] * 7)).to_html())
    assert len(page.named("td", **{"class": "p fixed"})) == 4
    assert "Hatched or dashed tokens were always kept" in page.written
    figure = kept_map(always_kept=(True, *[False] * 7)).plot()
    assert len([x for x in figure.findobj(Rectangle) if x.get_hatch()]) == 1


def test_fragment_is_no_page():
    pytest.importorskip("jinja2")
    fragment = kept_map()._repr_html_()
    Reader(fragment)
    assert "<html" not in fragment and "<script" not in fragment


# ---------------------------------------------------------------------------- figures


def overlaps(first, second):
    """Whether two boxes share more than a pixel in both directions."""
    return (
        min(first.x1, second.x1) - max(first.x0, second.x0) > 1
        and min(first.y1, second.y1) - max(first.y0, second.y0) > 1
    )


def test_page_of_a_table_has_colours_counts_and_lines():
    pytest.importorskip("jinja2")
    table = kept_by_group([kept_map()])
    page = Reader(table.to_html())
    shades = page.named("td", **{"class": "shade"})
    grounds = [style_of(a)["--l"] for a in shades]
    assert grounds == [KEPT_LIGHT.hex(float(p)) for p in table.kept.T.ravel()]
    inks = [style_of(a)["--li"] for a in shades]
    assert inks == [KEPT_LIGHT.ink(float(p)) for p in table.kept.T.ravel()]
    for column in table.kept.T:
        assert "".join(f"{p:.3f}" for p in column) in page.written
    for label in table.names.labels:
        assert label in page.written
    for group, count in zip(table.groups, table.counts, strict=True):
        assert f"{group} ({count} tokens)" in page.written
    assert page.written.count("probability that the token is kept") >= 1
    lines = page.named("polyline")
    assert len(lines) == 3
    for line, row in zip(lines, table.kept, strict=True):
        points = [float(p.split(",")[1]) for p in line["points"].split()]
        np.testing.assert_allclose(1 - np.array(points) / 240, row, atol=1e-3)
    (chart,) = page.named("svg", role="img")
    assert chart["aria-label"] == table.alt and "4 hidden states" in table.alt


@pytest.mark.parametrize("heading", [True, False])
@pytest.mark.parametrize("count", [3, 40, 60])
def test_nothing_leaves_the_figure(count, heading):
    words = " ".join(["[CLS]", *["antidisestablishmentarianism", "a"] * (count // 2)])
    figure = kept_map(words).plot(heading=heading)
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    level: list[Any] = []
    for text in figure.texts:
        box = text.get_window_extent()
        assert box.x0 >= -1 and box.x1 <= width + 1, text.get_text()
        assert box.y0 >= -1 and box.y1 <= height + 1, text.get_text()
        if text.get_rotation() == 0:
            assert not any(overlaps(box, other) for other in level), text.get_text()
            level.append(box)


def test_turned_tokens_do_not_touch():
    words = " ".join(["[CLS]", *["words"] * 39])
    figure = kept_map(words).plot()
    turned = [t for t in figure.texts if t.get_rotation()]
    assert len(turned) == 41  # and the mean
    first, second = turned[10], turned[11]
    step = (second.get_position()[0] - first.get_position()[0]) * 9 * 72  # points
    assert step * np.sin(np.radians(first.get_rotation())) > 0.9 * float(
        first.get_fontsize()
    )


def test_short_tokens_stand_upright_and_cells_have_numbers():
    figure = kept_map("a b").plot(heading=False)
    texts = {t.get_text(): t for t in figure.texts}
    assert texts["a"].get_rotation() == 0
    assert {"1.0", "0", "embedding", "layer 2 output"} <= set(texts)
    assert figure.get_size_inches()[0] < 6.5


def test_many_tokens_have_colour_only():
    figure = kept_map(" ".join("abcdefghij" * 4)).plot()
    assert not any(re.fullmatch(r"\.\d\d|1\.0|0", t.get_text()) for t in figure.texts)
    (cells,) = [a for a in figure.artists if hasattr(a, "get_facecolors")]
    colors = cells.get_facecolors()[:, :3]
    assert colors.shape == (4 * 40, 3)
    np.testing.assert_allclose(colors[0], from_hex(KEPT_LIGHT.high), atol=1e-6)
    np.testing.assert_allclose(colors[-1], from_hex(KEPT_LIGHT.low), atol=1e-6)


def test_pyplot_is_not_touched():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    before = pyplot.get_fignums()
    png = kept_map("a $5 and $ 6_7^ b").to_png(dpi=50)
    kept_by_layer([kept_map()]).to_png(dpi=50)
    assert Image.open(io.BytesIO(png)).size[0] == 450
    assert pyplot.get_fignums() == before


# ----------------------------------------------------------------------------- groups


def test_kept_by_layer_weighs_tokens_alike():
    maps = [kept_map(), kept_map("good")]
    table = kept_by_layer(maps)
    expected = np.concatenate([m.kept for m in maps], axis=1).mean(1)
    np.testing.assert_allclose(table.kept, expected[None])
    assert (table.groups, table.counts, table.texts) == (("all tokens",), (9,), 2)
    assert table.title == "What is kept, layer by layer"


def test_ready_groups():
    table = kept_by_group([kept_map()])
    assert dict(zip(table.groups, table.counts, strict=True)) == {
        "special tokens": 2,
        "words": 5,
        "punctuation": 1,
    }
    np.testing.assert_allclose(table.kept[2], kept_map().kept[:, 3])
    assert token_kind(Piece(token="Ġ", text="")) == "words"
    assert token_kind(Piece(token="5", text="5")) == "words"
    assert token_kind(Piece(token="—", text="—")) == "punctuation"


def test_groups_by_mapping_function_and_list_agree():
    kept = kept_map()
    names = [None, None, "good", None, "odd", "odd", None, None]
    table = kept_by_group([kept], {"warm": "good", "unlikely": "odd"})
    given = dict(zip([p.token for p in kept.pieces], names, strict=True))
    by_function = kept_by_group([kept], lambda piece: given[piece.token])
    by_list = kept_by_group([kept], [names], name="part of speech")
    for other in (by_function, by_list):
        np.testing.assert_array_equal(other.kept, table.kept)
        assert (other.groups, other.counts) == (("good", "odd"), (1, 2))
    assert table.left_out == 5 and "5 tokens are in no group" in table.scope
    assert by_list.title == "What is kept, by part of speech"
    np.testing.assert_allclose(table.kept[1], kept.kept[:, 4:6].mean(1))


def test_a_mapping_knows_words_in_any_case_and_single_tokens():
    upper = kept_map("NOT Warm")
    table = kept_by_group([upper], {"not": "negation", "warm": "sentiment"})
    assert table.groups == ("negation", "sentiment")
    assert kept_by_group([kept_map()], {"likely": "piece"}).counts == (1,)


def test_tokens_that_are_always_kept_are_in_no_group():
    table = kept_by_group([kept_map(always_kept=(True, *[False] * 6, True))])
    assert table.groups == ("words", "punctuation")


@pytest.mark.parametrize(
    ("maps", "groups", "message"),
    [
        ([], token_kind, "at least one map, got none"),
        ([kept_map()], {"no": "such"}, "none of the 8 tokens is in a group"),
        ([kept_map()], [], "0 lists for 1 maps"),
        ([kept_map()], [["a"]], "1 names for the 8 tokens of .* -likely, film"),
        ([kept_map("a b")], ["xy"], "2 names for the 2 tokens"),
        ([kept_map(), kept_map(mode="input")], token_kind, "4 in hidden mode"),
        ([kept_map(), kept_map(states=BERT[:2])], token_kind, "2 states in hidden"),
    ],
)
def test_groups_that_do_not_fit(maps, groups, message):
    with pytest.raises(InputError, match=message):
        kept_by_group(maps, groups)


def test_a_table_prints_and_exports():
    table = kept_by_group([kept_map()])
    lines = str(table).splitlines()
    assert lines[0].split("  ")[0] == "state" and "special tokens" in lines[0]
    assert lines[1].split() == ["tokens", "2", "5", "1"]
    assert lines[2].split() == ["embedding", "1.000", "1.000", "1.000"]
    records = table.to_records()
    assert len(records) == 12
    assert records[5]["group"] == "words" and records[5]["state"] == 1
    rows = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert [float(r["kept"]) for r in rows] == [r["kept"] for r in records]
    assert json.loads(table.to_json())["records"] == records


def test_chart_has_a_line_and_a_name_for_each_group():
    table = kept_by_group([kept_map()])
    figure = table.plot()
    (axes,) = figure.axes
    np.testing.assert_allclose([line.get_ydata() for line in axes.lines], table.kept)
    assert len({line.get_color() for line in axes.lines}) == 3
    assert len({line.get_marker() for line in axes.lines}) == 3
    assert [t.get_text() for t in axes.get_xticklabels()] == ["emb", "1", "2", "out"]
    names = [t for t in figure.texts if t.get_text().endswith(")")]
    order = ["special tokens (2)", "punctuation (1)", "words (5)"]  # by what is kept
    assert [t.get_text() for t in names] == order
    samples: list[Any] = [a for a in figure.artists if hasattr(a, "get_marker")]
    for name, sample in zip(order, samples, strict=True):
        (line,) = [x for x in axes.lines if x.get_color() == sample.get_color()]
        group = table.groups.index(name.rpartition(" ")[0])
        np.testing.assert_allclose(line.get_ydata(), table.kept[group])
    figure.canvas.draw()
    boxes = [t.get_window_extent() for t in names]
    assert not any(overlaps(a, b) for a in boxes for b in boxes if a is not b)
    width, _ = figure.canvas.get_width_height()
    assert all(box.x1 <= width for box in boxes)


def test_long_names_of_groups_stay_on_the_chart():
    names = ["antidisestablishmentarianism " * 9 + str(i) for i in range(8)]
    table = kept_by_group([kept_map()], [names])
    figure = table.plot(heading=False)
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    for text in figure.texts:
        box = text.get_window_extent()
        assert box.x1 <= width and 0 <= box.y0 and box.y1 <= height
    assert figure.axes[0].get_position().width > 0.3
    assert len({(x.get_color(), x.get_linestyle()) for x in figure.axes[0].lines}) == 8


def test_notes_of_all_maps_stand_beside_the_means():
    pytest.importorskip("jinja2")
    maps = [kept_map(notes=("both", str(i))) for i in range(2)]
    table = kept_by_group(maps)
    assert table.notes == ("both",) == tuple(table.to_dict()["notes"])
    assert str(table).endswith("\nboth")
    assert "both" in "".join(Reader(table.to_html()).text)
    assert "both" in [t.get_text() for t in table.plot().texts]


def test_chart_of_named_modules_has_their_names():
    table = kept_by_layer([kept_map(states=("a.first (output)", "a.second (output)"))])
    (axes,) = table.plot(heading=False).axes
    names = [t.get_text() for t in axes.get_xticklabels()]
    assert names == ["first output", "second output"]


# ----------------------------------------------------------------------------- saving


def test_files_by_suffix(tmp_path):
    pytest.importorskip("jinja2")
    maps = [kept_map("bad"), kept_map("good")]
    table = kept_by_group(maps)
    starts = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml", ".html": b"<!doc"}
    for suffix, start in starts.items():
        path = save_maps(maps, tmp_path / f"maps{suffix.upper()}", table=table)
        assert path.read_bytes().startswith(start)
    for suffix in (".png", ".html"):
        path = table.save(tmp_path / f"table{suffix}")
        assert path.read_bytes().startswith(starts[suffix])
    both = json.loads(save_maps(maps, tmp_path / "maps.json").read_text("utf-8"))
    one = json.loads(maps[1].save(tmp_path / "map.json").read_text("utf-8"))
    assert both[1] == one
    assert table.save(tmp_path / "t.csv").read_text().startswith("group,state,label")
    json.loads(table.save(tmp_path / "t.json").read_text("utf-8"))
    page = (tmp_path / "maps.HTML").read_text("utf-8")
    assert page.count("<article") == 3 and "<svg" in page
    assert "<h1>What the predictions need, layer by layer</h1>" in page


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(UnknownNameError, match=r"'m.csv': .* \.html, \.json, \.png"):
        kept_map().save(tmp_path / "m.csv")
    with pytest.raises(UnknownNameError, match=r"\.csv, \.png, \.pdf, \.svg"):
        kept_by_layer([kept_map()]).save(tmp_path / "m.txt")
    with pytest.raises(InputError, match="at least one map to save, got none"):
        save_maps([], tmp_path / "m.png")


def test_a_picture_has_room_for_some_maps_only(monkeypatch, tmp_path):
    from captum_transformer_lrp.report import figure

    monkeypatch.setattr(figure, "_TALLEST", 5)
    with pytest.raises(InputError, match="room for 1 of these 3 results; save fewer"):
        save_maps([kept_map("good")] * 3, tmp_path / "maps.png")
    assert not list(tmp_path.iterdir())
