"""Relevance averaged over the whole input and complementary halves of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from .._captum import log_usage
from ..errors import InputError
from ..propagation import Composite
from .gradient_methods import special_ids
from .inputs import Leaf, prepare_inputs
from .transformer_lrp import TransformerLRP


class OwenLRP(TransformerLRP):
    r"""LRP in several contexts: the input, and complementary halves of it.

    A word that another word repeats has little relevance beside it, and much alone. The
    Shapley value asks what a part :math:`i` adds to random subsets of the others; by
    Owen's multilinear extension it is

    .. math:: \phi_i = \int_0^1 E_{S_q} [f(S_q \cup i) - f(S_q)] \, dq,

    where :math:`S_q` has each other part with probability q (Okhrati and Lipani 2020,
    arXiv 2010.12082). Here two points stand for the integral, q = 1 (the input itself)
    and q = 1/2, at which each half is taken together with its complement (their
    "halved" sampling), and the relevance of :math:`i` in :math:`S_q \cup i` stands for
    what it adds, so that one pass serves all parts of a half:

    .. math:: R_i = \tfrac12 R_i(x) + \tfrac1{2n} \sum_{k=1}^n R_i(x_{H_k(i)}),

    with :math:`H_k(i)` the half of the k-th split that holds i and the other half
    replaced by the baseline. Costs 1 + 2n passes of the composite's LRP: 3 by default.
    A method of this package; measured in ``benchmarks/faithfulness_text.py``.

    A part is a token, or a square patch of a picture. A split puts one of every two
    neighbours into either half, by a coin that depends on ``seed`` and the place alone,
    so that results repeat, and neither batch nor padding changes them. What is kept in
    both halves (special tokens) gets the mean of its relevance in them. Not conserved:
    the sum is no score of the model.

    Args:
        forward_func (Callable): the model, or any function of it.
        composite (str or Composite, optional): the method to average.
            Default: ``"attnlrp"``
        tokenizer (Any, optional): a Hugging Face tokenizer, which knows the mask token
            and the special ones. Default: None
        baseline (int or float, optional): what replaces a part: for token identifiers
            an identifier, for pixels and embeddings a value. Default: for identifiers
            the mask token of ``tokenizer``, else its padding token, else its unknown
            token; for others 0.0, the mean colour where pixels are normalised
        keep (sequence of int, optional): identifiers that are never replaced.
            Default: the special tokens of ``tokenizer``
        n_splits (int, optional): n, the number of splits. Default: 1
        patch_size (int or tuple of int, optional): height and width of the patches of a
            picture. Default: 16
        seed (int, optional): of the splits; torch's own random state is not touched.
            Default: 0
        options (Any): as for :class:`TransformerLRP`.

    Raises:
        InputError: if ``n_splits`` or ``patch_size`` is below 1.

    Examples::

        >>> owen = OwenLRP(model, tokenizer=tokenizer)
        >>> owen.attribute(tokenizer("a film", return_tensors="pt"), target=1)
    """

    name: ClassVar[str] = "OwenLRP"

    def __init__(
        self,
        forward_func: Callable[..., Any],
        composite: str | Composite = "attnlrp",
        *,
        tokenizer: Any = None,
        baseline: int | float | None = None,
        keep: Sequence[int] | None = None,
        n_splits: int = 1,
        patch_size: int | tuple[int, int] = 16,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(forward_func, composite, **options)
        sides = (patch_size,) * 2 if isinstance(patch_size, int) else tuple(patch_size)
        if n_splits < 1 or len(sides) != 2 or min(sides) < 1:
            raise InputError(
                "expected n_splits of at least 1 and patch_size of one or two numbers "
                f"of at least 1, got n_splits={n_splits} and patch_size={patch_size}"
            )
        self.tokenizer = tokenizer
        self.baseline = baseline
        self.keep = tuple(special_ids(tokenizer) if keep is None else keep)
        self.n_splits = n_splits
        self.patch_size = sides
        self.seed = seed

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...] | Mapping[str, Any],
        target: Any = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        verbose: bool = False,
    ) -> Any:
        r"""Return the mean relevance of each input over its contexts.

        Args:
            inputs (Tensor, tuple of Tensor, or Mapping): as for
                :meth:`TransformerLRP.attribute`; token identifiers and embeddings
                ``(batch, tokens, ...)``, pixels ``(batch, channels, height, width)``.
            target (int, tuple, Tensor or list, optional): which score to explain, as in
                Captum. Default: None
            additional_forward_args (Any, optional): passed on after the inputs.
                Default: None
            return_convergence_delta (bool, optional): also return score minus sum of
                relevance, per example. Default: False
            verbose (bool, optional): print the trace of the pass over the input itself.
                Default: False

        Returns:
            As :meth:`TransformerLRP.attribute`.

        Raises:
            InputError: if identifiers are explained and nothing says what replaces
                them; and all that :meth:`TransformerLRP.attribute` raises.
        """
        given = prepare_inputs(inputs, additional_forward_args)
        names = [leaf.name for leaf in given.leaves]
        tensors = [leaf.given for leaf in given.leaves]
        present = [_present(leaf) for leaf in given.leaves]
        fixed = [self._fixed(t) for t in tensors]

        attribute = super().attribute

        def relevance(replaced: list[Tensor]) -> list[Tensor]:
            """Return the relevance of other values of the inputs, one of each leaf."""
            other: Any = tuple(replaced)
            if given.form == "mapping":
                assert isinstance(inputs, Mapping)
                other = {**inputs, **dict(zip(names, replaced, strict=True))}
            elif given.form == "tensor":
                other = replaced[0]
            found = attribute(other, target, additional_forward_args)
            return _leaves_of(found, names)

        whole, delta = attribute(inputs, target, additional_forward_args, True, verbose)
        flat = _leaves_of(whole, names)
        scores = delta + _totals(flat, len(delta))
        halves = [torch.zeros_like(r) for r in flat]
        for split in range(self.n_splits):
            generator = torch.Generator().manual_seed(self.seed + split)
            sides = [
                self._side(tensor, here, generator)
                for tensor, here in zip(tensors, present, strict=True)
            ]
            for side in (True, False):
                kept = [(s == side) | f for s, f in zip(sides, fixed, strict=True)]
                replaced = [
                    torch.where(_fit(k, t), t, self._baseline(t))
                    for k, t in zip(kept, tensors, strict=True)
                ]
                for total, found, k, f in zip(
                    halves, relevance(replaced), kept, fixed, strict=True
                ):
                    weight = _fit(k, found).to(found.dtype) / 2
                    total += found * torch.where(_fit(f, found), weight / 2, weight)
        means = [r / 2 + h / self.n_splits for r, h in zip(flat, halves, strict=True)]
        found = given.restore(tuple(means))
        if not return_convergence_delta:
            return found
        return found, scores - _totals(means, len(scores))

    def about_contexts(self) -> str:
        """Say in a sentence what the relevance is the mean of."""
        pairs = "" if self.n_splits == 1 else f"{self.n_splits} pairs of "
        return (
            f"Mean relevance in the whole input and {pairs}complementary halves of it."
        )

    def _baseline(self, tensor: Tensor) -> Tensor:
        """Return what replaces a part, of no dimension."""
        value = self.baseline
        if value is None and tensor.is_floating_point():
            value = 0.0
        if value is None:
            value = replacement_id(self.tokenizer)
        if value is None:
            raise InputError(
                "OwenLRP replaces half of the tokens and was not told by what: pass "
                "tokenizer=, or baseline= with the identifier of a mask or padding "
                "token"
            )
        return tensor.new_tensor(value)

    def _fixed(self, tensor: Tensor) -> Tensor:
        """Return True for identifiers that are never replaced, else a single False."""
        if tensor.is_floating_point() or not self.keep:
            return torch.zeros((), dtype=torch.bool, device=tensor.device)
        return torch.isin(tensor, tensor.new_tensor(self.keep))

    def _side(
        self, tensor: Tensor, present: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Return the half of each part, to be broadcast: neighbours by one coin.

        Parts are counted without padding, so that it changes nothing.
        """
        if tensor.dim() == 4:
            high, wide = self.patch_size
            row = torch.arange(tensor.shape[2]) // high
            column = torch.arange(tensor.shape[3]) // wide
            place = (row[:, None] * (int(column[-1]) + 1) + column)[None, None]
        elif tensor.dim() < 2:
            raise InputError(
                "OwenLRP splits the tokens (batch, tokens, ...) or the patches of "
                f"pixels (batch, channels, height, width), got {tuple(tensor.shape)}"
            )
        elif present is None:
            place = torch.arange(tensor.shape[1])[None]
        else:
            place = (present.long().cumsum(1) - 1).clamp_min(0).cpu()
        # drawn one by one, so that the first coins do not depend on their number
        count = int(place.max()) // 2 + 1
        coins = torch.cat(
            [torch.randint(2, (1,), generator=generator) for _ in range(count)]
        )
        return ((place + coins[place // 2]) % 2 == 0).to(tensor.device)


def replacement_id(tokenizer: Any) -> int | None:
    """Return what can stand for an unknown word: mask, else padding, else unknown.

    The unknown token counts only where it does not also end a text, as GPT-2's does.
    """
    if tokenizer is None:
        return None
    found = [getattr(tokenizer, "mask_token_id", None), tokenizer.pad_token_id]
    if tokenizer.unk_token_id != tokenizer.eos_token_id:
        found.append(tokenizer.unk_token_id)
    return next((int(i) for i in found if i is not None), None)


def _present(leaf: Leaf) -> Tensor | None:
    """Return 1 for tokens and 0 for padding, ``(batch, tokens)``, where it is known."""
    if leaf.keep is None:
        return None
    return leaf.keep.reshape(*leaf.keep.shape[:2], -1)[..., 0]


def _fit(part: Tensor, tensor: Tensor) -> Tensor:
    """Return a mask of parts with the further dimensions of a tensor."""
    if not part.dim():
        return part
    return part.reshape(*part.shape, *([1] * (tensor.dim() - part.dim())))


def _leaves_of(found: Any, names: Sequence[str]) -> list[Tensor]:
    if isinstance(found, Mapping):
        return [found[name] for name in names]
    return list(found) if isinstance(found, tuple) else [found]


def _totals(tensors: Sequence[Tensor], examples: int) -> Tensor:
    """Return the sum of all elements of each example."""
    sums = [t.reshape(examples, -1).sum(1) for t in tensors]
    return torch.stack(sums).sum(0)
