"""The README's script runs as it stands, and prints what the README says it prints."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def test_the_plain_avalanche_script(tmp_path):
    text = README.read_text(encoding="utf-8")
    code = next(block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "RWalkPlugin(" in block)
    (tmp_path / "script.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

    def numbers(source: str) -> dict[str, tuple[float, float]]:
        found = re.findall(r"(?:^|# )(naive|rwalk|scp): accuracy ([\d.]+), forgetting ([\d.]+)", source, re.M)
        return {name: (float(accuracy), float(forgetting)) for name, accuracy, forgetting in found}

    printed, promised = numbers(done.stdout), numbers(code)
    assert set(printed) == set(promised) == {"naive", "rwalk", "scp"}
    for name in promised:
        # another machine rounds floating-point sums in another order
        assert abs(printed[name][0] - promised[name][0]) < 0.03
        assert abs(printed[name][1] - promised[name][1]) < 0.03
    for name in ("rwalk", "scp"):
        assert printed[name][1] < printed["naive"][1] - 0.1, "the plugin cuts forgetting"
