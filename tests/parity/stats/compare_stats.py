"""Holds every statistic of services/stats against scipy, statsmodels, exact fractions and numpy.

usage: compare_stats.py PATH_TO_stats_dump

Each check prints cases, the largest error and its tolerance, then shows its teeth: the same answers
with one value moved by three tolerances must be rejected. Exit status 1 when any check fails.

Tolerances (relative unless said otherwise):
* tails and masses against scipy, 1e-11: rounding 1 - p moves the log of a mass by up to
  n * 1.1e-16 / min(p, 1 - p), which is 2e-11 for n = 2,000 and p = 0.01 and 5e-13 for the usual p.
  scipy returns 0 for tails below about 1e-255, so values under 1e-240 count by their absolute error there.
* tails against exact fractions, 1e-12 down to 1e-290: the sum of three rounded logarithms, of at most
  290 * ln 10 = 670 each, errs by about 670 * 1.1e-16 * a few = 3e-13.
* intervals and correlations, 1e-9 absolute at most: scipy solves Clopper-Pearson by an iterative beta
  quantile whose stopping rule is 1e-10 or better.
* posterior: both sides simulate, so the tolerance is 6 standard errors of their difference,
  sqrt(m (1 - m) (1/N1 + 1/N2)) for a mass m; quantiles are compared through the mass that numpy's
  draws put below ours. Six standard errors fail by chance once in 5e8 comparisons.
"""

import math
import subprocess
import sys
import warnings
from fractions import Fraction

import numpy as np
from scipy import stats as sps
from scipy.special import log_softmax, rel_entr, softmax
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

warnings.filterwarnings("ignore")
DRAWS = 200_000


class Dump:
    def __init__(self, path):
        self.path = path

    def ask(self, lines):
        text = "\n".join(lines) + "\n"
        done = subprocess.run([self.path], input=text, capture_output=True, text=True, check=True)
        answers = done.stdout.splitlines()
        assert len(answers) == len(lines), (len(answers), len(lines))
        for line, answer in zip(lines, answers):
            assert not answer.startswith("error"), (line, answer)
        return [[float(word) for word in answer.split()] for answer in answers]


def worst_error(ours, oracle, relative, floor=1e-290):
    """Largest error of any value, in units of 1 (absolute) or of the oracle's value."""
    worst = 0.0
    for row, expected in zip(ours, oracle, strict=True):
        for a, b in zip(row, expected, strict=True):
            if math.isnan(a) or math.isnan(b):
                return math.inf
            scale = max(abs(b), floor) if relative else 1.0
            worst = max(worst, abs(a - b) / scale)
    return worst


FAILED = []


def check(name, ours, oracle, tolerance, relative=True, floor=1e-290):
    worst = worst_error(ours, oracle, relative, floor)
    perturbed = [list(row) for row in ours]
    index = max(range(len(oracle)), key=lambda i: abs(oracle[i][0]))
    perturbed[index][0] += 3 * tolerance * (abs(oracle[index][0]) if relative else 1.0)
    bites = worst_error(perturbed, oracle, relative, floor) > tolerance
    ok = worst <= tolerance and bites
    kind = "relative" if relative else "absolute"
    print(f"{'ok  ' if ok else 'FAIL'} {name:34s} {len(ours):6d} cases, worst {worst:.1e} "
          f"({kind}), tolerance {tolerance:.0e}, perturbed twin {'fails' if bites else 'PASSES'}")
    if not ok:
        FAILED.append(name)


def counts(rng, cases, most):
    edges = [(0, 1), (1, 1), (0, 20), (20, 20), (1, 24), (2, 24), (23, 24), (0, most), (most, most)]
    for k, n in edges:
        yield k, n
    for _ in range(cases):
        n = int(rng.choice([rng.integers(1, 30), rng.integers(1, 300), rng.integers(1, most)]))
        # Half of the cases near a small rate, where flips live.
        k = int(rng.binomial(n, rng.beta(0.6, 6))) if rng.random() < 0.5 else int(rng.integers(0, n + 1))
        yield k, n


