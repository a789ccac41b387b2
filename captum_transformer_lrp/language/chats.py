"""Chats: lists of messages, written as a text by the tokenizer's template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..models.special_tokens import special_ids
from .passages import Passage

#: stands for what a message says, and in no text
_HERE = "\ue0f0\ue0f1\ue0f0"


def is_chat(value: Any) -> bool:
    """Return whether this is a chat: messages, or a mapping that has them."""
    if isinstance(value, Mapping):
        return "messages" in value
    return (
        isinstance(value, (list, tuple))
        and bool(value)
        and all(isinstance(one, Mapping) and "role" in one for one in value)
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Chat:
    """A chat as its template writes it.

    Attributes:
        messages (list of dict): what is read; the answer is not among them.
        options (dict): what else the template takes, such as ``tools``.
        tokenizer (Any): with the template.
        text (str): the prompt, up to where the assistant is to write.
        answer (str or None): what the assistant wrote last, where the chat ends so.
    """

    messages: list[dict[str, Any]]
    options: dict[str, Any]
    tokenizer: Any
    text: str
    answer: str | None

    @classmethod
    def read(cls, value: Any, tokenizer: Any) -> Chat:
        """Return a chat.

        Args:
            value (list or Mapping): messages with ``role`` and ``content``; or a
                mapping with ``messages`` and what else the template takes.
            tokenizer (Any): of Hugging Face, with a chat template.

        Raises:
            InputError: there is no template, or it does not take these messages.
        """
        options = dict(value) if isinstance(value, Mapping) else {"messages": value}
        messages = options.pop("messages")
        if not is_chat(messages) or isinstance(messages, Mapping):
            raise InputError(
                f"messages is {str(messages)[:60]!r}; expected a list of messages, "
                'such as {"role": "user", "content": "Who wrote Emma?"}.'
            )
        if tokenizer is None or not getattr(tokenizer, "chat_template", None):
            raise InputError(
                "a chat needs a tokenizer with a chat template: pass it, or set "
                "tokenizer.chat_template, or pass the text as the model reads it."
            )
        listed = [dict(message) for message in messages]
        for message in listed:
            _refuse_pictures(message)
        answer = None
        last = listed[-1] if listed[-1]["role"] == "assistant" else None
        read = listed[:-1] if last is not None else listed
        if not read:
            raise InputError(
                "the chat has only the assistant's message; expected the messages that "
                "it answers before it."
            )
        text = _render(tokenizer, read, options, write=True)
        if last is not None:
            answer = _answer(tokenizer, listed, options, text)
        return cls(
            messages=read,
            options=options,
            tokenizer=tokenizer,
            text=text,
            answer=answer,
        )

    def own(self) -> list[Passage]:
        """Return where each message stands, without what the template puts around it.

        The chat is written once more for each message, with something else in its
        place: what differs is the message, tool calls included.

        Raises:
            InputError: the template writes a message in more than one place.
        """
        found = []
        for number, message in enumerate(self.messages):
            content: Any = _HERE
            if isinstance(message.get("content"), (list, tuple)):
                content = [{"type": "text", "text": _HERE}]
            kept = {k: v for k, v in message.items() if k != "tool_calls"}
            others = list(self.messages)
            others[number] = {**kept, "content": content}
            other = _render(self.tokenizer, others, self.options, write=True)
            start, before_end = _same_around(self.text, other)
            end = len(self.text) - before_end
            if other[start : len(other) - before_end] != _HERE:
                raise InputError(
                    f"message {number + 1} ({message['role']}) stands in no one place "
                    "of the text that the chat template writes. Name the sources by "
                    "their texts, sources=[...], and write the prompt as a text."
                )
            text = self.text[start:end]
            if text.strip():
                name = str(message["role"])
                found.append(
                    Passage(start=start, end=end, text=text.strip(), name=name)
                )
        return found


def _render(
    tokenizer: Any, messages: Sequence[Any], options: Mapping[str, Any], *, write: bool
) -> str:
    try:
        return str(
            tokenizer.apply_chat_template(
                list(messages),
                **{"add_generation_prompt": write, **options, "tokenize": False},
            )
        )
    except Exception as error:  # jinja2's, and what templates raise
        roles = [str(message.get("role")) for message in messages]
        raise InputError(
            f"the chat template does not take messages of the roles {roles}: {error}"
        ) from error


def _answer(
    tokenizer: Any, messages: list[dict[str, Any]], options: Any, prompt: str
) -> str:
    """Return what the assistant wrote last, without the end of its turn."""
    text = _render(tokenizer, messages, options, write=False)
    if not text.startswith(prompt):
        start, _ = _same_around(text, prompt)
        raise InputError(
            "the chat ends with the assistant's message, and the template does not "
            f"write it behind the prompt (from {text[start:][:40]!r} on). Leave the "
            "message out, and pass what it says as target=."
        )
    answer = text[len(prompt) :]
    special = [tokenizer.convert_ids_to_tokens(i) for i in special_ids(tokenizer)]
    while True:
        end = next((s for s in special if s and answer.rstrip().endswith(s)), None)
        if end is None:
            return answer.rstrip()
        answer = answer.rstrip()[: -len(end)]


def _same_around(one: str, other: str) -> tuple[int, int]:
    """Return how much of two texts is the same at the beginning and at the end."""
    most = min(len(one), len(other))
    start = next((i for i in range(most) if one[i] != other[i]), most)
    most -= start
    end = next((i for i in range(most) if one[-1 - i] != other[-1 - i]), most)
    return start, end


def _refuse_pictures(message: Mapping[str, Any]) -> None:
    content = message.get("content")
    if not isinstance(content, (list, tuple)):
        return
    kinds = {str(part.get("type")) for part in content if isinstance(part, Mapping)}
    if kinds - {"text"}:
        raise InputError(
            f"a message has content of the types {sorted(kinds)}; a chat is of text. "
            "Pass what the processor returns, or use Explainer(pipe), which explains "
            "pictures and words together."
        )
