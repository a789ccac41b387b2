"""DiffMask from fit to attribution, on models that need only some of their tokens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from captum_transformer_lrp import DiffMask
from captum_transformer_lrp.diffmask import FAST, PAPER, Gaussian, NextToken
from captum_transformer_lrp.errors import (
    InputError,
    ModelStateError,
    NotFittedError,
    OutputError,
    UnknownNameError,
)
from tests.helpers import state_of

WIDTH, WORDS, PADDING = 8, 6, 5


class Detector(nn.Module):
    """Says whether token 1 is there: everything else is noise."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Identity()) for _ in range(2)
        )
        with torch.no_grad():
            self.embedding.weight.mul_(0.3)
            self.embedding.weight[1, 0] += 4.0
            for block in self.blocks:
                block[0].weight.copy_(torch.eye(WIDTH))  # type: ignore[operator]
                block[0].bias.zero_()  # type: ignore[operator]
        self.dropout = nn.Dropout(0.5)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> Tensor:
        x = self.embedding(input_ids)
        for block in self.blocks:
            x = self.dropout(block(x))
        found = x[..., 0]
        if attention_mask is not None:
            found = found.where(attention_mask.bool(), -9)
        score = 3 * (found.amax(1) - 2)
        return torch.stack([-score, score], 1)


def texts(rows: int = 256, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, PADDING, (rows, 5), generator=generator)
    has = torch.rand(rows, generator=generator) < 0.5
    place = torch.randint(3, (rows,), generator=generator)
    ids[torch.arange(rows)[has], place[has]] = 1
    length = torch.randint(3, 6, (rows, 1), generator=generator)
    mask = (torch.arange(5) < length).long()
    return {"input_ids": ids.where(mask.bool(), PADDING), "attention_mask": mask}


def loader(batch: int = 32, rows: int = 256) -> list[dict[str, Tensor]]:
    data = texts(rows)
    return [
        {key: value[i : i + batch] for key, value in data.items()}
        for i in range(0, rows, batch)
    ]


def fitted(model: nn.Module, steps: int = 800, **options: Any) -> DiffMask:
    mask = DiffMask(model, **options)
    mask.fit(loader(), steps=steps, progress=False)
    return mask


@pytest.fixture(scope="module")
def trained() -> DiffMask:
    return fitted(Detector(), margin=0.05)


# ------------------------------------------------------------------ what it finds


def test_the_token_that_matters_is_kept_and_the_others_are_dropped(
    trained: DiffMask,
) -> None:
    batch = texts(64, seed=1)
    kept = trained.attribute(batch)
    assert kept.shape == (64, 3, 5) and kept.dtype == torch.float32
    assert not kept.requires_grad
    matters = batch["input_ids"] == 1
    real = batch["attention_mask"].bool()
    for state in kept.unbind(1):
        assert state[matters].mean() > 0.95
        assert state[real & ~matters].mean() < 0.1
    assert (kept[~real[:, None].expand_as(kept)] == 0).all()
    assert ((kept >= 0) & (kept <= 1)).all()


def test_history_and_report(trained: DiffMask) -> None:
    history = trained.history
    assert history is not None and history.report is not None
    assert history.skipped == 0 and history.stopped
    assert [s.state for s in history.report.states] == list(trained.states)
    assert trained.states[0] == "embedding (output)" and len(trained.states) == 3
    for state in history.report.states:
        assert state.converged and state.divergence <= 0.05
        assert state.agreement >= 0.97
        assert state.everything_masked > 1
    records = history.of(trained.states[0])
    assert [r["step"] for r in records][:2] == [50, 100]
    assert set(records[0]) == {
        "step",
        "state",
        "divergence",
        "kept",
        "multiplier",
        "agreement",
    }
    assert "converged" in str(history)
    assert "of data that the masks were trained on" in str(history)
    assert len(repr(history)) < 300


def test_one_state_by_number_name_and_module(trained: DiffMask) -> None:
    batch = texts(3)
    kept = trained.attribute(batch)
    model: Any = trained.forward_func
    for layer, number in (
        (0, 0),
        (-1, 2),
        ("embedding", 0),
        (model.embedding, 0),
        ("blocks.1 (output)", 2),
    ):
        assert torch.equal(trained.attribute(batch, layer=layer), kept[:, number])
    with pytest.raises(UnknownNameError, match="the hidden states are 0 to 2"):
        trained.attribute(batch, layer=3)
    with pytest.raises(UnknownNameError, match="no hidden state 'embeding'"):
        trained.attribute(batch, layer="embeding")


