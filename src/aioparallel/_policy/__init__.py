"""Deciding: no awaits, no clocks, no input or output."""
