"""Statistics of agents' runs: tokens, failures, intervals and paired tests. Numbers and arrays in, numbers out."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence

import attrs

_WORD = re.compile(r"\w+|[^\w\s]")


def count_words(text: str) -> int:
    """Count words and punctuation marks: a token count that needs no tokenizer."""
    return len(_WORD.findall(text))


def longest_run(flags: Sequence[bool]) -> int:
    """Return the length of the longest run of true values."""
    best = run = 0
    for flag in flags:
        run = run + 1 if flag else 0
        best = max(best, run)
    return best


def repeated_share(blocks: Sequence[str]) -> float:
    """Return the share of words that stand in top-level statements an earlier block held in the same form.

    Arguments:
        blocks: the code of an episode's actions, in order; blocks that do not parse count as new text.

    Notes:
        Statements are compared by syntax tree, so spacing and comments do not matter. This is text restated, whether
        or not the interpreter still held what it binds.
    """
    seen: set[str] = set()
    repeated = total = 0
    for block in blocks:
        try:
            statements = ast.parse(block).body
        except SyntaxError:
            total += count_words(block)
            continue
        new = set()
        for statement in statements:
            n = count_words(ast.get_source_segment(block, statement) or "")
            form = ast.dump(statement)
            total += n
            repeated += n if form in seen else 0
            new.add(form)
        seen |= new
    return repeated / total if total else 0.0


@attrs.frozen
class Tokens:
    """Tokens of an episode, three ways, and what they cost with a prefix cache.

    `cumulative` sums prompt and completion over all calls, so it grows with the square of the turns; `unique` is the
    final transcript; `completion` is what the model wrote.
    """

    cumulative: int
    unique: int
    completion: int

    def cached_cost(self, price: float = 0.1) -> float:
        """Return token cost when a prompt token read from a prefix cache costs `price` of a fresh one."""
        return self.unique + price * (self.cumulative - self.unique)


def tokens_of(calls: Sequence[tuple[int, int]]) -> Tokens:
    """Return the three counts from (prompt tokens, completion tokens) of each call."""
    return Tokens(
        cumulative=sum(prompt + completion for prompt, completion in calls),
        unique=sum(calls[-1]) if calls else 0,
        completion=sum(completion for _, completion in calls),
    )


@attrs.frozen
class Interval:
    """An estimate with its interval and the number of episodes behind it."""

    value: float
    low: float
    high: float
    n: int

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


def bootstrap_mean(
    values: Sequence[float], *, resamples: int = 5000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Return the mean with a percentile bootstrap interval over episodes.

    Source: the released evaluation of arXiv:2603.01209 (5,000 resamples, seed 0, 95 %).
    """
    import numpy as np

    x = np.asarray(values, dtype=float)
    if x.size == 0:
        raise ValueError("values: expected at least one episode, got none")
    rng = np.random.default_rng(seed)
    means = x[rng.integers(0, x.size, (resamples, x.size))].mean(1)
    tail = 50 * (1 - level)
    low, high = np.percentile(means, [tail, 100 - tail])
    return Interval(float(x.mean()), float(low), float(high), x.size)


def share(hits: int, n: int, *, level: float = 0.95) -> Interval:
    """Return a proportion with its Clopper-Pearson interval."""
    from scipy.stats import binomtest

    interval = binomtest(hits, n).proportion_ci(level, method="exact")
    return Interval(hits / n, float(interval.low), float(interval.high), n)


@attrs.frozen
class Paired:
    """A paired comparison of two conditions on the same tasks: mean difference, effect size, p value."""

    difference: float
    effect: float
    p: float
    n: int


