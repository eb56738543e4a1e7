"""Files, the console, text and numbers as a person reads them, Ctrl-C: what every room stands on."""
