"""The toy task of the DiffMask paper: which digits does a counting model need?

Two query digits are followed by 1 to 10 digits; the model says whether the first query
occurs more often than the second (De Cao et al. 2020, arXiv 2004.14992, Section 4.1).
A digit that equals no query says nothing, and the model knows which ones do once it has
compared them: at its two-dimensional state, before the recurrent layer counts. So the
attribution at that state is known: uniform over the digits that equal a query.

    python benchmarks/diffmask_toy.py                 # the table, three seeds
    python benchmarks/diffmask_toy.py --seeds 5 --models 2 --methods hidden

Each number is the divergence of an attribution from that truth, in nats, the mean over
1000 rows less those in which no digit equals a query; lower is better. Every seed
trains a model of its own, unless ``--models`` says how many, and each gets all seeds.
Model KL and agreement (worst) are of predictions from masked states.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from captum_transformer_lrp import AttnLRP, DiffMask, LayerAttnLRP
from captum_transformer_lrp.diffmask import PAPER
from captum_transformer_lrp.errors import LRPError

PADDING = 10
LONGEST = 10
MARGIN = 0.05  # nats, the paper's for this task
STEPS_PER_EPOCH = 71  # 9000 rows in batches of 128


# ------------------------------------------------------------------- task and model


class Counter(nn.Module):
    """Compares each digit with the queries, then counts: embeddings, MLP, GRU."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.query = nn.Embedding(10, width)
        self.digit = nn.Embedding(PADDING + 1, width)
        self.compare = nn.Sequential(
            nn.Linear(3 * width, width), nn.Tanh(), nn.Linear(width, 2)
        )
        self.gru = nn.GRU(2, width, batch_first=True)
        self.classify = nn.Linear(width, 2)

    def forward(self, queries: Tensor, digits: Tensor) -> Tensor:
        """Return logits (rows, 2) of queries (rows, 2) and padded digits (rows, n)."""
        asked = self.query(queries).flatten(1)[:, None]
        x = self.digit(digits)
        state = self.compare(torch.cat([asked.expand(-1, x.shape[1], -1), x], -1))
        return self.count(state, (digits != PADDING).sum(1))

    def count(self, state: Tensor, length: Tensor) -> Tensor:
        """Return logits (rows, 2) of states (rows, n, 2), read after ``length``."""
        hidden = self.gru(state)[0]
        return self.classify(hidden[torch.arange(len(state)), length - 1])

    def count_written_out(self, state: Tensor, length: Tensor) -> Tensor:
        """Return what ``count`` returns, with the GRU in elementary operators."""
        gru = self.gru
        hidden = state.new_zeros(len(state), gru.hidden_size)
        steps = []
        for x in state.unbind(1):
            new = F.linear(x, gru.weight_ih_l0, gru.bias_ih_l0).chunk(3, -1)
            old = F.linear(hidden, gru.weight_hh_l0, gru.bias_hh_l0).chunk(3, -1)
            reset = torch.sigmoid(new[0] + old[0])
            keep = torch.sigmoid(new[1] + old[1])
            proposed = torch.tanh(new[2] + reset * old[2])
            hidden = (1 - keep) * proposed + keep * hidden
            steps.append(hidden)
        stacked = torch.stack(steps, 1)
        return self.classify(stacked[torch.arange(len(state)), length - 1])


@dataclass(frozen=True, eq=False)
class Rows:
    """Queries (rows, 2), padded digits (rows, 10) and labels (rows,)."""

    queries: Tensor
    digits: Tensor
    labels: Tensor

    @property
    def inputs(self) -> tuple[Tensor, Tensor]:
        """What the model takes."""
        return self.queries, self.digits

    @property
    def real(self) -> Tensor:
        """True for digits, False for padding."""
        return self.digits != PADDING

    @property
    def length(self) -> Tensor:
        """How many digits a row has."""
        return self.real.sum(1)

    def equal(self, query: int) -> Tensor:
        """True for the digits that equal the first or the second query."""
        return self.digits == self.queries[:, query, None]

    @property
    def truth(self) -> Tensor:
        """True for the digits that equal a query."""
        return self.equal(0) | self.equal(1)


