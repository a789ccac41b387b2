"""Tasks that read texts: what is explained is what the pipeline answers."""

import re
from typing import Any, cast

import pytest
import torch
from transformers import (
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    pipeline,
)

from captum_transformer_lrp import CPLRP, Explainer, Explanations, load, targets
from captum_transformer_lrp.errors import (
    InputError,
    ModelStateError,
    TargetError,
    UnknownNameError,
)
from captum_transformer_lrp.tasks import TASKS

from .tiny import bert, word_pieces

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
NLI = ("contradiction", "neutral", "entailment")
SENTENCE = "Sarah lives in London with a dog"
#: with words of several pieces, and one that the tokenizer does not know
PIECES = "Sarah knows the capital of politics, a good example"
CONTEXT = f"{SENTENCE}, and the capital of France is Paris."


def pipe_of(task, kind, *names, seed=0, **options):
    model = bert(kind, *names, seed=seed)
    make = cast(Any, pipeline)  # whose overloads name one kind of model for each task
    return make(task, model=model, tokenizer=word_pieces(), device="cpu", **options)


def logits_of(model, field="logits", **inputs):
    with torch.no_grad():
        return model(**inputs)[field]


def accounted(explanation, score, rtol=1e-9):
    """CP-LRP conserves: relevance and what constants took are the score."""
    total = explanation.relevance_sum + explanation.convergence_delta
    assert explanation.logit == pytest.approx(score, rel=rtol, abs=1e-9)
    assert total == pytest.approx(score, rel=rtol, abs=1e-9)


# --------------------------------------------------------------------------- one class


def test_class_of_a_text_is_the_pipelines():
    pipe = pipe_of("text-classification", BertForSequenceClassification, "bad", "good")
    explanation = Explainer(pipe, "cp-lrp")("A warm and funny film")
    (answer,) = pipe("A warm and funny film")
    assert explanation.output == answer
    assert explanation.prediction.name == answer["label"]
    assert explanation.prediction.probability == pytest.approx(answer["score"])
    inputs = word_pieces()("A warm and funny film", return_tensors="pt")
    index = pipe.model.config.label2id[answer["label"]]
    direct = CPLRP(pipe.model).attribute(dict(inputs), target=index)
    assert explanation.scores == pytest.approx(direct[0].numpy())
    accounted(explanation, float(logits_of(pipe.model, **inputs)[0, index]))


def test_all_classes_of_a_text():
    pipe = pipe_of("text-classification", BertForSequenceClassification, "bad", "good")
    found = Explainer(pipe)("A warm film", top_k=None, target=["bad", "good"])
    (answers,) = [pipe("A warm film", top_k=None)]
    by_label = {one["label"]: one for one in answers}
    assert [one.output for one in found] == [by_label["bad"], by_label["good"]]


def test_class_of_a_pair_of_texts():
    pipe = pipe_of("text-classification", BertForSequenceClassification, "no", "yes")
    pair = {"text": "a dog", "text_pair": "Sarah lives"}
    explanation = Explainer(pipe)(pair)
    assert explanation.text == "a dog Sarah lives"
    words = [word.text for word in explanation.words]
    assert words == ["[CLS]", "a", "dog", "[SEP]", "Sarah", "lives", "[SEP]"]
    assert explanation.output == pipe(pair)


@pytest.mark.parametrize("names", [("one",), ("a", "b"), ("a", "b", "c")])
@pytest.mark.parametrize("problem", [None, "regression", "multi_label_classification"])
@pytest.mark.parametrize("function", [None, "sigmoid", "softmax", "none"])
def test_probabilities_are_the_pipelines(names, problem, function):
    pipe = pipe_of("text-classification", BertForSequenceClassification, *names)
    pipe.model.config.problem_type = problem
    options = {} if function is None else {"function_to_apply": function}
    found = Explainer(pipe)("A warm film", **options)
    (answer,) = pipe("A warm film", **options)
    assert found.output == answer
    shown = found.prediction.probability
    shown = found.prediction.logit if shown is None else shown
    assert shown == pytest.approx(answer["score"])


