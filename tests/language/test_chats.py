"""Chats through the templates of tokenizers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from captum_transformer_lrp import LLMTransformerLRP, SourceRelevance, errors
from captum_transformer_lrp.language.chats import Chat
from tests.helpers import relative
from tests.language.models import language_model
from tests.models.tiny import byte_level_tokenizer

pytest.importorskip("transformers")

#: with a system prompt of its own, tools and calls, as Qwen writes them
CHATML = """\
{%- if tools %}<|im_start|>system
Tools: {{ tools | tojson }}<|im_end|>
{% elif messages[0].role != 'system' %}<|im_start|>system
You are the best.<|im_end|>
{% endif %}
{%- for m in messages %}<|im_start|>{{ m.role }}
{{ m.content or '' }}{% for call in m.tool_calls or [] %}<tool_call>
{{ call.function | tojson }}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
#: that writes the first token, cuts white space, and has no header for the assistant
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}"
    " {{ m.content | trim }}{{ eos_token }}{% else %}"
    "[INST] {{ m.content | trim }} [/INST]{% endif %}{% endfor %}"
)
MESSAGES = [
    {"role": "system", "content": "the movie"},
    {"role": "user", "content": " user? the best. "},
    {"role": "assistant", "content": "was"},
    {"role": "user", "content": "was the movie. The best movie"},
]
ANSWER = {"role": "assistant", "content": "the best movie"}


def chatty(template: str) -> Any:
    """A tokenizer with a template, which puts a token before any text of its own."""
    from tokenizers import processors

    tokenizer = byte_level_tokenizer()
    tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]}
    )
    end = "<|endoftext|>"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{end} $A", special_tokens=[(end, tokenizer.convert_tokens_to_ids(end))]
    )
    tokenizer.chat_template = template
    return tokenizer


def speaker(template: str, **options: Any) -> LLMTransformerLRP:
    tokenizer = chatty(template)
    model = language_model(
        "gpt2", vocab_size=len(tokenizer), n_positions=512, eos_token_id=None
    )
    return LLMTransformerLRP(model, tokenizer, **options)


@pytest.mark.parametrize("template", [CHATML, INST], ids=["chatml", "inst"])
def test_the_template_writes_the_special_tokens(template: str) -> None:
    llm = speaker(template)
    expected = llm.tokenizer.apply_chat_template(
        MESSAGES, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    first = int(llm.tokenizer.bos_token_id)
    ids = expected["input_ids"][0]
    assert [int(i) == first for i in ids[:2]] == [template == INST, False]
    target = torch.tensor(llm.tokenizer.encode("was the", add_special_tokens=False))
    found = llm.attribute(MESSAGES, " was the")
    assert found.input_tokens == llm.tokenizer.convert_ids_to_tokens(ids.tolist())
    by_hand = llm.attribute(ids, target)
    assert found.token_attr.shape[1] == by_hand.token_attr.shape[1]
    plain_text = llm.attribute("the movie", " was")  # the tokenizer's own first token
    assert plain_text.input_tokens[0] == "<|endoftext|>"


@pytest.mark.parametrize("template", [CHATML, INST], ids=["chatml", "inst"])
def test_turns_are_sources_and_the_template_is_one(template: str) -> None:
    llm = speaker(template)
    found = llm.attribute(MESSAGES, " the best", sources="turns")
    assert [s.name for s in found.sources] == ["system", "user", "assistant", "user"]
    assert [s.text for s in found.sources] == [
        str(message["content"]).strip() for message in MESSAGES
    ]
    text = found.prompt
    for source in found.sources:
        assert text[source.start : source.end].strip() == source.text
    tokens = llm.tokenizer.convert_tokens_to_string(
        [t for t, s in zip(found.input_tokens, found.source_of, strict=True) if s == -1]
    )
    assert ("im_start" in tokens) == (template == CHATML)
    assert not (found.source_of == -2).any()
    same = llm.attribute(MESSAGES, " the best")
    whole = same.token_attr.sum() + same.generated_attr.sum()
    assert relative(found.all_attr.sum(), whole) <= 1e-10


def test_sentences_do_not_run_across_messages() -> None:
    found = speaker(CHATML).attribute(MESSAGES, " the best", sources="sentences")
    assert [s.text for s in found.sources] == [
        *["the movie", "user?", "the best.", "was", "was the movie.", "The best movie"]
    ]
    documents = speaker(CHATML).attribute(
        MESSAGES, " the best", sources=["was the movie.", "the best."]
    )
    assert documents.sources[0].start > documents.sources[1].start
    assert (documents.source_of == -2).any() and (documents.source_of == -1).any()


def test_a_system_prompt_of_the_template_is_no_turn() -> None:
    found = speaker(CHATML).attribute(MESSAGES[1:], " the best", sources="turns")
    assert [s.name for s in found.sources] == ["user", "assistant", "user"]
    assert "You are the best." in found.prompt[: found.sources[0].start]


def test_the_assistants_last_message_is_the_answer() -> None:
    llm = speaker(CHATML)
    found = llm.attribute([*MESSAGES, ANSWER], span="best", sources="turns")
    expected = llm.attribute(MESSAGES, "the best movie", span="best", sources="turns")
    assert found.answer == "the best movie"
    assert len(found.sources) == 4
    assert torch.equal(found.source_attr, expected.source_attr)
    rows = llm.attribute([*MESSAGES, ANSWER])
    assert rows.output_tokens == llm.attribute(MESSAGES, "the best movie").output_tokens
    with pytest.raises(errors.TargetError, match="and target was given too"):
        llm.attribute([*MESSAGES, ANSWER], " was")
    with pytest.raises(errors.TargetError, match="and gen_args was given too"):
        llm.attribute([*MESSAGES, ANSWER], gen_args={"max_new_tokens": 3})


CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "type": "function",
            "function": {"name": "find", "arguments": {"movie": "best", "n": 3}},
        }
    ],
}
TOOL = {
    "type": "function",
    "function": {"name": "find", "description": "x", "parameters": {}},
}


