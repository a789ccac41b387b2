"""BiLRP: which part of one input goes with which part of another."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from .._captum import GradientAttribution, log_usage
from .._named import Named
from .._torch import DisableTorchFunction
from ..composites import composite_named
from ..core.call import Call
from ..core.composites import Composite
from ..core.engine import Engine
from ..core.registry import Row
from ..core.rules.attention import attention_operands
from ..core.rules.base import DelegatingRule, Rule
from ..core.rules.linear import PlainGradient
from ..description import Description
from ..errors import InputError, ModelStateError, OutputError
from ..known.beginning import Beginning
from ..known.decompositions import scaled_dot_product_attention
from ..observers.observed import Observer
from .embeddings import Embedding, Pooling, checked_pooling
from .explains import explains
from .inputs import Inputs, prepare_inputs
from .pair_relevance import PairRelevance
from .pair_sides import (
    Labels,
    Units,
    describe_side,
    encoded,
    is_text,
    patch_size_of,
    units_of,
)
from .patches import checked_patch_size
from .single_pass import check_callable, disconnected, run_once
from .transposed import Transposed

if TYPE_CHECKING:
    from PIL.Image import Image

Over = Literal["tokens", "dimensions"]


class PairLRP(Named, GradientAttribution):
    r"""BiLRP: a similarity as a sum over pairs, a part of each of two inputs.

    Two inputs are alike because their embeddings are: :math:`s = f(x) \cdot g(y)`. With
    :math:`R_i(f_m)` the relevance of part i of the first input for dimension m of its
    embedding,

    .. math:: R_{ij} = \sum_m R_i(f_m(x)) \, R_j(g_m(y))

    says how much part i of one and part j of the other, together, make them alike
    (BiLRP: Eberle et al. 2020, arXiv 2003.05746; for transformers Vasileiou and Eberle
    2024, arXiv 2405.06604). Parts are tokens, or patches of a picture.

    Each side has one part more, *constants*: what biases, position embeddings and all
    else that is no input contributed, :math:`R_0(f_m) = f_m - \sum_i R_i(f_m)`. With it
    the matrix sums to the similarity, whichever the rules. For rules that conserve
    (CP-LRP, the default) it is what constants of the model absorbed; for others
    (AttnLRP in its softmax) it also holds what the rules lost or added, and what
    arrived at padding.

    Nothing goes back once for each dimension, as the formula reads. The relevance of
    each part of the smaller input, for all dimensions at once, takes one pass in the
    other direction (``attribution/transposed.py``); each of these vectors then goes
    back through the larger one, since relevance is linear in what starts at the output.
    That makes as many passes as the smaller input has parts, batched, for each of the
    two.

    Args:
        forward_func (Callable): what embeds both inputs, or the first: a Hugging Face
            encoder or decoder with ``pooling=``; a model of Sentence Transformers; one
            of two towers (CLIP, SigLIP), of which ``pixel_values`` go to the one for
            pictures and ``input_ids`` to that for texts; or any function that returns
            embeddings, shape ``(examples, dimensions)``.
        other (Callable, optional): what embeds the second input. Default: the same
        composite (str or Composite, optional): the rules, as for
            :class:`TransformerLRP`; they are to be linear in relevance, as all named
            ones are. Default: ``"cp-lrp"``
        pooling (str or Callable, optional): what makes one embedding of the states of
            all tokens: their ``"mean"`` without padding, the first token (``"cls"``),
            the ``"last"`` token that is no padding, or a function of what the model
            returned and of the attention mask (or None), such as ``lambda output, mask:
            output.pooler_output``. Default: None, the model returns embeddings
        normalize (bool, optional): explain the cosine of the embeddings, else their dot
            product. Their lengths are constants, as the scale of a norm is under these
            rules, so that the matrix is that of the dot product divided by both.
            Default: True
        tokenizer (Any, optional): for texts, and for the names of tokens.
            Default: ``forward_func.tokenizer``, which models of Sentence Transformers
            have, else None
        projections (int, optional): estimate the matrix from this many random
            directions instead of computing it: fewer passes, and a standard error. The
            directions of the two embeddings themselves are always taken, so that the
            total, and what each part has in all, stay exact. Default: None, exact
        seed (int, optional): of the random directions; torch's own random state is not
            touched. Default: 0
        over (str, optional): ``"tokens"``, as above, or ``"dimensions"``: one backward
            pass for each dimension of the embedding, batched, which is slower for more
            dimensions than parts and works where the other direction is not possible
            (checkpointed models, rules that carry relevance itself). Numbers are the
            same. Default: None, ``"tokens"`` where that is possible and less
        chunk_size (int, optional): how many passes are batched. Memory grows with it,
            results do not change. Default: 32
        patch_size (int or tuple of int, optional): height and width of the patches of a
            picture. Default: what the model's configuration says
        rules (Mapping, optional): rows laid over the composite. Default: None
        unknown (str, optional): for operators without a rule: ``"raise"``, ``"warn"``
            or ``"gradient"``. Default: the composite's
        observers (sequence of Observer, optional): objects of yours that watch every
            pass. Default: none

    Raises:
        UnknownNameError: if there is no such composite, kind, operator or pooling.
        InputError: if ``projections``, ``chunk_size`` or ``patch_size`` is no such
            number, or ``over`` is none of those.
        TypeError: if a function cannot be called.

    Examples::

        >>> model = AutoModel.from_pretrained(name).eval()
        >>> pairs = PairLRP(model, pooling="mean", tokenizer=tokenizer)
        >>> found = pairs.attribute("A man plays a guitar.", "Someone makes music.")
        >>> found.matrix  # (tokens + 1, tokens + 1), sums to the cosine
        >>> found.top_pairs(3)
        >>> # which patch goes with which word
        >>> clip = PairLRP(clip_model, tokenizer=tokenizer)
        >>> clip.attribute("a red car", {"pixel_values": pixels}).save("car.html")
    """

    name: ClassVar[str] = "PairLRP"
    description = Description(grain="part", conserves="score", takes="mapping")

    def __init__(
        self,
        forward_func: Callable[..., Any],
        other: Callable[..., Any] | None = None,
        composite: str | Composite = "cp-lrp",
        *,
        pooling: Pooling | None = None,
        normalize: bool = True,
        tokenizer: Any = None,
        projections: int | None = None,
        seed: int = 0,
        over: Over | None = None,
        chunk_size: int = 32,
        patch_size: int | tuple[int, int] | None = None,
        rules: Mapping[Any, Row] | None = None,
        unknown: Literal["raise", "warn", "gradient"] | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        check_callable(self, forward_func)
        if other is not None:
            check_callable(self, other)
        GradientAttribution.__init__(self, forward_func)
        self.other = other
        self.composite = composite_named(composite)
        if rules:
            self.composite = self.composite.with_rules(rules)
        self.pooling = checked_pooling(pooling)
        self.normalize = normalize
        own = getattr(forward_func, "tokenizer", None)
        self.tokenizer = own if tokenizer is None else tokenizer
        self.projections = _checked_number("projections", projections, least=2)
        self.seed = seed
        if over not in (None, "tokens", "dimensions"):
            raise InputError(f"over={over!r}; expected 'tokens' or 'dimensions'.")
        self.over = over
        self.chunk_size = _checked_number("chunk_size", chunk_size, least=1) or 1
        self.patch_size = None if patch_size is None else checked_patch_size(patch_size)
        self.unknown = unknown
        self.observers = tuple(observers)

    @log_usage(part_of_slo=True)
    @explains
    def attribute(
        self,
        inputs_a: Any,
        inputs_b: Any,
        *,
        labels_a: Any = None,
        labels_b: Any = None,
        image_a: Any = None,
        image_b: Any = None,
    ) -> Any:
        r"""Return the relevance of each pair of parts for the similarity of two inputs.

        Args:
            inputs_a (str, Tensor, tuple of Tensor, or Mapping): the first input: what a
                tokenizer or image processor returns, token identifiers ``(examples,
                tokens)``, pixels ``(examples, channels, height, width)``, embeddings
                ``(examples, tokens, features)``; with a tokenizer a text, or a list of
                texts.
            inputs_b (str, Tensor, tuple of Tensor, or Mapping): the second, with as
                many examples; the n-th example of one makes a pair with the n-th of the
                other.
            labels_a (sequence of str or Piece, optional): names of the parts of the
                first input, without padding; of several examples a list of these.
                Default: read by the tokenizer, else numbers
            labels_b (sequence of str or Piece, optional): of the second.
            image_a (PIL.Image.Image, optional): the first input as a picture, to show
                it; of several examples a list. Default: made of the pixels
            image_b (PIL.Image.Image, optional): the second.

        Returns:
            PairRelevance: the matrix, shape ``(parts + 1, parts + 1)``, in units of the
            similarity, constants last; of several examples a list of these.

        Raises:
            InputError: if an input is empty, all padding, of a wrong type, or not of
                as many examples as the other; if labels do not fit; if a model of two
                towers is given both or neither of its inputs; or if the size of patches
                is not known.
            OutputError: if what a model returns is no embedding, if the two have
                different numbers of dimensions, or an embedding that is to be
                normalised is 0.
            UnknownOperatorError: if a differentiable operator has no rule.
            ModelStateError: if a model is in a state in which it cannot be explained,
                or ``over="tokens"`` was asked for and is not possible.
            DisconnectedError: if no relevance can reach an input.
        """
        first = self._side(self.forward_func, inputs_a)
        second = self._side(self.other or self.forward_func, inputs_b)
        if first.examples != second.examples:
            raise InputError(
                f"the first input has {first.examples} examples and the second "
                f"{second.examples}; expected as many, since the n-th of one makes a "
                "pair with the n-th of the other."
            )
        swapped = second.count < first.count  # the smaller one comes first
        if swapped:
            found = self._explain(second, first).transposed()
        else:
            found = self._explain(first, second)
        labels = _of_each("labels", first.examples, labels_a, labels_b)
        images = _of_each("image", first.examples, image_a, image_b)
        results = [
            self._result(i, found, (first, second), labels[i], images[i])
            for i in range(first.examples)
        ]
        single = first.examples == 1 and not isinstance(inputs_a, list)
        return results[0] if single else results

    # ------------------------------------------------------------------ the two sides

    def _side(self, function: Callable[..., Any], inputs: Any) -> _Side:
        device = None
        if isinstance(function, nn.Module):
            device = next((p.device for p in function.parameters()), None)
        if is_text(inputs):
            inputs = encoded(inputs, self.tokenizer, device)
        embedding = Embedding(function, self.pooling, inputs)
        with torch.enable_grad():
            prepared = prepare_inputs(inputs, None)
        size = self.patch_size or patch_size_of(function)
        units = tuple(units_of(leaf, size) for leaf in prepared.leaves)
        return _Side(function, embedding, inputs, units, prepared.examples)

    @contextmanager
    def _run(self, side: _Side, composite: Composite) -> Iterator[_Pass]:
        with run_once(
            side.embedding,
            side.inputs,
            None,
            composite=composite,
            unknown=self.unknown,
            observers=self.observers,
            root=side.embedding.root,
        ) as (engine, prepared, output):
            with DisableTorchFunction():
                _check_embedding(output, side.examples)
                engine.beginning = Beginning.of(engine, output, output)
                engine.check(output)
                if not output.requires_grad:
                    raise disconnected(engine, prepared)
            yield _Pass(
                engine=engine,
                inputs=prepared,
                units=tuple(
                    Units(leaf, one.place, one.kept, one.grid)
                    for leaf, one in zip(prepared.leaves, side.units, strict=True)
                ),
                output=output,
                chunk_size=self.chunk_size,
            )

    def _result(
        self,
        example: int,
        found: _Matrices,
        sides: tuple[_Side, _Side],
        labels: tuple[Labels | None, Labels | None],
        images: tuple[Image | None, Image | None],
    ) -> PairRelevance:
        chosen = [
            torch.cat([u.kept[example].cpu() for u in side.units] + [_CONSTANTS])
            for side in sides
        ]
        described = [
            describe_side(
                name,
                example,
                side.units,
                labels=label,
                tokenizer=self.tokenizer,
                image=image,
            )
            for name, side, label, image in zip(
                ("first", "second"), sides, labels, images, strict=True
            )
        ]
        errors = None
        if found.errors is not None:
            errors = found.errors[example].cpu()[chosen[0]][:, chosen[1]]
        function = sides[0].function
        return PairRelevance(
            matrix=found.values[example].cpu()[chosen[0]][:, chosen[1]],
            a=described[0],
            b=described[1],
            similarity=float(found.similarities[example]),
            measure="cosine similarity" if self.normalize else "dot product",
            model=getattr(function, "__name__", type(function).__name__),
            method=f"{self.name}, {self.composite.name}",
            standard_error=errors,
            projections=self.projections,
            over=found.over,
        )

    # ---------------------------------------------------------------------- the matrix

    def _explain(self, small: _Side, large: _Side) -> _Matrices:
        """Return the matrices of all examples, parts of the smaller input first."""
        with self._run(large, self.composite) as far:
            if self.projections is not None:
                return self._estimate(small, far)
            found = None
            if self.over != "dimensions":
                found = self._cheaper_way(small, far)
            if found is None:
                with self._run(small, self.composite) as near:
                    x = _checked_pair(near, far)
                    found = near.each_dimension(), x, "dimensions"
            rows, x, over = found
            with DisableTorchFunction():
                rows = torch.cat([rows, (x - rows.sum(0))[None]])
            values = far.times(rows)
        return self._scaled(values, None, x, far.embedding, over)

    def _cheaper_way(
        self, small: _Side, far: _Pass
    ) -> tuple[Tensor, Tensor, str] | None:
        """Return the relevance of the smaller input's units, its embedding, and how.

        None where it is not possible unit by unit, and is more than the dimensions.

        Raises:
            ModelStateError: if ``over="tokens"`` was asked for and is not possible.
        """
        with self._run(small, transposable(self.composite)) as near:
            x = _checked_pair(near, far)
            if self.over is None and x.shape[1] <= near.count:
                return near.each_dimension(), x, "dimensions"
            try:
                return near.forward(), x, "tokens"
            except ModelStateError:
                if self.over == "tokens":
                    raise
                return None

    def _estimate(self, small: _Side, far: _Pass) -> _Matrices:
        """Return what random directions say of the matrices, and how exactly."""
        assert self.projections is not None
        with self._run(small, self.composite) as near:
            x, y = _checked_pair(near, far), far.embedding
            dimensions = x.shape[1]
            if self.projections > dimensions - 2:
                raise InputError(
                    f"projections={self.projections} of an embedding with {dimensions} "
                    f"dimensions; expected at most {dimensions - 2}. Leave it out, "
                    "which is exact."
                )
            with DisableTorchFunction():
                directions = random_directions(x, y, self.projections, self.seed)
            left = near.with_constants(directions)
        right = far.with_constants(directions)
        with DisableTorchFunction():
            values, errors = estimated(left, right, dimensions)
        return self._scaled(values, errors, x, y, "projections")

    def _scaled(
        self, values: Tensor, errors: Tensor | None, x: Tensor, y: Tensor, over: str
    ) -> _Matrices:
        """Return matrices in units of the similarity.

        Raises:
            OutputError: if an embedding that is to be normalised is 0.
        """
        with DisableTorchFunction():
            scale = torch.ones(len(x), dtype=x.dtype, device=x.device)
            if self.normalize:
                lengths = x.norm(dim=1) * y.norm(dim=1)
                if not bool(lengths.all()):
                    raise OutputError(
                        "an embedding is 0 in all dimensions, and has no direction "
                        "for a cosine. Explain the dot product: normalize=False."
                    )
                scale = 1 / lengths
            scaled = scale[:, None, None]
            errors = None if errors is None else errors * scaled
            return _Matrices(values * scaled, errors, (x * y).sum(1) * scale, over)

    def __repr__(self) -> str:
        model = type(self.forward_func).__name__
        other = "" if self.other is None else f", {type(self.other).__name__}"
        return f"{self.name}({model}{other}, composite={self.composite.name!r})"


# ------------------------------------------------------------------------------- passes


@dataclass(frozen=True, eq=False)
class _Side:
    """One input, before it is run.

    Attributes:
        function (Callable): as the user gave it.
        embedding (Embedding): what is called.
        inputs (Any): what it is called with.
        units (tuple of Units): of each explained input.
        examples (int): how many.
    """

    function: Callable[..., Any]
    embedding: Embedding
    inputs: Any
    units: tuple[Units, ...]
    examples: int

    @property
    def count(self) -> int:
        """How many units there are."""
        return sum(one.count for one in self.units)


@dataclass(frozen=True, eq=False)
class _Pass:
    """One input that was run, and the way back from its embedding.

    Attributes:
        engine (Engine): still entered.
        inputs (Inputs): what was run.
        units (tuple of Units): of each explained input.
        output (Tensor): the embedding, in the graph, ``(examples, dimensions)``.
        chunk_size (int): how many vectors of seeds go back at once.
    """

    engine: Engine
    inputs: Inputs
    units: tuple[Units, ...]
    output: Tensor
    chunk_size: int

    @property
    def embedding(self) -> Tensor:
        """The embedding in float64."""
        with DisableTorchFunction():
            return self.output.detach().double()

    @property
    def count(self) -> int:
        """How many units there are."""
        return sum(one.count for one in self.units)

    @property
    def _times_input(self) -> bool:
        return self.engine.composite.carries != "relevance"

    def back(self, seeds: Tensor) -> Tensor:
        """Return the relevance of the units for sums of dimensions.

        Args:
            seeds (Tensor): the weights of the dimensions, in float64, ``(count,
                examples, dimensions)``.

        Returns:
            Tensor: in float64, ``(count, examples, units)``.

        Raises:
            ModelStateError: if an operator of the model cannot go back in a batch.
            DisconnectedError: if no relevance reaches the inputs.
        """
        engine = self.engine
        alone = engine.recomputes or not self._times_input
        with DisableTorchFunction():
            starts = seeds.to(self.output.dtype) * engine.seed(self.output)
            chunks = starts.split(1 if alone else self.chunk_size)
        found = []
        for chunk in chunks:
            gradients = self._gradients(chunk)
            with DisableTorchFunction():
                if all(g is None for g in gradients):
                    raise disconnected(engine, self.inputs)
                found.append(self._sums(gradients, len(chunk)))
        with DisableTorchFunction():
            return torch.cat(found)

    def _gradients(self, seeds: Tensor) -> Sequence[Tensor | None]:
        """Return the gradients of several seeds, ``(count, *leaf)`` each."""
        leaves = [one.leaf.leaf for one in self.units]
        if len(seeds) == 1:
            found = self.engine.gradients(
                self.output, leaves, seeds=seeds[0], keep_graph=True
            )
            return [None if g is None else g[None] for g in found]
        try:
            return self.engine.gradients(
                self.output, leaves, seeds=seeds, batched=True, keep_graph=True
            )
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise ModelStateError(
                f"going back for {len(seeds)} directions at once failed in an operator "
                f"of this model: {error}. Pass chunk_size=1, which goes back for one "
                "at a time."
            ) from error

    def _sums(self, gradients: Sequence[Tensor | None], count: int) -> Tensor:
        parts = []
        for one, gradient in zip(self.units, gradients, strict=True):
            found = one.sums(gradient, times_input=self._times_input)
            if found is None:
                found = one.kept.new_zeros(count, *one.kept.shape, dtype=torch.float64)
            parts.append(found)
        return torch.cat(parts, 2)

    def with_constants(self, seeds: Tensor) -> Tensor:
        """Return :meth:`back` with the constants as one unit more, the last."""
        found = self.back(seeds)
        with DisableTorchFunction():
            rest = (seeds * self.embedding).sum(2) - found.sum(2)
            return torch.cat([found, rest[:, :, None]], 2)

    def each_dimension(self) -> Tensor:
        """Return the relevance of the units for each dimension, one pass for each.

        Returns:
            Tensor: in float64, ``(units, examples, dimensions)``.
        """
        return self.back(self._each()).permute(2, 1, 0)

    def _each(self) -> Tensor:
        """Return the seeds of each dimension alone."""
        count = self.output.shape[1]
        with DisableTorchFunction():
            eye = torch.eye(count, dtype=torch.float64, device=self.output.device)
            return eye[:, None].expand(count, *self.output.shape)

    def times(self, rows: Tensor) -> Tensor:
        """Return the matrices whose rows go back here, ``(examples, rows, units + 1)``.

        Args:
            rows (Tensor): in float64, ``(rows, examples, dimensions)``.
        """
        if len(rows) <= self.output.shape[1]:
            return self.with_constants(rows).transpose(0, 1)
        columns = self.with_constants(self._each())
        with DisableTorchFunction():
            return torch.einsum("rnd,dnu->nru", rows, columns)

    def forward(self) -> Tensor:
        """Return the same, by one pass in the other direction for each unit.

        Raises:
            ModelStateError: if that is not possible.
        """
        engine = self.engine
        leaves = [one.leaf.leaf for one in self.units]
        if engine.recomputes or not self._times_input:
            again = "parts are computed again"
            raise _no_way_forward(again if self._times_input else "relevance goes back")
        with DisableTorchFunction():
            factor = engine.seed(self.output)
            try:
                across = Transposed(
                    lambda seeds: engine.gradients(
                        self.output, leaves, seeds=seeds * factor, keep_graph=True
                    ),
                    self.output,
                )
                found = torch.cat(list(across.apply(self._directions()))).double()
            except (torch.OutOfMemoryError, ModelStateError):
                raise
            except RuntimeError as error:  # torch has no second derivative
                raise _no_way_forward(str(error)) from error
            kept = torch.cat([one.kept for one in self.units], 1).T
            found = torch.where(kept[:, :, None], found, 0)
            if not bool(found.isfinite().all()):  # a row of attention that sees nothing
                raise _no_way_forward("attention written out is not finite")
            return found

    def _directions(self) -> Iterator[list[Tensor]]:
        """Yield the units, several at a time."""
        for place, one in enumerate(self.units):
            for start in range(0, one.count, self.chunk_size):
                units = range(start, min(start + self.chunk_size, one.count))
                chunk = [
                    each.leaf.leaf.detach().new_zeros(len(units), *each.leaf.leaf.shape)
                    for each in self.units
                ]
                chunk[place] = one.directions(units, times_input=self._times_input)
                yield chunk


@dataclass(frozen=True, eq=False)
class _Matrices:
    """What was found.

    Attributes:
        values (Tensor): with constants last, ``(examples, units + 1, units + 1)``.
        errors (Tensor or None): standard errors, of that shape.
        similarities (Tensor): ``(examples,)``.
        over (str): how.
    """

    values: Tensor
    errors: Tensor | None
    similarities: Tensor
    over: str

    def transposed(self) -> _Matrices:
        """Return them with the two inputs exchanged."""
        errors = None if self.errors is None else self.errors.transpose(1, 2)
        values = self.values.transpose(1, 2)
        return _Matrices(values, errors, self.similarities, self.over)


def _no_way_forward(why: str) -> ModelStateError:
    return ModelStateError(
        f"the way back through this model cannot be gone forwards ({why}). Leave "
        'over="tokens" out.'
    )


def _checked_pair(near: _Pass, far: _Pass) -> Tensor:
    """Return the embedding of the smaller input.

    Raises:
        OutputError: if the two have different numbers of dimensions.
    """
    dimensions = near.output.shape[1], far.output.shape[1]
    if dimensions[0] != dimensions[1]:
        raise OutputError(
            f"the embeddings of the two inputs have {dimensions[0]} and "
            f"{dimensions[1]} dimensions; expected as many, since their dot product is "
            "explained."
        )
    return near.embedding


def _check_embedding(output: Tensor, examples: int) -> None:
    """Raise OutputError unless there is one finite embedding for each example."""
    if output.shape[0] != examples:
        raise OutputError(
            f"the model returned {output.shape[0]} embeddings for {examples} examples; "
            "expected one for each."
        )
    if not math.isfinite(output.detach().double().sum().item()):
        raise OutputError(
            "the embedding holds NaN or infinity before anything is explained. Check "
            "the weights and inputs; in float16 try bfloat16 or float32."
        )


@dataclass(frozen=True, kw_only=True)
class WrittenOut(DelegatingRule):
    """Fused attention under its own rule, by operators instead of the kernel.

    The kernels' derivatives have none themselves; those of two matrix products and a
    softmax have. Outputs and relevance are those of the kernel, up to rounding.

    Args:
        rule (Rule): what the table has for it.
    """

    rule: Rule

    def __call__(self, call: Call) -> Any:
        """Let the rule run other code of the same function.

        Raises:
            RuleError: if the call is another operator.
        """
        attention_operands(self, call)
        call.function = scaled_dot_product_attention
        return self.rule(call)


def transposable(composite: Composite) -> Composite:
    """Return a table of the same relevance that runs no fused attention."""
    key = "scaled_dot_product_attention"
    row = composite.rows.get(key, composite.rows.get("attention", PlainGradient()))
    if not isinstance(row, Rule):
        return composite
    return composite.with_rules({key: WrittenOut(rule=row)})


# ---------------------------------------------------------------------------- estimates


def random_directions(x: Tensor, y: Tensor, count: int, seed: int) -> Tensor:
    """Return orthonormal directions: two that span x and y, then random ones.

    Args:
        x (Tensor): embeddings, ``(examples, dimensions)``.
        y (Tensor): the others.
        count (int): how many random ones.
        seed (int): of these.

    Returns:
        Tensor: ``(2 + count, examples, dimensions)``.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(x.shape[1], count, generator=generator, dtype=x.dtype)
    drawn = drawn.to(x.device).expand(len(x), -1, -1)
    spanning = torch.cat([x[..., None], y[..., None], drawn], 2)
    basis: Tensor = torch.linalg.qr(spanning)[0]
    return basis.permute(2, 0, 1)


