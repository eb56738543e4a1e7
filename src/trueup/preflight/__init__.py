"""Check data and models before training; faults stop it.

early.py      reads the beginning of every data section, before torch is imported
method.py     finds the method that a data file is for, where no method is named
check.py      checks the data (`trueup.data.tokens`) and the models of a stage, before every stage
functions.py  calls a user's functions on a small batch before weights load
report.py     `trueup check`: checks a file, a stage or a pipeline and reports all findings at once
show/         `trueup show`: shows rows as they will train
"""
