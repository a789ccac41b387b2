"""Sources of a language model's answer: methods compared where the evidence is known.

A small model is trained from scratch (two layers, some minutes) on facts ``a = b ;`` in
random order. Asked for ``a`` it writes the chain ``b c d ...`` that the facts lead to.
Two tasks have evidence that is known by construction, in the manner of RULER (arXiv
2404.06654):

- needle: one fact is asked for; the span is the next token, its evidence that fact;
- variables: a chain of four facts is followed step by step; the span is the last token,
  and the evidence all four facts, though the last step reads only the last of them.

``--model FOLDER`` asks a real model instead for a number in one of many documents.

Methods return a score for each source. What is measured, mean and standard error over
questions, and for LDS and the drops the paired difference from the first method:

- recall of the evidence among the best 1 % of the sources (at least one) and 10 %;
- top-k: the drop of the span's log-probability when the k best sources are left out;
- LDS: over random halves of the sources, the rank correlation of the log-probability
  with the sum of the scores (Park et al., arXiv 2303.14186, as in ContextCite);
- seconds a question, and over those of AttnLRP.

ContextCite (Cohen-Wang et al., arXiv 2409.00729) is written from the paper: random
halves of the sources are left out, and a sparse linear model (Lasso) of the log-odds of
the span has a weight for each source.

    python benchmarks/sources.py
    python benchmarks/sources.py --questions 100 --facts 60 --steps 3000
    python benchmarks/sources.py --model SmolLM2-135M-Instruct --questions 5
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import Lasso
from sklearn.preprocessing import StandardScaler
from torch import nn

from captum_transformer_lrp import LLMTransformerLRP
from captum_transformer_lrp.metrics import Measurement
from captum_transformer_lrp.rank_agreement import spearman

PAIRS, EQUALS, STOP, ASK = 64, 64, 65, 66  # names are 0 to 63
CHAIN = 4
KNOWN = 0.5  # probability of each token of the span, of what the model knows


@dataclass(frozen=True)
class Question:
    """A prompt in pieces, what follows, and what it rests on.

    Attributes:
        before (list of int): tokens before the sources.
        sources (list of list of int): tokens of each source.
        after (list of int): tokens behind them, which ask.
        answer (list of int): what the model writes.
        span (slice): what is explained of it.
        evidence (set of int): the sources that it rests on.
    """

    before: list[int]
    sources: list[list[int]]
    after: list[int]
    answer: list[int]
    span: slice
    evidence: set[int]

    def prompt(self, kept: Sequence[bool] | None = None) -> list[int]:
        """Return the tokens of the prompt with some of the sources."""
        found = list(self.before)
        for i, source in enumerate(self.sources):
            if kept is None or kept[i]:
                found += source
        return found + self.after


def log_probability(model: nn.Module, question: Question, kept: Any = None) -> float:
    """Return the log-probability of the span after a prompt with some sources."""
    prompt = question.prompt(kept)
    ids = torch.tensor([prompt + question.answer])
    with torch.no_grad():
        kwargs = {"use_cache": False, "logits_to_keep": len(question.answer) + 1}
        logits = model(ids[:, :], **kwargs).logits[0, :-1]
    logs = logits.double().log_softmax(-1)
    steps = torch.arange(len(question.answer))[question.span]
    tokens = torch.tensor(question.answer)[question.span]
    return float(logs[steps, tokens].sum())


# ----------------------------------------------------------------------- small model


def small_model(*, layers: int, width: int) -> nn.Module:
    """Return a Llama with random weights for the language of facts."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=PAIRS + 3,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation="eager",  # which returns its weights
    )
    return LlamaForCausalLM(config)


def facts(rng: np.random.Generator, count: int) -> tuple[list[tuple[int, int]], Any]:
    """Return facts ``a = b`` in random order, and what each name leads to.

    The names are a few chains, so that a name has one successor.
    """
    names = rng.permutation(PAIRS)[: count + 1].tolist()
    pairs = list(pairwise(names))
    leads = dict(pairs)
    order = rng.permutation(len(pairs))
    return [pairs[i] for i in order], leads


