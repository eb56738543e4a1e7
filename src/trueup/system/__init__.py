"""Basics for all other packages: files, the console, formatting of text and numbers, Ctrl-C."""
