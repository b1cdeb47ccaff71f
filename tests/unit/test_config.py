"""Configuration: files, overrides, old names, and every way to get them wrong."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from topotrain.config import TrainConfig, load_config, merge, parse_override, validate
from topotrain.credentials import mask_credentials
from topotrain.errors import ConfigError
from topotrain.reading.yaml_file import parse_yaml

# What users and scripts rely on: every key with its default, as it is logged.
DOCUMENTED = {
    "paths.graph": "demo",
    "paths.train_labels": "demo",
    "paths.val_labels": "demo",
    "paths.metadata": "null",
    "paths.summary": "null",
    "paths.cache": "null",
    "labels.column": "dockq",
    "model.pooling_type": "scaled_add",
    "model.attention_head": "8",
    "model.hidden_dim": "32",
    "model.num_layers": "1",
    "model.dropout": "0.25",
    "model.contact_potential": "true",
    "model.contact_term": "true",
    "model.derived_inputs": "true",
    "model.pooled_inputs": "16",
    "model.pooled_inputs_dropout": "0.5",
    "model.embedding_dropout": "0.2",
    "model.head_dropout": "0.2",
    "model.input_scaling": "decorrelated",
    "model.input_clamp": "6.0",
    "edge_schema.use_layer_norm": "true",
    "dataloader.batch_size": "32",
    "dataloader.batches": "by_target",
    "dataloader.decoys_per_target": "8",
    "dataloader.num_workers": "0",
    "dataloader.seed": "222",
    "trainer.accelerator": "cpu",
    "trainer.devices": "1",
    "trainer.precision": "32",
    "trainer.num_epochs": "null",
    "trainer.accumulate_grad_batches": "1",
    "trainer.num_nodes": "1",
    "trainer.strategy": "auto",
    "loss.rank_weight": "0.1",
    "loss.rank_temperature": "4.0",
    "loss.rank_margin": "0.05",
    "optimizer.type": "adamw",
    "optimizer.learning_rate": "0.001",
    "optimizer.weight_decay": "0.01",
    "scheduler.type": "cosine",
    "scheduler.factor": "0.4",
    "scheduler.patience": "12",
    "scheduler.warmup_steps": "50",
    "early_stopping.patience": "25",
    "selection.primary_metric": "val_loss",
    "selection.use_val_spearman": "true",
    "selection.spearman_weight": "1.0",
    "selection.spearman_min_delta": "0.0",
    "checkpoints.keep": "3",
    "coverage.minimum_percent": "0.0",
    "coverage.fail_on_missing": "true",
    "logging.progress_bar_refresh_rate": "1",
    "logging.log_every_n_steps": "100",
    "mlflow.tracking_uri": "null",
    "mlflow.experiment": "dynamic_topoqa",
    "mlflow.run_name": "null",
    "mlflow.tags": "{}",
    "mlflow.model_name": "topoqa",
    "mlflow.register": "all",
    "mlflow.connect_timeout": "30.0",
    "mlflow.flush_timeout": "30.0",
}


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(path: str | Path | None = None, overrides: tuple[str, ...] = ()) -> str:
    """The message of the one error a user sees."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 2000
    return message


# Defaults and shipped files


def test_the_keys_and_defaults_are_the_documented_ones() -> None:
    flat = load_config().config.flat()
    assert {key: value for key, value in DOCUMENTED.items() if key != "mlflow.tags"} == flat
    assert [key for key in DOCUMENTED if key != "mlflow.tags"] == list(flat)
    assert load_config().config.to_dict()["mlflow"]["tags"] == {}


def test_default_yaml_says_exactly_the_defaults(root: Path) -> None:
    written = yaml.safe_load((root / "configs" / "default.yaml").read_text())
    assert written == load_config().config.to_dict()
    assert load_config(root / "configs" / "default.yaml").config == TrainConfig()
    assert load_config(root / "configs" / "default.yaml").notices == ()


CONFIGS = Path(__file__).parents[2] / "configs"  # search spaces beside them


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.y*ml")), ids=lambda p: p.name)
def test_every_shipped_configuration_loads(path: Path) -> None:
    assert load_config(path).config.paths.graph


