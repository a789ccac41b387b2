"""Rules that carry relevance itself, beside torch's gradient: a plug-in of the core.

Importing this room plugs it in, see :mod:`~captum_transformer_lrp.core.plugins`.
"""

from ..core.plugins import plugins
from .convert import relevance_form
from .passes import Passes

plugins.passes = Passes
plugins.relevance_form = relevance_form
