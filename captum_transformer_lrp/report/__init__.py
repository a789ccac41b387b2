"""How results are shown: blocks, and three renderers that know blocks only."""
