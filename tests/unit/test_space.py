"""Search spaces and what is suggested within them: checked as a whole, with the line of the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from topotrain.batches.space import Space, load_space
from topotrain.batches.study import Pruning, Study, check_count
from topotrain.batches.tune_plan import METRICS, plan_tuning
from topotrain.errors import ConfigError, UserInputError

ROOT = Path(__file__).resolve().parents[2]
ALL_FORMS = """\
optimizer.learning_rate: {log: [1e-4, 1e-2]}
model:
  attention_head: {choice: [4, 8]}
  dropout: {float: [0, 0.5]}
dataloader.batch_size: {int: [8, 64], step: 8}
"""
Write = Callable[..., Space]


@pytest.fixture
def read(tmp_path: Path) -> Write:
    """A function that reads a space of this text."""

    def load(text: str, **options: Any) -> Space:
        (tmp_path / "space.yaml").write_text(text)
        return load_space(tmp_path / "space.yaml", **options)

    return load


def test_every_form_nested_and_dotted(read: Write) -> None:
    space = read(ALL_FORMS)
    assert [(one.key, one.kind, one.line) for one in space.dimensions] == [
        ("optimizer.learning_rate", "log", 1),
        ("model.attention_head", "choice", 3),
        ("model.dropout", "float", 4),
        ("dataloader.batch_size", "int", 5),
    ]
    assert space.dimensions[0].low == 1e-4, "YAML 1.1 takes 1e-4 for a text"
    config = space.config({"optimizer.learning_rate": 0.002, "dataloader.batch_size": 24})
    assert (config.optimizer.learning_rate, config.dataloader.batch_size, config.model.dropout) == (0.002, 24, 0.25)


REFUSED = [
    ("optimizer.learning_rat: {log: [1e-4, 1]}", "line 1: unknown key 'optimizer.learning_rat'", "did you mean"),
    ("model:\n  dropuot: {float: [0, 1]}", "line 2: unknown key 'model.dropuot'", "'model.dropout'?"),
    ("learning_rate: {log: [1e-4, 1]}", "line 1: unknown key", "'optimizer.learning_rate'?"),
    ("\n\nmodel.dropout: {float: [0, 1]}", "line 3: model.dropout: got 1.0", "less than 1"),
    ("optimizer.learning_rate: {float: [-1, 1]}", "line 1: optimizer.learning_rate: got -1.0", "greater than 0"),
    ("model.hidden_dim: {int: [2, 6]}", "line 1: model.hidden_dim: got 3", "multiple of 2"),
    ("dataloader.batch_size: {float: [1, 9]}", "line 1: dataloader.batch_size: got 4.0", "valid integer"),
    (
        "model.pooling_type: {choice: [mean, maen]}",
        'line 1: model.pooling_type: got "maen"',
        "'mean', 'add', 'max' or 'scaled_add'",
    ),
    ("optimizer.learning_rate: {log: [0, 1]}", "log holds [0, 1]", "two numbers above 0, the smaller first"),
    ("model.dropout: {float: [0.5, 0.1]}", "float holds [0.5, 0.1]", "the smaller first"),
    ("model.dropout: {float: [0.1, true]}", "float holds [0.1, True]", "two numbers"),
    ("model.dropout: {float: [0.1]}", "float holds [0.1]", "two numbers"),
    ("dataloader.batch_size: {int: [1.5, 8]}", "int holds [1.5, 8]", "two whole numbers"),
    ("dataloader.batch_size: {int: [8, 64], step: 9}", "64 is no whole number of steps of 9 above 8", "one that is"),
    ("dataloader.batch_size: {int: [8, 64], step: 0}", "step is 0", "a whole number above 0"),
    ("model.dropout: {float: [0, 0.5], stp: 0.1}", "unknown key 'stp' beside float", "did you mean 'step'?"),
    ("model.dropout: {log: [0.1, 0.5], step: 0.1}", "unknown key 'step' beside log", "expected log"),
    ("model.dropout: {float: [0, 1], choice: [0]}", "model.dropout holds", "{float: [LOW, HIGH]}"),
    ("model.dropout: {}", "line 1: model.dropout holds {}", "{float: [LOW, HIGH]}"),
    ("model.dropout: 0.3", "line 1: model.dropout holds 0.3", "{choice: [A, B, ...]}"),
    ("model.dropout: {choice: []}", "choice holds []", "a list of plain values"),
    ("model.dropout: {choice: [0.1, 0.1]}", "choice holds [0.1, 0.1]", "each value once"),
    ("model.dropout: {choice: [[0.1]]}", "choice holds [[0.1]]", "a list of plain values"),
    ("dataloader.seed: {int: [0, 9]}", "line 1: dataloader.seed can't be tuned", "--seeds"),
    ("selection.spearman_weight: {float: [0, 1]}", "selection.spearman_weight can't be tuned", "--metric"),
    ("paths.val_labels: {choice: [a.csv]}", "paths.val_labels can't be tuned", "other labels"),
    ("mlflow.register: {choice: [all]}", "mlflow.register can't be tuned", "nothing of the result"),
    ("model.dropout: {choice: [0]}\nmodel: {dropout: {choice: [1]}}", "lines 1 and 2: both are", "each setting once"),
    ("paths.graph: {choice: [demo, elsewhere]}", "line 1: paths: incomplete", "paths.train_labels"),
    ("model.num_layers: {int: [1, 100000]}", "the largest values: model.num_layers is 100000", "at most 1000"),
    ("optimizer: 3", "line 1: optimizer holds 3", "learning_rate, weight_decay"),
    ("", "holds no setting", "{log: [LOW, HIGH]}"),
    ("[1]", "holds a list", "keys of the configuration, each with a range"),
    ("a: [", "not YAML", "keys of the configuration"),
]


@pytest.mark.parametrize(("text", "what", "expected"), REFUSED, ids=[text for text, *_ in REFUSED])
def test_what_can_not_be_is_refused_with_the_line(read: Write, text: str, what: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert what in str(caught.value)
    assert expected in str(caught.value)
    assert str(caught.value).startswith(str(Path.cwd() / "space.yaml"))


def test_feature_sets_compete(read: Write, tmp_path: Path) -> None:
    """Their paths are relative to the space's file; what is recorded are the words of the file."""
    labels = [f"paths.{name}=l.csv" for name in ("train_labels", "val_labels")]
    space = read("paths.graph: {choice: [a, sub/b]}", overrides=[*labels, "paths.graph=a"])
    assert space.config({"paths.graph": "sub/b"}).paths.graph == str(tmp_path / "sub" / "b")
    assert space.defaults() == {"paths.graph": "a"}
    assert space.to_dict()["space"] == [["paths.graph", {"choice": ["a", "sub/b"]}]]


