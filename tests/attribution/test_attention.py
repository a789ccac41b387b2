"""What the attention methods share: Captum's contract, options, errors."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from captum.attr import Attribution, LayerAttribution, NoiseTunnel
from torch import Tensor, nn

import captum_transformer_lrp
from captum_transformer_lrp import (
    METHODS,
    AttentionAttribution,
    AttentionRelevance,
    AttentionRollout,
    CheferLRP,
    GenericAttention,
    PartialLRP,
    RawAttention,
)
from captum_transformer_lrp.attribution.aggregation import Contribution, compose
from captum_transformer_lrp.errors import (
    AttentionError,
    ModelStateError,
    TargetError,
    UnknownOperatorError,
)
from tests.helpers import Tiny, assert_same_state, state_of

CLASSES = [
    cls
    for name in captum_transformer_lrp.__all__
    if isinstance(cls := getattr(captum_transformer_lrp, name), type)
    and issubclass(cls, AttentionAttribution)
    and cls is not AttentionAttribution
]
IDS = torch.tensor([[3, 7, 1, 9, 4], [5, 2, 8, 8, 6]])


class Patches(nn.Module):
    """A vision transformer on non-square images: class token, 2 x 3 patches."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.body = Tiny(blocks=2)
        self.body.position = nn.Parameter(torch.randn(1, 16, 8) * 0.5)

    def forward(self, pixels: Tensor) -> Any:
        x = self.embed(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        x = x + self.body.position[:, : x.shape[1]]
        for block in self.body.blocks:
            x = block(x)
        return self.body.head(x[:, 0])


def text() -> Any:
    torch.manual_seed(0)
    return Tiny(blocks=2).double().eval()


def image() -> Any:
    torch.manual_seed(0)
    return Patches().double().eval()


PIXELS = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(1)).double()


def test_all_classes_are_methods_of_the_command() -> None:
    assert len(CLASSES) == 9
    assert {c for c in METHODS.values() if c in CLASSES} == set(CLASSES)


@pytest.mark.parametrize("cls", CLASSES)
def test_contract(cls: Any) -> None:
    assert issubclass(cls, Attribution)
    assert hasattr(cls.attribute, "__wrapped__"), "log_usage is missing"
    method = cls(image())
    assert not method.has_convergence_delta() and not method.multiplies_by_inputs
    assert cls.get_name() == cls.name
    with torch.no_grad():
        found = method.attribute(PIXELS, target=1)
    assert found.shape == (2, 1, 2, 3) and not found.requires_grad
    assert torch.equal(method.attribute((PIXELS,), target=1)[0], found)
    fine = cls(image(), upsample=True).attribute(PIXELS, target=1)
    assert torch.equal(fine, LayerAttribution.interpolate(found, (8, 12), "bilinear"))
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module"):
        cls("model")


@pytest.mark.parametrize("cls", CLASSES)
def test_noise_tunnel(cls: Any) -> None:
    torch.manual_seed(0)
    tunnel = NoiseTunnel(cls(image()))
    found = tunnel.attribute(
        PIXELS, target=1, nt_type="smoothgrad", nt_samples=4, stdevs=1e-9
    )
    assert torch.allclose(found, cls(image()).attribute(PIXELS, target=1), rtol=1e-4)


@pytest.mark.parametrize("cls", CLASSES)
def test_the_model_is_left_alone(cls: Any) -> None:
    model = text()
    before = state_of(model)
    cls(model).attribute(IDS, target=1)
    cls(model, dtype=torch.float64).attribute(IDS, target=1)
    with pytest.raises(TargetError):
        cls(model).attribute(IDS, target=9)
    with torch.inference_mode(), pytest.raises(ModelStateError):
        cls(model).attribute(IDS, target=1)
    assert_same_state(before, state_of(model))


def test_several_targets_from_one_forward_pass() -> None:
    model, calls = image(), []
    model.register_forward_hook(lambda *_: calls.append(1))
    for cls in CLASSES:
        calls.clear()
        found = cls(model).attribute_targets(PIXELS, [0, [1, 2], 2])
        assert len(calls) == 1
        for each, target in zip(found, [0, [1, 2], 2], strict=True):
            alone = cls(model).attribute(PIXELS, target=target)
            assert torch.allclose(each, alone, rtol=1e-12)


def test_layers_are_plain_tensors() -> None:
    layers = CheferLRP(text()).layers(IDS, target=1)
    assert [layer.module for layer in layers] == ["blocks.0", "blocks.1"]
    for layer in layers:
        assert layer.attention.shape == (2, 2, 5, 5) == layer.gradient.shape
        assert layer.relevance is not None and not layer.attention.requires_grad
        assert torch.allclose(layer.attention.sum(-1), torch.ones(2, 2, 5).double())
        assert layer.used and layer.queries == layer.keys
    assert GenericAttention(text()).layers(IDS, target=1)[0].relevance is None


