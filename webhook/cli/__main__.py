"""``python -m webhook.cli`` is the program ``migration-guard``."""

from __future__ import annotations

import sys

from webhook.cli.main import main

sys.exit(main())
