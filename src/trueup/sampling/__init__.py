"""Sample from a role of a network, for rollouts, evaluation and chat.

Rows run together over a KV cache. A row that ends leaves at once and a waiting prompt takes its place (continuous
batching, Yu et al. 2022, "Orca", OSDI), so short answers do not wait for long ones. Copies of a prompt share its
prefill. Each sample holds the log-probabilities of its tokens. Greedy output equals that of `transformers`' own
`generate` (tested).

Each row has separate random numbers, computed from the seed and the row's number alone: its sample depends neither on
the other rows, nor on the batch size, nor on the number of processes (up to the rounding of the model's logits).

`engine` decides which rows run, `cache` holds their keys and values, `draw` turns logits into tokens, `text` decodes.
"""

from trueup.sampling.draw import pick
from trueup.sampling.engine import Sample, sample, sampled_at_once

__all__ = ["Sample", "pick", "sample", "sampled_at_once"]
