"""What a method says of itself, so that nobody needs to ask of which class it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from captum.attr import LRP, Attribution, DeepLiftShap, NoiseTunnel, Saliency

from ._captum import LayerAttribution, NeuronAttribution, PerturbationAttribution
from .errors import UnknownNameError, suggestion

Measure = Literal["relevance", "attention", "magnitude"]
Grain = Literal["element", "part", "repeated"]
Conserves = Literal["score", "partly", "difference", "no"]
Takes = Literal["tensors", "mapping"]
Need = Literal[
    "attention",
    "baseline",
    "baselines",
    "layer",
    "method",
    "patch_size",
    "tokenizer",
    "training",
]


@dataclass(frozen=True, kw_only=True)
class Description:
    """What the scores of a method are, and what it needs.

    Args:
        name (str, optional): How reports call it. Default: None, its ``get_name()``
        measure (str, optional): ``"relevance"``, signed and in units of the model's
            score; ``"attention"``, weights without unit and sign; or ``"magnitude"``,
            sizes of gradients, without sign. Default: ``"relevance"``
        grain (str, optional): What a score belongs to: ``"element"`` of the input
            (identifier, feature, pixel); ``"part"`` (token, patch), which has one
            number, or shares of it that sum to it; or ``"repeated"``, that of a part in
            each of its elements, as Captum's ablations. Default: ``"element"``
        conserves (str, optional): What the scores sum to: the ``"score"``, less what
            constants such as biases take; that, but for rules that do not conserve,
            ``"partly"``; the ``"difference"`` of the score from that of a baseline; or
            nothing, ``"no"``. Default: ``"no"``
        same_for_every_target (bool, optional): Whether it looks at attention alone.
            Default: False
        takes (str, optional): What its ``attribute`` takes of a text: the
            ``"mapping"`` of a tokenizer, or ``"tensors"`` with a gradient, as Captum's
            methods. Default: ``"tensors"``
        cost (float, optional): Its time, in gradients of the score. Default: None, not
            known, or another for each input
        needs (tuple of str, optional): ``"attention"`` in the model; a ``"layer"``,
            another ``"method"`` or ``"training"`` beside the model. The keyword
            arguments ``"tokenizer"`` (texts) and ``"baseline"`` (a black picture) are
            given to what makes it, and ``"patch_size"`` is set for pictures.
            ``"baselines"`` are several for each input. Default: ()
        options (Mapping, optional): Keyword arguments that it is made with by name.
            Default: {}

    Raises:
        UnknownNameError: A word is none of these.
    """

    name: str | None = None
    measure: Measure = "relevance"
    grain: Grain = "element"
    conserves: Conserves = "no"
    same_for_every_target: bool = False
    takes: Takes = "tensors"
    cost: float | None = None
    needs: tuple[Need, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Check the words."""
        for what, known, given in (
            ("measure", Measure, (self.measure,)),
            ("grain", Grain, (self.grain,)),
            ("conserves", Conserves, (self.conserves,)),
            ("takes", Takes, (self.takes,)),
            ("needs", Need, self.needs),
        ):
            for word in given:
                if word not in get_args(known):
                    raise UnknownNameError(
                        f"no method has {what}={word!r}."
                        f"{suggestion(word, get_args(known))}"
                    )


#: what Captum's own classes would say, for themselves and for those derived from them
_OF_CAPTUM: dict[type, Description] = {
    LayerAttribution: Description(needs=("layer",)),
    NeuronAttribution: Description(needs=("layer",)),
    NoiseTunnel: Description(needs=("method",)),
    Saliency: Description(measure="magnitude", cost=1),
    LRP: Description(conserves="partly"),
    DeepLiftShap: Description(needs=("baselines",)),
    PerturbationAttribution: Description(grain="repeated"),
    Attribution: Description(),
}


def describe(method: Any) -> Description:
    """Return what a method says of itself, or what is known of Captum's own.

    Args:
        method (Attribution or type): An object of a method, or its class. Its
            attribute ``description`` counts, if it has one; what holds for the class of
            Captum that it derives from holds in any case.
    """
    cls = method if isinstance(method, type) else type(method)
    known = next(_OF_CAPTUM[base] for base in cls.__mro__ if base in _OF_CAPTUM)
    found = getattr(method, "description", None)
    inner = getattr(method, "attribution_method", None)
    if isinstance(found, Description):
        grain = known.grain if found.grain == "element" else found.grain
    elif inner is not None:  # a noise tunnel: a mean of what is in it
        of = describe(inner)
        name = f"{method.get_name()} of {of.name}"
        total: Conserves = "difference" if of.conserves == "difference" else "no"
        found = replace(of, name=name, conserves=total, takes="tensors", cost=None)
        grain = of.grain
    else:
        found, grain = known, known.grain
        if cls is not method and method.has_convergence_delta():
            if found.conserves == "no":
                found = replace(found, conserves="difference")
    return replace(
        found,
        name=found.name or str(method.get_name()),
        grain=grain,
        needs=tuple(dict.fromkeys((*found.needs, *known.needs))),
    )