def test_real_configurations_of_the_older_stack_load(shared_data: Path) -> None:
    samples = sorted((shared_data / "samples").glob("*.yaml"))
    assert samples
    for path in samples:
        loaded = load_config(path)
        assert loaded.config.trainer.num_epochs == yaml.safe_load(path.read_text())["trainer"]["num_epochs"]
        assert any("without effect" in notice for notice in loaded.notices)
    config = load_config(shared_data / "samples" / "config_structured.yaml").config
    assert config.selection.use_val_spearman
    assert config.scheduler.factor == 0.2
    assert config.early_stopping.patience == 45
    assert not config.coverage.fail_on_missing
    assert config.paths.train_labels == str(shared_data / "samples" / "data.train.csv")


def test_the_resolved_configuration_reads_back_as_itself(tmp_path: Path) -> None:
    config = load_config(
        None, ["optimizer.learning_rate=1e-7", "mlflow.tags={a: '1'}", "edge_schema.module_params={a: 1}"]
    ).config
    assert load_config(write(tmp_path / "again.yaml", config.to_yaml())).config == config


def test_the_configuration_is_frozen() -> None:
    config = TrainConfig()
    with pytest.raises(ValueError, match="frozen"):
        config.model = config.model  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        config.model.dropout = 0.5  # type: ignore[misc]


# Overrides


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("optimizer.learning_rate=1e-3", "optimizer", "learning_rate", 0.001),
        ("optimizer.learning_rate=.001", "optimizer", "learning_rate", 0.001),
        ("optimizer.weight_decay=0", "optimizer", "weight_decay", 0.0),
        (" trainer.num_epochs = 3", "trainer", "num_epochs", 3),
        ("edge_schema.use_layer_norm=no", "edge_schema", "use_layer_norm", False),
        ("mlflow.run_name=a=b", "mlflow", "run_name", "a=b"),
        ("mlflow.run_name='two words'", "mlflow", "run_name", "two words"),
        ("mlflow.run_name=12", "mlflow", "run_name", "12"),
        ("mlflow.run_name=", "mlflow", "run_name", None),
        ("trainer.precision=bf16-mixed", "trainer", "precision", "bf16-mixed"),
        ("trainer.devices=auto", "trainer", "devices", "auto"),
        ("edge_schema.columns=[a, b]", "edge_schema", "columns", ("a", "b")),
        ("model={dropout: 0.5}", "model", "dropout", 0.5),
        ("seed=7", "dataloader", "seed", 7),
        ("learning_rate=0.1", "optimizer", "learning_rate", 0.1),
        ("trainer.use_val_spearman_as_secondary=false", "selection", "use_val_spearman", False),
        ("trainer.spearman_secondary_min_delta=0.1", "selection", "spearman_min_delta", 0.1),
    ],
)
def test_an_override_sets_its_key(override: str, section: str, key: str, value: object) -> None:
    found = getattr(getattr(load_config(None, [override]).config, section), key)
    assert found == value
    assert type(found) is type(value)


