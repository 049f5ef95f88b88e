"""How the programs written in Python say what works: one line for each feature,
"feature ok|FAIL|none detail"."""

import os
import traceback


def name(of):
    """A name that no other program uses, nor another copy of this one."""
    return os.environ.get("COMPAT_NAME", "compat") + "_" + of


def feature(what, attempt):
    """Tries a feature; what attempt returns must be the same on every run."""
    try:
        print(what, "ok", attempt(), flush=True)
    except Exception as e:
        where = traceback.extract_tb(e.__traceback__)[-1]
        text = " ".join(f"{type(e).__name__}: {e} ({where.name}: {where.line})".split())
        print(what, "FAIL", text, flush=True)


def equal(seen, wanted):
    if seen != wanted:
        raise AssertionError(f"{seen!r} instead of {wanted!r}")