def estimated(left: Tensor, right: Tensor, dimensions: int) -> tuple[Tensor, Tensor]:
    r"""Return the estimated matrices and their standard errors.

    With :math:`u_k` random orthonormal directions of the :math:`n` dimensions that are
    left beside the two embeddings, :math:`rac{n}{K} \sum_k (a_i \cdot u_k) (b_j \cdot
    u_k)` has the expectation of that part of :math:`a_i \cdot b_j`. Its standard error
    is that of the mean of K numbers, less the share of dimensions that were seen.

    Args:
        left (Tensor): relevance of one input's units for each direction, those of the
            embeddings first, ``(2 + K, examples, units)``.
        right (Tensor): of the other's.
        dimensions (int): of the embeddings.
    """
    exact = torch.einsum("knu,knv->nuv", left[:2], right[:2])
    rest, count = dimensions - 2, len(left) - 2
    drawn = rest * torch.einsum("knu,knv->knuv", left[2:], right[2:])
    seen = count / rest
    errors = drawn.std(0) * math.sqrt((1 - seen) / count)
    return exact + drawn.mean(0), errors


# ------------------------------------------------------------------------------ options

_CONSTANTS = torch.tensor([True])


def _checked_number(name: str, number: int | None, *, least: int) -> int | None:
    """Return a number.

    Raises:
        InputError: if it is none of at least ``least``.
    """
    whole = isinstance(number, int) and not isinstance(number, bool)
    if number is None or (whole and number >= least):
        return number
    raise InputError(f"{name}={number!r}; expected an int of at least {least}.")


def _of_each(name: str, examples: int, of_a: Any, of_b: Any) -> list[tuple[Any, Any]]:
    """Return what was given for each example, of both sides.

    Raises:
        InputError: if a list has another number of entries than there are examples.
    """
    sides = []
    for side, given in (("a", of_a), ("b", of_b)):
        if given is None or examples == 1:
            sides.append([given] * examples)
        elif not isinstance(given, (list, tuple)) or len(given) != examples:
            raise InputError(
                f"{name}_{side}: expected a list with one entry for each of {examples} "
                "examples."
            )
        else:
            sides.append(list(given))
    return list(zip(*sides, strict=True))


__all__ = ["PairLRP"]
