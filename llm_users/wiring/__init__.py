"""What ties the rooms into Locust: the only modules, with ``extension``, that see both sides of a run."""
