"""The methods that relevance is compared with, done right for texts.

Gradients and interpolation need numbers; token identifiers are none. So these methods
work on the embeddings of the identifiers (see :mod:`.embedded`), for any model, with
positions and masks as they are in the text, and give one score per token. The baseline
is the padding token in the place of every token but the special ones. For pixels, and
for embeddings that are given as such, they are Captum's methods as they are. Several
inputs at once, such as a question and a picture, are explained together, each with a
baseline of its own. Methods that leave parts out are in :mod:`.parts_left_out`.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from captum.attr import DeepLift, IntegratedGradients, Saliency
from torch import Tensor, nn

from .._captum import GradientAttribution, log_usage
from .._named import Named
from ..description import Description
from ..errors import InputError, UnknownOperatorError
from ..models.special_tokens import baseline_id, special_ids
from .embedded import Prepared, prepare
from .explains import explains
from .scores import check_delta
from .single_pass import check_callable

#: rows that go through the model at once, if the batch is not larger
ROWS = 32


class InputAttribution(Named, GradientAttribution):
    """Base of the methods that explain token identifiers by their embeddings.

    Args:
        forward_func (Callable): the model, or any function of it.
        tokenizer (Any, optional): a Hugging Face tokenizer, which knows the padding
            token and the special ones. Default: None
        baseline (int, float or Tensor, optional): for token identifiers the identifier
            that replaces them, or a float, which every feature of the embedding is set
            to; for pixels and embeddings the value or tensor that they are compared
            with. Of several inputs a mapping of their names, or a tuple, says it of
            each; else an ``int`` is for identifiers, a tensor for all others.
            Default: for token identifiers the padding token of ``tokenizer``,
            else its mask token, else its unknown token, else 0.0; for others 0.0, which
            is the mean colour where pixels are normalised
        keep (sequence of int, optional): identifiers that the baseline does not
            replace. Default: the special tokens of ``tokenizer``
        output_field (str or int, optional): which field of a ``ModelOutput`` or tuple
            holds the scores. Default: a tensor itself, else ``"logits"``

    Raises:
        TypeError: if ``forward_func`` cannot be called.
    """

    description = Description(takes="mapping", needs=("tokenizer", "baseline"))
    #: whether the method compares the input with a baseline
    has_baseline: ClassVar[bool] = True
    #: why the sum may miss what it should be
    about_delta: ClassVar[str] = "its steps are few: raise n_steps"

    def __init__(
        self,
        forward_func: Callable[..., Any],
        *,
        tokenizer: Any = None,
        baseline: Any = None,
        keep: Sequence[int] | None = None,
        output_field: str | int | None = None,
    ) -> None:
        check_callable(self, forward_func)
        GradientAttribution.__init__(self, forward_func)
        self.tokenizer = tokenizer
        self.baseline = baseline
        self.keep = tuple(special_ids(tokenizer) if keep is None else keep)
        self.output_field = output_field

    @log_usage(part_of_slo=True)
    @explains
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...] | Mapping[str, Any],
        target: Any = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
    ) -> Any:
        r"""Return the score of each input for the target's score.

        Args:
            inputs (Tensor, tuple of Tensor, or Mapping): token identifiers (int64
                or int32, ``(batch, tokens)``), pixels, embeddings, or the mapping that
                a tokenizer or processor returns; several are explained together.
            target (int, tuple, Tensor or list, optional): which score to explain, as in
                Captum. Default: None
            additional_forward_args (Any, optional): passed on after the inputs.
                Default: None
            return_convergence_delta (bool, optional): also return, per example, the sum
                of the scores minus the model's score of the input less that of the
                baseline (Captum's sign); for methods that have it. Default: False

        Returns:
            *Tensor* of **attributions**, detached: one per token, ``(batch, tokens)``
            and exactly 0 at padding, or of the shape of the pixels or embeddings; of
            several inputs a tuple or mapping of them, as they came. With
            ``return_convergence_delta`` a pair with **delta**, ``(batch,)``, of all
            inputs together.

        Raises:
            InputError: an input is empty, not finite or of a wrong dtype; several do
                not tell their examples; a baseline does not fit; or a delta is asked
                for and there is none.
            TargetError: the target does not select one score per example.
            OutputError: the model returned no finite scores.
            UnknownOperatorError: DeepLift cannot explain this model.
        """
        if return_convergence_delta and not self.has_convergence_delta():
            raise InputError(
                f"{self.get_name()} has no convergence delta: its scores need not sum "
                "to anything. Leave return_convergence_delta out."
            )
        prepared = self._prepare(inputs, target, additional_forward_args)
        with torch.enable_grad():
            attributions, delta = self._attribute(prepared, prepared.target)
        check_delta(self.get_name(), delta)
        found = prepared.in_form(attributions)
        return (found, delta) if return_convergence_delta else found

    @abstractmethod
    def _attribute(
        self, prepared: Prepared, target: Any
    ) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Return attributions of the features, and the delta if there is one."""

    def _prepare(self, inputs: Any, target: Any, arguments: Any) -> Prepared:
        return prepare(
            self.forward_func,
            inputs,
            target,
            arguments,
            baseline=self.baseline,
            of_tokens=self._of_tokens,
            keep=self.keep,
            output_field=self.output_field,
        )

    @property
    def _of_tokens(self) -> int | float:
        """What tokens are compared with, where the baseline does not say."""
        found = baseline_id(self.tokenizer) if self.has_baseline else None
        return 0.0 if found is None else found

    def about_baseline(self) -> str:
        """Say in a sentence what the tokens of a text are compared with."""
        value = self.baseline
        if isinstance(value, Mapping):
            value = value.get("input_ids")
        if not isinstance(value, (int, float)):
            value = self._of_tokens
        if isinstance(value, int):
            name = repr(value)
            if self.tokenizer is not None:
                (name,) = self.tokenizer.convert_ids_to_tokens([value])
            said = f"Baseline: the embedding of {name} for each token"
        else:
            said = "Baseline: an embedding of zeros for each token"
        return said + (", special tokens kept." if self.keep else ".")

    def notes_on(self, scores: Any, delta: float | None) -> tuple[str, ...]:
        """Say what is compared with, and where the sum misses a twentieth or more."""
        notes: tuple[str, ...] = ()
        if self.has_baseline:
            black = isinstance(self.baseline, Tensor) and bool(self.baseline.any())
            value = "a black picture" if black else "0 in what the model takes"
            of_text = scores.ndim == 1
            notes = (self.about_baseline() if of_text else f"Baseline: {value}.",)
        delta = delta or 0.0
        total = float(scores.sum())
        if abs(delta) <= 0.05 * abs(total - delta):
            return notes
        return (
            *notes,
            f"The scores sum to {total:+.3g} where they should sum to "
            f"{total - delta:+.3g}: {self.about_delta}.",
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.forward_func).__name__})"


