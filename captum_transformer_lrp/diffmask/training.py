"""The training of masks: one constrained problem for each hidden state.

Minimise the expected number of kept tokens, subject to divergence <= margin, by a
saddle point of ``multiplier * (divergence - margin) + sparsity`` (De Cao et al. 2020,
arXiv 2004.14992, Eq. 5-6).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer, RMSprop

from .._packages import require
from ..errors import InputError
from .batches import Batches, seeded
from .checkpoint import read_checkpoint, write_checkpoint
from .divergence import Divergence, Outputs
from .fallback import Fallback
from .gates import GateNetwork, Gates
from .history import History
from .masked import MaskedModel, Original
from .recipes import Recipe

_REMEMBERED_EXAMPLES = 200  # in the running mean of a state's divergence
_REMEMBERED = 1 << 26  # numbers of outputs without masks that are kept
_FAR = 2  # times the margin: a divergence that training does not mend by itself
_SAME = 0.002  # a change of the kept fraction that is none
_EVERY = 20  # steps between copies of masks that may be gone back to


class Workers(Protocol):
    """What is used of :class:`accelerate.Accelerator`."""

    num_processes: int
    process_index: int
    is_main_process: bool

    def reduce(self, tensor: Tensor, reduction: str) -> Tensor: ...  # noqa: D102
    def autocast(self) -> AbstractContextManager[Any]: ...  # noqa: D102
    def backward(self, loss: Tensor) -> None: ...  # noqa: D102
    def prepare_optimizer(self, optimizer: Optimizer) -> Any: ...  # noqa: D102


class Training:
    """The state of a training, one step after another.

    Args:
        model (MaskedModel): what is analysed; frozen by the caller.
        gates (Gates): what is trained.
        divergence (Divergence): between outputs.
        margin (float): that the mean divergence may reach, in nats.
        recipe (Recipe): how.
        steps (int): in all.
        seed (int): of the draws.
        workers (Workers, optional): several processes, mixed precision. Default: None
    """

    def __init__(
        self,
        model: MaskedModel,
        gates: Gates,
        divergence: Divergence,
        margin: float,
        recipe: Recipe,
        *,
        steps: int,
        seed: int,
        workers: Workers | None = None,
    ) -> None:
        self.model, self.gates, self.divergence = model, gates, divergence
        self.margin, self.recipe, self.steps, self.seed = margin, recipe, steps, seed
        self.workers = workers
        self.share = (
            (0, 1)
            if workers is None
            else (workers.process_index, workers.num_processes)
        )
        states, device = len(gates.widths), gates.bound.device
        self.multipliers = nn.Parameter(
            torch.full((states,), recipe.multiplier_start, device=device)
        )
        self.running = torch.full((states,), math.nan, device=device)
        self.optimizer = self._optimizer()
        self.fallback = Fallback(gates) if gates.mode == "hidden" else None
        self.history = History()
        self.epoch = self.position = 0
        self._remembered: dict[int, tuple[Any, Original, Outputs]] = {}
        self._memory = 0
        self._recorded = torch.zeros(4, states, device=device)

    # ---------------------------------------------------------------------- loop

    def run(
        self,
        loader: Iterable[Any],
        *,
        patience: int | None,
        record_every: int,
        checkpoint: Path | None,
        checkpoint_every: int,
        progress: Callable[[int, str], None],
    ) -> None:
        """Make the steps that are left, or fewer if nothing changes any more."""
        batches = Batches(
            loader,
            self.seed,
            share=self.share,
            epoch=self.epoch,
            skip=self.position,
        )
        for batch in batches:
            self.epoch, self.position = batches.epoch, batches.position
            self.step(batch, remember=isinstance(loader, Sequence))
            made = self.history.steps
            if made % record_every == 0 or made == self.steps:
                progress(made, self._record())
                if made < self.steps and self._unchanged(patience):
                    self.history.stopped = "early, the masks no longer changed"
            if made == self.steps:
                self.history.stopped = "all steps made"
            ended = bool(self.history.stopped)
            if checkpoint is not None and (ended or made % checkpoint_every == 0):
                self.save(checkpoint)
            if ended:
                return

    def step(self, inputs: Any, *, remember: bool = False) -> None:
        """Make one step on one batch.

        Args:
            inputs (Any): the batch.
            remember (bool): the same object will come again.
        """
        number = self.history.steps
        recipe, gates = self.recipe, self.gates
        gates.bound.fill_(recipe.bound_at(number / self.steps))
        self._set_rates(recipe.rate_at(number, self.steps))
        with self._autocast():
            original, compared = self._original(inputs, remember)
            layers = self._draw_layers(original.batch.examples)
            noise = self._noise(original, len(gates.widths)).to(layers.device)
            if gates.mode == "input":
                output, log_kept = self._masked_input(original, layers, noise)
            else:
                output, log_kept = self._masked_states(original, layers, noise[0])
        masked = self.model.outputs(output, original, self.divergence)
        divergence = self.divergence(compared, masked, original.tokens)
        kept = _mean_over(log_kept.exp(), original.free)
        sparsity = self._sparsity(log_kept, kept, original.free)
        with torch.no_grad():
            agreement = self.divergence.agreement(compared, masked, original.tokens)
            sums = self._sums(layers, divergence, kept, agreement)
        weight = self._weights(sums[1] / sums[0].clamp(min=1))[layers]
        loss = weight * (divergence - self.margin) + sparsity
        if recipe.normalize:
            loss = loss / (1 + weight)
        if recipe.restoration:
            closed = -_mean_over(log_kept, original.free)
            loss = loss + self._restoration()[layers] * closed
        self._descend(loss.mean())
        with torch.no_grad():
            self._ascend(sums)
        self.history.steps += 1

    def _original(self, inputs: Any, remember: bool) -> tuple[Original, Outputs]:
        """Run the model as it is, once for a batch that comes again in hidden mode."""
        known = self._remembered.get(id(inputs))
        if known is not None:
            return known[1:]
        batch = self.model.prepare(inputs)
        original = self.model.original(batch, self.divergence)
        compared = self.model.outputs(original.output, original, self.divergence)
        size = sum(x.numel() for x in compared.values())
        if (
            remember
            and self.gates.mode == "hidden"
            and self._memory + size <= _REMEMBERED
        ):
            self._memory += size
            rest = replace(original, output=None, states=[])
            self._remembered[id(inputs)] = (inputs, rest, compared)
        return original, compared

    def _masked_states(
        self, original: Original, layers: Tensor, noise: Tensor
    ) -> tuple[Any, Tensor]:
        """Mask the state of each example; return the output, and log P(kept).

        The gates look at the state when the model comes to it: below, nothing has been
        changed in this example.
        """
        gates = self.gates
        found: list[tuple[Tensor, Tensor]] = []

        def mask(position: int, rows: Tensor, state: Tensor) -> Tensor:
            gate = gates.gate(gates.logits(position, state.detach()))
            found.append((rows, gate.log_probability_nonzero()))
            return gate.sample(noise[rows])

        output = self.model.masked(original, gates, layers, mask)
        log_kept = torch.zeros(original.tokens.shape, device=layers.device)
        for rows, log in found:
            log_kept = log_kept.index_copy(0, rows, log)
        return output, log_kept

    def _masked_input(
        self, original: Original, layers: Tensor, noise: Tensor
    ) -> tuple[Any, Tensor]:
        """Mask the first state by what the states up to that of each example say."""
        gates, states = self.gates, original.states
        last = int(layers.max()) + 1
        gate = gates.gate(
            torch.stack([gates.logits(i, states[i], states[0]) for i in range(last)])
        )
        row = torch.arange(len(layers), device=layers.device)
        z = gate.sample(noise[:last]).cumprod(0)[layers, row]
        log_kept = gate.log_probability_nonzero().cumsum(0)[layers, row]
        output = self.model.masked(original, gates, layers, lambda _, rows, __: z[rows])
        return output, log_kept

    def _sparsity(self, log_kept: Tensor, kept: Tensor, free: Tensor) -> Tensor:
        """Return what is minimised, for each example."""
        if self.recipe.sparsity == "log-probability":
            return _mean_over(log_kept, free)
        share = self.recipe.sparsity_at(self.history.steps / self.steps)
        if share == 1:
            return kept
        dropped = -torch.expm1(log_kept.clamp(max=-1e-6))
        return share * kept - (1 - share) * _mean_over(dropped.log(), free)

    def _weights(self, present: Tensor) -> Tensor:
        """Return the weight of the divergence of each state.

        Args:
            present (Tensor): the mean divergence of each state in this step.
        """
        weights = self.multipliers.detach()
        if self.recipe.proportional:
            # what is larger counts: the running mean of few examples a step is late
            known = torch.where(self.running.isnan(), math.inf, self.running)
            mean = torch.maximum(known, present.nan_to_num(math.inf))
            weights = weights * (mean / (self.recipe.aim * self.margin)).clamp(0, 1)
        return weights

    def _restoration(self) -> Tensor:
        """Return how strongly the gates of each state are opened again.

        Where the divergence is far beyond the margin, it is where gates are closed
        nearly always, and these get no gradient of it.
        """
        if self.history.steps < self.recipe.restoration_from * self.steps:
            return torch.zeros_like(self.running)
        excess = (self.running / self.margin - _FAR).nan_to_num(0.0)
        return self.recipe.restoration * excess.clamp(0, 1)

    # ------------------------------------------------------------------- draws

    def _draw_layers(self, examples: int) -> Tensor:
        """Return the state that each example trains, the same draw in all processes."""
        states, device = len(self.gates.widths), self.multipliers.device
        number, (mine, count) = self.history.steps, self.share
        if self.recipe.states_per_step == "one":
            drawn = torch.randint(states, (1,), generator=seeded(self.seed, 1, number))
            return drawn.expand(examples).to(device)
        # shuffled decks of all states, dealt to example after example
        first = (number * count + mine) * examples
        decks = {}
        layers = []
        for i in range(first, first + examples):
            deck = i // states
            if deck not in decks:
                generator = seeded(self.seed, 1, deck)
                decks[deck] = torch.randperm(states, generator=generator)
            layers.append(int(decks[deck][i % states]))
        return torch.tensor(layers, device=device)

    def _noise(self, original: Original, states: int) -> Tensor:
        """Return uniform noise of shape (states, batch, tokens).

        It is drawn on the CPU with tokens first, so that a shorter batch, or the part
        of one process, gets the same noise for its examples.
        """
        examples, tokens = original.tokens.shape
        mine, count = self.share
        many = states if self.gates.mode == "input" else 1
        noise = torch.rand(
            tokens,
            count * examples,
            many,
            generator=seeded(self.seed, 2, self.history.steps),
        )
        return noise[:, mine * examples : (mine + 1) * examples].permute(2, 1, 0)

    # --------------------------------------------------------------- optimisers

    def _optimizer(self) -> Any:
        recipe, gates = self.recipe, self.gates
        groups = [
            {
                "params": list(network.parameters()),
                "rate": recipe.gate_rate_for(network.first.in_features),
            }
            for network in gates.networks
            if isinstance(network, GateNetwork)
        ]
        groups += [
            {
                "params": [p for p in gates.shifts if p.requires_grad],
                "rate": recipe.baseline_rate,
            },
        ]
        if recipe.multiplier_update == "ascent":
            groups.append(
                {"params": [self.multipliers], "rate": recipe.multiplier_rate}
            )
        groups = [group for group in groups if group["params"]]
        optimizer: Any
        if recipe.optimizer == "adam":
            optimizer = Adam(groups, betas=recipe.betas)
        else:
            lookahead = require("timm.optim").Lookahead
            optimizer = lookahead(RMSprop(groups), alpha=0.5, k=5)
        return (
            optimizer
            if self.workers is None
            else self.workers.prepare_optimizer(optimizer)
        )

    def _set_rates(self, share: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * share

    def _autocast(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.workers is None else self.workers.autocast()

    def _descend(self, loss: Tensor) -> None:
        """Move gates and baselines; leave a step out whose gradient is not finite."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.workers is None:
            loss.backward()
        else:
            self.workers.backward(loss)
        parameters = [p for p in self.gates.parameters() if p.requires_grad]
        for p in parameters:
            if p.grad is None and (self.recipe.states_per_step == "all"):
                p.grad = torch.zeros_like(p)
        mine = [p for p in parameters if p.grad is not None]
        grads = [p.grad for p in mine if p.grad is not None]
        if self.workers is not None and self.share[1] > 1:
            flat = torch.cat([g.flatten() for g in grads])
            flat = self.workers.reduce(flat, "mean")
            for g, part in zip(
                grads, flat.split([g.numel() for g in grads]), strict=True
            ):
                g.copy_(part.reshape(g.shape))
        scaler = getattr(self.workers, "scaler", None)
        if scaler is not None:
            scaler.unscale_(getattr(self.optimizer, "optimizer", self.optimizer))
        norm = nn.utils.get_total_norm(grads)
        if not torch.isfinite(norm):
            self.history.skipped += 1
            self.optimizer.zero_grad(set_to_none=True)
            if scaler is not None:
                scaler.update()
            self._moved = False
            return
        if self.recipe.clip is not None:
            nn.utils.clip_grads_with_norm_(mine, self.recipe.clip, norm)
        self._moved = True

    def _sums(
        self, layers: Tensor, divergence: Tensor, kept: Tensor, agreement: Tensor
    ) -> Tensor:
        """Return how many examples each state had in all processes, and their sums."""
        states = len(self.multipliers)
        rows = torch.stack([torch.ones_like(kept), divergence.float(), kept, agreement])
        sums = torch.zeros(4, states, device=rows.device).index_add_(1, layers, rows)
        return sums if self.workers is None else self.workers.reduce(sums, "sum")

    def _ascend(self, sums: Tensor) -> None:
        """Move the multipliers along the violation of the margin."""
        if not self._moved or not torch.isfinite(sums).all():
            return
        self._recorded += sums
        seen = sums[0] > 0
        mean = sums[1] / sums[0].clamp(min=1)
        recipe = self.recipe
        if recipe.multiplier_update == "ascent":
            violation = torch.where(seen, mean - self.margin, 0)
            self.multipliers.grad = -violation * sums[0] / sums[0].sum()
            self.optimizer.step()
        else:
            self.optimizer.step()
            old = torch.where(self.running.isnan(), mean, self.running)
            known = _REMEMBERED_EXAMPLES / (_REMEMBERED_EXAMPLES + sums[0])
            new = known * old + (1 - known) * mean
            self.running = torch.where(seen, new, self.running)
            aim = recipe.aim * self.margin
            change = ((self.running - aim) / aim).clamp(-1, 2) * recipe.multiplier_rate
            self.multipliers.data *= torch.where(seen, change, 0).exp()
            self._guard()
        self.multipliers.data.clamp_(*recipe.multiplier_range)

    def _guard(self) -> None:
        """Remember the masks of states within the margin; take back what went wrong."""
        recipe, number = self.recipe, self.history.steps
        if self.fallback is None or recipe.fall_back is None:
            return
        if number < recipe.sparsity_anneal[1] * self.steps:
            return
        for state, mean in enumerate(self.running.tolist()):
            if mean <= recipe.aim * self.margin:
                if number % _EVERY == 0:
                    self.fallback.remember(state)
            elif mean > recipe.fall_back * self.margin:
                if self.fallback.go_back(state, self.optimizer):
                    self.running[state] = self.margin
                    self.multipliers.data[state] *= 2

    # ------------------------------------------------------------------ records

    def _record(self) -> str:
        """Write down the averages since the last record; return them in a few words."""
        count, divergence, kept, agreement = self._recorded.cpu()
        seen = count > 0
        total = count.clamp(min=1)
        rows = (divergence / total, kept / total, agreement / total)
        multipliers = self.multipliers.detach().cpu()
        for i, place in enumerate(self.model.places):
            if seen[i]:
                self.history.records.append(
                    {
                        "step": self.history.steps,
                        "state": str(place),
                        "divergence": float(rows[0][i]),
                        "kept": float(rows[1][i]),
                        "multiplier": float(multipliers[i]),
                        "agreement": float(rows[2][i]),
                    }
                )
        self._recorded.zero_()
        if not seen.any():
            return ""
        worst = float(rows[0][seen].max())
        return (
            f"kept {float(rows[1][seen].mean()):.2f}, "
            f"divergence {worst:.3f} at most (margin {self.margin:.3f})"
        )

    def _unchanged(self, patience: int | None) -> bool:
        """Whether the last records of all states are within the margin and the same."""
        progress = self.history.steps / self.steps
        if patience is None or progress <= self.recipe.anneal[1]:
            return False
        for place in self.model.places:
            last = self.history.of(str(place))[-patience - 1 :]
            if len(last) <= patience:
                return False
            kept = [r["kept"] for r in last]
            divergence = sum(r["divergence"] for r in last) / len(last)
            if divergence > self.margin or max(kept) - min(kept) > _SAME:
                return False
        return True

    # --------------------------------------------------------------- checkpoints

    def save(self, path: Path) -> None:
        """Write all that a resumed training needs, in one step."""
        if self.workers is not None and not self.workers.is_main_process:
            return
        tensors = {f"gates.{k}": v for k, v in self.gates.state_dict().items()}
        tensors["multipliers"] = self.multipliers.detach()
        tensors["running"] = self.running
        tensors["recorded"] = self._recorded
        if self.fallback is not None:
            copies = self.fallback.tensors()
            tensors |= {f"fallback.{k}": v for k, v in copies.items()}
        write_checkpoint(
            path,
            tensors,
            self.optimizer.state_dict(),
            {
                "plan": self.plan(),
                "margin": self.margin,
                "epoch": self.epoch,
                "position": self.position,
                "steps": self.history.steps,
                "skipped": self.history.skipped,
                "stopped": self.history.stopped,
                "records": self.history.records,
            },
        )

    def resume(self, path: Path) -> None:
        """Take up a training where a checkpoint left it.

        Raises:
            InputError: if it is of another training.
        """
        tensors, optimizer, found = read_checkpoint(path)
        plan = self.plan()
        differ = [k for k in plan if found["plan"].get(k) != plan[k]]
        if differ:
            says = ", ".join(
                f"{k}: {found['plan'].get(k)!r} there, {plan[k]!r} here" for k in differ
            )
            raise InputError(
                f"the checkpoint {path.name} is of another training ({says}). Ask for "
                "the same, or name another checkpoint, or write resume=False."
            )
        if not math.isclose(found["margin"], self.margin, rel_tol=0.01):
            raise InputError(
                f"the checkpoint {path.name} was trained for a margin of "
                f"{found['margin']:.4g} nats, not {self.margin:.4g}. Pass margin="
                f"{found['margin']:.4g}, or write resume=False."
            )
        self.margin = found["margin"]
        gates = {k[6:]: v for k, v in tensors.items() if k.startswith("gates.")}
        self.gates.load_state_dict(gates)
        device = self.multipliers.device
        self.multipliers.data.copy_(tensors["multipliers"])
        self.running = tensors["running"].to(device)
        self._recorded = tensors["recorded"].to(device)
        if self.fallback is not None:
            copies = {k[9:]: v for k, v in tensors.items() if k.startswith("fallback.")}
            self.fallback.load(copies)
        self.optimizer.load_state_dict(optimizer)
        self.epoch, self.position = found["epoch"], found["position"]
        self.history.steps, self.history.skipped = found["steps"], found["skipped"]
        self.history.stopped = found["stopped"]
        self.history.records[:] = found["records"]

    def plan(self) -> dict[str, Any]:
        """Return what has to be the same in a resumed training, as JSON holds it."""
        recipe = {
            k: list(v) if isinstance(v, tuple) else v
            for k, v in vars(self.recipe).items()
        }
        return {
            "recipe": recipe,
            "mode": self.gates.mode,
            "states": [str(place) for place in self.model.places],
            "widths": self.gates.widths,
            "steps": self.steps,
            "seed": self.seed,
            "processes": self.share[1],
        }


def _mean_over(values: Tensor, free: Tensor) -> Tensor:
    """Return the mean over the tokens that may be dropped, shape ``(batch,)``."""
    return (values * free).sum(1) / free.sum(1).clamp(min=1)
