"""The methods that relevance is compared with, done right for texts.

Gradients and interpolation need numbers; token identifiers are none. So these methods
work on the embeddings of the identifiers (see :mod:`.embedded`), for any model, with
positions and masks as they are in the text, and give one score per token. The baseline
is the padding token in the place of every token but the special ones. For pixels, and
for embeddings that are given as such, they are Captum's methods as they are.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from captum.attr import DeepLift, FeatureAblation, IntegratedGradients, Saliency
from torch import Tensor, nn

from .._captum import GradientAttribution, log_usage
from .._named import Named
from ..description import Description
from ..errors import InputError, UnknownOperatorError
from ..models.special_tokens import baseline_id, special_ids
from .embedded import Prepared, prepare
from .explains import explains
from .patches import checked_patch_size, patch_numbers, sound_numbers
from .single_pass import check_callable

#: rows that go through the model at once, if the batch is not larger
_ROWS = 32


class InputAttribution(Named, GradientAttribution):
    """Base of the methods that explain token identifiers by their embeddings.

    Args:
        forward_func (Callable): the model, or any function of it.
        tokenizer (Any, optional): a Hugging Face tokenizer, which knows the padding
            token and the special ones. Default: None
        baseline (int, float or Tensor, optional): for token identifiers the identifier
            that replaces them, or a float, which every feature of the embedding is set
            to; for pixels and embeddings the value or tensor that they are compared
            with. Default: for token identifiers the padding token of ``tokenizer``,
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
        baseline: int | float | Tensor | None = None,
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
            inputs (Tensor, tuple of one Tensor, or Mapping): token identifiers (int64
                or int32, ``(batch, tokens)``), pixels, embeddings, or the mapping that
                a tokenizer or image processor returns.
            target (int, tuple, Tensor or list, optional): which score to explain, as in
                Captum. Default: None
            additional_forward_args (Any, optional): passed on after the inputs.
                Default: None
            return_convergence_delta (bool, optional): also return, per example, the sum
                of the scores minus the model's score of the input less that of the
                baseline (Captum's sign); for methods that have it. Default: False

        Returns:
            *Tensor* of **attributions**, detached: one per token, ``(batch, tokens)``
            and exactly 0 at padding, or of the shape of the pixels or embeddings. With
            ``return_convergence_delta`` a pair with **delta**, ``(batch,)``.

        Raises:
            InputError: an input is empty, not finite, of a wrong dtype, or there is
                more than one to explain; or a delta is asked for and there is none.
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
            baseline=self._value(inputs),
            keep=self.keep,
            output_field=self.output_field,
        )

    def _value(self, inputs: Any) -> int | float | Tensor:
        """Return the baseline that was given, or the default."""
        if self.baseline is not None:
            return self.baseline
        if not self.has_baseline:
            return 0.0
        found = baseline_id(self.tokenizer)
        return 0.0 if found is None else found

    def about_baseline(self) -> str:
        """Say in a sentence what the tokens of a text are compared with."""
        value = self._value(None)
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
            black = isinstance(self.baseline, Tensor)
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
        if prepared.of_identifiers:  # one number per token; of tables, the norm of all
            squares = torch.stack([(g**2).sum(-1, keepdim=True) for g in found])
            return (squares.sum(0).sqrt(),), None
        return found, None


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
        self.n_steps = _at_least_one(n_steps, "n_steps")

    def _attribute(
        self, prepared: Prepared, target: Any
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        found, delta = IntegratedGradients(prepared.function).attribute(
            prepared.leaves(),
            baselines=prepared.baselines,
            target=target,
            additional_forward_args=prepared.arguments,
            n_steps=self.n_steps,
            internal_batch_size=max(prepared.examples, _ROWS),
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
        lift = DeepLift(prepared.function)
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


class InputOcclusion(InputAttribution):
    """Leave one out: how much the score falls when the baseline replaces one part.

    A part is a token of a text, or a square patch of a picture (Zeiler and Fergus 2013,
    arXiv 1311.2901) or of a spectrogram, or one of up to 50 stretches of a waveform. In
    units of the score; the falls need not sum to it. Each pixel of a patch gets its
    share, so that a patch sums to its fall.

    Args:
        forward_func (Callable): the model, or any function of it.
        patch_size (int or tuple of int, optional): height and width of the patches of a
            picture. Default: 16
        options (Any): as for :class:`InputAttribution`.
    """

    name: ClassVar[str] = "Occlusion"
    description = Description(
        grain="part", takes="mapping", needs=("tokenizer", "baseline", "patch_size")
    )

    def __init__(
        self,
        forward_func: Callable[..., Any],
        *,
        patch_size: int | tuple[int, int] = 16,
        **options: Any,
    ) -> None:
        super().__init__(forward_func, **options)
        self.patch_size = checked_patch_size(patch_size)

    def _attribute(
        self, prepared: Prepared, target: Any
    ) -> tuple[tuple[Tensor, ...], None]:
        parts = self._parts(prepared)
        count = len(prepared.features)

        def score(present: Tensor, *tensors: Any) -> Tensor:
            """Return the scores with the features of the parts that are present."""
            here = present[:, parts] > 0.5
            mixed = [
                torch.where(here, x, b)
                for x, b in zip(
                    tensors[:count], tensors[count : 2 * count], strict=True
                )
            ]
            found: Tensor = prepared.function(*mixed, *tensors[2 * count :])
            return found

        first = prepared.features[0]
        with torch.no_grad():
            falls = FeatureAblation(score).attribute(
                first.new_ones(len(first), int(parts.max()) + 1),
                baselines=0.0,
                target=target,
                additional_forward_args=(
                    *prepared.features,
                    *prepared.baselines,
                    *prepared.arguments,
                ),
                perturbations_per_eval=max(1, _ROWS // prepared.examples),
            )
        if prepared.of_identifiers:
            assert prepared.replaced is not None
            return (torch.where(prepared.replaced, falls, 0)[..., None],), None
        whole = parts.expand(first.shape[1:])
        shares = falls / torch.bincount(whole.flatten())
        return (shares[:, whole],), None

    def _parts(self, prepared: Prepared) -> Tensor:
        """Return the number of the part of each feature, to be broadcast."""
        shape, device = prepared.features[0].shape, prepared.features[0].device
        if prepared.of_sound:
            return sound_numbers(prepared.features[0], self.patch_size)
        if prepared.of_identifiers or prepared.tokens is not None or len(shape) == 3:
            return torch.arange(shape[1], device=device)[:, None]
        if len(shape) != 4:
            raise InputError(
                f"Occlusion takes token identifiers, embeddings (batch, tokens, width) "
                f"or pixels (batch, channels, height, width), got {tuple(shape)}; use "
                "captum.attr.FeatureAblation with a feature_mask of your own"
            )
        return patch_numbers(prepared.features[0], self.patch_size)[None]


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
        self.n_samples = _at_least_one(n_samples, "n_samples")
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
            for x in prepared.features:
                drawn = torch.zeros_like(x)
                for row, generator in enumerate(generators):
                    real = (
                        torch.ones(x.shape[1], dtype=torch.bool, device=x.device)
                        if prepared.tokens is None
                        else prepared.tokens[row]
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
            for x, b, n in zip(
                prepared.features, prepared.baselines, noise, strict=True
            ):
                if prepared.replaced is not None:  # the others stay what they are
                    n = torch.where(prepared.replaced[..., None], n, 0)
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


def _at_least_one(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"expected {name} to be an integer of at least 1, got {value}")
    return value
