"""Layers of a model by depth, as the composites for images name them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ..core.registry import ModulePattern


@dataclass(frozen=True, kw_only=False)
class Layers(ModulePattern):
    """The layers of a model at some depth: the first, the last, a range.

    Layers are the modules with a weight of two dimensions or more and without children
    (linear layers and convolutions; embeddings do not count), in the order in which the
    model registers them, which is that of execution in most models; where it is not,
    use :class:`~..core.registry.ModuleName`.

    Args:
        start (int or None): the first layer that is meant, as in a slice: negative
            counts from the end.
        stop (int or None, optional): the first that is not; without it, all from
            ``start`` on. Default: None
        of (type or tuple of types, optional): count layers of these classes only, such
            as ``torch.nn.Conv2d``. Default: ``torch.nn.Module``

    Examples::

        >>> {Layers(0, 1): Flat(), Layers(1, 13): Gamma(), Layers(-1): Epsilon()}
        >>> {Layers(0, 1, of=nn.Conv2d): ZBox(low=-2.2, high=2.7, otherwise=None)}
    """

    start: int | None
    stop: int | None = None
    of: type[nn.Module] | tuple[type[nn.Module], ...] = nn.Module

    def within(self, model: nn.Module) -> set[nn.Module]:
        """Return the layers of a model that are meant."""
        layers = [m for m in model.modules() if isinstance(m, self.of) and _is_layer(m)]
        return set(layers[self.start : self.stop])


def _is_layer(module: nn.Module) -> bool:
    weight = module._parameters.get("weight")
    return (
        weight is not None
        and weight.dim() >= 2
        and not module._modules
        and not isinstance(module, (nn.Embedding, nn.EmbeddingBag))
    )
