"""From image files to batches: preparing TFRecords; reading, decoding and augmenting examples."""
