"""Charts: the data of each figure, computed from rows, and the scripts and styles that draw it in a browser.

``llm_reports.charts.assets`` holds the scripts. It has only light imports, so that a live page can serve the same
files. The other modules prepare data: every figure counts all rows. Where only some rows are drawn, the figure states
how many and which.
"""
