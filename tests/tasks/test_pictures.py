"""Tasks that see pictures: what is explained is what the pipeline answers."""

import re
from typing import Any, cast

import numpy as np
import PIL.Image
import pytest
import torch
import transformers
from transformers import pipeline

from captum_transformer_lrp import (
    CPLRP,
    Explainer,
    Explanations,
    ImageExplanation,
    TextExplanation,
    load,
    targets,
)
from captum_transformer_lrp.errors import InputError, TargetError
from captum_transformer_lrp.joint import JointExplanation
from captum_transformer_lrp.tasks import task_of

from . import tiny_pictures as tiny
from .tiny_pictures import NAMES, picture

t: Any = transformers
LABELS = ["a dog", "a warm film", "music"]
#: what finds segments in the noise of a random model
LOOSE = {"threshold": 0.3, "mask_threshold": 0.1, "overlap_mask_area_threshold": 0.0}


def pipe_of(task, parts, **options):
    make = cast(Any, pipeline)  # whose overloads name one kind of model for each task
    names = ("model", "image_processor", "tokenizer")
    return make(task, **dict(zip(names, parts, strict=False)), device="cpu", **options)


def run(model, **inputs):
    with torch.no_grad():
        return model(**inputs)


def seen(pipe, image):
    """What the model is called with."""
    made = pipe.image_processor(images=[image], return_tensors="pt")
    return {k: v.double() if v.is_floating_point() else v for k, v in made.items()}


def accounted(explanation, score):
    """CP-LRP conserves: relevance and what constants took are the score."""
    total = explanation.relevance_sum + explanation.convergence_delta
    assert explanation.logit == pytest.approx(float(score), rel=1e-6, abs=1e-9)
    assert total == pytest.approx(float(score), rel=1e-6, abs=1e-9)
    assert np.abs(explanation.scores).max() > 0


def same_answer(one, other):
    """Whether answers are the same; masks compare by content."""
    assert one.keys() == other.keys()
    for key, value in one.items():
        if isinstance(value, PIL.Image.Image):
            assert np.array_equal(np.asarray(value), np.asarray(other[key]))
        else:
            assert value == other[key]


def inside_of(explanation):
    """The part of the picture inside the last outline, booleans."""
    drawn = PIL.Image.new("L", explanation.image.size)
    boxes = explanation.outlines[-1].loops
    xs, ys = ([c[i] for loop in boxes for c in loop] for i in (0, 1))
    array = np.array(drawn)
    array[int(min(ys)) : int(max(ys)), int(min(xs)) : int(max(xs))] = 1
    return array > 0


# ---------------------------------------------------------------------------- one class


@pytest.mark.parametrize("made", [tiny.classifier, tiny.swin_classifier])
def test_class_of_a_picture_is_the_pipelines(made):
    pipe = pipe_of("image-classification", made())
    explanation = Explainer(pipe, "cp-lrp")(picture())
    answer = pipe(picture())
    assert explanation.output == answer[0]
    assert explanation.prediction.name == answer[0]["label"]
    assert explanation.prediction.probability == pytest.approx(answer[0]["score"])
    inputs = seen(pipe, picture())
    index = NAMES.index(answer[0]["label"])
    direct = CPLRP(pipe.model).attribute(inputs["pixel_values"], target=index)
    assert explanation.scores == pytest.approx(direct[0].sum(0).numpy())
    accounted(explanation, run(pipe.model, **inputs).logits[0, index])


def test_picture_is_shown_as_the_model_saw_it():
    pipe = pipe_of("image-classification", tiny.classifier())
    explanation = Explainer(pipe)(picture())
    assert explanation.image.size == (32, 32)
    assert explanation.patch_grid == (4, 4)
    expected = np.asarray(picture().resize((32, 32), PIL.Image.Resampling.BILINEAR))
    shown = np.asarray(explanation.image).astype(int)
    assert np.abs(shown - expected).max() <= 2


