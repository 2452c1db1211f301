"""What this user has tuned must not change what tests see."""

import os

os.environ["RONDE_TUNING_FILE"] = "none"
