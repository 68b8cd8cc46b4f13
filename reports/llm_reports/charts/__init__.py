"""Charts: what a figure shows, prepared from rows, and the scripts and styles that draw it in a browser.

``llm_reports.charts.assets`` holds the scripts; it imports nothing heavy, so that a live page can serve the same files.
The modules beside it prepare data: every row counts in every figure, and where only some of them are drawn, the figure
says how many and which.
"""
