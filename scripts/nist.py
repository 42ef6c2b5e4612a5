"""Do the fits reach NIST's certified values? Prints the correct digits of each coefficient.

python scripts/nist.py
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from trainer import experiment, loop
from trainer.config import load
from trainer.console import Console
from trainer.models.linear import Linear
from trainer.monitor import Monitor

CONFIGS = Path(__file__).parent.parent / "configs"


def correct_digits(name: str) -> dict[str, float]:
    """The log relative error -log10(|found - certified| / |certified|) of each coefficient."""
    certified = json.loads((CONFIGS / "data" / "nist_certified.json").read_text())[name]
    config, document = load(CONFIGS / f"{name}.yaml", [], [experiment.check])
    built = experiment.build(config, document)
    loop.run(built, Monitor(built.model), Console(quiet=True))
    assert isinstance(built.model, Linear)
    found = dict(built.model.coefficients(built.rows))
    expected = {f"weight[{x}]": value for x, value in certified["coefficients"].items()}
    expected["bias"] = certified["intercept"]
    assert set(found) == set(expected)
    return {
        key: -math.log10(max(abs(found[key] - value) / abs(value), 1e-16))
        for key, value in expected.items()
    }


def main() -> None:
    for name in ("norris", "longley"):
        for key, digits in correct_digits(name).items():
            print(f"{name:8} {key:22} {digits:5.1f} correct digits")


if __name__ == "__main__":
    main()
