"""Batch manifests: what wins over what, what paths are relative to, and every way to get one wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from topotrain.batches.manifest import Job, Manifest, load_manifest
from topotrain.batches.manifest_file import BuildPart, JobPart, ManifestPart, ResourcesPart
from topotrain.batches.resources import UNBOUND, Resources
from topotrain.config import TrainConfig, load_config
from topotrain.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / "manifests").glob("*.yaml"))


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """A function that writes a manifest into a folder beside the current directory, and reads it."""
    folder = tmp_path / "project" / "manifests"
    folder.mkdir(parents=True)

    def load(content: dict[str, Any] | str, *overrides: str, name: str = "m.yaml") -> Manifest:
        text = content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False)
        (folder / name).write_text(text)
        return load_manifest(folder / name, overrides)

    load.folder = folder  # type: ignore[attr-defined]
    return load


def by_name(manifest: Manifest) -> dict[str, Job]:
    return {job.name: job for job in manifest.jobs}


def test_file_then_shared_then_command_line_then_job(write):
    (write.folder / "recipe.yaml").write_text(
        "trainer: {num_epochs: 1, accumulate_grad_batches: 7}\nscheduler: {patience: 1, factor: 0.1}\n"
    )
    manifest = write(
        {
            "shared": {
                "config": "recipe.yaml",
                "overrides": {"trainer": {"num_epochs": 2}, "scheduler.patience": 2, "dataloader.batch_size": 2},
            },
            "jobs": [{"name": "a", "overrides": {"scheduler": {"patience": 4}}}, {"name": "b"}],
        },
        *("scheduler.patience=3", "dataloader.batch_size=3"),
    )
    a, b = (job.config for job in manifest.jobs)
    assert (a.trainer.num_epochs, a.trainer.accumulate_grad_batches) == (2, 7), "a mapping merges into its section"
    assert (a.scheduler.patience, a.scheduler.factor) == (4, 0.1)
    assert b.scheduler.patience == 3
    assert a.dataloader.batch_size == b.dataloader.batch_size == 3


def test_overrides_nested_dotted_as_a_list_and_by_their_old_names(write):
    manifest = write(
        {
            "jobs": [
                {"name": "nested", "overrides": {"trainer": {"num_epochs": 3}, "optimizer": {"learning_rate": 0.01}}},
                {"name": "dotted", "overrides": {"trainer.num_epochs": 3, "optimizer.learning_rate": 0.01}},
                {"name": "list", "overrides": ["trainer.num_epochs=3", "optimizer.learning_rate=0.01"]},
                {"name": "old", "overrides": {"num_epochs": 3, "learning_rate": 0.01}},
            ]
        }
    )
    assert all(job.config == manifest.jobs[0].config for job in manifest.jobs)
    assert len({job.digest for job in manifest.jobs}) == 1
    assert manifest.jobs[0].config.trainer.num_epochs == 3


def test_tags_keep_the_dots_of_their_names(write):
    tags = [
        {"name": "nested", "overrides": {"mlflow": {"tags": {"team.name": "docking"}}}},
        {"name": "dotted", "overrides": {"mlflow.tags.team.name": "docking"}},
        {"name": "half", "overrides": {"mlflow": {"tags.team.name": "docking"}}},
    ]
    for job in write({"jobs": tags}).jobs:
        assert job.config.mlflow.tags == {"team.name": "docking"}, job.name


def test_everything_a_job_may_say(write):
    (write.folder / "last.ckpt").write_bytes(b"")
    manifest = write(
        {
            "shared": {
                "notes": "of all",
                "trial_label": 7,
                "limit_val_batches": 0.5,
                "resume_from": "models:/m@champion",
            },
            "jobs": [
                {
                    "name": "a",
                    "notes": "own",
                    "run_name": "called so",
                    "fast_dev_run": True,
                    "resume_from": "last.ckpt",
                },
                {"name": "b", "limit_val_batches": None, "limit_train_batches": 2, "resume_from": None},
                {"config": None},
            ],
            "continue_on_error": True,
        }
    )
    a, b, third = manifest.jobs
    assert (a.notes, a.trial_label, a.run_name) == ("own", "7", "called so")
    assert a.limits == {"fast_dev_run": True, "limit_val_batches": 0.5}
    assert a.resume_from == str(write.folder / "last.ckpt")
    assert (b.notes, b.run_name, b.limits, b.resume_from) == ("of all", "b", {"limit_train_batches": 2}, None)
    assert (third.name, third.resume_from) == ("job_3", "models:/m@champion")
    assert third.config == TrainConfig(), "without a configuration, the defaults"
    assert manifest.continue_on_error


def test_paths_are_relative_to_the_manifest_but_those_of_the_command_line(write):
    (write.folder / "sub").mkdir()
    (write.folder / "sub" / "recipe.yaml").write_text("paths: {graph: g, train_labels: t.csv, val_labels: v.csv}\n")
    job = {"name": "a", "config": "sub/recipe.yaml", "overrides": {"paths": {"train_labels": "own.csv"}}}
    paths = write({"jobs": [job]}, "paths.val_labels=here.csv").jobs[0].config.paths
    assert paths.graph == str(write.folder / "sub" / "g")
    assert paths.train_labels == str(write.folder / "own.csv")
    assert paths.val_labels == str(Path.cwd() / "here.csv")


def test_keys_of_old_manifests(write):
    manifest = write(
        {
            "shared": {"notes": "n", "log_lr": False, "fast_dev_run": False},
            "jobs": [{"name": "a", "output_root": "training_runs", "trainer_args": []}],
            "continue_on_error": False,
        }
    )
    assert len(manifest.jobs) == 1
    assert len(manifest.notices) == 2
    assert all("accepted, without effect" in notice for notice in manifest.notices)


def test_best_of(write):
    jobs = [
        {"name": "fine", "resume_from": "best-of( first one ,b)"},
        {"name": "first one"},
        {"name": "b"},
        {"name": "last", "resume_from": "best-of(fine)"},
    ]
    manifest = by_name(write({"jobs": jobs}))
    assert manifest["fine"].best_of == ("first one", "b")
    assert manifest["last"].best_of == ("fine",)
    assert manifest["fine"].resume_from is None


def digests(manifest: Manifest) -> dict[str, str]:
    return {job.name: job.digest for job in manifest.jobs}


def test_digests_follow_what_decides_a_result_and_nothing_else(write, tmp_path):
    jobs = [
        {"name": "a", "overrides": {"paths": {"graph": "../g", "train_labels": "t.csv", "val_labels": "v.csv"}}},
        {"name": "b", "overrides": {"seed": 1}},
        {"name": "after", "resume_from": "best-of(a)"},
    ]
    base = digests(write({"jobs": jobs}))
    words = {"notes": "n", "trial_label": "t"}
    logging = ["logging.log_every_n_steps=7", "mlflow.experiment=other", "mlflow.tags.x=y"]
    assert digests(write({"shared": words, "jobs": jobs, "continue_on_error": True}, *logging)) == base
    elsewhere = tmp_path / "elsewhere" / "manifests"
    elsewhere.mkdir(parents=True)
    (elsewhere / "m.yaml").write_text((write.folder / "m.yaml").read_text())
    assert digests(load_manifest(elsewhere / "m.yaml")) == base, "the same project in another place"

    jobs[0]["overrides"]["seed"] = 5
    changed = digests(write({"jobs": jobs}))
    assert changed["b"] == base["b"]
    assert changed["a"] != base["a"]
    assert changed["after"] != base["after"], "it begins with the weights of another a"


def test_build_decides_the_graphs_and_brings_the_demo_labels(write):
    (write.folder / "pdb").mkdir()
    own = {"train_labels": "t.csv", "val_labels": "v.csv"}
    manifest = by_name(
        write(
            {
                "shared": {"build": {"structures": "demo", "set": {"interface": {"cutoff": 12}}}},
                "jobs": [
                    {"name": "a", "build": {"modules": {"edge": "edge/distance/v1"}}},
                    {"name": "b", "build": {"modules": {"edge": "edge/distance/v1"}, "set": ["edge.distance_max=9"]}},
                    {"name": "c", "build": {"structures": "pdb", "set": None}, "overrides": {"paths": own}},
                ],
            }
        )
    )
    a, b, c = (manifest[name] for name in "abc")
    assert a.build.settings == {"interface.cutoff": 12}
    assert b.build.settings == {"interface.cutoff": 12, "edge.distance_max": "9"}
    for job in (a, b, c):
        assert job.config.paths.graph == str(job.build.out)
    assert len({job.build.out for job in (a, b, c)}) == 3
    assert Path(a.config.paths.train_labels).is_file(), "the labels of the demo data set"
    assert Path(a.config.paths.val_labels).is_file()
    assert c.build.structures == str(write.folder / "pdb")
    assert c.config.paths.val_labels == str(write.folder / "v.csv")
    assert "--edge-module edge/distance/v1 --set interface.cutoff=12 --set edge.distance_max=9" in " ".join(
        b.build.arguments(2)
    )


def test_resources_of_shared_and_job_are_merged_and_decide_no_result(write):
    shared = {"shared": {"resources": {"cpus": 2, "memory": "1.5 GB"}}}
    a, b = write({**shared, "jobs": [{"name": "a", "resources": {"gpus": 1, "cpus": 4}}, {"name": "b"}]}).jobs
    assert a.resources == Resources(4, 1, 1_500_000_000)
    assert b.resources == Resources(2, None, 1_500_000_000)
    assert a.to_dict()["resources"] == {"cpus": 4, "gpus": 1, "memory": 1_500_000_000}
    (alone,) = write({"jobs": [{"name": "a"}]}).jobs
    assert (alone.resources, alone.digest) == (UNBOUND, a.digest)


def test_a_job_of_several_processes_takes_a_core_for_each_unless_it_says_otherwise(write):
    pair = {"overrides": {"trainer.devices": 2}}
    jobs = [{"name": "a", **pair}, {"name": "b", **pair, "resources": {"cpus": 1}}]
    jobs += [{"name": "c", **pair, "resources": {"memory": "1GB"}}, {"name": "d"}]
    taken = [job.takes for job in write({"jobs": jobs}).jobs]
    assert taken == [Resources(2), Resources(1), Resources(2, None, 1_000_000_000), UNBOUND]


JOB = {"name": "a"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["jobs"]),
        ("- 1\n", ["list", "jobs"]),
        ("jobs: [\n", ["not YAML", "line"]),
        ("jobs: []\n", ["jobs"]),
        ("jobs: {a: 1}\n", ["jobs"]),
        ("jobs: [a]\n", ["jobs"]),
        ({"job": [JOB]}, ["unknown key 'job'", "did you mean 'jobs'?"]),
        ({"jobs": [{**JOB, "overide": {}}]}, ["job 1 ('a')", "'overide'", "did you mean 'overrides'?"]),
        ({"jobs": [JOB], "shared": {"configs": "x"}}, ["shared", "did you mean 'config'?"]),
        ({"jobs": [JOB], "shared": {"name": "x"}}, ["shared", "unknown key 'name'"]),
        ({"jobs": [JOB], "continue_on_error": "perhaps"}, ["continue_on_error", "perhaps"]),
        ({"jobs": [JOB, {"name": "b"}, JOB]}, ["2 jobs are called 'a'"]),
        ({"jobs": [{"name": "a(b)"}]}, ["name", "a(b)"]),
        ({"jobs": [{"name": "a/b"}]}, ["name", "a/b"]),
        ({"jobs": [{"name": " "}]}, ["name"]),
        ({"jobs": [{**JOB, "config": "absent.yaml"}]}, ["'a'", "absent.yaml: no such file", "relative to it"]),
        ({"jobs": [{**JOB, "overrides": {"trainer.num_epoch": 1}}]}, ["job 'a'", "'trainer.num_epochs'"]),
        ({"jobs": [{**JOB, "overrides": ["trainer.num_epochs"]}]}, ["job 'a'", "malformed"]),
        ({"jobs": [{**JOB, "overrides": {"trainer": {"num_epochs": 0}}}]}, ["job 'a'", "trainer.num_epochs"]),
        ({"jobs": [{**JOB, "overrides": 3}]}, ["job 1 ('a')", "overrides"]),
        ({"jobs": [{**JOB, "limit_train_batches": 1.5}]}, ["limit_train_batches"]),
        ({"jobs": [{**JOB, "limit_train_batches": True}]}, ["limit_train_batches"]),
        ({"jobs": [{**JOB, "resume_from": "gone.ckpt"}]}, ["gone.ckpt: no such file", "best-of(JOB, ...)"]),
        ({"jobs": [{**JOB, "resume_from": "best-of()"}]}, ["malformed"]),
        ({"jobs": [{**JOB, "resume_from": "best-of a"}]}, ["malformed"]),
        ({"jobs": [{"name": "sweep"}, {**JOB, "resume_from": "best-of(swep)"}]}, ["no job 'swep'", "'sweep'?"]),
        ({"jobs": [{**JOB, "resume_from": "best-of(a)"}]}, ["wait for each other", "a -> a"]),
        (
            {"jobs": [{**JOB, "resume_from": "best-of(b)"}, {"name": "b", "resume_from": "best-of(a)"}]},
            ["wait for each other"],
        ),
        (
            {
                "jobs": [
                    JOB,
                    {"name": "b", "overrides": {"selection.primary_metric": "selection_metric"}},
                    {"name": "c", "resume_from": "best-of(a, b)"},
                ]
            },
            ["primary metrics selection_metric, val_loss"],
        ),
        ({"jobs": [JOB, {"name": "b", "overrides": {"mlflow.experiment": "x"}}]}, ["mlflow.experiment", "'x'"]),
        ({"jobs": [JOB, {"name": "b", "overrides": {"mlflow.tracking_uri": "x.db"}}]}, ["mlflow.tracking_uri"]),
        ({"jobs": [{**JOB, "resources": {"cpu": 1}}]}, ["job 'a'", "resources", "did you mean 'cpus'?"]),
        ({"jobs": [{**JOB, "resources": {"cpus": 0}}]}, ["job 'a'", "resources", "cpus"]),
        ({"jobs": [{**JOB, "resources": {"gpus": 0.5}}]}, ["gpus", "0.5"]),
        ({"jobs": [{**JOB, "resources": {"gpus": -1}}]}, ["gpus", "-1"]),
        ({"jobs": [{**JOB, "resources": {"memory": "plenty"}}]}, ["memory", "plenty", "500MB or 2GB"]),
        ({"jobs": [{**JOB, "resources": {"memory": "0GB"}}]}, ["memory", "0GB"]),
        ({"jobs": [{**JOB, "resources": {"memory": 2}}]}, ["memory", "500MB or 2GB"]),
        ({"jobs": [{**JOB, "resources": 2}]}, ["job 1 ('a')", "resources"]),
        ({"jobs": [{**JOB, "build": {"structure": "demo"}}]}, ["build", "did you mean 'structures'?"]),
        ({"jobs": [{**JOB, "build": {"modules": {}}}]}, ["build", "structures"]),
        ({"jobs": [{**JOB, "build": {"structures": "demo", "modules": {"edgy": "x"}}}]}, ["edgy"]),
        (
            {"jobs": [{**JOB, "build": {"structures": "demo", "modules": {"edge": "edge/nobody/v1"}}}]},
            ["edge/nobody/v1"],
        ),
        ({"jobs": [{**JOB, "build": {"structures": "demo", "set": {"edge.max": 1}}}]}, ["job 'a'", "max"]),
        ({"jobs": [{**JOB, "build": {"structures": "demo", "set": 3}}]}, ["set holds 3"]),
        ({"jobs": [{**JOB, "build": {"structures": "absent"}}]}, ["absent: no such file or folder"]),
        ({"jobs": [{**JOB, "build": {"structures": "."}}]}, ["paths.train_labels", "paths.val_labels"]),
    ],
)
def test_mistakes(write, content, words):
    with pytest.raises(ConfigError) as error:
        write(content)
    for word in [str(write.folder / "m.yaml"), *words]:
        assert word in str(error.value)
    assert error.value.expected
    assert "\n" not in str(error.value)


def test_a_manifest_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"absent.yaml: no such file; expected a YAML manifest.*--manifest"):
        load_manifest("absent.yaml")


def test_a_configuration_that_lies_beside_the_current_directory_instead(write):
    Path("recipe.yaml").write_text("{}\n")
    with pytest.raises(ConfigError, match=r"write \.\./\.\./recipe\.yaml"):
        write({"jobs": [{"name": "a", "config": "recipe.yaml"}]})


def test_credentials_stay_out_of_messages_and_records(write):
    secret = {"mlflow.tracking_uri": "http://me:secret@host"}
    manifest = write({"shared": {"overrides": secret}, "jobs": [JOB]})
    assert manifest.tracking_uri == "http://me:secret@host"
    assert "secret" not in manifest.text
    assert "secret" not in str(manifest.to_dict())
    with pytest.raises(ConfigError) as error:
        write(
            {
                "shared": {"overrides": secret},
                "jobs": [JOB, {"name": "b", "overrides": {"mlflow.tracking_uri": "x.db"}}],
            }
        )
    assert "secret" not in str(error.value)


def test_run_all():
    manifest = load_manifest(ROOT / "manifests" / "run_all.yaml")
    recipes = ("sched_boost", "sched_boost_lr035", "large_batch_sched_boost")
    assert [job.name for job in manifest.jobs] == [f"{r}_seed{s}" for r in recipes for s in (222, 777, 1337)]
    for job in manifest.jobs:
        assert job.name.startswith(Path(job.config_file).stem)
        assert job.name.endswith(f"_seed{job.config.dataloader.seed}")
        assert job.config.paths.graph == "demo"
    assert not manifest.continue_on_error


def test_the_recipes_are_what_their_names_say():
    default = load_config(ROOT / "configs" / "published.yaml").config
    boost, lower, large = (
        load_config(ROOT / "configs" / f"{name}.yaml").config
        for name in ("sched_boost", "sched_boost_lr035", "large_batch_sched_boost")
    )
    assert boost.scheduler.factor < default.scheduler.factor
    assert boost.scheduler.patience < default.scheduler.patience
    assert boost.early_stopping.patience > default.early_stopping.patience
    assert boost.trainer.num_epochs > default.trainer.num_epochs
    assert lower.optimizer.learning_rate == pytest.approx(0.7 * boost.optimizer.learning_rate)
    assert large.dataloader.batch_size > boost.dataloader.batch_size
    same = {"optimizer", "dataloader"}
    assert lower.model_dump(exclude=same) == boost.model_dump(exclude=same) == large.model_dump(exclude=same)


def test_pipeline():
    manifest = by_name(load_manifest(ROOT / "manifests" / "pipeline.yaml"))
    phase1 = manifest["phase1"]
    assert phase1.best_of == ("sched_boost", "sched_boost_lr035", "large_batch_sched_boost")
    last = [job for job in manifest.values() if job.best_of == ("phase1",)]
    assert [job.config.dataloader.seed for job in last] == [101, 555, 888]
    assert all(job.config.optimizer.learning_rate < TrainConfig().optimizer.learning_rate for job in (phase1, *last))


def test_feature_sweep():
    manifest = load_manifest(ROOT / "manifests" / "feature_sweep.yaml")
    modules = [job.build.modules["edge"] for job in manifest.jobs]
    assert modules == ["edge/legacy_band/v11", "edge/multi_scale/v24", "edge/distance/v1", "edge/plus_topo_min/v1"]
    assert {job.build.structures for job in manifest.jobs} == {"demo"}
    assert len({job.config.paths.graph for job in manifest.jobs}) == 4
    rest = [job.config.model_dump(exclude={"paths": {"graph"}}) for job in manifest.jobs]
    assert all(one == rest[0] for one in rest), "nothing but the graphs differs"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_manifest_is_tested_and_says_something(path):
    assert path.stem in ("run_all", "pipeline", "feature_sweep", "five_seeds")
    assert load_manifest(path).notices == ()


def test_every_key_is_documented():
    page = (ROOT / "docs" / "batch.md").read_text()
    for part in (ManifestPart, JobPart, BuildPart, ResourcesPart):
        for name, info in part.model_fields.items():
            assert f"`{info.alias or name}`" in page, name


def test_the_example_of_the_documentation_is_a_manifest(write):
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "batch.md").read_text(), flags=re.DOTALL)
    shutil.copytree(ROOT / "configs", write.folder.parent / "configs")
    manifest = by_name(write(text))
    assert manifest["small"].config.dataloader.batch_size == 8
    assert manifest["large"].config.dataloader.batch_size == 32
    assert manifest["fine"].best_of == ("small", "large")


# Hardware


def job_on(**trainer: Any) -> dict[str, Any]:
    return {**JOB, "overrides": {"trainer": trainer}}


@pytest.mark.parametrize(
    ("trainer", "words"),
    [
        ({"accelerator": "abacus"}, "abacus"),
        ({"devices": 0.5}, "devices"),
        ({"devices": 4, "num_nodes": 99}, "396 processes"),
        ({"precision": "17-odd"}, "17-odd"),
    ],
)
def test_hardware_that_is_not_there_is_found_before_anything_runs(write: Any, trainer: Any, words: str) -> None:
    with pytest.raises(ConfigError, match="job 'second'") as error:
        write({"jobs": [JOB, {**job_on(**trainer), "name": "second"}]})
    assert words in str(error.value)


def test_common_hardware_needs_no_torch(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("jobs: [{name: a}, {name: b, overrides: {seed: 7}}]")
    script = (
        "import sys; from topotrain.batches.manifest import load_manifest\n"
        f"assert len(load_manifest({str(path)!r}).jobs) == 2\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_number_of_graphs_that_the_sweep_names_is_the_one_it_builds(root: Path) -> None:
    from topotrain.data.demo import demo_structures
    from topotrain.features.inputs import find_structures

    number = len(find_structures(demo_structures()))
    assert f"{number} graphs are built for each" in (root / "manifests" / "feature_sweep.yaml").read_text()


def test_a_text_of_a_list_may_hold_several_overrides(write: Any) -> None:
    manifest = write({"jobs": [{**JOB, "overrides": ["trainer.num_epochs=3 seed=5"]}]})
    config = manifest.jobs[0].config
    assert (config.trainer.num_epochs, config.dataloader.seed) == (3, 5)


# What is shown while graphs are built


def test_a_count_is_shown_while_graphs_are_built(caplog: Any, monkeypatch: Any, tmp_path: Path) -> None:
    from topotrain.batches import display
    from topotrain.batches.engine import Work
    from topotrain.batches.local_engine import JobProcess
    from topotrain.progress import counter

    monkeypatch.setattr(display, "LINE_SECONDS", 0.0)
    process = JobProcess(Work("a", ("features",)), os.environ, tmp_path)
    process.process.wait(60)
    assert process.progress is None
    monkeypatch.setenv("TOPOTRAIN_PROGRESS", str(tmp_path / "a.progress"))
    report = display.JobReport("a", 5, "val_loss", "a", status="building")
    shown = display.BatchDisplay()
    caplog.set_level("INFO", "topotrain")
    with counter("building graphs") as done:
        for number in (1, 12):
            done(number, 60, "x")
            report.graphs = process.progress
            shown.show([report])
            shown.show([report])
    report.status, report.graphs = "running", None
    shown.show([report])
    assert caplog.messages == ["a: building 1/60", "a: building 12/60", "a: running"]
    assert "graphs" not in report.to_dict()


# What a manifest ends in


def test_an_ensemble_of_all_jobs_or_of_some(write):
    jobs = [{"name": "a"}, {"name": "b"}, {"name": "c", "fast_dev_run": True}]
    assert write({"jobs": jobs}).ensemble is None
    plan = write({"jobs": jobs[:2], "ensemble": {}}).ensemble
    assert plan.to_dict() == {"name": "topoqa", "jobs": ["a", "b"]}
    manifest = write({"jobs": jobs, "ensemble": {"name": "five", "jobs": ["b", "a"]}})
    assert manifest.ensemble.to_dict() == {"name": "five", "jobs": ["b", "a"]}
    assert manifest.to_dict()["ensemble"] == manifest.ensemble.to_dict()
    assert manifest.digest == write({"jobs": jobs}).digest, "jobs that were run stay what they are"


@pytest.mark.parametrize(
    ("ensemble", "said"),
    [
        ({"job": ["a"]}, "unknown key 'job'.*did you mean 'jobs'"),
        ({"jobs": ["a", "bb"]}, "there is no job 'bb'; expected one of a, b, c, d; did you mean 'b'"),
        ({"jobs": ["a"]}, "its jobs are a; expected two or more, each once"),
        ({"jobs": ["a", "b", "a"]}, "its jobs are a, b, a; expected two or more, each once"),
        ({"jobs": ["a", "c"]}, "job 'c' registers no model"),
        ({}, "job 'c' registers no model"),
        ({"jobs": ["a", "d"]}, "its jobs register other and topoqa; expected ensemble.name"),
        ({"jobs": ["a", "b"], "name": "x/y"}, "name"),
        ([], "ensemble"),
    ],
)
def test_an_ensemble_that_can_t_be(write, ensemble, said):
    other = {"name": "d", "overrides": ["mlflow.model_name=other"]}
    jobs = [{"name": "a"}, {"name": "b"}, {"name": "c", "limit_val_batches": 1}, other]
    with pytest.raises(ConfigError, match=said):
        write({"jobs": jobs, "ensemble": ensemble})


def test_the_five_seeds_end_in_an_ensemble():
    manifest = load_manifest(ROOT / "manifests" / "five_seeds.yaml")
    assert len({job.config.dataloader.seed for job in manifest.jobs}) == len(manifest.jobs) == 5
    assert manifest.ensemble.jobs == tuple(job.name for job in manifest.jobs)
    same = {json.dumps({**job.config.to_dict(), "dataloader": None}) for job in manifest.jobs}
    assert len(same) == 1, "nothing but the seed differs"
