"""What every HTML page of trueup shares: the jinja environment, the style, the icons and how numbers are written."""
