"""Numbers to intervals: statistics that know nothing of models or files."""
