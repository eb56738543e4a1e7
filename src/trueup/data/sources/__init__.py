"""Data sources: a path or hub id to typed rows, with every row accounted for.

reader    a path or id -> entries, one after another (`finding` where, `reading` `decoding` `jsonfile` `tables`
          `rankings` how)
parser    an entry -> a row of the kind that is wanted (`formats`, `records`)
stream    rows one after another, counted; `loading` holds all of them
"""
