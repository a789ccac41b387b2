"""Pictures of masks: what is kept of each token at each hidden state.

:class:`KeptMap` is the heat map of one text; :func:`kept_by_layer` and
:func:`kept_by_group` average many of them into a :class:`KeptTable`; both print, draw
and save. :func:`draw_kept_image` is for pictures. Nothing here trains or runs a model
(``masking`` at the top of the package does).
"""

from __future__ import annotations

from .groups import KeptTable, kept_by_group, kept_by_layer, token_kind
from .maps import KeptMap, save_maps
from .names import StateNames, state_names
from .pictures import draw_kept_image

__all__ = [
    "KeptMap",
    "KeptTable",
    "StateNames",
    "draw_kept_image",
    "kept_by_group",
    "kept_by_layer",
    "save_maps",
    "state_names",
    "token_kind",
]
