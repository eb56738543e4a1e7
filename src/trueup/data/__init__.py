"""Files to rows, rows to tokens, and the votes of people: all that is read before a model is loaded."""
