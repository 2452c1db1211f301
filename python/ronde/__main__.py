"""`python -m ronde` is `ronde`."""

from .cli import main

raise SystemExit(main())