def test_several_texts_are_explained_as_alone():
    pipe = pipe_of("text-classification", BertForSequenceClassification, "bad", "good")
    explainer = Explainer(pipe)
    texts = ["A warm film", "a dog", "Sarah lives in Paris"]
    found = explainer(texts)
    assert isinstance(found, Explanations)
    for text, explanation in zip(texts, found, strict=True):
        assert explanation.scores == pytest.approx(explainer(text).scores)


def test_other_targets_of_a_class():
    pipe = pipe_of("text-classification", BertForSequenceClassification, "bad", "good")
    explainer = Explainer(pipe)
    both = explainer("A warm film", target=["bad", targets.Label("good")])
    assert [one.target.name for one in both] == ["bad", "good"]
    contrast = explainer("A warm film", target=targets.Contrast("good", "bad"))
    assert contrast.scores == pytest.approx(both[1].scores - both[0].scores)
    assert contrast.logit == pytest.approx(both[1].logit - both[0].logit)
    with pytest.raises(TargetError, match=re.escape("no class named 'god'")):
        explainer("A warm film", target="god")


@pytest.mark.parametrize("method", ["integrated-gradients", "occlusion", "saliency"])
def test_other_methods_explain_a_task(method):
    pipe = pipe_of("text-classification", BertForSequenceClassification, "bad", "good")
    explanation = Explainer(pipe, method)("A warm film")
    assert len(explanation.scores) == len(explanation.pieces)
    assert abs(explanation.scores).max() > 0


def test_what_a_method_of_captum_says_of_a_task():
    from captum.attr import InputXGradient

    pipe = pipe_of("text-classification", BertForSequenceClassification, "bad", "good")
    theirs = Explainer(pipe, InputXGradient)("A warm film", target="good")
    ours = Explainer(pipe, "gradient-x-input")("A warm film", target="good")
    assert theirs.scores == pytest.approx(ours.scores)


def test_labels_that_were_never_trained():
    pipe = pipe_of("zero-shot-classification", BertForSequenceClassification, *NLI)
    labels = ["music", "sports", "politics"]
    explainer = Explainer(pipe, "cp-lrp")
    answer = pipe("a funny film", candidate_labels=labels)
    explanation = explainer("a funny film", candidate_labels=labels)
    assert explanation.target.name == answer["labels"][0]
    assert explanation.target.probability == pytest.approx(answer["scores"][0])
    accounted(explanation, explanation.logit)
    every = explainer("a funny film", candidate_labels=labels, target=labels)
    assert [one.target.name for one in every] == labels
    logits = torch.tensor([one.logit for one in every], dtype=torch.float64)
    chances = dict(zip(answer["labels"], answer["scores"], strict=True))
    expected = [chances[label] for label in labels]
    assert logits.softmax(0).tolist() == pytest.approx(expected)


def test_labels_that_do_not_exclude_each_other():
    pipe = pipe_of("zero-shot-classification", BertForSequenceClassification, *NLI)
    labels = ["music", "sports"]
    answer = pipe("a funny film", candidate_labels=labels, multi_label=True)
    for label in labels:
        found = Explainer(pipe)(
            "a funny film", candidate_labels=labels, multi_label=True, target=label
        )
        chance = answer["scores"][answer["labels"].index(label)]
        margin = torch.tensor(found.logit, dtype=torch.float64)
        assert float(margin.sigmoid()) == pytest.approx(chance)


def test_best_of_several_endings():
    model = bert(BertForMultipleChoice)
    explainer = Explainer(model, "cp-lrp", tokenizer=word_pieces())
    choices = ["London", "Paris", "a warm and funny film"]
    explanation = explainer(prompt="Sarah lives in", choices=choices)
    assert explanation.output["label"] == explanation.prediction.name
    for index, choice in enumerate(choices):
        one = explainer(prompt="Sarah lives in", choices=choices, target=choice)
        alone = word_pieces()("Sarah lives in", choice, return_tensors="pt")
        alone = {k: v[None] for k, v in alone.items()}
        logit = logits_of(model, **alone)[0, 0]
        accounted(one, float(logit))
        assert one.target.index == index
        assert one.text.endswith(choice)


