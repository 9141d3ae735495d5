"""Awaiting: futures, what waits for several of them, and who owns their tasks."""
