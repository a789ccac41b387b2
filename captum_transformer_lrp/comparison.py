"""Several methods on one input, side by side, and how far they agree."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from . import records
from ._files import write
from ._version import __version__
from .description import describe
from .errors import InputError, TraceError, UnknownNameError
from .explaining import Explainer, Method, Picture
from .explanation import (
    Explanation,
    ImageExplanation,
    Normalization,
    TextExplanation,
    check_suffix,
    normalize,
    pool,
)
from .models.loading import ImageModel, TextModel
from .models.packages import require
from .rank_agreement import kendall, spearman

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

JSON_SCHEMA = "captum_transformer_lrp.comparison/1"

#: what :func:`compare` takes where no methods are named
DEFAULT_METHODS = ("attnlrp", "cp-lrp", "integrated-gradients", "saliency", "occlusion")


@dataclass(frozen=True, kw_only=True)
class Conservation:
    """What became of the score that relevance propagation started with.

    Args:
        score (float): The explained logit; of a mean over contexts, the sum of their
            logits, each with its weight.
        relevance (float): The sum of relevance at the inputs.
        absorbed (float): What operators kept or added, biases above all; for methods
            that do not conserve also what their rules changed.
        error (float): What neither arrived nor was kept by constants, as a share of the
            score: the trace's conservation error, next to 0 for methods that conserve.
    """

    score: float
    relevance: float
    absorbed: float
    error: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Explanations of one prediction by several methods.

    Args:
        explanations (tuple[Explanation, ...]): One per method, all of the same input,
            model and target.
        conservation (tuple[Conservation or None, ...]): The trace of each, where the
            method propagates relevance.
    """

    explanations: tuple[Explanation, ...]
    conservation: tuple[Conservation | None, ...] = field(repr=False)

    def __post_init__(self) -> None:
        """Check that the explanations are of one input."""
        if len(self.explanations) < 1:
            raise InputError("expected at least one explanation to compare, got none")
        if len(self.conservation) != len(self.explanations):
            raise InputError(
                f"got {len(self.conservation)} traces for {len(self.explanations)} "
                "explanations; pass None where a method has none"
            )
        first = self.explanations[0]
        for one in self.explanations[1:]:
            if (one.kind, one.model, one.target.index) != (
                first.kind,
                first.model,
                first.target.index,
            ) or _input_of(one) != _input_of(first):
                raise InputError(
                    f"{one.method} explains another input, model or target than "
                    f"{first.method}: expected explanations of one prediction"
                )

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of the methods, made distinct by a number where they are not."""
        names = [one.method for one in self.explanations]
        return tuple(
            f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name
            for i, name in enumerate(names)
        )

    @property
    def question(self) -> str:
        """The question that all methods answer."""
        target, prediction = (
            self.explanations[0].target,
            self.explanations[0].prediction,
        )
        name = self.explanations[0].target_name
        same = target.index == prediction.index
        return f"Why {name}?" if same else f"What speaks for {name}?"

    @property
    def ranked(self) -> tuple[np.ndarray, ...]:
        """The numbers that are ranked, one array ``(parts,)`` per method.

        Of a text the tokens that it is made of; those that the tokenizer added are left
        out, since the methods treat them differently (methods with a baseline keep
        them). Of a picture its patches, or squares where they are unknown.
        """
        if self.explanations[0].kind == "text":
            texts = [cast("TextExplanation", one) for one in self.explanations]
            own = np.array([not piece.special for piece in texts[0].pieces])
            return tuple(one.scores[own] for one in texts)
        cells = [cast("ImageExplanation", one).cells for one in self.explanations]
        rows = min(c.shape[0] for c in cells)
        columns = min(c.shape[1] for c in cells)
        return tuple(pool(c, (rows, columns)).ravel() for c in cells)

    def agreement(
        self, measure: Literal["spearman", "kendall"] = "spearman"
    ) -> np.ndarray:
        r"""Return the rank correlation of each two methods.

        Two signed methods are compared by their scores; where one of the two has no
        sign, both are compared by their magnitudes. Ties share ranks.

        Args:
            measure (str, optional): ``"spearman"`` for :math:`\rho`, ``"kendall"`` for
                :math:`\tau_b`. Default: ``"spearman"``

        Returns:
            *np.ndarray* ``(methods, methods)``, symmetric; NaN where one of the two
            ranks nothing (one part only, or all scores the same).

        Raises:
            UnknownNameError: There is no such measure.
        """
        if measure not in ("spearman", "kendall"):
            raise UnknownNameError(
                f"there is no rank agreement {measure!r}: expected 'spearman' or "
                "'kendall'"
            )
        correlate = spearman if measure == "spearman" else kendall
        ranked = self.ranked
        table = np.full((len(ranked), len(ranked)), np.nan)
        for i, a in enumerate(ranked):
            for j, b in enumerate(ranked[: i + 1]):
                if not (self.explanations[i].signed and self.explanations[j].signed):
                    found = correlate(np.abs(a), np.abs(b))
                else:
                    found = correlate(a, b)
                if found is not None:
                    table[i, j] = table[j, i] = found
        return table

    def to_pandas(self, normalization: Normalization | None = "max") -> DataFrame:
        """Return a table with one column of scores per method; needs pandas.

        Args:
            normalization (str, optional): As for :meth:`Explanation.normalized`; None
                keeps each method's own unit. Default: ``"max"``

        Returns:
            *pandas.DataFrame*: The rows are tokens, or the patches of a picture.

        Raises:
            MissingPackageError: pandas is not installed.
            UnknownNameError: There is no such normalisation.
        """
        pandas: Any = require("pandas")
        table: Any
        if self.explanations[0].kind == "text":
            table = self.explanations[0].to_pandas().drop(columns="score")
            values = [one.scores for one in self.explanations]
        else:
            values = list(self.ranked)
            table = pandas.DataFrame(index=range(len(values[0])))
        for name, scores in zip(self.methods, values, strict=True):
            table[name] = (
                scores if normalization is None else normalize(scores, normalization)
            )
        table.attrs = {"normalization": normalization}
        found: DataFrame = table
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`to_json` writes, as Python objects."""
        return {
            "schema": JSON_SCHEMA,
            "methods": list(self.methods),
            "agreement": {
                measure: [
                    [None if np.isnan(v) else float(v) for v in row]
                    for row in self.agreement(measure)
                ]
                for measure in ("spearman", "kendall")
            },
            "conservation": [
                None if one is None else asdict(one) for one in self.conservation
            ],
            "explanations": [one.to_dict() for one in self.explanations],
            "version": __version__,
        }

    def to_json(self, *, indent: int | None = 2) -> str:
        """Return the comparison as JSON, the same keys in every release of a schema.

        ``schema`` is ``"captum_transformer_lrp.comparison/1"``; ``methods`` are names;
        ``agreement`` has two tables, ``spearman`` and ``kendall`` (null where a method
        ranks nothing); ``conservation`` has ``score``, ``relevance``, ``absorbed`` and
        ``error`` of each method, or null; ``explanations`` are as
        :meth:`Explanation.to_json` writes them; ``version`` is that of this package.
        """
        return json.dumps(
            self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False
        )

    def to_html(self, *, title: str | None = None) -> str:
        """Return a self-contained HTML page, readable in light and in dark."""
        from .visualization.comparison import render_comparison

        return render_comparison(self, title=title)

    def to_text(self, *, color: bool = False, width: int = 88) -> str:
        """Return text for a terminal, which needs the package rich.

        Args:
            color (bool, optional): Whether to colour it with ANSI codes.
                Default: False
            width (int, optional): Columns of the terminal. Default: 88

        Raises:
            MissingPackageError: rich is not installed.
        """
        from .visualization.comparison import print_comparison
        from .visualization.terminal import rendered

        return rendered(
            lambda console: print_comparison(self, console), color=color, width=width
        )

    def plot(self, *, theme: Literal["light", "dark"] = "light") -> Figure:
        """Return a matplotlib figure of all methods and their agreement.

        Args:
            theme (str, optional): ``"light"`` or ``"dark"``. Default: ``"light"``
        """
        from .visualization.comparison import draw_comparison

        return draw_comparison(self, theme=theme)

    def save(self, path: str | Path) -> Path:
        """Write it by the suffix of ``path``, as :meth:`Explanation.save`.

        Parquet has one row per method.

        Returns:
            *Path*: The file that was written.

        Raises:
            UnknownNameError: The suffix is another one.
            MissingPackageError: The package that writes such files is not installed.
        """
        path = Path(path)
        suffix = check_suffix(path)
        if suffix == ".html":
            write(path, self.to_html())
        elif suffix in records.SUFFIXES:
            records.write(path, [self.to_dict()], several=False)
        else:
            from .visualization.comparison import describe_comparison
            from .visualization.page import write_figure

            picture = write_figure(
                self.plot,
                suffix.removeprefix("."),
                title=self.question,
                alt=describe_comparison(self),
            )
            write(path, picture)
        return path

    def _repr_html_(self) -> str:
        from .visualization.comparison import render_comparison_fragment

        return render_comparison_fragment(self)

    def __str__(self) -> str:
        width = max(map(len, self.methods))
        rows = []
        for name, one in zip(self.methods, self.explanations, strict=True):
            top = ", ".join(part for part, _ in one.top_parts(5))
            rows.append(f"{name:<{width}}  {top}")
        return "\n".join([f"{self.question} {self.explanations[0].answer}", *rows])


