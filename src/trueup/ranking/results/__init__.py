"""Results of the votes: win rates, ranking, agreement, raters and lengths, each with an interval or a reason for none.

Pure functions of pairs and votes, without state or files.
"""

from trueup.ranking.results.page import page
from trueup.ranking.results.results_schema import Absent, Results, ResultsNumber
from trueup.ranking.results.terminal import terminal
from trueup.ranking.results.view import view

__all__ = ["Absent", "Results", "ResultsNumber", "page", "terminal", "view"]
