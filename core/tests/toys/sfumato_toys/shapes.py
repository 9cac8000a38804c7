"""Six shapes of problem. If the driver had to know which is which, the protocol would be wrong."""

import contextlib
import io
import json

import attrs
import numpy as np

from sfumato.protocols import Episode, Evaluator, Policy, Solver, Task
from sfumato.records import Metric, Refusal, Start, Step
from sfumato.runtimes import Direct

# ---------------------------------------------------------------- (a) a batch of one-shot instances


class PickTask(Task):
    """Ten numbers are shown, the action picks one of them, for each item of the batch."""

    batched = True
    offers = frozenset({"values"})

    def instances(self, ctx):
        for items in ctx.chunks():
            yield np.stack([ctx.stream("instance", k).random(10) for k in items])

    def start(self, instance, ctx, rng):
        return PickEpisode(instance)


@attrs.define
class PickEpisode(Episode):
    values: np.ndarray

    def reset(self):
        return Start(self.values, public={"values": self.values})

    def step(self, action):
        n = len(self.values)
        if np.any((action < 0) | (action >= 10)):
            raise ValueError(f"expected indices 0 to 9, got {action!r}")
        done = np.ones(n, bool)
        return Step(self.values, self.values[np.arange(n), action], done, np.zeros(n, bool))

    def truth(self):
        return {"best": self.values.max(axis=1)}


class PickEvaluator(Evaluator):
    def score(self, instance, trace):
        picked = instance[np.arange(len(instance)), trace.native.actions[0]]
        yield Metric("gap", trace.truth["best"] - picked, "1", "min")


@attrs.define
class BestPolicy(Policy):
    def reset(self, start, rng):
        return

    def act(self, observation):
        return observation.argmax(axis=1)


class BestSolver(Solver):
    def supports(self, task, runtime):
        return None if "values" in task.offers else Refusal("the values are not shown", "Use toys/pick.")

    def solve(self, task, ctx):
        return BestPolicy()


# ---------------------------------------------------------------- (b) an online learner over a stream, batched


@attrs.frozen
class BanditConfig:
    n_rounds: int = attrs.field(default=50, validator=attrs.validators.ge(1))
    stop_early: bool = False


class BanditTask(Task):
    """Arms pay 0 or 1. Item k's chances and coins come from streams of its own: no item changes another."""

    batched = True
    offers = frozenset({"n_arms"})

    def __init__(self, config=BanditConfig()):
        self.config = config

    def instances(self, ctx):
        for items in ctx.chunks():
            yield items, np.stack([ctx.stream("instance", k).random(5) for k in items])

    def start(self, instance, ctx, rng):
        items, chances = instance
        n_rounds = self.config.n_rounds
        coins = np.stack([ctx.stream("world", k).random(n_rounds) for k in items], axis=1)
        lengths = np.full(len(items), n_rounds)
        if self.config.stop_early:
            lengths = np.array([1 + k % n_rounds for k in items])
        return BanditEpisode(chances, coins, lengths)


class BanditEpisode(Episode):
    def __init__(self, chances, coins, lengths):
        self.chances, self.coins, self.lengths = chances, coins, lengths
        self.t = 0

    def reset(self):
        return Start(np.zeros(len(self.chances)), public={"n_arms": self.chances.shape[1]})

    def step(self, action):
        n = np.arange(len(self.chances))
        alive = self.t < self.lengths
        reward = np.where(alive, self.coins[self.t] < self.chances[n, action], 0.0)
        self.t += 1
        return Step(reward, reward, self.t >= self.lengths, np.zeros(len(n), bool))

    def truth(self):
        return {"chances": self.chances}


@attrs.frozen
class GreedyConfig:
    epsilon: float = attrs.field(default=0.1, validator=[attrs.validators.ge(0), attrs.validators.le(1)])
    extra_draws: int = 0


class GreedySolver(Solver):
    def __init__(self, config=GreedyConfig()):
        self.config = config

    def supports(self, task, runtime):
        return None if "n_arms" in task.offers else Refusal("no arms here")

    def solve(self, task, ctx):
        return GreedyPolicy(self.config)


