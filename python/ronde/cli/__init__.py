"""`ronde`: start a job, look at an installation, explain a schedule."""