def test_all_that_a_picture_can_be_given_as(tmp_path):
    pipe = pipe_of("image-classification", tiny.classifier())
    explainer = Explainer(pipe)
    file = tmp_path / "a.png"
    picture().save(file)
    first = explainer(picture())
    for given in (file, str(file), np.asarray(picture())):
        assert explainer(given).scores == pytest.approx(first.scores)
    assert explainer(image=picture()).scores == pytest.approx(first.scores)
    both = explainer([picture(), picture(seed=1)])
    assert isinstance(both, Explanations)
    assert both[0].scores == pytest.approx(first.scores)
    assert both[1].scores == pytest.approx(explainer(picture(seed=1)).scores)


@pytest.mark.parametrize(
    ("names", "options"),
    [
        (("yes",), {}),
        (NAMES, {"problem_type": "multi_label_classification"}),
        (NAMES, {"problem_type": "single_label_classification"}),
    ],
)
def test_probabilities_of_classes_are_the_pipelines(names, options):
    pipe = pipe_of("image-classification", tiny.classifier(*names, **options))
    every = Explainer(pipe)(picture(), target=list(names))
    chances = {one["label"]: one["score"] for one in pipe(picture())}
    for one in every:
        assert one.target.probability == pytest.approx(chances[one.target.name])
        assert one.output["label"] == one.target.name


def test_other_targets_of_a_picture():
    pipe = pipe_of("image-classification", tiny.classifier())
    explainer = Explainer(pipe)
    both = explainer(picture(), target=["cat", 1])
    assert [one.target.name for one in both] == ["cat", "dog"]
    contrast = explainer(picture(), target=targets.Contrast("cat", "dog"))
    assert contrast.scores == pytest.approx(both[0].scores - both[1].scores)
    with pytest.raises(TargetError, match="no class named 'cow'"):
        explainer(picture(), target="cow")


@pytest.mark.parametrize("method", ["integrated-gradients", "occlusion"])
def test_other_methods_explain_a_picture(method):
    pipe = pipe_of("image-classification", tiny.classifier())
    explanation = Explainer(pipe, method)(picture())
    direct = Explainer(pipe.model, method, transform=pipe.image_processor)
    scores = direct(image=picture()).scores
    assert explanation.scores == pytest.approx(scores, rel=1e-4, abs=1e-6)


# ---------------------------------------------------------------- labels, never trained


@pytest.mark.parametrize("made", [tiny.clip, tiny.siglip])
def test_label_of_a_picture_is_the_pipelines(made):
    pipe = pipe_of("zero-shot-image-classification", made())
    explainer = Explainer(pipe, "cp-lrp")
    answer = pipe(picture(), candidate_labels=LABELS)
    explanation = explainer(picture(), candidate_labels=LABELS)
    assert explanation.output == answer[0]
    assert explanation.target.name == answer[0]["label"]
    every = explainer(picture(), candidate_labels=LABELS, target=LABELS)
    chances = {one["label"]: one["score"] for one in answer}
    texts = [f"This is a photo of {label}." for label in LABELS]
    length = {"padding": "max_length", "max_length": 64} if made is tiny.siglip else {}
    tokens = pipe.tokenizer(texts, return_tensors="pt", **(length or {"padding": True}))
    logits = run(pipe.model, **tokens, **seen(pipe, picture())).logits_per_image[0]
    for one, label, logit in zip(every, LABELS, logits, strict=True):
        assert isinstance(one, JointExplanation)
        assert list(one) == ["picture", "label"]
        assert one.target.probability == pytest.approx(chances[label])
        accounted(one, logit)
        text = one["label"]
        assert isinstance(text, TextExplanation)
        assert text.text == f"This is a photo of {label}."


def test_label_is_explained_with_the_picture_as_one_pair():
    pipe = pipe_of("zero-shot-image-classification", tiny.clip())
    given = {"candidate_labels": LABELS, "hypothesis_template": "{}"}
    explanation = Explainer(pipe, "cp-lrp")(picture(), **given, target="music")
    tokens = pipe.tokenizer(LABELS, return_tensors="pt", padding=True)
    pair = {key: value[2:] for key, value in tokens.items()} | seen(pipe, picture())
    found = CPLRP(pipe.model).attribute(pair, target=targets.Similarity())
    assert explanation["picture"].scores == pytest.approx(
        found["pixel_values"][0].sum(0).numpy()
    )
    real = int(pair["attention_mask"].sum())
    assert explanation["label"].scores == pytest.approx(
        found["input_ids"][0, :real].numpy()
    )


