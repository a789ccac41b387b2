"""Several methods on one input, side by side, and how far they agree."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from ._packages import require
from ._version import __version__
from ._visible import printed
from .description import describe
from .errors import InputError, TraceError, UnknownNameError
from .explaining import Explainer, Method, Picture
from .explanation import (
    Explanation,
    ImageExplanation,
    Normalization,
    TextExplanation,
    normalize,
    pool,
)
from .models.loading import ImageModel, TextModel
from .rank_agreement import kendall, spearman
from .records.storable import Storable
from .report.blocks import (
    Block,
    Cell,
    ColorScale,
    Heading,
    Heat,
    Legend,
    Paragraph,
    Pictures,
    Table,
)
from .report.numbers import ScoreFormat

if TYPE_CHECKING:
    from pandas import DataFrame

JSON_SCHEMA = "captum_transformer_lrp.comparison/1"

#: what :func:`compare` takes where no methods are named
DEFAULT_METHODS = ("attnlrp", "cp-lrp", "integrated-gradients", "saliency", "occlusion")


_NOTHING = "–"
_MEANING = (
    "Colour has a scale of its own for each method, from its largest magnitude among "
    "the {parts} down; its ends are beside it."
)
_AGREEMENT = (
    "1 is the same order, 0 none, −1 the reverse. Signed methods are ranked by their "
    "scores; where one of the two has no sign, both by their magnitudes."
)
_TEXT_ONLY = " Tokens that the tokenizer added are left out."
_SUMS = (
    "Absorbed is what constants, above all biases, kept of the logit, and for methods "
    "that do not conserve what their rules changed. The conservation error is the part "
    "of the logit that neither arrived nor was kept by constants: next to 0 where the "
    "method conserves, and a check of the propagation there. The convergence delta of "
    "methods with a baseline is their sum less what it should be, the logit less that "
    "of the baseline."
)


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


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Comparison(Storable):
    """Explanations of one prediction by several methods.

    Args:
        explanations (tuple[Explanation, ...]): One per method, all of the same input,
            model and target.
        conservation (tuple[Conservation or None, ...]): The trace of each, where the
            method propagates relevance.
    """

    explanations: tuple[Explanation, ...]
    conservation: tuple[Conservation | None, ...]

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

    # ------------------------------------------------------------------ what is shown

    def blocks(self) -> Iterator[Block]:
        """Yield what is shown: each method's map, their agreement, their sums."""
        first = self.explanations[0]
        is_text = first.kind == "text"
        yield Heading(text=self.question)
        yield Paragraph(text=first.answer, kind="answer")
        yield from self._texts() if is_text else self._pictures()
        parts = first.parts if not is_text else f"{first.parts} of the text"
        yield Paragraph(text=_MEANING.format(parts=parts), kind="meaning")
        yield self._largest()
        if len(self.methods) > 1:
            yield self._agreement_table()
            about = _AGREEMENT + (_TEXT_ONLY if is_text else "")
            yield Paragraph(text=about, kind="meaning")
        yield self._sums()
        yield Paragraph(text=_SUMS, kind="meaning")
        for note in self._notes():
            yield Paragraph(text=note)
        yield self._numbers()

    @property
    def alt(self) -> str:
        """The comparison in words, for those who do not see its picture."""
        said = [
            f"{name}: {', '.join(part for part, _ in one.top_parts(3)) or 'nothing'}"
            for name, one in zip(self.methods, self.explanations, strict=True)
        ]
        first = self.explanations[0]
        return (
            f"{self.question} {first.answer} {first.parts.capitalize()} of largest "
            f"magnitude by method: {'; '.join(said)}."
        )

    def _texts(self) -> Iterator[Block]:
        for name, one in zip(self.methods, self.explanations, strict=True):
            yield Heading(text=name, level=2)
            yield from one.map()
            yield Legend(scale=one.scale)

    def _pictures(self) -> Iterator[Block]:
        """Yield the picture, and a heat map of it by each method."""
        images = [cast("ImageExplanation", one) for one in self.explanations]
        size = f"{images[0].image.width} by {images[0].image.height} pixels"
        found = [
            Heat(
                image=images[0].image,
                caption="What the model saw",
                alt=f"The picture as the model saw it, {size}",
            )
        ]
        for name, one in zip(self.methods, images, strict=True):
            low, high = one.scale.ends
            found.append(replace(one.heat(name), under=f"{low} … {high}"))
        yield Pictures(pictures=tuple(found))
        signed = any(one.signed for one in images)
        yield Legend(
            scale=ColorScale(
                limit=1.0,
                signed=signed,
                palette="picture",
                unit="each on its scale",
                names=("against", "for") if signed else ("0", "most"),
                meaning="Colour scale: each method has its own, with its ends below it",
            )
        )

    def _largest(self) -> Table:
        """Return the parts of largest magnitude by each method."""
        rows = []
        for name, one in zip(self.methods, self.explanations, strict=True):
            write = one.scale.write
            top = "; ".join(f"{part} {write(s)}" for part, s in one.top_parts(5))
            rows.append((name, top or "nothing"))
        first = self.explanations[0]
        heads = ("", f"{first.parts.capitalize()} of largest magnitude")
        return Table(heads=heads, rows=tuple(rows), texts=2)

    def _agreement_table(self) -> Table:
        rho, tau = self.agreement("spearman"), self.agreement("kendall")
        part = "token" if self.explanations[0].kind == "text" else None
        parts = f"{part}s" if part else self.explanations[0].parts
        return Table(
            title="Rank agreement: Spearman's ρ (and Kendall's τ) over "
            f"{len(self.ranked[0])} {parts}",
            heads=("", *self.methods),
            rows=tuple(
                (name, *(_correlation(r, t) for r, t in zip(*rows, strict=True)))
                for name, rows in zip(
                    self.methods, zip(rho, tau, strict=True), strict=True
                )
            ),
        )

    def _sums(self) -> Table:
        first = self.explanations[0]
        logit = ScoreFormat(limit=abs(first.logit))(first.logit)
        rows = []
        for name, one, trace in zip(
            self.methods, self.explanations, self.conservation, strict=True
        ):
            total = one.relevance_sum
            limit = max(abs(first.logit), abs(total or 0.0))
            write = ScoreFormat(limit=limit)
            delta = one.convergence_delta if trace is None else None
            rows.append(
                (
                    name,
                    _NOTHING if total is None else write(total),
                    _NOTHING if trace is None else write(trace.absorbed),
                    _NOTHING if trace is None else f"{trace.error:.1e}",
                    _NOTHING if delta is None else _delta(delta, write),
                )
            )
        heads = ("", "Sum", "Absorbed", "Conservation error", "Convergence delta")
        return Table(
            title=f"What the scores sum to, in units of the logit ({logit})",
            heads=heads,
            rows=tuple(rows),
        )

    def _notes(self) -> list[str]:
        """Return what a reader should know, beginning with the method it concerns."""
        shared = set.intersection(*(set(one.notes) for one in self.explanations))
        notes = [n for n in self.explanations[0].notes if n in shared]
        if len(self.explanations) == 1:
            return notes
        of_methods: dict[str, list[str]] = {}
        for name, one in zip(self.methods, self.explanations, strict=True):
            for note in one.notes:
                if note not in shared:
                    of_methods.setdefault(note, []).append(name)
        return notes + [f"{', '.join(n)}: {note}" for note, n in of_methods.items()]

    def _numbers(self) -> Table:
        """Return all numbers, one row per token or cell."""
        first = self.explanations[0]
        columns = []
        for one, ranked in zip(self.explanations, self.ranked, strict=True):
            values = one.scores if one.kind == "text" else ranked
            columns.append([one.scale.write(float(v)) for v in values])
        if first.kind == "text":
            names = [piece.label for piece in cast("TextExplanation", first).pieces]
        else:
            wide = min(
                cast("ImageExplanation", one).cells.shape[1]
                for one in self.explanations
            )
            names = [
                f"row {i // wide + 1}, column {i % wide + 1}"
                for i in range(len(columns[0]))
            ]
        part = "Token" if first.kind == "text" else first.unit.capitalize()
        return Table(
            heads=("#", part, *self.methods),
            rows=tuple(
                (str(number), name, *scores)
                for number, (name, *scores) in enumerate(
                    zip(names, *columns, strict=True), 1
                )
            ),
            texts=2,
            folded=True,
        )

    def __str__(self) -> str:
        width = max(map(len, self.methods))
        rows = []
        for name, one in zip(self.methods, self.explanations, strict=True):
            top = ", ".join(part for part, _ in one.top_parts(5))
            rows.append(f"{name:<{width}}  {top}")
        head = f"{self.question} {self.explanations[0].answer}"
        return printed("\n".join([head, *rows]))


def _correlation(rho: float, tau: float) -> Cell:
    if np.isnan(rho):
        return Cell(text=_NOTHING, share=0.0)
    return Cell(text=_short(rho), small=_short(tau), share=float(rho))


def _short(value: float) -> str:
    return f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−")


def _delta(delta: float, write: ScoreFormat) -> str:
    """Return a delta as text; one that would be written as 0 by its power of ten."""
    written = write(delta)
    if delta and not any(digit in written for digit in "123456789"):
        return f"{delta:+.0e}".replace("-", "−")
    return written


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
