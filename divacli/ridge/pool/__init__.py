"""Choosing from a pool."""
