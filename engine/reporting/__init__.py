"""What a run writes for people: the console, log.txt, train.jsonl, eval.jsonl and TensorBoard.

The keys of the rows are a public format; `log_rows` owns them.
"""
