"""Blocks as a figure: texts, numbers and colours stand where they belong."""

from __future__ import annotations

import sys

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.colors import to_hex
from matplotlib.patches import FancyBboxPatch, Rectangle
from PIL import Image

from captum_transformer_lrp.errors import InputError
from captum_transformer_lrp.report.blocks import (
    Axis,
    Bars,
    Block,
    Cell,
    Chart,
    ColorScale,
    Facts,
    Grid,
    Heading,
    Heat,
    Legend,
    Pages,
    Pairs,
    Panel,
    Paragraph,
    Pictures,
    Table,
    Word,
    Words,
)
from captum_transformer_lrp.report.colors import (
    HEAT_NEGATIVE,
    HEAT_POSITIVE,
    LINES,
    THEMES,
)
from captum_transformer_lrp.report.figure import contoured, draw

SIGNED = ColorScale(limit=2.0, signed=True, unit="relevance")
WORDS = ColorScale(limit=2.0, signed=True, unit="relevance", palette="words")
SHARE = ColorScale(limit=1.0, signed=False, unit="share")
PICTURE = ColorScale(limit=2.0, signed=True, palette="picture")


def texts(figure):
    return [text.get_text() for text in figure.texts]


def find(figure, written):
    (found,) = [text for text in figure.texts if text.get_text() == written]
    return found


def place(figure, text):
    """Return where a text stands, in inches from the top left corner."""
    width, height = figure.get_size_inches()
    x, y = text.get_position()
    return x * width, (1 - y) * height


def cells(figure):
    """Return the collections of cells, each as rectangles and colours."""
    return [c for c in figure.artists if isinstance(c, PatchCollection)]


def boxes(figure, color):
    return [
        patch
        for patch in figure.findobj(FancyBboxPatch)
        if to_hex(patch.get_facecolor()) == color
    ]


def axis(name, count, **other):
    return Axis(name=name, labels=tuple(f"{name}{i}" for i in range(count)), **other)


def grid(values, scale=SIGNED, **other):
    values = np.asarray(values, dtype=float)
    rows, columns = values.shape
    return Grid(
        panels=(Panel(values=values),),
        rows=axis("r", rows),
        columns=axis("c", columns),
        scale=scale,
        **other,
    )


# ------------------------------------------------------------------------------ words


def test_words_around():
    card: list[Block] = [
        Heading(text="Why?", badge="wrong"),
        Paragraph(text="Because.", kind="answer"),
        Paragraph(text="As it was given.", kind="input"),
        Paragraph(text="What it means.", kind="meaning"),
        Heading(text="A part", level=2),
        Paragraph(text="Beware."),
        Facts(pairs=(("Logit", "+3"), ("Model", "bert")), brief=("Logit",)),
    ]
    figure = draw([card])
    shown = ["Why?", "wrong", "Because.", "A part", "Beware.", "Logit +3"]
    assert sorted(texts(figure)) == sorted(shown)
    title, badge, part = (find(figure, t) for t in ("Why?", "wrong", "A part"))
    assert (title.get_fontsize(), title.get_weight()) == (16, "bold")
    assert (part.get_fontsize(), part.get_weight()) == (10.5, "bold")
    assert place(figure, badge)[0] > place(figure, title)[0]
    assert badge.get_color() == THEMES["light"].soft
    order = ["Why?", "Because.", "A part", "Beware.", "Logit +3"]
    heights = [place(figure, find(figure, t))[1] for t in order]
    assert heights == sorted(heights)


def test_facts_stand_beside_a_legend_where_they_have_room():
    def drawn(value):
        facts = Facts(pairs=(("Method", value),), brief=("Method",))
        figure = draw([[Legend(scale=SIGNED), facts]])
        low, fact = find(figure, "−2.00"), find(figure, f"Method {value}")
        return place(figure, fact)[1] - place(figure, low)[1]

    assert drawn("AttnLRP") == pytest.approx(0)
    assert drawn("AttnLRP " * 8 + "end") > 0.1


def test_legend_has_its_ends_its_unit_and_its_colors():
    figure = draw([[Legend(scale=SIGNED)]])
    assert texts(figure) == ["−2.00", "+2.00", "relevance"]
    (axes,) = figure.axes
    drawn = axes.images[0].get_array()
    np.testing.assert_array_equal(drawn[0], SIGNED.colors(THEMES["light"]))