class GreedyPolicy(Policy):
    def __init__(self, config):
        self.config = config

    def reset(self, start, rng):
        n_items, n_arms = len(start.observation), start.public["n_arms"]
        self.rng = rng
        self.sums, self.counts = np.zeros((n_items, n_arms)), np.zeros((n_items, n_arms))

    def act(self, observation):
        n_items, n_arms = self.sums.shape
        for _ in range(self.config.extra_draws):
            self.rng.random()
        explore = self.rng.random(n_items) < self.config.epsilon
        best = ((self.sums + 1) / (self.counts + 1)).argmax(axis=1)
        self.last = np.where(explore, self.rng.integers(0, n_arms, n_items), best)
        return self.last

    def observe(self, step):
        n = np.arange(len(self.last))
        self.sums[n, self.last] += step.reward
        self.counts[n, self.last] += 1

    def notes(self):
        return {"mean": self.sums.sum() / self.counts.sum()}


# ---------------------------------------------------------------- (c) a planner that needs the task's model


@attrs.frozen
class CoinModel:
    """P(heads) of the two coins, and the prize of naming the right one."""

    heads: tuple = (0.3, 0.7)
    prize: float = 10.0
    cost: float = 1.0


class CoinTask(Task):
    """One of two coins is tossed at a cost (action 0); actions 1 and 2 name the coin and end the episode."""

    offers = frozenset({"pomdp_model"})
    max_steps = 100

    def instances(self, ctx):
        for k in ctx.indices:
            yield int(ctx.stream("instance", k).integers(2))

    def start(self, instance, ctx, rng):
        return CoinEpisode(instance, rng)


class CoinEpisode(Episode):
    def __init__(self, coin, rng):
        self.coin, self.rng, self.model = coin, rng, CoinModel()

    def reset(self):
        return Start(0, public={"pomdp_model": self.model})

    def step(self, action):
        if action == 0:
            return Step(int(self.rng.random() < self.model.heads[self.coin]), -self.model.cost, False)
        return Step(0, self.model.prize if action - 1 == self.coin else -self.model.prize, True)

    def truth(self):
        return {"coin": self.coin}


class BeliefSolver(Solver):
    def supports(self, task, runtime):
        return None if "pomdp_model" in task.offers else Refusal("needs the task's model", "Use toys/coin.")

    def solve(self, task, ctx):
        return BeliefPolicy()


class BeliefPolicy(Policy):
    def reset(self, start, rng):
        self.model, self.belief, self.tossed = start.public["pomdp_model"], 0.5, False

    def act(self, observation):
        if self.belief > 0.95:
            return 2
        return 1 if self.belief < 0.05 else 0

    def observe(self, step):
        a, b = self.model.heads
        like_a, like_b = (a, b) if step.observation else (1 - a, 1 - b)
        self.belief = self.belief * like_b / (self.belief * like_b + (1 - self.belief) * like_a)

    def notes(self):
        return {"belief": self.belief}


# ---------------------------------------------------------------- (d) a closed-loop controller with its own tick


class CartTask(Task):
    """A point is pushed towards 0; ten ticks of 0.01 s pass between two decisions."""

    max_steps = 40

    def instances(self, ctx):
        for k in ctx.indices:
            yield ctx.stream("instance", k).normal(size=2)

    def start(self, instance, ctx, rng):
        return CartEpisode(instance.copy(), rng)


class CartEpisode(Episode):
    def __init__(self, state, rng):
        self.state, self.rng, self.path = state, rng, []

    def reset(self):
        return Start(self.state.copy(), public={"tick_seconds": 0.01, "ticks": 10})

    def step(self, action):
        for _ in range(10):
            self.state = self.state + 0.01 * np.array([self.state[1], float(action)])
            self.path.append(self.state[0])
        seen = self.state + 0.01 * self.rng.normal(size=2)
        return Step(seen, -float(self.state @ self.state), False)

    def truth(self):
        return {"path": np.array(self.path)}


class ControllerSolver(Solver):
    def supports(self, task, runtime):
        return None if isinstance(task, CartTask) else Refusal("not a cart")

    def solve(self, task, ctx):
        return ControllerPolicy()


