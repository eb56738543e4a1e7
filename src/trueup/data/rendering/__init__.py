"""Messages and rows, and the conversion between messages and tokens. Needs neither torch nor transformers to import.

messages.py   messages, rows, and errors that name a row's file and line
encoding.py   fast text to ids; a control token spelled in a message's content stays ordinary text
limits.py     limits on the time and size of one rendering of a chat template
sandbox.py    the jinja2 environment that chat templates render in, under these limits
probe.py      a first try of an untrusted template in a child process
frame.py      the text around a response
template.py   a tokenizer's chat template, and the text it writes around messages
choice.py     which template: the tokenizer's, a file's or one of ours, with variables
thoughts.py   thoughts before answers, and how families write them
spans.py      where an assistant's turns are in a rendered text
renderer.py   messages to ids and masks, and back
"""