@pytest.mark.parametrize("theme", THEMES)
def test_words_have_the_ground_of_their_score(theme):
    words = tuple(
        Word(text=label, score=score, special=special)
        for label, score, special in (
            ("[CLS]", 0.0, True),
            ("good", 2.0, False),
            ("bad", -1.0, False),
        )
    )
    figure = draw([[Words(words=words, scale=WORDS)]], theme=theme)
    colors = THEMES[theme]
    assert texts(figure) == ["[CLS]", "good", "bad"]
    assert find(figure, "[CLS]").get_color() == colors.soft
    assert find(figure, "good").get_color() == colors.ink
    for label, share in (("good", 1.0), ("bad", -0.5)):
        (box,) = boxes(figure, colors.ground(share))
        x, _ = place(figure, find(figure, label))
        assert box.get_x() < x < box.get_x() + box.get_width()


# ------------------------------------------------------------------------------- grids


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("scale", [SIGNED, SHARE], ids=["signed", "unsigned"])
def test_cells_have_the_colors_and_numbers_of_their_scores(scale, theme):
    values = np.array([[0.12, 1.0, 0.5], [0.0, 0.25, 0.75]])
    figure = draw([[grid(values, scale)]], theme=theme)
    (drawn,) = cells(figure)
    shares = values / scale.limit
    expected = THEMES[theme].rgb(shares, signed=scale.signed).reshape(-1, 3)
    np.testing.assert_allclose(drawn.get_facecolor()[:, :3], expected)
    corners = [path.vertices.min(0) for path in drawn.get_paths()]
    numbers = [t for t in figure.texts if t.get_fontsize() == 7]
    assert [t.get_text() for t in numbers] == [scale.brief(v) for v in values.flat]
    for text, corner, share in zip(numbers, corners, shares.flat, strict=True):
        x, y = place(figure, text)
        assert corner[0] < x < corner[0] + 0.62
        assert corner[1] < y < corner[1] + 0.25
        ink = THEMES[theme].ink_on(float(share), signed=scale.signed)
        assert text.get_color() == ink
    for i, label in enumerate(("c0", "c1", "c2")):
        x, y = place(figure, find(figure, label))
        assert corners[i][0] < x < corners[i][0] + 0.62
        assert y < corners[i][1]
    for i, label in enumerate(("r0", "r1")):
        x, y = place(figure, find(figure, label))
        assert x < corners[3 * i][0]
        assert corners[3 * i][1] < y < corners[3 * i][1] + 0.25


