"""The engine, its rules and its registry, which know no library but torch.

Of this package they know errors, the private names of torch, and how a table of rows
shows itself.

- :mod:`.operators`: which operator a torch call is, and of which kind.
- :mod:`.registry`, :mod:`.composites`, :mod:`.table`: what everything is, what a method
  does with each kind, and both together, ready for look-up.
- :mod:`.engine`: sees every torch call of a model; :mod:`.tape` is its memory,
  :mod:`.gates` what rules read there, :mod:`.installed` what a run takes back.
- :mod:`.call`: what arrives at a rule; :mod:`.rules`: the rules of AttnLRP and CP-LRP;
  :mod:`.gradients`: the gradients that they are made of.
- :mod:`.plugins`: where other rooms plug in.
"""

from .call import Call
from .composites import ATTN_LRP, CP_LRP, GRADIENT_X_INPUT, Composite
from .engine import Engine
from .operators import KINDS
from .registry import ModuleName, Predicate, Registry, registry
from .rules.base import Rule

__all__ = [
    "ATTN_LRP",
    "CP_LRP",
    "GRADIENT_X_INPUT",
    "KINDS",
    "Call",
    "Composite",
    "Engine",
    "ModuleName",
    "Predicate",
    "Registry",
    "Rule",
    "registry",
]
