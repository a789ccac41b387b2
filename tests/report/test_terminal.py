"""Blocks as text: each kind, wide and narrow, with colour and without, and plain."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from captum_transformer_lrp._packages import MissingPackageError
from captum_transformer_lrp.report.blocks import (
    Axis,
    Bars,
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
    largest,
)
from captum_transformer_lrp.report.plain import plain
from captum_transformer_lrp.report.terminal import to_text

cell_len = pytest.importorskip("rich.cells").cell_len

SIGNED = ColorScale(limit=0.6, signed=True, unit="relevance, in logits")
SPOKEN = ColorScale(limit=0.6, signed=True, palette="words")
KEPT = ColorScale(
    limit=1, signed=False, unit="probability", names=("dropped 0", "1 kept")
)
TOKENS = ("[CLS]", "A", "wonderfully", "映画", "of", "life", "[SEP]")
SPECIAL = (True, *[False] * 5, True)
TOKEN = Axis(name="token", labels=TOKENS, special=SPECIAL)
LAYER = Axis(name="layer, the first on top", labels=("0", "1", "2"))
STATE = Axis(
    name="hidden state",
    labels=("embeddings", "after block 1", "after block 2"),
    ticks=("emb", "1", "2"),
)
VALUES = np.linspace(-0.6, 0.6, 21).reshape(3, 7)
WORDS = Words(
    words=tuple(
        Word(text=t, score=s, special=x, space_before=t != "life")
        for t, s, x in zip(TOKENS, np.linspace(-0.6, 0.6, 7), SPECIAL, strict=True)
    ),
    scale=SPOKEN,
)
BARS = Bars(
    title="Words that count most (3)",
    rows=(("life", 0.6), ("A", -0.3), ("映画", 0.001)),
    scale=SPOKEN,
    marks=("", "explained", ""),
)
GRID = Grid(panels=(Panel(values=VALUES),), rows=LAYER, columns=TOKEN, scale=SIGNED)
KEPT_GRID = Grid(
    panels=(Panel(values=np.abs(VALUES)),),
    rows=STATE,
    columns=TOKEN,
    scale=KEPT,
    means=np.array([0.1, 0.2, 0.7]),
)
HEADS = Grid(
    panels=(Panel(values=VALUES, name="head 1"), Panel(values=-VALUES, name="head 2")),
    rows=TOKEN,
    columns=TOKEN,
    scale=SIGNED,
)
PAIRS = Pairs(
    lines=((0, 1, 0.1), (1, 2, 0.5), (2, 5, -1.0)),
    left=TOKEN,
    right=TOKEN,
    scale=SIGNED,
)
CHART = Chart(
    names=("nouns", "verbs"),
    values=np.array([[1, 0.5, 0.25], [0, 0.125, 1]]),
    steps=STATE,
    label="share that is kept",
    alt="",
)
TABLE = Table(
    title="Rank agreement",
    heads=("", "AttnLRP", "CP-LRP", "Integrated gradients"),
    rows=(
        ("AttnLRP", "–", Cell(text="0.93", small="0.81", share=0.93), "0.10"),
        ("CP-LRP", Cell(text="−1.00", small="−0.9", share=-1), "–", "0.20"),
    ),
)
PICTURES = Pictures(
    pictures=(Heat(image=Image.new("RGB", (32, 24)), caption="What the model saw"),)
)
PAGES = Pages(
    labels=WORDS.words,
    scale=SPOKEN,
    pages=tuple((WORDS, Paragraph(text=f"Page {i}.")) for i in range(7)),
    printed=2,
)
FACTS = Facts(pairs=(("Logit", "+2.5"), ("Method", "AttnLRP " + "with options " * 9)))
TITLE = Heading(text="Why “good”?")
ANSWER = Paragraph(text="The model says “good”.", kind="answer")
NOTE = Paragraph(text="A note to read. " * 8)

EVERYTHING = (
    TITLE,
    ANSWER,
    Paragraph(text="the text as it was given", kind="input"),
    *(Heading(text="A part", level=2, badge="wrong"), WORDS),
    *(Legend(scale=SPOKEN), BARS, PICTURES, GRID, KEPT_GRID, HEADS, PAIRS, PAGES),
    *(CHART, TABLE, FACTS),
    Paragraph(text="What it means.", kind="meaning"),
    NOTE,
)


def lines_of(*blocks, width=88, color=False):
    return to_text([blocks], width=width, color=color).split("\n")


def without_codes(text):
    return re.sub(r"\x1b\[[\d;]*m", "", text)


# ---------------------------------------------------------------------------- the whole


@pytest.mark.parametrize("width", [40, 88])
@pytest.mark.parametrize("color", [False, True])
def test_no_line_is_longer_than_the_terminal(width, color):
    text = to_text([EVERYTHING, EVERYTHING], width=width, color=color)
    lines = without_codes(text).split("\n")
    assert max(map(cell_len, lines)) <= width
    assert ("\x1b" in text) == color
    assert lines.count("─" * width) == 1


@pytest.mark.parametrize(
    "block",
    [block for block in EVERYTHING if not isinstance(block, Legend)],
    ids=lambda b: type(b).__name__,
)
@pytest.mark.parametrize("width", [40, 88])
def test_colour_changes_no_text(block, width):
    colored = without_codes(to_text([[block]], width=width, color=True))
    plainly = to_text([[block]], width=width)
    assert [line.rstrip() for line in colored.split("\n")] == plainly.split("\n")


BAD = "a\x1b[31mb\x07\x9b2J\rc\nd\te"


def hostile():
    axis = Axis(name=BAD, labels=(BAD, "b"), special=(True, False), ticks=(BAD, "b"))
    values = np.array([[0.1, -0.2], [0.3, 0.4]])
    word = Word(text=BAD, score=0.3)
    scale = ColorScale(limit=1, signed=True, unit=BAD, names=(BAD, BAD))
    panel = Panel(values=values, name=BAD)
    table = Table(title=BAD, heads=(BAD, BAD), rows=((BAD, Cell(text=BAD, small=BAD)),))
    heat = Heat(image=Image.new("RGB", (2, 2)), caption=BAD, under=BAD)
    return (
        *(Heading(text=BAD, badge=BAD), Paragraph(text=BAD, kind="answer")),
        *(Paragraph(text=BAD, kind="meaning"), Paragraph(text=BAD)),
        *(Facts(pairs=((BAD, BAD),)), Words(words=(word,), scale=scale)),
        *(Legend(scale=scale), Pictures(pictures=(heat,))),
        Grid(panels=(panel,), rows=axis, columns=axis, scale=scale),
        Grid(panels=(panel, panel), rows=axis, columns=axis, scale=scale),
        Pairs(lines=((0, 1, 0.5),), left=axis, right=axis, scale=scale),
        Bars(title=BAD, rows=((BAD, 1.0),), scale=scale, numbers=(BAD,), marks=(BAD,)),
        Pages(labels=(word,), scale=scale, pages=((table,),)),
        *(table, Chart(names=(BAD,), values=values[:1], steps=axis, label=BAD, alt="")),
    )


@pytest.mark.parametrize("width", [40, 88])
def test_control_characters_do_not_reach_the_terminal(width):
    for block in hostile():
        for color in (False, True):
            text = without_codes(to_text([[block]], width=width, color=color))
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text), block
            assert max(map(cell_len, text.split("\n"))) <= width
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", plain([block], most=99))


def test_markup_of_rich_is_text():
    bold = "[bold]x[/bold] :smile:"
    table = Table(heads=("", bold), rows=((bold, bold),))
    for block in (Heading(text=bold), Paragraph(text=bold), table):
        assert bold in to_text([[block]])


def test_without_rich_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)
    with pytest.raises(MissingPackageError, match=r"captum_transformer_lrp\[cli\]"):
        to_text([[TITLE]])


# ---------------------------------------------------------------------- words and facts


def test_title_and_answer_stand_together():
    assert lines_of(TITLE, ANSWER, WORDS)[:3] == [TITLE.text, ANSWER.text, ""]
    assert lines_of(TITLE, WORDS)[:2] == [TITLE.text, ""]
    part = Heading(text="A part", level=2, badge="wrong")
    assert lines_of(part, WORDS)[0] == "A part [wrong]"
    assert len(lines_of(part, WORDS)) == 2


def test_titles_of_nothing_are_left_out():
    bare = Heading(text="All numbers", level=2)
    folded = largest([("A", 0.1)], SIGNED, "Word")
    assert lines_of(TITLE, BARS, bare, folded) == lines_of(TITLE, BARS)
    assert "All numbers" not in plain([TITLE, WORDS, bare, FACTS])


def test_the_input_is_not_printed():
    assert lines_of(Paragraph(text="given", kind="input")) == [""]


def test_facts_are_aligned():
    lines = lines_of(FACTS)
    assert lines[0] == "Logit       +2.5"
    assert lines[1].startswith("Method      AttnLRP with options")
    assert lines[2].startswith(" " * 12 + "with options")
    long = Facts(pairs=(("A name with many words", "its value"),))
    assert lines_of(long) == ["A name with many words  its value"]
    assert lines_of(long, width=40) == ["A name with many words  its value"]


def test_facts_and_notes_are_one_small_print():
    note = Paragraph(text="A note.")
    assert lines_of(TITLE, WORDS, FACTS, note)[3:5] == ["", "Logit       +2.5"]
    assert lines_of(FACTS, note)[-2:] != ["", "A note."]


def test_words_keep_their_spaces_and_colours():
    assert lines_of(WORDS) == ["[CLS] A wonderfully 映画 oflife [SEP]"]
    text = to_text([[WORDS]], color=True)
    assert "48;2;127;180;234m[CLS]\x1b[0m" in text  # LIGHT.negative
    assert "48;2;247;164;86m[SEP]\x1b[0m" in text  # LIGHT.positive
    assert "m映画" not in text  # zero has no colour
    faint = Words(words=(Word(text="[PAD]", score=0.001, special=True),), scale=SPOKEN)
    assert to_text([[faint]], color=True) == "\x1b[2m[PAD]\x1b[0m"


def test_legend_needs_colours_and_says_its_unit_without():
    assert lines_of(Legend(scale=KEPT)) == ["from dropped 0 to 1 kept: probability"]
    assert lines_of(Legend(scale=SPOKEN)) == [""]
    text = to_text([[Legend(scale=KEPT)]], color=True)
    assert without_codes(text) == "dropped 0 " + " " * 25 + " 1 kept   probability"
    assert text.count("48;2;") == 25


def test_pictures_are_told():
    assert lines_of(PICTURES) == ["picture of 32 by 24 pixels: What the model saw"]
    silent = Pictures(pictures=(Heat(image=Image.new("RGB", (2, 2))),))
    assert lines_of(silent) == [""]


# -------------------------------------------------------------------------------- grids


def test_a_grid_whose_columns_fit_stands_upright():
    lines = lines_of(GRID)
    assert lines[0] == "layer down, token across"
    assert lines[1].split() == ["[CLS]", "A", "wonderf…", "映画", "of", "life", "[SEP]"]
    assert lines[2].split() == "0 −.60 −.54 −.48 −.42 −.36 −.30 −.24".split()
    assert lines[-1].split() == "2 +.24 +.30 +.36 +.42 +.48 +.54 +.60".split()


def test_columns_go_down_where_there_is_no_room():
    lines = lines_of(GRID, width=40)
    assert lines[0] == "token down, layer across"
    assert lines[1].split() == ["0", "1", "2"]
    assert lines[2].split() == ["[CLS]", "−.60", "−.18", "+.24"]
    assert len({cell_len(line) for line in lines[2:]}) == 1


def test_short_labels_go_across_above_their_means():
    lines = lines_of(KEPT_GRID)
    assert lines[1].split() == ["emb", "1", "2"]
    assert lines[4].split()[0] == "wonderfully"
    assert lines[-1].split() == ["mean", ".10", ".20", ".70"]


def test_a_tall_grid_has_its_means_behind_its_lines():
    tall = Grid(
        panels=(Panel(values=VALUES.T),),
        rows=TOKEN,
        columns=STATE,
        scale=SIGNED,
        means=np.full(7, 0.3),
    )
    lines = lines_of(tall, width=40)
    assert lines[0] == "token down, hidden state across"
    assert lines[1].split() == ["emb", "1", "2", "mean"]
    assert lines[2].split() == ["[CLS]", "−.60", "−.18", "+.24", "+.30"]


def test_what_does_not_fit_follows_below():
    count = 30
    states = Axis(name="state", labels=tuple(map(str, range(count))), ticks=("t",) * 30)
    values = np.arange(30.0 * 40).reshape(30, 40) / 1200
    tokens = Axis(name="token", labels=tuple(f"w{i}" for i in range(40)))
    grid = Grid(panels=(Panel(values=values),), rows=states, columns=tokens, scale=KEPT)
    for width in (40, 88):
        lines = lines_of(grid, width=width)
        heads = [line for line in lines if set(line) == {" ", "t"}]
        assert sum(line.count("t") for line in heads) == count
        assert len({line.count("t") for line in heads}) == 1
        assert sum(line.startswith("w39 ") for line in lines) == len(heads)


@pytest.mark.parametrize("power", range(-7, 8))
@pytest.mark.parametrize("width", [40, 88])
def test_numbers_are_right_over_many_magnitudes(power, width):
    limit = 5.5 * 10.0**power
    scale = ColorScale(limit=limit, signed=True)
    values = np.array([[limit, -limit], [limit / 2, 0.0], [-limit / 10, limit]])
    rows = Axis(name="row", labels=("a", "b", "c"))
    columns = Axis(name="column", labels=("d", "e"))
    grid = Grid(panels=(Panel(values=values),), rows=rows, columns=columns, scale=scale)
    read = [
        [float(number.replace("−", "-")) for number in line.split()[1:]]
        for line in lines_of(grid, width=width)[2:]
    ]
    assert np.allclose(read, values, rtol=0, atol=0.06 * limit)
    names = [(f"{i}", score) for i, score in enumerate(values.ravel())]
    bars = Bars(rows=tuple(names), scale=scale)
    read = [float(b.split()[-1].replace("−", "-")) for b in lines_of(bars, width=width)]
    assert np.allclose(read, values.ravel(), rtol=0, atol=0.006 * limit)


@pytest.mark.parametrize(
    "score", [0.00996, 0.0996, 0.996, 9.96, 9.97, 99.6, 996.0, 123456.0, 1e-7]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_numbers_equal_the_scores_to_the_digits_shown(score, sign):
    scale = ColorScale(limit=score, signed=True)
    values = sign * np.array([[score, -score / 3, score / 7]])
    columns = Axis(name="column", labels=("d", "e", "f"))
    rows = Axis(name="row", labels=("a",))
    grid = Grid(panels=(Panel(values=values),), rows=rows, columns=columns, scale=scale)
    bars = Bars(rows=tuple(("name", v) for v in values.flat), scale=scale)
    cells = lines_of(grid)[-1].split()[1:]
    ends = [line.split()[-1] for line in lines_of(bars)]
    told = [line.split()[0] for line in plain([bars]).split("\n")]
    for numbers, share in ((cells, 0.11), (ends, 0.011), (told, 0.011)):
        for text, value in zip(numbers, values.flat, strict=True):
            mantissa, _, power = text.replace("−", "-").partition("e")
            step = 10.0 ** (int(power or 0) - len(mantissa.partition(".")[2]))
            read = float(text.replace("−", "-"))
            assert read == pytest.approx(value, abs=0.501 * step)
            assert step <= share * score * 1.01 or (step, power) == (1.0, "")


def test_special_tokens_are_dim_and_cells_coloured():
    text = to_text([[GRID]], color=True, width=40)
    assert "\x1b[2m[CLS]" in text and "\x1b[2mA" not in text
    assert "48;2;127;180;234m−.60 " in text
    assert "48;2;168;66;0m" in to_text(  # KEPT_LIGHT.high
        [[Grid(panels=(Panel(values=VALUES / 0.6),), **_axes(), scale=KEPT)]],
        color=True,
    )


def _axes():
    return {"rows": LAYER, "columns": TOKEN}


@pytest.mark.parametrize("width", [40, 88])
def test_several_grids_list_their_strongest_cells(width):
    grid = Grid(panels=HEADS.panels, **_axes(), scale=SIGNED)
    lines = lines_of(grid, width=width)
    assert lines[0] == "Largest magnitudes"
    assert re.fullmatch(r"head 1, layer 0, “\[CLS\]” +−0\.600", lines[2])
    assert len(lines) == 12


def test_a_large_grid_lists_its_strongest_cells():
    axis = Axis(name="row", labels=tuple(map(str, range(70))))
    values = np.zeros((70, 70))
    values[3, 4] = -0.5
    grid = Grid(panels=(Panel(values=values),), rows=axis, columns=axis, scale=SIGNED)
    assert re.fullmatch(r"row 3, row 4 +−0\.500", lines_of(grid)[2])


def test_the_strongest_pairs_come_first():
    lines = lines_of(PAIRS)
    assert re.fullmatch(r"“wonderfully” to “life” +−0\.600", lines[2])
    assert re.fullmatch(r"“\[CLS\]” to “A” +\+0\.060", lines[4])


# ------------------------------------------------------------------------------- tables


def test_a_chart_is_a_table_where_none_follows():
    lines = lines_of(CHART)
    assert lines[0] == "share that is kept"
    assert lines[1].split() == ["hidden", "state", "nouns", "verbs"]
    assert lines[3] == "after block 1  0.500  0.125"
    assert lines_of(CHART, TABLE) == lines_of(TABLE)
    folded = largest([("A", 0.1)], SIGNED, "Word")
    assert lines_of(CHART, folded) == lines


def test_tables():
    lines = lines_of(TABLE)
    assert lines[0] == "Rank agreement"
    assert lines[2].split() == ["AttnLRP", "–", "0.93", "(0.81)", "0.10"]
    assert lines[2].endswith(" 0.10") and lines[3].endswith(" 0.20")
    text = to_text([[TABLE]], color=True)
    assert "48;2;127;180;234m−1.00 (−0.9)" in text


def test_numbers_without_room_stand_below():
    lines = lines_of(TABLE, width=30)
    assert sum(line.startswith("AttnLRP") for line in lines) > 1
    joined = " ".join(lines)
    for number in ("0.93 (0.81)", "−1.00 (−0.9)", "0.10", "0.20"):
        assert joined.count(number) == 1


def test_long_texts_are_wrapped_beside_their_numbers():
    table = Table(heads=("Example", "Score"), rows=(("many words " * 20, "+0.123"),))
    lines = lines_of(table, width=40)
    assert lines[1].startswith("many words") and lines[1].endswith("+0.123")
    assert " ".join(lines).count("many") == 20


def test_folded_tables_are_printed_where_nothing_else_has_numbers():
    folded = largest([("A", 0.1)], SIGNED, "Word")
    number = re.compile(r"^A +\+0\.100$", re.M)
    for blocks, shown in (
        ((PICTURES, folded), (True, True)),
        ((WORDS, folded), (True, False)),  # without colours, with them
        ((GRID, folded), (False, False)),
    ):
        for color, there in zip((False, True), shown, strict=True):
            text = without_codes(to_text([blocks], color=color))
            assert bool(number.search(text)) == there


def test_empty_tables_are_not_printed():
    assert lines_of(Table(title="t", heads=("a",), rows=())) == [""]


def test_bars_run_to_either_side():
    lines = lines_of(BARS)
    assert lines[0] == "Words that count most (3)"
    assert re.fullmatch(r"life +│█{12} +\+0\.600", lines[1])
    assert re.fullmatch(r"A explained +█{6}│ +−0\.300", lines[2])
    assert re.fullmatch(r"映画 +│ +\+0\.001", lines[3])
    assert len({cell_len(line.partition("│")[0]) for line in lines[1:]}) == 1


def test_bars_from_zero_up_have_one_side():
    bars = Bars(rows=(("life", 0.5), ("A", 0.25)), scale=KEPT, numbers=("50 %", "25 %"))
    assert lines_of(bars) == [
        "life  │██████        50 %",
        "A     │███           25 %",
    ]


def test_bars_are_shorter_where_there_is_no_room():
    bars = Bars(rows=(("a rather long name", 0.6), ("A", -0.6)), scale=SPOKEN)
    lines = lines_of(bars, width=40)
    assert lines[0].startswith("a rather") and lines[0].endswith("+0.600")
    assert lines[0].count("█") == lines[-1].count("█") == 9


def test_the_first_pages_are_printed():
    lines = lines_of(PAGES)
    assert [line for line in lines if line in TOKENS] == ["[CLS]", "A"]
    assert "Page 1." in lines and "Page 2." not in lines
    assert lines[-1] == "and 5 more"


def test_pages_with_a_title_of_their_own_have_no_label_above_it():
    page = (Heading(text="“film”, probability 90 %", level=2), WORDS)
    label = Word(text="film", score=0.1)
    lines = lines_of(Pages(labels=(label,), scale=SPOKEN, pages=(page,)))
    assert lines[0] == "“film”, probability 90 %" and "film" not in lines


# -------------------------------------------------------------------------------- plain


def test_plain_has_title_numbers_and_notes():
    note = Paragraph(text="A note.")
    meaning = Paragraph(text="What it means.", kind="meaning")
    bars = replace(BARS, repeats=True)  # the words above say what they are
    blocks = [TITLE, ANSWER, WORDS, Legend(scale=SPOKEN), note, bars, FACTS, meaning]
    assert plain([BARS]).split("\n")[:2] == [BARS.title, "    +0.600  life"]
    assert plain(blocks).split("\n") == [
        f"{TITLE.text} {ANSWER.text}",
        "    +0.600  life",
        "    −0.300  A explained",
        "    +0.001  映画",
        "A note.",
    ]


def test_plain_lists_words_where_there_are_no_bars():
    lines = plain([WORDS]).split("\n")
    assert lines[0] == "    −0.600  [CLS]" and len(lines) == 7
    many = tuple(Word(text=f"w{i}", score=i / 100) for i in range(60))
    lines = plain([Words(words=many, scale=SPOKEN)], most=99).split("\n")
    assert lines[0] == "the 40 largest of 60 words:"
    assert lines[1].split() == ["+0.590", "w59"] and len(lines) == 41


def test_plain_grids_pairs_and_charts():
    lines = plain([HEADS]).split("\n")
    assert lines[0] == "2 grids of 7 tokens; 7 tokens; relevance, in logits"
    assert plain([GRID]).startswith("3 layers; 7 tokens; relevance, in logits\n")
    assert "    −0.600  layer 0, “[CLS]”" in plain([GRID])
    assert plain([PAIRS]).startswith("    −0.600  “wonderfully” to “life”")
    assert "after block 1  0.500  0.125" in plain([CHART])
    assert plain([CHART, TABLE]) == plain([TABLE])


def test_plain_tables_are_aligned():
    lines = plain([TABLE]).split("\n")
    assert lines[0] == "Rank agreement"
    assert lines[2] == "AttnLRP             –  0.93 (0.81)                  0.10"
    assert lines[3] == "CP-LRP   −1.00 (−0.9)            –                  0.20"
    wide = Table(heads=("", "n"), rows=(("映画", "1"), ("a" * 90, "2")))
    assert len({cell_len(line) for line in plain([wide]).split("\n")}) == 1


def test_plain_shows_a_folded_table_where_nothing_else_has_numbers():
    folded = largest([("row 1, column 2", 0.1)], SIGNED, "Place")
    assert "row 1, column 2  +0.100" in plain([TITLE, PICTURES, folded])
    assert "row 1" not in plain([TITLE, BARS, folded])


def test_plain_pages_list_their_labels():
    assert plain([PAGES]).split("\n") == [
        "    −0.600  [CLS]",
        "    −0.400  A",
        "and 5 more",
    ]


@pytest.mark.parametrize("most", [1, 2, 5, 24])
def test_plain_is_never_longer_than_a_screen(most):
    whole = plain(EVERYTHING, most=10_000).split("\n")
    lines = plain(EVERYTHING, most=most).split("\n")
    assert len(lines) == most
    assert lines[:-1] == whole[: most - 1]
    assert lines[-1] == f"... and {len(whole) - most + 1} more"
    assert plain(EVERYTHING, most=len(whole)).split("\n") == whole


def test_plain_of_nothing():
    assert plain([]) == ""
    assert plain(iter([TITLE])) == TITLE.text


def test_plain_needs_no_rich():
    code = (
        "import sys; sys.modules['rich'] = None\n"
        "from captum_transformer_lrp.report.blocks import Heading\n"
        "from captum_transformer_lrp.report.plain import plain\n"
        "print(plain([Heading(text='seen')]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "seen\n"
    assert not any("\x1b" in plain([block]) for block in EVERYTHING)


def test_every_block_is_plain_without_rich(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.setitem(sys.modules, name, None)
    for block in EVERYTHING:
        plain([block])
