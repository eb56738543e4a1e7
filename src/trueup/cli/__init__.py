"""The command line `trueup`: its commands and options, and errors turned into messages with an exit code."""
