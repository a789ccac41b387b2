"""Pictures of scores: texts, images, layers, heads, token pairs and attention.

Nothing here computes relevance. The functions take scores of any attributor, as
tensors, arrays or lists, and return a picture that shows itself in a notebook and has
``to_html()``, ``figure(theme="light" | "dark")``, ``save(path)`` (.html, .png, .pdf,
.svg) and ``alt``:

- :func:`draw_text`: heat maps over texts, pieces of words merged;
- :func:`draw_image`: over images, by pixels or patches;
- :func:`draw_image_grid`: several images by several methods, on one scale;
- :func:`draw_layers`, :func:`draw_heads`, :func:`draw_matrix`: layers by tokens, heads,
  tokens by tokens;
- :func:`draw_attention`: attention maps, all heads or the lines of one.

They are drawn as :class:`~captum_transformer_lrp.explanation.Explanation` is, by
``captum_transformer_lrp.report``. Masks over layers and tokens are in
:mod:`~captum_transformer_lrp.visualization.states`.
"""

from __future__ import annotations

from .attention import LinePicture, draw_attention
from .grid import GridPicture, draw_heads, draw_layers, draw_matrix
from .image_grid import ImageGrid, draw_image_grid
from .image_map import ImagePicture, draw_image
from .picture import Picture
from .text import TextPicture, draw_text

__all__ = [
    "GridPicture",
    "ImageGrid",
    "ImagePicture",
    "LinePicture",
    "Picture",
    "TextPicture",
    "draw_attention",
    "draw_heads",
    "draw_image",
    "draw_image_grid",
    "draw_layers",
    "draw_matrix",
    "draw_text",
]
