"""How alike texts are, pair by pair of their words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..attribution import PairLRP
from ..attribution.pair_relevance import PairRelevance
from ..errors import InputError
from .asking import Asked, Question, Task
from .generation import composite_of
from .reads import pieces_of

#: options of ``PairLRP`` that stand in a call; the rest are options of the explainer
_OPTIONS = ("pooling", "normalize", "projections")


class SentenceSimilarity(Task):
    """Which words of two texts make them alike.

    Called with ``source_sentence=`` and ``sentences=``, a text or several; the result
    is a :class:`~captum_transformer_lrp.PairRelevance` for each. The embedding of a
    text is the mean of its tokens' states unless ``pooling=`` says otherwise, or that
    of a model of Sentence Transformers. Take ``method="cp-lrp"``: under rules that do
    not conserve, constants also hold what these lose.
    """

    name = "sentence-similarity"
    about = "the cosine of two embeddings, over pairs of tokens"
    takes = "source_sentence=..., a text, and sentences=[...]"
    several = True
    loads = "AutoModel"

    def inputs(
        self, text: Any, image: Any, further: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the texts, also of a mapping."""
        found = dict(further)
        if isinstance(text, Mapping):
            found |= text
        elif text is not None:
            found.setdefault("source_sentence", text)
        return found

    def one_by_one(self, given: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        """Return None: one call is one question."""
        return None

    def ask(self, pipe: Any, given: Mapping[str, Any]) -> Asked:
        """Check the texts; they are read when they are explained."""
        first, others = given.get("source_sentence"), given.get("sentences")
        listed = [others] if isinstance(others, str) else others
        texts = [first, *(listed if isinstance(listed, (list, tuple)) else [None])]
        if len(texts) < 2 or not all(isinstance(t, str) and t.strip() for t in texts):
            raise InputError(
                f"the task {self.name!r} takes {self.takes}, got "
                f"source_sentence={first!r} and sentences={others!r}"
            )
        return Asked(pipe, {**given, "sentences": listed}, None, [])

    def results(self, asked: Asked, target: Any, by: Any) -> list[PairRelevance]:
        """Return the pairs of the first text and each of the others."""
        composite = composite_of(by.method)
        if composite is None or target is not None:
            what = f"target={target!r}" if target is not None else f"{by.method!r}"
            raise InputError(
                f"pairs of words are found by methods with a table of rules and have "
                f"no target: pass method='cp-lrp', got {what}"
            )
        pipe, given = asked.pipe, dict(asked.given)
        model = pipe.model
        chosen = {k: given.pop(k) for k in _OPTIONS if k in given}
        if not _embeds(model):
            chosen.setdefault("pooling", "mean")
        first, others = given.pop("source_sentence"), given.pop("sentences")
        if given:
            raise InputError(
                f"{next(iter(given))}= is no option of the task {self.name!r}: "
                f"expected {', '.join(_OPTIONS)}"
            )
        pairs = PairLRP(
            model,
            composite=composite,
            tokenizer=pipe.tokenizer,
            **{**chosen, **by.options},
        )
        found = []
        for other in others:
            if _embeds(model):
                found.append(pairs.attribute(first, other))
                continue
            one, two = (_read(pipe, text) for text in (first, other))
            found.append(
                pairs.attribute(one[0], two[0], labels_a=one[1], labels_b=two[1])
            )
        return found

    def questions(self, asked: Asked, target: Any) -> Iterator[Question]:
        """Yield nothing: pairs have no single score to start from."""
        yield from ()


class FeatureExtraction(SentenceSimilarity):
    """The same for a pipeline that returns the states of a text."""

    name = "feature-extraction"
    loads = ""


def _embeds(model: Any) -> bool:
    """Whether a model makes one embedding of a text by itself."""
    return hasattr(model, "encode") and hasattr(model, "tokenize")


def _read(pipe: Any, text: str) -> tuple[dict[str, Any], Any]:
    """Return what a model takes of a text, and the tokens as a person reads them."""
    limits = (
        getattr(pipe.model.config, "max_position_embeddings", None),
        pipe.tokenizer.model_max_length,
    )
    limit = min((n for n in limits if n is not None and 0 < n < 10**9), default=None)
    batch = pipe.tokenizer(
        text,
        return_tensors="pt",
        truncation=limit is not None,
        max_length=limit,
        verbose=False,
    ).to(pipe.device)
    ids = batch["input_ids"][0].tolist()
    return dict(batch), pieces_of(pipe.tokenizer, ids, text)
