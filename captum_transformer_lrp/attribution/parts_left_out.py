"""Methods that ask what the score is without some parts of the input.

A part is a word or token of a text, a square of a picture or spectrogram, or a stretch
of a waveform; of several inputs all have parts. A part is left out by putting the
baseline in its place, in the embeddings or the pixels, and one function says what the
score is with the parts that are present. The methods differ in what they ask it.
Captum's own classes of these names draw from torch's generator, which other threads
share, and ``KernelShap`` and ``Lime`` need scikit-learn, which captum does not bring.
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from ..description import Description
from ..errors import InputError, OutputError
from ..models.pieces import read_pieces, word_groups
from .embedded import Features, Prepared
from .gradient_methods import ROWS, InputAttribution, at_least_one
from .patches import checked_patch_size, patch_numbers, sound_numbers
from .scores import select_scores

#: parts of a picture or spectrogram that are drawn from, if nothing else is said
MOST_PARTS = 49
#: what a part of a text is
TextUnit = Literal["words", "tokens"]


@dataclass(frozen=True, eq=False)
class LeftOut:
    """One example, of which any parts can be left out.

    Attributes:
        prepared (Prepared): the example, a batch of one.
        numbers (tuple of Tensor): for each input the part of each element, to be
            broadcast to its values without the batch; -1 for what always stays.
        count (int): the number of parts of all inputs.
    """

    prepared: Prepared
    numbers: tuple[Tensor, ...]
    count: int

    def scores(self, present: Tensor) -> Tensor:
        """Return the score with the parts that are present alone.

        Args:
            present (Tensor): bool, ``(sets, parts)``.

        Returns:
            *Tensor*: ``(sets,)``, in float64 on the CPU.
        """
        found = [self._of_rows(rows) for rows in present.split(ROWS)]
        return torch.cat(found).double().cpu()

    @torch.no_grad()
    def _of_rows(self, present: Tensor) -> Tensor:
        prepared, rows = self.prepared, len(present)
        mixed = []
        for one, numbers in zip(prepared.inputs, self.numbers, strict=True):
            here = _extended(present.to(numbers.device), True)[:, numbers]
            mixed += [
                torch.where(here, x, b)
                for x, b in zip(one.values, one.baselines, strict=True)
            ]
        arguments = [
            x.expand(rows, *x.shape[1:])
            if isinstance(x, Tensor) and x.dim() and len(x) == 1
            else x
            for x in prepared.arguments
        ]
        target = prepared.target
        if isinstance(target, Tensor) and target.numel() == 1:
            target = target.reshape(1).expand(rows)
        elif isinstance(target, list):
            target = target * rows
        output = prepared.function(*mixed, *arguments)
        try:
            found: Tensor = select_scores(output, target, examples=rows)
        except OutputError as error:
            raise OutputError(
                "the model's score is NaN or infinite where parts of the input are "
                "left out. Say what stands in their place, baseline=, such as "
                '{"input_features": -1.0} for an input of that name'
            ) from error
        return found

    def spread(self, of_parts: Tensor) -> tuple[Tensor, ...]:
        """Return what each element has: an equal share of what its part has.

        Args:
            of_parts (Tensor): ``(parts,)``.
        """
        found = []
        for one, numbers in zip(self.prepared.inputs, self.numbers, strict=True):
            first = one.values[0]
            whole = numbers
            if not one.of_identifiers:
                whole = numbers.expand(first.shape[1:])
            size = torch.bincount(whole[whole >= 0].flatten(), minlength=self.count)
            shares = of_parts.to(size.device) / size.clamp(min=1)
            values = _extended(shares, 0.0)[whole][None].to(first.dtype)
            others = len(one.values) - 1  # tables of the same identifiers
            found += [values, *[torch.zeros_like(values)] * others]
        return tuple(found)


def _extended(x: Tensor, last: Any) -> Tensor:
    """Return a tensor with one more element in its last dimension, at index -1."""
    return torch.cat([x, x.new_full((*x.shape[:-1], 1), last)], -1)


class PartsLeftOut(InputAttribution):
    """Base of the methods that leave parts of the input out.

    Args:
        forward_func (Callable): the model, or any function of it.
        patch_size (int or tuple of int, optional): height and width of the patches of a
            picture. Default: 16
        unit (str, optional): whether a part of a text is one of its ``"words"``, as far
            as ``tokenizer`` tells them, or of its ``"tokens"``. Default: see the class
        options (Any): as for :class:`InputAttribution`.

    Raises:
        InputError: ``unit`` or ``patch_size`` is none.
    """

    description = Description(
        grain="part", takes="mapping", needs=("tokenizer", "baseline", "patch_size")
    )
    unit: TextUnit = "words"
    #: parts of a picture or spectrogram, at most; None for as many as there are patches
    most_parts: int | None = None

    def __init__(
        self,
        forward_func: Callable[..., Any],
        *,
        patch_size: int | tuple[int, int] = 16,
        unit: TextUnit | None = None,
        **options: Any,
    ) -> None:
        super().__init__(forward_func, **options)
        self.patch_size = checked_patch_size(patch_size)
        if unit is not None:
            if unit not in get_args(TextUnit):
                raise InputError(
                    f"expected unit= to be 'words' or 'tokens', got {unit!r}"
                )
            self.unit = unit

    def _attribute(
        self, prepared: Prepared, target: Any
    ) -> tuple[tuple[Tensor, ...], Tensor | None]:
        rows, deltas = [], []
        for number in range(prepared.examples):
            example = self._cut(prepared.example(number))
            of_parts = torch.zeros(0, dtype=torch.float64)
            if example.count:
                of_parts = self.of_parts(example)
            rows.append(example.spread(of_parts))
            if self.has_convergence_delta():
                ends = _ends(example)
                deltas.append(of_parts.sum() - (ends[0] - ends[1]))
        found = tuple(torch.cat(some) for some in zip(*rows, strict=True))
        if not deltas:
            return found, None
        return found, torch.stack(deltas).to(found[0])

    @abstractmethod
    def of_parts(self, example: LeftOut) -> Tensor:
        """Return the score of each part, ``(parts,)``, in float64 on the CPU.

        Args:
            example (LeftOut): with one part at least.
        """

    def _cut(self, prepared: Prepared) -> LeftOut:
        """Return an example with the parts of all its inputs numbered."""
        numbers, count = [], 0
        for one in prepared.inputs:
            found = self._numbers(one)
            numbers.append(torch.where(found >= 0, found + count, -1))
            count = max(count, int(numbers[-1].max()) + 1)
        return LeftOut(prepared, tuple(numbers), count)

    def _numbers(self, one: Features) -> Tensor:
        """Return the part of each element of an input, -1 for none."""
        first = one.values[0]
        if one.of_identifiers:
            return self._of_text(one)[..., None]
        if one.of_sound and first.dim() == 2:
            return sound_numbers(first, self.patch_size)
        if one.of_sound or first.dim() >= 4:
            return self._of_pixels(first)
        if first.dim() != 3:
            raise InputError(
                f"{self.get_name()} takes token identifiers, embeddings (batch, "
                f"tokens, width) or pixels (batch, channels, height, width), got "
                f"{tuple(first.shape)}; use captum.attr.FeatureAblation with a "
                "feature_mask of your own"
            )
        length = first.shape[1]
        places = torch.arange(length, device=first.device)
        if one.tokens is not None:
            places = torch.where(one.tokens[0], one.tokens[0].cumsum(0) - 1, -1)
        elif self.most_parts is not None and one.name != "inputs_embeds":
            places = places // -(-length // self.most_parts)  # patches in a row
        return places[:, None]

    def _of_text(self, one: Features) -> Tensor:
        """Return the part of each token, of the shape of the identifiers."""
        assert one.ids is not None and one.replaced is not None
        ids, replaced = one.ids[0].flatten(), one.replaced[0].flatten()
        groups = [[i] for i in range(len(ids))]
        if self.unit == "words" and self.tokenizer is not None:
            groups = word_groups(read_pieces(self.tokenizer, ids.tolist()))
        numbers = torch.full_like(ids, -1, dtype=torch.long)
        kept = ([i for i in group if replaced[i]] for group in groups)
        for number, group in enumerate(group for group in kept if group):
            numbers[group] = number
        return numbers.view(one.ids.shape[1:])

    def _of_pixels(self, x: Tensor) -> Tensor:
        """Return the part of each pixel, the same in all channels.

        Args:
            x (Tensor): ``(1, ..., height, width)``, of a sound without channels.
        """
        pictures = max(1, math.prod(x.shape[1:-3]))
        grid = [
            -(-length // side)
            for length, side in zip(x.shape[-2:], self.patch_size, strict=True)
        ]
        together = 1
        while (
            self.most_parts is not None
            and pictures * math.prod(-(-n // together) for n in grid) > self.most_parts
            and together < max(grid)
        ):
            together += 1
        height, width = self.patch_size
        one = patch_numbers(x, (height * together, width * together))
        if x.dim() == 3:
            return one
        first = torch.arange(pictures, device=x.device) * (int(one.max()) + 1)
        shape = (*x.shape[1:-3], 1, 1, 1)
        return first.view(shape) + one


def _ends(example: LeftOut) -> Tensor:
    """Return the scores with all parts and with none, ``(2,)``."""
    present = torch.tensor([[True], [False]]).expand(2, example.count)
    return example.scores(present)


class InputOcclusion(PartsLeftOut):
    """Leave one out: how much the score falls when the baseline replaces one part.

    A part is a token of a text, or a square patch of a picture (Zeiler and Fergus 2013,
    arXiv 1311.2901) or of a spectrogram, or one of up to 50 stretches of a waveform. In
    units of the score; the falls need not sum to it. Each pixel of a patch gets its
    share, so that a patch sums to its fall. One forward pass for each part.

    Args:
        forward_func (Callable): the model, or any function of it.
        patch_size (int or tuple of int, optional): height and width of the patches of a
            picture. Default: 16
        unit (str, optional): as for :class:`PartsLeftOut`. Default: ``"tokens"``
        options (Any): as for :class:`InputAttribution`.
    """

    name: ClassVar[str] = "Occlusion"
    unit = "tokens"

    def of_parts(self, example: LeftOut) -> Tensor:
        """Return how much the score falls without each part."""
        present = ~torch.eye(example.count + 1, dtype=torch.bool)[:, : example.count]
        scores = example.scores(present)  # the last row leaves nothing out
        return scores[-1] - scores[:-1]


class _OfSets(PartsLeftOut):
    """Base of the methods that ask for the scores of sets of parts.

    Args:
        forward_func (Callable): the model, or any function of it.
        n_samples (int, optional): how many sets are drawn. Default: see the class
        seed (int, optional): of the sets; torch's own random state is not touched.
            Default: 0
        most_parts (int, optional): how many parts a picture or spectrogram has at most:
            so many neighbouring patches are put together. Default: 49
        options (Any): as for :class:`PartsLeftOut`.
    """

    n_samples: int = 256
    most_parts: int = MOST_PARTS

    def __init__(
        self,
        forward_func: Callable[..., Any],
        *,
        n_samples: int | None = None,
        seed: int = 0,
        most_parts: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(forward_func, **options)
        if n_samples is not None:
            self.n_samples = at_least_one(n_samples, "n_samples")
        if most_parts is not None:
            self.most_parts = at_least_one(most_parts, "most_parts")
        self.seed = seed

    def notes_on(self, scores: Any, delta: float | None) -> tuple[str, ...]:
        """Say how many sets were drawn, and with which seed."""
        notes = super().notes_on(scores, delta)
        return (*notes, f"{self._drawn}, seed {self.seed}.")

    @property
    def _drawn(self) -> str:
        return f"At most {self.n_samples} sets of parts were left out"

    def _solved(self, table: Tensor, values: Tensor, weights: Tensor) -> Tensor:
        """Return the coefficients of a weighted least-squares fit.

        Raises:
            InputError: the samples do not determine them.
        """
        root = weights.sqrt()
        found = torch.linalg.lstsq(
            table * root[:, None], (values * root)[:, None], driver="gelsd"
        )
        if int(found.rank) < table.shape[1]:
            raise InputError(
                f"{self.get_name()} drew {len(table)} sets of the input's parts, "
                f"too few to tell {table.shape[1]} numbers: raise n_samples, such as "
                f'options={{"n_samples": {8 * table.shape[1]}}}'
            )
        solution: Tensor = found.solution[:, 0]
        return solution


class InputKernelShap(_OfSets):
    r"""KernelSHAP: Shapley values by a regression over sets of parts.

    Lundberg and Lee 2017 (arXiv 1705.07874, theorem 2), as Captum's ``KernelShap``: of
    the linear functions of which parts are present that are exact for none and for all
    of them, that with the least squared error under the weights :math:`\frac{M - 1}
    {\binom{M}{s}\, s\, (M - s)}` of sets of :math:`s` of :math:`M` parts. Where
    ``n_samples`` are enough for all sets (8 parts), these are the Shapley values
    themselves; else sets are drawn by those weights, each with its complement (Covert
    and Lee 2021, arXiv 2012.01536). The scores sum to the score of the input less that
    of the baseline.

    Args:
        forward_func (Callable): the model, or any function of it.
        n_samples (int, optional): how many sets are drawn, each a forward pass.
            Default: 256
        seed (int, optional): of the sets; torch's own random state is not touched.
            Default: 0
        most_parts (int, optional): how many parts a picture or spectrogram has at most:
            so many neighbouring patches are put together. Default: 49
        options (Any): as for :class:`PartsLeftOut`; a part of a text is a word.

    Raises:
        InputError: ``n_samples`` are fewer than the parts ask for.
    """

    name: ClassVar[str] = "KernelSHAP"
    description = replace(PartsLeftOut.description, conserves="difference", cost=85)

    def of_parts(self, example: LeftOut) -> Tensor:
        """Return the coefficients of the regression."""
        with_all, with_none = _ends(example)
        count = example.count
        if count == 1:
            return torch.stack([with_all - with_none])
        sets, weights = self._sets(count)
        values = example.scores(sets) - with_none
        table, last = sets.double(), sets[:, -1].double()
        # the last coefficient is what the others leave of the difference
        total = with_all - with_none
        others = self._solved(
            table[:, :-1] - last[:, None], values - last * total, weights
        )
        return torch.cat([others, (total - others.sum())[None]])

    def _sets(self, count: int) -> tuple[Tensor, Tensor]:
        """Return sets of parts without the empty and the full one, and weights."""
        sizes = torch.arange(1, count, dtype=torch.float64)
        if 2**count - 2 <= self.n_samples:
            sets = _all_sets(count)[1:-1]
            each = torch.tensor([math.comb(count, s) for s in range(1, count)])
            kernel = (count - 1) / (each * sizes * (count - sizes))
            return sets, kernel[sets.sum(1) - 1]
        generator = torch.Generator().manual_seed(self.seed)
        drawn = -(-self.n_samples // 2)
        of_size = 1 / (sizes * (count - sizes))
        size = 1 + torch.multinomial(
            of_size, drawn, replacement=True, generator=generator
        )
        order = torch.rand(drawn, count, generator=generator).argsort(1).argsort(1)
        half = order < size[:, None]
        sets = torch.cat([half, ~half])
        return sets, torch.ones(len(sets), dtype=torch.float64)


class InputLime(_OfSets):
    r"""LIME: the slopes of a linear fit around the input, over sets of parts.

    Ribeiro et al. 2016 (arXiv 1602.04938, equation 1), as Captum's ``Lime`` on the
    vector of the parts that are present: each part is present with probability 1/2, and
    a set weighs :math:`\exp(-d^2 / 2 w^2)` with its cosine distance :math:`d` from the
    whole. The fit is linear regression, as with Captum's ``SkLearnLinearRegression``:
    the lasso, Captum's default, shrinks by a size that depends on the score's unit.
    Where ``n_samples`` are enough for all sets (8 parts) all are taken.

    Args:
        forward_func (Callable): the model, or any function of it.
        n_samples (int, optional): how many sets are drawn, each a forward pass.
            Default: 256
        kernel_width (float, optional): :math:`w`. Default: 1.0, as Captum's
        seed (int, optional): of the sets; torch's own random state is not touched.
            Default: 0
        most_parts (int, optional): how many parts a picture or spectrogram has at most:
            so many neighbouring patches are put together. Default: 49
        options (Any): as for :class:`PartsLeftOut`; a part of a text is a word.

    Raises:
        InputError: ``kernel_width`` is not above 0; ``n_samples`` are fewer than the
            parts ask for.
    """

    name: ClassVar[str] = "LIME"
    description = replace(PartsLeftOut.description, cost=85)

    def __init__(
        self,
        forward_func: Callable[..., Any],
        *,
        kernel_width: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(forward_func, **options)
        if not kernel_width > 0:
            raise InputError(f"expected kernel_width above 0, got {kernel_width!r}")
        self.kernel_width = float(kernel_width)

    def of_parts(self, example: LeftOut) -> Tensor:
        """Return the slopes of the fit."""
        sets = self._sets(example.count)
        values = example.scores(sets)
        table = sets.double()
        distance = 1 - (table.sum(1) / example.count).sqrt()
        weights = torch.exp(-(distance**2) / (2 * self.kernel_width**2))
        constant = torch.ones(len(table), 1, dtype=torch.float64)
        found = self._solved(torch.cat([table, constant], 1), values, weights)
        return found[: example.count]

    def _sets(self, count: int) -> Tensor:
        if 2**count <= self.n_samples:
            return _all_sets(count)
        generator = torch.Generator().manual_seed(self.seed)
        return torch.rand(self.n_samples, count, generator=generator) < 0.5


class InputShapleySampling(_OfSets):
    r"""Shapley values by random orders: what a part adds to those before it.

    Castro et al. 2009 and Štrumbelj and Kononenko 2010, as Captum's
    ``ShapleyValueSampling``: the mean over orders of the parts of :math:`f(S \cup i) -
    f(S)`, with :math:`S` the parts that come before :math:`i`. Where ``n_samples`` are
    enough for all orders (4 parts), these are the Shapley values themselves. The scores
    sum to the score of the input less that of the baseline.

    Args:
        forward_func (Callable): the model, or any function of it.
        n_samples (int, optional): how many orders are drawn, each as many forward
            passes as there are parts. Default: 25
        seed (int, optional): of the orders; torch's own random state is not touched.
            Default: 0
        most_parts (int, optional): how many parts a picture or spectrogram has at most:
            so many neighbouring patches are put together. Default: 49
        options (Any): as for :class:`PartsLeftOut`; a part of a text is a word.
    """

    name: ClassVar[str] = "Shapley sampling"
    description = replace(PartsLeftOut.description, conserves="difference")
    n_samples = 25

    @property
    def _drawn(self) -> str:
        return f"The mean over at most {self.n_samples} orders of the parts"

    def of_parts(self, example: LeftOut) -> Tensor:
        """Return the mean of what each part adds."""
        count = example.count
        with_all, with_none = _ends(example)
        total = torch.zeros(count, dtype=torch.float64)
        orders = self._orders(count)
        steps = torch.arange(1, count)[:, None]
        for order in orders:
            place = order.argsort()
            between = example.scores(place < steps) if count > 1 else total[:0]
            scores = torch.cat([with_none[None], between, with_all[None]])
            total[order] += scores.diff()
        return total / len(orders)

    def _orders(self, count: int) -> list[Tensor]:
        if math.factorial(count) <= self.n_samples:
            return [torch.tensor(o) for o in itertools.permutations(range(count))]
        generator = torch.Generator().manual_seed(self.seed)
        return [
            torch.randperm(count, generator=generator) for _ in range(self.n_samples)
        ]


def _all_sets(count: int) -> Tensor:
    """Return all sets of parts, the empty one first, the full one last."""
    numbers = torch.arange(2**count)[:, None]
    return (numbers >> torch.arange(count)) % 2 == 1