def test_padding_and_batch_change_nothing(trained: DiffMask) -> None:
    batch = texts(8)
    together = trained.attribute(batch)
    for i in range(8):
        length = int(batch["attention_mask"][i].sum())
        alone = trained.attribute({"input_ids": batch["input_ids"][i : i + 1, :length]})
        torch.testing.assert_close(alone[0], together[i, :, :length])


def test_input_mode_can_only_fall() -> None:
    mask = fitted(Detector(), mode="input", margin=0.05, steps=300)
    batch = texts(32, seed=2)
    kept = mask.attribute(batch)
    assert (kept[:, 1:] <= kept[:, :-1] + 1e-6).all()
    assert kept[:, -1][batch["input_ids"] == 1].mean() > 0.9


def test_per_example_needs_no_training() -> None:
    mask = DiffMask(Detector(), margin=0.05)
    batch = texts(6, seed=3)
    kept, divergence = mask.attribute_per_example(
        batch, layer=1, return_divergence=True
    )
    assert kept.shape == (6, 5) and divergence.shape == (6,)
    matters = batch["input_ids"] == 1
    assert kept[matters].min() > 0.9
    assert (divergence <= 0.05).all(), "every example is brought within the margin"
    assert (kept[batch["attention_mask"] == 0] == 0).all()
    assert mask.attribute_per_example(batch, steps=2).shape == (6, 3, 5)


def test_never_mask_keeps_tokens() -> None:
    mask = DiffMask(Detector(), never_mask=[2], margin=0.05)
    mask.fit(loader(), steps=20, progress=False)
    batch = texts(16)
    kept = mask.attribute(batch)
    assert (kept.movedim(1, 2)[batch["input_ids"] == 2] == 1).all()


@pytest.mark.parametrize("baseline", ["mean", "zero", "tensor", "list"])
def test_baselines_that_are_not_learned(baseline: Any) -> None:
    given: Any = {
        "tensor": torch.arange(WIDTH).float(),
        "list": [torch.full((WIDTH,), float(i)) for i in range(3)],
    }.get(baseline, baseline)
    mask = DiffMask(Detector(), baseline=given, margin=0.01)
    mask.fit(loader(), steps=3, progress=False)
    assert mask.gates is not None
    found = [mask.gates.baseline(i) for i in range(3)]
    if baseline == "zero":
        assert all((b == 0).all() for b in found)
    elif baseline == "tensor":
        assert all(torch.equal(b, given) for b in found)
    elif baseline == "list":
        assert all(torch.equal(a, b) for a, b in zip(found, given, strict=True))
    else:
        assert not any((b == 0).all() for b in found)


def test_the_input_is_masked_with_a_fixed_vector_unless_asked_otherwise() -> None:
    ids = torch.tensor([[PADDING]])
    for options, expected in (
        ({"mask_token_id": PADDING}, lambda m: m.embedding(ids)[0, 0]),
        ({}, lambda m: m.embedding(torch.cat([b["input_ids"] for b in loader()]))),
    ):
        model = Detector()
        mask = DiffMask(model, mode="input", margin=0.01, **options)
        mask.fit(loader(), steps=3, progress=False)
        assert mask.gates is not None
        wanted = expected(model).detach()
        if wanted.dim() > 1:
            real = torch.cat([b["attention_mask"] for b in loader()]).bool()
            wanted = wanted[real].mean(0)
        torch.testing.assert_close(mask.gates.baseline(0), wanted)
    learned = DiffMask(Detector(), mode="input", margin=0.01, recipe="paper")
    assert learned.baseline == "learned"


def test_states_beyond_the_margin_are_opened_after_training() -> None:
    recipe = replace(FAST, settle=None, gate_rate=0.0, baseline_rate=0.0, bias=-1.0)
    found = []
    for settle in (None, 0.5):
        mask = DiffMask(Detector(), recipe=replace(recipe, settle=settle), margin=0.05)
        report = mask.fit(loader(), steps=2, progress=False).report
        assert report is not None
        found.append(report)
    assert not any(state.converged for state in found[0].states)
    assert all(state.divergence <= 0.05 for state in found[1].states)
    assert all(
        a.kept < b.kept for a, b in zip(found[0].states, found[1].states, strict=True)
    )