def test_the_recipe_is_the_first_trial_where_the_space_holds_it(read: Write) -> None:
    defaults = {
        "optimizer.learning_rate": 0.001,
        "model.attention_head": 8,
        "model.dropout": 0.25,
        "dataloader.batch_size": 32,
    }
    assert read(ALL_FORMS).defaults() == defaults
    assert Study(read(ALL_FORMS), "tpe", 1, maximise=False).suggest(0) == defaults
    for override in ("model.attention_head=2", "dataloader.batch_size=17", "optimizer.learning_rate=0.1"):
        assert read(ALL_FORMS, overrides=[override]).defaults() is None
    first = Study(read(ALL_FORMS, overrides=["model.attention_head=2"]), "tpe", 1, maximise=False).suggest(0)
    assert first["model.attention_head"] in (4, 8)


def told(study: Study, known: int) -> None:
    """Trials whose figure follows from their values alone."""
    for number in range(known):
        values = study.suggest(number)
        study.tell(number, values["model.dropout"] + values["optimizer.learning_rate"])


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_suggestion_follows_from_seed_and_what_is_known(read: Write, sampler: Any) -> None:
    """A study that is made anew from its trials goes on as if nothing had been."""
    space = read(ALL_FORMS)
    straight = Study(space, sampler, 7, maximise=False)
    told(straight, 14)
    anew = Study(space, sampler, 7, maximise=False)
    for number, trial in enumerate(straight.optuna.trials):
        anew.take(number, trial.params)
        anew.tell(number, trial.value)
    assert anew.suggest(14) == straight.suggest(14)
    assert anew.suggest(15) == straight.suggest(15), "with one under way, too"
    other = Study(space, sampler, 8, maximise=False)
    told(other, 14)
    assert other.suggest(14) != straight.optuna.trials[14].params


def test_tpe_learns(read: Write) -> None:
    study = Study(read("model.dropout: {float: [0, 0.9]}"), "tpe", 3, maximise=True)
    for number in range(40):
        study.tell(number, -abs(study.suggest(number)["model.dropout"] - 0.7))
    late = [trial.params["model.dropout"] for trial in study.optuna.trials[20:]]
    assert sum(abs(value - 0.7) < 0.1 for value in late) >= 8, "by chance there would be four"


