"""The vocabulary: errors, options, records and contracts. Imports nothing else of ours."""
