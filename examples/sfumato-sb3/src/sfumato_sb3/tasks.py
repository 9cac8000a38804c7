"""A Gymnasium environment as a task."""

from sfumato.gym import GymConfig, GymTask


class CartPole(GymTask):
    """CartPole-v1 of Gymnasium: four reals are seen, the cart is pushed left (0) or right (1)."""

    def __init__(self) -> None:
        super().__init__(GymConfig(id="CartPole-v1"))
