"""The methods by name: each says what it is, and a stranger's is one of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import (
    LRP,
    Attribution,
    DeepLift,
    DeepLiftShap,
    FeatureAblation,
    InputXGradient,
    IntegratedGradients,
    LayerDeepLiftShap,
    LayerIntegratedGradients,
    NeuronGradient,
    NoiseTunnel,
    Saliency,
)
from torch import nn

from captum_transformer_lrp import (
    AttnLRP,
    CheferLRP,
    Composite,
    Description,
    DiffMask,
    LayerAttnLRP,
    NeuronAttnLRP,
    RawAttention,
    TransformerLRP,
    compare,
    explain,
    methods,
    rules,
)
from captum_transformer_lrp.attribution import BASELINES, METHODS, InputOcclusion
from captum_transformer_lrp.cli import main
from captum_transformer_lrp.composites import COMPOSITES
from captum_transformer_lrp.core.composites import ATTN_LRP
from captum_transformer_lrp.description import describe
from captum_transformer_lrp.errors import (
    AttentionError,
    DuplicateRuleError,
    InputError,
    OutputError,
    UnknownNameError,
)
from captum_transformer_lrp.models import load_image_model, load_text_model
from tests.models.tiny import save_text_classifier, save_timm_classifier
from tests.test_explaining import picture

anything: Any = methods  # for calls that a type checker would refuse
TEXT = "the film was warm, never dull!"


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    pytest.importorskip("transformers")
    return load_text_model(save_text_classifier(tmp_path_factory.mktemp("bert")))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    pytest.importorskip("timm")
    return load_image_model(save_timm_classifier(tmp_path_factory.mktemp("vit")))


@pytest.fixture
def names(monkeypatch):
    """The table, put back afterwards."""
    monkeypatch.setattr(methods, "_rows", dict(methods._rows))
    return methods


# ------------------------------------------------------------- what they say is true


def test_every_name_that_was_one_is_one():
    assert [*methods] == list(dict.fromkeys([*METHODS, *BASELINES, *COMPOSITES]))
    assert "GAMMA" in methods and methods["GAMMA"].name == "gamma"
    for name, cls in {**METHODS, **BASELINES}.items():
        assert methods[name].maker is cls
        assert methods[name].description.name == cls.get_name()


@pytest.mark.parametrize("name", methods)
def test_what_a_method_says_of_its_scores(texts, images, name):
    said = methods[name].description
    of_text = explain(TEXT, model=texts, method=name, target="good")
    of_image = explain(image=picture(), model=images, method=name)
    other = explain(TEXT, model=texts, method=name, target="bad")
    for one in (of_text, of_image):
        assert (one.method, one.measure) == (said.name, said.measure)
        assert one.same_for_every_target is said.same_for_every_target
    signed = any((one.scores < 0).any() for one in (of_text, of_image))
    assert signed is (said.measure == "relevance")
    same = np.allclose(of_text.scores, other.scores, rtol=1e-3)
    assert same is said.same_for_every_target
    rows = np.split(of_image.scores, 4)
    cells = [cell for row in rows for cell in np.split(row, 4, axis=1)]
    even = all(np.ptp(cell) < 1e-7 for cell in cells)
    flat = name.endswith("flat")  # a rule that gives all pixels of a patch the same
    assert even is (said.grain == "part" or flat)


@pytest.mark.parametrize("name", methods)
def test_what_a_method_says_of_its_sum(name):
    """On a network without biases, with scores that are far apart."""
    torch.manual_seed(0)
    layers = nn.Linear(16, 8, bias=False), nn.Tanh(), nn.Linear(8, 3, bias=False)
    model = nn.Sequential(nn.Flatten(), *layers).double()
    x, black = torch.randn(2, 2, 1, 4, 4, dtype=torch.float64)
    said = methods[name].description
    made: Any = methods[name].make(model, baseline=black[None, 0])
    if "attention" in said.needs:
        with pytest.raises(AttentionError, match="no attention map"):
            made.attribute(x, target=1)
        return
    if "patch_size" in said.needs:
        made.patch_size = (2, 2)
    sums = made.attribute(x, target=1).sum((1, 2, 3))
    score = model(x)[:, 1]
    less = score - model(black[None, 0])[:, 1]
    if name == "lime":  # promises nothing, and its slopes of a sum of parts add up
        assert said.conserves == "no" and not torch.allclose(sums, less)
        return
    total = {"score": score, "partly": score, "difference": less}.get(said.conserves)
    for one, tolerance in ((score, 1e-4), (less, 0.2)):
        held = bool((sums - one).abs().max() < tolerance * one.abs().max())
        assert held is (one is total)


@pytest.mark.parametrize("name", BASELINES)
def test_who_says_that_it_needs_a_baseline_has_one(name):
    needs = BASELINES[name].description.needs
    assert ("baseline" in needs) is ("tokenizer" in needs)
    assert ("baseline" in needs) is BASELINES[name].has_baseline


CAPTUMS = [
    (IntegratedGradients, {"conserves": "difference"}),
    (DeepLift, {"conserves": "difference"}),
    (DeepLiftShap, {"conserves": "difference", "needs": ("baselines",)}),
    (Saliency, {"measure": "magnitude"}),
    (InputXGradient, {}),
    (LRP, {"conserves": "partly"}),
    (FeatureAblation, {"grain": "repeated"}),
]


@pytest.mark.parametrize(("cls", "said"), CAPTUMS)
def test_what_is_said_of_methods_of_captum(cls, said):
    model = nn.Sequential(nn.Linear(4, 2))
    found = describe(cls(model))
    plain = {"measure": "relevance", "grain": "element", "conserves": "no", "needs": ()}
    assert {key: getattr(found, key) for key in plain} == {**plain, **said}
    assert (found.name, found.takes) == (cls.get_name(), "tensors")
    tunnel = describe(NoiseTunnel(cls(model)))
    assert tunnel.name == f"Noise Tunnel of {cls.get_name()}"
    assert (tunnel.measure, tunnel.grain) == (found.measure, found.grain)
    assert tunnel.needs == (*found.needs, "method")
    assert tunnel.conserves == ("difference" if found.conserves[0] == "d" else "no")


def test_a_noise_tunnel_gives_the_scores_that_are_in_it(texts, images):
    """Also one for each token or patch, under the same name: weights are weights."""
    options = {"nt_samples": 2, "stdevs": 1e-6}
    for cls in (CheferLRP, RawAttention, InputOcclusion, FeatureAblation, AttnLRP):
        for source, given in ((texts, {"text": TEXT}), (images, {"image": picture()})):
            exact = explain(**given, model=source, method=cls(source.module))
            noisy = NoiseTunnel(cls(source.module))
            still = explain(**given, model=source, method=noisy, options=options)
            np.testing.assert_allclose(still.scores, exact.scores, rtol=2e-2, atol=1e-4)
            assert still.measure == exact.measure == describe(cls).measure
            assert still.same_for_every_target is exact.same_for_every_target


# --------------------------------------------------------------------- a stranger's


class Squared(InputXGradient):
    """Gradient times input, squared: a method of a stranger."""

    description = Description(name="Squared", measure="magnitude", cost=1)

    def attribute(self, *arguments: Any, **options: Any) -> Any:
        """Return the squares."""
        return super().attribute(*arguments, **options) ** 2


class OfTokens(Attribution):
    """The sizes of the gradients at embeddings or pixels, made by hand."""

    description = Description(name="Sizes", measure="magnitude", conserves="no")

    def attribute(self, inputs: Any, target: Any, additional_forward_args: Any) -> Any:
        """Return one number per token, or per value of a pixel."""
        scores = self.forward_func(inputs, *additional_forward_args)
        (gradient,) = torch.autograd.grad(scores[0, target], inputs)
        return gradient.norm(dim=-1) if inputs.dim() == 3 else gradient.abs()

    def notes_on(self, scores: np.ndarray, delta: float | None) -> tuple[str, ...]:
        """Say of what the scores are, and that there is no delta."""
        return (f"{scores.ndim} dimensions, {delta}",)


def ablation(model: nn.Module) -> Attribution:
    """Leave one out, by a function."""
    return FeatureAblation(model)


TABLE = Composite("Mine", {**ATTN_LRP.rows, "activation": rules.PlainGradient()})

#: maker, description, what it equals, measure of its scores
STRANGERS: dict[str, tuple[Any, Description | None, Any, str]] = {
    "class": (Squared, None, None, "magnitude"),
    "by-hand": (OfTokens, None, None, "magnitude"),
    "captum": (
        IntegratedGradients,
        None,
        "integrated-gradients",
        "relevance",
    ),
    "function": (ablation, Description(name="Ablation"), "occlusion", "relevance"),
    "table": (TABLE, None, lambda m: TransformerLRP(m, TABLE), "relevance"),
    "tunnel": (
        lambda m: NoiseTunnel(AttnLRP(m)),
        Description(name="Noisy", options={}),
        None,
        "relevance",
    ),
    "subclass": (
        lambda m, **options: CheferLRP(m, **options),
        dataclasses.replace(CheferLRP.description, name="Again"),
        "chefer",
        "attention",
    ),
    "informed": (
        lambda m, tokenizer=None, baseline=None: BASELINES["integrated-gradients"](
            m, tokenizer=tokenizer, baseline=baseline
        ),
        Description(takes="mapping", needs=("tokenizer", "baseline")),
        "integrated-gradients",
        "relevance",
    ),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_a_stranger_registers_a_method(names, texts, images, capsys, name):
    maker, said, same_as, measure = STRANGERS[name]
    names.register(f"My-{name}", maker, said)
    assert [*names][-1] == f"my-{name}"
    for source, given in ((texts, {"text": TEXT}), (images, {"image": picture()})):
        one = explain(**given, model=source, method=f"my-{name}")
        assert one.measure == measure and one.scores.any()
        if said is not None and said.name is not None:
            assert one.method == said.name
        noted = f"{one.scores.ndim} dimensions, None" in one.notes
        assert noted is (name == "by-hand")
        if same_as is not None:
            other = same_as if isinstance(same_as, str) else same_as(source.module)
            expected = explain(**given, model=source, method=other)
            np.testing.assert_allclose(
                one.scores, expected.scores, rtol=1e-3, atol=1e-5
            )
        both = compare(**given, model=source, methods=["attnlrp", f"MY-{name}"])
        assert both.explanations[1].method == one.method
        assert np.isfinite(both.agreement()).all()
        assert (both.conservation[1] is not None) is (name == "table")
    assert main(["methods"]) == main(["rules", "--method", f"my-{name}"]) == 0
    line = next(x for x in capsys.readouterr().out.splitlines() if f"my-{name} " in x)
    assert line.split()[1] == measure
    names.unregister(f"my-{name}")
    with pytest.raises(UnknownNameError, match="there is no method"):
        explain(TEXT, model=texts, method=f"my-{name}")


def test_a_stranger_registers_a_method_of_a_layer(names, texts):
    """Its class says that it needs a layer, whatever the description forgets."""
    names.register(
        "layered",
        lambda model: LayerIntegratedGradients(model, model.bert.embeddings),
        Description(name="Layered", conserves="difference"),
    )
    module = texts.module
    same = LayerIntegratedGradients(module, module.bert.embeddings)
    found = explain([TEXT, "funny"], model=texts, method="layered")
    for one, other in zip(
        found, explain([TEXT, "funny"], model=texts, method=same), strict=True
    ):
        np.testing.assert_array_equal(one.scores, other.scores)
        assert one.convergence_delta is not None and one.method == "Layered"


def test_a_table_keeps_its_name_without_being_registered(texts):
    for table, name in ((TABLE, "Mine"), ("gamma", "AttnLRP, gamma")):
        method = TransformerLRP(texts.module, table)
        assert explain(TEXT, model=texts, method=method).method == name
    assert TransformerLRP.get_name() == "TransformerLRP"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("attnlrp", AttnLRP), DuplicateRuleError, "there is a method 'attnlrp' alrea"),
        (("Gamma", TABLE), DuplicateRuleError, "'Gamma' already. Pass replace=True"),
        (("mine", ablation), InputError, "what its scores are: pass a Description too"),
        (("mine", LayerIntegratedGradients), UnknownNameError, "a layer as well: pass"),
        (("mine", LayerAttnLRP), UnknownNameError, "or register a function that makes"),
        (("mine", LayerDeepLiftShap), UnknownNameError, "is built on a layer as well"),
        (("mine", NoiseTunnel), UnknownNameError, "is built on another method: pass"),
        (("mine", DiffMask), UnknownNameError, "DiffMask has to be trained: pass an o"),
        (("my method", TABLE), InputError, "a name such as 'my-method', got 'my me"),
        ((3, TABLE), InputError, "a name such as 'my-method', got 3"),
        (("mine", dict), UnknownNameError, "a Captum Attribution class or an object"),
        (("mine", "attnlrp"), UnknownNameError, "a Captum Attribution class or an obj"),
    ],
)
def test_what_cannot_be_registered(names, arguments, error, message):
    before = [*names]
    with pytest.raises(error, match=message):
        names.register(*arguments)
    assert [*names] == before


@pytest.mark.parametrize("needs", [(), ("tokenizer",)])
def test_what_does_not_take_what_it_says_it_needs(names, texts, needs):
    said = Description(needs=needs, options={} if needs else {"own_token": "zero"})
    names.register("mine", ablation, said)
    wanted = needs[0] if needs else "own_token"
    with pytest.raises(InputError, match=f"'mine' is made with {wanted}, as its desc"):
        explain(TEXT, model=texts, method="mine")


class Own(TransformerLRP):
    """A method with a table that only its objects know."""

    def __init__(self, forward_func: Any) -> None:
        super().__init__(forward_func, TABLE)


@pytest.mark.parametrize(
    ("maker", "table"),
    [
        (Own, TABLE),
        (lambda model: TransformerLRP(model, "gamma"), COMPOSITES["gamma"]),
        (lambda model: TransformerLRP(model.bert, "gamma"), None),
        (InputXGradient, None),
    ],
)
def test_the_rules_are_those_of_the_objects(names, capsys, maker, table):
    names.register("own", maker, Description(takes="mapping"))
    assert names["own"].composite == table
    assert main(["rules", "--method", "own"]) == 0
    printed = capsys.readouterr().out
    assert (str(table) in printed) if table else ("no rules" in printed)


def test_what_explains_no_target_is_refused(texts):
    layer = texts.module.bert.embeddings
    for method in (
        DiffMask(texts.module),
        NeuronAttnLRP(texts.module, layer),
        NeuronGradient(texts.module, layer),
    ):
        with pytest.raises(
            UnknownNameError, match=r"\.attribute takes no target=, and"
        ):
            explain(TEXT, model=texts, method=method)


def test_a_name_that_is_none():
    for name in (3, None):
        with pytest.raises(UnknownNameError, match=f"no method {name}"):
            anything[name]


def test_a_method_is_replaced_only_on_demand(names):
    names.register("gamma", TABLE, replace=True)
    assert names["gamma"].composite == TABLE and [*names].count("gamma") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            {"measure": "relevanz"},
            "no method has measure='relevanz'. Did you mean 'rel",
        ),
        ({"grain": "pixel"}, "no method has grain='pixel'. Known: element, part, r"),
        ({"conserves": "yes"}, "no method has conserves='yes'. Known: difference, no,"),
        ({"takes": "mappings"}, "Did you mean 'mapping'"),
        ({"needs": ("tokeniser",)}, "needs='tokeniser'. Did you mean 'tokenizer'"),
    ],
)
def test_a_description_of_unknown_words(words, message):
    with pytest.raises(UnknownNameError, match=message):
        Description(**words)


def test_what_makes_something_else_is_named(names, texts):
    names.register("mine", lambda model: model, Description())
    with pytest.raises(OutputError, match="the method 'mine' was made as BertFor"):
        explain(TEXT, model=texts, method="mine")


def test_scores_of_another_shape_are_refused(names, texts, images):
    class Wrong(InputXGradient):
        """Too few scores."""

        def attribute(self, *arguments: Any, **options: Any) -> Any:
            """Return some of them."""
            return super().attribute(*arguments, **options)[..., :1].sum((0, 1))

    names.register("wrong", Wrong)
    for source, given in ((texts, {"text": TEXT}), (images, {"image": picture()})):
        with pytest.raises(OutputError, match="one tensor of the shape of its input"):
            explain(**given, model=source, method="wrong")
