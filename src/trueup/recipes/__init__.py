"""The four training stages, each assembling terms for `loop.fit`; `pipeline` runs them in order."""