def _input_of(explanation: Explanation) -> object:
    if isinstance(explanation, TextExplanation):
        return explanation.text, explanation.pieces
    image = cast("ImageExplanation", explanation).image
    return image.size, image.tobytes()


def compare(
    text: str | None = None,
    image: Picture | None = None,
    *,
    methods: Sequence[Method] = DEFAULT_METHODS,
    model: str | Path | nn.Module | TextModel | ImageModel | None = None,
    tokenizer: Any = None,
    transform: Callable[[Any], Tensor] | None = None,
    class_names: Sequence[str] | None = None,
    target: int | str | None = None,
    device: str | torch.device | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Comparison:
    """Explain one prediction with several methods, and compare them.

    Args:
        text (str, optional): A text. Default: None
        image (str, Path or PIL.Image.Image, optional): A picture or its file. Exactly
            one of ``text`` and ``image`` is needed. Default: None
        methods (Sequence, optional): Names, Captum classes or objects, as
            :class:`~captum_transformer_lrp.Explainer` takes them.
            Default: :data:`DEFAULT_METHODS`
        model (str, Path, nn.Module, TextModel or ImageModel, optional): As for
            :class:`~captum_transformer_lrp.Explainer`; loaded once.
            Default: None, the built-in model
        tokenizer (Any, optional): As for :class:`~captum_transformer_lrp.Explainer`.
            Default: None
        transform (Callable, optional): As for
            :class:`~captum_transformer_lrp.Explainer`. Default: None
        class_names (sequence of str, optional): As for
            :class:`~captum_transformer_lrp.Explainer`. Default: None
        target (int or str, optional): The class, or next token, that all explain.
            Default: None, the prediction
        device (str, optional): Where to put a model that is loaded by name.
            Default: None, the CPU
        options (Mapping, optional): For methods given by name: name -> further keyword
            arguments of its ``attribute``. Default: None

    Returns:
        *Comparison*.

    Raises:
        InputError: There is no method, one is named twice, or arguments do not belong
            together.
        UnknownNameError: No method has this name.

    Examples::

        >>> comparison = compare("A warm film.", methods=["attnlrp", "occlusion"])
        >>> comparison.save("comparison.html")
    """
    if isinstance(methods, str) or not isinstance(methods, Sequence):
        raise InputError(
            f"expected methods= to be a list of methods, got {methods!r}: write "
            f"methods=[{methods!r}]"
        )
    if not methods:
        raise InputError("expected at least one method in methods=, got none")
    names = [m.lower() for m in methods if isinstance(m, str)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"methods= names {', '.join(map(repr, twice))} twice")
    if (text is None) == (image is None):
        given = "neither" if text is None else "both"
        raise InputError(f"expected exactly one of text= and image=, got {given}")
    if text is not None and not isinstance(text, str):
        raise InputError(f"compare explains one text, got {type(text).__name__}")
    explainer = Explainer(
        model,
        methods[0],
        tokenizer=tokenizer,
        transform=transform,
        class_names=class_names,
        device=device,
    )
    explainers = [
        explainer.with_method(m, (options or {}).get(m) if isinstance(m, str) else None)
        for m in methods
    ]
    explanations: list[TextExplanation | ImageExplanation] = []
    traces: list[Conservation | None] = []
    for one in explainers:
        if text is not None:
            explanations.append(one(text, target=target))
        else:
            assert image is not None
            explanations.append(one(image=image, target=target))
        traces.append(_conservation(one, explanations[-1], image))
    return Comparison(explanations=tuple(explanations), conservation=tuple(traces))


def _conservation(
    explainer: Explainer,
    explanation: TextExplanation | ImageExplanation,
    image: Picture | None,
) -> Conservation | None:
    """Return what the trace of a method says, if it propagates relevance."""
    if isinstance(explanation, TextExplanation):
        source: TextModel | ImageModel = explainer.text_model
    else:
        source = explainer.image_model
    attributor = explainer.attributor(source)
    trace_of = getattr(attributor, "trace", None)  # Captum's own have none
    if trace_of is None or describe(attributor).measure != "relevance":
        return None
    inputs, target = explainer.inputs_of(explanation, image)
    try:
        trace = trace_of(inputs, target=target)
    except TraceError:
        return None
    return Conservation(
        score=trace.score,
        relevance=trace.relevance,
        absorbed=trace.absorbed,
        error=trace.conservation_error,
    )
