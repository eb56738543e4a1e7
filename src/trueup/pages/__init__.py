"""Shared parts of the HTML pages: the jinja environment, styles, icons and the formatting of numbers."""