class ControllerPolicy(Policy):
    def reset(self, start, rng):
        self.plans = 0

    def act(self, observation):
        self.plans += 1
        return float(-2 * observation[0] - 3 * observation[1])

    def notes(self):
        return {"plans": self.plans}


# ---------------------------------------------------------------- (e) an agent whose actions are code


class ToolTask(Task):
    """Two tools: `look()` gives a secret number, `answer(x)` ends the episode with reward 1 if x is it."""

    offers = frozenset({"tools"})
    max_steps = 6

    def instances(self, ctx):
        for k in ctx.indices:
            yield int(ctx.stream("instance", k).integers(1000))

    def start(self, instance, ctx, rng):
        return ToolEpisode(instance)


class ToolEpisode(Episode):
    def __init__(self, secret):
        self.secret = secret

    def reset(self):
        return Start("find the secret", public={"tools": ("look", "answer")})

    def step(self, action):
        if action["tool"] == "look":
            return Step(self.secret, 0.0, False)
        return Step(None, float(action["args"] == [self.secret]), True)


class Interpreter:
    """Runs code whose names `look` and `answer` reach the task; for trusted test code only."""

    keeps = True

    @contextlib.contextmanager
    def open(self, episode, ctx):
        yield CodeEpisode(episode, self.keeps)


class Remembering(Interpreter):
    pass


class Forgetting(Interpreter):
    keeps = False


class CodeEpisode(Episode):
    def __init__(self, episode, keeps):
        self.episode, self.keeps, self.namespace, self.seen = episode, keeps, {}, []

    def reset(self):
        start = self.episode.reset()
        return Start(start.observation, public={**start.public, "persistent": self.keeps})

    def step(self, action):
        last = {}

        def call(tool):
            def run(*args):
                last["step"] = step = self.episode.step({"tool": tool, "args": list(args)})
                last["reward"] = last.get("reward", 0.0) + step.reward
                return step.observation

            return run

        namespace = self.namespace if self.keeps else {}
        namespace.update(look=call("look"), answer=call("answer"))
        out, error = io.StringIO(), None
        try:
            with contextlib.redirect_stdout(out):
                exec(action, namespace)
        except NameError as problem:
            error = str(problem)
        self.seen.append({"ok": error is None, "error": error})
        done = "step" in last and last["step"].terminated
        return Step(json.dumps({"out": out.getvalue(), "error": error}), last.get("reward", 0.0), done)

    def truth(self):
        return {"actions": self.seen}


class CoderSolver(Solver):
    def supports(self, task, runtime):
        if isinstance(runtime, Direct):
            return Refusal("writes code, which the direct runtime does not run", "Use --runtime toys/remembering.")
        return None if "tools" in task.offers else Refusal("no tools to call")

    def solve(self, task, ctx):
        return CoderPolicy()


class CoderPolicy(Policy):
    """Writes as if variables survived; says so again when it learns that they do not."""

    def reset(self, start, rng):
        self.lines = iter(["secret = look()", "answer(secret)", "answer(look())", "answer(look())"])

    def act(self, observation):
        return next(self.lines)


# ---------------------------------------------------------------- (f) trains first, and may refuse


class TrainedSolver(Solver):
    """Estimates the best arm on average from training draws, keeps it as an artifact, always plays it."""

    def supports(self, task, runtime):
        return None if isinstance(task, BanditTask) else Refusal("was trained on bandits only", "Use toys/bandit.")

    def solve(self, task, ctx):
        rng = ctx.stream("train")

        def build(folder):
            (folder / "arm.txt").write_text(str(int(rng.integers(5))))

        folder = ctx.artifacts.get_or_build("toys/trained", {"train_seed": ctx.train_seed}, build)
        return FixedArm(int((folder / "arm.txt").read_text()))


@attrs.define
class FixedArm(Policy):
    arm: int
    n_items: int = 0

    def reset(self, start, rng):
        self.n_items = len(start.observation)

    def act(self, observation):
        return np.full(self.n_items, self.arm)