def test_the_papers_recipe_runs() -> None:
    pytest.importorskip("timm")
    mask = fitted(Detector(), recipe="paper", margin=0.05, steps=30)
    assert mask.recipe is PAPER
    assert mask.attribute(texts(2)).shape == (2, 3, 5)


# ------------------------------------------------------------------ tasks


class Mixing(nn.Module):
    """A block with a residual connection that mixes tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x).tanh() + x.mean(1, keepdim=True)


class Task(nn.Module):
    """Tokens in, some output out."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.blocks = nn.ModuleList(Mixing() for _ in range(2))
        self.out = nn.Linear(WIDTH, 4)
        self.head = head

    def forward(self, input_ids: Tensor, attention_mask: Any = None) -> Any:
        x = self.embedding(input_ids)
        for block in self.blocks:
            x = block(x)
        return self.head(self.out(x))


def output(kind: str, **values: Tensor) -> Any:
    from transformers import modeling_outputs

    return getattr(modeling_outputs, kind)(**values)


TASKS: dict[str, tuple[Any, dict[str, Any]]] = {
    "tokens": (lambda x: x, {}),
    "answers": (
        lambda x: output(
            "QuestionAnsweringModelOutput", start_logits=x[..., 0], end_logits=x[..., 1]
        ),
        {},
    ),
    "regression": (lambda x: x.mean(1)[:, :1], {"divergence": "gaussian"}),
    "labels": (lambda x: x.mean(1), {"divergence": "bernoulli"}),
    "language model": (lambda x: output("CausalLMOutput", logits=x), {}),
    "second token": (lambda x: x, {"divergence": NextToken(1)}),
    "function": (
        lambda x: x.mean(1),
        {"divergence": lambda a, b: (a - b).pow(2).sum(1)},
    ),
}


@pytest.mark.parametrize("name", TASKS)
def test_any_task(name: str) -> None:
    pytest.importorskip("transformers")
    head, options = TASKS[name]
    mask = DiffMask(Task(head), **options)
    history = mask.fit(loader(), steps=40, progress=False)
    assert history.report is not None
    assert all(s.everything_masked > 0 for s in history.report.states)
    batch = texts(4)
    kept = mask.attribute(batch)
    assert kept.shape == (4, 3, 5)
    counted = batch["attention_mask"].bool()
    if name == "second token":
        counted = counted & (torch.arange(5) < 2)
    assert ((kept > 0) == counted[:, None]).all()


def test_images() -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=32,
        patch_size=8,
        embed_dim=16,
        depth=2,
        num_heads=2,
        num_classes=3,
    )
    data = TensorDataset(torch.randn(64, 3, 32, 32))
    mask = DiffMask(model)
    mask.fit(DataLoader(data, batch_size=16, shuffle=True), steps=8, progress=False)
    kept = mask.attribute(torch.randn(2, 3, 32, 32))
    assert kept.shape == (2, 3, 17)  # two blocks' inputs, the last output; class token


def test_modules_and_positional_inputs() -> None:
    model = Detector()
    data = texts()
    batches = DataLoader(
        TensorDataset(data["input_ids"], data["attention_mask"]), batch_size=64
    )
    mask = DiffMask(
        lambda ids, real: model(ids, real),
        [model.embedding, model.blocks[1]],
        token_mask=lambda inputs: inputs[1],
        margin=0.05,
    )
    mask.fit(batches, steps=10, progress=False)
    kept = mask.attribute(
        data["input_ids"][:2],
        additional_forward_args=(data["attention_mask"][:2],),
        layer=0,
    )
    assert kept.shape == (2, 5)


# ------------------------------------------------------------------ what is promised


