"""The POMDP form of a level agrees with the world, and its prior with the generator."""

import numpy as np
import pytest

from sfumato.context import RunContext
from sfumato.driver import run_episode
from sfumato.runtimes import Direct
from sfumato_opaque_knapsack.config import TaskConfig
from sfumato_opaque_knapsack.evaluators import ScoreEvaluator
from sfumato_opaque_knapsack.instances import EVAL_SEED_BASE, LEVELS, generate
from sfumato_opaque_knapsack.pomdp import ALLOWED, HEAD, MODELS, KnapsackModel, call_of
from sfumato_opaque_knapsack.tasks import KnapsackEpisode, MicroTask

MICRO = LEVELS["micro"]


def true_state(model, instance):
    """The state that the instance really is in; no agent has it."""
    state = np.zeros((1, model.state_width), np.int64)
    state[0, 1:4] = instance.capacity, instance.budget, sum(1 << ord(c) - ord("A") for c in instance.allowed)
    for i, item in enumerate(instance.items):
        state[0, HEAD + i] = model.pack(item.weight, item.value, ord(item.label) - ord("A"))
    return state


@pytest.mark.parametrize("level", ["micro", "easy"])
@pytest.mark.parametrize("form", sorted(MODELS))
def test_the_model_steps_as_the_world_does(level, form):
    """Random actions from the true state: same observations, rewards and end, step by step."""
    rng = np.random.default_rng(0)
    for seed in range(25):
        instance = generate(level, EVAL_SEED_BASE + seed)
        config = TaskConfig(pomdp_model=True, pomdp_actions=form)
        episode = KnapsackEpisode(instance, LEVELS[level], config)
        model = episode.reset().public["pomdp_model"]
        state = true_state(model, instance)
        terminated = False
        for action in rng.integers(1, model.n_actions, 60):
            predicted = model.step(state, np.array([action]))
            step = episode.step(int(action))
            assert step.observation == predicted.observations[0]
            assert step.reward == predicted.rewards[0]
            assert step.terminated == predicted.terminal[0]
            state, terminated = predicted.states, step.terminated
            if terminated:
                break
        assert terminated or (episode.step(0).terminated and model.step(state, np.array([0])).terminal[0])
        assert form == "items" or episode.outcome().n_taken > 0


def test_facts_survive_packing():
    model = KnapsackModel.for_instance(generate("micro", 1), MICRO)
    weight, value, label = np.meshgrid(np.arange(2, 10), np.arange(10, 100), np.arange(5))
    for a, b in zip(model.unpack(model.pack(weight, value, label)), (weight, value, label), strict=True):
        assert (a == b).all()


def test_the_prior_holds_only_what_the_public_facts_allow():
    instance = generate("micro", 3)
    model = KnapsackModel.for_instance(instance, MICRO)
    states = model.initial(500, np.random.default_rng(1))
    assert states.shape == (500, model.state_width)
    weight, value, label = model.unpack(states[:, HEAD : HEAD + instance.n])
    assert weight.min() >= 2 and weight.max() <= 9 and value.min() >= 10 and value.max() <= 99
    present = {ord(c) - ord("A") for c in instance.classes}
    assert all(set(row) == present for row in label)
    assert all(bin(mask).count("1") == 2 for mask in states[:, ALLOWED])
    assert ((states[:, ALLOWED] >> label[:, 0]) & 1).all()


@pytest.mark.parametrize("form", sorted(MODELS))
def test_a_particle_set_follows_the_world_through_inspections_and_refusals(form):
    """After every observation all particles agree with everything seen, and none is lost."""
    rng = np.random.default_rng(2)
    instance = generate("micro", EVAL_SEED_BASE + 5)
    model = MODELS[form].for_instance(instance, MICRO)
    truth, particles = true_state(model, instance), model.initial(200, rng)
    n = instance.n
    plan = [*range(1, instance.budget + 1), *range(n + 1, n + instance.budget + 1)]
    if form == "ranked":
        plan = [1] * instance.budget + [2, 1, 4, 3, 1, 1, 2]
    for action in plan:
        observation = int(model.step(truth, np.array([action])).observations[0])
        moved = model.step(particles, np.full(len(particles), action))
        survivors = moved.states[
            np.isfinite(model.log_likelihood(observation, particles, action, moved.states))
        ]
        particles = model.reinvigorate(particles, action, observation, survivors, rng)
        truth = model.step(truth, np.array([action])).states
        assert len(particles) > 0
        columns = [HEAD + i for i in range(n) if truth[0, HEAD + n + i] & 1]
        assert (particles[:, columns] == truth[0, columns]).all()
        assert (particles[:, [1, 2, 4]] == truth[0, [1, 2, 4]]).all()


