"""The store of rankings: one SQLite file of prompts, pairs, raters and events.

store       every method, each a transaction
schema      what goes in and comes out
header      whether a file is a store, without SQLAlchemy
database    the file, its transactions, its errors in words; `tables` what is in it
content     prompts and pairs; `raters`, `settings`, `scoring` as they say
choosing    which pair is next; `leases` keeps it for its rater, `draws` is the chance in it
votes       votes and undos as events; `ballots` checks, `importing` brings those given elsewhere
derived     what is counted from events; `counting` reads it
"""
