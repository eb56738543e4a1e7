"""The report: run folders -> one report.html and report.json. Reads files only, never live objects."""
