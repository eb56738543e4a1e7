"""One kit for pages: escaped HTML, a strict content policy, numbers in words."""
