"""Typed settings: network, training, decoding, tasks and solvers. Imports nothing heavy."""

from __future__ import annotations

from attrs import field, frozen
from attrs import validators as v

PROBLEMS = ("tsp", "atsp", "cvrp", "op", "kp", "cvrptw")

# Component name of each baseline -> method of `sfumato_bqnco.methods`.
BASELINES = {
    "nearest-neighbour": "nearest-neighbour",
    "farthest-insertion": "farthest-insertion",
    "two-opt": "2-opt",
    "iterated-two-opt": "iterated-2-opt",
    "savings": "savings",
    "string-removals": "string-removals",
    "prize-greedy": "prize-greedy",
    "prize-ruin": "prize-ruin",
    "density-greedy": "density",
    "knapsack-exact": "knapsack-exact",
    "time-insertion": "time-insertion",
    "time-nearest": "time-nearest",
    "fast-tsp": "fast-tsp",
    "pyvrp": "pyvrp",
    "hgs": "hgs",
    "or-tools": "ortools",
    "cp-sat": "cp-sat",
    "lkh": "lkh",
}

_positive = v.ge(1)
_problem = v.in_(PROBLEMS)


@frozen
class NetworkConfig:
    """Shape of the network.

    The defaults are the paper's main model. `CPU_NETWORK` is what one CPU core can train.
    `features`: `absolute` (the paper's) or `relative` (positions and offsets to both ends, rescaled at each step).
    `distance_bias`: each head adds -slope * squared distance * n to its logits, folded into three of the head's
    dimensions, so memory stays O(N). `edge_bias`: ATSP only, a bias from the cost matrix in every layer, O(N^2).
    `kind="perceiver"`: cross-attention into `n_latents` latents of width `latent_width` and back, cost O(N).
    """

    problem: str = field(default="tsp", validator=_problem)
    kind: str = field(default="transformer", validator=v.in_(("transformer", "perceiver")))
    width: int = field(default=192, validator=_positive)
    n_heads: int = field(default=12, validator=_positive)
    n_layers: int = field(default=9, validator=_positive)
    feed_forward: int = field(default=512, validator=_positive)
    norm: str = field(default="rezero", validator=v.in_(("rezero", "pre")))
    scaled_attention: bool = False
    features: str = field(default="absolute", validator=v.in_(("absolute", "relative")))
    distance_bias: bool = False
    edge_bias: bool = True
    n_identifiers: int = field(default=32, validator=_positive)
    n_latents: int = field(default=64, validator=_positive)
    latent_width: int = field(default=48, validator=_positive)
    latent_heads: int = field(default=8, validator=_positive)

    def __attrs_post_init__(self) -> None:
        if self.width % self.n_heads:
            raise ValueError(
                f"network: expected width divisible by n_heads, got {self.width} and {self.n_heads}; "
                f"try width = {self.n_heads * max(1, self.width // self.n_heads)}"
            )
        if self.latent_width % self.latent_heads:
            raise ValueError(
                f"network: expected latent_width divisible by latent_heads, got {self.latent_width} and "
                f"{self.latent_heads}"
            )
        if self.distance_bias and self.problem in ("kp", "atsp"):
            raise ValueError(
                f"network: distance_bias needs coordinates, and {self.problem} has none; set distance_bias = false"
            )
        if self.distance_bias and self.width // self.n_heads < 8:
            raise ValueError(
                "network: distance_bias takes three dimensions of each head; use heads of size 8 or more"
            )


def cpu_network(problem: str) -> NetworkConfig:
    """The small network (about 350,000 parameters) that one CPU core can train in minutes."""
    return NetworkConfig(
        problem=problem,
        width=96,
        n_heads=6,
        n_layers=4,
        feed_forward=256,
        norm="pre",
        scaled_attention=True,
        features="relative",
        distance_bias=problem not in ("kp", "atsp"),
    )


