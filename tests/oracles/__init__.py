"""Slow, literal transcriptions that the package is compared with."""
