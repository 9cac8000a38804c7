"""Settings."""

import attrs


@attrs.frozen
class PPOConfig:
    """Settings of training; defaults are those that solve CartPole in about ten seconds of one core."""

    total_steps: int = attrs.field(default=40_000, validator=attrs.validators.ge(1), metadata={"help": "steps of training"})
    n_steps: int = attrs.field(default=1024, validator=attrs.validators.ge(2), metadata={"help": "steps between updates"})
    learning_rate: float = attrs.field(default=1e-3, validator=attrs.validators.gt(0))
    gamma: float = attrs.field(default=0.98, validator=[attrs.validators.gt(0), attrs.validators.le(1)])
