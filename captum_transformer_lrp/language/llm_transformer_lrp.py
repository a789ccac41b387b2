"""Generated text explained, token by token or span by span, from one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from .._captum import GradientAttribution, log_usage
from .._named import Named
from .._torch import DisableTorchFunction
from ..attribution.explains import explains
from ..attribution.inputs import Inputs
from ..attribution.positional_lrp import (
    Sign,
    checked_sign,
    summed_by_table,
    with_positions,
)
from ..attribution.scores import output_tensor
from ..attribution.single_pass import check_callable, run_once
from ..composites import composite_named
from ..core.composites import Composite
from ..core.engine import Engine
from ..core.registry import Row
from ..errors import DisconnectedError, InputError, LRPError, TargetError
from ..observers.encodings import PositionEncodings, PositionUse
from ..observers.observed import Observer
from ..observers.trace import Trace, Tracing
from .backward import Scores, WayBack
from .chats import Chat
from .prompts import (
    Prompts,
    column_names,
    contrasts_for,
    read_prompts,
    read_tokens,
    row_names,
)
from .result import LLMRelevance
from .scores import (
    AttrTarget,
    check_finite,
    check_logits,
    checked_attr_target,
    scores_above_mean,
    scores_of_tokens,
    sequence_weights,
    target_name,
)
from .sequences import Sequences, arrange, generate
from .sources import SourceRelevance
from .wanted import Flow, Wanted, came_to_generated, for_each


class LLMTransformerLRP(Named, GradientAttribution):
    r"""LRP for language models: which tokens made the model write what it wrote.

    Every generated token is explained, from a single forward pass over prompt and
    generation: a causal model predicts all of them there. Each then goes back alone,
    ``chunk_size`` of them in one batched backward pass over the same graph. What is
    returned is a :class:`captum.attr.LLMAttributionResult` and plots like one.

    Rules end at the logits: log-probabilities, probabilities and differences between
    tokens are functions of these, and their gradient there is torch's own, whatever the
    method does with a softmax inside the model.

    Args:
        model (Callable): a causal language model or an encoder-decoder with Hugging
            Face's interface; or any callable that takes token ids ``(examples,
            tokens)`` and returns logits ``(examples, tokens, vocabulary)``.
        tokenizer (Any, optional): its tokenizer; needed for texts, and for the names of
            tokens. Default: None
        composite (str or Composite, optional): the method, as for
            :class:`TransformerLRP`. Default: ``"attnlrp"``
        attr_target (str or Callable, optional): what is explained of each token: its
            ``"logit"``, ``"log_prob"`` or ``"prob"``; or of each step a function of its
            logits, ``(steps, vocabulary)`` to ``(steps,)``, such as
            ``targets.Entropy()``. Default: ``"logit"``
        chunk_size (int, optional): how many tokens go back at once. Memory for the way
            back grows with it, results do not change. 1 makes a plain backward pass for
            each; so do models with activation checkpoints and composites that carry
            relevance itself. Default: 8
        positional (str, optional): also give relevance to positions (see
            :class:`PositionalLRP`), and add it to the tokens': ``"absolute"`` or
            ``"signed"``. Default: None, positions are constants
        rules (Mapping, optional): rows laid over the composite. Default: None
        output_field (str or int, optional): which field of the output holds the logits.
            Default: a tensor itself, else ``"logits"``
        unknown (str, optional): for operators without a rule: ``"raise"``, ``"warn"``
            or ``"gradient"``. Default: the composite's
        observers (sequence of Observer, optional): objects of yours that watch every
            pass, see :mod:`~captum_transformer_lrp.observers`.
            Default: none

    Raises:
        UnknownNameError: if there is no such composite, kind or operator.
        ValueError: if ``attr_target``, ``chunk_size`` or ``positional`` is none of
            those.
        TypeError: if ``model`` cannot be called.

    Examples::

        >>> llm = LLMTransformerLRP(model, tokenizer, attr_target="log_prob")
        >>> result = llm.attribute("The Eiffel Tower is in", " Paris, France")
        >>> result.token_attr  # (generated tokens, prompt tokens)
        >>> result.plot_token_attr(show=True)
        >>> # why Paris rather than Rome
        >>> llm.attribute("The Eiffel Tower is in", " Paris", contrast=" Rome")
        >>> # what the model writes by itself, earlier generated tokens as columns too
        >>> llm.attribute(
        ...     "The Eiffel Tower",
        ...     gen_args={"max_new_tokens": 20},
        ...     include_generated=True,
        ... )
        >>> # which sentences of the prompt a part of the answer rests on
        >>> llm.attribute(prompt, answer, span="1889", sources="sentences", hops=1)
    """

    name: ClassVar[str] = "LLMTransformerLRP"

    def __init__(
        self,
        model: Callable[..., Any],
        tokenizer: Any = None,
        composite: str | Composite = "attnlrp",
        *,
        attr_target: AttrTarget = "logit",
        chunk_size: int = 8,
        positional: Sign | None = None,
        rules: Mapping[Any, Row] | None = None,
        output_field: str | int | None = None,
        unknown: str | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        check_callable(self, model)
        GradientAttribution.__init__(self, model)
        self.tokenizer = tokenizer
        self.composite = composite_named(composite)
        if rules:
            self.composite = self.composite.with_rules(rules)
        self.attr_target = checked_attr_target(attr_target)
        if not isinstance(chunk_size, int) or chunk_size < 1:
            raise ValueError(
                f"chunk_size={chunk_size!r}; expected how many tokens go back at once, "
                "an int of at least 1."
            )
        self.chunk_size = chunk_size
        self.positional = None if positional is None else checked_sign(positional)
        self.output_field = output_field
        self.unknown = unknown
        self.observers = tuple(observers)

    @log_usage(part_of_slo=True)
    @explains
    def attribute(
        self,
        inp: Any,
        target: Any = None,
        gen_args: Mapping[str, Any] | None = None,
        *,
        contrast: Any = None,
        skip_tokens: Sequence[int] | Sequence[str] | None = None,
        include_generated: bool = False,
        span: Any = None,
        sources: Any = None,
        hops: int = 0,
    ) -> Any:
        r"""Return the relevance of the prompt, token by token or source by source.

        With ``span``, ``sources`` or ``hops`` the result is a
        :class:`~captum_transformer_lrp.SourceRelevance`. Relevance is linear in what it
        starts with, so that a span of any length takes one backward pass.

        Args:
            inp (str, list of str, Tensor, Mapping or TextTokenInput): the prompt; a
                tensor of token ids, ``(tokens,)`` or ``(examples, tokens)``; what a
                tokenizer returns, padded on either side; or a chat, a list of messages
                with ``role`` and ``content``, or a mapping with ``messages`` and what
                else the chat template takes, such as ``tools``. A list of prompts or
                several examples give a list of results. Of an encoder-decoder it is
                the source.
            target (str, Tensor or list of int, optional): what follows, as text or
                token ids; for several prompts a list of these or a tensor ``(examples,
                tokens)``. Default: None, what the model generates; of a chat that ends
                with the assistant's message, that message
            gen_args (dict, optional): for ``model.generate``, if there is no target.
                Default: ``{"max_new_tokens": 25, "do_sample": False, "temperature":
                None, "top_p": None}``
            contrast (int, str, Tensor or list of int, optional): another token that
                might have been generated, one for all or one for each: explained is the
                difference between the scores of the two. For several prompts one for
                all, or a list of these. Default: None
            skip_tokens (list of int or list of str, optional): tokens of the prompt
                that are no columns. Default: None
            include_generated (bool, optional): append a column for each generated token
                to those of the prompt. Default: False
            span (optional): what is explained of what follows: a text that stands in it
                once; ``(start, end)``, characters; a slice, range or int, tokens; a
                regular expression, every match, or its first group; a function of the
                text that returns ranges of characters; the name of a unit, each of
                which is a span: ``"tokens"``, ``"words"``, ``"sentences"``,
                ``"lines"``, ``"paragraphs"``; or a list of these, or a mapping from
                names to these. A span has all tokens that have a character in it. For
                several prompts one for all, or a list with one for each.
                Default: None, the whole
            sources (optional): what the relevance of the prompt is summed over, named
                as a span is: a unit; a function, called with the text of each message;
                a list of texts, such as documents; and so on; of a chat also
                ``"turns"``. A token that is cut belongs to the source that has most of
                its characters but white space, the earlier one of two. Default: None,
                the turns of a chat, the sentences of a text, or the tokens
            hops (int, optional): how often relevance that came to generated tokens is
                sent on to what these were made from, one backward pass each. What came
                to a token, divided by its logit less the mean over the vocabulary, is
                what that score is taken back with, so that as much leaves a token as
                came. A token whose logit is no more than a tenth of a standard
                deviation from that mean keeps what came. Default: 0

        Returns:
            LLMRelevance: with a row for each generated token; a list of these for
            several prompts. ``seq_attr`` explains the sum of the scores, and with
            ``attr_target="prob"`` and no contrast the probability of the sequence.
            *SourceRelevance*, with a row for each span, where one of ``span``,
            ``sources`` and ``hops`` is given.

        Raises:
            InputError: if the prompt is empty or of a wrong type.
            TargetError: if target or contrast do not fit the prompt or the vocabulary.
            OutputError: if the model's logits are not finite or of a wrong shape.
            UnknownOperatorError: if a differentiable operator has no rule.
            ModelStateError: if the model cannot generate, or is in a state in which it
                cannot be explained.
            DisconnectedError: if no relevance can reach the prompt.
        """
        prompts, targets, contrasts = self._read(
            inp, target, gen_args, contrast, skip_tokens
        )
        found: list[Any]
        if span is None and sources is None and _checked_hops(hops) == 0:
            found = self._explain(prompts, targets, contrasts, include_generated)
        elif include_generated:
            raise InputError(
                "include_generated=True belongs to a result with a column for each "
                "token; with span, sources or hops, generated_attr has what came to "
                "generated tokens. Leave it out."
            )
        else:
            found = self._explain_spans(
                prompts, targets, contrasts, target, span, sources, hops
            )
        return found[0] if prompts.single else found

    @explains
    def trace(
        self,
        inp: Any,
        target: Any = None,
        gen_args: Mapping[str, Any] | None = None,
        *,
        contrast: Any = None,
        skip_tokens: Sequence[int] | Sequence[str] | None = None,
        include_generated: bool = False,
    ) -> Trace:
        """Return what every operator received and passed on, for all tokens together.

        All target tokens of all prompts go back in one pass, each with the weight that
        it has in ``seq_attr``, whose sum over the prompts is the trace's relevance.
        Records at the end say what became of the rest: "log_prob" or "prob", what the
        step from logits to these scores changed; "positions", see
        :meth:`PositionalLRP.trace`; "other tokens", what arrived at tokens that are no
        columns (generated, skipped, padding), which counts as constant.

        Arguments as for :meth:`attribute`.
        """
        prompts, targets, contrasts = self._read(
            inp, target, gen_args, contrast, skip_tokens
        )
        counted = None
        if self.positional == "absolute":  # of each token by itself
            results = self._explain(prompts, targets, contrasts, include_generated)
            counted = sum(float(r.seq_attr.double().sum()) for r in results)
        return self._trace(prompts, targets, contrasts, include_generated, counted)

    def _read(
        self, inp: Any, target: Any, gen_args: Any, contrast: Any, skip_tokens: Any
    ) -> tuple[Prompts, list[Tensor], list[Tensor] | None]:
        """Return the prompts, their targets, and what these are contrasted with."""
        prompts = read_prompts(inp, self.tokenizer, self._device(), skip_tokens)
        answers = _answers(prompts, target, gen_args)
        if answers is not None:
            targets = read_tokens(
                answers[0] if prompts.single else answers,
                prompts,
                self.tokenizer,
                "target",
            )
        elif target is None:
            targets = generate(self.forward_func, prompts, gen_args)
        elif gen_args is not None:
            raise TargetError(
                "gen_args is for what the model generates, and target was given too. "
                "Leave one of them out."
            )
        else:
            targets = read_tokens(target, prompts, self.tokenizer, "target")
        if any(len(tokens) == 0 for tokens in targets):
            raise TargetError(
                "target is empty; expected at least one token to explain."
            )
        contrasts = None
        if contrast is not None:
            if isinstance(contrast, (int, str)) and not prompts.single:
                contrast = [contrast] * len(prompts)
            contrasts = contrasts_for(
                targets, read_tokens(contrast, prompts, self.tokenizer, "contrast")
            )
        return prompts, targets, contrasts

    def _device(self) -> torch.device:
        if isinstance(self.forward_func, nn.Module):
            for parameter in self.forward_func.parameters():
                return parameter.device
        return torch.device("cpu")

    def _explain(
        self,
        prompts: Prompts,
        targets: list[Tensor],
        contrasts: list[Tensor] | None,
        include_generated: bool,
    ) -> list[LLMRelevance]:
        sequences = arrange(self.forward_func, prompts, targets)
        with self._run(sequences, contrasts) as ran:
            found = self._relevance(ran, self._way_back(ran, ran.scores).each())
            scores, logs = ran.scores, ran.log_probs
        return [
            self._result(
                example,
                prompts,
                targets,
                sequences,
                found,
                scores.values.detach(),
                logs,
                contrasts is not None,
                include_generated,
            )
            for example in range(len(prompts))
        ]

    def _way_back(self, ran: _Ran, scores: Scores) -> WayBack:
        tensors = [leaf.leaf for leaf in ran.inputs.leaves]
        tensors += [use.leaf for use in ran.uses]
        return WayBack(ran.engine, scores, tensors, chunk_size=self.chunk_size)

    def _relevance(
        self, ran: _Ran, passes: Iterable[tuple[Tensor, ...]]
    ) -> list[Tensor]:
        """Return for each explained input the relevance, ``(sums, *input)``."""
        count = len(ran.inputs.leaves)
        times_input = ran.engine.composite.carries != "relevance"
        parts: list[list[Tensor]] = [[] for _ in range(count)]
        for gradients in passes:
            encodings = summed_by_table(
                ran.uses, gradients[count:], ran.inputs, times_input=times_input
            )
            for i, gradient in enumerate(gradients[:count]):
                relevance = gradient.to(ran.engine.identifiers.dtype)
                if self.positional is not None:
                    relevance = with_positions(relevance, encodings, self.positional, i)
                parts[i].append(relevance.detach())
        return [torch.cat(part) for part in parts]

    def _explain_spans(
        self,
        prompts: Prompts,
        targets: list[Tensor],
        contrasts: list[Tensor] | None,
        given: Any,
        span: Any,
        sources: Any,
        hops: int,
    ) -> list[SourceRelevance]:
        """Explain spans: all tokens of one go back together, and then on.

        Args:
            prompts (Prompts): what is read.
            targets (list of Tensor): what follows.
            contrasts (list of Tensor or None): what is subtracted.
            given (Any): the target as the user passed it.
            span (Any): of what follows.
            sources (Any): of the prompts.
            hops (int): how often relevance is sent on.
        """
        if self.positional == "absolute":
            raise InputError(
                "positional='absolute' adds magnitudes, which do not add up over the "
                "tokens of a span. Use positional='signed', or leave span, sources and "
                "hops out."
            )
        count = len(prompts)
        asked = [
            Wanted.read(prompts, i, targets[i], self.tokenizer, given, wanted, of)
            for i, wanted, of in zip(
                range(count),
                for_each(span, count, prompts.single, "span"),
                for_each(sources, count, prompts.single, "sources"),
                strict=True,
            )
        ]
        sequences = arrange(self.forward_func, prompts, targets)
        measure = "logit" if contrasts is not None else self.attr_target
        most = max(len(one.spans) for one in asked)
        with self._run(sequences, contrasts) as ran:
            scores = ran.scores.values.detach()
            weights = scores.new_zeros(most, *scores.shape)
            for i, one in enumerate(asked):
                for row, inside in enumerate(one.inside.to(scores.device)):
                    of_span = ran.log_probs[i, : len(inside)][inside]
                    weights[row, i, : len(inside)][inside] = sequence_weights(
                        of_span, measure
                    ).to(weights)
            flow = self._flow(ran, sequences, weights, hops)
        return [
            one.result(
                example,
                flow,
                sequences.starts[example],
                scores=(weights[:, example] * scores[example]).sum(1)
                if measure != "prob"
                else None,
                log_probs=ran.log_probs[example],
                explained=target_name(self.attr_target)
                + (", less that of another token" * (contrasts is not None)),
                method=self.composite.name,
            )
            for example, one in enumerate(asked)
        ]

    def _flow(
        self, ran: _Ran, sequences: Sequences, weights: Tensor, hops: int
    ) -> Flow:
        """Go back from weighted sums of scores, and on from generated tokens.

        Args:
            ran (_Ran): a model that ran.
            sequences (Sequences): what it read.
            weights (Tensor): of each score in each sum, ``(sums, examples, scores)``.
            hops (int): how often to go on.
        """
        back = self._way_back(ran, ran.scores)
        found = [self._relevance(ran, back.sums(weights, last=hops == 0))]
        sent_on = torch.zeros_like(ran.scores.valid)
        if hops:
            with DisableTorchFunction():
                scores, sent_on = self._above_mean(ran, sequences)
                ran.engine.check(scores.values)
                start = ran.engine.seed(scores.values)
                if ran.engine.composite.carries != "relevance":
                    start = start * scores.values.detach()
            on = self._way_back(ran, scores)
        for hop in range(1, hops + 1):
            came = came_to_generated(found[-1][-1], sequences)
            weights = torch.where(sent_on, came.to(start) / start, 0)
            found.append(self._relevance(ran, on.sums(weights, last=hop == hops)))
        last = [came_to_generated(one[-1], sequences) for one in found]
        return Flow(
            tuple(torch.stack(part) for part in zip(*found, strict=True)),
            torch.stack(last),
            sent_on,
        )

    def _above_mean(self, ran: _Ran, sequences: Sequences) -> tuple[Scores, Tensor]:
        """Return the score by which each generated token is taken further back."""
        known = ran.scores
        examples = torch.arange(len(known.positions), device=known.positions.device)
        read = known.logits[examples[:, None], known.positions]
        values, large = scores_above_mean(read, sequences.targets.to(read.device))
        values = torch.where(known.valid, values, 0)
        scores = Scores(
            values=values,
            logits=known.logits,
            positions=known.positions,
            valid=known.valid,
        )
        return scores, large & known.valid

    def _trace(
        self,
        prompts: Prompts,
        targets: list[Tensor],
        contrasts: list[Tensor] | None,
        include_generated: bool,
        counted: float | None,
    ) -> Trace:
        """Return the trace of the pass of all scores together.

        Args:
            prompts (Prompts): what is explained.
            targets (list of Tensor): what follows.
            contrasts (list of Tensor or None): what is subtracted.
            include_generated (bool): whether generated tokens are columns.
            counted (float or None): the sum of all columns; None where it is linear in
                what goes back.
        """
        sequences = arrange(self.forward_func, prompts, targets)
        tracing = Tracing()
        with self._run(sequences, contrasts, (tracing,)) as ran:
            engine, inputs, uses, scores, logs = ran
            measure = "logit" if contrasts is not None else self.attr_target
            times_input = engine.composite.carries != "relevance"
            with DisableTorchFunction():
                weights = torch.zeros_like(scores.values, requires_grad=False)
                for row, log_probs, target in zip(weights, logs, targets, strict=True):
                    known = log_probs[: len(target)]
                    row[: len(target)] = sequence_weights(known, measure)
                seeds = weights * engine.seed(scores.values)
                values = scores.values.detach()
                start = weights * values if times_input else seeds
            leaves = [leaf.leaf for leaf in inputs.leaves]
            found = engine.gradients(
                scores.values,
                [*leaves, *(use.leaf for use in uses), scores.logits],
                seeds=seeds,
            )
        *gradients, at_logits = found
        tokens = [
            leaf.relevance(g, times_input=times_input, dtype=engine.identifiers.dtype)
            for leaf, g in zip(inputs.leaves, gradients, strict=False)
        ]
        of_uses = gradients[len(leaves) :]
        encodings = summed_by_table(uses, of_uses, inputs, times_input=times_input)
        signed = [
            with_positions(t, encodings, "signed", i) for i, t in enumerate(tokens)
        ]
        at_tokens, explained = _sum(tokens), _sum(signed)
        columns = _sum(
            torch.where(shown, t, 0)
            for t, shown in zip(
                signed,
                _columns(prompts, targets, sequences, include_generated),
                strict=True,
            )
        )
        at_positions = _sum(
            use.relevance(g, times_input=times_input)
            for use, g in zip(uses, of_uses, strict=True)
        )
        elsewhere = at_tokens + at_positions - explained
        trace = tracing.trace(
            self.get_name(), start, at_tokens + at_positions, at_tokens
        )
        if self.attr_target != "logit" and at_logits is not None:
            logits = scores.logits.detach()
            begun = _sum([logits * at_logits if times_input else at_logits])
            trace = trace.begun(target_name(self.attr_target, short=True), begun)
        if self.positional is not None:
            added = 0.0 if counted is None else counted - columns
            trace = trace.closed(
                "positions",
                f"added with sign={self.positional!r}",
                received=at_positions,
                passed=at_positions - elsewhere + added,
                constant=elsewhere,
            )
        other = explained - columns
        return trace.closed(
            "other tokens", "no columns", received=other, passed=0.0, constant=other
        )

    @contextmanager
    def _run(
        self,
        sequences: Sequences,
        contrasts: list[Tensor] | None,
        observers: tuple[Observer, ...] = (),
    ) -> Iterator[_Ran]:
        """Run the model; within the block, go back from the scores."""
        encoded = PositionEncodings(len(sequences.starts), sequences.counted)
        watching = () if self.positional is None else (encoded,)
        model = self.forward_func
        with run_once(
            sequences.call,
            sequences.explained,
            None,
            composite=self.composite,
            unknown=self.unknown,
            observers=(*self.observers, *observers, *watching),
            root=model if isinstance(model, nn.Module) else None,
        ) as (engine, inputs, output):
            with DisableTorchFunction():
                logits = output_tensor(output, self.output_field)
                del output
                scores, log_probs = self._scores(logits, sequences, contrasts)
                del logits
                engine.check(scores.values)
            if not scores.values.requires_grad:
                raise _disconnected(engine)
            uses = encoded.uses if watching else []
            yield _Ran(engine, inputs, uses, scores, log_probs)

    def _scores(
        self, logits: Tensor, sequences: Sequences, contrasts: list[Tensor] | None
    ) -> tuple[Scores, Tensor]:
        """Return the explained scores and the log-probabilities of all targets."""
        check_logits(logits)
        left_out = sequences.explained[-1].shape[1] - logits.shape[1]
        positions = sequences.positions.to(logits.device) - left_out
        if int(positions.min()) < 0:
            raise InputError(
                f"the model returned logits for {logits.shape[1]} of "
                f"{sequences.explained[-1].shape[1]} tokens; expected one for each."
            )
        tokens = [sequences.targets]
        if contrasts is not None:
            tokens.append(_like(sequences.targets, contrasts))
        tokens = [ids.to(logits.device) for ids in tokens]
        valid = sequences.valid.to(logits.device)
        for ids in tokens:
            if int(ids.min()) < 0 or int(ids.max()) >= logits.shape[2]:
                raise TargetError(
                    f"target or contrast has token {int(ids.max())} (lowest "
                    f"{int(ids.min())}); expected 0 ... {logits.shape[2] - 1}."
                )
        examples = torch.arange(len(positions), device=logits.device)[:, None]
        read = logits[examples, positions]
        values = [scores_of_tokens(read, ids, self.attr_target) for ids in tokens]
        scores = values[0] - values[1] if len(values) == 2 else values[0]
        log_probs = scores_of_tokens(read.detach(), tokens[0], "log_prob")
        scores = torch.where(valid, scores, 0)
        check_finite(scores)
        found = Scores(values=scores, logits=logits, positions=positions, valid=valid)
        return found, log_probs

    def _result(
        self,
        example: int,
        prompts: Prompts,
        targets: list[Tensor],
        sequences: Sequences,
        relevance: list[Tensor],
        scores: Tensor,
        log_probs: Tensor,
        contrasted: bool,
        include_generated: bool,
    ) -> LLMRelevance:
        ids, target = prompts.ids[example], targets[example]
        count, start = len(target), sequences.starts[example]
        of_prompt = relevance[0][:count, example, : len(ids)]
        of_prompt = torch.where(prompts.masks[example] == 0, 0, of_prompt)
        last = relevance[-1][:count, example]
        generated = torch.zeros(count, count, dtype=last.dtype, device=last.device)
        generated[:, : count - 1] = last[:, start : start + count - 1]
        shown = prompts.columns[example]
        columns = of_prompt[:, shown]
        names = column_names(ids[shown], self.tokenizer)
        rows = row_names(target, self.tokenizer)
        if include_generated:
            columns = torch.cat([columns, generated], 1)
            names = names + rows
        chances = log_probs[example, :count]
        weights = sequence_weights(chances, "logit" if contrasted else self.attr_target)
        return LLMRelevance(
            token_attr=columns,
            seq_attr=(weights.to(columns.dtype)[:, None] * columns).sum(0),
            input_tokens=names,
            output_tokens=rows,
            scores=scores[example, :count],
            log_probs=chances,
            generated_attr=generated,
            start_attr=last[:, : start if len(relevance) > 1 else 0],
            skipped_attr=of_prompt[:, ~shown].sum(1),
        )

    def __repr__(self) -> str:
        model = type(self.forward_func).__name__
        return (
            f"{type(self).__name__}({model}, composite={self.composite.name!r}, "
            f"attr_target={self.attr_target!r})"
        )


class _Ran(NamedTuple):
    """A model that ran, its graph still there to go back through."""

    engine: Engine
    inputs: Inputs
    uses: list[PositionUse]
    scores: Scores
    log_probs: Tensor


def _checked_hops(hops: Any) -> int:
    if not isinstance(hops, int) or isinstance(hops, bool) or hops < 0:
        raise InputError(
            f"hops={hops!r}; expected how often relevance is sent on, an int from 0."
        )
    return hops


def _answers(prompts: Prompts, target: Any, gen_args: Any) -> list[str] | None:
    """Return what the assistants wrote last, where chats end so.

    Raises:
        TargetError: something else is to be explained, too, or only some end so.
    """
    said = [one.answer if isinstance(one, Chat) else None for one in prompts.origins]
    if all(one is None for one in said):
        return None
    if target is not None or gen_args is not None:
        name = "gen_args was" if target is None else "target was"
        raise TargetError(
            "the chat ends with the assistant's message, which is what is explained, "
            f"and {name} given too. Leave one of them out."
        )
    found = [one for one in said if one is not None]
    if len(found) < len(said):
        raise TargetError(
            "some of the chats end with the assistant's message and some do not; "
            "expected all or none."
        )
    return found


def _sum(tensors: Iterable[Tensor]) -> float:
    return sum(float(tensor.detach().double().sum()) for tensor in tensors)


def _columns(
    prompts: Prompts,
    targets: list[Tensor],
    sequences: Sequences,
    include_generated: bool,
) -> list[Tensor]:
    """Return, for each explained input, which tokens are columns of the result."""
    shown = [torch.zeros_like(ids, dtype=torch.bool) for ids in sequences.explained]
    for example, (ids, target) in enumerate(zip(prompts.ids, targets, strict=True)):
        shown[0][example, : len(ids)] = prompts.columns[example] & (
            prompts.masks[example] != 0
        )
        if include_generated:
            start = sequences.starts[example]
            shown[-1][example, start : start + len(target) - 1] = True
    return shown


def _like(targets: Tensor, rows: list[Tensor]) -> Tensor:
    """Return rows padded to the shape of the targets."""
    result = torch.zeros_like(targets)
    for i, row in enumerate(rows):
        result[i, : len(row)] = row
    return result


def _disconnected(engine: Engine) -> LRPError:
    if not engine.identifiers.read:
        return InputError(
            "no embedding of the model looked up the token ids that it was called "
            "with. LLMTransformerLRP explains models of token ids."
        )
    return DisconnectedError(
        "the scores do not depend on the prompt through operators that "
        f"{engine.composite.name} lets relevance pass. Look for detach() or "
        "torch.no_grad() in the model."
    )