def test_overrides_beat_the_file_and_the_last_one_wins(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", "model: {dropout: 0.1, hidden_dim: 16}\nseed: 1\n")
    config = load_config(path, ["model.dropout=0.2", "model.dropout=0.3", "seed=5"]).config
    assert (config.model.dropout, config.model.hidden_dim, config.dataloader.seed) == (0.3, 16, 5)


def test_a_mapping_merges_into_its_section(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", "mlflow: {tags: {a: x, b: y}, run_name: r}\n")
    config = load_config(path, ["mlflow={tags: {b: z}}", "mlflow.tags.c.d=1.5", "mlflow.tags.a=x2"]).config
    assert config.mlflow.tags == {"a": "x2", "b": "z", "c.d": "1.5"}
    assert config.mlflow.run_name == "r"


def test_merge_leaves_both_sides_as_they_were() -> None:
    base, update = {"a": {"b": 1}}, {"a": {"c": 2}}
    assert merge(base, update) == {"a": {"b": 1, "c": 2}}
    assert (base, update) == ({"a": {"b": 1}}, {"a": {"c": 2}})


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.dropout", ["override 'model.dropout' is malformed", "dotted.key=value"]),
        ("=3", ["malformed"]),
        ("model..dropout=3", ["malformed"]),
        ("", ["malformed"]),
        ("model.drpout=0.1", ["override 'model.drpout=0.1'", "unknown key 'model.drpout'", "'model.dropout'"]),
        ("model.dropout.x=0.1", ["model.dropout", "got"]),
        ("modle.dropout=0.1", ["unknown key 'modle'", "did you mean 'model'?"]),
        ("lerning_rate=1", ["unknown key 'lerning_rate'", "did you mean 'optimizer.learning_rate'?"]),
        ("mlflow.register_=all", ["unknown key 'mlflow.register_'", "'mlflow.register'"]),
        ("model=5", ["model holds 5", "a section with keys pooling_type"]),
        ("model.dropout=[1", ["the value is not YAML", "line 1"]),
        ("model={dropout: 0.1, dropout: 0.2}", ["'dropout' is given twice"]),
        ("trainer.devices=0", ["trainer.devices", "got 0", "greater than 0"]),
        ("trainer.devices=true", ["trainer.devices", "got true", "not true or false"]),
        ("paths.graph=!!int ''", ["not YAML"]),
        ("paths.graph=!!bool x", ["not YAML"]),
        ("paths.graph=!!timestamp x", ["not YAML"]),
        ("paths.graph=!!python/object/apply:os.system ['touch pwned']", ["not YAML"]),
        ("dataloader.seed=" + "9" * 5000, ["not YAML"]),
        ("paths.graph=" + "[" * 3000, ["not YAML"]),
        ("model={1: 2}", ["unknown key 'model.1'"]),
        ("model={dropout: {2020-01-01: 1}}", ["model.dropout", "valid number"]),
        ("model=&a {dropout: *a}", ["not YAML"]),
        ("paths.graph=''", ["paths.graph: got ''", "the path of a file or directory"]),
        ('paths.graph="a\\0b"', ["paths.graph", "a null character"]),
    ],
)
def test_an_override_that_makes_no_sense_is_refused(override: str, words: list[str], tmp_path: Path) -> None:
    message = refused(None, (override,))
    for word in words:
        assert word in message
    assert not (tmp_path / "pwned").exists()


def test_an_overrides_value_may_hold_equal_signs_and_dots() -> None:
    assert parse_override("mlflow.tags.a.b=c=d.e") == {"mlflow": {"tags": {"a.b": "c=d.e"}}}


