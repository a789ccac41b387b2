"""What is known of particular operators, functions and modules, beyond their kind.

Importing this room plugs it in, see :mod:`~captum_transformer_lrp.core.plugins`.
"""

from ..core.plugins import plugins
from ..core.registry import registry
from . import modules
from .by_argument import BY_ARGUMENT, COUNTS, PAIRS
from .compiled import EAGER
from .described import describe
from .flex_attention import IN_PLACE
from .functions import APPLY, OPENED
from .identifiers import Identifiers
from .joins import Joins
from .refusals import refuse_module
from .scans import SCANNED
from .unknown import UnknownOperators
from .unread import ReadInside

plugins.describe = describe
plugins.by_argument.update(BY_ARGUMENT)
plugins.counts.update(COUNTS)
plugins.pairs.update(PAIRS)
plugins.installed = [EAGER, IN_PLACE, SCANNED, APPLY]
plugins.refuse_module = refuse_module
plugins.joins = Joins.of
plugins.identifiers = Identifiers.under
plugins.reads = ReadInside
plugins.unknown = UnknownOperators
modules.register(registry)
registry.add(OPENED)

__all__ = ["registry"]
