"""The command line: what people type, and the words that answer them."""