def ask(rng: np.random.Generator, count: int, length: int) -> Question:
    """Return a question whose answer is a chain of ``length`` steps."""
    pairs, leads = facts(rng, count)
    ends = set(leads)
    for _ in range(length - 1):
        ends = {a for a in ends if leads[a] in ends}
    start = int(rng.choice(sorted(ends)))
    answer, used = [], []
    at = start
    for _ in range(length):
        used.append(pairs.index((at, leads[at])))
        at = leads[at]
        answer.append(at)
    return Question(
        before=[],
        sources=[[a, EQUALS, b, STOP] for a, b in pairs],
        after=[ASK, start],
        answer=answer,
        span=slice(length - 1, length),
        evidence=set(used),
    )


def train(model: nn.Module, options: argparse.Namespace) -> float:
    """Train on chains of facts; return how many steps of new ones are right."""
    rng = np.random.default_rng(options.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    warm = 100
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: (
            min(1.0, step / warm)
            * 0.5
            * (1 + math.cos(math.pi * min(1.0, step / options.steps)))
        ),
    )
    for step in range(options.steps):
        # from a few facts to all of them
        share = min(1.0, 0.15 + step / (0.6 * options.steps))
        count = max(CHAIN + 2, int(share * options.facts))
        batch = [ask(rng, count, count) for _ in range(options.batch)]
        ids = torch.tensor([q.prompt() + q.answer for q in batch])
        logits = model(ids[:, :-1]).logits[:, -count:]
        loss = nn.functional.cross_entropy(
            logits.flatten(0, 1), ids[:, -count:].flatten()
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 200 == 0:
            print(f"  step {step}: {count} facts, loss {loss.item():.3f}", flush=True)
    model.eval()
    right = []
    for _ in range(50):
        question = ask(rng, options.facts, CHAIN)
        right.append(math.exp(log_probability(model, question)) > 0.5)
    return float(np.mean(right))


def small_questions(options: argparse.Namespace, length: int) -> Iterator[Question]:
    """Yield questions of a chain of some length."""
    rng = np.random.default_rng(options.seed + 1000 + length)
    while True:
        yield ask(rng, options.facts, length)


# ------------------------------------------------------------------------ real model


def real_questions(options: argparse.Namespace, tokenizer: Any) -> Iterator[Question]:
    """Yield needles: numbers of many things, one of which is asked for."""
    rng = np.random.default_rng(options.seed)
    things = (
        "apple bridge candle desert engine forest garden hammer island jacket kettle "
        "ladder magnet needle orange pencil quarry ribbon saddle temple umbrella "
        "valley window yellow zebra anchor basket copper dragon eagle falcon guitar "
        "harbor insect jungle kitten lemon mirror nickel ocean parrot quilt rocket "
        "silver tiger uncle violin wagon yacht zipper acorn button carpet dollar "
        "elbow fabric"
    ).split()

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False))

    while True:
        chosen = rng.permutation(len(things))[: options.facts]
        numbers = rng.integers(1000, 9999, len(chosen))
        asked = int(rng.integers(len(chosen)))
        name = things[chosen[asked]]
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": "\ue0f0"}],
            tokenize=False,
            add_generation_prompt=True,
        )
        before, after = text.split("\ue0f0")
        yield Question(
            before=encode(before + "Remember these facts.\n"),
            sources=[
                encode(f"The number of the {things[i]} is {number}.\n")
                for i, number in zip(chosen, numbers, strict=True)
            ],
            after=encode(f"\nWhat is the number of the {name}?" + after),
            answer=encode(f"The number of the {name} is {numbers[asked]}"),
            span=slice(len(encode(f"The number of the {name} is ")), None),
            evidence={asked},
        )


# ---------------------------------------------------------------------------- methods

Method = Callable[[nn.Module, Question], np.ndarray]


