"""Prompts and what follows them as one call of the model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._copied import copied
from ..errors import InputError, ModelStateError
from .prompts import Prompts, padded

#: what generation stops at, and how much it makes, as in Captum
GENERATION: dict[str, Any] = {
    "max_new_tokens": 25,
    "do_sample": False,
    "temperature": None,
    "top_p": None,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Sequences:
    """All generated tokens of all prompts in one call, padded behind.

    Attributes:
        explained (tuple of Tensor): token ids, ``(examples, tokens)`` each: the prompts
            and what follows; or the sources, and what the decoder receives.
        call (Callable): takes them, returns what the model returns.
        positions (Tensor): where each generated token is predicted, in the last of
            them, ``(examples, generated)``.
        valid (Tensor): False where an example has fewer, of that shape.
        targets (Tensor): the generated tokens, of that shape.
        starts (list of int): where the generated tokens begin in the last of them.
        counted (tuple of Tensor): positions that the user gave.
    """

    explained: tuple[Tensor, ...]
    call: Callable[..., Any]
    positions: Tensor
    valid: Tensor
    targets: Tensor
    starts: list[int]
    counted: tuple[Tensor, ...] = ()


def is_encoder_decoder(model: Any) -> bool:
    """Whether a model has an encoder that reads and a decoder that writes."""
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


def arrange(model: Any, prompts: Prompts, targets: list[Tensor]) -> Sequences:
    """Return the one call that predicts all targets.

    Args:
        model (Callable): a language model.
        prompts (Prompts): that are continued.
        targets (list of Tensor): the tokens that follow each, ``(tokens,)``.

    Raises:
        InputError: if the prompts have what the model does not take, or what cannot be
            continued.
    """
    if is_encoder_decoder(model):
        return _encoder_decoder(model, prompts, targets)
    return _decoder(model, prompts, targets)


def _decoder(model: Any, prompts: Prompts, targets: list[Tensor]) -> Sequences:
    starts = [len(ids) for ids in prompts.ids]
    wholes = [
        torch.cat([ids, target[:-1]])
        for ids, target in zip(prompts.ids, targets, strict=True)
    ]
    ids = padded(wholes)
    keywords: dict[str, Any] = dict(prompts.constants)
    masks = _continued(prompts.masks, targets, "attention_mask")
    for key, rows in prompts.per_token.items():
        keywords[key] = padded(_continued(rows, targets, key))
    accepted = _accepted(model)
    inner = any(bool((mask == 0).any()) for mask in masks)
    if inner or len({len(whole) for whole in wholes}) > 1:
        _add_mask(keywords, masks, accepted, needed=inner)
    if "use_cache" in accepted:
        keywords["use_cache"] = False
    if "logits_to_keep" in accepted:
        keywords["logits_to_keep"] = ids.shape[1] - min(starts) + 1
    by_name = "input_ids" in accepted or "**" in accepted

    def call(tokens: Tensor) -> Any:
        given = copied(keywords)
        if by_name:
            return model(input_ids=tokens, **given)
        return model(tokens, **given)

    return Sequences(
        explained=(ids,),
        call=call,
        starts=starts,
        counted=tuple(v for k, v in keywords.items() if k == "position_ids"),
        **_read([start - 1 for start in starts], targets),
    )


def _encoder_decoder(model: Any, prompts: Prompts, targets: list[Tensor]) -> Sequences:
    keywords = dict(prompts.constants)
    begin = keywords.pop("decoder_input_ids", None)
    keywords.pop("decoder_attention_mask", None)
    if begin is None:
        begin = targets[0].new_full((len(prompts), 1), _start_of_decoder(model))
    if not isinstance(begin, Tensor) or len(begin) != len(prompts) or begin.dim() != 2:
        raise InputError(
            "decoder_input_ids: expected a tensor of shape (examples, tokens), what "
            "the decoder starts with."
        )
    decoder = padded(
        torch.cat([row, target[:-1]])
        for row, target in zip(begin, targets, strict=True)
    )
    accepted = _accepted(model)
    inner = any(bool((mask == 0).any()) for mask in prompts.masks)
    if inner or len({len(ids) for ids in prompts.ids}) > 1:
        _add_mask(keywords, prompts.masks, accepted, needed=True)
    for key, rows in prompts.per_token.items():
        keywords[key] = padded(rows)
    if "use_cache" in accepted:
        keywords["use_cache"] = False

    def call(source: Tensor, decoder_ids: Tensor) -> Any:
        given = copied(keywords)
        return model(input_ids=source, decoder_input_ids=decoder_ids, **given)

    start = begin.shape[1]
    return Sequences(
        explained=(padded(prompts.ids), decoder),
        call=call,
        starts=[start] * len(prompts),
        **_read([start - 1] * len(prompts), targets),
    )


def _read(first: list[int], targets: list[Tensor]) -> dict[str, Any]:
    """Return where each target is predicted, whether there is one, and which."""
    device = targets[0].device
    steps = padded(torch.arange(len(t), device=device) for t in targets)
    valid = padded(torch.ones_like(t) for t in targets).bool()
    positions = steps + torch.tensor(first, device=device)[:, None]
    # an example with fewer targets reads its first position once more, for nothing
    return {"positions": positions, "valid": valid, "targets": padded(targets)}


def _continued(rows: list[Tensor], targets: list[Tensor], key: str) -> list[Tensor]:
    """Return what a model is told of each token, continued for generated ones."""
    found = []
    for row, target in zip(rows, targets, strict=True):
        count = len(target) - 1
        more = row.new_zeros(count)
        if key == "attention_mask":
            more = more + 1
        elif key == "token_type_ids":
            more = row[-1:].expand(count)
        elif key == "position_ids":
            more = row[-1] + 1 + torch.arange(count, device=row.device)
        elif key != "mm_token_type_ids":
            raise InputError(
                f"inp has {key!r} of shape (examples, tokens); how it goes on for "
                "generated tokens is not known. Leave it out, or explain one token at "
                "a time with TransformerLRP."
            )
        found.append(torch.cat([row, more.to(row.dtype)]))
    return found


def _add_mask(
    keywords: dict[str, Any],
    masks: list[Tensor],
    accepted: frozenset[str],
    *,
    needed: bool,
) -> None:
    if "attention_mask" in accepted or "**" in accepted:
        keywords["attention_mask"] = padded(masks)
    elif needed:
        raise InputError(
            "the prompts are padded, and the model takes no attention_mask. Pass one "
            "prompt at a time."
        )


def _accepted(model: Any) -> frozenset[str]:
    """Return the names that a model takes; ``"**"`` where it takes any."""
    function = model.forward if isinstance(model, nn.Module) else model
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # builtins have none
        return frozenset()
    names = {p.name for p in parameters}
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        names.add("**")
    return frozenset(names)


def _start_of_decoder(model: Any) -> int:
    for config in (getattr(model, "generation_config", None), model.config):
        start = getattr(config, "decoder_start_token_id", None)
        if start is not None:
            return int(start if isinstance(start, int) else start[0])
    raise InputError(
        "the model's configuration has no decoder_start_token_id. Pass a mapping with "
        "decoder_input_ids, what its decoder starts with."
    )


def generate(
    model: Any, prompts: Prompts, gen_args: Mapping[str, Any] | None
) -> list[Tensor]:
    """Let the model generate, and return what follows each prompt.

    Args:
        model (Any): with Hugging Face's ``generate``.
        prompts (Prompts): to be continued.
        gen_args (Mapping, optional): as for ``generate``. Default: up to 25 tokens, the
            most probable each

    Raises:
        ModelStateError: if it cannot generate, or returned something else.
    """
    function = getattr(model, "generate", None)
    if not callable(function):
        raise ModelStateError(
            f"{type(model).__name__} has no method generate(); pass target=, the text "
            "or tokens to explain."
        )
    options = dict(GENERATION if gen_args is None else gen_args)
    after = is_encoder_decoder(model)
    inputs: dict[str, Any] = copied(prompts.constants)
    inputs["input_ids"] = padded(prompts.ids, left=not after)
    inputs["attention_mask"] = padded(prompts.masks, left=not after)
    for key, rows in prompts.per_token.items():
        inputs[key] = padded(rows, left=not after)
    if after:
        begin = inputs.get("decoder_input_ids")
        start = 1 if begin is None else begin.shape[1]
    else:
        start = inputs["input_ids"].shape[1]
    with torch.no_grad():
        output = function(**inputs, **options)
    output = getattr(output, "sequences", output)
    if not isinstance(output, Tensor) or len(output) != len(prompts):
        raise ModelStateError(
            f"generate() returned {len(output)} sequences for {len(prompts)} prompts; "
            "expected one each. Leave num_return_sequences out of gen_args."
        )
    given = inputs.get("decoder_input_ids") if after else inputs["input_ids"]
    if given is not None and not torch.equal(output[:, :start], given):
        raise ModelStateError(
            "generate() returned sequences that do not begin with what it was given. "
            "Generate yourself, and pass what follows the prompt as target=."
        )
    ends = _end_tokens(model, options)
    return [_until_end(row[start:], ends) for row in output]


def _end_tokens(model: Any, options: Mapping[str, Any]) -> list[int]:
    end = options.get("eos_token_id")
    if end is None:
        end = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    if end is None:
        return []
    return [int(e) for e in (torch.as_tensor(end).reshape(-1).tolist())]


def _until_end(row: Tensor, ends: list[int]) -> Tensor:
    """Return a generated row up to its first end token; padding stands behind it."""
    for place, token in enumerate(row.tolist()):
        if token in ends:
            return row[: place + 1]
    return row
