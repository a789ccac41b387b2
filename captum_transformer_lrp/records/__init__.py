"""Records as files: JSON to read, safetensors for bulk, Parquet for tables.

A record is what ``to_dict()`` of a result returns. JSON holds it as it is, the others
hold rows. Nothing that is read is ever run. What records mean is known to
:mod:`~captum_transformer_lrp.keeping`.
"""

from .files import SUFFIXES, check_package, read, write
from .pictures import png_text
from .rows import GENERATION_TENSORS, SOURCE_TENSORS

__all__ = [
    "GENERATION_TENSORS",
    "SOURCE_TENSORS",
    "SUFFIXES",
    "check_package",
    "png_text",
    "read",
    "write",
]
