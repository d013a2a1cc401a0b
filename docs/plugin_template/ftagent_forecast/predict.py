"""Runs in the workspace: reads questions and parameters, leaves predictions. Copied there as text."""

import json
from pathlib import Path

params = json.loads(Path("params.json").read_text())
with Path("predictions.jsonl").open("w") as out:
    for line in Path("questions.jsonl").read_text().splitlines():
        question = json.loads(line)
        level, *later = question["past"]
        for value in later:
            level += params["smoothing"] * (value - level)
        out.write(json.dumps({"id": question["id"], "output": level}) + "\n")
