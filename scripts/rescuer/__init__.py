"""Reads walseal repositories, format version 1, from docs/FORMAT.md alone. `scripts/rescue.py` is its command line."""
