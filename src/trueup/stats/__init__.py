"""Statistics: confidence intervals, tests and rankings from arrays of numbers; nothing here knows models or files."""
