import json
import re

import numpy as np
import pytest

from supermage.errors import DataError, DomainError, ModelFileError
from supermage.models.gbdt import GBDT, ROUNDS, SETTINGS, load_gbdt, train_gbdt

NAMES = ("M_r", "sfr", "noise")


def galaxies(rows=400, seed=1, missing=0):
    """Three features, of which the first matters most, the second less and the third not at all."""
    rng = np.random.default_rng(seed)
    features = rng.uniform(-1.0, 1.0, size=(rows, 3))
    target = 2.0 * features[:, 0] + 0.5 * features[:, 1] ** 2
    features[:missing, 1] = np.nan
    return features, target


@pytest.fixture(scope="module")
def trees() -> GBDT:
    return train_gbdt(
        *galaxies(missing=40), names=NAMES, target_name="log_mstar", test=galaxies(100, seed=2), rounds=60, source="mock numbers"
    )


def test_the_settings_are_those_of_the_papers_table_3():
    assert SETTINGS == {"objective": "regression", "num_leaves": 5, "min_data_in_leaf": 20, "max_depth": -1, "metric": ["l1", "l2"]}
    assert ROUNDS == 500


def test_trees_have_at_most_five_leaves_of_at_least_twenty_rows():
    text = train_gbdt(*galaxies(), names=NAMES, target_name="t").text
    leaves = [int(item) for item in re.findall(r"num_leaves=(\d+)", text)]
    counts = [int(item) for line in re.findall(r"leaf_count=(.*)", text) for item in line.split()]
    assert len(leaves) == 500
    assert max(leaves) == 5
    assert min(counts) >= 20


def test_trees_learn_what_a_straight_line_cannot(trees):
    features, target = galaxies(100, seed=2)
    left = target - trees.predict(features, trees.features)
    line, *_ = np.linalg.lstsq(np.column_stack([features, np.ones(100)]), target, rcond=None)
    straight = target - np.column_stack([features, np.ones(100)]) @ line
    assert left.std() < 0.8 * straight.std()


def test_a_prediction_is_the_sum_of_the_leaves_that_the_text_says(trees):
    """Walk the first trees by hand, as the text describes them: missing values go to the side that bit 2 of the decision says."""
    features, _ = galaxies(60, seed=3, missing=20)
    blocks = trees.text.split("\nTree=")[1:]
    assert len(blocks) == 60

    def numbers(block, key, kind):
        return [kind(item) for item in re.search(rf"\n{key}=(.*)", block).group(1).split()]

    expected = np.zeros(60)
    for block in blocks:
        split, threshold, decision = (
            numbers(block, "split_feature", int),
            numbers(block, "threshold", float),
            numbers(block, "decision_type", int),
        )
        left, right, leaf = numbers(block, "left_child", int), numbers(block, "right_child", int), numbers(block, "leaf_value", float)
        for row in range(60):
            node = 0
            while node >= 0:
                value = features[row, split[node]]
                goes_left = bool(decision[node] & 2) if np.isnan(value) else value <= threshold[node]
                node = left[node] if goes_left else right[node]
            expected[row] += leaf[~node]
    assert trees.predict(features, trees.features) == pytest.approx(expected, abs=1e-12)


def test_the_same_rows_and_seed_give_the_same_text_on_any_number_of_threads():
    first = train_gbdt(*galaxies(), names=NAMES, target_name="t", rounds=5)
    again = train_gbdt(*galaxies(), names=NAMES, target_name="t", rounds=5, num_threads=2)
    other = train_gbdt(*galaxies(seed=5), names=NAMES, target_name="t", rounds=5)
    assert first.text == again.text != other.text
    features, _ = galaxies(50, seed=9)
    assert np.array_equal(first.predict(features, NAMES), again.predict(features, NAMES, num_threads=2))


