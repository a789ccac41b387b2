"""What a language model's explanation is: a row per generated token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from captum.attr import LLMAttributionResult
from torch import Tensor

from .. import records
from .._version import __version__
from ..visualization.saving import check_suffix

JSON_SCHEMA = "captum_transformer_lrp.generation/1"


class LLMRelevance(LLMAttributionResult):
    """Captum's result, which plots, with what else one forward pass has told.

    Attributes:
        seq_attr (Tensor): relevance of each column for the whole sequence.
        token_attr (Tensor): relevance of each column for each generated token, shape
            ``(generated tokens, columns)``.
        input_tokens (list of str): the columns: tokens of the prompt (of the source,
            for an encoder-decoder), and with ``include_generated`` those generated.
        output_tokens (list of str): the rows.
        scores (Tensor): what was explained of each generated token.
        log_probs (Tensor): their log-probabilities, of that shape.
        output_probs (Tensor): their probabilities.
        generated_attr (Tensor): relevance of each generated token for each later one,
            shape ``(generated tokens, generated tokens)``, 0 on and above the diagonal.
        start_attr (Tensor): of an encoder-decoder, relevance of the tokens that its
            decoder was started with, shape ``(generated tokens, start tokens)``; no
            columns for other models.
        skipped_attr (Tensor): relevance of the columns that ``skip_tokens`` left out,
            summed, shape ``(generated tokens,)``.
    """

    def __init__(
        self,
        *,
        token_attr: Tensor,
        seq_attr: Tensor,
        input_tokens: list[str],
        output_tokens: list[str],
        scores: Tensor,
        log_probs: Tensor,
        generated_attr: Tensor,
        start_attr: Tensor,
        skipped_attr: Tensor,
    ) -> None:
        super().__init__(
            seq_attr=seq_attr,
            token_attr=token_attr,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
        )
        self.output_probs = log_probs.exp()
        self.scores = scores
        self.log_probs = log_probs
        self.generated_attr = generated_attr
        self.start_attr = start_attr
        self.skipped_attr = skipped_attr

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`save` keeps, as Python objects.

        ``schema`` is ``"captum_transformer_lrp.generation/1"``, ``kind``
        ``"generation"``; ``version`` is that of this package, ``dtypes`` has the type
        of each tensor. The other keys are the attributes of the class, tensors as
        lists.
        """
        names = records.GENERATION_TENSORS
        tensors = {name: getattr(self, name).detach().cpu() for name in names}
        dtypes = {n: str(t.dtype).removeprefix("torch.") for n, t in tensors.items()}
        return {
            "schema": JSON_SCHEMA,
            "version": __version__,
            "kind": "generation",
            "input_tokens": list(self.input_tokens),
            "output_tokens": list(self.output_tokens),
            "dtypes": dtypes,
            **{name: tensor.double().tolist() for name, tensor in tensors.items()},
        }

    def save(self, path: str | Path) -> Path:
        """Write it for :func:`~captum_transformer_lrp.load`, by the suffix of ``path``.

        Args:
            path (str or Path): The file: .json, .safetensors or .parquet.

        Returns:
            *Path*: The file that was written.

        Raises:
            UnknownNameError: The suffix is another one.
            InputError: A score is NaN or infinite.
            MissingPackageError: The package that writes such files is not installed.
        """
        check_suffix(path, records.SUFFIXES)
        return records.write(Path(path), [self.to_dict()], several=False)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({len(self.output_tokens)} generated tokens x "
            f"{len(self.input_tokens)} columns)"
        )
