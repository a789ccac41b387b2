"""The special tokens of a tokenizer: which stand around a text, which for no word."""

from __future__ import annotations

from typing import Any


def special_ids(tokenizer: Any) -> tuple[int, ...]:
    """Return the identifiers that a tokenizer adds around a text, such as [CLS].

    The unknown token stands for a word of the text, and the mask token for a gap in it;
    they are left out.
    """
    if tokenizer is None:
        return ()
    words = {_unknown_id(tokenizer), getattr(tokenizer, "mask_token_id", None)}
    return tuple(sorted(set(tokenizer.all_special_ids) - words))


def baseline_id(tokenizer: Any, *, mask_first: bool = False) -> int | None:
    """Return what can stand for "no token here": padding, else mask, else unknown.

    Args:
        tokenizer (Any): a Hugging Face tokenizer, or None.
        mask_first (bool, optional): take the mask token, which stands for an unknown
            word, before padding. Default: False
    """
    if tokenizer is None:
        return None
    found = [tokenizer.pad_token_id, getattr(tokenizer, "mask_token_id", None)]
    found = [*(reversed(found) if mask_first else found), _unknown_id(tokenizer)]
    return next((int(i) for i in found if i is not None), None)


def placeholder_ids(model: Any) -> tuple[int, ...]:
    """Return the identifiers that a model puts pictures or sounds in the place of."""
    config = getattr(model, "config", None)
    kinds = ("image", "video", "audio")
    names = (f"{kind}_token_{what}" for kind in kinds for what in ("id", "index"))
    found = {getattr(config, name, None) for name in names}
    return tuple(sorted(i for i in found if isinstance(i, int)))


def _unknown_id(tokenizer: Any) -> int | None:
    """Return the unknown token, where it does not also end a text, as GPT-2's does."""
    ends = tokenizer.unk_token_id == getattr(tokenizer, "eos_token_id", None)
    return None if ends else tokenizer.unk_token_id
