"""A training on a Cloud TPU VM: gcloud's commands, the job, and the script that runs on the VM.

The program is `engine.tpu_job`. Nothing here needs TensorFlow.
"""