#: of those whose scores sum to the difference from a baseline
_TO_A_BASELINE = replace(InputAttribution.description, conserves="difference")


class InputSaliency(InputAttribution):
    r"""Saliency: the size of the gradient (Simonyan et al. 2013).

    arXiv 1312.6034. For a token the Euclidean norm of the gradient at its embedding,
    :math:`\lVert \partial f / \partial e_i \rVert_2`; for pixels and embeddings the
    magnitudes of its elements, as Captum's. No sign, and no sum to compare. Arguments
    as for :class:`InputAttribution`.
    """

    name: ClassVar[str] = "Saliency"
    description = Description(measure="magnitude", takes="mapping", cost=1)
    has_baseline: ClassVar[bool] = False

    def _attribute(
        self, prepared: Prepared, target: Any
    ) -> tuple[tuple[Tensor, ...], None]:
        found = Saliency(prepared.function).attribute(
            prepared.leaves(),
            target=target,
            additional_forward_args=prepared.arguments,
        )
        listed, sizes = iter(found), list[Tensor]()
        for one in prepared.inputs:
            some = [next(listed) for _ in one.values]
            if one.of_identifiers:  # one number per token; of tables, the norm of all
                squares = torch.stack([(g**2).sum(-1, keepdim=True) for g in some])
                norm = squares.sum(0).sqrt()
                some = [norm, *[torch.zeros_like(norm)] * (len(some) - 1)]
            sizes += some
        return tuple(sizes), None