def test_rows_that_are_read() -> None:
    """Two blocks and a mean: all rows, less what each token has of itself."""
    model = text()
    layers = RawAttention(model).layers(IDS, target=1)
    last = layers[-1].attention.mean(1)
    found = RawAttention(model, own_token="keep").attribute(IDS, target=1)
    assert torch.allclose(found, last.mean(1), rtol=1e-12)
    for rows in (2, [2, 2], torch.tensor([2])):
        chosen = RawAttention(model, rows=rows, own_token="keep")
        assert torch.allclose(chosen.attribute(IDS, target=1), last[:, 2], rtol=1e-12)
    zero = RawAttention(model, rows=-1).attribute(IDS, target=1)
    assert (zero[:, -1] == 0).all() and torch.equal(zero[:, :-1], last[:, -1, :-1])
    rolled = AttentionRollout(model, normalize_rows=False).attribute(IDS, target=1)
    first = layers[0].attention.mean(1)
    expected = (last + first + last @ first).mean(1)
    assert torch.allclose(rolled, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 5}, "rows=5 is out of range: the tokens are -5 ... 4."),
        ({"rows": [1, 2, 3]}, "rows has 3 positions for 2 example(s); expected one,"),
    ],
)
def test_rows_that_are_not_there(options: Any, message: str) -> None:
    with pytest.raises(AttentionError) as caught:
        CheferLRP(text(), **options).attribute(IDS, target=1)
    assert message in str(caught.value)


def test_options_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match=r"own_token='none'; expected 'minimum'"):
        CheferLRP(text(), own_token="none")
    with pytest.raises(ValueError, match=r"between='all'; expected 'rules' or 'last'"):
        CheferLRP(text(), between="all")
    with pytest.raises(ValueError, match=r"start_layer=2 is out of range: expected -2"):
        CheferLRP(text(), start_layer=2).attribute(IDS, target=1)
    with pytest.raises(ValueError, match=r"layer=-3 is out of range: expected -2"):
        PartialLRP(text(), layer=-3).attribute(IDS, target=1)
    with pytest.raises(AttentionError, match="which do not make up a grid over"):
        CheferLRP(image(), prefix_tokens=3).attribute(PIXELS, target=1)


def test_an_operator_without_a_rule() -> None:
    class Odd(Tiny):
        def forward(self, input_ids: Any = None, inputs_embeds: Any = None) -> Any:
            x = torch.erfinv(self.embedding(input_ids) / 9)
            return super().forward(inputs_embeds=x)

    torch.manual_seed(0)
    model = Odd().double().eval()
    CheferLRP(model).attribute(IDS, target=1)

    class Odder(Tiny):
        def forward(self, input_ids: Any = None, inputs_embeds: Any = None) -> Any:
            x = self.embedding(input_ids)
            return super().forward(inputs_embeds=torch.special.i0(x) * x)

    with pytest.raises(UnknownOperatorError, match="special_i0"):
        CheferLRP(Odder().double().eval()).attribute(IDS, target=1)
    # no relevance is carried, so that no rule is missed
    GenericAttention(Odder().double().eval()).attribute(IDS, target=1)