def test_tool_calls_are_turns_and_can_be_explained() -> None:
    llm = speaker(CHATML)
    asked = [MESSAGES[1], CALL, {"role": "tool", "content": "the movie was"}]
    found = llm.attribute(
        {"messages": asked, "tools": [TOOL]}, "the best", sources="turns"
    )
    assert [s.name for s in found.sources] == ["user", "assistant", "tool"]
    call = found.sources[1].text
    assert call.startswith("<tool_call>") and call.endswith("</tool_call>")
    assert '"arguments": {"movie": "best", "n": 3}' in call
    assert found.prompt.startswith("<|im_start|>system\nTools: [")
    called = llm.attribute([MESSAGES[1], CALL], span='"best"', sources="turns")
    assert called.answer == call


def test_several_chats_equal_one_by_one() -> None:
    llm = speaker(CHATML)
    chats = [MESSAGES, MESSAGES[1:2]]
    found = llm.attribute(chats, [" the best", " was"], sources="turns")
    for chat, answer, one in zip(chats, [" the best", " was"], found, strict=True):
        alone = llm.attribute(chat, answer, sources="turns")
        assert isinstance(one, SourceRelevance)
        assert relative(one.source_attr, alone.source_attr) <= 1e-10
    generated = llm.attribute(chats, gen_args={"max_new_tokens": 3}, sources="turns")
    assert [len(one.output_tokens) for one in generated] == [3, 3]


def test_content_in_parts() -> None:
    template = CHATML.replace(
        "{{ m.content or '' }}",
        "{% if m.content is string %}{{ m.content }}{% else %}"
        "{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}",
    )
    llm = speaker(template)
    parts = [{"role": "user", "content": [{"type": "text", "text": "the movie"}]}]
    found = llm.attribute(parts, " was", sources="turns")
    plain = llm.attribute([{"role": "user", "content": "the movie"}], " was", span=0)
    assert torch.equal(found.token_attr, plain.token_attr)
    assert [s.text for s in found.sources] == ["the movie"]
    picture = [{"role": "user", "content": [{"type": "image", "image": None}]}]
    with pytest.raises(errors.InputError, match="a chat is of text"):
        llm.attribute(picture, " was")


def test_wrong_chats() -> None:
    llm = speaker(CHATML)
    without = LLMTransformerLRP(llm.forward_func, byte_level_tokenizer())
    with pytest.raises(errors.InputError, match="a tokenizer with a chat template"):
        without.attribute(MESSAGES, " was")
    with pytest.raises(errors.InputError, match="expected a list of messages"):
        llm.attribute({"messages": "the movie"}, " was")
    with pytest.raises(errors.InputError, match="has only the assistant's message"):
        llm.attribute([ANSWER])
    with pytest.raises(errors.TargetError, match="some of the chats end with"):
        llm.attribute([MESSAGES, [*MESSAGES, ANSWER]])
    twice = speaker(
        "{% for m in messages %}{{ m.content }} {{ m.content }}{% endfor %}"
    )
    with pytest.raises(errors.InputError, match="stands in no one place"):
        twice.attribute(MESSAGES, " was", sources="turns")
    refusing = speaker("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(errors.InputError, match="roles must alternate"):
        refusing.attribute(MESSAGES, " was")
    rewriting = speaker("{{ messages | length }}{% for m in messages %}x{% endfor %}")
    with pytest.raises(errors.InputError, match="does not write it behind the prompt"):
        rewriting.attribute([*MESSAGES, ANSWER])


def test_a_message_that_says_what_the_template_says() -> None:
    chat = Chat.read([{"role": "user", "content": "user"}], chatty(CHATML))
    (own,) = chat.own()
    assert chat.text[own.start - 1 : own.end + 10] == "\nuser<|im_end|>"
