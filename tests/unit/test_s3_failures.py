"""What a failure of a request is taken for: what is missing, there already, or worth a try more."""

from __future__ import annotations

import pytest

from shardtool.snapshots.remote.failures import NAME_CREDENTIALS, RIGHTS, Failure, failure_of

LATER = "run it again later"
NO_SERVER = ("the server can't do what is needed", "use another server")
NO_BUCKET = ("no such bucket", "create it, or correct the URL or AWS_ENDPOINT_URL")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("AlreadyExistsError", "told"),
        ("GenericError", "status code: 412"),
        ("GenericError", "<Code>PreconditionFailed</Code>"),
        ("AlreadyExistsError", "status code: 412 <Code>PreconditionFailed</Code>"),
    ],
)
def test_an_object_that_is_there_already_is_known(kind: str, text: str) -> None:
    assert failure_of(kind, text) == Failure("an object of that name", "run it again", exists=True)


@pytest.mark.parametrize(
    ("kind", "text"),
    [("FileNotFoundError", "told"), ("GenericError", "status code: 404")],
)
def test_an_object_that_is_not_there_is_known(kind: str, text: str) -> None:
    assert failure_of(kind, text) == Failure(
        "no such object", "see shardtool snapshots", missing=True
    )
    assert failure_of(kind, f"{text} <Code>NoSuchBucket</Code>") == Failure(
        *NO_BUCKET, missing=True
    )


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("NotSupportedError", "told"),
        ("GenericError", "status code: 501"),
        ("GenericError", "status code: 501 <Code>NotImplemented</Code>"),
    ],
)
def test_a_request_that_the_server_does_not_know_is_known(kind: str, text: str) -> None:
    assert failure_of(kind, text) == Failure(*NO_SERVER, unsupported=True)


@pytest.mark.parametrize(
    ("kind", "text", "what"),
    [
        ("UnauthenticatedError", "status code: 401", "the credentials are refused (401)"),
        (
            "PermissionDeniedError",
            "status code: 403 <Code>ExpiredToken</Code>",
            "the credentials are refused (ExpiredToken)",
        ),
    ],
)
def test_credentials_that_are_refused_are_told(kind: str, text: str, what: str) -> None:
    assert failure_of(kind, text) == Failure(what, NAME_CREDENTIALS)


@pytest.mark.parametrize(
    ("kind", "text", "what"),
    [
        ("PermissionDeniedError", "told", "access denied (no reason told)"),
        ("GenericError", "status code: 401", "access denied (401)"),
        ("GenericError", "status code: 403", "access denied (403)"),
        (
            "PermissionDeniedError",
            "status code: 403 <Code>AccessDenied</Code>",
            "access denied (AccessDenied)",
        ),
        ("GenericError", "(code: AllAccessDisabled)", "access denied (AllAccessDisabled)"),
    ],
)
def test_access_that_is_denied_is_told_with_its_reason(kind: str, text: str, what: str) -> None:
    assert failure_of(kind, text) == Failure(what, RIGHTS)


@pytest.mark.parametrize("status", ["408", "429", "500", "503"])
def test_a_busy_server_is_asked_again(status: str) -> None:
    assert failure_of("GenericError", f"status code: {status}") == Failure(
        f"HTTP {status}", LATER, transient=True
    )


def test_any_other_answer_is_not_asked_for_again() -> None:
    assert failure_of("GenericError", "status code: 400 <Code>Odd</Code>") == Failure(
        "HTTP 400 Odd", "check the server"
    )


@pytest.mark.parametrize(
    ("code", "advice", "transient"),
    [("SlowDown", LATER, True), ("InternalError", LATER, True), ("Odd", "check the server", False)],
)
def test_of_several_objects_one_may_fail(code: str, advice: str, transient: bool) -> None:
    found = failure_of("GenericError", f"failed for key a: no (code: {code})")
    assert found == Failure(code, advice, transient=transient)


def test_an_object_whose_name_can_not_be_is_told() -> None:
    assert failure_of("InvalidPathError", "told") == Failure(
        "an object whose name shardtool does not write (an empty part, '..' or a control "
        "character)",
        "remove it, or use a prefix of its own",
    )