def test_why_one_label_rather_than_another():
    pipe = pipe_of("zero-shot-image-classification", tiny.clip())
    explainer = Explainer(pipe, "cp-lrp")
    given = {"candidate_labels": LABELS}
    contrast = explainer(picture(), **given, target=targets.Contrast("music", 0))
    music, dog = explainer(picture(), **given, target=["music", "a dog"])
    accounted(contrast, music.logit - dog.logit)
    assert contrast.target.name == "music rather than a dog"
    assert list(contrast) == ["picture", "label", "other label"]
    assert contrast["picture"].scores == pytest.approx(
        music["picture"].scores - dog["picture"].scores
    )
    assert contrast["other label"].scores == pytest.approx(-dog["label"].scores)
    with pytest.raises(TargetError, match="there is no label named 'cow'"):
        explainer(picture(), **given, target=targets.Contrast("music", "cow"))


def test_padding_that_is_read_is_told():
    pipe = pipe_of("zero-shot-image-classification", tiny.siglip())
    explanation = Explainer(pipe)(picture(), candidate_labels=LABELS)
    assert explanation.notes[0].startswith("The model reads the padding of a label")
    assert len(explanation["label"].scores) == 64


# ----------------------------------------------------------------------------- segments


def dpt_segmenter():
    return tiny.dpt(t.DPTForSemanticSegmentation)


@pytest.mark.parametrize("made", [tiny.segformer, dpt_segmenter])
def test_regions_of_a_class_are_the_pipelines(made):
    pipe = pipe_of("image-segmentation", made())
    found = Explainer(pipe, "cp-lrp")(picture())
    answers = pipe(picture())
    assert len(found) == len(answers) > 0
    maps = run(pipe.model, **seen(pipe, picture())).logits[0]
    for one, answer in zip(found, answers, strict=True):
        same_answer(one.output, answer)
        region = torch.tensor(np.asarray(answer["mask"]) > 0, dtype=torch.float64)
        small = torch.nn.functional.interpolate(
            region[None, None], size=maps.shape[1:], mode="area"
        )[0, 0]
        label = NAMES.index(answer["label"])
        accounted(one, (maps[label] * small).sum() / small.sum())
        (outline,) = one.outlines
        assert outline.name == answer["label"]


def detr_segmenter():
    return tiny.detr(t.DetrForSegmentation)


@pytest.mark.parametrize(
    ("made", "options"),
    [
        (detr_segmenter, {}),
        (tiny.mask2former, {}),
        (tiny.mask2former, {"subtask": "instance", "threshold": 0.35}),
        (tiny.maskformer, {}),
    ],
)
def test_segments_are_the_pipelines_and_their_query_is_found(made, options):
    pipe = pipe_of("image-segmentation", made())
    options = {**LOOSE, **options}
    answers = pipe(picture(), **options)
    assert answers
    explainer = Explainer(pipe, "cp-lrp")
    found = explainer(picture(), **options)
    output = run(pipe.model, **seen(pipe, picture()))
    logits = output.get("class_queries_logits", output.get("logits"))[0]
    assert len(found) == len(answers)
    for one, answer in zip(found, answers, strict=True):
        same_answer(one.output, answer)
        query = int(re.findall(r"Query (\d+) of", one.notes[0])[0])
        accounted(one, logits[query, NAMES.index(answer["label"])])
        chance = float(logits.softmax(-1)[query, NAMES.index(answer["label"])])
        if options.get("subtask") == "instance":  # times that of the mask
            assert chance >= answer["score"]
        else:
            assert chance == pytest.approx(answer["score"], abs=1e-6)
    assert len({one.notes[0] for one in found}) == len(found)
    masks = output.get("masks_queries_logits", output.get("pred_masks"))[0]
    for one in explainer(picture(), **options, target="mask")[:1]:
        query = int(re.findall(r"Query (\d+) of", one.notes[0])[0])
        inside = masks[query][masks[query] > 0]
        accounted(one, (inside if len(inside) else masks[query]).mean())