# ---------------------------------------------------------------------- entities, masks


@pytest.mark.parametrize("how", ["none", "simple", "first", "average", "max"])
def test_entities_are_the_pipelines(how):
    pipe = pipe_of(
        "token-classification",
        BertForTokenClassification,
        *TAGS,
        seed=0,
        aggregation_strategy=how,
    )
    found = Explainer(pipe, "cp-lrp")(PIECES)
    answers = pipe(PIECES)
    assert len(answers) > 1
    assert [one.output for one in found] == answers
    for one, answer in zip(found, answers, strict=True):
        accounted(one, one.logit)
        marked = [p for m in one.marks for p in one.pieces[m.start : m.end]]
        letters = "".join(piece.text for piece in marked).lower()
        assert letters == answer["word"].replace("##", "").replace(" ", "")


def test_entities_of_words_that_were_cut_before():
    pipe = pipe_of(
        "ner",
        BertForTokenClassification,
        *TAGS,
        seed=4,
        aggregation_strategy="simple",
    )
    whole = Explainer(pipe)(SENTENCE)
    cut = Explainer(pipe)(SENTENCE.split(), is_split_into_words=True)
    assert len(whole) == len(cut) > 1
    for one, other in zip(whole, cut, strict=True):
        assert one.scores == pytest.approx(other.scores)
        assert one.target.name == other.target.name


def test_entities_in_windows_of_a_long_text():
    pipe = pipe_of(
        "ner",
        BertForTokenClassification,
        *TAGS,
        seed=4,
        aggregation_strategy="simple",
        stride=4,
    )
    pipe.tokenizer.model_max_length = 16
    text = f"{SENTENCE} " * 4
    found = Explainer(pipe, "cp-lrp")(text)
    assert [one.output for one in found] == pipe(text)
    for one in found:
        accounted(one, one.logit)
        assert len(one.pieces) <= 16
        assert one.marks


@pytest.mark.parametrize("how", ["simple", "first", "average", "max"])
def test_an_entity_in_two_windows_is_explained_where_its_score_is_from(how):
    pipe = pipe_of(
        "ner",
        BertForTokenClassification,
        *TAGS,
        seed=4,
        aggregation_strategy=how,
        stride=8,
    )
    pipe.tokenizer.model_max_length = 20
    text = "Sarah lives in London with a dog. " * 4
    found = Explainer(pipe)(text)
    assert [one.output for one in found] == pipe(text) and len(found) > 3
    for one in found:
        tokens = [piece.token for piece in one.pieces]
        ids = torch.tensor([pipe.tokenizer.convert_tokens_to_ids(tokens)])
        chances = logits_of(pipe.model, input_ids=ids)[0].softmax(-1)
        (mark,) = one.marks
        best = chances.amax(-1)
        parts: list[list[int]] = []
        for place in range(mark.start, mark.end):
            if tokens[place].startswith("##"):
                parts[-1].append(place)
            else:
                parts.append([place])
        scores = {
            "simple": [best[mark.start : mark.end].mean()],
            "first": [best[part[0]] for part in parts],
            "max": [best[part].max() for part in parts],
            "average": [chances[part].mean(0).max() for part in parts],
        }
        score = float(torch.stack(scores[how]).mean())
        assert score == pytest.approx(float(one.output["score"]))


def test_an_answer_without_entities_says_so():
    pipe = pipe_of(
        "ner", BertForTokenClassification, *TAGS, seed=4, ignore_labels=list(TAGS)
    )
    found = Explainer(pipe)(SENTENCE)
    assert list(found) == []
    (note,) = found.notes
    assert note == "There is nothing to explain: token-classification found none."
    assert note in found.to_html()


