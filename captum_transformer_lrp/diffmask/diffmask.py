"""DiffMask as a Captum attributor."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from .._captum import PerturbationAttribution, log_usage
from .._named import Named
from ..description import Description
from ..errors import InputError, NotFittedError, UnknownNameError, suggestion
from ..models.discovery import StatePlace, find_hidden_states, with_layouts
from .batches import Batches
from .calibration import (
    MARGIN,
    check_margin,
    default_margin,
    everything_masked,
    measure,
    one_epoch,
    open_until_within,
)
from .divergence import Divergence, divergence_for, outputs_of
from .gates import Gates, Mode
from .history import GIVEN, TRAINING, VALIDATION, History, Report, StateReport
from .masked import MaskedModel, Original
from .masking import Masking
from .per_example import ExampleMasks, search
from .recipes import Recipe, recipe_for
from .training import Training, Workers

Baseline = Literal["learned", "mean", "zero", "mask"]
_BASELINES = ("learned", "mean", "zero", "mask")


class DiffMask(Named, PerturbationAttribution):
    r"""Differentiable masking: which tokens a prediction needs, layer by layer.

    Small networks look at a hidden state and predict which of its tokens can be
    replaced by a baseline without changing the prediction by more than a margin; they
    are trained once for a model and then explain any input in one forward pass, without
    having seen the prediction (De Cao, Schlichtkrull, Aziz, Titov 2020, "How do
    Decisions Emerge across Layers in Neural Models?", arXiv 2004.14992).

    In ``"hidden"`` mode each state is masked by itself, and attributions say where in
    the network a token's information is still needed. In ``"input"`` mode the first
    state is masked by what a prefix of the states allows to know, and attributions say
    which words matter; they can only fall from state to state.

    Args:
        forward_func (Callable): the model, or any function of it. It is never wrapped
            or changed; it runs in evaluation mode.
        layers (sequence of Module or str, optional): modules, or their names, whose
            outputs are the hidden states, shape ``(batch, tokens, width)``. Default:
            the embedding of the tokens, the input of each block and the output of the
            last, found by running the model once
        mode (str, optional): ``"hidden"`` or ``"input"``. Default: ``"hidden"``
        divergence (str, Divergence or Callable, optional): ``"categorical"``,
            ``"bernoulli"``, ``"gaussian"`` (regression), ``"next-token"``, or a
            function of the original and the masked output that returns one number per
            example.
            Default: next-token for Hugging Face's causal language models, else
            categorical, summed over outputs such as start and end logits
        margin (float, optional): what the divergence may be on average, in nats.
            Default: 3 % of what masking everything costs
        baseline (str, Tensor or list of Tensor, optional): what replaces a token:
            ``"learned"``, starting from the mean or the mask token; ``"mean"`` (of the
            state), ``"zero"``, ``"mask"`` (the embedding of ``mask_token_id``), or
            vectors of the state's width (one, or one for each state), which stay as
            they are. Default: ``"learned"``, but in input mode of the fast recipe
            ``"mask"`` or, without ``mask_token_id``, ``"mean"``: the baseline of an
            embedding may learn to be a word, which is then dropped for free
        recipe (str or Recipe, optional): ``"fast"``, or ``"paper"``, the authors' own
            (needs timm). Default: ``"fast"``
        mask_token_id (int, optional): the identifier whose embedding is the baseline,
            or the first one, in input mode. Default: None
        never_mask (sequence of int, optional): identifiers of tokens that are always
            kept, such as ``tokenizer.all_special_ids``; the paper masks all. Default:
            none
        token_mask (Callable, optional): takes the inputs and returns 1 for tokens and 0
            for padding, shape ``(batch, tokens)``. Default: ``attention_mask`` of a
            mapping, else no padding

    Raises:
        TypeError: if ``forward_func`` or a layer is not what is expected.
        UnknownNameError: for an unknown mode, recipe, baseline or layer.

    Examples::

        >>> mask = DiffMask(model)
        >>> print(mask.fit(loader))  # a loader of what the tokenizer returns
        >>> kept = mask.attribute(tokenizer(text, return_tensors="pt"))
        >>> kept.shape  # P(kept) for each hidden state and token
        torch.Size([1, 8, 12])
    """

    name: ClassVar[str] = "DiffMask"
    description = Description(grain="part", takes="mapping", needs=("training",))

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layers: Sequence[nn.Module | str] | None = None,
        mode: Mode = "hidden",
        *,
        divergence: str | Divergence | Callable[..., Tensor] | None = None,
        margin: float | None = None,
        baseline: Baseline | Tensor | Sequence[Tensor] | None = None,
        recipe: str | Recipe = "fast",
        mask_token_id: int | None = None,
        never_mask: Sequence[int] = (),
        token_mask: Callable[[Any], Tensor] | None = None,
    ) -> None:
        if not callable(forward_func):
            raise TypeError(
                f"forward_func is a {type(forward_func).__name__}; expected a model or "
                "a function."
            )
        PerturbationAttribution.__init__(self, forward_func)
        if mode not in ("hidden", "input"):
            raise UnknownNameError(f"mode={mode!r}; expected 'hidden' or 'input'.")
        if isinstance(baseline, str) and baseline not in _BASELINES:
            raise UnknownNameError(
                f"there is no baseline {baseline!r}.{suggestion(baseline, _BASELINES)}"
            )
        if margin is not None and not margin > 0:
            raise ValueError(f"margin={margin}; expected more than 0 nats.")
        self.mode: Mode = mode
        self.recipe = recipe_for(recipe)
        self.divergence = divergence
        self.margin = margin
        given: str | Tensor | Sequence[Tensor] = "learned"
        if baseline is not None:
            given = baseline
        elif mode == "input" and not self.recipe.learn_input_baseline:
            given = "mean" if mask_token_id is None else "mask"
        if isinstance(given, str) and given == "mask" and mask_token_id is None:
            raise TypeError('baseline="mask" needs mask_token_id=, the identifier.')
        self.baseline = given
        self.mask_token_id = mask_token_id
        self.gates: Gates | None = None
        self.history: History | None = None
        #: divergence of each state with all its tokens replaced, in nats
        self.everything_masked: list[float] = []
        self._fitted: Divergence | None = None
        self._token_mask = token_mask
        self.never_mask = tuple(int(i) for i in never_mask)
        self.places: tuple[StatePlace, ...] | None = (
            None if layers is None else _places_of(forward_func, layers)
        )
        self._named = layers is not None
        if self.places is None and not isinstance(forward_func, nn.Module):
            raise TypeError(
                "forward_func is a function, in which hidden states cannot be found. "
                "Name the modules whose outputs they are: layers=[...]."
            )

    # ------------------------------------------------------------------- contract

    @property
    def multiplies_by_inputs(self) -> bool:
        """False: attributions are probabilities."""
        return False

    # ---------------------------------------------------------------------- states

    @property
    def states(self) -> tuple[str, ...]:
        """The hidden states, in order, once they are known."""
        return () if self.places is None else tuple(map(str, self.places))

    @property
    def fitted(self) -> bool:
        """Whether masks have been trained or loaded."""
        return self.gates is not None and self._fitted is not None

    @property
    def modules(self) -> list[nn.Module]:
        """The model, or the modules whose outputs are masked."""
        return self._model().modules

    def set_trained(
        self,
        gates: Gates,
        divergence: Divergence,
        everything_masked: list[float],
        history: History,
    ) -> None:
        """Take over gates that were trained before."""
        self.gates, self._fitted, self.history = gates, divergence, history
        self.everything_masked = everything_masked

    def _model(self) -> MaskedModel:
        assert self.places is not None
        return MaskedModel(
            self.forward_func, self.places, self._token_mask, self.never_mask
        )

    def _find_states(self, inputs: Any, additional_forward_args: Any = None) -> None:
        """Find the hidden states, or how modules that the user named keep them."""
        if self.fitted:
            return
        model = MaskedModel(self.forward_func, self.places or ())
        with model.frozen():
            batch = model.prepare(inputs, additional_forward_args)

            def run() -> Any:
                return batch.run(self.forward_func)

            if self.places is None:
                self.places = find_hidden_states(self.forward_func, run, batch.examples)
            elif self._named:
                self.places = with_layouts(self.places, run, batch.examples)

    def _index(self, layer: int | str | nn.Module) -> int:
        """Return the number of a state."""
        assert self.places is not None
        if isinstance(layer, (str, nn.Module)):
            for i, place in enumerate(self.places):
                if layer is place.module or layer in (place.name, str(place)):
                    return i
            name = layer if isinstance(layer, str) else type(layer).__name__
            raise UnknownNameError(
                f"there is no hidden state {name!r}.{suggestion(name, self.states)}"
            )
        count = len(self.places)
        if not -count <= layer < count:
            raise UnknownNameError(
                f"layer={layer}; the hidden states are 0 to {count - 1}: "
                f"{', '.join(self.states)}."
            )
        return layer % count

    # ------------------------------------------------------------------------- fit

    def fit(
        self,
        dataloader: Iterable[Any],
        *,
        steps: int | None = None,
        epochs: int | None = None,
        validation: Iterable[Any] | None = None,
        seed: int = 0,
        patience: int | None = 5,
        record_every: int = 50,
        checkpoint: str | Path | None = None,
        checkpoint_every: int = 200,
        resume: bool = True,
        accelerator: Workers | None = None,
        progress: bool = True,
    ) -> History:
        r"""Train the masks on the model's own predictions; labels are not used.

        Args:
            dataloader (iterable): of batches, a list or a ``DataLoader``: tensors or
                tuples of tensors, passed to the model by position, or mappings such as
                a tokenizer returns, passed by keyword without their labels.
            steps (int, optional): optimiser steps. Default: the recipe's
            epochs (int, optional): passes over the data, instead of steps.
            validation (iterable, optional): what the final report is made on. Default:
                the first 512 examples of the data
            seed (int, optional): of the first weights, the order of the data (a
                ``DataLoader`` that shuffles, too) and all draws; torch's generators are
                put back where a draw takes no other, so that what other threads draw
                meanwhile is drawn again. Default: 0
            patience (int, optional): stop when the kept fraction of no state has
                changed for so many records, all are within the margin, and the bound
                of the logits has grown to the end. None makes all steps. Default: 5
            record_every (int, optional): steps between records. Default: 50
            checkpoint (str or Path, optional): a file to which the state of the
                training is written; if it is there, the training goes on from it.
                Default: None
            checkpoint_every (int, optional): steps between writings. Default: 200
            resume (bool, optional): False starts anew over a checkpoint. Default: True
            accelerator (accelerate.Accelerator, optional): several processes or mixed
                precision; each process takes every so many batches, and all get the
                same masks. The model is not to be prepared by it. Default: None
            progress (bool, optional): show a bar. Default: True

        Returns:
            *History*: records, and a report of divergence, kept tokens and agreement
            for each state; it prints as a table.

        Raises:
            InputError: if the data cannot be read, states are not what is expected, all
                predictions stay within the margin with everything masked, or a
                checkpoint is of another training.
        """
        if steps is not None and epochs is not None:
            raise TypeError("steps and epochs are both given; expected one of them.")
        _check_processes(accelerator, dataloader)
        loader = dataloader
        self._find_states(_first(loader))
        model = self._model()
        with model.frozen(), torch.enable_grad():
            moments = measure(model, loader, seed, self.divergence)
            gates = self._new_gates([len(m) for m in moments.mean], seed, model)
            self._start(gates, moments.mean, moments.scale, model)
            masking = Masking(model, gates, moments.divergence)
            everything = everything_masked(masking, loader, seed)
            margin = default_margin(everything) if self.margin is None else self.margin
            check_margin(margin, everything, list(self.states))
            processes = 1 if accelerator is None else accelerator.num_processes
            training = Training(
                model,
                gates,
                moments.divergence,
                margin,
                self.recipe,
                steps=self._steps(loader, steps, epochs, processes),
                seed=seed,
                workers=accelerator,
            )
            path = None if checkpoint is None else Path(checkpoint)
            if path is not None and resume and path.exists():
                training.resume(path)
            main = accelerator is None or accelerator.is_main_process
            if not training.history.stopped:
                with _bar(training, show=progress and main) as advance:
                    training.run(
                        loader,
                        patience=patience,
                        record_every=record_every,
                        checkpoint=path,
                        checkpoint_every=checkpoint_every,
                        progress=advance,
                    )
            self.margin = training.margin
            if self.recipe.settle is not None:
                limit = self.recipe.settle * self.margin
                open_until_within(masking, loader, seed, limit)
            self.set_trained(
                gates.requires_grad_(False),
                moments.divergence,
                everything,
                training.history,
            )
        training.history.report = self.evaluate(
            loader if validation is None else validation,
            examples=512 if validation is None else None,
            seed=seed,
            data=TRAINING if validation is None else VALIDATION,
        )
        return training.history

    def _steps(
        self, loader: Any, steps: int | None, epochs: int | None, processes: int
    ) -> int:
        if epochs is not None:
            if not hasattr(loader, "__len__"):
                raise TypeError(
                    f"epochs={epochs}, and the data is a {type(loader).__name__} of "
                    "unknown length. Pass steps=."
                )
            steps = epochs * max(len(loader) // processes, 1)
        steps = self.recipe.steps if steps is None else steps
        if steps < 1:
            raise ValueError(f"steps={steps}; expected at least 1.")
        return steps

    def _new_gates(self, widths: list[int], seed: int, model: MaskedModel) -> Gates:
        trained = isinstance(self.baseline, str) and self.baseline == "learned"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            gates = Gates(widths, self.mode, self.recipe, train_baseline=trained)
        parameter = next((p for m in model.modules for p in m.parameters()), None)
        return gates if parameter is None else gates.to(parameter.device)

    def _start(
        self, gates: Gates, mean: list[Tensor], scale: list[Tensor], model: MaskedModel
    ) -> None:
        """Write the measured moments and the first baselines into the gates."""
        for i in range(len(mean)):
            if self.recipe.standardize:
                gates.get_buffer(f"mean_{i}").copy_(mean[i])
                gates.get_buffer(f"scale_{i}").copy_(scale[i])
            if i >= len(gates.shifts):
                continue
            start = gates.get_buffer(f"start_{i}")
            if not isinstance(self.baseline, str):
                start.copy_(self._fixed(i, len(gates.shifts), gates.widths[i]))
            elif self.baseline != "zero":
                start.copy_(mean[i])
        named = isinstance(self.baseline, str) and self.baseline in ("learned", "mask")
        if self.mask_token_id is not None and named:
            place = model.places[0]
            if self.mode != "input" or not isinstance(place.module, nn.Embedding):
                raise InputError(
                    f"mask_token_id={self.mask_token_id} is for mode='input' with an "
                    f"embedding as the first state, which is {place}."
                )
            row = torch.tensor([[self.mask_token_id]], device=gates.bound.device)
            with torch.no_grad():
                gates.get_buffer("start_0").copy_(place.module(row)[0, 0])

    def _fixed(self, index: int, count: int, width: int) -> Tensor:
        """Return the baseline that the user gave for a state."""
        given: Any = self.baseline
        vectors = [given] * count if isinstance(given, Tensor) else list(given)
        if len(vectors) != count or tuple(vectors[index].shape) != (width,):
            shapes = [tuple(v.shape) for v in vectors]
            raise InputError(
                f"baseline has the shapes {shapes}; expected {count} vector(s), and "
                f"({width},) for {self.states[index]}."
            )
        vector: Tensor = vectors[index]
        return vector

    # ------------------------------------------------------------------- attribute

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: Any,
        layer: int | str | nn.Module | None = None,
        additional_forward_args: Any = None,
    ) -> Tensor:
        r"""Return the probability that each token is kept.

        One forward pass; nothing is sampled, and the prediction is not looked at.

        Args:
            inputs (Tensor, tuple of Tensor, or Mapping): as the batches of :meth:`fit`.
            layer (int, str or Module, optional): one hidden state, by number (negative
                from the end), name or module. Default: None, all
            additional_forward_args (Any, optional): further positional arguments.

        Returns:
            *Tensor* of **attributions** in [0, 1], shape ``(batch, tokens)`` for one
            state, ``(batch, states, tokens)`` for all, float32; in input mode the
            probability that no state up to this one drops the token. Padding is exactly
            0, and so are tokens after the last chosen position of a language model;
            what ``never_mask`` names is 1.

        Raises:
            NotFittedError: before :meth:`fit`.
            InputError: if the hidden states have other widths.
        """
        gates, divergence = self.trained()
        index = None if layer is None else self._index(layer)
        model = self._model()
        with model.frozen(), torch.no_grad():
            batch = model.prepare(inputs, additional_forward_args)
            original = model.original(batch, divergence)
            kept = self._kept(gates, original, divergence)
        return kept if index is None else kept[:, index]

    def trained(self) -> tuple[Gates, Divergence]:
        """Return the gates and the divergence that they were trained with.

        Raises:
            NotFittedError: before :meth:`fit`.
        """
        if self.gates is None or self._fitted is None:
            raise NotFittedError(
                "these masks are not trained. Call fit(dataloader) first, load masks "
                "with DiffMask.load(folder, model), or use attribute_per_example, "
                "which needs no training."
            )
        return self.gates, self._fitted

    def _kept(self, gates: Gates, original: Original, divergence: Divergence) -> Tensor:
        """Return P(kept), shape ``(batch, states, tokens)``."""
        states = original.states
        for i, (state, width) in enumerate(zip(states, gates.widths, strict=True)):
            if state.shape[-1] != width:
                raise InputError(
                    f"the hidden state {self.states[i]} has width {state.shape[-1]}; "
                    f"the masks were trained for {width}."
                )
        log = torch.stack(
            [
                gates.gate(gates.logits(i, x, states[0])).log_probability_nonzero()
                for i, x in enumerate(states)
            ],
            1,
        )
        if self.mode == "input":
            log = log.cumsum(1)
        counted = divergence.counted(original.tokens, original.batch.given)[:, None]
        kept = torch.where(original.free[:, None], log.exp(), 1)
        return torch.where(counted, kept, 0)

    def attribute_per_example(
        self,
        inputs: Any,
        layer: int | str | nn.Module | None = None,
        additional_forward_args: Any = None,
        *,
        steps: int = 300,
        seed: int = 0,
        return_divergence: bool = False,
    ) -> Any:
        r"""Search masks for these examples alone, without training.

        Free logits instead of networks, for each example and state. Such masks have the
        benefit of hindsight: they may drop everything but the one token that happens to
        keep this prediction, whatever the model makes of it, and so say what would be
        enough, not what the model uses (arXiv 2004.14992, Section 3.2). Judge them by
        their divergence and how much they keep, and not by what is plausible.

        Args:
            inputs (Tensor, tuple of Tensor, or Mapping): as for :meth:`attribute`.
            layer (int, str or Module, optional): one hidden state. Default: None, all
            additional_forward_args (Any, optional): further positional arguments.
            steps (int, optional): of the search, for each state: forward and backward
                passes. Default: 300
            seed (int, optional): of the noise. Default: 0
            return_divergence (bool, optional): also return the divergence at the end.
                Default: False

        Returns:
            *Tensor* of **attributions**, as of :meth:`attribute`; with
            ``return_divergence`` a pair with the divergences in nats, shape
            ``(batch,)`` or ``(batch, states)``. Tokens are replaced by the trained
            baseline; without training by ``baseline``, where ``"learned"`` means the
            mean of these inputs. The margin is that of the training or of this
            object, else 3 % of what masking all tokens of the example costs. In input
            mode the first state is masked, whichever layer is asked for, so only one
            mask is searched.
        """
        self._find_states(inputs, additional_forward_args)
        model = self._model()
        with model.frozen(), torch.enable_grad():
            batch = model.prepare(inputs, additional_forward_args)
            original = model.original(batch, self._fitted)
            gates, divergence = self.gates, self._fitted
            if gates is None or divergence is None:
                divergence = divergence_for(self.divergence, original.output).calibrate(
                    [outputs_of(original.output)]
                )
                original = model.original(batch, divergence)
                gates = self._untrained(original, seed, model)
            masking = Masking(model, gates, divergence)
            count = len(gates.widths)
            wanted = list(range(count)) if layer is None else [self._index(layer)]
            found: list[ExampleMasks] = []
            for i in wanted:
                if self.mode == "input" and found:
                    found.append(found[0])
                    continue
                margin = self._margins(masking, original, i)
                found.append(
                    search(masking, original, i, margin, steps=steps, seed=seed)
                )
            counted = divergence.counted(original.tokens, original.batch.given)
        kept = torch.stack([torch.where(counted, x.kept, 0) for x in found], 1)
        divergences = torch.stack([x.divergence for x in found], 1)
        if layer is not None:
            kept, divergences = kept[:, 0], divergences[:, 0]
        return (kept, divergences) if return_divergence else kept

    def _untrained(self, original: Original, seed: int, model: MaskedModel) -> Gates:
        """Return gates whose baselines are those of these inputs."""
        rows = [x[original.tokens].double() for x in original.states]
        gates = self._new_gates([x.shape[-1] for x in rows], seed, model)
        mean = [x.mean(0) for x in rows]
        self._start(gates, mean, [torch.ones_like(x) for x in mean], model)
        return gates.requires_grad_(False)

    def _margins(self, masking: Masking, original: Original, layer: int) -> Tensor:
        """Return the margin of each example, in nats, shape ``(batch,)``."""
        examples, device = original.batch.examples, original.tokens.device
        if self.margin is not None:
            return torch.full((examples,), self.margin, device=device)
        z = torch.zeros(original.tokens.shape, device=device)
        with torch.no_grad():
            cost = masking.effect(original, layer, z).divergence
        return (MARGIN * cost.float()).clamp(min=1e-4)

    # -------------------------------------------------------------------- evaluate

    def evaluate(
        self,
        dataloader: Iterable[Any],
        *,
        examples: int | None = None,
        seed: int = 0,
        data: str = GIVEN,
    ) -> Report:
        """Measure the masks: gates are sampled, at one state after the other.

        Args:
            dataloader (iterable): of batches, as for :meth:`fit`.
            examples (int, optional): stop after so many. Default: all
            seed (int, optional): of the samples. Default: 0
            data (str, optional): what the report says that it is made on.
                Default: ``"the data that was given"``

        Returns:
            *Report*: for each state divergence, its 95th percentile, kept fraction,
            agreement of predictions, and whether the divergence is within the margin.

        Raises:
            NotFittedError: before :meth:`fit`.
        """
        gates, divergence = self.trained()
        model, count = self._model(), len(gates.widths)
        masking = Masking(model, gates, divergence)
        assert self.margin is not None
        rows: list[list[tuple[float, float, float]]] = [[] for _ in range(count)]
        generator = torch.Generator().manual_seed(seed)
        seen = 0
        with model.frozen(), torch.no_grad():
            for given in one_epoch(dataloader, seed):
                original = model.original(model.prepare(given), divergence)
                for i, found in enumerate(self._measured(masking, original, generator)):
                    rows[i] += found
                seen += original.batch.examples
                if examples is not None and seen >= examples:
                    break
        if not seen:
            raise InputError("the data holds no batch.")
        reports = []
        for name, found, everything in zip(
            self.states, rows, self.everything_masked, strict=True
        ):
            divergences = torch.tensor([d for d, _, _ in found], dtype=torch.float64)
            reports.append(
                StateReport(
                    name,
                    float(divergences.mean()),
                    float(divergences.quantile(0.95)),
                    statistics.fmean(k for _, k, _ in found),
                    statistics.fmean(a for _, _, a in found),
                    everything,
                    self.margin,
                    len(found),
                )
            )
        return Report(tuple(reports), data)

    def _measured(
        self, masking: Masking, original: Original, generator: torch.Generator
    ) -> list[list[tuple[float, float, float]]]:
        """Return (divergence, kept, agreement) of each example, for each state."""
        gates = masking.gates
        kept = self._kept(gates, original, masking.divergence)
        free = original.free
        part = (kept * free[:, None]).sum(2) / free.sum(1, keepdim=True).clamp(min=1)
        z = torch.ones(())
        found = []
        for i, state in enumerate(original.states):
            noise = torch.rand(state.shape[:2], generator=generator).to(state.device)
            new = gates.gate(gates.logits(i, state, original.states[0])).sample(noise)
            z = new * z if self.mode == "input" and i else new
            effect = masking.effect(original, i, z)
            columns = effect.divergence, part[:, i], effect.agreement
            found.append(list(zip(*(c.tolist() for c in columns), strict=True)))
        return found

    # ----------------------------------------------------------------- persistence

    def save(self, folder: str | Path) -> Path:
        """Write the trained masks: ``masks.safetensors`` and ``diffmask.json``.

        Args:
            folder (str or Path): made if it is not there.

        Returns:
            *Path*: the folder.

        Raises:
            NotFittedError: before :meth:`fit`.
        """
        from .persistence import save

        self.trained()
        return save(self, Path(folder))

    @classmethod
    def load(
        cls,
        folder: str | Path,
        forward_func: Callable[..., Any],
        layers: Sequence[nn.Module | str] | None = None,
        **options: Any,
    ) -> DiffMask:
        """Read trained masks for a model.

        Args:
            folder (str or Path): written by :meth:`save`.
            forward_func (Callable): the model that they were trained for.
            layers (sequence, optional): the same modules as in training, needed if the
                forward function is not a module. Default: found by their names
            options (Any): ``token_mask``, and ``divergence`` if it was a function.

        Raises:
            InputError: if the folder holds no masks, or the model is another one; the
                message says what differs.
        """
        from .persistence import load

        return load(cls, Path(folder), forward_func, layers, options)


def _places_of(
    forward_func: Any, layers: Sequence[nn.Module | str]
) -> tuple[StatePlace, ...]:
    """Return the outputs of modules, given themselves or by name."""
    if isinstance(layers, (str, nn.Module)) or not layers:
        raise TypeError(
            f"layers={layers!r}; expected a list of modules or of their names."
        )
    root = forward_func if isinstance(forward_func, nn.Module) else None
    named = {} if root is None else dict(root.named_modules())
    names = {id(module): name for name, module in named.items()}
    places = []
    for number, layer in enumerate(layers):
        if isinstance(layer, str):
            if layer not in named:
                raise UnknownNameError(
                    f"there is no module {layer!r}.{suggestion(layer, named)}"
                )
            places.append(StatePlace(layer, "output", named[layer]))
        elif isinstance(layer, nn.Module):
            name = names.get(id(layer)) or f"layers[{number}]"
            places.append(StatePlace(name, "output", layer))
        else:
            raise TypeError(
                f"layers[{number}] is a {type(layer).__name__}; expected a module or "
                "the name of one."
            )
    return tuple(places)


def _first(loader: Iterable[Any]) -> Any:
    """Return the first batch without moving any random generator."""
    return next(iter(Batches(loader, 0)))


def _check_processes(accelerator: Workers | None, loader: Any) -> None:
    several = accelerator is not None and accelerator.num_processes > 1
    if several and getattr(loader, "_is_accelerate_prepared", False):
        raise InputError(
            "the data was prepared by accelerate, so that each process sees a part of "
            "it. Pass the DataLoader as it was before: fit() shares out the batches."
        )
    distributed = torch.distributed
    if accelerator is None and distributed.is_available():
        if distributed.is_initialized() and distributed.get_world_size() > 1:
            raise InputError(
                f"{distributed.get_world_size()} processes are running, and each would "
                "train masks of its own. Pass accelerator=accelerate.Accelerator()."
            )


@contextmanager
def _bar(training: Training, *, show: bool) -> Iterator[Callable[[int, str], None]]:
    """Show the progress of a training; yield what moves it on."""
    from tqdm.auto import tqdm

    made, total = training.history.steps, training.steps
    with tqdm(total=total, initial=made, desc="DiffMask", disable=not show) as bar:

        def advance(steps: int, words: str) -> None:
            bar.set_postfix_str(words, refresh=False)
            bar.update(steps - bar.n)

        yield advance
