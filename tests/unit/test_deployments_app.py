"""Settings of the application, and how its deployments are joined."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from ray import serve
from ray.serve.schema import ServeDeploySchema

import deployments
from deployments.app import ServeConfig, build, join
from tests.serving import small_stage

LOCAL = Path(deployments.__file__).parent / "local.yaml"


def test_local_yaml_is_what_serve_and_the_application_read():
    schema = ServeDeploySchema.model_validate(yaml.safe_load(LOCAL.read_text(encoding="utf-8")))
    (application,) = schema.applications
    assert schema.http_options.host == "127.0.0.1"
    assert schema.http_options.request_timeout_s > 60
    assert schema.logging_config.encoding == "JSON"
    assert application.import_path == "deployments:app"
    assert ServeConfig.model_validate(application.args) == ServeConfig()


def test_serve_finds_a_typed_builder():
    assert deployments.app is build
    (parameter,) = inspect.signature(build).parameters.values()
    assert parameter.annotation is ServeConfig


@pytest.mark.parametrize(
    "args",
    [
        {"retrievers": {"min": 3, "max": 2}},
        {"gateways": {"min": 0}},
        {"idnex": "demo"},
        {"encoder": {"modle": "embedded"}},
        {"queue": 0},
        {"ranking": {"nil_threshold": 2}},
    ],
)
def test_a_wrong_setting_is_refused(args):
    with pytest.raises(ValidationError):
        ServeConfig.model_validate(args)


def test_the_knowledge_base_lies_beside_the_index_unless_it_is_named(tmp_path):
    for kb, expected in ((None, tmp_path / "kb"), (tmp_path / "other", tmp_path / "other")):
        app = build(ServeConfig(index=str(tmp_path / "index"), kb=kb))
        retriever = app._bound_deployment.init_args[0]
        (opened,) = retriever._bound_deployment.init_args
        assert opened.args == (tmp_path / "index", expected)


def test_replicas_are_fixed_or_follow_the_load():
    config = ServeConfig.model_validate({"retrievers": {"min": 2, "max": 5}, "queue": 7})
    gateway = join(config, small_stage())._bound_deployment
    retriever = gateway.init_args[0]._bound_deployment
    assert gateway.num_replicas == 1
    scaling = retriever._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (2, 5)
    assert retriever.max_queued_requests == 7
    # the retriever's queue must be the one that fills: its 429 is a problem, Serve's own is not
    assert gateway.max_ongoing_requests > retriever.max_queued_requests + 5 * 8
    assert gateway.max_queued_requests == gateway.max_ongoing_requests


def test_the_application_starts_twice_in_one_process():
    for name in ("one", "two"):
        serve.run(join(ServeConfig(), small_stage()), name=name, _local_testing_mode=True)


def test_the_gateway_loads_no_model_library():
    code = "import sys, deployments; print({'torch', 'faiss', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
