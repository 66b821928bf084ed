"""The command that serves campaigns and predictions over HTTP."""
