"""Credentials never leave the program: they are masked in whatever is shown or recorded."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

MASK = "***"

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}:(?://|/(?!/))")  # one slash: as a path is normalised
DATABASES = ("postgres", "mysql", "mariadb", "mssql", "oracle", "cockroachdb")
QUOTES = "'\"`"
FAR = 100  # characters in which the @ is looked for after a password with spaces
PORT = re.compile(r"\d{1,5}(?!\d)")
QUERY = re.compile(r"\?[\w.-]+=")

# Names whose values are secrets. Those of the second line need what is before them to be set off.
HIDDEN_NAMES = (
    r"(?:[\w.-]*(?:password|passwd|passphrase|pwd|sharedaccesssignature|accesskeyid|accountkey)"
    r"|(?:[\w.-]*[._-])?(?:token|secret|api_?key|access_?key(?:_?id)?|secret_?key|account_?key|signature|credentials?))"
)
VALUE = (
    r"(?:'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\""  # quoted, or up to a delimiter, less what closes a sentence
    r"|(?:(?!%3B|%26)[^\s&;#])+?(?=['\"`)\]}>,.:!]*(?:[\s&;#]|%3B|%26|$)))"
)
ASSIGNED = re.compile(rf"(?i)(?<![\w.-])({HIDDEN_NAMES}\s?(?:=|%3D)\s?)(?!\*\*\*)({VALUE})")
ASKED = re.compile(rf"(?i)([?&](?:sig|key|auth|code)=)({VALUE})")
# As YAML and JSON write them. Of the names here none is that of a column or a parameter.
WRITTEN = re.compile(
    r"(?i)(?<![\w.-])((?:(?<=['\"]))?[\w.-]*(?:password|passwd|passphrase|access_?token|api_?key|secret_?key"
    rf"|client_?secret|access_?key)['\"]?\s*:[ \t]+)(?!\*\*\*)({VALUE})"
)
# In a block the rest of the line is the value, in braces what comes before the next comma.
IN_BLOCK = re.compile(rf"(?im)(^[ \t]*(?:-[ \t]+)?(['\"]?){HIDDEN_NAMES}\2[ \t]*:[ \t]+)(\S.*)")
IN_BRACES = re.compile(
    rf"(?i)([{{,\[]\s*(['\"]?){HIDDEN_NAMES}\2[ \t]*:[ \t]+)('[^'\n]*'|\"[^\"\n]*\"|[^\s,}}\]'\"][^,}}\n]*)"
)
# What stands before an @, as a whole, so that a long text is gone through once; and where in it a name and a colon are.
BEFORE_AT = re.compile(r"(?<![^\s@'\"])[^\s@'\"]+@(?=[\w\[])")
NAME_AND_COLON = re.compile(r"(?<![\w.*-])[\w.+-]+:(?!\d{1,5}/)[^\s/@'\"]")
HEADER = re.compile(r"(?i)(authorization['\"]?\s*[:=]\s*['\"]?(?:(?:bearer|basic|token)\s+)?)([^\s'\",]+)")
BEARER = re.compile(r"(?i)\b(bearer\s+)([\w.~+/=-]{8,})")
TOKENS = re.compile(  # of GitHub, GitLab, Databricks and Amazon, and JSON web tokens
    r"\b(?:gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|dapi[0-9a-f]{32}|(?:AKIA|ASIA)[0-9A-Z]{16}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
)
OWNERS = ("MLFLOW_", "AWS_", "AZURE_", "DATABRICKS_", "GOOGLE_")
SECRET_VARIABLE = re.compile(r"(?:PASSWORD|TOKEN|SECRET|SECRET_ACCESS_KEY|ACCESS_KEY|ACCOUNT_KEY|CONNECTION_STRING)$")
SHORTEST, SHORTEST_WORD = 6, 12  # characters of a secret that is looked for wherever it stands


_known: set[str] = set()


def remember_secret(secret: str | None) -> None:
    """Mask this wherever it stands, from now on: a password out of a file or an address, which no variable holds."""
    if secret:
        _known.update((secret, quote(secret, safe=""), unquote(secret)))


def remember_uri(uri: str) -> None:
    """As ``remember_secret``, for the password in an address that this process uses, if there is one."""
    scheme = SCHEME.match(uri)
    if scheme:
        rest = uri[scheme.end() :]
        remember_secret(rest[: max(credentials_end(scheme[0], rest) - 1, 0)].partition(":")[2])


def mask_credentials(text: str) -> str:
    """Hide passwords, tokens and signatures in a text: messages of other libraries, documents, single URIs.

    Hidden are ``user:password@`` (or a token before the ``@``) of every URI, whatever the password holds; values of
    ``password=``, ``token=``, ``X-Amz-Signature=`` and the like; what follows ``Bearer``; and the secrets of the
    environment (``MLFLOW_TRACKING_TOKEN``, ``AWS_SECRET_ACCESS_KEY`` and the like), and those remembered, wherever they
    stand.
    """
    return _masked(text, _environment_secrets())


def _masked(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", MASK, text)
    text = BEFORE_AT.sub(_without_scheme, _mask_uris(text))
    for pattern in (ASSIGNED, ASKED, WRITTEN, HEADER, BEARER):
        text = pattern.sub(_hidden, text)
    return TOKENS.sub(MASK, text)


def _without_scheme(match: re.Match[str]) -> str:
    """``name:password@`` of an address that is written without its scheme, masked."""
    begins = NAME_AND_COLON.search(match[0])
    return f"{match[0][: begins.start()]}{MASK}@" if begins else match[0]


def mask_uri(uri: str) -> str:
    """As ``mask_credentials``, for a text that is one URI as a whole: its password may hold spaces too."""
    scheme = SCHEME.match(uri)
    end = credentials_end(scheme[0], uri[scheme.end() :]) if scheme else 0
    return mask_credentials(f"{scheme[0]}{MASK}@{uri[scheme.end() + end :]}" if scheme and end else uri)


def mask_settings(text: str) -> str:
    """As ``mask_credentials``, for the text of a YAML file; of ``token: value`` the value is hidden too."""
    return IN_BRACES.sub(_hidden, IN_BLOCK.sub(_hidden, mask_credentials(text)))


def mask_values(value: Any, *, names: bool = False) -> Any:
    """A copy of nested plain values with the credentials in every text hidden.

    Args:
        value: as JSON or YAML holds it.
        names: whether a text under a name such as ``token`` or ``password`` is hidden as a whole.
    """
    secrets = _environment_secrets()

    def masked(inner: Any) -> Any:
        if isinstance(inner, Mapping):
            return {key: MASK if names and _is_secret(key, one) else masked(one) for key, one in inner.items()}
        if isinstance(inner, list | tuple):
            return [masked(one) for one in inner]
        return _masked(inner, secrets) if isinstance(inner, str) else inner

    return masked(value)


def _is_secret(key: Any, value: Any) -> bool:
    return isinstance(value, str) and value != "" and re.fullmatch(f"(?i){HIDDEN_NAMES}", str(key)) is not None


def credentials_end(scheme: str, rest: str) -> int:
    """How many characters of what follows ``SCHEME://`` are credentials, their ``@`` included; 0 for none.

    A password may hold anything, ``/``, ``?`` and ``@`` too: where there is one, everything up to the last ``@``
    before the query counts. After a colon, a number is a port where the scheme is not a database's.
    """
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    query = QUERY.search(rest)
    before_query = rest[: query.start()] if query else rest
    if not scheme.endswith("://"):
        return rest.rfind("@") + 1 if may_hold_password(scheme, rest) else 0
    if "@" in authority and ":" not in authority.rpartition("@")[0]:
        return authority.rindex("@") + 1
    if "@" in authority or may_hold_password(scheme, rest):
        return (before_query.rfind("@") if "@" in before_query else rest.rfind("@")) + 1
    return 0


def may_hold_password(scheme: str, rest: str) -> bool:
    """Whether what follows ``SCHEME://`` begins with a name, a colon and what is no port."""
    begins = re.match(r"[^\s/?#@\[]*:(?=\S)", rest)
    if begins is None:
        return False
    return scheme.lower().startswith(DATABASES) or PORT.match(rest, begins.end()) is None


