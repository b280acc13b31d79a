"""What an S3 server or the way to it answered, as the few words that an operator needs.

obstore's own texts hold URLs, headers and whole answers: nothing of them is ever shown but a
status and an error code of letters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_STATUS = re.compile(r"status code: (\d{3})|\bstatus: (\d{3})\b")
# The second is obstore's own, of one object of several that were to be deleted.
_CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,60})</Code>|\(code: ([A-Za-z0-9.]{1,60})\)")
_BUSY = ("SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "OperationAborted")
_DENIED = ("AccessDenied", "AllAccessDisabled")

RIGHTS = "give the user s3:ListBucket there, and s3:GetObject, PutObject and DeleteObject below it"
NAME_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or write ~/.aws/credentials"
)
_LATER = "run it again later"

# Who answers there gives credentials to machines and containers.
_GIVES_CREDENTIALS = ("169.254.169.254", "169.254.170.", "fd00:ec2::", "AssumeRoleWithWebIdentity")

_REFUSED = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken")
_ELSEWHERE = ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraint")

_BY_CODE = {
    "NoSuchBucket": ("no such bucket", "create it, or correct the URL or AWS_ENDPOINT_URL"),
    "InvalidBucketName": ("no name that a bucket can have", "correct the URL"),
    "RequestTimeTooSkewed": ("this machine's clock is wrong", "set it"),
    "NotImplemented": ("the server can't do what is needed", "use another server"),
    **dict.fromkeys(
        _ELSEWHERE, ("the bucket is in another region", "set AWS_REGION to the bucket's")
    ),
}

# What the texts have, what it means, what to do, and whether trying again may help.
_BY_TEXT = (
    ("without LOCATION", *_BY_CODE["PermanentRedirect"], False),
    ("BadScheme", "an http:// endpoint", "set AWS_ALLOW_HTTP=true if that is meant", False),
    (
        "ertificate",
        "no TLS connection, its certificate is not trusted",
        "check AWS_ENDPOINT_URL, or set AWS_CA_BUNDLE to the file with its CA's certificate",
        False,
    ),
    ("InvalidContentType", "something that is no TLS", "check AWS_ENDPOINT_URL", False),
    ("dns error", "no such host", "check AWS_ENDPOINT_URL and AWS_REGION", True),
    ("Connection refused", "nobody listens there", "check AWS_ENDPOINT_URL", True),
    ("TimedOut", "no answer in time", _LATER, True),
    ("kind: Timeout", "no answer in time", _LATER, True),
    ("error sending request", "the connection broke", _LATER, True),
    ("body error", "the connection broke", _LATER, True),
    ("HttpError", "the connection broke", _LATER, True),
)


@dataclass(frozen=True)
class Failure:
    """Why a request failed.

    Args:
        what: was found.
        advice: what to do.
        transient: the same request may succeed.
        missing: there is no such object (or bucket).
        exists: an object that was to be new is there.
        unsupported: the server does not know the request.
    """

    what: str
    advice: str
    transient: bool = False
    missing: bool = False
    exists: bool = False
    unsupported: bool = False


def failure_of(kind: str, text: str) -> Failure:
    """Given the name of obstore's exception and its text, say what it means.

    Example: 'GenericError', '... tcp connect error ... Connection refused ...' -> nobody
    listens there; check AWS_ENDPOINT_URL.
    """
    if any(who in text for who in _GIVES_CREDENTIALS):
        return Failure("no credentials", NAME_CREDENTIALS)
    if kind == "InvalidPathError":
        return Failure(
            "an object whose name shardtool does not write (an empty part, '..' or a control "
            "character)",
            "remove it, or use a prefix of its own",
        )
    code = next(filter(None, found.groups())) if (found := _CODE.search(text)) else ""
    status = next(filter(None, found.groups())) if (found := _STATUS.search(text)) else ""
    if kind == "AlreadyExistsError" or status == "412" or code == "PreconditionFailed":
        return Failure("an object of that name", "run it again", exists=True)
    missing = kind == "FileNotFoundError" or status == "404"
    unsupported = kind == "NotSupportedError" or status == "501"
    if code in _BY_CODE:
        return Failure(*_BY_CODE[code], missing=missing, unsupported=unsupported)
    if unsupported:
        return Failure(*_BY_CODE["NotImplemented"], unsupported=True)
    if missing:
        return Failure("no such object", "see shardtool snapshots", missing=True)
    if code in _REFUSED or kind == "UnauthenticatedError":
        return Failure(f"the credentials are refused ({code or status})", NAME_CREDENTIALS)
    if kind == "PermissionDeniedError" or status in ("401", "403") or code in _DENIED:
        return Failure(f"access denied ({code or status or 'no reason told'})", RIGHTS)
    for sign, what, advice, transient in _BY_TEXT:
        if sign in text:
            return Failure(what, advice, transient=transient)
    if status:
        transient = status[0] == "5" or status in ("408", "429")
        told = f"HTTP {status} {code}".rstrip()
        return Failure(told, _LATER if transient else "check the server", transient=transient)
    if code:
        # Inside an answer that is none of a failure: a server says so of one object of several.
        busy = code in _BUSY
        return Failure(code, _LATER if busy else "check the server", transient=busy)
    return Failure(f"a failure of obstore ({kind})", "check the AWS_* settings")