def test_features_in_another_order_are_put_right_by_name(trees):
    features, _ = galaxies(50, seed=4)
    shuffled = np.column_stack([features[:, 2], np.full(50, 7.0), features[:, 0], features[:, 1]])
    names = ["noise", "unknown", "M_r", "sfr"]
    assert np.array_equal(trees.predict(features, trees.features), trees.predict(shuffled, names))
    assert not np.array_equal(trees.predict(features, trees.features), trees.predict(features[:, ::-1].copy(), trees.features))


def test_missing_features_are_taken_where_training_rows_lacked_them_and_else_give_no_number(trees):
    assert trees.missing == ("sfr",)
    features, _ = galaxies(50, seed=4)
    features[:10, 1] = np.nan
    features[5:20, 0] = np.nan
    predicted, marked = trees.predict(features, trees.features), trees.unpredictable(features, trees.features)
    assert np.array_equal(marked, (np.arange(50) >= 5) & (np.arange(50) < 20))
    assert np.array_equal(np.isnan(predicted), marked)
    # what LightGBM would have said: that the missing number is zero
    zero = np.where(np.isnan(features) & (np.arange(3) == 0), 0.0, features)
    assert np.array_equal(trees._booster.predict(features), trees.predict(zero, trees.features))


def test_no_rows_give_no_predictions(trees):
    assert trees.predict(np.empty((0, 3)), trees.features).shape == (0,)


def test_loss_curves_are_the_errors_of_the_first_trees(trees):
    """Mean absolute and square error after some iterations, from predictions by the first trees alone."""
    for part, (features, target) in {"train": galaxies(missing=40), "test": galaxies(100, seed=2)}.items():
        assert set(trees.curves[part]) == {"mae", "mse"}
        for iteration in (1, 10, 60):
            left = trees._booster.predict(features, num_iteration=iteration) - target
            assert trees.curves[part]["mae"][iteration - 1] == pytest.approx(np.abs(left).mean())
            assert trees.curves[part]["mse"][iteration - 1] == pytest.approx((left**2).mean())
    assert trees.curves["train"]["mse"][-1] < 0.1 * trees.curves["train"]["mse"][0]


def test_gain_is_shared_by_what_matters(trees):
    gain = trees.gain()
    assert list(gain) == list(NAMES)
    assert sum(gain.values()) == pytest.approx(1.0)
    assert gain["M_r"] > 0.8 > gain["sfr"] > gain["noise"]
    total = {name: 0.0 for name in NAMES}
    for block in trees.text.split("\nTree=")[1:]:
        split = re.search(r"\nsplit_feature=(.*)", block).group(1).split()
        for number, value in zip(split, re.search(r"\nsplit_gain=(.*)", block).group(1).split(), strict=True):
            total[NAMES[int(number)]] += float(value)
    assert gain == pytest.approx({name: value / sum(total.values()) for name, value in total.items()}, rel=1e-4)


def test_nothing_to_split_by_has_no_gain():
    trees = train_gbdt(np.zeros((50, 3)), np.full(50, 3.0), names=NAMES, target_name="t", rounds=3)
    assert trees.gain() == dict.fromkeys(NAMES, 0.0)
    assert trees.predict(np.ones((2, 3)), trees.features) == pytest.approx([3.0, 3.0])


def test_what_was_saved_is_loaded(trees, tmp_path):
    trees.save(tmp_path / "model")
    loaded = load_gbdt(tmp_path / "model")
    assert loaded == trees
    features, _ = galaxies(50, seed=4, missing=10)
    assert np.array_equal(loaded.predict(features, trees.features), trees.predict(features, trees.features))
    assert loaded.source == "mock numbers"
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["model.json", "model.txt"]


def altered_text(folder):
    path = folder / "model.txt"
    path.write_text(path.read_text().replace("leaf_value=", "leaf_value=1", 1))


def text_of_another_version(folder):
    path, described = folder / "model.txt", folder / "model.json"
    text = path.read_text().replace("version=v4", "version=v3", 1)
    path.write_text(text)
    import hashlib

    described.write_text(json.dumps({**json.loads(described.read_text()), "sha256": hashlib.sha256(text.encode()).hexdigest()}))


