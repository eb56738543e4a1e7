"""People rank A against B: the page, the server behind it, the models that write ahead, and what the votes say.

store     every vote, on disk before anything else happens; the one part that knows of no page and no model
ahead     a process of its own that samples answers before they are asked for
page      the server and what a rater's browser gets
results   what the votes say, with intervals
exchange  votes as rows of data, and other tools' rankings as votes
"""
