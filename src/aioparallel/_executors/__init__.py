"""Where work runs: one file for each kind of executor."""
