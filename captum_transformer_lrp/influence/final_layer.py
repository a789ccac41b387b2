"""What the last linear layer of a classifier reads for each example."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import OutputError, UnitError
from .reading import Batch, run


@dataclass(frozen=True, kw_only=True)
class FinalLayer:
    """The last linear layer of a classifier, on a private copy of the model.

    A decoder that classifies by its last token runs this layer on all tokens, and
    others average over them. What the layer's weight reads of one example is then the
    weighted sum of its inputs, with the weights at which its outputs enter the logits;
    the gradient at those outputs tells them.

    Args:
        name (str): Its name within the model.
        layer (nn.Linear): The layer.
    """

    name: str
    layer: nn.Linear

    def read(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the layer's input ``(batch, features)`` and ``(batch, classes)``.

        Args:
            module (nn.Module): The model, none of whose parameters asks for gradients.
            batch (Mapping or Tensor): What it is called with.

        Raises:
            OutputError: The logits are not what this layer makes of one vector for
                each example.
        """
        seen: list[tuple[Tensor, Tensor]] = []

        def cut(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            leaf = output.detach().requires_grad_()
            seen.append((args[0].detach(), leaf))
            return leaf

        handle = self.layer.register_forward_hook(cut)
        try:
            with torch.enable_grad():
                logits = run(module, batch)
        finally:
            handle.remove()
        if len(seen) != 1:
            raise OutputError(
                f"{self.name!r} runs {len(seen)} times in one forward pass, and the "
                "influence through the final layer needs one: pass layers='all'"
            )
        inputs, outputs = seen[0]
        rows, classes = logits.shape
        (gradient,) = torch.autograd.grad(logits.sum(), outputs)
        logits = logits.detach()
        if len(inputs) == rows:
            weights = gradient.reshape(rows, -1, classes)[..., 0]
            features = torch.einsum(
                "bt,btf->bf", weights, inputs.reshape(rows, -1, inputs.shape[-1])
            )
            made = nn.functional.linear(features, self.layer.weight, self.layer.bias)
            allowed = torch.finfo(logits.dtype).eps ** 0.5 * float(logits.abs().max())
            if float((made - logits).abs().max()) <= allowed:
                return features, logits
        raise OutputError(
            f"the logits are not what {self.name!r} makes of one vector for each "
            "example (something follows it, or joins it): pass layers='all'"
        )


def find_final_layer(module: nn.Module, batch: Batch) -> FinalLayer:
    """Return the linear layer with an output for each class that runs last.

    Raises:
        UnitError: There is none.
    """
    ran: list[str] = []
    handles = [
        layer.register_forward_hook(lambda *_, name=name: ran.append(name))
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
    ]
    try:
        with torch.no_grad():
            classes = run(module, batch).shape[-1]
    finally:
        for handle in handles:
            handle.remove()
    for name in reversed(ran):
        layer = module.get_submodule(name)
        if isinstance(layer, nn.Linear) and layer.out_features == classes:
            return FinalLayer(name=name, layer=layer)
    raise UnitError(
        f"no nn.Linear with {classes} outputs runs in {type(module).__name__}, so it "
        "has no final layer to take gradients of: pass layers='all'"
    )
