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
