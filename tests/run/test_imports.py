"""What a run imports costs every user seconds and memory before the first step.

The models are smaller than their preset, since a run times what it is to compute on a machine that has not measured it.
"""

import subprocess
import sys

RUNS = """
import sys, lmworks
rows = [{"text": f"row {number}", "label": "ab"[number % 2]} for number in range(12)]
sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
texts = [{"text": "some words in a row"}] * 12
made = lmworks.pretrain("tinybert", texts, model=sizes, train={"steps": 1}, out="made")
lmworks.tune("made", rows, train={"steps": 1}, out="tuned").model.predict(["row"])
print([name for name in ("torch._dynamo", "torch._inductor", "sympy", "transformers") if name in sys.modules])
"""


def test_training_does_not_import_torchs_compiler(tmp_path) -> None:
    """130 MB and a second or more: the first ``torch.optim`` optimizer does, and numbers drawn on the device meta."""
    done = subprocess.run([sys.executable, "-c", RUNS], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
