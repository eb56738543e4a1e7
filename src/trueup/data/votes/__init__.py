"""The store of human votes: one SQLite file with prompts, pairs of answers, raters and events.

An event is a vote, an undo or a change of settings.

store       the public class `Store`: each method is one transaction
vote_types  the dataclasses that `Store` takes and returns
rows        votes turned into rows of training data
header      recognizes a store by its file header, without SQLAlchemy
database    the SQLite connection, its transactions and its error messages; `tables` holds its schema
content     functions that read and write prompts and pairs
raters      functions that read and write raters and their secrets
settings    functions that read and write the store's settings
scoring     functions that read and write the scores that a reward model gave to pairs
choosing    the choice of the next pair for a rater; `leases` reserves that pair for a while
votes       votes and undos, stored as events; `ballots` validates a vote, `importing` adds votes from files
counting    the tables that are computed from the events: votes per pair, progress and totals
"""
