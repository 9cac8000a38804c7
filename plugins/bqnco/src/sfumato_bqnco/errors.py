"""What can go wrong at the border: files, weights, solutions."""


class BqncoError(ValueError):
    """Base of the errors that this package raises about what it was given."""


class InstanceError(BqncoError):
    """An instance or solution file cannot be read, or says something impossible; names file and line."""


class InfeasibleSolution(BqncoError):
    """A solution breaks a constraint of its instance; says which, and where."""


class WeightsError(BqncoError):
    """Weights are missing, damaged, or belong to another problem."""