def test_no_ranked_action_is_sure_to_be_refused():
    """Whatever is said, an episode ends within one inspection and one take an item, and only unknown classes are refused."""
    rng = np.random.default_rng(4)
    for seed in range(40):
        instance = generate("easy", EVAL_SEED_BASE + seed)
        episode = KnapsackEpisode(instance, LEVELS["easy"], TaskConfig(pomdp_model=True))
        episode.reset()
        steps, over = 0, False
        while not over:
            over = episode.step(int(rng.integers(1, 5))).terminated
            steps += 1
        outcome = episode.outcome()
        assert steps == outcome.n_inspected + outcome.n_taken + outcome.n_refused + 1
        assert outcome.n_inspected == instance.budget
        assert outcome.n_refused <= len(set(instance.classes) - set(instance.allowed))


def test_an_unknown_number_is_a_bad_call_and_nothing_happens():
    instance = generate("micro", EVAL_SEED_BASE)
    for form in MODELS:
        config = TaskConfig(pomdp_model=True, pomdp_actions=form)
        episode = KnapsackEpisode(instance, MICRO, config)
        episode.reset()
        for number in (-1, 999):
            assert episode.step(number).reward == 0.0
        assert (episode.outcome().n_inspected, episode.outcome().n_refused) == (0, 0)


@pytest.mark.parametrize("form", sorted(MODELS))
def test_what_the_first_item_is_tells_a_class_that_is_allowed(form):
    instance = generate("micro", EVAL_SEED_BASE + 1)
    model = MODELS[form].for_instance(instance, MICRO)
    particles = model.initial(300, np.random.default_rng(0))
    truth = true_state(model, instance)
    shown = int(model.step(truth, np.array([1])).observations[0])
    after = model.reinvigorate(particles, 1, shown, particles[:0], np.random.default_rng(1))
    label = ord(instance.items[0].label) - ord("A")
    assert ((after[:, ALLOWED] >> label) & 1 == 1).all()
    assert len(np.unique(after[:, ALLOWED])) > 2


def test_states_given_are_left_as_they_were():
    model = KnapsackModel.for_instance(generate("micro", 1), MICRO)
    states = model.initial(10, np.random.default_rng(0))
    before = states.copy()
    model.step(states, np.arange(10))
    assert (states == before).all()


class _Numbers:
    """Inspects in order, then takes, then finishes: by numbers."""

    def reset(self, start, rng):
        model = start.public["pomdp_model"]
        takes = [1] * 40 if model.n_actions == 5 else list(range(model.n_items + 1, model.n_actions))
        inspections = [1] * model.budget if model.n_actions == 5 else list(range(1, model.budget + 1))
        self._plan = [*inspections, *takes, 0]

    def act(self, observation):
        return self._plan.pop(0)

    def observe(self, step):
        assert isinstance(step.observation, int)

    def notes(self):
        return None


@pytest.mark.parametrize("form", sorted(MODELS))
def test_numbered_actions_are_scored_like_the_calls_they_stand_for(form):
    task = MicroTask(TaskConfig(pomdp_model=True, pomdp_actions=form))
    assert "pomdp_model" in task.offers
    (instance,) = task.instances(RunContext())
    trace = run_episode(task, _Numbers(), Direct(), instance, RunContext())
    metrics = {m.name: m.value for m in ScoreEvaluator().score(instance, trace)}
    assert metrics["finished"] == 1.0
    assert metrics["score"] * instance.optimal_value == pytest.approx(sum(trace.native.rewards))
    assert call_of(0, ["a"])["tool"] == "finish"
    assert call_of(9, ["a"])["tool"] is None