def _hidden(match: re.Match[str]) -> str:
    """What a pattern found, its last group hidden; quotes stay."""
    value = match[match.lastindex or 0]
    mark = value[0] if len(value) > 1 and value[0] in QUOTES and value[-1] == value[0] else ""
    return f"{match[1]}{mark}{MASK}{mark}"


def _mask_uris(text: str) -> str:
    parts, done = [], 0
    for match in SCHEME.finditer(text):
        if match.start() < done:
            continue
        rest = _uri_rest(text, match)
        end = credentials_end(match[0], rest)
        if end:
            parts += [text[done : match.end()], f"{MASK}@"]
            done = match.end() + end
    return "".join([*parts, text[done:]])


def _uri_rest(text: str, match: re.Match[str]) -> str:
    """What belongs to a URI after its scheme: up to its closing quote or a space, unless a password goes on after."""
    start = match.end()
    end = text.find("\n", start)
    further = SCHEME.search(text, start, end if end >= 0 else len(text))
    line = text[start : further.start() if further else end if end >= 0 else len(text)]
    before = text[match.start() - 1] if match.start() else ""
    if before and before in QUOTES:
        quoted = line.split(before, 1)[0]
        if "@" in quoted or not may_hold_password(match[0], quoted):
            return quoted
    token = line.split(None, 1)[0] if line and not line[0].isspace() else ""
    if "@" in token or not may_hold_password(match[0], token):
        return token
    at = re.search(r"@(?=[\w\[])", line[:FAR]) if token[-1:] not in tuple(";,)") else None
    return line[: at.end()] + line[at.end() :].split(None, 1)[0] if at else token


def _environment_secrets() -> list[str]:
    """Secrets of the environment and those remembered, the longest first, in all ways in which they may be written.

    A short one, and one that could be a word of a sentence, is none that can be looked for.
    """
    found = set(_known)
    for name, value in os.environ.items():
        if name.startswith(OWNERS) and SECRET_VARIABLE.search(name):
            found |= {value, quote(value, safe=""), unquote(value)}
    usable = [one for one in found if len(one) >= (SHORTEST_WORD if one.isalpha() else SHORTEST)]
    return sorted(usable, key=len, reverse=True)