def probability(rng):
    return float(rng.choice([0.05, 0.1, 0.5, 0.8, rng.uniform(0.01, 0.99)]))


def exact_upper(k, n, p):
    p = Fraction(p)
    # As integers over one denominator: p = a / d.
    a, d = p.numerator, p.denominator
    total = sum(math.comb(n, i) * a**i * (d - a) ** (n - i) for i in range(k, n + 1))
    return float(Fraction(total, d**n))


def check_binomial(dump, rng):
    cases = [(k, n, probability(rng)) for k, n in counts(rng, 3000, 2000)]
    line = lambda word: [f"{word} {k} {n} {p!r}" for k, n, p in cases]
    k, n, p = (np.array(x) for x in zip(*cases))
    rows = lambda values: [[float(v)] for v in values]
    two = [sps.binomtest(int(a), int(b), float(c)).pvalue for a, b, c in cases]
    for name, word, oracle in (("mass", "mass", sps.binom.pmf(k, n, p)),
                               ("lower tail", "lower", sps.binom.cdf(k, n, p)),
                               ("upper tail", "upper", sps.binom.sf(k - 1, n, p)),
                               ("two-sided test", "twosided", two)):
        check(f"binomial {name} / scipy", dump.ask(line(word)), rows(oracle), 1e-11, floor=1e-240)
    small = [c for c in cases if c[1] <= 300][:400]
    small += [(399, 400, 0.2), (400, 400, 0.2), (380, 400, 0.25), (1, 400, 0.99)]
    ours = dump.ask([f"upper {a} {b} {c!r}" for a, b, c in small])
    check("binomial upper tail / fractions", ours, [[exact_upper(*c)] for c in small], 1e-12)


def check_intervals(dump, rng):
    cases = [(k, n, float(rng.choice([0.95, 0.9, 0.99]))) for k, n in counts(rng, 2000, 5000)]
    for word, method, tolerance in (("wilson", "wilson", 1e-13), ("clopper", "beta", 1e-9)):
        ours = dump.ask([f"{word} {k} {n} {c!r}" for k, n, c in cases])
        oracle = [list(map(float, proportion_confint(k, n, alpha=1 - c, method=method)))
                  for k, n, c in cases]
        if word == "clopper":  # statsmodels leaves nan or the tail at none and all
            for row, (k, n, _) in zip(oracle, cases):
                row[0] = 0.0 if k == 0 else row[0]
                row[1] = 1.0 if k == n else row[1]
        check(f"{word} interval / statsmodels", ours, oracle, tolerance, relative=False)
    for word, method in (("wilson", "wilson"), ("clopper", "exact")):
        sub = cases[:300]
        ours = dump.ask([f"{word} {k} {n} {c!r}" for k, n, c in sub])
        oracle = []
        for k, n, c in sub:
            ci = sps.binomtest(k, n).proportion_ci(c, method)
            oracle.append([ci.low, ci.high])
        check(f"{word} interval / scipy", ours, oracle, 1e-9, relative=False)
    q = np.concatenate([rng.uniform(0, 1, 2000), 10.0 ** rng.uniform(-300, -1, 200), [0.5, 0.975]])
    # 1e-13 relative: near 1/2 the quantile is the difference of nearly equal tails.
    check("normal quantile / scipy", dump.ask([f"quantile {float(x)!r}" for x in q]),
          [[float(v)] for v in sps.norm.ppf(q)], 1e-13, relative=False)