class InputIntegratedGradients(InputAttribution):
    r"""Integrated Gradients (Sundararajan et al. 2017) on the embeddings.

    arXiv 1703.01365, equation 1, by Captum's Gauss-Legendre quadrature:
    :math:`(x - b) \int_0^1 \nabla f(b + a (x - b))\, da`. Sums to the model's score of
    the input less that of the baseline, up to the delta.

    Args:
        forward_func (Callable): the model, or any function of it.
        n_steps (int, optional): points of the integral, each a forward and a backward
            pass. Default: 50
        options (Any): as for :class:`InputAttribution`.
    """

    name: ClassVar[str] = "Integrated Gradients"
    description = replace(_TO_A_BASELINE, cost=50)

    def __init__(
        self, forward_func: Callable[..., Any], *, n_steps: int = 50, **options: Any
    ) -> None:
        super().__init__(forward_func, **options)
        self.n_steps = at_least_one(n_steps, "n_steps")

    def _attribute(
        self, prepared: Prepared, target: Any
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        found, delta = IntegratedGradients(prepared.function).attribute(
            prepared.leaves(),
            baselines=prepared.baselines,
            target=target,
            additional_forward_args=prepared.arguments,
            n_steps=self.n_steps,
            internal_batch_size=max(prepared.examples, ROWS),
            return_convergence_delta=True,
        )
        return found, delta.detach()


class InputDeepLift(InputAttribution):
    """DeepLift, rescale rule (Shrikumar et al. 2017), as far as Captum's goes.

    arXiv 1704.02685. Captum has the rule for activation modules such as ``nn.ReLU`` and
    ``nn.Tanh``; for all else (GELU, attention, normalisation, activations called as
    functions) it takes the gradient. For transformers the scores therefore do not sum
    to the difference of the scores: the delta says by how much. Arguments as for
    :class:`InputAttribution`; ``forward_func`` has to be a module.

    Raises:
        TypeError: if ``forward_func`` is no module.
    """

    name: ClassVar[str] = "DeepLift"
    description = replace(_TO_A_BASELINE, cost=2)
    about_delta: ClassVar[str] = (
        "Captum's DeepLift takes the plain gradient of attention, normalisation and "
        "most activations, so do not trust its numbers here"
    )

    def __init__(self, forward_func: Callable[..., Any], **options: Any) -> None:
        super().__init__(forward_func, **options)
        if not isinstance(forward_func, nn.Module):
            raise TypeError(
                f"DeepLift hooks the activations of a module, and got a "
                f"{type(forward_func).__name__}: pass the torch.nn.Module itself"
            )

    def _attribute(
        self, prepared: Prepared, target: Any
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        lift = DeepLift(prepared.in_one_call())
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Setting forward, backward hooks")
                found, delta = lift.attribute(
                    prepared.leaves(),
                    baselines=prepared.baselines,
                    target=target,
                    additional_forward_args=prepared.arguments,
                    return_convergence_delta=True,
                )
        except (RuntimeError, AssertionError) as error:
            reason = " ".join(str(error).split())
            raise UnknownOperatorError(
                f"Captum's DeepLift cannot explain {type(self.forward_func).__name__}: "
                f"{reason} Take Integrated Gradients or AttnLRP, which ask nothing of "
                "the modules."
            ) from error
        finally:
            _forget(self.forward_func)
        return found, delta.detach()


def _forget(module: Any) -> None:
    """Remove what Captum's DeepLift leaves on modules where it stops half-way."""
    for part in module.modules():
        for name in ("input", "output"):
            if isinstance(part.__dict__.get(name), Tensor):
                delattr(part, name)


class _Sampled(InputAttribution):
    """Base of the means over random samples, drawn for each example by itself.

    Captum draws noise for a whole batch from the global generators; here an example
    gets the same noise whatever stands beside it, and the generators are left alone.

    Args:
        forward_func (Callable): the model, or any function of it.
        n_samples (int, optional): how many, each a forward and a backward pass.
            Default: 20
        noise_level (float, optional): standard deviation of the noise, as a share of
            that of the features of the example. Default: see the class
        seed (int, optional): of the noise. Default: 0
        options (Any): as for :class:`InputAttribution`.
    """

    noise_level: float

    def __init__(
        self,
        forward_func: Callable[..., Any],
        *,
        n_samples: int = 20,
        noise_level: float | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(forward_func, **options)
        self.n_samples = at_least_one(n_samples, "n_samples")
        if noise_level is not None:
            if not noise_level >= 0:
                raise InputError(
                    f"expected noise_level of at least 0, got {noise_level!r}"
                )
            self.noise_level = float(noise_level)
        self.seed = seed

    def _samples(
        self, prepared: Prepared
    ) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        """Yield noise of the shapes of the features, and one uniform number each."""
        generators = [
            torch.Generator().manual_seed(self.seed) for _ in range(prepared.examples)
        ]
        for _ in range(self.n_samples):
            uniform = torch.stack(
                [torch.rand((), generator=g, dtype=torch.float64) for g in generators]
            )
            noise = []
            for one, x, _ in prepared.of_each_value:
                drawn = torch.zeros_like(x)
                for row, generator in enumerate(generators):
                    real = (
                        torch.ones(x.shape[1], dtype=torch.bool, device=x.device)
                        if one.tokens is None
                        else one.tokens[row]
                    )
                    values = x[row][real]
                    normal = torch.randn(
                        values.shape, generator=generator, dtype=torch.float64
                    )
                    scale = self.noise_level * values.double().std(correction=0)
                    drawn[row, real] = (normal.to(scale) * scale).to(x.dtype)
                noise.append(drawn)
            yield tuple(noise), uniform

    def _gradients(
        self, prepared: Prepared, points: Sequence[Tensor], target: Any
    ) -> tuple[Tensor, ...]:
        leaves = tuple(x.detach().requires_grad_() for x in points)
        found: tuple[Tensor, ...] = self.gradient_func(
            prepared.function, leaves, target, prepared.arguments
        )
        return found


class InputSmoothGrad(_Sampled):
    r"""SmoothGrad times input: the input times the mean gradient around it.

    arXiv 1706.03825 (Smilkov et al. 2017): :math:`x \cdot \frac1n \sum_k
    \nabla f(x + \epsilon_k)`, with Gaussian noise on the embeddings or pixels. For the
    same around another method, ``NoiseTunnel(AttnLRP(model))`` of Captum goes into
    :func:`~captum_transformer_lrp.explain`.

    Args:
        forward_func (Callable): the model, or any function of it.
        n_samples (int, optional): how many, each a forward and a backward pass.
            Default: 20
        noise_level (float, optional): standard deviation of the noise, as a share of
            that of the features of the example. Default: 0.5, on natural pictures about
            the authors' 15 % of the range
        seed (int, optional): of the noise. Default: 0
        options (Any): as for :class:`InputAttribution`.
    """

    name: ClassVar[str] = "SmoothGrad x Input"
    description = Description(takes="mapping", cost=20)
    has_baseline: ClassVar[bool] = False
    noise_level = 0.5

    def _attribute(
        self, prepared: Prepared, target: Any
    ) -> tuple[tuple[Tensor, ...], None]:
        total = tuple(torch.zeros_like(x) for x in prepared.features)
        for noise, _ in self._samples(prepared):
            points = [x + n for x, n in zip(prepared.features, noise, strict=True)]
            for sum_, grad in zip(
                total, self._gradients(prepared, points, target), strict=True
            ):
                sum_ += grad.detach() / self.n_samples
        return tuple(
            x * mean for x, mean in zip(prepared.features, total, strict=True)
        ), None


class InputGradientShap(_Sampled):
    r"""GradientSHAP: expected gradients between baseline and noisy input.

    Lundberg and Lee 2017 (arXiv 1705.07874), as Captum's ``GradientShap`` with one
    baseline: the mean over samples of :math:`(\tilde x - b) \nabla f(b + u (\tilde x -
    b))`, where :math:`u` is uniform in [0, 1] and :math:`\tilde x` the input with
    Gaussian noise. Sums to the score less that of the baseline in expectation.

    Args:
        forward_func (Callable): the model, or any function of it.
        n_samples (int, optional): how many, each a forward and a backward pass.
            Default: 20
        noise_level (float, optional): standard deviation of the noise, as a share of
            that of the features of the example. Default: 0.1
        seed (int, optional): of the samples. Default: 0
        options (Any): as for :class:`InputAttribution`.
    """

    name: ClassVar[str] = "GradientSHAP"
    description = replace(_TO_A_BASELINE, cost=20)
    about_delta: ClassVar[str] = "its samples are few: raise n_samples"
    noise_level = 0.1

    def _attribute(
        self, prepared: Prepared, target: Any
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        total = tuple(torch.zeros_like(x) for x in prepared.features)
        for noise, uniform in self._samples(prepared):
            ways, points = [], []
            for (one, x, b), n in zip(prepared.of_each_value, noise, strict=True):
                if one.replaced is not None:  # the others stay what they are
                    n = torch.where(one.replaced[..., None], n, 0)
                u = uniform.to(x).view(-1, *[1] * (x.dim() - 1))
                ways.append(x + n - b)
                points.append(b + u * (x + n - b))
            gradients = self._gradients(prepared, points, target)
            for sum_, way, grad in zip(total, ways, gradients, strict=True):
                sum_ += way * grad.detach() / self.n_samples
        delta = self.compute_convergence_delta_of(prepared, total, target)
        return total, delta

    def compute_convergence_delta_of(
        self, prepared: Prepared, attributions: tuple[Tensor, ...], target: Any
    ) -> Tensor:
        """Return the sum of attributions less the difference of scores, ``(batch,)``.

        Args:
            prepared (Prepared): the input.
            attributions (tuple of Tensor): of its features.
            target (int, tuple, Tensor or list): which score.
        """
        delta: Tensor = (
            IntegratedGradients(prepared.function)
            .compute_convergence_delta(
                attributions,
                prepared.baselines,
                prepared.features,
                additional_forward_args=prepared.arguments,
                target=target,
            )
            .detach()
        )
        return delta


def at_least_one(value: Any, name: str) -> int:
    """Return a number of samples or steps.

    Raises:
        InputError: it is no whole number of at least 1.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"expected {name} to be an integer of at least 1, got {value}")
    return value