def by_relevance(
    composite: str, hops: int = 0, *, target: Any = "logit", each_hop: bool = False
) -> Method:
    """Return relevance of sources for the span, or their mean share of each hop."""

    def scores(model: nn.Module, question: Question) -> np.ndarray:
        llm = LLMTransformerLRP(model, composite=composite, attr_target=target)
        at, places = len(question.before), []
        for source in question.sources:
            places.append(slice(at, at + len(source)))
            at += len(source)
        prompt = torch.tensor(question.prompt())
        answer = torch.tensor(question.answer)
        found = llm.attribute(
            prompt, answer, span=question.span, sources=places, hops=hops
        )
        of = found.shares("hop") if each_hop else found.source_attr
        return np.asarray(of[0].double())

    return scores


def by_attention(model: nn.Module, question: Question) -> np.ndarray:
    """Return the mean attention of all layers from where the span is predicted."""
    ids = torch.tensor([question.prompt() + question.answer[:-1]])
    with torch.no_grad():
        maps = model(ids, output_attentions=True, use_cache=False).attentions
    mean = torch.stack([one[0].mean(0) for one in maps]).mean(0)
    start = len(question.prompt()) - 1
    rows = torch.arange(len(question.answer))[question.span] + start
    weights = mean[rows].sum(0)
    found, at = [], len(question.before)
    for source in question.sources:
        found.append(float(weights[at : at + len(source)].sum()))
        at += len(source)
    return np.array(found)


def leave_one_out(model: nn.Module, question: Question) -> np.ndarray:
    """Return by how much the log-probability drops without each source."""
    whole = log_probability(model, question)
    count = len(question.sources)
    kept = ~np.eye(count, dtype=bool)
    return np.array([whole - log_probability(model, question, row) for row in kept])


def context_cite(ablations: int) -> Method:
    """Return the weights of a sparse linear model of the log-odds of the span."""

    def scores(model: nn.Module, question: Question) -> np.ndarray:
        rng = np.random.default_rng(ablations)
        kept = rng.random((ablations, len(question.sources))) < 0.5
        logs = np.array([log_probability(model, question, row) for row in kept])
        odds = logs - np.log1p(-np.exp(np.minimum(logs, -1e-12)))
        scaled = StandardScaler().fit(kept)
        model_of_sources = Lasso(alpha=0.01).fit(scaled.transform(kept), odds)
        weights: np.ndarray = model_of_sources.coef_ / scaled.scale_
        return weights

    return scores


def at_random(model: nn.Module, question: Question) -> np.ndarray:
    """Return random scores."""
    rng = np.random.default_rng(sum(question.prompt()))
    return rng.random(len(question.sources))


def methods(hops: int, ablations: Sequence[int]) -> dict[str, Method]:
    """Return what is compared; the first is what others are compared with."""
    found: dict[str, Method] = {}
    for name, composite in (("AttnLRP", "attnlrp"), ("CP-LRP", "cp-lrp")):
        found[name] = by_relevance(composite)
        found[f"{name}, log-probability"] = by_relevance(composite, target="log_prob")
        if hops:
            found[f"{name}, {hops} hops"] = by_relevance(composite, hops)
            found[f"{name}, shares of hops"] = by_relevance(
                composite, hops, each_hop=True
            )
    found["Gradient x Input"] = by_relevance("gradient-x-input")
    found["attention"] = by_attention
    found["leave one out"] = leave_one_out
    for count in ablations:
        found[f"ContextCite, {count}"] = context_cite(count)
    return found | {"random": at_random}


# ------------------------------------------------------------------------ measurements


def recall(scores: np.ndarray, evidence: set[int], share: float) -> float:
    """Return how much of the evidence is among the best share of the sources."""
    best = max(1, round(share * len(scores)))
    order = np.argsort(-scores, kind="stable")[:best]
    return len(evidence & set(order.tolist())) / len(evidence)


