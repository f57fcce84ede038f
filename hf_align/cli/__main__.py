"""`python -m hf_align.cli` is `hf-align`."""

import sys

from hf_align.cli.main import main

sys.exit(main())
