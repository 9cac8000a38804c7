"""Settings of the cart-pole that hides its velocities."""

import attrs
from attrs import validators as v


@attrs.frozen(kw_only=True)
class CartPoleConfig:
    """What the sensors tell.

    Attributes:
        hidden: True: position and angle alone are seen, rounded to the marks below. False: all four numbers, exactly.
        position_mark: distance between two marks of the cart's ruler, m.
        angle_mark: distance between two marks of the pole's encoder, rad.
        history: readings shown at once, newest last, where velocities are hidden: a policy without memory of its own can
            take differences. A planner's filter reads the newest alone.
        max_steps: steps of an episode; each is worth 1 while the pole stands.
    """

    hidden: bool = attrs.field(default=True, metadata={"help": "hide the velocities and round what is seen"})
    position_mark: float = attrs.field(default=0.1, validator=v.gt(0), metadata={"help": "m between ruler marks"})
    angle_mark: float = attrs.field(default=0.02, validator=v.gt(0), metadata={"help": "rad between encoder marks"})
    history: int = attrs.field(default=1, validator=v.ge(1), metadata={"help": "readings shown at once"})
    max_steps: int = attrs.field(default=500, validator=v.ge(1), metadata={"help": "step limit of an episode"})


@attrs.frozen(kw_only=True)
class EndgameConfig:
    """How the exact player of Opaque Knapsack spends its budget.

    Attributes:
        share: part of the inspection budget that it uses, rounded to whole items, one at least.
        classes: `hidden`, or `told`: it reads the allowed classes, which makes it the best that anybody can do with these items.
        gap: width, in value, of the bracket at which the search stops.
        max_trials: the most trials of the search.
        max_states: the most states that an endgame may have; micro has hundreds, easy up to hundreds of thousands.
    """

    share: float = attrs.field(default=1.0, validator=[v.gt(0), v.le(1)], metadata={"help": "part of the budget that is used"})
    classes: str = attrs.field(
        default="hidden", validator=v.in_(("hidden", "told")), metadata={"help": "whether it reads the allowed classes"}
    )
    gap: float = attrs.field(default=0.5, validator=v.gt(0), metadata={"help": "value at which the bracket is narrow enough"})
    max_trials: int = attrs.field(default=300, validator=v.ge(1), metadata={"help": "most trials of the search"})
    max_states: int = attrs.field(default=200_000, validator=v.ge(1), metadata={"help": "most states of an endgame"})
