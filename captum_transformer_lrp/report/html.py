"""Blocks as HTML: one self-contained page, or a piece of it for a notebook.

A page needs no network and no other files, and follows the reader's light or dark
setting; everything that colour says is also there as a number. All text that comes from
outside (the input, names of models, classes and tokens) is escaped by Jinja2. A piece
for a notebook brings its style along, which is stronger than the notebook's own. Where
a notebook takes it away (JupyterLab, of a file that is not trusted) what stands in
attributes stays: each word and cell has the colours of light, pictures and bars their
size, and what would be nonsense without style is ``hidden``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from .._packages import require
from .blocks import Axis, Card, ColorScale, Grid, Heat, cell_of, pool_largest
from .colors import LINES, THEMES, to_hex
from .image import data_uri, enlarge, outlined, overlay, transparent

if TYPE_CHECKING:
    from PIL.Image import Image

_TEMPLATES = Path(__file__).parent / "templates"
_LIGHT, _DARK = THEMES["light"], THEMES["dark"]

_STEPS = 13  # colours of a bar
_HOVER_CELLS = 1024  # with numbers under the mouse
_COLUMNS = 40  # of a grid, side by side
_TABLE_CELLS = 8000  # of a grid, beyond which it is pixels
_THINNED = 12  # labels on a small panel
_SMALL_PIXELS = 200  # cells along a side of a small panel; of more the largest is shown


def to_page(
    cards: Sequence[Card],
    *,
    title: str,
    heading: str | None = None,
    lead: str | None = None,
) -> str:
    """Return a page with cards, one below the other.

    Args:
        cards (sequence of Card): What it shows.
        title (str): Title of the page.
        heading (str, optional): What stands above the cards. Default: None
        lead (str, optional): A paragraph below the heading. Default: None

    Raises:
        MissingPackageError: jinja2 is not installed.
    """
    environment = _environment()
    page: str = environment.get_template("report.html").render(
        items=cards,
        title=title,
        heading=heading,
        lead=lead,
        style=_style(environment, "style.css"),
    )
    return page


def to_fragment(cards: Sequence[Card]) -> str:
    """Return cards as a piece of HTML with its own style, for notebooks.

    Raises:
        MissingPackageError: jinja2 is not installed.
    """
    environment = _environment(inline=True)
    # The attribute, twice: stronger than a notebook's own rules for its output, and not
    # for a piece whose data-s a notebook took away with the rest of the style.
    style = _style(environment, "style.css", "notebook.css").replace(
        ".xlrp", ".xlrp[data-s][data-s]"
    )
    found: str = environment.get_template("fragment.html").render(
        items=cards, style=style
    )
    return found


def _environment(*, inline: bool = False) -> Any:
    """Return what renders templates.

    Args:
        inline (bool, optional): Whether each word and cell has its colours of light by
            itself, and what needs the style sheet is hidden, for where style sheets
            are taken away. Default: False
    """
    return _compiling(require("jinja2"), inline)


@cache
def _compiling(jinja2: Any, inline: bool) -> Any:
    """Return the one environment of a kind, which compiles each template once."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals |= {
        "inline": inline,
        "light": _LIGHT.scale,
        "kind_of": lambda block: type(block).__name__,
        "colors": _colors,
        "bar": _bar,
        "source": _source,
        "numbers": _numbers,
        "columns_at_once": _COLUMNS,
        "is_table": _is_table,
        "matrix": _matrix,
        "spread": _spread,
        "line_colors": (*LINES[:-1], "currentColor"),
        "new_id": lambda: f"x{uuid4().hex[:12]}",
    }
    environment.filters["as_cell"] = cell_of
    return environment


def _style(environment: Any, *sheets: str) -> Any:
    """Return style sheets, marked as safe: nothing in them comes from outside."""
    style = "\n".join(
        environment.get_template(sheet).render(light=_LIGHT, dark=_DARK)
        for sheet in sheets
    )
    return require("jinja2").utils.markupsafe.Markup(style)


# ------------------------------------------------------ what templates ask of blocks


def _colors(share: float, scale: ColorScale) -> tuple[str, ...]:
    """Return the ground of a score in light and in dark, and the ink on each."""
    signed = scale.diverging
    return (
        *(theme.ground(share, signed=signed) for theme in (_LIGHT, _DARK)),
        *(theme.ink_on(share, signed=signed) for theme in (_LIGHT, _DARK)),
    )


def _bar(scale: ColorScale) -> dict[str, Any]:
    """Return the colours of a bar, as they follow the theme and in light alone."""
    light, dark = (
        [to_hex(color) for color in scale.colors(theme, _STEPS)]
        for theme in (_LIGHT, _DARK)
    )
    both = zip(light, dark, strict=True)
    steps = [x if x == y else f"light-dark({x},{y})" for x, y in both]
    return {"steps": ",".join(steps), "few": light[::2]}


def _source(one: Heat) -> str:
    """Return what is seen of a picture, as an address."""
    loops = [loop for outline in one.outlines for loop in outline.loops]
    return data_uri(outlined(_seen(one), one.image.size, loops))


def _seen(one: Heat) -> Image:
    """Return what is seen of a picture without its outlines."""
    if one.scores is None:
        return enlarge(one.image.convert("RGB"))
    if one.style == "heat":
        return enlarge(transparent(one.shares))
    if one.style == "contours":
        from .figure import contoured

        return contoured(one)
    assert one.scale is not None
    large, smooth = enlarge(one.image), one.style == "smooth"
    return overlay(large, one.scores, limit=one.scale.limit, smooth=smooth)


def _numbers(one: Heat) -> list[str]:
    """Return the numbers under the mouse, where scores have sharp edges."""
    if one.scores is None or one.style == "smooth" or one.scores.size > _HOVER_CELLS:
        return []
    assert one.scale is not None
    return [one.scale.write(float(score)) for score in one.scores.ravel()]


def _is_table(grid: Grid) -> bool:
    """Return whether a grid has its numbers written into its cells."""
    return len(grid.panels) == 1 and grid.panels[0].values.size <= _TABLE_CELLS


def _matrix(grid: Grid, number: int) -> str:
    """Return one of the panels as pixels, as an address."""
    shares = grid.panels[number].values / grid.scale.limit
    if len(grid.panels) > 1:
        shares = pool_largest(shares, (_SMALL_PIXELS, _SMALL_PIXELS))
    return data_uri(enlarge(transparent(shares)))


def _spread(axis: Axis, *, thin: bool) -> Iterator[tuple[int, float]]:
    """Yield which labels are shown and where they stand, in per cent."""
    step = -(-len(axis) // _THINNED) if thin else 1
    for i in range(0, len(axis), step):
        yield i, round(100 * (i + 0.5) / len(axis), 3)