def check_passing(dump, rng):
    cases = [(0, 60, 73, 0.05), (1, 60, 73, 0.05), (0, 0, 100, 0.1), (5, 5, 80, 0.2)]
    cases += [(k, n, int(rng.integers(1, 400)), float(rng.choice([0.05, 0.02, 0.2])))
              for k, n in counts(rng, 500, 500)]
    oracle = []
    for k, n, future, limit in cases:
        uppers = proportion_confint(np.arange(future), future, method="wilson")[1]
        most = int(np.sum(uppers <= limit)) - 1
        oracle.append([float(sps.betabinom.cdf(most, future, k + 0.5, n - k + 0.5)) if most >= 0 else 0.0])
    # 1e-10 absolute: scipy goes through log-beta of arguments near 1,000, which cancel to 1e-12.
    check("chance of passing / betabinom", dump.ask([f"passing {k} {n} {f} {c!r}" for k, n, f, c in cases]),
          oracle, 1e-10, relative=False)


def check_tests(dump, rng):
    pairs = [(0, 0), (0, 1), (5, 5), (0, 50), (700, 3)]
    pairs += [tuple(map(int, rng.integers(0, m, 2))) for m in rng.integers(1, 200, 2000)]
    oracle = [[float(mcnemar([[3, a], [b, 9]], exact=True).pvalue)] for a, b in pairs]
    check("McNemar exact / statsmodels", dump.ask([f"mcnemar {a} {b}" for a, b in pairs]), oracle, 1e-11)
    ours, oracle = [], []
    lists = [rng.uniform(0, 1, m) ** rng.integers(1, 6) for m in rng.integers(1, 60, 500)]
    lists += [np.array([0.02] * 10), np.array([0.0, 1.0]), np.array([0.05])]
    answers = dump.ask(["holm " + " ".join(repr(float(v)) for v in ps) for ps in lists])
    for answer, ps in zip(answers, lists):
        ours.append(answer)
        oracle.append(list(map(float, multipletests(ps, method="holm")[1])))
    check("Holm / statsmodels", ours, oracle, 1e-14)


def check_agreement(dump, rng):
    tables = [np.array([[20, 5], [10, 15]]), np.array([[100, 0], [1, 3]])]
    while len(tables) < 1000:
        size = int(rng.integers(2, 6))
        table = rng.integers(0, 40, (size, size)) + np.diag(rng.integers(0, 200, size))
        if rng.random() < 0.2:
            table[rng.integers(0, size)] = 0
        if table.sum() > table.diagonal().max():
            tables.append(table)
    lines = [f"kappa {len(t)} " + " ".join(str(int(v)) for v in t.flatten()) for t in tables]
    oracle = []
    for t in tables:
        k = cohens_kappa(t.astype(float))
        # statsmodels takes the root of -1e-17 where the variance is 0: nan there means 0.
        oracle.append([float(np.nan_to_num(v)) for v in (k.kappa, k.std_kappa, k.std_kappa0)])
    # 1e-7 absolute: a standard error near 0 is the root of a difference that cancels to 1e-16.
    check("Cohen's kappa, errors / statsmodels", dump.ask(lines), oracle, 1e-7, relative=False)


def check_correlation(dump, rng):
    series = []
    for _ in range(1000):
        n = int(rng.integers(3, 60))
        x = rng.normal(size=n)
        y = rng.uniform(-1, 1) * x + rng.normal(size=n)
        if rng.random() < 0.5:
            x, y = np.round(x * 2), np.round(y * 2)  # ties
        if len(set(x)) > 1 and len(set(y)) > 1:
            series.append((x, y))
    args = [" ".join(repr(float(v)) for v in np.concatenate(s)) for s in series]
    check("Pearson / scipy", dump.ask([f"pearson {a}" for a in args]),
          [[float(sps.pearsonr(*s)[0])] for s in series], 1e-12, relative=False)
    check("Spearman / scipy", dump.ask([f"spearman {a}" for a in args]),
          [[float(sps.spearmanr(*s)[0])] for s in series], 1e-12, relative=False)


