"""`python -m lib_pivotal`: the command line of the standalone host."""

import sys

from lib_pivotal.standalone.cli import main

sys.exit(main())
