"""The store of rankings: one SQLite file of prompts, pairs, raters and events.

store       the public class: each method is one transaction
vote_types  the types that go in and come out
rows        votes as rows of training data
header      recognizes a store's file without SQLAlchemy
database    the file, its transactions and its errors; `tables` is its schema
content     prompts and pairs; `raters`, `settings` and `scoring` (by a reward model) likewise
choosing    the next pair for a rater; `leases` reserve it
votes       votes and undos as events; `ballots` checks them, `importing` adds votes from files
counting    the tables derived from events: progress and totals
"""
