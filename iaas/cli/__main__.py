"""``python -m iaas.cli``."""

import sys

from iaas.cli.main import main

sys.exit(main())
