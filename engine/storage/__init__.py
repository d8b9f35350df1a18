"""Files of a run: its directory, checkpoints and their manifests, writing that loses nothing.

Any path may be a URL that `tf.io.gfile` reads.
"""