def check_divergence(dump, rng):
    """Against scipy over the same merged outcomes, from lists in double precision and where Q leaves over more
    than single precision could (the function counts less as that much); and, from lists in single precision as the
    engine writes them, never above scipy's divergence of the full distributions."""
    exact, oracle, single, full = [], [], [], []
    for _ in range(2000):
        vocab, top = int(rng.integers(2, 400)), int(rng.integers(1, 40))
        logits = [rng.normal(size=vocab) * rng.choice([0.1, 1, 5, 20])]
        logits.append(logits[0] + rng.normal(size=vocab) * rng.choice([0.01, 0.3, 3, 20]))
        best = [np.argsort(-x, kind="stable")[:top] for x in logits]
        p, q = (softmax(x) for x in logits)
        shared = sorted(set(best[0]) & set(best[1]))
        rest = np.setdiff1d(np.arange(vocab), shared)
        logs = [log_softmax(x) for x in logits]
        line = lambda cast: f"divergence {len(best[0])} " + " ".join(
            f"{int(t)} {min(float(cast(x[t])), 0.0)!r}" for x, ids in zip(logs, best) for t in ids)
        single.append(line(np.float32))
        full.append(float(np.sum(rel_entr(p, q))))
        if len(rest) == 0 or q[rest].sum() > 1e-6:
            exact.append(line(float))
            merge = lambda v: np.append(v[shared], v[rest].sum())
            oracle.append([float(np.sum(rel_entr(merge(p), merge(q))))])
    # 1e-9: a remainder of 1e-6 is the difference of sums near 1, which err by a few 1e-16.
    check("divergence / scipy", dump.ask(exact), oracle, 1e-9, relative=False)
    ours = [answer[0] for answer in dump.ask(single)]
    over = max((o - f) / max(1.0, f) for o, f in zip(ours, full))
    below = sum(f > o + 1e-3 for o, f in zip(ours, full))
    # 2e-6, relative above 1 nat: single precision moves each log probability by 6e-8 of itself, weighted by the
    # probability, and leaves a remainder of 1e-7 to 2e-7 unresolved, times the logarithm of its ratio.
    ok = over <= 2e-6 and below > 100
    print(f"{'ok  ' if ok else 'FAIL'} {'divergence is a lower bound':34s} {len(full):6d} cases, above the full one "
          f"by at most {max(over, 0):.1e}, clearly below in {below}")
    if not ok:
        FAILED.append("divergence bound")


def z_scores(ours, draws):
    """Distances between our posterior and numpy's draws, in standard errors of the difference."""
    spread = lambda m: math.sqrt(max(m * (1 - m), 1.0 / DRAWS) * (2.0 / DRAWS))
    share = lambda cut: float(np.mean(draws <= cut))
    estimate, median, low, high, *masses = ours
    bands = [np.mean(draws < 0.3), np.mean((draws >= 0.3) & (draws <= 0.7)), np.mean(draws > 0.7),
             np.mean(draws > 0)]
    ends = [(median, 0.5), (low, 0.025)]
    if estimate < 1:  # where nothing flips under a the interval reaches 1
        ends.append((high, 0.975))
    elif high != 1:
        return [math.inf]
    z = [abs(share(cut) - q) / spread(q) for cut, q in ends]
    return z + [abs(a - float(b)) / spread(float(b)) for a, b in zip(masses, bands)]


