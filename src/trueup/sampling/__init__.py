"""Sample from a role of a network: the engine behind rollouts, evaluation and chat.

Rows are continued together over a KV cache. A row that ends leaves at once and a waiting prompt takes its place
(continuous batching, Yu et al. 2022, "Orca", OSDI), so short answers do not wait for long ones. Copies of one prompt
share its prefill. Each sample brings the log-probabilities of its tokens along. Greedy output equals that of
`transformers`' own `generate` (tested).

Each row draws from random numbers of its own, which follow from the seed and the row's number alone: its sample depends
neither on the rows beside it, nor on the batch size, nor on how many processes share the rows (up to the rounding of
the model's logits).

`engine` decides which rows run, `cache` holds their keys and values, `draw` turns logits into tokens.
"""

from trueup.sampling.draw import pick
from trueup.sampling.engine import Sample, sample, sampled_at_once

__all__ = ["Sample", "pick", "sample", "sampled_at_once"]
