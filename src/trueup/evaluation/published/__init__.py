"""Published test sets by name: their rows in their own schema, and their scoring (docs/sets.md)."""
