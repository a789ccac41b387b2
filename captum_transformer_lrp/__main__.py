"""Run the command line with ``python -m captum_transformer_lrp``."""

from __future__ import annotations

import sys

from .cli import main

sys.exit(main())
