"""`python -m shardtool`."""

import sys

from shardtool.cli.app import main

sys.exit(main())
