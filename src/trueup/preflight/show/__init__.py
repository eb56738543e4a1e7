"""The mask view: what a model will really see of some data, read back from the batch that trains.

seen = view(examples, renderer, method="dpo", per="example", max_tokens=4096, layout="packed", shown=3)
print_view(seen)
write_html(seen, Path("rows.html"))
"""

from trueup.preflight.show.layout import view
from trueup.preflight.show.mask_view import View
from trueup.preflight.show.page import write_html
from trueup.preflight.show.terminal import print_view

__all__ = ["View", "print_view", "view", "write_html"]
