"""The score model: P(good outcome) for every row, predicted out of fold so that no row scores itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sfumato_ofs.data import Table
from sfumato_ofs.errors import need

FloatArray = NDArray[np.float64]


def out_of_fold_scores(table: Table, *, n_folds: int = 5, inverse_penalty: float = 1.0) -> FloatArray:
    """Return out-of-fold probabilities of a good outcome, float array [R].

    One-hot categories, standardised numbers, logistic regression with an L2 penalty (C = inverse_penalty), stratified
    shuffled folds (seed 0); encoders and scalers are fitted inside each fold.

    Raises: MissingPackage without scikit-learn (extra `data`).

    Notes: L-BFGS stops at scikit-learn's default tolerance, as our reference figures did. A fully converged fit
    moves a handful of people across a threshold: on COMPAS the oracle's reward is 0.13655 instead of 0.13669.
    """
    try:
        from sklearn.compose import ColumnTransformer
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedKFold, cross_val_predict
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OneHotEncoder, StandardScaler
    except ImportError as error:
        raise need("scikit-learn", "data", "the score model of German Credit and COMPAS") from error
    n_numbers = table.numbers.shape[1]
    inputs = np.concatenate([table.numbers.astype(object), table.categories.astype(object)], axis=1)
    columns = ColumnTransformer(
        [
            ("categories", OneHotEncoder(handle_unknown="ignore"), list(range(n_numbers, inputs.shape[1]))),
            ("numbers", StandardScaler(), list(range(n_numbers))),
        ]
    )
    model = make_pipeline(columns, LogisticRegression(C=inverse_penalty, max_iter=1000))
    folds = StratifiedKFold(n_splits=n_folds, shuffle=True, random_state=0)
    scores: FloatArray = cross_val_predict(model, inputs, table.good, cv=folds, method="predict_proba")[:, 1]
    return scores
