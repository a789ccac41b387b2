"""What users pass as prompt, target and contrast, read into lists of token ids."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from captum.attr import TextTokenInput
from torch import Tensor

from .._forms import KNOWN_KEYS
from ..errors import ConstantInputWarning, InputError, TargetError
from .chats import Chat, is_chat
from .written import Written, write_down


@dataclass(frozen=True, kw_only=True, eq=False)
class Prompts:
    """One prompt or several, without padding around them.

    Attributes:
        ids (list of Tensor): of each prompt, shape ``(tokens,)``.
        masks (list of Tensor): 1 for tokens, 0 for padding between them, alike.
        columns (list of Tensor): whether a token is to be a column, alike.
        per_token (dict): further tensors with an entry for each token, as lists alike.
        constants (dict): further arguments of the model, as they are.
        single (bool): one prompt, for which one result is wanted.
        origins (list): of each prompt its text, its :class:`.Chat`, or None for tokens.
    """

    ids: list[Tensor]
    masks: list[Tensor]
    columns: list[Tensor]
    per_token: dict[str, list[Tensor]]
    constants: dict[str, Any]
    single: bool
    origins: list[str | Chat | None]

    def __len__(self) -> int:
        return len(self.ids)

    def written(self, example: int, tokenizer: Any) -> Written:
        """Return the text of a prompt, with the characters of each token.

        Raises:
            InputError: the text cannot be told from the tokens.
        """
        ids, origin = self.ids[example], self.origins[example]
        if not isinstance(origin, Chat):
            return write_down(ids, tokenizer, origin, added=True)
        found = write_down(ids, tokenizer, origin.text)
        if found.text != origin.text:
            raise InputError(
                "the tokenizer does not give back the text of the chat, so that its "
                "messages cannot be found in it. Name the sources by tokens or ranges "
                "of what tokenizer.decode returns, and pass token ids."
            )
        return replace(found, own=origin.own())


def read_prompts(
    inp: Any,
    tokenizer: Any,
    device: torch.device,
    skip_tokens: Sequence[int] | Sequence[str] | None,
) -> Prompts:
    """Read prompts.

    Args:
        inp (str, Tensor, Mapping, TextTokenInput, or list of str): see
            :meth:`~.llm_transformer_lrp.LLMTransformerLRP.attribute`.
        tokenizer (Any): a Hugging Face tokenizer, or None where ``inp`` is tokens.
        device (torch.device): of the model.
        skip_tokens (sequence of int or of str, optional): left out of the columns.

    Raises:
        InputError: if the prompt is of another type or shape, or empty.
    """
    shown: Tensor | None = None
    batch: Mapping[str, Any]
    single = not isinstance(inp, (list, tuple)) or is_chat(inp)
    origins: list[Any] | None = None
    if is_chat(inp):
        inp = [inp]
    if isinstance(inp, (list, tuple)) and inp and all(map(is_chat, inp)):
        origins = [Chat.read(one, tokenizer) for one in inp]
        # the template wrote the special tokens
        texts = [_encode(chat.text, tokenizer, special=False) for chat in origins]
        batch = _batch(texts)
    elif isinstance(inp, TextTokenInput):
        batch, shown = {"input_ids": inp.inp_tensor}, inp.itp_mask
    elif isinstance(inp, str):
        origins = [inp]
        batch = {"input_ids": _encode(inp, tokenizer, special=True)[None]}
    elif (
        isinstance(inp, (list, tuple)) and all(isinstance(x, str) for x in inp) and inp
    ):
        origins = list(inp)
        batch = _batch([_encode(text, tokenizer, special=True) for text in inp])
    elif isinstance(inp, Tensor):
        batch = {"input_ids": inp[None] if inp.dim() == 1 else inp}
    elif isinstance(inp, Mapping):
        batch = inp
    else:
        raise InputError(
            f"inp is a {type(inp).__name__}; expected a text, a list of texts, a "
            "tensor of token ids, a tokenizer's mapping, a list of messages, or "
            "captum.attr.TextTokenInput."
        )
    ids = _checked_ids(batch.get("input_ids"))
    mask = _checked_mask(batch.get("attention_mask"), ids)
    spans = [_span(row) for row in mask]
    cut = [slice(*span) for span in spans]

    def rows(tensor: Tensor) -> list[Tensor]:
        return [
            row[part].to(device)
            for row, part in zip(tensor.expand(ids.shape), cut, strict=True)
        ]

    per_token, constants = {}, {}
    for key, value in batch.items():
        if key in ("input_ids", "attention_mask"):
            continue
        if isinstance(value, Tensor) and value.shape == ids.shape and _is_whole(value):
            per_token[key] = rows(value)
        else:
            constants[key] = value.to(device) if isinstance(value, Tensor) else value
            if key in KNOWN_KEYS and isinstance(value, Tensor):
                warnings.warn(
                    f"{key} is held constant: tokens in its place have no relevance, "
                    "and the rest is what the words have beside it. Explainer(pipe) "
                    "with a pipeline of transformers explains both.",
                    ConstantInputWarning,
                    stacklevel=5,
                )
    found = rows(ids.long())
    columns = rows(torch.ones_like(ids) if shown is None else shown)
    if skip_tokens is not None:
        skipped = torch.tensor(_identifiers(skip_tokens, tokenizer), device=device)
        columns = [
            c.bool() & ~torch.isin(row, skipped)
            for c, row in zip(columns, found, strict=True)
        ]
    return Prompts(
        ids=found,
        masks=rows(mask),
        columns=[c.bool() for c in columns],
        per_token=per_token,
        constants=constants,
        single=single and len(found) == 1,
        origins=origins or [None] * len(found),
    )


def _batch(texts: list[Tensor]) -> dict[str, Tensor]:
    there = [torch.ones_like(text) for text in texts]
    return {"input_ids": padded(texts), "attention_mask": padded(there)}


def read_tokens(
    value: Any, prompts: Prompts, tokenizer: Any, name: str
) -> list[Tensor]:
    """Read what was, or might have been, generated: token ids for each prompt.

    Args:
        value (Any): a text, a tensor or a list of ids, or one of these for each prompt.
        prompts (Prompts): that they follow.
        tokenizer (Any): a Hugging Face tokenizer, or None.
        name (str): of the argument, for messages.

    Raises:
        TargetError: if it is of another type, or not one for each prompt.
    """
    if prompts.single:
        if isinstance(value, Tensor) and value.dim() == 2 and len(value) == 1:
            value = value[0]
        values = [value]
    else:
        if not isinstance(value, (list, tuple, Tensor)) or len(value) != len(prompts):
            raise TargetError(
                f"{name} is {_described(value)}; expected one for each of the "
                f"{len(prompts)} prompts, in a list or a tensor (prompts, tokens)."
            )
        values = list(value)
    device = prompts.ids[0].device
    return [_tokens(v, tokenizer, name).to(device) for v in values]


def contrasts_for(targets: list[Tensor], contrasts: list[Tensor]) -> list[Tensor]:
    """Return the token that each target is contrasted with.

    Raises:
        TargetError: if there is neither one for all nor one for each.
    """
    found = []
    for target, contrast in zip(targets, contrasts, strict=True):
        if len(contrast) not in (1, len(target)):
            raise TargetError(
                f"contrast has {len(contrast)} tokens for {len(target)} generated "
                "ones; expected one for all of them, or one for each."
            )
        found.append(contrast.expand(len(target)))
    return found


def padded(rows: Iterable[Tensor], *, fill: int = 0, left: bool = False) -> Tensor:
    """Return rows of different lengths as one tensor."""
    listed = list(rows)
    longest = max(len(row) for row in listed)
    result = listed[0].new_full((len(listed), longest), fill)
    for i, row in enumerate(listed):
        if left:
            result[i, longest - len(row) :] = row
        else:
            result[i, : len(row)] = row
    return result


def column_names(ids: Tensor, tokenizer: Any) -> list[str]:
    """Return the tokens of a prompt as the vocabulary spells them, as Captum does."""
    numbers = [int(i) for i in ids]
    if tokenizer is None:
        return [str(i) for i in numbers]
    found = tokenizer.convert_ids_to_tokens(numbers)
    return [
        f"<{number}>" if token is None else str(token)  # not in the vocabulary
        for number, token in zip(numbers, found, strict=True)
    ]


def row_names(ids: Tensor, tokenizer: Any) -> list[str]:
    """Return generated tokens as text; what is none, as the vocabulary spells it."""
    names = column_names(ids, tokenizer)
    if tokenizer is None:
        return names
    texts = [tokenizer.decode([int(i)]).replace("\n", "\\n").strip() for i in ids]
    return [
        name if not text or "\ufffd" in text else text
        for text, name in zip(texts, names, strict=True)
    ]


def _encode(text: str, tokenizer: Any, *, special: bool) -> Tensor:
    if tokenizer is None:
        raise InputError(
            f"the text {text[:40]!r} needs a tokenizer: pass it, or pass token ids."
        )
    ids = tokenizer.encode(text, add_special_tokens=special)
    return torch.as_tensor(ids, dtype=torch.int64).flatten()


def _tokens(value: Any, tokenizer: Any, name: str) -> Tensor:
    if isinstance(value, str):
        return _encode(value, tokenizer, special=False)
    if isinstance(value, Tensor) and not value.is_floating_point() and value.dim() <= 1:
        return value.reshape(-1).long()
    if isinstance(value, int):
        return torch.tensor([value])
    whole = isinstance(value, (list, tuple)) and all(isinstance(v, int) for v in value)
    if whole:
        return torch.tensor(value, dtype=torch.int64)
    raise TargetError(
        f"{name} is {_described(value)}; expected a text, or token ids of shape "
        "(tokens,)."
    )


def _identifiers(tokens: Sequence[int] | Sequence[str], tokenizer: Any) -> list[int]:
    texts = [t for t in tokens if isinstance(t, str)]
    if not texts:
        return [int(t) for t in tokens]
    if len(texts) < len(tokens) or tokenizer is None:
        raise InputError(
            f"skip_tokens={list(tokens)!r}; expected token ids, or with a tokenizer "
            "tokens of its vocabulary."
        )
    return list(tokenizer.convert_tokens_to_ids(texts))


def _checked_ids(ids: Any) -> Tensor:
    if not isinstance(ids, Tensor) or ids.is_floating_point() or ids.dim() != 2:
        raise InputError(
            f"inp has input_ids {_described(ids)}; expected a tensor of integers of "
            'shape (examples, tokens). Call the tokenizer with return_tensors="pt".'
        )
    return ids


def _checked_mask(mask: Any, ids: Tensor) -> Tensor:
    if mask is None:
        return torch.ones_like(ids)
    if not isinstance(mask, Tensor) or mask.shape != ids.shape:
        raise InputError(
            f"attention_mask is {_described(mask)}; expected a tensor of shape "
            f"{tuple(ids.shape)}, as input_ids has."
        )
    return mask


def _span(mask: Tensor) -> tuple[int, int]:
    """Return where the tokens begin and end between the padding around them."""
    there = mask.nonzero().flatten().tolist()
    if not there:
        raise InputError("a prompt has no token: give it at least a start token.")
    return there[0], there[-1] + 1


def _is_whole(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() and tensor.dtype != torch.bool


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and dtype {value.dtype}"
    return f"a {type(value).__name__}: {str(value)[:40]!r}"