def drop(model: nn.Module, question: Question, scores: np.ndarray, k: int) -> float:
    """Return by how much the log-probability drops without the best k sources."""
    kept = np.ones(len(scores), dtype=bool)
    kept[np.argsort(-scores, kind="stable")[:k]] = False
    return log_probability(model, question) - log_probability(model, question, kept)


def compare(
    model: nn.Module,
    questions: Iterator[Question],
    options: argparse.Namespace,
    hops: int,
) -> None:
    """Print a table of all methods."""
    compared = methods(hops, options.ablations)
    names = ("recall, 1 %", "recall, 10 %", "top-1", "top-3", "LDS", "seconds")
    found: dict[str, dict[str, list[float]]] = {
        method: {name: [] for name in names} for method in compared
    }
    asked = refused = 0
    while asked < options.questions and refused < 20 * options.questions:
        question = next(questions)
        steps = len(question.answer[question.span])
        if math.exp(log_probability(model, question) / steps) < KNOWN:
            refused += 1  # the model does not know
            continue
        asked += 1
        rng = np.random.default_rng(asked)
        kept = rng.random((options.subsets, len(question.sources))) < 0.5
        true = np.array([log_probability(model, question, row) for row in kept])
        for method, explain in compared.items():
            start = time.perf_counter()
            scores = explain(model, question)
            row = found[method]
            row["seconds"].append(time.perf_counter() - start)
            row["recall, 1 %"].append(recall(scores, question.evidence, 0.01))
            row["recall, 10 %"].append(recall(scores, question.evidence, 0.1))
            row["top-1"].append(drop(model, question, scores, 1))
            row["top-3"].append(drop(model, question, scores, 3))
            row["LDS"].append(spearman(kept @ scores, true) or 0.0)
    if not asked:
        print(f"  the model knew none of {refused} answers")
        return
    print(f"  {asked} questions; {refused} that the model did not know are left out")
    print(f"  {'':26}" + "".join(f"{name:>16}" for name in names) + "   less the first")
    measured = {
        method: {n: Measurement(n, torch.tensor(v), "higher") for n, v in row.items()}
        for method, row in found.items()
    }
    first = next(iter(measured.values()))
    for method, row in measured.items():
        line = "".join(f"{_with_error(row[name]):>16}" for name in names)
        if row is not first:
            paired = [
                f"{n} {_with_error(row[n].minus(first[n]))}" for n in names[2:5:2]
            ]
            line += "   " + ", ".join(paired)
        print(f"  {method:26}{line}")


def _with_error(measured: Measurement) -> str:
    return f"{measured.mean:.2f} ± {measured.standard_error:.2f}"


def main() -> None:
    """Print a table for each task."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=20, help="of each task")
    parser.add_argument("--facts", type=int, default=40, help="sources of a prompt")
    parser.add_argument("--ablations", type=int, nargs="*", default=[32, 256])
    parser.add_argument("--subsets", type=int, default=32, help="random halves for LDS")
    parser.add_argument("--hops", type=int, default=CHAIN - 1)
    parser.add_argument("--steps", type=int, default=1500, help="of training")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", help="a folder, or a name on the hub")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    if options.model:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(options.model)
        model = AutoModelForCausalLM.from_pretrained(
            options.model, attn_implementation="eager"
        ).eval()
        print(f"{options.model}: a number in one of {options.facts} documents")
        compare(model, real_questions(options, tokenizer), options, 1)
        return
    model = small_model(layers=options.layers, width=options.width)
    start = time.perf_counter()
    right = train(model, options)
    print(
        f"a Llama of {options.layers} layers, {options.width} wide, trained for "
        f"{time.perf_counter() - start:.0f} s: {right:.0%} of the ends of new chains"
    )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for task, length, hops in (("needle", 1, 0), ("variables", CHAIN, options.hops)):
        print(f"{task}: {options.facts} facts, {length} of them the evidence")
        compare(model, small_questions(options, length), options, hops)


if __name__ == "__main__":
    main()
