"""All that is looked at before training: data and models are right, or training stops.

early.py    the beginning of every data section, read before torch is imported
method.py   the method that a data file is for, where nobody says it
check.py    before every stage: the data (`trueup.data.tokens`) and the models beside it
report.py   `trueup check`: the same for a file, a stage or a pipeline, reported at once
show/       `trueup show`: rows as they will train
"""