# Files that can't be used


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("- a\n- b\n", ["holds a list", "themed sections"]),
        ("just words\n", ["holds a str"]),
        ("1: 2\n", ["themed sections"]),
        (b"\x00\x01\x02\xff\xfe", ["can't be read"]),
        (b"\x00\x01\x02", ["can't be read", "line 1", "null characters"]),
        ("model: {dropout: 0.1\n", ["not YAML", "line"]),
        ("model:\n\tdropout: 0.1\n", ["not YAML", "line 2"]),
        ("model: {dropout: 0.1}\nmodel: {}\n", ["not YAML", "line 2", "'model' is given twice"]),
        ("model:\n  dropout: 0.1\n  dropout: 0.2\n", ["line 3", "'dropout' is given twice"]),
        ("a: 1\n---\nb: 2\n", ["not YAML"]),
        ("paths: {graph: !!python/object/apply:os.system ['touch pwned']}\n", ["not YAML"]),
        ("paths: {graph: !!int ''}\n", ["not YAML"]),
        ("paths: {graph: !!bool x}\n", ["not YAML"]),
        ("paths: {graph: !!timestamp x}\n", ["not YAML"]),
        ("a: " + "[" * 5000, ["not YAML"]),
        ("a: *nowhere\n", ["not YAML", "nowhere"]),
        ("model: &a\n  dropout: *a\n", ["not YAML"]),
        ("? [a, b]\n: 1\n", ["not YAML"]),
        ("mdoel: {}\n", ["unknown key 'mdoel'", "did you mean 'model'?"]),
        ("model: {layers: 3}\n", ["unknown key 'model.layers'", "num_layers"]),
        ("model: {1: 2}\n", ["unknown key 'model.1'"]),
        ("model: [1]\n", ["model holds [1]"]),
        ("model: {dropout: yes}\n", ["model.dropout", "got true", "a number, not true or false"]),
        ("model: {attention_head: 2.5}\n", ["model.attention_head", "got 2.5", "integer"]),
        ("model: {attention_head: x}\n", ["model.attention_head", 'got "x"', "integer"]),
        ("model: {attention_head: false}\n", ["model.attention_head", "got false"]),
        ("model: {attention_head: null}\n", ["model.attention_head", "got null", "integer"]),
        ("model: {hidden_dim: 5}\n", ["model.hidden_dim", "got 5", "multiple of 2"]),
        ("model: {dropout: 1.0}\n", ["model.dropout", "less than 1"]),
        ("model: {pooling_type: sum}\n", ["model.pooling_type", 'got "sum"', "'mean', 'add', 'max' or 'scaled_add'"]),
        ("optimizer: {learning_rate: .nan}\n", ["optimizer.learning_rate", "finite"]),
        ("optimizer: {learning_rate: .inf}\n", ["optimizer.learning_rate", "finite"]),
        ("optimizer: {learning_rate: 0}\n", ["optimizer.learning_rate", "greater than 0"]),
        ("optimizer: {learning_rate: -1e-3}\n", ["optimizer.learning_rate", "greater than 0"]),
        ("dataloader: {seed: 4294967296}\n", ["dataloader.seed", "less than 4294967296"]),
        ("dataloader: {seed: -1}\n", ["dataloader.seed", "greater than or equal to 0"]),
        ("coverage: {minimum_percent: 101}\n", ["coverage.minimum_percent", "100"]),
        ("coverage: {fail_on_missing: 3}\n", ["coverage.fail_on_missing", "boolean"]),
        ("checkpoints: {keep: 0}\n", ["checkpoints.keep", "greater than 0"]),
        ("mlflow: {register: some}\n", ["mlflow.register", "'all', 'best' or 'none'"]),
        ("mlflow: {model_name: 'a/b'}\n", ["mlflow.model_name", "pattern"]),
        ("mlflow: {experiment: ''}\n", ["mlflow.experiment", "at least 1 character"]),
        ("mlflow: {tags: 5}\n", ["mlflow.tags", "dictionary"]),
        ("mlflow: {tags: {a: {b: c}}}\n", ["mlflow.tags.a", "string"]),
        ("mlflow: {tracking_uri: [1]}\n", ["mlflow.tracking_uri", "string"]),
        ("paths: {graph: g}\n", ["paths", "paths.train_labels and paths.val_labels too"]),
        ("paths: {graph: 5, train_labels: a, val_labels: b}\n", ["paths.graph", "got 5", "string"]),
        ("paths: {graph: null, train_labels: a, val_labels: b}\n", ["paths.graph", "got null"]),
        ('paths: {graph: "a\\0b", train_labels: a, val_labels: b}\n', ["not YAML", "line 1", "a null character"]),
        ("seed: 1\ndataloader: {seed: 2}\n", ["seed is 1 and dataloader.seed is 2", "keep dataloader.seed"]),
        ("seed: 1\ndataloader: 3\n", ["dataloader holds 3"]),
        ("model: {dropout: 2, attention_head: x}\n", ["model.attention_head", "(1 more)"]),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(content: str | bytes, words: list[str], tmp_path: Path) -> None:
    path = write(tmp_path / "bad.yaml", content)
    message = refused(path)
    assert str(path) in message
    for word in words:
        assert word in message
    assert not (tmp_path / "pwned").exists()


def test_a_relative_path_is_shown_absolute(tmp_path: Path) -> None:
    assert f"{tmp_path}/no.yaml: no such file" in refused("no.yaml")
    (tmp_path / "folder").mkdir()
    assert f"{tmp_path}/folder: can't be read" in refused("folder")
    assert "can't be read" in refused("a\0b")