def test_two_threads_explain_one_model() -> None:
    model = text()
    expected = {t: CheferLRP(model).attribute(IDS, target=t) for t in range(3)}
    wrong: list[int] = []

    def work(target: int) -> None:
        for _ in range(5):
            found = CheferLRP(model).attribute(IDS, target=target)
            if not torch.equal(found, expected[target]):
                wrong.append(target)

    threads = [threading.Thread(target=work, args=(t,)) for t in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_float64_of_a_float32_model() -> None:
    """Equal to a converted model, which is left as it is."""
    model = text().float()
    raised = CheferLRP(model, dtype=torch.float64).attribute(IDS, target=1)
    assert raised.dtype == torch.float64
    assert next(model.parameters()).dtype == torch.float32
    converted = CheferLRP(model.double()).attribute(IDS, target=1)
    assert (raised - converted).abs().max() < 1e-12 * converted.abs().max()


def test_streams_keep_apart() -> None:
    """Hand-made: image attends to itself, then text to image."""
    a, b = torch.rand(2, 1, 3, 3).double()
    cross = torch.rand(1, 2, 3).double()
    relations = compose(
        [
            [Contribution("i", "i", a)],
            [Contribution("i", "i", b)],
            [Contribution("t", "i", cross)],
        ]
    )
    identity = torch.eye(3).double()
    image = (identity + b) @ (identity + a)
    own = image - identity
    expected = cross @ (own / own.sum(-1, keepdim=True) + identity)
    assert torch.allclose(relations["i", "i"], image)
    assert torch.allclose(relations["t", "i"], expected)
    assert torch.equal(relations["t", "t"][0], torch.eye(2).double())
    assert ("i", "t") not in relations
    with pytest.raises(ValueError, match="3 tokens in one layer and 2 in another"):
        compose([[Contribution("i", "i", a)], [Contribution("i", "i", a[:, :2, :2])]])


def test_windows_are_put_in_their_places() -> None:
    """Tokens attend within their window, which every other block shifts."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(
        "swin_tiny_patch4_window7_224",
        img_size=32,
        patch_size=4,
        window_size=4,
        depths=(2, 2),
        embed_dim=16,
        num_heads=(2, 2),
        num_classes=3,
    )
    pixels = torch.randn(2, 3, 32, 32).double()
    layers = CheferLRP(model.double().eval()).layers(pixels, target=1)
    row, column = torch.arange(64) // 8, torch.arange(64) % 8
    for layer, shift in zip(layers[:2], (0, 2), strict=True):
        assert layer.layout is not None and layer.layout.stage == 0
        full = layer.layout.scatter(layer.attention.mean(1))
        assert torch.allclose(full.sum(-1), torch.ones(2, 64).double())
        window = (row + shift) // 4 * 3 + (column + shift) // 4
        expected = window[:, None] == window[None]
        assert torch.equal(full > 1e-9, expected.expand(2, -1, -1))
    merged = layers[2].layout
    assert merged is not None and (merged.stage, merged.tokens) == (1, 16)
    with CheferLRP(model)._seen(pixels, None) as found:
        (target,) = found.merges
    assert torch.equal(target[0], row // 2 * 4 + column // 2)


class OneLayer(nn.Module):
    """Two heads, read from the first token by a linear map: relevance by hand."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.query, self.key, self.value = (nn.Linear(6, 6) for _ in range(3))
        self.out = nn.Linear(6, 3)

    def heads(self, projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (2, 3)).transpose(1, 2)

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        query, key, value = (
            self.heads(f(x)) for f in (self.query, self.key, self.value)
        )
        return (query @ key.transpose(-1, -2)).softmax(-1), value

    def forward(self, x: Tensor) -> Tensor:
        attention, value = self.maps(x)
        return self.out((attention @ value).transpose(1, 2).flatten(2)[:, 0])


def test_attention_relevance_is_what_each_token_contributes_by_attention() -> None:
    model = OneLayer().double().eval()
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    attention, value = model.maps(x)
    weight = model.out.weight[2].unflatten(0, (2, 3))
    # AttnLRP gives each factor of a product of two half of the relevance
    carried = attention[:, :, 0] * torch.einsum("bhkd,hd->bhk", value, weight) / 2
    found = AttentionRelevance(model, own_token="keep").attribute(x, target=2)
    torch.testing.assert_close(found, carried.abs().sum(1), rtol=1e-12, atol=1e-12)
    assert (carried.sum(1) < 0).any()  # of which the sign is not kept


def test_the_first_self_attention_of_a_decoder_is_read() -> None:
    """It depends on no explained input, and takes part all the same (Chefer et al.)."""
    transformers = pytest.importorskip("transformers")
    config = transformers.BartConfig(
        vocab_size=50,
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=32,
    )
    model = transformers.BartForConditionalGeneration(config).eval()
    ids, words = torch.arange(5, 12)[None], torch.arange(7, 11)[None]
    batch = {"input_ids": ids, "decoder_input_ids": words}
    found = [layer.module for layer in GenericAttention(model).layers(batch, (-1, 3))]
    assert found == [
        *(f"model.encoder.layers.{i}.self_attn" for i in range(2)),
        *(
            f"model.decoder.layers.{i}.{kind}_attn"
            for i in range(2)
            for kind in ("self", "encoder")
        ),
    ]


def test_what_a_prompt_shows_of_layers_fits_on_a_line() -> None:
    layers = CheferLRP(Tiny().double()).layers(IDS, target=1)
    shown = repr(layers[0])
    assert shown == f"<AttentionLayer {layers[0].module!r} 2x2x5x5, with relevance>"


def test_maps_of_videos_and_spectrograms_keep_their_axes():
    """Frames are no channels, and pitch is no time."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    small = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
    }
    config = transformers.VideoMAEConfig(
        image_size=32, patch_size=16, num_frames=4, tubelet_size=2, **small
    )
    video = transformers.VideoMAEForVideoClassification(config).double().eval()
    frames = {"pixel_values": torch.randn(1, 4, 3, 32, 32, dtype=torch.float64)}
    coarse = GenericAttention(video).attribute(frames, target=0)
    fine = GenericAttention(video, upsample=True).attribute(frames, target=0)
    assert coarse.shape == (1, 1, 2, 2, 2)
    assert fine.shape == (1, 1, 4, 32, 32)  # as many frames as there are
    config = transformers.ASTConfig(
        max_length=96,
        num_mel_bins=32,
        frequency_stride=10,
        time_stride=10,
        **small,
    )
    sound = transformers.ASTForAudioClassification(config).double().eval()

    def model(spectrogram):
        return sound(spectrogram[:, 0]).logits

    spectrogram = torch.randn(1, 1, 96, 32, dtype=torch.float64)
    coarse = GenericAttention(model).attribute(spectrogram, target=0)
    assert coarse.shape == (1, 1, 2, 9)  # pitch, time
    with pytest.raises(AttentionError, match="which axis of the patches is which"):
        GenericAttention(model, upsample=True).attribute(spectrogram, target=0)
