"""Former home of the engine: old import paths, for one version more.

What was here lives in rooms of its own: :mod:`~captum_transformer_lrp.core`,
:mod:`~captum_transformer_lrp.rules`, :mod:`~captum_transformer_lrp.composites`,
:mod:`~captum_transformer_lrp.classic`, :mod:`~captum_transformer_lrp.carried`,
:mod:`~captum_transformer_lrp.known` and :mod:`~captum_transformer_lrp.observers`. Under
each old path stands a module that looks names up where they are now.
"""

from __future__ import annotations

import importlib
import sys
import types
import warnings
from typing import Any

from .. import composites as _composites
from .. import core as _core
from ..classic.layers import Layers as Layers

_PACKAGE = __name__.rpartition(".")[0]
#: old module, below this one -> where its names are now, below the package
MOVED = {
    "call": "core.call _nested carried.passes",
    "classic": "classic.composites",
    "composites": "core.composites classic.composites carried.composites",
    "constants": "observers.constants",
    "counts": "known.counts",
    "cuts": "observers.cuts",
    "decompositions": "known.decompositions",
    "encodings": "observers.encodings",
    "engine": "core.engine known.refusals known.beginning",
    "flex_attention": "known.flex_attention",
    "functions": "known.functions",
    "gates": "core.gates known.behind",
    "gradients": "core.gradients classic.linear_map observers.trace",
    "identifiers": "known.identifiers",
    "installed": "core.installed known.compiled attribution.as_before",
    "joins": "known.joins",
    "maps": "observers.maps",
    "named": "composites",
    "observers": "observers.observed",
    "operators": "core.operators carried.past known.unknown _torch",
    "passes": "carried.passes",
    "positions": "observers.positions",
    "precision": "attribution.precision",
    "recurrent": "known.recurrent",
    "registry": "core.registry known.modules classic.layers",
    "rules": "rules",
    "rules.addends": "known.addends known.by_argument core.rules.linear",
    "rules.attention": "core.rules.attention known.attention",
    "rules.base": "core.rules.base",
    "rules.carried": "carried.past",
    "rules.contributions": "classic.contributions",
    "rules.convert": "carried.convert core.rules.base",
    "rules.elementwise": "core.rules.elementwise known.by_argument",
    "rules.input_layer": "classic.input_layer",
    "rules.linear": "core.rules.linear",
    "rules.linear_map": "classic.linear_map known.merging",
    "rules.norm": "core.rules.norm",
    "rules.positive": "carried.positive",
    "rules.quantized": "known.quantized",
    "rules.reductions": "known.by_argument core.rules.linear",
    "rules.residual": "carried.residual",
    "rules.scan": "core.rules.attention",
    "scans": "known.scans",
    "special_calls": "known.special_calls core.plugins",
    "streams": "observers.streams",
    "table": "core.table",
    "tape": "core.tape known.unknown observers.streams",
    "taps": "observers.taps",
    "trace": "observers.trace",
    "unknown": "known.unknown",
}


class _Former(types.ModuleType):
    """A module under its former path."""

    def __getattr__(self, name: str) -> Any:
        """Look a name up in the modules that have taken over."""
        for module in MOVED[self.__name__.removeprefix(f"{__name__}.")].split():
            found = importlib.import_module(f"{_PACKAGE}.{module}")
            if hasattr(found, name):
                return getattr(found, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


warnings.warn(
    f"{__name__} has moved, and this path will go with the next version. Import the "
    f"engine and tables from {_PACKAGE}.core, rules from {_PACKAGE}.rules, composites "
    f"from {_PACKAGE}.composites, observers and traces from {_PACKAGE}.observers.",
    DeprecationWarning,
    stacklevel=2,
)
for _old in sorted(MOVED):
    _path = f"{__name__}.{_old}"
    _parent, _, _name = _path.rpartition(".")
    sys.modules[_path] = _Former(_path)
    setattr(sys.modules[_parent], _name, sys.modules[_path])
for _home in (_composites, _core):  # last: `registry` is the registry itself here
    globals().update({_name: getattr(_home, _name) for _name in _home.__all__})
