"""What the tests of influence share."""

from __future__ import annotations

from typing import Any

import pytest

from captum_transformer_lrp.models import load_text_model


@pytest.fixture(scope="package")
def tokenizer() -> Any:
    """The built-in model's tokenizer."""
    pytest.importorskip("transformers")
    return load_text_model().tokenizer
