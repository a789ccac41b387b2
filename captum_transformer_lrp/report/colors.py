"""One diverging colour scale, blue - neutral - orange, centred on zero, and its half.

Orange speaks for the explained class and blue against it. Blue and orange are told
apart under the three common forms of colour blindness. A scale is a straight line in
OKLab (Ottosson 2020, https://bottosson.github.io/posts/oklab/) on either side of its
neutral colour, so that equal steps of relevance look like equal steps of colour.

The scales for text (:data:`LIGHT`, :data:`DARK`) end early, so that one ink stays
readable on each of their colours. Heat maps over pictures carry no text and use the
stronger :data:`HEAT_POSITIVE` and :data:`HEAT_NEGATIVE`. Probabilities, which have one
side only, run from the page's colour to a strong orange (:data:`KEPT_LIGHT`,
:data:`KEPT_DARK`), and their ink changes on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import UnknownNameError, suggestion

RGB = tuple[float, float, float]

# sRGB (linear) -> LMS and LMS^(1/3) -> OKLab; the inverses are computed, not copied.
_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def from_hex(color: str) -> RGB:
    """Return the sRGB components of ``"#rrggbb"``, each in [0, 1].

    Raises:
        ValueError: ``color`` is not of that form.
    """
    digits = color.removeprefix("#")
    if len(digits) != 6:
        raise ValueError(f"expected a colour such as '#1f5fa8', got {color!r}")
    red, green, blue = (int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
    return red, green, blue


def to_hex(rgb: Sequence[float] | np.ndarray) -> str:
    """Return ``"#rrggbb"`` for sRGB components in [0, 1]."""
    return "#" + "".join(f"{round(255 * min(max(c, 0.0), 1.0)):02x}" for c in rgb)


def _linear(rgb: np.ndarray) -> np.ndarray:
    """Undo the sRGB transfer curve."""
    low = rgb <= 0.04045
    return np.where(low, rgb / 12.92, ((np.maximum(rgb, 0) + 0.055) / 1.055) ** 2.4)


def _gamma(linear: np.ndarray) -> np.ndarray:
    """Apply the sRGB transfer curve."""
    low = linear <= 0.0031308
    high = 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055
    return np.clip(np.where(low, 12.92 * linear, high), 0, 1)


def _oklab(rgb: Sequence[float]) -> np.ndarray:
    """Return the OKLab coordinates of one sRGB colour."""
    return np.asarray(
        _TO_LAB @ np.cbrt(_TO_LMS @ _linear(np.asarray(rgb, dtype=float)))
    )


def luminance(rgb: Sequence[float]) -> float:
    """Return the relative luminance of an sRGB colour (WCAG 2.2)."""
    weights = np.array([0.2126, 0.7152, 0.0722])
    return float(_linear(np.asarray(rgb, dtype=float)) @ weights)


def contrast_ratio(first: str, second: str) -> float:
    """Return the contrast ratio of two ``"#rrggbb"`` colours, 1 to 21 (WCAG 2.2).

    Body text needs at least 4.5.
    """
    brighter, darker = sorted(
        (luminance(from_hex(first)), luminance(from_hex(second))), reverse=True
    )
    return (brighter + 0.05) / (darker + 0.05)


@dataclass(frozen=True, kw_only=True)
class DivergingScale:
    """A colour for each number in [-1, 1]; zero is the neutral colour.

    Args:
        negative (str): Colour of -1, as ``"#rrggbb"``.
        neutral (str): Colour of 0; for text the colour of the page.
        positive (str): Colour of +1.
        ink (str): Colour of text on the scale, readable on all its colours.
    """

    negative: str
    neutral: str
    positive: str
    ink: str

    def rgb(self, values: np.ndarray | float) -> np.ndarray:
        """Return sRGB components in [0, 1], shape ``values.shape + (3,)``.

        Values beyond -1 and 1 get the colours of the ends.
        """
        share = np.clip(np.asarray(values, dtype=float), -1, 1)[..., None]
        centre = _oklab(from_hex(self.neutral))
        toward_positive = _oklab(from_hex(self.positive)) - centre
        toward_negative = _oklab(from_hex(self.negative)) - centre
        side = np.where(share >= 0, toward_positive, toward_negative)
        cubes = (centre + np.abs(share) * side) @ np.linalg.inv(_TO_LAB).T
        return _gamma(cubes**3 @ np.linalg.inv(_TO_LMS).T)

    def hex(self, value: float) -> str:
        """Return the colour of one value as ``"#rrggbb"``."""
        return to_hex(self.rgb(value))


LIGHT = DivergingScale(
    negative="#7fb4ea", neutral="#ffffff", positive="#f7a456", ink="#1a1d21"
)
DARK = DivergingScale(
    negative="#2563a8", neutral="#1b1e23", positive="#a4520c", ink="#f1f3f5"
)


@dataclass(frozen=True, kw_only=True)
class SequentialScale:
    """A colour for each number in [0, 1], in one hue, and the ink to write on it.

    Args:
        low (str): Colour of 0, as ``"#rrggbb"``; that of the page.
        high (str): Colour of 1.
        inks (tuple of str): Of which :meth:`ink` takes the one with more contrast.
            Default: black and white
    """

    low: str
    high: str
    inks: tuple[str, ...] = ("#000000", "#ffffff")

    def rgb(self, values: np.ndarray | float) -> np.ndarray:
        """Return sRGB components in [0, 1], shape ``values.shape + (3,)``."""
        ends = DivergingScale(
            negative=self.low, neutral=self.low, positive=self.high, ink=self.inks[0]
        )
        return ends.rgb(values)

    def hex(self, value: float) -> str:
        """Return the colour of one value as ``"#rrggbb"``; beyond the ends theirs."""
        return to_hex(self.rgb(value))

    def ink(self, value: float) -> str:
        """Return the colour of text on the colour of one value."""
        ground = self.hex(value)
        return max(self.inks, key=lambda ink: contrast_ratio(ink, ground))


KEPT_LIGHT = SequentialScale(low="#ffffff", high="#a84200")
KEPT_DARK = SequentialScale(low="#1b1e23", high="#ffa95c")


# Over a picture: stronger, without text on them.
HEAT_POSITIVE = "#d65600"
HEAT_NEGATIVE = "#0f5cb8"


@dataclass(frozen=True, kw_only=True)
class Theme:
    """The colours of a page: its paper, its inks and its scales.

    Args:
        scale (DivergingScale): For scores with a sign; its neutral colour is the paper.
        weight (SequentialScale): For scores from zero up, such as attention.
        soft (str): Ink of captions and units, readable on the paper.
        line (str): Fine lines.
        positive_line (str): A drawn line that stands for a score above zero.
        negative_line (str): One for a score below zero.
    """

    scale: DivergingScale
    weight: SequentialScale
    soft: str
    line: str
    positive_line: str
    negative_line: str

    @property
    def paper(self) -> str:
        """The colour of the page."""
        return self.scale.neutral

    @property
    def ink(self) -> str:
        """The colour of text."""
        return self.scale.ink

    def ground(self, share: float, *, signed: bool = True) -> str:
        """Return the colour of a score, given as a share of the limit."""
        return self.scale.hex(share) if signed else self.weight.hex(share)

    def rgb(self, shares: np.ndarray, *, signed: bool = True) -> np.ndarray:
        """Return the colours of many scores, sRGB in [0, 1]."""
        return self.scale.rgb(shares) if signed else self.weight.rgb(shares)

    def ink_on(self, share: float, *, signed: bool = True) -> str:
        """Return the colour of text on :meth:`ground`."""
        return self.ink if signed else self.weight.ink(share)


THEMES = {
    "light": Theme(
        scale=LIGHT,
        weight=KEPT_LIGHT,
        soft="#5a626b",
        line="#e3e6e9",
        positive_line=HEAT_POSITIVE,
        negative_line=HEAT_NEGATIVE,
    ),
    "dark": Theme(
        scale=DARK,
        weight=KEPT_DARK,
        soft="#a4acb5",
        line="#30353c",
        positive_line=KEPT_DARK.high,
        negative_line=LIGHT.negative,
    ),
}


def find_theme(name: str) -> Theme:
    """Return the theme of that name, ``"light"`` or ``"dark"``.

    Raises:
        UnknownNameError: There is no such theme.
    """
    if name not in THEMES:
        raise UnknownNameError(f"no theme {name!r}.{suggestion(name, THEMES)}")
    return THEMES[name]


def scale_limit(scores: Sequence[float] | np.ndarray) -> float:
    """Return the largest magnitude among ``scores``: where a colour scale ends.

    Returns 1.0 when there is no score or all are zero, so that dividing by the limit
    is always defined and zero stays neutral.

    Raises:
        ValueError: A score is NaN or infinite.
    """
    values = np.asarray(scores, dtype=float)
    if values.size == 0:
        return 1.0
    largest = float(np.abs(values).max())
    if not np.isfinite(largest):
        raise ValueError("scores must be finite numbers, got NaN or infinity")
    return largest or 1.0


# Of several lines in one chart: Okabe and Ito (2008), told apart with every form of
# colour blindness. Yellow is left out, which is too pale on white; the last is the
# ink of the page.
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#1a1d21")
