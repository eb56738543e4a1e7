"""The mask view: tokens, positions, loss mask and attention of data, read back from the batch that trains.

mask_view = view(examples, renderer, method="dpo", per="example", max_tokens=4096, layout="packed", shown=3)
print_view(mask_view)
write_html(mask_view, Path("rows.html"))
"""

from trueup.preflight.show.layout import view
from trueup.preflight.show.mask_view import View
from trueup.preflight.show.page import write_html
from trueup.preflight.show.terminal import print_view

__all__ = ["View", "print_view", "view", "write_html"]
