"""What the votes say: win rates, a ranking, agreement, raters, lengths; with intervals, or why there are none.

Pure functions of pairs and votes: nothing is read, written or remembered.
"""

from trueup.ranking.results.page import page
from trueup.ranking.results.results_schema import Absent, Results, ResultsNumber
from trueup.ranking.results.terminal import terminal
from trueup.ranking.results.view import view

__all__ = ["Absent", "Results", "ResultsNumber", "page", "terminal", "view"]