def change(folder, **keys):
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (altered_text, "trees must have the hash of their description, got [0-9a-f]{12}: altered or incomplete"),
        (text_of_another_version, "LightGBM's text, version 4, got one that begins 'tree version=v3"),
        (lambda folder: change(folder, version="2"), "trees must be 'gbdt' version 1, got 'gbdt' version 2"),
        (lambda folder: change(folder, kind="nuker-mge"), "trees must be 'gbdt' version 1, got 'nuker-mge' version 1"),
        (lambda folder: change(folder, features=["sfr", "M_r", "noise"]), "the features of their description, got others"),
        (lambda folder: change(folder, features=3), "lists of features and of those that may be missing, got others"),
        (lambda folder: (folder / "model.json").write_text('{"kind": "gbdt"}'), "a complete model.json, got a damaged one"),
        (lambda folder: (folder / "model.json").write_text("[1]"), "readable model.txt and model.json, got none or a damaged one"),
        (lambda folder: (folder / "model.json").write_text("{"), "readable model.txt and model.json, got none or a damaged one"),
        (lambda folder: (folder / "model.txt").unlink(), "readable model.txt and model.json, got none or a damaged one"),
        (lambda folder: (folder / "model.txt").write_bytes(b"\xff\xfe"), "altered or incomplete"),
    ],
)
def test_files_that_are_not_what_was_saved_are_refused_in_one_line(trees, tmp_path, harm, words):
    trees.save(tmp_path)
    harm(tmp_path)
    with pytest.raises(ModelFileError, match=words) as caught:
        load_gbdt(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


FEATURES, TARGET = galaxies(60)


@pytest.mark.parametrize(
    ("features", "target", "names", "words"),
    [
        (FEATURES[:39], TARGET[:39], NAMES, "at least 40 rows, got 39"),
        (FEATURES[:0], TARGET[:0], NAMES, "at least 40 rows, got 0"),
        (FEATURES, TARGET[:-1], NAMES, r"one target for each of 60 rows, got shape \(59,\)"),
        (FEATURES, np.where(TARGET > 0, np.nan, TARGET), NAMES, "finite targets, got [0-9]+ others"),
        (FEATURES, TARGET, NAMES[:2], r"one column for each of 2 names, got shape \(60, 3\)"),
        (FEATURES, TARGET, ("a", "b", "a"), "different names, got a more than once"),
        (FEATURES, TARGET, ("a", "b", "c d"), "letters, digits and underscores, got 'c d'"),
        (np.where(FEATURES > 0.9, np.inf, FEATURES), TARGET, NAMES, "finite, or NaN where missing, got inf for [a-zM_r]+ in row [0-9]+"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(features, target, names, words):
    with pytest.raises(DataError, match=words):
        train_gbdt(features, target, names=names, target_name="t", rounds=2)


def test_a_bad_test_set_and_no_trees_are_refused():
    with pytest.raises(DataError, match=r"testing needs one target for each of 60 rows, got shape \(5,\)"):
        train_gbdt(FEATURES, TARGET, names=NAMES, target_name="t", test=(FEATURES, TARGET[:5]))
    with pytest.raises(DomainError, match="rounds must be positive, got 0"):
        train_gbdt(FEATURES, TARGET, names=NAMES, target_name="t", rounds=0)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("M_R", "sfr", "noise"), "must include M_r, got none of that name; did you mean 'M_R'?"),
        (("M_r", "sfr", "sfr"), "different names, got sfr more than once"),
        (("M_r", "sfr"), "one column for each of 2 names"),
    ],
)
def test_features_that_do_not_fit_the_trees_are_refused(trees, names, words):
    with pytest.raises(DataError, match=re.escape(words)):
        trees.predict(FEATURES, names)
