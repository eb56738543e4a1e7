"""The report on a run folder: report.html and report.json, made from the folder's files and never from live objects."""
