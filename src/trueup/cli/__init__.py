"""The command line: the commands and their options, and errors as messages with an exit code."""
