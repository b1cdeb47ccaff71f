"""Names of the tensors, columns and files that cross a boundary, each defined once."""

from __future__ import annotations

# Tensors of one interface graph (and, concatenated, of a batch of graphs).
X = "x"  # (num_nodes, node_dim) float32, raw units
EDGE_INDEX = "edge_index"  # (2, num_edges) int64, source row then target row
EDGE_ATTR = "edge_attr"  # (num_edges, edge_dim) float32, raw units
METADATA = "metadata"  # mapping of plain values, optional

MODULE_KINDS = ("interface", "topology", "node", "edge")  # of feature modules

# Label files.
MODEL_COLUMN = "MODEL"
MODEL_NAME_COLUMN = "model_name"  # what PSBench calls it
DOCKQ_COLUMN = "dockq"  # the quality that is learned, unless labels.column names another
TARGET_COLUMN = "target"
MEMBERS_GRAPHS = "ensemble.train_graphs"  # of a run: how many each member learned from, where they differ
LABEL_PARAMETER = "labels.column"  # of a run: the quality that it learned


def quality_name(column: str) -> str:
    """A quality's name for people: ``DockQ``, and others as their column is called."""
    return "DockQ" if column == DOCKQ_COLUMN else column


def predicted_name(column: str) -> str:
    """The column of a predicted quality: ``pred_dockq``."""
    return f"pred_{column}"


def spread_name(column: str) -> str:
    """The column of the spread of an ensemble's members: ``pred_dockq_std``."""
    return f"{predicted_name(column)}_std"


# Files beside the graphs.
GRAPH_SUFFIX = ".pt"
SIDECAR_NAME = "graph_metadata.json"
SEQUENCES_NAME = "chain_sequences.json"
NODE_IDS = "node_ids"  # of a graph's metadata: CHAIN:NUMBER of each node
SUMMARY_NAME = "graph_builder_summary.json"

# Artifacts of a run.
SCHEMA_ARTIFACT = "feature_metadata.json"
COVERAGE_ARTIFACT = "dataset_coverage.json"
CONFIG_ARTIFACT = "config/config.yaml"
ORIGINAL_CONFIG_ARTIFACT = "config/original_config.yaml"
CHECKPOINT_DIR = "checkpoints"
LAST_CHECKPOINT = "last.ckpt"  # of the last epoch that ended
MID_EPOCH_CHECKPOINT = "mid_epoch.ckpt"  # of the step at which a run was stopped, until its epoch ends
KEPT_INDEX = "kept.json"
BATCH_SUMMARY_ARTIFACT = "batch_summary.json"
TUNE_SUMMARY_ARTIFACT = "tune_summary.json"
TUNE_WINNER_ARTIFACT = "tune/winner.yaml"

# Metrics of a run, step = epoch (counted from 0, as Lightning does).
TRAIN_MSE = "train_mse"
VAL_LOSS = "val_loss"  # mean squared error over every validation graph
VAL_PEARSON = "val_pearson_corr"
VAL_SPEARMAN = "val_spearman_corr"
VAL_RANKING_LOSS = "val_ranking_loss"  # DockQ units, mean over targets
SELECTION_METRIC = "selection_metric"
LEARNING_RATE = "learning_rate"
EPOCH_SECONDS = "epoch_seconds"
BEST_VAL_LOSS = "best_val_loss"
BEST_SELECTION_METRIC = "best_selection_metric"

# Validation metrics of what costs nothing or next to nothing, for comparison: baseline_trees_val_loss, say.
BASELINE_PREFIX = "baseline_"
TREES = "trees"  # boosted trees on pooled columns
BASELINE_SLUGS = {"training mean": "constant", "number of edges": "edges", TREES: TREES}  # by names in recipes

# Metrics of an evaluation, linked to the model version and the data; step = number of the run's evaluation, from 0.
# Means over targets that are defined, in DockQ units or correlations; one that is undefined is not logged.
EVAL_PREFIX = "eval/"  # MLflow's page puts what is before the stroke above a group of charts
EARLIER_EVAL_PREFIX = "eval_"  # how evaluations by earlier versions of topotrain named them
EVAL_RANKING_LOSS = "eval/mean_ranking_loss"
EVAL_SPEARMAN = "eval/mean_spearman"
EVAL_PEARSON = "eval/mean_pearson"
EVAL_MSE = "eval/mse"  # over all decoys
HIT_RATE = "hit_rate"  # how the names of single numbers begin that are in a table, and not logged one by one
EVALUATION_DIR = "evaluation"  # artifacts of the last evaluation

TAG_FILES_DIGEST = "topotrain.files_sha256"  # of a model version: over the names and contents of its files
TAG_FILES = "topotrain.files"  # of a model version: the beginning of each file's digest, to name those that changed
NOT_KEPT = "not kept"  # rank of a version whose checkpoint its run dropped; to remove a tag takes more permission
TAG_RANKED_BY = "ranked_by"  # of a model version: the scale of its primary metric
TAG_VALIDATION_DIGEST = "validation_digest"  # of a model version: its validation decoys and their labels
VALIDATION_PARAMETER = "data.validation_digest"  # of a run: the same
TAG_LABEL_COLUMN = "label_column"  # of a model version: what it predicts, where that is not DockQ


def evaluation_name(metric: str) -> str:
    """A metric of an evaluation by its name of today; any other name as it is."""
    earlier = metric.startswith(EARLIER_EVAL_PREFIX)
    return EVAL_PREFIX + metric.removeprefix(EARLIER_EVAL_PREFIX) if earlier else metric


