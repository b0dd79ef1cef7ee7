"""Files that others may read while we write them: whole files, sealed JSON objects, locks; local and gs:// alike.

Paths are `etils.epath` paths; `gs://` stands for any object store, where an object appears when its upload is complete,
there are no folders, and nothing can be locked. Imports `errors` only.

    whole         a file appears whole or not at all
    folders       a local folder appears whole or not at all
    json_objects  a JSON object in a file, sealed or not
    updates       a JSON object that several writers change in turn
    locations     which paths are an object store's
    locks         one process at a time
    os_errors     TensorStore's errors as OSError
    csv_tables    rows as CSV
"""

from moe_jax.files.csv_tables import to_csv
from moe_jax.files.folders import new_folder
from moe_jax.files.json_objects import (
    DamagedFile,
    UnreadableFile,
    read_file,
    read_json,
    read_sealed,
    reseal,
    sealed,
    unsealed,
    write_json,
    write_sealed,
)
from moe_jax.files.locations import refuse_foreign
from moe_jax.files.locks import locked
from moe_jax.files.os_errors import tensorstore_errors
from moe_jax.files.updates import update_json
from moe_jax.files.whole import absolute, create, is_remote, move_folder, names_in, write_atomic, writing

__all__ = [
    "DamagedFile", "UnreadableFile", "absolute", "create", "is_remote", "locked", "move_folder", "names_in",
    "new_folder", "read_file", "read_json", "read_sealed", "refuse_foreign", "reseal", "sealed", "tensorstore_errors",
    "to_csv", "unsealed", "update_json", "write_atomic", "write_json", "write_sealed", "writing",
]  # fmt: skip