@frozen
class TrainConfig:
    """How imitation training runs.

    A step holds about `tokens_per_step` tokens: one length k is drawn, then as many pieces of that length as fit.
    `share_long`: share of steps with k at least 70 % of the longest; the rest draw k uniformly.
    The learning rate warms up over `warm_up` steps and follows a cosine from `learning_rate` to `final_rate` over
    `n_steps`.
    `optimizer`: `muon` (orthogonalised momentum for the matrices of the blocks, at `matrix_rate` and in step with the
    schedule, AdamW for the rest) or `adamw` for everything. On CVRP100, after 400 steps from one seed, Muon had a
    validation loss of 0.48 against 0.55 and tours 3.2 % shorter, for 11 % more time a step.
    `compile`: run the network through `torch.compile` by length bucket (see `buckets`); worth it on a GPU.
    """

    n_steps: int = field(default=5000, validator=_positive)
    optimizer: str = field(default="muon", validator=v.in_(("muon", "adamw")))
    matrix_rate: float = field(default=0.02, validator=v.gt(0))
    tokens_per_step: int = field(default=3000, validator=_positive)
    learning_rate: float = field(default=1e-3, validator=v.gt(0))
    final_rate: float = field(default=1e-5, validator=v.ge(0))
    warm_up: int = field(default=200, validator=v.ge(0))
    weight_decay: float = field(default=0.01, validator=v.ge(0))
    clip: float = field(default=1.0, validator=v.gt(0))
    ema: float = field(default=0.999, validator=v.and_(v.ge(0), v.lt(1)))
    share_long: float = field(default=0.3, validator=v.and_(v.ge(0), v.le(1)))
    shortest: int = field(default=4, validator=v.ge(2))
    curriculum_steps: int = field(default=0, validator=v.ge(0))
    checkpoint_steps: int = field(default=500, validator=_positive)
    seed: int = field(default=1, validator=v.ge(0))
    compile: bool = False


SOURCES = ("random", "clustered", "published", "library")
REFERENCES = ("none", "known", "search")


@frozen
class TaskConfig:
    """Where a task's instances come from.

    `source`: `random` (uniform, by seed), `clustered` (TSP and CVRP, by seed), `published` (the 128-instance uniform
    sets), `library` (the instance files under the data directory, in the order of their size). `n`: customers, nodes
    or items of random and published sets. `files`: instance files instead of a source. `n_min`, `n_max`: sizes kept
    from the library. `reference`: `known` takes best known or published values where there are any, `search` runs a
    classical solver for `search_effort` thousand steps when the instance is made, `none` prints no gap.
    """

    source: str = field(default="random", validator=v.in_(SOURCES))
    n: int = field(default=100, validator=_positive)
    files: tuple[str, ...] = ()
    n_min: int = field(default=1, validator=_positive)
    n_max: int = field(default=10_000, validator=_positive)
    reference: str = field(default="known", validator=v.in_(REFERENCES))
    search_effort: int = field(default=20, validator=_positive)


@frozen
class PolicyConfig:
    """How `bqnco/policy` decodes.

    `weights`: a safetensors file; empty means the weights that come with the package. `width`: 1 is greedy, more is
    beam search, bisimulation-aware unless `merge` is off. `symmetries`: best of so many symmetries (greedy only).
    `rounds`: rounds of random re-construct, or `seconds` per batch (statistical replay). `neighbours`: most remaining
    nodes that the network sees (0: all). `tokens`: most tokens in one call of the network.
    """

    weights: str = ""
    width: int = field(default=16, validator=_positive)
    merge: bool = True
    symmetries: int = field(default=1, validator=v.in_(tuple(range(1, 9))))
    rounds: int = field(default=0, validator=v.ge(0))
    seconds: float = field(default=0.0, validator=v.ge(0))
    neighbours: int = field(default=250, validator=v.ge(0))
    tokens: int = field(default=4096, validator=_positive)


@frozen
class BaselineConfig:
    """How long a baseline may take. `seconds`: wall time for each instance (constructions take none); `cpu_clock`: read
    process CPU time instead (own methods and PyVRP; HGS always counts CPU time, fast-tsp and OR-Tools wall time).
    """

    seconds: float = field(default=1.0, validator=v.ge(0))
    cpu_clock: bool = False


@frozen
class MethodConfig:
    """A classical method by name; each has a component of its own, which is the better way to ask for it.

    `method`: its name (see `sfumato_bqnco.methods`); `seconds`: wall time for each instance;
    `cpu_clock`: read process CPU time instead (own methods only).
    """

    method: str = "2-opt"
    seconds: float = field(default=1.0, validator=v.ge(0))
    cpu_clock: bool = False
