"""The connection of the extension to Locust. Only these modules and ``extension`` know both sides of a run."""
