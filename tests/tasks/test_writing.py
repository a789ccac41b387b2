"""Tasks that write: every token of what a pipeline wrote is explained."""

import copy
import dataclasses
import re
from functools import cache
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    BertConfig,
    CLIPImageProcessor,
    CLIPVisionConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    T5Config,
    T5ForConditionalGeneration,
    ViltConfig,
    ViltForQuestionAnswering,
    ViltImageProcessor,
    ViltProcessor,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessor,
    pipeline,
)

from captum_transformer_lrp import (
    Explainer,
    Explanations,
    GenericAttention,
    JointExplanation,
    LLMRelevance,
    LLMTransformerLRP,
)
from captum_transformer_lrp.errors import (
    AttentionError,
    ConstantInputWarning,
    InputError,
    TargetError,
)
from captum_transformer_lrp.tasks import task_named

from .tiny import labelled, word_pieces

PICTURE = Image.fromarray(
    np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
)
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}


def pipe_of_writer(task, model, **parts):
    make = cast(Any, pipeline)  # whose overloads name one kind of model for each task
    return make(task, model=model, device="cpu", do_sample=False, **parts)


@cache
def tokenizer(*more):
    found = copy.deepcopy(word_pieces())
    found.add_special_tokens({"additional_special_tokens": list(more)})
    found.model_max_length = 512
    return found


def llama(vocabulary):
    return LlamaConfig(
        vocab_size=vocabulary,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        **SMALL,
    )


@cache
def writer():
    torch.manual_seed(0)
    return LlamaForCausalLM(llama(len(word_pieces()))).double().eval()


def accounted(explanation):
    total = explanation.relevance_sum + explanation.convergence_delta
    assert total == pytest.approx(explanation.logit, rel=1e-9, abs=1e-9)


# ---------------------------------------------------------------------- text after text


def test_what_a_pipeline_writes_is_explained_token_by_token():
    pipe = pipe_of_writer(
        "text-generation", writer(), tokenizer=word_pieces(), max_new_tokens=5
    )
    found = Explainer(pipe, "cp-lrp")("Sarah lives in")
    assert isinstance(found, LLMRelevance)
    assert [found.output] == pipe("Sarah lives in")
    llm = LLMTransformerLRP(writer(), word_pieces(), "cp-lrp")
    same = llm.attribute(
        "Sarah lives in", gen_args={"max_new_tokens": 5, "do_sample": False}
    )
    assert torch.equal(found.token_attr, same.token_attr)
    sums = found.token_attr.sum(1) + found.generated_attr.sum(1)
    assert torch.allclose(sums, found.scores)


def test_a_chat_is_one_input():
    chatty = copy.deepcopy(word_pieces())
    chatty.chat_template = (
        "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
    )
    pipe = pipe_of_writer(
        "text-generation", writer(), tokenizer=chatty, max_new_tokens=2
    )
    chat = [{"role": "user", "content": "a funny film"}]
    found = Explainer(pipe)(chat)
    assert found.output == pipe(chat)[0]


def test_other_targets_of_what_is_written():
    pipe = pipe_of_writer(
        "text-generation", writer(), tokenizer=word_pieces(), max_new_tokens=4
    )
    explainer = Explainer(pipe, "cp-lrp")
    matrix = explainer("Sarah lives in")
    third = explainer("Sarah lives in", target=2)
    accounted(third)
    count = len(matrix.input_tokens)
    expected = [*matrix.token_attr[2].tolist(), *matrix.generated_attr[2, :2].tolist()]
    assert third.scores == pytest.approx(expected)
    assert len(third.pieces) == count + 2
    london = explainer("Sarah lives in", target=" London")
    assert london.output_tokens == ["london"]
    slow = Explainer(pipe, "integrated-gradients")
    assert len(slow("Sarah lives in", target=0).scores) == count
    with pytest.raises(InputError, match="has no table of rules"):
        slow("Sarah lives in")
    with pytest.raises(TargetError, match="written tokens 0 to 3"):
        explainer("Sarah lives in", target=4)


def source_to_target(task):
    torch.manual_seed(0)
    config = cast(Any, T5Config)(
        vocab_size=len(word_pieces()),
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        pad_token_id=0,
        eos_token_id=3,
        decoder_start_token_id=0,
        initializer_factor=20.0,
        task_specific_params={"translation_en_to_fr": {"prefix": "a dog "}},
    )
    model = T5ForConditionalGeneration(config).double().eval()
    return Explainer(model, "cp-lrp", task=task, tokenizer=word_pieces())


