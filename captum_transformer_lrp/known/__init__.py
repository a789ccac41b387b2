"""What is known of particular operators, functions and modules, beyond their kind.

Importing this room plugs it in, see :mod:`~captum_transformer_lrp.core.plugins`.
"""

from ..core.plugins import plugins
from ..core.registry import registry
from . import modules
from .compiled import EAGER
from .decompositions import DECOMPOSITIONS, torch_decomposition
from .flex_attention import IN_PLACE
from .functions import APPLY, OPENED
from .identifiers import Identifiers
from .joins import Joins
from .refusals import STATEFUL, refuse_function, refuse_module
from .scans import SCANNED
from .special_calls import SPECIAL_CALLS

plugins.twins.update(DECOMPOSITIONS)
plugins.last_twin = torch_decomposition
plugins.special.update(SPECIAL_CALLS)
plugins.installed = [EAGER, IN_PLACE, SCANNED, APPLY]
plugins.stateful.update(STATEFUL)
plugins.refuse_module, plugins.refuse_function = refuse_module, refuse_function
plugins.joins = Joins.of
plugins.identifiers = Identifiers.under
modules.register(registry)
registry.add(OPENED)

__all__ = ["registry"]