def test_nested_aliases_do_not_eat_the_machine(tmp_path: Path) -> None:
    lines = ["a0: &a0 {x: 1}"] + [f"a{i}: &a{i} {{p: *a{i - 1}, q: *a{i - 1}}}" for i in range(1, 60)]
    assert str(tmp_path) in refused(write(tmp_path / "bomb.yaml", "\n".join(lines)))


def test_merges_that_grow_without_end_are_refused_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 {k: 1, l: 2}"]
    lines += [f"a{i}: &a{i}\n  <<: [{', '.join([f'*a{i - 1}'] * 9)}]\n  x{i}: 1" for i in range(1, 30)]
    began = time.monotonic()
    assert "100000 values, aliases written out" in refused(write(tmp_path / "bomb.yaml", "\n".join(lines)))
    assert time.monotonic() - began < 10
    merged = "a: &a {x: 1}\nb:\n  <<: *a\n  y: 2\n"
    assert parse_yaml(merged)["b"] == {"x": 1, "y": 2}


@pytest.mark.parametrize("content", ["", "# nothing\n", "---\n", "\ufeff{}\n", "null\n"])
def test_an_empty_file_means_the_defaults(content: str, tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text(content, encoding="utf-8")
    loaded = load_config(path)
    assert loaded.config == TrainConfig()
    assert loaded.original_text == content.removeprefix("\ufeff")


def test_validate_names_where_the_values_came_from() -> None:
    with pytest.raises(ConfigError, match="job 3: model.dropout: got 7"):
        validate({"model": {"dropout": 7}}, "job 3")


# Paths


def test_paths_in_a_file_are_relative_to_the_file(tmp_path: Path) -> None:
    path = write(
        tmp_path / "deep" / "er" / "c.yaml",
        "paths: {graph: ../g, train_labels: ./t.csv, val_labels: /abs/v.csv, cache: ~/c}\nmetadata_path: m.json\n"
        "summary_path: ../../s.json\nmlflow: {tracking_uri: 'sqlite:///runs/m.db'}\n",
    )
    config = load_config(path).config
    assert config.paths.graph == str(tmp_path / "deep" / "g")
    assert config.paths.train_labels == str(tmp_path / "deep" / "er" / "t.csv")
    assert config.paths.val_labels == "/abs/v.csv"
    assert config.paths.cache == str(Path.home() / "c")
    assert config.paths.metadata == str(tmp_path / "deep" / "er" / "m.json")
    assert config.paths.summary == str(tmp_path / "s.json")
    assert config.mlflow.tracking_uri == f"sqlite:///{tmp_path}/deep/er/runs/m.db"


def test_paths_in_an_override_are_relative_to_the_current_directory(tmp_path: Path) -> None:
    path = write(tmp_path / "deep" / "c.yaml", "paths: {graph: g, train_labels: t, val_labels: v}\n")
    config = load_config(path, ["paths.graph=./g", "metadata_path=m.json", "mlflow.tracking_uri=runs"]).config
    assert config.paths.graph == str(tmp_path / "g")
    assert config.paths.metadata == str(tmp_path / "m.json")
    assert config.paths.val_labels == str(tmp_path / "deep" / "v")
    assert config.mlflow.tracking_uri == str(tmp_path / "runs")


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:5000", "sqlite:////abs/m.db", "'sqlite:///:memory:'", "databricks", "postgresql://h/db"]
)
def test_a_tracking_uri_that_names_no_relative_file_is_kept(uri: str) -> None:
    assert load_config(None, [f"mlflow.tracking_uri={uri}"]).config.mlflow.tracking_uri == uri.strip("'")


def test_the_home_of_a_user_there_is_not_is_a_name_like_any_other(tmp_path: Path) -> None:
    config = load_config(None, ["paths.cache=~nosuchuser-x/c", "mlflow.tracking_uri=~nosuchuser-x/runs"]).config
    assert config.paths.cache == str(tmp_path / "~nosuchuser-x" / "c")
    assert config.mlflow.tracking_uri == str(tmp_path / "~nosuchuser-x" / "runs")


# Old names