# Tags of a model version: how it was judged, and how it was promoted.
TAG_EVAL_DIGEST = "topotrain.eval_data_digest"  # as many characters as MLflow takes for a data set
TAG_EVAL_AT = "topotrain.eval_at"
TAG_EVAL_TARGETS = "topotrain.eval_targets"  # what a target and a label are
TAG_EVAL_RUN = "topotrain.eval_run"  # where the metrics are
TAG_EVAL_HIT_RATES = "topotrain.eval_hit_rates"  # by name, as JSON, so that a gate can ask for them
TAG_PROMOTED_ALIAS = "topotrain.promoted_alias"
TAG_PROMOTED_BY = "topotrain.promoted_by"
TAG_PROMOTED_AT = "topotrain.promoted_at"
TAG_PROMOTED_REASON = "topotrain.promoted_reason"
TAG_PROMOTED_NUMBERS = "topotrain.promoted_numbers"
TAG_PROMOTED_REPLACED = "topotrain.promoted_replaced"
TAG_ROLLED_BACK = "topotrain.rolled_back"
DATASET_DIGEST_LENGTH = 36
EPOCH_METRICS = (  # one point an epoch
    TRAIN_MSE,
    VAL_LOSS,
    VAL_PEARSON,
    VAL_SPEARMAN,
    VAL_RANKING_LOSS,
    SELECTION_METRIC,
    LEARNING_RATE,
    EPOCH_SECONDS,
)
BEST_OF = {VAL_LOSS: BEST_VAL_LOSS, SELECTION_METRIC: BEST_SELECTION_METRIC}  # primary metric: its best so far

# Tags of a run.
TAG_COMMAND = "topotrain.command"
TAG_SCHEMA_DIGEST = "topotrain.schema_digest"
TAG_RECIPE_DIGEST = "topotrain.recipe_digest"  # what decides a run's result, as far as it was asked for
TAG_RESUMED_FROM = "topotrain.resumed_from"  # id of the run that a run goes on from
TAG_RESUMED_CHECKPOINT = "topotrain.resumed_checkpoint"  # and the checkpoint of it
TAG_CONTINUED_BY = "topotrain.continued_by"  # the run that goes on from this one
TAG_PARAM_DRIFT = "topotrain.param_drift"  # settings that a resume changed
TAG_BEST_CHECKPOINT = "topotrain.best_checkpoint"
TAG_BEST_EPOCH = "topotrain.best_epoch"
TAG_TRIAL = "topotrain.trial"  # of a run on a part of its data: what cut it short; it is in no comparison
TAG_STATUS_NOTE = "topotrain.status_note"
INTERRUPTED_NOTE = "interrupted by signal"  # how the note of a run that a signal ended begins
TAG_HEARTBEAT = "topotrain.heartbeat"
TAG_LEASE = "topotrain.lease."  # and who holds it: a process that records the run, or is about to
TAG_OFFLINE_ID = "topotrain.offline_id"  # what stood for the id of a run that no server knew
TAG_GIT_COMMIT = "topotrain.git_commit"
TAG_GIT_DIRTY = "topotrain.git_dirty"
TAG_VERSION = "topotrain.version"
TAG_TRIAL_LABEL = "topotrain.trial_label"
TAG_BATCH_MANIFEST = "topotrain.batch_manifest"  # of a batch: digest of its jobs
TAG_BATCH_NAME = "topotrain.batch_name"  # of a batch: the manifest's file name without its ending
TAG_BATCH_JOB = "topotrain.batch_job"  # of a child: the name of its job
TAG_BATCH_JOB_DIGEST = "topotrain.batch_job_digest"  # of a child: what decides its result
TAG_BEST_CHILD = "topotrain.best_child"  # of a batch or a tuning: the best run of those it made
TAG_TUNE_STUDY = "topotrain.tune_study"  # of a tuning and its children: digest of what decides what is tried
TAG_TUNE_TRIAL = "topotrain.tune_trial"  # of a child: the number of its trial, from 0
TAG_TUNE_VALUES = "topotrain.tune_values"  # of a child: what was suggested, by dotted key, as JSON
TAG_TUNE_SEED = "topotrain.tune_seed"  # of a child: its seed
TAG_TUNE_FOLD = "topotrain.tune_fold"  # of a child: its fold, from 1, where there are folds
TAG_PRUNED = "topotrain.pruned"  # of a child that was stopped because its trial was worse than others: why

# Files of a model version, below artifacts/ beside the schema.
MODEL_FILES = "artifacts"
WEIGHTS_SUFFIX = ".safetensors"
WEIGHTS_ARTIFACT = f"weights{WEIGHTS_SUFFIX}"
MEMBER_ARTIFACT = "member_{number}_of_{total}" + WEIGHTS_SUFFIX  # of an ensemble
RECIPE_ARTIFACT = "recipe.json"
CARD_ARTIFACT = "README.md"
TREES_ARTIFACT = "trees.json"  # the baseline that was trained on the same graphs

TAG_MEMBERS = "topotrain.members"  # of a run that made an ensemble: the versions that it is of, sorted
TAG_NUM_MEMBERS = "members"  # of a model version: how many networks it holds, where that is more than one

# Inference.
PRED_DOCKQ = "pred_dockq"  # imported by what versions made by topotrain 0.1 bring along

DEMO = "demo"  # the word that stands for the demo data set where a path is asked for
STARTER = "starter"  # and the one for the model that comes with topotrain, where a model is asked for
