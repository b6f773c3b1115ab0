"""Whole rows of logits and likelihoods of the engine against transformers, within oracle_parity's bound.

Rows: a few answer steps of a few prompts, every logit of the vocabulary; twins move one value that is not
among the two best past the bound.

Likelihoods: the sum of -log p over the scored tokens of a text, as perplexity takes it. A token's is the
row's log-sum-exp minus its logit; the first moves by at most what the row's logits do, so one token is off
by at most two bounds of its row. Rows round apart from each other: their sum is a random walk of such steps,
2 * sqrt(sum of bound^2).
"""
import os

import numpy
import torch

PROMPTS = 8


class Rows:
    """Some steps of the first prompts; ask() before the engine runs, worst() after."""

    def __init__(self, folder, new):
        self.folder, self.steps = folder, sorted({0, new // 2})

    def ask(self, requests):
        for request in requests[:PROMPTS]:
            request |= {"rows": self.steps, "rows_out": os.path.join(self.folder, f"row{request['id']}")}
        return requests

    def read(self, prompt, step):
        path = os.path.join(self.folder, f"row{prompt}.S{step}")
        return torch.from_numpy(numpy.fromfile(path, numpy.float32)).double()

    def compare(self, oracle, bound_of):
        """(values compared, largest difference, the smallest that a moved value makes), in bounds."""
        count, worst, twin = 0, 0.0, float("inf")
        for prompt, logits in enumerate(oracle[:PROMPTS]):
            for step in self.steps:
                row, bound = logits[step].double(), bound_of(logits[step])
                mine = self.read(prompt, step)
                assert mine.shape == row.shape, f"a row of {len(mine)} logits, the oracle has {len(row)}"
                count += len(mine)
                worst = max(worst, float((mine - row).abs().max()) / bound)
                mine[mine.argsort()[len(mine) // 2]] += 2.5 * bound
                twin = min(twin, float((mine - row).abs().max()) / bound)
        return count, worst, twin


@torch.no_grad()
def oracle_likelihood(model, ids, first, bound_of):
    """(-log p of each scored token, bound of its row); the text's first token has none."""
    rows = model(torch.tensor([ids])).logits[0].double()
    first = max(1, first)
    rows, targets = rows[first - 1:len(ids) - 1], torch.tensor(ids[first:])
    chosen = rows.log_softmax(-1).gather(1, targets[:, None])[:, 0]
    return -chosen, torch.tensor([bound_of(row) for row in rows], dtype=torch.float64)


def windows(ids, size, stride):
    """(token ids, first scored index) of each window: every token but the first is scored once."""
    cut, done = [], 1
    for start in range(0, len(ids), stride):
        end = min(start + size, len(ids))
        cut.append((ids[start:end], done - start))
        done = end
        if end == len(ids):
            return cut
    return cut


def compare_likelihood(run, model, cut, bound_of):
    """run: requests -> id -> result. (tokens, largest difference, the smallest twin's), in bounds.

    The twin lowers the logit of the least likely token, which costs as much likelihood, past the bound.
    """
    results = run([{"id": i, "prompt": ids, "kv": "*:fp", "max_new": 0, "score_from": first}
                   for i, (ids, first) in enumerate(cut)])
    count, worst, twin = 0, 0.0, float("inf")
    for i, (ids, first) in enumerate(cut):
        each, bounds = oracle_likelihood(model, ids, first, bound_of)
        mine, tokens = results[i]["nll_sum"], results[i]["nll_tokens"]
        assert tokens == len(each), f"{tokens} tokens scored, the oracle scores {len(each)}"
        bound = 2 * float(bounds.square().sum().sqrt())
        away = (mine - float(each.sum())) / bound
        moved = 2.5 * -float(torch.expm1(-each.max()))  # 2.5 bounds times 1 - p
        count, worst = count + tokens, max(worst, abs(away))
        twin = min(twin, abs(away - moved))
    return count, worst, twin
