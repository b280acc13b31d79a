"""Which functions a test reaches in processes that it starts: mutmut asks its own process alone.

run.py puts this, as sitecustomize.py, where the tests' children import from.
"""

from __future__ import annotations

import os

if os.environ.get("MUTANT_UNDER_TEST") == "stats":
    import atexit
    from pathlib import Path

    from mutmut.configuration import config

    here = Path.cwd()
    os.chdir(Path(__file__).parent)  # mutmut looks for its settings in the working directory
    config()
    os.chdir(here)

    from tests.mutants.hits import tell, tell_where_it_ends

    atexit.register(tell)
    tell_where_it_ends()