FLAT = """
graph_dir: g
train_label_file: t.csv
val_label_file: v.csv
metadata_path: m.json
summary_path: s.json
attention_head: 4
batch_size: 8
learning_rate: 1e-3
num_epochs: 7
lr_scheduler_factor: 0.5
lr_scheduler_patience: 3
early_stopping_patience: 9
seed: 11
use_val_spearman_as_secondary: false
save_dir: ./runs
"""


def test_a_flat_file_of_old_is_read_into_sections(tmp_path: Path) -> None:
    loaded = load_config(write(tmp_path / "flat.yaml", FLAT))
    config = loaded.config
    assert config.paths.graph == str(tmp_path / "g")
    assert config.paths.train_labels == str(tmp_path / "t.csv")
    assert config.paths.val_labels == str(tmp_path / "v.csv")
    assert config.paths.metadata == str(tmp_path / "m.json")
    assert config.paths.summary == str(tmp_path / "s.json")
    assert config.model.attention_head == 4
    assert config.dataloader.batch_size == 8
    assert config.dataloader.seed == 11
    assert config.optimizer.learning_rate == 0.001
    assert config.trainer.num_epochs == 7
    assert (config.scheduler.factor, config.scheduler.patience) == (0.5, 3)
    assert config.early_stopping.patience == 9
    assert not config.selection.use_val_spearman
    assert [notice for notice in loaded.notices if "flat configuration" in notice and str(tmp_path) in notice]
    assert [notice for notice in loaded.notices if "save_dir" in notice and "without effect" in notice]
    assert len(loaded.notices) == 2


@pytest.mark.parametrize(("percent", "told"), [("0.95", True), ("95", False), ("1.0", False), ("0", False)])
def test_a_share_written_as_a_fraction_is_pointed_out(tmp_path: Path, percent: str, told: bool) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"coverage: {{minimum_percent: {percent}}}\n")
    notices = load_config(path).notices
    assert any("0.95 means 0.95 %, not 95 %" in notice for notice in notices) is told


def test_flat_keys_beside_sections_are_unknown(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", "paths: {}\nbatch_size: 4\n")
    message = refused(path)
    assert "unknown key 'batch_size'" in message
    assert "did you mean 'dataloader.batch_size'?" in message


def test_an_unknown_key_of_a_flat_file_is_refused(tmp_path: Path) -> None:
    assert "unknown key 'btch_size'" in refused(write(tmp_path / "c.yaml", "graph_dir: g\nbtch_size: 4\n"))


@pytest.mark.parametrize(
    "content",
    [
        "save_dir: x",
        "paths: {save_dir: x}",
        "topology_schema: {vector_dim: 140}",
        "cache: {enable_graph_cache: true, graph_cache_size: 256}\nprofiling: {graph_load: false}",
        "mlflow: {enabled: true}",
        "mlflow: {log_artifacts: false}",
        "edge_schema: {source: x, alias: y, jobs: 3, summary: z}",
    ],
)
def test_what_has_no_effect_is_said(content: str, tmp_path: Path) -> None:
    loaded = load_config(write(tmp_path / "c.yaml", content))
    assert loaded.config == TrainConfig()
    (notice,) = loaded.notices
    assert notice.startswith(str(tmp_path / "c.yaml"))
    assert "without effect" in notice


def test_old_names_leave_the_parsed_mapping_alone() -> None:
    from topotrain.config.legacy import translate

    raw = {"seed": 1, "mlflow": {"enabled": True}}
    assert translate(raw, "x", []) == {"dataloader": {"seed": 1}, "mlflow": {}}
    assert raw == {"seed": 1, "mlflow": {"enabled": True}}


# Credentials


@pytest.mark.parametrize(
    "uri",
    [
        "http://user:s3cret@host:5000/x",
        "postgresql+psycopg2://user:s3cret@host/db",
        "https://s3cret@host/",
        "https://user:s3cret@s3cret@host/",
        "https://:s3cret@host/",
        "https://user:pa:s3cret@host/",
    ],
)
def test_credentials_are_masked_wherever_they_would_be_recorded(uri: str, tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", f"mlflow: {{tracking_uri: '{uri}', tags: {{origin: '{uri}'}}}}\n")
    loaded = load_config(path)
    assert loaded.config.mlflow.tracking_uri == uri  # usable ...
    assert "s3cret" not in loaded.original_text  # ... and never written down
    assert "s3cret" not in loaded.config.to_yaml()
    assert "s3cret" not in str(loaded.config.flat())
    assert "host" in loaded.config.flat()["mlflow.tracking_uri"]


def test_a_refused_override_does_not_print_credentials() -> None:
    assert "s3cret" not in refused(None, ("mlflow.tracking_ur=http://u:s3cret@host",))
    assert "s3cret" not in refused(None, ("mlflow=http://u:s3cret@host",))


def test_text_without_credentials_is_left_alone() -> None:
    text = "sqlite:////a/b.db http://host:80/a@b me@example.org models:/topoqa@candidate s3://bucket/key"
    assert mask_credentials(text) == text


# Selection


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], 0.1 - 0.5),
        (["selection.use_val_spearman=false"], 0.1),
        (["selection.spearman_weight=2"], 0.1 - 1.0),
        (["selection.spearman_min_delta=0.2"], 0.1 - 0.3),
        (["selection.spearman_min_delta=0.6"], 0.1),
    ],
)
def test_the_selection_metric_is_the_documented_formula(options: list[str], expected: float) -> None:
    selection = load_config(None, options).config.selection
    assert selection.metric(0.1, 0.5) == pytest.approx(expected, abs=1e-12)
    assert selection.primary({"val_loss": 0.1, "selection_metric": -0.4}) == 0.1