def test_a_grid_tries_each_point_once(read: Write) -> None:
    text = "model.attention_head: {choice: [4, 8]}\ndataloader.batch_size: {int: [8, 24], step: 8}\n"
    space = read(text + "model.dropout: {float: [0, 0.2], step: 0.1}")
    study = Study(space, "grid", 5, maximise=False)
    tried = [study.suggest(number) for number in range(18)]
    assert len({tuple(values.items()) for values in tried}) == study.most == 18
    assert [type(value) for value in tried[0].values()] == [int, int, float]
    assert tried != space.grid(), "a fair part of it where not all is tried"
    with pytest.raises(ConfigError, match="19 trials of a grid of 18 points"):
        check_count(study, 19)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\nmodel.dropout: {float: [0, 0.5]}", "line 2: model.dropout has any number of values"),
        ("trainer.num_epochs: {int: [1, 400]}\ndataloader.batch_size: {int: [1, 400]}", "the grid has 160000 points"),
        ("trainer.num_epochs: {int: [1, 4000000000]}", "TOPOTRAIN_MAX_GRID_POINTS raises the limit"),
    ],
)
def test_what_is_no_grid(read: Write, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Study(read(text), "grid", 1, maximise=False)


def curve(level: float, epochs: int) -> dict[int, float]:
    return {epoch: level + 1.0 / (1 + epoch) for epoch in range(epochs)}


@pytest.mark.parametrize("maximise", [False, True])
@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_a_bad_trial_is_found_and_a_good_one_is_not(pruner: Any, maximise: bool) -> None:
    """However many epochs a look at the server brings at once, and made anew from curves that are known."""
    sign = -1.0 if maximise else 1.0
    signed = {level: {e: sign * v for e, v in curve(level, 40).items()} for level in (0.1, 0.2, 0.3, 0.05, 9.0)}
    first, anew = Pruning(pruner, 40, maximise=maximise), Pruning(pruner, 40, maximise=maximise)
    for one, known in ((first, False), (anew, True)):
        for number in range(12):
            level = (0.1, 0.2, 0.3)[number % 3]
            assert known or one.follow("seed_1", number, {}) is None
            one.follow("seed_1", number, signed[level])
            one.end("seed_1", number, signed[level][39])
    bad = [first.follow("seed_1", number, signed[9.0]) for number in range(12, 18)]
    assert bad == [anew.follow("seed_1", number, signed[9.0]) for number in range(12, 18)]
    assert bad[0] is not None
    assert 3 <= bad[0] < 39, "the first tenth decides nothing"
    assert [first.follow("seed_1", number, signed[0.05]) for number in range(18, 24)] == [None] * 6
    assert first.follow("seed_2", 12, signed[9.0]) is None, "nothing is known of another part"


def test_none_prunes_nothing() -> None:
    pruning = Pruning("none", 10, maximise=False)
    for number in range(8):
        pruning.follow("p", number, curve(0.1, 10))
        pruning.end("p", number, 0.1)
    assert pruning.follow("p", 8, curve(9.0, 10)) is None


def options(**changed: Any) -> dict[str, Any]:
    fixed = {"trials": 3, "config": None, "overrides": (), "sampler": "tpe", "pruner": "median", "metric": None}
    return {**fixed, "seeds": 1, "folds": None, "timeout": None, **changed}


def test_the_plan_and_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(ALL_FORMS)
    plan = plan_tuning(path, **options(seeds=2, overrides=["seed=7"]))
    assert (plan.metric, plan.maximise, [part.name for part in plan.parts]) == ("val_loss", False, ["seed_7", "seed_8"])
    job = plan.job(3, {"model.dropout": 0.1}, plan.parts[1])
    assert (job.name, job.config.dataloader.seed, job.config.model.dropout) == ("trial_003_seed_8", 8, 0.1)
    assert job.config.mlflow.register_ == "none", "only the winner has versions"
    assert plan.winner_job(3, {}).config.mlflow.register_ == "all"
    same = plan_tuning(path, **options(seeds=2, overrides=["seed=7"], trials=50, timeout=3.0))
    assert same.digest == plan.digest, "how much is tried decides nothing of what is tried"
    others = [{"metric": "val_spearman_corr"}, {"sampler": "random"}, {"pruner": "none"}, {"seeds": 3}, {"folds": 3}]
    digests = {plan_tuning(path, **options(**{"seeds": 2, "overrides": ["seed=7"], **one})).digest for one in others}
    assert len({*digests, plan.digest}) == 6
    moved = tmp_path / "moved" / "space.yaml"
    moved.parent.mkdir()
    moved.write_text(ALL_FORMS)
    assert plan_tuning(moved, **options(seeds=2, overrides=["seed=7"])).digest == plan.digest


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"metric": "val_los"}, "did you mean 'val_loss'?"),
        ({"overrides": ["trainer.accelerator=abacus"]}, "accelerator 'abacus'"),
        ({"overrides": ["model.dropout=2"]}, "less than 1"),
        ({"sampler": "grid"}, "has any number of values"),
        ({"folds": 40}, "can't make 40 folds"),
    ],
)
def test_a_plan_that_can_not_be(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(ALL_FORMS)
    with pytest.raises(UserInputError, match=words):
        plan_tuning(path, **options(**changed))


def test_an_accelerator_that_is_not_here_is_found_before_anything_runs(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("trainer.accelerator: {choice: [cpu, abacus]}")
    with pytest.raises(ConfigError, match="accelerator 'abacus'"):
        plan_tuning(path, **options())


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "spaces").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_space_holds_the_defaults(path: Path) -> None:
    space = load_space(path)
    assert space.defaults() is not None
    said = yaml.safe_load(path.read_text())
    assert {f"{section}.{key}" for section, keys in said.items() for key in keys} == set(space.keys)


def test_the_metrics_of_a_run_are_known() -> None:
    from topotrain.fields import EPOCH_METRICS

    assert set(METRICS) <= set(EPOCH_METRICS)