def make_data(seed: int = 0, rows: int = 10_000) -> tuple[Rows, Rows]:
    """Return the rows to learn from and the rows to measure on, nine to one.

    The order of the draws is that of the authors' code, so that seed 0 gives their very
    rows: numpy draws queries, then digits; torch draws lengths, then the split.
    """
    draw = np.random.RandomState(seed)
    torch.manual_seed(seed)
    queries = np.stack([draw.permutation(10)[:2] for _ in range(rows)])
    chance = np.full((rows, 10), 0.5 / 8)
    np.put_along_axis(chance, queries, 0.25, 1)
    below = chance.cumsum(1) / chance.sum(1, keepdims=True)
    drawn = draw.random_sample((rows, LONGEST))[:, :, None] >= below[:, None]
    length = torch.randint(1, LONGEST + 1, (rows, 1))
    digits = torch.tensor(drawn.sum(2)).where(torch.arange(LONGEST) < length, PADDING)
    asked = torch.tensor(queries)
    first, second = (digits[:, None] == asked[:, :, None]).sum(2).unbind(1)
    parts = asked, digits, (first > second).long()
    learned, measured = torch.randperm(rows).split([rows * 9 // 10, rows // 10])
    return Rows(*(x[learned] for x in parts)), Rows(*(x[measured] for x in parts))


def train(seed: int, data: tuple[Rows, Rows], epochs: int = 50) -> Counter:
    """Return a model, of all epochs the one that errs least on the measured rows."""
    learned, measured = data
    torch.manual_seed(seed)
    model = Counter()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    best, kept = -1.0, model.state_dict()
    for _ in range(epochs):
        for rows in torch.randperm(len(learned.labels)).split(128):
            optimizer.zero_grad()
            logits = model(learned.queries[rows], learned.digits[rows])
            F.cross_entropy(logits, learned.labels[rows]).backward()
            optimizer.step()
        found = accuracy(model, measured)
        if found > best:
            best = found
            kept = {k: v.clone() for k, v in model.state_dict().items()}
        if best == 1:
            break
    model.load_state_dict(kept)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def accuracy(model: Counter, rows: Rows) -> float:
    """Return the part of the rows that the model gets right."""
    return (model(*rows.inputs).argmax(1) == rows.labels).double().mean().item()


# --------------------------------------------------------------------------- scores


def divergences(truth: Tensor, attribution: Tensor) -> tuple[float, float]:
    """Return mean KL(truth || attribution) and Jensen-Shannon divergence, in nats.

    Args:
        truth (Tensor): True for the tokens that matter, shape ``(rows, tokens)``.
        attribution (Tensor): not negative, 0 for padding, same shape; each row is
            normalised to sum to 1.
    """
    rows = truth.any(1)
    p, q = (
        x[rows].double() / x[rows].double().sum(1, keepdim=True)
        for x in (truth, attribution)
    )
    half = (p + q) / 2

    def kl(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(a > 0, a * (a / b).log(), 0).sum(1)

    js = (kl(p, half) + kl(q, half)) / 2
    return kl(p, q).mean().item(), js.mean().item()


@dataclass(frozen=True, eq=False)
class Task:
    """A trained model and the rows it is explained on."""

    model: Counter
    learned: Rows
    measured: Rows
    seed: int
    steps: int | None

    def state(self, rows: Rows) -> Tensor:
        """Return the two-dimensional states, shape ``(rows, 10, 2)``."""
        found: list[Tensor] = []
        handle = self.model.compare.register_forward_hook(
            lambda module, inputs, output: found.append(output)
        )
        with handle, torch.no_grad():
            self.model(*rows.inputs)
        return found[0]

    def predictions(self) -> Tensor:
        """Return the class that the model chooses for each measured row."""
        with torch.no_grad():
            return self.model(*self.measured.inputs).argmax(1)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the state's two features."""
        states = self.state(self.learned)[self.learned.real]
        return states.mean(0), states.std(0)

    def diffmask(self, layers: list[nn.Module], **options: Any) -> DiffMask:
        """Return an explainer of the model at layers, not trained."""
        return DiffMask(
            self.model,
            layers,
            margin=MARGIN,
            token_mask=lambda inputs: inputs[1] != PADDING,
            **options,
        )

    def fitted(self, mask: DiffMask) -> list[Result]:
        """Train masks, and return what they are at each state."""
        loader = DataLoader(TensorDataset(*self.learned.inputs), 128, shuffle=True)
        mask.fit(loader, steps=self.steps, seed=self.seed, progress=False)
        kept = mask.attribute(self.measured.inputs)
        report = mask.evaluate([self.measured.inputs])
        return [
            Result(kept[:, i], state.kept, state.divergence, state.agreement)
            for i, state in enumerate(report.states)
        ]


@dataclass(frozen=True, eq=False)
class Result:
    """An attribution (rows, tokens), and what is known of masks.

    Attributes:
        attribution (Tensor or None): not negative; None if the method does not apply.
        kept (float, optional): part of the tokens that is kept.
        model_kl (float, optional): mean divergence of the masked prediction, in nats.
        agreement (float, optional): part of the rows with the same prediction.
        why (str): reason if the method does not apply.
    """

    attribution: Tensor | None
    kept: float | None = None
    model_kl: float | None = None
    agreement: float | None = None
    why: str = ""


#: what a method yields: rows of the table
Found = Iterator[tuple[str, Result]]


# -------------------------------------------------------------------------- methods


def uniform(task: Task) -> Found:
    """All tokens alike: what knows nothing."""
    yield "uniform", Result(task.measured.real.double())


@torch.no_grad()
def erasure(task: Task) -> Found:
    """The smallest set of tokens, at least one, under which the prediction stays.

    Tokens are taken out of the sequence; all sets of one size are tried before larger
    ones. Of several, the one under which the prediction is most likely.
    """
    state, length = task.state(task.measured), task.measured.length
    wanted = task.predictions()
    kept = torch.zeros(state.shape[:2])
    for n in range(1, LONGEST + 1):
        open_rows = (length == n).nonzero()[:, 0]
        for size in range(1, n + 1):
            sets = torch.tensor(list(itertools.combinations(range(n), size)))
            few = state[open_rows][:, sets].flatten(0, 1)
            logits = task.model.count(few, torch.full((len(few),), size))
            likely = logits.softmax(1).unflatten(0, (len(open_rows), len(sets)))
            class_one = wanted[open_rows, None].bool()
            best, which = torch.where(class_one, likely[..., 1], likely[..., 0]).max(1)
            done = best > 0.5
            kept[open_rows[done, None], sets[which[done]]] = 1
            open_rows = open_rows[~done]
            if not len(open_rows):
                break
    yield "exact erasure search", Result(kept, _part(kept, task.measured))


def integrated_gradients(task: Task) -> Found:
    """Captum's, of the log odds, at the state: from zero, or from the mean state."""

    def log_odds(state: Tensor, length: Tensor) -> Tensor:
        logits = task.model.count(state, length)
        return logits[:, 1] - logits[:, 0]

    state = task.state(task.measured)
    starts = {"zero": torch.zeros(2), "the mean": task.moments()[0]}
    for name, start in starts.items():
        attribution = IntegratedGradients(log_odds).attribute(
            state,
            start.expand_as(state),
            additional_forward_args=task.measured.length,
            n_steps=100,
            internal_batch_size=5000,
        )
        yield (
            f"Integrated Gradients, from {name}",
            Result(_magnitude(attribution, task.measured)),
        )


def bottleneck(task: Task) -> Found:
    """The information bottleneck for single examples.

    Schulz et al. 2020, arXiv 2001.00396, Section 3: a part of each token's state is
    replaced by noise with the state's moments; what is minimised is the cross entropy
    of the prediction + 10 * the mean information in what is left. The attribution is
    the information of a token, or the part of its state that is left, which is what
    DiffMask's authors compare with.
    """
    generator = torch.Generator().manual_seed(task.seed)
    state, measured = task.state(task.measured), task.measured
    wanted = task.predictions()
    mean, scale = task.moments()
    standard = (state - mean) / scale
    logits = torch.full(state.shape[:2], 5.0, requires_grad=True)
    optimizer = torch.optim.Adam([logits], 0.1)
    for _ in range(task.steps or 500):
        optimizer.zero_grad()
        left = logits.sigmoid()[..., None]
        noise = torch.randn(state.shape, generator=generator)
        mixed = mean + scale * (left * standard + (1 - left) * noise)
        moved = ((1 - left).square() + (left * standard).square() - 1) / 2
        information = (moved.mean(2) + F.softplus(logits)) * measured.real
        output = task.model.count(mixed, measured.length)
        fit = F.cross_entropy(output, wanted, reduction="none")
        (fit + 10 * information.sum(1) / measured.length).sum().backward()
        optimizer.step()
    yield "Schulz et al., information", Result(information.detach())
    yield "Schulz et al., part left", Result(logits.detach().sigmoid() * measured.real)


def noise(task: Task) -> Found:
    """As much noise on each token as the output bears.

    Guan et al. 2019, "Towards a Deep and Unified Understanding of Deep Neural Models in
    NLP", ICML: what is minimised is the squared change of the output, in units of its
    variance over the data, - 0.1 * the mean entropy of the noise, whose standard
    deviation is at most 10 times the state's. The attribution is one over the standard
    deviation.
    """
    generator = torch.Generator().manual_seed(task.seed)
    state, measured = task.state(task.measured), task.measured
    with torch.no_grad():
        original = task.model.count(state, measured.length)
        variance = task.model(*task.learned.inputs).var(0).mean()
    most = 10 * task.moments()[1].mean()
    logits = torch.full(state.shape[:2], -5.0, requires_grad=True)
    optimizer = torch.optim.Adam([logits], 0.1)
    for _ in range(task.steps or 500):
        optimizer.zero_grad()
        drawn = torch.randn(state.shape, generator=generator)
        noisy = state + most * logits.sigmoid()[..., None] * drawn
        output = task.model.count(noisy, measured.length)
        change = (output - original).square().mean(1) / variance
        entropy = (F.logsigmoid(logits) * measured.real).sum(1) / measured.length
        (change - 0.1 * entropy).sum().backward()
        optimizer.step()
    yield "Guan et al.", Result(measured.real / (most * logits.detach().sigmoid()))


def attnlrp(task: Task) -> Found:
    """This package's relevance propagation at the state, of the predicted class."""
    measured, wanted = task.measured, task.predictions()
    try:
        relevance = LayerAttnLRP(task.model, task.model.compare).attribute(
            measured.inputs, target=wanted
        )
        yield "AttnLRP", Result(_magnitude(relevance, measured))
    except LRPError as error:
        reason = " ".join(str(error).partition("\nSay")[0].split())
        yield "AttnLRP", Result(None, why=reason)
    relevance = AttnLRP(task.model.count_written_out).attribute(
        task.state(measured), wanted, additional_forward_args=(measured.length,)
    )
    yield "AttnLRP, GRU written out", Result(_magnitude(relevance, measured))


def hidden(task: Task) -> Found:
    """DiffMask at the state, trained on the other rows."""
    mask = task.diffmask([task.model.compare])
    yield "DiffMask, hidden", task.fitted(mask)[0]


def hidden_paper(task: Task) -> Found:
    """The same with the paper's recipe: 100 epochs, and its rates for this task."""
    recipe = replace(PAPER, baseline_rate=3e-4, steps=100 * STEPS_PER_EPOCH)
    mask = task.diffmask([task.model.compare], recipe=recipe)
    yield "DiffMask, hidden, the paper's recipe", task.fitted(mask)[0]


def input_mode(task: Task) -> Found:
    """DiffMask of the digits' embeddings, where nothing is known about the queries."""
    mask = task.diffmask([task.model.digit, task.model.compare], mode="input")
    results = task.fitted(mask)
    yield "DiffMask, input, at the embedding", results[0]
    yield "DiffMask, input, at the state", results[1]


def input_mode_learned(task: Task) -> Found:
    """The same with a learned baseline.

    It may become the embedding of a digit, which is then dropped for free.
    """
    mask = task.diffmask(
        [task.model.digit, task.model.compare], mode="input", baseline="learned"
    )
    results = task.fitted(mask)
    yield "DiffMask, input, learned baseline, at the embedding", results[0]


def per_example(task: Task) -> Found:
    """DiffMask's masks without training, for each row by itself."""
    mask = task.diffmask([task.model.compare])
    steps = {} if task.steps is None else {"steps": task.steps}
    kept, divergence = mask.attribute_per_example(
        task.measured.inputs, 0, seed=task.seed, return_divergence=True, **steps
    )
    yield (
        "DiffMask, not amortised",
        Result(kept, _part(kept, task.measured), divergence.mean().item()),
    )


def _magnitude(relevance: Tensor, rows: Rows) -> Tensor:
    """Return the size of the sum over features, 0 for padding."""
    return relevance.sum(2).abs().detach() * rows.real


def _part(kept: Tensor, rows: Rows) -> float:
    """Return the mean over the rows of the part of the tokens that is kept."""
    return (kept.sum(1) / rows.length).mean().item()


METHODS: dict[str, Callable[[Task], Found]] = {
    "uniform": uniform,
    "erasure": erasure,
    "gradients": integrated_gradients,
    "schulz": bottleneck,
    "guan": noise,
    "attnlrp": attnlrp,
    "hidden": hidden,
    "hidden-paper": hidden_paper,
    "input": input_mode,
    "input-learned": input_mode_learned,
    "example": per_example,
}

# KL and JS of the authors' notebook (their baselines are other models' and seeds')
PUBLISHED = {
    "exact erasure search": "inf / .2664",
    "Integrated Gradients, from zero": "1.355 / .270",
    "Schulz et al., part left": "1.159 / .189",
    "Guan et al.": ".861 / .232",
    "DiffMask, hidden": ".0372 / .0128",
}


# --------------------------------------------------------------------------- report


def check_data(rows: Rows) -> str:
    """Compare the measured rows with what is known of the authors'."""
    first, second = rows.equal(0), rows.equal(1)
    winner = torch.where(rows.labels.bool()[:, None], first, second)
    one = F.one_hot(winner.int().argmax(1), LONGEST) * winner.any(1, keepdim=True)
    searched = divergences(rows.truth, one)[1]
    kl, js = divergences(rows.truth, rows.real)
    return (
        f"data: {int(rows.truth.any(1).sum())} rows with a truth; uniform KL {kl:.4f}, "
        f"JS {js:.4f} (authors' data: .652, .194); one digit of the winning query JS "
        f"{searched:.4f} (.2664)"
    )


def measure(task: Task, methods: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield a record for each row of the table.

    Rows that come from one run count its seconds in the first.
    """
    for method in methods:
        start = time.perf_counter()
        for name, result in METHODS[method](task):
            seconds = time.perf_counter() - start
            kl = js = math.nan
            if result.attribution is not None:
                kl, js = divergences(task.measured.truth, result.attribution)
            start = time.perf_counter()
            yield {
                "method": name,
                "seed": task.seed,
                "kl": kl,
                "js": js,
                "seconds": seconds,
                "kept": result.kept,
                "model_kl": result.model_kl,
                "agreement": result.agreement,
                "why": result.why,
            }


def table(records: list[dict[str, Any]]) -> str:
    """Return mean and worst of each method as lines."""
    head = (
        "KL mean",
        "worst",
        "JS mean",
        "worst",
        "seconds",
        "kept",
        "model KL",
        "agreement",
    )
    lines = [f"{'':50}" + "".join(f"{h:>10}" for h in head) + "  published KL / JS"]
    reasons = []
    for name in dict.fromkeys(r["method"] for r in records):
        mine = [r for r in records if r["method"] == name]
        if mine[0]["why"]:
            lines.append(f"{name:50}  does not apply")
            reasons.append(f"{name} does not apply: {mine[0]['why']}")
            continue

        def column(
            key: str, pick: Callable[..., float], digits: int, rows: Any = mine
        ) -> str:
            values = [r[key] for r in rows if r[key] is not None]
            return f"{pick(values):10.{digits}f}" if values else " " * 10

        lines.append(
            f"{name:50}"
            + column("kl", statistics.fmean, 4)
            + column("kl", max, 4)
            + column("js", statistics.fmean, 4)
            + column("js", max, 4)
            + column("seconds", statistics.fmean, 1)
            + column("kept", statistics.fmean, 3)
            + column("model_kl", max, 4)
            + column("agreement", min, 4)
            + f"  {PUBLISHED.get(name, '')}"
        )
    return "\n".join([line.rstrip() for line in lines] + reasons)


def bars(records: list[dict[str, Any]]) -> Iterator[str]:
    """Yield what each run has to reach, and whether all did."""
    checks: dict[str, tuple[str, Callable[[dict[str, Any]], bool]]] = {
        "exact erasure search": (
            "JS .2664",
            lambda r: abs(r["js"] - 0.2664) < 5e-4,
        ),
        "DiffMask, hidden": (
            "KL <= .005, JS <= .002, model KL <= .05, agreement >= .97, 60 s",
            lambda r: (
                r["kl"] <= 0.005
                and r["js"] <= 0.002
                and r["model_kl"] <= 0.05
                and r["agreement"] >= 0.97
                and r["seconds"] <= 60
            ),
        ),
        "DiffMask, input, at the embedding": (
            "KL .65 +- .03",
            lambda r: abs(r["kl"] - 0.65) <= 0.03,
        ),
    }
    for name, (words, reached) in checks.items():
        found = [reached(r) for r in records if r["method"] == name]
        if found:
            yield f"{name}: {words}: reached by {sum(found)} of {len(found)} runs"


def _as_json(value: Any) -> Any:
    """Return a value with infinity and nan as text, which JSON cannot hold."""
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)


def main() -> None:
    """Train the models, print checks and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", type=int, help="default: one for each seed")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument(
        "--steps", type=int, help="of optimisers; default: each its own"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write a record for each run here")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = make_data()
    print(check_data(data[1]), flush=True)
    seeds = range(options.seeds)
    pairs = [(seed, seed) for seed in seeds]
    if options.models is not None:
        pairs = list(itertools.product(range(options.models), seeds))
    records: list[dict[str, Any]] = []
    for number, group in itertools.groupby(pairs, lambda pair: pair[0]):
        start = time.perf_counter()
        model = train(number, data)
        print(
            f"model {number}: accuracy {accuracy(model, data[1]):.4f}, trained in "
            f"{time.perf_counter() - start:.0f} s",
            flush=True,
        )
        for _, seed in group:
            task = Task(model, *data, seed, options.steps)
            records += [{"model": number, **r} for r in measure(task, options.methods)]
    print(table(records), *bars(records), sep="\n")
    if options.json:
        finite = [{k: _as_json(v) for k, v in r.items()} for r in records]
        options.json.write_text(json.dumps(finite, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
