"""The methods in Captum Insights, the browser of attributions up to captum 0.8."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
from types import ModuleType
from typing import Any

from ..errors import InsightsError
from .transformer_lrp import CPLRP, AttnLRP, EpsilonLRP, GradientXInput, TransformerLRP

#: what Insights can draw: one score per pixel, token or feature
_BY_DEFAULT: tuple[type[TransformerLRP], ...] = (
    AttnLRP,
    CPLRP,
    EpsilonLRP,
    GradientXInput,
)
_CONFIG = "captum.insights.attr_vis.config"


def register_insights(*classes: type[Any]) -> tuple[str, ...]:
    """Let Captum Insights offer the methods of this package.

    Insights has no call for this: the methods are written into the tables of its module
    ``captum.insights.attr_vis.config``, from which it builds its menu. Call it before
    an ``AttributionVisualizer`` is made; twice does no harm.

    Args:
        classes (type): attributions that are made by ``cls(model)``, and whose result
            has the shape of the inputs, or one score per token for a ``TextFeature``.
            Default: AttnLRP, CPLRP, EpsilonLRP, GradientXInput

    Returns:
        tuple of str: the names under which Insights offers them.

    Raises:
        InsightsError: if captum has no Insights (0.9 removed it), or a package that
            Insights needs is not installed.
        TypeError: if something is no attribution that Insights can call.

    Examples::

        >>> register_insights()
        ('AttnLRP', 'CP-LRP', 'LRP-epsilon', 'Gradient x Input')
        >>> AttributionVisualizer([model], score_func, classes, features, data).render()
    """
    chosen = classes or _BY_DEFAULT
    for cls in chosen:
        if not hasattr(getattr(cls, "attribute", None), "__wrapped__"):
            raise TypeError(
                f"register_insights got {cls!r}; expected classes of attributions such "
                "as AttnLRP, whose attribute is decorated with captum.log.log_usage."
            )
        required = [
            name
            for name, p in list(inspect.signature(cls).parameters.items())[1:]
            if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
        ]
        if required:
            raise TypeError(
                f"{cls.__name__} needs more than a model ({', '.join(required)}), "
                "which Insights does not pass. Register a class that is made by "
                "cls(model)."
            )
    config = _insights()
    for cls in chosen:
        name = cls.get_name()
        summary = (cls.__doc__ or "").strip().partition("\n")[0]
        config.ATTRIBUTION_NAMES_TO_METHODS[name] = cls
        config.ATTRIBUTION_METHOD_CONFIG[name] = config.ConfigParameters(
            params={}, help_info=summary, post_process={}
        )
    return tuple(cls.get_name() for cls in chosen)


def _insights() -> ModuleType:
    """Return the module of Insights that holds its tables."""
    if importlib.util.find_spec("captum.insights") is None:
        version = importlib.metadata.version("captum")
        raise InsightsError(
            f"captum {version} has no captum.insights, which was removed in 0.9. "
            'Install "captum[insights]<0.9" to look at attributions there, or save a '
            "report: captum_transformer_lrp.explain(...).save('report.html')."
        )
    try:
        return importlib.import_module(_CONFIG)
    except ModuleNotFoundError as error:
        raise InsightsError(
            f"Captum Insights needs {error.name}, which is not installed; install it "
            'with:  pip install "captum[insights]<0.9"'
        ) from error
