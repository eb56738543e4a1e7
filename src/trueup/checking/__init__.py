"""The check: data and models are what they should be, or training stops.

stages.py    before every stage: the data (`trueup.data.tokens`) and the models beside it
command.py   `trueup check`: the same for a file, a stage or a pipeline, told at once
"""

from trueup.checking.stages import checked

__all__ = ["checked"]
