"""Pairs of low- and high-resolution images: built, degraded, read."""
