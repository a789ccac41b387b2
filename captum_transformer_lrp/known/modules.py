"""Modules whose operators cannot be seen, or are one function, and how they are known.

They are named by class only where their operators truly cannot tell: by the class that
computes, never by what it inherits from.
"""

from __future__ import annotations

import torch
from torch import nn

from ..core.registry import Predicate, Registry, computing_class
from ..core.rules.linear import PlainGradient
from .quantized import DequantizedLinear


def register(registry: Registry) -> None:
    """Say what these modules are."""
    registry.add(dict.fromkeys(COMPOSED_ACTIVATIONS, "activation"))
    registry.exact.update(COMPOSED_ACTIVATIONS)
    registry.add(
        {
            PYTHON_GELU: "activation",
            ROUNDING_RMS_NORM: "rescaling",
            DYNAMIC_INT8_LINEAR: DequantizedLinear(),
            PACKED_LINEAR: PlainGradient(),
        }
    )


def _is_hugging_face_activation(cls: type[nn.Module]) -> bool:
    return computing_class(cls).__module__ == "transformers.activations"


def _computes_gelu_in_python(module: nn.Module) -> bool:
    """Whether a Hugging Face activation spells gelu out, which its class may or not."""
    if not _is_hugging_face_activation(type(module)):
        return False
    return "python" in getattr(getattr(module, "act", None), "__name__", "")


def _is_rms_norm(module: nn.Module) -> bool:
    """Whether a module is one of transformers' RMSNorm classes, hundreds of one kind.

    Others, whatever their name, are seen operator by operator.
    """
    return _is_rms_norm_class(type(module))


def _is_rms_norm_class(cls: type[nn.Module]) -> bool:
    cls = computing_class(cls)
    return cls.__module__.startswith("transformers.models.") and (
        cls.__name__.endswith(("RMSNorm", "RmsNorm", "T5LayerNorm"))
    )


def _rounds_to_float32(module: nn.Module) -> bool:
    """Whether an RMSNorm module of a float64 model computes in float32 inside.

    Hugging Face's do, whatever their dtype: relevance would be rounded to seven digits
    in a model whose other operators keep sixteen.
    """
    if not _is_rms_norm(module):
        return False
    weight = module._parameters.get("weight")
    return weight is not None and weight.dtype == torch.float64


#: library -> its linear layers of packed weights. Named by class, because they multiply
#: in an autograd function or a kernel of their own, which no operator shows
_PACKED_LINEAR: dict[str, frozenset[str]] = {
    library: frozenset(names.split())
    for library, names in {
        "bitsandbytes": "Linear4bit LinearFP4 LinearNF4 Linear8bitLt",
        "auto_gptq": "QuantLinear",
        "gptqmodel": "QuantLinear",
        "awq": "WQLinear_GEMM WQLinear_GEMV",
        "hqq": "HQQLinear",
        "eetq": "EetqLinear",
        "transformers": "EetqLinear FbgemmFp8Linear FP8Linear",
    }.items()
}


def _multiplies_packed_weights(module: nn.Module) -> bool:
    """Whether a module is a linear layer of packed weights of a known library.

    Its own gradient is exact: the layer is linear in its input, whatever the weights.
    One that holds other modules (a LoRA adapter around it) is looked into instead.
    """
    return not module._modules and _is_packed_class(type(module))


def _is_packed_class(cls: type[nn.Module]) -> bool:
    cls = computing_class(cls)
    return cls.__name__ in _PACKED_LINEAR.get(cls.__module__.split(".")[0], ())


def _is_dynamic_int8_linear(module: nn.Module) -> bool:
    """Whether ``torch.ao.quantization.quantize_dynamic`` made a linear layer."""
    return _is_int8_class(type(module))


def _is_int8_class(cls: type[nn.Module]) -> bool:
    cls = computing_class(cls)
    return cls.__name__ == "Linear" and cls.__module__ == (
        "torch.ao.nn.quantized.dynamic.modules.linear"
    )


PACKED_LINEAR = Predicate(
    _multiplies_packed_weights, "linear layer of packed weights", _is_packed_class
)
DYNAMIC_INT8_LINEAR = Predicate(
    _is_dynamic_int8_linear,
    "linear layer quantised to int8 when it is called",
    _is_int8_class,
)
ROUNDING_RMS_NORM = Predicate(
    _rounds_to_float32, "RMSNorm in a float64 model", _is_rms_norm_class
)
RMS_NORM = Predicate(_is_rms_norm, "RMSNorm", _is_rms_norm_class)
PYTHON_GELU = Predicate(
    _computes_gelu_in_python,
    "gelu spelled out by transformers",
    _is_hugging_face_activation,
)

#: Modules whose activation reaches the engine in pieces (``gelu_new`` is mul, pow,
#: tanh, add) or not at all (functions with a backward pass of their own). What belongs
#: together is told from the pieces too, see :mod:`.joins`: named by class it costs one
#: operator instead of eight.
COMPOSED_ACTIVATIONS = (
    *(
        f"transformers.activations.{name}"
        for name in (
            "NewGELUActivation",
            "FastGELUActivation",
            "QuickGELUActivation",
            "ClippedGELUActivation",
            "AccurateGELUActivation",
            "MishActivation",
            "LaplaceActivation",
            "SqrtSoftplusActivation",
            "ReLUSquaredActivation",
            "XIELUActivation",
        )
    ),
    *(f"timm.layers.activations.{name}" for name in ("Swish", "HardMish", "QuickGELU")),
    *(
        f"timm.layers.activations_me.{name}"
        for name in ("SwishMe", "MishMe", "HardSigmoidMe", "HardSwishMe", "HardMishMe")
    ),
    "transformers.models.bloom.modeling_bloom.BloomGelu",
)
