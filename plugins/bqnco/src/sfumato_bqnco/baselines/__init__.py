"""Classical constructions, local searches and wrapped solvers that the neural method is measured against."""
