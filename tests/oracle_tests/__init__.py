"""Tests of the oracles themselves: they compare nothing of the package."""
