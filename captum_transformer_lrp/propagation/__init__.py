"""Former home of the engine: old import paths, for one version more.

What was here lives in rooms of its own: :mod:`~captum_transformer_lrp.core`,
:mod:`~captum_transformer_lrp.rules`, :mod:`~captum_transformer_lrp.composites`,
:mod:`~captum_transformer_lrp.classic`, :mod:`~captum_transformer_lrp.carried`,
:mod:`~captum_transformer_lrp.known` and :mod:`~captum_transformer_lrp.observers`. Each
old path leads to the very module that took its place.
"""

import importlib
import sys
import warnings

_PACKAGE = __name__.rpartition(".")[0]
#: old module, below this one -> new module, below the package
MOVED = {
    "call": "core.call",
    "classic": "classic.composites",
    "composites": "core.composites",
    "constants": "observers.constants",
    "counts": "known.counts",
    "cuts": "observers.cuts",
    "decompositions": "known.decompositions",
    "encodings": "observers.encodings",
    "engine": "core.engine",
    "flex_attention": "known.flex_attention",
    "functions": "known.functions",
    "gates": "core.gates",
    "gradients": "core.gradients",
    "identifiers": "known.identifiers",
    "installed": "core.installed",
    "joins": "known.joins",
    "maps": "observers.maps",
    "named": "composites",
    "observers": "observers.observed",
    "operators": "core.operators",
    "passes": "carried.passes",
    "positions": "observers.positions",
    "precision": "attribution.precision",
    "recurrent": "known.recurrent",
    "registry": "core.registry",
    "rules": "rules",
    "rules.addends": "known.addends",
    "rules.attention": "core.rules.attention",
    "rules.base": "core.rules.base",
    "rules.carried": "carried.past",
    "rules.contributions": "classic.contributions",
    "rules.convert": "carried.convert",
    "rules.elementwise": "core.rules.elementwise",
    "rules.input_layer": "classic.input_layer",
    "rules.linear": "core.rules.linear",
    "rules.linear_map": "classic.linear_map",
    "rules.norm": "core.rules.norm",
    "rules.positive": "carried.positive",
    "rules.quantized": "known.quantized",
    "rules.reductions": "core.rules.reductions",
    "rules.residual": "carried.residual",
    "rules.scan": "core.rules.scan",
    "scans": "known.scans",
    "special_calls": "known.special_calls",
    "streams": "observers.streams",
    "table": "core.table",
    "tape": "core.tape",
    "taps": "observers.taps",
    "trace": "observers.trace",
    "unknown": "core.unknown",
}

warnings.warn(
    f"{__name__} has moved, and this path will go with the next version. Import the "
    f"engine and tables from {_PACKAGE}.core, rules from {_PACKAGE}.rules, composites "
    f"from {_PACKAGE}.composites, observers and traces from {_PACKAGE}.observers.",
    DeprecationWarning,
    stacklevel=2,
)
for _old, _new in sorted(MOVED.items()):
    _module = importlib.import_module(f"{_PACKAGE}.{_new}")
    sys.modules[f"{__name__}.{_old}"] = _module
    if "." not in _old:
        globals()[_old] = _module

from ..composites import *  # noqa: E402, F403
from ..core import *  # noqa: E402, F403
from ..core import registry as registry  # noqa: E402