def test_score_of_an_entity_is_its_mean_logit():
    pipe = pipe_of(
        "ner",
        BertForTokenClassification,
        *TAGS,
        seed=7,
        aggregation_strategy="simple",
    )
    explainer = Explainer(pipe)
    kind = pipe(SENTENCE)[0]["entity_group"]
    for one in explainer(SENTENCE, target=kind):
        assert one.output["entity_group"] == kind
        (mark,) = one.marks
        inputs = word_pieces()(SENTENCE, return_tensors="pt")
        logits = logits_of(pipe.model, **inputs)[0, mark.start : mark.end]
        tags = [TAGS.index(f"B-{kind}"), TAGS.index(f"I-{kind}")]
        assert one.logit == pytest.approx(float(logits[:, tags].amax(1).mean()))
    chosen = explainer(SENTENCE, target=targets.Entity("PER", (1, 2)))
    assert [len(one.marks) for one in chosen] == [1]
    with pytest.raises(TargetError, match="no kind of entity named 'ORG'"):
        explainer(SENTENCE, target="ORG")


def test_token_behind_a_mask():
    pipe = pipe_of("fill-mask", BertForMaskedLM)
    text = "the capital of France is [MASK]."
    explainer = Explainer(pipe, "cp-lrp")
    explanation = explainer(text)
    assert explanation.output == pipe(text)[0]
    inputs = word_pieces()(text, return_tensors="pt")
    place = inputs["input_ids"][0].tolist().index(word_pieces().mask_token_id)
    logits = logits_of(pipe.model, **inputs)[0, place]
    accounted(explanation, float(logits.max()))
    paris = explainer(text, target="paris")
    token = word_pieces().convert_tokens_to_ids("paris")
    accounted(paris, float(logits[token]))
    assert [word.text for word in paris.words if word.mark] == ["[MASK]"]


# -------------------------------------------------------------------------- answers


def test_answer_in_a_text():
    model = bert(BertForQuestionAnswering, seed=3)
    explainer = Explainer(model, "cp-lrp", tokenizer=word_pieces())
    explanation = explainer(question="Where is Sarah?", context=CONTEXT)
    answer = explanation.output
    assert CONTEXT[answer["start"] : answer["end"]] == answer["answer"]
    (mark,) = explanation.marks
    inputs = word_pieces()("Where is Sarah?", CONTEXT, return_tensors="pt")
    start, end = (
        logits_of(model, f"{side}_logits", **inputs)[0] for side in ("start", "end")
    )
    accounted(explanation, float(start[mark.start] + end[mark.end - 1]))
    # by hand: the likeliest span of the context, of at most 15 tokens
    inside = [i for i, s in enumerate(inputs.sequence_ids()) if s == 1]
    chances = {
        (a, b): float(start[inside].softmax(0)[i] * end[inside].softmax(0)[j])
        for i, a in enumerate(inside)
        for j, b in enumerate(inside)
        if 0 <= j - i < 15
    }
    assert max(chances, key=chances.get) == (mark.start, mark.end - 1)
    assert answer["score"] == pytest.approx(max(chances.values()))
    parts = [
        explainer(question="Where is Sarah?", context=CONTEXT, target=which)
        for which in ("start", "end")
    ]
    assert parts[0].scores + parts[1].scores == pytest.approx(explanation.scores)
    paris = explainer(question="Where is Sarah?", context=CONTEXT, target="Paris")
    marked = [w.text for w in paris.words if w.mark]
    assert marked == ["Paris"]


def test_answer_in_a_long_text_is_found_in_its_window():
    model = bert(BertForQuestionAnswering, seed=3)
    explainer = Explainer(model, tokenizer=word_pieces(), task="question-answering")
    context = f"{CONTEXT} " * 6
    found = explainer(question="Where is Sarah?", context=context, top_k=3)
    assert len(found) == 3
    for one in found:
        answer = one.output
        assert context[answer["start"] : answer["end"]] == answer["answer"]
        assert len(one.pieces) <= 64


BOXES = [
    (word, [100 * i, 10, 100 * i + 90, 40]) for i, word in enumerate(SENTENCE.split())
]


def reader_of_documents():
    from transformers import LayoutLMConfig, LayoutLMForQuestionAnswering

    torch.manual_seed(3)
    config = LayoutLMConfig(
        vocab_size=len(word_pieces()),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
        initializer_range=0.3,
        pad_token_id=0,
    )
    model = LayoutLMForQuestionAnswering(config).double().eval()
    make = cast(Any, pipeline)
    return make(
        "document-question-answering",
        model=model,
        tokenizer=word_pieces(),
        device="cpu",
    )


