"""Keras's settings are those of Gantry, whatever a user has set for other programs."""

import json
import os
import subprocess
import sys

import keras
import pytest

from engine.distribution.precision import set_precision
from engine.errors import ConfigurationError

SHOW = """
from engine.distribution.precision import set_precision
set_precision("float32")
import keras
print(keras.config.backend(), keras.config.image_data_format(), keras.config.floatx())
"""


@pytest.mark.parametrize("variables", [{}, {"KERAS_BACKEND": "jax"}])
def test_settings_for_other_programs(tmp_path, variables):
    settings = {"backend": "torch", "image_data_format": "channels_first", "floatx": "float16"}
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text(json.dumps(settings))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("KERAS_")}
    environment = inherited | {"HOME": str(tmp_path)} | variables
    shown = subprocess.run(
        [sys.executable, "-c", SHOW], env=environment, capture_output=True, text=True, check=False
    )
    assert shown.stdout == "tensorflow channels_last float32\n", shown.stderr


def test_another_backend_that_was_imported_before(monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(ConfigurationError, match="backend 'jax'; start Python again"):
        set_precision("float32")