def check_posterior(dump, rng):
    cases = [(0, 0, 5, 0), (5, 0, 0, 0), (0, 0, 6, 34), (3, 17, 4, 0), (50, 2, 50, 50), (5, 5, 0, 1000)]
    while len(cases) < 40:
        case = tuple(int(v) for v in rng.integers(0, [20, 8, 40, 80]))
        if case[0] + case[2] >= 5:
            cases.append(case)
    ours = dump.ask([" ".join(map(str, ("ratio", *c, DRAWS, i))) for i, c in enumerate(cases)])
    worst, weakest = 0.0, math.inf
    for case, answer in zip(cases, ours):
        # Dirichlet draws by numpy, not normalized gammas of ours.
        p = rng.dirichlet(np.array(case) + 0.5, DRAWS)
        draws = 1 - (p[:, 0] + p[:, 1]) / (p[:, 0] + p[:, 2])
        worst = max(worst, max(z_scores(answer, draws)))
        # Teeth: another prior (a Dirichlet of ones) must be told apart where it differs visibly.
        if case in ((0, 0, 6, 34), (5, 0, 0, 0)):
            p = rng.dirichlet(np.array(case) + 1.0, DRAWS)
            other = 1 - (p[:, 0] + p[:, 1]) / (p[:, 0] + p[:, 2])
            weakest = min(weakest, max(z_scores(answer, other)))
        estimate = 1 - (case[0] + case[1]) / (case[0] + case[2])
        if abs(answer[0] - estimate) > 1e-15 or abs(sum(answer[4:7]) - 1) > 1e-9:
            FAILED.append(f"posterior estimate or bands of {case}: {answer}")
    ok = worst <= 6 and weakest > 6
    print(f"{'ok  ' if ok else 'FAIL'} Dirichlet posterior / numpy         {len(cases) * 7} comparisons, "
          f"worst {worst:.2f} standard errors, tolerance 6, a Dirichlet(1) prior is off by {weakest:.0f}")
    if not ok:
        FAILED.append("posterior")


def check_coverage(dump, rng):
    """Of studies drawn from a known recovery, how many intervals hold it. 2,000 studies a row err by 0.5
    points (one standard error), hence the bar of 91%. Near, not at, a recovery of 1 the flips of the plan
    are 0 or 1 by chance and any interval of that data jumps: the bar of those rows is 80%."""
    rng = np.random.default_rng(92)  # of its own, so that the figures stay when checks are added above
    studies, cases, rows = 2000, {}, []
    for n, target in ((92, 0.15), (92, 0.3), (250, 0.15)):
        for recovery in (-0.2, 0.0, 0.3, 0.8, 0.95, 0.99, 1.0):
            plan = target * (1 - recovery)
            both = 0.6 * min(plan, target)
            p = [both, plan - both, target - both, 1 - plan - target + both]
            counts = [tuple(map(int, c)) for c in rng.multinomial(n, p, studies) if c[0] + c[2] >= 5]
            rows.append((n, target, recovery, counts))
            cases.update(dict.fromkeys(counts))
    # What neither condition flips does not enter the ratio.
    keys = sorted({c[:3] for c in cases})
    answers = dump.ask([f"ratio {a} {b} {c} 0 4000 1" for a, b, c in keys])
    ends = {key: (answer[2], answer[3]) for key, answer in zip(keys, answers)}
    worst, least = 1.0, 1.0
    for n, target, recovery, counts in rows:
        share = float(np.mean([ends[c[:3]][0] <= recovery <= ends[c[:3]][1] for c in counts]))
        print(f"     n {n}, target flips {target:.0%}, true recovery {recovery:.0%}: {share:.1%} of intervals hold it")
        if 0.95 < recovery < 1:
            least = min(least, share)
        else:
            worst = min(worst, share)
    ok = worst >= 0.91 and least >= 0.80
    print(f"{'ok  ' if ok else 'FAIL'} recovery's interval / simulation     {len(rows)} truths, coverage at least {worst:.1%} "
          f"({least:.1%} at a recovery of 99%)")
    if not ok:
        FAILED.append("coverage")


def main():
    dump = Dump(sys.argv[1])
    rng = np.random.default_rng(20260609)
    for part in (check_binomial, check_intervals, check_passing, check_tests, check_agreement, check_correlation,
                 check_divergence, check_posterior, check_coverage):
        part(dump, rng)
    print("failed: " + ", ".join(FAILED) if FAILED else "all statistics agree with their oracles")
    return 1 if FAILED else 0


if __name__ == "__main__":
    sys.exit(main())