def test_answer_in_a_document():
    pipe = reader_of_documents()
    explainer = Explainer(pipe, "cp-lrp")
    given = {"question": "Where is Sarah?", "word_boxes": BOXES}
    found = explainer(**given)
    (answer,) = pipe(None, **given)
    assert found.output == answer
    accounted(found, found.logit)
    marked = [word.text for word in found.words if word.mark]
    assert " ".join(marked) == answer["answer"].lower()
    parts = [explainer(**given, target=which) for which in ("start", "end")]
    assert parts[0].scores + parts[1].scores == pytest.approx(found.scores)
    with pytest.raises(InputError, match="expected question= to be a text"):
        explainer(word_boxes=BOXES)


def test_mappings_and_lists_of_questions():
    explainer = Explainer(bert(BertForQuestionAnswering), tokenizer=word_pieces())
    one = explainer({"question": "Where?", "context": CONTEXT})
    both = explainer(question=["Where?", "Who?"], context=CONTEXT)
    assert both[0].scores == pytest.approx(one.scores)
    assert len(both) == 2


# --------------------------------------------------------------------------- similarity


@pytest.mark.parametrize("task", ["sentence-similarity", "feature-extraction"])
def test_pairs_of_words_sum_to_the_cosine(task):
    model = bert(BertModel)
    if task == "feature-extraction":
        pipe = pipe_of(task, BertModel)
        explainer, model = Explainer(pipe, "cp-lrp"), pipe.model
    else:
        explainer = Explainer(model, "cp-lrp", task=task, tokenizer=word_pieces())
    texts = ["Sarah lives in London", "a dog", "A warm film"]
    found = explainer(source_sentence=texts[0], sentences=texts[1:])
    states = []
    for text in texts:
        inputs = word_pieces()(text, return_tensors="pt")
        states.append(logits_of(model, "last_hidden_state", **inputs)[0].mean(0))
    for one, other in zip(found, states[1:], strict=True):
        cosine = float(torch.nn.functional.cosine_similarity(states[0], other, dim=0))
        assert one.similarity == pytest.approx(cosine)
        assert float(one.matrix.sum()) == pytest.approx(cosine, abs=1e-9)
    assert [piece.text for piece in found[0].a.pieces][1:4] == ["Sarah", "lives", "in"]
    for wrong in ({}, {"sentences": [" "]}, {"sentences": 3}):
        with pytest.raises(InputError, match="takes source_sentence="):
            explainer(source_sentence="a dog", **wrong)
    with pytest.raises(InputError, match="pass method='cp-lrp'"):
        explainer.with_method("occlusion")("a dog", sentences="a film")


# ------------------------------------------------------------------------------- errors


def test_wrong_inputs_are_answered_in_one_sentence():
    mask = Explainer(pipe_of("fill-mask", BertForMaskedLM))
    zero = Explainer(
        pipe_of("zero-shot-classification", BertForSequenceClassification, *NLI)
    )
    answers = Explainer(bert(BertForQuestionAnswering), tokenizer=word_pieces())
    choice = Explainer(bert(BertForMultipleChoice), tokenizer=word_pieces())
    cases = [
        (mask, {"text": "no mask"}, "takes a text with a mask token in it"),
        (zero, {"text": "x", "candidate_labels": 5}, "candidate_labels=[...], a list"),
        (answers, {"text": "Where?"}, "expected context= to be a text"),
        (answers, {"question": "Where?", "context": " "}, "expected context="),
        (choice, {"prompt": "a", "choices": ["b"]}, "at least two choices"),
        (mask, {}, "expected an input for the task 'fill-mask', got none"),
    ]
    for explainer, given, message in cases:
        with pytest.raises(InputError, match=re.escape(message)):
            explainer(**given)


