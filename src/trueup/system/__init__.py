"""Basics for all other packages: files, terminal output, text and number formatting, Ctrl-C."""
