"""Files of a run: its directory, its checkpoints with their manifests, and safe writing.

Any path may be a URL that `tf.io.gfile` reads. `data.gfile` is the layer below.
"""
