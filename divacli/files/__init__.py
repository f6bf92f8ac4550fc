"""Bytes at a path or URL: read within limits, written whole, locked, cached."""