def test_the_model_and_the_generators_are_left_as_they_were() -> None:
    model = Detector().train()
    model.embedding.weight.requires_grad_(False)
    model.blocks[0].eval()
    before = state_of(model)
    training = [m.training for m in model.modules()]
    needs = [p.requires_grad for p in model.parameters()]
    rng = torch.get_rng_state()
    data = TensorDataset(texts()["input_ids"])
    mask = DiffMask(model, margin=0.05)
    mask.fit(DataLoader(data, 32, shuffle=True), steps=3, progress=False)
    mask.attribute(texts(2))
    mask.attribute_per_example(texts(2), layer=0, steps=2)

    def broken(*_: Any) -> Tensor:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        DiffMask(model, divergence=broken).fit(loader(), steps=1, progress=False)
    assert torch.equal(rng, torch.get_rng_state())
    assert [m.training for m in model.modules()] == training
    assert [p.requires_grad for p in model.parameters()] == needs
    assert state_of(model).keys() == before.keys()
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_two_threads_mask_the_same_model(trained: DiffMask) -> None:
    batches = [texts(16, seed=s) for s in range(6)]
    alone = [trained.attribute(b) for b in batches]
    found: dict[int, Tensor] = {}

    def work(i: int) -> None:
        for _ in range(20):
            found[i] = trained.attribute(batches[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, expected in enumerate(alone):
        torch.testing.assert_close(found[i], expected)


def weights(mask: DiffMask) -> Tensor:
    assert mask.gates is not None
    return torch.cat([p.flatten() for p in mask.gates.parameters()])


def test_a_seed_gives_the_same_masks_whatever_the_generators() -> None:
    data = TensorDataset(texts()["input_ids"])
    found = []
    for start, seed in ((0, 0), (1, 0), (0, 1)):
        torch.manual_seed(start)
        mask = DiffMask(Detector(), margin=0.05)
        mask.fit(
            DataLoader(data, 32, shuffle=True), steps=12, seed=seed, progress=False
        )
        found.append(weights(mask))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


class Killed(BaseException):
    """The process ends."""


@pytest.mark.parametrize("recipe", ["fast", "paper"])
@pytest.mark.parametrize("shuffled", [False, True])
def test_a_killed_training_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, recipe: str, shuffled: bool
) -> None:
    if recipe == "paper":
        pytest.importorskip("timm")
    data = texts()
    batches: Any = loader()
    if shuffled:
        rows = TensorDataset(data["input_ids"])
        batches = DataLoader(rows, 32, shuffle=True)

    def fit(**options: Any) -> DiffMask:
        mask = DiffMask(Detector(), recipe=recipe, margin=0.05)
        mask.fit(batches, steps=60, progress=False, patience=None, **options)
        return mask

    whole = fit()
    path = tmp_path / "checkpoint.safetensors"
    made = 0

    class Dying(Detector):
        def forward(self, *args: Any, **kwargs: Any) -> Tensor:
            nonlocal made
            made += 1
            if made > 75:
                raise Killed
            return super().forward(*args, **kwargs)

    with pytest.raises(Killed):
        DiffMask(Dying(), recipe=recipe, margin=0.05).fit(
            batches,
            steps=60,
            progress=False,
            patience=None,
            checkpoint=path,
            checkpoint_every=7,
        )
    resumed = fit(checkpoint=path, checkpoint_every=7)
    torch.testing.assert_close(weights(resumed), weights(whole), rtol=0, atol=1e-6)
    assert resumed.history is not None and whole.history is not None
    assert len(resumed.history.records) == len(whole.history.records)
    again = fit(checkpoint=path)  # finished: nothing left to do
    assert torch.equal(weights(again), weights(resumed))
    with pytest.raises(InputError, match=r"is of another training \(steps: 60 there"):
        DiffMask(Detector(), recipe=recipe, margin=0.05).fit(
            batches, steps=61, checkpoint=path, progress=False
        )
    (tmp_path / "other").write_text("no checkpoint")
    with pytest.raises(InputError, match="is no checkpoint of a training"):
        fit(checkpoint=tmp_path / "other")


WORKER = """
import json, sys, warnings
warnings.simplefilter("ignore")
import torch
from accelerate import Accelerator
from captum_transformer_lrp import DiffMask
from tests.diffmask.test_training import Detector, loader, weights

torch.set_num_threads(1)
path, *modes = sys.argv[1:]
accelerator = Accelerator(cpu=True)
for mode in modes:
    mask = DiffMask(Detector(), mode=mode, margin=0.05)
    batches = loader(16)
    mask.fit(batches, steps=24, accelerator=accelerator, progress=False, patience=None)
    if accelerator.is_main_process:
        torch.save(weights(mask), f"{path}/{mode}.pt")
accelerator.end_training()
"""
MODES = ("hidden", "input")


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights of each mode, of two processes that train together."""
    pytest.importorskip("accelerate")
    path = tmp_path_factory.mktemp("two_processes")
    script = path / "worker.py"
    script.write_text(WORKER)
    root = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    command += ["--master_port=0", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    with subprocess.Popen(
        [*command, str(script), str(path), *MODES],
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as launched:
        try:
            errors = launched.communicate(timeout=240)[1]
        except BaseException:
            os.killpg(launched.pid, signal.SIGKILL)  # the workers, too
            raise
    assert launched.returncode == 0, errors[-3000:]
    return path


@pytest.mark.parametrize("mode", MODES)
def test_two_processes_equal_one_with_the_double_batch(
    of_two_processes: Path, mode: Any
) -> None:
    mask = DiffMask(Detector(), mode=mode, margin=0.05)
    mask.fit(loader(32), steps=24, progress=False, patience=None)
    one = weights(mask)
    two = torch.load(of_two_processes / f"{mode}.pt", weights_only=True)
    torch.testing.assert_close(two, one, rtol=0, atol=1e-5)


def test_mixed_precision() -> None:
    accelerate = pytest.importorskip("accelerate")
    mask = DiffMask(Detector(), margin=0.05)
    accelerator = accelerate.Accelerator(cpu=True, mixed_precision="bf16")
    try:
        mask.fit(loader(), steps=20, progress=False, accelerator=accelerator)
    finally:
        accelerate.state.AcceleratorState._reset_state(True)
    assert weights(mask).dtype == torch.float32 and weights(mask).isfinite().all()
    assert mask.history is not None and mask.history.skipped == 0


def test_saved_masks_are_the_same(trained: DiffMask, tmp_path: Path) -> None:
    folder = trained.save(tmp_path / "masks")
    assert {p.name for p in folder.iterdir()} == {"masks.safetensors", "diffmask.json"}
    loaded = DiffMask.load(folder, trained.forward_func)
    batch = texts(4)
    assert torch.equal(loaded.attribute(batch), trained.attribute(batch))
    assert loaded.margin == trained.margin and loaded.states == trained.states
    report, expected = (m.evaluate(loader()) for m in (loaded, trained))
    assert report == expected
    settings = json.loads((folder / "diffmask.json").read_text())
    assert settings["versions"]["torch"] == torch.__version__


def test_modules_that_put_the_tokens_first(tmp_path: Path) -> None:
    class Turned(Detector):
        """Keeps states as (tokens, batch, width) inside."""

        def forward(
            self, input_ids: Tensor, attention_mask: Tensor | None = None
        ) -> Tensor:
            x = self.embedding(input_ids).transpose(0, 1)
            for block in self.blocks:
                x = block(x)
            score = 3 * (x.transpose(0, 1)[..., 0].amax(1) - 2)
            return torch.stack([-score, score], 1)

    plain, turned = (
        DiffMask(model, list(model.blocks), margin=0.05)
        for model in (Detector(), Turned())
    )
    batches = [{"input_ids": b["input_ids"]} for b in loader()]
    for mask in (plain, turned):
        mask.fit(batches, steps=20, progress=False)
    torch.testing.assert_close(
        turned.attribute(batches[0]), plain.attribute(batches[0])
    )
    turned.save(tmp_path)
    for layers in (None, ["blocks.0", "blocks.1"]):
        again = DiffMask.load(tmp_path, Turned(), layers)
        assert torch.equal(again.attribute(batches[1]), turned.attribute(batches[1]))


def test_another_model_is_refused(trained: DiffMask, tmp_path: Path) -> None:
    folder = trained.save(tmp_path)
    with pytest.raises(InputError, match=r"Task has no module|embedding.*differ"):
        DiffMask.load(folder, Task(lambda x: x.mean(1)))
    other = Detector()
    with torch.no_grad():
        other.embedding.weight.mul_(1.5)
    with pytest.raises(InputError, match=r"the weights of embedding.weight differ"):
        DiffMask.load(folder, other)
    other = Detector()
    other.embedding = nn.Embedding(WORDS, WIDTH + 1)
    with pytest.raises(
        InputError, match=r"embedding.weight has shape \[6, 9\], they were trained for"
    ):
        DiffMask.load(folder, other)
    with pytest.raises(TypeError, match=r"Pass the modules .* layers=\[...\]"):
        DiffMask.load(folder, lambda x: x)
    with pytest.raises(InputError, match="holds no masks"):
        DiffMask.load(tmp_path / "nothing", Detector())


def test_altered_and_damaged_masks_are_refused(
    trained: DiffMask, tmp_path: Path
) -> None:
    model = trained.forward_func
    folder = trained.save(tmp_path)
    weights_, settings = folder / "masks.safetensors", folder / "diffmask.json"
    raw, text = weights_.read_bytes(), settings.read_text()
    weights_.write_bytes(raw[:-4] + bytes(4))  # two values, or one, are others
    with pytest.raises(InputError, match="is not the file that was saved"):
        DiffMask.load(folder, model)
    weights_.write_bytes(raw[:40])
    without = {k: v for k, v in json.loads(text).items() if k != "weights"}
    settings.write_text(json.dumps(without))  # as of a version that kept no digest
    with pytest.raises(InputError, match=r"masks\.safetensors in .* is damaged"):
        DiffMask.load(folder, model)
    weights_.write_bytes(raw)
    assert torch.equal(weights(DiffMask.load(folder, model)), weights(trained))
    for broken in (
        {**without, "recipe": {"no such field": 1}},
        {**without, "recipe": None},
        {**without, "states": [{"name": "embedding"}]},
        {k: v for k, v in without.items() if k != "margin"},
        [without],
    ):
        settings.write_text(json.dumps(broken))
        with pytest.raises(InputError, match=r"diffmask\.json in .* cannot be read"):
            DiffMask.load(folder, model)


# ------------------------------------------------------------------ what is refused


def test_errors() -> None:
    model = Detector()
    with pytest.raises(NotFittedError, match="not trained"):
        DiffMask(model).attribute(texts(2))
    with pytest.raises(UnknownNameError, match="mode='both'"):
        DiffMask(model, mode="both")
    with pytest.raises(UnknownNameError, match="Did you mean 'paper'"):
        DiffMask(model, recipe="papers")
    with pytest.raises(TypeError, match="needs mask_token_id="):
        DiffMask(model, mode="input", baseline="mask")
    with pytest.raises(UnknownNameError, match="no baseline 'man'"):
        DiffMask(model, baseline="man")
    with pytest.raises(UnknownNameError, match="no divergence 'gausian'"):
        DiffMask(model, divergence="gausian").fit(loader(), progress=False)
    with pytest.raises(ValueError, match="margin=-1"):
        DiffMask(model, margin=-1)
    with pytest.raises(TypeError, match="forward_func is a str"):
        DiffMask("model")
    with pytest.raises(TypeError, match=r"layers=\[...\]"):
        DiffMask(lambda x: x)
    with pytest.raises(UnknownNameError, match="no module 'bloks'"):
        DiffMask(model, ["bloks"])
    with pytest.raises(InputError, match="no blocks were found in Linear"):
        DiffMask(nn.Linear(2, 2)).fit([torch.randn(4, 2)], progress=False)
    with pytest.raises(TypeError, match="steps and epochs"):
        DiffMask(model).fit(loader(), steps=1, epochs=1)
    with pytest.raises(InputError, match="the empty mask would do"):
        DiffMask(model, margin=100.0).fit(loader(), progress=False)
    with pytest.raises(InputError, match="only once"):
        DiffMask(model).fit(iter(loader()), progress=False)
    with pytest.raises(OutputError, match='divergence="gaussian"'):
        DiffMask(Task(lambda x: x.mean(1)[:, :1])).fit(loader(), progress=False)
    with (
        torch.inference_mode(),
        pytest.raises(ModelStateError, match="inference_mode"),
    ):
        DiffMask(model).fit(loader(), progress=False)


def test_states_that_the_margin_does_not_bind_are_named() -> None:
    model = Detector()
    with torch.no_grad():
        weight: Any = model.blocks[1][0].weight
        weight.zero_()  # the last state is the same for all tokens
        bias: Any = model.blocks[1][0].bias
        bias.fill_(1.0)
    with pytest.raises(InputError, match="the empty mask would do"):
        DiffMask(model, margin=0.05).fit(loader(), steps=2, progress=False)


def test_it_works_under_no_grad() -> None:
    mask = DiffMask(Detector(), margin=0.05)
    with torch.no_grad():
        mask.fit(loader(), steps=5, progress=False)
        mask.attribute_per_example(texts(2), layer=0, steps=2)
    assert mask.history is not None and mask.history.steps == 5


def test_variance_of_regression_comes_from_the_data() -> None:
    model = Task(lambda x: x.mean(1)[:, :1])
    mask = DiffMask(model, divergence="gaussian")
    mask.fit(loader(), steps=2, progress=False)
    _, divergence = mask.trained()
    with torch.no_grad():
        outputs = model(texts()["input_ids"])
    assert isinstance(divergence, Gaussian) and divergence.variance is not None
    expected = float(outputs.var(unbiased=False))
    assert divergence.variance == pytest.approx(expected, rel=1e-4)
