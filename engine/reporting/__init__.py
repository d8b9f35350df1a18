"""What a run reports: console, log.txt, train.jsonl, eval.jsonl and TensorBoard.

The keys of the rows are a public format, which `log_rows` defines.
"""
