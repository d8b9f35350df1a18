"""From files to batches: preparing TFRecords, the order of examples, decoding, augmenting."""