def test_the_older_stacks_default_without_a_bar_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", "logging: {progress_bar_refresh_rate: 0, log_every_n_steps: 100}")
    assert load_config(path).config.logging.progress_bar_refresh_rate == 0


# The defaults of before, as runs of then recorded them, but for paths and the like.
BEFORE = """
model: {pooling_type: add, attention_head: 8, hidden_dim: 32, num_layers: 2, dropout: 0.25, input_scaling: standard}
dataloader: {batch_size: 16, num_workers: 0, seed: 222}
trainer: {accelerator: cpu, devices: 1, precision: 32, num_epochs: 100, accumulate_grad_batches: 1}
optimizer: {learning_rate: 0.0005, weight_decay: 0.0003}
scheduler: {type: reduce_on_plateau, factor: 0.4, patience: 12}
early_stopping: {patience: 25}
"""


def test_a_recipe_that_was_complete_before_means_what_it_meant(tmp_path: Path) -> None:
    """That of published.yaml, apart from what it says itself; one with any of the newer keys is one of today."""
    loaded = load_config(write(tmp_path / "old.yaml", BEFORE), ["dataloader.seed=7"])
    published = load_config(CONFIGS / "published.yaml", ["model.pooling_type=add", "dataloader.seed=7"])
    same = {"pooled_inputs_dropout"}  # of no inputs
    assert loaded.config.model.model_dump(exclude=same) == published.config.model.model_dump(exclude=same)
    for section in ("dataloader", "trainer", "loss", "optimizer", "early_stopping"):
        assert getattr(loaded.config, section) == getattr(published.config, section), section
    assert loaded.config.scheduler.type == "reduce_on_plateau"
    (notice,) = loaded.notices
    assert "mean what they did then" in notice
    newer = load_config(
        write(tmp_path / "new.yaml", BEFORE.replace("dropout: 0.25", "dropout: 0.25, contact_term: true"))
    )
    part = load_config(write(tmp_path / "part.yaml", BEFORE.replace("early_stopping: {patience: 25}", "")))
    for config in (newer.config, part.config):
        assert config.loss.rank_weight == 0.1
    flat = "graph_dir: g\ntrain_label_file: t.csv\nval_label_file: v.csv\npooling_type: mean\nattention_head: 8\n"
    flat += "hidden_dim: 32\ndropout: 0.25\nbatch_size: 16\nnum_epochs: 200\nlearning_rate: 0.005\nweight_decay: 0.0\n"
    flat += "lr_scheduler_factor: 0.5\nlr_scheduler_patience: 10\nearly_stopping_patience: 20\n"
    assert load_config(write(tmp_path / "flat.yaml", flat)).config.model.num_layers == 2
    assert not load_config(CONFIGS / "default.yaml").notices
