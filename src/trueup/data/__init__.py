"""All data that are read before a model is loaded: files as rows, rows as tokens, and the votes of people."""
