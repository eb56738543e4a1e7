"""People rank A against B: the page, the server behind it, the models that write ahead, and the results of the votes.

command   the work of `trueup rank` and its commands
page      the server, and the page in a rater's browser
writing   a separate process that samples answers before raters ask for them
exchange  votes as rows of data, and other tools' rankings as votes
results   win rates, agreement and the rest, with intervals

The store of prompts, pairs and votes is trueup.data.votes, which imports no page and no model.
"""
