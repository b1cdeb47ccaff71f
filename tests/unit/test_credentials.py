"""No password, token or signed URL is shown: a table of secrets, in every form in which they are written."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import make_url

from topotrain import credentials, messages
from topotrain.credentials import (
    mask_credentials,
    mask_settings,
    mask_uri,
    mask_values,
    remember_secret,
    remember_uri,
)
from topotrain.errors import UserInputError
from topotrain.text import as_json, one_line

PASSWORDS = [
    "s3cret",
    "pa/ss",
    "it's",
    "a:b:c",
    "p%40ss",
    "w?rd",
    "12345",
    "80/a",
    "p#w",
    'q"q',
    "ü-ber",
    "x&y=z",
    "(a)",
]
SCHEMES = ["postgresql", "postgresql+psycopg2", "mysql+pymysql", "mssql"]


# After http://user:80 a slash begins a path.
URIS = [
    (scheme, password)
    for scheme in (*SCHEMES, "http", "https")
    for password in (*PASSWORDS, "p@ss", "p@s/s@", "two words", "p@ss w@rd")
    if not (scheme.startswith("http") and password == "80/a")
]


@pytest.mark.parametrize(("scheme", "password"), URIS)
def test_a_password_of_a_uri_is_masked_whatever_it_holds(scheme: str, password: str) -> None:
    uri = f"{scheme}://user:{password}@db.example.org:1/name"
    assert mask_uri(uri) == f"{scheme}://***@db.example.org:1/name"
    if "w@rd" not in password:  # refused before any library could say it
        for around in ("{}", "store {} can't be used", "(Failed to parse: {})", "x=[{}], y", "{}: no", "not {}."):
            masked = mask_credentials(around.format(uri))
            assert masked == around.format(f"{scheme}://***@db.example.org:1/name")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("password", PASSWORDS)
def test_what_sqlalchemy_takes_for_a_password_is_masked(scheme: str, password: str) -> None:
    uri = f"{scheme}://user:{password}@host/db"
    parsed = make_url(uri).password
    assert parsed
    masked = mask_uri(uri)
    assert make_url(masked).password is None
    assert password not in masked
    assert mask_credentials(f"'{uri}'") == f"'{masked}'"


LEAKS = [
    ("postgresql://127.0.0.1:1/db?user=me&password=hunter2", "hunter2"),
    ("store 'postgresql://h/db?password=hunter2&user=me' can't be used", "hunter2"),
    ("(postgresql://h/db?password=it's).", "it's"),
    ("mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3Dhunter2%3B", "hunter2"),
    ("Server=h;Database=d;Pwd=hunter2;", "hunter2"),
    ("host=h password='two words' dbname=d", "two words"),
    ("invalid dsn: host=h sslpassword=hunter2", "hunter2"),
    (
        "https://b.s3.amazonaws.com/k?X-Amz-Credential=me%2F2020&X-Amz-Signature=deadbeef01&X-Amz-Expires=1",
        "deadbeef01",
    ),
    ("https://b.s3.amazonaws.com/k?X-Amz-Security-Token=hunter2%2F%3D%3D", "hunter2"),
    ("https://b.s3.amazonaws.com/k?AWSAccessKeyId=me&Signature=hunter2%3D&Expires=1", "hunter2"),
    ("https://storage.googleapis.com/b/k?X-Goog-Signature=hunter2", "hunter2"),
    ("https://a.blob.core.windows.net/c?sv=2020&sig=hunter2%3D&se=1", "hunter2"),
    ("https://host/x?token=hunter2#top", "hunter2"),
    ("DefaultEndpointsProtocol=https;AccountName=a;AccountKey=hunter2==;EndpointSuffix=x", "hunter2"),
    ("{'Authorization': 'Bearer hunter2hunter2'}", "hunter2"),
    ("Authorization: Basic dXNlcjpodW50ZXIy", "dXNlcjpodW50ZXIy"),
    ("header bearer abcdef.hunter2", "hunter2"),
    ("aws_secret_access_key=hunter2", "hunter2"),
    ('{"password": "hunter2", "user": "me"}', "hunter2"),
    ("override 'mlflow.tags.api_token=hunter2' is malformed", "hunter2"),
    ("remote https://ghp_0123456789abcdefghijABCDEFGHIJ012345@github.com/a/b", "ghp_"),
    ("user:hunter2@localhost:5000", "hunter2"),
    ("ftp://me:hunter2@host/path and redis://:hunter2@host", "hunter2"),
]


@pytest.mark.parametrize(("text", "secret"), LEAKS)
def test_a_secret_is_masked_wherever_messages_and_documents_are_made(text: str, secret: str) -> None:
    assert secret in text
    error = UserInputError(text, text, text)
    shown = [mask_credentials(text), one_line(ValueError(text)), str(error), error.what, as_json({"a": [text]})]
    for line in shown:
        assert secret not in line
        assert "***" in line
    assert mask_credentials(shown[0]) == shown[0], "masked once is masked"
    assert json.loads(as_json({"a": text}))


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////a/b.db http://host:80/a@b me@example.org models:/topoqa@candidate s3://bucket/key",
        "http://localhost:5000/#/experiments/1/runs/a; write to me@example.org",
        "can't reach http://host: no route; http://[::1]:5000/a@b",
        "expected dotted.key=value; write e.g. optimizer.learning_rate=0.001 or interface.cutoff=14",
        "expected http://HOST:PORT; in a password write @ as %40",
        "12:30 runs:/abc/checkpoints/epoch_0001.ckpt val_loss<0.06 AB:AB tokens: 3",
        'https://doi.org/10.1093/bib/bbaf083 {"columns": ["a", "b"], "key": 1}',
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert mask_credentials(text) == text
    assert mask_settings(text) == text


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY"])
def test_secrets_of_the_environment_are_masked_wherever_they_stand(monkeypatch: Any, name: str) -> None:
    secret = "abc/Def+123"
    monkeypatch.setenv(name, secret)
    for written in (secret, quote(secret, safe="")):
        assert mask_credentials(f"the server said {written}.") == "the server said ***."
    monkeypatch.setenv(name, "mlflow")  # a word: what is said must stay readable
    assert mask_credentials("started by mlflow run") == "started by mlflow run"


def test_settings_are_masked_by_their_names() -> None:
    text = (
        "tags: {token: abc1, 'secret': 'x, y', note: n}\nmore:\n  password: two words\n- api_token: abc2, d # why\n"
        "trainer: {num_epochs: 3}\n"
    )
    assert mask_settings(text) == (
        "tags: {token: ***, 'secret': '***', note: n}\nmore:\n  password: ***\n- api_token: ***\n"
        "trainer: {num_epochs: 3}\n"
    )
    assert mask_values({"token": "x", "a": ["b", {"password": "y", "n": 1}]}, names=True) == {
        "token": "***",
        "a": ["b", {"password": "***", "n": 1}],
    }


def test_what_is_remembered_is_masked_wherever_it_stands(monkeypatch: Any) -> None:
    monkeypatch.setattr(credentials, "_known", set())
    remember_secret(None)
    for uri in ("http://host:5000", "http://ada@host", "sqlite:///a.db", "mlruns"):
        remember_uri(uri)
    assert not credentials._known
    remember_uri("http://ada:s3cret%2Fa@host:5000")
    remember_secret("from-a-file")
    for secret in ("s3cret%2Fa", "s3cret/a", "from-a-file"):
        assert mask_credentials(f"log in with {secret}, please") == "log in with ***, please"
    assert mask_values({"note": "ada / s3cret/a"}) == {"note": "ada / ***"}
    remember_secret("model")  # a word, and short: it would be masked in every sentence
    assert mask_credentials("a model") == "a model"


def test_a_long_text_takes_a_moment() -> None:
    """Work grows with the length, not with its square."""
    mask_credentials("QUJD" * 500_000 + "a b=c " * 50_000 + "http://host:80/a@b " * 10_000)


def test_lines_of_others_and_tracebacks_are_masked(capsys: Any, monkeypatch: Any) -> None:
    before = logging.getLogRecordFactory(), warnings.formatwarning
    try:
        messages.log_to_stderr()
        messages.log_to_stderr()  # twice is once
        other = logging.getLogger("some.library")
        handler = logging.StreamHandler()
        other.addHandler(handler)
        try:
            raise ValueError("http://u:hunter2@host")
        except ValueError:
            other.exception("at %s", "http://u:hunter3@host")
            logging.getLogger("topotrain").exception("a fault at %s", "http://u:hunter4@host")
        print(warnings.formatwarning("http://u:hunter5@host", UserWarning, "x.py", 1), file=sys.stderr)
        other.removeHandler(handler)
    finally:
        logging.setLogRecordFactory(before[0])
        warnings.formatwarning = before[1]
    shown = capsys.readouterr().err
    assert "hunter" not in shown
    assert shown.count("http://***@host") >= 5
    assert shown.count("Traceback") == 2