@pytest.mark.parametrize("task", ["summarization", "translation_en_to_fr", None])
def test_an_encoder_decoder_writes_over_what_it_read(task):
    explainer = source_to_target(task)
    model: Any = explainer.model
    found = explainer("a warm film", max_new_tokens=3, do_sample=False)
    text = "a dog a warm film" if task == "translation_en_to_fr" else "a warm film"
    inputs = word_pieces()(text, return_tensors="pt")
    written = model.generate(
        input_ids=inputs["input_ids"], max_new_tokens=3, do_sample=False
    )
    key = {"summarization": "summary_text", None: "generated_text"}
    read = word_pieces().decode(written[0], skip_special_tokens=True)
    assert found.output == {key.get(task, "translation_text"): read}
    assert len(found.input_tokens) == inputs["input_ids"].shape[1]
    sums = (
        found.token_attr.sum(1) + found.generated_attr.sum(1) + found.start_attr.sum(1)
    )
    assert torch.allclose(sums, found.scores)


def test_a_token_of_an_encoder_decoder_rests_on_what_was_written_before():
    explainer = source_to_target("summarization")
    options = {"max_new_tokens": 4, "do_sample": False}
    matrix = explainer("a warm film", **options)
    for number in (0, 2):
        one = explainer("a warm film", **options, target=number)
        assert isinstance(one, JointExplanation)
        assert list(one) == ["text", "written before"]
        accounted(one)
        assert one.logit == pytest.approx(float(matrix.scores[number]))
        assert one["text"].scores == pytest.approx(matrix.token_attr[number].tolist())
        before = [
            *matrix.start_attr[number].tolist(),
            *matrix.generated_attr[number, :number].tolist(),
        ]
        assert one["written before"].scores == pytest.approx(before)
    slow = explainer.with_method("integrated-gradients")
    both = slow("a warm film", **options, target=2)
    assert bool(both["text"].scores.any())
    assert bool(both["written before"].scores.any())
    attended = explainer.with_method("generic-attention")
    maps = attended("a warm film", **options, target=2)
    assert maps.measure == "attention"


# ----------------------------------------------------------- pictures between the words


@cache
def llava():
    torch.manual_seed(0)
    names = tokenizer("<image>")
    vision = CLIPVisionConfig(
        **{**SMALL, "num_hidden_layers": 3}, image_size=28, patch_size=7
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=llama(len(names)),
        image_token_index=names.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
        ),
        tokenizer=names,
        patch_size=7,
        vision_feature_select_strategy="default",
        image_token="<image>",
        num_additional_image_tokens=1,
    )
    return LlavaForConditionalGeneration(config).double().eval(), processor