def test_what_does_not_belong_together_is_refused():
    pipe = pipe_of("fill-mask", BertForMaskedLM)
    with pytest.raises(InputError, match="the pipeline's task is 'fill-mask'"):
        Explainer(pipe, task="token-classification")("a [MASK]")
    with pytest.raises(InputError, match="tokenizer= belongs to a model"):
        Explainer(pipe, tokenizer=word_pieces())("a [MASK]")
    with pytest.raises(UnknownNameError, match="there is no task 'fil-mask'"):
        Explainer(task="fil-mask")
    with pytest.raises(InputError, match="belongs to a task"):
        Explainer()("a film", candidate_labels=["a"])
    training = pipe_of("fill-mask", BertForMaskedLM)
    training.model.train()
    with pytest.raises(ModelStateError, match="training mode"):
        Explainer(training)("a [MASK]")


def test_a_list_is_explained_as_far_as_it_can_be(tmp_path, capsys):
    pipe = pipe_of("fill-mask", BertForMaskedLM)
    explainer = Explainer(pipe)
    failures: list[Any] = []
    texts = ["a [MASK]", "no mask", "[MASK] dog"]
    found = explainer(texts, on_error=failures.append, progress=True)
    assert [one.text for one in found] == ["a [MASK]", "[MASK] dog"]
    assert [(one.number, one.given) for one in failures] == [(2, "no mask")]
    assert "explaining" in capsys.readouterr().err
    assert len(explainer(text for text in texts[:1])) == 1
    table = tmp_path / "texts.csv"
    table.write_text("text,label\na [MASK],1\n[MASK] dog,0\n")
    read = explainer(table)
    assert len(read) == 2
    assert "texts.csv" in read.said
    assert "labels are left aside" in read.notes[0]


def test_labels_of_a_table_are_compared_with_the_classes(tmp_path):
    pipe = pipe_of(
        "text-classification", BertForSequenceClassification, "bad", "good", seed=3
    )
    texts = ["a warm film", "a dog", "Sarah lives in Paris"]
    said = [pipe(text)[0]["label"] for text in texts]
    other = {"bad": "good", "good": "bad"}
    table = tmp_path / "texts.csv"
    rows = [(texts[0], said[0]), (texts[1], other[said[1]]), (texts[2], "unknown")]
    table.write_text("text,label\n" + "".join(f"{t},{label}\n" for t, label in rows))
    found = Explainer(pipe)(table)
    assert [one.right for one in found] == [True, False, None]
    assert found.accuracy == 0.5
    wrong = found[1].label
    assert wrong is not None and wrong.name == other[said[1]]
    (mine,) = Explainer(pipe)([texts[1]], target=wrong.name)
    assert wrong.logit == pytest.approx(mine.logit)
    (note,) = found.notes
    assert "unknown" in note


def test_a_device_belongs_to_a_name():
    for model, parts in (
        (pipe_of("fill-mask", BertForMaskedLM), {}),
        (bert(BertForMaskedLM), {"task": "fill-mask", "tokenizer": word_pieces()}),
        (bert(BertForQuestionAnswering), {"tokenizer": word_pieces()}),
    ):
        with pytest.raises(InputError, match="device= belongs to a model loaded by"):
            Explainer(model, device="cpu", **parts)("a [MASK]")


def test_pipeline_and_model_stay_as_they_were():
    pipe = pipe_of("fill-mask", BertForMaskedLM)
    before = dict(vars(pipe)), dict(vars(pipe.model)), torch.get_rng_state()
    Explainer(pipe)("a [MASK]")
    with pytest.raises(InputError):
        Explainer(pipe)("no mask")
    assert vars(pipe) == before[0]
    assert vars(pipe.model) == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


@pytest.mark.parametrize("suffix", [".json", ".parquet", ".safetensors"])
def test_an_explained_answer_is_kept(tmp_path, suffix):
    pytest.importorskip("safetensors")
    pytest.importorskip("pyarrow")
    pipe = pipe_of("fill-mask", BertForMaskedLM)
    explanation = Explainer(pipe)("the capital is [MASK].")
    kept = load(explanation.save(tmp_path / f"one{suffix}"))
    assert kept.to_dict() == explanation.to_dict()
    assert kept.marks == explanation.marks
    assert kept.task == "fill-mask"


def test_every_task_says_what_it_is():
    for name, task in TASKS.items():
        assert name == task.name
        assert task.about
        assert task.takes
