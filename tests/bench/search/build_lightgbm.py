"""Build `tables/lightgbm.csv.gz`: LightGBM on scikit-learn's digits.

    nice -n 10 python tests/bench/search/build_lightgbm.py

600 of the 1797 digits are the validation rows, 600 others are trained on. Bagging of 0.8 is on everywhere, so that a
seed matters. One training of 200 rounds holds those of fewer rounds, because nothing but the number of trees tells them
apart.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import building
from building import Measured
from tables import LIGHTGBM, POINTS

_VALIDATION = 600
_TRAINING = 600


def measure(params: Mapping[str, Any], seed: int) -> Iterator[Measured]:
    import lightgbm
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.metrics import log_loss

    features, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    validation, training = order[:_VALIDATION], order[_VALIDATION : _VALIDATION + _TRAINING]
    settings = {
        "objective": "multiclass", "num_class": 10, "num_threads": 1, "seed": seed, "verbose": -1,
        "bagging_fraction": 0.8, "bagging_freq": 1,
        **{name: value for name, value in params.items() if name != "rounds"},
    }  # fmt: skip
    lengths = LIGHTGBM.grid["rounds"]
    clock: list[float] = []
    began = time.process_time()
    model = lightgbm.train(
        settings, lightgbm.Dataset(features[training], labels[training]), max(lengths),
        callbacks=[lambda _: clock.append(time.process_time() - began)],
    )  # fmt: skip
    for rounds in lengths:
        marks = [rounds * point // POINTS for point in range(1, POINTS + 1)]
        began = time.process_time()
        values = [
            log_loss(labels[validation], model.predict(features[validation], num_iteration=mark)) for mark in marks
        ]
        evaluation = (time.process_time() - began) / POINTS
        yield Measured({**params, "rounds": rounds}, values, [clock[mark - 1] for mark in marks], evaluation)


if __name__ == "__main__":
    building.one_thread()
    building.build(LIGHTGBM, measure)