@cache
def idefics():
    torch.manual_seed(0)
    names = tokenizer(
        "<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>"
    )
    config = Idefics3Config(
        text_config=llama(len(names)).to_dict(),
        vision_config={**SMALL, "image_size": 28, "patch_size": 7},
        image_token_id=names.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    processor = Idefics3Processor(
        image_processor=Idefics3ImageProcessor(
            size={"longest_edge": 56},
            max_image_size={"longest_edge": 28},
            do_image_splitting=True,
        ),
        tokenizer=names,
        image_seq_len=4,
    )
    return Idefics3ForConditionalGeneration(config).double().eval(), processor


@pytest.mark.parametrize(("build", "pictures"), [(llava, 1), (idefics, 5)])
def test_written_tokens_rest_on_words_and_patches(build, pictures):
    model, processor = build()
    pipe = pipe_of_writer(
        "image-text-to-text", model, processor=processor, max_new_tokens=3
    )
    text = "<image> Sarah lives in"
    found = Explainer(pipe, "cp-lrp")(text=text, image=PICTURE)
    assert isinstance(found, Explanations)
    assert len(found) == 3
    (answer,) = pipe(images=PICTURE, text=text)
    for one in found:
        assert isinstance(one, JointExplanation)
        assert one.output == answer
        assert len(one) == pictures + 1
        assert sum(one.shares.values()) == pytest.approx(one.relevance_sum)
        accounted(one)
    words = [word.text for word in found[2]["text"].words if not word.special]
    assert {"sarah", "lives", "in"} <= set(words)
    second = Explainer(pipe, "cp-lrp")(text=text, image=PICTURE, target=[1])
    assert second[0].scores == pytest.approx(found[1].scores)


def test_what_is_explained_and_not_shown_is_told():
    model, processor = llava()
    options = {"processor": processor, "max_new_tokens": 1}
    pipe = pipe_of_writer("image-text-to-text", model, **options)
    explainer = Explainer(pipe, "cp-lrp").pipeline
    assert explainer is not None
    asked = explainer.task.ask(pipe, {"images": PICTURE, "text": "<image> a dog"})
    (question,) = explainer.task.questions(asked, None)
    whole: Any = explainer.explain(question)
    assert not whole.notes
    text = dataclasses.replace(question, reads=question.reads[1:])
    found = explainer.explain(text)
    share = f"{whole.shares['picture']:+.3g}"
    assert found.notes == (f"pixel_values has {share} in all, which is not shown.",)
    assert found.relevance_sum == pytest.approx(whole.shares["text"])
    read: Any = question.reads[1]
    wrong = dataclasses.replace(read, key="input_values")
    with pytest.raises(InputError, match="says nothing of input_values"):
        explainer.explain(dataclasses.replace(question, reads=(wrong,)))


def test_a_chat_with_a_picture():
    model, processor = llava()
    processor = copy.copy(processor)
    processor.chat_template = (
        "{% for m in messages %}{% for c in m['content'] %}"
        "{{ '<image> ' if c['type'] == 'image' else c['text'] }}"
        "{% endfor %}{% endfor %}"
    )
    pipe = pipe_of_writer(
        "image-text-to-text", model, processor=processor, max_new_tokens=1
    )
    parts = [{"type": "image", "image": PICTURE}, {"type": "text", "text": "a dog"}]
    (found,) = Explainer(pipe)(text=[{"role": "user", "content": parts}])
    assert list(found) == ["picture", "text"]


def test_maps_of_attention_do_not_pass_from_patches_to_words():
    model, processor = llava()
    inputs = processor(images=PICTURE, text="<image> a dog", return_tensors="pt")
    inputs["pixel_values"] = inputs["pixel_values"].double()
    with pytest.raises(AttentionError, match="pictures put between words"):
        GenericAttention(model).attribute(dict(inputs), target=(-1, 5))


def test_a_language_model_says_that_a_picture_is_held_constant():
    model, processor = llava()
    inputs = processor(images=PICTURE, text="<image> a dog", return_tensors="pt")
    inputs["pixel_values"] = inputs["pixel_values"].double()
    llm = LLMTransformerLRP(model, processor.tokenizer)
    with pytest.warns(ConstantInputWarning, match="pixel_values is held constant"):
        llm.attribute(dict(inputs), [5])


# ---------------------------------------------------------------------- about a picture


ANSWERS = ("yes", "no", "two")


def chooser():
    torch.manual_seed(0)
    config = ViltConfig(
        vocab_size=len(word_pieces()),
        image_size=32,
        patch_size=8,
        max_position_embeddings=64,
        initializer_range=0.3,
        **SMALL,
        **labelled(*ANSWERS),
    )
    model = ViltForQuestionAnswering(config).double().eval()
    prepare = cast(Any, ViltImageProcessor)(size={"shortest_edge": 32}, size_divisor=16)
    return Explainer(
        model,
        "cp-lrp",
        task="visual-question-answering",
        processor=ViltProcessor(prepare, word_pieces()),
    )


def test_a_chosen_answer_rests_on_question_and_picture():
    explainer = chooser()
    found = explainer(image=PICTURE, question="Where is Sarah?")
    accounted(found)
    assert found.output["answer"] == found.prediction.name
    assert list(found) == ["picture", "question"]
    every = explainer(image=PICTURE, question="Where is Sarah?", target=list(ANSWERS))
    assert max(every, key=lambda one: one.logit).target.name == found.target.name
    message = re.escape("explainer(image=..., question=...)")
    with pytest.raises(InputError, match=message):
        explainer(image=PICTURE)


def captioner():
    torch.manual_seed(0)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        ViTConfig(image_size=32, patch_size=8, **SMALL),
        BertConfig(
            vocab_size=len(word_pieces()),
            is_decoder=True,
            add_cross_attention=True,
            max_position_embeddings=64,
            **SMALL,
        ),
    )
    model: Any = VisionEncoderDecoderModel(config=config).double().eval()
    model.config.decoder_start_token_id = 2
    model.generation_config.decoder_start_token_id = 2
    model.generation_config.pad_token_id = 0
    return Explainer(
        model,
        "cp-lrp",
        task="image-to-text",
        image_processor=ViTImageProcessor(size={"height": 32, "width": 32}),
        tokenizer=word_pieces(),
    )


def test_a_caption_rests_on_the_picture():
    explainer = captioner()
    found = explainer(PICTURE, max_new_tokens=3, do_sample=False)
    assert len(found) == 3
    for one in found:
        accounted(one)
        assert list(one) == ["picture", "written before"]
        assert one["picture"].patch_grid == (4, 4)
    assert len(found[2]["written before"].pieces) == 3
    assert abs(found[2].shares["written before"]) > 0


def test_names_of_tasks():
    assert task_named("translation_en_to_fr").name == "translation"
    assert task_named("ner").name == "token-classification"
