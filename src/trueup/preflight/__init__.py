"""Check data and models before training: faults stop it.

early.py    reads the beginning of every data section, before torch is imported
method.py   finds the method that a data file is for, where no method is named
check.py    checks the data (`trueup.data.tokens`) and the models of a stage, before every stage
report.py   `trueup check`: the same for a file, a stage or a pipeline, all findings at once
show/       `trueup show`: rows as they will train
"""