@pytest.mark.parametrize(
    "score",
    [
        *(1e-7, 0.00123, 0.00996, 0.0996, 0.996, 0.997, 1.0, 9.4, 9.96, 9.97),
        *(10.4, 99.6, 99.7, 996.0, 4321.0, 123456.0),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_drawn_numbers_equal_the_scores_to_their_digits(score, sign):
    score *= sign
    scale = ColorScale(limit=abs(score), signed=True)
    figure = draw([[grid([[score, score / 3]], scale)]])
    drawn = [t.get_text() for t in figure.texts if t.get_fontsize() == 7]
    for written, value in zip(drawn, (score, score / 3), strict=True):
        digits, _, power = written.replace("−", "-").partition("e")
        decimals = len(digits.partition(".")[2]) - int(power or 0)
        unit = 10.0**-decimals
        assert float(written.replace("−", "-")) == pytest.approx(
            value, abs=0.501 * unit
        )
        assert unit <= 0.11 * abs(score)


def test_numbers_are_left_out_where_they_have_no_room():
    figure = draw([[grid(np.full((2, 45), 0.1), SIGNED)]])
    assert not [t for t in figure.texts if t.get_fontsize() == 7]


def test_many_columns_are_cut_into_runs_before_words():
    breaks = tuple(i % 3 == 0 for i in range(100))
    shown = Grid(
        panels=(Panel(values=np.arange(200.0).reshape(2, 100)),),
        rows=axis("r", 2),
        columns=axis("c", 100, breaks=breaks),
        scale=ColorScale(limit=200, signed=False),
    )
    figure = draw([[shown]])
    drawn = cells(figure)
    assert sum(len(one.get_facecolor()) for one in drawn) == 200
    starts = np.cumsum([0] + [len(one.get_facecolor()) // 2 for one in drawn])[:-1]
    assert len(drawn) > 1
    assert all(breaks[start] for start in starts)
    assert texts(figure).count("r0") == len(drawn)
    assert texts(figure).count("c99") == 1


def test_many_rows_fit_on_the_page():
    figure = draw([[grid(np.zeros((60, 5)))]])
    assert figure.get_size_inches()[1] < 10
    assert len(cells(figure)[0].get_facecolor()) == 300


def test_of_very_many_cells_the_largest_stays_visible():
    values = np.zeros((3000, 400))
    values[1234, 321] = -2.0
    figure = draw([[grid(values)]])
    pixels = figure.axes[0].images[0].get_array()
    assert pixels.shape[0] <= 760
    strongest = THEMES["light"].rgb(np.array(-1.0))
    assert (np.abs(pixels - strongest).max(-1) < 1e-6).sum() == 1


def test_panels_stand_beside_each_other():
    values = np.linspace(-2, 2, 54).reshape(6, 3, 3)
    shown = Grid(
        panels=tuple(Panel(values=v, name=f"head {i}") for i, v in enumerate(values)),
        rows=axis("r", 3),
        columns=axis("c", 3),
        scale=SIGNED,
    )
    figure = draw([[shown]])
    for number, one in enumerate(cells(figure)):
        expected = THEMES["light"].rgb(values[number] / 2).reshape(-1, 3)
        np.testing.assert_allclose(one.get_facecolor()[:, :3], expected)
        left, below = one.get_paths()[0].vertices.min(0)
        x, y = place(figure, find(figure, f"head {number}"))
        assert x == pytest.approx(left)
        assert below < y
    heights = [place(figure, find(figure, f"head {i}"))[1] for i in range(6)]
    assert heights[:4] == pytest.approx([heights[0]] * 4)
    assert heights[4:] == pytest.approx([heights[4]] * 2)
    assert heights[4] > heights[0]


def test_fixed_columns_are_hatched_and_means_stand_beside_the_last_run():
    count = 80
    shown = Grid(
        panels=(Panel(values=np.full((2, count), 0.5)),),
        rows=axis("r", 2),
        columns=axis("c", count, special=(True, *[False] * (count - 1))),
        scale=SHARE,
        fixed=(True, *[False] * (count - 1)),
        means=np.array([0.25, 0.754]),
    )
    figure = draw([[shown]])
    (hatched,) = [x for x in figure.findobj(Rectangle) if x.get_hatch()]
    first, last = cells(figure)[0], cells(figure)[-1]
    assert hatched.get_xy() == pytest.approx(first.get_paths()[0].vertices.min(0))
    right = max(path.vertices[:, 0].max() for path in last.get_paths())
    for written in ("mean", "0.25", "0.75"):
        x, y = place(figure, find(figure, written))
        assert x > right
        assert y > first.get_paths()[-1].vertices[:, 1].max()
    assert find(figure, "c0").get_color() == THEMES["light"].soft
    assert find(figure, "c1").get_color() == THEMES["light"].ink


def test_turned_labels_stay_on_the_page():
    shown = Grid(
        panels=(Panel(values=np.zeros((2, 40))),),
        rows=axis("r", 2),
        columns=Axis(name="token", labels=("incomprehensible",) * 40),
        scale=SIGNED,
    )
    for bare in (False, True):
        figure = draw([[shown]], bare=bare)
        renderer = FigureCanvasAgg(figure).get_renderer()
        ends = [text.get_window_extent(renderer) for text in figure.texts]
        assert max(end.x1 for end in ends) <= figure.bbox.width
        assert max(end.y1 for end in ends) <= figure.bbox.height


# ------------------------------------------------------------------- pairs and charts


@pytest.mark.parametrize("theme", THEMES)
def test_pairs_are_lines(theme):
    left, right = axis("query", 3), axis("key", 2)
    lines = ((0, 1, -0.25), (2, 0, 1.0))
    card = [Pairs(lines=lines, left=left, right=right, scale=SIGNED)]
    figure = draw([card], theme=theme)
    (drawn,) = [x for x in figure.artists if isinstance(x, LineCollection)]
    colors = [to_hex(color) for color in drawn.get_colors()]
    assert colors == [THEMES[theme].negative_line, THEMES[theme].positive_line]
    np.testing.assert_allclose(drawn.get_alpha(), [0.25, 1])
    first, second = drawn.get_segments()
    for label, end in (
        ("query0", first[0]),
        ("key1", first[1]),
        ("query2", second[0]),
        ("key0", second[1]),
    ):
        assert place(figure, find(figure, label))[1] == pytest.approx(end[1], abs=0.06)
    assert "strongest line: +2.00 relevance" in texts(figure)
    assert figure.get_size_inches()[0] == 6.6


def test_chart_names_its_lines_in_the_order_of_their_means():
    values = np.array([[0.1, 0.2, 0.0], [0.9, 0.8, 0.7], [0.5, 0.4, 0.5]])
    chart = Chart(
        names=("low", "high", "middle"),
        values=values,
        steps=axis("state", 3, ticks=("0", "1", "2")),
        label="mean P(kept)",
        alt="a chart",
    )
    figure = draw([[chart]])
    (axes,) = figure.axes
    assert axes.get_ylim() == (0, 1)
    assert axes.get_ylabel() == "mean P(kept)"
    assert axes.get_xlabel() == "state"
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0", "1", "2"]
    for line, row, color in zip(axes.lines, values, LINES, strict=False):
        np.testing.assert_array_equal(line.get_ydata(), row)
        assert line.get_color() == color
    heights = [place(figure, find(figure, n))[1] for n in ("high", "middle", "low")]
    assert heights == sorted(heights)


def test_chart_without_ticks_slants_its_labels():
    chart = Chart(
        names=("one",),
        values=np.full((1, 3), 0.5),
        steps=axis("state", 3),
        label="share",
        alt="a chart",
    )
    (axes,) = draw([[chart]]).axes
    labels = axes.get_xticklabels()
    assert [label.get_text() for label in labels] == ["state0", "state1", "state2"]
    assert labels[0].get_rotation() == 35
    assert axes.get_xlabel() == ""


# ---------------------------------------------------------------------------- pictures


def picture(style="overlay", **other):
    image = Image.new("RGB", (8, 8), "#3060c0")
    scores = np.outer(np.linspace(-2, 2, 8), np.ones(8))
    return Heat(image=image, scores=scores, scale=PICTURE, style=style, **other)


def test_pictures_of_equal_size_stand_three_in_a_row():
    plain = Heat(image=Image.new("RGB", (8, 8), "#3060c0"), caption="seen")
    others = tuple(picture(caption=f"method{i}", under=f"under{i}") for i in range(4))
    figure = draw([[Pictures(pictures=(plain, *others))]])
    assert len(figure.axes) == 5
    places = [axes.get_position() for axes in figure.axes]
    assert len({round(p.width, 6) for p in places}) == 1
    assert [round(p.y0, 6) for p in places[:3]] == [round(places[0].y0, 6)] * 3
    assert places[3].y1 < places[0].y0
    assert places[3].x0 == pytest.approx(places[0].x0)
    np.testing.assert_array_equal(
        figure.axes[0].images[0].get_array()[0, 0], [0x30, 0x60, 0xC0]
    )
    wanted = ["seen", "method0", "under0"]
    assert [find(figure, t).get_fontsize() for t in wanted] == [9.5, 9.5, 8]


def test_large_pictures_have_a_narrow_page():
    one = draw([[Heading(text="A"), Pictures(pictures=(picture(),), size="large")]])
    two = draw([[Pictures(pictures=(picture(), picture()), size="large")]])
    assert one.get_size_inches()[0] == pytest.approx(5.1)
    assert two.get_size_inches()[0] == pytest.approx(3.9 + 0.25 + 3.9 + 0.7)
    assert one.axes[0].get_position().width * 5.1 == pytest.approx(3.9)
    assert find(one, "A").get_fontsize() == 14


@pytest.mark.parametrize("theme", THEMES)
def test_heat_without_its_picture_lies_on_the_page(theme):
    shown = Pictures(pictures=(picture("heat"),), size="large")
    pixels = draw([[shown]], theme=theme).axes[0].images[0].get_array()
    assert pixels.shape == (8, 8, 3)
    assert pixels[0, 0, 2] > pixels[0, 0, 0]
    assert pixels[-1, 0, 0] > pixels[-1, 0, 2]


def test_contours_are_lines_in_figures_and_pixels_elsewhere():
    figure = draw([[Pictures(pictures=(picture("contours"),), size="large")]])
    over = figure.axes[-1]
    colors = {to_hex(c.get_edgecolor()[0]) for c in over.collections}
    assert colors == {HEAT_POSITIVE, HEAT_NEGATIVE}
    image = contoured(picture("contours"))
    assert min(image.size) >= 640
    pixels = np.asarray(image).astype(int)
    redder = pixels[..., 0] - pixels[..., 2]
    rows = np.flatnonzero((redder > 60).any(1)), np.flatnonzero((redder < -60).any(1))
    assert rows[0].min() > 0.5 * image.height > rows[1].max()


# ------------------------------------------------------------------------------ tables


def test_table_colors_its_cells():
    shares = np.array([[1.0, -0.5], [-0.5, 1.0]])
    rows = tuple(
        (name, *(Cell(text=f"{s:.1f}", small=f"{s / 2:.2f}", share=s) for s in row))
        for name, row in zip("ab", shares, strict=True)
    )
    table = Table(title="Agreement", heads=("", "first", "second"), rows=rows)
    figure = draw([[table]])
    first, second = cells(figure)
    for drawn, column in ((first, shares[:, 0]), (second, shares[:, 1])):
        expected = THEMES["light"].rgb(column)
        np.testing.assert_allclose(drawn.get_facecolor()[:, :3], expected)
    assert find(figure, "Agreement").get_fontsize() == 10.5
    assert texts(figure).count("-0.5 (-0.25)") == 2
    x0, x1 = second.get_paths()[0].vertices[:2, 0]
    middle, _ = place(figure, find(figure, "second"))
    assert x0 < middle < x1


def test_table_puts_texts_left_and_numbers_right():
    long = "a name that is much longer than what a page has room for " * 3
    rows = (("a", "text", "+1.00"), (long, "b", "+12.00"))
    table = Table(heads=("Name", "What", "Sum"), rows=rows, texts=2)
    figure = draw([[table]])
    assert not cells(figure)
    alignments = [find(figure, t).get_ha() for t in ("Name", "a", "text", "+1.00")]
    assert alignments == ["left", "left", "left", "right"]
    right = place(figure, find(figure, "+1.00"))[0]
    assert place(figure, find(figure, "+12.00"))[0] == pytest.approx(right)
    assert place(figure, find(figure, "Sum"))[0] == pytest.approx(right)
    assert right <= 9 - 0.45 + 1e-6
    (cut,) = [t for t in texts(figure) if t.startswith("a name")]
    assert cut.endswith("…")
    assert find(figure, "Name").get_color() == THEMES["light"].soft
    assert find(figure, "a").get_color() == THEMES["light"].ink


def test_tables_of_many_columns_leave_their_small_numbers_out():
    names = [f"method number {i}" for i in range(14)]
    cell = Cell(text="0.25", small="0.125", share=0.25)
    rows = tuple((name, *[cell] * 14) for name in names)
    figure = draw([[Table(heads=("", *names), rows=rows)]])
    assert texts(figure).count("0.25") == 14 * 14
    right = max(path.vertices[:, 0].max() for path in cells(figure)[0].get_paths())
    assert right <= 9 - 0.45 + 1e-6


def test_folded_tables_are_not_drawn():
    table = Table(title="All", heads=("a", "b"), rows=(("x", "1"),), folded=True)
    assert texts(draw([[Heading(text="Title"), table]])) == ["Title"]


@pytest.mark.parametrize("theme", THEMES)
def test_bars_run_from_zero_to_both_sides(theme):
    rows = (("up", 2.0), ("down", -1.0), *((f"more{i}", 0.0) for i in range(16)))
    marks = ("", "added", *[""] * 16)
    bars = Bars(title="Words", rows=rows, scale=SIGNED, marks=marks)
    figure = draw([[bars]], theme=theme)
    scale = THEMES[theme].scale
    (up,), (down,) = boxes(figure, scale.positive), boxes(figure, scale.negative)
    assert up.get_x() == pytest.approx(down.get_x() + down.get_width())
    assert up.get_width() == pytest.approx(2 * down.get_width())
    for label, number, bar in (("up", "+2.00", up), ("down", "−1.00", down)):
        (x, y), (right, beside) = (
            place(figure, find(figure, text)) for text in (label, number)
        )
        assert x < bar.get_x() < bar.get_x() + bar.get_width() < right
        assert y == beside
        assert bar.get_y() < y < bar.get_y() + 0.2
    assert "added" in texts(figure)
    assert "more12" in texts(figure)
    assert "more13" not in texts(figure)
    assert "and 3 more" in texts(figure)


# ---------------------------------------------------------------------- pages and all


def test_the_first_pages_are_printed():
    labels = tuple(Word(text=f"token{i}", score=0) for i in range(5))
    pages = tuple((Paragraph(text=f"page{i}"),) for i in range(5))
    figure = draw([[Pages(labels=labels, scale=WORDS, pages=pages, printed=2)]])
    expected = ["token0", "page0", "token1", "page1", "and 3 more"]
    assert texts(figure) == expected
    assert find(figure, "token0").get_weight() == "bold"


def test_pages_with_a_title_of_their_own_have_no_label_above_it():
    page = (Heading(text="“film”, 90 %", level=2), Paragraph(text="page"))
    label = Word(text="film", score=0)
    figure = draw([[Pages(labels=(label,), scale=WORDS, pages=(page,))]])
    assert texts(figure) == ["“film”, 90 %", "page"]


def test_a_bare_grid_is_as_narrow_as_its_cells():
    card = [
        Heading(text="Title"),
        Paragraph(text="Answer.", kind="answer"),
        grid([[0.5, 1.0], [0.0, 0.2]], SHARE),
        Legend(scale=ColorScale(limit=1, signed=False)),
        Facts(pairs=(("Method", "LRP"),), brief=("Method",)),
        Paragraph(text="Note."),
    ]
    figure = draw([card], bare=True)
    width = figure.get_size_inches()[0]
    written = set(texts(figure))
    assert not written & {"Title", "Answer.", "Method LRP", "Note."}
    assert not any(text.startswith("rows:") for text in written)
    assert {"r0", "c1", "0.00", "1.00"} <= written
    assert width < 4
    (drawn,) = cells(figure)
    right = max(path.vertices[:, 0].max() for path in drawn.get_paths())
    assert right < width
    assert "rows: r; columns: c" in texts(draw([card]))


def test_a_bare_chart_is_as_wide_as_a_column():
    chart = Chart(
        names=("a",), values=np.ones((1, 2)), steps=axis("s", 2), label="y", alt="x"
    )
    assert draw([[chart]], bare=True).get_size_inches()[0] == pytest.approx(6.6)


def test_cards_stand_below_each_other_with_a_line_between():
    figure = draw([[Heading(text="First")], [Heading(text="Second")]])
    first, second = (place(figure, find(figure, t))[1] for t in ("First", "Second"))
    (line,) = boxes(figure, THEMES["light"].line)
    assert first < line.get_y() < second


def test_too_many_cards_are_refused():
    card = [grid(np.zeros((400, 1)), means=np.zeros(400))]  # 100 inches tall
    with pytest.raises(InputError) as caught:
        draw([card] * 5)
    assert str(caught.value) == (
        "a picture has room for 3 of these 5 results; save fewer, or save them as "
        ".html or .json."
    )
    with pytest.raises(InputError, match=r"no room for this result; save it as \.html"):
        draw([card * 4])


def test_pyplot_is_not_loaded_and_themes_color_the_paper():
    loaded = "matplotlib.pyplot" in sys.modules
    for theme, colors in THEMES.items():
        figure = draw([[Heading(text="Title")]], theme=theme)
        assert to_hex(figure.get_facecolor()) == colors.paper
        assert find(figure, "Title").get_color() == colors.ink
    assert ("matplotlib.pyplot" in sys.modules) == loaded