def wilcoxon(x: Sequence[float], y: Sequence[float]) -> Paired:
    """Compare two conditions by Wilcoxon's signed-rank test, two-sided, zero differences dropped.

    The effect is the rank-biserial correlation (W+ - W-) / (n (n + 1) / 2), from -1 to 1. (The released script's
    1 - 2 W / (n (n + 1)) cannot fall below one half.)
    """
    import numpy as np
    from scipy import stats

    d = np.asarray(x, float) - np.asarray(y, float)
    nonzero = d[d != 0]
    if nonzero.size == 0:
        return Paired(0.0, 0.0, 1.0, d.size)
    ranks = stats.rankdata(np.abs(nonzero))
    plus, minus = ranks[nonzero > 0].sum(), ranks[nonzero < 0].sum()
    effect = (plus - minus) / (nonzero.size * (nonzero.size + 1) / 2)
    p = float(stats.wilcoxon(nonzero).pvalue)
    return Paired(float(d.mean()), float(effect), p, d.size)


def equivalence(x: Sequence[float], y: Sequence[float], *, margin: float = 0.05) -> Paired:
    """Test that two conditions differ by less than `margin` in the mean: two one-sided paired t tests (TOST).

    A small p speaks for equivalence. The effect is the mean difference in units of the margin.
    """
    import numpy as np
    from scipy import stats

    d = np.asarray(x, float) - np.asarray(y, float)
    if d.size < 2:
        raise ValueError(f"expected at least two pairs, got {d.size}")
    mean = float(d.mean())
    if d.std(ddof=1) == 0:
        return Paired(mean, mean / margin, 0.0 if abs(mean) < margin else 1.0, d.size)
    lower = stats.ttest_1samp(d, -margin, alternative="greater").pvalue
    upper = stats.ttest_1samp(d, margin, alternative="less").pvalue
    return Paired(mean, mean / margin, float(max(lower, upper)), d.size)


def mcnemar(x: Sequence[bool], y: Sequence[bool]) -> Paired:
    """Compare two paired yes-or-no outcomes by McNemar's exact test. The effect is (b - c) / (b + c)."""
    from scipy.stats import binomtest

    b = sum(1 for a, c in zip(x, y, strict=True) if a and not c)
    c = sum(1 for a, c in zip(x, y, strict=True) if c and not a)
    n = len(x)
    if b + c == 0:
        return Paired(0.0, 0.0, 1.0, n)
    return Paired((b - c) / n, (b - c) / (b + c), float(binomtest(b, b + c).pvalue), n)


def interaction(
    pp: Sequence[float], ps: Sequence[float], sp: Sequence[float], ss: Sequence[float],
    *, resamples: int = 20_000, seed: int = 0,
) -> Paired:  # fmt: skip
    """Test the train x runtime interaction on paired values by sign flips of (pp - ps) - (sp - ss).

    Arguments:
        pp, ps, sp, ss: one value a task (log tokens, usually); first letter training regime, second runtime.

    Notes:
        Two-sided Monte Carlo permutation test, the observed assignment counted. The effect is the mean contrast over
        its standard deviation.
    """
    import numpy as np

    contrast = (np.asarray(pp, float) - np.asarray(ps, float)) - (
        np.asarray(sp, float) - np.asarray(ss, float)
    )
    rng = np.random.default_rng(seed)
    observed = abs(contrast.mean())
    hits = 1
    left = resamples
    while left > 0:
        chunk = min(left, 2000)
        flips = rng.integers(0, 2, (chunk, contrast.size)) * 2 - 1
        hits += int((np.abs((flips * contrast).mean(1)) >= observed - 1e-12).sum())
        left -= chunk
    spread = float(contrast.std(ddof=1)) if contrast.size > 1 else 0.0
    effect = float(contrast.mean()) / spread if spread else 0.0
    return Paired(float(contrast.mean()), effect, hits / (resamples + 1), contrast.size)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return Holm's step-down adjusted p values, under the same names."""
    adjusted, running = {}, 0.0
    ordered = sorted(p_values.items(), key=lambda item: item[1])
    for rank, (name, p) in enumerate(ordered):
        running = max(running, min(1.0, p * (len(ordered) - rank)))
        adjusted[name] = running
    return {name: adjusted[name] for name in p_values}