def test_segments_that_a_target_means():
    pipe = pipe_of("image-segmentation", tiny.mask2former())
    explainer = Explainer(pipe)
    every = explainer(picture(), **LOOSE)
    second = explainer(picture(), **LOOSE, target=1)
    assert [one.scores.tolist() for one in second] == [every[1].scores.tolist()]
    same = explainer(picture(), **LOOSE, target=every[0].output["label"])
    assert len(same) == sum(
        one.output["label"] == every[0].output["label"] for one in every
    )
    (query,) = explainer(picture(), **LOOSE, target=targets.Segment(3, "dog"))
    output = run(pipe.model, **seen(pipe, picture()))
    assert query.logit == pytest.approx(float(output.class_queries_logits[0, 3, 1]))
    with pytest.raises(TargetError, match="there is no segment named 'cow'"):
        explainer(picture(), **LOOSE, target="cow")
    with pytest.raises(TargetError, match="there are segments 0 to"):
        explainer(picture(), **LOOSE, target=99)
    with pytest.raises(InputError, match="belongs to several queries"):
        explainer(picture(), subtask="semantic")


# -------------------------------------------------------------------------------- depth


@pytest.mark.parametrize("made", [tiny.dpt, tiny.glpn])
def test_depth_is_the_pipelines(made):
    pipe = pipe_of("depth-estimation", made())
    explainer = Explainer(pipe, "cp-lrp")
    explanation = explainer(picture())
    answer = pipe(picture())
    same_depth = torch.equal(
        explanation.output["predicted_depth"], answer["predicted_depth"]
    )
    assert same_depth
    depth = run(pipe.model, **seen(pipe, picture())).predicted_depth[0]
    accounted(explanation, depth.mean())
    rows, columns = depth.shape
    region = np.zeros((rows, columns), dtype=bool)
    region[: rows // 2, : columns // 4] = True
    some = [targets.Mask(region), targets.Pixel(3, 5)]
    of_region, of_place = explainer(picture(), target=some)
    accounted(of_region, depth[: rows // 2, : columns // 4].mean())
    accounted(of_place, depth[3, 5])
    width, height = explanation.image.size
    assert inside_of(of_region).sum() == width // 4 * (height // 2)
    assert [o.name for o in of_place.outlines] == ["place"]
    with pytest.raises(TargetError, match=r"expected target= to be targets\.Mask"):
        explainer(picture(), target="sky")


# -------------------------------------------------------------------------------- boxes


def conditional_detr():
    model = t.ConditionalDetrForObjectDetection, t.ConditionalDetrConfig
    size = {"shortest_edge": 48, "longest_edge": 64}
    return tiny.detr(*model)[0], t.ConditionalDetrImageProcessor(size=size)


@pytest.mark.parametrize("made", [tiny.detr, conditional_detr, tiny.yolos])
def test_boxes_are_the_pipelines_and_their_query_is_found(made):
    pipe = pipe_of("object-detection", made())
    answers = pipe(picture(), threshold=0.2)
    assert len(answers) > 1
    found = Explainer(pipe, "cp-lrp")(picture(), threshold=0.2)
    assert [one.output for one in found] == answers
    output = run(pipe.model, **seen(pipe, picture()))
    for one, answer in zip(found, answers, strict=True):
        query = int(re.findall(r"Query (\d+) of", one.notes[0])[0])
        accounted(one, output.logits[0, query, NAMES.index(answer["label"])])
        x, y, across, down = output.pred_boxes[0, query].tolist()
        corners = (x - across / 2, y - down / 2, x + across / 2, y + down / 2)
        expected = [int(v * s) for v, s in zip(corners, (80, 60) * 2, strict=True)]
        assert list(answer["box"].values()) == expected
        ((top_left, _, bottom_right, _),) = one.outlines[0].loops
        width, height = one.image.size
        share = (*top_left, *bottom_right)
        sizes = (width, height) * 2
        clipped = [min(1.0, max(0.0, v)) for v in corners]
        assert [v / s for v, s in zip(share, sizes, strict=True)] == pytest.approx(
            clipped, abs=1e-3
        )


def test_side_of_a_box_and_boxes_that_a_target_means():
    pipe = pipe_of("object-detection", tiny.yolos())
    explainer = Explainer(pipe, "cp-lrp")
    output = run(pipe.model, **seen(pipe, picture()))
    (right,) = explainer(picture(), target=targets.Box(2, side="right"))
    x, _, across, _ = output.pred_boxes[0, 2].tolist()
    accounted(right, x + across / 2)
    sides = explainer(picture(), threshold=0.2, target="top")
    answers = pipe(picture(), threshold=0.2)
    assert len(sides) == len(answers)
    assert sides[0].score_name == "top side, as a share of the height"
    assert int(sides[0].logit * 60) == answers[0]["box"]["ymin"]
    (first,) = explainer(picture(), threshold=0.2, target=0)
    assert first.output == answers[0]
    with pytest.raises(TargetError, match="there is no object named 'cow'"):
        explainer(picture(), threshold=0.2, target="cow")
    assert explainer(picture(), threshold=1.0) == []


def owlv2():
    return tiny.owl(t.Owlv2ForObjectDetection)


@pytest.mark.parametrize("made", [tiny.owl, owlv2])
def test_boxes_of_labels_are_the_pipelines(made):
    pipe = pipe_of("zero-shot-object-detection", made())
    given = {"candidate_labels": LABELS[:2], "threshold": 0.3}
    answers = pipe(picture(), **given, top_k=5)
    assert len(answers) == 5
    found = Explainer(pipe, "cp-lrp")(picture(), **given, top_k=5)
    assert [one.output for one in found] == answers
    for one, answer in zip(found, answers, strict=True):
        assert isinstance(one, JointExplanation)
        query = int(re.findall(r"Query (\d+) of", one.notes[0])[0])
        tokens = pipe.tokenizer(answer["label"], return_tensors="pt")
        output = run(pipe.model, **tokens, **seen(pipe, picture()))
        accounted(one, output.logits[0, query, 0])
        seen_part = one["picture"]
        assert isinstance(seen_part, ImageExplanation)
        assert [o.name for o in seen_part.outlines] == [answer["label"]]
        assert one["label"].task == "zero-shot-object-detection"


def test_boxes_of_labels_of_several_tokens():
    """Grounding DINO scores each token of a label, and takes the best one."""
    pipe = pipe_of("zero-shot-object-detection", tiny.grounding_dino())
    given = {"candidate_labels": ["a dog."], "top_k": 1}
    (answer,) = pipe(picture(), **given)
    explainer = Explainer(pipe, "cp-lrp")
    (one,) = explainer(picture(), **given)
    assert one.output == answer
    query = int(re.findall(r"Query (\d+) of", one.notes[0])[0])
    tokens = pipe.tokenizer("a dog.", return_tensors="pt")
    logits = run(pipe.model, **tokens, **seen(pipe, picture())).logits[0, query]
    accounted(one, logits.max())
    assert float(logits.max().sigmoid()) == pytest.approx(answer["score"])
    ((again,),) = explainer(
        [{"image": picture(), "candidate_labels": ["a dog."]}], top_k=1
    )
    assert again.scores == pytest.approx(one.scores)


# ------------------------------------------------------------------------ masks, videos


def test_mask_of_a_point():
    model, processor = tiny.sam()
    explainer = Explainer(model, "cp-lrp", processor=processor)
    points = [[[30, 20]]]
    explanation = explainer(picture(), input_points=points)
    made = processor(images=picture(), input_points=points, return_tensors="pt")
    sizes = made.pop("original_sizes"), made.pop("reshaped_input_sizes")
    inputs = {key: value.double() for key, value in made.items()}
    output = run(model, **inputs)
    best = int(output.iou_scores[0, 0].argmax())
    logits = output.pred_masks[0, 0, best]
    inside = logits[logits > 0]
    accounted(explanation, (inside if len(inside) else logits).mean())
    answer = explanation.output
    masks = processor.post_process_masks(output.pred_masks, *sizes)[0][0]
    assert np.array_equal(np.asarray(answer["mask"]) > 0, masks[best].numpy())
    assert answer["mask"].size == picture().size
    assert answer["score"] == pytest.approx(float(output.iou_scores[0, 0, best]))
    assert [o.name for o in explanation.outlines] == ["prompt", f"mask {best}"]
    third, overlap = explainer(picture(), input_points=points, target=[2, "iou"])
    assert third.target.index == 2
    accounted(overlap, output.iou_scores[0, 0, best])
    with pytest.raises(InputError, match=re.escape("input_points=[[[x, y]]]")):
        explainer(picture())
    with pytest.raises(InputError, match="needs processor="):
        Explainer(model)(picture(), input_points=points)


@pytest.mark.parametrize("kind", ["VideoMAE", "Timesformer"])
def test_class_of_a_video(kind):
    model, processor = tiny.video_classifier(kind)
    frames = [picture(40, 30, seed) for seed in range(4)]
    explainer = Explainer(model, "cp-lrp", image_processor=processor)
    explanation = explainer(frames)
    pixels = processor(frames, return_tensors="pt")["pixel_values"].double()
    logits = run(model, pixel_values=pixels).logits[0]
    accounted(explanation, logits.max())
    assert explanation.prediction.name == explanation.output["label"]
    chance = float(logits.softmax(0).max())
    assert explanation.output["score"] == pytest.approx(chance)
    assert list(explanation) == [f"frame {i}" for i in range(1, 5)]
    index = int(logits.argmax())
    direct = CPLRP(model).attribute({"pixel_values": pixels}, target=index)
    direct = direct["pixel_values"] if isinstance(direct, dict) else direct
    for part, scores in zip(explanation.parts_of.values(), direct[0], strict=True):
        assert part.scores == pytest.approx(scores.sum(0).numpy())
    assert explainer(np.stack(frames)).scores == pytest.approx(explanation.scores)
    both = explainer([frames, frames[::-1]], target="dog")
    assert [one.target.name for one in both] == ["dog", "dog"]
    with pytest.raises(InputError, match="the model reads 4 frames, got 3"):
        explainer(frames[:3])
    with pytest.raises(InputError, match=r"the name of a file, 'a\.mp4'"):
        explainer("a.mp4")


# ------------------------------------------------------------------------------- errors


def test_wrong_inputs_are_answered_in_one_sentence(tmp_path):
    broken = tmp_path / "a.png"
    broken.write_text("no picture")
    classes = Explainer(pipe_of("image-classification", tiny.classifier()))
    labels = Explainer(pipe_of("zero-shot-image-classification", tiny.clip()))
    cases = [
        (classes, {"text": "A warm film"}, "takes a picture (a PIL image or an array"),
        (classes, {"image": broken}, "cannot identify image file"),
        (classes, {"image": 5}, "takes a picture"),
        (classes, {"text": "a", "image": picture()}, "got text= and image="),
        (
            classes,
            {},
            "expected an input for the task 'image-classification', got none",
        ),
        (labels, {"image": picture()}, "candidate_labels=[...], a list of texts"),
        (labels, {"image": picture(), "candidate_labels": "cat"}, "got 'cat'"),
        (
            labels,
            {"image": picture(), "candidate_labels": []},
            "a list of texts, got []",
        ),
    ]
    for explainer, given, message in cases:
        with pytest.raises(InputError, match=re.escape(message)):
            explainer(**given)


def test_pipeline_and_model_stay_as_they_were():
    pipe = pipe_of("object-detection", tiny.yolos())
    image = picture()
    before = dict(vars(pipe)), dict(vars(pipe.model)), torch.get_rng_state()
    Explainer(pipe)(image, threshold=0.2, target=0)
    with pytest.raises(InputError):
        Explainer(pipe)("no picture")
    assert vars(pipe) == before[0]
    assert vars(pipe.model) == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert image == picture()


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        ("SwinForImageClassification", "image-classification"),
        ("SegformerForSemanticSegmentation", "image-segmentation"),
        ("OneFormerForUniversalSegmentation", "image-segmentation"),
        ("RTDetrForObjectDetection", "object-detection"),
        ("Owlv2ForObjectDetection", "zero-shot-object-detection"),
        ("CLIPModel", "zero-shot-image-classification"),
        ("SamModel", "mask-generation"),
        ("VivitForVideoClassification", "video-classification"),
    ],
)
def test_task_is_told_by_the_class_of_a_model(kind, task):
    assert task_of(kind) == task


def test_classifier_without_a_pipeline_is_asked_as_before():
    model, processor = tiny.classifier()
    model = model.float()  # pictures come in float32
    explainer = Explainer(model, transform=processor)
    assert explainer.pipeline is None
    assert explainer(image=picture()).task == ""


# ----------------------------------------------------------------------- shown and kept


@pytest.mark.parametrize("suffix", [".json", ".parquet", ".safetensors"])
def test_an_explained_box_is_kept(tmp_path, suffix):
    pytest.importorskip("safetensors")
    pytest.importorskip("pyarrow")
    pipe = pipe_of("object-detection", tiny.yolos())
    (explanation,) = Explainer(pipe)(picture(), threshold=0.2, target=0)
    kept = load(explanation.save(tmp_path / f"one{suffix}"))
    assert kept.to_dict() == explanation.to_dict()
    assert kept.outlines == explanation.outlines
    assert kept.task == "object-detection"


def test_picture_and_label_are_kept_and_shown(tmp_path):
    pipe = pipe_of("zero-shot-image-classification", tiny.clip())
    explanation = Explainer(pipe)(picture(), candidate_labels=LABELS)
    kept = load(explanation.save(tmp_path / "one.json"))
    assert kept.to_dict() == explanation.to_dict()
    page = kept.to_html()
    assert "Picture, " in page and "Label, " in page
    assert "Why" in kept.to_text()


def test_outlined_things_are_named_everywhere():
    pipe = pipe_of("object-detection", tiny.yolos())
    (explanation,) = Explainer(pipe)(picture(), threshold=0.2, target=0)
    told = f"outlined: {explanation.target.name}"
    assert told in explanation.to_html()
    assert told in explanation.to_text()
    assert told in [text.get_text() for text in explanation.plot().texts]


def test_frames_stand_in_a_row():
    model, processor = tiny.video_classifier()
    explainer = Explainer(model, image_processor=processor)
    explanation = explainer([picture(40, 30, seed) for seed in range(4)])
    above, below = list(explanation.map())
    assert len(above.pictures) == len(below.pictures) == above.across == 4
    assert below.pictures[0].caption.startswith("frame 1, ")
    assert len({one.scale.limit for one in below.pictures}) == 1


# ------------------------------------------------------------------------------ targets


def test_targets_of_segments_prompts_and_pairs_by_hand():
    torch.manual_seed(0)
    classes, masks = torch.randn(2, 3, 4), torch.randn(2, 3, 5, 6)
    for names in (
        ("class_queries_logits", "masks_queries_logits"),
        ("logits", "pred_masks"),
    ):
        output = dict(zip(names, (classes, masks), strict=True))
        assert torch.equal(targets.Segment(1, 2)(output), classes[:, 1, 2])
        best = classes[:, 1, :3].amax(1)  # the last one says that there is nothing
        assert torch.equal(targets.Segment(1)(output), best)
        inside = torch.stack([m[m > 0].mean() for m in masks[:, 1]])
        found = targets.Segment(1, of="mask")(output)
        assert found.tolist() == pytest.approx(inside.tolist())
        assert torch.equal(
            targets.Segment(1, of="mask")({names[1]: -masks.abs()}),
            -masks.abs()[:, 1].mean((1, 2)),
        )
    prompted = {"pred_masks": masks[:, None], "iou_scores": classes[:, :1, :3]}
    assert targets.Prompted(1)(prompted).tolist() == pytest.approx(inside.tolist())
    overlap = targets.Prompted(2, of="iou")(prompted)
    assert torch.equal(overlap, classes[:, 0, 2])
    logits = {"logits_per_image": classes[0]}
    assert torch.equal(targets.Similarity(3)(logits), classes[0, :, 3])
    unknown = cast(Any, "box")
    for wrong, message in (
        (targets.Segment(1, of=unknown), "of= to be one of class, mask, got 'box'"),
        (targets.Segment(9, 0), "there is no query 9"),
        (targets.Prompted(1, of=unknown), "of= to be one of mask, iou, got 'box'"),
    ):
        with pytest.raises(TargetError, match=message):
            wrong({"logits": classes, "pred_masks": masks})


def test_targets_of_pictures_know_the_names_of_a_model():
    model, _ = tiny.mask2former()
    assert targets.Segment(0, "dog").for_model(model) == targets.Segment(0, 1)
