"""Seeing what executors do: who is told of events, a board, a trace, and a page made of a trace."""
