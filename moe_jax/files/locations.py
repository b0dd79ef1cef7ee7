"""Which paths are an object store's. Only gs:// is read and written; what looks like another is no local folder."""

import re

from moe_jax import errors

_FOREIGN = re.compile(
    "(gs|gcs|s3|s3a|s3n|az|abfs|abfss|wasb|wasbs|adl|hdfs|http|https|ftp|sftp|file|r2|oss|cos|memory):(/*)(.*)",
    re.IGNORECASE | re.DOTALL,
)
_BUCKET = re.compile(r"[a-z0-9][-a-z0-9_.]*(/|$)")


def refuse_foreign(path: str, what: str) -> None:
    """Raises UserError for a path with the scheme of an object store that is not written gs://BUCKET/….

    what: the flag or the field that gave it. etils would take `gs:bucket/x` for a folder called `gs:`."""
    if (match := _FOREIGN.match(path)) is None:
        return
    scheme, slashes, rest = match.groups()
    if scheme.lower() in ("gs", "gcs"):
        if scheme != "gs" or slashes != "//":
            raise errors.UserError(f"{what}={path}: a bucket is written gs://BUCKET/PATH: gs://{rest}")
        if not _BUCKET.match(rest):
            raise errors.UserError(
                f"{what}={path}: names no bucket, of lower-case letters, digits, dashes, underscores and dots, as in"
                " gs://my-bucket/sweep"
            )
    else:
        raise errors.UserError(
            f"{what}={path}: moe_jax reads and writes local folders and gs:// only, not {scheme}:; copy it to one"
        )
